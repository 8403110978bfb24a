"""The strict `From ` rule, line by line."""

import pytest

from ingestor.intake.files.separators import last_separator, next_separator, separator_end

HEADERS = b"From: a@example.org\nSubject: x\n\n"

DATED = [
    b"From a@example.org Mon Jan  1 00:00:00 2024",
    b"From - Mon Jan 01 00:00:00 2024",
    b"From MAILER-DAEMON Fri Jul  8 12:08:34 2011",
    b"From 1789000@xxx Mon Jan 01 12:00:00 +0000 2024",
    b"From a@example.org Mon Jan  1 00:00:00 CET 2024",
    b"From a@example.org Mon Jan  1 00:00:00 2024 +0100",
    b"From a@example.org Mon Jan  1 00:00 2024 remote from relay",
    b"From a@example.org Mon, 1 Jan 2024 00:00:00 +0100 (CET)",
    b'From "a b"@example.org Mon Jan  1 00:00:00 2024',
    b"From ???@??? Mon Jan 01 00:00:00 2024",
    b"From a@example.org  Mon Jan  1 00:00:00 2024  ",
]

UNDATED = [
    b"From ",
    b"From -",
    b"From - ",
    b"From a@example.org",
    b"From MAILER-DAEMON",
    b"From a@example.org lun gen  1 00:00:00 2024",
    b"From a@example.org 2024-01-01 00:00:00",
]

TEXT = [
    b"From tomorrow on we are closed",
    b"From Monday to Friday 9:00 - 18:00",
    b"From our shop in Milan, 2024",
    b"From Monday Mon Jan  1 10:00:00 2024 we are closed",
    b"From a@example.org with love",
    b"From: a@example.org",
    b"Fromage",
    b"From a@example.org Mon Jan  1 00:00:00 2024" + b" " * 2000,
]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("line", DATED)
def test_a_dated_line_after_a_blank_one_separates(line: bytes, line_end: bytes) -> None:
    """Every program's dated line is a separator, whatever follows it."""
    before = b"text" + line_end * 2
    data = before + line + line_end + b"anything" + line_end
    assert next_separator(data, 0, len(data)) == (len(before), len(before) + len(line + line_end))


@pytest.mark.parametrize("line", DATED)
def test_a_dated_line_needs_a_blank_line_or_a_header(line: bytes) -> None:
    """Without a blank line before it a dated line separates only when a header follows."""
    text, mail = b"text\n" + line + b"\nmore text\n", b"text\n" + line + b"\nReceived: by mx\n"
    assert next_separator(text, 0, len(text)) == (-1, -1)
    assert next_separator(mail, 0, len(mail))[0] == 5


@pytest.mark.parametrize("line", UNDATED)
def test_an_undated_line_needs_headers_of_a_mail(line: bytes) -> None:
    """A line without a date separates only after a blank line and before the headers of a mail."""
    mail, text = b"text\n\n" + line + b"\n" + HEADERS, b"text\n\n" + line + b"\nNote: closed\nPrice: 3\n\n"
    glued = b"text\n" + line + b"\n" + HEADERS
    assert next_separator(mail, 0, len(mail))[0] == 6
    assert next_separator(text, 0, len(text)) == (-1, -1)
    assert next_separator(glued, 0, len(glued)) == (-1, -1)


@pytest.mark.parametrize("line", TEXT)
def test_text_is_no_separator(line: bytes) -> None:
    """A line of text that begins with From stays text, even before something like headers."""
    data = b"text\n\n" + line + b"\n" + HEADERS
    assert next_separator(data, 0, len(data)) == (-1, -1)


def test_a_separator_may_follow_nuls() -> None:
    """The mail appended behind the NULs of a crash is found."""
    data = b"text\n\0\0\0From a@example.org Mon Jan  1 00:00:00 2024\nSubject: x\n"
    assert next_separator(data, 0, len(data))[0] == 8
    assert last_separator(data, len(data), len(data)) == 8


def test_the_last_line_may_lack_its_end() -> None:
    """A separator that a truncated file ends with is one."""
    data = b"text\n\nFrom a@example.org Mon Jan  1 00:00:00 2024"
    assert separator_end(data, 6, len(data)) == len(data)


def test_the_first_separator_from_behind_is_the_last() -> None:
    """Searching backwards finds the last separator before the limit and passes over text."""
    line = b"From a@example.org Mon Jan  1 00:00:00 2024\nSubject: x\n\nFrom tomorrow on\n\n"
    data = line * 3
    assert last_separator(data, len(data), len(data)) == 2 * len(line)
    assert last_separator(data, len(line), len(data)) == 0
