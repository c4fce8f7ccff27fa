"""A run as somebody watches it: a line for each thing that happens and, on a terminal, one that shows what is going on now.

It is drawn by a thread of its own, because a terminal that was stopped by Ctrl-S, or a pipe that nobody reads, must not stop the show. The
loop only drops the log's lines into a queue.
"""

from __future__ import annotations

import shutil
import textwrap
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TextIO

from playbook.cli.options import to_nowhere
from playbook.model import Plan, Step
from playbook.record.runlog import Line
from playbook.report import Now, now_line, progress_line

TOLD = "told"
"""What stands for a line that is not the log's."""
TICK_S = 0.1
PATIENCE_S = 2.0
"""How long the end of a run waits for a screen that does not take its lines."""

ID_SHARE = 3
"""One in so many of a terminal's columns may go to the steps' ids; a longer id gets a row of its own."""


class Progress:
    """Shows the lines given to `watch` on a stream until it is left. `now_ms` is the run's time; with `live`, a last line follows it."""

    def __init__(self, plan: Plan, stream: TextIO, *, live: bool, colour: bool, interactive: bool, redact: Callable[[str], str]) -> None:
        self.now_ms: Callable[[], int] | None = None
        self._plan = plan
        self._stream = stream
        self._live, self._colour, self._interactive = live, colour, interactive
        self._redact = redact
        self._steps: dict[str, tuple[Step, Step | None]] = {}
        performed = [step for step in plan.steps if step.skipped is None]
        for step, after in zip(performed, [*performed[1:], None], strict=True):
            self._steps[step.id] = step, after
        self._all = {step.id: step for step in plan.steps}
        self._wide = max(map(len, self._all), default=0)
        self._lines: deque[Line] = deque()
        self._wake, self._over = threading.Event(), False
        self._now: Now | None = None
        self._zero_ms: int | None = None
        self._drawn = ""
        self._told = ""  # the last reason that was given, since a failure and the step that it fails have the same
        self._thread = threading.Thread(target=self._work, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over = True
        self._wake.set()
        self._thread.join(PATIENCE_S)

    def watch(self, line: Line) -> None:
        """Take a line of the log."""
        self._lines.append(line)
        self._wake.set()

    def say(self, text: str) -> None:
        """Show a line that is not the log's."""
        self.watch({TOLD: text})

    # the thread

    def _work(self) -> None:
        try:
            while True:
                self._wake.wait(TICK_S if self._live and self._now is not None else None)
                self._wake.clear()
                over = self._over  # whatever was to be shown is in the queue by now
                text = "".join(self._take(self._lines.popleft()) for _ in range(len(self._lines)))
                status = "" if over else self._status()
                if text or status != self._drawn:
                    erase = "\r\x1b[2K" if self._drawn else ""
                    self._stream.write(erase + text + status)
                    self._stream.flush()
                    self._drawn = status
                if over:
                    return
        except (OSError, ValueError):  # the screen is gone; the show goes on
            to_nowhere(self._stream)

    def _take(self, line: Line) -> str:
        """What a line of the log adds to the screen."""
        width = shutil.get_terminal_size().columns if self._stream.isatty() else None
        if TOLD in line:
            told = self._redact(line[TOLD])
            return (told if width is None else textwrap.fill(told, width)) + "\n"
        if line.get("note") == "timeline_zero":
            self._zero_ms = line["at_ms"]
        if line.get("event") == "session_opened" and self._plan.start.waits:
            self._now = Now(None, self._first(), line["at_ms"], awaits="go")
        elif line.get("note") == "step_started":
            step, after = self._steps[line["step"]]
            self._now = Now(step, after, line["at_ms"])
        elif line.get("event") == "speech_started" and self._now is not None and self._now.step is self._all.get(line.get("task", "")):
            self._now = replace(self._now, since_ms=line["at_ms"], heard=True)
        elif line.get("note") == "timeline_zero" or line.get("command") == "close_session" or "end" in line:
            self._now = None
        ids = self._wide if width is None else min(self._wide, width // ID_SHARE)
        again = line.get("note") == "step_finished" and line.get("reason", "") == self._told
        text = None if again else progress_line(line, self._all, self._zero_ms, ids=ids, width=width, colour=self._colour)
        if text is None:
            return ""
        self._told = line.get("reason", self._told)
        return self._redact(text) + "\n"

    def _first(self) -> Step | None:
        return next((step for step in self._plan.steps if step.skipped is None), None)

    def _status(self) -> str:
        """The last line, as it should stand there now."""
        if not self._live or self._now is None or self.now_ms is None:
            return ""
        width = shutil.get_terminal_size().columns - 1
        return self._redact(now_line(self._now, self.now_ms(), self._zero_ms, width, interactive=self._interactive, colour=self._colour))
