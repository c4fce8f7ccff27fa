"""The JSON Schemas, which are the format: `jsonschema-rs` accepts data or refuses it, and `jsonschema` explains what was refused.

The first takes a third of a microsecond a step, the second a millisecond and a tenth of a second to import; so it is imported only when
something is wrong. Our schemas are written in what the two have in common (a test says in what), so that they agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

Test = Callable[[Any], bool]

_PACKAGE = Path(__file__).resolve().parent.parent


def schema_path(name: str) -> Path:
    """Where a schema lies: `playbook.schema.json`, `providers/local.schema.json`."""
    installed = _PACKAGE / "_schemas"
    return (installed if installed.is_dir() else _PACKAGE.parent / "schemas") / name


@lru_cache(maxsize=32)
def load_schema(name: str) -> Mapping[str, Any]:
    """A schema by its file name, as data."""
    schema: Mapping[str, Any] = json.loads(schema_path(name).read_bytes())
    return schema


def compile_schema(schema: Mapping[str, Any]) -> Test:
    """A function that says whether data is valid by a schema. Raises `ValueError` when it is no schema."""
    from jsonschema_rs import Draft7Validator

    is_valid = Draft7Validator(dict(schema), offline=True).is_valid

    def test(data: Any) -> bool:
        try:
            return is_valid(data)
        except ValueError:  # text with half of a pair of surrogates, a key that is not text
            return False

    return test


def resolve(schema: Any, root: Mapping[str, Any]) -> Any:
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


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


TYPES: Mapping[str, Test] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": _is_number,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}
"""The types of JSON Schema by their names."""


def is_type(value: object, name: str) -> bool:
    """Whether a value is of the type that JSON Schema calls `name`."""
    return TYPES[name](value)


Stage = Literal["written", "rendered"]
"""Before templates are rendered, a string with one fits where the schema says so; afterwards nothing is a template any more."""


class Schema:
    """One JSON Schema, of which the whole or a definition is asked about."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        definitions = root.get("definitions", {})
        rendered = {**definitions, "template": False} if "template" in definitions else definitions
        self.root = root
        self._roots: Mapping[Stage, Mapping[str, Any]] = {
            "written": root,
            "rendered": {**root, "definitions": rendered},
        }
        self._tests: dict[tuple[str, Stage], Test] = {}

    def definition(self, name: str) -> Mapping[str, Any]:
        """A definition by its name; the whole by an empty one."""
        found: Mapping[str, Any] = self.root["definitions"][name] if name else self.root
        return found

    def accepts(self, data: object, name: str = "", stage: Stage = "written") -> bool:
        """Whether the data is valid."""
        key = (name, stage)
        if key not in self._tests:
            self._tests[key] = compile_schema(self._schema(name, stage))
        return self._tests[key](data)

    def errors(self, data: object, name: str = "", stage: Stage = "written") -> list[Any]:
        """What `jsonschema` finds wrong with the data."""
        return list(_explainer()(self._schema(name, stage)).iter_errors(data))

    def resolve(self, schema: Any) -> Any:
        """The definition that a reference in it leads to, or the schema itself."""
        return resolve(schema, self.root)

    def _schema(self, name: str, stage: Stage) -> Mapping[str, Any]:
        root = self._roots[stage]
        return {"$ref": f"#/definitions/{name}", "definitions": root["definitions"]} if name else root


@lru_cache(maxsize=1)
def _explainer() -> Any:
    """`jsonschema`, with the regular expressions of ECMAScript as far as Python's differ: `$` is the very end, and `\\d` is 0 to 9."""
    from jsonschema import Draft7Validator, ValidationError, validators

    def matches(validator: Any, pattern: str, value: object, _: object) -> Iterator[ValidationError]:
        exact = re.sub(r"(?<!\\)\$", r"\\Z", pattern)
        if validator.is_type(value, "string") and not re.search(exact, str(value), re.ASCII):
            yield ValidationError(f"{value!r} does not match {pattern!r}")

    return validators.extend(Draft7Validator, {"pattern": matches})  # type: ignore[no-untyped-call]  # its stubs are incomplete
