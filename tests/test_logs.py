"""The log: one shape for all, and neither a secret nor a message nor a number gets out."""

import io
import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from ingestor import redaction
from ingestor.logs import LogFormat, configure
from ingestor.redaction import redact, register_secret

SECRET = "pl4nted/s3cret"
TEXT = "your code is 384756"
NUMBER = "+393331234567"


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the standard library's logging, and the known secrets, back as they were."""
    monkeypatch.setattr(redaction, "_secrets", set())
    monkeypatch.setattr(redaction, "_pattern", None)
    monkeypatch.setattr(logging, "raiseExceptions", True)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def logged(
    log_format: LogFormat,
    write: Callable[[Any], object],
    *,
    level: int = logging.INFO,
    stream: io.StringIO | None = None,
) -> str:
    stream = stream or io.StringIO()
    configure(log_format, stream=stream, level=level)
    write(structlog.get_logger("ingestor.test"))
    return stream.getvalue()


def test_json_is_one_object_a_line() -> None:
    """Each event is one JSON line with an ISO time in UTC, its level, its logger and its fields."""
    line = logged(
        "json", lambda log: log.info("mail stored", uid=7, folder="Più", at=datetime(2026, 1, 2, tzinfo=UTC))
    )

    event = json.loads(line)

    assert datetime.fromisoformat(event.pop("timestamp")).tzinfo == UTC
    assert event == {
        "event": "mail stored", "level": "info", "logger": "ingestor.test",
        "uid": 7, "folder": "Più", "at": "2026-01-02T00:00:00+00:00",
    }  # fmt: skip


def test_library_records_have_the_same_shape() -> None:
    """A record of the standard library carries the same keys, and the bound context too."""
    with structlog.contextvars.bound_contextvars(run=12):
        line = logged(
            "json", lambda _: logging.getLogger("apscheduler.executors").warning("job %s missed", "poll")
        )

    event = json.loads(line)

    assert set(event) == {"event", "level", "logger", "timestamp", "run"}
    assert (event["event"], event["run"]) == ("job poll missed", 12)


def test_auto_is_pretty_on_a_terminal_and_json_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` asks the stream itself; NO_COLOR takes the colours away."""
    assert logged("auto", lambda log: log.info("hello")).startswith("{")

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in logged("auto", lambda log: log.info("hello"), stream=Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    pretty = logged("auto", lambda log: log.info("hello"), stream=Terminal())
    assert "hello" in pretty
    assert "\x1b[" not in pretty


def planted(log: Any) -> None:
    """Log a secret, a message and a number in every way that code or a library might."""
    register_secret(SECRET)
    log.info(
        "stored",
        text=TEXT,
        originator=NUMBER,
        destination="393331234567",
        body=TEXT.encode(),
        sms={"a": TEXT},
    )
    log.info(
        SECRET.join(["login with ", ""]),
        url="postgresql://u:pl4nted%2Fs3cret@h/d",
        nested={"list": [SECRET, {"text": TEXT}]},
    )
    log.warning("from %s with %s", NUMBER, SECRET)
    log.error(
        "refused", error=ValueError(f"{SECRET} {NUMBER}"), raw=memoryview(TEXT.encode()), data=TEXT.encode()
    )
    logging.getLogger("uvicorn.error").error("bad request of %s: %s", "393331234567", SECRET)
    logging.getLogger("imapclient.imaplib").debug("< %s", TEXT)
    logging.getLogger("sqlalchemy.engine.Engine").info("[generated] (%r)", TEXT)
    warnings.warn(f"do not use {SECRET}", stacklevel=1)
    try:
        planted_in_a_local = TEXT + SECRET
        raise RuntimeError(  # noqa: TRY301 - the traceback of this very frame is what must stay clean
            f"null value violates\nDETAIL:  Failing row contains (1, {planted_in_a_local}).\n"
            f"[parameters: ('{TEXT}',)]\nof 00393331234567 and {NUMBER}"
        )
    except RuntimeError:
        log.exception("write failed")
        logging.getLogger("other").exception("write failed with %s", SECRET)
    thread = threading.Thread(target=lambda: (_ for _ in ()).throw(ValueError(SECRET)))
    thread.start()
    thread.join()


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.filterwarnings("always")
def test_planted_secrets_text_and_numbers_do_not_get_out(log_format: LogFormat) -> None:
    """Whatever way a secret, a message or a number is handed to a logger, no output contains it."""
    output = logged(log_format, planted, level=logging.DEBUG)

    assert output.count("\n") >= 9
    assert "pl4nted" not in output
    assert "384756" not in output
    assert "3331234567" not in output
    assert "…4567" in output
    assert "thread died" in output


def test_quoted_secrets_stay_hidden_in_json() -> None:
    """A secret that JSON would escape is redacted before it is written."""
    register_secret('quo"te\\back')

    assert "quo" not in logged("json", lambda log: log.info("x", detail='with quo"te\\back inside'))


def test_tracebacks_name_the_place_but_no_locals() -> None:
    """An exception is logged with its frames, and without what their variables held."""

    def fail(log: Any) -> None:
        local_value = "held in a variable"
        try:
            raise ValueError(len(local_value))  # noqa: TRY301 - its own frame is the point
        except ValueError:
            log.exception("failed")

    event = json.loads(logged("json", fail))

    assert event["exception"][0]["exc_type"] == "ValueError"
    assert event["exception"][0]["frames"][0]["name"] == "fail"
    assert "held in a variable" not in json.dumps(event)


def test_a_broken_log_call_does_not_print_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """The standard library's report of a wrong format string would repeat what was to be logged."""
    logged("json", lambda _: logging.getLogger("x").error("%d", TEXT))

    assert TEXT not in capsys.readouterr().err


def test_configuring_twice_logs_once() -> None:
    """A second call replaces the first one's stream and format."""
    first = io.StringIO()
    configure("json", stream=first)

    assert logged("json", lambda log: log.info("once")).count("once") == 1
    assert first.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"from {NUMBER}.", "from …4567."),
        ("from 00393331234567", "from …4567"),
        ("from +39 333 123 4567", "from …4567"),
        ("from 393331234567", "from …4567"),
        ("UIDVALIDITY 1732263400 became 1732263411", "UIDVALIDITY 1732263400 became 1732263411"),
        ("at 2026-11-22T08:29:55.114795Z", "at 2026-11-22T08:29:55.114795Z"),
        ("<abc.12345678901234@mail.example.org>", "<abc.12345678901234@mail.example.org>"),
        ("port 993, 33554432 bytes", "port 993, 33554432 bytes"),
    ],
)
def test_only_phone_numbers_are_shortened(text: str, shown: str) -> None:
    """Numbers keep their last four digits; other digits stay readable."""
    assert redact(text) == shown


def test_very_short_secrets_do_not_hide_the_log() -> None:
    """A password of a letter or two is not searched for: it would blot out every line."""
    register_secret("a")

    assert redact("a plain line") == "a plain line"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_journald_is_told_each_priority(
    log_format: LogFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line that goes to the journal begins with its priority; a stream that is another has none.

    In JSON the sentence comes first, and the time is said once: the journal has its own.
    """
    for journal in (True, False):
        with (tmp_path / "stream").open("w+") as stream:
            status = os.fstat(stream.fileno())
            monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + (not journal)}")
            configure(log_format, stream=stream, level=logging.DEBUG)
            log = structlog.get_logger("ingestor.test")
            for name in ("debug", "info", "warning", "error", "critical"):
                getattr(log, name)("said")
            logging.getLogger("library").warning("said")
            try:
                int("said")
            except ValueError:
                log.exception("said")
            stream.seek(0)
            lines = stream.read().splitlines()
        beginnings = [line[:3] for line in lines]
        if journal:
            assert beginnings[:7] == ["<7>", "<6>", "<4>", "<3>", "<2>", "<4>", "<3>"]
            assert set(beginnings[7:]) <= {"<3>"}
        else:
            assert not any(beginning.startswith("<") for beginning in beginnings)
        if log_format == "json":
            told = [json.loads(line[3 if journal else 0 :]) for line in lines]
            assert {next(iter(line)) for line in told} == {"event"}
            assert {"timestamp" in line for line in told} == {not journal}


def test_what_a_command_dies_of_is_an_error_in_the_journal(tmp_path: Path) -> None:
    """A start that fails says so with one line of priority 3, in JSON like all others."""
    with (tmp_path / "stream").open("w+") as stream:
        status = os.fstat(stream.fileno())
        command = [sys.executable, "-m", "ingestor", "--config", str(tmp_path / "none.toml"), "run"]
        environment = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        done = subprocess.run(command, stderr=stream, env=environment, timeout=60)
        stream.seek(0)
        said = stream.read()
    assert done.returncode == 2
    assert said.startswith('<3>{"event": ')
    assert said.count("\n") == 1
    assert "no such configuration file" in json.loads(said[3:])["event"]


HOSTILE = ("\n", " \n", "\t", "DETAIL:", "DETAIL:\n", "[parameters: ", "1", "+1 ", "+1\u00a0", "001", "a")


def test_hostile_text_is_redacted_in_one_pass() -> None:
    """What a database or a server repeats may be anybody's: 6 MB of it must not hold the log up for hours."""
    program = (
        "import sys\n"
        "from ingestor.redaction import redact, register_secret\n"
        "register_secret('aaaaaaab')\n"
        f"for piece in {HOSTILE!r}:\n"
        "    for before in ('DETAIL:', 'x DETAIL:', 'CONTEXT:\\n'):\n"
        "        redact(before + piece * (600_000 // len(piece)) + 'x')\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=60, check=True)
