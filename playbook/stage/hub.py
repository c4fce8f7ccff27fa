"""The open pages: a socket each, with a bounded queue and a bounded size of what it may say.

Three kinds of sockets. `/api/events` is for machines: every line of the log. `/api/operator` gets the state as it changes. `/api/audience`
gets sounds, captions and the viewer of the session, tells whether it can be heard, and reports edges of the sound that it hears.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from playbook.stage.guard import Guard

MAX_SOCKETS = 100
MAX_QUEUE = 512
"""A page that is so many messages behind is cut off; it comes back by itself."""
HELLO_S = 5.0
MAX_RTT_MS = 10_000
STATUSES = {"ready": "joined", "hidden": "stalled", "blocked": "blocked", "stalled": "stalled"}
"""What a page says of itself, and what the state says of it. A hidden page may be throttled, so its ear is not trusted."""

UNKNOWN, FULL, RUDE, SLOW = 4401, 4429, 4400, 4408


@dataclass(slots=True, eq=False)
class Page:
    """One socket. `status` is an audience page's; `rtt_ms` is the best round trip that it measured."""

    socket: WebSocket
    kind: str
    name: str = ""
    status: str = "blocked"
    rtt_ms: float | None = None
    queue: asyncio.Queue[str | bytes] = field(default_factory=lambda: asyncio.Queue(MAX_QUEUE))
    lost: bool = False

    def send(self, message: dict[str, Any] | bytes) -> None:
        """Queue a message. Never waits."""
        try:
            self.queue.put_nowait(message if isinstance(message, bytes) else json.dumps(message, ensure_ascii=False))
        except asyncio.QueueFull:
            self.lost = True

    @property
    def joined(self) -> bool:
        """Whether somebody hears the show on it."""
        return self.status == "joined"


Heard = Callable[[Page, dict[str, Any]], Awaitable[None]]


class Hub:
    """All sockets of a stage. `changed` is called when pages come, go, or change what they are."""

    def __init__(self, guard: Guard, now_ms: Callable[[], float], changed: Callable[[], None]) -> None:
        self._guard, self._now_ms, self._changed = guard, now_ms, changed
        self._pages: dict[Page, None] = {}
        self._waiting = 0

    def pages(self, kind: str) -> Iterator[Page]:
        """The open pages of a kind, in the order in which they came."""
        return iter([page for page in self._pages if page.kind == kind])

    def tell(self, kind: str, message: dict[str, Any] | bytes) -> None:
        """Send all pages of a kind a message."""
        for page in self.pages(kind):
            page.send(message)

    async def serve(
        self, socket: WebSocket, kind: str, greet: Callable[[Page], None], heard: Heard, went: Callable[[Page], None] = lambda _: None
    ) -> None:
        """A socket, from its first message to its end. `greet` sends what it begins with, `went` is told of its end."""
        await socket.accept()
        if len(self._pages) + self._waiting >= MAX_SOCKETS:
            await socket.close(FULL)
            return
        page = Page(socket, kind)
        self._waiting += 1
        try:
            known = await self._hello(page)
        finally:
            self._waiting -= 1
        if not known:
            return
        self._pages[page] = None
        sender = asyncio.ensure_future(self._send(page))
        try:
            greet(page)
            self._changed()
            await self._listen(page, heard)
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            del self._pages[page]
            sender.cancel()
            went(page)
            self._changed()

    async def _hello(self, page: Page) -> bool:
        """Whether it may stay. A machine that needs no token says nothing."""
        if page.kind == "events" and self._guard.token is None:
            return True
        try:
            async with asyncio.timeout(HELLO_S):
                message = _message(await page.socket.receive_text())
        except (TimeoutError, WebSocketDisconnect, KeyError, ValueError):
            message = {}
        if not self._guard.lets_in(message.get("token")):
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await page.socket.close(UNKNOWN)
            return False
        page.name = str(message.get("page", ""))[:40]
        return True

    async def _send(self, page: Page) -> None:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
            while True:
                message = await page.queue.get()
                if page.lost:
                    await page.socket.close(SLOW)
                    return
                await (page.socket.send_bytes(message) if isinstance(message, bytes) else page.socket.send_text(message))

    async def _listen(self, page: Page, heard: Heard) -> None:
        while True:
            try:
                message = _message(await page.socket.receive_text())
            except (KeyError, ValueError):
                await page.socket.close(RUDE)
                return
            kind = message.get("type")
            if kind == "ping":
                if isinstance(rtt := message.get("rtt"), (int, float)) and 0 <= rtt <= MAX_RTT_MS:
                    page.rtt_ms = float(rtt)
                page.send({"type": "pong", "at": message.get("at"), "now": self._now_ms()})
            elif kind == "status" and page.kind == "audience":
                status = STATUSES.get(str(message.get("status")), page.status)
                if status != page.status:
                    page.status = status
                    self._changed()
            else:
                await heard(page, message)

    async def close(self) -> None:
        """Hang up on everybody; they will come back when there is a server again."""
        for page in tuple(self._pages):
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await page.socket.close(1001)


def _message(text: str) -> dict[str, Any]:
    message = json.loads(text)
    if not isinstance(message, dict):
        raise ValueError("a message is an object")
    return message
