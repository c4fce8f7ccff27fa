"""Lines that come in chunks and are spoken in one breath by the embedded voice: for `local`, and for sessions that play our sound.

Since the plan knows all of a line, a chunk is a stretch of the whole line's sound, up to the last word that it completes. A chunk of a
line that the plan does not know is spoken by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from playbook.errors import MASK
from playbook.events import SayText
from playbook.model import Plan, Say
from playbook.providers.local.provider import BATCH, LocalProvider, Marks, Script, settings_of
from playbook.speech.mouth import Mouth, between
from playbook.speech.voice import Settings, VoiceMissing

if TYPE_CHECKING:
    from playbook.speech.audio import Sound


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


class Speaker:
    """Speaks the lines of one plan."""

    def __init__(self, provider: LocalProvider, plan: Plan) -> None:
        self._provider, self._voice, self._plan = provider, provider.voice, plan
        self._base = settings_of(plan)
        self._voice.on_failure = "fail" if plan.session.get("on_voice_failure") == "fail" else "espeak"
        self._planned = {step.id: step.action for step in plan.steps if isinstance(step.action, Say) and step.skipped is None}

    def need_voice(self) -> None:
        """Raise `VoiceMissing` where there is something to say and no voice."""
        if self._planned and not self._voice.available:
            raise VoiceMissing

    async def speak_ahead(self) -> None:
        """Have all lines spoken before a session costs anything."""
        jobs = self._provider.unspoken(self._plan)
        for at in range(0, len(jobs), BATCH):
            await asyncio.get_running_loop().run_in_executor(None, self._voice.speak_many, jobs[at : at + BATCH])

    def begin(self, command: SayText) -> SpokenLine:
        """The line that this is the first chunk of, before any of it has come."""
        line = SpokenLine()
        text, settings, whole = self._what(line, command)
        line.script = self._provider.script(text, settings)
        self._mark(line, command, whole)
        return line

    async def speak(self, line: SpokenLine, command: SayText) -> Stretch:
        """`next`, but what was not spoken ahead is spoken in a thread, so that nobody else has to wait."""
        text, settings, _ = self._what(line, command)
        if self._voice.known(text, settings) is None:
            await asyncio.get_running_loop().run_in_executor(None, self._voice.speak, text, settings)
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
