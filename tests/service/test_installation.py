"""An installation's id: the same after a kill, and never that of two at once."""

import os
from pathlib import Path

from ingestor.service.opening import INSTALLATION as NAME
from ingestor.service.opening import Installation


def test_the_id_outlives_the_process(tmp_path: Path) -> None:
    """It is written once, for nobody else to read, and found again."""
    first = Installation(tmp_path)
    name = first.id()
    first.close()  # as the kernel does for a process that is killed
    again = Installation(tmp_path)

    assert again.id() == again.id() == name
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    again.close()


def test_a_second_process_is_another(tmp_path: Path) -> None:
    """Two daemons on one state directory must not take each other's lease."""
    first, second = Installation(tmp_path), Installation(tmp_path)

    assert first.id() != second.id()
    first.close()
    second.close()


def test_without_a_place_to_write_an_id_is_made_up(tmp_path: Path) -> None:
    """A missing folder, a damaged file: the process has an id all the same."""
    (tmp_path / NAME).write_text("no id\n")

    names = {Installation(tmp_path).id(), Installation(tmp_path / "missing").id()}

    assert len(names) == 2
    assert "no id" not in names


def test_nothing_is_made_before_it_is_asked_for_nor_in_a_folder_of_others(tmp_path: Path) -> None:
    """A mailbox that is only read needs no id; root leaves no file in the service user's folder."""
    Installation(tmp_path)
    assert not (tmp_path / NAME).exists()
    if os.geteuid() == 0:
        os.chown(tmp_path, 65534, 65534)
        Installation(tmp_path).id()
        assert not (tmp_path / NAME).exists()
