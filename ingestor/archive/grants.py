"""What a role needs to write or to read an archive on PostgreSQL, and which GRANTs it still lacks."""

from sqlalchemy import Connection, text

from ingestor.archive import views
from ingestor.archive.tables import ERASABLE, PERMANENT, metadata

_READ_ONLY = ("archive_key", "alembic_version", *views.NAMES)


def writers(connection: Connection) -> list[str]:
    """Return every role, quoted, that somebody let INSERT into `sms`: those that run the program."""
    return _granted(connection, "sms", "INSERT")


def readers(connection: Connection) -> list[str]:
    """Return every other role, quoted, that somebody let SELECT from `payloads`, which hold everything."""
    writing = writers(connection)
    return [role for role in _granted(connection, "payloads", "SELECT") if role not in writing]


def _granted(connection: Connection, table: str, privilege: str) -> list[str]:
    found = connection.execute(
        text(
            "SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role"
            " FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE c.oid = to_regclass(:table)"
            " AND a.privilege_type = :privilege AND a.grantee <> c.relowner ORDER BY role"
        ),
        {"table": table, "privilege": privilege},
    )
    return list(found.scalars())


def missing(connection: Connection, role: str, *, reads: bool = False) -> list[str]:
    """Return the GRANTs that `role` (quoted) lacks, for what exists in the database; none for its owner.

    One that only `reads` is for everything but the archive's key.
    """
    lacks: dict[str, list[str]] = {}
    for table in (*metadata.tables, *_READ_ONLY):
        for privilege in _needed_to_read(table) if reads else _needed(table):
            if _lacks(connection, "table", role, table, privilege):
                lacks.setdefault(privilege, []).append(table)
    grants = [f"GRANT {what} ON {', '.join(dict.fromkeys(of))} TO {role}" for what, of in lacks.items()]
    sequences = [
        name for name in _sequences(connection)
        if not reads and _lacks(connection, "sequence", role, name, "USAGE")
    ]  # fmt: skip
    if sequences:
        grants.append(f"GRANT USAGE ON SEQUENCE {', '.join(sequences)} TO {role}")
    return grants


def _needed_to_read(table: str) -> tuple[str, ...]:
    return () if table == "archive_key" else ("SELECT",)


def _needed(table: str) -> tuple[str, ...]:
    if table in _READ_ONLY:
        return ("SELECT",)
    if table in PERMANENT + ERASABLE:
        return ("SELECT", "INSERT")
    return ("SELECT", "INSERT", "UPDATE", "DELETE")


def _lacks(connection: Connection, kind: str, role: str, name: str, privilege: str) -> bool:
    """Say so; not of what does not exist."""
    asked = text(f"SELECT NOT has_{kind}_privilege(:role, to_regclass(:name)::oid, :privilege)")
    plain = connection.execute(text("SELECT (parse_ident(:role))[1]"), {"role": role}).scalar_one()
    role = "public" if role == "PUBLIC" else plain
    return bool(connection.execute(asked, {"role": role, "name": name, "privilege": privilege}).scalar())


def _sequences(connection: Connection) -> list[str]:
    found = connection.execute(
        text(
            "SELECT c.relname FROM pg_class AS c JOIN pg_class AS sms ON sms.oid = to_regclass('sms')"
            " WHERE c.relkind = 'S' AND c.relnamespace = sms.relnamespace ORDER BY c.relname"
        )
    )
    ours = tuple(f"{table}_" for table in metadata.tables)
    return [name for name in found.scalars() if name.startswith(ours)]
