"""Real clients at a real daemon: what curl sends in each of its ways becomes the row it means."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.intake.listener.client import post, sms
from tests.intake.listener.stand import AGILE, Stand

FORM = "originator=%2B39335{:07d}&destination=%2B393331234333&date_time=20260514102301&text=by+curl"
DATA_SEGMENTS_IN = 152  # where it stands in Linux's tcp_info
WAYS = {
    "HTTP/1.1": (),
    "HTTP/1.0": ("--http1.0",),
    "asking for HTTP/2": ("--http2",),
    "chunked": ("-H", "Transfer-Encoding: chunked"),
    "expecting 100": ("-H", "Expect: 100-continue"),
}


@pytest.fixture
def curl() -> str:
    """The path of curl."""
    found = shutil.which("curl")
    if found is None:
        missing("curl is not installed; on Debian: apt-get install curl")
    return str(found)


@pytest.fixture
def listening(tmp_path: Path, sqlite_engine: object) -> Iterator[Stand]:
    """A listener on an SQLite archive."""
    stand = Stand(tmp_path, sqlite_engine)  # type: ignore[arg-type]
    yield stand
    stand.stop()


def _call(curl: str, stand: Stand, *words: str, path: str = AGILE) -> str:
    host, port = stand.listener.address
    url = f"http://{host}:{port}{path}"
    done = subprocess.run(
        [curl, "-sS", "-m", "20", "-w", " %{http_code}", *words, url], capture_output=True, text=True
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_each_way_of_curl_is_an_sms(curl: str, listening: Stand, way: tuple[str, ...]) -> None:
    """+OK is said only for the whole body, and the row has its text."""
    assert _call(curl, listening, *way, "-d", FORM.format(1)) == "+OK 200"
    assert listening.texts() == ["by curl"]


def test_a_proxy_setting_changes_nothing(curl: str, listening: Stand) -> None:
    """With a proxy curl sends the absolute form."""
    host, port = listening.listener.address
    assert (
        _call(curl, listening, "-x", f"http://{host}:{port}", "--noproxy", "", "-d", FORM.format(2))
        == "+OK 200"
    )
    assert listening.texts() == ["by curl"]


def test_many_requests_use_one_connection(curl: str, listening: Stand) -> None:
    """A connection is kept alive from one request to the next."""
    host, port = listening.listener.address
    said = subprocess.run(
        [curl, "-sS", "-w", "%{num_connects}", "-d", FORM.format(3), *[f"http://{host}:{port}{AGILE}"] * 3],
        capture_output=True, text=True,
    )  # fmt: skip
    assert said.stdout == "+OK1+OK0+OK0"


def test_a_balancer_is_told_that_the_listener_lives(curl: str, listening: Stand) -> None:
    """`GET /healthz` answers 200 on loopback, and 404 where a proxy tells of a client behind it."""
    assert _call(curl, listening, path="/healthz") == "ok 200"
    assert _call(curl, listening, "-I", path="/healthz").endswith(" 200")
    assert _call(curl, listening, "-H", "X-Forwarded-For: 192.0.2.1", path="/healthz") == " 404"


@pytest.mark.parametrize("answers", [1, 3], ids=["one", "three on one connection"])
def test_an_answer_comes_in_one_packet(listening: Stand, answers: int) -> None:
    """Head and body of an answer are sent at once: as two packets it costs much more."""
    with listening.client() as client:
        for number in range(answers):
            assert client.ask(post(AGILE, sms(number))).body == b"+OK"
        counts = client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, DATA_SEGMENTS_IN + 4)
    assert int.from_bytes(counts[DATA_SEGMENTS_IN:], sys.byteorder) == answers
