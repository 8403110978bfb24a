"""Single mails with something around them: Apple Mail's .emlx and Dovecot's sdbox.

`.emlx` is a line with the mail's length, the mail, and a property list. A dbox file is a line of its own, a
header of 30 bytes with the mail's size, the mail, and lines of metadata (Dovecot's `dbox-file.h`).
"""

import re

from ingestor.errors import InputUnreadable
from ingestor.intake.files.kinds import DBOX, EMLX
from ingestor.intake.files.streams import Stream

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
        raise InputUnreadable(
            f"{name} is a Dovecot mdbox; read it through IMAP, or write it anew by `doveadm backup`"
        )
    return begin, mail
