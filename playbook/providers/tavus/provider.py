"""Tavus in echo mode, `provider: tavus`: what it can do, what is doubtful about a plan for it, and the conversations of an account."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from playbook.errors import MASK, Problem, SetupError
from playbook.model import Capabilities, Plan
from playbook.ports import SETTLED_S, SessionRecord, Transports
from playbook.providers.base import Context, FoundSession, Search, Session, new_voice
from playbook.providers.queued import SessionGone

if TYPE_CHECKING:
    from playbook.speech.voice import Voice

from playbook.providers.tavus.session import API, TEST_MODE, account, active, api_key, end, explain
from playbook.transports.http import Retry, address_of

CLOCKS_S = 300
"""By how much Tavus's clock and ours may differ when we compare times of creation."""
MESSAGES_ONLY = ("listen", "pace", "lead", "sample_rate", "done_as")
MICROPHONE_ONLY = ("track", "voice", "rate", "pitch")
TAIL_MS = 500
"""How long after the reported end of the last line the audience may still hear it: reports travel faster than sound and picture."""
REST_LATENCY_MS = 1_000
"""How long after the acceptance of a request a line is expected to be heard (no figure is published)."""
TRACK_TAIL_MS = 1_500
"""The same for our own track, which the face speaks only after it has heard it."""


class TavusProvider:
    """Both ways to speak; which one, `echo_via` says."""

    name = "tavus"
    schema = "tavus.schema.json"
    credentials = (("TAVUS_API_KEY",),)
    emulator = "playbook.providers.tavus.emulator:TavusEmulator"
    viewer: Literal["whep", "daily"] = "daily"
    problems: Mapping[str, str] = {
        "PB465": "Tavus is told no PAL",
        "PB466": "a setting that does nothing with this way to a Tavus face",
        "PB467": "a Tavus face that joins another room",
        "PB468": "a greeting that Tavus may speak unasked",
        "PB469": "a Tavus room in which nobody can watch",
    }
    stands: Mapping[str, Mapping[str, Any]] = {
        "tavus": {"pal_id": "p5c0ffee1234"},
        "tavus-rest": {"pal_id": "p5c0ffee1234", "echo_via": "rest"},
        "tavus-microphone": {"pal_id": "p5c0ffee1234", "echo_via": "microphone"},
    }

    def __init__(self, local_voice: Callable[[], Voice] | None = None) -> None:
        self.local_voice = local_voice or new_voice

    def capabilities(self, settings: Mapping[str, Any]) -> Capabilities:
        way = settings.get("echo_via", "messages")
        microphone, deaf = way == "microphone", way == "rest" and not settings.get("listen")
        longest_s = (settings.get("properties") or {}).get("max_call_duration")
        return Capabilities(
            speech="exact" if microphone else "none" if deaf else "reported",
            interrupt="all",
            own_voice=microphone,
            start_latency_ms=REST_LATENCY_MS if deaf else 0,
            tail_ms=TRACK_TAIL_MS if microphone or deaf else TAIL_MS,
            max_session_ms=None if longest_s is None else longest_s * 1000,
            price_per_minute=settings.get("price_per_minute"),
            opens_only=TEST_MODE if settings.get("test_mode") else None,
        )

    def check(self, plan: Plan) -> Iterator[Problem]:
        settings = plan.session
        if not any(name in settings for name in ("pal_id", "persona_id", "pal")):
            remedy = "name a PAL in echo mode by its id, `session: {pal_id: …}`, or by its name, `session: {pal: {name: …, face_id: …}}`"
            yield Problem("PB465", "tavus is not told which PAL appears", plan.place_of(), remedy)
        way = settings.get("echo_via", "messages")
        other = "messages" if way == "microphone" else "microphone"
        for name in MESSAGES_ONLY if way == "microphone" else MICROPHONE_ONLY:
            if name in settings:
                yield Problem(
                    "PB466", f"'{name}' does nothing with echo_via: {way}", plan.place_of(name), f"remove it, or set echo_via: {other}"
                )
        elsewhere = "meeting_url" if "meeting_url" in settings else "livekit_ws_url"
        if elsewhere in settings or elsewhere in (settings.get("properties") or {}):
            place = plan.place_of(elsewhere if elsewhere in settings else f"properties.{elsewhere}")
            yield Problem("PB467", f"with '{elsewhere}' the face joins another room than the one we speak in", place, "remove it")
        if "custom_greeting" in settings:
            message = "nobody knows whether a greeting is spoken in echo mode; it would be speech that the plan does not have"
            yield Problem("PB468", message, plan.place_of("custom_greeting"), "make it the first line of the timeline", "warning")
        if settings.get("max_participants") == 2:
            message = "nobody can watch: the face is one participant and we are the other"
            yield Problem("PB469", message, plan.place_of("max_participants"), "set max_participants to 3 or more", "warning")

    def needs_voice(self, plan: Plan) -> bool:
        return plan.capabilities.own_voice and bool(plan.texts)

    def connect(self, context: Context) -> Session:
        if context.settings.get("echo_via") == "microphone":
            from playbook.providers.tavus.microphone import MicrophoneSession

            return MicrophoneSession(context, self.local_voice())
        if context.settings.get("echo_via") == "rest":
            from playbook.providers.tavus.rest import RestSession

            return RestSession(context)
        from playbook.providers.tavus.echo import EchoSession

        return EchoSession(context)

    async def end_session(self, record: SessionRecord, env: Mapping[str, str], transports: Transports) -> None:
        """End the conversation of a process that is gone."""
        assert record.session is not None
        base = address_of(record.facts.get("base_url"), "TAVUS_BASE_URL", env, API)
        async with transports.http(base, headers=api_key(env), explain=explain) as http:
            with contextlib.suppress(SessionGone):
                await end(http, record.session)

    async def list_sessions(self, env: Mapping[str, str], transports: Transports) -> Sequence[FoundSession]:
        """Every active conversation of this key's account, whoever opened it."""
        async with transports.http(env.get("TAVUS_BASE_URL") or API, headers=api_key(env), explain=explain) as http:
            return await active(http)

    async def probe(self, plan: Plan, env: Mapping[str, str], transports: Transports) -> Sequence[str]:
        """The account's conversations are listed, and the PAL is looked at."""
        async with transports.http(env.get("TAVUS_BASE_URL") or API, headers=api_key(env), explain=explain) as http:
            open_now = len(await active(http))
            good = [f"the key is accepted ({open_now} open now)"]
            for field, path in (("pal_id", "/v2/pals"), ("persona_id", "/v2/personas")):
                if (id := plan.session.get(field)) is not None:
                    await http.request("GET", f"{path}/{quote(id, safe='')}", retry=Retry.SAFE)
                    good.append(f"{field} {id} exists")
        return good

    async def find_session(self, record: SessionRecord, env: Mapping[str, str], transports: Transports) -> Search:
        """By the mark in its name. A name that the author chose is not ours alone, and an item without a name rules nothing out: such a
        conversation may be it if it began when ours would have."""
        base = address_of(record.facts.get("base_url"), "TAVUS_BASE_URL", env, API)
        async with transports.http(base, headers=api_key(env), explain=explain) as http:
            found = await active(http)
        if record.mark and (ours := [item.session for item in found if record.mark in item.name]):
            return Search(ours[0])
        if record.facts.get("account") not in (None, account(env)):
            raise SetupError(
                "it was created with another key, so what Tavus lists now may not be all",
                remedy="set TAVUS_API_KEY to the key of that run",
            )
        name = record.facts.get("name")
        early, late = (record.since + datetime.timedelta(seconds=s) for s in (-CLOCKS_S, SETTLED_S + CLOCKS_S))
        alike = [item for item in found if item.name in ("", name) or (name is not None and MASK in name)]
        return Search(may_be=[item for item in alike if item.since is None or early <= item.since <= late])
