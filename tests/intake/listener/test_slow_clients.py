"""Clients that take their time, on purpose or not. Real limits are 10 s; here they are short."""

import socket
import time
from pathlib import Path

import pytest

from ingestor.intake.listener.reception import Limits
from tests.intake.listener.client import post, sms
from tests.intake.listener.conftest import MakeStand
from tests.intake.listener.stand import AGILE, Stand
from tests.waiting import until

SHORT = Limits(request_seconds=0.6, idle_seconds=1.2, linger_seconds=0.5)


@pytest.fixture
def impatient(make_stand: MakeStand) -> Stand:
    """A listener that waits half a second for a request."""
    return make_stand(limits=SHORT)


def test_the_shipped_limits_are_ten_seconds() -> None:
    """A request has 10 s from its first byte to its last, and Agile hears something within 30 s."""
    limits = Limits()

    assert limits.request_seconds == 10.0
    assert limits.writer_seconds == 5.0
    assert limits.answer_seconds + limits.writer_seconds < 30.0


def test_a_silent_connection_ends(impatient: Stand) -> None:
    """Who connects and says nothing is sent away without a word."""
    with impatient.client() as client:
        assert client.rest() == b""


@pytest.mark.parametrize("request_bytes", [post(AGILE, sms(1)), post(AGILE, sms(1), "X: " + "y" * 5000)])
def test_a_drip_of_bytes_prolongs_nothing(impatient: Stand, request_bytes: bytes) -> None:
    """Slowloris, in the head or in the body: one byte now and then is still too slow, and 408 says so."""
    with impatient.client() as client:
        try:
            for byte in request_bytes:
                client.send(bytes([byte]))
                time.sleep(0.02)
        except ConnectionError:
            pass
        assert b" 408 " in client.rest()[:20] or impatient.listener.refused == {"request too slow": 1}
    assert impatient.at_hand.taken == []


def test_an_idle_connection_ends_later_than_a_slow_one(make_stand: MakeStand) -> None:
    """Between requests a connection may rest longer: proxies keep theirs open. It ends without a word."""
    stand = make_stand(limits=Limits(request_seconds=60.0, idle_seconds=180.0))
    with stand.client() as client:
        for number in (1, 2):
            assert client.ask(post(AGILE, sms(number))).body == b"+OK"
            server = stand.listener._server
            assert server is not None
            [connection] = server._connections
            until(lambda: 60 < connection.deadline - connection.loop.time() <= 180)  # noqa: B023 - at once
        connection.deadline = 0.0
        assert client.rest() == b""


def test_a_client_that_never_reads_its_answers_ends(impatient: Stand) -> None:
    """Answers that nobody fetches do not pile up: the listener stops reading, then ends the connection."""
    for listening in impatient.listener._sockets:  # else the kernel keeps megabytes of answers for the client
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client = impatient.client()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.flood(post(AGILE, sms(1)) * 200)
    assert len(impatient.at_hand.taken) < 20_000


def test_slow_clients_do_not_slow_the_others(make_stand: MakeStand, tmp_path: Path) -> None:
    """Two hundred half-sent requests stand open, and a provider is served as ever."""
    stand = make_stand()
    half = post(AGILE, sms(1))[:-5]
    slow = [stand.client() for _ in range(200)]
    for client in slow:
        client.send(half)
    for number in range(50):
        assert stand.sms(number).body == b"+OK"
    for client in slow:
        client.send(post(AGILE, sms(1))[-5:])
    assert all(client.answer().body == b"+OK" for client in slow)
