"""The strict `From ` rule, line by line."""

import pytest

from ingestor.intake.files.mbox import Dialect, is_odd, last_separator, next_separator, separator_end
from ingestor.intake.files.parse import split
from tests.intake.files.mails import covered

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

ODD = [
    b"From MAILER-DAEMON Thu May 14 2026 10:23:00 GMT+0200 (Central European Summer Time)",
    b"From a@example.org 2026-05-14T08:23:00.000Z",
    b"From a@example.org 20260514T082300Z",
    b"From a@example.org 2026-05-14 08:23:00.123456+00:00",
    b"From a@example.org datetime.datetime(2026, 5, 14, 8, 23)",
    b"From a@example.org Thu May 14 10:23:00 26",
    b"From a@example.org Thu, 14 May 26 10:23:00 +0200",
    b"From a@example.org 14/05/26 10:23",
    b"From a@example.org 5/14/2026, 10:23:00 AM",
    b"From a@example.org 1778747000",
    b"From a@example.org Do 14. Mai 2026",
    b"From Mario Rossi",
    b"From smsin",
    b"From nobody None",
    b'From "Agile Telecom" <smsin@agiletelecom.com>',
]

DELIVERED = (
    b"Received: from mx7 (192.0.2.7) by mail.example.org;\n\tThu, 14 May 2026 09:30:05 +0000\n"
    b"From: Agile Telecom <a@example.org>\nTo: archive@example.org\nSubject: x\n\n"
)

# What people write, paste and forward behind a line that begins with From.
HEADER_LIKE = [
    b"Subject: holidays\nTo: all\n\n",
    b"From: Anna\nTo: Marco\nDate: tomorrow at 9:00\nSubject: dinner\n\n",
    b"From: Anna <anna@example.org>\nSent: Thursday, 14 May 2026 09:30\nTo: Marco\nSubject: dinner\n\n",
    b"From: anna@example.org\nDate: 14 May 2026 at 09:30:05 CEST\nSubject: dinner\n\n",
    b"From: +393351234567\nTo: +393331234333\nDate/Time: 20260514090638\nBody: ciao\n\n",
    b"Received: yesterday\nFrom: a@example.org\n\n",
    b"see you\nReceived: from mx by mail\nFrom: a@example.org\nMessage-ID: <1@example.org>\n\n",
    b"Message-ID: <1@example.org>\nSubject: no sender\n\n",
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


@pytest.mark.parametrize("before", [b"", b"text\n\n", b"text\n", b"text\0\0"])
@pytest.mark.parametrize("line", ODD)
def test_an_odd_line_separates_before_the_header_of_a_delivered_mail(line: bytes, before: bytes) -> None:
    """Whatever a program wrote behind From, the header of a mail below it decides, and it counts as odd."""
    data = before + line + b"\n" + DELIVERED
    assert separator_end(data, len(before), len(data)) == len(before) + len(line) + 1
    assert is_odd(line + b"\n")
    crlf = data.replace(b"\n", b"\r\n")
    assert separator_end(crlf, len(crlf) - len(crlf.lstrip(b"text\r\n\0")), len(crlf))


@pytest.mark.parametrize("behind", HEADER_LIKE)
@pytest.mark.parametrize("before", [b"Body: ciao\n\n", b"Body: ciao\n"])
@pytest.mark.parametrize("line", [b"From Mario with love", b"From tomorrow on", b"From 9:00 to 12:30 only"])
def test_header_like_lines_of_a_text_separate_nothing(line: bytes, before: bytes, behind: bytes) -> None:
    """An SMS that says `From someone` above lines like a header's stays one SMS."""
    data = before + line + b"\n" + behind
    assert next_separator(data, 0, len(data)) == (-1, -1)


def test_odd_separators_are_counted() -> None:
    """Usual forms are none of them: dated, bare, with an address alone."""
    made = b"".join(line + b"\n" + DELIVERED + b"text\n\n" for line in [*DATED, *UNDATED[:5], *ODD])
    found = split(made, Dialect.MBOX)
    assert (len(found.mails), found.odd) == (len(DATED) + 5 + len(ODD), len(ODD))


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


@pytest.mark.parametrize("before", [b"Body: pays 1000 ", b"Body: ciao", b"Body: ciao\n\n\xef\xbb\xbf"])
def test_a_mail_appended_to_a_line_without_end_is_found(before: bytes) -> None:
    """A dated line behind text separates before the header of a delivered mail, and counts as odd."""
    first = DATED[0] + b"\n" + DELIVERED + before
    data = first + DATED[0] + b"\n" + DELIVERED + b"Body: two\n\n" + DATED[0] + b"\n" + DELIVERED
    assert next_separator(data, 60, len(data)) == (len(first), len(first) + len(DATED[0]) + 1)
    found = split(data, Dialect.MBOX)
    assert (len(found.mails), found.odd, covered(found)) == (3, 1, len(data))


@pytest.mark.parametrize("before", [b"> From: x\n>", b"text\n>", b"text\n>>"])
@pytest.mark.parametrize("behind", [DELIVERED, HEADERS, b"text\n"])
def test_what_is_quoted_separates_nothing(before: bytes, behind: bytes) -> None:
    """`>From` is what mbox programs make of such a line; and without a delivered mail's header it is text."""
    for data in (before + DATED[0] + b"\n" + behind, b"we read From a@example.org that\n" + behind):
        assert next_separator(data, 0, len(data)) == (-1, -1)
