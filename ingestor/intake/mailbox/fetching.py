"""From UIDs to items: headers first, whole mails only where they may be ours, huge ones piece by piece."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from ingestor.archive.entries import Item, Payload, Position, mail_content_key
from ingestor.archive.payloads import pack
from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox.context import Context, Memory, Place, grouped
from ingestor.intake.mailbox.pieces import PIECE_BYTES, pack_pieces
from ingestor.intake.mailbox.session import WINDOW, Header, Selected, Session
from ingestor.providers.contract import NotOurs, Readable, Unreadable
from ingestor.record import Channel

GROUP_BYTES: Final = 4 * 1024 * 1024
"""Mails fetched in one command, by the sizes the server claims; two such groups are in memory at a time."""


class Fetch:
    """Reads mails of the one folder that `session` has open."""

    def __init__(self, context: Context, session: Session, folder: Selected, memory: Memory) -> None:
        self._context = context
        self._session = session
        self._folder = folder
        self._suspects = memory.suspects
        self._dictionary = memory.dictionary

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
        pieces: list[bytes] = []
        with self._watched(group):
            if len(group) == 1 and self._weight(first, wanted[first]) > GROUP_BYTES:
                pieces, size = self._pieces(first, wanted[first])
                bodies = {first: pieces[0]} if pieces and size <= PIECE_BYTES else {}
            else:
                bodies, size = self._session.bodies(group), 0
        self.passed(group)
        if size > PIECE_BYTES:
            return {first: self._oversized(first, pieces, size)}
        return {uid: self._item(uid, raw) for uid, raw in bodies.items()}

    def passed(self, uids: Sequence[int]) -> None:
        """Clear `uids` of any suspicion: what was wanted of them has come."""
        self._suspects.passed(map(self._place, uids))

    def _weight(self, uid: int, header: Header) -> int:
        """Return what a mail counts in a group: more than a group holds where it must come in pieces."""
        in_pieces = (
            header.size is None or header.size > PIECE_BYTES or self._suspects.of(self._place(uid)) > 1
        )
        return GROUP_BYTES + 1 if in_pieces else max(1, header.size or 0)

    def _pieces(self, uid: int, header: Header) -> tuple[list[bytes], int]:
        """Return a mail and its size: all up to `max_mail_bytes`, of a larger one the first piece.

        Without pieces it did not come.
        """
        limit = self._context.mailbox.max_mail_bytes
        claimed = header.size or 0
        pieces: list[bytes] = []
        size = 0
        while True:
            piece = self._session.piece(uid, size)
            if piece is None and (size == 0 or size < claimed):
                return [], 0
            if piece:  # beyond the end some servers say NIL, not ""
                pieces.append(piece)
                size += len(piece)
            if not piece or len(piece) < PIECE_BYTES:
                return pieces or [b""], size
            if max(size, claimed) > limit:
                return pieces[:1], max(size, claimed)

    def _item(self, uid: int, raw: bytes) -> Item | None:
        reading = self._context.reader.read_mail(raw, self._context.rules)
        if isinstance(reading, NotOurs):
            return None
        return self._arrival(uid, reading, pack(raw, dictionary=self._dictionary), mail_content_key(raw))

    def _oversized(self, uid: int, pieces: list[bytes], size: int) -> Item | None:
        kept = sum(map(len, pieces))
        reading = self._context.reader.oversized(pieces[0], size, kept, self._context.rules)
        if isinstance(reading, NotOurs):
            return None
        return self._arrival(uid, reading, *pack_pieces(pieces, size))

    def _arrival(self, uid: int, reading: Readable | Unreadable, payload: Payload, key: bytes) -> Item:
        return Item(
            reading=reading,
            channel=Channel.MAILBOX,
            source=self._context.mailbox.name,
            content_key=key,
            arrived_at=self._context.clock(),
            payload=payload,
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
