"""What a kiosk spends, day by day, and what its budget still allows. Estimates: a provider's price a minute, for as
long as a session was open. Pure: the time is given."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from playbook.language import total_ms
from playbook.model import Plan


@dataclass(slots=True)
class Purse:
    """The money of one day, in the kiosk's zone."""

    per_day: float | None
    zone: ZoneInfo
    spent: float = 0.0
    _day: dt.date | None = None
    _unwritten: float = 0.0

    def restore(self, entries: Iterable[dict[str, Any]], now: dt.datetime) -> None:
        """Take up what was spent today before the kiosk was started again."""
        self._turn(now)
        today = str(self._day)
        self.spent = sum(entry.get("cost", 0.0) for entry in entries if str(entry.get("at", "")).startswith(today))

    def spend(self, plan: Plan, open_ms: int, now: dt.datetime) -> None:
        """A session of this plan was open for so long."""
        self._turn(now)
        cost = _cost(plan, open_ms)
        self.spent += cost
        self._unwritten += cost

    def is_too_dear(self, plan: Plan, now: dt.datetime) -> bool:
        """Whether a show would exceed what the day may cost."""
        self._turn(now)
        if self.per_day is None:
            return False
        return self.spent >= self.per_day or self.spent + _cost(plan, total_ms(plan)) > self.per_day

    def lasts_ms(self, price_per_minute: float, now: dt.datetime) -> int | None:
        """For how long the day's money pays such a price; None: for ever."""
        self._turn(now)
        if self.per_day is None or price_per_minute <= 0:
            return None
        return max(0, int((self.per_day - self.spent) / price_per_minute * 60_000))

    def unwritten(self) -> float:
        """What was spent since this was asked the last time."""
        cost, self._unwritten = round(self._unwritten, 6), 0.0
        return cost

    def _turn(self, now: dt.datetime) -> None:
        day = now.astimezone(self.zone).date()
        if day != self._day:
            self._day, self.spent = day, 0.0


def _cost(plan: Plan, ms: int) -> float:
    return (plan.capabilities.price_per_minute or 0.0) * ms / 60_000
