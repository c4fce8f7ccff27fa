"""Which step of one performance is which step of another.

Ids alone do not tell: a step that was put in shifts the ids of those behind it that have no name of their own (`say-3`). Words alone do
not tell: a line may be said often, or be rewritten. So several views are tried, the strictest first, and each only in the gaps that those
before it left. Within a view, the longest common subsequence is found (patience sorting: n log n). Pure.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from difflib import SequenceMatcher
from itertools import product
from typing import TypeVar

from playbook.record.performance import Act

T = TypeVar("T")
Key = Callable[[Act], Hashable]
"""One view of an act; None: in this view it is like nothing else."""
Gap = tuple[int, int, int, int]
Pair = tuple[int, int]

_ROUNDS = 20
_SMALL = 400
_ALIKE = 0.5

_COUNTED = re.compile(r"(?:.*/)?(?:say|audio-echo|wait|interrupt|end|include)-\d+(?:\.\d+)*", re.DOTALL)


def _given(act: Act) -> str | None:
    """The id, if an author gave it."""
    return None if _COUNTED.fullmatch(act.id) else act.id


STRICT: tuple[Key, ...] = (
    lambda act: (act.id, act.verb, act.words) if _given(act) else None,
    lambda act: (act.verb, act.words) if act.words else None,
    _given,
)
LOOSE: tuple[Key, ...] = (
    lambda act: act.id,
    lambda act: None if act.speaks else (act.verb,),
)


def align(a: Sequence[Act], b: Sequence[Act]) -> list[tuple[int | None, int | None]]:
    """Indices into both, in order; what has no partner stands alone, the first side's before the second's."""
    pairs = _matched(a, b, [], STRICT)
    pairs = sorted(pairs + [pair for gap in _gaps(pairs, len(a), len(b)) for pair in _alike(a, b, gap)])
    pairs = _matched(a, b, pairs, LOOSE)
    rows: list[tuple[int | None, int | None]] = []
    i = j = 0
    for left, right in [*pairs, (len(a), len(b))]:
        rows += [(each, None) for each in range(i, left)]
        rows += [(None, each) for each in range(j, right)]
        if left < len(a):
            rows.append((left, right))
        i, j = left + 1, right + 1
    return rows


def _matched(a: Sequence[Act], b: Sequence[Act], pairs: list[Pair], keys: Sequence[Key]) -> list[Pair]:
    """The pairs, and what each view finds between them, until it finds nothing more."""
    for key in keys:
        for _ in range(_ROUNDS):
            found = [pair for gap in _gaps(pairs, len(a), len(b)) for pair in _common(a, b, gap, key)]
            if not found:
                break
            pairs = sorted(pairs + found)
    return pairs


def _gaps(pairs: Sequence[Pair], a_len: int, b_len: int) -> list[Gap]:
    """What lies between the pairs, where both sides have something."""
    result = []
    i = j = 0
    for left, right in [*pairs, (a_len, b_len)]:
        if i < left and j < right:
            result.append((i, left, j, right))
        i, j = left + 1, right + 1
    return result


def _common(a: Sequence[Act], b: Sequence[Act], gap: Gap, key: Key) -> list[Pair]:
    """The longest common subsequence in a gap, where the k-th of a kind can only be the k-th of that kind."""
    a_from, a_to, b_from, b_to = gap
    where = _numbered(b, b_from, b_to, key)
    both = [(index, where[token]) for token, index in _numbered(a, a_from, a_to, key).items() if token in where]
    return _longest_rise(both)


def _numbered(acts: Sequence[Act], first: int, last: int, key: Key) -> dict[tuple[Hashable, int], int]:
    counts: dict[Hashable, int] = defaultdict(int)
    result = {}
    for index in range(first, last):
        kind = key(acts[index])
        if kind is not None:
            result[kind, counts[kind]] = index
            counts[kind] += 1
    return result


def _longest_rise(pairs: Sequence[Pair]) -> list[Pair]:
    """Of pairs that rise on the left, the most that rise on the right too."""
    tops: list[int] = []  # the smallest right end of a rise of each length
    piles: list[int] = []  # the index of the pair that made it
    before: list[int] = []
    for index, (_, right) in enumerate(pairs):
        pile = bisect_left(tops, right)
        before.append(piles[pile - 1] if pile else -1)
        tops[pile : pile + 1] = [right]
        piles[pile : pile + 1] = [index]
    result = []
    index = piles[-1] if piles else -1
    while index >= 0:
        result.append(pairs[index])
        index = before[index]
    return result[::-1]


def _alike(a: Sequence[Act], b: Sequence[Act], gap: Gap) -> list[Pair]:
    """Lines of other id and other words that are yet the same line, rewritten. Only in small gaps: comparing all with all is slow."""
    a_from, a_to, b_from, b_to = gap
    if (a_to - a_from) * (b_to - b_from) > _SMALL:
        return []
    result: list[Pair] = []
    free = b_from
    for left in range(a_from, a_to):
        scored = [(_likeness(a[i], b[j]), -j) for i, j in product([left], range(free, b_to))]
        best, right = max(scored, default=(0.0, 0))
        if best >= _ALIKE:
            result.append((left, -right))
            free = -right + 1
    return result


def _likeness(a: Act, b: Act) -> float:
    if a.verb != "say" or b.verb != "say":
        return 0.0
    return SequenceMatcher(None, a.words.split(), b.words.split(), autojunk=False).ratio()
