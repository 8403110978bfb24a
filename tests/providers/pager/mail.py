"""Pager's mail: the fields of its callback, a line each.

Subject: Beep

from=447009000001
to=447009000009
at=2026-05-14T10:23:02Z
text=Beep by mail
"""

from ingestor.providers.pager.callback import record

from ingestor.providers.contract import Explanation, NotOurs, Readable, Reading, Rules, Unreadable

PARSER = "pager.mail/1"


def may_be_ours(header: bytes, rules: Rules) -> bool:
    """Say whether the whole mail must be read."""
    return b"Subject: Beep" in header


is_ours = may_be_ours


def read_mail(raw: bytes, rules: Rules) -> Reading:
    """Return what the mail means."""
    header, _, body = raw.partition(b"\n\n")
    if not may_be_ours(header, rules):
        return NotOurs()
    try:
        return Readable(
            record(dict(line.split("=", 1) for line in body.decode().splitlines() if line), rules), PARSER
        )
    except ValueError as fault:
        return Unreadable(str(fault), PARSER)


def oversized(raw_head: bytes, size: int, kept: int, rules: Rules) -> Unreadable | NotOurs:
    """Return the verdict on a long mail."""
    return Unreadable("too long", PARSER) if may_be_ours(raw_head, rules) else NotOurs()


def sender_shown(raw: bytes) -> str:
    """Return from whom it comes."""
    return "Pager"


def sender_of(raw: bytes, rules: Rules) -> str | None:
    """Return the one sender."""
    return "pager@example.org"


def explain_mail(raw: bytes, rules: Rules, size: int | None = None) -> Explanation:
    """Return the reading and what decided it."""
    return Explanation(read_mail(raw, rules), "the subject", ())
