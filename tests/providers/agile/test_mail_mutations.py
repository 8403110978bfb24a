"""Mails of the corpus with bytes flipped, cut, doubled and spliced: no exception, and both lanes agree."""

import os
from collections import Counter
from random import Random

from tests.providers.agile.corpus import MAILS, read_both
from tests.sample_mails import generate

MUTANTS = int(os.environ.get("INGESTOR_TEST_MUTANTS", "4000"))
_TOKENS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b"\xff", b"=", b"=?", b"?=", b'"', b";", b"--b1", b"--", b"<",
    b">", b":", b" ", b"\t", b"\xc2\xa0", b"\xed\xa0\xbd", b"&#", b"From: ", b"To: ", b"Body: ",
    b"Content-Type: text/html\r\n", b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Type: multipart/mixed; boundary=b1\r\n", b"charset*0*=",
    b"; format=flowed", b"(", b"\\", b"From smsin@agiletelecom.com\n",
)  # fmt: skip


def _mutant(random: Random, corpus: list[bytes]) -> bytes:
    raw = bytearray(random.choice(corpus))
    for _ in range(random.randint(1, 4)):
        at, length = random.randrange(len(raw) + 1), random.choice((1, 1, 2, 8, 40, 200))
        match random.randrange(6):
            case 0:
                raw[at : at + 1] = bytes((random.randrange(256),))
            case 1:
                del raw[at : at + length]
            case 2:
                raw[at:at] = raw[at : at + length]
            case 3:
                raw[at:at] = random.choice(_TOKENS)
            case 4:
                other = random.choice(corpus)
                start = random.randrange(len(other) + 1)
                raw[at:at] = other[start : start + length]
            case _:
                if random.random() < 0.2:
                    del raw[at:]
    return bytes(raw)


def test_no_mutant_raises_and_the_lanes_agree() -> None:
    """Thousands of damaged mails each end in one of the three readings, the same by either lane."""
    random = Random(20260514)
    corpus = [path.read_bytes() for path in MAILS if path.stat().st_size < 8000]
    corpus += [mail.raw for mail in generate(60, seed=5) if len(mail.raw) < 8000]
    kinds: Counter[str] = Counter()
    for number in range(MUTANTS):
        mutant = _mutant(random, corpus)
        try:
            reading = read_both(mutant)
        except AssertionError as fault:
            raise AssertionError(f"mutant {number}: {mutant!r}") from fault
        kinds[type(reading).__name__] += 1
        assert getattr(reading, "reason", "") != "the parser failed on this mail", mutant
    assert set(kinds) == {"Readable", "Unreadable", "NotOurs"}
    assert min(kinds.values()) > MUTANTS // 20
