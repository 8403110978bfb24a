"""Mail in forms that are not read, or with something around it: called by name, or taken out of it."""

import gzip
import struct
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from ingestor.intake.files.walk import refusal
from tests.intake.files.containers import COMPRESS, tar_of, zip_of
from tests.intake.files.importing import Importer
from tests.intake.files.mails import foreign_mail, mbox_of, sms_mail

FORCED = [None, "eml", "mbox"]

PROPERTY_LIST = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n'
    b'<plist version="1.0">\n<dict>\n\t<key>flags</key>\n\t<integer>8590195713</integer>\n</dict>\n</plist>\n'
)
ENCRYPTED = b"CRYPTED\x03\x07" + bytes(range(256)) * 4
REFUSED = {
    "Outlook data file": b"!BDN" + bytes(600),
    "mail_crypt": ENCRYPTED,
    "lz4": b"Dovecot-LZ4\r*\x9b\xc5" + bytes(range(256)),
    "lz4 data": b"\x04\x22\x4d\x18" + bytes(range(256)),
    "7z archive": b"7z\xbc\xaf\x27\x1c" + bytes(200),
    "RAR archive": b"Rar!\x1a\x07\x01\x00" + bytes(200),
    "MMDF mailbox": b"\x01\x01\x01\x01\nFrom a@example.org Mon Jan  8 09:00:00 2024\n" + sms_mail(1),
    "Outlook message": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "__substg1.0_0037001F".encode("utf-16-le"),
    "UTF-16": b"\xff\xfe" + sms_mail(1).decode().encode("utf-16-le"),
}


def dbox(*mails: bytes, metadata: bytes = b"R6b07699d\nVef\nG46d06e35\n") -> bytes:
    """Return a dbox file as Dovecot 2.3 writes it."""
    parts = [
        b"\x01\x02N" + b" " * 10 + b"%016X\n" % len(mail) + mail + b"\n\x01\x03\n" + metadata + b"\n"
        for mail in mails
    ]
    return b"2 M1e C6b07699d\n" + b"".join(parts)


def emlx(mail: bytes) -> bytes:
    """Return a mail as Apple Mail keeps it."""
    return b"%-10d\n" % len(mail) + mail + PROPERTY_LIST


@pytest.mark.parametrize("form", FORCED)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_called_by_name(
    run_sqlite_import: Importer, tmp_path: Path, name: str, form: str | None
) -> None:
    """However the reading is forced it is a failure with its name, and the mailbox beside it is read."""
    odd, box = tmp_path / "odd", tmp_path / "box"
    odd.write_bytes(REFUSED[name])
    box.write_bytes(mbox_of(sms_mail(7)))
    done = run_sqlite_import(*(["--format", form] if form else []), odd, box)
    assert (done.code, done.counts[0], done.counts[5]) == (1, 2, 1)
    assert name in done.err
    assert "--format" not in done.err


@pytest.mark.parametrize("form", FORCED)
@pytest.mark.parametrize(
    "content",
    [PROPERTY_LIST, b"bplist00" + bytes(range(256)), bytes(5000), bytes(range(256)) * 20, b"just text\n" * 9],
    ids=["property list", "binary list", "NULs", "noise", "text"],
)  # fmt: skip
def test_what_is_no_mail_never_ends_well_alone(
    run_sqlite_import: Importer, tmp_path: Path, content: bytes, form: str | None
) -> None:
    """Neither found nor forced does a file without any mail give an SMS, or exit 0; text may be forced."""
    odd = tmp_path / "odd"
    odd.write_bytes(content)
    done = run_sqlite_import(*(["--format", form] if form else []), odd)
    assert run_sqlite_import.texts == []
    if not (form == "eml" and content.startswith(b"just")):
        assert (done.code, done.counts[5]) == (1, 1)


@pytest.mark.parametrize("form", FORCED)
@pytest.mark.parametrize(
    "content",
    [
        emlx(sms_mail(1)), emlx(sms_mail(1, line_end=b"\r\n")), emlx(sms_mail(1)).replace(b"\n", b"\r\n"),
        sms_mail(1) + PROPERTY_LIST, dbox(sms_mail(1)), dbox(COMPRESS["gz"](sms_mail(1))),
        dbox(COMPRESS["zst"](sms_mail(1))),
    ],
    ids=["emlx", "emlx-crlf", "emlx-converted", "emlx-headless", "sdbox", "sdbox-gz", "sdbox-zstd"],
)  # fmt: skip
def test_a_mail_is_taken_out_of_what_is_around_it(
    run_sqlite_import: Importer, tmp_path: Path, content: bytes, form: str | None
) -> None:
    """The SMS has its own text, whichever format was named; a second run stores nothing."""
    odd = tmp_path / "odd"
    odd.write_bytes(content)
    options = ["--format", form] if form else []
    for _ in range(2):
        done = run_sqlite_import(*options, odd)
        assert (done.code, done.counts[0], done.counts[5]) == (0, 1, 0)
        assert run_sqlite_import.texts == ["text 1"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (emlx(sms_mail(1))[:300], "ends inside a mail"),
        (b"99        \n" + sms_mail(1), "do not agree"),
        (dbox(sms_mail(1))[:300], "ends inside a mail"),
        (dbox(sms_mail(1), sms_mail(2)), "mdbox"),
        (dbox(sms_mail(1), metadata=b"R6b07699d\nVef\nBINBOX\n"), "mdbox"),
        (dbox(ENCRYPTED), "mail_crypt"),
        (b"2 M1e C6b07699d\n" + sms_mail(1), "damaged dbox"),
    ],
)
def test_a_damaged_envelope_is_a_failure(
    run_sqlite_import: Importer, tmp_path: Path, content: bytes, words: str
) -> None:
    """A cut .emlx or dbox file, and an mdbox, give one line and no SMS."""
    odd = tmp_path / "odd"
    odd.write_bytes(content)
    done = run_sqlite_import(odd)
    assert (done.code, done.counts) == (1, (1, 0, 0, 0, 0, 1))
    assert words in done.err


def maildir(folder: Path, **mails: bytes) -> Path:
    """Make a Maildir with `mails` in `cur`."""
    for part in ("cur", "new", "tmp"):
        (folder / part).mkdir(parents=True)
    for name, mail in mails.items():
        (folder / "cur" / f"{name}:2,S").write_bytes(mail)
    return folder


@pytest.mark.parametrize(
    "content",
    [
        ENCRYPTED, REFUSED["lz4"], bytes(600), bytes(200_000), bytes(range(256)) * 9, PROPERTY_LIST,
        sms_mail(2)[:-5] + bytes(700), b"-----BEGIN PGP MESSAGE-----\n\nhQEMA1\n", b"<html>\n<p>x</p>\n",
    ],
    ids=["mail_crypt", "lz4", "NULs", "many NULs", "noise", "property list", "a tail of NULs", "PGP", "HTML"],
)  # fmt: skip
@pytest.mark.parametrize("pack", [None, tar_of, zip_of])
def test_an_unreadable_file_of_a_maildir_is_told(
    run_sqlite_import: Importer, tmp_path: Path, content: bytes, pack: object
) -> None:
    """It counts as failed, never as somebody else's mail; the mails beside it are read."""
    mails = {
        "1779000001.M1P1.mx": sms_mail(1),
        "1779000002.M2P1.mx": content,
        "1779000003.M3P1.mx": sms_mail(3),
    }
    box = maildir(tmp_path / "Maildir", **mails)
    if callable(pack):
        box = tmp_path / "packed"
        box.write_bytes(pack({f"Maildir/cur/{name}:2,S": mail for name, mail in mails.items()}))
    done = run_sqlite_import(box)
    assert (done.code, done.counts) == (1, (3, 2, 0, 0, 0, 1))
    assert "1779000002.M2P1.mx" in done.err


def test_a_file_of_a_maildir_that_is_shorter_than_its_name_says_is_told(
    run_sqlite_import: Importer, tmp_path: Path
) -> None:
    """A mail that was cut by a copy is no SMS of its own, unless somebody says that the files are whole."""
    size = len(sms_mail(1))
    mails = {f"177900000{at}.M1P1.mx,S={size},W={size}": sms_mail(at) for at in (1, 2)}
    mails[f"1779000003.M1P1.mx,S={size}"] = sms_mail(3)[:-4]
    mails[f"1779000004.M1P1.mx,S={size + 40}"] = sms_mail(4)
    box = maildir(tmp_path / "Maildir", **mails)
    done = run_sqlite_import(box)
    assert (done.code, done.counts) == (1, (4, 3, 0, 0, 0, 1))
    assert "ends inside a mail" in done.err
    assert run_sqlite_import("--whole", box).counts[1] == 1


def test_a_maildir_that_dovecot_compressed_is_read(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Its zlib, bzip2, xz and zstd plugins write whole files of these formats."""
    packed = {f"177900000{n}.M1P1.mx": pack(sms_mail(n)) for n, pack in enumerate(COMPRESS.values())}
    done = run_sqlite_import(maildir(tmp_path / "Maildir", **packed))
    assert (done.code, done.counts[:2]) == (0, (len(COMPRESS), len(COMPRESS)))


def test_a_folder_without_any_mail_never_ends_well(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Pictures beside a mailbox are listed; where there is nothing else the folder is a failure."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "picture").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(900))
    alone = run_sqlite_import(folder)
    assert (alone.code, alone.counts) == (1, (1, 0, 0, 0, 0, 1))
    assert f"{folder}: none of its 1 files is a mail" in alone.err
    (folder / "box").write_bytes(mbox_of(sms_mail(1)))
    assert run_sqlite_import(folder).code == 0


def test_an_old_macs_mailbox_is_told_how_to_convert(run_sqlite_import: Importer, tmp_path: Path) -> None:
    """Line ends of CR alone hide every separator; the line says so instead of naming --format."""
    box = tmp_path / "box"
    box.write_bytes(mbox_of(sms_mail(1), sms_mail(2)).replace(b"\n", b"\r"))
    done = run_sqlite_import(box)
    assert (done.code, done.counts) == (1, (1, 0, 0, 0, 0, 1))
    assert r"tr '\r' '\n'" in done.err


@pytest.mark.parametrize("pack", [tar_of, zip_of])
@pytest.mark.parametrize("order", [("tmp", "cur"), ("cur", "tmp"), ("tmp", "new")])
def test_a_tmp_beside_cur_or_new_is_no_mail(
    run_sqlite_import: Importer, tmp_path: Path, pack: object, order: tuple[str, str]
) -> None:
    """A delivery that never ended stays out of archives too, whatever the order of their members."""
    assert callable(pack)
    parts = {"tmp": sms_mail(1, "cut sh"), "cur": sms_mail(1, "whole"), "new": sms_mail(1, "whole")}
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(pack({f"./a/Maildir/{part}/1779.x": parts[part] for part in order})))
    assert run_sqlite_import(packed).counts[:2] == (1, 1)
    assert run_sqlite_import.texts == ["whole"]
    packed.write_bytes(pack({"tmp/old.mbox": mbox_of(sms_mail(5)), "cure/1": foreign_mail(1)}))
    assert run_sqlite_import(packed).counts[:2] == (2, 1)


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 93, 95]
)
def test_every_zip_method_that_streams_can_read_is_read(
    run_sqlite_import: Importer, tmp_path: Path, method: int
) -> None:
    """Members by xz and zstd are written by 7-Zip and WinZip; the standard library's zipfile has neither."""
    box = mbox_of(*(sms_mail(n) for n in range(50)))
    packed = tmp_path / "packed.zip"
    if method in (93, 95):
        packed.write_bytes(_zip_by_hand(box, COMPRESS["zst" if method == 93 else "xz"](box), method))
    else:
        with zipfile.ZipFile(packed, "w", method) as archive:
            archive.writestr("box", box)
    done = run_sqlite_import(packed)
    assert (done.code, done.counts[:2]) == (0, (50, 50))
    damaged = bytearray(packed.read_bytes())
    damaged[14:18] = damaged[damaged.index(b"PK\1\2") + 16 :][:4] = b"\1\2\3\4"
    at = damaged.index(b"PK\1\2") + 16
    damaged[at : at + 4] = b"\1\2\3\4"
    packed.write_bytes(damaged)
    assert run_sqlite_import(packed).code == 1


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (98, "PPMd"), (77, "unknown")])
def test_an_unknown_zip_method_is_called_so(
    run_sqlite_import: Importer, tmp_path: Path, method: int, name: str
) -> None:
    """Not "encrypted": the method, and what to do."""
    packed = tmp_path / "packed.zip"
    packed.write_bytes(_zip_by_hand(b"x" * 100, b"y" * 50, method))
    done = run_sqlite_import(packed)
    assert (done.code, done.counts[5]) == (1, 1)
    assert f"compressed by method {method} ({name})" in done.err
    assert "encrypted" not in done.err


def _zip_by_hand(content: bytes, compressed: bytes, method: int) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("box", compressed)
    made = bytearray(out.getvalue())
    entry = made.index(b"PK\1\2")
    import zlib

    for base in (6, entry + 8):
        made[base + 2 : base + 4] = struct.pack("<H", method)
        made[base + 8 : base + 20] = struct.pack("<LLL", zlib.crc32(content), len(compressed), len(content))
    return bytes(made)


def test_other_utf_16_text_is_nothing_that_is_known() -> None:
    """Only what begins like mail is called mail."""
    assert refusal(b"\xff\xfe" + "dear all, hello".encode("utf-16-le")) is None
