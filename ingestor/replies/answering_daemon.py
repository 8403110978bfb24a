"""How the daemon answers, without what few need: the answers' thread and its libraries."""

from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine

from ingestor.errors import IngestorError
from ingestor.replies.answering import forget_state
from ingestor.settings import Settings

if TYPE_CHECKING:
    from ingestor.replies.worker import AnswerWorker

RELOAD_SECONDS: Final = 2.0


class Answering:
    """The daemon's answers: a thread where there are rules, nothing where there are none."""

    def __init__(self, engine: Engine, may_write: Callable[[], bool]) -> None:
        """Begin with none; `may_write` says whether the archive is fit to be written to."""
        self._may_write = may_write
        self._engine = engine
        self._worker: AnswerWorker | None = None

    @property
    def progress(self) -> float | None:
        """When the last look ended (`time.monotonic`), None where nothing is answered."""
        return None if self._worker is None else self._worker.progress

    @property
    def credit(self) -> Decimal | None:
        """What is left of the account at Agile, in EUR, as far as is known."""
        return None if self._worker is None else self._worker.credit

    def start(self, settings: Settings) -> None:
        """Answer by the rules of `settings` from now on, and by no other any more."""
        self.ask_to_stop()
        self.join(RELOAD_SECONDS)
        self._worker = None
        if not settings.answer:
            with suppress(IngestorError):
                forget_state(self._engine)
        else:
            from ingestor.replies.worker import AnswerWorker  # megabytes that few need

            self._worker = AnswerWorker(self._engine, settings, self._may_write)
            self._worker.start()

    def ask_to_stop(self) -> None:
        """Let no further request begin."""
        if self._worker is not None:
            self._worker.ask_to_stop()

    def join(self, seconds: float) -> None:
        """Wait for what is on its way."""
        if self._worker is not None:
            self._worker.join(seconds)
