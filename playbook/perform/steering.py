"""Who controls a performance: signals from outside, or given by themselves when it is rehearsed; and whether anybody can still give one.

Controls for people take two `go` in quick succession for one; pipes and programs mean what they send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from playbook.engine import Engine
from playbook.errors import RunError
from playbook.events import SIGNALS, Event, StopCause, StopRequested, Trigger, read_signal
from playbook.formats.durations import parse_duration
from playbook.model import Plan, WaitEvent

PEOPLE = ("keyboard", "page")
TWICE_MS = 300
"""Within this time, a second `go` of a person is none: a key that bounces, a finger that taps twice."""


@dataclass(frozen=True, slots=True)
class Cue:
    """A signal or trigger that is given by itself, `after_ms` on the timeline (the `go` that begins the show: after the session opened).
    For rehearsals."""

    trigger: str
    after_ms: int = 0

    @classmethod
    def parse(cls, text: str) -> Cue:
        """`NAME@2s`: a trigger that comes at a time of the show; `NAME` alone comes at once. Raises `ValueError`."""
        name, at, time = text.rpartition("@")
        if not at and text:
            return cls(text)
        if not name:
            raise ValueError(f"'{text}' names no trigger; write NAME@2s")
        try:
            return cls(name, parse_duration(time))
        except ValueError as error:
            raise ValueError(f"'{time}' in '{text}' {error}; write {name}@2s") from error


class Stall(RunError):
    """A show waits for a `trigger` that nobody can give. Whoever knows how one is given here says so in the `remedy`."""

    def __init__(self, where: str, trigger: str) -> None:
        super().__init__(
            f"stall: {where} waits for the trigger '{trigger}', which nothing can give", remedy=f"give it as a cue, `Cue({trigger!r})`"
        )
        self.trigger = trigger


class Steering:
    """The controls and cues of one performance."""

    def __init__(self, plan: Plan, engine: Engine, cues: Sequence[Cue], sources: Iterable[str]) -> None:
        self._plan, self._engine, self._cues = plan, engine, cues
        self._present = list(sources)
        self._expected: list[str] = []  # the cues that are still to come
        self._go_ms: dict[str, int] = {}  # when a person's control gave the last `go`

    # signals

    def read(self, signal: str, source: str, step: str | None, now_ms: int) -> Event | str:
        """The event that a signal is, or why it is none."""
        if signal == "go" and source in PEOPLE:
            last, self._go_ms[source] = self._go_ms.get(source), now_ms
            if last is not None and now_ms - last < TWICE_MS:
                return "taken for the one before"
        return read_signal(signal, source, step)

    def resolved(self, event: Event) -> Event:
        """`go` is the trigger that is waited for, as if it had been given by its name."""
        if isinstance(event, Trigger) and event.trigger == "go" and self._engine.awaits is not None:
            return replace(event, trigger=self._engine.awaits)
        return event

    # cues

    def schedule(self, origin_ms: int, *, opening: bool, call_at: Callable[[int, str], None]) -> None:
        """Have the cues given that count from now: at the opening the `go` that begins a show which waits for one, later the others."""
        first = next((at for at, cue in enumerate(self._cues) if cue.trigger == "go"), None) if self._plan.start.waits else None
        for at, cue in enumerate(self._cues):
            if (at == first) == opening:
                self._expected.append(cue.trigger)
                call_at(origin_ms + cue.after_ms, cue.trigger)

    def came(self, cue: str) -> None:
        """A cue was given."""
        self._expected.remove(cue)

    # who can still give one

    def no_more(self, source: str) -> None:
        """A control gives no further signal."""
        if source in self._present:
            self._present.remove(source)

    def refuse_a_sure_stall(self) -> None:
        """A show that waits for a sign that nobody can give is refused before it costs anything. Raises `Stall`."""
        given = [cue.trigger for cue in self._cues]
        if self._present or {"skip", "goto", "end"} & {name.partition(" ")[0] for name in given}:
            return
        waits = [("the start", "go")] if self._plan.start.waits else []
        for step in self._plan.steps:
            action = step.action
            if isinstance(action, WaitEvent) and action.timeout_ms is None and step.timeout_ms is None and step.skipped is None:
                waits.append((f"step '{step.id}'", action.event))
        unnamed = [wait for wait in waits if wait[1] not in given]
        spare = given.count("go") - sum(trigger == "go" for _, trigger in waits)
        if len(unnamed) > max(spare, 0):
            raise Stall(*unnamed[max(spare, 0)])

    def stall(self) -> StopRequested | None:
        """The show waits for what nobody can give any more."""
        awaited = self._engine.stalled_on
        if awaited is None or self._present:
            return None
        if awaited in self._expected or any(name.partition(" ")[0] in SIGNALS for name in self._expected):
            return None
        if self._engine.held:
            return StopRequested("stall: the show is held, and nobody can resume it any more", StopCause.STALL)
        step = self._engine.current_step
        if step is None:
            return StopRequested(f"nothing ran: the input ended before the trigger '{awaited}' came", StopCause.NOBODY)
        reason = f"stall: step '{step.id}' waits for the trigger '{awaited}', which nothing can give any more"
        return StopRequested(reason, StopCause.STALL)
