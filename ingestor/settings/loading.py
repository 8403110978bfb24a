"""The configuration file read and checked: every fault at once, a line each."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ingestor.errors import ConfigurationError
from ingestor.redaction import register_secret
from ingestor.settings import values
from ingestor.settings.faults import fault_lines
from ingestor.settings.models import Settings

DEFAULT_FILE = Path("/etc/ingestor/ingestor.toml")

_SHORTEST_SECRET_PATH = 12  # a path as short as /sms is no secret, and hiding it would hide words


def load(path: Path | None, database_url: str | None) -> Settings:
    """Return the settings of the file at `path`, with `database_url` in place of its own where given.

    Without a `path` the default file is read, and its absence means defaults; a named file must exist.
    Raises ConfigurationError with one line a fault. Secrets among the settings become known to the log.
    """
    source = path or DEFAULT_FILE
    table = _read(source, required=path is not None)
    found = table is not None
    table = table or {}
    names = {}
    if database_url is not None:
        database = table.setdefault("database", {})
        if isinstance(database, dict):
            database["url"] = database_url
            names["database.url"] = "database URL (--database-url or INGESTOR_DATABASE_URL)"
    try:
        settings = Settings.model_validate(table)
    except ValidationError as fault:
        lines = fault_lines(fault, Settings, names)
        raise ConfigurationError(
            "\n".join(line if line.startswith("database URL (") else f"{source}: {line}" for line in lines)
        ) from None
    settings._source = source if found else None
    _register_secrets(settings)
    return settings


def _read(path: Path, *, required: bool) -> dict[str, Any] | None:
    """Return the tables of the file, or None where a file that may be absent is."""
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        if required:
            raise ConfigurationError(
                f"{path}: there is no such configuration file; `ingestor config example` prints one"
            ) from None
        return None
    except IsADirectoryError:
        raise ConfigurationError(f"{path}: is a folder, not a configuration file") from None
    except PermissionError:
        raise ConfigurationError(
            f"{path}: you may not read it; run the command as the service user: "
            f"sudo -u {_owner_of_state()} ingestor …"
        ) from None
    except OSError as fault:
        raise ConfigurationError(f"{path}: cannot be read: {fault.strerror}") from None
    except UnicodeDecodeError as fault:
        raise ConfigurationError(f"{path}: is not UTF-8 at byte {fault.start}; save it as UTF-8") from None
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as fault:
        raise ConfigurationError(f"{path}: is no valid TOML: {fault}") from None


def _owner_of_state() -> str:
    """Return who owns the default state directory, or the name that the shipped unit uses."""
    try:
        return Path("/var/lib/ingestor").owner()
    except (OSError, KeyError):
        return "ingestor"


def _register_secrets(settings: Settings) -> None:
    password = values.url_password(settings.database.url)
    if password:
        register_secret(password)
    for mailbox in settings.mailbox:
        if mailbox.password is not None:
            register_secret(mailbox.password.get_secret_value())
    for endpoint in settings.webhook.endpoint if settings.webhook else ():
        if len(endpoint.path) >= _SHORTEST_SECRET_PATH:
            register_secret(endpoint.path)
