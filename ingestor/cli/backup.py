"""`ingestor backup`: the whole archive, with its key, as one file that opens by itself."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from ingestor.archive.backup import backup
from ingestor.cli.arguments import count
from ingestor.cli.opening import configure_log, differs, open_for_reading, settings_of
from ingestor.cli.printing import printable, share_done
from ingestor.errors import ConfigurationError
from ingestor.watch.pings import pinged

EXAMPLES = """
ingestor backup /var/backups/ingestor
ingestor backup /var/backups/ingestor --keep 14
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder for the new file; it must be there")
    parser.add_argument(
        "--keep", metavar="N", type=count, help="then keep the newest N backups of this archive there only"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the backup and say what it holds."""
    if arguments.keep == 0:
        raise ConfigurationError("--keep 0 would remove the new one too; keep 1 at least")
    configure_log(arguments)
    settings = settings_of(arguments)
    with pinged(settings.watch, "backup_ping") as ended:
        engine = open_for_reading(settings)
        doubtful = differs(engine)
        with share_done() as tell:
            made = backup(engine, arguments.folder, datetime.now(UTC), tell, arguments.keep)
        holds = f"{made.sms:,} SMS, {made.size:,} bytes, with the archive's key, compared row by row"
        print(f"{printable(made.path)}: {holds}")
        for one in made.removed:
            print(f"removed: {printable(one)}")
        ended.code = int(doubtful)
    return ended.code
