"""Help for the tests of rooms: events to wait for, and a host that keeps what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from playbook.emulators.room import Guest
from playbook.transports.room import Participant, RoomEvent

T = TypeVar("T")
FACE = Participant("face-1", "Face", audio=True, video=True, user="tavus-replica-1", owner=True)


class Events(list[RoomEvent]):
    """Everything a room told, with a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def __call__(self, event: RoomEvent) -> None:
        self.append(event)
        self._more.set()

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self if isinstance(event, kind)]

    async def first(self, kind: type[T], *, count: int = 1, within_s: float = 5.0) -> T:
        """The event of that kind that makes `count` of them."""
        async with asyncio.timeout(within_s):
            while len(self.of(kind)) < count:
                self._more.clear()
                await self._more.wait()
        return self.of(kind)[count - 1]


class Hall:
    """A host that lets everybody in, or does what `answer` says, and keeps what happens; `until` waits for it."""

    def __init__(self, answer: Callable[[Guest], None] = Guest.admit) -> None:
        self.answer = answer
        self.guests: list[Guest] = []
        self.heard: list[Any] = []
        self.sound = bytearray()
        self.gone: list[Guest] = []
        self.refusal: str | None = None
        self._more = asyncio.Event()

    async def until(self, seen: Callable[[Hall], object]) -> None:
        async with asyncio.timeout(5):
            while not seen(self):
                self._more.clear()
                await self._more.wait()

    def knocked(self, guest: Guest) -> None:
        self._more.set()
        self.guests.append(guest)
        self.answer(guest)

    def said(self, guest: Guest, message: Any) -> str | None:
        self._more.set()
        self.heard.append(message)
        return self.refusal

    def played(self, guest: Guest, pcm: bytes, hz: int) -> None:
        self.sound += pcm

    def left(self, guest: Guest) -> None:
        self._more.set()
        self.gone.append(guest)
