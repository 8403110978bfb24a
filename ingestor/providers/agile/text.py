"""The text of a mail of ours, down to its four labelled lines: HTML made plain, the block.

From: +393351234567
To: +393331234333
Date/Time: 20260514102301
Body: News ON
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ingestor.numbers import INVISIBLE

# A value in quotes may hold a ">"; one whose quote has no end, or stands behind a "<", has none.
_VALUE = """=\\s*+(?:"[^"<]*+"|'[^'<]*+')"""
_TAG = re.compile(
    rf"<(/?)([a-zA-Z][a-zA-Z0-9]*+)(?:(?:[^<>\"'=]|{_VALUE}|[=\"'])*+>|[^<>]*+>)|<[!?/][^<>]*+>"
)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)  # never closed it hides the rest, as in a browser
_HIDDEN = frozenset(("script", "style", "head", "title", "template"))
_ROWS = frozenset(("tr", "table", "tbody", "thead", "tfoot", "body", "html"))
_BLOCKS = frozenset(
    ("p", "div", "ul", "ol", "li", "dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "blockquote",
     "center", "section", "article", "header", "footer", "pre", "address", "form", "main", "aside", "nav",
     "figure", "figcaption", "fieldset", "legend", "details", "summary", "caption", "menu", "dir")
)  # fmt: skip
_ALT = re.compile(r"""\salt\s*+=\s*+(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_EMOJI = re.compile("emoji|emoticon|smiley", re.IGNORECASE)
_CELLS = frozenset(("td", "th"))
_STYLED = (_BLOCKS | _ROWS | _CELLS | {"span", "font", "a", "b", "i"}) - {"body", "html", "hr"}
_NO_DISPLAY = re.compile(
    r"""\sstyle\s*=\s*["']?[^"'<]*(?:display\s*:\s*none|visibility\s*:\s*hidden)\b""", re.IGNORECASE
)
_LINES_KEPT = re.compile(
    r"""\sstyle\s*=\s*["']?[^"'<]*white-space\s*:\s*(?:pre|break-spaces)""", re.IGNORECASE
)
_HIDDEN_HERE = re.compile(r"\shidden(?=[\s=/>])", re.IGNORECASE)
_SURROGATE_PAIR = re.compile(
    r"&#(?:(5[56][0-9]{3});&#(5[67][0-9]{3})|x(d[89ab][0-9a-f]{2});&#x(d[c-f][0-9a-f]{2}));", re.IGNORECASE
)
_GIANT_REFERENCE = re.compile(r"&#[xX]?[0-9a-fA-F]{8,}+;?")


def html_to_text(source: str) -> str:
    """Return the text a reader sees in `source`: LF line ends, a tab between the cells of a row.

    A line end in the source is a blank, as in a browser; blanks within a line stay: an SMS keeps its own.
    """
    source = _COMMENT.sub("", source.replace("\r\n", "\n").replace("\r", "\n"))
    page = _Page()
    at = kept_until = 0
    open_ended: set[str] = set()
    for tag in _TAG.finditer(source):
        if tag.start() < at:
            continue
        page.text(source[at : tag.start()])
        at = tag.end()
        name = (tag[2] or "").lower()
        # Most have no attribute: " hidden" is the shortest.
        styled = len(tag[0]) > len(name) + 8 and not tag[1] and name in _STYLED and name not in open_ended
        hidden = styled and _is_hidden(tag[0])
        if hidden or (styled and at > kept_until and _LINES_KEPT.search(tag[0])):
            end = _end_of_element(source, name, at)
            if hidden and end:
                at = end
                continue
            if not end:
                open_ended.add(name)  # looked for once: what is never closed is as if it had no style
            kept_until = end
        page.tag(name, closing=bool(tag[1]))
        if kept_until:
            page.preformatted = at < kept_until
            kept_until = kept_until if page.preformatted else 0
        if name == "img":
            page.text(_emoji(tag[0]))
    page.text(source[at:])
    return "".join(page.written)


class _Page:
    """What has been written, and what is due before the next visible character.

    `due` is `row` or `block` (a line end), `cell` (a tab) or nothing; `blank` is due where the source had a
    line end. Both vanish at the end of a line.
    """

    def __init__(self) -> None:
        self.written: list[str] = []
        self.due = ""
        self.blank = False
        self.at_line_start = True
        self.hidden = ""
        self.preformatted = False

    def tag(self, name: str, *, closing: bool) -> None:
        if self.hidden and (name == self.hidden or (self.hidden, name) == ("head", "body")):
            self.hidden = ""
        elif self.hidden:
            return
        elif name in _HIDDEN:
            self.hidden = "" if closing else name
        elif name == "br":
            self._write("\n")
        elif name in _CELLS:
            # A paragraph may end inside a cell; the row goes on all the same.
            if self.due == "block" or not (self.due or self.at_line_start):
                self.due = "cell"
        elif name in _ROWS:
            if self.due or not self.at_line_start:
                self.due = "row"
        elif name in _BLOCKS:
            if name == "pre":
                self.preformatted = not closing
            if not (self.due or self.at_line_start):
                self.due = "block"

    def text(self, source: str) -> None:
        if self.hidden or not source:
            return
        if self.preformatted:
            self._write(unescaped(source))
            return
        lines = source.split("\n")
        if len(lines) > 1:
            lines[0] = lines[0].rstrip(" \t\f")
            lines[1:-1] = [line.strip(" \t\f") for line in lines[1:-1]]
            lines[-1] = lines[-1].lstrip(" \t\f")
        visible = " ".join(line for line in lines if line)
        if not visible or (
            (self.due or self.at_line_start) and visible.isspace() and "\u00a0" not in visible
        ):
            self.blank = True
            return
        self.blank = self.blank or not lines[0]
        self._write(unescaped(visible))
        self.blank = not lines[-1]

    def _write(self, text: str) -> None:
        if self.due:
            self.written.append("\t" if self.due == "cell" else "\n")
        elif self.blank and not self.at_line_start and text != "\n":
            self.written.append(" ")
        self.due = ""
        self.blank = False
        self.written.append(text)
        self.at_line_start = text.endswith("\n")


def _is_hidden(tag: str) -> bool:
    """Say whether an opening `tag` keeps what is in it from being seen: previews, numbers written twice."""
    return bool(_NO_DISPLAY.search(tag) or _HIDDEN_HERE.search(re.sub(_VALUE, "=", tag)))


def _end_of_element(source: str, name: str, at: int) -> int:
    depth = 1
    for tag in re.compile(rf"<(/?){name}(?![a-z0-9])[^<>]*>", re.IGNORECASE).finditer(source, at):
        depth += -1 if tag[1] else 1
        if depth == 0:
            return tag.end()
    return 0


def _emoji(image: str) -> str:
    """Return the text of an `image` tag that stands for an emoji, as webmail writes it; else nothing.

    Any other image (a logo, a pixel that counts) is no part of an SMS.
    """
    match = _ALT.search(image)
    if match is None:
        return ""
    shown = match[1] or match[2] or match[3] or ""
    text = unescaped(shown)
    is_emoji = not text.isascii() and not any(map(str.isalpha, text))
    return shown if is_emoji or _EMOJI.search(image) else ""


def unescaped(text: str) -> str:
    if "&" not in text:
        return text
    if "&#" in text:  # mailers that think in UTF-16 write an emoji as two references
        text = _SURROGATE_PAIR.sub(_one_character, text)
    try:
        return html.unescape(text)
    except ValueError:  # int() refuses thousands of digits
        return html.unescape(_GIANT_REFERENCE.sub("\ufffd", text))


def _one_character(pair: re.Match[str]) -> str:
    high, low = (int(pair[1]), int(pair[2])) if pair[1] else (int(pair[3], 16), int(pair[4], 16))
    if 0xD800 <= high <= 0xDBFF and 0xDC00 <= low <= 0xDFFF:
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    return pair[0]


ORDER = ("originator", "destination", "date_time", "text")
BUILT_IN = {
    "originator": ("From",),
    "destination": ("To",),
    "date_time": ("Date/Time", "Date"),
    "text": ("Body", "Text"),  # Text: mails before about 2016
}
_BLANKS = " \t\u00a0\u202f"
_B = f"[{_BLANKS}{INVISIBLE}]*+"
_BOLD = "([*_]{0,3}+)"  # what a gateway's HTML to text makes of bold labels
_BULLET = (
    "(?:[-\N{EN DASH}\N{EM DASH}\N{BULLET}\N{MIDDLE DOT}\u25aa\u25cf\u25e6\u2023#]{1,4}+[ \t\u00a0]++)?+"
)
_COLON = "[:\N{FULLWIDTH COLON}]"
# One blank stands before a text, marks of the label before that; where its line is empty, it is the next one.
_BEFORE_TEXT = f"(?:[{INVISIBLE}]++(?=[ \t\u00a0]))?" + "[ \t\u00a0]?(?:[ \t\u00a0]*+(?:\n|\\Z))?"
_BEFORE_CELL = "(?:[ \u00a0]*+\t)?"

# HTML to text writes the target of a tel: link beside the number: as Exchange does, as Markdown does.
_SCHEME = re.compile("(?:tel|callto|sms|sip|skype|mailto|https?):/*", re.IGNORECASE)
_LINK = re.compile(rf"[ ]?[<(\[]+{_SCHEME.pattern}[^<>()\[\]\n]*[>)\]]+", re.IGNORECASE)
_LINKED = re.compile(r"(?<![0-9])([+]?[0-9][0-9 ()./-]{2,30}[0-9])[ ]?<tel:([+]?[0-9]+)>", re.IGNORECASE)

_CLEARTEXT = re.compile(
    r"^-----BEGIN PGP SIGNED MESSAGE-----[ \t]*\n(?:[A-Za-z-]+:[^\n]*\n)*+[ \t]*\n(.*?)\n?"
    r"^-----BEGIN PGP SIGNATURE-----",
    re.DOTALL | re.MULTILINE,
)
_ESCAPED = re.compile("^- ", re.MULTILINE)


class Block(NamedTuple):
    """The values as written, without blanks at their ends; `text` as it stands behind its label."""

    originator: str
    destination: str
    date_time: str
    text: str


class Labels(NamedTuple):
    """Compiled spellings: `whole` reads an ordinary block at once (2 us, not 6), `line` finds one label."""

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
        colon = f"{_B}{_COLON}"
        colon = f"(?:{bold}{colon}|{colon}(?:{_B}(?=[*_]){bold})|({colon}))"  # or bold to the line's end
        if html:
            colon = f"(?:{colon}|{bold}[ \u00a0]*+\t)"
        return f"{_B}{_BULLET}{_BOLD}{_B}(?:{spelling}){colon}"

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

    The first four label lines must be the four labels in their order, but for the header of a mail that was
    forwarded above them. A search for each label in turn would find a missing To in the text of the SMS.
    """
    if "-----BEGIN PGP" in body:
        body = _without_signature(body, labels)
    match = labels.whole.match(body)
    if match:
        originator, destination, date_time = match.group(3, 6, 9)
        return _block(originator, destination, date_time, _text(body, match.end(), match[10], match[11]))
    values: list[str] = []
    for match in labels.line.finditer(body):
        found, expected = next(name for name in ORDER if match[name] is not None), ORDER[len(values)]
        end = body.find("\n", match.end())
        line = body[match.end() : end if end >= 0 else len(body)]
        if found != expected:
            if not _of_a_forward(values, found, line):
                return _misplaced(expected, found)
            if found != "originator":
                continue
            values, expected = [], found
        if expected == "text":
            return _block(values[0], values[1], values[2], _text(body, match.end(), match[1], match[6]))
        values.append(line if line.strip(_BLANKS) else _line_below(body, end, labels))
    if not body.strip():
        return "the mail is empty"
    if not values:
        return "none of the labels From, To, Date/Time and Body is there"
    return f"the {BUILT_IN[ORDER[len(values)]][0]} label is missing"


def _without_signature(body: str, labels: Labels) -> str:
    """Return what a cleartext signature (RFC 9580, section 7) around the block signs; all else as it is."""
    match = _CLEARTEXT.search(body)
    if match is None or labels.line.search(body[: match.start()]):
        return body  # it stands in the text of the SMS
    return _ESCAPED.sub("", match[1])


def _of_a_forward(values: Sequence[str], found: str, line: str) -> bool:
    """Say whether a label that comes too early is a field of a forwarded mail, whose From is an address."""
    if not values:
        return found == "date_time" and any(map(str.isalpha, line))
    return "@" in values[0] and found != "text"


def _line_below(body: str, end: int, labels: Labels) -> str:
    """Return the value below its label, as HTML to text writes a table; nothing where another label is."""
    while 0 <= end < len(body):
        start, end = end + 1, body.find("\n", end + 1)
        line = body[start : end if end >= 0 else len(body)]
        if line.strip(_BLANKS):
            return "" if labels.line.match(body, start) else line
    return ""


def _block(originator: str, destination: str, date_time: str, text: str) -> Block:
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
    shown = _LINK.sub("", value).strip(_BLANKS + INVISIBLE + "[]<>")
    return _SCHEME.sub("", shown or value.strip(_BLANKS + INVISIBLE + "[]<>()"))


def _number_alone(match: re.Match[str]) -> str:
    """Return a number in the text without a link that says the same: who linked the block linked it too."""
    shown, target = ("".join(filter(str.isdigit, group)) for group in match.groups())
    return match[1] if shown and target.endswith(shown.lstrip("0")) else match[0]


def _misplaced(expected: str, found: str) -> str:
    position = ORDER.index(expected)
    where = f"after {BUILT_IN[ORDER[position - 1]][0]}" if position else "at first"
    return f"the {BUILT_IN[expected][0]} label is missing: {where} comes {BUILT_IN[found][0]}"
