"""What the verbs share: a parser whose options have environment twins, the way out to streams and files, and what becomes of an error."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

from playbook.cli import TOPICS, VERBS, overview
from playbook.errors import AuthorError, PlaybookError, SetupError, UsageError, near_or_all, printable, reason_of
from playbook.record.redact import Redactor

if TYPE_CHECKING:
    from pathlib import Path

    from playbook.perform.steering import Cue

T = TypeVar("T")
PREFIX = "PLAYBOOK_"
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Command:
    """One verb: how its arguments are declared and what it does."""

    add: Callable[[Parser], None]
    main: Callable[[argparse.Namespace], int]


# --- options and their twins ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Twin:
    """An option as its environment variable sees it."""

    action: argparse.Action
    variable: str
    many: bool
    default: Any


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageError`, abbreviates nothing, and gives every option an environment twin.

    `--from-step` is `PLAYBOOK_FROM_STEP`. The command line wins over the twin, and the twin over the default. A switch takes 1 or 0; an
    option that may be repeated takes several values, separated and quoted as in a shell.
    """

    def __init__(self, prog: str, description: str, epilog: str | None = None) -> None:
        self._twins: list[_Twin] = []
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False, formatter_class=_Wide)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        long = next((name for name in names if name.startswith("--") and name != "--help"), None)
        if long is None:
            return super().add_argument(*names, **settings)
        variable = PREFIX + long.removeprefix("--").replace("-", "_").upper()
        default = settings.pop("default", False if settings.get("action") == "store_true" else None)
        settings["help"] = f"{settings.get('help', '')} [{variable}]"
        action = super().add_argument(*names, default=None, **settings)
        self._twins.append(_Twin(action, variable, settings.get("action") == "append", default))
        return action

    def parse(self, argv: Sequence[str], env: Mapping[str, str]) -> argparse.Namespace:
        """The arguments, from the command line, the environment and the defaults."""
        args, unknown = self.parse_known_args(argv)
        if unknown:
            raise UsageError(f"unknown argument '{unknown[0]}'", remedy=self._near(unknown[0]))
        for twin in self._twins:
            if getattr(args, twin.action.dest) is None:
                value = self._from_env(twin, env[twin.variable]) if twin.variable in env else None
                setattr(args, twin.action.dest, twin.default if value is None else value)
        return args

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, remedy=f"see `{self.prog} --help`")

    def _near(self, word: str) -> str:
        options = [name for twin in self._twins for name in twin.action.option_strings]
        return near_or_all(word.partition("=")[0], options, f"see `{self.prog} --help`")

    def _from_env(self, twin: _Twin, text: str) -> Any:
        if twin.action.nargs == 0:  # a switch
            if text.lower() not in _YES + _NO:
                raise UsageError(f"{twin.variable}={text}: a switch is 1 or 0")
            return text.lower() in _YES
        if not text:
            return None
        try:
            values = [self._convert(twin, item) for item in (shlex.split(text) if twin.many else [text])]
        except (argparse.ArgumentTypeError, UsageError, ValueError) as error:
            raise UsageError(f"{twin.variable}={text}: {error}") from error
        return values if twin.many else values[0]

    @staticmethod
    def _convert(twin: _Twin, text: str) -> Any:
        value = twin.action.type(text) if callable(twin.action.type) else text
        if twin.action.choices is not None and value not in twin.action.choices:
            raise ValueError(f"choose from {', '.join(map(str, twin.action.choices))}")
        return value


class _Wide(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


def name_and_value(text: str) -> tuple[str, str]:
    """`name=value`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"'{text}' is not name=value")
    return name, value


def cue(text: str) -> Cue:
    """`NAME@2s`: a trigger that comes at a time of the show; `NAME` alone comes at once."""
    from playbook.perform.steering import Cue

    try:
        return Cue.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


# --- the way out --------------------------------------------------------------------------------------------------------


_redact = Redactor()
"""What must not be shown, of the command that is carried out."""
_OURS = re.compile(r"(\x1b\[[0-9;]{0,12}m)")
"""The colours of a terminal, which `report.paint` writes."""


def shown(text: str, stream: TextIO, redact: Callable[[str], str] | None = None) -> str:
    """The door for all text that leaves this process on a screen: without secrets, and without power over the screen, in this order."""
    text = _redact((redact or str)(text))
    if not stream.isatty():
        return printable(text, "\n\t")
    return "".join(piece if n % 2 else printable(piece, "\n\t") for n, piece in enumerate(_OURS.split(text)))


def out(text: str) -> None:
    """A result, on standard output. A reader that has left is no error."""
    _print(shown(text, sys.stdout))


def out_json(data: Any, *, indent: int | None = 1) -> None:
    """A result for programs. Texts lose their secrets before they are encoded, or a short one could be a part of the encoding."""
    _print(as_json(_redact.data(data), indent))


def as_json(data: Any, indent: int | None = 1) -> str:
    """Data as JSON that every screen can show: what could steer one is escaped."""
    text = json.dumps(data, ensure_ascii=False, indent=indent)
    return text if text.isascii() else "".join(c if printable(c, "\n") == c else f"\\u{ord(c):04x}" for c in text)


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        to_nowhere(sys.stdout)
    except OSError as error:
        to_nowhere(sys.stdout)
        raise SetupError(f"standard output cannot be written: {reason_of(error)}") from error


def err(text: str) -> None:
    """Progress or a diagnostic, on standard error, if anybody listens."""
    try:
        print(shown(text, sys.stderr), file=sys.stderr, flush=True)
    except OSError:
        to_nowhere(sys.stderr)


def log(text: str, args: argparse.Namespace) -> None:
    """What became of a command, on standard error. A log, which `--quiet` goes to, gets one line, and with it the time."""
    err(_stamp() + " ".join(_redact(text).split()) if _is_log(args) else _folded(_redact(text)))


def _is_log(args: argparse.Namespace | None) -> bool:
    return bool(getattr(args, "quiet", False)) and not sys.stderr.isatty()


def _stamp() -> str:
    from playbook.clock import wall_time

    return wall_time().strftime("%Y-%m-%dT%H:%M:%SZ ")


def to_nowhere(stream: TextIO) -> None:
    """Whatever is still in the stream's buffer, and all that follows, is dropped."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def in_colour(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal that wants colours."""
    return stream.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb"


def width(stream: TextIO | None = None) -> int | None:
    """How wide the terminal is, if a stream goes to one: that of the results, unless another is named."""
    if not (stream or sys.stdout).isatty():
        return None
    import shutil  # it brings every compression there is

    return shutil.get_terminal_size().columns


def is_live(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Whether a stream is a terminal on which a line can be drawn over and over."""
    return stream.isatty() and not env.get("CI") and env.get("TERM") != "dumb"


def writable(path: Path | None) -> None:
    """Find out now that a report cannot be written, and not after an hour of runs."""
    if path is None:
        return
    existed = path.exists()
    try:
        with open(path, "ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {reason_of(error)}") from error


def write(path: Path, data: T, to_text: Callable[[T], str]) -> None:
    """A report, into the file that was named for it: the data without secrets, in whatever form `to_text` gives it."""
    try:
        path.write_text(to_text(_redact.data(data)), "utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {reason_of(error)}") from error


# --- one command line, from words to an exit code -------------------------------------------------------------------------


def carry_out(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Find the verb, carry it out, show what went wrong."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character gets its code instead of our traceback
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    last_words: list[str] = []  # what must stand at the bottom of the screen, whatever else is said
    global _redact  # of this command: whatever writes before it is over
    redact = _redact = Redactor(value for name, value in env.items() if _is_credential(name) and len(value) >= 8)
    args: argparse.Namespace | None = None
    try:
        if not argv or argv[0] in ("-h", "--help"):
            (out if argv else err)(overview(width()))
            return 0 if argv else 2
        if argv[0] == "--version":
            from importlib import metadata

            out(f"playbook {metadata.version('avatar-playbook')}")
            return 0
        command, parser = _find(argv[0])
        try:
            os.getcwd()
        except OSError as error:
            raise SetupError("the folder you are in is not there any more", remedy="go to another one") from error
        command.add(parser)
        args = parser.parse(argv[1:], env)
        args.env, args.redact, args.last_words = env, redact, last_words
        return command.main(args)
    except SystemExit as left:  # argparse, after --help
        return left.code if isinstance(left.code, int) else 0
    except PlaybookError as error:
        if args is not None and _is_log(args) and not isinstance(error, AuthorError):
            log(f"error: {error.message}" + (f" ({error.remedy})" if error.remedy else ""), args)
        else:
            show_error(error, env)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception:
        import traceback

        err(traceback.format_exc().rstrip())
        err("error: this is a bug of playbook\n  please report it, with the lines above and the playbook")
        return 70
    finally:
        for words in last_words:
            err(_folded(_redact(words)))


def show_error(error: PlaybookError, env: Mapping[str, str]) -> None:
    """An error as a person should see it: what, and what now; a wrong playbook with all its problems."""
    from playbook.report import problems_text

    if isinstance(error, AuthorError):
        err(problems_text(error.problems, colour=in_colour(sys.stderr, env)))
        return
    err(_folded(_redact(f"error: {error.message}" + (f"\n  {error.remedy}" if error.remedy else ""))))


def _folded(text: str) -> str:
    """A message as wide as the terminal that it goes to."""
    from playbook.report import folded

    return folded(text, width(sys.stderr))


def _find(verb: str) -> tuple[Command, Parser]:
    if verb not in VERBS:
        what = "unknown option" if verb.startswith("-") else "unknown verb"
        raise UsageError(f"{what} '{verb}'", remedy=near_or_all(verb, VERBS, "see `playbook --help`"))
    module, what = VERBS[verb]
    command: Command = importlib.import_module(f"playbook.cli.{module}").COMMANDS[verb]
    more = f"More: `playbook help {TOPICS.get(verb, verb)}`."
    return command, Parser(f"playbook {verb}", what[0].upper() + what[1:] + ".", more)


def help_of(verb: str) -> str:
    """What `playbook VERB --help` says."""
    command, parser = _find(verb)
    command.add(parser)
    return parser.format_help().rstrip()


def _is_credential(name: str) -> bool:
    return name.endswith(("_KEY", "_SECRET", "_TOKEN", "_KS", "_PASSWORD"))
