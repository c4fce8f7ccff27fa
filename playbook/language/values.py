"""Plain data in templates: how heavy it is, what is in it, and how a template is refused. Imports no Jinja."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from playbook.errors import near_or_all

MAX_WEIGHT = 100_000
"""Characters and entries of one value."""
ENTRY = 20
"""The work of making, reading or comparing an entry, where that of a character is 1 (a unit is some 20 ns)."""
NODE = 50
"""The work of any operation, besides that of going through its values."""

Spend = Callable[[int], None]
"""Is told the work of what is about to be done. Raises when there was too much of it."""


class BadTemplate(Exception):
    """The template is wrong. `near` is the piece of source to point at; `offers` is what could have been meant.

    `number` is which of the scalar's expressions it is, from 1; 0 when that is not known.
    """

    def __init__(self, code: str, message: str, near: str = "", remedy: str = "", offers: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.code, self.message, self.near, self.remedy, self.offers = code, message, near, remedy, tuple(offers)
        self.number = 0


def no_value(name: str) -> BadTemplate:
    """The complaint about a declared variable that has no value."""
    remedy = f"give it one with --var {name}=… or a default, or write {{{{ {name} | default('…') }}}}"
    return BadTemplate("PB302", f"'{name}' has no value", name, remedy)


def no_entry(holder: Any, key: object) -> str:
    """The complaint about an entry that is not there."""
    keys = (each for each in holder if isinstance(each, str)) if isinstance(holder, dict) else ()
    meant = near_or_all(key, keys, "") if isinstance(key, str) and isinstance(holder, dict) else ""
    return f"there is no {key!r} here" + (f"; {meant}" if meant else "")


def entry(holder: Any, key: Any) -> Any:
    """What is under a key, or at a place in a list. Raises `LookupError`. Nothing else of a value can be reached."""
    if not isinstance(holder, (dict, list, tuple, str)):
        raise LookupError(key)
    try:
        return holder[key]
    except TypeError as error:
        raise LookupError(key) from error


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
    if isinstance(value, str):
        return len(value)
    characters, entries = weigh(value, most)
    return characters + ENTRY * entries
