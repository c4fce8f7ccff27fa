"""What happens at a date in a rehearsal: signals (`motion@2026-03-24T10:00`) and faults
(`outage:tavus@2026-03-24T11:00+20m`).

Dates without an offset are in the kiosk's zone. A fault without a vendor strikes all of them.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from playbook.formats.durations import parse_duration

FAULTS = {
    "outage": "the service is away: sessions that live end, and none can be had",
    "quota": "no session can be had: the quota is used up",
}
_DATED = re.compile(r"(?P<name>[^@\s]+)@(?P<at>[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]+)?)(?P<rest>\+.+)?")


@dataclass(frozen=True, slots=True)
class Dated:
    """A signal at a moment, or a fault that begins then and lasts for `for_ms`; `rung` is the vendor that it
    strikes, None: all."""

    name: str
    at: dt.datetime
    for_ms: int | None = None
    rung: str | None = None


def read_signal(text: str, zone: ZoneInfo) -> Dated:
    """Read `NAME@DATE`. Raises `ValueError`."""
    found = _DATED.fullmatch(text)
    if found is None or found["rest"]:
        raise ValueError(f"'{text}' is no dated signal; write NAME@2026-03-24T10:00")
    return Dated(found["name"], read_date(found["at"], zone))


def read_fault(text: str, zone: ZoneInfo) -> Dated:
    """Read `NAME[:PROVIDER]@DATE+DURATION`. Raises `ValueError`."""
    found = _DATED.fullmatch(text)
    name, _, rung = (found["name"] if found else "").partition(":")
    if found is None or not found["rest"]:
        raise ValueError(f"'{text}' is no dated fault; write outage@2026-03-24T11:00+20m")
    if name not in FAULTS:
        raise ValueError(f"'{name}' is no dated fault; there are {', '.join(FAULTS)}")
    return Dated(name, read_date(found["at"], zone), read_span(found["rest"][1:]), rung or None)


def read_date(text: str, zone: ZoneInfo) -> dt.datetime:
    """A date and time, in UTC. Raises `ValueError`."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"'{text}' is no date and time; write 2026-03-24T10:00") from error
    return (found if found.tzinfo is not None else found.replace(tzinfo=zone)).astimezone(dt.UTC)


def read_span(text: str) -> int:
    """A duration, or days: `7d`, in milliseconds. Raises `ValueError`."""
    if found := re.fullmatch(r"([0-9]{1,4})d", text):
        return int(found[1]) * 24 * 3_600_000
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f"'{text}' {error}; write 7d, 12h or 20m") from error
