"""A kiosk for a long time: a week and a month on the virtual clock against three emulated clouds, and fifty kills on
the real one."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import itertools
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from playbook import clock
from playbook.clock import stopwatch, wall_time
from playbook.errors import format_problem
from playbook.kiosk.assemble import Setting, prepared
from playbook.kiosk.dated import Dated
from playbook.kiosk.operation import Operation
from playbook.kiosk.programme import FREE, Programme, check_kiosk
from playbook.kiosk.proof import Entry, entries
from playbook.kiosk.silent import silent_world
from playbook.language import compile_file
from playbook.perform.world import World, cache_folder
from tests.logs import ROOT
from tests.served import playbook_for, serving

ZONE = ZoneInfo("Europe/Berlin")
MONDAY = dt.datetime(2026, 3, 23, tzinfo=ZONE)
LADDER = ("tavus", "kaltura", "avaturn", "local", "captions")
LINES = (
    "  - say: Welcome to the lobby. It is good to see you.\n    id: hello\n"
    "  - say: The lift is on your left, and the stairs are behind me.\n    id: way\n"
    "  - say: Have a nice day.\n    id: bye\n"
)
SHORT = "  - say: Come closer, and I will tell you where everything is.\n    id: come\n"
FILE = """\
version: 1
kiosk: lobby
timezone: Europe/Berlin
open: {{mon-fri: "09:00-20:00", sat: "10:00-18:00"}}
shows: {{welcome: {{playbook: welcome.yaml}}, come: {{playbook: come.yaml}}}}
play: [{{on: motion, show: welcome}}]
{idle}
ladder: [{ladder}]
session: {{keep: 10m}}
keep_runs: 7d
"""


def programme_of(folder: Path, world: World, ladder: Sequence[str] = LADDER, idle: str = "idle: face") -> Programme:
    """A lobby with a welcome and an idle show, compiled for every rung with that rung's own settings."""
    folder.mkdir(parents=True, exist_ok=True)
    timelines = {"welcome": LINES, "come": SHORT}
    for show, timeline in timelines.items():
        (folder / f"{show}.yaml").write_text(f"version: 1\nprovider: local\ntimeline:\n{timeline}")
    path = folder / "lobby.yaml"
    path.write_text(FILE.format(ladder="local, captions", idle=idle))
    problems, found = check_kiosk(path, world, silent_world())
    assert found is not None, "\n".join(map(format_problem, problems))
    plans: dict[str, dict[str, Any]] = {show: {} for show in timelines}
    for rung in ladder:
        for show, timeline in timelines.items():
            if rung in FREE:
                plans[show][rung] = found.plans[show][rung]
                continue
            playbook = folder / f"{show}-{rung}.yaml"
            playbook.write_text(playbook_for(rung, timeline, head=""))
            plans[show][rung] = compile_file(playbook, world)
    return replace(found, kiosk=replace(found.kiosk, ladder=tuple(ladder)), plans=plans)


@dataclass(frozen=True)
class Rehearsed:
    """What became of a rehearsal."""

    log: list[Entry]
    asked: int
    left_open: int
    outside: int
    """How often a session was open when the kiosk was closed."""
    created: int
    took_ms: int

    @property
    def welcomed(self) -> int:
        """The visitors' shows that were performed to their end."""
        return sum(entry.get("show") == "welcome" and entry["end"] == "passed" for entry in self.log)


def visitors(count: int, days: Sequence[int], seed: int = 1) -> list[Dated]:
    """People who come at random within the hours, none in the last five minutes."""
    chance, found = random.Random(seed), []
    for _ in range(count):
        day = chance.choice([day for day in days if day % 7 < 6])
        opens, closes = (9, 20) if day % 7 < 5 else (10, 18)
        minute = chance.uniform(opens * 60, closes * 60 - 5)
        found.append(Dated("motion", (MONDAY + dt.timedelta(days=day, minutes=minute)).astimezone(dt.UTC)))
    return found


def rehearse(
    programme: Programme,
    world: World,
    out: Path,
    days: int,
    signals: Sequence[Dated],
    faults: Sequence[Dated],
    *,
    each_day: Callable[[int], None] = lambda _: None,
    caps: int = 0,
) -> Rehearsed:
    """So many days on the virtual clock; `caps` sessions a day are ended by their vendor."""
    outside: list[int] = []

    async def main() -> tuple[int, int]:
        setting = Setting(out=out, env={}, emulate=True, forget=True, signals=signals, faults=faults)
        async with prepared(programme, world, setting) as (operation, cause):
            with _at_times(days, lambda day: _look(operation, outside, each_day, day), lambda: _cap(operation), caps):
                await operation.run(MONDAY + dt.timedelta(days=days), cause=cause)
            return operation.stand.open_sessions(), sum(each.created for each in operation.stand.emulators.values())

    timer = stopwatch()
    left, created = clock.run(main(), "virtual", MONDAY.astimezone(dt.UTC))
    return Rehearsed(list(entries(out)), len(signals), left, sum(outside), created, timer())


@contextlib.contextmanager
def _at_times(days: int, at_night: Callable[[int], None], cap: Callable[[], None], caps: int) -> Iterator[None]:
    """Look in the night, half an hour after the hours; end sessions at noon and so on."""
    import asyncio

    loop, handles = asyncio.get_running_loop(), []
    for day in range(days):
        for hour in (20.5, 4.0):
            due = MONDAY + dt.timedelta(days=day, hours=hour)
            handles.append(loop.call_later((due - wall_time()).total_seconds(), at_night, day))
        for n in range(caps):
            due = MONDAY + dt.timedelta(days=day, hours=11 + 2 * n, minutes=7)
            handles.append(loop.call_later((due - wall_time()).total_seconds(), cap))
    try:
        yield
    finally:
        for handle in handles:
            handle.cancel()


def _look(operation: Operation, outside: list[int], each_day: Callable[[int], None], day: int) -> None:
    outside.append(operation.stand.open_sessions())
    each_day(day)


def _cap(operation: Operation) -> None:
    for emulator in operation.stand.emulators.values():
        for session in emulator.open_sessions:
            session.end("duration")


def week(folder: Path, idle: str = "idle: face") -> Rehearsed:
    """63 opening hours, 400 visitors, 12 outages of 20 minutes, 3 caps a day."""
    world = World(cache_folder(os.environ))
    outages = [
        Dated(
            "outage",
            (MONDAY + dt.timedelta(days=n % 6, hours=12 + 3 * (n // 6))).astimezone(dt.UTC),
            1_200_000,
            ("tavus", "kaltura", None)[n % 3],
        )
        for n in range(12)
    ]
    return rehearse(programme_of(folder, world, idle=idle), world, folder / "out", 7, visitors(400, range(6)), outages, caps=3)


@dataclass(frozen=True)
class Away:
    """A day on which the first rung was away, and the next."""

    shows: int
    broken: int
    tries: int
    """Requests to create a session on the first rung while it was away."""
    least_pause_s: float
    """The shortest time between two of them, but for the first that grow."""
    back_s: float
    """How long after its return the first rung performed again."""


def day_away(folder: Path) -> Away:
    """The first rung is away for the hours of a whole day; a visitor comes every five minutes."""
    world, tries = World(cache_folder(os.environ)), list[dt.datetime]()
    programme = programme_of(folder, world, ("kaltura", "local", "captions"))
    come = [Dated("motion", (MONDAY + dt.timedelta(hours=9, minutes=5 * n + 1)).astimezone(dt.UTC)) for n in range(130)]
    gone, back = MONDAY + dt.timedelta(hours=9, minutes=30), MONDAY + dt.timedelta(hours=19)
    fault = Dated("outage", gone.astimezone(dt.UTC), round((back - gone).total_seconds() * 1000), "kaltura")

    async def main() -> None:
        setting = Setting(out=folder / "out", env={}, emulate=True, forget=True, signals=come, faults=[fault])
        async with prepared(programme, world, setting) as (operation, cause):
            emulator = operation.stand.emulators["kaltura"]
            note = emulator.note

            def noted(what: str, **facts: Any) -> dict[str, Any]:
                if what == "request" and facts.get("method") == "POST" and gone < wall_time() < back:
                    tries.append(wall_time())
                return note(what, **facts)

            emulator.note = noted  # type: ignore[method-assign]  # counts what arrives
            await operation.run(MONDAY + dt.timedelta(days=1), cause=cause)

    clock.run(main(), "virtual", MONDAY.astimezone(dt.UTC))
    log = list(entries(folder / "out"))
    shows = [entry for entry in log if entry.get("event") == "show"]
    returned = next(dt.datetime.fromisoformat(show["at"]) for show in shows if show["rung"] == "kaltura" and show["at"] > back.isoformat())
    begun = [moment for n, moment in enumerate(tries) if n == 0 or (moment - tries[n - 1]).total_seconds() > 60]
    late = [later - sooner for sooner, later in itertools.pairwise(begun) if sooner > gone + dt.timedelta(hours=1)]
    broken = sum(show["end"] != "passed" for show in shows)
    return Away(len(shows), broken, len(begun), min(late).total_seconds(), (returned - back).total_seconds())


def silence(folder: Path, below: str) -> int:
    """The silence on the real clock, in milliseconds, when the first rung dies in the middle of a line and `below`
    goes on."""
    world = World(folder / "cache")
    programme = programme_of(folder, world, ("avaturn", below, "captions"))

    async def main() -> None:
        import asyncio

        setting = Setting(out=folder / "out", env={}, emulate=True)
        async with prepared(programme, world, setting) as (operation, cause):
            asyncio.get_running_loop().call_later(0.2, lambda: operation.offer("motion", source="program"))
            emulator = operation.stand.emulators["avaturn"]

            def die() -> None:
                speaking = [each for each in emulator.open_sessions if each.queue.speaking is not None]
                if speaking:
                    emulator.go_away(60_000)
                else:
                    asyncio.get_running_loop().call_later(0.1, die)

            asyncio.get_running_loop().call_later(2.0, die)
            await operation.run(wall_time() + dt.timedelta(seconds=25), cause=cause)

    always = replace(programme.kiosk, hours=replace(programme.kiosk.hours, week=None))
    programme = replace(programme, kiosk=always)
    clock.run(main())
    (show,) = [entry for entry in entries(folder / "out") if entry.get("event") == "show"]
    assert [run["rung"] for run in show["runs"]] == ["avaturn", below], show
    return int(show["silence_ms"])


@dataclass(frozen=True)
class Killed:
    """What became of a kiosk that was killed again and again."""

    kills: int
    left_open: int
    twice: int
    slowest_s: float
    """The longest time from a kill to the next show's first line."""


def kill(folder: Path, kills: int, seed: int = 1) -> Killed:
    """kill -9 at random moments of a kiosk under its supervisor, on the real clock, with a cloud that is billed."""
    chance, back_s = random.Random(seed), list[float]()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hello.yaml").write_text(playbook_for("kaltura", "  - say: Hello.\n    id: one\n  - say: Good day.\n    id: two\n", head=""))
    (folder / "lobby.yaml").write_text(
        "version: 1\nkiosk: lobby\ntimezone: UTC\nshows: {hello: {playbook: hello.yaml}}\nidle: {show: hello, every: 1s}\n"
        "ladder: [kaltura, local, captions]\n"
    )
    with serving("kaltura") as emulator:
        env = {**os.environ, **emulator.environment(), "PYTHONPATH": str(ROOT), "PLAYBOOK_STATE_DIR": str(folder / "state")}
        argv = [sys.executable, "-m", "playbook", "kiosk", "lobby.yaml"]
        with subprocess.Popen(argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                _until(process, b"show hello")
                for _ in range(kills):
                    _idle_for(process, chance.uniform(0.0, 2.0))
                    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                    os.kill(int(child), signal.SIGKILL)
                    timer = stopwatch()
                    _until(process, b"killed by signal")
                    _until(process, b"show hello")
                    back_s.append(timer() / 1000)
                process.terminate()
                process.wait(60)
            finally:
                process.kill()
        left = len(emulator.open_sessions)
    return Killed(kills, left, _said_twice(folder / "kiosk" / "lobby"), max(back_s))


def _until(process: subprocess.Popen[bytes], words: bytes) -> None:
    """Read what the kiosk tells until it says this."""
    assert process.stderr is not None
    while select.select([process.stderr], [], [], 60)[0]:
        line = process.stderr.readline()
        if not line:
            raise AssertionError("the kiosk has ended")
        if words in line:
            return
    raise AssertionError(f"{words!r} was not told within a minute")


def _idle_for(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let the kiosk go on for a while."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _said_twice(kiosk: Path) -> int:
    """How many lines were said twice within one show."""
    twice = 0
    for entry in entries(kiosk):
        heard: list[str] = []
        for run in entry.get("runs", ()) if entry.get("event") == "show" else ():
            for line in (kiosk / run["run"] / "run.jsonl").read_text("utf-8").splitlines()[1:]:
                fact = json.loads(line)
                if fact.get("event") == "speech_ended" and not fact.get("interrupted"):
                    heard.append(fact["task"])
        twice += len(heard) - len(set(heard))
    return twice


def month(folder: Path) -> float:
    """How many megabytes a virtual month takes more after day 30 than after day 2."""
    world = World(cache_folder(os.environ))
    sizes: dict[int, float] = {}

    def measure(day: int) -> None:
        gc.collect()
        sizes[day] = _resident_mb()

    programme = programme_of(folder, world, ("kaltura", "local", "captions"))
    rehearse(programme, world, folder / "out", 30, visitors(1_700, range(30)), (), each_day=measure)
    return sizes[29] - sizes[1]


def _resident_mb() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)
