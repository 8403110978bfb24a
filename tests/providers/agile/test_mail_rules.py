"""What the settings change about reading a mail, and what becomes of mails that are too large."""

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from ingestor.providers.agile.mail import oversized
from ingestor.providers.contract import ANOTHER_SENDER, LARGEST_PARSED, NotOurs, Readable, Rules, Unreadable
from tests.providers.agile.corpus import BLOCK, HEADER, READER, RULES, read_both


def test_labels_of_the_settings_come_beside_the_built_in_ones() -> None:
    """`[agile.labels]` adds spellings by field name; the built-in ones go on working."""
    rules = replace(
        RULES,
        labels={
            "originator": ["Da"],
            "destination": ["A"],
            "date_time": ["Data / ora"],
            "text": ["Testo", "Tes.to"],
        },
    )
    italian = b"da: +393351234567\r\nA : +393331234333\r\nData/Ora: 20260514102301\r\nTESTO: ciao\r\n"
    for block, text in (
        (italian, "ciao"),
        (BLOCK, "News ON"),
        (italian.replace(b"TESTO", b"Tes.to"), "ciao"),
    ):
        reading = read_both(HEADER + b"\r\n" + block, rules)
        assert isinstance(reading, Readable)
        assert reading.sms.text == text
    assert isinstance(read_both(HEADER + b"\r\n" + italian), Unreadable)
    assert isinstance(read_both(HEADER + b"\r\n" + italian.replace(b"TESTO", b"Tesxto"), rules), Unreadable)


def test_a_label_of_the_settings_is_no_pattern() -> None:
    """A label is compared as it stands, whatever characters it holds."""
    rules = replace(RULES, labels={"text": ["(.*)+[", "Message text"]})
    block = BLOCK.replace(b"Body:", b"message  TEXT :")
    reading = read_both(HEADER + b"\r\n" + block, rules)
    assert isinstance(reading, Readable)
    assert reading.sms.text == "News ON"


def test_without_numbers_every_destination_is_ours() -> None:
    """An empty `numbers` accepts every destination; with numbers a foreign one is quarantined."""
    raw = HEADER + b"\r\n" + BLOCK.replace(b"+393331234333", b"+41790000000")
    assert isinstance(read_both(raw, replace(RULES, numbers=frozenset())), Readable)
    assert read_both(raw) == Unreadable(
        "the destination is not one of our numbers", "agile.mail/1", None, "Agile Telecom -- SMS received"
    )


def test_other_senders_of_the_settings() -> None:
    """`senders` decide whose mail is ours, the zone decides the instant; anybody else's is a near miss."""
    relay, list_ = "sms@relay.example.org", "sms@lists.example.net"
    rules = Rules(zone=ZoneInfo("UTC"), senders=frozenset({relay, list_}))
    refused = read_both(HEADER + b"\r\n" + BLOCK, rules)
    assert isinstance(refused, Unreadable)
    assert refused.reason == ANOTHER_SENDER
    for sender in (relay, list_):
        raw = HEADER.replace(b"smsin@agiletelecom.com", sender.upper().encode()) + b"\r\n" + BLOCK
        reading = read_both(raw, rules)
        assert isinstance(reading, Readable)
        assert reading.sms.received_at.isoformat() == "2026-05-14T10:23:01+00:00"
        assert "recognised_by" not in reading.sms.details


def test_further_subjects_of_the_settings() -> None:
    """`subjects` are found anywhere in a subject, in any case and however it is encoded."""
    rules = replace(RULES, subjects=("sms ricevuto",))
    other = HEADER.replace(b"smsin@agiletelecom.com", b"x@example.net")
    for subject in (b"SMS ricevuto", b"[EXT] sms\r\n ricevuto (3)", b"=?utf-8?q?SMS_ricevuto?="):
        raw = HEADER.replace(b"Agile Telecom -- SMS received", subject) + b"\r\n" + BLOCK
        reading = read_both(raw, rules)
        assert isinstance(reading, Readable)
        assert reading.sms.details["recognised_by"] == "sender, part of the subject"
        header = other.replace(b"Agile Telecom -- SMS received", subject)
        assert READER.may_be_ours(header, rules)
        assert not READER.may_be_ours(header, RULES)
        assert getattr(read_both(header + b"\r\n" + BLOCK, rules), "reason", None) == ANOTHER_SENDER


def test_a_mail_over_one_mebibyte_is_not_parsed() -> None:
    """A mail of ours over 1 MiB is unreadable with its size as the reason; somebody else's stays theirs."""
    raw = HEADER + b"\r\n" + BLOCK
    limit = raw + b"x" * (LARGEST_PARSED - len(raw))
    assert isinstance(read_both(limit), Readable)
    reading = read_both(limit + b"x")
    assert isinstance(reading, Unreadable)
    assert (
        reading.reason
        == "the mail has 1048577 bytes, more than the 1048576 that are parsed; it is kept whole"
    )
    assert read_both((limit + b"x").replace(b"smsin", b"other", 1)) == NotOurs(
        "other@agiletelecom.com", "block"
    )


@pytest.mark.parametrize(
    ("kept", "end"),
    [(40_000_000, "it is kept whole"), (1_048_576, "only its first 1048576 bytes are kept")],
)
def test_the_verdict_on_an_oversized_mail_says_what_is_kept(kept: int, end: str) -> None:
    """The reason tells the size and how much of it is in the archive; subject and Message-ID come along."""
    head = HEADER + b"Message-ID: <big@x>\r\n\r\n" + BLOCK
    reading = oversized(head, 40_000_000, kept, RULES)
    assert isinstance(reading, Unreadable)
    assert reading.reason.startswith("the mail has 40000000 bytes, more than the 1048576 that are parsed; ")
    assert reading.reason.endswith(end)
    assert (reading.message_id, reading.subject) == ("<big@x>", "Agile Telecom -- SMS received")
