"""Playbooks as pytest tests. Switched on explicitly, with `-p playbook.pytest_plugin` or in a `conftest.py`:

    pytest_plugins = ["playbook.pytest_plugin"]

* Every `*.playbook.yaml` is one test: it is performed, its expectations and its baseline are judged. Selection, markers (all have
  `playbook`) and parallel runs are pytest's.
* The fixture `run_playbook` performs a playbook from within a test: `outcome = run_playbook("intro.yaml", vars={"visitor": "Ada"})`.

Options of the same names on the command line and in the ini file: `playbook_provider`, `playbook_clock` (`virtual` unless said otherwise),
`playbook_emulate`. Runs go to pytest's own temporary folders, and never to `runs/`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from playbook.clock import ClockName
    from playbook.runner import Cue, Outcome
    from playbook.suite import Result, Setup

SUFFIX = ".playbook.yaml"
MARKER = "playbook"


class RunPlaybook(Protocol):
    """The fixture's type. Raises `AuthorError` for a playbook that is wrong; a failed run is an outcome."""

    def __call__(
        self,
        path: str | os.PathLike[str],
        *,
        vars: Mapping[str, object] | None = None,
        provider: str | None = None,
        clock: ClockName | None = None,
        cues: tuple[Cue, ...] = (),
    ) -> Outcome: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("playbook")
    for name, about in (
        ("provider", "let this provider perform every playbook"),
        ("clock", "system or virtual (virtual)"),
    ):
        group.addoption(f"--playbook-{name}", default=None, help=about)
        parser.addini(f"playbook_{name}", about, default="")
    group.addoption("--playbook-emulate", action="store_true", default=None, help="perform against the providers' emulators, without keys")
    parser.addini("playbook_emulate", "perform against the providers' emulators, without keys", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: a playbook that is performed")
    if _option(config, "clock") not in ("", "system", "virtual"):
        raise pytest.UsageError("playbook_clock is system or virtual")


def _option(config: pytest.Config, name: str) -> Any:
    given = config.getoption(f"--playbook-{name}")
    return config.getini(f"playbook_{name}") if given is None else given


def _clock(config: pytest.Config) -> ClockName:
    return "system" if _option(config, "clock") == "system" else "virtual"


def _setup(config: pytest.Config) -> Setup:
    from playbook.suite import Setup

    return Setup(
        env=dict(os.environ),
        provider=_option(config, "provider") or None,
        clock=_clock(config),
        emulate=bool(_option(config, "emulate")),
    )


# --- files as tests ---------------------------------------------------------------------------------------------------------


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> PlaybookFile | None:
    return PlaybookFile.from_parent(parent, path=file_path) if file_path.name.endswith(SUFFIX) else None


class PlaybookFile(pytest.File):
    """A playbook on the disk."""

    def collect(self) -> list[PlaybookItem]:
        item = PlaybookItem.from_parent(self, name=self.path.name.removesuffix(SUFFIX))
        item.add_marker(MARKER)
        return [item]


class PlaybookItem(pytest.Item):
    """Its performance."""

    def runtest(self) -> None:
        from playbook.suite import Case, Task, perform

        folders: pytest.TempPathFactory = self.config._tmp_path_factory  # type: ignore[attr-defined]  # what the fixture gives; items have no fixtures
        result = perform(Task(Case(self.path), 1, folders.mktemp(self.name)), _setup(self.config))
        if result.status == "skipped":
            pytest.skip("; ".join(result.reasons))
        if result.status != "passed":
            raise PlaybookFailed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **settings: Any) -> Any:
        if isinstance(excinfo.value, PlaybookFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, *args, **settings)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"playbook {self.name}"


class PlaybookFailed(Exception):
    """A playbook did not do what was expected of it."""

    def __init__(self, result: Result) -> None:
        folder = [result.folder] if result.folder else []
        super().__init__(f"{result.status}: " + "\n".join([*result.reasons, *folder]))


# --- a playbook in a test -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run_playbook(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> RunPlaybook:
    """Performs a playbook and returns its `Outcome`."""
    from playbook import api
    from playbook import clock as clocks
    from playbook.emulators import rehearsal
    from playbook.runner import Options, Runner

    def run(
        path: str | os.PathLike[str],
        *,
        vars: Mapping[str, object] | None = None,
        provider: str | None = None,
        clock: ClockName | None = None,
        cues: tuple[Cue, ...] = (),
    ) -> Outcome:
        plan = api.load(path, vars=vars, provider=provider or _option(pytestconfig, "provider") or None)
        folder = tmp_path_factory.mktemp("run")

        async def show() -> Outcome:
            if not _option(pytestconfig, "emulate") or plan.provider == "local":
                return await api.run(plan, folder=folder, cues=cues)
            async with rehearsal(plan, os.environ) as (env, extras):
                return await Runner(plan, Options(folder=folder, env=env, cues=cues, extras=extras)).run()

        return clocks.run(show(), clock or _clock(pytestconfig))

    return run
