"""`[mailbox.trust]` as a sysadmin meets it: the daemon, `status`, `explain`, `show` and `check`."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive.items import SenderCheck, Submission
from ingestor.archive.store import Store
from ingestor.intake.mailbox import signatures
from ingestor.record import Channel
from ingestor.service.checks.machine import check_everything
from ingestor.settings import Settings, load
from ingestor.watch.found import senders_of
from tests.archive.samples import item
from tests.cli.calling import ingestor
from tests.intake.mailbox.desk import FOREIGN, mail
from tests.intake.mailbox.signing import AGILE, rsa_key, signed
from tests.servers.dovecot import PASSWORD, DovecotServer
from tests.servers.name_server import NameServer
from tests.service.archive import rows
from tests.service.process import configuration, mailbox, running, until

PASS = SenderCheck("dkim", "pass", AGILE, "s1", "p=")
FAIL = SenderCheck("dkim", signatures.UNSIGNED)


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server that knows Agile's key."""
    with NameServer().running() as server:
        server.put("s1", rsa_key()[1])
        server.records[AGILE] = [[b"v=spf1 -all"]]
        yield server


def block(dovecot: DovecotServer, user: str, names: NameServer, policy: str, **more: object) -> str:
    """Return a mailbox whose senders are judged."""
    keys = {
        "security": "tls", "host": "localhost", "ca_file": str(dovecot.ca_file), "username": user,
        "password": PASSWORD, "poll_seconds": 1, **more,
    }  # fmt: skip
    table = f'[mailbox.trust]\nmethod = "dkim"\npolicy = "{policy}"\nresolvers = ["{names.address}"]\n'
    return mailbox(dovecot.imaps_port, **keys) + table


def called(config: Path, *words: str) -> str:
    """Return what a command prints."""
    return ingestor("--config", config, *words, folder=config.parent).out


def explained(config: Path) -> list[dict[str, str]]:
    """Return what `explain` says of each mail of the mailbox."""
    return [json.loads(one) for one in called(config, "explain", "--mailbox", "main", "--json").splitlines()]


@pytest.mark.dovecot
def test_signed_unsigned_and_spoofed_mails_go_through_the_daemon(
    dovecot: DovecotServer, names: NameServer, sqlite_url: str, tmp_path: Path
) -> None:
    """Recorded at first, then required by a reload: forged mail is kept out, told, and let in by a person."""
    user, spoof = dovecot.account(), signed(mail(3), domain="evil.example")
    config = configuration(tmp_path, sqlite_url, block(dovecot, user, names, "record"))
    verdicts = "SELECT text, sender_verified FROM inbound_sms ORDER BY text"
    with running(config, "run") as daemon:
        daemon.wait_ready()
        dovecot.deliver(user, [signed(mail(1)), mail(2), spoof, FOREIGN])
        until(lambda: len(rows(sqlite_url, verdicts)) == 3)
        assert rows(sqlite_url, verdicts) == [("text 1", 1), ("text 2", 0), ("text 3", 0)]

        configuration(tmp_path, sqlite_url, block(dovecot, user, names, "require"))
        daemon.reload()
        dovecot.deliver(user, [signed(mail(4)), mail(5), signed(mail(6)).replace(b"text 6", b"text 7")])
        reasons = "SELECT reason FROM quarantine ORDER BY id"
        until(lambda: len(rows(sqlite_url, reasons)) == 2)
        until(lambda: len(rows(sqlite_url, verdicts)) == 4)
        assert rows(sqlite_url, reasons) == [
            (f"the sender is not proven: {one}",) for one in (signatures.UNSIGNED, signatures.WRONG)
        ]
        assert rows(sqlite_url, verdicts)[-1] == ("text 4", 1)

    assert "sender proven, main" in called(config, "status")
    assert "2 of 6 mails in 30 days (33 %)" in called(config, "status")
    seen = [
        json.loads(line) for line in called(config, "explain", "--mailbox", "main", "--json").splitlines()
    ]
    assert [(one["verdict"], one.get("sender")) for one in seen if "sender" in one] == [
        ("read before: SMS 1", f"proven (dkim, pass, {AGILE}) when it came"),
        ("read before: SMS 2", f"not proven (dkim, {signatures.UNSIGNED}) when it came"),
        ("read before: SMS 3", f"not proven (dkim, {signatures.OF_OTHERS}) when it came"),
        ("read before: SMS 4", f"proven (dkim, pass, {AGILE}) when it came"),
        ("quarantined as 5", f"not proven (dkim, {signatures.UNSIGNED}) when it came"),
        ("quarantined as 6", f"not proven (dkim, {signatures.WRONG}, {AGILE}) when it came"),
    ]
    shown = json.loads(called(config, "show", "1", "--json"))["arrivals"][0]
    assert (shown["sender_finding"], shown["sender_selector"]) == ("pass", "s1")

    assert "2 quarantined + 0 failed" in called(config, "quarantine", "retry")
    configuration(tmp_path, sqlite_url, block(dovecot, user, names, "record"))
    called(config, "quarantine", "retry")
    assert rows(sqlite_url, verdicts)[4:] == [("text 5", 0), ("text 7", 0)]


@pytest.mark.dovecot
def test_explain_judges_what_the_daemon_has_not_read(
    dovecot: DovecotServer, names: NameServer, sqlite_url: str, tmp_path: Path
) -> None:
    """It says what would be found now, and where that keeps the mail out."""
    user = dovecot.account()
    dovecot.deliver(user, [signed(mail(1)), mail(2), FOREIGN])
    config = configuration(tmp_path, sqlite_url, block(dovecot, user, names, "require"))
    seen = [
        json.loads(line) for line in called(config, "explain", "--mailbox", "main", "--json").splitlines()
    ]
    assert [(one["verdict"], one.get("sender")) for one in seen] == [
        ("an SMS, to be stored", f"proven (dkim, pass, {AGILE})"),
        ("to be quarantined", f"not proven (dkim, {signatures.UNSIGNED})"),
        ("ignored", None),
    ]
    assert "but the sender is not proven" in seen[1]["rule"]


@pytest.mark.dovecot
def test_a_reload_without_the_library_is_refused(
    dovecot: DovecotServer, names: NameServer, sqlite_url: str, tmp_path: Path
) -> None:
    """The old configuration stays; a start says the same line and ends with 2."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "dkim.py").write_text("raise ModuleNotFoundError('no', name='dkim')")
    user, lacking = dovecot.account(), {"PYTHONPATH": str(tmp_path / "without")}
    judged = block(dovecot, user, names, "record")
    config = configuration(tmp_path, sqlite_url, judged.partition("[mailbox.trust]")[0])
    with running(config, "run", environment=lacking) as daemon:
        daemon.wait_ready()
        configuration(tmp_path, sqlite_url, judged)
        daemon.reload()
        [refused] = daemon.events("reload refused")
        assert "needs dkim, which is not installed" in refused["reason"]
        dovecot.deliver(user, [mail(1)])
        until(lambda: rows(sqlite_url, "SELECT text, sender_verified FROM inbound_sms") == [("text 1", None)])
    with running(config, "run", environment=lacking) as daemon:
        assert daemon.process.wait(60) == 2
        assert "needs dkim, which is not installed" in daemon.log_path.read_text()


def said(settings: Settings) -> list[str]:
    return [f"{one.level} {one.says}" for one in check_everything(settings) if one.says.startswith("trust:")]


@pytest.mark.dovecot
def test_check_says_what_the_table_will_do(
    dovecot: DovecotServer,
    names: NameServer,
    sqlite_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether a name server answers, or what the newest mail has at its top; and the missing library."""
    monkeypatch.setattr(signatures, "LOOK_UP_SECONDS", 0.3)
    user = dovecot.account()

    def settings(policy: str = "record", table: str = "") -> Settings:
        text = block(dovecot, user, names, policy)
        if table:
            text = text.partition("[mailbox.trust]")[0] + f"[mailbox.trust]\n{table}"
        return load(configuration(tmp_path, sqlite_url, text), None)

    assert said(settings()) == [
        f"ok trust: a name server answers about {AGILE}; each verdict is kept beside the SMS"
    ]
    assert "goes to the quarantine" in said(settings("require"))[0]
    names.silent = True
    assert said(settings()) == [f"warn trust: no name server answers about {AGILE}; no verdict"]
    assert said(settings("require")) == [
        f"fail trust: no name server answers about {AGILE}; mails wait for one"
    ]

    noted = 'method = "rfc8601"\nauthserv_id = "mx.example.org"\n'
    assert said(settings(table=noted))[0].startswith("ok trust: there is no mail yet")
    dovecot.deliver(user, [b"Authentication-Results: mx.example.com; dkim=none\r\n" + FOREIGN])
    assert said(settings(table=noted))[0].startswith("warn trust: of the newest mail in INBOX: the topmost")
    dovecot.deliver(user, [b"Authentication-Results: mx.example.org; dkim=none\r\n" + FOREIGN])
    assert said(settings(table=noted))[0].startswith("ok trust: the newest mail has what your mail server")

    monkeypatch.delitem(sys.modules, "ingestor.intake.mailbox.signatures")
    monkeypatch.setitem(sys.modules, "dkim", None)
    assert "what is not installed" in said(settings())[0]


SAFE = '; every one: policy = "require" is safe, and keeps forged mail out'


@pytest.mark.parametrize(
    ("days", "says", "propose"),
    [
        ({}, "no mail was judged yet", False),
        ({0: "p", 1: "p"}, "2 of 2 mails in 30 days (100 %)", False),
        ({0: "p", 29: "p", 31: "p"}, f"2 of 2 mails in 30 days (100 %){SAFE}", True),
        ({0: "p", 29: "f", 31: "p"}, "1 of 2 mails in 30 days (50 %)", False),
        ({0: "p", 2: "?", 31: "p"}, "1 of 2 mails in 30 days (50 %), 1 could not be told", False),
        ({0: "p", 31: "f"}, f"1 of 1 mails in 30 days (100 %){SAFE}", True),
    ],
)
def test_require_is_proposed_after_thirty_days_without_a_doubt(
    archive_engine: Engine, days: dict[int, str], says: str, propose: bool
) -> None:
    """Mails that were not judged, and those of other mailboxes, do not count."""
    store, now = Store(archive_engine), datetime.now(UTC)
    found = {"p": (True, PASS), "f": (False, FAIL), "?": (None, FAIL)}
    for number, (ago, kind) in enumerate(days.items()):
        verified, check = found[kind]
        mails = [item(number, channel=Channel.MAILBOX, sender_verified=verified, sender_check=check)]
        mails += [item(100 + number, channel=Channel.MAILBOX)]
        mails += [item(200 + number, channel=Channel.MAILBOX, source="b", sender_verified=False,
                       sender_check=FAIL)]  # fmt: skip
        store.write([Submission(None, tuple(mails))], now - timedelta(days=ago, seconds=10))
    table = {"name": "main", "host": "h", "username": "u", "password": "p", "trust": {}}
    settings = Settings.model_validate({"mailbox": [table, {**table, "name": "c", "trust": None}]})

    [one] = senders_of(settings, archive_engine, now)
    assert (one.says, one.propose) == (says, propose)


def test_an_import_judges_nobody(tmp_path: Path, sqlite_url: str) -> None:
    """Its mails come with no DNS of their day: NULL and never false, whatever the policy of a mailbox is."""
    table = '[mailbox.trust]\npolicy = "require"\n'
    config = configuration(tmp_path, sqlite_url, mailbox(1) + table)
    (tmp_path / "a.eml").write_bytes(signed(mail(1)))
    (tmp_path / "b.eml").write_bytes(mail(2))
    called(config, "import", str(tmp_path / "a.eml"), str(tmp_path / "b.eml"))
    assert rows(sqlite_url, "SELECT sender_verified FROM inbound_sms") == [(None,), (None,)]
