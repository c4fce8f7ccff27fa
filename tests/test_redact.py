"""Comparing with what was written down, and what vendors tell, whoever wrote it."""

from __future__ import annotations

import datetime
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbook.errors import near
from playbook.providers.told import MOST_S, moment, seconds
from playbook.record.redact import agrees
from playbook.transports.cassette import Cassette

_PIECES = st.lists(st.sampled_from(["***", "*", "a", "b", "ab", "\n", ""]), max_size=7).map("".join)


@given(_PIECES, _PIECES)
def test_a_mask_stands_for_anything(shown: str, text: str) -> None:
    """A masked text agrees with exactly those in which each mask is some text or none, as a pattern would have it."""
    assert agrees(shown, text) == (re.fullmatch(".*".join(map(re.escape, shown.split("***"))), text, re.DOTALL) is not None)


@pytest.mark.parametrize("shown", ["***" * 40 + "!x", "***a" * 20_000 + "!", "*" * 60_000, "***a***" * 9_000])
def test_a_text_of_masks_costs_no_more_than_its_length(shown: str) -> None:
    """What anybody may send is compared in one pass: with a pattern this test would never end."""
    assert agrees(shown, "a" * 100_000 + "x") is (set(shown) == {"*"} or shown.endswith("***"))


def test_what_looks_like_a_token_is_found_in_one_pass(tmp_path) -> None:
    """A body full of beginnings of tokens is cleaned at once; a token is masked."""
    cassette = Cassette(tmp_path / "tape.jsonl", "all")
    assert cassette.clean("eyJ-" * 200_000) == "***"
    assert cassette.clean("see eyJhbGciOi.eyJzdWIi.c2ln, please") == "see ***, please"


def test_no_name_is_guessed_from_a_text_of_any_length() -> None:
    """Guessing takes the square of a name's length, so what is no name is not compared."""
    assert near("ab" * 500_000, ["ba" * 500_000, "face"]) == ""
    assert near("facee", ["x" * 500_000, "face"]) == "face"


_NUMBERS = st.none() | st.booleans() | st.integers() | st.floats() | st.integers(min_value=10**300, max_value=10**400) | st.text()


@given(_NUMBERS)
def test_a_vendors_number_is_bounded(value: object) -> None:
    """Whatever is sent, seconds are from nothing to eleven days and can be computed with, or they are not there."""
    told = seconds(value)
    assert told is None or 0 <= round(told * 1000) <= MOST_S * 1000
    assert moment(value) is None or isinstance(value, str)


@pytest.mark.parametrize("value", [10**400, 1e308, -1, float("nan"), float("inf"), True, "5", None])
def test_what_is_no_number_of_seconds(value: object) -> None:
    """Numbers that nothing lasts, and what is no number."""
    assert seconds(value) is None


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-03-01T10:00:00+02:00", 8),
        ("2026-03-01T10:00:00", 10),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:00:00-12:00", None),
    ],
)
def test_a_vendors_date_is_in_the_calendar(text: str, hour: int | None) -> None:
    """A date is in UTC; one that no calendar has is none."""
    found = moment(text)
    assert (found and found.hour) == hour
    assert found is None or found.tzinfo is datetime.UTC
