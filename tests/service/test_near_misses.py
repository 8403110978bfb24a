"""Agile, or a list between, sends under another name one day: nothing is lost, and it is said."""

import json
from pathlib import Path

from tests.cli.calling import ingestor
from tests.intake.mailbox.desk import FOREIGN, mail
from tests.servers.imap.server import ImapServer
from tests.service.archive import read_so_far, rows, stored
from tests.service.process import configuration, mailbox, running, until

AGILE = '[agile]\nsenders = ["sms@lists.example.net"]\n'


def _from_a_list(number: int) -> bytes:
    return mail(number).replace(b"smsin@agiletelecom.com", b"SMS list <sms@lists.example.net>", 1)


def test_another_sender_costs_no_sms(server: ImapServer, tmp_path: Path, made_url: str) -> None:
    """Quarantined with a warning and a line in `status`; listed, reloaded and read again, it is in."""
    for raw in (_from_a_list(1), mail(2), FOREIGN.replace(b"hello", b"Re: Agile Telecom -- SMS received")):
        server.deliver(raw)
    with running(configuration(tmp_path, made_url, mailbox(server.port))) as daemon:
        daemon.wait_ready()
        until(lambda: read_so_far(made_url) == 3, "all mails read")
        warned = until(lambda: daemon.events("quarantined: kept, but no SMS was made of it"), "the warning")
        assert [(line["level"], line["reason"]) for line in warned] == [("warning", "sender_not_listed")]
        assert "lists.example.net" not in json.dumps(warned)

        config = configuration(tmp_path, made_url, AGILE, mailbox(server.port))
        status = json.loads(ingestor("--config", config, "status", "--json", folder=tmp_path).out)
        words = ingestor("--config", config, "status", folder=tmp_path).out
        listed = ingestor("--config", config, "quarantine", "list", folder=tmp_path).out
        shown = ingestor("--config", config, "quarantine", "show", "1", folder=tmp_path).out
        assert [(one["reason"], one["count"]) for one in status["quarantine"]] == [("sender_not_listed", 1)]
        assert [(one["missing"], one["count"]) for one in status["look_alikes"]] == [("block", 1)]
        assert "from somebody, who is not one of [agile] senders" in words
        assert "a whole block of From, To, Date/Time and Body" in words
        told = "from SMS list <sms@lists.example.net>, who is not one of [agile] senders"
        assert told in listed
        assert told in shown

        daemon.reload()
        server.deliver(_from_a_list(3))
        until(lambda: len(stored(made_url)) == 2, "the next mail of the list")
        done = ingestor("--config", config, "quarantine", "retry", "--json", folder=tmp_path)
        assert json.loads(done.out.splitlines()[-1])["stored"] == 1
        assert daemon.stop() == 0
    assert rows(made_url, "SELECT text FROM inbound_sms ORDER BY text") == [
        ("text 1",),
        ("text 2",),
        ("text 3",),
    ]
