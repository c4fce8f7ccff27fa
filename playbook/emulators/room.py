"""A room over loopback TCP: the other end of `transports.room.SocketRoom`, for emulators whose vendor speaks in a Daily room.

It knows the lines and nothing of a vendor: who may come in, what a face says and does is the business of a `Host`. Sound that a guest plays
is taken in real time of the event loop (so on the virtual clock, too), frame by frame, and reported to the guest with exact times.
Used by emulators and tests.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol
from weakref import WeakSet

from playbook.transports.microphone import Frame, Mark, Microphone
from playbook.transports.room import MAX_MESSAGE_BYTES, Participant, encode

_BACKLOG = 1_000  # guests who knock at once; the usual hundred would leave the rest to knock again a second later
_FRAME_MS = 40  # what a cut cannot take back: about as much as with the real one
_MAX_LINE = 16 * 1024 * 1024


class Host(Protocol):
    """Who runs the room. Called on the event loop."""

    def knocked(self, guest: Guest) -> None:
        """Somebody wants in: answer with `guest.admit` or `guest.refuse`, now or later (or never: that is a fault, too)."""

    def said(self, guest: Guest, message: Any) -> str | None:
        """A guest sent a message to all. A text refuses it, None takes it."""

    def played(self, guest: Guest, pcm: bytes, hz: int) -> None:
        """A guest's microphone sent sound: `_FRAME_MS` of it, only while it plays something."""

    def left(self, guest: Guest) -> None:
        """A guest that had knocked is gone, whether it said so or not."""


class Guest(asyncio.Protocol):
    """One connection. `url`, `token`, `name` and `microphone_hz` are as the guest gave them."""

    def __init__(self, host: Host, number: int) -> None:
        self._host = host
        self.id = f"guest-{number}"
        self.url = self.name = ""
        self.token: str | None = None
        self.microphone_hz: int | None = None
        self.joined = False
        self.listens_to: set[str] = set()
        self.clip = ""
        """The clip that its microphone sent last. No vendor knows; those who act out a fault must know whom it strikes."""
        self.silent = False
        """A fault: nothing is answered any more."""
        self._knocked = False
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._microphone: Microphone | None = None
        self._eras: list[tuple[int, int]] = []
        self._taken = 0
        self._ticking: asyncio.TimerHandle | None = None
        self._marks: deque[Mark] = deque()  # due, in order; a loop's timers for one instant have none

    # what a host does

    def admit(self) -> None:
        """Let the guest in."""
        if self._transport is not None and not self._transport.is_closing():
            self.joined = True
            self._say("joined", id=self.id)
            self.tell("joined", Participant(self.id, self.name, local=True, audio=self.microphone_hz is not None))

    def refuse(self, text: str) -> None:
        """Do not let it in, with the library's words."""
        self._say("refused", text=text)

    def tell(self, change: Literal["joined", "updated", "left"], who: Participant, reason: str = "") -> None:
        """Somebody came, changed or went."""
        self._say("participant", change=change, **dataclasses.asdict(who), reason=reason)

    def message(self, message: Any, sender: str) -> None:
        """An app message for this guest: any JSON value."""
        self._say("message", message=message, sender=sender)

    def sound(self, participant: str, pcm: bytes, hz: int) -> None:
        """Sound of a participant; goes out if the guest listens to it."""
        if participant in self.listens_to:
            self._say("sound", participant=participant, pcm=base64.b64encode(pcm).decode(), hz=hz)

    def expel(self, text: str) -> None:
        """The call is over for this guest (the room was deleted, it was ejected)."""
        self._say("lost", text=text)

    def raw(self, data: bytes) -> None:
        """Bytes that are no line of the protocol: a fault."""
        if self._transport is not None:
            self._transport.write(data)

    def drop(self) -> None:
        """Cut the connection without a word: a fault."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._say("ready")

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        try:
            for line in lines:
                self._obey(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
            self.drop()  # not one of ours
        if len(self._buffer) > _MAX_LINE:
            self.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._ticking is not None:
            self._ticking.cancel()
        self.joined = False
        if self._knocked:
            self._host.left(self)

    # the lines

    def _say(self, on: str, **rest: Any) -> None:
        if self._transport is not None and not self._transport.is_closing() and not self.silent:
            self._transport.write(json.dumps({"on": on, **rest}, separators=(",", ":")).encode() + b"\n")

    def _obey(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "join":
                self.url, self.token, self.name = order["url"], order["token"], order["name"]
                self.microphone_hz = order["microphone_hz"]
                if self.microphone_hz:
                    self._microphone = Microphone(self.microphone_hz, _FRAME_MS)
                self._knocked = True
                self._host.knocked(self)
            case "send":
                self._say("sent", n=order["n"], error=self._refusal(order["message"]))
            case "listen":
                self.listens_to.add(order["participant"])
            case "play" if self._microphone is not None:
                pcm = base64.b64decode(order["pcm"], validate=True)
                self._microphone.add(order["clip"], pcm, final=order["final"])
                if pcm:
                    self._eras.append((len(pcm), order["era"]))
                self._tick_soon()
            case "cut" if self._microphone is not None:
                self._microphone.cut()
                self._eras.clear()
                self._taken = 0
                self._tick_soon()
            case "ping":
                self._say("pong")
            case "leave":
                if self._transport is not None:
                    self._transport.close()

    def _refusal(self, message: Any) -> str | None:
        if not self.joined:
            return "AppMessage(Signalling(ChannelNotOpen))"
        if len(encode(message)) > MAX_MESSAGE_BYTES:
            return "AppMessage(MessageTooLarge)"
        return self._host.said(self, message)

    # the guest's microphone

    def _tick_soon(self) -> None:
        if self._ticking is None:
            loop = asyncio.get_running_loop()
            self._ticking = loop.call_at(loop.time(), self._tick, loop.time())

    def _tick(self, due_s: float) -> None:
        """Play a frame that is due now; then, as long as there is anything to play, the next one."""
        assert self._microphone is not None
        loop = asyncio.get_running_loop()
        if not self._microphone.busy:
            self._ticking = None
            return
        frame = self._microphone.next_frame()
        self._credit(frame)
        self.clip = next((mark.clip for mark in reversed(frame.marks) if mark.on == "started"), self.clip)
        self._host.played(self, frame.pcm, self.microphone_hz or 0)
        for mark in frame.marks:
            self._marks.append(mark)
            loop.call_at(due_s + mark.offset_ms / 1000, self._report)
        due_s += _FRAME_MS / 1000
        self._ticking = loop.call_at(due_s, self._tick, due_s)

    def _credit(self, frame: Frame) -> None:
        self._taken += frame.taken
        while self._eras and self._taken >= self._eras[0][0]:
            size, era = self._eras.pop(0)
            self._taken -= size
            self._say("taken", bytes=size, era=era)

    def _report(self) -> None:
        mark = self._marks.popleft()
        if mark.on == "started":
            self._say("started", clip=mark.clip)
        else:
            self._say("ended", clip=mark.clip, played_ms=mark.played_ms, interrupted=mark.interrupted)


@asynccontextmanager
async def serve_rooms(host: Host, port: int = 0) -> AsyncIterator[str]:
    """Serve on a loopback port; gives the URL to append a room's name to (`tcp://127.0.0.1:PORT/`). At the end all guests are cut."""
    guests: WeakSet[Guest] = WeakSet()  # an open connection keeps its guest alive
    numbers = itertools.count(1)

    def greet() -> Guest:
        guest = Guest(host, next(numbers))
        guests.add(guest)
        return guest

    server = await asyncio.get_running_loop().create_server(greet, "127.0.0.1", port, backlog=_BACKLOG)
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for guest in list(guests):
            guest.drop()
        await server.wait_closed()
