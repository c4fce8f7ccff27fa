"""What was heard, as WebVTT and SRT.

A line becomes one or more captions of at most two rows of 42 characters (a full-width character counts as two), cut where a reader would
cut: after sentences, else after clauses, else between words, never before closing punctuation. A caption is on screen from its first
word to the next one's; where words have no times, their place in the text stands for it. Captions never overlap and are never empty.
The id of a caption is the id of its step, `id/2` for the second of a step.

Pure but for `write_captions`, which writes the two files of a run folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from playbook.errors import cells
from playbook.record.summary import RunSummary, Utterance

ROW = 42
SPOKEN_MS_PER_CHAR = 65
"""How fast we take an interrupted line to have been spoken when nobody said how much of it was heard."""

Marks = Sequence[tuple[int, int]]
"""When words begin (milliseconds after the line's start) and where they stand in the text (characters), in order."""


class WordTimes(Protocol):
    """Whoever knows the word positions of the lines that were spoken, by task (`speech.show.ShowRecorder` does)."""

    @property
    def words(self) -> Mapping[str, Marks]: ...


@dataclass(frozen=True, slots=True)
class Cue:
    """A line as it was heard. Times are on the timeline; `words` may be empty."""

    id: str
    start_ms: int
    end_ms: int
    text: str
    words: Marks = ()


@dataclass(frozen=True, slots=True)
class Caption:
    """What stands on the screen at once: one or two rows."""

    id: str
    start_ms: int
    end_ms: int
    rows: tuple[str, ...]


def write_captions(folder: Path, summary: RunSummary, show: WordTimes) -> None:
    """Write `captions.vtt` and `captions.srt` of a run."""
    captions = split(cues_of(summary, show.words))
    write_new(folder / "captions.vtt", to_vtt(captions))
    write_new(folder / "captions.srt", to_srt(captions))


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet: never into one, nor through a link, that somebody else has put there. Raises `OSError`."""
    with path.open("x", encoding="utf-8", errors="replace") as file:  # the name of a playbook's file may be any bytes
        file.write(text)


def cues_of(summary: RunSummary, words: Mapping[str, Marks]) -> Iterator[Cue]:
    """The lines of a run as they were heard, on its timeline."""
    zero = summary.zero_ms or 0
    for utterance in summary.utterances.values():
        if utterance.started_ms is None or not utterance.text:
            continue
        lasted = utterance.lasted_ms
        end = summary.last_ms if lasted is None else utterance.started_ms + lasted
        yield Cue(utterance.task, utterance.started_ms - zero, end - zero, _heard(utterance), words.get(utterance.task, ()))


def _heard(utterance: Utterance) -> str:
    if utterance.heard is not None:
        return utterance.heard
    if not utterance.interrupted:
        return utterance.text
    reach = (utterance.heard_ms or 0) // SPOKEN_MS_PER_CHAR
    if reach >= len(utterance.text):
        return utterance.text
    return utterance.text[: utterance.text.rfind(" ", 0, reach + 1) + 1]


# --- cutting ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is never cut: a word, or one full-width character with the punctuation that belongs to it."""

    text: str
    at_ms: int
    spaced: bool  # a space stands before it
    width: int
    end: int  # how good a place to cut is behind it: 2 sentence, 1 clause, 0 none


def split(cues: Iterable[Cue]) -> list[Caption]:
    """Cut every cue into captions, in order of time; an earlier one makes room for a later."""
    captions = sorted((caption for cue in cues for caption in _split(cue)), key=lambda caption: caption.start_ms)
    result: list[Caption] = []
    for i, caption in enumerate(captions):
        end = min(caption.end_ms, captions[i + 1].start_ms) if i + 1 < len(captions) else caption.end_ms
        if end > caption.start_ms:
            result.append(Caption(caption.id, caption.start_ms, end, caption.rows))
    return result


def _split(cue: Cue) -> Iterator[Caption]:
    row = " ".join(_CONTROL.sub(" ", cue.text).split())
    if cells(row) <= ROW:  # most lines
        if row:
            yield Caption(cue.id, max(0, cue.start_ms), cue.end_ms, (row,))
        return
    pieces = list(_pieces(cue))
    parts = _partition(pieces)
    for n, (first, last) in enumerate(parts, 1):
        start = cue.start_ms if n == 1 else pieces[first].at_ms
        end = pieces[last].at_ms if last < len(pieces) else cue.end_ms
        yield Caption(cue.id if n == 1 else f"{cue.id}/{n}", max(0, start), end, _rows(pieces[first:last]))


def _pieces(cue: Cue) -> Iterator[_Piece]:
    text = _CONTROL.sub(" ", cue.text)
    lasts = cue.end_ms - cue.start_ms
    marks = [(0, 0), *((min(at_ms, lasts), place) for at_ms, place in cue.words if place < len(text)), (lasts, len(text))]
    mark = 0

    def at_ms(place: int) -> int:
        """When this character is spoken: at its word's time, or between two of them in proportion."""
        nonlocal mark
        while mark + 2 < len(marks) and marks[mark + 1][1] <= place:
            mark += 1
        (since, first), (until, last) = marks[mark : mark + 2]
        return cue.start_ms + since + (until - since) * (place - first) // max(1, last - first)

    for match in _PIECE.finditer(text):
        start, word = match.start(), match.group()
        spaced = start > 0 and text[start - 1].isspace()
        while cells(word) > ROW:  # full-width signs that are no script, or a crowd of punctuation
            yield _Piece(word[: ROW // 2], at_ms(start), spaced, cells(word[: ROW // 2]), 0)
            start, word, spaced = start + ROW // 2, word[ROW // 2 :], False
        end = 2 if _SENTENCE.search(word) else 1 if _CLAUSE.search(word) else 0
        yield _Piece(word, at_ms(start), spaced, cells(word), end)


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WIDE = "\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\U00020000-\U0003fffd"
_OPENING = "「『（《〈【〔［｛"
_CLOSING = "、。，．！？：；」』）》〉】〕］｝…ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ"
_EMOJI = "\U0001f000-\U0001faff"
_PIECE = re.compile(
    rf"[{_OPENING}]*[{_WIDE}][{_CLOSING}]*"  # one full-width character and what clings to it
    rf"|[{_EMOJI}](?:[\ufe0f\U0001f3fb-\U0001f3ff]|\u200d[{_EMOJI}\u2600-\u27bf])*"  # one emoji, however it is made up
    rf"|[^\s{_WIDE}{_EMOJI}]{{1,{ROW}}}[{_CLOSING}]*"  # a word; one that is wider than a row is cut hard
)
_SENTENCE = re.compile(r"[.!?…。！？][\"'”’»)\]」』）]*\Z")
_CLAUSE = re.compile(r"[,;:–—、，；：][\"'”’»)\]」』）]*\Z")


def _partition(pieces: Sequence[_Piece]) -> list[tuple[int, int]]:
    """The best cuts: few captions, evenly filled, and each ending where the text pauses."""
    total = len(pieces)
    best = [0.0] * (total + 1)  # the cost of everything from here on
    cut = [total] * (total + 1)
    for first in range(total - 1, -1, -1):
        best[first] = float("inf")
        rows, row, filled = 1, 0, 0
        for last in range(first + 1, total + 1):
            piece = pieces[last - 1]
            width = piece.width + (piece.spaced and row > 0)
            if row and row + width > ROW:
                rows, row, width = rows + 1, 0, piece.width
                if rows > 2:
                    break
            row += width
            filled += width
            slack = max(0.0, 1 - filled / (2 * ROW))
            pause = 0.0 if last == total else (1.0, 0.3, 0.0)[piece.end]
            cost = 1 + slack * slack + pause + best[last]
            if cost < best[first]:
                best[first], cut[first] = cost, last
    parts, first = [], 0
    while first < total:
        parts.append((first, cut[first]))
        first = cut[first]
    return parts


def _rows(pieces: Sequence[_Piece]) -> tuple[str, ...]:
    """One row, or two of about the same length, preferably cut where the text pauses."""
    whole = _join(pieces)
    if cells(whole) <= ROW:
        return (whole,)
    choices = []
    for i in range(1, len(pieces)):
        upper, lower = _join(pieces[:i]), _join(pieces[i:])
        if (wider := max(cells(upper), cells(lower))) <= ROW:
            choices.append((wider - 6 * (pieces[i - 1].end > 0), i, (upper, lower)))
    return min(choices)[2]


def _join(pieces: Sequence[_Piece]) -> str:
    return "".join(f" {piece.text}" if piece.spaced and i else piece.text for i, piece in enumerate(pieces))


# --- writing ------------------------------------------------------------------------------------------------------------


def to_vtt(captions: Iterable[Caption]) -> str:
    """As WebVTT."""
    blocks = ["WEBVTT\n"]
    for caption in captions:
        text = "\n".join(caption.rows).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        name = caption.id.replace("-->", "->")
        blocks.append(f"{name}\n{_time(caption.start_ms, '.')} --> {_time(caption.end_ms, '.')}\n{text}\n")
    return "\n".join(blocks)


def to_srt(captions: Iterable[Caption]) -> str:
    """As SRT, which has numbers instead of ids and no way to escape: an arrow in the text would end it, so it becomes a character."""
    blocks = []
    for n, caption in enumerate(captions, 1):
        text = "\n".join(caption.rows).replace("-->", "→")
        blocks.append(f"{n}\n{_time(caption.start_ms, ',')} --> {_time(caption.end_ms, ',')}\n{text}\n")
    return "\n".join(blocks)


def _time(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{ms:03}"
