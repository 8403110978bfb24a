"""The installed unit as `check` reads it."""

import os
from pathlib import Path

import pytest

from ingestor.service.checks import Level, unit
from ingestor.service.checks.unit import Unit
from ingestor.settings import credentials


def test_each_credential_is_decrypted_by_its_own_line_alone() -> None:
    """A name that is a part of another's makes neither encrypted, and the order of lines does not count."""
    found = Unit(
        Path("ingestor.service"),
        {
            "LoadCredential": ["imap:/etc/ingestor/imap"],
            "LoadCredentialEncrypted": ["other:/etc/ingestor/other.cred", "imap-2:/etc/ingestor/imap-2.cred"],
        },
    )

    assert found.credentials == {
        "imap": ([Path("/etc/ingestor/imap")], False),
        "other": ([Path("/etc/ingestor/other.cred")], True),
        "imap-2": ([Path("/etc/ingestor/imap-2.cred")], True),
    }


def test_a_credential_that_takes_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`systemd-creds` asks the TPM, which may never answer; `check` goes on, as without that program."""
    sealed = tmp_path / "imap.cred"
    sealed.write_bytes(b"sealed")
    found = Unit(tmp_path, {"LoadCredentialEncrypted": [f"imap:{sealed}"]})
    program = tmp_path / "systemd-creds"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(credentials, "COMMAND_SECONDS", 0.1)

    for body in ("#!/bin/sh\nexec /bin/sleep 60\n", None):
        if body is not None:
            program.write_text(body)
            program.chmod(0o755)
        else:
            program.unlink()
        (told,) = unit._passed(found, tmp_path, os.geteuid())
        assert told.level is Level.FAIL
        assert "its credential imap cannot be decrypted" in told.says
