"""Tar archives that are cut, damaged, joined or odd: every mail is read, or one is said to be missing."""

import tarfile
from pathlib import Path

import pytest

from tests.intake.files.containers import tar_of
from tests.intake.files.importing import Importer
from tests.intake.files.mails import sms_mail

ONE, TWO = (tar_of({f"{number}.eml": sms_mail(number)}) for number in (1, 2))
BOTH = tar_of({f"{number}.eml": sms_mail(number) for number in (1, 2)})
SECOND = BOTH.index(b"2.eml")  # its header
END = (len(BOTH.rstrip(b"\0")) + 511) & ~511

DAMAGED = {
    "cut between two members": (BOTH[:SECOND], 1),
    "cut in a header": (BOTH[: SECOND + 100], 1),
    "cut before its end mark": (BOTH[:END], 2),
    "a header with a wrong sum": (BOTH[: SECOND + 148] + b"7" + BOTH[SECOND + 149 :], 1),
    "no archive behind it": (ONE + b"junk" * 200, 1),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_tar_that_is_not_whole_is_told(run_sqlite_import: Importer, tmp_path: Path, name: str) -> None:
    """What stands before the damage is stored, the archive fails by name, and the run ends with 1."""
    archive, whole = DAMAGED[name]
    (box := tmp_path / "box.tar").write_bytes(archive)
    done = run_sqlite_import(box)
    assert (done.code, done.counts[1], done.counts[5]) == (1, whole, 1)
    assert f"{box} is a damaged tar archive" in done.err


def of_another_type(archive: bytes) -> bytes:
    """Return `archive` with its first file, behind a folder, of a type that nobody has defined."""
    header = bytearray(archive[512:1024])
    header[156:157] = b"Z"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return archive[:512] + bytes(header) + archive[1024:]


WHOLE = {
    "two joined": ONE + TWO,
    "a block of NULs between": BOTH[:SECOND] + bytes(512) + BOTH[SECOND:],
    "one mark of the end": BOTH[: END + 512],
    "an unknown type, as POSIX has it a file": of_another_type(BOTH),
}


@pytest.mark.parametrize("name", WHOLE)
def test_an_odd_tar_is_read_to_its_end(run_sqlite_import: Importer, tmp_path: Path, name: str) -> None:
    """Both mails are stored."""
    (box := tmp_path / "box.tar").write_bytes(WHOLE[name])
    assert tarfile.is_tarfile(box)
    done = run_sqlite_import(box)
    assert (done.code, done.counts) == (0, (2, 2, 0, 0, 0, 0))


def test_a_long_mail_that_ends_in_nuls_is_cut(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """A mail longer than what is looked at to tell its kind fails like a short one."""
    (mail := tmp_path / "1.eml").write_bytes(sms_mail(1, "x" * 100_000) + bytes(600))
    done = run_sqlite_import(mail)
    assert (done.code, done.counts[1]) == (1, 0)
    assert "ends in NUL bytes" in done.err
