"""The plan of an erasure, and the file that it is: what goes, in which batches, and no word of anybody."""

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

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
    """What one transaction takes: SMS, arrivals of the quarantine, and `others`: kind and ids of what says
    who is meant by an opt-out or by a hold that has ended.

    `state` says what belonged to them when the plan was made; what became of them since changes it.
    """

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
