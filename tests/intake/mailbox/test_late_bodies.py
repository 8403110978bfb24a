"""A mail whose header is ours and whose body is not there yet: fetched again for days, and never ignored."""

import re
from datetime import UTC, datetime

import pytest

from ingestor.archive.mailbox_state import pending_work
from ingestor.record import Outcome
from tests.intake.mailbox.desk import OFTEN, Desk, mail
from tests.servers.scripted_imap import Message, ScriptedImap
from tests.waiting import until

HEADER = mail(1).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
EXCHANGE = (
    b"From: Microsoft Exchange Server\r\n"
    b"Subject: Retrieval using the IMAP4 protocol failed for the following message: 7\r\n"
    b"Content-Type: text/plain\r\n\r\nThe server couldn't retrieve the following message:\r\n\r\n"
    b'Subject: "Agile Telecom -- SMS received"\r\nFrom: "smsin@agiletelecom.com"\r\n'
)
UNREADABLE = HEADER + b"The message could not be converted.\r\n"
NOTHING, NOTICE = "the server sends no body", "the server sends a notice of its own instead of the mail"
CUT = "the server sends a part of the mail only"


@pytest.mark.parametrize(
    ("instead", "reason"),
    [
        (b"", NOTHING), (HEADER, NOTHING), (HEADER[:-2], NOTHING), (HEADER + b" \r\n\r\n", NOTHING),
        (EXCHANGE, NOTICE), (UNREADABLE, NOTICE), (mail(1)[:-4], CUT),
    ],
)  # fmt: skip
def test_it_is_fetched_again_until_it_is_there(
    desk: Desk, scripted: ScriptedImap, instead: bytes, reason: str
) -> None:
    """The mail waits in `pending` with its reason, the ones behind it are stored, and it comes in late."""
    scripted.script.folders["INBOX"] = [Message(1, mail(1)), Message(2, mail(2))]
    scripted.script.instead = {1: [instead] * 4}
    thread = desk.thread(scripted.port, start=False)

    tally = thread.run_once()
    assert desk.has(2)
    assert (tally[Outcome.IGNORED], tally[Outcome.FAILED]) == (0, 1)
    assert [(entry.work.uid, entry.reason) for entry in pending_work(desk.engine)] == [(1, reason)]

    for _ in range(4):
        desk.pass_time(hours=2)
        thread.run_once()

    assert desk.has(1, 2)
    assert pending_work(desk.engine) == []
    assert desk.count("quarantine") == 0


@pytest.mark.parametrize(("instead", "reason"), [(b"", NOTHING), (HEADER, NOTHING), (EXCHANGE, NOTICE)])
def test_what_never_comes_ends_in_the_quarantine(
    desk: Desk, scripted: ScriptedImap, logged: list[dict[str, object]], instead: bytes, reason: str
) -> None:
    """After days, with its reason and whatever there is of it: at least its header."""
    scripted.script.folders["INBOX"] = [Message(1, mail(1)), Message(2, mail(2)), Message(3, mail(3))]
    scripted.script.instead = {1: [instead] * 1000, 2: [b""] * 1000}
    desk.now = datetime.now(UTC)  # the writer's clock, which notes when it was missing first
    thread = desk.thread(scripted.port, start=False)

    for _ in range(60):
        thread.run_once()
        assert desk.count("quarantine") in (0, 2)
        desk.pass_time(hours=2)

    assert desk.column("SELECT reason FROM quarantine ORDER BY id") == [
        f"{reason}, tried for 3 days", f"{NOTHING}, tried for 3 days",
    ]  # fmt: skip
    assert desk.has(3)
    assert pending_work(desk.engine) == []
    assert [entry["uid"] for entry in logged if "never came" in str(entry["event"])] == [1, 2]
    assert desk.balance.adds_up


def test_a_mail_over_which_the_server_hangs_up_for_days(desk: Desk, scripted: ScriptedImap) -> None:
    """Its header comes and is ours, its body ends the connection: after days the header is quarantined."""
    scripted.script.folders["INBOX"] = [Message(1, mail(1)), Message(2, mail(2))]
    scripted.script.on_command = lambda talk, command, words, _: (
        command == "UID FETCH" and re.match(rb"1[ ,].*BODY\.PEEK\[\]", words) is not None and talk.hang_up()
    )
    desk.now = datetime.now(UTC)
    thread = desk.thread(scripted.port, timing=OFTEN)
    until(lambda: desk.has(2) and thread.state == "watching")

    for _ in range(16):
        before = [entry.attempts for entry in pending_work(desk.engine)]
        desk.pass_time(hours=13)
        until(lambda: [e.attempts for e in pending_work(desk.engine)] != before)  # noqa: B023
        if not pending_work(desk.engine):
            break

    assert desk.column("SELECT reason FROM quarantine") == [
        "the connection breaks when it is fetched, tried for 3 days"
    ]
    assert desk.has(2)


def test_a_mail_that_is_empty_as_its_size_says_waits_for_nothing(desk: Desk, scripted: ScriptedImap) -> None:
    """The server has no more of it: it goes to the quarantine at once, as ever."""
    scripted.script.folders["INBOX"] = [Message(1, HEADER), Message(2, mail(2))]

    desk.thread(scripted.port, start=False).run_once()

    assert desk.column("SELECT reason FROM quarantine") == ["the mail is empty"]
    assert pending_work(desk.engine) == []


def test_an_empty_mail_of_somebody_else_waits_for_nothing(desk: Desk, scripted: ScriptedImap) -> None:
    """A reply without a word has our subject only: it is nobody's loss."""
    reply = b"From: anna@example.org\r\nSubject: Re: Agile Telecom -- SMS received\r\n\r\n"
    scripted.script.folders["INBOX"] = [Message(1, reply)]

    tally = desk.thread(scripted.port, start=False).run_once()

    assert tally[Outcome.FAILED] == 0
    assert pending_work(desk.engine) == []


def exchange(subject: bytes, sender: bytes) -> bytes:
    """Return Exchange's notice about a mail, as OfflineIMAP's users have seen it."""
    notice = EXCHANGE.replace(b"Agile Telecom -- SMS received", subject)
    return notice.replace(b'"smsin@agiletelecom.com"', b'"A name" ("%s")' % sender)


@pytest.mark.parametrize("subject", [b"Agile Telecom -- SMS received", b"something new"])
@pytest.mark.parametrize("peek", [True, False])
def test_a_notice_in_the_place_of_the_header_too(
    desk: Desk, scripted: ScriptedImap, peek: bool, subject: bytes
) -> None:
    """Exchange gives its own From and Subject already; the notice quotes whose mail it stands for, or the
    body does not come at all. Somebody else's is no concern of ours."""
    box = scripted.script.folders["INBOX"] = [Message(uid, mail(uid)) for uid in (1, 2)]
    box[0].raw = exchange(subject, b"smsin@agiletelecom.com")
    box.append(Message(3, exchange(b"Canceled: lunch", b"anna@example.org")))
    if not peek:  # BODY.PEEK[] gets an OK and no row
        scripted.script.on_command = lambda talk, command, words, tag: (
            command == "UID FETCH" and re.match(rb"1[ ,].*PEEK\[\]", words) is not None and talk.end(tag)
        )
    thread = desk.thread(scripted.port, start=False)

    thread.run_once()
    waiting = [entry.work.uid for entry in pending_work(desk.engine)]
    assert waiting == [1] if peek else 1 in waiting

    box[0].raw = mail(1)
    scripted.script.on_command = None
    desk.pass_time(hours=2)
    thread.run_once()

    assert desk.has(1, 2)
    assert pending_work(desk.engine) == []
    assert desk.count("quarantine") == 0


def test_not_one_byte_of_a_mail_that_only_may_be_ours(desk: Desk, scripted: ScriptedImap) -> None:
    """Whose it is shows the whole mail: until it is there nobody has judged it."""
    tagged = mail(1).replace(b"Subject: Agile Telecom", b"Subject: [EXTERNAL] Agile Telecom")
    scripted.script.folders["INBOX"] = [Message(1, tagged)]
    scripted.script.instead = {1: [b""]}

    desk.thread(scripted.port, start=False).run_once()

    assert desk.has(1)


def test_a_header_without_a_field_is_asked_for_again(desk: Desk, scripted: ScriptedImap) -> None:
    """The mail is announced before it is there: it is not ignored, as nobody knows whose it is."""
    scripted.script.folders["INBOX"] = [Message(1, mail(1)), Message(2, mail(2))]
    scripted.script.bare = {1: 1000}
    thread = desk.thread(scripted.port, start=False)

    tally = thread.run_once()
    assert (tally[Outcome.IGNORED], tally[Outcome.FAILED]) == (0, 1)
    assert desk.has(2)

    scripted.script.bare = {}
    desk.pass_time(hours=2)
    thread.run_once()
    assert desk.has(1, 2)
    assert pending_work(desk.engine) == []


def test_a_mail_without_a_header_is_nobodys_after_days(desk: Desk, scripted: ScriptedImap) -> None:
    """One that has other fields is ignored at once, one that has none once that is sure; neither is kept."""
    scripted.script.folders["INBOX"] = [Message(1, b"X-A: b\r\n\r\nx\r\n"), Message(2, b"\r\nx\r\n")]
    desk.now = datetime.now(UTC)
    thread = desk.thread(scripted.port, start=False)

    tally = thread.run_once()
    assert (tally[Outcome.IGNORED], tally[Outcome.FAILED]) == (1, 1)
    for _ in range(60):
        desk.pass_time(hours=2)
        thread.run_once()

    assert pending_work(desk.engine) == []
    assert desk.count("quarantine") == 0
