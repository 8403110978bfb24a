"""What there is to read: which files, in which order, and what each holds.

A folder says by its form which files are mails (Maildir, MH); all else is told from its content and never
from its name. Mail in a form that is not read here is called by name, with what to do: taking it for text
would end well and lose what is in it. Magic numbers: libmagic, and for Dovecot's own `istream-lz4` and
`dcrypt-openssl`.
"""

import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ingestor.intake.files.mbox import LOOKAHEAD, is_header_line, next_separator, separator_end
from ingestor.redaction import as_text

HEAD = LOOKAHEAD + 1024

EMLX = re.compile(rb"(\d{1,10})[ \t]*\r?\n")
"""The first line of a mail of Apple Mail: its length."""

DBOX = re.compile(rb"2 M([0-9a-f]{1,4}) C[0-9a-f]{1,16}(?: [^\n]{0,200})?\n")
"""The first line of a dbox file: how long the header before each mail is, and when the file was made."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Kind(StrEnum):
    MBOX = "mbox"
    MAIL = "mail"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"
    ZIP = "zip"
    TAR = "tar"
    EMLX = "emlx"
    DBOX = "dbox"
    REFUSED = "refused"
    EMPTY = "empty"
    UNKNOWN = "unknown"


COMPRESSED = frozenset({Kind.GZIP, Kind.BZIP2, Kind.XZ, Kind.ZSTD})

_MAGIC = (
    (b"\x1f\x8b\x08", Kind.GZIP),
    (b"\xfd7zXZ\0", Kind.XZ),
    (b"\x28\xb5\x2f\xfd", Kind.ZSTD),
    (b"PK\x03\x04", Kind.ZIP),
    (b"PK\x05\x06", Kind.ZIP),
    (b"PK\x07\x08", Kind.ZIP),
)
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")


def sniff(head: bytes) -> Kind:
    """Return what begins with `head` (up to `HEAD` bytes; fewer only when the stream is shorter)."""
    if not head:
        return Kind.EMPTY
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"BZh") and head[4:10] in _BZIP2_BLOCKS:
        return Kind.BZIP2
    if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return Kind.ZSTD  # a skippable frame, as pzstd puts in front
    if _is_tar(head):
        return Kind.TAR
    if DBOX.match(head):
        return Kind.DBOX
    if (line := EMLX.match(head)) and (is_header_line(head, line.end(), len(head)) or not head[line.end() :]):
        return Kind.EMLX
    if refusal(head):
        return Kind.REFUSED
    return _text_kind(head.removeprefix(BYTE_ORDER_MARK))


def _is_tar(head: bytes) -> bool:
    """Check the header's sum: old tar files have no magic."""
    block = head[:512]
    if len(block) < 512 or not block[0]:
        return False
    try:
        stated = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return stated == sum(block) - sum(block[148:156]) + 8 * 0x20


def _text_kind(text: bytes) -> Kind:
    """Tell mbox, mail and neither apart; empty lines and NULs in front are forgiven."""
    start = len(text) - len(text.lstrip(b"\r\n\0"))
    text = text[start:]
    if not text:
        return Kind.EMPTY if start == 0 else Kind.MBOX
    # A damaged head must not turn a whole mailbox into one mail, or into nothing.
    if separator_end(text, 0, len(text)) or _holds_separator(text):
        return Kind.MBOX
    return Kind.MAIL if is_header_line(text, 0, len(text)) else Kind.UNKNOWN


def _holds_separator(text: bytes) -> bool:
    at, end = 0, 0
    while at >= 0:
        at, end = next_separator(text, end, len(text))
        if (
            at >= 0
            and text[max(0, at - 3) : at].endswith((b"\n\n", b"\n\r\n"))
            and is_header_line(text, end, len(text))
        ):
            return True
    return False


BY_DOVECOT = "read it through IMAP, or write it anew by `doveadm backup`"
_UNPACK = "unpack it and import the result"
_FOREIGN = (
    (b"!BDN", "an Outlook data file (PST or OST); convert it with `readpst -D -o OUT FILE`, and import OUT"),
    (
        b"\xcf\xad\x12\xfe",
        "an Outlook Express mailbox (DBX); convert it with `undbx`, and import what it writes",
    ),
    (b"CRYPTED\x03\x07", f"encrypted by Dovecot's mail_crypt; {BY_DOVECOT}"),
    (b"Dovecot-LZ4\r*\x9b\xc5", f"compressed by Dovecot with lz4; {BY_DOVECOT}"),
    (b"\x04\x22\x4d\x18", f"lz4 data; {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {_UNPACK}"),
    (b"Rar!\x1a\x07", f"a RAR archive; {_UNPACK}"),
    (b"LZIP\x01", f"lzip data; {_UNPACK}"),
    (b"\x89LZO\x00\r\n", f"lzop data; {_UNPACK}"),
    (b"\x1f\x9d", f"compress (.Z) data; {_UNPACK}"),
    (b"]\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00", f"lzma data of the old form; {_UNPACK}"),
    (b"\x01\x01\x01\x01\n", "an MMDF mailbox; write it as an mbox, by mutt for example, and import that"),
    (b"BABYL OPTIONS:", "a Babyl mailbox of Emacs; write it as an mbox (`unrmail`), and import that"),
    (b"*mbx*\r\n", "an MBX mailbox of UW-IMAP; write it as an mbox by `mailutil copy`, and import that"),
)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MSG_STREAM = "__substg1.0_".encode("utf-16-le")
_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_BEGINNINGS = (*(magic for magic, _ in _FOREIGN), _OLE, *_UTF_16)
_MAIL_LIKE = re.compile(r"(?:From |[!-9;-~]{1,100}:)")
_NOT_TEXT = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_PROPERTY_LIST = re.compile(rb"\s*(?:bplist0|(?:<\?xml[^>]*>\s*)?(?:<!DOCTYPE plist\b|<plist\b))")
# Of these every mail has one, whatever else stands before it.
_FIELD = re.compile(
    rb"^(?:from|to|subject|date|received|message-id|return-path|delivered-to|mime-version|content-type"
    rb"|x-[!-9;-~]{1,100})[ \t]*:",
    re.IGNORECASE | re.MULTILINE,
)
_LOOKED_AT = 1024


def refusal(head: bytes) -> str | None:
    """Return what begins with `head` and what to do about it, None where it is nothing of the kind."""
    if not head.startswith(_BEGINNINGS):
        return None
    for magic, words in _FOREIGN:
        if head.startswith(magic):
            return words
    if head.startswith(_OLE) and _MSG_STREAM in head:
        return "an Outlook message (MSG); save it as .eml, by `msgconvert` for example, and import that"
    encoding = _UTF_16.get(head[:2])
    if encoding and _MAIL_LIKE.match(head[2:400].decode(encoding, "replace").lstrip()):
        return "mail that was saved as UTF-16; save it as UTF-8, by `iconv` for example, and import that"
    return None


def why_no_mail(head: bytes) -> str | None:
    """Return why what begins with `head` cannot be a mail, however it is to be read; None where it can."""
    if not head.strip(b"\0"):
        return "holds NUL bytes alone, as a crash leaves them: what stood there is lost"
    if _PROPERTY_LIST.match(head):
        return "is a property list of Apple's, no mail"
    if b"\r" in head and b"\n" not in head and head.startswith(b"From "):
        return "has line ends of CR alone, as an old Mac writes them; convert it by `tr '\\r' '\\n'`"
    beginning = head[:_LOOKED_AT]
    # Compressed or encrypted bytes have a tenth of these; text in any encoding of mail has hardly one.
    if len(_NOT_TEXT.findall(beginning)) * 50 > len(beginning):
        return "is neither mail, mailbox nor archive: no text, and in no form that is known here"
    if not _FIELD.search(head):
        return "has no header, and is no mail"
    return None


_MAILDIR_PARTS = ("cur", "new", "tmp")


@dataclass(frozen=True, slots=True)
class FileReference:
    """One file to read.

    `folder` is where it was found, None when the user named it. `is_mail`: its place says so. `fault` says
    why it cannot be read, `left_out` why it need not be.
    """

    path: str
    folder: str | None
    is_mail: bool = False
    size: int | None = None
    fault: str | None = None
    left_out: str | None = None


KNOWN = "the same file as one that was read, by a link or a second name"

Identity = tuple[int, int, int, int]
"""Device, inode, size and time of change: on some network file systems the first two do not suffice."""


def references(paths: Iterable[str], *, layout: str | None = None) -> Iterator[tuple[str, FileReference]]:
    """Yield (path as it was given, printable, and a file at or below it) in the order in which they are read.

    `-` is stdin. `layout` forces `maildir` or `mh` on folders; any other says nothing.
    """
    layout = layout if layout in {"maildir", "mh"} else None
    seen: set[Identity] = set()
    for path in paths:
        found = [FileReference("-", None)] if path == "-" else walk(path, seen, layout=layout)
        for reference in found:
            yield as_text(path), reference


def walk(path: str, seen: set[Identity], *, layout: str | None = None) -> Iterator[FileReference]:
    """Yield the files at or below `path` in an order that no Maildir flag, `cur` or `new` changes.

    `seen` has what was walked before and grows: a file met again, by a link or a second name, is left out.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        yield FileReference(path, None, fault=error.strerror or "cannot be opened")
        return
    if stat.S_ISDIR(status.st_mode):
        yield from _walk_folder(path, layout, seen)
    elif stat.S_ISREG(status.st_mode):
        known = KNOWN if _is_known(status, seen) else None
        yield FileReference(path, None, size=status.st_size, left_out=known)
    else:
        yield FileReference(path, None, fault="is a pipe or a device; give what comes out of it to stdin: -")


def _walk_folder(path: str, layout: str | None, seen: set[Identity]) -> Iterator[FileReference]:
    try:
        status = Path(path).stat()
        identity = (status.st_dev, status.st_ino, -1, -1)
        if identity in seen:
            return  # there by another way, through a symbolic link
        seen.add(identity)
        with os.scandir(path) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        yield FileReference(path, path, fault=error.strerror or "cannot be opened")
        return
    folders = [entry for entry in entries if _is(entry, folder=True)]
    names = {entry.name for entry in folders}
    if layout == "maildir" or (layout is None and len(names.intersection(_MAILDIR_PARTS)) >= 2):
        yield from _maildir(path, seen)
        folders = [entry for entry in folders if entry.name not in _MAILDIR_PARTS]
    else:
        files = [entry for entry in entries if _is(entry, folder=False)]
        numbered = _numbered(files)
        if layout == "mh" or (layout is None and _looks_like_mh(files, numbered)):
            for entry in numbered:
                yield _reference(entry, path, seen, is_mail=True)
        else:
            for entry in files:
                yield _reference(entry, path, seen, is_mail=False)
    for entry in folders:
        yield from _walk_folder(entry.path, layout, seen)


def _maildir(path: str, seen: set[Identity]) -> Iterator[FileReference]:
    found: list[tuple[str, os.DirEntry[str]]] = []
    for part in ("cur", "new"):
        try:
            with os.scandir(os.path.join(path, part)) as listing:  # noqa: PTH118 -- 100,000 Path objects cost a second
                found += [
                    (without_flags(entry.name), entry)
                    for entry in listing
                    if not entry.name.startswith(".") and not _is(entry, folder=True)
                ]
        except FileNotFoundError:
            continue
        except OSError as error:
            yield FileReference(f"{path}/{part}", path, fault=error.strerror or "cannot be opened")
    found.sort(key=lambda pair: pair[0])
    for _, entry in found:
        yield _reference(entry, path, seen, is_mail=True)


def left_in_tmp(name: str, folders: Collection[str] | None) -> bool:
    """Say whether a file of an archive is in a Maildir's `tmp`, where deliveries lie that never ended.

    A Maildir has `cur` or `new` beside it among the archive's `folders`; None leaves that open.
    """
    folder = name.rpartition("/")[0]
    outer, slash, last = folder.rpartition("/")
    if last != "tmp":
        return False
    return folders is None or any(f"{outer}{slash}{part}" in folders for part in ("cur", "new"))


def without_flags(name: str) -> str:
    """Return the file name of a mail without the flags that mail programs keep in it."""
    for mark in (":2,", "!2,", ";2,"):  # the latter two where a file system has no colon
        before, found, _ = name.rpartition(mark)
        if found:
            return before
    return name


def _numbered(files: list["os.DirEntry[str]"]) -> list["os.DirEntry[str]"]:
    numbered = [entry for entry in files if entry.name.isascii() and entry.name.isdigit()]
    return sorted(numbered, key=lambda entry: (int(entry.name), entry.name))


def _looks_like_mh(files: list["os.DirEntry[str]"], numbered: list["os.DirEntry[str]"]) -> bool:
    if any(entry.name == ".mh_sequences" for entry in files):
        return True
    # MH keeps deleted mails as `,7` or `#7`.
    others = [entry for entry in files if not entry.name.startswith((".", ",", "#"))]
    return bool(numbered) and len(others) == len(numbered)


def _is(entry: "os.DirEntry[str]", *, folder: bool) -> bool:
    try:
        return entry.is_dir() if folder else not entry.is_dir()
    except OSError:
        return not folder


def _is_known(status: os.stat_result, seen: set[Identity]) -> bool:
    identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if not status.st_ino or identity not in seen:
        seen.add(identity)
        return False
    return True


def _reference(
    entry: "os.DirEntry[str]", folder: str, seen: set[Identity], *, is_mail: bool
) -> FileReference:
    try:
        status = entry.stat()
    except FileNotFoundError:
        return FileReference(entry.path, folder, left_out="a link that leads nowhere")
    except OSError as error:
        return FileReference(entry.path, folder, fault=error.strerror or "cannot be opened")
    if not stat.S_ISREG(status.st_mode):
        return FileReference(entry.path, folder, left_out="no regular file, but a pipe, a socket or a device")
    # Mail servers copy a mail from folder to folder by a second name: those are two mails, a link is none.
    known = KNOWN if _is_known(status, seen) and (not is_mail or entry.is_symlink()) else None
    return FileReference(entry.path, folder, is_mail=is_mail, size=status.st_size, left_out=known)
