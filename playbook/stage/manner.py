"""How a stage performs, which is the command line's to say: what the plan is made of, who performs it, who controls it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from playbook.errors import PlaybookError, Problem, UsageError
from playbook.model import Plan
from playbook.perform.performance import Options, Outcome, Runner
from playbook.ports import Control, Steered
from playbook.providers.base import Provider


@dataclass(frozen=True, slots=True)
class Manner:
    """How the stage performs: `compile` makes the plan (raises `AuthorError`), `perform` a runner for it with these options."""

    compile: Callable[[], Plan]
    perform: Callable[[Plan, Options], AbstractAsyncContextManager[Runner]]
    options: Options
    controls: Sequence[Control] = ()
    """Who gives signals beside the pages, and is told the state if it wants to be (`HearsState`)."""
    files: Callable[[], Iterable[Path]] = tuple
    """What the plan is made of beside the playbook and its parts."""
    told: Callable[[Outcome | PlaybookError], None] = lambda _: None
    """Hears how each performance went."""

    @classmethod
    def single(cls, plan: Plan, provider: Provider | None) -> Manner:
        """For a performance that somebody else performs: the stage only shows it."""

        def refuse(*_: object) -> AbstractAsyncContextManager[Runner]:
            raise UsageError("this stage shows one performance")

        return cls(lambda: plan, refuse, Options(provider=provider))


class Present:
    """A control in a performance's eyes: somebody can still give signals, which come in through the director."""

    def __init__(self, source: str) -> None:
        self.source = source

    def attach(self, show: Steered) -> AbstractContextManager[None]:  # noqa: ARG002 -- the contract's
        return contextlib.nullcontext()


def files_of(plan: Plan) -> set[str]:
    """What a plan was made of: the files of its steps, and its sounds."""
    places = {place.file for step in plan.steps for place in (step.place, *step.via) if place is not None}
    return places | {sound for sound in plan.sounds.values() if isinstance(sound, str)}


def places_of(problems: Iterable[Problem]) -> set[str]:
    return {place.file for problem in problems for place in (problem.place, *problem.via) if place is not None}
