"""A scalar taken apart: text, names, expressions.

Most templates of a playbook are a name in a sentence, and many lines hold the same expression. So a scalar is cut where it is certain what
Jinja would see; a plain name needs no Jinja at all, and an expression is parsed once. Whatever is not certain is left to Jinja as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

MAX_TEMPLATE = 20_000
"""Characters of a scalar that holds a template."""
MAX_WEIGHT = 100_000
"""Characters and entries of one value."""
ENTRY = 20
"""The work of making, reading or comparing an entry, where that of a character is 1 (a unit is some 20 ns)."""
PARSING = 100
"""The same of a character that Jinja parses."""
PIECE = 100
"""The same of a piece of a scalar."""


def weigh(value: Any, most: int = MAX_WEIGHT) -> tuple[int, int]:
    """Characters and entries of a value, shared ones as often as they appear. Stops counting when there are more than `most`."""
    if isinstance(value, str):
        return len(value), 0
    if isinstance(value, dict):
        value = [each for pair in value.items() for each in pair]
    if not isinstance(value, (list, tuple)):
        return 0, 1
    characters, entries = 0, 1
    for each in value:
        if isinstance(each, str):
            characters += len(each)
            entries += 1
        else:
            more = weigh(each, most - characters - entries)
            characters, entries = characters + more[0], entries + more[1]
        if characters + entries > most:
            break
    return characters, entries


def work_of(value: Any, most: int = MAX_WEIGHT) -> int:
    """The work of going through a value once."""
    characters, entries = weigh(value, most)
    return characters + ENTRY * entries


class Refused(Exception):
    """The template is wrong. `near` is the piece of source to point at; `offers` is what could have been meant.

    `number` is which of the scalar's expressions it is, from 1; 0 when that is not known.
    """

    def __init__(self, code: str, message: str, near: str = "", remedy: str = "", offers: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.near, self.remedy, self.offers = code, message, near, remedy, tuple(offers)
        self.number = 0


def no_value(name: str) -> Refused:
    """The complaint about a declared variable that nobody gave a value."""
    remedy = f"give it one with --var {name}=… or a default, or write {{{{ {name} | default('…') }}}}"
    return Refused("PB302", f"'{name}' has no value", name, remedy)


@dataclass(frozen=True, slots=True)
class Piece:
    """An expression and the names it uses. `node` is Jinja's, or None when the expression is that one name."""

    names: frozenset[str]
    node: Any = None


@dataclass(frozen=True, slots=True)
class Template:
    """The pieces in order. `whole`: it is one expression and nothing else, and so keeps its type."""

    pieces: tuple[str | Piece, ...]
    names: frozenset[str]
    whole: bool


_SIMPLE = re.compile(r"""\{\{(?![-+])([^{}'"%#]*)(?<![-+])\}\}""")
"""An expression without quotes, braces and whitespace control: there is only one way to read it."""
EXPRESSION = re.compile(r"\{\{.*?(?:\}\}|\Z)", re.DOTALL)
"""One expression, as far as a person sees it."""
_NAME = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*")
_WORDS = frozenset(("and", "or", "not", "in", "is", "if", "else", "true", "false", "none", "True", "False", "None"))
"""Names that are none, in Jinja."""


def take_apart(text: str, spend: Callable[[int], None] = lambda _: None) -> Template:
    """The pieces of a scalar. `spend` is told the work of parsing. Raises `Refused`."""
    if len(text) > MAX_TEMPLATE:
        raise Refused("PB307", f"a template of more than {MAX_TEMPLATE:,} characters")
    pieces: list[str | Piece] = []
    for number, part in enumerate(_SIMPLE.split(text)):
        if number % 2:
            name = _NAME.fullmatch(part)
            if name is not None and name[1] not in _WORDS:
                pieces.append(Piece(frozenset((name[1],))))
            else:
                spend(PARSING * len(part))
                try:
                    pieces += _parse("{{" + part + "}}")
                except Refused as refused:
                    refused.number = number // 2 + 1
                    raise
        elif "{" in part or "}" in part or "\r" in part:
            spend(PARSING * len(text))
            try:
                pieces = list(_parse(text))
            except Refused as refused:
                spend(PARSING * len(text))
                refused.number = _wrong_one(text)
                raise
            break
        elif part:
            pieces.append(part)
    names = frozenset[str]().union(*(piece.names for piece in pieces if isinstance(piece, Piece)))
    return Template(tuple(pieces), names, len(pieces) == 1 and isinstance(pieces[0], Piece))


def _wrong_one(text: str) -> int:
    """Which expression of a scalar is wrong by itself, from 1; 0 if none is."""
    for number, expression in enumerate(EXPRESSION.finditer(text), 1):
        try:
            _parse(expression[0])
        except Refused:
            return number
    return 0


def _parse(text: str) -> tuple[str | Piece, ...]:
    from playbook.language.evaluate import parse

    return parse(text)
