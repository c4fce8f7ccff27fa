"""Two performances side by side, and three verdicts that are kept apart.

* *content*: the words, the sounds, the order, what was skipped
* *outcome*: how steps and lines ended, on what evidence, interrupted or not, how the run ended
* *timing*: when lines were heard and for how long, how quickly the provider answered, how late we were

A shift in time has one of three causes, which are told apart: *ours* (our timer came late), the *provider* (it took longer to accept or to
begin), or it was *carried* over from the lines before. Plans are compared by the same means; what they differ in besides is *settings*.

Pure: data in, data out. What still counts as the same is asked of a `Measure`: a tolerance, or a baseline.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from statistics import median
from typing import Any, Literal, Protocol

from playbook.record.align import align
from playbook.record.performance import Act, Performance

Verdict = Literal["content", "outcome", "timing", "settings"]
VERDICTS: tuple[Verdict, ...] = ("content", "outcome", "timing", "settings")
Cause = Literal["", "ours", "provider", "carried"]


class Measure(Protocol):
    """What still counts as the same. `step` is an id on the first side, empty for the run as a whole; `what` names a time or a fact."""

    def limit_ms(self, step: str, what: str, value: int) -> int | None:
        """How far a time may be off from this value; None: it is not judged."""

    def accepts(self, step: str, what: str, a: Any, b: Any) -> bool:
        """Whether two facts that are not equal are as good as equal."""


TIMES = ("start", "length", "accepted", "answered", "late", "ours")
"""The times that are judged; `sent` is only needed to tell causes apart."""
WHOLE_TIMES = ("opened", "lasted")

_VERDICTS: dict[str, Verdict] = {
    "skipped": "content",
    "voice": "content",
    "event": "content",
    "until": "timing",
    "at": "timing",
    "wait": "timing",
    "timeout": "timing",
    "pauses": "timing",
    "event timeout": "timing",
    "begins": "timing",
    "outcome": "outcome",
    "evidence": "outcome",
    "interrupted": "outcome",
    "end": "outcome",
    "conflicts": "outcome",
}
"""To which verdict a fact belongs; any other is a setting."""
_PRESENCE = ("added", "removed", "moved here", "moved away")
_CAUSES: Mapping[Cause, str] = {
    "ours": "our timer was late",
    "provider": "the provider's doing",
    "carried": "carried over from the lines before",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `step` is the id on the second side, or on the first where there is no second; empty for the run as a whole.

    `a` and `b` are the two values. For times, `limit_ms` is how much they might have differed.
    """

    verdict: Verdict
    step: str
    what: str
    a: Any = None
    b: Any = None
    limit_ms: int | None = None
    cause: Cause = ""

    @property
    def carried(self) -> bool:
        """Whether it only follows from what changed before it."""
        return self.cause == "carried" and self.what == "start"

    @property
    def is_presence(self) -> bool:
        """Whether a whole step came, went or moved; `a` or `b` is then what it says."""
        return self.what in _PRESENCE

    @property
    def due_to(self) -> str:
        """Whose doing a shift is, in words; empty where there is nothing to tell."""
        return _CAUSES[self.cause] if self.cause and self.what == "start" else ""


@dataclass(frozen=True, slots=True)
class Row:
    """One step on both sides, or on one."""

    a: Act | None
    b: Act | None
    changes: tuple[Change, ...] = ()

    @property
    def id(self) -> str:
        """The step's id on the second side, or on the only one."""
        act = self.b or self.a
        assert act is not None
        return act.id


@dataclass(frozen=True, slots=True)
class Latency:
    """One side's waiting in milliseconds, the usual and the worst: how late our timers came; the provider's way from command to sound."""

    ours_median: int
    ours_max: int
    provider_median: int
    provider_max: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it, in the order of the second performance."""

    a: Performance
    b: Performance
    rows: tuple[Row, ...]
    whole: tuple[Change, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """All changes, step by step, those of the whole last."""
        return (*(change for row in self.rows for change in row.changes), *self.whole)

    @property
    def common(self) -> int:
        """How many steps both have."""
        return sum(row.a is not None and row.b is not None for row in self.rows)

    def of(self, verdict: Verdict) -> tuple[Change, ...]:
        """The changes under one verdict."""
        return tuple(change for change in self.changes if change.verdict == verdict)

    @property
    def same(self) -> bool:
        """Whether nothing changed, and both sides could be read to their ends."""
        return not self.changes and self.a.damage is None and self.b.damage is None


@dataclass(frozen=True, slots=True)
class Tolerance:
    """`150ms`, `0.2s` or `10%`: of the first side's value, but at least 1 ms."""

    ms: float = 0
    percent: float = 0

    def limit_ms(self, _step: str, _what: str, value: int) -> int:
        return max(round(self.ms + abs(value) * self.percent / 100), 1 if self.percent else 0)

    def accepts(self, _step: str, _what: str, _a: Any, _b: Any) -> bool:
        return False


def tolerance(text: str) -> Tolerance:
    """Read a tolerance. Raises `ValueError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|%)", text.strip())
    if match is None:
        raise ValueError(f"'{text}' is no tolerance: write it like 150ms, 0.2s or 10%")
    value, unit = float(match[1]), match[2]
    return Tolerance(percent=value) if unit == "%" else Tolerance(ms=value * 1000 if unit == "s" else value)


def compare(a: Performance, b: Performance, measure: Measure) -> Comparison:
    """What is different in `b`."""
    rows = [(None if i is None else a.acts[i], None if j is None else b.acts[j]) for i, j in align(a.acts, b.acts)]
    gone = {(left.verb, left.words) if left.words else left.id for left, right in rows if left is not None and right is None}
    come = {(right.verb, right.words) if right.words else right.id for left, right in rows if right is not None and left is None}
    moved = gone & come
    result = tuple(Row(left, right, tuple(_changes(left, right, moved, measure))) for left, right in rows)
    facts = tuple(_facts("", "", a.facts, b.facts, measure))
    times = tuple(_times("", WHOLE_TIMES, a, b, measure))
    return Comparison(a, b, result, facts + times)


def _changes(a: Act | None, b: Act | None, moved: set[Any], measure: Measure) -> Iterator[Change]:
    if a is None or b is None:
        act = a or b
        assert act is not None
        key = (act.verb, act.words) if act.words else act.id
        what = "moved away" if key in moved and b is None else "moved here" if key in moved else "removed" if b is None else "added"
        yield Change("content", act.id, what, a and _shown(a), b and _shown(b))
        return
    if a.verb and b.verb and a.verb != b.verb:
        yield Change("content", b.id, "verb", a.verb, b.verb)
    elif a.words != b.words and a.speaks and b.speaks:
        yield Change("content", b.id, "words" if b.verb == "say" else "sound", a.words, b.words)
    yield from _facts(a.id, b.id, a.facts, b.facts, measure)
    yield from _times(b.id, TIMES, a, b, measure)


def _shown(act: Act) -> str:
    return act.words or act.verb or act.id


def _facts(key: str, step: str, a: Mapping[str, Any], b: Mapping[str, Any], measure: Measure) -> Iterator[Change]:
    for name in a:
        if name in b and isinstance(a[name], Mapping) and isinstance(b[name], Mapping):
            for part in dict.fromkeys([*a[name], *b[name]]):
                if (before := a[name].get(part)) != (after := b[name].get(part)):
                    yield Change("settings", step, f"{name}.{part}", before, after)
        elif name in b and a[name] != b[name] and not measure.accepts(key, name, a[name], b[name]):
            if name == "outcome" and "skipped" in (a[name], b[name]):
                yield Change("content", step, "skipped", a[name] == "skipped", b[name] == "skipped")
            else:
                yield Change(_VERDICTS.get(name, "settings"), step, name, a[name], b[name])


def _times(step: str, names: tuple[str, ...], a: Act | Performance, b: Act | Performance, measure: Measure) -> Iterator[Change]:
    for name in names:
        before, after = a.times.get(name), b.times.get(name)
        if before is None or after is None or before == after:
            continue
        limit = measure.limit_ms(a.id if isinstance(a, Act) else "", name, before)
        if limit is not None and abs(after - before) > limit:
            yield Change("timing", step, name, before, after, limit, _cause(name, a, b))


def _cause(name: str, a: Act | Performance, b: Act | Performance) -> Cause:
    """What a shift is mostly due to."""
    if name == "length" and isinstance(b, Act) and not b.speaks:  # a wait, which is the author's
        return ""
    if name in ("accepted", "answered", "length", "opened"):
        return "provider"
    if name == "ours":
        return "ours"
    if name != "start":
        return "" if name == "lasted" else "carried"

    def shift(*names: str) -> int:
        return sum(b.times.get(name, 0) - a.times.get(name, 0) for name in names)

    total, provider, ours = shift("start"), shift("accepted", "answered"), shift("ours")
    parts: list[tuple[int, Cause]] = [(provider, "provider"), (ours, "ours"), (total - provider - ours, "carried")]
    return max(parts, key=lambda part: part[0] if total > 0 else -part[0])[1]


def latency(performance: Performance) -> Latency:
    """How much one side waited, and for whom."""
    ours = [act.times["ours"] for act in performance.acts if "ours" in act.times]
    provider = [act.times["accepted"] + act.times["answered"] for act in performance.acts if "answered" in act.times]
    return Latency(_median(ours), max(ours, default=0), _median(provider), max(provider, default=0))


def _median(values: list[int]) -> int:
    return round(median(values)) if values else 0


Words = list[tuple[Literal["same", "gone", "come"], str]]


def words(a: str, b: str) -> Words:
    """Which words of a text changed, in reading order."""
    left, right = re.findall(r"\s*\S+|\s+", a), re.findall(r"\s*\S+|\s+", b)
    result: Words = []
    for op, i, j, k, m in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if op == "equal":
            result.append(("same", "".join(left[i:j])))
            continue
        if i < j:
            result.append(("gone", "".join(left[i:j])))
        if k < m:
            result.append(("come", "".join(right[k:m])))
    return result


# --- in words -------------------------------------------------------------------------------------------------------------

_TOLD = {
    "start": "began at",
    "length": "lasted",
    "accepted": "was accepted after",
    "answered": "was heard, after it was accepted, within",
    "late": "was late by",
    "ours": "was held up by us for",
    "lasted": "lasted",
    "opened": "opened after",
}


def sentence(change: Change, learned_from: int) -> str:
    """A difference from a baseline that was learned from so many runs, in one sentence that has the limit and the value."""
    what = change.step or "the show"
    a, b = change.a, change.b
    if change.limit_ms is not None:
        band = f"{max(0, a - change.limit_ms)} to {a + change.limit_ms} ms"
        median = f"median {a} ms of {learned_from} {'run' if learned_from == 1 else 'runs'}"
        due_to = f"; {change.due_to}" if change.due_to else ""
        return f"{what} {_TOLD[change.what]} {b} ms; the baseline allows {band} ({median}){due_to}"
    if change.is_presence:
        return f"{what} was {change.what}: {_short(b if a is None else a)}"
    return f"{what}: {change.what} changed: was {_short(a)}, now {_short(b)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    text = " ".join(text.split())
    text = text if len(text) <= 200 else f"{text[:197]}…"
    return f'"{text}"' if "'" in text else f"'{text}'"
