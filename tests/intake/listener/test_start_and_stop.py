"""Starting with what is there, stopping with nothing half done."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ingestor.errors import ConfigurationError
from ingestor.intake.listener import spool
from ingestor.intake.listener.reception import Limits
from tests.intake.listener.client import post, sms
from tests.intake.listener.conftest import MakeStand
from tests.intake.listener.stand import AGILE, Stand

Eventually = Callable[..., None]


def test_a_taken_port_is_one_line_for_the_admin(make_stand: MakeStand) -> None:
    """The second listener on a port says which one, and what to do; nothing of it is left running."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        before = threading.active_count()
        with pytest.raises(
            ConfigurationError, match=rf"127\.0\.0\.1:{port} cannot be had .*port that nobody"
        ) as told:
            make_stand(listen=f"127.0.0.1:{port}")
        assert "\n" not in str(told.value)
        assert threading.active_count() <= before


def test_an_unusable_spool_ends_the_start(make_stand: MakeStand, tmp_path: Path) -> None:
    """A spool that can never be written is noticed before the first POST, and the port is free again."""
    (tmp_path / "spool").write_text("")
    with pytest.raises(ConfigurationError, match="spool"):
        make_stand()


def test_localhost_is_heard_on_every_address(make_stand: MakeStand) -> None:
    """A host name is bound on each of its addresses."""
    stand = make_stand(listen="localhost:0")

    assert stand.sms(1).body == b"+OK"


def test_progress_goes_on_while_nothing_arrives(stand: Stand, eventually: Eventually) -> None:
    """The watchdog is fed by finished rounds over the connections."""
    before = stand.listener.progress
    eventually(lambda: stand.listener.progress > before)


def test_counts_say_what_was_done(stand: Stand) -> None:
    """Accepted, refused by kind, and when the newest POST arrived."""
    stand.sms(1)
    stand.sms(2)
    stand.ask(post("/x", b""))

    assert stand.listener.posts.accepted == 2
    assert stand.listener.refused == {"wrong path": 1}
    assert stand.listener.posts.by_endpoint["agile-1"].newest == stand.at_hand.taken[1][0].items[0].arrived_at


def test_a_stop_answers_what_was_accepted_and_refuses_the_rest(stand: Stand, eventually: Eventually) -> None:
    """Requests in hand wait for the writer and hear +OK; idle connections end, new ones are refused."""
    idle, waiting, half = stand.client(), stand.client(), stand.client()
    half.send(post(AGILE, sms(2))[:-3])
    waiting.send(post(AGILE, sms(0)))
    assert waiting.answer().body == b"+OK"  # so what came before it has been read
    stand.at_hand.silent = True
    waiting.send(post(AGILE, sms(1)))
    eventually(lambda: len(stand.at_hand.taken) == 2)
    stopping = threading.Thread(target=stand.listener.stop)
    stopping.start()

    assert idle.rest() == b""
    half.send(post(AGILE, sms(2))[-3:])
    # From the spool: the writer is silent.
    assert [waiting.answer().body, half.answer().body] == [b"+OK", b"+OK"]
    stopping.join(30)
    assert not stopping.is_alive()
    with pytest.raises(ConnectionError):
        stand.client()
    assert spool.depth(stand.spool) == 2


def test_a_stop_takes_no_new_request_on_an_old_connection(stand: Stand, eventually: Eventually) -> None:
    """A connection whose request is answered during the stop is closed with that answer."""
    stand.at_hand.silent = True
    with stand.client() as client:
        client.send(post(AGILE, sms(1)))
        eventually(lambda: bool(stand.at_hand.taken))
        stopping = threading.Thread(target=stand.listener.stop)
        stopping.start()
        assert client.answer().headers["connection"] == "close"
        assert client.rest() == b""
        stopping.join(30)


def test_a_stop_does_not_wait_for_a_client_that_dawdles(make_stand: MakeStand) -> None:
    """A half-sent request cannot hold the daemon up: it is dropped, unacknowledged."""
    stand = make_stand(limits=Limits(request_seconds=60))
    with stand.client() as client:
        client.send(post(AGILE, sms(1))[:-1])
        assert stand.sms(2).body == b"+OK"
        stand.listener.stop(2.0)
        assert client.rest() == b""
    assert stand.listener.stop()


def test_stopping_twice_and_before_the_start_is_harmless(stand: Stand) -> None:
    """Whoever cleans up need not know how far the start came."""
    assert stand.listener.stop()
    assert stand.listener.stop()


def test_a_database_that_comes_back_after_the_stop_finds_the_spool(make_stand: MakeStand) -> None:
    """Trouble at the stop: what came in is on disk, and waits for the next start."""
    stand = make_stand()
    stand.at_hand.trouble = "down"
    for number in range(10):
        stand.sms(number)
    assert stand.listener.stop()

    assert spool.depth(stand.spool) == 10
