"""Makes rows of mails, in a worker process: split, parsed, hashed, compressed, ready for the database."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from ingestor.archive.prepared import Row, RowMaker
from ingestor.intake.files.blocks import LongMail
from ingestor.intake.files.mbox import Dialect, Gap
from ingestor.intake.files.parse import leading_separator, split, unquoted
from ingestor.providers import mail_reader
from ingestor.providers.contract import NO_MEMORY, NotOurs, Readable, Reading, Rules, Unreadable
from ingestor.record import InboundSms

SKIP_BITS = 11
"""Enough for the longest separator line."""

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
    `odd` the separators of no usual form, `look_alikes` the ignored by what they lack to be ours."""

    rows: list[Row] = field(default_factory=list)
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
        return (
            self.rows, self.ignored, self.mails, self.mail_bytes, self.separators, self.gaps, self.senders,
            self.odd, self.look_alikes,
        )  # fmt: skip


class Reader:
    """Reads mails with every provider's reader in turn."""

    def __init__(
        self, rules: Sequence[tuple[str, Rules]], window: Window, secret: bytes,
        dictionary: tuple[int, bytes] | None = None, *, count_senders: bool = False,
    ) -> None:  # fmt: skip
        """`secret` is the archive's key, `dictionary` what payloads are packed with."""
        self._lanes: list[tuple[ModuleType, Rules]] = [(mail_reader(name), rule) for name, rule in rules]
        self._window = window if window.since or window.until else None
        self._rows = RowMaker(secret, dictionary)
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
                return [self._rows.row_of_long_mail(verdict, kept, mail.size, mail.content_key)], {}
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
            self._add(batch, mail, start, end - start)
        return batch

    def read_mails(self, data: memoryview, mails: Iterable[tuple[int, int, int]]) -> Batch:
        """Read mails that stand side by side: (number, start, end).

        The place in a row is the number and, in its low bits, how much was left out before the mail.
        """
        batch = Batch()
        for number, start, end in mails:
            mail = bytes(data[start:end])
            skipped = leading_separator(mail)
            batch.separators += skipped
            self._add(batch, mail[skipped:], number << SKIP_BITS | skipped, end - start - skipped)
        return batch

    def _add(self, batch: Batch, mail: bytes, place: int, length: int) -> None:
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
            batch.rows.append(self._rows.row(reading, mail, place, length))

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
