"""A day of one SMS a second, as fast as it goes: neither memory nor descriptors grow."""

import http.client
import re
import urllib.parse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.servers.imap.server import ImapServer
from tests.service.archive import rows
from tests.service.process import configuration, mailbox, running, until

BEFORE = 100_000
HOURS, AN_HOUR = 24, 3600
POSTED = 10  # one in ten comes by a POST, each on a connection of its own
CUTS = 6  # in each hour: the server hangs up
WARM = 8  # hours until caches and heaps have the size that they keep
BLOCKS = (
    '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n',
    '[metrics]\nlisten = "127.0.0.1:0"\n',
)
MAIL = (
    "From: smsin@agiletelecom.com\r\nSubject: Agile Telecom -- SMS received\r\n"
    "Message-ID: <{number}@agiletelecom.com>\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    "From: {originator}\r\nTo: +393331234333\r\nDate/Time: {moment}\r\nBody: SMS {number} of the day\r\n"
)
UNIT = Path(__file__).parents[2] / "systemd/ingestor.service"
BEGUN = datetime(2026, 3, 2, tzinfo=UTC)


def _sender(number: int) -> str:
    return f"+39333{number % 10_000_000:07}"


def _of(number: int) -> tuple[str, bytes]:
    """Return when SMS `number` was sent, and its mail."""
    moment = f"{BEGUN + timedelta(seconds=number):%Y%m%d%H%M%S}"
    return moment, MAIL.format(number=number, moment=moment, originator=_sender(number)).encode()


def _post(port: int, number: int) -> None:
    moment, _ = _of(number)
    form = {
        "originator": _sender(number), "destination": "+393331234333", "date_time": moment,
        "text": f"SMS {number} of the day",
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/a", urllib.parse.urlencode(form))
    assert connection.getresponse().read() == b"+OK"
    connection.close()


def _resident(pid: int) -> int:
    found = re.search(r"^VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def _environment() -> dict[str, str]:
    """Return the variables that the unit sets."""
    return dict(re.findall(r"^Environment=(\w+)=(\S+)$", UNIT.read_text(), re.MULTILINE))


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.torture
@pytest.mark.timeout(1800)
def test_a_day_at_one_sms_a_second(tmp_path: Path, sqlite_url: str) -> None:
    """86,400 SMS by mail and POST with 144 reconnects: memory flat within 5 %, no descriptor leaked.

    From the eighth hour on, that is: what is free in the heap is not given back at once.

    The daemon runs with the unit's variables. The archive is larger than SQLite's page cache from the start,
    which would fill over the day otherwise.
    """
    server, kept, opened = ImapServer(), list[int](), list[int]()
    with server.running():
        config = configuration(tmp_path, sqlite_url, mailbox(server.port, after_store="delete"), *BLOCKS)
        before = tmp_path / "before.mbox"
        before.write_bytes(b"".join(b"From x\n" + _of(-number)[1] + b"\n" for number in range(1, BEFORE + 1)))
        with running(config, "import", "--quiet", str(before), fork=False) as filled:
            assert filled.process.wait(600) == 0
        with running(config, environment=_environment(), fork=False) as daemon:
            daemon.wait_ready()
            port = daemon.events("webhook listening")[0]["port"]
            for number in range(HOURS * AN_HOUR):
                if number % POSTED == 0:
                    _post(port, number)
                else:
                    server.deliver(_of(number)[1])
                if (number + 1) % (AN_HOUR // CUTS) == 0:
                    server.disconnect()
                if (number + 1) % AN_HOUR == 0:
                    until(
                        lambda done=number + 1: _stored(sqlite_url) == BEFORE + done,
                        "the hour stored",
                        seconds=300,
                    )
                    until(lambda: server.connections == 1, "the mailbox watched", seconds=60)
                    until(lambda: not server.call(lambda: server.boxes["INBOX"].messages), "all deleted")
                    kept.append(_resident(daemon.process.pid))
                    opened.append(_descriptors(daemon.process.pid))
            assert daemon.stop() == 0
    print(f"kB at the end of each hour: {kept}; descriptors: {opened}")
    whole = BEFORE + HOURS * AN_HOUR
    assert rows(sqlite_url, "SELECT count(*), sum(arrivals) FROM inbound_sms") == [(whole, whole)]
    assert max(kept[WARM:]) <= 1.05 * kept[WARM - 1], kept
    assert max(opened[WARM:]) <= opened[WARM - 1], opened


def _stored(url: str) -> int:
    [[count]] = rows(url, "SELECT count(*) FROM sms")
    return int(str(count))
