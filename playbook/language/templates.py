"""A scalar taken apart: text, names, expressions.

Most templates of a playbook are a name in a sentence, and many lines hold the same expression. So a scalar is cut where it is certain
what Jinja would see; a name, or an entry of one, needs no Jinja at all, and an expression is compiled once. Whatever is not certain is
left to Jinja as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from playbook.language.scope import Scope
from playbook.language.values import NODE, BadTemplate, Spend, entry, no_entry, no_value

if TYPE_CHECKING:
    from playbook.language.expressions import Expression

MAX_TEMPLATE = 20_000
"""Characters of a scalar that holds a template."""
PARSING = 100
"""The work of a character that Jinja parses."""
COMPILING = 4_000
"""The work of an expression that Jinja compiles."""
PIECE = 100
"""The work of a piece of a scalar."""
WORK = 40_000_000
"""The work of one compilation: about a second, a few where most of it is compiling."""


@dataclass(slots=True)
class Entry:
    """A name, or what is under some keys of it: `visitor`, `room.title`, `rooms[0]`."""

    name: str
    keys: tuple[str | int, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        return frozenset((self.name,))

    def compute(self, scope: Scope, spend: Spend) -> Any:
        """Its value. Raises `BadTemplate`."""
        spend(NODE * len(self.keys))
        if self.name in scope.empty:
            raise no_value(self.name)
        value = scope.values[self.name]
        for key in self.keys:
            try:
                value = entry(value, key)
            except LookupError as error:
                raise BadTemplate("PB302", no_entry(value, key), "{{") from error
        return value


Piece: TypeAlias = "Entry | Expression"


@dataclass(slots=True)
class Template:
    """The pieces in order. `whole`: it is one expression and nothing else, and so keeps its type."""

    pieces: tuple[str | Piece, ...]
    names: frozenset[str]
    whole: bool


class Exhausted(Exception):
    """The budget is spent."""


@dataclass(slots=True)
class Budget:
    """How much one compilation may still do: steps to make, and work on templates and on what loops multiply.

    Work is counted, not timed, so that a playbook is judged alike on every machine: what is gone through, computed and made, in
    characters (`values.ENTRY` tells what else weighs how much). What was parsed once is kept.
    """

    steps: int = 100_000
    work: int = WORK
    _templates: dict[str, Template | BadTemplate] = field(default_factory=dict)
    _expressions: dict[str, tuple[str | Piece, ...]] = field(default_factory=dict)

    def spend(self, work: int) -> None:
        """Take work off. Raises `Exhausted`."""
        self.work -= work
        if self.work < 0:
            raise Exhausted

    def take_apart(self, text: str) -> Template:
        """The pieces of a scalar. Raises `BadTemplate`."""
        found = self._templates.get(text)
        if found is None:
            try:
                found = take_apart(text, self._parts)
            except BadTemplate as bad:
                found = bad
            self._templates[text] = found
        if isinstance(found, BadTemplate):
            raise found.with_traceback(None)
        self.spend(PIECE * len(found.pieces))
        return found

    def _parts(self, text: str) -> tuple[str | Piece, ...]:
        found = self._expressions.get(text)
        if found is None:
            simple = _entry(text)
            if simple is None:
                self.spend(COMPILING + PARSING * len(text))
            found = self._expressions[text] = parse(text) if simple is None else (simple,)
        return found


_SIMPLE = re.compile(r"""\{\{(?![-+])([^{}'"%#]*)(?<![-+])\}\}""")
"""An expression without quotes, braces and whitespace control: there is only one way to read it."""
EXPRESSION = re.compile(r"\{\{.*?(?:\}\}|\Z)", re.DOTALL)
"""One expression, as far as a person sees it."""
_ENTRY = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)((?:\.[A-Za-z][A-Za-z0-9_]*|\[[0-9]{1,9}\])*)\s*\}\}")
_KEY = re.compile(r"\.([A-Za-z][A-Za-z0-9_]*)|\[([0-9]+)\]")
_WORDS = frozenset(("and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None"))
"""Names that are none, in Jinja."""


def parse(text: str) -> tuple[str | Piece, ...]:
    """The pieces of a scalar, as Jinja sees them. Raises `BadTemplate`."""
    from playbook.language.expressions import parse  # which imports Jinja

    return parse(text)


def _entry(expression: str) -> Entry | None:
    """The name, or entry of one, that an expression in its braces is; None if it is something else."""
    name = _ENTRY.fullmatch(expression)
    if name is None or name[1] in _WORDS:
        return None
    keys = (key or int(place) for key, place in _KEY.findall(name[2])) if name[2] else ()
    return Entry(name[1], tuple(keys))


def take_apart(text: str, parts: Callable[[str], tuple[str | Piece, ...]]) -> Template:
    """The pieces of a scalar; `parts` gives those of an expression, or of text that is not certain. Raises `BadTemplate`."""
    if len(text) > MAX_TEMPLATE:
        raise BadTemplate("PB307", f"a template of more than {MAX_TEMPLATE:,} characters")
    pieces: list[str | Piece] = []
    for number, part in enumerate(_SIMPLE.split(text)):
        if number % 2:
            try:
                pieces += parts("{{" + part + "}}")
            except BadTemplate as bad:
                bad.number = number // 2 + 1
                raise
        elif "{" in part or "}" in part or "\r" in part:
            try:
                pieces = list(parts(text))
            except BadTemplate as bad:
                bad.number = _wrong_one(text, parts)
                raise
            break
        elif part:
            pieces.append(part)
    names = frozenset[str]().union(*(piece.names for piece in pieces if not isinstance(piece, str)))
    return Template(tuple(pieces), names, len(pieces) == 1 and not isinstance(pieces[0], str))


def _wrong_one(text: str, parts: Callable[[str], object]) -> int:
    """Which expression of a scalar is wrong by itself, from 1; 0 if none is."""
    for number, expression in enumerate(EXPRESSION.finditer(text), 1):
        try:
            parts(expression[0])
        except BadTemplate:
            return number
    return 0
