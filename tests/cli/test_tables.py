"""What people see on a terminal, and what pipes get."""

import io
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from ingestor.archive.runs import Balance
from ingestor.cli.printing import exit_code, print_balance, print_fields, print_table, printable


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_table_a_pipe_gets_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same rows: aligned with a title for people, tabs for programs; escapes defused in both."""
    rows = [(1, "a [red]b[/red]"), (22, "c\x1b[2J")]

    print_table(("id", "text"), rows, title="Found")
    assert capsys.readouterr().out == "id\ttext\n1\ta [red]b[/red]\n22\tc\\x1b[2J\n"

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    print_table(("id", "text"), rows, title="Found")
    shown = terminal.getvalue()
    assert "Found" in shown
    assert "a [red]b[/red]" in shown
    assert "c\\x1b[2J" in shown
    assert "\x1b[2J" not in shown


def test_values_become_one_line() -> None:
    """Times are to the second with their offset; nothing is nothing; a line end is an escape."""
    assert printable(datetime(2026, 5, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == (
        "2026-05-01 02:00:00+02:00"
    )
    assert printable(datetime(2026, 5, 1, 2, tzinfo=timezone(timedelta(hours=-3.5)))) == (
        "2026-05-01 02:00:00-03:30"
    )
    assert printable(datetime(2026, 5, 1, 2, tzinfo=UTC)) == "2026-05-01 02:00:00Z"
    assert printable(None) == ""
    assert printable("a\r\nb\x9b\u2066") == "a\\r\\nb\\x9b\\u2066"


def test_fields_keep_the_lines_of_a_text(capsys: pytest.CaptureFixture[str]) -> None:
    """One SMS is shown with its line breaks, aligned under its name."""
    print_fields({"id": 7, "text": "one\ntwo", "at": datetime(2026, 5, 1, tzinfo=UTC)})

    assert capsys.readouterr().out == "  id  7\ntext  one\n      two\n  at  2026-05-01 00:00:00Z\n"


def test_the_balance_is_a_sum(capsys: pytest.CaptureFixture[str]) -> None:
    """People read the sum; scripts get one object on the last line; the exit code says what failed."""
    balance = Balance(1234, 1000, 200, 30, 4, 0)

    print_balance(7, balance, 1.26, as_json=False)
    print_balance(None, balance, 1.2644, as_json=True)

    words, run, line = capsys.readouterr().out.splitlines()
    assert words == "1,234 read = 1,000 stored + 200 duplicate + 30 ignored + 4 quarantined + 0 failed"
    assert run == "run 7, 1.3 s"
    assert line == (
        '{"run": null, "read": 1234, "stored": 1000, "duplicate": 200, "ignored": 30, "quarantined": 4, '
        '"failed": 0, "seconds": 1.264}'
    )
    assert exit_code(balance) == 0
    assert exit_code(Balance(1, 0, 0, 0, 0, 1)) == 1
    assert exit_code(Balance(2, 1, 0, 0, 0, 0)) == 1
