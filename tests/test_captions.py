"""`record/captions`: what was heard, cut for reading."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from playbook.record.captions import Caption, Cue, cues_of, split, to_srt, to_vtt, write_captions
from playbook.record.summary import RunSummary, Utterance

LONG = (
    "This machine mills a part in three steps. First, it measures the block. Then it cuts the outline. "
    "Finally, it polishes every edge until the surface shines like a mirror."
)


def width(row: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in row)


def test_a_short_line_is_one_caption_with_the_id_of_its_step() -> None:
    assert split([Cue("hello", 500, 1700, "Welcome, friend.")]) == [Caption("hello", 500, 1700, ("Welcome, friend.",))]


def test_two_rows_are_about_equally_long_and_break_at_a_pause_if_they_can() -> None:
    (caption,) = split([Cue("a", 0, 4000, "Would you like to hear the story of the harbour, or shall we begin?")])
    assert caption.rows == ("Would you like to hear the story", "of the harbour, or shall we begin?")
    (caption,) = split([Cue("a", 0, 4000, "Would you like to hear this story now, or shall we begin upstairs?")])
    assert caption.rows == ("Would you like to hear this story now,", "or shall we begin upstairs?")


def test_a_long_line_becomes_several_captions_cut_after_sentences() -> None:
    captions = split([Cue("demo", 1000, 11_000, LONG)])
    assert [caption.id for caption in captions] == ["demo", "demo/2", "demo/3"]
    assert [" ".join(caption.rows)[-1] for caption in captions] == ["."] * 3
    assert " ".join(" ".join(caption.rows) for caption in captions) == LONG
    assert (captions[0].start_ms, captions[-1].end_ms) == (1000, 11_000)


def test_captions_change_when_the_word_is_spoken_where_its_time_is_known() -> None:
    words = [(500 * n, match.start()) for n, match in enumerate(re.finditer(r"\w+", LONG))]
    captions = split([Cue("demo", 1000, 20_000, LONG, words)])
    at = 0
    for caption in captions:
        at = LONG.index(caption.rows[0], at)
        assert caption.start_ms == 1000 + next(ms for ms, start in words if start >= at)


def test_without_word_times_the_place_in_the_text_stands_for_them() -> None:
    first, second, *_ = split([Cue("demo", 0, 10_000, LONG)])
    assert first.end_ms == second.start_ms == 10_000 * LONG.index(second.rows[0]) // len(LONG)


def test_a_script_without_spaces_is_cut_between_characters_but_never_before_punctuation() -> None:
    text = "早上好，感谢您今天的光临。「电梯」在您的身后，售票处的左边。我们最古老的画作从未离开过这座建筑。" * 3
    captions = split([Cue("zh", 0, 30_000, text)])
    rows = [row for caption in captions for row in caption.rows]
    assert "".join(rows) == text
    assert len(captions) > 2
    assert all(width(row) <= 42 for row in rows)
    assert not any(row[0] in "，。」、！" for row in rows)
    assert not any(row[-1] in "「" for row in rows)


def test_a_word_wider_than_a_row_is_cut_hard() -> None:
    captions = split([Cue("a", 0, 9000, "See https://example.org/" + "x" * 120)])
    assert all(width(row) <= 42 for caption in captions for row in caption.rows)
    assert "".join("".join(caption.rows) for caption in captions).replace(" ", "").endswith("x" * 120)


def test_signs_that_are_twice_as_wide_fit_too() -> None:
    for text in ("😀" * 100, "⌚" * 100, "👩‍👩‍👧" * 30, "x" + "。" * 100):
        rows = [row for caption in split([Cue("a", 0, 9000, text)]) for row in caption.rows]
        assert "".join(rows) == text
        assert all(width(row.replace("\u200d👩", "").replace("\u200d👧", "")) <= 42 for row in rows)


def test_a_later_line_takes_the_place_of_an_earlier_one() -> None:
    captions = split([Cue("b", 1500, 3000, "Two."), Cue("a", 0, 2000, "One."), Cue("c", 1500, 2500, "At the same time.")])
    assert [(caption.id, caption.start_ms, caption.end_ms) for caption in captions] == [("a", 0, 1500), ("c", 1500, 2500)]


texts = st.text(st.sampled_from("abc defg. hi, jk! 你好，。「」é😀<&>-\n\x00") | st.characters(), max_size=400)


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000), texts), max_size=5))
def test_captions_never_overlap_are_never_empty_and_always_fit(lines: list[tuple[int, int, str]]) -> None:
    captions = split([Cue(f"s{n}", start, start + lasts, text) for n, (start, lasts, text) in enumerate(lines)])
    for caption, following in pairwise(captions):
        assert caption.end_ms <= following.start_ms
    for caption in captions:
        assert caption.start_ms < caption.end_ms
        assert 1 <= len(caption.rows) <= 2
        assert all(row.strip() for row in caption.rows)
    to_vtt(captions)
    to_srt(captions)


@given(texts)
def test_no_word_is_lost_or_moved_when_there_is_time(text: str) -> None:
    captions = split([Cue("a", 0, 10_000_000, text)])
    shown = "".join("".join(caption.rows) for caption in captions)
    assert re.sub(r"\s", "", shown) == re.sub(r"[\s\x00-\x1f\x7f]", "", text)


def test_webvtt_is_escaped_and_has_the_ids() -> None:
    assert to_vtt(split([Cue("r & d", 0, 3_661_001, "Q&A <now> --> go")])) == (
        "WEBVTT\n\nr & d\n00:00:00.000 --> 01:01:01.001\nQ&amp;A &lt;now&gt; --&gt; go\n"
    )


def test_srt_is_numbered_and_no_text_can_end_a_caption() -> None:
    assert to_srt(split([Cue("a", 0, 1500, "One --> two."), Cue("b", 2000, 2500, "Three.")])) == (
        "1\n00:00:00,000 --> 00:00:01,500\nOne → two.\n\n2\n00:00:02,000 --> 00:00:02,500\nThree.\n"
    )


def test_a_run_shows_only_what_was_heard_on_its_own_timeline(tmp_path: Path) -> None:
    summary = RunSummary(zero_ms=1000, last_ms=9000)
    lines = [
        Utterance("whole", "All of it.", started_ms=1000, ended_ms=2000),
        Utterance("cut", "Only some of this was heard.", started_ms=2000, ended_ms=3000, interrupted=True, heard_ms=900, heard="Only some"),
        Utterance("silent", "Nobody knows which words these were.", started_ms=3000, ended_ms=4000, interrupted=True, heard_ms=700),
        Utterance("never", "Never begun.", ended_ms=4000, interrupted=True, heard_ms=0),
        Utterance("nothing", "Nothing heard.", started_ms=4000, ended_ms=4010, interrupted=True, heard_ms=10, heard=""),
        Utterance("sound", started_ms=5000, ended_ms=6000, audio_sha256="00"),
        Utterance("secret", "The code is ***.", started_ms=6000, ended_ms=7000),
    ]
    summary.utterances = {line.task: line for line in lines}
    cues = list(cues_of(summary, {}))
    assert [(cue.id, cue.start_ms, cue.end_ms) for cue in cues[:2]] == [("whole", 0, 1000), ("cut", 1000, 1900)]
    write_captions(tmp_path, summary, SimpleNamespace(words={"whole": ((0, 0), (400, 4))}))
    shown = (tmp_path / "captions.vtt").read_text("utf-8")
    assert [row for row in shown.splitlines() if row and "-->" not in row] == [
        *("WEBVTT", "whole", "All of it.", "cut", "Only some", "silent", "Nobody", "secret", "The code is ***."),
    ]
    assert (tmp_path / "captions.srt").read_text("utf-8").count("-->") == 4
