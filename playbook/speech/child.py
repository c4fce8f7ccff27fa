"""The child process of a voice: a request in JSON goes in, a line of JSON and bytes come out."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from playbook.errors import SetupError, reason_of
from playbook.speech.engines import Unspeakable


class ChildEnded(SetupError):
    """The child ended without an answer: killed, out of memory, or broken."""


class Child:
    """One process. It ends with its pipe, or when it is closed."""

    def __init__(self, command: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the terminal is for us to handle
            )
        except OSError as error:
            raise SetupError(f"the voice's process cannot be started: {reason_of(error)}") from error

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait for the answer. Raises `ChildEnded`, or `Unspeakable` with the child's reason."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            header: dict[str, Any] = json.loads(line)
            size = header.pop("bytes")
            body = self._process.stdout.read(size)
        except (OSError, ValueError, KeyError) as error:
            raise ChildEnded("the voice's process ended without an answer", remedy="install the voice anew") from error
        if len(body) < size:
            raise ChildEnded("the voice's process ended in the middle of an answer", remedy="install the voice anew")
        if "error" in header:
            raise Unspeakable(header["error"])
        return header, body

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
