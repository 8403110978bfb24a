"""Leases: which of several programs acts for a name, until when, by the database's clock alone.

Two machines' clocks differ, and an advisory lock of a dead machine stays until TCP gives up, or strands in a
pooler for an hour (goauthentik/authentik#23876): a row that runs out needs neither.
"""

from typing import Final

from sqlalchemy import Engine, text

from ingestor.archive.engine import writing

_NOW: Final = {"sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')", "postgresql": "clock_timestamp()"}
_END: Final = {
    "sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+' || :seconds || ' seconds')",
    "postgresql": "clock_timestamp() + make_interval(secs => :seconds)",
}


def take_lease(engine: Engine, name: str, holder: str, seconds: float) -> bool:
    """Take the lease `name` for `holder`, or renew it; say whether it is theirs for `seconds` from now.

    It is not where another holder's has not run out. Raises ArchiveUnavailable, ConfigurationError.
    """
    dialect = engine.dialect.name
    statement = text(
        f"INSERT INTO leases (name, holder, expires_at) VALUES (:name, :holder, {_END[dialect]})"  # noqa: S608 - constants
        " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at"
        f" WHERE leases.holder = excluded.holder OR leases.expires_at <= {_NOW[dialect]} RETURNING name"
    )
    with writing(engine) as connection:
        given = {"name": name, "holder": holder, "seconds": seconds}
        return connection.execute(statement, given).first() is not None


def release_lease(engine: Engine, name: str, holder: str) -> None:
    """Let others take the lease at once, if it is `holder`'s."""
    now = _NOW[engine.dialect.name]
    statement = text(f"UPDATE leases SET expires_at = {now} WHERE name = :name AND holder = :holder")  # noqa: S608 - our own names
    with writing(engine) as connection:
        connection.execute(statement, {"name": name, "holder": holder})
