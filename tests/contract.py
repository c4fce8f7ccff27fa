"""Where the contract test meets each provider: a `Stand` per provider and mode, with an emulator where there is one.

To add a provider, write an async context manager that yields its `Stand` and name it in `STANDS`. `Stage` is a session on a stand, with a
list in place of the runner; `perform` is a whole run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playbook.clock import Clock
from playbook.emulators.base import Emulator
from playbook.events import Event
from playbook.language import compile_file
from playbook.model import AudioEcho, Length, Plan, Step
from playbook.providers.base import Context, Provider
from playbook.record.redact import Redactor
from playbook.runner import Options, Outcome, Runner
from playbook.sessions import Journal
from playbook.speech.audio import decode, silence
from playbook.speech.voice import Voice
from playbook.world import World
from tests import scripts
from tests.sounds import to_wav

VOICE = Voice()
"""The real voice, which all tests of a process share: what one of them has let it say, the others need not wait for."""


@dataclass(frozen=True)
class Stand:
    """A provider and what it needs: an environment, session settings, stand-ins for transports; and its emulator, which serves."""

    provider: Provider
    env: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    emulator: Emulator | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def local() -> AsyncIterator[Stand]:
    from playbook.providers.local import LocalProvider

    yield Stand(LocalProvider(VOICE))


@asynccontextmanager
async def kaltura() -> AsyncIterator[Stand]:
    from playbook.emulators.kaltura import KalturaEmulator
    from playbook.providers.kaltura import KalturaProvider

    emulator = KalturaEmulator(viewer_after_ms=0)
    async with emulator.serve():
        settings = {"visualConfig": {"id": "visual-1"}, "voiceConfig": {"id": "voice-1"}}
        yield Stand(KalturaProvider(), emulator.environment(), settings, emulator, emulator.extras())


@asynccontextmanager
async def avaturn() -> AsyncIterator[Stand]:
    from playbook.emulators.avaturn import AvaturnEmulator
    from playbook.providers.avaturn import AvaturnProvider

    emulator = AvaturnEmulator(viewer_after_ms=0)
    async with emulator.serve():
        yield Stand(AvaturnProvider(), emulator.environment(), {"unsupported_sdk_cancel": True}, emulator)


@asynccontextmanager
async def avaturn_external() -> AsyncIterator[Stand]:
    from playbook.emulators.avaturn import AvaturnEmulator
    from playbook.providers.avaturn import AvaturnProvider

    emulator = AvaturnEmulator(viewer_after_ms=0)
    async with emulator.serve():
        settings = {"conversation_engine": {"type": "external", "url": "wss://avatar.example.com/playbook"}}
        yield Stand(AvaturnProvider(), emulator.environment(), settings, emulator, {"voice": VOICE})


@asynccontextmanager
async def tavus() -> AsyncIterator[Stand]:
    from playbook.emulators.tavus import TavusEmulator
    from playbook.providers.tavus import TavusProvider

    emulator = TavusEmulator()
    async with emulator.serve():
        yield Stand(TavusProvider(), emulator.environment(), {"pal_id": "p5c0ffee1234"}, emulator)


@asynccontextmanager
async def tavus_microphone() -> AsyncIterator[Stand]:
    from playbook.emulators.tavus import TavusEmulator
    from playbook.providers.tavus import TavusProvider

    emulator = TavusEmulator()
    async with emulator.serve():
        settings = {"pal_id": "p5c0ffee1234", "echo_via": "microphone"}
        yield Stand(TavusProvider(), emulator.environment(), settings, emulator, {"voice": VOICE})


STANDS: Mapping[str, Callable[[], AbstractAsyncContextManager[Stand]]] = {
    "local": local,
    "kaltura": kaltura,
    "avaturn": avaturn,
    "avaturn-external": avaturn_external,
    "tavus": tavus,
    "tavus-microphone": tavus_microphone,
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
        self.published: list[Mapping[str, Any]] = []
        self.secrets: set[str] = set()
        self.crashes: list[BaseException] = []
        self.journal = Journal(folder)
        self._more = asyncio.Event()
        self.session = stand.provider.connect(
            Context(
                plan=plan,
                clock=self.clock,
                emit=self._emit,
                env=stand.env,
                journal=self.journal.entry("a-run", "a-playbook"),
                seal=self.secrets.add,
                publish=self.published.append,
                sound=lambda sha256: decode(plan.sounds[sha256]),  # type: ignore[arg-type]  # ours are bytes
                crash=self.crashes.append,
                folder=folder,
                extras=stand.extras,
            )
        )

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


def write_playbook(folder: Path, stand: Stand, timeline: str, head: str = "start: 0s") -> Path:
    """A playbook for a stand as a file, and the chime beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chime.wav").write_bytes(CHIME)
    file = folder / "contract.yaml"
    session = f"session: {json.dumps(dict(stand.settings))}\n" if stand.settings else ""
    file.write_text(f"version: 1\nprovider: {stand.provider.name}\n{session}{head}\ntimeline:\n{timeline}", "utf-8")
    return file


def compile_on(file: Path) -> Plan:
    """The plan of a playbook, by the real world."""
    return compile_file(file, World(voice=VOICE))


async def perform(stand: Stand, plan: Plan, folder: Path, **options: Any) -> Outcome:
    """A whole run: log, journal and all."""
    return await Runner(
        plan,
        Options(folder=folder / "run", env=stand.env, state_dir=folder / "state", provider=stand.provider, extras=stand.extras, **options),
    ).run()


def secrets_left(stand: Stand, folder: Path, *also: str) -> list[str]:
    """Files below a folder in which a credential stands: a key of the environment, or what the emulator handed out."""
    keys = {stand.env[name] for way in stand.provider.credentials for name in way if name in stand.env}
    planted = {*keys, *also} | (stand.emulator._sealed if stand.emulator is not None else set())
    redact = Redactor(planted)
    return [path.name for path in sorted(folder.rglob("*")) if path.is_file() and redact(text := path.read_text("latin-1")) != text]
