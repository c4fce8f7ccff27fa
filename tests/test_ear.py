"""The ear, on synthetic sound whose edges are known."""

from __future__ import annotations

import math
import random
import struct

import pytest

from playbook.speech.ear import Ear, Heard, loudness

HZ = 16_000


def tone(ms: int, level_db: float = -12.0) -> bytes:
    peak = 32767 * math.sqrt(2) * 10 ** (level_db / 20)
    count = HZ * ms // 1000
    return struct.pack(f"<{count}h", *(round(peak * math.sin(2 * math.pi * 300 * i / HZ)) for i in range(count)))


def noise(ms: int, level_db: float) -> bytes:
    dice, sigma = random.Random(7), 32767 * 10 ** (level_db / 20)
    count = HZ * ms // 1000
    return struct.pack(f"<{count}h", *(round(dice.gauss(0, sigma)) for _ in range(count)))


def quiet(ms: int) -> bytes:
    return bytes(HZ * ms // 1000 * 2)


def hear(ear: Ear, pcm: bytes, frame_ms: int = 20, start_ms: float = 0) -> list[Heard]:
    """Feed it as a renderer would, in frames."""
    size = HZ * frame_ms // 1000 * 2
    return [heard for at in range(0, len(pcm), size) for heard in ear.listen(start_ms + at * 500 / HZ, pcm[at : at + size], HZ)]


def test_loudness_is_in_decibels_below_full_scale() -> None:
    assert loudness(tone(100, -20)) == pytest.approx(-20, abs=0.1)
    assert loudness(noise(1000, -50)) == pytest.approx(-50, abs=0.5)
    assert loudness(quiet(10)) == -math.inf
    assert loudness(b"") == -math.inf


@pytest.mark.parametrize("frame_ms", [10, 20, 50, 1000])
def test_finds_both_edges_to_five_milliseconds(frame_ms: int) -> None:
    """However the sound is cut into frames."""
    heard = hear(Ear(), quiet(333) + tone(777) + quiet(900), frame_ms)
    assert [h.what for h in heard] == ["began", "ended"]
    assert heard[0].at_ms == pytest.approx(333, abs=5)
    assert heard[1].at_ms == pytest.approx(1110, abs=5)


def test_background_noise_is_quiet() -> None:
    """A noise floor below the threshold neither begins nor prolongs speech."""
    heard = hear(Ear(), noise(1000, -55) + tone(500) + noise(1000, -55))
    assert [round(h.at_ms) for h in heard] == pytest.approx([1000, 1500], abs=5)


def test_a_click_is_no_speech() -> None:
    """Less than the onset's length, alone, is never reported and leaves nothing behind."""
    ear = Ear()
    assert hear(ear, quiet(100) + tone(30) + quiet(1000)) == []
    assert not ear.hears


def test_a_soft_onset_is_dated_back_to_its_first_audible_moment() -> None:
    """Speech that begins with a short plosive and a gap began with the plosive."""
    heard = hear(Ear(), quiet(200) + tone(20) + quiet(40) + tone(400) + quiet(600))
    assert [round(h.at_ms) for h in heard] == pytest.approx([200, 660], abs=5)


def test_a_pause_between_words_is_no_end() -> None:
    """Only a pause of the hang-over is; and then the end is where the sound stopped, not where we noticed."""
    speech = tone(300) + quiet(350) + tone(300) + quiet(450) + tone(300) + quiet(450)
    assert [(h.what, round(h.at_ms / 50) * 50) for h in hear(Ear(), speech)] == [
        ("began", 0),
        ("ended", 950),
        ("began", 1400),
        ("ended", 1700),
    ]


def test_a_hole_in_the_stream_is_quiet() -> None:
    """Sound that stopped coming ended; the next that comes is a new stretch."""
    ear = Ear()
    assert hear(ear, tone(200)) == [Heard("began", 0)]
    heard = hear(ear, tone(200), start_ms=5000)
    assert heard == [Heard("ended", 200), Heard("began", 5000)]


def test_somebody_who_left_in_mid_word_has_ended() -> None:
    """`wait` closes a stretch when no sound comes at all, once, and not too early."""
    ear = Ear()
    hear(ear, tone(200))
    assert ear.hears
    assert ear.wait(599) == ()
    assert ear.wait(600) == (Heard("ended", 200),)
    assert ear.wait(9000) == ()
    assert not ear.hears


def test_settings_are_the_callers() -> None:
    """A lower threshold hears a whisper, a longer hang-over bridges a longer pause."""
    whisper = tone(300, -50) + quiet(600) + tone(300, -50) + quiet(1200)
    assert hear(Ear(), whisper) == []
    assert [h.what for h in hear(Ear(threshold_db=-60, hangover_ms=800), whisper)] == ["began", "ended"]
