"""`[agile.api]`: one way in, TLS but on loopback, and both documented addresses."""

from pathlib import Path

import pytest

from ingestor.errors import ConfigurationError
from ingestor.providers.agile import Agile
from ingestor.replies.agile import client_of
from ingestor.service.checks.machine import cautions
from ingestor.settings import Settings, load

KEY = 'api_key_credential = "key"\n'


def _load(folder: Path, lines: str) -> Settings:
    path = folder / "ingestor.toml"
    path.write_text(f"[agile.api]\n{lines}")
    return load(path, None)


@pytest.mark.parametrize(
    "url",
    ["https://secure.agiletelecom.com/services/", "https://http-api.agiletelecom.com/services/",
     "http://127.0.0.1:8080/services/", "http://[::1]/x", "http://localhost:1/"],
)  # fmt: skip
def test_documented_and_loopback_addresses_are_accepted(tmp_path: Path, url: str) -> None:
    """Without TLS only this machine itself is."""
    api = _load(tmp_path, f'{KEY}base_url = "{url}"\n').section(Agile).api

    assert api is not None
    assert api.base_url == url


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (f'{KEY}base_url = "http://secure.agiletelecom.com/services/"', "must be like https://"),
        (f'{KEY}base_url = "ftp://x/"', "must be like https://"),
        ("rate = 5", "needs one way in"),
        (f'{KEY}api_key_file = "/x"', "needs one way in"),
        (f'{KEY}username = "u"', "needs one way in"),
        ('password_file = "/x"', "needs one way in"),
        ('api_key_credential = "../x"', "is no credential name"),
        (f"{KEY}rate = 0", "must be 1 or more"),
        (f"{KEY}read_seconds = 1", "unknown key"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, lines: str, says: str) -> None:
    """At the start, and not when the first answer is due."""
    with pytest.raises(ConfigurationError, match=r"agile\.api") as refused:
        _load(tmp_path, lines)

    assert says in str(refused.value)


def test_answers_without_an_api_are_refused(tmp_path: Path) -> None:
    """A rule that could never be carried out is no configuration."""
    path = tmp_path / "ingestor.toml"
    path.write_text('[[answer]]\nname = "a"\non = "any"\nsender = "X"\ntext = "x"\n')

    with pytest.raises(ConfigurationError, match=r"needs \[agile\.api\]"):
        load(path, None)


def test_basic_authentication_reads_its_password_from_the_file(tmp_path: Path) -> None:
    """A secret file that others may read is a caution; one that is missing a sentence."""
    secret = tmp_path / "password"
    settings = _load(tmp_path, f'username = "u"\npassword_file = "{secret}"\n')
    with pytest.raises(ConfigurationError, match="cannot be read"):
        client_of(settings)

    secret.write_text("p4ssword\n")
    secret.chmod(0o644)
    client_of(settings)
    assert any("password: mode 0644 is open to others" in one for one in cautions(settings))
