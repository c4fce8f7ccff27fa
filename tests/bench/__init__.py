"""Figures, not tests: `python -m tests.bench [NAME…]` measures and prints them, each beside its target and a yardstick of the same run.

A module of this folder is found by itself. In it,

    @bench("name", "one line about what is measured")
    def measure(say):
        took_s, _ = timed(work)
        yard_s, _ = timed(comparable_work_in_another_library)
        say("replay of 100,000 lines", took_s, "s", target=3.0, yardstick=("json.loads of the same", yard_s))

A target that is missed is marked, and the exit code is then 1. Nothing here runs under pytest.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
Say = Callable[..., None]
BENCHES: dict[str, tuple[str, Callable[..., None]]] = {}


def bench(name: str, about: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a measurement."""

    def register(measure: Callable[..., None]) -> Callable[..., None]:
        assert name not in BENCHES, f"two benchmarks are called {name}"
        BENCHES[name] = about, measure
        return measure

    return register


def timed(work: Callable[[], T], repeat: int = 1) -> tuple[float, T]:
    """The best of a few runs, in seconds, and what the last one returned."""
    best = float("inf")
    for _ in range(repeat):
        began = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - began)
    return best, result


_OWN_PEAK = """
import resource
try:  # what getrusage tells of a process begins with the memory of the one that started it
    print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
except OSError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_mb(code: str, *args: str) -> float:
    """The peak resident memory, in megabytes, of a fresh Python that runs `code` with `args` as `sys.argv[1:]`."""
    done = subprocess.run([sys.executable, "-c", code + _OWN_PEAK, *args], capture_output=True, text=True, check=True)
    return _megabytes(int(done.stdout.split()[-1]))


def own_peak_mb() -> float:
    """The peak resident memory of this process so far."""
    return _megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _megabytes(maxrss: int) -> float:
    return maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def speaker(missed: list[str]) -> Say:
    """What a benchmark prints with; what missed its target is added to `missed`."""

    def say(what: str, figure: float, unit: str, *, target: float | None = None, yardstick: tuple[str, float] | None = None) -> None:
        text = f"  {what}: {figure:.4g} {unit}"
        if target is not None:
            met = figure <= target
            text += f"   target <= {target:g} {unit} {'met' if met else 'MISSED'}"
            if not met:
                missed.append(what)
        if yardstick is not None:
            name, value = yardstick
            text += f"   beside it: {name} {value:.4g} {unit}"
        print(text, flush=True)

    return say
