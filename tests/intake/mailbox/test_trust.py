"""Whether a mail comes from whom it says: what proves it, and the shapes of spoofs, none of which may."""

import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import dkim
import pytest
from pydantic import ValidationError

from ingestor.intake.mailbox import signatures, trust
from ingestor.intake.mailbox.trust import Judge, Verdict, speaks_for
from ingestor.providers import mail_reader
from ingestor.providers.contract import Readable, Rules, Unreadable
from ingestor.settings import Mailbox, Trust
from tests.intake.mailbox.desk import RULES, mail
from tests.intake.mailbox.signing import AGILE, HEADERS, ed25519_key, retagged, rsa_key, signed
from tests.servers.name_server import NameServer

NOW = datetime.now(UTC)
READER = mail_reader("agile")
SENDER = b"smsin@agiletelecom.com"


@pytest.fixture
def names() -> Iterator[NameServer]:
    """A name server with a few keys of Agile's, and one of a stranger's."""
    with NameServer().running() as server:
        server.put("s1", rsa_key()[1])
        server.put("s2", rsa_key(2048)[1])
        server.put("ed", ed25519_key()[1])
        server.put("short", rsa_key(512)[1])
        server.put("revoked", b"v=DKIM1; k=rsa; p=")
        server.put("testing", rsa_key()[1] + b"; t=y")
        server.put("files", rsa_key()[1] + b"; s=tlsrpt")
        for domain in ("evil.example", "com", "agiletelecom.com.evil.example", "agiletelecorn.com"):
            server.put("s1", rsa_key()[1], domain)
        yield server


def read(raw: bytes, rules: Rules = RULES) -> Readable | Unreadable:
    """Return what the reader makes of a mail that is ours."""
    reading = READER.read_mail(raw, rules)
    assert isinstance(reading, Readable | Unreadable), reading
    return reading


def judged(raw: bytes, settings: Trust, received_at: datetime = NOW, rules: Rules = RULES) -> Verdict:
    """Return the verdict on a mail that came at `received_at`."""
    verdict = Judge(settings, READER, rules).verdict(raw, read(raw, rules), received_at, NOW)
    assert verdict is not None
    return verdict


def by_dkim(names: NameServer) -> Trust:
    return Trust(method="dkim", resolvers=(names.address,))


# What proves the sender

GOOD = {
    "rsa-sha256 relaxed": signed,
    "rsa-sha256 simple": lambda: signed(forms="simple/simple"),
    "mixed": lambda: signed(forms="relaxed/simple"),
    "2048 bits, the key in two strings": lambda: signed(key=rsa_key(2048)[0], selector="s2"),
    "ed25519": lambda: signed(key=ed25519_key()[0], selector="ed", signature_algorithm=b"ed25519-sha256"),
    "beside one of a stranger": lambda: signed(signed(), domain="evil.example", headers=[b"From"]),
    "beside a broken one": lambda: signed().replace(b"bh=", b"bh=AAAA", 1) and signed(
        signed(), selector="s1").replace(b"bh=", b"bh=AA", 1),
    "not yet expired": lambda: retagged(signed(), b"x=%d" % (NOW.timestamp() + 3600)),
    "a trace above it": lambda: b"Received: from a by b; now\r\n" + signed(),
    "what is not signed says nothing": lambda: signed(headers=[b"From"]),
    "From in other letters": lambda: signed(mail(1).replace(SENDER, b"Agile <SMSin@AgileTelecom.com>")),
}  # fmt: skip


@pytest.mark.parametrize("shape", GOOD)
def test_a_signature_of_agile_proves_it(names: NameServer, shape: str) -> None:
    """The verdict keeps domain, selector and the key as it was in the DNS that day."""
    verdict = judged(GOOD[shape](), by_dkim(names))

    selector = verdict.check.selector
    assert (verdict.verified, verdict.check.finding, verdict.check.domain) == (True, "pass", AGILE)
    assert verdict.check.public_key == b"".join(names.records[f"{selector}._domainkey.{AGILE}"][0]).decode()


def test_a_rotated_key_proves_what_it_signed(names: NameServer) -> None:
    """Both selectors count while both are in the DNS; the verdict tells which it was."""
    old, new = signed(), signed(key=rsa_key(2048)[0], selector="s2")
    found = [judged(raw, by_dkim(names)).check for raw in (old, new)]
    assert [one.selector for one in found] == ["s1", "s2"]
    assert found[0].public_key != found[1].public_key


@pytest.mark.parametrize("record", [
    lambda key: key.replace(b"k=rsa; ", b""),
    lambda key: key.removeprefix(b"v=DKIM1; "),
    lambda key: key.replace(b"; ", b" ;\t") + b" ; n=note; h=sha1:sha256; s=email; t=",
])  # fmt: skip
def test_keys_as_they_stand_in_the_dns(names: NameServer, record: Callable[[bytes], bytes]) -> None:
    """`k=` and `v=` may be missing, and blanks and further tags may stand there (RFC 6376 3.6.1)."""
    names.put("s1", record(rsa_key()[1]))
    assert judged(signed(), by_dkim(names)).verified is True


# Spoofs

AR = b"Authentication-Results: mx.example.org; dkim=pass header.d=agiletelecom.com\r\n"


def over_another_body() -> bytes:
    return signed().replace(b"text 1", b"text 2")


def from_changed(value: bytes) -> bytes:
    return signed(mail(1).replace(SENDER, b"x@evil.example"), domain="evil.example").replace(
        b"From: x@evil.example", b"From: " + value, 1
    )


SPOOFS = {
    "no signature": (lambda: mail(1), signatures.UNSIGNED),
    "two From, theirs first": (lambda: b"From: x@evil.example\r\n" + signed(), trust.NOT_A_SENDER),
    "two From, both Agile's": (lambda: b"From: smsin@agiletelecom.com\r\n" + signed(), trust.NOT_A_SENDER),
    "l=": (lambda: signed(length=True), signatures.IN_PART),
    "l= with text behind": (lambda: signed(length=True) + b"more\r\n", signatures.IN_PART),
    "a look-alike domain": (lambda: signed(domain="agiletelecorn.com"), signatures.OF_OTHERS),
    "Agile's name as a subdomain": (
        lambda: signed(domain="agiletelecom.com.evil.example"), signatures.OF_OTHERS),
    "a stranger's good signature": (lambda: signed(domain="evil.example"), signatures.OF_OTHERS),
    "a stranger's with our display name": (
        lambda: from_changed(b'"smsin@agiletelecom.com" <smsin@agiletelecom.com>'), signatures.OF_OTHERS),
    "the top domain": (lambda: signed(domain="com"), signatures.OF_OTHERS),
    "From not signed": (
        lambda: signed().replace(b"h=from : to", b"h=to"), signatures.NOT_FROM),
    "From in a group": (
        lambda: signed(mail(1).replace(SENDER, b"Agile: smsin@agiletelecom.com;")), trust.NOT_A_SENDER),
    "From encoded": (
        lambda: signed(mail(1).replace(SENDER, b"=?utf-8?q?smsin=40agiletelecom=2Ecom?= <x@evil.example>"),
                       domain="evil.example"), trust.NOT_A_SENDER),
    "Sender alone is ours": (
        lambda: signed(mail(1).replace(b"From: ", b"Sender: smsin@agiletelecom.com\r\nFrom: evil")),
        trust.NOT_A_SENDER),
    "Resent-From is ours": (
        lambda: signed(
            b"Resent-From: smsin@agiletelecom.com\r\n" + mail(1).replace(SENDER, b"x@evil.example"),
            domain="evil.example"), trust.NOT_A_SENDER),
    "expired": (lambda: retagged(signed(), b"x=%d" % (NOW.timestamp() - 60)), signatures.EXPIRED),
    "expired, by no number": (lambda: retagged(signed(), b"x=never"), signatures.MALFORMED),
    "512 bits": (lambda: signed(key=rsa_key(512)[0], selector="short"), signatures.WEAK),
    "a revoked key": (lambda: signed(selector="revoked"), signatures.REVOKED),
    "a key that is not there": (lambda: signed(selector="gone"), signatures.NO_KEY),
    "another's key": (lambda: signed(key=rsa_key(1024, 1)[0]), signatures.WRONG),
    "a key in testing": (lambda: signed(selector="testing"), signatures.NO_GOOD_KEY),
    "a key for something else": (lambda: signed(selector="files"), signatures.NO_GOOD_KEY),
    "a key of another kind": (lambda: signed(selector="ed"), signatures.NO_GOOD_KEY),
    "rsa-sha1": (lambda: signed(signature_algorithm=b"rsa-sha1"), signatures.ALGORITHM),
    "over another body": (over_another_body, signatures.WRONG),
    "a subject added after": (
        lambda: b"Subject: Agile Telecom -- SMS received\r\n" + signed(), signatures.TWICE),
    "a type added after": (
        lambda: b"Content-Type: multipart/mixed; boundary=x\r\n" + signed(), signatures.TWICE),
    "the type replaced": (
        lambda: signed(headers=[b"From"]).replace(b"text/plain; charset=utf-8", b"text/html"),
        signatures.NOT_CONTENT),
    "an encoding added": (
        lambda: b"Content-Transfer-Encoding: quoted-printable\r\n" + signed(), signatures.NOT_CONTENT),
    "a name of a file added": (
        lambda: b"Content-Disposition: attachment; filename=x.eml\r\n" + signed(), signatures.NOT_CONTENT),
    "a selector that is none": (lambda: signed().replace(b"s=s1", b"s=s..1"), signatures.MALFORMED),
    "blanks without end": (lambda: signed() + b" " * 2000 + b"x\r\n", signatures.ODD),
    "a signature without end": (lambda: signed().replace(b"b=", b"b=" + b"A" * 5000, 1), None),
    "header fields without end": (lambda: b"X: y\r\n" * 1001 + signed(), signatures.ODD),
    "no empty line behind the header": (lambda: signed(mail(1).replace(b"\r\n\r\n", b"\r\n", 1)), None),
    "a note of a server in its place": (lambda: AR + mail(1), signatures.UNSIGNED),
}  # fmt: skip


@pytest.mark.parametrize("shape", SPOOFS)
def test_no_spoof_is_proven(names: NameServer, shape: str) -> None:
    """Each is told apart by what failed, and none asks for the keys of anybody but Agile."""
    make, finding = SPOOFS[shape]
    raw = make()
    reading = READER.read_mail(raw, RULES)
    verdict = Judge(by_dkim(names), READER, RULES).verdict(raw, reading, NOW, NOW)

    if verdict is None:  # a near miss: it does not even say that it is ours
        assert reading.reason == "sender_not_listed"
        assert finding == trust.NOT_A_SENDER
    else:
        assert verdict.verified is False
        assert finding in (None, verdict.check.finding)
        assert verdict.check.domain in (None, AGILE)
    assert all(name.endswith(f"._domainkey.{AGILE}") for name in names.asked)


def test_a_forwarded_mail_is_judged_by_its_forwarder(names: NameServer) -> None:
    """The signature of the mail inside, and what a server noted there, say nothing of who sends it on."""
    inside = AR + signed()
    outer = (
        b"From: smsin@agiletelecom.com\r\nSubject: Fwd\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
        + inside + b"\r\n--b--\r\n"
    )  # fmt: skip
    assert isinstance(read(outer), Readable)
    assert judged(outer, by_dkim(names)).check.finding == signatures.UNSIGNED
    noted = Trust(method="rfc8601", authserv_id="mx.example.org")
    assert judged(outer, noted).check.finding == trust.NONE
    whole = [*HEADERS, b"MIME-Version"]
    assert judged(signed(outer, headers=whole), by_dkim(names)).verified is True


def test_expiry_counts_on_the_day_it_came(names: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`x=` is compared with the time when our mail server got the mail, not when we read it."""
    early = SimpleNamespace(time=lambda: NOW.timestamp() - 7200)
    monkeypatch.setattr(dkim, "time", early)
    raw = retagged(signed(), b"x=%d" % (NOW.timestamp() - 3600))
    monkeypatch.undo()
    assert judged(raw, by_dkim(names), NOW - timedelta(hours=2)).verified is True
    assert judged(raw, by_dkim(names), NOW - timedelta(minutes=30)).check.finding == signatures.EXPIRED


def test_of_old_mail_only_a_good_signature_tells(names: NameServer) -> None:
    """Keys are taken away and replaced: what fails by its key a week later is not told, and no spoof."""
    week_ago = NOW - timedelta(days=7)
    assert judged(signed(), by_dkim(names), week_ago).verified is True
    for raw in (signed(selector="gone"), signed(selector="revoked"), signed(key=rsa_key(1024, 1)[0])):
        verdict = judged(raw, by_dkim(names), week_ago)
        assert (verdict.verified, verdict.later) == (None, False)
        assert verdict.check.finding.endswith(signatures.TOO_OLD)
    assert judged(mail(1), by_dkim(names), week_ago).verified is False


# The DNS


def test_a_key_is_asked_for_once_in_its_time(names: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand mails ask once; after the record's TTL it is asked for again; no key is asked for soon."""
    now = time.monotonic()
    monkeypatch.setattr(signatures, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    judge, raws = Judge(by_dkim(names), READER, RULES), [signed(), signed(selector="gone")]

    for _ in range(20):
        found = [judge.verdict(raw, read(raw), NOW, NOW) for raw in raws]
        assert [one and one.verified for one in found] == [True, False]
    assert len(names.asked) == 2
    now += 20
    judge.verdict(raws[0], read(raws[0]), NOW, NOW)
    judge.verdict(raws[1], read(raws[1]), NOW, NOW)
    assert names.asked == [f"{one}._domainkey.{AGILE}" for one in ("s1", "gone", "gone")]
    now += 300
    judge.verdict(raws[0], read(raws[0]), NOW, NOW)
    assert len(names.asked) == 4


@pytest.mark.parametrize("how", ["silent", "fails"])
def test_a_name_server_that_is_away_is_waited_for_once(
    names: NameServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nothing is told then, which is no verdict; other mails do not wait, and it is asked again later."""
    now = time.monotonic()
    monkeypatch.setattr(signatures, "time", SimpleNamespace(monotonic=lambda: now, time=time.time))
    monkeypatch.setattr(signatures, "LOOK_UP_SECONDS", 0.3)
    setattr(names, how, True)
    judge = Judge(by_dkim(names), READER, RULES)
    raws = [signed(selector=f"k{number}") for number in range(20)]

    found = [judge.verdict(raw, read(raw), NOW, NOW) for raw in raws]

    assert {(one.verified, one.later, one.check.finding) for one in found if one is not None} == {
        (None, True, signatures.UNANSWERED)
    }
    assert set(names.asked) == {f"k0._domainkey.{AGILE}"}
    setattr(names, how, False)
    now += signatures.SILENT_SECONDS + 1
    verdict = judge.verdict(signed(), read(signed()), NOW, NOW)
    assert verdict is not None
    assert verdict.verified is True


def test_two_keys_under_one_name_are_none(names: NameServer) -> None:
    """Which of them would count is not defined (RFC 6376 3.6.2.2); other records beside it do not matter."""
    name = f"s1._domainkey.{AGILE}"
    names.records[name] += [[b"v=spf1 -all"]]
    assert judged(signed(), by_dkim(names)).verified is True
    names.records[name] += [[rsa_key(1024, 1)[1]]]
    assert judged(signed(), by_dkim(names)).check.finding == signatures.NO_KEY


# Domains


@pytest.mark.parametrize(
    ("domain", "sender", "speaks"),
    [
        ("agiletelecom.com", "smsin@agiletelecom.com", True),
        ("AgileTelecom.com", "smsin@AGILETELECOM.COM", True),
        ("agiletelecom.com", "smsin@mail.agiletelecom.com", True),
        ("mail.agiletelecom.com", "smsin@agiletelecom.com", False),
        ("xagiletelecom.com", "smsin@agiletelecom.com", False),
        ("com", "smsin@agiletelecom.com", False),
        ("", "smsin@agiletelecom.com", False),
        (".com", "smsin@agiletelecom.com", False),
        ("co.uk", "sms@agile.co.uk", False),
        ("com.br", "sms@agile.com.br", False),
        ("agile.co.uk", "sms@mail.agile.co.uk", True),
        ("mi.it", "sms@agile.mi.it", False),
        ("own.it", "sms@list.own.it", True),
    ],
)
def test_who_may_speak_for_a_sender(domain: str, sender: str, speaks: bool) -> None:
    """His domain, or one above it; never a public suffix; a short domain where another sender is of it."""
    assert speaks_for(sender, frozenset({sender, "x@own.it"}), domain) is speaks


# The settings


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"method": "rfc8601"}, "go together"),
        ({"authserv_id": "mx"}, "go together"),
        ({"method": "exchange-online"}, "outlook.office365.com"),
        ({"resolvers": ["name.example"]}, "IP address"),
        ({"resolvers": ["127.0.0.1:0"]}, "port"),
        ({"method": "rfc8601", "authserv_id": "mx", "resolvers": ["::1"]}, "resolvers are for"),
    ],
)
def test_settings_that_make_no_sense(table: dict[str, object], says: str) -> None:
    """Each is told in words."""
    box = {"name": "m", "host": "imap.example.org", "username": "u", "password": "p", "trust": table}
    with pytest.raises(ValidationError, match=says):
        Mailbox.model_validate(box)


def test_exchange_online_is_for_its_own_hosts() -> None:
    """The mailbox must be there, as the note has no name to be known by."""
    box = {"name": "m", "username": "u", "password": "p", "trust": {"method": "exchange-online"}}
    for host in ("outlook.office365.com", "Outlook.Office365.com.", "partner.outlook.cn"):
        Mailbox.model_validate({**box, "host": host})
    with pytest.raises(ValidationError):
        Mailbox.model_validate({**box, "host": "outlook.office365.com.evil.example"})


def test_what_is_proven_says_what_was_signed(names: NameServer) -> None:
    """However a signed mail is changed on its way: it raises nothing, and is not proven or says the same."""
    judge, rng = Judge(by_dkim(names), READER, RULES), random.Random(3)
    originals = [signed(), signed(headers=[b"From"]), signed(forms="simple/simple")]
    same = read(originals[0]).sms  # type: ignore[union-attr]  # it is readable
    pieces = [
        *(
            b"\r\n",
            b"\r",
            b"\n",
            b" ",
            b"\t",
            b":",
            b";",
            b"From: x\r\n",
            b"Body: x\r\n",
            b"\0",
            b"=?",
            b"--",
        ),
        *(b"Content-Type: text/html\r\n", b"Content-Transfer-Encoding: base64\r\n", b"\r\n\r\n"),
    ]
    proven = 0
    for _ in range(1500):
        raw = rng.choice(originals)
        for _ in range(rng.randint(1, 3)):
            at, cut = rng.randrange(len(raw)), rng.choice((0, 0, 1, 30))
            raw = raw[:at] + rng.choice([*pieces, rng.randbytes(1), b""]) + raw[at + cut :]
        reading = READER.read_mail(raw, RULES)
        if not isinstance(reading, Readable | Unreadable):
            continue
        verdict = judge.verdict(raw, reading, NOW, NOW)
        if verdict is not None and verdict.verified and isinstance(reading, Readable):
            proven += 1
            one = reading.sms
            said = [(x.originator, x.destination, x.date_time, *x.text.split()) for x in (one, same)]
            assert said[0] == said[1]  # to `relaxed` any number of blanks is one
    assert proven > 30
