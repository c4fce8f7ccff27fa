"""Mouth shapes of speech, for whoever draws a face: twelve of them, each from when on it is shown.

`rest`: nothing is said. `closed`: lips together (p b m). `lip`: lower lip at the teeth (f v). `tongue`: its tip at or between the teeth
(l θ ð n). `teeth`: teeth together (s z t d). `hush`: lips forward (ʃ ʒ tʃ). `back`: the tongue's back (k g ŋ h x). `open`: jaw down (a ɑ).
`mid`: half open (ɛ ə ʌ). `wide`: lips drawn apart (i e j). `round`: rounded and open (o ɔ œ). `small`: rounded and nearly closed (u w y).

`of_phones` takes them from the phonemes that a voice tells of; where there are none, `of_level` opens the mouth as the sound is loud.
Shapes stand in the order of time, no two neighbours are the same, and what begins with silence begins with `rest`.

May be imported by anything below `clock`; imports only `audio`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Literal

from playbook.speech.audio import Sound, to_ms

Shape = Literal["rest", "closed", "lip", "tongue", "teeth", "hush", "back", "open", "mid", "wide", "round", "small"]
Mouth = tuple[tuple[int, Shape], ...]
"""(from how many milliseconds of the sound on, which shape)."""

_SHAPES: dict[Shape, str] = {
    "closed": "pbmɓʙɱ",
    "lip": "fvʋɸβⱱ",
    "tongue": "lnðθɫɬɮɭɲʎɳ",
    "teeth": "tdszrɾɹɻɽʈɖʂʐɺɗ",
    "hush": "ʃʒɕʑ",
    "back": "kɡgŋxɣhħɦqɢχʁʀʔʕcɟɴç",
    "open": "aɑäɐæɒ",
    "mid": "ɛəʌɜɚɝɘɞɵᵻɤɨ",
    "wide": "ieɪjʝɯ",
    "round": "oɔœøɶ",
    "small": "uʊwyʏʉɥ",
}
_BY_PHONE = {phone: shape for shape, phones in _SHAPES.items() for phone in phones}
_AFFRICATES = ("tʃ", "dʒ", "tɕ", "dʑ", "tʂ", "dʐ")
_SECOND_VOWEL_AT = 0.55
"""A diphthong's second half begins at this part of it."""

WINDOW_MS = 40
_OPENINGS: tuple[tuple[float, Shape], ...] = ((0.45, "open"), (0.15, "mid"), (0.04, "closed"))
"""From what part of the loudest moment on, which shape."""


def of_phones(phones: Iterable[tuple[int, str]], end_ms: int) -> Mouth:
    """The shapes of phonemes: (when it begins, in milliseconds; its name in IPA, empty for a pause), in order."""
    known = [(at_ms, shapes) for at_ms, name in phones if (shapes := _shapes(name))]
    marks: list[tuple[int, Shape]] = []
    for i, (at_ms, shapes) in enumerate(known):
        until = known[i + 1][0] if i + 1 < len(known) else end_ms
        marks.append((at_ms, shapes[0]))
        if len(shapes) > 1:
            marks.append((at_ms + round((until - at_ms) * _SECOND_VOWEL_AT), shapes[1]))
    return _tidy(marks, end_ms)


def of_level(sound: Sound) -> Mouth:
    """The shapes of a sound of which no phonemes are known: the louder, the wider open."""
    import numpy as np

    size = max(1, sound.rate * WINDOW_MS // 1000)
    samples = np.frombuffer(sound.pcm, "<i2").astype(np.float32)
    windows = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    levels = np.sqrt(np.mean(windows**2, axis=1))
    loudest = float(levels.max(initial=0.0))
    if loudest < 1:
        return _tidy([], sound.duration_ms)
    shapes: list[Shape] = [next((shape for least, shape in _OPENINGS if level >= least * loudest), "rest") for level in levels.tolist()]
    return _tidy([(to_ms(i * size, sound.rate), shape) for i, shape in enumerate(shapes)], sound.duration_ms)


def between(mouth: Mouth, from_ms: int, to_ms: int) -> Mouth:
    """The shapes of a stretch of the sound, in its own time: what was shown when it begins is shown from 0 on."""
    shown: Shape = next((shape for at_ms, shape in reversed(mouth) if at_ms <= from_ms), "rest")
    return _tidy([(0, shown), *((at_ms - from_ms, shape) for at_ms, shape in mouth if from_ms < at_ms < to_ms)], to_ms - from_ms)


def _tidy(marks: list[tuple[int, Shape]], end_ms: int) -> Mouth:
    """In order, from 0 on, without repetitions, and at rest at the end."""
    begun = marks if marks and marks[0][0] <= 0 else [(0, "rest"), *marks]
    last = dict(begun)  # of two at the same moment the later one counts
    ordered = [(at_ms, shape) for at_ms, shape in sorted(last.items()) if at_ms < end_ms]
    return tuple(next(group) for _, group in groupby([*ordered, (max(0, end_ms), "rest")], key=lambda mark: mark[1]))


def _shapes(phone: str) -> tuple[Shape, ...]:
    """One for most, two for a diphthong, none for what is not shown (a glottal mark, a switch of language)."""
    if not phone:
        return ("rest",)
    if phone.startswith("("):
        return ()
    if phone.lstrip("ˈˌ").startswith(_AFFRICATES):
        return ("hush",)
    found = [_BY_PHONE[char] for char in phone if char in _BY_PHONE]
    vowels = [shape for shape in found if shape in ("open", "mid", "wide", "round", "small")]
    return tuple(vowels[:2] if len(vowels) > 1 and vowels[0] != vowels[1] else (vowels[:1] or found[:1]))
