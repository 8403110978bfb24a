"""The writer: outcomes, evidence, book-keeping, and what one bad item may do to the others."""

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from ingestor.archive.inserts import lengths
from ingestor.archive.items import Action, CursorMove, InputProgress, Item, Pending, Position, Submission
from ingestor.archive.mailbox_state import pending_work, read_cursor
from ingestor.archive.payloads import unpack
from ingestor.archive.runs import balance, begin_input, begin_run, inputs
from ingestor.archive.store import Store
from ingestor.providers.contract import Readable
from ingestor.record import Channel
from tests.archive.reading import number_of, one, rows, shown
from tests.archive.samples import NOW, PARSER, broken, item, payload, sms


def write(engine: Engine, *items: Item, **fields: Any) -> list[str]:
    """Store `items` as one submission; return their outcomes."""
    (receipt,) = Store(engine).write([Submission(fields.pop("run_id", None), tuple(items), **fields)], NOW)
    return [str(outcome) for outcome in receipt.outcomes]


def test_a_new_item_is_stored_with_all_its_evidence(archive_engine: Engine) -> None:
    """One item leaves one row in each table, and the view shows it as it was read."""
    reading = Readable(
        sms(1, keyword="STOP", clean_text="now", segments=2, details={"charset": "utf-8"}),
        PARSER,
        "<1@x>",
        "S",
    )
    assert write(archive_engine, item(1, reading=reading, peer="192.0.2.1")) == ["stored"]
    ((row_id, channel, text, keyword, segments, arrivals),) = rows(
        archive_engine, "SELECT id, channel, text, keyword, segments, arrivals FROM inbound_sms"
    )
    assert (row_id, channel, text, keyword, segments, arrivals) == (
        1,
        "import",
        "text of 1 è €",
        "STOP",
        2,
        1,
    )
    assert one(archive_engine, "SELECT details FROM sms_content") == '{"charset":"utf-8"}'
    ((place, offset, message_id, parser, peer),) = rows(
        archive_engine, "SELECT input, byte_offset, message_id, parser, peer FROM arrivals_detail"
    )
    assert (place, offset, message_id, parser, peer) == ("/mail/old.mbox", 100, "<1@x>", PARSER, "192.0.2.1")


def test_raw_bytes_come_back_exactly(archive_engine: Engine) -> None:
    """The payload is kept as it came."""
    raw = bytes(range(256)) * 20 + b"\r\n"
    write(archive_engine, item(1, raw=raw, payload=payload(raw)))
    ((compressed, size),) = rows(archive_engine, "SELECT compressed, size FROM payloads")
    assert unpack(bytes(compressed)) == raw
    assert size == len(raw)


@pytest.mark.parametrize("number", [3, 60])
def test_every_copy_of_a_batch_has_its_outcome(archive_engine: Engine, number: int) -> None:
    """The same SMS in another mail and the same mail again are duplicates, within a batch too."""
    batch = [
        entry
        for n in range(1, number + 1)
        for entry in (item(n), item(n, copy=1), item(n), broken(n, raw=b"%d" % n))
    ]
    assert write(archive_engine, *batch) == ["stored", "duplicate", "duplicate", "quarantined"] * number
    assert number_of(archive_engine, "inbound_sms") == number
    assert number_of(archive_engine, "arrivals") == number * 3
    assert set(rows(archive_engine, "SELECT arrivals FROM inbound_sms")) == {(2,)}
    assert number_of(archive_engine, "payloads") == number * 3
    assert number_of(archive_engine, "sms_content") == number


def test_ids_follow_the_order_of_input(archive_engine: Engine) -> None:
    """Rows are numbered as their items came, whatever order the keys are locked in."""
    write(archive_engine, *[item(n) for n in range(80)])
    texts = [text for (text,) in rows(archive_engine, "SELECT text FROM inbound_sms ORDER BY id")]
    assert texts == [f"text of {n} è €" for n in range(80)]
    offsets = [offset for (offset,) in rows(archive_engine, "SELECT byte_offset FROM arrivals ORDER BY id")]
    assert offsets == [n * 100 for n in range(80)]


@pytest.mark.parametrize("number", [2, 50])
def test_the_same_batch_again_stores_nothing(archive_engine: Engine, number: int) -> None:
    """A second run over the same input adds no row to any table."""
    batch = [item(n) for n in range(number)] + [broken(n, raw=b"broken %d" % n) for n in range(number)]
    write(archive_engine, *batch)
    tables = ("sms", "sms_content", "arrivals", "payloads", "retries")
    before = [number_of(archive_engine, table) for table in tables]
    assert write(archive_engine, *batch) == ["duplicate"] * number + ["quarantined"] * number
    assert [number_of(archive_engine, table) for table in tables] == before


def test_one_sms_by_every_channel_is_one_row(archive_engine: Engine) -> None:
    """Mail, POST and import of one SMS make one row; its channel is the first arrival's."""
    mail, post = (
        item(1, channel=Channel.MAILBOX),
        item(1, channel=Channel.WEBHOOK, content_key=b"u" * 16, copy=2),
    )
    assert write(archive_engine, mail) == ["stored"]
    assert write(archive_engine, post, item(1)) == ["duplicate", "duplicate"]
    assert rows(archive_engine, "SELECT channel, arrivals FROM inbound_sms") == [("mailbox", 3)]


def test_one_text_to_two_of_our_numbers_is_two_rows(archive_engine: Engine) -> None:
    """The destination is part of what makes an SMS itself."""
    other = item(1, copy=1)._replace(reading=Readable(sms(1, destination="+393330000000"), PARSER))
    assert write(archive_engine, item(1), other) == ["stored", "stored"]


def test_a_post_sent_again_with_its_uuid_is_one_arrival(archive_engine: Engine) -> None:
    """What was committed and then replayed from the spool adds nothing."""
    post = item(1, channel=Channel.WEBHOOK, content_key=b"0123456789abcdef")
    assert write(archive_engine, post) == ["stored"]
    assert write(archive_engine, post) == ["duplicate"]
    assert number_of(archive_engine, "arrivals") == 1


def test_several_items_of_one_payload_keep_it_once(archive_engine: Engine) -> None:
    """A POST with three results is three arrivals, and its bytes hang on the first."""
    post = item(1, channel=Channel.WEBHOOK, content_key=b"0123456789abcdef")
    others = [
        item(n, channel=Channel.WEBHOOK)._replace(content_key=post.content_key, number=n, payload=None)
        for n in (1, 2)
    ]
    assert write(archive_engine, post, *others) == ["stored", "duplicate", "stored"]
    assert number_of(archive_engine, "arrivals") == 3
    assert number_of(archive_engine, "payloads") == 1


@pytest.mark.parametrize("padding", [0, 40])
def test_a_better_parser_does_not_double_what_was_read(archive_engine: Engine, padding: int) -> None:
    """A mail that was read keeps its one SMS, even when today's parser would make another of it."""
    write(archive_engine, item(1))
    better = item(1)._replace(reading=Readable(sms(1, text="read better"), "agile.mail/2"))
    same_sms_elsewhere = item(1, copy=5)._replace(reading=better.reading)
    others = [item(n) for n in range(100, 100 + padding)]
    outcomes = write(archive_engine, *others, better, same_sms_elsewhere)
    assert outcomes == ["stored"] * padding + ["duplicate", "stored"]
    texts = {text for (text,) in rows(archive_engine, "SELECT text FROM inbound_sms WHERE id > 0")}
    assert {"text of 1 è €", "read better"} <= texts
    assert number_of(archive_engine, "sms") == 2 + padding
    assert number_of(archive_engine, "arrivals") == 2 + padding
    assert (
        one(archive_engine, "SELECT count(*) FROM sms_content WHERE sms_id NOT IN (SELECT id FROM sms)") == 0
    )


@pytest.mark.parametrize(("before", "outcome"), [(False, "stored"), (True, "duplicate")])
def test_what_was_quarantined_and_is_readable_now_becomes_an_sms(
    archive_engine: Engine, before: bool, outcome: str
) -> None:
    """A rescan with a better parser takes an arrival out of the quarantine by a row in retries."""
    if before:
        write(archive_engine, item(1, copy=9))
    assert write(archive_engine, broken(1)) == ["quarantined"]
    assert number_of(archive_engine, "quarantine") == 1
    assert write(archive_engine, item(1), item(1)) == [outcome, "duplicate"]
    assert number_of(archive_engine, "quarantine") == 0
    assert rows(archive_engine, "SELECT outcome, sms_id FROM retries") == [(outcome, 1)]
    assert rows(archive_engine, "SELECT arrivals FROM inbound_sms") == [(2 if before else 1,)]
    assert write(archive_engine, item(1)) == ["duplicate"]
    assert write(archive_engine, broken(1)) == ["duplicate"]
    assert number_of(archive_engine, "retries") == 1


def test_books_move_with_the_rows(archive_engine: Engine) -> None:
    """Counters, cursor, pending work and input position are all there after one write."""
    run_id = begin_run(archive_engine, "import", {"paths": ["a"]}, NOW)
    input_id = begin_input(archive_engine, run_id, "/a", None)
    mails = [item(n, channel=Channel.MAILBOX) for n in (1, 2)] + [broken(3, channel=Channel.MAILBOX)]
    later = Pending("main", "INBOX", 7, 9, Action.FETCH)
    write(
        archive_engine, *mails, run_id=run_id, ignored=5, failed=1, cursor=CursorMove("main", "INBOX", 7, 3),
        to_do=(later,), after_store=Action.MOVE, progress=(InputProgress(input_id, 400, b"h" * 32, 1000),),
    )  # fmt: skip
    counts = balance(archive_engine, run_id)
    assert (counts.read, counts.stored, counts.ignored, counts.quarantined, counts.failed) == (9, 2, 5, 1, 1)
    assert counts.adds_up
    cursor = read_cursor(archive_engine, "main", "INBOX")
    assert cursor is not None
    assert (cursor.uidvalidity, cursor.last_uid) == (7, 3)
    moves = [Pending("main", "INBOX", 7, uid, Action.MOVE) for uid in (1, 2)]
    assert [one.work for one in pending_work(archive_engine, "main")] == [*moves, later]
    (found,) = inputs(archive_engine, run_id)
    assert (found.position, found.sha256, found.size) == (400, b"h" * 32, 1000)
    write(archive_engine, done=(later, moves[0]))
    assert [one.work for one in pending_work(archive_engine, "main", "INBOX")] == [moves[1]]


def test_a_cursor_moves_forward_only_within_its_uidvalidity(archive_engine: Engine) -> None:
    """An older position changes nothing; another UIDVALIDITY begins anew, however small its number."""

    def place(*moves: tuple[int, int]) -> tuple[int, int]:
        Store(archive_engine).write(
            [Submission(None, cursor=CursorMove("main", "INBOX", *move)) for move in moves], NOW
        )
        cursor = read_cursor(archive_engine, "main", "INBOX")
        assert cursor is not None
        return cursor.uidvalidity, cursor.last_uid

    assert place((7, 50)) == (7, 50)
    assert place((7, 49)) == (7, 50)
    assert place((7, 70), (7, 60)) == (7, 70)
    assert place((9, 2)) == (9, 2)
    assert place((9, 3), (10, 1)) == (10, 1)


def test_one_refused_item_goes_to_the_quarantine_alone(archive_engine: Engine) -> None:
    """What the database refuses is quarantined with its bytes; the rest of all submissions is stored."""
    run_id = begin_run(archive_engine, "run", {}, NOW)
    bad = item(2, reading=Readable(sms(2, segments=2**31), PARSER))
    worse = item(3, reading=Readable(sms(3, text="lone \ud800 surrogate"), PARSER))
    receipts = Store(archive_engine).write(
        [Submission(run_id, (item(1), bad, item(4))), Submission(run_id, (item(5), worse), ignored=1)], NOW
    )
    outcomes = [[str(outcome) for outcome in receipt.outcomes] for receipt in receipts]
    assert outcomes == [["stored", "quarantined", "stored"], ["stored", "quarantined"]]
    reasons = [reason for (reason,) in rows(archive_engine, "SELECT reason FROM quarantine")]
    assert all(reason.startswith("the database refused it: ") for reason in reasons)
    assert not any('surrogate"' in reason or "lone" in reason for reason in reasons)
    assert number_of(archive_engine, "payloads") == 5
    counts = balance(archive_engine, run_id)
    assert (counts.read, counts.stored, counts.quarantined, counts.ignored) == (6, 3, 2, 1)
    again = Store(archive_engine).write([Submission(run_id, (item(1), bad, item(4), item(5), worse))], NOW)
    assert [str(o) for o in again[0].outcomes] == [
        "duplicate",
        "quarantined",
        "duplicate",
        "duplicate",
        "quarantined",
    ]


def test_a_nul_that_postgresql_refuses_is_the_same_on_both(archive_engine: Engine) -> None:
    """A NUL in a text ends in the quarantine, whatever the database, and never stops the batch."""
    bad = item(2, reading=Readable(sms(2, text="a\0b"), PARSER))
    assert write(archive_engine, item(1), bad, item(3)) == ["stored", "quarantined", "stored"]


def test_a_refused_item_in_a_large_batch_stops_nothing(archive_engine: Engine) -> None:
    """The bulk lane finds the offender too."""
    items = [item(n) for n in range(100)]
    items[50] = item(50, reading=Readable(sms(50, segments=2**70), PARSER))
    outcomes = write(archive_engine, *items)
    assert outcomes.count("stored") == 99
    assert outcomes[50] == "quarantined"


def test_an_item_with_an_unwritable_place_fails_alone(archive_engine: Engine) -> None:
    """A submission that no form of can be written raises, and leaves nothing behind."""
    hopeless = item(1, source=None)
    with pytest.raises(Exception, match=r"(?i)null"):
        write(archive_engine, item(2), hopeless)
    assert number_of(archive_engine, "arrivals") == 0


def test_no_error_shows_content(archive_engine: Engine) -> None:
    """What a refusal says names the kind of fault, never a value."""
    bad = item(2, reading=Readable(sms(2, text="SECRET\0CODE", originator="+39999SECRET"), PARSER))
    hopeless = item(1, source=None, reading=Readable(sms(1, text="SECRET"), PARSER))
    write(archive_engine, bad)
    assert "SECRET" not in str(rows(archive_engine, "SELECT reason FROM arrivals"))
    with pytest.raises(Exception, match=r"(?i)null") as caught:
        write(archive_engine, hopeless)
    assert "[SQL parameters hidden" in str(caught.value) or "SECRET" not in str(caught.value)


def test_times_are_iso_text_on_sqlite_and_instants_on_postgresql(archive_engine: Engine) -> None:
    """The contract of the views: ISO 8601 in UTC with Z, or timestamptz."""
    write(archive_engine, item(1))
    ((received, ingested),) = rows(archive_engine, "SELECT received_at, ingested_at FROM inbound_sms")
    if archive_engine.dialect.name == "sqlite":
        assert (received, ingested) == ("2026-03-01T12:00:01Z", "2026-03-01T12:00:00.250000Z")
    else:
        assert (received, ingested) == (NOW.replace(microsecond=0) + timedelta(seconds=1), NOW)
        assert received.utcoffset() == timedelta(0)


def test_an_empty_text_stays_an_empty_text(archive_engine: Engine) -> None:
    """An empty SMS has '' and not NULL."""
    write(archive_engine, item(1, reading=Readable(sms(1, text=""), PARSER)))
    assert one(archive_engine, "SELECT text FROM inbound_sms") == ""


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**9))
def test_any_order_and_splitting_ends_in_the_same_archive(archive_engine: Engine, seed: int) -> None:
    """However the same items are permuted, split and repeated, the view and the balance come out alike."""
    with archive_engine.connect() as connection:
        first = connection.exec_driver_sql("SELECT coalesce(max(uid), 0) FROM arrivals").scalar() or 0
    order = random.Random(seed)
    numbers = range(first + 1, first + 13)
    channels = (Channel.MAILBOX, Channel.IMPORT)
    items = [
        item(n, copy=copy, channel=channel)._replace(position=Position(uid=first + 12))
        for n in numbers for copy in range(2) for channel in channels
    ] + [broken(n, raw=b"broken %d" % n) for n in numbers]  # fmt: skip
    items += order.sample(items, 10)
    order.shuffle(items)
    run_id = begin_run(archive_engine, "import", {}, NOW)
    store = Store(archive_engine)
    while items:
        cut = order.randint(1, len(items))
        parts, items = items[:cut], items[cut:]
        inner = order.randint(1, len(parts))
        store.write([Submission(run_id, tuple(parts[:inner])), Submission(run_id, tuple(parts[inner:]))], NOW)
    counts = balance(archive_engine, run_id)
    assert (counts.stored, counts.quarantined >= 12, counts.adds_up) == (12, True, True)
    added = [
        row
        for row in shown(archive_engine)
        if row[7].startswith("text of") and int(row[7].split()[2]) in numbers
    ]
    assert len(added) == 12
    new = "SELECT DISTINCT arrivals FROM inbound_sms WHERE id > (SELECT max(id) - 12 FROM sms)"
    assert rows(archive_engine, new) == [(4,)]


def test_odd_texts_of_one_batch_come_back_exactly(archive_engine: Engine) -> None:
    """What quotes, parts or ends a value in a database's language is a text like others."""
    texts = [
        "",
        "NULL",
        "null",
        '"',
        "\\",
        '\\"',
        "{a,b}",
        "'; --",
        "\\x00",
        "è €\n\t🙂",
        "\N{NO-BREAK SPACE}",
    ]
    items = [
        item(
            n, reading=Readable(sms(n, text=words, keyword=None if n % 2 else words), PARSER), raw=b"%d\\" % n
        )
        for n, words in enumerate(texts)
    ]

    assert write(archive_engine, *items) == ["stored"] * len(texts)
    found = rows(archive_engine, "SELECT text, keyword FROM inbound_sms ORDER BY id")
    assert found == [(words, None if n % 2 else words) for n, words in enumerate(texts)]
    kept = rows(archive_engine, "SELECT compressed FROM payloads ORDER BY arrival_id")
    assert [unpack(bytes(packed)) for (packed,) in kept] == [b"%d\\" % n for n in range(len(texts))]


def test_few_lengths_of_a_statement_are_prepared() -> None:
    """Whatever comes at a time is inserted by few statements, and all sizes together need few of them."""
    for number in range(200):
        assert sum(lengths(number)) == number
        assert len(list(lengths(number))) <= number // 64 + 2
    assert len({one for number in range(200) for one in lengths(number)}) <= 16
