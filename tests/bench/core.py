"""The core: cold starts, planning, performing, punctuality, an hour of real speech."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playbook import clock
from playbook.language import Inputs, compile_file
from playbook.model import Plan
from playbook.perform.performance import Options, Runner
from playbook.perform.world import World
from playbook.providers.local.provider import LocalProvider
from playbook.speech.voice import Voice
from tests.bench import Say, bench, peak_mb, timed

TEN_STEPS = """version: 1
provider: local
vars: {who: {type: string, default: friend}}
timeline:
  - say: "Hello, {{ who }}."
  - wait: 1s
  - say: How are you?
    until: started
  - wait: 200ms
  - say: {chunks: [One, " two"]}
  - interrupt:
  - say: Three.
    id: three
  - wait: speech
  - say: Good bye.
  - end:
"""


class Silent(Voice):
    """No voice: what is measured is the engine."""

    available = False


def long_playbook(folder: Path, steps: int) -> Path:
    """A playbook of so many steps, half of them templated."""
    lines = ["version: 1", "provider: local", "vars: {who: {type: string, default: friend}}", "timeline:"]
    for i in range(steps // 2):
        lines += [f'  - say: "Line {i}, {{{{ who }}}}."', "  - wait: 100ms"]
    path = folder / f"long-{steps}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def planned(path: Path, voice: Voice) -> tuple[Plan, LocalProvider]:
    """A plan and the provider that performs it."""
    world = World(voice=voice)
    return compile_file(path, world, Inputs()), world.local


def perform(plan: Plan, provider: LocalProvider, kind: clock.ClockName = "virtual") -> tuple[float, Path]:
    """Seconds that a performance takes, from its first command to its outcome, and its folder."""
    folder = Path(tempfile.mkdtemp()) / "run"

    async def show() -> float:
        began = time.perf_counter()
        outcome = await Runner(plan, Options(folder=folder, provider=provider)).run()
        assert outcome.result.end == "passed", outcome.result
        return time.perf_counter() - began

    return clock.run(show(), kind), folder


def cold(*command: str) -> float:
    """The median seconds of a few fresh processes."""
    times = []
    for _ in range(9):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


@bench("cold", "a fresh process")
def measure_cold(say: Say) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ten.yaml"
        path.write_text(TEN_STEPS)
        program = str(Path(sys.executable).parent / "playbook")
        bare = cold(sys.executable, "-c", "pass")
        imports = cold(sys.executable, "-c", "import yaml, jinja2, jsonschema")
        say(
            "playbook check of ten steps",
            cold(program, "check", str(path)),
            "s",
            target=0.15,
            yardstick=("import yaml, jinja2, jsonschema", imports),
        )
        say("playbook --help", cold(program, "--help"), "s", target=0.08, yardstick=("python -c pass", bare))


@bench("plan", "read, check, render and plan 10,000 steps, half of them templated")
def measure_plan(say: Say) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, large = long_playbook(folder, 1_000), long_playbook(folder, 10_000)

        def parse() -> object:
            import yaml

            return yaml.load(large.read_bytes(), yaml.CSafeLoader)

        yard, _ = timed(parse, 3)
        planned(small, Silent())
        few, _ = timed(lambda: planned(small, Silent()), 3)
        many, _ = timed(lambda: planned(large, Silent()), 3)
        say("10,000 steps", many, "s", target=1.0, yardstick=("yaml.CSafeLoader alone", yard))
        say("10,000 against 1,000 steps", many / few, "times", target=11)
        code = "import sys; from pathlib import Path; from tests.bench.core import planned, Silent\nplanned(Path(sys.argv[1]), Silent())"
        say("memory", peak_mb(code, str(large)), "MB", target=150)


@bench("perform", "10,000 steps on the virtual clock, silent, the log written to disk")
def measure_perform(say: Say) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = {}
        for steps in (1_000, 10_000):
            plan, provider = planned(long_playbook(folder, steps), Silent())
            times[steps], run = min(perform(plan, provider) for _ in range(3))
        data = (run / "run.jsonl").read_bytes().splitlines(keepends=True)

        def write() -> None:
            with open(folder / "yard", "wb", buffering=0) as file:
                for line in data:
                    file.write(line)

        yard, _ = timed(write, 3)
        say(
            "a step",
            times[10_000] / 10_000 * 1e6,
            "us",
            target=50,
            yardstick=("writing the same lines alone, for a step", yard / 10_000 * 1e6),
        )
        say("steps a second", 10_000 / times[10_000], "")
        say("10,000 against 1,000 steps", times[10_000] / times[1_000], "times", target=11)


@bench("lateness", "300 cues 10 ms apart on the system clock")
def measure_lateness(say: Say) -> None:
    async def cues(wait: object) -> list[float]:
        loop = asyncio.get_running_loop()
        origin = loop.time()
        late = []
        for i in range(1, 301):
            due = origin + i / 100
            if wait is None:
                time.sleep(max(0.0, due - time.monotonic()))  # noqa: ASYNC251  # the yardstick is a plain loop
            else:
                run_clock = wait
                await run_clock.sleep_until(i * 10)  # type: ignore[attr-defined]
            late.append((loop.time() - due) * 1000)
        return late

    async def ours() -> list[float]:
        return await cues(clock.Clock())

    async def show() -> list[float]:
        """The whole way: 300 `wait` steps through engine, log and timers; lateness as the engine's timers fire."""
        from playbook.model import Capabilities, End, Plan, Step, Wait

        steps = (*(Step(f"w{i}", Wait(10)) for i in range(300)), Step("end", End()))
        plan = Plan("cues", "local", steps, capabilities=Capabilities(speech="exact"))
        runner = Runner(plan, Options(folder=Path(tempfile.mkdtemp()) / "run", provider=LocalProvider(Silent())))
        loop, late = asyncio.get_running_loop(), []
        fire = runner._fire

        def watched(key: tuple[str | None, str], fired: object) -> None:
            late.append((loop.time() - runner._clock._origin) * 1000 - fired.due_ms)  # type: ignore[attr-defined]
            fire(key, fired)  # type: ignore[arg-type]

        runner._fire = watched  # type: ignore[method-assign,assignment]
        await runner.run()
        return late

    async def plain() -> list[float]:
        return await cues(None)

    yard = sorted(clock.run(plain()))
    late = clock.run(show())
    p99 = sorted(late)[296]
    say(
        "p99 through the whole runner",
        p99,
        "ms",
        target=max(yard[296], 0.05) * 1.5,
        yardstick=("time.sleep to absolute deadlines", yard[296]),
    )
    first, last = statistics.median(late[:50]), statistics.median(late[-50:])
    say("growth from the first to the last fifty", last - first, "ms", target=0.2, yardstick=("median of all", statistics.median(late)))
    alone = sorted(clock.run(ours()))
    say("the clock alone, p99", alone[296], "ms")


@bench("hour", "an hour-long show of real speech on the virtual clock, with audio.wav")
def measure_hour(say: Say) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = ["version: 1", "provider: local", "timeline:"]
        for i in range(500):
            lines += [
                f"  - say: This is line number {i} of a long show, and it goes on for a while, so that the hour is filled with speech.",
                "  - wait: 1s",
            ]
        path = folder / "hour.yaml"
        path.write_text("\n".join(lines) + "\n")

        def whole() -> tuple[Plan, Path]:
            plan, provider = planned(path, Voice(Path(tempfile.mkdtemp())))
            return plan, perform(plan, provider)[1]

        took, (plan, run) = timed(whole)
        size = (run / "audio.wav").stat().st_size
        seconds = size / 2 / 22_050
        yard, _ = timed(lambda: (folder / "yard").write_bytes(bytes(size)))
        say(
            f"{seconds / 60:.0f} minutes of show, {len(plan.steps)} steps",
            took * 3600 / seconds,
            "s an hour",
            target=30,
            yardstick=("writing a file of that size", yard),
        )
