"""Secrets: where passwords come from, what is unwise, and that no secret ever shows."""

import os
import re
import stat
import tomllib
from pathlib import Path

import pytest

from ingestor.errors import ConfigurationError
from ingestor.redaction import redact
from ingestor.service.checks.machine import cautions
from ingestor.settings import (
    Settings,
    credential,
    credentials,
    endpoint_passwords,
    hide_url_password,
    load,
    secret,
)
from ingestor.settings.sample import shown
from tests.test_settings import ENDPOINT, MAILBOX, faults, quiet_environment, write

__all__ = ["quiet_environment"]


PLANTED = "pl4nted s3cret/@"


def planted(tmp_path: Path) -> Settings:
    return load(
        write(
            tmp_path,
            "[database]\nurl = 'postgresql://u:pl4nted%20s3cret%2F%40@h/d?sslmode=require'\n"
            + MAILBOX.replace('password_file = "/x"', f"password = '{PLANTED}'")
            + MAILBOX.replace('"main"', '"two"').replace(
                'password_file = "/x"', f"password_command = ['echo', '{PLANTED}']"
            )
            + "[webhook]\n" + ENDPOINT.replace("k3QxAbCdEfGhIjKlMnOpQr", "pl4nted-s3cret-in-the-path"),
        ),
        None,
    )  # fmt: skip


def test_secrets_never_show(tmp_path: Path) -> None:
    """Neither repr nor `config show` nor an error repeats a planted secret."""
    settings = planted(tmp_path)

    for text in (repr(settings), str(settings), shown(settings)):
        assert "pl4nted" not in text
    assert 'url = "postgresql+psycopg://u:***@h/d?sslmode=require"' in shown(settings)
    assert 'path = "/agile/***"' in shown(settings)
    for wrong in ("port = 0", "password_file = '/x'", "nonsense = 1"):
        text = MAILBOX.replace('password_file = "/x"', f"password = '{PLANTED}'") + wrong
        assert "pl4nted" not in "".join(faults(tmp_path, text))


def test_loaded_secrets_are_known_to_the_log(tmp_path: Path) -> None:
    """What the configuration holds of secrets is redacted from then on, in whatever text it turns up."""
    planted(tmp_path)

    said = redact(
        f"login with {PLANTED} or pl4nted%20s3cret%2F%40 at /agile/pl4nted-s3cret-in-the-path failed"
    )

    assert said == "login with *** or *** at *** failed"


def test_the_shown_settings_are_valid_toml(tmp_path: Path) -> None:
    """`config show` can be read by machines, and says everything but the secrets."""
    table = tomllib.loads(shown(planted(tmp_path)))

    assert table["mailbox"][0]["password"] == "***"
    assert table["mailbox"][1]["password_command"] == ["echo", "***"]
    assert table["webhook"]["endpoint"][0]["provider"] == "agile"


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("sqlite:////var/lib/a.db", "sqlite:////var/lib/a.db"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("postgresql+psycopg://u@h:5/d", "postgresql+psycopg://u@h:5/d"),
        ("postgresql+psycopg://u:p%40@h:5/d?password=x&a=b", "postgresql+psycopg://u:***@h:5/d?password=***&a=b"),
        ("postgresql+psycopg:///d?host=/run", "postgresql+psycopg:///d?host=/run"),
    ],
)  # fmt: skip
def test_url_passwords_are_hidden(url: str, hidden: str) -> None:
    """A URL is shown with its password replaced and nothing else changed."""
    assert hide_url_password(url) == hidden


def mailbox_with(tmp_path: Path, line: str) -> Settings:
    return load(write(tmp_path, MAILBOX.replace('password_file = "/x"', line)), None)


def test_passwords_come_from_all_four_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credential, file, command and inline give the same password, without the line end."""
    (tmp_path / "imap").write_text("s3cret one\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    for line in (
        "password_credential = 'imap'", f"password_file = '{tmp_path}/imap'",
        "password_command = \"printf 's3cret one\\\\n'\"",
        "password_command = ['echo', 's3cret one']", "password = 's3cret one'",
    ):  # fmt: skip
        assert secret(mailbox_with(tmp_path, line).mailbox[0]) == "s3cret one"
    assert redact("s3cret one") == "***"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("password_file = '/nonexistent/x'", r"^/nonexistent/x: the password cannot be read: No such file"),
        ("password_file = '{folder}/empty'", "the password is empty"),
        ("password_file = '{folder}/two'", "holds more than one line"),
        ("password_file = '{folder}/binary'", "is not UTF-8"),
        ("password_file = '{folder}/long'", "too long"),
        ("password_command = 'false'", "^false gave no password: exit status 1$"),
        ("password_command = ['sh', '-c', 'echo locked >&2; echo s3cret; exit 3']",
         r"^sh gave no password: exit status 3 \(locked\)$"),
        ("password_command = '/nonexistent/pass show'", "^/nonexistent/pass cannot be run"),
        ("password_command = ['sleep', '9']", "^sleep gave no password within 0 s$"),
        ("password_credential = 'imap'", "there is no credential imap: put it into"),
    ],
)  # fmt: skip
def test_a_password_that_cannot_be_had_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, sentence: str
) -> None:
    """Every way a password can be missing is a sentence that names the place and never the content."""
    monkeypatch.setattr(credentials, "COMMAND_SECONDS", 0.5 if "sleep" not in line else 0.1)
    for name, content in (("empty", b"\n"), ("two", b"a\nb"), ("binary", b"\xff"), ("long", b"x" * 70000)):
        (tmp_path / name).write_bytes(content)

    mailbox = mailbox_with(tmp_path, line.format(folder=tmp_path)).mailbox[0]

    with pytest.raises(ConfigurationError, match=sentence) as caught:
        secret(mailbox)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_outside_the_unit_credentials_come_from_the_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The admin's own command finds the credential where systemd would: decrypted first, else plain."""
    plain, encrypted, programs = (tmp_path / name for name in ("plain", "encrypted", "bin"))
    for folder in (plain, encrypted, programs):
        folder.mkdir()
    (plain / "imap").write_text("from the plain store")
    (plain / "both").write_text("from the plain store")
    (encrypted / "both").write_text("from the encrypted store")
    tool = programs / "systemd-creds"
    tool.write_text('#!/bin/sh\n[ "$1 $2" = "--name=both decrypt" ] && exec cat "$3"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(credentials, "STORES", (plain,))
    monkeypatch.setattr(credentials, "ENCRYPTED_STORES", (encrypted,))

    assert credential("imap") == "from the plain store"
    assert credential("both") == "from the encrypted store"
    with pytest.raises(ConfigurationError, match="no credential name"):
        credential("../imap")


def test_inside_the_unit_only_its_own_credentials_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A credential that the unit does not pass is a line that says what to add to the unit."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    with pytest.raises(ConfigurationError, match="add LoadCredential=imap with"):
        credential("imap")


def test_an_endpoint_accepts_several_passwords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two credentials and a file are three accepted passwords, for rotation."""
    for name in ("new", "old", "file"):
        (tmp_path / name).write_text(f"{name}-password\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    text = ENDPOINT + (
        'basic_username = "x"\nbasic_password_credentials = ["new", "old"]\n'
        f'basic_password_files = ["{tmp_path}/file"]\n'
    )

    webhook = load(write(tmp_path, "[webhook]\n" + text), None).webhook

    assert webhook is not None
    assert endpoint_passwords(webhook.endpoint[0]) == ("new-password", "old-password", "file-password")


def test_unwise_settings_are_cautions(tmp_path: Path) -> None:
    """Inline passwords, open modes and short paths are warned about, never refused."""
    key = tmp_path / "key"
    key.write_text("x")
    key.chmod(0o644)
    config = write(
        tmp_path,
        MAILBOX.replace('password_file = "/x"', "password = 'abcd'")
        + MAILBOX.replace('"main"', '"two"').replace('"imap.', '"two.').replace("/x", str(key))
        + "[webhook]\n" + ENDPOINT.replace("k3QxAbCdEfGhIjKlMnOpQr", "sms"),
    )  # fmt: skip
    config.chmod(0o644)

    found = cautions(load(config, None))

    assert [re.split(r"[:;]", line)[0] for line in found] == [
        "mailbox main", str(config), str(key), "webhook endpoint 1 (agile)",
    ]  # fmt: skip
    key.chmod(stat.S_IRUSR)
    config.chmod(0o640)
    assert len(cautions(load(config, None))) == 2


@pytest.mark.parametrize(
    ("path", "strong"),
    [
        ("/agile/k3QxAbCdEfGhIjKlMnOpQrStUvWxYz01", True),
        ("/agile/0f3c9a1b77d24e6f8a5b3c2d1e0f9a8b", True),
        ("/agile/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", False),
        ("/agile/11111111112222222222333333333344", False),
        ("/agile/agile-sms-inbound-webhook-endpoint", False),
        ("/agile/short1A", False),
    ],
)
def test_a_path_of_words_or_of_few_letters_is_weak(tmp_path: Path, path: str, *, strong: bool) -> None:
    """Length alone does not make a path hard to guess."""
    config = write(tmp_path, f'[webhook]\n[[webhook.endpoint]]\npath = "{path}"\nprovider = "agile"\n')
    config.chmod(0o600)
    assert any("easily guessed" in line for line in cautions(load(config, None))) is not strong


def test_two_mailboxes_that_read_the_same_folder_are_a_caution(tmp_path: Path) -> None:
    """One user's folder that is read twice is named; another folder, user or server is none."""
    one = '[[mailbox]]\nname = "{}"\nhost = "{}"\nusername = "u"\npassword_file = "/x"\nfolders = {}\n'
    config = tmp_path / "ingestor.toml"
    blocks = [
        ("a", "imap.test", '["INBOX", "SMS"]'),
        ("b", "IMAP.test", '["SMS"]'),
        ("c", "other.test", '["SMS"]'),
    ]
    config.write_text("".join(one.format(*block) for block in blocks))

    said = [line for line in cautions(load(config, None)) if "same folder" in line]

    assert [line.partition(":")[0] for line in said] == ["mailboxes a and b read the same folder 'SMS'"]
