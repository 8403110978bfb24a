"""What is said of the bytes that an SMS was made of."""

import hashlib
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from ingestor.archive.engine import writing
from ingestor.archive.integrity import Doubt, doubts
from ingestor.archive.items import Item, Position, Submission
from ingestor.archive.quarantine import Kept
from ingestor.archive.queries import show
from ingestor.archive.rows import mail_content_key
from ingestor.archive.store import Store
from ingestor.intake.listener.posts import ReceivedPost, new_identity, submission_of
from ingestor.intake.retry import todays_reader
from ingestor.providers.agile import mail as agile
from ingestor.providers.contract import NotOurs, Readable, Reading, Rules, Unreadable
from ingestor.record import Channel
from tests.archive.reading import rows
from tests.archive.samples import NOW, PARSER, item, payload, sms
from tests.providers.conformance.samples import every_sample

ROME = Rules(ZoneInfo("Europe/Rome"), frozenset({"+393331234333"}))
CASES = sorted((Path(__file__).parents[1] / "cases").glob("*.eml"))


def _said(engine: Engine, sms_id: int, *answers: Reading) -> list[Doubt | None]:
    """Return what is said of each arrival of an SMS where today's reader gives `answers`."""
    evidence = show(engine, sms_id)
    assert evidence is not None
    found = doubts(engine, evidence, lambda _: answers)
    return [found.get(arrival["id"]) for arrival in evidence.arrivals]


def test_mails_of_every_kind_read_as_they_were(archive_engine: Engine) -> None:
    """Nothing is said of what today's reader stored itself, however odd the mail."""
    for number, path in enumerate(CASES):
        raw = path.read_bytes()
        reading = agile.read_mail(raw, ROME)
        if isinstance(reading, Readable):
            one = Item(
                reading=reading, channel=Channel.MAILBOX, source="main", content_key=mail_content_key(raw),
                arrived_at=NOW, payload=payload(raw), position=Position("INBOX", 7, number),
            )  # fmt: skip
            Store(archive_engine).write([Submission(None, (one,))], NOW)
    stored = [number for (number,) in rows(archive_engine, "SELECT id FROM sms")]
    assert len(stored) > 20

    for sms_id in stored:
        evidence = show(archive_engine, sms_id)
        assert evidence is not None
        assert doubts(archive_engine, evidence, todays_reader(lambda _: ROME)) == {}


def test_posts_of_every_provider_read_as_they_were(archive_engine: Engine) -> None:
    """Nothing is said of them either, nor of the second SMS of one POST."""
    for sample in every_sample():
        received = ReceivedPost(
            new_identity(sample.post.arrived_at), "webhook", sample.provider, "192.0.2.1", sample.post
        )
        submission = submission_of(received, {sample.provider: sample.rules})
        first = rows(archive_engine, "SELECT coalesce(max(id), 0) FROM sms")[0][0]
        if submission is None:
            continue
        Store(archive_engine).write([submission], NOW)
        for (sms_id,) in rows(archive_engine, f"SELECT id FROM sms WHERE id > {first}"):
            evidence = show(archive_engine, sms_id)
            assert evidence is not None
            found = doubts(archive_engine, evidence, todays_reader(lambda _: sample.rules))  # noqa: B023
            assert found == {}, sample.name
    assert rows(archive_engine, "SELECT count(*) > 10 FROM sms")[0][0]


@pytest.mark.parametrize(
    ("today", "said"),
    [
        (Readable(sms(1), PARSER), None),
        (Readable(sms(1, text="another one"), PARSER), "text"),
        (Readable(sms(1, destination_raw="333", details={"part": 1}), PARSER), "destination_raw, details"),
        (Unreadable("the label To is missing", PARSER), "as no SMS: the label To is missing"),
        (NotOurs(), "as no SMS: today's parser does not take it for ours"),
    ],
)
def test_what_today_reads_otherwise_is_named_by_its_columns(
    archive_engine: Engine, today: Reading, said: str | None
) -> None:
    """Of the arrival that made the SMS, and of no duplicate; the archive's record stays what it is."""
    Store(archive_engine).write([Submission(None, (item(1), item(1, copy=1)))], NOW)
    before = rows(archive_engine, "SELECT * FROM inbound_sms")

    expected = None if said is None else Doubt(read_otherwise=said)
    assert _said(archive_engine, 1, today) == [expected, None]
    assert rows(archive_engine, "SELECT * FROM inbound_sms") == before


def test_no_memory_for_the_look_is_said(archive_engine: Engine) -> None:
    """It is no fault of the bytes, and ends nothing."""
    Store(archive_engine).write([Submission(None, (item(1),))], NOW)
    evidence = show(archive_engine, 1)
    assert evidence is not None

    def scarce(_: Kept) -> list[Reading]:
        raise MemoryError

    assert doubts(archive_engine, evidence, scarce) == {
        1: Doubt(read_otherwise="as no SMS: there is not enough memory to read it")
    }


@pytest.mark.parametrize("deed", ["sha256", "bytes"])
def test_damaged_bytes_are_said_apart_from_that(archive_engine: Engine, deed: str) -> None:
    """Whoever may drop a guard may change the bytes: each arrival is compared with its own SHA-256."""
    Store(archive_engine).write([Submission(None, (item(1), item(1, copy=1)))], NOW)
    with writing(archive_engine) as connection:
        if archive_engine.dialect.name == "postgresql":
            connection.exec_driver_sql("ALTER TABLE payloads DISABLE TRIGGER USER")
            literal = "'\\x{}'::bytea"
        else:
            connection.exec_driver_sql("DROP TRIGGER payloads_no_update")
            literal = "x'{}'"
        new = hashlib.sha256(b"other").hexdigest() if deed == "sha256" else "00"
        column = "sha256" if deed == "sha256" else "compressed"
        connection.exec_driver_sql(
            f"UPDATE payloads SET {column} = {literal.format(new)} WHERE arrival_id = 2"
        )

    first, second = _said(archive_engine, 1, Readable(sms(1), PARSER))

    assert first is None
    assert second is not None
    assert second.damaged in {
        "the stored payload is damaged", "the stored payload is not what arrived: its SHA-256 differs",
    }  # fmt: skip
    assert second.read_otherwise is None
