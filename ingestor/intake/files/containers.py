"""What stands around mails: zip and tar archives, Apple Mail's .emlx and Dovecot's sdbox.

Members are streams, never unpacked to disk, each with a bound. `.emlx` is a line with the mail's length, the
mail, and a property list; a dbox file a line of its own, a header of 30 bytes with the mail's size, the mail,
and lines of metadata (Dovecot's `dbox-file.h`).
"""

import io
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from ingestor.errors import InputUnreadable
from ingestor.intake.files.streams import Budget, Decompressed, Stream, damage, zip_lzma
from ingestor.intake.files.walk import BY_DOVECOT, DBOX, EMLX, Kind, left_in_tmp

BUFFERED_ZIP = 32 << 20
"""A zip archive needs its end before its beginning: inside another stream it is held in memory up to this."""

MAX_MEMBERS = 500_000
"""The directory of a zip archive is held in memory."""

MEMBER_COST = 1024
"""Bytes that each member counts as, beside what is in it: the work is bounded, too."""

_MOST_FAULTS = 100
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MAX_HEADER = 1 << 18
_HEADER_FACTOR = 16  # they are parsed line by line
_MOST_KEYWORDS = 1000
_MOST_PUT_OFF = 16 << 20
_ENTRY = b"PK\1\2"
_LOCAL_HEADER = 30
_METHODS = {
    6: "Implode", 9: "Deflate64", 10: "TERSE", 18: "TERSE", 94: "MP3", 96: "JPEG", 97: "WavPack", 98: "PPMd",
}  # fmt: skip
_READ_BY_US = {
    zipfile.ZIP_BZIP2: Kind.BZIP2, zipfile.ZIP_LZMA: None, 20: Kind.ZSTD, 93: Kind.ZSTD, 95: Kind.XZ,
}  # fmt: skip


class TarDamaged(InputUnreadable):
    """A tar archive is damaged inside a member: nothing behind it can be read."""

    def __init__(self, words: str, archive: str) -> None:
        super().__init__(words)
        self.archive = archive


class _Member:
    """One member: reads through the budget, and names the member when it is damaged."""

    def __init__(self, file: Any, name: str, budget: Budget, *, counted: bool) -> None:
        self._file = file
        self._name = name
        self._budget = budget
        self._counted = counted

    def read(self, count: int) -> bytes:
        try:
            with damage(self._name, "archive"):
                piece: bytes = self._file.read(count)
        except tarfile.TarError as error:
            words = f"{self._name} is damaged ({error}); get a whole copy"
            raise TarDamaged(words, self._name.rpartition("!")[0]) from None
        except zipfile.BadZipFile as error:
            raise InputUnreadable(f"{self._name} is damaged ({error}); get a whole copy") from None
        if self._counted:
            self._budget.give(len(piece))
        return piece


class _Checked:
    """What a decompressor of ours gives of a zip member: no more than the directory says, with that sum."""

    def __init__(self, source: Any, member: zipfile.ZipInfo) -> None:
        self._source = source
        self._left = member.file_size
        self._sum = 0
        self._stated = member.CRC

    def read(self, count: int) -> bytes:
        piece: bytes = self._source.read(min(count, self._left)) if self._left else b""
        self._left -= len(piece)
        self._sum = zlib.crc32(piece, self._sum)
        if self._left and count and not piece:
            raise EOFError
        if not self._left and self._sum != self._stated:
            raise zipfile.BadZipFile("its sum does not agree")
        return piece


def zip_members(file: BinaryIO, name: str, budget: Budget) -> Iterator[tuple[str, Stream | InputUnreadable]]:
    """Yield (member name, stream) in the order of the directory of `file`, which can seek.

    A member that cannot be opened comes as the fault. Raises `InputUnreadable` where the archive is damaged.
    """
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputUnreadable(f"{name} is a damaged zip archive ({error}); get a whole copy") from None
    with archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise InputUnreadable(
                f"{name} has more than {MAX_MEMBERS:,} members; unpack it and import the folder"
            )
        folders = {_slashed(member.filename).rpartition("/")[0] for member in members}
        overlapping = _overlapping(members)
        faults = 0
        for number, member in enumerate(members):
            if member.is_dir() or left_in_tmp(_slashed(member.filename), folders):
                continue
            budget.give(MEMBER_COST)
            with warnings.catch_warnings():
                # What `_overlapping` has judged already, Python 3.13.5 warns of.
                warnings.simplefilter("ignore", UserWarning)
                opened = _opened(archive, member, name, budget, overlaps=number in overlapping)
            if isinstance(opened, InputUnreadable):
                faults += 1
                if faults > _MOST_FAULTS:
                    continue
            yield member.filename, opened
        if faults > _MOST_FAULTS:
            yield "…", InputUnreadable(f"{name}: {faults - _MOST_FAULTS:,} further members cannot be read")


def _opened(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, budget: Budget, *, overlaps: bool
) -> Stream | InputUnreadable:
    label = f"{name}!{member.filename}"
    if overlaps:
        return InputUnreadable(f"{label} overlaps another member; get a whole copy")
    if member.flag_bits & 0x1:
        return InputUnreadable(f"{label} is encrypted; unpack it with its password and import the result")
    method = member.compress_type
    try:
        if method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return Stream(_Member(archive.open(member), label, budget, counted=True))
        if method in _READ_BY_US:
            return Stream(_Member(_unpacked(archive, member, label, budget), label, budget, counted=False))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        return InputUnreadable(f"{label} cannot be read ({error}); get a whole copy")
    return InputUnreadable(
        f"{label} is compressed by method {method} ({_METHODS.get(method, 'unknown')}), which is not read "
        "here; unpack it (7-Zip can) and import the result"
    )


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, label: str, budget: Budget) -> _Checked:
    """Open a member whose decompressor the standard library runs without a bound: 1,662 bytes took 4 GB."""
    raw = zipfile.ZipInfo(member.filename)
    raw.orig_filename, raw.header_offset = member.orig_filename, member.header_offset
    raw.flag_bits = member.flag_bits
    raw.compress_size = raw.file_size = member.compress_size
    # Its CRC is over what comes out: left unset, it is not looked at.
    stream = Stream(archive.open(raw))
    kind = _READ_BY_US[member.compress_type]
    decoder = zip_lzma(stream) if kind is None else None
    return _Checked(Decompressed(stream, kind or Kind.XZ, label, budget, decoder), member)


def _overlapping(members: Sequence[zipfile.ZipInfo]) -> set[int]:
    """Return the numbers of members that begin inside another: bombs are made so, honest archives never."""
    found, end = set(), 0
    for number in sorted(range(len(members)), key=lambda number: (members[number].header_offset, number)):
        member = members[number]
        if member.header_offset < end:
            found.add(number)
        elif not member.is_dir():
            end = member.header_offset + _LOCAL_HEADER + member.compress_size
    return found


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def buffered_zip(stream: Stream, name: str) -> BinaryIO:
    """Return a zip archive that stands inside a stream as a file that can seek. Raises `InputUnreadable`."""
    content = stream.read(BUFFERED_ZIP + 1)
    if len(content) > BUFFERED_ZIP or content.count(_ENTRY) > MAX_MEMBERS // 5:
        raise InputUnreadable(
            f"{name} is a zip archive of more than {BUFFERED_ZIP >> 20} MiB or {MAX_MEMBERS // 5:,} members "
            "inside another archive or a pipe; unpack the outer one and import the result"
        )
    return io.BytesIO(content)


def _strict_header(budget: Budget, ended: set[bool]) -> type[tarfile.TarInfo]:
    """Return a class of headers whose extensions have a bound, and of which none is passed over.

    The library reads extensions whole, whatever length they claim, and keeps the global ones. It takes a
    damaged header for the end of the archive; `ended` holds something where that end is marked.
    """

    class Header(tarfile.TarInfo):
        @classmethod
        def fromtarfile(cls, archive: Any) -> Any:
            try:
                header = super().fromtarfile(archive)
            except tarfile.HeaderError as error:
                if type(error).__name__ == "EOFHeaderError":  # a block of NULs
                    ended.add(True)
                elif type(error).__name__ != "EmptyHeaderError":  # which is the end of the file
                    raise tarfile.ReadError(str(error)) from None
                raise
            ended.clear()
            return header

        def _proc_member(self, archive: Any) -> Any:
            if self.type in _EXTENSIONS:
                if self.size > _MAX_HEADER or len(archive.pax_headers) > _MOST_KEYWORDS:
                    raise tarfile.ReadError("headers without measure")
                budget.give(_HEADER_FACTOR * self.size)
            return super()._proc_member(archive)  # type: ignore[misc]  # typeshed does not know it

    return Header


def tar_members(stream: Stream, name: str, budget: Budget) -> Iterator[tuple[str, Stream]]:
    """Yield (member name, stream) of the regular files in order. Raises `InputUnreadable` on damage.

    A file in `tmp` waits until it is known whether that is a Maildir's. Archives may follow one another.
    """
    ended: set[bool] = set()
    folders: set[str] = set()
    put_off: list[tuple[str, bytes]] = []
    room = _MOST_PUT_OFF
    try:
        archive: Any = tarfile.open(  # noqa: SIM115 -- below
            fileobj=cast("Any", stream), mode="r|", bufsize=1 << 18,
            tarinfo=_strict_header(budget, ended), ignore_zeros=True,
        )  # fmt: skip
        with archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # the list grows by a kilobyte a member and is of no use here
                budget.give(MEMBER_COST)
                folder = member.name if member.isdir() else member.name.rpartition("/")[0]
                if folder.rpartition("/")[2] in ("cur", "new"):
                    folders.add(folder)
                is_file = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
                opened = archive.extractfile(member) if is_file else None
                if opened is None or left_in_tmp(member.name, folders):
                    continue
                label = f"{name}!{member.name}"
                # What a sparse file claims stands nowhere in the archive.
                content = Stream(_Member(opened, label, budget, counted=member.issparse()))
                if left_in_tmp(member.name, None) and member.size <= room:
                    room -= member.size
                    put_off.append((member.name, content.read()))
                else:
                    yield member.name, content
            if not ended:
                raise tarfile.ReadError("its end is missing")
    except (tarfile.TarError, RecursionError) as error:
        raise InputUnreadable(f"{name} is a damaged tar archive ({error}); get a whole copy") from None
    for late, kept in put_off:
        if not left_in_tmp(late, folders):
            yield late, Stream(io.BytesIO(kept))


LONGEST = 32 << 20
"""The mail is held in memory."""

_REST = 1 << 20
_PROPERTY_LIST = re.compile(rb"\s*(?:<\?xml|<!DOCTYPE plist|<plist|bplist0)")
_LIST_AT_END = re.compile(rb"\n<\?xml [^\n]*\n<!DOCTYPE plist PUBLIC \"-//Apple")
_MAGIC, _MAGIC_BEHIND = b"\x01\x02", b"\n\x01\x03\n"


def ends_in_a_list(head: bytes) -> bool:
    """Say whether Apple Mail's property list stands behind a mail, as in an .emlx without its first line."""
    return b"</plist>" in head[-32:] and _LIST_AT_END.search(head) is not None


def apple_mail(stream: Stream, name: str) -> tuple[int, bytes]:
    """Return the mail in an .emlx file, and where it begins. Raises `InputUnreadable`."""
    line = EMLX.match(stream.head(32))
    begin = line.end() if line else 0
    stream.skip(begin)
    content = stream.read(LONGEST + _REST)
    size = int(line.group(1)) if line else len(content)
    if size > len(content):
        raise InputUnreadable(
            f"{name}: the file ends inside a mail ({len(content):,} of {size:,} bytes); get a whole copy"
        )
    behind = content[size:]
    if (behind.strip() and not _PROPERTY_LIST.match(behind)) or not line:
        # Line ends that were converted on the way make the length wrong; the list is found all the same.
        size = max(content.rfind(b"\n<?xml "), content.rfind(b"\nbplist0")) + 1
        if not size or b"plist" not in content[size : size + 200]:
            raise InputUnreadable(
                f"{name} is an .emlx file whose length and end do not agree; get a whole copy"
            )
    return begin, content[:size]


def dovecot_mail(stream: Stream, name: str) -> tuple[int, bytes]:
    """Return the mail in an sdbox file, and where it begins. Raises `InputUnreadable`."""
    line = DBOX.match(stream.head(256))
    if line is None:
        raise InputUnreadable(f"{name} is a damaged dbox file; get a whole copy")
    begin = line.end() + int(line.group(1), 16)
    header = stream.read(begin)[line.end() :]
    try:
        size = int(header[-17:-1], 16)
    except ValueError:
        size = -1
    if size < 0 or not header.startswith(_MAGIC):
        raise InputUnreadable(f"{name} is a damaged dbox file; get a whole copy")
    if size > LONGEST:
        raise InputUnreadable(f"{name} holds a mail of more than {LONGEST >> 20} MiB; read it through IMAP")
    mail, behind = stream.read(size), stream.read(_REST)
    if len(mail) < size or not behind.startswith(_MAGIC_BEHIND):
        raise InputUnreadable(f"{name}: the file ends inside a mail, or is damaged; get a whole copy")
    # In an mdbox file expunged mails stay until a purge: only Dovecot's own index says which ones count.
    if b"\nB" in behind or _MAGIC in behind[len(_MAGIC_BEHIND) :]:
        raise InputUnreadable(f"{name} is a Dovecot mdbox; {BY_DOVECOT}")
    return begin, mail
