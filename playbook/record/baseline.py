"""Baselines: what runs of a playbook looked like, in a file beside it that a person can review.

A baseline is learned from one or more runs of the same words. Of every time it keeps the median and the spread (the farthest that a run was
from it), so that later runs fail outside the band that this playbook really shows, and not outside one that somebody guessed. A fact that
was not the same in all runs is kept as a list of what was seen. `schemas/baseline.schema.json` is the format.

Where a playbook is performed once for every row of data, each row has a baseline of its own, all of them in one file. A row is known by
its `id`, or else by its values, and never by its place; values that are secret are `***` there, and match whatever they are now.

Pure but for reading the file; writing is the caller's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from playbook.errors import RecordError, RunError, format_problem, reason_of
from playbook.formats.findings import Findings
from playbook.formats.schema import compile_schema, load_schema
from playbook.formats.source import parse, read_file
from playbook.record.diff import Change, Comparison, compare
from playbook.record.performance import Act, Performance
from playbook.record.redact import agrees

VERSION = 1
SLACK_MS = 50
SPREADS = 2
"""How many spreads a time may be off: a few runs have not seen the worst."""
_TIMES = ("start", "length", "accepted", "answered")
_FACTS = ("outcome", "evidence", "interrupted")


@dataclass(frozen=True, slots=True)
class Band:
    """A time as it really was."""

    median: int
    spread: int


@dataclass(frozen=True, slots=True)
class Learned:
    """One step of a baseline. `seen` holds, by the fact's name, every value that was seen."""

    act: Act
    bands: Mapping[str, Band]
    seen: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is expected of a run. As a `Measure`, it says how far one may be off."""

    playbook: str
    provider: str
    clock: str
    runs: int
    end: tuple[Any, ...]
    steps: tuple[Learned, ...]
    lasted: Band | None = None
    slack_ms: int = SLACK_MS

    def view(self, run: Performance, clock: str) -> str:
        """How much of a run can be compared: `compared`, `without timings` (another clock's), or `words only` (another provider's)."""
        if run.facts.get("provider") != self.provider:
            return "words only"
        return "compared" if clock == self.clock else "without timings"

    def judge(self, run: Performance, *, clock: str, part: tuple[str | None, str | None] = (None, None)) -> Comparison:
        """Compare a run. `part` are the first and the last step that it performed, where it did not perform all."""
        steps = _part(self.steps, *part)
        facts = {"end": self.end[0]}
        times = {} if self.lasted is None else {"lasted": self.lasted.median}
        mine = Performance("the baseline", tuple(step.act for step in steps), facts, times)
        if part != (None, None):  # the end that closes a part is nobody's
            known = {step.act.id for step in steps}
            run = replace(run, acts=tuple(act for act in run.acts if act.speaks or act.id in known))
        return compare(mine, run, _Bands(self, {step.act.id: step for step in steps}, self.view(run, clock), part != (None, None)))


@dataclass(frozen=True, slots=True)
class Row:
    """The baseline of one row of data. `id` is empty where the data has none; `values` are as they may be shown."""

    id: str
    values: Mapping[str, str]
    baseline: Baseline

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.id or ", ".join(f"{name}={' '.join(value.split())}" for name, value in self.values.items())

    def holds(self, values: Mapping[str, str]) -> bool:
        """Whether these are the values that it was learned with."""
        return self.values.keys() == values.keys() and all(agrees(value, values[name]) for name, value in self.values.items())

    def changes(self, values: Mapping[str, str], shown: Mapping[str, str]) -> tuple[Change, ...]:
        """What is different in a row that has the same id; `shown` are its values as they may be shown."""
        names = dict.fromkeys([*self.values, *values])
        changed = [name for name in names if name not in self.values or name not in values or not agrees(self.values[name], values[name])]
        return tuple(Change("content", "the row", name, self.values.get(name), shown.get(name)) for name in changed)


@dataclass(frozen=True, slots=True)
class Rows:
    """The baselines of a playbook's rows of data, in the order in which they were first seen."""

    playbook: str
    data: str
    rows: tuple[Row, ...]

    def find(self, id: str, values: Mapping[str, str]) -> Row | None:
        """The one of this row: by its id, else by its values, so that it is found again when ids are given or taken away."""
        named = next((row for row in self.rows if id and row.id == id), None)
        return named or next((row for row in self.rows if not (id and row.id) and row.holds(values)), None)


@dataclass(frozen=True, slots=True)
class _Bands:
    """The `Measure` of a baseline. Of a part, places on the timeline are not judged."""

    baseline: Baseline
    steps: Mapping[str, Learned]
    view: str
    partial: bool

    def limit_ms(self, step: str, what: str, _value: int) -> int | None:
        if self.view != "compared" or (self.partial and (what == "start" or not step)):
            return None
        band = self.steps[step].bands.get(what) if step else self.baseline.lasted
        return None if band is None else SPREADS * band.spread + self.baseline.slack_ms

    def accepts(self, step: str, what: str, a: Any, b: Any) -> bool:
        if self.view == "words only":
            return "skipped" not in (a, b)
        return b in (self.steps[step].seen.get(what, ()) if step else self.baseline.end)


def _part(steps: Sequence[Learned], first: str | None, last: str | None) -> Sequence[Learned]:
    ids = [step.act.id for step in steps]
    begin = ids.index(first) if first in ids else 0
    end = ids.index(last) + 1 if last in ids else len(ids)
    return steps[begin:end]


def learn(runs: Sequence[Performance], playbook: str, clock: str) -> Baseline:
    """A baseline from runs. Raises `RunError` when they did not say the same: there is nothing to learn from that."""
    first = runs[0]
    for run in runs[1:]:
        if [_kind(act) for act in run.acts] != [_kind(act) for act in first.acts]:
            raise RunError(
                f"the runs of '{playbook}' do not agree on what is said, so there is no baseline to learn",
                remedy="compare two of them with `playbook diff`",
            )
    steps = tuple(_learned([run.acts[index] for run in runs]) for index in range(len(first.acts)))
    lasted = [run.times["lasted"] for run in runs if "lasted" in run.times]
    return Baseline(
        playbook=playbook,
        provider=str(first.facts.get("provider")),
        clock=clock,
        runs=len(runs),
        end=_values([run.facts.get("end") for run in runs]),
        steps=steps,
        lasted=_band(lasted) if lasted else None,
    )


def _kind(act: Act) -> tuple[str, str, str]:
    return act.id, act.verb, act.words


def _learned(acts: Sequence[Act]) -> Learned:
    bands = {name: _band(values) for name in _TIMES if len(values := [act.times[name] for act in acts if name in act.times]) == len(acts)}
    seen = {name: _values([act.facts.get(name) for act in acts]) for name in _FACTS if name in acts[0].facts}
    return _step(acts[0].id, acts[0].verb, acts[0].words, bands, seen)


def _step(id: str, verb: str, words: str, bands: Mapping[str, Band], seen: Mapping[str, tuple[Any, ...]]) -> Learned:
    facts = {name: values[0] for name, values in seen.items()}
    return Learned(Act(id, verb, words, facts, {name: band.median for name, band in bands.items()}), bands, seen)


def _band(values: Sequence[int]) -> Band:
    middle = round(median(values))
    return Band(middle, max(abs(value - middle) for value in values))


def _values(values: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(sorted(values, key=str)))


# --- the file -------------------------------------------------------------------------------------------------------------


def path_of(playbook: Path, data: Path | None = None) -> Path:
    """Where a playbook's baseline lies: `intro.baseline.yaml` beside `intro.yaml`; with data of `rows.csv`, `intro.rows.baseline.yaml`."""
    name = playbook.name.removesuffix(".yaml").removesuffix(".yml")
    return playbook.with_name(f"{name}.baseline.yaml" if data is None else f"{name}.{data.stem}.baseline.yaml")


def to_yaml(baseline: Baseline | Rows) -> str:
    """As written: one fact a line, times as short maps, texts quoted so that nothing can be mistaken for something else."""
    return "\n".join(_file(baseline)) + "\n"


def _file(baseline: Baseline | Rows) -> Iterator[str]:
    by_row = f", row by row of {_plain(baseline.data)}" if isinstance(baseline, Rows) else ""
    yield f"# What `playbook test` compares {_plain(baseline.playbook)} with{by_row}. Written by `playbook test --update`; review its diff."
    yield f"baseline: {VERSION}"
    yield f"playbook: {_plain(baseline.playbook)}"
    if isinstance(baseline, Baseline):
        yield from _lines(baseline)
        return
    yield f"data: {_plain(baseline.data)}"
    yield "rows:" + ("" if baseline.rows else " []")
    for row in baseline.rows:
        head = [f"id: {_plain(row.id)}"] if row.id else []
        values = [f"  {_plain(name)}: {_quoted(value)}" for name, value in row.values.items()]
        lines = [*head, "values:" if values else "values: {}", *values, *_lines(row.baseline)]
        yield from (f"{'    ' if n else '  - '}{line}" for n, line in enumerate(lines))


def _lines(baseline: Baseline) -> Iterator[str]:
    yield f"provider: {_plain(baseline.provider)}"
    yield f"clock: {baseline.clock}"
    yield f"runs: {baseline.runs}"
    yield f"end: {_seen(baseline.end)}"
    yield f"slack_ms: {baseline.slack_ms}"
    if baseline.lasted is not None:
        yield f"lasted_ms: {_pair(baseline.lasted)}"
    yield "steps:" + ("" if baseline.steps else " []")
    for step in baseline.steps:
        act = step.act
        yield f"  - id: {_plain(act.id)}"
        if act.verb == "say":
            yield f"    say: {_quoted(act.words)}"
        elif act.verb == "audio-echo":
            yield f"    sound: {_quoted(act.words)}"
        elif act.verb == "interrupt":
            yield "    interrupt: true"
        for name, values in step.seen.items():
            if name != "interrupted" or values != (False,):
                yield f"    {name}: {_seen(values)}"
        for name, band in step.bands.items():
            yield f"    {name}_ms: {_pair(band)}"


def _pair(band: Band) -> str:
    return f"{{median: {band.median}, spread: {band.spread}}}"


def _seen(values: Sequence[Any]) -> str:
    shown = [_plain(value) if isinstance(value, str) else json.dumps(value) for value in values]
    return shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"


def _plain(text: str) -> str:
    """A word as it is, anything else in quotes."""
    safe = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", text) and text.lower() not in ("true", "false", "null")
    return text if safe else _quoted(text)


def _quoted(text: str) -> str:
    """A JSON string, which is a YAML string too when nothing unprintable is in it."""
    return "".join(c if c.isprintable() or ord(c) > 0xFFFF else f"\\u{ord(c):04x}" for c in json.dumps(text, ensure_ascii=False))


def read(path: Path) -> Baseline:
    """A playbook's baseline from its file. Raises `RecordError` that says where it is damaged."""
    found = read_any(path)
    if isinstance(found, Rows):
        raise other_kind(path, "rows of data", "a playbook")
    return found


def read_rows(path: Path) -> Rows:
    """The baselines of rows of data from their file. Raises `RecordError` that says where it is damaged."""
    found = read_any(path)
    if isinstance(found, Baseline):
        raise other_kind(path, "a playbook", "rows of data")
    return found


def other_kind(path: Path, found: str, wanted: str) -> RecordError:
    """Two things have the same baseline: `intro.rows.yaml`, and `intro.yaml` with the data `rows.csv`."""
    remedy = "a playbook and a data file have names that lead to the same baseline: rename one of them"
    return RecordError(f"{path} is the baseline of {found}, not of {wanted}", remedy=remedy)


def read_any(path: Path) -> Baseline | Rows:
    """Whichever it is. Raises `RecordError` that says where it is damaged."""
    try:
        raw = read_file(path)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {reason_of(error)}") from error
    findings = Findings()
    root = parse(raw, path, str(path), findings)
    if root is None:
        raise RecordError(f"{path} is not a baseline\n{format_problem(findings.report(str(path))[0])}", remedy=_REMEDY)
    data: Any = root.data
    if isinstance(data, dict) and isinstance(version := data.get("baseline"), int) and version > VERSION:
        raise RecordError(f"{path} is a baseline of version {version}; this program reads up to {VERSION}", remedy="update playbook")
    schema = load_schema("baseline.schema.json")
    if not compile_schema(schema)(data):
        raise RecordError(f"{path} is damaged: {_why(data, schema)}", remedy=_REMEDY)
    if "rows" not in data:
        return _baseline(data, data["playbook"])
    rows = tuple(Row(row.get("id", ""), row["values"], _baseline(row, data["playbook"])) for row in data["rows"])
    return Rows(data["playbook"], data["data"], rows)


def _baseline(data: Mapping[str, Any], playbook: str) -> Baseline:
    return Baseline(
        playbook=playbook,
        provider=data["provider"],
        clock=data.get("clock", "system"),
        runs=data["runs"],
        end=_tuple(data["end"]),
        slack_ms=data["slack_ms"],
        lasted=Band(**data["lasted_ms"]) if "lasted_ms" in data else None,
        steps=tuple(_from(step) for step in data["steps"]),
    )


_REMEDY = "make it anew with `playbook test --update`, and review the difference"


def _why(data: Any, schema: Mapping[str, Any]) -> str:
    import jsonschema

    error = min(jsonschema.Draft7Validator(schema).iter_errors(data), key=lambda error: list(map(str, error.absolute_path)))
    return f"{'.'.join(map(str, error.absolute_path)) or 'the whole'}: {error.message}"


def _from(data: Mapping[str, Any]) -> Learned:
    verb = next((verb for key, verb in (("say", "say"), ("sound", "audio-echo"), ("interrupt", "interrupt")) if key in data), "")
    bands = {name: Band(**data[f"{name}_ms"]) for name in _TIMES if f"{name}_ms" in data}
    seen = {name: _tuple(data[name]) for name in _FACTS if name in data}
    if verb in ("say", "audio-echo"):
        seen.setdefault("interrupted", (False,))
    return _step(data["id"], verb, data.get("say") or data.get("sound") or "", bands, seen)


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else (value,)
