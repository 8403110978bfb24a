"""Requests that two servers could read differently, and requests that nobody can read."""

import random
import re
import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingestor.archive.payloads import unpack
from tests.intake.listener.client import FORM, post, sms
from tests.intake.listener.stand import AGILE, INFOBIP, IP1, SECRET, Stand

BODY = sms(1)
LINE = b"POST " + AGILE.encode() + b" HTTP/1.1\r\n"
HOST = b"Host: x\r\n"
HIDDEN = post(AGILE, sms(666))
LENGTH = b"Content-Length: %d\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
END = b"0\r\n\r\n"

# Each hides a second request from a front server that reads the framing another way (CL.TE, TE.CL, TE.TE,
# CL.0, header folding, line ends, versions, upgrades). Only the first may ever be answered, with an error.
SMUGGLING = {
    "length and chunked": LINE + HOST + LENGTH % len(END + HIDDEN) + CHUNKED + b"\r\n" + END + HIDDEN,
    "chunked and length": LINE + HOST + CHUNKED + LENGTH % 4 + b"\r\n" + b"1\r\nx\r\n" + END + HIDDEN,
    "two lengths": LINE + HOST + LENGTH % 0 + LENGTH % len(HIDDEN) + b"\r\n" + HIDDEN,
    "twice the same length": LINE + HOST + LENGTH % 1 + LENGTH % 1 + b"\r\nx" + HIDDEN,
    "a list of lengths": LINE + HOST + b"Content-Length: 0, 0\r\n\r\n" + HIDDEN,
    "a signed length": LINE + HOST + b"Content-Length: +0\r\n\r\n" + HIDDEN,
    "a negative length": LINE + HOST + b"Content-Length: -1\r\n\r\n" + HIDDEN,
    "a hexadecimal length": LINE + HOST + b"Content-Length: 0x0\r\n\r\n" + HIDDEN,
    "an empty length": LINE + HOST + b"Content-Length:\r\n\r\n" + HIDDEN,
    "an endless length": LINE + HOST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + HIDDEN,
    "a length with a blank inside": LINE + HOST + b"Content-Length: 1 1\r\n\r\nx" + HIDDEN,
    "a blank before the colon": LINE + HOST + b"Content-Length : 0\r\n\r\n" + HIDDEN,
    "a blank before chunked's colon": LINE + HOST + b"Transfer-Encoding : chunked\r\n\r\n" + END + HIDDEN,
    "an unknown coding": LINE + HOST + b"Transfer-Encoding: xchunked\r\n\r\n" + END + HIDDEN,
    "identity": LINE + HOST + b"Transfer-Encoding: identity\r\n\r\n" + END + HIDDEN,
    "gzip, chunked": LINE + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + END + HIDDEN,
    "chunked, identity": LINE + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n" + END + HIDDEN,
    "chunked twice": LINE + HOST + CHUNKED + CHUNKED + b"\r\n" + END + HIDDEN,
    "chunked, then another": LINE + HOST + CHUNKED + b"Transfer-Encoding: x\r\n\r\n" + END + HIDDEN,
    "a vertical tab before chunked": LINE + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + END + HIDDEN,
    "quoted chunked": LINE + HOST + b'Transfer-Encoding: "chunked"\r\n\r\n' + END + HIDDEN,
    "a folded header": LINE + HOST + b"X: a\r\n b\r\n" + LENGTH % 0 + b"\r\n" + HIDDEN,
    "a folded coding": LINE + HOST + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + END + HIDDEN,
    "line feeds alone": (LINE + HOST + LENGTH % 0 + b"\r\n").replace(b"\r", b"") + HIDDEN,
    "one line feed alone": LINE + HOST + b"X: y\n" + LENGTH % 0 + b"\r\n" + HIDDEN,
    "a carriage return alone": LINE + HOST + b"X: y\rContent-Length: 5\r\n\r\n" + HIDDEN,
    "a NUL in a header": LINE + HOST + b"X: y\0z\r\n" + LENGTH % 0 + b"\r\n" + HIDDEN,
    "chunks with line feeds": LINE + HOST + CHUNKED + b"\r\n1\nx\n0\n\n" + HIDDEN,
    "a chunk size with 0x": LINE + HOST + CHUNKED + b"\r\n0x1\r\nx\r\n" + END + HIDDEN,
    "a chunk size with a blank": LINE + HOST + CHUNKED + b"\r\n1 \r\nx\r\n" + END + HIDDEN,
    "a chunk size with a sign": LINE + HOST + CHUNKED + b"\r\n+1\r\nx\r\n" + END + HIDDEN,
    "an endless chunk size": LINE + HOST + CHUNKED + b"\r\n" + b"F" * 17 + b"\r\nx\r\n" + END + HIDDEN,
    "a chunk longer than it says": LINE + HOST + CHUNKED + b"\r\n1\r\nxyz\r\n" + END + HIDDEN,
    "chunked in HTTP/1.0": LINE.replace(b"1.1", b"1.0") + HOST + CHUNKED + b"\r\n" + END + HIDDEN,
    "HTTP/1.2": LINE.replace(b"1.1", b"1.2") + HOST + LENGTH % 0 + b"\r\n" + HIDDEN,
    "HTTP/2 without asking": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "HTTP/1.10": LINE.replace(b"1.1", b"1.10") + HOST + LENGTH % 0 + b"\r\n" + HIDDEN,
    "no Host": LINE + LENGTH % 0 + b"\r\n" + HIDDEN,
    "two Hosts": LINE + HOST + b"Host: y\r\n" + LENGTH % 0 + b"\r\n" + HIDDEN,
    "an absolute target of no known scheme": b"POST x://x" + LINE[5:] + HOST + LENGTH % 0 + b"\r\n" + HIDDEN,
    "a header without a name": LINE + HOST + b": x\r\n" + LENGTH % 0 + b"\r\n" + HIDDEN,
    "a header without a colon": LINE + HOST + b"x\r\n" + LENGTH % 0 + b"\r\n" + HIDDEN,
    "a blank in a header's name": LINE + HOST + b"X Y: 1\r\n" + LENGTH % 0 + b"\r\n" + HIDDEN,
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + HIDDEN,
}


@pytest.mark.parametrize("shape", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_a_smuggled_request_is_never_taken(stand: Stand, shape: bytes) -> None:
    """An ambiguous request is refused, its connection ends, and what hides behind it is not read."""
    with stand.client() as client:
        answer = client.ask(shape)
        assert 400 <= answer.status < 500
        assert client.rest() == b""
    assert stand.at_hand.taken == []


@pytest.mark.parametrize("shape", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_the_same_shape_in_pieces_ends_the_same(stand: Stand, shape: bytes) -> None:
    """Where the bytes are split between packets changes nothing."""
    dice = random.Random(shape)
    with stand.client() as client:
        place = 0
        while place < len(shape):
            step = dice.randrange(1, 20)
            try:
                client.send(shape[place : place + step])
            except ConnectionError:
                break
            place += step
        client.rest()
    assert stand.at_hand.taken == []


UPGRADES = (
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA"),
    ("Upgrade: h2c", "Connection: upgrade"),
    ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
)


@pytest.mark.parametrize("fields", UPGRADES)
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_an_upgrade_is_ignored_and_its_body_read(stand: Stand, fields: tuple[str, ...], pieces: int) -> None:
    """A POST that asks for another protocol is read as what it is, however its bytes are cut."""
    request = post(AGILE, BODY, *fields) + post(AGILE, sms(2))
    step = len(request) // pieces + 1
    with stand.client() as client:
        for at in range(0, len(request), step):
            client.send(request[at : at + step])
            time.sleep(0.02)
        assert [client.answer().status for _ in range(2)] == [200, 200]
    payloads = [item.payload for work, _ in stand.at_hand.taken for item in work.items if item.payload]
    raws = [unpack(one.compressed) for one in payloads]
    assert raws == [BODY, sms(2)]


def test_an_upgrade_that_hides_a_body_without_a_length_is_refused(stand: Stand) -> None:
    """What stands behind a request without a body is the next request, Upgrade or not."""
    shape = LINE + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + CHUNKED + LENGTH % 4 + b"\r\n" + HIDDEN
    with stand.client() as client:
        assert client.ask(shape).status == 400
        client.rest()
    assert stand.at_hand.taken == []


def test_the_absolute_form_is_taken(stand: Stand) -> None:
    """A client with a proxy setting sends it, and RFC 9112 3.2.2 asks every server to take it."""
    for scheme in ("http", "HTTPS"):
        request = post(f"{scheme}://localhost{AGILE}?originator=x", BODY)
        assert stand.ask(request).status == 200
    assert stand.ask(post("http://localhost", BODY)).status == 404


@pytest.mark.parametrize(
    ("prelude", "kind"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", "PROXY protocol"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "PROXY protocol"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
    ],
)
def test_another_protocol_is_refused_by_its_name(stand: Stand, prelude: bytes, kind: str) -> None:
    """The log names what the proxy is to be told, which saves an afternoon."""
    with stand.client() as client:
        assert client.ask(prelude + post(AGILE, BODY)).status == 400
    [refused] = stand.listener.refused
    assert refused.startswith(kind)
    assert stand.at_hand.taken == []


def test_trailers_are_no_headers(stand: Stand) -> None:
    """Fields behind a chunked body never reach the reader of the POST."""
    shape = LINE + HOST + CHUNKED + b"\r\n1\r\nx\r\n0\r\nContent-Type: application/json\r\n\r\n"
    assert stand.ask(shape).status == 200
    [(work, _)] = stand.at_hand.taken
    assert [item.payload.content_type for item in work.items if item.payload] == [""]


def test_a_client_that_half_closes_gets_its_answer_and_leaves_no_descriptor(stand: Stand) -> None:
    """What is durable is answered; then the connection ends at once, on both sides."""
    with stand.client() as client:
        client.send(post(AGILE, BODY))
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer().body == b"+OK"
        assert client.rest() == b""


def test_the_secret_path_is_never_logged(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    """Not by the server's own logger either, whatever handlers there are."""
    assert stand.sms(1).status == 200
    assert stand.ask(post(AGILE, b"x" * 100_000)).status == 413
    assert SECRET not in caplog.text


def test_a_body_on_a_get_is_not_a_request(stand: Stand) -> None:
    """What is refused ends the connection, so that its body is never taken for the next request."""
    with stand.client() as client:
        assert client.ask(post(AGILE, HIDDEN, method="GET")).status == 405
        assert client.rest() == b""
    assert stand.at_hand.taken == []


def test_ten_thousand_random_bodies_are_each_an_arrival(stand: Stand) -> None:
    """Noise at the right paths is accepted and kept, one item or more each, and nothing falls over."""
    dice = random.Random(10_000)
    paths = (AGILE, INFOBIP, IP1)
    kinds = (FORM, "application/json", "text/plain; charset=x", "")
    sent = 10_000
    with stand.client() as client:
        for start in range(0, sent, 10):
            client.send(b"".join(
                post(dice.choice(paths), dice.randbytes(dice.randrange(300)), content_type=dice.choice(kinds))
                for _ in range(start, start + 10)
            ))  # fmt: skip
            assert all(client.answer().status == 200 for _ in range(10))
    taken = [item for work, _ in stand.at_hand.taken for item in work.items if item.payload is not None]
    assert len(taken) == sent
    assert len({item.content_key for item in taken}) == sent


headers = st.lists(
    st.tuples(
        st.sampled_from(
            ["Host", "Content-Length", "Transfer-Encoding", "Content-Type", "Connection", "Expect", "Upgrade",
             "Authorization", "X-Forwarded-For", "X-Forwarded-Proto", "X", "", "Content-Length "]
        ),
        st.sampled_from(
            ["x", "0", "5", "5, 5", "-1", "chunked", "gzip", "close", "keep-alive", "100-continue", "h2c",
             "https", "127.0.0.1", "", "Upgrade", "\xff", FORM]
        ) | st.text(st.characters(max_codepoint=0xFF), max_size=20),
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["POST", "GET", "HEAD", "OPTIONS", "PRI", "post", "", "M-SEARCH"])
    | st.text(max_size=5),
    target=st.sampled_from([AGILE, INFOBIP, "/", "*", "", AGILE + "?a=b", "//x" + AGILE])
    | st.text(max_size=20),
    version=st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.1 ", ""]),
    fields=headers,
    end=st.sampled_from(["\r\n\r\n", "\n\n", "\r\n", ""]),
    body=st.binary(max_size=40),
)
def test_whatever_is_sent_is_answered_or_ended(
    stand: Stand, method: str, target: str, version: str, fields: list[tuple[str, str]], end: str, body: bytes
) -> None:
    """Generated requests on every route get a plain answer of HTTP, or none; the next client is served."""
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in fields)]
    with stand.client() as client:
        client.send("\r\n".join(lines).encode("utf-8", "replace") + end.encode() + body)
        client.socket.shutdown(1)
        said = client.rest()
    assert said == b"" or re.match(rb"HTTP/1\.1 (100|200|400|401|403|404|405|408|413|431) ", said), said
    assert b"Traceback" not in said
    assert stand.sms(2).body == b"+OK"
