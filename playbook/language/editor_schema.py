"""One schema for editors: the language's, with the session settings of all providers in it.

An editor is given one file. `schemas/playbook.schema.json` is built here from `language.schema.json` and the schemas of our providers; a
test keeps it up to date, and writes it with `--update-golden`. `playbook schema` builds it for all providers that are installed. `check`
reads the language's own schema, and each provider's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from playbook.formats.schema import compile_schema, resolve

_TOLD = ("title", "description", "markdownDescription", "default", "examples", "deprecated")
_TEMPLATE = {"$ref": "#/definitions/template"}
_TEMPLATES = ("{{ x }}", "{{ " + "x" * 10_000 + " }}")  # a bound of length may refuse one of them
_OWN = ("$schema", "$id", "$comment")
"""What a file says of itself."""


def editor_schema(language: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The language's schema with the session settings of these providers in it, by the schema of each.

    It stands alone: no reference leads out of it. Unlike the provider's schema, which judges what templates have become, it lets a
    template stand for any value, as `check` does before they are rendered.
    """
    definitions = dict(language["definitions"])
    playbook = definitions["playbook"]
    provider = {**playbook["properties"]["provider"], "examples": list(settings)}
    definitions["playbook"] = {**playbook, "properties": {**playbook["properties"], "provider": provider}}
    conditions = []
    for name, schema in settings.items():
        place = f"#/definitions/{_escaped(name)}-session"
        moved = _moved({keyword: rule for keyword, rule in schema.items() if keyword not in _OWN}, place)
        definitions[f"{name}-session"] = moved
        definitions[f"{name}-session"] = _templated(moved, definitions)
        then: dict[str, Any] = {"type": "object", "properties": {"session": {"$ref": place}}}
        if not compile_schema(schema)({}):
            given = [{"required": ["session"]}, {"required": ["sessions"]}]
            then["allOf"] = [{"type": "object", "anyOf": given}]  # apart, or editors offer the two as one thing to write
        named = {"title": provider["title"], "const": name}
        chosen = {"type": "object", "required": ["provider"], "properties": {"provider": named}}
        conditions.append({"if": chosen, "then": then})
    head = {keyword: rule for keyword, rule in language.items() if keyword != "$comment"}
    return {**head, "$id": "playbook.schema.json", "allOf": conditions, "definitions": definitions}


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


def _templated(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema that lets a template stand for each value in what it describes. A condition stays what it is."""
    if not isinstance(schema, dict):
        return schema
    loose: dict[str, Any] = {}
    for keyword, rule in schema.items():
        if keyword in ("properties", "patternProperties"):
            loose[keyword] = {key: _or_template(child, definitions) for key, child in rule.items()}
        elif keyword in ("items", "additionalProperties"):
            each = [_or_template(child, definitions) for child in (rule if isinstance(rule, list) else [rule])]
            loose[keyword] = each if isinstance(rule, list) else each[0]
        elif keyword in ("definitions", "$defs", "dependencies"):
            loose[keyword] = {key: _templated(child, definitions) for key, child in rule.items()}
        elif keyword in ("then", "else"):
            loose[keyword] = _templated(rule, definitions)
        elif keyword in ("allOf", "anyOf", "oneOf"):
            branches = [_templated(branch, definitions) for branch in rule]
            widened = keyword == "oneOf" and branches != rule  # a template may fit more than one
            loose["anyOf" if widened else keyword] = branches
        else:
            loose[keyword] = rule
    return loose


def _or_template(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """The schema of a value, or a template. What is said of the value is said of both."""
    if not isinstance(schema, dict):
        return schema
    accepts = compile_schema({"allOf": [schema], "definitions": definitions})
    # The default of plain text is written by editors, unasked, together with the key above it; that of an alternative is not.
    if "default" not in schema and all(map(accepts, _TEMPLATES)):
        return _templated(schema, definitions)
    meant = resolve(schema, {"definitions": definitions})
    told = {keyword: meant[keyword] for keyword in _TOLD if keyword in meant} if isinstance(meant, Mapping) else {}
    plain = {keyword: rule for keyword, rule in schema.items() if keyword == "title" or keyword not in _TOLD}
    rest = _templated(plain, definitions)
    branches = rest["anyOf"] if rest.keys() <= {"title", "anyOf"} else [rest]
    return {**told, "anyOf": [*branches, _TEMPLATE]}
