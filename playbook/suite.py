"""Many playbooks as one test: which cases there are, each performed and judged, several at a time.

A *case* is a playbook, or a playbook with one row of data. It is performed by the runner like any other run, compared with its baseline
when it has one (a row has one of its own), and comes out with one `Status`. Nothing is retried. A case that could not be performed is an
*error* (its own exit code says whose fault it is), one that did not do what was expected has *failed*, one that was left out says why.

With more than one worker, cases run in processes of their own, each on its own loop, and a signal to us stops every one in order, so that
no session stays open. Everything that goes to a worker or comes back is plain data, and what comes back has no secrets in it.

May be imported by the faces (`cli`, `pytest_plugin`).
"""

from __future__ import annotations

import contextlib
import csv
import multiprocessing
import os
import shlex
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from playbook import clock as clocks
from playbook.emulators import NoSuchLine, aim, rehearsal
from playbook.errors import MASK, AuthorError, PlaybookError, UsageError, format_problem, near_or_all, reason_of
from playbook.folders import file_name
from playbook.language import Inputs, check_file, cues, digest
from playbook.language.source import Findings, parse
from playbook.model import End, Plan, Step
from playbook.providers.registry import let_in
from playbook.record import baseline as baselines
from playbook.record.diff import VERDICTS, Change, sentence
from playbook.record.performance import Gatherer, Performance
from playbook.record.redact import Redactor
from playbook.runner import SIGNALS, Cue, Options, Outcome, Runner, Stall
from playbook.sessions import state_folder
from playbook.world import World, cache_folder

if TYPE_CHECKING:
    from playbook.transports.cassette import Cassette

Status = Literal["passed", "failed", "error", "skipped", "never ran"]
STATUSES: tuple[Status, ...] = ("passed", "failed", "error", "skipped", "never ran")


@dataclass(frozen=True, slots=True)
class Case:
    """A playbook, perhaps with a row of the file `data` (`row` counts from 1, as the data rows do; `id` is the row's own name)."""

    file: Path
    row: int = 0
    values: Mapping[str, str] = field(default_factory=dict)
    id: str = ""
    data: Path | None = None

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return f"{self.file}[{self.id or self.row}]" if self.row else str(self.file)

    @property
    def tape(self) -> Path:
        """Where its cassette lies: `intro.tape` beside `intro.yaml`; of the row `ada`, `intro.ada.tape`."""
        stem = self.file.name.removesuffix(".yaml").removesuffix(".yml")
        return self.file.with_name(f"{stem}.{file_name(self.id)}.tape" if self.row else f"{stem}.tape")


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


@dataclass(frozen=True, slots=True)
class Task:
    """One performance to come."""

    case: Case
    repetition: int
    folder: Path


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


# --- which cases there are ------------------------------------------------------------------------------------------------


ID = "id"
"""The column that names the rows. A playbook that declares a variable of this name gets it, any other does not."""


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header; columns are parted by commas, or by what the header has instead. Raises `UsageError` that
    names the line."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            part = "," if "," in first else next((char for char in ";\t" if char in first), ",")
            reader = csv.reader(file, strict=True, delimiter=part)
            header = [name.strip() for name in next(reader, [])]
            if not any(header):
                raise UsageError(f"{path} has no header", remedy="the first line names the variables")
            for number, name in enumerate(header, 1):
                if not name:
                    raise UsageError(f"{path}:1: column {number} has no name")
                if header.count(name) > 1:
                    raise UsageError(f"{path}:1: two columns are called '{name}'")
            found, lines = [], dict[str, int]()
            line = reader.line_num + 1
            for cells in reader:
                if cells:
                    if len(cells) != len(header):
                        raise UsageError(f"{path}:{line}: {len(cells)} cells, but {len(header)} columns")
                    row = dict(zip(header, cells, strict=True))
                    _check_id(row, lines, path, line)
                    found.append(row)
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} cannot be read as CSV: it is not UTF-8", remedy="save it as CSV in UTF-8") from error
    except (OSError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as CSV: {reason_of(error) if isinstance(error, OSError) else error}") from error
    if not found:
        raise UsageError(f"{path} has no rows below its header")
    return found


def _check_id(row: Mapping[str, str], lines: dict[str, int], path: Path, line: int) -> None:
    """A row's name is there, and its own."""
    if ID not in row:
        return
    if not row[ID].strip():
        raise UsageError(f"{path}:{line}: the row has no {ID}", remedy=f"a column '{ID}' names every row, or there is none")
    if row[ID] in lines:
        raise UsageError(f"{path}:{line}: the row in line {lines[row[ID]]} has the {ID} '{row[ID]}' too", remedy=f"'{ID}' names one row")
    lines[row[ID]] = line


def cases(files: Sequence[Path], data: Path | None = None) -> list[Case]:
    """Every file, or every file with every row of the data. Raises `UsageError` for data that cannot be used."""
    if data is None:
        return [Case(file) for file in files]
    found = rows(data)
    for file in files:
        if ID in found[0] and ID in secrets_of(file):
            raise UsageError(f"the column '{ID}' of {data} names the rows in reports, and in {file} it is a secret")
    plain = [(row.get(ID, ""), {name: value for name, value in row.items() if name != ID}) for row in found]
    return [Case(file, n, values, id, data) for file in files for n, (id, values) in enumerate(plain, 1)]


def check_tapes(chosen: Sequence[Case]) -> None:
    """Every case has a cassette of its own. Raises `UsageError`."""
    known: dict[Path, Case] = {}
    for case in chosen:
        if case.row and not file_name(case.id):
            raise UsageError(
                f"the cassette of {case.name} has no name", remedy=f"rows are known by a column '{ID}', which their cassettes bear"
            )
        if (other := known.setdefault(case.tape, case)) is not case:
            raise UsageError(f"{other.name} and {case.name} have one cassette, {case.tape}", remedy="rename one of them")


def _variables(file: Path) -> Mapping[str, Any]:
    """The variables that a playbook declares, as they are written; whether that is right is the language's to say."""
    try:
        root = parse(file.read_bytes(), file, str(file), Findings())
    except OSError:
        return {}
    data: Any = None if root is None else root.data
    found = data.get("vars") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def secrets_of(file: Path) -> frozenset[str]:
    """The names of a playbook's secret variables."""
    return frozenset(name for name, facts in _variables(file).items() if isinstance(facts, dict) and facts.get("secret") is True)


def tasks(chosen: Sequence[Case], repeat: int, folder: Path) -> list[Task]:
    """The repetitions, interleaved: what is slow or broken for a minute hits all cases alike, and not one case every time."""
    plain = [file_name(case.name) for case in chosen]
    unique = [name if plain.count(name) == 1 else f"{name}-{index}" for index, name in enumerate(plain, 1)]
    return [
        Task(case, repetition, folder / (name if repeat == 1 else f"{name}.{repetition}"))
        for repetition in range(1, repeat + 1)
        for case, name in zip(chosen, unique, strict=True)
    ]


# --- one case -----------------------------------------------------------------------------------------------------------


def perform(task: Task, setup: Setup, world: World | None = None) -> Result:
    """Perform a case and judge it. Never raises: whatever happens is its result."""
    took_ms = clocks.stopwatch()
    redact = Redactor()
    try:
        result = _perform(task, setup, world or World(cache_folder(setup.env)), redact)
    except _Skipped as skipped:
        result = _result(task, "skipped", 0, (str(skipped),))
    except AuthorError as error:
        result = _result(task, "error", error.exit_code, tuple(format_problem(problem) for problem in error.problems))
    except PlaybookError as error:
        apart = "\n{}" if "\n" in error.message else " ({})"
        reason = error.message + (apart.format(error.remedy) if error.remedy else "")
        result = _result(task, "failed" if error.exit_code == 1 else "error", error.exit_code, (reason,))
    except Exception:
        import traceback

        result = _result(task, "error", 70, ("this is a bug of playbook\n" + traceback.format_exc().rstrip(),))
    reasons = tuple(redact(reason) for reason in result.reasons)
    return replace(result, reasons=reasons, took_ms=took_ms())


class _Skipped(Exception):
    """There is nothing of this case to perform."""


def _result(task: Task, status: Status, code: int, reasons: tuple[str, ...] = (), **more: Any) -> Result:
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
    gatherer = Gatherer()

    options = Options(folder=task.folder, cues=setup.cues, watch=gatherer.take, provider=world.provider(plan.provider))
    idle: list[str] = []
    faults, elsewhere = _aimed(plan, setup)
    try:
        outcome = show(plan, replace(setup, faults=faults), options, tape=case.tape, repetition=task.repetition, redact=redact, idle=idle)
    except Stall as stall:
        stall.remedy = f"give it with `{setup.trigger_option} {shlex.quote(stall.trigger)}`"
        raise
    performance = gatherer.performance(case.name, {"provider": plan.provider})
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
    return _result(task, status, code, reasons, **told, folder=str(outcome.folder), performance=performance)


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
    world, homeless = World(cache_folder(setup.env)), {fault: "" for fault in setup.faults if "@" in fault}
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
        weather: dict[str, Any] = {"delay_ms": setup.delay_ms, "jitter_ms": setup.jitter_ms, "seed": setup.seed * 10_000 + repetition}
        async with rehearsal(plan, setup.env, setup.faults, wanted=setup.emulate, idle=idle, **weather) as (env, extras):
            wanted = replace(options, env=env, extras=extras, state_dir=None if setup.emulate else state_folder(env))
            cassette = _cassette(plan, tape) if setup.cassettes and plan.provider != "local" else None
            if cassette is not None:
                env, extras = let_in(options.provider, env), cassette.extras(extras)
                wanted = replace(options, env=env, extras=extras, state_dir=None, objection=cassette.objection)
            runner = Runner(plan, wanted)
            if cassette is not None:
                cassette.redact = runner.redact
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
    named = {ID: case.id} if case.id and ID in _variables(case.file) else {}
    inputs = replace(setup.inputs, row={**case.values, **named})
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
    world = World(cache_folder(setup.env))
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


# --- several at a time ----------------------------------------------------------------------------------------------------


class Suite:
    """Performs tasks, `jobs` at a time, and hands each result to `done` as it comes. `stop` stops what runs, and nothing more begins."""

    def __init__(self, setup: Setup, jobs: int, *, fail_fast: bool = False, done: Callable[[Result], None] | None = None) -> None:
        self._setup, self._jobs, self._fail_fast = setup, jobs, fail_fast
        self._done = done or (lambda _: None)
        self._why_not = ""
        self.stopped_by: int | None = None
        """The signal that stopped it."""

    def run(self, todo: Sequence[Task]) -> list[Result]:
        """All results, in the order of the tasks, those that never ran among them."""
        found: dict[int, Result] = {}
        order = {id(task): index for index, task in enumerate(todo)}
        with self._signals():
            results = self._alone(todo) if self._jobs == 1 or len(todo) == 1 else self._together(todo)
            for task, result in results:
                found[order[id(task)]] = result
                self._done(result)
                if result.exit_code in (130, 143):
                    self._why_not = "stopped"
                elif self._fail_fast and result.status in ("failed", "error"):
                    self._why_not = f"--fail-fast: {result.name} {'has failed' if result.status == 'failed' else 'had an error'}"
        why = self._why_not or "stopped"
        return [found.get(index) or _result(task, "never ran", 0, (why,)) for index, task in enumerate(todo)]

    def _alone(self, todo: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        world = World(cache_folder(self._setup.env))
        for task in todo:
            if self._why_not:
                return
            result = perform(task, self._setup, world)
            self._install()  # the runner had the signals meanwhile
            yield task, result

    def _together(self, todo: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        waiting, running = deque(todo), dict[Future[Result], Task]()
        context = multiprocessing.get_context("spawn")
        workers = min(self._jobs, len(todo))
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(self._setup,)) as pool:
            try:
                while running or (waiting and not self._why_not):
                    while waiting and not self._why_not and len(running) < workers:
                        task = waiting.popleft()
                        running[pool.submit(_work, task)] = task
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        task = running.pop(future)
                        yield task, _outcome(future, task)
            except BrokenProcessPool:
                self._why_not = "a worker process died"

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """A signal to us goes on to the workers, where it stops each run in order. (Alone, the runner itself takes it.)"""
        before = self._install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _install(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        return {number: signal.signal(number, self._stop) for number in SIGNALS if not (nohup and number == signal.SIGHUP)}

    def _stop(self, number: int, _: Any) -> None:
        self._why_not = "stopped"
        self.stopped_by = number
        for child in multiprocessing.active_children():
            if child.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


def _outcome(future: Future[Result], task: Task) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        return _result(task, "error", 70, ("its worker process died",))


@dataclass(slots=True)
class _Worker:
    setup: Setup
    world: World
    busy: bool = False
    orphaned: bool = False


_worker: _Worker | None = None


def _begin_worker(setup: Setup) -> None:
    """A worker has a session of its own, so that Ctrl-C reaches it through us alone, once; and it does not outlive us."""
    global _worker
    os.setsid()
    _worker = _Worker(setup, World(cache_folder(setup.env)))
    _ignore_signals()
    threading.Thread(target=_follow_parent, args=(_worker,), daemon=True).start()


def _ignore_signals() -> None:
    """Between two cases there is nothing to stop; the runner takes the signals while there is."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _follow_parent(worker: _Worker) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    worker.orphaned = True
    if worker.busy:
        os.kill(os.getpid(), signal.SIGTERM)  # the run stops in order, and then we do
    else:
        os._exit(1)


def _work(task: Task) -> Result:
    assert _worker is not None
    _worker.busy = True
    try:
        return perform(task, _worker.setup, _worker.world)
    finally:
        _worker.busy = False
        _ignore_signals()
        if _worker.orphaned:
            os._exit(1)
