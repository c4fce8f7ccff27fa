"""Where the values of variables come from.

Later over earlier: the declaration's `default`, the files of `--vars`, `PLAYBOOK_VAR_name`, `--var name=value`, and values given by a
Python program. Text from the environment and the command line is read as the declared type; everything else must be of it already.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playbook.errors import Place
from playbook.formats.findings import Findings
from playbook.formats.schema import TYPES, is_type
from playbook.formats.source import Node, Reader, parse
from playbook.formats.wanted import meant_truth
from playbook.language.scope import Scope

_NOT_GIVEN = object()


@dataclass(frozen=True, slots=True)
class Inputs:
    """Values from outside: `var` of `--var`, `files` of `--vars`, `env` of `PLAYBOOK_VAR_…`, `row` of a table; `values` are typed.

    `table` is the file that the row is in, and `line` where. `lines` is a table of lines that takes the place of the playbook's own.
    `table` is the file that the row is in, and `line` where. `root` is the folder in which all files must be that a playbook names.
    """

    var: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    row: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)
    table: str = "the data"
    line: int = 0
    lines: Path | None = None
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class _Given:
    """A value, and where it was given. `text`: still to be read as the declared type."""

    value: object
    origin: str
    node: Node | None = None
    text: bool = False

    @property
    def place(self) -> Place | None:
        return None if self.node is None else self.node.place


def playbook_scope(declared: Node | None, inputs: Inputs, reader: Reader) -> Scope:
    """The names of a playbook."""
    findings = reader.findings
    given: dict[str, _Given] = {}
    names = dict(declared.items()) if declared is not None else {}
    for file in inputs.files:
        findings.withhold(str(file))
        root = reader.read(file, str(file), missing="PB119")
        if root is None:
            continue
        if not isinstance(root.children, dict):
            findings.add("PB119", "a file of variables holds names and values", root.place, "write `name: value`, one a line")
            continue
        for name, node in root.items():
            if name in names:
                given[name] = _Given(node.data, f"in {file}", node)
            else:
                remedy = _meant(name, names, findings)
                findings.add("PB310", f"no variable '{name}' is declared", root.key_place(name), remedy, severity="warning")
    for (
        name,
        text,
    ) in inputs.env.items():  # an environment may hold values for others: only what is nearly one of ours is doubted
        if name in names:
            given[name] = _Given(text, f"in PLAYBOOK_VAR_{name}", text=True)
        elif meant := findings.near(name, names):
            message = f"PLAYBOOK_VAR_{name} is ignored: no variable '{name}' is declared"
            findings.add("PB310", message, None, f"did you mean 'PLAYBOOK_VAR_{meant}'?", severity="warning")
    given.update({name: _Given(text, f"in --var {name}", text=True) for name, text in inputs.var.items()})
    given.update(
        {name: _Given(text, f"in the column '{name}' of {inputs.table}:{inputs.line}", text=True) for name, text in inputs.row.items()}
    )
    given.update({name: _Given(value, "given by the program") for name, value in inputs.values.items()})
    origins = {name: f"--var {name}" for name in inputs.var} | dict.fromkeys(inputs.row, f"a column of {inputs.table}")
    for name in dict.fromkeys([*inputs.var, *inputs.row, *inputs.values]):
        if name not in names:
            origin = f" ({origins[name]})" if name in origins else ""
            findings.add("PB310", f"no variable '{name}' is declared{origin}", None, _meant(name, names, findings))
    return _scope(names, declared, given, findings, (), strict=True)


def part_scope(
    declared: Node | None,
    given: Mapping[str, tuple[object, Node]],
    secret: Collection[str],
    unknown: Collection[str],
    findings: Findings,
    via: tuple[Place, ...],
) -> Scope:
    """The names of an included part, filled by `with` and by the loop; some of what they gave is secret, or unknown."""
    names = dict(declared.items()) if declared is not None else {}
    values = {name: _Given(value, "given to the part", node) for name, (value, node) in given.items() if name in names}
    return _scope(names, declared, values, findings, via, strict=True, secret=secret, unknown=unknown)


def lone_part_scope(declared: Node | None, findings: Findings) -> Scope:
    """The names of a part that is checked alone: what has no value is unknown."""
    names = dict(declared.items()) if declared is not None else {}
    return _scope(names, declared, {}, findings, (), strict=False)


def _scope(
    names: Mapping[str, Node],
    declared: Node | None,
    given: Mapping[str, _Given],
    findings: Findings,
    via: tuple[Place, ...],
    *,
    strict: bool,
    secret: Collection[str] = (),
    unknown: Collection[str] = (),
) -> Scope:
    values: dict[str, Any] = {}
    secret, unknown, empty = set(secret), set(unknown), set()
    for name, node in names.items():
        if name in unknown:
            continue
        facts = node.data
        if isinstance(facts, dict) and facts.get("secret") is True and "default" in facts:
            findings.seal(node.at(["default"]))  # also where another value is given, and where the declaration is wrong
        if not isinstance(facts, dict) or not isinstance(kind := facts.get("type"), str) or kind not in TYPES:
            unknown.add(name)  # the schema's judgement has said why
            continue
        hidden = name in secret or facts.get("secret") is True
        if hidden:
            secret.add(name)
        source = given.get(name)
        if source is None and "default" in facts:
            default = node.at(["default"])
            if default.templated:
                findings.add(
                    "PB304",
                    f"the default of '{name}' holds a template",
                    default.place,
                    "a default is plain data",
                    via=via,
                )
                unknown.add(name)
                continue
            source = _Given(facts["default"], "by default", default)
        if source is None:
            if not strict:
                unknown.add(name)
            elif facts.get("required") is True:
                assert declared is not None
                how = f"give it with --var {name}=…, PLAYBOOK_VAR_{name} or --vars FILE" if not via else f"give it in `with: {{{name}: …}}`"
                findings.add("PB308", f"the variable '{name}' has no value", declared.key_place(name), how, via=via)
                unknown.add(name)
            else:
                empty.add(name)
            continue
        if hidden:
            _seal(source.value, findings)
            if source.node is not None and not source.node.templated:
                findings.seal(source.node)
        value = _judge(name, source, facts, findings, via, hidden)
        if value is _NOT_GIVEN:
            unknown.add(name)
        else:
            values[name] = value
            if hidden:
                _seal(value, findings)
    values.update(dict.fromkeys(unknown))
    return Scope(values, frozenset(secret), frozenset(unknown), frozenset(empty), strict)


def _judge(name: str, given: _Given, facts: Mapping[str, Any], findings: Findings, via: tuple[Place, ...], hidden: bool) -> object:
    """The value as the declared type, or `_NOT_GIVEN` with the reason among the findings."""
    wanted: str = facts["type"]
    try:
        value = _from_text(str(given.value), wanted) if given.text else given.value
    except ValueError:
        value = _NOT_GIVEN
    withheld = given.node is not None and given.node.document.file == given.origin.removeprefix("in ")  # of a file of variables
    shown = "it" if hidden or withheld or isinstance(given.value, (dict, list)) else repr(given.value)[:60]
    if value is _NOT_GIVEN or not is_type(value, wanted):
        message = f"the variable '{name}' is {_article(wanted)}, and {shown} ({given.origin}) is not"
        remedy = "put it in quotes" if wanted == "string" and isinstance(given.value, (int, float)) else ""
        if wanted == "boolean" and not hidden:
            remedy = meant_truth(given.value)
        findings.add("PB309", message, given.place, remedy, via=via)
        return _NOT_GIVEN
    if not _is_plain(value):
        message = f"the variable '{name}' is no plain data ({given.origin})"
        findings.add("PB309", message, given.place, "text is UTF-8, and numbers are finite", via=via)
        return _NOT_GIVEN
    if "enum" in facts and value not in facts["enum"]:
        allowed = ", ".join(map(str, facts["enum"]))
        findings.add(
            "PB309",
            f"the variable '{name}' may not be {shown} ({given.origin})",
            given.place,
            f"use one of {allowed}",
            via=via,
        )
        return _NOT_GIVEN
    return value


def _is_plain(value: object) -> bool:
    """Whether it can be written down: no byte that could not be decoded, no infinite number, nothing but data."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _from_text(text: str, wanted: str) -> object:
    """Text from the command line or the environment as a value; lists and objects are YAML or JSON. Raises `ValueError`."""
    if wanted == "string":
        return text
    scratch = Findings()
    root = parse(text.encode("utf-8", "surrogateescape"), Path("value.json"), "value", scratch)
    if root is None or scratch.failed:
        raise ValueError(text)
    return root.data


def _article(wanted: str) -> str:
    return {"integer": "an integer", "array": "an array", "object": "an object", "null": "null"}.get(wanted, f"a {wanted}")


def _meant(name: str, names: Mapping[str, Node], findings: Findings) -> str:
    return findings.guess(name, names, f"declared are {', '.join(names)}" if names else "the playbook has no variables")


def _seal(value: object, findings: Findings) -> None:
    """Every text and number within a secret is one."""
    if isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            _seal(each, findings)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool) and str(value):
        findings.secrets.add(str(value))
