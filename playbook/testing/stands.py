"""Where the contract test meets a provider: a `Stand` for each of its ways to perform, and a session on one (`Staged`)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import wave
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from playbook.clock import Clock
from playbook.emulators.base import Emulator
from playbook.events import Event
from playbook.journal.journal import Journal
from playbook.model import AudioEcho, Chunk, End, Length, Plan, Say, Step
from playbook.perform.folder import sound_of
from playbook.ports import Transports, Viewer
from playbook.providers import registry
from playbook.providers.base import Context, Material, Provider
from playbook.sessions.kept import KeptSession, Terms, length_ms
from playbook.testing.guard import allowed
from playbook.transports.factory import Before, Wrapped, transports_for


@dataclass(frozen=True)
class Stand:
    """A provider and what it needs: an environment, session settings, what stands before its transports; and its emulator."""

    provider: Provider
    env: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    emulator: Emulator | None = None
    before: Before | None = None

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Stand]:
        """The stand while its emulator serves, with the way there in its environment; what the stand says itself comes before that."""
        async with contextlib.AsyncExitStack() as stack:
            if (emulator := self.emulator) is None:
                yield self
                return
            with allowed():
                await stack.enter_async_context(emulator.serve())
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


def stands_of(make: Callable[[], Provider]) -> dict[str, Callable[[], Stand]]:
    """A stand for each way that a provider names in `stands`, at its emulator if it has one, where somebody watches from the start."""
    provider = make()

    def stand(settings: Mapping[str, Any]) -> Stand:
        emulator = registry.emulator_of(provider)
        return Stand(make(), settings=settings, emulator=None if emulator is None else emulator(viewer_after_ms=0))

    return {name: partial(stand, settings) for name, settings in provider.stands.items()}


def _chime(ms: int = 400, rate: int = 16_000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * rate * ms // 1000))
    return out.getvalue()


CHIME = _chime()
"""A sound of 400 ms, as a WAV file."""
CHIME_SHA = hashlib.sha256(CHIME).hexdigest()


def say(id: str, *chunks: str) -> Step:
    """A step that says a text, in these pieces."""
    return Step(id, Say(tuple(map(Chunk, chunks or (f"This is {id}.",)))), length=Length(1_000, "estimated"))


def sound(id: str) -> Step:
    """A step that plays the chime."""
    return Step(id, AudioEcho("chime.wav", CHIME_SHA, 400), length=Length(400))


def plan_for(stand: Stand, *steps: Step) -> Plan:
    """A plan by hand."""
    can = stand.provider.capabilities(stand.settings)
    steps = (*steps, Step("end", End()))
    return Plan("contract", stand.provider.name, steps, session=stand.settings, capabilities=can, sounds={CHIME_SHA: CHIME})


def playbook_text(stand: Stand, timeline: str, head: str = "start: 0s") -> str:
    """A playbook for a stand."""
    session = f"session: {json.dumps(dict(stand.settings))}\n" if stand.settings else ""
    return f"version: 1\nprovider: {stand.provider.name}\n{session}{head}\ntimeline:\n{timeline}"


def kept_on(stand: Stand, folder: Path, **terms: Any) -> KeptSession:
    """A session on a stand that is lent to one performance after another, not yet opened."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {"name": "lobby", "lasts_ms": 600_000, "settings": stand.settings, **terms}
    whole = Terms(provider=stand.provider, env=stand.env, transports=stand.transports(), **given)
    return KeptSession(whole, folder, state_dir=folder / "state")


class Staged:
    """A session on a stand, with `events` in place of a performance. `folder` holds its journal."""

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
