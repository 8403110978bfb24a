"""`ingestor status`: what it says of sources, counts, the spool and the last runs, and when it exits 1."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from ingestor.archive import tables
from ingestor.archive.engine import writing
from ingestor.archive.items import Submission
from ingestor.archive.mailbox_state import Source, kept_alive, note_source
from ingestor.archive.runs import begin_run, end_run, lease_of
from ingestor.archive.store import Store
from ingestor.cli.printing import age
from ingestor.providers.contract import Readable
from ingestor.settings import Settings
from ingestor.watch.found import SPOOL_SECONDS, Today, judge, today
from tests.archive.reading import spoil
from tests.archive.samples import PARSER, item, sms
from tests.cli.calling import Called
from tests.cli.conftest import Filled
from tests.waiting import until

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
KEEPS_A_LEASE = """
import sys, time
from ingestor.archive.engine import open_engine
from ingestor.archive.mailbox_state import kept_alive
with kept_alive(open_engine(sys.argv[1]), sys.argv[2]):
    time.sleep(60)
"""


def settings(*names: str) -> Settings:
    mailboxes = [
        {"name": name, "host": "h.example", "username": "u", "password": "abcd", "poll_seconds": 100}
        for name in names
    ]
    return Settings.model_validate({"mailbox": mailboxes})


def noted(name: str, ago: int | None, *, kind: str = "mailbox", poll: int | None = 60) -> Source:
    last = None if ago is None else NOW - timedelta(seconds=ago)
    return Source(name, kind, "watching", None, poll, last, NOW)


@pytest.mark.parametrize(
    ("configured", "sources", "late"),
    [
        (["main"], [noted("main", 299)], {"main": False}),
        (["main"], [noted("main", 301)], {"main": True}),
        (["main"], [noted("main", None)], {"main": True}),
        (["main"], [noted("main", -9)], {"main": False}),
        (["main"], [noted("main", -86_400 * 365)], {"main": True}),
        (["main", "new"], [noted("main", 0)], {"main": False, "new": True}),
        (["main"], [noted("main", 0), noted("gone", 9999)], {"main": False, "gone": False}),
        ([], [noted("main", 179)], {"main": False}),
        ([], [noted("main", 181)], {"main": True}),
        ([], [noted("hook", None, kind="webhook", poll=None)], {"hook": False}),
        ([], [], {}),
    ],
)
def test_a_source_is_late_after_three_polls(
    configured: list[str], sources: list[Source], late: dict[str, bool]
) -> None:
    """Older than three polls, or never, is late; the configured poll counts, what was dropped does not. A
    success of next year was noted before the clock was set back, and says nothing of today."""
    reports = judge(settings(*configured), sources, NOW)

    assert {report.name: report.late for report in reports} == late


@pytest.mark.parametrize(
    ("state", "detail", "late"),
    [
        ("refused", "the login", True), ("misconfigured", "ca_file", True), ("no folder", "no X", True),
        ("failing", "ValueError", True), ("watching", "there is no folder 'B'", True),
        ("watching", None, False), ("unreachable", "no route", False), ("waiting", "the archive", False),
    ],
)  # fmt: skip
def test_what_does_not_pass_by_itself_is_late_at_once(state: str, detail: str, late: bool) -> None:
    """A refused login or a missing folder, be it the second one, needs somebody now; a network may wait."""
    source = Source("main", "mailbox", state, detail, 60, NOW, NOW)

    assert [report.late for report in judge(settings("main"), [source], NOW)] == [late]


def test_an_endpoint_is_never_late_and_goes_with_its_configuration() -> None:
    """A provider may be silent for days: its row says since when, and that it is configured no more."""
    endpoint = {"path": "/a", "provider": "agile"}
    listening = Settings.model_validate({"webhook": {"endpoint": [endpoint]}})
    sources = [
        noted(f"endpoint {name}", 99999, kind="endpoint", poll=None) for name in ("agile-1", "agile-2")
    ]

    told = {report.name: (report.state, report.late) for report in judge(listening, sources, NOW)}

    assert told == {"endpoint agile-1": ("watching", False), "endpoint agile-2": ("not configured", False)}


def test_status_says_it_all(filled: Filled) -> None:
    """Sources, counts and runs, on one JSON object and in words; the exit code says that all is well."""
    note_source(filled.engine, "main", "mailbox", "watching", None, 60, datetime.now(UTC), success=True)
    called = filled.spawn("status", "--json")
    words = filled.call("status").out

    status = json.loads(called.out)

    assert (called.code, called.err) == (0, "")
    assert status["ok"] is True
    assert status["sources"][0]["name"] == "main"
    assert status["sources"][0]["age_seconds"] < 60
    assert status["counts"]["sms"] == 5
    assert status["counts"]["quarantined"] == 2
    assert [(one["count"], one["channel"]) for one in status["quarantine"]] == [(1, "import")] * 2
    assert "\nquarantined\tsource\tchannel\treason\tnewest\n1\t" in words
    run = status["runs"][0]
    assert {name: run[name] for name in ("run", "command", "read", "stored", "duplicate", "ignored")} == {
        "run": 1, "command": "import", "read": 11, "stored": 5, "duplicate": 1, "ignored": 3,
    }  # fmt: skip
    assert "5 stored + 1 duplicate + 3 ignored + 2 quarantined + 0 failed" in words
    assert "main\tmailbox\twatching" in words


def test_a_late_source_is_exit_1(filled: Filled) -> None:
    """A source that did not succeed for long makes the exit code 1, and is marked."""
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    note_source(filled.engine, "main", "mailbox", "unreachable", "no route", 60, long_ago, success=True)

    called = filled.call("status")

    assert called.code == 1
    assert "LATE\tno route" in called.out
    assert json.loads(filled.call("status", "--json").out)["ok"] is False


def test_the_first_line_says_whether_all_is_well_and_what_to_do(filled: Filled) -> None:
    """Well: since when, what came, what waits. Not well: what it is, and what to do about it."""
    note_source(filled.engine, "main", "mailbox", "watching", None, 60, datetime.now(UTC), success=True)
    first = filled.call("status").out.splitlines()[0]
    assert re.fullmatch(r"All is well: 0 SMS today(, usually 0 by now)?; nothing waits\.", first), first

    note_source(
        filled.engine, "main", "mailbox", "refused", "the login", 60, datetime.now(UTC), success=False
    )
    called = filled.call("status")
    assert called.code == 1
    assert called.out.startswith(
        "NOT well: mailbox main: refused (the login). To do: mend its password, then `systemctl reload"
    )
    told = json.loads(filled.call("status", "--json").out)
    assert (told["ok"], told["troubles"][0]["condition"]) == (False, "login refused")
    assert told["sentence"] == called.out.splitlines()[0]


def test_a_full_disk_is_exit_1_at_once(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that cannot write cannot say so either: the disk is looked at; little space is a warning."""
    usage = shutil.disk_usage(filled.folder)._replace(free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    full = filled.call("status")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100 * 2**20))
    scarce = filled.call("status")

    assert full.code == 1
    assert re.match(r"NOT well: disk of /\S+: full\. To do: make room\. ", full.out)
    assert scarce.code == 0
    assert "only 100 MiB free; make room\n" in scarce.out


def test_monitor_speaks_as_nagios_does(filled: Filled, called: Callable[..., Called]) -> None:
    """One line with data behind a bar, and the codes 0 to 3; the first bar is the data's."""
    now = datetime.now(UTC)
    note_source(filled.engine, "main", "mailbox", "watching", None, 60, now, success=True)
    well = filled.call("status", "--monitor")
    note_source(filled.engine, "main", "mailbox", "refused", "a|b", 60, now, success=False)
    bad = filled.call("status", "--monitor")
    none = called("--database-url", f"sqlite:///{filled.folder}/none.db", "status", "--monitor")
    (filled.folder / "wrong.toml").write_text("nothing = 1\n")
    wrong = called("--config", filled.folder / "wrong.toml", "status", "--monitor")

    assert well.code == 0
    assert re.fullmatch(
        r"INGESTOR OK - All is well: [^|]* \| sms_today=0 spool=0 quarantined=2 pending=0 troubles=0\n",
        well.out,
    ), well.out
    assert bad.code == 2
    assert bad.out.startswith("INGESTOR CRITICAL - NOT well: mailbox main: refused (a/b).")
    assert (none.code, none.out[:20]) == (2, "INGESTOR CRITICAL - ")
    assert (wrong.code, wrong.out[:19]) == (3, "INGESTOR UNKNOWN - ")


def test_today_is_held_against_the_usual(filled: Filled) -> None:
    """Usual is the median of the same hours of fourteen days; a young archive has none."""
    noon = datetime(2026, 3, 20, 12, tzinfo=UTC)
    midnight = noon.replace(hour=0)
    assert today(filled.engine, midnight - timedelta(days=14), noon - timedelta(days=14)).usual is None
    received = [midnight - timedelta(days=day) + timedelta(hours=1) for day in range(16) for _ in range(3)]
    received += [noon + timedelta(minutes=1), midnight - timedelta(days=3) + timedelta(hours=13)]
    items = [
        item(1000 + number, reading=Readable(sms(1000 + number, received_at=moment), PARSER))
        for number, moment in enumerate(received)
    ]
    Store(filled.engine).write([Submission(None, tuple(items))], noon)

    assert today(filled.engine, midnight, noon) == Today(3, 3)


def test_a_database_that_refuses_every_item_is_exit_1(filled: Filled, called: Callable[..., Called]) -> None:
    """Nothing was stored since the first refusal: the tables are wrong, whatever the sources say."""
    refuse_all(filled)
    answer = filled.call("status")
    assert answer.code == 1
    assert "refused by the database" in answer.out
    assert "NOTHING WAS STORED SINCE" in answer.out
    told = json.loads(filled.call("status", "--json").out)
    assert (told["ok"], told["refused"]["count"], told["refused"]["every"]) == (False, 3, True)


def test_an_import_into_such_a_database_is_exit_1(filled: Filled, tmp_path: Path) -> None:
    """It kept everything in the quarantine, and says what to do."""
    refuse_all(filled)
    for name in CASES:
        shutil.copy(Path(__file__).parent.parent / "cases" / name, tmp_path)
    answer = filled.call("import", *CASES)
    assert answer.code == 1
    assert f"{len(CASES)} quarantined" in answer.out
    assert "the database refuses every item" in answer.err
    assert "ingestor quarantine retry" in answer.err


CASES = ["qp-encoded-cr-before-break.eml", "gb2312-is-gbk.eml"]


def refuse_all(filled: Filled) -> None:
    """Let the archive refuse three SMS, as one with a wrong constraint does."""
    spoil(filled.engine)
    store = Store(filled.engine)
    with structlog.testing.capture_logs() as logged:
        for number in (901, 902, 903):
            assert store.write([Submission(None, (item(number),))], NOW)[0].outcomes == ("quarantined",)
    assert [line["event"] for line in logged if line["log_level"] == "error"] == [
        "the database refuses every item; they wait in the quarantine"
    ]


def test_the_spool_is_told(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    """POSTs that wait in the state directory are counted, damaged ones too."""
    spool = filled.folder / "state" / "spool"
    (spool / "corrupt").mkdir(parents=True)
    for name in ("1.post", "2.post", "3.tmp", "corrupt/0.post"):
        (spool / name).write_bytes(b"")
    monkeypatch.setenv("STATE_DIRECTORY", str(spool.parent))

    told = json.loads(filled.call("status", "--json").out)["spool"]
    assert (told["waiting"], told["corrupt"]) == (2, 1)
    assert "2 waiting (the first came just now), 1 damaged, LATE" in filled.call("status").out


@pytest.mark.parametrize(
    ("seconds", "damaged", "late"),
    [(SPOOL_SECONDS - 60, False, False), (SPOOL_SECONDS + 60, False, True), (0, True, True)],
)
def test_what_stays_in_the_spool_makes_it_exit_1(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, seconds: int, damaged: bool, late: bool
) -> None:
    """SMS that were acknowledged and are not in the archive after five minutes are somebody's business."""
    spool = filled.folder / "state" / "spool"
    (spool / "corrupt").mkdir(parents=True)
    (spool / ("corrupt/1.post" if damaged else "1.post")).touch()
    if not damaged:
        (spool / "2.post").touch()
        since = time.time() - seconds
        os.utime(spool / "1.post", (since, since))
    monkeypatch.setenv("STATE_DIRECTORY", str(spool.parent))

    called = filled.call("status")

    assert called.code == int(late)
    assert ("LATE" in called.out) is late
    told = json.loads(filled.call("status", "--json").out)
    assert (told["ok"], told["spool"]["late"]) == (not late, late)
    if not damaged:
        assert f"2 waiting (the first came {seconds // 60} minutes ago)" in called.out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "just now"), (1, "1 second ago"), (59, "59 seconds ago"), (3599, "59 minutes ago"),
     (7200, "2 hours ago"), (90000, "1 day ago"), (-5, "just now")],
)  # fmt: skip
def test_ages_are_said_in_words(seconds: int, words: str) -> None:
    """A time is told in its largest unit; a clock that runs ahead is no news from the future."""
    assert age(NOW - timedelta(seconds=seconds), NOW) == words
    assert age(None, NOW) == "never"


def test_status_without_an_archive(called: Callable[..., Called], tmp_path: Path) -> None:
    """Where no archive is, one line says so, and none is made."""
    answer = called("status")

    assert answer.code == 1
    assert answer.err.startswith(f"ingestor: there is no archive at {tmp_path}/ingestor.db; ")
    assert list(tmp_path.iterdir()) == []


def test_the_spool_is_shown_while_the_database_is_away(
    tmp_path: Path, called: Callable[..., Called], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many POSTs wait is known from the folder alone, and said before the fault."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / f"{1:020d}-{'c' * 32}.post").touch()
    answer = called("--database-url", "postgresql+psycopg://nobody@127.0.0.1:1/none", "status")
    assert answer.code == 1
    assert answer.out == "spool  1 waiting (the first came just now)\n"
    assert "127.0.0.1" in answer.err


def test_a_killed_import_stands_as_stopped_with_what_to_do(filled: Filled) -> None:
    """While it lives it is running; killed it still holds its lease, and is stopped once that has run out."""
    run = begin_run(filled.engine, "import", {}, NOW)

    def shown() -> tuple[str, str]:
        called = filled.call("status", "--json")
        (state,) = [one["state"] for one in json.loads(called.out)["runs"] if one["run"] == run]
        lines = filled.call("status").out.splitlines()
        (took,) = [line.split("\t")[3] for line in lines if line.startswith(f"{run}\timport\t")]
        return state, took

    assert shown() == ("stopped", f"stopped; import --resume {run}")  # never held one: of an earlier version
    process = subprocess.Popen([sys.executable, "-c", KEEPS_A_LEASE, filled.url, lease_of(run)])
    try:
        until(lambda: shown() == ("running", "running"), "the lease of the living")
    finally:
        process.kill()
        process.wait()
    with writing(filled.engine) as connection:
        connection.execute(tables.leases.update().values(expires_at=NOW))
    assert shown() == ("stopped", f"stopped; import --resume {run}")
    with kept_alive(filled.engine, lease_of(run)):
        until(lambda: shown()[0] == "running", "the resumed import")
    assert shown()[0] == "stopped"  # as by Ctrl-C, at once
    end_run(filled.engine, run, NOW + timedelta(seconds=5))
    assert shown() == ("ended", "5 s")
