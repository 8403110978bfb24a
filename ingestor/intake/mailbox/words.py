"""What a server says when it refuses: for a log only what we know, for a person's terminal all of it.

A refusal may quote anything, the text of a mail included (`NO ... your code is 4711`).
"""

import contextlib
import imaplib
import re
from collections.abc import Iterator
from typing import Any, Final

from imapclient.exceptions import ProtocolError

from ingestor.errors import MailboxUnavailable
from ingestor.intake.mailbox.wire import Wire
from ingestor.redaction import redact

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
    return redact("".join(c if c.isprintable() else " " for c in first))[:300]


def _with(fault: MailboxUnavailable, said: Any) -> MailboxUnavailable:
    fault.said = in_full(said)
    return fault
