"""A large file from the web, as it must be: its size and digest are known before. What was fetched before a connection broke is kept, and
the next try goes on from there.

By urllib, which follows the environment's proxies; only `https`, or loopback.
"""

from __future__ import annotations

import hashlib
import ipaddress
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from playbook.errors import SetupError, UsageError, reason_of

BLOCK = 1 << 18
TRIES = 4
"""Each goes on where the one before it broke off."""
TIMEOUT_S = 20.0


def fetch(url: str, path: Path, size: int, sha256: str, progress: Callable[[int], None] = lambda _: None) -> None:
    """Have `path` be the file at `url`. `progress` hears how many bytes there are. Raises `SetupError`, and then `path` is as it was."""
    _check(url)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = part.stat().st_size if part.exists() else 0
        if there > size:
            part.unlink()
            there = 0
        if (free := shutil.disk_usage(path.parent).free) < size - there:
            raise SetupError(f"{path.parent} has room for {free >> 20} MB, and {path.name} takes {(size - there) >> 20} MB")
        reason = "it is too short"
        for _ in range(TRIES):
            if (there := part.stat().st_size if part.exists() else 0) >= size:
                break
            try:
                _go_on(url, part, there, size, progress)
            except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                    error.close()
                    raise SetupError(f"{url} is refused ({error.code})") from error
                reason = str(getattr(error, "reason", None) or error) or type(error).__name__
        there = part.stat().st_size if part.exists() else 0
        if there < size:
            raise SetupError(f"{url} broke off after {there} of {size} bytes: {reason}", remedy="try again: it goes on from there")
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            part.unlink()
            raise SetupError(f"what {url} gives is not {path.name}: its digest is {digest[:12]}…, not {sha256[:12]}…")
        part.replace(path)
    except OSError as error:
        raise SetupError(f"{path} cannot be written: {reason_of(error)}") from error


def _go_on(url: str, part: Path, there: int, size: int, progress: Callable[[int], None]) -> None:
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        again = answer.status != 206  # the server gives all of it
        with part.open("wb" if again else "ab") as file:
            count = 0 if again else there
            while count < size and (block := answer.read(min(BLOCK, size - count))):
                file.write(block)
                count += len(block)
                progress(count)


def _check(url: str) -> None:
    parts = urlsplit(url)
    loopback = parts.hostname == "localhost"
    with suppress(ValueError):
        loopback = loopback or ipaddress.ip_address(parts.hostname or "").is_loopback
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise UsageError(f"{url} is neither https nor on this machine")
