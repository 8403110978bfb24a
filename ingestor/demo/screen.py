"""What the demo says: in colour on a terminal, in plain lines elsewhere."""

import sys
import unicodedata
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

_TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # they would turn our own words


class Screen:
    """Prints lines; nothing that came in a message is taken for markup or for a terminal's control codes."""

    def __init__(self, console: Console | None = None) -> None:
        """Print to `console`, stdout by default."""
        if console is None:
            for stream in (sys.stdout, sys.stderr):
                # An emoji must not end the demo where the locale cannot show it.
                getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
            console = Console(markup=False, highlight=False)
        self._console = console

    def say(self, text: str = "") -> None:
        """Print a sentence."""
        self._console.print(text, soft_wrap=True)

    def heading(self, text: str) -> None:
        """Print the title of a part, with a blank line before it."""
        self._console.print()
        self._console.print(Text(text, style="bold"), soft_wrap=True)

    def fact(self, name: str, value: str) -> None:
        """Print one line of a list of facts."""
        self._console.print(Text.assemble((f"  {name:<9}", "dim"), value), soft_wrap=True)

    def sms(self, number: int, received_at: str, originator: str, text: str) -> None:
        """Print one SMS, its text shortened to the width of the terminal."""
        head = f"  {number:>3}  {received_at[:10]} {received_at[11:16]}  {originator:<15} "
        room = max(self._console.width - len(head) - 1, 20)
        line = Text.assemble((head, "dim"), (shortened(text, room), "green"))
        self._console.print(line, soft_wrap=True)

    def live(self, what: str, became: str, style: str) -> None:
        """Print what was delivered while the daemon watched, and what became of it."""
        self._console.print(Text.assemble(f"  {what:<36}", (became, style)), soft_wrap=True)

    def commands(self, lines: Sequence[str]) -> None:
        """Print commands to be pasted: each whole on its line, however long."""
        for line in lines:
            self._console.print(Text("  " + line, style="cyan"), soft_wrap=True)


def shortened(text: str, room: int) -> str:
    """Return `text` on one line of at most `room` characters, line ends shown as ⏎, control codes as ·."""
    line = "".join("·" if _controls(character) else character for character in text.replace("\n", " ⏎ "))
    return line if len(line) <= room else line[: room - 1] + "…"


def _controls(character: str) -> bool:
    # Not all format characters (Cf): without its joiners a family of emoji falls apart.
    return unicodedata.category(character) == "Cc" or unicodedata.bidirectional(character) in _TURNING
