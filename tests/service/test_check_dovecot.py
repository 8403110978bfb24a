"""`ingestor check` against a real Dovecot: TLS, private authority, and a clock that goes wrong."""

import os
import time
from pathlib import Path

import pytest

from tests.servers.dovecot import PASSWORD, DovecotServer
from tests.service.process import configuration, mailbox, running

pytestmark = pytest.mark.dovecot

MAIL = b"From: a@example.org\r\nSubject: hello\r\n\r\nhello\r\n"


def _check(config: Path) -> tuple[int, str]:
    with running(config, "check") as check:
        return check.process.wait(60), check.said


def _block(dovecot: DovecotServer, user: str, **more: object) -> str:
    keys = {"security": "tls", "host": "localhost", "username": user, "password": PASSWORD, **more}
    return mailbox(dovecot.imaps_port, **keys)


def test_a_sound_mailbox_over_tls(dovecot: DovecotServer, tmp_path: Path, sqlite_url: str) -> None:
    """With the authority's file the login is fine, and checking leaves every mail new."""
    user = dovecot.account()
    dovecot.deliver(user, [MAIL] * 3)
    code, said = _check(
        configuration(tmp_path, sqlite_url, _block(dovecot, user, ca_file=str(dovecot.ca_file)))
    )

    assert code == 0, said
    assert "folder INBOX: 3 mails" in said
    assert "IDLE on INBOX" in said
    assert dovecot.flags(user) == ["", "", ""]


def test_an_unknown_authority(dovecot: DovecotServer, tmp_path: Path, sqlite_url: str) -> None:
    """Without it the line says that the certificate is not trusted, and what to set."""
    code, said = _check(configuration(tmp_path, sqlite_url, _block(dovecot, dovecot.account())))

    assert code == 1
    assert "ca_file" in said


def test_mail_from_the_future(dovecot: DovecotServer, tmp_path: Path, sqlite_url: str) -> None:
    """A newest mail that arrived in our future means that our clock is slow."""
    user = dovecot.account()
    dovecot.deliver(user, [MAIL])
    [file] = (dovecot.maildir(user) / "new").iterdir()
    os.utime(file, (time.time() + 86400, time.time() + 86400))
    code, said = _check(
        configuration(tmp_path, sqlite_url, _block(dovecot, user, ca_file=str(dovecot.ca_file)))
    )

    assert code == 0
    assert "in our future" in said
