"""Requests carried by a process of its own, which outlives ours: what it is at when we are killed it finishes, and it knows the answer.

Both ends of it. Ours is `Courier`: in its context, what an `Http` asks goes that way. All of one event loop share a process, which is there
for as long as somebody needs it. The other end, `serve`, is for the program that carries the requests (`playbook.journal.witness`).

Each line is JSON over a pair of sockets, with the number of its errand: first what that process must know of it, then one request after
another, for each an answer or a failure back, and in the end whether all that it heard has been `noted` here. If it has not, or if the
sockets close before that word, whoever asked has died. Credentials go this way and no other (no argument, no environment).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import IO, Any
from weakref import WeakKeyDictionary

from playbook.errors import ProviderError, SetupError, reason_of
from playbook.transports.http import ANSWER_S, CONNECT_S, MAX_BODY, Answer, Http, NetworkError, Request, Wire

PATIENCE_S = CONNECT_S + ANSWER_S
"""How long we wait for an answer, and before that for the process to begin."""
WITNESS_S = 600.0
"""How long the process waits for an answer: it may come when we have gone, and it or we may be suspended meanwhile."""
_REAP_S = 1.0
_LAST_WORDS = 4_000
_DEAF_TO = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Whoever stops all processes of a run stops the one that asked; the other has to hear the answer."""
_MAX_LINE = 3 * MAX_BODY  # in base64, and with what stands around it

_Task = Mapping[str, Any]
_numbers = itertools.count(1)
_open: set[int] = set()
"""Our ends, which a forked child must not keep open: then nobody would hear that we have died."""
_processes: WeakKeyDictionary[asyncio.AbstractEventLoop, _Process] = WeakKeyDictionary()


class Courier:
    """The context in which requests of `http` are carried. `command` starts the process, `task` is what it must know.

    What it heard counts as noted when the context ends by itself or with a `ProviderError`; with anything else, or while an answer is still
    to come, we have gone.
    """

    def __init__(self, command: Sequence[str], http: Http, task: _Task) -> None:
        self._command, self._http, self._task = command, http, task
        self._number = next(_numbers)
        self._through = contextlib.ExitStack()
        self._asked = False

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def waits(self) -> bool:
        """Whether an answer may still come, of which only that process will hear."""
        return self._asked

    async def __aenter__(self) -> Courier:
        await self._enter()
        self._through.enter_context(self._http.through(self._send))
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._through.close()
        noted = not self._asked and (error is None or isinstance(error, ProviderError))
        self._process.tell(self._number, noted=noted)
        await self._process.leave(wait=noted)

    async def _enter(self) -> None:
        loop = asyncio.get_running_loop()
        process = _processes.get(loop)
        if process is None:
            process = _processes[loop] = _Process(self._command)
        async with process.used():
            self._http.prepare()  # while it begins
            await process.begun()
        process.tell(self._number, task=self._task, asker=os.getpid(), **self._http.way)
        self._process = process

    async def _send(self, request: Request) -> Answer:
        if self._process.dead:
            await self._process.leave(wait=False)
            await self._enter()
        self._asked = True
        try:
            told = await self._process.ask(self._number, asdict(request))
        except TimeoutError as error:  # the answer may come, and is no business of ours any more
            text = f"the request was sent, but no answer came within {ANSWER_S:g} s"
            raise NetworkError(text, outcome="ambiguous", passing=False) from error
        except EOFError as error:
            self._asked = False
            raise _lost("has died") from error
        self._asked = False
        if "bug" in told:
            raise RuntimeError(f"in the process that sends the request:\n{told['bug']}")
        if "failed" in told:
            raise NetworkError(told["failed"], outcome=told["outcome"], passing=told["passing"], remedy=told["remedy"])
        return Answer(told["status"], told["headers"], base64.b64decode(told["body"]))


def _begin(command: Sequence[str], stdin: socket.socket, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start it: not by asyncio, whose processes are killed with the loop that they belong to, and out of reach of Ctrl-C."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF_TO)  # which is inherited, and holds from the first moment
    try:
        return subprocess.Popen(command, stdin=stdin.fileno(), stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _within(limit_s: float, future: asyncio.Future[Any]) -> bool:
    """Whether it comes in time. A program that ends cancels every task of its loop; but what is created must become known, to be ended."""
    loop = asyncio.get_running_loop()
    due = loop.time() + limit_s
    while not future.done() and (left_s := due - loop.time()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future], timeout=left_s)
    for _ in range(3):  # what has come while we were suspended is there, but after a suspension timers are the first to be heard
        await asyncio.sleep(0)
    if future.done():
        future.result()
    return future.done()


def _lost(how: str) -> NetworkError:
    text = f"the process that sends the request {how}; the request may have arrived"
    return NetworkError(text, outcome="ambiguous", passing=False)


class _Process(asyncio.Protocol):
    """The process, and our end of the way to it."""

    def __init__(self, command: Sequence[str]) -> None:
        with contextlib.ExitStack() as unless_it_begins:
            try:
                self._errors = unless_it_begins.enter_context(tempfile.TemporaryFile())
                ours, theirs = socket.socketpair()
                unless_it_begins.enter_context(ours)
                with theirs:
                    self._process = _begin(command, theirs, self._errors)
            except OSError as error:
                raise SetupError(f"the process that creates the session could not be started: {reason_of(error)}") from error
            unless_it_begins.pop_all()
        self.pid = self._process.pid
        self._fd = ours.fileno()
        _open.add(self._fd)
        self._loop = asyncio.get_running_loop()
        self._connected = asyncio.ensure_future(self._loop.create_connection(lambda: self, sock=ours))
        self._ready: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._lost = False
        self._users = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._rest = b""

    @property
    def dead(self) -> bool:
        """Whether it has closed its end."""
        return self._lost

    @contextlib.asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """Have need of it from now on, unless this context fails."""
        self._users += 1
        try:
            yield
        except BaseException:
            await self.leave(wait=False)
            raise

    async def begun(self) -> None:
        """Return when it is there, which takes as long as a program takes to begin. Raises `SetupError`."""
        try:
            if await _within(PATIENCE_S, self._ready):
                return
            what = "does not begin"
        except EOFError:
            self._errors.seek(0)
            words = self._errors.read()[-_LAST_WORDS:].decode(errors="replace").split("\n")
            what = f"has died: {next((line for line in reversed(words) if line.strip()), 'it said nothing')}"
        raise SetupError(f"the process that creates the session {what}", remedy="is the package installed where this Python finds it?")

    async def leave(self, *, wait: bool) -> None:
        """Have no more need of it. Who is the last lets it go; it may have something to do still, for which nobody has to `wait`."""
        self._users -= 1
        if self._users:
            return
        self._forget()
        (await self._connected)[0].close()
        self._errors.close()
        end = threading.Thread(target=self._process.wait, daemon=True)  # whenever that is, somebody must take note of it
        end.start()
        if wait:
            await asyncio.to_thread(end.join, _REAP_S)

    def tell(self, number: int, **line: Any) -> None:
        """Say something of an errand."""
        self._transport.write(json.dumps({"errand": number, **line}).encode() + b"\n")

    async def ask(self, number: int, request: Mapping[str, Any]) -> dict[str, Any]:
        """Have a request carried. Raises `EOFError` when the process dies, `TimeoutError` when it is too slow."""
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._answers[number] = answer
        self.tell(number, request=request)
        if not await _within(PATIENCE_S, answer):
            raise TimeoutError
        return answer.result()

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "ready" in told:
                self._ready.set_result(told)
            elif not (answer := self._answers.pop(told["errand"])).done():
                answer.set_result(told)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._lost = True
        _open.discard(self._fd)
        self._forget()
        for awaited in (self._ready, *self._answers.values()):
            if not awaited.done():
                awaited.set_exception(EOFError())
                awaited.exception()  # it may be that nobody waits for it any more

    def _forget(self) -> None:
        """Whoever comes now needs another one."""
        if _processes.get(self._loop) is self:
            del _processes[self._loop]


# --- the other end ------------------------------------------------------------------------------------------------------


async def serve(end: socket.socket, gone: Callable[[_Task, Answer | NetworkError | None], None]) -> None:
    """Carry what is asked. `gone` hears of every errand whose asker has gone: its task, and what came of the last request."""
    reader, writer = await asyncio.open_connection(sock=end, limit=_MAX_LINE)
    writer.write(b'{"ready":true}\n')
    errands: dict[int, asyncio.Queue[dict[str, Any]]] = {}
    work: dict[int, asyncio.Task[None]] = {}
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):  # its end, also in the middle of a line
        while True:
            told = json.loads(await reader.readuntil(b"\n"))
            number = told["errand"]
            if "task" in told:
                queue = errands[number] = asyncio.Queue()
                work[number] = asyncio.ensure_future(_carry(told, queue, writer, gone))
            else:
                errands[number].put_nowait(told)
                if "noted" in told:
                    del errands[number]
            work = {number: each for number, each in work.items() if not each.done()}
    for queue in errands.values():
        queue.put_nowait({"noted": False})
    await asyncio.gather(*work.values(), return_exceptions=True)
    writer.close()


async def _carry(
    told: Mapping[str, Any],
    queue: asyncio.Queue[dict[str, Any]],
    writer: asyncio.StreamWriter,
    gone: Callable[[_Task, Answer | NetworkError | None], None],
) -> None:
    """One errand."""
    number, task, asker = told["errand"], told["task"], told["asker"]
    wire = Wire(told["base_url"], WITNESS_S)
    wire.authorize(told["headers"])
    last: Answer | NetworkError | None = None
    while "request" in (told := await queue.get()):
        if os.getppid() != asker:  # it has gone before we sent anything, so nobody wants that any more
            break
        try:
            last = _lost("has a bug")
            last = await wire.send(Request(**told["request"]))
            line = {"status": last.status, "headers": dict(last.headers), "body": base64.b64encode(last.body).decode()}
        except NetworkError as error:
            last = error
            line = {"failed": error.message, "outcome": error.outcome, "passing": error.passing, "remedy": error.remedy}
        except Exception:  # a bug of ours, which is to be seen
            line = {"bug": traceback.format_exc()}
        writer.write(json.dumps({"errand": number, **line}).encode() + b"\n")
    if not told.get("noted"):
        await asyncio.to_thread(gone, task, last)  # which may take long, and others must not have to wait for it


def _in_a_forked_child() -> None:
    for fd in _open:
        os.close(fd)
    _open.clear()


os.register_at_fork(after_in_child=_in_a_forked_child)
