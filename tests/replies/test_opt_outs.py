"""Opt-outs in the archive: who is out follows from the events alone, whatever order they came in."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from ingestor.archive.engine import reading, writing
from ingestor.replies.opt_outs import (
    EVERY,
    Event,
    Said,
    events_of,
    is_out,
    number_hmac,
    read_secret,
    write_events,
)
from ingestor.replies.words import Words
from tests.replies.given import OTHER, OURS, SHE, TEN, store, view

WORDS = Words()


def hear(engine: Engine, *said: tuple[str, int] | tuple[str, int, str]) -> None:
    """Store SMS of hers, each (text, minutes after ten, to whom), and write their events down."""
    with writing(engine) as connection:
        first = int(connection.execute(text("SELECT coalesce(max(id), 0) FROM sms")).scalar_one()) + 1
        for number, (words, minutes, *to) in enumerate(said, first):
            say(connection, number, words, TEN + timedelta(minutes=minutes), to[0] if to else OURS)


def say(connection: Connection, number: int, words: str, at: datetime, ours: str) -> None:
    """Store one SMS of hers with its event."""
    store(connection, number, words, at, ours)
    said = Said(number, SHE, "msisdn", ours, at, words)
    write_events(connection, read_secret(connection), events_of(WORDS, [said]), TEN)


def out_of(engine: Engine, our_number: str | None = OURS) -> bool:
    """Say whether she may not be written to."""
    with reading(engine) as connection:
        return is_out(connection, read_secret(connection), SHE, our_number) is not None


def test_a_stop_closes_the_number_written_to_and_a_stop_all_every_one(archive_engine: Engine) -> None:
    """Both stand in the view with their scope and the SMS that proves them (row 3)."""
    hear(archive_engine, ("STOP", 0))

    assert (out_of(archive_engine), out_of(archive_engine, OTHER)) == (True, False)
    assert view(archive_engine, "opt_outs", "number, scope, kind, sms_id, reason") == [
        (SHE, OURS, "stop", 1, "the word STOP")
    ]

    hear(archive_engine, ("STOP ALL", 1))

    assert (out_of(archive_engine), out_of(archive_engine, OTHER)) == (True, True)
    assert view(archive_engine, "opt_outs", "scope, sms_id") == [(OURS, 1), (EVERY, 2)]


def test_a_name_as_sender_tells_no_number_of_ours(archive_engine: Engine) -> None:
    """Who may be written to under a name, or by nobody in particular, is out of no number at all."""
    hear(archive_engine, ("STOP", 0, OTHER))

    assert out_of(archive_engine, None)
    assert out_of(archive_engine, "Acme")
    assert not out_of(archive_engine, OURS)


def test_a_start_reopens_the_number_written_to_and_no_other(archive_engine: Engine) -> None:
    """START after STOP reopens; after STOP ALL only the number written to, which the view tells (row 2)."""
    hear(archive_engine, ("STOP", 0), ("START", 1))

    assert not out_of(archive_engine)
    assert view(archive_engine, "opt_outs", "scope") == []

    hear(archive_engine, ("STOP ALL", 2), ("START", 3))

    assert (out_of(archive_engine), out_of(archive_engine, OTHER)) == (False, True)
    assert view(archive_engine, "opt_outs", "scope, reopened") == [(EVERY, f" {OURS} ")]

    hear(archive_engine, ("STOP ALL", 4))

    assert out_of(archive_engine)
    assert view(archive_engine, "opt_outs", "scope, reopened, sms_id") == [(EVERY, "", 3)]


def test_a_late_stop_that_was_sent_before_the_start_closes_nothing(archive_engine: Engine) -> None:
    """The SMS's own time counts, not that of its arrival (row 2)."""
    hear(archive_engine, ("START", 5), ("STOP", 0))

    assert not out_of(archive_engine)
    assert view(archive_engine, "opt_out_events", "kind, sms_id") == [("stop", 2), ("start", 1)]


def test_a_start_without_a_stop_is_no_event(archive_engine: Engine) -> None:
    """Nor is a second one, nor what is nearly START from somebody who is not out."""
    hear(archive_engine, ("START", 0), ("SUBSCRIBE", 1))

    assert view(archive_engine, "opt_out_events", "kind") == []

    hear(archive_engine, ("STOP", 2), ("SUBSCRIBE", 3), ("START", 4), ("START", 5), ("START ads", 6))

    assert view(archive_engine, "opt_out_events", "kind, sms_id") == [
        ("stop", 3),
        ("review", 4),
        ("start", 5),
    ]


def test_what_is_not_quite_a_stop_waits_for_a_person(archive_engine: Engine) -> None:
    """ "please stop it" lands in review, and opts nobody out (row 5)."""
    hear(archive_engine, ("please stop it", 0))

    assert not out_of(archive_engine)
    assert view(archive_engine, "opt_out_events", "kind, reason") == [
        ("review", "the word STOP among others")
    ]


def test_of_one_second_the_later_sms_counts(archive_engine: Engine) -> None:
    """A tie is decided by the id of the SMS, and what a person decides in a moment comes after it."""
    hear(archive_engine, ("STOP", 0), ("START", 0))
    assert not out_of(archive_engine)

    hear(archive_engine, ("START", 1), ("STOP", 1))
    assert out_of(archive_engine)

    half_a_second = Event(SHE, EVERY, "remove", TEN + timedelta(minutes=1, milliseconds=500))
    with writing(archive_engine) as connection:
        write_events(connection, read_secret(connection), [half_a_second], TEN)
    assert not out_of(archive_engine)


def test_the_same_event_is_written_once(archive_engine: Engine) -> None:
    """By the same SMS, by the same decision, in one call or in two."""
    hear(archive_engine, ("STOP", 0))
    stop = Event(SHE, OURS, "stop", TEN, 1)
    added = Event(SHE, EVERY, "add", TEN)

    with writing(archive_engine) as connection:
        secret = read_secret(connection)
        assert write_events(connection, secret, [stop, stop, added, added], TEN) == 1
        assert write_events(connection, secret, [stop, added], TEN + timedelta(days=1)) == 0

    assert view(archive_engine, "opt_out_events", "kind") == [("stop",), ("add",)]


def test_an_erased_person_stays_out(archive_engine: Engine) -> None:
    """Without the text of the number its HMAC still blocks it (row 20)."""
    hear(archive_engine, ("STOP", 0))
    with writing(archive_engine) as connection:
        table = "consent_content"
        on = "" if archive_engine.dialect.name == "sqlite" else f" ON {table}"
        connection.execute(text(f"DROP TRIGGER {table}_no_delete{on}"))
        connection.execute(text(f"DELETE FROM {table}"))

    assert out_of(archive_engine)
    assert view(archive_engine, "opt_outs", "number, scope, sms_id") == [(None, OURS, 1)]


def test_the_event_of_a_sender_that_cannot_be_written_to() -> None:
    """A name's advertisement with STOP in it is no case for a person; a plain STOP is a STOP anywhere."""
    said = [
        Said(1, "Acme", "alpha", OURS, TEN, "Sale! Reply STOP to end"),
        Said(2, "48888", "short", OURS, TEN, "STOP"),
        Said(3, SHE, "msisdn", OURS, TEN, "HELP"),
    ]

    assert [(event.kind, event.sms_id) for event in events_of(WORDS, said)] == [("stop", 2)]


def test_a_number_is_told_by_its_hmac_alone() -> None:
    """Another archive's key makes another one of the same number."""
    assert number_hmac(b"a" * 32, SHE) != number_hmac(b"b" * 32, SHE) != number_hmac(b"b" * 32, OURS)


def model(said: list[tuple[str, int, str]], ours: str) -> bool:
    """Say whether she is out of `ours` after `said`, the plain way: one after the other, by time."""
    out = False
    for _, _, (words, _, to) in sorted(
        (minutes, i, (words, minutes, to)) for i, (words, minutes, to) in enumerate(said)
    ):
        if words == "STOP ALL" or (words == "STOP" and to == ours):
            out = True
        elif words == "START" and to == ours:
            out = False
    return out


SAID = st.lists(
    st.tuples(
        st.sampled_from(["STOP", "STOP ALL", "START", "hello"]),
        st.integers(0, 3),
        st.sampled_from([OURS, OTHER]),
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=SAID, order=st.randoms(use_true_random=False))
def test_who_is_out_does_not_depend_on_the_order_of_arrival(
    archive_engine: Engine, said: list[tuple[str, int, str]], order: Any
) -> None:
    """Whatever came when, twice or late: the answer is that of the SMS in the order of their own time."""
    given_ = list(enumerate(said, 1))
    shuffled = given_ + given_
    order.shuffle(shuffled)
    with archive_engine.connect() as plain, plain.execution_options(begin="IMMEDIATE").begin() as transaction:
        stored = set()
        for number, (words, minutes, to) in shuffled:
            at = TEN + timedelta(minutes=minutes)
            if number in stored:
                again = Said(number, SHE, "msisdn", to, at, words)
                write_events(plain, read_secret(plain), events_of(WORDS, [again]), TEN)
            else:
                say(plain, number, words, at, to)
            stored.add(number)
        secret = read_secret(plain)
        found = {ours: is_out(plain, secret, SHE, ours) is not None for ours in (OURS, OTHER)}
        either = is_out(plain, secret, SHE, None) is not None
        transaction.rollback()

    assert found == {ours: model(said, ours) for ours in (OURS, OTHER)}
    assert either >= any(found.values())


@pytest.mark.parametrize("column", ["number", "number_hmac"])
def test_one_number_is_found_by_an_index(archive_engine: Engine, column: str) -> None:
    """A look-up of one number reads that number's events, and never the whole table."""
    with reading(archive_engine) as connection:
        if archive_engine.dialect.name == "sqlite":
            plan = connection.execute(text(f"EXPLAIN QUERY PLAN SELECT * FROM opt_outs WHERE {column} = '1'"))
            scans = [row[3] for row in plan if row[3].startswith("SCAN")]
            assert not [scan for scan in scans if "every" not in scan]
        else:
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            value = "'1'" if column == "number" else "'\\x31'"
            plan = connection.execute(text(f"EXPLAIN SELECT * FROM opt_outs WHERE {column} = {value}"))
            assert "Seq Scan" not in "\n".join(row[0] for row in plan)
