"""`kill -9` at any moment: what the journal then still knows suffices to end every session that got a name.

The runs are real processes of the command line, against an emulator in real time. One process has loaded everything and forks the others,
so that a kill falls into the run and not into its imports. What was killed between the vendor's doing and the vendor's answer has no name:
such a session is listed as an intent, and is ended where the vendor can be asked (`sessions reconcile`), else by the vendor's own time-out.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playbook.cli import main
from playbook.clock import stopwatch
from playbook.sessions import Journal
from tests.logs import ROOT
from tests.served import playbook_for, serving

TIMELINE = (
    "  - say: A.\n    until: 100ms\n  - wait: 100ms\n  - say: {chunks: [B, and]}\n    until: 100ms\n  - interrupt:\n  - wait: 100ms\n"
)

LAUNCHER = """
import json, os, sys
import playbook.cli.perform, playbook.runner, playbook.emulators, playbook.record.captions, playbook.transports.http
import playbook.providers.avaturn, playbook.providers.kaltura, playbook.providers.tavus_echo, playbook.language.plan
import httpx, numpy, soundfile, yaml
from playbook.cli import main
from playbook.clock import stopwatch

for line in sys.stdin:
    argv, env = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os._exit(main(argv, env))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Killed:
    """What came of it. `phases` counts where the kills fell; `nameless` sessions could be ended by nobody but the vendor."""

    runs: int
    survived: int
    created: int
    left_open: int
    nameless: int
    after_end_all: int
    after_reconcile: int
    phases: dict[str, int]


@contextlib.contextmanager
def launcher() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def call(env: dict[str, str], *argv: str) -> str:
    """A command line in this process: what it says."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        main(argv, env)
    return told.getvalue()


def kill(name: str, runs: int, folder: Path, seed: int = 1) -> Killed:
    """So many runs of a show with this provider, each killed at a moment chosen by chance, but for the first."""
    chance = random.Random(seed)
    file = folder / "show.yaml"
    file.write_text(playbook_for(name, TIMELINE), "utf-8")
    phases: Counter[str] = Counter()
    survived = 0
    with serving(name) as emulator, launcher() as forge:
        assert forge.stdin is not None
        assert forge.stdout is not None
        first_s = None  # how long a run takes that nobody kills
        env = {"HOME": str(folder), "PLAYBOOK_STATE_DIR": str(folder / "state"), **emulator.environment()}
        for n in range(runs):
            out = folder / f"run-{n}"
            forge.stdin.write(json.dumps([["run", str(file), "--out", str(out), "--quiet"], env]) + "\n")
            forge.stdin.flush()
            pid = int(forge.stdout.readline())
            took_ms = stopwatch()
            timer = threading.Timer(30 if first_s is None else chance.uniform(0, first_s), os.kill, (pid, signal.SIGKILL))
            timer.start()
            code = int(forge.stdout.readline())
            timer.cancel()
            first_s = took_ms() / 1000 if first_s is None else first_s
            survived += code == 0
            assert code in (0, -signal.SIGKILL), code
            if code:
                phases[phase(out / "run.jsonl")] += 1
        journal = Journal(folder / "state")
        listed = journal.open_sessions()
        left_open = len(emulator.open_sessions)
        named = {record.session for record in listed}
        nameless = [session.id for session in emulator.open_sessions if session.id not in named]
        assert len(nameless) <= sum(record.session is None for record in listed), "every session without a name is listed as an intent"
        assert not any(record.alive for record in listed)
        call(env, "sessions", "end", "--all")
        after_end_all = len(emulator.open_sessions)
        assert {session.id for session in emulator.open_sessions} == set(nameless)
        for line in call(env, "sessions", "reconcile", "--provider", name).splitlines():
            if "not in the journal" in line:
                call(env, "sessions", "end", line.split()[1].removesuffix(":"), "--provider", name)
        return Killed(
            runs, survived, len(emulator.sessions), left_open, len(nameless), after_end_all, len(emulator.open_sessions), dict(phases)
        )


def phase(log: Path) -> str:
    """Where a run was, by the last command in its log."""
    try:
        text = log.read_text("utf-8")
    except OSError:
        return "starting"
    if "session_closed" in text:
        return "closed"
    names = {"open_session": "creating", "close_session": "closing", "say": "accepting", "start_timer": "speaking or waiting"}
    commands = re.findall(r'"command":"(\w+)"', text)
    return names.get(commands[-1], commands[-1]) if commands else "starting"
