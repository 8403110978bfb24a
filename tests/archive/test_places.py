"""The place of an imported mail: what makes two copies two arrivals, and one read again none."""

from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from ingestor.archive.engine import reading
from ingestor.archive.items import Item, Position, Submission
from ingestor.archive.queries import copies_before, raw_of_arrival, show
from ingestor.archive.rows import NO_PLACE, place_of
from ingestor.archive.store import Store
from ingestor.record import Channel
from tests.archive.reading import number_of, one, rows
from tests.archive.samples import NOW, broken, item

KEY = bytes(range(32))
names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="/\0:;!"), min_size=1)
flags = st.text("PRSTDFabz")


def at(number: int, path: str, *, copy: int = 0, unreadable: bool = False) -> Item:
    """Return mail `number` as an import finds it at `path`."""
    mail = (broken if unreadable else item)(number, raw=b"mail %d" % number)
    return mail._replace(position=Position(input=path, offset=100 * copy, length=7, copy=copy), peer=None)


def write(engine: Engine, *items: Item) -> list[str]:
    """Write items in a transaction of their own; return their outcomes."""
    [receipt] = Store(engine).write([Submission(None, items)], NOW)
    return [str(outcome) for outcome in receipt.outcomes]


@given(folder=names, name=names, was=flags, then=flags, mark=st.sampled_from(":!;"))
def test_a_maildirs_mail_keeps_its_place(folder: str, name: str, was: str, then: str, mark: str) -> None:
    """Read, flagged and moved from `new` to `cur` it is the same, in a folder and in an archive of one."""
    first = place_of(KEY, f"/{folder}/new/{name}", None, 0)
    assert place_of(KEY, f"/{folder}/cur/{name}{mark}2,{was}", None, 0) == first
    member = place_of(KEY, "/old.tar", f"{folder}/cur/{name}:2,{was}", 0)
    assert place_of(KEY, "/old.tar", f"{folder}/cur/{name}:2,{then}", 0) == member != first


@given(st.lists(st.tuples(names, st.none() | names, st.integers(0, 3)), unique=True, min_size=2, max_size=20))
def test_other_places_differ(places: list[tuple[str, str | None, int]]) -> None:
    """File, member and number among equal ones each tell places apart; so does the archive's key."""
    hashes = [place_of(KEY, f"/{path}", member, copy) for path, member, copy in places]
    assert len(set(hashes)) == len(places)
    assert {len(one) for one in hashes} == {16}
    assert place_of(KEY[::-1], f"/{places[0][0]}", *places[0][1:]) not in hashes


def test_each_place_is_an_arrival_once_and_the_bytes_are_kept_once(archive_engine: Engine) -> None:
    """A copy at another place is a duplicate with a row of its own; the same places again add nothing."""
    found = [at(1, "/a"), at(1, "/a", copy=1), at(1, "/b"), at(2, "/b")]
    assert write(archive_engine, *found) == ["stored", "duplicate", "duplicate", "stored"]
    assert write(archive_engine, *found) == ["duplicate"] * 4
    assert write(archive_engine, at(1, "/c"), at(1, "/c")) == ["duplicate"] * 2
    assert rows(archive_engine, "SELECT arrivals FROM inbound_sms ORDER BY id") == [(4,), (1,)]
    assert number_of(archive_engine, "payloads") == number_of(archive_engine, "inbound_sms") == 2
    assert rows(
        archive_engine,
        "SELECT input, byte_offset, outcome, payload_id FROM arrivals_detail WHERE sms_id = 1 ORDER BY id",
    ) == [
        ("/a", 0, "stored", 1),
        ("/a", 100, "duplicate", 1),
        ("/b", 0, "duplicate", 1),
        ("/c", 0, "duplicate", 1),
    ]
    evidence = show(archive_engine, 1)
    assert evidence is not None
    for arrival in evidence.arrivals:
        assert raw_of_arrival(archive_engine, arrival["id"]) == b"mail 1"
        assert arrival["payload_size"] == 6


def test_what_is_read_again_in_a_mailbox_has_not_arrived_again(archive_engine: Engine) -> None:
    """A rescan and a new UIDVALIDITY add none: there the place is always the same."""

    def seen(uidvalidity: int) -> Item:
        return item(1, channel=Channel.MAILBOX)._replace(
            position=Position(folder="INBOX", uidvalidity=uidvalidity, uid=uidvalidity)
        )

    assert write(archive_engine, seen(1), seen(2)) == ["stored", "duplicate"]
    assert write(archive_engine, seen(3)) == ["duplicate"]
    assert rows(archive_engine, "SELECT place FROM arrivals") == [(NO_PLACE,)]


def test_what_cannot_be_read_stands_in_the_quarantine_once(archive_engine: Engine) -> None:
    """Wherever else it lies; when it can be read, its other places are arrivals like any other's."""
    everywhere = [at(1, "/a", unreadable=True), at(1, "/b", unreadable=True)]
    assert write(archive_engine, *everywhere) == ["quarantined"] * 2
    assert write(archive_engine, *reversed(everywhere)) == ["quarantined"] * 2
    assert number_of(archive_engine, "quarantine") == number_of(archive_engine, "arrivals") == 1
    assert write(archive_engine, at(1, "/a"), at(1, "/b")) == ["stored", "duplicate"]
    assert number_of(archive_engine, "quarantine") == 0
    assert one(archive_engine, "SELECT arrivals FROM inbound_sms") == 2
    assert write(archive_engine, at(1, "/a"), at(1, "/b")) == ["duplicate"] * 2
    assert number_of(archive_engine, "arrivals") == 2
    assert rows(archive_engine, "SELECT input, sms_id, payload_id FROM arrivals_detail ORDER BY id") == [
        ("/a", 1, 1), ("/b", 1, 1),
    ]  # fmt: skip


def test_an_input_that_is_read_on_knows_what_lay_before(archive_engine: Engine) -> None:
    """How many of each key lie before an offset in one input, and in no other."""
    write(archive_engine, at(1, "/a"), at(1, "/a", copy=1), at(1, "/a", copy=2), at(1, "/b"), at(2, "/a"))
    [key] = {
        bytes(key) for (key,) in rows(archive_engine, "SELECT content_key FROM arrivals WHERE sms_id = 1")
    }
    found = dict(copies_before(archive_engine, "/a", None, 200))
    assert found[key] == 2
    assert sorted(found.values()) == [1, 2]
    assert list(copies_before(archive_engine, "/a", "member", 200)) == []


@pytest.mark.postgresql
def test_two_imports_of_one_file_at_once_add_one_row_a_place(postgresql_engine: Engine) -> None:
    """The unique key judges, whoever comes first: the second waits for the first one's commit."""
    found = [at(number, "/a", copy=copy) for number in range(30) for copy in range(3)]
    threads = [Thread(target=write, args=(postgresql_engine, *found)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert number_of(postgresql_engine, "arrivals") == 90
    assert number_of(postgresql_engine, "payloads") == 30
    with reading(postgresql_engine) as connection:
        assert connection.exec_driver_sql("SELECT count(DISTINCT place) FROM arrivals").scalar() == 3
