"""`[mailbox.trust]` over a real Dovecot and a name server: what is recorded, kept out, and waits."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ingestor.archive.mailbox_state import pending_work
from ingestor.archive.store import Store
from ingestor.errors import ConfigurationError
from ingestor.intake.mailbox import signatures
from ingestor.intake.mailbox.fetch import NO_VERDICT
from ingestor.intake.retry import retry, todays_reader
from ingestor.record import Outcome
from tests.intake.mailbox.desk import BROKEN, FOREIGN, RULES, Desk, mail
from tests.intake.mailbox.signing import AGILE, rsa_key, signed
from tests.intake.mailbox.test_dovecot import account
from tests.intake.mailbox.test_near_misses import near
from tests.intake.mailbox.test_trust import SPOOFS
from tests.servers.dovecot import DovecotServer
from tests.servers.name_server import NameServer

pytestmark = pytest.mark.dovecot

CHECKED = (
    "SELECT coalesce(s.text, a.reason) || ': ' || coalesce(a.sender_verified, 'NULL') || ', '"
    " || coalesce(a.sender_finding, 'none') FROM arrivals_detail a LEFT JOIN inbound_sms s ON s.id = a.sms_id"
    " ORDER BY a.id"
)
UNSIGNED = f"0, {signatures.UNSIGNED}"


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server that knows Agile's key, and a stranger's."""
    with NameServer().running() as server:
        server.put("s1", rsa_key()[1])
        server.put("s1", rsa_key()[1], "evil.example")
        yield server


def once(desk: Desk, dovecot: DovecotServer, user: str, names: NameServer, **more: object) -> None:
    """Read the mailbox of `user` once, with its table `trust`."""
    table = {"resolvers": [names.address], **more}
    after = str(table.pop("after_store", "keep"))
    settings = account(dovecot, user, trust=table, after_store=after)
    desk.thread(dovecot.imaps_port, start=False, **settings).run_once()


def test_verdicts_are_recorded_and_nothing_is_kept_out(
    desk: Desk, dovecot: DovecotServer, names: NameServer
) -> None:
    """By default each mail of ours is stored as ever, with what was found; strangers are not judged."""
    user = dovecot.account()
    spoof = signed(mail(3), domain="evil.example")
    dovecot.deliver(user, [signed(mail(1)), mail(2), spoof, near(4), FOREIGN, signed(BROKEN)])

    once(desk, dovecot, user, names)

    assert desk.column(CHECKED) == [
        "text 1: 1, pass",
        f"text 2: {UNSIGNED}",
        f"text 3: 0, {signatures.OF_OTHERS}",
        "sender_not_listed: NULL, none",
        "the To label is missing: after From comes Date/Time: 1, pass",
    ]
    assert desk.column("SELECT sender_verified FROM inbound_sms ORDER BY id") == [1, 0, 0]
    assert desk.column("SELECT domain || ' ' || selector || ' ' || public_key FROM sender_checks"
                       " WHERE finding = 'pass'") == [f"{AGILE} s1 {rsa_key()[1].decode()}"]  # fmt: skip
    assert names.asked == [f"s1._domainkey.{AGILE}"]


def test_without_the_table_nobody_is_judged(desk: Desk, dovecot: DovecotServer) -> None:
    """Then the verdict is NULL, and no library for it is loaded."""
    user = dovecot.account()
    dovecot.deliver(user, [signed(mail(1)), mail(2)])
    desk.thread(dovecot.imaps_port, start=False, **account(dovecot, user)).run_once()
    assert desk.column(CHECKED) == ["text 1: NULL, none", "text 2: NULL, none"]

    proof = (
        "import sys, ingestor.service.daemon, ingestor.intake.mailbox, ingestor.intake.retry;"
        "assert not {'dkim', 'dns', 'nacl'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", proof], check=True)


def test_require_keeps_out_what_is_not_proven(desk: Desk, dovecot: DovecotServer, names: NameServer) -> None:
    """It stands in the quarantine with its reason and bytes, and is not touched; a retry judges nothing anew.

    Once the policy lets it in it is an SMS, with the verdict of the day it came.
    """
    user = dovecot.account()
    dovecot.deliver(user, [signed(mail(1)), mail(2)])
    once(desk, dovecot, user, names, policy="require", after_store="delete")

    assert desk.has(1)
    assert desk.column("SELECT reason FROM quarantine") == [
        f"the sender is not proven: {signatures.UNSIGNED}"
    ]
    assert dovecot.flags(user) == [""]

    strict = todays_reader(lambda _: RULES, {"main"})
    [verdict] = retry(Store(desk.engine), strict, None, desk.now)
    assert (verdict.outcome, verdict.reason) == (
        Outcome.QUARANTINED,
        'the sender is not proven: he was not when the mail came; policy = "record" lets it in',
    )
    [verdict] = retry(Store(desk.engine), todays_reader(lambda _: RULES), None, desk.now)
    assert verdict.outcome is Outcome.STORED
    assert desk.has(1, 2)
    assert desk.column("SELECT sender_verified FROM inbound_sms ORDER BY id") == [1, 0]
    assert len(names.asked) == 1


def test_require_reads_again_what_was_proven(desk: Desk, dovecot: DovecotServer, names: NameServer) -> None:
    """A mail that could not be read, but whose sender was proven, is read by a better parser."""
    user = dovecot.account()
    dovecot.deliver(user, [signed(BROKEN)])
    once(desk, dovecot, user, names, policy="require")
    names.records.clear()

    def better(kept: object) -> list[object]:
        return list(todays_reader(lambda _: RULES, {"main"})(_with(kept, mail(7))))

    [verdict] = retry(Store(desk.engine), better, None, desk.now)  # type: ignore[arg-type]  # any reading
    assert verdict.outcome is Outcome.STORED
    assert desk.column("SELECT sender_verified FROM inbound_sms") == [1]


def _with(kept: object, raw: bytes) -> object:
    from dataclasses import replace

    return replace(kept, raw=raw)  # type: ignore[type-var]  # it is a dataclass


def test_a_silent_name_server_loses_no_mail(
    desk: Desk, dovecot: DovecotServer, names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `require` mails wait for it, however many, and it is asked once; under `record` none waits."""
    monkeypatch.setattr(signatures, "LOOK_UP_SECONDS", 0.3)
    user = dovecot.account()
    dovecot.deliver(user, [signed(mail(number)) for number in range(1, 30)])
    names.silent = True

    once(desk, dovecot, user, names, policy="require")
    assert not desk.texts()
    assert {entry.reason for entry in pending_work(desk.engine)} == {NO_VERDICT}
    assert len(set(names.asked)) == 1
    assert len(names.asked) < 10

    names.silent = False
    desk.pass_time(minutes=5)
    once(desk, dovecot, user, names, policy="require")
    assert desk.has(*range(1, 30))
    assert set(desk.column("SELECT sender_verified FROM inbound_sms")) == {1}
    assert not pending_work(desk.engine)

    names.silent = True
    dovecot.deliver(user, [signed(mail(40))])
    once(desk, dovecot, user, names)
    assert desk.column(CHECKED)[-1] == f"text 40: NULL, {signatures.UNANSWERED}"


def test_after_days_without_the_dns_a_mail_is_quarantined(
    desk: Desk, dovecot: DovecotServer, names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for ever, and is not lost: its bytes stand there with the reason."""
    monkeypatch.setattr(signatures, "LOOK_UP_SECONDS", 0.3)
    user = dovecot.account()
    dovecot.deliver(user, [signed(mail(1))])
    names.fails = True
    desk.now = datetime.now(UTC)
    for _ in range(8):
        once(desk, dovecot, user, names, policy="require")
        desk.pass_time(hours=12)

    assert desk.column("SELECT reason FROM quarantine") == [f"{NO_VERDICT}, tried for 3 days"]
    [kept] = desk.column("SELECT size FROM quarantine")
    assert kept == len(signed(mail(1)))


def test_without_the_extra_the_start_says_what_to_install(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon whose settings it cannot keep does not start."""
    monkeypatch.delitem(sys.modules, "ingestor.intake.mailbox.signatures")
    monkeypatch.delattr("ingestor.intake.mailbox.signatures")
    monkeypatch.setitem(sys.modules, "dkim", None)
    with pytest.raises(ConfigurationError, match=r"needs dkim.*extra `trust`.*dkimpy\[ed25519\]"):
        desk.thread(1, start=False, trust={"method": "dkim"})
    desk.thread(1, start=False, trust={"method": "rfc8601", "authserv_id": "mx"})


def test_what_came_long_ago_is_judged_by_its_day(
    desk: Desk, dovecot: DovecotServer, names: NameServer
) -> None:
    """The server's date of receipt counts: of last month a key that is gone says nothing."""
    desk.now = datetime.now(UTC)
    user = dovecot.account()
    dovecot.deliver(user, [signed(mail(1)), signed(mail(2), selector="gone"), mail(3)])
    for path in (dovecot.maildir(user) / "new").iterdir():
        os.utime(path, (desk.now.timestamp() - 30 * 86400,) * 2)

    once(desk, dovecot, user, names)

    assert desk.column(CHECKED) == [
        "text 1: 1, pass",
        f"text 2: NULL, {signatures.NO_KEY}{signatures.TOO_OLD}",
        f"text 3: {UNSIGNED}",
    ]


def test_a_rescan_judges_again_and_the_first_verdict_stays(
    desk: Desk, dovecot: DovecotServer, names: NameServer
) -> None:
    """A good signature lets in what was kept out; nothing is stored twice, and no verdict is changed."""
    desk.now = datetime.now(UTC)
    user = dovecot.account()
    key = names.records.pop(f"s1._domainkey.{AGILE}")
    dovecot.deliver(user, [signed(mail(1)), mail(2)])
    once(desk, dovecot, user, names, policy="require")
    assert desk.column(CHECKED) == [
        f"the sender is not proven: {signatures.NO_KEY}: 0, {signatures.NO_KEY}",
        f"the sender is not proven: {signatures.UNSIGNED}: {UNSIGNED}",
    ]

    names.records[f"s1._domainkey.{AGILE}"] = key
    table = {"policy": "require", "resolvers": [names.address]}
    for _ in range(2):
        desk.thread(dovecot.imaps_port, start=False, **account(dovecot, user, trust=table)).rescan()

    assert desk.has(1)
    assert desk.column("SELECT sender_verified FROM inbound_sms") == [0]
    assert desk.count("quarantine") == 1


@pytest.mark.parametrize("policy", ["record", "require"])
def test_no_shape_of_a_spoof_is_proven_by_way_of_dovecot(
    desk: Desk, dovecot: DovecotServer, names: NameServer, policy: str
) -> None:
    """Whatever a real server makes of them: none is proven, and under `require` none becomes an SMS."""
    names.put("short", rsa_key(512)[1])
    names.put("revoked", b"p=")
    user = dovecot.account()
    raws = [make() for make, _ in SPOOFS.values()]
    dovecot.deliver(user, [*raws, signed(mail(1000))])

    once(desk, dovecot, user, names, policy=policy)

    proven = (
        "SELECT s.text FROM arrivals_detail a JOIN inbound_sms s ON s.id = a.sms_id WHERE a.sender_verified"
    )
    assert desk.column(proven) == ["text 1000"]
    assert desk.balance.failed == 0
    assert (desk.texts() == {"text 1000": 1}) is (policy == "require")
