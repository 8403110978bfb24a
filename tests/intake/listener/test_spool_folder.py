"""A spool folder that somebody moves away, or puts another in the place of, under the running listener."""

import shutil
from collections.abc import Callable
from pathlib import Path

from ingestor.intake.listener import spool
from ingestor.intake.listener.spool import SpoolFolder, moved
from ingestor.service.checks import Level, machine
from tests.intake.listener.stand import Stand

Eventually = Callable[..., None]


def test_what_waits_in_a_folder_that_was_moved_away_is_replayed(stand: Stand, eventually: Eventually) -> None:
    """It was acknowledged; nothing more is, until the folder is back."""
    stand.at_hand.trouble = "down"
    assert stand.sms(1).body == b"+OK"
    stand.spool.rename(stand.spool.with_name("elsewhere"))
    assert stand.sms(2).status == 503
    said = moved(stand.spool)
    assert said is not None
    assert "1 acknowledged POSTs wait" in said
    assert next(machine.spool(stand.spool)).level is Level.FAIL
    stand.at_hand.trouble = None
    eventually(lambda: stand.listener.keeper.depth == 0)
    eventually(lambda: moved(stand.spool) is None)
    assert not spool.names(stand.spool.with_name("elsewhere"))
    stand.at_hand.trouble = "down"
    stand.spool.with_name("elsewhere").rename(stand.spool)
    eventually(lambda: stand.listener.keeper.trouble is None)
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
    assert stand.listener.keeper.trouble is not None
    stand.at_hand.trouble = None
    eventually(lambda: stand.listener.keeper.trouble is None)
    stand.at_hand.trouble = "down"
    assert stand.sms(3).body == b"+OK"
    assert len(spool.names(stand.spool)) == 1


def test_a_folder_that_was_removed_is_said_so(stand: Stand, eventually: Eventually) -> None:
    """Its POSTs are gone: no +OK leaves for a file in it, and the program goes on when there is a new one."""
    stand.at_hand.trouble = "down"
    shutil.rmtree(stand.spool)
    assert stand.sms(1).status == 503
    stand.spool.mkdir()
    eventually(lambda: stand.listener.keeper.trouble is None)
    assert stand.sms(1).body == b"+OK"


def test_a_restart_says_what_was_left_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    """Until the folder is back, or a person says otherwise: it holds what was acknowledged."""
    folder = SpoolFolder(tmp_path / "spool")
    folder.open()
    (tmp_path / "spool").rename(tmp_path / "elsewhere")
    folder.note(3)
    folder.close()
    again = SpoolFolder(tmp_path / "spool")
    again.open()
    assert moved(tmp_path / "spool") is not None
    again.close()
    (tmp_path / "spool").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "spool")
    last = SpoolFolder(tmp_path / "spool")
    last.open()
    assert moved(tmp_path / "spool") is None
    last.close()
