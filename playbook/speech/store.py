"""Speech that was made before, kept on disk: a cache, which is done without where it cannot be written.

An entry is a line with the checksum of the rest, a line of JSON, and bytes. Its name is made of its content with a key that is this
user's own and lies beside it, so that nobody can try which texts were spoken; the files are for this user alone (0600). What cannot be
written is kept in memory, for as long as the process lives.

Imports nothing of the package.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import shutil
import tempfile
import threading
import weakref
from collections.abc import Set
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

Entry = tuple[dict[str, Any], bytes]
_KEY = "key"
_KEY_BYTES = 32


class Store:
    """Entries by name, in `folder` (None: one of its own, which is removed with it)."""

    def __init__(self, folder: Path | None) -> None:
        self._given = folder
        self._memory: dict[str, Entry] = {}

    def name(self, parts: list[Any]) -> str:
        """What the entry for this content is called."""
        return hmac.new(self._key, json.dumps(parts).encode(), hashlib.sha256).hexdigest()

    def get(self, name: str) -> Entry | None:
        """The entry, or None when there is none or it is damaged."""
        if name in self._memory:
            return self._memory[name]
        data = self._read(name)
        if data is None:
            return None
        checksum, _, rest = data.partition(b"\n")
        if hashlib.sha256(rest).hexdigest().encode() != checksum:
            return None
        header, _, body = rest.partition(b"\n")
        return json.loads(header), body

    def put(self, name: str, header: dict[str, Any], body: bytes) -> None:
        """Write an entry such that nobody ever sees half of it."""
        rest = json.dumps(header).encode() + b"\n" + body
        if not self._write(name, hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest):
            self.keep(name, header, body)

    def keep(self, name: str, header: dict[str, Any], body: bytes) -> None:
        """For as long as the process lives, without writing it."""
        self._memory[name] = header, body

    def prune(self, limit: int, keep: Set[str]) -> None:
        """Let go of what was not used for longest, until the rest is smaller than `limit`."""
        entries = []
        with suppress(OSError):  # the folder may have been removed
            for path in self.folder.iterdir() if self.folder is not None else ():
                with suppress(FileNotFoundError):  # another process is pruning too
                    entries.append((path.stat(), path))
        total = sum(stat.st_size for stat, _ in entries)
        for stat, path in sorted(entries, key=lambda entry: entry[0].st_mtime_ns):
            if total <= limit:
                break
            if path.name not in keep and path.name != _KEY:
                with suppress(OSError):
                    path.unlink()
                    total -= stat.st_size

    @cached_property
    def folder(self) -> Path | None:
        """Where the entries are; None where nothing can be written at all."""
        if self._given is not None and _usable(self._given):
            return self._given
        try:
            folder = Path(tempfile.mkdtemp(prefix="playbook-voice-"))
        except OSError:
            return None
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    @cached_property
    def _key(self) -> bytes:
        for _ in range(2):
            data = self._read(_KEY)
            if data is not None and len(data) == _KEY_BYTES:
                return data
            self._write(_KEY, secrets.token_bytes(_KEY_BYTES))
        return secrets.token_bytes(_KEY_BYTES)

    def _read(self, name: str) -> bytes | None:
        if self.folder is None:
            return None
        path = self.folder / name
        try:
            data = path.read_bytes()
            os.utime(path)  # what is used is kept
        except OSError:
            return None
        return data

    def _write(self, name: str, data: bytes) -> bool:
        if self.folder is None:
            return False
        temporary = self.folder / f".{name}.{os.getpid()}.{threading.get_ident()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            temporary.replace(self.folder / name)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return False
        return True


def _usable(folder: Path) -> bool:
    """Whether a cache can be kept there. A home that may not be written, or none at all, is no reason to stay silent."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)
