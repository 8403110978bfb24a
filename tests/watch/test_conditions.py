"""Conditions: told once when they begin and once when they are over, whatever flaps, restarts or dies."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from ingestor.archive.engine import open_engine
from ingestor.archive.mailbox_state import note_source
from ingestor.archive.migrate import ensure_schema
from ingestor.errors import ArchiveUnavailable
from ingestor.settings import Settings
from ingestor.watch import watcher
from ingestor.watch.conditions import Condition, Key, load, step
from ingestor.watch.found import Live
from ingestor.watch.notices import NotSent
from ingestor.watch.troubles import Trouble, of_commits
from ingestor.watch.watcher import Watcher
from tests.servers.postgresql import PostgresqlServer
from tests.waiting import until

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AGE = timedelta(minutes=5)
WRONG = Trouble("disk", "disk of /x", "full", "make room")


def _told(seen: Sequence[bool], seconds: float) -> list[str]:
    """Return the messages while a trouble is there or not at looks `seconds` apart."""
    known: dict[Key, Condition] = {}
    messages = []
    for number, wrong in enumerate(seen):
        now = NOW + timedelta(seconds=number * seconds)
        known = step(known, [WRONG] if wrong else [], now, AGE, ["mail"])
        for key, one in known.items():
            if one.owed:
                messages.append(one.state)
                known[key] = Condition(
                    *key, one.state, one.says, one.fix, one.grave, one.began_at, one.gone_at
                )
    return messages


def test_one_that_lasts_is_told_once_and_once_more_when_it_is_over() -> None:
    """Shorter than the minimum age it is nobody's business."""
    assert _told([True] * 9 + [False] * 30, 30) == []
    assert _told([True] * 30 + [False] * 30, 30) == ["told", "over"]
    assert _told([True] * 200, 30) == ["told"]


def test_a_clock_that_is_set_back_keeps_nothing_untold() -> None:
    """What began, or was over, a year from now by the clock of before is told in its five minutes."""
    known = step({}, [WRONG], NOW + timedelta(days=365), AGE, ["mail"])
    for minutes in (0, 4, 5):
        known = step(known, [WRONG], NOW + timedelta(minutes=minutes), AGE, ["mail"])
    [one] = known.values()
    assert (one.state, one.owed) == ("told", ("mail",))

    known = step({one.key: replace(one, owed=())}, [], NOW + timedelta(days=365), AGE, ["mail"])
    for minutes in (6, 10, 11):
        known = step(known, [], NOW + timedelta(minutes=minutes), AGE, ["mail"])
    assert [one.state for one in known.values()] == ["over"]


def test_a_hundred_times_an_hour_is_two_messages() -> None:
    """Every 36 seconds it comes or goes, and then it is gone for good."""
    flapping = [bool(number % 2) for number in range(200)]

    assert _told(flapping + [False] * 40, 18) == ["told", "over"]


@given(st.lists(st.booleans(), max_size=240))
def test_beginnings_and_ends_take_turns(seen: list[bool]) -> None:
    """No end without a beginning, none twice, and never more than the minimum age allows for."""
    messages = _told(seen, 30)

    assert messages == [("told", "over")[number % 2] for number in range(len(messages))]
    assert len(messages) <= len(seen) * 30 / AGE.total_seconds() + 1


def test_what_could_not_be_looked_at_stays() -> None:
    """A database that is away says nothing of the quarantine, neither good nor bad."""
    known = step({}, [WRONG], NOW, AGE, ["mail"])

    assert step(known, [], NOW + timedelta(hours=1), AGE, ["mail"], {"disk"}) == known


class Clock:
    """A clock that a test moves, and what the channels were told."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.now, self.heard, self.engine = datetime.now(UTC), list[str](), engine
        settings = Settings.model_validate(
            {"database": {"url": f"sqlite:///{folder}/none.db"}, "mailbox": [
                {"name": "main", "host": "h.example", "username": "u", "password": "abcd"}]}
        )  # fmt: skip
        self.live = Live(settings)
        self.live.writer = cast("Any", SimpleNamespace(trouble=None, queued=0))
        self.mailbox("watching")

    def mailbox(self, state: str) -> None:
        note_source(self.engine, "main", "mailbox", state, None, 60, self.now, success=state == "watching")

    def send(self, told: list[Condition], host: str, now: datetime) -> None:
        self.heard += [f"{one.state} {one.subject}" for one in told]

    def daemon(self, host: str = "one", **channels: watcher.Send) -> Watcher:
        return Watcher(
            self.live, self.engine, channels or {"mail": self.send}, host=host, clock=lambda: self.now
        )

    def later(self, *daemons: Watcher, minutes: float = 6) -> None:
        self.now += timedelta(minutes=minutes)
        for one in daemons:
            one.look()


@pytest.fixture
def clock(archive_engine: Engine, tmp_path: Path) -> Clock:
    """An archive on each database, with a mailbox that is read."""
    return Clock(archive_engine, tmp_path)


def test_a_restart_in_between_tells_none_twice(clock: Clock) -> None:
    """What was told stands in SQL: the next daemon goes on where the last one ended."""
    clock.mailbox("refused")
    first = clock.daemon()
    first.look()
    assert clock.heard == []
    clock.later(first)
    assert clock.heard == ["told mailbox main"]

    clock.later(clock.daemon())
    clock.mailbox("watching")
    second = clock.daemon()
    clock.later(second, minutes=0)
    clock.mailbox("watching")
    assert clock.heard == ["told mailbox main"]
    clock.now += AGE
    clock.mailbox("watching")
    clock.later(clock.daemon(), minutes=0)
    assert clock.heard == ["told mailbox main", "over mailbox main"]
    clock.later(clock.daemon(), minutes=0)
    assert len(clock.heard) == 2
    assert load(clock.engine, "one") == {}


@pytest.mark.parametrize("state", ["due", "planned", "done"])
def test_what_is_due_and_stays_is_told(clock: Clock, state: str) -> None:
    """More is kept than [retention] says, and the daemon may not erase it: to look at, never grave."""
    detail = "due: 3 SMS and 0 of the quarantine; retention.apply is false, so they stay"
    note_source(clock.engine, "retention", "retention", state, detail, None, clock.now, success=True)
    daemon = clock.daemon()
    daemon.look()
    clock.mailbox("watching")
    clock.later(daemon)
    told = [one for one in load(clock.engine, "one").values() if one.condition == "retention due"]

    assert [(one.subject, one.says, one.grave) for one in told] == [("retention", detail, False)][
        : state == "due"
    ]
    assert ("told retention" in clock.heard) is (state == "due")


def test_a_death_while_telling_tells_none_twice(clock: Clock) -> None:
    """It is written down before it leaves: a kill in the middle may cost the message, never double it."""

    def dies(told: list[Condition], host: str, now: datetime) -> None:
        clock.send(told, host, now)
        raise KeyboardInterrupt

    clock.mailbox("refused")
    dying = clock.daemon(mail=dies)
    dying.look()
    with pytest.raises(KeyboardInterrupt):
        clock.later(dying)
    clock.later(clock.daemon())

    assert clock.heard == ["told mailbox main"]


def test_two_daemons_of_one_archive_tell_once(clock: Clock) -> None:
    """Each looks for itself; whoever takes the message in the database sends it."""
    clock.mailbox("refused")
    one, two = clock.daemon("one"), clock.daemon("two")
    clock.later(one, two)
    clock.later(one, two)
    clock.later(two, one)

    assert clock.heard == ["told mailbox main"]


def test_a_channel_that_fails_is_tried_again_alone(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mail server is away: it hears later, once; the webhook, which heard, does not hear again."""
    hooked, away = list[str](), [True]

    def mail(told: list[Condition], host: str, now: datetime) -> None:
        if away[0]:
            raise NotSent("away")
        clock.send(told, host, now)

    def hook(told: list[Condition], host: str, now: datetime) -> None:
        hooked.extend(one.state for one in told)

    monkeypatch.setattr(watcher, "pauses", lambda *_: iter([0.0] * 9))
    clock.mailbox("refused")
    daemon = clock.daemon(mail=mail, hook=hook)
    daemon.look()
    clock.later(daemon)
    clock.later(clock.daemon(mail=mail, hook=hook))
    away[0] = False
    clock.later(daemon, daemon)

    assert (clock.heard, hooked) == (["told mailbox main"], ["told"])


def test_a_database_that_is_away_is_told_all_the_same(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """From memory, once; and when it is back, what was told while it was away stands in SQL."""
    daemon = clock.daemon()
    daemon.look()

    def gone(*_: object) -> Any:
        raise ArchiveUnavailable("down")

    clock.live.writer = cast("Any", SimpleNamespace(trouble="down", queued=0))
    with monkeypatch.context() as away:
        for name in ("load", "save", "claim"):
            away.setattr(watcher, name, gone)
        daemon.look()
        clock.later(daemon, daemon)
        assert clock.heard == ["told archive"]
    clock.mailbox("watching")
    daemon.look()
    assert [one.state for one in load(clock.engine, "one").values()] == ["told"]
    clock.live.writer = cast("Any", SimpleNamespace(trouble=None, queued=0))
    daemon.look()
    clock.mailbox("watching")
    clock.later(daemon)

    assert clock.heard[:2] == ["told archive", "over archive"]


@pytest.mark.postgresql
def test_commits_that_wait_for_a_standby_are_told_of(
    own_postgresql: PostgresqlServer, tmp_path: Path
) -> None:
    """The watch's own writes wait for none, be they the first or not: what is told stands there, and once."""
    engine = open_engine(own_postgresql.url("archive"))
    ensure_schema(engine, auto_upgrade=True)
    clock = Clock(engine, tmp_path)
    clock.mailbox("refused")
    daemon = clock.daemon()
    daemon.look()
    own_postgresql.wait_for_standby("gone")
    somebody = Thread(target=clock.mailbox, args=("refused",))
    try:
        looking = Thread(target=clock.later, args=(daemon,), daemon=True)
        looking.start()
        looking.join(30)
        assert clock.heard == ["told mailbox main"]
        assert [one.state for one in load(engine, "one").values()] == ["told"]
        somebody.start()
        until(lambda: of_commits(engine, 0.0), "the commit that waits")
        clock.later(daemon)
        clock.later(daemon, minutes=7)
        assert clock.heard == ["told mailbox main", "told archive"]
    finally:
        own_postgresql.wait_for_standby("")
        somebody.join(10)
    clock.later(daemon, minutes=0)
    assert {one.state for one in load(engine, "one").values()} == {"told"}
    engine.dispose()
