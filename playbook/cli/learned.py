"""What `playbook test --update` writes, and which rows of data have a baseline but are gone.

A file of rows is changed row by row: rows keep their places whatever the order of the data is, new ones come last, and one that did not
pass or was not performed stays as it was. A row that is gone leaves only when the whole of the data was meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from playbook.cli.options import err
from playbook.errors import PlaybookError, RecordError, RunError, UsageError, reason_of
from playbook.record import baseline as baselines
from playbook.record.baseline import Baseline, Row, Rows
from playbook.record.performance import Performance
from playbook.report import clip, count, one_line
from playbook.suite import Case, Result, Task


@dataclass(frozen=True, slots=True)
class Written:
    """A baseline that was written; of rows, how many it has now and which were taken out."""

    path: Path
    rows: int = 0
    gone: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.rows and not self.gone:
            return str(self.path)
        return f"{self.path} ({count(self.rows, 'row')}{'; gone: ' if self.gone else ''}{'; '.join(self.gone)})"


Runs = Mapping[tuple[Path, int], Sequence[Result]]
"""The results by case, which is a file and a row of it."""


@dataclass(slots=True)
class Update:
    """What became of it all; what could not be done has been said, and has an exit code."""

    written: list[Written] = field(default_factory=list)
    exit_code: int = 0

    def failed(self, error: PlaybookError) -> None:
        """Say what could not be done."""
        err(f"error: {error.message}" + (f"\n  {error.remedy}" if error.remedy else ""))
        self.exit_code = self.exit_code or error.exit_code


def paths(every: Sequence[Case]) -> list[Path]:
    """Where baselines may be written."""
    return [baselines.path_of(cases[0].file, cases[0].data) for cases in _by_file(every)]


def update(every: Sequence[Case], todo: Sequence[Task], results: Sequence[Result], clock: str, *, whole: bool) -> Update:
    """Write the baseline of every case all of whose runs passed. `every` case there is; `whole` says that all of them were wanted."""
    runs: dict[tuple[Path, int], list[Result]] = {}
    for task, result in zip(todo, results, strict=True):
        runs.setdefault((task.case.file, task.case.row), []).append(result)
    done = Update()
    for cases in _by_file(every):
        if not any((case.file, case.row) in runs for case in cases):
            continue
        try:
            made = _update_rows(cases, runs, clock, whole, done) if cases[0].row else _update_one(cases[0], runs, clock)
        except (RunError, RecordError) as error:
            done.failed(error)
            continue
        if made is not None:
            done.written.append(made)
    return done


def gone(every: Sequence[Case]) -> Iterator[Result]:
    """The rows that have a baseline and are not in the data any more, as cases that were skipped."""
    for cases in _by_file(every):
        path = baselines.path_of(cases[0].file, cases[0].data)
        if not cases[0].row or not path.exists():
            continue
        try:
            rows = baselines.read_rows(path)
        except RecordError:
            continue  # every case has said so
        for row in _unclaimed(rows, cases):
            reason = f"{cases[0].data} has no such row any more; `playbook test --update` takes it out of {path}"
            yield Result(name=f"{cases[0].file}[{_name(row)}]", file=str(cases[0].file), repetition=1, status="skipped", reasons=(reason,))


def _by_file(every: Sequence[Case]) -> list[list[Case]]:
    found: dict[Path, list[Case]] = {}
    for case in every:
        found.setdefault(case.file, []).append(case)
    return list(found.values())


def _name(row: Row) -> str:
    return clip(one_line(row.name), 80)


def _unclaimed(rows: Rows, cases: Sequence[Case]) -> list[Row]:
    claimed = {id(rows.find(case.id, case.values)) for case in cases}
    return [row for row in rows.rows if id(row) not in claimed]


def _passed(case: Case, runs: Runs) -> list[Performance]:
    """The runs of a case, if there were any and all passed."""
    results = runs.get((case.file, case.row), ())
    performances = [result.performance for result in results if result.performance is not None and result.status == "passed"]
    if len(performances) == len(results):
        return performances
    if any(result.status not in ("skipped", "never ran") for result in results):
        err(f"{case.name}: no baseline is made of runs that did not pass")
    return []


def _before(path: Path) -> Baseline | Rows | None:
    """What is there; what is damaged is made anew."""
    try:
        return baselines.read_any(path) if path.exists() else None
    except RecordError:
        return None


def _write(path: Path, baseline: Baseline | Rows) -> None:
    try:
        path.write_text(baselines.to_yaml(baseline), "utf-8", errors="backslashreplace")
    except OSError as error:
        raise RecordError(f"{path} cannot be written: {reason_of(error)}") from error


def _update_one(case: Case, runs: Runs, clock: str) -> Written | None:
    performances = _passed(case, runs)
    if not performances:
        return None
    path = baselines.path_of(case.file)
    if isinstance(_before(path), Rows):
        raise baselines.other_kind(path, "rows of data", "a playbook")
    _write(path, baselines.learn(performances, _playbook(case), clock))
    return Written(path)


def _playbook(case: Case) -> str:
    return case.file.name.split(".")[0]


def _update_rows(cases: Sequence[Case], runs: Runs, clock: str, whole: bool, done: Update) -> Written | None:
    file, data = cases[0].file, cases[0].data
    assert data is not None
    path = baselines.path_of(file, data)
    before = _before(path)
    if isinstance(before, Baseline):
        raise baselines.other_kind(path, "a playbook", "rows of data")
    if before is None and path.exists() and not whole:
        raise RecordError(f"{path} is damaged", remedy="make it anew from all rows: --update without --only and --rerun-failed")
    old = before or Rows("", "", ())
    new, changed = {id(row): row for row in old.rows}, False
    for same in _alike(cases, runs, done):
        performances = [performance for case in same for performance in _passed(case, runs)]
        if not performances or len(performances) < sum(len(runs[case.file, case.row]) for case in same):
            continue
        values = runs[same[0].file, same[0].row][0].values
        try:
            learned = Row(same[0].id, values, baselines.learn(performances, same[0].name, clock))
        except RunError as error:
            done.failed(error)
            continue
        place = old.find(same[0].id, same[0].values)
        taken = place is None or new[id(place)] is not place
        new[id(learned) if taken else id(place)] = learned
        changed = True
    left = _unclaimed(old, cases) if whole else []
    if not changed and not left:
        return None
    kept = tuple(row for key, row in new.items() if key not in {id(row) for row in left})
    _write(path, Rows(_playbook(cases[0]), data.name, kept))
    return Written(path, len(kept), tuple(map(_name, left)))


def _alike(cases: Sequence[Case], runs: Runs, done: Update) -> Iterator[list[Case]]:
    """The cases that were performed, equal rows together: they are one case that is performed more often."""
    groups: dict[tuple[object, ...], list[Case]] = {}
    for case in cases:
        if results := runs.get((case.file, case.row)):
            shown = results[0].values if results[0].performance is not None else case.values
            groups.setdefault((case.id, *sorted(shown.items())), []).append(case)
    for same in groups.values():
        if all(case.values == same[0].values for case in same):
            yield same
        else:
            names = ", ".join(case.name for case in same)
            done.failed(UsageError(f"{names} differ only in what is secret: no baseline", remedy="name the rows in a column 'id'"))
