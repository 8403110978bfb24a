"""A daemon that gets no more threads, or a signal too early: it is ended by a stop, and by nothing else."""

import os
import resource
import signal
import stat
from pathlib import Path

from tests.servers.imap.server import ImapServer
from tests.service.process import configuration, mailbox, running, until

STACK = 8 * 1024 * 1024


def test_a_stop_is_heard_where_no_thread_can_be_started(
    server: ImapServer, tmp_path: Path, made_url: str
) -> None:
    """The address space has no room for another stack: SIGTERM still ends the service, in order."""
    webhook = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
    config = configuration(tmp_path, made_url, mailbox(server.port), mailbox(1, "nobody"), webhook)
    with running(config, fork=False) as process:
        process.wait_ready()
        number = process.process.pid
        now = int(Path(f"/proc/{number}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(number, resource.RLIMIT_AS, (now + STACK // 2, now + STACK // 2))
        process.process.send_signal(signal.SIGHUP)  # every mailbox wants a new thread
        process.wait_heard("READY=1", 2)

        assert process.stop() == 0
        assert "Traceback" not in process.log_path.read_text()


def test_a_reload_before_the_start_is_done_ends_nothing(
    server: ImapServer, tmp_path: Path, made_url: str
) -> None:
    """SIGHUP while the configuration is still being read waits, and reloads once there is what to reload."""
    config = configuration(tmp_path, made_url, mailbox(server.port))
    text = config.read_bytes()
    config.unlink()
    os.mkfifo(config, 0o600)
    with running(config, fork=False) as process:
        pipe = until(lambda: _opened_by_a_reader(config), "the configuration is read")
        process.process.send_signal(signal.SIGHUP)
        until(lambda: _waits(process.process.pid, signal.SIGHUP), "the signal is held back")
        again = tmp_path / "again"
        again.write_bytes(text)
        again.chmod(0o600)
        again.replace(config)
        os.write(pipe, text)
        os.close(pipe)

        process.wait_heard("RELOADING=1")
        process.wait_heard("READY=1", 2)
        assert process.stop() == 0


def _opened_by_a_reader(path: Path) -> int | None:
    assert stat.S_ISFIFO(path.stat().st_mode)
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # ENXIO: nobody reads yet
        return None


def _waits(number: int, wanted: int) -> bool:
    """Say whether a signal waits for process `number` (proc(5): SigPnd and ShdPnd are masks in hex)."""
    lines = Path(f"/proc/{number}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(mask >> (wanted - 1) & 1 for mask in masks)
