"""Calls `ingestor import` in this process, and says what the archive then holds."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from ingestor.archive.engine import reading, writing
from ingestor.cli import main

COUNTS = ("read", "stored", "duplicate", "ignored", "quarantined", "failed")


@dataclass(frozen=True)
class Done:
    """What a call left: its exit code, both streams, and its JSON object."""

    code: int
    out: str
    err: str
    result: dict[str, Any]

    @property
    def counts(self) -> tuple[int, ...]:
        """Read, stored, duplicate, ignored, quarantined, failed."""
        return tuple(self.result[name] for name in COUNTS)

    @property
    def run(self) -> str:
        """The number of its run, as `--resume` takes it."""
        return str(self.result["run"])


class Importer:
    """`ingestor import` on one archive."""

    def __init__(self, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
        self.engine = engine
        self.url = engine.url.render_as_string(hide_password=False)
        self._capsys = capsys

    def __call__(self, *arguments: str | Path, jobs: int = 2) -> Done:
        """Import; every result balances, or the test fails here."""
        words = ["--database-url", self.url, "import", "--json", "--jobs", str(jobs), *map(str, arguments)]
        self._capsys.readouterr()
        code = main(words)
        out, err = self._capsys.readouterr()
        last = out.splitlines()[-1] if out else ""
        done = Done(code, out, err, json.loads(last) if last.startswith("{") else {})
        if done.result:
            assert done.counts[0] == sum(done.counts[1:])
        return done

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what `query` finds."""
        with reading(self.engine) as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    @property
    def texts(self) -> list[str]:
        """The texts of all SMS, in the order in which they were stored."""
        return [row[0] for row in self.rows("SELECT text FROM inbound_sms ORDER BY id")]

    def execute(self, statement: str, **values: object) -> None:
        """Change the books from outside."""
        with writing(self.engine) as connection:
            connection.execute(text(statement), values)
