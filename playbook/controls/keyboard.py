"""The keyboard of a terminal as a control: one letter for each signal, and words for the rest, each with Enter."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from playbook.controls.reader import lines
from playbook.ports import Steered

KEYS = {"h": "hold", "r": "resume", "s": "skip", "p": "panic", "e": "end"}
HELP = "keys, each with Enter: h hold, r resume, s skip, goto STEP, p panic, e end; alone it is go, any other word is a trigger, ? is this"


class Keyboard:
    """Reads the terminal behind the file descriptor `number`. `tell` shows a line to whoever sits there."""

    source = "keyboard"

    def __init__(self, tell: Callable[[str], None], number: int = 0) -> None:
        self._tell, self._number = tell, number

    def attach(self, show: Steered) -> AbstractContextManager[None]:
        """Give what is typed to this performance."""

        def take(line: str) -> None:
            if line == "?":
                self._tell(HELP)
            elif (ignored := show.offer(KEYS.get(line, line), source=self.source)) is not None:
                self._tell(f"{line}: {ignored}")

        def over() -> None:
            self._tell("the keyboard is closed (Ctrl-D); Ctrl-C ends the run")
            show.no_more(self.source)

        self._tell(HELP)
        return lines(self._number, take, over, terminal=True)
