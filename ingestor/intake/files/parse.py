"""Splits a stretch of an mbox into mails, and makes a row of each: parsed, hashed, compressed.

Every byte has its place: in one mail, in one separator (the `From ` line and the empty line that mbox puts
after a mail) or in one reported gap. All this happens in worker processes, but for mails too long for them.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ingestor.archive.items import Item, Payload, Position
from ingestor.archive.payloads import Dictionary, pack
from ingestor.archive.rows import packed_mail, row_of
from ingestor.intake.files import mbox
from ingestor.intake.files.blocks import LongMail
from ingestor.providers import mail_reader
from ingestor.providers.contract import NO_MEMORY, NotOurs, Readable, Reading, Rules, Unreadable
from ingestor.record import Channel, InboundSms

Origin = tuple[str, str, str | None, int]
"""Where a stretch of input came from: the name of the provenance, the path, the member, the offset there."""

_RD_QUOTED = re.compile(rb"(?m)^>(?=>*From )")
_O_QUOTED = re.compile(rb"(?m)^>(?=From )")


@dataclass(slots=True)
class Split:
    """What a stretch consists of: mails as (start, end, verbatim), bytes of separators, gaps; and how many
    separators were `odd`: of no usual form."""

    mails: list[tuple[int, int, bool]] = field(default_factory=list)
    separators: int = 0
    gaps: list[mbox.Gap] = field(default_factory=list)
    odd: int = 0

    def add_separator(self, data: bytes, start: int, end: int) -> None:
        self.separators += end - start
        self.odd += mbox.is_odd(data[start:end]) or (start > 0 and data[start - 1] not in b"\n\0")


def split(data: bytes, dialect: mbox.Dialect = mbox.Dialect.MBOX) -> Split:
    """Split `data`, which begins at a separator and ends before one, or where the file does."""
    result = Split()
    end = len(data)
    with_lengths = mbox.uses_lengths(dialect) and mbox.has_lengths(data, end)
    if start := mbox.separator_end(data, 0, end):
        result.add_separator(data, 0, start)
    else:
        start = _lead(data, end, result)
    while start >= 0:
        stop, separator, after = mbox.next_boundary(data, start, end, with_lengths=with_lengths)
        mail_end = separator if separator >= 0 else end
        _add(data, start, mail_end, stop, result)
        if separator >= 0:
            result.add_separator(data, separator, after)
        start = after
    return result


def _lead(data: bytes, end: int, result: Split) -> int:
    """Place what stands before the first separator; return where the first mail begins, else -1."""
    if mbox.is_header_line(data, 0, end):
        return 0
    separator, after = mbox.next_separator(data, 0, end)
    lead = separator if separator >= 0 else end
    if lead:
        blank = not data[:lead].strip(b"\r\n\0")
        result.gaps.append((0, lead, "empty lines" if blank else mbox.NO_MAIL))
    if separator >= 0:
        result.add_separator(data, separator, after)
    return after


def _add(data: bytes, start: int, mail_end: int, counted: int, result: Split) -> None:
    """Place `data[start:mail_end]`: the mail, what mbox adds after it, and NULs left by a crash."""
    if counted >= 0:
        result.mails.append((start, counted, True))
        result.separators += mail_end - counted
        return
    stop = mail_end
    if stop > start and data[stop - 1] == 0:
        while stop > start and data[stop - 1] == 0:
            stop -= 1
        if stop == start or data[stop - 1] == 0x0A:
            result.gaps.append((stop, mail_end - stop, "NUL bytes"))
        else:
            stop = mail_end
    tail = mbox.trailing_blank(data, start, stop)
    result.separators += tail
    result.mails.append((start, stop - tail, False))


def unquoted(mail: bytes, dialect: mbox.Dialect, *, verbatim: bool) -> bytes:
    """Return the mail as it was before the mbox; `verbatim`: a believed Content-Length measured it."""
    if verbatim and dialect is mbox.Dialect.MBOX:
        return mail
    if b">From " not in mail or dialect is mbox.Dialect.MBOXCL2:
        return mail
    if dialect in (mbox.Dialect.MBOXO, mbox.Dialect.MBOXCL):
        return _O_QUOTED.sub(b"", mail)
    return _RD_QUOTED.sub(b"", mail)


@dataclass(frozen=True, slots=True)
class Window:
    """Which SMS are wanted, by the first 8 of their 14 digits: `since` to `until`, '' for no bound."""

    since: str = ""
    until: str = ""

    def __contains__(self, sms: InboundSms) -> bool:
        day = sms.date_time[:8]
        return day >= self.since and (not self.until or day <= self.until)


@dataclass(slots=True)
class Findings:
    """What a stretch of input came to, as plain values that travel between processes.

    `rows` are `Row.plain`. Of `ignored` mails, `outside` are SMS of other days; `senders` says whose the
    others are (where that was asked for), `look_alikes` what they lack to be ours. `odd` as in `Split`.
    """

    rows: list[Sequence[Any]] = field(default_factory=list)
    ignored: int = 0
    outside: int = 0
    mails: int = 0
    mail_bytes: int = 0
    separators: int = 0
    gaps: list[mbox.Gap] = field(default_factory=list)
    senders: dict[str, int] = field(default_factory=dict)
    odd: int = 0
    look_alikes: dict[str, int] = field(default_factory=dict)

    def plain(self) -> tuple[Any, ...]:
        return tuple(getattr(self, one.name) for one in fields(self))

    @property
    def covered(self) -> int:
        """How many bytes have their place."""
        return self.mail_bytes + self.separators + sum(length for _, length, _ in self.gaps)

    def ignore(self, reading: NotOurs) -> None:
        self.ignored += 1
        if reading.missing is not None:
            self.look_alikes[reading.missing] = self.look_alikes.get(reading.missing, 0) + 1


class MailReader:
    """Reads mails with every provider's reader in turn; what is too long for a worker, in the parent.

    `secret` is the archive's key, `dictionary` what payloads are packed with.
    """

    def __init__(
        self, rules: Sequence[tuple[str, Rules]], window: Window, secret: bytes,
        dictionary: Dictionary | None, count_senders: bool,
    ) -> None:  # fmt: skip
        self._lanes = [(mail_reader(name), rule) for name, rule in rules]
        self._window = window
        self.secret = secret
        self._dictionary = dictionary
        self._count_senders = count_senders

    def wanted(self, header: bytes) -> bool:
        """Say from a header whether the mail is ours."""
        return any(module.may_be_ours(header, rules) for module, rules in self._lanes)

    def read_long(self, mail: LongMail, origin: Origin) -> Findings:
        """Return what a mail came to that is too long to be parsed, by its header."""
        found = Findings(separators=mail.separators, odd=int(mail.odd))
        if mail.gap:
            found.gaps.append((0, mail.gap, mbox.NO_MAIL))
            return found
        found.mails, found.mail_bytes = 1, mail.size
        for module, rules in self._lanes if mail.raw is not None else ():
            if module.may_be_ours(mail.header, rules):
                kept = mail.raw or b""
                verdict: Unreadable | NotOurs = module.oversized(mail.header, mail.size, len(kept), rules)
                if isinstance(verdict, NotOurs):
                    found.ignore(verdict)
                else:
                    payload = pack(kept, dictionary=self._dictionary)._replace(size=mail.size)
                    found.rows.append(self._row(verdict, mail.content_key, payload, origin, 0, mail.size))
                return found
        found.ignored = 1
        return found

    def read_mbox(self, data: bytes, dialect: mbox.Dialect, origin: Origin) -> Findings:
        parts = split(data, dialect)
        found = Findings(separators=parts.separators, gaps=parts.gaps, odd=parts.odd)
        for start, end, verbatim in parts.mails:
            mail = unquoted(data[start:end], dialect, verbatim=verbatim)
            self._add(found, origin, mail, start, end - start)
        return found

    def read_mails(
        self, data: memoryview, mails: Iterable[tuple[int, int]], origins: Iterable[Origin]
    ) -> Findings:
        """Read mails that stand side by side: (start, end)."""
        found = Findings()
        for (start, end), origin in zip(mails, origins, strict=True):
            mail = bytes(data[start:end])
            skipped = mbox.separator_end(mail, 0, len(mail))  # as some programs write into single mails
            found.separators += skipped
            self._add(found, origin, mail[skipped:], skipped, end - start - skipped)
        return found

    def _add(self, found: Findings, origin: Origin, mail: bytes, offset: int, length: int) -> None:
        found.mails += 1
        found.mail_bytes += length
        reading = self._read(mail)
        if isinstance(reading, NotOurs):
            found.ignore(reading)
            if self._count_senders:
                sender = reading.sender or ""
                found.senders[sender] = found.senders.get(sender, 0) + 1
        elif isinstance(reading, Readable) and reading.sms not in self._window:
            found.ignored += 1
            found.outside += 1
        else:
            key, payload = packed_mail(mail, self._dictionary)
            found.rows.append(self._row(reading, key, payload, origin, offset, length))

    def _read(self, mail: bytes) -> Reading:
        reading: Reading = NotOurs()
        for module, rules in self._lanes:
            try:
                reading = module.read_mail(mail, rules)
            except MemoryError:
                return Unreadable(NO_MEMORY, module.PARSER)
            if not isinstance(reading, NotOurs):
                break
        return reading

    def _row(
        self, reading: Readable | Unreadable, key: bytes, payload: Payload, origin: Origin, at: int, size: int
    ) -> Sequence[Any]:
        source, path, member, base = origin
        position = Position(input=path, member=member, offset=base + at, length=size)
        item = Item(reading, Channel.IMPORT, source, key, None, payload, position)
        return row_of(item, self.secret).plain()
