"""Parts: the file that an `include` brings, and the names that it sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from playbook.errors import Place
from playbook.formats.findings import Findings
from playbook.formats.source import Node, Reader, absolute, beside
from playbook.language.check import is_part
from playbook.language.render import Renderer
from playbook.language.scope import Scope
from playbook.language.variables import part_scope

MAX_INCLUDES = 20


@dataclass(slots=True)
class Frame:
    """What surrounds a step: its names, where its file was included (as places and as paths), why it is skipped.

    `id` is the step's own id, or for a timeline what its steps' ids begin with.
    """

    scope: Scope
    via: tuple[Place, ...] = ()
    id: str = ""
    skipped: str | None = None
    files: tuple[Path, ...] = ()

    def bind(self, name: str, value: Any, *, secret: bool = False, unknown: bool = False) -> Frame:
        """The same with one more name."""
        return replace(self, scope=self.scope.bind(name, value, secret=secret, unknown=unknown))


@dataclass(frozen=True, slots=True)
class Given:
    """What `with` gives for one name of a part, and what is known about it."""

    value: Any
    node: Node
    secret: bool
    unknown: bool


def find_part(include: Node, relative: object, frame: Frame, reader: Reader) -> Node | None:
    """The root of the part at a path, counted from the file of the `include` step, or None with the reason among the findings."""
    written, findings, via = include.at(["include"]), reader.findings, frame.via
    if not isinstance(relative, str) or not relative.strip():
        findings.add("PB204", "include must be a path", written.place, via=via)
        return None
    path, file = absolute(include.document.path.parent / relative), beside(include.document.file, relative)
    if path in frame.files:
        chain = [*frame.files[frame.files.index(path) :], path]
        names = " -> ".join(each.name for each in chain)
        findings.add("PB116", f"a part includes itself: {names}", written.place, "break the circle", via=via)
        return None
    if len(frame.files) > MAX_INCLUDES:
        findings.add("PB117", f"includes are nested deeper than {MAX_INCLUDES}", written.place, via=via)
        return None
    root = reader.read(path, file, missing="PB115", at=written.place, via=via)
    if root is not None and findings.withholds(file):
        findings.add("PB118", f"{file} is not a part: it has no timeline", written.place, "a part has `timeline:`", via=via)
        return None
    if root is not None and isinstance(root.data, dict) and not is_part(root):
        remedy = "a part has no provider, session, limits, start or expect"
        findings.add("PB118", f"{file} is a playbook, not a part", written.place, remedy, via=via)
        return None
    return root


def given_names(include: Node, renderer: Renderer) -> dict[str, Given]:
    """What `with` gives; `renderer` is broken if one of its templates cannot be computed."""
    given = {}
    values = include.get("with")
    for name, child in values.items() if values is not None else ():
        single = replace(renderer, shown={}, broken=False, unknown=False)
        value = single.render(child)
        renderer.broken = renderer.broken or single.broken
        given[name] = Given(value, child, single.tainted(child), single.unknown)
    return given


def part_names(declared: Node | None, include: Node, frame: Frame, given: Mapping[str, Given], findings: Findings) -> Scope:
    """The names of a part: the variables that it declares, filled by `with` and by the loop, and the loop's name."""
    names = declared.children if declared is not None and isinstance(declared.children, dict) else {}
    values: dict[str, tuple[object, Node]] = {}
    secret: set[str] = set()
    unknown: set[str] = set()
    for name, each in given.items():
        if name not in names:
            place = include.at(["with"]).key_place(name)
            declared_are = f"declared are {', '.join(names)}" if names else "the part declares no variables"
            remedy = findings.guess(name, names, declared_are)
            findings.add("PB311", f"the part declares no variable '{name}'", place, remedy, via=frame.via)
            continue
        if each.unknown:
            unknown.add(name)
        else:
            values[name] = (each.value, each.node)
        if each.secret:
            secret.add(name)
    outer, via = frame.scope, (*frame.via, include.at(["include"]).place)
    loop = include.data.get("as", "item") if "foreach" in include.data else None
    if loop is None:
        return part_scope(declared, values, secret, unknown, findings, via)
    if loop in outer.unknown:
        unknown.add(loop)
    elif loop in names and loop not in values:
        values[loop] = (outer.values[loop], include.at(["foreach"]))
    if loop in outer.secret:
        secret.add(loop)
    scope = part_scope(declared, values, secret, unknown, findings, via)
    if loop in names:
        return scope
    return scope.bind(loop, outer.values[loop], secret=loop in secret, unknown=loop in unknown)
