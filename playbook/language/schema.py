"""The JSON Schemas, which are the format, and a quick way to ask whether data is valid by them.

`jsonschema` is the judge: whatever is refused is refused by it, and its errors become our problems (`check`). But importing it takes
longer than checking a whole playbook, and it takes a millisecond a step. So `compile_schema` makes a plain function of a schema that
answers valid or not; only what it does not call valid goes to the judge. A property test proves that the two always agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from playbook.language.source import looks_templated

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
            target = target[part] if part else target
        schema = target
    return schema


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


def is_type(value: object, name: str) -> bool:
    """Whether a value is of the type that JSON Schema calls `name`."""
    return TYPES[name](value)
