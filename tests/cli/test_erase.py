"""`ingestor erase` and `db vacuum`, as a person calls them."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive import holds
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.items import Item, Submission
from ingestor.archive.mailbox_state import read_sources
from ingestor.archive.rows import number_key
from ingestor.archive.store import Store
from ingestor.providers.contract import Readable
from ingestor.record import Channel
from ingestor.service.retention import DAY_SECONDS, RetentionCare
from ingestor.settings.models import KeepRule, Retention
from ingestor.settings.values import before, period
from tests.archive.reading import number_of, one, rows
from tests.archive.samples import NOW, PARSER, broken, item, sms
from tests.cli.calling import ingestor
from tests.cli.conftest import Filled
from tests.service.process import configuration, running
from tests.waiting import until

WEBHOOK = """[webhook]
listen = "127.0.0.1:0"
[[webhook.endpoint]]
path = "/agile/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
provider = "agile"
"""
NUMBER = "+393330000002"
"""Of the SMS that arrived twice."""


def test_one_person_from_start_to_end(filled: Filled) -> None:
    """Plan, apply, show and list: what each says; no number is in the plan, which does nothing again."""
    plan = filled.folder / "plan.json"
    shown = filled.call(
        "erase", "plan", "--number", "0039 333 0000002", "--basis", "gdpr-art17", "--output", plan
    )
    assert shown.code == 0, shown.err
    assert "SMS  1\n" in shown.out
    assert "2 (subject" in shown.out
    assert f"ingestor erase apply {plan}" in shown.out
    assert NUMBER[-7:] not in plan.read_text()
    assert stat.S_IMODE(plan.stat().st_mode) == 0o600
    again = filled.call("erase", "plan", "--sms", "1", "--basis", "x", "--output", plan)
    assert again.faults == [f"ingestor: {plan} exists; name another file for the plan"]
    (filled.folder / "archive.db.0006.bak").touch()
    done = filled.call("erase", "apply", plan)
    assert done.code == 0, done.err
    assert "snapshots, exports and backups" in done.out
    assert "names of imported files (arrivals.source, run_inputs.path, runs.options), which stay" in done.out
    assert "old.mbox" in done.out
    assert ("archive.db.0006.bak" in done.out) is (filled.engine.dialect.name == "sqlite")
    number = one(filled.engine, "SELECT id FROM inbound_sms WHERE erased_at IS NOT NULL")
    told = filled.call("show", str(number))
    assert "erased on 20" in told.out
    assert "basis gdpr-art17" in told.out
    assert NUMBER not in told.out
    assert filled.call("show", str(number), "--raw").code == 1
    assert json.loads(filled.call("show", str(number), "--json").out)["sms"]["text"] is None
    assert filled.call("search", "--provider", "agile").code == 0
    [listed] = filled.call("erase", "list", "--json").out.splitlines()
    assert (json.loads(listed)["sms"], json.loads(listed)["basis"]) == (1, "gdpr-art17")
    assert "(1 done before)" in filled.call("erase", "apply", plan).out
    assert filled.call("check").err.count("differs") == 0
    vacuumed = filled.call("db", "vacuum")
    assert vacuumed.code == 0, vacuumed.err
    assert "spool" in vacuumed.out


def test_holds_and_wrong_usage(filled: Filled) -> None:
    """A hold keeps what a plan would take, until it is removed; what is wrong is said in a line, and nothing
    is done."""
    held = filled.call("erase", "hold", "add", "--number", NUMBER, "--reason", "lawsuit")
    assert held.out == "hold 1 stands\n"
    assert "lawsuit" in filled.call("erase", "hold", "list").out
    planned = filled.call("erase", "plan", "--number", NUMBER, "--basis", "x")
    assert "held, and left  SMS " in planned.out
    assert "Nothing of it is in the archive" in planned.out
    assert filled.call("erase", "hold", "remove", "1").code == 0
    assert filled.call("erase", "hold", "remove", "1").code == 1
    for words, code in (
        (("plan", "--number", NUMBER, "--basis", "Mr. Rossi"), 2),
        (("plan", "--number", "++", "--basis", "x"), 2),
        (("plan", "--sms", "999", "--basis", "x"), 1),
        (("plan", "--sms", "1", "--destination", "+39", "--basis", "x"), 2),
        (("plan", "--basis", "x"), 2),
        (("plan", "--quarantine", "1", "--basis", "x"), 1),
        (("apply", filled.folder / "nothing.json"), 1),
        (("hold", "add", "--sms", "999", "--reason", "x"), 1),
        (("hold", "add", "--sms", "1", "--reason", " "), 2),
    ):
        done = filled.call("erase", *words)
        assert (done.code, len(done.faults)) == (code, 1), (words, done.err)
    assert number_of(filled.engine, "erasures") == 0


def test_a_number_is_looked_for_in_the_quarantine_too(filled: Filled) -> None:
    """The plan says how many were looked through and where it stands; what goes takes the words that somebody
    gave as a reason along as a warning, as they stay."""
    raw = b"Subject: odd\n\nFrom: 00 39 333 0000002"
    Store(filled.engine).write([Submission(None, (broken(8, raw=raw),))], NOW)
    number = one(filled.engine, "SELECT max(id) FROM quarantine")
    filled.call("quarantine", "discard", str(number), "--reason", "she asked by phone")
    plan = filled.folder / "plan.json"
    shown = filled.call("erase", "plan", "--number", NUMBER, "--basis", "x", "--output", plan)
    assert f"quarantine  3 unread were looked through; it stands in {number}\n" in shown.out
    done = filled.call("erase", "apply", plan)
    assert "words given as a reason" in done.out
    assert "she asked by phone" in done.out
    assert one(filled.engine, f"SELECT count(*) FROM payloads WHERE arrival_id = {number}") == 0


def test_an_erasure_names_the_mail_in_its_mailbox(filled: Filled) -> None:
    """Folder, UIDVALIDITY and UID of what still lies on the server are printed, with a command for it."""
    Store(filled.engine).write([Submission(None, (item(40, channel=Channel.MAILBOX),))], NOW)
    number = one(filled.engine, "SELECT max(id) FROM sms")
    plan = filled.folder / "plan.json"
    filled.call("erase", "plan", "--sms", str(number), "--basis", "x", "--output", plan)
    done = filled.call("erase", "apply", plan)
    assert "mailbox main, folder INBOX (UIDVALIDITY 7): UID 40" in done.out
    assert "doveadm expunge -u USER mailbox 'INBOX' uid 40" in done.out


def _aged(number: int, days: int, **changed: object) -> Item:
    at = NOW - timedelta(days=days)
    digits = f"{at:%Y%m%d%H%M%S}"
    return item(number, reading=Readable(sms(number, received_at=at, date_time=digits, **changed), PARSER))


def _look(engine: Engine, section: Retention) -> str:
    clock = [DAY_SECONDS]
    care = RetentionCare(engine, section, clock=lambda: clock[0], now=lambda: NOW, pause=0)
    care.look()
    care.look()  # within the day: nothing
    [source] = [one for one in read_sources(engine) if one.kind == "retention"]
    return f"{source.state}: {source.detail}"


def test_what_is_older_than_it_may_be_is_planned_and_then_erased(archive_engine: Engine) -> None:
    """Each day it is said what is due; it goes only where the configuration says so. The first rule that fits
    an SMS counts, the quarantine has a period of its own, and a hold keeps what it names."""
    number = "+390000000"
    Store(archive_engine).write(
        [Submission(None, (
            _aged(1, 800), _aged(2, 100), _aged(3, 100, destination=number), _aged(4, 10, destination=number),
            broken(5, arrived_at=NOW - timedelta(days=91)), broken(6),
        ))], NOW,
    )  # fmt: skip
    section = Retention(keep="1y", quarantine="90d", rule=(KeepRule(destination=number, keep="2m"),))
    assert _look(archive_engine, section) == (
        "due: 2 SMS and 1 of the quarantine; retention.apply is false, so they stay"
    )
    assert number_of(archive_engine, "erased") == 0
    done = _look(archive_engine, section.model_copy(update={"apply": True}))
    assert done.startswith("done: erased 2 SMS and 3 arrivals with 3 raw bytes")
    assert number_of(archive_engine, "sms_content") == 2
    assert number_of(archive_engine, "quarantine") == 1
    assert _look(archive_engine, section.model_copy(update={"apply": True})) == (
        "done: nothing is due; last erased: 2 SMS on 2026-03-01"
    )


def test_a_clock_that_leapt_erases_nothing_for_a_day(archive_engine: Engine) -> None:
    """A year ahead, all of that year was too old. Whoever sees it has a day; restarts change nothing."""
    Store(archive_engine).write([Submission(None, (_aged(1, 10),))], NOW)
    section = Retention(keep="2m", apply=True)

    def looked(moment: datetime) -> int:
        RetentionCare(archive_engine, section, now=lambda: moment, pause=0).look()
        return number_of(archive_engine, "sms_content")

    leapt = NOW + timedelta(days=365)
    for moment in (NOW, leapt, leapt + timedelta(hours=1), NOW + timedelta(days=1), leapt, leapt):
        assert looked(moment) == 1
    [(state, detail)] = rows(archive_engine, "SELECT state, detail FROM sources WHERE name = 'retention'")
    assert state == "due"
    assert "they go in a day: since the last look the clock went on by 364 days" in str(detail)
    assert looked(leapt + timedelta(days=1)) == 0


def test_what_is_held_is_in_the_way_of_nothing_else(archive_engine: Engine) -> None:
    """However many of the oldest are held, by id or by a number, what is due behind them is found."""
    Store(archive_engine).write([Submission(None, tuple(_aged(n, 800) for n in range(1, 8)))], NOW)
    secret = read_archive_key(archive_engine)
    first, second, *others = [n for (n,) in rows(archive_engine, "SELECT id FROM sms ORDER BY id")]
    holds.add(archive_engine, {"sms_id": first}, None, "asked for", NOW)
    holds.add(archive_engine, {"number_key": number_key("+393330000002", secret)}, None, "asked for", NOW)
    keeps = [holds.Keep(NOW - timedelta(days=365))]
    assert holds.due(archive_engine, keeps, None, 2) == (others[:2], [])
    assert holds.count_due(archive_engine, keeps, None, 100) == (5, 0)
    assert second not in holds.due(archive_engine, keeps, None, 100)[0]


@pytest.mark.torture
def test_a_daemon_erases_what_is_old_each_day_and_says_so(archive_engine: Engine, tmp_path: Path) -> None:
    """The job runs in the daemon by itself, a minute after its start; `status` says what was done."""
    url = archive_engine.url.render_as_string(hide_password=False)
    Store(archive_engine).write([Submission(None, (_aged(1, 800), _aged(2, 800), item(3)))], NOW)
    old_enough = (datetime.now(UTC) - NOW).days + 400
    blocks = (f'[retention]\nkeep = "{old_enough}d"\napply = true\n', WEBHOOK)
    config = configuration(tmp_path, url, *blocks)
    with running(config) as daemon:
        daemon.wait_ready()
        until(lambda: number_of(archive_engine, "sms_content") == 1, "the old ones are erased", 90)
        until(lambda: bool(daemon.events("what is kept no longer was erased")), "it is said", 30)
        shown = ingestor("--config", config, "status", folder=tmp_path)
        assert "erased 2 SMS and 2 arrivals with 2 raw bytes" in shown.out
        daemon.stop()
    assert rows(archive_engine, "SELECT basis, sms FROM erasures_done") == [("retention", 2)]


def test_a_period_is_counted_by_the_calendar() -> None:
    """Months and years end on the same day of the month, or on its last one."""
    assert before("90d", NOW) == NOW - timedelta(days=90)
    assert before("10y", NOW) == NOW.replace(year=2016)
    assert before("1m", NOW.replace(month=3, day=31)) == NOW.replace(month=2, day=28)
    assert before("1y", NOW.replace(year=2024, month=2, day=29)) == NOW.replace(year=2023, month=2, day=28)
    assert before("9999y", NOW).year == 1
    for wrong in ("", "d", "0d", "10", "10w", "-1d", "1.5y", "99999d"):
        with pytest.raises(ValueError, match="no period"):
            period(wrong)
