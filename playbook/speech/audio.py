"""Sound as data: reading, measuring, cutting and converting it.

One kind of sound lives in the package: `Sound`, 16-bit little-endian mono at any rate. Everything that comes from outside passes through
`decode` or `measure`, which say in plain words what is wrong with a file (`ValueError`); both read in blocks and believe samples, never
headers. The libraries (soundfile, soxr, numpy) are loaded when they are first needed, because most commands need none of them.

May be imported by anything below `clock`.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from playbook.errors import reason_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

FORMATS = {"WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3"}
MAX_BYTES = 128 * 1024 * 1024
"""Of a sound as it is held here, which is 23 minutes at 48 kHz. A compressed file of one megabyte can unpack to days of silence."""
MAX_CHANNELS = 16
_RATES = range(1_000, 768_001)
_BLOCK = 1 << 16
_STREAMED = 0x7FFF_0000
"""WAV writers that cannot seek put a length from here on into the header; it promises nothing."""


@dataclass(frozen=True, slots=True)
class Sound:
    """Mono sound, 16 bits a sample, little-endian."""

    pcm: bytes = field(repr=False)
    rate: int

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self.pcm) // 2

    @property
    def duration_ms(self) -> int:
        """Rounded half up."""
        return to_ms(self.samples, self.rate)


def to_ms(samples: int, rate: int) -> int:
    """Samples in whole milliseconds, rounded half up."""
    return (2000 * samples + rate) // (2 * rate)


def to_samples(ms: int, rate: int) -> int:
    """Milliseconds in whole samples, rounded half up."""
    return (2 * ms * rate + 1000) // 2000


# --- reading ------------------------------------------------------------------------------------------------------------


def decode(source: Path | bytes) -> Sound:
    """A whole sound file (WAV, FLAC, OGG, MP3) as mono. Raises `ValueError(reason)` when it is not one."""
    with _opened(source) as (rate, blocks):
        return Sound(b"".join(_to_pcm(block) for block in blocks), rate)


def measure(source: Path | bytes) -> int:
    """How long a sound file lasts, in milliseconds, in flat memory. Raises `ValueError` exactly where `decode` does."""
    with _opened(source) as (rate, blocks):
        return to_ms(sum(len(block) for block in blocks), rate)


@contextmanager
def _opened(source: Path | bytes) -> Iterator[tuple[int, Iterator[Samples]]]:
    import soundfile  # type: ignore[import-untyped] # it ships no types

    with _binary(source) as file:
        try:
            sound = soundfile.SoundFile(file)
        except (soundfile.LibsndfileError, TypeError) as error:
            raise ValueError("it is not a sound file that can be read (WAV, FLAC, OGG, MP3)") from error
        with sound:
            if sound.format not in FORMATS:
                raise ValueError(f"it is {sound.format}, not WAV, FLAC, OGG or MP3")
            if sound.samplerate not in _RATES:
                raise ValueError(f"its sample rate of {sound.samplerate} Hz makes no sense")
            if sound.channels > MAX_CHANNELS:
                raise ValueError(f"it has {sound.channels} channels; at most {MAX_CHANNELS} are mixed to one")
            yield sound.samplerate, _blocks(sound, file)


@contextmanager
def _binary(source: Path | bytes) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        if not source:
            raise ValueError("it is empty")
        yield io.BytesIO(source)
        return
    try:
        if not source.exists():
            raise ValueError("there is no such file")
        if not source.is_file():
            raise ValueError("it is not a file")
        if source.stat().st_size == 0:
            raise ValueError("the file is empty")
        file = source.open("rb")
    except OSError as error:
        raise ValueError(f"the file cannot be read: {reason_of(error)}") from error
    with file:
        yield file


def _blocks(sound: Any, file: BinaryIO) -> Iterator[Samples]:
    """The samples, downmixed. Ends in a `ValueError` when there are none, too many, or fewer than the header promised."""
    import soundfile

    promised = sound.frames if sound.format != "MP3" else 0  # an MP3 without an index has no length, only a guess
    count = 0
    limit = MAX_BYTES // 2
    while True:
        try:
            block = sound.read(_BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ValueError("it is damaged or cut short: not all of it can be decoded") from error
        if not len(block):
            break
        count += len(block)
        if count > limit:
            longest = limit // sound.samplerate
            raise ValueError(f"it is too long: {longest // 60} min {longest % 60} s can be held at its {sound.samplerate} Hz")
        yield block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]
    if sound.format in ("WAV", "WAVEX") and _wav_lacks(file):
        raise ValueError("it is cut short: the header promises more sound than the file holds")
    if count == 0:
        raise ValueError("it holds no sound")
    if count < promised < _STREAMED:
        raise ValueError("it is cut short: the header promises more sound than the file holds")


def _wav_lacks(file: BinaryIO) -> bool:
    """Whether the data chunk claims more bytes than follow it. (libsndfile quietly corrects that.)"""
    end = file.seek(0, io.SEEK_END)
    at = 12
    while at + 8 <= end:
        file.seek(at)
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"data":
            return bool(size < _STREAMED and at + 8 + size > end)
        at += 8 + size + size % 2
    return False


def _to_pcm(block: Samples) -> bytes:
    import numpy as np

    pcm: bytes = np.clip(np.rint(block * 32768.0), -32768, 32767).astype("<i2").tobytes()
    return pcm


# --- making -------------------------------------------------------------------------------------------------------------


def silence(ms: int, rate: int) -> Sound:
    """Nothing, for that long."""
    return Sound(bytes(2 * to_samples(ms, rate)), rate)


def cut(sound: Sound, ms: int) -> Sound:
    """The first `ms` of a sound, or all of it when it is shorter."""
    return Sound(sound.pcm[: 2 * max(0, to_samples(ms, sound.rate))], sound.rate)


def resample(sound: Sound, rate: int) -> Sound:
    """The same sound at another rate."""
    if rate == sound.rate or not sound.pcm:
        return Sound(sound.pcm, rate)
    import numpy as np
    import soxr  # type: ignore[import-untyped] # it ships no types

    # In floating point, because to whole numbers soxr adds noise, and that is different each time.
    samples = soxr.resample(np.frombuffer(sound.pcm, "<i2").astype(np.float32), sound.rate, rate)
    return Sound(np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes(), rate)


def frames(sound: Sound, ms: int) -> Iterator[bytes]:
    """The samples in pieces of `ms`; the last piece may be shorter."""
    size = 2 * max(1, to_samples(ms, sound.rate))
    for at in range(0, len(sound.pcm), size):
        yield sound.pcm[at : at + size]


def to_mp3(sound: Sound, rate: int = 44_100, kbps: int = 128, go_on: Callable[[], bool] = lambda: True) -> bytes:
    """As the bytes of an MP3 file, mono, at a constant bit rate (one that MPEG layer III knows at this sample rate).

    It takes a second for a minute of sound; `go_on` is asked every now and then, and the file ends where it says no.
    """
    import numpy as np
    import soundfile

    least, most = (32, 320) if rate >= 32_000 else (8, 160)  # libsndfile takes a place between these, from most (0) to least (1)
    if not least <= kbps <= most:
        raise ValueError(f"an MP3 at {rate} Hz has between {least} and {most} kbit/s, not {kbps}")
    out = io.BytesIO()
    samples = np.frombuffer(resample(sound, rate).pcm, "<i2")
    with soundfile.SoundFile(
        out,
        "w",
        rate,
        1,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=(most - kbps) / (most - least),
        bitrate_mode="CONSTANT",
    ) as file:
        for at in range(0, len(samples), _BLOCK):
            if not go_on():
                break
            file.write(samples[at : at + _BLOCK])
    return out.getvalue()
