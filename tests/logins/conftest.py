"""An authorisation server, and mailboxes that log in by it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingestor.logins import log_in
from ingestor.settings import Mailbox, load
from tests.servers.authorization import CLIENT, AuthorizationServer

Configure = Callable[..., Mailbox]


def person_logs_in(mailbox: Mailbox, folder: Path) -> None:
    """Be the person who enters the device code at once."""
    log_in(mailbox, folder, lambda _: None, lambda: "", sleep=lambda _: None)


@pytest.fixture
def authority() -> Iterator[AuthorizationServer]:
    """An authorisation server that gives what it is asked for."""
    with AuthorizationServer().running() as server:
        yield server


@pytest.fixture
def configure(authority: AuthorizationServer, tmp_path: Path) -> Configure:
    """Return what writes and reads a configuration with one mailbox at the server; keys may be added."""

    def made(flow: str = "device_code", **keys: object) -> Mailbox:
        oauth: dict[str, object] = {
            "provider": "other", "flow": flow, "client_id": CLIENT, "token_url": f"{authority.url}/token",
            "device_url": f"{authority.url}/device", "authorization_url": f"{authority.url}/authorize",
            **keys,
        }  # fmt: skip
        lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in oauth.items() if value is not None)
        path = tmp_path / "ingestor.toml"
        path.write_text(
            f'[database]\nurl = "sqlite:///{tmp_path}/archive.db"\n[[mailbox]]\nname = "main"\n'
            f'host = "127.0.0.1"\nusername = "demo"\n[mailbox.oauth]\n{lines}'
        )
        return load(path, None).mailbox[0]

    return made
