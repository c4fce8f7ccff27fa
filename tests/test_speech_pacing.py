"""`speech/pacing`: estimates, judged against the embedded voice."""

from __future__ import annotations

import statistics

import pytest

from playbook.speech.pacing import estimate_ms
from playbook.speech.voice import Settings, Voice
from tests.speech_corpus import LINES

CODES = {"en": "en-us"}


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    """By language, how far off each line is that the prices were not fitted to."""
    voice = Voice()
    result = {}
    for language, lines in LINES.items():
        spoken = voice.speak_many((line, Settings(language=CODES.get(language, language))) for line in lines[1::2])
        result[language] = [estimate_ms(speech.text, language) / speech.duration_ms - 1 for speech in spoken]
    return result


def test_half_of_the_lines_are_within_6_percent_and_nine_of_ten_within_15(errors: dict[str, list[float]]) -> None:
    off = sorted(abs(error) for some in errors.values() for error in some)
    assert statistics.median(off) <= 0.06
    assert off[len(off) * 9 // 10] <= 0.15


@pytest.mark.parametrize("language", LINES)
def test_no_language_is_off_by_more_than_10_percent_in_the_middle_or_25_at_worst(errors: dict[str, list[float]], language: str) -> None:
    assert statistics.median(abs(error) for error in errors[language]) <= 0.10
    assert max(abs(error) for error in errors[language]) <= 0.25


def test_a_faster_voice_takes_less_time_in_proportion() -> None:
    assert estimate_ms(LINES["en"][3], "en", 2.0) == pytest.approx(estimate_ms(LINES["en"][3], "en") / 2, abs=1)


def test_what_cannot_be_spoken_takes_no_time_and_every_word_takes_some() -> None:
    assert [estimate_ms(text) for text in ("", " \n", "...", "—", "😀")] == [0] * 5
    assert all(estimate_ms(text) > 100 for text in ("a", "Ja", "7", "日", "안녕", "مرحبا", "Привет", "नमस्ते"))


def test_pauses_and_digits_count() -> None:
    assert estimate_ms("One, two") > estimate_ms("One two")
    assert estimate_ms("One. Two") > estimate_ms("One, two")
    assert estimate_ms("Room 1642") > estimate_ms("Room 16") > estimate_ms("Room") + 500


def test_regions_and_unknown_languages_are_understood() -> None:
    line = LINES["fr"][1]
    assert estimate_ms(line, "fr-CA") == estimate_ms(line, "FR") < estimate_ms(line, "xx") == estimate_ms(line, "nl")
