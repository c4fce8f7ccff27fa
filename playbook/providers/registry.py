"""Which providers there are: ours by name, and plug-ins by the entry point group `playbook.providers`; and what they name beside them.

`OURS` is the one list of ours: they are looked up without scanning the installed packages, since that scan costs more than reading a
playbook. What else belongs to a provider (emulator, problems, settings for the contract test) the provider itself names.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from playbook.errors import CODES, SetupError, UsageError, near_or_all

if TYPE_CHECKING:
    from playbook.emulators.base import Emulator
    from playbook.providers.base import Provider

GROUP = "playbook.providers"
OURS = {
    "local": "playbook.providers.local.provider:LocalProvider",
    "avaturn": "playbook.providers.avaturn.provider:AvaturnProvider",
    "tavus": "playbook.providers.tavus.provider:TavusProvider",
    "kaltura": "playbook.providers.kaltura.provider:KalturaProvider",
}


def names() -> tuple[str, ...]:
    """All names, ours first."""
    from importlib import metadata

    plugged = {point.name for point in metadata.entry_points(group=GROUP)}
    return (*OURS, *sorted(plugged - OURS.keys()))


def find(name: str) -> Provider | None:
    """The provider of that name, or None. Raises `SetupError` when a plug-in does not load."""
    if name in OURS:
        return _load(OURS[name])
    from importlib import metadata

    for point in metadata.entry_points(group=GROUP, name=name):
        try:
            return _load(point.value)
        except Exception as error:  # a plug-in's import may fail in any way
            raise SetupError(f"the provider '{name}' cannot be loaded: {error}") from error
    return None


def _load(target: str) -> Provider:
    provider: Provider = _named(target)()
    return provider


def _named(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def emulated() -> tuple[str, ...]:
    """The names of those that have an emulator."""
    return tuple(name for name in names() if (found := find(name)) is not None and has_emulator(found))


def has_emulator(provider: Provider) -> bool:
    """Whether a provider has an emulator."""
    return bool(getattr(provider, "emulator", ""))


def emulator_of(provider: Provider) -> type[Emulator] | None:
    """The emulator that a provider names."""
    if not has_emulator(provider):
        return None
    kind: type[Emulator] = _named(provider.emulator)
    return kind


def emulator(name: str) -> type[Emulator]:
    """The emulator of the provider of that name. Raises `UsageError` when there is none."""
    provider = find(name)
    kind = None if provider is None else emulator_of(provider)
    if kind is None:
        needless = provider is not None and not provider.capabilities({}).remote
        remedy = f"the {name} provider needs none" if needless else near_or_all(name, emulated())
        raise UsageError(f"there is no emulator of '{name}'", remedy=remedy)
    return kind


def codes() -> Mapping[str, str]:
    """Every problem there is, those of the providers included: code and title."""
    theirs: dict[str, str] = {}
    for name in names():
        theirs.update(getattr(find(name), "problems", {}))
    return dict(sorted({**CODES, **theirs}.items()))


def credentials(provider: Provider) -> Sequence[Sequence[str]]:
    """The ways to be let in by a provider, each a group of variables."""
    return getattr(provider, "credentials", ())  # plug-ins written before it was asked for have none


def let_in(provider: Provider | None, env: Mapping[str, str]) -> Mapping[str, str]:
    """An environment for a run against a cassette: where there is no credential, something that looks like one."""
    ways: Sequence[Sequence[str]] = () if provider is None else credentials(provider)
    if not ways or any(all(env.get(name) for name in way) for way in ways):
        return env
    simplest = min(ways, key=len)
    return {**env, **dict.fromkeys(simplest, "from-a-cassette")}
