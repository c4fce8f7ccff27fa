"""The stage's server: its addresses, what is served at them, and the server itself, in the loop of the show.

`/` is the audience's page and `/operator` the operator's; they are the same for everybody and hold nothing. `POST /api/signal/NAME`,
`GET /api/state` and the sockets want the token, where there is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from playbook.errors import SetupError
from playbook.stage.director import Director
from playbook.stage.guard import Guard, Guarded, bearer
from playbook.stage.hub import Page

MAX_BODY = 4_096
MAX_MESSAGE = 65_536
"""The longest message that a page sends is an offer of WebRTC."""
MAX_NAME = 100
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
DEFAULT_PORT = 8080
NEXT_PORTS = 20
"""How many ports after the default one are tried."""

_PAGES = resources.files("playbook.stage") / "pages"


def pages() -> jinja2.Environment:
    """The templates; what they are given never becomes markup."""
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (_PAGES / name).read_text("utf-8")), autoescape=True, undefined=jinja2.StrictUndefined
    )


class StageServer:
    """Serves a director's show."""

    def __init__(self, director: Director, guard: Guard) -> None:
        self._director, self._guard = director, guard
        self._templates = pages()
        self._served = frozenset(entry.name for entry in _PAGES.iterdir() if os.path.splitext(entry.name)[1] in TYPES)
        self.app = Guarded(
            Starlette(
                routes=[
                    Route("/", self._page("audience.html")),
                    Route("/operator", self._page("operator.html")),
                    Route("/static/{name}", self._static),
                    Route("/api/state", self._state),
                    Route("/api/signal/{name:path}", self._signal, methods=["POST"]),
                    WebSocketRoute("/api/events", self._events),
                    WebSocketRoute("/api/operator", self._operator),
                    WebSocketRoute("/api/audience", self._audience),
                ]
            ),
            guard,
        )

    # --- what is served -----------------------------------------------------------------------------------------------

    def _page(self, name: str) -> Any:
        async def answer(_: Request) -> Response:
            plan = self._director.plan
            language = plan.session.get("language") if plan is not None else None
            text = self._templates.get_template(name).render(
                title=self._director.board.playbook, language=language if isinstance(language, str) else "en"
            )
            return Response(text, media_type="text/html")

        return answer

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._served:
            return PlainTextResponse("not found", 404)
        return Response((_PAGES / name).read_bytes(), media_type=TYPES[os.path.splitext(name)[1]])

    async def _state(self, request: Request) -> Response:
        if not self._guard.lets_in(bearer(request.headers)):
            return _unknown()
        return JSONResponse(self._director.state())

    async def _signal(self, request: Request) -> Response:
        if not self._guard.lets_in(bearer(request.headers)):
            return _unknown()
        name = request.path_params["name"]
        if len(name) > MAX_NAME or not name.isprintable():
            return JSONResponse({"reason": "that is no name of a signal"}, 400)
        try:
            step = await _step(request)
        except ValueError as error:
            return JSONResponse({"reason": str(error)}, 400)
        source = "page" if "origin" in request.headers else "http"  # browsers say where they come from, and nobody else does
        reason = self._director.offer(name, source=source, step=step)
        return Response(status_code=204) if reason is None else JSONResponse({"reason": reason}, 409)

    # --- sockets ------------------------------------------------------------------------------------------------------

    async def _events(self, socket: WebSocket) -> None:
        await self._director.hub.serve(socket, "events", lambda _: None, _hear_nothing)

    async def _operator(self, socket: WebSocket) -> None:
        await self._director.hub.serve(socket, "operator", self._director.greet_operator, _hear_nothing)

    async def _audience(self, socket: WebSocket) -> None:
        audience = self._director.audience
        await self._director.hub.serve(socket, "audience", self._director.greet_audience, audience.hear, audience.went)

    # --- the server ---------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def serve(self, port: int | None) -> AsyncIterator[Addresses]:
        """Serve until left. `port` None is the default one, or the next that is free."""
        listener = listen(self._guard.host, port)
        config = uvicorn.Config(
            self.app,
            proxy_headers=False,
            http="h11",
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            ws_max_size=MAX_MESSAGE,
            ws_ping_interval=20.0,
            timeout_graceful_shutdown=1,
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])  # not `Server.serve`, which takes the process's signals
        ticking = asyncio.ensure_future(server.main_loop())
        try:
            yield Addresses.of(self._guard, listener.getsockname()[1])
        finally:
            await self._director.hub.close()
            server.should_exit = True
            await ticking
            await server.shutdown(sockets=[listener])


class Addresses(dict[str, str]):
    """Where the pages are, by `audience` and `operator`."""

    @classmethod
    def of(cls, guard: Guard, port: int) -> Addresses:
        """The addresses of a server that listens on this port; the token is in the fragment, which no server and no log sees."""
        name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(guard.host, guard.host)
        base = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
        fragment = "" if guard.token is None else f"#token={guard.token}"
        return cls(audience=f"{base}/{fragment}", operator=f"{base}/operator{fragment}")


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket. Raises `SetupError` when there is none to be had."""
    tried = [port] if port is not None else [*range(DEFAULT_PORT, DEFAULT_PORT + NEXT_PORTS), 0]
    for number in tried:
        try:
            return _bind(host, number)
        except OSError as error:
            failed = error
    why = os.strerror(failed.errno).lower() if failed.errno else str(failed)
    raise SetupError(f"cannot listen on {host}:{port}: {why}", remedy="choose another --port, or 0 for any") from failed


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


async def _step(request: Request) -> str | None:
    """The step that the body of a signal names."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise ValueError("the body is too long")
    if not body:
        return None
    try:
        data = json.loads(body)
    except ValueError as error:
        raise ValueError('the body is no JSON; write {"step": "intro"}') from error
    step = data.get("step") if isinstance(data, dict) else None
    if step is not None and not isinstance(step, str):
        raise ValueError('the step is a name; write {"step": "intro"}')
    return step


def _unknown() -> Response:
    return JSONResponse({"reason": "the token is missing or wrong"}, 401, {"WWW-Authenticate": "Bearer"})


async def _hear_nothing(_: Page, __: dict[str, Any]) -> None:
    """Operators and machines say nothing but what a socket needs."""
