"""One file by several names is read once; several members of one name are told apart."""

import os
import random
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from tests.intake.files.containers import tar_of, zip_of
from tests.intake.files.importing import Importer
from tests.intake.files.mails import mbox_of, sms_mail

A, B = mbox_of(sms_mail(1)), mbox_of(sms_mail(2))


def test_a_file_named_twice_is_read_once(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """By path, symbolic link, hard link and through a linked folder: one reading, the rest named."""
    folder = tmp_path / "in"
    folder.mkdir()
    box = folder / "box"
    box.write_bytes(A)
    (tmp_path / "link").symlink_to(box)
    os.link(box, tmp_path / "hard")
    (tmp_path / "folder").symlink_to(folder)
    (folder / "zz").symlink_to(box)
    done = run_sqlite_import(box, tmp_path / "link", tmp_path / "hard", tmp_path / "folder")
    assert (done.code, done.counts) == (0, (1, 1, 0, 0, 0, 0))
    assert f"{tmp_path}/link at 0: the same file as one that was read" in done.out


def test_copies_of_a_mail_in_a_maildir_are_mails(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Dovecot copies a mail by a hard link: both count; a symbolic link is none of its own."""
    for part in ("cur", "new"):
        (tmp_path / "Maildir" / part).mkdir(parents=True)
    mail = tmp_path / "Maildir" / "cur" / "1.a:2,S"
    mail.write_bytes(sms_mail(1))
    os.link(mail, tmp_path / "Maildir" / "cur" / "2.b:2,S")
    (tmp_path / "Maildir" / "new" / "3.c").symlink_to(mail)
    assert run_sqlite_import(tmp_path / "Maildir").counts == (2, 1, 1, 0, 0, 0)


def twice(*boxes: bytes, name: str = "in.mbox", pack: str = "tar") -> bytes:
    """Return an archive with several members of one name."""
    out = BytesIO()
    if pack == "tar":
        with tarfile.open(fileobj=out, mode="w") as archive:
            for box in boxes:
                member = tarfile.TarInfo(name)
                member.size = len(box)
                archive.addfile(member, BytesIO(box))
    else:
        with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as made:
            warnings.simplefilter("ignore")
            for number, box in enumerate(boxes):
                made.writestr(f"{name}\0{number}" if pack == "nul" else name, box)
    return out.getvalue()


ARCHIVES = {
    "tar -r": (twice(A, B), [1, 2]),
    "the same mailbox": (twice(A, A), [1]),
    "zip": (twice(A, B, pack="zip"), [1, 2]),
    "up to a NUL": (twice(A, B, pack="nul"), [1, 2]),
    "a name like another's inside": (zip_of({"x.zip": zip_of({"m.mbox": A}), "x.zip!m.mbox": B}), [1, 2]),
    "numbered": (tar_of({"in.mbox (2)": A}) + twice(A, B), [1, 2]),
    "archives": (twice(tar_of({"x": A}), tar_of({"x": B})), [1, 2]),
    "a mailbox and an archive": (twice(A, zip_of({"1.eml": sms_mail(2)})), [1, 2]),
    "lists": (twice(zip_of({"1.eml": sms_mail(1)}), zip_of({"1.eml": sms_mail(2)})), [1, 2]),
    "mails": (twice(sms_mail(1), sms_mail(2), name="1.eml"), [1, 2]),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_members_of_one_name_are_told_apart(run_import: Importer, tmp_path: Path, name: str) -> None:
    """Each is read, and what stands after the archive; a resume has nothing left, a second import no news."""
    packed, after = tmp_path / "packed", tmp_path / "after"
    content, numbers = ARCHIVES[name]
    packed.write_bytes(content)
    after.write_bytes(mbox_of(sms_mail(3)))
    done = run_import(packed, after)
    assert done.code == 0
    assert run_import.texts == [f"text {number}" for number in [*numbers, 3]]
    run_import.execute("UPDATE runs SET ended_at = NULL")
    resumed = run_import("--resume", done.run)
    assert (resumed.code, resumed.counts) == (0, done.counts)
    assert run_import(packed, after).counts[1] == 0


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_names_of_any_length_are_taken(
    run_import: Importer, tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    """PostgreSQL's index takes no key beyond 2.7 kB: names may be longer, and equal up to there."""
    name = "".join(f"{number:x}" for number in random.Random(1).choices(range(1 << 30), k=1500))
    large = mbox_of(*(sms_mail(number) for number in range(300)))
    packed = tmp_path / "packed"
    packed.write_bytes(pack({f"{name}1": large, f"{name}2": large[:-3], f"{name}3.eml": sms_mail(900)}))
    done = run_import(packed)
    assert (done.code, done.counts) == (1, (601, 301, 299, 0, 0, 1))
