"""What stands around a run: the emulator or the cassette in the vendor's place, the journal where a session is billed.

One way for all who perform a plan: `run`, `test`, the pytest plug-in and Python programs.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook.journal.journal import state_folder
from playbook.model import Plan
from playbook.perform.performance import Options, Runner
from playbook.perform.rehearsal import rehearsal
from playbook.providers.registry import let_in
from playbook.transports.factory import Wrapped, transports_for

if TYPE_CHECKING:
    from playbook.transports.cassette import Cassette


def journal_folder(plan: Plan, env: Mapping[str, str], *, emulate: bool = False, cassette: Cassette | None = None) -> Path | None:
    """Where the journal is kept for a run whose session is billed. None: it is our own, an emulator's, or on a cassette."""
    billed = plan.capabilities.remote and not emulate and (cassette is None or cassette.whole)
    return state_folder(env) if billed else None


@contextlib.asynccontextmanager
async def staged(
    plan: Plan,
    options: Options,
    *,
    emulate: bool = False,
    cassette: Cassette | None = None,
    faults: Sequence[str] = (),
    idle: list[str] | None = None,
    **weather: Any,
) -> AsyncIterator[Runner]:
    """A runner for the plan, ready to begin. `options.env` is the user's; afterwards `idle` has the faults that never struck. `weather`
    is for the emulator (`delay_ms`, `jitter_ms`, `seed`, and whether it is `watched` by itself)."""
    journal = journal_folder(plan, options.env, emulate=emulate, cassette=cassette)
    wanted = emulate and (cassette is None or cassette.recording)
    async with rehearsal(plan, options.env, faults, wanted=wanted, idle=idle, **weather) as env:
        options = replace(options, env=env, state_dir=journal)
        if cassette is not None:
            keys = env if cassette.recording else let_in(options.provider, env)
            transports = Wrapped(transports_for(plan.provider, keys), cassette)
            options = replace(options, env=keys, transports=transports, objection=cassette.objection)
        runner = Runner(plan, options)
        with cassette or contextlib.nullcontext():
            if cassette is not None:
                cassette.redact = runner.redact
            yield runner
