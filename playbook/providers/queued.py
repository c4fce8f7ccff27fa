"""A session that talks to the outside, for providers to fill in: one worker carries out one command after another.

What a vendor's file has to say is how to open, say, play, stop and close; this file turns that into the events that the contract in `base`
asks for, whatever goes wrong. It stands apart from the contract because only a provider that waits for somebody needs it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from playbook.errors import PlaybookError, ProviderError, SetupError
from playbook.events import PlayAudio, ProviderFailed, SayText, SessionClosed, SessionOpened, StopSpeaking, TaskAccepted
from playbook.ports import CLOSE_BUDGET_S, CREATE_BUDGET_S
from playbook.providers.base import Context, Material
from playbook.transports.http import BACKOFF_MS

T = TypeVar("T")


class SessionGone(ProviderError):
    """There is no session to end: it ended by itself before. `repeated`: or by an end of ours, whose answer was lost."""

    def __init__(self, message: str, *, repeated: bool) -> None:
        super().__init__(message, outcome="lost")
        self.repeated = repeated


class QueuedSession(ABC):
    """Six coroutines for a provider to fill in, and one for those who have to prepare a performance.

    They return when the vendor has answered and raise `ProviderError` when it refused. `self.session_id` is set by `_open` as soon as
    the vendor has named the session, so that a failure after that moment still leads to a close.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.emit = context.emit
        self.session_id: str | None = None
        self._material: Material | None = None
        self._queue: deque[tuple[Callable[[], Awaitable[None]], SayText | PlayAudio | StopSpeaking | None]] = deque()
        self._wake = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._creating: asyncio.Task[Any] | None = None
        self._closer: asyncio.Task[None] | None = None  # held here, since a loop alone does not keep its tasks alive
        self._closing = False
        self._insisted = False  # that it be closed, though it is being closed
        self._released = False
        self._lost = False
        self._end_sent = False
        self._alive_ms: int | None = None

    # what a provider writes

    async def _prepare(self) -> None:  # noqa: B027 -- most have nothing to prepare
        """Get ready for the performance that was loaded: before the session costs anything, or while nobody speaks."""

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
    async def _close(self, reason: str) -> str | None:
        """End the session that was created, also half of it; retry within the budget. Called if there is one, `_open` cancelled or over,
        and again when it raised what is no `PlaybookError`. Returns a remark for the log, or None. Raises `SessionGone` when there was
        nothing to end. The journal is told by this file."""

    async def _release(self) -> None:  # noqa: B027 -- most have something to let go of, and need not
        """Let go of connections and whatever else is held. Called once, last of all, whatever became of the session."""

    # what the runner calls

    def load(self, material: Material) -> None:
        self._material = material

    def open(self) -> None:
        if self._worker is None:
            self._worker = self._spawn(self._work())
            self._submit(self._do_open, None)
        else:
            self._submit(self._do_get_ready, None)

    def say(self, command: SayText) -> None:
        self._submit(lambda: self._do(self._say(command)), command)

    def play_audio(self, command: PlayAudio) -> None:
        self._submit(lambda: self._do(self._play_audio(command)), command)

    def interrupt(self, command: StopSpeaking) -> None:
        self._submit(lambda: self._do(self._interrupt(command)), command)

    def close(self, reason: str) -> None:
        if self._closing:
            self._insisted = True
            return
        self._closing = True
        self._closer = self._spawn(self._do_close(reason))
        self._closer.add_done_callback(lambda task: self._close_again(reason) if task.cancelled() and self._insisted else None)

    # what a provider may call

    @property
    def material(self) -> Material:
        """What belongs to the performance of the moment."""
        assert self._material is not None, "nothing is said, played or prepared before a performance is loaded"
        return self._material

    def lost(self, reason: str, *, status: int | None = None) -> None:
        """Report, once, that the session has died by itself."""
        if not self._lost and not self._closing:
            self._lost = True
            self.emit(ProviderFailed(reason, outcome="lost", status=status, session=self.session_id, silent_ms=self._silent_ms()))

    def answered(self) -> None:
        """Note that the vendor has just done something with the session, so that it lives."""
        self._alive_ms = self.context.clock.now_ms()

    def _silent_ms(self) -> int | None:
        return None if self._alive_ms is None else self.context.clock.now_ms() - self._alive_ms

    async def creating(self, call: Coroutine[Any, Any, T]) -> T:
        """Await the request that creates the session, such that a stop does not cut it off half-way: `close` lets it finish first, so
        that whatever it created is known and can be ended. `call` must set `self.session_id` and write the journal itself."""
        self._creating = asyncio.ensure_future(call)
        self._creating.add_done_callback(self._report_bug)
        result: T = await asyncio.shield(self._creating)
        return result

    def in_background(self, work: Awaitable[None]) -> None:
        """Run something beside the commands (a keep-alive, a reader) until the session closes. An error in it loses the session."""

        async def guarded() -> None:
            try:
                await work
            except ProviderError as error:
                self.lost(_reason(error), status=error.status)

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

    def _report_bug(self, task: asyncio.Task[Any]) -> None:
        """What creating came to is for whoever awaits it; when nobody does any more, a bug in it must not get lost."""
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, PlaybookError):
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
                except (ProviderError, SetupError) as error:  # the latter where a journal cannot be written, say
                    opened = self.session_id is not None
                    if not opened:  # so nobody will close it
                        await self._let_go()
                    self._failed(error if isinstance(error, ProviderError) else ProviderError(error.message, remedy=error.remedy), command)
                    if not opened:
                        return
            self._wake.clear()
            await self._wake.wait()

    async def _do_open(self) -> None:
        if self._material is not None:
            await self._prepare()
        remark = await self._open()
        assert self.session_id is not None
        self.emit(SessionOpened(self.session_id, reason=remark))

    async def _do_get_ready(self) -> None:
        await self._prepare()
        assert self.session_id is not None
        self.emit(SessionOpened(self.session_id))

    async def _do(self, call: Awaitable[TaskAccepted]) -> None:
        accepted = await call
        self.answered()
        self.emit(accepted)

    def _failed(self, error: ProviderError, command: SayText | PlayAudio | StopSpeaking | None) -> None:
        reason = _reason(error)
        if command is None or error.outcome == "lost":
            if not self._lost:
                self._lost = True
                self.emit(
                    ProviderFailed(reason, outcome=error.outcome, status=error.status, session=self.session_id, silent_ms=self._silent_ms())
                )
            return
        chunk = command.chunk if isinstance(command, SayText) else None
        self.emit(ProviderFailed(reason, outcome=error.outcome, task=command.task, chunk=chunk, status=error.status))

    async def _do_close(self, reason: str) -> None:
        await self._stop(self._worker)
        for task in list(self._background):
            await self._stop(task)
        if self._creating is not None:
            await asyncio.wait([self._creating], timeout=CREATE_BUDGET_S)
        try:
            async with asyncio.timeout(CLOSE_BUDGET_S):
                try:
                    remark = None if self.session_id is None else await self._close_and_note(reason)
                finally:
                    await self._let_go()
            if self._creating is not None and self.session_id is None and (not self._creating.done() or self._creating.cancelled()):
                raise ProviderError("the request that creates the session was not answered in time")
        except SessionGone as error:
            self.emit(SessionClosed(error.message, status="lost", silent_ms=self._silent_ms()))
        except (ProviderError, TimeoutError) as error:
            text = error.message if isinstance(error, ProviderError) else "ending the session took too long"
            self.emit(SessionClosed(reason=text, status="failed"))
        except SetupError as error:  # the session is over, but the journal could not be told: it will offer to end it once more
            self.emit(SessionClosed(reason=error.message))
        except Exception as error:
            self.context.crash(error)
            self.emit(SessionClosed("internal error", status="failed"))
        else:
            self.emit(SessionClosed(remark))

    async def _close_and_note(self, reason: str) -> str | None:
        """End the session, and let the journal know. That it is gone proves nothing bad if its death was told before, or if an end of ours
        was sent before, whose answer was lost."""
        known, self._end_sent = self._lost or self._end_sent, True
        try:
            remark = await self._close_whatever_happens(reason)
        except SessionGone as gone:
            self.context.journal.ended(reason)
            if not known and not gone.repeated:
                raise
            remark = gone.message
        else:
            self.context.journal.ended(reason)
        return remark

    async def _close_whatever_happens(self, reason: str) -> str | None:
        """End the session. A bug in that is told and does not stop it: it is tried again, or the session would go on and be billed."""
        for pause_ms in BACKOFF_MS:
            try:
                return await self._close(reason)
            except PlaybookError:
                raise
            except Exception as error:
                self.context.crash(error)
            await self.context.clock.sleep_until(self.context.clock.now_ms() + pause_ms)
        return await self._close(reason)

    def _close_again(self, reason: str) -> None:
        """A program that ends cancels every task of its loop, also the one that closes."""
        self._released = False
        self._closer = self._spawn(self._do_close(reason))

    async def _let_go(self) -> None:
        if not self._released:
            self._released = True
            await self._release()

    @staticmethod
    async def _stop(task: asyncio.Task[None] | None) -> None:
        if task is not None:
            task.cancel()
            await asyncio.wait([task])


def _reason(error: ProviderError) -> str:
    """What is wrong and what to do about it, which has no place of its own in the log."""
    return "; ".join(filter(None, (error.message, error.remedy)))
