"""A show that goes on for hours, with bad luck all the while: memory and descriptors stay flat, and every line gets its grade."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import tempfile
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playbook import clock
from playbook.clock import Clock, ClockName
from playbook.emulators.faults import FAULTS, Chosen
from tests.contract import STANDS, compile_on, perform, write_playbook
from tests.logs import checked, closings
from tests.test_faults import applies

EVERY_MS = 10_000
"""A line is due so often."""
DEADLY = ("session-dies", "mute-after-120s")
"""What no show survives, or what lasts to its end."""


@dataclass(frozen=True)
class Soaked:
    """What came of it.

    Memory is what Python held, and `grown_kb` how much more at the end than after a quarter of the show. When a few hundred lines have
    been spoken, as many as are remembered for what may still be told of them, nothing grows any more.
    """

    lines: int
    grades: dict[str, int]
    failures: int
    shown_ms: int
    grown_kb: float
    descriptors: int
    """How many more are open at the end than after a quarter of the show."""


def soak(name: str, show_ms: int, kind: ClockName = "virtual", *, every_ms: int = EVERY_MS, seed: int = 1) -> Soaked:
    """A show of that length with this provider; every half minute the emulator has other faults."""
    count = show_ms // every_ms
    chance = random.Random(seed)
    usable = [fault for fault in FAULTS if applies(name, fault) and FAULTS[fault].at != "create" and fault not in DEADLY]
    measured: list[tuple[int, int, int]] = []

    async def main() -> Soaked:
        with tempfile.TemporaryDirectory() as path:
            folder = Path(path)
            async with STANDS[name]() as stand:
                emulator = stand.emulator
                assert emulator is not None
                steps = "".join(step(n, every_ms) for n in range(count))
                plan = compile_on(write_playbook(folder, stand, steps))
                clock = Clock()

                async def weather() -> None:
                    while True:
                        emulator.set_faults([Chosen(chance.choice(usable))] if chance.random() < 0.5 else [])
                        emulator.journal.clear()  # it is the emulator's own, and grows as long as it lives
                        await clock.sleep_until(clock.now_ms() + 30_000)

                def watch(line: dict[str, Any]) -> None:
                    if line.get("note") == "step_started" and line["step"] in (f"line-{count // 4}", f"line-{count - 1}"):
                        gc.collect()
                        measured.append((line["at_ms"], tracemalloc.get_traced_memory()[0], len(os.listdir("/proc/self/fd"))))

                changing = asyncio.ensure_future(weather())
                outcome = await perform(stand, plan, folder, watch=watch)
                changing.cancel()
                assert outcome.result.exit_code == 0, outcome.result
                assert emulator.open_sessions == ()
            lines = checked(folder / "run")
            grades = Counter(line["evidence"] for line in closings(lines).values())
            assert grades.total() == count, "every line has its grade"
            (_, before, fds_before), (_, after, fds_after) = measured
            return Soaked(
                count,
                dict(grades),
                sum(line.get("event") == "provider_failed" for line in lines),
                lines[-1]["at_ms"],
                (after - before) / 1024,
                fds_after - fds_before,
            )

    tracemalloc.start()
    try:
        return clock.run(main(), kind)
    finally:
        tracemalloc.stop()


def step(n: int, every_ms: int) -> str:
    """One line of the show; every seventh is cut by an interrupt."""
    text = f"  - say: This is the line with the number {n}, and so it goes on.\n    id: line-{n}\n    at: {n * every_ms}ms\n"
    text += "    on_error: continue\n"
    if n % 7 == 6:
        text += "    until: 700ms\n  - interrupt:\n    on_error: continue\n"
    return text
