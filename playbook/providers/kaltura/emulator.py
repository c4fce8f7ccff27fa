"""Kaltura Avatar on this machine: the seven calls of its Control API, the calls that mint a KS, and the door for a viewer.

A faithful server by Kaltura's documentation (https://docs.kaltura.ai/models/avatar/docs/control-api/overview). Where that contradicts
itself or what was seen to happen, one of the `Options` chooses; the defaults are what the adapter expects.

Any KS is taken until `ks` names the one that is good; any partner's secret until `admin_secret` does. The appToken is `APP_TOKEN_ID` with
`APP_TOKEN`. The face says nothing about its speech, because Kaltura's does not; `/_emulator/spoken` tells. A viewer gets its sound and
a moving picture by WebRTC (with the extra `listen`), else an SDP answer without media.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import io
import itertools
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from playbook.clock import Clock
from playbook.emulators import options
from playbook.emulators.base import MAX_REQUEST, Emulator, LiveSession
from playbook.emulators.face import RATE, FaceSound, FaceStream, spoken
from playbook.emulators.faults import Chosen
from playbook.emulators.speech import LATENCY_MS, MS_PER_CHARACTER, Utterance
from playbook.speech.audio import decode, resample, to_ms
from playbook.transports.factory import emulated_variable
from playbook.transports.whep import FEEDS

SESSIONS = "/v1/avatar-session"
SERVICE = "/api_v3/service"
EDGE = "/rtc/v1/whep"
"""Where the edge publishes the media server, whose own addresses begin at its root."""
APP_TOKEN_ID, APP_TOKEN = "1_emulated", "emulated-app-token"
TOKEN_MS = 24 * 3_600_000
ADMINISTRATOR, USER = 2, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(options.Options):
    """How Kaltura behaves."""

    create_path: Literal["both", "create", "bare"] = "both"
    """On which path a session is created."""
    visual_field: Literal["both", "id", "avatarId"] = "both"
    """How the avatar is named."""
    say_text: Literal["works", "strict", "unavailable", "needs-voice"] = "works"
    """`strict`: 400 without turnId and isFinal; `unavailable`: 503 always; `needs-voice`: 503 for sessions that were given no voice."""
    interrupt: Literal["all", "current"] = "all"
    """What it stops."""
    ended: Literal[410, 404] = 410
    """What a session that is over answers."""
    idle_ms: int | None = None
    """How long a session lives without a call."""
    token_ms: int = TOKEN_MS
    """How long its token is good."""
    error_body: Literal["json", "text", "html"] = "json"
    """How an error looks."""
    retry_after: bool = True
    """Whether 429 says when to come again."""
    whep: Literal["opens", 404, 409, 415, "private"] = "opens"
    """What a viewer is answered; `private`: a Location on a private network."""
    location: Literal["vendor", "absolute", "none"] = "vendor"
    """How a viewer is told where its place is given back. `vendor`: a path that lacks the prefix under which the edge is reached."""
    unwatched: Literal["speaks", "waits"] = "speaks"
    """What becomes of lines while nobody watches."""
    ms_per_character: int = MS_PER_CHARACTER
    """How fast the face speaks."""
    latency_ms: int = LATENCY_MS
    """How soon it begins."""
    ks_reply: Literal["natural", "text", "object", "wrapped", "exception"] = "natural"
    """How the core API hands out a KS; `exception`: it refuses inside a 200."""
    ks: str | None = None
    """The one that is good."""
    admin_secret: str | None = None
    """The one that is good."""
    app_token_hash: Literal["sha1", "sha256", "sha512", "md5"] = "sha1"
    """How the appToken is hashed."""


class Session(LiveSession):
    """One avatar session, with the token that opens it."""

    def __init__(self, emulator: KalturaEmulator, id: str, *, voiced: bool) -> None:
        waits = emulator.options.unwatched == "waits"
        pace = {"ms_per_character": emulator.options.ms_per_character, "latency_ms": emulator.options.latency_ms}
        super().__init__(emulator, id, idle_ms=emulator.options.idle_ms, needs_viewer=waits, **pace)
        self.token = emulator.seal(f"emulated.{secrets.token_urlsafe(24)}.bearer")
        self.expires_ms = self.created_ms + emulator.options.token_ms
        self.voiced = voiced
        self.initialised = 0
        self.sound = FaceSound(self.queue, self.clock)
        self.url = f"{emulator.url}{EDGE}/session/{id}"
        FEEDS[self.url] = self
        self.heard = False
        """Whether somebody gets the sound, so that there must be some."""
        self._stream: FaceStream | None = None
        self._viewer = ""
        self._closing: asyncio.Task[None] | None = None

    async def watch(self, viewer: str, offer: str) -> str:
        """The answer to a viewer's SDP offer: by WebRTC, or without media where the offer has none or WebRTC is not installed."""
        self._viewer = viewer
        self.connect_viewer()
        if "a=fingerprint" not in offer or importlib.util.find_spec("aiortc") is None:
            return _without_media(offer)
        self._stream, self.heard = FaceStream(self.sound), True
        try:
            return await self._stream.answer(offer)
        except ValueError as error:
            await self.unwatch(viewer)
            raise HTTPException(400, f"the offer cannot be answered: {error}") from None

    async def unwatch(self, viewer: str) -> bool:
        """The viewer leaves; False where there is none of that name."""
        if viewer != self._viewer or not viewer:
            return False
        self._viewer, self.heard = "", False
        self.disconnect_viewer()
        await self._hang_up()
        return True

    # `transports.whep.Feed`: for a viewer in this process

    def frames(self, clock: Clock) -> AsyncIterator[tuple[int, bytes]]:
        return self.sound.frames(clock)

    def enter(self) -> bool:
        if self.viewers:
            return False
        self.heard = True
        self.connect_viewer()
        return True

    def leave(self) -> None:
        self.heard = False
        self.disconnect_viewer()

    async def _hang_up(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.aclose()

    def on_end(self, reason: str) -> None:  # noqa: ARG002 -- whatever the reason
        self.sound.end()
        FEEDS.pop(self.url, None)
        self._closing = asyncio.ensure_future(self._hang_up())


@dataclass(frozen=True, slots=True)
class _Ks:
    """A KS that we minted."""

    kind: int
    expires_ms: int


class KalturaEmulator(Emulator):
    """The vendor."""

    name = "kaltura"
    never = frozenset({"end-missing", "end-early", "end-late", "end-twice", "start-missing", "wrong-id"})
    sessions: dict[str, Session]
    options_type = Options
    options: Options

    @classmethod
    def we_watch(cls, settings: Mapping[str, Any]) -> bool:
        return bool(settings.get("listen"))

    def __init__(self, *, faults: Iterable[Chosen | str] = (), **given: Any) -> None:
        super().__init__(faults=faults, **given)
        self._minted: dict[str, _Ks] = {}
        self._numbers = itertools.count(1)

    def environment(self) -> Mapping[str, str]:
        addresses = {"KALTURA_BASE_URL": self.url, "KALTURA_SERVICE_URL": self.url}
        return {**addresses, "KALTURA_KS": self.options.ks or "emulated-ks", emulated_variable(self.name): "yes"}

    def routes(self) -> Sequence[BaseRoute]:
        def post(path: str, endpoint: Any) -> Route:
            return Route(path, endpoint, methods=["POST"])

        create = {"both": ("/create", ""), "create": ("/create",), "bare": ("",)}[self.options.create_path]
        return [
            *(post(SESSIONS + path, self._create) for path in create),
            post(f"{SESSIONS}/{{session}}/init-client", self._init_client),
            post(f"{SESSIONS}/{{session}}/say-text", self._say_text),
            post(f"{SESSIONS}/{{session}}/say-audio", self._say_audio),
            post(f"{SESSIONS}/{{session}}/interrupt", self._interrupt),
            post(f"{SESSIONS}/{{session}}/keep-alive", self._keep_alive),
            post(f"{SESSIONS}/{{session}}/end", self._end),
            post(f"{EDGE}/session/{{session}}", self._watch),
            Route(f"{EDGE}/session/{{session}}/viewer/{{viewer}}", self._leave, methods=["DELETE"]),
            post(f"{SERVICE}/session/action/start", self._mint_by_secret),
            post(f"{SERVICE}/session/action/startWidgetSession", self._mint_for_widget),
            post(f"{SERVICE}/apptoken/action/startSession", self._mint_by_app_token),
            post(f"{SERVICE}/session/action/end", self._revoke),
        ]

    def refusal(self, status: int, text: str) -> Response:
        if self.options.error_body == "text":
            return PlainTextResponse(text, status)
        if self.options.error_body == "html":
            return HTMLResponse(f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>", status)
        return JSONResponse({"success": False, "error": text}, status)

    async def take(self, session: LiveSession, line: Utterance, accept: Any) -> Response:
        response = await super().take(session, line, accept)
        if not self.options.retry_after and "retry-after" in response.headers:
            del response.headers["retry-after"]
        return response

    # the Control API

    async def _create(self, request: Request) -> Response:
        self._authorize(request)
        body = await _object(request)
        visual = body.get("visualConfig")
        fields = ("id", "avatarId") if self.options.visual_field == "both" else (self.options.visual_field,)
        if not isinstance(visual, dict) or not any(isinstance(visual.get(field), str) and visual[field] for field in fields):
            raise HTTPException(400, f"visualConfig.{fields[0]} is required")
        if self.quota_used_up():
            return self.quota()
        voice = body.get("voiceConfig")
        session = Session(self, f"session-{next(self._numbers)}", voiced=isinstance(voice, dict) and bool(voice.get("id")))
        self.admit(session)
        return JSONResponse({"success": True, "sessionId": session.id, "token": session.token})

    async def _init_client(self, request: Request) -> Response:
        session = self._session(request)
        session.initialised += 1
        turn = {"url": "127.0.0.1", "username": "emulated", "credential": self.seal("emulated-turn-credential")}
        return JSONResponse({"success": True, "whepUrl": session.url, "turn": turn})

    async def _say_text(self, request: Request) -> Response:
        session = self._session(request)
        if self.options.say_text == "unavailable" or (self.options.say_text == "needs-voice" and not session.voiced):
            raise HTTPException(503, "Service temporarily unavailable")
        body = await _object(request)
        text, turn, final = body.get("text"), body.get("turnId"), body.get("isFinal")
        if not isinstance(text, str) or not text:
            raise HTTPException(400, "Text is required")
        if self.options.say_text == "strict" and not (isinstance(turn, str) and turn and isinstance(final, bool)):
            raise HTTPException(400, "turnId and isFinal are required")
        task = str(turn) if turn else f"turn-{next(self._numbers)}"

        sound = await spoken(text) if session.heard else None

        def accept() -> Response:
            if sound is None:
                session.queue.add(task, text=text, final=final is not False)
            else:
                session.queue.add(task, text=text, duration_ms=sound.duration_ms, final=final is not False, pcm=sound.pcm)
            return JSONResponse({"success": True})

        return await self.take(session, session.queue.line(task, text), accept)

    async def _say_audio(self, request: Request) -> Response:
        session = self._session(request)
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise HTTPException(400, "multipart/form-data is wanted")
        try:
            form = await _InMemory(request.headers, request.stream()).parse()
        except MultiPartException as error:
            raise HTTPException(400, error.message) from None
        turn, length, audio = form.get("turnId"), form.get("duration"), form.get("audio")
        sound = await audio.read() if isinstance(audio, UploadFile) else b""
        await form.close()
        if not isinstance(turn, str) or not turn:
            raise HTTPException(400, "turnId is required")
        if not sound:
            raise HTTPException(400, "audio is required")
        try:
            seconds = float(length) if isinstance(length, str) else 0.0
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < 1e6:
            raise HTTPException(400, "duration must be a number of seconds greater than 0")
        try:
            measured_ms = await asyncio.to_thread(_length_ms, sound)
        except ValueError:
            raise HTTPException(400, "the audio cannot be decoded") from None
        duration_ms = max(1, round(seconds * 1000))
        # The vendor believes the caller; whoever develops against us wants to know whether that was wise.
        facts = {"bytes": len(sound), "sha256": hashlib.sha256(sound).hexdigest()}
        self.note("sound", session=session.id, task=turn, duration_ms=duration_ms, measured_ms=measured_ms, **facts)

        pcm = await asyncio.to_thread(lambda: resample(decode(sound), RATE).pcm) if session.heard else b""

        def accept() -> Response:
            session.queue.add(turn, duration_ms=duration_ms, pcm=pcm)
            return JSONResponse({"success": True})

        return await self.take(session, session.queue.line(turn), accept)

    async def _interrupt(self, request: Request) -> Response:
        self._session(request).queue.interrupt(self.options.interrupt)
        return JSONResponse({"success": True})

    async def _keep_alive(self, request: Request) -> Response:
        self._session(request)
        return JSONResponse({"success": True})

    async def _end(self, request: Request) -> Response:
        self._session(request).end("ended by the client")
        return JSONResponse({"success": True})

    def _authorize(self, request: Request) -> None:
        ks = _credential(request, "ks")
        minted = self._minted.get(ks)
        good = self.options.ks is None or ks == self.options.ks if minted is None else minted.expires_ms > self.clock.now_ms()
        if not ks or not good:
            raise HTTPException(401, "Invalid Kaltura Session")
        if minted is not None and minted.kind != ADMINISTRATOR:
            raise HTTPException(403, "Kaltura Session not authorized")

    def _session(self, request: Request) -> Session:
        """The session that is spoken of, if the caller may speak of it and it lives."""
        session = self.sessions.get(request.path_params["session"])
        if session is None:
            raise HTTPException(404, "Session not found")
        if _credential(request, "bearer") != session.token or self.clock.now_ms() >= session.expires_ms:
            raise HTTPException(401, "Invalid or expired token")
        if not session.alive:
            raise HTTPException(self.options.ended, "Session ended" if self.options.ended == 410 else "Session not found")
        session.touch()
        return session

    # the viewer's door

    async def _watch(self, request: Request) -> Response:
        session = self.sessions.get(request.path_params["session"])
        if self.options.whep == 404 or session is None or not session.alive:
            raise HTTPException(404, "no such stream")
        if self.options.whep == 415 or not request.headers.get("content-type", "").startswith("application/sdp"):
            raise HTTPException(415, "an SDP offer is wanted")
        if self.options.whep == 409 or session.viewers:
            raise HTTPException(409, "this stream has a viewer")
        offer = (await request.body()).decode("utf-8", "replace")
        viewer = f"viewer-{next(self._numbers)}"
        answer = await session.watch(viewer, offer)
        location = {
            "vendor": f"/whep/session/{session.id}/viewer/{viewer}",
            "absolute": f"{self.url}{EDGE}/session/{session.id}/viewer/{viewer}",
            "none": None,
        }[self.options.location]
        if self.options.whep == "private":
            location = f"http://10.0.0.1/whep/session/{session.id}/viewer/{viewer}"
        return Response(answer, 201, {} if location is None else {"Location": location}, "application/sdp")

    async def _leave(self, request: Request) -> Response:
        session = self.sessions.get(request.path_params["session"])
        if session is None or not await session.unwatch(request.path_params["viewer"]):
            raise HTTPException(404, "no such viewer")
        return Response(status_code=200)

    # the core API

    async def _mint_by_secret(self, request: Request) -> Response:
        form = await _form(request)
        secret, partner = form.get("secret", ""), form.get("partnerId", "")
        if not secret or not partner.isdecimal() or self.options.admin_secret not in (None, secret):
            return _exception("START_SESSION_ERROR", f"no session can be started for partner [{partner}]")
        return self._minted_ks(form, form.get("type", str(USER)), natural="text")

    async def _mint_for_widget(self, request: Request) -> Response:
        form = await _form(request)
        if not form.get("widgetId", "").removeprefix("_").isdecimal():
            return _exception("INVALID_WIDGET_ID", "there is no such widget")
        return self._minted_ks(form, str(USER), natural="object")

    async def _mint_by_app_token(self, request: Request) -> Response:
        form = await _form(request)
        if form.get("ks", "") not in self._minted:
            return _exception("INVALID_KS", "the KS is not valid")
        if form.get("id") != APP_TOKEN_ID:
            return _exception("APP_TOKEN_ID_NOT_FOUND", "there is no such appToken")
        expected = hashlib.new(self.options.app_token_hash, (form["ks"] + APP_TOKEN).encode()).hexdigest()
        if form.get("tokenHash") != expected:
            return _exception("INVALID_APP_TOKEN_HASH", "the hash of the appToken is wrong")
        return self._minted_ks(form, form.get("type", str(ADMINISTRATOR)), natural="object")

    async def _revoke(self, request: Request) -> Response:
        self._minted.pop((await _form(request)).get("ks", ""), None)
        return JSONResponse(None)

    def _minted_ks(self, form: Mapping[str, str], kind: str, *, natural: str) -> Response:
        if self.options.ks_reply == "exception":
            return _exception("SERVICE_FORBIDDEN", "the service is forbidden for this partner")
        expiry = form.get("expiry", "86400")
        life_s = int(expiry) if expiry.isdecimal() else 86400
        ks = self.seal(f"emulated-ks-{secrets.token_urlsafe(16)}")
        self._minted[ks] = _Ks(ADMINISTRATOR if kind == str(ADMINISTRATOR) else USER, self.clock.now_ms() + life_s * 1000)
        self.note("ks_minted", kind="administrator" if kind == str(ADMINISTRATOR) else "user", life_s=life_s)
        reply = natural if self.options.ks_reply == "natural" else self.options.ks_reply
        return JSONResponse({"text": ks, "object": {"objectType": "KalturaSessionInfo", "ks": ks}, "wrapped": {"result": ks}}[reply])


def _credential(request: Request, scheme: str) -> str:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == scheme else ""


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise HTTPException(400, "a JSON object is wanted")
    return body


async def _form(request: Request) -> dict[str, str]:
    async with request.form() as form:
        return {name: value for name, value in form.items() if isinstance(value, str)}


class _InMemory(MultiPartParser):
    """Starlette moves an upload of more than 1 MB to the disk in a thread of its own, which the virtual clock does not wait for."""

    spool_max_size = max_file_size = MAX_REQUEST


def _length_ms(sound: bytes) -> int:
    """How long an uploaded sound is, whatever it would take to hold it decoded. Raises `ValueError` where it is none."""
    import soundfile  # type: ignore[import-untyped] # it ships no types

    try:
        facts = soundfile.info(io.BytesIO(sound))
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    return to_ms(facts.frames, facts.samplerate)


def _exception(code: str, message: str) -> Response:
    return JSONResponse({"objectType": "KalturaAPIException", "code": code, "message": message, "args": []})


def _without_media(offer: str) -> str:
    """The answer to an SDP offer that declines everything in it."""
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    for line in offer.splitlines():
        if line.startswith("m=") and len(parts := line.split()) >= 4:
            lines += [" ".join([parts[0], "0", *parts[2:]]), "c=IN IP4 127.0.0.1", "a=inactive"]
    return "\r\n".join(lines) + "\r\n"
