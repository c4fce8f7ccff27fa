"""The show, while it is performed: steps are entered and left, lines begin and end, and signals move it.

It brings the cursor and the ledger together. What becomes of the session when the show is over, has failed or must stop is for whoever owns
the session's life (`Life`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from playbook.engine.cursor import Cursor, Outcome
from playbook.engine.effects import NOTICEABLE_MS, Effects
from playbook.engine.ledger import Ledger
from playbook.engine.utterances import Utterance, Utterances
from playbook.errors import near
from playbook.events import SIGNALS, ProviderFailed, Signal, StopRequested, TaskAccepted, Timer, TimerFired, Trigger
from playbook.model import AudioEcho, End, InterruptSpeech, Plan, Say, Step, Wait, WaitEvent, WaitSpeech

Phase = Literal["opening", "starting", "running", "stopping", "closing", "done"]
Ending = Literal["passed", "failed", "stopped", "error"]


class Life(Protocol):
    """The session's life around a show."""

    phase: Phase
    why: str
    """What the session is closed for, once speech has stopped."""

    def begin_timeline(self, due_ms: int) -> None:
        """The show begins."""

    def show_held(self) -> None:
        """Time does not count to the show any more."""

    def show_resumed(self) -> None:
        """Time counts to the show again."""

    def drained(self) -> None:
        """The show is over, and everything has been said."""

    def stop_requested(self, event: StopRequested) -> None:
        """Somebody wants it to stop."""

    def conclude(self, end: Ending, code: int, reason: str | None = None, step: str | None = None) -> None:
        """This is how the run ended, unless something else was said before."""

    def stop(self, reason: str) -> None:
        """Stop speaking, then close."""

    def close(self, reason: str, *, lost: bool = False) -> None:
        """Order the end of the session."""


class Show:
    """The steps and lines of one plan."""

    def __init__(self, plan: Plan, effects: Effects, life: Life) -> None:
        self._plan, self._effects, self._life = plan, effects, life
        self.cursor = Cursor(plan, effects)
        self.lines = Utterances(effects)
        self.ledger = Ledger(plan, effects, self.lines)
        self.awaits: str | None = None
        """The trigger that is waited for."""
        self.clearing = False
        """The show goes on as soon as nothing is open any more."""
        self._interrupted = 0  # how often signals have interrupted

    def advance(self) -> None:
        """Move on until a step has to wait for something."""
        while self._life.phase == "running" and not self.cursor.held and not self.clearing:
            step = self.cursor.next()
            if step is None:
                if self.cursor.over:
                    self._life.close("end")
                return
            if not self._perform(step):
                return

    def _perform(self, step: Step) -> bool:
        """Perform a step; whether it is already over."""
        cursor, effects, action = self.cursor, self._effects, step.action
        cursor.enter(step)
        if isinstance(action, Wait):
            due = cursor.due_ms + action.duration_ms
            if due > effects.now_ms:
                effects.start(step.id, Timer.WAIT, due)
                return False
            cursor.due_ms = due
            return self.leave("done")
        if isinstance(action, (Say, AudioEcho)):
            self.ledger.say(step, cursor.task)
        elif isinstance(action, WaitSpeech):
            return not self.lines.open and self.leave("done")
        elif isinstance(action, WaitEvent):
            self.awaits = action.event
            if action.timeout_ms is not None:
                effects.start(step.id, Timer.EVENT, cursor.due_ms + action.timeout_ms)
        elif isinstance(action, InterruptSpeech):
            self.ledger.interrupt(step, cursor.task)
        elif not action.drain:
            self.leave("done")
            self._life.stop("end")
        elif not self.lines.open:
            self._life.drained()
        return False

    def leave(self, outcome: Outcome, reason: str | None = None) -> bool:
        """Finish the current step, if there is one. Always True, for `_perform`'s sake."""
        self.awaits = None
        self.cursor.leave(outcome, reason)
        return True

    def _finish(self, due_ms: int | None = None) -> None:
        """The current step is done; go on. `due_ms` is when that was due, where it was due at a time."""
        self.cursor.moved(due_ms)
        self.leave("done")
        self.advance()

    def _fail_step(self, step: Step, outcome: Literal["failed", "timeout"], reason: str) -> None:
        """A step did not work: its `on_error` decides what becomes of the run."""
        if step is self.cursor.step:
            self.leave(outcome, reason)
            if step.on_error == "continue":
                self.cursor.moved()
                self.advance()
        if step.on_error == "fail" and self._life.phase == "running":
            self.leave("cut", reason)
            self._life.conclude("failed", 1, reason, step.id)
            self._life.stop("a step failed")

    def trigger(self, event: Trigger) -> None:
        if event.trigger != self.awaits:
            meant = near(event.trigger, (*SIGNALS, *([self.awaits] if self.awaits else [])))
            hint = f"; did you mean '{meant}'?" if meant and event.trigger not in SIGNALS else ""
            return self._effects.ignore(f"nothing waits for the trigger '{event.trigger}'{hint}")
        return self._life.begin_timeline(self._effects.now_ms) if self._life.phase == "starting" else self._finish()

    # --- signals ----------------------------------------------------------------------------------------------------

    def signal(self, event: Signal) -> None:
        if self._life.phase in ("closing", "done") or (self._life.phase == "stopping" and event.name != "end"):
            return self._effects.ignore("the session was being closed")
        if event.name == "end":
            return self._life.stop_requested(StopRequested(f"the signal 'end' of {event.source}"))
        if self._life.phase != "running":
            return self._effects.ignore("the show has not begun")
        if (None, Timer.TAIL) in self._effects.timers:
            return self._effects.ignore("the show is over")
        return _SIGNALS[event.name](self, event)

    def _hold(self, _: Signal) -> None:
        if self.cursor.held:
            return self._effects.ignore("the show is held")
        self.cursor.hold()
        return self._life.show_held()

    def _resume(self, _: Signal) -> None:
        if not self.cursor.held:
            return self._effects.ignore("the show is not held")
        self.cursor.resume()
        self._life.show_resumed()
        return self.advance() if self.cursor.step is None else None

    def _skip(self, event: Signal) -> None:
        if self.cursor.step is None:
            return self._effects.ignore("no step is being performed")
        return self._cut_to(event, None)

    def _goto(self, event: Signal) -> None:
        index = None if event.step is None else self._plan.index(event.step)
        if index is None:
            if not event.step:
                return self._effects.ignore("no step was named")
            meant = near(event.step, [step.id for step in self._plan.steps])
            hint = f"; did you mean '{meant}'?" if meant else ""
            return self._effects.ignore(f"there is no step '{event.step}'{hint}")
        skipped = self._plan.steps[index].skipped
        if skipped is not None:
            return self._effects.ignore(f"the step '{event.step}' is skipped: {skipped}")
        return self._cut_to(event, index)

    def _cut_to(self, event: Signal, index: int | None) -> None:
        """Leave the step, interrupt what is being said, and go on when nothing is: with the next step, or with the one at `index`."""
        self.leave("skipped", event.name if event.step is None else f"{event.name} {event.step}")
        if index is not None:
            self.cursor.jump(index)
        if self.lines.open:
            self.clearing = True
            self._interrupt(event.name)
        else:
            self.cursor.moved()
            self.advance()

    def _interrupt(self, signal: str) -> None:
        """Stop what is being said, where that is possible: else it is said to its end."""
        if self._plan.capabilities.interrupt != "none" and not all(line.stopping for line in self.lines.open.values()):
            self._interrupted += 1
            self.ledger.interrupt(None, f"~{signal}-{self._interrupted}")

    def _panic(self, event: Signal) -> None:
        if self.lines.open:
            self._interrupt(event.name)
        elif self.cursor.held:
            return self._effects.ignore("nothing is being said, and the show is held")
        return None if self.cursor.held else self._hold(event)

    # --- what happens to steps and lines ----------------------------------------------------------------------------

    def step_timer(self, event: TimerFired, late: int) -> None:
        step = self.cursor.step
        assert step is not None
        if event.reason is Timer.AT:
            self.cursor.due_ms = self._effects.now_ms if late >= NOTICEABLE_MS else event.due_ms
            if self._perform(step):
                self.advance()
        elif event.reason is Timer.TIMEOUT:
            self._fail_step(step, "timeout", f"took longer than {step.timeout_ms} ms")
        elif event.reason is Timer.EVENT:
            assert isinstance(step.action, WaitEvent)
            if step.action.on_timeout == "continue":
                self._finish(event.due_ms)
            else:
                self._fail_step(step, "timeout", f"the trigger '{step.action.event}' did not come")
        else:  # wait, until
            self._finish(event.due_ms)

    def accepted(self, event: TaskAccepted) -> None:
        if event.task in self.ledger.interrupts:
            return self._interrupt_acknowledged(event.task)
        return self.ledger.accepted(event)

    def follow(self) -> None:
        """Whatever waited for what has happened to an utterance goes on."""
        moments = self.lines.moments
        while moments:
            _FOLLOWS[(moment := moments.pop(0)).what](self, moment.utterance)

    def _after_accept(self, utterance: Utterance) -> None:
        if utterance.step is self.cursor.step and utterance.step.until == "accepted":
            self._finish()

    def _after_start(self, utterance: Utterance) -> None:
        step = utterance.step
        if step is self.cursor.step:
            if step.until == "started":
                self._finish()
            elif isinstance(step.until, int):
                begun_ms = self._effects.now_ms if utterance.started_ms is None else utterance.started_ms
                self._effects.start(step.id, Timer.UNTIL, max(self._effects.now_ms, begun_ms + step.until))

    def _after_close(self, utterance: Utterance) -> None:
        step = self.cursor.step
        if self._life.phase == "stopping":
            if not self.lines.open:
                self._life.close(self._life.why)
        elif self.clearing and not self.lines.open:
            self.clearing = False
            self.cursor.moved()
            self.advance()
        elif step is None or self._life.phase != "running":
            return
        elif step is utterance.step:
            if not isinstance(step.until, int) or utterance.started_ms is None:
                self._finish()
        elif self.cursor.entered:
            self._after_speech(step)

    def _after_speech(self, step: Step) -> None:
        """A line was closed while the show is in a step that may have waited for that."""
        ledger, action = self.ledger, step.action
        if isinstance(action, InterruptSpeech):
            if self.cursor.task not in ledger.interrupts and not ledger.stopping:
                self._finish()
        elif self.lines.open:
            return
        elif isinstance(action, WaitSpeech):
            self._finish()
        elif isinstance(action, End):
            self._life.drained()

    def failed(self, event: ProviderFailed, task: str) -> None:
        if task in self.ledger.interrupts:
            return self._interrupt_failed(task, event.reason)
        utterance = self.ledger.failed(task, event.outcome == "refused")
        if utterance is not None and self._life.phase == "running" and not self.clearing:
            self._fail_step(utterance.step, "failed", event.reason)
        return None

    def _interrupt_acknowledged(self, task: str) -> None:
        step = self.ledger.interrupts[task]
        still = self.ledger.acknowledged(task)
        if self._life.phase == "stopping":
            if not still:
                self._life.close(self._life.why)
        elif still:
            self.ledger.await_effect(task)
        elif step is not None and step is self.cursor.step:
            self.lines.moments.clear()
            self._finish()

    def _interrupt_failed(self, task: str, reason: str) -> None:
        """Nothing was stopped: the lines go on. The step that asked for it fails, unless the show has gone on without it."""
        step = self.ledger.interrupts[task]
        if step is None and self._life.phase == "stopping":
            return self._life.close(reason)
        self.ledger.refused(task)
        if step is not None and step is self.cursor.step:
            return self._fail_step(step, "failed", reason)
        return self._effects.ignore("the show had gone on without this interrupt", task)


_FOLLOWS: dict[str, Callable[[Show, Utterance], None]] = {
    "accepted": Show._after_accept,
    "started": Show._after_start,
    "closed": Show._after_close,
}

_SIGNALS: dict[str, Callable[[Show, Signal], None]] = {
    "hold": Show._hold,
    "resume": Show._resume,
    "skip": Show._skip,
    "goto": Show._goto,
    "panic": Show._panic,
}
