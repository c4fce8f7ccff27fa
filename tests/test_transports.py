"""The factory of transports: which ones a run gets, decided in one place."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from playbook import clock
from playbook.errors import ProviderError, SetupError
from playbook.providers import registry
from playbook.transports.cassette import Cassette
from playbook.transports.daily import DailyRoom
from playbook.transports.factory import Emulated, Real, Wrapped, transports_for
from playbook.transports.http import Retry
from playbook.transports.room import SocketRoom


@pytest.mark.parametrize("name", registry.emulated())
def test_an_emulator_says_that_it_is_one(name: str):
    """Whoever goes by an emulator's environment gets its transports; an address on this machine alone does not make an emulator."""

    async def main() -> None:
        emulator = registry.emulator(name)()
        async with emulator.serve():
            env = dict(emulator.environment())
            assert isinstance(transports_for(name, env), Emulated)
            assert all(isinstance(transports_for(other, env), Real) for other in registry.names() if other != name)
            del env[f"{name.upper()}_EMULATED"]
            assert isinstance(transports_for(name, env), Real)

    clock.run(main(), "virtual")


def test_the_address_of_a_room_chooses_nothing():
    """A real room is the library's whatever its address is, an emulator's is a socket."""

    async def main() -> None:
        for url in ("tcp://127.0.0.1:1/c", "https://tavus.daily.co/c"):
            assert isinstance(Real({}, "system").room(url, [].append), DailyRoom)
            assert isinstance(Emulated("system").room(url, [].append), SocketRoom)

    asyncio.run(main())


def test_on_the_virtual_clock_no_vendor_is_asked():
    """Whatever it did would come too late, and be paid for: a refusal that says what to do, and no connection."""

    async def main() -> None:
        real = transports_for("tavus", {})
        async with real.http("https://api.example.com") as http:
            with pytest.raises(ProviderError, match="was not asked: on the virtual clock") as caught:
                await http.request("POST", "/x", retry=Retry.SAFE)
        assert caught.value.outcome == "refused"
        with pytest.raises(SetupError, match="lives in real time"):
            real.room("https://tavus.daily.co/c", [].append)

    clock.run(main(), "virtual")


@pytest.mark.parametrize(
    ("listen", "kind", "told"),
    [
        (None, "emulated", r"ws://127\.0\.0\.1:\d+/path"),
        ("[::1]:0", "emulated", r"ws://\[::1\]:\d+/path"),
        ("127.0.0.1:0", "real", "wss://a.example/path"),
    ],
)
def test_whom_a_socket_is_for_decides_what_is_told(listen: str | None, kind: str, told: str):
    """A vendor dials the author's proxy or tunnel, an emulator ourselves."""

    async def main() -> str:
        transports = Emulated("system") if kind == "emulated" else Real({}, "system")
        socket = transports.listener(listen, "wss://a.example/path", header="X-Secret", secret="s")
        try:
            return await socket.start()
        finally:
            await socket.aclose()

    assert re.fullmatch(told, asyncio.run(main()))


def test_a_cassette_of_which_nothing_was_used_is_no_performance(tmp_path: Path):
    """A provider that reaches its vendor in another way does not pass for one that was played."""
    path = tmp_path / "x.tape"
    header = '{"cassette": 1, "recorded_at": "2026-01-01T00:00:00+00:00"}'
    line = '{"at_ms": 0, "http": {"method": "GET", "path": "/x"}, "took_ms": 5, "answer": {"status": 200}}'
    path.write_text(f"{header}\n{line}\n", "utf-8")

    async def main(used: bool) -> str | None:
        cassette = Cassette(path)
        if used:
            async with Wrapped(Real({}, "virtual"), cassette).http("https://api.example.com") as http:
                await http.request("GET", "/x", retry=Retry.NEVER)
        return cassette.objection()

    assert clock.run(main(True), "virtual") is None
    assert "was asked for: the provider" in (clock.run(main(False), "virtual") or "")
