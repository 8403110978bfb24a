"""What nearly every command begins with: the settings, the log, and the archive.

Commands need not close what they open here: `ingestor.cli.main` does, however they end.
"""

import argparse
import gc
import os
import threading
from contextlib import suppress

from sqlalchemy import Engine

from ingestor.archive.engine import open_engine
from ingestor.archive.faults import read_only, unwritable
from ingestor.archive.migrate import current, ensure_schema, head, refuse_unusable, upgrade_command
from ingestor.archive.open_file import fault
from ingestor.archive.ownership import as_owner, become_owner, ownership_advice, refuse_closed, sudo_line
from ingestor.cli import complain
from ingestor.cli import settings_of as settings_of
from ingestor.errors import ArchiveUnavailable, ConfigurationError, IngestorError, SchemaMismatch
from ingestor.logs import configure
from ingestor.settings import Settings, state_directory

MOST_NAMED = 20

PATIENCE = 5.0
"""After how many seconds a command that writes looks whether its commits wait for a standby."""

_opened: list[Engine] = []
_ended = threading.Event()


def configure_log(arguments: argparse.Namespace) -> None:
    """Send the log to stderr as --log-format asks for, for commands that log."""
    configure(arguments.log_format)


def open_for_reading(settings: Settings) -> Engine:
    """Return the engine of an archive of this program's schema; nothing is written. Raises IngestorError."""
    engine = open_unchecked(settings)
    try:
        with as_owner(settings.database.url, state_directory(settings)):
            stands = current(engine)
    except ArchiveUnavailable as fault:
        raise _closed_to_readers(settings) or fault from None
    if stands != head():
        refuse_unusable(engine)
        raise SchemaMismatch(
            f"the archive has {f'schema {stands}' if stands else 'no schema yet'}, this program reads "
            f"{head()}; run: {upgrade_command(engine)}"
        )
    return engine


def open_for_writing(settings: Settings, *, create: bool = False) -> Engine:
    """Return the engine of the archive, its schema current; a missing one is made where `create`. Raises
    IngestorError where there is none, ConfigurationError with the `sudo -u` line for who may not write it.
    """
    if not create:
        _require_file(settings)
    engine = open_unchecked(settings, writing=True)
    ensure_schema(engine, auto_upgrade=settings.database.auto_upgrade)
    return engine


def open_unchecked(settings: Settings, *, writing: bool = False) -> Engine:
    """Return the engine of the archive, whatever its schema; only `writing` makes a missing one. Root writes
    as its owner from here on: what root alone may do must be done before.
    """
    if writing:
        become_owner(settings.database.url, state_directory(settings))
        # No command but `run` leaves a file beside an archive in PostgreSQL.
        file = settings.database.file
        advice = file and ownership_advice(settings.database.url, state_directory(settings))
        if advice:
            raise ConfigurationError(advice)
    else:
        _require_file(settings)
    gc.disable()  # as `main` does for what it imports: this loads PostgreSQL's driver
    try:
        engine = open_engine(settings.database.url, read_only=not writing)
    finally:
        if gc.get_freeze_count():
            gc.freeze()
        gc.enable()
    _opened.append(engine)
    if writing and settings.database.file is None:
        _ended.clear()
        threading.Thread(target=_tell_of_waiting, args=(engine,), daemon=True).start()
    return engine


def _tell_of_waiting(engine: Engine) -> None:
    """Say once that a commit waits for a standby: PostgreSQL lets it wait for ever, without a word."""
    while not _ended.wait(PATIENCE):
        from ingestor.watch.troubles import of_commits

        with suppress(IngestorError):
            for one in of_commits(engine, PATIENCE):
                complain(f"{one}; it goes on by itself then. To do: {one.fix}")
                return


def close_all() -> None:
    """Close what was opened here: SQLite then takes its -wal file in, and PostgreSQL hears a good-bye."""
    _ended.set()
    while _opened:
        _opened.pop().dispose()


def _closed_to_readers(settings: Settings) -> ConfigurationError | None:
    """Return the sentence for a SQLite archive in a folder that is not ours: in WAL mode even a reader has to
    make files beside it, unless the daemon is running and has made them.
    """
    file = settings.database.file
    if file is None or os.access(file.absolute().parent, os.W_OK):
        return None
    path = file.absolute()
    if read_only(path.parent) and (why := unwritable(path)) is not None:
        return ConfigurationError("; ".join(why))
    return ConfigurationError(
        f"{path} cannot be opened by a user who may not write its folder while no daemon runs; "
        f"run: {sudo_line(path.stat().st_uid)} (or read an `ingestor snapshot`)"
    )


def archive_exists(settings: Settings) -> bool:
    """Say whether the archive is there to be opened; a PostgreSQL server is always asked."""
    file = settings.database.file
    return file is None or file.exists()


def _require_file(settings: Settings) -> None:
    """Raise where the archive should be a SQLite file that is not there, or is closed to this user."""
    file = settings.database.file
    if file is None:
        return
    path = file.absolute()
    try:
        path.stat()
    except FileNotFoundError:
        if (why := fault(path)) is not None:
            raise IngestorError(why) from None
        raise IngestorError(
            f"there is no archive at {path}; name another with --database-url or --config, "
            "or make this one with `ingestor db upgrade`"
        ) from None
    except OSError:
        refuse_closed(path)
    if not os.access(path, os.R_OK):
        refuse_closed(path)


def differs(engine: Engine, *, through_views: bool = False) -> bool:
    """Name each difference on stderr; return whether what is written may lack rows or hold wrong ones: a copy
    of the tables does not depend on the views, what is read `through_views` does.
    """
    from ingestor.archive.intact import NotCompared, differences_of  # exports and copies compare

    try:
        found = differences_of(engine)
    except (NotCompared, IngestorError) as reason:
        complain(f"the archive was not compared with what this version makes ({reason})")
        return False
    for one in found[:MOST_NAMED]:
        complain(f"the archive differs from what this version makes: {one}")
    if found:
        more = f"{len(found) - MOST_NAMED} more differences; " if len(found) > MOST_NAMED else ""
        complain(f"{more}see `ingestor check`")
    return any(one.harms or (through_views and one.name.startswith("view ")) for one in found)
