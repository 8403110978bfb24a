"""Mails of strangers that look like an SMS: kept and never touched, counted, and bounded a day."""

from dataclasses import replace

import pytest

from ingestor.archive.items import Action, CursorMove, Pending, Submission
from ingestor.archive.mailbox_state import pending_work
from ingestor.archive.queries import look_alikes
from ingestor.archive.store import Store
from ingestor.intake.mailbox import reading
from ingestor.intake.mailbox.session import Session
from ingestor.intake.retry import reason_in_words, retry, todays_reader
from ingestor.record import Outcome
from tests.intake.mailbox.desk import FOREIGN, RULES, Desk, mail
from tests.intake.mailbox.test_dovecot import account
from tests.servers.dovecot import DovecotServer
from tests.servers.imap.server import ImapServer

LIST = "sms@lists.example.net"


def near(number: int, sender: str = LIST) -> bytes:
    """Return SMS `number` as a list sends it on under its own name."""
    return mail(number).replace(b"smsin@agiletelecom.com", sender.encode(), 1)


REPLY = b"From: boss@example.org\r\nSubject: Re: Agile Telecom -- SMS received\r\n\r\nPlease call him.\r\n"
NAMED = b'From: "smsin@agiletelecom.com" <boss@example.org>\r\nSubject: lunch\r\n\r\nToday?\r\n'
INVOICE = b"From: smsin@agiletelecom.com\r\nSubject: Invoice 7\r\n\r\nPlease pay.\r\n"


@pytest.mark.parametrize("after_store", ["seen", "delete"])
def test_a_near_miss_is_kept_and_never_touched(desk: Desk, server: ImapServer, after_store: str) -> None:
    """It stands in the quarantine by a code; once its sender is listed, a retry makes the SMS of it."""
    for raw in (near(1), mail(2), REPLY, NAMED, INVOICE, FOREIGN):
        server.deliver(raw)

    desk.thread(server.port, start=False, after_store=after_store).run_once()

    left = {m.uid: m.flags for m in server.boxes["INBOX"].messages}
    assert {uid for uid, flags in left.items() if not flags} == {1, 3, 4, 5, 6}
    assert desk.column("SELECT reason FROM quarantine ORDER BY id") == [
        "sender_not_listed",
        "the subject is another one, and none of the labels From, To, Date/Time and Body is there",
    ]
    assert reason_in_words(desk.engine, 1, "sender_not_listed") == (
        f"from {LIST}, who is not one of [agile] senders"
    )
    assert (desk.balance.stored, desk.balance.quarantined, desk.balance.ignored) == (1, 2, 3)
    assert {(one.missing, one.count) for one in look_alikes(desk.engine)} == {
        ("block", 1),
        ("subject and block", 1),
    }

    rules = replace(RULES, senders=RULES.senders | {LIST})
    verdicts = list(retry(Store(desk.engine), todays_reader(lambda _: rules), None, desk.now))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.STORED, Outcome.QUARANTINED]
    assert desk.has(1, 2)


def test_a_near_miss_over_a_real_dovecot(desk: Desk, dovecot: DovecotServer) -> None:
    """The real thing too: nothing but the SMS is removed, and no flag is set."""
    user = dovecot.account()
    dovecot.deliver(
        user, [near(1), mail(2), near(3, "smsin@agiletelecom.com, x@example.net"), REPLY, FOREIGN]
    )

    desk.thread(dovecot.imaps_port, start=False, **account(dovecot, user, after_store="delete")).run_once()

    assert desk.has(2)
    assert desk.column("SELECT reason FROM quarantine") == ["sender_not_listed"] * 2
    assert dovecot.flags(user) == [""] * 4


SPOILT = {
    "blank": mail(1).replace(b"\r\n\r\n", b"\r\n \r\n"),
    "tab": mail(2).replace(b"\r\n\r\n", b"\r\n\t\r\n"),
    "no line": mail(3).replace(b"\r\n\r\n", b"\r\n"),
    "CR CR LF": mail(4).replace(b"\r\n", b"\r\r\n"),
    "tagged": mail(5).replace(b"Agile Telecom --", b"=?utf-8?q?=5BEXTERNAL=5D?= Agile Telecom"),
    "another subject": mail(6).replace(b"Agile Telecom -- SMS received", b"SMS"),
    "quotes": mail(7).replace(
        b"smsin@agiletelecom.com", b"'smsin@agiletelecom.com' <smsin@agiletelecom.com>"
    ),
}


def test_spoilt_mails_over_a_real_dovecot(desk: Desk, dovecot: DovecotServer) -> None:
    """Whatever Dovecot makes of their headers, each is stored and then removed, and nothing else is."""
    user = dovecot.account()
    dovecot.deliver(user, [*SPOILT.values(), near(8)])

    desk.thread(dovecot.imaps_port, start=False, **account(dovecot, user, after_store="delete")).run_once()

    assert desk.has(*range(1, 8))
    assert desk.column("SELECT reason FROM quarantine") == ["sender_not_listed"]
    assert dovecot.flags(user) == [""]


def test_of_a_long_reply_only_the_beginning_is_fetched(
    desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply with a large attachment is no SMS: its first MiB says so."""
    server.deliver(REPLY + b"x" * 5_000_000)
    offsets: list[int] = []
    piece = Session.piece

    def noted(self: Session, uid: int, offset: int) -> bytes | None:
        offsets.append(offset)
        return piece(self, uid, offset)

    monkeypatch.setattr(Session, "piece", noted)
    desk.thread(server.port, start=False).run_once()

    assert offsets == [0]
    assert desk.balance.ignored == 1
    assert [one.missing for one in look_alikes(desk.engine)] == ["block"]


def test_only_what_may_be_ours_is_fetched(
    desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From and Subject decide: whole mails come where the subject holds ours or From names our sender."""
    whole: list[bytes] = []
    for raw in (FOREIGN, near(1), REPLY, NAMED, mail(2), FOREIGN.replace(b"hello", b"Agile SMS")):
        server.deliver(raw)
    bodies = Session.bodies

    def noted(self: Session, uids: list[int]) -> dict[int, bytes]:
        found = bodies(self, uids)
        whole.extend(found.values())
        return found

    monkeypatch.setattr(Session, "bodies", noted)
    desk.thread(server.port, start=False).run_once()

    assert whole == [near(1), REPLY, NAMED, mail(2)]


def test_no_more_than_so_many_a_day(
    desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch, logged: list[dict[str, object]]
) -> None:
    """Beyond the bound near misses are counted, with one warning; what was kept counts once; a day later
    there is room again, and what was passed over is read by a rescan."""
    monkeypatch.setattr(reading, "MOST_NEAR_MISSES", 3)
    monkeypatch.setattr(desk.writer, "_clock", lambda: desk.now)
    thread = desk.thread(server.port, start=False)
    for number in range(2):
        server.deliver(near(number))
    thread.run_once()
    server.deliver(near(0))  # the same once more takes no room in the archive
    thread.run_once()
    assert desk.count("quarantine") == 2
    for number in range(5, 9):
        server.deliver(near(number))
    server.deliver(mail(100))
    thread.run_once()
    assert desk.count("quarantine") == 3
    assert desk.has(100)
    assert {(one.missing, one.count) for one in look_alikes(desk.engine)} == {("sender", 3)}
    assert desk.balance.adds_up
    said = [line for line in logged if str(line["event"]).startswith("more mails of strangers look like")]
    assert len(said) == 1

    desk.pass_time(days=1)
    server.deliver(near(20))
    thread.run_once()
    assert desk.count("quarantine") == 4


def test_a_uid_that_means_a_near_miss_now_is_not_deleted(desk: Desk, server: ImapServer) -> None:
    """What is pending for an SMS is not done to a mail that only looks like one, nor to Agile's invoice."""
    box = server.boxes["INBOX"]
    for raw in (near(1), INVOICE):
        server.deliver(raw)
    work = tuple(Pending("main", "INBOX", box.uidvalidity, uid, Action.DELETE) for uid in (1, 2))
    move = CursorMove("main", "INBOX", box.uidvalidity, 2)
    Store(desk.engine).write([Submission(None, cursor=move, to_do=work)], desk.now)

    desk.thread(server.port, start=False, after_store="delete").run_once()

    assert [m.uid for m in box.messages] == [1, 2]
    assert pending_work(desk.engine) == []
    assert not any(m.flags for m in box.messages)
