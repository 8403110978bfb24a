"""The log: JSON lines on stderr for journald, pretty ones for a terminal, one shape for every library.

Code logs with `get_logger(__name__)`, which is structlog's: a short phrase and key=value pairs. Nothing here
can be talked into showing a secret, message text or a whole phone number: values are redacted whatever their
key, fields that hold message content are withheld by name, and tracebacks carry no local variables.

structlog is imported where it is used: with what it brings it takes 60 ms, and most commands log nothing.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping, MutableMapping
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, Literal, TextIO, TypeVar

from ingestor.numbers import last_four
from ingestor.redaction import redact

if TYPE_CHECKING:
    from structlog.types import Processor

LogFormat = Literal["auto", "json", "console"]

WITHHELD = "[withheld]"

# Fields of a record or a payload that are message content, and names that secrets go by.
_NEVER_SHOWN = frozenset({
    "authorization", "body", "clean_text", "content", "keyword", "mail", "message_text", "params",
    "parameters", "passwd", "password", "payload", "raw", "secret", "sms", "subject", "text", "token",
})  # fmt: skip
_LAST_FOUR_ONLY = frozenset({"destination", "destination_raw", "number", "originator", "originator_raw"})

# These say at INFO or DEBUG what was fetched, bound to SQL, or run every minute: content, or noise.
_QUIET = (
    "alembic",
    "apscheduler",
    "asyncio",
    "imapclient",
    "mailparser",
    "sqlalchemy",
    "tzlocal",
    "uvicorn.access",
)

# By the least level; the numbers are those of syslog.
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))


class _Logger:
    """Stands for structlog's logger of a name until something is logged."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        import structlog

        return getattr(structlog.get_logger(self._name), method)


def get_logger(name: str) -> Any:
    """Return structlog's logger for the module `name`."""
    return _Logger(name)


def configure(log_format: LogFormat, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every record of this process, structlog's and the standard library's, to stderr in one shape.

    `auto` is `console` on a terminal and `json` elsewhere. May be called again; the last call counts.
    """
    stream = stream or sys.stderr
    if log_format == "auto":
        log_format = "console" if stream.isatty() else "json"
    if log_format == "json" and "rich" not in sys.modules:
        # structlog takes rich with it, for a terminal's tracebacks: 2 MB of a daemon, 0.1 s of its start.
        sys.modules["rich"] = None  # type: ignore[assignment]  # what the import system takes for "there is none"
        import structlog

        del sys.modules["rich"]
    import structlog

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        *(() if is_journal(stream) else (structlog.processors.TimeStamper(fmt="iso", utc=True),)),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )  # fmt: skip
    handler = logging.StreamHandler(stream)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(log_format, stream),
        ],
    )  # fmt: skip
    handler.setFormatter(_ForJournal(formatter) if is_journal(stream) else formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False  # its report prints the arguments of the call, whatever they hold
    threading.excepthook = _log_dead_thread


def is_journal(stream: TextIO) -> bool:
    """Say whether `stream` goes to journald, where a line may begin with its priority (sd-daemon(3))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _ForJournal(logging.Formatter):
    """Marks every line of another's with its priority: `journalctl -p warning` shows what must be seen."""

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in self._lines.format(record).splitlines())


def _rendering(log_format: Literal["json", "console"], stream: TextIO) -> "list[Processor]":
    """Return what turns an event into a line: traceback without locals, redaction, then the renderer."""
    import structlog

    if log_format == "json":
        structured = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [
            structlog.processors.ExceptionRenderer(structured),
            withhold,
            lambda _logger, _method, event: {
                "event": event.pop("event", None),
                **event,
            },  # the sentence first
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    colours = stream.isatty() and not os.environ.get("NO_COLOR")
    return [
        structlog.processors.format_exc_info, withhold, structlog.dev.ConsoleRenderer(colors=colours),
    ]  # fmt: skip


def withhold(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return `event` fit for the eyes of anybody: plain values only, and none of them private."""
    return {str(key): _shown(str(key), value) for key, value in event.items()}


def _shown(key: str, value: object) -> object:
    if value is None or (isinstance(value, bool | int | float) and not isinstance(value, Enum)):
        return value
    if key in _NEVER_SHOWN:
        return WITHHELD
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if key in _LAST_FOUR_ONLY and isinstance(value, str):
        return value if value.startswith("…") else last_four(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(inner): _shown(str(inner), one) for inner, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(key, one) for one in value]
    if isinstance(value, BaseException):
        return redact(f"{type(value).__name__}: {value}")
    return redact(str(value))


Kind = TypeVar("Kind", bound=Hashable)
News = TypeVar("News")

SECONDS_BETWEEN = 60.0


class OncePerMinute(Generic[Kind, News]):
    """Says what may come in floods: of each kind the first at once, those after it together, a minute apart.

    `say` gets the kind, the newest of its news, and how many there were since the last time. Safe to use
    from one thread at a time.
    """

    def __init__(
        self, say: Callable[[Kind, News, int], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say_it = say
        self._clock = clock
        self._last: dict[Kind, float] = {}
        self._unsaid: dict[Kind, tuple[News, int]] = {}

    def note(self, kind: Kind, news: News) -> None:
        """Count one more of `kind`, and say so where it was quiet for a minute."""
        self._unsaid[kind] = (news, self._unsaid.get(kind, (news, 0))[1] + 1)
        if self._is_due(kind):
            self._say(kind)

    def tick(self) -> float | None:
        """Say what has waited for a minute; return the seconds until the next is due, None if none waits."""
        for kind in [one for one in self._last if self._is_due(one)]:
            if kind in self._unsaid:
                self._say(kind)
            else:
                del self._last[kind]
        if not self._unsaid:
            return None
        return min(self._last[kind] for kind in self._unsaid) + SECONDS_BETWEEN - self._clock()

    def end(self) -> None:
        """Say what has not been said yet: nothing comes any more."""
        for kind in list(self._unsaid):
            self._say(kind)

    def _is_due(self, kind: Kind) -> bool:
        last = self._last.get(kind)
        return last is None or self._clock() >= last + SECONDS_BETWEEN

    def _say(self, kind: Kind) -> None:
        self._last[kind] = self._clock()
        self._say_it(kind, *self._unsaid.pop(kind))


def _log_dead_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is None or arguments.exc_type is SystemExit:
        return
    get_logger("ingestor").error(
        "thread died",
        thread=arguments.thread.name if arguments.thread else None,
        exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
    )
