"""The verb `stage`: a page where the show is seen and heard, a page from which it is run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import webbrowser
from argparse import Namespace
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from playbook import clock as clocks
from playbook.cli.inputs import add_inputs, inputs, load
from playbook.cli.options import Command, Parser, log, out, out_json
from playbook.cli.sessions import left_open, remind
from playbook.errors import PlaybookError, UsageError
from playbook.language import compile_file
from playbook.model import Plan
from playbook.perform.world import World

if TYPE_CHECKING:
    from playbook.perform.performance import Options, Outcome, Runner
    from playbook.stage.director import Director
    from playbook.stage.manner import Manner


def add_stage(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="a playbook")
    add_inputs(parser)
    add_address(parser)
    parser.add_argument("--out", metavar="DIR", type=Path, help="run folders are DIR/1, DIR/2, … (runs/<time>-<name>)")
    add_controls(parser)
    parser.add_argument("--emulate", action="store_true", help="perform it against the provider's emulator, without a key")
    parser.add_argument("--fault", metavar="NAME[@STEP]", action="append", help="let the emulator fail in this way")
    parser.add_argument("--json", action="store_true", help="the addresses as JSON")
    parser.add_argument("--quiet", action="store_true", help="say nothing but the addresses and what went wrong")


def add_controls(parser: Parser) -> None:
    """Who gives signals beside the pages."""
    parser.add_argument(
        "--control",
        metavar="ADDRESS",
        action="append",
        help="take signals from there, too: osc://127.0.0.1:9000, mqtt://broker/lobby (extra `controls`)",
    )


def add_address(parser: Parser) -> None:
    """Where a stage listens, and whether a browser is opened."""
    parser.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="listen here; a token is needed unless it is loopback")
    parser.add_argument("--port", metavar="N", type=int, help="listen on this port; 0 is any (8080, or the next that is free)")
    parser.add_argument(
        "--no-open",
        action="store_true",
        help="open no browser. In a kiosk, Chromium plays sound without a click with --autoplay-policy=no-user-gesture-required",
    )


def stage(args: Namespace) -> int:
    """Serve the pages and perform the playbook on every `go`."""
    world = World.of(args.env)
    if args.fault and not args.emulate:
        raise UsageError("--fault is for emulated runs", remedy="add --emulate")
    plan = load(args, args.file, world)
    return clocks.run(_stage(args, world, plan))


async def _stage(args: Namespace, world: World, plan: Plan) -> int:
    from playbook.controls.keyboard import Keyboard
    from playbook.controls.registry import control
    from playbook.perform.assemble import journal_folder, staged
    from playbook.perform.performance import Options
    from playbook.providers.base import StreamedByVendor
    from playbook.stage.manner import Manner

    def compile_again() -> Plan:
        again = compile_file(args.file, world, inputs(args), provider=args.provider)
        for secret in again.secrets:
            args.redact.add(secret)
        return again

    def perform(plan: Plan, options: Options) -> contextlib.AbstractAsyncContextManager[Runner]:
        streamed = isinstance(options.provider, StreamedByVendor)  # a page takes the place of the emulator's own viewer
        return staged(plan, options, emulate=args.emulate, faults=args.fault or (), watched=not streamed)

    def told(outcome: Outcome | PlaybookError) -> None:
        from playbook.report import verdict

        if isinstance(outcome, PlaybookError):
            log(f"error: {outcome.message}" + (f" ({outcome.remedy})" if outcome.remedy else ""), args)
        elif not args.quiet or outcome.result.exit_code:
            log(f"{verdict(outcome.result)}; {outcome.folder}", args)

    journal = journal_folder(plan, args.env, emulate=args.emulate)
    if journal is not None:
        remind(journal)
    options = Options(folder=args.out, env=args.env, provider=world.provider(plan.provider))
    controls = [control(address, args.env) for address in args.control or ()]
    if sys.stdin is not None and sys.stdin.isatty():
        controls.append(Keyboard(lambda text: log(text, args), sys.stdin.fileno()))
    manner = Manner(compile_again, perform, options, controls, files=lambda: args.vars or (), told=told)
    try:
        async with serving(args, plan, manner) as director, director.watching():
            await director.run()
            return 0 if director.stopped is None else {"SIGINT": 130}.get(director.stopped, 143)
    finally:
        if journal is not None:
            args.last_words += left_open(journal, lambda record: record.pid == os.getpid())


@contextlib.asynccontextmanager
async def serving(args: Namespace, plan: Plan, manner: Manner) -> AsyncIterator[Director]:
    """A director whose pages are served; the addresses are printed, and the browser is opened."""
    from playbook.providers.base import ShownByVendor
    from playbook.stage.director import Director
    from playbook.stage.guard import Guard
    from playbook.stage.server import StageServer

    guard, provider = Guard.of(args.host), manner.options.provider
    guard.daily = isinstance(provider, ShownByVendor) and provider.viewer == "daily" and not args.emulate
    director = Director(args.file, manner, guard)
    director.read(plan)
    async with StageServer(director, guard).serve(args.port) as addresses, director.controlled():
        if args.json:
            out_json(addresses, indent=None)
        else:
            for name, address in addresses.items():
                out(f"{name} {address}")
        if not args.no_open:
            await _open(addresses["audience"])
        yield director


async def _open(address: str) -> None:
    """The audience's page, whose button begins the show. Where there is no browser, the addresses that were printed are all."""
    base, hash, fragment = address.partition("#")
    with contextlib.suppress(webbrowser.Error, OSError):
        await asyncio.to_thread(webbrowser.open, f"{base}?begin{hash}{fragment}")


COMMANDS = {"stage": Command(add_stage, stage)}
