"""A real Dovecot over TLS: what the small server proves by script, proved against the real thing."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ingestor.archive.items import Action, Pending, Submission
from ingestor.archive.mailbox_state import pending_work, read_cursor
from ingestor.errors import CredentialsRefused, MailboxUnavailable
from ingestor.intake.mailbox.context import Bell
from ingestor.intake.mailbox.session import connect
from ingestor.intake.mailbox.thread import MailboxThread
from tests.archive.erasing import content, erased
from tests.conftest import missing
from tests.intake.mailbox.desk import BROKEN, FOREIGN, QUICK, RULES, Desk, mail
from tests.sample_mails import NUMBERS, generate
from tests.servers.dovecot import PASSWORD, DovecotServer, unavailable
from tests.servers.fault_proxy import FaultProxy
from tests.waiting import until

pytestmark = pytest.mark.dovecot

RESTLESS = replace(QUICK, silence=0.5, idle=0.3)


@pytest.fixture
def own_dovecot() -> Iterator[DovecotServer]:
    """A Dovecot that a test may stop; its folders lie below `INBOX.`."""
    if reason := unavailable():
        missing(reason)
        return
    server = DovecotServer(prefix="INBOX.")
    yield server
    server.close()


def account(server: DovecotServer, user: str, **changed: object) -> dict[str, object]:
    """Return the settings of an account on `server`."""
    return {
        "host": "localhost", "security": "tls", "ca_file": str(server.ca_file),
        "username": user, "password": PASSWORD,
    } | changed  # fmt: skip


def reading(desk: Desk, server: DovecotServer, user: str, **changed: object) -> MailboxThread:
    """Return a started thread on `user`'s mailbox that has reached IDLE."""
    port = changed.pop("port", server.imaps_port)
    assert isinstance(port, int)
    thread = desk.thread(port, **account(server, user, **changed))
    until(lambda: thread.state == "watching")
    return thread


def test_idle_and_poll_over_tls(desk: Desk, dovecot: DovecotServer) -> None:
    """Mixed mails, old and new: every SMS once, the right outcome for each, and no flag changed."""
    user = dovecot.account()
    samples = list(generate(150, 7))
    expected = Counter(one.expected["text"] for one in samples if one.expected is not None)
    distinct = {tuple(one.expected.items()) for one in samples if one.expected is not None}
    dovecot.deliver(user, [one.raw for one in samples[:120]])
    desk_rules = replace(RULES, numbers=frozenset(NUMBERS))
    thread = MailboxThread(
        desk.mailbox(dovecot.imaps_port, **account(dovecot, user)), desk_rules, desk.writer, desk.engine,
        desk.run_id, timing=QUICK,
    )  # fmt: skip
    desk.threads.append(thread)
    thread.start()
    until(lambda: thread.state == "watching")

    for one in samples[120:]:
        dovecot.deliver(user, [one.raw])
    until(lambda: desk.balance.read == len(samples))

    assert set(desk.texts()) == set(expected)
    assert desk.count("inbound_sms") == len(distinct)
    assert desk.balance.quarantined == sum(one.kind == "broken" for one in samples)
    assert desk.balance.ignored == sum(one.kind == "unrelated" for one in samples)
    assert desk.balance.adds_up
    assert set(dovecot.flags(user)) == {""}


def test_cut_by_the_server(desk: Desk, dovecot: DovecotServer) -> None:
    """Dovecot drops our connection in IDLE: we come back and lose nothing."""
    user = dovecot.account()
    reading(desk, dovecot, user)

    dovecot.kick(user)
    dovecot.deliver(user, [mail(1)])

    until(lambda: desk.has(1))


@pytest.mark.parametrize("after", [1_500, 4_000, 9_000, 20_000, 60_000])
@pytest.mark.parametrize("reset", [False, True])
def test_cut_in_the_middle(
    desk: Desk, dovecot: DovecotServer, proxy: FaultProxy, after: int, reset: bool
) -> None:
    """The line is cut a few times at some byte of the handshake, the headers or the bodies."""
    user = dovecot.account()
    dovecot.deliver(user, [mail(n) if n % 3 else FOREIGN for n in range(120)])
    proxy.plan.cut_after, proxy.plan.reset, proxy.plan.cuts_left = after, reset, 3

    desk.thread(proxy.port, **account(dovecot, user))

    until(lambda: desk.has(*(n for n in range(120) if n % 3)))
    assert desk.count("arrivals") == 80
    assert set(dovecot.flags(user)) == {""}


def test_a_line_that_goes_dead_in_idle(desk: Desk, dovecot: DovecotServer, proxy: FaultProxy) -> None:
    """No FIN, no RST, no bytes: it is found out when IDLE is left, and a new connection made."""
    user = dovecot.account()
    thread = reading(desk, dovecot, user, port=proxy.port, timing=RESTLESS)
    proxy.plan.blackhole = True
    dovecot.deliver(user, [mail(1)])
    until(lambda: thread.state == "unreachable")

    proxy.plan.blackhole = False

    until(lambda: desk.has(1))


def test_the_server_is_restarted(desk: Desk, own_dovecot: DovecotServer) -> None:
    """A restart of the server, mails meanwhile included, is survived without a hand."""
    user = own_dovecot.account()
    own_dovecot.deliver(user, [mail(1)])
    thread = reading(desk, own_dovecot, user)

    own_dovecot.stop()
    own_dovecot.deliver(user, [mail(2)])
    until(lambda: thread.state == "unreachable")
    own_dovecot.start()

    until(lambda: desk.has(1, 2) and thread.state == "watching")


@pytest.mark.parametrize("after_store", ["keep", "delete"])
def test_a_mailbox_restored_from_a_backup(
    desk: Desk, dovecot: DovecotServer, after_store: str, logged: list[dict[str, object]]
) -> None:
    """The UIDVALIDITY stays and lost mails' UIDs are given out again, while deletes were still to be done."""
    user = dovecot.account()
    settings = account(dovecot, user, after_store="keep")
    dovecot.deliver(user, map(mail, range(1, 7)))
    desk.thread(dovecot.imaps_port, start=False, **settings).run_once()
    backup = dovecot.back_up(user)
    dovecot.deliver(user, map(mail, range(7, 11)))
    desk.thread(dovecot.imaps_port, start=False, **settings).run_once()
    cursor = read_cursor(desk.engine, "main", "INBOX")
    assert cursor is not None
    undone = tuple(
        Pending("main", "INBOX", cursor.uidvalidity, uid, Action.DELETE, b"of some lost mail")
        for uid in range(7, 11)
    )
    desk.writer.submit(Submission(run_id=None, to_do=undone)).result(30)

    dovecot.restore(user, backup)
    dovecot.deliver(user, map(mail, range(21, 27)))
    desk.thread(dovecot.imaps_port, start=False, **settings | {"after_store": after_store}).run_once()

    assert desk.has(*range(1, 11), *range(21, 27))
    assert len(dovecot.flags(user)) == (12 if after_store == "keep" else 0)
    assert pending_work(desk.engine) == []
    assert len([entry for entry in logged if "other mails stand" in str(entry["event"])]) == 1


def test_uidvalidity_is_reset(desk: Desk, dovecot: DovecotServer, logged: list[dict[str, object]]) -> None:
    """The folder loses its numbers while we are away: read again, nothing doubled, one warning."""
    user = dovecot.account()
    dovecot.deliver(user, [mail(1), FOREIGN, mail(2)])
    thread = reading(desk, dovecot, user)
    thread.stop()
    assert thread.join(30)
    before = read_cursor(desk.engine, "main", "INBOX")

    dovecot.reset_uidvalidity(user)
    dovecot.deliver(user, [mail(3)])
    reading(desk, dovecot, user)

    until(lambda: desk.has(1, 2, 3))
    after = read_cursor(desk.engine, "main", "INBOX")
    assert before is not None
    assert after is not None
    assert before.uidvalidity != after.uidvalidity
    assert desk.count("arrivals") == 3
    assert len([entry for entry in logged if "UIDVALIDITY" in str(entry["event"])]) == 1


def test_what_was_erased_does_not_come_back_under_a_new_uidvalidity(
    desk: Desk, dovecot: DovecotServer
) -> None:
    """One SMS and one mail of the quarantine are erased while we are away, and their mails lie there still,
    the SMS's once more below the others: all are read again, none brings a word or a byte back."""
    user = dovecot.account()
    dovecot.deliver(user, [mail(1), FOREIGN, mail(2), BROKEN])
    thread = reading(desk, dovecot, user)
    until(lambda: desk.has(1, 2) and desk.count("quarantine") == 1)
    thread.stop()
    assert thread.join(30)
    erased(desk.engine, numbers=[f"+39335{1:07}"])
    [stale] = desk.column("SELECT id FROM quarantine")
    erased(desk.engine, quarantine=(stale,))
    before, arrivals = content(desk.engine), desk.count("arrivals")

    dovecot.reset_uidvalidity(user)
    again = mail(1).replace(b"Subject: ", b"X-Sent: again\r\nSubject: ")  # other bytes, the same SMS
    dovecot.deliver(user, [mail(1), again])
    thread = reading(desk, dovecot, user)
    until(lambda: desk.count("arrivals") == arrivals + 1, "an arrival of the mail with other bytes")
    until(lambda: thread.state == "watching", "the whole folder")
    desk.thread(dovecot.imaps_port, start=False, **account(dovecot, user)).rescan()

    assert content(desk.engine) == before
    assert desk.count("arrivals") == arrivals + 1
    assert desk.texts() == {"None": 1, "text 2": 1}
    assert desk.column("SELECT arrivals FROM inbound_sms WHERE erased_at IS NOT NULL") == [2]
    assert desk.count("quarantine") == 0


def test_the_folder_is_emptied(desk: Desk, dovecot: DovecotServer) -> None:
    """Somebody expunges all mail while we watch: the archive keeps its rows, new mail is read."""
    user = dovecot.account()
    dovecot.deliver(user, [mail(1), mail(2)])
    reading(desk, dovecot, user)

    dovecot.empty(user)
    dovecot.deliver(user, [mail(3)])

    until(lambda: desk.has(1, 2, 3))


@pytest.mark.parametrize(
    ("after_store", "inbox", "stored"),
    [
        ("seen", ["", "", "F", "S", "S"], []),
        ("move", ["", "", "F"], ["", ""]),
        ("delete", ["", "", "F"], []),
    ],
)
def test_what_is_done_after_storing(
    desk: Desk, dovecot: DovecotServer, after_store: str, inbox: list[str], stored: list[str]
) -> None:
    """Only the stored mails are touched, as the disk tells; others' and broken ones keep their flags."""
    user = dovecot.account()
    dovecot.deliver(user, [FOREIGN, mail(1), BROKEN, mail(2)])
    dovecot.deliver(user, [FOREIGN], flags="F")
    reading(desk, dovecot, user, after_store=after_store, move_to="Stored")

    until(lambda: desk.has(1, 2) and not pending_work(desk.engine))

    assert dovecot.flags(user) == inbox
    assert dovecot.flags(user, "Stored") == stored


def test_folders_below_a_prefix(desk: Desk, own_dovecot: DovecotServer) -> None:
    """Folders below `INBOX.`, one with umlaut and ampersand, read and moved to by their plain names."""
    user = own_dovecot.account()
    own_dovecot.deliver(user, [mail(1)])
    own_dovecot.deliver(user, [mail(2)], folder="K&APY-der &- Co")
    thread = reading(
        desk, own_dovecot, user, folders=("INBOX", "Köder & Co"), after_store="move", move_to="Stored"
    )

    until(lambda: desk.has(1, 2) and not pending_work(desk.engine))

    assert own_dovecot.flags(user, "Stored") == ["", ""]
    assert sorted(map(str, desk.column("SELECT folder FROM cursors"))) == ["INBOX", "INBOX.Köder & Co"]
    thread.stop()
    assert thread.join(30)


def test_the_ways_in(desk: Desk, own_dovecot: DovecotServer) -> None:
    """TLS, STARTTLS, a refused password in ASCII and beyond, an untrusted certificate."""
    user = own_dovecot.account()

    def attempt(port: int, password: str = PASSWORD, **changed: object) -> None:
        mailbox = desk.mailbox(port, **account(own_dovecot, user, **changed))
        connect(mailbox, password, QUICK, Bell()).close()

    attempt(own_dovecot.imap_port, security="starttls")
    attempt(own_dovecot.imaps_port)
    with pytest.raises(CredentialsRefused):
        attempt(own_dovecot.imaps_port, "wrong")
    with pytest.raises(CredentialsRefused):
        attempt(own_dovecot.imaps_port, "fälsch")
    with pytest.raises(MailboxUnavailable, match="not trusted"):
        attempt(own_dovecot.imaps_port, ca_file=None)


def test_a_nul_that_the_server_replaced_is_no_euro_sign(desk: Desk, dovecot: DovecotServer) -> None:
    """Dovecot hands a NUL out as 0x80: the character is lost, and is the same loss as by any other way."""
    user = dovecot.account()
    dovecot.deliver(user, [mail(1, "STOP\0 ora"), mail(2, "caffè\0")])

    reading(desk, dovecot, user)
    until(lambda: desk.balance.read == 2)

    assert sorted(desk.texts()) == ["STOP\ufffd ora", "caffè\ufffd"]
