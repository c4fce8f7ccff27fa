"""Which rung performs the next show: the best that is not resting.

A rung that failed rests, the longer the more often it failed in a row: from 10 s to 10 min. Then it is tried again,
and one success makes it good. One that can be tried without a show is not used before that. `captions` never rests.
Pure: the time is given, in milliseconds that never go back.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from playbook.kiosk.file import CAPTIONS

FIRST_PAUSE_MS = 10_000
LONGEST_PAUSE_MS = 600_000


@dataclass(slots=True)
class _Rest:
    """A rung that failed: for how long it rests, and until when."""

    pause_ms: int
    until_ms: int


@dataclass(slots=True)
class Ladder:
    """The rungs, best first."""

    rungs: tuple[str, ...]
    tried_apart: frozenset[str] = frozenset()
    """Those that are tried without a show: by opening a session."""
    _resting: dict[str, _Rest] = field(default_factory=dict)

    def best(self, now_ms: int, possible: Container[str], refused: Container[str] = ()) -> str | None:
        """The first rung that can perform the show, was not refused and does not rest. When all rest, the first of
        them: there is nothing better to try."""
        able = [rung for rung in self.rungs if rung in possible and rung not in refused]
        return next((rung for rung in able if not self.rests(rung, now_ms)), able[0] if able else None)

    def rests(self, rung: str, now_ms: int) -> bool:
        """Whether this rung is not to be used yet."""
        rest = self._resting.get(rung)
        return rest is not None and (rung in self.tried_apart or now_ms < rest.until_ms)

    def next_try(self) -> tuple[str, int] | None:
        """The rung that is to be tried apart next, and when."""
        tries = [(rest.until_ms, rung) for rung, rest in self._resting.items() if rung in self.tried_apart]
        return min(tries)[::-1] if tries else None

    def failed(self, rung: str, now_ms: int) -> int:
        """It could not open, or died. Gives the pause until it is tried again."""
        if rung == CAPTIONS:
            return 0
        rest = self._resting.get(rung)
        pause_ms = FIRST_PAUSE_MS if rest is None else min(2 * rest.pause_ms, LONGEST_PAUSE_MS)
        self._resting[rung] = _Rest(pause_ms, now_ms + pause_ms)
        return pause_ms

    def succeeded(self, rung: str) -> None:
        """It performed a show, or opened a session."""
        self._resting.pop(rung, None)

    def keep(self, rungs: tuple[str, ...]) -> None:
        """The file has changed: other rungs, or another order."""
        self.rungs = rungs
        self._resting = {rung: rest for rung, rest in self._resting.items() if rung in rungs}
