"""What people see: problems, cue sheets, tables, the progress of a run and its report, as text. (Pages and live lines are in `cli`.)

Everything here turns data into text and prints nothing. Colours are ANSI numbers; `rich` is imported only where it measures and wraps,
since `check` must answer at once. `width` None means: not a terminal, so one line stays one line for whoever searches it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from playbook.errors import Problem, format_problem, printable
from playbook.formats.durations import show_duration
from playbook.language import cues, total_ms
from playbook.model import AudioEcho, Capabilities, End, InterruptSpeech, Plan, Say, Step, Wait, WaitEvent, WaitSpeech
from playbook.record.summary import UNTAKEN

if TYPE_CHECKING:
    from playbook.engine import Result
    from playbook.events import Conflict
    from playbook.record.summary import Line, RunSummary, Utterance

MAX_SOURCE = 2_000
"""The longest source line that goes with a problem as data; a playbook may be one line of JSON, and a place is told in any case."""
NO_NAMES: Mapping[str, str] = {}
RED, GREEN, YELLOW, BLUE, BOLD, DIM = "31", "32", "33", "34", "1", "2"


def paint(text: str, *codes: str, colour: bool) -> str:
    """Text in a terminal's colours."""
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if colour and text else text


def clock_time(ms: int) -> str:
    """A moment of the show: `0:04.2`, `1:02:03.4`."""
    tenths = (ms + 50) // 100
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{head}:{tenths // 10:02d}.{tenths % 10}"


def seconds(ms: int) -> str:
    """A length: `1.2 s`."""
    return f"{ms / 1000:.1f} s" if ms < 600_000 else clock_time(ms)


def count(n: int, one: str, many: str = "") -> str:
    """`1 line`, `2 lines`."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def one_line(text: str) -> str:
    """Text from a file on one line, without the power to move the reader's cursor."""
    return printable(" ".join(text.split()))


def clip(text: str, cells: int) -> str:
    """As much of a text as fits into so many cells of a terminal."""
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= cells else set_cell_size(text, max(0, cells - 1)).rstrip() + "…"


def folded(text: str, width: int | None) -> str:
    """Text whose rows fit a terminal: broken between words, each row as far in as it began. Without a width it stays as it is."""
    if width is None:
        return text
    rows = []
    for row in text.split("\n"):
        indent = len(row) - len(row.lstrip(" "))
        rows.append(" " * indent + _wrapped(row[indent:], max(20, width - indent), indent))
    return "\n".join(rows)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, width: int | None = None, colour: bool = False) -> str:
    """Columns of their natural widths; the last one is wrapped where there is a width to keep."""
    from rich.cells import cell_len

    lines = [list(headers), *map(list, rows)]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(headers))]

    def put(line: Sequence[str]) -> str:
        padded = [cell + " " * (cells - cell_len(cell)) for cell, cells in zip(line, widths, strict=True)]
        indent = sum(widths[:-1]) + 2 * len(widths[:-1])
        return "  ".join([*padded[:-1], _beside(line[-1], width, indent)]).rstrip()

    return "\n".join([paint(put(lines[0]), BOLD, colour=colour), *map(put, lines[1:])])


# --- problems -----------------------------------------------------------------------------------------------------------


def problems_text(problems: Sequence[Problem], *, colour: bool = False) -> str:
    """Problems one after another, an empty line between them."""
    return "\n\n".join(_problem(problem, colour) for problem in problems)


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """A problem as data."""
    place = problem.place
    data: dict[str, Any] = {"code": problem.code, "severity": problem.severity, "message": problem.message}
    if place is not None:
        data |= {"file": place.file, "line": place.line, "column": place.column, "length": place.length}
    if problem.remedy:
        data["remedy"] = problem.remedy
    if 0 < len(problem.source) <= MAX_SOURCE:
        data["source"] = problem.source
    if problem.via:
        data["via"] = [{"file": at.file, "line": at.line, "column": at.column} for at in problem.via]
    return data


def _problem(problem: Problem, colour: bool) -> str:
    text = format_problem(problem)
    if not colour:
        return text
    hue = RED if problem.severity == "error" else YELLOW
    head, *rest = text.split("\n")
    title, _, message = head.partition(": ")
    lines = [paint(title, BOLD, hue, colour=True) + paint(f": {message}", BOLD, colour=True)]
    for line in rest:
        margin = re.match(r"( *\d* *(?:-->|[|=]))(.*)", line)
        if margin is None:
            lines.append(line)
            continue
        bar, body = margin.groups()
        carets = re.match(r"( *)(\^+)(.*)", body)
        if carets is not None:
            body = carets[1] + paint(carets[2] + carets[3], BOLD, hue, colour=True)
        lines.append(paint(bar, BLUE, colour=True) + body)
    return "\n".join(lines)


# --- plans --------------------------------------------------------------------------------------------------------------


def describe(step: Step) -> str:
    """What a step does, in a few words; a line is its text."""
    action = step.action
    if isinstance(action, Say):
        pronounced = any(chunk.spelled is not None and chunk.shown is None for chunk in action.chunks)
        return one_line(f"{action.shown} [spoken: {action.text}]" if pronounced else action.shown)
    if isinstance(action, AudioEcho):
        return f"♪ {one_line(action.file)}" if action.file != "base64" else f"♪ a sound of {show_duration(action.duration_ms)}"
    if isinstance(action, Wait):
        return f"wait {show_duration(action.duration_ms)}"
    if isinstance(action, WaitSpeech):
        return "wait until all is spoken"
    if isinstance(action, WaitEvent):
        return f"wait for '{one_line(action.event)}'" + (
            f", at most {show_duration(action.timeout_ms)}" if action.timeout_ms is not None else ""
        )
    if isinstance(action, InterruptSpeech):
        return "interrupt"
    assert isinstance(action, End)
    return "end" if action.drain else "end, cutting what is being said"


def _modifiers(step: Step) -> str:
    said = []
    if step.at_ms is not None:
        said.append(f"at {show_duration(step.at_ms)}")
    if step.until != "ended":
        said.append(f"until {show_duration(step.until) if isinstance(step.until, int) else step.until}")
    if isinstance(step.action, Say):
        if step.action.voice is not None:
            said.append(f"voice {one_line(step.action.voice)}")
        if len(step.action.chunks) > 1:
            said.append(f"in {len(step.action.chunks)} chunks")
    if step.timeout_ms is not None:
        said.append(f"timeout {show_duration(step.timeout_ms)}")
    if step.on_error == "continue":
        said.append("on error continue")
    return f"  [{', '.join(said)}]" if said else ""


def cue_sheet(plan: Plan, *, width: int | None = None, colour: bool = False) -> str:
    """A plan as people read a cue sheet: start, length, step, text; totals; how sure."""
    timeline = cues(plan)
    ids = max([len(step.id) for step in plan.steps] + [4])
    indent = 10 + 2 + 9 + 2 + ids + 2
    lines = [paint(one_line(plan.name), BOLD, colour=colour) + (f": {one_line(plan.description)}" if plan.description else "")]
    lines += ["", paint(f"{'start':>10}  {'length':>9}  step", BOLD, colour=colour)]
    sure = True
    for step, cue in zip(plan.steps, timeline, strict=True):
        if step.skipped is not None:
            text = f"skipped ({one_line(step.skipped)})"
            shown = paint(_beside(text, width, indent), DIM, colour=colour)
            lines.append(f"{'-':>10}  {'-':>9}  {step.id:<{ids}}  {shown}")
            continue
        at = cue.heard_ms if step.speaks else cue.start_ms
        known = sure and not (step.speaks and plan.capabilities.start_latency_ms)
        start, sure = ("" if known else "~") + clock_time(at), cue.exact
        lasts = "?" if isinstance(step.action, WaitEvent) else seconds(cue.over_ms - cue.heard_ms) if cue.over_ms > cue.heard_ms else ""
        length = f"~{lasts}" if step.speaks and step.length.basis == "estimated" else lasts
        what = _beside(describe(step) + _modifiers(step), width, indent)
        if not step.speaks:
            what = paint(what, DIM, colour=colour)
        lines.append(f"{start:>10}  {length:>9}  {paint(f'{step.id:<{ids}}', BLUE, colour=colour)}  {what}")
    return "\n".join([*lines, "", *_totals(plan, exact=bool(timeline) and timeline[-1].exact)])


def _beside(text: str, width: int | None, indent: int) -> str:
    """Text for the last column, which begins at `indent`; where too little is left of the width it goes on rows of its own."""
    from rich.cells import cell_len

    if width is None or cell_len(text) <= width - indent:
        return text
    if width - indent >= 20:
        return _wrapped(text, width - indent, indent)
    return "\n    " + _wrapped(text, max(width - 4, 20), 4)


def _wrapped(text: str, cells: int, indent: int) -> str:
    """Text broken into rows of so many cells, each below the other."""
    import io

    from rich.console import Console
    from rich.text import Text

    rows = Text(text).wrap(Console(file=io.StringIO(), width=cells), cells)
    return ("\n" + " " * indent).join(row.plain.rstrip() for row in rows)


def _totals(plan: Plan, *, exact: bool) -> list[str]:
    performed = [step for step in plan.steps if step.skipped is None]
    spoken = [step for step in performed if step.speaks]
    guessed = sum(step.length.basis == "estimated" for step in spoken)
    speech = sum(step.length.ms for step in spoken)
    words = sum(len(step.action.shown.split()) for step in spoken if isinstance(step.action, Say))
    sure = "every length is exact" if not guessed else f"{guessed} of {count(len(spoken), 'length')} estimated (~)"
    waits = sum(isinstance(step.action, WaitEvent) for step in performed)
    total = f"{'' if exact else '~'}{clock_time(total_ms(plan) - plan.start.delay_ms)}"  # on the timeline, as all times here
    lines = [
        f"{count(len(performed), 'step')} on '{plan.provider}', {total} in all"
        + (f", and {count(waits, 'wait')} for a trigger that nobody can foresee" if waits else ""),
        f"{count(len(spoken), 'line')}, {count(words, 'word')}, {clock_time(speech)} of speech; {sure}",
    ]
    if plan.start.kind != "ready":
        begins = {"go": "when the trigger 'go' comes", "viewer": "when somebody watches, or with `go`"}
        after = f"{show_duration(plan.start.delay_ms)} after the session opened"
        lines.append(f"the timeline begins {begins.get(plan.start.kind, after)}")
    price = plan.capabilities.price_per_minute
    if price:
        lines.append(f"about {total_ms(plan) / 60_000 * price:.2f} at {price:g} a minute")
    return [*lines, f"plan_sha256 {plan.sha256}"]


# --- providers ----------------------------------------------------------------------------------------------------------


def capability_rows(can: Capabilities) -> list[tuple[str, str]]:
    """What a provider can do, in words."""
    scope = {
        "none": "no",
        "current": "the current line",
        "all": "all that is queued",
        "unknown": "the current line, perhaps what is queued",
    }
    speech = {"exact": "exact: it is our own sound", "reported": "reported by the vendor", "none": "estimated: the vendor does not tell"}
    return [
        ("says text", "yes" if can.say else "no"),
        ("plays audio", "yes" if can.audio_echo else "no"),
        ("interrupt stops", scope[can.interrupt]),
        ("start and end of speech", speech[can.speech]),
        ("a voice for one line", "yes" if can.voice_per_line else "no"),
        ("longest session", "no limit" if can.max_session_ms is None else show_duration(can.max_session_ms)),
        ("longest silence", "no limit" if can.idle_limit_ms is None else show_duration(can.idle_limit_ms)),
    ]


# --- runs -----------------------------------------------------------------------------------------------------------------


def verdict(result: Result) -> str:
    """How a run ended, in a few words."""
    where = f" at {result.step}" if result.step else ""
    return result.end + where + (f": {one_line(result.reason)}" if result.reason else "")


def run_report(
    result: Result,
    summary: RunSummary,
    failures: Sequence[Conflict] = (),
    *,
    sounds: Mapping[str, str] = NO_NAMES,
    width: int | None = None,
    colour: bool = False,
) -> str:
    """What was said, when, on what evidence; what went wrong; how it ended. `sounds` says what a step's sound is called: a log does not."""
    zero = summary.zero_ms or 0
    lines: list[str] = []
    if summary.utterances:
        rows = [_utterance_row(said, summary, zero, sounds) for said in summary.utterances.values()]
        ids = max(4, *(len(row[3]) for row in rows))
        lines.append(paint(f"{'start':>9}  {'heard':>8}  {'evidence':<9}  step", BOLD, colour=colour))
        for start, heard, evidence, step, text in rows:
            indent = 9 + 2 + 8 + 2 + 9 + 2 + ids + 2
            shown = _beside(text, width, indent)
            hue = {"timeout": YELLOW, "ambiguous": YELLOW, "refused": RED, "-": RED}.get(evidence, GREEN)
            grade, name = paint(f"{evidence:<9}", hue, colour=colour), paint(f"{step:<{ids}}", BLUE, colour=colour)
            lines.append(f"{start:>9}  {heard:>8}  {grade}  {name}{'' if shown.startswith(chr(10)) else '  '}{shown}")
        lines.append("")
    lines += _troubles(result, summary, failures, width, colour)
    told = _told(summary)
    lasted = clock_time(max(0, summary.last_ms - zero))
    hue = {"passed": GREEN, "stopped": YELLOW}.get(result.end, RED)
    lines.append(paint(folded(verdict(result), width), BOLD, hue, colour=colour))
    lines.append(folded(f"{', '.join(told)}; {lasted}", width))
    return "\n".join(lines)


def _word(said: Utterance) -> str | None:
    """The one word for a line that was not simply said."""
    grade = said.grade
    return grade if grade in (*UNTAKEN, "timeout") else "cut" if said.interrupted else None


def _told(summary: RunSummary) -> list[str]:
    """How much there was, and how much of it was not as planned: one word for each line, and for each step that is none, or that did not
    work though its line was said."""
    counts = summary.counts()
    words = {said.step: _word(said) for said in summary.last_said()}
    lines = list(words.values())
    steps = [step.outcome for step in summary.steps.values() if words.get(step.id) is None]
    told = [count(counts["steps"] - counts["skipped"], "step"), count(counts["utterances"], "line")]
    told += [f"{lines.count(word)} {word}" for word in (*UNTAKEN, "timeout", "cut") if word in lines]
    for outcome, text in (("failed", "failed"), ("timeout", "timed out")):
        if outcome in steps:
            told.append(f"{count(steps.count(outcome), 'step')} {text}")
    told += [f"{counts[name]} {name}" for name in ("skipped", "late") if counts[name]]
    if conflicts := summary.conflict_count - summary.unmet_count:
        told.append(count(conflicts, "conflict"))
    if summary.unmet_count:
        told.append(f"{count(summary.unmet_count, 'expectation')} not met")
    if summary.steered:
        names = ", ".join(dict.fromkeys(signal["name"] for signal in summary.signals))
        told.append(f"steered ({names})" + (f", held for {summary.held_ms / 1000:.1f} s" if summary.held_ms else ""))
    return told


def _start(said: Utterance, zero: int) -> str:
    """When a line began; `never` only where that is known."""
    if said.started_ms is not None:
        return clock_time(said.started_ms - zero)
    surely = said.untaken == "refused" or (said.interrupted and not said.heard_ms and said.grade not in ("ambiguous", "timeout"))
    return "never" if surely or said.evidence is None else "?"


def _utterance_row(said: Utterance, summary: RunSummary, zero: int, sounds: Mapping[str, str]) -> tuple[str, str, str, str, str]:
    start = _start(said, zero)
    unknown = said.evidence == "timeout" and not said.interrupted and said.length_ms is None  # we only know when we gave up
    lasted = "-" if start in ("never", "?") or said.lasted_ms is None else "?" if unknown else seconds(said.lasted_ms)
    text = one_line(said.text) if said.audio_sha256 is None else sounds.get(said.step, "♪")
    notes = []
    step = summary.steps.get(said.step)
    if said.interrupted and _word(said) == "cut":
        notes.append(f"cut after “{one_line(said.heard)}”" if said.heard else "cut")
    if said.remark:
        notes.append(one_line(said.remark))
    if step is not None and step.late_ms:
        notes.append(f"{step.late_ms} ms late")
    if step is not None and step.outcome in ("failed", "timeout") and _word(said) is None:
        notes.append("failed" if step.outcome == "failed" else "timed out")  # why, is told below
    return (
        start,
        lasted,
        said.grade or "-",
        said.task,
        text + (f"  [{'; '.join(notes)}]" if notes else ""),
    )


def _troubles(result: Result, summary: RunSummary, failures: Sequence[Conflict], width: int | None, colour: bool) -> list[str]:
    """What went wrong beside that for which the run ended."""
    told: dict[tuple[str, str], list[str]] = {}  # where, by colour and by what is said there, so that nothing is said twice

    def tell(hue: str, where: str, reason: str, prefix: str = "") -> None:
        if reason != result.reason or (result.step is not None and result.step != where and where in summary.steps):
            places = told.setdefault((hue, prefix + one_line(reason)), [])
            if where not in places:
                places.append(where)

    causes = {line["reason"] for line in summary.failures}
    for line in summary.failures:
        tell(RED, line.get("task") or "session", line["reason"], f"{line['outcome']}: ")
    for step in summary.steps.values():
        if step.outcome in ("failed", "timeout") and step.reason and step.reason not in causes:
            tell(RED, step.id, step.reason)
    expected = {(failure.step, failure.reason) for failure in failures}
    for line in summary.conflicts:
        if (line.get("step"), line["reason"]) not in expected:
            tell(YELLOW if "task" in line else RED, line.get("task") or line.get("step") or "run", line["reason"])
    for failure in failures:
        tell(RED, failure.step or "run", failure.reason)
    lines = []
    for (hue, text), places in told.items():
        where = ", ".join(places)
        row = folded(f"{where}: {text}", width)
        lines.append(paint(where, hue, colour=colour) + row[len(where) :] if row.startswith(where) else row)
    for all_of_them, kept, name in (
        (summary.failure_count, summary.failures, "failure"),
        (summary.conflict_count, summary.conflicts, "conflict"),
    ):
        if all_of_them > len(kept):
            lines.append(f"and {count(all_of_them - len(kept), f'more {name}')}, which the log has")
    return [*lines, ""] if lines else []


def run_to_json(result: Result, summary: RunSummary, failures: Sequence[Conflict] = ()) -> dict[str, Any]:
    """A run's outcome as data. Times are on the run's clock; `zero_ms` is the origin of the timeline."""
    return {
        "end": result.end,
        "exit_code": result.exit_code,
        "reason": result.reason,
        "step": result.step,
        "session": summary.session,
        "zero_ms": summary.zero_ms,
        "duration_ms": summary.last_ms,
        "counts": summary.counts(),
        "failures": [{"step": failure.step, "reason": failure.reason} for failure in failures],
        "signals": [{key: signal[key] for key in ("at_ms", "name", "step", "source") if key in signal} for signal in summary.signals],
        "held_ms": summary.held_ms,
        "utterances": [
            {
                "step": said.step,
                "task": said.task,
                "text": said.text,
                "sent_ms": said.sent_ms,
                "accepted_ms": said.accepted_ms,
                "started_ms": said.started_ms,
                "ended_ms": said.ended_ms,
                "lasted_ms": said.lasted_ms,
                "evidence": said.grade,
                "source": said.raised_by or said.source,
                "interrupted": said.interrupted,
                "heard": said.heard,
                "reason": said.reason,
                "provider_tasks": said.provider_tasks,
            }
            for said in summary.utterances.values()
        ],
    }


# --- a run while it goes on -----------------------------------------------------------------------------------------------


def progress_line(
    line: Line, steps: Mapping[str, Step], zero_ms: int | None, *, ids: int = 0, width: int | None = None, colour: bool = False
) -> str | None:
    """A line of the log as somebody wants to read it who watches the show; None for what only a machine cares for, and for what the
    report tells (expectations).

    Times are on the timeline; what comes before it (`zero_ms` is None) has none. `ids` is how wide the column of the steps' ids is; a
    longer id has a row of its own.
    """
    at = "" if zero_ms is None else clock_time(line["at_ms"] - zero_ms)
    name, reason = line.get("step") or line.get("task") or "", one_line(line.get("reason", ""))
    if line.get("note") in ("step_started", "step_skipped"):
        what = describe(steps[name]) if line["note"] == "step_started" else f"skipped ({reason})"
        what = _beside(what, width, 9 + 2 + ids + 2)
        speaks = line["note"] == "step_started" and steps[name].speaks
        text = paint(f"{name:<{ids}}", BLUE, colour=colour) + ("\n" + " " * (9 + 2 + ids) if len(name) > ids > 0 else "")
        text += "  " + (what if speaks else paint(what, DIM, colour=colour))
    else:
        told = _event_words(line, reason) or _note_words(line, name or "run", reason)
        if told is None:
            return None
        text = _beside(told, width, 9 + 2)
        bad = line.get("event") == "provider_failed" or line.get("status") == "failed" or line.get("outcome") in ("failed", "timeout")
        text = paint(text, RED, colour=colour) if bad else text
    return f"{at:>9}  {text}"


def _event_words(line: Line, reason: str) -> str | None:
    match line.get("event"):
        case "session_opened":
            return f"session {line['session']} is open" + (f" ({reason})" if reason else "")
        case "session_closed":
            if line.get("status") is None:
                return "session closed"
            return f"the session could not be closed: {reason}" if line["status"] == "failed" else f"session lost: {reason}"
        case "task_accepted" if reason:
            return f"{line['task']}: {reason}"
        case "provider_failed":
            return (f"{line['task']}: " if "task" in line else "") + f"{line['outcome']}: {reason}"
        case "stop_requested":
            return f"stopping: {reason}"
        case "trigger":
            return f"trigger '{one_line(line['trigger'])}'"
        case "signal":
            return f"{line['name']} {one_line(line['step'])}" if "step" in line else f"{line['name']}"
        case "source_joined" | "source_left" | "viewer_joined" | "viewer_left":
            who = line.get("source") or line.get("viewer")
            return f"{who} {line['event'].rpartition('_')[2]}" + (f": {reason}" if reason else "")
    return None


def _note_words(line: Line, name: str, reason: str) -> str | None:
    match line.get("note"):
        case "step_finished" if line["outcome"] != "done":
            return f"{name}: {line['outcome']}" + (f", {reason}" if reason else "")
        case "late":
            return f"{name}: {line['late_ms']} ms late"
        case "grade_raised":
            return f"{name}: {line['evidence']}, by {line['source']}"
        case "ignored" if "trigger" in reason:
            return f"ignored: {reason}"
        case "conflict" | "grade_lowered" if "task" in line:
            return f"{name}: {reason}"
    return None


@dataclass(frozen=True, slots=True)
class Now:
    """What is going on: the step the cursor is in, and the one after it; `awaits` where it is no step that waits.

    `since_ms` is when the step began; of a line that is `heard`, when its speech did.
    """

    step: Step | None
    after: Step | None
    since_ms: int
    heard: bool = False
    awaits: str | None = None


def now_line(now: Now, now_ms: int, zero_ms: int | None, width: int, *, interactive: bool = False, colour: bool = False) -> str:
    """What is going on, in one row: how far the step is, and what comes next."""
    step = now.step
    action = step.action if step is not None else None
    awaits = action.event if isinstance(action, WaitEvent) else now.awaits
    if awaits is not None:  # it stands still, so that what somebody types stays readable
        how = "press Enter" if awaits == "go" else f"type {one_line(awaits)} and press Enter"
        return clip(f"{'':>9}  waits for the trigger '{one_line(awaits)}'" + (f": {how} " if interactive else ""), width)
    assert step is not None
    row = f"{clock_time(max(0, now_ms - (zero_ms or 0))):>9}  {step.id}  {(now_ms - now.since_ms) / 1000:.1f} s"
    row += ", not heard yet" if step.speaks and not now.heard else _expected(step)
    row += f"   next: {describe(now.after)}" if now.after is not None else ""
    return paint(clip(row, width), DIM, colour=colour)


def _expected(step: Step) -> str:
    """How long the cursor is expected to stay in a step (or in a line that is heard), where that can be told."""
    if isinstance(step.action, Wait):
        return f" of {step.action.duration_ms / 1000:.1f} s"
    if step.speaks and isinstance(step.until, int):
        return f" of {step.until / 1000:.1f} s"
    if step.speaks:
        return f" of {'~' if step.length.basis == 'estimated' else ''}{step.length.ms / 1000:.1f} s"
    return ""
