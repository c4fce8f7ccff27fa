"""The package for Python programs: `playbook.load`, `playbook.plan`, `playbook.run`.

    import asyncio, playbook

    plan = playbook.load("playbooks/museum-welcome.yaml", vars={"visitor": "Ada"})
    outcome = asyncio.run(playbook.run(plan, folder="runs/today"))
    print(outcome.result.end, outcome.folder)

For a rehearsal in no time: `playbook.clock.run(playbook.run(plan), "virtual")`. The names here are exported, lazily, by `playbook` itself.
With the command line and the pytest plug-in this is the only place that reads the environment.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from playbook.errors import UsageError
from playbook.language import Inputs, compile_file, compile_text
from playbook.model import Plan
from playbook.perform.assemble import staged
from playbook.perform.performance import Cue, Options, Outcome
from playbook.perform.world import World, cache_folder, variables

__all__ = ["Cue", "Outcome", "load", "plan", "run"]


def load(
    path: str | os.PathLike[str],
    *,
    vars: Mapping[str, object] | None = None,
    provider: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Plan:
    """Compile a playbook.

    Args:
        path: the file.
        vars: values of its variables, of the declared types; they win over `PLAYBOOK_VAR_name` in the environment.
        provider: who performs it, if not the one that the playbook names.
        env: the environment, if not the process's own.

    Raises:
        AuthorError: the playbook is wrong; `problems` holds everything that was found.
    """
    env = os.environ if env is None else env
    return compile_file(Path(path), _world(cache_folder(env)), _inputs(vars, env), provider=provider)


def plan(
    source: str | bytes | Mapping[str, Any],
    *,
    vars: Mapping[str, object] | None = None,
    provider: str | None = None,
    base_dir: str | os.PathLike[str] = ".",
    env: Mapping[str, str] | None = None,
) -> Plan:
    """Compile a playbook that is no file: its text, or its data as YAML would give it.

    Paths in it count from `base_dir`. Everything else is as in `load`.
    """
    env = os.environ if env is None else env
    return compile_text(_text(source), Path(base_dir) / "playbook", _world(cache_folder(env)), _inputs(vars, env), provider=provider)


async def run(
    plan: Plan,
    *,
    folder: str | os.PathLike[str] | None = None,
    cues: Sequence[Cue] = (),
    watch: Callable[[dict[str, Any]], None] | None = None,
    env: Mapping[str, str] | None = None,
) -> Outcome:
    """Perform a plan, and close its session whatever happens.

    Args:
        plan: from `load` or `plan`.
        folder: the run folder, new or empty; `runs/<time>-<name>` unless given.
        cues: triggers that are given by themselves, such as `Cue("go", 2000)`.
        watch: sees each line of the run log after it was written.
        env: credentials and addresses, if not the process's own environment.

    Returns:
        How it ended: `result`, `summary`, `folder`, `failures`. A failed run is an outcome, not an exception.

    Raises:
        UsageError: the folder is in use.
        SetupError: it could not begin: a credential is missing, the folder cannot be written.
        RunError: it would surely stall: it waits for a trigger that no cue gives.
    """
    env = os.environ if env is None else env
    options = Options(
        folder=None if folder is None else Path(folder),
        env=env,
        cues=cues,
        watch=watch,
        provider=_world(cache_folder(env)).provider(plan.provider),
    )
    async with staged(plan, options) as runner:
        return await runner.run()


@lru_cache(maxsize=4)
def _world(cache_dir: Path) -> World:
    return World(cache_dir)


def _inputs(values: Mapping[str, object] | None, env: Mapping[str, str]) -> Inputs:
    return Inputs(values=values or {}, env=variables(env))


def _text(source: str | bytes | Mapping[str, Any]) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str):
        return source.encode("utf-8", "surrogatepass")
    try:
        return json.dumps(source, ensure_ascii=False, indent=1, allow_nan=False).encode("utf-8", "surrogatepass")  # JSON is YAML
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"a playbook is plain data: {error}", remedy="use dict, list, str, int, float, bool and None") from error
