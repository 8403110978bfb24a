"""The log: JSON lines on stderr for journald, pretty ones for a terminal, one shape for every library.

Code logs with `structlog.get_logger(__name__)`: a short phrase and key=value pairs. Nothing here can be
talked into showing a secret, message text or a whole phone number: values are redacted whatever their key,
fields that hold message content are withheld by name, and tracebacks carry no local variables.
"""

import logging
import os
import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Literal, TextIO, assert_never

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from ingestor.numbers import last_four
from ingestor.redaction import redact, register_secret

__all__ = ["LogFormat", "configure", "register_secret"]

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


def configure(log_format: LogFormat, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every record of this process, structlog's and the standard library's, to stderr in one shape.

    `auto` is `console` on a terminal and `json` elsewhere. May be called again; the last call counts.
    """
    stream = stream or sys.stderr
    if log_format == "auto":
        log_format = "console" if stream.isatty() else "json"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
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
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(log_format, stream),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False  # its report prints the arguments of the call, whatever they hold
    threading.excepthook = _log_dead_thread


def _rendering(log_format: Literal["json", "console"], stream: TextIO) -> list[Processor]:
    """Return what turns an event into a line: traceback without locals, redaction, then the renderer."""
    if log_format == "json":
        structured = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [
            structlog.processors.ExceptionRenderer(structured),
            withhold,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    if log_format == "console":
        return [
            structlog.processors.format_exc_info,
            withhold,
            structlog.dev.ConsoleRenderer(colors=_colours_wanted(stream)),
        ]
    assert_never(log_format)


def _colours_wanted(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def withhold(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
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


def _log_dead_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is None or arguments.exc_type is SystemExit:
        return
    structlog.get_logger("ingestor").error(
        "thread died",
        thread=arguments.thread.name if arguments.thread else None,
        exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
    )
