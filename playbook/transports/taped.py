"""Rooms and sockets on a cassette: a real one that is recorded, and a recorded one that stands in for it.

Both are *channels*: we do things, and things happen. What happens is written as it comes, behind what we did before it. When it is played,
each thing we do must be the next that was recorded, and what followed from it follows again, as long after it; what followed from a
request (creating a session, ending it) waits for that request. Anything else is a miss that shows what was recorded and what differs.

Sound is compared by its digest and never written. On a socket it goes out in *stretches*, so that a slow other side is slow again.

Imports errors, the clock and its neighbours `room` and `listener`; only `cassette` imports it.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, get_args

from playbook.clock import Clock
from playbook.errors import ProviderError, RecordError
from playbook.transports import room as rooms
from playbook.transports.listener import Dialled, gone
from playbook.transports.room import Door, OnEvent, Room, RoomEvent, RoomFailure
from playbook.transports.whep import OnStream, Stream, StreamEdge, StreamLost

Line = dict[str, Any]
MakeRoom = Callable[[OnEvent], Room]
MakeSocket = Callable[[], Dialled]
MakeStream = Callable[[OnStream], Stream]

STRETCH_MS = 20
"""Sound that goes out for longer than this is written in pieces, each with the time that it took."""

_EVENTS: Mapping[str, type] = {event.__name__: event for event in get_args(RoomEvent)}
_NOT_COMPARED = ("at_ms", "room", "socket", "stream", "line", "nth", "took_ms")
_SIZE = re.compile(r"\d{1,12}(?= bytes, )")


class CassetteMiss(ProviderError):
    """The cassette has no answer to what is asked."""


class Tape(Protocol):
    """What a channel needs of its cassette."""

    path: Path

    def now_ms(self) -> int: ...
    def write(self, line: Line) -> None: ...
    def clean(self, value: Any) -> Any: ...
    def miss(self, message: str) -> CassetteMiss: ...
    def rename(self, text: str, name: str) -> None: ...


def digest(content: bytes) -> str:
    """What is written of content that nobody can read."""
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested data as paths and plain values."""
    if isinstance(value, Mapping):
        return {path: each for key, below in value.items() for path, each in flat(below, f"{name}.{key}" if name else str(key)).items()}
    if isinstance(value, list):
        return {path: each for index, below in enumerate(value) for path, each in flat(below, f"{name}.{index}").items()}
    return {name: value}


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any], word: str) -> list[str]:
    """Where two flat things differ, a line each; `word` says what we did: asked, done."""
    return [
        f"  {name}: recorded {_short(recorded.get(name))}, {word} {_short(now.get(name))}"
        for name in dict.fromkeys([*recorded, *now])
        if recorded.get(name) != now.get(name)
    ]


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"


def check_event(line: Line) -> None:
    """Whether what happened can happen again. Raises `RecordError`."""
    event = line.get("event", {})
    if "room" in line:
        _event_from_data(line["on"], event)
    elif "stream" in line:
        known = {"edge": event.keys() == {"what", "ago_ms"}, "lost": "reason" in event, "open": True}
        if not known.get(line["on"]) or not isinstance(event.get("ago_ms", 0), int):
            raise RecordError(f"an event in the cassette is none of a stream: {line['on']}")
    elif not {"message": event.keys() & {"json", "text"}, "caller": "came" in event, "hangup": True}[line["on"]]:
        raise RecordError(f"an event in the cassette is none of a socket: {line['on']}")


# --- any channel --------------------------------------------------------------------------------------------------------


class Played(ABC):
    """A recorded channel. `anchors` are the requests from which things follow in it."""

    what: str

    def __init__(self, tape: Tape, lines: Sequence[Line], anchors: Sequence[Line]) -> None:
        self._tape, self._lines, self._anchors = tape, lines, anchors
        self._waiting: list[tuple[Line, Line]] = []  # what waits, and for which request
        self._next = 0
        self._clock: Clock | None = None
        self._agenda: dict[int, tuple[asyncio.TimerHandle, list[Line]]] = {}  # what happens when, in order
        self._closed = False

    def asked(self, request: Line) -> None:
        """A recorded request is made again: what followed from it follows."""
        for anchor, after in self._waiting:
            if anchor is request and self._clock is not None:
                self._at(self._clock.now_ms() + after["at_ms"] - anchor["at_ms"], after)

    def _now_ms(self) -> int:
        self._clock = self._clock or Clock()
        return self._clock.now_ms()

    def _due(self) -> Line | None:
        """What we did next, when it was recorded."""
        while self._next < len(self._lines) and "on" in self._lines[self._next]:
            self._next += 1
        return self._lines[self._next] if self._next < len(self._lines) else None

    def _do(self, do: str, *, since_ms: int | None = None, **facts: Any) -> Line:
        """Match what we do (and began to do at `since_ms`) with the recording, and let happen what happened after it."""
        now, line = self._now_ms() if since_ms is None else since_ms, self._due()
        done = self._tape.clean({"do": do, **facts})
        recorded = None if line is None else {key: value for key, value in line.items() if key not in _NOT_COMPARED}
        if line is None or recorded is None:
            raise self._tape.miss(f"{self._tape.path.name} ends before this: {_short(done)}")
        if recorded != done:
            first = f"the {self.what} in {self._tape.path.name} went on differently at line {line['line']}:"
            raise self._tape.miss("\n".join([first, *differences(flat(recorded), flat(done), "done")]))
        self._next += 1
        for after in self._lines[self._next :]:
            if "do" in after:
                break
            between = [anchor for anchor in self._anchors if _between(line, anchor, after)]
            if between:
                self._waiting.append((between[-1], after))
            else:
                self._at(now + after["at_ms"] - line["at_ms"], after)
        return line

    def _at(self, due_ms: int, line: Line) -> None:
        """Let something happen then. A loop's timers that are due at one time come in no order, so one timer serves them all."""
        assert self._clock is not None
        if due_ms not in self._agenda:
            self._agenda[due_ms] = self._clock.call_at(due_ms, lambda: self._come(due_ms)), []
        self._agenda[due_ms][1].append(line)

    def _come(self, due_ms: int) -> None:
        for line in self._agenda.pop(due_ms)[1]:
            if not self._closed:
                self._happens(line)

    @abstractmethod
    def _happens(self, line: Line) -> None:
        """What was recorded happens again."""

    def _leave(self) -> None:
        """Close. That the recording was left elsewhere is no reason not to."""
        due = None if self._closed else self._due()
        if due is not None and due["do"] == "close":
            self._do("close")
        self._closed = True
        for timer, _ in self._agenda.values():
            timer.cancel()


def _between(done: Line, request: Line, after: Line) -> bool:
    """Whether a request was made between something that we did and something that happened after it."""
    return bool(done["nth"] < request["nth"] - request.get("meanwhile", 0) <= after["nth"])


# --- rooms --------------------------------------------------------------------------------------------------------------


def _event_to_data(event: RoomEvent) -> Line:
    data = dataclasses.asdict(event)
    if "pcm" in data:
        data["pcm"] = base64.b64encode(data["pcm"]).decode()
    return {key: value for key, value in data.items() if key != "age_ms" or value}


def _event_from_data(name: str, data: Line) -> Any:
    """An event as it was, or (`open`, `sent`) what the room answered, which is checked and stays as it is."""
    values = dict(data)
    try:
        if name in ("open", "sent"):
            if "failure" in data:
                _failure_from_data(data["failure"])
            return data["n"] if name == "sent" else data.get("failure") or data["participant"]
        if "participant" in values and isinstance(values["participant"], dict):
            values["participant"] = rooms.Participant(**values["participant"])
        if "pcm" in values:
            values["pcm"] = base64.b64decode(values["pcm"], validate=True)
        return _EVENTS[name](**values)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"an event in the cassette is none of a room: {name}: {error}") from error


class TapedRoom:
    """A real room, recorded."""

    def __init__(self, tape: Tape, number: int, on_event: OnEvent, make: MakeRoom) -> None:
        self._tape, self._number = tape, number
        self._on_event = on_event
        self._room = make(self._happened)
        self._sent = 0

    def _happened(self, event: RoomEvent) -> None:
        self._write(on=type(event).__name__, event=_event_to_data(event))
        self._on_event(event)

    def _write(self, **facts: Any) -> None:
        self._tape.write({"at_ms": self._tape.now_ms(), "room": self._number, **facts})

    async def open(self, door: Door) -> str:
        began = self._tape.now_ms()
        self._write(do="open")  # when it begins, because what happens meanwhile follows from it
        try:
            ours = await self._room.open(door)
        except RoomFailure as error:
            self._write(on="open", event={"took_ms": self._tape.now_ms() - began, "failure": _failure_to_data(error)})
            raise
        self._write(on="open", event={"took_ms": self._tape.now_ms() - began, "participant": ours})
        return ours

    def send(self, message: object) -> asyncio.Future[None]:
        self._sent += 1
        n = self._sent
        self._write(do="send", message=json.loads(json.dumps(message)))
        answer = self._room.send(message)
        answer.add_done_callback(lambda done: self._answered(n, done))
        return answer

    def _answered(self, n: int, answer: asyncio.Future[None]) -> None:
        """That a message was taken is the rule, and is not written."""
        error = None if answer.cancelled() else answer.exception()
        if isinstance(error, RoomFailure):
            self._write(on="sent", event={"n": n, "failure": _failure_to_data(error)})

    def listen(self, participant: str) -> None:
        self._write(do="listen", participant=participant)
        self._room.listen(participant)

    def play(self, clip: str, pcm: bytes, *, final: bool = True) -> None:
        self._write(do="play", clip=clip, bytes=digest(pcm), final=final)
        self._room.play(clip, pcm, final=final)

    def cut(self) -> None:
        self._write(do="cut")
        self._room.cut()

    async def close(self) -> None:
        self._write(do="close")
        await self._room.close()


def _failure_to_data(error: RoomFailure) -> Line:
    return {"kind": error.kind, "message": error.message, "outcome": error.outcome}


def _failure_from_data(data: Line) -> RoomFailure:
    failure = RoomFailure("other", "", outcome=data["outcome"])
    failure.message, failure.kind = data["message"], data["kind"]
    failure.args = (data["message"],)
    return failure


class PlayedRoom(Played):
    """A recorded room."""

    what = "room"

    def __init__(self, tape: Tape, on_event: OnEvent, lines: Sequence[Line], anchors: Sequence[Line]) -> None:
        super().__init__(tape, lines, anchors)
        self._on_event = on_event
        self._joined: asyncio.Future[str] | None = None
        self._refused = {line["event"]["n"] for line in lines if line.get("on") == "sent"}
        self._sends: list[asyncio.Future[None]] = []

    def _happens(self, line: Line) -> None:
        event = line.get("event", {})
        if line["on"] == "open":
            assert self._joined is not None
            if "failure" in event:
                self._joined.set_exception(_failure_from_data(event["failure"]))
            else:
                self._joined.set_result(event["participant"])
        elif line["on"] == "sent":
            self._sends[event["n"] - 1].set_exception(_failure_from_data(event["failure"]))
        else:
            self._on_event(_event_from_data(line["on"], event))

    async def open(self, _: Door) -> str:
        self._joined = asyncio.get_running_loop().create_future()
        self._do("open")
        return await self._joined

    def send(self, message: object) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        answer.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        try:
            self._do("send", message=json.loads(json.dumps(message)))
        except CassetteMiss as error:
            answer.set_exception(error)
            return answer
        self._sends.append(answer)
        if len(self._sends) not in self._refused:
            answer.set_result(None)
        return answer

    def listen(self, participant: str) -> None:
        self._do("listen", participant=participant)

    def play(self, clip: str, pcm: bytes, *, final: bool = True) -> None:
        self._do("play", clip=clip, bytes=digest(pcm), final=final)

    def cut(self) -> None:
        self._do("cut")

    async def close(self) -> None:
        self._leave()


# --- streams ------------------------------------------------------------------------------------------------------------


class TapedStream:
    """A real stream, recorded by the edges that were heard in it."""

    def __init__(self, tape: Tape, number: int, tell: OnStream, make: MakeStream) -> None:
        self._tape, self._number, self._tell = tape, number, tell
        self._stream = make(self._happened)
        self._closed = False

    def _write(self, **facts: Any) -> None:
        self._tape.write({"at_ms": self._tape.now_ms(), "stream": self._number, **facts})

    def _happened(self, what: StreamEdge | StreamLost) -> None:
        if isinstance(what, StreamEdge):
            self._write(on="edge", event={"what": what.what, "ago_ms": what.ago_ms})
        else:
            self._write(on="lost", event={"reason": what.reason})
        self._tell(what)

    async def open(self) -> None:
        self._write(do="open")
        try:
            await self._stream.open()
        except ProviderError as error:
            self._write(on="open", event={"failure": {"message": error.message, "status": error.status}})
            raise
        self._write(on="open", event={})

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._write(do="close")
        await self._stream.aclose()


class PlayedStream(Played):
    """A recorded stream."""

    what = "stream"

    def __init__(self, tape: Tape, tell: OnStream, lines: Sequence[Line], anchors: Sequence[Line]) -> None:
        super().__init__(tape, lines, anchors)
        self._tell = tell
        self._opened: asyncio.Future[None] | None = None

    def _happens(self, line: Line) -> None:
        event = line["event"]
        if line["on"] == "edge":
            self._tell(StreamEdge(event["what"], event["ago_ms"]))
        elif line["on"] == "lost":
            self._tell(StreamLost(event["reason"]))
        elif self._opened is not None and "failure" in event:
            self._opened.set_exception(ProviderError(event["failure"]["message"], status=event["failure"]["status"]))
        elif self._opened is not None:
            self._opened.set_result(None)

    async def open(self) -> None:
        self._opened = asyncio.get_running_loop().create_future()
        self._do("open")
        await self._opened

    async def aclose(self) -> None:
        self._leave()


# --- sockets that the other side dials ----------------------------------------------------------------------------------


def _readable(tape: Tape, text: str) -> Line:
    """A text as it is written, without its secrets: as the JSON that it is, or as it stands when it is none, or is nested very deep."""
    try:
        return {"json": tape.clean(json.loads(text))}
    except (ValueError, RecursionError):
        return {"text": tape.clean(text)}


class TapedSocket:
    """A real socket, recorded. Its address is another in every run, and stands there by a name."""

    def __init__(self, tape: Tape, number: int, make: MakeSocket) -> None:
        self._tape, self._number = tape, number
        self._socket = make()
        self._sound = bytearray()  # a stretch that is going out
        self._since_ms = 0
        self._sending = False
        self._closed = False

    @property
    def strangers(self) -> int:
        return self._socket.strangers

    def _write(self, at_ms: int, **facts: Any) -> None:
        self._tape.write({"at_ms": at_ms, "socket": self._number, **facts})

    def _stretch_ends(self, *, taken: bool = True) -> None:
        if self._sound:
            took = {"took_ms": self._tape.now_ms() - self._since_ms} if taken else {}
            self._write(self._since_ms, do="sound", bytes=digest(bytes(self._sound)), **took)
            self._sound.clear()

    def _happened(self, on: str, **event: Any) -> None:
        if not self._sending:  # it followed from the sound that went before
            self._stretch_ends()
        self._write(self._tape.now_ms(), on=on, event=event)

    async def start(self) -> str:
        began = self._tape.now_ms()
        url = await self._socket.start()
        self._tape.rename(url, _name(self._number))
        self._write(began, do="listen")
        return url

    async def caller(self, within_s: float) -> bool:
        came = await self._socket.caller(within_s)
        self._happened("caller", came=came, strangers=self._socket.strangers)
        return came

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self._stretch_ends()
            self._write(self._tape.now_ms(), do="send", **_readable(self._tape, message))
            await self._socket.send(message)
            return
        if not self._sound:
            self._since_ms = self._tape.now_ms()
        self._sound += message
        taken, self._sending = False, True
        try:
            await self._socket.send(message)
            taken = True
        finally:
            self._sending = False
            if not taken or self._tape.now_ms() - self._since_ms >= STRETCH_MS:
                self._stretch_ends(taken=taken)

    async def texts(self) -> AsyncIterator[str]:
        async for text in self._socket.texts():
            self._happened("message", **_readable(self._tape, text))
            yield text
        self._happened("hangup")

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._stretch_ends()
            self._write(self._tape.now_ms(), do="close")
        await self._socket.aclose()


class PlayedSocket(Played):
    """A recorded socket: no port is opened, and nobody dials."""

    what = "socket"

    def __init__(self, tape: Tape, number: int, url: str, lines: Sequence[Line], anchors: Sequence[Line]) -> None:
        super().__init__(tape, lines, anchors)
        self._number, self._url = number, url
        self._arrived = asyncio.Event()
        self._inbox: asyncio.Queue[str | None] = asyncio.Queue()
        self._hung_up = False
        self._sound = bytearray()
        self._since_ms = 0
        self.strangers: int = next((line["event"].get("strangers", 0) for line in lines if line.get("on") == "caller"), 0)

    def _happens(self, line: Line) -> None:
        event = line.get("event", {})
        if line["on"] == "message":
            self._inbox.put_nowait(event["text"] if "text" in event else json.dumps(event["json"]))
        elif line["on"] == "hangup":
            self._hung_up = True
            self._inbox.put_nowait(None)
        elif event["came"]:
            self._arrived.set()

    async def start(self) -> str:
        self._tape.rename(self._url, _name(self._number))
        self._do("listen")
        return self._url

    async def caller(self, within_s: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._arrived.wait()
        return self._arrived.is_set()

    async def send(self, message: str | bytes) -> None:
        if self._hung_up:
            raise gone()
        if isinstance(message, bytes):
            await self._send_sound(message)
            return
        if self._sound:
            self._stretch_ends()
        self._do("send", **_readable(self._tape, message))

    async def _send_sound(self, sound: bytes) -> None:
        """A stretch that is as long as the recorded one takes as long, too."""
        if not self._sound:
            self._since_ms = self._now_ms()
        self._sound += sound
        due = self._due()
        size = _SIZE.match(due.get("bytes", "")) if due is not None else None
        if size is not None and len(self._sound) < int(size[0]):
            return
        line = self._stretch_ends()
        if "took_ms" not in line:
            await asyncio.get_running_loop().create_future()  # it was never taken
        assert self._clock is not None
        if (until_ms := self._since_ms + line["took_ms"]) > self._clock.now_ms():
            await self._clock.sleep_until(until_ms)

    def _stretch_ends(self) -> Line:
        sound = bytes(self._sound)
        self._sound.clear()
        return self._do("sound", since_ms=self._since_ms, bytes=digest(sound))

    async def texts(self) -> AsyncIterator[str]:
        while (text := await self._inbox.get()) is not None:
            yield text

    async def aclose(self) -> None:
        self._leave()


def _name(number: int) -> str:
    return f"socket:{number}"
