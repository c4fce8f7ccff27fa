"""Garbage that learns: atheris (libFuzzer) looks for bytes that take a reader where no bytes took it before.

Each target of `targets` runs in a process of its own, with a limit of time for one input, one of memory for the process, and a time in all.
What breaks a promise is shown as it is, so that it can become a test; the corpus that grows on the way is thrown away.

    python -m tests.bench trial-guided 300          five minutes for each target
    python -m tests.trials.guided yaml FOLDER -max_total_time=60      one, with libFuzzer's own options

Needs the extra `fuzz`, and nothing else does. The package is instrumented as it is imported, so this file imports nothing of it.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

INSTALL = "pip install 'atheris>=3.0'"
INPUT_S = 10
"""The longest that one input may take, instrumented and beside other work. What is measured exactly is in the tests and benchmarks."""
MEMORY_MB = 1_024
_ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Tried:
    """What a target stood."""

    inputs: int
    edges: int
    """How many branches were taken that the fuzzer tells apart."""
    corpus: int
    peak_mb: int


class Found(Exception):
    """Some bytes broke a promise. The message has them, and what happened."""


def available() -> bool:
    """Whether atheris is here."""
    try:
        importlib.import_module("atheris")
    except ImportError:  # not installed, or not for this machine
        return False
    return True


def guided(name: str, seconds: int) -> Tried:
    """Fuzz one target. Raises `Found`."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        options = [f"-max_total_time={seconds}", f"-timeout={INPUT_S}", f"-rss_limit_mb={MEMORY_MB}", "-print_final_stats=1"]
        options += ["-detect_leaks=0", "-use_value_profile=1", "-reload=0", f"-artifact_prefix={folder}/"]
        command = [sys.executable, "-m", "tests.trials.guided", name, str(corpus), *options]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            left = [path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file() and "-" in path.name]
            raise Found(f"{name}: {left[0] if left else b''!r}\n{_trouble(done.stderr + done.stdout)}")
        return _tried(done.stderr)


def _trouble(output: str) -> str:
    """The part of libFuzzer's output that says what happened."""
    at = [found for mark in ("=== Uncaught", "==", "Traceback") if (found := output.find(mark)) >= 0]
    return output[min(at, default=max(0, len(output) - 4_000)) :][:8_000]


def _tried(output: str) -> Tried:
    def figure(pattern: str) -> int:
        return int((re.findall(pattern, output) or ["0"])[-1])

    return Tried(
        figure(r"stat::number_of_executed_units:\s*(\d+)"),
        figure(r"\bcov: (\d+)"),
        figure(r"\bcorp: (\d+)"),
        figure(r"stat::peak_rss_mb:\s*(\d+)"),
    )


def _fuzz(name: str, corpus: Path, options: list[str]) -> None:
    """The process of one target: never returns."""
    import atheris

    os.nice(10)
    with atheris.instrument_imports(include=["playbook"]):
        from tests.trials.targets import TARGETS
    target = TARGETS[name]
    words: set[bytes] = set()
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
        words.update(re.findall(rb"[\w.'\"{}:|*&-]{2,40}", seed))
    dictionary = corpus.parent / "words.txt"
    lines = ["".join(f"\\x{byte:02x}" for byte in word) for word in sorted(words)[:5_000]]
    dictionary.write_text("".join(f'"{line}"\n' for line in lines))
    atheris.Setup([sys.argv[0], str(corpus), f"-dict={dictionary}", *options], target.read)
    atheris.Fuzz()


if __name__ == "__main__":
    _fuzz(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
