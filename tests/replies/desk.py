"""SMS for the answers' tests, a policy with rules, and a worker that looks when it is told to."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from ingestor.archive.items import Item, Submission
from ingestor.archive.runs import begin_run
from ingestor.archive.store import Store
from ingestor.providers.contract import Readable
from ingestor.record import Channel
from ingestor.replies.opt_outs import hearing
from ingestor.replies.words import Words
from ingestor.replies.worker import AnswerWorker
from ingestor.settings import Settings, load
from tests.archive.reading import rows
from tests.archive.samples import PARSER, item, sms
from tests.servers.agile import ScriptedAgile

US = "+393331234333"

RULES = """
[[answer]]
name = "stop"
on = "opt_out"
sender = "+393331234333"
text = "No more messages from {our_number}."

[[answer]]
name = "start"
on = "opt_in"
sender = "+393331234333"
text = "Welcome back."

[[answer]]
name = "hours"
on = "keyword"
keywords = ["ORARI"]
sender = "+393331234333"
text = "Open from 9 to 18, {date}."

[[answer]]
name = "any"
on = "any"
sender = "+393331234333"
text = "Thank you, we have your message."
"""


def settings_of(agile: ScriptedAgile, folder: Path, rules: str = RULES, more: str = "") -> Settings:
    """Return settings with `[agile.api]` and `rules`."""
    (folder / "api.key").write_text("k3y\n")
    (folder / "api.key").chmod(0o600)
    config = folder / "answers.toml"
    config.write_text(
        f'[agile]\nnumbers = ["{US}"]\n[agile.api]\nbase_url = "{agile.base_url}"\n'
        f'api_key_file = "{folder / "api.key"}"\nconnect_seconds = 20\nanswer_seconds = 20\nrate = 500\n'
        f"{more}{rules}"
    )
    return load(config, None)


def arrived(
    number: int, text: str = "Hello", *, ago: float = 5.0, channel: Channel = Channel.WEBHOOK,
    late: float = 0.0, source: str = "agile-1", **changed: Any,
) -> Item:  # fmt: skip
    """Return an SMS sent `ago` seconds before now, of which the POST or mail came `late` seconds ago."""
    now = datetime.now(UTC)
    sent = now - timedelta(seconds=ago)
    changed.setdefault("date_time", f"{sent:%Y%m%d%H%M%S}")
    record = sms(number, text=text, destination=US, received_at=sent, **changed)
    raw = f"{number} {text} {ago} {time.monotonic_ns()}".encode()
    return item(
        number, channel=channel, raw=raw, reading=Readable(record, PARSER), source=source,
        arrived_at=now - timedelta(seconds=late),
    )  # fmt: skip


class Desk:
    """An archive that SMS reach, and the worker that answers them."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        """Let one look note since when the rules count."""
        self.engine = engine
        self.settings = settings
        self.store = Store(engine, hearing(Words()))
        self.worker = AnswerWorker(engine, settings)
        self.worker.work()
        time.sleep(0.002)  # SQLite's clock has milliseconds: what comes in the same one was there before

    def receive(self, *items: Item, command: str = "run") -> None:
        """Store what arrives, in a run of `command`."""
        now = datetime.now(UTC)
        run = begin_run(self.engine, command, {}, now)
        self.store.write([Submission(run, items)], now)

    def look(self, *items: Item) -> None:
        """Store what arrives, and let the worker look once."""
        self.receive(*items)
        self.worker.work()

    def look_wide(self) -> None:
        """Let the worker look as far back as it ever does."""
        self.worker._wide_at = 0.0
        self.worker.work()

    def rows(self, columns: str = "rule, state, suppressed") -> Sequence[tuple[Any, ...]]:
        """Return `columns` of all answers, oldest first."""
        return rows(self.engine, f"SELECT {columns} FROM answers_sent ORDER BY id")
