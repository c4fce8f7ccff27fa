"""Replays and comparisons as text and as JSON. Data in, text out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from playbook.errors import printable
from playbook.formats.durations import show_duration
from playbook.record.diff import VERDICTS, Change, Comparison, latency, words
from playbook.record.performance import Performance
from playbook.record.replay import Divergence, Replay
from playbook.report import BLUE, BOLD, GREEN, RED, YELLOW, clock_time, count, one_line, paint, seconds, table

MAX_ROWS = 200
"""How many changes are shown on a screen; `--json` and `--html` have all."""


# --- replay ---------------------------------------------------------------------------------------------------------------


def replay_text(replay: Replay, *, colour: bool) -> str:
    """What a replay proved, or where it diverged."""
    if replay.divergence is not None:
        return _divergence(replay.divergence, colour)
    told = f"{count(replay.lines, 'line')}, {count(replay.events, 'event')}"
    if replay.damage is not None:
        return paint("identical as far as it goes", BOLD, YELLOW, colour=colour) + f": {told}; {replay.damage}"
    return paint("identical", BOLD, GREEN, colour=colour) + f": {told}"


def _divergence(found: Divergence, colour: bool) -> str:
    where = f"line {found.line}, at {clock_time(found.at_ms)}" + (f", step '{one_line(found.step)}'" if found.step else "")
    lines = [paint("diverged", BOLD, RED, colour=colour) + f" at {where}"]
    lines.append(f"  after      {_line(found.event) if found.event else 'the beginning'}")
    if found.error is not None:
        lines.append(f"  now        the engine fails: {one_line(found.error)}")
        return "\n".join(lines)
    lines.append(f"  recorded   {_line(found.recorded) if found.recorded else 'nothing more'}")
    lines.append(f"  now        {_line(found.now) if found.now else 'nothing more'}")
    lines += [f"  missing    {paint(_line(line), RED, colour=colour)}" for line in _besides(found.missing, found.recorded)]
    lines += [f"  extra      {paint(_line(line), GREEN, colour=colour)}" for line in _besides(found.extra, found.now)]
    if found.recorded is not None and found.now is not None and not found.missing and not found.extra:
        lines.append("  the same things, in another order")
    return "\n".join(lines)


def _besides(lines: Sequence[dict[str, Any]], told: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The lines that have not been told yet."""
    rest = list(lines)
    if told in rest:
        rest.remove(told)
    return rest


def _line(line: dict[str, Any]) -> str:
    """A line of the log, short."""
    kind = next((kind for kind in ("event", "command", "note", "end") if kind in line), None)
    head = f"{kind} {line[kind]}" if kind else ""
    rest = " ".join(f"{key}={_value(value)}" for key, value in line.items() if key not in (kind, "n", "at_ms"))
    return one_line(f"{head} {rest}".strip())


def _value(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = text if len(text) <= 120 else f"{text[:117]}…"
    return f"'{text}'" if isinstance(value, str) and (" " in text or not text) else text


def replay_to_json(replay: Replay) -> dict[str, Any]:
    """A replay as data."""
    found = replay.divergence
    return {
        "identical": replay.identical,
        "run": replay.header.get("run"),
        "playbook": replay.header.get("playbook"),
        "plan_sha256": replay.header.get("plan_sha256"),
        "lines": replay.lines,
        "events": replay.events,
        "damage": replay.damage,
        "divergence": None
        if found is None
        else {
            "line": found.line,
            "at_ms": found.at_ms,
            "step": found.step,
            "event": found.event,
            "recorded": found.recorded,
            "now": found.now,
            "missing": list(found.missing),
            "extra": list(found.extra),
            "error": found.error,
        },
    }


# --- comparison -----------------------------------------------------------------------------------------------------------


def comparison_text(comparison: Comparison, tolerance: str, *, width: int | None, colour: bool) -> str:
    """Three verdicts, every change, and whose the waiting was."""
    a, b = comparison.a, comparison.b
    lines = []
    if comparison.common == 0 and comparison.rows:
        lines += [paint("the two have nothing in common", BOLD, RED, colour=colour), ""]
    elif other_playbook(comparison):
        lines += [paint(f"of two playbooks: {one_line(a.playbook)} and {one_line(b.playbook)}", BOLD, YELLOW, colour=colour), ""]
    for verdict in VERDICTS:
        changes = comparison.of(verdict)
        if verdict == "settings" and not changes:
            continue
        told = paint("same", GREEN, colour=colour) if not changes else paint(count(len(changes), "change"), BOLD, RED, colour=colour)
        within = f" within {tolerance}" if verdict == "timing" and not a.planned and not changes else ""
        lines.append(f"{verdict:<9} {told}{within}")
    shown = [change for change in comparison.changes if not change.carried]
    if shown:
        lines += ["", table(("step", "what", "a", "b", ""), _rows(shown, colour), width=width, colour=colour)]
        if len(shown) > MAX_ROWS:
            lines.append(f"and {len(shown) - MAX_ROWS} more; --json and --html show all")
    if carried := [change.b - change.a for change in comparison.changes if change.carried]:
        least, most = min(carried), max(carried)
        by = f"{least:+d} ms" if least == most else f"{least:+d} to {most:+d} ms"
        lines += ["", f"{count(len(carried), 'step')} moved with what came before, by {by}"]
    lines += [""] + [f"{side}: {one_line(text)}" for side, text in (("a", _side(a)), ("b", _side(b)))]
    lines += [f"{side} is damaged: {one_line(run.damage)}" for side, run in (("a", a), ("b", b)) if run.damage is not None]
    return "\n".join(lines)


def other_playbook(comparison: Comparison) -> bool:
    """Whether the two are of playbooks that have not the same name."""
    return bool(comparison.a.playbook and comparison.b.playbook and comparison.a.playbook != comparison.b.playbook)


def _rows(changes: Sequence[Change], colour: bool) -> Iterator[tuple[str, str, str, str, str]]:
    for change in changes[:MAX_ROWS]:
        step = one_line(change.step) or "(the whole)"
        if change.what == "words" and change.a is not None and change.b is not None:
            yield step, "words", "", "", marked_words(str(change.a), str(change.b), colour=colour)
        elif change.limit_ms is not None:
            yield step, change.what, seconds_exact(change.a), seconds_exact(change.b), off_text(change)
        elif change.is_presence:
            yield step, change.what, "", "", one_line(str(change.a if change.b is None else change.b))
        else:
            yield step, change.what, _clipped(change.what, change.a), _clipped(change.what, change.b), ""


def off_text(change: Change) -> str:
    """How far a time is off, how far it might be, and whose doing that is."""
    due_to = f"; {change.due_to}" if change.due_to else ""
    return f"{change.b - change.a:+d} ms, allowed {change.limit_ms} ms{due_to}"


def marked_words(a: str, b: str, *, colour: bool) -> str:
    """A text with what went and what came marked in it."""
    parts = []
    for kind, text in words(a, b):
        text = printable(text.replace("\n", " "))
        if kind == "same":
            parts.append(text)
        else:
            lead = text[: len(text) - len(text.lstrip())]
            body = text.lstrip()
            mark = f"[-{body}-]" if kind == "gone" else f"{{+{body}+}}"
            parts.append(lead + paint(mark, RED if kind == "gone" else GREEN, colour=colour))
    return "".join(parts).strip()


def seconds_exact(ms: int) -> str:
    """A time to the millisecond."""
    return f"{ms / 1000:.3f} s"


_DURATIONS = ("until", "at", "timeout", "wait", "pauses", "event timeout")
"""Facts of a plan that are milliseconds where they are numbers."""


def value_text(what: str, value: Any) -> str:
    """A fact as a person writes it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and (what in _DURATIONS or what.endswith("_ms")):
        return show_duration(value)
    if isinstance(value, (tuple, list)) and all(isinstance(each, (str, int)) for each in value):
        return ", ".join(value_text(what, each) for each in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _clipped(what: str, value: Any, most: int = 40) -> str:
    text = one_line(value_text(what, value)) or "-"
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _side(performance: Performance) -> str:
    if performance.planned:
        return f"{performance.name}, a plan of {count(len(performance.acts), 'step')}"
    waits = latency(performance)
    return (
        f"{performance.name}, {performance.facts.get('end') or 'no end'} after {seconds(performance.times.get('lasted', 0))}; "
        f"our timers late {waits.ours_median} ms (at most {waits.ours_max}), "
        f"the provider's answer {waits.provider_median} ms (at most {waits.provider_max})"
    )


def comparison_to_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as data."""
    return {
        "same": comparison.same,
        "common": comparison.common,
        "verdicts": {verdict: not comparison.of(verdict) for verdict in VERDICTS},
        "changes": [change_to_json(change) for change in comparison.changes],
        "a": _side_to_json(comparison.a),
        "b": _side_to_json(comparison.b),
    }


def change_to_json(change: Change) -> dict[str, Any]:
    """A change as data."""
    data = {"verdict": change.verdict, "step": change.step, "what": change.what, "a": change.a, "b": change.b}
    if change.limit_ms is not None:
        data |= {"limit_ms": change.limit_ms, "cause": change.cause or None}
    return data


def _side_to_json(performance: Performance) -> dict[str, Any]:
    waits = latency(performance)
    data: dict[str, Any] = {
        "name": performance.name,
        "playbook": performance.playbook,
        "steps": len(performance.acts),
        "damage": performance.damage,
        **performance.facts,
    }
    if not performance.planned:
        data["latency_ms"] = {
            "ours": {"median": waits.ours_median, "max": waits.ours_max},
            "provider": {"median": waits.provider_median, "max": waits.provider_max},
        }
    return data


def plan_change_text(comparison: Comparison, *, colour: bool) -> str:
    """How a plan changed since it was recorded."""
    lines = []
    if other_playbook(comparison):
        told = f"  it is of another playbook: '{one_line(comparison.b.playbook)}', and the log is of '{one_line(comparison.a.playbook)}'"
        lines.append(paint(told, YELLOW, colour=colour))
    for change in comparison.changes[:MAX_ROWS]:
        where = paint(one_line(change.step) or "(the whole)", BLUE, colour=colour)
        if change.what == "words":
            lines.append(f"  {where}  {marked_words(str(change.a), str(change.b), colour=colour)}")
        elif change.is_presence:
            lines.append(f"  {where}  {change.what}: {_clipped('', change.a if change.b is None else change.b, 100)}")
        else:
            lines.append(f"  {where}  {change.what}: {_clipped(change.what, change.a)} → {_clipped(change.what, change.b)}")
    return "\n".join(lines)
