"""The plan of an erasure, and the file that it is: what goes, in which batches, and no word of anybody."""

import hmac
import json
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select, union

from ingestor.archive import holds, tables
from ingestor.archive.columns import for_ids
from ingestor.archive.inserts import erased_among
from ingestor.archive.queries import is_erased
from ingestor.archive.rows import number_form
from ingestor.archive.tables import WholeSecond
from ingestor.errors import IngestorError
from ingestor.timestamps import iso_utc

_FORM: Final = "ingestor erasure plan 1"
_COUNTS: Final = ("sms", "arrivals", "payloads", "others", "beside")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to go. `numbers` are of `rows.number_key`; `before` (aware) is compared with `received_at`."""

    numbers: tuple[int, ...] = ()
    sms: tuple[int, ...] = ()
    before: datetime | None = None
    destination: str | None = None
    quarantine: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction takes, `others` by their kind, and the `state` of these when it was planned."""

    sms: list[int]
    quarantine: list[int]
    others: dict[str, list[int]]
    state: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes under one number, why, and what was left because of a hold; it holds no word of anybody."""

    id: str
    archive: str
    basis: str
    made_at: str
    selection: Selection
    batches: list[Batch]
    held_sms: list[int]
    held_quarantine: list[int]
    sms: int
    arrivals: int
    payloads: int
    others: int
    beside: int
    """SMS whose raw bytes go because they came in one POST with one of these; their content stays."""
    oldest: str | None
    newest: str | None

    def written(self) -> str:
        """Return the plan as the text of a file."""
        batches = [[ranges(one.sms), ranges(one.quarantine), one.others, one.state] for one in self.batches]
        before = self.selection.before
        said = {
            "form": _FORM, "plan": self.id, "archive": self.archive, "basis": self.basis,
            "made_at": self.made_at,
            "selection": {
                "number_keys": self.selection.numbers, "sms": ranges(self.selection.sms),
                "before": iso_utc(before) if before else None, "destination": self.selection.destination,
                "quarantine": ranges(self.selection.quarantine),
            },
            "counts": {name: getattr(self, name) for name in _COUNTS},
            "oldest": self.oldest, "newest": self.newest,
            "held": [ranges(self.held_sms), ranges(self.held_quarantine)], "batches": batches,
        }  # fmt: skip
        return json.dumps(said, indent=1) + "\n"

    @classmethod
    def read(cls, written: str) -> "Plan":
        """Return the plan that `written` gave. Raises ValueError where it is none."""
        try:
            said = json.loads(written)
            chosen = said["selection" if said["form"] == _FORM else "none"]
            before = chosen["before"]
            selection = Selection(
                tuple(chosen["number_keys"]), tuple(_whole(chosen["sms"])),
                datetime.fromisoformat(before) if before else None, chosen["destination"],
                tuple(_whole(chosen["quarantine"])),
            )  # fmt: skip
            held_sms, held_quarantine = map(_whole, said["held"])
            batches = [
                Batch(
                    _whole(sms), _whole(quarantine), {kind: list(others[kind]) for kind in others}, str(state)
                )
                for sms, quarantine, others, state in said["batches"]
            ]
            return cls(
                id=str(uuid.UUID(said["plan"])), archive=str(said["archive"]),
                basis=basis_code(said["basis"]), made_at=said["made_at"], selection=selection,
                batches=batches, held_sms=held_sms, held_quarantine=held_quarantine,
                oldest=said["oldest"], newest=said["newest"],
                **{name: int(said["counts"][name]) for name in _COUNTS},
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise ValueError("no plan of `ingestor erase plan`") from error


def basis_code(basis: str) -> str:
    """Return `basis` where it is a code. Raises ValueError: no word of a person may stay in the archive."""
    plain = basis.replace("-", "").replace("_", "").replace(".", "")
    digits = sum(map(str.isdigit, plain))
    if not (basis.isascii() and plain.isalnum() and basis[0].isalpha() and len(basis) <= 32 and digits <= 4):
        raise ValueError("a code has up to 32 letters, with - _ . and up to four digits, like gdpr-art17")
    return basis


def ranges(ids: Iterable[int]) -> list[list[int]]:
    """Return `ids` as first and last of each run: those of a year are mostly one."""
    found: list[list[int]] = []
    for number in sorted(ids):
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def _whole(ranges: Iterable[Sequence[int]]) -> list[int]:
    return [number for first, last in ranges for number in range(first, last + 1)]


def selected(connection: Connection, selection: Selection) -> list[int]:
    """Return the SMS that are to go and have content still, ascending."""
    sms, n = tables.sms.c, tables.sms_numbers.c
    query: Select[Any] = select(sms.id).where(~is_erased("sms", sms.id))
    if selection.numbers:
        halves = (select(n.sms_id).where(one.in_(selection.numbers)) for one in (n.originator, n.destination))
        query = query.where(sms.id.in_(union(*halves)))
    elif selection.before is not None:
        query = query.where(sms.received_at < bindparam(None, selection.before, WholeSecond))
        if selection.destination is not None:
            query = query.where(sms.destination == selection.destination)
    else:
        return sorted(number for (number,) in for_ids(connection, query, sms.id, selection.sms))
    return list(connection.execute(query.order_by(sms.id)).scalars())


def forms_of(connection: Connection, numbers: Sequence[str], sms: Sequence[int]) -> set[str]:
    """Return how `numbers` may be written in the archive: as the SMS on them, which are `sms`, have them."""
    if not numbers:
        return set()
    c, meant = tables.sms_content.c, {number_form(number) for number in numbers}
    query = select(c.originator, tables.sms.c.destination).join(tables.sms, tables.sms.c.id == c.sms_id)
    found = {one for row in for_ids(connection, query.distinct(), c.sms_id, sms) for one in row}
    return {
        *(one for one in found if number_form(one) in meant), *numbers,
        *(f"{before}{form}" for form in meant for before in ("+", "00", "")),
    }  # fmt: skip


def others_of(
    connection: Connection, secret: bytes, keys: Sequence[int], forms: Collection[str], sms: Sequence[int]
) -> dict[str, list[int]]:
    """Return what else says who is meant, by its kind: all of a number in its `forms`, and answers to `sms`
    with their reports."""
    hmacs = [hmac.digest(secret, b"number\0" + form.encode(), "sha256") for form in sorted(forms)]
    c, a = tables.consents.c, tables.answers.c
    r, d = tables.delivery_report_content.c, tables.delivery_reports.c

    def ids(query: Select[Any], column: ColumnElement[Any], wanted: Sequence[Any]) -> set[Any]:
        return {one for (one,) in for_ids(connection, query, column, wanted)}

    answers = ids(select(a.id), a.number_hmac, hmacs) | ids(select(a.id), a.sms_id, sms)
    names = ids(select(a.message_id), a.id, sorted(answers))
    reports = ids(select(r.report_id), r.destination, sorted(forms))
    reports |= ids(select(d.id), d.message_id, sorted(names))
    found = {
        "hold": holds.ended_for(connection, keys), "consent": ids(select(c.id), c.number_hmac, hmacs),
        "answer": answers, "report": reports,
    }  # fmt: skip
    return {
        kind: left
        for kind, all_ in found.items()
        if (left := sorted(set(all_) - erased_among(connection, kind, all_)))
    }


def require_known(connection: Connection, selection: Selection) -> None:
    a, sms = tables.arrivals.c, tables.sms.c
    stood = select(a.id).where(a.outcome == "quarantined")
    for what, query, column, ids in (
        ("SMS", select(sms.id), sms.id, selection.sms),
        ("arrival that stood in the quarantine", stood, a.id, selection.quarantine),
    ):
        unknown = sorted(set(ids) - {number for (number,) in for_ids(connection, query, column, ids)})
        if unknown:
            raise IngestorError(f"there is no {what} with id {', '.join(map(str, unknown[:5]))}")


def span(connection: Connection, sms: Sequence[int]) -> tuple[str | None, str | None]:
    received = tables.sms.c.received_at
    # An aggregate has no type of its own. Counted too: for a minimum alone PostgreSQL walks the index by time
    # until it meets one of `sms`.
    bounds = [one(received, type_=received.type) for one in (func.min, func.max)]
    query = select(*bounds, func.count())
    found = [row for row in for_ids(connection, query, tables.sms.c.id, sms) if row[2]]
    if not found:
        return None, None
    return iso_utc(min(row[0] for row in found)), iso_utc(max(row[1] for row in found))
