"""From UIDs to items: headers first, whole mails only where they may be ours, huge ones piece by piece."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from ingestor.archive.entries import Item, Position, mail_content_key
from ingestor.archive.payloads import pack
from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox.context import Context, Place, Suspects, grouped
from ingestor.intake.mailbox.session import PIECE_BYTES, WINDOW, Header, Selected, Session
from ingestor.providers.contract import NotOurs, Readable, Unreadable
from ingestor.record import Channel

GROUP_BYTES: Final = 4 * 1024 * 1024
"""Mails fetched in one command, by the sizes the server claims; two such groups are in memory at a time."""


class Fetch:
    """Reads mails of the one folder that `session` has open."""

    def __init__(self, context: Context, session: Session, folder: Selected, suspects: Suspects) -> None:
        self._context = context
        self._session = session
        self._folder = folder
        self._suspects = suspects

    def headers(self, uids: Sequence[int]) -> dict[int, Header]:
        """Return the headers of `uids` as far as they come; mails that break connections are left out."""
        found: dict[int, Header] = {}
        able = [uid for uid in uids if not self._suspects.put_off(self._place(uid))]
        sizes = ((uid, 1, self._group_size(uid, WINDOW)) for uid in able)
        for group in grouped(sizes, WINDOW):
            with self._watched(group):
                found |= self._session.headers(group, bounded=self._suspected(group))
        return found

    def groups(self, wanted: dict[int, Header]) -> Iterator[list[int]]:
        """Yield UIDs of `wanted` in order, in groups to be fetched together."""
        weighted = (
            (uid, self._weight(uid, header), self._group_size(uid, self._suspects.group_sizes[0]))
            for uid, header in wanted.items()
        )
        return grouped(weighted, GROUP_BYTES)

    def items(self, group: Sequence[int], wanted: dict[int, Header]) -> dict[int, Item | None]:
        """Return the item of each mail of `group` that came; None for one that is not ours after all."""
        first = group[0]
        with self._watched(group):
            if len(group) == 1 and self._weight(first, wanted[first]) > GROUP_BYTES:
                raw, size = self._in_pieces(first, wanted[first])
                bodies = {} if raw is None else {first: raw}
            else:
                bodies, size = self._session.bodies(group), 0
        self._suspects.passed(map(self._place, group))
        return {uid: self._item(uid, raw, max(size, len(raw))) for uid, raw in bodies.items()}

    def _weight(self, uid: int, header: Header) -> int:
        """Return what a mail counts in a group: more than a group holds where it must come in pieces."""
        in_pieces = (
            header.size is None or header.size > PIECE_BYTES or self._suspects.of(self._place(uid)) > 1
        )
        return GROUP_BYTES + 1 if in_pieces else max(1, header.size or 0)

    def _in_pieces(self, uid: int, header: Header) -> tuple[bytes | None, int]:
        """Return a mail and its size: whole up to `max_mail_bytes`, of a larger one the first piece."""
        limit = self._context.mailbox.max_mail_bytes
        claimed = header.size or 0
        pieces: list[bytes] = []
        size = 0
        while True:
            piece = self._session.piece(uid, size)
            if piece is None and (size == 0 or size < claimed):
                return None, 0
            pieces.append(piece or b"")  # some servers say NIL, not "", beyond the end
            size += len(pieces[-1])
            if len(pieces[-1]) < PIECE_BYTES:
                return b"".join(pieces), size
            if max(size, claimed) > limit:
                return pieces[0], max(size, claimed)

    def _item(self, uid: int, raw: bytes, size: int) -> Item | None:
        context = self._context
        reading: Readable | Unreadable
        if size > len(raw):
            reading = context.reader.oversized(raw, size, len(raw), context.rules)
        else:
            whole = context.reader.read_mail(raw, context.rules)
            if isinstance(whole, NotOurs):
                return None
            reading = whole
        return Item(
            reading=reading,
            channel=Channel.MAILBOX,
            source=context.mailbox.name,
            content_key=mail_content_key(raw),
            arrived_at=context.clock(),
            payload=pack(raw),
            position=Position(folder=self._folder.name, uidvalidity=self._folder.uidvalidity, uid=uid),
        )

    def _group_size(self, uid: int, largest: int) -> int:
        place = self._place(uid)
        return self._suspects.size_for(place) if self._suspects.of(place) else largest

    def _suspected(self, group: Sequence[int]) -> bool:
        return any(self._suspects.of(self._place(uid)) > 1 for uid in group)

    def _place(self, uid: int) -> Place:
        return self._folder.name, self._folder.uidvalidity, uid

    @contextlib.contextmanager
    def _watched(self, group: Sequence[int]) -> Iterator[None]:
        """Remember the mails of `group` should the connection break while they are fetched."""
        try:
            yield
        except MailboxUnavailable:
            self._suspects.broke(map(self._place, group))
            raise
