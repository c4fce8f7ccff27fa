"""The contract between the runner and a provider.

A provider is one file: a `Provider` that knows, before a run, what it can do with given settings and what is doubtful about a plan, and a
`Session` that is opened, spoken through and closed. The methods of a session return at once; what becomes of them arrives as events
through `Context.emit`:

* `open` leads to one `SessionOpened`, or to a `ProviderFailed` without a task (with `session` if one was created and must be closed).
* `say` and `play_audio` lead to one `TaskAccepted`, or to a `ProviderFailed` with the task; where speech is reported, then to
  `SpeechStarted` and `SpeechEnded` as they come.
* `interrupt` leads to one `TaskAccepted`, or to a `ProviderFailed` with the interrupt's task; where speech is reported, then to a
  `SpeechEnded(interrupted=True, heard_ms=…)` for each line that it stopped, also for one that never began (`heard_ms` 0).
* `close` leads to one `SessionClosed`, and nothing comes after it.

Rules: commands arrive in order and are carried out in order. `close` may come at any moment, also while `open` is under way, and ends
whatever was created. A line is sent at most once; what may or may not have arrived is `ambiguous` and is not repeated. A session that
dies by itself is one `ProviderFailed(outcome="lost")`. Nothing here knows the engine or the log.
"""

from __future__ import annotations

import asyncio
import datetime
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from playbook.clock import Clock
from playbook.errors import Problem, ProviderError, SetupError
from playbook.model import (
    Capabilities,
    Event,
    Length,
    Plan,
    PlayAudio,
    ProviderFailed,
    SayText,
    SessionClosed,
    SessionOpened,
    StopSpeaking,
    TaskAccepted,
)

if TYPE_CHECKING:
    from playbook.speech.audio import Sound

T = TypeVar("T")

CLOSE_BUDGET_S = 20.0
"""How long ending a session may take, retries included."""


class JournalEntry(Protocol):
    """The record of one billed session (`sessions.Journal` writes it; a session that costs nothing needs none)."""

    def intent(self, provider: str, **facts: Any) -> None:
        """Written and synced before the vendor is asked to create anything."""

    def created(self, session: str, **end: Any) -> None:
        """The vendor's id, and whatever is needed to end the session from another process (it may be a credential: it is kept, readable by
        its owner alone, only while the session is open)."""

    def ended(self, reason: str) -> None:
        """The session is surely over, or surely never was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A session that the journal holds open.

    `session` is None where only the intent was written: a create whose answer nobody saw. `alive` says whether the process that opened
    it still runs (None: it is another machine's). `facts` are what the intent was given, `end` what `created` was given.
    """

    key: str
    provider: str
    session: str | None
    playbook: str
    run: str
    pid: int
    alive: bool | None
    since: datetime.datetime
    ends_by: datetime.datetime | None = None
    """When the vendor's own limit will have ended it, where that is known."""
    price_per_minute: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    end: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def cost(self, now: datetime.datetime) -> float | None:
        """What it is estimated to have cost until now."""
        if self.price_per_minute is None:
            return None
        until = now if self.ends_by is None else min(now, self.ends_by)
        return max(0.0, (until - self.since).total_seconds()) / 60 * self.price_per_minute


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session that the vendor says is open, whoever opened it."""

    session: str
    since: datetime.datetime | None = None
    name: str = ""


@runtime_checkable
class EndsSessions(Protocol):
    """A provider that can end a session of a process that is gone."""

    async def end_session(self, record: SessionRecord, env: Mapping[str, str]) -> None:
        """Return when the session is over, also when it had been already. `record.session` is never None. Raises `ProviderError` or
        `SetupError`. Writes nothing to the journal."""


@runtime_checkable
class ListsSessions(Protocol):
    """A provider whose vendor tells which sessions are open."""

    async def list_sessions(self, env: Mapping[str, str]) -> Sequence[FoundSession]:
        """All that are open with these credentials. Raises `ProviderError` or `SetupError`."""


@runtime_checkable
class PacesLines(Protocol):
    """A provider that can tell better than the general estimate how long lines of text take, because its settings bear on it."""

    def lengths(self, plan: Plan) -> Sequence[Length | None]:
        """One entry a step; None for what is no line of text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the runner lends a session.

    `env` holds credentials and base URLs (never read `os.environ`). `seal` registers a value that must never be shown. `publish`
    writes `session.json` for a viewer. `sound` gives an echoed sound, decoded, by its digest. `crash` takes an exception that is our bug.
    `extras` is for tests and rehearsals (a stand-in transport under the transport's name).
    """

    plan: Plan
    clock: Clock
    emit: Callable[[Event], None]
    env: Mapping[str, str]
    journal: JournalEntry
    seal: Callable[[str], None]
    publish: Callable[[Mapping[str, Any]], None]
    sound: Callable[[str], Sound]
    crash: Callable[[BaseException], None]
    folder: Path | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


class Session(Protocol):
    """One session with a provider. See the top of the file for what each call owes."""

    def open(self) -> None: ...
    def say(self, command: SayText) -> None: ...
    def play_audio(self, command: PlayAudio) -> None: ...
    def interrupt(self, command: StopSpeaking) -> None: ...
    def close(self, reason: str) -> None: ...


class Provider(Protocol):
    """What the registry holds. `settings` are the playbook's `session`, already valid by the provider's schema and rendered."""

    name: str
    schema: str
    """The file name of its session schema under `schemas/providers/`."""

    @property
    def credentials(self) -> Sequence[Sequence[str]]:
        """The environment variables it reads credentials from: ways to be let in, each a group of which all are needed. Empty: none."""

    def capabilities(self, settings: Mapping[str, Any]) -> Capabilities:
        """What it can do with these settings."""

    def check(self, plan: Plan) -> Iterable[Problem]:
        """Problems and warnings of its own about a compiled plan, with the step's `place`."""

    def connect(self, context: Context) -> Session:
        """A session, not yet opened. Does no I/O; raises `SetupError` where a credential is missing."""


class QueuedSession(ABC):
    """A session that talks to the outside: one worker carries out one command after another.

    A provider fills in the five coroutines. They return when the vendor has answered and raise `ProviderError` when it refused; this
    class turns that into the events that the contract asks for. `self.session_id` is set by `_open` as soon as the vendor has named
    the session, so that a failure after that moment still leads to a close.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.emit = context.emit
        self.session_id: str | None = None
        self._queue: deque[tuple[Callable[[], Awaitable[None]], SayText | PlayAudio | StopSpeaking | None]] = deque()
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._creating: asyncio.Task[Any] | None = None
        self._closing = False
        self._lost = False

    # what a provider writes

    @abstractmethod
    async def _open(self) -> str | None:
        """Open the session and set `self.session_id`. Returns a remark for the log, or None."""

    @abstractmethod
    async def _say(self, command: SayText) -> TaskAccepted:
        """Send one chunk."""

    @abstractmethod
    async def _play_audio(self, command: PlayAudio) -> TaskAccepted:
        """Send one sound."""

    @abstractmethod
    async def _interrupt(self, command: StopSpeaking) -> TaskAccepted:
        """Stop the speech."""

    @abstractmethod
    async def _close(self, reason: str) -> None:
        """End whatever was created, also half of it; retry within the budget. Called exactly once, `_open` cancelled or over."""

    # what the runner calls

    def open(self) -> None:
        self._worker = self._spawn(self._work())
        self._submit(self._do_open, None)

    def say(self, command: SayText) -> None:
        self._submit(lambda: self._do(self._say(command)), command)

    def play_audio(self, command: PlayAudio) -> None:
        self._submit(lambda: self._do(self._play_audio(command)), command)

    def interrupt(self, command: StopSpeaking) -> None:
        self._submit(lambda: self._do(self._interrupt(command)), command)

    def close(self, reason: str) -> None:
        if not self._closing:
            self._closing = True
            self._closer = self._spawn(self._do_close(reason))

    # helpers for providers

    def lost(self, reason: str, *, status: int | None = None) -> None:
        """Report, once, that the session has died by itself."""
        if not self._lost and not self._closing:
            self._lost = True
            self.emit(ProviderFailed(reason, outcome="lost", status=status, session=self.session_id))

    async def creating(self, call: Coroutine[Any, Any, T]) -> T:
        """Await the request that creates the session, such that a stop does not cut it off half-way: `close` lets it finish first, so
        that whatever it created is known and can be ended. `call` must set `self.session_id` and write the journal itself."""
        self._creating = asyncio.ensure_future(call)
        result: T = await asyncio.shield(self._creating)
        return result

    def in_background(self, work: Awaitable[None]) -> None:
        """Run something beside the commands (a keep-alive, a reader) until the session closes. An error in it loses the session."""

        async def guarded() -> None:
            try:
                await work
            except ProviderError as error:
                self.lost(error.message, status=error.status)

        task = self._spawn(guarded())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # the worker

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._report_crash)
        return task

    def _report_crash(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.context.crash(error)

    def _submit(self, job: Callable[[], Awaitable[None]], command: SayText | PlayAudio | StopSpeaking | None) -> None:
        self._queue.append((job, command))
        self._wake.set()

    async def _work(self) -> None:
        while True:
            while self._queue:
                job, command = self._queue.popleft()
                try:
                    await job()
                except ProviderError as error:
                    self._failed(error, command)
                except SetupError as error:  # a journal that cannot be written, say
                    self._failed(ProviderError(error.message, remedy=error.remedy), command)
            self._wake.clear()
            await self._wake.wait()

    async def _do_open(self) -> None:
        remark = await self._open()
        assert self.session_id is not None
        self.emit(SessionOpened(self.session_id, reason=remark))

    async def _do(self, call: Awaitable[TaskAccepted]) -> None:
        self.emit(await call)

    def _failed(self, error: ProviderError, command: SayText | PlayAudio | StopSpeaking | None) -> None:
        if command is None or error.outcome == "lost":
            if not self._lost:
                self._lost = True
                outcome = error.outcome
                self.emit(ProviderFailed(error.message, outcome=outcome, status=error.status, session=self.session_id))
            return
        chunk = command.chunk if isinstance(command, SayText) else None
        self.emit(ProviderFailed(error.message, outcome=error.outcome, task=command.task, chunk=chunk, status=error.status))

    async def _do_close(self, reason: str) -> None:
        await self._stop(self._worker)
        for task in list(self._background):
            await self._stop(task)
        try:
            async with asyncio.timeout(CLOSE_BUDGET_S):
                if self._creating is not None:
                    await asyncio.wait([self._creating])
                await self._close(reason)
        except (ProviderError, TimeoutError) as error:
            text = error.message if isinstance(error, ProviderError) else "ending the session took too long"
            self.emit(SessionClosed(reason=text, status="failed"))
        except SetupError as error:  # the session is over, but the journal could not be told: it will offer to end it once more
            self.emit(SessionClosed(reason=error.message))
        else:
            self.emit(SessionClosed())

    @staticmethod
    async def _stop(task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
