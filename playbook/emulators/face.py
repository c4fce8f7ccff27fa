"""The sound of an emulated face, from what its queue really says, and the same as a WebRTC stream by WHEP.

`FaceSound` is the sound by the emulator's clock: what the queue spoke between two moments, as 16-bit mono at 48 kHz. A viewer gets it in
one of two ways: `FaceStream` sends it with a moving picture by WebRTC, in real time; `frames` hands it over in this process, on any clock.
Needs aiortc (the extra `listen`) for WebRTC alone. Imports the queue and the sounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from playbook.clock import Clock
from playbook.emulators.speech import SpeechQueue, Stretch
from playbook.errors import SetupError
from playbook.speech.audio import Sound, resample, to_samples
from playbook.speech.ear import loudness
from playbook.speech.voice import Settings, Voice

if TYPE_CHECKING:
    from aiortc import RTCPeerConnection

RATE = 48_000
"""WebRTC's own."""
FRAME_MS = 20
SILENCE_MS = 400
"""How much silence is handed over after speech: enough for an ear to find the end."""
_PICTURE, _PICTURES_PER_S = 160, 10
_AUDIBLE_DB = -45.0
_SLICE_MS = 5
REMEDY = "pip install 'avatar-playbook[listen]'"


@lru_cache(maxsize=1)
def _voice() -> Voice:
    """One for all emulated faces of a process."""
    return Voice()


async def spoken(text: str) -> Sound | None:
    """A text as the embedded voice says it, without the silence around it; None where there is no voice, or nothing is heard."""
    voice = _voice()
    if not voice.available or not text.strip():
        return None
    sound = await asyncio.to_thread(lambda: voice.speak(text, Settings()).sound)
    return audible(resample(sound, RATE))


def audible(sound: Sound) -> Sound | None:
    """From its first audible moment to its last."""
    size = 2 * to_samples(_SLICE_MS, sound.rate)
    loud = [at for at in range(0, len(sound.pcm), size) if loudness(sound.pcm[at : at + size]) >= _AUDIBLE_DB]
    return Sound(sound.pcm[loud[0] : loud[-1] + size], sound.rate) if loud else None


class FaceSound:
    """What a queue lets be heard. `over` says that nothing more will be."""

    def __init__(self, queue: SpeechQueue, clock: Clock) -> None:
        self._queue, self.clock = queue, clock
        self.over = False

    def end(self) -> None:
        """Nothing is heard any more."""
        self.over = True
        self._queue.begun.set()

    def between(self, from_ms: int, to_ms: int) -> bytes:
        """The sound from one moment to another, silence included."""
        heard = bytearray(2 * to_samples(to_ms - from_ms, RATE))
        for stretch in self._queue.stretches:
            _lay(heard, stretch, from_ms, to_ms)
        return bytes(heard)

    def sounds_after(self, ms: int) -> bool:
        """Whether anything is heard at this moment or later, as far as is known now."""
        return any(stretch.until_ms > ms for stretch in self._queue.stretches)

    async def frames(self, clock: Clock) -> AsyncIterator[tuple[int, bytes]]:
        """The sound as it comes, in frames: the moment at which each began, and its samples. While nobody speaks nothing comes."""
        ours, theirs = clock.now_ms(), self.clock.now_ms()
        at_ms, quiet = ours, False
        while not self.over:
            await clock.sleep_until(at_ms + FRAME_MS)
            face_ms = at_ms - ours + theirs
            if self.sounds_after(face_ms):
                yield at_ms, self.between(face_ms, face_ms + FRAME_MS)
                at_ms, quiet = at_ms + FRAME_MS, False
            elif not quiet:  # silence is told as long as an ear needs it to find the end
                yield at_ms, bytes(2 * to_samples(SILENCE_MS, RATE))
                quiet = True
            else:
                await self._queue.begun.wait()
                at_ms = max(at_ms, clock.now_ms() - FRAME_MS)


def _lay(heard: bytearray, stretch: Stretch, from_ms: int, to_ms: int) -> None:
    """Put what is heard of a stretch between two moments where it belongs."""
    first_ms, last_ms = max(from_ms, stretch.since_ms), min(to_ms, stretch.until_ms)
    if first_ms >= last_ms:
        return
    skipped = 2 * to_samples(stretch.position_ms + first_ms - stretch.since_ms, RATE)
    piece = stretch.pcm[skipped : skipped + 2 * to_samples(last_ms - first_ms, RATE)]
    start = 2 * to_samples(first_ms - from_ms, RATE)
    heard[start : start + len(piece)] = piece


class FaceStream:
    """One viewer's WebRTC connection: the face's sound and a picture that moves. Raises `SetupError` where aiortc is not installed."""

    def __init__(self, sound: FaceSound) -> None:
        try:
            from aiortc import RTCPeerConnection
        except ImportError as error:
            raise SetupError("WebRTC needs aiortc, which is not installed", remedy=REMEDY) from error
        self._connection: RTCPeerConnection = RTCPeerConnection()
        self._tracks: dict[str, Any] = {"audio": _sound_track(sound), "video": _picture_track()}

    async def answer(self, offer: str) -> str:
        """The SDP answer to an SDP offer, with all candidates. Raises `ValueError` where the offer is none."""
        from aiortc import RTCSessionDescription

        await self._connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        for transceiver in self._connection.getTransceivers():
            if (track := self._tracks.get(transceiver.kind)) is not None:
                transceiver.sender.replaceTrack(track)
                transceiver.direction = "sendonly"
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        return str(self._connection.localDescription.sdp)

    async def aclose(self) -> None:
        """Send nothing more."""
        for track in self._tracks.values():
            track.stop()
        with contextlib.suppress(ConnectionError):
            await self._connection.close()


def _sound_track(sound: FaceSound) -> Any:
    from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
    from av import AudioFrame

    class SoundTrack(MediaStreamTrack):
        """The face's sound, a frame when it is over."""

        kind = "audio"

        def __init__(self) -> None:
            super().__init__()
            self._at_ms = sound.clock.now_ms()
            self._samples = 0

        async def recv(self) -> AudioFrame:
            if self.readyState != "live":
                raise MediaStreamError
            await sound.clock.sleep_until(self._at_ms + FRAME_MS)
            frame = AudioFrame(format="s16", layout="mono", samples=to_samples(FRAME_MS, RATE))
            frame.planes[0].update(sound.between(self._at_ms, self._at_ms + FRAME_MS))
            frame.sample_rate, frame.pts, frame.time_base = RATE, self._samples, fractions.Fraction(1, RATE)
            self._at_ms += FRAME_MS
            self._samples += frame.samples
            return frame

    return SoundTrack()


def _picture_track() -> Any:
    from aiortc.mediastreams import VIDEO_CLOCK_RATE, VIDEO_TIME_BASE, MediaStreamError, MediaStreamTrack
    from av import VideoFrame

    class PictureTrack(MediaStreamTrack):
        """A light square that walks across a dark picture."""

        kind = "video"

        def __init__(self) -> None:
            super().__init__()
            self._clock = Clock()
            self._number = 0

        async def recv(self) -> VideoFrame:
            if self.readyState != "live":
                raise MediaStreamError
            await self._clock.sleep_until(self._number * 1000 // _PICTURES_PER_S)
            frame = VideoFrame(_PICTURE, _PICTURE, "yuv420p")
            rows = [bytearray(b"\x30" * plane.line_size * plane.height) for plane in frame.planes[:1]]
            left = 4 * self._number % (_PICTURE - 32)
            for row in range(64, 96):
                start = row * frame.planes[0].line_size + left
                rows[0][start : start + 32] = b"\xd0" * 32
            frame.planes[0].update(bytes(rows[0]))
            for plane in frame.planes[1:]:
                plane.update(b"\x80" * plane.line_size * plane.height)
            frame.pts, frame.time_base = self._number * VIDEO_CLOCK_RATE // _PICTURES_PER_S, VIDEO_TIME_BASE
            self._number += 1
            return frame

    return PictureTrack()
