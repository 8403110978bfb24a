"""`ingestor import`: old mailboxes into the archive, with counts that add up."""

import argparse
import gc
import os
from datetime import date

from ingestor.errors import ConfigurationError
from ingestor.redaction import one_line

EXAMPLES = """\
ingestor import /var/mail/sms
ingestor import old.mbox.gz takeout.zip ~/Maildir --dry-run
ingestor import --since 2019-01-01 --until 2019-12-31 --source "backup 2019" /backup/mail
zcat old.gz | ingestor import -
ingestor import --resume 12 /backup/mail"""

FORMATS = ("auto", "mbox", "mboxo", "mboxrd", "mboxcl", "mboxcl2", "maildir", "mh", "eml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", nargs="*", metavar="PATH",
        help="mbox, Maildir, MH folder, .eml, zip or tar, each also as gz, bz2, xz or zst; a folder of "
        "any of these; - for stdin",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="go the whole way, write nothing, and say what would be"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the balance as one JSON object, last on stdout"
    )
    parser.add_argument(
        "--jobs", type=_jobs, metavar="N", help="parsing processes (default: cores, at most 4)"
    )
    parser.add_argument(
        "--resume", type=int, metavar="RUN", help="go on with an import that did not reach its end"
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="do not look: read everything as this (default: auto)"
    )
    parser.add_argument(
        "--whole", action="store_true",
        help="the files are whole: take the last mail of an mbox that has no line end, or grows, and mails "
        "of a Maildir that are shorter than their names say, as well",
    )  # fmt: skip
    parser.add_argument(
        "--source", metavar="NAME", help="what the arrivals name as their source (default: PATH)"
    )
    parser.add_argument("--since", type=_day, metavar="D", help="only SMS of this day or later (YYYY-MM-DD)")
    parser.add_argument(
        "--until", type=_day, metavar="D", help="only SMS of this day or earlier (YYYY-MM-DD)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")


def run(arguments: argparse.Namespace) -> int:
    """Import; return 0 when everything was read and the balance adds up."""
    if not arguments.paths and arguments.resume is None:
        raise ConfigurationError("import what? Name files or folders, or - for stdin")
    if arguments.resume is not None and arguments.dry_run:
        raise ConfigurationError(
            "--resume and --dry-run do not go together: a dry run leaves nothing to resume"
        )
    if arguments.since and arguments.until and arguments.since > arguments.until:
        raise ConfigurationError(
            f"no day is from {arguments.since} on and until {arguments.until}; swap --since and --until"
        )
    for path in arguments.paths:
        _require_there(path, folder=arguments.format in {"maildir", "mh"})
    jobs = arguments.jobs or min(len(os.sched_getaffinity(0)), 4)
    from ingestor.intake.files.workers import Pool  # here, for `ingestor --help` to stay fast

    with Pool(jobs) as pool:
        from ingestor.cli.import_session import import_files  # after the fork: workers need no database

        # Rows are many small tuples and no cycles: walking them took a tenth of this process's time.
        gc.set_threshold(50_000)
        return import_files(arguments, pool)


def _require_there(path: str, *, folder: bool) -> None:
    """Refuse a mistyped PATH before anything is begun, and what is no folder where that is asked for."""
    why = None
    try:
        if path != "-":
            os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        why = f"{one_line(path)}: there is no such file or folder" if path else "an empty PATH names nothing"
    except (OSError, ValueError):
        return  # reading it will say more
    if why is None and folder and not os.path.isdir(path):  # noqa: PTH112 -- pathlib is loaded by nothing here
        why = f"{path} is no folder, as --format maildir and mh ask for"
    if why:
        raise ConfigurationError(f"{why}; nothing was imported")


def _jobs(value: str) -> int:
    count = int(value) if value.isdigit() else 0
    if not 1 <= count <= 64:
        raise argparse.ArgumentTypeError("a number from 1 to 64 is wanted")
    return count


def _day(value: str) -> str:
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is not a day like 2024-05-31") from None
