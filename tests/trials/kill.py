"""`kill -9` at every moment of a run: what the journal then still knows suffices to end every session, or to know when it is over.

The runs are real processes of the command line, against an emulator in real time. One process has loaded everything and forks the others,
so that a kill falls into the run and not into its imports. Each kill is aimed: it waits for a sign of the emulator's, which holds the
moment open where it would be too short to hit. Ten kills, then `sessions end --all`, and again.

What was killed while the vendor answered is written down by the witness; `sessions end --all` waits for that.
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from playbook.cli import main
from playbook.clock import block
from playbook.emulators.base import Emulator
from playbook.emulators.faults import Injection
from playbook.journal.journal import Journal
from tests.logs import ROOT
from tests.served import playbook_for, serving

BATCH = 10
HELD_MS = 150
TIMELINE = (
    "  - say: A.\n    until: 100ms\n  - wait: 100ms\n  - say: {chunks: [B, and]}\n    until: 100ms\n  - interrupt:\n  - wait: 100ms\n"
)
LAUNCHER = """
import json, os, sys
import playbook.cli.perform, playbook.perform.performance, playbook.emulators, playbook.record.captions, playbook.transports.http
import playbook.providers.avaturn.provider, playbook.providers.kaltura.provider, playbook.providers.tavus.echo, playbook.language.plan
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
class Aim:
    """When to kill: between `from_ms` and `to_ms` after the emulator has noted `what` (of a path, for requests). `hold` keeps it there."""

    what: str
    path: str = ""
    hold: Injection | None = None
    from_ms: float = 0
    to_ms: float = HELD_MS - 10


def aims(name: str) -> dict[str, Aim | None]:
    """The moments of a run with this provider. None: before it has asked for anything."""
    create = {"kaltura": "/create", "avaturn": "/sessions", "tavus": "/conversations"}[name]
    method, end = {"kaltura": ("POST", "*/end"), "avaturn": ("DELETE", "*/sessions/*"), "tavus": ("POST", "*/end")}[name]
    opening = {
        "kaltura": Aim("request", "/init-client", Injection("serve", "POST", "*/init-client", before_ms=HELD_MS)),
        "avaturn": Aim("session_created", from_ms=4, to_ms=12),  # creating is all that there is to it
        "tavus": Aim("knocked", to_ms=250),
    }[name]
    say = Aim("message") if name == "tavus" else Aim("request", {"kaltura": "/say-text", "avaturn": "/tasks"}[name])
    return {
        "before": None,
        "create, not yet carried out": Aim("request", create, Injection("serve", "POST", f"*{create}", before_ms=HELD_MS)),
        "create, not yet answered": Aim("session_created", hold=Injection("serve", "POST", f"*{create}", after_ms=HELD_MS)),
        "create, just answered": Aim("session_created", to_ms=5),
        "opening": opening,
        "say": replace(say, to_ms=12),
        "say, not yet answered": replace(say, hold=Injection("serve", "POST", f"*{say.path}", after_ms=HELD_MS) if say.path else None),
        "wait": replace(say, from_ms=30, to_ms=400),
        "close, not yet carried out": Aim("request", "end", Injection("serve", method, end, before_ms=HELD_MS)),
        "close, not yet answered": Aim("session_ended", hold=Injection("serve", method, end, after_ms=HELD_MS)),
    }


class Trap:
    """Kills the run that is under way when the emulator gives the sign."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._aim: Aim | None = None
        self._timer: threading.Timer | None = None
        self._known = threading.Event()
        self._pid = 0
        note = emulator.note

        def noted(what: str, **facts: Any) -> dict[str, Any]:
            entry = note(what, **facts)
            self._saw(entry)
            return entry

        emulator.note = noted  # type: ignore[method-assign]  # what happens there is our sign

    def arm(self, aim: Aim | None, delay_s: float) -> None:
        """For the run that begins now; without an aim, `delay_s` counts from its beginning. What the last one asked for is done first."""
        while any("status" not in entry for entry in self._emulator.journal if entry["what"] == "request"):
            block(5)
        self._known.clear()
        self._aim, self._delay_s = aim, delay_s
        self._emulator.injections = [] if aim is None or aim.hold is None else [replace(aim.hold)]

    def began(self, pid: int) -> None:
        """The run is this process."""
        self._pid = pid
        self._known.set()
        if self._aim is None:
            self._strike()

    def disarm(self) -> None:
        """The run is over."""
        self._aim = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None

    def _saw(self, entry: Mapping[str, Any]) -> None:
        aim = self._aim
        if aim is None or self._timer is not None or entry["what"] != aim.what:
            return
        ends = entry.get("method") == "DELETE" or entry.get("path", "").endswith("/end")
        if aim.what != "request" or (ends if aim.path == "end" else entry["path"].endswith(aim.path)):
            self._strike()

    def _strike(self) -> None:
        self._timer = threading.Timer(self._delay_s, self._kill)
        self._timer.start()

    def _kill(self) -> None:
        self._known.wait(5)
        with contextlib.suppress(ProcessLookupError):  # it was faster
            os.kill(self._pid, signal.SIGKILL)


@dataclass
class Killed:
    """What came of it. Sessions are counted by the emulator."""

    runs: int
    survived: int = 0
    fell: Counter[str] = field(default_factory=Counter)
    """Where the kills fell, by the run's log, the journal and the emulator."""
    created: int = 0
    left_open: int = 0
    unseen: int = 0
    """Sessions of which the journal had no id when their run was killed."""
    open_after: int = 0
    """Sessions that are open after `sessions end --all`."""
    listed_after: int = 0
    """What the journal then still holds open."""


@contextlib.contextmanager
def launcher(errors: Path) -> Iterator[subprocess.Popen[str]]:
    with errors.open("w") as stderr:
        command, pipe = [sys.executable, "-c", LAUNCHER], subprocess.PIPE
        process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=stderr, text=True)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def call(env: dict[str, str], *argv: str) -> int:
    """A command line in this process."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        return main(argv, env)


def kill(name: str, folder: Path, each: int = 10, moments: tuple[str, ...] = (), seed: int = 1) -> Killed:
    """`each` kills at every moment of a run with this provider (or at some), and a run that nobody kills after every ten."""
    chance = random.Random(seed)
    file = folder / "show.yaml"
    file.write_text(playbook_for(name, TIMELINE), "utf-8")
    wanted = {moment: aim for moment, aim in aims(name).items() if not moments or moment in moments}
    plan = [(moment, aim) for _ in range(each) for moment, aim in wanted.items()]
    result = Killed(len(plan))
    with serving(name, viewer_after_ms=None) as emulator, launcher(folder / "errors") as forge:
        journal = Journal(folder / "state")
        env = {"HOME": str(folder), "PLAYBOOK_STATE_DIR": str(folder / "state"), **emulator.environment()}
        trap = Trap(emulator)

        def perform(out: Path) -> int:
            assert forge.stdin is not None
            assert forge.stdout is not None
            forge.stdin.write(json.dumps([["run", str(file), "--out", str(out), "--quiet"], env]) + "\n")
            forge.stdin.flush()
            trap.began(int(forge.stdout.readline()))
            code = int(forge.stdout.readline())
            trap.disarm()
            return code

        for n, (moment, aim) in enumerate(plan, 1):
            out, before = folder / f"run-{n}", len(emulator.sessions)
            trap.arm(aim, chance.uniform(0, HELD_MS) / 1000 if aim is None else chance.uniform(aim.from_ms, aim.to_ms) / 1000)
            code = perform(out)
            assert code in (0, -signal.SIGKILL), (moment, code, (folder / "errors").read_text("utf-8")[-2_000:])
            result.survived += code == 0
            if code:
                result.fell[where(out, journal, emulator, created=len(emulator.sessions) > before)] += 1
            known = {record.session for record in journal.open_sessions()}
            result.unseen += sum(session.id not in known for session in emulator.open_sessions)
            if n % BATCH == 0 or n == len(plan):
                _end_all(result, env, journal, emulator)
        result.created = len(emulator.sessions)
    return result


def _end_all(result: Killed, env: dict[str, str], journal: Journal, emulator: Emulator) -> None:
    """End what is open, and see what of it is left."""
    assert not any(record.alive for record in journal.open_sessions())
    result.left_open += len(emulator.open_sessions)
    assert call(env, "sessions", "end", "--all") == 0
    result.open_after += len(emulator.open_sessions)
    result.listed_after += len(journal.open_sessions())


def where(out: Path, journal: Journal, emulator: Emulator, *, created: bool) -> str:
    """Where a run was when it was killed."""
    try:
        text = (out / "run.jsonl").read_text("utf-8")
    except OSError:
        text = ""
    commands = re.findall(r'"command":"(\w+)"', text)
    if not commands:
        return "before the create"
    if '"session_closed"' in text:
        return "after the close"
    [record] = [record for record in journal.open_sessions() if record.run == out.name] or [None]
    if "close_session" not in commands and '"session_opened"' not in text:
        if record is not None and record.session is not None:
            return "opening, with a name"
        if record is None:
            return "before the create"
        return "create, carried out" if created else "create, not carried out"
    if "close_session" in commands:
        alive = record is not None and emulator.sessions[record.session].alive
        return "close, not carried out" if alive else "close, carried out"
    return {"say": "say, not accepted", "interrupt": "interrupt"}.get(commands[-1], "speaking or waiting")
