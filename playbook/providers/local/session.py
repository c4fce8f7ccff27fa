"""The session of the `local` provider: plays lines in their order on the run's clock, and knows to the millisecond what was heard.

It stands apart from `local` because reading and checking a playbook, and other providers that borrow our voice, need none of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from playbook.errors import MASK, SetupError
from playbook.events import (
    PlayAudio,
    ProviderFailed,
    SayText,
    SessionClosed,
    SessionOpened,
    SpeechEnded,
    SpeechStarted,
    StopSpeaking,
    TaskAccepted,
)
from playbook.model import Evidence
from playbook.providers.base import Context, Material
from playbook.providers.local.provider import LocalProvider, Script
from playbook.providers.local.spoken import Speaker, SpokenLine, not_spoken
from playbook.speech.voice import REMEDY

if TYPE_CHECKING:
    from playbook.speech.show import Placement, ShowRecorder


SILENT = "no voice is installed: this was silence of the estimated length"


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a script that has come and can be played."""

    script: Script
    from_ms: int
    to_ms: int
    came_ms: int


@dataclass(slots=True, eq=False)
class _Line:
    """One utterance. `parts` wait to be played; `part` is the one that is `playing`, or was played last."""

    task: str
    spoken: SpokenLine | None = None  # None for a sound
    final: bool = False
    parts: deque[_Part] = field(default_factory=deque)
    part: _Part | None = None
    part_began_ms: int = 0
    playing: bool = False
    begun_ms: int | None = None
    said_ms: int = 0  # parts that are over; silence between late chunks does not count
    before: str = ""  # the text of scripts that are over, where the plan does not know the line and each chunk is its own
    silent: bool = False  # some of it was only the silence that an estimate takes
    missing: list[str] = field(default_factory=list)  # what the voice did not speak of it
    placement: Placement | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def evidence(self) -> Evidence:
        """Sound is exact; what makes none was not spoken, whatever time was kept for it."""
        return Evidence.estimated if self.silent or self.missing else Evidence.reported

    @property
    def reason(self) -> str | None:
        """Why that is no better."""
        if self.silent:
            return SILENT
        return not_spoken(self.missing, masked=self.spoken is not None and self.spoken.masked)

    @property
    def said(self) -> str | None:
        """The words that were spoken to the end, where they are not the line's own and may be shown."""
        shown = self.missing and self.part is not None and self.spoken is not None and not self.spoken.masked
        return (self.before + self.part.script.spoken).strip() if shown and self.part is not None else None

    def heard(self, now: int) -> tuple[int, str | None]:
        """How much of it has been heard: milliseconds, and the words where their times are known."""
        part = self.part
        if part is None:
            return 0, None if self.spoken is None else ""
        position = part.from_ms + min(max(0, now - self.part_began_ms), part.to_ms - part.from_ms) if self.playing else part.to_ms
        ms = self.said_ms + (position - part.from_ms if self.playing else 0)
        script = part.script
        if self.spoken is None or script.load is None:
            return ms, None
        if self.spoken.masked:
            return ms, MASK
        return ms, (self.before + script.heard(position)).strip()


class LocalSession:
    """Plays lines in their order on the run's clock. All state is changed before an event is emitted, since whoever hears of the event
    may answer with the next command at once."""

    def __init__(self, provider: LocalProvider, context: Context) -> None:
        self._provider = provider
        self._voice = provider.voice
        self._context = context
        self._material: Material | None = None
        self._clock = context.clock
        self._emit = context.emit
        self._show: ShowRecorder | None = None
        self._speaker: Speaker
        self._lines: dict[str, _Line] = {}  # open, in the order in which they are heard
        self._stopped: set[str] = set()
        self._free_ms = 0  # when the last line was over
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready = self._closed = False

    def load(self, material: Material) -> None:
        self._material, self._show = material, material.show
        self._speaker = Speaker(self._provider, material.plan)
        if self._ready:
            self._begin(self._speaker.speak_on)

    def open(self) -> None:
        if self._material is not None and self._provider.unspoken(self._material.plan):
            self._begin(self._prepare)
        else:
            self._opened()

    async def _prepare(self) -> None:
        try:
            await self._speaker.speak_ahead(streams=self._clock.name == "system")
        except SetupError as error:
            self._emit(ProviderFailed(error.message))
            return
        self._opened()
        await self._speaker.speak_on()

    def _begin(self, work: Callable[..., Coroutine[Any, Any, None]], *given: Any) -> None:
        async def guarded() -> None:
            try:
                await work(*given)
            except Exception as error:
                self._context.crash(error)

        task = asyncio.ensure_future(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _opened(self) -> None:
        silent = f"no voice is installed: lines are silent and their lengths estimated; {REMEDY}"
        slow = None if self._material is None else self._speaker.slowness()
        self._ready = True
        self._emit(SessionOpened("local", slow if self._voice.available else silent))

    def say(self, command: SayText) -> None:
        if command.task in self._stopped:
            self._emit(ProviderFailed("the line was interrupted", task=command.task, chunk=command.chunk))
            return
        line = self._lines.get(command.task) or _Line(command.task, SpokenLine())
        assert line.spoken is not None
        if self._speaker.must_wait(line.spoken, command):
            self._lines[command.task] = line
            self._begin(self._feed, line, line.spoken, command)
        else:
            self._take(line, line.spoken, command)

    async def _feed(self, line: _Line, spoken: SpokenLine, command: SayText) -> None:
        """Let a line be heard piece by piece, as each is spoken; one in chunks when all of it is."""
        try:
            if not (command.chunk == 1 and command.final):
                await self._speaker.have_spoken(spoken, command)
                if self._lines.get(line.task) is line:
                    self._take(line, spoken, command)
                return
            async for script, last in self._speaker.pieces(spoken, command):
                if self._lines.get(line.task) is not line:  # interrupted, or the session is over
                    return
                if line.part is None and not line.parts:
                    self._emit(TaskAccepted(command.task, chunk=command.chunk, reason=script.remark))
                line.final = last
                line.parts.append(_Part(script, 0, script.length_ms, self._clock.now_ms()))
                self._advance()
        except SetupError as error:
            if self._lines.get(line.task) is line:
                del self._lines[line.task]
                self._emit(ProviderFailed(error.message, task=command.task, chunk=command.chunk))
                self._advance()

    def _take(self, line: _Line, spoken: SpokenLine, command: SayText) -> None:
        """Let a chunk be heard that is spoken, or is at once."""
        try:
            stretch = self._speaker.next(spoken, command)
        except SetupError as error:
            self._emit(ProviderFailed(error.message, task=command.task, chunk=command.chunk))
            return
        self._lines[command.task] = line
        line.final = command.final
        if stretch.to_ms > stretch.from_ms or command.final:
            line.parts.append(_Part(stretch.script, stretch.from_ms, stretch.to_ms, self._clock.now_ms()))
        whole = stretch.script.length_ms if command.chunk == 1 and command.final else None
        self._emit(TaskAccepted(command.task, chunk=command.chunk, duration_ms=whole, reason=stretch.script.remark))
        self._advance()

    def play_audio(self, command: PlayAudio) -> None:
        line = self._lines[command.task] = _Line(command.task, final=True)
        assert self._material is not None
        script = Script("", command.duration_ms, load=partial(self._material.sound, command.audio_sha256))
        line.parts.append(_Part(script, 0, command.duration_ms, self._clock.now_ms()))
        self._emit(TaskAccepted(command.task, duration_ms=command.duration_ms))
        self._advance()

    def interrupt(self, command: StopSpeaking) -> None:
        now = self._clock.now_ms()
        lines = self._silence(now)
        self._stopped |= {line.task for line in lines}
        self._emit(TaskAccepted(command.task))
        for line in lines:
            heard_ms, text = line.heard(now)
            self._emit(SpeechEnded(line.task, line.evidence, interrupted=True, heard_ms=heard_ms, heard=text, reason=line.reason))

    def close(self, reason: str) -> None:  # noqa: ARG002 -- the contract's, and nobody to tell it to
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self._silence(self._clock.now_ms())
        self._emit(SessionClosed())

    # --- playing ----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Let the first line play its next part, unless it is playing or has none."""
        line = next(iter(self._lines.values()), None)
        if line is None or line.playing or not line.parts:
            return
        part = line.parts.popleft()
        start = max(part.came_ms, self._free_ms)
        first = line.begun_ms is None
        if line.begun_ms is None:
            line.begun_ms = start
        self._record(line, part, start, line.begun_ms)
        fresh = line.part is None or line.part.script is not part.script
        if line.part is not None and fresh:
            line.before += line.part.script.spoken
        line.part, line.part_began_ms, line.playing = part, start, True
        line.silent = line.silent or (part.script.load is None and part.script.length_ms > 0)
        if fresh:
            line.missing += (part.script.text[start:end] for start, end in part.script.missing)
        line.timer = self._clock.call_at(start + part.to_ms - part.from_ms, lambda: self._played(line, part))
        if first:
            self._emit(SpeechStarted(line.task, line.evidence, text=line.said))

    def _played(self, line: _Line, part: _Part) -> None:
        line.said_ms += part.to_ms - part.from_ms
        line.playing = False
        self._free_ms = line.part_began_ms + part.to_ms - part.from_ms
        if line.final and not line.parts:
            assert line.begun_ms is not None
            del self._lines[line.task]
            duration_ms = self._free_ms - line.begun_ms
            self._emit(SpeechEnded(line.task, line.evidence, duration_ms=duration_ms, heard=line.said, reason=line.reason))
        self._advance()

    def _record(self, line: _Line, part: _Part, start: int, begun: int) -> None:
        """Tell the recorder what is heard from now on, and when its words are."""
        show, script = self._show, part.script
        if show is None or script.load is None or part.from_ms == part.to_ms:
            return
        to_ms = None if part.to_ms == script.length_ms else part.to_ms
        if line.placement is not None and line.part is not None and line.part.script is script and start == self._free_ms:
            show.extend(line.placement, to_ms)
        else:
            line.placement = show.place(start, script.load, part.from_ms, to_ms, script.mouth)
        if script.marks and not script.missing and line.spoken is not None and not line.spoken.masked:
            shift, chars = start - begun - part.from_ms, len(line.before)
            if line.part is not None and line.part.script is not script:
                chars += len(line.part.script.text)
            marks = tuple((at_ms + shift, place + chars) for at_ms, place in script.marks if part.from_ms <= at_ms < part.to_ms)
            show.mark(line.task, marks)

    def _silence(self, now: int) -> list[_Line]:
        """Stop everything. Gives back the lines that were open."""
        lines = list(self._lines.values())
        self._lines.clear()
        self._free_ms = now
        for line in lines:
            if line.timer is not None:
                line.timer.cancel()
        if self._show is not None:
            self._show.cut(now)
        return lines
