"""The sounds of a playbook: their digests and lengths. A file is measured once, however often it is played."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import wave
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playbook.formats.source import OUTSIDE, Node, absolute, is_outside, unreadable
from playbook.formats.wanted import in_words
from playbook.language.times import Times
from playbook.model import AudioEcho


class _NoSound(Exception):
    """Why there is no sound: `code` says whether it cannot be read (PB404), or is not audio (PB405)."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(slots=True)
class Sounds:
    """Measures sounds. `known` are those of all steps, by digest: where a file is, or the bytes."""

    length_ms: Callable[[Path | bytes], int]
    root: Path | None = None
    """Sound files must be in this folder."""
    known: dict[str, str | bytes] = field(default_factory=dict)
    _measured: dict[str, tuple[str, int] | _NoSound] = field(default_factory=dict)

    def of_file(self, node: Node, relative: str, times: Times, *, skipped: bool) -> AudioEcho | None:
        """A sound file, or None with the reason among the findings. One that is missing may be skipped."""
        path = str(absolute(node.document.path.parent / relative))
        if path not in self._measured:
            try:
                self._measured[path] = self._measure(Path(path))
            except _NoSound as error:
                self._measured[path] = error
        found = self._measured[path]
        if not isinstance(found, _NoSound):
            digest, duration_ms = found
            self.known.setdefault(digest, path)
            return AudioEcho(relative, digest, duration_ms)
        if skipped and found.code == "PB404":
            return AudioEcho(relative, "", 0)
        missing = found.code == "PB404"
        what = "cannot be read" if missing else "is not audio"
        remedy = "the path counts from the file it is written in" if missing else "WAV, FLAC, OGG and MP3 can be played"
        at = node.get("file") or node
        times.fail(found.code, f"the sound {in_words(relative)} {what}: {found}", at.place, remedy)
        return None

    def of_samples(self, node: Node, value: Mapping[str, Any], times: Times) -> AudioEcho | None:
        """A sound that is written out, or None with the reason among the findings."""
        at = node.get("base64") or node
        try:
            samples = base64.b64decode("".join(value["base64"].split()), validate=True)
        except (binascii.Error, ValueError):
            times.fail("PB406", "the sound is not base64", at.place, "encode the samples with base64")
            return None
        if not samples or len(samples) % 2:
            message = "the sound has no samples" if not samples else "the sound has half a sample too many"
            times.fail("PB405", message, at.place, "pcm16 has two bytes a sample")
            return None
        sound = _wav(samples, value["sample_rate"])
        digest = hashlib.sha256(sound).hexdigest()
        self.known[digest] = sound
        frames, rate = len(samples) // 2, int(value["sample_rate"])
        return AudioEcho("base64", digest, (frames * 1000 + rate // 2) // rate)

    def _measure(self, path: Path) -> tuple[str, int]:
        """Digest and length of a sound file. Raises `_NoSound`."""
        try:
            if is_outside(path, self.root):
                raise _NoSound("PB404", f"it is outside of {self.root}; {OUTSIDE}")
            if path.exists() and not path.is_file():  # a device may never end, and a pipe never begin
                raise _NoSound("PB404", "it is no file")
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except (OSError, ValueError) as error:
            raise _NoSound("PB404", unreadable(error)) from error
        try:
            return digest, self.length_ms(path)
        except ValueError as error:
            raise _NoSound("PB405", str(error)) from error


def _wav(samples: bytes, rate: int) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples)
    return stream.getvalue()
