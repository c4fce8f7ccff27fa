"""Keeping secrets out of everything that a run leaves behind. Pure; imports only `errors`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from playbook.errors import MASK


def agrees(shown: str, text: str) -> bool:
    """Whether a text that was written down is this one, where a `***` in it may stand for anything.

    Anybody may have written it, so this is no pattern: its parts are searched for, one after the other, in one pass over the text.
    """
    if shown == text:
        return True
    head, *parts = shown.split(MASK)
    if not parts:
        return False
    *parts, tail = parts
    at, end = len(head), len(text) - len(tail)
    if at > end or not (text.startswith(head) and text.endswith(tail)):
        return False
    for part in parts:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


_SECRET_NAME = re.compile(
    r"token|secret|passw|authoriz|credential|cookie|jwt|api[-_]?key|(?:^|[-_])(?:ks|key|auth|signature)s?$", re.IGNORECASE
)


def names_secret(name: str) -> bool:
    """Whether what goes by this name (of a field, of a header) is likely to be a secret."""
    return _SECRET_NAME.search(name) is not None


class Redactor:
    """Replaces every registered value by `***`, also where it stands quoted for a URL, or escaped for JSON or by Python."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        """From now on, never show this."""
        if value and value not in self._forms:
            self._forms |= {value, quote(value, safe=""), quote_plus(value), repr(value)[1:-1]}
            self._forms |= {json.dumps(value, ensure_ascii=ascii)[1:-1] for ascii in (True, False)}
            self._pattern = None  # it is made when it is needed: there may be many values, and making it takes a while

    def absorb(self, other: Redactor) -> None:
        """From now on, never show what the other hides."""
        for form in other._forms:
            self.add(form)

    def __bool__(self) -> bool:
        """Whether there is anything to hide."""
        return bool(self._forms)

    def __call__(self, text: str) -> str:
        """The text, as it may be shown."""
        if not self._forms:
            return text
        if self._pattern is None:
            self._pattern = re.compile("|".join(map(re.escape, sorted(self._forms, key=len, reverse=True))))
        return self._pattern.sub(MASK, text)
