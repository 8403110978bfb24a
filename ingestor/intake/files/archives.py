"""Members of zip and tar archives as streams, never unpacked to disk."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from ingestor.errors import InputUnreadable
from ingestor.intake.files.streams import Budget, Stream, damage

BUFFERED_ZIP = 32 << 20
"""A zip archive needs its end before its beginning: inside another stream it is held in memory up to this."""

MAX_MEMBERS = 500_000
"""The directory of a zip archive is held in memory."""


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
        except (tarfile.TarError, zipfile.BadZipFile) as error:
            raise InputUnreadable(f"{self._name} is damaged ({error}); get a whole copy") from None
        if self._counted:
            self._budget.give(len(piece))
        return piece


def zip_members(file: BinaryIO, name: str, budget: Budget) -> Iterator[tuple[str, Stream | InputUnreadable]]:
    """Yield (member name, stream) in the order of the directory.

    `file` can seek. A member that cannot be opened comes as the fault instead of a stream. Raises
    `InputUnreadable` when the archive itself is damaged.
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
        for member in members:
            if member.is_dir():
                continue
            label = f"{name}!{member.filename}"
            try:
                opened = archive.open(member)
            except RuntimeError:
                yield member.filename, InputUnreadable(f"{label} is encrypted; unpack it with its password")
            except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
                yield member.filename, InputUnreadable(f"{label} cannot be read ({error}); get a whole copy")
            else:
                with opened:
                    yield member.filename, Stream(_Member(opened, label, budget, counted=True))


def buffered_zip(stream: Stream, name: str) -> BinaryIO:
    """Return a zip archive that stands inside a stream as a file that can seek. Raises `InputUnreadable`."""
    content = stream.read(BUFFERED_ZIP + 1)
    if len(content) > BUFFERED_ZIP:
        raise InputUnreadable(
            f"{name} is a zip archive of more than {BUFFERED_ZIP >> 20} MiB inside another archive or a "
            "pipe; unpack the outer one and import the result"
        )
    return io.BytesIO(content)


def tar_members(stream: Stream, name: str, budget: Budget) -> Iterator[tuple[str, Stream]]:
    """Yield (member name, stream) of the regular files in order. Raises `InputUnreadable` on damage."""
    try:
        archive: Any = tarfile.open(fileobj=cast("Any", stream), mode="r|", bufsize=1 << 18)  # noqa: SIM115 -- below
        with archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # the list grows by a kilobyte a member and is of no use here
                opened = archive.extractfile(member) if member.isreg() else None
                if opened is not None:
                    label = f"{name}!{member.name}"
                    yield member.name, Stream(_Member(opened, label, budget, counted=False))
    except tarfile.TarError as error:
        raise InputUnreadable(f"{name} is a damaged tar archive ({error}); get a whole copy") from None
