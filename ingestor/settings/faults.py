"""Pydantic's findings as lines for people: the TOML path, what is wrong, and the nearest known key."""

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ingestor.errors import nearest
from ingestor.providers.contract import Section

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


def fault_lines(fault: ValidationError, model: type[Section], names: Mapping[str, str]) -> list[str]:
    """Return one line a fault of `fault`, each as `path: sentence`.

    `names` gives what to call a path that came from elsewhere than the file (`--database-url`, say).
    """
    lines = []
    errors = fault.errors(include_url=False, include_input=False)
    places = [error["loc"] for error in errors]
    for error in errors:
        place = error["loc"]
        if error["type"] == "too_short" and any(one[:-1][: len(place)] == place for one in places):
            continue  # pydantic counts only the members without a fault, and theirs are told already
        path = toml_path(place)
        sentence = _sentence(error, model)
        path = names.get(path, path)
        lines.append(f"{path}: {sentence}" if path else sentence)
    return list(dict.fromkeys(lines))


def toml_path(location: Sequence[str | int]) -> str:
    """Return a location as TOML users write it: `mailbox[0].port`."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def _sentence(error: ErrorDetails, model: type[Section]) -> str:
    kind, location = error["type"], error["loc"]
    context = error.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key" + nearest(str(location[-1]), _known_keys(model, location[:-1]))
    if kind == "value_error":
        return str(context["error"])
    if kind == "tuple_type":
        if _table_at(model, location) is not None:
            return f"is a list of tables: write [[{_heading(location)}]], with double brackets"
        return 'must be a list, like ["…"]'
    if kind in {"model_type", "model_attributes_type"}:
        return f"must be a table: write [{_heading(location)}], with single brackets"
    if kind in _SENTENCES:
        return _SENTENCES[kind].format(**context)
    return error["msg"].lower()


def _heading(location: Sequence[str | int]) -> str:
    return ".".join(part for part in location if isinstance(part, str))


def _known_keys(model: type[Section], location: Sequence[str | int]) -> list[str]:
    table = _table_at(model, location)
    return list(table.model_fields) if table else []


def _table_at(model: type[Section], location: Sequence[str | int]) -> type[Section] | None:
    """Return the model of the table at `location`, or None where there is no table."""
    table: type[Section] | None = model
    for part in location:
        if isinstance(part, str):
            if table is None or part not in table.model_fields:
                return None
            table = table_of(table.model_fields[part].annotation)
    return table


def table_of(annotation: Any) -> type[Section] | None:
    """Return the model inside `Model`, `Model | None` or `tuple[Model, ...]`, else None."""
    return next(_tables(annotation), None)


def _tables(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    elif get_origin(annotation) in {Union, UnionType, tuple}:
        for argument in get_args(annotation):
            yield from _tables(argument)
