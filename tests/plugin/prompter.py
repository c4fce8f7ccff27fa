"""The smallest provider, to copy: a prompter, which puts each line where a person reads it aloud. `pip install .` plugs it in.

`playbook/providers/base.py` says what a provider owes. `QueuedSession` does the part of it that is the same for everybody; a vendor over
HTTP adds `context.transports.http`, the journal and its errors, as `playbook/providers/kaltura` does. `check_prompter.py` asks of it what
`playbook.testing` asks of every provider.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from playbook.errors import Problem, ProviderError
from playbook.events import PlayAudio, SayText, StopSpeaking, TaskAccepted
from playbook.model import Capabilities, Plan
from playbook.providers.base import Context
from playbook.providers.queued import QueuedSession


class Prompter:
    name = "prompter"
    schema = str(Path(__file__).with_name("prompter.schema.json"))
    credentials = ()
    emulator = ""
    problems: Mapping[str, str] = {}
    stands: Mapping[str, Mapping[str, Any]] = {"prompter": {"file": "prompter.txt"}}

    def capabilities(self, settings: Mapping[str, Any]) -> Capabilities:
        return Capabilities(audio_echo=False, interrupt="none")  # and it does not tell when somebody speaks: lengths are estimated

    def check(self, plan: Plan) -> Iterable[Problem]:
        return ()

    def connect(self, context: Context) -> PrompterSession:
        return PrompterSession(context)


class PrompterSession(QueuedSession):
    async def _open(self) -> None:
        self.session_id = self.context.settings["file"]

    async def _say(self, command: SayText) -> TaskAccepted:
        try:
            await asyncio.to_thread(self._put, command.text + "\n" * command.final)  # the show does not wait for a disk
        except OSError as error:
            raise ProviderError(f"the prompter cannot be written: {error.strerror}") from error
        return TaskAccepted(command.task, chunk=command.chunk)

    async def _play_audio(self, command: PlayAudio) -> TaskAccepted:
        raise ProviderError("a prompter plays no sound")

    async def _interrupt(self, command: StopSpeaking) -> TaskAccepted:
        raise ProviderError("nobody can interrupt a reader")

    async def _close(self, reason: str) -> None:
        """Nothing was created, so nothing is left to end."""

    def _put(self, text: str) -> None:
        with open(self.context.settings["file"], "a", encoding="utf-8") as file:
            file.write(text)
