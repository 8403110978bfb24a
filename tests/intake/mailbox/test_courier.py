"""A real Courier-IMAP: it numbers what lies in new/ at each EXAMINE anew, and writes nothing down."""

import random
from collections.abc import Iterator

import pytest

from ingestor.intake.mailbox import visit
from tests.conftest import missing
from tests.intake.mailbox.desk import FOREIGN, Desk, mail
from tests.servers.courier import CourierServer, next_second, unavailable


@pytest.fixture
def courier() -> Iterator[CourierServer]:
    """One Courier with an empty Maildir that no mail program ever opened."""
    if reason := unavailable():
        missing(reason)
        return
    with CourierServer().running() as server:
        yield server


def deliver(courier: CourierServer, numbers: range, chance: random.Random) -> None:
    """Deliver mails under names that sort anywhere among the others', and one of somebody else."""
    for number in numbers:
        courier.deliver(mail(number), f"{chance.randrange(10**9)}.M{number}.test")
    courier.deliver(FOREIGN, f"{chance.randrange(10**9)}.F{numbers[0]}.test")


def numbers_of(courier: CourierServer, desk: Desk, rounds: int, **changed: object) -> list[int]:
    """Deliver three mails a round, and read the mailbox once after each."""
    chance = random.Random(5)
    for number in range(rounds):
        deliver(courier, range(3 * number + 1, 3 * number + 4), chance)
        desk.thread(courier.port, start=False, **changed).run_once()
    return list(range(1, 3 * rounds + 1))


@pytest.mark.parametrize("after_store", ["keep", "delete"])
def test_every_mail_is_read_once(
    desk: Desk, courier: CourierServer, after_store: str, logged: list[dict[str, object]]
) -> None:
    """SELECT makes it write its numbers down: no mail is missed, none is read twice, nobody's gets a flag."""
    expected = numbers_of(courier, desk, 4, after_store=after_store)

    assert desk.has(*expected)
    assert desk.balance.read == 4 * 4
    assert not [e for e in logged if e["log_level"] == "warning"]
    left = {"keep": [""] * 16, "delete": [""] * 4}
    assert courier.flags() == left[after_store]


def test_a_mailbox_that_no_mail_program_opened_is_not_read_again_and_again(
    desk: Desk, courier: CourierServer, logged: list[dict[str, object]]
) -> None:
    """At each EXAMINE it has a new UIDVALIDITY, which is the time of day."""
    courier.deliver(mail(1), "1.M1.test")
    for _ in range(3):
        desk.thread(courier.port, start=False).run_once()
        next_second()

    assert desk.balance.read == 1
    assert not [e for e in logged if e["log_level"] == "warning"]


def test_even_numbers_that_are_never_kept_lose_no_mail(
    desk: Desk, courier: CourierServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a folder can only be examined the marks of the mails tell."""
    courier.deliver(mail(1000), "1.M1.test")
    desk.thread(courier.port, start=False).run_once()  # the UIDVALIDITY is written down
    monkeypatch.setattr(visit, "_forgets", lambda *_: False)

    expected = numbers_of(courier, desk, 4)

    assert desk.has(1000, *expected)
    assert not [command for command in courier.commands[20:] if command.startswith("SELECT")]
