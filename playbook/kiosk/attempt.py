"""One rung performs a show, or what is left of it: a performance, and what the kiosk must know of it while it goes on.

An attempt is over for the audience when nothing more will be said, which is before its session has closed: the next
rung need not wait for that. What is left of a show begins with the line that was not heard to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from playbook.clock import Clock
from playbook.engine import Result
from playbook.errors import PlaybookError
from playbook.kiosk.lending import Means
from playbook.language import digest
from playbook.model import Plan, Start, Step, Wait
from playbook.perform.performance import Options, Runner
from playbook.perform.steering import Cue
from playbook.ports import Steered
from playbook.record.summary import RunSummary, Utterance
from playbook.sessions.kept import KeptSession

Verdict = Literal["done", "stopped", "left", "disk"]
"""What became of it: performed to its end, ended by us, left for the next rung, or refused by the disk."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a show goes on: at a step, of which `within_ms` are over if it is a wait. `in_line`: a line that had been sent."""

    step: str
    within_ms: int = 0
    in_line: bool = False


class _Kiosk:
    """The kiosk can always give a performance a signal."""

    source = "program"

    def attach(self, show: Steered) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002 -- `Attempt.give` gives them
        return contextlib.nullcontext()


class Attempt:
    """A performance on a rung. `over` is set when the audience hears nothing more of it, `task` ends when its session has closed."""

    def __init__(
        self,
        plan: Plan,
        rung: str,
        folder: Path,
        means: Means,
        clock: Clock,
        *,
        session: KeptSession | None,
        keep_sound: bool,
        watch: Callable[[dict[str, Any]], None],
    ) -> None:
        self.plan, self.rung, self.folder = plan, rung, folder
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
        self.runner = Runner(plan, options, session)
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

    def give(self, trigger: str) -> bool:
        """Give it a trigger, if that is what it waits for."""
        awaited = self.runner.engine.awaits
        if awaited is None or trigger not in (awaited, "go"):
            return False
        return self.runner.offer(awaited, source=_Kiosk.source) is None

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

    def resume(self) -> Place | None:
        """Where the show goes on; None: nothing of it is left."""
        for step in self.plan.steps:
            if step.skipped is not None or step.verb == "end":
                continue
            run, said = self.summary.steps.get(step.id), self.summary.utterances.get(step.id)
            if run is not None and run.outcome == "done" and (said is None or not _unheard(said)):
                continue
            if run is not None and run.outcome in ("failed", "timeout") and step.on_error == "continue":
                continue
            began = None if run is None else run.started_ms
            within = self.ended_ms - self.began_ms - began if began is not None and isinstance(step.action, Wait) else 0
            return Place(step.id, max(0, within), said is not None)
        return None

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


def _unheard(said: Utterance) -> bool:
    """Whether a line was not heard to its end, though nobody cut it on purpose."""
    return said.ended_ms is None or said.untaken is not None or said.evidence == "timeout"


def rest_of(plan: Plan, place: Place, elapsed_ms: int) -> Plan:
    """The plan from a step on, `elapsed_ms` after its timeline zero: what is due at a time of the show comes when it would have come."""
    first = next(index for index, step in enumerate(plan.steps) if step.id == place.step)

    def later(step: Step) -> Step:
        """Of a time that has passed nothing is left, and nothing is late."""
        if step.at_ms is None or step.at_ms <= elapsed_ms:
            return replace(step, at_ms=None)
        return replace(step, at_ms=step.at_ms - elapsed_ms)

    steps = [later(step) for step in plan.steps[first:]]
    action = steps[0].action
    if isinstance(action, Wait):
        steps[0] = replace(steps[0], action=Wait(max(0, action.duration_ms - place.within_ms)))
    left = replace(plan, steps=tuple(steps), start=Start())
    return replace(left, sha256=digest(left))
