"""What was read once keeps its SMS: a better reader makes no second one of the same bytes."""

import marshal
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine

from ingestor.archive.items import Item, Row, Submission
from ingestor.archive.quarantine import Kept
from ingestor.archive.rows import mail_content_key, row_of
from ingestor.archive.store import Store
from ingestor.intake.files.sinks import DrySink
from ingestor.intake.retry import retry
from ingestor.providers.contract import Readable, Unreadable
from ingestor.record import Channel, Outcome
from tests.archive.reading import number_of, rows
from tests.archive.samples import NOW, PARSER, broken, item, sms

STORED, DUPLICATE, QUARANTINED = Outcome.STORED, Outcome.DUPLICATE, Outcome.QUARANTINED

Reading = Readable | Unreadable
Lane = Callable[[Engine, Sequence[tuple[int, Reading]]], list[Outcome]]


def raw(number: int) -> bytes:
    """Return mail `number`, whatever anybody reads in it."""
    return f"Subject: mail {number}\n\ntext of {number}\n".encode()


def read(number: int, text: str = "as it was read first") -> Readable:
    """Return a reading of mail `number`; another text is another SMS."""
    return Readable(sms(number, text=text), PARSER)


def unread(number: int) -> Unreadable:
    """Return what a reader says that cannot make anything of mail `number`."""
    return Unreadable(f"mail {number} cannot be read", PARSER)


def mail(number: int, reading: Reading, channel: Channel = Channel.IMPORT) -> Item:
    """Return mail `number` as it came by `channel`."""
    made = raw(number)
    return item(number, raw=made, content_key=mail_content_key(made), reading=reading, channel=channel)


def by_the_writer(engine: Engine, mails: Sequence[tuple[int, Reading]]) -> list[Outcome]:
    """Import mails as the writer does."""
    submission = Submission(None, tuple(mail(number, reading) for number, reading in mails))
    return list(Store(engine).write([submission], NOW)[0].outcomes)


def by_an_import(engine: Engine, mails: Sequence[tuple[int, Reading]]) -> list[Outcome]:
    """Import mails as an import does: their rows were made by a worker."""
    store = Store(engine)
    rows = [row_of(mail(number, reading), store.archive_key()) for number, reading in mails]
    travelled = [Row.of_plain(marshal.loads(marshal.dumps(row.plain()))) for row in rows]
    assert travelled == rows
    return list(store.write([Submission(None, travelled)], NOW)[0].outcomes)


def by_a_dry_run(engine: Engine, mails: Sequence[tuple[int, Reading]]) -> list[Outcome]:
    """Say what an import would do."""
    with DrySink(engine) as sink:
        rows = [row_of(mail(number, reading), sink.secret) for number, reading in mails]
        return list(sink.write([Submission(None, rows)])[0].outcomes)


@pytest.fixture(params=[by_the_writer, by_an_import], ids=["writer", "import"])
def lane(request: pytest.FixtureRequest) -> Lane:
    """Both ways of an import into the archive."""
    chosen: Lane = request.param
    return chosen


@pytest.mark.parametrize("first", [Channel.MAILBOX, Channel.IMPORT])
def test_the_same_bytes_stay_with_their_sms_by_whatever_channel(
    archive_engine: Engine, lane: Lane, first: Channel
) -> None:
    """Read otherwise, or not at all, by the same channel or another: no SMS more, and nothing quarantined."""
    mails = tuple(mail(number, read(number), first) for number in (1, 2, 3))
    Store(archive_engine).write([Submission(None, mails)], NOW)
    later = [(0, read(0)), (1, read(1, "better")), (2, unread(2)), (3, read(3)), (4, read(4)), (5, unread(5))]
    expected = [STORED, DUPLICATE, DUPLICATE, DUPLICATE, STORED, QUARANTINED]
    assert by_a_dry_run(archive_engine, later) == expected
    assert lane(archive_engine, later) == expected
    texts = rows(archive_engine, "SELECT originator, text FROM inbound_sms ORDER BY originator")
    assert texts == [(f"+39333{number:07}", "as it was read first") for number in range(5)]
    came_again = 0 if first is Channel.IMPORT else 3
    assert number_of(archive_engine, "arrivals") == 6 + came_again
    counted = "SELECT originator, arrivals FROM inbound_sms WHERE arrivals > 1 ORDER BY originator"
    assert len(rows(archive_engine, counted)) == came_again
    assert number_of(archive_engine, "quarantine") == 1
    assert lane(archive_engine, later) == [DUPLICATE] * 5 + [QUARANTINED]


def test_bytes_that_became_one_sms_do_not_go_over_to_another(archive_engine: Engine, lane: Lane) -> None:
    """Even where today's reading is an SMS that the archive has: the arrival names the SMS of its bytes."""
    store = Store(archive_engine)
    store.write([Submission(None, (mail(1, read(1, "cut"), Channel.MAILBOX),))], NOW)
    store.write([Submission(None, (item(9, reading=read(1, "whole"), channel=Channel.WEBHOOK),))], NOW)
    assert lane(archive_engine, [(1, read(1, "whole"))]) == [DUPLICATE]
    query = (
        "SELECT s.text FROM arrivals AS a JOIN inbound_sms AS s ON s.id = a.sms_id WHERE a.channel = 'import'"
    )
    assert rows(archive_engine, query) == [("cut",)]


def test_a_mail_that_stood_in_the_quarantine_goes_to_the_sms_that_its_bytes_became(
    archive_engine: Engine, lane: Lane
) -> None:
    """Unread by one channel, read by another: whoever reads it again finds that SMS, a retry too."""
    store = Store(archive_engine)
    store.write([Submission(None, (mail(1, unread(1)), mail(2, unread(2))))], NOW)
    store.write([Submission(None, tuple(mail(n, read(n), Channel.MAILBOX) for n in (1, 2)))], NOW)
    assert number_of(archive_engine, "quarantine") == 2
    assert lane(archive_engine, [(1, read(1, "better"))]) == [DUPLICATE]
    assert number_of(archive_engine, "quarantine") == 1

    def reader(kept: Kept) -> list[Any]:
        return [read(2, "better")]

    verdicts = list(retry(store, reader, None, NOW))
    assert [verdict.outcome for verdict in verdicts] == [DUPLICATE]
    assert number_of(archive_engine, "inbound_sms") == 2


def test_what_was_never_read_becomes_an_sms_when_it_can_be(archive_engine: Engine, lane: Lane) -> None:
    """The quarantine is no verdict for ever: the better reader's SMS is stored, once."""
    Store(archive_engine).write([Submission(None, (mail(1, unread(1)), broken(2)))], NOW)
    assert lane(archive_engine, [(1, read(1))]) == [STORED]
    assert lane(archive_engine, [(1, read(1, "better still"))]) == [DUPLICATE]
    assert number_of(archive_engine, "inbound_sms") == number_of(archive_engine, "quarantine") == 1
