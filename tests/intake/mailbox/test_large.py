"""Large mails and large folders: kept, told, and never a reason to run out of memory."""

import base64
import subprocess
import sys
from pathlib import Path
from random import Random

from ingestor.archive import tables
from ingestor.archive.engine import reading
from ingestor.archive.payloads import unpack
from tests.intake.mailbox.desk import FOREIGN, Desk, mail
from tests.servers.imap.server import ImapServer
from tests.waiting import until

MIB = 1024 * 1024
FOLDER_SIZE = 200_000
MOST_MEMORY = 200 * MIB


def large(size: int) -> bytes:
    """Return a mail of ours of exactly `size` bytes, which no compression makes much smaller."""
    noise = base64.encodebytes(Random(size).randbytes(size)).replace(b"\n", b"\r\n")
    return (mail(1) + noise)[:size]


def stored(desk: Desk) -> list[bytes]:
    """Return all raw mails of the archive."""
    with reading(desk.engine) as connection:
        known = {row.id: row.bytes for row in connection.execute(tables.dictionaries.select())}
        rows = connection.execute(tables.payloads.select())
        return [unpack(row.compressed, row.dictionary_id, known) for row in rows]


def test_a_mail_over_a_mebibyte_is_kept_whole_in_the_quarantine(desk: Desk, server: ImapServer) -> None:
    """It is fetched in pieces, kept to the byte and not parsed; the reason says so."""
    raw = large(3 * MIB + 17)
    server.deliver(raw)
    server.deliver(mail(2))
    asked: list[bytes] = []
    server.faults.on_command = lambda name, words: asked.append(words) if name == "UID FETCH" else None

    desk.thread(server.port, start=False).run_once()

    assert desk.has(2)
    assert raw in stored(desk)
    [reason] = desk.column("SELECT reason FROM quarantine")
    assert str(len(raw)) in str(reason)
    assert "kept whole" in str(reason)
    assert b"1 (BODY.PEEK[]<2097152.1048576>)" in asked


def test_of_a_mail_over_the_limit_the_first_mebibyte_is_kept(desk: Desk, server: ImapServer) -> None:
    """Beyond `max_mail_bytes` the beginning is kept, and no more than it is fetched."""
    raw = large(4 * MIB)
    server.deliver(raw)
    asked: list[bytes] = []
    server.faults.on_command = lambda name, words: asked.append(words) if b"BODY.PEEK[]" in words else None

    desk.thread(server.port, start=False, max_mail_bytes=2 * MIB).run_once()

    assert stored(desk) == [raw[:MIB]]
    [reason] = desk.column("SELECT reason FROM quarantine")
    assert f"first {MIB} bytes" in str(reason)
    assert asked == [b"1 (BODY.PEEK[]<0.1048576>)"]


def test_sizes_that_the_server_gets_wrong(desk: Desk, server: ImapServer) -> None:
    """RFC822.SIZE may lie: too small, and the mail comes in pieces after all; too large, and it is kept."""
    box = server.boxes["INBOX"]
    liar = large(6 * MIB)
    server.call(lambda: box.deliver(liar, size=10))
    server.call(lambda: box.deliver(mail(2), size=5 * MIB))
    server.call(lambda: box.deliver(mail(3), size=0))
    server.call(lambda: box.deliver(mail(4), size=99 * MIB))

    thread = desk.thread(server.port)
    until(lambda: thread.state == "watching" and desk.count("arrivals") == 4)

    assert {"text 2", "text 3"} <= set(desk.texts())
    assert liar in stored(desk)
    assert desk.balance.adds_up


def test_a_folder_of_200000_mails_stays_below_200_mb(server: ImapServer, tmp_path: Path) -> None:
    """The whole process, archive included, keeps below the limit; one mail of 30 MB is among them."""
    box = server.boxes["INBOX"]
    ours = {uid: mail(uid) for uid in range(50, FOLDER_SIZE, 400)}
    ours[777] = large(30 * MIB)

    def fill() -> None:
        for uid in range(1, FOLDER_SIZE + 1):
            raw = ours.get(uid, FOREIGN)
            box.deliver(raw)

    server.call(fill)

    done = subprocess.run(
        [sys.executable, "-m", "tests.intake.mailbox.read_once", str(server.port), str(tmp_path / "a.db")],
        capture_output=True, text=True, timeout=280, cwd=Path(__file__).parents[3],
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    peak, read, stored_count, quarantined = map(int, done.stdout.splitlines()[-1].split())
    assert (read, stored_count, quarantined) == (FOLDER_SIZE, len(ours) - 1, 1)
    assert peak < MOST_MEMORY
