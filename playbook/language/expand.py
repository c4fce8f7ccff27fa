"""Steps as written to steps of the plan: includes, loops, conditions, ids.

Everything the author left to the planner is decided here, step by step: which file an `include` brings, how often `foreach` and `repeat`
go round, whether `when` holds, what the templates give. What comes out is flat; `steps` makes each step of it, `parts` finds the file and
the names of an include.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from playbook.errors import Place
from playbook.formats.findings import Findings
from playbook.formats.source import Node, Reader
from playbook.formats.validate import validate
from playbook.formats.wanted import in_words
from playbook.language.check import WrittenStep, check_file_node
from playbook.language.doubts import doubt_text
from playbook.language.format import playbook_format
from playbook.language.lines import Lines
from playbook.language.parts import Frame, find_part, given_names, part_names
from playbook.language.render import Abandoned, Renderer
from playbook.language.sounds import Sounds
from playbook.language.steps import build_step, size, unrendered_step
from playbook.language.templates import Budget, Exhausted
from playbook.language.times import Times
from playbook.language.values import work_of
from playbook.model import Step

_DECIDED = frozenset(("when", "foreach", "repeat", "as", "id", "with"))
"""Keys that are dealt with before a step is built."""
_INVALID = 4
"""How often a value that does not fit is written down while that is explained, all of it."""
_TOO_OFTEN = "are the loops meant to go round so often?"


@dataclass(slots=True)
class Expansion:
    """The work on one playbook: `steps` grow as it goes. A step that depends on an unknown name is looked at and left out.

    `part`: the file itself is one that others include.
    """

    reader: Reader
    sounds: Sounds
    lines: Lines
    budget: Budget = field(default_factory=Budget)
    part: bool = False
    steps: list[Step] = field(default_factory=list)
    _parts: dict[Path, list[WrittenStep] | None] = field(default_factory=dict)
    _ids: dict[str, Place] = field(default_factory=dict)
    _end: tuple[str, bool] | None = None  # the step that ends the show, and whether on a condition

    @property
    def findings(self) -> Findings:
        """What is wrong goes here: one collection for reading and expanding."""
        return self.reader.findings

    @property
    def ended(self) -> bool:
        """Whether an `end` was reached that will be performed."""
        return self._end is not None

    def timeline(self, steps: list[WrittenStep], frame: Frame) -> None:
        """Add a timeline's steps to the plan."""
        for step in steps:
            if step.valid:
                self._step(step, frame)
            elif step.node.templated and "foreach" not in step.node.data:
                self._renderer(frame).render(step.node)  # so that its templates' problems come out with the others

    def _renderer(self, frame: Frame) -> Renderer:
        return Renderer(frame.scope, self.findings, self.budget, frame.via, quiet=frame.skipped is not None)

    # loops and conditions

    def _step(self, step: WrittenStep, frame: Frame) -> None:
        data = step.node.data
        name = data.get("id") or f"{step.verb}-{step.number}"
        for suffix, turn in self._rounds(step.node, frame):
            skipped = turn.skipped
            if skipped is None and "when" in data:
                renderer = self._renderer(turn)
                skipped = self._condition(step.node, renderer)
                if renderer.broken:
                    continue
            inner = Frame(turn.scope, turn.via, f"{frame.id}{name}{suffix}", skipped, turn.files)
            if step.verb == "include":
                self._include(step, inner)
            else:
                self._add(step, inner)

    def _rounds(self, node: Node, frame: Frame) -> Iterator[tuple[str, Frame]]:
        """The rounds of `foreach` or `repeat`, as the end of the id and what surrounds them; one round without them."""
        data = node.data
        key = next((key for key in ("foreach", "repeat") if key in data), None)
        if key is None:
            self._count(node, frame)
            yield "", frame
            return
        looped = node.at([key])
        renderer = self._renderer(frame)
        value = renderer.render(looped)
        name = data.get("as", "item")
        if key == "foreach" and "as" not in data:
            frame = replace(frame, scope=replace(frame.scope, unnamed=str(looped.data)))
        if renderer.broken:
            return
        if renderer.unknown:
            yield ".1", frame.bind(name, None, unknown=True) if key == "foreach" else frame
        elif key == "repeat":
            yield from self._repeated(looped, value, renderer, frame)
        else:
            yield from self._each(looped, value, renderer, frame, name)

    def _repeated(self, looped: Node, times: Any, renderer: Renderer, frame: Frame) -> Iterator[tuple[str, Frame]]:
        whole = isinstance(times, int) and not isinstance(times, bool)
        if not whole or not 0 <= times <= 100_000:
            message = f"repeat must be a whole number up to 100000, not {_given(times, renderer)}"
            self.findings.add("PB209" if whole else "PB204", message, looped.place, via=frame.via)
            return
        self._count(looped, frame, max(times, 1))
        if not times:
            never = f"repeat: {looped.data} is 0" if looped.templated else "repeat: 0"
            yield "", replace(frame, skipped=frame.skipped or never)
        for number in range(1, times + 1):
            yield f".{number}", frame

    def _each(self, looped: Node, entries: Any, renderer: Renderer, frame: Frame, name: str) -> Iterator[tuple[str, Frame]]:
        if not isinstance(entries, list):
            message = f"foreach must be a list, not {_given(entries, renderer)}"
            self.findings.add("PB204", message, looped.place, via=frame.via)
            return
        written = looped.entries()
        self._count(looped, frame, len(entries))
        for number, item in enumerate(entries, 1):
            self._work(looped, len(frame.scope.values), frame)
            secret = renderer.tainted(written[number - 1] if written else looped)
            yield f".{number}", frame.bind(name, item, secret=secret)

    def _condition(self, node: Node, renderer: Renderer) -> str | None:
        """Why the step is skipped, or None."""
        when = node.at(["when"])
        value = renderer.render(when)
        if not renderer.complete or value is True:
            return None
        if value is not False:
            message = f"when must be true or false, not {_given(value, renderer)}"
            self.findings.add("PB204", message, when.place, "compare it: {{ … == 'yes' }}", via=renderer.via)
            renderer.broken = True
        return f"when: {when.data} is false" if when.templated else "when: false"

    def _count(self, node: Node, frame: Frame, steps: int = 1) -> None:
        """Take steps off the budget."""
        self.budget.steps -= steps
        if self.budget.steps < 0:
            self.findings.add("PB408", "the playbook has more than 100,000 steps", node.place, _TOO_OFTEN, via=frame.via)
            raise Abandoned

    def _work(self, node: Node, work: int, frame: Frame) -> None:
        """Take work off the budget that a loop around this would multiply."""
        try:
            self.budget.spend(work)
        except Exhausted as exhausted:
            message = "the steps of this playbook are too much, all together"
            self.findings.add("PB408", message, node.place, _TOO_OFTEN, via=frame.via)
            raise Abandoned from exhausted

    # what a step brings

    def _include(self, step: WrittenStep, frame: Frame) -> None:
        node, renderer = step.node, self._renderer(frame)
        relative = renderer.render(node.at(["include"]))
        given = given_names(node, renderer)
        if renderer.broken or (renderer.unknown and node.at(["include"]).templated):
            return  # which part this brings, nobody knows
        root = find_part(node, relative, frame, self.reader)
        if root is None:
            return
        path, via = root.document.path, (*frame.via, node.at(["include"]).place)
        if path not in self._parts:
            self._parts[path] = check_file_node(root, self.findings, via)
        steps = self._parts[path]
        if steps is None:
            return
        declared = root.get("vars")
        if declared is not None:  # the defaults are judged each time
            work = sum(work_of(each.value) for each in given.values())
            self._work(node, declared.end - declared.start + work, frame)
        scope = part_names(declared, node, frame, given, self.findings)
        self.timeline(steps, Frame(scope, via, f"{frame.id}/", frame.skipped, (*frame.files, path)))

    def _add(self, step: WrittenStep, frame: Frame) -> None:
        frame = self._behind_end(frame)
        if not self._may_stand_here(step, frame):
            return
        self._ids[frame.id] = step.place
        if step.verb == "say":
            step = replace(step, node=self.lines.said(frame.id, step.node))
            doubt_text(step.node.at(["say"]), frame.scope, self.findings, frame.via)
        node, renderer = step.node, self._renderer(frame)
        times = Times(node, self.findings, frame.via, renderer)
        data = self._rendered(step, renderer, frame)
        if data is None and renderer.broken and frame.skipped is not None:
            built: Step | None = unrendered_step(step, frame.id, times, frame.skipped)
        elif data is None:
            built = None
        else:
            self._work(node, size(node, data[step.verb]), frame)
            built = build_step(step, data, frame.id, times, self.sounds, frame.skipped)
        if built is not None:
            self.steps.append(built)
            if step.verb == "end" and frame.skipped is None:
                self._end = (frame.id, "when" in node.data)

    def _behind_end(self, frame: Frame) -> Frame:
        """What surrounds a step that may stand behind an `end` with a condition: then it is skipped."""
        if self._end is None or frame.skipped is not None:
            return frame
        return replace(frame, skipped=f"the show ends with '{self._end[0]}'")

    def _may_stand_here(self, step: WrittenStep, frame: Frame) -> bool:
        place, node = step.place, step.node
        code = message = remedy = ""
        if self._end is not None and not self._end[1]:
            code, message = "PB402", f"a step after '{self._end[0]}', which ends the show"
            remedy = "remove it, or the end"
        elif step.verb == "end" and (frame.via or self.part):
            code, message, remedy = "PB403", "a part may not end the show", "put `end:` into the playbook"
        elif frame.id in self._ids:
            first = self._ids[frame.id]
            place = node.at(["id"]).place if "id" in node.data else place
            where = f"line {first.line}" if first.file == place.file else f"{first.file}:{first.line}"
            code, message, remedy = "PB401", f"a second step with the id '{frame.id}'", f"the first is on {where}"
        if code:
            self.findings.add(code, message, place, remedy, via=frame.via)
        return not code

    def _rendered(self, step: WrittenStep, renderer: Renderer, frame: Frame) -> dict[str, Any] | None:
        """The step's data with its templates computed, or None with the reason among the findings."""
        node = step.node
        if not node.templated:
            whole: dict[str, Any] = node.data
            return whole
        data = {key: renderer.render(child) for key, child in node.items() if key not in _DECIDED}
        form, name = playbook_format(), f"{step.verb}-step"
        valid = renderer.complete and validate(
            node, form, name, self.findings, renderer.via, data=data, stage="rendered", tainted=renderer.tainted
        )
        if renderer.complete and not valid:
            self._work(node, _INVALID * work_of(data), frame)
        return data if valid else None


def _given(value: Any, renderer: Renderer) -> str:
    """A value as a message may show it."""
    return "what it gives" if renderer.shown else in_words(value)
