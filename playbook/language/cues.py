"""When each step is expected: the arithmetic of a plan, without running it.

One cursor walks through the steps as the engine will, with the planned lengths in place of what will happen. A wait for a trigger counts
as nothing, because nobody knows. `plan` prints these cues, and the checks of limits are made with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from playbook.language.verbs import ACTIONS, Timeline
from playbook.model import Plan


@dataclass(frozen=True, slots=True)
class Cue:
    """One step of a plan on the timeline. `start_ms` is when it is performed, counted from timeline zero, `next_ms` when the show moves on.

    A line is heard from `heard_ms` to `over_ms`; for other steps these are the start and the end. `exact`: nothing before or in it is
    estimated or unknown. `late_ms`: how long after its `at` it comes.
    """

    step: str
    start_ms: int
    next_ms: int
    heard_ms: int
    over_ms: int
    exact: bool
    late_ms: int = 0


def cues(plan: Plan) -> tuple[Cue, ...]:
    """A cue for every step, skipped ones too (they take no time)."""
    latency_ms = plan.capabilities.start_latency_ms
    timeline = Timeline(latency_ms, exact=latency_ms == 0)
    found: list[Cue] = []
    for step in plan.steps:
        if step.skipped is not None:
            now_ms = timeline.now_ms
            found.append(Cue(step.id, now_ms, now_ms, now_ms, now_ms, timeline.exact))
            continue
        late_ms = 0
        if step.at_ms is not None:
            late_ms = max(0, timeline.now_ms - step.at_ms)
            timeline.now_ms = max(timeline.now_ms, step.at_ms)
        start_ms = timeline.now_ms
        heard = ACTIONS[type(step.action)].advance(timeline, step)
        heard_ms, over_ms = heard or (start_ms, timeline.now_ms)
        found.append(Cue(step.id, start_ms, timeline.now_ms, heard_ms, over_ms, timeline.exact, late_ms))
    return tuple(found)


def total_ms(plan: Plan, timeline: tuple[Cue, ...] | None = None) -> int:
    """How long the whole plan is expected to take, from the opened session to its end. `timeline` are its cues, if they are known."""
    timeline = cues(plan) if timeline is None else timeline
    return plan.start.delay_ms + (timeline[-1].next_ms if timeline else 0)
