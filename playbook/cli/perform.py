"""The verbs that reach the world: `run` and `emulate`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import os
import shlex
import signal
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook import clock as clocks
from playbook.cli.inputs import add_inputs, load
from playbook.cli.options import Command, Parser, cue, err, in_colour, is_live, log, name_and_value, out, out_json, shown, width
from playbook.cli.sessions import left_open, remind
from playbook.cli.stage import add_address
from playbook.controls.reader import has_ended
from playbook.errors import AuthorError, SetupError, UsageError
from playbook.model import AudioEcho, Plan
from playbook.perform.world import World
from playbook.providers import registry

if TYPE_CHECKING:
    from playbook.perform.performance import Outcome, Runner
    from playbook.ports import Control
    from playbook.record.runlog import Line
    from playbook.speech.loudspeaker import Loudspeaker
    from playbook.stage.director import Director
    from playbook.transports.cassette import Cassette, Mode

RECORD_MODES = ("once", "new_episodes", "none", "all")


# --- run ------------------------------------------------------------------------------------------------------------------


def add_run(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="a playbook")
    add_inputs(parser)
    parser.add_argument("--clock", choices=("system", "virtual"), default="system", help="virtual: an hour takes a moment")
    parser.add_argument("--out", metavar="DIR", type=Path, help="the run folder, new or empty (runs/<time>-<name>)")
    parser.add_argument("--play", action="store_true", help="let the local voice be heard (extra `play`)")
    parser.add_argument("--trigger", metavar="NAME@TIME", action="append", type=cue, help="give a trigger at a time of the show")
    parser.add_argument("--triggers", metavar="-", choices=("-",), help="read signals from standard input, one a line")
    parser.add_argument("--stage", action="store_true", help="show it on a page, and run it from another one")
    add_address(parser)
    parser.add_argument("--emulate", action="store_true", help="perform it against the provider's emulator, without a key")
    parser.add_argument("--fault", metavar="NAME[@STEP]", action="append", help="let the emulator fail in this way")
    parser.add_argument("--record", metavar="FILE", type=Path, help="record what the provider answers on a cassette")
    parser.add_argument(
        "--record-mode",
        choices=RECORD_MODES,
        default="all",
        help="all (the default) records anew and replaces what there is; once performs against a cassette that exists, else records one;"
        " none performs against it and records nothing; new_episodes performs against it and adds reads that it does not have",
    )
    parser.add_argument("--record-expires", metavar="DATE", type=_date, help="from this day on the cassette is no longer believed")
    parser.add_argument("--from-cassette", metavar="FILE", type=Path, help="perform it against a cassette, without network or key")
    parser.add_argument("--strict", action="store_true", help="warnings are errors; a fault or trigger without effect is a failure")
    parser.add_argument("--json", action="store_true", help="the outcome as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress, and only the last words of the report")


def run(args: Namespace) -> int:
    with _ends_in_order():
        plan, world = _planned(args)
        if args.triggers and _awaits_go(plan, args) and has_ended(sys.stdin.fileno()):
            log("nothing ran: the input ended before the trigger 'go' came", args)
            return 5
        return _Show(plan, world, args).perform()


def _planned(args: Namespace) -> tuple[Plan, World]:
    world = World.of(args.env)
    plan = load(args, args.file, world)
    if args.fault and not args.emulate:
        raise UsageError("--fault is for emulated runs", remedy="add --emulate")
    if args.stage and args.clock == "virtual":
        raise UsageError("--stage takes the show's own time", remedy="leave out --clock virtual")
    if args.strict and plan.warnings:
        raise AuthorError(plan.warnings)
    return plan, world


def _awaits_go(plan: Plan, args: Namespace) -> bool:
    return plan.start.waits and not any(each.trigger == "go" for each in args.trigger or ())


class _Show:
    """One performance, and what stands around the runner: the cassette, the emulator, the loudspeaker, the journal, whoever watches."""

    def __init__(self, plan: Plan, world: World, args: Namespace) -> None:
        from playbook.perform.assemble import journal_folder

        self.plan, self.args = plan, args
        self.provider = world.provider(plan.provider)
        self.cassette, self.loudspeaker = _cassette(plan, args), _loudspeaker(plan, args)
        self.at_terminal = sys.stdin is not None and sys.stdin.isatty() and not args.triggers and args.clock == "system"
        self.journal = journal_folder(plan, args.env, emulate=args.emulate, cassette=self.cassette)
        self.idle: list[str] = []  # faults that never struck
        self.runner: Runner | None = None

    def perform(self) -> int:
        """All of it, and the exit code."""
        if self.journal is not None:
            remind(self.journal)
        outcome = None
        try:
            with self.loudspeaker or contextlib.nullcontext():
                outcome = clocks.run(self._perform(), self.args.clock)
            return self._tell(outcome)
        finally:
            self._last_words(outcome)

    async def _perform(self) -> Outcome:
        from playbook.perform.assemble import staged
        from playbook.perform.performance import Options
        from playbook.perform.steering import Stall

        args = self.args
        asyncio.get_running_loop().set_exception_handler(lambda _, context: _aside(context, self.runner))
        with _progress(self.plan, args, interactive=self.at_terminal) as (watch, started, say):
            options = Options(
                folder=args.out,
                env=args.env,
                cues=args.trigger or (),
                controls=self._controls(say),
                watch=self._telling_how_to_watch(watch, say),
                live=() if self.loudspeaker is None else (self.loudspeaker,),
                provider=self.provider,
            )
            how: dict[str, Any] = {"emulate": args.emulate, "cassette": self.cassette, "faults": args.fault or (), "idle": self.idle}
            how["watched"] = not args.stage
            async with self._on_stage() as director:
                options = options if director is None else director.joined(options)
                async with staged(self.plan, options, **how) as runner:
                    self.runner = runner
                    started(clocks.Clock().now_ms)
                    try:
                        with contextlib.nullcontext() if director is None else director.performing(runner):
                            return await runner.run()
                    except Stall as stall:
                        rehearsed = f"rehearse with `--trigger {shlex.quote(stall.trigger)}`"
                        stall.remedy = f"run it at a terminal, or with `--triggers -`, or {rehearsed}"
                        if args.clock == "virtual" and sys.stdin is not None and sys.stdin.isatty():  # it would wait for no key
                            stall.remedy = f"{rehearsed}, or with `--clock system`"
                        raise

    def _on_stage(self) -> contextlib.AbstractAsyncContextManager[Director | None]:
        """The stage that shows it, if that is wanted."""
        if not self.args.stage:
            return contextlib.nullcontext()
        from playbook.cli.stage import serving
        from playbook.stage.manner import Manner

        return serving(self.args, self.plan, Manner.single(self.plan, self.provider))

    def _telling_how_to_watch(self, watch: Callable[[Line], None] | None, say: Callable[[str], None]) -> Callable[[Line], None] | None:
        """Whoever has to begin a show that a vendor's face performs must be told where it is to be seen."""
        if watch is None or self.args.stage or not (self.plan.start.waits and self.plan.capabilities.remote):
            return watch

        def also(line: Line) -> None:
            watch(line)
            if line.get("event") == "session_opened" and self.runner is not None:
                say(f"to watch it, see session.json in {self.runner.folder}, or perform it with --stage")

        return also

    def _controls(self, say: Callable[[str], None]) -> list[Control]:
        """Who can give signals: whoever sits at the terminal, or what comes through standard input."""
        if self.at_terminal:
            from playbook.controls.keyboard import Keyboard

            return [Keyboard(say, sys.stdin.fileno())]
        if self.args.triggers:
            from playbook.controls.stdin import StandardInput

            return [StandardInput(sys.stdin.fileno())]
        return []

    def _tell(self, outcome: Outcome) -> int:
        """How it went, and the exit code."""
        from playbook.engine import Result

        args = self.args
        vain = [f"the fault '{fault}' never struck" for fault in self.idle]
        vain += outcome.summary.unheeded(each.trigger for each in args.trigger or ())
        if vain and args.strict and outcome.result.exit_code == 0:
            outcome = replace(outcome, result=Result("failed", 1, f"{vain[0]} (--strict)"))
        if self.cassette is not None:
            _tell_of(self.cassette, args)
        try:
            _show(outcome, self.plan, args)
        except SetupError:  # standard output is full: no reason to forget how the run went
            if outcome.result.exit_code == 0:
                raise
        args.last_words += vain + _silence(self.plan, outcome)
        return outcome.result.exit_code

    def _last_words(self, outcome: Outcome | None) -> None:
        """What must be the last on the screen: where the log of a run is that never began, and which sessions are left open."""
        runner, args = self.runner, self.args
        if runner is None:
            return
        args.redact.absorb(runner.redact)
        if outcome is None and runner.folder is not None and (runner.folder / "run.jsonl").exists():
            args.last_words.append(f"its log is in {runner.folder}")
        if self.journal is not None and runner.folder is not None:
            run, pid = runner.folder.name, os.getpid()
            args.last_words += left_open(self.journal, lambda record: (record.run, record.pid) == (run, pid))


def _silence(plan: Plan, outcome: Outcome) -> list[str]:
    """What somebody must know who heard nothing, and sees a run that passed."""
    from playbook.report import count
    from playbook.speech.voice import REMEDY

    if not any(warning.code == "PB455" for warning in plan.warnings):
        return []
    silent = sum(said.started_ms is not None and said.audio_sha256 is None for said in outcome.summary.utterances.values())
    return (
        [f"{count(silent, 'line')} {'was' if silent == 1 else 'were'} silence, because no voice is installed: {REMEDY}"] if silent else []
    )


@contextlib.contextmanager
def _ends_in_order() -> Iterator[None]:
    """Until the runner listens to signals itself, they end the process like Ctrl-C does. (A SIGHUP that is ignored is `nohup`'s.)"""

    def leave(*_: object) -> None:
        raise SystemExit(143)

    before: dict[int, Any] = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError):  # not in the main thread
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for mine, old in before.items():
            signal.signal(mine, old)


def _aside(context: Mapping[str, Any], runner: Runner | None) -> None:
    """An error that belongs to no step (a library's, in the background) is told, without secrets, and does not stop the show."""
    error = context.get("exception")
    text = "".join(traceback.format_exception(error)).rstrip() if error is not None else str(context.get("message"))
    err(text if runner is None else runner.redact(text))


def _show(outcome: Outcome, plan: Plan, args: Namespace) -> None:
    from playbook.report import count, describe, run_report, run_to_json, verdict

    folder = str(outcome.folder)
    if args.json:
        data = {"folder": folder, **run_to_json(outcome.result, outcome.summary, outcome.failures)}
        out_json(data)
        if outcome.result.exit_code:
            log(verdict(outcome.result), args)
    elif args.quiet:
        lines = count(len(outcome.summary.utterances), "line")
        out(f"{verdict(outcome.result)}; {lines}; {folder}")
        if outcome.result.exit_code and not (sys.stdout.isatty() and sys.stderr.isatty()):
            log(f"{verdict(outcome.result)}; {folder}", args)
    else:
        colour = in_colour(sys.stdout, args.env)
        if sys.stdout.isatty() and sys.stderr.isatty():
            out("")
        sounds = {step.id: describe(step) for step in plan.steps if isinstance(step.action, AudioEcho)}
        text = run_report(outcome.result, outcome.summary, outcome.failures, sounds=sounds, width=width(), colour=colour)
        if (sound := outcome.folder / "audio.wav").exists():
            text += f"\nhear it: {sound}"
        out(f"{text}\n{folder}")


@contextlib.contextmanager
def _progress(
    plan: Plan, args: Namespace, *, interactive: bool
) -> Iterator[tuple[Callable[[dict[str, Any]], None] | None, Callable[[Callable[[], int]], None], Callable[[str], None]]]:
    """What watches the log, what is told the run's time, and what shows a line of a control's."""
    if args.quiet:
        yield None, lambda _: None, lambda _: None
        return
    from playbook.cli.progress import Progress

    live = is_live(sys.stderr, args.env) and args.clock == "system"
    colour = in_colour(sys.stderr, args.env)
    door = partial(shown, stream=sys.stderr)
    with Progress(plan, sys.stderr, live=live, colour=colour, interactive=interactive, redact=door) as progress:
        yield progress.watch, lambda now_ms: setattr(progress, "now_ms", now_ms), progress.say


# what stands in for the vendor


def _loudspeaker(plan: Plan, args: Namespace) -> Loudspeaker | None:
    """What lets the show be heard, if that is wanted."""
    if not args.play:
        return None
    if args.clock == "virtual":
        raise UsageError("--play takes the show's own time", remedy="leave out --clock virtual")
    if plan.capabilities.remote:
        raise UsageError(f"--play is for the local voice, and {plan.provider} speaks for itself", remedy="rehearse with --provider local")
    from playbook.speech.loudspeaker import Loudspeaker

    return Loudspeaker()


def _cassette(plan: Plan, args: Namespace) -> Cassette | None:
    """The cassette to record on or to play from, if there is one."""
    if args.record and args.from_cassette:
        raise UsageError("--record and --from-cassette exclude each other", remedy="--record-mode new_episodes plays and records")
    path = args.record or args.from_cassette
    if path is None:
        return None
    if not plan.capabilities.remote:
        raise UsageError(f"the {plan.provider} provider has nothing to record", remedy="a cassette holds what a vendor answered")
    from playbook.transports.cassette import Cassette

    if args.record_expires is not None and args.record_expires <= clocks.wall_time().date():
        raise UsageError(
            f"--record-expires {args.record_expires} is no day to come", remedy="name the day from which on it is not believed"
        )
    mode: Mode = args.record_mode if args.record else "none"
    return Cassette(path, mode, provider=plan.provider, playbook=plan.name, expires=args.record_expires)


def _tell_of(cassette: Cassette, args: Namespace) -> None:
    """What became of the cassette."""
    if args.quiet:
        return
    if cassette.whole:
        log(f"recorded {cassette.path}" if cassette.added else f"nothing was recorded on {cassette.path}", args)
        return
    from playbook.report import count

    told = f"performed against {cassette.path}"
    if cassette.added:
        told += f", and recorded {count(cassette.added, 'read')} on it"
    if args.emulate and not cassette.recording:
        told += "; nobody was asked, and --emulate did nothing"
    log(told, args)


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no date; write 2027-01-31") from error


# --- emulate ----------------------------------------------------------------------------------------------------------------


def add_emulate(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(registry.emulated())}")
    parser.add_argument("--port", metavar="N", type=_port, default=0, help="the port to listen on, on this machine alone (any free one)")
    parser.add_argument("--fault", metavar="NAME[@WHICH]", action="append", help="fail in this way")
    parser.add_argument("--option", metavar="NAME=VALUE", action="append", type=name_and_value, help="a setting of this emulator")
    parser.add_argument("--json", action="store_true", help="the address and the environment as one line of JSON")


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:  # which the system would wrap round
        raise argparse.ArgumentTypeError(f"'{text}' is no port; they are numbers up to 65535")
    return int(text)


def emulate(args: Namespace) -> int:
    from playbook.emulators.base import CONTROL, serve_forever
    from playbook.emulators.options import read

    kind = registry.emulator(args.name)
    emulator = kind(faults=args.fault or (), **read(kind.options_type, args.option or ()))

    def ready(url: str) -> None:
        env = emulator.environment()
        if args.json:
            out_json({"url": url, "env": dict(env)}, indent=None)
            return
        out(f"{args.name} is emulated at {url}; what goes on is told at {url}{CONTROL}/; Ctrl-C ends it")
        out("\n".join(f"  export {name}={value}" for name, value in env.items()))

    serve_forever(emulator, port=args.port, ready=ready)
    return 0


COMMANDS = {
    "run": Command(add_run, run),
    "emulate": Command(add_emulate, emulate),
}
