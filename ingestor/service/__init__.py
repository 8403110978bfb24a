"""The daemon: starts its parts in order, watches that they make progress, stops them in reverse."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_background(name: str, work: Callable[[], T]) -> Future[T]:
    """Do `work` in a thread that no end of the interpreter waits for; raises where none is to be had."""
    outcome: Future[T] = Future()

    def do() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits, whatever it is
            outcome.set_exception(error)

    Thread(target=do, name=name, daemon=True).start()
    return outcome
