"""A face that speaks what it is given, in order, on the clock.

The queue is the truth of an emulator: what was really spoken, and when. It *tells* what a vendor would report of it, which the named
faults falsify (missing, early, late, doubled), and *notes* what really happened for the emulator's journal.

An utterance is a text (spoken at a steady rate, deliberately not the one by which we estimate) or a sound of known length. It may come in
pieces: a turn stays open until its final piece. Depending on the vendor speech begins with the first piece (`start_on` is how much sound
must be there) or only when the turn is complete.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from playbook.clock import Clock
from playbook.emulators.faults import AGAIN_MS, LATE_MS, MUTE_MS, TWICE_MS, Faults

MS_PER_CHARACTER = 60
LATENCY_MS = 200
TAIL_MS = 150


KEPT_UTTERANCES = 256
"""Of a session, for whoever looks at it: it may go on for days."""


@dataclass(slots=True, eq=False)
class Utterance:
    """One line. `n` counts a session's lines from 1; `length_ms` is of what is there so far; `heard_ms` of what was spoken.

    Where a vendor takes the pieces of a line for lines of their own, `of` is the line's name, and `n` is the line's.
    """

    task: str
    n: int
    text: str = ""
    length_ms: int = 0
    final: bool = False
    state: Literal["queued", "speaking", "done", "cut", "dropped", "silent"] = "queued"
    started_ms: int | None = None
    ended_ms: int | None = None
    heard_ms: int = 0
    ready_ms: int | None = None
    """When enough of it was there to begin."""
    of: str = ""
    pcm: bytearray = field(default_factory=bytearray, repr=False)
    """Its sound, where somebody can hear it: 16-bit mono at 48 kHz."""

    @property
    def names(self) -> tuple[str, str, str, str]:
        """What a fault may call it: a fault of a line strikes all of its pieces."""
        return self.task, self.text, str(self.n), self.of or self.task


@dataclass(slots=True, eq=False)
class Stretch:
    """Unbroken sound of one line: from `position_ms` of its sound on, heard from `since_ms` to `until_ms`."""

    pcm: bytearray
    position_ms: int
    since_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the vendor would report now."""

    kind: Literal["started", "ended"]
    utterance: Utterance
    interrupted: bool = False
    heard_ms: int = 0


class SpeechQueue:
    """Plays utterances one after another.

    `start_on` is the length that must be there before a turn begins, or None when it must be complete. `tell` gets what is reported,
    `note` what is true.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        tell: Callable[[Sighting], None],
        note: Callable[..., None],
        faults: Faults | None = None,
        start_on: int | None = None,
        latency_ms: int = LATENCY_MS,
        tail_ms: int = TAIL_MS,
        ms_per_character: int = MS_PER_CHARACTER,
        held: bool = False,
    ) -> None:
        self.lines: list[Utterance] = []
        """The session's utterances, in order; of many, the last `KEPT_UTTERANCES`."""
        self.count = 0
        """How many there were."""
        self.faults = faults or Faults()
        self.stretches: deque[Stretch] = deque(maxlen=8)
        """The last stretches of sound, the present one last."""
        self.begun = asyncio.Event()
        """Set while sound is being made."""
        self._clock = clock
        self._tell_vendor = tell
        self._note = note
        self._start_on = start_on
        self._latency_ms = latency_ms
        self._tail_ms = tail_ms
        self._ms_per_character = ms_per_character
        self._held = held
        self._over = False
        self._waiting: list[Utterance] = []
        self._current: Utterance | None = None
        self._since_ms: int | None = None  # when the present stretch of speech began; None while it lacks sound
        self._timer: asyncio.TimerHandle | None = None
        self._cutting = False
        self._created_ms = clock.now_ms()

    @property
    def speaking(self) -> Utterance | None:
        """The line that is being spoken."""
        return self._current

    def line(self, task: str, text: str = "", of: str = "") -> Utterance:
        """The open turn of this task, or what would be the next line (not yet part of the queue)."""
        last = self.lines[-1] if self.lines else None
        number = 1 if last is None else last.n + (not of or last.of != of)
        return self._open_turn(task) or Utterance(task, number, text, of=of)

    def add(
        self, task: str, *, text: str = "", duration_ms: int | None = None, final: bool = True, of: str = "", pcm: bytes = b""
    ) -> Utterance:
        """Queue a line, or the next piece of an open one. `pcm` is its sound, where that can be heard."""
        utterance = self._open_turn(task)
        if utterance is None:
            utterance = self.line(task, of=of)
            self.lines.append(utterance)
            self.count += 1
            del self.lines[:-KEPT_UTTERANCES]
            self._waiting.append(utterance)
        utterance.text += text
        utterance.pcm += pcm
        utterance.length_ms += self._ms_per_character * len(text) if duration_ms is None else duration_ms
        utterance.final = final
        if utterance.ready_ms is None and (final or (self._start_on is not None and utterance.length_ms >= self._start_on)):
            utterance.ready_ms = self._clock.now_ms()
        if utterance is self._current:
            self._continue()
            if final:
                self._tell_early(utterance)
        else:
            self._next()
        return utterance

    def close(self, task: str) -> Utterance | None:
        """No more pieces for this turn. None when it is not open."""
        utterance = self._open_turn(task)
        return self.add(task) if utterance is not None else None

    def hold(self) -> None:
        """Nobody listens: stop. A line in progress begins anew afterwards."""
        self._held = True
        self._hush()
        self._cancel()
        if self._cutting:
            self._cut()
        if self._current is not None:
            utterance, self._current, self._since_ms = self._current, None, None
            utterance.state, utterance.started_ms = "queued", None
            self._waiting.insert(0, utterance)
            self._note("speech_held", task=utterance.task)

    def resume(self) -> None:
        """Somebody listens again."""
        self._held = False
        self._next()

    def interrupt(self, scope: Literal["all", "current"] = "all") -> tuple[Utterance, ...]:
        """Stop speaking, and with `all` forget what waits. Returns the lines that were hit."""
        current = self._current
        if current is not None and self.faults.hits("interrupt-lost", *current.names):
            return ()
        hit: list[Utterance] = []
        if current is not None and not self._cutting:
            hit.append(current)
            self._cutting = True
            remaining = current.length_ms - self._position()
            self._at(min(self._tail_ms, remaining) if remaining > 0 else 0, self._cut)
        if scope == "all":
            for utterance in self._waiting:
                utterance.state = "dropped"
            hit += self._waiting
            self._waiting.clear()
        if self._current is None:
            self._cancel()
            self._next()
        return tuple(hit)

    def clear(self) -> None:
        """The session is over: silence, and no word about it."""
        self._over = True
        self._hush()
        self._cancel()
        for utterance in [self._current, *self._waiting]:
            if utterance is not None:
                if utterance is self._current:
                    utterance.heard_ms = min(self._position(), utterance.length_ms)
                    utterance.ended_ms = self._clock.now_ms()
                    self._note("speech_cut_off", task=utterance.task, heard_ms=utterance.heard_ms)
                utterance.state = "cut" if utterance is self._current else "dropped"
        self._current = None
        self._waiting.clear()

    # the machine

    def _open_turn(self, task: str) -> Utterance | None:
        if self._current is not None and self._current.task == task and not self._current.final and not self._cutting:
            return self._current
        return next((utterance for utterance in self._waiting if utterance.task == task and not utterance.final), None)

    def _next(self) -> None:
        """Begin with the next line when its time has come. Also called when it has not."""
        if self._over or self._held or self._current is not None or self._timer is not None or not self._waiting:
            return
        head = self._waiting[0]
        if head.ready_ms is not None:
            self._at(max(0, head.ready_ms + self._latency_ms - self._clock.now_ms()), self._start)

    def _start(self) -> None:
        utterance = self._waiting.pop(0)
        muted = self._clock.now_ms() - self._created_ms >= MUTE_MS and self.faults.hits("mute-after-120s", *utterance.names)
        if muted or self.faults.hits("accepted-but-silent", *utterance.names):
            utterance.state = "silent"
            self._note("speech_swallowed", task=utterance.task, text=utterance.text)
            self._next()
            return
        self._current = utterance
        utterance.state, utterance.heard_ms, utterance.started_ms = "speaking", 0, self._clock.now_ms()
        self._note("speech_started", task=utterance.task, text=utterance.text)
        if not self.faults.hits("start-missing", *utterance.names):
            self._tell(Sighting("started", utterance))
        if self._current is utterance:  # whoever was told may have ended the session
            self._continue()
            if utterance.final:
                self._tell_early(utterance)

    def _tell_early(self, utterance: Utterance) -> None:
        """Let the end be reported when half of it has been spoken; how much that is, is known when all of it is there."""
        if self._current is utterance and self.faults.hits("end-early", *utterance.names):
            half_ms = utterance.length_ms // 2
            self._later(max(0, half_ms - self._position()), Sighting("ended", utterance, heard_ms=half_ms))

    def _position(self) -> int:
        """How much of the current line has been spoken."""
        assert self._current is not None
        return self._current.heard_ms + (self._clock.now_ms() - self._since_ms if self._since_ms is not None else 0)

    def _continue(self) -> None:
        """Speak on with what is there."""
        utterance = self._current
        if utterance is None or self._cutting:
            return
        position = min(self._position(), utterance.length_ms)
        utterance.heard_ms = position
        self._since_ms = self._clock.now_ms()
        self._hush()
        if position < utterance.length_ms:
            until_ms = self._since_ms + utterance.length_ms - position
            self.stretches.append(Stretch(utterance.pcm, position, self._since_ms, until_ms))
            self.begun.set()
        self._at(utterance.length_ms - position, self._spoken)

    def _hush(self) -> None:
        """No sound from now on."""
        self.begun.clear()
        if self.stretches:
            self.stretches[-1].until_ms = min(self.stretches[-1].until_ms, self._clock.now_ms())

    def _spoken(self) -> None:
        utterance = self._current
        assert utterance is not None
        utterance.heard_ms, self._since_ms = utterance.length_ms, None
        self._hush()
        if utterance.final:
            self._finish(utterance, interrupted=False)

    def _cut(self) -> None:
        utterance = self._current
        assert utterance is not None
        utterance.heard_ms = min(self._position(), utterance.length_ms)
        again = self.faults.once("speech-after-interrupt", utterance.n, *utterance.names)
        if again:
            rest_ms = max(utterance.length_ms - utterance.heard_ms, 1)
            rest = Utterance(utterance.task, utterance.n, utterance.text, rest_ms, final=True, ready_ms=self._clock.now_ms())
            rest.pcm = utterance.pcm[2 * 48 * utterance.heard_ms :]
            self._waiting.insert(0, rest)
        self._finish(utterance, interrupted=True, then_ms=AGAIN_MS if again else None)

    def _finish(self, utterance: Utterance, *, interrupted: bool, then_ms: int | None = None) -> None:
        self._hush()
        self._current, self._since_ms, self._cutting = None, None, False
        utterance.state, utterance.ended_ms = "cut" if interrupted else "done", self._clock.now_ms()
        self._note("speech_ended", task=utterance.task, heard_ms=utterance.heard_ms, interrupted=interrupted)
        sighting = Sighting("ended", utterance, interrupted, utterance.heard_ms)
        hits = self.faults.hits
        early = hits("end-early", *utterance.names) and not interrupted
        if not early and not hits("end-missing", *utterance.names):
            if hits("end-late", *utterance.names):
                self._later(LATE_MS, sighting)
            else:
                self._tell(sighting)
            if hits("end-twice", *utterance.names):
                self._later(TWICE_MS, sighting)
        if self._over:
            return
        if then_ms is not None:
            self._at(then_ms, self._start)
        else:
            self._next()

    # time

    def _at(self, after_ms: int, do: Callable[[], None]) -> None:
        """The one timer of the machine."""
        self._cancel()

        def fire() -> None:
            self._timer = None
            do()

        self._timer = self._clock.call_at(self._clock.now_ms() + after_ms, fire)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _later(self, after_ms: int, sighting: Sighting) -> None:
        self._clock.call_at(self._clock.now_ms() + after_ms, lambda: self._tell(sighting))

    def _tell(self, sighting: Sighting) -> None:
        if not self._over:
            self._tell_vendor(sighting)
