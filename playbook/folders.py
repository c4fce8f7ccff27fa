"""Where things of the user's are kept, and the folders that runs leave: one rule for all of them.

The environment is given by the caller, never read here. Imports the errors and the clock; may be imported by anything below it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from playbook.errors import SetupError, UsageError, reason_of

VIEWER = "session.json"
"""In a run's folder, as long as its session lives: what a viewer needs to show the avatar."""


def user_folder(env: Mapping[str, str], own: str, xdg: str, at_home: str) -> Path:
    """The folder that our own variable names, else ours in the one of the XDG base directories (which must be absolute), else at home.
    Raises `SetupError` where there is no home."""
    try:
        if named := env.get(own):
            return Path(named).expanduser()
        if (base := env.get(xdg, "")) and Path(base).is_absolute():
            return Path(base) / "playbook"
        return Path(env.get("HOME") or Path.home()) / at_home / "playbook"
    except RuntimeError as error:
        raise SetupError("there is no such home folder", remedy=f"name a folder in {own}") from error


def project_of(file: Path) -> Path:
    """The folder that a playbook's parts and sounds are expected in: its repository, else the folder where we are if it is below, else its
    own."""
    folder = file.absolute().parent
    here = Path.cwd()
    repository = next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)
    return repository or (here if folder.is_relative_to(here) else folder)


def file_name(text: str) -> str:
    """A text as a name that any disk takes; empty where nothing of it can stand in one."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")


def run_folder(given: Path | None, name: str) -> Path:
    """Make the folder of a run: the one that is given, which must be new or empty, or else `runs/<time>-<name>`."""
    if given is None:
        return _new_folder(name)
    try:
        given.mkdir(parents=True, exist_ok=True)
        if any(given.iterdir()):
            raise UsageError(f"the run folder {given} is in use", remedy="name a new folder, or remove this one")
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"the run folder {given} is no folder", remedy="name a new folder") from error
    except OSError as error:
        raise SetupError(f"the run folder {given} cannot be made: {reason_of(error)}") from error
    return given


def _new_folder(name: str) -> Path:
    """A folder that no other run has, however many begin in one second, or an hour that the wall clock repeats."""
    from playbook.clock import wall_time  # it brings asyncio, and whoever only checks a playbook makes no folder

    stamp = f"{wall_time():%Y%m%dT%H%M%S}-{file_name(name) or 'run'}"
    for n in itertools.count(1):
        folder = Path("runs") / (stamp if n == 1 else f"{stamp}-{n}")
        try:
            folder.mkdir(parents=True)
            break
        except (FileExistsError, NotADirectoryError) as error:
            if not folder.parent.is_dir():
                raise UsageError("runs is no folder", remedy="name a run folder with --out") from error
        except OSError as error:
            raise SetupError(f"the run folder {folder} cannot be made: {reason_of(error)}") from error
    return folder


def publish(folder: Path, text: str) -> None:
    """Write what a viewer needs: into a new file of ours, which takes the place of whatever stood there. In a folder that others can write
    it may be a file that they have open, or a link. Raises `OSError`."""
    draft = folder / f".{VIEWER}.{secrets.token_hex(8)}"
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        draft.replace(folder / VIEWER)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def withdraw(folder: Path) -> None:
    """A run's session is over: what opens it is of no use any more, and nobody's business. Where it cannot be removed it is emptied."""
    path = folder / VIEWER
    try:
        path.unlink(missing_ok=True)
    except OSError:
        with contextlib.suppress(OSError):
            os.close(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW))
