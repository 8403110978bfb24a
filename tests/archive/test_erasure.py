"""Erasing: what was planned goes, nothing else, for good, and nobody can do it past the plan."""

import itertools
import sqlite3
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from ingestor.archive import erasure, holds
from ingestor.archive.engine import writing
from ingestor.archive.erasure_plan import Plan, basis_code
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.items import Item
from ingestor.archive.quarantine import discard, naming
from ingestor.archive.queries import quarantine_show
from ingestor.archive.rows import number_form, number_key
from ingestor.archive.store import Store
from ingestor.errors import IngestorError
from ingestor.intake.retry import retry
from ingestor.providers.contract import Readable, Unreadable
from ingestor.record import Channel, Outcome
from ingestor.replies.opt_outs import Event, number_hmac, read_secret, write_events
from tests.archive.erasing import (
    HER,
    HIS,
    SECRET_TEXT,
    applied,
    content,
    erased,
    hers,
    mail,
    planned,
    post,
    write,
)
from tests.archive.reading import number_of, one, rows
from tests.archive.samples import NOW, PARSER, broken, item, sms
from tests.replies.rows import add_rows_of_replies


def test_one_person_goes_and_the_rows_stay(archive_engine: Engine) -> None:
    """All SMS of a number lose content, arrivals' names and raw bytes; another person's stay whole, and the
    permanent rows say what was erased, when and why."""
    write(archive_engine, mail(1), mail(2), mail(3, HIS), post(1, 5))
    done = erased(archive_engine, numbers=["0039 333 555 0001"])
    assert (done.sms, done.arrivals, done.payloads, done.batches) == (2, 3, 3, 1)
    assert content(archive_engine) == [1, 1, 1, 1]
    assert number_of(archive_engine, "sms") == 3
    assert number_of(archive_engine, "arrivals") == 4
    shown = rows(
        archive_engine, "SELECT originator, text, erasure_basis, arrivals FROM inbound_sms ORDER BY id"
    )
    assert shown == [
        (None, None, "gdpr-art17", 2), (None, None, "gdpr-art17", 1), (HIS, f"{SECRET_TEXT} 3", None, 1),
    ]  # fmt: skip
    gone = "SELECT count(*) FROM arrivals_detail WHERE erased_at IS NOT NULL AND subject IS NULL"
    assert one(archive_engine, gone) == 3
    assert rows(archive_engine, "SELECT basis, batches, sms, arrivals, payloads FROM erasures_done") == [
        ("gdpr-art17", 1, 2, 3, 3)
    ]


@pytest.mark.parametrize(
    "written", ["+393335550001", "00393335550001", "393335550001", "+39 333 555-0001", " (+39)333.5550001"]
)
def test_a_number_has_one_form(written: str) -> None:
    """However a number is written it is the same one; a name is one in any case."""
    assert number_form(written) == number_form(HER)
    assert number_form("AgileTel") == number_form("AGILETEL") != number_form("Agile Tel")


def test_a_number_is_found_on_both_sides(archive_engine: Engine) -> None:
    """Whoever is written to counts as much as whoever wrote."""
    to_her = item(9, reading=Readable(hers(9, HIS, destination=HER), PARSER))
    write(archive_engine, mail(1), to_her, mail(3, HIS))
    assert planned(archive_engine, numbers=[HER]).sms == 2


def test_what_is_old_goes_by_age_and_destination(archive_engine: Engine) -> None:
    """--before takes what was received earlier, to the second; --destination narrows it down."""
    other = item(3, reading=Readable(sms(3, destination="+390000000"), PARSER))
    write(archive_engine, item(1), item(2), other, item(4))
    edge = NOW.replace(microsecond=0) + timedelta(seconds=4)
    assert planned(archive_engine, before=edge).sms == 3
    assert planned(archive_engine, before=edge, destination="+390000000").sms == 1


def test_content_goes_only_by_an_erasure(archive_engine: Engine) -> None:
    """The guards refuse to remove content that no row of `erased` names; naming a row removes its content in
    the same statement, so that neither is ever there without the other."""
    write(archive_engine, mail(1))
    for table in ("sms_content", "sms_numbers", "arrival_content", "payloads"):
        with pytest.raises(DBAPIError, match="append-only"), writing(archive_engine) as connection:
            connection.exec_driver_sql(f"DELETE FROM {table}")
    with pytest.raises(DBAPIError), writing(archive_engine) as connection:  # no such erasure
        connection.exec_driver_sql("INSERT INTO erased (kind, row_id, erasure_id) VALUES ('sms', 1, 7)")
    with writing(archive_engine) as connection:
        connection.exec_driver_sql(
            "INSERT INTO erasures (id, plan_id, batch, basis, sms, arrivals, payloads, others, erased_at)"
            " VALUES (7, 'p', 0, 'b', 1, 0, 0, 0, '2026-03-01T00:00:00Z')"
        )
        connection.exec_driver_sql("INSERT INTO erased (kind, row_id, erasure_id) VALUES ('sms', 1, 7)")
    assert content(archive_engine) == [0, 0, 1, 1]


def test_a_plan_refuses_what_has_changed_and_leaves_what_came(archive_engine: Engine) -> None:
    """An arrival that came since to an SMS of the plan is a change; another SMS of hers is not: it is named
    and left. A plan of another archive, and one for what was erased already, are refused."""
    write(archive_engine, mail(1))
    plan = planned(archive_engine, numbers=[HER])
    write(archive_engine, post(1, 5))
    with pytest.raises(IngestorError, match="has changed since"):
        applied(archive_engine, plan)
    assert content(archive_engine) == [1, 1, 2, 2]
    plan, later = (planned(archive_engine, numbers=[HER]) for _ in range(2))
    write(archive_engine, mail(2))
    assert applied(archive_engine, plan).sms == 1
    assert erasure.came_meanwhile(archive_engine, plan) == [one(archive_engine, "SELECT max(id) FROM sms")]
    with pytest.raises(IngestorError, match="has changed since"):
        applied(archive_engine, later)
    with pytest.raises(IngestorError, match="another archive"):
        applied(archive_engine, replace(later, archive="0" * 16))


def test_a_plan_is_a_file_without_a_word(archive_engine: Engine) -> None:
    """Written and read again a plan is the same; it has neither number nor text; other files are refused."""
    write(archive_engine, mail(1), mail(3, HIS), broken(2))
    plan = planned(archive_engine, numbers=[HER])
    written = plan.written()
    assert Plan.read(written) == plan
    assert HER[-7:] not in written
    for wrong in ("", "[]", "{}", '{"form": "x"}', written.replace('"basis"', '"bases"')):
        with pytest.raises(ValueError, match="no plan"):
            Plan.read(wrong)
    for basis in ("Mr. Rossi", "393335550001", "a" * 33, "n3935550001", "è"):
        with pytest.raises(ValueError, match="code"):
            basis_code(basis)


def test_a_hold_blocks_until_it_is_removed(archive_engine: Engine) -> None:
    """What is held by number or id is left out of plans, and stops a plan that was made before."""
    write(archive_engine, mail(1), mail(3, HIS), broken(2))
    key = number_key(HER, read_archive_key(archive_engine))
    before = planned(archive_engine, before=NOW + timedelta(days=1))
    hold = holds.add(archive_engine, {"number_key": key}, HER, "lawsuit", NOW)
    his = one(archive_engine, f"SELECT id FROM inbound_sms WHERE originator = '{HIS}'")
    by_id = holds.add(archive_engine, {"sms_id": his}, None, "asked for", NOW)
    assert len(planned(archive_engine, before=NOW + timedelta(days=1)).held_sms) == 2
    with pytest.raises(IngestorError, match="under a hold"):
        applied(archive_engine, before)
    holds.remove(archive_engine, by_id, NOW)
    with pytest.raises(IngestorError, match="no hold"):
        holds.remove(archive_engine, by_id, NOW)
    assert erased(archive_engine, before=NOW + timedelta(days=1)).sms == 1
    assert [one.number for one in holds.listed(archive_engine)] == [HER]
    holds.remove(archive_engine, hold, NOW)
    assert erased(archive_engine, numbers=[HER]).others == 1
    assert rows(archive_engine, "SELECT number FROM hold_content") == [(None,)]


def test_an_opt_out_keeps_its_hash_and_loses_its_number(archive_engine: Engine) -> None:
    """Who opted out and is erased stays out by the hash; number and reason go, another's stay."""
    with writing(archive_engine) as connection:
        events = [Event(number, "*", "add", NOW, reason="asked by phone") for number in (HER, HIS)]
        write_events(connection, read_secret(connection), events, NOW)
    write(archive_engine, mail(1))
    plan = planned(archive_engine, numbers=[HER])
    assert (plan.sms, plan.others) == (1, 1)
    applied(archive_engine, Plan.read(plan.written()))
    assert number_of(archive_engine, "consents") == 2
    assert rows(archive_engine, "SELECT number FROM consent_content") == [(HIS,)]
    with writing(archive_engine) as connection:
        assert number_hmac(read_secret(connection), HER) in {
            bytes(one) for (one,) in connection.exec_driver_sql("SELECT number_hmac FROM consents")
        }


def test_answers_and_their_reports_lose_number_and_text(archive_engine: Engine) -> None:
    """What was sent to a number, and what was reported of it, go with the number; the decisions stay."""
    add_rows_of_replies(archive_engine)
    plan = planned(archive_engine, numbers=["+39 335 1234567"])
    assert (plan.sms, plan.others) == (0, 2)
    applied(archive_engine, plan)
    for table, stays in (("answer_content", 0), ("delivery_report_content", 0), ("answers", 1)):
        assert number_of(archive_engine, table) == stays


@pytest.mark.parametrize(
    ("written", "raw"),
    [
        (HER, b"Subject: odd\n\nfrom 0039 333 555-0001, unreadable"),
        (HER, b"originator=%2B393335550001&txt=x"),
        (HER, b'{"from": "+39 (333) 555.00.01"}'),
        (HER, b"Subject: x\nContent-Transfer-Encoding: base64\n\n" + b64encode(b"From: 393335550001 x")),
        (HER, "Subject: x\nContent-Type: text/plain; charset=utf-16le\n\n+393335550001".encode("utf-16le")),
        ("AgileTel", b"Subject: x\n\nfrom AGILETEL to you"),
    ],
)
def test_a_number_is_found_in_what_nobody_could_read(
    archive_engine: Engine, written: str, raw: bytes
) -> None:
    """Written in any form, in the kept bytes or the subject; a longer number that has its digits is another;
    what was erased, or read since, is not looked at again, and what was discarded is."""
    others = (b"Subject: y\n\nfrom 3933355500011", b"Subject: y\n\n1393335550001", b"AgileTelecom")
    subject = Unreadable("odd", PARSER, "<x@example.org>", f"SMS from {written}")
    write(
        archive_engine, broken(1, raw=raw), broken(5, reading=subject),
        *(broken(number, raw=other) for number, other in enumerate(others, 2)), mail(1),
    )  # fmt: skip
    found = [number for (number,) in rows(archive_engine, "SELECT id FROM quarantine ORDER BY id")][:2]
    assert naming(archive_engine, [written]) == (found, 5)
    discard(archive_engine, found, "spam", NOW)
    assert naming(archive_engine, [written]) == (found, 5)
    erased(archive_engine, quarantine=tuple(found))
    assert naming(archive_engine, [written]) == ([], 3)


def _by_other_way(number: int, way: str) -> Item:
    """Return SMS `number` of hers as it comes again by `way`."""
    same = mail(number)
    return {
        "the same import": mail(number, channel=Channel.IMPORT),
        "mailbox": same,
        "new UIDVALIDITY": same._replace(position=same.position._replace(uidvalidity=8, uid=number + 90)),
        "other bytes by mail": mail(number, raw=b"Subject: forwarded by her\n\nother bytes"),
        "other bytes by import": mail(number, channel=Channel.IMPORT, raw=b"Subject: hers\n\nother bytes"),
        "posted": post(number, 6),
    }[way]


WAYS = (
    "the same import",
    "mailbox",
    "new UIDVALIDITY",
    "other bytes by mail",
    "other bytes by import",
    "posted",
)


@pytest.mark.parametrize("way", WAYS)
def test_it_does_not_come_back(archive_engine: Engine, way: str) -> None:
    """An erased SMS that comes again by any way is a duplicate: an arrival and a count, no content."""
    write(archive_engine, mail(1), mail(3, HIS))
    erased(archive_engine, numbers=[HER])
    before = content(archive_engine)
    for _ in range(2):
        assert write(archive_engine, _by_other_way(1, way)) == (Outcome.DUPLICATE,)
        assert content(archive_engine) == before
    shown = rows(archive_engine, "SELECT text, arrivals FROM inbound_sms WHERE erased_at IS NOT NULL")
    assert shown == [(None, 1 if way in ("mailbox", "new UIDVALIDITY") else 3 if way == "posted" else 2)] or (
        way == "posted" and shown == [(None, 2)]  # the same UUID twice is one arrival
    )


def test_a_post_replayed_from_the_spool_brings_nothing_back(archive_engine: Engine) -> None:
    """The spool's file of a POST that was stored and erased is the same arrival; that of one that never was
    is an arrival without content."""
    write(archive_engine, post(1, 5))
    erased(archive_engine, numbers=[HER])
    assert write(archive_engine, post(1, 5)) == (Outcome.DUPLICATE,)
    assert write(archive_engine, post(1, 6)) == (Outcome.DUPLICATE,)
    assert content(archive_engine) == [0, 0, 0, 0]
    assert number_of(archive_engine, "arrivals") == 2


def test_what_was_posted_together_loses_its_bytes_together(archive_engine: Engine) -> None:
    """Raw bytes of a POST hold every item of it: they go with the first that is erased, and are not kept when
    they come again; the content of the others stays, and the plan says so."""
    both = post(1, 5, HIS), post(2, 5, HER, at=1)
    write(archive_engine, *both)
    plan = planned(archive_engine, numbers=[HER])
    assert (plan.sms, plan.payloads, plan.beside) == (1, 1, 1)
    applied(archive_engine, plan)
    again = post(1, 6, HIS), post(2, 6, HER, at=1)
    assert write(archive_engine, *again) == (Outcome.DUPLICATE, Outcome.DUPLICATE)
    assert content(archive_engine) == [1, 1, 0, 0]


def test_the_quarantine_is_erased_and_not_read_again(archive_engine: Engine) -> None:
    """What is erased from the quarantine leaves it with a verdict; neither a retry that read its bytes
    before, nor today's reader that understands them, nor another way brings it back."""
    write(archive_engine, broken(1, channel=Channel.MAILBOX), broken(2))
    store = Store(archive_engine)
    first = one(archive_engine, "SELECT min(id) FROM arrivals")

    def reader(kept: Any) -> Sequence[Any]:
        erased(archive_engine, quarantine=(first,))  # between the reading and the writing of a retry
        return [Readable(sms(1), PARSER)]

    [verdict] = retry(store, reader, None, NOW, [first])
    assert verdict.outcome is Outcome.DUPLICATE
    found = quarantine_show(archive_engine, first)
    assert found is not None
    assert not found.stands
    assert found.verdicts[-1]["reason"] == "erased: gdpr-art17"
    assert write(archive_engine, item(1, channel=Channel.MAILBOX)) == (Outcome.DUPLICATE,)
    assert write(archive_engine, item(1)) == (Outcome.DUPLICATE,)
    assert write(archive_engine, broken(1)) == (Outcome.DUPLICATE,)
    assert number_of(archive_engine, "sms") == 0
    assert content(archive_engine) == [0, 0, 1, 1]
    assert number_of(archive_engine, "quarantine") == 1


def test_a_second_apply_does_the_rest(archive_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An apply that ended between two batches is ended by calling it again; once more it does nothing."""
    monkeypatch.setattr(erasure, "BATCH", 2)
    write(archive_engine, *(mail(number) for number in range(1, 8)))
    plan = planned(archive_engine, numbers=[HER])
    secret = read_archive_key(archive_engine)
    begun = erasure.apply(archive_engine, secret, plan, lambda: NOW, pause=0)
    assert [done.sms for done in itertools.islice(begun, 3)] == [0, 2, 4]
    begun.close()  # type: ignore[attr-defined]
    done = applied(archive_engine, plan)
    assert (done.sms, done.before, done.batches) == (3, 2, 2)
    assert content(archive_engine) == [0, 0, 0, 0]
    assert applied(archive_engine, plan).batches == 0


def test_a_plan_keeps_no_wal_from_shrinking(sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while it is made nor while it is looked at before its doing: nobody reads all of it at once."""
    write(sqlite_engine, *(mail(n) for n in range(1, 7)))
    busy: list[int] = []

    def emptied_before(function: Callable[..., Any]) -> Callable[..., Any]:
        def between(*given: Any) -> Any:
            with closing(sqlite3.connect(str(sqlite_engine.url.database), timeout=0)) as other, other:
                other.execute("INSERT INTO leases VALUES (?, 'somebody', '')", (len(busy),))
                other.commit()
                busy.append(other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            return function(*given)

        return between

    monkeypatch.setattr(erasure, "BATCH", 1)
    monkeypatch.setattr(erasure, "_AT_ONCE", 1)
    with monkeypatch.context() as patched:
        patched.setattr(erasure, "_belongings", emptied_before(erasure._belongings))
        plan = planned(sqlite_engine, numbers=[HER])
    monkeypatch.setattr(holds, "standing", emptied_before(holds.standing))
    next(erasure.apply(sqlite_engine, read_archive_key(sqlite_engine), plan, lambda: NOW))
    assert busy == [0] * 12
