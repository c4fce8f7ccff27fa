"""Cassettes: what a provider answered, recorded at the transport seam and played back without a network.

A cassette is JSON lines (`schemas/cassette.schema.json`): a header, then every HTTP exchange and everything that was done and that happened
in a room or on a socket that the vendor dials (`taped`), with times since the recording began. Providers notice nothing: the cassette
stands in front of their transports (`factory.Wrapped`).

* **Secrets are removed before a line is written**: what the run has sealed, whatever goes by a name like `token`, and what looks like a
  token. What was sealed only later is removed when the cassette is closed. Until then it is written beside its final place.
* **HTTP is matched by content**, each recorded exchange is used once, in its order among equals, and takes as long as it took.
* **Rooms and sockets are matched by order.** What happened after something we did happens again as long after we do it again.
* A miss is an error that shows the nearest recorded request and what differs; nothing is ever invented. The cassette remembers its
  `misses`, so that a run fails for them even where a step was allowed to fail.

Record modes have VCR's names: `all` records everything anew; `once` plays a cassette that exists and records one that does not; `none` only
plays; `new_episodes` plays, too, and adds reads (GET) that were not recorded. It can add no more to a run: a session that was played lives
on the cassette alone, and the provider would not know it. So requests that change something must all be on the cassette, or none of them,
and then the whole run is recorded; a run that misses leaves the cassette as it was. A cassette may have a day from which on it is no longer
believed.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from playbook.clock import Clock, wall_time
from playbook.errors import MASK, RecordError, SetupError, reason_of
from playbook.formats.schema import compile_schema, load_schema
from playbook.formats.source import read_file
from playbook.record.redact import names_secret
from playbook.transports.http import Answer, NetworkError, Request, Send
from playbook.transports.listener import Dialled
from playbook.transports.room import OnEvent, Room
from playbook.transports.taped import (
    CassetteMiss,
    Line,
    MakeRoom,
    MakeSocket,
    MakeStream,
    Played,
    PlayedRoom,
    PlayedSocket,
    PlayedStream,
    TapedRoom,
    TapedSocket,
    TapedStream,
    check_event,
    differences,
    digest,
    flat,
)
from playbook.transports.whep import OnStream, Stream

__all__ = ["VERSION", "Cassette", "CassetteMiss", "Mode"]

VERSION = 1
Mode = Literal["once", "new_episodes", "none", "all"]
Kind = Literal["room", "socket", "stream"]
P = TypeVar("P", bound=Played)

MAX_BYTES = 512 * 1024 * 1024
"""A cassette that is larger is refused."""
_KEPT_HEADERS = ("content-type", "retry-after", "location")
_TOKEN = re.compile(r"\beyJ[\w.-]+|(?<=Bearer )[\w.~+/=-]+|djJ8[\w-]{20,}={0,2}")
"""A JWT, a bearer's token, a KS."""
_QUERY = re.compile(r"(?<=[?&;#])([\w.-]{1,64})=([^&\s\"'#]+)")
_USER_INFO = re.compile(r"\b([a-z][a-z0-9+.-]{1,15}://|(?:turn|stun|sip)s?:)[^/\s\"'@]{1,512}@", re.IGNORECASE)
_MARK = re.compile(r" \[playbook [0-9a-f]{12}\]")
"""What the session journal has a provider add to a session's name, so as to find it: every run's own, and no part of what is asked."""


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
        self._channels: dict[tuple[Kind, int], list[Line]] = {}
        self._played: list[Played] = []
        self._counts: dict[Kind, int] = {"room": 0, "socket": 0, "stream": 0}
        self._names: dict[str, str] = {}  # of what is another in every run
        self._clock: Clock | None = None
        self._out: Any = None
        self._begun = False
        self.misses: list[CassetteMiss] = []
        self.added = 0
        """How many lines were recorded."""
        self._part = path.with_name(path.name + ".part")
        there = path.exists()
        if mode == "none" and not there:
            raise SetupError(f"there is no cassette {path}", remedy="record one with `playbook run FILE --record CASSETTE`")
        if mode != "all" and there:
            self._load()
        self.recording = self.mode in ("all", "new_episodes") or (mode == "once" and not there)
        """Whether anything can be recorded, and so whether the real provider may be asked."""
        performed = bool(self._channels) or any(_changes(line["http"]) for line in self._exchanges)
        self.whole = self.recording and not performed
        """Whether a whole run is recorded, with a session of its own, which may be billed."""

    # --- in place of the transports -------------------------------------------------------------------------------------

    def http(self, send: Send) -> Send:
        """A `Send` that plays, or asks `send` and records."""

        async def taped(request: Request) -> Answer:
            asked = self.clean(_request_to_data(request))
            self._begun = self._begun or _changes(asked)
            line = None if self.whole and self._begun else self._find(asked)  # a session that lives is asked, also what was recorded
            if line is not None:
                return await self._play(line)
            if self.whole:
                return await self._tape(asked, request, send)
            if self.recording and not _changes(asked):
                return await self._add(asked, request, send)
            raise self._not_recorded(asked)

        return taped

    def room(self, on_event: OnEvent, make: MakeRoom) -> Room:
        """A `Room` that plays, or one made by `make` that is recorded."""
        number, lines = self._channel("room")
        if lines is not None:
            return self._plays(PlayedRoom(self, on_event, lines, self._anchors()))
        return TapedRoom(self, number, on_event, make)

    def listener(self, url: str, make: MakeSocket) -> Dialled:
        """A socket that plays, or one made by `make` that is recorded."""
        number, lines = self._channel("socket")
        if lines is not None:
            return self._plays(PlayedSocket(self, number, url, lines, self._anchors()))
        return TapedSocket(self, number, make)

    def whep(self, tell: OnStream, make: MakeStream) -> Stream:
        """A stream that plays, or one made by `make` that is recorded."""
        number, lines = self._channel("stream")
        if lines is not None:
            return self._plays(PlayedStream(self, tell, lines, self._anchors()))
        return TapedStream(self, number, tell, make)

    def _channel(self, kind: Kind) -> tuple[int, list[Line] | None]:
        """The next room or socket: its number, and what was recorded of it."""
        self._counts[kind] += 1
        number = self._counts[kind]
        lines = self._channels.get((kind, number))
        if lines is None and not self.whole:
            raise self.miss(f"{self.path.name} has no {kind} number {number}")
        return number, lines

    def _plays(self, channel: P) -> P:
        self._played.append(channel)
        return channel

    def miss(self, message: str) -> CassetteMiss:
        """Something is not on the cassette: the error to raise, which is remembered."""
        error = CassetteMiss(message, remedy=f"`--record {self.path} --record-mode all` records the run anew")
        self.misses.append(error)
        return error

    def rename(self, text: str, name: str) -> None:
        """Write `name` for `text`, which is another in every run."""
        if text:
            self._names[text] = name

    def objection(self) -> str | None:
        """Why a run has failed that came to its end, whatever its steps were allowed to: it asked for what is not here, or for nothing."""
        if not self.misses:
            recorded = not self.whole and (self._exchanges or self._channels)
            if recorded and not self._used and not self._played:
                return f"cassette: nothing of {self.path} was asked for: the provider reaches its vendor in another way"
            return None
        times = f" {len(self.misses)} times, first" if len(self.misses) > 1 else ""
        return f"cassette: {self.path} was missed{times}: {self.misses[0].message}; {self.misses[0].remedy}"

    # --- HTTP -----------------------------------------------------------------------------------------------------------

    def _find(self, asked: Line) -> Line | None:
        for index, line in enumerate(self._exchanges):
            if index not in self._used and line["http"] == asked:
                self._used.add(index)
                return line
        return None

    def _anchors(self) -> list[Line]:
        """The requests from which things follow in a room or on a socket: those that change something and are made once (a
        keep-alive is neither)."""
        asked = [(line["http"]["method"], line["http"]["path"]) for line in self._exchanges]
        return [line for line, what in zip(self._exchanges, asked, strict=True) if what[0] != "GET" and asked.count(what) == 1]

    async def _play(self, line: Line) -> Answer:
        for channel in self._played:
            channel.asked(line)
        clock = Clock()
        await clock.sleep_until(line["took_ms"])
        if "failure" in line:
            failure = line["failure"]
            raise NetworkError(failure["message"], outcome=failure["outcome"], passing=failure.get("passing", True))
        return _answer_from_data(line["answer"])

    async def _tape(self, asked: Line, request: Request, send: Send) -> Answer:
        at_ms, written = self.now_ms(), self.added
        line: Line = {"at_ms": at_ms, "http": asked}

        def heard(**what: Any) -> None:
            self.write({**line, "took_ms": self.now_ms() - at_ms, "meanwhile": self.added - written, **what})

        try:
            answer = await send(request)
        except NetworkError as error:
            heard(failure={"message": error.message, "outcome": error.outcome, "passing": error.passing})
            raise
        heard(answer=_answer_to_data(answer))
        return answer

    async def _add(self, asked: Line, request: Request, send: Send) -> Answer:
        """Ask what was not recorded. Only a good answer is one: what else is said of a session that lives on the cassette is not true."""
        at_ms = self.now_ms()
        answer = await send(request)
        if not 200 <= answer.status < 300:
            raise self._not_recorded(asked)
        self.write({"at_ms": at_ms, "http": asked, "took_ms": self.now_ms() - at_ms, "answer": _answer_to_data(answer)})
        return answer

    def _not_recorded(self, asked: Line) -> CassetteMiss:
        what = f"{asked['method']} {asked['path']}"
        if not self._exchanges:
            return self.miss(f"{self.path.name} has no answer to {what}: it has no request at all")
        mine = flat(asked)
        index, nearest = max(
            enumerate(self._exchanges), key=lambda item: (_likeness(mine, flat(item[1]["http"])), item[0] not in self._used)
        )
        found = differences(flat(nearest["http"]), mine, "asked")
        if not found:
            used = "it was recorded once, and has been used" if index in self._used else "the same"
            found = [f"  {used}"]
        place = f"line {nearest['line']}" if "line" in nearest else "nearest"
        text = "\n".join([f"{self.path.name} has no answer to {what}; the nearest is {place}:", *found[:12]])
        return self.miss(text)

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
        self._put(self.clean(line))
        self.added += 1

    def close(self) -> None:
        """Put what was recorded in its place. Nothing recorded, or something missed: nothing changes."""
        if self._out is None:
            return
        self._out.close()
        self._out = None
        if self.misses:
            self._part.unlink(missing_ok=True)
            self.added = 0
            return
        text = self._part.read_text("utf-8")
        clean = "".join(_encode(self.clean(json.loads(line))) for line in text.split("\n") if line)
        if clean != text:  # something was sealed after it had been written
            self._part.write_text(clean, "utf-8")
        mask = os.umask(0o077)
        os.umask(mask)
        self._part.chmod(0o666 & ~mask)  # what is in it now may be read, and kept in a repository
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
            # Until it is closed it may hold what is sealed only later, and it may be left there by a kill: it is for its owner alone.
            self._part.unlink(missing_ok=True)
            fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._out = open(fd, "w", encoding="utf-8")  # noqa: SIM115  # closed by `close`
        except OSError as error:
            raise SetupError(f"the cassette {self.path} cannot be written: {reason_of(error)}") from error
        self._put(header)
        recorded = [*self._exchanges, *(line for channel in self._channels.values() for line in channel)]
        for line in sorted(recorded, key=lambda line: line["line"]):
            self._put({key: value for key, value in line.items() if key not in ("line", "nth")})

    def _put(self, line: Line) -> None:
        try:
            self._out.write(_encode(line))
            self._out.flush()
        except OSError as error:
            raise SetupError(f"the cassette {self.path} cannot be written: {reason_of(error)}") from error

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
                recorded, wanted = line.get("provider"), self._header["provider"]
                if recorded and wanted and recorded != wanted:
                    raise RecordError(
                        f"{self.path} was recorded with {recorded}, and this show is for {wanted}", remedy="name its own cassette"
                    )
                self._header |= {key: value for key, value in line.items() if key not in ("cassette", "recorded_at", "expires")}
                self._check_expiry(line)
                if self.mode == "all":  # it has expired
                    return
            elif "http" in line:
                if "answer" in line:
                    _answer_from_data(line["answer"])
                self._exchanges.append({**line, "line": number, "nth": lines})
            else:
                if "on" in line:
                    check_event(line)
                kind: Kind = next(kind for kind in get_args(Kind) if kind in line)
                self._channels.setdefault((kind, line[kind]), []).append({**line, "line": number, "nth": lines})
        if not lines:
            raise RecordError(f"{self.path} is empty")

    def _read(self) -> Iterator[tuple[int, Any]]:
        try:
            text = read_file(self.path, MAX_BYTES).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecordError(f"{self.path} cannot be read: {error}") from error
        for number, raw in enumerate(text.removesuffix("\n").split("\n"), 1):
            if not raw.strip():
                continue
            try:
                yield number, json.loads(raw)
            except (ValueError, RecursionError) as error:
                if number == 1:
                    raise RecordError(
                        f"{self.path} is not a cassette", remedy="a cassette begins with a line that has 'cassette'"
                    ) from error
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

    def clean(self, value: Any, name: str = "") -> Any:
        """Data as it may be written."""
        if isinstance(value, Mapping):
            turn = {"username": "turn-user"} if "credential" in value else {}  # of a TURN server, where both let somebody in
            return {self.redact(str(key)): self.clean(each, turn.get(str(key), str(key))) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.clean(each, name) for each in value]
        if isinstance(value, str):
            if value and names_secret(name):
                return MASK
            for text, known_as in self._names.items():
                value = value.replace(text, known_as)
            return _without_tokens(_MARK.sub("", self.redact(value)))
        return value


def _without_tokens(text: str) -> str:
    """A text without what lets somebody in by the look of it: tokens, and what an address has of them."""

    def value(match: re.Match[str]) -> str:
        return f"{match[1]}={MASK}" if match[1] == "t" or names_secret(match[1]) else match[0]

    return _USER_INFO.sub(rf"\1{MASK}@", _QUERY.sub(value, _TOKEN.sub(MASK, text)))


def _changes(asked: Line) -> bool:
    """Whether a request changes something: a session is created, spoken through or ended."""
    return asked["method"] not in ("GET", "HEAD")


def _encode(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(", ", ": ")).encode("utf-8", "backslashreplace").decode() + "\n"


def _test() -> Callable[[Any], bool]:
    return compile_schema(load_schema("cassette.schema.json"))


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
        data["files"] = {name: f"{file}, {kind}, {digest(content)}" for name, (file, content, kind) in request.files.items()}
    if request.content is not None:
        try:
            data["text"] = request.content.decode()
        except UnicodeDecodeError:
            data["bytes"] = digest(request.content)
    return data


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
