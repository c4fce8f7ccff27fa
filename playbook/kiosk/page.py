"""A kiosk's report as one page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from playbook.kiosk.days import days_of
from playbook.kiosk.proof import Entry

SHOWN = 500
"""So many of the last entries are on the page."""


def page(log: Sequence[Entry]) -> str:
    """The days, and the last entries but for idle shows that went well."""
    import jinja2

    template = (Path(__file__).parent / "report.html").read_text("utf-8")
    name = next((str(entry["kiosk"]) for entry in log if "kiosk" in entry), "")
    entries = [each for each in log if "event" in each and (each.get("asked") != "idle" or "cause" in each)]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(name=name, days=days_of(log), entries=entries[-SHOWN:])
