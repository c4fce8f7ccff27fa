"""Sounds in the hands of tests: how loud one is, and one as a file's bytes."""

from __future__ import annotations

import io
import wave

import numpy as np

from playbook.speech.audio import Sound


def level(pcm: bytes) -> float:
    """How loud: the root mean square of 16-bit samples, from 0.0 (silence) to 1.0."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    return float(np.sqrt(np.mean(samples * samples))) / 32768.0


def to_wav(sound: Sound) -> bytes:
    """As the bytes of a WAV file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes(sound.pcm)
    return out.getvalue()
