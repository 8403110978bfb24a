"""`ingestor restore`: a backup in the place of the archive; it stops and starts nothing by itself."""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ingestor.archive.backup import Restored, restore
from ingestor.archive.erased_again import Again
from ingestor.archive.migrate import head
from ingestor.archive.ownership import become_owner
from ingestor.cli.opening import configure_log, settings_of
from ingestor.cli.printing import printable, share_done
from ingestor.settings import state_directory

EXAMPLES = """
ingestor restore /var/backups/ingestor/archive-20260131T020000Z.db
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="a file of `ingestor backup`")
    parser.add_argument(
        "--replace", action="store_true",
        help="also where the present archive has what FILE lacks; it is kept beside in any case",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Put the backup back, and say what to do next."""
    configure_log(arguments)
    settings = settings_of(arguments)
    url, state = settings.database.url, state_directory(settings)
    if settings.database.file is None:
        become_owner(url, state)
    with share_done() as tell:
        done = restore(arguments.file, url, state, datetime.now(UTC), tell, replace=arguments.replace)
    print(f"{done.sms:,} SMS are in their place again.")
    if done.before is not None:
        print(f"What was there before is now {printable(done.before)}; remove it once all is well.")
    else:
        print(
            "Nothing was there before: erasures, opt-outs and holds since the backup are to be noted again."
        )
    for line in (*_of_erasures(done.again, printable(arguments.file)), *_of_decisions(done)):
        print(line)
    if done.schema != head():
        print(f"The backup has schema {done.schema}; the daemon's start brings it to {head()}.")
    print(
        "Next: ingestor check, then systemctl start ingestor. What came since and is still in the mailboxes "
        "it reads by itself, and answers none of it again; the POSTs since only their provider has."
    )
    return 0


def _of_erasures(again: Again, file: str) -> Iterator[str]:
    if again.unknown is not None:
        yield (
            f"What was erased since the backup nobody can tell ({printable(again.unknown)}): erase it again "
            "before anybody reads this, and note opt-outs and holds since then again before the start."
        )
    elif again.sms or again.others or again.later:
        yield (
            f"Erased in it, as in the archive before it: {again.sms:,} SMS and {again.others:,} contents of "
            f"other kinds. {again.later:,} SMS that came after the backup and were erased are without it."
        )
        yield f"{file} itself holds it still: make a new backup, and delete that one."


def _of_decisions(done: Restored) -> Iterator[str]:
    again = done.again
    if again.opt_outs or again.holds:
        yield (
            f"Taken over from the archive before it: {again.opt_outs:,} opt-outs or returns and "
            f"{again.holds:,} holds begun or ended since the backup."
        )
    if again.unheld:
        yield (
            f"{again.unheld:,} holds are on what came since the backup: note them again once it was read "
            f"again (ingestor --database-url sqlite:///{printable(done.before)} erase hold list)."
        )
