"""A WebSocket that the other side dials: one address of ours, one caller, one secret.

Some vendors turn the roles round and connect to us. Whoever comes first with the right secret in its header is the caller; everybody
else is turned away before a word is exchanged. TLS is the business of whatever stands before us. Binary messages that come in are dropped:
no vendor sends us anything but its user's microphone there.

A provider sees `Dialled`, which is the seam: `Listener` is the real one, and a cassette has another. Imports errors alone; providers and
its neighbours import it. `websockets` is imported when somebody listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

from playbook.errors import ProviderError, SetupError

if TYPE_CHECKING:
    from websockets.asyncio.server import Server, ServerConnection
    from websockets.http11 import Request, Response

LISTEN = "127.0.0.1:8765"
"""Where we listen unless the settings say otherwise: a proxy or tunnel must know."""
HANDSHAKE_S = 5.0
GOODBYE_S = 2.0


class Dialled(Protocol):
    """A socket of ours that the other side dials."""

    @property
    def strangers(self) -> int:
        """How many came without the secret."""

    async def start(self) -> str:
        """Listen. Gives the URL that the other side is to be told. Raises `SetupError`."""

    async def caller(self, within_s: float) -> bool:
        """Whether the caller has come, waiting that long for it."""

    async def send(self, message: str | bytes) -> None:
        """Text or binary, in order; waits while the other side takes no more. Raises `ProviderError` (`lost`) when it is gone."""

    def texts(self) -> AsyncIterator[str]:
        """What the caller says, until it hangs up."""

    async def aclose(self) -> None:
        """Hang up and listen no more."""


class Listener:
    """Listens on `listen` (`HOST:PORT`; the port 0 is any free one) for a caller that has `secret` in the header `header`. `address` makes,
    of where we listen, what the other side is told."""

    def __init__(self, listen: str, *, header: str, secret: str, address: Callable[[str], str]) -> None:
        host, _, port = listen.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._header, self._secret, self._address = header, secret, address
        self._server: Server | None = None
        self._connection: ServerConnection | None = None
        self._arrived = asyncio.Event()
        self.strangers = 0

    async def start(self) -> str:
        from websockets.asyncio.server import serve

        try:
            self._server = await serve(
                self._welcome,
                self._host,
                self._port,
                process_request=self._judge,
                compression=None,
                open_timeout=HANDSHAKE_S,
                close_timeout=GOODBYE_S,
                ping_interval=None,  # whoever dials keeps the connection alive
            )
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno else str(error)
            raise SetupError(f"cannot listen on {self._host}:{self._port}: {why}", remedy="choose another address, or port 0") from error
        host = f"[{self._host}]" if ":" in self._host else self._host
        return self._address(f"{host}:{next(iter(self._server.sockets)).getsockname()[1]}")

    async def caller(self, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._arrived.wait()
        return self._connection is not None

    async def send(self, message: str | bytes) -> None:
        from websockets.exceptions import ConnectionClosed

        assert self._connection is not None
        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            raise gone() from error

    async def texts(self) -> AsyncIterator[str]:
        from websockets.exceptions import ConnectionClosed

        assert self._connection is not None
        with contextlib.suppress(ConnectionClosed):
            async for message in self._connection:
                if isinstance(message, str):
                    yield message

    async def aclose(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
            await server.wait_closed()

    def _judge(self, connection: ServerConnection, request: Request) -> Response | None:
        given = request.headers.get_all(self._header)
        if len(given) != 1 or not hmac.compare_digest(given[0].encode(), self._secret.encode()):
            self.strangers += 1
            return connection.respond(401, "who are you?\n")
        return None if self._connection is None else connection.respond(409, "somebody is here already\n")

    async def _welcome(self, connection: ServerConnection) -> None:
        if self._connection is not None:  # two shook hands at once
            return
        self._connection = connection
        self._arrived.set()
        await connection.wait_closed()


def gone() -> ProviderError:
    """The other side has hung up, whether we notice it by listening or by talking."""
    return ProviderError("the other side closed the socket, which ends the session", outcome="lost")
