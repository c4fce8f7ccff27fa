"""A run, or a plan, as something that can be compared: one `Act` for each step, in order, with what it said, how it went and when.

Times are on the timeline (0 is `timeline_zero`) or lengths, in milliseconds, by name:

* `start`: when a line was heard, or when the cursor entered a step that says nothing; `length`: how long that lasted
* `sent`: when our command went out; `accepted`: how long the provider took to take it (a line in chunks: each from its own command, so that
  our pauses do not count); `answered`: how long it then took to be heard, not counting what was queued before it
* `late`: how late a cue came; `ours`: how late our own timer was that led to it

`accepted` and `answered` are the provider's, `ours` is ours; what is left of a shift was carried over from the lines before. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from playbook.errors import RecordError
from playbook.language import cues, plan_from_json, plan_to_json
from playbook.model import AudioEcho, Evidence, InterruptSpeech, Plan, Say, Step, Wait, WaitEvent
from playbook.record.runlog import LogReader
from playbook.record.summary import RunSummary, Utterance


@dataclass(frozen=True, slots=True)
class Act:
    """One step as it was performed, or as it is planned. `words` is the text, or the sound's digest; empty for a step that says nothing."""

    id: str
    verb: str = ""
    words: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[str, int] = field(default_factory=dict)

    @property
    def speaks(self) -> bool:
        """Whether it is a line."""
        return self.verb in ("say", "audio-echo")


@dataclass(frozen=True, slots=True)
class Performance:
    """All of it. A fact may have parts, by name. `name` is for people; `damage` says why a log could not be read to its end; `planned`
    tells a plan from a run."""

    name: str
    acts: tuple[Act, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[str, int] = field(default_factory=dict)
    damage: str | None = None
    planned: bool = False
    playbook: str = ""
    """Its name, where it is known."""


# --- of a run -------------------------------------------------------------------------------------------------------------


def of_log(log: LogReader, name: str) -> Performance:
    """Read a log to its end. Raises `RecordError` when a line is no line of a log."""
    summary = RunSummary()
    try:
        for line in log:
            summary.take(line)
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{name} has a line that is not one of a run log: {type(error).__name__} {error}") from error
    summary.finish()
    return of_summary(summary, name, log.header, log.damage)


def of_summary(summary: RunSummary, name: str, header: Mapping[str, Any], damage: str | None = None) -> Performance:
    """A run that has been read, to its end or as far as it goes."""
    zero = summary.zero_ms or 0
    times = {"lasted": summary.last_ms - zero - summary.held_ms}
    if summary.opened_ms is not None:
        times["opened"] = summary.opened_ms
    facts = {"end": summary.end, "provider": header.get("provider"), "conflicts": summary.conflict_count}
    if summary.steered:
        facts["steered"] = ", ".join(dict.fromkeys(signal["name"] for signal in summary.signals))
    return Performance(name, tuple(_acts(summary, zero)), facts, times, damage, playbook=str(header.get("playbook", "")))


def _acts(summary: RunSummary, zero: int) -> Iterator[Act]:
    waited = _queued_until(summary)
    for step in summary.steps.values():
        facts: dict[str, Any] = {"outcome": step.outcome}
        times: dict[str, int] = {}
        said = summary.said(step.id)
        if step.started_ms is not None:
            times |= {"late": step.late_ms, "ours": step.ours_ms}
        if said is not None:
            facts |= {"evidence": said.grade, "interrupted": said.interrupted}
            times |= _spoken_times(said, zero, waited.get(said.task, 0))
            yield Act(step.id, "say" if said.audio_sha256 is None else "audio-echo", said.audio_sha256 or said.text, facts, times)
            continue
        if step.started_ms is not None:
            times["start"] = step.started_ms - zero
            if step.finished_ms is not None:
                times["length"] = step.finished_ms - step.started_ms
        yield Act(step.id, "interrupt" if step.interrupts else "", "", facts, times)


def _spoken_times(said: Utterance, zero: int, free_ms: int) -> dict[str, int]:
    times = {"sent": said.sent_ms - zero}
    if said.started_ms is not None:
        times["start"] = said.started_ms - zero
    if said.lasted_ms is not None:
        times["length"] = said.lasted_ms
    if said.accepted_ms is not None:
        times["accepted"] = said.taken_ms
        if said.started_ms is not None:
            waited_ms = said.accepted_ms if said.began_to_wait_ms is None else said.began_to_wait_ms
            times["answered"] = max(0, said.started_ms - max(waited_ms, free_ms))
    return times


def _queued_until(summary: RunSummary) -> dict[str, int]:
    """For each line that was heard, when the one before it had ended."""
    free: dict[str, int] = {}
    ended_ms = 0
    heard = [said for said in summary.utterances.values() if said.started_ms is not None]
    for said in sorted(heard, key=lambda said: said.started_ms or 0):
        assert said.started_ms is not None
        free[said.task] = min(ended_ms, said.started_ms)
        ended_ms = max(ended_ms, said.ended_ms or 0)
    return free


# --- of a plan --------------------------------------------------------------------------------------------------------------


def of_plan(plan: Plan, name: str) -> Performance:
    """A plan, with the times at which it expects to be heard. Secrets are masked first: what is compared may be shown."""
    if plan.secrets:
        plan = plan_from_json(plan_to_json(plan))
    facts = {
        "provider": plan.provider,
        "session": plan.session,
        "limits": _fields(plan.limits),
        "expect": _fields(plan.expect),
        "capabilities": _fields(plan.capabilities),
        "begins": plan.start.kind if plan.start.kind != "delay" else f"{plan.start.delay_ms} ms after the session opened",
    }
    acts = _cut([_planned(step, cue.heard_ms) for step, cue in zip(plan.steps, cues(plan), strict=True)])
    return Performance(name, tuple(acts), facts, planned=True, playbook=plan.name)


def _cut(acts: list[Act]) -> list[Act]:
    """Lines are heard no longer than until the interrupt that stops them."""
    sounding: list[int] = []
    for index, act in enumerate(acts):
        if act.speaks and act.times:
            sounding.append(index)
        elif act.verb == "interrupt" and act.times:
            for line in sounding:
                times = acts[line].times
                left = max(0, act.times["start"] - times["start"])
                acts[line] = replace(acts[line], times={**times, "length": min(times["length"], left)})
            sounding = []
    return acts


def _planned(step: Step, start_ms: int) -> Act:
    action = step.action
    facts: dict[str, Any] = {"until": step.until, "at": step.at_ms, "timeout": step.timeout_ms, "on_error": step.on_error}
    facts["skipped"] = step.skipped
    facts["expect"] = _fields(step.expect)
    words = ""
    if isinstance(action, Say):
        words = action.shown
        facts |= {"voice": action.voice, "pauses": tuple(chunk.after_ms for chunk in action.chunks)}
    elif isinstance(action, AudioEcho):
        words = action.sha256
    elif isinstance(action, Wait):
        facts["wait"] = action.duration_ms
    elif isinstance(action, WaitEvent):
        facts |= {"event": action.event, "event timeout": action.timeout_ms, "on_timeout": action.on_timeout}
    elif not isinstance(action, InterruptSpeech):
        facts["action"] = _fields(action)
    times = {} if step.skipped is not None else {"start": start_ms, "length": step.length.ms}
    return Act(step.id, step.verb, words, facts, times)


def _fields(value: Any) -> dict[str, Any]:
    """What a dataclass says, by the field's name; grades by theirs."""
    fields = {} if value is None else asdict(value)
    return {name: each.name if isinstance(each, Evidence) else each for name, each in fields.items() if each is not None and each != ()}
