"""`check --live`: what a playbook would meet if it were performed now, found out by calls that cost nothing."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from playbook import clock
from playbook.errors import ProviderError, SetupError, reason_of
from playbook.model import Plan
from playbook.perform.world import World
from playbook.providers.base import ProbesAccess
from playbook.transports.factory import transports_for

LEAST_MB = 100
"""How much room a run should find on the disk: an hour of sound takes 160 MB, and most shows are shorter."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `remedy` is what to do where it is not good."""

    what: str
    good: bool = True
    remedy: str = ""

    def __str__(self) -> str:
        if self.good:
            return f"good: {self.what}"
        return f"not good: {self.what}" + (f"\n  {self.remedy}" if self.remedy else "")


def look(plan: Plan, world: World, env: Mapping[str, str]) -> Iterator[Finding]:
    """Everything that can be known before a session is opened, one thing after another."""
    yield from _vendor(plan, world, env)
    if plan.capabilities.own_voice:
        yield from _voice(plan, world)
    yield _disk(Path.cwd())


def _vendor(plan: Plan, world: World, env: Mapping[str, str]) -> Iterator[Finding]:
    provider = world.provider(plan.provider)
    if not isinstance(provider, ProbesAccess):
        if plan.capabilities.remote:
            yield Finding(f"{plan.provider}: it has no call that costs nothing, so nothing was asked")
        return
    try:
        found = clock.run(provider.probe(plan, env, transports_for(plan.provider, env, "system")))
    except (ProviderError, SetupError) as error:
        yield Finding(f"{plan.provider}: {error.message}", False, error.remedy or "is the address right, and no proxy in the way?")
    else:
        yield from (Finding(f"{plan.provider}: {each}") for each in found)


def _voice(plan: Plan, world: World) -> Iterator[Finding]:
    voice = world.local.voice
    if voice.available:
        yield Finding("the local voice is installed")
    elif plan.texts:
        from playbook.speech.voice import REMEDY

        yield Finding("no local voice is installed", False, REMEDY)
    try:
        device = importlib.import_module("sounddevice").query_devices(kind="output")["name"]
    except Exception as error:  # the library raises what its system raises, also when it is missing
        yield Finding(f"no loudspeaker ({str(error).strip() or type(error).__name__}): a run is silent, and leaves audio.wav")
    else:
        yield Finding(f"a loudspeaker: {device}")


def _disk(folder: Path) -> Finding:
    try:
        free_mb = shutil.disk_usage(folder).free // 2**20
    except OSError as error:
        return Finding(f"{folder} cannot be looked at: {reason_of(error)}", False)
    return Finding(f"{free_mb:,} MB free for runs", free_mb >= LEAST_MB, "make room, or run elsewhere")
