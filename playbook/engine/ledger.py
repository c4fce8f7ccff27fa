"""The ledger: every utterance of a show, what was sighted of it, and on what evidence it is closed.

* An utterance lives from its first chunk until exactly one `speech_ended` closes it. A later and better sighting that agrees raises the
  grade; one that does not is a conflict.
* Sightings are matched by utterance, never by state. One that means nothing now is answered with a note and changes nothing. What a source
  calls a line otherwise is remembered here; vendors translate the ids that they know into tasks, and nothing more.
* A reckoning is a deadline, not a fact: while anybody is there who can tell, an estimated start or end is only taken when the length and
  the margin have passed without a sighting. Where nobody is, the length alone counts.
* Ears report edges; when a silence is the end of a line is decided here.

What the ledger closes or starts by itself has the `outcome` `settled`. What becomes of the cursor is for the engine, which finds in
`moments` what has happened to which utterance.
"""

from __future__ import annotations

from playbook.engine.ears import Ears
from playbook.engine.effects import Effects
from playbook.engine.reckoning import Reckoning
from playbook.engine.utterances import Moment, Utterance, Utterances
from playbook.events import (
    Conflict,
    GradeLowered,
    GradeRaised,
    PlayAudio,
    SayText,
    Silence,
    Sound,
    SourceJoined,
    SourceLeft,
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
GRACE_MS = 1_000
"""How long after an interrupt starts may still be reported that had been under way. What has not begun by then never will."""
AFTER_MS = 200
"""The same, once the line that was being said is reported as cut off."""
DISAGREE_MS = 500
"""From which difference on two sightings of one moment contradict each other."""
OWED = 4
"""How many of the last lines may still be told of by a name that we do not know."""
OTHER_WORDS = "the provider says other words than the plan"
ONLY = "only this line could be meant"

INTERRUPT_TIMERS = (Timer.GRACE, Timer.SETTLE)


class Ledger:
    """The utterances of one plan."""

    def __init__(self, plan: Plan, effects: Effects, lines: Utterances) -> None:
        self._can, self._effects, self._lines = plan.capabilities, effects, lines
        self._ears = Ears(provider=self._can.speech != "none")
        self._reckoning = Reckoning(plan, effects, lines, self._ears)
        self.interrupts: dict[str, Step | None] = {}
        """Those that were not answered yet, by their tasks, and the steps that ordered them."""

    @property
    def stopping(self) -> bool:
        """Whether an interrupt has yet to show its effect."""
        return any(utterance.stopping for utterance in self._lines.open.values())

    # --- sending ----------------------------------------------------------------------------------------------------

    def say(self, step: Step, task: str) -> None:
        """A line begins: send its first chunk, or its sound."""
        self._send(self._lines.new(step, task))

    def _send(self, utterance: Utterance) -> None:
        step, action = utterance.step, utterance.step.action
        utterance.sent += 1
        if isinstance(action, Say):
            chunk = action.chunks[utterance.sent - 1]
            final = utterance.sent == len(action.chunks)
            self._effects.add(SayText(step.id, utterance.task, chunk.text, utterance.sent, final, action.voice, chunk.logged))
        else:
            assert isinstance(action, AudioEcho)
            self._effects.add(PlayAudio(step.id, utterance.task, action.sha256, action.duration_ms))

    def accepted(self, event: TaskAccepted) -> None:
        """The provider has taken a chunk or a sound."""
        utterance = self._lines.open.get(event.task)
        if utterance is None:
            return self._effects.ignore("no such line is open", event.task)
        if utterance.answered == utterance.sent or (event.chunk is not None and event.chunk != utterance.sent):
            return self._effects.ignore("this had been accepted before", event.task)
        utterance.answered += 1
        if utterance.answered == 1 and not self._can.chunks_held:
            self._reckoning.begins(utterance)
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
        utterance.accepted_ms = self._effects.now_ms
        self._reckoning.begins(utterance)
        self._reckoning.expect(utterance)
        self._reckoning.weigh_silence(utterance)
        self._lines.moments.append(Moment("accepted", utterance))

    def failed(self, task: str, refused: bool) -> Utterance | None:
        """A line was refused, or nobody knows whether it was taken. Gives it, closed; None when no such line is open."""
        utterance = self._lines.open.get(task)
        if utterance is None:
            self._effects.ignore("no such line is open", task)
        elif refused:
            self._lines.settle(utterance, Evidence.reported, "refused", interrupted=True)
        else:
            self._lines.settle(utterance, Evidence.timeout, "nobody knows whether it was taken", interrupted=True)
        return utterance

    # --- reckoning --------------------------------------------------------------------------------------------------

    def timer(self, event: TimerFired) -> None:
        """One of the timers of an utterance has come due."""
        assert event.step is not None
        utterance = self._lines.known[event.step]
        if event.reason is Timer.CHUNK:
            self._send(utterance)
        elif event.reason is Timer.STARTED:
            self._reckoning.settle_start(utterance)
        elif event.reason is Timer.SILENCE:
            self._reckoning.fell_silent(utterance)
        else:
            self._reckoning.overdue(utterance, event.due_ms)

    # --- sources ----------------------------------------------------------------------------------------------------

    def joined(self, event: SourceJoined) -> None:
        """Somebody tells of speech from now on."""
        if self._ears.sources.get(event.source) == event.evidence:
            return self._effects.ignore(f"{event.source} had joined")
        self._ears.joined(event.source, event.evidence)
        return self._reckon_anew(event.source)

    def left(self, event: SourceLeft) -> None:
        """Somebody tells nothing any more."""
        if event.source not in self._ears.sources:
            return self._effects.ignore(f"{event.source} had not joined")
        self._ears.left(event.source)
        return self._reckon_anew(event.source)

    def _reckon_anew(self, source: str) -> None:
        """What this source knew of the lines counts no more, and who can tell of their ends has changed."""
        for utterance in list(self._lines.open.values()):
            utterance.quiet.pop(source, None)
            utterance.heard_by.discard(source)
            if not utterance.stopping:
                self._reckoning.expect(utterance)
            self._reckoning.weigh_silence(utterance)

    def sound(self, event: Sound) -> None:
        """An ear began to hear sound."""
        if event.source not in self._ears.sources:
            return self._effects.ignore(f"{event.source} had not joined")
        at = self._effects.when(event.ago_ms)
        utterance = self._ears.sound(event.source, at, self._effects.now_ms, self._lines.past, self._lines.open.values())
        if utterance is None:
            return self._effects.ignore("no line begins with this sound")
        if event.source in utterance.quiet:  # it was a pause
            del utterance.quiet[event.source]
            return self._reckoning.weigh_silence(utterance)
        grade = self._ears.sources[event.source]
        if utterance.started_ms is None:
            ago_ms = self._effects.now_ms - at
            self._effects.add(SpeechStarted(utterance.task, grade, ago_ms=ago_ms, outcome="settled", source=event.source))
            self._lines.begun(utterance, grade, at)
            self._reckoning.expect(utterance)
        elif utterance.started_by is not Evidence.estimated:
            self._compare(utterance, "a start", grade, at, utterance.started_ms, utterance.started_by)
        return None

    def silence(self, event: Silence) -> None:
        """An ear does not hear sound any more."""
        if event.source not in self._ears.sources:
            return self._effects.ignore(f"{event.source} had not joined")
        utterance = self._ears.silence(event.source)
        if utterance is None:
            return self._effects.ignore("no line ends with this sound")
        at = self._effects.when(event.ago_ms)
        if utterance.task not in self._lines.open:
            return self._sighted_again(utterance, event.source, self._ears.sources[event.source], at)
        utterance.quiet[event.source] = at if utterance.started_ms is None else max(at, utterance.started_ms)
        return self._reckoning.weigh_silence(utterance)

    # --- sightings --------------------------------------------------------------------------------------------------

    def started(self, event: SpeechStarted) -> None:
        """The start of a line was sighted, or the words of one."""
        if event.task is None and event.text is not None:
            return self._said(event.text)
        utterance, named = self._meant(event, started=False)
        if utterance is None:
            return self._effects.ignore("no line fits this start", event.task)
        if event.text is not None and (says := spoken(event.text)) != spoken(utterance.text) and says:
            self._effects.add(Conflict(OTHER_WORDS, utterance.task))
            if utterance.started_ms is not None:
                return None
        if utterance.task not in self._lines.open:
            return self._effects.ignore("this line had ended", event.task)
        at = self._effects.when(event.ago_ms)
        if utterance.started_ms is not None:
            if event.evidence is not utterance.started_by:
                return self._compare(utterance, "a start", event.evidence, at, utterance.started_ms, utterance.started_by)
            return self._effects.ignore("this line had started", event.task)
        if not named:
            self._effects.add(
                SpeechStarted(utterance.task, Evidence.unmatched, ago_ms=event.ago_ms, outcome="settled", reason=ONLY, source=event.source)
            )
        grade = event.evidence if named else Evidence.unmatched
        self._lines.begun(utterance, grade, at)
        self._ears.started(utterance)
        if (utterance.task, Timer.SPEECH) in self._effects.timers or (utterance.task, Timer.STARTED) in self._effects.timers:
            self._reckoning.expect(utterance)
        return None

    def _said(self, text: str) -> None:
        """Words of which nobody says whose they are: they are a part of what is being said, or of what comes next."""
        flying = [utterance for utterance in self._lines.open.values() if utterance.answered]
        utterance = next((each for each in flying if each.started_ms is not None), next(iter(flying), None))
        if utterance is None:
            return self._effects.ignore("no line fits these words")
        if spoken(text) not in spoken(utterance.text):
            self._effects.add(Conflict(OTHER_WORDS, utterance.task))
        return None

    def ended(self, event: SpeechEnded) -> None:
        """The end of a line was sighted."""
        utterance, named = self._meant(event, started=True)
        if utterance is None:
            return self._effects.ignore("no line fits this end", event.task)
        at, grade = self._effects.when(event.ago_ms), event.evidence if named else Evidence.unmatched
        if utterance.task not in self._lines.open:
            return self._sighted_again(utterance, event.source, grade, at, interrupted=event.interrupted)
        if self._too_early(utterance, event, at):
            return None
        if named:
            self._lines.closed(utterance, grade, at, interrupted=event.interrupted)
        else:
            self._lines.settle(
                utterance,
                grade,
                ONLY,
                source=event.source,
                at_ms=at,
                interrupted=event.interrupted,
                heard_ms=event.heard_ms,
                duration_ms=event.duration_ms,
            )
        if utterance.stopped is not None and not event.interrupted and at - utterance.stopped_ms >= DISAGREE_MS:
            self._effects.add(Conflict(f"acknowledged, but {utterance.task} was said to its end", utterance.stopped))
        if event.interrupted and utterance.stopped is not None:
            self._await_beginnings(utterance.stopped, AFTER_MS)
        return None

    def _meant(self, event: SpeechStarted | SpeechEnded, *, started: bool) -> tuple[Utterance | None, bool]:
        """The line that a sighting means, and whether it was named by our own name of it."""
        if event.task is not None:
            return self._lines.known.get(event.task), True
        utterance = self._lines.named.get(event.provider_task or "") or self._only_one(event.provider_task, started=started)
        if utterance is not None and event.provider_task is not None:
            self._lines.named[event.provider_task] = utterance
        return utterance, False

    def _only_one(self, name: str | None, *, started: bool) -> Utterance | None:
        """The one line that a sighting without a name of ours can mean: lines begin in their order. One that was called otherwise when it
        began does not end by another name."""
        flying = [u for u in self._lines.open.values() if u.answered]
        fits = [u for u in flying if (u.started_ms is not None) == started]
        if not started:
            return fits[0] if fits else None
        fits = fits or flying
        if len(fits) != 1:
            return None
        if name is None or fits[0] not in self._lines.named.values():
            return fits[0]
        owed = any(line.grade is Evidence.timeout for line in list(self._lines.past)[-OWED:])  # whose end may still come
        return None if owed or len(flying) > 1 else fits[0]

    def _too_early(self, utterance: Utterance, event: SpeechEnded, at_ms: int) -> bool:
        """A line has not ended before its last piece was sent, nor a sound before its known length. Believing that would cut its last
        words."""
        if event.interrupted or utterance.stopping or self._can.speech == "exact":
            return False
        if utterance.sent < utterance.chunks:
            self._effects.add(Conflict(f"{event.evidence.name} before its last piece was sent", utterance.task))
            return True
        if not utterance.exact:
            return False
        end = (utterance.sent_ms if utterance.started_ms is None else utterance.started_ms) + utterance.length_ms
        if end - at_ms < DISAGREE_MS:
            return False
        self._effects.add(Conflict(f"{event.evidence.name} {end - at_ms} ms before the sound can have ended", utterance.task))
        if utterance.ended_ms is None and utterance.started_ms is not None:
            utterance.ended_ms = at_ms
            self._effects.start(utterance.task, Timer.SPEECH, max(end, self._effects.now_ms))
        return True

    def _sighted_again(self, utterance: Utterance, source: str, grade: Evidence, at_ms: int, *, interrupted: bool = False) -> None:
        """A line that is closed is said to have ended once more."""
        assert utterance.ended_ms is not None
        assert utterance.grade is not None
        if abs(at_ms - utterance.ended_ms) < DISAGREE_MS and grade > utterance.grade:
            utterance.grade = grade
            self._effects.add(GradeRaised(utterance.task, source, grade))
        elif interrupted:
            self._effects.ignore("this line had ended", utterance.task)
        else:
            self._compare(utterance, "an end", grade, at_ms, utterance.ended_ms, utterance.grade)

    def _compare(self, utterance: Utterance, what: str, grade: Evidence, at_ms: int, known_ms: int, known_by: Evidence) -> None:
        """A moment is sighted that was known: whether the two agree."""
        apart = at_ms - known_ms
        if abs(apart) < DISAGREE_MS:
            return self._effects.ignore(f"this line had {'started' if what == 'a start' else 'ended'}", utterance.task)
        side = f"{apart} ms after" if apart >= 0 else f"{-apart} ms before"
        told = f"{what} was {_TOLD[grade]} at {at_ms} ms, {side} it was {_TOLD[known_by]} at {known_ms} ms"
        return self._effects.add(Conflict(told, utterance.task))

    # --- closing ----------------------------------------------------------------------------------------------------

    def doubt(self, silent_ms: int | None) -> None:
        """The session has died, and was last known to live `silent_ms` ago. What our reckoning alone closed since may have been cut."""
        alive_ms = 0 if silent_ms is None else self._effects.now_ms - silent_ms
        for utterance in self._lines.past:
            if utterance.grade is Evidence.estimated and utterance.ended_ms is not None and utterance.ended_ms > alive_ms:
                utterance.grade = Evidence.timeout
                self._effects.add(GradeLowered(utterance.task, Evidence.timeout, "the session may have died before its end"))

    # --- interrupts -------------------------------------------------------------------------------------------------

    def interrupt(self, step: Step | None, task: str) -> None:
        """Stop what is open. Chunks that were not sent yet never will be."""
        self.interrupts[task] = step
        for utterance in self._lines.open.values():
            utterance.stopping = True
            self._effects.cancel(utterance.task, Timer.CHUNK)
        self._effects.add(StopSpeaking(step.id if step is not None else None, task))

    def acknowledged(self, task: str) -> bool:
        """The provider has taken an interrupt: whether what it hit has still to be reported."""
        del self.interrupts[task]
        if self._can.speech == "none":
            self._settle_interrupted()
        still = [utterance for utterance in self._lines.open.values() if utterance.stopping]
        for utterance in still:
            utterance.stopped, utterance.stopped_ms = task, self._effects.now_ms
            self._reckoning.weigh_silence(utterance)
        return bool(still)

    def await_effect(self, task: str) -> None:
        """What this interrupt hit has its time to be reported, from now on."""
        self._await_beginnings(task, GRACE_MS)
        self._effects.start(task, Timer.SETTLE, self._effects.now_ms + SETTLE_MS)

    def _await_beginnings(self, task: str, ms: int) -> None:
        """What this interrupt hit before it began may be told of for so long. That it did not begin is hardly ever told."""
        drops = self._can.speech == "reported" and self._can.interrupt != "current"
        if drops and any(u.stopped == task and u.started_ms is None for u in self._lines.open.values()):
            self._effects.start(task, Timer.GRACE, self._effects.now_ms + ms)

    def refused(self, task: str) -> None:
        """The provider has not taken an interrupt: what no other one has stopped goes on."""
        del self.interrupts[task]
        if not self.interrupts:
            for utterance in [u for u in self._lines.open.values() if u.stopping and u.stopped is None]:
                self._spare(utterance)

    def _spare(self, utterance: Utterance) -> None:
        """The interrupt does not hit this line after all: do what was put off because of it."""
        utterance.stopping = False
        if utterance.accepted_ms is None and utterance.answered == utterance.sent:
            self._go_on(utterance)

    def interrupt_timer(self, event: TimerFired) -> None:
        """What an acknowledged interrupt was to stop has had its time to begin, or to say that it stopped. (A later one's has it still.)"""
        assert event.step is not None
        if event.reason is Timer.GRACE:
            self._settle_unbegun(event.step)
            return
        for utterance in [u for u in self._lines.open.values() if u.stopped == event.step]:
            self._lines.settle(utterance, Evidence.timeout, "the provider did not say that it stopped", interrupted=True)

    def _settle_unbegun(self, interrupt: str) -> None:
        """What this interrupt stopped and what has not begun by now never will."""
        for utterance in [u for u in self._lines.open.values() if u.stopped == interrupt and u.started_ms is None]:
            self._lines.settle(utterance, Evidence.estimated, "stopped before it began; that is not reported", interrupted=True)

    def _settle_interrupted(self) -> None:
        """Nobody will report what the interrupt hit: say what is certain and what is only probable."""
        scope, begins = self._can.interrupt, self._effects.now_ms
        for utterance in [u for u in self._lines.open.values() if u.stopping]:
            if utterance.started_ms is not None:
                self._lines.settle(utterance, Evidence.estimated, "interrupted while it was being said", interrupted=True)
            elif scope == "current":  # what is queued survives and moves up
                utterance.begins_ms = begins + self._can.start_latency_ms
                begins = utterance.begins_ms + utterance.length_ms
                if utterance.accepted_ms is not None:
                    self._reckoning.expect(utterance)
                self._spare(utterance)
            else:
                reason = "stopped before it began" if scope == "all" else "probably stopped before it began"
                self._lines.settle(utterance, Evidence.estimated, reason, interrupted=True)


_TOLD = {
    Evidence.reported: "reported",
    Evidence.unmatched: "reported",
    Evidence.heard: "heard",
    Evidence.estimated: "estimated",
    Evidence.timeout: "given up",
}
