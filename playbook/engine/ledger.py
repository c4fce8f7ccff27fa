"""The ledger: every utterance of a show, what was sighted of it, and on what evidence it is closed.

* An utterance lives from its first chunk until exactly one `speech_ended` closes it.
* Sightings are matched by utterance, never by state. One that means nothing now is answered with a note and changes nothing.
* Where a provider reports no speech, utterances are closed by the plan's lengths; where it reports and stays silent, by the
  estimate and its margin. Such sightings are the ledger's own: their `outcome` is `settled`.

What becomes of the cursor is for the engine, which finds in `moments` what has happened to which utterance.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from playbook.engine.effects import NOTICEABLE_MS, Effects
from playbook.events import (
    Conflict,
    PlayAudio,
    SayText,
    SpeechEnded,
    SpeechStarted,
    StopSpeaking,
    TaskAccepted,
    Timer,
    TimerFired,
    spoken,
)
from playbook.model import AudioEcho, Evidence, Plan, Say, Step

SETTLE_MS = 3_000
"""How long after an acknowledged interrupt the provider may take to report the ends that it caused."""
WAKE_MS = 1_000
"""How long a process that was suspended listens before it says that nothing was reported."""
DISAGREE_MS = 500
"""From which difference on two sightings of one moment contradict each other."""
REMEMBERED = 256
"""How many closed lines are kept for what may still be told of them, so that a show of any length needs the same memory."""

ONLY = "only this line could be meant"

SPEECH_TIMERS = (Timer.STARTED, Timer.SPEECH, Timer.CHUNK)


@dataclass(slots=True, eq=False)
class Utterance:
    """One piece of speech, from its first chunk to its closing `speech_ended`."""

    step: Step
    task: str
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
    def chunks(self) -> int:
        """How many pieces it is sent in."""
        return len(self.step.action.chunks) if isinstance(self.step.action, Say) else 1

    @property
    def text(self) -> str:
        """What is said; empty for a sound."""
        return self.step.action.text if isinstance(self.step.action, Say) else ""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something happened to an utterance that the cursor may have waited for."""

    what: Literal["accepted", "started", "closed"]
    utterance: Utterance


class Ledger:
    """The utterances of one plan."""

    def __init__(self, plan: Plan, effects: Effects) -> None:
        self._can, self._margin_ms = plan.capabilities, plan.limits.speech_margin_ms
        self._effects = effects
        self.open: dict[str, Utterance] = {}
        """Those that are not closed, in the order in which they are heard."""
        self.quiet_since_ms: int | None = None
        """When the last line was closed."""
        self.interrupts: dict[str, Step | None] = {}
        """Those that were not answered yet, by their tasks, and the steps that ordered them."""
        self.moments: list[Moment] = []
        self._all: dict[str, Utterance] = {}  # the open ones, and the last that were closed
        self._past: deque[str] = deque()  # the tasks of those, oldest first

    @property
    def stopping(self) -> bool:
        """Whether an interrupt has yet to show its effect."""
        return any(utterance.stopping for utterance in self.open.values())

    # --- sending ----------------------------------------------------------------------------------------------------

    def say(self, step: Step, task: str) -> None:
        """A line begins: send its first chunk, or its sound."""
        utterance = Utterance(step, task, step.length.ms, step.length.basis == "exact")
        self._all[task] = self.open[task] = utterance
        self._send(utterance)

    def _send(self, utterance: Utterance) -> None:
        step, action = utterance.step, utterance.step.action
        utterance.sent += 1
        if isinstance(action, Say):
            chunk = action.chunks[utterance.sent - 1]
            final = utterance.sent == len(action.chunks)
            self._effects.add(SayText(step.id, utterance.task, chunk.text, utterance.sent, final, action.voice, chunk.shown))
        else:
            assert isinstance(action, AudioEcho)
            self._effects.add(PlayAudio(step.id, utterance.task, action.sha256, action.duration_ms))

    def accepted(self, event: TaskAccepted) -> None:
        """The provider has taken a chunk or a sound."""
        utterance = self.open.get(event.task)
        if utterance is None:
            return self._effects.ignore("no such line is open", event.task)
        if utterance.answered == utterance.sent or (event.chunk is not None and event.chunk != utterance.sent):
            return self._effects.ignore("this had been accepted before", event.task)
        utterance.answered += 1
        if utterance.answered == 1 and not self._can.chunks_held:
            self._reckon_begin(utterance)
        if utterance.sent < utterance.chunks:
            assert isinstance(utterance.step.action, Say)
            utterance.next_ms = self._effects.now_ms + utterance.step.action.chunks[utterance.sent].after_ms
        elif event.duration_ms is not None:
            utterance.length_ms, utterance.exact = event.duration_ms, True
        if not utterance.stopping:
            self._go_on(utterance)
        return None

    def _go_on(self, utterance: Utterance) -> None:
        """All that was sent has been taken: send what follows, or wait for the speech."""
        if utterance.sent < utterance.chunks:
            if utterance.next_ms > self._effects.now_ms:
                self._effects.start(utterance.task, Timer.CHUNK, utterance.next_ms)
            else:
                self._send(utterance)
            return
        utterance.accepted = True
        self._reckon_begin(utterance)
        self._expect_speech(utterance)
        self.moments.append(Moment("accepted", utterance))

    def failed(self, task: str, refused: bool) -> Utterance | None:
        """A line was refused, or nobody knows whether it was taken. Gives it, closed; None when no such line is open."""
        utterance = self.open.get(task)
        if utterance is None:
            self._effects.ignore("no such line is open", task)
        elif refused:
            self._settle(utterance, Evidence.reported, "refused", interrupted=True)
        else:
            self._settle(utterance, Evidence.timeout, "nobody knows whether it was taken", interrupted=True)
        return utterance

    # --- reckoning --------------------------------------------------------------------------------------------------

    def _reckon_begin(self, utterance: Utterance) -> None:
        """When it should be heard: after what is queued before it."""
        if utterance.begins_ms is None:
            soonest = self._effects.now_ms + self._can.start_latency_ms
            last = next((u for u in reversed(self.open.values()) if u.begins_ms is not None), None)
            over = 0 if last is None or last.begins_ms is None else last.begins_ms + last.length_ms
            utterance.begins_ms = max(soonest, over)

    def _expect_speech(self, utterance: Utterance) -> None:
        """An accepted line has to begin and end some time: set the timer that speaks when nobody else does."""
        assert utterance.begins_ms is not None
        now = self._effects.now_ms
        if self._can.speech == "none":
            if utterance.begins_ms > now:
                self._effects.start(utterance.task, Timer.STARTED, utterance.begins_ms)
            else:
                self._settle_start(utterance)
        elif self._can.speech == "reported":
            begun = utterance.begins_ms if utterance.started_ms is None else utterance.started_ms
            self._effects.start(utterance.task, Timer.SPEECH, max(begun, now) + utterance.length_ms + self._margin_ms)

    def _settle_start(self, utterance: Utterance) -> None:
        """By our reckoning the line is heard from now on; `begins_ms` may lie a little back, and the length counts from there."""
        assert utterance.begins_ms is not None
        self._effects.add(SpeechStarted(utterance.task, Evidence.estimated, outcome="settled", source="plan"))
        end = max(self._effects.now_ms, utterance.begins_ms + utterance.length_ms)
        self._effects.start(utterance.task, Timer.SPEECH, end)
        self._started(utterance, Evidence.estimated)

    def timer(self, event: TimerFired) -> None:
        """One of the timers of an utterance has come due."""
        assert event.step is not None
        utterance = self._all[event.step]
        if event.reason is Timer.CHUNK:
            self._send(utterance)
        elif event.reason is Timer.STARTED:
            self._settle_start(utterance)
        else:
            self._overdue(utterance, event.due_ms)

    def _overdue(self, utterance: Utterance, due_ms: int) -> None:
        """It should have ended."""
        now = self._effects.now_ms
        if self._can.speech == "none":
            basis = "the length is known" if utterance.exact else "the length is estimated"
            self._settle(utterance, Evidence.estimated, basis)
        elif utterance.ended_ms is not None:
            self._settle(utterance, Evidence.estimated, "the sound's own length; the provider reported its end too early")
        elif now - due_ms >= NOTICEABLE_MS:  # we were asleep; what was reported meanwhile may still be on its way to us
            self._effects.start(utterance.task, Timer.SPEECH, now + WAKE_MS)
        elif utterance.started_ms is None and utterance is not next(iter(self.open.values())):  # it cannot begin before its turn
            self._effects.start(utterance.task, Timer.SPEECH, now + utterance.length_ms + self._margin_ms)
        else:
            what = "a start" if utterance.started_ms is None else "the end"
            self._settle(utterance, Evidence.timeout, f"the provider never reported {what}")

    # --- sightings --------------------------------------------------------------------------------------------------

    def started(self, event: SpeechStarted) -> None:
        """The start of a line was sighted, or the words of one."""
        utterance = self._all.get(event.task) if event.task is not None else self._only_one(started=False)
        if utterance is None:
            return self._effects.ignore("no line fits this start", event.task)
        if event.text is not None and (says := spoken(event.text)) != spoken(utterance.text) and says:
            self._effects.add(Conflict("the provider says other words than the plan", utterance.task))
            if utterance.started_ms is not None:
                return None
        if utterance.task not in self.open:
            return self._effects.ignore("this line had ended", event.task)
        now = self._effects.now_ms
        if utterance.started_ms is not None:
            apart = now - (event.ago_ms or 0) - utterance.started_ms
            if event.evidence is not utterance.started_by and abs(apart) >= DISAGREE_MS:
                before = _name(utterance.started_by)
                self._effects.add(Conflict(f"{event.evidence.name} {_apart(apart)} it was {before}", event.task))
                return None
            return self._effects.ignore("this line had started", event.task)
        if event.task is None:
            self._effects.add(SpeechStarted(utterance.task, Evidence.unmatched, outcome="settled", reason=ONLY, source=event.source))
        if self._can.speech == "reported" and (utterance.task, Timer.SPEECH) in self._effects.timers:
            self._effects.start(utterance.task, Timer.SPEECH, now + utterance.length_ms + self._margin_ms)
        self._started(utterance, event.evidence)
        return None

    def _started(self, utterance: Utterance, evidence: Evidence) -> None:
        utterance.started_ms = utterance.begins_ms = self._effects.now_ms
        utterance.started_by = evidence
        self.moments.append(Moment("started", utterance))

    def ended(self, event: SpeechEnded) -> None:
        """The end of a line was sighted."""
        utterance = self._all.get(event.task) if event.task is not None else self._only_one(started=True)
        if utterance is None:
            return self._effects.ignore("no line fits this end", event.task)
        now = self._effects.now_ms
        if utterance.task not in self.open:
            apart = now - (event.ago_ms or 0) - (utterance.ended_ms or 0)
            if abs(apart) >= DISAGREE_MS and not event.interrupted:
                self._effects.add(Conflict(f"{event.evidence.name} {_apart(apart)} the line was closed", event.task))
                return None
            return self._effects.ignore("this line had ended", event.task)
        if self._too_early(utterance, event):
            return None
        if event.task is None:
            self._settle(
                utterance,
                Evidence.unmatched,
                ONLY,
                source=event.source,
                interrupted=event.interrupted,
                heard_ms=event.heard_ms,
                duration_ms=event.duration_ms,
            )
        else:
            self._closed(utterance)
        if utterance.stopped is not None and not event.interrupted:
            interrupt, since = utterance.stopped
            if now - since >= DISAGREE_MS:
                self._effects.add(Conflict(f"acknowledged, but {utterance.task} was said to its end", interrupt))
        return None

    def _too_early(self, utterance: Utterance, event: SpeechEnded) -> bool:
        """A sound whose length is known cannot have ended before it. Believing that would cut its last words."""
        if event.interrupted or utterance.stopping or not utterance.exact or utterance.started_ms is None or self._can.speech == "exact":
            return False
        now, end = self._effects.now_ms, utterance.started_ms + utterance.length_ms
        if end - now < DISAGREE_MS:
            return False
        self._effects.add(Conflict(f"{event.evidence.name} {end - now} ms before the sound can have ended", utterance.task))
        if utterance.ended_ms is None:
            utterance.ended_ms = now
            self._effects.start(utterance.task, Timer.SPEECH, end)
        return True

    def _only_one(self, *, started: bool) -> Utterance | None:
        """The one line that a sighting without a name can mean."""
        fits = [u for u in self.open.values() if u.answered and (u.started_ms is not None) == started]
        if started and not fits:
            fits = [u for u in self.open.values() if u.answered]
        return fits[0] if len(fits) == 1 else None

    # --- closing ----------------------------------------------------------------------------------------------------

    def _settle(
        self,
        utterance: Utterance,
        evidence: Evidence,
        reason: str,
        *,
        source: str = "plan",
        interrupted: bool = False,
        heard_ms: int | None = None,
        duration_ms: int | None = None,
    ) -> None:
        """Close an utterance by our own reckoning. What an interrupted line lets be heard is counted here, if nobody else did."""
        if interrupted and heard_ms is None:
            started_ms = utterance.started_ms
            heard_ms = 0 if started_ms is None else min(self._effects.now_ms - started_ms, utterance.length_ms)
        self._effects.add(
            SpeechEnded(
                utterance.task,
                evidence,
                duration_ms=duration_ms,
                interrupted=interrupted,
                heard_ms=heard_ms,
                outcome="settled",
                reason=reason,
                source=source,
            )
        )
        self._closed(utterance)

    def _closed(self, utterance: Utterance) -> None:
        del self.open[utterance.task]
        utterance.ended_ms = self.quiet_since_ms = self._effects.now_ms
        self._past.append(utterance.task)
        if len(self._past) > REMEMBERED:
            del self._all[self._past.popleft()]
        for timer in SPEECH_TIMERS:
            self._effects.cancel(utterance.task, timer)
        if utterance.stopped is not None:
            interrupt = utterance.stopped[0]
            if not any(other.stopped is not None and other.stopped[0] == interrupt for other in self.open.values()):
                self._effects.cancel(interrupt, Timer.SETTLE)
        self.moments.append(Moment("closed", utterance))

    def close_all(self, evidence: Evidence, reason: str) -> None:
        """The session is being closed: whatever is open is cut by that."""
        for utterance in list(self.open.values()):
            self._settle(utterance, evidence, reason, interrupted=True)

    # --- interrupts -------------------------------------------------------------------------------------------------

    def interrupt(self, step: Step | None, task: str) -> None:
        """Stop what is open. Chunks that were not sent yet never will be."""
        self.interrupts[task] = step
        for utterance in self.open.values():
            utterance.stopping = True
            self._effects.cancel(utterance.task, Timer.CHUNK)
        self._effects.add(StopSpeaking(step.id if step is not None else None, task))

    def acknowledged(self, task: str) -> bool:
        """The provider has taken an interrupt: whether what it hit has still to be reported."""
        del self.interrupts[task]
        if self._can.speech == "none":
            self._settle_interrupted()
        still = [utterance for utterance in self.open.values() if utterance.stopping]
        for utterance in still:
            utterance.stopped = task, self._effects.now_ms
        return bool(still)

    def await_effect(self, task: str) -> None:
        """What this interrupt hit has its time to be reported, from now on."""
        self._effects.start(task, Timer.SETTLE, self._effects.now_ms + SETTLE_MS)

    def refused(self, task: str) -> None:
        """The provider has not taken an interrupt: what no other one has stopped goes on."""
        del self.interrupts[task]
        if not self.interrupts:
            for utterance in [u for u in self.open.values() if u.stopping and u.stopped is None]:
                self._spare(utterance)

    def _spare(self, utterance: Utterance) -> None:
        """The interrupt does not hit this line after all: do what was put off because of it."""
        utterance.stopping = False
        if not utterance.accepted and utterance.answered == utterance.sent:
            self._go_on(utterance)

    def _settle_interrupted(self) -> None:
        """Nobody will report what the interrupt hit: say what is certain and what is only probable."""
        scope, begins = self._can.interrupt, self._effects.now_ms
        for utterance in [u for u in self.open.values() if u.stopping]:
            if utterance.started_ms is not None:
                self._settle(utterance, Evidence.estimated, "interrupted while it was being said", interrupted=True)
            elif scope == "current":  # what is queued survives and moves up
                utterance.begins_ms = begins + self._can.start_latency_ms
                begins = utterance.begins_ms + utterance.length_ms
                if utterance.accepted:
                    self._effects.start(utterance.task, Timer.STARTED, utterance.begins_ms)
                self._spare(utterance)
            else:
                reason = "stopped before it began" if scope == "all" else "probably stopped before it began"
                self._settle(utterance, Evidence.estimated, reason, interrupted=True)

    def settle_stopped(self, interrupt: str) -> None:
        """What an acknowledged interrupt was to stop has had its time to say so. (A later one's has it still.)"""
        for utterance in [u for u in self.open.values() if u.stopped is not None and u.stopped[0] == interrupt]:
            self._settle(utterance, Evidence.timeout, "the provider did not say that it stopped", interrupted=True)


def _apart(ms: int) -> str:
    return f"{ms} ms after" if ms >= 0 else f"{-ms} ms before"


def _name(evidence: Evidence | None) -> str:
    return evidence.name if evidence is not None else "sighted"
