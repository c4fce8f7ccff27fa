"""Text echo with an ear in Avaturn's own room: `session.viewer: room`.

Avaturn tells of speech in a Daily room that its browser SDK joins, by messages that bear a `phrase_id`
(https://docs.avaturn.live/web-sdk/reference/events). We join that room as a viewer that sends nothing and receives no picture: then
somebody watches, so that text echo speaks, and starts and ends are told to us. How to get into the room is a private interface of the
vendor's (`GET /_sdk/v0/sessions`), so this is opt-in; where it is not there, ends stay estimated, and the log says so once.

Which line a message means is decided here by the vendor's ids alone: tasks are spoken in the order in which they were sent; a `phrase_id`
that is no task's id means the oldest task that has not begun. The avatar is the participant who owns the room; people's messages do not
count.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from playbook.errors import ProviderError
from playbook.events import SayText, SourceJoined, SourceLeft, SpeechEnded, SpeechStarted, TaskAccepted
from playbook.model import Evidence
from playbook.providers.avaturn.session import TextEchoSession
from playbook.providers.base import Context
from playbook.transports.http import Retry
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
)

SDK_SESSION = "/_sdk/v0/sessions"
AVATAR_S = 20.0
"""How long the avatar may take to come into the room."""
_STARTED, _ENDED = "avatar_started_speaking_phrase", "avatar_ended_speaking_phrase"
_KEPT = 256
"""How many tasks are remembered for what may still be told of them."""


@dataclass(slots=True, eq=False)
class _Phrase:
    """One task of Avaturn's: a line, or a chunk of one."""

    id: str
    task: str
    first: bool
    final: bool
    phrase: str | None = None  # what the room calls it, if not by its id
    begun: bool = False
    over: bool = False


class RoomSession(TextEchoSession):
    """Text echo, watched and heard by us."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._room: Room | None = None
        self._people: dict[str, Participant] = {}
        self._avatar: str | None = None
        self._avatar_came = asyncio.Event()
        self._listening = False
        self._phrases: deque[_Phrase] = deque(maxlen=_KEPT)

    async def _open(self) -> str | None:
        await super()._open()
        try:
            await self._enter()
        except ProviderError as error:
            return f"ends are estimated: we do not hear Avaturn's room: {error.message}"
        self._listening = True
        self.emit(SourceJoined("room", Evidence.reported))
        return None

    async def _enter(self) -> None:
        """Join the room and wait for the avatar. Raises `ProviderError` where we cannot."""
        answer = await self.http.request("GET", SDK_SESSION, headers={"X-Session-Token": self.token}, retry=Retry.SAFE)
        url, token = answer.need("room_url"), answer.need("limited_access_token")
        self.context.seal(token)
        self._room = self.context.transports.room(url, self._happened)
        await self._room.open(Door(url, token, name="playbook"))
        try:
            async with asyncio.timeout(AVATAR_S):
                await self._avatar_came.wait()
        except TimeoutError:
            raise ProviderError(f"the avatar did not come into the room within {AVATAR_S:g} s") from None

    async def _say(self, command: SayText) -> TaskAccepted:
        accepted = await super()._say(command)
        assert accepted.provider_task is not None
        self._phrases.append(_Phrase(accepted.provider_task, command.task, command.chunk == 1, command.final))
        return accepted

    async def _release(self) -> None:
        if self._room is not None:
            await self._room.close()
        await super()._release()

    # what happens in the room

    def _happened(self, event: RoomEvent) -> None:
        match event:
            case ParticipantJoined(who) | ParticipantUpdated(who):
                self._people[who.id] = who
                if who.owner and not who.local:
                    self._avatar = who.id
                    self._avatar_came.set()
            case ParticipantLeft(who, _):
                self._people.pop(who.id, None)
                if who.id == self._avatar:
                    self.lost("the avatar has left the room: Avaturn has ended the session")
            case AppMessage(message, sender):
                self._told(message, sender)
            case RoomLost(_, text):
                self._deaf(f"the room is gone: {text}")

    def _deaf(self, reason: str) -> None:
        """We hear nothing any more. (The session may live on.)"""
        if self._listening:
            self._listening = False
            self.emit(SourceLeft("room", reason))

    def _told(self, message: Any, sender: str) -> None:
        """A message of the room. What is not about speech, or comes from a person, is left aside."""
        if not isinstance(message, dict) or (sender in self._people and sender != self._avatar):
            return
        kind, name = message.get("type"), message.get("phrase_id")
        name = name if isinstance(name, str) and name else None
        if kind == "error" and isinstance(error := message.get("error"), dict) and error.get("type") == "session_lifecycle_error":
            self.lost(f"Avaturn ended the session: {error.get('message') or error.get('code') or 'no reason given'}")
        elif kind == _STARTED and (phrase := self._meant(name, begins=True)) is not None:
            phrase.begun = True
            if phrase.first:
                self.emit(SpeechStarted(phrase.task, self._surely(phrase, name), name, source="room"))
        elif kind == _ENDED and (phrase := self._meant(name, begins=False)) is not None:
            phrase.begun = phrase.over = True
            if phrase.final:
                self.emit(SpeechEnded(phrase.task, self._surely(phrase, name), name, source="room"))

    def _meant(self, name: str | None, *, begins: bool) -> _Phrase | None:
        """The task that a message means."""
        for phrase in self._phrases:
            if name is not None and name in (phrase.id, phrase.phrase):
                return phrase
        waiting = [phrase for phrase in self._phrases if not phrase.over and phrase.begun is not begins]
        found = waiting[0] if waiting else next((phrase for phrase in self._phrases if not phrase.over), None)
        if found is not None and found.phrase is None:
            found.phrase = name
        return found

    @staticmethod
    def _surely(phrase: _Phrase, name: str | None) -> Evidence:
        return Evidence.reported if name == phrase.id else Evidence.unmatched
