"""An ear: when somebody is really heard, from the sound itself.

A stream of sound never stops (silence is sent, too), so its presence proves nothing: loudness does. Pure, in milliseconds of whatever
clock stamps the sound. Looks at slices of 5 ms, so an answer is that precise, give or take the edges of the sound. Imports nothing of the
package.
"""

from __future__ import annotations

import math
import sys
from array import array
from dataclasses import dataclass
from typing import Literal

_SLICE_MS = 5
_FULL_SCALE = 32_768


@dataclass(frozen=True, slots=True)
class Heard:
    """`began`: the first audible moment of a stretch of sound. `ended`: its last."""

    what: Literal["began", "ended"]
    at_ms: float


def loudness(pcm: bytes) -> float:
    """Root mean square of 16-bit little-endian sound, in decibels below full scale (silence is minus infinity)."""
    samples = array("h", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    power = sum(sample * sample for sample in samples) / max(len(samples), 1)
    return 10 * math.log10(power / _FULL_SCALE**2) if power else -math.inf


class Ear:
    """Finds the first and the last audible slice of each stretch of sound.

    A click is no speech: a stretch is only reported when at least `onset_ms` of the sound since its first audible slice was loud, before
    `hangover_ms` of quiet. A pause between words is no end: only `hangover_ms` of quiet are. `threshold_db` is below full scale.
    """

    def __init__(self, *, threshold_db: float = -45.0, onset_ms: int = 60, hangover_ms: int = 400) -> None:
        self._threshold_db = threshold_db
        self._onset_ms = onset_ms
        self._hangover_ms = hangover_ms
        self._first_ms: float | None = None  # of the stretch under way, or of what may become one
        self._last_ms = 0.0  # end of its last audible slice
        self._loud_ms = 0.0  # how much of it was loud
        self._reported = False

    @property
    def hears(self) -> bool:
        """Whether a stretch has begun and not ended."""
        return self._reported

    def listen(self, at_ms: float, pcm: bytes, hz: int) -> tuple[Heard, ...]:
        """Take the next sound, which began at `at_ms`. A hole before it counts as quiet."""
        heard: list[Heard] = []
        size = hz * _SLICE_MS // 1000 * 2
        for start in range(0, len(pcm), size):
            piece = pcm[start : start + size]
            begin_ms = at_ms + start * 500 / hz
            end_ms = begin_ms + len(piece) * 500 / hz
            loud = loudness(piece) >= self._threshold_db
            heard += self.wait(begin_ms if loud else end_ms)
            if loud:
                heard += self._add(begin_ms, end_ms)
        return tuple(heard)

    def wait(self, now_ms: float) -> tuple[Heard, ...]:
        """Nothing came until `now_ms`: enough of that is an end, too (the sender may have left)."""
        if self._first_ms is None or now_ms - self._last_ms < self._hangover_ms:
            return ()
        ended = (Heard("ended", self._last_ms),) if self._reported else ()
        self._first_ms = None
        self._reported = False
        return ended

    def _add(self, begin_ms: float, end_ms: float) -> tuple[Heard, ...]:
        if self._first_ms is None:
            self._first_ms = begin_ms
            self._loud_ms = 0.0
        self._last_ms = end_ms
        self._loud_ms += end_ms - begin_ms
        if self._reported or self._loud_ms < self._onset_ms:
            return ()
        self._reported = True
        return (Heard("began", self._first_ms),)
