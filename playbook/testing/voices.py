"""What every voice must do. A plug-in's tests call `check_voice` with its engine, made and installed, and a line that it can speak:

    from playbook.testing.voices import check_voice

    def test_my_voice(tmp_path):
        check_voice("mine", "mine/anna", "Good morning. This is a second sentence.", tmp_path)

Each failure is an `AssertionError` that says what is owed.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

from playbook.speech import engines
from playbook.speech.child import Child
from playbook.speech.engines import Engine, Settings, Unspeakable
from playbook.speech.voice import Voice

CHECKED_MS = 100
"""The least that a line lasts."""


def check_voice(name: str, voice: str, line: str, folder: Path, models: Path | None = None) -> None:
    """Everything that an engine owes. `folder` is empty, `models` where its model is (else where it is installed)."""
    owner = Voice(folder / "first", models)
    engine = owner.engine(name)
    assert engine is not None, f"no engine '{name}' is found: does the entry point in {engines.GROUP} name it?"
    assert engine.name == name, f"it is found as '{name}' and calls itself '{engine.name}'"
    assert engine.licence, "it does not tell its licence"
    assert (lack := engine.lacks()) is None, f"it lacks something: {lack}"
    assert engine.fingerprint() == engine.fingerprint() != "", "its fingerprint changes, or is empty"
    _check_names(engine, name, voice, owner)
    settings = Settings(voice=voice)
    _check_pieces(engine, voice, line)
    speech = owner.speak(line, settings)
    assert speech.text == line, "the speech has another text than it was given"
    assert speech.duration_ms > CHECKED_MS, f"the line lasts {speech.duration_ms} ms"
    assert speech.sound.samples == speech.samples, "the sound has not the length that was told"
    assert any(speech.sound.pcm), "the sound is silence"
    assert speech.unspoken == (), f"it leaves out {speech.unspoken}"
    assert speech.marks == engine.marks, "the marks are of another kind than it says"
    assert [word.at_ms for word in speech.words] == sorted(word.at_ms for word in speech.words), "words go back in time"
    assert all(line.startswith(word.text, word.start) for word in speech.words), "words stand elsewhere in the text"
    assert speech.words[-1].at_ms <= speech.duration_ms, "a word begins after the end"
    assert all(a <= b for (a, _), (b, _) in pairwise(speech.mouth)), "shapes of the mouth go back in time"
    again = Voice(folder / "second", models).speak(line, settings)
    if engine.deterministic:
        digests = {hashlib.sha256(each.sound.pcm).hexdigest() for each in (speech, again)}
        assert len(digests) == 1, "it says that it is deterministic, and the same line is other bytes"
    kept = Voice(folder / "first", models)
    kept.recall([(line, settings)])
    assert kept.known(line, settings) == speech, "what the cache kept is not what was spoken"
    assert Voice(folder / "first", models).speak("", settings).samples >= 0, "an empty text fails"


def _check_names(engine: Engine, name: str, voice: str, owner: Voice) -> None:
    speakers = engine.speakers()
    assert speakers, "it has no speakers"
    assert all(speaker.languages for speaker in speakers), "a speaker has no language"
    assert owner.resolve(Settings(voice=voice)), "the voice is not known by its name"
    assert _refusal(owner, f"{name}/nobody-has-this-name"), "an unknown speaker is taken, or refused without valid names"


def _refusal(owner: Voice, voice: str) -> str | None:
    try:
        owner.resolve(Settings(voice=voice))
    except Unspeakable as error:
        return error.remedy
    return None


def _check_pieces(engine: Engine, voice: str, line: str) -> None:
    settings = Settings(voice=voice.partition("/")[2])
    for text in (line, line * 20, "", " "):
        assert "".join(piece.text for piece in engine.pieces(text, settings)) == text, "the pieces are not the text"
    with Child(engine.command()) as child:
        spoken = engine.speak(child.ask, engine.pieces(line, settings)[0].text, settings)
        assert len(spoken.pcm) % 2 == 0, "half a sample"
        assert spoken.rate >= 8_000, "a sample rate that nobody can hear"
