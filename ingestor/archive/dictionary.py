"""The zstd dictionary that ships with the program: mails halve in size once more, and pack faster.

It was trained on generated sample mails, never on anybody's own: a dictionary holds pieces of what it was
trained on, and its table is one that nothing is ever erased from. The bytes of a number never change; a
better dictionary gets a new number, and old payloads keep theirs.
"""

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine

SHIPPED = 1
"""Its number in the table `dictionaries`."""


@cache
def shipped() -> tuple[int, bytes]:
    """Return number and bytes of the dictionary that new payloads are packed with."""
    return SHIPPED, files("ingestor.archive").joinpath(f"mails-{SHIPPED}.zdict").read_bytes()


def usable_dictionary(engine: "Engine") -> tuple[int, bytes] | None:
    """Return what payloads for this archive may be packed with, kept there from now on.

    None where another program's dictionary has this number: then payloads go without. Raises
    ArchiveUnavailable where the database cannot take a write now.
    """
    from datetime import UTC, datetime

    from sqlalchemy import select
    from sqlalchemy.dialects import postgresql, sqlite

    from ingestor.archive.engine import reading, writing
    from ingestor.archive.tables import dictionaries

    number, content = shipped()
    stands = select(dictionaries.c.bytes).where(dictionaries.c.id == number)
    with reading(engine) as connection:
        found = connection.execute(stands).scalar()
    if found is None:
        with writing(engine) as connection:
            row = {"id": number, "bytes": content, "created_at": datetime.now(UTC)}
            insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert
            connection.execute(insert(dictionaries).values(**row).on_conflict_do_nothing())
            found = connection.execute(stands).scalar_one()
    return (number, content) if bytes(found) == content else None
