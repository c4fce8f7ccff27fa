"""Tavus: how soon the next line follows a report, how a sound keeps its plan, how soon a process says its first word."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playbook import clock
from playbook.emulators.room import Guest
from playbook.language import compile_file
from playbook.perform.world import World
from playbook.providers.tavus.echo import LEAD_MS, PACE, PIECE_MS
from playbook.providers.tavus.emulator import TavusEmulator
from playbook.providers.tavus.provider import TavusProvider
from playbook.transports.factory import Before
from playbook.transports.room import Room
from tests.bench import Say, bench
from tests.contract import VOICE, Between, Stand, chime, runner_on, voice
from tests.tavus import HEAD

LINES = 300
SECONDS = int(os.environ.get("PLAYBOOK_BENCH_SECONDS", "30"))
"""How long the sound is; the issue is about ten minutes, which take ten minutes."""
STARTS = 5


class Eager(TavusEmulator):
    """A face that has said each line the moment it is told to, and calls `heard` with each message."""

    def __init__(self, heard: Callable[[], None], told: Callable[[], None] = lambda: None) -> None:
        super().__init__(face_after_ms=0)
        self.heard, self.told = heard, told

    def said(self, guest: Guest, message: Any) -> str | None:
        self.heard()
        [conversation] = self.open_sessions
        id = message["properties"]["inference_id"]
        conversation._broadcast(conversation._copies("started", id, {}))
        self.told()
        conversation._broadcast(conversation._copies("stopped", id, {"interrupted": False, "duration": 0.0}))
        return None


async def perform(file: Path, folder: Path, emulator: TavusEmulator, before: Before | None = None) -> None:
    async with emulator.serve():
        plan = compile_file(file, World(voice=VOICE))
        stand = Stand(TavusProvider(voice), emulator.environment(), before=before)
        outcome = await runner_on(stand, plan, folder).run()
        assert outcome.result.exit_code == 0, outcome.result.reason


@bench("tavus-turnaround", f"from a stop event in the room to the next echo at its other end, {LINES} lines, both ends in one process")
def turnaround(say: Say) -> None:
    delays: list[float] = []
    told_s: list[float] = []

    def heard() -> None:
        if told_s:
            delays.append((time.perf_counter() - told_s[-1]) * 1000)

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "turns.yaml"
        file.write_text(f"{HEAD}timeline:\n" + "".join(f"  - say: This is line {n}.\n" for n in range(LINES)), "utf-8")
        clock.run(perform(file, Path(name), Eager(heard, lambda: told_s.append(time.perf_counter()))))
    delays.sort()
    say("median", statistics.median(delays), "ms")
    say("99 of 100", delays[len(delays) * 99 // 100 - 1], "ms", target=5.0)


@bench("tavus-pacing", f"{SECONDS} s of sound as messages, in real time")
def pacing(say: Say) -> None:
    sent_s: list[float] = []
    memory: list[int] = []

    def tap(on_event: Any, make: Callable[[Any], Room]) -> Room:
        room = make(on_event)
        send = room.send

        def timed_send(message: Any) -> asyncio.Future[None]:
            sent_s.append(time.perf_counter())
            if len(sent_s) % 100 == 0:
                memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4)
            return send(message)

        room.send = timed_send  # type: ignore[method-assign]  # a tap, for this measurement alone
        return room

    class Deaf(TavusEmulator):
        """Keeps nothing of what it is told, or its journal would be what grows."""

        def note(self, what: str, **facts: Any) -> dict[str, Any]:
            return {} if what == "message" else super().note(what, **facts)

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "sound.yaml"
        (Path(name) / "sound.wav").write_bytes(chime(SECONDS * 1000, 24_000))
        file.write_text(f"{HEAD}timeline:\n  - audio-echo: sound.wav\n", "utf-8")
        clock.run(perform(file, Path(name), Deaf(), Between(room=tap)))
    planned = [max(n * PIECE_MS / PACE, n * PIECE_MS - LEAD_MS) for n in range(len(sent_s))]
    off = [abs((at - sent_s[0]) * 1000 - due) for at, due in zip(sent_s, planned, strict=True)]
    say("greatest deviation from the plan", max(off), "ms", target=20.0)
    say("memory that came to stay", (memory[-1] - memory[0]) / 1024, "MB", target=1.0)


@bench("tavus-start", "from the start of a process to its first echo at the emulator")
def start(say: Say) -> None:
    async def once(file: Path, out: Path) -> float:
        heard = asyncio.get_running_loop().create_future()
        emulator = Eager(lambda: None if heard.done() else heard.set_result(time.perf_counter()))
        async with emulator.serve():
            began = time.perf_counter()
            command = (sys.executable, "-m", "playbook", "run", str(file), "--quiet", "--out", str(out))
            env = {**os.environ, **emulator.environment(), "PLAYBOOK_STATE_DIR": str(out.parent / "state")}
            process = await asyncio.create_subprocess_exec(*command, env=env, stdout=asyncio.subprocess.DEVNULL)
            took: float = await heard - began
            assert await process.wait() == 0
        return took

    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "hello.yaml"
        file.write_text(f"{HEAD}timeline:\n  - say: Hello.\n", "utf-8")
        took = [clock.run(once(file, Path(name) / f"run-{n}")) for n in range(STARTS)]
    say("median", statistics.median(took), "s", target=0.5)
