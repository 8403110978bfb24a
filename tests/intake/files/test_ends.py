"""Mailboxes that end inside a mail, or change while they are read: no cut SMS is stored, and it is said."""

import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ingestor.intake.files import importer
from tests.intake.files.containers import tar_of, zip_of
from tests.intake.files.importing import Importer
from tests.intake.files.mails import foreign_mail, mbox_of, sms_mail

TEXT = "the quick brown fox jumps over the lazy dog and pays 1000 euro"
BOX = mbox_of(sms_mail(1), foreign_mail(1), sms_mail(2, TEXT))
LAST = BOX.rindex(b"From smsin@agiletelecom.com Mon")
CUTS = {
    "in the text": 12,
    "at its last byte": 2,
    "in the header": 250,
    "in the separator": len(BOX) - LAST - 52,
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_cut_mail_is_left_for_the_next_import(run_import: Importer, tmp_path: Path, cut: str) -> None:
    """The whole mails are stored, the cut one fails with its reason; once it is whole, a resume takes it."""
    box = tmp_path / "box"
    box.write_bytes(BOX[: -CUTS[cut]])
    done = run_import(box)
    assert (done.code, done.counts) == (1, (3, 1, 0, 1, 0, 1))
    assert (
        f"{box}: the file ends inside a mail: {len(BOX) - CUTS[cut] - LAST:,} bytes from {LAST:,} on"
        in done.err
    )
    assert "--whole" in done.err
    assert run_import.texts == ["text 1"]
    assert run_import("--resume", done.run, box).code == 1
    box.write_bytes(BOX)
    again = run_import("--resume", done.run, box)
    assert (again.code, again.counts) == (0, (3, 2, 0, 1, 0, 0))
    assert run_import.texts == ["text 1", TEXT]
    assert run_import(box).counts == (3, 0, 2, 1, 0, 0)


@pytest.mark.parametrize("behind", [b"", b"\n", b"\n\n", b"\n" + bytes(700), b"\r\n"])
def test_a_mail_with_its_line_end_is_whole(
    run_sqlite_import: Importer, tmp_path: Path, behind: bytes
) -> None:
    """The empty line may be missing, NULs of a crash may follow; with --whole the line end may be missing."""
    box = tmp_path / "box"
    box.write_bytes(BOX.rstrip(b"\n") + behind)
    assert run_sqlite_import(*([] if behind else ["--whole"]), box).counts == (3, 2, 0, 1, 0, 0)
    assert run_sqlite_import.texts == ["text 1", TEXT]


def test_a_resume_may_say_that_the_file_is_whole(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """What was held back is taken by the same run, and its command names the option again."""
    box = tmp_path / "box"
    box.write_bytes(BOX.rstrip(b"\n"))
    done = run_sqlite_import(box)
    assert done.counts[5] == 1
    whole = run_sqlite_import("--whole", "--resume", done.run)
    assert (whole.code, whole.counts) == (0, (3, 2, 0, 1, 0, 0))


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zip": lambda box: zip_of({"a/box": box, "b": mbox_of(sms_mail(9))}),
    "tar": lambda box: tar_of({"a/box": box, "b": mbox_of(sms_mail(9))}),
}


@pytest.mark.parametrize("pack", PACKED)
def test_a_packed_mailbox_may_be_cut_too(run_sqlite_import: Importer, tmp_path: Path, pack: str) -> None:
    """Whole archives of a copy that was cut: the last mail fails, what stands beside it is read."""
    packed = tmp_path / "packed"
    packed.write_bytes(PACKED[pack](BOX[:-9]))
    done = run_sqlite_import(packed)
    assert (done.code, done.counts[5]) == (1, 1)
    assert "ends inside a mail" in done.err
    assert run_sqlite_import.texts == ["text 1", *(["text 9"] if pack != "gzip" else [])]


def test_a_pipe_may_be_cut_too(run_sqlite_import: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes through stdin has no size, but an end."""

    class Stdin:
        buffer = io.BytesIO(BOX[:-9])

    monkeypatch.setattr(sys, "stdin", Stdin)
    done = run_sqlite_import("-")
    assert (done.code, done.counts) == (1, (3, 1, 0, 1, 0, 1))


def test_a_stated_length_tells_a_cut_at_a_line_end(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """A Content-Length that goes beyond the end shows it, unless the empty line behind a mail is there."""
    mail = sms_mail(1, "one\ntwo\nthree")
    counted = mail.replace(b"\n\n", b"\nContent-Length: %d\n\n" % (len(mail) - mail.index(b"\n\n") - 2), 1)
    box = tmp_path / "box"
    whole = mbox_of(sms_mail(2), counted)
    box.write_bytes(whole[: whole.index(b"two")])
    assert run_sqlite_import(box).counts == (2, 1, 0, 0, 0, 1)
    box.write_bytes(whole[:-1])
    assert run_sqlite_import(box).counts == (2, 1, 1, 0, 0, 0)


def test_a_long_mail_may_be_cut_too(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """A mail longer than a block is held back like any other, and taken once it is whole."""
    box = tmp_path / "box"
    content = mbox_of(sms_mail(1), sms_mail(2, "x" * 5_000_000))
    box.write_bytes(content[:-2])
    done = run_sqlite_import(box)
    assert (done.code, done.counts) == (1, (2, 1, 0, 0, 0, 1))
    box.write_bytes(content)
    again = run_sqlite_import("--resume", done.run)
    assert (again.code, again.counts) == (0, (2, 1, 0, 0, 1, 0))


def changing(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Have `change` done between the walk and the reading of each file."""
    real = importer.OpenFile

    def opened(*arguments: object) -> object:
        change()
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(importer, "OpenFile", opened)


def test_a_file_that_grows_keeps_its_last_mail(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes to it may be inside a mail whatever its last byte is; it is said, and read later."""
    box = tmp_path / "box"
    more = mbox_of(sms_mail(5))
    box.write_bytes(BOX)
    with monkeypatch.context() as patch:
        changing(patch, lambda: box.write_bytes(BOX + more))
        done = run_sqlite_import(box)
    assert (done.code, done.counts) == (1, (4, 2, 0, 1, 0, 1))
    assert f"it became longer by {len(more):,} bytes while it was read" in done.err
    assert run_sqlite_import("--resume", done.run).counts == (4, 3, 0, 1, 0, 0)


def test_a_packed_file_that_grows_is_told(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar that somebody appends to gives what it has, and it is said; a gzip keeps its last mail."""
    packed = tmp_path / "packed"
    for content, code, stored in (
        (tar_of({"a": BOX, "b.eml": sms_mail(9)}), 0, 3),
        (gzip.compress(mbox_of(sms_mail(5), sms_mail(6))), 1, 1),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            packed.write_bytes(content)
            changing(patch, lambda content=content: packed.write_bytes(content + bytes(1024)))
            done = run_sqlite_import(packed)
        assert (done.code, done.counts[1]) == (code, stored)
        assert "became longer by 1,024 bytes" in done.err


def test_a_growing_file_may_be_said_to_be_whole(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --whole all of it is taken, and the growth is said all the same."""
    box = tmp_path / "box"
    box.write_bytes(BOX)
    changing(monkeypatch, lambda: box.write_bytes(BOX + mbox_of(sms_mail(5))))
    done = run_sqlite_import("--whole", box)
    assert (done.code, done.counts) == (0, (4, 3, 0, 1, 0, 0))
    assert "became longer" in done.err


def test_a_single_mail_needs_no_line_end_but_quiet(
    run_sqlite_import: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An .eml is no mbox: it ends where it ends. One that is written to while it is read fails."""
    mail = tmp_path / "mail.eml"
    mail.write_bytes(sms_mail(1).rstrip())
    assert run_sqlite_import(mail).counts == (1, 1, 0, 0, 0, 0)
    mail.write_bytes(sms_mail(2)[:-9])
    changing(monkeypatch, lambda: mail.write_bytes(sms_mail(2)[:-3]))
    done = run_sqlite_import(mail)
    assert (done.code, done.counts) == (1, (1, 0, 0, 0, 0, 1))
    assert "became longer" in done.err
