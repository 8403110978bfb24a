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
    """Return the GRANTs that `role` (quoted) lacks, for what exists; one that `reads` may not see the key."""
    plain = connection.execute(text("SELECT (parse_ident(:role))[1]"), {"role": role}).scalar_one()
    plain = "public" if role == "PUBLIC" else plain
    every = dict.fromkeys((*metadata.tables, *_READ_ONLY))
    wanted = [(privilege, table) for table in every for privilege in _needed(table, reads=reads)]
    privileges, names = map(list, zip(*wanted, strict=True))
    found = connection.execute(
        text(
            "SELECT privilege, name FROM unnest(CAST(:privileges AS text[]), CAST(:names AS text[]))"
            " WITH ORDINALITY AS given (privilege, name, place)"
            " WHERE NOT has_table_privilege(:role, to_regclass(name)::oid, privilege) ORDER BY place"
        ),
        {"role": plain, "privileges": privileges, "names": names},
    )
    lacks: dict[str, list[str]] = {}
    for privilege, table in found:
        lacks.setdefault(privilege, []).append(table)
    grants = [f"GRANT {privilege} ON {', '.join(of)} TO {role}" for privilege, of in lacks.items()]
    if not reads and (sequences := _closed_sequences(connection, plain)):
        grants.append(f"GRANT USAGE ON SEQUENCE {', '.join(sequences)} TO {role}")
    return grants


def _needed(table: str, *, reads: bool) -> tuple[str, ...]:
    if reads and table == "archive_key":
        return ()
    if reads or table in _READ_ONLY:
        return ("SELECT",)
    if table in PERMANENT + ERASABLE:
        return ("SELECT", "INSERT")
    return ("SELECT", "INSERT", "UPDATE", "DELETE")


def _closed_sequences(connection: Connection, role: str) -> list[str]:
    found = connection.execute(
        text(
            "SELECT c.relname FROM pg_class AS c JOIN pg_class AS sms ON sms.oid = to_regclass('sms')"
            " WHERE c.relnamespace = sms.relnamespace AND"  # of what is no sequence nothing may be asked
            " CASE c.relkind WHEN 'S' THEN NOT has_sequence_privilege(:role, c.oid, 'USAGE') END"
            " ORDER BY c.relname"
        ),
        {"role": role},
    )
    ours = tuple(f"{table}_" for table in metadata.tables)
    return [name for name in found.scalars() if name.startswith(ours)]
