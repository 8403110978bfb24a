"""What a server answers, and what may be told of it: refusals, LIST and SEARCH.

A refusal may quote anything, the text of a mail included (`NO ... your code is 4711`): a log shows only what
we know, a person's terminal all of it.
"""

import contextlib
import imaplib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from imapclient import imap_utf7
from imapclient.exceptions import ProtocolError

from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox.connection import Wire
from ingestor.redaction import one_line, redact

LARGEST_NUMBER: Final = 2**63 - 1
"""What both databases hold; RFC 3501 9 gives UIDs and UIDVALIDITY 32 bits."""

_LINE = re.compile(rb'\([^)]*\) (?:"\\?([^"])"|""|NIL) (.+)', re.DOTALL | re.IGNORECASE)
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"')

_CODE: Final = re.compile(
    r"\[(UNAVAILABLE|AUTHENTICATIONFAILED|AUTHORIZATIONFAILED|EXPIRED|PRIVACYREQUIRED|CONTACTADMIN|NOPERM|INUSE"
    r"|EXPUNGEISSUED|CORRUPTION|SERVERBUG|CLIENTBUG|CANNOT|LIMIT|OVERQUOTA|ALREADYEXISTS|NONEXISTENT"
    r"|ALERT|BADCHARSET|PARSE|READ-ONLY|TRYCREATE|TOOBIG|THROTTLED|WEBALERT|HASCHILDREN|UNKNOWN-CTE)\b"
)
"""RFC 5530 3, RFC 3501 7.1 and what large providers added."""

_KNOWN: Final = re.compile(
    r"(?:authentication|login|authenticate|logon) (?:failed|failure|refused|is disabled)"
    r"|invalid (?:credentials|login|user(?:name)? or password|password)"
    r"|(?:incorrect|wrong|bad) (?:user(?:name)?|login|password|user(?:name)? or password|credentials)"
    r"|application-specific password required|please log in via your web browser|web login required"
    r"|(?:your )?account is (?:not enabled for imap use|disabled|locked|suspended|blocked)"
    r"|authenticated but not connected|temporar(?:y|ily) (?:failure|unavailable|authentication failure)"
    r"|too many (?:simultaneous |concurrent |open |login |failed )*(?:connections|sessions|logins|attempts)"
    r"|maximum (?:number of )?(?:concurrent )?(?:connections|sessions)(?: from user\+ip)?(?: exceeded)?"
    r"|(?:mailbox|folder) (?:doesn't|does not) exist|no such (?:mailbox|folder)|unknown mailbox"
    r"|(?:mailbox |folder )?(?:is )?read[- ]only|permission denied|access denied|not permitted|over ?quota"
    r"|quota exceeded|internal (?:server )?error|server (?:error|busy|unavailable|shutting down|shut down)"
    r"|service (?:temporarily )?unavailable|(?:try|come) again later|try later|overloaded|timed? ?out"
    r"|disconnected (?:due to|for|because of) inactivity|autologout|idle (?:for )?too long|logging out"
    r"|unknown command|command (?:not supported|unknown|disabled)|not supported|not implemented|syntax error"
    r"|invalid (?:arguments?|messageset|message set)|specified message set is invalid|not available"
    r"|server shut down by signal|shutting down",
    re.IGNORECASE,
)
"""Sentences of servers that name nothing but the fault."""


class Refused(MailboxUnavailable):
    """The server understood a command and said NO or BAD to it."""


class SearchUseless(MailboxUnavailable):
    """The server's SEARCH contradicts what else it says of the folder."""


class FolderMissing(MailboxUnavailable):
    """A folder of the configuration cannot be used; the mailbox's other folders go on."""


@contextlib.contextmanager
def speaking(server: str, wire: Wire | None = None) -> Iterator[None]:
    """Turn whatever imaplib and imapclient raise into sentences about `server`.

    Only tagged answers and BYE are looked at: a line that broke the protocol may be part of somebody's mail.
    """
    try:
        yield
    except imaplib.IMAP4.abort:
        farewell = wire.untagged_responses.get("BYE") if wire is not None else None
        if not farewell:
            raise MailboxUnavailable(f"{server}: it broke the protocol off") from None
        what = f"it said BYE ({loggable(farewell[-1])})"
        raise _with(MailboxUnavailable(f"{server}: {what}"), farewell[-1]) from None
    except ProtocolError:  # its words are pieces of the answer, which may be a mail
        raise MailboxUnavailable(f"{server}: it sent an answer that cannot be read") from None
    except imaplib.IMAP4.error as fault:
        if wire is not None:  # imaplib would break off at the next command, whatever that is
            wire.untagged_responses.pop("READ-ONLY", None)
        answer = fault.args[0] if fault.args else ""
        raise _with(Refused(f"{server}: it refuses ({loggable(answer)})"), answer) from None
    except (ValueError, TypeError, LookupError, AssertionError, AttributeError) as fault:
        raise MailboxUnavailable(
            f"{server}: it sent an answer that cannot be read ({type(fault).__name__})"
        ) from None


def loggable(said: Any) -> str:
    """Return of a server's words the codes and sentences that are known, or that there are others."""
    text = in_full(said)
    code, known = _CODE.search(text), _KNOWN.search(_CODE.sub("", text))
    parts = [f"[{code[1]}]"] if code else []
    parts += [known[0].lower()] if known else []
    return " ".join(parts) or "in words of its own, which `ingestor check` shows on a terminal"


def in_full(said: Any) -> str:
    """Return a server's words as a terminal may show them: one short line, without a secret of ours."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
    first = text.partition("\n")[0]  # imapclient adds advice, and our whole criteria, on further lines
    return redact(one_line(first))[:300]


def _with(fault: MailboxUnavailable, said: Any) -> MailboxUnavailable:
    fault.said = in_full(said)
    return fault


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
    """From, Subject, Date and Message-ID lines, the size claimed, and, if asked, when it came (aware)."""

    lines: bytes
    size: int | None
    received_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A folder as the server names it on the wire, and its separator (empty: it has none)."""

    wire: bytes
    separator: str


def listed_folders(answer: Sequence[Any]) -> dict[str, Listed]:
    """Return the folders of a LIST answer, as imaplib hands it out, by the name that people know.

    A name that is no modified UTF-7 (a lone `&`, in older servers) is known by its own bytes; a line that
    cannot be read hides no other.
    """
    found: dict[str, Listed] = {}
    for line in _lines(answer):
        match = _LINE.match(line)
        if match is None:
            continue
        wire = match[2]
        if quoted := _QUOTED.match(wire):
            wire = re.sub(rb"\\(.)", rb"\1", quoted[1])
        found.setdefault(_readable(wire), Listed(wire, (match[1] or b"").decode("latin-1")))
    return found


def searched_uids(answer: Sequence[Any]) -> set[int]:
    """Return the numbers of a SEARCH answer, but for those no UID can be.

    Raises ProtocolError where it holds anything else: what was meant might be a mail.
    """
    uids: set[int] = set()
    for line in answer:
        for word in (line or b"").partition(b"(")[0].split():  # (MODSEQ n) may follow
            if not word.isdigit():
                raise ProtocolError("a SEARCH answer holds what is no number")
            uids.add(bounded_number(word) or 0)
    return uids - {0}


def bounded_number(digits: object) -> int | None:
    """Return the number that a server sent as `digits`, None where no archive can hold it or it is none."""
    if isinstance(digits, bytes):
        digits = int(digits) if len(digits) < 20 and digits.isdigit() else None
    return digits if isinstance(digits, int) and 0 <= digits <= LARGEST_NUMBER else None


def section(row: dict[bytes, Any], *names: bytes) -> bytes | None:
    """Return the section whose item begins with one of `names`: servers spell and number them variously."""
    for item, value in row.items():
        if item.startswith(names) and isinstance(value, bytes):
            return value
    return None


def _lines(answer: Sequence[Any]) -> Iterator[bytes]:
    """Yield each line whole: imaplib splits one whose name comes as a literal."""
    for part in answer:
        if isinstance(part, tuple):
            yield re.sub(rb"\{\d+\}\Z", b"", part[0]) + part[1]
        elif part:
            yield part


def _readable(wire: bytes) -> str:
    try:
        return str(imap_utf7.decode(wire))
    except (ValueError, LookupError):
        return wire.decode("utf-8", "backslashreplace")
