"""What clients wrap around the body of a POST, undone within bounds and never at the price of the SMS."""

import gzip
import zlib
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from ingestor.providers import POST_READERS, post_reader
from ingestor.providers.agile import form
from ingestor.providers.contract import Post, Readable, Rules, Unreadable
from ingestor.providers.posts import LARGEST, opened
from tests.providers.conformance.samples import every_sample

ARRIVED = datetime(2026, 11, 22, 8, tzinfo=UTC)
RULES = Rules(zone=ZoneInfo("Europe/Rome"))
FORM = b"originator=%2B393351234567&destination=%2B393331234333&date_time=20260514102301&text=body"
OTHERS = b"originator=%2B39000000000&destination=%2B39111111111&date_time=20200101000000&text=query"


def _bare_deflate(body: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-15)
    return packing.compress(body) + packing.flush()


@pytest.mark.parametrize(
    ("pack", "encoding"),
    [
        (gzip.compress, "gzip"), (gzip.compress, " GZIP "), (gzip.compress, "x-gzip"), (gzip.compress, ""),
        (gzip.compress, "identity"), (zlib.compress, "deflate"), (_bare_deflate, "deflate"),
        (lambda body: gzip.compress(zlib.compress(body)), "deflate, gzip"),
        (lambda body: gzip.compress(body[:9]) + gzip.compress(body[9:]), "gzip"),
        (lambda body: body, "gzip"), (lambda body: body, "deflate"), (lambda body: body, "identity"),
        (lambda body: body, "UTF-8"), (lambda body: body, "none"), (gzip.compress, "utf-8"),
        (lambda body: b"\xef\xbb\xbf" + body, ""),
        (lambda body: body.decode().encode("utf-16"), ""),
        (lambda body: body.decode().encode("utf-32-be"), ""),
    ],
)  # fmt: skip
def test_whatever_is_wrapped_around_it_is_the_same_body(pack: object, encoding: str) -> None:
    """Compressed, declared or not, unpacked by a proxy that left the header, or marked: one content."""
    packed = pack(FORM)  # type: ignore[operator]  # each is a function of the bytes

    assert opened(Post(packed, b"", "", ARRIVED, encoding)).body == FORM


@pytest.mark.parametrize("provider", sorted(POST_READERS))
@pytest.mark.parametrize(
    ("body", "encoding", "reason"),
    [
        (gzip.compress(bytes(LARGEST + 1)), "gzip", "the body unpacks to more than 4 MiB"),
        (
            gzip.compress(gzip.compress(bytes(LARGEST * 99))), "gzip, gzip",
            "the body unpacks to more than 4 MiB",
        ),
        (gzip.compress(bytes(LARGEST)) * 3, "", "the body unpacks to more than 4 MiB"),
        (zlib.compress(bytes(LARGEST + 1)), "deflate", "the body unpacks to more than 4 MiB"),
        (gzip.compress(FORM)[:-9], "gzip", "the compressed body is damaged or cut off"),
        (b"\x1f\x8b" + FORM, "gzip", "the compressed body is damaged or cut off"),
        (FORM, "br", "the Content-Encoding of the body is neither gzip nor deflate"),
        (FORM, "gzip, <script>", "the Content-Encoding of the body is neither gzip nor deflate"),
        (FORM, "gzip," * 4, "the body has too many Content-Encodings"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_cannot_be_unpacked_is_kept_and_said(
    provider: str, body: bytes, encoding: str, reason: str
) -> None:
    """A bomb, damage and an encoding nobody here knows go to the quarantine with their reason."""
    module = post_reader(provider)

    readings = module.read_post(Post(body, b"", "", ARRIVED, encoding), RULES)

    assert readings == [Unreadable(reason, module.PARSER)]


def test_compressed_samples_are_read_as_they_are_plain() -> None:
    """Every provider's reader opens what it reads: a new one that forgets it fails here."""
    for sample in every_sample():
        packed = sample.post._replace(body=gzip.compress(sample.post.body), content_encoding="gzip")

        if not sample.post.content_encoding:
            assert sample.reader.read_post(packed, RULES) == sample.reader.read_post(sample.post, RULES)


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "text/plain; charset=utf-8", "application/json", "application/octet-stream",
     "text/html", "form", "x/application/x-www-form-urlencoded"],
)  # fmt: skip
@pytest.mark.parametrize("of_query", [FORM, FORM.replace(b"text=body", b"")])
def test_only_a_form_speaks_against_the_query(content_type: str, of_query: bytes) -> None:
    """The sender of an SMS writes its text, and a gateway may post that text bare: it makes no field."""
    [reading] = form.read_post(Post(OTHERS, of_query, content_type, ARRIVED), RULES)

    if of_query == FORM:
        assert isinstance(reading, Readable)
        assert (reading.sms.originator, reading.sms.text) == ("+393351234567", "body")
    else:
        assert reading == Unreadable("the field text is missing", form.PARSER)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/json", "multipart/form-data"])
def test_a_form_is_read_whatever_it_is_called_where_nothing_speaks_against_it(content_type: str) -> None:
    """Without fields in the query a body that is a form is read, its type declared or not."""
    [reading] = form.read_post(Post(FORM, b"key=1", content_type, ARRIVED), RULES)

    assert isinstance(reading, Readable)
    assert reading.sms.text == "body"


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data; boundary=b-1", "multipart/form-data; boundary=wrong", "multipart/form-data", "",
     "application/x-www-form-urlencoded"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("head", "written"),
    [(b"", b"a +%2B&b\r\n--c\r\n"), (b"", b""), (b"", b"caff\xe8"),
     (b"\r\nContent-Transfer-Encoding: base64", b"Y2FmZsOo"),
     (b"\r\nContent-Transfer-Encoding: quoted-printable", b"caff=C3=A8"),
     (b"\r\nContent-Type: text/plain; charset=koi8-r", "\u043f\u0440\u0438\u0432".encode("koi8-r"))],
)  # fmt: skip
def test_a_form_in_parts(content_type: str, newline: bytes, head: bytes, written: bytes) -> None:
    """multipart/form-data is read by the boundary in its body; values stay as they are."""
    fields = {
        b"originator": b"+393351234567",
        b"destination": b"+393331234333",
        b"date_time": b"20260514102301",
    }
    parts = [(name, b"", value) for name, value in fields.items()] + [(b'"text"', head, written)]
    body = b"".join(
        b"--b-1\r\nContent-Disposition: form-data; name=%b%b\r\n\r\n%b\r\n" % part for part in parts
    ) + b"--b-1--\r\n"  # fmt: skip

    [reading] = form.read_post(Post(body.replace(b"\r\n", newline), b"", content_type, ARRIVED), RULES)

    assert isinstance(reading, Readable)
    assert reading.sms.originator == "+393351234567"
    assert reading.sms.text in {"a +%2B&b\n--c", "", "caff\u00e8", "\u043f\u0440\u0438\u0432"}
    assert bool(reading.sms.text) == bool(written)


@pytest.mark.parametrize(
    "spelled",
    ["form-data; name='%s'", "form-data;\r\n name=\"%s\"", "form-data; name*=utf-8\'\'%s",
     "FORM-DATA; NAME = %s", 'form-data; filename="text"; name="%s"', "form-data ;\r\n\tname='%s'"],
)  # fmt: skip
def test_names_of_parts_in_odd_spellings(spelled: str) -> None:
    """Quotes, folds, a file's name and the extended form of RFC 5987 hide no field."""
    fields = {
        "originator": "+393351234567", "destination": "+393331234333", "date_time": "20260514102301",
        "text": "x\r\nContent-Disposition: form-data; name=originator",
    }  # fmt: skip
    parts = [
        f"--b\r\nContent-Disposition: {spelled % name}\r\n\r\n{value}\r\n" for name, value in fields.items()
    ]

    [reading] = form.read_post(Post("".join(parts).encode(), b"", "multipart/form-data", ARRIVED), RULES)

    assert isinstance(reading, Readable)
    assert reading.sms.originator == fields["originator"]
    assert reading.sms.text == fields["text"].replace("\r", "")


def test_a_flood_of_parts_is_not_taken_apart() -> None:
    """More parts than any form has cost one look, and are kept."""
    body = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\nx\r\n' * 500

    [reading] = form.read_post(Post(body, b"", "multipart/form-data", ARRIVED), RULES)

    assert reading == Unreadable("the form has more than 200 fields", form.PARSER)
