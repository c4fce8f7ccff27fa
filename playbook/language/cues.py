"""When each step is expected: the arithmetic of a plan, without running it.

One cursor walks through the steps as the engine will, with the planned lengths in place of what will happen. A wait for a trigger counts
as nothing, because nobody knows. `plan` prints these cues, and the checks of limits are made with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from playbook.model import AudioEcho, End, InterruptSpeech, Plan, Say, Wait, WaitEvent, WaitSpeech


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
    latency = plan.capabilities.start_latency_ms
    now, spoken, exact = 0, 0, latency == 0
    spoken_exact = True
    found: list[Cue] = []
    for step in plan.steps:
        if step.skipped is not None:
            found.append(Cue(step.id, now, now, now, now, exact))
            continue
        late = 0
        if step.at_ms is not None:
            late = max(0, now - step.at_ms)
            now = max(now, step.at_ms)
        start = heard = over = now
        action = step.action
        if isinstance(action, (Say, AudioEcho)):
            heard = max(now + latency, spoken)
            over = heard + step.length.ms
            spoken, spoken_exact = over, exact and spoken_exact and step.length.basis == "exact"
            if step.until == "ended":
                now, exact = over, spoken_exact
            elif step.until == "started":
                now = heard
            elif step.until != "accepted":
                now = heard + step.until
        elif isinstance(action, Wait):
            over = now = now + action.duration_ms
        elif isinstance(action, WaitSpeech):
            over = now = max(now, spoken)
            exact = exact and spoken_exact
        elif isinstance(action, WaitEvent):
            exact = False
        elif isinstance(action, InterruptSpeech):
            spoken = min(spoken, now)
        elif isinstance(action, End):
            over = now = max(now, spoken) if action.drain else now
            exact = exact and (spoken_exact or not action.drain)
        found.append(Cue(step.id, start, now, heard, over, exact, late))
    return tuple(found)


def total_ms(plan: Plan, timeline: tuple[Cue, ...] | None = None) -> int:
    """How long the whole plan is expected to take, from the opened session to its end. `timeline` are its cues, if they are known."""
    timeline = cues(plan) if timeline is None else timeline
    return plan.start.delay_ms + (timeline[-1].next_ms if timeline else 0)
