"""Refusals over the wire: the right status, no hint, and one line a minute in the log."""

import socket
from base64 import b64encode

import pytest
import structlog

from ingestor import http as refusals
from ingestor.http import RefusalLog
from ingestor.intake.listener import gate
from ingestor.intake.listener.reception import Limits
from tests.intake.listener.client import Answered, Client, post, sms
from tests.intake.listener.conftest import MakeStand
from tests.intake.listener.stand import AGILE, INFOBIP, SECRET, Stand
from tests.waiting import until


def _hold_bare(answer: Answered) -> None:
    """A refusal is a status line and nothing to learn from."""
    assert answer.body == b""
    assert set(answer.headers) <= {"date", "content-length", "connection", "www-authenticate"}


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (post("/", sms(1)), 404),
        (post(AGILE[:-1], sms(1)), 404),
        (post(AGILE, b"", method="GET"), 405),
        (post(AGILE, b"", method="DELETE"), 405),
        (post("/agile", b"", method="GET"), 404),
        (post(AGILE, sms(1), "X-Forwarded-For: 192.0.2.1"), 403),
        (post(AGILE, b"x" * 70_000), 413),
        (post(AGILE, b"", "Content-Length: 99999999999"), 413),
        (post(AGILE, b"11170\r\n" + b"x" * 70_000 + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), 413),
        (post(AGILE, sms(1), "X-Long: " + "x" * 20_000), 431),
        (post(AGILE + "?" + "x" * 20_000, sms(1)), 431),
        (post(AGILE, sms(1), *(f"X-{i}: 1" for i in range(200))), 431),
        (b"nonsense\r\n\r\n", 400),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
def test_refusals_give_no_hint(stand: Stand, request_bytes: bytes, status: int) -> None:
    """Each kind of refusal has its status and an empty body; nothing reaches the writer; it ends there."""
    with stand.client() as client:
        answer = client.ask(request_bytes)
        _hold_bare(answer)
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        client.rest()
    assert stand.at_hand.taken == []


def test_a_header_that_never_ends_is_refused(stand: Stand) -> None:
    """Sixteen KiB of header without an end are enough, wherever the line ends fall."""
    with stand.client() as client:
        client.send(b"POST " + AGILE.encode() + b" HTTP/1.1\r\nHost: x\r\nX: ")
        client.flood(b"y" * 1000)
    assert stand.listener.refused == {"header too large": 1}


def test_trailers_cannot_grow_without_end(stand: Stand) -> None:
    """What comes behind a chunked body is counted like a header, and never used as one."""
    trailers = b"".join(b"X-Forwarded-Proto: http\r\n" for _ in range(200))
    chunked = post(AGILE, b"1\r\nx\r\n0\r\n" + trailers + b"\r\n", "Transfer-Encoding: chunked")

    assert stand.ask(chunked).status == 431


def test_one_byte_chunks_cannot_grow_without_end(stand: Stand) -> None:
    """A body of tiny chunks with long extensions is bounded by its raw size too."""
    chunk = b"1;" + b"e" * 60_000 + b"\r\nx\r\n"
    with stand.client() as client:
        client.send(post(AGILE, b"", "Transfer-Encoding: chunked"))
        client.flood(chunk)
    assert stand.listener.refused == {"body over max_body_bytes": 1}


def test_the_largest_body_is_accepted(stand: Stand) -> None:
    """max_body_bytes itself is not too much."""
    assert stand.ask(post(AGILE, sms(1).ljust(65_536, b"x"))).body == b"+OK"


def test_logins_and_networks_over_the_wire(make_stand: MakeStand) -> None:
    """401 asks for Basic and for nothing more; 403 says nothing at all."""
    stand = make_stand(
        endpoints=(
            {"path": AGILE, "provider": "agile", "basic_username": "u", "basic_password_credentials": ("c",)},
            {"path": INFOBIP, "provider": "infobip", "allow_from": ("192.0.2.0/24",)},
        ),
        passwords=("old", "new"),
    )
    refused = stand.sms(1)
    _hold_bare(refused)

    assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Basic realm="webhook"')
    for password in ("old", "new"):
        login = b64encode(f"u:{password}".encode()).decode()
        assert stand.ask(post(AGILE, sms(1), f"Authorization: Basic {login}")).body == b"+OK"
    assert stand.ask(post(INFOBIP, b"{}")).status == 403


def test_more_than_can_be_taken_at_once_is_refused(make_stand: MakeStand) -> None:
    """Overload is 503, the provider comes again; what was taken is answered when it is durable."""
    stand = make_stand(limits=Limits(in_flight=3, writer_seconds=60.0, answer_seconds=60.0))
    stand.at_hand.silent = True
    waiting = [stand.client() for _ in range(3)]
    for number, client in enumerate(waiting):
        client.send(post(AGILE, sms(number)))
    until(lambda: len(stand.at_hand.taken) == 3)

    assert stand.sms(9).status == 503
    for _, future in stand.at_hand.taken:
        future.cancel()
    assert [client.answer().body for client in waiting] == [b"+OK"] * 3  # from the spool


def test_logs_say_each_kind_once_a_minute() -> None:
    """A flood of refusals is one line a minute with its number, and never the path."""
    now = [0.0]
    log = RefusalLog(lambda: now[0])
    with structlog.testing.capture_logs() as lines:
        for second in range(150):
            now[0] = float(second)
            log.note(gate.WRONG_PATH, "192.0.2.1")
            log.note(gate.NO_HTTPS, "192.0.2.1")

    counts = [(line["kind"], line["count"]) for line in lines]
    assert counts == [("wrong path", 1), ("not by HTTPS", 1)] + [("wrong path", 60), ("not by HTTPS", 60)] * 2


def test_a_flood_is_counted_to_its_last() -> None:
    """What came after the first line of a minute is said when the minute is over, or at the end."""
    now = [0.0]
    log = RefusalLog(lambda: now[0])
    with structlog.testing.capture_logs() as lines:
        for _ in range(500):
            log.note(refusals.MALFORMED, "192.0.2.1")
        log.tick()
        assert [line["count"] for line in lines] == [1]
        now[0] = 60.0
        log.tick()
        log.tick()
        assert [line["count"] for line in lines] == [1, 499]
        log.note(refusals.MALFORMED, "192.0.2.1")
        log.end()
    assert [line["count"] for line in lines] == [1, 499, 1]


def test_the_client_is_named_and_not_its_proxy(make_stand: MakeStand) -> None:
    """Behind a trusted proxy the log says which address to put into allow_from."""
    stand = make_stand(
        endpoints=({"path": AGILE, "provider": "agile", "allow_from": ("192.0.2.0/24",)},),
        trusted_proxies=("127.0.0.1",),
    )
    with structlog.testing.capture_logs() as lines:
        heads = ("X-Forwarded-Proto: https", "X-Forwarded-For: 198.51.100.7")
        assert stand.ask(post(AGILE, sms(1), *heads)).status == 403
    assert [(line["kind"], line["peer"]) for line in lines] == [("network not in allow_from", "198.51.100.7")]


def test_nothing_secret_reaches_the_log(stand: Stand) -> None:
    """Paths, texts and numbers stay out of every line, whatever goes wrong."""
    with structlog.testing.capture_logs() as lines:
        stand.sms(7_654_321)
        stand.ask(post(AGILE + "x", sms(7_654_321)))
        stand.ask(post(AGILE, sms(7_654_321), method="GET"))
        stand.ask(post(AGILE, sms(7_654_321), "X-Forwarded-For: 192.0.2.1"))
        stand.at_hand.error = RuntimeError("text +393357654321")
        stand.sms(7_654_321)

    assert lines
    assert not any(word in repr(line) for line in lines for word in (SECRET, "7654321", "message", "+39"))


def test_a_crowd_of_silent_connections_keeps_nobody_out(make_stand: MakeStand) -> None:
    """At the cap the oldest connection without a request makes room for whoever knocks."""
    stand = make_stand(limits=Limits(connections=20))
    proven = stand.client()
    assert proven.ask(post(AGILE, sms(0))).body == b"+OK"
    crowd = [socket.create_connection(stand.listener.address) for _ in range(60)]
    try:
        for number in range(1, 30):
            assert stand.sms(number).body == b"+OK"
        assert proven.ask(post(AGILE, sms(99))).body == b"+OK"
    finally:
        for one in crowd:
            one.close()


def test_at_the_cap_a_full_house_of_waiting_requests_is_overload(make_stand: MakeStand) -> None:
    """Connections that wait for an answer are never sacrificed: the next one waits, then hears 503."""
    stand = make_stand(
        limits=Limits(connections=2, queue_seconds=0.1, writer_seconds=60.0, answer_seconds=60.0)
    )
    stand.at_hand.silent = True
    waiting = [stand.client() for _ in range(2)]
    for number, client in enumerate(waiting):
        client.send(post(AGILE, sms(number)))
    until(lambda: len(stand.at_hand.taken) == 2)
    with Client(stand.listener.address) as late:
        assert late.answer().status == 503
