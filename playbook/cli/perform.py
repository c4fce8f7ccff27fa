"""The verbs that reach the world: `run`, `sessions`, `emulate`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import inspect
import json
import os
import shutil
import signal
import sys
import traceback
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook import clock as clocks
from playbook.cli.author import add_inputs, credentials, load
from playbook.cli.options import Command, Parser, cue, err, in_colour, is_live, name_and_value, out
from playbook.emulators import EMULATORS, rehearsal
from playbook.emulators import need as need_emulator
from playbook.errors import PlaybookError, SetupError, UsageError
from playbook.language import show_duration
from playbook.model import Plan
from playbook.providers.base import SETTLED_S, EndsSessions, FindsSessions, ListsSessions, SessionRecord
from playbook.sessions import Journal, state_folder
from playbook.world import World, cache_folder

if TYPE_CHECKING:
    from playbook.emulators.base import Emulator
    from playbook.providers.base import Provider
    from playbook.runner import Outcome, Runner
    from playbook.transports.cassette import Cassette, Mode

RECORD_MODES = ("once", "new_episodes", "none", "all")


# --- run ------------------------------------------------------------------------------------------------------------------


def add_run(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="a playbook")
    add_inputs(parser)
    parser.add_argument("--clock", choices=("system", "virtual"), default="system", help="virtual: an hour takes a moment")
    parser.add_argument("--out", metavar="DIR", type=Path, help="the run folder, new or empty (runs/<time>-<name>)")
    parser.add_argument("--trigger", metavar="NAME@TIME", action="append", type=cue, help="give a trigger at a time of the show")
    parser.add_argument("--triggers", metavar="-", choices=("-",), help="read triggers from standard input, one name a line")
    parser.add_argument("--emulate", action="store_true", help="perform it against the provider's emulator, without a key")
    parser.add_argument("--fault", metavar="NAME[@STEP]", action="append", help="let the emulator fail in this way")
    parser.add_argument("--record", metavar="FILE", type=Path, help="record what the provider answers on a cassette")
    parser.add_argument("--record-mode", choices=RECORD_MODES, default="all", help="what to do with a cassette that exists (all: anew)")
    parser.add_argument("--record-expires", metavar="DATE", type=_date, help="from this day on the cassette is no longer believed")
    parser.add_argument("--from-cassette", metavar="FILE", type=Path, help="perform it against a cassette, without network or key")
    parser.add_argument("--json", action="store_true", help="the outcome as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress, and only the last words of the report")


def run(args: Namespace) -> int:
    with _ends_in_order():
        return _run(args)


def _run(args: Namespace) -> int:
    world = World(cache_folder(args.env))
    plan = load(args, args.file, world)
    if args.fault and not args.emulate:
        raise UsageError("--fault is for emulated runs", remedy="add --emulate")
    cassette = _cassette(plan, args)
    at_terminal = sys.stdin is not None and sys.stdin.isatty() and not args.triggers and args.clock == "system"
    billed = not args.emulate and (cassette is None or cassette.recording)
    journal = state_folder(args.env) if billed else None
    runner: Runner | None = None
    if journal is not None and plan.provider != "local":
        _remind(journal)

    async def perform() -> Outcome:
        nonlocal runner
        from playbook.runner import Options, Runner

        asyncio.get_running_loop().set_exception_handler(lambda _, context: _aside(context, args, runner))
        async with rehearsal(plan, args.env, args.fault or ()) if args.emulate else _nothing(args.env) as (env, extras):
            with _progress(plan, args, interactive=at_terminal) as (watch, started):
                provider = world.provider(plan.provider)
                options = Options(
                    folder=args.out,
                    env=env if cassette is None or cassette.recording else _let_in(env, provider),
                    state_dir=journal,
                    cues=args.trigger or (),
                    interactive=at_terminal or bool(args.triggers),
                    watch=watch,
                    extras=extras if cassette is None else cassette.extras(extras),
                    provider=provider,
                )
                runner = Runner(plan, options)
                if cassette is not None:
                    cassette.redact = runner.redact
                started(clocks.Clock().now_ms)
                with cassette or contextlib.nullcontext(), _triggers(runner, at_terminal=at_terminal, to_the_end=bool(args.triggers)):
                    return await runner.run()

    try:
        outcome = clocks.run(perform(), args.clock)
        code = outcome.result.exit_code
        try:
            _show(outcome, args)
        except SetupError:  # standard output is full: no reason to forget how the run went
            if code == 0:
                raise
        return code
    finally:
        if runner is not None:
            args.redact.absorb(runner.redact)
            if journal is not None and runner.folder is not None:
                run, pid = runner.folder.name, os.getpid()
                args.last_words += left_open(journal, lambda record: (record.run, record.pid) == (run, pid))


@contextlib.contextmanager
def _ends_in_order() -> Iterator[None]:
    """Until the runner listens to signals itself, they end the process like Ctrl-C does. (A SIGHUP that is ignored is `nohup`'s.)"""

    def leave(*_: object) -> None:
        raise SystemExit(143)

    before: dict[int, Any] = {}
    for number in (getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)):
        with contextlib.suppress(ValueError):  # not in the main thread
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _remind(journal: Path) -> None:
    """What earlier runs have left behind is said before another one begins. (A journal that cannot be read is said when it is needed.)"""
    now = clocks.wall_time()
    with contextlib.suppress(PlaybookError):
        left = [record for record in Journal(journal).open_sessions() if record.alive is False]
        if n := sum(record.ends_by is None or record.ends_by > now for record in left):
            what = "a session of a run that died may" if n == 1 else f"{n} sessions of runs that died may"
            err(f"note: {what} still be open, and billed; `playbook sessions end --all` ends what can be ended")


def _aside(context: Mapping[str, Any], args: Namespace, runner: Runner | None) -> None:
    """An error that belongs to no step (a library's, in the background) is told, without secrets, and does not stop the show."""
    error = context.get("exception")
    text = "".join(traceback.format_exception(error)).rstrip() if error is not None else str(context.get("message"))
    err(args.redact(text if runner is None else runner.redact(text)))


def _show(outcome: Outcome, args: Namespace) -> None:
    from playbook.report import count, run_report, run_to_json, verdict

    folder = str(outcome.folder)
    if args.json:
        data = {"folder": folder, **run_to_json(outcome.result, outcome.summary, outcome.failures)}
        out(args.redact(json.dumps(data, ensure_ascii=False, indent=1)))
        if outcome.result.exit_code:
            err(args.redact(verdict(outcome.result)))
    elif args.quiet:
        lines = count(len(outcome.summary.utterances), "line")
        out(args.redact(f"{verdict(outcome.result)}; {lines}; {folder}"))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        colour = in_colour(sys.stdout, args.env)
        if sys.stdout.isatty() and sys.stderr.isatty():
            out("")
        text = run_report(outcome.result, outcome.summary, outcome.failures, width=width, colour=colour)
        out(args.redact(f"{text}\n{folder}"))


def left_open(journal: Path, ours: Callable[[SessionRecord], bool]) -> list[str]:
    """When sessions of a run are still open, the last line on the screen is the command that ends them."""
    try:
        left = [record for record in Journal(journal).open_sessions() if ours(record)]
    except PlaybookError as error:
        return [f"error: {error.message}\n  whether a session of this run is still open cannot be told; see `playbook sessions`"]
    named = [record for record in left if record.session is not None]
    lines = [
        f"a session may have been created at {record.provider}; nobody saw its id. Look for it, and end it, with:\n"
        f"playbook sessions end {record.key}"
        for record in left
        if record.session is None
    ]
    if len(named) == 1:
        lines.append(f"a session at {named[0].provider} is still open, and billed. End it with:\nplaybook sessions end {named[0].session}")
    elif named:
        ids = " ".join(str(record.session) for record in named)
        lines.append(f"{len(named)} sessions are still open, and billed. End them with:\nplaybook sessions end {ids}")
    return lines


@contextlib.contextmanager
def _progress(
    plan: Plan, args: Namespace, *, interactive: bool
) -> Iterator[tuple[Callable[[dict[str, Any]], None] | None, Callable[[Callable[[], int]], None]]]:
    """What watches the log, and what is told the run's time."""
    if args.quiet:
        yield None, lambda _: None
        return
    from playbook.cli.progress import Progress

    live = is_live(sys.stderr, args.env) and args.clock == "system"
    colour = in_colour(sys.stderr, args.env)
    with Progress(plan, sys.stderr, live=live, colour=colour, interactive=interactive, redact=args.redact) as progress:
        yield progress.watch, lambda now_ms: setattr(progress, "now_ms", now_ms)


# triggers


@contextlib.contextmanager
def _triggers(runner: Runner, *, at_terminal: bool, to_the_end: bool) -> Iterator[None]:
    """Standard input gives triggers: a line is a trigger's name, an empty one is `go`."""
    if not (at_terminal or to_the_end):
        yield
        return
    loop, number, rest = asyncio.get_running_loop(), sys.stdin.fileno(), b""

    def read() -> None:
        nonlocal rest
        lost = False
        try:
            if at_terminal and os.tcgetpgrp(number) != os.getpgrp():  # in the background, reading would suspend us
                loop.remove_reader(number)
                loop.call_later(1.0, listen)
                return
            data = os.read(number, 4096)
        except BlockingIOError:
            return
        except OSError:  # the terminal is lost
            data, lost = b"", True
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            runner.trigger(line.decode("utf-8", "replace").strip() or "go")
        if not data:
            stop()
            if to_the_end or lost:
                runner.no_more_triggers()

    def listen() -> None:
        try:
            loop.add_reader(number, read)
        except PermissionError:  # a plain file is always ready, and epoll does not take it
            for line in sys.stdin:
                runner.trigger(line.strip() or "go")
            runner.no_more_triggers()

    def stop() -> None:
        loop.remove_reader(number)

    loop.call_soon(listen)
    try:
        yield
    finally:
        stop()


# what stands in for the vendor


@contextlib.asynccontextmanager
async def _nothing(env: Mapping[str, str]) -> AsyncIterator[tuple[Mapping[str, str], Mapping[str, Any]]]:
    yield env, {}


def _cassette(plan: Plan, args: Namespace) -> Cassette | None:
    """The cassette to record on or to play from, if there is one."""
    if args.record and args.from_cassette:
        raise UsageError("--record and --from-cassette exclude each other", remedy="--record-mode new_episodes plays and records")
    path = args.record or args.from_cassette
    if path is None:
        return None
    if plan.provider == "local":
        raise UsageError("the local provider has nothing to record", remedy="a cassette holds what a vendor answered")
    from playbook.transports.cassette import Cassette

    mode: Mode = args.record_mode if args.record else "none"
    return Cassette(path, mode, provider=plan.provider, playbook=plan.name, expires=args.record_expires)


def _let_in(env: Mapping[str, str], provider: Provider | None) -> Mapping[str, str]:
    """An environment for a run that reaches nobody: where there is no credential, something that looks like one."""
    groups = [list(group) for group in credentials(provider)] if provider is not None else []
    if not groups or any(all(env.get(name) for name in group) for group in groups):
        return env
    simplest = min(groups, key=len)
    return {**env, **dict.fromkeys(simplest, "from-a-cassette")}


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no date; write 2027-01-31") from error


# --- emulate ----------------------------------------------------------------------------------------------------------------


def add_emulate(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(EMULATORS)}")
    parser.add_argument("--port", metavar="N", type=int, default=0, help="the port to listen on, on this machine alone (any free one)")
    parser.add_argument("--fault", metavar="NAME[@WHICH]", action="append", help="fail in this way")
    parser.add_argument("--option", metavar="NAME=VALUE", action="append", type=name_and_value, help="a setting of this emulator")
    parser.add_argument("--json", action="store_true", help="the address and the environment as one line of JSON")


def emulate(args: Namespace) -> int:
    from playbook.emulators.base import CONTROL, serve_forever

    kind = need_emulator(args.name)
    emulator = kind(faults=args.fault or (), **_options(kind, args.option or ()))

    def ready(url: str) -> None:
        env = emulator.environment()
        if args.json:
            out(json.dumps({"url": url, "env": dict(env)}))
            return
        out(f"{args.name} is emulated at {url}; what goes on is told at {url}{CONTROL}/; Ctrl-C ends it")
        out("\n".join(f"  export {name}={value}" for name, value in env.items()))

    serve_forever(emulator, port=args.port, ready=ready)
    return 0


def _options(kind: type[Emulator], given: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Settings of an emulator: whatever its constructor takes by name. Values are JSON where they can be, else text."""
    known = [name for name, item in inspect.signature(kind).parameters.items() if item.kind is item.KEYWORD_ONLY and name != "faults"]
    options: dict[str, Any] = {}
    for name, text in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has {', '.join(known)}"
            raise UsageError(f"the emulator has no option '{name}'", remedy=hint)
        try:
            options[name] = json.loads(text)
        except ValueError:
            options[name] = text
    return options


# --- sessions ---------------------------------------------------------------------------------------------------------------


def add_sessions(parser: Parser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "end", "forget", "reconcile"), default="list", help="what to do (list)")
    parser.add_argument("ids", metavar="ID", nargs="*", help="the ids of sessions, as `list` shows them")
    parser.add_argument("--all", action="store_true", help="end all that are open, also those of runs that still go on")
    parser.add_argument(
        "--provider", metavar="NAME", help="end: where the session is, if the journal does not know it; reconcile: ask this one"
    )
    parser.add_argument("--json", action="store_true", help="the list as JSON")


def sessions(args: Namespace) -> int:
    journal = Journal(state_folder(args.env), redact=args.redact)
    if args.action in ("list", "reconcile") and args.ids:
        raise UsageError(f"`sessions {args.action}` takes no id")
    if args.action == "forget" and not args.ids:
        raise UsageError("which session?", remedy="playbook sessions forget ID")
    if args.action == "end" and bool(args.ids) == args.all:
        raise UsageError("which session?", remedy="playbook sessions end ID, or playbook sessions end --all")
    return {"list": _list, "end": _end, "forget": _forget, "reconcile": _reconcile}[args.action](args, journal)


def _list(args: Namespace, journal: Journal) -> int:
    records = journal.open_sessions()
    now = clocks.wall_time()
    if args.json:
        data = [
            {
                "session": record.session,
                "key": record.key,
                "provider": record.provider,
                "playbook": record.playbook,
                "run": record.run,
                "pid": record.pid,
                "running": record.alive,
                "since": record.since.isoformat(timespec="seconds"),
                "ends_by": None if record.ends_by is None else record.ends_by.isoformat(timespec="seconds"),
                "rule": record.rule or None,
                "estimated_cost": record.cost(now),
            }
            for record in records
        ]
        out(json.dumps(data, ensure_ascii=False, indent=1))
        return 0
    if not records:
        out("no session is open")
        return 0
    from playbook.report import one_line, table

    rows = []
    for record in records:
        age = show_duration(max(0, int((now - record.since).total_seconds())) * 1000)
        cost = record.cost(now)
        whose = {True: f"runs, pid {record.pid}", False: f"pid {record.pid} is gone", None: "another machine's"}[record.alive]
        until = "" if record.ends_by is None else f"{record.ends_by:%Y-%m-%d %H:%M}" + (" (past)" if record.ends_by < now else "")
        rows.append(
            [
                record.session or f"unknown ({record.key})",
                record.provider,
                f"{record.since:%Y-%m-%d %H:%M} ({age})",
                "?" if cost is None else f"{cost:.2f}",
                until or "?",
                whose,
                one_line(f"{record.playbook}, {record.run}"),
            ]
        )
    out(
        args.redact(
            table(
                ["session", "provider", "since (UTC)", "cost", "over by (UTC)", "process", "playbook, run"],
                rows,
                colour=in_colour(sys.stdout, args.env),
            )
        )
    )
    for record in records:
        if record.session is None and record.rule:
            out(args.redact(f"{record.key}: nobody saw its id, so nobody can have joined it. {record.rule}."))
    return 0


def _end(args: Namespace, journal: Journal) -> int:
    records = known = journal.open_sessions()
    if not args.all:
        wanted: list[SessionRecord] = []
        for id in args.ids:
            found = [record for record in known if id in (record.session, record.key)]
            if not found and args.provider:
                found = [_stranger(id, args.provider)]
            if not found:
                hint = "`playbook sessions` lists them; give --provider to end one that it does not know"
                err(f"error: the journal has no open session '{id}'\n  {hint}")
                return 5
            wanted += found
        records = wanted
    if not records:
        out("no session is open")
        return 0
    world, failed, ours = World(), 0, {record.key for record in known}
    named = {record.session for record in known}
    for record in records:
        try:
            what = clocks.run(_end_one(record, world, args.env, named))
            out(f"{record.provider} {record.session or record.key}: {what}")
            if record.key in ours:
                journal.ended(record.key, what)
        except PlaybookError as error:
            failed += 1
            err(
                args.redact(
                    f"error: {record.provider} {record.session or record.key}: {error.message}"
                    + (f"\n  {error.remedy}" if error.remedy else "")
                )
            )
    return 4 if failed else 0


async def _end_one(record: SessionRecord, world: World, env: Mapping[str, str], known: Collection[str | None]) -> str:
    """End one, and say what became of it."""
    try:
        provider = world.provider(record.provider)
        if provider is None:
            raise SetupError(f"the provider '{record.provider}' is not installed")
        if not isinstance(provider, EndsSessions):
            raise SetupError(f"the provider '{record.provider}' cannot end a session of another process")
        if record.session is None:
            return await _end_unnamed(record, provider, env, known)
        await provider.end_session(record, env)
    except PlaybookError:
        if record.session is None and record.ends_by is not None and record.ends_by < clocks.wall_time():
            return f"over: {record.rule}" if record.rule else "over by the vendor's own limit"
        raise
    return "ended"


async def _end_unnamed(record: SessionRecord, provider: EndsSessions, env: Mapping[str, str], known: Collection[str | None]) -> str:
    """End a session whose id nobody saw, if it can be found. What may be somebody else's is never touched; what the vendor does not list is
    taken for over (or never created) when nobody can be creating it any more."""
    forget = f"`playbook sessions forget {record.key}` takes it off the list"
    until = "" if record.ends_by is None else f"it is over by {record.ends_by:%Y-%m-%d %H:%M} UTC"
    if record.rule and until:
        until = f"nobody can have joined it; {until} ({record.rule})"
    if not isinstance(provider, FindsSessions):
        raise SetupError(
            f"the answer that named it was never seen, and {record.provider} cannot be asked for it, so it cannot be ended from here",
            remedy=f"{until or 'the vendor alone can tell when it is over'}; {forget}",
        )
    search = await provider.find_session(record, env)
    if search.is_it is not None:
        await provider.end_session(replace(record, session=search.is_it), env)
        return f"found as {search.is_it}, and ended"
    if may_be := [found for found in search.may_be if found.session not in known]:
        each = "; ".join(
            f"{found.session} ({found.name or 'without a name'}" + (f", since {found.since:%H:%M:%S} UTC)" if found.since else ")")
            for found in may_be
        )
        raise SetupError(
            f"nobody saw its id, and its name is not its own; this may be it, or somebody else's: {each}",
            remedy=f"`playbook sessions end ID --provider {record.provider}` ends what you know to be yours; {until or forget}",
        )
    settled = record.since + datetime.timedelta(seconds=SETTLED_S)
    if record.alive is False and clocks.wall_time() >= settled:
        return f"never created, or over: {record.provider} does not list it"
    if record.alive is False:
        when = f"ask again after {settled:%H:%M:%S} UTC"
    else:
        when = "stop the run first" if record.alive else f"ask again on the machine that runs it; {until or forget}"
    raise SetupError(f"{record.provider} does not list it, but may still be creating it", remedy=when)


def _stranger(id: str, provider: str) -> SessionRecord:
    """A session that is not in the journal."""
    return SessionRecord(key=id, provider=provider, session=id, playbook="", run="", pid=0, alive=None, since=clocks.wall_time())


def _forget(args: Namespace, journal: Journal) -> int:
    missing = 0
    for id in args.ids:
        forgotten = journal.forget(id)
        missing += not forgotten
        if forgotten:
            out(f"{forgotten[0].provider} {id}: forgotten, not ended")
        else:
            err(f"error: the journal has no open session '{id}'\n  `playbook sessions` lists them")
    return 5 if missing else 0


def _reconcile(args: Namespace, journal: Journal) -> int:
    """Compare the journal with what the vendors say. Changes nothing: other credentials would show other sessions."""
    world = World()
    names = [args.provider] if args.provider else list(world.providers())
    asked, differences = [], []
    for name in names:
        provider = world.provider(name)
        if provider is None:
            raise UsageError(f"there is no provider '{name}'", remedy=f"there are {', '.join(world.providers())}")
        if not isinstance(provider, ListsSessions):
            if args.provider:
                raise SetupError(f"{name} does not tell which sessions are open")
            continue
        if not args.provider and not any(all(args.env.get(variable) for variable in group) for group in credentials(provider)):
            continue
        asked.append(name)
        open_there = {found.session: found for found in clocks.run(provider.list_sessions(args.env))}
        records = [record for record in journal.open_sessions() if record.provider == name]
        ours = {record.session for record in records if record.session}
        marks = {record.mark: record.key for record in records if record.session is None and record.mark}
        for id in open_there.keys() - ours:
            since = open_there[id].since
            facts = [open_there[id].name] if open_there[id].name else []
            facts += [f"since {since:%Y-%m-%d %H:%M} UTC"] if since is not None else []
            told = f" ({', '.join(facts)})" if facts else ""
            what, end = "open, but not in the journal", f"{id} --provider {name}"
            if (key := next((key for mark, key in marks.items() if mark in open_there[id].name), None)) is not None:
                what, end = f"it is the journal's {key}, whose id nobody saw", key
            differences.append(f"{name} {id}{told}: {what}; end it with `playbook sessions end {end}`")
        for id in ours - open_there.keys():
            differences.append(f"{name} {id}: in the journal, but not open there; `playbook sessions end {id}` takes it off the list")
    if not asked:
        err("error: nobody to ask: no provider with credentials here tells which sessions are open")
        return 5
    if args.json:
        out(json.dumps({"asked": asked, "differences": sorted(differences)}, ensure_ascii=False, indent=1))
    else:
        out("\n".join(sorted(differences)) or f"the journal agrees with {', '.join(asked)}")
    return 1 if differences else 0


COMMANDS = {
    "run": Command(add_run, run),
    "sessions": Command(add_sessions, sessions),
    "emulate": Command(add_emulate, emulate),
}
