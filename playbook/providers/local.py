"""The `local` provider: our own voice, or silence of the right length. No key and no network.

Without the extra `voice` every line takes the time that `speech.pacing` gives it. With it, all lines are spoken before the session opens,
so that a run only plays: lines one after another without a gap, each to the millisecond.

A line that comes in chunks is one utterance and is spoken in one breath: since the plan knows all of its text, a word that a chunk cuts
in two still sounds like a word. A chunk lets be heard what it completes; when the next one is late there is silence until it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from playbook.errors import Problem, SetupError
from playbook.events import (
    PlayAudio,
    ProviderFailed,
    SayText,
    SessionClosed,
    SessionOpened,
    SpeechEnded,
    SpeechStarted,
    StopSpeaking,
    TaskAccepted,
)
from playbook.model import Capabilities, Chunk, Length, Plan, Say
from playbook.providers.base import Context
from playbook.speech.pacing import estimate_ms
from playbook.speech.voice import MAX_CHARS, REMEDY, Settings, Unspeakable, Voice, heard

if TYPE_CHECKING:
    from playbook.speech.audio import Sound
    from playbook.speech.show import Placement, ShowRecorder

NORMAL_RATE = 175
"""Words per minute, eSpeak NG's own."""
BATCH = 64
"""How many lines are spoken ahead before the session looks whether somebody wants it closed."""
MASK = "***"

Marks = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Script:
    """How a text goes (or a sound, which has none). Without `load` it is silent, and its length is an estimate."""

    text: str
    length_ms: int
    marks: Marks = ()  # when each word begins, and where it stands in the text
    ends: tuple[int, ...] = ()  # and where it ends there
    load: Callable[[], Sound] | None = field(default=None, repr=False)

    def reach_ms(self, chars: int) -> int:
        """How far it can be played when only so much of the text has come: to the first word that is not whole yet."""
        if chars >= len(self.text):
            return self.length_ms
        if not self.marks:
            return self.length_ms * chars // len(self.text)
        whole = bisect_right(self.ends, chars)
        return self.marks[whole][0] if whole < len(self.marks) else self.length_ms

    def lasts_ms(self, chunks: Sequence[Chunk]) -> int:
        """How long it is from its first sound to its last when it comes in these chunks, with the silence where one is late."""
        arrival = end = reach = 0
        begin: int | None = None
        for chunk, chars in zip(chunks, accumulate(len(chunk.text) for chunk in chunks), strict=True):
            arrival += chunk.after_ms
            before, reach = reach, self.reach_ms(chars)
            end = max(end, arrival) + reach - before
            if begin is None and reach > 0:
                begin = arrival
        return 0 if begin is None else end - begin


class LocalProvider:
    """Speaks with the voice it is given (None: one with a cache of its own)."""

    name = "local"
    schema = "local.schema.json"
    credentials = ()

    def __init__(self, voice: Voice | None = None) -> None:
        self.voice = voice or Voice()
        self._understood: dict[tuple[Settings, str], bool] = {}

    def capabilities(self, settings: Mapping[str, Any]) -> Capabilities:
        return Capabilities(
            interrupt="all",
            speech="exact",
            voice_per_line=True,
            own_voice=True,
            price_per_minute=settings.get("price_per_minute"),
        )

    def check(self, plan: Plan) -> Iterator[Problem]:
        """Voices and languages that do not exist. In the session that is an error; a line falls back on the session's voice, so that a
        playbook with another provider's voices can still be rehearsed."""
        if not self.voice.available:
            return
        base = _settings(plan)
        if base.voice or base.language:
            try:
                self.voice.resolve(base)
            except Unspeakable as error:
                yield Problem("PB450", error.message, remedy=error.remedy)
                return
        for step in plan.steps:
            if isinstance(step.action, Say) and step.action.voice is not None and step.skipped is None:
                try:
                    self.voice.resolve(replace(base, voice=step.action.voice))
                except Unspeakable as error:
                    message = f"{error.message}; the session's voice speaks this line"
                    yield Problem("PB451", message, step.place, error.remedy, "warning", via=step.via)

    def lengths(self, plan: Plan) -> Sequence[Length | None]:
        """How long each line will take, one entry a step: exact with the voice, else estimated. None for what is no line."""
        lengths: list[Length | None] = []
        for step, script in zip(plan.steps, self._scripts(plan), strict=True):
            if script is None:
                lengths.append(None)
            else:
                assert isinstance(step.action, Say)
                lengths.append(Length(script.lasts_ms(step.action.chunks), "estimated" if script.load is None else "exact"))
        return lengths

    def words(self, plan: Plan) -> Sequence[Marks]:
        """Where the words of each step fall: (milliseconds after the line's start, character), as far as that is known."""
        return [() if script is None else script.marks for script in self._scripts(plan)]

    def connect(self, context: Context) -> LocalSession:
        return LocalSession(self, context)

    # --- speaking ahead ---------------------------------------------------------------------------------------------

    def unspoken(self, plan: Plan) -> list[tuple[str, Settings]]:
        """What the voice has to speak before the plan can be played."""
        if not self.voice.available:
            return []
        base = _settings(plan)
        actions = [step.action for step in plan.steps if isinstance(step.action, Say) and step.skipped is None]
        jobs = [(action.text, self.line_settings(base, action.voice)) for action in actions if len(action.text) <= MAX_CHARS]
        return [job for job in jobs if self.voice.known(*job) is None]

    def line_settings(self, base: Settings, voice: str | None) -> Settings:
        """How a line with a voice of its own is spoken; a voice that is not ours changes nothing."""
        if voice is None or not self.voice.available:
            return base
        own = replace(base, voice=voice)
        key = (base, voice)
        if key not in self._understood:
            try:
                self.voice.resolve(own)
                self._understood[key] = True
            except Unspeakable:
                self._understood[key] = False
        return own if self._understood[key] else base

    def script(self, text: str, settings: Settings) -> Script:
        """How a text goes: as it was spoken ahead, else by estimate."""
        speech = self.voice.known(text, settings)
        if speech is not None:
            marks = tuple((word.at_ms, word.start) for word in speech.words)
            ends = tuple(word.start + len(word.text) for word in speech.words)
            return Script(text, speech.duration_ms, marks, ends, lambda: speech.sound)
        language = settings.language or (settings.voice or "en").partition("+")[0]
        return Script(text, estimate_ms(text, language, (settings.rate or NORMAL_RATE) / NORMAL_RATE))

    def _scripts(self, plan: Plan) -> Iterator[Script | None]:
        if jobs := self.unspoken(plan):
            with contextlib.suppress(Unspeakable):  # `check` says so, with the near names
                self.voice.speak_many(jobs)
        base = _settings(plan)
        for step in plan.steps:
            if isinstance(step.action, Say) and step.skipped is None:
                yield self.script(step.action.text, self.line_settings(base, step.action.voice))
            else:
                yield None


def _settings(plan: Plan) -> Settings:
    """The voice that the session asks for. (Another provider that lends our voice may mean something else by one of these names.)"""

    def given(name: str, kind: type) -> Any:
        value = plan.session.get(name)
        return value if type(value) is kind else None

    return Settings(voice=given("voice", str), rate=given("rate", int), pitch=given("pitch", int), language=given("language", str))


# --- the session --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a script that has come and can be played."""

    script: Script
    from_ms: int
    to_ms: int
    came_ms: int


@dataclass(slots=True, eq=False)
class _Line:
    """One utterance. `parts` wait to be played; `part` is the one that is `playing`, or was played last."""

    task: str
    masked: bool = False
    final: bool = False
    script: Script | None = None
    chars: int = 0  # how much of the text has come
    reach_ms: int = 0  # and how far that lets it be played
    parts: deque[_Part] = field(default_factory=deque)
    part: _Part | None = None
    part_began_ms: int = 0
    playing: bool = False
    begun_ms: int | None = None
    said_ms: int = 0  # parts that are over; silence between late chunks does not count
    before: str = ""  # the text of scripts that are over, where the plan does not know the line and each chunk is its own
    placement: Placement | None = None
    timer: asyncio.TimerHandle | None = None

    def heard(self, now: int) -> tuple[int, str | None]:
        """How much of it has been heard: milliseconds, and the words where their times are known."""
        part = self.part
        if part is None:
            return 0, None if self.script is None else ""
        position = part.from_ms + min(max(0, now - self.part_began_ms), part.to_ms - part.from_ms) if self.playing else part.to_ms
        ms = self.said_ms + (position - part.from_ms if self.playing else 0)
        script = part.script
        if self.script is None or script.load is None:
            return ms, None
        if self.masked:
            return ms, MASK
        return ms, (self.before + heard(script.text, script.marks, script.length_ms, position)).strip()


class LocalSession:
    """Plays lines in their order on the run's clock. All state is changed before an event is emitted, since whoever hears of the event
    may answer with the next command at once."""

    def __init__(self, provider: LocalProvider, context: Context) -> None:
        self._provider = provider
        self._voice = provider.voice
        self._context = context
        self._clock = context.clock
        self._emit = context.emit
        self._show: ShowRecorder | None = context.extras.get("show")
        self._base = _settings(context.plan)
        self._planned = {step.id: step.action for step in context.plan.steps if isinstance(step.action, Say)}
        self._lines: dict[str, _Line] = {}  # open, in the order in which they are heard
        self._stopped: set[str] = set()
        self._free_ms = 0  # when the last line was over
        self._preparing: asyncio.Task[None] | None = None
        self._closed = False

    def open(self) -> None:
        jobs = self._provider.unspoken(self._context.plan)
        if jobs:
            self._preparing = asyncio.ensure_future(self._prepare(jobs))
        else:
            self._opened()

    async def _prepare(self, jobs: list[tuple[str, Settings]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            for at in range(0, len(jobs), BATCH):
                await loop.run_in_executor(None, self._voice.speak_many, jobs[at : at + BATCH])
        except SetupError as error:
            self._emit(ProviderFailed(error.message))
        except Exception as error:
            self._context.crash(error)
        else:
            self._opened()

    def _opened(self) -> None:
        silent = f"no voice is installed: lines are silent and their lengths estimated; {REMEDY}"
        self._emit(SessionOpened("local", None if self._voice.available else silent))

    def say(self, command: SayText) -> None:
        if command.task in self._stopped:
            self._emit(ProviderFailed("the line was interrupted", task=command.task, chunk=command.chunk))
            return
        line = self._lines.get(command.task) or _Line(command.task)
        now = self._clock.now_ms()
        try:
            script, text_before = self._script(line, command)
        except SetupError as error:
            self._emit(ProviderFailed(error.message, task=command.task, chunk=command.chunk))
            return
        self._lines[command.task] = line
        if script is not line.script:
            line.script, line.reach_ms = script, 0
        line.chars = text_before + len(command.text)
        line.final = command.final
        start, line.reach_ms = line.reach_ms, max(line.reach_ms, script.reach_ms(line.chars))
        if line.reach_ms > start or command.final:
            line.parts.append(_Part(script, start, line.reach_ms, now))
        whole = script.length_ms if command.chunk == 1 and command.final else None
        self._emit(TaskAccepted(command.task, chunk=command.chunk, duration_ms=whole))
        self._advance()

    def _script(self, line: _Line, command: SayText) -> tuple[Script, int]:
        """What a chunk belongs to, and how much of that has come before it: the whole line where the plan knows it, else itself."""
        settings = self._provider.line_settings(self._base, command.voice)
        action = self._planned.get(command.step)
        if command.shown is not None or (action is not None and any(chunk.shown is not None for chunk in action.chunks)):
            line.masked = True
        if action is not None and (text := action.text).startswith(command.text, line.chars):
            if line.script is not None and line.script.text == text:
                return line.script, line.chars
            if line.chars == 0:
                return self._ready(text, settings), 0
        return self._ready(command.text, settings), 0

    def _ready(self, text: str, settings: Settings) -> Script:
        if self._voice.available and self._voice.known(text, settings) is None:
            self._voice.speak(text, settings)  # only a line that is not in the plan has not been spoken ahead
        return self._provider.script(text, settings)

    def play_audio(self, command: PlayAudio) -> None:
        line = self._lines[command.task] = _Line(command.task, final=True)
        script = Script("", command.duration_ms, load=lambda: self._context.sound(command.audio_sha256))
        line.parts.append(_Part(script, 0, command.duration_ms, self._clock.now_ms()))
        self._emit(TaskAccepted(command.task, duration_ms=command.duration_ms))
        self._advance()

    def interrupt(self, command: StopSpeaking) -> None:
        now = self._clock.now_ms()
        lines = self._silence(now)
        self._stopped |= {line.task for line in lines}
        self._emit(TaskAccepted(command.task))
        for line in lines:
            heard_ms, text = line.heard(now)
            self._emit(SpeechEnded(line.task, interrupted=True, heard_ms=heard_ms, heard=text))

    def close(self, reason: str) -> None:  # noqa: ARG002 -- the contract's, and nobody to tell it to
        if self._closed:
            return
        self._closed = True
        if self._preparing is not None:
            self._preparing.cancel()
        self._silence(self._clock.now_ms())
        self._emit(SessionClosed())

    # --- playing ----------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Let the first line play its next part, unless it is playing or has none."""
        line = next(iter(self._lines.values()), None)
        if line is None or line.playing or not line.parts:
            return
        part = line.parts.popleft()
        start = max(part.came_ms, self._free_ms)
        first = line.begun_ms is None
        if line.begun_ms is None:
            line.begun_ms = start
        self._record(line, part, start, line.begun_ms)
        if line.part is not None and line.part.script is not part.script:
            line.before += line.part.script.text
        line.part, line.part_began_ms, line.playing = part, start, True
        line.timer = self._clock.call_at(start + part.to_ms - part.from_ms, lambda: self._played(line, part))
        if first:
            self._emit(SpeechStarted(line.task))

    def _played(self, line: _Line, part: _Part) -> None:
        line.said_ms += part.to_ms - part.from_ms
        line.playing = False
        self._free_ms = line.part_began_ms + part.to_ms - part.from_ms
        if line.final and not line.parts:
            assert line.begun_ms is not None
            del self._lines[line.task]
            self._emit(SpeechEnded(line.task, duration_ms=self._free_ms - line.begun_ms))
        self._advance()

    def _record(self, line: _Line, part: _Part, start: int, begun: int) -> None:
        """Tell the recorder what is heard from now on, and when its words are."""
        show, script = self._show, part.script
        if show is None or script.load is None or part.from_ms == part.to_ms:
            return
        to_ms = None if part.to_ms == script.length_ms else part.to_ms
        if line.placement is not None and line.part is not None and line.part.script is script and start == self._free_ms:
            line.placement.to_ms = to_ms  # without a seam
        else:
            line.placement = show.place(start, script.load, part.from_ms, to_ms)
        if script.marks and not line.masked:
            shift, chars = start - begun - part.from_ms, len(line.before)
            if line.part is not None and line.part.script is not script:
                chars += len(line.part.script.text)
            marks = tuple((at_ms + shift, place + chars) for at_ms, place in script.marks if part.from_ms <= at_ms < part.to_ms)
            show.words[line.task] = (*show.words.get(line.task, ()), *marks)

    def _silence(self, now: int) -> list[_Line]:
        """Stop everything. Gives back the lines that were open."""
        lines = list(self._lines.values())
        self._lines.clear()
        self._free_ms = now
        for line in lines:
            if line.timer is not None:
                line.timer.cancel()
        if self._show is not None:
            self._show.cut(now)
        return lines
