"""WHEP: a stream of a vendor's, received as its only viewer, and what is heard in it.

The signalling is https://www.rfc-editor.org/rfc/rfc9725.

`WhepStream` offers to receive sound alone, so that no picture is sent, decoded or paid for with our processor, and gives the edges of what
it hears by `speech.ear`. The viewer's place is taken by the POST and given back by a DELETE, which is sent whatever happens in between.

* **Moments.** A frame's moment is its timestamp on the sender's clock plus the least delay with which a frame has come so far, less the
  frames that aiortc's jitter buffer holds back: what the network delays is then no part of it.
* **TURN.** A vendor names a host; it is tried by each way of `TURN_WAYS`, since aiortc takes only one address, and a server that cannot be
  reached is no error there but an offer without candidates. An offer without candidates is never posted: it would take the place.
* **Where the DELETE goes** is the vendor's rule, given by `resource_of`.

Needs aiortc (the extra `listen`), which is imported when a stream is opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import wave
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlsplit

from playbook.clock import Clock
from playbook.errors import ProviderError, SetupError
from playbook.speech.ear import Ear, Heard
from playbook.transports.http import Answer, Http, Retry, is_loopback

if TYPE_CHECKING:
    from aiortc import RTCPeerConnection

TURN_WAYS = (
    "turns:{host}:443?transport=tcp",
    "turn:{host}:443?transport=udp",
    "turn:{host}:80?transport=tcp",
    "turn:{host}:80?transport=udp",
)
"""How a TURN server is reached, most certain first."""
OPEN_S = 6.0
"""How long a stream may take from our offer to its first frame (the vendor's own viewer waits as long)."""
GATHER_S = 8.0
SILENT_S = 5.0
"""A stream that sends nothing for so long has stopped. (Silence is sent as frames.)"""
RATE = 48_000
_JITTER_FRAMES = 4
"""How many newer frames aiortc waits for before it gives out one of sound."""
_POLL_MS = 50
REMEDY = "pip install 'avatar-playbook[listen]'"


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """Where a stream is: its WHEP address, and the TURN server that leads to it (`host`, `username`, `credential`), if one was given."""

    url: str
    turn: Mapping[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StreamEdge:
    """Sound began or ended in the stream, `ago_ms` before this was told."""

    what: Literal["began", "ended"]
    ago_ms: int


@dataclass(frozen=True, slots=True)
class StreamLost:
    """Nothing can be heard any more."""

    reason: str


OnStream = Callable[[StreamEdge | StreamLost], None]


class Stream(Protocol):
    """A stream that is listened to. What is heard goes to the `OnStream` that it was made with."""

    async def open(self) -> None:
        """Return when sound comes in. Raises `ProviderError` (no place, no way, nothing came) or `SetupError` (no aiortc)."""

    async def aclose(self) -> None:
        """Give the place back. Never raises."""


class Feed(Protocol):
    """A stream that is served in this process, to be heard on any clock."""

    def frames(self, clock: Clock) -> AsyncIterator[tuple[int, bytes]]:
        """Its sound as it comes, until it is over: when each frame began on `clock`, and its samples at `RATE`."""

    def enter(self) -> bool:
        """Take the place of its viewer; False where it is taken."""

    def leave(self) -> None:
        """Give it back."""


FEEDS: dict[str, Feed] = {}
"""Those there are, by their address: on a virtual clock there is no WebRTC, and the emulator is in the same process."""

ResourceOf = Callable[[str, str | None], str | None]
"""The address to DELETE, from the address that was posted to and the `Location` of the answer; None where there is nothing to delete."""


class EdgesOf:
    """The edges in a stream of sound, told as they are found, and the sound itself kept in a file (`heard.wav`), if one is named."""

    def __init__(self, clock: Clock, tell: OnStream, file: Path | None = None) -> None:
        self._clock, self._tell = clock, tell
        self._ear = Ear()
        self._file: wave.Wave_write | None = None
        if file is not None:
            try:
                self._file = wave.open(str(file), "wb")  # noqa: SIM115 -- closed by `close`
            except OSError as error:
                raise SetupError(f"{file} cannot be written: {error.strerror or error}") from error
            self._file.setnchannels(1)
            self._file.setsampwidth(2)
            self._file.setframerate(RATE)

    def take(self, at_ms: float, pcm: bytes) -> None:
        """Sound that began at `at_ms`."""
        if self._file is not None:
            try:
                self._file.writeframesraw(pcm)
            except OSError:  # a full disk costs the recording, not the show
                self._close_file()
        self._pass_on(self._ear.listen(at_ms, pcm, RATE))

    def wait(self, at_ms: float) -> None:
        """Nothing came until `at_ms`."""
        self._pass_on(self._ear.wait(at_ms))

    def close(self) -> None:
        """No more sound."""
        self._close_file()

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _pass_on(self, edges: Sequence[Heard]) -> None:
        for edge in edges:
            self._tell(StreamEdge(edge.what, max(0, round(self._clock.now_ms() - edge.at_ms))))


class ViewerPlace:
    """A viewer's place in a stream, taken by a POST of its offer and given back by a DELETE. `http` gives the way to an origin;
    `vendor_host` is whose stream it is."""

    def __init__(self, url: str, http: Callable[[str], Http], *, vendor_host: str, resource_of: ResourceOf) -> None:
        self._url, self._make_http, self._vendor_host, self._resource_of = url, http, vendor_host, resource_of
        self._resource: str | None = None

    async def take(self, offer: str) -> str:
        """Offer to receive. Gives the answer's SDP. Raises `ProviderError`."""
        headers = {"Content-Type": "application/sdp"}
        answer = await self._request("POST", self._url, retry=Retry.NEVER, content=offer.encode(), headers=headers)
        self._resource = self._resource_of(self._url, answer.headers.get("location"))
        return answer.body.decode("utf-8", "replace")

    async def give_back(self) -> None:
        """Somebody else can have it. Never raises."""
        if self._resource is not None:
            resource, self._resource = self._resource, None
            with contextlib.suppress(ProviderError, SetupError):
                await self._request("DELETE", resource, retry=Retry.SAFE, budget_ms=3_000)

    async def _request(self, method: str, url: str, **request: Any) -> Answer:
        parts = urlsplit(url)
        await asyncio.to_thread(_refuse_private, parts.hostname or "", self._vendor_host)
        async with self._make_http(f"{parts.scheme}://{parts.netloc}") as http:
            return await http.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), **request)


class WhepStream:
    """A stream by WebRTC. `http` gives the way to an origin; `vendor_host` is whose stream it is."""

    def __init__(
        self,
        address: StreamAddress,
        tell: OnStream,
        http: Callable[[str], Http],
        *,
        vendor_host: str,
        resource_of: ResourceOf,
        file: Path | None = None,
    ) -> None:
        self._address = address
        self._place = ViewerPlace(address.url, http, vendor_host=vendor_host, resource_of=resource_of)
        self._clock = Clock()
        self._tell = tell
        self._edges = EdgesOf(self._clock, tell, file)
        self._connection: RTCPeerConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over = False

    async def open(self) -> None:
        self._connection, offer = await self._offer()
        answer = await self._place.take(offer)
        from aiortc import RTCSessionDescription

        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        except ValueError as error:  # what is no SDP, or none that fits our offer
            raise ProviderError(f"the stream's answer cannot be used: {error}") from error
        try:
            async with asyncio.timeout(OPEN_S):
                await self._came
        except TimeoutError:
            raise ProviderError(f"the stream gave no sound within {OPEN_S:g} s") from None

    async def aclose(self) -> None:
        self._over = True
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        self._edges.close()
        if self._connection is not None:
            with contextlib.suppress(Exception):  # whatever a library's state: the place is given back below
                await self._connection.close()
        await self._place.give_back()

    # the connection

    async def _offer(self) -> tuple[RTCPeerConnection, str]:
        """A connection and its offer, with candidates: by each way to the TURN server, and directly where there is none."""
        try:
            from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection
            from aiortc.rtcconfiguration import RTCBundlePolicy
        except ImportError as error:
            raise SetupError("to listen to a stream, aiortc is needed, which is not installed", remedy=REMEDY) from error
        turn = self._address.turn
        ways: list[list[RTCIceServer]] = [[]]
        if turn is not None and not is_loopback(turn["host"]):
            ways = [[RTCIceServer(way.format(**turn), turn["username"], turn["credential"])] for way in TURN_WAYS]
        for servers in ways:
            connection = RTCPeerConnection(RTCConfiguration(servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
            connection.addTransceiver("audio", direction="recvonly")
            connection.on("track", self._listen_to)
            connection.on("connectionstatechange", partial(self._changed, connection))
            offer = ""
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(GATHER_S):
                    await connection.setLocalDescription(await connection.createOffer())
                    offer = str(connection.localDescription.sdp)
            if ("typ relay" if servers else "a=candidate") in offer:
                return connection, offer
            await connection.close()
        if turn is None:
            raise ProviderError("no way to the stream: this machine has no network")
        raise ProviderError(
            f"no way to the stream: the TURN server {turn['host']} cannot be reached",
            remedy="let UDP or TCP through to port 443 of that host",
        )

    def _listen_to(self, track: Any) -> None:
        if track.kind == "audio" and self._reader is None:
            self._reader = asyncio.ensure_future(self._read(track))

    def _changed(self, connection: RTCPeerConnection) -> None:
        state = connection.connectionState
        if connection is self._connection and state in ("failed", "closed"):
            self._lost(f"the connection to the stream {'failed' if state == 'failed' else 'was closed'}")

    def _lost(self, reason: str) -> None:
        if not self._came.done():
            self._came.set_exception(ProviderError(reason))
            self._came.exception()  # looked at, also where nobody waits any more
        elif not self._over:
            self._over = True
            self._tell(StreamLost(reason))

    async def _read(self, track: Any) -> None:
        from aiortc.mediastreams import MediaStreamError
        from av import AudioResampler

        resampler = AudioResampler(format="s16", layout="mono", rate=RATE)
        least: float | None = None
        try:
            while True:
                async with asyncio.timeout(SILENT_S):
                    frame = await track.recv()
                frame_ms = 1000 * frame.samples / frame.sample_rate
                sent_ms = 1000 * float(frame.pts * frame.time_base)
                delay = self._clock.now_ms() - sent_ms - (1 + _JITTER_FRAMES) * frame_ms
                least = delay if least is None else min(least, delay)
                if not self._came.done():
                    self._came.set_result(None)
                pcm = b"".join(bytes(part.planes[0])[: 2 * part.samples] for part in resampler.resample(frame))
                self._edges.take(sent_ms + least, pcm)
        except TimeoutError:
            self._edges.wait(self._clock.now_ms())
            self._lost(f"the stream has sent nothing for {SILENT_S:g} s")
        except MediaStreamError:
            self._lost("the stream has ended")


class FedStream:
    """A stream out of this process, by its `Feed`."""

    def __init__(self, address: StreamAddress, tell: OnStream, *, file: Path | None = None) -> None:
        self._address, self._tell = address, tell
        self._clock = Clock()
        self._edges = EdgesOf(self._clock, tell, file)
        self._feed: Feed | None = None
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        feed = FEEDS.get(self._address.url)
        if feed is None:
            raise ProviderError("no such stream is served in this process", status=404)
        if not feed.enter():
            raise ProviderError("this stream has a viewer", status=409)
        self._feed = feed
        self._reader = asyncio.ensure_future(self._read(feed))

    async def aclose(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        self._edges.close()
        if self._feed is not None:
            feed, self._feed = self._feed, None
            feed.leave()

    async def _read(self, feed: Feed) -> None:
        async for at_ms, pcm in feed.frames(self._clock):
            self._edges.take(at_ms, pcm)
        self._edges.wait(self._clock.now_ms())
        self._tell(StreamLost("the stream has ended"))


def _refuse_private(host: str, vendor_host: str) -> None:
    """A vendor's stream is not on this machine or its network, unless the vendor itself is. Raises `ProviderError`."""
    if is_loopback(vendor_host):
        return
    try:
        found = [ipaddress.ip_address(entry[4][0]) for entry in socket.getaddrinfo(host, None)]
    except (OSError, ValueError):
        return  # the request itself will say what is wrong
    if any(not address.is_global for address in found):
        raise ProviderError(f"the stream's address {host} is on a private network, and is not asked")
