"""From the text part of a mail of ours to its record: charset, layout, block, numbers, time; and why so."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from ingestor.numbers import agile_destination, normalise_agile
from ingestor.providers.agile.envelope import Envelope, Subject, read_envelope
from ingestor.providers.agile.header import Header, decode_header, split_mail
from ingestor.providers.agile.parts import Part, unflowed
from ingestor.providers.agile.slow_lane import looks_like_html, slow_parts
from ingestor.providers.agile.text import Block, Labels, compile_labels, html_to_text, read_block, unescaped
from ingestor.providers.charsets import Decoded, codec_for, decode_text
from ingestor.providers.contract import (
    ANOTHER_FORWARDER,
    ANOTHER_SENDER,
    Explanation,
    NotOurs,
    Readable,
    Reading,
    Rules,
    near_miss_in_words,
)
from ingestor.providers.posts import NOT_OUR_NUMBER
from ingestor.record import InboundSms, storable, stored_text
from ingestor.timestamps import fourteen_digits, read_local

_REPLACEMENT = "\ufffd"
_CRS = re.compile(r"\r++\n")
_OTHER_END = re.compile(r"(?<!\r\r)\n")
_CHARSET_IN_HTML = re.compile(
    rb"""<(?:meta\s[^<>]*?charset|\?xml\s[^<>]*?encoding)\s*+=[\s"']*+([!#-&(-;=?-~]{1,60})""", re.IGNORECASE
)
_LONGEST_SHOWN = 120  # of a line of an explanation, in characters
_LINES_SHOWN = 8


def find_block(part: Part, rules: Rules) -> tuple[Block, Decoded] | str:
    """Return the block in `part` and how its bytes were read, or why there is none."""
    if part.data is None:
        return "the base64 of the text is broken"
    decoded = decode_part(part, part.data)
    block = read_block(text_of(part, decoded), labels_for(rules, html=part.html))
    if not part.html and isinstance(block, Block) and "<" in block.originator and looks_like_html(part.data):
        in_html = find_block(part._replace(html=True), rules)  # it calls itself plain
        return in_html if not isinstance(in_html, str) else (block, decoded)
    if part.html and isinstance(block, str) and not looks_like_html(part.data):
        as_it_is = decoded.text.replace("\r\n", "\n").replace("\r", "\n")  # it calls itself HTML
        block = read_block(unescaped(as_it_is), labels_for(rules, html=True))
    return block if isinstance(block, str) else (block, decoded)


def text_of(part: Part, decoded: Decoded) -> str:
    """Return the `decoded` text of `part` as it is looked at: without markup, with LF line ends."""
    text = html_to_text(decoded.text) if part.html else decoded.text
    if "\r\r\n" in text and not _OTHER_END.search(text):  # CRLF, written as text once more
        text = _CRS.sub("\n", text)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def decode_part(part: Part, data: bytes) -> Decoded:
    """Return the `data` of `part` as text: HTML by its own <meta> where the mail names none."""
    decoded = decode_text(data, part.charset)
    if not part.html or codec_for(part.charset) not in {None, "ascii"}:
        return decoded
    if decoded.charset == "utf-8" and not data.isascii():
        return decoded
    named = _CHARSET_IN_HTML.search(data[:4096])
    if named is not None:
        decoded = decode_text(data, named[1].decode("ascii"))
        if decoded.reason == "declared":
            return decoded._replace(reason="named in the HTML")
    return decoded


def labels_for(rules: Rules, *, html: bool) -> Labels:
    if not rules.labels:
        return _compiled((), html)
    return _compiled(tuple(sorted((name, tuple(labels)) for name, labels in rules.labels.items())), html)


@lru_cache(maxsize=16)
def _compiled(further: tuple[tuple[str, tuple[str, ...]], ...], html: bool) -> Labels:
    return compile_labels(dict(further), html=html)


def read_record(block: Block, decoded: Decoded, part: Part, rules: Rules, header: Header) -> InboundSms | str:
    """Return the SMS a complete `block` means, or why it goes to the quarantine (words, no values)."""
    originator_raw, replaced = storable(block.originator)
    destination_raw, count = storable(block.destination)
    replaced += count
    if not originator_raw:
        return "the From label has no value"
    if not destination_raw:
        return "the To label has no value"
    originator = normalise_agile(originator_raw)
    destination = agile_destination(destination_raw)
    if rules.numbers and destination not in rules.numbers:
        return NOT_OUR_NUMBER
    digits = fourteen_digits(block.date_time)
    if digits is None:
        return "the Date/Time label has no time" if not block.date_time else "the time is not YYYYMMDDHHMMSS"
    try:
        reading = read_local(digits, rules.zone, lambda: _date_of(header))
    except ValueError:
        return "the date does not exist"
    text = block.text
    if part.flowed:
        # Behind its label a text has no beginning of a line that could be stuffed or quoted.
        label = "" if text_of(part, decoded).removesuffix(text).endswith("\n") else ":"
        text = unflowed(label + text, delete_space=part.delete_space).removeprefix(label)
    text, count = storable(stored_text(text))
    replaced += count
    details = _details(decoded.charset, decoded.reason, part.charset, part.encoding, part.html, part.flowed)
    if part.html:
        replaced += text.count(_REPLACEMENT)  # references to characters that do not exist
    if replaced:
        details = {**details, "replaced_characters": replaced}
    if reading.decided_by is not None:
        details = {**details, "time_decided_by": reading.decided_by}
    return InboundSms(
        provider="agile",
        originator=originator.value,
        originator_kind=originator.kind,
        originator_raw=originator_raw,
        destination=destination,
        destination_raw=destination_raw,
        date_time=digits,
        received_at=reading.received_at,
        time_quality=reading.quality,
        text=text,
        details=details,
    )


@lru_cache(maxsize=256)  # all mails of one gateway say the same
def _details(
    charset: str, reason: str, declared: str | None, encoding: str, html: bool, flowed: bool
) -> Mapping[str, Any]:
    details: dict[str, Any] = {"charset": charset, "charset_from": reason}
    if declared is not None and reason != "declared":
        details["charset_declared"] = storable(declared[:60])[0].lower()
    if encoding:
        details["transfer_encoding"] = storable(encoding[:60])[0]
    if html:
        details["layout"] = "html"
    elif flowed:
        details["layout"] = "flowed"
    return MappingProxyType(details)


def _date_of(header: Header) -> datetime | None:
    value = header.first.get(b"date")
    if value is None or len(value) > 200:
        return None
    try:
        date = parsedate_to_datetime(value.decode("latin-1"))
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)  # RFC 5322: -0000 is UTC with nothing known about the zone
        return date.astimezone(UTC) if 1992 <= date.year <= 2199 else None
    except (ValueError, TypeError, OverflowError):
        return None


def explained(raw: bytes, reading: Reading, rules: Rules, sender_shown: str) -> Explanation:
    """Return what decided that the mail `raw` (or its header alone) comes to `reading`, and the lines."""
    header, body_at = split_mail(raw)
    envelope = read_envelope(header, rules)
    head = (*_lines(header, b"from", "From"), *_lines(header, b"subject", "Subject"))
    if isinstance(reading, Readable):
        return Explanation(reading, _why_read(reading, envelope), head)
    if isinstance(reading, NotOurs):
        return Explanation(reading, _why_ignored(reading), head)
    if reading.reason in (ANOTHER_SENDER, ANOTHER_FORWARDER):
        what = "our subject (or From names our sender) and a whole block, but "
        what = what if reading.reason == ANOTHER_SENDER else "an SMS of ours inside, but "
        return Explanation(reading, what + near_miss_in_words(reading.reason, sender_shown), head)
    return Explanation(
        reading, f"from our sender, but {reading.reason}", (*head, *_beginning(header, raw[body_at:]))
    )


def _why_read(reading: Readable, envelope: Envelope) -> str:
    details = reading.sms.details
    why = "our sender, our subject and a whole block"
    if "wrapped_in" in details:
        why = f"an SMS of ours inside a mail: {details['wrapped_in']}"
    elif envelope.subject is not Subject.EXACT and envelope.known:
        why = f"recognised by {details.get('recognised_by', 'sender, subject')} and a whole block"
    return f"{why}; mended: {details['mended']}" if "mended" in details else why


def _why_ignored(reading: NotOurs) -> str:
    return {
        "block": "our subject, but not from our sender, and without a whole block",
        "subject": "a block, but neither our sender nor our subject",
        "subject and block": "From names our sender beside somebody else; neither our subject nor a block",
    }.get(reading.missing or "", "neither our sender nor our subject")


def _lines(header: Header, name: bytes, shown: str) -> list[str]:
    values = header.values_of(name)
    return [f"{shown}: {_short(decode_header(value))}" for value in values[:3]] or [f"no {shown} field"]


def _beginning(header: Header, body: bytes) -> list[str]:
    parts = slow_parts(header, body)
    for part in parts if not isinstance(parts, str) else ():
        text = text_of(part, decode_part(part, part.data or b""))
        if text.strip():
            lines = [line for line in text.split("\n") if line.strip()]
            return [f"text: {_short(line)}" for line in lines[:_LINES_SHOWN]]
    return ["text: none"]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"
