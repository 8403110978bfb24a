"""One IMAP connection in the words of an intake: folders, searches, headers, bodies, flags, IDLE."""

import contextlib
import difflib
import imaplib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from imapclient import IMAPClient, SocketTimeout
from imapclient.exceptions import ProtocolError

from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox.pieces import PIECE_BYTES
from ingestor.intake.mailbox.rows import Row, rows_by_uid
from ingestor.intake.mailbox.waiting import Bell
from ingestor.intake.mailbox.wire import Wire
from ingestor.redaction import redact

WINDOW: Final = 750
"""Mails a search or header fetch is about: 750 ten-digit UIDs stay below the 8,000 bytes that servers take in
one line, and below the 1,000 results at which Yahoo cuts a search short without a word."""


class Refused(MailboxUnavailable):
    """The server understood a command and said NO or BAD to it."""


class FolderMissing(MailboxUnavailable):
    """A folder of the configuration cannot be used; the mailbox's other folders go on."""


@dataclass(frozen=True, slots=True)
class Selected:
    """An open folder. `uidnext` is None where the server does not say."""

    name: str
    uidvalidity: int
    uidnext: int | None
    exists: int
    writable: bool


@dataclass(frozen=True, slots=True)
class Header:
    """From and Subject lines of a mail, and the size the server claims for it (None: it does not say)."""

    lines: bytes
    size: int | None


class Client(IMAPClient):  # type: ignore[misc]  # imapclient ships no types
    """imapclient over our own wire, given to it through the hook that its own test client uses."""

    def __init__(self, wire: Wire, *, encrypted: bool) -> None:
        self._wire = wire
        # A read timeout of 0 keeps the socket non-blocking: the wire does the waiting.
        super().__init__(wire.host, wire.port, ssl=encrypted, timeout=SocketTimeout(None, 0.0))

    def _create_IMAP4(self) -> Wire:  # noqa: N802 - imapclient's name
        return self._wire

    def idle(self) -> None:
        """Enter IDLE."""
        self._idle_tag = self._wire.begin_idle()


class Session:
    """A connection after its login. Not thread-safe: it belongs to the thread that opened it.

    Every method raises MailboxUnavailable when the line breaks (drop the session then), and Refused where
    the server says NO.
    """

    def __init__(self, client: Client, wire: Wire) -> None:
        self.client = client
        self.wire = wire
        self.selected: Selected | None = None
        self._folders: dict[str, str] | None = None
        self._prefix = ""

    @contextlib.contextmanager
    def speaking(self) -> Iterator[None]:
        """Turn whatever imaplib and imapclient raise into MailboxUnavailable or Refused."""
        with speaking(f"{self.wire.host}:{self.wire.port}", self.wire):
            yield

    def close(self) -> None:
        """Drop the connection, without the round trip of a farewell."""
        with contextlib.suppress(OSError):
            self.wire.shutdown()

    # What the server can do

    @property
    def can_idle(self) -> bool:
        return bool(self.client.has_capability("IDLE"))

    @property
    def can_move(self) -> bool:
        return bool(self.client.has_capability("MOVE"))

    @property
    def can_expunge(self) -> bool:
        """Whether single mails can be expunged: a plain EXPUNGE would take everybody's deleted mail."""
        return bool(self.client.has_capability("UIDPLUS"))

    # Folders

    def folders(self) -> dict[str, str]:
        """Return the separator of every folder by its name; asked for once a connection."""
        if self._folders is None:
            with self.speaking():
                listed = self.client.list_folders()
                if self.client.has_capability("NAMESPACE"):
                    personal = self.client.namespace().personal
                    self._prefix = personal[0][0] if personal else ""
            self._folders = {name: (separator or b"").decode("latin-1") for _, separator, name in listed}
        return self._folders

    def folder_named(self, name: str) -> str | None:
        """Return the server's own name for a configured folder, None where there is none.

        `Archive/SMS` is found as `INBOX.Archive.SMS` where the namespace says so.
        """
        if name.upper() == "INBOX":
            return "INBOX"
        known = self.folders()
        separator = next(filter(None, known.values()), "/")
        spellings = (name, name.replace("/", separator))
        return next((full for one in spellings for full in (one, self._prefix + one) if full in known), None)

    def require_folder(self, name: str) -> str:
        """Return the server's own name for a configured folder. Raises FolderMissing, naming near ones."""
        found = self.folder_named(name)
        if found is None:
            near = difflib.get_close_matches(self._prefix + name, self.folders(), 3, 0.5)
            hint = (
                f"near it are {', '.join(near)}" if near else "it has " + ", ".join(list(self.folders())[:10])
            )
            raise FolderMissing(f"{self.wire.host}: there is no folder {name!r}; {hint}")
        return found

    def create_folder(self, name: str) -> str:
        """Make a folder below the personal namespace and return the server's name for it."""
        full = name if name.startswith(self._prefix) else self._prefix + name
        with self.speaking():
            self.client.create_folder(full)
        self._folders = None
        return full

    def select(self, name: str, *, writable: bool) -> Selected:
        """Open a folder by the server's own name for it: with EXAMINE unless it must be written to."""
        self.selected = None
        with self.speaking():
            try:
                answer = self.client.select_folder(name, readonly=not writable)
            except imaplib.IMAP4.readonly:
                writable = False
                answer = self.client.select_folder(name, readonly=True)
        if not answer.get(b"UIDVALIDITY"):
            raise FolderMissing(
                f"{self.wire.host}: folder {name!r} has no UIDVALIDITY and cannot be followed"
            )
        self.selected = Selected(
            name, answer[b"UIDVALIDITY"], answer.get(b"UIDNEXT") or None, answer.get(b"EXISTS", 0), writable
        )
        self.wire.untagged_responses.clear()
        return self.selected

    def told(self) -> tuple[int | None, bool]:
        """Return the count of the newest EXISTS that came along with other answers, and whether EXPUNGE did.

        Forgets what has gathered: imaplib keeps every unasked-for line for as long as it lives.
        """
        gathered = self.wire.untagged_responses
        exists, expunged = gathered.get("EXISTS"), "EXPUNGE" in gathered
        gathered.clear()
        return (int(exists[-1]) if exists and isinstance(exists[-1], bytes) else None), expunged

    # Messages

    def search(self, first: int, last: int | None = None, since: date | None = None) -> list[int]:
        """Return the UIDs from `first` to `last` (None: to the end) in ascending order.

        No CHARSET: Exchange refuses it, and the criteria are ASCII. `UID n:*` also answers the last mail when
        all are below n (RFC 3501 6.4.8), so the bounds are applied again here.
        """
        with self.speaking():
            criteria = ["UID", f"{first}:{last or '*'}", *(("SINCE", since) if since else ())]
            found = self.client.search(criteria, charset=None)
        return sorted({uid for uid in found if first <= uid and (last is None or uid <= last)})

    def present(self, uids: Sequence[int], keyword: str = "ALL") -> set[int]:
        """Return those of at most WINDOW `uids` that are still there and match `keyword`."""
        if not uids:
            return set()
        with self.speaking():
            found = self.client.search(["UID", ",".join(map(str, uids)), keyword], charset=None)
        return set(uids).intersection(found)

    def landmarks(self, first_number: int, last_number: int) -> list[int]:
        """Return the UID of every WINDOWth mail by number, ascending: bounds for searches that stay short."""
        numbers = list(range(first_number + WINDOW - 1, last_number, WINDOW))
        uids: list[int] = []
        for start in range(0, len(numbers), WINDOW):
            with self.speaking():
                self.client.use_uid = False
                try:
                    rows = self.client.fetch(numbers[start : start + WINDOW], ["UID"])
                finally:
                    self.client.use_uid = True
            uids += [row[b"UID"] for row in rows.values() if isinstance(row.get(b"UID"), int)]
        return sorted(uids)

    def headers(self, uids: Sequence[int], *, bounded: bool = False) -> dict[int, Header]:
        """Return header lines and claimed size of at most WINDOW mails; what is missing is missing.

        `bounded` asks for the first 64 KiB of the lines only: for mails that have broken a connection.
        """
        item = "BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]" + ("<0.65536>" if bounded else "")
        found = {}
        for uid, row in self._fetch(uids, f"(RFC822.SIZE {item})").items():
            lines = _section(row, b"BODY[HEADER")
            size = row.get(b"RFC822.SIZE")
            if lines is not None:
                found[uid] = Header(lines, size if isinstance(size, int) else None)
        return found

    def bodies(self, uids: Sequence[int]) -> dict[int, bytes]:
        """Return the whole mails; what is missing is missing. Never sets \\Seen."""
        rows = self._fetch(uids, "(BODY.PEEK[])")
        found = {uid: _section(row, b"BODY[]", b"RFC822") for uid, row in rows.items()}
        return {uid: body for uid, body in found.items() if body is not None}

    def piece(self, uid: int, offset: int) -> bytes | None:
        """Return up to PIECE_BYTES of one mail from `offset` on; None where the answer has none."""
        rows = self._fetch([uid], f"(BODY.PEEK[]<{offset}.{PIECE_BYTES}>)")
        return _section(rows.get(uid, {}), b"BODY[]")

    def _fetch(self, uids: Sequence[int], items: str) -> dict[int, Row]:
        """Return what came of `items` (a parenthesised list) for `uids`; rows of other mails are dropped."""
        with self.speaking():
            status, answer = self.wire.uid("FETCH", ",".join(map(str, uids)), items)
            if status != "OK":
                raise self.wire.error(answer[-1])
            rows = rows_by_uid(answer)
        return {uid: rows[uid] for uid in uids if uid in rows}

    # Flags

    def flag(self, uids: Sequence[int], flag: bytes) -> None:
        with self.speaking():
            self.client.add_flags(uids, [flag], silent=True)

    def copy(self, uids: Sequence[int], folder: str) -> None:
        with self.speaking():
            self.client.copy(uids, folder)

    def move(self, uids: Sequence[int], folder: str) -> None:
        with self.speaking():
            self.client.move(uids, folder)

    def expunge(self, uids: Sequence[int]) -> None:
        with self.speaking():
            self.client.uid_expunge(uids)

    # Waiting

    def idle(self, seconds: float, *bells: Bell) -> bool:
        """Wait in IDLE for news (True), a bell, or the end of `seconds`; then search, whatever was said.

        What woke us is not even read: EXISTS may have come before the continuation, or in the same packet,
        and a dead connection looks like news. Leaving IDLE finds out, because it must be answered.
        """
        with self.speaking():
            self.wire.untagged_responses.clear()
            self.client.idle()
            early = bool(self.wire.untagged_responses)
            news = early or self.wire.stream.wait_for_news(seconds, *bells)
            _, said = self.client.idle_done()
        if any(line and line[0] == b"BYE" for line in said):
            raise self.wire.fault("it said BYE")
        return news


def _section(row: Row, *names: bytes) -> bytes | None:
    """Return the section whose item begins with one of `names`: servers spell and number them variously."""
    for item, value in row.items():
        if item.startswith(names) and isinstance(value, bytes):
            return value
    return None


@contextlib.contextmanager
def speaking(server: str, wire: Wire | None = None) -> Iterator[None]:
    """Turn whatever imaplib and imapclient raise into sentences about `server`.

    Only tagged answers are quoted: a line that broke the protocol may be part of somebody's mail.
    """
    try:
        yield
    except imaplib.IMAP4.abort:
        said = wire.untagged_responses.get("BYE") if wire is not None else None
        what = f"it said BYE ({_shown(said[-1])})" if said else "it broke the protocol off"
        raise MailboxUnavailable(f"{server}: {what}") from None
    except ProtocolError:  # its words are pieces of the answer, which may be a mail
        raise MailboxUnavailable(f"{server}: it sent an answer that cannot be read") from None
    except imaplib.IMAP4.error as fault:
        raise Refused(f"{server}: {server_words(fault)}") from None
    except (ValueError, TypeError, LookupError, AssertionError, AttributeError) as fault:
        raise MailboxUnavailable(
            f"{server}: it sent an answer that cannot be read ({type(fault).__name__})"
        ) from None


def server_words(fault: BaseException) -> str:
    """Return what a server said in a tagged answer, short and fit for a log."""
    said: Any = fault.args[0] if fault.args else ""
    return _shown(said)


def _shown(said: Any) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    first = text.partition("\n")[0]  # imapclient adds advice, and our whole criteria, on further lines
    return redact("".join(c if c.isprintable() else " " for c in first))[:160]
