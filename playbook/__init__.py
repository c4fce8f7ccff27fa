"""Playbooks for talking avatars: deterministic spoken scripts, and the truth about what was said.

    plan = playbook.load("hello.yaml")            # or playbook.plan("version: 1 …")
    outcome = await playbook.run(plan)            # or playbook.clock.run(playbook.run(plan), "virtual")

The names below are public; everything else may change. They are imported when they are first used, so that `import playbook` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playbook import clock
    from playbook.api import Cue, Outcome, Session, load, open_session, plan, run
    from playbook.errors import (
        AuthorError,
        PlaybookError,
        PolicyError,
        Problem,
        ProviderError,
        RecordError,
        RunError,
        SetupError,
        UsageError,
    )
    from playbook.model import Plan

_HOMES = {
    "playbook.api": ("Cue", "Outcome", "Session", "load", "open_session", "plan", "run"),
    "playbook.model": ("Plan",),
    "playbook.errors": (
        "AuthorError",
        "PlaybookError",
        "PolicyError",
        "Problem",
        "ProviderError",
        "RecordError",
        "RunError",
        "SetupError",
        "UsageError",
    ),
}

__all__ = [
    "AuthorError",
    "Cue",
    "Outcome",
    "Plan",
    "PlaybookError",
    "PolicyError",
    "Problem",
    "ProviderError",
    "RecordError",
    "RunError",
    "Session",
    "SetupError",
    "UsageError",
    "clock",
    "load",
    "open_session",
    "plan",
    "run",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    if name == "clock":
        return importlib.import_module("playbook.clock")
    raise AttributeError(f"module 'playbook' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
