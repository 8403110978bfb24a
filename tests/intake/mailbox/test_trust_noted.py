"""What our own mail server noted at the top of a mail, and what else may look like it."""

from dataclasses import replace

import pytest

from ingestor.intake.mailbox import trust
from ingestor.intake.mailbox.trust import Judge
from ingestor.providers.contract import Readable
from ingestor.settings import Trust
from tests.intake.mailbox.desk import RULES, mail
from tests.intake.mailbox.signing import AGILE
from tests.intake.mailbox.test_trust import AR, NOW, READER, judged

RFC = Trust(method="rfc8601", authserv_id="mx.example.org")
EXO = Trust(method="exchange-online")
HOP = b"Received: from AM0.prod.outlook.com (::1) by DB9.eurprd02.prod.outlook.com with HTTPS;\r\n now\r\n"
OF_EXCHANGE = (
    b"Authentication-Results: spf=pass (sender IP is 198.51.100.1)\r\n smtp.mailfrom=agiletelecom.com; "
    b"dkim=pass (signature was verified)\r\n header.d=agiletelecom.com;dmarc=pass action=none\r\n "
    b"header.from=agiletelecom.com;compauth=pass reason=100\r\n"
)
EVERYTHING = (
    b'Authentication-Results : (by (us)) "MX.example.org" 1;\r\n\tspf=pass (ok; dkim=fail) smtp.mailfrom='
    b'"a;b\\"c"@x.example;\r\n dkim/1 = PASS reason="good; (really)"\r\n header.i=@AgileTelecom.com '
    b"header.s=s1 header.b=aB/c=;\r\n arc=none;\r\n"
)
NOTED = {
    "dkim": (RFC, AR),
    "dmarc": (RFC, AR.replace(b"dkim=pass header.d", b"spf=fail; dmarc=pass header.from")),
    "all that may stand there": (RFC, EVERYTHING),
    "exchange": (EXO, OF_EXCHANGE),
    "exchange below its own hops": (EXO, HOP + b"ARC-Seal: i=1; a=b\r\n" + HOP + OF_EXCHANGE),
}


@pytest.mark.parametrize("shape", NOTED)
def test_what_our_own_server_noted_at_the_top_proves_it(shape: str) -> None:
    """`dkim=pass` of the sender's domain, or `dmarc=pass` for it."""
    settings, top = NOTED[shape]
    verdict = judged(top + mail(1), settings)
    assert (verdict.verified, verdict.check.finding, verdict.check.domain) == (True, "pass", AGILE)
    assert verdict.check.method == settings.method


def results(text: bytes) -> bytes:
    return b"Authentication-Results: " + text + b"\r\n"


FORGED = {
    "none": (RFC, b"", trust.NONE),
    "of another server": (RFC, results(b"evil.example; dkim=pass header.d=agiletelecom.com"), trust.ANOTHER),
    "injected below another": (RFC, results(b"evil.example; none") + AR, trust.ANOTHER),
    "injected below ours": (RFC, results(b"mx.example.org; dkim=fail") + AR, trust.NOT_PROVEN),
    "none of ours above it": (RFC, results(b"mx.example.org; none") + AR, trust.NOT_PROVEN),
    "without a name": (RFC, OF_EXCHANGE, trust.ANOTHER),
    "our name in a comment": (RFC, results(b"evil (mx.example.org); dkim=pass header.d=agiletelecom.com"),
                              trust.ANOTHER),
    "our name and more": (RFC, results(b"mx.example.org.evil; dkim=pass header.d=agiletelecom.com"),
                          trust.ANOTHER),
    "another domain's": (RFC, results(b"mx.example.org; dkim=pass header.d=evil.example"), trust.NOT_PROVEN),
    "another identity": (
        RFC, results(b"mx.example.org; dkim=pass header.d=agiletelecom.com header.i=@evil.example"),
        trust.NOT_PROVEN),
    "identity alone, another's": (
        RFC, results(b"mx.example.org; dkim=pass header.i=agiletelecom.com@evil.example"), trust.NOT_PROVEN),
    "said twice": (
        RFC, results(b"mx.example.org; dkim=pass header.d=evil.example header.d=agiletelecom.com"),
        trust.NOT_PROVEN),
    "failed": (RFC, results(b"mx.example.org; dkim=fail header.d=agiletelecom.com; dkim=none"),
               trust.NOT_PROVEN),
    "pass in a comment": (
        RFC, results(b"mx.example.org; dkim=fail (dkim=pass header.d=agiletelecom.com)"), trust.NOT_PROVEN),
    "a comment that ends early": (
        RFC, results(b"mx.example.org; dkim=fail (x)y); dkim=pass header.d=agiletelecom.com"),
        trust.UNREADABLE),
    "a comment without an end": (
        RFC, results(b"mx.example.org; dkim=pass ( header.d=agiletelecom.com"), trust.UNREADABLE),
    "a quote in a comment": (
        RFC, results(b'mx.example.org; spf=fail ("x) smtp.helo="; dkim=pass header.d=agiletelecom.com; x="'),
        trust.NOT_PROVEN),
    "pass in quotes": (
        RFC, results(b'mx.example.org; spf=pass smtp.mailfrom="x; dkim=pass header.d=agiletelecom.com"'),
        trust.NOT_PROVEN),
    "quotes without an end": (
        RFC, results(b'mx.example.org; spf=pass smtp.helo="; dkim=pass header.d=agiletelecom.com'),
        trust.UNREADABLE),
    "spf alone": (RFC, results(b"mx.example.org; spf=pass smtp.mailfrom=agiletelecom.com"), trust.NOT_PROVEN),
    "dmarc of another": (RFC, results(b"mx.example.org; dmarc=pass header.from=evil.example"),
                         trust.NOT_PROVEN),
    "in the chain only": (RFC, b"ARC-" + AR, trust.NONE),
    "behind a bare CR": (RFC, b"X: y\r" + AR, trust.NONE),
    "in the body": (RFC, b"Subject: x\r\n\r\n" + AR, None),
    "exchange's, second": (EXO, results(b"dkim=none") + OF_EXCHANGE, trust.NOT_PROVEN),
    "exchange's, below another field": (EXO, b"X-Mailer: y\r\n" + OF_EXCHANGE, trust.NOT_FIRST),
    "exchange's, below another server's hop": (
        EXO, b"Received: from x by mx.example.net with SMTP; now\r\n" + OF_EXCHANGE, trust.NOT_FIRST),
    "exchange's, with a name": (EXO, AR, trust.UNREADABLE),
}  # fmt: skip


@pytest.mark.parametrize("shape", FORGED)
def test_nothing_else_is_believed(shape: str) -> None:
    """Neither another server's word, nor what stands below ours, nor what only looks like a result."""
    settings, top, finding = FORGED[shape]
    raw = top + mail(1)
    reading = READER.read_mail(raw, RULES)
    verdict = Judge(settings, READER, RULES).verdict(raw, reading, NOW, NOW)
    if finding is None:
        assert not isinstance(reading, Readable)
    else:
        assert verdict is not None
        assert (verdict.verified, verdict.check.finding) == (False, finding)
        assert verdict.check.domain is None


def test_a_mail_that_had_to_be_mended_is_not_proven() -> None:
    """What was noted, or signed, is the mail as it stood, which reads otherwise."""
    rules = replace(RULES, labels={"originator": ("Da",)})
    raw = AR + mail(1).replace(b"\r\n\r\nFrom:", b"\r\nno field\r\nDa:")
    verdict = judged(raw, RFC, rules=rules)
    assert isinstance(READER.read_mail(raw, rules), Readable)
    assert (verdict.verified, verdict.check.finding) == (False, trust.MENDED)
