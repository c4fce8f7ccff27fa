"""What the pages and `GET /api/state` show of a show, folded from the plan and the lines of the log. No clock and no network.

`schemas/state.schema.json` describes the state. When a step is due is reckoned from where the show is by now: the planned lengths from
there on, moved by how early or late the present step began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from playbook.errors import Problem, format_problem
from playbook.language import Cue, cues
from playbook.model import Plan, Step, WaitEvent
from playbook.record.redact import Redactor
from playbook.record.runlog import Line
from playbook.report import describe, problem_to_json

PHASES = ("idle", "opening", "waiting", "running", "closing")
"""Nothing is performed; a session is being opened; it waits for its beginning; the timeline goes on; the session is being closed."""
DOUBT = 0.2
"""How far an estimated length may be off, as a share of it."""
LATENCY_DOUBT_MS = 500
"""How far the beginning of a line may be off where the provider has a start latency."""


@dataclass(slots=True)
class Row:
    """A step as the operator sees it."""

    step: Step
    state: str = "pending"
    due_ms: int | None = None
    band_ms: int | None = 0
    started_ms: int | None = None
    speaking: bool = False
    late_ms: int | None = None
    evidence: str | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        text = getattr(self.step.action, "shown", None)
        return {
            "id": self.step.id,
            "name": self.step.name,
            "verb": self.step.verb,
            "text": text if text is not None else describe(self.step),
            "state": self.state,
            "due_ms": self.due_ms,
            "band_ms": self.band_ms,
            "length_ms": self.step.length.ms or getattr(self.step.action, "duration_ms", 0),
            "started_ms": self.started_ms,
            "speaking": self.speaking,
            "late_ms": self.late_ms,
            "evidence": self.evidence,
            "reason": self.reason,
        }


@dataclass(slots=True)
class Board:
    """The state of a stage. Whoever performs calls `load`, `begin` and `take`; `to_json` is what is shown."""

    playbook: str = ""
    provider: str = ""
    phase: str = "idle"
    held: bool = False
    step: str | None = None
    awaits: str | None = None
    session: dict[str, Any] | None = None
    sources: dict[str, str] = field(default_factory=dict)
    problems: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] | None = None
    run: str | None = None
    zero_ms: int | None = None
    rows: dict[str, Row] = field(default_factory=dict)
    _plan: Plan | None = None
    _redact: Redactor = field(default_factory=Redactor)
    _cues: tuple[Cue, ...] = ()
    _tasks: dict[str, str] = field(default_factory=dict)
    _signal: str | None = None

    # --- what is performed --------------------------------------------------------------------------------------------

    def load(self, plan: Plan) -> None:
        """This plan is the next to be performed."""
        self._plan, self._cues = plan, cues(plan)
        self._redact = Redactor(plan.secrets)
        self.playbook, self.provider = plan.name, plan.provider
        self.problems = problems_to_json(plan.warnings)
        self._reset()

    def _reset(self) -> None:
        assert self._plan is not None
        self.rows = {step.id: Row(step) for step in self._plan.steps}
        self._tasks.clear()
        self.sources.clear()
        self.phase, self.held, self.step, self.awaits, self.session, self.zero_ms = "idle", False, None, None, None, None
        for step in self._plan.steps:
            if step.skipped is not None:
                self.rows[step.id].state, self.rows[step.id].reason = "skipped", step.skipped
        self._expect(0, 0)

    def begin(self, run: str | None = None) -> None:
        """A performance of it begins."""
        self._reset()
        self.phase, self.run, self.result = "opening", run, None

    def over(self, result: Mapping[str, Any]) -> None:
        """The performance is over. What was said stays on the board until the next one begins."""
        self.phase, self.held, self.step, self.awaits, self.session = "idle", False, None, None, None
        self.result = dict(result)
        for row in self.rows.values():
            row.speaking = False
            if row.state == "running":
                row.state = "done" if result["end"] == "passed" else "failed"

    # --- the log ------------------------------------------------------------------------------------------------------

    def take(self, line: Line) -> None:
        """A line of the log."""
        if (kind := next((key for key in ("event", "command", "note") if key in line), None)) is None:
            return
        if handler := getattr(self, f"_{kind}_{line[kind]}", None):
            handler(line)
        self._signal = line["name"] if line.get("event") == "signal" else None

    def _event_session_opened(self, line: Line) -> None:
        assert self._plan is not None
        self.session = {"id": line["session"], "opened_ms": line["at_ms"], "reason": line.get("reason")}
        self.phase = "waiting"
        if self._plan.start.kind not in ("ready", "delay"):
            self.awaits = "go"

    def _command_close_session(self, _: Line) -> None:
        self.phase, self.awaits = "closing", None

    def _event_session_closed(self, _: Line) -> None:
        self.session = None

    def _note_timeline_zero(self, line: Line) -> None:
        self.zero_ms, self.phase, self.awaits = line["at_ms"], "running", None
        self._expect(0, 0)

    def _note_step_started(self, line: Line) -> None:
        row, at_ms = self.rows[line["step"]], line["at_ms"] - (self.zero_ms or 0)
        self.step = line["step"]
        row.state, row.started_ms, row.evidence, row.reason = "running", at_ms, None, None
        action = row.step.action
        self.awaits = action.event if isinstance(action, WaitEvent) else None
        index = list(self.rows).index(line["step"])
        row.due_ms, row.band_ms = at_ms, 0
        for later in list(self.rows.values())[index + 1 :]:
            if later.state in ("done", "failed") or (later.state == "skipped" and later.step.skipped is None):
                later.state, later.evidence, later.reason = "pending", None, None  # a step that is to be performed again
        self._expect(index, at_ms - self._cues[index].start_ms)

    def _note_step_finished(self, line: Line) -> None:
        row = self.rows[line["step"]]
        row.state = {"done": "done", "skipped": "skipped"}.get(line["outcome"], "failed")
        row.reason = line.get("reason")
        self.awaits = None

    def _note_step_skipped(self, line: Line) -> None:
        row = self.rows[line["step"]]
        row.state, row.reason = "skipped", line["reason"]

    def _note_late(self, line: Line) -> None:
        if line.get("step") in self.rows:
            self.rows[line["step"]].late_ms = line["late_ms"]

    def _command_say(self, line: Line) -> None:
        self._tasks[line["task"]] = line["step"]

    _command_play_audio = _command_say

    def _event_speech_started(self, line: Line) -> None:
        if (row := self.row_of(line)) is not None:
            row.speaking = True

    def _event_speech_ended(self, line: Line) -> None:
        if (row := self.row_of(line)) is not None:
            row.speaking, row.evidence = False, line["evidence"]
            row.reason = line.get("reason") or row.reason

    def _note_grade_raised(self, line: Line) -> None:
        if (row := self.row_of(line)) is not None:
            row.evidence = line["evidence"]

    def _note_grade_lowered(self, line: Line) -> None:
        if (row := self.row_of(line)) is not None:
            row.evidence, row.reason = line["evidence"], line["reason"]

    def _note_conflict(self, line: Line) -> None:
        if (row := self.row_of(line)) is not None:
            row.reason = line["reason"]

    def _event_provider_failed(self, line: Line) -> None:
        if (row := self.row_of(line)) is not None:
            row.reason = line["reason"]

    def _event_source_joined(self, line: Line) -> None:
        self.sources[line["source"]] = line["evidence"]

    def _event_source_left(self, line: Line) -> None:
        self.sources.pop(line["source"], None)

    def _event_signal(self, line: Line) -> None:
        if line["name"] in ("hold", "panic", "resume"):
            self.held = line["name"] != "resume"

    def _note_ignored(self, _: Line) -> None:
        if self._signal == "hold":  # the line before this one; a `panic` holds also where it interrupts nothing
            self.held = False

    def row_of(self, line: Line) -> Row | None:
        """The step that a line of the log is about."""
        task = line.get("task")
        return None if task is None else self.rows.get(self._tasks.get(task) or task)

    # --- when what comes ----------------------------------------------------------------------------------------------

    def _expect(self, index: int, shift_ms: int) -> None:
        """When the steps from `index` on are due, if that one is so much later than planned."""
        assert self._plan is not None
        band: int | None = 0
        latency = self._plan.capabilities.start_latency_ms
        for row, cue in list(zip(self.rows.values(), self._cues, strict=True))[index:]:
            step = row.step
            if step.at_ms is not None and band is not None and row.state == "pending":
                shift_ms = max(cue.start_ms + shift_ms, step.at_ms) - cue.start_ms
                band = 0 if cue.start_ms + shift_ms == step.at_ms else band
            if row.state == "pending":
                row.due_ms, row.band_ms = max(0, cue.start_ms + shift_ms), band
            if isinstance(step.action, WaitEvent) and step.skipped is None:
                band = None
            elif band is not None and step.speaks and step.skipped is None:
                band += LATENCY_DOUBT_MS * (latency > 0) + round(DOUBT * step.length.ms) * (step.length.basis == "estimated")

    @property
    def next(self) -> str | None:
        """The step that is standing by."""
        ids = list(self.rows)
        after = ids.index(self.step) + 1 if self.step is not None and self.phase == "running" else 0
        if self.phase == "closing":
            return None
        return next((id for id in ids[after:] if self.rows[id].step.skipped is None), None)

    def to_json(self) -> dict[str, Any]:
        """The state, but for what only the server knows."""
        standing_by = self.next
        steps = [row.to_json() for row in self.rows.values()]
        for step in steps:
            step.update({key: self._redact(step[key]) for key in ("name", "text", "reason") if step[key] is not None})
        for step in steps:
            if step["id"] == standing_by and step["state"] == "pending":
                step["state"] = "standby"
        return {
            "playbook": self.playbook,
            "provider": self.provider,
            "phase": self.phase,
            "held": self.held,
            "awaits": self.awaits and self._redact(self.awaits),
            "step": self.step,
            "next": standing_by,
            "steps": steps,
            "session": self.session,
            "sources": [{"source": source, "evidence": grade} for source, grade in self.sources.items()],
            "problems": self.problems,
            "run": self.run,
            "result": self.result,
        }


def problems_to_json(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Problems as data, each with its text, which has the line and the caret."""
    return [{**problem_to_json(problem), "text": format_problem(problem)} for problem in problems]
