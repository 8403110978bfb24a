"""The configuration files read, merged and checked: every fault at once, a line each, with file and line.

    /etc/ingestor/ingestor.toml:12: [[mailbox]] 1 "main": port: must be 65535 or less

The file of the command line (or the default one) comes first, then `conf.d/*.toml` beside it in the order
of their names: tables merge, arrays of tables grow, and a key set twice is a fault that names both files.
"""

import os
import tomllib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ingestor.errors import ConfigurationError, nearest
from ingestor.providers.contract import Section
from ingestor.redaction import register_secret
from ingestor.settings import values
from ingestor.settings.mailbox import Home
from ingestor.settings.models import Settings, table_of

DEFAULT_FILE = Path("/etc/ingestor/ingestor.toml")
FURTHER_FILES = "conf.d"

_SHORTEST_SECRET_PATH = 12  # a path as short as /sms is no secret, and hiding it would hide words
_DATABASE_URL = ("database", "url")

Place = tuple[str | int, ...]


class _File(NamedTuple):
    path: Path
    text: str
    table: dict[str, Any]


_TOML = {
    "Cannot overwrite a value": "a key stands there twice",
    "Illegal character '\\n'": "a quote is not closed",
}
_BLOCK_ENDS = (*"0123456789", '"')
_SENTENCES = {
    "missing": "is missing",
    "string_type": "must be text in quotes",
    "string_too_short": "is empty",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number, without quotes",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be one of {expected}",
    "too_short": "is empty; give at least one",
    "path_type": "must be a path in quotes",
    "string_pattern_mismatch": "must begin with a letter or digit and hold only letters, digits, dot, dash "
    "and underscore",
}


def load(path: Path | None, database_url: str | None) -> Settings:
    """Return the settings of the file at `path`, with `database_url` in place of its own where given.

    Without a `path` the default file is read, and its absence means defaults; a named file must exist.
    Raises ConfigurationError with one line a fault. Secrets among the settings become known to the log.
    """
    source = path or DEFAULT_FILE
    try:
        files = [*_main_file(source, required=path is not None), *_further_files(source)]
    except _Closed:
        if path is not None or database_url is None:
            raise
        files = []  # somebody reads an archive of his own on a machine whose configuration is not for him
    table = _merged(files)
    if database_url is not None:
        database = table.setdefault("database", {})
        if isinstance(database, dict):
            database["url"] = database_url
    try:
        settings = Settings.model_validate(table)
    except ValidationError as fault:
        lines = list(_fault_lines(fault, files, table, source, given=database_url is not None))
        raise ConfigurationError("\n".join(dict.fromkeys(lines))) from None
    settings._sources = tuple(file.path for file in files)
    for mailbox in settings.mailbox:
        mailbox._home = Home(source.absolute(), state_directory(settings).absolute())
    _register_secrets(settings)
    return settings


def require_work(settings: Settings) -> None:
    """Raise ConfigurationError where neither a mailbox nor a webhook is configured."""
    if not settings.mailbox and settings.webhook is None:
        where = settings.source or DEFAULT_FILE
        raise ConfigurationError(
            f"{where}: there is nothing to read: configure a [[mailbox]] or a [webhook] "
            "(`ingestor config example` prints a file to start from; `ingestor demo` needs none)"
        )


def state_directory(settings: Settings) -> Path:
    """Return where files of ours may lie: $STATE_DIRECTORY, else the SQLite file's folder, else here."""
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd separates several by colons
    if given:
        return Path(given)
    file = settings.database.file
    return file.absolute().parent if file else Path.cwd()


def _main_file(path: Path, *, required: bool) -> Iterator[_File]:
    """Yield the file, or nothing where one that may be absent is."""
    try:
        yield _read(path)
    except FileNotFoundError:
        if required:
            raise ConfigurationError(
                f"{path}: there is no such configuration file; `ingestor config example` prints one"
            ) from None


def _further_files(source: Path) -> Iterator[_File]:
    """Yield the files of conf.d beside `source`. Nobody else may have put them there: they name commands."""
    folder = source.parent / FURTHER_FILES
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".toml" and path.name[0] != ".")
        trusted = {0, os.geteuid(), *(path.stat().st_uid for path in (source,) if path.exists())}
        owner = folder.stat().st_uid
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError:
        raise _closed(folder) from None
    if paths and owner not in trusted:
        raise ConfigurationError(f"{folder}: belongs to another user than {source}; chown root: {folder}")
    for path in paths:
        try:
            yield _read(path)
        except FileNotFoundError:
            raise ConfigurationError(f"{path}: points to a file that is not there") from None


def _read(path: Path) -> _File:
    """Return the file at `path`. Raises FileNotFoundError, and ConfigurationError for all else."""
    try:
        text = path.read_bytes().decode().removeprefix("\ufeff")
        return _File(path, text, tomllib.loads(text))
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise ConfigurationError(f"{path}: is a folder, not a configuration file") from None
    except PermissionError:
        raise _closed(path) from None
    except OSError as fault:
        raise ConfigurationError(f"{path}: cannot be read: {fault.strerror}") from None
    except UnicodeDecodeError as fault:
        raise ConfigurationError(f"{path}: is not UTF-8 at byte {fault.start}; save it as UTF-8") from None
    except tomllib.TOMLDecodeError as fault:
        said = str(fault)
        for word, meant in _TOML.items():
            said = said.replace(word, meant)
        raise ConfigurationError(f"{path}: is no valid TOML: {said}") from None


class _Closed(ConfigurationError):
    """This user may not read a configuration file."""


def _closed(path: Path) -> ConfigurationError:
    """Return the sentence that names the owner of the state directory, else the user of the shipped unit."""
    try:
        user = Path("/var/lib/ingestor").owner()
    except (OSError, KeyError):
        user = "ingestor"
    return _Closed(
        f"{path}: you may not read it; run the command as the service user: sudo -u {user} ingestor …"
    )


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


def _merged(files: Sequence[_File]) -> dict[str, Any]:
    """Return the tables of all `files` as one. Raises ConfigurationError for what two of them set."""
    table: dict[str, Any] = {}
    setters: dict[Place, _File] = {}
    twice: list[str] = []
    for file in files:
        for place in _merge(table, file.table, file, setters, ()):
            here, there = (_where(place, [one], one.path) for one in (file, setters[place]))
            twice.append(f"{here}: {_shown(place, table)}: is set in {there} too; keep one")
    if twice:
        raise ConfigurationError("\n".join(twice))
    return table


def _merge(
    table: dict[str, Any], more: dict[str, Any], file: _File, setters: dict[Place, _File], at: Place
) -> Iterator[Place]:
    """Take `more` into `table`, both of which stand `at` a place; yield the places that were set already."""
    for key, value in more.items():
        place = (*at, key)
        if isinstance(value, dict) and isinstance(table.setdefault(key, {}), dict):
            setters.setdefault(place, file)
            yield from _merge(table[key], value, file, setters, place)
        elif _are_tables(value) and _are_tables(table.get(key, value)):
            setters.setdefault(place, file)
            table[key] = [*table.get(key, ()), *value]
        elif key in table:
            yield place
        else:
            setters[place] = file
            table[key] = value


def _are_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _where(place: Place, files: Sequence[_File], otherwise: Path) -> str:
    """Return file and line of what stands at `place`, else of the table around it, else of what is in it."""
    counted: dict[Place, int] = {}
    lines = {found: f"{file.path}:{line}" for file in files for found, line in _lines(file, counted)}
    around = next((place[:end] for end in range(len(place), 0, -1) if place[:end] in lines), None)
    inside = (line for found, line in lines.items() if found[: len(place)] == place)
    return lines[around] if around else next(inside, str(otherwise))


def _lines(file: _File, counted: dict[Place, int]) -> Iterator[tuple[Place, int]]:
    """Yield each heading and key of `file` as its place among the merged settings, and its line (from 1).

    `counted` has the number of each array's last table, from the files before too. A statement begins where
    all before it is TOML by itself, so that no line inside a longer text or list is taken for a key. This
    reads the file once for each of its lines, and only when there is a fault to tell.
    """
    lines = file.text.split("\n")
    starts = [at for at in range(len(lines)) if _is_toml("\n".join(lines[:at]))]
    heading: Place = ()
    for start, end in pairwise([*starts, len(lines)]):
        statement = "\n".join(lines[start:end])
        inner: Any = tomllib.loads(statement)
        if not statement.lstrip().startswith("["):
            yield from ((heading + place, start + 1) for place in _keys(inner))
            continue
        heading = ()
        while inner:  # {"webhook": {"endpoint": [{}]}}
            [(key, inner)] = inner.items()
            heading += (key,)
            if isinstance(inner, list):
                counted[heading] = counted.get(heading, -1) + 1
                inner = None
            if heading in counted:
                heading += (counted[heading],)
        yield heading, start + 1


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _keys(table: dict[str, Any]) -> Iterator[Place]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from ((key, *place) for place in _keys(value))
        else:
            yield (key,)


def _fault_lines(
    fault: ValidationError, files: Sequence[_File], table: dict[str, Any], source: Path, *, given: bool
) -> Iterator[str]:
    """Yield a line for each fault; where the database's URL was `given`, it stands in no file."""
    errors = fault.errors(include_url=False, include_input=False)
    places = [error["loc"] for error in errors]
    for error in errors:
        place, sentence = error["loc"], _sentence(error)
        if error["type"] == "too_short" and any(one[:-1][: len(place)] == place for one in places):
            continue  # pydantic counts only the members without a fault, and theirs are told already
        if given and place == _DATABASE_URL:
            yield f"database URL (--database-url or INGESTOR_DATABASE_URL): {sentence}"
            continue
        where = _where(place, files, source)
        yield f"{where}: {_shown(place, table)}: {sentence}" if place else f"{where}: {sentence}"


def _shown(place: Place, table: Any) -> str:
    """Return a place as its user finds it: `[[mailbox]] 2 "sales": port`, `agile.numbers, entry 3`."""
    shown = ""
    for part in place:
        try:
            table = table[part]
        except (LookupError, TypeError):
            table = None
        if isinstance(part, str):
            shown += f"{': ' if shown.endswith(_BLOCK_ENDS) else '.' if shown else ''}{part}"
        elif isinstance(table, dict):
            name = table.get("name") or table.get("provider")
            called = f' "{name[:64]}"' if isinstance(name, str) else ""
            shown = f"[[{shown}]] {part + 1}{called}"
        else:
            shown += f", entry {part + 1}"
    return shown


def _sentence(error: ErrorDetails) -> str:
    kind, location = error["type"], error["loc"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        table = _table_at(location[:-1])
        return "unknown key" + nearest(str(location[-1]), table.model_fields if table else ())
    if kind == "value_error":
        return str(context["error"])
    if kind == "tuple_type":
        if _table_at(location) is not None:
            return f"is a list of tables: write [[{_heading(location)}]], with double brackets"
        return 'must be a list, like ["…"]'
    if kind in {"model_type", "model_attributes_type"}:
        return f"must be a table: write [{_heading(location)}], with single brackets"
    if kind in _SENTENCES:
        return _SENTENCES[kind].format(**context)
    return error["msg"].lower()


def _heading(location: Place) -> str:
    return ".".join(part for part in location if isinstance(part, str))


def _table_at(location: Place) -> type[Section] | None:
    """Return the model of the table at `location`, or None where there is no table."""
    table: type[Section] | None = Settings
    for part in location:
        if isinstance(part, str):
            if table is None or part not in table.model_fields:
                return None
            table = table_of(table.model_fields[part].annotation)
    return table
