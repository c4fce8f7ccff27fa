"""The vendor's emulator beside a run, and the faults that strike in it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING

from playbook.errors import UsageError, near_or_all
from playbook.model import Plan, Say, Step
from playbook.providers import registry

if TYPE_CHECKING:
    from playbook.emulators.faults import Chosen

VIEWER_MS = 500
"""When somebody begins to watch a rehearsed session: some vendors speak only then."""


@contextlib.asynccontextmanager
async def rehearsal(
    plan: Plan,
    env: Mapping[str, str],
    faults: Sequence[str] = (),
    *,
    wanted: bool = True,
    idle: list[str] | None = None,
    watched: bool = True,
    delay_ms: int = 0,
    jitter_ms: int = 0,
    seed: int = 0,
) -> AsyncIterator[Mapping[str, str]]:
    """Serve the emulator of a plan's provider meanwhile: the environment for a run.

    Unless it is `watched`, whoever wants to see a session has to come by himself. Where it is not wanted, or the provider asks nobody
    else, everything stays as it is. Afterwards `idle` has the faults that never struck.
    """
    if not wanted or not plan.capabilities.remote:
        if faults:
            raise UsageError(
                f"the fault '{faults[0]}' cannot strike: the {plan.provider} provider is not emulated", remedy="leave out --fault"
            )
        yield env
        return
    kind = registry.emulator(plan.provider)
    from playbook.emulators.base import refuse

    chosen = [aim(fault, plan) for fault in faults]
    refuse(f"{plan.provider}, as the session is set,", chosen, kind.impossible(plan.session))
    watched = watched and not kind.we_watch(plan.session)
    emulator = kind(faults=chosen, viewer_after_ms=VIEWER_MS if watched else None)
    emulator.weather(delay_ms=delay_ms, jitter_ms=jitter_ms, seed=seed)
    async with emulator.serve():
        # A real credential has no business here.
        others = {name: value for name, value in env.items() if not name.startswith(f"{plan.provider.upper()}_")}
        yield {**others, **emulator.environment()}
        if idle is not None:
            idle += [str(fault) for fault in emulator.faults.idle]


class NoSuchLine(UsageError):
    """A fault is to strike a line that the playbook does not have."""


def aim(spec: str, plan: Plan) -> Chosen:
    """A fault and the line of this plan that it is meant for: by its step's id, its number among the lines, or its text. Raises
    `NoSuchLine`, since a fault that hits nothing proves nothing."""
    from playbook.emulators.faults import FAULTS, Chosen, choose

    name, _, which = spec.partition("@")
    if which and name in FAULTS and FAULTS[name].at == "create" and not which.isdecimal():
        raise NoSuchLine(f"'{name}' strikes no line", remedy=f"write {name}, or {name}@2 for the second session that is created")
    if not which or name not in FAULTS or FAULTS[name].at == "create":
        return choose(spec)
    lines = [step for step in plan.steps if step.speaks]
    called = {step.id: {step.id, *_texts(step)} for step in lines}
    numbered = {str(n): called[step.id] for n, step in enumerate((step for step in lines if step.skipped is None), 1)}
    names = called.get(which) or numbered.get(which) or next((names for names in called.values() if which in names), None)
    if names is None:
        some = ", ".join(list(called)[:10]) + (", …" if len(called) > 10 else "")
        hint = near_or_all(which, called, f"its lines are {some}" if called else "it has no lines")
        raise NoSuchLine(f"the playbook has no line '{which}', which the fault '{spec}' is for", remedy=hint)
    return Chosen(name, frozenset(names), spec)


def _texts(step: Step) -> list[str]:
    """What a line says, as a whole and in pieces."""
    return [step.action.text, *(chunk.text for chunk in step.action.chunks)] if isinstance(step.action, Say) else []
