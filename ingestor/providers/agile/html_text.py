"""HTML to text, for mails that have nothing else: time linear in the length, whatever the markup.

The standard library's parser of Python 3.11 is quadratic on unclosed comments and tags, selectolax 1.0 on
nested ones (100 KB of <div>: 3 s). What a text needs of HTML is small: line ends, table cells, entities,
emoji that are images, and what is not shown.
"""

import html
import re

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*+)[^<>]*+>|<[!?/][^<>]*+>")
_HIDDEN = frozenset(("script", "style", "head", "title", "template"))
_ROWS = frozenset(("tr", "table", "tbody", "thead", "tfoot", "body", "html"))
_BLOCKS = frozenset(
    ("p", "div", "ul", "ol", "li", "dl", "dt", "dd", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "blockquote",
     "center", "section", "article", "header", "footer", "pre", "address", "form")
)  # fmt: skip
_ALT = re.compile(r"""\salt\s*+=\s*+(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_EMOJI = re.compile("emoji|emoticon|smiley", re.IGNORECASE)
_CELLS = frozenset(("td", "th"))
_SURROGATE_PAIR = re.compile(r"&#(5[56][0-9]{3});&#(5[67][0-9]{3});")
_GIANT_REFERENCE = re.compile(r"&#[xX]?[0-9a-fA-F]{8,}+;?")


def html_to_text(source: str) -> str:
    """Return the text a reader sees in `source`: LF line ends, a tab between the cells of a row.

    A line end in the source is a blank, as in a browser; blanks within a line stay as many as they are,
    because an SMS keeps its own.
    """
    source = _without_comments(source.replace("\r\n", "\n").replace("\r", "\n"))
    page = _Page()
    at = 0
    for tag in _TAG.finditer(source):
        if tag.start() > at:
            page.text(source[at : tag.start()])
        at = tag.end()
        if tag[2]:
            page.tag(tag[2].lower(), closing=bool(tag[1]))
            if tag[2].lower() == "img":
                page.text(_emoji(tag[0]))
    page.text(source[at:])
    return "".join(page.written)


class _Page:
    """What has been written, and what is due before the next visible character.

    `due` is `row` or `block` (a line end), `cell` (a tab) or nothing; `blank` is due where the source had
    a line end. Both vanish at the end of a line.
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
            self._write(_unescaped(source))
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
        self._write(_unescaped(visible))
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


def _emoji(image: str) -> str:
    """Return the text of an `image` tag that stands for an emoji, as webmail writes it; else nothing.

    Any other image (a logo, a pixel that counts) is no part of an SMS.
    """
    match = _ALT.search(image)
    if match is None:
        return ""
    shown = match[1] or match[2] or match[3] or ""
    text = _unescaped(shown)
    is_emoji = not text.isascii() and not any(map(str.isalpha, text))
    return shown if is_emoji or _EMOJI.search(image) else ""


def _without_comments(source: str) -> str:
    """Return `source` without comments; one that is never closed hides the rest, as in a browser."""
    start = source.find("<!--")
    if start < 0:
        return source
    kept = []
    at = 0
    while start >= 0:
        kept.append(source[at:start])
        end = source.find("-->", start + 4)
        at = end + 3 if end >= 0 else len(source)
        start = source.find("<!--", at)
    kept.append(source[at:])
    return "".join(kept)


def _unescaped(text: str) -> str:
    if "&" not in text:
        return text
    if "&#5" in text:  # mailers that think in UTF-16 write an emoji as two references
        text = _SURROGATE_PAIR.sub(_one_character, text)
    try:
        return html.unescape(text)
    except ValueError:  # int() refuses thousands of digits
        return html.unescape(_GIANT_REFERENCE.sub("\ufffd", text))


def _one_character(pair: re.Match[str]) -> str:
    high, low = int(pair[1]), int(pair[2])
    if 0xD800 <= high <= 0xDBFF and 0xDC00 <= low <= 0xDFFF:
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
    return pair[0]
