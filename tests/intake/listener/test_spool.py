"""The spool: files that are whole or not there, in the order of arrival, each replayed once."""

import hashlib
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from ingestor.archive.items import Receipt
from ingestor.errors import ConfigurationError
from ingestor.intake.listener import spool
from ingestor.intake.listener.posts import ReceivedPost
from ingestor.intake.listener.reception import Limits
from ingestor.providers.contract import Post
from ingestor.record import Outcome
from tests.intake.listener.client import post, sms
from tests.intake.listener.conftest import MakeStand
from tests.intake.listener.stand import INFOBIP, SECRET, Stand, finish

ARRIVED = datetime(2026, 11, 22, 8, tzinfo=UTC)
Eventually = Callable[..., None]


def _received(number: int = 0, body: bytes = b"body", query: bytes = b"") -> ReceivedPost:
    arrived = ARRIVED + timedelta(microseconds=number)
    post = Post(body, query, "text/plain; charset=x\xff", arrived, "gzip" if number else "")
    return ReceivedPost(number.to_bytes(16), "agile-1", "agile", "192.0.2.1", post)


def _texts(stand: Stand) -> list[str]:
    return [
        item.reading.sms.text  # type: ignore[union-attr]  # these are readable
        for submission, _ in stand.at_hand.taken
        for item in submission.items
    ]


@given(body=st.binary(), query=st.binary())
def test_a_spool_file_gives_the_post_back_whole(body: bytes, query: bytes) -> None:
    """Everything a replay needs survives: bytes, content type, peer, endpoint, time and UUID."""
    received = _received(7, body, query)

    assert spool.unpack(spool.pack(received)) == received


@given(data=st.data())
def test_any_damage_is_noticed(data: st.DataObject) -> None:
    """A file that is cut off, or has one byte changed, is corrupt and nothing else."""
    content = spool.pack(_received(1, b"originator=1", b"a=b"))
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = data.draw(
        st.sampled_from(
            [content[:place], content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]]
        )
    )
    with pytest.raises(spool.Corrupt):
        spool.unpack(damaged)


def test_names_are_in_the_order_of_arrival(tmp_path: Path) -> None:
    """Sorting the names is sorting by time, whatever the UUIDs are."""
    spool.prepare(tmp_path)
    posts = [_received(number) for number in (5, 300, 20, 1_000_000)]
    spool.store(tmp_path, posts)

    order = [spool.read(tmp_path, name).identity for name in spool.names(tmp_path)]
    assert order == [number.to_bytes(16) for number in (5, 20, 300, 1_000_000)]
    assert spool.depth(tmp_path) == 4


def test_only_the_service_user_can_read_the_spool(tmp_path: Path) -> None:
    """Spooled files are message texts: nobody else reads them."""
    directory = tmp_path / "spool"
    spool.prepare(directory)
    [name] = spool.store(directory, [_received()])

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / str(name)).stat().st_mode) == 0o600


def test_each_file_and_the_folder_are_synced_before_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync of the content before its rename, and of the folder after the last rename."""
    spool.prepare(tmp_path)
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    spool.store(tmp_path, [_received(1), _received(2)])

    assert done == ["file", "rename", "file", "rename", "folder"]


def test_what_a_crash_left_unfinished_is_swept(tmp_path: Path) -> None:
    """A temp file was never acknowledged; whole files stay."""
    spool.prepare(tmp_path)
    spool.store(tmp_path, [_received()])
    (tmp_path / "00000000000000000001-aa.post.tmp").write_bytes(b"half")

    spool.prepare(tmp_path)

    assert len(list(tmp_path.iterdir())) == 1


def test_a_spool_that_can_never_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    """A file in the place of the folder ends the start with one line that names it."""
    (tmp_path / "spool").write_text("")

    with pytest.raises(ConfigurationError, match=r"spool .* cannot be written"):
        spool.prepare(tmp_path / "spool")


def test_a_writer_in_trouble_means_the_spool_at_once(stand: Stand, eventually: Eventually) -> None:
    """While the database is known to be gone nobody waits 5 s: spooled, answered, replayed in order."""
    stand.at_hand.trouble = "down"
    for number in range(30):
        assert stand.sms(number).body == b"+OK"
    assert spool.depth(stand.spool) == 30
    assert stand.listener.keeper.depth == 30
    assert stand.at_hand.taken == []

    stand.at_hand.trouble = None
    eventually(lambda: stand.listener.keeper.depth == 0)

    assert _texts(stand) == [f"message {number}" for number in range(30)]
    assert spool.names(stand.spool) == []


def test_a_silent_writer_is_given_up_and_takes_nothing_twice(
    make_stand: MakeStand, eventually: Eventually
) -> None:
    """What the writer has not begun is taken back, spooled, answered; later it is replayed, once."""
    stand = make_stand(limits=Limits(writer_seconds=0.3))
    stand.at_hand.silent = True
    assert stand.sms(1).body == b"+OK"
    eventually(lambda: len(stand.at_hand.taken) == 2)
    assert spool.depth(stand.spool) == 1  # until the replay is durable too
    finish(*stand.at_hand.taken[1])
    eventually(lambda: stand.listener.keeper.depth == 0)

    (_, first), (second, _) = stand.at_hand.taken
    assert not first.set_running_or_notify_cancel()
    assert [item.number for item in second.items] == [0]


def test_what_the_writer_still_holds_is_not_replayed_beside_it(
    make_stand: MakeStand, eventually: Eventually
) -> None:
    """A submission the writer has begun stays its own: when it commits after all, the file goes."""
    stand = make_stand(limits=Limits(writer_seconds=0.3))
    stand.at_hand.silent = stand.at_hand.begins = True
    assert stand.sms(1).body == b"+OK"
    [(submission, future)] = stand.at_hand.taken
    assert stand.listener.keeper.depth == 1

    stand.at_hand.silent = False
    future.set_result(Receipt((Outcome.STORED,) * len(submission.items)))
    eventually(lambda: spool.depth(stand.spool) == 0)

    assert len(stand.at_hand.taken) == 1
    eventually(lambda: stand.listener.keeper.depth == 0)


def test_a_replay_that_fails_keeps_its_file(stand: Stand, eventually: Eventually) -> None:
    """A replayed POST that the writer cannot write stays in the spool, and those behind it go on."""
    stand.at_hand.trouble = "down"
    for number in range(3):
        stand.sms(number)
    stand.at_hand.silent = True
    stand.at_hand.trouble = None
    eventually(lambda: len(stand.at_hand.taken) == 3)
    (_, failing), *others = stand.at_hand.taken
    failing.set_exception(RuntimeError("a fault of the program"))
    for one in others:
        finish(*one)
    eventually(lambda: stand.listener.keeper.depth == 1)

    [name] = spool.names(stand.spool)
    assert spool.read(stand.spool, name).post.body == sms(0)


def test_a_writer_that_refuses_means_the_spool(stand: Stand, eventually: Eventually) -> None:
    """A writer that is stopping raises: the POST is spooled all the same, and answered."""
    stand.at_hand.error = RuntimeError("stopping")
    assert stand.sms(1).body == b"+OK"
    assert spool.depth(stand.spool) == 1


def test_a_restart_replays_what_waits(make_stand: MakeStand, eventually: Eventually) -> None:
    """Acknowledged from the spool, stopped, started again: each is submitted once, under its first UUID."""
    first = make_stand()
    first.at_hand.trouble = "down"
    for number in range(5):
        first.sms(number)
    first.ask(post(INFOBIP, b'{"results": [{}, {}]}'))
    assert first.stop()
    identities = [spool.read(first.spool, name).identity for name in spool.names(first.spool)]

    second = make_stand()
    eventually(lambda: second.listener.keeper.depth == 0)

    submitted = [submission.items for submission, _ in second.at_hand.taken]
    assert [items[0].content_key for items in submitted] == identities
    assert [len(items) for items in submitted] == [1, 1, 1, 1, 1, 2]


def test_a_file_that_cannot_be_removed_is_tried_again(
    stand: Stand, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder was made read-only meanwhile: the thread failed over it, and nobody looked at it again."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == spool.ENDING:
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    unlink = Path.unlink
    monkeypatch.setattr("ingestor.intake.listener.replay._SECONDS_AFTER_FAILURE", 0.1)
    monkeypatch.setattr(Path, "unlink", refuse)
    stand.at_hand.trouble = "down"
    stand.sms(1)
    stand.at_hand.trouble = None
    eventually(lambda: len(stand.at_hand.taken) > 1)
    assert spool.depth(stand.spool) == 1
    monkeypatch.setattr(Path, "unlink", unlink)
    eventually(lambda: stand.listener.keeper.depth == 0 and spool.depth(stand.spool) == 0)


def test_a_replay_reads_by_the_rules_of_its_day(make_stand: MakeStand, eventually: Eventually) -> None:
    """The raw POST is parsed again; arrival time, peer and endpoint are those of its arrival."""
    stand = make_stand()
    stand.at_hand.trouble = "down"
    stand.sms(1)
    [name] = spool.names(stand.spool)
    received = spool.read(stand.spool, name)
    stand.at_hand.trouble = None
    eventually(lambda: bool(stand.at_hand.taken))

    item = stand.at_hand.taken[0][0].items[0]
    assert (item.arrived_at, item.peer, item.source) == (received.post.arrived_at, "127.0.0.1", "agile-1")


def test_corrupt_files_are_set_aside_and_the_rest_goes_on(
    make_stand: MakeStand, eventually: Eventually
) -> None:
    """A damaged file is moved to `corrupt`, said once, counted, and stops nobody."""
    stand = make_stand()
    stand.at_hand.trouble = "down"
    for number in range(3):
        stand.sms(number)
    stand.stop()
    damaged = stand.spool / spool.names(stand.spool)[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])

    with structlog.testing.capture_logs() as lines:
        again = make_stand()
        eventually(lambda: again.listener.keeper.depth == 0)

    assert _texts(again) == ["message 0", "message 2"]
    assert spool.corrupt(again.spool) == 1
    assert [line["file"] for line in lines if "corrupt" in line["event"]] == [damaged.name]


def test_the_spool_says_when_it_begins_and_when_it_is_over(stand: Stand, eventually: Eventually) -> None:
    """One line at the first spooled POST, one when the last is replayed; no number, text or path."""
    with structlog.testing.capture_logs() as lines:
        stand.at_hand.trouble = "down"
        for number in range(20):
            stand.sms(number)
        stand.at_hand.trouble = None
        eventually(lambda: lines[-1]["event"] == "the spool is empty again")

    events = [line["event"] for line in lines if line["event"] != "POSTs read"]
    assert events == ["POSTs go to the spool", "the spool is empty again"]
    assert lines[-1]["posts"] == 20
    assert stand.listener.keeper.depth == 0
    assert SECRET not in repr(lines)


def test_when_both_fail_there_is_no_ok(stand: Stand) -> None:
    """Neither database nor spool: 503, and the provider will try again; afterwards all is well."""
    stand.at_hand.trouble = "down"
    stand.spool.rename(stand.spool.with_name("elsewhere"))
    answer = stand.sms(1)
    assert (answer.status, answer.body) == (503, b"")
    assert stand.listener.keeper.trouble is not None

    stand.spool.with_name("elsewhere").rename(stand.spool)
    assert stand.sms(1).body == b"+OK"
    assert stand.listener.keeper.trouble is None


def test_agile_hears_something_whatever_hangs(make_stand: MakeStand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer and a disk that both hang for ever still end in a 503, and in time."""
    stand = make_stand(limits=Limits(writer_seconds=0.2, answer_seconds=0.6))
    stand.at_hand.silent = True
    released = Event()

    def hanging(*_: object) -> list[object]:
        released.wait(30)
        return []

    monkeypatch.setattr(spool, "store", hanging)
    assert stand.sms(1).status == 503
    released.set()


@pytest.mark.parametrize("about", [b"not json", b"[]", b"{}", b'{"query": "x", "body": 3}'])
def test_content_of_another_kind_is_set_aside(
    make_stand: MakeStand, eventually: Eventually, about: bytes
) -> None:
    """A file that is whole, but says nothing this program understands, is set aside like a damaged one."""
    folder = make_stand().spool
    rest = about + b"\nabc"
    content = b"ingestor spool 1\n" + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest
    (folder / f"{1:020d}-{'c' * 32}{spool.ENDING}").write_bytes(content)
    again = make_stand()
    eventually(lambda: spool.corrupt(folder) == 1)
    eventually(lambda: again.listener.keeper.depth == 0)
