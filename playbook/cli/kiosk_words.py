"""The log of a kiosk in words: an entry as a line, the days as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def told(entry: Mapping[str, Any], *, idle: bool = True) -> str:
    """An entry of the log as a line for people; empty for what nobody wants to read."""
    event = entry.get("event")
    if event == "show" and not idle and entry["asked"] == "idle" and entry["end"] != "error" and "silence_ms" not in entry:
        return ""
    if event == "show":
        rungs = " then ".join(run["rung"] for run in entry["runs"])
        text = f"show {entry['show']} ({entry['asked']}): {entry['end']} on {rungs}, {entry['ms'] / 1000:.1f} s"
        if "silence_ms" in entry:
            text += f", {entry['silence_ms'] / 1000:.1f} s of silence"
    elif event == "rung":
        text = f"rung {entry['rung']}, was {entry['was']}"
    elif event == "refused":
        text = f"refused {entry['show']} ({entry['asked']})"
    elif event in ("opened", "closed", "stopped"):
        text = str(event)
    else:
        return ""
    text += f": {entry['cause']}" if "cause" in entry else ""
    return f"{entry['at']} {text}" + (f", cost {entry['cost']:.2f}" if "cost" in entry else "")


def summary(log: list[dict[str, Any]]) -> list[str]:
    from playbook.kiosk.days import days_of
    from playbook.report import clock_time, table

    days = days_of(log)
    rows = [
        [
            day.date,
            clock_time(day.open_ms),
            str(sum(day.shows.values())),
            str(sum(day.broken.values())),
            str(sum(day.refused.values())),
            ", ".join(f"{rung} {clock_time(ms)}" for rung, ms in day.rung_ms.items()),
            f"{day.silence_ms / 1000:.1f} s" if day.silences else "",
            f"{day.cost:.2f}",
        ]
        for day in days
    ]
    heads = ["day", "open", "shows", "broken off", "refused", "on each rung", "longest silence", "cost"]
    lines = [table(heads, rows)]
    causes = [(rung, cause, count, day.date) for day in days for (rung, cause), count in day.failures.items()]
    lines += [f"{date} {rung} failed {count} times: {cause}" for rung, cause, count, date in causes]
    return lines
