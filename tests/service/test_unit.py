"""The installed unit as `check` reads it."""

from pathlib import Path

from ingestor.service.checks.unit import Unit


def test_each_credential_is_decrypted_by_its_own_line_alone() -> None:
    """A name that is a part of another's makes neither encrypted, and the order of lines does not count."""
    unit = Unit(
        Path("ingestor.service"),
        {
            "LoadCredential": ["imap:/etc/ingestor/imap"],
            "LoadCredentialEncrypted": ["other:/etc/ingestor/other.cred", "imap-2:/etc/ingestor/imap-2.cred"],
        },
    )

    assert unit.credentials == {
        "imap": ([Path("/etc/ingestor/imap")], False),
        "other": ([Path("/etc/ingestor/other.cred")], True),
        "imap-2": ([Path("/etc/ingestor/imap-2.cred")], True),
    }
