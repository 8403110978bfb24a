"""What the importer has read on its way to the workers: blocks as they are, single mails many together."""

from dataclasses import dataclass, field

from ingestor.archive.items import InputProgress
from ingestor.intake.files.blocks import BLOCK, Block, LongMail
from ingestor.intake.files.delivery import NOTHING, Delivery, Ticket
from ingestor.intake.files.leaves import Place
from ingestor.intake.files.mbox import Dialect
from ingestor.intake.files.reading import Reader
from ingestor.intake.files.workers import Pool

MOST_IN_PACK = 1000
"""Single mails that travel to a worker together."""


@dataclass(slots=True)
class _Pack:
    """Single mails that are being collected in a slot."""

    slot: int
    view: memoryview
    used: int = 0
    mails: list[tuple[int, int, int]] = field(default_factory=list)
    places: list[tuple[Place, int]] = field(default_factory=list)
    progress: dict[int, InputProgress] = field(default_factory=dict)

    def add_step(self, step: InputProgress) -> None:
        """Move an input on together with these mails."""
        self.progress[step.input_id] = step.after(self.progress.get(step.input_id))


class Packing:
    """Gives tickets to a delivery, in the order in which things are added."""

    def __init__(self, pool: Pool, reader: Reader, delivery: Delivery) -> None:
        """`reader` judges mails that are too long for the workers."""
        self._pool = pool
        self._reader = reader
        self._delivery = delivery
        self._pack: _Pack | None = None

    def add_block(self, place: Place, block: Block, dialect: Dialect, progress: InputProgress) -> None:
        """Add a block of an mbox."""
        self.flush()
        slot = self._delivery.slot()
        length = len(block.data)
        with self._pool.view(slot) as view:
            view[:length] = block.data
        ticket = Ticket([(place, block.offset)], length, {progress.input_id: progress})
        self._delivery.send(ticket, slot, ("mbox", (length, dialect.value)))

    def add_mail(self, place: Place, offset: int, mail: bytes, progress: InputProgress | None) -> None:
        """Add a single mail."""
        pack = self._pack
        if pack is not None and (pack.used + len(mail) > BLOCK or len(pack.mails) >= MOST_IN_PACK):
            self.flush()
            pack = None
        if pack is None:
            slot = self._delivery.slot()
            pack = self._pack = _Pack(slot, self._pool.view(slot))
        end = pack.used + len(mail)
        pack.view[pack.used : end] = mail
        pack.mails.append((len(pack.places), pack.used, end))
        pack.places.append((place, offset))
        pack.used = end
        if progress:
            pack.add_step(progress)

    def flush(self) -> None:
        """Send the single mails that were collected."""
        pack, self._pack = self._pack, None
        if pack is None:
            return
        pack.view.release()
        ticket = Ticket(pack.places, pack.used, pack.progress)
        self._delivery.send(ticket, pack.slot, ("mails", pack.mails))

    def add_step(self, progress: InputProgress | None) -> None:
        """Move an input on where no mail goes with it."""
        if progress is None:
            return
        if self._pack is not None:
            self._pack.add_step(progress)
        else:
            self._delivery.put(Ticket([], 0, {progress.input_id: progress}, NOTHING))

    def add_long(self, place: Place, mail: LongMail, progress: InputProgress | None) -> None:
        """Add a mail that was longer than a block: it is never parsed."""
        self.flush()
        rows, look_alikes = self._reader.oversized(mail)
        is_mail = mail.gap is None
        gaps = [] if mail.gap is None else [(0, mail.gap.length, mail.gap.reason)]
        counts = (int(is_mail and not rows), int(is_mail), mail.size, mail.separators)
        expected = mail.size + mail.separators + sum(length for _, length, _ in gaps)
        steps = {progress.input_id: progress} if progress else {}
        found = [(0, row.plain()) for row in rows]
        answer: tuple[object, ...] = (found, *counts, gaps, {}, int(mail.odd), look_alikes)
        self._delivery.put(Ticket([(place, mail.offset)], expected, steps, answer))
