"""The quarantine at work."""

import io
import mailbox
import random
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from ingestor.archive import queries
from ingestor.archive.items import Submission
from ingestor.archive.payloads import pack
from ingestor.archive.quarantine import Kept, discard, export_mbox, standing_ids
from ingestor.archive.runs import balance, begin_run
from ingestor.archive.store import Store
from ingestor.intake.retry import retry, todays_reader
from ingestor.providers.contract import NotOurs, Readable, Reading, Rules, Unreadable
from ingestor.record import Channel, Outcome
from tests.archive.reading import number_of, rows
from tests.archive.samples import NOW, broken, item, sms

LATER = NOW + timedelta(days=1)


def reader(answer: Callable[[Kept], Reading]) -> Callable[[Kept], Sequence[Reading]]:
    """Return a reader that finds one item in each payload."""
    return lambda kept: [answer(kept)]


def test_what_is_readable_today_becomes_an_sms_with_its_old_provenance(archive_engine: Engine) -> None:
    """A better parser takes two of three out; every verdict is a row, no arrival is changed."""
    store = Store(archive_engine)
    store.write([Submission(None, (item(7), *[broken(n, raw=b"raw %d" % n) for n in (1, 2, 3)]))], NOW)
    before = rows(archive_engine, "SELECT * FROM arrivals ORDER BY id")
    seen: list[bytes | None] = []

    def better(kept: Kept) -> Reading:
        seen.append(kept.raw)
        if kept.raw == b"raw 2":
            return Unreadable("still no To", "agile.mail/2")
        return Readable(sms(1 if kept.raw == b"raw 1" else 7), "agile.mail/2")

    run_id = begin_run(archive_engine, "quarantine retry", {}, LATER)
    verdicts = list(retry(store, reader(better), run_id, LATER))
    assert seen == [b"raw 1", b"raw 2", b"raw 3"]
    assert [(v.outcome, v.reason) for v in verdicts] == [
        (Outcome.STORED, None), (Outcome.QUARANTINED, "still no To"), (Outcome.DUPLICATE, None),
    ]  # fmt: skip
    assert rows(archive_engine, "SELECT * FROM arrivals ORDER BY id") == before
    assert rows(archive_engine, "SELECT reason, retries FROM quarantine") == [("still no To", 1)]
    evidence = queries.show(archive_engine, 2)
    assert evidence is not None
    (arrival,) = evidence.arrivals
    assert (arrival["byte_offset"], arrival["read_by_retry"]) == (100, True)
    counts = balance(archive_engine, run_id)
    assert (counts.read, counts.stored, counts.duplicate, counts.quarantined) == (3, 1, 1, 1)
    assert counts.adds_up
    assert len(list(retry(store, reader(better), None, LATER))) == 1
    assert rows(archive_engine, "SELECT retries FROM quarantine") == [(2,)]


def test_retry_of_some_leaves_the_others(archive_engine: Engine) -> None:
    """Only the ids that were asked for are read again; unknown ones are passed over."""
    store = Store(archive_engine)
    store.write([Submission(None, tuple(broken(n, raw=b"raw %d" % n) for n in (1, 2)))], NOW)
    verdicts = list(retry(store, reader(lambda kept: NotOurs()), None, LATER, ids=[2, 77]))
    assert [(v.arrival_id, v.reason) for v in verdicts] == [(2, "today's parser does not take it for ours")]


def test_what_was_not_kept_whole_is_never_read_as_if_it_were(archive_engine: Engine) -> None:
    """Of a mail that was too large only the beginning is there: its text would come out cut."""
    store = Store(archive_engine)
    huge = broken(1, raw=b"beginning", payload=pack(b"beginning")._replace(size=50_000_000))
    store.write([Submission(None, (huge,))], NOW)
    (verdict,) = retry(store, reader(lambda kept: Readable(sms(1), "agile.mail/2")), None, LATER)
    assert verdict.outcome is Outcome.QUARANTINED
    assert "too large" in str(verdict.reason)
    assert rows(archive_engine, "SELECT size FROM quarantine") == [(50_000_000,)]


def test_the_second_item_of_a_post_is_read_from_the_whole_payload(archive_engine: Engine) -> None:
    """Its bytes hang on the first item; the reader gets them all and the second answer counts."""
    store = Store(archive_engine)
    first = item(1, channel=Channel.WEBHOOK, content_key=b"u" * 16, raw=b"[1, 2]")
    second = broken(2, channel=Channel.WEBHOOK)._replace(content_key=b"u" * 16, number=1, payload=None)
    store.write([Submission(None, (first, second))], NOW)
    assert rows(archive_engine, "SELECT size FROM quarantine") == [(6,)]

    def both(kept: Kept) -> Sequence[Reading]:
        assert (kept.raw, kept.number) == (b"[1, 2]", 1)
        return [Readable(sms(1), "infobip.callback/2"), Readable(sms(2), "infobip.callback/2")]

    assert [v.outcome for v in retry(store, both, None, LATER)] == [Outcome.STORED]
    assert number_of(archive_engine, "inbound_sms") == 2


def test_todays_reader_asks_the_provider_of_each_arrival(archive_engine: Engine) -> None:
    """A mail and a form post that were kept are read by the parsers of this program."""
    mail = (
        b"From: smsin@agiletelecom.com\nSubject: Agile Telecom -- SMS received\nContent-Type: text/plain\n\n"
        b"From: +393331234567\nTo: +393331234333\nDate/Time: 20260301130000\nBody: hello\n"
    )
    post = b"originator=%2B393331234567&destination=%2B393331234333&date_time=20260301130000&text=hello"
    store = Store(archive_engine)
    posted = broken(2, channel=Channel.WEBHOOK, content_key=b"u" * 16, raw=post)
    posted = posted._replace(reading=Unreadable("old parser", "agile.form/0"))
    store.write([Submission(None, (broken(1, raw=mail), posted))], NOW)
    rules = Rules(zone=ZoneInfo("Europe/Rome"))
    verdicts = list(retry(store, todays_reader(lambda provider: rules), None, LATER))
    assert [v.outcome for v in verdicts] == [Outcome.STORED, Outcome.DUPLICATE]
    assert rows(archive_engine, "SELECT text, arrivals FROM inbound_sms") == [("hello", 2)]


def test_discard_needs_a_reason_and_keeps_everything(archive_engine: Engine) -> None:
    """What is discarded leaves the view, not the archive; a rescan can still read it one day."""
    store = Store(archive_engine)
    store.write([Submission(None, (broken(1), broken(2, raw=b"x")))], NOW)
    with pytest.raises(ValueError, match="reason"):
        discard(archive_engine, [1], "  ", LATER)
    assert discard(archive_engine, [1, 99], "advertising", LATER) == [1]
    assert discard(archive_engine, [1], "again", LATER) == []
    assert standing_ids(archive_engine) == [2]
    shown = queries.quarantine_show(archive_engine, 1)
    assert shown is not None
    assert not shown.stands
    assert [verdict["reason"] for verdict in shown.verdicts] == ["advertising"]
    assert number_of(archive_engine, "payloads") == 2
    store.write([Submission(None, (item(1),))], LATER)
    assert number_of(archive_engine, "inbound_sms") == 1
    assert [row["id"] for row in queries.quarantine_list(archive_engine)] == [2]


def test_the_quarantine_opens_in_a_mail_client(archive_engine: Engine, tmp_path: Path) -> None:
    """The mbox holds each mail exactly, `From ` lines quoted, and each POST as a mail with its body."""
    raws = [b"Subject: one\r\n\r\nFrom here\r\n>From there\r\n", b"Subject: two\n\nno end", b'{"a": 1}\xff']
    mails = [broken(n, raw=raw) for n, raw in enumerate(raws[:2])]
    post = broken(9, channel=Channel.WEBHOOK, content_key=b"u" * 16, raw=raws[2])
    Store(archive_engine).write([Submission(None, (*mails, post))], NOW)
    out = io.BytesIO()
    assert export_mbox(archive_engine, out) == (3, [])
    path = tmp_path / "quarantine.mbox"
    path.write_bytes(out.getvalue())
    box = mailbox.mbox(path)
    one, two, three = (box.get_bytes(key) for key in box.iterkeys())
    box.close()
    assert one == b"Subject: one\n\n>From here\n>>From there\n"
    assert two.rstrip(b"\n") == raws[1]
    assert b"X-Ingestor-Reason: the label To is missing" in three


def test_a_retry_holds_few_mails_at_a_time(archive_engine: Engine) -> None:
    """A quarantine full of mails of megabytes is read again in the memory of a few of them."""
    size, number = 1_000_000, 20
    for n in range(number):
        Store(archive_engine).write(
            [Submission(None, (broken(n, raw=random.Random(n).randbytes(size)),))], NOW
        )
    tracemalloc.start()
    try:
        verdicts = list(
            retry(Store(archive_engine), reader(lambda _: Unreadable("large", "agile.mail/2")), None, LATER)
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(verdicts) == number
    assert peak < 8 * size
