"""The door of the engine: `begin` once, then `handle` for every event until `done`.

* There is one cursor. A line is at once a step (which the cursor leaves when its `until` is reached) and an utterance (which lives until
  exactly one `speech_ended` closes it); `cursor` and `ledger` keep the two apart, and that is how speech and the timeline overlap.
* Every path ends with exactly one `CloseSession`, unless no session was ever opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from playbook.engine.cursor import STEP_TIMERS
from playbook.engine.effects import NOTICEABLE_MS, Effects
from playbook.engine.ledger import INTERRUPT_TIMERS
from playbook.engine.show import Ending, Phase, Show
from playbook.engine.utterances import SPEECH_TIMERS
from playbook.events import (
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
from playbook.model import Evidence, Plan, Step

STOP_MS = 2_000
"""How long a run that must stop waits for its speech to stop before it closes the session."""


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
        self._show: Show = Show(plan, self._effects, self)
        self._viewers: set[str] = set()
        self._wait_ms = plan.limits.wait_ms  # what is left of it
        self._show_ms = plan.limits.max_duration_ms  # what is left of it, while it does not run
        self._waited_since = 0
        self.why = "end"  # what the session is closed for, once speech has stopped

    # --- the door ---------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Nothing will be commanded any more."""
        return self.phase == "done"

    @property
    def stalled_on(self) -> str | None:
        """The trigger without which nothing can ever happen again; None while something else still can."""
        awaits = "resume" if self._show.cursor.held else self._show.awaits
        if awaits is None or self._show.lines.open or any(timer not in LIMITS for _, timer in self._effects.timers):
            return None
        return awaits

    @property
    def awaits(self) -> str | None:
        """The trigger that is waited for, which `go` gives."""
        return self._show.awaits

    @property
    def held(self) -> bool:
        """Whether nothing new begins until somebody resumes the show."""
        return self._show.cursor.held

    @property
    def next_step(self) -> Step | None:
        """The step that stands by."""
        return self._show.cursor.standing_by

    @property
    def current_step(self) -> Step | None:
        """The step the cursor is in."""
        return self._show.cursor.step

    @property
    def timeline_zero_ms(self) -> int:
        """Timeline zero, on the run's time."""
        return self._show.cursor.zero_ms

    def begin(self) -> tuple[Effect, ...]:
        """The first command of every run."""
        return (OpenSession(),)

    def handle(self, event: Event, at_ms: int) -> tuple[Effect, ...]:
        """Take one event that happened at `at_ms` (never less than before) and say what follows from it."""
        self._effects.begin(at_ms)
        _HANDLERS[type(event)](self, event)
        self._show.follow()
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
            self._show.awaits = "go"
            self._begin_wait()
        elif start.kind == "delay" and start.delay_ms > 0:
            self._effects.start(None, Timer.START, now + start.delay_ms)
        else:
            self.begin_timeline(now)
        return None

    def begin_timeline(self, due_ms: int) -> None:
        if self._show.awaits is not None:
            self._end_wait()
        self._show.awaits = None
        self.phase = "running"
        self._show.cursor.begin(due_ms)
        self._run_show()
        self._show.advance()

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

    def show_held(self) -> None:
        """From now on time counts to the wait."""
        if self._show_ms is not None and (due := self._effects.timers.get((None, Timer.MAX_DURATION))) is not None:
            self._show_ms = max(0, due - self._effects.now_ms)
            self._effects.cancel(None, Timer.MAX_DURATION)
        self._begin_wait()

    def show_resumed(self) -> None:
        """From now on time counts to the show again."""
        self._end_wait()
        self._run_show()

    def _on_viewer_joined(self, event: ViewerJoined) -> None:
        self._viewers.add(event.viewer)
        if self.phase == "starting" and self.plan.start.kind == "viewer":
            self.begin_timeline(self._effects.now_ms)

    def _on_viewer_left(self, event: ViewerLeft) -> None:
        if event.viewer not in self._viewers:
            return self._effects.ignore(f"{event.viewer} had not joined")
        return self._viewers.remove(event.viewer)

    def _on_session_closed(self, event: SessionClosed) -> None:
        if self.phase != "closing":
            return self._effects.ignore("nobody asked for the session to be closed")
        if event.status == "failed":
            self.conclude("error", 4, event.reason or "the session could not be ended")
        elif event.status == "lost":
            self._show.ledger.doubt(event.silent_ms)
            self.conclude("error", 4, event.reason or "the session had died")
        else:
            self.conclude("passed", 0)
        self.phase = "done"
        return None

    def _on_provider_failed(self, event: ProviderFailed) -> None:
        if event.task is not None:
            return self._show.failed(event, event.task)
        if self.phase in ("closing", "done"):
            return self._effects.ignore("the session was being closed")
        opening = self.phase == "opening"
        self._show.leave("failed", event.reason)
        self.conclude("error", 4, event.reason)
        if opening and event.session is None:
            self.phase = "done"
        else:
            if not opening:
                self._show.ledger.doubt(event.silent_ms)
            self.close("could not be opened" if opening else "session lost", lost=not opening)
        return None

    def stop_requested(self, event: StopRequested) -> None:
        if self.phase in ("closing", "done"):
            return self._effects.ignore("the session was being closed")
        outcome, end, code = _STOPPED[event.cause]
        if outcome is not None:
            self._show.leave(outcome, event.reason)
        self.conclude(end, code, event.reason)
        if self.phase in ("opening", "stopping"):
            self.close(event.reason)
        else:
            self.stop(event.reason)
        return None

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
            self._show.ledger.timer(event)
        elif event.reason in INTERRUPT_TIMERS:
            self._show.ledger.interrupt_timer(event)
        elif event.reason in STEP_TIMERS:
            self._show.step_timer(event, late)
        else:
            self._run_timer(event)
        return None

    def _run_timer(self, event: TimerFired) -> None:
        if event.reason is Timer.START:
            self.begin_timeline(event.due_ms)
        elif event.reason not in LIMITS or self.phase == "stopping" or (None, Timer.TAIL) in self._effects.timers:
            self.close(self.why)  # speech had its time to stop, or to fade out; a limit shortens that
        else:
            self._reached(event.reason)

    def _reached(self, limit: Timer) -> None:
        """The show or its session has reached a limit. Where nothing else bounds the wait for somebody, the vendor's limit does."""
        waits = self._show.cursor.held or (self.phase == "starting" and self._show.awaits is not None)
        if limit is Timer.MAX_WAIT or (limit is Timer.MAX_SESSION and waits and self._wait_ms is None):
            reason, code = f"nobody came: the session has waited {self.plan.limits.wait_ms or session_limit_ms(self.plan)} ms", 5
        elif limit is Timer.MAX_DURATION:
            reason, code = f"the show reached its limit of {self.plan.limits.max_duration_ms} ms", 6
        else:
            reason, code = f"the session reached its limit of {session_limit_ms(self.plan)} ms", 6
        self._show.leave("cut", reason)
        self.conclude("error", code, reason)
        self.stop(reason)

    # --- stop, close ------------------------------------------------------------------------------------------------

    def drained(self) -> None:
        """The show is over. Where an end is not known to the moment, the session outlives it a little, so that no last word is cut."""
        self._show.leave("done")
        over, tail_ms = self._show.lines.quiet_since_ms, self.plan.capabilities.tail_ms
        if over is not None and over + tail_ms > self._effects.now_ms:
            self._effects.start(None, Timer.TAIL, over + tail_ms)
        else:
            self.close("end")

    def stop(self, reason: str) -> None:
        """Stop speaking, then close."""
        self._show.awaits, self.why, self._show.clearing = None, reason, False
        if self._show.lines.open and self.plan.capabilities.interrupt != "none":
            self.phase = "stopping"
            self._show.ledger.interrupt(None, "~stop")
            self._effects.start(None, Timer.STOP, self._effects.now_ms + STOP_MS)
        else:
            self.close(reason)

    def close(self, reason: str, *, lost: bool = False) -> None:
        """Order the end of the session; nothing is open, waited for or timed after this. `lost`: nobody can tell what was heard."""
        self._show.awaits = None
        evidence, why = (Evidence.timeout, reason) if lost else (Evidence.estimated, "cut by the end of the session")
        self._show.lines.close_all(evidence, why)
        self._show.lines.moments.clear()
        self._effects.cancel_all()
        self.phase = "closing"
        self._effects.add(CloseSession(reason))

    def conclude(self, end: Ending, code: int, reason: str | None = None, step: str | None = None) -> None:
        """The first cause stands. A show that was said in full but whose session could not be ended is no success."""
        if self.result is None:
            self.result = Result(end, code, reason, step)


_HANDLERS: dict[type, Callable[[Engine, Any], None]] = {
    SessionOpened: Engine._on_session_opened,
    TaskAccepted: lambda engine, event: engine._show.accepted(event),
    SpeechStarted: lambda engine, event: engine._show.ledger.started(event),
    SpeechEnded: lambda engine, event: engine._show.ledger.ended(event),
    SourceJoined: lambda engine, event: engine._show.ledger.joined(event),
    SourceLeft: lambda engine, event: engine._show.ledger.left(event),
    Sound: lambda engine, event: engine._show.ledger.sound(event),
    Silence: lambda engine, event: engine._show.ledger.silence(event),
    TimerFired: Engine._on_timer_fired,
    Trigger: lambda engine, event: engine._show.trigger(event),
    Signal: lambda engine, event: engine._show.signal(event),
    ViewerJoined: Engine._on_viewer_joined,
    ViewerLeft: Engine._on_viewer_left,
    ProviderFailed: Engine._on_provider_failed,
    SessionClosed: Engine._on_session_closed,
    StopRequested: Engine.stop_requested,
}


def session_limit_ms(plan: Plan) -> int | None:
    """How long the session may last from its opening: what the provider allows, or what `limits.max_cost` buys, if that is less."""
    limits = [] if plan.capabilities.usable_ms is None else [plan.capabilities.usable_ms]
    price = plan.capabilities.price_per_minute
    if plan.limits.max_cost is not None and price:
        limits.append(int(plan.limits.max_cost / price * 60_000))
    return min(limits, default=None)
