"""What a kiosk serves on this machine: the stage's pages and signals, `GET /healthz` and `GET /metrics`, all on one
port."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from playbook.kiosk.metrics import CONTENT_TYPE, Metrics
from playbook.kiosk.operation import Operation
from playbook.kiosk.screen import Screen
from playbook.stage.guard import Guard, Guarded
from playbook.stage.server import StageServer

HOST = "127.0.0.1"


def server_of(operation: Operation, screen: Screen, metrics: Metrics, guard: Guard) -> StageServer:
    """The stage's server, with what machines ask of a kiosk beside it."""

    async def health(_: Request) -> Response:
        """200 while a show is possible, with the rung; else 503."""
        rung = operation.rungs.best()
        return JSONResponse({**operation.status(), "rung": rung}, 503 if rung is None else 200)

    async def told(_: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    server = StageServer(screen, guard)
    routes = [Route("/healthz", health), Route("/metrics", told), Mount("/", app=server.app)]
    server.app = Guarded(Starlette(routes=routes), guard)
    return server
