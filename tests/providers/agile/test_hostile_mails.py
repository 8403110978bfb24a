"""Mails built to cost time, memory or stack: each has its verdict, and the test run goes on.

What these hold is that the work stays in proportion to the size. Reading one of them in quadratic time takes
minutes to hours, far beyond the time limit of a test; all of them together take seconds.
"""

import base64

import pytest

from ingestor.providers.contract import NotOurs, Readable, Unreadable
from tests.providers.agile.corpus import BLOCK, HEADER, READER, RULES, read_both

ALMOST = 900_000  # bytes, below the size from which a mail is not parsed


def _filled(unit: bytes, size: int = ALMOST) -> bytes:
    return (unit * (size // len(unit) + 1))[:size]


def _html(body: bytes) -> bytes:
    return HEADER + b"Content-Type: text/html; charset=utf-8\r\n\r\n" + body


def _mixed(body: bytes) -> bytes:
    return HEADER + b"Content-Type: multipart/mixed; boundary=b0\r\n\r\n--b0\r\n" + body


_NESTED = b"".join(
    b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(600)
)

QUARANTINED = {
    "8 MB body": HEADER + b"\r\n" + BLOCK + _filled(b"x\r\n", 8_500_000),
    "8 MB of header fields": HEADER + _filled(b"X-A: b\r\n", 8_000_000) + b"\r\n" + BLOCK,
    "8 MB of continuation": HEADER + b"X: " + _filled(b"\r\n ", 8_000_000) + b"\r\n\r\n" + BLOCK,
    "empty lines": HEADER + b"\r\n" + _filled(b"\n"),
    "lone CRs": HEADER + b"Content-Type: x\r\n\r\n" + _filled(b"\r"),
    "blanks": HEADER + b"\r\n" + _filled(b" "),
    "no-break spaces": HEADER + b"\r\n" + _filled(b"\xc2\xa0"),
    "blank lines": HEADER + b"\r\n" + _filled(b" \n"),
    "labels": HEADER + b"\r\n" + _filled(b"From: 1\nTo: 2\n"),
    "almost labels": HEADER + b"\r\nFrom: 1\nTo: 2\n" + _filled(b"Date\t\n"),
    "open tags": _html(_filled(b"<a ")),
    "open comments": _html(_filled(b"<!--")),
    "comments": _html(_filled(b"<!---->")),
    "angles": _html(_filled(b"<")),
    "cells": _html(_filled(b"<td>")),
    "number references": _html(_filled(b"&#9")),
    "one giant reference": _html(b"&#" + _filled(b"9")),
    "name references": _html(_filled(b"&a")),
    "equals signs": HEADER + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + _filled(b"="),
    "padding": HEADER + b"Content-Transfer-Encoding: base64\r\n\r\n" + _filled(b"="),
    "uuencode": HEADER + b"Content-Transfer-Encoding: x-uuencode\r\n\r\n" + _filled(b"begin 1\n"),
    "one long parameter list": HEADER + b"Content-Type: text/plain" + _filled(b';"') + b"\r\n\r\n" + BLOCK,
    "parameter list of a part": _mixed(b"Content-Disposition: inline" + _filled(b';"') + b"\r\n\r\n" + BLOCK),
    "delimiters": _mixed(_filled(b"--b0\r\n")),
    "fields of a part": _mixed(_filled(b"X-A: b\r\n")),
    "600 nested": HEADER + _NESTED + b"\r\n" + BLOCK,
    "29 nested, many lines": HEADER
    + b"".join(_NESTED.splitlines(keepends=True)[: 29 * 3])
    + _filled(b"a\r\n"),
    "nested mails": HEADER + b"Content-Type: message/rfc822\r\n\r\n" * 20_000,
    "signatures of open ends": HEADER
    + b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    + base64.encodebytes(b"\x30\x80" * 300_000),
    "bold without end": HEADER + b"\r\n" + _filled(b"*"),
    "links without end": HEADER + b"\r\n" + _filled(b"<tel:"),
    "surrogates": HEADER + b"\r\n" + _filled(b"\xed\xa0\xbd"),
    "tags without end": HEADER + b"\r\n" + _filled(b"<p "),
    "images": HEADER + b"Content-Type: text/html\r\n\r\n" + _filled(b"<img alt ="),
    "breaks of a relay": HEADER + b"\r\n" + _filled(b"a" * 998 + b"\r\n " + b"a" * 997 + b"\r\n "),
}

REASONS = {
    "600 nested": "more than 30 multiparts, nested or in a row",
    "delimiters": "more than 1000 parts",
    "29 nested, many lines": "too many lines in nested multiparts",
    "one long parameter list": "a field that describes the body is longer than 4000 bytes",
    "parameter list of a part": "a field that describes the body is longer than 4000 bytes",
    "nested mails": "the mail has no text part",
}

READ = {
    "hundred thousand fields": HEADER + _filled(b"X-A: b\r\n", ALMOST // 8 * 8) + b"\r\n" + BLOCK,
    "long Message-ID": HEADER + b"Message-ID: " + _filled(b"=?x?q?") + b"\r\n\r\n" + BLOCK,
    "parameters below the bound": HEADER
    + b"Content-Type: text/plain"
    + _filled(b';"', 3900)
    + b"\r\n\r\n"
    + BLOCK,
    "quoted lines that flow": HEADER
    + b"Content-Type: text/plain; format=flowed\r\n\r\n"
    + BLOCK
    + _filled(b"> \r\n"),
    "long text": HEADER + b"\r\n" + BLOCK + _filled(b"From: x\r\n"),
    "long text in cells": _html(BLOCK.replace(b"\r\n", b"<br>") + _filled(b"<td>x</td> \n")),
}

FOREIGN = {
    "open comments": b"From: " + _filled(b"(", 8_000_000) + b"\r\n",
    "open quotes": b"From: " + _filled(b'"\\', 60_000) + b"\r\n",
    "open angles": b"From: " + _filled(b"<a@b ", 60_000) + b"\r\n",
    "blanks in an address": b"From: a" + _filled(b" ", 60_000) + b"@b\r\n",
    "many addresses": b"From: " + _filled(b"a@b,", 60_000) + b"\r\n",
    "many addresses in a comment": b"From: (" + _filled(b"a@b ", 60_000) + b")\r\n",
    "a long word before a group": b"From: " + _filled(b"a", 60_000) + b":;\r\n",
    "many CRs": b"From: " + _filled(b"\r", 60_000) + b"\r\n",
    "many From fields": _filled(b"From: a@b\r\n", 11 * 200_000),
    "half encoded words": b"Subject: " + _filled(b"=?", 8_000_000) + b"\r\n",
    "encoded words": b"From: " + _filled(b"=?utf-8?q?a?= ", 60_000) + b"\r\n",
    "many blank lines": b"From: a@b\r\nSubject: x\r\n" + _filled(b" \r\n", 60_000),
    "lines that are no field": b"From: a@b\r\n" + _filled(b"x\r\n", 60_000),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", QUARANTINED)
def test_a_hostile_mail_of_ours_is_quarantined(name: str) -> None:
    """Its structure or size is the reason; the parser neither fails on it nor hangs in it."""
    reading = read_both(QUARANTINED[name])
    assert isinstance(reading, Unreadable)
    assert reading.reason != "the parser failed on this mail"
    assert reading.reason == REASONS.get(name, reading.reason)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", READ)
def test_a_large_mail_that_is_whole_is_read(name: str) -> None:
    """Size and odd fields alone do not cost an SMS."""
    assert isinstance(read_both(READ[name]), Readable)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", FOREIGN)
def test_a_hostile_header_is_never_an_sms(name: str) -> None:
    """From and Subject are decided in a time that follows their length, for headers alone too.

    Behind it stand a From, a Subject and a block as ours: that makes it a near miss at the most.
    """
    assert isinstance(read_both(FOREIGN[name] + b"\r\n" + BLOCK), NotOurs)
    assert READER.may_be_ours(FOREIGN[name], RULES) is False
    reading = read_both(FOREIGN[name] + HEADER + b"\r\n" + BLOCK)
    assert isinstance(reading, Unreadable | NotOurs)
    # One From that is ours, and a second Subject that is: no more is asked of a header.
    assert READER.is_ours(FOREIGN[name] + HEADER, RULES) is (name == "half encoded words")


def test_a_bug_in_the_parser_is_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the parser itself fail, the mail is unreadable with a reason, and the next one is read."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("something nobody thought of")

    with monkeypatch.context() as patched:
        patched.setattr(READER, "find_block", broken)
        assert READER.read_mail(HEADER + b"\r\n" + BLOCK, RULES) == Unreadable(
            "the parser failed on this mail", READER.PARSER
        )
    with monkeypatch.context() as patched:
        patched.setattr(READER, "read_envelope", broken)
        assert READER.may_be_ours(HEADER, RULES) is True
    assert isinstance(READER.read_mail(HEADER + b"\r\n" + BLOCK, RULES), Readable)


def test_a_failure_of_mail_parser_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where mail-parser fails on what we do not need, the standard library's reading is taken."""

    def broken(_: bytes) -> None:
        raise TypeError("a file name it cannot decode")

    monkeypatch.setattr("mailparser.parse_from_bytes", broken)
    reading = READER.read_mail(HEADER + b"Content-Type: text/x-sms\r\n\r\n" + BLOCK, RULES)
    assert isinstance(reading, Readable)
    assert reading.sms.text == "News ON"
