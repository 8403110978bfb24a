"""Walks folders: which files are mails by their place (Maildir, MH), and in which order all are read."""

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

_MAILDIR = ("cur", "new", "tmp")


@dataclass(frozen=True, slots=True)
class FileReference:
    """One file to read.

    `folder` is the folder it was found in, None when the file was named by the user. `is_mail` is set where
    its place says so. `fault` says in words why it cannot be read.
    """

    path: str
    folder: str | None
    is_mail: bool = False
    size: int | None = None
    fault: str | None = None
    known: bool = False


Identity = tuple[int, int, int, int]
"""Device, inode, size and time of change: on some network file systems the first two do not suffice."""


def walk(path: str, seen: set[Identity], *, layout: str | None = None) -> Iterator[FileReference]:
    """Yield the files at or below `path` in the order in which they are read: always the same one.

    `seen` has what was walked before and grows: a file met again, by a link or a second name, is yielded as
    `known` and not to be read. `layout` forces `maildir` or `mh` on the folder. The order does not depend on
    the flags in a Maildir name, nor on whether a mail still stands in `new`.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        yield FileReference(path, None, fault=error.strerror or "cannot be opened")
        return
    if stat.S_ISDIR(status.st_mode):
        yield from _walk_folder(path, layout, seen)
    elif stat.S_ISREG(status.st_mode):
        known = _is_known(status, seen)
        yield FileReference(path, None, size=status.st_size, known=known)
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
    if layout == "maildir" or (layout is None and len(names.intersection(_MAILDIR)) >= 2):
        yield from _maildir(path, seen)
        folders = [entry for entry in folders if entry.name not in _MAILDIR]
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

    `folders` are the folders of the archive: a Maildir has `cur` or `new` beside it. None leaves that open.
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
    except OSError as error:
        return FileReference(entry.path, folder, fault=error.strerror or "cannot be opened")
    if not stat.S_ISREG(status.st_mode):
        return FileReference(entry.path, folder, size=0, fault="is no regular file, and was left out")
    # Mail servers copy a mail from folder to folder by a second name: those are two mails, a link is none.
    known = _is_known(status, seen) and (not is_mail or entry.is_symlink())
    return FileReference(entry.path, folder, is_mail=is_mail, size=status.st_size, known=known)
