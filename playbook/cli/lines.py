"""`lines`: what a playbook says, as a table that can be translated; and the start of a playbook from such a table, or from notes."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from playbook.cli.inputs import add_inputs, inputs, near_file
from playbook.cli.options import Command, Parser, in_colour, out, out_json, width
from playbook.errors import AuthorError, SetupError, UsageError, reason_of
from playbook.formats.findings import Findings
from playbook.formats.schema import load_schema
from playbook.formats.source import decode
from playbook.formats.table import parse_table
from playbook.language import list_lines
from playbook.perform.world import World


def add_lines(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="a playbook")
    add_inputs(parser)
    parser.add_argument("--csv", action="store_true", help="as CSV, with the hash of each text, to be translated")
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def lines(args: Namespace) -> int:
    if args.csv and args.json:
        raise UsageError("--csv and --json exclude each other", remedy="give one of them")
    if not args.file.is_file():
        raise UsageError(f"there is no file {args.file}", remedy=near_file(args.file))
    plan, rows = list_lines(args.file, World.of(args.env), inputs(args), provider=args.provider)
    for secret in plan.secrets:
        args.redact.add(secret)
    if args.json:
        out_json({"lines": rows})
    else:
        out(_as_csv(rows) if args.csv else _as_text(rows, args))
    return 0


def _as_csv(rows: list[dict[str, Any]]) -> str:
    from playbook.language.lines import COLUMNS

    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().removesuffix("\n")


def _as_text(rows: list[dict[str, Any]], args: Namespace) -> str:
    from playbook.report import clock_time, table

    shown = (
        (row["id"], clock_time(row["start_ms"]), clock_time(row["length_ms"]), str(row["characters"]), row["voice"], row["text"])
        for row in rows
    )
    return table(["line", "start", "length", "characters", "voice", "text"], shown, width=width(), colour=in_colour(sys.stdout, args.env))


# --- a playbook from what people have -------------------------------------------------------------------------------------


def timeline_of(path: Path) -> str:
    """The timeline, as YAML, of a text with a line on each of its lines, or of a table (`.csv`). Raises `UsageError`, `AuthorError`."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {path}", remedy="name a text with a line on each of its lines, or a table") from error
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {reason_of(error)}") from error
    said = list(_of_table(raw, path) if path.suffix == ".csv" else _of_text(raw, path))
    if not said:
        raise UsageError(f"there is no line in {path}")
    return "".join(map(_as_step, said))


def _of_text(raw: bytes, path: Path) -> Iterator[Mapping[str, str]]:
    from playbook.formats.malformed import Malformed

    try:
        text = decode(raw)
    except Malformed as bad:
        raise UsageError(f"{path}: {bad.message}", remedy=bad.remedy) from bad
    yield from ({"text": line.strip()} for line in text.splitlines() if line.strip())


def _of_table(raw: bytes, path: Path) -> Iterator[Mapping[str, str]]:
    findings = Findings()
    found = parse_table(raw, path, str(path), findings, ("text",))
    if found is None:
        raise AuthorError(findings.report(str(path)))
    for row in found.rows:
        if row["text"].data.strip():
            yield {name: cell.data for name, cell in row.items()}


def _as_step(line: Mapping[str, str]) -> str:
    text = json.dumps(line["text"], ensure_ascii=False)
    voice, id = line.get("voice", "").strip(), line.get("id", "").strip()
    said = f"{{text: {text}, voice: {json.dumps(voice, ensure_ascii=False)}}}" if voice else text
    form = load_schema("language.schema.json")["definitions"]["id"]
    named = f"    id: {json.dumps(id)}\n" if re.search(form["pattern"], id) and not id.isdigit() else ""
    return f"  - say: {said}\n{named}"


COMMANDS = {"lines": Command(add_lines, lines)}
