"""One step as rendered to one step of the plan: what it does, when, and what is expected of it.

Durations become milliseconds, and a sound its digest and its length; a file is measured once, however often it is played. What is wrong is
noted where it is written, and leaves no step. What came out of a secret is kept together with what may be shown of it.
"""

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

from playbook.errors import MASK, Place
from playbook.events import words
from playbook.formats.durations import parse_duration, show_duration
from playbook.formats.findings import Findings
from playbook.formats.source import Node, absolute, unreadable
from playbook.language.check import WrittenStep
from playbook.language.judge import show
from playbook.language.render import Renderer
from playbook.language.templates import work_of
from playbook.model import Action, AudioEcho, Chunk, End, Evidence, Expect, InterruptSpeech, Length, Say, Step, Wait, WaitEvent, WaitSpeech

_PLAUSIBLE_S = {"at": 1_000, "timeout": 1_000, "max_duration": 10_000, "until": 1_000_000}
"""From how many on a bare number of seconds is doubted, where it is not 100. (An `until` is compared with its line.)"""
_SOUND_REMEDY = {
    "PB404": "the path counts from the file it is written in",
    "PB405": "WAV, FLAC, OGG and MP3 can be played",
}


@dataclass(slots=True)
class Builder:
    """Makes the steps of one playbook. `sounds` are those of all of them, by digest: where a file is, or the bytes."""

    sound_length_ms: Callable[[Path | bytes], int]
    sounds: dict[str, str | bytes] = field(default_factory=dict)
    _measured: dict[str, tuple[str, int] | str] = field(default_factory=dict)

    def build(self, step: WrittenStep, data: Mapping[str, Any], id: str, times: Times, place: Place, skipped: str | None) -> Step | None:
        """The step, or None with the reason among the findings."""
        action = self._action(step, data[step.verb], times, skipped)
        until = data.get("until", "ended")
        if until not in ("accepted", "started", "ended"):
            until = times.ms(until, "until")
        at_ms, timeout_ms = times.optional(data, "at"), times.optional(data, "timeout")
        expect = build_expect(data.get("expect"), times, "expect")
        if action is None or times.failed:
            return None
        name = data.get("name", "")
        shown = times.renderer.shown.get(step.node.at(["name"])) if times.renderer.shown else None
        return Step(
            id=id,
            action=action,
            name=name if shown is None else shown,
            at_ms=at_ms,
            until=until,
            timeout_ms=timeout_ms,
            on_error=data.get("on_error", "fail"),
            skipped=skipped,
            expect=expect,
            length=known_length(action),
            place=place,
            via=times.via,
        )

    def _action(self, step: WrittenStep, value: Any, times: Times, skipped: str | None) -> Action | None:
        if step.verb == "say":
            return _say(step.node.at(["say"]), value, times)
        if step.verb == "audio-echo":
            return self._echo(step.node.at(["audio-echo"]), value, times, skipped)
        if step.verb == "wait":
            if value == "speech":
                return WaitSpeech()
            if isinstance(value, dict):
                return WaitEvent(value["event"], times.optional(value, "timeout", "wait", "timeout"), value.get("on_timeout", "fail"))
            return Wait(times.ms(value, "wait"))
        return InterruptSpeech() if step.verb == "interrupt" else End(drain=(value or {}).get("drain", True))

    def _echo(self, node: Node, value: Any, times: Times, skipped: str | None) -> AudioEcho | None:
        if isinstance(value, dict) and "base64" in value:
            return self._samples(node, value, times)
        relative = value["file"] if isinstance(value, dict) else value
        path = str(absolute(node.document.path.parent / relative))
        found = self._measured.get(path)
        if found is None:
            found = self._measured[path] = self._measure(Path(path))
        at = node.get("file") or node
        if isinstance(found, str):
            code = "PB405" if found.startswith("!") else "PB404"
            if skipped is None or code == "PB405":
                reason = found.removeprefix("!")
                what = "is not audio" if code == "PB405" else "cannot be read"
                times.findings.add(code, f"the sound {show(relative)} {what}: {reason}", at.place, _SOUND_REMEDY[code], via=times.via)
                return None
            return AudioEcho(relative, "", 0)
        digest, duration_ms = found
        self.sounds.setdefault(digest, path)
        return AudioEcho(relative, digest, duration_ms)

    def _measure(self, path: Path) -> tuple[str, int] | str:
        """Digest and length of a sound file, or why there is none (`!`: it can be read, but it is no sound)."""
        try:
            if path.exists() and not path.is_file():  # a device may never end, and a pipe never begin
                return "it is no file"
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except (OSError, ValueError) as error:
            return unreadable(error)
        try:
            return digest, self.sound_length_ms(path)
        except ValueError as error:
            return f"!{error}"

    def _samples(self, node: Node, value: Mapping[str, Any], times: Times) -> AudioEcho | None:
        at = node.get("base64") or node
        try:
            samples = base64.b64decode("".join(value["base64"].split()), validate=True)
        except (binascii.Error, ValueError):
            times.findings.add("PB406", "the sound is not base64", at.place, "encode the samples with base64", via=times.via)
            return None
        if not samples or len(samples) % 2:
            message = "the sound has no samples" if not samples else "the sound has half a sample too many"
            times.findings.add("PB405", message, at.place, "pcm16 has two bytes a sample", via=times.via)
            return None
        stream = io.BytesIO()
        with wave.open(stream, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(value["sample_rate"])
            file.writeframes(samples)
        sound = stream.getvalue()
        digest = hashlib.sha256(sound).hexdigest()
        self.sounds[digest] = sound
        frames, rate = len(samples) // 2, int(value["sample_rate"])
        return AudioEcho("base64", digest, (frames * 1000 + rate // 2) // rate)


def _say(node: Node, value: Any, times: Times) -> Say | None:
    shown = times.renderer.shown
    if isinstance(value, str):
        return Say((Chunk(value, 0, shown.get(node) if shown else None),))
    voice = value.get("voice")
    if "text" in value:
        return Say((Chunk(value["text"], 0, _shown(shown, node, "text")),), voice)
    chunks: list[Chunk] = []
    pause: int | None = None
    for number, piece in enumerate(value["chunks"]):
        if isinstance(piece, dict):
            if not chunks or number == len(value["chunks"]) - 1:
                at = node.at(["chunks", number])
                times.findings.add("PB407", "a pause stands between two pieces of text", at.place, "use a wait step", via=times.via)
                return None
            pause = (pause or 0) + times.ms(piece["wait"], "say", "chunks", number, "wait")
        else:
            chunks.append(Chunk(piece, pause or 0, _shown(shown, node, "chunks", number)))
            pause = None
    return Say(tuple(chunks), voice)


@dataclass(slots=True)
class Times:
    """Turns durations into milliseconds and collects what is wrong with them."""

    node: Node
    findings: Findings
    via: tuple[Place, ...]
    renderer: Renderer
    failed: bool = False

    def ms(self, value: object, *path: str | int) -> int:
        """A duration in milliseconds; `path` leads to where it is written. What is no duration is noted, and 0 stands for it."""
        try:
            ms = parse_duration(value)
            if ms >= 100_000 and isinstance(value, (int, float)):
                self._doubt(ms, value, path)
            return ms
        except ValueError as error:
            written = self.node.at(path)
            given = "what it gives" if self.renderer.tainted(written) else show(value)
            what = next(str(key) for key in reversed(path) if isinstance(key, str))
            self.findings.add("PB208", f"{what} must be a duration; {given} {error}", written.place, via=self.via)
            self.failed = True
            return 0

    def _doubt(self, ms: int, value: float, path: tuple[str | int, ...]) -> None:
        """Doubt so many seconds, when they are written as a bare number."""
        written = self.node.at(path)
        key = next(str(each) for each in reversed(path) if isinstance(each, str))
        minutes = value % 60 == 0 and (value % 100 != 0 or value >= 1800)  # somebody who reckons in minutes: 120, 1800, 3600
        if ms >= _PLAUSIBLE_S.get(key, 100) * 1000 and not minutes and not written.templated:
            remedy = f"a bare number is seconds: write {show_duration(ms)}, or {value}ms for milliseconds"
            message = f"{key} is {show_duration(ms)}"
            self.findings.add("PB434", message, written.place, remedy, via=self.via, severity="warning")

    def optional(self, data: Mapping[str, Any], key: str, *path: str | int) -> int | None:
        """The same for a key that may be missing."""
        return self.ms(data[key], *(path or (key,))) if key in data else None


def build_expect(value: Any, times: Times, *path: str) -> Expect | None:
    """An `expect`, of a step or of the playbook, from its rendered data."""
    if value is None:
        return None
    lasts = value.get("lasts", {})
    least = times.optional(lasts, "min", *path, "lasts", "min")
    most = times.optional(lasts, "max", *path, "lasts", "max")
    if least is not None and most is not None and least > most:
        place = times.node.at([*path, "lasts"]).place
        times.findings.add("PB420", "`min` is longer than `max`", place, "swap them", via=times.via)
        times.failed = True
    absent = value.get("absent", ())
    heard, part = value.get("heard"), isinstance(value.get("heard"), Mapping)
    node = times.node.at([*path, "heard", *(["contains"] if part else [])])
    wanted = times.renderer.shown.get(node, heard["contains"] if part else heard)  # it is compared with the log, which masks the line alike
    if wanted is not None and not words(wanted):
        times.findings.add("PB420", "there is no word in it to listen for", node.place, "punctuation is not heard", via=times.via)
        times.failed = True
    return Expect(
        evidence=Evidence[value["evidence"]] if "evidence" in value else None,
        starts_within_ms=times.optional(value, "starts_within", *path, "starts_within"),
        lasts_min_ms=least,
        lasts_max_ms=most,
        heard=None if part else wanted,
        heard_contains=wanted if part else None,
        absent=(absent,) if isinstance(absent, str) else tuple(absent),
        status=value.get("status"),
    )


def size(node: Node, value: Any) -> int:
    """The work of making a step: what is written, and what is said (which an alias may have brought)."""
    said = value if isinstance(value, str) else (value.get("text") or value.get("base64") or "") if isinstance(value, dict) else ""
    chunks = value.get("chunks", ()) if isinstance(value, dict) else ()
    return node.end - node.start + len(said) + work_of(chunks) * 4


def unperformed(step: WrittenStep) -> Action:
    """What stands in the plan for a skipped step that could not be rendered: the text as written."""
    value = step.node.data[step.verb]
    if step.verb == "say":
        return Say((Chunk(step.node.at(["say"]).raw),))
    if step.verb == "audio-echo":
        return AudioEcho(value if isinstance(value, str) else "base64", "", 0)
    if step.verb == "wait":
        return Wait(0)
    return InterruptSpeech() if step.verb == "interrupt" else End()


def known_length(action: Action) -> Length:
    if isinstance(action, AudioEcho):
        return Length(action.duration_ms)
    if isinstance(action, Wait):
        return Length(action.duration_ms)
    if isinstance(action, (Say, WaitSpeech, WaitEvent)):
        return Length(0, "estimated")
    return Length(0)


def _shown(shown: Mapping[Node, str], node: Node, *path: str | int) -> str | None:
    """How the scalar at a path may be shown, or None when it may be shown as it is."""
    if not shown:
        return None
    if node in shown:
        return MASK  # the whole thing came out of one secret expression
    for key in path:
        node = node.at([key])
        if node in shown:
            return shown[node] if key == path[-1] else MASK
    return None
