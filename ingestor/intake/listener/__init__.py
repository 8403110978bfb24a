"""The webhook listener: providers' POSTs, durable before they are answered.

ingestor.http (connections) > gate (who may) > reception > writer
                                                          > replay > spool
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ingestor.intake.listener.listener import Listener
    from ingestor.intake.listener.reception import Limits

__all__ = ["Limits", "Listener"]

_LIES_IN = {"Listener": "listener", "Limits": "reception"}


def __getattr__(name: str) -> Any:
    """Import what only the daemon needs when it asks: `ingestor status` takes `gate` and `spool` alone."""
    if name not in _LIES_IN:
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{_LIES_IN[name]}"), name)
