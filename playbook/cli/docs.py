"""`help`: the documentation that comes with the package (`playbook/docs`), by topic or by a problem's code."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from playbook.cli.options import Command, Parser, in_colour, out, width
from playbook.errors import UsageError, near_or_all
from playbook.providers import registry

_COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)


def topics() -> dict[str, Traversable]:
    """Every page, by its name: `language`, `providers/tavus`, …"""
    return dict(sorted(_pages(files("playbook") / "docs", "")))


def _pages(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _pages(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".md"):
            yield prefix + entry.name.removesuffix(".md"), entry


def page(topic: str) -> str:
    """A page, or one problem's entry. Raises `UsageError` where there is none."""
    found = topics()
    codes = registry.codes()
    if topic.upper() in codes:
        entries = re.split(r"(?m)^(?=## PB\d)", found["problems"].read_text("utf-8"))
        return next(entry for entry in entries if entry.startswith(f"## {topic.upper()} "))
    name = topic if topic in found else f"providers/{topic}"
    if name in found:
        return _COMMENT.sub("", found[name].read_text("utf-8"))
    raise UsageError(f"there is no help on '{topic}'", remedy=near_or_all(topic, [*found, *codes], "`playbook help` lists the topics"))


def add_help(parser: Parser) -> None:
    parser.add_argument("topic", nargs="?", help="a topic, a verb, or a problem's code, such as PB203; all topics without it")


def show_help(args: argparse.Namespace) -> int:
    from playbook.cli import VERBS, overview
    from playbook.cli.options import help_of

    topic = args.topic
    if topic is None:
        out(overview(width()))
        out("\ntopics (`playbook help TOPIC`):\n")
        for name, text in topics().items():
            out(f"  {name:<20}{_title(text.read_text('utf-8'))}")
        out("\nand each problem's code: `playbook help PB203`")
    elif topic in VERBS and topic not in topics():
        out(help_of(topic))
    else:
        _render(page(topic), args)
    return 0


def _title(text: str) -> str:
    return next((line.lstrip("# ") for line in text.splitlines() if line.startswith("# ")), "")


def _render(text: str, args: argparse.Namespace) -> None:
    """Markdown as it is where a program reads it, laid out where a person does."""
    columns = width()
    if columns is None:
        out(text.rstrip())
        return
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(width=min(columns, 120), no_color=not in_colour(sys.stdout, args.env), highlight=False)
    with console.capture() as captured:
        console.print(Markdown(text, hyperlinks=False))
    out(captured.get().rstrip())


COMMANDS = {"help": Command(add_help, show_help)}
