"""What people ask of a million SMS, against the same questions to an empty archive; and what finding costs.

Each question may take 0.3 s more than on an empty archive, and counting all SMS a second. The commands are
those of a shell, the statements those that the documents show. An import with the index of words may take a
tenth more CPU than one without. QUESTIONS_SMS=200000 asks fewer.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine

from ingestor.archive import words
from ingestor.archive.engine import open_engine, reading, writing
from ingestor.archive.migrate import ensure_schema
from ingestor.replies.opt_outs import Event, read_secret, write_events
from tests import readme
from tests.archive.samples import NOW
from tests.benchmarks._million import LAST, OURS, RARE, fill, sender
from tests.benchmarks._postgresql import measured_postgresql
from tests.benchmarks.import_ import write_mbox
from tests.servers.postgresql import PostgresqlServer

SMS = int(os.environ.get("QUESTIONS_SMS", "1000000"))
MAILS = 50_000
ROUNDS = 5
EXTRA, COUNT, DEARER = 0.3, 1.0, 1.10
COMMANDS = {
    "show an SMS": ["show", str(SMS // 2)],
    "status": ["status"],
    "the newest": ["search"],
    "a day": ["search", "--since", f"{LAST:%Y}-06-01", "--until", f"{LAST:%Y}-06-01"],
    "a sender": ["search", "--originator", sender(7)],
    "a number of ours": ["search", "--destination", OURS[1]],
    "a rare word": ["search", RARE.upper()],
    "a frequent word": ["search", "perche"],
    "a part of a number in a text": ["search", "7345123"],
    "a word that is nowhere": ["search", "quisquilie"],
}
STATEMENTS = [
    "SELECT count(*) FROM inbound_sms",
    f"SELECT * FROM inbound_sms WHERE originator = '{sender(7)}'",
    *(one.strip() for one in ";".join(readme.blocks("sql")).split(";") if one.strip()),
]


def main() -> None:
    """Print what each question takes more, and an import with the index, on both databases."""
    with tempfile.TemporaryDirectory(prefix="questions-") as name:
        folder = Path(name)
        box = folder / "old.mbox"
        write_mbox(box, folder / "flags", MAILS)
        urls = [f"sqlite:///{folder}/{one}.db" for one in ("empty", "full")]
        _questions("SQLite", *urls)
        _import("SQLite", box, lambda one: f"sqlite:///{folder}/{one}.db", lambda: 0.0)
        with measured_postgresql() as server:
            if server is not None:
                for one in ("archive_empty", "archive_full"):
                    server.sql(f"CREATE DATABASE {one}")
                _questions("PostgreSQL", server.url("archive_empty"), server.url("archive_full"))
                for turn in range(ROUNDS):
                    for kind in ("without", "with"):
                        server.sql(f"CREATE DATABASE {kind}_{turn}")
                _import("PostgreSQL", box, server.url, lambda: _of_server(server))


def _questions(database: str, empty: str, full: str) -> None:
    engines = [open_engine(empty), open_engine(full)]
    for engine, count in zip(engines, (0, SMS), strict=True):
        ensure_schema(engine, auto_upgrade=True)
        began = time.process_time()
        if count:
            fill(engine, count)
            _opt_out(engine)
            before = time.process_time()
            for _ in words.bring_up(engine):
                pass
            print(
                f"{database}: {count:,} SMS filled in {before - began:.0f} s of CPU, "
                f"their texts taken in in {time.process_time() - before:.0f} s"
            )
    for name, command in COMMANDS.items():
        _say(name, *(lambda url=url, command=command: _ask(url, command) for url in (empty, full)))
    for statement in STATEMENTS:
        asks = (lambda engine=engine, statement=statement: _select(engine, statement) for engine in engines)
        _say(" ".join(statement.split())[:70], *asks, floor=COUNT if "count(*)" in statement[:20] else EXTRA)
    for engine in engines:
        engine.dispose()


def _opt_out(engine: Engine) -> None:
    """Let one sender in a hundred be out."""
    gone = [Event(sender(number), "*", "add", NOW) for number in range(0, SMS // 10, 100)]
    with writing(engine) as connection:
        write_events(connection, read_secret(connection), gone, NOW)


def _say(name: str, empty: Callable[[], float], full: Callable[[], float], floor: float = EXTRA) -> None:
    """Ask both in turns; say how much longer the full one takes at its best."""
    taken = [(empty(), full()) for _ in range(ROUNDS)]
    before, after = (min(one) for one in zip(*taken, strict=True))
    extra = after - before
    print(f"  {extra:6.3f} s more {'' if extra < floor else f'(AT MOST {floor:g}) '} {name}")


def _ask(url: str, command: list[str]) -> float:
    began = time.perf_counter()
    program = [sys.executable, "-m", "ingestor", "--database-url", url]
    subprocess.run([*program, *command], capture_output=True, check=False)  # `show` finds nothing in one
    return time.perf_counter() - began


def _select(engine: Engine, statement: str) -> float:
    with reading(engine) as connection:
        began = time.perf_counter()
        sent = statement.replace("%", "%%") if engine.dialect.name == "postgresql" else statement
        connection.exec_driver_sql(sent).all()
        return time.perf_counter() - began


def _import(database: str, box: Path, url: Callable[[str], str], others: Callable[[], float]) -> None:
    """Print the CPU of imports with the index of words against those without, in turns."""
    ratios = []
    for turn in range(ROUNDS):
        taken = {}
        for kind in ("without", "with") if turn % 2 else ("with", "without"):
            config = box.with_name(f"{kind}.toml")
            wish = "true" if kind == "with" else "false"
            config.write_text(f'[database]\nurl = "{url(f"{kind}_{turn}")}"\nindex_texts = {wish}\n')
            program = [sys.executable, "-m", "ingestor", "--config", str(config)]
            subprocess.run([*program, "db", "upgrade"], check=True, capture_output=True)
            before = _of_children() + others()
            subprocess.run([*program, "import", "--quiet", str(box)], check=True, capture_output=True)
            taken[kind] = _of_children() + others() - before
        ratios.append(taken["with"] / taken["without"])
    print(
        f"{database}: an import with the index of words takes {statistics.median(ratios):.2f} times the CPU "
        f"of one without (at most {DEARER:g}); {MAILS:,} mails, {taken['without']:.1f} s"
    )


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _of_server(server: PostgresqlServer) -> float:
    """Return the CPU seconds of the server's processes that have ended: it has one a connection."""
    ticks = Path(f"/proc/{server.pid}/stat").read_text().rsplit(")", 1)[1].split()[13:15]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
