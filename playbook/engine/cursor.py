"""The cursor: which step the show is in, and when it was due.

Deadlines are absolute, and the cursor carries the time at which a step was *due*, so waits do not drift. Only a delay that an
audience would notice moves the schedule. The cursor knows nothing of speech: a line is a step that somebody else says is over.
"""

from __future__ import annotations

from typing import Literal

from playbook.engine.effects import NOTICEABLE_MS, Effects
from playbook.events import Late, StepFinished, StepSkipped, StepStarted, TimelineZero, Timer
from playbook.model import Plan, Step

Outcome = Literal["done", "failed", "timeout", "cut"]

STEP_TIMERS = (Timer.AT, Timer.WAIT, Timer.EVENT, Timer.UNTIL, Timer.TIMEOUT)


class Cursor:
    """Walks through the steps of one plan."""

    def __init__(self, plan: Plan, effects: Effects) -> None:
        self._steps, self._effects = plan.steps, effects
        self.step: Step | None = None
        """The step that the show is in, or whose own time has not come yet."""
        self.entered = False
        """Whether it has begun: its `at` has come."""
        self.due_ms = 0
        """When the step was due; between two steps, when the next one is."""
        self.zero_ms = 0
        """Timeline zero, on the run's time."""
        self._index = -1

    @property
    def over(self) -> bool:
        """There is no further step. (A plan ends with `end`; one that was put together by hand may not.)"""
        return self._index >= len(self._steps)

    def begin(self, due_ms: int) -> None:
        """This is timeline zero."""
        self.zero_ms = self.due_ms = due_ms
        self._effects.add(TimelineZero())

    def next(self) -> Step | None:
        """Go to the next step: the one that is to be performed now. None: its time has not come yet, or there is none."""
        effects = self._effects
        while True:
            self._index += 1
            if self.over:
                return None
            step = self._steps[self._index]
            if step.skipped is None:
                break
            effects.add(StepSkipped(step.id, step.skipped))
        self.step, self.entered = step, False
        if step.at_ms is not None:
            due = self.zero_ms + step.at_ms
            if due > effects.now_ms:
                effects.start(step.id, Timer.AT, due)
                return None
            if self.due_ms > due:
                effects.add(Late(step.id, due, effects.now_ms - due))
            else:
                self.due_ms = due
        return step

    def enter(self, step: Step) -> None:
        """The step begins."""
        self.entered = True
        self._effects.add(StepStarted(step.id))
        if step.timeout_ms is not None:
            self._effects.start(step.id, Timer.TIMEOUT, self.due_ms + step.timeout_ms)

    def moved(self, due_ms: int | None = None) -> None:
        """The next step is due now, or was due then, where the delay is none that anybody would notice."""
        now = self._effects.now_ms
        self.due_ms = now if due_ms is None or now - due_ms >= NOTICEABLE_MS else due_ms

    def leave(self, outcome: Outcome, reason: str | None = None) -> Step | None:
        """The step is over, if there is one. Gives it."""
        step, self.step = self.step, None
        if step is not None:
            for timer in STEP_TIMERS:
                self._effects.cancel(step.id, timer)
            if self.entered:
                self._effects.add(StepFinished(step.id, outcome, reason))
        return step
