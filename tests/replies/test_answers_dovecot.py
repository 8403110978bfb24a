"""Answers to SMS that come by mail, with a real Dovecot: what lay there before is not answered."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.archive.reading import opened, rows
from tests.replies.desk import RULES, US
from tests.servers.agile import ScriptedAgile
from tests.servers.dovecot import PASSWORD, DovecotServer
from tests.service.process import configuration, mailbox, running
from tests.waiting import until

pytestmark = pytest.mark.dovecot


def _mail(number: int, text: str, ago: timedelta = timedelta(seconds=3)) -> bytes:
    sent = (datetime.now(UTC) - ago).astimezone(ZoneInfo("Europe/Rome"))
    return (
        "From: smsin@agiletelecom.com\r\nTo: sms@example.org\r\n"
        "Subject: Agile Telecom -- SMS received\r\n"
        f"Message-ID: <{number}@example.org>\r\n\r\n"
        f"From: +39335000000{number}\r\nTo: {US}\r\nDate/Time: {sent:%Y%m%d%H%M%S}\r\nBody: {text}\r\n"
    ).encode()


def test_only_mail_that_comes_after_the_first_reading_is_answered(
    dovecot: DovecotServer, tmp_path: Path
) -> None:
    """Three mails of this minute lie there at the first start; of two that come later one is hours old."""
    user = dovecot.account()
    dovecot.deliver(user, [_mail(number, "Hello") for number in (1, 2, 3)])
    (tmp_path / "api.key").write_text("k3y\n")
    (tmp_path / "api.key").chmod(0o600)
    url = f"sqlite:///{tmp_path / 'archive.db'}"
    with ScriptedAgile() as agile:
        api = f'[agile.api]\nbase_url = "{agile.base_url}"\napi_key_file = "{tmp_path / "api.key"}"\n'
        box = mailbox(
            dovecot.imaps_port, "main", host="localhost", security="tls", ca_file=str(dovecot.ca_file),
            username=user, password=PASSWORD, poll_seconds=1,
        )  # fmt: skip
        with running(configuration(tmp_path, url, box, api, RULES)) as daemon:
            daemon.wait_ready()
            until(lambda: _ask(url, "SELECT count(*) FROM sms")[0][0] == 3)
            until(lambda: _ask(url, "SELECT 1 FROM answering WHERE name = 'mailbox:main'"))

            dovecot.deliver(user, [_mail(4, "STOP"), _mail(5, "Hello", timedelta(hours=2))])
            until(lambda: len(_ask(url, "SELECT 1 FROM answers")) == 2)
            until(lambda: _ask(url, "SELECT 1 FROM answer_events WHERE event = 'sent'"))

            assert _ask(url, "SELECT number, rule, state, suppressed FROM answers_sent ORDER BY number") == [
                ("+393350000004", "stop", "sent", None),
                ("+393350000005", "any", "suppressed", "too_old"),
            ]
            assert len(agile.requests) == 1


def _ask(url: str, statement: str) -> list[tuple[object, ...]]:
    with opened(url, read_only=True) as engine:
        return rows(engine, statement)
