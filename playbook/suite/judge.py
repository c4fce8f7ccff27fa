"""One case, performed and judged; and what must be true of all of them before the first one is."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from playbook import clock as clocks
from playbook.errors import MASK, AuthorError, PlaybookError, UsageError, format_problem, near_or_all
from playbook.folders import project_of
from playbook.language import Inputs, check_file, cues, digest
from playbook.model import End, Plan, Step
from playbook.perform.assemble import staged
from playbook.perform.performance import Options, Outcome
from playbook.perform.rehearsal import NoSuchLine, aim
from playbook.perform.steering import Cue, Stall
from playbook.perform.world import World
from playbook.record import baseline as baselines
from playbook.record.diff import VERDICTS, Change, sentence
from playbook.record.performance import Performance, of_summary
from playbook.record.redact import Redactor
from playbook.suite.case import ID, Case, Task, secrets_of, variables

if TYPE_CHECKING:
    from playbook.transports.cassette import Cassette

Status = Literal["passed", "failed", "error", "skipped", "never ran"]
STATUSES: tuple[Status, ...] = ("passed", "failed", "error", "skipped", "never ran")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How all cases are performed. `delay_ms` and `jitter_ms` hold up the emulator's answers; `seed` and repetition decide how long."""

    env: Mapping[str, str] = field(default_factory=dict)
    inputs: Inputs = field(default_factory=Inputs)
    provider: str | None = None
    clock: clocks.ClockName = "system"
    emulate: bool = False
    cassettes: bool = False
    """Whether each case is performed against its cassette, `Case.tape`."""
    faults: tuple[str, ...] = ()
    delay_ms: int = 0
    jitter_ms: int = 0
    seed: int = 0
    from_step: str | None = None
    to_step: str | None = None
    cues: tuple[Cue, ...] = ()
    trigger_option: str = "--trigger"
    """What an option is called that adds to `cues`."""
    strict: bool = False
    compare: bool = True
    """Whether baselines are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a task. `reasons` are in full sentences, the first cause first; `changes` are those from the baseline."""

    name: str
    file: str
    repetition: int
    status: Status
    exit_code: int = 0
    reasons: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    baseline: str = "none"
    """Whether there was one: `none`, `compared`, `words only` (another provider's), `without timings` (another clock's), or `new row` (only
    other rows have one)."""
    values: Mapping[str, str] = field(default_factory=dict)
    """The row of data, as it may be shown."""
    idle: tuple[str, ...] = ()
    """What was to happen and did not, each in a sentence: faults that never struck, triggers that nothing waited for."""
    took_ms: int = 0
    folder: str = ""
    performance: Performance | None = None


def perform(task: Task, setup: Setup, world: World | None = None) -> Result:
    """Perform a case and judge it. Never raises: whatever happens is its result."""
    took_ms = clocks.stopwatch()
    redact = Redactor()
    try:
        result = _perform(task, setup, world or World.of(setup.env), redact)
    except _Skipped as skipped:
        result = result_of(task, "skipped", 0, (str(skipped),))
    except AuthorError as error:
        result = result_of(task, "error", error.exit_code, tuple(format_problem(problem) for problem in error.problems))
    except PlaybookError as error:
        apart = "\n{}" if "\n" in error.message else " ({})"
        reason = error.message + (apart.format(error.remedy) if error.remedy else "")
        result = result_of(task, "failed" if error.exit_code == 1 else "error", error.exit_code, (reason,))
    except Exception:
        import traceback

        result = result_of(task, "error", 70, ("this is a bug of playbook\n" + traceback.format_exc().rstrip(),))
    reasons = tuple(redact(reason) for reason in result.reasons)
    return replace(result, reasons=reasons, took_ms=took_ms())


class _Skipped(Exception):
    """There is nothing of this case to perform."""


def result_of(task: Task, status: Status, code: int, reasons: tuple[str, ...] = (), **more: Any) -> Result:
    return Result(
        name=task.case.name,
        file=str(task.case.file),
        repetition=task.repetition,
        status=status,
        exit_code=code,
        reasons=reasons,
        **more,
    )


def _perform(task: Task, setup: Setup, world: World, redact: Redactor) -> Result:
    case = task.case
    plan = _compile(case, setup, world)
    redact.absorb(Redactor(plan.secrets))
    hidden = secrets_of(case.file) if case.row else ()
    values = {name: MASK if name in hidden else redact(value) for name, value in case.values.items()}
    part = (setup.from_step, setup.to_step)
    if part != (None, None):
        plan = cut(plan, *part)
    baseline, changes, compared = _expected(case, values) if setup.compare else (None, (), "none")
    options = Options(folder=task.folder, cues=setup.cues, provider=world.provider(plan.provider))
    idle: list[str] = []
    faults, elsewhere = _aimed(plan, setup)
    try:
        outcome = show(plan, replace(setup, faults=faults), options, tape=case.tape, repetition=task.repetition, redact=redact, idle=idle)
    except Stall as stall:
        stall.remedy = f"give it with `{setup.trigger_option} {shlex.quote(stall.trigger)}`"
        raise
    performance = of_summary(outcome.summary, case.name, {"provider": plan.provider})
    end = outcome.result
    reasons = tuple(_sentence(failure.step, failure.reason) for failure in outcome.failures)
    if end.exit_code and not reasons:
        reason = f"stopped by {end.reason}" if end.end == "stopped" else end.reason or end.end
        reasons = (_sentence(end.step, reason),)
    if baseline is not None:
        comparison = baseline.judge(performance, clock=setup.clock, part=part)
        changes += tuple(sorted(comparison.changes, key=_weight))
        compared = baseline.view(performance, setup.clock)
        reasons += tuple(sentence(change, baseline.runs) for change in changes)
    code = end.exit_code or (1 if changes else 0)
    status: Status = "passed" if code == 0 else "failed" if code == 1 else "error"
    vain = [f"the fault '{fault}' never struck" for fault in [*idle, *elsewhere]]
    vain += outcome.summary.unheeded(cue.trigger for cue in setup.cues)
    told = {"changes": changes, "baseline": compared, "values": values, "idle": tuple(vain)}
    return result_of(task, status, code, reasons, **told, folder=str(outcome.folder), performance=performance)


def _aimed(plan: Plan, setup: Setup) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The faults for a playbook of many, and those for a line that it does not have."""
    faults = {}
    for fault in setup.faults if setup.emulate else ():
        try:
            aim(fault, plan)
            faults[fault] = True
        except NoSuchLine:
            faults[fault] = False
    return tuple(fault for fault, here in faults.items() if here), tuple(fault for fault, here in faults.items() if not here)


def check_faults(chosen: Sequence[Case], setup: Setup) -> None:
    """Each fault's line is in a playbook at least. Raises `UsageError`; what is wrong in a playbook is not told here."""
    if not setup.emulate:
        return
    world, homeless = World.of(setup.env), {fault: "" for fault in setup.faults if "@" in fault}
    for case in chosen if homeless else ():
        try:
            plan = _compile(case, setup, world)
        except PlaybookError:  # its lines are not known
            return
        except _Skipped:
            continue
        for fault in tuple(homeless):
            try:
                aim(fault, plan)
                del homeless[fault]
            except NoSuchLine as error:
                homeless[fault] = max(homeless[fault], error.remedy, key=lambda remedy: remedy.startswith("did you mean"))
        if not homeless:
            return
    for fault, remedy in homeless.items():
        raise UsageError(f"no playbook has the line '{fault.partition('@')[2]}', which the fault '{fault}' is for", remedy=remedy)


def in_vain(results: Sequence[Result]) -> list[str]:
    """What happened in none of the playbooks, though it was to."""
    ran = [result for result in results if result.status in ("passed", "failed") and result.folder]
    return [sentence for sentence in ran[0].idle if all(sentence in result.idle for result in ran)] if ran else []


def show(
    plan: Plan,
    setup: Setup,
    options: Options,
    *,
    tape: Path,
    repetition: int = 1,
    redact: Redactor | None = None,
    idle: list[str] | None = None,
) -> Outcome:
    """Perform a plan as the setup has it: on its clock, with the provider, its emulator or the cassette `tape`. `redact` learns what is
    secret, `idle` which faults never struck."""

    async def perform() -> Outcome:
        weather = {"delay_ms": setup.delay_ms, "jitter_ms": setup.jitter_ms, "seed": setup.seed * 10_000 + repetition}
        cassette = _cassette(plan, tape) if setup.cassettes and plan.capabilities.remote else None
        stage = staged(
            plan, replace(options, env=setup.env), emulate=setup.emulate, cassette=cassette, faults=setup.faults, idle=idle, **weather
        )
        async with stage as runner:
            try:
                return await runner.run()
            finally:
                if redact is not None:
                    redact.absorb(runner.redact)

    return clocks.run(perform(), setup.clock)


def _cassette(plan: Plan, tape: Path) -> Cassette:
    from playbook.transports.cassette import Cassette

    return Cassette(tape, provider=plan.provider, playbook=plan.name)


def _expected(case: Case, shown: Mapping[str, str]) -> tuple[baselines.Baseline | None, tuple[Change, ...], str]:
    """A case's baseline, what has changed in its row since, and, where there is no baseline, what to call that."""
    path = baselines.path_of(case.file, case.data)
    if not path.exists():
        return None, (), "none"
    if not case.row:
        return baselines.read(path), (), ""
    about = path.stat()
    row = _baselines_of_rows(path, about.st_mtime_ns, about.st_size).find(case.id, case.values)
    if row is None:
        return None, (), "new row"
    return row.baseline, row.changes(case.values, shown), ""


@lru_cache(maxsize=4)
def _baselines_of_rows(path: Path, _written: int, _size: int) -> baselines.Rows:
    """All rows share a file: it is read once, and again when it was written anew."""
    return baselines.read_rows(path)


def _weight(change: Change) -> tuple[int, bool]:
    """What matters more comes first: words, outcome, timing; what only follows from the rest comes last."""
    return VERDICTS.index(change.verdict), change.carried or not change.step


def _compile(case: Case, setup: Setup, world: World) -> Plan:
    named = {ID: case.id} if case.id and ID in variables(case.file) else {}
    root = setup.inputs.root or project_of(case.file)
    inputs = replace(setup.inputs, row={**case.values, **named}, table=str(case.data), line=case.line, root=root)
    problems, plan = check_file(case.file, world, inputs, provider=setup.provider)
    if plan is None and not any(problem.severity == "error" for problem in problems):
        raise _Skipped("it is a part, which playbooks include")
    if plan is None or (setup.strict and problems):
        raise AuthorError(problems)
    return plan


def _sentence(step: str | None, reason: str) -> str:
    return f"{step}: {reason}" if step else reason


def cut(plan: Plan, first: str | None, last: str | None) -> Plan:
    """The steps from `first` to `last`, as a plan of their own. Cues keep their distances; the part begins at timeline zero."""
    ids = [step.id for step in plan.steps]
    for wanted in (first, last):
        if wanted is not None and wanted not in ids:
            raise _Skipped(f"it has no step '{wanted}'")
    begin = ids.index(first) if first is not None else 0
    end = ids.index(last) + 1 if last is not None else len(ids)
    if begin >= end:
        raise _Skipped(f"its step '{last}' comes before '{first}'")
    origin = cues(plan)[begin].start_ms
    steps = [_shifted(step, origin) for step in plan.steps[begin:end]]
    if not isinstance(steps[-1].action, End):
        steps.append(Step(id="end" if "end" not in ids[begin:end] else "end-of-part", action=End()))
    part = replace(plan, steps=tuple(steps))
    return replace(part, sha256=digest(part))


def check_steps(chosen: Sequence[Case], setup: Setup) -> None:
    """The steps of `--from-step` and `--to-step` are in a playbook at least. Raises `UsageError`; what is wrong in a playbook is not told
    here."""
    missing, known = [step for step in (setup.from_step, setup.to_step) if step is not None], set[str]()
    world = World.of(setup.env)
    for case in chosen:
        if all(step in known for step in missing):
            return
        try:
            known.update(step.id for step in _compile(case, setup, world).steps)
        except PlaybookError:  # its steps are not known: whether it has them will be seen when it is right
            return
        except _Skipped:
            continue
    for step in missing:
        if step not in known:
            hint = near_or_all(step, known, "`playbook plan FILE` shows the steps")
            raise UsageError(f"there is no step '{step}' in any of the playbooks", remedy=hint)


def _shifted(step: Step, by_ms: int) -> Step:
    return step if step.at_ms is None else replace(step, at_ms=max(0, step.at_ms - by_ms))
