"""What the audience and the operator of a kiosk see: the stage's pages, fed by one show after the other.

Between shows the page shows what the kiosk's file says: the face, captions alone, or nothing. A signal from a page goes to
the kiosk, which knows whether the show takes it or whether it asks for one.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from playbook.engine import Result
from playbook.model import Plan
from playbook.perform.performance import Options, Runner
from playbook.record.runlog import Line
from playbook.stage.director import Director
from playbook.stage.guard import Guard
from playbook.stage.manner import Manner

KINDS = {"face": "local", "captions": "captions", "black": "none"}
"""What a page is told to show between shows."""


class Offer(Protocol):
    """Takes a signal, and gives the reason where it is ignored."""

    def __call__(self, signal: str, *, source: str, step: str | None = None) -> str | None: ...


class Screen(Director):
    """A director that is told what is performed, and performs nothing itself."""

    def __init__(self, file: Path, guard: Guard, look: str, plan: Plan, offer: Offer) -> None:
        super().__init__(file, Manner.single(plan, None), guard)
        self._offer_to = offer
        self._seen_now = 0
        self._leave = contextlib.ExitStack()
        self.board.load(plan)
        self.audience.rest(KINDS[look])

    def join(self, plan: Plan, options: Options) -> Options:
        """The options of a performance that is seen from now on. One that was left says nothing to the audience any more."""
        self.plan = plan
        self.board.load(plan)
        self._seen_now += 1
        number, before = self._seen_now, options.watch
        options = self.joined(replace(options, watch=None))

        def watch(line: Line) -> None:
            if before is not None:
                before(line)
            if number == self._seen_now:
                self._take(line)

        return replace(options, watch=watch)

    def begin(self, runner: Runner) -> None:
        """This performance begins."""
        self._leave.close()
        self._leave.enter_context(self.performing(runner))

    def end(self, result: Result | None, folder: Path) -> None:
        """The audience hears nothing more of it."""
        self._leave.close()
        self._seen_now += 1
        end, code, reason = ("passed", 0, None) if result is None else (result.end, result.exit_code, result.reason)
        self.board.over({"end": end, "exit_code": code, "reason": reason, "folder": str(folder.resolve())})
        self._caption = None
        self.hub.tell("audience", {"type": "clear"})
        self._changed()

    def offer(self, signal: str, *, source: str, step: str | None = None) -> str | None:
        """Somebody at a page, or a machine, asks for something."""
        if signal == "panic":
            self._silence()
        return self._offer_to(signal, source=source, step=step)
