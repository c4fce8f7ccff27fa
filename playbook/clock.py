"""The only room that asks what time it is.

A run's time is its event loop's time, in whole milliseconds since the run began, so that everything that waits (our timers, the HTTP
client's time-outs, an emulator in the same process) waits on one clock. Two loops differ in nothing but how they wait:

* the *system* loop sleeps to absolute deadlines and wakes on time, not up to a millisecond later;
* the *virtual* loop, whenever nothing can happen before the next deadline, jumps to it. Sockets between two ends in the same loop work;
  work in threads (`run_in_executor`, `to_thread`) is waited for in real time. (The idea is trio's `MockClock`.)

May be imported by anything below it; imports nothing of the package.
"""

from __future__ import annotations

import asyncio
import contextvars
import datetime
import gc
import math
import selectors
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Literal, TypeVar

T = TypeVar("T")
ClockName = Literal["system", "virtual"]


class Clock:
    """Milliseconds since this clock was made, on the running event loop. Never goes back, whatever happens to the wall clock."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._origin = self._loop.time()
        self.name: ClockName = "virtual" if isinstance(self._loop, VirtualLoop) else "system"

    def later(self, ms: int) -> Clock:
        """A clock whose time began so much later than this one's."""
        clock = Clock()
        clock._origin = self._origin + ms / 1000
        return clock

    def now_ms(self) -> int:
        """Whole milliseconds since the clock was made, rounded down."""
        return math.floor((self._loop.time() - self._origin) * 1000 + 1e-6)

    def call_at(self, due_ms: int, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Call `callback` at `due_ms` (or at once when that has passed). The handle's `cancel()` forgets it."""
        return self._loop.call_at(self._origin + due_ms / 1000, callback)

    async def sleep_until(self, due_ms: int) -> None:
        """Return at `due_ms`, or at once when that has passed."""
        future: asyncio.Future[None] = self._loop.create_future()
        handle = self.call_at(due_ms, lambda: None if future.done() else future.set_result(None))
        try:
            await future
        finally:
            handle.cancel()


def wall_time() -> datetime.datetime:
    """The date and time in UTC, for headers, folder names, the journal and what happens at a time of the day; never used to measure.

    On a virtual loop that was given a beginning, it is as much later as the loop's time says.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if isinstance(loop, VirtualLoop) and loop.begins is not None:
        return loop.begins + datetime.timedelta(microseconds=round(loop.time() * 1e6))
    return datetime.datetime.now(datetime.UTC)


def stopwatch() -> Callable[[], int]:
    """Milliseconds of real time since this call, for reports; whatever loop runs."""
    began = time.monotonic()
    return lambda: round((time.monotonic() - began) * 1000)


def block(ms: int) -> None:
    """Hold up this whole thread, in real time, for the few milliseconds that another process needs."""
    time.sleep(ms / 1000)


def run(main: Coroutine[Any, Any, T], clock: ClockName = "system", begins: datetime.datetime | None = None) -> T:
    """Run `main` to its end on a fresh loop of the given kind (`asyncio.run` with our loops). `begins`: the wall time of a virtual loop."""
    factory = partial(VirtualLoop, begins) if clock == "virtual" else system_loop
    gc.freeze()  # a plan is no garbage: not looking through it again and again keeps collections short and cues punctual
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main)
    finally:
        gc.unfreeze()


# --- the system loop ----------------------------------------------------------------------------------------------------


def system_loop() -> asyncio.AbstractEventLoop:
    """A selector loop that is not late by the selector's rounding."""
    return asyncio.SelectorEventLoop(_PunctualSelector())


class _PunctualSelector(selectors.DefaultSelector):
    """epoll counts in milliseconds, and both `selectors` and the C code below it round up, which makes every timer up to 2 ms late. Wake up
    that much earlier instead: the loop then polls until the deadline."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            timeout = (math.floor(timeout * 1000) - 1.5) / 1000
        return super().select(timeout)


# --- the virtual loop ---------------------------------------------------------------------------------------------------


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time stands still while anything can happen and jumps to the next deadline when nothing can."""

    def __init__(self, begins: datetime.datetime | None = None) -> None:
        self.begins = begins
        """The wall time at its beginning; None: whoever asks is told the true one. Setting it anew sets the wall clock."""
        self._virtual_s = 0.0
        self._in_threads = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._virtual_s

    def jump(self, seconds: float) -> None:
        """Move time on (the selector's part of the work)."""
        self._virtual_s += seconds

    @property
    def waits_for_threads(self) -> bool:
        """Whether real work is under way elsewhere, so that time must not jump."""
        return self._in_threads > 0

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # the stub's *Ts
        self._in_threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done, context=contextvars.Context())
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002 -- see below
        """Wait in real time until the threads have ended. (Five minutes of this loop's time are over in a moment.)"""
        self._in_threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._in_threads -= 1

    def _thread_done(self, _: object) -> None:
        self._in_threads -= 1


class _JumpingSelector(selectors.DefaultSelector):
    _GRACE_S = 0.0002  # loopback delivers at once, except when the kernel hands the packet to its own thread
    _ALONE = 32  # how many jumps a signal or another thread may have to wait where there is nobody else to hear

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self._jumps = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        if timeout is None or self._loop.waits_for_threads:
            return super().select(None)
        alone = len(self.get_map()) == 1  # the loop's own wake-up pipe
        self._jumps += 1
        ready = [] if alone and self._jumps % self._ALONE else super().select(0)
        if not ready and not alone:
            time.sleep(self._GRACE_S)
            ready = super().select(0)
        if not ready:
            self._loop.jump(timeout)
        return ready
