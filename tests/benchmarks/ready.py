"""How long a daemon takes from its start to READY: at most a second.

It has a mailbox, a webhook, [metrics] and an archive that is there; what systemd itself adds is not in it.
Beside the time stands the processor's (user and system), which a busy machine shifts least.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.servers.imap.server import ImapServer
from tests.service.process import configuration, mailbox, running

STARTS = 5
SECONDS = 1.0
BLOCKS = (
    f'[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/{"b" * 32}"\nprovider = "agile"\n',
    '[metrics]\nlisten = "127.0.0.1:0"\n',
)


def main() -> None:
    """Print the medians of some starts, and the best."""
    server, taken, worked = ImapServer(), list[float](), list[float]()
    with server.running(), tempfile.TemporaryDirectory() as folder:
        archive = f"sqlite:///{Path(folder) / 'archive.db'}"
        config = configuration(Path(folder), archive, mailbox(server.port), *BLOCKS)
        for turn in range(STARTS + 1):
            began = time.perf_counter()
            with running(config, fork=False) as daemon:
                daemon.wait_heard("READY=1")
                ended = time.perf_counter()
                stat = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
                if turn:  # the first makes the archive and fills the bytecode cache
                    taken.append(ended - began)
                    worked.append((int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"))
                daemon.wait_ready()
                daemon.stop()
    print(f"{statistics.median(taken):.2f} s to READY (at most {SECONDS:g}), {min(taken):.2f} at best")
    print(f"{statistics.median(worked):.2f} s of the processor, {min(worked):.2f} at best")


if __name__ == "__main__":
    main()
