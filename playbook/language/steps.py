"""One step as rendered to one step of the plan: what it does, when, and what is expected of it.

What is wrong is noted where it is written, and leaves no step. What came out of a secret is kept together with what may be shown of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from playbook.formats.source import Node
from playbook.language.check import WrittenStep
from playbook.language.sounds import Sounds
from playbook.language.times import Times
from playbook.language.values import work_of
from playbook.language.verbs import ACTIONS, VERBS, Written
from playbook.model import Evidence, Expect, Step


def build_step(step: WrittenStep, data: Mapping[str, Any], id: str, times: Times, sounds: Sounds, skipped: str | None) -> Step | None:
    """The step, or None with the reason among the findings."""
    verb = step.verb
    written = Written(step.node.at([verb]), data[verb], times, sounds, skipped is not None)
    action = VERBS[verb].build(written)
    until = data.get("until", "ended")
    if until not in ("accepted", "started", "ended"):
        until = times.ms(until, "until")
    at_ms, timeout_ms = times.optional(data, "at"), times.optional(data, "timeout")
    expect = build_expect(data.get("expect"), times, "expect")
    if action is None or times.failed:
        return None
    shown = times.renderer.shown
    return Step(
        id=id,
        action=action,
        name=(shown and shown.get(step.node.at(["name"]))) or data.get("name", ""),
        at_ms=at_ms,
        until=until,
        timeout_ms=timeout_ms,
        on_error=data.get("on_error", "fail"),
        skipped=skipped,
        expect=expect,
        length=ACTIONS[type(action)].length(action),
        place=step.place,
        via=times.via,
    )


def unrendered_step(step: WrittenStep, id: str, times: Times, skipped: str) -> Step:
    """What stands in the plan for a skipped step that could not be rendered."""
    action = VERBS[step.verb].unrendered(step.node.at([step.verb]))
    length = ACTIONS[type(action)].length(action)
    return Step(id, action, skipped=skipped, length=length, place=step.place, via=times.via)


def build_expect(value: Any, times: Times, *path: str) -> Expect | None:
    """An `expect`, of a step or of the playbook, from its rendered data."""
    if value is None:
        return None
    lasts = value.get("lasts", {})
    least = times.optional(lasts, "min", *path, "lasts", "min")
    most = times.optional(lasts, "max", *path, "lasts", "max")
    if least is not None and most is not None and least > most:
        place = times.node.at([*path, "lasts"]).place
        times.fail("PB420", "`min` is longer than `max`", place, "swap them")
    absent = value.get("absent", ())
    heard, part = value.get("heard"), isinstance(value.get("heard"), Mapping)
    node = times.node.at([*path, "heard", *(["contains"] if part else [])])
    # It is compared with the log, which masks the line alike.
    wanted = times.renderer.shown.get(node, heard["contains"] if part else heard)
    if wanted is not None and not _has_words(wanted):
        times.fail("PB420", "there is no word in it to listen for", node.place, "punctuation is not heard")
    return Expect(
        evidence=Evidence[value["evidence"]] if "evidence" in value else None,
        starts_within_ms=times.optional(value, "starts_within", *path, "starts_within"),
        lasts_min_ms=least,
        lasts_max_ms=most,
        heard=None if part else wanted,
        heard_contains=wanted if part else None,
        absent=(absent,) if isinstance(absent, str) else tuple(absent),
        status=value.get("status"),
    )


def _has_words(text: str) -> bool:
    from playbook.events import words  # which a playbook without `heard` need not import

    return bool(words(text))


def size(node: Node, value: Any) -> int:
    """The work of making a step: what is written, and what is said (which an alias may have brought)."""
    written = node.end - node.start
    if isinstance(value, str):
        return written + len(value)
    if not isinstance(value, dict):
        return written
    said = value.get("text") or value.get("base64") or ""
    return written + len(said) + work_of(value.get("chunks", ())) * 4
