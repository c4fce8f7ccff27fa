"""The run log: one JSON object a line, appended and flushed before the command it records is carried out.

`RunLog` writes, `read_log` reads. Keys come in one stable order, so that two runs of one plan on the virtual clock are equal bytes below
the header. A reader copes with a last line that was cut off, and says so. `schemas/runlog.schema.json` is the format.

Pure but for the file that it is given: no clock (times come in), no environment.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import IO, Any

import orjson

from playbook import events
from playbook.errors import RecordError, reason_of
from playbook.events import Effect, Event
from playbook.formats.source import need_file
from playbook.model import Evidence
from playbook.record.redact import Redactor

VERSION = 1
MAX_LINE = 4_000_000
"""Longer lines are no lines of ours (a playbook is at most a few megabytes)."""

# What each thing is called in the log and which of its attributes are written, in this order, when they say something.
_NAMES: dict[type, tuple[str, str]] = {
    events.SessionOpened: ("event", "session_opened"),
    events.TaskAccepted: ("event", "task_accepted"),
    events.SpeechStarted: ("event", "speech_started"),
    events.SpeechEnded: ("event", "speech_ended"),
    events.TimerFired: ("event", "timer_fired"),
    events.Trigger: ("event", "trigger"),
    events.Signal: ("event", "signal"),
    events.ProviderFailed: ("event", "provider_failed"),
    events.SessionClosed: ("event", "session_closed"),
    events.StopRequested: ("event", "stop_requested"),
    events.SourceJoined: ("event", "source_joined"),
    events.SourceLeft: ("event", "source_left"),
    events.Sound: ("event", "sound"),
    events.Silence: ("event", "silence"),
    events.ViewerJoined: ("event", "viewer_joined"),
    events.ViewerLeft: ("event", "viewer_left"),
    events.OpenSession: ("command", "open_session"),
    events.SayText: ("command", "say"),
    events.PlayAudio: ("command", "play_audio"),
    events.StopSpeaking: ("command", "interrupt"),
    events.StartTimer: ("command", "start_timer"),
    events.CancelTimer: ("command", "cancel_timer"),
    events.CloseSession: ("command", "close_session"),
    events.TimelineZero: ("note", "timeline_zero"),
    events.StepStarted: ("note", "step_started"),
    events.StepFinished: ("note", "step_finished"),
    events.StepSkipped: ("note", "step_skipped"),
    events.Late: ("note", "late"),
    events.Ignored: ("note", "ignored"),
    events.Conflict: ("note", "conflict"),
    events.GradeRaised: ("note", "grade_raised"),
    events.GradeLowered: ("note", "grade_lowered"),
}
FIELDS = (
    "name",
    "step",
    "task",
    "source",
    "viewer",
    "provider_task",
    "session",
    "trigger",
    "text",
    "chunk",
    "final",
    "audio_sha256",
    "due_ms",
    "late_ms",
    "duration_ms",
    "ago_ms",
    "silent_ms",
    "within_ms",
    "evidence",
    "interrupted",
    "heard_ms",
    "heard",
    "outcome",
    "cause",
    "reason",
    "status",
)
_SPOKEN = {"name", "viewer", "provider_task", "session", "trigger", "text", "heard", "reason", "status"}  # where a secret could stand
_ATTRIBUTES = {cls: tuple(name for name in FIELDS if name in cls.__dataclass_fields__) for cls in _NAMES}  # type: ignore[attr-defined]  # all are dataclasses
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(FIELDS, (str,)),
    **dict.fromkeys(("chunk", "due_ms", "late_ms", "duration_ms", "ago_ms", "silent_ms", "within_ms", "heard_ms"), (int,)),
    **dict.fromkeys(("final", "interrupted"), (bool,)),
    "status": (int, str),
}
_NEEDED = {
    kind_and_name: frozenset(
        name
        for name in _ATTRIBUTES[cls]
        if name != "interrupted" and "None" not in str(cls.__dataclass_fields__[name].type)  # type: ignore[attr-defined]  # as above
    )
    for cls, kind_and_name in _NAMES.items()
}
"""What a line of each kind always has."""
_EVENTS = {name: cls for cls, (kind, name) in _NAMES.items() if kind == "event"}

Line = dict[str, Any]


def to_line(item: Event | Effect, n: int, at_ms: int) -> Line:
    """One line of the log, as data. A say line shows its text as it may be shown."""
    cls = type(item)
    kind, name, fields, values = _SHAPES[cls]
    line: Line = {"n": n, "at_ms": at_ms, kind: name}
    for field, value in zip(fields, values(item), strict=True):
        if value is not None:
            line[field] = value
    if cls in _GRADED:
        line["evidence"] = line["evidence"].name
        if line.get("interrupted") is False:
            del line["interrupted"]
    elif isinstance(item, events.SayText):
        if item.shown is not None:
            line["text"] = item.shown
    elif cls in _TIMED:
        line["reason"] = line["reason"].value
        if cls is events.TimerFired and at_ms > line["due_ms"]:
            line["late_ms"] = at_ms - line["due_ms"]
    elif cls is events.StopRequested:
        line["cause"] = line["cause"].value
    return line


def _values(fields: tuple[str, ...]) -> Callable[[Event | Effect], tuple[Any, ...]]:
    """All of an item's fields at once: this is the busiest place of a run."""
    if len(fields) > 1:
        getter: Callable[[Event | Effect], tuple[Any, ...]] = attrgetter(*fields)
        return getter
    return lambda item: tuple(getattr(item, field) for field in fields)


_SHAPES = {cls: (*kind_and_name, _ATTRIBUTES[cls], _values(_ATTRIBUTES[cls])) for cls, kind_and_name in _NAMES.items()}
_GRADED = (events.SpeechStarted, events.SpeechEnded, events.SourceJoined, events.GradeRaised, events.GradeLowered)
_TIMED = (events.TimerFired, events.StartTimer, events.CancelTimer)


def to_event(line: Mapping[str, Any]) -> Event | None:
    """The event that a line records, if it records one that came from outside (the engine settles some itself)."""
    cls = _EVENTS.get(line.get("event", ""))
    if cls is None or line.get("outcome") == "settled":
        return None
    values = {field: line[field] for field in _ATTRIBUTES[cls] if field in line}
    try:
        if cls is events.TimerFired:
            values.setdefault("step", None)  # a timer of the run itself
            values["reason"] = events.Timer(values["reason"])
        if cls is events.StopRequested:
            values["cause"] = events.StopCause(values["cause"])
        for field, value in values.items():
            if not isinstance(value, _TYPES[field]) and not (value is None and field == "step"):
                raise TypeError(f"{field} is {value!r}")
        if "evidence" in values:
            values["evidence"] = Evidence[values["evidence"]]
        event: Event = cls(**values)
        return event
    except (TypeError, KeyError, ValueError) as error:
        raise RecordError(f"line {line.get('n')}: not a {line.get('event')}: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line: which run this is and of what. It is written in the order of these fields."""

    runlog: int = VERSION
    run: str
    playbook: str
    file: str
    plan_sha256: str
    provider: str
    clock: str
    started_at: str
    versions: Mapping[str, str]

    def to_line(self) -> Line:
        """As written."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class RunLog:
    """Appends to a log file. Raises `OSError` when the disk refuses; the caller decides what becomes of the run.

    `redact` is applied to every string in which a secret could stand. `watch` sees each line after it was written.
    """

    def __init__(self, path: Path, *, redact: Redactor | None = None, watch: Callable[[Line], None] | None = None) -> None:
        self.path = path
        self._redact = redact if redact is not None else Redactor()
        self._watch = watch
        self._n = self._whole = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND  # to be read meanwhile, and written at its end alone
        self._file: IO[bytes] = open(os.open(path, flags, 0o666), "rb+", buffering=0)  # noqa: SIM115  # closed by `close`

    def header(self, header: Header) -> None:
        """Write the first line."""
        self._put([header.to_line()])

    def write(self, items: Iterable[Event | Effect], at_ms: int) -> list[Line]:
        """Write one line for each item, in one flush. Gives the lines."""
        lines = []
        for item in items:
            self._n += 1
            lines.append(to_line(item, self._n, at_ms))
        self._put(lines)
        return lines

    def end(self, at_ms: int, end: str, reason: str | None, counts: Mapping[str, int]) -> Line:
        """Write the last line, and make sure that everything is on the disk. Gives that line."""
        self._n += 1
        line: Line = {"n": self._n, "at_ms": at_ms, "end": end}
        if reason is not None:
            line["reason"] = reason
        line["counts"] = dict(counts)
        self._put([line])
        os.fsync(self._file.fileno())
        return line

    def lines(self) -> Iterator[Line]:
        """What stands below the header by now, read back: also where somebody has deleted the file. Raises `ValueError` when it is not what
        was written."""
        n = 0
        with open(os.dup(self._file.fileno()), "rb") as file:
            file.seek(0)
            if not file.readline().startswith(b'{"runlog":'):
                raise ValueError("the header is damaged")
            for raw in file:
                if raw.endswith(b"\n"):  # else a full disk has torn it
                    n += 1
                    yield orjson.loads(raw)
        if n != self._whole:
            raise ValueError(f"{self._whole} lines were written, and {n} are there")

    def close(self) -> None:
        """Let go of the file. A log that somebody deleted during the run is written anew from what we still hold."""
        file = self._file
        if file.closed:
            return
        try:
            if os.fstat(file.fileno()).st_nlink == 0 and self.path.parent.is_dir():
                file.seek(0)
                with contextlib.suppress(FileExistsError), open(self.path, "xb") as anew:  # whatever is there is somebody else's
                    anew.write(file.read())
        finally:
            file.close()

    def _put(self, lines: list[Line]) -> None:
        if self._redact:
            for line in lines:
                for key in _SPOKEN & line.keys():
                    if isinstance(line[key], str):
                        line[key] = self._redact(line[key])
        data = b"".join(map(encode_line, lines))
        while data:
            data = data[self._file.write(data) :]
        self._whole = self._n
        if self._watch is not None:
            for line in lines:
                self._watch(line)


@dataclass(slots=True)
class LogReader:
    """A log being read: iterate over its lines below the header, which are in order and in time. `header` is there from the start;
    `complete` says, at the end, whether the last line was reached; `damage` what was wrong with the place where reading had to stop."""

    header: Line
    complete: bool
    damage: str | None
    _lines: Iterator[bytes]

    def __iter__(self) -> Iterator[Line]:
        expected, at_ms = 1, 0
        for raw in self._lines:
            line = _parse(raw)
            if line is None:
                self.damage = f"line {expected + 1} is cut off or damaged"
                return
            if line.get("n") != expected:
                self.damage = f"line {expected + 1} should be number {expected} and is number {line.get('n')}"
                return
            now_ms = line.get("at_ms")
            if type(now_ms) is not int or now_ms < at_ms:
                self.damage = f"line {expected + 1}: time goes back" if type(now_ms) is int else f"line {expected + 1} has no time"
                return
            at_ms = now_ms
            _check(line)
            expected += 1
            if "end" in line:
                self.complete = True
            yield line
            if self.complete:
                rest = next(self._lines, None)
                self.damage = None if rest is None else "there is more after the last line"
                return
        self.damage = "the log ends before its last line"


def read_log(path: Path) -> LogReader:
    """Open a log (or the `run.jsonl` of a run folder) for reading, line by line, in flat memory. Raises `RecordError` when it is none."""
    if path.is_dir():
        path = path / "run.jsonl"
    lines = _raw_lines(path)
    first = next(lines, None)
    if first is None:
        raise RecordError(f"{path} is empty")
    header = _parse(first)
    if header is None or "runlog" not in header:
        raise RecordError(f"{path} is not a run log", remedy="a run log begins with a line that has 'runlog'")
    if not isinstance(header["runlog"], int) or header["runlog"] > VERSION:
        raise RecordError(
            f"{path} is a run log of version {header['runlog']}; this program reads up to {VERSION}", remedy="update playbook"
        )
    return LogReader(header, False, None, lines)


def encode_line(line: Mapping[str, Any]) -> bytes:
    """Data as one line of JSON."""
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half a surrogate pair, from a vendor or in a file's name; no reader would take it
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        return text.encode("utf-8", "replace") + b"\n"


def _raw_lines(path: Path) -> Iterator[bytes]:
    try:
        with need_file(path).open("rb") as file:
            while line := file.readline(MAX_LINE):
                yield line
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {reason_of(error)}") from error


def _check(line: Line) -> None:
    """What a line of its kind always has must be there, and whatever we know of must be of its type. Raises `RecordError`."""
    kind = next((kind for kind in ("event", "command", "note", "end") if kind in line), None)
    name = line[kind] if kind is not None else None
    if not isinstance(name, str):
        raise RecordError(f"line {line['n']}: not a line of a run log")
    needed = _NEEDED.get((str(kind), name), frozenset())
    wrong = next((field for field in sorted(line.keys() & _TYPES.keys()) if not isinstance(line[field], _TYPES[field])), None)
    if missing := needed - line.keys():
        raise RecordError(f"line {line['n']}: not a {name}: it has no {min(missing)}")
    if wrong is not None or not isinstance(line.get("counts", {}), dict):
        raise RecordError(f"line {line['n']}: not a {name}: {wrong or 'counts'} is {line[wrong or 'counts']!r}")


def _parse(raw: bytes) -> Line | None:
    if not raw.endswith(b"\n"):
        return None
    try:
        line = orjson.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None
