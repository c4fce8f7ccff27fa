"""How well we hear: a show of 50 lines at Kaltura's emulator in a process of its own, by real WebRTC, against the emulator's own truth."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

import playbook
from playbook import clock

from . import Say, bench

LINES = 50
TEXT = """\
version: 1
provider: kaltura
session: {{visualConfig: {{id: a}}, voiceConfig: {{id: v}}, listen: true}}
start: 0s
timeline:
  - say: "Number {{{{ item }}}}."
    foreach: {numbers}
"""


@bench("ears", "how far what we hear of a stream is from what was said, and what listening costs")
def measure(say: Say) -> None:
    emulator = subprocess.Popen(
        [sys.executable, "-m", "playbook", "emulate", "kaltura", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert emulator.stdout is not None
        env = json.loads(emulator.stdout.readline())["env"]
        with tempfile.TemporaryDirectory() as folder:
            _perform(say, env, Path(folder))
    finally:
        emulator.terminate()
        emulator.wait()


def _perform(say: Say, env: dict[str, str], folder: Path) -> None:
    url = env["KALTURA_BASE_URL"]
    env = {**env, "PLAYBOOK_STATE_DIR": str(folder / "state")}
    plan = playbook.plan(TEXT.format(numbers=list(range(LINES))), env=env)
    origins: list[float] = []  # of the run's clock, on the wall's: the least delayed line tells it best

    def watch(line: dict[str, object]) -> None:
        if isinstance(at_ms := line.get("at_ms"), int):
            origins.append(1000 * time.time() - at_ms)

    began, used = time.monotonic(), _cpu_s()
    outcome = clock.run(playbook.run(plan, folder=folder / "run", env=env, watch=watch))
    share = (_cpu_s() - used) / (time.monotonic() - began)
    spoken, origin_ms = _spoken(url)
    lines = [json.loads(line) for line in (outcome.folder / "run.jsonl").read_text("utf-8").splitlines()]
    ours_ms = min(origins)
    errors = []
    for kind, field in (("speech_started", "started_ms"), ("speech_ended", "ended_ms")):
        heard = [ours_ms + line["at_ms"] - line.get("ago_ms", 0) for line in lines if line.get("event") == kind and line["source"] == "ear"]
        said = [origin_ms + line[field] for line in spoken["spoken"]]
        assert len(heard) == len(said) == LINES, f"{len(heard)} of {len(said)} lines were heard"
        errors += [abs(a - b) for a, b in zip(heard, said, strict=True)]
    errors.sort()
    say("of 100 starts and ends, the median is off by", statistics.median(errors), "ms")
    say("95 % are within", errors[int(0.95 * len(errors)) - 1], "ms", target=100)
    say("the worst is off by", errors[-1], "ms", target=300)
    say("processor used by one listening session", share, "cores", target=0.15)


def _spoken(url: str) -> tuple[dict[str, list[dict[str, int]]], float]:
    """What was truly said, and the origin of the emulator's clock on the wall's, by the quickest of some answers."""
    answers = []
    for _ in range(10):
        asked = time.time()
        spoken = httpx.get(f"{url}/_emulator/spoken").json()
        answers.append((time.time() - asked, 500 * (asked + time.time()) - spoken["at_ms"], spoken))
    _, origin_ms, spoken = min(answers, key=lambda answer: answer[0])
    return spoken, origin_ms


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
