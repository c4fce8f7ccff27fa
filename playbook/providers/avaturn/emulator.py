"""Avaturn Live on this machine: its REST calls, the private calls of its web SDK, and the caller of the external engine.

Documented, and kept to: the calls, their success codes, the shape of refusals, which fields there are and their ranges, a queue that is
spoken in order and only while somebody watches, an end at once by DELETE, absence and duration timers, the protocol of the external engine
and that its socket is dialled once and never again (https://docs.avaturn.live/llms.txt lists the pages).

Not documented, so each is a choice of ours: an unknown or ended session is a 404 everywhere, also for a second DELETE; an empty text is
accepted; a phrase that was being said when the last viewer left begins anew when the next one comes; a `phrase_id` is the task's id; a
session whose `url` cannot be reached ends at once; lines for the engines that ignore them are accepted. What else is a choice is an option.

There is no media: what a viewer would see and what its SDK would be told stands in the journal (`viewer_event`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from playbook.emulators import options
from playbook.emulators.base import Emulator, LiveSession
from playbook.emulators.faults import SLOW_MS, Chosen
from playbook.emulators.speech import LATENCY_MS, MS_PER_CHARACTER, TAIL_MS, Sighting
from playbook.speech.audio import to_ms
from playbook.transports.http import is_loopback

RATE = 24_000
BEGIN_MS = 120
"""How much sound of a segment must be there before the avatar begins with it."""
PING_S, PONG_S = 75, 30
MICROPHONE_MS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(options.Options):
    """How Avaturn behaves. `voices` and `retired` are parted by commas; where nothing narrows what is taken, any key and voice is good."""

    key: str = ""
    """The one that is good."""
    voices: str = ""
    """Those that there are."""
    retired: str = ""
    """Avatars that are not there any more."""
    socket: Literal["faithful", "absent", "stranger", "drops", "babbles", "pairs"] = "faithful"
    """How the caller of the external engine behaves. `stranger`: without the headers that it was given; `drops`: hangs up in the middle of
    the first segment; `babbles`: says what is not documented or not JSON; `pairs`: reports an interrupted segment as ended, too."""
    microphone: bool = False
    """Whether that caller sends one."""
    quota: Literal["refuse", "browser"] = "refuse"
    """When the quota is used up: 429, or the documented way, which tells nobody but the first viewer."""
    latency_ms: int = LATENCY_MS
    tail_ms: int = TAIL_MS
    ms_per_character: int = MS_PER_CHARACTER
    """How soon the avatar begins, how long it is not quiet afterwards, and how fast it speaks."""


class AvaturnSession(LiveSession):
    """One session, of whichever engine."""

    emulator: AvaturnEmulator

    def __init__(self, emulator: AvaturnEmulator, id: str, wanted: Mapping[str, Any], **voice: int) -> None:
        self.engine: Mapping[str, Any] = wanted.get("conversation_engine") or {"type": "text-echo"}
        self.kind: str = self.engine["type"]
        self.token = emulator.seal(secrets.token_urlsafe(24))
        self.segments: dict[str, str] = {}
        """Of the external engine: the caller's names for our segments."""
        self.broke = False
        """The quota is used up, which only a viewer is told."""
        self._open: str | None = None
        self._void = False  # the open segment was interrupted: what still comes for it is nobody's
        self._bytes = 0
        self._outbox: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        super().__init__(
            emulator,
            id,
            max_ms=wanted.get("max_duration", 3600) * 1000,
            absent_ms=wanted.get("user_absent_timeout", 60) * 1000,
            needs_viewer=True,
            start_on=BEGIN_MS if self.kind == "external" else None,
            **voice,
        )

    def connect_viewer(self) -> None:
        super().connect_viewer()
        if self.broke:
            self.emulator.note("viewer_event", session=self.id, type="error", code="limits_exceeded")
            self.end("limits_exceeded")

    def tell(self, sighting: Sighting) -> None:
        if self.kind == "external":
            self._report(sighting)
        else:
            wrong = self.emulator.faults.hits("wrong-id", *sighting.utterance.names)
            phrase = "task-unknown" if wrong else sighting.utterance.task
            self.emulator.note("viewer_event", session=self.id, type=f"avatar_{sighting.kind}_speaking_phrase", phrase_id=phrase)

    def on_end(self, reason: str) -> None:  # noqa: ARG002 -- nobody is told why
        self._outbox.put_nowait(None)

    # the external engine

    async def dial(self) -> None:
        """Connect to the backend, once, and serve it until one of us hangs up."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidHandshake

        url, behaviour = self.engine["url"], self.emulator.options.socket
        if behaviour == "absent":
            return
        if not is_loopback(urlsplit(url).hostname or ""):
            self.emulator.note("dial_refused", session=self.id, reason="an emulator calls nobody outside of this machine")
            self.end("socket")
            return
        headers = {} if behaviour == "stranger" else self.engine.get("headers") or {}
        try:
            async with connect(
                url,
                additional_headers=headers,
                user_agent_header=None,
                compression=None,
                proxy=None,
                ping_interval=PING_S,
                ping_timeout=PONG_S,
            ) as socket:
                self.emulator.note("socket_opened", session=self.id)
                writer = asyncio.ensure_future(self._write(socket))
                try:
                    await self._read(socket)
                finally:
                    writer.cancel()
                    await asyncio.wait([writer])
        except (OSError, TimeoutError, InvalidHandshake) as error:
            self.emulator.note("dial_failed", session=self.id, reason=str(error))
        self.end("socket")

    async def _read(self, socket: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            if self.emulator.options.socket == "babbles":
                self._babble()
            if self.emulator.options.microphone:
                self._listen()
            async for message in socket:
                if isinstance(message, str):
                    self._command(message)
                else:
                    self._sound(message)
                    if self.emulator.options.socket == "drops":
                        socket.transport.abort()

    async def _write(self, socket: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            while (message := await self._outbox.get()) is not None:
                await socket.send(message)
            await socket.close()

    def _say(self, type: str, **fields: Any) -> None:
        if self.alive:
            self._outbox.put_nowait(json.dumps({"type": type, **fields}))

    def _complain(self, subtype: str, reason: str) -> None:
        self._say("error", subtype=subtype, reason=reason)

    def _command(self, text: str) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            self._complain("json.parsing.error", "a text frame must hold JSON")
            return
        if not isinstance(message, dict):
            self._complain("message.type.error", "a message is a JSON object")
            return
        self.emulator.note("message", session=self.id, **{key: message[key] for key in ("type", "segment_uid", "data") if key in message})
        command, uid = _COMMANDS.get(str(message.get("type"))), message.get("segment_uid")
        if command is None:
            self._complain("message.type.error", f"unknown message type {message.get('type')!r}")
        elif command in (AvaturnSession._create, AvaturnSession._close) and not isinstance(uid, str):
            self._complain("message.type.error", "segment_uid: a string is required")
        else:
            command(self, uid or "")

    def _create(self, uid: str) -> None:
        if self._open is not None:
            self._complain("avatar.speech.segment.error", "a segment is open already")
            return
        self._open, self._void, self._bytes = uid, False, 0
        segment = self.segments[uid] = f"seg-{self.queue.count + 1}"
        line = uid.partition("#")[0]  # whoever calls the segments of one line `x`, `x#2` and so on may let a fault strike the line
        names = self.queue.line(uid, of=line).names
        self.queue.add(uid, duration_ms=0, final=False, of=line)
        delay_ms = SLOW_MS if self.emulator.faults.hits("slow-accept", *names) else 0
        self._later(delay_ms, lambda: self._say("avatar.speech.segment.created", segment_id=segment, segment_uid=uid))

    def _sound(self, pcm: bytes) -> None:
        if self._open is None:
            self._complain("avatar.speech.segment.error", "sound outside of a segment")
        elif not self._void:
            before_ms = _ms(self._bytes)
            self._bytes += len(pcm)
            self.queue.add(self._open, duration_ms=_ms(self._bytes) - before_ms, final=False)

    def _close(self, uid: str) -> None:
        if uid != self._open:
            self._complain("avatar.speech.segment.error", "no such segment is open")
            return
        self._open = None
        if not self._void:
            self.queue.close(uid)
        self._say("avatar.speech.segment.closed", segment_id=self.segments[uid], segment_uid=uid)

    def _interrupt(self, _: str) -> None:
        hit = self.queue.interrupt()
        self._void = self._void or any(line.task == self._open for line in hit)

    def _forward(self, _: str) -> None:
        """A message for the viewer's page; the journal has it."""

    def _report(self, sighting: Sighting) -> None:
        line = sighting.utterance
        wrong = self.emulator.faults.hits("wrong-id", *line.names)
        ids = {"segment_id": "seg-unknown" if wrong else self.segments[line.task], "segment_uid": "unknown" if wrong else line.task}
        timestamp = (self.clock.now_ms() - self.created_ms) / 1000
        if sighting.interrupted:
            self._say("avatar.speech.segment.playback.interrupted", **ids, played_duration=sighting.heard_ms / 1000)
        if not sighting.interrupted or self.emulator.options.socket == "pairs":
            self._say(f"avatar.speech.segment.playback.{sighting.kind}", **ids, timestamp=timestamp)

    def _babble(self) -> None:
        for message in ({"type": "avatar.mood.changed", "mood": "good"}, {"no": "type"}, ["a list"], {"type": 7}, None):
            self._outbox.put_nowait(json.dumps(message))
        self._outbox.put_nowait("this is not JSON")
        self._outbox.put_nowait("[" * 100_000)
        unknown = {"segment_id": "seg-999", "segment_uid": 999, "played_duration": "long", "timestamp": None, "extra": {}}
        self._outbox.put_nowait(json.dumps({"type": "avatar.speech.segment.created", **unknown}))
        self._complain("made.up.error", "something that no document mentions")

    def _listen(self) -> None:
        """Send the visitor's microphone: silence, for ever."""
        if self.alive:
            rate = ((self.engine.get("audio") or {}).get("user") or {}).get("sample_rate", RATE)
            self._outbox.put_nowait(bytes(2 * rate * MICROPHONE_MS // 1000))
            self._later(MICROPHONE_MS, self._listen)

    def _later(self, after_ms: int, do: Callable[[], None]) -> None:
        if after_ms:
            self.clock.call_at(self.clock.now_ms() + after_ms, do)
        else:
            do()


_NO_REQUESTS = frozenset({"rate-limit", "flap", "half-body"})
"""Faults of requests; lines for the external engine are none."""
_NO_REPORTS = frozenset({"end-missing", "end-early", "end-late", "end-twice", "start-missing", "wrong-id"})
"""Faults of reports; the other engines tell only the viewer's page."""

_COMMANDS: dict[str, Callable[[AvaturnSession, str], None]] = {
    "avatar.speech.segment.create": AvaturnSession._create,
    "avatar.speech.segment.close": AvaturnSession._close,
    "avatar.speech.interrupt": AvaturnSession._interrupt,
    "sdk.message.send": AvaturnSession._forward,
}


class AvaturnEmulator(Emulator):
    """Avaturn's rules."""

    name = "avaturn"
    options_type = Options
    options: Options

    @classmethod
    def impossible(cls, settings: Mapping[str, Any]) -> frozenset[str]:
        external = (settings.get("conversation_engine") or {}).get("type") == "external"
        return cls.never | (_NO_REQUESTS if external else _NO_REPORTS)

    def __init__(self, *, faults: Iterable[Chosen | str] = (), **given: Any) -> None:
        super().__init__(faults=faults, **given)
        own = self.options
        self._voices = frozenset(filter(None, own.voices.split(",")))
        self._retired = frozenset(filter(None, own.retired.split(",")))
        self._voice = {"latency_ms": own.latency_ms, "tail_ms": own.tail_ms, "ms_per_character": own.ms_per_character}
        self._dialling: set[asyncio.Task[None]] = set()

    def routes(self) -> Sequence[BaseRoute]:
        return [
            Route("/api/v1/sessions", self._create, methods=["POST"]),
            Route("/api/v1/sessions/{id}", self._terminate, methods=["DELETE"]),
            Route("/api/v1/sessions/{id}/tasks", self._task, methods=["POST"]),
            Route("/_sdk/v0/sessions", self._sdk_session, methods=["GET"]),
            Route("/_sdk/v0/sessions/start_stream", self._sdk_nothing, methods=["POST"]),
            Route("/_sdk/v0/sessions/tasks", self._sdk_task, methods=["POST"]),
            Route("/_sdk/v0/sessions/cancel_all_speech_tasks", self._sdk_cancel, methods=["POST"]),
            Route("/_sdk/v0/sessions/config", self._sdk_config, methods=["PATCH"]),
        ]

    def refusal(self, status: int, text: str) -> Response:
        return JSONResponse({"detail": text}, status)

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            for task in (tasks := list(self._dialling)):
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    # the public calls

    async def _create(self, request: Request) -> Response:
        if (refused := self._authorized(request)) is not None:
            return refused
        wanted, wrong = await _body(request, _SESSION, default={})
        if wrong:
            return _unprocessable(wrong)
        avatar = wanted.get("avatar_id", "jane_20240829")
        voice = ((wanted.get("conversation_engine") or {}).get("tts") or {}).get("voice_id")
        if avatar in self._retired:
            return self.refusal(410, f"Avatar {avatar} is no longer available")
        if voice is not None and self._voices and voice not in self._voices:
            return self.refusal(400, f"Invalid voice_id {voice}")
        used_up = self.quota_used_up()
        if used_up and self.options.quota == "refuse":
            return self.quota()
        session = AvaturnSession(self, f"sess-{self.created + 1}", wanted, **self._voice)
        session.broke = used_up
        self.admit(session)
        if session.kind == "external":
            task = asyncio.ensure_future(session.dial())
            self._dialling.add(task)
            task.add_done_callback(self._dialled)
        return JSONResponse({"session_id": session.id, "token": session.token})

    async def _terminate(self, request: Request) -> Response:
        if (refused := self._authorized(request)) is not None:
            return refused
        session = self._session(request)
        if session is None:
            return self.refusal(404, "Session not found")
        session.end("deleted")
        return JSONResponse(None)

    async def _task(self, request: Request) -> Response:
        if (refused := self._authorized(request)) is not None:
            return refused
        return await self._speak(self._session(request), request)

    async def _speak(self, session: AvaturnSession | None, request: Request) -> Response:
        wanted, wrong = await _body(request, _TASK)
        if wrong:
            return _unprocessable(wrong)
        if session is None:
            return self.refusal(404, "Session not found")
        task, text = f"task-{session.queue.count + 1}", wanted["text"]

        def accept() -> Response:
            if session.kind == "text-echo":
                session.queue.add(task, text=text)
            else:
                self.note("line_ignored", session=session.id, engine=session.kind, text=text)
            return JSONResponse({"task_id": task})

        return await self.take(session, session.queue.line(task, text), accept)

    # the private calls of the vendor's SDK, which brings the token that a viewer was given

    async def _sdk_session(self, request: Request) -> Response:
        session = self._by_token(request)
        if session is None:
            return self.refusal(401, "Invalid session token")
        return JSONResponse(
            {
                "id": session.id,
                "room_url": f"{self.url}/_emulator/",  # there is no media
                "limited_access_token": session.token,
                "session_config": {"uses_stacked_alpha": False},
            }
        )

    async def _sdk_nothing(self, request: Request) -> Response:
        return self.refusal(401, "Invalid session token") if self._by_token(request) is None else JSONResponse(None)

    async def _sdk_task(self, request: Request) -> Response:
        session = self._by_token(request)
        return self.refusal(401, "Invalid session token") if session is None else await self._speak(session, request)

    async def _sdk_cancel(self, request: Request) -> Response:
        session = self._by_token(request)
        if session is None:
            return self.refusal(401, "Invalid session token")
        session.queue.interrupt()
        return JSONResponse(None)

    async def _sdk_config(self, request: Request) -> Response:
        session = self._by_token(request)
        if session is None:
            return self.refusal(401, "Invalid session token")
        wanted, wrong = await _body(request, _CONFIG)
        if wrong:
            return _unprocessable(wrong)
        session.engine = wanted["conversation_engine"]
        session.queue.interrupt()
        return JSONResponse(None)

    # who asks, for what

    def _authorized(self, request: Request) -> Response | None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        good = scheme.lower() == "bearer" and key and key == (self.options.key or key)
        return None if good else self.refusal(401, "Invalid or missing API key")

    def _session(self, request: Request) -> AvaturnSession | None:
        session = self.sessions.get(request.path_params["id"])
        return session if session is not None and session.alive else None

    def _by_token(self, request: Request) -> AvaturnSession | None:
        token = request.headers.get("x-session-token", "")
        return next((session for session in self.open_sessions if session.token == token), None)

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dialling.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crash = self._crash or error


# --- what a request may hold: the vendor's fields and its words for what is wrong with them ------------------------------

Loc = tuple[str, ...]
Wrong = dict[str, Any]
Check = Callable[[Loc, Any], Iterator[Wrong]]


def _wrong(loc: Loc, message: str, type: str) -> Wrong:
    return {"loc": list(loc), "msg": message, "type": type}


def _text(loc: Loc, value: Any) -> Iterator[Wrong]:
    if not isinstance(value, str):
        yield _wrong(loc, "Input should be a valid string", "string_type")


def _whole(least: int, most: int | None = None) -> Check:
    def check(loc: Loc, value: Any) -> Iterator[Wrong]:
        if not isinstance(value, int) or isinstance(value, bool):
            yield _wrong(loc, "Input should be a valid integer", "int_type")
        elif value < least:
            yield _wrong(loc, f"Input should be greater than or equal to {least}", "greater_than_equal")
        elif most is not None and value > most:
            yield _wrong(loc, f"Input should be less than or equal to {most}", "less_than_equal")

    return check


def _one_of(*allowed: Any) -> Check:
    def check(loc: Loc, value: Any) -> Iterator[Wrong]:
        if value not in allowed or isinstance(value, bool):
            yield _wrong(loc, f"Input should be {' or '.join(map(repr, allowed))}", "literal_error")

    return check


def _texts(loc: Loc, value: Any) -> Iterator[Wrong]:
    if value is not None and not isinstance(value, dict):
        yield _wrong(loc, "Input should be a valid dictionary", "dict_type")
    for key, item in (value or {}).items() if isinstance(value, dict) else ():
        yield from _text((*loc, key), item)


def _fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with these fields; others are let pass, as the vendor did."""

    def check(loc: Loc, value: Any) -> Iterator[Wrong]:
        if not isinstance(value, dict):
            yield _wrong(loc, "Input should be a valid dictionary", "dict_type")
            return
        for name in required:
            if name not in value:
                yield _wrong((*loc, name), "Field required", "missing")
        for name, item in {**required, **(optional or {})}.items():
            if name in value:
                yield from item((*loc, name), value[name])

    return check


_TEXT_ECHO = _fields({"tts": _fields({"voice_id": _text}, {"engine": _one_of("elevenlabs")})})
_ENGINES: Mapping[str, Check] = {
    "text-echo": _TEXT_ECHO,
    "openai-realtime": _fields({"client_secret": _text}),
    "cartesia": _fields({"access_token": _text, "agent_id": _text}),
    "external": _fields(
        {"url": _text},
        {"audio": _fields({}, {"user": _fields({}, {"sample_rate": _one_of(16_000, 24_000)})}), "headers": _texts},
    ),
}


def _engine(loc: Loc, value: Any) -> Iterator[Wrong]:
    if value is None:
        return
    kind = value.get("type") if isinstance(value, dict) else None
    if kind is None:
        yield _wrong(loc, "Unable to extract tag using discriminator 'type'", "union_tag_not_found")
    elif kind not in _ENGINES:
        yield _wrong(loc, f"Input tag '{kind}' does not match any of the expected tags", "union_tag_invalid")
    else:
        yield from _ENGINES[kind]((*loc, kind), value)


_SESSION = _fields(
    {},
    {
        "avatar_id": _text,
        "conversation_engine": _engine,
        "background": _one_of("transparent", "default"),
        "model": _one_of("delta", "golf"),
        "render_model": _one_of("delta", "golf"),
        "user_absent_timeout": _whole(10),
        "max_duration": _whole(60, 86_400),
    },
)
_TASK = _fields({"text": _text})
_CONFIG = _fields({"conversation_engine": _engine})


async def _body(request: Request, check: Check, default: Any = None) -> tuple[dict[str, Any], list[Wrong]]:
    """The request's JSON, and what is wrong with it."""
    raw = await request.body()
    if not raw:
        return ({}, [_wrong(("body",), "Field required", "missing")]) if default is None else (default, [])
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}, [_wrong(("body",), "JSON decode error", "json_invalid")]
    return value, list(check(("body",), value))


def _unprocessable(wrong: list[Wrong]) -> Response:
    return JSONResponse({"detail": wrong}, 422)


def _ms(size: int) -> int:
    """How long so many bytes of sound last."""
    return to_ms(size // 2, RATE)
