"""Mails inside mails: each wrapper is opened, named in the details, and bounded."""

import base64
import json
from pathlib import Path

import pytest

from ingestor.providers.agile.header import split_mail
from ingestor.providers.agile.wrapped import PEC, inner_mails, signed_content
from ingestor.providers.contract import ANOTHER_FORWARDER, NotOurs, Readable, Reading, Unreadable
from tests.providers.agile.corpus import BLOCK, HEADER, ODD, read_both

_MAIL = HEADER + b"\r\n" + BLOCK
_ATTACHED = b"Content-Type: message/rfc822\r\n\r\n"


def _around(*parts: bytes, header: bytes = b"") -> bytes:
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    return HEADER + header + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + body


def _wrappers(raw: bytes) -> list[str]:
    return [wrapper for _, wrapper in inner_mails(raw, *split_mail(raw))]


@pytest.mark.parametrize(
    ("part", "header", "wrapper"),
    [
        (b"Content-Type: message/rfc822\r\n\r\n", b"", "forwarded mail"),
        (b"Content-Type: message/rfc822\r\n\r\n", b"X-MS-Journal-Report:\r\n", "journal report"),
        (b"Content-Type: message/rfc822; name=postacert.eml\r\n\r\n", b"X-Trasporto: errore\r\n", PEC),
        (b"Content-Type: message/rfc822; name=a.eml\r\n\r\n", b"X-Trasporto: posta-certificata\r\n", PEC),
        (b'Content-Type: application/octet-stream; name="A.EML"\r\n\r\n', b"", "forwarded mail"),
    ],
)  # fmt: skip
def test_a_mail_inside_is_found_whole_with_its_wrapper(part: bytes, header: bytes, wrapper: str) -> None:
    """The inner mail comes out byte for byte, and what is around it is named."""
    raw = _around(b"Content-Type: text/plain\r\n\r\nHello", part + _MAIL, header=header)

    assert inner_mails(raw, *split_mail(raw)) == [(_MAIL.removesuffix(b"\r\n") + b"\r\n", wrapper)]


def test_a_journal_report_is_known_by_its_text_too() -> None:
    """Where the header's mark was lost, the report's own lines tell."""
    report = b"Content-Type: text/plain\r\n\r\nSender: a@b.example\r\nSubject: x\r\nRecipient: c@b.example"

    assert _wrappers(_around(report, b"Content-Type: message/rfc822\r\n\r\n" + _MAIL)) == ["journal report"]


@pytest.mark.parametrize("kind", [b"signed", b"report", b"related", b"digest", b"Mixed"])
def test_a_strangers_mail_of_any_parts_may_hold_ours(kind: bytes) -> None:
    """Whatever its parts are called, what is attached to a mail with another subject is a near miss."""
    raw = _around(b"Content-Type: text/plain\r\n\r\nsee", _ATTACHED + _MAIL)
    raw = raw.replace(HEADER, b"From: c@example.net\r\nSubject: see\r\n", 1)
    reading = read_both(raw.replace(b"multipart/mixed", b"multipart/" + kind))
    assert getattr(reading, "reason", None) == ANOTHER_FORWARDER


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Type: MESSAGE/RFC822\r\n\r\n" + _MAIL,
        b"Content-Type: multipart/digest; boundary=d\r\n\r\n--d\r\n\r\n" + _MAIL + b"\r\n--d--\r\n",
        b"Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: Multipart/Digest; boundary=d"
        b"\r\n\r\n--d\r\n\r\n" + _MAIL + b"\r\n--d--\r\n--m--\r\n",
    ],
    ids=["upper case", "digest", "digest inside"],
)
def test_a_strangers_mail_may_hold_ours_where_its_type_is_not_said_so(body: bytes) -> None:
    """Types have no case, and each part of a digest is a mail though nothing says it (RFC 2046, 5.1.5)."""
    reading = read_both(b"From: c@example.net\r\nSubject: see\r\n" + body)
    assert getattr(reading, "reason", None) == ANOTHER_FORWARDER


def test_a_strangers_mail_may_hold_ours_as_a_file() -> None:
    """A mail that a program attached as the file it saved is one all the same."""
    attached = (
        b'Content-Type: application/octet-stream; name="sms.eml"\r\nContent-Transfer-Encoding: base64\r\n'
    )
    raw = _around(b"Content-Type: text/plain\r\n\r\nsee", attached + b"\r\n" + base64.encodebytes(_MAIL))
    reading = read_both(raw.replace(HEADER, b"From: c@example.net\r\nSubject: see\r\n", 1))
    assert getattr(reading, "reason", None) == ANOTHER_FORWARDER


def test_many_mails_inside_are_bounded() -> None:
    """A mail that holds hundreds of mails costs no more than ten, and is no SMS."""
    mails = [_MAIL.replace(b"News", b"%d" % number) for number in range(200)]
    raw = _around(*[b"Content-Type: message/rfc822\r\n\r\n" + mail for mail in mails])

    assert len(_wrappers(raw)) == 10
    assert isinstance(read_both(raw), Unreadable)


def test_the_wrapper_is_named_in_the_details() -> None:
    """Each of a mail's wrappers can be seen in its record, the innermost first."""
    seen = {
        path.name: record["details"]["wrapped_in"]
        for path in ODD.glob("*.json")
        if "wrapped_in" in (record := json.loads(path.read_text()).get("record", {})).get("details", {})
    }

    assert seen["smime-ber-chunks.json"] == seen["smime-pem.json"] == "S/MIME signature"
    assert seen["spamassassin-report-as-text.json"] == "spam report"
    assert seen["wrapped-twice.json"] == "forwarded mail, in a forwarded mail"


def test_a_signature_in_any_ber_is_opened_and_nothing_else(tmp_path: Path) -> None:
    """Cut anywhere, or of other tags, it gives nothing and does not raise; open ends are followed."""
    content = b"Content-Type: text/plain\r\n\r\nx"
    last = b"\x24\x80\x04%c" % len(content[2:]) + content[2:] + b"\0\0"
    octets = b"\x24\x80\x04\x02" + content[:2] + last + b"\0\0"
    kind = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07"
    algorithms = b"\x31\x80\x30\x80\x06\x01\x2a\0\0\0\0"
    signed = b"\x02\x01\x01" + algorithms + b"\x30\x80" + kind + b"\x01\xa0\x80" + octets + b"\0\0\0\0"
    whole = b"\x30\x80" + kind + b"\x02\xa0\x80\x30\x80" + signed + b"\x31\x00\0\0\0\0\0\0"

    assert signed_content(whole) == content
    assert all(signed_content(whole[:end]) in {None, content} for end in range(len(whole)))
    assert {signed_content(bytes([tag]) * 200_000) for tag in (0, 0x24, 0x30, 0x80, 0xA0, 0xFF)} == {None}
    assert signed_content(b"\x30\x80" * 200_000) is None


def _passed_on(sender: bytes, part: bytes, mail: bytes = _MAIL) -> Reading:
    subject = b"Subject: FW: Agile Telecom -- SMS received\r\n"
    raw = _around(part + mail).replace(HEADER, b"From: " + sender + b"\r\n" + subject, 1)
    return read_both(raw)


def test_a_mail_inside_a_mail_of_ours_is_read_by_the_same_rules() -> None:
    """What is inside counts only where its own From and Subject are ours."""
    stranger = _MAIL.replace(b"smsin@", b"info@").replace(b"SMS received", b"invoice")

    assert isinstance(_passed_on(b"smsin@agiletelecom.com", _ATTACHED), Readable)
    assert isinstance(_passed_on(b"smsin@agiletelecom.com", _ATTACHED, stranger), Unreadable)


@pytest.mark.parametrize("sender", [b"anna@example.org", b'"smsin@agiletelecom.com" <anna@example.org>'])
def test_what_a_stranger_passes_on_goes_to_the_quarantine(sender: bytes) -> None:
    """A forward or journal report is read only where its forwarder is one of the senders; so is a report."""
    for part in (_ATTACHED, _ATTACHED.replace(b"\r\n", b"; x-spam-type=original\r\n", 1)):
        reading = _passed_on(sender, part)
        assert isinstance(reading, Unreadable)
        assert reading.reason == ANOTHER_FORWARDER
    reply = _passed_on(sender, _ATTACHED, _MAIL.replace(b"Body", b"Corpo"))
    assert isinstance(reply, NotOurs)


def test_certified_mail_names_its_sender() -> None:
    """postacert.eml is read where the envelope's From says on whose behalf it is, else it is a forward."""
    part = _ATTACHED.replace(b"\r\n", b"; name=postacert.eml\r\n", 1)
    read = _passed_on(b'"Per conto di: smsin@agiletelecom.com" <posta-certificata@pec.example.it>', part)
    other = _passed_on(b'"Per conto di: anna@example.org" <posta-certificata@pec.example.it>', part)

    assert isinstance(read, Readable)
    assert read.sms.details["wrapped_in"] == PEC
    assert isinstance(other, Unreadable)
    assert other.reason == ANOTHER_FORWARDER
