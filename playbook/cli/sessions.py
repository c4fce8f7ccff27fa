"""The verb `sessions`: what the journal says is open, and how it is ended."""

from __future__ import annotations

import contextlib
import datetime
import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from playbook import clock as clocks
from playbook.cli.options import Command, Parser, err, in_colour, out, out_json
from playbook.errors import PlaybookError, SetupError, UsageError
from playbook.folders import withdraw
from playbook.formats.durations import show_duration
from playbook.journal.journal import Journal, state_folder
from playbook.perform.world import World
from playbook.ports import SETTLED_S, SessionRecord
from playbook.providers.base import EndsSessions, FindsSessions, ListsSessions
from playbook.providers.registry import credentials
from playbook.transports.factory import transports_for


class NoSuchSession(PlaybookError):
    """The journal does not know it, or it is over."""

    exit_code = 5

    def __init__(self, id: str) -> None:
        remedy = "`playbook sessions` lists them; give --provider to end one that it does not know"
        super().__init__(f"the journal has no open session '{id}'", remedy=remedy)


def add_sessions(parser: Parser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "end", "forget", "reconcile"), default="list", help="what to do (list)")
    parser.add_argument("ids", metavar="ID", nargs="*", help="the ids of sessions, as `list` shows them")
    parser.add_argument("--all", action="store_true", help="end all that are open, also those of runs that still go on")
    parser.add_argument("--gone", action="store_true", help="end those whose run is over, wherever it ran")
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
    if args.action == "end" and bool(args.ids) + args.all + args.gone != 1:
        raise UsageError("which session?", remedy="playbook sessions end ID, or --gone (whose run is over), or --all")
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
                "host": record.host or None,
                "running": record.alive,
                "creating": record.creating,
                "since": record.since.isoformat(timespec="seconds"),
                "ends_by": None if record.ends_by is None else record.ends_by.isoformat(timespec="seconds"),
                "rule": record.rule or None,
                "estimated_cost": record.cost(now),
            }
            for record in records
        ]
        out_json(data)
        return 0
    if not records:
        out("no session is open")
        return 0
    from playbook.report import one_line, table

    rows = []
    for record in records:
        age = show_duration(max(0, int((now - record.since).total_seconds())) * 1000)
        cost = record.cost(now)
        where = f"pid {record.pid}" + (f" on {record.host}" if record.host else "")
        whose = {True: f"runs, {where}", False: f"{where} is gone", None: f"not known, {where}"}[record.alive]
        until = "" if record.ends_by is None else f"{record.ends_by:%Y-%m-%d %H:%M}" + (" (past)" if record.ends_by < now else "")
        rows.append(
            [
                record.session or f"{'being created' if record.creating else 'unknown'} ({record.key})",
                record.provider,
                f"{record.since:%Y-%m-%d %H:%M} ({age})",
                "?" if cost is None else f"{cost:.2f}",
                until or "?",
                whose,
                one_line(f"{record.playbook}, {record.run}"),
            ]
        )
    out(
        table(
            ["session", "provider", "since (UTC)", "cost", "over by (UTC)", "process", "playbook, run"],
            rows,
            colour=in_colour(sys.stdout, args.env),
        )
    )
    for record in records:
        if record.session is None and record.rule and not record.creating:
            out(f"{record.key}: nobody saw its id, so nobody can have joined it. {record.rule}.")
    return 0


def _end(args: Namespace, journal: Journal) -> int:
    known = journal.open_sessions()
    records = _chosen(args, known)
    if any(record.creating for record in records):
        err("waiting for the vendor's answer to what is being created")
        journal.wait_for_witnesses()
        known = journal.open_sessions()
        still = {record.key: record for record in known}
        records = [still.get(record.key, record) for record in records if record.key in still or not record.creating]
    if args.gone:
        _name_the_rest(known)
    if not records:
        out("no session is open" if not known else "no session is open whose run is over")
        return 0
    world, failed, ours = World(), 0, {record.key for record in known}
    named = {record.session for record in known}
    bugs: list[Exception] = []
    for record in records:
        try:
            what = clocks.run(end_one(record, world, args.env, named))
            if record.key in ours:
                journal.ended(record.key, what)
                if record.folder is not None:
                    withdraw(record.folder)
            out(f"{record.provider} {record.session or record.key}: {what}")
        except PlaybookError as error:
            failed += 1
            err(
                f"error: {record.provider} {record.session or record.key}: {error.message}"
                + (f"\n  {error.remedy}" if error.remedy else "")
                + (f"\n  `playbook sessions forget {record.session}` takes it off the list, if it is surely over" if record.session else "")
            )
        except Exception as error:  # one that cannot be ended must not keep the others open
            bugs.append(error)
            err(f"error: {record.provider} {record.session or record.key}: internal error; its traceback follows at the end")
    if bugs:
        raise bugs[0]
    return 4 if failed else 0


def _name_the_rest(known: list[SessionRecord]) -> None:
    """What `--gone` does not end although it may have to be ended: the runs of other machines, and those of which nobody can know."""
    for record in known:
        if record.alive is None or (record.alive and record.host):
            id = record.session or record.key
            what = "still holds its lock" if record.alive else "may go on, which cannot be known from here"
            on = f" on {record.host}" if record.host else ""
            err(f"note: {record.provider} {id} is left open: its run{on} {what}; `playbook sessions end {id}` ends it")


def _chosen(args: Namespace, known: list[SessionRecord]) -> list[SessionRecord]:
    """Which sessions are to be ended. Raises `NoSuchSession`."""
    if args.all:
        return known
    if args.gone:
        return [record for record in known if record.alive is False]
    chosen: list[SessionRecord] = []
    for id in args.ids:
        found = [record for record in known if id in (record.session, record.key)]
        if not found and args.provider:
            found = [_stranger(id, args.provider)]
        if not found:
            raise NoSuchSession(id)
        chosen += found
    return chosen


async def end_one(record: SessionRecord, world: World, env: Mapping[str, str], known: Collection[str | None]) -> str:
    """End one, and say what became of it."""
    try:
        provider = world.provider(record.provider)
        if provider is None:
            raise SetupError(f"the provider '{record.provider}' is not installed")
        if not isinstance(provider, EndsSessions):
            raise SetupError(f"the provider '{record.provider}' cannot end a session of another process")
        if record.session is None:
            return await _end_unnamed(record, provider, env, known)
        await provider.end_session(record, env, transports_for(record.provider, env))
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
    if record.creating:
        remedy = "the process that waits for it may be suspended; ask again when it is continued or has been ended"
        raise SetupError("it is still being created", remedy=remedy)
    if not isinstance(provider, FindsSessions):
        raise SetupError(
            f"the answer that named it was never seen, and {record.provider} cannot be asked for it, so it cannot be ended from here",
            remedy=f"{until or 'the vendor alone can tell when it is over'}; {forget}",
        )
    transports = transports_for(record.provider, env)
    search = await provider.find_session(record, env, transports)
    if search.is_it is not None:
        await provider.end_session(replace(record, session=search.is_it), env, transports)
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
    asked, differences, both = [], [], set[str]()
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
        listed = provider.list_sessions(args.env, transports_for(name, args.env, "system"))
        open_there = {found.session: found for found in clocks.run(listed)}
        records = [record for record in journal.open_sessions() if record.provider == name]
        ours = {record.session for record in records if record.session}
        marks = {record.mark: record.key for record in records if record.session is None and record.mark}
        both |= open_there.keys() & ours
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
        out_json({"asked": asked, "differences": sorted(differences)})
    elif differences:
        out("\n".join(sorted(differences)))
    else:
        out(f"the journal agrees with {', '.join(asked)}: {', '.join(sorted(both)) or 'no session'} is open")
    return 1 if differences else 0


def remind(journal: Path) -> None:
    """What earlier runs have left behind is said before another one begins. (A journal that cannot be read is said when it is needed.)"""
    now = clocks.wall_time()
    with contextlib.suppress(PlaybookError):
        left = [record for record in Journal(journal).open_sessions() if record.alive is False]
        if n := sum(record.ends_by is None or record.ends_by > now for record in left):
            what = "a session of a run that died may" if n == 1 else f"{n} sessions of runs that died may"
            err(f"note: {what} still be open, and billed; `playbook sessions end --gone` ends what can be ended")


def left_open(journal: Path, ours: Callable[[SessionRecord], bool]) -> list[str]:
    """When sessions of a run are still open, the last line on the screen is the command that ends them."""
    try:
        left = [record for record in Journal(journal).open_sessions() if ours(record)]
    except PlaybookError as error:
        return [f"error: {error.message}\n  whether a session of this run is still open cannot be told; see `playbook sessions`"]
    named = [record for record in left if record.session is not None]
    lines = []
    for record in left:
        if record.session is None:
            until = "" if record.ends_by is None else f", so it is over by {record.ends_by:%Y-%m-%d %H:%M} UTC at the latest"
            what = "is being created" if record.creating else f"may have been created; nobody saw its id{until}"
            lines.append(f"a session at {record.provider} {what}. Look for it, and end it, with:\nplaybook sessions end {record.key}")
    if len(named) == 1:
        lines.append(f"a session at {named[0].provider} is still open, and billed. End it with:\nplaybook sessions end {named[0].session}")
    elif named:
        ids = " ".join(str(record.session) for record in named)
        lines.append(f"{len(named)} sessions are still open, and billed. End them with:\nplaybook sessions end {ids}")
    return lines


COMMANDS = {"sessions": Command(add_sessions, sessions)}
