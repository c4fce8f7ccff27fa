"""Our own reckoning of speech: a deadline where anybody is there who can tell, and what counts where nobody is.

A silence is a deadline, too: a pause inside a line is not its end, so it has to last.
"""

from __future__ import annotations

from playbook.engine.ears import Ears
from playbook.engine.effects import NOTICEABLE_MS, Effects
from playbook.engine.utterances import Utterance, Utterances
from playbook.events import SpeechStarted, Timer
from playbook.model import Evidence, Plan

WAKE_MS = 1_000
"""How long a process that was suspended listens before it says that nothing was reported."""


class Reckoning:
    """When a line should be heard and over, and what is done when nobody has said so by then."""

    def __init__(self, plan: Plan, effects: Effects, lines: Utterances, ears: Ears) -> None:
        self._can, self._margin_ms = plan.capabilities, plan.limits.speech_margin_ms
        self._effects, self._lines, self._ears = effects, lines, ears

    def begins(self, utterance: Utterance) -> None:
        """When it should be heard: after what is queued before it."""
        if utterance.begins_ms is None:
            soonest = self._effects.now_ms + self._can.start_latency_ms
            last = next((u for u in reversed(self._lines.open.values()) if u.begins_ms is not None), None)
            over = 0 if last is None or last.begins_ms is None else last.begins_ms + last.length_ms
            utterance.begins_ms = max(soonest, over)

    def expect(self, utterance: Utterance) -> None:
        """An accepted line has to begin and end some time: set the timer that speaks when nobody else does."""
        if self._can.speech == "exact" or utterance.accepted_ms is None or utterance.begins_ms is None:
            return None
        now, sources = self._effects.now_ms, self._ears.sources
        started, margin_ms = utterance.started_ms, utterance.margin_ms(self._margin_ms)
        if not sources and started is None and utterance.begins_ms > now:
            self._effects.cancel(utterance.task, Timer.SPEECH)
            return self._effects.start(utterance.task, Timer.STARTED, utterance.begins_ms)
        self._effects.cancel(utterance.task, Timer.STARTED)
        if not sources and started is None:
            return self.settle_start(utterance)
        if not sources:
            due = max(now, utterance.begins_ms + utterance.length_ms)
        elif started is None and self._ears.listening:  # it has to begin, at least
            due = max(utterance.begins_ms, now) + margin_ms
        elif self._ears.reporting:
            due = max(utterance.begins_ms if started is None else started, now) + utterance.length_ms + margin_ms
        else:
            due = max(now, utterance.begins_ms + utterance.length_ms + margin_ms)
        return self._effects.start(utterance.task, Timer.SPEECH, due)

    def settle_start(self, utterance: Utterance) -> None:
        """By our reckoning the line is heard from now on; `begins_ms` may lie a little back, and the length counts from there."""
        assert utterance.begins_ms is not None
        now, begins = self._effects.now_ms, utterance.begins_ms
        ago_ms = now - begins if now - begins >= NOTICEABLE_MS else None
        self._effects.add(SpeechStarted(utterance.task, Evidence.estimated, ago_ms=ago_ms, outcome="settled", source="plan"))
        self._effects.start(utterance.task, Timer.SPEECH, max(now, begins + utterance.length_ms))
        self._lines.begun(utterance, Evidence.estimated, now if ago_ms is None else begins)

    def overdue(self, utterance: Utterance, due_ms: int) -> None:
        """It should have ended, or begun."""
        now, sources, margin_ms = self._effects.now_ms, self._ears.sources, utterance.margin_ms(self._margin_ms)
        if not sources:
            basis = "the length is known" if utterance.exact else "the length is estimated"
            self._lines.settle(utterance, Evidence.estimated, basis)
        elif utterance.ended_ms is not None:
            self._lines.settle(utterance, Evidence.estimated, "the sound's own length; its end was reported too early")
        elif now - due_ms >= NOTICEABLE_MS:  # we were asleep; what was reported meanwhile may still be on its way to us
            self._effects.start(utterance.task, Timer.SPEECH, now + WAKE_MS)
        elif utterance.started_ms is None and utterance is not next(iter(self._lines.open.values())):  # it cannot begin before its turn
            self._effects.start(utterance.task, Timer.SPEECH, now + utterance.length_ms + margin_ms)
        elif (silent := self._effects.timers.get((utterance.task, Timer.SILENCE))) is not None:  # which decides
            self._effects.start(utterance.task, Timer.SPEECH, silent + margin_ms)
        elif self._ears.hear(utterance) and now < self._at_most_ms(utterance):  # whatever the estimate says, it goes on
            self._effects.start(utterance.task, Timer.SPEECH, min(now + margin_ms, self._at_most_ms(utterance)))
        elif self._ears.reporting:
            what = "a start" if utterance.started_ms is None else "the end"
            self._lines.settle(utterance, Evidence.timeout, f"the provider never reported {what}")
        elif utterance.started_ms is not None:
            basis = "known" if utterance.exact else "estimated"
            self._lines.settle(utterance, Evidence.estimated, f"no end was sighted; the length is {basis}")
        elif self._ears.listening and not self._ears.hear():
            self._lines.settle(utterance, Evidence.timeout, "nothing was heard")
        else:  # nobody can tell whether what is heard is this line
            self.settle_start(utterance)

    def _at_most_ms(self, utterance: Utterance) -> int:
        """When sound that goes on is no line's any more."""
        assert utterance.started_ms is not None
        return utterance.started_ms + 2 * (utterance.length_ms + utterance.margin_ms(self._margin_ms))

    def weigh_silence(self, utterance: Utterance) -> None:
        """When the silence of a line is long enough to be its end."""
        due = self._silence_due(utterance)
        if due is None:
            self._effects.cancel(utterance.task, Timer.SILENCE)
        elif self._effects.timers.get((utterance.task, Timer.SILENCE)) != due[0]:
            self._effects.start(utterance.task, Timer.SILENCE, max(due[0], self._effects.now_ms))

    def _silence_due(self, utterance: Utterance) -> tuple[int, str] | None:
        """When, and by which ear."""
        if utterance.started_ms is None:
            return None
        latency_ms, found = self._can.start_latency_ms, []
        for source in utterance.quiet:
            due_ms = utterance.over_ms(source, better=self._ears.better(source), latency_ms=latency_ms)
            if due_ms is not None:
                found.append((due_ms, source))
        return min(found, default=None)

    def fell_silent(self, utterance: Utterance) -> None:
        """The silence has lasted long enough."""
        due = self._silence_due(utterance)
        assert due is not None
        source, started = due[1], utterance.started_ms
        at = utterance.silent_from_ms(utterance.quiet[source])
        cut = utterance.stopping
        heard_ms = at - started if cut and started is not None else None
        self._lines.settle(utterance, self._ears.sources[source], None, source=source, at_ms=at, interrupted=cut, heard_ms=heard_ms)
