"""The settings of an emulator: a frozen dataclass of the vendor's, in which each is declared once, with the values it can have.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options(options.Options):
        interrupt: Literal["all", "current"] = "all"
        idle_ms: int | None = None

A program gives values, the command line gives texts; either way what does not fit is wrong usage. Imports the errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from playbook.errors import UsageError, near_or_all

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What every emulator has."""

    viewer_after_ms: int | None = None
    """When after its creation a viewer connects by itself; without it, the control page (or a test) connects one."""


def choose(kind: type[T], given: Mapping[str, Any]) -> T:
    """The options with these values. Raises `UsageError`."""
    for name, value in given.items():
        if not _fits(value, hint := _hint(kind, name)):
            raise UsageError(f"the option {name} cannot be {value}", remedy=f"use {_told(hint)}")
    return kind(**given)


def read(kind: type, texts: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Values from what somebody typed: JSON where that is what an option takes, else the text as it stands. Raises `UsageError`."""
    values: dict[str, Any] = {}
    for name, text in texts:
        hint = _hint(kind, name)
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        values[name] = value if _fits(value, hint) else text
    return values


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _hint(kind: type, name: str) -> Any:
    hints = _hints(kind)
    if name not in hints:
        raise UsageError(f"the emulator has no option '{name}'", remedy=near_or_all(name, hints, f"it has {', '.join(hints)}"))
    return hints[name]


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return any(value == each and type(value) is type(each) for each in get_args(hint))
    return type(value) is hint  # true is no number


def _told(hint: Any) -> str:
    """What an option may be, in words."""
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_told(each) for each in get_args(hint))
    return {int: "a number", str: "a text", bool: "true or false", NoneType: "null"}[hint]
