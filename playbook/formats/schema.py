"""The JSON Schemas, which are the format, and a quick way to ask whether data is valid by them.

`jsonschema` is the judge: whatever is refused is refused by it, and its errors become our problems (`judge`). But importing it takes
longer than checking a whole playbook, and it takes a millisecond a step. So `compile_schema` makes a plain function of a schema that
answers valid or not; only what it does not call valid goes to the judge. A property test proves that the two always agree.

An editor is given one file. So the language's schema carries the session settings of our providers; they are written in the providers' own
schemas, and `with_sessions` puts them in. `check` does not read them there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from playbook.formats.source import looks_templated

Schema = Mapping[str, Any] | bool
Test = Callable[[Any], bool]

_PACKAGE = Path(__file__).resolve().parent.parent
_ANNOTATIONS = frozenset(
    (
        "$schema",
        "$id",
        "$comment",
        "title",
        "description",
        "default",
        "examples",
        "definitions",
        "deprecated",
        "format",
        "readOnly",
        "writeOnly",
        "then",
        "else",
        "markdownDescription",
        "defaultSnippets",
        "enumDescriptions",
        "markdownEnumDescriptions",
    )
)


def schema_path(name: str) -> Path:
    """Where a schema lies: `playbook.schema.json`, `providers/local.schema.json`."""
    installed = _PACKAGE / "_schemas"
    return (installed if installed.is_dir() else _PACKAGE.parent / "schemas") / name


@lru_cache(maxsize=32)
def load_schema(name: str) -> Mapping[str, Any]:
    """A schema by its file name, as data."""
    schema: Mapping[str, Any] = json.loads(schema_path(name).read_bytes())
    return schema


def resolve(schema: Schema, root: Mapping[str, Any]) -> Schema:
    """The definition a local `$ref` leads to, or the schema itself."""
    while isinstance(schema, Mapping) and "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#").strip("/").split("/"):
            target = target[_unescaped(part)] if part else target
        schema = target
    return schema


def _unescaped(part: str) -> str:
    """A name as it was before it became part of a JSON pointer in an address."""
    if "%" in part:
        from urllib.parse import unquote

        part = unquote(part)
    return part.replace("~1", "/").replace("~0", "~")


# --- one file for editors -------------------------------------------------------------------------------------------------

_TOLD = ("title", "description", "markdownDescription", "default", "examples", "deprecated")
_TEMPLATE = {"$ref": "#/definitions/template"}
_TEMPLATES = ("{{ x }}", "{{ " + "x" * 10_000 + " }}")  # a bound of length may refuse one of them


def with_sessions(language: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The language's schema with the session settings of these providers in it, by the schema of each.

    It stands alone: no reference leads out of it. What was put in before is replaced. Unlike the provider's schema, which judges what
    templates have become, it lets a template stand for any value, as `check` does before they are rendered.
    """
    from jsonschema import Draft7Validator

    definitions = {name: schema for name, schema in language["definitions"].items() if not name.endswith("-session")}
    playbook = definitions["playbook"]
    provider = {**playbook["properties"]["provider"], "examples": list(settings)}
    definitions["playbook"] = {**playbook, "properties": {**playbook["properties"], "provider": provider}}
    conditions = []
    for name, schema in settings.items():
        own = {keyword: rule for keyword, rule in schema.items() if keyword not in ("$schema", "$id")}
        own["defaultSnippets"] = [{"label": ", ".join(example), "body": example} for example in own.pop("examples", ())]
        place = f"#/definitions/{_escaped(name)}-session"
        moved = definitions[f"{name}-session"] = _moved(own, place)
        definitions[f"{name}-session"] = _templated(moved, Draft7Validator({"definitions": definitions}))
        then: dict[str, Any] = {"properties": {"session": {"$ref": place}}}
        if not Draft7Validator(schema).is_valid({}):
            then["allOf"] = [{"required": ["session"]}]  # apart, or editors offer the two as one thing to write
        named = {"title": provider["title"], "const": name}
        conditions.append({"if": {"required": ["provider"], "properties": {"provider": named}}, "then": then})
    return {**language, "allOf": conditions, "definitions": definitions}


def _escaped(name: str) -> str:
    """A name as part of a JSON pointer in an address. (A plug-in may be called anything.)"""
    from urllib.parse import quote

    return quote(name.replace("~", "~0").replace("/", "~1"), safe="")


def _moved(schema: Any, place: str) -> Any:
    """A whole schema as it must be when it stands at a place in another one."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    here = {"$ref": place + schema["$ref"][1:]} if str(schema.get("$ref", "")).startswith("#") else {}
    return {key: here.get(key) or _moved(child, place) for key, child in schema.items()}


def _templated(schema: Any, judge: Any) -> Any:
    """A schema that lets a template stand for each value in what it describes. A condition stays what it is."""
    if not isinstance(schema, dict):
        return schema
    loose: dict[str, Any] = {}
    for keyword, rule in schema.items():
        if keyword in ("properties", "patternProperties"):
            loose[keyword] = {key: _or_template(child, judge) for key, child in rule.items()}
        elif keyword in ("items", "additionalProperties"):
            loose[keyword] = [_or_template(child, judge) for child in rule] if isinstance(rule, list) else _or_template(rule, judge)
        elif keyword in ("definitions", "$defs", "dependencies"):
            loose[keyword] = {key: _templated(child, judge) for key, child in rule.items()}
        elif keyword in ("then", "else"):
            loose[keyword] = _templated(rule, judge)
        elif keyword in ("allOf", "anyOf", "oneOf"):
            branches = [_templated(branch, judge) for branch in rule]
            loose["anyOf" if keyword == "oneOf" and branches != rule else keyword] = branches  # a template may fit more than one
        else:
            loose[keyword] = rule
    return loose


def _or_template(schema: Any, judge: Any) -> Any:
    """The schema of a value, or a template. What is said of the value is said of both."""
    here = judge.evolve(schema=schema)
    # The default of plain text is written by editors, unasked, together with the key above it; that of an alternative is not.
    if not isinstance(schema, dict) or ("default" not in schema and all(here.is_valid(template) for template in _TEMPLATES)):
        return _templated(schema, judge)
    meant = resolve(schema, judge.schema)
    told = {keyword: meant[keyword] for keyword in _TOLD if keyword in meant} if isinstance(meant, Mapping) else {}
    rest = _templated({keyword: rule for keyword, rule in schema.items() if keyword == "title" or keyword not in _TOLD}, judge)
    branches = rest["anyOf"] if rest.keys() <= {"title", "anyOf"} else [rest]
    return {**told, "anyOf": [*branches, _TEMPLATE]}


# --- a quick test ---------------------------------------------------------------------------------------------------------


class Unsupported(Exception):
    """A schema uses a keyword that `compile_schema` does not know; the judge must be asked every time."""


def compile_schema(schema: Schema, root: Mapping[str, Any], *, templates: bool) -> Test:
    """A function that says whether data is valid by a schema. With `templates`, a scalar that holds a template fits everywhere."""
    return _Compiler(root, templates).test(schema)


class _Compiler:
    def __init__(self, root: Mapping[str, Any], templates: bool) -> None:
        self._root = root
        self._templates = templates
        self._done: dict[str, Test] = {}

    def test(self, schema: Schema) -> Test:
        if isinstance(schema, bool):
            return self._wild((lambda _: True) if schema else (lambda _: False))
        if "$ref" in schema:  # in Draft-07 whatever stands beside a $ref is ignored
            return self._reference(schema["$ref"])
        tests: list[Test] = []
        for keyword in schema:
            if keyword in _ANNOTATIONS or keyword in ("additionalProperties", "patternProperties"):
                continue
            maker = getattr(self, "_" + keyword, None)
            if maker is None:
                raise Unsupported(keyword)
            tests.append(maker(schema[keyword], schema))
        if "properties" not in schema and ("additionalProperties" in schema or "patternProperties" in schema):
            tests.append(self._properties({}, schema))
        if len(tests) == 1:
            return self._wild(tests[0])
        return self._wild(_all(tests))

    def _wild(self, test: Test) -> Test:
        if not self._templates:
            return test
        return lambda value: (type(value) is str and "{" in value and looks_templated(value)) or test(value)

    def _reference(self, reference: str) -> Test:
        if reference not in self._done:
            self._done[reference] = lambda value: self._done[reference](value)  # a schema may refer to itself
            self._done[reference] = self.test(resolve({"$ref": reference}, self._root))
        return self._done[reference]

    def _type(self, names: str | list[str], _: Schema) -> Test:
        tests = [TYPES[name] for name in ([names] if isinstance(names, str) else names)]
        return tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)

    def _enum(self, allowed: list[Any], _: Schema) -> Test:
        if all(isinstance(value, str) for value in allowed):
            words = frozenset(allowed)
            return lambda value: isinstance(value, str) and value in words
        return lambda value: any(_equal(value, other) for other in allowed)

    def _const(self, only: Any, _: Schema) -> Test:
        return lambda value: _equal(value, only)

    def _pattern(self, pattern: str, _: Schema) -> Test:
        search = re.compile(pattern).search
        return lambda value: not isinstance(value, str) or search(value) is not None

    def _minLength(self, least: int, _: Schema) -> Test:
        return lambda value: not isinstance(value, str) or len(value) >= least

    def _maxLength(self, most: int, _: Schema) -> Test:
        return lambda value: not isinstance(value, str) or len(value) <= most

    def _minimum(self, least: float, _: Schema) -> Test:
        return lambda value: not _is_number(value) or value >= least

    def _maximum(self, most: float, _: Schema) -> Test:
        return lambda value: not _is_number(value) or value <= most

    def _exclusiveMinimum(self, least: float, _: Schema) -> Test:
        return lambda value: not _is_number(value) or value > least

    def _exclusiveMaximum(self, most: float, _: Schema) -> Test:
        return lambda value: not _is_number(value) or value < most

    def _minItems(self, least: int, _: Schema) -> Test:
        return lambda value: not isinstance(value, list) or len(value) >= least

    def _maxItems(self, most: int, _: Schema) -> Test:
        return lambda value: not isinstance(value, list) or len(value) <= most

    def _minProperties(self, least: int, _: Schema) -> Test:
        return lambda value: not isinstance(value, dict) or len(value) >= least

    def _maxProperties(self, most: int, _: Schema) -> Test:
        return lambda value: not isinstance(value, dict) or len(value) <= most

    def _items(self, items: Any, _: Schema) -> Test:
        if isinstance(items, list):
            raise Unsupported("items as a list")
        test = self.test(items)
        return lambda value: not isinstance(value, list) or all(test(item) for item in value)

    def _required(self, names: list[str], _: Schema) -> Test:
        return lambda value: not isinstance(value, dict) or all(name in value for name in names)

    def _dependencies(self, needs: Mapping[str, Any], _: Schema) -> Test:
        tests = {key: self._required(need, {}) if isinstance(need, list) else self.test(need) for key, need in needs.items()}
        return lambda value: not isinstance(value, dict) or all(test(value) for key, test in tests.items() if key in value)

    def _propertyNames(self, schema: Schema, _: Schema) -> Test:
        test = self.test(schema)
        return lambda value: not isinstance(value, dict) or all(test(key) for key in value)

    def _properties(self, properties: Mapping[str, Any], schema: Any) -> Test:
        known = {key: self.test(child) for key, child in properties.items()}
        patterns = [(re.compile(key).search, self.test(child)) for key, child in schema.get("patternProperties", {}).items()]
        others = schema.get("additionalProperties", True)
        rest = None if others is True else self.test(others) if others else (lambda _: False)

        def test(value: Any) -> bool:
            if not isinstance(value, dict):
                return True
            for key, child in value.items():
                mine = known.get(key)
                if mine is not None and not mine(child):
                    return False
                matched = [each for search, each in patterns if search(key)] if patterns else ()
                if matched and not all(each(child) for each in matched):
                    return False
                if mine is None and not matched and rest is not None and not rest(child):
                    return False
            return True

        return test

    def _anyOf(self, schemas: list[Schema], _: Schema) -> Test:
        tests = [self.test(schema) for schema in schemas]

        def test(value: Any) -> bool:
            for each in tests:  # noqa: SIM110  a hot place, and a generator takes twice as long
                if each(value):
                    return True
            return False

        return test

    def _oneOf(self, schemas: list[Schema], _: Schema) -> Test:
        tests = [self.test(schema) for schema in schemas]
        return lambda value: sum(test(value) for test in tests) == 1

    def _allOf(self, schemas: list[Schema], _: Schema) -> Test:
        return _all([self.test(schema) for schema in schemas])

    def _not(self, schema: Schema, _: Schema) -> Test:
        test = self.test(schema)
        return lambda value: not test(value)

    def _if(self, condition: Schema, schema: Any) -> Test:
        test = self.test(condition)
        then, otherwise = self.test(schema.get("then", True)), self.test(schema.get("else", True))
        return lambda value: then(value) if test(value) else otherwise(value)


def _all(tests: list[Test]) -> Test:
    def test(value: Any) -> bool:
        for each in tests:  # noqa: SIM110  a hot place, and a generator takes twice as long
            if not each(value):
                return False
        return True

    return test


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _equal(one: Any, other: Any) -> bool:
    """Equal as JSON: true is not 1, but 1.0 is."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


TYPES: Mapping[str, Test] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def meant_truth(value: object) -> str:
    """What to write for text that is true or false elsewhere, as `no` is in YAML 1.1; empty for any other value."""
    words = {"true": ("true", "yes", "on"), "false": ("false", "no", "off")}
    return next((f"write `{truth}`" for truth, said in words.items() if isinstance(value, str) and value.lower() in said), "")


def is_type(value: object, name: str) -> bool:
    """Whether a value is of the type that JSON Schema calls `name`."""
    return TYPES[name](value)
