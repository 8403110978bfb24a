"""The table `[mailbox.oauth]`: what can never work is refused, and the known providers need no addresses."""

from pathlib import Path

import pytest

from ingestor.errors import ConfigurationError
from ingestor.settings import load
from tests.logins.conftest import Configure


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"provider": "microsoft", "token_url": None}, "needs tenant"),
        ({"provider": "google", "flow": "device_code"}, "no mail by device_code"),
        ({"provider": "google", "flow": "client_credentials", "secret_file": "/s"}, "use service_account"),
        ({"flow": "client_credentials"}, "needs one of secret_credential"),
        ({"flow": "service_account"}, "key_credential or key_file"),
        ({"flow": "device_code", "key_file": "/k"}, "takes a client secret, no key"),
        ({"secret_file": "/s", "key_file": "/k"}, "more than one secret"),
        ({"client_id": None}, "needs client_id"),
        ({"token_url": None}, "needs token_url"),
        ({"device_url": None}, "needs device_url"),
        ({"flow": "authorization_code", "authorization_url": None}, "needs authorization_url"),
        ({"flow": "password"}, "flow: must be one of"),
        ({"tennant": "x"}, "tenant"),
    ],
)
def test_a_table_that_cannot_work(configure: Configure, keys: dict[str, object], words: str) -> None:
    """What can never give a token is a fault of the configuration, said with file and line."""
    with pytest.raises(ConfigurationError, match=rf'ingestor\.toml:\d+: \[\[mailbox\]\] 1 "main": .*{words}'):
        configure(**keys)


def test_one_way_in_alone(configure: Configure, tmp_path: Path) -> None:
    """A mailbox has a password or tokens, never both."""
    configure()
    path = tmp_path / "ingestor.toml"
    path.write_text(path.read_text().replace('username = "demo"', 'username = "demo"\npassword = "x"'))

    with pytest.raises(ConfigurationError, match="more than one password; keep one of password, oauth"):
        load(path, None)


def test_known_providers_need_no_addresses(tmp_path: Path) -> None:
    """Microsoft's and Google's addresses and scopes are known, application and person told apart."""
    path = tmp_path / "ingestor.toml"
    head = '[[mailbox]]\nname = "main"\nhost = "h"\nusername = "u"\n[mailbox.oauth]\nclient_id = "c"\n'
    path.write_text(
        head + 'provider = "microsoft"\nflow = "client_credentials"\ntenant = "t"\nsecret_file = "/s"'
    )
    oauth = load(path, None).mailbox[0].oauth
    assert oauth is not None
    assert oauth.endpoint("token") == "https://login.microsoftonline.com/t/oauth2/v2.0/token"
    assert oauth.scopes == "https://outlook.office365.com/.default"
    path.write_text(head + 'provider = "microsoft"\nflow = "device_code"\ntenant = "t"')
    oauth = load(path, None).mailbox[0].oauth
    assert oauth is not None
    assert oauth.endpoint("device").endswith("/t/oauth2/v2.0/devicecode")
    assert oauth.scopes.split() == ["https://outlook.office.com/IMAP.AccessAsUser.All", "offline_access"]
    path.write_text(head + 'provider = "google"\nflow = "authorization_code"')
    oauth = load(path, None).mailbox[0].oauth
    assert oauth is not None
    assert (oauth.endpoint("token"), oauth.scopes) == (
        "https://oauth2.googleapis.com/token", "https://mail.google.com/"
    )  # fmt: skip
