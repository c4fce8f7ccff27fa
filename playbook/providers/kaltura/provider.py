"""Kaltura Avatar, `provider: kaltura`: what it can do, and what is doubtful about a plan for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from playbook.errors import Problem, SetupError
from playbook.formats.durations import parse_duration
from playbook.model import Capabilities, Evidence, Length, Plan, Say
from playbook.ports import SessionRecord, Transports, Viewer
from playbook.providers.base import Context, new_voice
from playbook.providers.kaltura.login import WAYS, mint, read_login
from playbook.providers.queued import SessionGone
from playbook.speech.pacing import estimate_ms

if TYPE_CHECKING:
    from playbook.speech.voice import Voice
    from playbook.transports.whep import ViewerPlace

from playbook.providers.kaltura.session import API, SERVICE, TOKEN_LIFE_MS, KalturaSession, bearer, end, refusal
from playbook.transports.http import address_of

START_LATENCY = "500ms"
"""What the service is assumed to need from taking a line to its first sound; it is not documented."""
TAIL_MS = 1_500
"""How long the session outlives its last line, since a voice may be slower than the estimate."""


class KalturaProvider:
    """What the registry holds."""

    name = "kaltura"
    schema = "kaltura.schema.json"
    credentials = WAYS
    emulator = "playbook.providers.kaltura.emulator:KalturaEmulator"
    viewer: Literal["whep", "daily"] = "whep"
    problems: Mapping[str, str] = {
        "PB480": "Kaltura is told no avatar",
        "PB481": "text for Kaltura without a voice",
        "PB482": "a line for Kaltura that nobody may see",
    }
    stands: Mapping[str, Mapping[str, Any]] = {
        "kaltura": {"visualConfig": {"id": "visual-1"}, "voiceConfig": {"id": "voice-1"}},
    }

    def __init__(self, local_voice: Callable[[], Voice] | None = None) -> None:
        self.local_voice = local_voice or new_voice

    def capabilities(self, settings: Mapping[str, Any]) -> Capabilities:
        return Capabilities(
            speech="none",
            source_evidence=Evidence.heard if settings.get("listen") else None,
            interrupt="unknown",
            chunks_held=True,
            own_voice=False,
            voice_per_line=False,
            start_latency_ms=parse_duration(settings.get("start_latency", START_LATENCY)),
            tail_ms=TAIL_MS,
            max_session_ms=TOKEN_LIFE_MS,
            price_per_minute=settings.get("price_per_minute"),
        )

    def check(self, plan: Plan) -> Iterator[Problem]:
        settings = plan.session
        lines, texts = [step for step in plan.steps if step.speaks and step.skipped is None], plan.texts
        if not settings.get("visualConfig"):
            remedy = "name one by its id in Kaltura's catalogue: `session: {visualConfig: {id: …}}`"
            yield Problem("PB480", "kaltura is not told which avatar appears", plan.place_of("visualConfig"), remedy)
        if texts and not settings.get("voiceConfig", {}).get("id") and settings.get("text_unavailable") != "local-voice":
            message = "text without a voice: sessions that were given none have refused every line of text (503)"
            remedy = "name a voice in `session.voiceConfig.id`, or set `session.text_unavailable: local-voice`"
            yield Problem("PB481", message, texts[0].place, remedy, "warning", via=texts[0].via)
        if lines and plan.start.kind == "ready":
            message = "this line may be spoken before anybody watches; nobody knows what Kaltura does with it then"
            remedy = "set `start: go` (or a delay; `0s` says that you do not mind)"
            yield Problem("PB482", message, lines[0].place, remedy, "warning", via=lines[0].via)

    def lengths(self, plan: Plan) -> Sequence[Length | None]:
        """How long each line of text will take, by estimate: the session tells the language and how fast the voice is."""
        voice = plan.session.get("voiceConfig", {})
        return [
            Length(estimate_ms(step.action.text, voice.get("language"), voice.get("speed", 1.0)), "estimated")
            if isinstance(step.action, Say)
            else None
            for step in plan.steps
        ]

    def needs_voice(self, plan: Plan) -> bool:
        from playbook.providers.kaltura.session import may_need_voice

        return may_need_voice(plan)

    def place(self, viewer: Viewer, transports: Transports, env: Mapping[str, str]) -> ViewerPlace:
        from playbook.providers.kaltura.stream import resource_of
        from playbook.transports.whep import ViewerPlace

        host = urlsplit(env.get("KALTURA_BASE_URL") or API).hostname or ""
        return ViewerPlace(viewer.url, transports.http, vendor_host=host, resource_of=resource_of)

    def connect(self, context: Context) -> KalturaSession:
        return KalturaSession(context, self.local_voice)

    async def probe(self, plan: Plan, env: Mapping[str, str], transports: Transports) -> Sequence[str]:  # noqa: ARG002  # any plan
        """A KS is asked for, where it is not given ready-made."""
        login = read_login(env)
        async with transports.http(env.get("KALTURA_SERVICE_URL") or SERVICE) as service:
            await mint(login, service, lambda _: None)
        return ["a KS is given; whether it is accepted, only a session tells" if login.ks else "the login is accepted"]

    async def end_session(self, record: SessionRecord, env: Mapping[str, str], transports: Transports) -> None:
        token = record.end.get("token")
        if not token:
            raise SetupError("the token of this session was never received, and without it nobody can end the session")
        base = address_of(record.facts.get("base_url"), "KALTURA_BASE_URL", env, API)
        async with transports.http(base, headers=bearer(token), explain=refusal) as http:
            assert record.session is not None
            with contextlib.suppress(SessionGone):
                await end(http, record.session)
