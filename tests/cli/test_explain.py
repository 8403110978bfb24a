"""`ingestor explain`: the verdict on each mail, what decided, and the record; nothing is changed by it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.cli.calling import Called
from tests.intake.mailbox.desk import FOREIGN, mail
from tests.servers.imap.server import ImapServer
from tests.service.archive import rows
from tests.service.process import configuration, mailbox

LIST = "sms@lists.example.net"
NEAR = mail(3).replace(b"smsin@agiletelecom.com", LIST.encode(), 1)
TAGGED = mail(4).replace(b"Agile Telecom --", b"[EXTERNAL] Agile Telecom --")
INVOICE = b"From: smsin@agiletelecom.com\r\nSubject: Invoice\r\n\r\nDear customer,\r\npay 7 EUR\r\n"
REPLY = b"From: boss@example.org\r\nSubject: Re: Agile Telecom -- SMS received\r\n\r\nPlease call.\r\n"
CASES = {
    "sms": (mail(1), "an SMS, to be stored", "our sender, our subject and a whole block"),
    "tagged": (TAGGED, "an SMS, to be stored", "recognised by sender, part of the subject"),
    "near": (NEAR, "to be quarantined", f"from {LIST}, who is not one of [agile] senders"),
    "invoice": (INVOICE, "to be quarantined", "from our sender, but the subject is another one"),
    "reply": (REPLY, "ignored, a look-alike", "our subject, but not from our sender"),
    "foreign": (FOREIGN, "ignored", "neither our sender nor our subject"),
}  # fmt: skip


@pytest.fixture
def server() -> Iterator[ImapServer]:
    """An IMAP server on loopback."""
    server = ImapServer()
    with server.running():
        yield server


Call = Callable[..., Called]


def explained(call: Call, *arguments: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in call("explain", "--json", *arguments).out.splitlines()]


@pytest.mark.parametrize("name", CASES)
def test_a_file_without_any_archive(called: Call, tmp_path: Path, name: str) -> None:
    """Verdict, rule, the lines it looked at, and the record where there is one; no archive is made."""
    raw, verdict, rule = CASES[name]
    (tmp_path / "a.eml").write_bytes(raw)

    [seen] = explained(called, "a.eml")
    words = called("explain", "a.eml").out

    assert seen["verdict"] == verdict
    assert rule in seen["rule"]
    assert any(line.startswith("From: ") for line in seen["looked_at"])
    assert any(line.startswith("Subject: ") for line in seen["looked_at"])
    assert (seen["record"] is not None) == verdict.startswith("an SMS")
    assert rule in words.replace("\n", " ")
    if name == "invoice":
        assert seen["looked_at"][-2:] == ["text: Dear customer,", "text: pay 7 EUR"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.eml"]


def test_mailboxes_archives_and_what_cannot_be_read(called: Call, tmp_path: Path) -> None:
    """Every mail of every file has its place; what cannot be read is said, and the exit code is 1."""
    lf = [raw.replace(b"\r\n", b"\n") for raw in (mail(1), FOREIGN, b"X: y\n\n" + b"long\n" * 500_000, NEAR)]
    (tmp_path / "m.mbox").write_bytes(
        b"".join(b"From x Mon May 11 10:00:00 2026\n" + raw + b"\n" for raw in lf)
    )
    (tmp_path / "x.bin").write_bytes(bytes(range(256)) * 40)

    seen = explained(called, "m.mbox", "x.bin", "absent")

    assert [one["verdict"] for one in seen] == [
        "an SMS, to be stored", "ignored", "ignored", "to be quarantined", "unreadable", "unreadable",
    ]  # fmt: skip
    assert [one["offset"] for one in seen[:2]] == [32, 32 + len(lf[0]) + 1 + 32]
    assert called("explain", "absent").code == 1
    assert called("explain", "m.mbox").code == 0


def test_what_the_archive_has_is_said(called: Call, tmp_path: Path, archive_engine: Engine) -> None:
    """The SMS a mail became, the one it repeats, and the number under which it stands in the quarantine."""
    url = archive_engine.url.render_as_string(hide_password=False)
    again = mail(1).replace(b"<1@", b"<other@")
    for name, raw in (("a", mail(1)), ("b", again), ("c", NEAR), ("d", mail(5))):
        (tmp_path / f"{name}.eml").write_bytes(raw)
    called("--database-url", url, "import", "a.eml", "c.eml")
    before = rows(url, "SELECT count(*) FROM arrivals"), rows(url, "SELECT count(*) FROM runs")

    seen = explained(called, "--database-url", url, "a.eml", "b.eml", "c.eml", "d.eml")

    assert [one["verdict"] for one in seen] == [
        "read before: SMS 1", "a duplicate of SMS 1", "quarantined as 2", "an SMS, to be stored",
    ]  # fmt: skip
    assert before == (rows(url, "SELECT count(*) FROM arrivals"), rows(url, "SELECT count(*) FROM runs"))


def test_what_was_read_once_is_shown_beside_todays_reading(called: Call, tmp_path: Path) -> None:
    """Under other settings the mail would be nobody's SMS: the one it became is shown, and why not today."""
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    (tmp_path / "a.eml").write_bytes(mail(1))
    called("--database-url", url, "import", "a.eml")
    config = configuration(tmp_path, url, '[agile]\nsender = "x@example.org"\n')

    [seen] = explained(called, "--config", config, "a.eml")

    assert seen["verdict"] == "read before: SMS 1"
    assert "who is not one of [agile] senders" in seen["rule"]


def test_a_mailbox_is_only_looked_at(called: Call, server: ImapServer, tmp_path: Path) -> None:
    """Of the last mails, or one: no flag, no SELECT, no cursor, and of strangers' no body."""
    for raw, _, _ in CASES.values():
        server.deliver(raw)
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    config = configuration(tmp_path, url, mailbox(server.port))
    called("--config", config, "db", "upgrade")

    seen = explained(called, "--config", config, "--mailbox", "main", "--last", "20")
    [last] = explained(called, "--config", config, "--mailbox", "main", "--last", "1")
    [third] = explained(called, "--config", config, "--mailbox", "main", "--uid", "3")
    absent = called("--config", config, "explain", "--mailbox", "main", "--uid", "77")

    assert [(one["uid"], one["verdict"]) for one in seen] == [
        (uid, verdict) for uid, (_, verdict, _) in enumerate(CASES.values(), 1)
    ]
    assert (last["uid"], third["uid"]) == (6, 3)
    assert "only its From and Subject were fetched" in last["rule"]
    assert (absent.code, absent.faults) == (1, ["ingestor: main: the folder INBOX has no mail 77"])
    assert {one["reached"] for one in seen} == {"not yet: this folder was never read"}
    assert "SELECT" not in server.commands
    assert not any(message.flags for message in server.boxes["INBOX"].messages)
    assert rows(url, "SELECT * FROM cursors") == []


@pytest.mark.parametrize(
    "arguments", [[], ["a.eml", "--mailbox", "main"], ["a.eml", "--uid", "3"], ["--mailbox", "nobody"]]
)
def test_wrong_usage(called: Call, arguments: list[str]) -> None:
    """Exactly one of the two is looked at, and a mailbox must be configured."""
    done = called("explain", *arguments)
    assert (done.code, len(done.faults)) == (2, 1)
