"""Templates to values, scalar by scalar.

`Renderer.render` gives a node's plain data; which of its scalars come from a secret, and how they may be shown, it notes in `shown`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from playbook.errors import MASK, Place
from playbook.formats.findings import Findings
from playbook.formats.source import Node
from playbook.language.scope import MAX_OFFERED, Scope
from playbook.language.templates import EXPRESSION, Budget, Exhausted, Piece
from playbook.language.values import MAX_WEIGHT, BadTemplate, work_of

COMPLAINT = 1_000
"""The work of a problem, also of one that is known already."""


class Abandoned(Exception):
    """Going on is pointless; the reason is among the findings."""


@dataclass(slots=True)
class Renderer:
    """Renders nodes within one scope. `quiet` keeps problems that depend on values to itself (for steps that are skipped).

    `broken`: a template could not be computed; the reason is among the findings, or was not wanted. `unknown`: one depends on an unknown
    name, and stands in the data as it was written. In both cases rendering has gone on, so that all problems come out.
    """

    scope: Scope
    findings: Findings
    budget: Budget
    via: tuple[Place, ...] = ()
    quiet: bool = False
    shown: dict[Node, str] = field(default_factory=dict)
    broken: bool = False
    unknown: bool = False

    def render(self, node: Node) -> Any:
        """The node's data with every template computed. Raises `Abandoned` when the budget is spent."""
        if not node.templated:
            return node.data
        if isinstance(node.children, dict):
            return {key: self.render(child) for key, child in node.items()}
        if isinstance(node.children, list):
            return [self.render(child) for child in node.children]
        return self._scalar(node)

    @property
    def complete(self) -> bool:
        """Whether everything that was rendered has its value."""
        return not self.broken and not self.unknown

    def tainted(self, node: Node) -> bool:
        """Whether anything rendered within a node came from a secret."""
        if not self.shown:
            return False
        if node in self.shown:
            return True
        return any(self.tainted(child) for _, child in node.items()) or any(map(self.tainted, node.entries()))

    def _scalar(self, node: Node) -> Any:
        """The value of a scalar with a template in it."""
        try:
            template = self.budget.take_apart(node.data)
            if not self._all_known(node, template.names):
                return node.data
            values = self._values(template.pieces)
            if not self.scope.secret.isdisjoint(template.names):
                self._note_shown(node, template.pieces, values)
            return values[0] if template.whole else self._joined(values)
        except BadTemplate as bad:
            self._report(node, bad)
            self.broken = True
        except Exhausted as exhausted:
            message = "the templates of this playbook make too much work, all together"
            remedy = "compute less, or less often: do loops multiply it?"
            self.findings.add("PB307", message, self._locate(node, "{{"), remedy, via=self.via)
            raise Abandoned from exhausted
        return None

    def _values(self, pieces: Sequence[str | Piece]) -> list[Any]:
        values: list[Any] = []
        number = 0
        for piece in pieces:
            if isinstance(piece, str):
                values.append(piece)
                continue
            number += 1
            try:
                values.append(piece.compute(self.scope, self.budget.spend))
            except BadTemplate as bad:
                bad.number = number
                empty = bad.near in self.scope.empty  # a name without a value, which shows none
                if self._is_secret(piece) and not empty and bad.code in ("PB302", "PB306"):  # the reason may quote the value
                    bad.message = "the template cannot be computed (the reason would show a secret)"
                    bad.near, bad.remedy, bad.offers = "{{", "", ()
                raise
        return values

    def _is_secret(self, piece: str | Piece) -> bool:
        return not isinstance(piece, str) and not self.scope.secret.isdisjoint(piece.names)

    def _note_shown(self, node: Node, pieces: Sequence[str | Piece], values: Sequence[Any]) -> None:
        """Remember how a scalar with a secret in it may be shown, and what must not be."""
        shown = []
        for piece, value in zip(pieces, values, strict=True):
            secret = self._is_secret(piece)
            if secret:
                self._seal(value)
            shown.append(MASK if secret else str(value))
        self.shown[node] = "".join(shown)

    def _joined(self, values: Sequence[Any]) -> str:
        self.budget.spend(sum(map(work_of, values)))
        text = "".join(map(str, values))
        if len(text) > MAX_WEIGHT:
            raise BadTemplate("PB307", f"a template makes more than {MAX_WEIGHT:,} characters", "{{")
        return text

    def _all_known(self, node: Node, names: frozenset[str]) -> bool:
        """Whether every name has a value. A name that is undefined is a mistake, but in a part on its own a loop may still bring it."""
        scope = self.scope
        if names <= scope.values.keys():
            wrong = []
        else:
            wrong = [name for name in sorted(names) if name not in scope.values and name not in scope.empty]
        if wrong:
            self.budget.spend(COMPLAINT * len(wrong))
            known = sorted(islice(chain(scope.values, scope.empty), MAX_OFFERED))
            for name in wrong:
                if not self.findings.full:
                    self._undefined(node, name, known)
            self.broken = self.broken or scope.strict
        unknown = bool(wrong) or not names.isdisjoint(scope.unknown)
        self.unknown = self.unknown or unknown
        return not unknown

    def _undefined(self, node: Node, name: str, known: list[str]) -> None:
        """Note a name that is not declared."""
        scope, place = self.scope, self._locate(node, name)
        if self.findings.has("PB302", f"'{name}' is undefined", place):
            return
        near = self.findings.near(name, known)
        if scope.unnamed and (not near or near in scope.unnamed):  # `room`, where the list is {{ rooms }}
            near, remedy = "", f"add `as: {name}`: without it the entry of the list is called item"
        else:
            declared = f"declared are {', '.join(known)}" if known else "declare it under vars"
            remedy = f"did you mean '{near}'?" if near else declared
        if scope.strict:
            self.findings.add("PB302", f"'{name}' is undefined", place, remedy, via=self.via)
        elif name != "item":
            if not near and not scope.unnamed:
                remedy = f"declare it under vars, unless an include brings it with `as: {name}`"
            message = f"'{name}' is not declared in this part"
            self.findings.add("PB302", message, place, remedy, via=self.via, severity="warning")

    def _report(self, node: Node, bad: BadTemplate) -> None:
        """Note what is wrong with an expression."""
        self.budget.work -= COMPLAINT  # there is a next time to find out that it is spent
        if self.quiet and bad.code in ("PB302", "PB306"):
            return
        place = self._locate(node, bad.near, bad.number)
        if bad.offers and self.findings.has(bad.code, bad.message, place):
            return
        hint = self.findings.guess(bad.near, bad.offers, bad.remedy) if bad.offers else bad.remedy
        self.findings.add(bad.code, bad.message, place, hint, via=self.via)

    @staticmethod
    def _locate(node: Node, word: str, number: int = 0) -> Place:
        """Where a word of a template stands, as far as the text as written shows it: in the expression of that number, or in any."""
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
