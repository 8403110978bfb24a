"""The four labelled lines of an Agile mail: From, To, Date/Time, and Body with everything after it."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ORDER = ("originator", "destination", "date_time", "text")
BUILT_IN = {
    "originator": ("From",),
    "destination": ("To",),
    "date_time": ("Date/Time", "Date"),
    "text": ("Body", "Text"),  # Text: mails before about 2016
}
_SHOWN = {"originator": "From", "destination": "To", "date_time": "Date/Time", "text": "Body"}
_BLANKS = " \t\u00a0\u202f"
_B = f"[{_BLANKS}]*+"


class Block(NamedTuple):
    """The values as written, without blanks at their ends; `text` as it stands behind its label."""

    originator: str
    destination: str
    date_time: str
    text: str


class Labels(NamedTuple):
    """Compiled spellings: `whole` reads an ordinary block at once, `line` finds one label line."""

    whole: re.Pattern[str]
    line: re.Pattern[str]


def compile_labels(further: Mapping[str, Sequence[str]], *, html: bool) -> Labels:
    """Return the patterns for the built-in labels and the `further` spellings by field name.

    In HTML a table cell's end (a tab) may stand where the colon should.
    """
    colon = f"{_B}:{_B}" if not html else f"(?:{_B}:|[ \u00a0]*+\t){_B}"
    spelled = {
        name: "|".join(
            _spelling(label)
            for label in sorted({*BUILT_IN[name], *further.get(name, ())}, key=len, reverse=True)
        )
        for name in ORDER
    }
    empty_lines = f"(?:{_B}\n)*+"
    whole = empty_lines.join(f"{_B}(?:{spelled[name]}){colon}([^\n]*+)\n" for name in ORDER[:3])
    whole = f"\ufeff?{empty_lines}{whole}{empty_lines}{_B}(?:{spelled['text']}){colon}"
    line = "|".join(f"(?P<{name}>{spelled[name]})" for name in ORDER)
    return Labels(
        re.compile(whole, re.IGNORECASE),
        re.compile(f"^\ufeff?{_B}(?:{line}){colon}", re.IGNORECASE | re.MULTILINE),
    )


def _spelling(label: str) -> str:
    pieces = re.split(r"(/)|\s+", label.strip())
    return "".join(f"{_B}/{_B}" if piece == "/" else re.escape(piece) if piece else _B for piece in pieces)


def read_block(body: str, labels: Labels) -> Block | str:
    """Return the block of `body` (LF line ends), or what is wrong with it, in words without any value.

    The first four label lines must be the four labels in their order. A search for each label in turn
    would find a missing To in the text of the SMS.
    """
    match = labels.whole.match(body)
    if match:
        originator, destination, date_time = match.groups()
        return Block(
            originator.strip(_BLANKS), destination.strip(_BLANKS), date_time.strip(_BLANKS),
            _after_label(body, match.end()),
        )  # fmt: skip
    values: list[str] = []
    for match in labels.line.finditer(body):
        found, expected = match.lastgroup or "", ORDER[len(values)]
        if found != expected:
            return _misplaced(expected, found)
        if expected == "text":
            return Block(values[0], values[1], values[2], _after_label(body, match.end()))
        end = body.find("\n", match.end())
        values.append(body[match.end() : end if end >= 0 else len(body)].strip(_BLANKS))
    if not body.strip():
        return "the mail is empty"
    if not values:
        return "none of the labels From, To, Date/Time and Body is there"
    return f"the {_SHOWN[ORDER[len(values)]]} label is missing"


def _after_label(body: str, start: int) -> str:
    """Return the text: from the label's own line, or where that is empty from the next one."""
    return body[start + 1 :] if body[start : start + 1] == "\n" else body[start:]


def _misplaced(expected: str, found: str) -> str:
    position = ORDER.index(expected)
    where = f"after {_SHOWN[ORDER[position - 1]]}" if position else "at first"
    return f"the {_SHOWN[expected]} label is missing: {where} comes {_SHOWN[found]}"
