"""Pieces of speech, and what is known of each: values with the arithmetic that belongs to them, and the one place where they begin and
are closed. What a sighting means is for the `ledger`, what to do when there is none for `reckoning`."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from playbook.engine.effects import Effects
from playbook.events import SpeechEnded, Timer
from playbook.model import Evidence, Say, Step

REMEMBERED = 256
"""How many closed lines are kept for what may still be told of them, so that a show of any length needs the same memory."""
LEARN_MS = 3_000
"""How much speech must have been heard before it says anything of the lines that follow."""
SPEECH_TIMERS = (Timer.STARTED, Timer.SPEECH, Timer.CHUNK, Timer.SILENCE)

PAUSE_MS = 600
"""A silence that has lasted so long is the end of a line of which half should have been heard: pauses between sentences are shorter."""
LONG_PAUSE_MS = 2_000
"""A silence that has lasted so long is the end of a line in any case."""
MARGIN_SHARE = 4
"""The margin is at least this part of an estimated length: the error of an estimate grows with the length."""


@dataclass(slots=True, eq=False)
class Utterance:
    """One piece of speech, from its first chunk to its closing `speech_ended`."""

    step: Step
    task: str
    length_ms: int
    exact: bool
    sent_ms: int = 0
    sent: int = 0  # chunks handed over so far
    answered: int = 0  # chunks the provider has taken
    next_ms: int = 0  # when the next chunk is due
    begins_ms: int | None = None  # when it should be heard, by our reckoning
    accepted_ms: int | None = None  # when its last chunk was taken
    started_ms: int | None = None
    started_by: Evidence = Evidence.estimated
    ended_ms: int | None = None
    grade: Evidence | None = None  # on what evidence it is closed
    stopping: bool = False  # an interrupt is meant to hit it
    stopped: str | None = None  # the task of that interrupt, once the provider has acknowledged it
    stopped_ms: int = 0
    heard_by: set[str] = field(default_factory=set)  # the ears that have heard its sound
    quiet: dict[str, int] = field(default_factory=dict)  # those for which its sound has stopped, and when

    @property
    def open(self) -> bool:
        """Whether it is not closed yet."""
        return self.grade is None

    @property
    def chunks(self) -> int:
        """How many pieces it is sent in."""
        return len(self.step.action.chunks) if isinstance(self.step.action, Say) else 1

    @property
    def text(self) -> str:
        """What is said; empty for a sound."""
        return self.step.action.text if isinstance(self.step.action, Say) else ""

    def margin_ms(self, least_ms: int) -> int:
        """How long past its length a report of its end may take."""
        return least_ms if self.exact else max(least_ms, self.length_ms // MARGIN_SHARE)

    def over_ms(self, source: str, *, better: bool, latency_ms: int) -> int | None:
        """When the silence that this ear tells of will have been the end of the line, if it lasts. `better`: one with a better grade may
        still tell. None: pieces of the line are still to be sent."""
        if self.accepted_ms is None:
            return None
        assert self.started_ms is not None
        since_ms = self.quiet[source]
        if self.stopped is not None:
            return max(since_ms, self.stopped_ms) + PAUSE_MS
        due_ms = since_ms + LONG_PAUSE_MS
        if not better:
            due_ms = min(due_ms, max(since_ms + PAUSE_MS, self.started_ms + self.length_ms // 2))
        if since_ms < self.accepted_ms:  # it stopped for want of the last piece, which has yet to be heard
            due_ms = max(due_ms, self.accepted_ms + latency_ms + LONG_PAUSE_MS)
        return max(due_ms, self.silent_from_ms(since_ms))

    def silent_from_ms(self, since_ms: int) -> int:
        """When it ended, if the silence that began then is its end: a sound of known length never ends before that."""
        if self.exact and self.started_ms is not None and self.stopped is None:
            return max(since_ms, self.started_ms + self.length_ms)
        return since_ms


@dataclass(frozen=True, slots=True)
class Moment:
    """Something happened to an utterance that the cursor may have waited for."""

    what: Literal["accepted", "started", "closed"]
    utterance: Utterance


class Utterances:
    """All of a performance: the open ones, the last that were closed, and what has just happened to them."""

    def __init__(self, effects: Effects) -> None:
        self._effects = effects
        self.open: dict[str, Utterance] = {}
        """Those that are not closed, in the order in which they are heard."""
        self.known: dict[str, Utterance] = {}
        """Those, and the last that were closed, by their tasks."""
        self.past: deque[Utterance] = deque()
        """The last that were closed, oldest first."""
        self.named: dict[str, Utterance] = {}
        """By what a source called one of them that did not know its task."""
        self.moments: list[Moment] = []
        self.quiet_since_ms: int | None = None
        """When the last line was over."""
        self._lasted_ms = self._estimated_ms = 0  # of lines of which both are known

    def new(self, step: Step, task: str) -> Utterance:
        """One that is said from now on."""
        exact = step.length.basis == "exact"
        length_ms = step.length.ms if exact else self._likely_ms(step.length.ms)
        utterance = Utterance(step, task, length_ms, exact, sent_ms=self._effects.now_ms)
        self.known[task] = self.open[task] = utterance
        return utterance

    def _likely_ms(self, estimate_ms: int) -> int:
        """An estimate in the light of the lines before: a voice that is slower than estimated stays so."""
        if self._lasted_ms <= self._estimated_ms or self._estimated_ms < LEARN_MS:
            return estimate_ms
        return min(2 * estimate_ms, estimate_ms * self._lasted_ms // self._estimated_ms)

    def _learn(self, utterance: Utterance, ended_ms: int) -> None:
        if (
            utterance.started_ms is not None
            and utterance.started_by != Evidence.estimated
            and not utterance.exact
            and utterance.chunks == 1
        ):
            self._lasted_ms += ended_ms - utterance.started_ms
            self._estimated_ms += utterance.step.length.ms

    def begun(self, utterance: Utterance, grade: Evidence, at_ms: int) -> None:
        """It is heard since then."""
        utterance.started_ms, utterance.started_by = at_ms, grade
        utterance.begins_ms = at_ms
        self.moments.append(Moment("started", utterance))

    def settle(
        self,
        utterance: Utterance,
        grade: Evidence,
        reason: str | None,
        *,
        source: str = "plan",
        at_ms: int | None = None,
        interrupted: bool = False,
        heard_ms: int | None = None,
        duration_ms: int | None = None,
    ) -> None:
        """Close an utterance ourselves. What an interrupted line lets be heard is counted here, if nobody else did."""
        now, started_ms = self._effects.now_ms, utterance.started_ms
        at_ms = now if at_ms is None else at_ms
        if interrupted and heard_ms is None:
            heard_ms = 0 if started_ms is None else min(at_ms - started_ms, utterance.length_ms)
        self._effects.add(
            SpeechEnded(
                utterance.task,
                grade,
                duration_ms=duration_ms,
                ago_ms=now - at_ms or None,
                interrupted=interrupted,
                heard_ms=heard_ms,
                outcome="settled",
                reason=reason,
                source=source,
            )
        )
        self.closed(utterance, grade, at_ms, interrupted=interrupted)

    def close_all(self, grade: Evidence, reason: str) -> None:
        """The session is being closed: whatever is open is cut by that."""
        for utterance in list(self.open.values()):
            self.settle(utterance, grade, reason, interrupted=True)

    def closed(self, utterance: Utterance, grade: Evidence, at_ms: int, *, interrupted: bool) -> None:
        """Its end was sighted, or settled."""
        del self.open[utterance.task]
        utterance.grade, utterance.ended_ms = grade, at_ms
        self.quiet_since_ms = at_ms
        if grade >= Evidence.heard and not interrupted:
            self._learn(utterance, at_ms)
        self.past.append(utterance)
        if len(self.past) > REMEMBERED:
            self._forget(self.past.popleft())
        for timer in SPEECH_TIMERS:
            self._effects.cancel(utterance.task, timer)
        if utterance.stopped is not None and not any(other.stopped == utterance.stopped for other in self.open.values()):
            self._effects.cancel(utterance.stopped, Timer.GRACE)
            self._effects.cancel(utterance.stopped, Timer.SETTLE)
        self.moments.append(Moment("closed", utterance))

    def _forget(self, utterance: Utterance) -> None:
        if self.known.get(utterance.task) is utterance:
            del self.known[utterance.task]
        for name in [name for name, other in self.named.items() if other is utterance]:
            del self.named[name]
