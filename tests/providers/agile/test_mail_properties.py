"""Any text comes through any transport unchanged, and no bytes whatever raise."""

import base64
import binascii
import html
import re
from datetime import UTC, datetime
from urllib.parse import urlencode

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingestor.providers import post_reader
from ingestor.providers.agile.parts import unflowed
from ingestor.providers.agile.text import ORDER, html_to_text
from ingestor.providers.contract import NotOurs, Post, Readable
from ingestor.record import fingerprint, stored_text
from tests.providers.agile.corpus import BLOCK, HEADER, READER, RULES, read_both

# A lone CR is a line end to one mailer and a character to the next; the corpus has it.
_TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\0"), max_size=300)
_LINES = st.lists(
    st.sampled_from(
        ["", "From: x", "To: +39", "Date/Time: 20200101000000", "Body: no", "From a@b", "--b1x", " two", "a ",
         "perché", "=41", "\N{PARTY POPPER}", "&amp;", "Text:", ".", "> q"]
    ),
    max_size=8,
).map("\n".join)  # fmt: skip
_DELIMITER = re.compile(r"^--b1(--)?[ \t]*$", re.MULTILINE)
_ANY_TEXT = st.one_of(_TEXTS, _LINES)


def _behind_its_label(text: str) -> str:
    """Return what may be left of `text`: where the label's own line is blank, the text begins below it."""
    return stored_text(re.sub("^[ \t\u00a0]*\n", "", text + "\n"))


def _mail(structure: bytes, body: bytes) -> bytes:
    return HEADER + structure + b"\r\n\r\n" + body


def _block(text: str) -> bytes:
    return BLOCK.replace(b"News ON", text.encode()).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _transports(text: str) -> dict[str, bytes]:
    block = _block(text)
    utf8 = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "
    quoted = binascii.b2a_qp(block, istext=True)
    part = b"--b1\r\n" + utf8 + b"quoted-printable\r\n\r\n" + quoted + b"\r\n--b1"
    page = "<br>\n".join(html.escape(line) for line in text.split("\n"))
    page = BLOCK.decode().replace("\r\n", "<br>\n").replace("News ON", page)
    return {
        "8bit": _mail(utf8 + b"8bit", block),
        "quoted-printable": _mail(utf8 + b"quoted-printable", quoted),
        "base64": _mail(utf8 + b"base64", base64.encodebytes(block)),
        "undeclared": _mail(b"X-Other: 1", block),
        "multipart": _mail(b"Content-Type: multipart/mixed; boundary=b1", part + b"--\r\n"),
        "never closed": _mail(b"Content-Type: multipart/mixed; boundary=b1", part[: -len(b"\r\n--b1")]),
        "html": _mail(b"Content-Type: text/html; charset=utf-8", page.encode()),
    }


@settings(max_examples=150, deadline=None)
@given(_ANY_TEXT)
@example("")
@example("\n\nBody: x\n")
@example(" \n ")
@example("From here\n.\n--b1\n--b12\n=\n= \n")
@example("\u202fx")
@example("\u00a0 \u2067x\u2069")
@example("*123#")
@example("=0A\n=0D\n")
def test_a_text_survives_every_transport(text: str) -> None:
    """What was written is what is stored, by every transfer encoding and structure, and by both lanes."""
    for transport, raw in _transports(text).items():
        if transport == "html" and not _plain_enough_for_html(text):
            continue
        if transport in {"multipart", "never closed"} and _DELIMITER.search(text):
            continue
        reading = read_both(raw)
        assert isinstance(reading, Readable), transport
        assert reading.sms.text == _behind_its_label(text), transport
        assert [getattr(reading.sms, name) for name in ORDER[:3]] == [
            "+393351234567", "+393331234333", "20260514102301",
        ]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(_ANY_TEXT)
@example("\u202fdomani")
@example(" \u00a0\u202f\n\u200f x\u202f")
@example("\ufeff\u2028\x85\x1c")
@example("e\u0301 \u1f71")
def test_a_text_is_one_row_whichever_way_it_comes(text: str) -> None:
    """By mail in every encoding and by POST, escaped or not, declared or not, it has one fingerprint."""
    ways = {
        transport: read_both(raw)
        for transport, raw in _transports(text).items()
        if (transport != "html" or _plain_enough_for_html(text))
        and (transport not in {"multipart", "never closed"} or not _DELIMITER.search(text))
    }
    fields = {"originator": "+393351234567", "destination": "+393331234333", "date_time": "20260514102301"}
    form = urlencode(fields | {"text": text})
    for charset in ("", "; charset=utf-8", "; charset=ISO-8859-1"):
        post = Post(form.encode(), b"", "application/x-www-form-urlencoded" + charset, datetime.now(UTC))
        ways[f"POST{charset}"] = post_reader("agile").read_post(post, RULES)[0]

    prints = {way: fingerprint(reading.sms, b"k" * 32) for way, reading in ways.items()}

    assert len(set(prints.values())) == 1, prints


_LABELS = (
    "",
    "utf-8",
    "iso-8859-1",
    "us-ascii",
    "x-unknown",
    "windows-1251",
    "gb2312",
    "shift_jis",
    "koi8-r",
)
_BYTES = st.lists(
    st.one_of(
        st.binary(max_size=3),
        st.sampled_from("èàù€😀朱髙п").map(str.encode),
        st.sampled_from([b" ", b"a", b"8"]),
    ),
    max_size=12,
).map(lambda pieces: b"".join(pieces).translate(None, b"\r\n\0\x1b"))


@settings(max_examples=400, deadline=None)
@given(_BYTES, st.sampled_from(_LABELS))
@example(b"\xff\xfe", "")
@example(b"\xef\xbb\xbf\xc4\xe3", "gb2312")
@example(b"\x80 8", "utf-8")
@example(b"\xc3", "utf-8")
@example("perché ".encode() + b"\xf0\x9f", "utf-8")
def test_the_same_bytes_are_the_same_text_whichever_way_they_come(data: bytes, label: str) -> None:
    """Good, bad or cut: bytes under one label are one row, by mail in three encodings and by POST."""
    charset = f"; charset={label}" if label else ""
    described = f"Content-Type: text/plain{charset}\r\nContent-Transfer-Encoding: ".encode()
    block = BLOCK.replace(b"News ON", data)
    mails = (
        _mail(described + b"8bit", block),
        _mail(described + b"base64", base64.encodebytes(block)),
        _mail(described + b"quoted-printable", binascii.b2a_qp(block, istext=True)),
    )
    form = urlencode(
        {
            "originator": "+393351234567",
            "destination": "+393331234333",
            "date_time": "20260514102301",
            "text": data,
        }
    )
    post = Post(form.encode(), b"", "application/x-www-form-urlencoded" + charset, datetime.now(UTC))
    readings = [*map(read_both, mails), *post_reader("agile").read_post(post, RULES)]

    assert len({fingerprint(reading.sms, b"k" * 32) for reading in readings}) == 1, readings


def _plain_enough_for_html(text: str) -> bool:
    """HTML shows no line of blanks only, and drops blanks beside a line end of the source."""
    forbidden = {chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))} - {"\n"}
    lines = text.split("\n")
    return not forbidden & set(text) and all(line == line.strip() for line in lines)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000))
@example(b"")
@example(b"\n")
@example(b"\r\n\r\n")
@example(b"From:\nSubject:\n\n")
def test_no_bytes_raise(raw: bytes) -> None:
    """Arbitrary bytes are somebody else's mail, as a whole and as a header."""
    assert isinstance(read_both(raw), NotOurs)
    assert READER.may_be_ours(raw, RULES) is False


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"", b"Content-Type: text/html\r\n", b"Content-Transfer-Encoding: base64\r\n",
                     b"Content-Transfer-Encoding: quoted-printable\r\n",
                     b"Content-Type: multipart/alternative; boundary=b\r\n",
                     b"Content-Type: text/plain; charset=utf-16; format=flowed\r\n"]),
    st.binary(max_size=1000),
)  # fmt: skip
def test_no_body_raises(structure: bytes, body: bytes) -> None:
    """A mail of ours with an arbitrary body is one of the readings, and never ignored."""
    assert not isinstance(read_both(HEADER + structure + b"\r\n" + body), NotOurs)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=300))
def test_no_header_value_raises(sender: bytes, structure: bytes) -> None:
    """Arbitrary bytes in From, or in what describes the body, never raise and never differ by lane."""
    read_both(b"From: " + sender + b" <smsin@agiletelecom.com>\r\n" + HEADER + b"\r\n" + BLOCK)
    read_both(HEADER + b"Content-Type: " + structure + b"\r\n\r\n" + BLOCK)


_MARKUP = (
    "<", ">", "</td>", "<td>", "<tr>", "<p>", "</p>", "<br>", "<!--", "-->", "<pre>", "</pre>", "<style>",
    "</style>", "&amp;", "&#", "x", " ", "\n", "\u00a0", "a b",
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(_MARKUP)))
def test_html_becomes_text_whatever_its_markup(pieces: list[str]) -> None:
    """Broken markup still gives a text, in which no whole tag and no comment is left."""
    text = html_to_text("".join(pieces))
    assert not any(tag in text for tag in ("<br>", "<td>", "<!--", "</p>"))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("ab >", max_size=6), max_size=5).map("\n".join))
def test_fixed_lines_do_not_flow(text: str) -> None:
    """A text none of whose lines ends in a blank comes through format=flowed line by line."""
    lines = [line.rstrip(" ") for line in text.split("\n")]
    stuffed = "\n".join(" " + line if line[:1] in (" ", ">") else line for line in lines)
    assert unflowed(stuffed, delete_space=False) == "\n".join(lines)
