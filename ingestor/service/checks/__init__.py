"""Everything that a start needs, tried without changing anything on a server or in the database: `machine`
does all checks. Here: what one finds, a line each, with the fix where there is something to mend.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from enum import StrEnum

from ingestor.errors import IngestorError
from ingestor.service import in_background


class Level(StrEnum):
    """How bad it is: `fail` keeps the daemon from its work, `warn` does not."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is so about `subject`, and what to do about it. Never a secret, and never a whole number."""

    level: Level
    subject: str
    says: str
    fix: str | None = None


def ok(subject: str, says: str) -> Finding:
    """Return that all is well."""
    return Finding(Level.OK, subject, says)


def warn(subject: str, says: str, fix: str | None = None) -> Finding:
    """Return that something is unwise or must be known."""
    return Finding(Level.WARN, subject, says, fix)


def fail(subject: str, says: str, fix: str | None = None) -> Finding:
    """Return that something would keep the daemon from its work."""
    return Finding(Level.FAIL, subject, says, fix)


Check = Callable[[], Sequence[Finding]]


def together(checks: Sequence[tuple[str, Check]], seconds: float) -> Iterator[Finding]:
    """Do all `checks` (subject and work) at once and yield their findings in the order given.

    A check that does not end within `seconds` fails and is left behind: a name server that never answers
    cannot be interrupted. One that raises fails with its words.
    """
    running = [(subject, in_background(f"check {subject}", check)) for subject, check in checks]
    wait([outcome for _, outcome in running], timeout=seconds)
    for subject, outcome in running:
        if not outcome.done():
            fix = "see whether the host of its configuration answers from here"
            yield fail(subject, f"no answer within {seconds:.0f} s", fix)
        elif isinstance(error := outcome.exception(), IngestorError):
            yield fail(subject, str(error))
        elif error is not None:
            yield fail(subject, f"the check itself failed ({type(error).__name__})")
        else:
            yield from outcome.result()
