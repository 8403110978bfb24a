"""The quarantine as an intake: kept bytes are read again with today's parsers, and go to the one store."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from ingestor import providers
from ingestor.archive.columns import in_parts
from ingestor.archive.items import Item, Submission
from ingestor.archive.quarantine import Kept, Reader, kept_arrival, read_today, standing_ids
from ingestor.intake.mailbox.trust import unproven
from ingestor.providers.contract import Readable, Reading, Report, Rules, near_miss_in_words
from ingestor.record import Channel, Outcome

if TYPE_CHECKING:
    from ingestor.archive.store import Store

_BATCH = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a quarantined arrival; `reason` is set where it stays."""

    arrival_id: int
    outcome: Outcome
    reason: str | None


def todays_reader(rules_for: Callable[[str], Rules], strict: Collection[str] = ()) -> Reader:
    """Return a reader that asks today's parser of each arrival's provider; `rules_for` takes its name.

    Of a `strict` mailbox only mails proven when they came: today's DNS says nothing of that day.
    """

    def read(kept: Kept) -> Sequence[Reading]:
        rules = rules_for(kept.provider)
        raw = kept.raw or b""
        if kept.channel is Channel.WEBHOOK:
            from ingestor.providers import posts  # `quarantine list` reads none

            post = posts.post_of(raw, kept.content_type, kept.arrived_at)
            again = providers.post_reader(kept.provider).read_post(post, rules)
            if kept.provider not in providers.REPORT_READERS:
                return list[Reading](again)
            # The reports among them were stored then; what was none stands here by its place among those.
            return [one for one in again if not isinstance(one, Report)]
        reading = providers.mail_reader(kept.provider).read_mail(raw, rules)
        doubtful = kept.channel is Channel.MAILBOX and kept.source in strict and not kept.sender_verified
        if doubtful and isinstance(reading, Readable):
            return [unproven(reading, 'he was not when the mail came; policy = "record" lets it in')]
        return [reading]

    return read


def retry(
    store: "Store", reader: Reader, run_id: int | None, now: datetime, ids: Sequence[int] | None = None
) -> Iterator[Verdict]:
    """Read what stands in the quarantine again (`ids`: only these); give each verdict once it is durable.

    What is readable now becomes an SMS with its old provenance; every verdict is a row in `retries`, no
    arrival is changed. `now` is aware UTC.
    """
    standing = standing_ids(store.engine, ids)
    for numbers in in_parts(standing, _BATCH):
        items = [_read_again(store.engine, reader, number) for number in numbers]
        [receipt] = store.write([Submission(run_id, items)], now)
        for number, item, outcome in zip(numbers, items, receipt.outcomes, strict=True):
            yield Verdict(number, outcome, item.reason)


def _read_again(engine: Engine, reader: Reader, arrival_id: int) -> Item:
    """Return an arrival as it reads today; its raw bytes, many perhaps, are let go: they are kept already."""
    kept = kept_arrival(engine, arrival_id)
    return Item(
        reading=read_today(reader, kept), channel=kept.channel, source=kept.source, content_key=b"",
        arrived_at=kept.arrived_at, payload=None, number=kept.number, kept_key=kept.content_key,
        kept_place=kept.place,
    )  # fmt: skip


def reason_in_words(engine: Engine, arrival_id: int, reason: str) -> str:
    """Return one of NEAR_MISSES in words; who the stranger is, is told out of the arrival's kept bytes."""
    kept = kept_arrival(engine, arrival_id)
    who = providers.mail_reader(kept.provider).sender_shown(kept.raw) if kept.raw else "somebody"
    return near_miss_in_words(reason, who)
