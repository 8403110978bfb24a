"""A STOP stands when the SMS is stored, whichever way it came, once."""

import ast
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from ingestor.archive.engine import open_engine
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.errors import ConfigurationError
from ingestor.intake.retry import retry
from ingestor.providers.contract import Readable
from ingestor.record import Channel, Outcome
from ingestor.replies import opt_outs
from ingestor.replies.opt_outs import hearing_store, words_of
from ingestor.settings import OptOut
from tests.archive.reading import number_of
from tests.archive.samples import NOW, PARSER, broken, sms
from tests.replies.given import OURS, SHE, TEN, said, view
from tests.replies.hearing_process import scan_on, store_on, words_of_sms

KILLS = int(os.environ.get("INGESTOR_TEST_KILLS", "8"))
SMS = 400
ROOT = Path(__file__).parent.parent.parent


def put(store: Store, *items: Any) -> list[Outcome]:
    """Store items in one submission and return their outcomes."""
    [receipt] = store.write([Submission(None, tuple(items))], NOW)
    return list(receipt.outcomes)


def test_the_same_stop_by_post_by_retry_and_by_mail_is_one_event(archive_engine: Engine) -> None:
    """Each further arrival of an SMS changes nothing (row 1)."""
    store = hearing_store(archive_engine, OptOut())

    first = put(store, said(1, "STOP", channel=Channel.WEBHOOK, content_key=b"a" * 16))
    again = put(store, said(1, "STOP", channel=Channel.WEBHOOK, content_key=b"b" * 16))
    by_mail = put(store, said(1, "STOP", channel=Channel.MAILBOX), said(1, "STOP"))

    assert (first, again, by_mail) == (["stored"], ["duplicate"], ["duplicate"] * 2)
    assert view(archive_engine, "opt_out_events", "kind, number, scope, sms_id") == [("stop", SHE, OURS, 1)]


def test_a_stop_in_the_quarantine_stands_when_it_can_be_read(archive_engine: Engine) -> None:
    """A retry stores an SMS like any other way, and the STOP counts from when it was sent."""
    store = hearing_store(archive_engine, OptOut())
    put(store, broken(1), said(2, "START", minutes=5))
    assert view(archive_engine, "opt_outs", "sms_id") == []

    one = sms(1, originator=SHE, text="STOP", received_at=TEN)
    [verdict] = retry(store, lambda _: [Readable(one, PARSER)], None, NOW)

    assert verdict.outcome is Outcome.STORED
    assert view(archive_engine, "opt_outs", "sms_id") == []
    assert view(archive_engine, "opt_out_events", "kind") == [("stop",), ("start",)]


def test_a_stop_that_cannot_be_written_down_is_not_acknowledged(
    archive_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMS and event stand or fall together: `+OK` means that the STOP stands."""
    store = hearing_store(archive_engine, OptOut())

    def fail(*_: Any) -> int:
        raise RuntimeError("killed here")

    monkeypatch.setattr(opt_outs, "write_events", fail)
    with pytest.raises(RuntimeError):
        put(store, said(1, "STOP"))
    assert number_of(archive_engine, "sms") == 0

    monkeypatch.undo()
    assert put(store, said(1, "STOP")) == ["stored"]
    assert view(archive_engine, "opt_outs", "number") == [(SHE,)]


def test_an_sms_that_the_database_refuses_takes_no_other_with_it(archive_engine: Engine) -> None:
    """Where a batch is written item by item, each STOP is written once."""
    store = hearing_store(archive_engine, OptOut())
    refused = said(2, "STOP")
    reading = refused.reading
    assert isinstance(reading, Readable)
    refused = refused._replace(reading=reading._replace(sms=reading.sms._replace(originator_kind="friend")))

    outcomes = put(store, said(1, "STOP"), refused, said(3, "STOP ALL"))

    assert outcomes == ["stored", "quarantined", "stored"]
    assert [kind for (kind,) in view(archive_engine, "opt_out_events", "kind")] == ["stop", "stop"]


def test_the_users_words_count(archive_engine: Engine) -> None:
    """What `[opt_out]` lists is heard; words that cannot be are refused as configuration."""
    store = hearing_store(archive_engine, OptOut(languages=("it",), stop=("FERMI",)))
    put(store, said(1, "Basta"))
    put(store, said(2, "fermi!"))

    assert len(view(archive_engine, "opt_out_events", "kind")) == 2
    with pytest.raises(ConfigurationError, match=r"\[opt_out\]: 'STOP' is a word for stop"):
        words_of(OptOut(start=("STOP",)))


@pytest.mark.parametrize("work", [store_on, scan_on], ids=["store", "scan"])
def test_kill_9_loses_and_doubles_no_event(
    archive_engine: Engine, work: Callable[[str, int, Any], None]
) -> None:
    """A process that stores, or reads old SMS, is killed again and again: each SMS has its one event."""
    url = archive_engine.url.render_as_string(hide_password=False)
    if work is scan_on:
        plain = Store(archive_engine)
        for start in range(0, SMS, 50):
            put(plain, *(said(n, words_of_sms(n)) for n in range(start, start + 50)))
        assert number_of(archive_engine, "consents") == 0
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([work.__module__])
    order = random.Random(3)

    def started() -> Any:
        begun = processes.Event()
        process = processes.Process(target=work, args=(url, SMS, begun))
        process.start()
        assert begun.wait(60)
        return process

    for _ in range(KILLS):
        process = started()
        time.sleep(order.uniform(0, 0.08))
        process.kill()
        process.join()
    started().join(120)

    wanted = sum(words_of_sms(n) != "hello" for n in range(SMS))
    assert number_of(archive_engine, "sms") == SMS
    assert number_of(archive_engine, "consents") == number_of(archive_engine, "consent_content") == wanted


@pytest.mark.postgresql
def test_two_daemons_hear_each_stop_once(postgresql_engine: Engine) -> None:
    """Two processes store the same SMS into one PostgreSQL at once, as two daemons do (rows 1 and 18)."""
    url = postgresql_engine.url.render_as_string(hide_password=False)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([store_on.__module__])
    begun = processes.Event()
    both = [processes.Process(target=store_on, args=(url, SMS, begun)) for _ in range(2)]

    for process in both:
        process.start()
    for process in both:
        process.join(120)

    assert [process.exitcode for process in both] == [0, 0]
    wanted = sum(words_of_sms(n) != "hello" for n in range(SMS))
    assert number_of(postgresql_engine, "sms") == SMS
    assert number_of(postgresql_engine, "consents") == wanted


def test_every_intake_hears() -> None:
    """No part of the program makes a store that stores SMS and is deaf."""
    deaf_on_purpose = {"opening.py", "archive.py", "sinks.py"}  # they read the key, or write to nothing
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "ingestor").rglob("*.py")
        if path.name not in deaf_on_purpose
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Store" and len(node.args) < 2
    ]

    assert found == []


def test_the_archive_of_another_engine_is_heard_alike(archive_engine: Engine) -> None:
    """The key is read in the transaction itself: nothing of another archive is ever used."""
    seen: list[bytes] = []

    def hear(connection: Connection, _: Any) -> None:
        seen.append(opt_outs.read_secret(connection))

    again = open_engine(archive_engine.url.render_as_string(hide_password=False))
    put(Store(again, hear), said(1, "STOP"))
    again.dispose()

    assert seen == [Store(archive_engine).archive_key()]
