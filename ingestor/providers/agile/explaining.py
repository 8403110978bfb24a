"""Why a mail is read, kept or left alone, in words for a person at a terminal."""

from ingestor.providers.agile.encoded_words import decode_header
from ingestor.providers.agile.envelope import Envelope, Subject, read_envelope
from ingestor.providers.agile.header import Header, split_mail
from ingestor.providers.agile.reading import decode_part, text_of
from ingestor.providers.agile.slow_lane import slow_parts
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

_LONGEST = 120
_LINES = 8


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
    """Return the first lines of the text: where a block should stand."""
    parts = slow_parts(header, body)
    for part in parts if not isinstance(parts, str) else ():
        text = text_of(part, decode_part(part, part.data or b""))
        if text.strip():
            lines = [line for line in text.split("\n") if line.strip()]
            return [f"text: {_short(line)}" for line in lines[:_LINES]]
    return ["text: none"]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
