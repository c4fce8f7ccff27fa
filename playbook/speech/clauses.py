"""A text in clauses that eSpeak NG can hold, since what is too long for its buffers is dropped without a word.

eSpeak NG translates one clause at a time: 800 bytes of source, in which a Hangul syllable takes up to nine bytes and an ideograph four,
1,000 phonemes, 300 words; a word of more than 160 bytes is cut, and so is a number of more than 32 digits. A clause ends at a stop or
comma. Where there is none for too long, `fit` puts an ideographic comma in the place of a space (or between two characters, where the
script has no spaces), which ends a clause in every voice; the pause that it makes is taken out again by `espeak_child`. A text that fits
is left as it is.

Pure; imports nothing of the package.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

BUDGETS = (700, 350, 160, 80)
"""Bytes of a clause, from the buffer's size downwards: the next one is tried where a clause has too many phonemes."""
BREAK = "、"
_WORD_BYTES = 120
_LONG_NUMBER = re.compile(r"\d(?:[.,]?\d){32,}")
_ENDS_ALONE = frozenset("、。，；：！？…।॥؟،؛—–")
_ENDS_BEFORE_SPACE = frozenset(".,;:!?")
_JOINERS = frozenset("\u200c\u200d")
_TOKEN = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Fitted:
    """What the engine is given: `inserted` and `joins` are places in its text, of characters that the original has not, and of the breaks
    whose pause nobody wrote."""

    text: str
    inserted: tuple[int, ...] = ()
    joins: tuple[int, ...] = ()

    def original(self, place: int) -> int:
        """Where a place in this text stands in the original."""
        return place - bisect_left(self.inserted, place)


def fit(text: str, budget: int) -> Fitted:
    """The text in clauses of at most `budget` bytes."""
    spaced = {place for number in _LONG_NUMBER.finditer(text) for place in _between_digits(number)}
    out: list[str] = []
    inserted: list[int] = []
    joins: list[int] = []
    clause = since_space = word = 0  # bytes so far
    space: int | None = None
    for place, char in enumerate(text):
        cost, alone = _cost(char)
        if place in spaced or (word + cost > _WORD_BYTES and not alone and _may_part(text, place)):
            inserted.append(len(out))
            space, since_space, word = len(out), 0, 0
            out.append(" ")
            clause += 3
        if clause + cost > budget and _may_part(text, place):
            if space is not None:
                out[space] = BREAK
                joins.append(space)
                clause = since_space
            else:
                inserted.append(len(out))
                joins.append(len(out))
                out.append(BREAK)
                clause = word = 0
            space, since_space = None, clause
        out.append(char)
        clause += cost
        since_space += cost
        word = 0 if alone else word + cost
        if char.isspace():
            space, since_space = len(out) - 1, 0
        following = text[place + 1 : place + 2]
        if char in _ENDS_ALONE or (char in _ENDS_BEFORE_SPACE and following.isspace()):
            clause, since_space, word, space = 0, 0, 0, None
    return Fitted("".join(out), tuple(inserted), tuple(joins))


def unspoken(text: str, spoken: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """The stretches of a text (where they begin and end) in which the engine spoke no word although words stand there. `spoken` are the
    places of the words that it says it spoke.

    A short word that is missing alone proves nothing: `in the` is one word to the engine, and so are some abbreviations.
    """
    places = sorted(spoken)
    found: list[tuple[int, int]] = []
    run: list[re.Match[str]] = []
    for token in (*(match for match in _TOKEN.finditer(text) if any(char.isalnum() for char in match.group())), None):
        if token is not None and bisect_left(places, token.start()) == bisect_left(places, token.end()):
            run.append(token)
            continue
        if run and _is_loss([match.group() for match in run]):
            found.append((run[0].start(), run[-1].end()))
        run = []
    return tuple(found)


def without(text: str, stretches: Sequence[tuple[int, int]]) -> str:
    """A text without these stretches of it."""
    kept, at = [], 0
    for start, end in stretches:
        kept.append(text[at:start].strip())
        at = end
    return " ".join(part for part in (*kept, text[at:].strip()) if part)


def _is_loss(tokens: Sequence[str]) -> bool:
    letters = sum(char.isalnum() for token in tokens for char in token)
    return letters >= 8


def _cost(char: str) -> tuple[int, bool]:
    """The bytes that a character takes in the engine's buffer, and whether it is a word by itself (or none)."""
    if "\uac00" <= char <= "\ud7a3":
        return 3 * len(unicodedata.normalize("NFD", char)), False
    if "\u3400" <= char <= "\u9fff" or "\U00020000" <= char <= "\U0003ffff":
        return 4, True
    if char.isspace():
        return 3, True  # each word also takes one of 300 places
    size = len(char.encode("utf-8", "replace"))
    return size, not (char.isalnum() or char in "'’" or unicodedata.category(char).startswith("M"))


def _may_part(text: str, place: int) -> bool:
    """Whether a word may be parted before this character: not from its marks, and not where characters are joined."""
    char = text[place]
    return not (unicodedata.category(char).startswith("M") or char in _JOINERS or text[place - 1 : place] in _JOINERS or place == 0)


def _between_digits(number: re.Match[str]) -> Iterator[int]:
    previous = ""
    for at, char in enumerate(number.group()):
        if char.isdecimal() and previous.isdecimal():
            yield number.start() + at
        previous = char
