"""What reading one mail costs: both lanes, the header check, mail-parser and fast-mail-parser, in one run.

All readers get the same generated mailbox (SMS of every transport and unrelated mail in the usual mix), and
must agree on every SMS before anything is timed. The peers only take the mail apart and cut out the four
values; ours also decides whose mail it is, normalises numbers and time, and builds the record.
"""

import html
import re
import statistics
import time
from collections.abc import Callable
from zoneinfo import ZoneInfo

import fast_mail_parser
import mailparser

from ingestor.providers import mail_reader
from ingestor.providers.contract import Readable, Rules
from tests.sample_mails import NUMBERS, SampleMail, generate

MAILS = 2000
SLICE = 100
REPEATS = 5
RULES = Rules(zone=ZoneInfo("Europe/Rome"), numbers=frozenset(NUMBERS))
READER = mail_reader("agile")
SENDER = "smsin@agiletelecom.com"

_SUBJECT = re.compile("Agile Telecom (?:--?|\N{EN DASH}|\N{EM DASH}) SMS received")
_BLOCK = re.compile(r"From: ?(.*)\s+To: ?(.*)\s+Date/Time: ?(.*)\s+(?:Body|Text): ?([^\0]*)")
_LINE_ENDS = re.compile(r"<br>(?:\r?\n)?|</tr>")
_TAG = re.compile(r"<[^>]+>")

Values = tuple[str, ...] | None


def _cut_out(plain: list[str], page: list[str]) -> Values:
    text = plain[0] if plain else html.unescape(_TAG.sub("", _LINE_ENDS.sub("\n", page[0])))
    match = _BLOCK.search(text.replace("\r\n", "\n"))
    return (*match.groups()[:3], match[4].rstrip("\n")) if match else None


def by_mail_parser(raw: bytes) -> Values:
    """Read one mail with mail-parser, as its documentation shows."""
    mail = mailparser.parse_from_bytes(raw)
    if [address for _, address in mail.from_] != [SENDER] or not _SUBJECT.fullmatch(_blanks(mail.subject)):
        return None
    return _cut_out(mail.text_plain, mail.text_html)


def by_fast_mail_parser(raw: bytes) -> Values:
    """Read one mail with fast-mail-parser."""
    mail = fast_mail_parser.parse_email(raw)
    senders = mail.headers.get("From", [])
    if mail.from_ is None or mail.from_.address != SENDER or "," in senders[0]:
        return None
    return _cut_out(mail.text_plain, mail.text_html) if _SUBJECT.fullmatch(_blanks(mail.subject)) else None


def by_us(raw: bytes) -> Values:
    """Read one mail with the provider's own reader."""
    return _values(READER.read_mail(raw, RULES))


def by_slow_lane(raw: bytes) -> Values:
    """Read one mail with the provider's slow lane alone."""
    fast_part, READER.fast_part = READER.fast_part, lambda *_: None
    try:
        return _values(READER.read_mail(raw, RULES))
    finally:
        READER.fast_part = fast_part


def _values(reading: object) -> Values:
    if not isinstance(reading, Readable):
        return None
    sms = reading.sms
    return sms.originator, sms.destination, sms.date_time, sms.text


def _blanks(text: str) -> str:
    return " ".join(text.split())


def _wrong(read: Callable[[bytes], Values], mails: list[SampleMail]) -> int:
    return sum(read(mail.raw) != (tuple(mail.expected.values()) if mail.expected else None) for mail in mails)


def main() -> None:
    """Print what each reader costs a mail, and how many times faster than mail-parser it is."""
    mails = list(generate(MAILS, seed=3, broken=0))
    raws = [mail.raw for mail in mails]
    readers: dict[str, Callable[[bytes], object]] = {
        "mail-parser": by_mail_parser,
        "slow lane (mail-parser inside)": by_slow_lane,
        "fast-mail-parser": by_fast_mail_parser,
        "read_mail (both lanes)": by_us,
        "may_be_ours (header check)": lambda raw: READER.may_be_ours(raw, RULES),
    }
    for name in list(readers)[:4]:
        print(f"{name}: {_wrong(readers[name], mails)} of {MAILS} wrong")  # type: ignore[arg-type]  # these four
    costs: dict[str, list[float]] = {name: [] for name in readers}
    for start in range(0, MAILS, SLICE):
        # In turns over small slices, so that a busy machine slows all alike; CPU time, not the wall's.
        for name, read in readers.items():
            for _ in range(1 if "mail-parser" in name and "fast" not in name else REPEATS):
                began = time.process_time()
                for raw in raws[start : start + SLICE]:
                    read(raw)
                costs[name].append((time.process_time() - began) / SLICE)
    reference = statistics.median(costs["mail-parser"])
    for name, seconds in costs.items():
        cost = statistics.median(seconds)
        print(f"{name:32} {cost * 1e6:8.1f} us a mail {reference / cost:6.1f} times mail-parser")
    ours = reference / statistics.median(costs["read_mail (both lanes)"])
    print(f"parse + normalise against mail-parser: {ours:.1f} times (wanted: 30 or more)")


if __name__ == "__main__":
    main()
