"""When a kiosk is open: hours of the week, days with other hours, in a time zone.

Local times become moments by two rules. A time that summer time leaves out is the moment at which the clock is set
forward. Of a time that comes twice, a kiosk opens at the first and closes at the second. Pure: the time is given.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MIN = 24 * 60
HORIZON_DAYS = 400
"""How far ahead anybody looks for the next opening: hours of the week come again within a week, unless a year of
exceptions hides them."""

Range = tuple[int, int]
"""Minutes since midnight; the end is more than a day's when the hours go past midnight."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Opening hours. `week` begins on Monday; None means that the kiosk is always open. `days` are those with hours
    of their own."""

    zone: ZoneInfo
    week: tuple[tuple[Range, ...], ...] | None = None
    days: Mapping[dt.date, tuple[Range, ...]] = field(default_factory=dict)

    def state(self, now: dt.datetime) -> tuple[bool, dt.datetime | None]:
        """Whether it is open now, and the moment when that changes (None: not within `HORIZON_DAYS`)."""
        if self.week is None:
            return True, None
        for begin, end in self.spans(now):
            if begin <= now:
                return True, end
            return False, begin
        return False, None

    def spans(self, now: dt.datetime) -> Iterator[tuple[dt.datetime, dt.datetime]]:
        """The times of opening that end after `now`, in order; those that meet are one."""
        today = now.astimezone(self.zone).date()
        pending: tuple[dt.datetime, dt.datetime] | None = None
        for offset in range(-1, HORIZON_DAYS):
            for begin, end in self._of_day(today + dt.timedelta(days=offset)):
                if end <= now or end <= begin:
                    continue
                if pending is None:
                    pending = (begin, end)
                elif begin <= pending[1]:
                    pending = (pending[0], max(pending[1], end))
                else:
                    yield pending
                    pending = (begin, end)
        if pending is not None:
            yield pending

    def open_minutes(self, day: dt.date) -> int:
        """For how many minutes the kiosk is open that begins on this day, by the clock on the wall."""
        if self.week is None:
            return DAY_MIN
        return sum(end - begin for begin, end in self._ranges(day))

    def _of_day(self, day: dt.date) -> Iterator[tuple[dt.datetime, dt.datetime]]:
        for begin, end in sorted(self._ranges(day)):
            yield moment(day, begin, self.zone, fold=0), moment(day, end, self.zone, fold=1)

    def _ranges(self, day: dt.date) -> tuple[Range, ...]:
        if day in self.days:
            return self.days[day]
        return () if self.week is None else self.week[day.weekday()]


def moment(day: dt.date, minute: int, zone: ZoneInfo, *, fold: int = 0) -> dt.datetime:
    """The moment of a local time, in UTC."""
    extra, minute = divmod(minute, DAY_MIN)
    clock = dt.time(minute // 60, minute % 60, fold=fold)
    local = dt.datetime.combine(day + dt.timedelta(days=extra), clock, zone)
    while (there := local.astimezone(dt.UTC)).astimezone(zone).replace(tzinfo=None) != local.replace(tzinfo=None):
        local += dt.timedelta(minutes=1)  # left out: on to the first that there is
    return there


def read_range(text: str) -> Range | None:
    """`HH:MM-HH:MM` in minutes; None when both times are equal."""
    first, _, last = text.partition("-")
    begin, end = _minute(first.strip()), _minute(last.strip())
    if begin == end:
        return None
    return begin, end if end > begin else end + DAY_MIN


def _minute(text: str) -> int:
    hours, _, minutes = text.partition(":")
    return int(hours) * 60 + int(minutes)


def read_days(key: str) -> tuple[int, ...]:
    """The days of the week that a key names: `sat`, or `fri-mon` across the weekend."""
    first, _, last = key.partition("-")
    begin, end = DAYS.index(first), DAYS.index(last or first)
    return tuple(day % 7 for day in range(begin, (end if end >= begin else end + 7) + 1))


def read_dates(text: str) -> tuple[dt.date, ...] | None:
    """The days of `DATE` or `DATE..DATE`; None when one of them is no date, they are in the wrong order or are more
    than a year's."""
    first, _, last = text.partition("..")
    try:
        begin = dt.date.fromisoformat(first)
        end = dt.date.fromisoformat(last) if last else begin
    except ValueError:
        return None
    count = (end - begin).days + 1
    return tuple(begin + dt.timedelta(days=n) for n in range(count)) if 0 < count <= 366 else None
