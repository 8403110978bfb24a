"""Secrets, fetched when they are needed and never kept: systemd credential, file, command, inline."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import SecretStr

from ingestor.errors import ConfigurationError
from ingestor.providers.contract import CREDENTIAL_NAME
from ingestor.redaction import register_secret
from ingestor.settings.mailbox import Mailbox, OAuth
from ingestor.settings.models import Endpoint

# Where LoadCredential= and LoadCredentialEncrypted= look for a bare name: systemd.exec(5).
STORES = tuple(map(Path, ("/etc/credstore", "/run/credstore", "/usr/lib/credstore")))
ENCRYPTED_STORES = tuple(
    map(Path, ("/etc/credstore.encrypted", "/run/credstore.encrypted", "/usr/lib/credstore.encrypted"))
)

COMMAND_SECONDS = 30.0
_LARGEST = 65536


def secret(mailbox: Mailbox) -> str:
    """Return the password of `mailbox`, or the token of its command; from then on the log hides it. Raises
    ConfigurationError, without it, where it cannot be had.
    """
    if mailbox.password is not None:
        return _known(mailbox.password.get_secret_value().encode(), "password")
    if (kept := kept_secret(mailbox.password_credential, mailbox.password_file)) is not None:
        return kept
    command = mailbox.password_command or mailbox.token_command
    if command is not None:
        return _known(_output(command), command[0])
    # The schema asks for one; a mailbox built by hand may have none.
    raise ConfigurationError(f"mailbox {mailbox.name} has no password")


def with_password(mailbox: Mailbox, password: Callable[[Mailbox], str]) -> Mailbox:
    """Return `mailbox` with what `password` fetches in it, for a root who goes on as another user; others get
    it as it is, and fetch the password when it is needed.
    """
    if os.geteuid() != 0:
        return mailbox
    return mailbox.model_copy(update={"password": SecretStr(password(mailbox))})


def login_key(oauth: OAuth) -> bytes | None:
    """Return what the key of `oauth` holds (PEM or JSON), None where it names none; raises as `secret`."""
    if oauth.key_credential is not None:
        return _find(oauth.key_credential)
    return _content(oauth.key_file) if oauth.key_file is not None else None


def endpoint_passwords(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the accepted Basic passwords of `endpoint`; empty where it asks for none."""
    return tuple(map(credential, endpoint.basic_password_credentials)) + tuple(
        map(secret_file, endpoint.basic_password_files)
    )


def kept_secret(name: str | None, file: Path | None) -> str | None:
    """Return the secret of credential `name`, else of `file`, None where neither is; raises as `secret`."""
    if name is not None:
        return credential(name)
    return secret_file(file) if file is not None else None


def credential(name: str) -> str:
    """Return the systemd credential `name`: a line of text.

    Inside a unit it lies in $CREDENTIALS_DIRECTORY. Outside, so that the admin's own commands work, it is
    looked for where systemd would: decrypted from the encrypted stores, else read from the plain ones.
    """
    return _known(_find(name), f"credential {name}")


def _find(name: str) -> bytes:
    if not re.fullmatch(CREDENTIAL_NAME, name):
        raise ConfigurationError(f"{name!r} is no credential name")
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory:
        path = Path(directory) / name
        if not path.exists():
            raise ConfigurationError(
                f"the unit passes no credential {name}: put it into {STORES[0]}/{name} and add "
                f"LoadCredential={name} with `systemctl edit ingestor`"
            )
        return _content(path)
    for store in ENCRYPTED_STORES:
        if os.access(store / name, os.F_OK):
            return decrypted(name, store / name)
    for store in STORES:
        if os.access(store / name, os.F_OK):
            return _content(store / name)
    raise ConfigurationError(
        f"there is no credential {name}: put it into {STORES[0]}/{name} (owner root, mode 0400), add "
        f"LoadCredential={name} to the unit with `systemctl edit ingestor`; only `sudo ingestor …` reads it"
    )


def decrypted(name: str, path: Path) -> bytes:
    """Return the credential `name` that systemd has encrypted at `path`; raises as `credential`."""
    return _output(("systemd-creds", f"--name={name}", "decrypt", str(path), "-"))


def secret_file(path: Path) -> str:
    """Return what the file at `path` holds, without the line end at its end."""
    return _known(_content(path), str(path))


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST + 1)
    except OSError as fault:
        raise ConfigurationError(f"{path}: the password cannot be read: {fault.strerror}") from None


def _output(argv: Sequence[str]) -> bytes:
    try:
        done = subprocess.run(  # noqa: S603 - the admin's own command, split into arguments, no shell
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"{argv[0]} gave no password within {COMMAND_SECONDS:.0f} s") from None
    except OSError as fault:
        raise ConfigurationError(f"{argv[0]} cannot be run for the password: {fault.strerror}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().partition("\n")[0][:200]
        raise ConfigurationError(
            f"{argv[0]} gave no password: exit status {done.returncode}{said and f' ({said})'}"
        )
    return done.stdout


def _known(content: bytes, origin: str) -> str:
    """Return a secret as text without its final line end, known to the log from here on."""
    if len(content) > _LARGEST:
        raise ConfigurationError(f"{origin}: is too long for a password")
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{origin}: the password is not UTF-8") from None
    if not text:
        raise ConfigurationError(f"{origin}: the password is empty")
    if "\n" in text or "\0" in text:
        raise ConfigurationError(f"{origin}: holds more than one line; it must hold the password alone")
    register_secret(text)
    return text
