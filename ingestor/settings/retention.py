"""`[retention]`: how long what arrived is kept."""

from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from ingestor.providers.contract import Section, Text, left_out

_UNITS = {"d": 1, "m": 1, "y": 12}
_MOST = 9999


def period(written: str) -> str:
    """Return a period such as 90d, 18m or 10y."""
    number, unit = written[:-1], written[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdecimal() and 0 < int(number) <= _MOST):
        raise ValueError("is no period like 90d (days), 18m (months) or 10y (years)")
    return written


def before(written: str, now: datetime) -> datetime:
    """Return the moment up to which what arrived is older than the period, counted back from `now`."""
    number = int(written[:-1])
    if written.endswith("d"):
        return now - timedelta(days=number)
    months = now.year * 12 + now.month - 1 - number * _UNITS[written[-1]]
    year, month = max(1, months // 12), months % 12 + 1
    for day in range(now.day, 27, -1):  # the 31st of a month that has none
        try:
            return now.replace(year=year, month=month, day=day)
        except ValueError:
            continue
    return now.replace(year=year, month=month, day=min(now.day, 28))


Period = Annotated[str, AfterValidator(period)]


class KeepRule(Section):
    """Other periods, for numbers of ours or for providers: the first rule that fits an SMS counts."""

    optional = True

    destination: Text | None = left_out("+393331234333", "Only SMS to this number.")
    provider: Text | None = left_out("infobip", "Only SMS of this provider.")
    keep: Period = Field(examples=["2y"], description="How long they are kept.")

    @model_validator(mode="after")
    def _for_something(self) -> Self:
        if self.destination is None and self.provider is None:
            raise ValueError("needs a destination or a provider; for all SMS there is retention.keep")
        return self


class Retention(Section):
    """How long content is kept: 90d, 18m or 10y. Times, counts and hashes stay, whatever is erased."""

    keep: Period | None = left_out("10y", "How long SMS are kept. Left out: for ever.")
    quarantine: Period | None = left_out(
        "90d", "How long what could not be read is kept. Left out: for ever."
    )
    apply: bool = Field(
        default=False,
        description="Erase each day what is older. Else the daemon only says each day what would go.",
    )
    rule: tuple[KeepRule, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether anything is ever to go."""
        return bool(self.keep or self.quarantine or self.rule)
