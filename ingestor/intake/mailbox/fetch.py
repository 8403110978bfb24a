"""From UIDs to items: headers first, whole mails only where they may be ours, huge ones piece by piece."""

import contextlib
import re
from collections.abc import Generator, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from ingestor.archive.items import Item, Payload, Position
from ingestor.archive.payloads import PackedPieces, pack
from ingestor.archive.rows import ContentKey, mail_content_key
from ingestor.errors import IngestorError, MailboxUnavailable
from ingestor.intake.mailbox.answers import Header, Selected
from ingestor.intake.mailbox.context import HANGS_UP, NO_MEMORY, Bell, Context, Place, Timing, grouped
from ingestor.intake.mailbox.session import PIECE_BYTES, WINDOW, Session, connect
from ingestor.providers.contract import MailReader, NotOurs, Readable, Reading, Rules, Unreadable
from ingestor.record import Channel
from ingestor.settings import Mailbox

GROUP_BYTES: Final = 4 * 1024 * 1024
"""Mails fetched in one command, by the sizes the server claims; two such groups are in memory at a time."""

NO_BODY: Final = "the server sends no body"
NOTICE: Final = "the server sends a notice of its own instead of the mail"
NO_VERDICT: Final = "no name server answers, so that its sender cannot be proven"
CUT: Final = "the server sends a part of the mail only"
CAME: Final = (NO_BODY, NOTICE, NO_VERDICT, CUT)
"""Why a mail is fetched again over which no connection broke."""

_HEADER_END = re.compile(rb"\r?\n[ \t]*\r?\n")
_NOTICE = re.compile(
    rb"Retrieval using the \w+ protocol failed|server couldn't retrieve the following message"
    rb"|message (?:could not|couldn't|cannot|can't) be (?:converted|retrieved|displayed)",
    re.IGNORECASE,
)
"""What Exchange sends in the place of a mail it cannot convert; the first two are its own words."""

_NOTICE_SUBJECT = re.compile(rb"(?im)^subject:\s*Retrieval using the \w+ protocol failed")
_QUOTED = re.compile(rb'(?m)^(Subject|From): "(?:[^"\r\n]*" \(")?([^"\r\n]*)')
"""It quotes the subject and the sender of the mail that it stands for: `From: "name" ("address")`."""


class Unready(NamedTuple):
    """Why a mail whose header is ours is not there yet, and what came in its place."""

    reason: str
    raw: bytes


def _is_notice(header: bytes) -> bool:
    return b"etrieval using" in header and _NOTICE_SUBJECT.search(header) is not None


class Fetch:
    """Reads mails of the one folder that `session` has open."""

    def __init__(self, context: Context, session: Session, folder: Selected) -> None:
        self._context = context
        self._session = session
        self._folder = folder
        self._suspects = context.memory.suspects
        self.unready: dict[int, Unready] = {}
        """Mails that were asked for, and came as something else."""

    def portions(self, uids: Sequence[int]) -> Iterator[list[int]]:
        """Yield `uids` in order, in portions of which each is read to its end before the next."""
        sizes = ((uid, 1, self._suspects.size_for(self._place(uid), WINDOW)) for uid in uids)
        return grouped(sizes, WINDOW)

    def recall(self, uids: Sequence[int]) -> None:
        """Leave `uids` out: an earlier process learnt that the connection breaks over them."""
        self._suspects.recall(map(self._place, uids))

    def headers(self, uids: Sequence[int]) -> dict[int, Header]:
        """Return the headers of a portion as far as they come; mails that break connections are left out."""
        able = [uid for uid in uids if not self._suspects.put_off(self._place(uid))]
        if not able:
            return {}
        doubt = max(self._suspects.of(self._place(uid)) for uid in able)
        with self._watched(able):
            dated = self._context.judge is not None
            return self._session.headers(able, sized=doubt == 0, bounded=doubt > 1, dated=dated)

    def why_missing(self, uid: int) -> str:
        if self._suspects.put_off(self._place(uid)):
            return self._suspects.reasons.get(self._place(uid), HANGS_UP)
        return self.unready[uid].reason if uid in self.unready else NO_BODY

    def wanted(self, headers: dict[int, Header]) -> dict[int, Header]:
        return {uid: header for uid, header in headers.items() if self.concerns(header)}

    def concerns(self, header: Header) -> bool:
        """Say whether the whole mail must be looked at: it may be ours, or stand in the place of ours."""
        lines = header.lines
        return self._context.reader.may_be_ours(lines, self._context.rules) or _is_notice(lines)

    def groups(self, wanted: dict[int, Header]) -> Iterator[list[int]]:
        """Yield UIDs of `wanted` in order, in groups to be fetched together."""
        suspects, largest = self._suspects, self._suspects.group_sizes[0]
        weighted = (
            (uid, self._weight(uid, header), suspects.size_for(self._place(uid), largest))
            for uid, header in wanted.items()
        )
        return grouped(weighted, GROUP_BYTES)

    def items(self, group: Sequence[int], wanted: dict[int, Header]) -> dict[int, Item | NotOurs]:
        """Return the item of each mail of `group` that came, or what it is where it is not ours after all.

        One that is not there yet is left out; `unready` says why.
        """
        first = group[0]
        pieces: list[bytes] = []
        with self._watched(group):
            if len(group) == 1 and self._weight(first, wanted[first]) > GROUP_BYTES:
                pieces, size = self._pieces(first, wanted[first])
                bodies = {first: pieces[0]} if pieces and size <= PIECE_BYTES else {}
            else:
                bodies, size = self._session.bodies(group), 0
            if size > PIECE_BYTES:
                found = {first: self._oversized(first, pieces, size)}
                self.passed(group)
                return found
            # Here, too, the memory may not suffice for one of them.
            items = {uid: self._item(uid, raw, wanted[uid]) for uid, raw in bodies.items()}
        self.passed(group)
        return {uid: item for uid, item in items.items() if item is not None}

    def passed(self, uids: Sequence[int]) -> None:
        """Clear `uids` of any suspicion: what was wanted of them has come."""
        if uids:
            self._suspects.passed(map(self._place, uids))

    def _weight(self, uid: int, header: Header) -> int:
        """Return what a mail counts in a group: more than a group holds where it must come in pieces."""
        in_pieces = (
            header.size is None or header.size > PIECE_BYTES or self._suspects.of(self._place(uid)) > 0
        )
        return GROUP_BYTES + 1 if in_pieces else max(1, header.size or 0)

    def _pieces(self, uid: int, header: Header) -> tuple[list[bytes], int]:
        """Return a mail (none: it did not come) and its size; beyond `max_mail_bytes` the first piece."""
        context = self._context
        claimed = header.size or 0
        foreign = isinstance(context.reader.oversized(header.lines, claimed, 0, context.rules), NotOurs)
        limit = 0 if foreign else context.mailbox.max_mail_bytes  # its beginning tells as much as the whole
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

    def _item(self, uid: int, raw: bytes, header: Header) -> Item | NotOurs | None:
        self.unready.pop(uid, None)
        reading = self._context.reader.read_mail(raw, self._context.rules)
        if reason := self._not_there_yet(raw, header, reading):
            self.unready[uid] = Unready(reason, raw)
            return None
        if isinstance(reading, NotOurs):
            return reading
        judge, now, verdict = self._context.judge, self._context.clock(), None
        if judge is not None:
            verdict = judge.verdict(raw, reading, header.received_at or now, now)
        if judge is not None and verdict is not None:
            if verdict.later and judge.strict and isinstance(reading, Readable):
                self.unready[uid] = Unready(NO_VERDICT, raw)
                return None
            reading = judge.admitted(reading, verdict)
        item = self._whole(uid, reading, raw)
        if verdict is None:
            return item
        return item._replace(sender_verified=verdict.verified, sender_check=verdict.check)

    def _not_there_yet(self, raw: bytes, header: Header, reading: Reading) -> str | None:
        """Return why `raw` cannot be the mail whose `header` came first; None where it is that mail."""
        reader, rules = self._context.reader, self._context.rules
        if not raw.strip():
            return NO_BODY
        # A claimed size alone may be wrong; what came by SMTP ends in a line end, too.
        if len(raw) < (header.size or 0) and raw[-1:] != b"\n" and not isinstance(reading, NotOurs):
            return CUT
        if isinstance(reading, Readable):
            return None
        if isinstance(reading, NotOurs) and not reader.may_be_ours(raw, rules):
            # The server answers with a mail of its own, to the question for the header already or now.
            quoted = _QUOTED.findall(raw) if _is_notice(header.lines) else []
            its_header = b"".join(b"%s: %s\r\n" % line for line in quoted) + b"\r\n"
            return NOTICE if not quoted or reader.may_be_ours(its_header, rules) else None
        if not reader.is_ours(header.lines, rules):
            return None
        header_end = _HEADER_END.search(raw)
        body = raw[header_end.end() :] if header_end else b""
        if not body.strip():  # where the server claims no more than came the mail is what it is
            return NO_BODY if header.size is None or len(raw) < header.size else None
        return NOTICE if _NOTICE.search(body) else None

    def given_up(self, uid: int, raw: bytes, reason: str) -> Item:
        """Return what goes to the quarantine of a mail of which nothing better than `raw` ever came."""
        reading: Reading | None = None
        with contextlib.suppress(MemoryError):
            reading = self._context.reader.read_mail(raw, self._context.rules)
        if isinstance(reading, Unreadable):
            reading = reading._replace(reason=reason)
        else:
            reading = Unreadable(reason, self._context.reader.PARSER)
        return self._whole(uid, reading, raw)

    def _oversized(self, uid: int, pieces: list[bytes], size: int) -> Item | NotOurs:
        kept = sum(map(len, pieces))
        reading = self._context.reader.oversized(pieces[0], size, kept, self._context.rules)
        if isinstance(reading, NotOurs):
            return reading
        return self._arrival(uid, reading, *pack_pieces(pieces, size))

    def _whole(self, uid: int, reading: Readable | Unreadable, raw: bytes) -> Item:
        payload = pack(raw, dictionary=self._context.memory.dictionary)
        return self._arrival(uid, reading, payload, mail_content_key(raw))

    def _arrival(self, uid: int, reading: Readable | Unreadable, payload: Payload, key: bytes) -> Item:
        position = Position(folder=self._folder.name, uidvalidity=self._folder.uidvalidity, uid=uid)
        name, now = self._context.mailbox.name, self._context.clock()
        return Item(reading, Channel.MAILBOX, name, key, now, payload, position)

    def _place(self, uid: int) -> Place:
        return self._folder.name, self._folder.uidvalidity, uid

    @contextlib.contextmanager
    def _watched(self, group: Sequence[int]) -> Iterator[None]:
        wire = self._session.wire
        wire.hurry = any(self._suspects.of(self._place(uid)) for uid in group)
        try:
            yield
        except MailboxUnavailable as fault:
            self._remember(group, HANGS_UP, fault)
            raise
        except MemoryError:
            lack = wire.fault(NO_MEMORY)
            self._remember(group, NO_MEMORY, lack)
            raise lack from None
        finally:
            wire.hurry = False

    def _remember(self, group: Sequence[int], reason: str, fault: MailboxUnavailable) -> None:
        self._suspects.broke([self._place(uid) for uid in group], reason)
        self._context.log.info(
            "the connection broke over some mails; they are fetched in smaller groups",
            folder=self._folder.name, count=len(group), first_uid=group[0], reason=str(fault),
        )  # fmt: skip


def pack_pieces(pieces: list[bytes], size: int) -> tuple[Payload, bytes]:
    """Return the payload and the content key of the mail that `pieces` make up, and empty the list.

    It never becomes one string: 30 MB cost 30 MB, not 150. `size` is that of the whole mail, of which
    `pieces` may be the beginning.
    """
    packed, key = PackedPieces(sum(map(len, pieces))), ContentKey()
    pieces.reverse()
    while pieces:
        piece = pieces.pop()
        packed.feed(piece)
        key.feed(piece)
    return packed.payload(size), key.digest()


class Seen(NamedTuple):
    """A mail of a folder: its From and Subject lines, and its bytes where it would be fetched whole.

    `size` is set where `raw` is only its beginning, `received_at` where senders are judged.
    """

    folder: str
    uid: int
    lines: bytes
    raw: bytes | None
    size: int | None = None
    received_at: datetime | None = None


def look(
    mailbox: Mailbox, password: str, reader: MailReader, rules: Rules, *, folder: str | None, uid: int | None,
    last: int,
) -> Generator[Seen]:  # fmt: skip
    """Yield the mail `uid`, or else the `last` ones, of `folder` (None: the first one), changing nothing.

    Raises MailboxUnavailable, CredentialsRefused, and IngestorError where there is no such mail.
    """
    session = connect(mailbox, password, Timing(), Bell())
    try:
        name = session.require_folder(folder or mailbox.folders[0])
        session.select(name, writable=False)
        for wanted in [uid] if uid is not None else session.newest(last):
            header = session.headers([wanted], dated=mailbox.trust is not None).get(wanted)
            if header is None:
                raise IngestorError(f"{mailbox.name}: the folder {name} has no mail {wanted}")
            raw, size = None, None
            if reader.may_be_ours(header.lines, rules):
                if (header.size or 0) > PIECE_BYTES:
                    raw, size = session.piece(wanted, 0), header.size
                else:
                    raw = session.bodies([wanted]).get(wanted)
            yield Seen(name, wanted, header.lines, raw, size, header.received_at)
    finally:
        session.close()
