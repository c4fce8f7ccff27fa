"""A show on its way from rung to rung: where it goes on, how long it was silent, who performed what of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from playbook.kiosk.attempt import Attempt
from playbook.kiosk.schedule import Request


@dataclass(slots=True)
class Progress:
    """A show as it is performed, from rung to rung."""

    request: Request
    began_ms: int
    step: str | None = None
    """Where the next rung goes on."""
    zero_ms: int | None = None
    died_ms: int | None = None
    died_in_line: bool = False
    silence_ms: int | None = None
    refused: set[str] = field(default_factory=set)
    runs: list[dict[str, Any]] = field(default_factory=list)
    cause: str | None = None

    def heard_again(self, attempt: Attempt) -> None:
        """An attempt is over: if one before it had died, this one ended the silence. Of a silence that the author
        wrote, only what the change of rung added to it counts."""
        heard = attempt.first_sound_ms if self.died_in_line else attempt.zero_ms
        if self.died_ms is not None and heard is not None:
            self.silence_ms = max(self.silence_ms or 0, heard - self.died_ms)
            self.died_ms = None

    def go_on_after(self, attempt: Attempt) -> None:
        """An attempt has died: the next rung goes on where it was."""
        if attempt.zero_ms is None:
            return
        self.step = attempt.resume()
        self.zero_ms = attempt.zero_ms if self.zero_ms is None else self.zero_ms
        if self.died_ms is None:
            self.died_ms, self.died_in_line = attempt.ended_ms, self.step is not None and attempt.sent(self.step)
