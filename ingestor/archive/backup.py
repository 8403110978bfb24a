"""Backups: the whole archive with its key as one SQLite file, and the way back.

A backup is a copy by `transfer`, from PostgreSQL as from SQLite: one kind of file, which opens by itself.
"""

import os
import pwd
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection, Engine, func, select, text

from ingestor.archive import tables
from ingestor.archive.engine import opened, reading, sqlite_path
from ingestor.archive.erased_again import Again, erase_again
from ingestor.archive.export import Snapshot, Tell, leaving, written
from ingestor.archive.faults import is_snapshot, translated
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.migrate import current, head, refuse_unusable
from ingestor.archive.open_file import REPLACED, holds_all, plain_reader, put_back
from ingestor.archive.ownership import foreign_owner, sudo_line
from ingestor.archive.transfer import copy_archive
from ingestor.errors import ConfigurationError, IngestorError
from ingestor.timestamps import iso_utc

_BESIDE = ("", "-wal", "-shm")
# Whatever the backup does not know to be answered may have been answered since. The mails since then are read
# again: as in a mailbox's first reading, no rule answers them, nor any SMS that is in the backup. An answer
# that was decided and had not left, or of which nothing was heard, is for a person to look at.
_NOTHING_IS_ANSWERED_TWICE = (
    ("sources", "UPDATE sources SET last_success = NULL WHERE kind = 'mailbox'"),
    ("answering", "DELETE FROM answering WHERE name LIKE 'mailbox:%'"),
    ("answering", "UPDATE answering SET at = :now WHERE name LIKE 'rule:%'"),
    (
        "answer_events",
        """INSERT INTO answer_events (answer_id, attempt, event, at, detail)
        SELECT a.id, 1 + count(CASE WHEN e.event = 'later' THEN 1 END), 'unknown', :now,
        'the archive was restored from a backup that was older; it may have been sent'
        FROM answers AS a LEFT JOIN answer_events AS e ON e.answer_id = a.id
        WHERE a.suppressed IS NULL GROUP BY a.id
        HAVING count(CASE WHEN e.event <> 'sending' AND e.event <> 'later' THEN 1 END) = 0""",
    ),
)


@dataclass(frozen=True, slots=True)
class Backup(Snapshot):
    """A backup that was written and opened again, and the older ones removed."""

    removed: list[Path]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back, `before`: where the archive before it was put, and what of that was done `again`."""

    sms: int
    schema: str
    before: Path | None
    again: Again


def backup(engine: Engine, folder: Path, now: datetime, tell: Tell, keep: int | None = None) -> Backup:
    """Write the archive of `engine` into a new file in `folder`, for its owner alone, named by `now` (UTC).

    It appears whole, compared row by row and opened again, or not at all. Then, where `keep` is given, all
    but so many of the newest backups of this archive there are removed. Raises IngestorError.
    """
    file = sqlite_path(engine.url)
    name = file.stem if file is not None else str(engine.url.database)
    target = folder.absolute() / f"{name}-{now:%Y%m%dT%H%M%SZ}.db"
    if target.exists():
        raise IngestorError(f"{target} is there already; call it again in a second")
    with written(target, "or name another"), leaving(target, 0o600) as temporary:
        with opened(f"sqlite:///{temporary}") as copy:
            copy_archive(engine, copy, tell)
        with closing(sqlite3.connect(temporary)) as plain:
            plain.execute("PRAGMA journal_mode = DELETE")  # one file, that a read-only disk can hold
        sms = _look_at(temporary, key=read_archive_key(engine))
    removed = _beyond(target, name, keep) if keep is not None else []
    for one in removed:
        one.unlink(missing_ok=True)
    return Backup(target, target.stat().st_size, sms, removed)


def _beyond(made: Path, name: str, keep: int) -> list[Path]:
    """Return what goes when `made` stays: it may bear an older time than others, if a clock was wrong."""
    ours = re.compile(re.escape(name) + r"-[0-9]{8}T[0-9]{6}Z\.db")
    others = sorted(one for one in made.parent.iterdir() if one != made and ours.fullmatch(one.name))
    return others[: max(0, len(others) + 1 - keep)]


def _look_at(path: Path, key: bytes | None = None) -> int:
    """Open the backup at `path` as a reader would; return how many SMS it holds. Raises IngestorError."""
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}")
    if is_snapshot(path):
        raise ConfigurationError(
            f"{path} is a snapshot: it is for auditors and lacks the archive's key; name a file of "
            "`ingestor backup`"
        )
    with opened(f"sqlite:///{path}", read_only=True) as engine, translated(engine):
        if current(engine) is None:
            raise ConfigurationError(f"{path} is no archive; name a file of `ingestor backup`")
        refuse_unusable(engine)
        with reading(engine) as connection:
            said = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
            sms = connection.execute(select(func.count()).select_from(tables.sms)).scalar()
        if said != "ok":
            raise IngestorError(f"{path} is damaged ({said}); name another backup")
        if key not in (None, read_archive_key(engine)):
            raise IngestorError(f"{path} has another key than the archive; report it")
    return int(sms or 0)


def restore(
    file: Path, url: str, state_directory: Path, now: datetime, tell: Tell, *, replace: bool
) -> Restored:
    """Put the backup `file` in the place of the archive at `url`.

    A PostgreSQL database must be empty. An SQLite archive that has what `file` lacks is replaced only where
    `replace` says so, and is kept beside its place in any case; what it has erased is erased in its successor
    before that is there. Raises ConfigurationError where a process has the archive open.
    """
    sms = _look_at(file)
    with opened(f"sqlite:///{file.absolute()}", read_only=True) as engine:
        schema = current(engine) or ""
        path = sqlite_path(url)
        if path is not None:
            before, again = _put(file, path.absolute(), url, state_directory, now, replace=replace)
            return Restored(sms + again.later, head() if again.done else schema, before, again)
        if schema != head():
            raise ConfigurationError(
                f"{file} has schema {schema}; bring a copy of it up first: "
                f"ingestor --database-url sqlite:///{file.absolute()} db upgrade"
            )
        with opened(url) as target:
            copy_archive(engine, target, tell, lambda connection: _answer_nothing_twice(connection, now))
    return Restored(sms, schema, None, Again())


def _answer_nothing_twice(connection: Connection, now: datetime) -> None:
    for _, statement in _NOTHING_IS_ANSWERED_TWICE:
        connection.execute(text(statement), {"now": now})


def _put(
    file: Path, path: Path, url: str, state_directory: Path, now: datetime, *, replace: bool
) -> tuple[Path | None, Again]:
    """Put `file` at `path`; return where what was there has gone, and what of it was done once more."""
    if path.exists() and path.samefile(file):
        raise ConfigurationError(f"{file} is the archive itself; name a backup")
    if not os.access(path.parent, os.W_OK):
        raise ConfigurationError(
            f"{path.parent} may not be written by this user; run: {sudo_line(path.parent.stat().st_uid)}"
        )
    put_back(path)  # a restore that was killed: what was there tells what is erased
    if users := sorted(_users(path)):
        raise ConfigurationError(
            f"{path} is open in {', '.join(users)}; stop that first (systemctl stop ingestor), "
            "then call this again"
        )
    if path.exists() and not replace and not _all_is_in(file, path):
        raise ConfigurationError(
            f"{path} has rows that {file} lacks, or cannot be read; to go back all the same: ingestor "
            "restore --replace, which keeps it beside"
        )
    owner = foreign_owner(url, state_directory)
    before = path.with_name(f"{path.name}{REPLACED}{now:%Y%m%dT%H%M%SZ}")
    held, again = False, Again()
    try:
        with written(path, "and call it again"), leaving(path, 0o640) as temporary:
            with closing(plain_reader(file)) as source, closing(sqlite3.connect(temporary)) as copy:
                source.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")
                for table, statement in _NOTHING_IS_ANSWERED_TWICE:
                    if copy.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone():
                        copy.execute(statement, {"now": iso_utc(now)})
                copy.commit()
            if path.exists():
                again = erase_again(temporary, path)
            if owner is not None:
                os.chown(temporary, owner, _group(owner))
            for suffix in _BESIDE:
                with suppress(FileNotFoundError):
                    Path(f"{path}{suffix}").rename(f"{before}{suffix}")
                    held = True
    except BaseException:
        put_back(path)
        raise
    return (before if held else None), again


def _group(user: int) -> int:
    try:
        return pwd.getpwuid(user).pw_gid
    except KeyError:
        return user


def _all_is_in(file: Path, path: Path) -> bool:
    try:
        with closing(plain_reader(path)) as present:
            present.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            return holds_all(file.absolute(), present)
    except sqlite3.Error:
        return False


def _users(path: Path) -> Iterator[str]:
    """Yield the processes, as far as this user may see, that have the archive at `path` open."""
    names = {f"{path.resolve()}{suffix}" for suffix in _BESIDE}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int(process.name) != os.getpid() and not names.isdisjoint(
                map(_target, (process / "fd").iterdir())
            ):
                yield f"process {process.name} ({(process / 'comm').read_text().strip()})"


def _target(descriptor: Path) -> str:
    """Return what a descriptor in /proc leads to; one that was closed meanwhile leads nowhere."""
    try:
        return str(descriptor.readlink())
    except OSError:
        return ""
