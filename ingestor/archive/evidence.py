"""What an SMS was made of, beside what it became: are the bytes those that arrived, and read as they were?"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from ingestor.archive.quarantine import Reader, kept_arrival, read_today
from ingestor.archive.queries import Evidence
from ingestor.archive.rows import details_json
from ingestor.providers.contract import Unreadable
from ingestor.record import InboundSms


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is to be said of an arrival's kept bytes; None where there is nothing to say.

    `damaged`: they are no longer what arrived. `read_otherwise`: today's reader makes another record of
    them; it names the columns, or why it makes none. The record in the archive stays what it is.
    """

    damaged: str | None = None
    read_otherwise: str | None = None


def doubts(engine: Engine, evidence: Evidence, reader: Reader) -> dict[int, Doubt]:
    """Return by its id what is to be said of each arrival of an SMS; of most there is nothing.

    `reader` is asked about the arrival that the SMS was made of, the others say the same in other words.
    """
    found = {}
    for arrival in evidence.arrivals:
        if arrival["payload_size"] is None:
            continue
        try:
            kept = kept_arrival(engine, arrival["id"])
        except ValueError as fault:
            found[arrival["id"]] = Doubt(damaged=str(fault))
            continue
        makes = arrival["outcome"] == "stored" or arrival["read_by_retry"]
        if not makes or not kept.whole or evidence.content is None:
            continue
        today = read_today(reader, kept)
        if isinstance(today, Unreadable):
            found[arrival["id"]] = Doubt(read_otherwise=f"as no SMS: {today.reason}")
        elif differ := _differing({**evidence.sms, **evidence.content}, today.sms):
            found[arrival["id"]] = Doubt(read_otherwise=", ".join(differ))
    return found


def _differing(row: Mapping[str, Any], sms: InboundSms) -> list[str]:
    """Return the columns in which `sms` is another one than the archive has in `row`."""
    today = sms._asdict() | {"details": json.loads(details_json(sms.details))}
    stored = {**row, "details": json.loads(row["details"])}
    return [name for name in InboundSms._fields if stored[name] != today[name]]
