"""How fast old mailboxes go into the archive, against a limit, what users do, and itself.

100,000 generated mails of 3.6 KB (IMPORT_MAILS), 30% of them not ours. The limit parses nothing and keeps one
table, in one process; the import keeps every table, with raw payloads. Both are timed inside the process,
without the start of Python. BENCH_FULL=1 adds the rate and memory at a million rows, which takes minutes.
"""

import json
import mailbox
import os
import random
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

from ingestor.archive.engine import open_engine
from ingestor.archive.items import Submission
from ingestor.archive.store import Store
from tests.archive.samples import item
from tests.sample_mails import generate
from tests.servers.postgresql import PostgresqlServer, binaries

MAILS = int(os.environ.get("IMPORT_MAILS", "100000"))
ROUNDS = int(os.environ.get("IMPORT_ROUNDS", "3"))
NAIVE_MAILS = 1500
SEPARATOR = b"From smsin@agiletelecom.com Mon Jan  8 09:00:00 2024\n"


def main() -> None:
    """Print the ratios."""
    with tempfile.TemporaryDirectory(prefix="import-bench-") as name:
        folder = Path(name)
        box, flags = folder / "old.mbox", folder / "flags"
        write_mbox(box, flags, MAILS)
        print(f"{MAILS:,} mails, {box.stat().st_size / 1e6:,.0f} MB; medians of {ROUNDS} rounds")
        rate = _sqlite(folder, box, flags)
        _beside_a_daemon(folder, box)
        _postgresql(folder, box, flags)
        _peers(folder, box, rate)
        if os.environ.get("BENCH_FULL") == "1":
            _flat(folder)
        else:
            print("BENCH_FULL=1 measures at a million rows, too")


def write_mbox(box: Path, flags: Path, count: int, seed: int = 1) -> None:
    """Write a generated mailbox, and which of its mails are ours."""
    with box.open("wb") as out, flags.open("wb") as marks:
        for mail in generate(count, seed):
            raw = mail.raw.replace(b"\r\n", b"\n").replace(b"\nFrom ", b"\n>From ")
            out.write(SEPARATOR + raw.rstrip(b"\n") + b"\n\n")
            marks.write(b"\0" if mail.kind == "unrelated" else b"\1")


def _sqlite(folder: Path, box: Path, flags: Path) -> float:
    """Print the ratios on SQLite; return the median rate."""
    limits, firsts, seconds_, singles, peaks = [], [], [], [], []
    for number in range(ROUNDS):
        limits.append(_limit(box, flags, f"sqlite:///{folder}/limit-{number}.db"))
        url = f"sqlite:///{folder}/ours-{number}.db"
        _prepare(url)
        first, peak = _import(url, box)
        second, _ = _import(url, box)
        single_url = f"sqlite:///{folder}/single-{number}.db"
        _prepare(single_url)
        single, _ = _import(single_url, box, "--jobs", "1")
        firsts.append(first)
        seconds_.append(second)
        singles.append(single)
        peaks.append(peak)
        _compare(folder / f"limit-{number}.db", folder / f"ours-{number}.db")
        for file in folder.glob("*.db*"):
            file.unlink()
    limit, first = statistics.median(limits), statistics.median(firsts)
    _say("SQLite", limit, first, "0.4", statistics.median(seconds_))
    print(f"  with --jobs 1: ratio {limit / statistics.median(singles):.2f}")
    print(f"  memory of all processes (PSS): {max(peaks) / 2**20:.0f} MB at most (< 200)")
    return MAILS / first


def _compare(limit: Path, ours: Path) -> None:
    """Leave where the limit did not insert the very bytes that the import keeps."""
    with closing(sqlite3.connect(limit)) as one, closing(sqlite3.connect(ours)) as other:
        if set(one.execute("SELECT sha256 FROM mails")) != set(other.execute("SELECT sha256 FROM payloads")):
            sys.exit("the limit and the import did not keep the same mails")


def _beside_a_daemon(folder: Path, box: Path) -> None:
    """Print how long a daemon's write waits while an import runs on the same SQLite archive."""
    url = f"sqlite:///{folder}/shared.db"
    _prepare(url)
    engine = open_engine(url)
    store = Store(engine)
    waits: list[float] = []
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.05):
            began = time.perf_counter()
            store.write([Submission(None, (item(10_000_000 + len(waits)),))], datetime.now(UTC))
            waits.append(time.perf_counter() - began)

    writer = threading.Thread(target=write)
    writer.start()
    _import(url, box)
    done.set()
    writer.join()
    engine.dispose()
    typical = statistics.median(waits)
    print(
        f"  a daemon's write beside it: {max(waits):.2f} s at worst (< 0.5), median {typical * 1000:.0f} ms"
    )


def _postgresql(folder: Path, box: Path, flags: Path) -> None:
    installed = binaries()
    if installed is None:
        print("PostgreSQL: not installed")
        return
    server = PostgresqlServer(installed, fsync=True)
    try:
        limits, ours, again = [], [], []
        for number in range(ROUNDS):
            server.sql(f"CREATE DATABASE limit_{number}")
            server.sql(f"CREATE DATABASE ours_{number}")
            limits.append(_limit(box, flags, server.url(f"limit_{number}")))
            _prepare(server.url(f"ours_{number}"))
            ours.append(_import(server.url(f"ours_{number}"), box)[0])
            again.append(_import(server.url(f"ours_{number}"), box)[0])
    finally:
        server.close()
    _say("PostgreSQL", statistics.median(limits), statistics.median(ours), "0.55", statistics.median(again))


def _say(database: str, limit: float, first: float, goal: str, second: float) -> None:
    rates = f"limit {MAILS / limit:,.0f} mails/s, import {MAILS / first:,.0f}"
    print(f"{database}: {rates}: ratio {limit / first:.2f} (>= {goal})")
    print(f"  second run, all duplicates: {first / second:.2f} of the first's rate (>= 1)")


def _limit(box: Path, flags: Path, url: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks._import_limit", box, flags, url],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    return float(done.stdout)


def _prepare(url: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "ingestor", "--database-url", url, "db", "upgrade"],
        check=True, capture_output=True,
    )  # fmt: skip


def _import(url: str, box: Path, *options: str) -> tuple[float, int]:
    """Import; return seconds and the highest PSS of all processes together."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ingestor", "--database-url", url, "import", str(box), "--json", "--quiet",
         *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    peak = [0]
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, done))
    watcher.start()
    out, err = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(err)
    return float(json.loads(out.splitlines()[-1])["seconds"]), peak[0]


def _watch(pid: int, peak: list[int], done: threading.Event) -> None:
    while not done.wait(0.25):
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            total = sum(_pss(int(one)) for one in (pid, *children))
        except OSError:
            continue
        peak[0] = max(peak[0], total)


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _peers(folder: Path, box: Path, rate: float) -> None:
    """Print how much faster the import is than a first script, and than tools that are installed."""
    naive = _naive(folder, box)
    print(f"mailbox.mbox + mail-parser + ORM, a commit a mail: {rate / naive:.0f} times its rate (>= 40)")
    if program := shutil.which("mbox-to-sqlite"):
        taken = _timed([program, "mbox", str(folder / "peer.db"), str(box)])
        print(f"mbox-to-sqlite: {rate * taken / MAILS:.1f} times; one row a Message-ID, no raw bytes")
    if program := shutil.which("mu"):
        _maildir(folder, box)
        home = f"--muhome={folder}/mu"
        subprocess.run(
            [program, "init", home, f"--maildir={folder}/maildir"], check=True, capture_output=True
        )
        taken = _timed([program, "index", home])
        print(f"mu index: {rate * taken / MAILS:.1f} times; it indexes words and keeps no bytes")
    if program := shutil.which("notmuch"):
        _maildir(folder, box)
        config = folder / "notmuch"
        config.write_text(f"[database]\npath={folder}/maildir\n[user]\nname=x\nprimary_email=x@example.org\n")
        taken = _timed([program, "--config", str(config), "new"])
        print(f"notmuch new: {rate * taken / MAILS:.1f} times; it indexes words and keeps no bytes")
    missing = [name for name in ("mbox-to-sqlite", "mu", "notmuch") if not shutil.which(name)]
    if missing:
        print(f"not installed, not measured: {', '.join(missing)}")


def _timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def _maildir(folder: Path, box: Path) -> None:
    from tests.intake.files.mails import mails

    if (folder / "maildir").exists():
        return
    for part in ("cur", "new", "tmp"):
        (folder / "maildir" / part).mkdir(parents=True)
    for number, (_, mail) in enumerate(mails(box.read_bytes())):
        (folder / "maildir" / "cur" / f"{number}.bench:2,S").write_bytes(mail)


def _naive(folder: Path, box: Path) -> float:
    """Return the rate of what a user writes first, on the first mails of the file."""
    import mailparser
    from sqlalchemy import LargeBinary, Text, create_engine, select
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class Sms(Base):
        __tablename__ = "sms"
        id: Mapped[int] = mapped_column(primary_key=True)
        originator: Mapped[str] = mapped_column(Text, index=True)
        date_time: Mapped[str] = mapped_column(Text)
        text: Mapped[str] = mapped_column(Text)
        raw: Mapped[bytes] = mapped_column(LargeBinary)

    part = folder / "part.mbox"
    with box.open("rb") as whole:
        content = whole.read(NAIVE_MAILS * 6000)
    end = 0
    for _ in range(NAIVE_MAILS):
        end = content.index(b"\n" + SEPARATOR, end) + 1
    part.write_bytes(content[:end])
    block = re.compile(r"From: ?(.*)\s+To: ?(.*)\s+Date/Time: ?(.*)\s+(?:Body|Text): ?([^\0]*)")
    engine = create_engine(f"sqlite:///{folder}/naive.db")
    Base.metadata.create_all(engine)
    began = time.perf_counter()
    seen = 0
    source = mailbox.mbox(part)
    with Session(engine) as session:
        for key in source.iterkeys():
            seen += 1
            raw = source.get_bytes(key)
            try:
                mail = mailparser.parse_from_bytes(raw)
            except AttributeError:
                continue  # it falls over some of the broken ones
            if not mail.subject.startswith("Agile Telecom"):
                continue
            found = block.search("\n".join(mail.text_plain or mail.text_html))
            if found is None:
                continue
            same = select(Sms).where(
                Sms.originator == found[1], Sms.date_time == found[3], Sms.text == found[4]
            )
            if session.scalars(same).first() is None:
                session.add(Sms(originator=found[1], date_time=found[3], text=found[4], raw=raw))
                session.commit()
    source.close()
    engine.dispose()
    return seen / (time.perf_counter() - began)


def _flat(folder: Path) -> None:
    """Print rate and memory at 100,000 rows against those at a million."""
    url = f"sqlite:///{folder}/flat.db"
    _prepare(url)
    part = folder / "part.mbox"
    rates, peaks = [], []
    for number in range(12):
        with part.open("wb") as out:
            out.writelines(_quick(number * 100_000, 100_000))
        seconds, peak = _import(url, part)
        rates.append(100_000 / seconds)
        peaks.append(peak)
        print(f"  at {number * 100_000:,} rows: {rates[-1]:,.0f} mails/s, {peak / 2**20:.0f} MB", flush=True)
    early, late = statistics.median(rates[1:3]), statistics.median(rates[10:12])
    memory = peaks[-1] / peaks[1]
    print(f"flat: {late / early:.2f} of the rate at 100,000 rows (>= 0.8), {memory:.2f} times the memory")


def _quick(first: int, count: int) -> Iterator[bytes]:
    """Yield mails that are all ours and all new, in the order of their dates, as fast as can be written."""
    pattern = next(mail for mail in generate(50, 7) if mail.variant == "7bit").raw.replace(b"\r\n", b"\n")
    header = re.sub(rb"(?m)^Date: .*\n", b"", pattern.partition(b"\n\n")[0] + b"\n")
    draw = random.Random(first)
    for number in range(first, first + count):
        moment = datetime(2014, 1, 1, tzinfo=UTC) + timedelta(seconds=number * 300)
        body = (
            f"Date: {format_datetime(moment)}\nX-Number: {number}\n\n"
            f"From: +39335{number:07}\nTo: +393331234333\nDate/Time: {moment:%Y%m%d%H%M%S}\n"
            f"Body: {draw.getrandbits(400):x}\n\n"
        )
        yield SEPARATOR + header + body.encode()


if __name__ == "__main__":
    main()
