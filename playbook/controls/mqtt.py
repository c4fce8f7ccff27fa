"""Signals by MQTT (https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html), as building control sends them, through a broker.

`PREFIX/signal/NAME` gives the signal or trigger of that name; for `goto` the message is the step. The state is retained at
`PREFIX/state`, as `GET /api/state` gives it; a last will takes its place when we are lost, and when we leave. A signal that the broker
retained is of the past, and is not given. A broker that is lost is tried again.

Needs aiomqtt (the extra `controls`), which is imported when somebody connects. A password comes from the environment
(`PLAYBOOK_MQTT_PASSWORD`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from playbook.errors import SetupError, UsageError

if TYPE_CHECKING:
    from playbook.ports import Steered

PORT, PORT_TLS = 1883, 8883
PASSWORD = "PLAYBOOK_MQTT_PASSWORD"
NO_LOGIN: Mapping[str, str] = {}
AGAIN_S = (1.0, 2.0, 5.0, 10.0)
MAX_PAYLOAD = 4_096
LEAVING_S = 3.0


class MqttControl:
    """Connects to a broker. `login` has a `username` and a `password`, where the broker wants them."""

    source = "mqtt"

    def __init__(self, host: str, prefix: str, *, port: int | None = None, tls: bool = False, login: Mapping[str, str] = NO_LOGIN) -> None:
        self.prefix = prefix
        self._host, self._port = host, port or (PORT_TLS if tls else PORT)
        self._login: dict[str, Any] = dict(login)
        self._tls = tls
        self.will: Mapping[str, Any] | None = None
        """What takes the state's place when we are not there any more."""
        self.lost: Callable[[str], None] = lambda _: None
        """Told once that the broker is away, and why."""
        self._state: Mapping[str, Any] | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.connected = asyncio.Event()

    @classmethod
    def at(cls, address: SplitResult, env: Mapping[str, str]) -> MqttControl:
        """The control at `mqtt://USER@HOST:PORT/PREFIX`, or `mqtts:` with TLS. An address is seen by others, and has no password."""
        prefix = address.path.strip("/")
        if not address.hostname or not prefix or "+" in prefix or address.fragment or address.query or address.password:
            raise UsageError(
                "an MQTT control needs a broker and a topic, and has its password from the environment",
                remedy=f"write mqtt://broker/lobby, and {PASSWORD}=… where the broker wants one",
            )
        login = {"username": address.username} if address.username else {}
        if address.username and (password := env.get(PASSWORD)):
            login["password"] = password
        return cls(address.hostname, prefix, port=address.port, tls=address.scheme == "mqtts", login=login)

    def tell(self, state: Mapping[str, Any]) -> None:
        """The state has changed."""
        self._state = state
        self._changed.set()

    @contextlib.contextmanager
    def attach(self, show: Steered) -> Iterator[None]:
        """Give signals to this show until the context is left."""
        try:
            import aiomqtt  # noqa: F401  # so that its absence is told before a show, and not in it
        except ImportError as error:
            raise SetupError("MQTT needs aiomqtt, which is not installed", remedy="pip install aiomqtt") from error
        self._task = task = asyncio.ensure_future(self._stay(show))
        try:
            yield
        finally:
            task.cancel()

    async def left(self) -> None:
        """Return when the broker has been told that we leave, or cannot be."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=LEAVING_S)

    async def _stay(self, show: Steered) -> None:
        """Connect, and connect again, for ever."""
        from aiomqtt import Client, MqttError

        tries = 0
        while True:
            try:
                settings: dict[str, Any] = {"tls_context": _tls_context()} if self._tls else {}
                async with Client(self._host, self._port, will=self._last_will(), **self._login, **settings) as client:
                    await client.subscribe(f"{self.prefix}/signal/#", qos=1)
                    tries = 0
                    self._changed.set()
                    self.connected.set()
                    try:
                        async with asyncio.TaskGroup() as both:
                            both.create_task(self._publish(client))
                            both.create_task(self._listen(client, show))
                    except asyncio.CancelledError:  # we leave, and the broker does not think that we are lost
                        await self._leave(client)
                        raise
            except* (MqttError, OSError) as errors:
                self.connected.clear()
                if tries == 0:
                    self.lost(str(errors.exceptions[0]))
                await asyncio.sleep(AGAIN_S[min(tries, len(AGAIN_S) - 1)])
                tries += 1

    async def _listen(self, client: Any, show: Steered) -> None:
        async for message in client.messages:
            name = str(message.topic).removeprefix(f"{self.prefix}/signal/")
            if message.retain or not name or not name.isprintable() or len(message.payload or b"") > MAX_PAYLOAD:
                continue
            show.offer(name, source=self.source, step=_step(message.payload) if name == "goto" else None)

    def _last_will(self) -> Any:
        from aiomqtt import Will

        return None if self.will is None else Will(f"{self.prefix}/state", json.dumps(self.will, ensure_ascii=False), qos=1, retain=True)

    async def _leave(self, client: Any) -> None:
        from aiomqtt import MqttError

        if self.will is not None:
            with contextlib.suppress(MqttError):
                await client.publish(f"{self.prefix}/state", json.dumps(self.will, ensure_ascii=False), qos=1, retain=True)

    async def _publish(self, client: Any) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._state is not None:
                await client.publish(f"{self.prefix}/state", json.dumps(self._state, ensure_ascii=False), qos=1, retain=True)


def _step(payload: Any) -> str | None:
    """The step that a message names: bare, or as `{"step": …}`."""
    text = bytes(payload or b"").decode("utf-8", "replace").strip()
    try:
        data = json.loads(text)
    except ValueError:
        return text or None
    step = data.get("step") if isinstance(data, dict) else data
    return step if isinstance(step, str) else text or None


def _tls_context() -> Any:
    import ssl

    return ssl.create_default_context()
