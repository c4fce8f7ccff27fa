"""The lines of a playbook as a table: what is said, by the ids of its steps; and a table's texts in their place.

A line is known by the id of its step, without what loops have added (`include-4/say-1`); a piece of text of a line in chunks by its number
behind it (`greeting#2`). Text stands in a table as it is written, with its templates, beside the hash of the text that it is, or is a
translation of.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playbook.errors import Place
from playbook.formats.findings import Findings
from playbook.formats.source import MAX_BYTES, Node, looks_templated, unreadable
from playbook.formats.table import parse_table
from playbook.language.cues import Cue, cues
from playbook.language.templates import Budget
from playbook.language.values import BadTemplate
from playbook.model import Plan, Say, Step

COLUMNS = ("id", "text", "voice", "start_ms", "length_ms", "characters", "source_sha256")
_ROUND = re.compile(r"\.[0-9]+(?=/|$)")
"""What a loop adds to an id."""


def line_id(step: str) -> str:
    """The id of a step's line in tables."""
    return _ROUND.sub("", step)


def unnamed(plan: Plan) -> list[str]:
    """The lines that are called by their place in the file, and so by another name when a step is put before them."""
    spoken = dict.fromkeys(line_id(step.id) for step in plan.steps if step.speaks)
    return [name for name in spoken if re.search(r"(?:^|/)(?:say|audio-echo)-[0-9]+$", name)]


def sha256_of(text: str) -> str:
    """The hash of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(slots=True)
class Lines:
    """What is said, as it is written, by the ids of lines; and the rows of a table that take its place, if there is one."""

    findings: Findings
    budget: Budget
    written: dict[str, Node] = field(default_factory=dict)
    rows: dict[str, dict[str, Node]] | None = None
    _place: Place | None = None

    def read(self, path: Path, file: str, at: Place | None) -> None:
        """Read a table. `at` is where a playbook names it."""
        try:
            with path.open("rb") as stream:
                raw = stream.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            remedy = "the path counts from the playbook" if at is not None else ""
            self.findings.add("PB440", f"the table of lines {file} cannot be read: {unreadable(error)}", at, remedy)
            return
        table = parse_table(raw, path, file, self.findings, ("id", "text"))
        if table is None:
            return
        self._place, self.rows = table.place, {}
        for row in table.rows:
            name = row["id"].data.strip()
            if name in self.rows:
                message = f"the table has the line '{name}' twice"
                self.findings.add("PB441", message, row["id"].place, f"the first is on line {self.rows[name]['id'].place.line}")
            else:
                self.rows[name] = row

    def said(self, step: str, node: Node) -> Node:
        """A say step as it is to be rendered: with the table's text, where there is one."""
        say = node.at(["say"])
        name, chunks = line_id(step), say.get("chunks")
        if chunks is not None:
            numbers = itertools.count(1)
            pieces = [self._text(f"{name}#{next(numbers)}", piece) if isinstance(piece.data, str) else piece for piece in chunks.entries()]
            said = _with(say, {"chunks": _list(chunks, pieces)})
        elif (long := say.get("text")) is not None:
            said = _with(say, {"text": self._text(name, long)})
        else:
            said = self._text(name, say)
        return node if self.rows is None else _with(node, {"say": said})

    def _text(self, name: str, text: Node) -> Node:
        first = name not in self.written
        self.written.setdefault(name, text)
        row = None if self.rows is None else self.rows.get(name)
        if row is None or not isinstance(text.data, str):
            return text
        if first:
            self._check(name, text, row)
        found = row["text"]
        found.templated = looks_templated(found.data)
        return found if found.data.strip() else text

    def _check(self, name: str, text: Node, row: dict[str, Node]) -> None:
        """What is wrong with a translation."""
        translated, source = row["text"], row.get("source_sha256")
        if not translated.data.strip():
            self.findings.add("PB443", f"the line '{name}' has no text", row["id"].place, "write what is said")
            return
        lost = sorted(self._names(text.data) - self._names(translated.data))
        if lost:
            listed = ", ".join(f"{{{{ {each} }}}}" for each in lost)
            self.findings.add("PB444", f"the text of '{name}' has lost {listed}", translated.place, "the source text has it")
        if source is not None and source.data.strip() not in ("", sha256_of(text.data)):
            message = f"the source text of '{name}' has changed since it was translated"
            remedy = f"the source is now: {text.data}"
            self.findings.add("PB445", message, translated.place, remedy, severity="warning")

    def _names(self, text: str) -> frozenset[str]:
        try:
            return self.budget.take_apart(text).names
        except BadTemplate:  # which is told when it is rendered
            return frozenset()

    def check_whole(self) -> None:
        """What is wrong with a table as a whole, when all lines are known."""
        if self.rows is None:
            return
        for name in self.written:
            if name not in self.rows:
                self.findings.add("PB443", f"the table has no line '{name}'", self._place, "add a row for it")
        for name, row in self.rows.items():
            if name not in self.written:
                remedy = self.findings.guess(name, self.written, "is it another playbook's?")
                self.findings.add("PB442", f"the playbook has no line '{name}'", row["id"].place, remedy)


def _with(node: Node, changed: dict[str, Node]) -> Node:
    """A mapping with other nodes under some of its keys."""
    made = Node(node.document, node.start, node.end, {})
    children: dict[str, Node] = {**dict(node.items()), **changed}
    made.children, made.keys = children, node.keys
    made.data = {key: child.data for key, child in children.items()}
    made.templated = any(child.templated for child in children.values())
    return made


def _list(node: Node, entries: list[Node]) -> Node:
    made = Node(node.document, node.start, node.end, [entry.data for entry in entries])
    made.children = entries
    made.templated = any(entry.templated for entry in entries)
    return made


def rows_of(lines: Lines, plan: Plan) -> list[dict[str, Any]]:
    """What is said, a row for each line: texts as they are written, and when the plan says them for the first time."""
    first: dict[str, tuple[Step, Cue]] = {}
    for step, cue in zip(plan.steps, cues(plan), strict=True):
        first.setdefault(line_id(step.id), (step, cue))
    rows = []
    for name, node in lines.written.items():
        step, cue = first[name.partition("#")[0]]
        voice = step.action.voice if isinstance(step.action, Say) else None
        facts = (name, node.data, voice or "", cue.heard_ms, step.length.ms, len(node.data), sha256_of(node.data))
        rows.append(dict(zip(COLUMNS, facts, strict=True)))
    return rows
