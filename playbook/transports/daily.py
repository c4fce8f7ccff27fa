"""The Daily room, held by a child process of ours (`transports.daily_child`, the only file that imports the native library).

Why a child: a join cannot be cancelled and takes 19 to 49 seconds to fail where the service is unreachable, some calls hold the
interpreter's lock for as long, and misuse ends the process by SIGABRT or SIGSEGV (measured on daily-python 0.36). In a process of its own,
killing it is the cancel, a freeze is a pulse that stops, and a crash is a `RoomLost` that the run survives, so that the paid conversation
can be ended.

Rules: the child gets no credential but the meeting token (its environment is a short list of names), does not hear the terminal's signals,
and never outlives us: it ends when its standard input does, and on Linux with its parent. Imported by providers.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from playbook.errors import SetupError
from playbook.transports.room import LineRoom, OnEvent, Patience, redact

CHILD = (sys.executable, "-P", "-m", "playbook.transports.daily_child")
"""How the child is started. `-P`: a `daily.py` in the author's folder is not the library."""

_ENVIRONMENT = re.compile(r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|(LD|DYLD)_LIBRARY_PATH|SSL_CERT_(FILE|DIR)|RUST_\w+|PYTHON\w+|VIRTUAL_ENV")
_STDERR_BYTES = 4_000  # of the child's last words
_REAP_S = 0.5  # SIGKILL is not a request


class DailyRoom(LineRoom):
    """A Daily room. `env` is the run's environment; `command` starts the child."""

    def __init__(self, on_event: OnEvent, env: Mapping[str, str], patience: Patience | None = None, command: Sequence[str] = CHILD) -> None:
        super().__init__(on_event, patience or Patience())
        self._env = {name: value for name, value in env.items() if _ENVIRONMENT.fullmatch(name)}
        self._command = command
        self._process: asyncio.SubprocessTransport | None = None
        self._gone = asyncio.Event()
        self._last_words = b""

    @property
    def pid(self) -> int | None:
        """The child's process id, for reports and tests."""
        return None if self._process is None else self._process.get_pid()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.subprocess_exec(
                lambda: _Child(self),
                *self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._env,
                start_new_session=True,  # Ctrl-C and a lost terminal are ours to handle: the child leaves when we say so
            )
        except OSError as error:
            raise SetupError(f"the process for the Daily room could not be started: {error}") from error

    def _write(self, line: bytes) -> None:
        if self._process is not None and not self._gone.is_set():
            pipe = self._process.get_pipe_transport(0)
            if isinstance(pipe, asyncio.WriteTransport) and not pipe.is_closing():
                pipe.write(line)

    def _abort(self) -> None:
        # Not `self._process.kill()`: it asks for the status of a child that has just died, which then is missing to the loop's watcher.
        if self._process is not None and self._process.get_returncode() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.get_pid(), signal.SIGKILL)

    async def _hang_up(self, leave_s: float) -> None:
        if self._process is None:
            return
        for limit_s in (leave_s, _REAP_S):
            try:
                async with asyncio.timeout(limit_s):
                    await self._gone.wait()
                    break
            except TimeoutError:
                self._abort()
        self._process.close()

    def started(self, process: asyncio.SubprocessTransport) -> None:
        """There is a child (for `_Child`); it may be dead before we hear of it from anywhere else."""
        self._process = process

    def exited(self) -> None:
        """The child is dead and its pipes are read to their end (for `_Child`)."""
        self._gone.set()
        code = None if self._process is None else self._process.get_returncode()
        words = self._last_words.decode(errors="replace").strip()[-300:]
        text = f"the process of the Daily room {_cause(code)}" + (f": {redact(words, self._secrets)}" if words else "")
        self._lose("crashed", text)

    def complained(self, data: bytes) -> None:
        """The child wrote to standard error (for `_Child`): kept for the report of its death, bounded, shown to nobody before."""
        self._last_words = (self._last_words + data)[-_STDERR_BYTES:]


class _Child(asyncio.SubprocessProtocol):
    def __init__(self, room: DailyRoom) -> None:
        self._room = room

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._room.started(transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self._room._received(data)
        else:
            self._room.complained(data)

    def connection_lost(self, _: Exception | None) -> None:
        self._room.exited()


def _cause(code: int | None) -> str:
    if code is None:
        return "has gone"
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
