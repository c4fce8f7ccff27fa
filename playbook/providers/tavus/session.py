"""Tavus in echo mode, `provider: tavus`: the conversation, its room, and the face in it.

What the vendor's documentation says (https://docs.tavus.io/llms.txt lists its pages; https://docs.tavus.io/openapi.yaml is the contract),
in short:

* REST opens and ends a conversation; every word goes through the Daily room that it opens. Money counts from the creation to the end,
  speech or not, so `end` is called whatever happens. A conversation has time limits of its own, which we always set.
* What speaks is a *PAL* (formerly persona) in echo mode, with a *face* (formerly replica). Both generations of names work. A PAL in any
  other mode leads a conversation of its own and is refused before anything is paid for.
* A message that is sent before the face has come is lost, so we wait for it. In the room it goes by the PAL's name.
* Text and sound go as messages (`tavus_echo`, where Tavus reports speech), or everything as a track of sound (`tavus_microphone`).
* A conversation in test mode costs nothing, is over at once, and nobody joins it.

A conversation that is over answers 400, as one that never was; only a look at it tells. (Not documented; both are taken for an end.)
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from playbook.clock import Clock
from playbook.errors import ProviderError, SetupError
from playbook.ports import Viewer
from playbook.providers.base import Context, FoundSession
from playbook.providers.queued import QueuedSession, SessionGone
from playbook.providers.tavus import pals
from playbook.providers.tavus.pals import dicts, either, pages
from playbook.providers.told import moment
from playbook.transports.http import Answer, Http, Retry, base_address
from playbook.transports.room import (
    AppMessage,
    Door,
    Participant,
    ParticipantJoined,
    ParticipantLeft,
    ParticipantUpdated,
    Room,
    RoomEvent,
    RoomLost,
    Trouble,
)

API = "https://tavusapi.com"
CONVERSATIONS = "/v2/conversations"
VERBOSE = {"verbose": "true"}
"""With this, Tavus tells also why a conversation ended."""

MARGIN_S = 180
LEFT_S = 60
ABSENT_S = 300
FACE_S = 60.0
"""How long the face may take to come. (Field reports know of half a minute.)"""
STRANGER_S = 10.0
"""After this, somebody in the room who goes by another name than the PAL is taken for the face, if the face has not come."""
STILL_ACTIVE_MS = (500, 1_000, 2_000)
"""The pauses after which a conversation is ended again that Tavus calls active though it has accepted the end."""
WHY_S = 2.0
"""How long it may take Tavus to say what a conversation ended for, when it has."""
FIND_S = 5.0
"""How long we look for a conversation that may have been created without our learning its id."""
OURS = {"extra", "pal", "echo_via", "track", "listen", "pace", "lead", "sample_rate", "done_as", "voice", "language", "rate", "pitch"} | {
    "price_per_minute"
}
"""Settings that are not fields of the vendor's request."""
SERVICE = ""
"""The sender of what comes from the room's service itself, not from somebody in it."""
FACE_USER = "tavus-replica"
"""What the face's user id has in it, by which the vendor's own client tells it from people."""
FACE_IS_READY = (
    "system.pal_joined",
    "system.replica_joined",
    "system.pal_present",
    "system.replica_present",
    "conversation.joined",
)
TEST_MODE = "test mode: Tavus creates the conversation, and nobody joins it"


class TavusSession(QueuedSession):
    """A conversation and its room: what both ways of speaking share."""

    microphone_hz: int | None = None
    """The rate of the sound that we send on a track, if we do."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        key = api_key(context.env)
        context.seal(key["x-api-key"])
        self.settings = context.settings
        self._base = base_address(context.env.get("TAVUS_BASE_URL") or API)
        self._http = context.transports.http(self._base, headers=key, explain=explain, redact=context.redact)
        self._over_at_once = False
        self._url = ""
        self._token: str | None = None
        self._room: Room | None = None
        self._face_name: str | None = None
        self._others: dict[str, Participant] = {}
        self._face: str | None = None
        self._face_came = asyncio.Event()
        self.remark: str | None = None
        """What the room or Tavus told us and no event can tell; it goes into the log with the next event."""

    # what a way of speaking adds

    @property
    def joins(self) -> bool:
        """Whether we are in the room ourselves."""
        return True

    def told(self, kind: str, message: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
        """A message of Tavus that does not concern the room."""

    def sensed(self, event: RoomEvent) -> None:
        """An event of the room that does not concern who is in it."""

    @property
    def room(self) -> Room:
        """The room, once it is open."""
        assert self._room is not None
        return self._room

    def take_remark(self) -> str | None:
        """The remark, once."""
        remark, self.remark = self.remark, None
        return remark

    # opening

    async def _open(self) -> str | None:
        chosen = await pals.choose(self._http, self.settings, microphone=self.microphone_hz is not None)
        self._face_name, self.remark = chosen.name, chosen.remark
        await self.creating(self._create(chosen.fields))
        if self.settings.get("test_mode"):
            return self.take_remark() or TEST_MODE
        await self._enter()
        return self.take_remark()

    async def _create(self, pal: Mapping[str, str]) -> None:
        context = self.context
        given = {name: value for name, value in self.settings.items() if name not in OURS}
        given |= self.settings.get("extra", {})
        longest_s = math.ceil(context.lasts_ms / 1000) + MARGIN_S
        limits = {
            "max_call_duration": longest_s,
            "participant_left_timeout": LEFT_S,
            "participant_absent_timeout": ABSENT_S if self.joins else longest_s,
        }
        properties = limits | dict(self.settings.get("properties") or {})
        absent_s = properties["participant_absent_timeout"]
        # Whoever is called back learns the id and may join, though we never saw it.
        unjoined = None if "callback_url" in given else f"Tavus ends a conversation that nobody has joined for {absent_s} s"
        mark = ""
        try:
            async with context.journal.creating(
                "tavus",
                self._http,
                id_field="conversation_id",
                base_url=self._base,
                account=account(context.env),
                name=given.get("conversation_name"),
                max_session_ms=properties["max_call_duration"] * 1000,
                unjoined_ms=unjoined and absent_s * 1000,
                unjoined=unjoined,
                price_per_minute=context.capabilities.price_per_minute,
            ) as mark:
                body = {"conversation_name": f"{context.name} [playbook {mark}]" if mark else context.name, **pal, **given}
                body["properties"] = properties
                if "replica_id" in given:
                    body.pop("face_id", None)
                answer = await self._request(body)
                self.session_id = answer.need("conversation_id")
                context.journal.created(self.session_id)
        except ProviderError as error:
            if error.outcome == "ambiguous" and mark and await self._find(mark):
                error.message += f"; the conversation was created all the same ({self.session_id}), and is ended"
            raise
        await self._compare_pal(body, answer.fields())
        self._over_at_once = answer.fields().get("status") == "ended"
        if not self.settings.get("test_mode"):
            self._url = answer.need("conversation_url")
        if token := _text(answer.fields().get("meeting_token")):
            context.seal(token)
            self._token = token
        context.publish(Viewer("daily", "tavus", self.session_id, self._url, self._token))

    async def _request(self, body: dict[str, Any]) -> Answer:
        """Create the conversation, by the names as the author wrote them. Which generation of names this route takes is disputed: where it
        refuses one of them by name, before anything was created, the other one is tried."""
        try:
            return await self._http.request("POST", CONVERSATIONS, json=body, retry=Retry.UNSENT)
        except ProviderError as error:
            other = pals.in_other_names(body)
            refused = error.status == 400 and any(name in error.message for name in body.keys() - other.keys())
            if not refused:
                raise
            try:
                return await self._http.request("POST", CONVERSATIONS, json=other, retry=Retry.UNSENT)
            except ProviderError as again:
                raise (error if again.status == 400 else again) from again

    async def _compare_pal(self, asked: Mapping[str, Any], created: Mapping[str, Any]) -> None:
        """Another PAL than the one that was asked for would be paid for, and talk by itself. Raises `ProviderError`."""
        wanted = either(asked, *pals.NAMES)
        found = either(created, *pals.NAMES)
        if wanted is None:
            return
        if found is None and created.get("status") != "ended":
            assert self.session_id is not None
            found = either(await _look(self._http, self.session_id), *pals.NAMES)
        if found not in (None, wanted):
            raise ProviderError(
                f"Tavus opened the conversation with the PAL '{found}' and not with '{wanted}'; it is ended",
                remedy="name the PAL by the other generation's field (`persona_id` for `pal_id`, or the other way round)",
            )

    async def _find(self, mark: str) -> bool:
        """Look for the conversation whose id we did not understand, so that it ends with this run and not when somebody sees to it."""
        with contextlib.suppress(ProviderError, TimeoutError):
            async with asyncio.timeout(FIND_S):
                found = [item.session for item in await active(self._http) if mark in item.name]
            for self.session_id in found:
                self.context.journal.created(self.session_id)
                return True
        return False

    async def _enter(self) -> None:
        """Join the room and wait for the face."""
        door = Door(
            self._url,
            self._token,
            microphone_hz=self.microphone_hz,
            track=self.settings.get("track", "microphone"),
            listen=self.settings.get("listen", False),
        )
        self._room = self.context.transports.room(self._url, self._happened)
        await self._room.open(door)
        guess = asyncio.get_running_loop().call_later(STRANGER_S, self._take_a_stranger)
        try:
            async with asyncio.timeout(FACE_S):
                await self._face_came.wait()
        except TimeoutError:
            raise ProviderError(f"the face did not come into the room within {FACE_S:g} s") from None
        finally:
            guess.cancel()

    # what happens in the room

    def _happened(self, event: RoomEvent) -> None:
        try:
            match event:
                case ParticipantJoined(who) | ParticipantUpdated(who):
                    self._meet(who)
                case ParticipantLeft(who, why):
                    self._others.pop(who.id, None)
                    if who.id == self._face:
                        self.lost(f"the face left the room{f' ({why})' if why else ''}")
                case AppMessage(message, sender):
                    self._read(message, sender)
                case Trouble(_, text):
                    self.remark = text
                case RoomLost(_, text):
                    self.lost(f"the room is gone: {text}")
                case _:
                    self.sensed(event)
        except ProviderError as error:
            self.lost(error.message)
        except Exception as error:  # a transport must not be hurt by our bugs
            self.context.crash(error)

    def _meet(self, who: Participant) -> None:
        if not who.local:
            self._others[who.id] = who
            if FACE_USER in who.user or who.owner or self._face_name == who.name:
                self._recognise(who.id)

    def _recognise(self, id: str) -> None:
        if self._face is None and id in self._others:
            self._face = id
            self._face_came.set()
            if self.settings.get("listen"):
                self.room.listen(id)

    def _take_a_stranger(self) -> None:
        somebody = sorted(self._others.values(), key=lambda who: not (who.audio or who.video))
        if somebody and self._face is None:
            self.remark = f"nobody called '{self._face_name}' came; '{somebody[0].name}' is taken for the face"
            self._recognise(somebody[0].id)

    def _read(self, message: Any, sender: str) -> None:
        """One message. What we do not know, or cannot read, we leave aside: new ones appear every few weeks."""
        if not isinstance(message, dict) or message.get("conversation_id") not in (None, self.session_id):
            return
        kind, properties = message.get("event_type"), message.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        if not isinstance(kind, str):
            return
        who = self._others.get(sender)
        if kind in FACE_IS_READY and properties.get("role") != "user" and who is not None and (who.audio or who.video):
            self._recognise(sender)
        if sender not in (self._face, SERVICE):  # anybody in the room can send what looks like the face's
            if kind.startswith(("conversation.", "system.")):
                self.remark = f"ignored a message of '{who.name if who else sender}', who is not the face"
        elif kind == "system.shutdown":
            self.lost(f"Tavus ended the conversation: {either(properties, 'shutdown_reason', 'reason') or 'no reason given'}")
        else:
            self.told(kind, message, properties)

    # closing

    async def _close(self, reason: str) -> str | None:
        assert self.session_id is not None
        facts: Mapping[str, Any] = {}
        if not self._over_at_once:
            # Somebody who stops us does not want to wait for what Tavus says of it.
            look = not reason.startswith(("SIG", "cancelled"))
            with contextlib.suppress(*([SessionGone] if self.settings.get("test_mode") else [])):
                facts = await end(self._http, self.session_id, look=look)
        return _why(facts)

    async def _release(self) -> None:
        if self._room is not None:
            await self._room.close()
        await self._http.aclose()


def api_key(env: Mapping[str, str]) -> dict[str, str]:
    """The header that lets us in."""
    key = env.get("TAVUS_API_KEY", "")
    if not key:
        raise SetupError("TAVUS_API_KEY is not set", remedy="copy a key from Tavus's developer portal, or rehearse with --emulate")
    return {"x-api-key": key}


def account(env: Mapping[str, str]) -> str:
    """Whose key it is: enough to tell two apart, and no way back to the key."""
    return hashlib.sha256(f"playbook {api_key(env)['x-api-key']}".encode()).hexdigest()[:8]


def conversation_path(conversation: str) -> str:
    return f"{CONVERSATIONS}/{quote(conversation, safe='')}"


async def end(http: Http, conversation: str, *, look: bool = True) -> Mapping[str, Any]:
    """End a conversation. A refusal is no proof that it is over, and success is none either if Tavus goes on to say that it is active: then
    it is asked again. Returns what Tavus says of the conversation, if it is asked. Raises `SessionGone` when it had ended before."""
    clock, tries, ended = Clock(), iter(STILL_ACTIVE_MS), False
    while True:
        try:
            await http.request("POST", f"{conversation_path(conversation)}/end", retry=Retry.SAFE)
        except ProviderError as error:
            if error.status not in (400, 404, 409, 410):
                raise
            try:
                facts = (await http.request("GET", conversation_path(conversation), params=VERBOSE, retry=Retry.SAFE)).fields()
            except ProviderError as unknown:
                if unknown.status not in (400, 404, 410):
                    raise
                facts = {"status": "ended"}
            if facts.get("status") != "ended":
                raise
            why = _why(facts)
            what = "Tavus had ended the conversation before" + (f": {why}" if why else "")
            raise SessionGone(what, repeated=error.repeated or ended) from error
        ended = True
        facts = await _look(http, conversation) if look else {}
        if facts.get("status") != "active":
            return facts
        pause_ms = next(tries, None)
        if pause_ms is None:
            raise ProviderError("Tavus accepted the end, but says that the conversation is still active", outcome="ambiguous")
        await clock.sleep_until(clock.now_ms() + pause_ms)


async def _look(http: Http, conversation: str) -> Mapping[str, Any]:
    """What Tavus says of a conversation, if it says so soon."""
    with contextlib.suppress(ProviderError, TimeoutError):
        async with asyncio.timeout(WHY_S):
            return (await http.request("GET", conversation_path(conversation), params=VERBOSE, retry=Retry.NEVER)).fields()
    return {}


def _why(facts: Mapping[str, Any]) -> str | None:
    """For what Tavus says that it ended the conversation, and how long it was."""
    shutdown = next((event for event in dicts(facts.get("events")) if event.get("event_type") == "system.shutdown"), {})
    told = shutdown.get("properties") if isinstance(shutdown.get("properties"), dict) else {}
    why = _text(facts.get("shutdown_reason")) or either(told or {}, "shutdown_reason", "reason")
    begin, over = moment(facts.get("created_at")), moment(shutdown.get("timestamp")) or moment(facts.get("updated_at"))
    if not why:
        return None
    lasted = f", after {(over - begin).total_seconds():.1f} s" if begin is not None and over is not None else ""
    return f"Tavus gives the reason '{why}'{lasted}"


async def active(http: Http) -> list[FoundSession]:
    """Every conversation that is open."""
    return [
        FoundSession(item["conversation_id"], moment(item.get("created_at")), _text(item.get("conversation_name")))
        async for item in pages(http, CONVERSATIONS, {"status": "active"})
        if _text(item.get("conversation_id"))
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def explain(answer: Answer, said: str) -> ProviderError | None:
    """The meaning of a status, and what to do. (Concurrency and credits are not documented; both were seen.)"""
    status = answer.status
    if (status == 400 and "active conversations" in said) or (status in (404, 410) and "no longer available" in said):
        return ProviderError(f"the conversation is over ({status}): {said}", outcome="lost")
    if status == 502 and "could not be delivered" in said:
        return ProviderError(f"Tavus could not deliver the message (502): {said}")
    if status == 504:
        return ProviderError(f"nobody knows whether Tavus delivered the message (504): {said}", outcome="ambiguous")
    if status == 400 and "concurrent" in said.lower():
        what = "no more concurrent conversations are allowed (400); `playbook sessions reconcile --provider tavus` lists the open ones"
        return ProviderError(f"{what}: {said}")
    meaning = {
        400: "Tavus refuses the request (400)",
        401: "the API key is missing, wrong, or not for this network address (401); check TAVUS_API_KEY",
        402: "the account has no conversation credits left (402)",
        403: "the API key may not do that (403)",
    }.get(status)
    return None if meaning is None else ProviderError(f"{meaning}: {said}" if said else meaning)
