"""The verb `kiosk`: shows performed unattended, for ever; a rehearsal of a week; what a kiosk's log says."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import os
import signal
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook import clock as clocks
from playbook.cli.kiosk_words import summary, told
from playbook.cli.options import Command, Parser, err, in_colour, out, out_json, write
from playbook.controls.reader import lines
from playbook.errors import AuthorError, PlaybookError, Problem, UsageError
from playbook.kiosk.notify import unit
from playbook.kiosk.supervisor import CHILD, supervise

if TYPE_CHECKING:
    from playbook.kiosk.operation import Operation, Reload
    from playbook.kiosk.programme import Programme
    from playbook.perform.world import World

FROM = "2026-01-05T00:00"
"""A Monday."""


def add_kiosk(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", type=Path, help="a kiosk file")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where its log and its run folders are kept (kiosk/<name>)")
    parser.add_argument("--emulate", action="store_true", help="perform against the vendors' emulators, without a key")
    parser.add_argument("--clock", choices=("system", "virtual"), default="system", help="virtual: a week takes a minute")
    parser.add_argument("--from", metavar="DATE", help=f"virtual: when it begins, in the kiosk's zone ({FROM})")
    parser.add_argument("--for", metavar="TIME", type=_span, help="how long it goes on: 7d, 10m (for ever)")
    parser.add_argument("--trigger", metavar="NAME@DATE", action="append", help="rehearse a signal at a date")
    parser.add_argument(
        "--fault", metavar="NAME[:PROVIDER]@DATE+TIME", action="append", help="rehearse an outage or a quota that is used up"
    )
    parser.add_argument("--report", metavar="DIR", type=Path, help="sum up the days of a kiosk's folder, instead of running one")
    parser.add_argument("--html", metavar="PAGE", type=Path, help="with --report: the same as one page")
    parser.add_argument("--unit", action="store_true", help="print a systemd unit for the kiosk, instead of running it")
    parser.add_argument("--strict", action="store_true", help="warnings are errors")
    parser.add_argument("--json", action="store_true", help="the days as JSON; of a rehearsal also the entries of its log")


def kiosk(args: Namespace) -> int:
    if args.report is not None:
        return _report(args)
    if args.file is None:
        raise UsageError("no kiosk file is named", remedy="playbook kiosk FILE; `playbook new --kiosk FILE` writes one")
    if not args.file.exists():
        raise UsageError(f"there is no file {args.file}", remedy="`playbook new --kiosk FILE` writes one")
    in_process = args.clock == "virtual" or CHILD in args.env
    programme, world = _checked(args, quiet=CHILD in args.env)
    for secret in programme.secrets:
        args.redact.add(secret)
    if args.unit:
        out(unit(args.file, programme.kiosk.name).rstrip())
        return 0
    if args.clock == "virtual":
        return _rehearse(args, programme, world)
    if getattr(args, "from") is not None:
        raise UsageError("--from is for a rehearsal", remedy="add --clock virtual")
    if in_process:
        return _live(args, programme, world)
    argv = ["kiosk", str(args.file), *_passed_on(args)]
    return supervise(argv, args.env, lambda words: err(f"{_stamp()} {words}"))


# --- what is to be run ----------------------------------------------------------------------------------------------------


def _checked(args: Namespace, *, quiet: bool = False) -> tuple[Programme, World]:
    from playbook.perform.world import World
    from playbook.report import problems_text

    world = World.of(args.env)
    problems, programme = _check(args, world)
    if programme is None or (args.strict and problems):
        raise AuthorError(problems)
    if problems and not quiet:
        err(problems_text(problems, colour=in_colour(sys.stderr, args.env)) + "\n")
    return programme, world


def _check(args: Namespace, world: World) -> tuple[tuple[Problem, ...], Programme | None]:
    from playbook.kiosk.programme import check_kiosk
    from playbook.kiosk.silent import silent_world
    from playbook.language import Inputs
    from playbook.perform.world import variables

    return check_kiosk(args.file, world, silent_world(), Inputs(env=variables(args.env)))


def _reloads(args: Namespace, programme: Programme, world: World) -> Reload:
    """What gives the programme anew when a file of it has changed; of one that is wrong, the last good one with what
    is wrong."""
    state = {"seen": _seen(args.file, programme), "good": programme}

    def reload() -> tuple[list[str], Programme] | None:
        good: Any = state["good"]
        seen = _seen(args.file, good)
        if seen == state["seen"]:
            return None
        try:
            problems, found = _check(args, world)
        except (PlaybookError, OSError) as error:
            return [f"{args.file} cannot be read again: {error}; the last good one is kept"], good
        state["seen"] = seen
        if found is None or found.kiosk.zone != good.kiosk.zone or found.kiosk.name != good.kiosk.name:
            wrong = [f"{each.code}: {each.message}" for each in problems if each.severity == "error"]
            why = "; ".join(wrong[:3]) or "the name or the zone is another one: start it again"
            return [f"a file has changed and is wrong, so the last good one is kept: {why}"], good
        state.update(good=found, seen=_seen(args.file, found))
        for secret in found.secrets:
            args.redact.add(secret)
        return ["a file has changed: it is performed as it is now"], found

    return reload


def _seen(file: Path, programme: Programme) -> dict[str, tuple[int, int] | None]:
    """When each file of a programme was changed, and its size."""
    places = [step.place for plans in programme.plans.values() for plan in plans.values() for step in plan.steps]
    files = {str(file), *map(str, programme.kiosk.files), *(place.file for place in places if place is not None)}
    found: dict[str, tuple[int, int] | None] = {}
    for name in sorted(files):
        try:
            stat = os.stat(name)
            found[name] = (stat.st_mtime_ns, stat.st_size)
        except OSError:
            found[name] = None
    return found


def _passed_on(args: Namespace) -> Iterator[str]:
    """The options of the supervised process. Its environment has the others."""
    if args.out is not None:
        yield from ("--out", str(args.out))
    if args.emulate:
        yield "--emulate"
    if getattr(args, "for") is not None:
        ends = clocks.wall_time() + dt.timedelta(milliseconds=getattr(args, "for"))
        yield from ("--for", ends.isoformat())
    for name in ("trigger", "fault"):
        for value in getattr(args, name) or ():
            yield from (f"--{name}", value)


def _setting(args: Namespace, programme: Programme, folder: Path, **more: Any) -> Any:
    from playbook.kiosk.assemble import Setting
    from playbook.kiosk.dated import read_fault, read_signal

    zone = programme.kiosk.zone
    if args.fault and not args.emulate:
        raise UsageError("--fault is for emulated vendors", remedy="add --emulate")
    try:
        signals = [read_signal(text, zone) for text in args.trigger or ()]
        faults = [read_fault(text, zone) for text in args.fault or ()]
    except ValueError as error:
        raise UsageError(str(error)) from error
    return Setting(out=folder, env=args.env, emulate=args.emulate, signals=signals, faults=faults, redact=args.redact, **more)


# --- a rehearsal on the virtual clock -------------------------------------------------------------------------------------


def _rehearse(args: Namespace, programme: Programme, world: World) -> int:
    from playbook.kiosk.assemble import prepared
    from playbook.kiosk.dated import read_date
    from playbook.kiosk.keeping import IN_MEMORY
    from playbook.kiosk.programme import FREE
    from playbook.kiosk.proof import entries

    asked = [rung for rung in programme.kiosk.ladder if rung not in FREE]
    if asked and not args.emulate:
        raise UsageError(f"on the virtual clock nobody can reach {asked[0]}", remedy="add --emulate")
    if getattr(args, "for") is None:
        raise UsageError("a rehearsal needs an end", remedy="add --for 7d")
    try:
        begins = read_date(getattr(args, "from") or FROM, programme.kiosk.zone)
    except ValueError as error:
        raise UsageError(f"--from: {error}") from error
    lasts = dt.timedelta(milliseconds=getattr(args, "for"))
    with contextlib.ExitStack() as stack:
        in_memory = IN_MEMORY if IN_MEMORY.is_dir() else None
        folder = args.out or Path(stack.enter_context(tempfile.TemporaryDirectory(dir=in_memory)))
        if args.out is not None and (args.out / "kiosk.jsonl").exists():
            raise UsageError(f"{args.out} has the log of a kiosk", remedy="name a new folder")
        setting = _setting(args, programme, folder, forget=args.out is None, say=lambda _: None)

        async def main() -> int:
            async with prepared(programme, world, setting) as (operation, cause):
                await operation.run(begins + lasts, cause=cause)
                return operation.stand.open_sessions()

        left = clocks.run(main(), "virtual", begins)
        log = list(entries(folder))
    if args.json:
        from playbook.kiosk.days import days_of

        data = {"entries": log, "days": [day.to_json() for day in days_of(log)], "open_sessions": left}
        out_json(data)
    else:
        lines = [line for entry in log if (line := told(entry, idle=False))]
        out("\n".join([*lines, "", *summary(log), f"sessions that are still open: {left}"]))
    return 0 if left == 0 else 1


# --- on the system clock --------------------------------------------------------------------------------------------------


def _live(args: Namespace, programme: Programme, world: World) -> int:
    """Run it in this process, watched by the supervisor."""
    from playbook.kiosk.assemble import controlled, prepared

    folder = args.out or Path("kiosk") / programme.kiosk.name
    beats, ends = _pipes(args.env)
    setting = _setting(
        args,
        programme,
        folder,
        told=lambda entry: err(told(entry)),
        say=lambda words: err(f"{_stamp()} {words}"),
        beat=lambda: _beat(beats),
        reload=_reloads(args, programme, world),
    )
    until = None if getattr(args, "for") is None else clocks.wall_time() + dt.timedelta(milliseconds=getattr(args, "for"))

    async def main() -> int:
        async with prepared(programme, world, setting) as (operation, cause):
            at_terminal = sys.stdin.isatty()
            leftovers = asyncio.create_task(_end_leftovers(args, world, folder, setting.say))
            source = "keyboard" if at_terminal else "stdin"

            def take(name: str) -> None:
                if (reason := operation.offer(name, source=source)) is not None:
                    setting.say(f"the signal '{name}' is ignored: {reason}")

            given = lines(sys.stdin.fileno(), take, lambda: None, terminal=at_terminal)  # its end is no reason to stop
            with _stopped_by_signals(operation) as code, given:
                if ends is not None:
                    asyncio.get_running_loop().add_reader(ends, operation.stop, "the supervisor has ended")
                async with controlled(operation, setting, args.file):
                    await operation.run(until, cause=cause)
            await leftovers
            return code()

    return clocks.run(main())


async def _end_leftovers(args: Namespace, world: World, folder: Path, say: Callable[[str], None]) -> None:
    """End the sessions that an earlier process of this kiosk left open when it was killed."""
    if args.emulate:
        return
    from playbook.cli.sessions import end_one
    from playbook.journal.journal import Journal, state_folder

    try:
        journal = Journal(state_folder(args.env), redact=args.redact)
        known = journal.open_sessions()
    except PlaybookError as error:
        say(f"the journal of sessions cannot be read: {error.message}")
        return
    named = {record.session for record in known}
    for record in [each for each in known if each.alive is False and _is_in(each.folder, folder)]:
        try:
            what = await end_one(record, world, args.env, named)
            journal.ended(record.key, what)
            say(f"{record.provider} {record.session or record.key}, left open when the kiosk was killed: {what}")
        except PlaybookError as error:
            say(f"{record.provider} {record.session or record.key} was left open, and cannot be ended: {error.message}")


def _is_in(inner: Path | None, outer: Path) -> bool:
    return inner is not None and inner.resolve().is_relative_to(outer.resolve())


def _pipes(env: Mapping[str, str]) -> tuple[int | None, int | None]:
    """The supervisor's pipes."""
    if CHILD not in env:
        return None, None
    beats, _, ends = env[CHILD].partition(",")
    os.set_blocking(int(beats), False)
    return int(beats), int(ends)


def _beat(pipe: int | None) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):
            os.write(pipe, b".")


@contextlib.contextmanager
def _stopped_by_signals(operation: Operation) -> Iterator[Callable[[], int]]:
    """SIGINT, SIGTERM and SIGHUP stop the kiosk in order; gives what the exit code is then."""
    loop, caught = asyncio.get_running_loop(), []

    def stop(number: signal.Signals) -> None:
        caught.append(number)
        operation.stop(number.name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, stop, number)
    try:
        yield lambda: 0 if not caught else 130 if caught[0] == signal.SIGINT else 143
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


def _report(args: Namespace) -> int:
    from playbook.kiosk.days import days_of
    from playbook.kiosk.proof import entries

    log = list(entries(args.report))
    if args.html is not None:
        from playbook.kiosk.page import page

        write(args.html, log, page)
    if args.json:
        out_json([day.to_json() for day in days_of(log)])
    elif args.html is None:
        out("\n".join(summary(log)))
    return 0


def _stamp() -> str:
    return clocks.wall_time().isoformat(timespec="milliseconds")


def _span(text: str) -> int:
    """A time, or the date until which it goes on."""
    from playbook.kiosk.dated import read_span

    with contextlib.suppress(ValueError):
        left = dt.datetime.fromisoformat(text) - clocks.wall_time()
        return max(0, round(left.total_seconds() * 1000))
    try:
        return read_span(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


COMMANDS = {"kiosk": Command(add_kiosk, kiosk)}
