"""The program that runs in the child process of `kokoro`: a model behind a pipe.

It is started by path, not imported: its arguments are eSpeak NG's library, the model and the speakers; each line of standard input is a
request in JSON (`text`, `speaker`, `speed`, `language`: eSpeak NG's voice), and each answer is a line of JSON, followed by `bytes` bytes
of samples: `rate`, `work_ms`, and `cut`, which says that none of the text's sounds is known to the model.

A text becomes phonemes (by eSpeak NG), phonemes become tokens; what is longer than the model holds is said in parts.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

RATE = 24_000
MAX_TOKENS = 500
SYNCHRONOUS, DONT_EXIT, CHARS_UTF8, IPA = 2, 0x8000, 1, 2
LOUD, EDGE = 0.01, 720
"""Sound begins and ends where it is louder than this; so many samples of the quiet around it are kept."""

_RUNS = {
    1: ";:,.!?",
    9: '—…"()“” ̃ʣʥʦʨᵝ',
    24: "A",
    25: "I",
    31: "O",
    33: "Q",
    35: "ST",
    39: "W",
    41: "Yᵊabcdef",
    50: "hijklmnopqrstuvwxyzɑɐɒæ",
    75: "βɔɕç",
    80: "ɖðʤə",
    85: "ɚɛɜ",
    90: "ɟ",
    92: "ɡ",
    99: "ɥ",
    101: "ɨɪʝ",
    110: "ɯɰŋɳɲɴø",
    118: "ɸθœ",
    123: "ɹ",
    125: "ɾɻ",
    128: "ʁɽʂʃʈʧ",
    135: "ʊʋ",
    138: "ʌɣɤ",
    142: "χʎ",
    147: "ʒʔ",
    156: "ˈˌː",
    162: "ʰ",
    164: "ʲ",
    169: "↓",
    171: "→↗↘",
    177: "ᵻ",
}
TOKENS = {phone: first + n for first, phones in _RUNS.items() for n, phone in enumerate(phones)}
"""The model's alphabet."""
_SPELLINGS = {"tʃ": "ʧ", "dʒ": "ʤ", "tɕ": "ʨ", "dʑ": "ʥ", "ä": "a", "ɯᵝ": "ɯ", "͡": "", "̞": "", "g": "ɡ"}
"""What eSpeak NG writes otherwise."""
_MARKS = re.compile(r"([;:,.!?]+(?=[\s\"”)’]|$)|[—…\"()“”、。，；：！？「」『』（）]+)")
_PLAIN = str.maketrans("、。，；：！？「」『』（）", ",.,;:!?“”“”()")


class Phonemes:
    """eSpeak NG, which only translates here."""

    def __init__(self, library: str) -> None:
        self._lib = ctypes.CDLL(library)
        self._lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        if self._lib.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(os.path.dirname(library)), DONT_EXIT) <= 0:
            raise OSError("eSpeak NG could not be initialised")

    def of(self, text: str, language: str) -> str:
        """In the model's spelling, with the text's punctuation."""
        self._lib.espeak_SetVoiceByName(language.encode())
        if language.endswith("/ja"):
            text = _read(text)
        parts = (part.translate(_PLAIN) if n % 2 else self._words(part) for n, part in enumerate(_MARKS.split(text)))
        spoken = re.sub(r"\s+([;:,.!?])", r"\1", " ".join(part for part in parts if part))
        for theirs, ours in _SPELLINGS.items():
            spoken = spoken.replace(theirs, ours)
        if language.endswith("/ja"):
            spoken = re.sub("[ˈˌ]", "", spoken)
        return re.sub(r"\s+", " ", spoken).strip()

    def _words(self, text: str) -> str:
        buffer = ctypes.create_string_buffer(text.encode("utf-8", "replace"))
        place = ctypes.c_void_p(ctypes.addressof(buffer))
        found = []
        while place.value:
            phones = self._lib.espeak_TextToPhonemes(ctypes.byref(place), CHARS_UTF8, IPA)
            found.append((phones or b"").decode())
        return re.sub(r"\([a-z-]+\)", "", " ".join(found)).strip()


def _read(text: str) -> str:
    """Japanese in kana. Raises `ImportError` for kanji that nobody can read."""
    if not re.search("[\u3005\u3400-\u9fff\\d]", text):
        return text
    import pyopenjtalk  # type: ignore[import-not-found,import-untyped,unused-ignore] # whoever wants kanji installs it

    nodes = pyopenjtalk.run_frontend(text, use_sudachi_kanji_yomi=False)
    return "".join(node["string"] if node["pos"] == "記号" else node["pron"].replace("’", "") for node in nodes)


class Model:
    """The network and its speakers."""

    def __init__(self, model: str, speakers: str) -> None:
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else it keeps a database in the user's cache, to be sent
        import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore] # of the extra `kokoro`

        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the show needs the cores, too
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._speakers = np.load(speakers)

    def say(self, phonemes: str, speaker: str, speed: float) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The sound of phonemes, without the quiet around it."""
        style = self._speakers[speaker]
        return np.concatenate([self._part(part, style, speed) for part in _parts(phonemes)] or [np.zeros(0, np.float32)])

    def _part(self, phonemes: str, style: Any, speed: float) -> np.ndarray[Any, np.dtype[np.float32]]:
        tokens = [TOKENS[phone] for phone in phonemes]
        row = np.asarray(style[min(len(tokens), len(style)) - 1], np.float32).reshape(1, -1)
        given = {"tokens": np.array([[0, *tokens, 0]], np.int64), "style": row, "speed": np.array([speed], np.float32)}
        sound = np.asarray(self._session.run(None, given)[0], np.float32).ravel()
        loud = np.flatnonzero(np.abs(sound) > LOUD)
        return sound[max(0, loud[0] - EDGE) : loud[-1] + EDGE] if len(loud) else sound[:0]


def _parts(phonemes: str) -> Iterator[str]:
    """What the model holds at once: to a mark, else to a space, else to its limit."""
    rest = "".join(phone for phone in phonemes if phone in TOKENS).strip()
    while len(rest) > MAX_TOKENS:
        at = max(rest.rfind(mark, MAX_TOKENS // 2, MAX_TOKENS) for mark in ".!?;:,")
        at = at if at > 0 else rest.rfind(" ", MAX_TOKENS // 2, MAX_TOKENS)
        at = at + 1 if at > 0 else MAX_TOKENS
        yield rest[:at].strip()
        rest = rest[at:].strip()
    if any(phone not in ';:,.!?—…"()“” ' for phone in rest):
        yield rest


def _reply(header: dict[str, Any], body: bytes = b"") -> None:
    sys.stdout.buffer.write(json.dumps(header | {"bytes": len(body)}).encode() + b"\n" + body)
    sys.stdout.buffer.flush()


def main() -> None:
    """Answer requests until standard input ends."""
    library, model_file, speakers_file = sys.argv[1:]
    try:
        phonemes, model = Phonemes(library), Model(model_file, speakers_file)
    except Exception as error:  # whatever the libraries think of these files
        for _ in sys.stdin.buffer:
            _reply({"error": f"the model {Path(model_file).name} cannot be loaded: {error}".splitlines()[0]})
        return
    for line in sys.stdin.buffer:
        request = json.loads(line)
        began = time.perf_counter()
        try:
            spoken = phonemes.of(request["text"], request["language"])
            sound = model.say(spoken, request["speaker"], request["speed"])
        except Exception as error:  # one text must not end the voice
            _reply({"error": f"kokoro fails at this text: {error}".splitlines()[0]})
            continue
        pcm = np.clip(np.rint(sound * 32767), -32768, 32767).astype("<i2").tobytes()
        cut = not pcm and any(char.isalnum() for char in request["text"])
        work_ms = max(1, round((time.perf_counter() - began) * 1000))
        _reply({"rate": RATE, "work_ms": work_ms, "cut": cut, "phonemes": spoken}, pcm)


if __name__ == "__main__":
    main()
