"""Lines that come in chunks and are spoken in one breath by the embedded voice: for `local`, and for sessions that play our sound.

Since the plan knows all of a line, a chunk is a stretch of the whole line's sound, up to the last word that it completes. A chunk of a
line that the plan does not know is spoken by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from playbook.errors import MASK, SetupError
from playbook.events import SayText, SpeechEnded
from playbook.model import Evidence, Plan, Say
from playbook.providers.local.provider import BATCH, LocalProvider, Marks, Script, script_of, settings_of
from playbook.speech.mouth import Mouth, between
from playbook.speech.voice import Settings, VoiceMissing

if TYPE_CHECKING:
    from playbook.speech.audio import Sound

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a chunk lets be heard of a script."""

    script: Script
    from_ms: int
    to_ms: int

    @property
    def mouth(self) -> Mouth:
        """The shapes of the mouth, in the stretch's own time."""
        return between(self.script.mouth, self.from_ms, self.to_ms)

    def sound(self) -> Sound:
        from playbook.speech.audio import Sound, cut, to_samples

        assert self.script.load is not None
        sound = self.script.load()
        return Sound(cut(sound, self.to_ms).pcm[2 * to_samples(self.from_ms, sound.rate) :], sound.rate)


@dataclass(slots=True, eq=False)
class SpokenLine:
    """How far one line has come: `chars` of its text, which lets it be heard up to `reach_ms`."""

    script: Script | None = None  # the whole line's, or the last chunk's where the chunks are `apart`
    masked: bool = False
    chars: int = 0
    reach_ms: int = 0
    apart: bool = False

    @property
    def marks(self) -> Marks:
        """Where its words fall, where they are known and may be shown."""
        return () if self.script is None or self.apart or self.masked else self.script.marks

    @property
    def left_out(self) -> str | None:
        """What to tell of words that the voice did not speak. The line's end is no better than estimated then."""
        missing = [] if self.script is None else [self.script.text[start:end] for start, end in self.script.missing]
        return not_spoken(missing, masked=self.masked)

    @property
    def said(self) -> str | None:
        """The words that are spoken, where they are not the line's own and may be shown."""
        script = None if self.apart or self.masked else self.script
        return script.spoken if script is not None and script.missing else None

    def ended(self, task: str, id: str | None = None, duration_ms: int | None = None, reason: str | None = None) -> SpeechEnded:
        """That it was played to its end, as somebody reports who cannot know what the voice left out."""
        if self.left_out is None:
            return SpeechEnded(task, provider_task=id, duration_ms=duration_ms, reason=reason)
        reasons = "; ".join(filter(None, (self.left_out, reason)))
        return SpeechEnded(task, Evidence.estimated, id, duration_ms, heard=self.said, reason=reasons)

    def words(self, ms: int) -> str | None:
        """The words in its first `ms`, where they are known and may be shown."""
        if self.script is None or self.apart:
            return None
        return MASK if self.masked else self.script.heard(ms)


def not_spoken(missing: Sequence[str], *, masked: bool) -> str | None:
    """What to tell of words that the voice did not speak."""
    if not missing:
        return None
    named = MASK if masked else " … ".join(missing)
    return f"the voice did not speak '{named}'"


async def _in_a_thread(work: Callable[..., T], *given: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, work, *given)


class Speaker:
    """Speaks the lines of one plan."""

    def __init__(self, provider: LocalProvider, plan: Plan) -> None:
        self._provider, self._voice, self._plan = provider, provider.voice, plan
        self._base = settings_of(plan)
        self._voice.on_failure = "fail" if plan.session.get("on_voice_failure") == "fail" else "espeak"
        self._nobody_waits = asyncio.Event()
        self._nobody_waits.set()
        self._wait_for = 0  # pieces that somebody waits for
        self._planned = {step.id: step.action for step in plan.steps if isinstance(step.action, Say) and step.skipped is None}

    def need_voice(self) -> None:
        """Raise `VoiceMissing` where there is something to say and no voice."""
        if self._planned and not self._voice.available:
            raise VoiceMissing

    async def speak_ahead(self, *, streams: bool = False) -> None:
        """Have all lines spoken before a session costs anything. With `streams`, of what takes long only the first piece of the first
        line, without which nothing can begin."""
        jobs = self._provider.unspoken(self._plan)
        slow = [job for job in jobs if not self._voice.instant(job[1])] if streams else []
        now = [job for job in jobs if job not in slow]
        if slow:
            await _in_a_thread(self._voice.recall, slow)
            now += [(self._voice.parts(text, settings)[0].text, settings) for text, settings in slow[:1]]
        for at in range(0, len(now), BATCH):
            await _in_a_thread(self._voice.speak_many, now[at : at + BATCH])

    async def speak_on(self) -> None:
        """Have the rest spoken, piece by piece, in the order of the show; what somebody waits for goes first."""
        for text, settings in [job for job in self._provider.unspoken(self._plan) if not self._voice.instant(job[1])]:
            for piece in self._voice.parts(text, settings):
                await self._nobody_waits.wait()
                with suppress(SetupError):  # whoever says the line meets it again
                    await _in_a_thread(self._voice.speak, piece.text, settings)

    def must_wait(self, line: SpokenLine, command: SayText) -> bool:
        """Whether a chunk is not spoken yet and takes long to be."""
        if not self._voice.available:
            return False
        text, settings, _ = self._what(line, command)
        return not self._voice.instant(settings) and self._voice.known(text, settings) is None

    async def pieces(self, line: SpokenLine, command: SayText) -> AsyncIterator[tuple[Script, bool]]:
        """What a line in one chunk lets be heard, piece by piece as each is spoken, and whether it is the last."""
        text, settings, whole = self._what(line, command)
        self._mark(line, command, whole)
        pieces = self._voice.parts(text, settings)
        for n, piece in enumerate(pieces, 1):
            self._waiting(1)
            try:
                speech = await _in_a_thread(self._voice.speak, piece.text, settings)
            finally:
                self._waiting(-1)
            yield script_of(speech, piece.pause_ms if n < len(pieces) else 0), n == len(pieces)

    def _waiting(self, more: int) -> None:
        self._wait_for += more
        (self._nobody_waits.clear if self._wait_for else self._nobody_waits.set)()

    def slowness(self) -> str | None:
        """What to tell where a voice takes longer to speak than its sound lasts."""
        slow = [f"{name} needs {factor:.1f} s for a second of sound" for name, factor in self._voice.factor.items() if factor > 1]
        return f"{'; '.join(slow)} on this machine: pauses between sentences may be heard" if slow else None

    def begin(self, command: SayText) -> SpokenLine:
        """The line that this is the first chunk of, before any of it has come."""
        line = SpokenLine()
        text, settings, whole = self._what(line, command)
        line.script = self._provider.script(text, settings)
        self._mark(line, command, whole)
        return line

    async def have_spoken(self, line: SpokenLine, command: SayText) -> None:
        """What was not spoken ahead is spoken in a thread, so that nobody else has to wait."""
        text, settings, _ = self._what(line, command)
        if self._voice.known(text, settings) is None:
            await _in_a_thread(self._voice.speak, text, settings)

    async def speak(self, line: SpokenLine, command: SayText) -> Stretch:
        """`next`, of what may not have been spoken ahead."""
        await self.have_spoken(line, command)
        return self.next(line, command)

    def next(self, line: SpokenLine, command: SayText) -> Stretch:
        """What the next chunk lets be heard: silence where there is no voice. Raises `SetupError`, and then the line is as it was."""
        text, settings, whole = self._what(line, command)
        script = line.script
        if script is None or not whole or (script.load is None and self._voice.available):
            if self._voice.available and self._voice.known(text, settings) is None:
                self._voice.speak(text, settings)
            script = self._provider.script(text, settings)
            line.script, line.chars, line.reach_ms = script, 0, 0
        self._mark(line, command, whole)
        line.chars += len(command.text)
        from_ms, line.reach_ms = line.reach_ms, max(line.reach_ms, script.reach_ms(line.chars))
        return Stretch(script, from_ms, line.reach_ms)

    def _what(self, line: SpokenLine, command: SayText) -> tuple[str, Settings, bool]:
        """What is spoken for a chunk, how, and whether that is the whole line, in which the chunk is the next."""
        action = self._planned.get(command.step)
        settings = self._provider.line_settings(self._base, command.voice)
        if action is not None and action.text.startswith(command.text, line.chars) and (line.chars == 0 or not line.apart):
            return action.text, settings, True
        return command.text, settings, False

    def _mark(self, line: SpokenLine, command: SayText, whole: bool) -> None:
        action = self._planned.get(command.step)
        secret = command.shown is not None or (action is not None and any(chunk.shown is not None for chunk in action.chunks))
        line.masked = line.masked or secret
        line.apart = not whole and not (command.chunk == 1 and command.final)
