"""The show as an audience hears it, written down to the sample: `audio.wav`.

Whoever makes the sound tells a `ShowRecorder` what begins when; an interrupt cuts what is sounding. Nothing is kept in memory but places
and sources: the samples are read, resampled and mixed when the file is written, a second at a time, so an hour-long show costs no more
than its longest line.

Times are the run's; the file begins at timeline zero. May be imported by anything below `clock`; imports only `audio` and `mouth`.
"""

from __future__ import annotations

import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from playbook.speech.audio import Sound, resample, to_samples
from playbook.speech.mouth import Mouth, of_level

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RATE = 22_050
"""The embedded voice's own rate, so that its samples are written as they are."""
_BLOCK = RATE


@dataclass(slots=True)
class Placement:
    """A stretch of a sound on the run's time. Whoever placed it may let it last longer by moving `to_ms`."""

    start_ms: int
    load: Callable[[], Sound]
    from_ms: int  # where in the sound it begins
    to_ms: int | None  # where it ends; None is its last sample
    shapes: Mouth = ()  # of the mouth, each from when on in the sound it is shown; none where only the level is known
    cut_ms: int | None = None  # when, on the run's time, it was cut off

    def mouth(self, sound: Sound) -> Mouth:
        """The shapes of the mouth for its sound: those that are known, else as loud as it is."""
        return self.shapes or of_level(sound)


class Listener(Protocol):
    """Who lets the show be heard while it goes on."""

    def begin(self, placement: Placement) -> None:
        """It sounds from now on."""

    def changed(self, placement: Placement) -> None:
        """Its end has moved, or it was cut off."""


class ShowRecorder:
    """Collects what sounds and writes it. `words` holds, by task, when its words begin (after its speech started) and where they stand.
    Each of `live` hears of every placement at once.

    A session that serves one performance after another tells its own times and its own names of tasks: `began_ms` is when, by the
    session's clock, this performance began, and `prefix` what stands before its tasks."""

    def __init__(self, live: Sequence[Listener] = (), *, began_ms: int = 0, prefix: str = "") -> None:
        self.words: dict[str, Sequence[tuple[int, int]]] = {}
        self._began_ms, self._prefix = began_ms, prefix
        self._live = live
        self._placements: list[Placement] = []
        self._uncut = 0  # placements before this one are over or cut
        self._zero_ms = 0

    def zero(self, at_ms: int) -> None:
        """The origin of the file. What sounded before it is not in it."""
        self._zero_ms = at_ms

    def place(self, start_ms: int, load: Callable[[], Sound], from_ms: int = 0, to_ms: int | None = None, shapes: Mouth = ()) -> Placement:
        """From `start_ms` on the sound is heard, from `from_ms` to `to_ms` of it. `load` is called when the file is written."""
        placement = Placement(start_ms - self._began_ms, load, from_ms, to_ms, shapes)
        self._placements.append(placement)
        for listener in self._live:
            listener.begin(placement)
        return placement

    def mark(self, task: str, marks: Sequence[tuple[int, int]]) -> None:
        """When the words of a line begin, or of a further piece of it."""
        name = task.removeprefix(self._prefix)
        self.words[name] = (*self.words.get(name, ()), *marks)

    def extend(self, placement: Placement, to_ms: int | None) -> None:
        """It goes on, to there, without a seam."""
        placement.to_ms = to_ms
        self._changed(placement)

    def _changed(self, placement: Placement) -> None:
        for listener in self._live:
            listener.changed(placement)

    def cut(self, at_ms: int) -> None:
        """Whatever sounds at this moment falls silent. What is placed later is not touched."""
        for placement in self._placements[self._uncut :]:
            placement.cut_ms = at_ms - self._began_ms
            self._changed(placement)
        self._uncut = len(self._placements)

    def write(self, path: Path, end_ms: int) -> bool:
        """Write the show from timeline zero to `end_ms` after it as WAV. Writes nothing, and says so, when nothing was ever placed."""
        if not self._placements:
            return False
        import numpy as np

        total = max(0, to_samples(end_ms, RATE))
        waiting = sorted(self._placements, key=lambda placement: placement.start_ms, reverse=True)
        sounding: list[tuple[int, NDArray[np.int16]]] = []  # where on the timeline, in samples, and what
        with path.open("xb") as new, wave.open(new, "wb") as file:  # "x": never through a link that others have made
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            for at in range(0, total, _BLOCK):
                size = min(_BLOCK, total - at)
                while waiting and to_samples(waiting[-1].start_ms - self._zero_ms, RATE) < at + size:
                    placement = waiting.pop()
                    sounding.append((to_samples(placement.start_ms - self._zero_ms, RATE), _samples(placement)))
                mix = np.zeros(size, np.int32)
                for start, samples in sounding:
                    first, last = max(start, at), min(start + len(samples), at + size)
                    if first < last:
                        mix[first - at : last - at] += samples[first - start : last - start]
                sounding = [(start, samples) for start, samples in sounding if start + len(samples) > at + size]
                file.writeframesraw(np.clip(mix, -32768, 32767).astype("<i2").tobytes())
        return True


def _samples(placement: Placement) -> NDArray[np.int16]:
    import numpy as np

    sound = resample(placement.load(), RATE)
    samples = np.frombuffer(sound.pcm, "<i2")
    last = len(samples) if placement.to_ms is None else to_samples(placement.to_ms, RATE)
    samples = samples[to_samples(placement.from_ms, RATE) : last]
    if placement.cut_ms is not None:
        samples = samples[: max(0, to_samples(placement.cut_ms - placement.start_ms, RATE))]
    return samples
