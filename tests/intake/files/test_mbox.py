"""Splitting: dialects, and that every byte has its place whatever the bytes."""

import contextlib
import mailbox
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.intake.files import blocks as blocks_module
from ingestor.intake.files import mbox as mbox_module
from ingestor.intake.files.blocks import Block, Blocks, LongMail
from ingestor.intake.files.mbox import Dialect
from ingestor.intake.files.parse import split
from tests.intake.files.mails import broken_mail, covered, foreign_mail, mails, mbox_of, sms_mail

SEPARATOR = b"From a@example.org Mon Jan  1 00:00:00 2024\n"
DELIVERED = b"Received: from a by b\nFrom: a@example.org\n"

PIECES = st.one_of(
    st.sampled_from([
        SEPARATOR, SEPARATOR.replace(b"\n", b"\r\n"), b"From \n", b"From - \n", b"\n", b"\r\n", b"\0",
        b"From ",
        b"From tomorrow\n", b">From a\n", b"Subject: x\n", b"From: a@example.org\nTo: b@example.org\n",
        b"From Mario Rossi\n", b"x" + SEPARATOR, b"Received: from a by b\n", DELIVERED, SEPARATOR + DELIVERED,
        b"Content-Length: 5\n", b"Content-Length: 60\n", b"content-length: 0\r\n", b"hello\n", b"\n\n",
    ]),
    st.binary(max_size=12),
)  # fmt: skip
JUNK = st.lists(PIECES, max_size=40).map(b"".join)

# The strictest rule there is: a blank line, then a full date. Whoever reads by it finds these mails.
STRICT = re.compile(
    rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From \S+ (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?:Jan|Feb|Mar|Apr|May|Jun|Jul|"
    rb"Aug|Sep|Oct|Nov|Dec) [ \d]\d \d\d:\d\d:\d\d \d{4}\r?\n"
)


@given(JUNK, st.sampled_from(list(Dialect)))
def test_every_byte_has_its_place(data: bytes, dialect: Dialect) -> None:
    """Mails, separators and gaps add up to the input and do not overlap, whatever the bytes."""
    found = split(data, dialect)
    assert covered(found) == len(data)
    stretches = sorted(
        [(start, end) for start, end, _ in found.mails]
        + [(offset, offset + length) for offset, length, _ in found.gaps]
    )
    assert all(end <= start for (_, end), (start, _) in pairwise(stretches))


@given(JUNK)
def test_no_mail_of_a_strict_reader_is_lost(data: bytes) -> None:
    """Wherever a strict reader begins a mail, one begins here (lengths left out of it)."""
    starts = {start for start, _, _ in split(data, Dialect.MBOXRD).mails}
    assert {match.end() for match in STRICT.finditer(data)} <= starts


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.booleans(), JUNK)
def test_junk_in_a_body_costs_no_other_mail(kinds: Sequence[int], crlf: bool, junk: bytes) -> None:
    """Mails around a body full of junk come out byte for byte, however the file ends its lines."""
    made = [(sms_mail, foreign_mail, broken_mail)[kind](i) for i, kind in enumerate(kinds)]
    data = mbox_of(*made, foreign_mail(99, junk), *made)
    if crlf:
        made = [mail.replace(b"\n", b"\r\n") for mail in made]
        data = data.replace(b"\n", b"\r\n")
    found = [mail.rstrip(b"\r\n") for _, mail in mails(data, Dialect.MBOXRD)]
    wanted = [mail.rstrip(b"\r\n") for mail in made]
    assert found[: len(made)] == wanted
    assert found[-len(made) :] == wanted


@pytest.fixture(scope="module")
def small_bounds() -> Iterator[None]:
    """Bounds so small that a few hundred bytes show what megabytes would."""
    patch = pytest.MonkeyPatch()
    patch.setattr(mbox_module, "MAX_LINE", 64)
    patch.setattr(mbox_module, "HEADER_WINDOW", 128)
    patch.setattr(mbox_module, "LOOKAHEAD", 192)
    patch.setattr(mbox_module, "BELIEVED_LENGTH", 200)
    patch.setattr(blocks_module, "MOST_MAILS", 5)
    yield
    patch.undo()


class _Trickle:
    """A stream that hands out a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def readinto(self, view: memoryview) -> int:
        piece = self._data[self._at : self._at + min(len(view), 37)]
        view[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


@pytest.mark.usefixtures("small_bounds")
@given(st.lists(PIECES, max_size=150).map(b"".join), st.sampled_from(list(Dialect)))
def test_blocks_find_the_mails_of_the_whole(data: bytes, dialect: Dialect) -> None:
    """Cut into blocks, a file gives the same mails at the same places as in one piece."""
    whole = split(data, dialect)
    found: list[tuple[int, int]] = []
    in_place = 0
    for piece in Blocks(_Trickle(data), dialect, lambda _: True, buffer=bytearray(700)):
        if isinstance(piece, Block):
            part = split(bytes(piece.data), dialect)
            in_place += covered(part)
            found += [(piece.offset + start, piece.offset + end) for start, end, _ in part.mails]
        else:
            in_place += piece.separators + piece.size + piece.gap
            if not piece.gap:
                found.append((piece.offset, piece.offset + piece.size))
    assert in_place == len(data)
    long_ones = {start for start, end, _ in whole.mails if end - start > 400}
    assert [start for start, _ in found] == [start for start, _, _ in whole.mails]
    assert [pair for pair in found if pair[0] not in long_ones] == [
        (start, end) for start, end, _ in whole.mails if start not in long_ones
    ]


def test_a_long_mail_of_ours_is_kept_and_one_of_others_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail longer than a block passes through: ours with bytes, size and the content key of the whole."""
    from ingestor.archive.rows import mail_content_key

    monkeypatch.setattr(blocks_module, "LARGEST_KEPT", 300_000)
    monkeypatch.setattr(blocks_module, "LARGEST_PARSED", 1000)
    ours, longer = (sms_mail(n, "x\n" * size, line_end=b"\r\n") for n, size in ((1, 80_000), (2, 120_000)))
    data = mbox_of(ours, foreign_mail(1, b"y\n" * 200_000), sms_mail(3), longer, sms_mail(4))
    parts = list(
        Blocks(_Trickle(data), Dialect.MBOX, lambda header: b"smsin@" in header, buffer=bytearray(150_000))
    )
    first, foreign, second = (part for part in parts if isinstance(part, LongMail))
    assert (first.raw or b"").rstrip() == ours.rstrip()
    assert foreign.raw is None
    assert second.raw == longer[:1000]
    assert second.size == len(longer)
    assert [part.content_key for part in (first, second)] == [
        mail_content_key(ours),
        mail_content_key(longer),
    ]
    assert parts[-1].end == len(data)


def test_mailboxes_of_the_standard_library_come_back(tmp_path: Path) -> None:
    """What `mailbox.mbox` writes is read as what `mailbox.mbox` reads."""
    made = [
        sms_mail(1),
        foreign_mail(1, b"\nFrom me\n\nFrom you\n"),
        sms_mail(2, "a\n\n\n"),
        foreign_mail(2, b""),
    ]
    box = mailbox.mbox(tmp_path / "box")
    for mail in made:
        box.add(mail)
    box.close()
    with contextlib.closing(mailbox.mbox(tmp_path / "box")) as read:
        expected = [read.get_bytes(key).rstrip(b"\n") for key in read.iterkeys()]
    assert [m.rstrip(b"\n") for _, m in mails((tmp_path / "box").read_bytes(), Dialect.MBOXCL2)] == expected
