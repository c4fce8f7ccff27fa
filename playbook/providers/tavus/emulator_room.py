"""The room of an emulated Tavus conversation and the face in it: who is there, what the face is told, what it reports and lets be heard.

How faithfully, `emulators.tavus` says, whose options decide whatever can be one way or another.
"""

from __future__ import annotations

import array
import asyncio
import base64
import binascii
import datetime
import itertools
import math
import secrets
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from playbook.clock import wall_time
from playbook.emulators.base import LiveSession
from playbook.emulators.faults import LATE_MS, MUTE_MS, TWICE_MS
from playbook.emulators.room import Guest
from playbook.emulators.speech import Sighting
from playbook.speech.ear import Ear, Heard
from playbook.transports.room import Participant

if TYPE_CHECKING:
    from playbook.providers.tavus.emulator import TavusEmulator

BEGIN_MS = 100
"""How much sound of a line must be there before the face begins with it."""
STARVED_MS = 1_000
"""How long the face waits for the rest of a sound."""
DAY_S = 86_400
SOUND_MS, SOUND_HZ = 40, 16_000
DIES_MS = EARLY_MS = 300
"""Of sound from a microphone, whose length nobody knows: when a session dies in it, and when its end is reported too early."""
LISTEN_MS = 100
"""How often a face that hears sound looks whether it has ended."""
REQUESTS, WINDOW_MS = 120, 60_000
"""How many messages by REST are taken in which time."""
SILENCE_MS = 800
"""How much silence a listener is sent after speech."""
HTTP_ERROR = 'Connection(Api(RoomLookup(RoomInfoFetchFailed(IoError(Custom { kind: Other, error: "HTTP error: %s" })))))'
_REASONS = {
    "duration": "max_call_duration reached",
    "fault": "internal error occurred at step x",
    "end": "end_conversation_endpoint_hit",
}


class Conversation(LiveSession):
    """One conversation, its room and the face in it."""

    emulator: TavusEmulator

    def __init__(self, emulator: TavusEmulator, id: str, wanted: Mapping[str, Any], pal_name: str) -> None:
        limits = wanted.get("properties") or {}
        self.wanted = wanted
        self.name = wanted.get("conversation_name") or id
        self.created = wall_time()
        self.token = emulator.seal(f"eyJ.{secrets.token_urlsafe(24)}.token") if wanted.get("require_auth") else None
        face_name = "Somebody Else" if emulator.options.face == "renamed" else pal_name
        user = f"tavus-replica-{id}" if emulator.options.face_user else ""
        self.face = Participant(f"face-of-{id}", face_name, audio=True, video=not wanted.get("audio_only"), user=user)
        self.face_here = False
        self.events: list[dict[str, Any]] = []
        self.guests: list[Guest] = []
        self._people: list[Participant] = []
        self._kept: list[Any] = []  # messages by REST that came before the face
        self._requests: deque[int] = deque()  # when those came that count
        self._seen = False
        self._seq = itertools.count(1)
        self._held: list[dict[str, Any]] = []
        self._starving: dict[str, asyncio.TimerHandle] = {}
        self._speech: deque[tuple[int, int | None]] = deque(maxlen=9)  # when the face spoke
        self._sounds = False
        self._ear, self._stretches, self._stretch_ms = Ear(), 0, 0.0
        self._line: tuple[str, str] = ("", "0")  # of our microphone's: what a fault may call it
        self._swallowed = False
        super().__init__(
            emulator,
            id,
            max_ms=min(limits.get("max_call_duration", 3_600), emulator.options.longest_s or DAY_S) * 1_000,
            absent_ms=limits.get("participant_absent_timeout", 300) * 1_000,
            left_ms=limits.get("participant_left_timeout", 0) * 1_000,
            start_on=BEGIN_MS,
        )
        if emulator.options.face != "never":
            self.clock.call_at(self.created_ms + emulator.options.face_after_ms, self._face_comes)

    # who is there

    def knocked(self, guest: Guest) -> None:
        """Somebody wants in."""
        most = self.wanted.get("max_participants")
        if self.token is not None and guest.token != self.token:
            guest.refuse(HTTP_ERROR % "401 Unauthorized")
        elif most is not None and len(self.guests) + len(self._people) + 1 >= most:
            guest.refuse("Connection(Api(RoomLookup(MeetingFull)))")
        else:
            self.guests.append(guest)
            self._seen = True
            super().connect_viewer()
            guest.admit()
            for who in (*([self.face] if self.face_here else []), *self._people):
                guest.tell("joined", who)

    def left(self, guest: Guest) -> None:
        """Somebody has gone."""
        if guest in self.guests:
            self.guests.remove(guest)
            super().disconnect_viewer()

    def connect_viewer(self) -> None:
        """A person opens the room's page (the control page says so, or a test)."""
        super().connect_viewer()
        self._seen = True
        self._people.append(Participant(f"viewer-{len(self._people) + 1}", "A Viewer"))
        self._announce("joined", self._people[-1])

    def disconnect_viewer(self) -> None:
        if self._people:
            self._announce("left", self._people.pop())
            super().disconnect_viewer()

    def _face_comes(self) -> None:
        if not self.alive:
            return
        self.face_here = True
        kept, self._kept = self._kept, []
        self._announce("joined", self.face)
        for kind, field in (("system.pal_joined", "face_id"), ("system.replica_joined", "replica_id")):
            self._event(kind, {field: self.emulator.face_of(self.wanted)})
            self._say("system", kind, {field: self.emulator.face_of(self.wanted)})
        for message in kept:
            self._take_in(message)

    def face_leaves(self) -> None:
        """The face is gone, as if it had crashed."""
        if self.face_here:
            self.face_here = False
            self.queue.clear()
            self._announce("left", self.face)

    def _announce(self, change: Literal["joined", "left"], who: Participant) -> None:
        for guest in tuple(self.guests):
            guest.tell(change, who, "leftCall" if change == "left" else "")

    def on_end(self, reason: str) -> None:
        if reason == "absence":
            why = "participant_left_timeout reached" if self._seen else "participant_absent_timeout reached"
        else:
            why = _REASONS.get(reason, reason)
        self._hears(self._ear.wait(self.clock.now_ms()))
        self._event("system.shutdown", {"reason": why})
        self._say("system", "system.shutdown", {"shutdown_reason": why})
        self.face_here = False
        for guest in tuple(self.guests):
            guest.expel("the meeting has ended")

    def _event(self, kind: str, properties: Mapping[str, Any]) -> None:
        self.events.append({"event_type": kind, "timestamp": self.time(self.clock.now_ms()), "properties": properties})

    def time(self, at_ms: int) -> str:
        """A moment as REST writes it."""
        moment = self.created + datetime.timedelta(milliseconds=at_ms - self.created_ms)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    # what we are told

    def admits_request(self) -> bool:
        """Whether one more message by REST is taken now."""
        now = self.clock.now_ms()
        while self._requests and self._requests[0] <= now - WINDOW_MS:
            self._requests.popleft()
        if len(self._requests) >= REQUESTS:
            return False
        self._requests.append(now)
        return True

    def said(self, guest: Guest | None, message: Any) -> None:
        """A message to all, or (None: by REST) to the face alone, for which it is kept until that has come. What is not understood is
        passed over."""
        self.emulator.note("message", session=self.id, message=_shown(message))
        if guest is None and not self.face_here:
            self._kept.append(message)
            return
        for other in self.guests:
            if guest is not None and other is not guest:
                other.message(message, guest.id)
        self._take_in(message)

    def _take_in(self, message: Any) -> None:
        """What the face makes of a message."""
        if not (self.face_here and isinstance(message, dict) and message.get("message_type") == "conversation"):
            return
        if message.get("conversation_id") not in (None, self.id):
            return
        self.touch()
        properties = message.get("properties")
        if message.get("event_type") == "conversation.echo" and isinstance(properties, dict):
            self._echo(properties)
        elif message.get("event_type") == "conversation.interrupt":
            self._interrupted()

    def _echo(self, wanted: Mapping[str, Any]) -> None:
        sound = wanted.get("modality", "text") == "audio"
        task = wanted.get("inference_id")
        task = task if isinstance(task, str) and task else f"unnamed-{self.queue.count + 1}"
        done = wanted.get("done", not sound) in (True, "true", "True")
        if timer := self._starving.pop(task, None):
            timer.cancel()
        if not sound:
            text = wanted.get("text")
            self.queue.add(task, text=text if isinstance(text, str) else "", final=done)
            return
        try:
            pcm = base64.b64decode(wanted.get("audio") or "", validate=True)
            line = self.queue.add(task, duration_ms=round(len(pcm) * 500 / int(wanted.get("sample_rate", 16_000))), final=done)
        except (binascii.Error, TypeError, ValueError, ZeroDivisionError):
            return
        if not done:
            spoken_ms = 0 if line.started_ms is None else self.clock.now_ms() - line.started_ms
            due_ms = self.clock.now_ms() + max(0, line.length_ms - spoken_ms) + STARVED_MS
            self._starving[task] = self.clock.call_at(due_ms, lambda: self._starved(task))

    def _starved(self, task: str) -> None:
        self._starving.pop(task, None)
        if self.alive and self.queue.close(task) is not None:
            self.emulator.note("starved", session=self.id, task=task)

    def _interrupted(self) -> None:
        self.emulator.note("interrupted", session=self.id)
        hit = self.queue.interrupt(self.emulator.options.interrupt)
        for line in hit:
            if timer := self._starving.pop(line.task, None):
                timer.cancel()

    def played(self, pcm: bytes, hz: int, clip: str) -> None:
        """Sound of a guest's microphone, which the face speaks as it comes. What is a line in it the face does not know; a fault must."""
        if not self.face_here:
            return
        now, hits = self.clock.now_ms(), self.emulator.faults.hits
        if (task := clip.rpartition("#")[0] or clip) != self._line[0]:
            self._line = task, str(int(self._line[1]) + 1)
            muted = now - self.created_ms >= MUTE_MS and hits("mute-after-120s", *self._line)
            self._swallowed = muted or hits("accepted-but-silent", *self._line)
            if self._swallowed:
                self.emulator.note("speech_swallowed", session=self.id, task=task, text="")
            if hits("session-dies", *self._line):
                self.clock.call_at(now + DIES_MS, lambda: self.end("fault"))
        self._hears(self._ear.listen(now, bytes(len(pcm)) if self._swallowed else pcm, hz))

    def _hears(self, heard: Iterable[Heard]) -> None:
        for what in heard:
            if what.what == "began":
                self._stretches, self._stretch_ms = self._stretches + 1, what.at_ms
                self.clock.call_at(self.clock.now_ms() + LISTEN_MS, self._listen_on)
                self.emulator.note("speech_started", session=self.id, task=f"sound-{self._stretches}", text="")
            else:
                lasted_ms = round(what.at_ms - self._stretch_ms)
                self.emulator.note("speech_ended", session=self.id, task=f"sound-{self._stretches}", heard_ms=lasted_ms, interrupted=False)
            self._tell_of_sound(what)

    def _listen_on(self) -> None:
        """A microphone that has nothing to send sends nothing: its sound has ended all the same."""
        if self.alive:
            self._hears(self._ear.wait(self.clock.now_ms()))
            if self._ear.hears:
                self.clock.call_at(self.clock.now_ms() + LISTEN_MS, self._listen_on)

    def _tell_of_sound(self, what: Heard) -> None:
        """Report sound that began or ended. It belongs to the line that our microphone sends, or sent last, which only a fault knows."""
        line, hits, now = self._line, self.emulator.faults.hits, self.clock.now_ms()
        id = self.emulator.nobodys_id if hits("wrong-id", *line) else None

        def tell(event: Literal["started", "stopped"], after_ms: int = 0) -> None:
            facts = {} if event == "started" else {"interrupted": False, "duration": None}
            self.clock.call_at(now + after_ms, lambda: self._broadcast(self._copies(event, id, facts)) if self.alive else None)

        if what.what == "began":
            if not hits("start-missing", *line):
                tell("started")
            if hits("end-early", *line):
                tell("stopped", EARLY_MS)
        elif not hits("end-missing", *line) and not hits("end-early", *line):
            late_ms = LATE_MS if hits("end-late", *line) else 0
            tell("stopped", late_ms)
            if hits("end-twice", *line):
                tell("stopped", late_ms + TWICE_MS)

    # what we tell

    def tell(self, sighting: Sighting) -> None:
        line, emulator = sighting.utterance, self.emulator
        id = emulator.id_of(line, self.id, sighting.kind)
        if sighting.kind == "started":
            messages = self._copies("started", id, {})
            if emulator.options.utterances and line.text:
                messages += [
                    self._message("conversation", "conversation.utterance", {"role": role, "speech": line.text}, id)
                    for role in ("pal", "replica")
                ]
        else:
            duration = round(sighting.heard_ms / 1000, 3) if emulator.options.durations else None
            messages = self._copies("stopped", id, {"interrupted": sighting.interrupted, "duration": duration})
        if emulator.options.order == "stop-first" and sighting.kind == "started":
            self._held += messages
            return
        self._broadcast(messages + self._held)
        self._held = []

    def _copies(self, what: str, id: str | None, properties: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The same report, as often as Tavus tells it."""
        copies = self.emulator.options.copies
        messages = [
            self._message("conversation", f"conversation.{what}_speaking", {"role": role, **properties}, id)
            for role in (("pal", "replica") if copies != "old" else ())
        ]
        if copies != "new":
            messages.append(self._message("conversation", f"conversation.replica.{what}_speaking", properties, id))
        if self.emulator.options.order == "shuffled":
            messages.reverse()
        return messages

    def _message(self, kind: str, event: str, properties: Mapping[str, Any], id: str | None = None) -> dict[str, Any]:
        timestamp = self.created.timestamp() + (self.clock.now_ms() - self.created_ms) / 1000
        message = {"message_type": kind, "event_type": event, "timestamp": timestamp, "seq": next(self._seq), "turn_idx": 0}
        return message | ({"inference_id": id} if id else {}) | ({"properties": dict(properties)} if properties else {})

    def _say(self, kind: str, event: str, properties: Mapping[str, Any]) -> None:
        self._broadcast([self._message(kind, event, properties)])

    def _broadcast(self, messages: Iterable[Any]) -> None:
        for message in messages:
            for guest in tuple(self.guests):
                guest.message(message, self.face.id)

    # what is heard

    def _truth(self, what: str, **facts: Any) -> None:
        super()._truth(what, **facts)
        now, line = self.clock.now_ms(), self.queue.speaking
        if what == "speech_started" and line is not None:
            self._speech.append((now, None))
            if not self._sounds and any(self.face.id in guest.listens_to for guest in self.guests):
                self._sounds = True
                self.clock.call_at(now + self.emulator.options.media_ms, self._frame)
            if self.emulator.options.face == "leaves":
                self.clock.call_at(now + line.length_ms // 2, self.face_leaves)
        elif what.startswith("speech_") and self._speech and self._speech[-1][1] is None:
            self._speech[-1] = self._speech[-1][0], now

    def _frame(self) -> None:
        """Let those who listen hear a tone while the face speaks, and some silence after it."""
        now = self.clock.now_ms()
        meant_ms = now - self.emulator.options.media_ms
        loud = any(start <= meant_ms and (end is None or meant_ms < end) for start, end in self._speech)
        last = self._speech[-1][1]
        if not self.alive or (last is not None and meant_ms > last + SILENCE_MS):
            self._sounds = False
            return
        for guest in self.guests:
            guest.sound(self.face.id, _TONE if loud else bytes(len(_TONE)), SOUND_HZ)
        self.clock.call_at(now + SOUND_MS, self._frame)


def _shown(message: Any) -> Any:
    """A message for the journal: sounds by their size, and nothing without bounds."""
    properties = message.get("properties") if isinstance(message, dict) else None
    if isinstance(properties, dict) and isinstance(properties.get("audio"), str):
        return {**message, "properties": {**properties, "audio": f"{len(properties['audio'])} characters"}}
    return message


_TONE = array.array("h", (round(8_000 * math.sin(2 * math.pi * 250 * n / SOUND_HZ)) for n in range(SOUND_HZ * SOUND_MS // 1000))).tobytes()
