"""A kiosk file to data, with every problem of the file itself. What it names is read by `check`.

The schema (`schemas/kiosk.schema.json`) is the format. There are no templates in it. Whatever is wrong comes out
together, with its place.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from playbook.formats.durations import parse_duration
from playbook.formats.findings import Findings
from playbook.formats.schema import Schema, load_schema
from playbook.formats.source import Node, Reader, absolute
from playbook.formats.validate import Format, validate
from playbook.formats.wanted import in_words
from playbook.kiosk.hours import Hours, Range, read_dates, read_days, read_range
from playbook.kiosk.times import Times

CAPTIONS = "captions"
"""The rung that shows the text in silence, and cannot fail."""
RESERVED = ("hold", "resume", "skip", "goto", "panic", "end")
"""Signals that steer a show; none of them can ask for one."""
IDLE = "idle"
"""The idle show's name, where it is a playbook that no show names."""
KEEP_MS = 600_000
EVERY_MS = 120_000
Over = Literal["defer", "cut", "drop"]


@dataclass(frozen=True, slots=True)
class Show:
    """A playbook and the values of its variables. `shown` is the playbook's name for people."""

    name: str
    playbook: Path
    shown: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Play:
    """A reason for a show: a signal (`on`) or moments (`times`)."""

    show: str
    on: str | None = None
    times: Times | None = None
    cooldown_ms: int = 0
    over: Over = "defer"


@dataclass(frozen=True, slots=True)
class Idle:
    """What is shown between shows. `look` is the audience's page; `show` is performed again and again, `every_ms`
    apart."""

    look: Literal["face", "captions", "black"] = "face"
    show: str | None = None
    every_ms: int = EVERY_MS


@dataclass(frozen=True, slots=True)
class Mqtt:
    """A broker, and what all topics begin with."""

    url: str
    topic: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kiosk:
    """A kiosk file as data."""

    name: str
    hours: Hours
    shows: Mapping[str, Show]
    ladder: tuple[str, ...]
    plays: tuple[Play, ...] = ()
    idle: Idle = Idle()
    keep_ms: int = KEEP_MS
    per_day: float | None = None
    keep_runs_days: int | None = None
    http_port: int | None = None
    mqtt: Mqtt | None = None

    @property
    def zone(self) -> zoneinfo.ZoneInfo:
        return self.hours.zone

    @property
    def files(self) -> tuple[Path, ...]:
        """The playbooks that it names, each once."""
        return tuple(dict.fromkeys(show.playbook for show in self.shows.values()))


@lru_cache(maxsize=1)
def kiosk_format() -> Format:
    """The schema of kiosk files."""
    return Format(Schema(load_schema("kiosk.schema.json")))


def read_kiosk(path: Path, findings: Findings) -> tuple[Kiosk | None, Node | None]:
    """The kiosk of a file, and the file's root. None where something is wrong; the findings say what."""
    root = Reader(findings).read(path, str(path))
    if root is None:
        return None, None
    if not isinstance(root.data, dict):
        findings.add("PB201", f"a kiosk file is a mapping, not {in_words(root.data)}", root.place, "begin with `version: 1`")
        return None, root
    if not validate(root, kiosk_format(), "", findings, data=root.data, stage="rendered"):
        return None, root
    kiosk = _File(root, path, findings).kiosk()
    return (None if findings.failed else kiosk), root


class _File:
    """What the schema cannot say of a file that it accepts."""

    def __init__(self, root: Node, path: Path, findings: Findings) -> None:
        self._root, self._path, self._findings = root, path, findings
        self._shows = {name: self._show(name, node) for name, node in self._node("shows").items()}

    def _node(self, *path: str | int) -> Node:
        return self._root.at(path)

    def kiosk(self) -> Kiosk:
        data = self._root.data
        zone = self._zone()
        name = str(data["kiosk"])
        idle = self._idle(data.get("idle", "face"))
        self._doubt_ladder()
        controls = data.get("controls", {})
        mqtt = controls.get("mqtt")
        return Kiosk(
            name=name,
            hours=self._hours(zone),
            shows=self._shows,
            ladder=tuple(data["ladder"]),
            plays=tuple(self._play(node, zone) for node in self._entries("play")),
            idle=idle,
            keep_ms=parse_duration(data.get("session", {}).get("keep", KEEP_MS / 1000)),
            per_day=data.get("budget", {}).get("per_day"),
            keep_runs_days=int(data["keep_runs"][:-1]) if "keep_runs" in data else None,
            http_port=controls["http"].get("port", 8080) if "http" in controls else None,
            mqtt=Mqtt(mqtt["url"], mqtt.get("topic", name)) if mqtt is not None else None,
        )

    def _entries(self, key: str) -> list[Node]:
        node = self._root.get(key)
        return [] if node is None else node.entries()

    def _zone(self) -> zoneinfo.ZoneInfo:
        name = self._root.data["timezone"]
        try:
            return zoneinfo.ZoneInfo(name)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            zones = zoneinfo.available_timezones()
            remedy = self._findings.guess(name, sorted(zones), "write a name such as Europe/Berlin")
            self._findings.add("PB501", f"there is no time zone '{name}'", self._node("timezone").place, remedy)
            return zoneinfo.ZoneInfo("UTC")

    # --- opening hours

    def _hours(self, zone: zoneinfo.ZoneInfo) -> Hours:
        written = self._root.get("open")
        if written is None:
            return Hours(zone)
        week: list[tuple[Range, ...]] = [()] * 7
        named: dict[int, str] = {}
        days: dict[dt.date, tuple[Range, ...]] = {}
        for key, node in written.items():
            if key == "except":
                for entry in node.entries():
                    days.update(self._exceptions(entry))
                continue
            for day in read_days(key):
                if day in named:
                    message = f"'{key}' names a day that '{named[day]}' has named"
                    self._findings.add("PB503", message, written.key_place(key), "name each day once")
                named[day], week[day] = key, self._ranges(node)
        hours = Hours(zone, tuple(week), days)
        if not any(week) and not any(days.values()):
            remedy = 'name at least one day, such as `mon-fri: "09:00-18:00"`'
            self._findings.add("PB504", "the opening hours are never", written.place, remedy)
        return hours

    def _exceptions(self, entry: Node) -> dict[dt.date, tuple[Range, ...]]:
        found: dict[dt.date, tuple[Range, ...]] = {}
        pairs = [(key, entry.key_place(key), self._ranges(hours)) for key, hours in entry.items()]
        for text, place, ranges in pairs or [(entry.data, entry.place, ())]:
            dates = read_dates(text)
            if dates is None:
                self._findings.add("PB505", f"'{text}' is no date", place, "write 2026-12-24, or 2026-12-24..2027-01-01")
            found.update(dict.fromkeys(dates or (), ranges))
        return found

    def _ranges(self, node: Node) -> tuple[Range, ...]:
        ranges = []
        for written in node.entries() or [node]:
            found = read_range(written.data)
            if found is None:
                remedy = 'all day is "00:00-24:00"'
                self._findings.add("PB502", f"the hours {written.data} begin when they end", written.place, remedy)
            else:
                ranges.append(found)
        return tuple(ranges)

    # --- shows

    def _show(self, name: str, node: Node) -> Show:
        return self._made(name, node.data["playbook"], node.data.get("vars", {}))

    def _made(self, name: str, written: str, values: Mapping[str, Any]) -> Show:
        path = absolute(self._path).parent / written
        return Show(name, path, str(self._path.parent / written), values)

    def _idle(self, written: Any) -> Idle:
        if isinstance(written, str):
            return Idle(look=written)  # type: ignore[arg-type]  # the schema has seen to it
        named, every = written["show"], parse_duration(written.get("every", EVERY_MS / 1000))
        if named in self._shows:
            return Idle(show=named, every_ms=every)
        if not named.endswith((".yaml", ".yml", ".json")):
            self._unknown_show(named, self._node("idle", "show"))
        name = IDLE if IDLE not in self._shows else named
        self._shows[name] = self._made(name, named, {})
        return Idle(show=name, every_ms=every)

    def _play(self, node: Node, zone: zoneinfo.ZoneInfo) -> Play:
        data = node.data
        if data["show"] not in self._shows:
            self._unknown_show(data["show"], node.at(["show"]))
        on, times = data.get("on"), None
        if on in RESERVED:
            message = f"no control can ask for a show by '{on}': that signal steers the show that is being performed"
            self._findings.add("PB507", message, node.at(["on"]).place, "name the signal otherwise")
        if "cron" in data:
            try:
                times = Times(data["cron"], zone)
            except ValueError as error:
                self._findings.add("PB508", f"the cron time '{data['cron']}' {error}", node.at(["cron"]).place)
        return Play(data["show"], on, times, parse_duration(data.get("cooldown", 0)), data.get("over", "defer"))

    def _unknown_show(self, name: str, node: Node) -> None:
        self._findings.add(
            "PB506", f"there is no show '{name}'", node.place, self._findings.guess(name, self._shows, "name one of `shows`")
        )

    def _doubt_ladder(self) -> None:
        seen: set[str] = set()
        for node in self._entries("ladder"):
            if node.data in seen or CAPTIONS in seen:
                why = "is named twice" if node.data in seen else "stands below captions, which cannot fail"
                self._findings.add("PB509", f"the rung '{node.data}' {why}", node.place, "it would never be used: remove it")
            seen.add(node.data)
