"""The command line: `playbook VERB …`.

A verb lives in one of the modules named in `VERBS`, which is imported only when it is chosen (`playbook --help` reads none of them). Such a
module has a table

    COMMANDS = {"check": Command(add_check, check), …}

where `add_check(parser)` declares the arguments and `check(args)` does the work and returns the exit code. Rules for both:

* Options are declared with `parser.add_argument` as usual; each gets its environment twin, its place in `--help` and its default from
  `Parser` (`options.py`). Positionals have no twin.
* `args.env` is the environment; nothing below the command line reads another. `args.redact` hides what must not be shown: add secrets to
  it as soon as they are known.
* Results go through `out`, progress and diagnostics through `err` (both in `options.py`). Errors are raised, as `PlaybookError`; they are
  shown, and made an exit code, in one place. Heavy libraries are imported inside the functions that need them.

This is the only place, with `api` and the pytest plug-in, that reads the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

VERBS: Mapping[str, tuple[str, str]] = {
    "new": ("author", "write a commented starter"),
    "check": ("check", "say everything that is wrong with playbooks, and where"),
    "plan": ("author", "show when each line will be heard"),
    "lines": ("lines", "list what is said, as a table to translate"),
    "run": ("perform", "perform a playbook"),
    "kiosk": ("kiosk", "perform shows unattended, for ever, or rehearse a week of them"),
    "stage": ("stage", "show it on a page, and run it from another one"),
    "report": ("report", "show a run's report again, or its page"),
    "replay": ("prove", "prove that a recorded run would still go the same way"),
    "diff": ("prove", "compare two runs or two plans"),
    "test": ("test", "perform many playbooks and compare each with its baseline"),
    "sessions": ("sessions", "list and end the sessions that are open, and billed"),
    "voices": ("voices", "list, hear and install voices"),
    "providers": ("author", "show what each provider can do"),
    "emulate": ("perform", "serve a provider's emulator on this machine"),
    "schema": ("author", "print the schemas of the format, or where they are"),
    "help": ("docs", "show the documentation, by topic or by a problem's code"),
}
"""Verb: the module that holds it, and what it does."""

TOPICS: Mapping[str, str] = {
    **dict.fromkeys(("new", "check", "plan", "lines", "schema"), "language"),
    **dict.fromkeys(("replay", "diff", "test"), "regressions"),
    "run": "evidence",
    "emulate": "faults",
    "voices": "providers/local",
}
"""Where a verb's documentation is, if no topic has its name."""


def main(argv: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> int:
    """Carry out a command line and return the exit code. Never raises, but for `KeyboardInterrupt` outside a run."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us; a file of ours must not get its number
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # for as long as the process lives
    argv = sys.argv[1:] if argv is None else argv
    env = os.environ if env is None else env
    from playbook.cli.options import carry_out

    return carry_out(argv, env)


def overview(width: int | None = None) -> str:
    """What `playbook --help` says, on rows of so many characters."""
    lines = [
        "usage: playbook VERB …",
        "",
        "Plays deterministic spoken scripts through talking avatars, and knows what was said, when, and on what evidence.",
        "",
        *(f"  {verb:<11}{what}" for verb, (_, what) in VERBS.items()),
        "",
        "`playbook VERB --help` and `playbook help TOPIC` tell more. Every option has an environment twin, PLAYBOOK_<OPTION>.",
        "",
        "first steps:",
        "  playbook new hello.yaml",
        "  playbook run hello.yaml --provider local",
    ]
    if width is not None:
        import textwrap

        lines = [
            row for line in lines for row in textwrap.wrap(line, max(30, width), subsequent_indent=" " * 13 * line.startswith(" ")) or [""]
        ]
    return "\n".join(lines)
