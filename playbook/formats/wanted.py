"""What a schema asks for and what a value is, in the words of authors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from playbook.formats.schema import TYPES, Schema, is_type

_NOUNS: Mapping[str, str] = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
    "array": "a list",
    "object": "a mapping",
}


def in_words(value: object) -> str:
    """A value as an author knows it, short."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:39] + "…")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)[:40] if isinstance(value, (int, float)) else _NOUNS[type_of(value)]


def type_of(value: object) -> str:
    """The type of plain data, as JSON Schema calls it; the narrowest that fits."""
    return next(name for name in ("string", "boolean", "integer", *TYPES) if is_type(value, name))


def meant_truth(value: object) -> str:
    """What to write for text that is true or false elsewhere, as `no` is in YAML 1.1; empty for any other value."""
    words = {"true": ("true", "yes", "on"), "false": ("false", "no", "off")}
    said = value.lower() if isinstance(value, str) else ""
    return next((f"write `{truth}`" for truth, spellings in words.items() if said in spellings), "")


def wanted(schema: Any, form: Schema, *, titled: bool) -> str:
    """What a schema asks for. `titled`: its titles are nouns, as those of our own formats are."""
    if not isinstance(schema, dict):
        return "something else"
    if schema.get("type") == "object":
        return "a mapping"
    if "title" in schema and titled:
        return str(schema["title"])
    if "enum" in schema:
        return f"one of {', '.join(map(str, schema['enum']))}"
    nouns = [wanted(form.resolve(each), form, titled=titled) for each in _alternatives(schema)]
    return " or ".join(dict.fromkeys(nouns or (_NOUNS[name] for name in _types(schema)))) or "something else"


def fits_type(schema: Any, value: object, form: Schema) -> bool:
    """Whether a value is at least of the right kind for a schema, so that its own errors are worth telling."""
    schema = form.resolve(schema)
    if not isinstance(schema, dict):
        return bool(schema)
    if "anyOf" in schema:
        return any(fits_type(each, value, form) for each in schema["anyOf"])
    if schema.get("title") == "a template":
        return False
    if "enum" in schema:
        return any(type(value) is type(allowed) for allowed in schema["enum"])
    types = _types(schema)
    return not types or any(is_type(value, name) for name in types)


def takes_durations(schema: Any, form: Schema) -> bool:
    """Whether a schema takes a duration."""
    schema = form.resolve(schema)
    if not isinstance(schema, dict):
        return False
    return schema.get("title") == "a duration" or any(takes_durations(each, form) for each in schema.get("anyOf", ()))


def takes_text(schema: Any, form: Schema) -> bool:
    """Whether a schema takes text that people hear or read."""
    schema = form.resolve(schema)
    if not isinstance(schema, dict):
        return False
    is_text = schema.get("title") == "text" and schema.get("type") == "string"
    return is_text or any(takes_text(each, form) for each in schema.get("anyOf", ()))


def words_of(schema: Any, form: Schema) -> list[str]:
    """The words that a schema takes."""
    schema = form.resolve(schema)
    if not isinstance(schema, dict):
        return []
    words = [word for word in schema.get("enum", ()) if isinstance(word, str)]
    return words + [word for each in schema.get("anyOf", ()) for word in words_of(each, form)]


def _alternatives(schema: Mapping[str, Any]) -> list[Any]:
    return [*schema.get("anyOf", ()), *schema.get("oneOf", ())]


def _types(schema: Mapping[str, Any]) -> list[str]:
    types = schema.get("type", [])
    return [types] if isinstance(types, str) else types
