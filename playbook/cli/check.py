"""`check`: everything that is wrong with playbooks, their parts and kiosk files, and where. Nothing here opens a session."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook.cli.inputs import add_inputs, inputs, playbook_files
from playbook.cli.options import Command, Parser, err, in_colour, out, out_json
from playbook.errors import Problem, SetupError
from playbook.folders import project_of
from playbook.kiosk.recognize import is_kiosk_file
from playbook.language import Inputs, as_written, check_file, unnamed
from playbook.model import Plan
from playbook.perform.world import World

if TYPE_CHECKING:
    from playbook.kiosk.programme import Programme

ALL = "all"
"""What `--provider` is, to check with each."""


@dataclass(slots=True)
class Checked:
    """A file and what was found. `provider` is the one that was tried, where all are; `fresh` are the problems not shown before."""

    file: Path
    problems: tuple[Problem, ...]
    plan: Plan | Programme | None
    provider: str = ""
    fresh: tuple[Problem, ...] = ()

    @property
    def told(self) -> tuple[Problem, ...]:
        """What is counted as this file's: of each provider everything, else what was not counted before."""
        return self.problems if self.provider else self.fresh

    @property
    def name(self) -> str:
        return f"{self.file}, {self.provider}" if self.provider else str(self.file)


def add_check(parser: Parser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", help="files, folders and globs; parts are checked as parts")
    add_inputs(parser)
    parser.add_argument("--live", action="store_true", help="also ask the provider, by calls that cost nothing, and look at this machine")
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    parser.add_argument("--json", action="store_true", help="the problems as JSON")


def check(args: Namespace) -> int:
    world, given = World.of(args.env), inputs(args)
    files = playbook_files(args.paths)
    if not files:
        err(f"error: nothing to check in {', '.join(args.paths)}\n  playbooks end in .yaml or .yml")
        return 5
    checked = [each for file in files for each in _check(file, world, given, args.provider)]
    shown: set[Any] = set()
    for each in checked:
        # A part's own problem comes with every playbook that includes it, and with the part; once is enough. So does a playbook's
        # with the kiosk that names it, which is wrong all the same.
        if each.plan is None and is_kiosk_file(each.file):
            shown.clear()
        each.fresh = tuple(problem for problem in each.problems if _key(problem) not in shown)
        shown.update(map(_key, each.problems))
        for secret in each.plan.secrets if each.plan is not None else ():
            args.redact.add(secret)
    if args.json:
        out_json(_as_json(checked, strict=args.strict))
    else:
        out(_as_text(checked, given, colour=in_colour(sys.stdout, args.env)))
    found = (problem for each in checked for problem in each.problems)
    if any(problem.severity == "error" or args.strict for problem in found):
        return 3
    return _live(checked, world, args) if args.live else 0


def _live(checked: Sequence[Checked], world: World, args: Namespace) -> int:
    """What was found out about this machine and each provider, once for each."""
    from playbook.cli.live import look

    good = True
    told: set[str] = set()
    for each in checked:
        for finding in look(each.plan, world, args.env) if isinstance(each.plan, Plan) else ():
            good = good and finding.good
            text = str(finding)
            if text not in told:
                (err if args.json else out)(text)
            told.add(text)
    return 0 if good else SetupError.exit_code


def _key(problem: Problem) -> Any:
    return problem.code, problem.place, problem.message


def _check(file: Path, world: World, given: Inputs, provider: str | None) -> Iterator[Checked]:
    given = given if given.root is not None else replace(given, root=project_of(file))
    if is_kiosk_file(file):
        from playbook.kiosk.programme import check_kiosk
        from playbook.kiosk.silent import silent_world

        yield Checked(file, *check_kiosk(file, world, silent_world(), given))
    elif provider == ALL:
        for name in _with_settings(file) or world.providers():
            yield Checked(file, *check_file(file, world, given, provider=name, placeholders=True), name)
    else:
        yield Checked(file, *check_file(file, world, given, provider=provider, placeholders=True))


def _with_settings(file: Path) -> list[str]:
    """The providers for which a playbook has settings in `sessions`."""
    several = as_written(file).get("sessions")
    return list(several) if isinstance(several, dict) else []


def _depends_on_ids(file: Path, given: Inputs) -> bool:
    """Whether a table of lines or a baseline knows the playbook's steps by their ids."""
    baseline = file.with_name(f"{file.name.removesuffix('.yaml').removesuffix('.yml')}.baseline.yaml")
    return given.lines is not None or "lines" in as_written(file) or baseline.exists()


def _as_text(checked: Sequence[Checked], given: Inputs, *, colour: bool) -> str:
    from playbook.report import count, problems_text

    blocks = [problems_text(each.fresh, colour=colour) for each in checked if each.fresh]
    lines = []
    notes: dict[str, None] = {}
    for each in checked:
        problems = each.told
        errors = sum(problem.severity == "error" for problem in problems)
        told = [count(errors, "error")] if errors else []
        told += [count(len(problems) - errors, "warning")] if len(problems) > errors else []
        size = "a part (no provider)" if each.plan is None else _size(each.plan)
        lines.append(f"{each.name}: {', '.join(told) or 'good'}" + ("" if errors else f", {size}"))
        if each.provider and isinstance(each.plan, Plan):
            notes[f"{each.file} needs: {', '.join(_needs(each.plan)) or 'nothing but time'}"] = None
        if isinstance(each.plan, Plan) and (names := unnamed(each.plan)) and _depends_on_ids(each.file, given):
            notes[f"{each.file}: give ids to {', '.join(names)}: a table of lines or a baseline knows them by these"] = None
    return "\n\n".join([*blocks, "\n".join([*lines, *notes])])


def _needs(plan: Plan) -> Iterator[str]:
    """What a plan asks of its provider."""
    from playbook.model import AudioEcho, InterruptSpeech, Say, WaitEvent

    actions = [step.action for step in plan.steps if step.skipped is None]
    lines = [action for action in actions if isinstance(action, Say)]
    if lines:
        yield "say"
    if any(isinstance(action, AudioEcho) for action in actions):
        yield "audio-echo"
    if any(isinstance(action, InterruptSpeech) for action in actions):
        yield "interrupt"
    if any(action.voice is not None for action in lines):
        yield "a voice for a line"
    if any(isinstance(action, WaitEvent) for action in actions) or plan.start.kind == "go":
        yield "triggers"
    if plan.limits.require_evidence is not None:
        yield f"evidence at least '{plan.limits.require_evidence.name}'"


def _size(plan: Plan | Programme) -> str:
    from playbook.language import cues, total_ms
    from playbook.report import clock_time, count

    if not isinstance(plan, Plan):
        return f"a kiosk: {count(len(plan.plans), 'show')}, {count(len(plan.kiosk.ladder), 'rung')}"
    timeline = cues(plan)
    about = "" if timeline and timeline[-1].exact else "about "
    steps = count(sum(step.skipped is None for step in plan.steps), "step")
    return f"{steps}, {about}{clock_time(total_ms(plan) - plan.start.delay_ms)}"


def _as_json(checked: Sequence[Checked], *, strict: bool) -> dict[str, Any]:
    from playbook.report import problem_to_json

    files = [
        {
            "file": str(each.file),
            **({"provider": each.provider} if each.provider else {}),
            "good": not any(problem.severity == "error" or strict for problem in each.told),
            "plan_sha256": each.plan.sha256 if isinstance(each.plan, Plan) else None,
            "problems": [problem_to_json(problem) for problem in each.told],
        }
        for each in checked
    ]
    return {"files": files}


COMMANDS = {"check": Command(add_check, check)}
