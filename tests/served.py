"""An emulator in real time, in a thread of its own, for runs that have a loop or a process of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from playbook import clock
from playbook.emulators.base import Emulator
from playbook.providers import registry

SESSIONS: Mapping[str, Mapping[str, Any]] = {
    name: provider.stands[name] for name in registry.emulated() if (provider := registry.find(name)) is not None
}
"""What a playbook for each vendor needs in its session."""


@contextlib.contextmanager
def serving(name: str, **options: Any) -> Iterator[Emulator]:
    """The emulator of that name, as long as the context lasts. Somebody watches from the start where lines wait for a viewer."""
    settings: dict[str, Any] = {"viewer_after_ms": 0, **options}
    emulator = registry.emulator(name)(**settings)
    ready, problems = threading.Event(), list[BaseException]()
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        over = asyncio.Event()
        stop.append((asyncio.get_running_loop(), over))
        async with emulator.serve():
            ready.set()
            await over.wait()

    def work() -> None:
        try:
            clock.run(main())
        except BaseException as error:
            problems.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work, name=f"emulator of {name}")
    thread.start()
    ready.wait(10)
    try:
        yield emulator
    finally:
        if stop and not problems:
            loop, over = stop[0]
            loop.call_soon_threadsafe(over.set)
        thread.join(10)
        if problems:
            raise problems[0]


def jump(emulator: Emulator, s: float) -> None:
    """Let so much time pass for an emulator that is served, at once."""
    loop, passed = emulator.clock._loop, threading.Event()

    def ahead() -> None:
        time = loop.time
        loop.time = lambda: time() + s  # type: ignore[method-assign]  # what is due now happens in its order, and then
        loop.call_later(0, passed.set)

    loop.call_soon_threadsafe(ahead)
    assert passed.wait(10)


def playbook_for(name: str, timeline: str, head: str = "start: 0s") -> str:
    """The text of a playbook for a vendor."""
    return f"version: 1\nname: show\nprovider: {name}\nsession: {json.dumps(SESSIONS[name])}\n{head}\ntimeline:\n{timeline}"


def asked(emulator: Emulator, *words: str) -> int:
    """How many requests had all of these words in them."""
    return sum(all(word in json.dumps(entry) for word in words) for entry in emulator.journal if entry["what"] == "request")
