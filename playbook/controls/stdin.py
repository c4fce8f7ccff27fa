"""Standard input as a control: a signal or a trigger's name a line, `goto STEP` among them; an empty line is `go`. (`--triggers -`)"""

from __future__ import annotations

from contextlib import AbstractContextManager

from playbook.controls.reader import lines
from playbook.ports import Steered


class StandardInput:
    """Reads the file descriptor `number` until its end."""

    source = "stdin"

    def __init__(self, number: int = 0) -> None:
        self._number = number

    def attach(self, show: Steered) -> AbstractContextManager[None]:
        """Give what is read to this performance."""

        def take(line: str) -> None:
            show.offer(line, source=self.source)

        return lines(self._number, take, lambda: show.no_more(self.source))
