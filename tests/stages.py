"""A real `playbook stage` in a process of its own, and a real browser, for tests of the stage."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema

from playbook.clock import block, stopwatch
from playbook.formats.schema import load_schema

from .logs import ROOT

CHROMIUM = next(filter(None, (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))), None)
"""The browser, where there is one."""

SHOW = """\
version: 1
name: lobby
provider: local
timeline:
  - say: Welcome to the lobby, dear friend.
    id: hello
  - wait: 700ms
  - say: This is a rather long sentence, which goes on for a while, so that there is time to stop it in the middle of a word.
    id: long
  - wait: {event: next}
  - say: That is all.
    id: bye
  - end:
"""


def until(true: Callable[[], Any], what: str, within_ms: int = 15_000) -> Any:
    """Ask until it is true, and give that back."""
    passed = stopwatch()
    while not (found := true()):
        assert passed() < within_ms, f"never: {what}"
        block(15)
    return found


class Stage:
    """A stage that runs. `audience` and `operator` are its addresses."""

    def __init__(self, process: subprocess.Popen[str], addresses: Mapping[str, str]) -> None:
        self.process = process
        self.audience, self.operator = addresses["audience"], addresses["operator"]
        self.base, _, fragment = self.audience.partition("/#")
        self.base = self.base.rstrip("/")
        self.token = fragment.removeprefix("token=") or None

    def request(self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, str, Mapping[str, str]]:
        """Status, body and headers of an answer. `None` for a header leaves it as it is."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        asked = urllib.request.Request(self.base + path, data=body, method=method, headers=given)
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), error.headers

    def signal(self, name: str, step: str | None = None, **headers: str) -> tuple[int, str]:
        """Give a signal as a machine does. Status, and the reason where it was ignored."""
        body = None if step is None else json.dumps({"step": step}).encode()
        status, text, _ = self.request(f"/api/signal/{name}", method="POST", body=body, **headers)
        return status, json.loads(text)["reason"] if text else ""

    def state(self, **headers: str) -> dict[str, Any]:
        """The state, which is as its schema says."""
        status, text, _ = self.request("/api/state", **headers)
        assert status == 200, text
        state: dict[str, Any] = json.loads(text)
        jsonschema.Draft7Validator(load_schema("state.schema.json")).validate(state)
        return state

    def step(self, id: str) -> dict[str, Any]:
        """A step of the state."""
        return next(step for step in self.state()["steps"] if step["id"] == id)

    def until_phase(self, phase: str) -> None:
        until(lambda: self.state()["phase"] == phase, f"phase {phase}")

    def stop(self) -> int:
        """End it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)


@contextlib.contextmanager
def staging(file: Path, *argv: str, cache: Path, command: str = "stage") -> Iterator[Stage]:
    """`playbook stage FILE`, until the context is left."""
    env = {**os.environ, "PLAYBOOK_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    env["PLAYBOOK_STATE_DIR"] = str(file.parent / "state")
    port = () if "--port" in argv else ("--port", "0")
    asked = [sys.executable, "-m", "playbook", command, str(file), "--no-open", *port, *argv]
    with (file.parent / "stderr.txt").open("a") as told:
        streams: Any = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": told}
        process = subprocess.Popen(asked, cwd=file.parent, env=env, text=True, **streams)
    alarm = threading.Timer(400, process.kill)  # no test waits for ever
    alarm.start()
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(2)]
        assert [line[0] for line in lines if line] == ["audience", "operator"], (file.parent / "stderr.txt").read_text()
        yield Stage(process, {line[0]: line[1] for line in lines})
    finally:
        alarm.cancel()
        with process:
            process.kill()
