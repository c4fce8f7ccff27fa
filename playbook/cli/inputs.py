"""What a verb is to work on: which playbooks, with which values of their variables, and the plan that they make.

A file that a person names is taken whatever it is called; a folder gives only what looks like a playbook. Secrets are hidden as soon as a
plan has brought them.
"""

from __future__ import annotations

import glob
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

from playbook.cli.options import Parser, err, in_colour, name_and_value
from playbook.errors import UsageError, near
from playbook.language import Inputs, compile_file
from playbook.model import Plan
from playbook.perform.world import World, variables

SUFFIXES = (".yaml", ".yml")
STDIN = Path("/dev/stdin")


def add_inputs(parser: Parser) -> None:
    """The options that decide what a playbook says."""
    parser.add_argument("--provider", metavar="NAME", help="let this provider perform it, whichever the playbook names")
    parser.add_argument("--var", metavar="NAME=VALUE", action="append", type=name_and_value, help="the value of a variable")
    parser.add_argument("--lines", metavar="FILE", type=Path, help="say the texts of this table (CSV), by the ids of steps")
    parser.add_argument("--vars", metavar="FILE", action="append", type=Path, help="values of variables, as YAML or JSON")
    parser.add_argument("--root", metavar="DIR", type=Path, help="refuse parts and sounds that are not in this folder")


def inputs(args: Namespace) -> Inputs:
    """The values of variables, from everywhere but the playbook."""
    files = tuple(STDIN if str(file) == "-" else file for file in args.vars or ())
    for file in files:
        if not file.exists():
            raise UsageError(f"there is no file {file}", remedy="name a file of variables, in YAML or JSON")
    if args.lines is not None and not args.lines.is_file():
        raise UsageError(f"there is no file {args.lines}", remedy="name a table of lines; `playbook lines FILE --csv` writes one")
    return Inputs(var=dict(args.var or ()), files=files, env=variables(args.env), lines=args.lines, root=args.root)


def load(args: Namespace, path: Path, world: World) -> Plan:
    """The plan of the playbook that was asked for; its warnings are shown, its secrets hidden from here on."""
    if not path.exists():
        raise UsageError(f"there is no file {path}", remedy=near_file(path))
    if path.is_dir():
        raise UsageError(f"{path} is a folder", remedy="name a playbook")
    plan = compile_file(path, world, inputs(args), provider=args.provider)
    for secret in plan.secrets:
        args.redact.add(secret)
    if plan.warnings:
        from playbook.report import problems_text

        err(problems_text(plan.warnings, colour=in_colour(sys.stderr, args.env)) + "\n")
    return plan


def near_file(path: Path) -> str:
    """Which playbook of its folder was probably meant by a path that leads to none: what to do about it, or nothing."""
    try:
        there = {Path(name).stem: name for name in sorted(os.listdir(path.parent)) if _is_playbook(name)}
    except (OSError, ValueError):
        return ""
    meant = near(path.stem if path.suffix in SUFFIXES else path.name, there)
    return f"did you mean '{path.with_name(there[meant])}'?" if meant else ""


def playbook_files(paths: Iterable[str]) -> list[Path]:
    """The files that paths, folders and globs mean, each once, in order. Raises `UsageError` for a path that does not exist."""
    found: dict[Path, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_meant(path)))
    return list(found)


def _is_playbook(name: str) -> bool:
    """Baselines are YAML too, and lie beside their playbooks."""
    return name.endswith(SUFFIXES) and not name.startswith(".") and not name.endswith(".baseline.yaml")


def _meant(path: str) -> Iterator[Path]:
    if os.path.isdir(path):
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found = (Path(folder) / name for name in sorted(files) if _is_playbook(name))
            yield from (file for file in found if file.is_file() or not file.exists())  # a pipe may never be written to
    elif os.path.lexists(path):
        yield Path(path)
    elif glob.has_magic(path):
        for match in sorted(glob.glob(path, recursive=True)):
            if os.path.isfile(match):
                yield Path(match)
    else:
        raise UsageError(f"there is no file or folder {path}", remedy=near_file(Path(path)))
