"""Durations as people write them, in whole milliseconds.

`750ms`, `2s`, `1m30s`, `1h`, `1:30`, `1:02:03`, or a plain number of seconds. The schema's pattern says the same (a test compares them).
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache

MAX_MS = 7 * 24 * 3_600_000
EXAMPLES = "write 750ms, 2s, 1m30s, 1h, 1:30 or a number of seconds"

_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_UNITS = re.compile(rf"(?:({_NUMBER})h)?(?:({_NUMBER})m(?!s))?(?:({_NUMBER})s)?(?:({_NUMBER})ms)?")
_CLOCK = re.compile(r"(?:([0-9]{1,9}):(?=[0-5][0-9]:))?([0-9]{1,9}):([0-5][0-9](?:\.[0-9]{1,9})?)")
_SECONDS = re.compile(_NUMBER)
_UNIT_SECONDS: tuple[Decimal, ...] = (Decimal(3600), Decimal(60), Decimal(1), Decimal("0.001"))


def parse_duration(value: object) -> int:
    """Milliseconds, rounded half up. Raises `ValueError` with the reason in plain words."""
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("is not a duration")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is not a duration")
    return _in_bounds(Decimal(str(value) if isinstance(value, float) else value))


@lru_cache(maxsize=1024)
def _parse_text(text: str) -> int:
    """The same of text: a playbook has few durations, and each of them many times."""
    seconds = _parse(text)
    if seconds is None:
        raise ValueError("is negative" if re.match(r"-\s*[0-9.]", text) else "is not a duration")
    return _in_bounds(seconds)


def _in_bounds(seconds: Decimal) -> int:
    if seconds < 0:
        raise ValueError("is negative")
    if seconds * 1000 > MAX_MS:
        raise ValueError("is longer than seven days")
    return int((seconds * 1000).to_integral_value(ROUND_HALF_UP))


def _parse(text: str) -> Decimal | None:
    if _SECONDS.fullmatch(text):
        return Decimal(text)
    match = _UNITS.fullmatch(text) or _CLOCK.fullmatch(text)
    if not text or match is None:
        return None
    return sum(
        (Decimal(part) * factor for part, factor in zip(match.groups(), _UNIT_SECONDS, strict=False) if part),
        Decimal(0),
    )


_WORDED = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*([a-z]+)[\s,]*(?:and\s+)?")
"""A number with its unit, and what may stand before the next."""
_THOUSANDS = re.compile(r"[0-9],[0-9]{3}(?![0-9])")
_SAID: dict[str, str] = {
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "h"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "m"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "msecs", "milli", "millis", "millisecond", "milliseconds"), "ms"),
}
"""What units are called elsewhere, and what they are called here."""


def meant_duration(text: str) -> str:
    """How to write what is nearly a duration, `2 seconds` or `1,5s`; empty if nobody can be sure."""
    text = text.strip().lower()
    if len(text) > 60 or _THOUSANDS.search(text) or not re.fullmatch(f"(?:{_WORDED.pattern})+", text):
        return ""
    meant = "".join(number.replace(",", ".") + _SAID.get(unit, "?") for number, unit in _WORDED.findall(text))
    try:
        parse_duration(meant)
    except ValueError:
        return ""
    return meant


def show_duration(ms: int) -> str:
    """Milliseconds as an author would write them."""
    if ms < 1000:
        return f"{ms}ms"
    seconds, rest = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if minutes else ""
    if seconds or rest:
        text += f"{seconds}{f'.{rest:03d}'.rstrip('0') if rest else ''}s"
    return text
