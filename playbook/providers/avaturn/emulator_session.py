"""A session of Avaturn's emulator: its queue, what is told of it in its room, and the caller of the external engine.

How faithfully, `emulator` says, whose options decide whatever can be one way or another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from playbook.emulators.base import LiveSession
from playbook.emulators.faults import SLOW_MS
from playbook.emulators.room import Guest
from playbook.emulators.speech import Sighting
from playbook.speech.audio import to_ms
from playbook.transports.http import is_loopback
from playbook.transports.room import Participant

if TYPE_CHECKING:
    from playbook.providers.avaturn.emulator import AvaturnEmulator

RATE = 24_000
BEGIN_MS = 120
"""How much sound of a segment must be there before the avatar begins with it."""
PING_S, PONG_S = 75, 30
MICROPHONE_MS = 20
HTTP_ERROR = 'Connection(Api(RoomLookup(RoomInfoFetchFailed(IoError(Custom { kind: Other, error: "HTTP error: %s" })))))'


class AvaturnSession(LiveSession):
    """One session, of whichever engine."""

    emulator: AvaturnEmulator

    def __init__(self, emulator: AvaturnEmulator, id: str, wanted: Mapping[str, Any], **voice: int) -> None:
        self.engine: Mapping[str, Any] = wanted.get("conversation_engine") or {"type": "text-echo"}
        self.kind: str = self.engine["type"]
        self.token = emulator.seal(secrets.token_urlsafe(24))
        self.segments: dict[str, str] = {}
        """Of the external engine: the caller's names for our segments."""
        self.broke = False
        """The quota is used up, which only a viewer is told."""
        self._open: str | None = None
        self._void = False  # the open segment was interrupted: what still comes for it is nobody's
        self._bytes = 0
        self._outbox: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.avatar = Participant(f"avatar-of-{id}", "Avatar", audio=True, video=True, owner=True)
        self._guests: list[Guest] = []
        super().__init__(
            emulator,
            id,
            max_ms=wanted.get("max_duration", 3600) * 1000,
            absent_ms=wanted.get("user_absent_timeout", 60) * 1000,
            needs_viewer=True,
            start_on=BEGIN_MS if self.kind == "external" else None,
            **voice,
        )

    def connect_viewer(self) -> None:
        super().connect_viewer()
        if self.broke:
            error = {"type": "session_lifecycle_error", "code": "limits_exceeded", "session_id": self.id}
            self._broadcast({"type": "error", "error": error})
            self.end("limits_exceeded")

    def tell(self, sighting: Sighting) -> None:
        if self.kind == "external":
            self._report(sighting)
            return
        line, phrases = sighting.utterance, self.emulator.options.phrases
        phrase = {"task": line.task, "own": f"phrase-{line.n}", "none": None}[phrases]
        if self.emulator.faults.hits("wrong-id", *line.names):
            phrase = "task-unknown"
        named = {} if phrase is None else {"phrase_id": phrase}
        bracket = {"type": f"avatar_{sighting.kind}_speaking"}
        told = [bracket | named, {"type": f"avatar_{sighting.kind}_speaking_phrase"} | named]
        for message in told if sighting.kind == "started" else [told[1], bracket]:
            self._broadcast(message)

    def on_end(self, reason: str) -> None:  # noqa: ARG002 -- nobody is told why
        self._outbox.put_nowait(None)
        for guest in tuple(self._guests):
            guest.tell("left", self.avatar, "leftCall")
            guest.expel("the meeting has ended")

    # its room

    def enter(self, guest: Guest) -> None:
        """Somebody comes in, and watches."""
        self._guests.append(guest)
        guest.admit()
        guest.tell("joined", self.avatar)
        self.connect_viewer()

    def leave(self, guest: Guest) -> None:
        """Somebody has gone."""
        if guest in self._guests:
            self._guests.remove(guest)
            self.disconnect_viewer()

    def _broadcast(self, message: Mapping[str, Any]) -> None:
        self.emulator.note("viewer_event", session=self.id, **message)
        for guest in tuple(self._guests):
            guest.message(message, self.avatar.id)

    # the external engine

    async def dial(self) -> None:
        """Connect to the backend, once, and serve it until one of us hangs up."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import InvalidHandshake

        url, behaviour = self.engine["url"], self.emulator.options.socket
        if behaviour == "absent":
            return
        if not is_loopback(urlsplit(url).hostname or ""):
            self.emulator.note("dial_refused", session=self.id, reason="an emulator calls nobody outside of this machine")
            self.end("socket")
            return
        headers = {} if behaviour == "stranger" else self.engine.get("headers") or {}
        try:
            async with connect(
                url,
                additional_headers=headers,
                user_agent_header=None,
                compression=None,
                proxy=None,
                ping_interval=PING_S,
                ping_timeout=PONG_S,
            ) as socket:
                self.emulator.note("socket_opened", session=self.id)
                writer = asyncio.ensure_future(self._write(socket))
                try:
                    await self._read(socket)
                finally:
                    writer.cancel()
                    await asyncio.wait([writer])
        except (OSError, TimeoutError, InvalidHandshake) as error:
            self.emulator.note("dial_failed", session=self.id, reason=str(error))
        self.end("socket")

    async def _read(self, socket: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            if self.emulator.options.socket == "babbles":
                self._babble()
            if self.emulator.options.microphone:
                self._listen()
            async for message in socket:
                if isinstance(message, str):
                    self._command(message)
                else:
                    self._sound(message)
                    if self.emulator.options.socket == "drops":
                        socket.transport.abort()

    async def _write(self, socket: Any) -> None:
        from websockets.exceptions import ConnectionClosed

        with contextlib.suppress(ConnectionClosed):
            while (message := await self._outbox.get()) is not None:
                await socket.send(message)
            await socket.close()

    def _say(self, type: str, **fields: Any) -> None:
        if self.alive:
            self._outbox.put_nowait(json.dumps({"type": type, **fields}))

    def _complain(self, subtype: str, reason: str) -> None:
        self._say("error", subtype=subtype, reason=reason)

    def _command(self, text: str) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            self._complain("json.parsing.error", "a text frame must hold JSON")
            return
        if not isinstance(message, dict):
            self._complain("message.type.error", "a message is a JSON object")
            return
        self.emulator.note("message", session=self.id, **{key: message[key] for key in ("type", "segment_uid", "data") if key in message})
        command, uid = _COMMANDS.get(str(message.get("type"))), message.get("segment_uid")
        if command is None:
            self._complain("message.type.error", f"unknown message type {message.get('type')!r}")
        elif command in (AvaturnSession._create, AvaturnSession._close) and not isinstance(uid, str):
            self._complain("message.type.error", "segment_uid: a string is required")
        else:
            command(self, uid or "")

    def _create(self, uid: str) -> None:
        if self._open is not None:
            self._complain("avatar.speech.segment.error", "a segment is open already")
            return
        self._open, self._void, self._bytes = uid, False, 0
        segment = self.segments[uid] = f"seg-{self.queue.count + 1}"
        line = uid.partition("#")[0]  # whoever calls the segments of one line `x`, `x#2` and so on may let a fault strike the line
        names = self.queue.line(uid, of=line).names
        self.queue.add(uid, duration_ms=0, final=False, of=line)
        delay_ms = SLOW_MS if self.emulator.faults.hits("slow-accept", *names) else 0
        self._later(delay_ms, lambda: self._say("avatar.speech.segment.created", segment_id=segment, segment_uid=uid))

    def _sound(self, pcm: bytes) -> None:
        if self._open is None:
            self._complain("avatar.speech.segment.error", "sound outside of a segment")
        elif not self._void:
            before_ms = _ms(self._bytes)
            self._bytes += len(pcm)
            self.queue.add(self._open, duration_ms=_ms(self._bytes) - before_ms, final=False)

    def _close(self, uid: str) -> None:
        if uid != self._open:
            self._complain("avatar.speech.segment.error", "no such segment is open")
            return
        self._open = None
        if not self._void:
            self.queue.close(uid)
        self._say("avatar.speech.segment.closed", segment_id=self.segments[uid], segment_uid=uid)

    def _interrupt(self, _: str) -> None:
        hit = self.queue.interrupt()
        self._void = self._void or any(line.task == self._open for line in hit)

    def _forward(self, _: str) -> None:
        """A message for the viewer's page; the journal has it."""

    def _report(self, sighting: Sighting) -> None:
        line = sighting.utterance
        wrong = self.emulator.faults.hits("wrong-id", *line.names)
        ids = {"segment_id": "seg-unknown" if wrong else self.segments[line.task], "segment_uid": "unknown" if wrong else line.task}
        timestamp = (self.clock.now_ms() - self.created_ms) / 1000
        if sighting.interrupted:
            self._say("avatar.speech.segment.playback.interrupted", **ids, played_duration=sighting.heard_ms / 1000)
        if not sighting.interrupted or self.emulator.options.socket == "pairs":
            self._say(f"avatar.speech.segment.playback.{sighting.kind}", **ids, timestamp=timestamp)

    def _babble(self) -> None:
        for message in ({"type": "avatar.mood.changed", "mood": "good"}, {"no": "type"}, ["a list"], {"type": 7}, None):
            self._outbox.put_nowait(json.dumps(message))
        self._outbox.put_nowait("this is not JSON")
        self._outbox.put_nowait("[" * 100_000)
        unknown = {"segment_id": "seg-999", "segment_uid": 999, "played_duration": "long", "timestamp": None, "extra": {}}
        self._outbox.put_nowait(json.dumps({"type": "avatar.speech.segment.created", **unknown}))
        self._complain("made.up.error", "something that no document mentions")

    def _listen(self) -> None:
        """Send the visitor's microphone: silence, for ever."""
        if self.alive:
            rate = ((self.engine.get("audio") or {}).get("user") or {}).get("sample_rate", RATE)
            self._outbox.put_nowait(bytes(2 * rate * MICROPHONE_MS // 1000))
            self._later(MICROPHONE_MS, self._listen)

    def _later(self, after_ms: int, do: Callable[[], None]) -> None:
        if after_ms:
            self.clock.call_at(self.clock.now_ms() + after_ms, do)
        else:
            do()


_COMMANDS: dict[str, Callable[[AvaturnSession, str], None]] = {
    "avatar.speech.segment.create": AvaturnSession._create,
    "avatar.speech.segment.close": AvaturnSession._close,
    "avatar.speech.interrupt": AvaturnSession._interrupt,
    "sdk.message.send": AvaturnSession._forward,
}


def _ms(size: int) -> int:
    """How long so many bytes of sound last."""
    return to_ms(size // 2, RATE)
