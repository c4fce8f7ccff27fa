"""What a kiosk performs with: a provider for each rung, the environment, the journal; in a rehearsal an emulator for
each vendor."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from playbook.errors import SetupError, UsageError
from playbook.journal.journal import state_folder
from playbook.kiosk.file import CAPTIONS
from playbook.kiosk.lending import Means
from playbook.kiosk.programme import FREE, LOCAL
from playbook.kiosk.silent import silent_world
from playbook.perform.rehearsal import VIEWER_MS
from playbook.perform.world import World
from playbook.providers import registry

if TYPE_CHECKING:
    from playbook.emulators.base import Emulator


class Stand:
    """Begins attempts. `emulators` are by rung; empty: the vendors themselves are asked."""

    def __init__(self, world: World, env: Mapping[str, str], emulators: Mapping[str, Emulator]) -> None:
        self._world, self._env = world, env
        self.emulators = emulators

    def means(self, rung: str) -> Means:
        """What a rung performs with. Raises `SetupError` where its provider does not load."""
        where = silent_world() if rung == CAPTIONS else self._world
        provider = where.provider(LOCAL if rung == CAPTIONS else rung)
        if provider is None:
            raise SetupError(f"there is no provider '{rung}'")
        emulator = self.emulators.get(rung)
        env = self._env if emulator is None else {**self._env, **emulator.environment()}
        billed = rung not in FREE and emulator is None
        return Means(provider, env, state_folder(self._env) if billed else None)

    def open_sessions(self) -> int:
        """How many sessions the emulators have open."""
        return sum(len(emulator.open_sessions) for emulator in self.emulators.values())

    def strike(self, fault: str, rung: str | None, for_ms: int) -> None:
        """Let a fault strike one vendor, or all, for so long."""
        for name in self.emulators if rung is None else [rung]:
            emulator = self.emulators[name]
            emulator.go_away(for_ms) if fault == "outage" else emulator.refuse_sessions(for_ms)


@contextlib.asynccontextmanager
async def stand_for(ladder: tuple[str, ...], world: World, env: Mapping[str, str], *, emulate: bool) -> AsyncIterator[Stand]:
    """A stand for these rungs; with `emulate`, their emulators serve meanwhile."""
    async with contextlib.AsyncExitStack() as stack:
        emulators = {}
        for rung in ladder if emulate else ():
            if rung in FREE:
                continue
            emulator = registry.emulator(rung)(viewer_after_ms=VIEWER_MS)
            await stack.enter_async_context(emulator.serve())
            emulators[rung] = emulator
        # A real credential has no business in a rehearsal.
        ours = {name: value for name, value in env.items() if not name.startswith(tuple(f"{rung.upper()}_" for rung in emulators))}
        yield Stand(world, ours if emulators else env, emulators)


def known_rung(name: str, ladder: tuple[str, ...]) -> str:
    """A vendor that a fault can strike. Raises `UsageError`."""
    able = [rung for rung in ladder if rung not in FREE]
    if name not in able:
        raise UsageError(f"no fault can strike '{name}'", remedy=f"name one of {', '.join(able)}" if able else "the ladder is all local")
    return name
