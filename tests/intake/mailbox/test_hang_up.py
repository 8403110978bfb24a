"""Mails over which the server hangs up: the others are stored meanwhile, and what was learnt is kept."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from ingestor.archive.items import Submission
from ingestor.archive.mailbox_state import pending_work
from ingestor.archive.store import Store
from ingestor.intake.mailbox.context import LONGEST_STREAK, Suspects
from ingestor.intake.mailbox.session import Session
from ingestor.providers.agile import mail as agile
from ingestor.providers.contract import Reading, Rules
from ingestor.record import Outcome
from tests.intake.mailbox.desk import FOREIGN, OFTEN, Desk, mail
from tests.servers.dovecot import PASSWORD, DovecotServer
from tests.servers.imap.server import ImapServer
from tests.servers.scripted_imap import Message, ScriptedImap
from tests.waiting import until

HANGS_UP = "the connection breaks when it is fetched"
BAD = {7, 8, 40, 120, 121, 122, 123, 180, 200, 201, 250, 299, 300}
GOOD = set(range(1, 301)) - BAD


@pytest.fixture
def hanging(scripted: ScriptedImap) -> ScriptedImap:
    """300 SMS; over 13 of them the server hangs up, whatever of them is asked for."""
    scripted.script.folders["INBOX"] = [Message(uid, mail(uid)) for uid in range(1, 301)]
    scripted.script.hang_up_over = set(BAD)
    return scripted


def uids_pending(desk: Desk) -> dict[int, str | None]:
    return {entry.work.uid: entry.reason for entry in pending_work(desk.engine)}


def test_one_pass_finishes_and_names_them(
    desk: Desk, hanging: ScriptedImap, logged: list[dict[str, object]]
) -> None:
    """A single call reads all the good ones, however often the server hangs up, and tells which are not."""
    tally = desk.thread(hanging.port, start=False).run_once()

    assert desk.has(*GOOD)
    assert (tally[Outcome.STORED], tally[Outcome.FAILED]) == (287, 13)
    assert uids_pending(desk) == dict.fromkeys(BAD, HANGS_UP)
    named = {
        uid for entry in logged if entry["log_level"] == "warning"
        for uid in entry.get("uids", ())  # type: ignore[attr-defined]
    }  # fmt: skip
    assert named == BAD
    assert desk.balance.adds_up


def test_what_was_learnt_survives_the_process(
    desk: Desk, hanging: ScriptedImap, logged: list[dict[str, object]]
) -> None:
    """The next process, and a rescan, leave them out from the start: no connection breaks again, and it
    is said once that they are missing."""
    desk.thread(hanging.port, start=False).run_once()
    hanging.commands.clear()
    logged.clear()

    second = desk.thread(hanging.port, start=False)
    second.run_once()
    second.run_once()
    tally = desk.thread(hanging.port, start=False).rescan("INBOX")

    assert hanging.commands.count("LOGIN") == 3
    assert (tally[Outcome.DUPLICATE], tally[Outcome.FAILED]) == (287, 13)
    said = [entry for entry in logged if str(entry["event"]).startswith("mails of this folder could not")]
    assert [entry["count"] for entry in said] == [13, 13]


def test_a_rescan_goes_on_where_the_connection_broke(desk: Desk, hanging: ScriptedImap) -> None:
    """It counts each mail once and ends, though nothing was known of the bad ones before."""
    tally = desk.thread(hanging.port, start=False).rescan("INBOX")

    assert desk.has(*GOOD)
    assert (tally[Outcome.STORED], tally[Outcome.DUPLICATE], tally[Outcome.FAILED]) == (287, 0, 13)
    assert desk.balance.adds_up


def test_the_daemon_reads_new_mail_and_mends_when_the_server_does(desk: Desk, hanging: ScriptedImap) -> None:
    """New SMS are read beside the bad ones, and these come in once the server gives them."""
    thread = desk.thread(hanging.port, timing=OFTEN)
    until(lambda: desk.has(*GOOD) and thread.state == "watching")
    hanging.add(mail(301))
    until(lambda: desk.has(*GOOD, 301))

    hanging.script.hang_up_over.clear()
    desk.pass_time(hours=13)
    until(lambda: desk.has(*range(1, 302)) and not pending_work(desk.engine))


def test_a_connection_that_brings_nothing_at_all_is_a_failure_like_any_other() -> None:
    """Narrowing down is progress, but not where no mail comes in between: then the pause doubles."""
    suspects = Suspects()
    for number in range(3 * LONGEST_STREAK):
        suspects.broke([("INBOX", 1, number)], HANGS_UP)
    assert suspects.narrowed == LONGEST_STREAK

    suspects.passed([("INBOX", 1, 0)])
    suspects.broke([("INBOX", 1, 0)], HANGS_UP)

    assert suspects.narrowed == LONGEST_STREAK + 1


def test_a_mail_that_memory_does_not_hold_is_its_own_fate(
    desk: Desk, server: ImapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MemoryError on one mail puts that mail off, with its reason, and not the mailbox."""
    whole = Session.bodies
    piece = Session.piece

    def scarce(self: Session, uids: list[int]) -> dict[int, bytes]:
        if 3 in uids:
            raise MemoryError
        return whole(self, uids)

    def scarce_piece(self: Session, uid: int, offset: int) -> bytes | None:
        return piece(self, uid, offset) if uid != 3 else scarce(self, [uid]) and None

    monkeypatch.setattr(Session, "bodies", scarce)
    monkeypatch.setattr(Session, "piece", scarce_piece)
    for number in range(1, 6):
        server.deliver(mail(number))

    desk.thread(server.port, start=False).run_once()

    assert desk.has(1, 2, 4, 5)
    assert uids_pending(desk) == {3: "there is not enough memory to fetch it"}


def test_a_mail_that_memory_does_not_hold_decoded_is_its_own_fate(
    desk: Desk, scripted: ScriptedImap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came whole, and to read it takes more than there is: it is put off, and after days quarantined."""
    read = agile._read

    def scarce(raw: bytes, rules: Rules, **more: Any) -> Reading:
        if b"Body: text 3" in raw:
            raise MemoryError
        return read(raw, rules, **more)

    monkeypatch.setattr(agile, "_read", scarce)
    scripted.script.folders["INBOX"] = [Message(uid, mail(uid)) for uid in range(1, 6)]
    desk.now = datetime.now(UTC)
    thread = desk.thread(scripted.port, start=False)

    thread.run_once()

    assert desk.has(1, 2, 4, 5)
    assert uids_pending(desk) == {3: "there is not enough memory to fetch it"}
    for _ in range(20):
        desk.pass_time(hours=13)
        thread.run_once()
    assert desk.column("SELECT reason FROM quarantine") == [
        "there is not enough memory to fetch it, tried for 3 days"
    ]
    assert uids_pending(desk) == {}
    assert desk.balance.adds_up


@pytest.mark.parametrize("claimed", [9999, 10])
def test_a_real_server_with_wrong_sizes(desk: Desk, dovecot: DovecotServer, claimed: int) -> None:
    """Dovecot hangs up over a mail whose file name holds a wrong size, as a migration leaves them. Where it
    gives the header nevertheless, mail of others is told apart and is no failure."""
    user = dovecot.account()
    dovecot.deliver(user, [mail(number) if number % 10 else FOREIGN for number in range(40)])
    files = sorted((dovecot.maildir(user) / "new").iterdir())
    for number in (10, 15, 33):
        files[number].rename(f"{files[number]},S={claimed}")

    tally = desk.thread(
        dovecot.imap_port, start=False, username=user, password=PASSWORD
    ).run_once()  # fmt: skip

    assert desk.has(*(n for n in range(40) if n % 10 and n not in (15, 33)))
    told_apart = claimed > 1000
    assert tally[Outcome.FAILED] == (2 if told_apart else 3)
    assert tally[Outcome.IGNORED] == (4 if told_apart else 3)


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The program cannot write the mail with UID 3, for a reason that no check foresaw."""
    write = Store.write

    def faulty(self: Store, submissions: Sequence[Submission], *rest: object, **more: object) -> object:
        if any(item.position.uid == 3 for one in submissions for item in one.items):
            raise OverflowError("a column holds no such number")
        return write(self, submissions, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "write", faulty)
    return monkeypatch


def test_a_mail_that_can_never_be_written_is_put_off_with_its_reason(
    desk: Desk, server: ImapServer, unwritable: pytest.MonkeyPatch
) -> None:
    """The mails beside it are stored, and it does not fail for ever; mended, the program takes it."""
    for number in range(1, 7):
        server.deliver(mail(number))

    thread = desk.thread(server.port, timing=OFTEN)
    until(lambda: desk.has(1, 2, 4, 5, 6) and thread.state == "watching")
    assert uids_pending(desk) == {3: "the archive cannot write it (OverflowError)"}

    unwritable.undo()
    desk.pass_time(hours=2)
    until(lambda: desk.has(*range(1, 7)))


@pytest.mark.usefixtures("unwritable")
def test_a_rescan_beside_a_mail_that_can_never_be_written(desk: Desk, server: ImapServer) -> None:
    """What was handed over with it is read again, not passed over."""
    for number in range(1, 1001):
        server.deliver(mail(number))

    desk.thread(server.port, start=False).rescan("INBOX")

    assert desk.has(1, 2, *range(4, 1001))
    assert uids_pending(desk) == {3: "the archive cannot write it (OverflowError)"}
