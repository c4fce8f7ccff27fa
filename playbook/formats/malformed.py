"""Why YAML cannot be read on, in an author's words: what the parser met, where it began, and what was probably meant. Imports nothing."""

from __future__ import annotations

import re
from typing import Any

_NO_SPACE = re.compile(r"[A-Za-z][\w-]*:(?=[^\s/:])")
"""A key and its colon, and no space behind it."""
_NO_SPACE_IN_LINE = re.compile(r"^[ \t]*(?:-[ \t]+)?(" + _NO_SPACE.pattern + ")", re.MULTILINE)
_SWALLOWED = re.compile(r"^([ ]*)(?:-[ ]|[A-Za-z][\w-]*:[ \r\n])", re.MULTILINE)
"""A step or a key, and how far it is indented."""
_INDENTED = re.compile(r"[ ]*(?:-[ ]+)*")
COLON = "a space must follow the colon"
_INDICATORS = frozenset("@`%&*!|>")
"""What YAML keeps for itself at the beginning of a value."""
_CLOSING = frozenset("]}\"'")
_APOSTROPHE = re.compile(r"'[^']*\w'\w$")
"""A line up to where YAML gives up, when an apostrophe has closed single quotes in the middle of a word."""
_INNER = {
    '"': 'put the text in single quotes, or write \\" within it',
    "'": "put the text in double quotes, or write the quote twice within it",
}
MAX_DEPTH = 64
TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"
TEMPLATE_QUOTES = "a value that begins with {{ must be in quotes"


class Malformed(Exception):
    """The text cannot be read on."""

    def __init__(self, code: str, message: str, start: int | None = None, end: int | None = None, remedy: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.start, self.end, self.remedy = code, message, start, end, remedy


def lacks_space(text: str) -> bool:
    """Whether it begins as a key does that has no space behind its colon."""
    return _NO_SPACE.match(text) is not None


def malformed(error: Exception, text: str, last: Any) -> Malformed:
    """PyYAML's complaint in our words: its own are kept, they name what the parser met. `last` is the scalar that it read last."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # the reader: a character that YAML does not allow
        where = getattr(error, "position", None)
        start = next(
            (i for i, c in enumerate(text) if not c.isprintable() and c not in "\t\r\n\x85\ufeff\u2028\u2029 "),
            where or 0,
        )
        shown = f"U+{ord(text[start]):04X}" if start < len(text) else "it"
        return Malformed("PB103", f"the file is not text: the character {shown} is not allowed", start)
    problem = str(getattr(error, "problem", "") or "cannot be parsed")
    context = str(getattr(error, "context", "") or "")
    start = min(mark.index, len(text))
    if "maximum nesting depth" in problem:  # the parser's own bound (libyaml 0.2.6), which reads ahead of ours
        return Malformed("PB109", TOO_DEEP, start)
    line = text[text.rfind("\n", 0, start) + 1 : start + 1]
    if "\\t" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        at = start - len(line) + 1 + line.index("\t") if "\t" in line else start
        return Malformed("PB106", "a tab stands where YAML wants spaces", at, remedy="indent with spaces")
    opened = getattr(getattr(error, "context_mark", None), "index", start)
    if "unexpected end of stream" in problem and getattr(error, "context_mark", None) is not None:
        return _unclosed(text, opened)
    if last is not None and last.style in ("'", '"') and last.end_mark.line == mark.line and _swallows(text, last):
        return _unclosed(text, last.start_mark.index)
    if "mapping values are not allowed" in problem or "could not find expected ':'" in problem:
        near_by = last is not None and not last.style and last.end_mark.line >= mark.line - 1
        begun = min(opened, last.start_mark.index) if near_by else opened
        joined = _NO_SPACE_IN_LINE.search(text, text.rfind("\n", 0, begun) + 1, start)
        if joined is not None:
            return Malformed("PB105", "the YAML is malformed: a key without a space after its colon", *joined.span(1), remedy=COLON)
    return Malformed(
        "PB105",
        f"the YAML is malformed: {problem}" + (f" {context}" if context else ""),
        start,
        remedy=_remedy(problem, context, text, opened, start),
    )


def _remedy(problem: str, context: str, text: str, opened: int, start: int) -> str:
    """What to do about the parser's complaint: what it had begun at `opened` went wrong at `start`."""
    line = text[text.rfind("\n", 0, start) + 1 : start + 1]
    if context.startswith("while scanning") and (first := text[opened : opened + 1]) in _INDICATORS:
        return f"text that begins with {first} must be in quotes"
    if "mapping values are not allowed" in problem:
        return "is the indentation right? text that contains ': ' must be in quotes"
    if "{{" in line + text[start + 1 : start + 2]:
        return TEMPLATE_QUOTES
    if "block sequence entries are not allowed" in problem:
        return "a list begins on a line of its own; text that begins with '- ' must be in quotes"
    if "did not find expected" in problem and text[start - 1 : start] == "'" and _APOSTROPHE.search(line):
        return "an apostrophe ends text in single quotes: put the text in double quotes, or write the apostrophe twice"
    if "did not find expected" in problem and text[start - 1 : start] in _INNER and text[start : start + 1].strip():
        return f"a quote within quotes ends the text: {_INNER[text[start - 1]]}"
    if "did not find expected key" in problem and line[-2:-1] == " " and line[-3:-2] in _CLOSING:
        return "text that begins with a bracket, a brace or a quote must be in quotes as a whole"
    if "did not find expected" in problem or "could not find expected" in problem:
        return "look at the indentation, the dashes and the quotes here and just above"
    return ""


def _swallows(text: str, quoted: Any) -> bool:
    """Whether there are steps or keys within quotes, no further indented than where these begin: they were meant to end before."""
    start, end = quoted.start_mark.index, quoted.end_mark.index
    indented = _INDENTED.match(text, text.rfind("\n", 0, start) + 1)
    most = indented.end() - indented.start() if indented is not None else 0
    return any(len(found[1]) <= most for found in _SWALLOWED.finditer(text, start, end))


def _unclosed(text: str, opened: int) -> Malformed:
    remedy = "close the quote"
    if text[opened : opened + 1] == "'" and text[opened + 1 : opened + 2].isalpha():  # 'tis the season
        remedy += "; text that begins with an apostrophe must be in double quotes"
    return Malformed("PB105", "the YAML is malformed: a quote is opened and not closed", opened, remedy=remedy)
