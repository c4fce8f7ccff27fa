"""Cassettes: what a provider answered, recorded at the transport seam and played back without a network.

A cassette is JSON lines (`schemas/cassette.schema.json`): a header, then every HTTP exchange and everything that was done and that happened
in a room, with times since the recording began. Providers notice nothing: the cassette stands in for their transports (`Context.extras`).

* **Secrets are removed before a line is written**: what the run has sealed, whatever goes by a name like `token`, and what looks like a
  token. What was sealed only later is removed when the cassette is closed. Until then it is written beside its final place.
* **HTTP is matched by content**, each recorded exchange is used once, in its order among equals, and takes as long as it took.
* **A room is matched by order.** What happened after something we did happens again as long after we do it again.
* A miss is an error that shows the nearest recorded request and what differs; nothing is ever invented.

Record modes are VCR's: `none` only plays; `once` plays a cassette that exists and records one that does not; `new_episodes` plays what is
there and records the rest; `all` records everything anew. A cassette may have a day from which on it is no longer believed.

Imports errors, the clock and its neighbours `http` and `room`; the command line puts it in place.
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal, get_args

from playbook.clock import Clock, wall_time
from playbook.errors import MASK, ProviderError, RecordError, SetupError
from playbook.language.schema import compile_schema, load_schema
from playbook.transports import room as rooms
from playbook.transports.http import Answer, NetworkError, Request, Send
from playbook.transports.room import Door, OnEvent, Room, RoomEvent, RoomFailure

VERSION = 1
Mode = Literal["once", "new_episodes", "none", "all"]
Line = dict[str, Any]
MakeRoom = Callable[[OnEvent], Room]

_KEPT_HEADERS = ("content-type", "retry-after", "location")
_SECRET_NAME = re.compile(r"token|secret|passw|authoriz|api[-_]?key|credential|cookie|jwt|(?:^|[-_])(?:ks|auth|signature)$", re.IGNORECASE)
_SECRET_LOOKS = re.compile(r"\beyJ[\w-]+(?:\.[\w-]+)+|(?<=[?&]t=)[^&\s\"']+|(?<=Bearer )[\w.~+/=-]+|djJ8[\w-]{20,}={0,2}")
_MARK = re.compile(r" \[playbook [0-9a-f]{12}\]")
"""What the session journal has a provider add to a session's name, so as to find it: every run's own, and no part of what is asked."""
_EVENTS: Mapping[str, type] = {event.__name__: event for event in get_args(RoomEvent)}


class CassetteMiss(ProviderError):
    """The cassette has no answer to what is asked."""


class Cassette:
    """One cassette, for one run. `redact` hides what the run seals; set it to the run's own as soon as there is one.

    Raises `RecordError` when the file is no cassette, is damaged or has expired, `SetupError` when it is not there and must be.
    """

    def __init__(
        self, path: Path, mode: Mode = "none", *, provider: str = "", playbook: str = "", expires: datetime.date | None = None
    ) -> None:
        self.path, self.mode = path, mode
        self.redact: Callable[[str], str] = str
        self._header: Line = {"cassette": VERSION, "provider": provider, "playbook": playbook}
        self._expires = expires
        self._exchanges: list[Line] = []
        self._used: set[int] = set()
        self._rooms: dict[int, list[Line]] = {}
        self._played: list[_PlayedRoom] = []
        self._room_count = 0
        self._clock: Clock | None = None
        self._out: Any = None
        self._part = path.with_name(path.name + ".part")
        there = path.exists()
        if mode == "none" and not there:
            raise SetupError(f"there is no cassette {path}", remedy="record one with `playbook run FILE --record CASSETTE`")
        if mode != "all" and there:
            self._load()
        self.recording = self.mode in ("all", "new_episodes") or (mode == "once" and not there)
        """Whether anything can be recorded, and so whether the real provider may be asked."""

    # --- in place of the transports -------------------------------------------------------------------------------------

    def extras(self, beside: Mapping[str, Any]) -> dict[str, Any]:
        """The stand-ins for a run, in front of those that it has already."""

        def wrap(send: Send) -> Send:
            outer = beside.get("http")
            return self.http(outer(send) if outer is not None else send)

        def room(on_event: OnEvent, make: MakeRoom) -> Room:
            outer = beside.get("room")
            return self.room(on_event, make if outer is None else lambda heard: outer(heard, make))

        return {**beside, "cassette": self, "http": wrap, "room": room}  # a transport that cannot be taped refuses when it sees one

    def http(self, send: Send) -> Send:
        """A `Send` that plays, or asks `send` and records."""

        async def taped(request: Request) -> Answer:
            asked = self._clean(_request_to_data(request))
            line = self._find(asked)
            if line is not None:
                return await self._play(line)
            if not self.recording:
                raise self._miss(asked)
            return await self._tape(asked, request, send)

        return taped

    def room(self, on_event: OnEvent, make: MakeRoom) -> Room:
        """A `Room` that plays, or one made by `make` that is recorded."""
        self._room_count += 1
        number = self._room_count
        if number in self._rooms:
            room = _PlayedRoom(self, on_event, self._rooms[number], self._anchors())
            self._played.append(room)
            return room
        if not self.recording:
            raise CassetteMiss(f"{self.path.name} has no room number {number}", remedy=_REMEDY)
        return _TapedRoom(self, number, on_event, make)

    # --- HTTP -----------------------------------------------------------------------------------------------------------

    def _find(self, asked: Line) -> Line | None:
        for index, line in enumerate(self._exchanges):
            if index not in self._used and line["http"] == asked:
                self._used.add(index)
                return line
        return None

    def _anchors(self) -> list[Line]:
        """The requests from which things follow in a room: those that change something and are made once (a keep-alive is neither)."""
        asked = [(line["http"]["method"], line["http"]["path"]) for line in self._exchanges]
        return [line for line, what in zip(self._exchanges, asked, strict=True) if what[0] != "GET" and asked.count(what) == 1]

    async def _play(self, line: Line) -> Answer:
        for room in self._played:
            room.asked(line)
        clock = Clock()
        await clock.sleep_until(line["took_ms"])
        if "failure" in line:
            failure = line["failure"]
            raise NetworkError(failure["message"], outcome=failure["outcome"], passing=failure.get("passing", True))
        return _answer_from_data(line["answer"])

    async def _tape(self, asked: Line, request: Request, send: Send) -> Answer:
        at_ms = self.now_ms()
        line: Line = {"at_ms": at_ms, "http": asked}
        try:
            answer = await send(request)
        except NetworkError as error:
            failure = {"message": error.message, "outcome": error.outcome, "passing": error.passing}
            self.write({**line, "took_ms": self.now_ms() - at_ms, "failure": failure})
            raise
        self.write({**line, "took_ms": self.now_ms() - at_ms, "answer": _answer_to_data(answer)})
        return answer

    def _miss(self, asked: Line) -> CassetteMiss:
        what = f"{asked['method']} {asked['path']}"
        if not self._exchanges:
            return CassetteMiss(f"{self.path.name} has no answer to {what}: it has no request at all", remedy=_REMEDY)
        mine = _flat(asked)
        index, nearest = max(
            enumerate(self._exchanges), key=lambda item: (_likeness(mine, _flat(item[1]["http"])), item[0] not in self._used)
        )
        theirs = _flat(nearest["http"])
        differences = [
            f"  {name}: recorded {_short(theirs.get(name))}, asked {_short(mine.get(name))}"
            for name in dict.fromkeys([*theirs, *mine])
            if theirs.get(name) != mine.get(name)
        ]
        if not differences:
            used = "it was recorded once, and has been used" if index in self._used else "the same"
            differences = [f"  {used}"]
        place = f"line {nearest['line']}" if "line" in nearest else "nearest"
        text = "\n".join([f"{self.path.name} has no answer to {what}; the nearest is {place}:", *differences[:12]])
        return CassetteMiss(text, remedy=_REMEDY)

    # --- the file -------------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Since the recording (or the playing) began."""
        if self._clock is None:
            self._clock = Clock()
        return self._clock.now_ms()

    def write(self, line: Line) -> None:
        """Record one line, without its secrets. The file is there from the first line on."""
        if self._out is None:
            self._begin()
        self._put(self._clean(line))

    def close(self) -> None:
        """Put what was recorded in its place. Nothing recorded: nothing changes."""
        if self._out is None:
            return
        self._out.close()
        self._out = None
        text = self._part.read_text("utf-8")
        clean = "".join(_encode(self._clean(json.loads(line))) for line in text.splitlines())
        if clean != text:  # something was sealed after it had been written
            self._part.write_text(clean, "utf-8")
        os.replace(self._part, self.path)

    def __enter__(self) -> Cassette:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        header = {key: value for key, value in self._header.items() if value != ""}
        header["recorded_at"] = wall_time().isoformat(timespec="seconds")
        if self._expires is not None:
            header["expires"] = self._expires.isoformat()
        try:
            self._out = open(self._part, "w", encoding="utf-8")  # noqa: SIM115  # closed by `close`
        except OSError as error:
            raise SetupError(f"the cassette {self.path} cannot be written: {error.strerror}") from error
        self._put(header)
        for line in sorted([*self._exchanges, *(line for room in self._rooms.values() for line in room)], key=lambda line: line["line"]):
            self._put({key: value for key, value in line.items() if key != "line"})

    def _put(self, line: Line) -> None:
        try:
            self._out.write(_encode(line))
            self._out.flush()
        except OSError as error:
            raise SetupError(f"the cassette {self.path} cannot be written: {error.strerror}") from error

    def _load(self) -> None:
        test, lines = _test(), 0
        for number, line in self._read():
            lines += 1
            if number == 1 and (not isinstance(line, dict) or "cassette" not in line):
                raise RecordError(f"{self.path} is not a cassette", remedy="a cassette begins with a line that has 'cassette'")
            if number == 1 and isinstance(line["cassette"], int) and line["cassette"] > VERSION:
                raise RecordError(
                    f"{self.path} is a cassette of version {line['cassette']}; this program reads up to {VERSION}", remedy="update playbook"
                )
            if not test(line) or ("cassette" in line) != (number == 1):
                raise RecordError(f"{self.path}: line {number} is not one of a cassette", remedy="mend it by hand, or record it anew")
            if "http" in line and ("answer" in line) == ("failure" in line):
                raise RecordError(f"{self.path}: line {number} needs an answer or a failure", remedy="mend it by hand, or record it anew")
            if number == 1:
                self._header |= {key: value for key, value in line.items() if key not in ("recorded_at", "expires")}
                self._check_expiry(line)
                if self.mode == "all":  # it has expired
                    return
            elif "http" in line:
                if "answer" in line:
                    _answer_from_data(line["answer"])
                self._exchanges.append({**line, "line": number})
            else:
                if "on" in line:
                    _event_from_data(line["on"], line.get("event", {}))
                self._rooms.setdefault(line["room"], []).append({**line, "line": number})
        if not lines:
            raise RecordError(f"{self.path} is empty")

    def _read(self) -> Iterator[tuple[int, Any]]:
        try:
            text = self.path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecordError(f"{self.path} cannot be read: {error}") from error
        for number, raw in enumerate(text.splitlines(), 1):
            if not raw.strip():
                continue
            try:
                yield number, json.loads(raw)
            except (ValueError, RecursionError) as error:
                raise RecordError(
                    f"{self.path}: line {number} is not JSON: {error}", remedy="mend it by hand, or record it anew"
                ) from error

    def _check_expiry(self, header: Line) -> None:
        if "expires" not in header:
            return
        try:
            day = datetime.date.fromisoformat(header["expires"])
        except ValueError as error:
            raise RecordError(f"{self.path}: {header['expires']} is no date") from error
        if wall_time().date() < day:
            return
        if self.mode != "none":  # what is no longer believed is recorded anew
            self.mode = "all"
            return
        raise RecordError(f"{self.path} has expired on {day}", remedy="record it anew with `--record` and `--record-mode all`")

    def _clean(self, value: Any, name: str = "") -> Any:
        """Data as it may be written."""
        if isinstance(value, Mapping):
            return {self.redact(str(key)): self._clean(each, str(key)) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._clean(each, name) for each in value]
        if isinstance(value, str):
            if _SECRET_NAME.search(name) and value:
                return MASK
            return _SECRET_LOOKS.sub(MASK, _MARK.sub("", self.redact(value)))
        return value


_REMEDY = "record it anew with `--record` (and `--record-mode new_episodes` to keep what there is)"


def _encode(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(", ", ": ")).encode("utf-8", "backslashreplace").decode() + "\n"


def _test() -> Callable[[Any], bool]:
    schema = load_schema("cassette.schema.json")
    return compile_schema(schema, schema, templates=False)


def _request_to_data(request: Request) -> Line:
    """A request as it is written and compared: without what is not there."""
    data: Line = {"method": request.method, "path": request.path}
    if request.params:
        data["params"] = dict(request.params)
    if request.headers:
        data["headers"] = dict(request.headers)
    if request.json is not None:
        data["json"] = json.loads(json.dumps(request.json))
    if request.data is not None:
        data["form"] = dict(request.data)
    if request.files is not None:
        data["files"] = {name: f"{file}, {kind}, {_digest(content)}" for name, (file, content, kind) in request.files.items()}
    if request.content is not None:
        try:
            data["text"] = request.content.decode()
        except UnicodeDecodeError:
            data["bytes"] = _digest(request.content)
    return data


def _digest(content: bytes) -> str:
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"


def _answer_to_data(answer: Answer) -> Line:
    headers = {name: answer.headers[name] for name in _KEPT_HEADERS if name in answer.headers}
    data: Line = {"status": answer.status} | ({"headers": headers} if headers else {})
    if not answer.body:
        return data
    value = answer.json()
    if value is not None:
        return data | {"json": value}
    try:
        return data | {"text": answer.body.decode()}
    except UnicodeDecodeError:
        return data | {"base64": base64.b64encode(answer.body).decode()}


def _answer_from_data(data: Line) -> Answer:
    if "json" in data:
        body = json.dumps(data["json"], ensure_ascii=False).encode("utf-8", "surrogatepass")
    elif "base64" in data:
        try:
            body = base64.b64decode(data["base64"], validate=True)
        except ValueError as error:
            raise RecordError(f"an answer in the cassette is not base64: {error}") from error
    else:
        body = data.get("text", "").encode()
    return Answer(data["status"], data.get("headers", {}), body)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested data as paths and plain values."""
    if isinstance(value, Mapping):
        return {path: each for key, below in value.items() for path, each in _flat(below, f"{name}.{key}" if name else str(key)).items()}
    if isinstance(value, list):
        return {path: each for index, below in enumerate(value) for path, each in _flat(below, f"{name}.{index}").items()}
    return {name: value}


def _likeness(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """How near two requests are: the share of equal parts, and how alike the others are. Method and path weigh most."""
    weight = {"method": 2.0, "path": 4.0}
    names = a.keys() | b.keys()
    score = 0.0
    for name in sorted(names):
        left, right = a.get(name), b.get(name)
        same = (
            1.0
            if left == right
            else 0.5 * SequenceMatcher(None, str(left)[:200], str(right)[:200]).ratio()
            if name in a and name in b
            else 0
        )
        score += weight.get(name, 1.0) * same
    return score / sum(weight.get(name, 1.0) for name in names)


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "…"


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


class _TapedRoom:
    """A real room, recorded."""

    def __init__(self, cassette: Cassette, number: int, on_event: OnEvent, make: MakeRoom) -> None:
        self._cassette, self._number = cassette, number
        self._on_event = on_event
        self._room = make(self._happened)
        self._sent = 0

    def _happened(self, event: RoomEvent) -> None:
        self._write(on=type(event).__name__, event=_event_to_data(event))
        self._on_event(event)

    def _write(self, **facts: Any) -> None:
        self._cassette.write({"at_ms": self._cassette.now_ms(), "room": self._number, **facts})

    async def open(self, door: Door) -> str:
        began = self._cassette.now_ms()
        self._write(do="open")  # when it begins, because what happens meanwhile follows from it
        try:
            ours = await self._room.open(door)
        except RoomFailure as error:
            self._write(on="open", event={"took_ms": self._cassette.now_ms() - began, "failure": _failure_to_data(error)})
            raise
        self._write(on="open", event={"took_ms": self._cassette.now_ms() - began, "participant": ours})
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
        self._write(do="play", clip=clip, bytes=_digest(pcm), final=final)
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


class _PlayedRoom:
    """A recorded room. Each thing we do must be the next that was recorded; what followed from it then follows again. What followed from
    a request (`anchors`), such as the end of the room, waits until that has been made."""

    def __init__(self, cassette: Cassette, on_event: OnEvent, lines: list[Line], anchors: list[Line]) -> None:
        self._cassette, self._on_event, self._lines, self._anchors = cassette, on_event, lines, anchors
        self._waiting: list[tuple[Line, Line]] = []  # what waits, and for which request
        self._next = 0
        self._clock: Clock | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._joined: asyncio.Future[str] | None = None
        self._refused = {line["event"]["n"] for line in lines if line.get("on") == "sent"}
        self._sends: list[asyncio.Future[None]] = []
        self._closed = False

    def _do(self, do: str, **facts: Any) -> None:
        """Match what we do with the recording, and let happen what happened after it."""
        self._clock = self._clock or Clock()
        done = self._cassette._clean({"do": do, **facts})
        while self._next < len(self._lines) and "on" in self._lines[self._next]:
            self._next += 1
        line = self._lines[self._next] if self._next < len(self._lines) else None
        recorded = None if line is None else {key: value for key, value in line.items() if key not in ("at_ms", "room", "line")}
        if line is None or recorded != done:
            raise self._miss(done, line, recorded)
        self._next += 1
        now = self._clock.now_ms()
        for after in self._lines[self._next :]:
            if "do" in after:
                break
            between = [
                anchor for anchor in self._anchors if line["at_ms"] <= anchor["at_ms"] <= after["at_ms"] and anchor["line"] > line["line"]
            ]
            if between:
                self._waiting.append((between[-1], after))
            else:
                self._at(now + after["at_ms"] - line["at_ms"], after)

    def asked(self, request: Line) -> None:
        """A recorded request is made again: what followed from it follows."""
        for anchor, after in self._waiting:
            if anchor is request and self._clock is not None:
                self._at(self._clock.now_ms() + after["at_ms"] - anchor["at_ms"], after)

    def _miss(self, done: Line, line: Line | None, recorded: Line | None) -> CassetteMiss:
        if line is None or recorded is None:
            return CassetteMiss(f"{self._cassette.path.name} ends before this: {_short(done)}", remedy=_REMEDY)
        mine, theirs = _flat(done), _flat(recorded)
        differences = [
            f"  {name}: recorded {_short(theirs.get(name))}, done {_short(mine.get(name))}"
            for name in dict.fromkeys([*theirs, *mine])
            if theirs.get(name) != mine.get(name)
        ]
        return CassetteMiss(
            "\n".join([f"the room in {self._cassette.path.name} went on differently at line {line['line']}:", *differences]), remedy=_REMEDY
        )

    def _at(self, due_ms: int, line: Line) -> None:
        assert self._clock is not None
        handle = self._clock.call_at(due_ms, lambda: self._happens(line))
        self._timers.add(handle)

    def _happens(self, line: Line) -> None:
        if self._closed:
            return
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
        self._do("play", clip=clip, bytes=_digest(pcm), final=final)

    def cut(self) -> None:
        self._do("cut")

    async def close(self) -> None:
        """Leave. That the recording was left elsewhere is no reason not to."""
        with suppress(CassetteMiss):
            self._do("close")
        self._closed = True
        for timer in self._timers:
            timer.cancel()
