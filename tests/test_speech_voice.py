"""`speech/voice`: real speech from the embedded synthesiser."""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from playbook.clock import block, wall_time
from playbook.errors import SetupError
from playbook.speech import espeak
from playbook.speech import voice as module
from playbook.speech.clauses import BUDGETS
from playbook.speech.voice import Settings, Speech, Unspeakable, Voice, VoiceMissing, heard
from tests.sounds import level

LINE = "Welcome, friend. This well-known (old) museum isn't 3.5 km away."


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Voice:
    return Voice(tmp_path_factory.mktemp("voice"))


def sha(speech: Speech) -> str:
    return hashlib.sha256(speech.sound.pcm).hexdigest()


def test_a_line_is_spoken_audibly_at_the_engines_rate(voice: Voice) -> None:
    speech = voice.speak(LINE)
    assert speech.rate == 22_050
    assert 4_000 < speech.duration_ms < 6_000
    assert speech.sound.samples == speech.samples
    assert level(speech.sound.pcm) > 0.03


def test_the_same_text_is_the_same_bytes_in_any_process_and_any_order(voice: Voice, tmp_path: Path) -> None:
    texts = [LINE, "Second.", "A third line, a little longer than the second.", "Second, but not quite."]
    here = [sha(speech) for speech in voice.speak_many((text, Settings()) for text in texts)]
    program = (
        "import hashlib, sys\nfrom pathlib import Path\nfrom playbook.speech.voice import *\n"
        "v = Voice(Path(sys.argv[1]))\n"
        "for t in sys.argv[2:]: print(hashlib.sha256(v.speak(t).sound.pcm).hexdigest())"
    )
    backwards = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), *reversed(texts)], capture_output=True, text=True, check=True, timeout=60
    )
    assert backwards.stdout.split() == here[::-1]
    assert [sha(Voice().speak(text)) for text in texts] == here


def test_words_stand_where_they_are_in_the_text_and_in_order_in_time(voice: Voice) -> None:
    words = voice.speak(LINE).words
    assert [word.text for word in words[:5]] == ["Welcome", "friend", "This", "well-known", "old"]
    assert "isn't" in [word.text for word in words]
    assert all(LINE.startswith(word.text, word.start) for word in words)
    times = [word.at_ms for word in words]
    assert times == sorted(times)
    assert times[0] == 0


@pytest.mark.parametrize("prefix", ["日本語 😀 ", "Ünïcödé — “quoted” ", "a\tb\r\nc\n\n", "\x00\x07 "])
def test_positions_count_characters_whatever_they_are(voice: Voice, prefix: str) -> None:
    text = prefix + "museum."
    assert voice.speak(text).words[-1].start == text.index("museum")


def test_heard_is_the_words_that_are_over(voice: Voice) -> None:
    speech = voice.speak(LINE)
    begin = {word.text: word.at_ms for word in speech.words}
    assert speech.heard(0) == ""
    assert speech.heard(begin["friend"] - 1) == ""
    assert speech.heard(begin["friend"]) == "Welcome,"
    assert speech.heard(begin["old"]) == "Welcome, friend. This well-known"
    assert speech.heard(speech.duration_ms - 1) == LINE.removesuffix(" away.")
    assert speech.heard(speech.duration_ms) == LINE
    said = [speech.heard(ms) for ms in range(0, speech.duration_ms + 1, 50)]
    assert all(LINE.startswith(some) for some in said)
    assert [len(some) for some in said] == sorted(len(some) for some in said)


def test_half_a_compound_is_not_heard_but_a_script_without_spaces_is_counted() -> None:
    assert heard("a well-known museum", [(0, 0), (100, 2), (200, 7), (300, 13)], 400, 250) == "a"
    assert heard("你好，世界", [(0, 0), (100, 3)], 300, 150) == "你好，"


def test_text_is_text_and_never_a_command(voice: Voice) -> None:
    """Neither SSML, nor phoneme brackets, nor the engine's embedded control codes do anything."""
    plain = voice.speak("80S Hello there. How are you?")
    control = voice.speak("\x0180S Hello there. How are you?")
    assert abs(control.duration_ms - plain.duration_ms) <= 60
    assert sha(voice.speak('<break time="9s"/> now')) != sha(voice.speak(" now"))
    assert voice.speak('<break time="9s"/> now').duration_ms < 9_000
    assert voice.speak("[[h@'loU]]").duration_ms > voice.speak("Hello").duration_ms
    assert voice.speak("a\ud800b\x00c").duration_ms > 0


def test_what_cannot_be_spoken_is_almost_nothing(voice: Voice) -> None:
    for text in ("", "...", " \n "):
        assert voice.speak(text).duration_ms < 20
        assert voice.speak(text).words == ()


def test_settings_change_the_sound(voice: Voice) -> None:
    normal = voice.speak(LINE)
    assert voice.speak(LINE, Settings(rate=300)).duration_ms < normal.duration_ms * 0.75
    others = [
        Settings(pitch=90),
        Settings(voice="f2"),
        Settings(voice="en-gb"),
        Settings(language="de"),
        Settings(voice="f2", language="de"),
        Settings(voice="de+f2"),
    ]
    sounds = {sha(normal)} | {sha(voice.speak(LINE, settings)) for settings in others}
    assert len(sounds) == 6
    assert sha(voice.speak(LINE, others[-1])) == sha(voice.speak(LINE, others[-2]))


def test_a_voice_that_breathes_is_the_same_bytes_whatever_the_time(tmp_path: Path) -> None:
    """eSpeak NG seeds the noise in the breath of `f2` with the wall clock's second, unless it is told otherwise."""
    breathing = Settings(voice="f2")
    first = sha(Voice(tmp_path / "first").speak(LINE, breathing))
    second = int(wall_time().timestamp())
    while int(wall_time().timestamp()) == second:
        block(20)
    assert sha(Voice(tmp_path / "second").speak(LINE, breathing)) == first


def test_names_are_found_by_code_name_and_region(voice: Voice) -> None:
    for asked in (
        Settings(voice="German"),
        Settings(voice="gmw/de"),
        Settings(voice="de"),
        Settings(language="de-AT"),
        Settings(language="DE"),
    ):
        assert voice.resolve(asked) == "gmw/de"
    assert voice.resolve(Settings()) == "gmw/en-US"
    assert voice.resolve(Settings(language="zh_CN")) == "sit/cmn"
    assert voice.resolve(Settings(voice="fr+Annie", language="de")) == "roa/fr+Annie"
    assert len(voice.voices()) > 100
    assert len(voice.variants()) > 50


@pytest.mark.parametrize(
    ("settings", "message", "near"),
    [
        (Settings(voice="Germn"), "no voice 'Germn'", "'German'"),
        (Settings(language="german"), "no language 'german'", "did you mean 'de'"),
        (Settings(language="qqqqqqqq"), "no language 'qqqqqqqq'", "such as 'en-us'"),
        (Settings(language="Deutsch"), "no language 'Deutsch'", "did you mean 'de'?"),
        (Settings(language="Deustch"), "no language 'Deustch'", "did you mean 'de'?"),
        (Settings(language="spanish"), "no language 'spanish'", "did you mean 'es'?"),
        (Settings(language="English"), "no language 'English'", "did you mean 'en'?"),
        (Settings(language="FRANÇAIS"), "no language 'FRANÇAIS'", "did you mean 'fr'?"),
        (Settings(language="chinese"), "no language 'chinese'", "did you mean 'zh'?"),
        (Settings(language="日本語"), "no language '日本語'", "did you mean 'ja'?"),
        (Settings(language="xx"), "no language 'xx'", "such as 'en-us'"),
        (Settings(voice="Deutsch"), "no voice 'Deutsch'", "did you mean 'de'?"),
        (Settings(voice="xxx"), "no voice 'xxx'", "such as 'en-us'"),
        (Settings(voice="de+Anie"), "no variant 'Anie'", "'Annie'"),
        (Settings(voice="qqqqqqqq"), "no voice 'qqqqqqqq'", "such as 'en-us'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_near_ones(voice: Voice, settings: Settings, message: str, near: str) -> None:
    """A language by any of its names is told its code; two or three letters are no reason to guess."""
    with pytest.raises(Unspeakable, match=message) as caught:
        voice.speak("Hello", settings)
    assert near in caught.value.remedy


def test_a_text_that_is_too_long_is_refused(voice: Voice) -> None:
    with pytest.raises(Unspeakable, match="too long"):
        voice.speak("a " * module.MAX_CHARS)


def test_the_cache_serves_another_voice_object_without_a_child(voice: Voice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Voice(tmp_path).speak(LINE)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    again = Voice(tmp_path).speak(LINE)
    assert (again, again.sound) == (first, first.sound)


def test_a_damaged_cache_entry_is_made_again(tmp_path: Path) -> None:
    first = sha(Voice(tmp_path).speak(LINE))
    entry = max(tmp_path.iterdir(), key=lambda path: b"words" in path.read_bytes())
    good = entry.read_bytes()
    damages: list[Callable[[bytes], bytes]] = [
        lambda data: data[:-2],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda _: b"",
        lambda data: data.replace(b"22050", b"22051"),
    ]
    for damage in damages:
        assert damage(good) != good
        entry.write_bytes(damage(good))
        assert sha(Voice(tmp_path).speak(LINE)) == first
        assert entry.read_bytes() == good


def test_speech_survives_the_loss_of_its_cache(tmp_path: Path) -> None:
    speech = Voice(tmp_path).speak(LINE)
    first = sha(speech)
    for path in tmp_path.iterdir():
        path.unlink()
    assert sha(speech) == first


def test_what_was_not_used_for_longest_is_let_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = Voice(tmp_path)
    voice.voices()
    old, used = voice.speak("An old line."), voice.speak("A line that is used again.")
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    _ = used.sound
    monkeypatch.setattr(module, "CACHE_BYTES", size - 30_000 + 2 * 10_000)
    voice.speak("Hi.")
    kept = Voice(tmp_path)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert sha(kept.speak("A line that is used again.")) == sha(used)
    assert kept.speak("Hi.").duration_ms > 0
    with pytest.raises(SetupError, match="cannot be started"):
        kept.speak(old.text)


def test_where_no_cache_can_be_kept_it_speaks_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert sha(Voice(tmp_path / "file" / "cache").speak(LINE)) == sha(Voice(tmp_path / "good").speak(LINE))


def test_a_cache_of_its_own_goes_with_the_voice() -> None:
    voice = Voice()
    voice.speak("Hello")
    folder = voice._store.folder
    assert folder is not None
    assert folder.is_dir()
    del voice
    gc.collect()
    assert not folder.exists()


def test_many_texts_come_in_order_and_twice_the_same_is_spoken_once(tmp_path: Path) -> None:
    texts = [f"Line {n % 20}." for n in range(60)]
    voice = Voice(tmp_path)
    assert [speech.text for speech in voice.speak_many((text, Settings()) for text in texts)] == texts
    assert len(list(tmp_path.iterdir())) == 22  # twenty lines, the list of voices and the key of their names
    assert voice.known("Line 7.", Settings()) is not None
    assert voice.known("Line 77.", Settings()) is None


def test_without_the_extra_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    voice = Voice()
    assert not voice.available
    assert voice.known("Hello", Settings()) is None
    for call in (voice.voices, lambda: voice.speak("Hello")):
        with pytest.raises(VoiceMissing) as caught:
            call()
        assert caught.value.remedy == "pip install espeakng-loader"


KOREAN = "전시실 안에서는 사진을 찍을 수 없으며 음료는 입구에 두고 들어가 주시기 바랍니다 "


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("ko", KOREAN * 3),
        ("ko", "안녕하세요" * 40),
        ("ja", "今日は良い天気ですね" * 10),
        ("ja", "さかなをたべます" * 20),
        ("zh", "今天天气非常好" * 20),
        ("th", "สวัสดีครับ" * 12),
        ("hi", "नमस्ते " * 100),
        ("fr", "99 " * 200),
        ("en", "7" * 60),
        ("en", "a b " * 200),
        ("en", "bado" * 40),
        ("en", "international " * 100),
    ],
)
def test_a_text_of_twice_the_length_takes_twice_the_time(voice: Voice, language: str, text: str) -> None:
    """The engine drops without a word what its buffers do not hold; nothing of a text in clauses that it can hold is dropped."""
    once, twice = voice.speak_many((each, Settings(language=language)) for each in (text, text * 2))
    assert twice.duration_ms == pytest.approx(2 * once.duration_ms, rel=0.02)
    assert once.unspoken == twice.unspoken == ()
    assert all(text[word.start] == word.text[0] for word in once.words)


def test_clauses_are_joined_without_a_gap(voice: Voice) -> None:
    """Where we part a clause nobody hears a pause: no silence between the words is longer than one that the engine made by itself."""

    def longest_silence(text: str) -> int:
        samples = np.abs(np.frombuffer(voice.speak(text, Settings(language="ko")).sound.pcm, "<i2").astype(int))
        loud = np.flatnonzero(samples > 200)
        return int(np.diff(loud).max())

    assert longest_silence((KOREAN * 6).strip()) <= longest_silence(KOREAN.strip()) + 22_050 // 50


def test_words_that_the_engine_left_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clause that is too long for it, the engine drops the last words, and we say which."""
    monkeypatch.setattr(espeak, "BUDGETS", (10_000,))
    text = KOREAN * 5 + "오늘도 좋은 하루 보내시기 바랍니다."
    speech = Voice(tmp_path).speak(text, Settings(language="ko"))
    [(start, end)] = speech.unspoken
    assert text[start:end].endswith("오늘도 좋은 하루 보내시기 바랍니다.")
    assert speech.spoken == text[:start].strip()
    assert Voice(tmp_path).speak(text, Settings(language="ko")) == speech
    assert BUDGETS[0] < 800


def test_a_text_at_which_the_engine_crashes_does_not_stop_the_others(voice: Voice) -> None:
    hindi = Settings(language="hi")
    with pytest.raises(Unspeakable, match="crashes at this text"):
        voice.speak_many([("नमस्ते।", hindi), ("---नमस्ते", hindi), ("धन्यवाद।", hindi)])
    assert voice.failure("---नमस्ते", hindi) == "eSpeak NG crashes at this text"
    assert voice.known("धन्यवाद।", hindi) is not None
    assert voice.failure("धन्यवाद।", hindi) is None
