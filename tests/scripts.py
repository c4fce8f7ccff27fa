"""Plans put together by hand, and an engine driver for tests: `drive` performs a plan against a provider that a few lines describe."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from playbook.engine import Engine
from playbook.events import (
    CancelTimer,
    CloseSession,
    Effect,
    Event,
    OpenSession,
    PlayAudio,
    ProviderFailed,
    SayText,
    SessionClosed,
    SessionOpened,
    SpeechEnded,
    SpeechStarted,
    StartTimer,
    StopSpeaking,
    TaskAccepted,
    Timer,
    TimerFired,
)
from playbook.model import Action, AudioEcho, Capabilities, Chunk, End, Length, Plan, Say, Step


def say(id: str, *chunks: str | tuple[int, str], ms: int = 1000, exact: bool = False, **step: Any) -> Step:
    """A say step that is estimated to last `ms`; a chunk may be (pause before it, text)."""
    parts = tuple(Chunk(c) if isinstance(c, str) else Chunk(c[1], after_ms=c[0]) for c in chunks or (f"This is {id}.",))
    return Step(id, Say(parts), length=Length(ms, "exact" if exact else "estimated"), **step)


def sound(id: str, ms: int = 1000, **step: Any) -> Step:
    """An audio-echo step of known length."""
    return Step(id, AudioEcho("x.wav", "0" * 64, ms), length=Length(ms), **step)


def do(id: str, action: Action, **step: Any) -> Step:
    """Any other step."""
    return Step(id, action, **step)


def plan(*steps: Step, can: Capabilities | None = None, **fields: Any) -> Plan:
    """A plan of these steps, ended by `end` unless they are."""
    if not steps or not isinstance(steps[-1].action, End):
        steps = (*steps, Step("end", End()))
    return Plan("test", "local", steps, capabilities=can or Capabilities(speech="reported"), **fields)


class FakeProvider:
    """Answers an engine's commands on a heap of its own: accepts after `answers_ms` and speaks one line after another, `ms` each.

    `interrupts` says what becomes of those, after `interrupts_ms`: they are `taken`, `lost` (taken, and nothing stops) or `refused`.
    `fails` says of lines that they are not accepted, but fail with this outcome.
    """

    def __init__(
        self,
        ms: int = 1000,
        reports: bool = True,
        *,
        answers_ms: int = 0,
        interrupts: str = "taken",
        interrupts_ms: int = 0,
        fails: Mapping[str, Literal["refused", "ambiguous"]] | None = None,
    ) -> None:
        self.fails = fails or {}
        self.ms, self.reports = ms, reports
        self.answers_ms, self.interrupts, self.interrupts_ms = answers_ms, interrupts, interrupts_ms
        self.heap: list[tuple[int, int, Event]] = []
        self.count = 0
        self.free_ms = 0
        self.open: dict[str, tuple[int, int]] = {}
        self.stopped: set[str] = set()
        self.timers: dict[tuple[str | None, Timer], int] = {}

    def at(self, ms: int, event: Event) -> None:
        self.count += 1
        heapq.heappush(self.heap, (ms, self.count, event))

    def take(self, command: Effect, now: int) -> None:
        match command:
            case OpenSession():
                self.at(now, SessionOpened("s1"))
            case SayText(task=task) | PlayAudio(task=task) if task in self.fails:
                self.at(now + self.answers_ms, ProviderFailed("no", self.fails[task], task))
            case SayText(task=task, final=final, chunk=chunk):
                self.at(now + self.answers_ms, TaskAccepted(task, chunk=chunk))
                if final:
                    self.speak(task, now + self.answers_ms)
            case PlayAudio(task=task):
                self.at(now + self.answers_ms, TaskAccepted(task))
                self.speak(task, now + self.answers_ms)
            case StopSpeaking(task=task) if self.interrupts == "refused":
                self.at(now + self.interrupts_ms, ProviderFailed("no", "refused", task))
            case StopSpeaking(task=task):
                now += self.interrupts_ms
                self.at(now, TaskAccepted(task))
                for line, (begin, end) in self.open.items():
                    if end > now and self.reports and self.interrupts == "taken" and line not in self.stopped:
                        heard = max(0, now - begin)
                        self.stopped.add(line)
                        self.at(now, SpeechEnded(line, interrupted=True, heard_ms=heard))
                if self.interrupts == "taken":
                    self.free_ms = now
            case StartTimer(step=step, reason=reason, due_ms=due):
                self.timers[step, reason] = due
                self.at(due, TimerFired(step, reason, due))
            case CancelTimer(step=step, reason=reason):
                self.timers.pop((step, reason), None)
            case CloseSession():
                self.at(now, SessionClosed())
            case _:
                pass

    def speak(self, task: str, now: int) -> None:
        begin = max(now, self.free_ms)
        self.free_ms = begin + self.ms
        self.open[task] = (begin, self.free_ms)
        if self.reports:
            self.at(begin, SpeechStarted(task))
            self.at(self.free_ms, SpeechEnded(task))

    def next(self) -> tuple[int, Event] | None:
        while self.heap:
            ms, _, event = heapq.heappop(self.heap)
            if isinstance(event, TimerFired) and self.timers.get((event.step, event.reason)) != event.due_ms:
                continue
            by_itself = isinstance(event, SpeechStarted) or (isinstance(event, SpeechEnded) and not event.interrupted)
            if by_itself and event.task in self.stopped:
                continue
            return ms, event
        return None


def drive(
    plan: Plan, provider: FakeProvider | None = None, inject: Iterable[tuple[int, Event]] = (), limit: int = 100_000
) -> list[tuple[int, Any]]:
    """Everything that happened, events and effects, each with its time."""
    provider = provider or FakeProvider()
    engine = Engine(plan)
    story: list[tuple[int, Any]] = []
    for ms, event in inject:
        provider.at(ms, event)

    def follow(effects: tuple[Effect, ...], now: int) -> None:
        for effect in effects:
            story.append((now, effect))
            provider.take(effect, now)

    follow(engine.begin(), 0)
    while not engine.done and (happened := provider.next()) is not None:
        now, event = happened
        story.append((now, event))
        follow(engine.handle(event, now), now)
        limit -= 1
        assert limit > 0, "the engine does not come to an end"
    provider.engine = engine  # type: ignore[attr-defined]
    return story


def of(story: list[tuple[int, Any]], kind: type | Callable[[Any], bool]) -> list[tuple[int, Any]]:
    """What of a story is of one kind."""
    test = (lambda item: isinstance(item, kind)) if isinstance(kind, type) else kind
    return [(ms, item) for ms, item in story if test(item)]


class Somebody:
    """A control who is always there: what waits for a signal does not stall."""

    source = "page"

    def attach(self, show: object) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()
