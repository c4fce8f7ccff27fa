"""The schemas are the format: good in an editor, and the same judge everywhere."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from playbook.formats.durations import MAX_MS, meant_duration, parse_duration, show_duration
from playbook.formats.findings import Findings
from playbook.formats.schema import Schema, compile_schema, load_schema, resolve, schema_path
from playbook.formats.source import parse
from playbook.formats.validate import Format, validate
from playbook.language.check import check_file_node
from playbook.language.editor_schema import editor_schema
from playbook.language.format import STEP_KINDS, playbook_format
from playbook.providers.registry import OURS

from .logs import ROOT

SCHEMA = load_schema("language.schema.json")
EDITOR = load_schema("playbook.schema.json")
SCHEMAS = sorted(schema_path("playbook.schema.json").parent.rglob("*.schema.json"))
SESSIONS = {name: load_schema(f"providers/{name}.schema.json") for name in OURS}


def properties(schema: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every property of a schema, wherever it is declared (a condition declares nothing)."""
    if isinstance(schema, dict):
        for key, child in schema.items():
            if key == "properties":
                for name, setting in child.items():  # a setting may itself be called `properties`
                    yield f"{where}/{name}", setting
                    yield from properties(setting, f"{where}/{name}")
            elif key not in ("if", "not", "examples", "default", "enum"):
                yield from properties(child, f"{where}/{key}")
    elif isinstance(schema, list):
        for number, child in enumerate(schema):
            yield from properties(child, f"{where}/{number}")


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_every_schema_is_valid_and_every_property_described(path: Path):
    """An editor has something to say about every key."""
    schema = json.loads(path.read_text())
    Draft7Validator.check_schema(schema)
    for where, child in properties(schema):
        assert resolve(child, schema).get("description"), where


def test_examples_are_examples():
    """Every example in the language's schema is valid by what it is an example of."""

    def walk(schema: Any) -> Iterator[tuple[Any, Any]]:
        if isinstance(schema, dict):
            for example in schema.get("examples", ()) if isinstance(schema.get("examples"), list) else ():
                yield schema, example
            for key, child in schema.items():
                if key not in ("examples", "default", "enum"):
                    yield from walk(child)
        elif isinstance(schema, list):
            for child in schema:
                yield from walk(child)

    found = list(walk(SCHEMA))
    assert len(found) > 60
    for schema, example in found:
        Draft7Validator({**schema, "definitions": SCHEMA["definitions"]}).validate(example)


def test_a_duration_is_the_same_to_the_schema_and_to_the_planner():
    """The pattern that editors know and the parser agree on what a duration is; only the greatest length is the parser's alone."""
    valid = Draft7Validator({"$ref": "#/definitions/duration", "definitions": {**SCHEMA["definitions"], "template": False}}).is_valid

    @given(
        st.one_of(
            st.text("0123456789hms:. -+", max_size=12),
            st.from_regex(r"[0-9]{0,3}[.:]?[0-9]{1,3}(ms|s|m|h|)[0-9]{0,2}(ms|s|m|)", fullmatch=True),
        )
    )
    @settings(max_examples=400)
    def agree(text: str) -> None:
        try:
            parsed, reason = parse_duration(text), ""
        except ValueError as error:
            parsed, reason = -1, str(error)
        assert valid(text) == (parsed >= 0 or reason == "is longer than seven days")

    agree()


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        ("750ms", 750),
        ("2s", 2000),
        ("1m30s", 90_000),
        ("1h", 3_600_000),
        ("1h30m", 5_400_000),
        ("1.5s", 1500),
        ("0.5h", 1_800_000),
        ("1:30", 90_000),
        ("1:02:03", 3_723_000),
        ("90:00", 5_400_000),
        ("0:00.25", 250),
        ("0s", 0),
        (0, 0),
        (2, 2000),
        (1.5, 1500),
        (0.0005, 1),
        ("0.0004s", 0),
        ("1.0005s", 1001),
        ("3", 3000),
        (604_800, MAX_MS),
    ],
)
def test_durations(written: str | float, ms: int):
    """Every way to write a duration means whole milliseconds, rounded half up."""
    assert parse_duration(written) == ms


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "ms",
        " 1s",
        "1s ",
        "1s1m",
        "1 s",
        "-1s",
        -1,
        -0.1,
        "NaN",
        float("nan"),
        float("inf"),
        "1e3",
        "1e400",
        "1:60",
        "1:2",
        "١s",
        *("1::2", "1h1:30", "8d", 604_801, "200h", 10**400, True, None, [], {}, "9" * 5000, "1" * 400 + "s", "0x10", "1,5s"),
    ],
)
def test_what_is_no_duration(written: object):
    """Negative, absurd and half-written durations are refused with a reason."""
    with pytest.raises(ValueError, match=r"^is "):
        parse_duration(written)


@given(st.integers(0, MAX_MS))
def test_a_shown_duration_can_be_read_again(ms: int):
    """What messages print is what an author could write."""
    assert parse_duration(show_duration(ms)) == ms


# --- who accepts and who explains agree ---------------------------------------------------------------------------------

_words = ["say", "wait", "end", "interrupt", "include", "audio-echo", "id", "until", "at", "text", "chunks", "voice", "event", "timeout"]
_words += [
    "on_timeout",
    "when",
    "foreach",
    "as",
    "repeat",
    "on_error",
    "expect",
    "drain",
    "file",
    "base64",
    "sample_rate",
    "format",
    "with",
]
_scalars = st.sampled_from(
    [
        "x",
        "",
        " ",
        "2s",
        "-1s",
        "1:30",
        "speech",
        "ended",
        "fail",
        "pcm16",
        "reported",
        "{{ x }}",
        "a{{ x }}",
        0,
        1,
        -1,
        1.0,
        2.5,
        10**6,
        True,
        False,
        None,
    ]
)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*_words, "min", "max", "evidence", "absent", "wait"]), inner, max_size=3)
    ),
    max_leaves=5,
)
_steps = st.dictionaries(st.sampled_from(_words), _values, max_size=4) | _values


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1,5s", "1.5s"),
        ("2 s", "2s"),
        ("2 seconds", "2s"),
        ("2sec", "2s"),
        ("1 min", "1m"),
        ("2 Minutes", "2m"),
        ("500 ms", "500ms"),
        ("1 hour, 2 min and 3 seconds", "1h2m3s"),
        ("3 seconds and 1 minute", ""),
        ("1,500ms", ""),
        ("2 weeks", ""),
        ("two seconds", ""),
        ("9999 hours", ""),
        ("1 " * 100, ""),
    ],
)
def test_what_is_nearly_a_duration_is_understood(written: str, meant: str):
    """Words for units, spaces and a decimal comma are told how they are written; what could mean two things is not."""
    assert meant_duration(written) == meant


_KEYWORDS = {
    *("$schema", "$id", "$ref", "$comment", "title", "description", "default", "examples", "definitions"),
    *("type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("minLength", "maxLength", "pattern", "items", "minItems", "maxItems"),
    *(
        "properties",
        "patternProperties",
        "required",
        "additionalProperties",
        "propertyNames",
        "dependencies",
        "minProperties",
        "maxProperties",
    ),
    *("allOf", "anyOf", "oneOf", "not", "if", "then", "else"),
}
"""What our schemas are made of: every validator of Draft-07 knows these, and means the same by them."""


def schemas_within(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all that it is made of."""
    if isinstance(schema, list):
        for each in schema:
            yield from schemas_within(each)
    elif isinstance(schema, dict):
        yield schema
        for keyword, rule in schema.items():
            if keyword in ("properties", "patternProperties", "definitions", "dependencies"):
                yield from schemas_within(list(rule.values()))
            elif keyword not in ("examples", "default", "enum", "const", "required"):
                yield from schemas_within(rule)


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_every_schema_is_written_in_what_all_validators_have_in_common(path: Path):
    """No keyword of editors, no `format`, no alphabets such as \\d in a pattern: Ajv compiles each without options, and all agree."""
    for schema in schemas_within(json.loads(path.read_text())):
        assert schema.keys() <= _KEYWORDS, schema.keys() - _KEYWORDS
        assert not re.search(r"\\[a-zA-Z]", schema.get("pattern", "").replace("\\u", "")), schema["pattern"]
        assert not [key for key in schema.get("properties", ()) for each in schema.get("patternProperties", ()) if re.search(each, key)]


@pytest.mark.parametrize("verb", STEP_KINDS)
def test_who_accepts_and_who_explains_agree_on_steps(verb: str):
    """On whatever a step may hold, jsonschema-rs refuses if and only if jsonschema finds something wrong."""
    form = Schema(SCHEMA)

    @given(_steps.map(lambda step: {verb: "x", **step} if isinstance(step, dict) else step))
    @settings(max_examples=150)
    def agree(step: object) -> None:
        name = f"{verb}-step"
        assert form.accepts(step, name) != bool(form.errors(step, name))

    agree()


_surprises = st.sampled_from(["a\n", "\u00a0", "\u2003", "\ufeff", "\u0661", "1s\n", "\u0661s", "x" * 200, "{{ x", 2**62, 1e300, -0.0, []])
_changes = st.tuples(st.integers(0, 10**6), st.sampled_from(["drop", "rename", "replace", "add"]), _values | _surprises)


def mutated(data: Any, mutations: list[tuple[int, str, Any]]) -> Any:
    """The data with some of its places dropped, renamed, replaced or added to."""
    data = copy.deepcopy(data)
    for choice, what, value in mutations:
        places = [
            (holder, key) for holder in containers(data) for key in (list(holder) if isinstance(holder, dict) else range(len(holder)))
        ]
        if not places:
            return value
        holder, key = places[choice % len(places)]
        if what == "drop":
            del holder[key]
        elif what == "rename" and isinstance(holder, dict):
            holder[f"{key}s"] = holder.pop(key)
        elif what == "add" and isinstance(holder, dict):
            holder["surplus"] = value
        else:
            holder[key] = value
    return data


def keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))


def containers(data: Any) -> Iterator[Any]:
    """Every mapping and list within data."""
    if isinstance(data, (dict, list)):
        yield data
        for child in data.values() if isinstance(data, dict) else data:
            yield from containers(child)


@given(st.lists(_changes, max_size=4))
@settings(max_examples=300)
def test_a_refusal_always_has_an_explanation(mutations: list[tuple[int, str, Any]]):
    """Playbooks changed at random: `validate` refuses exactly what the schema refuses, and then says why, where, and with which code."""
    data, form = mutated(GOOD, mutations), playbook_format()
    findings = Findings()
    root = parse(json.dumps(data).encode(), Path("x.json"), "x.json", findings)
    assert root is not None
    assert findings.report("x.json") == ()
    whole = [(root, "playbook")]
    entries = [node for node in root.at(["timeline"]).entries() if isinstance(node.data, dict)]
    steps = [(node, f"{verb}-step") for node in entries for verb in STEP_KINDS if verb in node.data]
    for node, name in whole + steps:
        refused = not form.schema.accepts(node.data, name, "rendered")
        explained = Findings()
        assert validate(node, form, name, explained, data=node.data, stage="rendered") != refused
        problems = explained.report("x.json")
        assert bool(problems) == refused
        assert all(problem.code != "PB217" and problem.place is not None for problem in problems), problems


# --- one thing broken at a time -------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "version": 1,
    "name": "good",
    "description": "Everything there is.",
    "provider": "local",
    "session": {"voice": "en"},
    "vars": {"visitor": {"type": "string", "default": "friend"}, "rooms": {"type": "array", "default": ["a", "b"]}},
    "limits": {"max_duration": "10m", "max_cost": 1, "require_evidence": "estimated", "speech_margin": "5s"},
    "start": "2s",
    "expect": {"evidence": "estimated", "absent": ["late"], "status": "passed", "lasts": {"max": "5m"}},
    "timeline": [
        {"say": "Hello", "id": "hello", "name": "n", "when": True, "until": "started", "at": "1s", "timeout": 5, "on_error": "continue"},
        {"say": {"chunks": ["a", {"wait": "1s"}, "b"], "voice": "en"}, "expect": {"starts_within": 1, "lasts": {"min": 1}, "heard": "a b"}},
        {"wait": {"event": "go", "timeout": "3s", "on_timeout": "continue"}, "repeat": 2},
        {"wait": "speech", "foreach": [1, 2], "as": "item"},
        {"audio-echo": {"base64": "AAA=", "sample_rate": 8000, "format": "pcm16"}, "until": "1s"},
        {"interrupt": None},
        {"include": "part.yaml", "with": {"room": "atrium"}},
        {"end": {"drain": False}},
    ],
}


def broken(value: Any) -> Iterator[Any]:
    """The value with one thing changed, in every way: a key lost, renamed or added, a value replaced."""
    strange = [None, True, -1, 10**12, "", "nonsense?", [], {}, [[]], {"x": 1}]
    if isinstance(value, dict):
        for key in value:
            yield {other: child for other, child in value.items() if other != key}
            yield {f"{other}x" if other == key else other: child for other, child in value.items()}
            for child in broken(value[key]):
                yield {**value, key: child}
        yield {**value, "surplus": 1}
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield [*value[:number], *value[number + 1 :]]
            for other in broken(child):
                yield [*value[:number], other, *value[number + 1 :]]
    yield from strange


def test_whatever_breaks_is_told_with_a_place_if_and_only_if_the_schema_refuses_it():
    """Hundreds of wrong playbooks: `check` and a plain jsonschema agree on every one, and each problem has a code and a line."""
    judge = Draft7Validator(SCHEMA)
    assert judge.is_valid(GOOD)
    wrong = 0
    for data in broken(copy.deepcopy(GOOD)):
        findings = Findings()
        root = parse(json.dumps(data, indent=1).encode(), Path("x.yaml"), "x.yaml", findings)
        assert root is not None
        check_file_node(root, findings, ())
        problems = findings.report("x.yaml")
        assert bool(problems) != judge.is_valid(data), (data, problems)
        for problem in problems:
            wrong += 1
            assert re.fullmatch("PB2[0-9][0-9]", problem.code), problem
            assert problem.place is not None
            assert problem.source
            assert "valid under any" not in problem.message
    assert wrong > 500


# --- one file for editors -------------------------------------------------------------------------------------------------


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def test_the_schema_for_editors_is_up_to_date(update_golden: bool):
    """`playbook.schema.json` is built from the language's schema and the providers' own; `--update-golden` builds it anew."""
    schema = editor_schema(SCHEMA, SESSIONS)
    lines = [f"  {_line(name)}: {_line(each)}" for name, each in schema.pop("definitions").items()]
    built = _line(schema)[:-1] + ',\n"definitions": {\n' + ",\n".join(lines) + "\n}}\n"
    if update_golden:
        schema_path("playbook.schema.json").write_text(built, "utf-8")
    assert schema_path("playbook.schema.json").read_text("utf-8") == built


@pytest.mark.parametrize("path", [*sorted((ROOT / "playbooks").rglob("*.yaml"))], ids=lambda path: path.stem)
def test_every_shipped_playbook_is_good_in_an_editor(path: Path):
    """A plain jsonschema with the one file that the first line names, and no other, has nothing to say about any playbook or part."""
    text = path.read_bytes()
    named = re.match(rb"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named is not None
    one_file = json.loads((path.parent / named[1].decode()).read_bytes())
    root = parse(text, path, path.name, Findings())
    assert root is not None
    Draft7Validator(one_file).validate(root.data)


def show(provider: str, session: Any) -> dict[str, Any]:
    return {"version": 1, "provider": provider, "session": session, "timeline": [{"say": "x"}]}


@pytest.mark.parametrize("provider", OURS)
def test_editors_judge_settings_as_their_own_schema_does(provider: str):
    """Hundreds of settings, one thing broken at a time: the one file refuses what the provider's own schema refuses, and nothing else."""
    editor, own = Draft7Validator(EDITOR), Draft7Validator(SESSIONS[provider])
    judged = [
        (data, own.is_valid(data)) for example in SESSIONS[provider]["examples"] for data in (example, *broken(copy.deepcopy(example)))
    ]
    assert [data for data, good in judged if editor.is_valid(show(provider, data)) != good] == []
    assert {good for _, good in judged} == {True, False}
    without = {key: value for key, value in show(provider, None).items() if key != "session"}
    assert editor.is_valid(without) == own.is_valid({})


def templated(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The value with one thing in it replaced by a template, in every way; and the name of what was replaced."""
    if isinstance(value, dict):
        for key, child in value.items():
            for inner, other in ((key, "{{ x }}"), *templated(child, key)):
                yield inner, {**value, key: other}
    elif isinstance(value, list):
        for number, child in enumerate(value):
            for inner, other in ((name, "{{ x }}"), *templated(child, name)):
                yield inner, [*value[:number], other, *value[number + 1 :]]


def complete(schema: Any, root: Any) -> Any:
    """A value that has every setting of a schema, by their examples."""
    schema = resolve(schema, root)
    if "properties" not in schema:
        return schema["examples"][0]
    return {name: complete(child, root) for name, child in schema["properties"].items()}


@pytest.mark.parametrize("provider", OURS)
def test_a_template_is_good_in_an_editor_for_any_setting(provider: str):
    """Wherever `check` lets a template stand in settings, editors do, too; in settings as a whole and one after the other."""
    own, editor, seen = SESSIONS[provider], Draft7Validator(EDITOR), 0
    each = [{**own["examples"][0], name: value} for name, value in complete(own, own).items()]
    for _, data in (changed for whole in (*own["examples"], *each) for changed in templated(whole)):
        findings = Findings()
        node = parse(json.dumps(data).encode(), Path("x.yaml"), "x.yaml", findings)
        assert node is not None
        if validate(node, Format(Schema(own)), "", findings):
            seen += 1
            assert editor.is_valid(show(provider, data)), data
    assert seen >= len(own["properties"])


def test_a_template_is_good_in_an_editor_where_check_takes_it():
    """The same for the language itself, except for a template in place of these mappings, which hardly anybody writes."""
    editor, refused = Draft7Validator(EDITOR), set()
    for name, data in templated(GOOD):
        findings = Findings()
        root = parse(json.dumps(data).encode(), Path("x.yaml"), "x.yaml", findings)
        assert root is not None
        check_file_node(root, findings, ())
        if not findings.report("x.yaml") and not editor.is_valid(data):
            refused.add(name)
    others = {"session", "vars", "visitor", "rooms", "timeline"}  # these are refused by `check` a moment later
    assert refused - others == {"limits", "expect", "lasts", "with", "interrupt"}


def test_settings_of_any_shape_and_name_are_carried():
    """A plug-in may be called anything, refer within its schema, also to the whole of it, and say one thing in several ways."""
    odd = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://example.com/odd.json",
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "properties": {
            "inner": {"$ref": "#"},
            "speed": {"$ref": "#/definitions/speed"},
            "list": {"type": "array", "items": {"type": "boolean"}},
            "mode": {"oneOf": [{"properties": {"kind": {"const": "a"}}}, {"properties": {"kind": {"const": "b"}}}]},
            "off": False,
        },
        "definitions": {"speed": {"description": "How fast.", "enum": [1, 2]}},
    }
    name = "of/the~odd kind%"
    made = editor_schema(SCHEMA, {**SESSIONS, name: odd})
    Draft7Validator.check_schema(made)
    judge = Draft7Validator(made)
    good = [{}, {"speed": 1}, {"inner": {"speed": 2}}, {"list": [True, "{{ x }}"]}, {"speed": "{{ x }}", "more": "{{ x }}"}]
    good += [{"mode": {"kind": "a"}}, {"mode": {"kind": "{{ x }}"}}, {"inner": {"inner": {"more": 1}}}]
    wrong = [{"speed": 3}, {"inner": {"speed": 3}}, {"list": [1]}, {"more": "x"}, {"mode": {"kind": "c"}}, {"off": 1}, {"off": "{{ x }}"}]
    assert [judge.is_valid(show(name, settings)) for settings in good] == [True] * len(good)
    assert [judge.is_valid(show(name, settings)) for settings in wrong] == [False] * len(wrong)
    assert judge.is_valid(GOOD)
    assert compile_schema(made)(GOOD)
