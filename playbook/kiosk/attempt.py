"""One rung performs a show, or what is left of it: a performance, and what the kiosk must know of it while it goes on.

An attempt is over for the audience when nothing more will be said, which is before its session has closed: the next
rung need not wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from playbook.clock import Clock
from playbook.engine import Result
from playbook.errors import PlaybookError
from playbook.kiosk.lending import Means
from playbook.model import Plan
from playbook.perform.performance import Options, Runner
from playbook.perform.resume import resume_at
from playbook.perform.steering import Cue
from playbook.ports import Steered
from playbook.record.summary import RunSummary
from playbook.sessions.kept import KeptSession

Verdict = Literal["done", "stopped", "left", "disk"]
"""What became of it: performed to its end, ended by us, left for the next rung, or refused by the disk."""


class _Kiosk:
    """The kiosk can always give a performance a signal."""

    source = "program"

    def attach(self, show: Steered) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002 -- `Attempt.give` gives them
        return contextlib.nullcontext()


Join = Callable[[Options], Options]
"""What a performance's options become where it is seen on pages."""
Watch = Callable[[dict[str, Any]], None]


class Attempt:
    """A performance on a rung. `over` is set when the audience hears nothing more of it, `task` ends when its
    session has closed."""

    def __init__(
        self,
        plan: Plan,
        rung: str,
        folder: Path,
        means: Means,
        clock: Clock,
        *,
        session: KeptSession | None,
        joined: Join,
        keep_sound: bool,
        watch: Watch,
    ) -> None:
        self.plan, self.rung, self.folder, self.session = plan, rung, folder, session
        self.summary = RunSummary()
        self.over = asyncio.Event()
        self.began_ms = self.ended_ms = clock.now_ms()
        self.first_sound_ms: int | None = None
        self.error: PlaybookError | None = None
        self.bug: Exception | None = None
        self.gave_up: str | None = None
        """Why we ended it ourselves, to go on with the next rung."""
        self._clock, self._watch = clock, watch
        self._stopped = False
        options = Options(
            folder=folder,
            env=means.env,
            state_dir=means.state_dir,
            cues=(Cue("go"),) if plan.start.waits else (),
            controls=(_Kiosk(),),
            watch=self._see,
            provider=means.provider,
            keep_sound=keep_sound,
            catch_signals=False,
        )
        self.runner = Runner(plan, joined(options), session)
        self.task = asyncio.create_task(self._perform())

    async def _perform(self) -> None:
        try:
            await self.runner.run()
        except PlaybookError as error:
            self.error = error
        except Exception as error:  # ours; the next rung goes on all the same
            self.bug = error
        finally:
            self._finish()

    def stop(self, reason: str) -> None:
        """End it in order. Once: asked twice, a performance does not wait for its session."""
        if not self._stopped:
            self._stopped = True
            self.runner.stop(reason)

    def give_up(self, reason: str) -> None:
        """End it because it does not get anywhere; the next rung goes on."""
        self.gave_up = reason
        self.stop(reason)

    def give(self, trigger: str, source: str) -> bool:
        """Give it a trigger, if that is what it waits for."""
        awaited = self.runner.engine.awaits
        return awaited is not None and trigger in (awaited, "go") and self.runner.offer(awaited, source=source) is None

    def steer(self, signal: str, source: str, step: str | None) -> str | None:
        """Hold it, move it, end it. Gives the reason where that means nothing now."""
        return self.runner.offer(signal, source=source, step=step)

    # --- what became of it

    @property
    def verdict(self) -> tuple[Verdict, str | None]:
        """What became of it, and why, once it is over."""
        if self.gave_up is not None:
            return "left", self.gave_up
        if self.bug is not None:
            return "left", f"a bug of playbook: {type(self.bug).__name__}: {self.bug}"
        if self.error is not None:
            disk = self.error.exit_code in (2, 4) and self.runner.engine.phase == "opening" and not self.summary.names
            return ("disk" if disk and "written" in self.error.message else "left"), self.error.message
        result = self.result
        if result is None or result.exit_code == 0:
            return "done", None
        if result.exit_code in (130, 143):
            return "stopped", result.reason
        if (result.reason or "").startswith("disk:"):
            return "disk", result.reason
        return ("left" if result.exit_code == 4 or result.step is not None else "done"), result.reason

    @property
    def result(self) -> Result | None:
        return self.runner.engine.result

    def resume(self) -> str | None:
        """The step at which the show goes on; None: nothing of it is left."""
        return resume_at(self.plan, self.summary)

    def sent(self, step: str) -> bool:
        """Whether a step is a line that was sent, and was perhaps being said."""
        return step in self.summary.utterances

    @property
    def zero_ms(self) -> int | None:
        """Its timeline zero, on the kiosk's clock."""
        return None if self.summary.zero_ms is None else self.began_ms + self.summary.zero_ms

    # --- seeing it

    def _see(self, line: dict[str, Any]) -> None:
        if "at_ms" not in line:  # the header
            return
        self.summary.take(line)
        event = line.get("event")
        if event == "speech_started" and self.first_sound_ms is None:
            self.first_sound_ms = self._clock.now_ms() - line.get("ago_ms", 0)
        self._watch(line)
        if line.get("command") == "close_session" or "end" in line:
            self._finish()

    def _finish(self) -> None:
        if not self.over.is_set():
            self.summary.finish()
            self.ended_ms = self._clock.now_ms()
            self.over.set()
