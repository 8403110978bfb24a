"""A spool folder that somebody moves away, or puts another in the place of, under the running listener."""

import shutil
from collections.abc import Callable

from ingestor.intake.listener import spool
from tests.intake.listener.stand import Stand

Eventually = Callable[..., None]


def test_what_waits_in_a_folder_that_was_moved_away_is_replayed(stand: Stand, eventually: Eventually) -> None:
    """It was acknowledged; nothing more is, until the folder is back."""
    stand.at_hand.trouble = "down"
    assert stand.sms(1).body == b"+OK"
    stand.spool.rename(stand.spool.with_name("elsewhere"))
    assert stand.sms(2).status == 503
    stand.at_hand.trouble = None
    eventually(lambda: stand.listener.spool_depth == 0)
    assert not spool.names(stand.spool.with_name("elsewhere"))
    stand.at_hand.trouble = "down"
    stand.spool.with_name("elsewhere").rename(stand.spool)
    eventually(lambda: stand.listener.spool_trouble is None)
    assert stand.sms(3).body == b"+OK"


def test_another_folder_is_used_once_nothing_waits_in_the_old_one(
    stand: Stand, eventually: Eventually
) -> None:
    """A restart finds what is acknowledged then; before, nothing is acknowledged by the spool."""
    stand.at_hand.trouble = "down"
    assert stand.sms(1).body == b"+OK"
    stand.spool.rename(stand.spool.with_name("elsewhere"))
    stand.spool.mkdir()
    assert stand.sms(2).status == 503
    assert stand.listener.spool_trouble is not None
    stand.at_hand.trouble = None
    eventually(lambda: stand.listener.spool_trouble is None)
    stand.at_hand.trouble = "down"
    assert stand.sms(3).body == b"+OK"
    assert len(spool.names(stand.spool)) == 1


def test_a_folder_that_was_removed_is_said_so(stand: Stand, eventually: Eventually) -> None:
    """Its POSTs are gone: no +OK leaves for a file in it, and the program goes on when there is a new one."""
    stand.at_hand.trouble = "down"
    shutil.rmtree(stand.spool)
    assert stand.sms(1).status == 503
    stand.spool.mkdir()
    eventually(lambda: stand.listener.spool_trouble is None)
    assert stand.sms(1).body == b"+OK"
