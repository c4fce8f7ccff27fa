"""Keeping secrets out of everything that a run leaves behind. Pure; imports only `errors`."""

from __future__ import annotations

import base64
import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast
from urllib.parse import quote, quote_plus

from playbook.errors import MASK, printable

T = TypeVar("T")


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
    r"token|secret|passw|authoriz|credential|cookie|jwt|api[-_]?key|signature|(?:^|[-_])(?:ks|key|auth|sig|turn[-_]?user(?:name)?)s?$",
    re.IGNORECASE,
)


def names_secret(name: str) -> bool:
    """Whether what goes by this name (of a field, of a header) is likely to be a secret."""
    return _SECRET_NAME.search(name) is not None


def quoted(text: str, *redact: Callable[[str], str], most: int = 300) -> str:
    """As much of a foreign text as a message may quote: without secrets, in one line, cut between words, printable. In this order, since
    half of a secret, or one whose white space was changed, is one that nobody recognises."""
    for hide in redact:
        text = hide(text)
    text = " ".join(text.split())
    if len(text) > most:
        text = text[: most + 1].rpartition(" ")[0] or text[:most]
    return printable(text)


def _spellings(value: str) -> set[str]:
    """How a value may be written: in both normal forms, and each of those quoted for a URL, escaped for JSON, by Python, for HTML or for
    XML, or in base64."""
    plain = {value, unicodedata.normalize("NFC", value), unicodedata.normalize("NFD", value)}
    found = set(plain)
    for each in filter(None, plain):
        found |= {quote(each, safe=""), quote(each), quote_plus(each), repr(each)[1:-1]}
        found |= {json.dumps(each, ensure_ascii=ascii)[1:-1] for ascii in (True, False)}
        found |= {html.escape(each, quote=quotes) for quotes in (True, False)}
        found |= {html.escape(each).replace("&#x27;", apostrophe) for apostrophe in ("'", "&#39;", "&apos;")}
        found |= _in_base64(each.encode("utf-8", "replace"))
    return found - {""}


def _in_base64(raw: bytes) -> set[str]:
    """What any base64 text has in which these bytes stand, wherever they begin. Of few bytes too little is sure."""
    found = set()
    for before, skipped in ((0, 0), (1, 2), (2, 3)) if len(raw) >= _LEAST_IN_BASE64 else ():
        sure = base64.b64encode(bytes(before) + raw).decode()[skipped : (before + len(raw)) * 8 // 6]
        found |= {sure, sure.translate(_URL_SAFE)}
    return found


def _found_as(form: str) -> str:
    """The pattern of a form, whose white space may have been written in another way."""
    return r"\s+".join(map(re.escape, re.split(r"\s+", form)))


_LEAST_IN_BASE64 = 6
_URL_SAFE = str.maketrans("+/", "-_")


class Redactor:
    """Replaces every registered value by `***`, however it is written (`_spellings`)."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        """From now on, never show this."""
        if value and value not in self._values:
            self._values.add(value)
            self._pattern = None  # it is made when it is needed: there may be many values, and making it takes a while

    def absorb(self, other: Redactor) -> None:
        """From now on, never show what the other hides."""
        for value in tuple(other._values):
            self.add(value)

    def __bool__(self) -> bool:
        """Whether there is anything to hide."""
        return bool(self._values)

    def __call__(self, text: str) -> str:
        """The text, as it may be shown."""
        if not self._values:
            return text
        if self._pattern is None:
            forms = set().union(*map(_spellings, self._values))
            self._pattern = re.compile("|".join(map(_found_as, sorted(forms, key=len, reverse=True))))
        return self._pattern.sub(MASK, text)

    def data(self, value: T) -> T:
        """The same data with every text in it as it may be shown. What is to be encoded (JSON, XML, HTML) is redacted first: afterwards a
        short secret could be a part of the encoding."""
        return cast("T", self._data(value))

    def _data(self, value: Any) -> Any:
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {key: self._data(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
            return type(value)(map(self._data, value))
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{each.name: self._data(getattr(value, each.name)) for each in fields(value) if each.init})
        return value
