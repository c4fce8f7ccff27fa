"""What people see: problems, cue sheets, the progress of a run and its report. The only place that knows screens.

Everything here turns data into text; nothing here prints. `rich` lays out tables, and is imported only where there is one: `check` must
answer at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from playbook.errors import Problem, format_problem

_COLOURS = {"error": "31", "warning": "33"}


def paint(text: str, *codes: str, colour: bool) -> str:
    """Text in a terminal's colours, by their ANSI numbers."""
    return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if colour and text else text


def problems_text(problems: Sequence[Problem], *, colour: bool = False) -> str:
    """Problems one after another, an empty line between them."""
    return "\n\n".join(_problem(problem, colour) for problem in problems)


def _problem(problem: Problem, colour: bool) -> str:
    text = format_problem(problem)
    if not colour:
        return text
    hue = _COLOURS[problem.severity]
    head, *rest = text.split("\n")
    title, _, message = head.partition(": ")
    lines = [paint(title, "1", hue, colour=True) + paint(f": {message}", "1", colour=True)]
    for line in rest:
        margin = re.match(r"^( *\d* *(?:-->|[|=]))(.*)$", line)
        if margin is None:
            lines.append(line)
            continue
        bar, body = margin.groups()
        carets = re.match(r"^( *)(\^+)(.*)$", body)
        if carets is not None:
            body = carets[1] + paint(carets[2] + carets[3], "1", hue, colour=True)
        lines.append(paint(bar, "34", colour=True) + body)
    return "\n".join(lines)
