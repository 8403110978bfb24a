"""Who should run this: the exact line to type."""

import os
import sys
from pathlib import Path

import pytest

from ingestor.archive import ownership
from ingestor.archive.faults import user_name
from ingestor.archive.ownership import foreign_owner, ownership_advice, refuse_closed
from ingestor.errors import ConfigurationError


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line of somebody who typed an import."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/ingestor", "import", "/mail/old box.mbox"])
    for name in ("INGESTOR_CONFIG", "INGESTOR_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("typed")
def test_the_owner_may_go_on(tmp_path: Path) -> None:
    """There is nothing to say to the archive's owner, whether the file is there or not yet."""
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    assert ownership_advice(url, tmp_path) is None
    (tmp_path / "archive.db").touch()
    assert ownership_advice(url, tmp_path) is None


@pytest.mark.usefixtures("typed")
@pytest.mark.parametrize("there", [True, False])
def test_somebody_else_gets_the_exact_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Neither root nor a stranger writes into another's archive: both get the whole command to type."""
    if there:
        (tmp_path / "archive.db").touch()
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    owner = user_name(tmp_path.stat().st_uid)
    line = f"sudo -u {owner} ingestor import '/mail/old box.mbox'"
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1 if mine == 0 else 0)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    advice = ownership_advice(url, tmp_path)
    assert advice is not None
    assert advice.endswith(line)
    monkeypatch.setenv("INGESTOR_CONFIG", "/etc/x.toml")
    kept = ownership_advice(url, tmp_path)
    assert kept is not None
    assert kept.endswith(line.replace("sudo", "sudo --preserve-env=INGESTOR_CONFIG"))


@pytest.mark.usefixtures("typed")
def test_a_stranger_who_may_write_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Group rights are enough; only root would leave files that nobody else can write."""
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    monkeypatch.setattr(os, "access", lambda path, mode: True)
    assert ownership_advice(f"sqlite:///{tmp_path / 'archive.db'}", tmp_path) is None


@pytest.mark.usefixtures("typed")
def test_an_archive_that_may_not_be_read_names_its_owner(tmp_path: Path) -> None:
    """Reading is refused with the same line."""
    with pytest.raises(ConfigurationError, match=r"sudo -u \S+ ingestor import"):
        refuse_closed(tmp_path / "archive.db")


def test_postgresql_cares_about_the_state_directory_only(tmp_path: Path) -> None:
    """There is no file to own, but a spool."""
    assert ownership_advice("postgresql+psycopg://app@127.0.0.1/x", tmp_path) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_whose_an_archive_is_to_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's owner, else its folder's; of a server, who owns the unit's folder, wherever root stands."""
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    for name, user in (("home", 12345), ("unit", 12346), ("state", 12347)):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, user, user)
    monkeypatch.setattr(ownership, "OF_THE_UNIT", tmp_path / "unit")
    server = "postgresql+psycopg://app@127.0.0.1/x"

    assert foreign_owner(f"sqlite:///{tmp_path / 'archive.db'}", tmp_path) is None
    assert foreign_owner(f"sqlite:///{tmp_path / 'state' / 'archive.db'}", tmp_path) == 12347
    assert foreign_owner(server, tmp_path / "home") == 12346
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    assert foreign_owner(server, tmp_path / "state") == 12347
