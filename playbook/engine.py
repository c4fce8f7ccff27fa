"""The deterministic step engine: events in, commands out.

The rules of this file:

* It is pure. It knows no clock, file, network or provider; the time of an event comes with the event. The same plan and the same events at
  the same times give the same effects, which is what `replay` proves.
* There is one cursor. A line is at once a step (which the cursor leaves when its `until` is reached) and an utterance (which lives until
  exactly one `speech_ended` closes it); the two are kept apart, and that is how speech and the timeline overlap.
* Sightings of speech are matched by utterance, never by state. One that means nothing now is answered with a note and changes nothing.
* Deadlines are absolute, and the cursor carries the time at which a step was *due*, so waits do not drift. Only a delay that an audience
  would notice moves the schedule.
* Every path ends with exactly one `CloseSession`, unless no session was ever opened.

Where a provider reports no speech, the engine closes utterances by the plan's lengths; where it reports and stays silent, by the estimate
and its margin. Such sightings are the engine's own: their `outcome` is `settled`. Imports only `model` and
`events`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from playbook.events import (
    CancelTimer,
    CloseSession,
    Conflict,
    Effect,
    Event,
    Ignored,
    Late,
    OpenSession,
    PlayAudio,
    ProviderFailed,
    SayText,
    SessionClosed,
    SessionOpened,
    SpeechEnded,
    SpeechStarted,
    StartTimer,
    StepFinished,
    StepSkipped,
    StepStarted,
    StopRequested,
    StopSpeaking,
    TaskAccepted,
    TimelineZero,
    TimerFired,
    Trigger,
    spoken,
)
from playbook.model import AudioEcho, End, Evidence, InterruptSpeech, Plan, Say, Step, Wait, WaitEvent, WaitSpeech

NOTICEABLE_MS = 250
"""A delay from which on the schedule is moved instead of caught up: hurrying after it would crowd the lines that follow."""
SETTLE_MS = 3_000
"""How long after an acknowledged interrupt the provider may take to report the ends that it caused."""
STOP_MS = 2_000
"""How long a run that must stop waits for its speech to stop before it closes the session."""
WAKE_MS = 1_000
"""How long a process that was suspended listens before it says that nothing was reported."""
DISAGREE_MS = 500
"""From which difference on two sightings of one moment contradict each other."""
REMEMBERED = 256
"""How many closed lines are kept for what may still be told of them, so that a show of any length needs the same memory."""

Phase = Literal["opening", "starting", "running", "stopping", "closing", "done"]


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. `end` and `exit_code` as in the run log and the README's table."""

    end: Literal["passed", "failed", "stopped", "error"]
    exit_code: int
    reason: str | None = None
    step: str | None = None


@dataclass(slots=True, eq=False)
class _Utterance:
    """One piece of speech, from its first chunk to its closing `speech_ended`."""

    step: Step
    length_ms: int
    exact: bool
    sent: int = 0  # chunks handed over so far
    answered: int = 0  # chunks the provider has taken
    next_ms: int = 0  # when the next chunk is due
    begins_ms: int | None = None  # when it should be heard, by our reckoning
    accepted: bool = False
    started_ms: int | None = None
    started_by: Evidence | None = None
    ended_ms: int | None = None
    stopping: bool = False  # an interrupt is meant to hit it
    stopped: tuple[str, int] | None = None  # that interrupt, and when the provider acknowledged it

    @property
    def task(self) -> str:
        return self.step.id

    @property
    def chunks(self) -> int:
        return len(self.step.action.chunks) if isinstance(self.step.action, Say) else 1


class Engine:
    """Performs one plan. Call `begin` once, then `handle` for every event until `done`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.phase: Phase = "opening"
        self.result: Result | None = None
        self._can = plan.capabilities
        self._now = 0
        self._due = 0  # the cursor's own time: when the current step was due
        self._zero = 0
        self._index = -1
        self._step: Step | None = None
        self._entered = False  # the current step's `at` has come
        self._awaits: str | None = None  # a trigger's name
        self._utterances: dict[str, _Utterance] = {}  # the open ones, and the last that were closed
        self._open: dict[str, _Utterance] = {}
        self._past: deque[str] = deque()  # the tasks of those, oldest first
        self._quiet_since: int | None = None  # when the last line was closed
        self._interrupts: dict[str, Step | None] = {}  # whose answers are still owed, by task; None for the run's own
        self._why = "end"  # what the session is closed for, once speech has stopped
        self._timers: dict[tuple[str | None, str], int] = {}
        self._out: list[Effect] = []

    # --- the door ---------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Nothing will be commanded any more."""
        return self.phase == "done"

    @property
    def stalled_on(self) -> str | None:
        """The trigger without which nothing can ever happen again; None while something else still can."""
        return self._awaits if self._awaits is not None and not self._open and not self._step_timers() else None

    @property
    def current_step(self) -> Step | None:
        """The step the cursor is in."""
        return self._step

    @property
    def timeline_zero_ms(self) -> int:
        """Timeline zero, on the run's time."""
        return self._zero

    def begin(self) -> tuple[Effect, ...]:
        """The first command of every run."""
        return (OpenSession(),)

    def handle(self, event: Event, at_ms: int) -> tuple[Effect, ...]:
        """Take one event that happened at `at_ms` (never less than before) and say what follows from it."""
        self._now = at_ms
        self._out = []
        _HANDLERS[type(event)](self, event)
        return tuple(self._out)

    # --- session ----------------------------------------------------------------------------------------------------

    def _on_session_opened(self, _: SessionOpened) -> None:
        if self.phase != "opening":
            return self._ignore("no session was being opened")
        self.phase = "starting"
        if (limit := session_limit_ms(self.plan)) is not None:
            self._start_timer(None, "max_duration", self._now + limit)
        start = self.plan.start
        if start.kind == "go":
            self._awaits = "go"
        elif start.kind == "delay" and start.delay_ms > 0:
            self._start_timer(None, "start", self._now + start.delay_ms)
        else:
            self._begin_timeline(self._now)
        return None

    def _begin_timeline(self, due_ms: int) -> None:
        self._awaits = None
        self.phase = "running"
        self._zero = self._due = due_ms
        self._out.append(TimelineZero())
        self._advance()

    def _on_session_closed(self, event: SessionClosed) -> None:
        if self.phase != "closing":
            return self._ignore("nobody asked for the session to be closed")
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
            return self._ignore("the session was being closed")
        opening = self.phase == "opening"
        self._leave_step("failed", event.reason)
        self._conclude("error", 4, event.reason)
        if opening and event.session is None:
            self.phase = "done"
        else:
            self._close("could not be opened" if opening else "session lost", lost=not opening)
        return None

    def _on_stop_requested(self, event: StopRequested) -> None:
        if self.phase in ("closing", "done"):
            return self._ignore("the session was being closed")
        if event.cause == "stall":
            self._leave_step("failed", event.reason)
            self._conclude("failed", 1, event.reason)
        elif event.cause == "disk":
            self._leave_step("cut", event.reason)
            self._conclude("error", 4, event.reason)
        elif event.cause == "nothing ran":
            self._conclude("error", 5, event.reason)
        else:
            self._leave_step("cut", event.reason)
            self._conclude("stopped", 130 if event.reason == "SIGINT" else 143, event.reason)
        if self.phase in ("opening", "stopping"):
            self._close(event.reason)
        else:
            self._stop(event.reason)
        return None

    # --- the cursor -------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Move the cursor on until a step has to wait for something."""
        steps = self.plan.steps
        while self.phase == "running":
            self._index += 1
            if self._index >= len(steps):  # a plan ends with `end`; one that was put together by hand may not
                self._close("end")
                return
            step = steps[self._index]
            if step.skipped is not None:
                self._out.append(StepSkipped(step.id, step.skipped))
                continue
            self._step, self._entered = step, False
            if step.at_ms is not None:
                due = self._zero + step.at_ms
                if due > self._now:
                    self._start_timer(step, "at", due)
                    return
                if self._due > due:
                    self._out.append(Late(step.id, due, self._now - due))
                else:
                    self._due = due
            if not self._enter(step):
                return

    def _enter(self, step: Step) -> bool:
        """Perform a step; whether it is already over."""
        self._entered = True
        self._out.append(StepStarted(step.id))
        if step.timeout_ms is not None:
            self._start_timer(step, "timeout", self._due + step.timeout_ms)
        action = step.action
        if isinstance(action, Wait):
            due = self._due + action.duration_ms
            if due > self._now:
                self._start_timer(step, "wait", due)
                return False
            self._due = due
            return self._leave_step("done")
        if isinstance(action, (Say, AudioEcho)):
            utterance = _Utterance(step, step.length.ms, step.length.basis == "exact")
            self._utterances[step.id] = self._open[step.id] = utterance
            self._send(utterance)
            return False
        if isinstance(action, WaitSpeech):
            return not self._open and self._leave_step("done")
        if isinstance(action, WaitEvent):
            self._awaits = action.event
            if action.timeout_ms is not None:
                self._start_timer(step, "event", self._due + action.timeout_ms)
            return False
        if isinstance(action, InterruptSpeech):
            self._interrupt(step, step.id)
            return False
        assert isinstance(action, End)
        if not action.drain:
            self._leave_step("done")
            self._stop("end")
        elif not self._open:
            self._drained()
        return False

    def _leave_step(self, outcome: Literal["done", "failed", "timeout", "cut"], reason: str | None = None) -> bool:
        """Finish the current step, if there is one. Always True, for `_enter`'s sake."""
        step, self._step, self._awaits = self._step, None, None
        if step is not None:
            stopping = any(utterance.stopping for utterance in self._open.values())
            for name in _STEP_TIMERS:
                if not (name == "settle" and stopping):
                    self._cancel_timer(step, name)
            if self._entered:
                self._out.append(StepFinished(step.id, outcome, reason))
        return True

    def _finish(self, due_ms: int | None = None) -> None:
        """The current step is done; go on. `due_ms` is when that was due, where it was due at a time."""
        self._due = self._now if due_ms is None or self._now - due_ms >= NOTICEABLE_MS else due_ms
        self._leave_step("done")
        self._advance()

    def _fail_step(self, step: Step, outcome: Literal["failed", "timeout"], reason: str) -> None:
        """A step did not work: its `on_error` decides what becomes of the run."""
        if step is self._step:
            self._leave_step(outcome, reason)
            if step.on_error == "continue":
                self._due = self._now
                self._advance()
        if step.on_error == "fail" and self.phase == "running":
            self._leave_step("cut", reason)
            self._conclude("failed", 1, reason, step.id)
            self._stop("a step failed")

    def _on_trigger(self, event: Trigger) -> None:
        if event.trigger != self._awaits:
            return self._ignore(f"nothing waits for the trigger '{event.trigger}'")
        return self._begin_timeline(self._now) if self.phase == "starting" else self._finish()

    # --- timers -----------------------------------------------------------------------------------------------------

    def _start_timer(self, step: Step | None, reason: str, due_ms: int) -> None:
        name = step.id if step is not None else None
        self._timers[name, reason] = due_ms
        self._out.append(StartTimer(name, reason, due_ms))

    def _cancel_timer(self, step: Step | None, reason: str) -> None:
        name = step.id if step is not None else None
        if self._timers and self._timers.pop((name, reason), None) is not None:
            self._out.append(CancelTimer(name, reason))

    def _step_timers(self) -> bool:
        return any(reason != "max_duration" for _, reason in self._timers)

    def _on_timer_fired(self, event: TimerFired) -> None:
        if self._timers.get((event.step, event.reason)) != event.due_ms:
            return self._ignore("this timer had been cancelled")
        del self._timers[event.step, event.reason]
        late = self._now - event.due_ms
        if late >= NOTICEABLE_MS:
            self._out.append(Late(event.step, event.due_ms, late, event.reason))
        if event.step is None:
            return self._run_timer(event)
        if event.reason in ("started", "speech", "chunk"):
            return self._speech_timer(self._utterances[event.step], event)
        if event.reason == "settle":
            return self._settle_stopping(event.step)
        step = self._step
        assert step is not None
        if event.reason == "at":
            self._due = self._now if late >= NOTICEABLE_MS else event.due_ms
            if self._enter(step):
                self._advance()
        elif event.reason == "timeout":
            self._fail_step(step, "timeout", f"took longer than {step.timeout_ms} ms")
        elif event.reason == "event":
            assert isinstance(step.action, WaitEvent)
            if step.action.on_timeout == "continue":
                self._finish(event.due_ms)
            else:
                self._fail_step(step, "timeout", f"the trigger '{step.action.event}' did not come")
        else:  # wait, until
            self._finish(event.due_ms)
        return None

    def _run_timer(self, event: TimerFired) -> None:
        if event.reason == "start":
            self._begin_timeline(event.due_ms)
        elif event.reason == "max_duration" and self.phase != "stopping" and (None, "tail") not in self._timers:
            reason = f"the session reached its limit of {session_limit_ms(self.plan)} ms"
            self._leave_step("cut", reason)
            self._conclude("error", 6, reason)
            self._stop(reason)
        else:  # speech had its time to stop, or to fade out
            self._close(self._why)

    # --- utterances -------------------------------------------------------------------------------------------------

    def _send(self, utterance: _Utterance) -> None:
        """Hand over the next chunk, or the sound."""
        step, action = utterance.step, utterance.step.action
        utterance.sent += 1
        if isinstance(action, Say):
            chunk = action.chunks[utterance.sent - 1]
            final = utterance.sent == len(action.chunks)
            self._out.append(SayText(step.id, step.id, chunk.text, utterance.sent, final, action.voice, chunk.shown))
        else:
            assert isinstance(action, AudioEcho)
            self._out.append(PlayAudio(step.id, step.id, action.sha256, action.duration_ms))

    def _on_task_accepted(self, event: TaskAccepted) -> None:
        if event.task in self._interrupts:
            return self._interrupt_acknowledged(event.task)
        utterance = self._open.get(event.task)
        if utterance is None:
            return self._ignore("no such line is open", event.task)
        if utterance.answered == utterance.sent or (event.chunk is not None and event.chunk != utterance.sent):
            return self._ignore("this had been accepted before", event.task)
        utterance.answered += 1
        if utterance.answered == 1 and not self._can.chunks_held:
            self._reckon_begin(utterance)
        if utterance.sent < utterance.chunks:
            assert isinstance(utterance.step.action, Say)
            utterance.next_ms = self._now + utterance.step.action.chunks[utterance.sent].after_ms
        elif event.duration_ms is not None:
            utterance.length_ms, utterance.exact = event.duration_ms, True
        if not utterance.stopping:
            self._go_on(utterance)
        return None

    def _go_on(self, utterance: _Utterance) -> None:
        """All that was sent has been taken: send what follows, or wait for the speech."""
        if utterance.sent < utterance.chunks:
            if utterance.next_ms > self._now:
                self._start_timer(utterance.step, "chunk", utterance.next_ms)
            else:
                self._send(utterance)
            return
        utterance.accepted = True
        self._reckon_begin(utterance)
        self._expect_speech(utterance)
        if utterance.step is self._step and utterance.step.until == "accepted":
            self._finish()

    def _reckon_begin(self, utterance: _Utterance) -> None:
        """When it should be heard: after what is queued before it."""
        if utterance.begins_ms is None:
            soonest = self._now + self._can.start_latency_ms
            last = next((u for u in reversed(self._open.values()) if u.begins_ms is not None), None)
            over = 0 if last is None or last.begins_ms is None else last.begins_ms + last.length_ms
            utterance.begins_ms = max(soonest, over)

    def _expect_speech(self, utterance: _Utterance) -> None:
        """An accepted line has to begin and end some time: set the timer that speaks when nobody else does."""
        assert utterance.begins_ms is not None
        if self._can.speech == "none":
            if utterance.begins_ms > self._now:
                self._start_timer(utterance.step, "started", utterance.begins_ms)
            else:
                self._settle_start(utterance)
        elif self._can.speech == "reported":
            begun = utterance.begins_ms if utterance.started_ms is None else utterance.started_ms
            due = max(begun, self._now) + utterance.length_ms + self.plan.limits.speech_margin_ms
            self._start_timer(utterance.step, "speech", due)

    def _settle_start(self, utterance: _Utterance) -> None:
        """By our reckoning the line is heard from now on; `begins_ms` may lie a little back, and the length counts from there."""
        assert utterance.begins_ms is not None
        self._out.append(SpeechStarted(utterance.task, Evidence.estimated, outcome="settled"))
        end = max(self._now, utterance.begins_ms + utterance.length_ms)
        self._start_timer(utterance.step, "speech", end)
        self._started(utterance, Evidence.estimated)

    def _speech_timer(self, utterance: _Utterance, event: TimerFired) -> None:
        if event.reason == "chunk":
            self._send(utterance)
        elif event.reason == "started":
            self._settle_start(utterance)
        elif self._can.speech == "none":
            basis = "the length is known" if utterance.exact else "the length is estimated"
            self._settle(utterance, Evidence.estimated, basis)
            self._after_close(utterance)
        elif utterance.ended_ms is not None:
            self._settle(utterance, Evidence.estimated, "the sound's own length; the provider reported its end too early")
            self._after_close(utterance)
        elif self._now - event.due_ms >= NOTICEABLE_MS:  # we were asleep; what was reported meanwhile may still be on its way to us
            self._start_timer(utterance.step, "speech", self._now + WAKE_MS)
        elif utterance.started_ms is None and utterance is not next(iter(self._open.values())):  # it cannot begin before its turn
            self._start_timer(utterance.step, "speech", self._now + utterance.length_ms + self.plan.limits.speech_margin_ms)
        else:
            what = "a start" if utterance.started_ms is None else "the end"
            self._settle(utterance, Evidence.timeout, f"the provider never reported {what}")
            self._after_close(utterance)

    def _on_speech_started(self, event: SpeechStarted) -> None:
        utterance = self._utterances.get(event.task) if event.task is not None else self._only_one(started=False)
        if utterance is None:
            return self._ignore("no line fits this start", event.task)
        if event.text is not None and (says := spoken(event.text)) != spoken(_text(utterance.step)) and says:
            self._out.append(Conflict("the provider says other words than the plan", utterance.task))
            if utterance.started_ms is not None:
                return None
        if utterance.task not in self._open:
            return self._ignore("this line had ended", event.task)
        if utterance.started_ms is not None:
            apart = self._now - (event.ago_ms or 0) - utterance.started_ms
            if event.evidence is not utterance.started_by and abs(apart) >= DISAGREE_MS:
                before = _name(utterance.started_by)
                self._out.append(Conflict(f"{event.evidence.name} {_apart(apart)} it was {before}", event.task))
                return None
            return self._ignore("this line had started", event.task)
        if event.task is None:
            self._out.append(SpeechStarted(utterance.task, Evidence.unmatched, outcome="settled", reason="only this line could be meant"))
        if self._can.speech == "reported" and (utterance.step.id, "speech") in self._timers:
            self._start_timer(utterance.step, "speech", self._now + utterance.length_ms + self.plan.limits.speech_margin_ms)
        self._started(utterance, event.evidence)
        return None

    def _started(self, utterance: _Utterance, evidence: Evidence) -> None:
        utterance.started_ms, utterance.started_by = self._now, evidence
        utterance.begins_ms = self._now
        if utterance.step is self._step:
            until = utterance.step.until
            if until == "started":
                self._finish()
            elif isinstance(until, int):
                self._start_timer(utterance.step, "until", self._now + until)

    def _on_speech_ended(self, event: SpeechEnded) -> None:
        utterance = self._utterances.get(event.task) if event.task is not None else self._only_one(started=True)
        if utterance is None:
            return self._ignore("no line fits this end", event.task)
        if utterance.task not in self._open:
            apart = self._now - (event.ago_ms or 0) - (utterance.ended_ms or 0)
            if abs(apart) >= DISAGREE_MS and not event.interrupted:
                self._out.append(Conflict(f"{event.evidence.name} {_apart(apart)} the line was closed", event.task))
                return None
            return self._ignore("this line had ended", event.task)
        if self._too_early(utterance, event):
            return None
        if event.task is None:
            self._settle(
                utterance,
                Evidence.unmatched,
                "only this line could be meant",
                interrupted=event.interrupted,
                heard_ms=event.heard_ms,
                duration_ms=event.duration_ms,
            )
        else:
            self._closed(utterance)
        if utterance.stopped is not None and not event.interrupted:
            interrupt, since = utterance.stopped
            if self._now - since >= DISAGREE_MS:
                self._out.append(Conflict(f"acknowledged, but {utterance.task} was said to its end", interrupt))
        self._after_close(utterance)
        return None

    def _too_early(self, utterance: _Utterance, event: SpeechEnded) -> bool:
        """A sound whose length is known cannot have ended before it. Believing that would cut its last words."""
        if event.interrupted or utterance.stopping or not utterance.exact or utterance.started_ms is None or self._can.speech == "exact":
            return False
        end = utterance.started_ms + utterance.length_ms
        if end - self._now < DISAGREE_MS:
            return False
        self._out.append(Conflict(f"{event.evidence.name} {end - self._now} ms before the sound can have ended", utterance.task))
        if utterance.ended_ms is None:
            utterance.ended_ms = self._now
            self._start_timer(utterance.step, "speech", end)
        return True

    def _only_one(self, *, started: bool) -> _Utterance | None:
        """The one line that a sighting without a name can mean."""
        fits = [u for u in self._open.values() if u.answered and (u.started_ms is not None) == started]
        if started and not fits:
            fits = [u for u in self._open.values() if u.answered]
        return fits[0] if len(fits) == 1 else None

    def _settle(
        self,
        utterance: _Utterance,
        evidence: Evidence,
        reason: str,
        *,
        interrupted: bool = False,
        heard_ms: int | None = None,
        duration_ms: int | None = None,
    ) -> None:
        """Close an utterance by our own reckoning. What an interrupted line lets be heard is counted here, if nobody else did."""
        if interrupted and heard_ms is None:
            heard_ms = 0 if utterance.started_ms is None else min(self._now - utterance.started_ms, utterance.length_ms)
        self._out.append(
            SpeechEnded(
                utterance.task,
                evidence,
                duration_ms=duration_ms,
                interrupted=interrupted,
                heard_ms=heard_ms,
                outcome="settled",
                reason=reason,
            )
        )
        self._closed(utterance)

    def _closed(self, utterance: _Utterance) -> None:
        del self._open[utterance.task]
        utterance.ended_ms = self._quiet_since = self._now
        self._past.append(utterance.task)
        if len(self._past) > REMEMBERED:
            del self._utterances[self._past.popleft()]
        for name in _SPEECH_TIMERS:
            self._cancel_timer(utterance.step, name)

    def _after_close(self, utterance: _Utterance) -> None:
        """Whatever waited for this utterance goes on."""
        if self.phase == "stopping":
            if not self._open:
                self._close(self._why)
            return
        step = self._step
        if step is None or self.phase != "running":
            return
        if step is utterance.step:
            if not isinstance(step.until, int) or utterance.started_ms is None:
                self._finish()
        elif isinstance(step.action, WaitSpeech) and self._entered and not self._open:
            self._finish()
        elif isinstance(step.action, InterruptSpeech) and self._entered:
            if step.id not in self._interrupts and not any(u.stopping for u in self._open.values()):
                self._finish()
        elif isinstance(step.action, End) and self._entered and not self._open:
            self._drained()

    def _task_failed(self, event: ProviderFailed, task: str) -> None:
        if task in self._interrupts:
            return self._interrupt_failed(task, event.reason)
        utterance = self._open.get(task)
        if utterance is None:
            return self._ignore("no such line is open", task)
        evidence = Evidence.reported if event.outcome == "refused" else Evidence.timeout
        what = "refused" if event.outcome == "refused" else "nobody knows whether it was taken"
        self._settle(utterance, evidence, what, interrupted=True)
        if self.phase == "running":
            self._fail_step(utterance.step, "failed", event.reason)
        return self._after_close(utterance)  # also where its own step was over, and the show waits for the rest of it

    # --- interrupt, stop, close -------------------------------------------------------------------------------------

    def _interrupt(self, step: Step | None, task: str) -> None:
        """Stop what is open. Chunks that were not sent yet never will be."""
        self._interrupts[task] = step
        for utterance in self._open.values():
            utterance.stopping = True
            self._cancel_timer(utterance.step, "chunk")
        self._out.append(StopSpeaking(step.id if step is not None else None, task))

    def _interrupt_acknowledged(self, task: str) -> None:
        step = self._interrupts.pop(task)
        settled = self._settle_interrupted() if self._can.speech == "none" else []
        still = [u for u in self._open.values() if u.stopping]
        for utterance in still:
            utterance.stopped = task, self._now
        if self.phase == "stopping":
            if not still:
                self._close(self._why)
        elif still:
            self._start_timer(step, "settle", self._now + SETTLE_MS)
        elif step is self._step:
            self._finish()
        else:  # the show has gone on meanwhile, and may wait for these
            for utterance in settled:
                self._after_close(utterance)

    def _interrupt_failed(self, task: str, reason: str) -> None:
        """Nothing was stopped: the lines go on. The step that asked for it fails, unless the show has gone on without it."""
        step = self._interrupts.pop(task)
        if step is None and self.phase == "stopping":
            return self._close(reason)
        if not self._interrupts:
            for utterance in [u for u in self._open.values() if u.stopping and u.stopped is None]:  # no other one has stopped it
                self._spare(utterance)
        if step is not None and step is self._step:
            return self._fail_step(step, "failed", reason)
        return self._ignore("the show had gone on without this interrupt", task)

    def _spare(self, utterance: _Utterance) -> None:
        """The interrupt does not hit this line after all: do what was put off because of it."""
        utterance.stopping = False
        if not utterance.accepted and utterance.answered == utterance.sent:
            self._go_on(utterance)

    def _settle_interrupted(self) -> list[_Utterance]:
        """Nobody will report what the interrupt hit: say what is certain and what is only probable. Returns what is closed by it."""
        scope, begins = self._can.interrupt, self._now
        settled = []
        for utterance in [u for u in self._open.values() if u.stopping]:
            if utterance.started_ms is not None:
                self._settle(utterance, Evidence.estimated, "interrupted while it was being said", interrupted=True)
                settled.append(utterance)
            elif scope == "current":  # what is queued survives and moves up
                utterance.begins_ms = begins + self._can.start_latency_ms
                begins = utterance.begins_ms + utterance.length_ms
                if utterance.accepted:
                    self._start_timer(utterance.step, "started", utterance.begins_ms)
                self._spare(utterance)
            else:
                reason = "stopped before it began" if scope == "all" else "probably stopped before it began"
                self._settle(utterance, Evidence.estimated, reason, interrupted=True)
                settled.append(utterance)
        return settled

    def _settle_stopping(self, interrupt: str) -> None:
        """An interrupt was acknowledged, and what it was to stop has had its time to say so. (A later one's has it still.)"""
        for utterance in [u for u in self._open.values() if u.stopped is not None and u.stopped[0] == interrupt]:
            self._settle(utterance, Evidence.timeout, "the provider did not say that it stopped", interrupted=True)
            self._after_close(utterance)

    def _drained(self) -> None:
        """The show is over. Where an end is not known to the moment, the session outlives it a little, so that no last word is cut."""
        self._leave_step("done")
        over = self._quiet_since
        if over is not None and over + self._can.tail_ms > self._now:
            self._start_timer(None, "tail", over + self._can.tail_ms)
        else:
            self._close("end")

    def _stop(self, reason: str) -> None:
        """Stop speaking, then close."""
        self._awaits, self._why = None, reason
        if self._open and self._can.interrupt != "none":
            self.phase = "stopping"
            self._interrupt(None, "stop")
            self._start_timer(None, "stop", self._now + STOP_MS)
        else:
            self._close(reason)

    def _close(self, reason: str, *, lost: bool = False) -> None:
        """Order the end of the session; nothing is open, waited for or timed after this. `lost`: nobody can tell what was heard."""
        self._awaits = None
        for utterance in list(self._open.values()):
            evidence = Evidence.timeout if lost else Evidence.estimated
            self._settle(utterance, evidence, reason if lost else "cut by the end of the session", interrupted=True)
        for name, timer in list(self._timers):
            del self._timers[name, timer]
            self._out.append(CancelTimer(name, timer))
        self.phase = "closing"
        self._out.append(CloseSession(reason))

    def _conclude(
        self, end: Literal["passed", "failed", "stopped", "error"], code: int, reason: str | None = None, step: str | None = None
    ) -> None:
        """The first cause stands. A show that was said in full but whose session could not be ended is no success."""
        if self.result is None:
            self.result = Result(end, code, reason, step)

    def _ignore(self, reason: str, task: str | None = None) -> None:
        self._out.append(Ignored(reason, task))


_STEP_TIMERS = ("at", "wait", "event", "until", "timeout", "settle")
_SPEECH_TIMERS = ("started", "speech", "chunk")

_HANDLERS: dict[type, Callable[[Engine, Any], None]] = {
    SessionOpened: Engine._on_session_opened,
    TaskAccepted: Engine._on_task_accepted,
    SpeechStarted: Engine._on_speech_started,
    SpeechEnded: Engine._on_speech_ended,
    TimerFired: Engine._on_timer_fired,
    Trigger: Engine._on_trigger,
    ProviderFailed: Engine._on_provider_failed,
    SessionClosed: Engine._on_session_closed,
    StopRequested: Engine._on_stop_requested,
}


def session_limit_ms(plan: Plan) -> int | None:
    """How long the session may last: the least of `limits.max_duration`, what `limits.max_cost` buys, and what the provider allows."""
    limits = [limit for limit in (plan.limits.max_duration_ms, plan.capabilities.usable_ms) if limit is not None]
    price = plan.capabilities.price_per_minute
    if plan.limits.max_cost is not None and price:
        limits.append(int(plan.limits.max_cost / price * 60_000))
    return min(limits, default=None)


def _apart(ms: int) -> str:
    return f"{ms} ms after" if ms >= 0 else f"{-ms} ms before"


def _text(step: Step) -> str:
    return step.action.text if isinstance(step.action, Say) else ""


def _name(evidence: Evidence | None) -> str:
    return evidence.name if evidence is not None else "sighted"
