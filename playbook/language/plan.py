"""A playbook to a plan: the order of the work.

Reading, validating, variables, expansion, then the checks that need the whole. Every stage goes on as far as it can, so that all problems
come out together; a plan comes out only if none of them is an error.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from playbook.errors import AuthorError, Place, Problem
from playbook.formats.findings import Findings
from playbook.formats.source import Node, Reader, absolute, beside
from playbook.formats.validate import validate
from playbook.language.check import check_file_node, is_part
from playbook.language.checks import check_capabilities, check_placeholders, check_times
from playbook.language.expand import Expansion
from playbook.language.format import playbook_format
from playbook.language.installation import Installation
from playbook.language.lines import Lines, rows_of
from playbook.language.parts import Frame
from playbook.language.plan_json import digest
from playbook.language.pronounce import pronounced
from playbook.language.render import Abandoned, Renderer
from playbook.language.sessions import Session, SessionReader
from playbook.language.sounds import Sounds
from playbook.language.steps import build_expect
from playbook.language.templates import Budget
from playbook.language.times import Times
from playbook.language.variables import Inputs, lone_part_scope, playbook_scope
from playbook.model import End, Evidence, Limits, Plan, Start, Step


def check_file(
    path: Path,
    installation: Installation,
    inputs: Inputs | None = None,
    *,
    provider: str | None = None,
    placeholders: bool = False,
) -> tuple[tuple[Problem, ...], Plan | None]:
    """Every problem of a file, and the plan if there are only warnings. A part is checked as a part and has no plan.

    With `placeholders`, what a starter leaves to be filled in is doubted; an emulator takes it, so that this is not for a rehearsal.
    """
    return _Compilation(path, installation, inputs or Inputs(), provider, placeholders).run(parts=True)


def compile_file(path: Path, installation: Installation, inputs: Inputs | None = None, *, provider: str | None = None) -> Plan:
    """The plan of a playbook; its warnings are in it. Raises `AuthorError` with every problem."""
    return _Compilation(path, installation, inputs or Inputs(), provider).plan()


def compile_text(text: bytes, path: Path, installation: Installation, inputs: Inputs | None = None, *, provider: str | None = None) -> Plan:
    """The same for a playbook that is no file: `path` is where it would lie, for what it includes and for messages."""
    compilation = _Compilation(path, installation, inputs or Inputs(), provider)
    compilation.give(text)
    return compilation.plan()


def as_written(path: Path) -> Mapping[str, Any]:
    """What stands in a file, without a word on what is wrong with it; empty if it cannot be read as a mapping."""
    root = Reader(Findings()).read(path, str(path))
    return root.data if root is not None and isinstance(root.data, dict) else {}


def list_lines(
    path: Path, installation: Installation, inputs: Inputs | None = None, *, provider: str | None = None
) -> tuple[Plan, list[dict[str, Any]]]:
    """The plan of a playbook, and its lines as a table. Raises `AuthorError` with every problem."""
    compilation = _Compilation(path, installation, inputs or Inputs(), provider)
    plan = compilation.plan()
    return plan, rows_of(compilation.lines, plan)


class _Compilation:
    """The work on one file."""

    def __init__(
        self,
        path: Path,
        installation: Installation,
        inputs: Inputs,
        provider: str | None,
        placeholders: bool = False,
    ) -> None:
        self._path, self._file = path, str(path)
        self._absolute = absolute(path)
        self._installation, self._inputs, self._override = installation, inputs, provider
        self._placeholders = placeholders
        self._findings = Findings()
        self._reader = Reader(self._findings, inputs.root)
        budget = Budget()
        self.lines = Lines(self._findings, budget)
        self._expansion = Expansion(self._reader, Sounds(installation.sound_length_ms, inputs.root), self.lines, budget)

    def give(self, text: bytes) -> None:
        """Let this stand for the file."""
        self._reader.give(self._path, self._file, text)

    def plan(self) -> Plan:
        """The plan. Raises `AuthorError` if anything is wrong."""
        problems, plan = self.run(parts=False)
        if plan is None:
            raise AuthorError(problems)
        return plan

    def run(self, *, parts: bool) -> tuple[tuple[Problem, ...], Plan | None]:
        """What was found, and the plan if nothing is wrong.

        A plan is one large tree that is kept: looking through it for garbage while it grows makes its cost grow faster than it does.
        """
        collects = gc.isenabled()
        gc.disable()
        try:
            plan = self._compiled(parts)
            problems = self._findings.report(self._file)
            if plan is None or self._findings.failed:
                return problems, None
            return problems, replace(plan, warnings=problems)
        finally:
            if collects:
                gc.enable()

    def _compiled(self, parts: bool) -> Plan | None:
        """The plan, as far as there is one; what is wrong with it is among the findings."""
        root = self._reader.read(self._path, self._file)
        if root is None:
            return None
        try:
            if is_part(root):
                self._part(root, parts)
                return None
            plan = self._playbook(root)
        except Abandoned:
            return None
        if plan is not None and not self._findings.failed:
            self._findings.extend(self._installation.check(plan))
        return plan

    def _part(self, root: Node, parts: bool) -> None:
        if not parts:
            remedy = "add `provider: local`, or include it from a playbook"
            message = "a playbook needs 'provider'; without one this is a part"
            self._findings.add("PB202", message, root.place, remedy)
        elif root.get("version") is not None:  # which a part may have, and every playbook
            remedy = "a playbook needs one: add `provider: local`; a part can do without `version`"
            message = "checked as a part, because there is no 'provider'"
            self._findings.add("PB218", message, root.key_place("version"), remedy, severity="warning")
        steps = check_file_node(root, self._findings, ())
        if steps is not None:
            self._expansion.part = parts  # else it is taken for a playbook that lacks its provider
            scope = lone_part_scope(root.get("vars"), self._findings)
            self._expansion.timeline(steps, Frame(scope, files=(self._absolute,)))

    def _playbook(self, root: Node) -> Plan | None:
        findings, expansion = self._findings, self._expansion
        steps = check_file_node(root, findings, ())
        if steps is None:
            return None
        scope = playbook_scope(root.get("vars"), self._inputs, self._reader)
        provider = self._provider(root)
        session = SessionReader(
            root,
            named=_named(root),
            chosen=provider or "",
            scope=scope,
            findings=findings,
            budget=expansion.budget,
            installation=self._installation,
        ).read()
        times = Times(root, findings, (), Renderer(scope, findings, expansion.budget))
        head = self._head(root, times.renderer)
        self._read_lines(root)
        expansion.timeline(steps, Frame(scope, files=(self._absolute,)))
        self.lines.check_whole()
        if head is None or provider is None or session is None or findings.failed:
            return None
        plan = self._whole(provider, session, head, times)
        check_capabilities(plan, root, findings)
        if self._placeholders and session.node is not None:
            check_placeholders(plan.session, session.node, findings)
        if times.failed or findings.failed:
            return None
        plan = self._with_lengths(plan)
        check_times(plan, root, findings)
        plan = _without_the_show(plan)
        return replace(plan, sha256=digest(plan))

    def _read_lines(self, root: Node) -> None:
        """Read the table of lines that is to be said, if there is one."""
        named = root.get("lines")
        if self._inputs.lines is not None:
            self.lines.read(self._inputs.lines, str(self._inputs.lines), None)
        elif named is not None and isinstance(named.data, str):
            path = absolute(self._path.parent / named.data)
            self.lines.read(path, beside(self._file, named.data), named.place)

    def _whole(self, provider: str, session: Session, head: Mapping[str, Any], times: Times) -> Plan:
        """The plan of all that was made."""
        expansion = self._expansion
        if not expansion.ended:
            expansion.steps.append(Step(self._last_id(len(times.node.data["timeline"])), End()))
        steps = tuple(expansion.steps)
        if "pronounce" in head:
            at = times.node.at(["pronounce"])
            steps = pronounced(steps, head["pronounce"], at, provider, self._installation, self._findings)
        return Plan(
            name=head.get("name") or self._path.name.split(".")[0] or "playbook",
            provider=provider,
            steps=steps,
            session=session.settings,
            limits=_limits(head.get("limits", {}), times),
            start=_start(head.get("start", "ready"), times),
            expect=build_expect(head.get("expect"), times, "expect"),
            capabilities=self._installation.capabilities(provider, session.settings),
            description=head.get("description", ""),
            file=self._file,
            sounds=expansion.sounds.known,
            secrets=frozenset(self._findings.secrets),
            written=session.places,
        )

    def _with_lengths(self, plan: Plan) -> Plan:
        """The plan, with the lengths of lines that only the provider or its voice knows."""
        lengths = self._installation.speech_lengths(plan)
        steps = (step if length is None else replace(step, length=length) for step, length in zip(plan.steps, lengths, strict=True))
        return replace(plan, steps=tuple(steps))

    def _last_id(self, entries: int) -> str:
        """The id of the `end` that nobody wrote: the next one by number that is free."""
        taken = {step.id for step in self._expansion.steps}
        return next(name for number in itertools.count(entries + 1) if (name := f"end-{number}") not in taken)

    # the head of the file

    def _provider(self, root: Node) -> str | None:
        """The provider that performs, if it is known."""
        name: str | None = None
        if named := _named(root):
            name = self._known(named, "", root.at(["provider"]).place)
        return name if self._override is None else self._known(self._override, " (asked for by --provider)", None)

    def _known(self, provider: str, how: str, place: Place | None) -> str | None:
        """The name, if there is such a provider. All names are asked for only if there is not: that may need a search."""
        if self._installation.session_schema(provider) is not None:
            return provider
        known = self._installation.providers()
        message = f"unknown provider '{provider}'{how}"
        self._findings.add("PB212", message, place, self._findings.guess(provider, known))
        return None

    def _head(self, root: Node, renderer: Renderer) -> dict[str, Any] | None:
        """Name, description, limits, start and expect, rendered; None when one of them is wrong."""
        nodes = {key: node for key in _HEAD if (node := root.get(key)) is not None}
        head = {key: renderer.render(node) for key, node in nodes.items()}
        if not renderer.complete or self._findings.failed:
            return None
        if root.templated:
            rendered = {key: head.get(key, value) for key, value in root.data.items()}
            form, tainted = playbook_format(), renderer.tainted
            if not validate(root, form, "playbook", self._findings, data=rendered, stage="rendered", tainted=tainted):
                return None
        for key in ("name", "description"):
            if key in nodes and nodes[key] in renderer.shown:
                head[key] = renderer.shown[nodes[key]]
        return head


_HEAD = ("name", "description", "limits", "start", "pronounce", "expect")
"""The keys of a playbook that may hold templates, besides session and timeline."""


def _named(root: Node) -> str:
    """The provider that a playbook names; empty if it does not."""
    written = root.get("provider")
    named = written is not None and isinstance(written.data, str) and not written.templated
    return written.data if written is not None and named else ""


def _without_the_show(plan: Plan) -> Plan:
    """The plan as it is performed where a session can only be opened and ended: all of it was checked, and nothing is waited for."""
    why = plan.capabilities.opens_only
    if why is None:
        return plan
    kept = (step if isinstance(step.action, End) or step.skipped is not None else replace(step, skipped=why) for step in plan.steps)
    return replace(plan, steps=tuple(kept), start=Start(), expect=None)


def _limits(data: Mapping[str, Any], times: Times) -> Limits:
    margin = times.optional(data, "speech_margin", "limits", "speech_margin")
    evidence = data.get("require_evidence")
    return Limits(
        max_duration_ms=times.optional(data, "max_duration", "limits", "max_duration"),
        max_cost=data.get("max_cost"),
        require_evidence=None if evidence is None else Evidence[evidence],
        max_wait_ms=times.optional(data, "max_wait", "limits", "max_wait"),
        **({} if margin is None else {"speech_margin_ms": margin}),
    )


def _start(value: Any, times: Times) -> Start:
    if value in ("ready", "go", "viewer"):
        return Start(value)
    return Start("delay", times.ms(value, "start"))
