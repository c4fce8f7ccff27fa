"""Avaturn Live, `provider: avaturn`: the sessions, and the engine that speaks our text.

What the vendor's documentation says (https://docs.avaturn.live/llms.txt lists its pages), in short:

* Three REST calls are all there is: create a session, append a text to its speech queue, end it. Nothing can be asked of a session.
* Which *engine* makes the speech is chosen when the session is created. Text echo (this file) says queued texts one after another, and only
  while somebody watches (https://docs.avaturn.live/legacy/text-echo). The external engine speaks audio of ours (`avaturn_external`). The
  other two lead conversations of their own and ignore lines, or answer them; we refuse them.
* Text echo tells only the viewer's page when speech begins and ends, so here ends are estimated. It has no interrupt but one that the
  vendor made for its own SDK, and no voice for a single line.
* A session ends by our DELETE, also in the middle of a word, after `max_duration`, or `user_absent_timeout` after the last viewer left or
  before the first came. The viewer's page leaves after five minutes of silence unless it was told to stay
  (https://docs.avaturn.live/web-sdk/reference/events).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from playbook.errors import Place, ProviderError, SetupError
from playbook.events import PlayAudio, SayText, StopSpeaking, TaskAccepted
from playbook.model import Step
from playbook.ports import Viewer
from playbook.providers.base import Context
from playbook.providers.queued import QueuedSession, SessionGone
from playbook.transports.http import Answer, Http, Retry, base_address

PlaceOf = Callable[[str], Place | None]
"""Where a setting was written."""
BASE_URL = "https://api.avaturn.live"
SESSIONS = "/api/v1/sessions"
CANCEL = "/_sdk/v0/sessions/cancel_all_speech_tasks"
USER_ABSENT_TIMEOUT_S = 60
OURS = {
    *("extra", "listen", "voice", "language", "rate", "pitch", "viewer", "viewer_keep_alive"),
    *("unsupported_sdk_cancel", "price_per_minute"),
}
"""Settings that are not fields of the vendor's request."""
NOT_SCRIPTED = {
    "openai-realtime": "takes each line for something that the visitor said, and answers it",
    "cartesia": "accepts each line and ignores it",
}
GONE = (404, 410)


class AvaturnSession(QueuedSession):
    """What both engines have in common: creating and ending."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        key = api_key(context.env)
        context.seal(key)
        self.settings = context.settings
        self.base = base_address(context.env.get("AVATURN_BASE_URL") or BASE_URL)
        explained = partial(explain, place_of=context.place_of)
        self.http = context.transports.http(self.base, headers=bearer(key), explain=explained, redact=context.redact)

    async def create(self, **changes: Any) -> None:
        """Create the session; `changes` replace settings."""
        body = {name: value for name, value in {**self.settings, **changes}.items() if name not in OURS and value is not None}
        body |= self.settings.get("extra", {})
        if "render_model" in body:
            body["model"] = body.pop("render_model")
        try:
            await self.creating(self._create(body))
        except ProviderError as error:
            if error.status == 410:
                error.message = f"the avatar '{body.get('avatar_id', '(default)')}' no longer exists (410)"
                error.remedy = "choose another avatar_id in the dashboard"
            raise

    async def _create(self, body: dict[str, Any]) -> None:
        context, can = self.context, self.context.capabilities
        absent_s = body.get("user_absent_timeout", USER_ABSENT_TIMEOUT_S)
        async with context.journal.creating(
            "avaturn",
            self.http,
            id_field="session_id",
            base_url=self.base,
            max_session_ms=can.max_session_ms,
            unjoined_ms=absent_s * 1000,
            unjoined=f"Avaturn ends a session that nobody has watched for {absent_s} s",
            price_per_minute=can.price_per_minute,
        ):
            answer = await self.http.request("POST", SESSIONS, json=body or None, retry=Retry.UNSENT)
            self.session_id = answer.need("session_id")
            context.journal.created(self.session_id)
        self.token = answer.need("token")
        context.seal(self.token)
        context.publish(Viewer("daily", "avaturn", self.session_id, self.base, self.token))

    async def _close(self, reason: str) -> None:  # noqa: ARG002 -- Avaturn is told none
        assert self.session_id is not None
        await end(self.http, self.session_id)

    async def _release(self) -> None:
        await self.http.aclose()


class TextEchoSession(AvaturnSession):
    """Avaturn speaks our texts. Chunks are consecutive tasks."""

    async def _open(self) -> str | None:
        await self.create()
        if self.settings.get("unsupported_sdk_cancel"):
            self.http.authorize({**bearer(api_key(self.context.env)), "X-Session-Token": self.token})
        return "ends are estimated, and nothing is said while nobody watches: Avaturn reports speech to the viewer's page alone"

    async def _say(self, command: SayText) -> TaskAccepted:
        assert self.session_id is not None
        try:
            answer = await self.http.request("POST", _path(self.session_id) + "/tasks", json={"text": command.text}, retry=Retry.UNSENT)
        except ProviderError as error:
            if error.status == 422 and (step := self._step(command.step)) is not None and step.place is not None:
                error.message += f" (the line at {step.place.file}:{step.place.line})"
            raise
        return TaskAccepted(command.task, answer.need("task_id"), chunk=command.chunk)

    async def _play_audio(self, command: PlayAudio) -> TaskAccepted:  # noqa: ARG002 -- `check` says so before a run
        raise ProviderError("text echo speaks text only; the engine external plays audio")

    async def _interrupt(self, command: StopSpeaking) -> TaskAccepted:
        if not self.settings.get("unsupported_sdk_cancel"):
            raise ProviderError("text echo has no interrupt that its vendor supports; the engine external has one")
        try:
            await self.http.request("POST", CANCEL, retry=Retry.SAFE)
        except ProviderError as error:
            if error.status in GONE:  # the session may live: a private call may be withdrawn at any time
                raise ProviderError("Avaturn does not know the unsupported call for cancelling (any more)", status=error.status) from error
            raise
        return TaskAccepted(command.task)

    def _step(self, id: str) -> Step | None:
        return next((step for step in self.material.plan.steps if step.id == id), None)


def api_key(env: Mapping[str, str]) -> str:
    key = env.get("AVATURN_API_KEY", "")
    if not key:
        raise SetupError("AVATURN_API_KEY is not set", remedy="copy a key from Avaturn's dashboard, or rehearse with --emulate")
    return key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _path(session: str) -> str:
    return f"{SESSIONS}/{quote(session, safe='')}"


async def end(http: Http, session: str) -> None:
    """End a session. Raises `SessionGone` when it had ended before: then whatever was to be said last may not have been."""
    try:
        await http.request("DELETE", _path(session), retry=Retry.SAFE)
    except ProviderError as error:
        if error.status not in GONE:
            raise
        raise SessionGone("Avaturn had ended the session before", repeated=error.repeated) from error


def explain(answer: Answer, said: str, place_of: PlaceOf = lambda _: None) -> ProviderError | None:
    """The documented meaning of a status, and what to do (https://docs.avaturn.live/api-reference/introduction)."""
    if answer.status == 422:
        return ProviderError(f"Avaturn refuses the request (422): {_violations(answer, place_of) or said}")
    meaning = {
        400: "Avaturn refuses the settings (400); check the voice_id, which must be one of ElevenLabs, and the model",
        401: "the API key is missing or revoked (401); check AVATURN_API_KEY",
        404: "Avaturn knows no such session (404): it has ended, or the base URL is another service's",
        410: "what was asked for no longer exists (410)",
    }.get(answer.status)
    if meaning is None:
        return None
    return ProviderError(f"{meaning}: {said}" if said else meaning, outcome="lost" if answer.status in GONE else "refused")


def _violations(answer: Answer, place_of: PlaceOf) -> str:
    """A 422's `detail` list, each fault named by the playbook's own key and, for a setting, its place."""
    detail = answer.fields().get("detail")
    faults = [item for item in detail if isinstance(item, dict)] if isinstance(detail, list) else []
    return "; ".join(f"{_setting(item.get('loc'), place_of)}: {item.get('msg', '')}" for item in faults)


def _setting(loc: Any, place_of: PlaceOf) -> str:
    """Which key is at fault: `session.conversation_engine.url` for `body, conversation_engine, external, url`; `text` for a line's text."""
    parts = [str(part) for part in loc if part != "body"] if isinstance(loc, list) else []
    if len(parts) > 1 and parts[0] == "conversation_engine" and parts[1] in ("text-echo", "external", *NOT_SCRIPTED):
        del parts[1]  # the name of the variant, which is no key
    if parts[:1] == ["text"]:
        return ".".join(parts)
    place = place_of(".".join(parts))
    return ".".join(["session", *parts]) + (f" ({place.file}:{place.line}:{place.column})" if place is not None else "")
