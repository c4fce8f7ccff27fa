"""`speech/show`: `audio.wav` is the show to the sample."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from playbook.speech.audio import Sound, decode, silence, to_samples
from playbook.speech.show import RATE, ShowRecorder


def flat(value: int, samples: int, rate: int = RATE) -> Sound:
    return Sound(np.full(samples, value, "<i2").tobytes(), rate)


def written(show: ShowRecorder, path: Path, end_ms: int) -> list[int]:
    assert show.write(path / "audio.wav", end_ms)
    sound = decode(path / "audio.wav")
    assert sound.rate == RATE
    return np.frombuffer(sound.pcm, "<i2").tolist()  # type: ignore[no-any-return] # numpy says Any


def test_sounds_stand_at_their_sample_and_silence_is_between(tmp_path: Path) -> None:
    show = ShowRecorder()
    show.zero(1000)
    show.place(1100, lambda: flat(7, 500))
    show.place(3333, lambda: flat(9, 100))
    samples = written(show, tmp_path, 4000)
    first, second = to_samples(100, RATE), to_samples(2333, RATE)
    expected = np.zeros(4 * RATE, int)
    expected[first : first + 500] = 7
    expected[second : second + 100] = 9
    assert samples == expected.tolist()


def test_a_cut_ends_what_sounds_and_not_what_comes_later(tmp_path: Path) -> None:
    show = ShowRecorder()
    show.place(0, lambda: flat(1, 2 * RATE))
    show.cut(500)
    show.place(500, lambda: flat(2, RATE))
    show.cut(1000)
    show.place(1500, lambda: flat(3, 10))
    samples = written(show, tmp_path, 2000)
    half = RATE // 2
    assert samples == [1] * half + [2] * half + [0] * half + [3] * 10 + [0] * (half - 10)


def test_what_lies_before_zero_or_after_the_end_is_not_in_the_file(tmp_path: Path) -> None:
    show = ShowRecorder()
    show.zero(1000)
    show.place(500, lambda: flat(5, RATE))
    show.place(1900, lambda: flat(6, RATE))
    samples = written(show, tmp_path, 1000)
    assert samples[: RATE // 2] == [5] * (RATE // 2)
    assert samples[RATE // 2 : to_samples(900, RATE)] == [0] * (to_samples(900, RATE) - RATE // 2)
    assert samples[to_samples(900, RATE) :] == [6] * (RATE - to_samples(900, RATE))


def test_a_stretch_of_a_sound_can_be_let_on_without_a_seam(tmp_path: Path) -> None:
    ramp = Sound(np.arange(RATE, dtype="<i2").tobytes(), RATE)
    show = ShowRecorder()
    show.place(0, lambda: ramp, 0, 101).to_ms = 303
    show.place(500, lambda: ramp, 303, None)
    samples = written(show, tmp_path, 2000)
    edge = to_samples(303, RATE)
    assert samples[:edge] == list(range(edge))
    assert samples[RATE // 2 : RATE // 2 + RATE - edge] == list(range(edge, RATE))


def test_overlaps_are_mixed_and_never_wrap_around(tmp_path: Path) -> None:
    show = ShowRecorder()
    show.place(0, lambda: flat(30_000, RATE))
    show.place(500, lambda: flat(30_000, RATE))
    samples = written(show, tmp_path, 1500)
    half = RATE // 2
    assert samples == [30_000] * half + [32_767] * half + [30_000] * half


def test_other_rates_are_resampled_in_length(tmp_path: Path) -> None:
    show = ShowRecorder()
    show.place(0, lambda: flat(1000, 48_000, 48_000))
    samples = written(show, tmp_path, 2000)
    assert samples[RATE // 2] == pytest.approx(1000, abs=2)
    assert samples[RATE + 50 :] == [0] * (RATE - 50)


def test_where_nothing_was_placed_there_is_no_file(tmp_path: Path) -> None:
    assert not ShowRecorder().write(tmp_path / "audio.wav", 1000)
    assert not (tmp_path / "audio.wav").exists()


def test_an_hour_is_written_in_flat_memory(tmp_path: Path) -> None:
    show = ShowRecorder()
    for second in range(0, 3600, 6):
        show.place(second * 1000, lambda: silence(5_000, RATE))
    ShowRecorder().write(tmp_path / "none.wav", 1)
    tracemalloc.start()
    assert show.write(tmp_path / "audio.wav", 3_600_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "audio.wav").stat().st_size == 44 + 2 * 3600 * RATE
    assert peak < 8_000_000
