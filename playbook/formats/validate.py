"""Is the data what its schema says? If not: which key, what is wrong, what was meant.

`Schema.accepts` decides; this file says in plain words what `jsonschema` finds in what was refused. A playbook is validated in two stages:
before rendering, a scalar that holds a template fits everywhere; after rendering, nothing is a template any more.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from playbook.errors import Place, near
from playbook.formats.durations import EXAMPLES, meant_duration, parse_duration
from playbook.formats.findings import Findings
from playbook.formats.malformed import COLON, lacks_space
from playbook.formats.schema import Schema, Stage
from playbook.formats.source import Node, looks_templated
from playbook.formats.wanted import fits_type, in_words, meant_truth, takes_durations, takes_text, wanted, words_of

Path = tuple[str | int, ...]
_BOUNDS: Mapping[str, str] = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}
_SIZES: Mapping[str, str] = {
    f"{bound}{what}": f"{words} {{}} {unit}"
    for bound, words in (("min", "at least"), ("max", "at most"))
    for what, unit in (("Length", "characters"), ("Items", "entries"), ("Properties", "keys"))
}


def _nothing(*_: object) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Remedies:
    """What to do about mistakes: what a format adds to what can be said of any. An empty remedy is none."""

    missing: Mapping[str, str] = field(default_factory=dict)
    """What to write where a key is missing, by the key."""
    unknown: Callable[[Sequence[str], Path, str], tuple[str, str, str] | None] = lambda *_: None
    """Code, message and remedy for a key (the third) that is none of those known; `{whole}` in the message is what it stands in."""
    empty: Callable[[Path], str] = _nothing
    """About an empty value."""
    other_word: Callable[[Path, str], str] = _nothing
    """The word that is meant by another program's."""
    instead: Callable[[Path, object, str], str] = _nothing
    """What to write instead of a value of the wrong type; the third is the value as it stands in the file."""
    of_list: Callable[[Path, str], str] = _nothing
    """About a list where something else, the second, is wanted."""


@dataclass(frozen=True, slots=True)
class Format:
    """A schema, and the remedies that its authors need. `name` is what to call the whole; without one, its titles say."""

    schema: Schema
    remedies: Remedies = field(default_factory=Remedies)
    name: str = ""


def validate(
    node: Node,
    form: Format,
    definition: str,
    findings: Findings,
    via: tuple[Place, ...] = (),
    *,
    data: Any = None,
    stage: Stage = "written",
    tainted: Callable[[Node], bool] = lambda _: False,
) -> bool:
    """Whether a node (or what it was rendered to, `data`) is valid; if not, the findings say why.

    `tainted` says of a node whether its value may not be shown.
    """
    data = node.data if stage == "written" else data
    if form.schema.accepts(data, definition, stage):
        return True
    errors = form.schema.errors(data, definition, stage)
    explanation = _Explanation(node, form, findings, via, stage, tainted)
    told = [explanation.explain(error, ()) for error in errors]
    _let_go(errors)
    if any(told):
        return False
    if errors and stage == "written":
        return True  # what is wrong stands in templates, and is validated when they are rendered
    findings.add("PB217", f"{form.name or 'this'} does not fit its schema", node.place, via=via)
    return False


def _let_go(errors: Iterable[Any]) -> None:
    """Break the cycles of `jsonschema`'s errors: each quotes its whole value, and a loop makes many before they are collected."""
    for error in errors:
        _let_go(error.context)
        error.context.clear()


@dataclass(frozen=True, slots=True)
class _Explanation:
    """Says in plain words what was found."""

    node: Node
    form: Format
    findings: Findings
    via: tuple[Place, ...]
    stage: Stage
    tainted: Callable[[Node], bool]

    def explain(self, error: Any, base: Path) -> bool:
        """Note a problem for an error, or several; whether there was one."""
        path = (*base, *error.relative_path)
        value, keyword = error.instance, str(error.validator)
        if self.stage == "written" and isinstance(value, str) and looks_templated(value):
            return False
        if keyword in ("anyOf", "oneOf"):
            return self._alternatives(error, path)
        if "propertyNames" in error.absolute_schema_path:
            self._name(error.schema, path, str(value))
        elif keyword == "additionalProperties":
            self._unknown_keys(error, path)
        elif keyword == "required":
            self._missing(error, path)
        elif keyword in ("dependencies", "not"):
            self._combination(error, path, keyword)
        elif keyword == "type":
            self._mismatch(error.schema, path, value)
        elif keyword in ("enum", "const"):
            self._not_allowed([*error.validator_value] if keyword == "enum" else [error.validator_value], path, value)
        elif keyword == "pattern":
            self._pattern(error.schema, path, value)
        elif keyword in _BOUNDS:
            shown = self._show(path, value)
            message = f"{self._label(path)} must be {_BOUNDS[keyword]} {error.validator_value}, not {shown}"
            self._add("PB209", message, path)
        elif keyword in _SIZES:
            self._size(_SIZES[keyword].format(error.validator_value), path, value)
        else:
            self._add("PB217", f"{self._label(path)} does not fit its schema ({keyword})", path)
        return True

    # keys

    def _name(self, schema: Any, path: Path, name: str) -> None:
        """A key that is none of a mapping's possible names."""
        place = self.node.at(path).key_place(name)
        about = str(schema.get("description", "")).rstrip(".")
        remedy = COLON if lacks_space(name) else about[:1].lower() + about[1:]
        self.findings.add("PB214", f"{name!r} is not {self._wanted(schema)}", place, remedy, via=self.via)

    def _missing(self, error: Any, path: Path) -> None:
        absent = next(key for key in error.validator_value if error.message.startswith(repr(key)))  # one error for each
        known = error.schema.get("properties", {})
        unknown = islice((key for key in error.instance if key not in known), 10)
        if not any(near(key, (absent,)) for key in unknown):  # else that one is told
            message = f"{self._in_need(error, path)} '{absent}'"
            self._add("PB202", message, path, f"add `{self.form.remedies.missing.get(absent, absent + ':')}`")

    def _combination(self, error: Any, path: Path, keyword: str) -> None:
        """Keys that need or exclude each other."""
        if keyword == "not":
            reason = error.validator_value.get("description") if isinstance(error.validator_value, dict) else None
            self._add("PB216", reason or f"{self._whole(error, path)} does not fit its schema", path)
            return
        for key, needs in error.validator_value.items():
            needed = isinstance(needs, list) and key in error.instance
            lacking = [need for need in needs if need not in error.instance] if needed else []
            if lacking:
                self._add("PB216", f"'{key}' needs '{lacking[0]}' beside it", path, f"add `{lacking[0]}:`", key=key)

    def _unknown_keys(self, error: Any, path: Path) -> None:
        known = list(error.schema.get("properties", {}))
        whole, listed = self._whole(error, path), f"its keys are {', '.join(known)}"
        holder = self.node.at(path)
        for key in error.instance:
            if self.findings.full:
                break
            if key in known or looks_templated(key):
                continue
            code, message, remedy = "PB203", "unknown key '{key}' in {whole}", ""
            special = self.form.remedies.unknown(known, path, key)
            if special is not None:
                code, message, remedy = special
            elif lacks_space(key):
                remedy = COLON
            else:
                remedy = self.findings.guess(key, known, "")
                if error.instance[key] is None and not remedy and "text" in known:  # {text: Good evening, ladies}
                    remedy = "in braces, text with a comma must be in quotes"
            message = message.format(key=key, whole=whole)
            self.findings.add(code, message, holder.key_place(key), remedy or listed, via=self.via)

    # values

    def _alternatives(self, error: Any, path: Path) -> bool:
        """Find the alternative that was meant, and explain by it."""
        value, schema, form = error.instance, error.schema, self.form.schema
        branches = [form.resolve(branch) for branch in error.validator_value]
        if all(isinstance(branch, dict) and branch.keys() == {"required"} for branch in branches):
            keys = [str(branch["required"][0]) for branch in branches]
            present = [key for key in keys if key in value]
            message = f"{self._in_need(error, path)} exactly one of {' and '.join(repr(key) for key in keys)}"
            self._add("PB216" if present else "PB202", message, path, key=present[-1] if present else "")
            return True
        meant = [number for number, branch in enumerate(branches) if fits_type(branch, value, form)]
        if len(meant) == 1 and not (isinstance(value, (str, int, float)) and takes_durations(schema, form)):
            context: dict[int, list[Any]] = defaultdict(list)
            for child in error.context or ():
                context[int(child.relative_schema_path[0])].append(child)
            told = [self.explain(child, path) for child in context[meant[0]]]
            return any(told)
        self._mismatch(schema, path, value)
        return True

    def _pattern(self, schema: Any, path: Path, value: str) -> None:
        if path == ("version",) and not self.form.name:
            self._version(path, value)
        elif not value.strip():
            self._add("PB215", f"{self._label(path)} is empty", path, self.form.remedies.empty(path))
        else:
            message = f"{self._label(path)} must be {self._wanted(schema)}, not {self._show(path, value)}"
            self._add("PB214", message, path, _as_id(value) if path[-1:] == ("id",) else "")

    def _version(self, path: Path, value: object) -> None:
        quoted = isinstance(value, str) and value.strip() in ("1", "1.0")
        remedy = "remove the quotes: version: 1" if quoted else "this program reads version 1"
        self._add("PB211", f"version {self._show(path, value)} is unknown", path, remedy)

    def _size(self, wanted: str, path: Path, value: Any) -> None:
        label = self._label(path)
        if len(value):
            self._add("PB215", f"{label} must have {wanted}, not {len(value)}", path)
        else:
            remedy = self.form.remedies.empty(path) if isinstance(value, str) else ""
            self._add("PB215", f"{label} is empty", path, remedy)

    def _mismatch(self, schema: Any, path: Path, value: object) -> None:
        """A value that is nothing of what it could be."""
        if path and not isinstance(path[-1], int) and lacks_space(path[-1]):
            return  # that is what is said of the key
        form = self.form.schema
        label, shown, wanted = self._label(path), self._show(path, value), self._wanted(schema)
        words = words_of(schema, form)
        meant = self.findings.near(value, words) if isinstance(value, str) else ""
        if meant:
            self._add("PB205", f"{label} must be {wanted}, not {shown}", path, f"did you mean '{meant}'?")
        elif takes_durations(schema, form) and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            self._not_a_duration(path, value, wanted)
        elif words and isinstance(value, str):
            self._not_allowed(words, path, value)
        elif takes_text(schema, form) and not isinstance(value, (list, dict)):
            self._add("PB210", f"{label} must be {wanted}, not {shown}", path, self._as_text(self.node.at(path), value))
        else:
            self._add("PB204", f"{label} must be {wanted}, not {shown}", path, self._instead(schema, path, value))

    def _not_a_duration(self, path: Path, value: str | int | float, wanted: str) -> None:
        try:
            parse_duration(value)
            reason = "is not"
        except ValueError as error:
            reason = str(error)
        meant = meant_duration(value) if isinstance(value, str) and not self._hidden(path) else ""
        instead = self.form.remedies.instead(path, value, self.node.at(path).raw)
        remedy = f"did you mean '{meant}'?" if meant else instead or EXAMPLES
        self._add("PB208", f"{self._label(path)} must be {wanted}; {self._show(path, value)} {reason}", path, remedy)

    def _as_text(self, written: Node, value: object) -> str:
        """How to make text of a scalar."""
        if self.stage == "rendered" and written.templated:
            return f"make text of it: {_filtered(written, 'string')}"
        if value is not None:
            return f'put it in quotes: "{written.raw.strip()}"'
        behind = written.document.text[written.end : written.end + 80].lstrip(" \t")
        return "text that begins with # must be in quotes" if behind.startswith("#") else "write some text"

    def _instead(self, schema: Any, path: Path, value: object) -> str:
        """What to write instead of a value of the wrong type."""
        written, wanted, form = self.node.at(path), self._wanted(schema), self.form.schema
        truth = meant_truth(value) if fits_type(schema, True, form) and not self._hidden(path) else ""
        remedy = truth or self.form.remedies.instead(path, value, written.raw)
        if remedy:
            return remedy
        if "string" in str(schema.get("type", "")) and isinstance(value, (bool, int, float)):
            return f'put it in quotes: "{written.raw}"'
        if path and wanted.partition(",")[0] == "nothing":
            return f"write `{self._label(path)}:` with nothing after it"
        if not isinstance(value, list) or not takes_text(schema, form):
            return ""
        if self.stage == "rendered" and written.templated and written.children is None:
            return "join it: " + _filtered(written, "join(', ')")
        return self.form.remedies.of_list(path, wanted) or "it takes one text; text that begins with [ must be in quotes"

    def _not_allowed(self, allowed: list[Any], path: Path, value: object) -> None:
        if path == ("version",) and not self.form.name:
            self._version(path, value)
            return
        listed = ", ".join(in_words(word).strip("'") for word in allowed)
        remedy = f"use one of {listed}" if len(allowed) > 1 else f"write {listed}"
        if isinstance(value, str):
            meant = self.form.remedies.other_word(path, value)
            words = [word for word in allowed if isinstance(word, str)]
            remedy = f"did you mean '{meant}'?" if meant in words else self.findings.guess(value, words, remedy)
        self._add("PB205", f"{self._label(path)} may not be {self._show(path, value)}", path, remedy)

    # words

    def _label(self, path: Path) -> str:
        """What to call the value at a path."""
        if not path:
            return self.form.name or "this"
        if isinstance(path[-1], int):
            return f"entry {path[-1] + 1} of {self._label(path[:-1])}"
        return path[-1]

    def _whole(self, error: Any, path: Path) -> str:
        """What to call the mapping that an error is about."""
        if not path and self.form.name:
            return self.form.name
        title = error.schema.get("title") if isinstance(error.schema, dict) else None
        return title if title and not self.form.name else f"'{path[-1]}'" if path else "this"

    def _in_need(self, error: Any, path: Path) -> str:
        """The same, and that it needs something."""
        whole = self._whole(error, path)
        return f"{whole} {'need' if whole == self.form.name else 'needs'}"

    def _wanted(self, schema: Any) -> str:
        return wanted(schema, self.form.schema, titled=not self.form.name)

    def _hidden(self, path: Path) -> bool:
        return self.tainted(self.node.at(path))

    def _show(self, path: Path, value: object) -> str:
        return "what it gives" if self._hidden(path) else in_words(value)

    def _add(self, code: str, message: str, path: Path, remedy: str = "", key: str = "") -> None:
        node = self.node.at(path)
        self.findings.add(code, message, node.key_place(key) if key else node.place, remedy, via=self.via)


def _filtered(node: Node, filter: str) -> str:
    """A node's expression, put through a filter."""
    expression = str(node.data).strip().removeprefix("{{").removesuffix("}}").strip()
    plain = all(part.isidentifier() for part in expression.split("."))
    return f"{{{{ {expression if plain else '…'} | {filter} }}}}"


def _as_id(text: str) -> str:
    """What to write instead of an id that is none: nearly the same in the letters that there are."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c if c.isascii() else c.casefold() for c in plain if not unicodedata.combining(c))
    meant = "-".join("".join(c if c.isascii() and (c.isalnum() or c == "_") else " " for c in plain).split()).strip("-_")
    sure = bool(meant) and all(c.isascii() or not c.isalpha() for c in plain)
    return (f"did you mean '{meant}'? " if sure else "") + "an id has a to z, A to Z, 0 to 9, - and _"
