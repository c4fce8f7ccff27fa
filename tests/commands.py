"""The command line in tests: `call` in this process, `start` and `perform` as a real one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from playbook.cli import main

from .logs import ROOT

HELLO = """\
version: 1
name: hello
provider: local
vars:
  visitor: {type: string, default: friend}
timeline:
  - say: Welcome, {{ visitor }}.
    id: hello
  - wait: 500ms
  - say: This is a long sentence that will be cut short.
    until: 1s
  - interrupt:
  - end:
"""


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str


class Shell:
    """A folder to work in, an environment of its own, and a cache that all tests of the session share."""

    def __init__(self, folder: Path, env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.env, self._capsys = folder, env, capsys
        self._started: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str = HELLO) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return name

    def call(self, *argv: str, **env: str) -> Done:
        """Carry out a command line in this process."""
        self._capsys.readouterr()
        code = main(argv, self.env | env)
        done = self._capsys.readouterr()
        return Done(code, done.out, done.err)

    def start(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """Start the real command."""
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen([sys.executable, "-m", "playbook", *argv], cwd=self.folder, env=self.env, text=True, **settings)
        self._started.append(process)
        return process

    def told(self, process: subprocess.Popen[str]) -> Iterator[str]:
        """What a real command tells, line by line. It is ended after half a minute, so that no test waits for ever for what never comes."""
        assert process.stderr is not None
        alarm = threading.Timer(30, process.kill)
        alarm.start()
        try:
            for line in process.stderr:  # noqa: UP028  # `yield from` would close the stream for whoever stops listening
                yield line
        finally:
            alarm.cancel()

    def find(self, process: subprocess.Popen[str], pattern: str) -> tuple[str, ...]:
        """Read what a real command tells until this is in it, and give its groups."""
        for line in self.told(process):
            if found := re.search(pattern, line):
                return found.groups()
        raise AssertionError(f"{pattern!r} was never told")

    def until(self, process: subprocess.Popen[str], words: str) -> None:
        """Read what a real command tells until it says this."""
        lines: list[str] = []
        for line in self.told(process):
            lines.append(line)
            if words in line:
                return
        raise AssertionError(f"{words!r} was never told: {''.join(lines)}")

    def clean_up(self) -> None:
        """Leave no process behind, whatever became of the test."""
        for process in self._started:
            with process:
                process.kill()

    def perform(self, *argv: str, **options: Any) -> Done:
        """Carry out the real command to its end."""
        process = self.start(*argv, **options)
        out, err = process.communicate(timeout=60)
        return Done(process.returncode, out or "", err or "")


@pytest.fixture(scope="session")
def speech_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def shell(tmp_path: Path, speech_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "PLAYBOOK_CACHE_DIR": str(speech_cache),
        "PLAYBOOK_STATE_DIR": str(tmp_path / "state"),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
    }
    made = Shell(folder, env, capsys)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # what a test starts must not inherit that somebody runs the tests by `nohup`
    yield made
    made.clean_up()
    signal.signal(signal.SIGHUP, hangup)
