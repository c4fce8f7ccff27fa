"""Where the contract test meets each provider: a `Stand` per provider and mode, with an emulator where there is one.

To add a provider, write a function that gives its `Stand` and name it in `STANDS`. `Stage` is a session on a stand, with a list in place
of the runner; `perform` is a whole run (`tests/shown.py` performs one from a text, on a clock of its own, and checks what it left).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from playbook.clock import Clock
from playbook.emulators.base import Emulator
from playbook.events import Event
from playbook.journal.journal import Journal
from playbook.language import Inputs, compile_file
from playbook.model import AudioEcho, Length, Plan, Step
from playbook.perform.folder import sound_of
from playbook.perform.performance import Options, Outcome, Runner
from playbook.perform.world import World
from playbook.ports import Transports, Viewer
from playbook.providers import registry
from playbook.providers.avaturn.provider import AvaturnProvider
from playbook.providers.base import Context, Material, Provider
from playbook.providers.kaltura.provider import KalturaProvider
from playbook.providers.local.provider import LocalProvider
from playbook.providers.tavus.provider import TavusProvider
from playbook.sessions.kept import length_ms
from playbook.speech.audio import silence
from playbook.speech.voice import Voice
from playbook.transports.factory import Before, MakeRoom, MakeSocket, Wrapped, transports_for
from playbook.transports.http import Send
from playbook.transports.listener import Dialled
from playbook.transports.room import OnEvent, Room
from tests import scripts
from tests.served import SESSIONS
from tests.sounds import to_wav

VOICE = Voice()
"""The real voice, which all tests of a process share: what one of them has let it say, the others need not wait for."""


def voice() -> Voice:
    """The same, for providers, which ask for a voice when they need one."""
    return VOICE


@dataclass(frozen=True)
class Stand:
    """A provider and what it needs: an environment, session settings, what stands before its transports; and its emulator."""

    provider: Provider
    env: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    emulator: Emulator | None = None
    before: Before | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stand]:
        """The stand while its emulator serves, with the way there in its environment; what the stand says itself comes before that."""
        if (emulator := self.emulator) is None:
            yield self
        else:
            async with emulator.serve():
                yield replace(self, env={**emulator.environment(), **self.env})

    def transports(self) -> Transports:
        """Its way to the outside."""
        real = transports_for(self.provider.name, self.env)
        return real if self.before is None else Wrapped(real, self.before)

    @property
    def credentials(self) -> set[str]:
        """What must never be seen of it: keys of the environment, and what the emulator handed out."""
        keys = {self.env.get(name, "") for way in self.provider.credentials for name in way} - {""}
        return keys | (self.emulator._sealed if self.emulator is not None else set())


def _emulated(provider: Callable[[], Provider], name: str, **settings: Any) -> Callable[[], AbstractAsyncContextManager[Stand]]:
    """A stand at an emulator, where somebody watches from the start; with these settings, or with the vendor's least."""
    watched = {} if name == "tavus" else {"viewer_after_ms": 0}
    return lambda: Stand(provider(), settings=settings or SESSIONS[name], emulator=registry.emulator(name)(**watched)).open()


EXTERNAL: Mapping[str, Any] = {"type": "external", "url": "wss://avatar.example.com/playbook"}

STANDS: Mapping[str, Callable[[], AbstractAsyncContextManager[Stand]]] = {
    "local": lambda: Stand(LocalProvider(VOICE)).open(),
    "kaltura": _emulated(KalturaProvider, "kaltura"),
    "avaturn": _emulated(AvaturnProvider, "avaturn"),
    "avaturn-external": _emulated(lambda: AvaturnProvider(voice), "avaturn", conversation_engine=EXTERNAL),
    "tavus": _emulated(TavusProvider, "tavus"),
    "tavus-microphone": _emulated(lambda: TavusProvider(voice), "tavus", **SESSIONS["tavus"], echo_via="microphone"),
}


def chime(ms: int = 400, rate: int = 16_000) -> bytes:
    """A WAV file of that length."""
    return to_wav(silence(ms, rate))


CHIME = chime()
CHIME_SHA = hashlib.sha256(CHIME).hexdigest()


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


class Stage:
    """A session on a stand, with `events` in place of a runner."""

    def __init__(self, stand: Stand, plan: Plan, folder: Path) -> None:
        self.stand = stand
        self.clock = Clock()
        self.events: list[Event] = []
        self.published: list[Viewer] = []
        self.secrets: set[str] = set()
        self.crashes: list[BaseException] = []
        self.journal = Journal(folder)
        self._more = asyncio.Event()
        self.session = stand.provider.connect(
            Context(
                settings=plan.session,
                capabilities=plan.capabilities,
                name=plan.name,
                lasts_ms=length_ms(plan),
                clock=self.clock,
                emit=self._emit,
                env=stand.env,
                journal=self.journal.entry("a-run", "a-playbook"),
                seal=self.secrets.add,
                publish=self.published.append,
                crash=self.crashes.append,
                transports=stand.transports(),
                place_of=plan.place_of,
            )
        )
        self.session.load(Material(plan=plan, sound=partial(sound_of, plan)))

    def _emit(self, event: Event) -> None:
        self.events.append(event)
        self._more.set()

    def of(self, kind: type[Event], task: str | None = None) -> list[Any]:
        """The events of one kind, or those of them that name a task."""
        return [event for event in self.events if isinstance(event, kind) and task in (None, getattr(event, "task", None))]

    async def until(self, kind: type[Event], task: str | None = None, count: int = 1) -> Any:
        """Wait until so many events of this kind have come. Gives the last."""
        async with asyncio.timeout(120):
            while len(self.of(kind, task)) < count:
                self._more.clear()
                await self._more.wait()
        assert not self.crashes, self.crashes
        return self.of(kind, task)[-1]

    async def pass_ms(self, ms: int) -> None:
        """Let time go by."""
        await self.clock.sleep_until(self.clock.now_ms() + ms)


def playbook_text(stand: Stand, timeline: str, head: str = "start: 0s") -> str:
    """A playbook for a stand."""
    session = f"session: {json.dumps(dict(stand.settings))}\n" if stand.settings else ""
    return f"version: 1\nprovider: {stand.provider.name}\n{session}{head}\ntimeline:\n{timeline}"


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


async def perform(stand: Stand, plan: Plan, folder: Path, **options: Any) -> Outcome:
    """A whole run."""
    return await runner_on(stand, plan, folder, **options).run()
