"""The words of IMAP: command lines, sequence sets and header fields."""

import re
from collections.abc import Iterator

_TOKEN = re.compile(rb'\s*(?:"((?:[^"\\]|\\.)*)"|([()])|\{(\d+)\+?\}\r\n|((?:\[[^\]]*\]|[^\s()"{])+))')

Words = list["bytes | Words"]


def words_of(line: bytes) -> Words:
    """Return the words of a command line: bytes, and lists for what stands in parentheses."""
    top: Words = []
    stack = [top]
    position = 0
    while match := _TOKEN.match(line, position):
        position = match.end()
        quoted, bracket, literal, atom = match.groups()
        if bracket == b"(":
            inner: Words = []
            stack[-1].append(inner)
            stack.append(inner)
        elif bracket == b")":
            stack.pop()
        elif literal is not None:
            stack[-1].append(line[position : position + int(literal)])
            position += int(literal)
        elif quoted is not None:
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", quoted))
        else:
            stack[-1].append(atom)
    return top


def ranges_of(numbers: bytes, largest: int) -> Iterator[tuple[int, int]]:
    """Return the ranges of a sequence set, both ends included.

    `*` is `largest`, and `9:*` includes it even if it is below 9 (RFC 3501 6.4.8).
    """
    for part in numbers.split(b","):
        first, _, last = part.partition(b":")
        low, high = (largest if end == b"*" else int(end) for end in (first, last or first))
        yield min(low, high), max(low, high)


def atom_of(word: "bytes | Words") -> bytes:
    if isinstance(word, list):
        raise ValueError("a list where a word is due")  # noqa: TRY004 - answered as BAD, like any misuse
    return word


def pick_fields(header: bytes, names: bytes) -> bytes:
    """Return the header lines (with their folded lines) whose names are asked for."""
    wanted = {name.lower() for name in names.split()}
    picked = b""
    keep = False
    for line in header.split(b"\r\n"):
        if line[:1] not in (b" ", b"\t"):
            keep = line.partition(b":")[0].strip().lower() in wanted
        if keep:
            picked += line + b"\r\n"
    return picked
