"""Durations as they stand in a playbook to milliseconds, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from playbook.errors import Place
from playbook.formats.durations import parse_duration, show_duration
from playbook.formats.findings import Findings
from playbook.formats.source import Node
from playbook.formats.wanted import in_words
from playbook.language.render import Renderer

_PLAUSIBLE_S = {"at": 1_000, "timeout": 1_000, "max_duration": 10_000, "until": 1_000_000}
"""From how many on a bare number of seconds is doubted, where it is not 100. (An `until` is compared with its line.)"""


@dataclass(slots=True)
class Times:
    """Turns the durations of one node into milliseconds. `failed`: one of them is none, or something else is wrong that was noted."""

    node: Node
    findings: Findings
    via: tuple[Place, ...]
    renderer: Renderer
    failed: bool = False

    def ms(self, value: object, *path: str | int) -> int:
        """A duration in milliseconds; `path` leads to where it is written. What is no duration is noted, and 0 stands for it."""
        try:
            ms = parse_duration(value)
        except ValueError as error:
            written = self.node.at(path)
            given = "what it gives" if self.renderer.tainted(written) else in_words(value)
            self.fail("PB208", f"{_key(path)} must be a duration; {given} {error}", written.place)
            return 0
        if ms >= 100_000 and isinstance(value, (int, float)):
            self._doubt(ms, value, path)
        return ms

    def optional(self, data: Mapping[str, Any], key: str, *path: str | int) -> int | None:
        """The same for a key that may be missing."""
        return self.ms(data[key], *(path or (key,))) if key in data else None

    def fail(self, code: str, message: str, place: Place, remedy: str = "") -> None:
        """Note something that is wrong here."""
        self.findings.add(code, message, place, remedy, via=self.via)
        self.failed = True

    def _doubt(self, ms: int, value: float, path: tuple[str | int, ...]) -> None:
        """Doubt so many seconds, when they are written as a bare number."""
        written, key = self.node.at(path), _key(path)
        # somebody who reckons in minutes writes 120, 1800, 3600
        minutes = value % 60 == 0 and (value % 100 != 0 or value >= 1800)
        if ms >= _PLAUSIBLE_S.get(key, 100) * 1000 and not minutes and not written.templated:
            remedy = f"a bare number is seconds: write {show_duration(ms)}, or {value}ms for milliseconds"
            message = f"{key} is {show_duration(ms)}"
            self.findings.add("PB434", message, written.place, remedy, via=self.via, severity="warning")


def _key(path: tuple[str | int, ...]) -> str:
    return next(key for key in reversed(path) if isinstance(key, str))
