"""The plan on paper: its digest, the plan as JSON, and JSON as a plan.

`digest` is the identity of a show, so what goes into it changes only together with the plans that people keep. What is written holds no
secret; what is read is as good as what was compiled, or refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from playbook.errors import MASK, Place, RecordError
from playbook.language.verbs import ACTIONS, VERBS
from playbook.model import Capabilities, Evidence, Expect, Length, Limits, Plan, Start, Step

PLAN_VERSION = 1
T = TypeVar("T")


def digest(plan: Plan) -> str:
    """The sha256 of what will be said and when: equal plans have equal digests on every machine.

    Names, places and lengths are not in it, a sound is in it by its own digest, and a skipped step by its reason alone.
    """
    content = {
        "provider": plan.provider,
        "session": plan.session,
        "start": asdict(plan.start),
        "limits": _limits(plan.limits),
        "expect": _wanted(plan.expect),
        "steps": [_substance(step) for step in plan.steps],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _limits(limits: Limits) -> dict[str, Any]:
    """A limit that is not set changes no digest."""
    fields = asdict(limits)
    if limits.max_wait_ms is None:
        del fields["max_wait_ms"]
    return fields


def _substance(step: Step) -> dict[str, Any]:
    if step.skipped is not None:
        return {"id": step.id, "verb": step.verb, "skipped": step.skipped}
    facts = ACTIONS[type(step.action)].facts(step.action, true=True)
    return {
        "id": step.id,
        "verb": step.verb,
        "action": {"sha256": facts["sha256"]} if "sha256" in facts else facts,
        "at_ms": step.at_ms,
        "until": step.until,
        "timeout_ms": step.timeout_ms,
        "on_error": step.on_error,
        "expect": _wanted(step.expect),
    }


def _wanted(expect: Expect | None) -> dict[str, Any] | None:
    """What is expected. What came to the language later is named only where it is used, so that the digests of old plans stay."""
    wanted = None if expect is None else asdict(expect)
    if wanted is not None and wanted["heard_contains"] is None:
        del wanted["heard_contains"]
    return wanted


# --- the plan as JSON ---------------------------------------------------------------------------------------------------


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """The plan as it is written to `plan.json`: secrets masked, sounds by digest only."""
    data: dict[str, Any] = {
        "plan": PLAN_VERSION,
        "name": plan.name,
        "description": plan.description,
        "file": plan.file,
        "provider": plan.provider,
        "plan_sha256": plan.sha256,
        "session": plan.session,
        "start": asdict(plan.start),
        "limits": _without_nones(plan.limits),
        "expect": None if plan.expect is None else _without_nones(plan.expect),
        "capabilities": _capabilities(plan.capabilities),
        "steps": [_step_to_json(step) for step in plan.steps],
    }
    if plan.secrets:
        hidden = sorted((secret for secret in plan.secrets if secret), key=len, reverse=True)
        data["session"] = _masked(data["session"], hidden, numbers=True)
        for key in ("name", "description", "expect"):
            data[key] = _masked(data[key], hidden)
        for step in data["steps"]:
            for key in ("name", "skipped", "expect", "place", "via", step["verb"]):
                if key in step:
                    step[key] = _masked(step[key], hidden)
    return data


def _capabilities(can: Capabilities) -> dict[str, Any]:
    """All that was known before a session; that it is elsewhere is the rule, and is not written."""
    return {name: value for name, value in asdict(can).items() if not (name == "remote" and value)}


def _masked(value: Any, secrets: list[str], *, numbers: bool = False) -> Any:
    """The same data with every secret in it masked; `numbers` that are one, too."""
    if isinstance(value, Mapping):
        keep = ("sha256", "evidence", "status", "on_timeout")
        return {key: each if key in keep else _masked(each, secrets, numbers=numbers) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(each, secrets, numbers=numbers) for each in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
    elif numbers and str(value) in secrets and not isinstance(value, bool):
        return MASK
    return value


def _step_to_json(step: Step) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": step.id,
        "verb": step.verb,
        step.verb: ACTIONS[type(step.action)].facts(step.action, true=False),
    }
    for key in ("name", "at_ms", "timeout_ms", "skipped"):
        value = getattr(step, key)
        if value not in (None, ""):
            data[key] = value
    if step.until != "ended":
        data["until"] = step.until
    if step.on_error != "fail":
        data["on_error"] = step.on_error
    if step.expect is not None:
        data["expect"] = _without_nones(step.expect)
    data["length"] = {"ms": step.length.ms, "basis": step.length.basis}
    if step.place is not None:
        data["place"] = _place_to_json(step.place)
    if step.via:
        data["via"] = [_place_to_json(place) for place in step.via]
    return data


def _place_to_json(place: Place) -> dict[str, Any]:
    return {"file": place.file, "line": place.line, "column": place.column, "length": place.length}


def _without_nones(value: Limits | Expect) -> dict[str, Any]:
    """Facts that were given; grades by their names."""
    facts = {field.name: getattr(value, field.name) for field in fields(value)}
    named = {
        key: each.name if isinstance(each, Evidence) else list(each) if isinstance(each, tuple) else each for key, each in facts.items()
    }
    return {key: each for key, each in named.items() if each is not None and each != []}


def plan_from_json(data: Any) -> Plan:
    """The plan that `plan_to_json` wrote (masked texts stay masked, sounds stay away). Raises `RecordError`."""
    try:
        if data["plan"] != PLAN_VERSION:
            raise RecordError(f"the plan has version {data['plan']}; this program reads version {PLAN_VERSION}")
        return _made(
            Plan,
            {
                "name": data["name"],
                "description": data["description"],
                "file": data["file"],
                "provider": data["provider"],
                "sha256": data["plan_sha256"],
                "session": data["session"],
                "start": _made(Start, data["start"]),
                "limits": _limits_from_json(data["limits"]),
                "expect": _expect_from_json(data["expect"]),
                "capabilities": _made(Capabilities, data["capabilities"]),
                "steps": tuple(map(_step_from_json, data["steps"])),
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordError(
            f"this is not a plan: {type(error).__name__} at {error}", remedy="make it anew with `playbook plan --json`"
        ) from error


def _limits_from_json(data: Mapping[str, Any]) -> Limits:
    evidence = data.get("require_evidence")
    return _made(Limits, {**data, "require_evidence": None if evidence is None else Evidence[evidence]})


def _expect_from_json(data: Mapping[str, Any] | None) -> Expect | None:
    if data is None:
        return None
    evidence, absent = data.get("evidence"), tuple(data.get("absent", ()))
    return _made(Expect, {**data, "evidence": None if evidence is None else Evidence[evidence], "absent": absent})


def _step_from_json(data: Mapping[str, Any]) -> Step:
    verb = data["verb"]
    action = VERBS[verb].read(data[verb], _made)
    given = {key: data[key] for key in ("id", "name", "at_ms", "until", "timeout_ms", "on_error", "skipped") if key in data}
    given |= {
        "action": action,
        "expect": _expect_from_json(data.get("expect")),
        "length": _made(Length, data["length"]),
    }
    given["place"] = _made(Place, data["place"]) if "place" in data else None
    given["via"] = tuple(_made(Place, place) for place in data.get("via", ()))
    return _made(Step, given)


def _made(cls: type[T], data: Mapping[str, Any]) -> T:
    """A dataclass from its facts, each of the type it was declared with. Raises `TypeError`: what is read must be as good as what was
    compiled, since everybody relies on it."""
    tests: Mapping[str, Callable[[Any], bool]] = _fields(cls)  # type: ignore[arg-type]  # a class is hashable
    for name, fits in tests.items():
        if name in data and not fits(data[name]):
            raise TypeError(f"{name}: {data[name]!r:.80}")
    return cls(**data)


@cache
def _fields(cls: Any) -> Mapping[str, Callable[[Any], bool]]:
    return {name: _test(hint) for name, hint in get_type_hints(cls).items()}


def _test(hint: Any) -> Callable[[Any], bool]:
    """Whether a value is of a type, as far as a plan uses types. Numbers are times, prices and places: none is negative."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Literal:
        return lambda value: isinstance(value, str) and value in inner
    if kind is Union or kind is UnionType:
        tests = [_test(each) for each in inner]
        return lambda value: any(test(value) for test in tests)
    if kind is tuple:
        test = _test(inner[0])
        return lambda value: isinstance(value, tuple) and all(map(test, value))
    if hint is int:
        return lambda value: type(value) is int and 0 <= value < _MAX_NUMBER
    if hint is float:
        return lambda value: type(value) in (int, float) and 0 <= value < _MAX_NUMBER
    return lambda value: isinstance(value, kind or hint)


_MAX_NUMBER = 2**53
