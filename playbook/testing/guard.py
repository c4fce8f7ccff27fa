"""Which sockets are opened by whom: a provider has its transports, and may open none in another way.

Python tells an audit hook of every connection that is made and every address that is bound. What transports and
emulators open is opened in a context (`contextvars`) that allows it, which tasks and callbacks inherit; whatever else is
opened was opened by the provider.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from playbook.transports.factory import MakeRoom, MakeSocket, MakeStream
from playbook.transports.http import Answer, Request, Send
from playbook.transports.listener import Dialled
from playbook.transports.room import OnEvent, Room
from playbook.transports.whep import OnStream, Stream

_allowed: ContextVar[bool] = ContextVar("allowed", default=False)
_watches: list[list[str]] = []
_installed: list[bool] = []


@contextlib.contextmanager
def allowed() -> Iterator[None]:
    """What is begun in here may open sockets."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """The addresses of the sockets that are opened meanwhile and were not allowed."""
    if not _installed:  # a hook can never be removed
        sys.addaudithook(_hook)
        _installed.append(True)
    found: list[str] = []
    _watches.append(found)
    try:
        yield found
    finally:
        _watches.remove(found)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _watches and event in ("socket.connect", "socket.bind") and isinstance(args[1], tuple) and not _allowed.get():
        for found in _watches:
            found.append(f"{event.partition('.')[2]} {args[1][0]}:{args[1][1]}")


class _Allowed:
    """A transport whose every call may open sockets."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._transport, name)
        if name not in ("open", "start"):
            return value

        async def call(*args: Any) -> Any:
            with allowed():
                return await value(*args)

        return call


class Guard:
    """Stands in front of transports (`factory.Before`) and allows them what they do."""

    def http(self, send: Send) -> Send:
        async def through(request: Request) -> Answer:
            with allowed():
                return await send(request)

        return through

    def room(self, on_event: OnEvent, make: MakeRoom) -> Room:
        room: Room = _Allowed(make(on_event))
        return room

    def listener(self, url: str, make: MakeSocket) -> Dialled:  # noqa: ARG002 -- the protocol's
        socket: Dialled = _Allowed(make())
        return socket

    def whep(self, tell: OnStream, make: MakeStream) -> Stream:
        stream: Stream = _Allowed(make(tell))
        return stream
