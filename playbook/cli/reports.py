"""The results of a test for other programs: JUnit, TAP, JSON. Data in, text out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from playbook.cli.compared import change_to_json
from playbook.errors import printable
from playbook.suite import STATUSES, Result

_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped."""


def counts(results: Sequence[Result]) -> dict[str, int]:
    """How many results there are of each status."""
    return {status: sum(result.status == status for result in results) for status in STATUSES}


def rates(results: Sequence[Result]) -> dict[str, tuple[int, int]]:
    """For each case, how often it passed and how often it ran."""
    found: dict[str, tuple[int, int]] = {}
    for result in results:
        passed, ran = found.get(result.name, (0, 0))
        if result.status in ("passed", "failed", "error"):
            found[result.name] = passed + (result.status == "passed"), ran + 1
    return found


def label(result: Result, repeat: int) -> str:
    """What a result is called: its case's name, and which repetition it was."""
    return result.name if repeat == 1 else f"{result.name} #{result.repetition}"


# --- JUnit ----------------------------------------------------------------------------------------------------------------


def to_junit(results: Sequence[Result], *, repeat: int, started_at: str, took_ms: int) -> str:
    """JUnit's XML, as build servers read it: one suite, one test case for each result."""
    told = counts(results)
    skipped = told["skipped"] + told["never ran"]
    figures = {
        "tests": str(len(results)),
        "failures": str(told["failed"]),
        "errors": str(told["error"]),
        "skipped": str(skipped),
        "time": _seconds(took_ms),
    }
    root = ET.Element("testsuites", {"name": "playbook test", **{key: figures[key] for key in ("tests", "failures", "errors", "time")}})
    suite = ET.SubElement(root, "testsuite", {"name": "playbook test", **figures, "timestamp": started_at, "hostname": "localhost"})
    for result in results:
        attributes = {"name": label(result, repeat), "classname": result.file, "time": _seconds(result.took_ms)}
        case = ET.SubElement(suite, "testcase", {key: _xml(value) for key, value in attributes.items()})
        text = _xml("\n".join(result.reasons))
        first = _xml(result.reasons[0].split("\n")[0]) if result.reasons else ""
        if result.status == "failed":
            ET.SubElement(case, "failure", {"message": first, "type": "failure"}).text = text
        elif result.status == "error":
            ET.SubElement(case, "error", {"message": first, "type": f"exit {result.exit_code}"}).text = text
        elif result.status in ("skipped", "never ran"):
            ET.SubElement(case, "skipped", {"message": first if result.status == "skipped" else f"never ran: {first}"})
        if result.folder:
            ET.SubElement(case, "system-out").text = _xml(f"run folder: {result.folder}\nbaseline: {result.baseline}\n")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", printable(text, "\n\t"))


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.3f}"


# --- TAP ------------------------------------------------------------------------------------------------------------------


def to_tap(results: Sequence[Result], *, repeat: int) -> str:
    """TAP version 14; why something failed stands below it as YAML."""
    lines = ["TAP version 14", f"1..{len(results)}"]
    for n, result in enumerate(results, 1):
        name = label(result, repeat).replace("\\", "\\\\").replace("#", "\\#")
        good = "not ok" if result.status in ("failed", "error") else "ok"
        line = f"{good} {n} - {_line(name)}"
        if result.status in ("skipped", "never ran"):
            why = _line("; ".join(result.reasons)) or result.status
            line += f" # SKIP {why}" if result.status == "skipped" else f" # SKIP never ran: {why}"
        lines.append(line)
        if result.status in ("failed", "error"):
            lines += ["  ---", f"  severity: {'fail' if result.status == 'failed' else 'error'}", f"  exit: {result.exit_code}"]
            lines += ["  reasons:", *(f"    - {json.dumps(reason)}" for reason in result.reasons)]
            lines += [f"  folder: {json.dumps(result.folder)}"] if result.folder else []
            lines.append("  ...")
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return printable(text)


# --- JSON -----------------------------------------------------------------------------------------------------------------


def to_json(results: Sequence[Result], *, repeat: int, started_at: str, took_ms: int, notes: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "started_at": started_at,
        "took_ms": took_ms,
        "repeat": repeat,
        "counts": counts(results),
        "rates": {name: {"passed": passed, "ran": ran} for name, (passed, ran) in rates(results).items()},
        **notes,
        "results": [
            {
                "name": result.name,
                "file": result.file,
                "row": dict(result.values) or None,
                "repetition": result.repetition,
                "status": result.status,
                "exit_code": result.exit_code,
                "reasons": list(result.reasons),
                "baseline": result.baseline,
                "changes": [change_to_json(change) for change in result.changes],
                "took_ms": result.took_ms,
                "folder": result.folder or None,
            }
            for result in results
        ],
    }
