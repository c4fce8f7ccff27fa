"""Playbooks as pytest tests. Switched on explicitly, with `-p playbook.pytest_plugin` or in a `conftest.py`:

    pytest_plugins = ["playbook.pytest_plugin"]

* Every `*.playbook.yaml` is one test: it is performed, its expectations and its baseline are judged. Selection, markers (all have
  `playbook`) and parallel runs are pytest's.
* The fixture `run_playbook` performs a playbook from within a test: `outcome = run_playbook("intro.yaml", vars={"visitor": "Ada"})`.

Options of the same names on the command line (`--playbook-clock`) and in the ini file: `playbook_provider`, `playbook_clock` (`virtual`
unless said otherwise), `playbook_emulate`, `playbook_cassettes` (as `playbook test --cassettes`), `playbook_trigger` (such as `go` or
`next@9s`, one or more). Runs go to pytest's own temporary folders, and never to `runs/`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from playbook.clock import ClockName
    from playbook.perform.performance import Outcome
    from playbook.perform.steering import Cue
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
    for name, about in (
        ("emulate", "perform against the providers' emulators, without keys"),
        ("cassettes", "perform each playbook against the cassette beside it: intro.tape for intro.yaml"),
    ):
        group.addoption(f"--playbook-{name}", action="store_true", default=None, help=about)
        parser.addini(f"playbook_{name}", about, type="bool", default=False)
    about = "give a trigger at a time of each show, NAME@TIME"
    group.addoption("--playbook-trigger", action="append", metavar="NAME@TIME", help=about)
    parser.addini("playbook_trigger", about, type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: a playbook that is performed")
    if _option(config, "clock") not in ("", "system", "virtual"):
        raise pytest.UsageError("playbook_clock is system or virtual")
    if _option(config, "emulate") and _option(config, "cassettes"):
        raise pytest.UsageError("playbook_emulate and playbook_cassettes exclude each other")
    _cues(config)


def _option(config: pytest.Config, name: str) -> Any:
    given = config.getoption(f"--playbook-{name}")
    return config.getini(f"playbook_{name}") if given is None else given


def _clock(config: pytest.Config) -> ClockName:
    return "system" if _option(config, "clock") == "system" else "virtual"


def _cues(config: pytest.Config) -> tuple[Cue, ...]:
    given = _option(config, "trigger")
    if not given:
        return ()
    from playbook.perform.steering import Cue

    try:
        return tuple(map(Cue.parse, given))
    except ValueError as error:
        raise pytest.UsageError(f"playbook_trigger: {error}") from error


def _setup(config: pytest.Config) -> Setup:
    from playbook.suite import Setup

    return Setup(
        env=dict(os.environ),
        provider=_option(config, "provider") or None,
        clock=_clock(config),
        emulate=bool(_option(config, "emulate")),
        cassettes=bool(_option(config, "cassettes")),
        cues=_cues(config),
        trigger_option="--playbook-trigger",
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
    from playbook.errors import PlaybookError
    from playbook.language import Inputs, compile_file
    from playbook.perform.performance import Options
    from playbook.perform.world import World, variables
    from playbook.suite import Case, show

    setup = _setup(pytestconfig)
    world = World.of(setup.env)

    def run(
        path: str | os.PathLike[str],
        *,
        vars: Mapping[str, object] | None = None,
        provider: str | None = None,
        clock: ClockName | None = None,
        cues: tuple[Cue, ...] = (),
    ) -> Outcome:
        __tracebackhide__ = True
        file = Path(path)
        try:
            inputs = Inputs(values=vars or {}, env=variables(setup.env))
            plan = compile_file(file, world, inputs, provider=provider or setup.provider)
            options = Options(folder=tmp_path_factory.mktemp("run"), cues=cues or setup.cues, provider=world.provider(plan.provider))
            return show(plan, replace(setup, clock=clock or setup.clock), options, tape=Case(file).tape)
        except PlaybookError as error:  # it says where and what to do; the way that we took to find it helps nobody
            raise error.with_traceback(None) from None

    return run
