"""Speaking to a Tavus face by messages: Tavus speaks our text and our sounds, and tells when it begins and ends.

What the documentation of the messages (https://docs.tavus.io/sections/event-schemas/conversation-echo and its neighbours) and what was
seen of them ask of us:

* A line is one `inference_id` in one or more `conversation.echo` messages, `done` on the last. A message has less than 4 KB, so a long text
  goes in pieces, and a sound in many. Two lines must not be mixed, so a sound is sent to its end before the next line is.
* Sent much faster than it is heard, a sound stutters and its end may never be reported. So we send by a plan: `pace` times as fast, and
  never more than `lead` ahead.
* Each start and stop is told up to three times (as `pal`, as `replica`, by its older name). The id in it may be ours, ours turned into a
  UUID by MD5, or one that we never sent; which line that means is for the engine's ledger.
* `conversation.utterance` says what is being said, when it begins or before. It ends nothing.
* An interrupt is told of the line that was being spoken. Of lines that had not begun nothing is told.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import re
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from playbook.errors import ProviderError
from playbook.events import (
    PlayAudio,
    ProviderFailed,
    SayText,
    Silence,
    Sound,
    SourceJoined,
    SourceLeft,
    SpeechEnded,
    SpeechStarted,
    StopSpeaking,
    TaskAccepted,
    spoken,
)
from playbook.formats.durations import parse_duration
from playbook.model import AudioEcho, Evidence, Say
from playbook.providers.base import Context, Material
from playbook.providers.tavus.session import TavusSession
from playbook.providers.told import seconds
from playbook.record.redact import agrees
from playbook.speech.audio import resample, to_ms
from playbook.speech.ear import Ear
from playbook.transports.room import MAX_MESSAGE_BYTES, RoomEvent, SoundHeard, encode

RATE = 24_000
PIECE_MS = 40
PACE, LEAD_MS = 1.75, 3_000
UNTAKEN = 25
"""How many pieces of a sound may be on their way into the room."""
STALL_MS = 250
"""When we come that late with a piece, the plan of the rest is moved: catching up would be a burst."""
UNHEARD_MS = 3_000
"""When the face's sound has not come for so long, our ear hears nothing any more. (Silence is sent, too.)"""
REMEMBERED = 256
"""How many lines, and how many reports, are kept for what may still be told of them."""

_Kind = Literal["started", "ended", "utterance"]
_KINDS: Mapping[str, _Kind] = {
    "conversation.started_speaking": "started",
    "conversation.stopped_speaking": "ended",
    "conversation.replica.started_speaking": "started",
    "conversation.replica.stopped_speaking": "ended",
    "conversation.utterance": "utterance",
}


EAR = "ear"

_Sending = Callable[[], Awaitable[asyncio.Task[None] | None]]
"""Sends a line, and gives what goes on after its acceptance."""


@dataclass(slots=True, eq=False)
class _Line:
    """One utterance, as far as Tavus's ids lead to it."""

    task: str
    text: str | None  # None for a sound, and for a text that goes in pieces: Tavus's words of it cannot be compared
    stopped: bool = False  # an interrupt wants it to end
    over: bool = False
    began_ms: int | None = None
    says: str | None = None


class EchoSession(TavusSession):
    """One conversation by messages."""

    max_bytes = MAX_MESSAGE_BYTES
    """The largest message, as JSON."""
    piece_ms = PIECE_MS
    """How much of a sound goes in one message."""
    untaken = UNTAKEN
    """How many messages with pieces of a sound may be on their way."""

    def deliver(self, message: Mapping[str, Any]) -> asyncio.Future[None]:
        """Send a message to the face. What becomes of it stands in the future, at most a `ProviderError`."""
        return self.room.send(message)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        settings = self.settings
        self._rate: int = settings.get("sample_rate", RATE)
        self._pace: float = settings.get("pace", PACE)
        self._lead_ms = parse_duration(settings["lead"]) if "lead" in settings else LEAD_MS
        self._pcm: dict[str, bytes] = {}
        self._lines: dict[str, _Line] = {}  # the last, by their tasks
        self._by_id: dict[str, _Line] = {}  # by what Tavus may call them
        self._in_pieces: set[str] = set()  # those whose text comes in pieces
        self._sending: list[asyncio.Task[None]] = []  # a sound that is being sent, and what is held until it is
        self._copies = Copies()
        self._ear = Ear()
        self._hears = False  # the face's sound comes
        self._heard_ms = 0  # when it came last

    def load(self, material: Material) -> None:
        steps = material.plan.steps
        self._in_pieces = {step.id for step in steps if isinstance(step.action, Say) and len(step.action.chunks) > 1}
        super().load(material)

    async def _prepare(self) -> None:
        for step in self.material.plan.steps:
            if isinstance(step.action, AudioEcho) and step.skipped is None and step.action.sha256 not in self._pcm:
                sha256 = step.action.sha256
                self._pcm[sha256] = await asyncio.to_thread(lambda sha: resample(self.material.sound(sha), self._rate).pcm, sha256)

    # what we say

    def say(self, command: SayText) -> None:
        self._expect(command, None if command.step in self._in_pieces else command.text)
        super().say(command)

    def play_audio(self, command: PlayAudio) -> None:
        self._expect(command, None)
        super().play_audio(command)

    def _expect(self, command: SayText | PlayAudio, text: str | None) -> None:
        task = command.task
        if task in self._lines:
            return
        self._lines[task] = self._by_id[task] = self._by_id[as_uuid(task)] = _Line(task, text)
        if len(self._lines) > REMEMBERED:
            old = next(iter(self._lines))
            for names, name in ((self._lines, old), (self._by_id, old), (self._by_id, as_uuid(old))):
                del names[name]

    def _line(self, task: str) -> _Line:
        """The line of a command. One that nobody remembers was over before its turn came."""
        return self._lines.get(task) or _Line(task, None, stopped=True, over=True)

    async def _say(self, command: SayText) -> TaskAccepted:
        remark = await self._in_turn(command, lambda: self._send_text(command))
        return TaskAccepted(command.task, chunk=command.chunk, reason=remark)

    async def _play_audio(self, command: PlayAudio) -> TaskAccepted:
        pcm = self._pcm[command.audio_sha256]
        remark = await self._in_turn(command, lambda: self._send_sound(self._line(command.task), pcm))
        return TaskAccepted(command.task, duration_ms=to_ms(len(pcm) // 2, self._rate), reason=remark)

    async def _in_turn(self, command: SayText | PlayAudio, send: _Sending) -> str | None:
        """Send now, or hold it until the sound before it has been sent. Gives a remark."""
        self._sending = [task for task in self._sending if not task.done()]
        if self._line(command.task).stopped:
            return "interrupted before it was sent"
        if self._sending:
            self._sending.append(self._spawn(self._hold(self._sending[-1], command, send)))
            return "held until the sound before it has been sent"
        if (rest := await send()) is not None:
            self._sending.append(rest)
        return self.take_remark()

    async def _hold(self, before: asyncio.Task[None], command: SayText | PlayAudio, send: _Sending) -> None:
        await asyncio.wait([before])
        try:
            rest = await send()
        except ProviderError as error:
            self._failed(error, command)
        else:
            if rest is not None:
                await rest

    async def _send_text(self, command: SayText) -> None:
        line = self._line(command.task)
        messages = in_messages(command.text, command.final, partial(self._echo, command.task), self.max_bytes)
        if len(messages) > 1:
            line.text = None
        for number, message in enumerate(messages, 1):
            if line.stopped:
                return
            try:
                await self.deliver(message)
            except ProviderError as error:
                line.over = True
                if number > 1:
                    raise ProviderError(f"only a part of the line was sent: {error.message}", outcome="ambiguous") from error
                raise

    async def _send_sound(self, line: _Line, pcm: bytes) -> asyncio.Task[None] | None:
        """Send the first piece of a sound. The rest, if there is one, is sent by plan in the task that is returned."""
        size = 2 * self._rate * self.piece_ms // 1000
        try:
            await self._send_piece(line, pcm[:size], final=len(pcm) <= size)
        except ProviderError:
            line.over = True
            raise
        return self._spawn(self._send_rest(line, pcm, size)) if len(pcm) > size else None

    async def _send_rest(self, line: _Line, pcm: bytes, size: int) -> None:
        clock, untaken = self.context.clock, deque[asyncio.Future[None]]()
        start_ms = clock.now_ms()
        try:
            for at in range(size, len(pcm), size):
                position_ms = at * 500 / self._rate
                due_ms = start_ms + math.floor(max(position_ms / self._pace, position_ms - self._lead_ms))
                late_ms = clock.now_ms() - due_ms
                if late_ms < 0:
                    await clock.sleep_until(due_ms)
                elif late_ms > STALL_MS:
                    start_ms += late_ms
                untaken.append(self._send_piece(line, pcm[at : at + size], final=at + size >= len(pcm)))
                while untaken and (untaken[0].done() or len(untaken) > self.untaken):
                    await untaken.popleft()
            for answer in untaken:
                await answer
        except ProviderError as error:
            line.over = True
            self.emit(ProviderFailed(f"only a part of the sound was sent: {error.message}", outcome="ambiguous", task=line.task))

    def _send_piece(self, line: _Line, pcm: bytes, *, final: bool) -> asyncio.Future[None]:
        return self.deliver(self._echo(line.task, final, audio=base64.b64encode(pcm).decode()))

    def _echo(self, task: str, final: bool, text: str | None = None, *, audio: str | None = None) -> dict[str, Any]:
        """The message, as documented (https://docs.tavus.io/sections/event-schemas/conversation-echo)."""
        done: bool | str = final if self.settings.get("done_as") != "text" else str(final).lower()
        content = {"modality": "text", "text": text} if audio is None else {"modality": "audio", "audio": audio, "sample_rate": self._rate}
        return self._message("conversation.echo", {**content, "inference_id": task, "done": done})

    def _message(self, kind: str, properties: Mapping[str, Any] | None = None) -> dict[str, Any]:
        message = {"message_type": "conversation", "event_type": kind, "conversation_id": self.session_id}
        return message | ({"properties": properties} if properties is not None else {})

    def interrupt(self, command: StopSpeaking) -> None:
        """Overtakes the sound that is being sent: nothing of it goes out any more, or it might begin to speak again."""
        for line in self._lines.values():
            line.stopped = line.stopped or not line.over
        for task in self._sending:
            task.cancel()
        super().interrupt(command)

    async def _interrupt(self, command: StopSpeaking) -> TaskAccepted:
        await self.deliver(self._message("conversation.interrupt"))
        return TaskAccepted(command.task, reason=self.take_remark())

    async def _close(self, reason: str) -> str | None:
        for task in self._sending:
            await self._stop(task)
        return await super()._close(reason)

    # what Tavus tells

    def told(self, kind: str, message: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
        what, role = _KINDS.get(kind), properties.get("role")
        if what is None or (role not in ("pal", "replica") and ".replica." not in kind):
            return
        id, seq = message.get("inference_id"), message.get("seq")
        id, seq = (id if isinstance(id, str) and id else None), (seq if isinstance(seq, int) else None)
        if self._copies.has(what, id, f"{kind} {role}", seq):
            return
        if what == "started":
            self._started(id)
        elif what == "ended":
            self._ended(id, properties)
        else:
            self._says(id, properties.get("speech"))

    def _started(self, id: str | None) -> None:
        line = self._by_id.get(id or "")
        says = None
        if line is not None:
            line.began_ms = self.context.clock.now_ms() if line.began_ms is None else line.began_ms
            says, line.says = line.says, None
        self.emit(SpeechStarted(_task(line), provider_task=id, text=says, reason=self.take_remark()))

    def _ended(self, id: str | None, properties: Mapping[str, Any]) -> None:
        line = self._by_id.get(id or "")
        lasted_s = seconds(properties.get("duration"))
        lasted_ms = None if lasted_s is None else round(lasted_s * 1000)
        cut, heard_ms, reason = properties.get("interrupted") is True, None, self.take_remark()
        if cut:
            heard_ms = lasted_ms
            if heard_ms is None and line is not None:
                heard_ms = 0 if line.began_ms is None else self.context.clock.now_ms() - line.began_ms
        if line is not None:
            line.over = True
            says, line.says = line.says, None
            reason = reason or (f"Tavus says that it said: {says}" if says is not None else None)
        ended = SpeechEnded(_task(line), provider_task=id, duration_ms=lasted_ms, interrupted=cut, heard_ms=heard_ms, reason=reason)
        self.emit(ended)

    def _says(self, id: str | None, speech: Any) -> None:
        """What Tavus says that it says."""
        line = self._by_id.get(id or "")
        if not isinstance(speech, str) or (line is not None and line.text is None):
            return
        if line is None or line.text is None:
            self.emit(SpeechStarted(None, provider_task=id, text=speech))
            return
        if speech != line.text and agrees(speech, line.text):  # a cassette has hidden what is secret in it
            speech = line.text
        if line.began_ms is None or spoken(speech) == spoken(line.text):
            line.says = speech
        else:  # the start was told already; this is about the words
            self.emit(SpeechStarted(line.task, provider_task=id, text=speech))

    # what we hear

    def sensed(self, event: RoomEvent) -> None:
        if not isinstance(event, SoundHeard) or event.participant != self._face:
            return
        self._heard_ms = now = self.context.clock.now_ms()
        if not self._hears:
            self._hears, self._ear = True, Ear()
            self.emit(SourceJoined(EAR, Evidence.heard))
            self._look()
        for heard in self._ear.listen(now - event.age_ms, event.pcm, event.hz):
            edge = Sound if heard.what == "began" else Silence
            self.emit(edge(EAR, max(0, round(now - heard.at_ms))))

    def _look(self) -> None:
        """Leave as an ear when no sound has come for a while."""
        clock = self.context.clock
        if self._closing:
            return
        if clock.now_ms() - self._heard_ms < UNHEARD_MS:
            clock.call_at(self._heard_ms + UNHEARD_MS, self._look)
        else:
            self._hears = False
            self.emit(SourceLeft(EAR, f"no sound has come for {UNHEARD_MS // 1000} s"))


def _task(line: _Line | None) -> str | None:
    """Our name of the line that an id leads to. None: the ledger knows which may be meant."""
    return None if line is None else line.task


class Copies:
    """Knows which reports are copies of others: Tavus tells each one in up to three ways. The same report in the same way is no copy.

    Where a report has an id, that and its kind tell. Where it has none, it is a copy if the last report was of its kind and told in another
    way, or if `seq` says that it was sent before that.
    """

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], set[str]] = {}  # in which ways, by kind and id
        self._last: tuple[str, str | None, int | None] = ("", None, None)
        self._last_ways: set[str] = set()

    def has(self, kind: str, id: str | None, way: str, seq: int | None) -> bool:
        """Whether this is a copy."""
        last_kind, last_id, last_seq = self._last
        ways = self._told.get((kind, id)) if id is not None else None
        if ways is None and None in (id, last_id) and kind == last_kind:
            ways = self._last_ways
        if ways is not None and way not in ways:
            ways.add(way)
            if id is not None:
                self._remember(kind, id, ways)
            return True
        if id is None and seq is not None and last_seq is not None and seq < last_seq:
            return True
        self._last, self._last_ways = (kind, id, seq), {way}
        if id is not None:
            self._remember(kind, id, self._last_ways)
        return False

    def _remember(self, kind: str, id: str, ways: set[str]) -> None:
        self._told[kind, id] = ways
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]


def as_uuid(id: str) -> str:
    """What Tavus makes of an id, as far as that is known: the UUID of its MD5."""
    return str(uuid.UUID(bytes=hashlib.md5(id.encode(), usedforsecurity=False).digest()))


_SENTENCE = re.compile(r"(?<=[.!?…。！？])\s+|(?<=[。！？])")


def in_messages(text: str, final: bool, message: Callable[[bool, str], dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The messages of a text, each of at most `limit` bytes. All but the last say that more is to come, which takes a byte more."""
    room = limit - len(encode(message(False, "")))
    *before, last = split(text, room)
    return [*(message(False, piece) for piece in before), message(final, last)]


def split(text: str, limit: int) -> Iterator[str]:
    """A text in pieces of at most `limit` bytes (as JSON has them): whole sentences where they fit, else words, else what fits. Nothing is
    lost: together they are the text."""
    while _size(text) > limit:
        fits = _fitting(text, limit)
        ends = [match.end() for match in _SENTENCE.finditer(text, 0, fits)] or [at + 1 for at in [text.rfind(" ", 0, fits)] if at > 0]
        at = ends[-1] if ends else fits
        yield text[:at]
        text = text[at:]
    yield text


def _fitting(text: str, limit: int) -> int:
    """How many characters of the text fit."""
    low, high = 1, min(len(text), limit)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _size(text[:middle]) <= limit else (low, middle - 1)
    return low


def _size(text: str) -> int:
    return len(encode(text)) - 2
