"""The two fast lanes of our own, held to what the slow and well-known ones make of the same bytes."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imapclient.response_parser import parse_fetch_response

from ingestor.archive.payloads import unpack
from ingestor.archive.rows import mail_content_key
from ingestor.intake.mailbox.pieces import pack_pieces
from ingestor.intake.mailbox.rows import rows_by_uid

BODIES = st.binary(max_size=200)
FLAG_LISTS = st.lists(st.sampled_from([b"\\Seen", b"\\Answered", b"$Junk", b"work"]), max_size=3)
SECTIONS = st.sampled_from([b"BODY[]", b"BODY[HEADER.FIELDS (FROM SUBJECT)]", b"BODY[]<1048576>", b"body[]"])


@st.composite
def answers(draw: st.DrawFn) -> list[object]:
    """Return FETCH data as imaplib gives it: rows of several shapes, some of them other people's."""
    answer: list[object] = []
    for uid in draw(st.lists(st.integers(100, 4_000_000_000), unique=True, max_size=6)):
        number = draw(st.integers(1, 99))
        body = draw(BODIES)
        flags = b"FLAGS (" + b" ".join(draw(FLAG_LISTS)) + b") " if draw(st.booleans()) else b""
        size = b"RFC822.SIZE %d " % len(body) if draw(st.booleans()) else b""
        head = b"%d (UID %d %s%s%s {%d}" % (number, uid, flags, size, draw(SECTIONS), len(body))
        match draw(st.integers(0, 5)):
            case 0:
                answer.append(b"%d (FLAGS (\\Seen))" % number)
            case 1:
                answer.append(b"%d (UID %d RFC822.SIZE 7)" % (number, uid))
            case 2:
                answer.append(b'%d (UID %d BODY[] "quoted")' % (number, uid))
            case 3:
                answer += [(head, body), b" FLAGS (\\Seen))"]
            case _:
                answer += [(head, body), b")"]
    return answer or [None]


@given(answers())
def test_the_fast_lane_reads_what_imapclient_reads(answer: list[object]) -> None:
    """Bodies and sizes by UID are the same, whichever lane reads the answer."""
    expected = parse_fetch_response(answer, normalise_times=False, uid_is_key=True)
    found = rows_by_uid(answer)

    interesting = {
        uid: {k: v for k, v in row.items() if k.startswith((b"BODY", b"RFC822"))}
        for uid, row in expected.items()
    }
    ours = {
        uid: {k: v for k, v in row.items() if k.startswith((b"BODY", b"RFC822"))}
        for uid, row in found.items()
    }
    assert {uid: row for uid, row in ours.items() if row} == {u: row for u, row in interesting.items() if row}


def test_the_fast_lane_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual shape, as Dovecot and Cyrus send it, never reaches imapclient's parser."""
    monkeypatch.setattr("ingestor.intake.mailbox.rows.parse_fetch_response", None)
    fields = b"BODY[HEADER.FIELDS (FROM SUBJECT)]"

    rows = rows_by_uid([
        (b"1 (UID 7 RFC822.SIZE 44 " + fields + b" {3}", b"abc"), b")",
        (b"2 (UID 8 BODY[] {2}", b"xy"), b" FLAGS (\\Seen))",
        b"9 (FLAGS (\\Flagged))",
    ])  # fmt: skip

    assert rows == {7: {fields: b"abc", b"RFC822.SIZE": 44}, 8: {b"BODY[]": b"xy"}}


@given(st.lists(st.text("ab\r\n", max_size=12).map(str.encode), min_size=1, max_size=8))
def test_pieces_are_packed_as_their_whole_would_be(pieces: list[bytes]) -> None:
    """Content key, hash and bytes of a mail in pieces are those of the mail, wherever it was cut."""
    whole = b"".join(pieces)

    payload, key = pack_pieces(list(pieces), len(whole))

    assert key == mail_content_key(whole)
    assert payload.sha256 == hashlib.sha256(whole).digest()
    assert payload.compressed is not None
    assert unpack(payload.compressed) == whole
