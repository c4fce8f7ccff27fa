"""Templates to values, scalar by scalar.

A `Scope` says which names there are, what they are worth, and what is known about them: a *secret* name taints every expression that
uses it, and an *unknown* one (a part's variable while the part is checked alone) makes its result a thing that nothing can be said about.
`Renderer.render` gives a node's plain data; which of its scalars are tainted, and how they may be shown, it notes in `shown`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from playbook.errors import MASK, Place
from playbook.formats.findings import Findings
from playbook.formats.source import Node
from playbook.language.templates import EXPRESSION, MAX_WEIGHT, PIECE, Piece, Refused, Template, no_value, take_apart, work_of

MAX_OFFERED = 200
"""Among how many names the one is looked for that could have been meant: the search is slow, and there may be many mistakes."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that a file's templates may use. `empty` are declared and have no value; `strict` is off while a part is checked alone.

    `unnamed` is the list of a loop that gives its entries no name: they are called `item`.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    secret: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()
    strict: bool = True
    unnamed: str = ""

    def name_like(self, word: str) -> str:
        """The name that is this word, or is it but for capitals; empty if there is none."""
        if word in self.values or word in self.empty:
            return word
        lowered = word.lower()
        return next((name for name in islice(chain(self.values, self.empty), MAX_OFFERED) if name.lower() == lowered), "")

    def bind(self, name: str, value: Any, *, secret: bool = False, unknown: bool = False) -> Scope:
        """The same with one more name: a loop's."""

        def adjusted(names: frozenset[str], member: bool) -> frozenset[str]:
            return names | {name} if member else names - {name} if name in names else names

        return replace(
            self,
            values={**self.values, name: value},
            secret=adjusted(self.secret, secret),
            unknown=adjusted(self.unknown, unknown),
            empty=adjusted(self.empty, False),
        )


class Abandoned(Exception):
    """Going on is pointless; the reason is among the findings."""


WORK = 40_000_000
"""Of one compilation, in characters: about a second."""
COMPLAINT = 1_000
"""The work of a problem, also of one that is known already."""


@dataclass(slots=True)
class Budget:
    """How much one compilation may still do: steps to make, and work on templates and on what loops multiply.

    Work is counted, not timed, so that a playbook is judged alike on every machine: what is gone through, computed and made, in
    characters (`templates.ENTRY` tells what else weighs how much).
    """

    steps: int = 100_000
    work: int = WORK
    _templates: dict[str, Template | Refused] = field(default_factory=dict)

    def spend(self, work: int) -> None:
        """Take work off. Raises `Exhausted`."""
        self.work -= work
        if self.work < 0:
            raise Exhausted

    def take_apart(self, text: str) -> Template:
        """The pieces of a scalar, each scalar once. Raises `Refused`."""
        found = self._templates.get(text)
        if found is None:
            try:
                found = take_apart(text, self.spend)
            except Refused as refused:
                found = refused
            self._templates[text] = found
        if isinstance(found, Refused):
            raise found.with_traceback(None)
        self.spend(PIECE * len(found.pieces))
        return found


class Exhausted(Exception):
    """The budget is spent."""


class Broken(Exception):
    """A template could not be rendered; the problem is among the findings (or nobody wanted to know)."""


@dataclass(slots=True)
class Renderer:
    """Renders nodes within one scope. `quiet` keeps problems that depend on values to itself (for steps that are skipped)."""

    scope: Scope
    findings: Findings
    budget: Budget
    via: tuple[Place, ...] = ()
    quiet: bool = False
    shown: dict[Node, str] = field(default_factory=dict)
    unknown: bool = False

    def render(self, node: Node) -> Any:
        """The node's data with every template computed. Raises `Broken` when one of them cannot be, after having looked at all."""
        if not node.templated:
            return node.data
        if isinstance(node.data, str):
            return self._scalar(node)
        data: Any = {} if isinstance(node.children, dict) else []
        broken = False
        for key, child in node.items():
            try:
                data[key] = self.render(child)
            except Broken:
                broken = True
        for child in node.entries():
            try:
                data.append(self.render(child))
            except Broken:
                broken = True
        if broken:
            raise Broken
        return data

    def tainted(self, node: Node) -> bool:
        """Whether anything rendered within a node came from a secret."""
        if not self.shown:
            return False
        if node in self.shown:
            return True
        return any(self.tainted(child) for _, child in node.items()) or any(self.tainted(child) for child in node.entries())

    def _scalar(self, node: Node) -> Any:
        scope, budget = self.scope, self.budget
        number = 0  # of the expression that is computed
        try:
            template = budget.take_apart(node.data)
            if not self._know(node, template.names) or template.names & scope.unknown:
                self.unknown = True
                return node.data
            values: list[Any] = []
            shown: list[str] = []
            for piece in template.pieces:
                if isinstance(piece, str):
                    values.append(piece)
                    shown.append(piece)
                    continue
                number += 1
                secret = not scope.secret.isdisjoint(piece.names)
                try:
                    value = self._compute(piece)
                except Refused as refused:
                    empty = refused.near in scope.empty  # a name without a value, which shows none
                    if secret and not empty and refused.code in ("PB302", "PB306"):  # the reason may quote the value
                        raise Refused(refused.code, "the template cannot be computed (the reason would show a secret)", "{{") from None
                    raise
                if secret:
                    self._seal(value)
                values.append(value)
                shown.append(MASK if secret else value if isinstance(value, str) else str(value))
            if not scope.secret.isdisjoint(template.names):
                self.shown[node] = "".join(shown)
            if template.whole:
                return values[0]
            budget.spend(sum(map(work_of, values)))
            text = "".join(value if isinstance(value, str) else str(value) for value in values)
            if len(text) > MAX_WEIGHT:
                raise Refused("PB307", f"a template makes more than {MAX_WEIGHT:,} characters", "{{")
            return text
        except Refused as refused:
            self._report(node, refused, refused.number or number)
            raise Broken from refused
        except Exhausted as exhausted:
            message = "the templates of this playbook make too much work, all together"
            self.findings.add(
                "PB307", message, self._locate(node, "{{"), "compute less, or less often: do loops multiply it?", via=self.via
            )
            raise Abandoned from exhausted

    def _compute(self, piece: Piece) -> Any:
        if piece.node is None:
            (name,) = piece.names
            if name in self.scope.empty:
                raise no_value(name)
            return self.scope.values[name]
        from playbook.language.evaluate import compute

        return compute(piece.node, self._value, self.budget.spend)

    def _value(self, name: str) -> Any:
        from playbook.language.evaluate import missing

        return missing(name) if name in self.scope.empty else self.scope.values[name]

    def _know(self, node: Node, names: frozenset[str]) -> bool:
        """Whether every name is declared. Raises `Broken` where that is a mistake; in a part on its own a loop may still bring it."""
        scope = self.scope
        wrong = [name for name in sorted(names) if name not in scope.values and name not in scope.empty]
        if wrong:
            self.budget.spend(COMPLAINT * len(wrong))
            if self.findings.full:
                raise Broken
        known = sorted(islice(chain(scope.values, scope.empty), MAX_OFFERED)) if wrong else []
        for name in wrong:
            place = self._locate(node, name)
            if self.findings.has("PB302", f"'{name}' is undefined", place):
                continue
            near = self.findings.near(name, known)
            if scope.unnamed and (not near or near in scope.unnamed):  # `room`, where the list is {{ rooms }}
                near, remedy = "", f"add `as: {name}`: without it the entry of the list is called item"
            else:
                remedy = f"did you mean '{near}'?" if near else f"declared are {', '.join(known)}" if known else "declare it under vars"
            if scope.strict:
                self.findings.add("PB302", f"'{name}' is undefined", place, remedy, via=self.via)
            elif name != "item":
                if not near and not scope.unnamed:
                    remedy = f"declare it under vars, unless an include brings it with `as: {name}`"
                self.findings.add("PB302", f"'{name}' is not declared in this part", place, remedy, via=self.via, severity="warning")
        if wrong and scope.strict:
            raise Broken
        return not wrong

    def _report(self, node: Node, refused: Refused, number: int) -> None:
        """Note what is wrong with the expression of that number, from 1 (0: nobody knows which)."""
        self.budget.work -= COMPLAINT  # there is a next time to find out that it is spent
        if self.quiet and refused.code in ("PB302", "PB306"):
            return
        place = self._locate(node, refused.near, number)
        if refused.offers and self.findings.has(refused.code, refused.message, place):
            return
        hint = self.findings.guess(refused.near, refused.offers, refused.remedy) if refused.offers else refused.remedy
        self.findings.add(refused.code, refused.message, place, hint, via=self.via)

    @staticmethod
    def _locate(node: Node, word: str, number: int = 0) -> Place:
        """Where a word of a template stands, so far as the text as written still shows it: in the expression of that number, or in any."""
        raw = node.raw
        spans = [match.span() for match in EXPRESSION.finditer(raw)]
        exact = re.compile(rf"(?<![\w.'\"]){re.escape(word)}(?!\w)" if word.isidentifier() else re.escape(word))
        tried = [*spans[number - 1 : number], *spans, (0, len(raw))] if number else [*spans, (0, len(raw))]
        match = next((match for span in tried if (match := exact.search(raw, *span)) is not None), None)
        if match is None or not word:
            found = raw.find(word) if word else -1
            start, end = (found, found + len(word)) if found >= 0 else (0, len(raw))
        else:
            start, end = match.span()
        if word == "{{":
            closing = raw.find("}}", end)
            end = closing + 2 if closing >= 0 else end
        return node.document.place(node.start + start, node.start + end)

    def _seal(self, value: Any) -> None:
        """Remember what an expression made of a secret, unless it is too short to be one."""
        if isinstance(value, str) and len(value) >= 4:
            self.findings.secrets.add(value)
        elif isinstance(value, (list, tuple, dict)):
            for each in value.values() if isinstance(value, dict) else value:
                self._seal(each)
