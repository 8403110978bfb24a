"""Saying on stderr how an archive that leaves differs from what this version makes."""

from ingestor.settings import Settings

MOST_NAMED = 20


def differs(settings: Settings, *, through_views: bool = False) -> bool:
    """Name each difference on stderr; return whether what is written may lack rows or hold wrong ones.

    A copy of the tables does not depend on the views; what is read `through_views` does.
    """
    from ingestor.archive.intact import Grade, NotCompared, differences_of
    from ingestor.cli import complain
    from ingestor.errors import IngestorError

    try:
        found = differences_of(settings.database.url)
    except (NotCompared, IngestorError) as reason:
        complain(f"the archive was not compared with what this version makes ({reason})")
        return False
    for one in found[:MOST_NAMED]:
        complain(f"the archive differs from what this version makes: {one}")
    if found:
        more = f"{len(found) - MOST_NAMED} more differences; " if len(found) > MOST_NAMED else ""
        complain(f"{more}see `ingestor check`")
    return any(one.grade is Grade.HARM or (through_views and one.name.startswith("view ")) for one in found)
