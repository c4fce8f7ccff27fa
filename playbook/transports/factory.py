"""The one factory of transports: the real ones, an emulator's, and either of them wrapped (recorded, or played from a cassette).

A session is given one `Transports` (`playbook.ports`) and reaches the outside by nothing else; which one it has it
cannot tell. It is chosen once, by `transports_for`, when a run is assembled:

* `Real` is the vendor. On the virtual clock nobody outside this process can answer in time, so nothing is asked there.
* `Emulated` is an emulator of ours. `Emulator.environment` says so to whoever goes by it (`NAME_EMULATED`).
* `Wrapped` puts something in front of another one: a cassette, which records it or plays in its place, or what a test observes with.

To add a transport: a method here in each class, and in the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from playbook.clock import Clock, ClockName
from playbook.errors import SetupError
from playbook.ports import Transports
from playbook.transports.http import REAL_TIME, Answer, Explain, Http, NetworkError, Request, Send
from playbook.transports.listener import LISTEN, Dialled, Listener

if TYPE_CHECKING:
    from pathlib import Path

    from playbook.transports.room import OnEvent, Room
    from playbook.transports.whep import OnStream, ResourceOf, Stream, StreamAddress

MakeRoom = Callable[["OnEvent"], "Room"]
MakeSocket = Callable[[], Dialled]
MakeStream = Callable[["OnStream"], "Stream"]


def transports_for(provider: str, env: Mapping[str, str], clock: ClockName | None = None) -> Transports:
    """The transports of a provider, by the environment: to its emulator where that is what the environment describes, else to the vendor.
    `clock`: the running loop's, unless given."""
    clock = clock or Clock().name
    return Emulated(clock) if env.get(emulated_variable(provider)) else Real(env, clock)


def emulated_variable(provider: str) -> str:
    """The variable that says that a provider's addresses are those of its emulator."""
    return f"{provider.upper().replace('-', '_')}_EMULATED"


class Real:
    """The vendor itself. `env` is the run's environment."""

    def __init__(self, env: Mapping[str, str], clock: ClockName) -> None:
        self._env, self._clock = env, clock

    def http(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        explain: Explain | None = None,
        redact: Callable[[str], str] | None = None,
    ) -> Http:
        virtual = self._clock == "virtual"
        http = Http(base_url, headers=headers, explain=explain, redact=redact, in_process=virtual)
        return http.wrap(_not_asked(urlsplit(base_url).hostname or "")) if virtual else http

    def room(self, url: str, on_event: OnEvent) -> Room:  # noqa: ARG002 -- a real room is told its address when it is opened
        from playbook.transports.daily import DailyRoom

        if self._clock == "virtual":
            raise SetupError("a Daily room lives in real time", remedy="use --clock system, or rehearse with --emulate")
        return DailyRoom(on_event, self._env)

    def listener(self, listen: str | None, url: str, *, header: str, secret: str) -> Dialled:
        return Listener(listen or LISTEN, header=header, secret=secret, address=lambda _: url)

    def whep(
        self, address: StreamAddress, tell: OnStream, *, vendor_host: str, resource_of: ResourceOf, file: Path | None = None
    ) -> Stream:
        from playbook.transports.whep import WhepStream

        if self._clock == "virtual":
            raise SetupError("WebRTC lives in real time", remedy="use --clock system, or rehearse with --emulate")
        return WhepStream(address, tell, self.http, vendor_host=vendor_host, resource_of=resource_of, file=file)


class Emulated:
    """An emulator on this machine."""

    def __init__(self, clock: ClockName) -> None:
        self._clock = clock

    def http(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        explain: Explain | None = None,
        redact: Callable[[str], str] | None = None,
    ) -> Http:
        return Http(base_url, headers=headers, explain=explain, redact=redact, in_process=self._clock == "virtual")

    def room(self, url: str, on_event: OnEvent) -> Room:  # noqa: ARG002 -- as with a real one
        from playbook.transports.room import SocketRoom

        return SocketRoom(on_event)

    def listener(self, listen: str | None, url: str, *, header: str, secret: str) -> Dialled:
        """An emulator reaches us without the proxy or tunnel that `url` leads to."""
        path = urlsplit(url).path or "/"
        return Listener(listen or "127.0.0.1:0", header=header, secret=secret, address=lambda ours: f"ws://{ours}{path}")

    def whep(
        self, address: StreamAddress, tell: OnStream, *, vendor_host: str, resource_of: ResourceOf, file: Path | None = None
    ) -> Stream:
        from playbook.transports.whep import FedStream, WhepStream

        if self._clock == "virtual":
            return FedStream(address, tell, file=file)
        return WhepStream(address, tell, self.http, vendor_host=vendor_host, resource_of=resource_of, file=file)


class Before(Protocol):
    """What stands in front of transports. A cassette is one."""

    def http(self, send: Send) -> Send:
        """In place of what sends a request."""

    def room(self, on_event: OnEvent, make: MakeRoom) -> Room:
        """In place of the room that `make` would make."""

    def listener(self, url: str, make: MakeSocket) -> Dialled:
        """In place of the socket that `make` would make, which the other side dials by `url`."""

    def whep(self, tell: OnStream, make: MakeStream) -> Stream:
        """In place of the stream that `make` would make."""


class Wrapped:
    """The transports of `beside`, each with `before` in front of it."""

    def __init__(self, beside: Transports, before: Before) -> None:
        self._beside, self._before = beside, before

    def http(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        explain: Explain | None = None,
        redact: Callable[[str], str] | None = None,
    ) -> Http:
        return self._beside.http(base_url, headers=headers, explain=explain, redact=redact).wrap(self._before.http)

    def room(self, url: str, on_event: OnEvent) -> Room:
        return self._before.room(on_event, lambda heard: self._beside.room(url, heard))

    def listener(self, listen: str | None, url: str, *, header: str, secret: str) -> Dialled:
        return self._before.listener(url, lambda: self._beside.listener(listen, url, header=header, secret=secret))

    def whep(
        self, address: StreamAddress, tell: OnStream, *, vendor_host: str, resource_of: ResourceOf, file: Path | None = None
    ) -> Stream:
        def make(heard: OnStream) -> Stream:
            return self._beside.whep(address, heard, vendor_host=vendor_host, resource_of=resource_of, file=file)

        return self._before.whep(tell, make)


def _not_asked(host: str) -> Callable[[Send], Send]:
    async def refuse(_: Request) -> Answer:
        raise NetworkError(f"{host} was not asked: {REAL_TIME}", outcome="refused", passing=False)

    return lambda _: refuse
