"""What a kiosk keeps of its shows: their run folders, for so many days, as long as the disk has room.

With little room left no sound and no captions are kept. When the disk takes no more, run folders are made in memory
and are gone when their show is over: the show goes on. As soon as there is room again, everything is kept again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from playbook.folders import file_name

LOW = 200_000_000
"""With less room than this, in bytes, sound and captions are not kept."""
FULL = 20_000_000
"""With less than this nothing is."""
IN_MEMORY = Path("/dev/shm")
_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}")


class Keeping:
    """The run folders in `out/runs`. With `forget` each is removed when its show is over; with `sound` False only
    logs are written."""

    def __init__(
        self, out: Path, days: int | None, *, forget: bool = False, sound: bool = True, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.out, self.days = out, days
        self._say, self._low = say, False
        self._forget, self._wants_sound = forget, sound
        self._in_memory: Path | None = None

    @property
    def free(self) -> int:
        """The room that is left, in bytes."""
        try:
            return shutil.disk_usage(self.out).free
        except OSError:
            return 0

    @property
    def sound(self) -> bool:
        """Whether sound and captions are kept."""
        low = self.free < LOW
        if low and not self._low:
            self._say("the disk is nearly full: sound and captions are not kept")
        self._low = low
        return self._wants_sound and self._in_memory is None and not low

    def folder(self, show: str, now: dt.datetime) -> Path:
        """Where the next run is kept: a path that there is not yet."""
        if self._in_memory is None and self.free < FULL:
            self.give_up_disk()
        elif self._in_memory is not None and self.free >= LOW:
            self._say("the disk has room again: what is played is kept")
            shutil.rmtree(self._in_memory, ignore_errors=True)
            self._in_memory = None
        base = self._in_memory or self.out / "runs"
        stamp = f"{now:%Y%m%dT%H%M%S}-{file_name(show) or 'show'}"
        names = itertools.chain([stamp], (f"{stamp}-{n}" for n in itertools.count(2)))
        return next(path for name in names if not (path := base / name).exists())

    def give_up_disk(self) -> bool:
        """Go on in memory; False where that was done before."""
        if self._in_memory is not None:
            return False
        self._say("the disk is full: what is played is not kept")
        with contextlib.suppress(OSError):
            self._in_memory = Path(tempfile.mkdtemp(prefix="playbook-kiosk-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        return self._in_memory is not None

    def name(self, folder: Path) -> str | None:
        """What the log calls a run's folder; nothing when it will not be there."""
        return folder.relative_to(self.out).as_posix() if folder.is_relative_to(self.out) else None

    def done(self, folder: Path) -> None:
        """A run is over."""
        if self._forget or not folder.is_relative_to(self.out):
            shutil.rmtree(folder, ignore_errors=True)

    def prune(self, now: dt.datetime) -> int:
        """Remove the run folders that are older than is wanted. Gives how many."""
        if self.days is None:
            return 0
        oldest = f"{now - dt.timedelta(days=self.days):%Y%m%dT%H%M%S}"
        old = [path for path in self._kept() if path.name < oldest]
        for path in old:
            shutil.rmtree(path, ignore_errors=True)
        return len(old)

    def _kept(self) -> Iterator[Path]:
        runs = self.out / "runs"
        with contextlib.suppress(OSError):
            yield from (path for path in sorted(runs.iterdir()) if _STAMP.match(path.name))

    def close(self) -> None:
        """Leave nothing in memory."""
        if self._in_memory is not None:
            shutil.rmtree(self._in_memory, ignore_errors=True)
