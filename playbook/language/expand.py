"""Steps as written to steps of the plan: includes, loops, conditions, ids.

Everything the author left to the planner is decided here, step by step: which file an `include` brings, how often `foreach` and `repeat`
go round, whether `when` holds, what the templates give. What comes out is flat.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import io
import re
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from playbook.errors import MASK, Place
from playbook.events import words
from playbook.language.check import WrittenStep, check_file_node, is_part
from playbook.language.durations import parse_duration, show_duration
from playbook.language.findings import Findings
from playbook.language.judge import judge, playbook_format, show
from playbook.language.render import Abandoned, Broken, Budget, Exhausted, Renderer, Scope
from playbook.language.source import Node, Reader, absolute, beside, unreadable
from playbook.language.templates import work_of
from playbook.language.variables import part_scope
from playbook.model import Action, AudioEcho, Chunk, End, Evidence, Expect, InterruptSpeech, Length, Say, Step, Wait, WaitEvent, WaitSpeech

MAX_INCLUDES = 20
_DECIDED = frozenset(("when", "foreach", "repeat", "as", "id", "with"))
"""Keys that are dealt with before a step is built."""
_NEARLY = re.compile(r"(?<!\{)\{[ ]*([A-Za-z_]\w*)[ ]*\}\}?(?!\})|\$\{?([A-Za-z_]\w*)\}?")
"""What is a variable in other languages, `{visitor}`, `$visitor`, `${visitor}`, or would be one with another brace, `{ visitor }}`."""
_MARKUP = re.compile(r"</?(?:speak|break|prosody|emphasis|phoneme|say-as)\b[^<>]*>?")
"""Tags of SSML."""
_PLAUSIBLE_S = {"at": 1_000, "timeout": 1_000, "max_duration": 10_000, "until": 1_000_000}
"""From how many on a bare number of seconds is doubted, where it is not 100. (An `until` is compared with its line.)"""


@dataclass(frozen=True, slots=True)
class Setting:
    """What surrounds a step: its names, where its file was included (as places and as paths), why it is skipped.

    `id` is the step's own id, or for a timeline what its steps' ids begin with.
    """

    scope: Scope
    via: tuple[Place, ...] = ()
    id: str = ""
    skipped: str | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class _Given:
    """What `with` gives for one name of a part, and what is known about it."""

    value: Any
    node: Node
    secret: bool
    unknown: bool


@dataclass(slots=True)
class Expansion:
    """The work on one playbook: `steps` and `sounds` grow as it goes. A step that depends on an unknown name is looked at and left out."""

    reader: Reader
    sound_length_ms: Callable[[Path | bytes], int]
    budget: Budget = field(default_factory=Budget)
    steps: list[Step] = field(default_factory=list)
    sounds: dict[str, str | bytes] = field(default_factory=dict)
    _written: dict[Path, list[WrittenStep] | None] = field(default_factory=dict)
    _ids: dict[str, Place] = field(default_factory=dict)
    _measured: dict[str, tuple[str, int] | str] = field(default_factory=dict)
    _ended: tuple[str, bool] | None = None

    @property
    def findings(self) -> Findings:
        """What is wrong goes here: one collection for reading and expanding."""
        return self.reader.findings

    @property
    def ended(self) -> bool:
        """Whether an `end` was reached that will be performed."""
        return self._ended is not None

    def timeline(self, steps: list[WrittenStep], setting: Setting) -> None:
        """Add a timeline's steps to the plan."""
        for step in steps:
            if step.valid:
                self._step(step, setting)
            else:
                self._glance(step, setting)

    def _glance(self, step: WrittenStep, setting: Setting) -> None:
        """Look at the templates of a step that cannot be made, so that their problems come out with the others."""
        if step.node.templated and "foreach" not in step.node.data:
            with contextlib.suppress(Broken):
                Renderer(setting.scope, self.findings, self.budget, setting.via).render(step.node)

    # loops and conditions

    def _step(self, step: WrittenStep, setting: Setting) -> None:
        children = step.node.data
        name = children.get("id") or f"{step.verb}-{step.number}"
        for suffix, scope in self._rounds(step.node, setting):
            renderer = Renderer(scope, self.findings, self.budget, setting.via)
            skipped = setting.skipped
            if skipped is None and "when" in children:
                try:
                    skipped = self._condition(step.node, renderer)
                except Broken:
                    continue
            inner = Setting(scope, setting.via, f"{setting.id}{name}{suffix}", skipped, setting.files)
            if step.verb == "include":
                self._include(step, inner)
            else:
                self._add(step, inner)

    def _count(self, node: Node, setting: Setting, steps: int = 1) -> None:
        """Take steps off the budget."""
        self.budget.steps -= steps
        if self.budget.steps < 0:
            self.findings.add(
                "PB408",
                "the playbook has more than 100,000 steps",
                node.place,
                "are the loops meant to go round so often?",
                via=setting.via,
            )
            raise Abandoned

    def _work(self, node: Node, work: int, setting: Setting) -> None:
        """Take work off the budget that a loop around this would multiply."""
        try:
            self.budget.spend(work)
        except Exhausted as exhausted:
            message = "the steps of this playbook are too much, all together"
            self.findings.add("PB408", message, node.place, "are the loops meant to go round so often?", via=setting.via)
            raise Abandoned from exhausted

    def _rounds(self, node: Node, setting: Setting) -> Iterator[tuple[str, Scope]]:
        """The rounds of `foreach` or `repeat`, as the end of the id and the names; one round without them."""
        scope = setting.scope
        data = node.data
        if "foreach" not in data and "repeat" not in data:
            self._count(node, setting)
            yield "", scope
            return
        key = "foreach" if "foreach" in data else "repeat"
        looped = node.at([key])
        renderer = Renderer(scope, self.findings, self.budget, setting.via, quiet=setting.skipped is not None)
        try:
            value = renderer.render(looped)
        except Broken:
            return
        name = data.get("as", "item")
        if key == "foreach" and "as" not in data:
            scope = replace(scope, unnamed=str(looped.data))
        if renderer.unknown:
            yield ".1", scope.bind(name, None, unknown=True) if key == "foreach" else scope
        elif key == "repeat":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100_000:
                code = "PB204" if isinstance(value, bool) or not isinstance(value, int) else "PB209"
                given = "what it gives" if renderer.shown else show(value)
                self.findings.add(code, f"repeat must be a whole number up to 100000, not {given}", looped.place, via=setting.via)
                return
            self._count(looped, setting, value)
            for number in range(1, value + 1):
                yield f".{number}", scope
        elif not isinstance(value, list):
            given = "what it gives" if renderer.shown else show(value)
            self.findings.add("PB204", f"foreach must be a list, not {given}", looped.place, via=setting.via)
        else:
            written = looped.entries()
            self._count(looped, setting, len(value))
            for number, item in enumerate(value, 1):
                self._work(looped, len(scope.values), setting)
                secret = renderer.tainted(written[number - 1] if written else looped)
                yield f".{number}", scope.bind(name, item, secret=secret)

    def _condition(self, node: Node, renderer: Renderer) -> str | None:
        """Why the step is skipped, or None."""
        when = node.at(["when"])
        value = renderer.render(when)
        if renderer.unknown:
            return None
        if not isinstance(value, bool):
            given = "what it gives" if renderer.shown else show(value)
            remedy = "compare it: {{ … == 'yes' }}"
            self.findings.add("PB204", f"when must be true or false, not {given}", when.place, remedy, via=renderer.via)
            raise Broken
        if value:
            return None
        return f"when: {when.data} is false" if when.templated else "when: false"

    # includes

    def _include(self, step: WrittenStep, setting: Setting) -> None:
        node = step.node
        written = node.at(["include"])
        renderer = Renderer(setting.scope, self.findings, self.budget, setting.via, quiet=setting.skipped is not None)
        try:
            relative = renderer.render(written)
            given = self._given(node, setting, renderer)
        except Broken:
            return
        if renderer.unknown and relative == written.data and written.templated:
            return  # which part this brings, nobody knows here
        if not isinstance(relative, str) or not relative.strip():
            self.findings.add("PB204", "include must be a path", written.place, via=setting.via)
            return
        path = absolute(node.document.path.parent / relative)
        file = beside(node.document.file, relative)
        if path in setting.files:
            chain = [*setting.files[setting.files.index(path) :], path]
            names = " -> ".join(each.name for each in chain)
            self.findings.add("PB116", f"a part includes itself: {names}", written.place, "break the circle", via=setting.via)
            return
        if len(setting.files) > MAX_INCLUDES:
            self.findings.add("PB117", f"includes are nested deeper than {MAX_INCLUDES}", written.place, via=setting.via)
            return
        root = self.reader.read(path, file, missing="PB115", at=written.place, via=setting.via)
        if root is None:
            return
        via = (*setting.via, written.place)
        if not is_part(root) and isinstance(root.data, dict):
            remedy = "a part has no provider, session, limits, start or expect"
            self.findings.add("PB118", f"{file} is a playbook, not a part", written.place, remedy, via=setting.via)
            return
        if path not in self._written:
            self._written[path] = check_file_node(root, self.findings, via)
        steps = self._written[path]
        if steps is None:
            return
        scope = self._part_scope(root, node, setting, given, via)
        self.timeline(steps, Setting(scope, via, f"{setting.id}/", setting.skipped, (*setting.files, path)))

    def _given(self, node: Node, setting: Setting, renderer: Renderer) -> dict[str, _Given]:
        """What `with` gives."""
        given = {}
        values = node.get("with")
        for name, child in values.items() if values is not None else ():
            single = Renderer(setting.scope, self.findings, self.budget, setting.via, quiet=renderer.quiet)
            value = single.render(child)
            given[name] = _Given(value, child, single.tainted(child), single.unknown)
        return given

    def _part_scope(self, root: Node, node: Node, setting: Setting, given: Mapping[str, _Given], via: tuple[Place, ...]) -> Scope:
        declared = root.get("vars")
        if declared is not None:
            written = declared.end - declared.start  # the defaults, which are judged each time
            self._work(node, written + sum(work_of(each.value) for each in given.values()), setting)
        names = declared.children if declared is not None and isinstance(declared.children, dict) else {}
        values: dict[str, tuple[object, Node]] = {}
        secret: set[str] = set()
        unknown: set[str] = set()
        for name, each in given.items():
            if name not in names:
                place = node.at(["with"]).key_place(name)
                declared_are = f"declared are {', '.join(names)}" if names else "the part declares no variables"
                remedy = self.findings.guess(name, names, declared_are)
                self.findings.add("PB311", f"the part declares no variable '{name}'", place, remedy, via=setting.via)
                continue
            if each.unknown:
                unknown.add(name)
            else:
                values[name] = (each.value, each.node)
            if each.secret:
                secret.add(name)
        outer = setting.scope
        loop = node.data.get("as", "item") if "foreach" in node.data else None
        if loop is not None:
            if loop in outer.unknown:
                unknown.add(loop)
            elif loop in names and loop not in values:
                values[loop] = (outer.values[loop], node.at(["foreach"]))
            if loop in outer.secret:
                secret.add(loop)
        scope = part_scope(declared, values, secret, unknown, self.findings, via)
        if loop is not None and loop not in names:
            scope = scope.bind(loop, outer.values[loop], secret=loop in secret, unknown=loop in unknown)
        return scope

    # one step

    def _add(self, step: WrittenStep, setting: Setting) -> None:
        node, place = step.node, self._place(step)
        renderer = Renderer(setting.scope, self.findings, self.budget, setting.via, quiet=setting.skipped is not None)
        skipped = setting.skipped
        if self._ended is not None:
            ending, conditional = self._ended
            if not conditional:
                self.findings.add("PB402", f"a step after '{ending}', which ends the show", place, "remove it, or the end", via=setting.via)
                return
            skipped = skipped or f"the show ends with '{ending}'"
        if step.verb == "end" and setting.via:
            self.findings.add("PB403", "a part may not end the show", place, "put `end:` into the playbook", via=setting.via)
            return
        if setting.id in self._ids:
            first = self._ids[setting.id]
            at = node.at(["id"]).place if "id" in node.data else place
            where = f"line {first.line}" if first.file == at.file else f"{first.file}:{first.line}"
            self.findings.add("PB401", f"a second step with the id '{setting.id}'", at, f"the first is on {where}", via=setting.via)
            return
        self._ids[setting.id] = place
        if step.verb == "say":
            self._doubt_text(node.at(["say"]), setting)
        data = node.data
        if node.templated:
            try:
                data = {key: renderer.render(child) for key, child in node.items() if key not in _DECIDED}
            except Broken:
                if skipped is not None:  # its templates need not make sense while its condition is false
                    action = _unperformed(step)
                    self.steps.append(Step(setting.id, action, skipped=skipped, length=_known_length(action), place=place, via=setting.via))
                return
            if renderer.unknown or not judge(
                node,
                playbook_format(),
                f"{step.verb}-step",
                self.findings,
                setting.via,
                data=data,
                stage="rendered",
                tainted=renderer.tainted,
            ):
                return
        built = self._build(step, data, setting, renderer, place, skipped)
        if built is None:
            return
        self.steps.append(built)
        if step.verb == "end" and skipped is None:
            self._ended = (setting.id, "when" in node.data)

    def _doubt_text(self, said: Node, setting: Setting) -> None:
        """Doubt text that other programs would not say as it is written."""
        for node in (said, *(child for _, child in said.items()), *said.at(["chunks"]).entries()):
            text = node.data
            if not isinstance(text, str) or not ("{" in text or "$" in text or "<" in text):
                continue
            for match in _NEARLY.finditer(node.raw):
                if name := setting.scope.name_like(match[1] or match[2]):
                    remedy = f'a variable is written "{{{{ {name} }}}}", in quotes or within text'
                    self._doubt("PB312", f"'{match[0]}' is said as it stands", node, match, remedy, setting)
            for match in islice(_MARKUP.finditer(node.raw), 1):
                remedy = "text is text: a pause is a `wait` step, or `chunks` with {wait: …}"
                self._doubt("PB313", f"the tag '{match[0]}' is no text", node, match, remedy, setting)

    def _doubt(self, code: str, message: str, node: Node, match: re.Match[str], remedy: str, setting: Setting) -> None:
        place = node.document.place(node.start + match.start(), node.start + match.end())
        self.findings.add(code, message, place, remedy, via=setting.via, severity="warning")

    @staticmethod
    def _place(step: WrittenStep) -> Place:
        return step.node.key_place(step.verb)

    def _build(
        self, step: WrittenStep, data: Mapping[str, Any], setting: Setting, renderer: Renderer, place: Place, skipped: str | None
    ) -> Step | None:
        self._work(step.node, _size(step.node, data[step.verb]), setting)
        times = Times(step.node, self.findings, setting.via, renderer)
        action = self._action(step, data[step.verb], times, skipped)
        until = data.get("until", "ended")
        if until not in ("accepted", "started", "ended"):
            until = times.ms(until, "until")
        at_ms, timeout_ms = times.optional(data, "at"), times.optional(data, "timeout")
        expect = build_expect(data.get("expect"), times, "expect")
        if action is None or times.failed:
            return None
        name = data.get("name", "")
        shown = renderer.shown.get(step.node.at(["name"])) if renderer.shown else None
        return Step(
            id=setting.id,
            action=action,
            name=name if shown is None else shown,
            at_ms=at_ms,
            until=until,
            timeout_ms=timeout_ms,
            on_error=data.get("on_error", "fail"),
            skipped=skipped,
            expect=expect,
            length=_known_length(action),
            place=place,
            via=setting.via,
        )

    def _action(self, step: WrittenStep, value: Any, times: Times, skipped: str | None) -> Action | None:
        if step.verb == "say":
            return self._say(step.node.at(["say"]), value, times)
        if step.verb == "audio-echo":
            return self._echo(step.node.at(["audio-echo"]), value, times, skipped)
        if step.verb == "wait":
            if value == "speech":
                return WaitSpeech()
            if isinstance(value, dict):
                return WaitEvent(value["event"], times.optional(value, "timeout", "wait", "timeout"), value.get("on_timeout", "fail"))
            return Wait(times.ms(value, "wait"))
        return InterruptSpeech() if step.verb == "interrupt" else End(drain=(value or {}).get("drain", True))

    def _say(self, node: Node, value: Any, times: Times) -> Say | None:
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
                    self.findings.add("PB407", "a pause stands between two pieces of text", at.place, "use a wait step", via=times.via)
                    return None
                pause = (pause or 0) + times.ms(piece["wait"], "say", "chunks", number, "wait")
            else:
                chunks.append(Chunk(piece, pause or 0, _shown(shown, node, "chunks", number)))
                pause = None
        return Say(tuple(chunks), voice)

    # sounds

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
                self.findings.add(code, f"the sound {show(relative)} {what}: {reason}", at.place, _SOUND_REMEDY[code], via=times.via)
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
            self.findings.add("PB406", "the sound is not base64", at.place, "encode the samples with base64", via=times.via)
            return None
        if not samples or len(samples) % 2:
            message = "the sound has no samples" if not samples else "the sound has half a sample too many"
            self.findings.add("PB405", message, at.place, "pcm16 has two bytes a sample", via=times.via)
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


_SOUND_REMEDY = {
    "PB404": "the path counts from the file it is written in",
    "PB405": "WAV, FLAC, OGG and MP3 can be played",
}


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


def _size(node: Node, value: Any) -> int:
    """The work of making a step: what is written, and what is said (which an alias may have brought)."""
    said = value if isinstance(value, str) else (value.get("text") or value.get("base64") or "") if isinstance(value, dict) else ""
    chunks = value.get("chunks", ()) if isinstance(value, dict) else ()
    return node.end - node.start + len(said) + work_of(chunks) * 4


def _unperformed(step: WrittenStep) -> Action:
    """What stands in the plan for a skipped step that could not be rendered: the text as written."""
    value = step.node.data[step.verb]
    if step.verb == "say":
        return Say((Chunk(step.node.at(["say"]).raw),))
    if step.verb == "audio-echo":
        return AudioEcho(value if isinstance(value, str) else "base64", "", 0)
    if step.verb == "wait":
        return Wait(0)
    return InterruptSpeech() if step.verb == "interrupt" else End()


def _known_length(action: Action) -> Length:
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
