"""Speaking to a Tavus face through a microphone: the whole show is one unbroken track of sound, silence included.

The PAL's transport layer must have its microphone enabled (https://docs.tavus.io/sections/conversational-video-interface/echo-mode). Tavus
is then told neither where a line begins nor where it ends, and whether it reports anything is not documented. It need not: the sound is
ours, so the room knows to the frame what was played. `say` is spoken by the embedded voice, in one breath also when it comes in chunks;
an interrupt is the end of our own sound. The face follows a moment later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from playbook.events import PlayAudio, SayText, SpeechEnded, SpeechStarted, StopSpeaking, TaskAccepted
from playbook.providers.base import Context, Material
from playbook.providers.local.provider import LocalProvider
from playbook.providers.local.spoken import Speaker, SpokenLine
from playbook.providers.tavus.session import TavusSession
from playbook.speech.audio import Sound, resample, to_ms
from playbook.speech.voice import Voice
from playbook.transports.room import ClipEnded, ClipStarted, RoomEvent

if TYPE_CHECKING:
    from playbook.speech.show import Placement

RATE = 24_000
BRIEF_MS = 30_000
"""Sound up to this length is prepared in a moment; longer sound in a thread, so that nobody else has to wait."""
SILENT_MS = 10_000
"""How long after a sound must have been played the room may take to say so. Then nothing of what it tells can be relied on."""
STOPPED_MS = 1_000
"""A timer that comes so late tells that this process was stopped, and the room with it."""


@dataclass(slots=True, eq=False)
class _Clip:
    """A stretch of a line in the room's queue."""

    line: _Line
    load: Callable[[], Sound]
    final: bool
    placement: Placement | None = None


@dataclass(slots=True, eq=False)
class _Line:
    """One utterance. `clips` are those that are not over, `played_ms` is of those that are."""

    task: str
    spoken: SpokenLine | None = None  # None for a sound
    begun_ms: int | None = None
    played_ms: int = 0
    clips: set[str] = field(default_factory=set)
    stopped: bool = False
    over: bool = False


class MicrophoneSession(TavusSession):
    """One conversation by microphone; `voice` speaks our lines."""

    microphone_hz = RATE

    def __init__(self, context: Context, voice: Voice) -> None:
        super().__init__(context)
        self._local = LocalProvider(voice)
        self._lines: dict[str, _Line] = {}  # that are not over
        self._clips: dict[str, _Clip] = {}
        self._played_by_ms = 0  # when all that was given to the room must have been played

    def load(self, material: Material) -> None:
        self._speaker = Speaker(self._local, material.plan)
        self._speaker.need_voice()
        super().load(material)

    async def _prepare(self) -> None:
        await self._speaker.speak_ahead()

    # what we say

    def say(self, command: SayText) -> None:
        if command.chunk == 1:
            self._lines[command.task] = _Line(command.task, self._speaker.begin(command))
        super().say(command)

    def play_audio(self, command: PlayAudio) -> None:
        self._lines[command.task] = _Line(command.task)
        super().play_audio(command)

    async def _say(self, command: SayText) -> TaskAccepted:
        line = self._lines.get(command.task)
        if line is None:
            return TaskAccepted(command.task, chunk=command.chunk, reason="the line is over")
        assert line.spoken is not None
        stretch = await self._speaker.speak(line.spoken, command)
        if stretch.from_ms == stretch.to_ms and not command.final:  # it completes no word
            return TaskAccepted(command.task, chunk=command.chunk, reason="goes out with the next chunk")
        length_ms = stretch.script.length_ms
        await self._play(line, stretch.sound, length_ms, command.chunk, command.final)
        whole = length_ms if command.final and command.chunk == 1 else None
        return TaskAccepted(command.task, chunk=command.chunk, duration_ms=whole, reason=self.take_remark())

    async def _play_audio(self, command: PlayAudio) -> TaskAccepted:
        line = self._lines.get(command.task)
        if line is None:
            return TaskAccepted(command.task, reason="the line is over")
        length_ms = await self._play(line, partial(self.material.sound, command.audio_sha256), command.duration_ms, 1, final=True)
        return TaskAccepted(command.task, duration_ms=length_ms, reason=self.take_remark())

    async def _play(self, line: _Line, load: Callable[[], Sound], ms: int, chunk: int, final: bool) -> int:
        """Put a stretch of sound (of about `ms`) into the room's queue, unless the line was stopped. Gives its length."""
        if ms <= BRIEF_MS:
            pcm = resample(load(), RATE).pcm
        else:
            pcm = await asyncio.to_thread(lambda: resample(load(), RATE).pcm)
        if not line.stopped:
            name = f"{line.task}#{chunk}"
            self._clips[name] = _Clip(line, load, final)
            line.clips.add(name)
            self.room.play(name, pcm)
            now = self.context.clock.now_ms()
            self._played_by_ms = max(self._played_by_ms, now) + to_ms(len(pcm) // 2, RATE)
            self._watch(name, self._played_by_ms - now + SILENT_MS)
        return to_ms(len(pcm) // 2, RATE)

    def _watch(self, clip: str, ms: int) -> None:
        """Give the room up when it has not told within that time that the clip is over: nobody else would end the line."""
        clock = self.context.clock
        due_ms = clock.now_ms() + ms

        def look() -> None:
            if clip not in self._clips:
                return
            if clock.now_ms() - due_ms > STOPPED_MS:
                self._watch(clip, ms)
            else:
                self.lost(f"the room has not said within {SILENT_MS // 1000} s that our sound was played")

        clock.call_at(due_ms, look)

    def interrupt(self, command: StopSpeaking) -> None:
        """Falls silent at once, whatever is still being prepared."""
        for line in self._lines.values():
            line.stopped = True
        if self._room is not None:
            self._room.cut()
        super().interrupt(command)

    async def _interrupt(self, command: StopSpeaking) -> TaskAccepted:
        """What the room has in its queue it will tell of; the rest is over now."""
        for line in tuple(self._lines.values()):
            if line.stopped and not line.clips:
                self._end(line, interrupted=True)
        return TaskAccepted(command.task)

    # what the room plays

    def sensed(self, event: RoomEvent) -> None:
        match event:
            case ClipStarted(name, age_ms) if name in self._clips:
                self._began(self._clips[name], self.context.clock.now_ms() - age_ms)
            case ClipEnded(name, played_ms, interrupted) if name in self._clips:
                self._ended(name, self._clips.pop(name), played_ms, interrupted)

    def _began(self, clip: _Clip, at_ms: int) -> None:
        line, show = clip.line, self.material.show
        if show is not None:
            clip.placement = show.place(at_ms, clip.load)
        if line.begun_ms is None:
            line.begun_ms = at_ms
            if show is not None and line.spoken is not None:
                show.mark(line.task, line.spoken.marks)
            self.emit(SpeechStarted(line.task, text=None if line.spoken is None else line.spoken.said))

    def _ended(self, name: str, clip: _Clip, played_ms: int, interrupted: bool) -> None:
        line = clip.line
        line.clips.discard(name)
        line.played_ms += played_ms
        if interrupted and clip.placement is not None:
            clip.placement.cut_ms = clip.placement.start_ms + played_ms
        if not line.over and not line.clips and (clip.final or interrupted):
            self._end(line, interrupted)

    def _end(self, line: _Line, interrupted: bool) -> None:
        line.over = True
        del self._lines[line.task]
        if interrupted:
            words = None if line.spoken is None else line.spoken.words(line.played_ms)
            self.emit(SpeechEnded(line.task, interrupted=True, heard_ms=line.played_ms, heard=words))
        elif line.spoken is not None:
            self.emit(line.spoken.ended(line.task, duration_ms=line.played_ms))
        else:
            self.emit(SpeechEnded(line.task, duration_ms=line.played_ms))
