"""OSC and MQTT as controls, with other people's clients and a real broker; the show only notes what it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
from pythonosc.osc_message_builder import OscMessageBuilder
from pythonosc.udp_client import SimpleUDPClient

from playbook import clock
from playbook.controls.mqtt import MqttControl
from playbook.controls.osc import OscControl
from playbook.controls.registry import control
from playbook.errors import SetupError, UsageError

from .remotes import MOSQUITTO


class Show:
    """Notes what it is offered."""

    def __init__(self) -> None:
        self.given: list[tuple[str, str, str | None]] = []

    def offer(self, signal: str, *, source: str, step: str | None = None) -> str | None:
        self.given.append((signal, source, step))
        return None

    def emit(self, event: Any) -> None:
        raise AssertionError("a control tells of nothing")

    def no_more(self, source: str) -> None:
        raise AssertionError("these controls never end by themselves")


async def until(true: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(15):
        while not true():  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.01)
    assert true(), what


# --- OSC --------------------------------------------------------------------------------------------------------------------


def osc(send: Callable[[SimpleUDPClient], None], count: int) -> list[tuple[str, str, str | None]]:
    """What a show was asked for by what `send` sent; a last message tells that all of it has come."""

    async def main() -> list[tuple[str, str, str | None]]:
        show, listening = Show(), OscControl(port=0)
        with listening.attach(show):
            assert listening.port is not None
            client = SimpleUDPClient("127.0.0.1", listening.port)
            send(client)
            client.send_message("/playbook/last", [])
            await until(lambda: show.given and show.given[-1][0] == "last", "the last message")
            client._sock.close()
        assert len(show.given) == count + 1
        return show.given[:-1]

    return clock.run(main())


def test_osc_messages_are_signals_by_their_address():
    """`/playbook/NAME`, with or without a button's argument; `goto` with its step; a button that is let go gives nothing."""

    def send(client: SimpleUDPClient) -> None:
        client.send_message("/playbook/go", [])
        client.send_message("/playbook/hold", 1.0)
        client.send_message("/playbook/hold", 0.0)
        client.send_message("/playbook/goto", "intro")
        client.send_message("/playbook/goto", [])
        client.send_message("/elsewhere/go", [])

    assert osc(send, 4) == [("go", "osc", None), ("hold", "osc", None), ("goto", "osc", "intro"), ("goto", "osc", None)]


def test_osc_bundles_are_taken_now():
    """A bundle's messages are given in their order."""

    def send(client: SimpleUDPClient) -> None:
        bundle = OscBundleBuilder(IMMEDIATELY)
        for address in ("/playbook/go", "/playbook/next"):
            bundle.add_content(OscMessageBuilder(address).build())
        client.send(bundle.build())

    assert [name for name, _, _ in osc(send, 2)] == ["go", "next"]


@pytest.mark.parametrize("data", [b"", b"\x00", b"/playbook/go", b"#bundle\x00", b"\xff" * 60, b"/playbook/go\x00\x00\x00\x00,i\x00\x00"])
def test_what_is_no_osc_is_dropped(data: bytes):
    """Bytes that no sender of OSC sends change nothing, and the next message is heard."""
    osc(lambda client: client._sock.sendto(data, (client._address, client._port)) and None, 0)


def test_a_port_that_is_taken_is_told():
    """Before the show, with the address."""

    async def main() -> None:
        with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as other:
            other.bind(("127.0.0.1", 0))
            port = other.getsockname()[1]
            with pytest.raises(SetupError, match=f"127.0.0.1:{port}"), OscControl(port=port).attach(Show()):
                pass

    clock.run(main())


# --- MQTT -------------------------------------------------------------------------------------------------------------------


def started(config: Path) -> subprocess.Popen[bytes]:
    assert MOSQUITTO is not None
    return subprocess.Popen([MOSQUITTO, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextlib.asynccontextmanager
async def broker(folder: Path, port: int) -> AsyncIterator[None]:
    """A real broker on this port."""
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n", "utf-8")
    process = started(config)
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.02)
                    continue
                writer.close()
                break
        yield
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def mqtt(tmp_path: Path, story: Callable[[Show, MqttControl, Any, int], Awaitable[None]]) -> None:
    """A control at a broker, and another client there, for a story."""
    from aiomqtt import Client

    async def main() -> None:
        port, show = free_port(), Show()
        async with broker(tmp_path, port):
            made = control(f"mqtt://127.0.0.1:{port}/lobby", {})
            assert isinstance(made, MqttControl)
            with made.attach(show):
                async with Client("127.0.0.1", port) as other:
                    await asyncio.wait_for(made.connected.wait(), 10)
                    await story(show, made, other, port)

    clock.run(main())


@pytest.mark.broker
def test_mqtt_messages_are_signals_by_their_topic(tmp_path: Path):
    """`PREFIX/signal/NAME`; `goto` with its step, bare or as JSON; a retained signal is of the past, and another prefix somebody else's."""

    async def story(show: Show, _: MqttControl, other: Any, __: int) -> None:
        await other.publish("lobby/signal/go")
        await other.publish("lobby/signal/goto", "intro")
        await other.publish("lobby/signal/goto", '{"step": "outro"}')
        await other.publish("hall/signal/go")
        await other.publish("lobby/signal/next")
        await until(lambda: len(show.given) == 4, "all were given")
        assert show.given == [("go", "mqtt", None), ("goto", "mqtt", "intro"), ("goto", "mqtt", "outro"), ("next", "mqtt", None)]

    mqtt(tmp_path, story)


@pytest.mark.broker
def test_a_retained_signal_is_of_the_past(tmp_path: Path):
    """What the broker kept from before is not given to a show that begins now."""
    from aiomqtt import Client

    async def main() -> None:
        port, show = free_port(), Show()
        async with broker(tmp_path, port), Client("127.0.0.1", port) as other:
            await other.publish("lobby/signal/go", retain=True, qos=1)
            made = MqttControl("127.0.0.1", "lobby", port=port)
            with made.attach(show):
                await asyncio.wait_for(made.connected.wait(), 10)
                await other.publish("lobby/signal/next", qos=1)
                await until(lambda: show.given, "the new one was given")
        assert [name for name, _, _ in show.given] == ["next"]

    clock.run(main())


@pytest.mark.broker
def test_the_state_is_retained(tmp_path: Path):
    """Whoever subscribes later gets the last state at once."""

    async def story(_: Show, made: MqttControl, other: Any, __: int) -> None:
        made.tell({"phase": "idle"})
        made.tell({"phase": "running"})
        await other.subscribe("lobby/state")
        async with asyncio.timeout(10):
            async for message in other.messages:
                if json.loads(message.payload) == {"phase": "running"}:
                    return

    mqtt(tmp_path, story)


@pytest.mark.broker
def test_a_broker_that_is_started_again_is_found_again(tmp_path: Path):
    """The connection is lost and comes back, and signals with it."""
    from aiomqtt import Client

    async def main() -> None:
        port, show = free_port(), Show()
        made = MqttControl("127.0.0.1", "lobby", port=port)
        async with broker(tmp_path, port):
            attached = made.attach(show)
            attached.__enter__()
            await asyncio.wait_for(made.connected.wait(), 10)
        await until(lambda: not made.connected.is_set(), "the loss is noticed")
        async with broker(tmp_path, port), Client("127.0.0.1", port) as other:
            await asyncio.wait_for(made.connected.wait(), 20)
            await other.publish("lobby/signal/go", qos=1)
            await until(lambda: show.given, "the signal was given")
        attached.__exit__(None, None, None)

    clock.run(main())


@pytest.mark.parametrize(
    "address",
    [
        "mqtt://broker",
        "mqtt:///lobby",
        "mqtt://broker/a/#/b",
        "mqtt://broker/+/b",
        "mqtt://u:secret@broker/a",
        "osc://h/x",
        "smoke://x",
        "go",
    ],
)
def test_an_address_that_leads_nowhere_is_refused(address: str):
    """Before anything is performed, and without the password that was in it."""
    with pytest.raises(UsageError) as refused:
        control(address, {})
    assert "secret" not in str(refused.value)
