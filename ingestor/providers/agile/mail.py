"""Agile Telecom's inbound-SMS mail: from raw bytes to a named outcome, and never an exception.

    From: smsin@agiletelecom.com
    Subject: Agile Telecom -- SMS received

    From: +393351234567
    To: +393331234333
    Date/Time: 20260514102301
    Body: News ON

Source: Agile Telecom's inbound SMS guide for the addresses, the subject and the labels. MIME type,
charset and layout are documented nowhere, so every plausible one is read.
"""

from functools import lru_cache

from ingestor.providers.agile.encoded_words import decode_header
from ingestor.providers.agile.envelope import read_envelope
from ingestor.providers.agile.fast_lane import fast_part
from ingestor.providers.agile.header import Header, split_mail
from ingestor.providers.agile.reading import find_block, read_record
from ingestor.providers.agile.slow_lane import slow_parts
from ingestor.providers.contract import NotOurs, Readable, Reading, Rules, Unreadable
from ingestor.record import InboundSms, storable

PARSER = "agile.mail/1"

LARGEST_PARSED = 1 << 20
"""A mail of ours beyond this many bytes is kept and quarantined unparsed: it is no SMS."""

_LONGEST_SHOWN = 998


def may_be_ours(header: bytes, rules: Rules) -> bool:
    """Say from header lines alone (at least From and Subject) whether the mail is ours."""
    try:
        return read_envelope(split_mail(header)[0], rules.sender).ours
    except Exception:  # noqa: BLE001 - whatever the bytes: a mail in doubt is fetched and judged whole
        return True


def read_mail(raw: bytes, rules: Rules) -> Reading:
    """Return what the whole mail `raw` (any line ends, no mbox separator) means."""
    try:
        return _read(raw, rules, fast=True)
    except Exception:  # noqa: BLE001 - no bytes may stop the next mail; the raw mail is kept for a better parser
        return Unreadable("the parser failed on this mail", PARSER)


def read_mail_slowly(raw: bytes, rules: Rules) -> Reading:
    """Return what `read_mail` does, without the fast lane: the two must agree, which tests and doubts ask."""
    try:
        return _read(raw, rules, fast=False)
    except Exception:  # noqa: BLE001 - as above
        return Unreadable("the parser failed on this mail", PARSER)


def oversized(raw_head: bytes, size: int, kept: int, rules: Rules) -> Unreadable:  # noqa: ARG001 - as read_mail
    """Return the verdict on a mail of ours with `size` bytes, of which the first `kept` are archived.

    `raw_head` is at least its header block.
    """
    shown = f"the mail has {size} bytes, more than the {LARGEST_PARSED} that are parsed; "
    shown += "it is kept whole" if kept >= size else f"only its first {kept} bytes are kept"
    return _unreadable(shown, split_mail(raw_head)[0])


def _read(raw: bytes, rules: Rules, *, fast: bool) -> Reading:
    header, body_at = split_mail(raw)
    envelope = read_envelope(header, rules.sender)
    if not envelope.ours:
        return NotOurs(envelope.sender)
    if len(raw) > LARGEST_PARSED:
        return oversized(raw, len(raw), len(raw), rules)
    body = raw[body_at:]
    if fast:
        part = fast_part(header, body)
        if part is not None:
            found = find_block(part, rules)
            if not isinstance(found, str):
                return _verdict(read_record(*found, part, rules, header), header)
    return _read_slowly(header, body, rules)


def _read_slowly(header: Header, body: bytes, rules: Rules) -> Reading:
    parts = slow_parts(header, body)
    if isinstance(parts, str):
        return _unreadable(parts, header)
    reasons = []
    for part in parts:
        found = find_block(part, rules)
        if not isinstance(found, str):
            return _verdict(read_record(*found, part, rules, header), header)
        reasons.append(found)
    return _unreadable(reasons[0], header)


def _verdict(record: InboundSms | str, header: Header) -> Reading:
    if isinstance(record, str):
        return _unreadable(record, header)
    return Readable(record, PARSER, *_names(header))


def _unreadable(reason: str, header: Header) -> Unreadable:
    return Unreadable(reason, PARSER, *_names(header))


def _names(header: Header) -> tuple[str | None, str | None]:
    """Return the Message-ID and the Subject as the archive shows them."""
    message_id, subject = header.first.get(b"message-id"), header.first.get(b"subject")
    return (
        None if message_id is None else _shown(message_id),
        None if subject is None else _shown_subject(subject) if len(subject) < _LONGEST_SHOWN
        else _shown(subject),
    )  # fmt: skip


@lru_cache(maxsize=64)  # an SMS has one of four
def _shown_subject(value: bytes) -> str:
    return _shown(value)


def _shown(value: bytes) -> str:
    if len(value) < _LONGEST_SHOWN and b"=?" not in value and value.isascii():
        plain = value.decode("ascii").strip()
        if plain.isprintable():
            return plain
    return storable(decode_header(value)[:_LONGEST_SHOWN])[0]
