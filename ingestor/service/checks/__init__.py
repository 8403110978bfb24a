"""Everything that a start needs, tried without changing anything on a server or in the database.

Here: what a check finds, one line each, with the fix where there is something to mend. `machine` does
them all.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from enum import StrEnum
from threading import Thread

from ingestor.errors import IngestorError


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
    running = [(subject, _begun(subject, check)) for subject, check in checks]
    wait([outcome for _, outcome in running], timeout=seconds)
    for subject, outcome in running:
        if outcome.done():
            yield from outcome.result()
        else:
            fix = "see whether the host of its configuration answers from here"
            yield fail(subject, f"no answer within {seconds:.0f} s", fix)


def _begun(subject: str, check: Check) -> Future[Sequence[Finding]]:
    outcome: Future[Sequence[Finding]] = Future()

    def work() -> None:
        try:
            outcome.set_result(check())
        except IngestorError as error:
            outcome.set_result([fail(subject, str(error))])
        except Exception as error:  # noqa: BLE001 - one check never stops the next
            outcome.set_result([fail(subject, f"the check itself failed ({type(error).__name__})")])

    Thread(target=work, name=f"check {subject}", daemon=True).start()
    return outcome
