"""A room: where a face listens to messages and to sound. Our own small port to it, and the part that all implementations share.

A provider sees the `Room` protocol and the events, nothing else. What is behind it is always another process or server that speaks
*JSON lines* (one object a line, UTF-8), so that the difference between the real thing and a rehearsal is only who is at the other end:

* `transports.daily.DailyRoom`: a child process of ours that holds the native Daily library;
* `SocketRoom`: a loopback TCP server, the room of an emulator (`emulators.room`);
* anything else that has the methods of `Room` (a cassette).

The lines, ours first. `at` is the peer's monotonic time in seconds, given where it shares our machine's clock:

    {"do": "join", "url", "token", "name", "microphone_hz", "track", "listen", "proxy"}    answered by joined or refused
    {"do": "send", "n", "message"}                             answered by sent
    {"do": "listen", "participant"}                            from now on its sound comes as `sound`
    {"do": "play", "clip", "pcm", "final", "era"}              pcm: base64, 16-bit little-endian mono
    {"do": "cut"}                                              forget all sound that is queued
    {"do": "ping"}                                             answered by pong
    {"do": "leave"}                                            answered by closing the line

    {"on": "ready"}  {"on": "unusable", "text"}  {"on": "pong"}
    {"on": "joined", "id"}  {"on": "refused", "text"}  {"on": "sent", "n", "error"}
    {"on": "participant", "change": "joined" | "updated" | "left", "id", "name", "local", "audio", "video",
     "user", "owner", "reason"}
    {"on": "message", "message", "sender"}
    {"on": "sound", "participant", "pcm", "hz"}
    {"on": "taken", "bytes", "era"}                            so much of our sound has left the queue; more may be sent
    {"on": "started", "clip"}  {"on": "ended", "clip", "played_ms", "interrupted"}
    {"on": "error", "text"}                                    the library says that something went wrong; the room may live on
    {"on": "lost", "text"}                                     the room is gone

Rules: a message is sent at most once and never repeated here. Every wait has a bound. Tokens never leave this file in a text. A room that
is gone says so once (`RoomLost`), a room that we closed says nothing more. Imports errors only; providers and emulators import it.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar
from urllib.parse import parse_qs, urlsplit

from playbook.errors import MASK, PlaybookError, ProviderError, SetupError
from playbook.record.redact import quoted

T = TypeVar("T")

MAX_MESSAGE_BYTES = 4_095
"""The largest app message, as compact JSON in UTF-8: what Daily documents is 4 KB, and below it is always right."""

_MAX_LINE = 16 * 1024 * 1024  # a message of 1 MB, every character escaped, still passes
_MAX_UNANSWERED = 1_000  # sends in flight; more means that nobody takes them
_RATES = range(1_000, 384_001)  # of sound that can be listened to, in Hz
_LATEST_S = 1e12  # that a clock can show: no machine has run so long
_PIECE_MS = 100  # of sound, in one line
_LEAD_MS = 1_000  # of sound, ahead of what is being played: survives our stalls, costs no memory

Kind = Literal[
    "bad-url",
    "unresolved",
    "unreachable",
    "stalled",
    "certificate",
    "not-found",
    "unauthorised",
    "server",
    "not-joined",
    "too-long",
    "silent",
    "crashed",
    "closed",
    "other",
]
"""What went wrong, for those who decide; the text beside it is for those who read."""

_MEANINGS: Mapping[Kind, str] = {
    "bad-url": "the room's URL is malformed",
    "unresolved": "the room's host name could not be resolved",
    "unreachable": "the room's service could not be reached",
    "stalled": "the room's service did not answer",
    "certificate": "the TLS connection to the room's service failed",
    "not-found": "there is no such room",
    "unauthorised": "the room refused us",
    "server": "the room's service failed",
    "not-joined": "we are not in the room",
    "other": "the room reported an error",
}

# The library's errors are strings and change with its versions, so: fragments, most telling first (measured on daily-python 0.36).
_FRAGMENTS: tuple[tuple[str, Kind], ...] = (
    (r"parse url|InvalidUrl", "bad-url"),
    (r"HTTP error: 40[13]", "unauthorised"),
    (r"HTTP error: 404", "not-found"),
    (r"HTTP error: 5", "server"),
    (r"InvalidCertificate|InvalidContentType|InvalidMessage", "certificate"),
    (r"lookup address", "unresolved"),
    (r"Elapsed", "stalled"),
    (r"ChannelNotOpen", "not-joined"),
    (r"RoomInfoFetchFailed|Connect\b", "unreachable"),
)


def classify(text: str) -> Kind:
    """Which kind of trouble a text of the Daily library tells of."""
    return next((kind for pattern, kind in _FRAGMENTS if re.search(pattern, text)), "other")


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` without the given secrets, and without anything that looks like a meeting token."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    text = re.sub(r"\beyJ[\w.-]+", MASK, text)
    return re.sub(r"([?&](?:t|token)=)[^&\s\"')]+", r"\1***", text)


def encode(message: object) -> bytes:
    """A message as it counts against the limit: compact JSON in UTF-8. Raises ValueError or TypeError when it is no JSON."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


class RoomFailure(ProviderError):
    """A room refused, failed or went silent: `kind` for decisions, the message (the library's whole text included) for people."""

    def __init__(self, kind: Kind, text: str, *, outcome: Literal["refused", "ambiguous", "lost"] = "refused") -> None:
        meaning = _MEANINGS.get(kind)
        super().__init__(f"{meaning}: {text}" if meaning else text, outcome=outcome)
        self.kind: Kind = kind


# --- what the port is made of -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Door:
    """How to enter a room.

    With `microphone_hz` we bring a microphone: an unbroken track that `play` feeds. `track` is its name; another name than `microphone`
    adds a custom track beside. With `listen` sound of others can be heard. `proxy` is an HTTPS proxy that itself speaks TLS.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    name: str = "playbook"
    microphone_hz: int | None = None
    track: str = "microphone"
    listen: bool = False
    proxy: str | None = None

    def __post_init__(self) -> None:
        if self.microphone_hz is not None and (self.microphone_hz <= 0 or self.microphone_hz % 100):
            raise ValueError(f"a microphone takes whole samples in 10 ms: {self.microphone_hz} Hz does not")

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may show: the token, wherever it stands."""
        query = parse_qs(urlsplit(self.url).query) if "?" in self.url else {}
        return tuple(value for value in (self.token, *query.get("t", ()), *query.get("token", ())) if value)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long, in seconds, each wait may take. A peer that was asked and says nothing for `beat_s` is given up (None: never)."""

    ready_s: float = 10.0
    join_s: float = 60.0
    send_s: float = 5.0
    leave_s: float = 1.0
    beat_s: float | None = 5.0


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody in the room. `audio` and `video`: whether that track exists and could be received. `user` is the id that a meeting token
    gave (else the participant's own); `owner`: the room is theirs."""

    id: str
    name: str = ""
    local: bool = False
    audio: bool = False
    video: bool = False
    user: str = ""
    owner: bool = False


# Each event's `age_ms` is how long before its arrival it happened, where the transport can tell.


@dataclass(frozen=True, slots=True)
class ParticipantJoined:
    """Somebody is in the room (we, too). Comes once for each, whether they came before or after us."""

    participant: Participant
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class ParticipantUpdated:
    """A participant's name or tracks changed."""

    participant: Participant
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class ParticipantLeft:
    """Somebody left, for the library's reason."""

    participant: Participant
    reason: str = ""
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class AppMessage:
    """A message came in: any JSON value at all. `sender` is a participant's id, or empty for the service itself."""

    message: Any
    sender: str
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class SoundHeard:
    """A few milliseconds of what a participant sends: 16-bit mono. `age_ms` counts from the *beginning* of the sound."""

    participant: str
    pcm: bytes
    hz: int
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class ClipStarted:
    """The first sample of a clip was played."""

    clip: str
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class ClipEnded:
    """A clip ended, exactly once for each; `played_ms` is what really went out (0: it never began)."""

    clip: str
    played_ms: int
    interrupted: bool
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something went wrong and the room lives on. For the log."""

    kind: Kind
    text: str
    age_ms: int = 0


@dataclass(frozen=True, slots=True)
class RoomLost:
    """The room is gone, by itself. The last event."""

    kind: Kind
    text: str
    age_ms: int = 0


RoomEvent = (
    ParticipantJoined | ParticipantUpdated | ParticipantLeft | AppMessage | SoundHeard | ClipStarted | ClipEnded | Trouble | RoomLost
)
OnEvent = Callable[[RoomEvent], None]


class Room(Protocol):
    """The port. Events go to the callback the room was made with, on the event loop, in order, from `open` until `close` or `RoomLost`."""

    async def open(self, door: Door) -> str:
        """Join, and return our participant id; the first events may come before it returns. Raises `RoomFailure`, or `SetupError` where
        the library is missing. Cancelling it ends the joining at once."""

    def send(self, message: object) -> asyncio.Future[None]:
        """Send an app message to all, now; calls keep their order. The future tells whether the room took it (`RoomFailure`: `refused` or
        `ambiguous`); it need not be awaited."""

    def listen(self, participant: str) -> None:
        """From now on, tell what this participant's microphone sends (`Door.listen`)."""

    def play(self, clip: str, pcm: bytes, *, final: bool = True) -> None:
        """Queue sound for our microphone. Pieces with one `clip` name are one clip until `final`; names are not used twice. Raises
        `RoomFailure` when we are not in the room."""

    def cut(self) -> None:
        """Forget all sound that was queued. Each clip it hits ends with `interrupted` and what was played of it."""

    async def close(self) -> None:
        """Leave, at any moment, also while `open` is under way; within 2 seconds, whatever the other side does. Never raises."""


# --- JSON lines ---------------------------------------------------------------------------------------------------------


class LineRoom(ABC):
    """A room at the other end of a stream of JSON lines. A subclass connects, writes bytes, hands in what it receives, and hangs up."""

    def __init__(self, on_event: OnEvent, patience: Patience) -> None:
        self._on_event = on_event
        self._patience = patience
        self._state: Literal["new", "opening", "joined", "over"] = "new"
        self._url = ""
        self._secrets: tuple[str, ...] = ()
        self._buffer = b""
        self._ready: asyncio.Future[None] | None = None
        self._joined: asyncio.Future[str] | None = None
        self._count = 0
        self._unanswered: dict[int, tuple[asyncio.Future[None], asyncio.TimerHandle]] = {}
        self._heard = True  # something came in since the last beat
        self._beat: asyncio.TimerHandle | None = None
        self._sound: deque[tuple[str, memoryview, bool]] = deque()  # not yet written
        self._announced: set[str] = set()  # clips the peer knows and has not ended
        self._ahead = 0  # bytes written and not yet taken
        self._era = 0  # counts the cuts, so that what was taken before one is not credited after it
        self._hz = 0

    # what a transport provides

    @abstractmethod
    async def _connect(self) -> None:
        """Make the connection (or raise `RoomFailure`, `SetupError`); from then on call `_received` and, at its end, `_ended`."""

    @abstractmethod
    def _write(self, line: bytes) -> None:
        """Send bytes, or drop them where there is no connection any more."""

    @abstractmethod
    def _abort(self) -> None:
        """End the connection at once."""

    @abstractmethod
    async def _hang_up(self, leave_s: float) -> None:
        """Return when the connection is gone: by itself within `leave_s`, else by force. May be called more than once. Does not raise."""

    # the port

    async def open(self, door: Door) -> str:
        if self._state != "new":
            raise RoomFailure("closed", "the room was closed")
        if any("\0" in text for text in (door.url, door.token or "", door.name, door.proxy or "")):  # the library would panic
            raise RoomFailure("bad-url", "it, the token, the name or the proxy contains a NUL character")
        loop = asyncio.get_running_loop()
        self._state = "opening"
        self._url, self._secrets = door.url, door.secrets
        self._hz = door.microphone_hz or 0
        self._ready, self._joined = loop.create_future(), loop.create_future()
        for future in (self._ready, self._joined):
            future.add_done_callback(_retrieved)
        try:
            await self._bounded(self._greeted(), self._patience.ready_s, "the room's process did not get ready")
            self._do("join", **_fields(door))
            return await self._bounded(self._joined, self._patience.join_s, "joining the room took too long")
        except BaseException:  # whatever went wrong, a stop included: nothing of ours stays behind
            self._finish(RoomFailure("closed", "the room was closed"))
            self._abort()
            await self._hang_up(0)
            raise

    def send(self, message: object) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        answer.add_done_callback(_retrieved)
        try:
            size = len(encode(message))
        except (TypeError, ValueError, RecursionError) as error:
            answer.set_exception(RoomFailure("other", f"the message is not JSON: {error}"))
            return answer
        if size > MAX_MESSAGE_BYTES:
            answer.set_exception(RoomFailure("too-long", f"the message has {size} bytes; a room takes {MAX_MESSAGE_BYTES}"))
        elif self._state != "joined":
            answer.set_exception(RoomFailure("not-joined", "it is not open"))
        elif len(self._unanswered) >= _MAX_UNANSWERED:
            answer.set_exception(RoomFailure("silent", f"{_MAX_UNANSWERED} messages wait for an answer already"))
        else:
            self._count += 1
            timer = loop.call_later(self._patience.send_s, self._unheard, self._count)
            self._unanswered[self._count] = answer, timer
            self._do("send", n=self._count, message=message)
        return answer

    def listen(self, participant: str) -> None:
        self._do("listen", participant=participant)

    def play(self, clip: str, pcm: bytes, *, final: bool = True) -> None:
        if not self._hz:
            raise ValueError("the room was entered without a microphone")
        if len(pcm) % 2:
            raise ValueError("16-bit sound has an even number of bytes")
        if self._state != "joined":
            raise RoomFailure("not-joined", "it is not open")
        size = self._hz * 2 * _PIECE_MS // 1000
        for start in range(0, max(len(pcm), 1), size):
            self._sound.append((clip, memoryview(pcm)[start : start + size], final and start + size >= len(pcm)))
        self._pump()

    def cut(self) -> None:
        # The peer ends every clip, so that all ends come from one place and in order: it must know of each.
        waiting = dict.fromkeys(clip for clip, _, _ in self._sound if clip not in self._announced)
        self._sound.clear()
        for clip in waiting:
            self._write_piece(clip, b"", final=False)
        self._era += 1
        self._ahead = 0
        self._do("cut")

    async def close(self) -> None:
        polite = self._state == "joined"
        self._on_event = _nobody
        if polite:
            self._do("leave")
        else:
            self._abort()  # a join cannot be cancelled, only ended together with the process that waits for it
        self._finish(RoomFailure("closed", "the room was closed", outcome="ambiguous"))
        await self._hang_up(self._patience.leave_s if polite else 0)

    # waiting

    async def _greeted(self) -> None:
        assert self._ready is not None
        await self._connect()
        await self._ready

    async def _bounded(self, work: Awaitable[T], limit_s: float, otherwise: str) -> T:
        try:
            async with asyncio.timeout(limit_s):
                return await work
        except TimeoutError:
            raise RoomFailure("silent", f"{otherwise} ({limit_s:g} s)") from None

    def _unheard(self, n: int) -> None:
        answer, _ = self._unanswered.pop(n)
        if not answer.done():
            text = f"the room did not say within {self._patience.send_s:g} s whether it took the message"
            answer.set_exception(RoomFailure("silent", text, outcome="ambiguous"))

    def _check_pulse(self) -> None:
        beat_s = self._patience.beat_s
        if beat_s is None or self._state != "joined":
            return
        if not self._heard:
            self._lose("silent", f"the room's process has not answered for {beat_s:g} s")
            return
        self._heard = False
        self._do("ping")
        self._beat = asyncio.get_running_loop().call_later(beat_s, self._check_pulse)

    # the end

    def _lose(self, kind: Kind, text: str) -> None:
        """The room is gone by itself: say so once, to whoever waits or else as an event."""
        if self._state == "over":
            return
        text = redact(text, self._secrets)
        joined = self._state == "joined"
        self._finish(RoomFailure(kind, text, outcome="ambiguous" if joined else "refused"))
        self._abort()
        if joined:
            self._on_event(RoomLost(kind, text))

    def _finish(self, failure: PlaybookError) -> None:
        """Nothing goes out any more; what waits for an answer gets `failure`."""
        if self._state == "over":
            return
        self._state = "over"
        if self._beat is not None:
            self._beat.cancel()
        for future in (self._ready, self._joined):
            if future is not None and not future.done():
                future.set_exception(failure)
        for answer, timer in self._unanswered.values():
            timer.cancel()
            if not answer.done():
                answer.set_exception(failure)
        self._unanswered.clear()
        self._sound.clear()

    # our sound

    def _pump(self) -> None:
        limit = self._hz * 2 * _LEAD_MS // 1000
        while self._sound and self._ahead < limit:
            clip, pcm, final = self._sound.popleft()
            self._write_piece(clip, pcm, final=final)

    def _write_piece(self, clip: str, pcm: bytes | memoryview, *, final: bool) -> None:
        self._announced.add(clip)
        self._ahead += len(pcm)
        self._do("play", clip=clip, pcm=base64.b64encode(pcm).decode(), final=final, era=self._era)

    # lines

    def _do(self, do: str, **rest: Any) -> None:
        if self._state != "over":
            self._write(json.dumps({"do": do, **rest}, separators=(",", ":")).encode() + b"\n")

    def _received(self, data: bytes) -> None:
        """For transports: bytes have come in."""
        self._heard = True
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if self._state == "over":
                return
            self._read(line)
        if len(self._buffer) > _MAX_LINE:
            self._buffer = b""
            self._lose("other", "the room sent a line without end")

    def _read(self, line: bytes) -> None:
        try:
            said = json.loads(line)
            known = self._hear(said)
        except (ValueError, RecursionError):  # binascii's error for bad base64 is a ValueError
            known = False
        if not known:
            self._on_event(
                Trouble("other", "an unreadable line: " + quoted(redact(line.decode(errors="replace"), self._secrets), most=200))
            )

    def _hear(self, said: Any) -> bool:
        assert self._ready is not None
        assert self._joined is not None
        age_ms = self._age_ms(said)
        match said:
            case {"on": "message", "message": message, "sender": str(sender)}:
                self._on_event(AppMessage(message, sender, age_ms))
            case {"on": "sent", "n": int(n), "error": None | str() as error}:
                self._answered(n, error)
            case {"on": "sound", "participant": str(participant), "pcm": str(pcm), "hz": int(hz)} if hz in _RATES:
                samples = base64.b64decode(pcm, validate=True)
                if len(samples) % 2:
                    return False
                self._on_event(SoundHeard(participant, samples, hz, age_ms))
            case {"on": "taken", "bytes": int(taken), "era": int(era)}:
                if era == self._era:
                    self._ahead -= taken
                    self._pump()
            case {"on": "started", "clip": str(clip)}:
                self._on_event(ClipStarted(clip, age_ms))
            case {"on": "ended", "clip": str(clip), "played_ms": int(played_ms), "interrupted": bool(interrupted)}:
                self._announced.discard(clip)
                self._on_event(ClipEnded(clip, played_ms, interrupted, age_ms))
            case {"on": "participant", "change": "joined" | "updated" | "left" as change, "id": str(name)}:
                self._on_event(_presence(change, name, said, age_ms))
            case {"on": "pong"}:
                pass
            case {"on": "ready"}:
                if not self._ready.done():
                    self._ready.set_result(None)
            case {"on": "joined", "id": str(ours)}:
                if not self._joined.done():
                    self._state = "joined"
                    self._joined.set_result(ours)
                    self._check_pulse()
            case {"on": "refused", "text": str(text)}:
                self._lose(classify(text), text)
            case {"on": "unusable", "text": str(text)}:
                self._finish(SetupError(f"the Daily library cannot be used: {text}", remedy=_INSTALL))
            case {"on": "error", "text": str(text)}:
                self._on_event(Trouble(classify(text), redact(text, self._secrets), age_ms))
            case {"on": "lost", "text": str(text)}:
                self._lose(classify(text), text)
            case _:
                return False
        return True

    def _answered(self, n: int, error: str | None) -> None:
        answer, timer = self._unanswered.pop(n, (None, None))
        if answer is None or timer is None:
            return  # it came too late: the time-out has said what there was to say
        timer.cancel()
        if answer.done():
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(RoomFailure(classify(error), redact(error, self._secrets)))

    def _age_ms(self, said: Any) -> int:
        at = said.get("at") if isinstance(said, dict) else None
        if not isinstance(at, int | float) or not abs(at) < _LATEST_S:  # infinite and `nan`, too
            return 0
        return max(0, round((asyncio.get_running_loop().time() - at) * 1000))


_INSTALL = "pip install daily-python (there are wheels for Linux with glibc and for macOS)"


def _fields(door: Door) -> dict[str, Any]:
    return {name: getattr(door, name) for name in Door.__slots__}


def _presence(change: str, name: str, said: Mapping[str, Any], age_ms: int) -> RoomEvent:
    participant = Participant(
        name,
        str(said.get("name") or ""),
        local=said.get("local") is True,
        audio=said.get("audio") is True,
        video=said.get("video") is True,
        user=str(said.get("user") or ""),
        owner=said.get("owner") is True,
    )
    if change == "left":
        return ParticipantLeft(participant, str(said.get("reason") or ""), age_ms)
    return ParticipantJoined(participant, age_ms) if change == "joined" else ParticipantUpdated(participant, age_ms)


def _nobody(_: RoomEvent) -> None:
    """Hears the events of a room that was closed."""


def _retrieved(future: asyncio.Future[Any]) -> None:
    """An answer nobody waits for is no accident."""
    if not future.cancelled():
        future.exception()


# --- over a socket ------------------------------------------------------------------------------------------------------


class SocketRoom(LineRoom):
    """The room of an emulator, over loopback TCP: `tcp://127.0.0.1:PORT/name`. Works on the virtual clock, too."""

    def __init__(self, on_event: OnEvent, patience: Patience | None = None) -> None:
        super().__init__(on_event, patience or Patience(beat_s=None))
        self._transport: asyncio.WriteTransport | None = None
        self._gone = asyncio.Event()

    async def _connect(self) -> None:
        host, port = _loopback(self._url)
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(lambda: _Socket(self), host, port)
        except OSError as error:
            raise RoomFailure("unreachable", f"{host}:{port}: {error.strerror or error}") from error
        self._transport = transport

    def _write(self, line: bytes) -> None:
        if self._transport is not None:
            self._transport.write(line)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def _hang_up(self, leave_s: float) -> None:
        if self._transport is None:
            return
        try:
            async with asyncio.timeout(leave_s):
                await self._gone.wait()
        except TimeoutError:
            self._transport.abort()
            await self._gone.wait()

    def gone(self, error: Exception | None) -> None:
        """The connection has ended (for `_Socket`)."""
        self._gone.set()
        self._lose("closed", f"the room's server ended the connection{f': {error}' if error else ''}")


class _Socket(asyncio.Protocol):
    def __init__(self, room: SocketRoom) -> None:
        self._room = room

    def data_received(self, data: bytes) -> None:
        self._room._received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.gone(exc)


def _loopback(url: str) -> tuple[str, int]:
    """Host and port of a `tcp://` URL on this machine."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise RoomFailure("bad-url", str(error)) from error
    if parts.scheme != "tcp" or port is None or not local:
        raise RoomFailure("bad-url", "a room over a socket is tcp://HOST:PORT/NAME with a loopback address")
    return host, port
