"""The verbs that compare without performing: `replay`, `diff`. Logs and plans are only read."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook.cli.inputs import add_inputs, inputs, near_file
from playbook.cli.options import Command, Parser, err, in_colour, out, out_json, width, writable, write
from playbook.errors import AuthorError, RecordError, UsageError
from playbook.formats.source import need_file, read_file
from playbook.language import compile_file, plan_from_json
from playbook.model import Plan
from playbook.perform.world import World

if TYPE_CHECKING:
    from playbook.record.diff import Comparison
    from playbook.record.performance import Performance


# --- replay ---------------------------------------------------------------------------------------------------------------


def add_replay(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder or a run log")
    parser.add_argument("--playbook", metavar="FILE", type=Path, help="the playbook, to see whether its plan is still the same (the log's)")
    add_inputs(parser)
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def replay(args: Namespace) -> int:
    from playbook.cli.compared import comparison_to_json, plan_change_text, replay_text, replay_to_json
    from playbook.record.replay import replay as prove
    from playbook.record.runlog import read_log

    log = read_log(there(args.run))
    recorded = recorded_plan(args.run)
    today, why_not = _today(args, log.header, recorded)
    plan = recorded or today
    if plan is None:
        raise UsageError(f"there is no plan beside {args.run}{why_not}", remedy="name the playbook with --playbook FILE")
    if recorded is not None and recorded.sha256 != log.header.get("plan_sha256"):
        raise RecordError(f"{args.run} and the plan.json beside it are of different plans")
    result = prove(log, plan)
    changed = None if today is None or recorded is None else _plan_changes(recorded, today)
    other = today is not None and today.sha256 != log.header.get("plan_sha256")
    good = result.identical and not other and (changed is None or changed.same)
    if args.json:
        data = replay_to_json(result)
        data["plan"] = {"compared": today is not None, "same": not other and (changed is None or changed.same)}
        if changed is not None:
            data["plan"]["changes"] = comparison_to_json(changed)["changes"]
        out_json({**data, "summary": _told(result.summary)})
        return 0 if good else 1
    colour = in_colour(sys.stdout, args.env)
    parts = [replay_text(result, colour=colour)]
    if today is None:
        err(f"the plan was not made anew{why_not}")
    elif changed is not None and not changed.same:
        parts.append(f"the plan has changed since (plan_sha256 was {_sha(recorded)} and is {_sha(today)}):")
        parts.append(plan_change_text(changed, colour=colour))
    elif other:
        parts.append("the playbook makes another plan today; which steps changed cannot be told without the run's plan.json")
    out("\n".join([*parts, _run_text(result.summary, colour)]))
    return 0 if good else 1


def _sha(plan: Plan | None) -> str:
    return plan.sha256[:12] if plan is not None else "unknown"


def _told(summary: Any) -> dict[str, Any]:
    from playbook.engine import Result
    from playbook.report import run_to_json

    data = run_to_json(Result(summary.end or "error", 0, summary.reason), summary)
    del data["exit_code"], data["step"], data["failures"]
    return {**data, "end": summary.end}


def _run_text(summary: Any, colour: bool) -> str:
    from playbook.engine import Result
    from playbook.report import BOLD, paint, run_report

    end = Result(summary.end, 0, summary.reason) if summary.end else Result("error", 4, "the log has no end")
    return f"\n{paint('the run, as it was recorded', BOLD, colour=colour)}\n{run_report(end, summary, width=width(), colour=colour)}"


def there(path: Path) -> Path:
    if not path.exists():
        raise UsageError(f"there is no file or folder {path}")
    if path.is_dir() and not (path / "run.jsonl").exists():
        raise UsageError(f"{path} is not a run folder: it has no run.jsonl")
    return path


def recorded_plan(run: Path) -> Plan | None:
    """The plan that lies beside a log."""
    path = (run if run.is_dir() else run.parent) / "plan.json"
    return _read_plan(path) if path.exists() else None


def _read_plan(path: Path) -> Plan:
    try:
        return plan_from_json(json.loads(read_file(path, MAX_PLAN)))
    except (OSError, ValueError, RecursionError) as error:
        raise RecordError(f"{path} cannot be read as a plan: {error}") from error


def _today(args: Namespace, header: Mapping[str, Any], recorded: Plan | None) -> tuple[Plan | None, str]:
    """The plan that the playbook makes today; without one, why. A playbook that was named must be there and be right."""
    path = args.playbook or (recorded and Path(recorded.file)) or Path(str(header.get("file", "")))
    asked = args.playbook is not None
    if not path.is_file():
        if asked:
            raise UsageError(f"there is no file {path}", remedy=near_file(path))
        return None, f": the playbook {path} is not here" if path.name else ""
    if recorded is not None and any(_is_masked(step) for step in recorded.steps) and not (args.var or args.vars):
        return None, ": it holds secrets, and their values were not given"
    provider = args.provider or str(header.get("provider"))
    try:
        plan = compile_file(path, World.of(args.env), inputs(args), provider=provider)
    except AuthorError as error:
        if asked:
            raise
        return None, f": {path} cannot be compiled ({error.message})"
    for secret in plan.secrets:
        args.redact.add(secret)
    if asked and recorded is None and plan.name != header.get("playbook"):
        raise RecordError(f"{args.run} is a log of '{header.get('playbook')}', not of '{plan.name}'")
    return plan, ""


def _is_masked(step: Any) -> bool:
    from playbook.model import Say

    return isinstance(step.action, Say) and any(chunk.shown is not None for chunk in step.action.chunks)


def _plan_changes(before: Plan, after: Plan) -> Comparison:
    from playbook.record.diff import Tolerance, compare
    from playbook.record.performance import of_plan

    a, b = of_plan(before, before.name), of_plan(after, after.name)
    # Expected times depend on the machine (is the voice installed?) and are not part of the digest: only what was written counts.
    return compare(_timeless(a), _timeless(b), Tolerance())


def _timeless(performance: Performance) -> Performance:
    return replace(performance, acts=tuple(replace(act, times={}) for act in performance.acts))


# --- diff -----------------------------------------------------------------------------------------------------------------


def add_diff(parser: Parser) -> None:
    parser.add_argument("a", metavar="A", type=Path, help="a run folder, a run log, a plan.json or a playbook")
    parser.add_argument("b", metavar="B", type=Path, help="the other one")
    parser.add_argument("--tolerance", metavar="TIME|%", default="150ms", help="how far times may differ: 150ms, 0.2s, 10%% (150ms)")
    add_inputs(parser)
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a page with both timelines")
    parser.add_argument("--json", action="store_true", help="the comparison as JSON")


def diff(args: Namespace) -> int:
    from playbook.cli.compared import comparison_text, comparison_to_json
    from playbook.record.diff import compare, tolerance

    try:
        measure = tolerance(args.tolerance)
    except ValueError as error:
        raise UsageError(str(error)) from error
    writable(args.html)
    a, b = _performance(args, args.a), _performance(args, args.b)
    if a.planned and not b.planned:
        b = _plan_of(args.b)
    elif b.planned and not a.planned:
        a = _plan_of(args.a)
    comparison = compare(a, b, measure)
    if args.html is not None:
        from playbook.cli.pages import comparison_page

        write(args.html, comparison, lambda shown: comparison_page(shown, args.tolerance))
    if args.json:
        out_json(comparison_to_json(comparison))
    else:
        out(comparison_text(comparison, args.tolerance, width=width(), colour=in_colour(sys.stdout, args.env)))
    return 0 if comparison.same else 1


def _plan_of(run: Path) -> Performance:
    """What a run had to do, to be compared with a plan: what it did cannot be."""
    from playbook.record.performance import of_plan

    plan = recorded_plan(run)
    if plan is None:
        raise UsageError(f"there is no plan.json beside {run}, and a plan is compared with a plan", remedy="name a run folder that has one")
    return of_plan(plan, f"{run}, its plan")


def _performance(args: Namespace, path: Path) -> Performance:
    """Whatever a path leads to, as something that can be compared."""
    from playbook.record.performance import of_log, of_plan
    from playbook.record.runlog import read_log

    if path.suffix in (".yaml", ".yml") and path.is_file():
        return of_plan(compile_file(path, World.of(args.env), inputs(args), provider=args.provider), str(path))
    if path.suffix == ".json" and path.is_file() and not _begins_as_log(path):
        return of_plan(_read_plan(path), str(path))
    return of_log(read_log(there(path)), str(path))


def _begins_as_log(path: Path) -> bool:
    """Whether a file is a run log, whatever it is called."""
    try:
        with need_file(path).open("rb") as file:
            return file.read(100).replace(b" ", b"").startswith(b'{"runlog":')
    except OSError:
        return False


MAX_PLAN = 512 * 1024 * 1024
"""A `plan.json` that is larger is refused."""
COMMANDS = {"replay": Command(add_replay, replay), "diff": Command(add_diff, diff)}
