"""An older copy that is put back does not bring back what was erased since it was made."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from ingestor.archive import holds
from ingestor.archive.backup import backup
from ingestor.archive.engine import open_engine, sqlite_path, writing
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.rows import number_key
from ingestor.record import Outcome
from ingestor.replies.opt_outs import Event, is_out, read_secret, write_events
from tests.archive.erasing import (
    HER,
    HIS,
    SECRET_TEXT,
    all_bytes,
    content,
    erased,
    mail,
    planned,
    post,
    write,
)
from tests.archive.reading import number_of, one, opened, rows
from tests.archive.samples import NOW, broken
from tests.archive.test_earlier_archives import put_back
from tests.archive.test_transfer import tell
from tests.cli.calling import Called
from tests.cli.conftest import called

__all__ = ["called"]


@pytest.fixture
def kept(sqlite_engine: Engine, tmp_path: Path) -> Path:
    """A backup of an archive that has her SMS and his, one of each in the quarantine."""
    write(sqlite_engine, mail(1), mail(2), mail(3, HIS), broken(4), post(5, 5))
    folder = tmp_path / "backups"
    folder.mkdir()
    return backup(sqlite_engine, folder, NOW, tell).path


def restored(engine: Engine, file: Path, called: Callable[..., Called]) -> Called:
    """Put `file` back in the place of the archive."""
    engine.dispose()
    done = called("--database-url", str(engine.url), "restore", "--replace", file)
    assert done.code == 0, done.err
    return done


def words(*numbers: int) -> list[bytes]:
    """What names her, or is said by her SMS of these numbers."""
    return [HER[3:].encode(), *(f"{SECRET_TEXT} {number}".encode() for number in numbers)]


def test_a_backup_brings_nothing_back(
    sqlite_engine: Engine, kept: Path, called: Callable[..., Called]
) -> None:
    """What the present archive has erased is nowhere in the file that takes its place, nor beside it but in
    the backup, which is named; the views tell of the erasure, another person's SMS and the rest stay."""
    erased(sqlite_engine, numbers=[HER])
    erased(sqlite_engine, quarantine=(one(sqlite_engine, "SELECT max(id) FROM quarantine"),), basis="stale")
    ledger = rows(sqlite_engine, "SELECT plan_id, basis, sms, arrivals, payloads FROM erasures_done")
    frames = [(HER[3:].encode() in kept.read_bytes()), f"{SECRET_TEXT} 1".encode() in kept.read_bytes()]

    done = restored(sqlite_engine, kept, called)

    assert frames == [True, True]
    assert "Erased in it, as in the archive before it: 3 SMS and 0 contents of other kinds. 0 SMS" in done.out
    assert f"{kept} itself holds it still" in done.out
    left = all_bytes(sqlite_engine)  # the archive, and what was there before
    assert [word for word in words(1, 2, 5) if word in left] == []
    assert HIS[3:].encode() in left
    assert rows(sqlite_engine, "SELECT plan_id, basis, sms, arrivals, payloads FROM erasures_done") == ledger
    shown = rows(sqlite_engine, "SELECT originator, erasure_basis FROM inbound_sms ORDER BY id")
    assert shown == [(None, "gdpr-art17"), (None, "gdpr-art17"), (HIS, None), (None, "gdpr-art17")]
    assert content(sqlite_engine) == [1, 1, 1, 1]
    assert number_of(sqlite_engine, "quarantine") == 0
    assert write(sqlite_engine, mail(1), broken(4)) == (Outcome.DUPLICATE, Outcome.DUPLICATE)
    assert content(sqlite_engine) == [1, 1, 1, 1]


def test_what_came_after_the_backup_and_was_erased_does_not_come_back_from_its_mailbox(
    sqlite_engine: Engine, kept: Path, called: Callable[..., Called]
) -> None:
    """Its row without content is taken over, its verdict, and its opt-out, which still blocks; another SMS
    that came since is read again as new."""
    write(sqlite_engine, mail(11), mail(32, HIS), broken(13))
    last = one(sqlite_engine, f"SELECT max(id) FROM inbound_sms WHERE originator = '{HER}'")
    with writing(sqlite_engine) as connection:
        stop = Event(HER, "*", "stop", NOW, sms_id=last)
        by_hand = Event(HER, "*", "add", NOW + timedelta(seconds=1), reason="she phoned")
        write_events(connection, read_secret(connection), [stop, by_hand], NOW)
    erased(sqlite_engine, numbers=[HER])
    erased(sqlite_engine, quarantine=(one(sqlite_engine, "SELECT max(id) FROM quarantine"),))

    done = restored(sqlite_engine, kept, called)

    assert "3 SMS and 0 contents of other kinds. 1 SMS that came after" in done.out
    assert "5 SMS are in their place again" in done.out
    assert [word for word in words(1, 2, 5, 11) if word in all_bytes(sqlite_engine)] == []
    assert rows(sqlite_engine, f"SELECT text, arrivals FROM inbound_sms WHERE id = {last}") == [(None, 1)]
    again = write(sqlite_engine, mail(11), mail(32, HIS), broken(13))
    assert again == (Outcome.DUPLICATE, Outcome.STORED, Outcome.DUPLICATE)
    assert content(sqlite_engine) == [2, 2, 3, 3]
    assert number_of(sqlite_engine, "quarantine") == 1
    assert rows(sqlite_engine, "SELECT kind, sms_id FROM consents ORDER BY kind DESC") == [
        ("stop", last),
        ("add", None),
    ]
    assert number_of(sqlite_engine, "consent_content") == 0
    with writing(sqlite_engine) as connection:
        assert is_out(connection, read_secret(connection), HER, "+390000")


def test_ids_that_were_given_out_anew_are_not_mixed_up(
    sqlite_engine: Engine, kept: Path, called: Callable[..., Called]
) -> None:
    """Where the backup had been in use the same SMS has another id in each of the two archives: hers goes in
    both, his stays, also where it has the id that hers has in the other."""
    write(sqlite_engine, mail(11), mail(32, HIS))
    aside = kept.with_name("in-use.db")
    shutil.copy(kept, aside)
    with opened(f"sqlite:///{aside}") as other:
        write(other, mail(32, HIS), mail(33, HIS), mail(11), mail(14))
        other.dispose()
    write(sqlite_engine, mail(14))
    erased(sqlite_engine, numbers=[HER])

    restored(sqlite_engine, aside, called)

    shown = rows(sqlite_engine, "SELECT originator FROM inbound_sms ORDER BY id")
    assert shown == [(None,), (None,), (HIS,), (None,), (HIS,), (HIS,), (None,), (None,)]
    path = sqlite_path(sqlite_engine.url)
    assert path is not None
    assert [word for word in words(1, 2, 5, 11, 14) if word in path.read_bytes()] == []


@pytest.mark.parametrize("kind", ["0bcd13c", "e58b20f"])
def test_a_backup_of_an_earlier_version_is_brought_up_for_it(
    sqlite_url: str, kind: str, called: Callable[..., Called], tmp_path: Path
) -> None:
    """Its schema has no place to say what was erased: it gets today's first, without a copy of it beside."""
    put_back(kind, sqlite_url, None)
    path = sqlite_path(sqlite_url)
    assert path is not None
    older = tmp_path / "older" / "archive.db"
    older.parent.mkdir()
    shutil.copy(path, older)
    assert called("--database-url", sqlite_url, "db", "upgrade").code == 0
    engine = open_engine(sqlite_url)
    number = one(engine, "SELECT min(id) FROM inbound_sms")
    [(sender, said)] = rows(engine, f"SELECT originator, text FROM inbound_sms WHERE id = {number}")
    erased(engine, sms=(number,))
    for beside in path.parent.glob("*.bak"):
        beside.unlink()

    done = restored(engine, older, called)

    assert "archive before it: 1 SMS" in done.out
    assert "the daemon's start brings it" not in done.out
    assert rows(engine, f"SELECT originator, text FROM inbound_sms WHERE id = {number}") == [(None, None)]
    assert str(said).encode() not in path.read_bytes()
    assert sender is not None
    assert [one.name for one in path.parent.glob(".*")] == []
    engine.dispose()


def test_an_archive_that_cannot_be_read_is_no_reason_for_silence(
    sqlite_engine: Engine, kept: Path, called: Callable[..., Called]
) -> None:
    """Then nobody can tell what it had erased, and that is said."""
    path = sqlite_path(sqlite_engine.url)
    assert path is not None
    sqlite_engine.dispose()
    path.write_bytes(path.read_bytes()[:100] + b"\xff" * 20_000)
    assert "What was erased since the backup nobody can tell" in restored(sqlite_engine, kept, called).out


def test_another_archive_says_nothing_of_this_one(
    sqlite_engine: Engine, kept: Path, called: Callable[..., Called], sqlite_url: str, tmp_path: Path
) -> None:
    """Where another archive was in the place its erasures are not taken for those of the backup."""
    url = f"sqlite:///{tmp_path / 'other.db'}"
    with opened(url) as other:
        assert called("--database-url", url, "db", "upgrade").code == 0
        write(other, mail(1))
        erased(other, numbers=[HER])
        assert "Erased in it" not in restored(other, kept, called).out
        assert content(other) == content(sqlite_engine)


def test_on_postgresql_the_way_leads_through_a_backup_of_what_is_there(
    postgresql_engine: Engine, called: Callable[..., Called], tmp_path: Path, postgresql_url: str
) -> None:
    """An empty database knows of no erasure: a backup of the present archive does, and what comes into its
    place goes into the empty one."""
    folder = tmp_path / "backups"
    folder.mkdir()
    write(postgresql_engine, mail(1), mail(3, HIS))
    older = backup(postgresql_engine, folder, NOW, tell).path
    write(postgresql_engine, mail(4))
    erased(postgresql_engine, numbers=[HER])
    newest = backup(postgresql_engine, folder, NOW + timedelta(days=1), tell).path

    done = called("--database-url", f"sqlite:///{newest}", "restore", "--replace", older)
    assert "archive before it: 1 SMS and 0 contents of other kinds. 1 SMS that came" in done.out, done.err
    done = called("--database-url", postgresql_url, "restore", newest)

    assert done.code == 0, done.err
    with opened(postgresql_url) as engine:
        assert write(engine, mail(1), mail(4)) == (Outcome.DUPLICATE, Outcome.DUPLICATE)
        assert content(engine) == [1, 1, 1, 1]
        assert rows(engine, "SELECT text FROM inbound_sms ORDER BY id")[0] == (None,)


def noted_by_hand(engine: Engine, *events: Event) -> None:
    """Write opt-outs down, as the commands do."""
    with writing(engine) as connection:
        write_events(connection, read_secret(connection), events, NOW)


def out_now(engine: Engine, *numbers: str) -> list[bool]:
    """Say of each number whether it may not be written to."""
    with writing(engine) as connection:
        secret = read_secret(connection)
        return [is_out(connection, secret, number, "+390000") is not None for number in numbers]


def test_opt_outs_noted_since_the_backup_count_in_it(
    sqlite_engine: Engine, kept: Path, called: Callable[..., Called]
) -> None:
    """By hand or by an SMS, out or in again: nobody who is out is written to. One whose SMS the backup lacks
    counts without it, and again with it once that is read; a second restore takes nothing over twice."""
    third, later = "+393335550003", NOW + timedelta(days=1)
    write(sqlite_engine, mail(31, third), mail(32, HIS))
    [(known, new)] = rows(sqlite_engine, "SELECT min(id), max(id) FROM inbound_sms")
    noted_by_hand(
        sqlite_engine,
        Event(HER, "*", "add", later, reason="she phoned"),
        Event(HER, "*", "review", later, sms_id=known, rule="perhaps"),
        Event(HIS, "*", "stop", later, sms_id=new),
        Event(third, "*", "import", NOW),
        Event(third, "*", "remove", later, reason="he wrote"),
    )

    done = restored(sqlite_engine, kept, called)

    assert "Taken over from the archive before it: 5 opt-outs or returns and 0 holds" in done.out
    assert out_now(sqlite_engine, HER, HIS, third) == [True, True, False]
    shown = "SELECT kind, sms_id, number, reason FROM opt_out_events ORDER BY number, kind"
    assert rows(sqlite_engine, shown) == [
        ("add", None, HER, "she phoned"),
        ("review", known, HER, "perhaps"),
        ("stop", None, HIS, None),
        ("import", None, third, None),
        ("remove", None, third, "he wrote"),
    ]
    assert write(sqlite_engine, mail(32, HIS)) == (Outcome.STORED,)
    again = one(sqlite_engine, "SELECT max(id) FROM inbound_sms")
    noted_by_hand(sqlite_engine, Event(HIS, "*", "stop", later, sms_id=again))
    assert "5 opt-outs or returns" in restored(sqlite_engine, kept, called).out
    assert number_of(sqlite_engine, "consents") == number_of(sqlite_engine, "consent_content") == 5


def test_holds_begun_and_ended_since_the_backup_stand_and_fall_in_it(
    sqlite_engine: Engine, called: Callable[..., Called], tmp_path: Path
) -> None:
    """A number, an SMS and an arrival are held in the restored archive though their ids differ there; what
    was let go is free; a hold on an SMS that the backup lacks is named, for nothing can be held yet."""
    write(sqlite_engine, mail(1), mail(3, HIS), broken(4))
    [key] = [number_key(HER, read_archive_key(sqlite_engine))]
    let_go = holds.add(sqlite_engine, {"sms_id": 2}, None, "until then", NOW)
    file = backup(sqlite_engine, tmp_path, NOW, tell).path
    with opened(f"sqlite:///{file}") as other:  # in use for a while: ids go another way there
        write(other, mail(40), broken(41))
        other.dispose()
    write(sqlite_engine, mail(50), mail(51))
    holds.remove(sqlite_engine, let_go, NOW + timedelta(days=1))
    quarantined = one(sqlite_engine, "SELECT max(id) FROM quarantine")
    for day, what in enumerate(({"number_key": key}, {"sms_id": 2}, {"arrival_id": quarantined}), 1):
        holds.add(sqlite_engine, what, HER if day == 1 else None, f"lawsuit {day}", NOW + timedelta(days=day))
    newest = one(sqlite_engine, "SELECT max(id) FROM inbound_sms")
    holds.add(sqlite_engine, {"sms_id": newest}, None, "too late", NOW)

    done = restored(sqlite_engine, file, called)

    assert "0 opt-outs or returns and 4 holds begun or ended" in done.out
    assert "1 holds are on what came since the backup" in done.out
    stand = [(one.number, one.sms_id, one.arrival_id, one.reason) for one in holds.listed(sqlite_engine)]
    assert stand == [
        (HER, None, None, "lawsuit 1"), (None, 2, None, "lawsuit 2"), (None, None, quarantined, "lawsuit 3")
    ]  # fmt: skip
    assert not planned(sqlite_engine, numbers=[HER]).batches
    assert "0 opt-outs or returns and 4 holds" in restored(sqlite_engine, file, called).out
    assert [one.reason for one in holds.listed(sqlite_engine)] == ["lawsuit 1", "lawsuit 2", "lawsuit 3"]


def test_where_nothing_was_decided_since_nothing_is_said(
    sqlite_engine: Engine, kept: Path, called: Callable[..., Called]
) -> None:
    """An archive that has only more SMS leaves the backup as it is, schema and all."""
    write(sqlite_engine, mail(11))
    done = restored(sqlite_engine, kept, called)
    assert "Taken over" not in done.out
    assert "Erased in it" not in done.out
