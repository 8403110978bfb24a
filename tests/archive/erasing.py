"""What the tests of erasures share: her SMS and his, by each way, and how they are erased."""

import itertools
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from ingestor.archive import erasure
from ingestor.archive.engine import open_engine, sqlite_path
from ingestor.archive.erasure_plan import Plan, Selection
from ingestor.archive.inserts import read_archive_key
from ingestor.archive.items import Item, Submission
from ingestor.archive.rows import number_key
from ingestor.archive.store import Store
from ingestor.providers.contract import Readable
from ingestor.record import Channel, InboundSms, Outcome
from tests.archive.reading import number_of
from tests.archive.samples import NOW, PARSER, item, payload, sms

HER, HIS = "+393335550001", "+393335550002"
SECRET_TEXT = "Ihr Termin, 4711-Kennwort"


def hers(number: int, originator: str = HER, **changed: Any) -> InboundSms:
    values = {"originator": originator, "originator_raw": originator, "text": f"{SECRET_TEXT} {number}"}
    return sms(number, **{**values, **changed})


def mail(number: int, originator: str = HER, channel: Channel = Channel.MAILBOX, **changed: Any) -> Item:
    raw = f"Subject: from {originator} no. {number}\n\n{SECRET_TEXT} {number} {'filler ' * 20}\n".encode()
    reading = Readable(hers(number, originator), PARSER, f"<{number}@her.example>", f"from {originator}")
    return item(number, channel=channel, **{"reading": reading, "raw": raw, **changed})


def post(number: int, identity: int, originator: str = HER, peer: str = "192.0.2.77", at: int = 0) -> Item:
    body = f"text={SECRET_TEXT} {number}".encode()
    made = item(
        number, channel=Channel.WEBHOOK, reading=Readable(hers(number, originator), "agile.form/1"),
        content_key=bytes([identity] * 6 + [0x70] + [identity] * 9), payload=None if at else payload(body),
        peer=peer,
    )  # fmt: skip
    return made._replace(number=at)


def write(engine: Engine, *items: Item) -> tuple[Outcome, ...]:
    return Store(engine).write([Submission(None, items)], NOW)[0].outcomes


def planned(engine: Engine, basis: str = "gdpr-art17", **chosen: Any) -> Plan:
    secret = read_archive_key(engine)
    numbers = chosen.pop("numbers", ())
    keys = tuple(number_key(one, secret) for one in numbers)
    return erasure.plan(engine, secret, Selection(numbers=keys, **chosen), basis, NOW, numbers)


def applied(engine: Engine, plan: Plan) -> erasure.Done:
    *_, done = erasure.apply(engine, read_archive_key(engine), plan, lambda: NOW, pause=0)
    return done


def erased(engine: Engine, **chosen: Any) -> erasure.Done:
    return applied(engine, planned(engine, **chosen))


def content(engine: Engine) -> list[int]:
    """Count the rows of each table of content."""
    names = ("sms_content", "sms_numbers", "arrival_content", "payloads")
    return [number_of(engine, name) for name in names]


def all_bytes(engine: Engine) -> bytes:
    path = sqlite_path(engine.url)
    assert path is not None
    return b"".join(one.read_bytes() for one in sorted(path.parent.glob(f"{path.name}*")))


def apply_on(url: str, plan: str, begun: Event, most: int) -> None:
    """Do up to `most` steps of what the file `plan` says, in a process that is killed meanwhile."""
    engine = open_engine(url)
    steps = erasure.apply(engine, read_archive_key(engine), Plan.read(Path(plan).read_text()), lambda: NOW)
    next(steps)
    begun.set()
    for _ in itertools.islice(steps, most):
        pass
    time.sleep(60)
