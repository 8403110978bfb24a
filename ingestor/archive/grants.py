"""What a role needs to write an archive on PostgreSQL, and which GRANTs it still lacks."""

from sqlalchemy import Connection, text

from ingestor.archive import views
from ingestor.archive.tables import ERASABLE, PERMANENT, metadata

_READ_ONLY = ("archive_key", "alembic_version", *views.NAMES)


def writers(connection: Connection) -> list[str]:
    """Return every role, quoted, that somebody let INSERT into `sms`: those that run the program."""
    found = connection.execute(
        text(
            "SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role"
            " FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE c.oid = to_regclass('sms')"
            " AND a.privilege_type = 'INSERT' AND a.grantee <> c.relowner ORDER BY role"
        )
    )
    return list(found.scalars())


def missing(connection: Connection, role: str) -> list[str]:
    """Return the GRANTs that `role` (quoted) lacks, for what exists in the database; none for its owner."""
    lacks: dict[str, list[str]] = {}
    for table in (*metadata.tables, *_READ_ONLY):
        for privilege in _needed(table):
            if _lacks(connection, "table", role, table, privilege):
                lacks.setdefault(privilege, []).append(table)
    grants = [f"GRANT {what} ON {', '.join(dict.fromkeys(of))} TO {role}" for what, of in lacks.items()]
    sequences = [
        name for name in _sequences(connection) if _lacks(connection, "sequence", role, name, "USAGE")
    ]
    if sequences:
        grants.append(f"GRANT USAGE ON SEQUENCE {', '.join(sequences)} TO {role}")
    return grants


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
