"""The verb `test`: many playbooks performed, each judged by its baseline, and what is told of it.

Whatever can be refused is refused before the first run: a report that cannot be written, a step or a fault that does not exist. Only what
was asked for is performed; what failed is remembered for the next time.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import signal
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook import clock as clocks
from playbook.cli.inputs import add_inputs, inputs, playbook_files
from playbook.cli.options import Command, Parser, cue, err, in_colour, is_live, out, out_json, writable, write
from playbook.errors import PlaybookError, RecordError, UsageError, reason_of
from playbook.folders import run_folder
from playbook.formats.durations import parse_duration
from playbook.formats.source import read_file
from playbook.journal.journal import state_folder

if TYPE_CHECKING:
    from playbook.cli.learned import Written
    from playbook.suite import Case, Result

LAST = Path("runs") / ".last-test.json"
"""What failed in this folder when it was last tested, for `--rerun-failed`."""


def add_test(parser: Parser) -> None:
    add = parser.add_argument
    add("paths", metavar="PATH", nargs="+", help="playbooks, folders of them, or globs")
    add_inputs(parser)
    add("--clock", choices=("system", "virtual"), default="system", help="virtual: an hour takes a moment")
    add("--emulate", action="store_true", help="perform against the providers' emulators, without keys")
    add("--cassettes", action="store_true", help="perform each against the cassette beside it: intro.tape for intro.yaml")
    add("--fault", metavar="NAME[@STEP]", action="append", help="let the emulators fail in this way")
    add("--delay", metavar="TIME", type=_time, default=0, help="let the emulators hold up every answer for so long")
    add("--jitter", metavar="TIME", type=_time, default=0, help="and for up to so much longer, by chance")
    add("--seed", metavar="N", type=int, default=0, help="which chance it is (0)")
    add("--trigger", metavar="NAME@TIME", action="append", type=cue, help="give a trigger at a time of each show")
    add("--jobs", metavar="N", type=_positive, default=os.cpu_count() or 1, help="how many at a time (one for each core)")
    add("--repeat", metavar="N", type=_positive, default=1, help="perform each so often, interleaved, and tell the pass rates")
    add("--data", metavar="CSV", type=Path, help="perform each once for every row; the columns are variables, and 'id' names the rows")
    add("--only", metavar="GLOB", action="append", help="only the cases whose name matches, or contains this")
    add("--from-step", metavar="ID", help="begin with this step")
    add("--to-step", metavar="ID", help="end with this step")
    add("--rerun-failed", action="store_true", help="only what failed, or never ran, when it was last tested")
    add("--fail-fast", action="store_true", help="begin nothing more after the first failure")
    add("--strict", action="store_true", help="warnings are errors")
    add("--update", action="store_true", help="write the baselines from these runs instead of comparing with them")
    add("--no-baseline", action="store_true", help="compare with no baseline")
    add("--out", metavar="DIR", type=Path, help="where the run folders go (runs/<time>-test)")
    add("--junit", metavar="FILE", type=Path, help="write a JUnit report")
    add("--tap", metavar="FILE", type=Path, help="write a TAP report")
    add("--html", metavar="FILE", type=Path, help="write a page")
    add("--json", action="store_true", help="the results as JSON, on standard output")
    add("--quiet", action="store_true", help="no line for each case")


def _time(text: str) -> int:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' {error}") from error


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from 1 on")
    return int(text)


def test(args: Namespace) -> int:
    from playbook import suite
    from playbook.cli import learned
    from playbook.cli.sessions import left_open, remind

    if args.update and (args.from_step or args.to_step):
        raise UsageError("a baseline is of the whole playbook, without --from-step and --to-step")
    if (args.fault or args.delay or args.jitter) and not args.emulate:
        raise UsageError("--fault, --delay and --jitter are for emulated runs", remedy="add --emulate")
    if args.cassettes and args.emulate:
        raise UsageError(
            "--cassettes and --emulate exclude each other", remedy="a cassette stands in for the vendor, and so does an emulator"
        )
    for path in (args.junit, args.tap, args.html):
        writable(path)
    every = suite.cases(playbook_files(args.paths), args.data)
    chosen, left_out = _choose(args, every)
    if not chosen:
        err(f"error: nothing to test in {', '.join(args.paths)}\n  {left_out or 'playbooks end in .yaml or .yml'}")
        return 5
    if args.cassettes:
        suite.check_tapes(chosen)
    for path in learned.paths(chosen) if args.update else ():
        writable(path)
    setup = suite.Setup(
        env=dict(args.env),
        inputs=inputs(args),
        provider=args.provider,
        clock=args.clock,
        emulate=args.emulate,
        cassettes=args.cassettes,
        faults=tuple(args.fault or ()),
        delay_ms=args.delay,
        jitter_ms=args.jitter,
        seed=args.seed,
        from_step=args.from_step,
        to_step=args.to_step,
        cues=tuple(args.trigger or ()),
        strict=args.strict,
        compare=not (args.update or args.no_baseline),
    )
    suite.check_steps(chosen, setup)
    suite.check_faults(chosen, setup)
    folder = run_folder(args.out, "test")
    todo = suite.tasks(chosen, args.repeat, folder)
    took_ms, started_at = clocks.stopwatch(), clocks.wall_time().isoformat(timespec="seconds")
    if billed := not (args.emulate or args.cassettes):
        remind(state_folder(args.env))
    runner = suite.Suite(setup, args.jobs, fail_fast=args.fail_fast, done=_progress(args, len(todo)))
    try:
        results = runner.run(todo)
    finally:
        with contextlib.suppress(OSError):  # nothing ran
            folder.rmdir()
        if billed:
            runs = {task.folder.name for task in todo}
            args.last_words += left_open(
                state_folder(args.env), lambda record: record.run in runs and record.since.isoformat() >= started_at
            )
    whole = not (args.only or args.rerun_failed)
    update = learned.update(every, todo, results, setup.clock, whole=whole) if args.update else learned.Update()
    if setup.compare and whole:
        results += learned.gone(every)
    _report(args, results, update.written, started_at, took_ms())
    _remember(results)
    vain = suite.in_vain(results)
    args.last_words += vain
    return _exit_code(results, runner.stopped_by) or update.exit_code or (1 if vain and args.strict else 0)


def _choose(args: Namespace, every: Sequence[Case]) -> tuple[list[Case], str]:
    """The cases that are wanted, and what to say when there are none."""
    chosen, said = list(every), ""
    if args.only:
        for glob in args.only:
            if not any(_matches(case, glob) for case in chosen):
                err(f"warning: --only {glob} matches none of {len(every)}")
        chosen = [case for case in chosen if any(_matches(case, glob) for glob in args.only)]
        said = f"--only {' '.join(args.only)} matches none of {len(every)}"
    if args.rerun_failed:
        failed = _failed_last()
        chosen = [case for case in chosen if case.name in failed]
        said = "nothing of it failed when it was last tested"
    return chosen, said if every else ""


def _matches(case: Case, glob: str) -> bool:
    """By its name, with or without the folders, or by a piece of it."""
    short = case.name.removeprefix(f"{case.file.parent}{os.sep}")
    return glob in case.name or fnmatch.fnmatch(case.name, glob) or fnmatch.fnmatch(short, glob)


def _failed_last() -> set[str]:
    try:
        data = json.loads(read_file(LAST))
        return {str(name) for name in data["failed"]}
    except FileNotFoundError:
        raise UsageError("there was no test before this one", remedy=f"--rerun-failed reads {LAST}, which a test writes") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{LAST} cannot be read: {error}", remedy="remove it") from error


def _remember(results: Sequence[Result]) -> None:
    """What is to be run again: what failed or never ran, and what failed before and was not asked for now."""
    try:
        before = _failed_last()
    except PlaybookError:
        before = set()
    failed = {result.name for result in results if result.status in ("failed", "error", "never ran")}
    failed |= before - {result.name for result in results}
    try:
        LAST.parent.mkdir(parents=True, exist_ok=True)
        LAST.write_text(json.dumps({"failed": sorted(failed)}, ensure_ascii=False, indent=1) + "\n", "utf-8")
    except OSError as error:
        err(f"warning: {LAST} cannot be written, so --rerun-failed will not know of this test: {reason_of(error)}")


# what is shown

MAX_NAMES = 50
"""So many cases that were left out for one reason are shown; the reports have all."""


def _progress(args: Namespace, total: int) -> Any:
    from playbook.cli.reports import label
    from playbook.report import paint

    hues = _hues()
    colour = in_colour(sys.stderr, args.env)
    live = is_live(sys.stderr, args.env)
    seen = 0

    def done(result: Result) -> None:
        nonlocal seen
        seen += 1
        if args.quiet:
            return
        if result.status == "passed" and total > 50:  # a long list of what is well is no news
            if live:
                sys.stderr.write(f"\r\x1b[K{seen} of {total}")
                sys.stderr.flush()
            return
        if live:
            sys.stderr.write("\r\x1b[K")
        status = paint(f"{result.status:<9}", hues[result.status], colour=colour)
        err(f"{status} {label(result, args.repeat)}  {result.took_ms / 1000:.2f} s")

    return done


def _hues() -> Mapping[str, str]:
    from playbook.report import GREEN, RED, YELLOW

    return {"passed": GREEN, "failed": RED, "error": RED, "skipped": YELLOW, "never ran": YELLOW}


def _report(args: Namespace, results: Sequence[Result], written: Sequence[Written], started_at: str, took_ms: int) -> None:
    from playbook.cli import reports

    if args.junit:
        write(args.junit, results, partial(reports.to_junit, repeat=args.repeat, started_at=started_at, took_ms=took_ms))
    if args.tap:
        write(args.tap, results, partial(reports.to_tap, repeat=args.repeat))
    if args.html:
        from playbook.cli.pages import test_page

        write(args.html, results, partial(test_page, repeat=args.repeat, started_at=started_at, took_ms=took_ms))
    if args.json:
        notes: dict[str, Any] = {}
        if args.update:
            notes["baselines_written"] = [str(each.path) for each in written]
            notes["rows_removed"] = {str(each.path): list(each.gone) for each in written if each.gone}
        out_json(reports.to_json(results, repeat=args.repeat, started_at=started_at, took_ms=took_ms, notes=notes))
    else:
        out(_summary(args, results, written, took_ms))


def _summary(args: Namespace, results: Sequence[Result], written: Sequence[Written], took_ms: int) -> str:
    from playbook.cli.reports import counts, label, rates
    from playbook.report import BOLD, DIM, GREEN, RED, count, one_line, paint

    hues = _hues()
    colour = in_colour(sys.stdout, args.env)
    lines = []
    alike = Counter((result.file, result.reasons) for result in results if not result.folder)  # rows that were not performed, and why
    for result in results:
        if result.status not in ("failed", "error"):
            continue
        others = 0 if result.folder else alike.pop((result.file, result.reasons), 0) - 1
        if others < 0:
            continue  # it is told with the first of them
        more = f" and {others} more" if others else ""
        lines.append(paint(f"{result.status}: {label(result, args.repeat)}{more}", BOLD, hues[result.status], colour=colour))
        shown = result.reasons[:8]
        lines += ["  " + reason.replace("\n", "\n  ") for reason in shown]
        if len(result.reasons) > len(shown):
            lines.append(f"  and {len(result.reasons) - len(shown)} more")
        if result.folder:
            lines.append(paint(f"  {result.folder}", DIM, colour=colour))
    for (status, why), names in _left_out(results).items():
        lines.append(paint(f"{status}: {one_line(why)}", BOLD, hues[status], colour=colour))
        lines += [f"  {name}" + (f" ({times} times)" if times > 1 else "") for name, times in names.most_common(MAX_NAMES)]
        if len(names) > MAX_NAMES:
            lines.append(f"  and {len(names) - MAX_NAMES} more")
    if lines:
        lines.append("")
    if args.repeat > 1:
        lines += [f"{name}: {passed} of {ran} passed" for name, (passed, ran) in rates(results).items()]
        lines.append("")
    lines += [f"baseline written: {path}" for path in written]
    told = [count(number, "error") if status == "error" else f"{number} {status}" for status, number in counts(results).items() if number]
    good = all(result.status in ("passed", "skipped") for result in results)
    lines.append(paint(", ".join(told), BOLD, GREEN if good else RED, colour=colour) + f"; {took_ms / 1000:.1f} s")
    lines += _baselines_text(results)
    return "\n".join(lines)


def _left_out(results: Sequence[Result]) -> dict[tuple[str, str], Counter[str]]:
    """The cases that were not performed, by status and reason, with how many of their runs."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for result in results:
        if result.status in ("skipped", "never ran"):
            found.setdefault((result.status, "; ".join(result.reasons)), Counter())[result.name] += 1
    return found


def _baselines_text(results: Sequence[Result]) -> Iterator[str]:
    """What was not compared, where something was, or could have been."""
    from playbook.report import count

    def names(*kinds: str) -> list[str]:
        return list(dict.fromkeys(result.name for result in results if result.baseline in kinds and result.performance is not None))

    def listed(names: list[str]) -> str:
        return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")

    if others := names("words only", "without timings"):
        yield f"{count(len(others), 'baseline')} of another provider or clock: timings not compared"
    if new := names("new row"):
        yield f"{count(len(new), 'row has', 'rows have')} no baseline yet, --update adds it: {listed(new)}"
    if any(result.baseline != "none" for result in results) and (without := names("none")):
        yield f"{count(len(without), 'case has', 'cases have')} no baseline: {listed(without)}"


def _exit_code(results: Sequence[Result], stopped_by: int | None) -> int:
    if stopped_by is not None:
        return 130 if stopped_by == signal.SIGINT else 143
    codes = [result.exit_code for result in results if result.status in ("failed", "error")]
    for code in (130, 143, 70, 1):
        if code in codes:
            return code
    if codes:
        return codes[0]
    return 0 if any(result.status == "passed" for result in results) else 5


COMMANDS = {"test": Command(add_test, test)}
