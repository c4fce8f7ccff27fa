"""Performs the playbook on every `go`, again and again; reads the file anew when it has changed; tells the pages.

One performance at a time. What controls the show comes in through `offer`, whoever sent it. What a signal means within a performance is
the engine's business; between two of them `go` begins one, `goto STEP` begins one at that step, `panic` makes the pages silent, and the
rest means nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal as signals
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from playbook.errors import AuthorError, PlaybookError, Problem
from playbook.events import Event
from playbook.model import Plan
from playbook.perform.performance import SIGNALS, Options, Outcome, Runner
from playbook.perform.steering import PEOPLE, TWICE_MS
from playbook.ports import HearsState, Viewer
from playbook.providers.base import ShownByVendor, StreamedByVendor
from playbook.record.runlog import Line
from playbook.stage.audience import Audience
from playbook.stage.board import Board, problems_to_json
from playbook.stage.guard import Guard
from playbook.stage.hub import Hub, Page
from playbook.stage.manner import Manner, Present, files_of, places_of
from playbook.stage.sounds import Sounds

TAKEN = "taken for the one before"
WATCH_S = 0.4
"""How often the playbook's files are looked at."""
TOGETHER_S = 0.03
"""What changes within this time is told to the pages at once."""


class Director:
    """The show of one stage, and a `Steered` for whoever controls it. `run` performs until it is stopped; everything else may be called
    from the same loop meanwhile."""

    def __init__(self, file: Path, manner: Manner, guard: Guard) -> None:
        self.file, self._manner = file, manner
        self.board = Board(playbook=file.stem)
        self.plan: Plan | None = None
        self.outcome: Outcome | None = None
        self._loop = asyncio.get_running_loop()
        self.hub = Hub(guard, self.now_ms, self._pages_changed)
        self.audience = Audience(self.hub)
        self.sounds = Sounds(lambda message: self.hub.tell("audience", message), self.now_ms)
        self._runner: Runner | None = None
        self._begin = asyncio.Event()
        self._first: str | None = None
        self.stopped: str | None = None
        self._pressed_ms = -1e9
        self._offset_ms = 0.0
        self._performances = 0
        self._performs = False
        self._caption: dict[str, Any] | None = None
        self._go_when_seen: str | None = None
        self._asked_by = "page"
        self._flush: asyncio.TimerHandle | None = None
        self._shown: list[dict[str, Any]] = []
        self._seen: dict[str, tuple[int, int]] = {}
        self._new_plan: Plan | None = None

    def now_ms(self) -> float:
        """The server's clock."""
        return self._loop.time() * 1000

    # --- the playbook -------------------------------------------------------------------------------------------------

    def read(self, plan: Plan) -> None:
        """This plan is the next to be performed."""
        self._new_plan = plan
        self._seen = self._look(files_of(plan))
        if self._runner is None:
            self._take_new_plan()
        else:
            self.board.problems = problems_to_json(plan.warnings)
        self._changed()

    def _take_new_plan(self) -> None:
        if self._new_plan is not None:
            self.plan, self._new_plan = self._new_plan, None
            self.board.load(self.plan)
            self.audience.rest(self._viewer_kind)

    @property
    def _viewer_kind(self) -> str:
        """How a session of this provider's will be seen."""
        provider = self._manner.options.provider
        return provider.viewer if isinstance(provider, ShownByVendor) else "local"

    def _look(self, files: Iterable[str]) -> dict[str, tuple[int, int]]:
        """What the files are like by now."""
        found: dict[str, tuple[int, int]] = {}
        for file in {str(self.file), *files, *map(str, self._manner.files())}:
            try:
                stat = Path(file).stat()
                found[file] = stat.st_mtime_ns, stat.st_size
            except OSError:
                found[file] = 0, 0
        return found

    async def watch(self) -> None:
        """Read the playbook anew whenever one of its files has changed, for ever."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self._look(self._seen) == self._seen:
                continue
            self._seen = self._look(self._seen)
            try:
                plan = await asyncio.to_thread(self._manner.compile)
            except AuthorError as error:
                self._show_problems(error.problems)
                self._seen |= self._look(places_of(error.problems))
            except PlaybookError as error:
                self._show_problems([Problem("PB100", error.message, remedy=error.remedy)])
            else:
                self.read(plan)

    def _show_problems(self, problems: Iterable[Problem]) -> None:
        self.board.problems = problems_to_json(tuple(problems))
        self._changed()

    @property
    def _broken(self) -> bool:
        return any(problem["severity"] == "error" for problem in self.board.problems)

    # --- signals ------------------------------------------------------------------------------------------------------

    def offer(self, signal: str, *, source: str, step: str | None = None) -> str | None:
        """Somebody asks for something. Gives the reason where it is ignored."""
        if signal == "go" and source in PEOPLE:
            before, self._pressed_ms = self._pressed_ms, self.now_ms()
            if self._pressed_ms - before < TWICE_MS:
                return TAKEN
        if signal == "panic":
            self._silence()
        if signal == "goto" and (step is None or step not in self.board.rows):
            return "goto needs a step" if step is None else f"there is no step '{step}'"
        if self._runner is not None and self.board.phase != "opening":
            return self._runner.offer(signal, source=source, step=step)
        if signal == "end" and self._runner is not None:
            return self._runner.offer(signal, source=source)
        if signal in ("go", "goto") and self._performs:
            return self._ask_to_begin(source, step)
        return None if signal == "panic" else "nothing is being performed"

    def emit(self, event: Event) -> None:
        """Tell the performance of something, if there is one."""
        if self._runner is not None:
            self._runner.emit(event)

    def no_more(self, source: str) -> None:
        """A control is gone. The pages are still there."""

    def _ask_to_begin(self, source: str, step: str | None) -> str | None:
        if self._begin.is_set() or self._runner is not None:
            return "the show begins already"
        if self._broken:
            return "the playbook has problems"
        self._first, self._asked_by = step, source
        self._begin.set()
        return None

    def _silence(self) -> None:
        """The pages fall silent, whatever the provider can do."""
        self.sounds.silence()
        self._caption = None

    def stop(self, reason: str) -> None:
        """End the stage: the performance in order, then the rest."""
        self.stopped = reason
        if self._runner is not None:
            self._runner.stop(reason)
        self._begin.set()

    # --- performing ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Perform on every `go` until somebody stops it."""
        self._performs = True
        while True:
            with self._own_signals():
                await self._begin.wait()
            self._begin.clear()
            if self.stopped is not None:
                return
            self._take_new_plan()
            await self._perform()
            if self.stopped is not None:
                return

    async def _perform(self) -> None:
        plan = self.plan
        assert plan is not None
        self._performances += 1
        folder = self._manner.options.folder
        options = self.joined(replace(self._manner.options, folder=folder and folder / str(self._performances)))
        try:
            async with self._manner.perform(plan, options) as runner:
                with self.performing(runner):
                    outcome = await runner.run()
        except PlaybookError as error:
            self.over(error)
            self._manner.told(error)
            return
        self.over(outcome)
        self._manner.told(outcome)
        result = outcome.result
        if result.end == "stopped" and result.reason in [number.name for number in SIGNALS]:
            self.stopped = result.reason

    def joined(self, options: Options) -> Options:
        """The options of a performance that is seen on this stage."""
        self.board.begin()
        self._changed()
        controls = [*options.controls, *map(Present, ("page", "http", *(each.source for each in self._manner.controls)))]
        live = (*options.live, self.sounds)
        return replace(options, watch=self._watch(options.watch), live=live, controls=controls)

    @contextlib.contextmanager
    def performing(self, runner: Runner) -> Iterator[None]:
        """This is the performance that is steered and seen, until the context is left."""
        self._runner = runner
        self._offset_ms = float("inf")
        self.sounds.follow(lambda at_ms: at_ms + self._offset_ms)
        try:
            yield
        finally:
            self._runner = self._go_when_seen = self._first = None
            self.audience.tell(None)
            self.audience.offer(None)

    def over(self, how: Outcome | PlaybookError) -> None:
        """It is over: how it went stands on the board until the next one begins."""
        if isinstance(how, Outcome):
            result, self.outcome = how.result, how
            folder = str(how.folder.resolve())
            self.board.over({"end": result.end, "exit_code": result.exit_code, "reason": result.reason, "folder": folder})
        else:
            self.board.over({"end": "error", "exit_code": how.exit_code, "reason": how.message, "folder": None})
        self._take_new_plan()
        self._caption = None
        self.hub.tell("audience", {"type": "clear"})
        self._changed()

    def _opened(self, runner: Runner) -> None:
        """The session is open: its viewer is shown, and the performance hears of whoever watches."""
        if self._runner is not runner:
            return
        kept = runner.session
        provider, terms = kept.terms.provider, kept.terms
        viewer = kept.viewer or Viewer("local", self.board.provider, kept.session_id or "")
        place = provider.place if isinstance(provider, StreamedByVendor) else None
        self.audience.offer(viewer, None if place is None else lambda each: place(each, terms.transports, terms.env))
        self.audience.tell(runner.emit, ears=runner.plan.capabilities.speech != "exact")
        if self.plan is not None and self.plan.start.kind == "go":  # it was pressed: it counts as soon as somebody can see the show
            self._go_when_seen = self._asked_by
            self._go_if_seen()

    def _go_if_seen(self) -> None:
        if self._go_when_seen is not None and self._runner is not None and self.audience.seen:
            source, self._go_when_seen = self._go_when_seen, None
            self._runner.offer("go", source=source)

    def _go_to_first(self, runner: Runner, step: str) -> None:
        if self._runner is runner:
            runner.offer("goto", source=self._asked_by, step=step)

    def _watch(self, also: Callable[[Line], None] | None) -> Callable[[Line], None]:
        def watch(line: Line) -> None:
            if also is not None:
                also(line)
            self._take(line)

        return watch

    def _take(self, line: Line) -> None:
        """A line of the log: for machines as it is, for the pages what follows from it."""
        self.hub.tell("events", line)
        if "at_ms" in line:
            self._offset_ms = min(self._offset_ms, self.now_ms() - line["at_ms"])
        self.board.take(line)
        runner = self._runner
        if line.get("event") == "session_opened" and runner is not None:
            self._loop.call_soon(self._opened, runner)
        if line.get("note") == "timeline_zero":
            self._go_when_seen = None
            if self._first is not None and runner is not None:
                self._loop.call_soon(self._go_to_first, runner, self._first)
                self._first = None
        if line.get("command") in ("say", "play_audio"):
            self.hub.tell("audience", {"type": "voice"})
        elif line.get("event") == "speech_started":
            self._show_caption(line)
        elif line.get("event") == "speech_ended" and (row := self.board.row_of(line)) is not None:
            self._hide_caption(row.step.id)
        self._changed()

    def _show_caption(self, line: Line) -> None:
        row = self.board.row_of(line)
        text = None if row is None else getattr(row.step.action, "shown", None)
        if row is None or text is None or self._runner is None:
            return
        marks = self._runner.words(line["task"])
        start = self.now_ms() - line.get("ago_ms", 0)
        self._caption = {"type": "caption", "id": row.step.id, "text": text, "start": start, "marks": [list(mark) for mark in marks]}
        self.hub.tell("audience", self._caption)

    def _hide_caption(self, step: str) -> None:
        if self._caption is not None and self._caption["id"] == step:
            self._caption = None
            self.hub.tell("audience", {"type": "clear"})

    @contextlib.contextmanager
    def _own_signals(self) -> Iterator[None]:
        """Between two performances SIGINT and its like end the stage; within one they are the runner's."""
        for number in SIGNALS:
            with contextlib.suppress(RuntimeError, ValueError):  # not the main thread
                if number.name != "SIGHUP" or signals.getsignal(number) != signals.SIG_IGN:
                    self._loop.add_signal_handler(number, self.stop, number.name)
        try:
            yield
        finally:
            for number in SIGNALS:
                self._loop.remove_signal_handler(number)

    # --- the pages ----------------------------------------------------------------------------------------------------

    def greet_audience(self, page: Page) -> None:
        """What an audience's page begins with: what is shown, and what sounds at this moment."""
        colours = self.plan.session.get("face") if self.plan is not None and self._viewer_kind == "local" else None
        page.send({"type": "stage", "title": self.board.playbook, "colours": colours or {}})
        self.audience.show(page)
        if self._caption is not None:
            page.send(self._caption)
        for sound in self.sounds.now():
            page.send(sound)

    def greet_operator(self, page: Page) -> None:
        """What an operator's page begins with."""
        page.send({"type": "state", "state": self.state()})

    def state(self) -> dict[str, Any]:
        """What `GET /api/state` answers."""
        state = self.board.to_json()
        return {**state, **self._moment(state)}

    def _moment(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """What changes by itself, at this moment."""
        now = self.now_ms()
        zero = self.board.zero_ms
        session, plan = state["session"], self.plan
        if session is not None and plan is not None:
            age = max(0, round(now - self._offset_ms - session["opened_ms"]))
            price = plan.capabilities.price_per_minute
            longest = [ms for ms in (plan.limits.max_duration_ms, plan.capabilities.usable_ms) if ms is not None]
            session = {
                "id": session["id"],
                "reason": session["reason"],
                "age_ms": age,
                "cost": None if price is None else round(age / 60_000 * price, 4),
                "left_ms": min(longest) - age if longest else None,
            }
        return {
            "clock_ms": round(now),
            "at_ms": None if zero is None or self._runner is None else round(now - self._offset_ms - zero),
            "session": session,
            "viewers": [{"page": page.name, "state": page.status} for page in self.hub.pages("audience")],
        }

    def _pages_changed(self) -> None:
        self.audience.changed()
        self._go_if_seen()
        self._changed()

    def _changed(self) -> None:
        """Tell the operators soon."""
        if self._flush is None:
            self._flush = self._loop.call_later(TOGETHER_S, self._tell_operators)

    def _tell_operators(self) -> None:
        self._flush = None
        state = self.state()
        steps = state["steps"]
        if [step["id"] for step in steps] != [step["id"] for step in self._shown]:
            self.hub.tell("operator", {"type": "state", "state": state})
        else:
            changed = [step for step, before in zip(steps, self._shown, strict=True) if step != before]
            self.hub.tell("operator", {"type": "change", "state": {**state, "steps": changed}})
        self._shown = steps
        for control in self._manner.controls:
            if isinstance(control, HearsState):
                control.tell(state)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """The playbook's files are watched until this is left."""
        task = asyncio.ensure_future(self.watch())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    @contextlib.asynccontextmanager
    async def controlled(self) -> AsyncIterator[None]:
        """Controls give signals until this is left; then the audience's places are given back."""
        try:
            with contextlib.ExitStack() as attached:
                for control in self._manner.controls:
                    attached.enter_context(control.attach(self))
                yield
        finally:
            if self._flush is not None:
                self._flush.cancel()
            await self.audience.close()
