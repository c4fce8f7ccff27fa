"""Whole runs against an emulator, over real sockets: what the tests of Avaturn and of Tavus share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from playbook import clock
from playbook.emulators.base import Emulator
from playbook.emulators.faults import Injection
from playbook.language import Inputs, compile_file
from playbook.model import Plan
from playbook.providers.base import Provider, SessionRecord
from playbook.record.redact import Redactor
from playbook.runner import Options, Outcome, Runner
from playbook.sessions import Journal
from playbook.speech.voice import Voice
from playbook.transports.cassette import Cassette
from playbook.world import World
from tests.logs import checked, closings

E = TypeVar("E", bound=Emulator)


@functools.cache
def voice() -> Voice:
    """The real voice, with one cache for all tests."""
    return Voice()


@dataclass(frozen=True)
class Shown(Generic[E]):
    """A run that is over: its outcome, its log, what the emulator saw, and what the session journal holds open."""

    outcome: Outcome
    lines: list[dict[str, Any]]
    emulator: E
    left: list[SessionRecord]

    @property
    def code(self) -> int:
        return self.outcome.result.exit_code

    @property
    def reason(self) -> str:
        return self.outcome.result.reason or ""

    @property
    def grades(self) -> dict[str, str]:
        """Of each line: on what evidence it ended."""
        return {task: line["evidence"] for task, line in closings(self.lines).items()}

    def notes(self, what: str) -> list[dict[str, Any]]:
        """Lines of the emulator's journal."""
        return [entry for entry in self.emulator.journal if entry["what"] == what]

    def requests(self, method: str, path: str = "") -> list[dict[str, Any]]:
        """What was asked of the emulator."""
        return [entry for entry in self.notes("request") if entry["method"] == method and entry["path"].endswith(path)]

    @property
    def spoken(self) -> list[str]:
        """What was truly said, by the vendor's name for it."""
        return [entry["task"] for entry in self.notes("speech_started")]


def plan_of(text: str, folder: Path, **var: Any) -> Plan:
    """A playbook's plan, compiled from a file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "show.yaml"
    file.write_text(text, "utf-8")
    return compile_file(file, World(voice=voice()), Inputs(var=var))


def show(
    plan: Plan,
    folder: Path,
    emulator: E,
    provider: Provider,
    key: str,
    secrets: Callable[[E], set[str]],
    *,
    injections: Iterable[Injection] = (),
    env: Mapping[str, str] | None = None,
    meanwhile: Callable[[E, Runner], None] | None = None,
    name: clock.ClockName = "virtual",
    tape: Cassette | None = None,
    **options: Any,
) -> tuple[Outcome, list[dict[str, Any]], E, list[SessionRecord]]:
    """A whole run, recorded on `tape`. `meanwhile` is called before it begins. Gives what `Shown` takes, and asserts what must be so in
    every run: a good log, a journal that tells the truth, and no secret anywhere."""
    emulator.injections = list(injections)
    vendor = emulator.name.upper()

    async def main() -> tuple[Outcome, int]:
        async with emulator.serve() as url:
            given = {f"{vendor}_BASE_URL": url, f"{vendor}_API_KEY": key, **(env or {})}
            runner = on(tape, plan, folder=folder / "run", env=given, state_dir=folder / "state", provider=provider, **options)
            if meanwhile is not None:
                meanwhile(emulator, runner)
            return await runner.run(), len(emulator.open_sessions)

    outcome, still_open = clock.run(main(), name)
    if tape is not None:
        tape.close()
    left = Journal(folder / "state").open_sessions()
    assert still_open == len(left), "what is open at the vendor is in the journal, and nothing else"
    assert secrets_in(folder, {key} | secrets(emulator)) == []
    assert not (folder / "run" / "session.json").exists()
    return outcome, checked(folder / "run"), emulator, left


def on(tape: Cassette | None, plan: Plan, **options: Any) -> Runner:
    """A run that is recorded on a cassette, or played from it."""
    if tape is None:
        return Runner(plan, Options(**options))
    runner = Runner(plan, Options(extras=tape.extras({}), **options))
    tape.redact = runner.redact
    return runner


def secrets_in(folder: Path, secrets: set[str]) -> list[str]:
    """Files below a folder that show one of them."""
    redact = Redactor(secrets)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    return [path.name for path in files if redact(text := path.read_text("latin-1")) != text]
