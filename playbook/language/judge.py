"""Is the data what the schema says? If not: which key, what is wrong, what was meant.

The schema is the judge; this file only says in plain words what `jsonschema` found, in a playbook or in its session settings. It is asked
in two passes: before rendering, a scalar that holds a template fits everywhere; after rendering, nothing is a template any more.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Literal

from playbook.errors import Place, near
from playbook.formats.durations import EXAMPLES, meant_duration, parse_duration
from playbook.formats.findings import Findings
from playbook.formats.malformed import COLON, lacks_space
from playbook.formats.schema import Test, Unsupported, compile_schema, is_type, load_schema, meant_truth, resolve
from playbook.formats.source import Node, looks_templated

VERBS = ("say", "audio-echo", "wait", "interrupt", "end", "include")
Pass = Literal["written", "rendered"]


class Format:
    """One JSON Schema as a judge, of the whole or of one of its definitions."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        definitions = root.get("definitions", {})
        rendered = {**definitions, "template": False} if "template" in definitions else definitions
        self._roots: dict[Pass, Mapping[str, Any]] = {"written": root, "rendered": {**root, "definitions": rendered}}
        self._tests: dict[tuple[str, Pass], Test | None] = {}
        self._judges: dict[tuple[str, Pass], Any] = {}

    def definition(self, name: str) -> Mapping[str, Any]:
        """A definition by its name; the whole by an empty one."""
        root = self._roots["written"]
        found: Mapping[str, Any] = root["definitions"][name] if name else root
        return found

    def accepts(self, data: object, name: str, stage: Pass) -> bool:
        """Whether the data is surely valid. No means: ask the judge."""
        key = (name, stage)
        if key not in self._tests:
            root = self._roots[stage]
            try:
                self._tests[key] = compile_schema(self._reference(name), root, templates=stage == "written")
            except (Unsupported, LookupError):
                self._tests[key] = None
        test = self._tests[key]
        return test is not None and test(data)

    def errors(self, data: object, name: str, stage: Pass) -> Iterable[Any]:
        """What the judge finds."""
        key = (name, stage)
        if key not in self._judges:
            from jsonschema import Draft7Validator

            root = self._roots[stage]
            schema = {**self._reference(name), "definitions": root.get("definitions", {})} if name else root
            self._judges[key] = Draft7Validator(schema)
        errors: Iterable[Any] = self._judges[key].iter_errors(data)
        return errors

    def resolve(self, schema: Any) -> Any:
        return resolve(schema, self._roots["written"])

    @staticmethod
    def _reference(name: str) -> Mapping[str, Any]:
        return {"$ref": f"#/definitions/{name}"} if name else {"$ref": "#"}


@lru_cache(maxsize=1)
def playbook_format() -> Format:
    """The language's own schema, with the steps of a timeline left to be judged one by one."""
    root = load_schema("playbook.schema.json")
    definitions = root["definitions"]
    timeline = {**definitions["timeline"], "items": True}
    return Format({**root, "definitions": {**definitions, "timeline": timeline}})


@lru_cache(maxsize=1)
def keys_of_steps() -> frozenset[str]:
    """What may stand in a step beside its verb, whichever that is."""
    return frozenset(key for verb in VERBS for key in playbook_format().definition(f"{verb}-step")["properties"] if key not in VERBS)


# --- the judgement in words ---------------------------------------------------------------------------------------------


def judge(
    node: Node,
    form: Format,
    name: str,
    findings: Findings,
    via: tuple[Place, ...] = (),
    *,
    data: Any = None,
    stage: Pass = "written",
    where: str = "",
    tainted: Callable[[Node], bool] = lambda _: False,
) -> bool:
    """Whether a node (or what it was rendered to, `data`) is valid; if not, the findings say why.

    `tainted` says of a node whether its value may not be shown. `where` is what to call the whole thing.
    """
    data = node.data if stage == "written" else data
    if form.accepts(data, name, stage):
        return True
    errors = list(form.errors(data, name, stage))
    words = _Words(node, form, findings, via, stage, where, tainted)
    told = [words.explain(error, ()) for error in errors]
    if any(told):
        return False
    if errors and stage == "rendered":
        findings.add("PB217", f"{where or 'this'} does not fit its schema", node.place, via=via)
        return False
    return True  # what is wrong, if anything, stands in templates, and is judged when they are rendered


@dataclass(frozen=True, slots=True)
class _Words:
    """Says in plain words what the judge found."""

    node: Node
    form: Format
    findings: Findings
    via: tuple[Place, ...]
    stage: Pass
    where: str
    tainted: Callable[[Node], bool]

    def explain(self, error: Any, base: tuple[str | int, ...]) -> bool:
        """Note a problem for an error, or several; whether there was one."""
        path = (*base, *error.relative_path)
        value, keyword = error.instance, str(error.validator)
        if self.stage == "written" and isinstance(value, str) and looks_templated(value):
            return False
        if keyword in ("anyOf", "oneOf"):
            return self._alternatives(error, path)
        if keyword == "additionalProperties":
            return self._unknown_keys(error, path)
        if keyword == "required":
            absent = next(key for key in error.validator_value if error.message.startswith(repr(key)))  # one error for each
            known = error.schema.get("properties", {})
            if not any(near(key, (absent,)) for key in islice((key for key in value if key not in known), 10)):  # that one is told
                self._add("PB202", f"{self._in_need(error, path)} '{absent}'", path, f"add `{_EXAMPLES.get(absent, absent + ':')}`")
            return True
        if "propertyNames" in error.absolute_schema_path:
            place = self.node.at(path).key_place(str(value))
            remedy = COLON if lacks_space(str(value)) else "letters, digits and _, and no word of the template language"
            self.findings.add("PB214", f"{value!r} is not {self._wanted(error.schema)}", place, remedy, via=self.via)
            return True
        if keyword == "dependencies":
            for key, needs in error.validator_value.items():
                lacking = [need for need in needs if need not in value] if key in value and isinstance(needs, list) else []
                if lacking:
                    self._add("PB216", f"'{key}' needs '{lacking[0]}' beside it", path, f"add `{lacking[0]}:`", key=key)
            return True
        if keyword == "not":
            reason = error.validator_value.get("description") if isinstance(error.validator_value, dict) else None
            self._add("PB216", reason or f"{self._whole(error, path)} does not fit its schema", path)
            return True
        return self._simple(error, path, keyword)

    def _simple(self, error: Any, path: tuple[str | int, ...], keyword: str) -> bool:
        """A value that is wrong by itself."""
        value, schema, label = error.instance, error.schema, self._label(path)
        if path == ("version",) and not self.where:
            quoted = isinstance(value, str) and value.strip() in ("1", "1.0")
            remedy = "remove the quotes: version: 1" if quoted else "this program reads version 1"
            self._add("PB211", f"version {self._show(path, value)} is unknown", path, remedy)
        elif keyword == "type":
            self._mismatch(schema, path, value)
        elif keyword in ("enum", "const"):
            self._not_allowed([*error.validator_value] if keyword == "enum" else [error.validator_value], path, value)
        elif keyword == "pattern":
            wanted = "empty" if isinstance(schema, dict) and schema.get("pattern") == "\\S" else ""
            message = f"{label} is empty" if wanted else f"{label} must be {self._wanted(schema)}, not {self._show(path, value)}"
            remedy = _as_id(value) if path[-1:] == ("id",) else _EMPTY if wanted else ""
            self._add("PB215" if wanted else "PB214", message, path, remedy)
        elif keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            bound = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than", "exclusiveMaximum": "less than"}[keyword]
            self._add("PB209", f"{label} must be {bound} {error.validator_value}, not {self._show(path, value)}", path)
        elif keyword in ("minLength", "minItems", "minProperties", "maxLength", "maxItems", "maxProperties"):
            if not len(value):
                self._add("PB215", f"{label} is empty", path, _EMPTY if path[:1] == ("say",) and isinstance(value, str) else "")
            else:
                bound = "at least" if keyword.startswith("min") else "at most"
                unit = {"Length": "characters", "Items": "entries", "Properties": "keys"}[keyword[3:]]
                self._add("PB215", f"{label} must have {bound} {error.validator_value} {unit}, not {len(value)}", path)
        else:
            self._add("PB217", f"{label} does not fit its schema ({keyword})", path)
        return True

    def _unknown_keys(self, error: Any, path: tuple[str | int, ...]) -> bool:
        schema: Any = error.schema
        known = list(schema.get("properties", {}))
        holder = self.node.at(path)
        whole, listed = self._whole(error, path), f"its keys are {', '.join(known)}"
        verb = next((key for key in known if key in VERBS), "") if not path else ""
        for key in error.instance:
            if self.findings.full:
                break
            if key in known or looks_templated(key):
                continue
            code, message = "PB203", f"unknown key '{key}' in {whole}"
            if key in _INSIDE.get(verb, {}):
                remedy = _INSIDE[verb][key]
            elif verb and key in keys_of_steps():
                code, message, remedy = "PB213", f"'{key}' does not apply to {whole}", listed
            elif lacks_space(key):
                remedy = COLON
            else:
                remedy = self.findings.guess(key, known, "")
                if error.instance[key] is None and not remedy and "text" in known:  # {text: Good evening, ladies}
                    remedy = "in braces, text with a comma must be in quotes"
            self.findings.add(code, message, holder.key_place(key), remedy or listed, via=self.via)
        return True

    def _alternatives(self, error: Any, path: tuple[str | int, ...]) -> bool:
        """Find the alternative that was meant, and judge by it."""
        value, schema = error.instance, error.schema
        branches = [self.form.resolve(branch) for branch in error.validator_value]
        if all(isinstance(branch, dict) and branch.keys() == {"required"} for branch in branches):
            keys = [str(branch["required"][0]) for branch in branches]
            present = [key for key in keys if key in value]
            one_of = f"exactly one of {' and '.join(repr(key) for key in keys)}"
            self._add("PB216" if present else "PB202", f"{self._in_need(error, path)} {one_of}", path, key=present[-1] if present else "")
            return True
        meant = [number for number, branch in enumerate(branches) if self._fits_type(branch, value)]
        if len(meant) == 1 and (not isinstance(value, (str, int, float)) or not self._durations(schema)):
            context: dict[int, list[Any]] = defaultdict(list)
            for child in error.context or ():
                context[int(child.relative_schema_path[0])].append(child)
            told = [self.explain(child, path) for child in context[meant[0]]]
            return any(told)
        self._mismatch(schema, path, value)
        return True

    def _fits_type(self, schema: Any, value: object) -> bool:
        """Whether a value is at least of the right kind for a schema, so that its own errors are worth telling."""
        schema = self.form.resolve(schema)
        if not isinstance(schema, dict):
            return bool(schema)
        if "anyOf" in schema:
            return any(self._fits_type(branch, value) for branch in schema["anyOf"])
        if schema.get("title") == "a template":
            return False
        if "enum" in schema:
            return any(type(value) is type(allowed) for allowed in schema["enum"])
        types = schema.get("type", [])
        return not types or any(is_type(value, name) for name in ([types] if isinstance(types, str) else types))

    def _durations(self, schema: Any) -> bool:
        schema = self.form.resolve(schema)
        if not isinstance(schema, dict):
            return False
        return schema.get("title") == "a duration" or any(self._durations(branch) for branch in schema.get("anyOf", ()))

    def _words_of(self, schema: Any) -> list[str]:
        schema = self.form.resolve(schema)
        if not isinstance(schema, dict):
            return []
        words = [word for word in schema.get("enum", ()) if isinstance(word, str)]
        return words + [word for branch in schema.get("anyOf", ()) for word in self._words_of(branch)]

    def _takes_text(self, schema: Any) -> bool:
        schema = self.form.resolve(schema)
        if not isinstance(schema, dict):
            return False
        titled = schema.get("title") == "text" and schema.get("type") == "string"
        return titled or any(self._takes_text(branch) for branch in schema.get("anyOf", ()))

    def _mismatch(self, schema: Any, path: tuple[str | int, ...], value: object) -> None:
        """A value that is nothing of what it could be."""
        if path[:-1] == ("vars",) and lacks_space(str(path[-1])):
            return  # that is what is said of the key
        label, shown, wanted = self._label(path), self._show(path, value), self._wanted(schema)
        words = self._words_of(schema)
        meant = self.findings.near(value, words) if isinstance(value, str) else ""
        if meant:
            self._add("PB205", f"{label} must be {wanted}, not {shown}", path, f"did you mean '{meant}'?")
        elif self._durations(schema) and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            try:
                parse_duration(value)
                reason = "is not"
            except ValueError as error:
                reason = str(error)
            meant = meant_duration(value) if isinstance(value, str) and not self.tainted(self.node.at(path)) else ""
            remedy = f"did you mean '{meant}'?" if meant else _instead_of(label, value) or EXAMPLES
            self._add("PB208", f"{label} must be {wanted}; {shown} {reason}", path, remedy)
        elif words and isinstance(value, str):
            self._not_allowed(words, path, value)
        elif self._takes_text(schema) and not isinstance(value, (list, dict)):
            written = self.node.at(path)
            if self.stage == "rendered" and written.templated:
                remedy = f"make text of it: {_filtered(written, 'string')}"
            else:
                remedy = f'put it in quotes: "{written.raw.strip()}"'
                if value is None:
                    behind = written.document.text[written.end : written.end + 80].lstrip(" \t")
                    remedy = "text that begins with # must be in quotes" if behind.startswith("#") else "write some text"
            self._add("PB210", f"{label} must be {wanted}, not {shown}", path, remedy)
        else:
            remedy = meant_truth(value) if self._fits_type(schema, True) and not self.tainted(self.node.at(path)) else ""
            remedy = remedy or _instead_of(label, value)
            if path[:-1] == ("vars",) and not isinstance(value, (dict, type(None))):
                example = self.node.at(path).raw if not isinstance(value, list) and len(str(value)) <= 40 else "…"
                remedy = f"write `{label}: {{type: {_type_of(value)}, default: {example}}}`"
            elif "string" in str(schema.get("type", "")) and isinstance(value, (bool, int, float)) and not remedy:
                remedy = f'put it in quotes: "{self.node.at(path).raw}"'
            elif path and wanted.partition(",")[0] == "nothing":
                remedy = f"write `{label}:` with nothing after it"
            elif isinstance(value, list) and self._takes_text(schema):
                written = self.node.at(path)
                if self.stage == "rendered" and written.templated and written.children is None:
                    remedy = "join it: " + _filtered(written, "join(', ')")
                elif "{chunks" in wanted:
                    remedy = f"put text in quotes; several pieces are `{label}: {{chunks: […]}}`"
                else:
                    remedy = "it takes one text; text that begins with [ must be in quotes"
            self._add("PB204", f"{label} must be {wanted}, not {shown}", path, remedy)

    def _not_allowed(self, allowed: list[Any], path: tuple[str | int, ...], value: object) -> None:
        listed = ", ".join(show(word).strip("'") for word in allowed)
        remedy = f"use one of {listed}" if len(allowed) > 1 else f"write {listed}"
        if isinstance(value, str):
            meant = _OTHER_TYPES.get(value.lower()) if path[:1] == ("vars",) and path[-1] == "type" else None
            words = [word for word in allowed if isinstance(word, str)]
            remedy = f"did you mean '{meant}'?" if meant in words else self.findings.guess(value, words, remedy)
        self._add("PB205", f"{self._label(path)} may not be {self._show(path, value)}", path, remedy)

    def _label(self, path: tuple[str | int, ...]) -> str:
        """What to call the value at a path."""
        if not path:
            return self.where or "this"
        if isinstance(path[-1], int):
            return f"entry {path[-1] + 1} of {self._label(path[:-1])}"
        return path[-1]

    def _whole(self, error: Any, path: tuple[str | int, ...]) -> str:
        """What to call the mapping that an error is about."""
        if not path and self.where:
            return self.where
        title = error.schema.get("title") if isinstance(error.schema, dict) else None
        return title if title and not self.where else f"'{path[-1]}'" if path else "this"

    def _in_need(self, error: Any, path: tuple[str | int, ...]) -> str:
        """The same, and that it needs something."""
        whole = self._whole(error, path)
        return f"{whole} {'need' if whole == self.where else 'needs'}"

    def _wanted(self, schema: Any) -> str:
        """What a schema asks for, in words. Our own schema's titles are nouns; a provider's need not be."""
        if not isinstance(schema, dict):
            return "something else"
        if schema.get("type") == "object":
            return "a mapping"
        if "title" in schema and not self.where:
            return str(schema["title"])
        if "enum" in schema:
            return f"one of {', '.join(map(str, schema['enum']))}"
        types = schema.get("type", [])
        branches = [self._wanted(self.form.resolve(branch)) for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ()))]
        nouns = branches or [_NOUNS[name] for name in ([types] if isinstance(types, str) else types)]
        return " or ".join(dict.fromkeys(nouns)) or "something else"

    def _show(self, path: tuple[str | int, ...], value: object) -> str:
        return "what it gives" if self.tainted(self.node.at(path)) else show(value)

    def _add(self, code: str, message: str, path: tuple[str | int, ...], remedy: str = "", key: str = "") -> None:
        node = self.node.at(path)
        self.findings.add(code, message, node.key_place(key) if key else node.place, remedy, via=self.via)


def _instead_of(key: str, value: object) -> str:
    looks, remedy = _INSTEAD.get(key, ("", ""))
    return remedy.format(value) if remedy and isinstance(value, (str, int, float)) and re.fullmatch(looks, str(value)) else ""


def _filtered(node: Node, filter: str) -> str:
    """A node's expression, put through a filter."""
    name = re.fullmatch(r"\{\{\s*([\w.]+)\s*\}\}", node.data)
    return f"{{{{ {name[1] if name else '…'} | {filter} }}}}"


def _as_id(text: str) -> str:
    """What to write instead of an id that is none: nearly the same in the letters that there are."""
    plain = "".join(c if c.isascii() else c.casefold() for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    meant = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("-_")
    sure = bool(meant) and all(c.isascii() or not c.isalpha() for c in plain)
    return (f"did you mean '{meant}'? " if sure else "") + "an id has a to z, A to Z, 0 to 9, - and _"


def _type_of(value: object) -> str:
    return next(name for name in ("string", "boolean", "integer", "number", "array", "object", "null") if is_type(value, name))


_EMPTY = "write some text, or wait"
_EXAMPLES: Mapping[str, str] = {"version": "version: 1", "provider": "provider: local"}
"""What to write where a key is missing."""
_INSIDE: Mapping[str, Mapping[str, str]] = {
    "say": {"voice": "it belongs to the text: `say: {text: …, voice: …}`", "chunks": "write `say: {chunks: […]}`"},
    "audio-echo": dict.fromkeys(("base64", "sample_rate", "format"), "write `audio-echo: {base64: …, sample_rate: …, format: pcm16}`"),
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
_NOUNS: Mapping[str, str] = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
    "array": "a list",
    "object": "a mapping",
}


def show(value: object) -> str:
    """A value as an author knows it, short."""
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:39] + "…")
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a mapping"
    if value is None:
        return "nothing"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)[:40]
