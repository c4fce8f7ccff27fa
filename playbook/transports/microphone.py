"""What goes into a microphone: clips one after another, cut into frames of equal length, silence where nothing is queued.

Pure: no clock and no thread. Whoever plays the frames (the Daily child in real time, an emulator on its loop) asks for the next one and
reports its marks at the time they were heard. Counts in samples, so that what was played is known exactly, whatever was cut.
Imports nothing of the package.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Mark:
    """A clip starts or ends, `offset_ms` after the beginning of the frame."""

    on: Literal["started", "ended"]
    clip: str
    offset_ms: float
    played_ms: int = 0
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """The next milliseconds of sound. `taken` bytes of it were queued; the rest is silence."""

    pcm: bytes
    marks: tuple[Mark, ...]
    taken: int


@dataclass(slots=True)
class _Clip:
    name: str
    pieces: deque[memoryview] = field(default_factory=deque)
    final: bool = False
    started: bool = False
    played: int = 0


class Microphone:
    """A queue of clips (16-bit mono). Not thread-safe: the caller holds a lock where there are threads."""

    def __init__(self, hz: int, frame_ms: int = 10) -> None:
        self.frame_ms = frame_ms
        self._bytes_per_s = hz * 2
        self._frame_bytes = hz * frame_ms // 1000 * 2
        self._clips: deque[_Clip] = deque()
        self._cut: list[Mark] = []

    @property
    def busy(self) -> bool:
        """Whether the next frame can hold anything but silence."""
        return bool(self._cut) or any(clip.pieces or clip.final for clip in list(self._clips)[:1])

    def add(self, name: str, pcm: bytes, *, final: bool) -> None:
        """Queue a piece of a clip; a clip that waits for more holds back those behind it."""
        clip = next((clip for clip in self._clips if clip.name == name), None)
        if clip is None:
            clip = _Clip(name)
            self._clips.append(clip)
        if pcm:
            clip.pieces.append(memoryview(pcm))
        clip.final = clip.final or final

    def cut(self) -> None:
        """Forget what was not yet handed out. The ends are marks of the next frame: it follows on the last one that was handed out, so
        that is when they are true."""
        self._cut += (Mark("ended", clip.name, 0, self._ms(clip.played), interrupted=True) for clip in self._clips)
        self._clips.clear()

    def next_frame(self) -> Frame:
        """The next frame, always of full length."""
        pcm = bytearray()
        marks, self._cut = self._cut, []
        while self._clips and len(pcm) < self._frame_bytes:
            clip = self._clips[0]
            if not clip.started and (clip.pieces or clip.final):
                clip.started = True
                marks.append(Mark("started", clip.name, self._offset(pcm)))
            while clip.pieces and len(pcm) < self._frame_bytes:
                piece = clip.pieces.popleft()
                room = self._frame_bytes - len(pcm)
                pcm += piece[:room]
                clip.played += min(room, len(piece))
                if len(piece) > room:
                    clip.pieces.appendleft(piece[room:])
            if clip.pieces or not clip.final:
                break  # the frame is full, or the clip waits for its next piece
            marks.append(Mark("ended", clip.name, self._offset(pcm), self._ms(clip.played)))
            self._clips.popleft()
        taken = len(pcm)
        return Frame(bytes(pcm.ljust(self._frame_bytes, b"\0")), tuple(marks), taken)

    def _ms(self, count: int) -> int:
        return round(count * 1000 / self._bytes_per_s)

    def _offset(self, pcm: bytearray) -> float:
        return len(pcm) * 1000 / self._bytes_per_s
