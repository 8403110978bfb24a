"""The SQLite file is renamed under the running daemon: the spool, one error line, and on when it is back."""

import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from tests.cli.calling import ingestor
from tests.sample_mails import generate
from tests.servers.imap.server import ImapServer
from tests.service.archive import rows
from tests.service.process import configuration, mailbox, running, until

SMS = {"originator": "+393351234567", "destination": "+393331234333", "date_time": "20260301130000"}
BESIDE = ("", "-wal", "-shm")


def _say(config: Path, *words: str) -> tuple[int, str]:
    done = ingestor("--config", config, *words, folder=config.parent)
    return done.code, done.out + done.err


def test_nothing_is_acknowledged_into_a_file_that_no_restart_finds(
    server: ImapServer, tmp_path: Path
) -> None:
    """POSTs are spooled, mails stay unread, `status` and `check` name the copy; nothing is lost."""
    webhook = '[webhook]\nlisten = "127.0.0.1:0"\n[[webhook.endpoint]]\npath = "/a"\nprovider = "agile"\n'
    url, path = f"sqlite:///{tmp_path}/archive.db", tmp_path / "archive.db"
    config = configuration(tmp_path, url, mailbox(server.port, poll_seconds=1, after_store="delete"), webhook)
    mails = [mail for mail in generate(40, seed=7) if mail.expected is not None]
    with running(config) as daemon:
        daemon.wait_ready()
        port = daemon.events("webhook listening")[0]["port"]

        def post(number: int) -> bytes:
            body = urlencode(SMS | {"text": f"x {number}"}).encode()
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/a", body) as answer:
                return bytes(answer.read())

        assert post(0) == b"+OK"
        for ending in BESIDE:
            Path(f"{path}{ending}").rename(tmp_path / f"old.db{ending}")
        for mail in mails:
            server.deliver(mail.raw)
        assert [post(number) for number in range(1, 5)] == [b"+OK"] * 4
        until(lambda: daemon.events("the archive takes no writes; intake waits and tries again"), "a word")
        [line] = until(lambda: daemon.events("the archive file is not the one that is open"), "why")
        assert (line["level"], "removed or renamed" in line["reason"]) == ("error", True)
        assert len(list((tmp_path / "spool").glob("*.post"))) == 4
        for command in ("status", "check"):
            code, said = _say(config, command)
            assert (code, line["saved"] in said) == (1, True), said
        assert not path.exists()
        assert len(server.call(lambda: server.boxes["INBOX"].messages)) == len(mails)
        for ending in BESIDE:
            (tmp_path / f"old.db{ending}").rename(f"{path}{ending}")
        total = [(len({tuple(mail.expected.values()) for mail in mails if mail.expected}) + 5,)]
        until(lambda: rows(url, "SELECT count(*) FROM inbound_sms") == total, "every SMS")
        until(lambda: not server.call(lambda: server.boxes["INBOX"].messages), "every mail deleted")
        until(lambda: _say(config, "status")[0] == 0, "all is well")
        assert daemon.stop() == 0
    code, said = _say(config, "check")
    assert "the archive holds all of it" in said
    assert rows(url, "SELECT read - stored - duplicate - ignored - quarantined - failed FROM runs") == [(0,)]
