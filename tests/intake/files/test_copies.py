"""An import records where each copy of a mail lay, once for the same place."""

import contextlib
import shutil
import zipfile
from pathlib import Path

import pytest

from ingestor.intake.files.delivery import Copies
from tests.intake.files.importing import Importer
from tests.intake.files.mails import mbox_of, sms_mail
from tests.intake.files.test_resume import small_steps, stopped_after

__all__ = ["small_steps"]

ARRIVALS = "SELECT input, member, byte_offset, outcome FROM arrivals_detail ORDER BY id"


def in_all(run_import: Importer) -> tuple[int, int]:
    """Return how many arrivals and how many payloads there are."""
    [(arrivals,)] = run_import.rows("SELECT count(*) FROM arrivals")
    [(payloads,)] = run_import.rows("SELECT count(*) FROM payloads")
    return arrivals, payloads


def test_copies_in_one_mbox_and_in_others_are_arrivals(run_import: Importer, tmp_path: Path) -> None:
    """Each copy has its row, the bytes are kept once, and a second run adds nothing."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(mbox_of(sms_mail(1), sms_mail(2), sms_mail(1)))
    two.write_bytes(mbox_of(sms_mail(2), sms_mail(3)))
    assert run_import(one, two).counts == (5, 3, 2, 0, 0, 0)
    assert run_import.rows("SELECT text, arrivals FROM inbound_sms ORDER BY id") == [
        ("text 1", 2), ("text 2", 2), ("text 3", 1),
    ]  # fmt: skip
    assert in_all(run_import) == (5, 3)
    before = run_import.rows(ARRIVALS)
    assert [(Path(path).name, outcome) for path, _, _, outcome in before] == [
        ("one", "stored"), ("one", "stored"), ("one", "duplicate"), ("two", "duplicate"), ("two", "stored"),
    ]  # fmt: skip
    assert run_import(one, two).counts == (5, 0, 5, 0, 0, 0)
    assert run_import.rows(ARRIVALS) == before


def test_a_compacted_mbox_has_the_same_places(run_import: Importer, tmp_path: Path) -> None:
    """Mails in front are gone and all others moved: none arrived again; a copy appended since did."""
    box = tmp_path / "box"
    box.write_bytes(mbox_of(*(sms_mail(number) for number in (1, 2, 3, 3, 4))))
    run_import(box)
    assert in_all(run_import) == (5, 4)
    box.write_bytes(mbox_of(*(sms_mail(number) for number in (3, 3, 4))))
    assert run_import(box).counts == (3, 0, 3, 0, 0, 0)
    assert in_all(run_import) == (5, 4)
    box.write_bytes(mbox_of(*(sms_mail(number) for number in (3, 3, 4, 4, 5))))
    assert run_import(box).counts == (5, 1, 4, 0, 0, 0)
    assert in_all(run_import) == (7, 5)


def test_a_maildirs_mail_that_was_read_meanwhile_is_the_same(run_import: Importer, tmp_path: Path) -> None:
    """It moved from `new` to `cur` and got flags; a copy in another folder is another place."""
    for part in ("cur", "new", "tmp", ".Sent/cur", ".Sent/new"):
        (tmp_path / "Maildir" / part).mkdir(parents=True)
    mail = tmp_path / "Maildir" / "new" / "1700000000.M1.host"
    mail.write_bytes(sms_mail(1))
    assert run_import(tmp_path / "Maildir").counts == (1, 1, 0, 0, 0, 0)
    read = tmp_path / "Maildir" / "cur" / "1700000000.M1.host:2,RS"
    mail.rename(read)
    assert run_import(tmp_path / "Maildir").counts == (1, 0, 1, 0, 0, 0)
    assert in_all(run_import) == (1, 1)
    shutil.copy(read, tmp_path / "Maildir" / ".Sent" / "cur")
    assert run_import(tmp_path / "Maildir").counts == (2, 0, 2, 0, 0, 0)
    assert in_all(run_import) == (2, 1)


def test_members_and_single_mails_are_places(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """An .eml, the same mail as a member of a ZIP, and twice in a mailbox in it: four places."""
    (tmp_path / "one.eml").write_bytes(sms_mail(1))
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        archive.writestr("one.eml", sms_mail(1))
        archive.writestr("box", mbox_of(sms_mail(1), sms_mail(1)))
    for stored in (1, 0):
        paths = tmp_path / "one.eml", tmp_path / "old.zip"
        assert run_sqlite_import(*paths).counts == (4, stored, 4 - stored, 0, 0, 0)
        assert in_all(run_sqlite_import) == (4, 1)
    members = {(Path(path).name, member) for path, member, *_ in run_sqlite_import.rows(ARRIVALS)}
    assert members == {("one.eml", None), ("old.zip", "one.eml"), ("old.zip", "box")}


def test_the_same_file_by_another_path_is_another_place(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """A backup's backup: its mails lie there, too. A path that is written otherwise is the same."""
    box = tmp_path / "box"
    box.write_bytes(mbox_of(sms_mail(1)))
    run_sqlite_import(box)
    with contextlib.chdir(tmp_path):
        run_sqlite_import("./box")
        run_sqlite_import("../" + tmp_path.name + "/box")
    assert in_all(run_sqlite_import) == (1, 1)
    (tmp_path / "backup").mkdir()
    shutil.copy(box, tmp_path / "backup" / "box")
    run_sqlite_import(tmp_path / "backup")
    assert in_all(run_sqlite_import) == (2, 1)


@pytest.mark.usefixtures("small_steps")
def test_a_run_that_is_resumed_counts_on(
    run_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies behind the place where it was stopped are numbered as if it had never been."""
    mails = [sms_mail(number) for number in range(600)]
    box = tmp_path / "box"
    box.write_bytes(mbox_of(*mails, mails[0], mails[0], mails[5]))
    stopped = stopped_after(run_import, monkeypatch, 3, box)
    [(there,)] = run_import.rows("SELECT count(*) FROM arrivals")
    assert 0 < there < 600
    run_import("--resume", stopped.run)
    assert in_all(run_import) == (603, 600)
    assert run_import.rows("SELECT max(arrivals) FROM inbound_sms") == [(3,)]
    assert run_import(box).counts == (603, 0, 603, 0, 0, 0)
    assert in_all(run_import) == (603, 600)


def test_many_keys_leave_memory(tmp_path: Path) -> None:
    """Each key has its numbers in order, however many there are, and no file with a name is left."""
    before = set(tmp_path.iterdir())
    with contextlib.chdir(tmp_path):
        copies = Copies([(b"before", 2)])
        for number in range(20_000):
            assert copies.numbers([b"%020d" % number]) == [0]
        assert copies.numbers([b"before"]) == [2]
        assert copies.numbers([b"before", b"new", b"%020d" % 7, b"before", b"new"]) == [3, 0, 1, 4, 1]
    assert set(tmp_path.iterdir()) == before
