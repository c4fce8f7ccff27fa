"""Steps as written to steps of the plan: includes, loops, conditions, ids.

Everything the author left to the planner is decided here, step by step: which file an `include` brings, how often `foreach` and `repeat`
go round, whether `when` holds, what the templates give. What comes out is flat; `steps` makes
each step of it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from playbook.errors import Place
from playbook.formats.findings import Findings
from playbook.formats.source import Node, Reader, absolute, beside
from playbook.language.check import WrittenStep, check_file_node, is_part
from playbook.language.judge import judge, playbook_format, show
from playbook.language.render import Abandoned, Broken, Budget, Exhausted, Renderer, Scope
from playbook.language.steps import Builder, Times, known_length, size, unperformed
from playbook.language.templates import work_of
from playbook.language.variables import part_scope
from playbook.model import Step

MAX_INCLUDES = 20
_DECIDED = frozenset(("when", "foreach", "repeat", "as", "id", "with"))
"""Keys that are dealt with before a step is built."""
_NEARLY = re.compile(r"(?<!\{)\{[ ]*([A-Za-z_]\w*)[ ]*\}\}?(?!\})|\$\{?([A-Za-z_]\w*)\}?")
"""What is a variable in other languages, `{visitor}`, `$visitor`, `${visitor}`, or would be one with another brace, `{ visitor }}`."""
_MARKUP = re.compile(r"</?(?:speak|break|prosody|emphasis|phoneme|say-as)\b[^<>]*>?")
"""Tags of SSML."""


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
    """The work on one playbook: `steps` grow as it goes. A step that depends on an unknown name is looked at and left out.

    `part`: the file itself is one that others include.
    """

    reader: Reader
    builder: Builder
    budget: Budget = field(default_factory=Budget)
    part: bool = False
    steps: list[Step] = field(default_factory=list)
    _written: dict[Path, list[WrittenStep] | None] = field(default_factory=dict)
    _ids: dict[str, Place] = field(default_factory=dict)
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
        for suffix, scope, never in self._rounds(step.node, setting):
            renderer = Renderer(scope, self.findings, self.budget, setting.via)
            skipped = setting.skipped or never
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

    def _rounds(self, node: Node, setting: Setting) -> Iterator[tuple[str, Scope, str | None]]:
        """The rounds of `foreach` or `repeat`, as the end of the id, the names, and why it is skipped; one round without them."""
        scope = setting.scope
        data = node.data
        if "foreach" not in data and "repeat" not in data:
            self._count(node, setting)
            yield "", scope, None
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
            yield ".1", scope.bind(name, None, unknown=True) if key == "foreach" else scope, None
        elif key == "repeat":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100_000:
                code = "PB204" if isinstance(value, bool) or not isinstance(value, int) else "PB209"
                given = "what it gives" if renderer.shown else show(value)
                self.findings.add(code, f"repeat must be a whole number up to 100000, not {given}", looped.place, via=setting.via)
                return
            self._count(looped, setting, max(value, 1))
            if not value:
                yield "", scope, f"repeat: {looped.data} is 0" if looped.templated else "repeat: 0"
            for number in range(1, value + 1):
                yield f".{number}", scope, None
        elif not isinstance(value, list):
            given = "what it gives" if renderer.shown else show(value)
            self.findings.add("PB204", f"foreach must be a list, not {given}", looped.place, via=setting.via)
        else:
            written = looped.entries()
            self._count(looped, setting, len(value))
            for number, item in enumerate(value, 1):
                self._work(looped, len(scope.values), setting)
                secret = renderer.tainted(written[number - 1] if written else looped)
                yield f".{number}", scope.bind(name, item, secret=secret), None

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
        if step.verb == "end" and (setting.via or self.part):
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
                    action = unperformed(step)
                    self.steps.append(Step(setting.id, action, skipped=skipped, length=known_length(action), place=place, via=setting.via))
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
        self._work(node, size(node, data[step.verb]), setting)
        times = Times(node, self.findings, setting.via, renderer)
        built = self.builder.build(step, data, setting.id, times, place, skipped)
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
