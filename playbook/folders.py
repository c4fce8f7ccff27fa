"""Where things of the user's are kept: one rule for all of them.

The environment is given by the caller, never read here. May be imported by anything below it; imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def user_folder(env: Mapping[str, str], own: str, xdg: str, at_home: str) -> Path:
    """The folder that our own variable names, else ours in the one of the XDG base directories (which must be absolute), else at home."""
    if named := env.get(own):
        return Path(named).expanduser()
    if (base := env.get(xdg, "")) and Path(base).is_absolute():
        return Path(base) / "playbook"
    return Path(env.get("HOME") or Path.home()) / at_home / "playbook"
