"""Tavus on this machine: the REST calls of both generations of names, and a room with a face that speaks what it is told to.

A faithful server by Tavus's documentation (https://docs.tavus.io/openapi.yaml, https://docs.tavus.io/llms.txt). Its room is no Daily room:
it is reached over a socket on this machine (`conversation_url` is a `tcp://` address), and has messages, participants and sound, but no
picture. Where the documentation is silent or was seen to be otherwise, one of the `Options` chooses.

Chosen by us where nobody knows: a face that hears sound from a microphone reports when it begins and ends, with no id; an interrupt while
nothing is said, and lines that an interrupt drops, are not reported; a sound that does not go on for a second is cut and its end told; a
line is spoken in the order in which lines came. Webhooks are not delivered.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from playbook.clock import wall_time
from playbook.emulators import options
from playbook.emulators.base import Emulator
from playbook.emulators.faults import Chosen
from playbook.emulators.room import Guest, serve_rooms
from playbook.emulators.speech import Utterance
from playbook.providers.tavus.emulator_room import HTTP_ERROR, Conversation

_FIELDS: Mapping[str, type] = {
    **dict.fromkeys(("pal_id", "persona_id", "face_id", "replica_id", "conversation_name", "callback_url", "custom_greeting"), str),
    **dict.fromkeys(("conversational_context", "meeting_url", "policy", "document_retrieval_strategy"), str),
    **dict.fromkeys(("audio_only", "test_mode", "require_auth"), bool),
    **dict.fromkeys(("memory_stores", "document_ids", "document_tags"), list),
    "max_participants": int,
    "properties": dict,
}
_PROPERTIES: Mapping[str, type] = {
    **dict.fromkeys(("max_call_duration", "participant_left_timeout", "participant_absent_timeout"), int),
    **dict.fromkeys(("enable_recording", "enable_closed_captions", "apply_greenscreen", "require_auth"), bool),
    **dict.fromkeys(("language", "livekit_ws_url", "livekit_room_token", "aws_assume_role_arn"), str),
    **dict.fromkeys(("recording_s3_bucket_name", "recording_s3_bucket_region"), str),
    "languages": list,
    "recording_storage": dict,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(options.Options):
    """How Tavus behaves."""

    face: Literal["comes", "never", "leaves", "renamed"] = "comes"
    """`leaves`: in the middle of the first line; `renamed`: under another name than the PAL's."""
    create_names: Literal["both", "old", "ignores-new"] = "both"
    """Which generation of names creating a conversation takes. `ignores-new`: the new ones are passed over without a word, and another PAL
    appears."""
    face_user: bool = True
    """Whether the face's user id says that it is one."""
    face_after_ms: int = 300
    """How long after its creation the face comes into the room."""
    ids: Literal["md5", "same", "fresh", "erratic", "none", "repeated"] = "md5"
    """What `inference_id` the reports of a line bear; `erratic`: of each report."""
    copies: Literal["all", "new", "old"] = "all"
    """As which of its three copies each report is told."""
    order: Literal["natural", "shuffled", "stop-first"] = "natural"
    """`shuffled`: older copies first, and with wrong `seq`."""
    durations: bool = True
    """Whether a stop says how long it was."""
    interrupt: Literal["all", "current"] = "all"
    """What an interrupt stops."""
    utterances: bool = True
    """Whether the face says what it says."""
    join: str = "opens"
    """`silent`, or what the room answers instead, such as `404 Not Found`."""
    room_url: str | None = None
    """A URL to be told in place of the room's own."""
    known_pals: Literal["any", "made"] = "any"
    """`made`: only ids that were given out here are PALs."""
    pal_mode: Literal["echo", "full"] = "echo"
    """The mode of PALs that were not made here."""
    max_concurrent: int | None = None
    """How many conversations may be open at once."""
    longest_s: int | None = None
    """The longest call that the account is allowed: more is capped without a word."""
    credits: bool = True
    """Without, creating answers 402."""
    second_end: Literal[400, 200] = 400
    """What ending a conversation again answers."""
    media_ms: int = 0
    """How much later than it is reported the face's sound comes."""


MAX_BODY_BYTES = 65_536
_NO_REPORTS = frozenset({"end-missing", "end-early", "end-late", "end-twice", "start-missing", "wrong-id"})
"""Faults of reports, which nobody gets who is not in the room."""


class TavusEmulator(Emulator):
    """The vendor."""

    name = "tavus"
    nobodys_id = str(uuid.UUID(int=0x5EC0DD))
    """What reports of no line name."""
    never = frozenset({"slow-accept", "rate-limit", "flap", "half-body"})  # lines are no requests
    sessions: dict[str, Conversation]
    options_type = Options
    options: Options

    @classmethod
    def impossible(cls, settings: Mapping[str, Any]) -> frozenset[str]:
        # By microphone an interrupt is the end of our own sound: there is nothing that could get lost, and no rest that could be spoken.
        microphone = settings.get("echo_via") == "microphone"
        if settings.get("echo_via") == "rest":
            return _NO_REPORTS if not settings.get("listen") else frozenset()
        return cls.never | ({"interrupt-lost", "speech-after-interrupt"} if microphone else frozenset())

    def __init__(self, *, faults: Iterable[Chosen | str] = (), **given: Any) -> None:
        super().__init__(faults=faults, **given)
        self.pals: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count(1)
        self._rooms = ""

    @contextlib.asynccontextmanager
    async def beside(self) -> AsyncIterator[None]:
        async with serve_rooms(self) as self._rooms:
            yield

    # the room's host

    def knocked(self, guest: Guest) -> None:
        """Somebody wants into one of our rooms."""
        conversation = self._room_of(guest)
        self.note("knocked", session=None if conversation is None else conversation.id, name=guest.name)
        if self.options.join == "silent":
            return
        if self.options.join != "opens":
            guest.refuse(HTTP_ERROR % self.options.join)
        elif conversation is None or not conversation.alive:
            guest.refuse(HTTP_ERROR % "404 Not Found")
        else:
            conversation.knocked(guest)

    def said(self, guest: Guest, message: Any) -> str | None:
        """A guest sent a message."""
        if (conversation := self._room_of(guest)) is not None:
            conversation.said(guest, message)
        return None

    def played(self, guest: Guest, pcm: bytes, hz: int) -> None:
        """A guest's microphone sent sound."""
        if (conversation := self._room_of(guest)) is not None and conversation.alive:
            conversation.played(pcm, hz, guest.clip)

    def left(self, guest: Guest) -> None:
        """A guest is gone."""
        if (conversation := self._room_of(guest)) is not None:
            conversation.left(guest)

    def _room_of(self, guest: Guest) -> Conversation | None:
        return self.sessions.get(guest.url.rpartition("/")[2])

    def id_of(self, line: Utterance, conversation: str, kind: str) -> str | None:
        """What reports of a line call it."""
        if self.faults.hits("wrong-id", *line.names):
            return self.nobodys_id
        return {
            "md5": _uuid(line.task),
            "same": line.task,
            "fresh": _uuid(f"{conversation} {line.n}"),
            "erratic": _uuid(f"{conversation} {line.n} {kind}"),
            "none": None,
            "repeated": _uuid(conversation),
        }[self.options.ids]

    def face_of(self, wanted: Mapping[str, Any]) -> str:
        """Which face a conversation has."""
        pal = self.pals.get(_either(wanted, "pal_id", "persona_id"), {})
        return _either(wanted, "face_id", "replica_id") or pal.get("default_face_id") or "r-emulated"

    # REST

    def routes(self) -> Sequence[BaseRoute]:
        routes: list[BaseRoute] = []
        for many, one in (("pals", "pal"), ("personas", "persona")):
            routes += [
                self._route(f"/v2/{many}", "POST", lambda request, one=one: self._make_pal(request, one)),
                self._route(f"/v2/{many}", "GET", lambda request, one=one: self._list_pals(request, one)),
                self._route(f"/v2/{many}/{{id}}", "GET", lambda request, one=one: self._show_pal(request, one)),
                self._route(f"/v2/{many}/{{id}}", "PATCH", self._patch_pal),
                self._route(f"/v2/{many}/{{id}}", "DELETE", self._delete_pal),
            ]
        return [
            *routes,
            self._route("/v2/conversations", "POST", self._create),
            self._route("/v2/conversations", "GET", self._list),
            self._route("/v2/conversations/{id}", "GET", self._show),
            self._route("/v2/conversations/{id}", "DELETE", self._delete),
            self._route("/v2/conversations/{id}/end", "POST", self._end),
            self._route("/v2/conversations/{id}/send-app-message", "POST", self._send),
            self._route("/v2/faces", "GET", self._list_faces),
            self._route("/v2/replicas", "GET", self._list_faces),
        ]

    def _route(self, path: str, method: str, endpoint: Any) -> Route:
        async def authorised(request: Request) -> Response:
            if not request.headers.get("x-api-key"):
                return self.refusal(401, "Invalid access token")
            answer: Response = await endpoint(request)
            return answer

        return Route(path, authorised, methods=[method])

    def refusal(self, status: int, text: str) -> Response:
        return JSONResponse({"error" if status == 400 else "message": text}, status)

    def quota(self) -> Response:
        return JSONResponse({"message": "User has reached maximum concurrent conversations"}, 400)

    async def _create(self, request: Request) -> Response:
        wanted = await _body(request, _FIELDS)
        if self.options.create_names == "old" and (new := wanted.keys() & {"pal_id", "face_id"}):
            raise HTTPException(400, f"{{'{min(new)}': ['Unknown field.']}}")
        if self.options.create_names == "ignores-new":
            wanted = {name: value for name, value in wanted.items() if name not in ("pal_id", "face_id")} | {"persona_id": "p-default"}
        _check(wanted.get("properties") or {}, _PROPERTIES)
        pal_id = _either(wanted, "pal_id", "persona_id")
        pal = self._pal(pal_id)
        if pal is None:
            raise HTTPException(400, "Invalid pal_id" if "pal_id" in wanted else "Invalid persona_id")
        if "meeting_url" not in wanted and wanted.get("max_participants", 2) < 2:
            raise HTTPException(400, "max_participants must be at least 2")
        if not self.options.credits:
            return self.refusal(402, "The user is out of conversational credits.")
        if self.quota_used_up() or (self.options.max_concurrent is not None and len(self.open_sessions) >= self.options.max_concurrent):
            return self.quota()
        private = wanted.get("require_auth") or (wanted.get("properties") or {}).get("require_auth")
        conversation = Conversation(self, f"c{next(self._numbers)}", {**wanted, "require_auth": private}, pal["pal_name"])
        self.admit(conversation)
        if wanted.get("test_mode"):
            conversation.end("test mode")
        answer = self._facts(conversation)
        return JSONResponse(answer | ({"meeting_token": conversation.token} if conversation.token else {}))

    def _facts(self, conversation: Conversation) -> dict[str, Any]:
        return {
            "conversation_id": conversation.id,
            "conversation_name": conversation.name,
            "conversation_url": self.options.room_url or f"{self._rooms}{conversation.id}",
            "status": "active" if conversation.alive else "ended",
            "callback_url": conversation.wanted.get("callback_url", ""),
            "created_at": conversation.time(conversation.created_ms),
        }

    async def _list(self, request: Request) -> Response:
        status = request.query_params.get("status")
        items = [self._facts(conversation) for conversation in self.sessions.values()]
        return _page(request, [item for item in items if status in (None, item["status"])])

    async def _show(self, request: Request) -> Response:
        conversation = self._conversation(request)
        ended_ms = conversation.created_ms if conversation.ended_ms is None else conversation.ended_ms
        facts = self._facts(conversation) | {
            "replica_id": self.face_of(conversation.wanted),
            "persona_id": _either(conversation.wanted, "pal_id", "persona_id"),
            "updated_at": conversation.time(ended_ms),
        }
        if request.query_params.get("verbose") == "true":
            shutdown = next((event for event in conversation.events if event["event_type"] == "system.shutdown"), None)
            facts |= {"shutdown_reason": shutdown["properties"]["reason"] if shutdown else None, "events": conversation.events}
        return JSONResponse(facts)

    async def _end(self, request: Request) -> Response:
        conversation = self._conversation(request)
        if not conversation.alive and self.options.second_end == 400:
            raise HTTPException(400, "Conversation has already ended")
        conversation.end("end")
        return Response(status_code=200)

    async def _send(self, request: Request) -> Response:
        """A message to the face by REST."""
        conversation = self._conversation(request)
        if len(await request.body()) > MAX_BODY_BYTES:
            return JSONResponse({"error": f"Request body exceeds {MAX_BODY_BYTES} bytes"}, 413)
        message = await _body(request, None)
        if not conversation.alive:
            raise HTTPException(400, "App messages can only be sent to active conversations.")
        if not conversation.admits_request():
            return JSONResponse({"error": "Too many requests"}, 429)
        properties = message.get("properties")
        echo = properties if message.get("event_type") == "conversation.echo" and isinstance(properties, dict) else {}
        name = str(echo.get("inference_id") or "")
        line = conversation.queue.line(name, str(echo.get("text") or ""))

        def accept() -> Response:
            conversation.said(None, message)
            return JSONResponse({"status": "queued"})

        return await self.take(conversation, line, accept) if echo else accept()

    async def _delete(self, request: Request) -> Response:
        conversation = self._conversation(request)
        conversation.end("end")
        del self.sessions[conversation.id]
        return Response(status_code=204)

    def _conversation(self, request: Request) -> Conversation:
        conversation = self.sessions.get(request.path_params["id"])
        if conversation is None:
            raise HTTPException(400, "Invalid conversation_id")
        return conversation

    async def _make_pal(self, request: Request, one: str) -> Response:
        wanted = await _body(request, None)
        mode = wanted.get("pipeline_mode", "full")
        if mode not in ("full", "echo"):
            raise HTTPException(400, "pipeline_mode must be full or echo")
        if mode == "full" and not wanted.get("system_prompt"):
            raise HTTPException(400, "system_prompt is required")
        face = _either(wanted, "default_face_id", "default_replica_id")
        if one == "pal" and not face:
            raise HTTPException(400, "default_face_id is required")
        id = f"p{next(self._numbers)}"
        name = _either(wanted, "pal_name", "persona_name") or id
        made = {"pal_name": name, "pipeline_mode": mode, "default_face_id": face, "layers": wanted.get("layers") or {}}
        self.pals[id] = made | {"created_at": wall_time().isoformat()}
        self.note("pal_made", pal=id, name=name)
        return JSONResponse({f"{one}_id": id, f"{one}_name": name, "created_at": self.pals[id]["created_at"]})

    async def _list_pals(self, request: Request, one: str) -> Response:
        return _page(request, [_named(id, pal, one) for id, pal in self.pals.items()])

    async def _show_pal(self, request: Request, one: str) -> Response:
        id = request.path_params["id"]
        pal = self._pal(id)
        if pal is None:
            raise HTTPException(400, f"Invalid {one}_id")
        return JSONResponse({"data": [_named(id, pal, one)]})

    async def _patch_pal(self, request: Request) -> Response:
        pal = self.pals.get(request.path_params["id"])
        steps = await request.json()
        if pal is None or not isinstance(steps, list):
            raise HTTPException(400, "a JSON Patch of a PAL that exists is expected")
        written = (step for step in steps if isinstance(step, dict) and step.get("op") in ("add", "replace"))
        changes = {str(step.get("path")).strip("/"): step.get("value") for step in written}
        if all(pal.get(name) == value for name, value in changes.items()):
            return Response(status_code=304)
        pal.update(changes)
        return Response(status_code=200)

    async def _delete_pal(self, request: Request) -> Response:
        if self.pals.pop(request.path_params["id"], None) is None:
            raise HTTPException(400, "Invalid id")
        return Response(status_code=204)

    def _pal(self, id: str) -> dict[str, Any] | None:
        if id in self.pals or self.options.known_pals == "made" or not id:
            return self.pals.get(id)
        return {"pal_name": "Echo Assistant", "pipeline_mode": self.options.pal_mode, "default_face_id": "r-emulated"}

    async def _list_faces(self, request: Request) -> Response:
        kind = "replica" if request.url.path.endswith("replicas") else "face"
        return _page(request, [{f"{kind}_id": "r-emulated", f"{kind}_name": "Emulated", f"{kind}_type": "system", "status": "completed"}])


def _either(item: Mapping[str, Any], *names: str) -> str:
    return next((str(item[name]) for name in names if item.get(name)), "")


def _uuid(text: str) -> str:
    return str(uuid.UUID(bytes=hashlib.md5(text.encode(), usedforsecurity=False).digest()))


def _named(id: str, pal: Mapping[str, Any], one: str) -> dict[str, Any]:
    """A PAL by the names of one generation."""
    face = "default_face_id" if one == "pal" else "default_replica_id"
    rest = {name: value for name, value in pal.items() if name not in ("pal_name", "default_face_id")}
    return {f"{one}_id": id, f"{one}_name": pal["pal_name"], face: pal["default_face_id"], **rest}


def _page(request: Request, items: list[Any]) -> Response:
    try:
        limit, page = int(request.query_params.get("limit", 10)), int(request.query_params.get("page", 1))
    except ValueError as error:
        raise HTTPException(400, "limit and page are numbers") from error
    return JSONResponse({"data": items[(page - 1) * limit : page * limit], "total_count": len(items)})


async def _body(request: Request, fields: Mapping[str, type] | None) -> dict[str, Any]:
    try:
        wanted = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the body is not JSON") from error
    if not isinstance(wanted, dict):
        raise HTTPException(400, "the body is not an object")
    if fields is not None:
        _check(wanted, fields)
    return wanted


def _check(wanted: Mapping[str, Any], fields: Mapping[str, type]) -> None:
    for name, value in wanted.items():
        if name not in fields:
            raise HTTPException(400, f"{{'{name}': ['Unknown field.']}}")
        if not isinstance(value, fields[name]) or (fields[name] is int and isinstance(value, bool)):
            raise HTTPException(400, f"{{'{name}': ['Not a valid {fields[name].__name__}.']}}")
