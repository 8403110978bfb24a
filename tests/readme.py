"""The fenced blocks of the documents, each under the comment that says where its commands are tested."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "OPERATING.md", "WEBHOOK.md", "AUDITING.md", "ANSWERS.md", "CONTRIBUTING.md")
TEXT = "\n".join((ROOT / name).read_text() for name in DOCUMENTS)
_BLOCK = re.compile(r"(?:<!-- tested: (\w+) -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def blocks(place: str) -> list[str]:
    """Return the content of every block that is tested at `place`, in the documents' order."""
    return [content for where, _, content in _BLOCK.findall(TEXT) if where == place]


def languages_and_places() -> list[tuple[str, str]]:
    """Return (language, place) of every fenced block; the place is empty where none is named."""
    return [(language, place) for place, language, _ in _BLOCK.findall(TEXT)]
