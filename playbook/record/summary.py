"""A run log, understood: steps, utterances and counts, gathered line by line.

Everything that is told about a run (report, captions, expectations, comparison) is told from here and not from the engine, so that it can
be told of a log that is years old. The rules of reading: a `speech_ended` line with a task closes that utterance, unless the next line
is a note (`ignored`, `conflict`) that takes it back; a `grade_raised` after that is a better grade for it.

What is kept grows with the steps and lines of a show, never with the length of its log: of what may come without end (conflicts, failures,
a vendor's ids for one line, names that no step has) only the first are kept, as many as somebody would look at, and all are counted.

Pure; imports only `model`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from playbook.model import Evidence

Line = dict[str, Any]

GRADES = tuple(grade.name for grade in reversed(Evidence))
"""The best first."""
REMARKABLE = ("late", "ignored", "conflict", "grade_lowered", "provider_failed", "interrupted")
OUTCOMES = ("done", "failed", "timeout", "cut")
TAKES_BACK = ("ignored", "conflict", "grade_raised")
"""The notes that say of the end before them that it closed nothing."""
UNTAKEN = ("refused", "ambiguous")
"""What may become of a line instead of being taken. Then there is no evidence of its speech, whatever grade its end has in the log."""
MAX_KEPT = 100
"""So many conflicts, so many failures, so many of a vendor's ids for one line, and so many names that no step has."""
MAX_TEXT = 4_000_000
"""No line of a playbook is longer than a playbook may be."""


@dataclass(slots=True)
class Utterance:
    """One line as it went. Times are milliseconds since the run began; None means that it never came to that."""

    task: str
    text: str = ""
    audio_sha256: str | None = None
    sent_ms: int = 0
    accepted_ms: int | None = None
    taken_ms: int = 0
    """How long the provider took to take it: the sum of its chunks', each from its own command."""
    began_to_wait_ms: int | None = None
    """When it had been taken as far as its speech needed."""
    started_ms: int | None = None
    ended_ms: int | None = None
    length_ms: int | None = None
    """How long it is by its own sound, or by the provider's measure, where that is known."""
    evidence: str | None = None
    source: str | None = None
    """Who told of its end."""
    raised_by: str | None = None
    """Who agreed with that later, and gave the better grade."""
    interrupted: bool = False
    heard_ms: int | None = None
    heard: str | None = None
    reason: str | None = None
    provider_tasks: list[str] = field(default_factory=list)
    """What the provider calls it, the first `MAX_KEPT`."""
    remark: str | None = None
    """What the provider had to say about how it took the line."""
    untaken: str | None = None
    """`UNTAKEN`, where the line ended by that."""
    step: str = ""
    """The step that said it; the task has another name only where the step is performed again."""
    _chunk_ms: int | None = None
    """When the command went out that was not taken yet."""

    @property
    def grade(self) -> str | None:
        """On what evidence we say that it was said; of a line that was not taken, what became of it instead."""
        return self.untaken or self.evidence

    @property
    def events(self) -> set[str]:
        """Which events it had."""
        moments = {"task_accepted": self.accepted_ms, "speech_started": self.started_ms, "speech_ended": self.ended_ms}
        return {name for name, at_ms in moments.items() if at_ms is not None}

    @property
    def lasted_ms(self) -> int | None:
        """How long it was heard: what the interrupt left of it, or from start to end, and no longer than it is: ends are reported late."""
        if self.heard_ms is not None:
            return self.heard_ms
        if self.started_ms is None or self.ended_ms is None:
            return None
        lasted_ms = max(0, self.ended_ms - self.started_ms)
        return lasted_ms if self.length_ms is None else min(lasted_ms, self.length_ms)


@dataclass(slots=True)
class StepRun:
    """One step as it went."""

    id: str
    started_ms: int | None = None
    finished_ms: int | None = None
    outcome: str | None = None
    reason: str | None = None
    late_ms: int = 0
    ours_ms: int = 0
    """How late our own timer was that led to it."""
    interrupts: bool = False
    """Whether it ordered an interrupt."""
    times: int = 0
    """How often it was performed; the rest is of its last performance."""
    held_ms: int = 0
    """How long the show was held while it was in this step."""

    @property
    def lasted_ms(self) -> int | None:
        """How long the cursor was in it."""
        if self.started_ms is None or self.finished_ms is None:
            return None
        return max(0, self.finished_ms - self.started_ms - self.held_ms)


@dataclass(slots=True)
class RunSummary:
    """What a log tells. Feed it every line below the header, in order, with `take`, and then `finish`."""

    session: str | None = None
    opened_ms: int | None = None
    zero_ms: int | None = None
    closing_ms: int | None = None
    """When it was ordered that the session be closed."""
    end: str | None = None
    reason: str | None = None
    last_ms: int = 0
    steps: dict[str, StepRun] = field(default_factory=dict)
    utterances: dict[str, Utterance] = field(default_factory=dict)
    signals: list[Line] = field(default_factory=list)
    """The first `MAX_KEPT` signals that steered the show; what was ignored is not among them."""
    held_ms: int = 0
    """How long the show was held in all."""
    triggers: dict[str, bool] = field(default_factory=dict)
    """The first `MAX_KEPT` names of triggers that were given, and whether something waited for one."""
    names: set[str] = field(default_factory=set)
    """Every event and note that occurred, and `interrupted`."""
    remarks: dict[str, set[str]] = field(default_factory=dict)
    """By step: what is remarkable of it (`REMARKABLE`)."""
    ignored: int = 0
    conflicts: list[Line] = field(default_factory=list)
    """The first `MAX_KEPT`; there were `conflict_count`."""
    conflict_count: int = 0
    unmet_count: int = 0
    """How many of them are expectations that did not come true: those name no task."""
    failures: list[Line] = field(default_factory=list)
    """What failed at the provider, the first `MAX_KEPT`; there were `failure_count`."""
    failure_count: int = 0
    _timer_late_ms: int = 0
    _pending: Line | None = None
    _given: Line | None = None  # a trigger or signal, of which the next line may say that it was ignored
    _cued: bool = False  # whether a cue gave a trigger that something waited for, by whatever name
    _held_since_ms: int | None = None

    def take(self, line: Line) -> None:
        """Take the next line."""
        self.last_ms = line["at_ms"]
        pending, self._pending = self._pending, None
        given, self._given = self._given, line if line.get("event") in ("trigger", "signal") else None
        if given is not None:
            self._heed(given, heeded=line.get("note") != "ignored")
        if pending is not None and not (line.get("note") in TAKES_BACK and line.get("task") in (pending["task"], None)):
            self._end(pending)
        if "event" in line:
            if line.get("outcome") != "settled":  # else the engine says it of its own, whatever it was that led to it
                self._timer_late_ms = line.get("late_ms", 0)
            self._name(line["event"])
            self._event(line)
        elif "command" in line:
            self._command(line)
        elif "note" in line:
            self._name(line["note"])
            self._note(line)
        elif "end" in line:
            self._resumed(line["at_ms"])
            self.end, self.reason = line["end"], line.get("reason")

    def unheeded(self, triggers: Iterable[str]) -> list[str]:
        """Which of the triggers that were to be given changed nothing, each in a sentence. Of a show that never began, none."""
        if self.zero_ms is None:
            return []
        names = [name for name in dict.fromkeys(triggers) if not self.triggers.get(name) and not (name == "go" and self._cued)]
        return [
            f"nothing waited for the trigger '{name}'"
            if name in self.triggers
            else f"the show was over before the trigger '{name}' was due"
            for name in names
        ]

    @property
    def steered(self) -> bool:
        """Whether anybody held, skipped or moved the show, so that it is not the plan's own."""
        return bool(self.signals)

    def said(self, step: str) -> Utterance | None:
        """What a step said, when it was last performed."""
        run = self.steps.get(step)
        again = None if run is None or run.times < 2 else self.utterances.get(f"{step}~{run.times}")
        return again or self.utterances.get(step)

    def last_said(self) -> list[Utterance]:
        """What each step said when it was last performed."""
        return [said for said in self.utterances.values() if self.said(said.step) is said]

    def finish(self) -> None:
        """No line follows for now: an end that the next one could have taken back stands."""
        if self._given is not None:
            self._heed(self._given, heeded=True)
            self._given = None
        if self._pending is not None:
            self._end(self._pending)
            self._pending = None

    def counts(self) -> dict[str, int]:
        """The figures of a log's last line, in a stable order."""
        self.finish()
        outcomes = [step.outcome for step in self.steps.values()]
        grades = [utterance.grade for utterance in self.utterances.values()]
        counts = {"steps": len(outcomes)}
        counts |= {name: outcomes.count(name) for name in (*OUTCOMES, "skipped")}
        counts |= {"utterances": len(grades)}
        counts |= {name: grades.count(name) for name in (*GRADES, *UNTAKEN)}
        counts["interrupted"] = sum(utterance.interrupted for utterance in self.utterances.values())
        counts["ignored"] = self.ignored
        counts["conflicts"] = self.conflict_count
        counts["late"] = sum(step.late_ms > 0 for step in self.steps.values())
        return counts

    def _heed(self, given: Line, *, heeded: bool) -> None:
        """A trigger or signal was given, and changed something or not."""
        name = given["trigger"] if given["event"] == "trigger" else " ".join(filter(None, (given["name"], given.get("step"))))
        if name in self.triggers or len(self.triggers) < MAX_KEPT:
            self.triggers[name] = self.triggers.get(name, False) or heeded
        if not heeded:
            return
        if given["event"] == "trigger":
            self._cued = self._cued or given["source"] == "cue"
            return
        if len(self.signals) < MAX_KEPT:
            self.signals.append(given)
        if given["name"] in ("hold", "panic") and self._held_since_ms is None:
            self._held_since_ms = given["at_ms"]
        elif given["name"] == "resume":
            self._resumed(given["at_ms"])

    def _resumed(self, at_ms: int) -> None:
        if self._held_since_ms is not None:
            held_ms, self._held_since_ms = at_ms - self._held_since_ms, None
            self.held_ms += held_ms
            current = next((step for step in reversed(self.steps.values()) if step.started_ms is not None and step.outcome is None), None)
            if current is not None:
                current.held_ms += held_ms

    def _name(self, name: str) -> None:
        if len(self.names) < MAX_KEPT:
            self.names.add(name)

    def _remark(self, line: Line, name: str) -> None:
        self._name(name)
        whose = (line.get("task") or line.get("step") or "").partition("~")[0]
        if not whose:
            return
        known = whose in self.remarks or whose in self.steps or whose in self.utterances
        if known or len(self.remarks) < len(self.steps) + MAX_KEPT:
            self.remarks.setdefault(whose, set()).add(name)

    def _step(self, id: str) -> StepRun:
        step = self.steps.get(id)
        if step is None:
            step = self.steps[id] = StepRun(id)
        return step

    def _command(self, line: Line) -> None:
        if line["command"] == "say" or line["command"] == "play_audio":
            utterance = self.utterances.get(line["task"])
            if utterance is None:
                utterance = self.utterances[line["task"]] = Utterance(line["task"], step=line["step"], sent_ms=line["at_ms"])
            utterance._chunk_ms = line["at_ms"]
            if len(utterance.text) < MAX_TEXT:
                utterance.text += line.get("text", "")
            utterance.audio_sha256 = line.get("audio_sha256")
        elif line["command"] == "close_session":
            self.closing_ms = line["at_ms"]
        elif line["command"] == "interrupt" and (step := self.steps.get(line.get("step", ""))) is not None:
            step.interrupts = True

    def _note(self, line: Line) -> None:
        note = line["note"]
        if note in REMARKABLE:
            self._remark(line, note)
        if note == "step_started":
            again = self.steps.pop(line["step"], None)  # what is told of a step is of its last performance
            if again is not None and again.times:
                self.remarks.pop(line["step"], None)
            step = self._step(line["step"])
            step.times = 1 if again is None else again.times + 1
            step.late_ms = 0 if again is None or again.times else again.late_ms
            step.started_ms, step.ours_ms = line["at_ms"], self._timer_late_ms
        elif note == "step_finished":
            step = self._step(line["step"])
            step.finished_ms, step.outcome, step.reason = line["at_ms"], line["outcome"], line.get("reason")
        elif note == "step_skipped":
            step = self._step(line["step"])
            step.outcome, step.reason = "skipped", line["reason"]
        elif note == "timeline_zero":
            self.zero_ms = line["at_ms"]
        elif note == "late" and line.get("step"):
            step = self._step(line["step"])
            step.late_ms = max(step.late_ms, line["late_ms"])
        elif note == "ignored":
            self.ignored += 1
        elif note == "grade_raised" and (utterance := self.utterances.get(line["task"])) is not None:
            utterance.evidence, utterance.raised_by = line["evidence"], line["source"]
        elif note == "grade_lowered" and (utterance := self.utterances.get(line["task"])) is not None:
            utterance.evidence, utterance.reason = line["evidence"], line["reason"]
        elif note == "conflict":
            self.conflict_count += 1
            self.unmet_count += "task" not in line
            if len(self.conflicts) < MAX_KEPT:
                self.conflicts.append(line)

    def _event(self, line: Line) -> None:
        event = line["event"]
        if event == "session_opened":
            self.session, self.opened_ms = line["session"], line["at_ms"]
        elif event == "provider_failed":
            self.failure_count += 1
            if len(self.failures) < MAX_KEPT:
                self.failures.append(line)
            self._remark(line, event)
        utterance = self.utterances.get(line.get("task") or "")
        if utterance is None:
            return
        if event == "provider_failed" and utterance.ended_ms is None and line["outcome"] in UNTAKEN:
            utterance.untaken = line["outcome"]
        elif event == "task_accepted":
            utterance.accepted_ms = line["at_ms"]
            if utterance._chunk_ms is not None:
                utterance.taken_ms += line["at_ms"] - utterance._chunk_ms
                utterance._chunk_ms = None
            if utterance.started_ms is None:
                utterance.began_to_wait_ms = line["at_ms"]
            utterance.length_ms = line.get("duration_ms", utterance.length_ms)
            utterance.remark = line.get("reason", utterance.remark)
            if "provider_task" in line and len(utterance.provider_tasks) < MAX_KEPT:
                utterance.provider_tasks.append(line["provider_task"])
        elif event == "speech_started" and utterance.started_ms is None and utterance.ended_ms is None:
            utterance.started_ms = line["at_ms"] - line.get("ago_ms", 0)
        elif event == "speech_ended" and utterance.ended_ms is None:
            self._pending = line

    def _end(self, line: Line) -> None:
        utterance = self.utterances[line["task"]]
        utterance.ended_ms = line["at_ms"] - line.get("ago_ms", 0)
        utterance.length_ms = line.get("duration_ms", utterance.length_ms)
        utterance.evidence, utterance.source = line["evidence"], line["source"]
        utterance.interrupted = line.get("interrupted", False)
        if utterance.interrupted:
            self._remark(line, "interrupted")
        utterance.heard_ms = line.get("heard_ms")
        utterance.heard = line.get("heard")
        utterance.reason = line.get("reason")
