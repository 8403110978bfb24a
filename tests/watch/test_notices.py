"""Notices: what a mail and a webhook look like to a real receiver, and that nothing secret is in them."""

import base64
import hashlib
import hmac
import json
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingestor.settings import Settings
from ingestor.settings.watch import WatchMail, WatchWebhook
from ingestor.watch.conditions import Condition
from ingestor.watch.notices import NotSent, mail, notice_of, webhook
from tests.watch.receiver import receiving
from tests.watch.smtp import mail_server

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
BEGUN = Condition(
    "source", "mailbox main", "", "told", 'refused ("wrong"\npassword of +393351234567)', "mend it", True,
    NOW - timedelta(minutes=7),
)  # fmt: skip
OVER = Condition(
    "disk", "disk of /è", "one", "over", "full", "make room", True, NOW - timedelta(minutes=20), NOW
)
NOTICE = notice_of([OVER, BEGUN], "one", NOW)


def test_a_notice_says_what_since_when_and_what_to_do() -> None:
    """Title and text of what begins and what is over, without a number."""
    assert NOTICE.state == "begun"
    assert NOTICE.title.startswith(
        'ingestor on one: NOT well: mailbox main: refused ("wrong" password of …4567)'
    )
    assert "since 2026-05-01 11:53 UTC. To do: mend it." in NOTICE.text
    assert "Over: disk of /è: full; it lasted 20 minutes" in NOTICE.text
    assert "3351234567" not in NOTICE.title + NOTICE.text


def _mail(port: int) -> WatchMail:
    return WatchMail.model_validate(
        {"host": "127.0.0.1", "port": port, "security": "plain", "sender": "ingestor@example.org",
         "to": ["ops@example.org", "night@example.org"]}
    )  # fmt: skip


def test_a_mail_cannot_loop() -> None:
    """Empty envelope sender and Auto-Submitted: no vacation robot answers, no bounce comes back."""
    with mail_server() as server:
        mail(_mail(server.port), NOTICE, NOW)
    [taken] = server.taken

    assert (taken.sender, taken.recipients) == ("<>", ["ops@example.org", "night@example.org"])
    assert taken.message["Auto-Submitted"] == "auto-generated"
    assert taken.message["From"] == "ingestor@example.org"
    assert taken.message["Subject"] == NOTICE.title.replace("…", "...")
    assert taken.message.get_content().strip().splitlines() == NOTICE.text.splitlines()


def test_a_server_that_wants_a_sender_gets_one() -> None:
    """Submission servers of mailbox providers refuse an empty one."""
    with mail_server() as server:
        server.takes_empty_sender = False
        mail(_mail(server.port), NOTICE, NOW)

    assert [one.sender for one in server.taken] == ["<ingestor@example.org>"]


def test_a_mail_server_that_is_away_is_one_sentence() -> None:
    """A refusal and a closed port are NotSent, without an address."""
    with mail_server() as server:
        server.away = True
        with pytest.raises(NotSent, match=r"did not take it \(SMTPConnectError 421"):
            mail(_mail(server.port), NOTICE, NOW)
        port = server.port
    with pytest.raises(NotSent, match="ConnectionRefusedError"):
        mail(_mail(port), NOTICE, NOW)


_DOCUMENT = (Path(__file__).parent.parent.parent / "OPERATING.md").read_text()
_WATCH: dict[str, Any] = tomllib.loads(
    next(block for block in re.findall(r"```toml\n(.*?)```", _DOCUMENT, re.DOTALL) if "[watch.mail]" in block)
)["watch"]
RECIPES: dict[str, dict[str, Any]] = dict(
    zip(("ntfy", "Telegram", "Slack", "own"), _WATCH["webhook"], strict=True)
)


def test_the_document_s_settings_are_settings() -> None:
    """The block of OPERATING.md is taken as it is written."""
    Settings.model_validate({"watch": _WATCH})


@pytest.mark.parametrize("recipe", ["ntfy", "Telegram", "Slack"])
def test_the_recipes_of_the_document_arrive(recipe: str, tmp_path: Path) -> None:
    """As OPERATING.md writes them: JSON is JSON whatever the text holds, a header is one line."""
    with receiving() as server:
        (tmp_path / "url").write_text(f"{server.url}/planted-secret\n")
        keys = {key: value for key, value in RECIPES[recipe].items() if key != "url_credential"}
        webhook(WatchWebhook.model_validate({"url_file": tmp_path / "url", **keys}), NOTICE)
    [one] = server.received

    assert one.path == "/planted-secret"
    if recipe == "ntfy":
        assert one.body.decode() == NOTICE.text
        assert one.headers["title"].startswith("ingestor on one: NOT well: mailbox main")
    else:
        assert json.loads(one.body)["text"] == f"{NOTICE.title}\n{NOTICE.text}"
        assert one.headers["content-type"] == "application/json"


@pytest.mark.parametrize("secret", ["plain words", "whsec_" + base64.b64encode(b"k" * 24).decode()])
def test_a_webhook_is_signed(secret: str, tmp_path: Path) -> None:
    """HMAC-SHA-256 over id, time and body, as standardwebhooks.com says; the default body is JSON."""
    (tmp_path / "secret").write_text(secret)
    with receiving() as server:
        settings = {"url": f"{server.url}/x", "signing_file": tmp_path / "secret"}
        webhook(WatchWebhook.model_validate(settings), NOTICE)
    [one] = server.received
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    content = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
    digest = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()

    assert one.headers["webhook-signature"] == f"v1,{digest}"
    assert json.loads(one.body) == {
        "title": NOTICE.title, "text": NOTICE.text, "host": "one", "state": "begun",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({}, "needs one of url"), ({"url": "ftp://x"}, "must begin with https"),
        ({"url": "https://x", "headers": ["no header"]}, "must be a header line"),
    ],
)  # fmt: skip
def test_a_webhook_that_cannot_work_is_refused_at_once(wrong: dict[str, Any], says: str) -> None:
    """At the start, not in the night when something is wrong."""
    with pytest.raises(ValueError, match=says):
        WatchWebhook.model_validate(wrong)
