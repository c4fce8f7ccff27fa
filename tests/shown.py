"""Whole runs of a text on a stand, over real sockets, and what must be so after every one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from playbook import clock
from playbook.emulators.faults import Injection
from playbook.journal.journal import Journal
from playbook.model import Plan
from playbook.perform.performance import Outcome, Runner
from playbook.ports import SessionRecord
from playbook.transports.cassette import Cassette
from tests.contract import Stand, compile_on, runner_on, write
from tests.leaks import found
from tests.logs import checked, closings

S = TypeVar("S", bound="Shown")


@dataclass(frozen=True)
class Shown:
    """A run that is over: its outcome, its log, what the emulator saw and still has open, and what the session journal holds open.

    A vendor's tests add to it what they ask often."""

    outcome: Outcome
    lines: list[dict[str, Any]]
    emulator: Any
    still_open: int
    left: list[SessionRecord]

    @property
    def code(self) -> int:
        return self.outcome.result.exit_code

    @property
    def exit(self) -> tuple[str, int]:
        return self.outcome.result.end, self.code

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
    """A playbook's plan, compiled from a file; `chime.wav` lies beside it."""
    return compile_on(write(folder, text), **var)


def perform(
    stand: Stand,
    show: str | Plan,
    folder: Path,
    kind: type[S],
    *,
    injections: Iterable[Injection] = (),
    env: Mapping[str, str] | None = None,
    meanwhile: Callable[[Any, Runner], None] | None = None,
    name: clock.ClockName = "virtual",
    tape: Cassette | None = None,
    **options: Any,
) -> S:
    """A whole run at the stand's emulator, recorded on `tape`. `meanwhile` is called with emulator and runner before it begins. Asserts
    what must be so after every run: a good log, a journal that knows of everything that is open, and no secret anywhere."""
    emulator, plan = stand.emulator, plan_of(show, folder) if isinstance(show, str) else show
    assert emulator is not None
    emulator.injections += injections
    stand = replace(stand, env={**stand.env, **(env or {})})

    async def main() -> tuple[Outcome, int, Stand]:
        async with stand.open() as there:
            runner = on(tape, there, plan, folder, **options)
            if meanwhile is not None:
                meanwhile(emulator, runner)
            return await runner.run(), len(emulator.open_sessions), there

    outcome, still_open, there = clock.run(main(), name)
    if tape is not None:
        tape.close()
    left = Journal(folder / "state").open_sessions()
    assert still_open <= len(left), "what is open at the vendor is in the journal"
    kept = {str(value) for record in left for value in record.end.values()}  # the journal's, to end what is open
    assert found(there.credentials - kept, folder) == found(there.credentials, folder / "run") == []
    assert not (outcome.folder / "session.json").exists()
    return kind(outcome, checked(outcome.folder), emulator, still_open, left)


def on(tape: Cassette | None, stand: Stand, plan: Plan, folder: Path, **options: Any) -> Runner:
    """A run that is recorded on a cassette, or played from it."""
    if tape is None:
        return runner_on(stand, plan, folder, **options)
    runner = runner_on(stand, plan, folder, before=tape, **options)
    tape.redact = runner.redact
    return runner
