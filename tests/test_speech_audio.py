"""`speech/audio`: files become sound, and what is no sound is told in plain words."""

from __future__ import annotations

import io
import itertools
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from playbook.speech.audio import Sound, cut, decode, frames, measure, resample, silence, to_mp3, to_ms, to_samples
from tests.sounds import level, to_wav


def tone(seconds: float, rate: int, *, hz: float = 440, peak: float = 0.5) -> Any:
    return (np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * hz / rate) * peak).astype("float32")


def encoded(samples: Any, rate: int, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form, **options)
    return out.getvalue()


def loudest_hz(sound: Sound) -> float:
    spectrum = np.abs(np.fft.rfft(np.frombuffer(sound.pcm, "<i2").astype(float)))
    return float(np.argmax(spectrum) * sound.rate / sound.samples)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_rate_and_channel_count_becomes_mono_sound_of_the_same_length(form: str, rate: int, channels: int) -> None:
    samples = np.repeat(tone(0.5, rate)[:, None], channels, axis=1)
    data = encoded(samples, rate, form)
    sound = decode(data)
    assert sound.rate == rate
    assert abs(sound.duration_ms - 500) <= 1
    assert measure(data) == sound.duration_ms
    assert loudest_hz(sound) == pytest.approx(440, abs=3)
    assert level(sound.pcm) == pytest.approx(0.5 / 2**0.5, rel=0.02)


def test_sixteen_bit_samples_pass_through_decoding_unchanged() -> None:
    pcm = np.array([0, 1, -1, 32767, -32768, 1234], "<i2").tobytes()
    assert decode(to_wav(Sound(pcm, 8_000))) == Sound(pcm, 8_000)


def test_stereo_is_downmixed_to_the_average() -> None:
    left, right = np.full(100, 0.5, "float32"), np.full(100, -0.25, "float32")
    sound = decode(encoded(np.stack([left, right], axis=1), 8_000, "WAV"))
    assert np.frombuffer(sound.pcm, "<i2").tolist() == [4096] * 100


def test_a_file_is_read_from_its_path(tmp_path: Path) -> None:
    path = tmp_path / "chime.wav"
    path.write_bytes(encoded(tone(1, 22_050), 22_050, "WAV"))
    assert measure(path) == decode(path).duration_ms == 1000


WAV = encoded(tone(1, 44_100), 44_100, "WAV")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, I am not a sound\n" * 1000, "not a sound file"),
        (bytes(range(256)) * 100, "not a sound file"),
        (b"\x89PNG\r\n\x1a\n" + b"\x01\x02\x03" * 5000, "not a sound file"),
        (WAV[:44], "cut short"),
        (encoded(tone(0, 44_100), 44_100, "WAV"), "holds no sound"),
        (WAV[: len(WAV) // 2], "cut short"),
        (WAV[:40] + struct.pack("<I", 0x7FFE0000) + WAV[44:], "cut short"),
        (WAV[:24] + struct.pack("<I", 0) + WAV[28:], "not a sound file"),
        (WAV[:24] + struct.pack("<I", 4_000_000_000) + WAV[28:], "not a sound file"),
        (WAV[:24] + struct.pack("<I", 3) + WAV[28:], "sample rate of 3 Hz"),
        (encoded(tone(1, 44_100), 44_100, "FLAC")[:9000], "cut short"),
        (encoded(tone(1, 44_100), 44_100, "AIFF"), "AIFF"),
    ],
    ids=["empty", "text", "bytes", "picture", "head", "no-samples", "half", "lying", "rate-0", "rate-4G", "rate-3", "half-flac", "aiff"],
)
def test_what_is_no_whole_sound_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    for read in (decode, measure):
        with pytest.raises(ValueError, match=reason):
            read(data)


def test_a_length_that_a_streaming_writer_left_open_is_no_lie() -> None:
    assert measure(WAV[:40] + b"\xff\xff\xff\xff" + WAV[44:]) == 1000


def test_paths_that_lead_to_no_file_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    for path, reason in [(tmp_path / "none.wav", "no such file"), (tmp_path, "not a file"), (tmp_path / "empty.wav", "the file is empty")]:
        with pytest.raises(ValueError, match=reason):
            decode(path)


def test_a_small_file_that_unpacks_to_days_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(np.zeros(8_000 * 130, "int16"), 8_000, "FLAC")
    monkeypatch.setattr("playbook.speech.audio.MAX_BYTES", 960_000)
    assert len(data) < 100_000
    for read in (measure, decode):
        with pytest.raises(ValueError, match="it is too long: 1 min 0 s can be held at its 8000 Hz"):
            read(data)


def test_a_sound_of_very_many_channels_is_refused() -> None:
    """A block of them would take hundreds of megabytes."""
    with pytest.raises(ValueError, match="it has 200 channels"):
        measure(encoded(np.zeros((1_000, 200), "int16"), 8_000, "WAV"))


def test_measuring_an_hour_takes_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    with path.open("wb") as file:
        file.write(WAV[:4] + struct.pack("<I", 36 + 3600 * 16_000) + WAV[8:24])
        file.write(struct.pack("<IIHH", 8_000, 16_000, 2, 16) + b"data" + struct.pack("<I", 3600 * 16_000))
        os.truncate(path, 44 + 3600 * 16_000)
    measure(WAV)  # the libraries are loaded
    tracemalloc.start()
    assert measure(path) == 3_600_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_lengths_are_rounded_half_up() -> None:
    assert [to_ms(n, 1000 * 2) for n in (0, 1, 2, 3, 4)] == [0, 1, 1, 2, 2]
    assert to_samples(1, 22_050) == 22
    assert to_samples(1000, 22_050) == 22_050
    assert Sound(bytes(2 * 22), 44_100).duration_ms == 0
    assert Sound(bytes(2 * 23), 44_100).duration_ms == 1


def test_silence_cut_and_frames_count_to_the_sample() -> None:
    quiet = silence(1500, 16_000)
    assert (quiet.samples, quiet.duration_ms, level(quiet.pcm)) == (24_000, 1500, 0.0)
    assert cut(quiet, 20).samples == 320
    assert cut(quiet, 99_999) == quiet
    assert [len(piece) for piece in frames(cut(quiet, 50), 20)] == [640, 640, 320]
    assert b"".join(frames(quiet, 7)) == quiet.pcm


def test_resampling_keeps_pitch_length_and_loudness() -> None:
    sound = decode(encoded(tone(1, 22_050), 22_050, "WAV"))
    for rate in (8_000, 24_000, 48_000):
        other = resample(sound, rate)
        assert (other.rate, other.duration_ms) == (rate, 1000)
        assert loudest_hz(other) == pytest.approx(440, abs=2)
        assert level(other.pcm) == pytest.approx(level(sound.pcm), rel=0.02)
    assert resample(sound, 22_050) == sound


def test_resampling_is_the_same_each_time_and_adds_nothing() -> None:
    """A cassette knows our sound by its digest, on every machine: silence stays silence, and loud sound does not wrap around."""
    steps = Sound((b"\xff\x7f" * 40 + b"\x01\x80" * 40) * 10, 8_000)
    assert not any(resample(silence(25, 8_000), 24_000).pcm)
    assert len({resample(steps, 24_000).pcm for _ in range(5)}) == 1
    samples = np.frombuffer(resample(steps, 24_000).pcm, "<i2").astype(int)
    middles = samples[60::120][1:-1]
    assert all(abs(middle) > 30_000 for middle in middles)
    assert all(a * b < 0 for a, b in itertools.pairwise(middles))


def test_an_mp3_has_one_bit_rate_throughout_and_is_mono() -> None:
    data = to_mp3(decode(encoded(tone(1, 22_050), 22_050, "WAV")))
    at = data.index(b"\xff\xfb")
    headers = []
    while at + 4 <= len(data):
        assert data[at : at + 2] == b"\xff\xfb"
        headers.append((data[at + 2] >> 4, data[at + 3] >> 6))
        at += 144 * 128_000 // 44_100 + (data[at + 2] >> 1 & 1)
    assert set(headers) == {(9, 3)}  # 128 kbit/s, single channel
    assert len(headers) >= 38
    assert abs(measure(data) - 1000) <= 60
    with pytest.raises(ValueError, match="between"):
        to_mp3(silence(10, 44_100), kbps=999)
