"""The sample mailboxes: the same for the same seed, in the promised mix, with the right answers."""

from collections import Counter
from itertools import islice

from tests.sample_mails import BROKEN, NUMBERS, UNRELATED, VARIANTS, generate


def test_the_same_seed_gives_the_same_mailbox() -> None:
    """Everything follows from the seed; a shorter mailbox is the beginning of a longer one."""
    assert list(generate(50, seed=9)) == list(generate(50, seed=9))
    assert list(generate(50, seed=9)) == list(islice(generate(80, seed=9), 50))
    assert list(generate(50, seed=9)) != list(generate(50, seed=10))


def test_the_mix_is_the_promised_one() -> None:
    """All variants occur, about 3.6 KB each, three in ten are other people's, and some SMS come again."""
    mails = list(generate(3000, seed=4))
    kinds = Counter(mail.kind for mail in mails)
    assert {mail.variant for mail in mails} == {*VARIANTS, *UNRELATED, *BROKEN}
    assert 800 < kinds["unrelated"] < 1000
    assert 10 < kinds["broken"] < 60
    distinct = {tuple(mail.expected.values()) for mail in mails if mail.expected}
    assert 20 < kinds["sms"] - len(distinct) < 100
    assert 20 < len(mails) - len({mail.raw for mail in mails}) < 60
    ordinary = [len(mail.raw) for mail in mails if mail.kind != "broken"]
    assert 3000 < sum(ordinary) / len(ordinary) < 4000


def test_shares_can_be_switched_off() -> None:
    """Without unrelated, broken and repeated mails there are as many SMS as mails, all to our numbers."""
    mails = list(generate(200, seed=2, unrelated=0, broken=0, duplicates=0))
    expected = [mail.expected for mail in mails if mail.expected]
    assert len({tuple(sms.values()) for sms in expected}) == 200
    assert {sms["destination"] for sms in expected} == set(NUMBERS)
    assert all(b"\n" not in mail.raw.replace(b"\r\n", b"") for mail in mails)
