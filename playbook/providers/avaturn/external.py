"""Avaturn's external engine: the avatar speaks our audio, and Avaturn reports what became of it.

The roles are turned round: Avaturn connects to a WebSocket of ours as soon as the session exists, and the socket's end is the session's end
(https://docs.avaturn.live/howtos/external). What that protocol asks of us:

* Sound is 24 kHz mono PCM, sent as fast as it goes, inside a *segment*. One segment is open at a time, and we never leave one open across
  a pause, so each chunk of a line is a segment. A line begins with the first of its segments and ends with the last.
* Playback is reported for each segment: started, and ended or interrupted (both may come, or twice). A line of which a segment's reports
  are missing is not simply `reported`.
* To interrupt, the open segment is closed first. Segments that never began are dropped without a word, so we close their lines ourselves.

`say` is spoken by the embedded voice, in one breath also when it comes in chunks.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from playbook.errors import ProviderError
from playbook.events import PlayAudio, SayText, SpeechEnded, SpeechStarted, StopSpeaking, TaskAccepted
from playbook.model import Evidence
from playbook.providers.avaturn.session import AvaturnSession
from playbook.providers.base import Context, Material
from playbook.providers.local.provider import LocalProvider
from playbook.providers.local.spoken import Speaker, SpokenLine
from playbook.providers.told import seconds
from playbook.record.redact import quoted
from playbook.speech.audio import Sound, frames, resample, silence
from playbook.speech.voice import Voice
from playbook.transports.listener import Dialled, gone

if TYPE_CHECKING:
    from playbook.speech.show import Placement

RATE = 24_000
FRAME_MS = 40
SILENCE_MS = 100
"""What is sent for a text of which nothing is heard, since a segment without sound means nothing."""
HEADER = "X-Playbook-Secret"

CALL_S = 30.0
"""How long Avaturn may take to connect after the session was created."""
ANSWER_S = 10.0
"""How long it may take to acknowledge a segment, or to take a second's worth of sound."""
GRACE_MS = 1_000
"""How long after an interrupt reports may still be under way. What has not begun by then never will."""
EARLY_MS = 100
"""By how much less than its sound a segment may have been played, by Avaturn's own clock, without a doubt that it was played to its end."""
LATEST_S = 1e12
"""A timestamp that is later is none."""
REMEMBERED = 256
"""How many lines that are over are kept for what may still be told of them."""


STRANGER = "a segment that we never sent"


@dataclass(slots=True, eq=False)
class _Line:
    """One utterance. `sent_ms` is how much of it has been handed over, `heard_ms` how much was heard for certain."""

    task: str
    spoken: SpokenLine | None = None  # None for a sound
    sent_ms: int = 0
    heard_ms: int = 0
    segments: list[_Segment] = field(default_factory=list)
    first: _Segment | None = None  # the one whose start was reported first
    over: bool = False

    def gap(self) -> tuple[Evidence, str] | None:
        """What the end of the last segment is worth, and why, when one before it was not reported: they are played in order."""
        for number, segment in enumerate(self.segments[:-1], 1):
            piece = f"piece {number} of {len(self.segments)}"
            if segment.state == "sent":
                return Evidence.timeout, f"neither start nor end of {piece} was reported"
            if segment.state == "playing":
                return Evidence.estimated, f"the end of {piece} had not been reported"
        return None


@dataclass(slots=True, eq=False)
class _Segment:
    """A stretch of sound on the wire. The futures are Avaturn's acknowledgements; `id` is its name for it."""

    uid: str
    line: _Line
    final: bool
    length_ms: int
    created: asyncio.Future[None]
    closed: asyncio.Future[None]
    id: str | None = None
    state: Literal["sent", "playing", "over"] = "sent"
    began_ms: int | None = None
    started_s: float | None = None
    load: Callable[[], Sound] | None = None
    placement: Placement | None = None


class ExternalSession(AvaturnSession):
    """The avatar speaks our audio, and `voice` our lines."""

    def __init__(self, context: Context, voice: Voice) -> None:
        super().__init__(context)
        self._local = LocalProvider(voice)
        self._secret = secrets.token_urlsafe(32)
        context.seal(self._secret)
        self._dialled: Dialled | None = None
        self._lines: dict[str, _Line] = {}  # those that are not over, and the last that are
        self._segments: dict[str, _Segment] = {}  # theirs
        self._past: deque[_Line] = deque()  # the last that are over
        self._sending: _Segment | None = None
        self._cutting = False  # an interrupt is on its way
        self._stopped: list[_Line] = []  # lines that an interrupt is meant to hit
        self._remark: str | None = None  # what Avaturn complained about since the last event

    # --- opening and closing ----------------------------------------------------------------------------------------

    @property
    def _socket(self) -> Dialled:
        assert self._dialled is not None
        return self._dialled

    def load(self, material: Material) -> None:
        self._speaker = Speaker(self._local, material.plan)
        self._speaker.need_voice()
        super().load(material)

    async def _prepare(self) -> None:
        await self._speaker.speak_ahead()

    async def _open(self) -> str | None:
        listen, engine = self.settings.get("listen"), self.settings["conversation_engine"]
        self._dialled = self.context.transports.listener(listen, engine["url"], header=HEADER, secret=self._secret)
        url = await self._socket.start()
        await self.create(conversation_engine={**engine, "url": url, "headers": {**(engine.get("headers") or {}), HEADER: self._secret}})
        if not await self._socket.caller(CALL_S):
            strangers = f" ({self._socket.strangers} came without the secret)" if self._socket.strangers else ""
            raise ProviderError(
                f"Avaturn did not connect within {CALL_S:g} s{strangers}; check that conversation_engine.url leads to listen"
            )
        self.in_background(self._read())
        return None

    async def _release(self) -> None:
        if self._dialled is not None:
            await self._dialled.aclose()
        await super()._release()

    # --- what we say ------------------------------------------------------------------------------------------------

    async def _say(self, command: SayText) -> TaskAccepted:
        line = self._lines.get(command.task) or _Line(command.task, SpokenLine())
        assert line.spoken is not None
        stretch = await self._speaker.speak(line.spoken, command)
        self._lines[command.task] = line
        if stretch.from_ms == stretch.to_ms and not command.final:  # it completes no word
            return TaskAccepted(command.task, chunk=command.chunk, reason="goes out with the next chunk")
        return await self._send(line, stretch.sound, command.chunk, command.final)

    async def _play_audio(self, command: PlayAudio) -> TaskAccepted:
        line = self._lines[command.task] = _Line(command.task)
        return await self._send(line, partial(self.material.sound, command.audio_sha256), 1, final=True)

    async def _send(self, line: _Line, load: Callable[[], Sound], chunk: int, final: bool) -> TaskAccepted:
        """Send a segment: the sound that `load` gives."""
        loop = asyncio.get_running_loop()
        uid = line.task if chunk == 1 else f"{line.task}#{chunk}"
        segment = _Segment(uid, line, final, 0, loop.create_future(), loop.create_future(), load=load)
        self._segments[uid] = self._sending = segment
        line.segments.append(segment)
        try:
            await self._tell("avatar.speech.segment.create", segment_uid=uid)
            sound = await loop.run_in_executor(None, lambda: resample(load(), RATE))
            sound = sound if sound.samples else silence(SILENCE_MS, RATE)
            segment.length_ms = sound.duration_ms
            line.sent_ms += sound.duration_ms
            opened = await self._acknowledged(segment.created)
            if opened and not self._cutting:
                await self._stream(sound)
            await self._tell("avatar.speech.segment.close", segment_uid=uid)
            if not opened:
                self._done_with(line)
                raise ProviderError(f"Avaturn did not open the segment within {ANSWER_S:g} s, so nothing was sent{self._complaint()}")
            if not await self._acknowledged(segment.closed):
                raise ProviderError(
                    f"Avaturn did not say within {ANSWER_S:g} s that it took the sound{self._complaint()}", outcome="ambiguous"
                )
        finally:
            self._sending = None
        whole = line.sent_ms if final else None
        return TaskAccepted(line.task, segment.id, chunk=chunk, duration_ms=whole, reason=self._take_remark())

    async def _stream(self, sound: Sound) -> None:
        """Send sound as fast as Avaturn takes it, until it is all sent or an interrupt wants to pass."""
        try:
            for second in frames(sound, 1000):
                async with asyncio.timeout(ANSWER_S):
                    for frame in frames(Sound(second, RATE), FRAME_MS):
                        if self._cutting:
                            return
                        await self._socket.send(frame)
                await asyncio.sleep(0)  # a long sound must not keep everybody else waiting
        except TimeoutError as error:
            raise ProviderError("Avaturn takes no more sound", outcome="lost") from error

    async def _acknowledged(self, answer: asyncio.Future[None]) -> bool:
        """Whether Avaturn acknowledges in time; an interrupt does not wait for that."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await answer
        except TimeoutError:
            return False
        return True

    async def _tell(self, type: str, **fields: str) -> None:
        await self._socket.send(json.dumps({"type": type, **fields}))

    # --- interrupting -----------------------------------------------------------------------------------------------

    def interrupt(self, command: StopSpeaking) -> None:
        """Overtakes the sound that is being sent: that is cut short, and its segment closed, first."""
        self._cutting = True
        if self._sending is not None:
            for answer in (self._sending.created, self._sending.closed):
                if not answer.done():
                    answer.set_result(None)
        super().interrupt(command)

    async def _interrupt(self, command: StopSpeaking) -> TaskAccepted:
        self._cutting = False
        self._stopped += [line for line in self._lines.values() if not line.over and line not in self._stopped]
        await self._tell("avatar.speech.interrupt")
        clock = self.context.clock
        clock.call_at(clock.now_ms() + GRACE_MS, self._settle)
        return TaskAccepted(command.task, reason=self._take_remark())

    def _settle(self) -> None:
        """Close the lines that an interrupt dropped before they began, or between two segments: of these Avaturn says nothing."""
        stopped, self._stopped = self._stopped, []
        for line in stopped:
            if not line.over and not any(segment.state == "playing" for segment in line.segments):
                self._end(line, None, "dropped by the interrupt before more of it began; Avaturn does not report that")

    # --- what Avaturn says ------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        async for text in self._socket.texts():
            self._take(text)
        raise gone()

    def _take(self, text: str) -> None:
        """One message. What we do not know, or cannot read, we leave aside: there may be more than is documented."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(message, dict):
            return
        kind = message.get("type")
        if kind == "error":
            self._complained(message)
            return
        report = _REPORTS.get(kind) if isinstance(kind, str) else None
        if report is not None:
            uid = message.get("segment_uid")
            report(self, self._segments.get(uid) if isinstance(uid, str) else None, message)

    def _created(self, segment: _Segment | None, message: dict[str, Any]) -> None:
        if segment is not None:
            segment.id = _text(message, "segment_id")
            if not segment.created.done():
                segment.created.set_result(None)

    def _closed(self, segment: _Segment | None, message: dict[str, Any]) -> None:  # noqa: ARG002 -- like the others
        if segment is not None and not segment.closed.done():
            segment.closed.set_result(None)

    def _started(self, segment: _Segment | None, message: dict[str, Any]) -> None:
        id, named = _text(message, "segment_id"), segment is not None
        segment = segment or self._meant("sent")
        if segment is None:
            self.emit(SpeechStarted(None, provider_task=id, reason=STRANGER))
            return
        line = segment.line
        if segment.state == "sent":
            segment.state, segment.started_s, segment.began_ms = (
                "playing",
                seconds(message.get("timestamp"), LATEST_S),
                self.context.clock.now_ms(),
            )
            self._record(segment)
            line.first = line.first or segment
        if segment is line.first:
            told = self._take_remark() if named else STRANGER
            said = line.spoken.said if named and line.spoken is not None else None
            self.emit(SpeechStarted(line.task if named else None, provider_task=id, text=said, reason=told))

    def _ended(self, segment: _Segment | None, message: dict[str, Any]) -> None:
        id, named = _text(message, "segment_id"), segment is not None
        segment = segment or self._meant("playing") or self._meant("sent")
        if segment is None:
            self.emit(SpeechEnded(None, provider_task=id, reason=STRANGER))
            return
        line, first = segment.line, segment.state != "over"
        segment.state = "over"
        if first:
            line.heard_ms += segment.length_ms
        if not segment.final:
            return
        whole, played_ms = not line.over, _played_ms(segment, message)  # when it is over, it is told once more
        self._done_with(line)
        if not named:
            self.emit(SpeechEnded(None, provider_task=id, reason=STRANGER))
        elif whole and (gap := line.gap()) is not None:
            evidence, reason = gap
            self._end_later(line.first, line.sent_ms, SpeechEnded(line.task, evidence, id, reason=reason))
        elif whole and played_ms is not None and (early_ms := segment.length_ms - played_ms) > EARLY_MS:
            reason = f"Avaturn reported the end {early_ms} ms before the sound can have ended"
            self._end_later(segment, segment.length_ms, SpeechEnded(line.task, Evidence.estimated, id, reason=reason))
        else:
            duration_ms = played_ms if len(line.segments) == 1 else None
            remark = self._take_remark()
            if line.spoken is not None:
                self.emit(line.spoken.ended(line.task, id, duration_ms, remark))
            else:
                self.emit(SpeechEnded(line.task, provider_task=id, duration_ms=duration_ms, reason=remark))

    def _end_later(self, since: _Segment | None, length_ms: int, ended: SpeechEnded) -> None:
        """Report an end that cannot be trusted, not before so much sound can have been played since that segment began."""
        began_ms = since.began_ms if since is not None and since.began_ms is not None else 0
        self.context.clock.call_at(began_ms + length_ms, lambda: None if self._closing else self.emit(ended))

    def _meant(self, state: str) -> _Segment | None:
        """The segment that a report without a name of ours can mean: the first in this state of the only line that is not over."""
        lines = [line for line in self._lines.values() if not line.over]
        return next((segment for segment in lines[0].segments if segment.state == state), None) if len(lines) == 1 else None

    def _interrupted(self, segment: _Segment | None, message: dict[str, Any]) -> None:
        id, played_s = _text(message, "segment_id"), seconds(message.get("played_duration"))
        played_ms = None if played_s is None else round(played_s * 1000)
        if segment is None:
            self.emit(SpeechEnded(None, provider_task=id, interrupted=True, heard_ms=played_ms, reason=STRANGER))
            return
        if segment.state != "over":
            segment.state = "over"
            segment.line.heard_ms += min(played_ms or 0, segment.length_ms)
            if segment.placement is not None:
                segment.placement.cut_ms = segment.placement.start_ms + (played_ms or 0)
        self._end(segment.line, id, self._take_remark())
        self._settle()  # what has not begun when this one is cut off never will

    def _complained(self, message: dict[str, Any]) -> None:
        """An error is advisory, unless it refuses the segment that we want to open. (It does not name the segment.)"""
        subtype, reason = _text(message, "subtype") or "error", _text(message, "reason") or ""
        told = f"{subtype}: {reason}" if reason else subtype
        complaint = f"Avaturn complains of {quoted(told, self.context.redact)}"
        sending = self._sending
        if subtype == "avatar.speech.segment.error" and sending is not None and not sending.created.done():
            self._done_with(sending.line)
            sending.created.set_exception(ProviderError(complaint))
        else:
            self._remark = complaint

    def _end(self, line: _Line, id: str | None, reason: str | None) -> None:
        """An interrupted line is over."""
        self._done_with(line)
        evidence = Evidence.estimated if id is None else Evidence.reported
        heard_ms, words = line.heard_ms, None if line.spoken is None else line.spoken.words(line.heard_ms)
        self.emit(SpeechEnded(line.task, evidence, id, interrupted=True, heard_ms=heard_ms, heard=words, reason=reason))

    def _done_with(self, line: _Line) -> None:
        if line.over:
            return
        line.over = True
        self._past.append(line)
        if len(self._past) > REMEMBERED:
            old = self._past.popleft()
            self._lines.pop(old.task, None)
            for segment in old.segments:
                self._segments.pop(segment.uid, None)

    def _record(self, segment: _Segment) -> None:
        """Tell the recorder of the show what is heard from now on, and when its words are."""
        line, now = segment.line, self.context.clock.now_ms()
        show = self.material.show
        if show is None or segment.load is None:
            return
        segment.placement = show.place(now, segment.load)
        if line.spoken is not None and segment is line.segments[0]:
            show.mark(line.task, line.spoken.marks)

    def _take_remark(self) -> str | None:
        remark, self._remark = self._remark, None
        return remark

    def _complaint(self) -> str:
        remark = self._take_remark()
        return f"; {remark}" if remark else ""


_REPORTS: dict[str, Callable[[ExternalSession, _Segment | None, dict[str, Any]], None]] = {
    "avatar.speech.segment.created": ExternalSession._created,
    "avatar.speech.segment.closed": ExternalSession._closed,
    "avatar.speech.segment.playback.started": ExternalSession._started,
    "avatar.speech.segment.playback.ended": ExternalSession._ended,
    "avatar.speech.segment.playback.interrupted": ExternalSession._interrupted,
}


def _played_ms(segment: _Segment, message: dict[str, Any]) -> int | None:
    """How long a segment that ends was played, by Avaturn's own clock, of which only differences mean something."""
    ended_s = seconds(message.get("timestamp"), LATEST_S)
    return None if segment.started_s is None or ended_s is None else max(0, round((ended_s - segment.started_s) * 1000))


def _text(message: dict[str, Any], name: str) -> str | None:
    value = message.get(name)
    return value if isinstance(value, str) else None
