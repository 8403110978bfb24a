"""Files made to cost memory or time without end: each has its bound, and what stands beside it is read."""

import bz2
import gzip
import lzma
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import zstandard

from ingestor.intake.files import importer, streams
from tests.intake.files.containers import COMPRESS, tar_of, zip_of
from tests.intake.files.importing import Importer
from tests.intake.files.mails import foreign_mail, mbox_of, sms_mail

MOST_KILOBYTES = 300_000
# A process of its own: what a child has used counts from its parent's memory on.
MEASURE = (
    "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
    "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)
ZEROS = bytes(32 << 20)


def zip_by_hand(compressed: bytes, method: int, times: int = 1, size: int = 1 << 30, crc: int = 0) -> bytes:
    """Return a zip archive whose directory names one member `times` times, and says of it what is given."""
    head = struct.pack("<HHHHHLLLHH", 20, 0, method, 0, 0, crc, len(compressed), size, 1, 0)
    entry = b"PK\1\2" + struct.pack("<H", 20) + head + bytes(14) + b"a"
    local = b"PK\3\4" + head + b"a" + compressed
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, times, times, len(entry) * times, len(local), 0)
    return local + entry * times + end


def lzma_member(dictionary: int) -> bytes:
    """Return 32 MiB of zeros as zip keeps them by LZMA, with what they say of the memory they need."""
    chain = {"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20}
    raw = lzma.compress(ZEROS * 8, lzma.FORMAT_RAW, filters=[chain])
    return b"\x09\x04\x05\0" + bytes([93]) + struct.pack("<L", dictionary) + raw


def tar_header(name: bytes, size: int, kind: bytes) -> bytearray:
    """Return a header that claims `size` bytes."""
    header = bytearray(512)
    header[: len(name)] = name
    header[100:124] = b"0000644\0" + b"0000000\0" * 2
    header[124:148] = b"\x80\0\0\0" + struct.pack(">Q", size) + b"00000000000\0"
    header[156:157] = kind
    header[257:265] = b"ustar  \0"
    return _summed(header)


def _summed(header: bytearray) -> bytearray:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return header


def global_header(numbers: range) -> bytes:
    """Return a global header of pax with a keyword for each number."""
    lines = b"".join(b"18 key%010d=\n" % number for number in numbers)
    return bytes(tar_header(b"g", len(lines), b"g")) + lines + bytes(-len(lines) % 512)


def sparse_tar(size: int) -> bytes:
    """Return a GNU sparse file of `size` bytes, none of which is there."""
    header = tar_header(b"s", 0, b"S")
    header[386:410] = b"\x80\0\0\0" + struct.pack(">Q", size) + b"00000000000\0"
    header[483:495] = b"\x80\0\0\0" + struct.pack(">Q", size)
    return bytes(_summed(header)) + bytes(1024)


BOMBS: dict[str, Callable[[], bytes]] = {
    "bzip2 in zip": lambda: zip_by_hand(bz2.compress(ZEROS) * 32, zipfile.ZIP_BZIP2),
    "LZMA in zip": lambda: zip_by_hand(lzma_member(1 << 26), zipfile.ZIP_LZMA),
    "LZMA that asks for 4 GiB": lambda: zip_by_hand(lzma_member((1 << 32) - 1), zipfile.ZIP_LZMA),
    "xz in zip": lambda: zip_by_hand(lzma.compress(ZEROS) * 32, 95),
    "zstd in zip": lambda: zip_by_hand(zstandard.ZstdCompressor().compress(ZEROS) * 32, 93),
    "a sparse file of 1 PiB": lambda: sparse_tar(1 << 50),
    "a header of 1 PiB": lambda: bytes(tar_header(b"x", 1 << 50, b"x")) + bytes(1024),
    "a header of 256 MiB": lambda: gzip.compress(bytes(tar_header(b"x", 1 << 28, b"L")) + ZEROS * 8),
    "headers upon headers": lambda: gzip.compress((bytes(tar_header(b"x", 1, b"L")) + bytes(512)) * 9000),
    "global headers": lambda: gzip.compress(
        b"".join(global_header(range(n, n + 9000)) for n in range(0, 900_000, 9000))
    ),
    "one member named 65,000 times": lambda: zip_by_hand(b"", 0, 65_000, 0),
    "empty gzip streams": lambda: gzip.compress(gzip.compress(b"") * 400_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_given_up_within_300_megabytes(
    run_sqlite_import: Importer, tmp_path: Path, name: str
) -> None:
    """It is one failure, or a few, of the import; the mailbox behind it on the command line is read."""
    bomb, box = tmp_path / "bomb", tmp_path / "box"
    bomb.write_bytes(BOMBS[name]())
    box.write_bytes(mbox_of(sms_mail(1)))
    command = [sys.executable, "-m", "ingestor", "--database-url", run_sqlite_import.url, "import", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *command, str(bomb), str(box)], capture_output=True, text=True
    )
    code, most = map(int, done.stdout.split())
    assert code == 1
    assert most < MOST_KILOBYTES
    assert run_sqlite_import.texts == ["text 1"]
    assert done.stderr.count("\n") <= 102


def test_an_honest_member_beside_overlapping_ones_is_read(
    run_sqlite_import: Importer, tmp_path: Path
) -> None:
    """Members that begin inside another are refused by name; the first, and what lies apart, is read."""
    content = mbox_of(sms_mail(1))
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    member = packed.compress(content) + packed.flush()
    bomb = zip_by_hand(member, zipfile.ZIP_DEFLATED, 300, len(content), zlib.crc32(content))
    out = BytesIO(bomb)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("honest", mbox_of(sms_mail(2)))
    path = tmp_path / "bomb.zip"
    path.write_bytes(out.getvalue())
    done = run_sqlite_import(path)
    assert done.code == 1
    assert run_sqlite_import.texts == ["text 1", "text 2"]
    assert f"{path}!a overlaps another member" in done.err
    assert "199 further members cannot be read" in done.err


@pytest.mark.parametrize("name", COMPRESS)
def test_frames_without_content_count_too(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A million empty streams in a row are work, though not a byte comes out of them."""
    monkeypatch.setattr(streams, "FREE_BYTES", 1 << 20)
    bomb = tmp_path / "bomb"
    bomb.write_bytes(gzip.compress(COMPRESS[name](b"") * 20_000))
    assert "decompression bomb" in run_sqlite_import(bomb).err


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_small_mailboxes_of_an_archive_need_no_row_each(
    run_import: Importer, tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    """They are places in its list: one row, one step after the other, and a resume that has nothing left."""
    boxes = {f"{n}.mbox": mbox_of(foreign_mail(n), sms_mail(n)) for n in range(40)}
    packed = tmp_path / "packed"
    packed.write_bytes(pack(boxes))
    done = run_import(packed)
    assert (done.code, done.counts) == (0, (80, 40, 0, 40, 0, 0))
    assert run_import.rows("SELECT path, member, position, size FROM run_inputs") == [
        (str(packed), "", 40, 40)
    ]
    run_import.execute("UPDATE runs SET ended_at = NULL")
    assert run_import("--resume", done.run).counts == done.counts


def test_cut_members_without_end_are_a_bomb(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a row of its own, for a resume; a thousand of them in a small file is no accident."""
    monkeypatch.setattr(importer, "INPUT_COST", 8 << 20)
    bomb = tmp_path / "bomb"
    bomb.write_bytes(COMPRESS["xz"](tar_of({f"{n}.mbox": mbox_of(sms_mail(n))[:-5] for n in range(100)})))
    done = run_sqlite_import(bomb)
    assert "decompression bomb" in done.err
    assert done.counts[5] < 50
