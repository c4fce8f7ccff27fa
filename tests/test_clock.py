"""The two clocks."""

from __future__ import annotations

import asyncio
import time

from playbook import clock
from playbook.clock import Clock


def test_virtual_hour_takes_a_moment():
    """An hour on the virtual clock is exactly an hour and costs next to nothing."""

    async def show():
        run = Clock()
        await asyncio.sleep(1800)
        await run.sleep_until(3_600_000)
        return run.name, run.now_ms()

    began = time.monotonic()
    assert clock.run(show(), "virtual") == ("virtual", 3_600_000)
    assert time.monotonic() - began < 5


def test_virtual_deadlines_come_in_order():
    """Callbacks run in the order of their deadlines, equal ones in the order in which they were set."""

    async def show():
        run, seen = Clock(), []
        for due in (30, 10, 20, 10):
            run.call_at(due, lambda due=due: seen.append((run.now_ms(), due)))
        cancelled = run.call_at(15, lambda: seen.append("cancelled"))
        cancelled.cancel()
        await run.sleep_until(40)
        return seen

    assert clock.run(show(), "virtual") == [(10, 10), (10, 10), (20, 20), (30, 30)]


def test_virtual_clock_waits_for_sockets_and_threads():
    """Time does not jump over bytes that are on their way, nor over work in a thread."""

    async def show():
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await asyncio.sleep(5)
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        run = Clock()
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello\n")
        first = await reader.readline(), run.now_ms()
        await asyncio.to_thread(sum, range(100_000))
        in_thread = run.now_ms()
        await reader.read()
        writer.close()
        server.close()
        return first, in_thread, run.now_ms()

    assert clock.run(show(), "virtual") == ((b"hello\n", 0), 0, 5000)


def test_system_clock_is_never_early():
    """A deadline on the system clock has passed when its callback runs, in whole milliseconds too."""

    async def show():
        run = Clock()
        seen = []
        for due in range(3, 33, 3):
            await run.sleep_until(due)
            seen.append(run.now_ms() - due)
        return run.name, seen

    name, late = clock.run(show(), "system")
    assert name == "system"
    assert min(late) >= 0
