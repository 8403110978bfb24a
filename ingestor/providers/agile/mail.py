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

import re
from functools import lru_cache, partial

from ingestor.providers.agile.envelope import SOMEWHERE, Envelope, Subject, read_envelope
from ingestor.providers.agile.header import (
    Header,
    decode_header,
    hides_a_from,
    other_ends,
    read_header,
    split_mail,
)
from ingestor.providers.agile.parts import IDENTITY, fast_part
from ingestor.providers.agile.reading import explained, find_block, read_record
from ingestor.providers.agile.slow_lane import looks_encoded, looks_like_html, slow_parts
from ingestor.providers.agile.wrapped import CERTIFIED, DEEPEST, inner_mails
from ingestor.providers.contract import (
    ANOTHER_FORWARDER,
    ANOTHER_SENDER,
    LARGEST_PARSED,
    NEAR_MISSES,
    Explanation,
    NotOurs,
    Readable,
    Reading,
    Rules,
    Unreadable,
)
from ingestor.record import InboundSms, canonical_text, storable
from ingestor.redaction import one_line

PARSER = "agile.mail/1"

_LONGEST_SHOWN = 998
_LOOKED_AT = 16384  # of somebody else's body: a reply or a forward has the block near its beginning
_END_MARKS = frozenset((b"\0", b"\x1a"))  # of a string of C, of a file of CP/M and DOS
_CRS = re.compile(rb"\r++\n")
_QUOTED = re.compile(rb'"[^"\\]*+"')
_GROUP = re.compile(rb"[:;]")
_BLOCK_SOMEWHERE = re.compile(
    rb"From:[^\n]{0,200}\n[> \t\r\n]*To:[^\n]{0,200}\n[> \t\r\n]*"
    rb"Date/Time:[^\n]{0,200}\n[> \t\r\n]*(?:Body|Text):"
)
_FROM_LINE = re.compile(r"^From[ \t]*:[^\n@]*+@", re.IGNORECASE | re.MULTILINE)
_SUBJECT_LINE = re.compile(r"^Subject[ \t]*:([^\n]{0,500}+)", re.IGNORECASE | re.MULTILINE)
_WRITTEN_BY_PROGRAMS = re.compile(
    r"^(?:Message-ID[ \t]*:\s*<|MIME-Version[ \t]*:[ \t]*1\.0|Received[ \t]*:\s*(?:from|by)[ \t]"
    r"|Return-Path[ \t]*:[ \t]*<)",
    re.IGNORECASE | re.MULTILINE,
)
_BLOCK_IN_TEXT = re.compile(
    r"^From:[^\n]*+\n\s*+To:[^\n]*+\n\s*+Date/Time:[^\n]*+\n\s*+(?:Body|Text):", re.IGNORECASE | re.MULTILINE
)


def may_be_ours(header: bytes, rules: Rules) -> bool:
    """Say whether the subject holds ours, From names one of the senders anywhere, or there is doubt."""
    envelope = _envelope_of(header, rules)
    return envelope is None or envelope.ours or envelope.suspected


def is_ours(header: bytes, rules: Rules) -> bool:
    envelope = _envelope_of(header, rules)
    return envelope is not None and envelope.known and envelope.subject is not Subject.OTHER


def _envelope_of(header: bytes, rules: Rules) -> Envelope | None:
    try:
        return read_envelope(split_mail(header)[0], rules)
    except Exception:  # noqa: BLE001 - any bytes may come, and no fault of ours may stop the next mail
        return None


def sender_shown(raw: bytes) -> str:
    values = split_mail(raw)[0].values_of(b"from")
    shown = " and ".join(" ".join(decode_header(value).split()) for value in values[:3])
    return one_line(shown)[:200] or "nobody"


def sender_of(raw: bytes, rules: Rules) -> str | None:
    header, body_at = split_mail(raw)
    envelope, written = read_envelope(header, rules), header.only(b"from") or b""
    if envelope.sender is None or not envelope.known or hides_a_from(raw, body_at):
        return None
    # Others see the name of a group, or nobody, where we see its one member.
    return None if _GROUP.search(_QUOTED.sub(b"", written)) else envelope.sender.lower()


def explain_mail(raw: bytes, rules: Rules, size: int | None = None) -> Explanation:
    reading = read_mail(raw, rules) if size is None else oversized(raw, size, len(raw), rules)
    return explained(raw, reading, rules, sender_shown(raw))


def read_mail(raw: bytes, rules: Rules) -> Reading:
    """Return what the whole mail `raw` (any line ends, no mbox separator) means.

    Raises MemoryError where the machine has too little: who has the mail knows whether to wait.
    """
    if raw[-1:] in _END_MARKS and (plain := raw.rstrip(b"\0\x1a")).endswith(b"\n"):
        raw = plain
    try:
        return _read(raw, rules)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - any bytes may come; the mail is kept whole, for a better parser
        return Unreadable("the parser failed on this mail", PARSER)


def oversized(raw_head: bytes, size: int, kept: int, rules: Rules) -> Unreadable | NotOurs:
    """Return the verdict on a mail of `size` bytes, by `raw_head`, which has at least its header.

    Of anybody else's it is not looked for a block.
    """
    header = split_mail(raw_head)[0]
    envelope = read_envelope(header, rules)
    if not envelope.known:
        return NotOurs(envelope.sender, _missing(envelope))
    shown = f"the mail has {size} bytes, more than the {LARGEST_PARSED} that are parsed; "
    shown += "it is kept whole" if kept >= size else f"only its first {kept} bytes are kept"
    return _unreadable(shown, header)


def _read(raw: bytes, rules: Rules, depth: int = 0) -> Reading:
    header, body_at = split_mail(raw)
    envelope = read_envelope(header, rules)
    if not envelope.ours and (usual := _with_line_feeds(raw, header)) is not None:
        return _mended(_read(usual, rules, depth), "line ends CR")
    if envelope.known and hides_a_from(raw, body_at):
        envelope = envelope._replace(sender=None, known=False)
    wrapped = partial(_read_wrapped, raw, header, body_at, rules, envelope, depth)
    if not (envelope.ours or envelope.suspected):
        if _may_pass_on_a_mail(raw, header, body_at) and (inside := wrapped()) is not None:
            return inside
        return NotOurs(envelope.sender, _block_of_foreign(raw, body_at))
    if len(raw) > LARGEST_PARSED:
        return oversized(raw, len(raw), len(raw), rules)
    quotes_spam = raw.find(b"x-spam-type", body_at, body_at + _LOOKED_AT) >= 0  # its block is no mail's own
    if quotes_spam and (inside := wrapped()) is not None:
        return inside
    reading, whole = _contents(header, raw[body_at:], rules, doubtful=not envelope.known)
    if envelope.known and isinstance(reading, Readable):
        if _may_pass_on_a_mail(raw, header, body_at):
            inside = wrapped()
            if isinstance(inside, Readable) and _identity(inside.sms) != _identity(reading.sms):
                return _unreadable("an SMS stands in the mail, and another in one attached to it", header)
        return reading if envelope.ours else _recognised(reading, envelope)
    if not whole:
        if b"\r\r\n" in raw[:body_at]:
            return _mended(_read(_CRS.sub(b"\r\n", raw), rules, depth), "line ends CR CR LF")
        otherwise = _read_with_another_end(raw, header, body_at, rules)
        if otherwise is not None:
            return otherwise
        is_text = header.first.get(b"content-type", b"text/").lstrip().lower().startswith(b"text/")
        if not is_text and (inside := wrapped()) is not None:
            return inside
    return _refused(reading, envelope, header, whole=whole)


def _with_line_feeds(raw: bytes, header: Header) -> bytes | None:
    """Return the mail `raw` with other line ends where its header has CR alone, None for all others."""
    line_feed = raw.find(b"\n")
    first_end = line_feed if line_feed >= 0 else len(raw)
    if not 0 <= raw.find(b"\r", 0, first_end) < first_end - 1:
        return None  # nearly all
    if not raw[first_end:].strip(b"\r\n"):
        return raw.replace(b"\r", b"\n")
    stop = raw.find(b"\r\r", 0, first_end)
    if stop < 0 or not raw[stop:first_end].strip(b"\r"):
        return None
    fields = raw[: stop + 2].replace(b"\r", b"\n")
    if not {b"from", b"subject"}.issubset(read_header(fields).first):
        return None
    if any(b"@" in value for value in header.values_of(b"from")[1:]):
        return None  # by the standard's reading there is another sender
    return fields + raw[stop + 2 :]


def _read_wrapped(
    raw: bytes, header: Header, body_at: int, rules: Rules, envelope: Envelope, depth: int
) -> Reading | None:
    """Return the reading of the SMS inside the mail `raw`, None where there is none.

    Whoever passes a mail on must be one of the senders; a certified mailbox names them. A mail is one item:
    several SMS in one are nothing that could be stored.
    """
    if depth == DEEPEST:
        return _unreadable(f"more than {DEEPEST} mails, one inside the other", header)
    found: dict[tuple[object, ...], Reading] = {}
    for inner, wrapper in inner_mails(raw, header, body_at):
        reading = _read(inner, rules, depth + 1)
        if isinstance(reading, NotOurs):
            continue
        believed = envelope.known or (envelope.named and wrapper in CERTIFIED)
        if isinstance(reading, Readable) and believed:
            about = ", in a ".join(filter(None, (reading.sms.details.get("wrapped_in"), wrapper)))
            sms = _with_detail(reading, "wrapped_in", about).sms
            found[sms[:10]] = _verdict(sms, header)
        else:
            reason = ANOTHER_FORWARDER if isinstance(reading, Readable) else reading.reason
            if believed or reason in NEAR_MISSES:
                found[(reason,)] = _unreadable(reason, header)
    if len(found) > 1:
        return _unreadable(f"the mail holds {len(found)} mails of ours, and can be only one SMS", header)
    return next(iter(found.values()), None)


def _read_with_another_end(raw: bytes, header: Header, body_at: int, rules: Rules) -> Reading | None:
    """Return the reading of a mail whose header ends otherwise than by an empty line, None for all others."""
    # Then a part or a block has fallen into the header: fields came twice, a delimiter stands there, or all.
    twice = len(header.first) != len(header.every)
    if not (twice or body_at >= len(raw) - 2 or raw.find(b"\n--", 0, body_at) >= 0):
        return None
    if any(b"@" in value for value in header.values_of(b"from")[1:]) or hides_a_from(raw, body_at):
        return None  # by the standard's reading there is another sender
    for shorter, at in other_ends(raw, body_at):
        reading, whole = _contents(shorter, raw[at:], rules)
        if whole:
            envelope = read_envelope(shorter, rules)
            if not (envelope.known and isinstance(reading, Readable)):
                return _refused(reading, envelope, shorter, whole=True)
            reading = reading if envelope.ours else _recognised(reading, envelope)
            return _mended(reading, "no empty line behind the header")
    return None


def _refused(reading: Reading, envelope: Envelope, header: Header, *, whole: bool) -> Reading:
    """Return what becomes of a mail that is no SMS of ours, though it has to do with Agile."""
    if not envelope.known:
        if whole:
            return _unreadable(ANOTHER_SENDER, header)
        return NotOurs(envelope.sender, _missing(envelope))
    if envelope.subject is Subject.OTHER and isinstance(reading, Unreadable):
        return reading._replace(reason=f"the subject is another one, and {reading.reason}")
    return reading


def _missing(envelope: Envelope) -> str | None:
    """Return what a mail of somebody else lacks in whose body no whole block was found."""
    if envelope.subject is not Subject.OTHER:
        return "block"
    return "subject and block" if envelope.named else None


def _may_pass_on_a_mail(raw: bytes, header: Header, body_at: int) -> bool:
    """Say whether somebody else's mail has a mail attached near its beginning; most kinds never have."""
    kind = header.first.get(b"content-type", b"").lower()
    if (b"multipart/" not in kind and b"message/" not in kind) or b"alternative" in kind:
        return False
    near = kind + raw[body_at : body_at + _LOOKED_AT].lower()
    seems = any(mark in near for mark in (b"message/", b"multipart/digest", b".eml"))
    return seems and len(raw) <= LARGEST_PARSED


def _block_of_foreign(raw: bytes, body_at: int) -> str | None:
    """Return `subject` where a block stands near the beginning of somebody else's mail, quoted or not."""
    start = body_at if body_at < len(raw) else 0
    at = raw.find(b"Date/Time", start, start + _LOOKED_AT)
    if at < 0 or not _BLOCK_SOMEWHERE.search(raw, max(start, at - _LOOKED_AT), at + _LOOKED_AT):
        return None
    return "subject"


def _contents(header: Header, body: bytes, rules: Rules, *, doubtful: bool = False) -> tuple[Reading, bool]:
    """Return the reading of a body, whoever sent it, and whether a whole block stands there.

    `doubtful` is a mail of somebody else: replies to an SMS are common, and cost no more than they must.
    """
    part = fast_part(header, body)
    if part is not None:
        found = find_block(part, rules)
        if not isinstance(found, str):
            return _verdict(read_record(*found, part, rules, header), header), True
        alone = b"multipart" not in header.first[b"content-type"].lower()
        data = part.data or b""
        as_it_is = not looks_encoded(data) and (part.html or not looks_like_html(data))
        if doubtful and alone and as_it_is and part.encoding in IDENTITY:
            return _unreadable(found, header), False  # the slow lane would see the same bytes
    parts = slow_parts(header, body)
    if isinstance(parts, str):
        return _unreadable(parts, header), False
    reasons: list[str] = []
    read: list[InboundSms | str] = []
    for part in parts:
        if read and part.again:
            continue
        found = find_block(part, rules)
        if isinstance(found, str):
            reasons.append(found)
        else:
            read.append(read_record(*found, part, rules, header))
    if not read:
        return _unreadable(reasons[0], header), False
    several = _several([one for one in read if not isinstance(one, str)])
    if several > 1:
        return _unreadable(f"the mail has {several} SMS in its parts, and can be only one", header), True
    return _verdict(read[0], header), True


def _several(read: list[InboundSms]) -> int:
    """Return how many SMS the parts of a mail are. Behind the text of one there may be a footer."""
    texts = {canonical_text(one.text) for one in read if "layout" not in one.details}
    longest = max(texts, key=len, default="")
    return max(len(set(map(_identity, read))), sum(not longest.startswith(text) for text in texts) + 1)


def _identity(sms: InboundSms) -> tuple[str, str, str]:
    return sms.originator, sms.destination, sms.date_time


def _recognised(reading: Readable, envelope: Envelope) -> Readable:
    by = "sender, part of the subject" if envelope.subject is not Subject.OTHER else "sender, block"
    return _with_detail(reading, "recognised_by", by)


def _mended(reading: Reading, what: str) -> Reading:
    return _with_detail(reading, "mended", what) if isinstance(reading, Readable) else reading


def _with_detail(reading: Readable, name: str, value: str) -> Readable:
    sms = reading.sms
    return reading._replace(sms=sms._replace(details={**sms.details, name: value}))


def _verdict(record: InboundSms | str, header: Header) -> Reading:
    if isinstance(record, str):
        return _unreadable(record, header)
    if "@" in record.text and _holds_a_mail(record.text):
        return _unreadable("the text holds a further mail, whose beginning could not be told", header)
    return Readable(record, PARSER, *_names(header))


def _holds_a_mail(text: str) -> bool:
    """Say whether a further mail stands in a text: what parts them was in a form that nobody knows."""
    if not _FROM_LINE.search(text):
        return False
    named = any(SOMEWHERE.search(line.lower()) for line in _SUBJECT_LINE.findall(text))
    return named or bool(_BLOCK_IN_TEXT.search(text) or _WRITTEN_BY_PROGRAMS.search(text))


def _unreadable(reason: str, header: Header) -> Unreadable:
    return Unreadable(reason, PARSER, *_names(header))


def _names(header: Header) -> tuple[str | None, str | None]:
    message_id, subject = header.first.get(b"message-id"), header.first.get(b"subject")
    return (
        None if message_id is None else _shown(message_id),
        None if subject is None else _shown_subject(subject) if len(subject) < _LONGEST_SHOWN
        else _shown(subject),
    )  # fmt: skip


def _shown(value: bytes) -> str:
    if len(value) < _LONGEST_SHOWN and b"=?" not in value and value.isascii():
        plain = value.decode("ascii").strip()
        if plain.isprintable():
            return plain
    return storable(decode_header(value)[:_LONGEST_SHOWN])[0]


_shown_subject = lru_cache(maxsize=64)(_shown)  # an SMS has one of four
