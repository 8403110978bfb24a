"""The sample payloads that lie beside each provider's POST reader, with what is expected of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import ingestor.providers
from ingestor.providers import POST_READERS, post_reader
from ingestor.providers.contract import Post, Readable, Rules, Unreadable
from ingestor.timestamps import iso_utc

FOLDER = Path(ingestor.providers.__file__).parent


@dataclass(frozen=True)
class Sample:
    """One payload as it came, the rules it is read by, and the readings that must come out."""

    provider: str
    name: str
    post: Post
    rules: Rules
    readings: list[dict[str, Any]]

    @property
    def reader(self) -> ModuleType:
        """The reader that must read it."""
        return post_reader(self.provider)


def samples(provider: str) -> list[Sample]:
    """Return the samples of `provider`, in the order of their names."""
    found = []
    for body in sorted((FOLDER / provider / "samples").glob("*.body")):
        about = json.loads(body.with_suffix(".json").read_text())
        post = Post(
            body=body.read_bytes(), query=about["query"].encode(), content_type=about["content_type"],
            arrived_at=datetime.fromisoformat(about["arrived_at"]),
            content_encoding=about.get("content_encoding", ""),
        )  # fmt: skip
        rules = Rules(zone=ZoneInfo("Europe/Rome"), numbers=frozenset(about.get("numbers", ())))
        found.append(Sample(provider, body.stem, post, rules, about["readings"]))
    return found


def every_sample() -> list[Sample]:
    """Return the samples of all providers."""
    return [sample for provider in POST_READERS for sample in samples(provider)]


def as_expected(readings: Sequence[Readable | Unreadable]) -> list[dict[str, Any]]:
    """Return readings the way a sample's file writes them."""
    written = []
    for reading in readings:
        if isinstance(reading, Unreadable):
            written.append({"quarantined": reading.reason})
            continue
        fields = reading.sms._asdict() | {"received_at": iso_utc(reading.sms.received_at)}
        written.append({name: value for name, value in fields.items() if value is not None})
    return written
