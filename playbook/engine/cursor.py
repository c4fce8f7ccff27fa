"""The cursor: which step the show is in, and when it was due.

* Deadlines are absolute, and the cursor carries the time at which a step was *due*, so waits do not drift. Only a delay that an audience
  would notice moves the schedule.
* `hold` lets nothing new begin. What is left of waits and time-outs stands still meanwhile, and what has an `at` moves by the time held.
* `jump` moves the whole timeline, so that the step it leads to is due when it is reached.

The cursor knows nothing of speech: a line is a step that somebody else says is over.
"""

from __future__ import annotations

from typing import Literal

from playbook.engine.effects import NOTICEABLE_MS, Effects
from playbook.events import Late, StepFinished, StepSkipped, StepStarted, TimelineZero, Timer
from playbook.model import Plan, Step

Outcome = Literal["done", "failed", "timeout", "cut", "skipped"]

HELD_TIMERS = (Timer.AT, Timer.WAIT, Timer.EVENT, Timer.TIMEOUT)
STEP_TIMERS = (*HELD_TIMERS, Timer.UNTIL)


class Cursor:
    """Walks through the steps of one plan."""

    def __init__(self, plan: Plan, effects: Effects) -> None:
        self._plan, self._effects = plan, effects
        self.step: Step | None = None
        """The step that the show is in, or whose own time has not come yet."""
        self.entered = False
        """Whether it has begun: its `at` has come."""
        self.task = ""
        """Its name among all the steps that are performed: the step's, and a number when it is performed again."""
        self.due_ms = 0
        """When the step was due; between two steps, when the next one is."""
        self.zero_ms = 0
        """Timeline zero, on the run's time."""
        self.held_since_ms: int | None = None
        """Since when nothing new begins."""
        self._origin_ms = 0  # of `at`: timeline zero, and what holds and jumps have moved it by
        self._left: dict[Timer, int] = {}  # of the step's timers, while they stand still
        self._index = -1
        self._jumped = False
        self._performed = [0] * len(plan.steps)  # how often each step was

    @property
    def held(self) -> bool:
        """Whether nothing new begins."""
        return self.held_since_ms is not None

    @property
    def over(self) -> bool:
        """There is no further step. (A plan ends with `end`; one that was put together by hand may not.)"""
        return self._index >= len(self._plan.steps)

    @property
    def standing_by(self) -> Step | None:
        """The step that comes next."""
        steps = self._plan.steps
        rest = range(self._index + 1, len(steps))
        return next((steps[index] for index in rest if steps[index].skipped is None), None)

    def begin(self, due_ms: int) -> None:
        """This is timeline zero."""
        self.zero_ms = self._origin_ms = self.due_ms = due_ms
        self._effects.add(TimelineZero())

    def next(self) -> Step | None:
        """Go to the next step: the one that is to be performed now. None: its time has not come yet, or there is none."""
        effects = self._effects
        while True:
            self._index += 1
            if self.over:
                return None
            step = self._plan.steps[self._index]
            if step.skipped is None:
                break
            effects.add(StepSkipped(step.id, step.skipped))
        self.step, self.entered = step, False
        if self._jumped:
            self._jumped = False
            self.due_ms = effects.now_ms
            self._origin_ms = effects.now_ms - (step.at_ms if step.at_ms is not None else self._plan.due_ms(self._index))
        if step.at_ms is not None:
            due = self._origin_ms + step.at_ms
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
        count = self._performed[self._index] = self._performed[self._index] + 1
        self.task = step.id if count == 1 else f"{step.id}~{count}"
        self._effects.add(StepStarted(step.id))
        if step.timeout_ms is not None:
            self._effects.start(step.id, Timer.TIMEOUT, self.due_ms + step.timeout_ms)

    def moved(self, due_ms: int | None = None) -> None:
        """The next step is due now, or was due then, where the delay is none that anybody would notice."""
        now = self._effects.now_ms
        self.due_ms = now if due_ms is None or now - due_ms >= NOTICEABLE_MS else due_ms

    def leave(self, outcome: Outcome, reason: str | None = None) -> None:
        """The step is over, if there is one."""
        step, self.step = self.step, None
        self._left = {}
        if step is None:
            return
        for timer in STEP_TIMERS:
            self._effects.cancel(step.id, timer)
        if self.entered:
            self._effects.add(StepFinished(step.id, outcome, reason))
        elif outcome == "skipped":
            self._effects.add(StepSkipped(step.id, reason or outcome))

    def jump(self, index: int) -> None:
        """The step at this place of the plan comes next."""
        self._index, self._jumped = index - 1, True

    def hold(self) -> None:
        """Nothing new begins, and what is left of the step's time stands still."""
        now = self._effects.now_ms
        self.held_since_ms = now
        for timer in HELD_TIMERS if self.step is not None else ():
            assert self.step is not None
            due = self._effects.timers.get((self.step.id, timer))
            if due is not None:
                self._left[timer] = due - now
                self._effects.cancel(self.step.id, timer)

    def resume(self) -> int:
        """The show goes on. Gives the time that it was held."""
        assert self.held_since_ms is not None
        now = self._effects.now_ms
        held, self.held_since_ms = now - self.held_since_ms, None
        self._origin_ms += held
        if self.step is None:
            self.due_ms = now
            return held
        self.due_ms += held
        for timer, left in self._left.items():
            self._effects.start(self.step.id, timer, now + max(left, 0))
        self._left = {}
        return held
