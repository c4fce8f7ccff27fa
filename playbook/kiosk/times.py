"""When shows are due by cron: `0 9-17 * * mon-fri` in the kiosk's zone.

Summer time is `cronsim`'s: a time that is left out comes at the next that there is, one that comes twice comes once.
Pure: the time is given.
"""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
}
"""What cron calls the usual times."""


class Times:
    """The moments of a cron expression. Raises `ValueError` with the reason when it is none, or never comes."""

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        self._written = expression
        self._expression = ALIASES.get(expression.strip(), expression)
        self._zone = zone
        if len(self._expression.split()) != 5:
            raise ValueError("needs five fields: minute, hour, day, month, day of the week")
        try:
            found = self.after(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        except CronSimError as error:
            raise ValueError(f"cannot be read: {str(error)[:1].lower()}{str(error)[1:]}") from error
        if found is None:
            raise ValueError("never comes")

    def __str__(self) -> str:
        return self._written

    def after(self, now: dt.datetime) -> dt.datetime | None:
        """The first moment after `now`, in UTC; None when there is none within fifty years."""
        for local in CronSim(self._expression, now.astimezone(self._zone)):
            found = local.astimezone(dt.UTC)
            if found > now:  # within an hour that the clock repeats, cronsim begins with its first round, which is over
                return found
        return None
