"""Whose mail is it? What a person would call ours is read, what is nearly ours is kept, nothing else is."""

from dataclasses import replace

import pytest

from ingestor.providers.contract import ANOTHER_FORWARDER, ANOTHER_SENDER, NotOurs, Readable, Unreadable
from tests.providers.agile.corpus import BLOCK, READER, RULES, read_both

A = b"smsin@agiletelecom.com"
SUBJECT = b"Subject: Agile Telecom -- SMS received\r\n"


def _mail(sender: bytes, subject: bytes = SUBJECT, body: bytes = BLOCK) -> bytes:
    return sender + b"\r\n" + subject + b"\r\n" + body


SUBJECTS = {
    "before": b"[EXTERNAL] Agile Telecom -- SMS received",
    "score": b"***SPAM*** (7.1/5) Agile Telecom -- SMS received",
    "behind": b"Agile Telecom -- SMS received [EXTERN]",
    "folded": b"[EXTERNAL]\r\n Agile Telecom -- SMS\r\n received",
    "encoded": b"=?utf-8?q?[ESTERNO]_Agile_Telecom_=E2=80=93_SMS_received?=",
    "encoded in two": b"=?utf-8?b?W1BSw5xGRU5dIEFnaWxlIFRlbGU=?= =?utf-8?b?Y29tIOKAkyBTTVMgcmVjZWl2ZWQ=?=",
    "tag alone encoded": b"=?iso-8859-1?q?=5BGepr=FCft=5D?= Agile Telecom -- SMS received",
    "dash lost": b"Agile Telecom  SMS received",
    "dash as a question mark": b"Agile Telecom ? SMS received",
    "dash as U+FFFD": "Agile Telecom \ufffd SMS received".encode(),
    "dash as three letters": "Agile Telecom â€“ SMS received".encode(),
    "dash as bytes": b"Agile Telecom \x96 SMS received [x]",
    "dash as a reference": b"Agile Telecom &ndash; SMS received",
    "dash as an escape": b"Agile Telecom =E2=80=93 SMS received",
    "dash as eight letters": "Agile Telecom Ã¢â‚¬â€œ SMS received".encode(),
    "blanks of no width": "Agile\u200b Telecom -- SMS\u200b received".encode(),
    "no blanks": b"Agile_Telecom_--_SMS_received",
    "other case": b"AGILE TELECOM - SMS RECEIVED",
    "Re:": b"Re: Agile Telecom -- SMS received",
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_subject_with_additions_is_ours(name: str) -> None:
    """From Agile's address it is read, and the details say by what; from another it is a near miss."""
    subject = b"Subject: " + SUBJECTS[name] + b"\r\n"
    reading = read_both(_mail(b"From: " + A, subject))
    assert isinstance(reading, Readable)
    assert reading.sms.text == "News ON"
    assert reading.sms.details["recognised_by"] == "sender, part of the subject"
    other = _mail(b"From: x@example.net", subject)
    assert READER.may_be_ours(other, RULES)
    assert getattr(read_both(other), "reason", None) == ANOTHER_SENDER
    assert read_both(_mail(b"From: x@example.net", subject, b"hello")) == NotOurs("x@example.net", "block")


@pytest.mark.parametrize("subject", [b"", b"Subject:\r\n", b"Subject: Invoice 17\r\n"])
def test_another_subject_from_our_sender_is_never_ignored(subject: bytes) -> None:
    """With a whole block it is an SMS, and the details say so; else it is kept with its reason."""
    reading = read_both(_mail(b"From: " + A, subject))
    assert isinstance(reading, Readable)
    assert reading.sms.details["recognised_by"] == "sender, block"
    kept = read_both(_mail(b"From: " + A, subject, b"Dear customer,\r\n"))
    assert isinstance(kept, Unreadable)
    assert kept.reason == (
        "the subject is another one, and none of the labels From, To, Date/Time and Body is there"
    )


OURS = {
    "alone": A,
    "angle": b"<" + A + b">",
    "upper case": A.upper(),
    "folded": b"\r\n " + A,
    "comment": A + b" (Agile)",
    "single quotes": b"'" + A + b"' <" + A + b">",
    "double quotes": b'"' + A + b'" <' + A + b">",
    "the same bare": A + b" <" + A + b">",
    "quoted twice": b"\"'" + A + b"'\" <" + A + b">",
    "part of the name": b"Agile " + A + b" <" + A + b">",
    "comment with the same": A + b" (" + A + b")",
    "group": b"Agile: " + A + b";",
    "group of the same name": A + b": " + A + b";",
    "another in a quoted name": b'"x@example.net" <' + A + b">",
    "encoded name": b"=?utf-8?q?Agile_=C3=A8?= <" + A + b">",
    "blanks and CRs behind": A + b" \r\r",
    "a comma in the name": b"Telecom, Agile <" + A + b">",
    "single quotes alone": b"'" + A + b"'",
    "two angles": b"<<" + A + b">>",
    "Exchange's scheme": b"Agile <SMTP:" + A + b">",
    "no width behind": A + "\u200b".encode(),
    "as a link": b"Agile <mailto:" + A + b">",
}


@pytest.mark.parametrize("name", OURS)
def test_one_address_that_is_ours(name: str) -> None:
    """A name in quotes, or one that is the address again, names nobody else."""
    assert isinstance(read_both(_mail(b"From: " + OURS[name])), Readable)


E = b"evil@example.net"
SPOOFS = {
    "group named as an address": E + b": " + A + b";",
    "group left open": E + b":" + A,
    "quoted group": b'"' + E + b'": ' + A + b";",
    "group with blanks": E + b" : " + A + b";",
    "group in angles": b"<" + E + b">: " + A + b";",
    "group of nobody": A + b":;",
    "group of nobody, then ours": E + b":; , " + A,
    "two groups": b"a: " + E + b";, b: " + A + b";",
    "group with a comment": b"x (" + E + b"): " + A + b";",
    "group in a group": b"a: " + E + b": " + A + b";;",
    "comment behind": A + b" (" + E + b")",
    "comment before": b"(" + E + b") " + A,
    "comment in angles": b"<" + A + b" (" + E + b")>",
    "nested comment": A + b" (a (<" + E + b">))",
    "open comment": A + b" (" + E,
    "comment with a quoted pair": A + b" (\\) " + E + b")",
    "bare CR": E + b"\rFrom: " + A,
    "bare CR behind": A + b"\rFrom: " + E,
    "bare CR in a name": b"x\rFrom <" + A + b">",
    "bare CR before a blank": E + b",\r " + A,
    "bare CR and a field": A + b"\rX: y",
    "two CRs": E + b"\r\rFrom: " + A,
    "name without quotes": E + b" <" + A + b">",
    "name in single quotes": b"'" + E + b"' <" + A + b">",
    "two in the name": A + b" " + E + b" <" + A + b">",
    "name with our address, longer": A + b".x <" + A + b">",
    "quoted, before a comma": b'"' + E + b'", Agile <' + A + b">",
    "a word with an address": E + b" x, Agile <" + A + b">",
    "a local user in angles": A + b" <root>",
    "encoded, before a comma": b"=?utf-8?q?evil=40example.net?=, " + A,
    "encoded in angles": A + b" <=?utf-8?q?evil=40example.net?=>",
    "encoded behind the angle": b"<" + A + b"> =?utf-8?q?evil=40example.net?=",
    "quoted behind the angle": b"<" + A + b'> "' + E + b'"',
    "encoded group": b"=?utf-8?q?evil=40example.net?=: " + A + b";",
    "encoded comment": A + b" (=?utf-8?q?evil=40example.net?=)",
    "encoded beside a bracket": b"=?utf-8?q?=2C_evil=40example.net?= ] (x) <" + A + b">",
    "encoded before a bracket": b"=?utf-8?q?evil=40example.net?= [<" + A + b">",
    "quoted behind a colon": b"<" + A + b'>x:"' + E,
    "two addresses": A + b", " + E,
    "semicolon": A + b"; " + E,
    "angle twice": b"<" + E + b"> <" + A + b">",
    "behind the angle": b"<" + A + b"> " + E,
    "route": b"<@example.net:" + A + b">",
    "route of two": b"<@a.example,@b.example:" + A + b">",
    "percent": A.replace(b"@", b"%") + b"@example.net",
    "quoted part": b'"' + A + b'"@example.net',
    "NUL": E + b"\0" + A,
    "vertical tab": E + b"\x0b" + A,
    "form feed": A + b"\x0c" + E,
    "next line": E + b"\xc2\x85From: " + A,
    "line separator": E + b"\xe2\x80\xa8" + A,
    "encoded address": b"=?utf-8?q?smsin=40agiletelecom.com?=",
    "encoded other": b"=?utf-8?q?=3C" + A + b"=3E?= <" + E + b">",
    "soft hyphen": "sms\u00adin@agiletelecom.com".encode(),
    "zero width": "smsin\u200b@agiletelecom.com".encode(),
    "cyrillic": "\u0455msin@agiletelecom.com".encode(),
    "dot behind": A + b".",
    "plus": b"smsin+x@agiletelecom.com",
    "sub-domain": b"smsin@x.agiletelecom.com",
    "empty": b"",
    "null": b"<>",
    "same twice": A + b", " + A,
}


@pytest.mark.parametrize("name", SPOOFS)
def test_what_names_somebody_else_is_a_near_miss(name: str) -> None:
    """With our subject and a whole block it is kept by a code that names nobody; it is never an SMS."""
    raw = _mail(b"From: " + SPOOFS[name])
    reading = read_both(raw)
    assert isinstance(reading, Unreadable)
    assert reading.reason == ANOTHER_SENDER
    assert not READER.is_ours(raw, RULES)
    assert READER.may_be_ours(raw, RULES)


@pytest.mark.parametrize(
    "fields",
    [
        b"From: " + E + b"\r\nFrom: " + A,
        b"From: " + A + b"\r\nFrom: " + E,
        b"From: " + A + b"\r\nFrom: " + A,
        b"From: (x)\r\nFrom: " + A,
        b"From:\r\nFrom: " + A,
        b"FROM : " + E + b"\r\nfrom: " + A,
        b"X: y\rFrom: " + A,
        b"X: y\rFrom: " + E + b"\r\nFrom: " + A,
        b"From: " + A + b"\r\nX: y\rfROM : " + E,
        b"From: " + A + b"\r\nX: y\r\n z\rFrom: " + E,
        b"Sender: " + A + b"\r\nReply-To: " + A + b"\r\nFrom: " + E,
        b"Resent-From: " + A,
    ],
)
def test_no_sender_or_two(fields: bytes) -> None:
    """Two From fields, or none that every reader sees, are nobody's; the mail is kept as a near miss."""
    assert getattr(read_both(_mail(fields)), "reason", None) == ANOTHER_SENDER


def test_what_has_the_block_alone_or_the_sender_named_is_a_look_alike() -> None:
    """It is ignored, and says what it lacks beside the sender; a quoted block counts, a stranger's not."""
    plain = b"Subject: for you\r\n"
    quoted = b"> " + BLOCK.replace(b"\r\n", b"\r\n> ")
    colleague = b"From: c@example.net"
    assert read_both(_mail(colleague, plain, b"see below\r\n\r\n" + BLOCK)) == NotOurs(
        "c@example.net", "subject"
    )
    assert read_both(_mail(colleague, plain, quoted)) == NotOurs("c@example.net", "subject")
    assert read_both(_mail(colleague, SUBJECT, quoted)) == NotOurs("c@example.net", "block")
    assert read_both(_mail(colleague, plain, b"Date/Time: now\r\n")) == NotOurs("c@example.net")
    named = b'From: "' + A + b'" <list@example.net>'
    assert read_both(_mail(named, plain, b"hello")) == NotOurs("list@example.net", "subject and block")
    assert getattr(read_both(_mail(named, plain)), "reason", None) == ANOTHER_SENDER


@pytest.mark.parametrize("end", [b"\r\r\n", b"\r", b"\r\r\r\n"])
def test_line_ends_that_a_copy_spoilt(end: bytes) -> None:
    """A mail whose lines end with CR CR LF or with CR alone is read whole, and the details say so."""
    block = BLOCK.replace(b"News ON", b"one\r\ntwo")
    assert isinstance(read_both(_mail(b"From: " + A).replace(b"\r\n", end) + b"\n"), Readable)
    raw = _mail(b"X: y\r\nFrom: " + A, body=block)
    reading = read_both(raw.replace(b"\r\n", end))
    assert isinstance(reading, Readable)
    assert reading.sms.text == "one\ntwo"
    assert reading.sms.details["mended"] == ("line ends CR" if end == b"\r" else "line ends CR CR LF")
    spoof = _mail(b"From: " + E + b"\r\nFrom: " + A, body=block)
    assert not isinstance(read_both(spoof.replace(b"\r\n", end)), Readable)


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\0\0\0", b"\r\n\xef\xbb\xbf"])
def test_what_stands_before_the_header_hides_no_field(before: bytes) -> None:
    """A byte order mark or the NULs of a crash in front of From leave the mail whose it is."""
    raw = _mail(b"From: " + A)
    assert read_both(before + raw) == read_both(raw)


def test_a_header_alone_ends_its_lines_with_cr() -> None:
    """It is read, unless the lines of the rest name another sender."""
    fields, body = _mail(b"From: " + A, body=b"").replace(b"\r\n", b"\r"), BLOCK
    assert isinstance(read_both(fields + body), Readable)
    assert isinstance(read_both(fields + body.replace(b"\r\n", b"\n")), Readable)
    assert not isinstance(read_both(fields + b"x\r\nFrom: " + E + b"\r\n" + body), Readable)


@pytest.mark.parametrize("parted", [b"", b"-----\r\n", b"from x Thu May 14 10:23:01 2026\r\n", b"\x1f\r\n"])
def test_a_mail_that_a_text_has_swallowed_is_not_silent(parted: bytes) -> None:
    """Mails in one file that nothing known parts are kept as they came, not stored as one SMS."""
    mail = _mail(b"From: " + A) + b"\r\n"
    other = b"From: a@b.example\r\nMessage-ID: <1@b.example>\r\nSubject: lunch\r\n\r\nsee you\r\n"
    for further in (mail, mail.replace(BLOCK, b"QmFzZTY0"), other):
        reading = read_both(mail + parted + further)
        assert isinstance(reading, Unreadable)
        assert reading.reason == "the text holds a further mail, whose beginning could not be told"
    quoted = BLOCK.replace(b"News ON", b"From: a@b.example\r\nSubject: lunch\r\n" + b"see you there " * 10)
    assert isinstance(read_both(_mail(b"From: " + A, body=quoted)), Readable)


PARTS = b'Content-Type: multipart/mixed; boundary="b"\r\n'
HEADER_ENDS = {
    "blank": _mail(b"From: " + A).replace(b"\r\n\r\n", b"\r\n \r\n"),
    "tab": _mail(b"From: " + A).replace(b"\r\n\r\n", b"\r\n\t\r\n"),
    "blanks, LF": _mail(b"From: " + A).replace(b"\r\n\r\n", b"\r\n \t \r\n").replace(b"\r\n", b"\n"),
    "blank, empty line in the text": _mail(b"From: " + A, body=b"").replace(b"\r\n\r\n", b"\r\n \r\n")
    + BLOCK.replace(b"News ON", b"\r\n\r\nNews ON"),
    "no line": _mail(b"From: " + A).replace(b"\r\n\r\n", b"\r\n"),
    "no line, LF": _mail(b"From: " + A).replace(b"\r\n\r\n", b"\r\n").replace(b"\r\n", b"\n"),
    "no line before parts": _mail(b"From: " + A, SUBJECT + PARTS, b"").removesuffix(b"\r\n")
    + b"--b\r\nContent-Type: text/plain\r\n\r\n"
    + BLOCK
    + b"--b--\r\n",
    "no line before words": _mail(b"From: " + A, body=b"").removesuffix(b"\r\n")
    + b"You have an SMS\r\n\r\n"
    + BLOCK,
}


@pytest.mark.parametrize("name", HEADER_ENDS)
def test_a_header_that_does_not_end_with_an_empty_line(name: str) -> None:
    """A blank on that line, or no such line, costs no SMS."""
    reading = read_both(HEADER_ENDS[name])
    assert isinstance(reading, Readable)
    assert reading.sms.text.strip() == "News ON"
    other = HEADER_ENDS[name].replace(A, E)
    assert isinstance(read_both(other), Unreadable | NotOurs)
    assert READER.may_be_ours(HEADER_ENDS[name], RULES)


@pytest.mark.parametrize("between", [b" \r\n", b"--b\r\n", b"x\r\n"])
def test_another_sender_behind_what_may_end_a_header(between: bytes) -> None:
    """For other readers the header goes on there: a further address is a second sender."""
    fields = b"From: " + A + b'\r\nContent-Type: multipart/mixed; boundary="b"\r\n' + SUBJECT
    raw = fields + between + b"From: " + E + b"\r\n\r\n" + BLOCK + b"--b--\r\n"
    assert isinstance(read_both(raw), Unreadable | NotOurs)
    harmless = read_both(raw.replace(b"From: " + E, b"X: y"))
    assert isinstance(harmless, Readable) is (between == b"--b\r\n")


FORWARDED = (
    b"Subject: see below\r\nContent-Type: multipart/mixed; boundary=f\r\n",
    b"--f\r\nContent-Type: text/plain\r\n\r\nFYI\r\n--f\r\nContent-Type: message/rfc822\r\n\r\n"
    + _mail(b"From: " + A)
    + b"--f--\r\n",
)


def test_a_forward_under_another_subject_is_judged_by_its_forwarder() -> None:
    """Attached, Agile's mail is read from one of the senders alone; from anybody else it is a near miss."""
    raw = _mail(b"From: c@example.net", *FORWARDED)
    refused = read_both(raw)
    assert getattr(refused, "reason", None) == ANOTHER_FORWARDER
    reading = read_both(raw, replace(RULES, senders=RULES.senders | {"c@example.net"}))
    assert isinstance(reading, Readable)
    assert reading.sms.details["wrapped_in"] == "forwarded mail"
    assert getattr(read_both(raw.replace(A, b"x@example.org")), "reason", None) == ANOTHER_SENDER
