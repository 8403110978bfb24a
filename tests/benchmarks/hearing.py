"""What it costs an SMS to be listened to for an opt-out while it is stored, as CPU time of this process.

The same POSTs of Agile's, in batches as a busy listener's writer has them, from their bytes to the committed
rows, in turns: by a store that is deaf, by one that hears, and by one that hears a STOP in a hundred SMS.
What has to be written down for a STOP is told beside the ratio: an intake that did not would lose it.
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from operator import sub, truediv
from pathlib import Path
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import structlog

from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.store import Store
from ingestor.intake.listener.posts import ReceivedPost, new_identity, submission_of
from ingestor.providers.contract import Post, Rules
from ingestor.replies.opt_outs import hearing
from ingestor.replies.words import Words
from tests.archive.samples import NOW
from tests.benchmarks._postgresql import measured_postgresql
from tests.servers.postgresql import PostgresqlServer

POSTS = 4000
BATCH = 40
TURNS = 9
MOST = 1.05
STOPS = 1  # in a hundred
_RULES = {"agile": Rules(zone=ZoneInfo("Europe/Rome"))}
_TEXTS = (
    "Ok",
    "SI",
    "Confermo grazie",
    "message 1234567",
    "Il codice è 480113",
    "Yes, see you at 3 pm",
    "Va bene per giovedì, a che ora?",
    "Ich komme morgen etwas später, danke",
    "Perché non è ancora arrivato il pacco? È passata una settimana…",
    "Hello, I will be late, please tell all of them. I'll call again when I am off the train",
    "Je serai là demain à 9 h, pouvez-vous préparer l’ordonnance de ma mère s’il vous plaît ?",
    "Buongiorno, vorrei sapere se l'appuntamento di domani alle 15 è ancora confermato. Grazie mille, Maria",
)


def main() -> None:
    """Print the ratio for both databases."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    posts = {stops: [_post(n, stops) for n in range(POSTS)] for stops in (0, STOPS)}
    with tempfile.TemporaryDirectory() as folder:
        _measure("SQLite", posts, lambda name: f"sqlite:///{Path(folder) / name}.db")
    with measured_postgresql() as server:
        if server is not None:
            _measure("PostgreSQL", posts, lambda name: _made(server, name))


def _post(number: int, stops: int = 0) -> ReceivedPost:
    text = "STOP" if number % 100 < stops else _TEXTS[number % len(_TEXTS)]
    form = {
        "originator": f"+39335{number:07}", "destination": "+393331234333", "date_time": "20260301130000",
        "text": text,
    }  # fmt: skip
    post = Post(urlencode(form).encode(), b"", "application/x-www-form-urlencoded", NOW)
    return ReceivedPost(new_identity(NOW), "agile-1", "agile", "127.0.0.1", post)


def _made(server: PostgresqlServer, name: str) -> str:
    server.sql(f"CREATE DATABASE {name}")
    return server.url(name)


def _measure(database: str, posts: dict[int, list[ReceivedPost]], url: Callable[[str], str]) -> None:
    hear = hearing(Words())
    kinds = {"deaf": (None, 0), "hearing": (hear, 0), "stops": (hear, STOPS)}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(TURNS):
        order = list(kinds.items())
        # Each comes first, in the middle and last: the place alone made 15 µs a POST on PostgreSQL.
        for name, (on_stored, stops) in order[turn % 3 :] + order[: turn % 3]:
            engine = open_engine(url(f"{name}_{turn}"))
            ensure_schema(engine, auto_upgrade=True)
            seconds[name].append(_stored(Store(engine, on_stored), posts[stops]))
            engine.dispose()
    # Neighbours in time are compared: whatever else the machine does hits both.
    ratio = statistics.median(map(truediv, seconds["hearing"], seconds["deaf"]))
    a_stop = statistics.median(map(sub, seconds["stops"], seconds["hearing"])) / POSTS * 100 / STOPS
    deaf, hears = (1e6 * statistics.median(seconds[name]) / POSTS for name in ("deaf", "hearing"))
    print(
        f"{database}: a POST from its bytes to its committed row {hears:.0f} µs of CPU with hearing, "
        f"{deaf:.0f} without: ratio {ratio:.3f} (at most {MOST}); each STOP {1e6 * a_stop:.0f} µs more"
    )


def _stored(store: Store, posts: list[ReceivedPost]) -> float:
    store.archive_key()
    began = time.process_time()
    for start in range(0, POSTS, BATCH):
        submissions = [submission_of(one, _RULES) for one in posts[start : start + BATCH]]
        store.write([one for one in submissions if one is not None], NOW)
    return time.process_time() - began


if __name__ == "__main__":
    main()
