"""The package for Python programs: `playbook.load`, `playbook.plan`, `playbook.run`.

    import asyncio, playbook

    plan = playbook.load("playbooks/museum-welcome.yaml", vars={"visitor": "Ada"})
    outcome = asyncio.run(playbook.run(plan, folder="runs/today"))
    print(outcome.result.end, outcome.folder)

For a rehearsal in no time: `playbook.clock.run(playbook.run(plan), "virtual")`. The names here are exported, lazily, by `playbook` itself.
With the command line and the pytest plug-in this is the only place that reads the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from playbook.errors import UsageError
from playbook.folders import run_folder
from playbook.language import Inputs, compile_file, compile_text
from playbook.model import Plan
from playbook.perform.assemble import journal_folder, staged
from playbook.perform.performance import Options, Outcome, Runner
from playbook.perform.steering import Cue
from playbook.perform.world import World, cache_folder, models_folder, variables
from playbook.ports import Viewer
from playbook.sessions.kept import KeptSession, Terms
from playbook.sessions.pool import LASTS_MS
from playbook.transports.factory import transports_for

__all__ = ["Cue", "Outcome", "Session", "load", "open_session", "plan", "run"]


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
    return compile_file(Path(path), _world_of(env), _inputs(vars, env), provider=provider)


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
    return compile_text(_text(source), Path(base_dir) / "playbook", _world_of(env), _inputs(vars, env), provider=provider)


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
        provider=_world_of(env).provider(plan.provider),
    )
    async with staged(plan, options) as runner:
        return await runner.run()


@contextlib.asynccontextmanager
async def open_session(
    provider: str,
    settings: Mapping[str, Any] | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    lasts_ms: int = LASTS_MS,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Session]:
    """Open a session for as long as the context lasts, and perform one plan after another on it.

        async with playbook.open_session("tavus", {"pal_id": "p…"}) as session:
            first = await session.perform(plan)
            second = await session.perform(another)

    Args:
        provider: its name.
        settings: its settings, as `session:` of a playbook has them.
        folder: what belongs to the session (`session.json`); one of its own below `runs` unless given, which is gone afterwards.
        lasts_ms: how long it may last; a vendor that takes a limit is told.
        env: credentials and addresses, if not the process's own environment.

    Raises:
        AuthorError: the settings are wrong; `problems` holds everything that was found.
        SetupError: a credential is missing, a folder cannot be written.
        ProviderError: the session cannot be opened, or (at the end) not be ended.
    """
    env = os.environ if env is None else env
    world = _world_of(env)
    shown = plan({"version": 1, "name": provider, "provider": provider, "session": settings or {}, "timeline": [{"wait": "1ms"}]}, env=env)
    found = world.provider(provider)
    assert found is not None, "the plan could be made"
    terms = Terms(
        provider=found,
        settings=shown.session,
        env=env,
        transports=transports_for(provider, env),
        name=provider,
        lasts_ms=lasts_ms,
    )
    path = run_folder(None if folder is None else Path(folder), f"{provider}-session")
    try:
        kept = KeptSession(terms, path, state_dir=journal_folder(shown, env))
        try:
            await kept.open()
            yield Session(kept)
        finally:
            await kept.aclose("the program is done with it")
    finally:
        if folder is None:
            with contextlib.suppress(OSError):
                path.rmdir()


class Session:
    """A session that is open (`open_session`)."""

    def __init__(self, kept: KeptSession) -> None:
        self._kept = kept

    @property
    def id(self) -> str:
        """The vendor's name for it."""
        return self._kept.session_id or ""

    @property
    def viewer(self) -> Viewer | None:
        """What shows it to an audience; `token` in it is a credential."""
        return self._kept.viewer

    async def perform(
        self,
        plan: Plan,
        *,
        folder: str | os.PathLike[str] | None = None,
        cues: Sequence[Cue] = (),
        watch: Callable[[dict[str, Any]], None] | None = None,
    ) -> Outcome:
        """Perform a plan on it. Arguments and outcome are those of `run`; a failed performance is an outcome, not an exception, and says in
        `resume_at` where the show can go on (`plan.after`).

        Raises:
            UsageError: the plan is for another provider or has other settings (it says which), the session is closed or has died, another
                performance has it, or the folder is in use.
            SetupError: the folder cannot be written, or a voice is missing.
            RunError: it would surely stall: it waits for a trigger that no cue gives.
        """
        where = None if folder is None else Path(folder)
        return await Runner(plan, Options(folder=where, cues=cues, watch=watch), self._kept).run()


def _world_of(env: Mapping[str, str]) -> World:
    return _world(cache_folder(env), models_folder(env))


@lru_cache(maxsize=4)
def _world(cache_dir: Path, models: Path | None) -> World:
    return World(cache_dir, models)


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
