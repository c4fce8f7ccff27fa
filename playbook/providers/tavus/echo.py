"""Speaking to a Tavus face by messages: Tavus speaks our text and our sounds, and tells when it begins and ends.

What the documentation of the messages (https://docs.tavus.io/sections/event-schemas/conversation-echo and its neighbours) and what was
seen of them ask of us:

* A line is one `inference_id` in one or more `conversation.echo` messages, `done` on the last. A message has less than 4 KB, so a long text
  goes in pieces, and a sound in many. Two lines must not be mixed, so a sound is sent to its end before the next line is.
* Sent much faster than it is heard, a sound stutters and its end may never be reported. So we send by a plan: `pace` times as fast, and
  never more than `lead` ahead.
* Each start and stop is told up to three times (as `pal`, as `replica`, by its older name). The id in it may be ours, ours turned into a
  UUID by MD5, or one that we never sent; then it means the line that is in flight, and the evidence is less.
* `conversation.utterance` says what is being said, when it begins or before. It ends nothing.
* An interrupt is told of the line that was being spoken. Of lines that had not begun nothing is told, so we close them ourselves.
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
from typing import Any, Literal

from playbook.errors import ProviderError
from playbook.events import PlayAudio, ProviderFailed, SayText, SpeechEnded, SpeechStarted, StopSpeaking, TaskAccepted, spoken
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
GRACE_MS = 1_000
"""How long after an interrupt reports may still be under way. What has not begun by then never will."""
PAUSE_MS = 2_000
"""Silence after which a line that Tavus never ended is over by what we hear; shorter, it may be a pause between two sentences."""
LAG_MS = 1_500
"""How long after its reported end a line may still come to be heard."""
REMEMBERED = 256
"""How many lines that are over, and how many reports, are kept for what may still be told of them."""

_Kind = Literal["started", "ended", "utterance"]
_KINDS: Mapping[str, _Kind] = {
    "conversation.started_speaking": "started",
    "conversation.stopped_speaking": "ended",
    "conversation.replica.started_speaking": "started",
    "conversation.replica.stopped_speaking": "ended",
    "conversation.utterance": "utterance",
}


_Sending = Callable[[], Awaitable[asyncio.Task[None] | None]]
"""Sends a line, and gives what goes on after its acceptance."""


@dataclass(slots=True, eq=False)
class _Line:
    """One utterance. `id` is Tavus's name for it where that is none of ours."""

    task: str
    step: str
    text: str | None  # None for a sound, and for a text that goes in pieces: Tavus's words of it cannot be compared
    sent: bool = False
    stopped: bool = False  # an interrupt wants it to end
    id: str | None = None
    started_ms: int | None = None
    ended_ms: int | None = None
    over: bool = False
    says: str | None = None
    heard: bool = False  # its sound, by our own ear


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
        self._lines: dict[str, _Line] = {}  # that are not over, in order
        self._past: deque[_Line] = deque(maxlen=4)  # the last that are
        self._remembered: deque[_Line] = deque()  # those, and some before them
        self._by_id: dict[str, _Line] = {}  # all of these, by every id that means one
        self._awaited: set[str] = set()  # the steps in which the show waits for the end of a line
        self._in_pieces: set[str] = set()  # those whose text comes in pieces
        self._sending: list[asyncio.Task[None]] = []  # a sound that is being sent, and what is held until it is
        self._copies = Copies()
        self._ear = Ear()
        self._audible: _Line | None = None  # whose sound we heard last
        self._quiet: tuple[_Line, float] | None = None  # a line whose sound has stopped, and when
        self._quiet_timer: asyncio.TimerHandle | None = None

    def load(self, material: Material) -> None:
        steps = material.plan.steps
        self._awaited = {step.id for step in steps if step.until == "ended"}
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
        if task not in self._by_id:
            for line in tuple(self._lines.values()):
                if line.step in self._awaited:  # the show has gone on, so it is over, whether anybody told us or not
                    self._done_with(line)
            self._lines[task] = self._by_id[task] = self._by_id[as_uuid(task)] = _Line(task, command.step, text)

    def _done_with(self, line: _Line) -> None:
        if not line.over:
            line.over = True
            del self._lines[line.task]
            self._past.append(line)
            self._remembered.append(line)
            if len(self._remembered) > REMEMBERED:
                old = self._remembered.popleft()
                for id in (old.task, as_uuid(old.task), old.id or ""):
                    self._by_id.pop(id, None)

    def _line(self, task: str) -> _Line:
        """The line of a command. One that nobody remembers was over before its turn came."""
        return self._by_id.get(task) or _Line(task, "", None, stopped=True, over=True)

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
        pieces = list(split(command.text, self.max_bytes - len(encode(self._echo(command.task, command.final, text="")))))
        if len(pieces) > 1:
            line.text = None
        line.sent = True
        for number, piece in enumerate(pieces, 1):
            if line.stopped:
                return
            try:
                await self.deliver(self._echo(command.task, command.final and number == len(pieces), text=piece))
            except ProviderError as error:
                self._done_with(line)
                if number > 1:
                    raise ProviderError(f"only a part of the line was sent: {error.message}", outcome="ambiguous") from error
                raise

    async def _send_sound(self, line: _Line, pcm: bytes) -> asyncio.Task[None] | None:
        """Send the first piece of a sound. The rest, if there is one, is sent by plan in the task that is returned."""
        size = 2 * self._rate * self.piece_ms // 1000
        line.sent = True
        try:
            await self._send_piece(line, pcm[:size], final=len(pcm) <= size)
        except ProviderError:
            self._done_with(line)
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
            self._done_with(line)
            self.emit(ProviderFailed(f"only a part of the sound was sent: {error.message}", outcome="ambiguous", task=line.task))

    def _send_piece(self, line: _Line, pcm: bytes, *, final: bool) -> asyncio.Future[None]:
        return self.deliver(self._echo(line.task, final, audio=base64.b64encode(pcm).decode()))

    def _echo(self, task: str, final: bool, *, text: str | None = None, audio: str | None = None) -> dict[str, Any]:
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
            line.stopped = True
        for task in self._sending:
            task.cancel()
        super().interrupt(command)

    async def _interrupt(self, command: StopSpeaking) -> TaskAccepted:
        await self.deliver(self._message("conversation.interrupt"))
        clock = self.context.clock
        clock.call_at(clock.now_ms() + GRACE_MS, self._settle)
        return TaskAccepted(command.task, reason=self.take_remark())

    def _settle(self) -> None:
        """Close the lines that an interrupt kept from beginning."""
        for line in tuple(self._lines.values()):
            if line.stopped and line.started_ms is None and not self._closing:
                line.ended_ms = self.context.clock.now_ms()
                self._done_with(line)
                why = "kept from beginning by the interrupt; Tavus does not report that"
                self.emit(SpeechEnded(line.task, Evidence.estimated, interrupted=True, heard_ms=0, reason=why))

    async def _close(self, reason: str) -> str | None:
        for task in self._sending:
            await self._stop(task)
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
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

    def _in_flight(self) -> Iterator[_Line]:
        return (line for line in self._lines.values() if line.sent)

    def _meant(self, id: str | None) -> Evidence:
        """How surely an id names its line."""
        line = self._by_id.get(id or "")
        return Evidence.reported if line is not None and line.id != id else Evidence.unmatched

    def _started(self, id: str | None) -> None:
        line = self._by_id.get(id or "")
        if line is None:
            line = next((line for line in self._in_flight() if line.started_ms is None), None)
            if line is None:
                self.emit(SpeechStarted(None, provider_task=id, reason="no line of ours is waiting to begin"))
                return
            if id is not None:
                self._by_id[id], line.id = line, id
        if line.started_ms is None:
            line.started_ms = self.context.clock.now_ms()
            if self._ear.hears and self._audible is not None and self._audible.over:
                line.heard, self._audible = True, line  # without a gap: where one ends and the other begins cannot be heard
        says, line.says = line.says, None
        self.emit(SpeechStarted(line.task, self._meant(id), id, text=says, reason=self.take_remark()))

    def _ended(self, id: str | None, properties: Mapping[str, Any]) -> None:
        line = self._by_id.get(id or "")
        if line is None:
            line = self._only_end(id)
            if line is None:
                self.remark = f"the end of '{id}' was reported, which is no line of ours"
                return
            if id is not None:  # so that a late start of it is not taken for the next line's
                self._by_id[id], line.id = line, id
        evidence, now = self._meant(id), self.context.clock.now_ms()
        lasted_s = seconds(properties.get("duration"))
        lasted_ms = None if lasted_s is None else round(lasted_s * 1000)
        cut = properties.get("interrupted") is True
        heard_ms = None
        if cut:
            heard_ms = lasted_ms if lasted_ms is not None else now - line.started_ms if line.started_ms is not None else 0
        line.ended_ms = line.ended_ms or now
        self._done_with(line)
        says, line.says = line.says, None
        reason = self.take_remark() or (f"Tavus says that it said: {says}" if says is not None else None)
        self.emit(SpeechEnded(line.task, evidence, id, duration_ms=lasted_ms, interrupted=cut, heard_ms=heard_ms, reason=reason))
        if self._quiet is not None and self._quiet[0] is line:
            self._tell_quiet()
        if cut:
            self._settle()  # what has not begun when this one is cut off never will

    def _only_end(self, id: str | None) -> _Line | None:
        """The line that an end without a name of ours can mean: the one that speaks, or the first if no start was told. One that goes
        by another name is meant only if it is the only one, and nobody's end may still come."""
        in_flight = list(self._in_flight())
        line = next((line for line in in_flight if line.started_ms is not None), None)
        if line is None:
            return in_flight[0] if in_flight else None
        only = len(in_flight) == 1 and all(past.ended_ms is not None for past in self._past)
        return line if line.id is None or id is None or only else None

    def _says(self, id: str | None, speech: Any) -> None:
        line = self._by_id.get(id or "") or next(self._in_flight(), None)
        if line is None or line.text is None or not isinstance(speech, str):
            return
        if speech != line.text and agrees(speech, line.text):  # a cassette has hidden what is secret in it
            speech = line.text
        if line.started_ms is None or spoken(speech) == spoken(line.text):
            line.says = speech
        else:  # the start was told already; this is about the words
            self.emit(SpeechStarted(line.task, self._meant(id), id, text=speech))

    # what we hear

    def sensed(self, event: RoomEvent) -> None:
        if isinstance(event, SoundHeard) and event.participant == self._face:
            began_ms = self.context.clock.now_ms() - event.age_ms
            for heard in self._ear.listen(began_ms, event.pcm, event.hz):
                self._sound_began(heard.at_ms) if heard.what == "began" else self._sound_ended(heard.at_ms)

    def _sound_began(self, at_ms: float) -> None:
        now = self.context.clock.now_ms()
        unheard = [line for line in (*self._past, *self._in_flight()) if not line.heard]
        told = (line for line in unheard if line.started_ms is not None and now - (line.ended_ms or now) <= LAG_MS)
        line = next(told, None)
        if self._quiet is not None:
            if line is None and not self._quiet[0].over:  # nobody else has begun: it was a pause
                self._quiet = None
                return
            self._tell_quiet()
        if line is None and not any(now - (past.ended_ms or 0) <= LAG_MS for past in self._past):  # else it may be the tail of one of those
            line = next((line for line in unheard if not line.over), None)
        if line is not None:
            line.heard, self._audible = True, line
            self.emit(SpeechStarted(line.task, Evidence.heard, ago_ms=max(0, round(now - at_ms))))

    def _sound_ended(self, at_ms: float) -> None:
        line = self._audible
        if line is None:
            return
        self._quiet = line, at_ms
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
        if line.over:
            self._tell_quiet()
        else:
            self._quiet_timer = self.context.clock.call_at(round(at_ms) + PAUSE_MS, self._tell_quiet)

    def _tell_quiet(self) -> None:
        """The sound of a line is over, and so is the line, if nobody else says so."""
        if self._quiet is not None and not self._closing:
            (line, at_ms), self._quiet, self._audible = self._quiet, None, None
            self._done_with(line)
            self.emit(SpeechEnded(line.task, Evidence.heard, ago_ms=max(0, round(self.context.clock.now_ms() - at_ms))))


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
