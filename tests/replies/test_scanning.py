"""Reading the SMS of the archive for opt-outs: those that an earlier program stored, or by other words."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from sqlalchemy import Engine, make_url, text

from ingestor.archive import migrate
from ingestor.archive.engine import reading, sqlite_path, writing
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from ingestor.replies import scanning
from ingestor.replies.figures import Scan, scan_state
from ingestor.replies.opt_outs import hearing
from ingestor.replies.scanning import (
    BackgroundScan,
    begin_scan,
    read_old_sms,
    scan,
    scan_step,
)
from ingestor.replies.words import Words
from tests.archive.reading import number_of, opened
from tests.archive.samples import NOW
from tests.archive.test_earlier_archives import put_back
from tests.cli.calling import ingestor
from tests.replies.given import OURS, SHE, said, view
from tests.servers.postgresql import PostgresqlServer

WORDS = Words()


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Read three SMS a step."""
    monkeypatch.setattr(scanning, "STEP", 3)
    return None


def fill(engine: Engine, *texts: str) -> None:
    """Store SMS as a program did that heard nothing, in an archive that it made."""
    Store(engine).write([Submission(None, tuple(said(n, words) for n, words in enumerate(texts, 1)))], NOW)
    with writing(engine) as connection:
        connection.execute(text("UPDATE consent_scans SET finished_at = NULL, until_id = NULL"))


def state(engine: Engine) -> Scan:
    """Return how far it is."""
    with reading(engine) as connection:
        return scan_state(connection)


def test_a_new_archive_has_nothing_to_be_read(archive_engine: Engine) -> None:
    """It is finished from the start, and who is out can be told."""
    assert state(archive_engine).done
    assert begin_scan(archive_engine, WORDS).done


def test_old_sms_are_read_in_steps_and_a_stop_costs_one(archive_engine: Engine) -> None:
    """Each step is written down with its events; until the last one it is not finished."""
    fill(archive_engine, "STOP", "a", "b", "please stop", "c", "STOP ALL", "START")
    assert (state(archive_engine).done, str(state(archive_engine))) == (False, "not begun")

    assert begin_scan(archive_engine, WORDS).until == 7
    assert scan_step(archive_engine, WORDS) == Scan(WORDS.mark, 3, 7, None)
    assert str(state(archive_engine)) == "at SMS 3 of 7"
    assert view(archive_engine, "opt_out_events", "sms_id") == [(1,)]

    assert begin_scan(archive_engine, WORDS) == state(archive_engine)  # another start goes on
    told = list(scan(archive_engine, WORDS))

    assert told[-1].done
    assert [one.after for one in told] == [6, 7, 7]
    assert state(archive_engine).done
    assert view(archive_engine, "opt_out_events", "kind, sms_id") == [
        ("stop", 1), ("review", 4), ("stop", 6), ("start", 7),
    ]  # fmt: skip


def test_sms_that_come_meanwhile_are_heard_once(archive_engine: Engine) -> None:
    """What is stored after the scan began is heard when it is stored, and may be read again without harm."""
    fill(archive_engine, "STOP", "a", "b", "c")
    begin_scan(archive_engine, WORDS)
    scan_step(archive_engine, WORDS)
    Store(archive_engine, hearing(WORDS)).write([Submission(None, (said(9, "STOP ALL"),))], NOW)

    read_old_sms(archive_engine, WORDS, lambda: False)
    begin_scan(archive_engine, WORDS, anew=True)
    read_old_sms(archive_engine, WORDS, lambda: False)

    assert view(archive_engine, "opt_out_events", "kind, sms_id") == [("stop", 1), ("stop", 5)]


def test_other_words_are_read_for_from_the_beginning(archive_engine: Engine) -> None:
    """A change of the words makes old SMS opt-outs, and undoes none; the same words are read for once."""
    fill(archive_engine, "STOP", "basta")
    read_old_sms(archive_engine, WORDS, lambda: False)
    assert begin_scan(archive_engine, WORDS).done
    italian = Words(languages=["it"])

    begun = begin_scan(archive_engine, italian)
    assert (begun.after, begun.until, begun.done) == (0, 2, False)
    assert scan_step(archive_engine, WORDS) is None  # whoever reads by the old words ends
    read_old_sms(archive_engine, italian, lambda: False)

    assert view(archive_engine, "opt_out_events", "sms_id") == [(1,), (2,)]
    assert begin_scan(archive_engine, italian).done


def test_two_scans_at_once_do_no_harm(archive_engine: Engine) -> None:
    """Two daemons read the same old SMS at the same time: each event is there once, and both end."""
    fill(archive_engine, *["STOP", "a", "please stop"] * 10)
    both = [
        threading.Thread(target=read_old_sms, args=(archive_engine, WORDS, lambda: False)) for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join(60)

    assert state(archive_engine).done
    assert len(view(archive_engine, "opt_out_events", "id")) == 20


def test_an_erased_sms_is_passed_over(archive_engine: Engine) -> None:
    """An SMS whose content is gone says nothing any more, and holds nothing up."""
    fill(archive_engine, "a", "STOP", "STOP")
    with writing(archive_engine) as connection:
        on = "" if archive_engine.dialect.name == "sqlite" else " ON sms_content"
        connection.execute(text(f"DROP TRIGGER sms_content_no_delete{on}"))
        connection.execute(text("DELETE FROM sms_content WHERE sms_id = 2"))

    read_old_sms(archive_engine, WORDS, lambda: False)

    assert view(archive_engine, "opt_outs", "sms_id") == [(3,)]


def test_the_daemons_scan_waits_for_an_archive_that_is_fit(
    archive_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written while the archive is held; then it goes on, tells of it, and ends."""
    fill(archive_engine, "STOP")
    monkeypatch.setattr(scanning, "_RETRY_SECONDS", 0.01)
    fit = threading.Event()
    with structlog.testing.capture_logs() as logs:
        background = BackgroundScan(archive_engine, WORDS, fit.is_set)
        background.start()
        assert not state(archive_engine).done
        fit.set()
        background._thread.join(30)

    assert state(archive_engine).done
    assert [line["event"] for line in logs] == [
        "old SMS are read for opt-outs", "old SMS have been read for opt-outs",
    ]  # fmt: skip


def test_the_daemons_scan_stops_after_a_step(archive_engine: Engine) -> None:
    """A stop of the daemon ends it soon, and the next start goes on."""
    fill(archive_engine, *["STOP"] * 30)
    background = BackgroundScan(archive_engine, WORDS, lambda: True)
    background.start()
    background.stop()
    background._thread.join(30)

    read_old_sms(archive_engine, WORDS, lambda: False)
    assert state(archive_engine).done


STOP_OF_AN_EARLIER_PROGRAM = """
INSERT INTO sms (id, fingerprint, fingerprint_version, provider, originator_kind, destination, date_time,
  received_at, time_quality, ingested_at)
SELECT 900, fingerprint_900, 1, 'agile', 'msisdn', '+393331234333', '20260514100000',
  '2026-05-14T08:00:00Z', 'ok', '2026-05-14T08:00:01Z' FROM (SELECT {bytes} AS fingerprint_900) AS made;
INSERT INTO sms_content (sms_id, originator, originator_raw, destination_raw, text, details)
VALUES (900, '+393351234567', '393351234567', '393331234333', 'Stop!', '{{}}');
"""


def test_an_archive_of_an_earlier_program_is_upgraded(
    archive_url: str, postgresql_server: PostgresqlServer, tmp_path: Path
) -> None:
    """Its SMS are still to be read after the upgrade, `check` says so, and `db upgrade` reads them."""
    put_back("7ecdfed", archive_url, postgresql_server)
    path = sqlite_path(make_url(archive_url))
    if path is not None:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(STOP_OF_AN_EARLIER_PROGRAM.format(bytes="zeroblob(38)"))
    else:
        statement = STOP_OF_AN_EARLIER_PROGRAM.format(bytes="decode(repeat('00', 38), 'hex')")
        postgresql_server.sql(statement, archive_url.rpartition("/")[2])
    with opened(archive_url) as engine:
        migrate.ensure_schema(engine, auto_upgrade=True)
        assert not state(engine).done
        assert number_of(engine, "consents") == 0

    unread = ingestor("--database-url", archive_url, "optout", "check", SHE, folder=tmp_path)
    assert unread.code == 3, unread.err
    done = ingestor("--database-url", archive_url, "db", "upgrade", folder=tmp_path)
    assert "All SMS have been read for opt-outs" in done.out, done.err
    assert ingestor("--database-url", archive_url, "optout", "check", SHE, folder=tmp_path).code == 1

    with opened(archive_url) as engine:
        assert view(engine, "opt_outs", "number, scope, kind, sms_id") == [(SHE, OURS, "stop", 900)]
