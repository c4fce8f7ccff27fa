"""The problems of one compilation: noted as they are found, told in the order of the file.

The same problem at the same place is noted once. Only so many are kept, but no error is lost behind warnings. No secret is shown in them,
neither in a message nor in the source line beneath it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from playbook.errors import CODES, MASK, Place, Problem, near, near_or_all

if TYPE_CHECKING:
    from playbook.formats.source import Document, Node

MAX_PROBLEMS = 10_000
"""How many problems are kept: nobody reads more, and in a file of the wrong kind every line may be one."""
MAX_GUESSES = 100
"""After how many problems nobody looks any more for what could have been meant: the search is slow."""


@dataclass(slots=True)
class Findings:
    """The problems of one compilation, as they are found. `failed`: there is more among them than warnings."""

    documents: dict[str, Document] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    failed: bool = False
    _found: dict[tuple[str, Place | None, str], Problem] = field(default_factory=dict)
    _lines: dict[tuple[str, int], str] = field(default_factory=dict)
    _withheld: set[str] = field(default_factory=set)
    _sealed: dict[tuple[str, int], list[Place]] = field(default_factory=dict)

    def add(
        self,
        code: str,
        message: str,
        place: Place | None = None,
        remedy: str = "",
        *,
        via: tuple[Place, ...] = (),
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        """Note a problem. The same one at the same place, met again in another round of a loop, is noted once."""
        if len(self._found) >= MAX_PROBLEMS and (severity == "warning" or self.failed):
            return
        self.failed = self.failed or severity == "error"
        self._found.setdefault((code, place, message), Problem(code, message, place, remedy, severity, via=via))

    def has(self, code: str, message: str, place: Place | None) -> bool:
        """Whether this problem is noted already, so that nobody need find out more about it."""
        return (code, place, message) in self._found

    def guess(self, word: str, words: Iterable[str], otherwise: str | None = None) -> str:
        """What to do about a word that is none of these: `near_or_all`, as long as anybody reads it."""
        return near_or_all(word, words, otherwise) if len(self._found) < MAX_GUESSES else otherwise or ""

    def near(self, word: str, words: Iterable[str]) -> str:
        """The one of some words that was surely meant, or nothing."""
        return near(word, words) if len(self._found) < MAX_GUESSES else ""

    @property
    def full(self) -> bool:
        """Whether no more problems are kept, so that nobody need look for them."""
        return self.failed and len(self._found) >= MAX_PROBLEMS

    def withhold(self, file: str) -> None:
        """Show no line of this file, and nothing that its reader quotes of it: it may be anything, and hold secrets."""
        self._withheld.add(file)

    def withholds(self, file: str) -> bool:
        """Whether no line of this file is shown."""
        return file in self._withheld

    def seal(self, node: Node) -> None:
        """Hide a secret where it stands in its file, however it is spelled there."""
        for child in [*node.entries(), *(child for _, child in node.items())]:
            self.seal(child)
        if node.children is None:
            for place in node.document.places(node.start, node.end):
                self._sealed.setdefault((place.file, place.line), []).append(place)

    def extend(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.failed = self.failed or problem.severity == "error"
            self._found.setdefault((problem.code, problem.place, problem.message), problem)

    def report(self, file: str) -> tuple[Problem, ...]:
        """Everything found, in the order of `file` (an included file's where it is included), with source lines and without secrets."""
        return tuple(self._finish(problem) for problem in sorted(self._found.values(), key=lambda p: self._order(p, file)))

    @staticmethod
    def _order(problem: Problem, file: str) -> list[tuple[bool, str, int, int]]:
        places = [*problem.via, problem.place] if problem.place else list(problem.via)
        return [(place.file == file, place.file, place.line, place.column) for place in places]

    def _finish(self, problem: Problem) -> Problem:
        if problem.place is not None and problem.place.file in self._withheld:
            reading = problem.code <= "PB114" or problem.code == "PB120"
            message, remedy = (CODES[problem.code], "") if reading else (problem.message, problem.remedy)
            return replace(problem, message=self._mask(message, MASK), remedy=self._mask(remedy, MASK), source="")
        source = problem.source or (self._line(problem.place) if problem.place is not None else "")
        return replace(
            problem,
            message=self._mask(problem.message, MASK),
            remedy=self._mask(problem.remedy, MASK),
            source=source,
        )

    def _line(self, place: Place) -> str:
        """The source line of a place, one copy for all problems in it: a playbook may be one long line of JSON."""
        key = (place.file, place.line)
        if key not in self._lines:
            document = self.documents.get(place.file)
            line = "" if document is None else document.line(place.line)
            for sealed in self._sealed.get(key, ()):
                start, end = sealed.column - 1, sealed.column - 1 + sealed.length
                line = line[:start] + "*" * len(line[start:end]) + line[end:]  # in a source line the carets must still fit
            self._lines[key] = self._mask(line, None)
        return self._lines[key]

    def _mask(self, text: str, mask: str | None) -> str:
        for secret in sorted(self.secrets, key=len, reverse=True):
            if secret and secret in text:
                text = text.replace(secret, mask or "*" * len(secret))  # in a source line the carets must still fit
        return text
