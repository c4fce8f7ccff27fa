"""The only loop: inbox to engine to provider, every line logged first.

The runner owns what the engine may not know: the clock, the provider's session, the run folder, signals. An event is stamped, given to
the engine, logged together with what follows from it, and only then are the commands carried out. Nothing here decides anything about
speech.

A run folder holds `run.jsonl`, `plan.json`, `captions.vtt`, `captions.srt`, `audio.wav` where we made the sound, and `session.json` while
the session lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import re
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook.clock import Clock, wall_time
from playbook.engine import Engine, Result
from playbook.errors import SetupError, UsageError
from playbook.language import plan_to_json
from playbook.model import (
    CancelTimer,
    CloseSession,
    Conflict,
    Effect,
    Event,
    OpenSession,
    Plan,
    PlayAudio,
    SayText,
    SessionClosed,
    SessionOpened,
    StartTimer,
    StopRequested,
    StopSpeaking,
    TimelineZero,
    TimerFired,
    Trigger,
)
from playbook.providers import registry
from playbook.providers.base import CLOSE_BUDGET_S, Context, Provider, Session
from playbook.record.captions import write_captions
from playbook.record.expect import failed_expectations, judged
from playbook.record.redact import Redactor
from playbook.record.runlog import Header, Line, RunLog
from playbook.record.summary import RunSummary
from playbook.sessions import Journal, NoEntry
from playbook.speech.show import ShowRecorder

if TYPE_CHECKING:
    from playbook.speech.audio import Sound

IMPATIENT_S = 2.0
"""How long a session may take to close after somebody asked for the second time."""


@dataclass(frozen=True, slots=True)
class Cue:
    """A trigger that is given by itself, `after_ms` on the timeline (the trigger `go`: after the session opened). For rehearsals."""

    trigger: str
    after_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to perform a plan. Everything has a default that suits a program; the command line sets the rest.

    `env` holds credentials and addresses. `interactive` says that triggers can still come from outside. `watch` sees every line of the log.
    """

    folder: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    state_dir: Path | None = None
    cues: Sequence[Cue] = ()
    interactive: bool = False
    watch: Callable[[Line], None] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    provider: Provider | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that is over. `failures` are the expectations that did not come true."""

    result: Result
    summary: RunSummary
    folder: Path
    failures: tuple[Conflict, ...] = ()


class Runner:
    """Performs one plan, once: `await Runner(plan, options).run()`. `stop` and `trigger` may be called from the same loop meanwhile."""

    def __init__(self, plan: Plan, options: Options | None = None) -> None:
        self.plan = plan
        self.options = options or Options()
        self.engine = Engine(plan)
        self.summary = RunSummary()
        self.redact = Redactor(plan.secrets)
        self.folder: Path | None = None
        self._interactive = self.options.interactive
        self._inbox: deque[Event] = deque()
        self._busy = False
        self._timers: dict[tuple[str | None, str], asyncio.TimerHandle] = {}
        self._expected_triggers: list[str] = []
        self._crash: BaseException | None = None
        self._disk: str | None = None
        self._stops = 0

    # --- from outside -----------------------------------------------------------------------------------------------

    def stop(self, reason: str) -> None:
        """Stop in order: the speech, the session, the log. Asked twice: at once, but the session is still closed."""
        self._stops += 1
        self._emit(StopRequested(reason))
        if self._stops > 1 and self.engine.phase == "closing":
            self._give_up_at(IMPATIENT_S)

    def trigger(self, name: str) -> None:
        """Give a named sign."""
        self._emit(Trigger(name))

    def no_more_triggers(self) -> None:
        """Nobody outside gives a sign any more; what waits for one has stalled."""
        self._interactive = False
        self._stop_if_stalled()
        if not self._busy:
            self._drain()

    async def run(self) -> Outcome:
        """Perform the plan. Raises `UsageError` or `SetupError` before anything began; after that everything is in the outcome, but for a
        bug of ours, which is raised when the session has been closed."""
        provider = self.options.provider or registry.find(self.plan.provider)
        if provider is None:
            raise SetupError(f"there is no provider '{self.plan.provider}'")
        folder = _make_folder(self.options.folder, self.plan)
        self.folder = self._folder = folder
        self._clock = Clock()
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            (folder / "plan.json").write_text(_plan_text(self.plan), "utf-8")
            self._log = RunLog(folder / "run.jsonl", redact=self.redact, watch=self._watch)
            self._log.header(self._header(folder))
        except OSError as error:
            raise SetupError(f"{folder} cannot be written: {error.strerror}") from error
        show = ShowRecorder()
        try:
            self._session = self._connect(provider, folder, show)
            with self._signals():
                self._carry_out(self._log_and_filter(self.engine.begin(), self._clock.now_ms()))
                self._drain()
                await self._finished
            if self._crash is not None:
                with contextlib.suppress(OSError):
                    self._log.end(self._clock.now_ms(), "error", "internal error", self.summary.counts())
                raise self._crash
            return self._outcome(show)
        finally:
            (folder / "session.json").unlink(missing_ok=True)
            for handle in self._timers.values():
                handle.cancel()
            self._log.close()

    def _watch(self, line: Line) -> None:
        if "runlog" not in line:
            self.summary.take(line)
        if self.options.watch is not None:
            self.options.watch(line)

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        """The inbox. What a command brings about while it is carried out waits its turn."""
        self._inbox.append(event)
        if not self._busy:
            self._drain()

    def _drain(self) -> None:
        self._busy = True
        try:
            while self._inbox:
                event = self._inbox.popleft()
                if self._crash is not None and isinstance(event, SessionClosed):
                    self._finish()
                if self.engine.done or self._crash is not None:
                    continue
                now = self._clock.now_ms()  # read once: a log whose times are not the engine's could not be replayed
                effects = self.engine.handle(event, now)
                self._carry_out(self._log_and_filter((event, *effects), now))
                self._after(event)
        except Exception as error:  # a bug of ours, wherever it is: the session must not outlive it
            self._inbox.clear()
            self._crashed(error)
        finally:
            self._busy = False

    def _log_and_filter(self, items: Sequence[Event | Effect], now: int) -> Sequence[Event | Effect]:
        """Log, then hand on what may be carried out: nothing is said that could not be recorded."""
        if self._disk is None:
            try:
                self._log.write(items, now)
                return items
            except OSError as error:
                self._disk = f"disk: the run log cannot be written: {error.strerror}"
                self._inbox.append(StopRequested(self._disk))
        return [item for item in items if not isinstance(item, (OpenSession, SayText, PlayAudio))]

    def _carry_out(self, items: Sequence[Event | Effect]) -> None:
        for item in items:
            action = _ACTIONS.get(type(item))
            if action is not None:
                action(self, item)

    def _after(self, event: Event) -> None:
        """What the run needs beside the engine: rehearsed triggers, stalls, the end."""
        if self.engine.done:
            self._finish()
            return
        if isinstance(event, SessionOpened):
            self._schedule(lambda cue: self.plan.start.kind == "go" and cue.trigger == "go", self._clock.now_ms())
        elif isinstance(event, Trigger) and event.trigger in self._expected_triggers:
            self._expected_triggers.remove(event.trigger)
        self._stop_if_stalled()

    def _stop_if_stalled(self) -> None:
        awaited = self.engine.stalled_on
        if awaited is not None and not self._interactive and awaited not in self._expected_triggers:
            step = self.engine.current_step
            where = f"step '{step.id}'" if step is not None else "the start"
            self._inbox.append(StopRequested(f"stall: {where} waits for the trigger '{awaited}', which nothing can give any more"))

    def _schedule(self, wanted: Callable[[Cue], bool], origin_ms: int) -> None:
        for cue in self.options.cues:
            if wanted(cue):
                self._expected_triggers.append(cue.trigger)
                self._clock.call_at(origin_ms + cue.after_ms, lambda name=cue.trigger: self._emit(Trigger(name)))  # type: ignore[misc]

    def _timeline_zero(self, _: TimelineZero) -> None:
        zero = self.engine.timeline_zero_ms
        self._show.zero(zero)
        self._schedule(lambda cue: not (self.plan.start.kind == "go" and cue.trigger == "go"), zero)

    def _start_timer(self, command: StartTimer) -> None:
        key = (command.step, command.reason)
        if (old := self._timers.pop(key, None)) is not None:
            old.cancel()
        fired = TimerFired(command.step, command.reason, command.due_ms)
        self._timers[key] = self._clock.call_at(command.due_ms, lambda: self._fire(key, fired))

    def _fire(self, key: tuple[str | None, str], fired: TimerFired) -> None:
        del self._timers[key]
        self._emit(fired)

    def _cancel_timer(self, command: CancelTimer) -> None:
        if (handle := self._timers.pop((command.step, command.reason), None)) is not None:
            handle.cancel()

    def _close(self, command: CloseSession) -> None:
        self._session.close(command.reason)
        self._give_up_at(IMPATIENT_S if self._stops > 1 else CLOSE_BUDGET_S + IMPATIENT_S)

    def _give_up_at(self, after_s: float) -> None:
        due = self._clock.now_ms() + int(after_s * 1000)
        self._clock.call_at(due, lambda: self._emit(SessionClosed("ending the session took too long", status="failed")))

    # --- what can go wrong around it --------------------------------------------------------------------------------

    def _crashed(self, error: BaseException) -> None:
        """A bug of ours: close the session, whatever the engine is able to say, and let the error out afterwards."""
        if self._crash is not None:
            return
        self._crash = error
        self._session.close("internal error")
        self._clock.call_at(self._clock.now_ms() + int(CLOSE_BUDGET_S * 1000), self._finish)

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP stop the run in order."""
        loop = asyncio.get_running_loop()
        installed = []
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):  # not the main thread, not POSIX
                loop.add_signal_handler(getattr(signal, name), self.stop, name)
                installed.append(getattr(signal, name))
        try:
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)

    # --- before and after -------------------------------------------------------------------------------------------

    def _connect(self, provider: Provider, folder: Path, show: ShowRecorder) -> Session:
        self._show = show
        state = self.options.state_dir
        return provider.connect(
            Context(
                plan=self.plan,
                clock=self._clock,
                emit=self._emit,
                env=self.options.env,
                journal=NoEntry() if state is None else Journal(state, redact=self.redact).entry(folder.name, self.plan.name),
                seal=self.redact.add,
                publish=self._publish,
                sound=self._sound,
                crash=self._crashed,
                folder=folder,
                extras={"show": show, **self.options.extras},
            )
        )

    def _header(self, folder: Path) -> Header:
        return Header(
            run=folder.name,
            playbook=self.plan.name,
            file=self.plan.file,
            plan_sha256=self.plan.sha256,
            provider=self.plan.provider,
            clock=self._clock.name,
            started_at=wall_time().isoformat(timespec="milliseconds"),
            versions={"playbook": metadata.version("playbook-runner"), "python": platform.python_version()},
        )

    def _publish(self, viewer: Mapping[str, Any]) -> None:
        """Hand a viewer what it needs. Only the owner may read it, and it is gone when the session is."""
        path = self._folder / "session.json"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(viewer, file, indent=1)

    def _sound(self, sha256: str) -> Sound:
        from playbook.speech.audio import decode

        source = self.plan.sounds[sha256]
        return decode(Path(source) if isinstance(source, str) else source)

    def _outcome(self, show: ShowRecorder) -> Outcome:
        result = self.engine.result
        assert result is not None
        now = self._clock.now_ms()
        self.summary.counts()  # takes the last line into account
        failures = failed_expectations(self.plan, self.summary) if result.end in ("passed", "failed") else ()
        result = judged(result, failures, self.plan)
        zero = self.summary.zero_ms
        try:
            if self._disk is None:
                self._log.write(failures, now)
                self._log.end(now, result.end, result.reason, self.summary.counts())
            if zero is not None:
                write_captions(self._folder, self.summary, show)
                show.write(self._folder / "audio.wav", now - zero)
        except OSError as error:
            result = Result("error", 4, f"disk: {self._folder} cannot be written: {error.strerror}")
        return Outcome(result, self.summary, self._folder, failures)


def _plan_text(plan: Plan) -> str:
    """`plan.json`: readable, one step a line."""
    data = plan_to_json(plan)
    steps = ",\n".join("  " + json.dumps(step, ensure_ascii=False) for step in data.pop("steps"))
    return json.dumps(data, ensure_ascii=False, indent=1).removesuffix("\n}") + f',\n "steps": [\n{steps}\n ]\n}}\n'


def _make_folder(folder: Path | None, plan: Plan) -> Path:
    """The run folder, which must be new or empty."""
    if folder is None:
        stamp = wall_time().strftime("%Y%m%dT%H%M%S")
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", plan.name).strip("-.") or "run"
        base = Path("runs") / f"{stamp}-{name}"
        folder, n = base, 1
        while folder.exists():
            n += 1
            folder = base.with_name(f"{base.name}-{n}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"the run folder {folder} is in use", remedy="name a new folder, or remove this one")
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"the run folder {folder} is no folder", remedy="name a new folder") from error
    except OSError as error:
        raise SetupError(f"the run folder {folder} cannot be made: {error.strerror}") from error
    return folder


_ACTIONS: dict[type, Callable[[Runner, Any], None]] = {
    OpenSession: lambda run, _: run._session.open(),
    SayText: lambda run, command: run._session.say(command),
    PlayAudio: lambda run, command: run._session.play_audio(command),
    StopSpeaking: lambda run, command: run._session.interrupt(command),
    StartTimer: Runner._start_timer,
    CancelTimer: Runner._cancel_timer,
    CloseSession: Runner._close,
    TimelineZero: Runner._timeline_zero,
}
