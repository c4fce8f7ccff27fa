"""Replay, diff and test: how fast, and in how much memory.

The yardsticks: reading the same log as JSON; difflib on the same texts; and, where `robot` and `tavern-ci` are on the PATH, 500 suites of
20 steps in Robot Framework (each step logs a line) and a tenth of that in Tavern (each stage asks a loopback server), which is slow.
"""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

from playbook.language import plan_to_json
from playbook.model import Plan
from playbook.record.diff import compare, tolerance
from playbook.record.performance import of_log
from playbook.record.replay import replay
from playbook.record.runlog import Header, RunLog, read_log
from tests.bench import Say, bench, peak_mb, timed
from tests.scripts import drive, plan, say

LINES = 100_000
ROOT = Path(__file__).parent.parent.parent


def long_plan(steps: int) -> Plan:
    return plan(*[say(f"line-{n}", f"This is line number {n} of quite a few.") for n in range(steps)])


def write_log(path: Path, show: Plan, ignored: int = 0) -> int:
    """Perform a plan into a log; with `ignored`, so many triggers come that nobody waits for. Returns the number of lines."""
    from playbook.events import Trigger

    story = drive(show, inject=[(500, Trigger("nothing"))] * ignored, limit=10_000_000)
    log = RunLog(path)
    names = {"run": "bench", "playbook": show.name, "file": "", "plan_sha256": show.sha256, "provider": "local", "clock": "virtual"}
    log.header(Header(started_at="2026-01-01T00:00:00Z", versions={}, **names))
    at, batch = 0, []
    for ms, item in story:  # in few writes: it is the reading that is measured
        if ms != at and batch:
            log.write(batch, at)
            batch = []
        at = ms
        batch.append(item)
    log.write(batch, at)
    log.end(at, "passed", None, {})
    log.close()
    return len(story) + 1


@bench("regress-replay", "a log of 100,000 lines through the engine")
def replaying(tell: Say) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        show = long_plan(LINES // 9)
        lines = write_log(path, show)

        def work() -> None:
            result = replay(read_log(path), show)
            assert result.identical, result.divergence

        took_s, _ = timed(work)
        json_s, _ = timed(lambda: [json.loads(line) for line in path.open("rb")])
        tell(f"replay of {lines} lines", took_s, "s", target=3.0, yardstick=("json.loads of each line", json_s))
        short = long_plan(10)
        (Path(folder) / "plan.json").write_text(json.dumps(plan_to_json(short)))
        code = (
            "import json, sys; from pathlib import Path; from playbook.language import plan_from_json; "
            "from playbook.record.replay import replay; from playbook.record.runlog import read_log; "
            "plan = plan_from_json(json.loads(Path(sys.argv[2]).read_bytes())); assert replay(read_log(Path(sys.argv[1])), plan).identical"
        )
        peaks = []
        for ignored in (500, LINES):
            path.unlink()
            lines = write_log(path, short, ignored)
            peaks.append((lines, peak_mb(code, str(path), str(Path(folder) / "plan.json"))))
        (few, few_mb), (many, many_mb) = peaks
        tell(f"memory that {many} lines take more than {few}", many_mb - few_mb, "MB", target=8.0, yardstick=("peak of the latter", few_mb))


@bench("regress-diff", "two logs of 100,000 lines")
def differing(tell: Say) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, two = Path(folder) / "one.jsonl", Path(folder) / "two.jsonl"
        show = long_plan(LINES // 9)
        lines = write_log(one, show)
        changed = [say("new", "A line that is new."), *show.steps[:-1]]
        rewritten = [
            say(step.id, f"{step.action.text} Indeed.") if n % 3 == 2 else step  # type: ignore[union-attr]  # all of these say
            for n, step in enumerate(changed)
        ]
        write_log(two, replace(show, steps=(*rewritten, show.steps[-1])))

        def work() -> int:
            return len(compare(of_log(read_log(one), "one"), of_log(read_log(two), "two"), tolerance("150ms")).changes)

        took_s, changes = timed(work)
        assert changes > len(rewritten) // 3
        texts = [[json.loads(line).get("text") for line in path.open() if '"command":"say"' in line] for path in (one, two)]
        size = 2_000
        yard_s, _ = timed(lambda: SequenceMatcher(None, texts[0][:size], texts[1][:size], autojunk=False).get_opcodes())
        tell(
            f"diff of two logs of {lines} lines", took_s, "s", target=5.0, yardstick=(f"difflib on {size} of {len(texts[0])} texts", yard_s)
        )


PLAYBOOKS, STEPS = 500, 20
TAVERN = 50


@bench("regress-test", "playbook test of 500 playbooks of 20 steps on the virtual clock, all reports")
def testing(tell: Say) -> None:
    with tempfile.TemporaryDirectory() as folder:
        texts = [f"This is line {n} of a playbook." for n in range(STEPS // 2)]
        for number in range(PLAYBOOKS):
            steps = "".join(f"  - say: {text}\n  - wait: 250ms\n" for text in texts)
            path = Path(folder) / "set" / f"{number:03}.yaml"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"version: 1\nprovider: local\ntimeline:\n{steps}")
        reports = ("--junit", "j.xml", "--tap", "t.tap", "--html", "p.html", "--json", "--quiet")
        command = [sys.executable, "-m", "playbook", "test", "set", "--clock", "virtual", "--jobs", "2", *reports]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PLAYBOOK_CACHE_DIR": str(Path(folder) / "cache")}
        took_s, _ = timed(lambda: run(command, folder, env))
        tell(f"{PLAYBOOKS} playbooks", took_s, "s", target=15.0)
        for name, yardstick in ((f"{PLAYBOOKS} in Robot Framework", robot), (f"{TAVERN} in Tavern", tavern)):
            found = yardstick(Path(folder))
            if found is None:
                print(f"  {name}: not installed")
            else:
                tell(f"{name}, one process", timed(found)[0], "s")


def run(command: list[str], folder: str | Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def robot(folder: Path) -> Callable[[], None] | None:
    """Suites whose steps each log a line."""
    command = shutil.which("robot")
    if command is None:
        return None
    suites = folder / "robot"
    suites.mkdir()
    steps = "".join(f"    Log    This is line {n} of a playbook.\n" for n in range(STEPS))
    for number in range(PLAYBOOKS):
        (suites / f"s{number:03}.robot").write_text(f"*** Test Cases ***\nShow\n{steps}")
    return lambda: run([command, "--console", "none", "--xunit", "x.xml", "--outputdir", "out", "robot"], folder)


def tavern(folder: Path) -> Callable[[], None] | None:
    """Files whose stages each ask a loopback server."""
    command = shutil.which("tavern-ci")
    if command is None:
        return None

    class Answer(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    files = folder / "tavern"
    files.mkdir()
    stage = "  - name: stage {n}\n    request: {{url: 'http://127.0.0.1:{port}/{n}', method: GET}}\n    response: {{status_code: 200}}\n"
    stages = "".join(stage.format(n=n, port=server.server_port) for n in range(STEPS))
    for number in range(TAVERN):
        (files / f"test_{number:03}.tavern.yaml").write_text(f"test_name: show {number}\nstages:\n{stages}")
    python = str(Path(command).parent / "python")

    def work() -> None:
        try:
            run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", "t.xml", "tavern"], folder)
        finally:
            server.shutdown()
            server.server_close()

    return work
