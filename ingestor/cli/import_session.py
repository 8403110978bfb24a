"""One import from the command line: its settings, its books, and how it goes on where it was stopped."""

import argparse
import os
import shlex
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Engine

from ingestor.archive import runs, words
from ingestor.archive.engine import bulk_import_settings
from ingestor.archive.mailbox_state import kept_alive
from ingestor.archive.migrate import current
from ingestor.archive.payloads import usable_dictionary
from ingestor.archive.queries import all_refused
from ingestor.cli.import_display import Display, Result, display_for, print_result
from ingestor.cli.opening import (
    archive_exists,
    configure_log,
    open_for_reading,
    open_for_writing,
    open_unchecked,
    settings_of,
)
from ingestor.errors import ArchiveUnavailable, ConfigurationError, IngestorError
from ingestor.intake.files.books import Books, Tally, find
from ingestor.intake.files.importer import Importer, Wishes
from ingestor.intake.files.mbox import Dialect
from ingestor.intake.files.parse import MailReader, Window
from ingestor.intake.files.sinks import ArchiveSink, DrySink
from ingestor.intake.files.walk import Kind, references
from ingestor.intake.files.workers import Pool
from ingestor.providers import MAIL_READERS
from ingestor.record import Outcome
from ingestor.redaction import as_text
from ingestor.replies.opt_outs import hearing_store
from ingestor.service.signals import STOPS, Signals, exit_at_once
from ingestor.settings import Settings, rules_for
from ingestor.watch.pings import pinged

_KEPT = ("format", "source", "since", "until")
_DAY = 86400.0  # a stop finishes the batches in hand, however slow the database is; a second Ctrl-C does not


def import_files(arguments: argparse.Namespace, pool: Pool) -> int:
    """Import what `arguments` name; return the exit code."""
    settings = settings_of(arguments)
    configure_log(arguments)
    if arguments.dry_run:
        return _try(arguments, settings, pool)
    with pinged(settings.watch, "import_ping") as ended:
        ended.code = _import(arguments, settings, pool)
    return ended.code


def _import(arguments: argparse.Namespace, settings: Settings, pool: Pool) -> int:
    began = time.monotonic()
    engine = open_for_writing(settings, create=True)
    store = hearing_store(engine, settings.opt_out)
    options = _options(arguments)
    if arguments.resume is None:
        run_id = runs.begin_run(engine, runs.IMPORT, options, datetime.now(UTC))
    else:
        run = find(engine, arguments.resume)
        run_id, options = run.id, _agreed(options, run.options)
        if run.ended_at is not None and not run.balance.failed:
            runs.end_run(engine, run_id, datetime.now(UTC))  # its end may have been in doubt
            result = Result(
                run_id, runs.balance(engine, run_id), None, time.monotonic() - began, finished=True
            )
            return print_result(result, as_json=arguments.json, note=f"run {run_id} had reached its end")
        if "-" in options["paths"]:
            raise ConfigurationError(
                "stdin cannot be resumed: its beginning is gone; import it from the start"
            )
        runs.reopen_run(engine, run_id)
    fault: IngestorError | None = None
    finished = False
    with Signals(exit_at_once, _DAY, STOPS) as signals, display_for(quiet=arguments.quiet) as display:
        sink = ArchiveSink(store, lambda: signals.stop_wished, display.tell)
        books = Books(engine, run_id, sink.leave_room)
        keys = store.archive_key(), usable_dictionary(engine)
        index = partial(_index, engine, settings, lambda: signals.stop_wished)
        thread = ThreadPoolExecutor(1)
        notice = _indexing(display.show, index, thread if sink.beside else None)
        importer = _importer(arguments, options, settings, pool, sink, books, keys, signals, display, notice)
        try:
            with bulk_import_settings(engine):
                with thread, kept_alive(engine, runs.lease_of(run_id)):
                    finished = importer.run(references(options["paths"], layout=options["format"]))
                if finished:
                    books.end()
                    index(runs.balance(engine, run_id).stored)
        except IngestorError as error:
            fault = error
    resume = _resume_command(arguments, options, run_id)
    try:
        balance = runs.balance(engine, run_id)
    except IngestorError as error:
        fault = fault or error  # the database does not even tell the balance
        raise type(fault)(f"{fault}\ngo on with: {resume}" if resume else str(fault)) from None
    result = Result(
        run_id, balance, importer.tally, time.monotonic() - began, finished=finished,
        resumed=arguments.resume is not None, resume=resume,
    )  # fmt: skip
    code = print_result(result, as_json=arguments.json)
    if fault is None and balance.quarantined and not balance.stored and (why := all_refused(engine)):
        fault = IngestorError(why)
    if fault is not None:
        raise fault
    return code


def _index(engine: Engine, settings: Settings, stop: Callable[[], bool], stored: int) -> None:
    """Take the texts that came into the index of words; what an earlier program left is the daemon's."""
    if settings.database.index_texts:
        for _ in words.bring_up(engine, stop, least=words.FEW, most=2 * stored + words.FEW):
            pass


def _indexing(
    show: Callable[[Tally], None], index: Callable[[int], None], thread: ThreadPoolExecutor | None
) -> Callable[[Tally], None]:
    """Return what shows how far it is and indexes: all at the end, it was a tenth of the time on one core.
    In `thread`, if any: on PostgreSQL an import waited a fifth of its time for it.
    """
    indexed = 0
    at_work: Future[None] | None = None

    def take_in(stored: int) -> None:
        with suppress(ArchiveUnavailable):  # for which the import waits
            index(stored)

    def notice(tally: Tally) -> None:
        nonlocal indexed, at_work
        show(tally)
        stored = tally.outcomes[Outcome.STORED] - indexed
        if stored < words.STEP or (at_work is not None and not at_work.done()):
            return
        indexed += stored
        if thread is None:
            take_in(stored)
        else:
            at_work = thread.submit(take_in, stored)

    return notice


def _try(arguments: argparse.Namespace, settings: Settings, pool: Pool) -> int:
    """Do a dry run; return the exit code."""
    began = time.monotonic()
    options = _options(arguments)
    there = archive_exists(settings) and current(open_unchecked(settings)) is not None
    with (
        DrySink(open_for_reading(settings) if there else None) as sink,
        Signals(exit_at_once, _DAY, STOPS) as signals,
        display_for(quiet=arguments.quiet) as display,
    ):
        keys = sink.secret, None
        importer = _importer(
            arguments, options, settings, pool, sink, Books(None, None), keys, signals, display, display.show
        )
        finished = importer.run(references(options["paths"], layout=options["format"]))
        tally = importer.tally
        balance = runs.Balance(tally.read, *(tally.outcomes[outcome] for outcome in Outcome))
        result = Result(None, balance, tally, time.monotonic() - began, finished=finished, dry=sink)
        return print_result(result, as_json=arguments.json)


def _importer(
    arguments: argparse.Namespace, options: Mapping[str, Any], settings: Settings, pool: Pool,
    sink: ArchiveSink | DrySink, books: Books, keys: tuple[bytes, tuple[int, bytes] | None],
    signals: Signals, display: Display, notice: Callable[[Tally], None],
) -> Importer:  # fmt: skip
    """Return an importer, with the workers set to the same rules; `keys` are the archive's, for its rows."""
    files = partial(references, options["paths"], layout=options["format"])
    display.expect(lambda: sum(one.size or 0 for _, one in files() if not one.left_out))
    dry = isinstance(sink, DrySink)
    rules = [(name, rules_for(settings, name)) for name in MAIL_READERS]
    window = Window(*((options[name] or "").replace("-", "") for name in ("since", "until")))
    of_reader = rules, window, *keys, dry
    pool.start(*of_reader)
    form = options["format"] or "auto"
    forced = None if form == "auto" else Kind.MBOX if form in set(Dialect) else Kind.MAIL
    dialect = Dialect(form) if forced is Kind.MBOX else Dialect.MBOX
    return Importer(
        pool,
        MailReader(*of_reader),
        sink,
        books,
        Wishes(forced, dialect, options["source"], arguments.whole),
        stopping=lambda: signals.stop_wished,
        notice=notice,
    )


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what makes two imports the same: kept in `runs.options`."""
    paths = [
        path if path == "-" else os.path.abspath(path)  # noqa: PTH100 -- as written: links are not resolved
        for path in arguments.paths
    ]
    outer = [path for path in dict.fromkeys(paths) if not any(_inside(path, other) for other in paths)]
    return {"paths": outer, **{name: getattr(arguments, name) for name in _KEPT}}


def _inside(path: str, other: str) -> bool:
    return path != other and path.startswith(other.rstrip("/") + "/")


def _agreed(asked: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a resumed run; those given again must be the same."""
    for name in _KEPT:
        if asked[name] is not None and asked[name] != earlier.get(name):
            raise ConfigurationError(
                f"the run was begun with --{name} {earlier.get(name) or '(none)'}; resume it without --{name}"
            )
    paths = list(earlier.get("paths", []))
    if asked["paths"] and "-" not in paths and set(asked["paths"]) != set(paths):
        raise ConfigurationError(
            f"the run was begun with {', '.join(map(as_text, paths))}, and goes on with the same only; "
            "import something else without --resume"
        )
    return {"paths": paths, **{name: earlier.get(name) for name in _KEPT}}


def _resume_command(arguments: argparse.Namespace, options: Mapping[str, Any], run_id: int) -> str | None:
    if "-" in options["paths"]:
        return None
    given = [(f"--{name.replace('_', '-')}", getattr(arguments, name)) for name in ("config", "database_url")]
    words = [word for option, value in given if value for word in (option, value)]
    whole = ["--whole"] if arguments.whole else []
    words = ["ingestor", *words, "import", *whole, "--resume", str(run_id), *options["paths"]]
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """Return `word` for a shell to take as it is; what a terminal would not show is written in escapes."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    )
    return f"$'{escaped}'"
