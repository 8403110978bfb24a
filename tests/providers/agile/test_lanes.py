"""The generated mailbox: every SMS right, both lanes equal, and mail-parser of the same opinion."""

import html
import logging
import re
from zoneinfo import ZoneInfo

import mailparser
import pytest

from ingestor.providers.agile.header import split_mail
from ingestor.providers.agile.parts import fast_part
from ingestor.providers.contract import NotOurs, Readable, Rules, Unreadable
from tests.providers.agile.corpus import MAILS, read_both
from tests.sample_mails import NUMBERS, generate

RULES = Rules(zone=ZoneInfo("Europe/Rome"), numbers=frozenset(NUMBERS))


def test_a_generated_mailbox_is_read_right() -> None:
    """Each mail ends as its kind demands, each SMS with the values it was made from, by either lane."""
    kinds = {"sms": Readable, "unrelated": NotOurs, "broken": Unreadable}
    for mail in generate(2500, seed=11, broken=0.05):
        for raw in (mail.raw, mail.raw.replace(b"\r\n", b"\n")):
            reading = read_both(raw, RULES)
            assert isinstance(reading, kinds[mail.kind]), mail
            if isinstance(reading, Readable) and mail.expected is not None:
                assert {name: getattr(reading.sms, name) for name in mail.expected} == mail.expected, mail


def test_the_fast_lane_takes_every_usual_mail() -> None:
    """No generated SMS needs mail-parser: that would cost forty times as much."""
    for mail in generate(1000, seed=12, broken=0):
        if mail.kind == "sms":
            header, body = split_mail(mail.raw)
            assert fast_part(header, mail.raw[body:]) is not None, mail


def test_mail_parser_reads_the_same_text() -> None:
    """mail-parser, given the whole mails, sees the same four values in all of them."""
    for mail in generate(600, seed=13, unrelated=0, broken=0):
        assert mail.expected is not None
        parsed = mailparser.parse_from_bytes(mail.raw)
        assert parsed.from_[0][1] == "smsin@agiletelecom.com"
        if parsed.text_plain:
            text = parsed.text_plain[0]
        else:
            text = html.unescape(
                re.sub(r"<[^>]+>", "", re.sub(r"<br>(?:\r\n)?|</tr>", "\n", parsed.text_html[0]))
            )
            text = text.partition("From:")[1] + text.partition("From:")[2]
        found = re.match(
            r"From: ?(.*)\s+To: ?(.*)\s+Date/Time: ?(.*)\s+(?:Body|Text): ?([^\0]*)",
            text.replace("\r\n", "\n"),
        )
        assert found is not None, mail
        reading = read_both(mail.raw, RULES)
        assert isinstance(reading, Readable)
        sms = reading.sms
        assert (sms.originator, sms.destination, sms.date_time) == found.groups()[:3], mail
        assert sms.text == found[4].rstrip("\n"), mail


def test_mail_parser_tells_the_log_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """mail-parser logs header values and kinds of content; none may reach a log, even when debugging."""
    with caplog.at_level(logging.DEBUG):
        for path in MAILS:
            read_both(path.read_bytes(), RULES)
    assert caplog.records == []
