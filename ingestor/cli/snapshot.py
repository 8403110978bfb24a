"""`ingestor snapshot`: a consistent copy that an auditor opens with no write access anywhere."""

import argparse
from datetime import UTC, datetime
from pathlib import Path

from ingestor.archive.export import snapshot
from ingestor.cli.opening import differs, open_for_reading, settings_of
from ingestor.cli.printing import printable, share_done

EXAMPLES = """
ingestor snapshot /srv/audit/sms-2026-01-31.db
sqlite3 -readonly /srv/audit/sms-2026-01-31.db 'SELECT * FROM inbound_sms LIMIT 5'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="SQLite file to write; replaces an older snapshot only"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the copy and say what it holds."""
    settings = settings_of(arguments)
    engine = open_for_reading(settings)
    doubtful = differs(engine)
    with share_done() as tell:
        written = snapshot(engine, arguments.file, datetime.now(UTC), tell)
    holds = f"{written.sms:,} SMS, {written.size:,} bytes, without the archive's key"
    print(f"{printable(written.path)}: {holds}")
    return int(doubtful)
