"""What it costs an SMS to be listened to for an opt-out while it is stored, as CPU time of this process.

The same POSTs of Agile's, in batches as a busy listener's writer has them, from their bytes to the committed
rows: once by a store that hears, once by one that is deaf, in turns. One SMS in a hundred is a STOP.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from operator import truediv
from pathlib import Path
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from ingestor.archive.engine import open_engine
from ingestor.archive.migrate import ensure_schema
from ingestor.archive.store import Store
from ingestor.intake.listener.posts import ReceivedPost, new_identity, submission_of
from ingestor.providers.contract import Post, Rules
from ingestor.replies.hearing import hearing
from ingestor.replies.words import Words
from tests.archive.samples import NOW
from tests.servers.postgresql import INSTALL, PostgresqlServer, binaries

POSTS = 4000
BATCH = 40
TURNS = 9
MOST = 1.05
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
    posts = [_post(n) for n in range(POSTS)]
    with tempfile.TemporaryDirectory() as folder:
        _measure("SQLite", posts, lambda name: f"sqlite:///{Path(folder) / name}.db")
    found = binaries()
    if found is None:
        print(INSTALL)
        return
    server = PostgresqlServer(found, fsync=True)
    try:
        _measure("PostgreSQL", posts, lambda name: _made(server, name))
    finally:
        server.close()


def _post(number: int) -> ReceivedPost:
    text = "STOP" if number % 100 == 0 else _TEXTS[number % len(_TEXTS)]
    form = {
        "originator": f"+39335{number:07}", "destination": "+393331234333", "date_time": "20260301130000",
        "text": text,
    }  # fmt: skip
    post = Post(urlencode(form).encode(), b"", "application/x-www-form-urlencoded", NOW)
    return ReceivedPost(new_identity(NOW), "agile-1", "agile", "127.0.0.1", post)


def _made(server: PostgresqlServer, name: str) -> str:
    server.sql(f"CREATE DATABASE {name}")
    return server.url(name)


def _measure(database: str, posts: list[ReceivedPost], url: Callable[[str], str]) -> None:
    stores = {"deaf": None, "hearing": hearing(Words())}
    seconds: dict[str, list[float]] = {name: [] for name in stores}
    for turn in range(TURNS):
        for name, hear in stores.items():
            engine = open_engine(url(f"{name}_{turn}"))
            ensure_schema(engine, auto_upgrade=True)
            seconds[name].append(_stored(Store(engine, hear), posts))
            engine.dispose()
    # Neighbours in time are compared: whatever else the machine does hits both.
    ratio = statistics.median(map(truediv, seconds["hearing"], seconds["deaf"]))
    microseconds = {name: 1e6 * statistics.median(them) / POSTS for name, them in seconds.items()}
    print(
        f"{database}: a POST from its bytes to its committed row {microseconds['hearing']:.0f} µs of CPU "
        f"with hearing, {microseconds['deaf']:.0f} without: ratio {ratio:.3f} (at most {MOST})"
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
