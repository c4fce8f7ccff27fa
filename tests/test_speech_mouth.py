"""`speech/mouth`: shapes of the mouth, from real speech, from a stretch of it, and from the level alone."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbook.speech.audio import Sound, silence
from playbook.speech.mouth import Mouth, Shape, between, of_level, of_phones
from playbook.speech.voice import Settings, Speech, Voice
from tests.speech_corpus import LINES


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Voice:
    return Voice(tmp_path_factory.mktemp("voice"))


def shapes(speech: Speech) -> list[Shape]:
    return [shape for _, shape in speech.mouth]


def in_order(mouth: Mouth, end_ms: int) -> bool:
    """Times rise from 0 to the end, no shape follows itself, and the last is rest."""
    rises = all(a < b and before != after for (a, before), (b, after) in pairwise(mouth))
    return mouth[0][0] == 0 and rises and mouth[-1][1] == "rest" and mouth[-1][0] <= end_ms


def test_lips_close_for_p_b_and_m_and_open_between(voice: Voice) -> None:
    said = shapes(voice.speak("Mama, papa."))
    assert said.count("closed") == 4
    assert said.count("open") + said.count("mid") >= 4
    assert [shape for shape in shapes(voice.speak("Fish.")) if shape != "rest"] == ["lip", "wide", "hush"]
    assert "small" in shapes(voice.speak("Who?"))


def test_a_shape_begins_with_its_phoneme(voice: Voice) -> None:
    """The lips close when the word that begins with an m does, and the mouth rests in the pause between two sentences."""
    speech = voice.speak("Hello. Museum.")
    at_ms = next(word.at_ms for word in speech.words if word.text == "Museum")
    closed = next(at for at, shape in speech.mouth if shape == "closed")
    assert abs(closed - at_ms) <= 20
    assert any(shape == "rest" and at_ms - 400 < at < at_ms for at, shape in speech.mouth)


def test_a_diphthong_has_two_shapes() -> None:
    assert of_phones([(0, "ˈaɪ"), (100, "")], 100) == ((0, "open"), (55, "wide"), (100, "rest"))
    assert of_phones([(0, "ˈiː"), (90, "")], 100) == ((0, "wide"), (90, "rest"))


@pytest.mark.parametrize(("language", "text"), [(language, lines[0]) for language, lines in LINES.items()])
def test_every_language_moves_the_mouth(voice: Voice, language: str, text: str) -> None:
    speech = voice.speak(text, Settings(language=language))
    assert in_order(speech.mouth, speech.duration_ms)
    assert len(speech.mouth) > speech.duration_ms / 250
    assert len({shape for _, shape in speech.mouth}) >= 5


def test_the_cache_keeps_them(voice: Voice, tmp_path: Path) -> None:
    first = Voice(tmp_path).speak("Good morning.")
    assert Voice(tmp_path).speak("Good morning.").mouth == first.mouth == voice.speak("Good morning.").mouth


def test_a_stretch_shows_what_the_whole_shows_then(voice: Voice) -> None:
    speech = voice.speak("Welcome to the city museum.")
    cut = speech.mouth[len(speech.mouth) // 2][0] + 5
    first, second = between(speech.mouth, 0, cut), between(speech.mouth, cut, speech.duration_ms)
    assert in_order(first, cut)
    assert first[:-1] == tuple(mark for mark in speech.mouth if mark[0] < cut)
    assert second[0] == (0, first[-2][1])
    assert second[1:] == tuple((at - cut, shape) for at, shape in speech.mouth if at > cut)


def test_a_sound_alone_opens_the_mouth_as_it_is_loud() -> None:
    tone = (np.sin(np.arange(22_050) / 10) * 12_000).astype("<i2")
    loud, faint = tone.tobytes(), (tone // 5).tobytes()
    mouth = of_level(Sound(silence(400, 22_050).pcm + loud + faint, 22_050))
    assert [shape for _, shape in mouth] == ["rest", "open", "mid", "rest"]
    assert [at for at, _ in mouth] == pytest.approx([0, 400, 1400, 2400], abs=40)
    assert of_level(silence(500, 22_050)) == ((0, "rest"),)
    assert of_level(Sound(b"", 22_050)) == ((0, "rest"),)


@given(st.lists(st.tuples(st.integers(0, 3000), st.text("ˈˌːabdeɪʃtʒmuwŋ()", max_size=4))), st.integers(0, 3000))
def test_whatever_an_engine_tells_the_shapes_are_in_order(phones: list[tuple[int, str]], end_ms: int) -> None:
    mouth = of_phones(sorted(phones), end_ms)
    assert in_order(mouth, end_ms)
    assert {shape for _, shape in mouth} <= set(get_args(Shape))
