"""What one event leads to: the time at which it is handled, the effects so far, and the timers that run."""

from __future__ import annotations

from playbook.events import CancelTimer, Effect, Ignored, StartTimer, Timer

NOTICEABLE_MS = 250
"""A delay from which on the schedule is moved instead of caught up: hurrying after it would crowd the lines that follow."""


class Effects:
    """Cursor, ledger and engine write here. A timer is named by its step (None: the run's own) and by what it is for."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.timers: dict[tuple[str | None, Timer], int] = {}
        self._out: list[Effect] = []

    def begin(self, at_ms: int) -> None:
        """An event that happened at this time is handled from here on."""
        self.now_ms = at_ms
        self._out = []

    def add(self, effect: Effect) -> None:
        """This follows."""
        self._out.append(effect)

    def ignore(self, reason: str, task: str | None = None) -> None:
        """The event means nothing now."""
        self.add(Ignored(reason, task))

    def when(self, ago_ms: int | None) -> int:
        """When something was true that is told now: not in the future, and not before the run began."""
        return min(self.now_ms, max(0, self.now_ms - (ago_ms or 0)))

    def taken(self) -> tuple[Effect, ...]:
        """All that followed."""
        return tuple(self._out)

    def start(self, step: str | None, timer: Timer, due_ms: int) -> None:
        """Start a timer, or start it anew."""
        self.timers[step, timer] = due_ms
        self.add(StartTimer(step, timer, due_ms))

    def cancel(self, step: str | None, timer: Timer) -> None:
        """Forget a timer, if it runs."""
        if self.timers and self.timers.pop((step, timer), None) is not None:
            self.add(CancelTimer(step, timer))

    def cancel_all(self) -> None:
        """Forget them all."""
        for step, timer in list(self.timers):
            self.cancel(step, timer)
