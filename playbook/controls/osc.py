"""Signals by OSC (https://opensoundcontrol.stanford.edu/spec-1_0.html), as lighting desks and show controllers send them, over UDP.

`/playbook/NAME` gives the signal or trigger of that name; `/playbook/goto` has the step as its argument. A number that is zero says that a
button was let go, and gives no signal. What is no OSC is dropped, and so are bundles' times: they mean now.

Needs python-osc (the extra `controls`), which is imported when somebody listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from playbook.errors import SetupError, UsageError

if TYPE_CHECKING:
    from playbook.ports import Steered

PREFIX = "/playbook/"
PORT = 9000
MAX_PACKET = 4_096
AT_ONCE = 64
"""How many packets are read before the loop has its turn again."""


class OscControl:
    """Listens on an address."""

    source = "osc"

    def __init__(self, host: str = "127.0.0.1", port: int = PORT) -> None:
        self._host, self._port = host, port
        self.port: int | None = None
        """The port that it listens on, while it does."""

    @classmethod
    def at(cls, address: SplitResult, env: Mapping[str, str]) -> OscControl:  # noqa: ARG003 -- the same for all controls
        """The control at `osc://HOST:PORT`; each may be left out."""
        if address.path.strip("/"):
            raise UsageError("an OSC address has no path", remedy="write osc://127.0.0.1:9000")
        return cls(address.hostname or "127.0.0.1", PORT if address.port is None else address.port)

    @contextlib.contextmanager
    def attach(self, show: Steered) -> Iterator[None]:
        """Give signals to this show until the context is left."""
        try:
            from pythonosc.osc_packet import OscPacket, ParseError
        except ImportError as error:
            raise SetupError("OSC needs python-osc, which is not installed", remedy="pip install python-osc") from error

        def read() -> None:
            for _ in range(AT_ONCE):
                try:
                    data = listener.recv(MAX_PACKET)
                except OSError:
                    return
                try:
                    messages = OscPacket(data).messages
                except (ParseError, ValueError, IndexError, OverflowError):
                    continue
                for timed in messages:
                    _give(show, timed.message.address, timed.message.params)

        loop, listener = asyncio.get_running_loop(), self._listen()
        self.port = listener.getsockname()[1]
        loop.add_reader(listener, read)
        try:
            yield
        finally:
            loop.remove_reader(listener)
            listener.close()
            self.port = None

    def _listen(self) -> socket.socket:
        try:
            family, kind, _, _, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)[0]
            listener = socket.socket(family, kind)
            try:
                listener.setblocking(False)
                listener.bind(address)
            except OSError:
                listener.close()
                raise
        except OSError as error:
            why = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)
            raise SetupError(f"cannot listen for OSC on {self._host}:{self._port}: {why}", remedy="choose another port") from error
        return listener


def _give(show: Steered, address: str, arguments: list[Any]) -> None:
    name = address.removeprefix(PREFIX)
    if not address.startswith(PREFIX) or not name or not name.isprintable():
        return
    step = arguments[0] if arguments and isinstance(arguments[0], str) else None
    if name != "goto" and arguments and arguments[0] in (0, 0.0, False):
        return
    show.offer(name, source=OscControl.source, step=step if name == "goto" else None)
