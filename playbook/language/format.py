"""The playbook's own format: its schema, and what to do about the mistakes that its authors make."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from playbook.formats.schema import Schema, load_schema
from playbook.formats.validate import Format, Path, Remedies
from playbook.formats.wanted import type_of

STEP_KINDS = ("say", "audio-echo", "wait", "interrupt", "end", "include")
"""The verbs, and `include`. A step has one of these; its definition in the schema is called `KIND-step`."""

_LONG_FORM: Mapping[str, Mapping[str, str]] = {
    "say": {
        "voice": "it belongs to the text: `say: {text: …, voice: …}`",
        "chunks": "write `say: {chunks: […]}`",
    },
    "audio-echo": dict.fromkeys(
        ("base64", "sample_rate", "format"),
        "write `audio-echo: {base64: …, sample_rate: …, format: pcm16}`",
    ),
    "wait": dict.fromkeys(("event", "on_timeout"), "write `wait: {event: …, timeout: …, on_timeout: …}`"),
    "end": {"drain": "write `end: {drain: …}`"},
}
"""Keys of a verb's long form that stand beside the verb, and where they belong."""
_INSTEAD: Mapping[str, tuple[str, str]] = {
    "wait": (r"[^\W\d][\w-]*", "a trigger is waited for with `wait: {{event: {0}}}`"),
    **dict.fromkeys(("when", "foreach", "repeat"), (r"[^\W\d]\w*", 'a variable is written "{{{{ {0} }}}}"')),
    "lasts": (r".*", "write `lasts: {{min: …, max: …}}`"),
    "limits": (r".*", "write `limits: {{max_duration: …}}`"),
}
"""What to write where a scalar like this stands."""
_OTHER_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("list", "tuple"), "array"),
    **dict.fromkeys(("str", "text"), "string"),
    **dict.fromkeys(("dict", "map", "mapping"), "object"),
    **dict.fromkeys(("float", "double", "decimal"), "number"),
    "bool": "boolean",
    "int": "integer",
    "none": "null",
}
"""What a type is called elsewhere, and what it is called here."""


def _unknown(known: Sequence[str], path: Path, key: str) -> tuple[str, str, str] | None:
    verb = "" if path else next((each for each in known if each in STEP_KINDS), "")
    if key in _LONG_FORM.get(verb, {}):
        return "PB203", "unknown key '{key}' in {whole}", _LONG_FORM[verb][key]
    if verb and key in keys_of_steps():
        return "PB213", "'{key}' does not apply to {whole}", ""
    return None


def _empty(path: Path) -> str:
    return "write some text, or wait" if path[:1] == ("say",) else ""


def _other_word(path: Path, value: str) -> str:
    return _OTHER_TYPES.get(value.lower(), "") if path[:1] == ("vars",) and path[-1] == "type" else ""


def _instead(path: Path, value: object, written: str) -> str:
    if path[:-1] == ("vars",) and not isinstance(value, (dict, type(None))):
        example = written if not isinstance(value, list) and len(str(value)) <= 40 else "…"
        return f"write `{path[-1]}: {{type: {type_of(value)}, default: {example}}}`"
    key = path[-1] if path and isinstance(path[-1], str) else ""
    looks, remedy = _INSTEAD.get(key, ("", ""))
    scalar = isinstance(value, (str, int, float))
    return remedy.format(value) if remedy and scalar and re.fullmatch(looks, str(value)) else ""


def _of_list(path: Path, wanted: str) -> str:
    return f"put text in quotes; several pieces are `{path[-1]}: {{chunks: […]}}`" if "{chunks" in wanted else ""


_REMEDIES = Remedies(
    missing={"version": "version: 1", "provider": "provider: local"},
    unknown=_unknown,
    empty=_empty,
    other_word=_other_word,
    instead=_instead,
    of_list=_of_list,
)


@lru_cache(maxsize=1)
def whole_schema() -> Schema:
    """A whole file, with all of its steps: a quick answer, which nothing explains."""
    return Schema(load_schema("language.schema.json"))


@lru_cache(maxsize=1)
def playbook_format() -> Format:
    """The same, with the steps of a timeline left to be validated one by one, each by the definition of its own verb."""
    root = load_schema("language.schema.json")
    definitions = root["definitions"]
    timeline = {**definitions["timeline"], "items": True}
    return Format(Schema({**root, "definitions": {**definitions, "timeline": timeline}}), _REMEDIES)


@lru_cache(maxsize=1)
def keys_of_steps() -> frozenset[str]:
    """What may stand in a step beside its verb, whichever that is."""
    form = playbook_format().schema
    keys = (key for verb in STEP_KINDS for key in form.definition(f"{verb}-step")["properties"])
    return frozenset(key for key in keys if key not in STEP_KINDS)
