"""The database: can it be reached and written, and is its schema ours. Nothing is created or changed."""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, inspect, text

from ingestor.archive import grants
from ingestor.archive.engine import open_engine, opened, reading, sqlite_path
from ingestor.archive.faults import unwritable
from ingestor.archive.intact import NotCompared, differences_of
from ingestor.archive.integrity import can_check_itself, damage
from ingestor.archive.items import Item
from ingestor.archive.mailbox_state import not_fetched
from ingestor.archive.migrate import (
    current,
    head,
    history,
    refuse_unusable,
    room_for_copy,
    upgrade_command,
)
from ingestor.archive.open_file import fault, saved_copies
from ingestor.archive.payloads import pack
from ingestor.archive.store import Store
from ingestor.errors import ArchiveUnavailable, IngestorError
from ingestor.numbers import OriginatorKind
from ingestor.providers.contract import Readable
from ingestor.record import Channel, InboundSms
from ingestor.redaction import some_of
from ingestor.service.checks import Finding, Level, fail, ok, warn
from ingestor.settings import Settings, hide_url_password, state_directory
from ingestor.timestamps import TimeQuality

_REPLICATION = text(
    "SELECT current_setting('synchronous_standby_names'),"
    " (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'),"
    " (SELECT count(*) FROM pg_stat_replication), pg_backend_pid()"
)
_WEAK = ("off", "local", "remote_write")

_OWNER = text("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('sms')")


def check(settings: Settings, state_fails: bool) -> Sequence[Finding]:
    """Return what is found about the database; `state_fails`: what ails the state directory is told."""
    url = settings.database.url
    path = sqlite_path(url)
    shown = str(path) if path else hide_url_password(url)
    if path is not None and (finding := _file(path.absolute(), settings)) is not None:
        told = state_fails and path.absolute().parent == state_directory(settings)
        return [] if finding.level is Level.FAIL and told else [finding]
    try:
        with opened(url, read_only=True) as engine:
            schema = _schema(engine, settings)
            missing = _not_fetched(engine) if schema.level is Level.OK else []
            if engine.dialect.name == "postgresql":
                found = [_rights(engine, shown), schema, *_servers(engine, settings)]
            else:
                copies = [
                    warn("database", f"{copy} was saved when the file was moved; the archive holds all of it",
                         "remove it")
                    for copy in saved_copies(path or Path())
                ]  # fmt: skip
                found = [ok("database", f"{shown} can be read and written"), *copies, schema]
            well = current(engine) == head() and all(one.level is not Level.FAIL for one in found)
            likeness = _likeness(engine) if current(engine) == head() else []
            return [*found, *missing, *(_tried(settings, path) if well else ()), *likeness]
    except ArchiveUnavailable as error:
        if path is not None:
            raise
        return [fail("database", str(error), "start it, or correct database.url; the daemon waits for it")]


def _not_fetched(engine: Engine) -> list[Finding]:
    """Name the mails that their server has not given so far."""
    try:
        missing = not_fetched(engine)
    except IngestorError:  # a role that may not read them
        return []
    places = groupby(missing, lambda entry: (entry.work.mailbox, entry.work.folder, entry.reason))
    return [
        warn(
            f"mailbox {mailbox}",
            f"folder {folder}: mails that do not come: UID {some_of([entry.work.uid for entry in entries])} "
            f"({reason})",
            "they are tried again; look at them in a mail program, and into the server's log",
        )
        for (mailbox, folder, reason), entries in places
    ]


def _likeness(engine: Engine) -> list[Finding]:
    """Return what of the archive is not as this version makes it."""
    try:
        found = differences_of(engine)
    except NotCompared as reason:
        return [
            warn("archive", f"not compared with what this version makes ({reason})", "call it as the owner")
        ]
    if not found:
        return [ok("archive", "tables, keys, guards and views are as this version makes them")]
    return [
        fail("archive", str(one), "run: ingestor db repair" if one.mendable else "undo it, or restore a copy")
        for one in found
    ]


def deep(settings: Settings, progress: Callable[[int, int], None]) -> Iterator[Finding]:
    """Read the whole archive, and yield what is damaged."""
    with opened(settings.database.url, read_only=True) as engine:
        if not can_check_itself(engine):
            yield warn(
                "archive", "PostgreSQL's own check is not installed; every row was read instead",
                "as a superuser: CREATE EXTENSION amcheck; GRANT EXECUTE ON FUNCTION bt_index_check TO …",
            )  # fmt: skip
        healthy = True
        for sentence in damage(engine, progress):
            healthy = False
            yield fail("archive", sentence, "restore a copy")
        if healthy:
            yield ok("archive", "every page and every kept byte is as it was written")


def _file(path: Path, settings: Settings) -> Finding | None:
    """Return what keeps an SQLite file from being opened or written, or that it will be made."""
    folder = path.parent
    if not folder.is_dir():
        return fail(
            "database", f"the folder {folder} does not exist", f"make it: install -d -m 0750 {folder}"
        )
    if (why := fault(path)) is not None:
        what, _, fix = why.partition("; ")
        return fail("database", what, fix)
    if not path.exists():
        if (why_not := unwritable(folder)) is not None:
            return fail("database", f"{why_not[0]}, so {path.name} cannot be made", why_not[1])
        if not settings.database.auto_upgrade:
            engine = open_engine(settings.database.url, read_only=True)
            return fail(
                "database",
                f"{path} does not exist and auto_upgrade is false",
                f"run: {upgrade_command(engine)}",
            )
        return ok("database", f"{path} does not exist yet; the first start makes it")
    unwritten = unwritable(path)
    return fail("database", *unwritten) if unwritten is not None else None


def _schema(engine: Engine, settings: Settings) -> Finding:
    stands, newest = current(engine), head()
    with reading(engine) as connection:
        tables = set(inspect(connection).get_table_names())
        owner = engine.dialect.name == "sqlite" or connection.execute(_OWNER).scalar() is not False
    if "snapshot_of" in tables:
        return fail(
            "schema",
            f"it is a snapshot (of schema {stands}), for reading only",
            "name the archive in database.url",
        )
    if stands == newest:
        return ok("schema", f"{stands} is current")
    if stands is None:
        try:
            refuse_unusable(engine)
        except IngestorError as error:
            what, _, fix = str(error).partition("; ")
            return fail("schema", what, fix)
    if stands is None and tables & {"sms", "arrivals"}:
        return fail(
            "schema",
            "there are tables, but no word of which schema they have",
            "restore the archive from a copy",
        )
    if stands is not None and stands > newest:
        return fail("schema", f"{stands} is newer than this program ({newest})", "install the newer ingestor")
    if stands is not None and stands not in {revision.number for revision in history()}:
        return fail("schema", f"{stands} is none that this program knows", "restore the archive from a copy")
    found = "there is none yet" if stands is None else f"{stands} is older than this program ({newest})"
    if not owner:
        return fail("schema", f"{found}, and this role may not change it", f"run: {upgrade_command(engine)}")
    if stands is not None and (lack := room_for_copy(engine, stands)[1]) is not None:
        return fail("schema", f"{found}, and {lack}", "make room: the upgrade copies the archive first")
    if settings.database.auto_upgrade:
        return ok("schema", f"{found}; the next start brings it up")
    return fail("schema", f"{found} and auto_upgrade is false", f"run: {upgrade_command(engine)}")


def _tried(settings: Settings, path: Path | None) -> list[Finding]:
    """Say where the archive takes no SMS although all looks well; a file only its owner tries to write."""
    if path is not None and path.stat().st_uid != os.geteuid():
        return []
    now = datetime.now(UTC)
    try:
        with opened(settings.database.url) as engine:
            refusal = Store(engine).why_refused(_sample(now), now)
    except ArchiveUnavailable as error:
        return [fail("database", str(error), "end what holds it, or make room; the daemon waits for it")]
    except IngestorError as error:
        return [fail("database", f"it takes no SMS: {error}", "restore the archive from a copy")]
    if refusal is None:
        return []
    fix = "the tables are not those of this program: restore the archive from a copy, or report it"
    return [fail("database", f"it refuses every SMS ({refusal})", fix)]


def _sample(now: datetime) -> Item:
    """Return an SMS that nobody sent."""
    sms = InboundSms(
        "check", "check", OriginatorKind.ALPHA, "check", "check", "check", "20260101000000", now,
        TimeQuality.OK, os.urandom(16).hex(),
    )  # fmt: skip
    return Item(Readable(sms, "check/1"), Channel.IMPORT, "check", os.urandom(36), now, pack(b""))


def _servers(engine: Engine, settings: Settings) -> list[Finding]:
    """Say which of OPERATING.md's steps it is: one server, standbys, and whether commits wait for them."""
    with reading(engine) as connection:
        if connection.execute(text("SELECT pg_is_in_recovery()")).scalar():
            return []
        names, default, standbys, process = connection.execute(_REPLICATION).one()
        driver: Any = connection.connection.dbapi_connection
        pooled = driver.info.backend_pid != process  # a pooler makes its own up
    found = [ok("database", "a pooler such as PgBouncer stands in between")] if pooled else []
    if names:
        waits = f"each commit waits for a standby ({names})"
        raised = f"; the role's synchronous_commit = {default} is raised to on" if default in _WEAK else ""
        return [*found, ok("replication", waits + raised)]
    if not standbys:
        return [*found, ok("replication", "one server; no standby is connected")]
    lost = ["POSTs"] if settings.webhook and not settings.webhook.spool_first else []
    lost += ["mails"] if any(one.after_store == "delete" for one in settings.mailbox) else []
    seen = f"no commit waits for a standby, and {standbys} {'are' if standbys > 1 else 'is'} connected"
    if not lost:
        return [*found, ok("replication", f"{seen}; what a failover loses is submitted again")]
    wanted = ["synchronous_standby_names (Patroni: synchronous_mode)"]
    wanted += ["[webhook] spool_first = true"] if "POSTs" in lost else []
    wanted += ['after_store = "move"'] if "mails" in lost else []
    fix = f"set {' or '.join(wanted)}; OPERATING.md, several machines"
    return [*found, warn("replication", f"{seen}: a failover loses the last {' and '.join(lost)}", fix)]


def _rights(engine: Engine, shown: str) -> Finding:
    """Say whether PostgreSQL takes writes, and from this role."""
    with reading(engine) as connection:
        if connection.execute(text("SELECT pg_is_in_recovery()")).scalar():
            return fail(
                "database", f"{shown} is a standby and takes no writes", "name the primary in database.url"
            )
        role = connection.execute(text("SELECT quote_ident(current_user)")).scalar_one()
        missing = grants.missing(connection, role)
        superuser = connection.execute(text("SELECT current_setting('is_superuser')")).scalar() == "on"
    if missing:
        fix = f"as the owner of the tables: {'; '.join(missing)}"
        return fail("database", f"{shown}: role {role} lacks rights that the daemon needs", fix)
    if superuser:
        return warn("database", f"{shown} is written as a superuser", "give the daemon a role of its own")
    return ok("database", f"{shown} can be read and written by {role}")
