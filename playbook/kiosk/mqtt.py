"""A kiosk and its broker: signals come as `TOPIC/signal/NAME`, the status is retained at `TOPIC/status`.

A broker that is away, or goes away, changes nothing for the audience: it is tried again, with growing pauses. Its last
will says that the kiosk is offline. User and password are in the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiomqtt

from playbook.errors import SetupError
from playbook.kiosk.file import Mqtt
from playbook.kiosk.operation import Operation

PAUSES_S = (1.0, 2.0, 5.0, 15.0, 60.0)
PATIENCE_S = 10
MAX_NAME = 100
OFFLINE = json.dumps({"state": "offline"})


@contextlib.asynccontextmanager
async def connected(
    operation: Operation, mqtt: Mqtt, env: Mapping[str, str], say: Callable[[str], None]
) -> AsyncIterator[Callable[[], None]]:
    """Keep a broker told meanwhile. Gives what is to be called when the status has changed."""
    changed = asyncio.Event()
    task = asyncio.create_task(_keep(operation, mqtt, env, say, changed))
    try:
        yield changed.set
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _keep(operation: Operation, mqtt: Mqtt, env: Mapping[str, str], say: Callable[[str], None], changed: asyncio.Event) -> None:
    failures = 0
    while True:
        try:
            async with _client(mqtt, env) as client:
                failures = 0
                await _serve(client, operation, mqtt, say, changed)
        except (aiomqtt.MqttError, OSError, SetupError) as error:
            if failures == 0:
                say(f"the broker {mqtt.url} is away: {error}")
            pause_s = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
            failures += 1
            await asyncio.sleep(pause_s)


def _client(mqtt: Mqtt, env: Mapping[str, str]) -> aiomqtt.Client:
    try:
        parts = urlsplit(mqtt.url)
        port = parts.port
    except ValueError as error:
        raise SetupError(f"{mqtt.url} is no address: {error}") from error
    secure = parts.scheme == "mqtts"
    return aiomqtt.Client(
        parts.hostname or "",
        port or (8883 if secure else 1883),
        username=env.get("PLAYBOOK_MQTT_USER"),
        password=env.get("PLAYBOOK_MQTT_PASSWORD"),
        tls_params=aiomqtt.TLSParameters() if secure else None,
        will=aiomqtt.Will(f"{mqtt.topic}/status", OFFLINE, qos=1, retain=True),
        timeout=PATIENCE_S,
    )


async def _serve(client: aiomqtt.Client, operation: Operation, mqtt: Mqtt, say: Callable[[str], None], changed: asyncio.Event) -> None:
    await client.subscribe(f"{mqtt.topic}/signal/+", qos=1)
    telling = asyncio.create_task(_tell(client, operation, mqtt, changed))
    try:
        async for message in client.messages:
            if message.retain:  # somebody's signal of yesterday
                continue
            name = str(message.topic).rpartition("/")[2]
            if (reason := operation.offer(name[:MAX_NAME], "mqtt")) is not None:
                say(f"the signal '{name[:MAX_NAME]}' is ignored: {reason}")
    finally:
        telling.cancel()
        await asyncio.wait([telling])
        with contextlib.suppress(aiomqtt.MqttError):
            await client.publish(f"{mqtt.topic}/status", json.dumps({"state": "stopped"}), qos=1, retain=True)


async def _tell(client: aiomqtt.Client, operation: Operation, mqtt: Mqtt, changed: asyncio.Event) -> None:
    told = ""
    while True:
        status = json.dumps(status_of(operation), ensure_ascii=False)
        if status != told:
            await client.publish(f"{mqtt.topic}/status", status, qos=1, retain=True)
            told = status
        await changed.wait()
        changed.clear()


def status_of(operation: Operation) -> dict[str, Any]:
    """What somebody far away wants to know."""
    return {
        "state": "online",
        "open": operation.is_open,
        "rung": operation.rungs.current,
        "show": operation.show,
        "possible": operation.rungs.best() is not None,
        "shows": operation.shows,
    }
