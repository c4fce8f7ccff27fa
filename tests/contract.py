"""Where tests meet each provider: a `Stand` for each of its ways to perform, at its emulator where there is one (`playbook.testing`).

`Stage` is a session on a stand, with a list in place of the runner; `perform` is a whole run (`tests/shown.py` performs
one from a text, on a clock of its own, and checks what it left).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

from playbook.language import Inputs, compile_file
from playbook.model import AudioEcho, Length, Plan, Step
from playbook.perform.performance import Options, Outcome, Runner
from playbook.perform.world import World
from playbook.providers import registry
from playbook.providers.base import Provider, SpeaksLocally
from playbook.providers.local.provider import LocalProvider
from playbook.speech.audio import silence
from playbook.speech.voice import Voice
from playbook.testing.stands import CHIME, CHIME_SHA, Staged, Stand, playbook_text, stands_of
from playbook.transports.factory import Before, MakeRoom, MakeSocket, MakeStream, Wrapped
from playbook.transports.http import Send
from playbook.transports.listener import Dialled
from playbook.transports.room import OnEvent, Room
from playbook.transports.whep import OnStream, Stream
from tests import scripts
from tests.sounds import to_wav

__all__ = ["CHIME", "CHIME_SHA", "Stand", "playbook_text", "stands_of"]

VOICE = Voice()
"""The real voice, which all tests of a process share: what one of them has let it say, the others need not wait for."""


def voice() -> Voice:
    """The same, for providers, which ask for a voice when they need one."""
    return VOICE


def provided(name: str) -> Provider:
    """A provider of ours, whose local voice is the shared one."""
    if name == LocalProvider.name:
        return LocalProvider(VOICE)
    provider = registry.find(name)
    assert provider is not None
    if isinstance(provider, SpeaksLocally):
        provider.local_voice = voice
    return provider


PROVIDERS: Sequence[Callable[[], Provider]] = [partial(provided, name) for name in registry.OURS]
"""What makes each provider of ours."""
STANDS: Mapping[str, Callable[[], AbstractAsyncContextManager[Stand]]] = {
    name: partial(lambda stand: stand().open(), stand) for make in PROVIDERS for name, stand in stands_of(make).items()
}
"""A stand for each of their ways to perform, at its emulator."""


def chime(ms: int = 400, rate: int = 16_000) -> bytes:
    """A WAV file of that length."""
    return to_wav(silence(ms, rate))


def plan_for(stand: Stand, *steps: Step) -> Plan:
    """A plan by hand; `sound` steps play the chime."""
    return scripts.plan(
        *steps,
        can=stand.provider.capabilities(stand.settings),
        session=stand.settings,
        sounds={CHIME_SHA: CHIME},
    )


def sound(id: str, **step: Any) -> Step:
    """A step that plays the chime."""
    return Step(id, AudioEcho("chime.wav", CHIME_SHA, 400), length=Length(400), **step)


Stage = Staged


def write_playbook(folder: Path, stand: Stand, timeline: str, head: str = "start: 0s") -> Path:
    """A playbook for a stand as a file, and the chime beside it."""
    return write(folder, playbook_text(stand, timeline, head))


def write(folder: Path, text: str) -> Path:
    """A playbook as a file, and the chime beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chime.wav").write_bytes(CHIME)
    file = folder / "show.yaml"
    file.write_text(text, "utf-8")
    return file


def compile_on(file: Path, **var: Any) -> Plan:
    """The plan of a playbook, by the real world."""
    return compile_file(file, World(voice=VOICE), Inputs(var=var))


def runner_on(stand: Stand, plan: Plan, folder: Path, *, before: Before | None = None, **options: Any) -> Runner:
    """A run that is about to begin: log, journal and all. `before` stands in front of its transports."""
    where: dict[str, Any] = {"folder": folder / "run", "state_dir": folder / "state"}
    transports = stand.transports() if before is None else Wrapped(stand.transports(), before)
    return Runner(plan, Options(env=stand.env, provider=stand.provider, transports=transports, **where, **options))


class Between:
    """What stands in front of transports: `http` and `room` as given, and otherwise nothing."""

    def __init__(self, http: Callable[[Send], Send] | None = None, room: Callable[[OnEvent, MakeRoom], Room] | None = None) -> None:
        self._http, self._room = http, room

    def http(self, send: Send) -> Send:
        return send if self._http is None else self._http(send)

    def room(self, on_event: OnEvent, make: MakeRoom) -> Room:
        return make(on_event) if self._room is None else self._room(on_event, make)

    def listener(self, url: str, make: MakeSocket) -> Dialled:
        return make()

    def whep(self, tell: OnStream, make: MakeStream) -> Stream:
        return make(tell)


async def perform(stand: Stand, plan: Plan, folder: Path, **options: Any) -> Outcome:
    """A whole run."""
    return await runner_on(stand, plan, folder, **options).run()
