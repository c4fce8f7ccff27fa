"""Every log that a test makes goes through `checked`: it must be complete, valid by the schema, and keep what a log promises."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import jsonschema

from playbook.formats.schema import Test, compile_schema, load_schema

ROOT = Path(__file__).parent.parent


@functools.cache
def validator() -> jsonschema.Draft7Validator:
    """The judge of a log's lines."""
    schema = load_schema("runlog.schema.json")
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


@functools.cache
def quick_test() -> Test:
    """The same in a fraction of the time, for the tens of thousands of lines of the tests; `test_runlog` proves that they agree."""
    return compile_schema(load_schema("runlog.schema.json"))


def checked(path: Path, *, complete: bool = True) -> list[dict[str, Any]]:
    """The lines of a log, the header first, after asserting that it is a good one."""
    path = path / "run.jsonl" if path.is_dir() else path
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        if not quick_test()(line):
            validator().validate(line)
    assert "runlog" in lines[0]
    assert [line["n"] for line in lines[1:]] == list(range(1, len(lines)))
    assert all(a["at_ms"] <= b["at_ms"] for a, b in itertools.pairwise(lines[1:])), "time went back"
    if complete:
        assert "end" in lines[-1]
        opened = any(line.get("event") == "session_opened" for line in lines)
        closes = sum(line.get("command") == "close_session" for line in lines)
        assert closes == 1 if opened else closes <= 1
        sent = {line["task"] for line in lines if line.get("command") in ("say", "play_audio")}
        assert sent == set(closings(lines)), "every utterance closes with one grade"
    return lines


def closings(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The one closing `speech_ended` of each utterance."""
    found: dict[str, dict[str, Any]] = {}
    for line, after in zip(lines, [*lines[1:], {}], strict=True):
        taken_back = after.get("note") in ("ignored", "conflict", "grade_raised") and after.get("task") in (line.get("task"), None)
        if line.get("event") == "speech_ended" and "task" in line and not taken_back:
            assert line["task"] not in found, "closed twice"
            found[line["task"]] = line
    return found


def of(lines: list[dict[str, Any]], kind: str, name: str) -> list[dict[str, Any]]:
    """The lines with `"event": name`, or another kind."""
    return [line for line in lines if line.get(kind) == name]
