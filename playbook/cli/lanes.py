"""The page of one run, or of a plan: lanes on one timeline, a table of the lines, and the sound, which a click plays.

The page needs nothing but itself: its style, its script (allowed by its digest) and its sound are in it. Whatever comes from a playbook, a
log or a provider is text.
"""

from __future__ import annotations

import base64
import hashlib
import wave
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2

from playbook.errors import printable
from playbook.language import cues, total_ms
from playbook.model import Plan
from playbook.record.captions import cues_of, split
from playbook.record.runlog import Line
from playbook.record.summary import RunSummary
from playbook.report import clock_time, describe

MAX_SOUND = 40_000_000
"""A longer sound stays in the run folder, and the page says so."""
LEVELS = 1_200
"""Into how many pieces a sound is cut to draw its level."""
MAX_BARS = 5_000
"""More in one lane and no browser likes the page; the table has them all."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Something in a lane. `kind` is its look."""

    start_ms: int
    end_ms: int
    text: str = ""
    tip: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """One lane of the timeline."""

    name: str
    bars: Sequence[Bar] = ()
    level: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A line in the table. Times are for people."""

    id: str
    text: str
    start_ms: int | None
    cells: Sequence[tuple[str, str]] = ()
    grade: str = ""
    reason: str = ""


@dataclass(slots=True)
class Picture:
    """All of a page."""

    title: str
    facts: Sequence[tuple[str, str]]
    lanes: list[Lane]
    rows: list[Row]
    end_ms: int
    verdict: str = ""
    good: bool = True
    sound: str | None = None
    notes: list[str] = field(default_factory=list)


def page(picture: Picture) -> str:
    """The picture as one HTML file."""
    env = jinja2.Environment(loader=jinja2.PackageLoader("playbook.cli", "."), autoescape=True, undefined=jinja2.StrictUndefined)
    folder = Path(__file__).parent
    style, script = (folder / "lanes.css").read_text("utf-8"), (folder / "lanes.js").read_text("utf-8")
    digests = {name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for name, text in (("css", style), ("js", script))}
    end = max(1, picture.end_ms)
    text = env.get_template("lanes.html").render(
        it=picture,
        marks=[(ms, clock_time(ms)) for ms in _marks(end)],
        end_ms=end,
        style=style,
        script=script,
        digests=digests,
        clock_time=clock_time,
    )
    return printable(text, "\n\t")


def _marks(end_ms: int) -> Iterator[int]:
    steps = (500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000)
    step = next((each for each in steps if end_ms / each <= 16), 3_600_000)
    return iter(range(0, end_ms + 1, step))


# --- a run ------------------------------------------------------------------------------------------------------------------


def of_run(folder: Path, header: Line, lines: Sequence[Line], summary: RunSummary, plan: Plan | None) -> Picture:
    """The picture of a run whose log was read."""
    zero = summary.zero_ms or 0
    lanes = [] if plan is None else [Lane("script", _script(plan))]
    lanes += [Lane("commands", list(_commands(lines, zero)))]
    lanes += [Lane(f"speech: {source}", bars) for source, bars in _speech(lines, summary, zero).items()]
    sound, level, notes = _sound(folder / "audio.wav")
    if level:
        lanes.append(Lane("level of the sound", level=level))
    captions = [Bar(each.start_ms, each.end_ms, " ".join(each.rows), each.id, "caption") for each in split(cues_of(summary, {}))]
    lanes.append(Lane("captions", captions))
    end = max([summary.last_ms - zero, *(bar.end_ms for lane in lanes for bar in lane.bars)])
    facts = [
        ("run", str(header.get("run", folder.name))),
        ("provider", str(header.get("provider", ""))),
        ("clock", str(header.get("clock", ""))),
        ("began", str(header.get("started_at", ""))),
        ("lasted", clock_time(max(0, summary.last_ms - zero))),
    ]
    verdict = (summary.end or "cut off") + (f": {summary.reason}" if summary.reason else "")
    rows = list(_rows(summary, zero))
    name = str(header.get("playbook") or folder.name)
    return Picture(name, facts, [_thinned(lane, notes) for lane in lanes], rows, end, verdict, summary.end == "passed", sound, notes)


def _thinned(lane: Lane, notes: list[str]) -> Lane:
    if len(lane.bars) <= MAX_BARS:
        return lane
    notes.append(f"The lane “{lane.name}” shows the first {MAX_BARS} of {len(lane.bars)}.")
    return Lane(lane.name, lane.bars[:MAX_BARS], lane.level)


def _script(plan: Plan) -> list[Bar]:
    """What was planned, and when."""
    bars = []
    for step, cue in zip(plan.steps, cues(plan), strict=True):
        if step.skipped is None:
            kind = "say" if step.speaks else "other"
            bars.append(Bar(cue.heard_ms, cue.over_ms, describe(step) if step.speaks else "", f"{step.id}: {describe(step)}", kind))
    return bars


def _commands(lines: Iterable[Line], zero: int) -> Iterator[Bar]:
    for line in lines:
        if line.get("command") in ("say", "play_audio", "interrupt", "open_session", "close_session"):
            at = line["at_ms"] - zero
            what = line.get("text") or line.get("audio_sha256", "")[:12] or line.get("reason", "")
            yield Bar(at, at, "", f"{line['command']} {line.get('task', '')} {what}".strip(), f"tick {line['command']}")
        elif line.get("event") == "signal" or line.get("event") == "trigger":
            at = line["at_ms"] - zero
            yield Bar(at, at, "", f"{line['event']} {line.get('name') or line.get('trigger')}", "tick signal")


def _speech(lines: Iterable[Line], summary: RunSummary, zero: int) -> dict[str, list[Bar]]:
    """When lines were heard, by each source that told of it; an ear's edges are a lane of their own."""
    found: dict[str, list[Bar]] = {}
    begun: dict[tuple[str, str], int] = {}
    for line in lines:
        at = line["at_ms"] - line.get("ago_ms", 0) - zero if "at_ms" in line else 0
        source = line.get("source") or ("plan" if line.get("outcome") == "settled" else "provider")
        match line.get("event"):
            case "speech_started":
                begun[source, line.get("task", "")] = at
            case "speech_ended":
                task = line.get("task", "")
                said = summary.utterances.get(task)
                first = begun.pop((source, task), None)
                if first is None:
                    first = min((begun[key] for key in begun if key[1] == task), default=at)
                text = "" if said is None else said.text
                grade = line.get("evidence", "")
                found.setdefault(source, []).append(Bar(first, max(first, at), text, f"{task}: {grade}", f"say {grade}"))
            case "sound":
                begun[source, "(ear)"] = at
            case "silence":
                first = begun.pop((source, "(ear)"), at)
                found.setdefault(f"{source}, its ear", []).append(Bar(first, at, "", "sound", "ear"))
    return found


def _sound(path: Path) -> tuple[str | None, str, list[str]]:
    """The sound as a `data:` address, its level as a path of SVG, and what there is to say about it."""
    if not path.is_file():
        return None, "", []
    level = _level(path)
    if path.stat().st_size > MAX_SOUND:
        return None, level, ["The sound is too long to be part of this page; it is audio.wav in the run folder."]
    return "data:audio/wav;base64," + base64.b64encode(path.read_bytes()).decode(), level, []


def _level(path: Path) -> str:
    """The level, as a closed path in a box of `LEVELS` by 100, which reaches as far as the sound does."""
    import numpy as np

    with wave.open(str(path), "rb") as file:
        total, tops = file.getnframes(), []
        size = max(1, -(-total // LEVELS))
        for _ in range(0, total, size):
            samples = np.frombuffer(file.readframes(size), "<i2").astype(np.float64)
            rms = float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0
            tops.append(min(50.0, rms / 32768 * 180))
    upper = " ".join(f"L{x} {50 - top:.1f}" for x, top in enumerate(tops))
    lower = " ".join(f"L{x} {50 + top:.1f}" for x, top in reversed(list(enumerate(tops))))
    return f"M0 50 {upper} {lower} Z" if tops else ""


def _rows(summary: RunSummary, zero: int) -> Iterator[Row]:
    for said in summary.utterances.values():
        start = None if said.started_ms is None else said.started_ms - zero
        cells = [
            ("sent", clock_time(max(0, said.sent_ms - zero))),
            ("heard from", "" if start is None else clock_time(max(0, start))),
            ("for", "" if said.lasted_ms is None else f"{said.lasted_ms / 1000:.2f} s"),
        ]
        reason = "; ".join(filter(None, [said.reason, "interrupted" if said.interrupted else None]))
        yield Row(said.task, said.text or "♪", start, cells, said.grade or "", reason)


# --- a plan -----------------------------------------------------------------------------------------------------------------


def of_plan(plan: Plan) -> Picture:
    """The picture of a plan: its cue sheet."""
    timeline = cues(plan)
    rows = []
    captions = []
    for step, cue in zip(plan.steps, timeline, strict=True):
        length = cue.over_ms - cue.heard_ms
        heard = clock_time(cue.heard_ms) if step.speaks else ""
        cells = [("at", clock_time(cue.start_ms)), ("heard from", heard), ("for", f"{length / 1000:.2f} s")]
        reason = step.skipped or ("" if cue.exact else "about")
        rows.append(Row(step.id, describe(step), None, cells, "", reason))
        if step.verb == "say" and step.skipped is None:
            captions.append(Bar(cue.heard_ms, cue.over_ms, describe(step), step.id, "caption"))
    facts = [("provider", plan.provider), ("takes", clock_time(total_ms(plan, timeline))), ("digest", plan.sha256[:12])]
    lanes = [Lane("script", _script(plan)), Lane("captions", captions)]
    return Picture(plan.name, facts, lanes, rows, max((cue.over_ms for cue in timeline), default=0))
