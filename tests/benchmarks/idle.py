"""What an idle daemon costs: wake-ups a second and memory, with a mailbox in IDLE, a listener and [metrics].

The mailbox logs in by OAuth2 where there is a Dovecot, else by a password. A wake-up is a voluntary switch of
one of its threads, as Linux counts it. It runs under a watchdog, as its
unit has one.
"""

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

from tests.servers import dovecot
from tests.servers.authorization import CLIENT, SECRET, AuthorizationServer
from tests.servers.imap.server import ImapServer
from tests.service.process import configuration, mailbox, running, until

SECONDS = float(os.environ.get("BENCHMARK_SECONDS", "60"))
SETTLING_SECONDS = 16.0  # longer than the daemon counts as young
WAKE_UPS = 3.0
MEGABYTES = 90.0


def main() -> None:
    """Print the figures, and which thread wakes how often."""
    with _mailbox() as block, tempfile.TemporaryDirectory() as folder:
        archive = f"sqlite:///{Path(folder) / 'archive.db'}"
        webhook = (
            '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\n'
            f'path = "/{"b" * 32}"\nprovider = "agile"\n'
        )
        (Path(folder) / "secret").write_text(SECRET)
        (Path(folder) / "secret").chmod(0o600)
        metrics = '[metrics]\nlisten = "127.0.0.1:0"\n'
        config = configuration(Path(folder), archive, block.format(folder=folder), webhook, metrics)
        with running(config, environment={"WATCHDOG_USEC": "600000000"}, fork=False) as daemon:
            daemon.wait_ready()
            until(lambda: daemon.events("mailbox is read"), "the mailbox watched")
            page = urlopen(f"http://127.0.0.1:{daemon.events('metrics listening')[0]['port']}/metrics")
            assert b"ingestor_mailbox_up" in page.read()
            time.sleep(SETTLING_SECONDS)
            before = _wake_ups(daemon.process.pid)
            time.sleep(SECONDS)
            after = _wake_ups(daemon.process.pid)
            memory = _megabytes(daemon.process.pid)
            daemon.stop()
    by_thread = {name: (count - before.get(name, 0)) / SECONDS for name, count in after.items()}
    for place, ((_, name), rate) in enumerate(sorted(by_thread.items())):
        print(f"{rate:6.2f} a second  {name}, thread {place}")
    print(f"{sum(by_thread.values()):6.2f} wake-ups a second (at most {WAKE_UPS:g})")
    print(f"{memory:6.1f} MB (at most {MEGABYTES:g})")


@contextmanager
def _mailbox() -> Iterator[str]:
    """Run a mail server, and give the block of its mailbox."""
    if (reason := dovecot.unavailable()) is not None:
        print(f"with a password in place of OAuth2: {reason}")
        server = ImapServer()
        with server.running():
            yield mailbox(server.port)
        return
    with AuthorizationServer().running() as authority:
        mail = dovecot.DovecotServer(introspection=f"{authority.url}/introspect")
        authority.username = mail.account()
        try:
            yield (
                f'[[mailbox]]\nname = "main"\nhost = "127.0.0.1"\nport = {mail.imaps_port}\n'
                f'ca_file = "{mail.ca_file}"\nusername = "{authority.username}"\n[mailbox.oauth]\n'
                f'provider = "other"\nclient_id = "{CLIENT}"\ntoken_url = "{authority.url}/token"\n'
                'flow = "client_credentials"\nsecret_file = "{folder}/secret"\n'
            )
        finally:
            mail.close()


def _wake_ups(pid: int) -> dict[tuple[int, str], int]:
    """Return how often each thread has slept, by its number and name."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = (task / "status").read_text()
        switches = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)
        name = (task / "comm").read_text().strip()
        assert switches is not None
        found[int(task.name), name] = int(switches[1])
    return found


def _megabytes(pid: int) -> float:
    resident = re.search(r"^VmRSS:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert resident is not None
    return int(resident[1]) / 1024


if __name__ == "__main__":
    main()
