"""An archive with something of everything in it, on each database, and the command pointed at it."""

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from sqlalchemy import Engine

from ingestor.archive.items import Submission
from ingestor.archive.runs import begin_run, end_run
from ingestor.archive.store import Store
from ingestor.cli import main
from ingestor.providers.contract import Readable
from tests.archive.samples import NOW, PARSER, broken, item, sms
from tests.cli.calling import Called, ingestor

EVIL = "red \x1b[31m\u202ealert\nsecond line\twith a tab"
RAW = b"Subject: exact\r\n\r\n\x00\xff bytes \r\n\n"


@dataclass(frozen=True)
class Filled:
    """The archive, and two ways to call the command on it: in this process, or as a user does."""

    engine: Engine
    url: str
    folder: Path
    call: Callable[..., Called]
    spawn: Callable[..., Called]


@pytest.fixture
def called(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Called]]:
    """Call the command in this process: the same `main`, without the seconds that imports take."""
    monkeypatch.chdir(tmp_path)
    for name in ("INGESTOR_CONFIG", "INGESTOR_DATABASE_URL", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    excepthook, complain = threading.excepthook, logging.raiseExceptions

    def call(*arguments: str | Path) -> Called:
        capfdbinary.readouterr()
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfdbinary.readouterr()
        return Called(code, out.decode(errors="replace"), err.decode(), out)

    yield call
    root.handlers[:] = handlers
    root.setLevel(level)
    threading.excepthook, logging.raiseExceptions = excepthook, complain
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def filled(archive_engine: Engine, tmp_path: Path, called: Callable[..., Called]) -> Filled:
    """Five SMS, one of them twice, one hostile, two in the quarantine, three ignored; run 1 did it."""
    url = archive_engine.url.render_as_string(hide_password=False)
    run = begin_run(archive_engine, "import", {}, NOW)
    hostile = item(5, reading=Readable(sms(5, text=EVIL, originator="Alpha"), PARSER), raw=RAW)
    items = (
        *(item(number) for number in range(1, 5)), hostile, item(2, copy=1),
        broken(6), broken(7, reason="no Body label"),
    )  # fmt: skip
    Store(archive_engine).write([Submission(run, items, ignored=3)], NOW)
    end_run(archive_engine, run, NOW)
    options = ("--database-url", url)
    return Filled(
        archive_engine, url, tmp_path,
        call=lambda *arguments: called(*options, *arguments),
        spawn=lambda *arguments: ingestor(*options, *arguments, folder=tmp_path),
    )  # fmt: skip
