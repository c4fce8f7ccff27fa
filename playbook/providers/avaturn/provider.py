"""Avaturn Live, `provider: avaturn`: what its two engines can do, and what is doubtful about a plan for them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from playbook.errors import Problem
from playbook.model import Capabilities, Evidence, Plan
from playbook.ports import SessionRecord, Transports
from playbook.providers.base import Context, Session, new_voice
from playbook.providers.queued import SessionGone

if TYPE_CHECKING:
    from playbook.speech.voice import Voice

from playbook.providers.avaturn.session import BASE_URL, NOT_SCRIPTED, USER_ABSENT_TIMEOUT_S, TextEchoSession, api_key, bearer, end, explain
from playbook.transports.http import address_of

MAX_DURATION_S = 3600
IDLE_MS = 300_000
"""The silence after which a viewer's page leaves that was not made to stay."""
GO_S = 300
"""How long we think an operator may take to give the sign for a start."""
TAIL_MS = 1_500
"""How long a text echo session outlives its last line, since a voice may be slower than the estimate and DELETE kills it in mid-word."""
START_LATENCY_MS = 500
"""How long we reckon with from the acceptance of a text to its first word (no figure is published). Too short, and the last word is cut."""
EXTERNAL_ONLY = ("listen", "voice", "rate", "pitch")


def engine_of(settings: Mapping[str, Any]) -> str:
    """The type of the conversation engine."""
    engine = settings.get("conversation_engine") or {}
    return str(engine.get("type", "text-echo"))


class AvaturnProvider:
    """Both engines; which one, the settings say."""

    name = "avaturn"
    schema = "avaturn.schema.json"
    credentials = (("AVATURN_API_KEY",),)
    emulator = "playbook.providers.avaturn.emulator:AvaturnEmulator"
    viewer: Literal["whep", "daily"] = "daily"
    problems: Mapping[str, str] = {
        "PB452": "an Avaturn engine that cannot speak given lines",
        "PB453": "a setting that does nothing with this Avaturn engine",
        "PB454": "a start that may outlast Avaturn's patience",
    }
    stands: Mapping[str, Mapping[str, Any]] = {
        "avaturn": {"unsupported_sdk_cancel": True},
        "avaturn-external": {"conversation_engine": {"type": "external", "url": "wss://avatar.example.com/playbook"}},
    }

    def __init__(self, local_voice: Callable[[], Voice] | None = None) -> None:
        self.local_voice = local_voice or new_voice

    def capabilities(self, settings: Mapping[str, Any]) -> Capabilities:
        engine = engine_of(settings)
        cancel = settings.get("unsupported_sdk_cancel") is True
        # The engines that cannot perform a script get external's capabilities, so that `check` says the one reason once.
        text_echo = engine == "text-echo"
        return Capabilities(
            audio_echo=not text_echo,
            interrupt=("all" if cancel else "none") if text_echo else "all",
            speech="none" if text_echo else "reported",
            source_evidence=Evidence.reported if settings.get("viewer") == "room" else None,
            own_voice=engine == "external",
            start_latency_ms=START_LATENCY_MS if text_echo else 0,
            tail_ms=TAIL_MS if text_echo else 0,
            max_session_ms=settings.get("max_duration", MAX_DURATION_S) * 1000,
            idle_limit_ms=None if settings.get("viewer_keep_alive") else IDLE_MS,
            price_per_minute=settings.get("price_per_minute"),
        )

    def check(self, plan: Plan) -> Iterator[Problem]:
        engine = engine_of(plan.session)
        if engine in NOT_SCRIPTED:
            step = next((step for step in plan.steps if step.speaks and step.skipped is None), None)
            if step is not None:
                remedy = "use the engine text-echo or external"
                message = f"the engine {engine} cannot perform a playbook: it {NOT_SCRIPTED[engine]}"
                yield Problem("PB452", message, step.place, remedy, via=step.via)
            return
        useless = EXTERNAL_ONLY if engine == "text-echo" else ("unsupported_sdk_cancel", "viewer")
        for name in useless:
            if name in plan.session:
                other = "external" if engine == "text-echo" else "text-echo"
                yield Problem(
                    "PB453", f"'{name}' does nothing with the engine {engine}", plan.place_of(name), f"remove it, or use the engine {other}"
                )
        patience_s = plan.session.get("user_absent_timeout", USER_ABSENT_TIMEOUT_S)
        start_s = {"ready": 0, "delay": plan.start.delay_ms / 1000, "go": GO_S, "viewer": 0}[plan.start.kind]
        if start_s > patience_s and plan.session.get("viewer") != "room":
            message = f"Avaturn ends the session when nobody has watched for {patience_s} s, and the start may take longer"
            remedy = f"set user_absent_timeout to {math.ceil(start_s)} or more"
            yield Problem("PB454", message, plan.place_of("user_absent_timeout"), remedy, "warning")

    def needs_voice(self, plan: Plan) -> bool:
        return engine_of(plan.session) == "external" and bool(plan.texts)

    def connect(self, context: Context) -> Session:
        if engine_of(context.settings) == "external":
            from playbook.providers.avaturn.external import ExternalSession

            return ExternalSession(context, self.local_voice())
        if context.settings.get("viewer") == "room":
            from playbook.providers.avaturn.room import RoomSession

            return RoomSession(context)
        return TextEchoSession(context)

    async def probe(self, plan: Plan, env: Mapping[str, str], transports: Transports) -> Sequence[str]:  # noqa: ARG002  # any plan
        """There is no call that only asks. Ending a session that cannot exist is refused with 404 when the key is good."""
        async with transports.http(env.get("AVATURN_BASE_URL") or BASE_URL, headers=bearer(api_key(env)), explain=explain) as http:
            with contextlib.suppress(SessionGone):
                await end(http, "00000000-0000-0000-0000-000000000000")
        return ["the key is accepted"]

    async def end_session(self, record: SessionRecord, env: Mapping[str, str], transports: Transports) -> None:
        """End the session of a process that is gone."""
        assert record.session is not None
        base = address_of(record.facts.get("base_url"), "AVATURN_BASE_URL", env, BASE_URL)
        async with transports.http(base, headers=bearer(api_key(env)), explain=explain) as http:
            with contextlib.suppress(SessionGone):
                await end(http, record.session)
