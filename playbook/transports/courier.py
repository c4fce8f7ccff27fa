"""Requests carried by a process of their own, which outlives ours: what it is at when we are killed it finishes, and it knows the answer.

Both ends of it. Ours, `Courier`, is a `Send` like the network itself; the other one, `serve`, is for the program that carries them
(`playbook.witness`). Each line is JSON over a pair of sockets: first what that process must know, then one request after another, and an
answer or a failure for each. Credentials go this way and no other (no argument, no environment). When our end is closed without a word of
dismissal, we have gone.

Imports errors, the clock and `http`; the journal of sessions imports it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import subprocess
import threading
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from playbook.errors import ProviderError, SetupError, reason_of
from playbook.transports.http import ANSWER_S, CONNECT_S, MAX_BODY, Answer, Http, NetworkError, Request, Wire

PATIENCE_S = CONNECT_S + ANSWER_S + 5
"""How long a process may take for one request, its own beginning included."""
_REAP_S = 1.0
_MAX_LINE = 3 * MAX_BODY  # in base64, and with what stands around it
_DISMISSED = b'{"dismissed":true}\n'


class Courier:
    """Our end, for as long as the context lasts: `http.through(courier.send)`. `command` starts the process, `task` is what it must know.

    It is dismissed at the end of the context, unless something else than a `ProviderError` ends it: then it takes us for gone.
    """

    def __init__(self, command: Sequence[str], http: Http, task: Mapping[str, Any]) -> None:
        self._command, self._http, self._task = command, http, task

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    async def __aenter__(self) -> Courier:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220 -- asyncio's own would be killed with the loop that it belongs to
                self._command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C and a lost terminal are not for it
            )
        except OSError as error:
            ours.close()
            raise SetupError(f"the process that creates the session could not be started: {reason_of(error)}") from error
        finally:
            theirs.close()
        self._reader, self._writer = await asyncio.open_connection(sock=ours, limit=_MAX_LINE)
        self._write({"task": self._task, **self._http.way})
        return self

    async def send(self, request: Request) -> Answer:
        """Have one request carried. Raises `NetworkError`."""
        self._write(asdict(request))
        try:
            async with asyncio.timeout(PATIENCE_S):
                line = json.loads(await self._reader.readline())
        except (TimeoutError, OSError, ValueError) as error:
            what = "does not answer" if isinstance(error, TimeoutError) else "has died"
            text = f"the process that sends the request {what}; the request may have arrived"
            raise NetworkError(text, outcome="ambiguous", passing=False) from error
        if "bug" in line:
            raise RuntimeError(f"in the process that sends the request:\n{line['bug']}")
        if "failed" in line:
            raise NetworkError(line["failed"], outcome=line["outcome"], passing=line["passing"], remedy=line["remedy"])
        return Answer(line["status"], line["headers"], base64.b64decode(line["body"]))

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None or isinstance(error, ProviderError):
            self._writer.write(_DISMISSED)
            with contextlib.suppress(TimeoutError, OSError, subprocess.TimeoutExpired):
                async with asyncio.timeout(_REAP_S):
                    await self._reader.read()  # to the end, which is the process's
                self._process.wait(_REAP_S)
        self._writer.close()
        if self._process.returncode is None:  # it has still something to do; whenever it is done, it wants to be buried
            threading.Thread(target=self._process.wait, daemon=True).start()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._writer.write(json.dumps(line).encode() + b"\n")


async def serve(end: socket.socket) -> tuple[Mapping[str, Any], Answer | NetworkError | None] | None:
    """The other end: carry what is asked. When the asker has gone: the task, and what came of the last request. None: dismissed."""
    reader, writer = await asyncio.open_connection(sock=end, limit=_MAX_LINE)
    if not (line := await _line(reader)):
        return None
    told = json.loads(line)
    wire = Wire(told["base_url"])
    wire.authorize(told["headers"])
    last: Answer | NetworkError | None = None
    while line := await _line(reader):
        if line == _DISMISSED:
            return None
        try:
            last = await wire.send(Request(**json.loads(line)))
            answer = {"status": last.status, "headers": dict(last.headers), "body": base64.b64encode(last.body).decode()}
        except NetworkError as error:
            last = error
            answer = {"failed": error.message, "outcome": error.outcome, "passing": error.passing, "remedy": error.remedy}
        except Exception:  # a bug of ours, which is to be seen
            answer = {"bug": traceback.format_exc()}
        writer.write(json.dumps(answer).encode() + b"\n")
    return told["task"], last


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next whole line; nothing when the asker has gone, also in the middle of one."""
    try:
        return await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, OSError):
        return b""
