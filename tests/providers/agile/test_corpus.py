"""Every mail of the corpus becomes exactly what stands beside it."""

import json
import re
from pathlib import Path

import pytest

from ingestor.providers.agile.header import split_mail
from ingestor.providers.agile.parts import fast_part
from ingestor.providers.contract import Readable, Unreadable
from tests.providers.agile.corpus import MAILS, READER, RULES, SAMPLES, as_expected, read_both

# These are about line ends, so they are what they are only with their own.
_LINE_END_MATTERS = {
    "lone-cr-lines", "mixed-line-ends", "base64-with-junk", "cut-in-the-last-part", "end-mark-nul",
    "end-mark-of-dos",
}  # fmt: skip


def _expected(path: Path) -> dict[str, object]:
    expected = json.loads(path.with_suffix(".json").read_text())
    assert isinstance(expected, dict)
    return expected


@pytest.mark.parametrize("path", MAILS, ids=lambda path: path.stem)
def test_a_mail_becomes_what_stands_beside_it(path: Path) -> None:
    """Both lanes read a mail of the corpus as the record, the reason or the sender in its JSON file."""
    assert as_expected(read_both(path.read_bytes())) == _expected(path)


@pytest.mark.parametrize(
    "path", [path for path in MAILS if path.stem not in _LINE_END_MATTERS], ids=lambda path: path.stem
)
def test_line_ends_of_an_mbox_change_nothing(path: Path) -> None:
    """The same mail with LF line ends, and one more at its end, is the same SMS."""
    raw = path.read_bytes().replace(b"\r\n", b"\n")
    assert as_expected(read_both(raw + b"\n")) == _expected(path)


@pytest.mark.parametrize("path", MAILS, ids=lambda path: path.stem)
def test_header_lines_alone_tell_whether_a_mail_is_ours(path: Path) -> None:
    """`may_be_ours` answers from From and Subject what `read_mail` answers from the whole mail."""
    raw = path.read_bytes()
    ours = _expected(path)["reading"] != "not_ours"
    wanted = re.compile(rb"^(?:from|subject)[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*\n?", re.IGNORECASE | re.MULTILINE)
    block = re.split(rb"(?<=\n)\r?\n", raw.lstrip(b"\r\n"), maxsplit=1)[0]
    lines = b"".join(wanted.findall(block))
    for header in (lines, lines + b"\r\n", lines.replace(b"\r\n", b"\n"), raw):
        assert READER.may_be_ours(header, RULES) is ours


def test_what_goes_to_the_archive_can_be_stored() -> None:
    """No string of any reading holds a NUL or a lone surrogate, and reasons hold no value of the mail."""
    for path in MAILS:
        reading = read_both(path.read_bytes())
        if isinstance(reading, Readable):
            shown = json.dumps(as_expected(reading), ensure_ascii=False)
            assert "\\u0000" not in shown
            shown.encode()
        if isinstance(reading, Unreadable):
            assert not re.search(r"[0-9]{5}|News|@", reading.reason)


def test_readings_name_their_parser_and_their_mail() -> None:
    """A reading carries parser and version, Message-ID and the decoded subject, for the arrival's row."""
    reading = read_both((SAMPLES / "mail-before-2016.eml").read_bytes())
    assert isinstance(reading, Readable)
    assert reading.parser == READER.PARSER == "agile.mail/1"
    assert reading.message_id == "<20260514102305.1@agiletelecom.com>"
    assert reading.subject == "Agile Telecom \N{EN DASH} SMS received"


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.eml")), ids=lambda path: path.stem)
def test_usual_mails_take_the_fast_lane(path: Path) -> None:
    """Every realistic sample is read without mail-parser."""
    raw = path.read_bytes()
    header, body = split_mail(raw)
    assert fast_part(header, raw[body:]) is not None


def test_the_docstring_shows_the_guides_mail() -> None:
    """Whoever opens the parser sees a real mail first, and it is the one that is tested."""
    shown = {line.strip() for line in (READER.__doc__ or "").splitlines()}
    mail = (SAMPLES / "mail-guide.eml").read_text().splitlines()

    wanted = [line for line in mail if line.startswith(("From: +", "To: +", "Subject", "Date/Time", "Body"))]
    assert len(wanted) == 5
    assert set(wanted) <= shown
