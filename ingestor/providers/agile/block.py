"""The four labelled lines of an Agile mail: From, To, Date/Time, and Body with everything after it."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ingestor.numbers import INVISIBLE

ORDER = ("originator", "destination", "date_time", "text")
BUILT_IN = {
    "originator": ("From",),
    "destination": ("To",),
    "date_time": ("Date/Time", "Date"),
    "text": ("Body", "Text"),  # Text: mails before about 2016
}
_SHOWN = {"originator": "From", "destination": "To", "date_time": "Date/Time", "text": "Body"}
_BLANKS = " \t\u00a0\u202f"
_B = f"[{_BLANKS}{INVISIBLE}]*+"
_BOLD = "([*_]{0,3}+)"  # what a gateway's HTML to text makes of bold labels
# One blank stands before a text, and where its own line is empty, it begins on the next one.
_BEFORE_TEXT = "[ \t\u00a0]?(?:[ \t\u00a0]*+(?:\n|\\Z))?"
_BEFORE_CELL = "(?:[ \u00a0]*+\t)?"

# HTML to text writes the target of a tel: link beside the number: as Exchange does, as Markdown does.
_SCHEME = re.compile("(?:tel|callto|sms|sip|skype|mailto|https?):/*", re.IGNORECASE)
_LINK = re.compile(rf"[ ]?[<(\[]+{_SCHEME.pattern}[^<>()\[\]\n]*[>)\]]+", re.IGNORECASE)
_LINKED = re.compile(r"(?<![0-9])([+]?[0-9][0-9 ()./-]{2,30}[0-9])[ ]?<tel:([+]?[0-9]+)>", re.IGNORECASE)


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
    spelled = {
        name: "|".join(
            _spelling(label)
            for label in sorted({*BUILT_IN[name], *further.get(name, ())}, key=len, reverse=True)
        )
        for name in ORDER
    }

    before_text = _BEFORE_CELL + _BEFORE_TEXT if html else _BEFORE_TEXT

    def label(spelling: str, group: int) -> str:
        bold = f"\\{group}"
        colon = f"(?:{bold}{_B}:|{_B}:(?:{_B}(?=[*_]){bold})|({_B}:))"  # or bold to the line's end
        if html:
            colon = f"(?:{colon}|{bold}[ \u00a0]*+\t)"
        return f"{_B}{_BOLD}{_B}(?:{spelling}){colon}"

    empty_lines = f"(?:{_B}\n)*+"
    first_three = (f"{label(spelled[name], 3 * at + 1)}([^\n]*+)\n" for at, name in enumerate(ORDER[:3]))
    whole = empty_lines + "".join(line + empty_lines for line in first_three)
    whole += label(spelled["text"], 10) + before_text
    line = label("|".join(f"(?P<{name}>{spelled[name]})" for name in ORDER), 1)
    line += f"(?(text){before_text})"
    return Labels(re.compile(whole, re.IGNORECASE), re.compile(f"^{line}", re.IGNORECASE | re.MULTILINE))


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
        originator, destination, date_time = match.group(3, 6, 9)
        return _block(originator, destination, date_time, _text(body, match.end(), match[10], match[11]))
    values: list[str] = []
    for match in labels.line.finditer(body):
        found, expected = next(name for name in ORDER if match[name] is not None), ORDER[len(values)]
        if found != expected:
            return _misplaced(expected, found)
        if expected == "text":
            return _block(values[0], values[1], values[2], _text(body, match.end(), match[1], match[6]))
        end = body.find("\n", match.end())
        values.append(body[match.end() : end if end >= 0 else len(body)])
    if not body.strip():
        return "the mail is empty"
    if not values:
        return "none of the labels From, To, Date/Time and Body is there"
    return f"the {_SHOWN[ORDER[len(values)]]} label is missing"


def _block(originator: str, destination: str, date_time: str, text: str) -> Block:
    """Return the block of three values as they stand on their lines, and the text behind its label."""
    if ":" in originator or ":" in destination or ":" in date_time:
        values = (originator, destination, date_time)
        if any(map(_SCHEME.search, values)):
            originator, destination, date_time = map(_unlinked, values)
            text = _LINKED.sub(_number_alone, text)
    return Block(_value(originator), _value(destination), _value(date_time), text)


def _value(line: str) -> str:
    """Return what stands on a label's `line`; a number may be bold, or end what is."""
    line = line.strip(_BLANKS)
    if line[-1:] in {"*", "_"}:
        plain = line.strip("*_" + _BLANKS)
        return plain if plain[:1] == "+" or plain[:1].isdigit() else line
    return line


def _text(body: str, start: int, bold: str, unclosed: str | None) -> str:
    """Return the text from `start` on, without the mark that ends what is `bold` since its label."""
    text = body[start:]
    if bold and unclosed and text.rstrip().endswith(bold):
        return text.rstrip().removesuffix(bold)
    return text


def _unlinked(value: str) -> str:
    """Return a number without the link around or behind it."""
    shown = _LINK.sub("", value).strip(_BLANKS + INVISIBLE + "[]<>")
    return _SCHEME.sub("", shown or value.strip(_BLANKS + INVISIBLE + "[]<>()"))


def _number_alone(match: re.Match[str]) -> str:
    """Return a number in the text without a link that says the same: who linked the block linked it too."""
    shown, target = ("".join(filter(str.isdigit, group)) for group in match.groups())
    return match[1] if shown and target.endswith(shown.lstrip("0")) else match[0]


def _misplaced(expected: str, found: str) -> str:
    position = ORDER.index(expected)
    where = f"after {_SHOWN[ORDER[position - 1]]}" if position else "at first"
    return f"the {_SHOWN[expected]} label is missing: {where} comes {_SHOWN[found]}"
