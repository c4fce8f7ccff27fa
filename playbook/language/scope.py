"""The names that a file's templates may use, and what is known about them.

A *secret* name taints every expression that uses it, and an *unknown* one (a part's variable while the part is checked alone) makes its
result a thing that nothing can be said about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

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
