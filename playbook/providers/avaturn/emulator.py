"""Avaturn Live on this machine: its REST calls, the private calls of its web SDK, and the caller of the external engine.

Documented, and kept to: the calls, their success codes, the shape of refusals, which fields there are and their ranges, a queue that is
spoken in order and only while somebody watches, an end at once by DELETE, absence and duration timers, the protocol of the external engine
and that its socket is dialled once and never again (https://docs.avaturn.live/llms.txt lists the pages).

Not documented, so each is a choice of ours: an unknown or ended session is a 404 everywhere, also for a second DELETE; an empty text is
accepted; a phrase that was being said when the last viewer left begins anew when the next one comes; a `phrase_id` is the task's id; a
session whose `url` cannot be reached ends at once; lines for the engines that ignore them are accepted. What else is a choice is an option.

A session has a room, whose address the SDK's own call gives: whoever enters it with the session's token watches, and is told of speech by
the messages that the vendor's SDK reads (fact: their names and fields; choice: their order and gaps). The journal has them, too
(`viewer_event`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from playbook.emulators import options
from playbook.emulators.base import Emulator
from playbook.emulators.faults import Chosen
from playbook.emulators.room import Guest, serve_rooms
from playbook.emulators.speech import LATENCY_MS, MS_PER_CHARACTER, TAIL_MS
from playbook.providers.avaturn.emulator_requests import CONFIG, SESSION, TASK, read_body, unprocessable
from playbook.providers.avaturn.emulator_session import HTTP_ERROR, AvaturnSession


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
    sdk: Literal["works", "withdrawn", "roomless"] = "works"
    """The private calls of the vendor's SDK. `withdrawn`: 404; `roomless`: they name no room."""
    phrases: Literal["task", "own", "none"] = "task"
    """What `phrase_id` a message about speech bears: the task's id, one of its own, or none."""
    room: Literal["open", "full", "dead"] = "open"
    """Who comes in. `full`: nobody; `dead`: there is no such room any more."""
    latency_ms: int = LATENCY_MS
    tail_ms: int = TAIL_MS
    ms_per_character: int = MS_PER_CHARACTER
    """How soon the avatar begins, how long it is not quiet afterwards, and how fast it speaks."""


_NO_REQUESTS = frozenset({"rate-limit", "flap", "half-body"})
"""Faults of requests; lines for the external engine are none."""
_NO_REPORTS = frozenset({"end-missing", "end-early", "end-late", "end-twice", "start-missing", "wrong-id"})
"""Faults of reports; the other engines tell only the viewer's page."""


class AvaturnEmulator(Emulator):
    """Avaturn's rules."""

    name = "avaturn"
    options_type = Options
    options: Options
    sessions: dict[str, AvaturnSession]

    @classmethod
    def impossible(cls, settings: Mapping[str, Any]) -> frozenset[str]:
        external = (settings.get("conversation_engine") or {}).get("type") == "external"
        watched = settings.get("viewer") == "room"
        return cls.never | (_NO_REQUESTS if external else frozenset() if watched else _NO_REPORTS)

    @classmethod
    def we_watch(cls, settings: Mapping[str, Any]) -> bool:
        return settings.get("viewer") == "room"

    def __init__(self, *, faults: Iterable[Chosen | str] = (), **given: Any) -> None:
        super().__init__(faults=faults, **given)
        own = self.options
        self._voices = frozenset(filter(None, own.voices.split(",")))
        self._retired = frozenset(filter(None, own.retired.split(",")))
        self._voice = {"latency_ms": own.latency_ms, "tail_ms": own.tail_ms, "ms_per_character": own.ms_per_character}
        self._dialling: set[asyncio.Task[None]] = set()
        self._rooms = ""

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
            async with serve_rooms(self) as self._rooms:
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
        wanted, wrong = await read_body(request, SESSION, default={})
        if wrong:
            return unprocessable(wrong)
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
        wanted, wrong = await read_body(request, TASK)
        if wrong:
            return unprocessable(wrong)
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

    # the rooms (`emulators.room.Host`)

    def knocked(self, guest: Guest) -> None:
        session = self._in(guest)
        if session is None or self.options.room == "dead":
            guest.refuse(HTTP_ERROR % "404 Not Found")
        elif guest.token != session.token:
            guest.refuse(HTTP_ERROR % "401 Unauthorized")
        elif self.options.room == "full":
            guest.refuse("Connection(Api(RoomLookup(MeetingFull)))")
        else:
            session.enter(guest)

    def said(self, guest: Guest, message: Any) -> None:
        self.note("message", session=guest.url.rpartition("/")[2], message=message)

    def played(self, guest: Guest, pcm: bytes, hz: int) -> None:
        """Text echo hears nobody."""

    def left(self, guest: Guest) -> None:
        if (session := self.sessions.get(guest.url.rpartition("/")[2])) is not None:
            session.leave(guest)

    def _in(self, guest: Guest) -> AvaturnSession | None:
        session = self.sessions.get(guest.url.rpartition("/")[2])
        return session if session is not None and session.alive else None

    # the private calls of the vendor's SDK, which brings the token that a viewer was given

    async def _sdk_session(self, request: Request) -> Response:
        if self.options.sdk == "withdrawn":
            return self.refusal(404, "Not Found")
        session = self._by_token(request)
        if session is None:
            return self.refusal(401, "Invalid session token")
        room = {} if self.options.sdk == "roomless" else {"room_url": f"{self._rooms}{session.id}"}
        facts = {"id": session.id, "limited_access_token": session.token, "session_config": {"uses_stacked_alpha": False}}
        return JSONResponse(facts | room)

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
        wanted, wrong = await read_body(request, CONFIG)
        if wrong:
            return unprocessable(wrong)
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
