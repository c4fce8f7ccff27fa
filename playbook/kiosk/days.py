"""What the log of a kiosk says of each day: shows, minutes on each rung, silence, cost, failures with their causes.

Pure: entries in, days out.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from playbook.kiosk.proof import Entry


@dataclass(slots=True)
class Day:
    """One day, by the kiosk's own calendar."""

    date: str
    open_ms: int = 0
    shows: Counter[str] = field(default_factory=Counter)
    """How often each show was performed to its end."""
    broken: Counter[str] = field(default_factory=Counter)
    """How often each show was not."""
    rung_ms: Counter[str] = field(default_factory=Counter)
    """How long each rung performed."""
    silences: int = 0
    """How many shows changed the rung while a line was being said."""
    silence_ms: int = 0
    """The longest silence that this made."""
    cost: float = 0.0
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Why rungs were left, by rung and cause."""
    refused: Counter[str] = field(default_factory=Counter)
    """Why shows were refused."""
    starts: int = 0
    """How often the kiosk was started, or started again."""

    def to_json(self) -> dict[str, Any]:
        """As data."""
        return {
            "date": self.date,
            "open_ms": self.open_ms,
            "shows": dict(self.shows),
            "not_to_the_end": dict(self.broken),
            "rung_ms": dict(self.rung_ms),
            "silences": self.silences,
            "longest_silence_ms": self.silence_ms,
            "cost": round(self.cost, 4),
            "failures": [{"rung": rung, "cause": cause, "count": count} for (rung, cause), count in self.failures.items()],
            "refused": dict(self.refused),
            "starts": self.starts,
        }


def days_of(log: Iterable[Entry]) -> list[Day]:
    """Every day that the log tells of, in order."""
    days: dict[str, Day] = {}
    opened: dt.datetime | None = None
    for entry in log:
        if "event" not in entry:
            continue
        at = dt.datetime.fromisoformat(entry["at"])
        day = days.setdefault(entry["at"][:10], Day(entry["at"][:10]))
        day.cost += entry.get("cost", 0.0)
        event = entry["event"]
        if event == "opened":
            day.starts += entry["cause"] != "hours"
            opened = at
        elif event in ("closed", "stopped") and opened is not None:
            _count_open(days, opened, at)
            opened = None
        elif event == "show":
            _count_show(day, entry)
        elif event == "refused":
            day.refused[entry["cause"]] += 1
    return [days[date] for date in sorted(days)]


def _count_show(day: Day, entry: Entry) -> None:
    (day.shows if entry["end"] == "passed" else day.broken)[entry["show"]] += 1
    for run in entry["runs"]:
        day.rung_ms[run["rung"]] += run["ms"]
        if "cause" in run and (run is not entry["runs"][-1] or entry["end"] == "error"):
            day.failures[run["rung"], run["cause"]] += 1
    if "silence_ms" in entry:
        day.silences += 1
        day.silence_ms = max(day.silence_ms, entry["silence_ms"])


def _count_open(days: dict[str, Day], opened: dt.datetime, closed: dt.datetime) -> None:
    """The hours of an opening, which may go past midnight."""
    begin = opened
    while begin < closed:
        midnight = (begin + dt.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        end = min(midnight, closed)
        day = days.setdefault(f"{begin:%Y-%m-%d}", Day(f"{begin:%Y-%m-%d}"))
        day.open_ms += round((end - begin).total_seconds() * 1000)
        begin = end
