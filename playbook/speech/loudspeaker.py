"""The show while it is performed, through this machine's loudspeaker.

A `Loudspeaker` follows a `ShowRecorder`: what is placed begins to sound, what is cut falls silent. It is for ears and no evidence: the
run's times do not wait for it and are true without it.

sounddevice (PortAudio) plays. It asks for samples in a thread of its own, and a second one reads sounds and resamples them, so that neither
a long file nor a slow device holds up the show. May be imported by anything below `clock`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from playbook.clock import stopwatch
from playbook.errors import SetupError
from playbook.speech.audio import resample, to_samples
from playbook.speech.show import RATE, Placement

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_MS = 20
FADE_MS = 5
"""How softly a sound that is cut falls silent; at once would be a click."""
LATE_MS = 250
"""When a device has stalled for so long, what it missed is left out: played late, it would sound together with the next line."""
DRAIN_S = 3.0
"""How long the end waits for what the device still has to play."""
_REMEDY = "leave out --play: the sound is in the run folder all the same"


class Stream(Protocol):
    """What plays: `sounddevice.OutputStream`, as far as we use it."""

    def start(self) -> object:
        """Begin to ask for samples."""

    def stop(self) -> object:
        """Play what was given, then end."""

    def close(self) -> object:
        """Let go of the device."""


Fill = Callable[[int], "NDArray[np.int16]"]
"""Gives so many samples, mixed."""


@dataclass(slots=True, eq=False)
class _Voice:
    """A sound that is being played. `at` is how much of it has been, in samples."""

    placement: Placement
    begun_ms: int
    samples: NDArray[np.int16]
    at: int

    def end(self) -> int:
        """Where it ends, in samples; that may still move."""
        to_ms = self.placement.to_ms
        return len(self.samples) if to_ms is None else min(len(self.samples), to_samples(to_ms, RATE))

    def take(self, count: int, now_ms: int) -> NDArray[np.int16]:
        """The next samples of it, as far as there are so many."""
        due = to_samples(self.placement.from_ms + now_ms - self.begun_ms, RATE)
        if due - self.at > to_samples(LATE_MS, RATE):
            self.at = due
        samples = self.samples[self.at : max(self.at, min(self.at + count, self.end()))]
        self.at += len(samples)
        if self.placement.cut_ms is None:
            return samples
        self.at = self.end()
        rest = samples[: to_samples(FADE_MS, RATE)]
        return (rest * np.linspace(1, 0, len(rest))).astype(np.int16)


class Loudspeaker:
    """A context manager: the device is open within it. Raises `SetupError` when there is none. `begin` is for the recorder. (A test gives a
    stream and a time of its own.)"""

    def __init__(self, open_stream: Callable[[Fill], Stream] | None = None, now_ms: Callable[[], int] | None = None) -> None:
        self._open_stream = open_stream or _open_stream
        self._now_ms = now_ms or stopwatch()
        self._wanted: SimpleQueue[tuple[Placement, int] | None] = SimpleQueue()
        self._ready: SimpleQueue[_Voice] = SimpleQueue()
        self._voices: list[_Voice] = []
        self._begun = self._arrived = 0  # sounds, with us and in `fill`; each is counted by one thread
        self._quiet = threading.Event()
        self._quiet.set()
        self._reader = threading.Thread(target=self._read, name="loudspeaker", daemon=True)

    def __enter__(self) -> Loudspeaker:
        self._stream = self._open_stream(self.fill)
        self._stream.start()
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._quiet.wait(DRAIN_S)
        self._wanted.put(None)
        self._stream.stop()
        self._stream.close()

    def begin(self, placement: Placement) -> None:
        """Let it sound from now on. Whoever placed it may still move its end, or cut it."""
        self._begun += 1
        self._quiet.clear()
        self._wanted.put((placement, self._now_ms()))

    def changed(self, placement: Placement) -> None:
        """Nothing to do: what is played is asked at every block."""

    @property
    def waiting(self) -> int:
        """How many sounds were begun of which the device has not had a sample yet."""
        return self._begun - self._arrived

    def _read(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            placement, begun_ms = wanted
            try:
                samples = np.frombuffer(resample(placement.load(), RATE).pcm, "<i2")
            except (OSError, ValueError, SetupError):  # the run meets the same file, and says what is wrong with it
                samples = np.zeros(0, "<i2")
            self._ready.put(_Voice(placement, begun_ms, samples, to_samples(placement.from_ms, RATE)))

    def fill(self, count: int) -> NDArray[np.int16]:
        """The next samples, mixed. Called from the device's thread."""
        now_ms = self._now_ms()
        while not self._ready.empty():
            self._voices = [voice for voice in self._voices if voice.at < voice.end()]  # what follows takes the place of what is over
            self._voices.append(self._ready.get())
            self._arrived += 1
        mix = np.zeros(count, np.int32)
        for voice in self._voices:
            samples = voice.take(count, now_ms)
            mix[: len(samples)] += samples
        if not self.waiting and all(voice.at >= voice.end() for voice in self._voices):
            self._quiet.set()
        else:
            self._quiet.clear()
        return np.clip(mix, -32768, 32767).astype(np.int16)


def _open_stream(fill: Fill) -> Stream:
    try:
        import sounddevice  # type: ignore[import-untyped,import-not-found,unused-ignore]  # it ships no types, and is an extra
    except ImportError as error:
        raise SetupError("--play needs the extra `play`", remedy="pip install sounddevice") from error
    except OSError as error:
        raise SetupError("--play needs the library PortAudio", remedy="apt install libportaudio2, or brew install portaudio") from error

    def callback(out: Any, count: int, *_: object) -> None:
        out[:, 0] = fill(count)

    try:
        stream: Stream = sounddevice.OutputStream(
            samplerate=RATE, channels=1, dtype="int16", blocksize=RATE * BLOCK_MS // 1000, latency="high", callback=callback
        )
    except sounddevice.PortAudioError as error:
        raise SetupError(f"no loudspeaker can be opened: {error}", remedy=_REMEDY) from error
    return stream
