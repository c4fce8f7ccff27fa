"""The `local` provider: our own voice, or silence of the right length. No key and no network.

Without the extra `voice` every line is silence for the time that `speech.pacing` gives it, and its evidence is `estimated`. With it, all
lines are spoken before the session opens, so that a run only plays: lines one after another without a gap, each to the millisecond. A
voice that takes long (`Engine.instant` is false) is waited for on the virtual clock alone: otherwise the session opens when the first
sentence is there, and the others are spoken while the show goes on.

A line that comes in chunks is one utterance and is spoken in one breath: since the plan knows all of its text, a word that a chunk cuts
in two still sounds like a word. A chunk lets be heard what it completes; when the next one is late there is silence until it comes.
"""

from __future__ import annotations

import contextlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from playbook.errors import Problem
from playbook.model import Capabilities, Chunk, Length, Plan, Say
from playbook.speech.audio import Sound, silence
from playbook.speech.clauses import without
from playbook.speech.mouth import Mouth
from playbook.speech.pacing import estimate_ms
from playbook.speech.voice import FAILED_REMEDY, MAX_CHARS, NORMAL_RATE, REMEDY, Settings, Unspeakable, Voice, heard

if TYPE_CHECKING:
    from playbook.providers.base import Context
    from playbook.providers.local.session import LocalSession
    from playbook.speech.voice import Speech

BATCH = 64
"""How many lines are spoken ahead before the session looks whether somebody wants it closed."""

Marks = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Script:
    """How a text goes (or a sound, which has none). Without `load` it is silent, and its length is an estimate."""

    text: str
    length_ms: int
    marks: Marks = ()  # when each word begins, and where it stands in the text
    ends: tuple[int, ...] = ()  # and where it ends there
    load: Callable[[], Sound] | None = field(default=None, repr=False)
    missing: Marks = ()  # stretches of the text that the voice did not speak
    mouth: Mouth = ()  # its shapes, each from when on it is shown
    remark: str | None = None  # what the log is to say of how it was made

    @property
    def spoken(self) -> str:
        """The text, without what the voice did not speak."""
        return without(self.text, self.missing) if self.missing else self.text

    def heard(self, ms: int) -> str:
        """The words in its first `ms`."""
        said = heard(self.text, self.marks, self.length_ms, ms)
        return without(said, [(start, end) for start, end in self.missing if start < len(said)]) if self.missing else said

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
    emulator = ""
    lends_voice = True
    """Other providers have lines spoken by it."""
    problems: Mapping[str, str] = {
        "PB450": "a voice or language that the local voice does not have",
        "PB451": "a line's voice that the local voice does not have",
        "PB455": "lines of the local voice where no voice is installed",
        "PB456": "a show that the local voice is to speak where no voice is installed",
        "PB457": "a line at which the local voice fails",
    }
    stands: Mapping[str, Mapping[str, Any]] = {"local": {}}

    def __init__(self, voice: Voice | None = None) -> None:
        self.voice = voice or Voice()
        self._understood: dict[tuple[Settings, str], bool] = {}

    def capabilities(self, settings: Mapping[str, Any]) -> Capabilities:
        return Capabilities(
            interrupt="all",
            speech="exact",
            voice_per_line=True,
            own_voice=True,
            remote=False,
            price_per_minute=settings.get("price_per_minute"),
        )

    def failures(self, plan: Plan) -> Iterator[Problem]:
        """Lines that the voice was asked for and could not speak."""
        base = settings_of(plan)
        for step in plan.texts:
            assert isinstance(step.action, Say)
            if failure := self.voice.failure(step.action.text, self.line_settings(base, step.action.voice)):
                yield Problem("PB457", f"the local voice cannot speak this line: {failure}", step.place, FAILED_REMEDY, via=step.via)

    def check(self, plan: Plan) -> Iterator[Problem]:
        """Lines that nobody would hear; voices and languages that do not exist. In the session the latter is an error; a line falls back on
        the session's voice, so that a playbook with another provider's voices can still be rehearsed."""
        if not self.voice.available:
            if lines := plan.texts:
                which = "one line is" if len(lines) == 1 else f"{len(lines)} lines are"
                message = f"no voice is installed: {which} silence of an estimated length"
                yield Problem("PB455", message, lines[0].place, REMEDY, "warning", via=lines[0].via)
            return
        yield from self.unknown(plan)

    def unknown(self, plan: Plan) -> Iterator[Problem]:
        """Voices and languages that do not exist, or are not installed."""
        base = settings_of(plan)
        if base.voice or base.language:
            try:
                self.voice.resolve(base)
            except Unspeakable as error:
                yield Problem("PB450", error.message, plan.place_of("voice" if base.voice else "language"), error.remedy)
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

    def connect(self, context: Context) -> LocalSession:
        from playbook.providers.local.session import LocalSession

        return LocalSession(self, context)

    # --- speaking ahead ---------------------------------------------------------------------------------------------

    def unspoken(self, plan: Plan) -> list[tuple[str, Settings]]:
        """What the voice has to speak before the plan can be played."""
        if not self.voice.available:
            return []
        base = settings_of(plan)
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
            return script_of(speech)
        return Script(text, estimate_ms(text, self.voice.language(settings), (settings.rate or NORMAL_RATE) / NORMAL_RATE))

    def _scripts(self, plan: Plan) -> Iterator[Script | None]:
        jobs = self.unspoken(plan)
        self.voice.recall(job for job in jobs if not self.voice.instant(job[1]))
        if instant := [job for job in jobs if self.voice.instant(job[1])]:
            with contextlib.suppress(Unspeakable):  # `check` says so, with the near names
                self.voice.speak_many(instant)
        base = settings_of(plan)
        for step in plan.steps:
            if isinstance(step.action, Say) and step.skipped is None:
                yield self.script(step.action.text, self.line_settings(base, step.action.voice))
            else:
                yield None


def script_of(speech: Speech, pause_ms: int = 0) -> Script:
    """How a text goes that was spoken, with a pause after it."""
    remarks = ["marks: estimated" if speech.marks == "estimated" else None, speech.remark]
    return Script(
        speech.text,
        speech.duration_ms + pause_ms,
        tuple((word.at_ms, word.start) for word in speech.words),
        tuple(word.start + len(word.text) for word in speech.words),
        lambda: Sound(speech.sound.pcm + silence(pause_ms, speech.rate).pcm, speech.rate),
        speech.unspoken,
        speech.mouth,
        "; ".join(filter(None, remarks)) or None,
    )


def settings_of(plan: Plan) -> Settings:
    """The voice that the session asks for. (Another provider that lends our voice may mean something else by one of these names.)"""

    def given(name: str, kind: type) -> Any:
        value = plan.session.get(name)
        return value if type(value) is kind else None

    return Settings(voice=given("voice", str), rate=given("rate", int), pitch=given("pitch", int), language=given("language", str))
