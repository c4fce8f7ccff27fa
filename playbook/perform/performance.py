"""The only loop: inbox to engine to provider, every line logged first.

The runner owns what the engine may not know: the clock, the provider's session, the run folder, signals. An event is stamped, given to
the engine, logged together with what follows from it, and only then are the commands carried out. Nothing here decides anything about
speech.

The session is leased (`playbook.sessions`): for this run alone, or from whoever keeps it. What a run leaves behind is `folder`'s business.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from playbook.clock import Clock
from playbook.engine import Engine, Result
from playbook.errors import PlaybookError, RunError, SetupError, reason_of
from playbook.events import (
    CancelTimer,
    CloseSession,
    Conflict,
    Effect,
    Event,
    Ignored,
    OpenSession,
    PlayAudio,
    SayText,
    SessionClosed,
    SessionOpened,
    Signal,
    SpeechEnded,
    StartTimer,
    StopCause,
    StopRequested,
    StopSpeaking,
    TimelineZero,
    Timer,
    TimerFired,
)
from playbook.folders import withdraw
from playbook.model import Plan
from playbook.perform.folder import RunFolder, sound_of
from playbook.perform.resume import resume_at
from playbook.perform.steering import Cue, Steering
from playbook.ports import CLOSE_BUDGET_S, CREATE_BUDGET_S, Control, Transports
from playbook.providers import registry
from playbook.providers.base import Provider
from playbook.record.expect import failed_expectations, judged
from playbook.record.redact import Redactor
from playbook.record.runlog import Line
from playbook.record.summary import RunSummary
from playbook.sessions.kept import KeptSession, Lease, Terms, length_ms
from playbook.speech.show import Listener, ShowRecorder
from playbook.transports.factory import transports_for

IMPATIENT_S = 2.0
"""How long a session may take to close after somebody asked for the second time. (Not while it is being created: what has no id yet can
only be ended when the vendor has named it.)"""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What stops a run in order."""

_under_way: dict[asyncio.AbstractEventLoop, list[Runner]] = {}
"""The runs of each loop. Signals are the process's, so one stops them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to perform a plan. Everything has a default that suits a program; the command line sets the rest.

    `env` holds credentials and addresses. `transports`: those that it describes, unless given. `controls` are those who can
    give signals from outside. `watch` sees every line of the log.
    `objection` is asked when a show has come to its end: why the run failed all the same, or None.
    `live` hears of every sound that we make, at the moment when it begins or changes. Without `keep_sound` neither sound nor captions are
    written.
    Without `catch_signals` the process's signals are somebody else's.
    """

    folder: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    state_dir: Path | None = None
    cues: Sequence[Cue] = ()
    controls: Sequence[Control] = ()
    watch: Callable[[Line], None] | None = None
    objection: Callable[[], str | None] = lambda: None
    live: Sequence[Listener] = ()
    transports: Transports | None = None
    provider: Provider | None = None
    keep_sound: bool = True
    catch_signals: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that is over. `failures` are the expectations that did not come true. `resume_at` is, where it failed, the step at which
    the show can go on (`Plan.after`): the line to say again, never one that was heard to its end."""

    result: Result
    summary: RunSummary
    folder: Path
    failures: tuple[Conflict, ...] = ()
    resume_at: str | None = None


class Runner:
    """Performs one plan, once: `await Runner(plan, options).run()`. `stop`, and what a `Steered` has, may be called from the same loop
    meanwhile.

    It leases `session`, or one that it opens for itself. With a session, the options' `env`, `state_dir`, `transports` and `provider` are
    not used."""

    def __init__(self, plan: Plan, options: Options | None = None, session: KeptSession | None = None) -> None:
        self.plan = plan
        self.options = options or Options()
        self.engine = Engine(plan)
        self.redact = Redactor(plan.secrets)
        self.folder: Path | None = None
        self._kept = session
        self._session: Lease
        self._steering = Steering(plan, self.engine, self.options.cues, [control.source for control in self.options.controls])
        self._inbox: deque[Event] = deque()
        self._busy = False
        self._timers: dict[tuple[str | None, Timer], asyncio.TimerHandle] = {}  # the engine's
        self._later: list[asyncio.TimerHandle] = []  # the run's own
        self._asked: Event | None = None  # whose answer somebody waits for, and what that is
        self._answer: str | None = None
        self._crash: BaseException | None = None
        self._disk: str | None = None
        self._stops = 0
        self._opened = self._closed = False
        self._batch: Sequence[Event | Effect] = ()  # what is being carried out

    # --- from outside -----------------------------------------------------------------------------------------------

    @property
    def session(self) -> KeptSession:
        """The session that it leases, while it does."""
        return self._session.kept

    def words(self, task: str) -> Sequence[tuple[int, int]]:
        """When the words of a line begin that we speak, and where they stand in it: as far as is known by now."""
        return self._show.words.get(task, ())

    def stop(self, reason: str, cause: StopCause = StopCause.INTERRUPT) -> None:
        """Stop in order: the speech, the session, the log. Asked twice: at once, but the session is still closed."""
        self._stop(StopRequested(reason, cause))

    def offer(self, signal: str, *, source: str, step: str | None = None) -> str | None:
        """Give a signal, or a trigger by its name; `step` goes with `goto`. Gives the reason where it is ignored."""
        event = self._steering.read(signal, source, step, self._clock.now_ms())
        if isinstance(event, str):
            return event
        if isinstance(event, Signal) and event.name == "end":
            return self._stop(event)
        return self._ask(event)

    def emit(self, event: Event) -> None:
        """Tell of something that happened. What a command brings about while it is carried out waits its turn."""
        self._inbox.append(event)
        if not self._busy:
            self._drain()

    def no_more(self, source: str) -> None:
        """This control gives no further signal. Without any, what waits for one has stalled, and a show that waits for its beginning is
        over."""
        self._steering.no_more(source)
        self._stop_if_stalled()
        if not self._busy:
            self._drain()

    def _stop(self, event: Event) -> str | None:
        self._stops += 1
        answer = self._ask(event)
        if self._stops > 1 and self.engine.phase == "closing":
            self._give_up()
        return answer

    def _ask(self, event: Event) -> str | None:
        """Emit an event and tell why it was ignored, if it was; when one is being handled now, nobody can tell."""
        self._asked, self._answer = event, None
        self.emit(event)
        return self._answer

    async def run(self) -> Outcome:
        """Perform the plan. Raises `UsageError`, `SetupError` or `Stall` before anything began; after that everything is in the outcome,
        but for a bug of ours, which is raised when the session has been closed. A task that is cancelled stops in order before it ends."""
        provider = self.options.provider or registry.find(self.plan.provider)
        if provider is None:
            raise SetupError(f"there is no provider '{self.plan.provider}'")
        if self._kept is not None:
            self._kept.refuse(self.plan)
        folder = self._folder = RunFolder(self.options.folder, self.plan)
        self.folder = folder.path
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lease = None if self._kept is None else self._lend(self._kept)
        self._clock = Clock() if lease is None else lease.clock
        try:
            self._log = folder.begin(self._clock, self.redact, self.options.watch)
        except SetupError:
            if lease is not None:
                lease.end()
            raise
        refused = False
        try:
            try:
                if lease is None:
                    lease = self._lend(self._open_session(provider))
                self._session = lease
                show = self._show = ShowRecorder(self.options.live, began_ms=lease.began_ms, prefix=lease.prefix)
                lease.load(partial(sound_of, self.plan), show)
                self._steering.refuse_a_sure_stall()
            except PlaybookError as error:  # a credential is missing, say: the run is over, and its log is whole
                end = "failed" if isinstance(error, RunError) else "error"
                self._log.end(self._clock.now_ms(), end, error.message, RunSummary().counts())
                refused = True
                raise
            with contextlib.ExitStack() as around:
                if self.options.catch_signals:
                    around.enter_context(self._signals())
                for control in self.options.controls:
                    around.enter_context(control.attach(self))
                self._begin()
                cancelled = await self._wait_finished()
                if self._crash is not None:
                    with contextlib.suppress(OSError):
                        self._log.end(self._clock.now_ms(), "error", "internal error", self._summary().counts())
                    raise self._crash
                outcome = self._outcome(show)  # a signal now comes too late to stop anything, and must not cut the files
        finally:
            for handle in (*self._timers.values(), *self._later):
                handle.cancel()
            if lease is not None:
                lease.end()
            if self._kept is None:
                withdraw(folder.path)
            disk = self._close_log()
            if refused and folder.remove_unless_given():
                self.folder = None
        if cancelled is not None:
            raise cancelled
        return outcome if disk is None else replace(outcome, result=Result("error", 4, disk))

    def _begin(self) -> None:
        try:
            self._carry_out(self._log_and_filter(self.engine.begin(), self._clock.now_ms()))
        except Exception as error:
            self._crashed(error)
        self._drain()

    async def _wait_finished(self) -> asyncio.CancelledError | None:
        """Whoever cancels the run (a time-out around it, a program that ends) is heard, and answered when the session is closed."""
        cancelled = None
        while not self._finished.done():
            try:
                await asyncio.wait([self._finished])
            except asyncio.CancelledError as error:
                cancelled = error
                self.stop("cancelled", StopCause.TERMINATE)
                if self.engine.phase == "closing":  # a program that ends cancels whatever its loop does, this as well
                    self._session.close("cancelled")
        return cancelled

    # --- the loop ---------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        self._busy = True
        try:
            while self._inbox:
                try:
                    self._take(self._inbox.popleft())
                except Exception as error:  # a bug of ours, wherever it is: the session must not outlive it
                    self._inbox.clear()
                    self._crashed(error)
        finally:
            self._busy = False

    def _take(self, event: Event) -> None:
        self._closed = self._closed or isinstance(event, SessionClosed)
        if self._crash is not None and self._closed:
            self._finish()
        if self.engine.done or self._crash is not None:
            return
        now = self._clock.now_ms()  # read once: a log whose times are not the engine's could not be replayed
        asked, event = event is self._asked, self._steering.resolved(event)
        effects = self.engine.handle(event, now)
        if asked:
            self._answer = next((effect.reason for effect in effects if isinstance(effect, Ignored)), None)
        self._carry_out(self._log_and_filter((event, *effects), now))
        self._after(event)

    def _log_and_filter(self, items: Sequence[Event | Effect], now: int) -> Sequence[Event | Effect]:
        """Log, then hand on what may be carried out: nothing is said that could not be recorded."""
        if self._disk is None:
            try:
                self._log.write(items, now)
                return items
            except OSError as error:
                self._disk = f"disk: the run log cannot be written: {reason_of(error)}"
                self._inbox.append(StopRequested(self._disk, StopCause.DISK))
        return [item for item in items if not isinstance(item, (OpenSession, SayText, PlayAudio))]

    def _carry_out(self, items: Sequence[Event | Effect]) -> None:
        self._batch = items
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
            self._opened = True
            self._steering.schedule(self._clock.now_ms(), opening=True, call_at=self._cue_at)
        self._stop_if_stalled()

    def _stop_if_stalled(self) -> None:
        if (stop := self._steering.stall()) is not None:
            self._inbox.append(stop)

    def _cue_at(self, due_ms: int, cue: str) -> None:
        def give() -> None:
            self._steering.came(cue)
            self.offer(cue, source="cue")

        self._call_at(due_ms, give)

    def _timeline_zero(self, _: TimelineZero) -> None:
        zero = self.engine.timeline_zero_ms
        self._show.zero(zero)
        self._steering.schedule(zero, opening=False, call_at=self._cue_at)

    def _start_timer(self, command: StartTimer) -> None:
        key = (command.step, command.reason)
        if (old := self._timers.pop(key, None)) is not None:
            old.cancel()
        fired = TimerFired(command.step, command.reason, command.due_ms)
        self._timers[key] = self._clock.call_at(command.due_ms, lambda: self._fire(key, fired))

    def _fire(self, key: tuple[str | None, Timer], fired: TimerFired) -> None:
        del self._timers[key]
        self.emit(fired)

    def _cancel_timer(self, command: CancelTimer) -> None:
        if (handle := self._timers.pop((command.step, command.reason), None)) is not None:
            handle.cancel()

    def _close(self, command: CloseSession) -> None:
        # Lines that are closed together with the session may still be heard, so nobody else can have it.
        cut = any(isinstance(item, SpeechEnded) and item.interrupted and item.outcome == "settled" for item in self._batch)
        if cut or self._stops > 1 or self._crash is not None:
            self._session.close(command.reason)
        else:
            self._session.give_back(command.reason)
        self._give_up()

    def _give_up(self) -> None:
        """Do not wait for ever for the end of the session."""
        after_s = CLOSE_BUDGET_S + IMPATIENT_S
        if not self._opened:
            after_s += CREATE_BUDGET_S
        elif self._stops > 1:
            after_s = IMPATIENT_S
        due = self._clock.now_ms() + int(after_s * 1000)
        self._call_at(due, lambda: self.emit(SessionClosed("ending the session took too long", status="failed")))

    def _call_at(self, due_ms: int, do: Callable[[], None]) -> None:
        """Do something then, if the run still goes on."""
        self._later.append(self._clock.call_at(due_ms, do))

    # --- what can go wrong around it --------------------------------------------------------------------------------

    def _crashed(self, error: BaseException) -> None:
        """A bug of ours: close the session, whatever the engine is able to say, and let the error out afterwards."""
        if self._crash is not None:
            return
        self._crash = error
        if self._closed:
            self._finish()
        self._session.close("internal error")
        self._call_at(self._clock.now_ms() + int((CREATE_BUDGET_S + CLOSE_BUDGET_S) * 1000), self._finish)

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP stop every run of this loop in order. A SIGHUP that is ignored (`nohup`) stays so."""
        loop = asyncio.get_running_loop()
        runs = _under_way.setdefault(loop, [])
        runs.append(self)

        def stop_all(number: signal.Signals) -> None:
            cause = StopCause.INTERRUPT if number is signal.SIGINT else StopCause.TERMINATE
            for run in tuple(runs):
                run.stop(number.name, cause)

        for number in SIGNALS if len(runs) == 1 else ():
            with contextlib.suppress(RuntimeError, ValueError):  # not the main thread
                if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN:
                    loop.add_signal_handler(number, stop_all, number)
        try:
            yield
        finally:
            runs.remove(self)
            if not runs:
                del _under_way[loop]
                for number in SIGNALS:
                    loop.remove_signal_handler(number)

    # --- before and after -------------------------------------------------------------------------------------------

    def _open_session(self, provider: Provider) -> KeptSession:
        """A session for this run alone."""
        plan, options = self.plan, self.options
        terms = Terms(
            provider=provider,
            settings=plan.session,
            env=options.env,
            transports=options.transports or transports_for(plan.provider, options.env),
            name=plan.name,
            lasts_ms=length_ms(plan),
            place_of=plan.place_of,
        )
        return KeptSession(terms, self._folder.path, state_dir=options.state_dir, clock=self._clock, once=True)

    def _lend(self, kept: KeptSession) -> Lease:
        return kept.lend(self.plan, self.emit, crash=self._crashed, redact=self.redact)

    def _summary(self) -> RunSummary:
        """What the log tells by now. It is read when the show is over, so that a show of any length needs the same memory."""
        summary = RunSummary()
        try:
            for line in self._log.lines():
                summary.take(line)
        except OSError as error:
            self._disk = self._disk or f"disk: the run log cannot be read: {reason_of(error)}"
        except (ValueError, KeyError, TypeError, AttributeError):
            self._disk = self._disk or "disk: the run log was damaged during the run"
        summary.finish()
        return summary

    def _outcome(self, show: ShowRecorder) -> Outcome:
        result = self.engine.result
        assert result is not None
        now, summary = self._clock.now_ms(), self._summary()
        failures = failed_expectations(self.plan, summary) if result.end in ("passed", "failed") else ()
        result = judged(result, failures, self.plan)
        if result.exit_code == 0 and (objection := self.options.objection()) is not None:
            result = Result("failed", 1, objection)
        try:
            if self.options.keep_sound:
                self._folder.write_show(show, summary, now)
        except OSError as error:
            result = Result("error", 4, f"disk: {self.folder} cannot be written: {reason_of(error)}")
        except SetupError as error:  # a sound that is gone
            result = Result("error", 4, error.message)
        result = replace(result, reason=result.reason and self.redact(result.reason))
        try:
            if self._disk is None:  # last of all, because the last line says how the run ended
                for line in self._log.write(failures, now):
                    summary.take(line)
                summary.take(self._log.end(now, result.end, result.reason, summary.counts()))
        except OSError as error:
            result = Result("error", 4, f"disk: {self.folder} cannot be written: {reason_of(error)}")
        if self._disk is not None and result.exit_code == 0:  # it was said to its end, but there is no proof of it
            result = Result("error", 4, self._disk)
        resume = resume_at(self.plan, summary) if result.exit_code else None
        return Outcome(result, summary, self._folder.path, failures, resume)

    def _close_log(self) -> str | None:
        """Why the log could not be kept, if so."""
        try:
            self._log.close()
        except OSError as error:
            return f"disk: {self.folder} cannot be written: {reason_of(error)}"
        return None


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
