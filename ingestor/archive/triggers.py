"""Triggers that keep the append-only tables append-only, on both databases.

They are dropped before a migration and made again after it: Alembic's batch mode drops them silently
(measured with 1.20.1).
"""

from sqlalchemy import Connection

from ingestor.archive.tables import ERASABLE, PERMANENT

# What identifies a row: an insert that meets one of these is ignored, never turned into a REPLACE.
_KEYS = {
    "archive_key": ("id = NEW.id",),
    "dictionaries": ("id = NEW.id",),
    "sms": ("id = NEW.id", "fingerprint = NEW.fingerprint"),
    "arrivals": (
        "id = NEW.id",
        (
            "content_key = NEW.content_key AND number = NEW.number AND channel = NEW.channel"
            " AND place = NEW.place"
        ),
    ),
    "retries": (
        "id = NEW.id",
        "arrival_id = NEW.arrival_id AND sms_id IS NOT NULL AND NEW.sms_id IS NOT NULL",
    ),
    "sms_content": ("sms_id = NEW.sms_id",),
    "arrival_content": ("arrival_id = NEW.arrival_id",),
    "payloads": ("arrival_id = NEW.arrival_id",),
    "consents": (
        "id = NEW.id",
        "sms_id = NEW.sms_id AND kind = NEW.kind AND scope = NEW.scope",
        (
            "number_hmac = NEW.number_hmac AND kind = NEW.kind AND scope = NEW.scope AND at = NEW.at"
            " AND sms_id IS NULL AND NEW.sms_id IS NULL"
        ),
    ),
    "consent_content": ("consent_id = NEW.consent_id",),
    "answers": (
        "id = NEW.id",
        "sms_id = NEW.sms_id AND rule = NEW.rule",
        "message_id = NEW.message_id",
        "resend_of = NEW.resend_of",
    ),
    "answer_content": ("answer_id = NEW.answer_id",),
    "answer_events": (
        "id = NEW.id",
        "answer_id = NEW.answer_id AND attempt = NEW.attempt AND event = NEW.event",
    ),
    "delivery_reports": ("id = NEW.id", "post = NEW.post AND number = NEW.number"),
    "delivery_report_content": ("report_id = NEW.report_id",),
}


def expected(dialect: str) -> set[tuple[str, str]]:
    """Return (table, trigger) of every trigger that must exist on `dialect`."""
    kinds = ("no_update", "no_delete", "no_replace" if dialect == "sqlite" else "no_truncate")
    return {(table, f"{table}_{kind}") for table in PERMANENT + ERASABLE for kind in kinds}


def create(connection: Connection) -> None:
    """Make all triggers."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_REFUSE)
    for table in PERMANENT + ERASABLE:
        for statement in _statements(connection.dialect.name, table):
            connection.exec_driver_sql(statement)


def drop(connection: Connection, *, every: bool = False) -> None:
    """Drop our triggers that exist; with `every` those that somebody disabled, too."""
    sqlite = connection.dialect.name == "sqlite"
    for table, trigger in sorted(installed(connection, every=every)):
        connection.exec_driver_sql(f"DROP TRIGGER {trigger}" + ("" if sqlite else f" ON {table}"))


def installed(connection: Connection, *, every: bool = False) -> set[tuple[str, str]]:
    """Return (table, trigger) of the append-only triggers that exist and are enabled, or of `every` one."""
    if connection.dialect.name == "sqlite":
        query = "SELECT tbl_name, name FROM sqlite_schema WHERE type = 'trigger'"
    else:
        query = (
            "SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
            " WHERE NOT t.tgisinternal AND pg_table_is_visible(c.oid)"
        )
        query += "" if every else " AND t.tgenabled <> 'D'"
    ours = expected(connection.dialect.name)
    return {pair for table, name in connection.exec_driver_sql(query) if (pair := (table, name)) in ours}


_REFUSE = """
CREATE OR REPLACE FUNCTION archive_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'restrict_violation',
    MESSAGE = 'table ' || TG_TABLE_NAME || ' is append-only: ' || TG_OP || ' is refused';
END $$
"""


def _statements(dialect: str, table: str) -> list[str]:
    if dialect == "postgresql":
        return [
            f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table}"
            f" FOR EACH {level} EXECUTE FUNCTION archive_is_append_only()"
            for event, level in (("UPDATE", "ROW"), ("DELETE", "ROW"), ("TRUNCATE", "STATEMENT"))
        ]
    refuse = [
        f"CREATE TRIGGER {table}_no_{event.lower()} BEFORE {event} ON {table}"
        f" BEGIN SELECT RAISE(ABORT, 'table {table} is append-only: {event} is refused'); END"
        for event in ("UPDATE", "DELETE")
    ]
    # IGNORE and not ABORT: ON CONFLICT DO NOTHING stays right, and INSERT OR REPLACE changes nothing.
    known = " ".join(f"SELECT RAISE(IGNORE) FROM {table} WHERE {key};" for key in _KEYS[table])  # noqa: S608 - names are our own
    return [*refuse, f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} BEGIN {known} END"]
