"""Proof of play: `kiosk.jsonl`, who was shown what, when, on which rung (`schemas/kiosklog.schema.json`).

An entry is appended and synced before anything else happens. A disk that takes no more does not stop a kiosk:
entries wait in memory, the last `MAX_WAITING` of them, and are written as soon as there is room. A reader copes with
a line that was cut off.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from playbook.errors import RecordError, SetupError, reason_of

LOG = "kiosk.jsonl"
MAX_WAITING = 10_000
Entry = dict[str, Any]


class Proof:
    """The log of a kiosk that runs. Whoever is in `listeners` sees every entry; `redact` hides what may not be
    shown."""

    def __init__(self, folder: Path, name: str, zone: ZoneInfo, redact: Callable[[str], str] = str) -> None:
        self.path = folder / LOG
        self.disk: str | None = None
        """Why it cannot be written at the moment."""
        self.listeners: list[Callable[[Entry], object]] = []
        self._zone, self._redact = zone, redact
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115  for as long as the kiosk runs
        except OSError as error:
            raise SetupError(f"{self.path} cannot be written: {reason_of(error)}") from error
        if self._file.tell() == 0:
            self._write({"kiosklog": 1, "kiosk": name, "timezone": zone.key})
        else:
            _mend(self.path)

    def write(self, at: dt.datetime, event: str, **facts: Any) -> None:
        """Append an entry; facts that are None are left out."""
        local = at.astimezone(self._zone).isoformat(timespec="milliseconds")
        entry = {"at": local, "event": event, **{key: value for key, value in facts.items() if value is not None}}
        entry = {key: self._redact(value) if key == "cause" else value for key, value in entry.items()}
        self._write(entry)
        for told in self.listeners:
            told(entry)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self, entry: Entry) -> None:
        self._waiting.append(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n")
        try:
            while self._waiting:
                line = self._waiting[0]
                written = self._file.write(line)
                if written != len(line):  # the disk took a part of it: the rest would be no line
                    self._file.truncate(self._file.tell() - (written or 0))
                    raise OSError("no space left on device")
                self._waiting.popleft()
            os.fsync(self._file.fileno())
            self.disk = None
        except OSError as error:
            self.disk = reason_of(error)


def _mend(path: Path) -> None:
    """End a last line that was cut off, so that the next one begins on its own."""
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def entries(folder: Path) -> Iterator[Entry]:
    """The log's entries in order, the header first. Lines that were cut off are left out. Raises `RecordError` where
    there is no log."""
    path = folder / LOG if folder.is_dir() else folder
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file):
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if number == 0 and (not isinstance(entry, dict) or entry.get("kiosklog") != 1):
                    raise RecordError(f"{path} is not the log of a kiosk", remedy="name the folder of a kiosk, kiosk/<name>")
                if isinstance(entry, dict):
                    yield entry
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {reason_of(error)}") from error
