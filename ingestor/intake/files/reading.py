"""Makes rows of mails, in a worker process: split, parsed, hashed, compressed, ready for the database."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from ingestor.archive.items import Item, Payload, Position, Row
from ingestor.archive.payloads import Dictionary, pack
from ingestor.archive.rows import mail_content_key, row_of
from ingestor.intake.files.blocks import LongMail
from ingestor.intake.files.mbox import Dialect, Gap
from ingestor.intake.files.parse import leading_separator, split, unquoted
from ingestor.providers import mail_reader
from ingestor.providers.contract import NO_MEMORY, NotOurs, Readable, Reading, Rules, Unreadable
from ingestor.record import Channel, InboundSms

OUTSIDE = "an SMS outside --since and --until"


@dataclass(frozen=True, slots=True)
class Window:
    """Which SMS are wanted, by the first eight of their 14 digits (the provider's clock): `since` and
    `until` are such days, both included, '' for no bound."""

    since: str = ""
    until: str = ""

    def __contains__(self, sms: object) -> bool:
        day = sms.date_time[:8] if isinstance(sms, InboundSms) else ""
        return day >= self.since and (not self.until or day <= self.until)


@dataclass(slots=True)
class Batch:
    """What a stretch of input came to; `senders` counts ignored mails, only where that was asked for, and
    `odd` the separators of no usual form, `look_alikes` the ignored by what they lack to be ours.

    Each row comes with the number of its mail in the stretch (0 in a block of an mbox); its offset counts
    from where that mail, or the block, begins.
    """

    rows: list[tuple[int, Row]] = field(default_factory=list)
    ignored: int = 0
    mails: int = 0
    mail_bytes: int = 0
    separators: int = 0
    gaps: list[tuple[int, int, str]] = field(default_factory=list)
    senders: dict[str, int] = field(default_factory=dict)
    odd: int = 0
    look_alikes: dict[str, int] = field(default_factory=dict)

    def answer(self) -> tuple[Any, ...]:
        """Return everything as plain values, to be sent to the parent."""
        rows = [(number, row.plain()) for number, row in self.rows]
        return (
            rows, self.ignored, self.mails, self.mail_bytes, self.separators, self.gaps, self.senders,
            self.odd, self.look_alikes,
        )  # fmt: skip


class Reader:
    """Reads mails with every provider's reader in turn."""

    def __init__(
        self, rules: Sequence[tuple[str, Rules]], window: Window, secret: bytes,
        dictionary: Dictionary | None = None, *, count_senders: bool = False,
    ) -> None:  # fmt: skip
        """`secret` is the archive's key, `dictionary` what payloads are packed with."""
        self._lanes: list[tuple[ModuleType, Rules]] = [(mail_reader(name), rule) for name, rule in rules]
        self._window = window if window.since or window.until else None
        self._secret = secret
        self._dictionary = dictionary
        self._count_senders = count_senders

    def wanted(self, header: bytes) -> bool:
        """Say from a header whether the mail is ours."""
        return any(module.may_be_ours(header, rules) for module, rules in self._lanes)

    def oversized(self, mail: LongMail) -> tuple[list[Row], dict[str, int]]:
        """Return the row of a mail that is too long to be parsed, if it is ours, else what it lacks."""
        for module, rules in self._lanes if mail.raw is not None else ():
            if module.may_be_ours(mail.header, rules):
                kept = mail.raw or b""
                verdict: Unreadable | NotOurs = module.oversized(mail.header, mail.size, len(kept), rules)
                if isinstance(verdict, NotOurs):
                    return [], {verdict.missing: 1} if verdict.missing else {}
                payload = pack(kept, dictionary=self._dictionary)._replace(size=mail.size)
                return [self._row(verdict, mail.content_key, payload, 0, mail.size)], {}
        return [], {}

    def read_mbox(self, data: bytes, dialect: Dialect) -> Batch:
        """Read a block of whole mails."""
        parts = split(data, dialect)
        batch = Batch(separators=parts.separators, gaps=[_plain(gap) for gap in parts.gaps], odd=parts.odd)
        quoted = data.find(b">From ")
        for start, end, verbatim in parts.mails:
            mail = data[start:end]
            if 0 <= quoted < end:
                mail = unquoted(mail, dialect, verbatim=verbatim)
                quoted = data.find(b">From ", end)
            self._add(batch, 0, mail, start, end - start)
        return batch

    def read_mails(self, data: memoryview, mails: Iterable[tuple[int, int, int]]) -> Batch:
        """Read mails that stand side by side: (number, start, end)."""
        batch = Batch()
        for number, start, end in mails:
            mail = bytes(data[start:end])
            skipped = leading_separator(mail)
            batch.separators += skipped
            self._add(batch, number, mail[skipped:], skipped, end - start - skipped)
        return batch

    def _add(self, batch: Batch, number: int, mail: bytes, offset: int, length: int) -> None:
        batch.mails += 1
        batch.mail_bytes += length
        reading = self._read(mail)
        if isinstance(reading, NotOurs):
            self._ignore(batch, reading.sender or "")
            if reading.missing is not None:
                batch.look_alikes[reading.missing] = batch.look_alikes.get(reading.missing, 0) + 1
        elif self._window is not None and isinstance(reading, Readable) and reading.sms not in self._window:
            self._ignore(batch, OUTSIDE)
        else:
            payload = pack(mail, dictionary=self._dictionary)
            row = self._row(reading, mail_content_key(mail), payload, offset, length)
            batch.rows.append((number, row))

    def _row(
        self, reading: Readable | Unreadable, content_key: bytes, payload: Payload, offset: int, length: int
    ) -> Row:
        position = Position(offset=offset, length=length)
        item = Item(reading, Channel.IMPORT, "", content_key, None, payload, position)
        return row_of(item, self._secret)

    def _ignore(self, batch: Batch, sender: str) -> None:
        batch.ignored += 1
        if self._count_senders:
            batch.senders[sender] = batch.senders.get(sender, 0) + 1

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


def _plain(gap: Gap) -> tuple[int, int, str]:
    return gap.offset, gap.length, gap.reason
