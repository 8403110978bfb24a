"""The mailbox: IMAP with IDLE and poll, one thread and one connection a mailbox.

From the outside in: `thread` keeps a connection, `visit` lives on it, `reading` reads a folder by `fetch`,
`pending` does what is left to do. Below them `session`, `answers` and `connection` speak IMAP, `standing`
knows a folder again, and `context` holds what all of them are given.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingestor.intake.mailbox.context import Timing
    from ingestor.intake.mailbox.thread import MailboxThread

__all__ = ["MailboxThread", "Timing"]

_LIES_IN = {"MailboxThread": "thread", "Timing": "context"}


def __getattr__(name: str) -> Any:
    """Import what only the daemon needs when it asks: `ingestor show` takes `trust` alone."""
    if name not in _LIES_IN:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_LIES_IN[name]}"), name)
