"""Listening to a stream by WHEP: real WebRTC to Kaltura's emulator on this machine, whose queue knows when it really spoke."""

from __future__ import annotations

import asyncio
import sys
import wave
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from playbook import clock as clocks
from playbook.errors import ProviderError, SetupError
from playbook.providers.kaltura.emulator import KalturaEmulator
from playbook.providers.kaltura.stream import resource_of
from playbook.transports.http import Http
from playbook.transports.whep import StreamAddress, StreamEdge, StreamLost, WhepStream

WITHIN_MS = 150
"""How far an edge may be from the truth, on a machine that does other things too."""


@dataclass
class Place:
    """An emulator with one session, and whoever listens to it."""

    emulator: KalturaEmulator
    http: httpx.AsyncClient
    session: Any
    url: str
    told: list[tuple[int, StreamEdge | StreamLost]]

    def stream(self, **options: Any) -> WhepStream:
        address = StreamAddress(options.pop("url", self.url), options.pop("turn", None))

        def tell(what: StreamEdge | StreamLost) -> None:
            self.told.append((self.emulator.clock.now_ms(), what))

        return WhepStream(address, tell, Http, **{"vendor_host": "127.0.0.1", "resource_of": resource_of, **options})

    async def say(self, task: str, text: str) -> None:
        body = {"text": text, "turnId": task, "isFinal": True}
        headers = {"Authorization": f"Bearer {self.session.token}"}
        answer = await self.http.post(f"/v1/avatar-session/{self.session.id}/say-text", json=body, headers=headers)
        assert answer.status_code == 200

    async def until(self, met: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not met():  # noqa: ASYNC110 -- the truth is in the emulator, which tells nobody
                await asyncio.sleep(0.01)

    def edges(self, what: str) -> list[int]:
        return [at - it.ago_ms for at, it in self.told if isinstance(it, StreamEdge) and it.what == what]


def listen(story: Callable[[Place], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        emulator = KalturaEmulator(**options)
        async with emulator.serve() as url, httpx.AsyncClient(base_url=url, timeout=10) as http:
            made = await http.post("/v1/avatar-session/create", headers={"Authorization": "KS any"}, json={"visualConfig": {"id": "a"}})
            session = emulator.sessions[made.json()["sessionId"]]
            headers = {"Authorization": f"Bearer {session.token}"}
            given = await http.post(f"/v1/avatar-session/{session.id}/init-client", headers=headers, json={})
            await story(Place(emulator, http, session, given.json()["whepUrl"], []))

    clocks.run(main())


def test_lines_are_heard_when_they_are_said(tmp_path: Path) -> None:
    """Each line's first and last sound is told with the moment at which it was; what was heard is kept; the place is given back."""

    async def story(place: Place) -> None:
        stream = place.stream(file=tmp_path / "heard.wav")
        await stream.open()
        for number, text in enumerate(("Good morning, and welcome.", "The lift is on your left."), 1):
            await place.say(f"line-{number}", text)
            await place.until(lambda number=number: len(place.edges("ended")) == number)
        spoken = (await place.http.get("/_emulator/spoken")).json()["spoken"]
        assert place.edges("began") == pytest.approx([line["started_ms"] for line in spoken], abs=WITHIN_MS)
        assert place.edges("ended") == pytest.approx([line["ended_ms"] for line in spoken], abs=WITHIN_MS)
        assert place.session.viewers == 1
        await stream.aclose()
        assert place.session.viewers == 0
        assert not [it for _, it in place.told if isinstance(it, StreamLost)]

    listen(story)
    with wave.open(str(tmp_path / "heard.wav")) as sound:
        assert (sound.getframerate(), sound.getnchannels()) == (48_000, 1)
        assert max(sound.readframes(sound.getnframes())) > 0


def test_a_mute_face_is_not_heard() -> None:
    """A line that the vendor accepted and never spoke gives no edge, and the one after it does."""

    async def story(place: Place) -> None:
        stream = place.stream()
        await stream.open()
        await place.say("mute", "Nobody hears this.")
        await place.say("loud", "This is heard.")
        await place.until(lambda: len(place.edges("ended")) == 1)
        assert place.edges("began") == pytest.approx([place.session.queue.lines[1].started_ms], abs=WITHIN_MS)
        await stream.aclose()

    listen(story, faults=["accepted-but-silent@mute"])


def test_a_stream_that_ends_is_told_once() -> None:
    """When the session dies, the stream is lost, once."""

    async def story(place: Place) -> None:
        stream = place.stream()
        await stream.open()
        place.session.end("fault")
        await place.until(lambda: bool(place.told))
        await stream.aclose()
        assert [type(it) for _, it in place.told] == [StreamLost]

    listen(story)


@pytest.mark.parametrize(("whep", "status"), [(409, 409), (404, 404)])
def test_a_place_that_is_taken_is_a_refusal(whep: Any, status: int) -> None:
    """Where somebody watches already, or no stream is there, opening fails with the status, and nothing is deleted."""

    async def story(place: Place) -> None:
        stream = place.stream()
        with pytest.raises(ProviderError) as caught:
            await stream.open()
        assert caught.value.status == status
        await stream.aclose()
        assert not [entry for entry in place.emulator.journal if entry.get("method") == "DELETE"]

    listen(story, whep=whep)


def test_a_private_place_is_not_asked() -> None:
    """A vendor out in the world cannot send us to an address of this machine or its network."""

    async def story(place: Place) -> None:
        stream = place.stream(vendor_host="api.example.com")
        with pytest.raises(ProviderError, match="on a private network"):
            await stream.open()
        await stream.aclose()
        assert place.session.viewers == 0

    listen(story)


def test_a_turn_server_that_cannot_be_reached_takes_no_place() -> None:
    """Without a way to the stream nothing is posted."""

    async def story(place: Place) -> None:
        stream = place.stream(turn={"host": "turn.invalid", "username": "u", "credential": "c"})
        with pytest.raises(ProviderError, match=r"the TURN server turn\.invalid cannot be reached"):
            await stream.open()
        await stream.aclose()
        assert place.session.viewers == 0

    listen(story)


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """No aiortc: nothing is posted, and the message says what to install."""

    async def story(place: Place) -> None:
        monkeypatch.setitem(sys.modules, "aiortc", None)
        stream = place.stream()
        with pytest.raises(SetupError, match="aiortc") as caught:
            await stream.open()
        assert "pip install" in caught.value.remedy
        await stream.aclose()

    listen(story)


@pytest.mark.parametrize(
    ("location", "resource"),
    [
        ("/whep/session/s/viewer/v", "https://edge.example/rtc/v1/whep/session/s/viewer/v"),
        ("https://edge.example/x/viewer/v", "https://edge.example/x/viewer/v"),
        ("?action=delete&token=t", "https://edge.example/rtc/v1/whep/session/s?action=delete&token=t"),
        (None, None),
        ("", None),
    ],
)
def test_where_the_place_is_given_back(location: str | None, resource: str | None) -> None:
    """Each form of `Location` that was seen or is usual leads to the address that frees the place."""
    assert resource_of("https://edge.example/rtc/v1/whep/session/s?app=a", location) == resource
