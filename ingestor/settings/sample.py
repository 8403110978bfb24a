"""The schema written out: the commented sample file, the reference page, and settings with secrets hidden."""

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from ingestor.providers.contract import Section
from ingestor.redaction import HIDDEN
from ingestor.settings.models import Settings, table_of
from ingestor.settings.values import hide_url_password

_WIDTH = 100

_HEADER = """\
The configuration of ingestor: TOML, read from /etc/ingestor/ingestor.toml (--config, INGESTOR_CONFIG), then
from conf.d/*.toml beside it, in the order of their names; a key may stand in one of them only.
Lines that begin with "#" and a key show a default or an example; take the # away to set it.
Unknown keys are errors. `ingestor check` tries everything that is written here.
"""


def sample() -> str:
    """Return the commented sample file; it is valid as it stands, and so is every line commented out."""
    lines = [*_comment(_HEADER.replace("\n", " ")), "", *_sample_table(Settings, "", optional=False)]
    return "\n".join(lines).replace("\n\n\n", "\n\n").strip("\n") + "\n"


def _sample_table(model: type[Section], path: str, *, optional: bool) -> Iterator[str]:
    """Yield the keys of `model`, then its tables: TOML wants them in this order."""
    tables = []
    for key, field in model.model_fields.items():
        inner = table_of(field.annotation)
        if inner is not None:
            tables.append((key, field, inner))
            continue
        yield from _comment(field.description or "")
        off = optional or not (field.is_required() or key in model.active)
        value = field.examples[0] if field.examples else field.default
        yield f"{'#' if off else ''}{key} = {toml_value(value)}"
    for key, field, inner in tables:
        off = optional or inner.optional
        yield ""
        yield from _comment(_about(inner))
        yield f"{'#' if off else ''}{_heading(path + key, field)}"
        yield from _sample_table(inner, f"{path}{key}.", optional=off)


def _heading(path: str, field: FieldInfo) -> str:
    return f"[[{path}]]" if "tuple" in str(field.annotation) else f"[{path}]"


def _about(model: type[Section]) -> str:
    return re.sub(r"\s+", " ", model.__doc__ or "").strip()


def _comment(text: str) -> list[str]:
    return [
        f"# {line}"
        for line in textwrap.wrap(text, _WIDTH - 2, break_on_hyphens=False, break_long_words=False)
    ]


def toml_value(value: Any) -> str:
    """Return `value` as TOML writes it (JSON's escapes are among TOML's)."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, bool | int):
        return json.dumps(value)
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def reference() -> str:
    """Return the reference of every key as Markdown, one table a section."""
    parts = ["# Configuration", "", _HEADER.strip(), ""]
    top: tuple[str, type[Section]] = ("before the first table", Settings)
    for title, model in (top, *_sections(Settings, "")):
        parts += [
            f"## `{title}`" if title.startswith("[") else f"## {title.capitalize()}",
            "",
            _about(model),
            "",
            "| key | default | meaning |",
            "|---|---|---|",
        ]
        for key, field in model.model_fields.items():
            if table_of(field.annotation) is None:
                parts.append(f"| `{key}` | {_default(field)} | {_cell(field.description or '')} |")
        parts.append("")
    return "\n".join(parts).strip("\n") + "\n"


def _sections(model: type[Section], path: str) -> Iterator[tuple[str, type[Section]]]:
    for key, field in model.model_fields.items():
        inner = table_of(field.annotation)
        if inner is not None:
            yield _heading(path + key, field), inner
            yield from _sections(inner, f"{path}{key}.")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None:
        return ""
    return f"`{_cell(toml_value(field.default))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def shown(settings: Settings) -> str:
    """Return the effective settings as TOML with every secret hidden."""
    return "\n".join(_shown_table(settings, "")).strip("\n") + "\n"


def _shown_table(table: Section, path: str) -> Iterator[str]:
    tables: list[tuple[str, Section]] = []
    for key, field in type(table).model_fields.items():
        value = getattr(table, key)
        if table_of(field.annotation) is None:
            if value is not None:
                yield f"{key} = {toml_value(_hidden(key, value))}"
        elif isinstance(value, Section):
            tables.append((f"[{path}{key}]", value))
        else:
            tables += [(f"[[{path}{key}]]", one) for one in value or ()]
    for heading, inner in tables:
        yield ""
        yield heading
        yield from _shown_table(inner, heading.strip("[]") + ".")


def _hidden(key: str, value: Any) -> Any:
    """Return `value` fit for a screen; a command's arguments and an endpoint's path may be secrets."""
    if isinstance(value, SecretStr):
        return HIDDEN
    if key == "url":
        return hide_url_password(value)
    if key in {"password_command", "token_command"}:
        return [value[0], *[HIDDEN for _ in value[1:]]]
    if key == "path":
        return "/".join(["", *value.split("/")[1:-1], HIDDEN])
    return value
