"""A text, spoken: its sound, its words, the shapes of the mouth, what was left out; in one piece, or in several one after another."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from playbook.speech.audio import Sound, resample, silence, to_ms
from playbook.speech.clauses import without
from playbook.speech.engines import Spoken
from playbook.speech.mouth import Mouth, of_level, of_phones

Stretches = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Word:
    """A word where it stands in the text (`start`, in characters) and in the sound (`at_ms`)."""

    text: str
    start: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Speech:
    """A text, spoken. The samples stay on disk until `sound` is asked for."""

    text: str
    words: tuple[Word, ...]
    samples: int
    rate: int
    _load: Callable[[], bytes] = field(repr=False, compare=False)
    unspoken: Stretches = ()
    """Stretches of the text (from and to which character) that the engine did not speak."""
    mouth: Mouth = ()
    """The shapes of the mouth, from when on each is shown."""
    marks: Literal["exact", "estimated"] = "exact"
    """Whether the engine told where words and shapes stand."""
    remark: str | None = None
    """What is to be told of how it came about."""

    @property
    def spoken(self) -> str:
        """The text, without what was not spoken."""
        return without(self.text, self.unspoken) if self.unspoken else self.text

    @property
    def sound(self) -> Sound:
        """Its samples, read now."""
        return Sound(self._load(), self.rate)

    @property
    def duration_ms(self) -> int:
        """Rounded half up."""
        return to_ms(self.samples, self.rate)

    def heard(self, ms: int) -> str:
        """What an audience has heard after `ms`: the words that were finished, which is when the next one begins."""
        return heard(self.text, [(word.at_ms, word.start) for word in self.words], self.duration_ms, ms).strip()


def heard(text: str, marks: Sequence[tuple[int, int]], duration_ms: int, ms: int) -> str:
    """The beginning of `text` whose words are over after `ms`. `marks` are (when a word begins, where it stands), in order.

    A word is over when the next one begins, and only a whole word counts: `well-known` is not heard at `well-`. (Scripts without spaces
    are counted by what the voice takes for a word.)
    """
    if ms >= duration_ms:
        return text.rstrip()
    begun = [start for at_ms, start in marks if at_ms <= ms]
    end = begun[-1] if begun else 0
    while end and _IN_A_WORD.match(text[end - 1]):
        end -= 1
    return text[:end].rstrip().rstrip("([{<\"'«„“‘¿¡-–—").rstrip()


_IN_A_WORD = re.compile(r"[^\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
"""What glues to the next character: anything but a space and the scripts that are written without spaces."""


def words_of(text: str, raw: Iterable[Sequence[int]], rate: int) -> Iterator[Word]:
    """An engine's word events, without those that repeat a place or point at a space."""
    events: list[tuple[int, int]] = []
    for sample, start in raw:
        if start < len(text) and not text[start].isspace() and (not events or start > events[-1][1]):
            events.append((sample, start))
    for i, (sample, start) in enumerate(events):
        end = events[i + 1][1] if i + 1 < len(events) else len(text)
        span = re.match(r"\S*", text[start:end])
        assert span is not None
        yield Word(span.group().rstrip(".,;:!?…)]}»”\"'。、，！？") or span.group(), start, sample * 1000 // rate)


def guessed_words(text: str, samples: int) -> list[tuple[int, int]]:
    """Where words begin, in proportion to their characters, for an engine that does not tell."""
    tokens = list(re.finditer(r"[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+", text))
    weights = [0, *accumulate(sum(char.isalnum() for char in token.group()) + 1 for token in tokens)]
    return [(samples * weight // weights[-1], token.start()) for weight, token in zip(weights, tokens, strict=False)]


def mouth_of(spoken: Spoken) -> Mouth:
    """The shapes of the mouth: from the phonemes, else from the level."""
    if not spoken.phones:
        return of_level(Sound(spoken.pcm, spoken.rate))
    marks = ((to_ms(sample, spoken.rate), name) for sample, name in spoken.phones)
    return of_phones(marks, to_ms(len(spoken.pcm) // 2, spoken.rate))


def joined(text: str, pieces: Sequence[tuple[Speech, int]]) -> Speech:
    """Several pieces, each with the pause after it (in milliseconds), as one; their texts stand one after another in `text`."""
    rate = pieces[0][0].rate
    words: list[Word] = []
    unspoken: list[tuple[int, int]] = []
    mouth: list[tuple[int, Mouth]] = []
    samples = at = 0
    for n, (piece, pause_ms) in enumerate(pieces):
        start = text.index(piece.text, at)
        shift_ms = to_ms(samples, rate)
        words += (Word(word.text, word.start + start, word.at_ms + shift_ms) for word in piece.words)
        unspoken += ((a + start, b + start) for a, b in piece.unspoken)
        mouth.append((shift_ms, piece.mouth))
        samples += piece.samples * rate // piece.rate
        samples += silence(pause_ms, rate).samples if n + 1 < len(pieces) else 0
        at = start + len(piece.text)

    def load() -> bytes:
        sounds: list[bytes] = []
        for n, (piece, pause_ms) in enumerate(pieces):
            sounds.append(resample(piece.sound, rate).pcm)
            sounds.append(silence(pause_ms, rate).pcm if n + 1 < len(pieces) else b"")
        return b"".join(sounds)

    remarks = dict.fromkeys(piece.remark for piece, _ in pieces if piece.remark)
    return Speech(
        text,
        tuple(words),
        samples,
        rate,
        load,
        tuple(unspoken),
        tuple((at_ms + shift_ms, shape) for shift_ms, shapes in mouth for at_ms, shape in shapes),
        "exact" if all(piece.marks == "exact" for piece, _ in pieces) else "estimated",
        "; ".join(remarks) or None,
    )
