"""What the vendors' emulators share: a server on this machine, sessions that live and die, faults, a journal, a control page.

An emulator is a vendor's rules as a Starlette application. It runs in the loop it is started in, so that on the virtual clock an hour of
its life takes a moment, and from the command line it is a server like any other:

    async with Emulator(...).serve() as url: ...        # beside a run, or in a test
    serve_forever(emulator, port=8080, ready=print)     # `playbook emulate NAME`

A vendor's emulator is a subclass of `Emulator` with `routes` and of `LiveSession` with `tell` and `on_end`. It creates a session by
`admit`, queues a line by `take` (where the named faults strike), looks sessions up in `sessions`, and refuses by `refusal`.

Rules: `journal` holds what was asked and what was really spoken, with credentials masked. Only loopback addresses are served. An
exception that is our bug answers 500 and comes out of `serve`. Imports the clock and what stands above it, and its own room.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from playbook import clock as clocks
from playbook.clock import Clock
from playbook.emulators.faults import FAULTS, FLAP_MS, SLOW_MS, Chosen, Faults, Injection, choose
from playbook.emulators.options import Options
from playbook.emulators.options import choose as choose_options
from playbook.emulators.speech import Sighting, SpeechQueue, Utterance
from playbook.errors import MASK, SetupError, UsageError, reason_of
from playbook.record.redact import names_secret
from playbook.transports.factory import emulated_variable

CONTROL = "/_emulator"
HUGE = 50_000_000
MAX_REQUEST = 64_000_000
MAX_SHOWN = 100_000
"""The journal has longer bodies by their size."""
KEPT_LINES, KEPT_SESSIONS = 10_000, 500
"""Of the journal, and of sessions that have ended: an emulator may be left to itself for weeks."""


class Hangup(Exception):
    """Raised by a route to close the connection instead of answering."""


class LiveSession:
    """One session of an emulator: who watches, what is spoken, and when it ends by itself.

    `max_ms` counts from creation; `absent_ms` while nobody has come yet, `left_ms` (the same unless given) since the last one left;
    `idle_ms` since the last `touch`. With `needs_viewer` nothing is spoken while nobody watches. The rest are the queue's settings.
    """

    def __init__(
        self,
        emulator: Emulator,
        id: str,
        *,
        max_ms: int | None = None,
        absent_ms: int | None = None,
        left_ms: int | None = None,
        idle_ms: int | None = None,
        needs_viewer: bool = False,
        start_on: int | None = None,
        **voice: int,
    ) -> None:
        self.emulator = emulator
        self.id = id
        self.clock = emulator.clock
        self.created_ms = self.clock.now_ms()
        self.ended_ms: int | None = None
        self.reason: str | None = None
        self.viewers = 0
        self.queue = SpeechQueue(
            self.clock, tell=self.tell, note=self._truth, faults=emulator.faults, start_on=start_on, held=needs_viewer, **voice
        )
        self._needs_viewer = needs_viewer
        self._left_ms = absent_ms if left_ms is None else left_ms
        self._idle_ms = idle_ms
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._set("duration", max_ms)
        self._set("absence", absent_ms)
        self.touch()

    # what a vendor writes

    def tell(self, sighting: Sighting) -> None:
        """Report speech to whoever the vendor reports it to. By default to nobody."""

    def on_end(self, reason: str) -> None:
        """The session has ended (`duration`, `absence`, `idle`, `fault`, or what `end` was given)."""

    # what a vendor calls

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.ended_ms is None

    def touch(self) -> None:
        """The client did something: the idle time begins anew."""
        self._set("idle", self._idle_ms)

    def end(self, reason: str) -> None:
        """End it, also in the middle of a word. Once."""
        if not self.alive:
            return
        self.ended_ms, self.reason = self.clock.now_ms(), reason
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self.queue.clear()
        self.emulator.note("session_ended", session=self.id, reason=reason)
        self.on_end(reason)

    def connect_viewer(self) -> None:
        """Somebody watches."""
        self.viewers += 1
        self._set("absence", None)
        self.emulator.note("viewer_connected", session=self.id, viewers=self.viewers)
        if self._needs_viewer and self.viewers == 1 and self.alive:
            self.queue.resume()

    def disconnect_viewer(self) -> None:
        """Somebody left."""
        if self.viewers == 0:
            return
        self.viewers -= 1
        self.emulator.note("viewer_disconnected", session=self.id, viewers=self.viewers)
        if self.viewers == 0 and self.alive:
            self._set("absence", self._left_ms)
            if self._needs_viewer:
                self.queue.hold()

    def to_json(self) -> dict[str, Any]:
        """The control page's view of it."""
        return {
            "session": self.id,
            "open": self.alive,
            "created_ms": self.created_ms,
            "ended_ms": self.ended_ms,
            "reason": self.reason,
            "viewers": self.viewers,
            "lines": [
                {
                    "task": line.task,
                    "text": line.text,
                    "state": line.state,
                    "started_ms": line.started_ms,
                    "ended_ms": line.ended_ms,
                    "heard_ms": line.heard_ms,
                }
                for line in self.queue.lines
            ],
        }

    def _set(self, name: str, after_ms: int | None) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()
        if after_ms is not None and self.alive:
            self._timers[name] = self.clock.call_at(self.clock.now_ms() + after_ms, lambda: self.end(name))

    def _truth(self, what: str, **facts: Any) -> None:
        self.emulator.note(what, session=self.id, **facts)
        line = self.queue.speaking
        if what == "speech_started" and line is not None and self.emulator.faults.hits("session-dies", *line.names):
            self.clock.call_at(self.clock.now_ms() + max(1, line.length_ms // 2), lambda: self.end("fault"))


class Emulator(ABC):
    """A vendor on this machine. `serve` runs it, once.

    It takes what the vendor's `Options` have by name.
    """

    name = ""
    options_type: type[Options] = Options
    never: frozenset[str] = frozenset()
    """Named faults that this vendor cannot show, because it reports nothing of the kind."""

    @classmethod
    def impossible(cls, settings: Mapping[str, Any]) -> frozenset[str]:  # noqa: ARG003 -- for those who know better
        """Those that cannot strike a session with these settings."""
        return cls.never

    @classmethod
    def we_watch(cls, settings: Mapping[str, Any]) -> bool:  # noqa: ARG003 -- for those whose sessions we can watch
        """Whether with these settings we are the session's viewer, so that in a rehearsal nobody else has to come."""
        return False

    def __init__(self, *, faults: Iterable[Chosen | str] = (), **given: Any) -> None:
        self.options: Any = choose_options(self.options_type, given)
        """(A vendor narrows the type.)"""
        self.faults = self._possible(faults)
        self.injections: list[Injection] = []
        self.journal: list[dict[str, Any]] = []
        """The last `KEPT_LINES` at least."""
        self.sessions: dict[str, Any] = {}
        """Every `LiveSession` that lives, and the last `KEPT_SESSIONS` of those that have ended, by id, in order of creation. (A vendor may
        narrow the type.)"""
        self.created = 0
        """How many sessions there ever were."""
        self.viewer_after_ms = self.options.viewer_after_ms
        self.clock: Clock
        self.url = ""
        self._creations = 0
        self._dropped = 0  # lines that the journal no longer has
        self._away_until_ms = self._used_up_until_ms = 0
        self._sealed: set[str] = set()
        self._crash: BaseException | None = None
        self.weather()

    # what a vendor writes

    @abstractmethod
    def routes(self) -> Sequence[BaseRoute]:
        """The vendor's routes."""

    @abstractmethod
    def refusal(self, status: int, text: str) -> Response:
        """An error in the vendor's shape, also for unknown routes and for faults."""

    def quota(self) -> Response:
        """How the vendor says that no more sessions can be had."""
        return self.refusal(429, "quota exceeded")

    def environment(self) -> Mapping[str, str]:
        """What brings an adapter here instead of to the vendor, once we serve: addresses, a key that we take, and the word that they are
        an emulator's."""
        prefix = self.name.upper()
        return {f"{prefix}_BASE_URL": self.url, f"{prefix}_API_KEY": "emulated", emulated_variable(self.name): "yes"}

    def weather(self, *, delay_ms: int = 0, jitter_ms: int = 0, seed: int = 0) -> None:
        """How long every request is held up before it is read: always so much, and up to so much more by chance (the same for one seed)."""
        self._delay_ms, self._jitter_ms = delay_ms, jitter_ms
        self._random = random.Random(seed)

    def go_away(self, for_ms: int) -> None:
        """The service is away for so long: sessions that live end, connections are closed without an answer."""
        self._away_until_ms = self.clock.now_ms() + for_ms
        for session in self.open_sessions:
            session.end("outage")

    def refuse_sessions(self, for_ms: int) -> None:
        """No session can be had for so long: the quota is used up."""
        self._used_up_until_ms = self.clock.now_ms() + for_ms

    # what a vendor calls

    def note(self, what: str, **facts: Any) -> dict[str, Any]:
        """Write a line of the journal. `what`: `request`, `session_created`, `speech_started`, … or a vendor's own."""
        entry = {"at_ms": self.clock.now_ms(), "what": what, **self._masked(facts)}
        self.journal.append(entry)
        if len(self.journal) >= 2 * KEPT_LINES:
            self._dropped += KEPT_LINES
            del self.journal[:KEPT_LINES]
        return entry

    def seal(self, secret: str) -> str:
        """Keep a value that we minted out of the journal. Returns it."""
        self._sealed.add(secret)
        return secret

    def quota_used_up(self) -> bool:
        """To be asked once for each creation, before anything is created."""
        self._creations += 1
        if self.clock.now_ms() < self._used_up_until_ms:
            return True
        return self.faults.hits("quota-at-create", str(self._creations))

    def admit(self, session: LiveSession) -> None:
        """Take a new session in."""
        self.sessions[session.id] = session
        self.created += 1
        if len(self.sessions) > 2 * KEPT_SESSIONS:
            ended = [id for id, one in self.sessions.items() if not one.alive]
            for id in ended[:-KEPT_SESSIONS]:
                del self.sessions[id]
        self.note("session_created", session=session.id)
        if self.viewer_after_ms is not None:
            self.clock.call_at(self.clock.now_ms() + self.viewer_after_ms, lambda: session.connect_viewer() if session.alive else None)

    @property
    def open_sessions(self) -> tuple[Any, ...]:
        """The sessions that live, and cost."""
        return tuple(session for session in self.sessions.values() if session.alive)

    async def take(self, session: LiveSession, line: Utterance, accept: Callable[[], Response]) -> Response:
        """Answer a request to speak `line` (from `session.queue.line`) as the faults have it; `accept` queues it and makes the answer."""
        occasion = (session.id, line.n)
        if self.faults.once("flap", occasion, *line.names):
            self._away_until_ms = self.clock.now_ms() + FLAP_MS
            raise Hangup
        if self.faults.once("rate-limit", occasion, *line.names):
            response = self.refusal(429, "too many requests")
            response.headers["retry-after"] = "1"
            return response
        if self.faults.hits("slow-accept", *line.names):
            await self.clock.sleep_until(self.clock.now_ms() + SLOW_MS)
        response = accept()
        return _Half(response) if self.faults.hits("half-body", *line.names) else response

    # serving

    @contextlib.asynccontextmanager
    async def serve(self, port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[str]:
        """Serve until left; gives the base URL. Raises `SetupError` when the port is taken."""
        listener = _listen(host, port)
        self.clock = Clock()
        address = listener.getsockname()
        self.url = f"http://[{address[0]}]:{address[1]}" if ":" in address[0] else f"http://{address[0]}:{address[1]}"
        config = uvicorn.Config(
            self._entry,
            interface="asgi3",
            proxy_headers=False,
            http="h11",
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            date_header=False,
            ws_ping_interval=None,
            # Closing idle connections is the client's business: were it ours, a request could cross the closing.
            timeout_keep_alive=7 * 24 * 3600,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        self._server = server
        # Not `Server.serve`: its loop wakes ten times a second, which on the virtual clock is all that would ever happen, and it takes
        # the process's signals, which are the caller's.
        await server.startup(sockets=[listener])
        self._app: ASGIApp = Starlette(
            routes=[Mount(CONTROL, routes=self._control()), *self.routes()],
            exception_handlers={HTTPException: self._refused},
        )
        try:
            async with self.beside():
                yield self.url
        finally:
            await self._stop()
            if self._crash is not None:  # what went wrong outside is probably its doing
                raise self._crash

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        """What a vendor runs beside its server (sockets that it dials). Nothing by default."""
        yield

    async def _stop(self) -> None:
        """Like pulling the plug: nobody waits for anybody."""
        for session in self.open_sessions:
            session.end("emulator stopped")
        for listener in self._server.servers:
            listener.close()
        for task in (tasks := list(self._server.server_state.tasks)):
            task.cancel()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        if tasks:
            await asyncio.wait(tasks)
        for listener in self._server.servers:
            await listener.wait_closed()

    # one request

    async def _entry(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] != "http" or scope["path"].startswith(CONTROL)
        try:
            await (self._app(scope, receive, send) if ours else self._exchange(scope, receive, send))
        except Hangup:
            self._hang_up(scope)
        except asyncio.CancelledError:  # `_stop`; nobody is there to hear more
            return
        except Exception as error:
            self._crash = self._crash or error
            if scope["type"] == "http":
                with contextlib.suppress(Exception):  # the answer may have begun
                    await JSONResponse({"detail": "the emulator has a bug"}, 500)(scope, receive, send)

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        injection = next((item for item in self.injections if item.takes(method, path)), None) or Injection("serve")
        if injection.act == "close" or self.clock.now_ms() < self._away_until_ms:
            self.note("request", method=method, path=path, status="closed")
            raise Hangup
        body = await _read(receive)
        entry = self.note("request", method=method, path=path, query=scope["query_string"].decode("latin-1"), body=_shown(scope, body))
        if not entry["query"]:
            del entry["query"]
        if (hold_ms := injection.before_ms + self._delay_ms + self._random.randint(0, self._jitter_ms)) > 0:
            await self.clock.sleep_until(self.clock.now_ms() + hold_ms)

        # The answer is gathered first, then spoiled or sent: it is always small, and what is carried out does not depend on who listens.
        gathered: list[Message] = []

        async def gather(message: Message) -> None:
            gathered.append(message)

        if injection.act == "refuse":
            text = injection.body if isinstance(injection.body, str) else json.dumps(injection.body)
            kind = "text/html" if isinstance(injection.body, str) else "application/json"
            await Response(text, injection.status, injection.headers, kind)(scope, receive, gather)
        else:
            try:
                await self._app(scope, _replay(body), gather)
            except Hangup:
                entry["status"] = "closed"
                raise
        status, headers = gathered[0]["status"], gathered[0]["headers"]
        entry["status"] = status
        answer = b"".join(message.get("body", b"") for message in gathered[1:])
        if injection.after_ms:
            await self.clock.sleep_until(self.clock.now_ms() + injection.after_ms)
        half = injection.act == "half" or any(message.get("half") for message in gathered)
        if injection.act == "lose":
            entry["status"] = "closed"
            raise Hangup
        if injection.act in ("huge", "garbage"):
            big = injection.act == "huge"
            answer = b" " * HUGE if big else b"<html><body>It works!</body></html>"
            headers = [(b"content-type", b"application/json" if big else b"text/html"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if half:
            # uvicorn closes the connection when the rest does not follow
            await send({"type": "http.response.body", "body": answer[: len(answer) // 2], "more_body": True})
        else:
            await send({"type": "http.response.body", "body": answer})

    def _hang_up(self, scope: Scope) -> None:
        client = tuple(scope["client"])
        for connection in list(self._server.server_state.connections):
            if getattr(connection, "client", None) == client:
                connection.transport.abort()

    async def _refused(self, _: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return self.refusal(error.status_code, error.detail)

    def _masked(self, value: Any, name: str = "") -> Any:
        if isinstance(value, Mapping):
            return {key: self._masked(item, str(key)) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._masked(item) for item in value]
        if isinstance(value, str):
            if names_secret(name):
                return MASK
            for secret in self._sealed:
                value = value.replace(secret, MASK)
        return value

    # the control page

    def _control(self) -> list[BaseRoute]:
        return [
            Route("/", self._index),
            Route("/journal", self._show_journal),
            Route("/sessions", self._show_sessions),
            Route("/spoken", self._show_spoken),
            Route("/faults", self._show_faults, methods=["GET"]),
            Route("/faults", self._put_faults, methods=["PUT"]),
            Route("/viewer", self._viewer, methods=["POST"]),
        ]

    async def _index(self, _: Request) -> Response:
        return JSONResponse(
            {
                "emulator": self.name,
                "at_ms": self.clock.now_ms(),
                "GET journal": "what was asked and what was spoken; ?since=N leaves out the first N lines",
                "GET sessions": "every session, and how many are open",
                "GET spoken": "every line that was really said, with its true start and end; ?session=ID",
                "GET faults": "the named faults and the injections, those known and those set",
                "PUT faults": 'sets them: {"faults": ["end-missing@hello"], "injections": [{"act": "refuse", "path": "*", "status": 503}]}',
                "POST viewer": 'connects or disconnects one: {"connected": true, "session": ID (default: the latest)}',
            }
        )

    async def _show_journal(self, request: Request) -> Response:
        since = request.query_params.get("since", "0")
        first = int(since) if since.isdecimal() else 0
        return JSONResponse({"journal": self.journal[max(0, first - self._dropped) :]})

    async def _show_sessions(self, _: Request) -> Response:
        return JSONResponse({"open": len(self.open_sessions), "sessions": [session.to_json() for session in self.sessions.values()]})

    async def _show_spoken(self, request: Request) -> Response:
        wanted = request.query_params.get("session")
        sessions = [session for session in self.sessions.values() if wanted in (None, session.id)]
        return JSONResponse(
            {
                "at_ms": self.clock.now_ms(),
                "spoken": [
                    {"session": session.id, **line}
                    for session in sessions
                    for line in session.to_json()["lines"]
                    if line["started_ms"] is not None
                ],
            }
        )

    async def _show_faults(self, _: Request) -> Response:
        return JSONResponse(
            {
                "known": {name: fault.description for name, fault in FAULTS.items() if name not in self.never},
                "faults": [str(fault) for fault in self.faults.chosen],
                "injections": [injection.to_json() for injection in self.injections],
            }
        )

    async def _put_faults(self, request: Request) -> Response:
        try:
            wanted = await request.json()
            if not isinstance(wanted, dict) or set(wanted) - {"faults", "injections"}:
                raise ValueError("expected an object with faults and injections")
            faults = [choose(spec) for spec in wanted.get("faults", [])]
            injections = [Injection.from_json(item) for item in wanted.get("injections", [])]
            self.set_faults(faults)
        except (ValueError, TypeError, AttributeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        except UsageError as error:
            return JSONResponse({"error": f"{error.message}: {error.remedy}"}, 400)
        self.injections = injections
        return await self._show_faults(request)

    def set_faults(self, faults: Iterable[Chosen | str]) -> None:
        """Choose the named faults anew, for the sessions that live too."""
        self.faults = self._possible(faults)
        for session in self.sessions.values():
            session.queue.faults = self.faults

    def _possible(self, faults: Iterable[Chosen | str]) -> Faults:
        chosen = Faults(faults)
        refuse(self.name, chosen.chosen, self.never)
        return chosen

    async def _viewer(self, request: Request) -> Response:
        try:
            wanted = await request.json()
            connected, id = wanted["connected"], wanted.get("session") or next(reversed(self.sessions), "")
        except (ValueError, TypeError, KeyError):
            return JSONResponse({"error": 'expected {"connected": true or false, "session": ID}'}, 400)
        session = self.sessions.get(id)
        if session is None or not session.alive:
            return JSONResponse({"error": "no such session, or it has ended"}, 404)
        if connected:
            session.connect_viewer()
        else:
            session.disconnect_viewer()
        return JSONResponse(session.to_json())


def refuse(name: str, faults: Iterable[Chosen], never: Collection[str]) -> None:
    """Nobody shall rehearse a fault that can never strike."""
    for fault in faults:
        if fault.name in never:
            possible = ", ".join(known for known in FAULTS if known not in never)
            raise UsageError(f"{name} cannot show the fault '{fault.name}'", remedy=f"it can show {possible}")


def serve_forever(emulator: Emulator, *, port: int = 0, ready: Callable[[str], object]) -> None:
    """Serve in real time until SIGINT or SIGTERM. `ready` is told the base URL."""

    async def main() -> None:
        stop = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stop.set)
        async with emulator.serve(port) as url:
            ready(url)
            await stop.wait()

    clocks.run(main())


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, on this machine only: an emulator takes any key and hides nothing."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise UsageError(f"{host} is not an address") from error
    if not (address[0] == "::1" or str(address[0]).startswith("127.")):
        raise UsageError(f"{host} is not an address of this machine alone", remedy="emulators listen on 127.0.0.1 or ::1")
    # The protocol is named because asyncio switches Nagle's algorithm off only then; with it, answers come 40 ms late.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SetupError(f"cannot listen on port {port}: {reason_of(error)}", remedy="choose another port") from error
    return listener


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Hangup
        parts.append(message.get("body", b""))
        if sum(map(len, parts)) > MAX_REQUEST:
            raise Hangup
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return messages.pop() if messages else {"type": "http.disconnect"}

    return receive


def _shown(scope: Scope, body: bytes) -> Any:
    """A request's body for the journal: JSON as it is, forms and sounds by their size."""
    kind = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"content-type"), "")
    if not body:
        return None
    if kind.startswith("application/json"):
        try:
            if len(body) <= MAX_SHOWN:
                return json.loads(body)
        except (ValueError, RecursionError):
            return body[:1000].decode("utf-8", "replace")
    return f"{kind.partition(';')[0] or 'unknown'}, {len(body)} bytes"


class _Half(Response):
    """An answer of which only the first half arrives."""

    def __init__(self, whole: Response, background: BackgroundTask | None = None) -> None:
        self._whole = whole
        self.background = background

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            await send({**message, "half": True})

        await self._whole(scope, receive, marked)
