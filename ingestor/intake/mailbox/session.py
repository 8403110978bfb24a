"""One IMAP connection in the words of an intake: login, folders, searches, headers, bodies, flags, IDLE."""

import contextlib
import difflib
import imaplib
from collections.abc import Callable, Sequence
from datetime import date, datetime
from typing import Any, Final
from unicodedata import normalize

from imapclient.datetime_util import format_criteria_date
from imapclient.response_parser import parse_fetch_response

from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox import answers
from ingestor.intake.mailbox.connection import Client, Wire, tls_context
from ingestor.intake.mailbox.context import Bell, Timing
from ingestor.intake.mailbox.login import log_in
from ingestor.settings import Mailbox

WINDOW: Final = 750
"""Mails a search or header fetch is about: 750 ten-digit UIDs stay below the 8,000 bytes that servers take in
one line, and below the 1,000 results at which Yahoo cuts a search short without a word."""

PIECE_BYTES: Final = 1024 * 1024


class Session:
    """A connection after its login, for the thread that opened it.

    Every method raises MailboxUnavailable when the line breaks (drop the session then), and Refused on a NO.
    """

    def __init__(self, client: Client, wire: Wire) -> None:
        self.client = client
        self.wire = wire
        self._exists = 0
        self._folders: dict[str, answers.Listed] | None = None
        self._prefix = ""
        self.refuses_move = False
        """MOVE was tried on this connection, and refused though it is offered."""

    def speaking(self) -> contextlib.AbstractContextManager[None]:
        return answers.speaking(f"{self.wire.host}:{self.wire.port}", self.wire)

    def close(self) -> None:
        """Drop the connection, without the round trip of a farewell."""
        with contextlib.suppress(OSError):
            self.wire.shutdown()

    # What the server can do

    @property
    def can_idle(self) -> bool:
        return self._can("IDLE")

    @property
    def can_move(self) -> bool:
        return not self.refuses_move and self._can("MOVE")

    @property
    def can_expunge(self) -> bool:
        """Whether single mails can be expunged: a plain EXPUNGE would take everybody's deleted mail."""
        return self._can("UIDPLUS")

    def _can(self, capability: str) -> bool:
        with self.speaking():  # it may have to be asked for
            return bool(self.client.has_capability(capability))

    # Folders

    def folders(self) -> dict[str, answers.Listed]:
        """Return every folder by its name, none where the server does not tell; asked once a connection."""
        if self._folders is None:
            self._folders = {}
            with contextlib.suppress(answers.Refused), self.speaking():
                status, answer = self.wire.list()
                self._folders = answers.listed_folders(answer) if status == "OK" else {}
            with contextlib.suppress(MailboxUnavailable), self.speaking():  # then there is no prefix
                if self.client.has_capability("NAMESPACE"):
                    personal = self.client.namespace().personal
                    self._prefix = personal[0][0] if personal else ""
        return self._folders

    def folder_named(self, name: str) -> str | None:
        """Return the server's own name for a configured folder, None where there is none.

        `Archive/SMS` is found as `INBOX.Archive.SMS` where the namespace says so. Where the server lists
        nothing the name stands as it is.
        """
        if name.upper() == "INBOX":
            return "INBOX"
        known = self.folders()
        if not known:
            return name
        separator = next((one.separator for one in known.values() if one.separator), "/")
        spellings = (name, name.replace("/", separator))
        # Some file systems take letters apart; a name in the very same letters comes first.
        composed = {normalize("NFC", one): one for one in known} | {one: one for one in known}
        fulls = (full for one in spellings for full in (one, self._prefix + one))
        return next((composed[full] for full in fulls if full in composed), None)

    def _on_the_wire(self, name: str) -> str | bytes:
        listed = (self._folders or {}).get(name)
        return name if listed is None else listed.wire

    def require_folder(self, name: str) -> str:
        """Return the server's own name for a configured folder. Raises FolderMissing, naming near ones."""
        found = self.folder_named(name)
        if found is None:
            # A server may list 100,000 folders with names of any length and kind.
            fit = [one for one in self.folders() if len(one) <= 100 and one.isprintable()][:2000]
            near = difflib.get_close_matches(self._prefix + name, fit, 3, 0.5)
            hint = f"near it are {', '.join(near)}" if near else f"it has {', '.join(fit[:10])}"
            raise answers.FolderMissing(f"{self.wire.host}: there is no folder {name!r}; {hint}")
        return found

    def create_folder(self, name: str) -> str:
        """Make a folder below the personal namespace and return the server's name for it."""
        full = name if name.startswith(self._prefix) else self._prefix + name
        with self.speaking():
            self.client.create_folder(full)
        self._folders = None
        return full

    def select(self, name: str, *, writable: bool) -> answers.Selected:
        """Open a folder by the server's own name for it: with EXAMINE unless it must be written to."""
        self._exists = 0
        wire_name = self._on_the_wire(name)
        with self.speaking():
            try:
                answer = self.client.select_folder(wire_name, readonly=not writable)
            except imaplib.IMAP4.readonly:
                writable = False
                answer = self.client.select_folder(wire_name, readonly=True)
        uidvalidity = answers.bounded_number(answer.get(b"UIDVALIDITY"))
        if not uidvalidity:
            raise answers.FolderMissing(
                f"{self.wire.host}: folder {name!r} has no UIDVALIDITY that can be kept, so it cannot be read"
            )
        uidnext = answers.bounded_number(answer.get(b"UIDNEXT"))
        self._exists = answers.bounded_number(answer.get(b"EXISTS")) or 0
        self.wire.untagged_responses.clear()
        return answers.Selected(name, uidvalidity, uidnext or None, self._exists, writable)

    def told(self) -> tuple[int | None, bool]:
        """Return the count of the newest EXISTS that came along with other answers, and whether EXPUNGE did.

        Forgets both: imaplib keeps every unasked-for line for as long as it lives.
        """
        gathered = self.wire.untagged_responses
        exists, expunged = gathered.get("EXISTS"), "EXPUNGE" in gathered
        gathered.clear()
        return (answers.bounded_number(exists[-1]) if exists else None), expunged

    # Messages

    def search(self, first: int, last: int | None = None, since: date | None = None) -> list[int]:
        """Return the UIDs from `first` to `last` (None: to the end) in ascending order.

        No CHARSET: Exchange refuses it. `UID n:*` also answers the last mail when all are below n (RFC 3501
        6.4.8), so the bounds are applied again. SearchUseless is raised where it answers none though mails
        exist (GNU Mailutils), or not `last`, the UID of a mail, which is there.
        """
        day = f" SINCE {format_criteria_date(since).decode()}" if since else ""
        found = self._search(f"UID {first}:{last or '*'}{day}")
        if since and not found:
            self.search(first, last)
        elif not since and self._contradicted(found, first, last):
            raise answers.SearchUseless(f"{self.wire.host}: a search does not find mails that are there")
        return sorted(uid for uid in found if first <= uid and (last is None or uid <= last))

    def _search(self, criteria: str) -> set[int]:
        with self.speaking():
            status, answer = self.wire.uid("SEARCH", criteria)
            if status != "OK":
                raise self.wire.error(answer[-1])
            return answers.searched_uids(answer)

    def _contradicted(self, found: set[int], first: int, last: int | None) -> bool:
        """Say without a search whether mails are there from `first` to `last` that it did not find."""
        exists = self._exists
        try:
            if last is not None:
                return last not in found and bool(self._fetch([last], "(UID)"))
            if first == 1 and len(found) < exists <= WINDOW:
                return len(self.numbered(1, exists)) > len(found)
            # Courier rightly finds nothing where all are below; so the last one by number tells.
            return not found and exists > 0 and any(uid >= first for uid in self.numbered(exists, exists))
        except answers.Refused:  # they have been expunged since
            return False

    def present(self, uids: Sequence[int], keyword: str = "ALL") -> set[int]:
        """Return which of at most WINDOW `uids` match `keyword` and are there, by SEARCH or else FETCH."""
        if not uids:
            return set()
        found = self._search(f"UID {','.join(map(str, uids))} {keyword}").intersection(uids)
        if keyword == "ALL" and (rest := [uid for uid in uids if uid not in found]):
            found |= self._fetch(rest, "(UID)").keys()
        return found

    def landmarks(self, first_number: int, last_number: int) -> list[int]:
        """Return the UID of every WINDOWth mail by number, ascending: bounds for searches that stay short."""
        uids: list[int] = []
        step = WINDOW * WINDOW
        for start in range(first_number + WINDOW - 1, last_number, step):
            found = self.numbered(start, min(start + step, last_number) - 1, WINDOW)
            if not found:
                break  # EXISTS says more than there is
            uids += found
        return sorted(uids)

    def newest(self, count: int) -> list[int]:
        exists = self._exists
        numbers = range(max(1, exists - count + 1), exists + 1, WINDOW)
        return sorted(uid for n in numbers for uid in self.numbered(n, min(n + WINDOW - 1, exists)))

    def by_number(self, first: int) -> list[int]:
        """Return the UIDs from `first` on without a search: by number, from the last mail backwards."""
        uids: list[int] = []
        number = self._exists
        while number > 0:
            some = self.numbered(max(1, number - WINDOW + 1), number)
            uids += [uid for uid in some if uid >= first]
            if not some or min(some) < first:
                break
            number -= WINDOW
        return sorted(uids)

    def numbered(self, first: int, last: int, step: int = 1) -> list[int]:
        """Return the UIDs of the mails with every `step`th number from `first` to `last`."""
        with self.speaking():
            self.client.use_uid = False
            try:
                rows = self.client.fetch(list(range(first, last + 1, step)), ["UID"])
            finally:
                self.client.use_uid = True
        found = (answers.bounded_number(row.get(b"UID")) for row in rows.values())
        return [uid for uid in found if uid]

    def headers(
        self, uids: Sequence[int], *, sized: bool = True, bounded: bool = False, dated: bool = False,
        believed: bool = False,
    ) -> dict[int, answers.Header]:  # fmt: skip
        """Return header lines and claimed size of at most WINDOW mails; what is missing is missing.

        For mails that have broken a connection: not `sized` (Dovecot hangs up over a size that it remembers
        wrongly, yet gives the header), or `bounded` to the first 64 KiB. `dated`: when it came. Without a
        field a header is that of a mail not there yet, unless it is `believed`.
        """
        item = "BODY.PEEK[HEADER.FIELDS (FROM SUBJECT DATE MESSAGE-ID)]" + ("<0.65536>" if bounded else "")
        found = {}
        about = "INTERNALDATE RFC822.SIZE " if dated else "RFC822.SIZE "
        for uid, row in self._fetch(uids, f"({about if sized else ''}{item})").items():
            lines = answers.section(row, b"BODY[HEADER")
            if lines is not None:
                size, came = answers.bounded_number(row.get(b"RFC822.SIZE")), row.get(b"INTERNALDATE")
                aware = came if isinstance(came, datetime) and came.tzinfo is not None else None
                found[uid] = answers.Header(lines, size, aware)
        # Hardly a mail has none of the four fields: it is asked whether this one has any other.
        bare = [] if believed else [uid for uid, header in found.items() if b":" not in header.lines]
        for uid in bare:
            if b":" not in self.whole_header(uid):
                del found[uid]
        return found

    def whole_header(self, uid: int) -> bytes:
        return answers.section(self._fetch([uid], "(BODY.PEEK[HEADER])").get(uid, {}), b"BODY[HEADER]") or b""

    def bodies(self, uids: Sequence[int]) -> dict[int, bytes]:
        """Return the whole mails; what is missing is missing. Never sets \\Seen."""
        rows = self._fetch(uids, "(BODY.PEEK[])")
        found = {uid: answers.section(row, b"BODY[]", b"RFC822") for uid, row in rows.items()}
        return {uid: body for uid, body in found.items() if body is not None}

    def piece(self, uid: int, offset: int) -> bytes | None:
        """Return up to PIECE_BYTES of one mail from `offset` on; None where the answer has none."""
        rows = self._fetch([uid], f"(BODY.PEEK[]<{offset}.{PIECE_BYTES}>)")
        return answers.section(rows.get(uid, {}), b"BODY[]")

    def _fetch(self, uids: Sequence[int], items: str) -> dict[int, dict[bytes, Any]]:
        """Return what came of `items` (a parenthesised list) for `uids`; rows of other mails are dropped."""
        with self.speaking():
            status, answer = self.wire.uid("FETCH", ",".join(map(str, uids)), items)
            if status != "OK":
                raise self.wire.error(answer[-1])
            # Other people's flag changes may come as rows of their own; what they say is no answer to us.
            rows = parse_fetch_response(list(answer), normalise_times=False, uid_is_key=True)
        return {uid: rows[uid] for uid in uids if uid in rows}

    # Flags

    def flag(self, uids: Sequence[int], flag: bytes) -> None:
        with self.speaking():
            self.client.add_flags(uids, [flag], silent=True)

    def copy(self, uids: Sequence[int], folder: str) -> None:
        with self.speaking():
            self.client.copy(uids, self._on_the_wire(folder))

    def move(self, uids: Sequence[int], folder: str) -> None:
        try:
            with self.speaking():
                self.client.move(uids, self._on_the_wire(folder))
        except answers.Refused:
            self.refuses_move = True
            raise

    def expunge(self, uids: Sequence[int]) -> None:
        with self.speaking():
            self.client.uid_expunge(uids)

    # Waiting

    def idle(self, wait: Callable[[], bool]) -> bool:
        """Stay in IDLE while `wait` waits, and return what it says: True for news. Search, whatever was said.

        What woke us is not even read: EXISTS may have come before the continuation, or in the same packet,
        and a dead connection looks like news. Leaving IDLE finds out, because it must be answered.
        """
        if "EXISTS" in self.wire.untagged_responses:  # it came along with CAPABILITY, asked for just before
            return True
        with self.speaking():
            self.wire.untagged_responses.clear()
            tag = self.wire.begin_idle()
            early = bool(self.wire.untagged_responses)
            news = early or wait()
            self.wire.end_idle(tag)
        return news


def connect(mailbox: Mailbox, credential: str, timing: Timing, stop: Bell) -> Session:
    """Connect to `mailbox`, secure the connection as configured, log in by `credential` (password or token).

    Raises MailboxUnavailable; CredentialsRefused only where the server itself refused the login;
    ConfigurationError where the CA file cannot be used.
    """
    context = tls_context(mailbox) if mailbox.security != "plain" else None
    encrypted = mailbox.security == "tls"
    with answers.speaking(f"{mailbox.host}:{mailbox.port}"):
        wire = Wire(
            mailbox.host, mailbox.port, tls=context if encrypted else None,
            local_only=mailbox.security == "plain" and not mailbox.allow_plain, timing=timing, stop=stop,
        )  # fmt: skip
    try:
        session = Session(Client(wire, encrypted=encrypted), wire)
        with session.speaking():
            if mailbox.security == "starttls":
                if not session.client.has_capability("STARTTLS"):
                    raise wire.fault("it offers no STARTTLS; the password was not sent")  # noqa: TRY301 - see below
                session.client.starttls(context)
            log_in(session.client, wire, mailbox, credential)
    except BaseException:
        wire.shutdown()
        raise
    return session
