"""The door of the engine: `begin` once, then `handle` for every event until `done`.

* There is one cursor. A line is at once a step (which the cursor leaves when its `until` is reached) and an utterance (which lives until
  exactly one `speech_ended` closes it); `cursor` and `ledger` keep the two apart, and that is how speech and the timeline overlap.
* Every path ends with exactly one `CloseSession`, unless no session was ever opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from playbook.engine.cursor import STEP_TIMERS, Cursor, Outcome
from playbook.engine.effects import NOTICEABLE_MS, Effects
from playbook.engine.ledger import INTERRUPT_TIMERS, Ledger
from playbook.engine.utterances import SPEECH_TIMERS, Utterance, Utterances
from playbook.errors import near
from playbook.events import (
    SIGNALS,
    CloseSession,
    Effect,
    Event,
    Late,
    OpenSession,
    ProviderFailed,
    SessionClosed,
    SessionOpened,
    Signal,
    Silence,
    Sound,
    SourceJoined,
    SourceLeft,
    SpeechEnded,
    SpeechStarted,
    StopCause,
    StopRequested,
    TaskAccepted,
    Timer,
    TimerFired,
    Trigger,
    ViewerJoined,
    ViewerLeft,
)
from playbook.model import AudioEcho, End, Evidence, InterruptSpeech, Plan, Say, Step, Wait, WaitEvent, WaitSpeech

STOP_MS = 2_000
"""How long a run that must stop waits for its speech to stop before it closes the session."""

Phase = Literal["opening", "starting", "running", "stopping", "closing", "done"]
Ending = Literal["passed", "failed", "stopped", "error"]


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. `end` and `exit_code` as in the run log and the README's table."""

    end: Ending
    exit_code: int
    reason: str | None = None
    step: str | None = None


_STOPPED: dict[StopCause, tuple[Literal["failed", "cut"] | None, Ending, int]] = {
    StopCause.INTERRUPT: ("cut", "stopped", 130),
    StopCause.TERMINATE: ("cut", "stopped", 143),
    StopCause.STALL: ("failed", "failed", 1),
    StopCause.NOBODY: (None, "error", 5),
    StopCause.DISK: ("cut", "error", 4),
}
"""By what wants a run to stop: the outcome of its step, its end, and its exit code."""
LIMITS = (Timer.MAX_DURATION, Timer.MAX_WAIT, Timer.MAX_SESSION)


class Engine:
    """Performs one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.phase: Phase = "opening"
        self.result: Result | None = None
        self._effects = Effects()
        self._cursor = Cursor(plan, self._effects)
        self._lines = Utterances(self._effects)
        self._ledger = Ledger(plan, self._effects, self._lines)
        self._awaits: str | None = None  # a trigger's name
        self._viewers: set[str] = set()
        self._clearing = False  # the show goes on as soon as nothing is open any more
        self._interrupted = 0  # how often signals have interrupted
        self._wait_ms = plan.limits.wait_ms  # what is left of it
        self._show_ms = plan.limits.max_duration_ms  # what is left of it, while it does not run
        self._waited_since = 0
        self._why = "end"  # what the session is closed for, once speech has stopped

    # --- the door ---------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Nothing will be commanded any more."""
        return self.phase == "done"

    @property
    def stalled_on(self) -> str | None:
        """The trigger without which nothing can ever happen again; None while something else still can."""
        awaits = "resume" if self._cursor.held else self._awaits
        if awaits is None or self._lines.open or any(timer not in LIMITS for _, timer in self._effects.timers):
            return None
        return awaits

    @property
    def awaits(self) -> str | None:
        """The trigger that is waited for, which `go` gives."""
        return self._awaits

    @property
    def held(self) -> bool:
        """Whether nothing new begins until somebody resumes the show."""
        return self._cursor.held

    @property
    def next_step(self) -> Step | None:
        """The step that stands by."""
        return self._cursor.standing_by

    @property
    def current_step(self) -> Step | None:
        """The step the cursor is in."""
        return self._cursor.step

    @property
    def timeline_zero_ms(self) -> int:
        """Timeline zero, on the run's time."""
        return self._cursor.zero_ms

    def begin(self) -> tuple[Effect, ...]:
        """The first command of every run."""
        return (OpenSession(),)

    def handle(self, event: Event, at_ms: int) -> tuple[Effect, ...]:
        """Take one event that happened at `at_ms` (never less than before) and say what follows from it."""
        self._effects.begin(at_ms)
        _HANDLERS[type(event)](self, event)
        self._follow()
        return self._effects.taken()

    # --- session ----------------------------------------------------------------------------------------------------

    def _on_session_opened(self, _: SessionOpened) -> None:
        if self.phase != "opening":
            return self._effects.ignore("no session was being opened")
        self.phase = "starting"
        now, start = self._effects.now_ms, self.plan.start
        if (limit := session_limit_ms(self.plan)) is not None:
            self._effects.start(None, Timer.MAX_SESSION, now + limit)
        if start.waits and not (start.kind == "viewer" and self._viewers):
            self._awaits = "go"
            self._begin_wait()
        elif start.kind == "delay" and start.delay_ms > 0:
            self._effects.start(None, Timer.START, now + start.delay_ms)
        else:
            self._begin_timeline(now)
        return None

    def _begin_timeline(self, due_ms: int) -> None:
        if self._awaits is not None:
            self._end_wait()
        self._awaits = None
        self.phase = "running"
        self._cursor.begin(due_ms)
        self._run_show()
        self._advance()

    def _begin_wait(self) -> None:
        """From now on the session waits, which it may do for so long in all."""
        self._waited_since = self._effects.now_ms
        if self._wait_ms is not None:
            self._effects.start(None, Timer.MAX_WAIT, self._effects.now_ms + self._wait_ms)

    def _end_wait(self) -> None:
        if self._wait_ms is not None:
            self._wait_ms = max(0, self._wait_ms - (self._effects.now_ms - self._waited_since))
            self._effects.cancel(None, Timer.MAX_WAIT)

    def _run_show(self) -> None:
        """From now on time counts to the show."""
        if self._show_ms is not None:
            self._effects.start(None, Timer.MAX_DURATION, self._effects.now_ms + self._show_ms)

    def _on_viewer_joined(self, event: ViewerJoined) -> None:
        self._viewers.add(event.viewer)
        if self.phase == "starting" and self.plan.start.kind == "viewer":
            self._begin_timeline(self._effects.now_ms)

    def _on_viewer_left(self, event: ViewerLeft) -> None:
        if event.viewer not in self._viewers:
            return self._effects.ignore(f"{event.viewer} had not joined")
        return self._viewers.remove(event.viewer)

    def _on_session_closed(self, event: SessionClosed) -> None:
        if self.phase != "closing":
            return self._effects.ignore("nobody asked for the session to be closed")
        if event.status == "failed":
            self._conclude("error", 4, event.reason or "the session could not be ended")
        else:
            self._conclude("passed", 0)
        self.phase = "done"
        return None

    def _on_provider_failed(self, event: ProviderFailed) -> None:
        if event.task is not None:
            return self._task_failed(event, event.task)
        if self.phase in ("closing", "done"):
            return self._effects.ignore("the session was being closed")
        opening = self.phase == "opening"
        self._leave("failed", event.reason)
        self._conclude("error", 4, event.reason)
        if opening and event.session is None:
            self.phase = "done"
        else:
            self._close("could not be opened" if opening else "session lost", lost=not opening)
        return None

    def _on_stop_requested(self, event: StopRequested) -> None:
        if self.phase in ("closing", "done"):
            return self._effects.ignore("the session was being closed")
        outcome, end, code = _STOPPED[event.cause]
        if outcome is not None:
            self._leave(outcome, event.reason)
        self._conclude(end, code, event.reason)
        if self.phase in ("opening", "stopping"):
            self._close(event.reason)
        else:
            self._stop(event.reason)
        return None

    # --- the timeline -----------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Move on until a step has to wait for something."""
        while self.phase == "running" and not self._cursor.held and not self._clearing:
            step = self._cursor.next()
            if step is None:
                if self._cursor.over:
                    self._close("end")
                return
            if not self._perform(step):
                return

    def _perform(self, step: Step) -> bool:
        """Perform a step; whether it is already over."""
        cursor, effects, action = self._cursor, self._effects, step.action
        cursor.enter(step)
        if isinstance(action, Wait):
            due = cursor.due_ms + action.duration_ms
            if due > effects.now_ms:
                effects.start(step.id, Timer.WAIT, due)
                return False
            cursor.due_ms = due
            return self._leave("done")
        if isinstance(action, (Say, AudioEcho)):
            self._ledger.say(step, cursor.task)
        elif isinstance(action, WaitSpeech):
            return not self._lines.open and self._leave("done")
        elif isinstance(action, WaitEvent):
            self._awaits = action.event
            if action.timeout_ms is not None:
                effects.start(step.id, Timer.EVENT, cursor.due_ms + action.timeout_ms)
        elif isinstance(action, InterruptSpeech):
            self._ledger.interrupt(step, cursor.task)
        elif not action.drain:
            self._leave("done")
            self._stop("end")
        elif not self._lines.open:
            self._drained()
        return False

    def _leave(self, outcome: Outcome, reason: str | None = None) -> bool:
        """Finish the current step, if there is one. Always True, for `_perform`'s sake."""
        self._awaits = None
        self._cursor.leave(outcome, reason)
        return True

    def _finish(self, due_ms: int | None = None) -> None:
        """The current step is done; go on. `due_ms` is when that was due, where it was due at a time."""
        self._cursor.moved(due_ms)
        self._leave("done")
        self._advance()

    def _fail_step(self, step: Step, outcome: Literal["failed", "timeout"], reason: str) -> None:
        """A step did not work: its `on_error` decides what becomes of the run."""
        if step is self._cursor.step:
            self._leave(outcome, reason)
            if step.on_error == "continue":
                self._cursor.moved()
                self._advance()
        if step.on_error == "fail" and self.phase == "running":
            self._leave("cut", reason)
            self._conclude("failed", 1, reason, step.id)
            self._stop("a step failed")

    def _on_trigger(self, event: Trigger) -> None:
        if event.trigger != self._awaits:
            meant = near(event.trigger, (*SIGNALS, *([self._awaits] if self._awaits else [])))
            hint = f"; did you mean '{meant}'?" if meant and event.trigger not in SIGNALS else ""
            return self._effects.ignore(f"nothing waits for the trigger '{event.trigger}'{hint}")
        return self._begin_timeline(self._effects.now_ms) if self.phase == "starting" else self._finish()

    # --- signals ----------------------------------------------------------------------------------------------------

    def _on_signal(self, event: Signal) -> None:
        if self.phase in ("closing", "done") or (self.phase == "stopping" and event.name != "end"):
            return self._effects.ignore("the session was being closed")
        if event.name == "end":
            return self._on_stop_requested(StopRequested(f"the signal 'end' of {event.source}"))
        if self.phase != "running":
            return self._effects.ignore("the show has not begun")
        if (None, Timer.TAIL) in self._effects.timers:
            return self._effects.ignore("the show is over")
        return _SIGNALS[event.name](self, event)

    def _hold(self, _: Signal) -> None:
        if self._cursor.held:
            return self._effects.ignore("the show is held")
        self._cursor.hold()
        if self._show_ms is not None and (due := self._effects.timers.get((None, Timer.MAX_DURATION))) is not None:
            self._show_ms = max(0, due - self._effects.now_ms)
            self._effects.cancel(None, Timer.MAX_DURATION)
        return self._begin_wait()

    def _resume(self, _: Signal) -> None:
        if not self._cursor.held:
            return self._effects.ignore("the show is not held")
        self._cursor.resume()
        self._end_wait()
        self._run_show()
        return self._advance() if self._cursor.step is None else None

    def _skip(self, event: Signal) -> None:
        if self._cursor.step is None:
            return self._effects.ignore("no step is being performed")
        return self._cut_to(event, None)

    def _goto(self, event: Signal) -> None:
        index = None if event.step is None else self.plan.index(event.step)
        if index is None:
            if not event.step:
                return self._effects.ignore("no step was named")
            meant = near(event.step, [step.id for step in self.plan.steps])
            hint = f"; did you mean '{meant}'?" if meant else ""
            return self._effects.ignore(f"there is no step '{event.step}'{hint}")
        skipped = self.plan.steps[index].skipped
        if skipped is not None:
            return self._effects.ignore(f"the step '{event.step}' is skipped: {skipped}")
        return self._cut_to(event, index)

    def _cut_to(self, event: Signal, index: int | None) -> None:
        """Leave the step, interrupt what is being said, and go on when nothing is: with the next step, or with the one at `index`."""
        self._leave("skipped", event.name if event.step is None else f"{event.name} {event.step}")
        if index is not None:
            self._cursor.jump(index)
        if self._lines.open:
            self._clearing = True
            self._interrupt(event.name)
        else:
            self._cursor.moved()
            self._advance()

    def _interrupt(self, signal: str) -> None:
        """Stop what is being said, where that is possible: else it is said to its end."""
        if self.plan.capabilities.interrupt != "none" and not all(line.stopping for line in self._lines.open.values()):
            self._interrupted += 1
            self._ledger.interrupt(None, f"~{signal}-{self._interrupted}")

    def _panic(self, event: Signal) -> None:
        if self._lines.open:
            self._interrupt(event.name)
        elif self._cursor.held:
            return self._effects.ignore("nothing is being said, and the show is held")
        return None if self._cursor.held else self._hold(event)

    # --- timers -----------------------------------------------------------------------------------------------------

    def _on_timer_fired(self, event: TimerFired) -> None:
        effects, key = self._effects, (event.step, event.reason)
        if effects.timers.get(key) != event.due_ms:
            return effects.ignore("this timer had been cancelled")
        del effects.timers[key]
        late = effects.now_ms - event.due_ms
        if late >= NOTICEABLE_MS:
            effects.add(Late(event.step, event.due_ms, late, event.reason.value))
        if event.reason in SPEECH_TIMERS:
            self._ledger.timer(event)
        elif event.reason in INTERRUPT_TIMERS:
            self._ledger.interrupt_timer(event)
        elif event.reason in STEP_TIMERS:
            self._step_timer(event, late)
        else:
            self._run_timer(event)
        return None

    def _step_timer(self, event: TimerFired, late: int) -> None:
        step = self._cursor.step
        assert step is not None
        if event.reason is Timer.AT:
            self._cursor.due_ms = self._effects.now_ms if late >= NOTICEABLE_MS else event.due_ms
            if self._perform(step):
                self._advance()
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

    def _run_timer(self, event: TimerFired) -> None:
        if event.reason is Timer.START:
            self._begin_timeline(event.due_ms)
        elif event.reason not in LIMITS or self.phase == "stopping" or (None, Timer.TAIL) in self._effects.timers:
            self._close(self._why)  # speech had its time to stop, or to fade out; a limit shortens that
        else:
            self._reached(event.reason)

    def _reached(self, limit: Timer) -> None:
        """The show or its session has reached a limit. Where nothing else bounds the wait for somebody, the vendor's limit does."""
        waits = self._cursor.held or (self.phase == "starting" and self._awaits is not None)
        if limit is Timer.MAX_WAIT or (limit is Timer.MAX_SESSION and waits and self._wait_ms is None):
            reason, code = f"nobody came: the session has waited {self.plan.limits.wait_ms or session_limit_ms(self.plan)} ms", 5
        elif limit is Timer.MAX_DURATION:
            reason, code = f"the show reached its limit of {self.plan.limits.max_duration_ms} ms", 6
        else:
            reason, code = f"the session reached its limit of {session_limit_ms(self.plan)} ms", 6
        self._leave("cut", reason)
        self._conclude("error", code, reason)
        self._stop(reason)

    # --- speech -----------------------------------------------------------------------------------------------------

    def _on_task_accepted(self, event: TaskAccepted) -> None:
        if event.task in self._ledger.interrupts:
            return self._interrupt_acknowledged(event.task)
        return self._ledger.accepted(event)

    def _follow(self) -> None:
        """Whatever waited for what has happened to an utterance goes on."""
        moments = self._lines.moments
        while moments:
            _FOLLOWS[(moment := moments.pop(0)).what](self, moment.utterance)

    def _after_accept(self, utterance: Utterance) -> None:
        if utterance.step is self._cursor.step and utterance.step.until == "accepted":
            self._finish()

    def _after_start(self, utterance: Utterance) -> None:
        step = utterance.step
        if step is self._cursor.step:
            if step.until == "started":
                self._finish()
            elif isinstance(step.until, int):
                begun_ms = self._effects.now_ms if utterance.started_ms is None else utterance.started_ms
                self._effects.start(step.id, Timer.UNTIL, max(self._effects.now_ms, begun_ms + step.until))

    def _after_close(self, utterance: Utterance) -> None:
        step = self._cursor.step
        if self.phase == "stopping":
            if not self._lines.open:
                self._close(self._why)
        elif self._clearing and not self._lines.open:
            self._clearing = False
            self._cursor.moved()
            self._advance()
        elif step is None or self.phase != "running":
            return
        elif step is utterance.step:
            if not isinstance(step.until, int) or utterance.started_ms is None:
                self._finish()
        elif self._cursor.entered:
            self._after_speech(step)

    def _after_speech(self, step: Step) -> None:
        """A line was closed while the show is in a step that may have waited for that."""
        ledger, action = self._ledger, step.action
        if isinstance(action, InterruptSpeech):
            if self._cursor.task not in ledger.interrupts and not ledger.stopping:
                self._finish()
        elif self._lines.open:
            return
        elif isinstance(action, WaitSpeech):
            self._finish()
        elif isinstance(action, End):
            self._drained()

    def _task_failed(self, event: ProviderFailed, task: str) -> None:
        if task in self._ledger.interrupts:
            return self._interrupt_failed(task, event.reason)
        utterance = self._ledger.failed(task, event.outcome == "refused")
        if utterance is not None and self.phase == "running" and not self._clearing:
            self._fail_step(utterance.step, "failed", event.reason)
        return None

    def _interrupt_acknowledged(self, task: str) -> None:
        step = self._ledger.interrupts[task]
        still = self._ledger.acknowledged(task)
        if self.phase == "stopping":
            if not still:
                self._close(self._why)
        elif still:
            self._ledger.await_effect(task)
        elif step is not None and step is self._cursor.step:
            self._lines.moments.clear()
            self._finish()

    def _interrupt_failed(self, task: str, reason: str) -> None:
        """Nothing was stopped: the lines go on. The step that asked for it fails, unless the show has gone on without it."""
        step = self._ledger.interrupts[task]
        if step is None and self.phase == "stopping":
            return self._close(reason)
        self._ledger.refused(task)
        if step is not None and step is self._cursor.step:
            return self._fail_step(step, "failed", reason)
        return self._effects.ignore("the show had gone on without this interrupt", task)

    # --- stop, close ------------------------------------------------------------------------------------------------

    def _drained(self) -> None:
        """The show is over. Where an end is not known to the moment, the session outlives it a little, so that no last word is cut."""
        self._leave("done")
        over, tail_ms = self._lines.quiet_since_ms, self.plan.capabilities.tail_ms
        if over is not None and over + tail_ms > self._effects.now_ms:
            self._effects.start(None, Timer.TAIL, over + tail_ms)
        else:
            self._close("end")

    def _stop(self, reason: str) -> None:
        """Stop speaking, then close."""
        self._awaits, self._why, self._clearing = None, reason, False
        if self._lines.open and self.plan.capabilities.interrupt != "none":
            self.phase = "stopping"
            self._ledger.interrupt(None, "~stop")
            self._effects.start(None, Timer.STOP, self._effects.now_ms + STOP_MS)
        else:
            self._close(reason)

    def _close(self, reason: str, *, lost: bool = False) -> None:
        """Order the end of the session; nothing is open, waited for or timed after this. `lost`: nobody can tell what was heard."""
        self._awaits = None
        evidence, why = (Evidence.timeout, reason) if lost else (Evidence.estimated, "cut by the end of the session")
        self._lines.close_all(evidence, why)
        self._lines.moments.clear()
        self._effects.cancel_all()
        self.phase = "closing"
        self._effects.add(CloseSession(reason))

    def _conclude(self, end: Ending, code: int, reason: str | None = None, step: str | None = None) -> None:
        """The first cause stands. A show that was said in full but whose session could not be ended is no success."""
        if self.result is None:
            self.result = Result(end, code, reason, step)


_FOLLOWS: dict[str, Callable[[Engine, Utterance], None]] = {
    "accepted": Engine._after_accept,
    "started": Engine._after_start,
    "closed": Engine._after_close,
}

_SIGNALS: dict[str, Callable[[Engine, Signal], None]] = {
    "hold": Engine._hold,
    "resume": Engine._resume,
    "skip": Engine._skip,
    "goto": Engine._goto,
    "panic": Engine._panic,
}

_HANDLERS: dict[type, Callable[[Engine, Any], None]] = {
    SessionOpened: Engine._on_session_opened,
    TaskAccepted: Engine._on_task_accepted,
    SpeechStarted: lambda engine, event: engine._ledger.started(event),
    SpeechEnded: lambda engine, event: engine._ledger.ended(event),
    SourceJoined: lambda engine, event: engine._ledger.joined(event),
    SourceLeft: lambda engine, event: engine._ledger.left(event),
    Sound: lambda engine, event: engine._ledger.sound(event),
    Silence: lambda engine, event: engine._ledger.silence(event),
    TimerFired: Engine._on_timer_fired,
    Trigger: Engine._on_trigger,
    Signal: Engine._on_signal,
    ViewerJoined: Engine._on_viewer_joined,
    ViewerLeft: Engine._on_viewer_left,
    ProviderFailed: Engine._on_provider_failed,
    SessionClosed: Engine._on_session_closed,
    StopRequested: Engine._on_stop_requested,
}


def session_limit_ms(plan: Plan) -> int | None:
    """How long the session may last from its opening: what the provider allows, or what `limits.max_cost` buys, if that is less."""
    limits = [] if plan.capabilities.usable_ms is None else [plan.capabilities.usable_ms]
    price = plan.capabilities.price_per_minute
    if plan.limits.max_cost is not None and price:
        limits.append(int(plan.limits.max_cost / price * 60_000))
    return min(limits, default=None)
