"""Numbers and dates that a vendor sends, bounded before anything is computed with them.

JSON has integers of any length, numbers up to 1e308, and dates of any year; arithmetic with those raises `OverflowError`. Imports nothing
of the package.
"""

from __future__ import annotations

import datetime
from typing import Any

MOST_S = 1e6
"""The longest duration that a vendor may tell: eleven days."""


def seconds(value: Any, most: float = MOST_S) -> float | None:
    """A number of seconds from 0 to `most`; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:  # `nan` is neither
        return None
    return float(value)


def moment(value: Any) -> datetime.datetime | None:
    """A date of ISO 8601, in UTC where it names no zone; None for anything else."""
    try:
        found = datetime.datetime.fromisoformat(value)
        return found.replace(tzinfo=found.tzinfo or datetime.UTC).astimezone(datetime.UTC)
    except (ValueError, TypeError, OverflowError):
        return None
