"""`speech/clauses`: a text in clauses that the engine can hold, and the words that it left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from playbook.speech.clauses import BREAK, BUDGETS, fit, unspoken, without


@given(st.text(max_size=400), st.sampled_from(BUDGETS))
def test_every_character_is_kept_where_it_can_be_found_again(text: str, budget: int) -> None:
    """Nothing is lost or moved: a place in what the engine gets leads back to the same character, or to a space that became a break."""
    fitted = fit(text, budget)
    ours = set(fitted.inserted)
    back = [(fitted.original(place), char) for place, char in enumerate(fitted.text) if place not in ours]
    assert [place for place, _ in back] == list(range(len(text)))
    changed = {char for place, char in back if text[place] != char}
    assert changed <= {BREAK}
    assert all(text[fitted.original(place)].isspace() for place in fitted.joins if place not in ours)
    assert all(fitted.text[place] == BREAK for place in fitted.joins)


@given(st.text("ab 한국今さก7😀é", max_size=600), st.sampled_from(BUDGETS))
def test_no_clause_is_larger_than_its_budget(text: str, budget: int) -> None:
    for clause in fit(text, budget).text.split(BREAK):
        assert len(clause.encode()) <= budget + 3


def test_what_fits_is_left_as_it_is() -> None:
    for text in ("", "Welcome, friend. This well-known (old) museum isn't 3.5 km away.", "今日は良い天気ですね。" * 60, "A word, " * 300):
        assert fit(text, BUDGETS[0]).text == text


def test_a_number_too_long_for_the_engine_is_read_digit_by_digit() -> None:
    assert fit("It is " + "1" * 40, BUDGETS[0]).text == "It is " + " ".join("1" * 40)
    assert fit("It is " + "1" * 32, BUDGETS[0]).text == "It is " + "1" * 32


def test_a_word_is_not_parted_from_its_marks() -> None:
    """Between a letter and its vowel sign no break is put, however long the word."""
    fitted = fit("กำ่ี" * 60, BUDGETS[0])
    assert fitted.inserted
    assert all(fitted.text[place + 1] == "ก" for place in fitted.inserted)


def test_only_a_run_of_words_counts_as_left_out() -> None:
    """`in the` is one word to the engine, which says nothing about the second."""
    text = "We meet in the museum tomorrow at noon"
    assert unspoken(text, [0, 3, 8, 15, 22, 31, 34]) == ()
    [(start, end)] = unspoken(text, [0, 3, 8])
    assert text[start:end] == "the museum tomorrow at noon"
    assert without(text, [(start, end)]) == "We meet in"
    assert without(text, [(8, 14), (31, 38)]) == "We meet museum tomorrow"
