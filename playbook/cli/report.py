"""The verb `report`: a run's report again, or its page; of a playbook, the picture of its plan."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from playbook.cli.inputs import add_inputs, load
from playbook.cli.options import Command, Parser, in_colour, out, out_json, width, writable, write
from playbook.cli.prove import recorded_plan, there
from playbook.errors import UsageError
from playbook.perform.world import World


def add_report(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder, or a playbook")
    add_inputs(parser)
    parser.add_argument("--html", metavar="FILE", type=Path, help="write it as one page that needs no network")
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def report(args: Namespace) -> int:
    """Print it, or write its page."""
    writable(args.html)
    if args.run.suffix in (".yaml", ".yml"):
        return _of_plan(args)
    return _of_run(args)


def _of_plan(args: Namespace) -> int:
    from playbook.cli.lanes import of_plan, page

    plan = load(args, args.run, World.of(args.env))
    if args.html is None:
        raise UsageError("the report of a playbook is a page", remedy="add --html FILE, or see `playbook plan`")
    write(args.html, of_plan(plan), page)
    return 0


def _of_run(args: Namespace) -> int:
    from playbook.cli.lanes import of_run, page
    from playbook.engine import Result
    from playbook.errors import RecordError
    from playbook.record.runlog import Line, read_log
    from playbook.record.summary import RunSummary
    from playbook.report import describe, run_report, run_to_json

    log, plan = read_log(there(args.run)), recorded_plan(args.run)
    summary, lines = RunSummary(), list[Line]()
    try:
        for line in log:
            summary.take(line)
            if args.html is not None:
                lines.append(line)
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{args.run} has a line that is not one of a run log: {type(error).__name__} {error}") from error
    summary.finish()
    folder = args.run if args.run.is_dir() else args.run.parent
    if args.html is not None:
        write(args.html, of_run(folder, log.header, lines, summary, plan), page)
        return 0
    exit_codes = {"passed": 0, "failed": 1, "stopped": 130}
    end = summary.end or "error"
    result = Result(end, exit_codes.get(end, 4), summary.reason if summary.end else "the log was cut off")  # type: ignore[arg-type]  # read
    if args.json:
        out_json({"folder": str(folder), **run_to_json(result, summary)})
        return 0
    sounds = {} if plan is None else {step.id: describe(step) for step in plan.steps if step.verb == "audio-echo"}
    text = run_report(result, summary, sounds=sounds, width=width(), colour=in_colour(sys.stdout, args.env))
    out(f"{text}\n{folder}")
    return 0


COMMANDS = {"report": Command(add_report, report)}
