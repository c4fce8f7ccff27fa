"""Kaltura Avatar: text, streamed text and sound go in by its Control API; no word about speech comes out.

The vendor's rules, from https://docs.kaltura.ai/models/avatar/docs/control-api/overview and, where the documentation is silent or was
seen to differ, from its SDK (https://github.com/kaltura/intelligent-agents-sdk):

* A Kaltura Session (KS) opens an avatar session and is good for nothing else here. The Bearer token that comes back does the rest, for
  a day.
* Lines ("turns") are queued and spoken one after another; the answer to a request means queued. The pieces of a text carry one
  `turnId` and wait until the final one has come. With a sound we tell how long it is. Only MP3 is known to be taken.
* Nothing tells when speech begins or ends, so the engine reckons: sounds by their length, text by estimate.
* `interrupt` stops everything (the documentation) or the current line only (the SDK). Nobody knows, so `interrupt="unknown"`.
* Somebody has to call `keep-alive` every ten seconds. A session that is over answers 410 or 404.
* Text was seen to be refused altogether, by 503. That is no passing trouble: the line fails with that meaning, or (`text_unavailable:
  local-voice`) the local voice speaks it and from then on all others, as sounds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from playbook.errors import ProviderError, SetupError
from playbook.events import PlayAudio, SayText, StopSpeaking, TaskAccepted
from playbook.model import AudioEcho, Plan
from playbook.ports import Viewer
from playbook.providers.base import Context, Material
from playbook.providers.kaltura.listening import Listening
from playbook.providers.kaltura.login import mint, read_login
from playbook.providers.queued import QueuedSession, SessionGone
from playbook.transports.http import Answer, Http, Retry, said
from playbook.transports.whep import StreamAddress

if TYPE_CHECKING:
    from playbook.speech.audio import Sound
    from playbook.speech.voice import Voice

API = "https://api.avatar.us.kaltura.ai"
SERVICE = "https://www.kaltura.com"
SESSIONS = "/v1/avatar-session"
TOKEN_LIFE_MS = 24 * 3_600_000
KEEP_ALIVE_MS = 10_000
JITTER_MS = 1_000
"""By how much a keep-alive may come early, so that many sessions do not call in step."""
UNJOINED = "Kaltura ends a session without keep-alives; after how long it does not say, but no token lives longer than a day"
"""What bounds a session whose token nobody saw: nobody can list, join or end it, but nobody keeps it alive either. (It was seen to live for
70 s without a call, so its time-out is longer than that.)"""
INTERRUPT_BUDGET_MS = 2_000
DROP_BUDGET_MS = 5_000
TEXT_UNAVAILABLE = (
    "the service takes no text now (503); name a voice in session.voiceConfig.id, or set session.text_unavailable: local-voice"
)
_Outcome = Literal["refused", "ambiguous", "lost"]
_AT_CREATE: Mapping[int, tuple[_Outcome, str]] = {
    401: ("refused", "the Kaltura Session was refused; it is wrong or has expired"),
    403: ("refused", "the Kaltura Session may not open avatar sessions; it must be an administrator's (type 2)"),
}
_LATER: Mapping[int, tuple[_Outcome, str]] = {
    401: ("lost", "the session's token is not valid any more"),
    404: ("lost", "the service does not know the session any more"),
    410: ("lost", "the session has ended"),
}


def may_need_voice(plan: Plan) -> bool:
    """Whether the local voice may have to speak."""
    return plan.session.get("text_unavailable") == "local-voice" and bool(plan.texts)


@dataclass(frozen=True, slots=True)
class _Upload:
    """A sound as the service takes it. `seconds` is its true length, by which the mouth will move."""

    mp3: bytes
    duration_ms: int
    seconds: str


class KalturaSession(QueuedSession):
    """One session."""

    def __init__(self, context: Context, local_voice: Callable[[], Voice]) -> None:
        super().__init__(context)
        env, settings = context.env, context.settings
        self._settings = settings
        self._login = read_login(env)
        for secret in self._login.secrets:
            context.seal(secret)
        self._local_voice = local_voice
        self._voice: Voice | None = None
        self._base_url = env.get("KALTURA_BASE_URL") or API
        self._http = context.transports.http(self._base_url, explain=self._explain, redact=context.redact)
        self._service = context.transports.http(env.get("KALTURA_SERVICE_URL") or SERVICE, redact=context.redact)
        self._token: str | None = None
        self._uploads: dict[str, _Upload] = {}
        self._text_is_gone = False
        self._pieces: dict[str, list[str]] = {}  # of lines that the local voice will speak, until their last piece has come
        self._encoding = True
        self._ear: Listening | None = None
        if settings.get("listen"):
            self._ear = Listening(context.transports, context.emit, self._base_url)

    # opening

    def load(self, material: Material) -> None:
        if self._voice is None and may_need_voice(material.plan):
            self._voice = self._local_voice()
            if not self._voice.available:
                from playbook.speech.voice import VoiceMissing

                raise VoiceMissing
        super().load(material)

    async def _open(self) -> str | None:
        ks = await mint(self._login, self._service, self.context.seal)
        self._http.authorize({"Authorization": f"KS {ks}"})
        await self.creating(self._create())
        remark = await self._init_client()
        self.in_background(self._keep_alive())
        return remark

    async def _prepare(self) -> None:
        """Encode the sounds, which takes a second for every minute."""
        for step in self.material.plan.steps:
            if isinstance(step.action, AudioEcho) and step.skipped is None and step.action.sha256 not in self._uploads:
                sound = await asyncio.to_thread(self.material.sound, step.action.sha256)
                self._uploads[step.action.sha256] = await self._encode(sound)

    async def _encode(self, sound: Sound) -> _Upload:
        from playbook.speech.audio import to_mp3

        mp3 = await asyncio.to_thread(to_mp3, sound, go_on=lambda: self._encoding)
        return _Upload(mp3, sound.duration_ms, f"{max(sound.duration_ms, 1) / 1000:.3f}")

    async def _create(self) -> None:
        journal = self.context.journal
        async with journal.creating(
            "kaltura",
            self._http,
            id_field="sessionId",
            end_fields=("token",),
            base_url=self._base_url,
            unjoined_ms=TOKEN_LIFE_MS,
            unjoined=UNJOINED,
            price_per_minute=self._settings.get("price_per_minute"),
        ):
            answer = await self._request_session()
            self.session_id = answer.need("sessionId")
            try:
                token = answer.need("token")
                self.context.seal(token)
                self._http.authorize(bearer(token))  # first of all: without it nothing can be ended
            except (ProviderError, SetupError):
                journal.created(self.session_id)
                raise
            self._token = token
            journal.created(self.session_id, token=token)

    async def _request_session(self) -> Answer:
        """The documentation knows two paths to create a session. Unless the playbook chose, the second is tried when there is no first."""
        body = {name: self._settings[name] for name in ("visualConfig", "voiceConfig", "clientId") if name in self._settings}
        body |= self._settings.get("extra", {})
        chosen = self._settings.get("create_path")
        if chosen != "bare":
            try:
                return _not_refused(self._http, await self._http.request("POST", f"{SESSIONS}/create", json=body, retry=Retry.UNSENT))
            except ProviderError as error:
                if chosen is not None or error.status not in (404, 405):
                    raise
        return _not_refused(self._http, await self._http.request("POST", SESSIONS, json=body, retry=Retry.UNSENT))

    async def _init_client(self) -> str | None:
        """Once: a second call was seen to open a second stream. A remark where we were to listen and cannot."""
        answer = await self._post("init-client", retry=Retry.UNSENT, json={})
        given = answer.fields().get("turn")
        turn = given if isinstance(given, dict) else {}
        if isinstance(secret := turn.get("credential"), str):
            self.context.seal(secret)
        assert self.session_id is not None
        url = answer.need("whepUrl")
        if self._ear is None:
            self.context.publish(Viewer("whep", "kaltura", self.session_id, url, self._token, turn or None))
            return None
        self.context.publish(Viewer("whep", "kaltura", self.session_id, token=self._token))  # the viewer's place is ours
        return await self._ear.begin(StreamAddress(url, _turn(turn)), self.context.keep("heard.wav"))

    async def _keep_alive(self) -> None:
        clock, jitter = self.context.clock, random.Random(self.session_id)
        while True:
            await clock.sleep_until(clock.now_ms() + KEEP_ALIVE_MS - jitter.randrange(JITTER_MS))
            try:
                await self._post("keep-alive", retry=Retry.SAFE, json={})
                self.answered()
            except ProviderError as error:
                raise ProviderError(f"session lost: the keep-alive failed: {error.message}", status=error.status) from error

    # speaking

    async def _say(self, command: SayText) -> TaskAccepted:
        if self._text_is_gone or command.task in self._pieces:
            return await self._say_by_ourselves(command)
        body = {"text": command.text, "turnId": command.task, "isFinal": command.final}
        try:
            await self._post("say-text", retry=Retry.UNSENT, json=body)
        except ProviderError as error:
            unavailable = error.status == 503
            if unavailable and self._voice is not None and command.chunk == 1:
                self._text_is_gone = True
                return await self._say_by_ourselves(command)
            half = command.chunk > 1 or (error.outcome == "ambiguous" and not command.final)
            if half and error.outcome != "lost":
                await self._drop_half_a_line()
            if unavailable:
                raise ProviderError(TEXT_UNAVAILABLE, status=503) from error
            raise
        return TaskAccepted(command.task, chunk=command.chunk)

    async def _say_by_ourselves(self, command: SayText) -> TaskAccepted:
        """The local voice speaks; the service plays it."""
        from playbook.providers.local.spoken import not_spoken
        from playbook.speech.voice import Settings

        assert self._voice is not None
        pieces = self._pieces.setdefault(command.task, [])
        pieces.append(command.text)
        why = "text is unavailable (503)"
        if not command.final:
            return TaskAccepted(command.task, chunk=command.chunk, reason=f"{why}: kept for the local voice until the line is complete")
        del self._pieces[command.task]
        settings = Settings(language=self._settings.get("voiceConfig", {}).get("language"))
        try:
            speech = await asyncio.to_thread(self._voice.speak, "".join(pieces), settings)
            upload = await self._encode(speech.sound)
        except SetupError as error:
            raise ProviderError(f"{why}, and the local voice fails: {error.message}") from error
        await self._upload(command.task, upload)
        left_out = not_spoken([speech.text[start:end] for start, end in speech.unspoken], masked=command.shown is not None)
        reason = "; ".join(filter(None, (f"{why}: spoken by the local voice", left_out)))
        return TaskAccepted(command.task, chunk=command.chunk, duration_ms=upload.duration_ms, reason=reason)

    async def _drop_half_a_line(self) -> None:
        """A line whose end was refused, or may not have come, would hold up all that follow, unnoticed: take back its beginning.
        If that fails, too, nothing is worse."""
        try:
            await self._post("interrupt", retry=Retry.SAFE, json={}, budget_ms=DROP_BUDGET_MS)
        except ProviderError:
            return

    async def _play_audio(self, command: PlayAudio) -> TaskAccepted:
        upload = self._uploads[command.audio_sha256]
        await self._upload(command.task, upload)
        return TaskAccepted(command.task, duration_ms=upload.duration_ms)

    async def _upload(self, task: str, upload: _Upload) -> None:
        form = {"turnId": task, "duration": upload.seconds}
        await self._post("say-audio", retry=Retry.UNSENT, data=form, files={"audio": ("audio", upload.mp3, "audio/mpeg")})

    async def _interrupt(self, command: StopSpeaking) -> TaskAccepted:
        await self._post("interrupt", retry=Retry.SAFE, json={}, budget_ms=INTERRUPT_BUDGET_MS)
        return TaskAccepted(command.task)

    # closing

    async def _close(self, reason: str) -> None:  # noqa: ARG002 -- Kaltura is told none
        assert self.session_id is not None
        if self._token is None:
            raise ProviderError("the session cannot be ended: its token was never received")
        await end(self._http, self.session_id)

    async def _release(self) -> None:
        self._encoding = False
        if self._ear is not None:
            await self._ear.end()
        await self._http.aclose()
        await self._service.aclose()

    def _explain(self, answer: Answer, text: str) -> ProviderError | None:
        return refusal(answer, text, _AT_CREATE if self._token is None else _LATER)

    async def _post(self, operation: str, *, retry: Retry, **request: Any) -> Answer:
        assert self.session_id is not None
        return _succeeded(self._http, await self._http.request("POST", _path(self.session_id, operation), retry=retry, **request))


async def end(http: Http, session: str) -> None:
    """End a session. An answer that makes no sense is followed by a second request, which tells. Raises `SessionGone` when the session had
    ended before."""
    for last in (False, True):
        try:
            _succeeded(http, await http.request("POST", _path(session, "end"), json={}, retry=Retry.SAFE))
            return
        except ProviderError as error:
            if error.status in (404, 410):
                raise SessionGone("Kaltura had ended the session before", repeated=error.repeated or last) from error
            if last or error.outcome != "ambiguous" or error.status != 200:
                raise


def _turn(given: Mapping[str, Any]) -> Mapping[str, str] | None:
    """The TURN server as the service names it: a bare host, which has to be expanded; None where it names none."""
    host, username, credential = (given.get(name) for name in ("url", "username", "credential"))
    if not isinstance(host, str) or not isinstance(username, str) or not isinstance(credential, str):
        return None
    bare = host.removeprefix("turns:").removeprefix("turn:").partition("?")[0].partition(":")[0]
    return {"host": bare, "username": username, "credential": credential}


def _path(session: str, operation: str) -> str:
    return f"{SESSIONS}/{quote(session, safe='')}/{operation}"


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def refusal(answer: Answer, text: str, meanings: Mapping[int, tuple[_Outcome, str]] = _LATER) -> ProviderError | None:
    """What a status means here."""
    if answer.status not in meanings:
        return None
    outcome, meaning = meanings[answer.status]
    return ProviderError(f"{meaning} ({answer.status}{': ' + text if text else ''})", outcome=outcome)


def _not_refused(http: Http, answer: Answer) -> Answer:
    """A 200 that does not say that it is none."""
    if answer.fields().get("success") is False:
        why = http.quote(said(answer)) or "no reason given"
        raise ProviderError(f"the service answered {answer.status}, but refused: {why}", status=answer.status)
    return answer


def _succeeded(http: Http, answer: Answer) -> Answer:
    """A 200 that says so itself. (Creating is judged by what it gives out: a session must not get lost over a missing word.)"""
    if _not_refused(http, answer).fields().get("success") is not True:
        what = f"the service answered {answer.status}, but not whether it did what was asked"
        raise ProviderError(what, outcome="ambiguous", status=answer.status)
    return answer
