"""Details as JSON: what is shared between many SMS is encoded once, and never taken for anything else."""

import gc
from types import MappingProxyType
from typing import Any

import pytest

from ingestor.archive.details import details_json


def test_details_are_compact_json() -> None:
    """Nothing is escaped that need not be, and nothing is an empty object."""
    assert details_json({"a": ["é", 1, None]}) == '{"a":["é",1,null]}'
    assert details_json({}) == details_json(MappingProxyType({})) == "{}"


def test_a_mapping_that_replaces_another_is_encoded_anew() -> None:
    """A shared mapping is known by its identity, which no other one can get meanwhile."""
    for number in range(3000):
        assert details_json(MappingProxyType({"n": number})) == f'{{"n":{number}}}'
        gc.collect(0)


def test_a_mapping_that_may_change_is_never_remembered() -> None:
    """Only read-only mappings are taken for what they were."""
    details: dict[str, Any] = {"a": 1}
    assert details_json(details) == '{"a":1}'
    details["a"] = 2
    assert details_json(details) == '{"a":2}'


def test_what_is_no_json_is_refused() -> None:
    """A number that JSON does not know, or a value that it cannot hold, is the caller's to report."""
    with pytest.raises(ValueError, match="JSON"):
        details_json({"a": float("nan")})
    with pytest.raises(TypeError):
        details_json(MappingProxyType({"a": b"bytes"}))
