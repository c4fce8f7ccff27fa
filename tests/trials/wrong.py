"""Wrong playbooks, made from good ones by breaking one thing at a time, everywhere and in every way that the schema speaks of.

`jsonschema` is the judge: what it calls invalid must be refused with a code and a line, whatever it is; what stays valid may be refused for
other reasons. Nothing may end in a traceback.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jsonschema

from playbook.errors import CODES, AuthorError, Problem, format_problem
from playbook.formats.schema import load_schema
from playbook.language import compile_text
from tests.logs import ROOT
from tests.world import FakeWorld

GOOD: dict[str, Any] = {
    "version": 1,
    "name": "everything",
    "description": "Every verb and every modifier.",
    "provider": "pliable",
    "session": {"idle_limit_ms": 900000, "price_per_minute": 1.5, "visualConfig": {"id": 7}},
    "vars": {
        "visitor": {"type": "string", "default": "friend", "description": "Who comes."},
        "rooms": {"type": "array", "default": ["atrium", "library"]},
        "code": {"type": "integer", "default": 7, "secret": True},
    },
    "limits": {"max_duration": "10m", "max_cost": 20, "require_evidence": "estimated", "speech_margin": "3s"},
    "start": "2s",
    "expect": {"status": "passed", "absent": ["conflict"]},
    "timeline": [
        {
            "say": "Welcome, {{ visitor }}.",
            "id": "hello",
            "name": "Greeting",
            "expect": {"evidence": "estimated", "lasts": {"min": "1ms", "max": "1m"}},
        },
        {"wait": "1.5s", "when": True},
        {"say": {"text": "Hello again.", "voice": "anna"}, "until": "started", "timeout": "20s", "on_error": "continue"},
        {"say": {"chunks": ["One, ", {"wait": "300ms"}, "two."]}, "at": "30s"},
        {"audio-echo": {"base64": "AAAAAAAA", "sample_rate": 16000, "format": "pcm16"}, "until": "ended"},
        {"say": "The {{ item }}.", "foreach": "{{ rooms }}", "expect": {"starts_within": "20s"}},
        {"say": "Again.", "repeat": 2, "until": "accepted"},
        {"wait": "speech"},
        {"say": "Cut.", "until": "1s"},
        {"interrupt": None},
        {"wait": {"event": "next", "timeout": "10s", "on_timeout": "continue"}},
        {"end": {"drain": False}},
    ],
}
VALUES: list[Any] = [
    None,
    True,
    "",
    "x",
    " ",
    "{{",
    "{{ nothing }}",
    "{% if 1 %}",
    "12 parsecs",
    "-1s",
    -1,
    0,
    1,
    3.5,
    2**70,
    [],
    {},
    [[]],
    ["x", 1],
    {"x": 1},
]
VALUES += [{"say": 1}, "x" * 5000, "\u202e", "\U0001f600", "on", "012", "1:99", "2026-01-01", "..", "a/b", [None], {"": ""}]
KEYS = ["untill", "say", "wait", "end", "as", "id", "", "x y", "with", "include", "provider", "when", "{{ x }}"]

Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield from places(child, (*path, key))


def broken() -> Iterator[tuple[str, Any]]:
    """Every way to break one thing."""
    for path in places(GOOD):
        for value in VALUES:
            yield f"{path} becomes {value!r:.40}", changed(path, lambda parent, key, value=value: parent.__setitem__(key, value))
        if path:
            yield f"{path} is missing", changed(path, lambda parent, key: parent.__delitem__(key))
            yield f"{path} is there twice", changed(path, twice)
        if isinstance(at(GOOD, path), dict):
            for name in KEYS:
                yield f"{path} has '{name}'", changed((*path, name), lambda parent, key: parent.setdefault(key, "1s"))


def twice(parent: Any, key: Any) -> None:
    if isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent[f"{key}s"] = copy.deepcopy(parent[key])


def at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def changed(path: Path, change: Any) -> Any:
    holder = {"all": copy.deepcopy(GOOD)}
    whole: Path = ("all", *path)
    change(at(holder, whole[:-1]), whole[-1])
    return holder["all"]


@dataclass(frozen=True)
class Tried:
    """How many there were, and what became of them."""

    count: int
    invalid: int
    refused: int
    codes: frozenset[str]


def wrong_playbooks(most: int | None = None, seed: int = 1) -> Tried:
    """Judge them all, or so many of them, chosen by chance."""
    cases = list(broken())
    if most is not None:
        cases = random.Random(seed).sample(cases, most)
    judge = jsonschema.Draft7Validator(load_schema("playbook.schema.json"))
    judge.validate(GOOD)
    compile_text(_text(GOOD), ROOT / "good.yaml", FakeWorld())
    invalid = refused = 0
    codes: set[str] = set()
    for what, data in cases:
        wrong = not judge.is_valid(data)
        invalid += wrong
        problems = refusal(data)
        if problems is None:
            assert not wrong, f"{what}: the schema refuses it, and we do not"
            continue
        refused += 1
        first = next(problem for problem in problems if problem.severity == "error")
        assert first.place is not None, f"{what}: {first}"
        assert first.place.line >= 1, what
        assert {problem.code for problem in problems} <= CODES.keys(), what
        assert all(format_problem(problem) for problem in problems)
        codes.add(first.code)
    return Tried(len(cases), invalid, refused, frozenset(codes))


def refusal(data: Any) -> tuple[Problem, ...] | None:
    """What is wrong with it; None when nothing is."""
    try:
        compile_text(_text(data), ROOT / "wrong.yaml", FakeWorld())
    except AuthorError as error:
        return error.problems
    return None


def _text(data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")  # JSON is YAML, with a line for everything
