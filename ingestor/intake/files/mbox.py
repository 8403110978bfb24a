"""Where the mails of an mbox begin and end: `blocks` cuts there, `parse` splits there.

**The strict `From ` rule.** No standard says which lines begin a mail: RFC 4155 names the default form
(an address and an asctime date), and each program has its own. Four kinds are accepted:

* a *dated* line (`From sender Mon Jan  1 00:00:00 2024`, with zone, without seconds, or with the date of
  RFC 5322) after a blank line, or anywhere at a line start when a header line follows: mails that were
  appended to a truncated file have no blank line before them;
* an *undated* line (`From `, `From -` as Thunderbird writes them, `From user@host`, or with a date in
  another language or form) only after a blank line and before a block of headers with From and one more of
  the usual ones;
* a dated line behind text in the same line, before such a header as the next kind needs: the file had no last
  line end when a mail was appended to it;
* *any other* line (JavaScript's, Python's and spreadsheets' dates, a name alone) wherever a header follows
  that no person writes into a text: From with an address, and a field that programs write (Received,
  Message-ID, MIME-Version, a Date in full).

"From tomorrow on we are closed" is none of them, even before lines like `Subject: holidays`: exporters that
write odd separators seldom quote.

**The dialects** differ in how a body line that begins with "From " is kept: mboxo quotes it as `>From ` and
cannot tell it from a line that was so already; mboxrd quotes that again; mboxcl and mboxcl2 write a
Content-Length, the latter without any quoting. Read as `mbox` (nothing forced) a Content-Length that ends at
a separator or at the end of the file is believed; everything else is unquoted as mboxrd.

The standard library's `mailbox` believes any `From ` line, keeps no offsets, and an import by it reads a
twelfth as fast (2026-11): so this reader stays.
"""

import re
from enum import StrEnum

MAX_LINE = 1024
"""A longer line is no separator."""

HEADER_WINDOW = 1 << 16
"""How far after an undated line its headers are looked for."""

LOOKAHEAD = MAX_LINE + HEADER_WINDOW
"""How many bytes after the start of a line decide whether it is a separator."""

BELIEVED_LENGTH = 1 << 20
"""A mail longer than this (1 MiB, separator included) is cut at the next separator whatever its
Content-Length says: the length could only be checked by keeping it all in memory."""

CANDIDATE = b"\nFrom "
_IN_LINE = re.compile(rb"From ")  # found sooner than by `bytes.find`
_ENDS = b"\n\0"
_NUL_CANDIDATE = b"\0From "
"""A crash leaves runs of NUL, and the next mail is appended right behind them."""


_DAY = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK = rb"\d{1,2}:\d\d(?::\d\d)?"
_ZONE = rb"(?:[ \t]+(?:[A-Z]{1,5}|[+-]\d{4}|\([A-Za-z ]{1,40}\)))"
_DATED = re.compile(
    rb"From (?:[^\r\n]{0,500}[ \t])?(?:"
    + _DAY + rb"[ \t]+" + _MONTH + rb"[ \t]+\d{1,2}[ \t]+" + _CLOCK + _ZONE + rb"{0,2}[ \t]+\d{4}"
    + rb"|(?:" + _DAY + rb",[ \t]+)?\d{1,2}[ \t]+" + _MONTH + rb"[ \t]+\d{4}[ \t]+" + _CLOCK
    + rb")" + _ZONE + rb"{0,2}(?:[ \t]+remote from [^\r\n]{1,200})?[ \t]*\r?\n?\Z"
)  # fmt: skip
# The dated line that nearly every program writes, found without a search for its end.
_USUAL = re.compile(rb"From [!-~]{1,200} +" + _DAY + rb" " + _MONTH + rb" [ \d]\d \d\d:\d\d:\d\d \d{4}\r?\n")
_BARE = re.compile(rb"From (?:|-|MAILER-DAEMON|[^\s@]{1,200}@[^\s@]{0,200})[ \t]*\r?\n?\Z")
# Clock and year at the end of a line, in whatever language and order.
_STAMP = re.compile(
    rb"(?:\b\d{1,2}:\d\d\b.{0,40}\b\d{4}|\b\d{4}-?\d\d-?\d\dT\d\d:?\d\d[\d:.,]*(?:Z|[+-]\d\d:?\d\d)?"
    rb"|\b\d{4}\b.{0,20}\b\d{1,2}:\d\d(?::\d\d)?[ \t]*"
    rb"(?:[.,]\d{1,9})?(?:[AP]M|(?:[A-Z]{1,5})?(?:[+-]\d\d:?\d\d)?)(?:[ \t]+\([^()]{1,60}\))?)[ \t]*\r?\n?\Z"
)
_LONGEST_STAMP = 120
_HEADER_LINE = re.compile(rb"(?:[!-9;-~]{1,200}[ \t]*:|>From )")
_FROM_HEADER = re.compile(rb"(?im)^from[ \t]*:")
_USUAL_HEADER = re.compile(
    rb"(?im)^(?:date|to|subject|message-id|received|return-path|delivered-to|mime-version|x-mozilla-status"
    rb"|x-account-key|x-gm-thrid|dkim-signature|content-type)[ \t]*:"
)
_FIELD = re.compile(rb"([!-9;-~]{1,200})[ \t]*:[^\n]*(?:\n(?!\r?\n)[ \t][^\n]*)*\n?")
_ADDRESS_FIELD = re.compile(rb"(?i)from[ \t]*:[^:]*[^\s@]@[^\s@]")
# What programs write above a mail, and nobody into a text. A copied header has Date and Message-ID at most.
_MACHINE_FIELD = re.compile(
    rb"(?i)(?:received[ \t]*:\s*(?:from|by|\(qmail)\s|message-id[ \t]*:\s*<[^\s>]+>"
    rb"|return-path[ \t]*:\s*<[^\s>]*>|mime-version[ \t]*:\s*1\.0|content-type[ \t]*:\s*[a-z]+/[a-z]"
    rb"|(?:dkim|arc-message)-signature[ \t]*:|delivered-to[ \t]*:|x-mozilla-status[ \t]*:"
    rb"|x-gm-thrid[ \t]*:"
    rb"|date[ \t]*:\s*(?:[A-Z][a-z]{2},[ \t]+)?\d{1,2}[ \t]+[A-Z][a-z]{2}[ \t]+\d{2,4}"
    rb"[ \t]+\d\d?:\d\d(?::\d\d)?[ \t]+(?:[+-]\d{4}|[A-Z]{1,4}))"
)
_EMPTY_LINE = re.compile(rb"\n\r*+\n")
_LENGTH_MARK = re.compile(rb"(?i)-length:")
_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*(\d{1,15})[ \t]*\r?$")


class Dialect(StrEnum):
    """How an mbox is read; `MBOX` decides mail by mail."""

    MBOX = "mbox"
    MBOXO = "mboxo"
    MBOXRD = "mboxrd"
    MBOXCL = "mboxcl"
    MBOXCL2 = "mboxcl2"


Gap = tuple[int, int, str]
"""Bytes of an input that are neither mail nor separator: offset, length, and why."""

NO_MAIL = "no mail before the first separator"


def is_odd(line: bytes | bytearray | memoryview) -> bool:
    """Say whether a separator line has none of the forms that mail programs write."""
    return not (_USUAL.match(line) or _BARE.match(line) or _DATED.match(line))


def is_header_line(data: bytes | bytearray, start: int, end: int) -> bool:
    """Say whether the line at `start` looks like a header (`Name: …`)."""
    return _HEADER_LINE.match(data, start, end) is not None


def separator_end(data: bytes | bytearray, start: int, end: int) -> int:
    """Return where the separator line at `start` (a `From `) ends, its line end included; 0 if it is none.

    The answer is final when `end - start` is at least `LOOKAHEAD` or `end` is the end of the stream.
    """
    if not data.startswith(b"From ", start):
        return 0
    usual = _USUAL.match(data, start, min(end, start + MAX_LINE))
    if usual and _after_blank_line(data, start):
        return usual.end()
    newline = data.find(b"\n", start, min(end, start + MAX_LINE))
    if newline >= 0:
        line_end = newline + 1
    elif end - start < MAX_LINE:
        line_end = end
    else:
        return 0
    line = bytes(data[start:line_end])
    after_blank = _after_blank_line(data, start)
    if _DATED.match(line):
        return line_end if after_blank or is_header_line(data, line_end, end) else 0
    # At the very beginning nothing can be quoted text: there any line will do.
    if after_blank and (start == 0 or _is_undated(line)) and _heads_a_mail(data, line_end, end):
        return line_end
    return line_end if _heads_a_delivered_mail(data, line_end, end) else 0


def _is_undated(line: bytes) -> bool:
    return bool(_BARE.match(line) or _STAMP.search(line, max(5, len(line) - _LONGEST_STAMP)))


def _after_blank_line(data: bytes | bytearray, start: int) -> bool:
    if start > 1 and data[start - 2] == 0x0A:
        return data[start - 1] == 0x0A
    before = bytes(data[max(0, start - 3) : start])
    return not before or before.endswith((b"\n\n", b"\n\r\n")) or before in (b"\n", b"\r\n")


def _heads_a_mail(data: bytes | bytearray, start: int, end: int) -> bool:
    if not is_header_line(data, start, end):
        return False
    stop = min(end, start + HEADER_WINDOW)
    for mark in (CANDIDATE, b"\n\n", b"\n\r\n"):
        found = data.find(mark, start, stop)
        if found >= 0:
            stop = found
    return bool(_FROM_HEADER.search(data, start, stop) and _USUAL_HEADER.search(data, start, stop))


def _heads_a_delivered_mail(data: bytes | bytearray, start: int, end: int) -> bool:
    """Say whether fields follow that only a mail has, before the first line that is none."""
    stop = min(end, start + HEADER_WINDOW)
    has_address = has_machine_field = False
    while field := _FIELD.match(data, start, stop):
        has_address = has_address or _ADDRESS_FIELD.match(data, start, field.end()) is not None
        has_machine_field = has_machine_field or _MACHINE_FIELD.match(data, start, field.end()) is not None
        if has_address and has_machine_field:
            return True
        start = field.end()
    return False


def next_separator(data: bytes | bytearray, start: int, end: int) -> tuple[int, int]:
    """Return start and end of the first separator line that begins after `start`; (-1, -1) without one."""
    for found in _IN_LINE.finditer(data, start + 1, end):
        at = found.start()
        stop = separator_end(data, at, end) if data[at - 1] in _ENDS else _glued_end(data, at, end)
        if stop:
            return at, stop
    return -1, -1


def count_separators(data: bytes | bytearray, end: int) -> int:
    count, at = 0, 0
    while (found := next_separator(data, at, end))[0] >= 0:
        count, at = count + 1, found[1]
    return count


def _glued_end(data: bytes | bytearray, start: int, end: int) -> int:
    """Return where the separator line ends that stands behind text in a line; 0 if it is none.

    Only a dated line before the header of a delivered mail is one, and none that is quoted by `>`.
    """
    after = data.find(b"\n", start, min(end, start + MAX_LINE)) + 1
    is_one = (
        after
        and data[start - 1] != 0x3E
        and _DATED.match(bytes(data[start:after]))
        and _heads_a_delivered_mail(data, after, end)
    )
    return after if is_one else 0


def last_separator(data: bytes | bytearray, end: int, known: int) -> int:
    """Return the start of the last separator that begins in `data[1:end]`, 0 if there is none.

    `known` is the end of the bytes that may be looked at, at least `LOOKAHEAD` beyond `end`.
    """
    while True:
        here = data.rfind(CANDIDATE, 0, end)
        here = max(here, data.rfind(_NUL_CANDIDATE, max(0, here), end))
        if here < 0:
            return 0
        if separator_end(data, here + 1, known):
            return here + 1
        end = here + len(CANDIDATE) - 1


def has_lengths(data: bytes | bytearray, end: int) -> bool:
    return _LENGTH_MARK.search(data, 0, end) is not None


def uses_lengths(dialect: Dialect) -> bool:
    return dialect not in (Dialect.MBOXO, Dialect.MBOXRD)


def next_boundary(
    data: bytes | bytearray, start: int, end: int, *, with_lengths: bool
) -> tuple[int, int, int]:
    """Return where the mail whose separator line ended at `start` stops: (its end, next separator, its end).

    The first is -1 without a believed Content-Length, the others where the mail runs up to `end`.
    """
    if with_lengths:
        stop = _believed_end(data, start, end)
        if stop >= 0:
            after = _skip_blank(data, stop, end)
            return stop, after if after < end else -1, separator_end(data, after, end) if after < end else -1
    return -1, *next_separator(data, max(0, start - 1), end)


def _believed_end(data: bytes | bytearray, start: int, end: int) -> int:
    limit = min(end, start + BELIEVED_LENGTH)
    body = header_end(data, start, limit)
    if body < 0 or data.find(CANDIDATE, start, body) >= 0:
        return -1
    found = _LENGTH.search(data, start, body)
    if not found:
        return -1
    stop = body + int(found.group(1))
    if stop > limit:
        return -1
    after = _skip_blank(data, stop, end)
    if after == end:
        return stop
    if after > 0 and data[after - 1] == 0x0A and data[after : after + 5] == b"From ":
        return stop if separator_end(data, after, end) else -1
    return -1


def header_end(data: bytes | bytearray, start: int, end: int) -> int:
    """Return where the body begins, -1 without an empty line before `end`."""
    if data[start : start + 1] == b"\n":
        return start + 1
    found = _EMPTY_LINE.search(data, start, end)
    return found.end() if found else -1


def ends_whole(data: bytes | bytearray, start: int, end: int) -> bool:
    """Say whether the last mail of an mbox, `data[start:end]`, ends where its program would end it.

    It has its last line end (NULs of a crash aside) and a whole header; and where a length is stated that
    goes beyond the end, at least the empty line that stands behind each mail.
    """
    stop = end
    while stop > start and data[stop - 1] == 0:
        stop -= 1
    if data[stop - 1] != 0x0A:
        return False
    if start >= stop:
        return True  # a separator and nothing else
    body = header_end(data, start, stop)
    if body < 0:
        return False
    stated = _LENGTH.search(data, start, body)
    return stated is None or body + int(stated.group(1)) <= stop or trailing_blank(data, start, stop) > 0


def _skip_blank(data: bytes | bytearray, at: int, end: int) -> int:
    """Return the place after the line end and the empty line that may follow a counted body."""
    for _ in range(2):
        if data[at : min(end, at + 2)] == b"\r\n":
            at += 2
        elif data[at : min(end, at + 1)] == b"\n":
            at += 1
    return at


def trailing_blank(data: bytes | bytearray, start: int, stop: int) -> int:
    """Return the length of the empty line that mbox adds after the mail `data[start:stop]`."""
    ending = bytes(data[max(start, stop - 4) : stop])
    if ending.endswith(b"\n\r\n") or ending == b"\r\n":
        return 2
    return 1 if ending.endswith(b"\n\n") or ending == b"\n" else 0
