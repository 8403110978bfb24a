"""`ingestor db`: the archive's schema."""

import argparse
import time
from datetime import UTC, datetime

from ingestor.archive import words
from ingestor.archive.engine import opened, reading
from ingestor.archive.faults import place
from ingestor.archive.migrate import current, head, history, upgrade
from ingestor.archive.ownership import become_owner
from ingestor.archive.runs import last_run_of
from ingestor.cli import verbs_of
from ingestor.cli.opening import (
    archive_exists,
    configure_log,
    open_for_reading,
    open_for_writing,
    open_unchecked,
    settings_of,
)
from ingestor.cli.printing import print_table, share_done
from ingestor.errors import IngestorError
from ingestor.settings import state_directory

EXAMPLES = """
ingestor db upgrade
ingestor db current
ingestor db history
ingestor db repair
ingestor db copy postgresql+psycopg://ingestor@db.example.org/sms
ingestor db vacuum
ingestor db index
ingestor --database-url postgresql+psycopg://ingestor@db.example.org/sms db upgrade
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verb = verbs_of(parser, EXAMPLES)
    add_verb("upgrade", "bring the schema up to this program's, or make a new archive", _upgrade)
    add_verb("current", "say which schema the archive has; exit 1 when it is not this program's", _current)
    add_verb("repair", "make this program's triggers, functions and views again where they differ", _repair)
    copy = add_verb(
        "copy", "copy the whole archive into another database, SQLite or PostgreSQL, to move there", _copy
    )
    copy.add_argument("url", metavar="URL", help="an empty database, or an earlier copy to be brought up")
    add_verb("vacuum", "write the archive anew, so that no byte of what was erased is left in it", _vacuum)
    add_verb("index", "take all texts into the index by which `search` finds words", _index)
    add_verb("history", "list all schemas this program knows", _history)


def _upgrade(arguments: argparse.Namespace) -> int:
    from ingestor.cli.optout import scan_all  # here and below: `current` needs none of it
    from ingestor.replies.opt_outs import words_of

    configure_log(arguments)
    settings = settings_of(arguments)
    opt_out_words = words_of(settings.opt_out)
    engine = open_unchecked(settings, writing=True)
    before = current(engine)
    upgrade(engine)
    if before == head():
        print(f"The schema is current already: {head()}.")
    else:
        print(f"The schema is now {head()} (before: {before or 'none'}).")
    if not scan_all(engine, opt_out_words).done:
        print("All SMS have been read for opt-outs.")
    return 0


def _current(arguments: argparse.Namespace) -> int:
    stands = current(open_unchecked(settings_of(arguments)))
    print(stands or "none")
    return 0 if stands == head() else 1


def _history(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    engine = open_unchecked(settings) if archive_exists(settings) else None
    rows = [(one.number, "yes" if one.applied else "no", one.title) for one in history(engine)]
    print_table(("revision", "applied", "title"), rows)
    return 0


def _vacuum(arguments: argparse.Namespace) -> int:
    from ingestor.archive.erasure import vacuum
    from ingestor.archive.mailbox_state import one_run

    configure_log(arguments)
    settings = settings_of(arguments)
    engine = open_for_writing(settings)
    file = settings.database.file
    if file is not None:
        size = file.stat().st_size
        print(f"{file} ({size / 1e6:,.0f} MB) is written anew; it takes up to three times its room.")
    else:
        print("The tables of content are written anew (VACUUM FULL), each locked meanwhile.")
    print("Until it is done POSTs go to the spool, and mails stay where they are.", flush=True)
    began = time.monotonic()
    with one_run(engine, "db vacuum", {}):
        vacuum(engine)
    print(f"Done in {time.monotonic() - began:.1f} s.")
    return 0


def _index(arguments: argparse.Namespace) -> int:
    configure_log(arguments)
    engine = open_for_writing(settings_of(arguments))
    with share_done() as tell:
        for done, of in words.bring_up(engine):
            tell(done, of)
    with reading(engine) as connection:
        number, there = words.number_of_texts(connection), words.indexed(connection)
    print(f"{number:,} texts are taken in: `ingestor search` finds their words.")
    if not there:
        print(f"It reads them one by one: {words.LACKS[engine.dialect.name]}.")
    return 0


def _repair(arguments: argparse.Namespace) -> int:
    from ingestor.archive.intact import NotCompared, repair

    configure_log(arguments)
    try:
        mended, left = repair(open_for_writing(settings_of(arguments)), datetime.now(UTC))
    except NotCompared as reason:
        raise IngestorError(
            f"this archive cannot be compared by this role; call it as its owner ({reason})"
        ) from None
    for one in mended:
        print(f"made again: {one.name}")
    for one in left:
        print(f"left as it is: {one}")
    if not mended and not left:
        print("Nothing differs from what this version makes.")
    return 1 if left else 0


def _copy(arguments: argparse.Namespace) -> int:
    from ingestor.archive.mailbox_state import read_sources
    from ingestor.archive.transfer import copy_archive
    from ingestor.service import reporting

    configure_log(arguments)
    settings = settings_of(arguments)
    source = open_for_reading(settings)
    noted = read_sources(source)
    become_owner(settings.database.url, state_directory(settings))  # a file that is made is the service's
    began = time.monotonic()
    with opened(arguments.url) as target, share_done() as tell:
        copied = copy_archive(source, target, tell)
    print(
        f"{copied.rows:,} rows, {copied.written:,} of them new, each compared: {place(target)} is the same "
        f"archive ({time.monotonic() - began:.1f} s)."
    )
    daemons = reporting.daemons(noted, last_run_of(source, ("run", "run --once")), datetime.now(UTC))
    if any(one.lives for one in daemons):
        print("A daemon writes to the old one: stop it, and call this again for what came since.")
    print("Then set database.url to the new one, and start the daemon.")
    return 0
