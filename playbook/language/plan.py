"""A playbook to a plan: the order of the work, and the checks that need the whole.

Reading, judging, variables, expansion, then capabilities and limits. Every stage goes on as far as it can, so that all problems come out
together; a plan comes out only if none of them is an error.
"""

from __future__ import annotations

import gc
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from playbook.errors import AuthorError, Place, Problem
from playbook.formats.durations import show_duration
from playbook.formats.findings import Findings
from playbook.formats.source import Node, Reader, absolute
from playbook.language.check import check_file_node, is_part
from playbook.language.cues import Cue, cues, total_ms
from playbook.language.expand import Expansion, Setting
from playbook.language.judge import Format, judge, playbook_format
from playbook.language.plan_json import digest
from playbook.language.render import Abandoned, Broken, Renderer, Scope
from playbook.language.steps import Builder, Times, build_expect
from playbook.language.variables import Inputs, lone_part_scope, playbook_scope
from playbook.model import (
    AudioEcho,
    Capabilities,
    End,
    Evidence,
    InterruptSpeech,
    Length,
    Limits,
    Plan,
    Say,
    Start,
    Step,
    WaitEvent,
    WaitSpeech,
)

_PLACEHOLDER = re.compile(r"YOUR[-_][A-Z0-9_-]+")


class World(Protocol):
    """What the language must be told, because it knows no provider, no sound and no clock."""

    def providers(self) -> Sequence[str]:
        """The names there are."""

    def session_schema(self, provider: str) -> Mapping[str, Any] | None:
        """The schema of a provider's session settings; None when there is no such provider."""

    def capabilities(self, provider: str, settings: Mapping[str, Any]) -> Capabilities:
        """What a provider can do with these settings."""

    def check(self, plan: Plan) -> Iterable[Problem]:
        """The provider's own problems and warnings about a compiled plan."""

    def sound_length_ms(self, source: Path | bytes) -> int:
        """How long a sound is. Raises `ValueError` with the reason when it is not audio."""

    def speech_lengths(self, plan: Plan) -> Sequence[Length | None]:
        """One per step: how long a say step takes to speak; None for other steps."""


def check_file(
    path: Path,
    world: World,
    inputs: Inputs | None = None,
    *,
    provider: str | None = None,
    placeholders: bool = False,
) -> tuple[tuple[Problem, ...], Plan | None]:
    """Every problem of a file, and the plan if there are only warnings. A part is checked as a part and has no plan.

    With `placeholders`, what a starter leaves to be filled in is doubted; an emulator takes it, so that this is not for a rehearsal.
    """
    return _Compilation(path, world, inputs or Inputs(), provider, placeholders).run(parts=True)


def compile_file(path: Path, world: World, inputs: Inputs | None = None, *, provider: str | None = None) -> Plan:
    """The plan of a playbook; its warnings are in it. Raises `AuthorError` with every problem."""
    problems, plan = _Compilation(path, world, inputs or Inputs(), provider).run(parts=False)
    if plan is None:
        raise AuthorError(problems)
    return plan


def compile_text(text: bytes, path: Path, world: World, inputs: Inputs | None = None, *, provider: str | None = None) -> Plan:
    """The same for a playbook that is no file: `path` is where it would lie, for what it includes and for messages."""
    compilation = _Compilation(path, world, inputs or Inputs(), provider)
    compilation.give(text)
    problems, plan = compilation.run(parts=False)
    if plan is None:
        raise AuthorError(problems)
    return plan


class _Compilation:
    """The work on one file."""

    def __init__(self, path: Path, world: World, inputs: Inputs, provider: str | None, placeholders: bool = False) -> None:
        self._path, self._file = path, str(path)
        self._absolute = absolute(path)
        self._world, self._inputs, self._override = world, inputs, provider
        self._placeholders = placeholders
        self._findings = Findings()
        self._reader = Reader(self._findings)
        self._expansion = Expansion(self._reader, Builder(world.sound_length_ms))

    def give(self, text: bytes) -> None:
        self._reader.give(self._path, self._file, text)

    def run(self, *, parts: bool) -> tuple[tuple[Problem, ...], Plan | None]:
        """What was found, and the plan if nothing is wrong.

        A plan is one large tree that is kept: looking through it for garbage while it grows makes its cost grow faster than it does.
        """
        collects = gc.isenabled()
        gc.disable()
        try:
            return self._run(parts)
        finally:
            if collects:
                gc.enable()

    def _run(self, parts: bool) -> tuple[tuple[Problem, ...], Plan | None]:
        plan: Plan | None = None
        root = self._reader.read(self._path, self._file)
        if root is not None:
            try:
                if is_part(root):
                    self._part(root, parts)
                else:
                    plan = self._playbook(root)
            except Abandoned:
                plan = None
        if plan is not None and not self._findings.failed:
            self._findings.extend(self._world.check(plan))
        problems = self._findings.report(self._file)
        if plan is None or self._findings.failed:
            return problems, None
        return problems, replace(plan, warnings=problems)

    def _part(self, root: Node, parts: bool) -> None:
        if not parts:
            remedy = "add `provider: local`, or include it from a playbook"
            self._findings.add("PB202", "a playbook needs 'provider'; without one this is a part", root.place, remedy)
        elif root.get("version") is not None:  # which a part may have, and every playbook
            remedy = "a playbook needs one: add `provider: local`; a part can do without `version`"
            message = "checked as a part, because there is no 'provider'"
            self._findings.add("PB218", message, root.key_place("version"), remedy, severity="warning")
        steps = check_file_node(root, self._findings, ())
        if steps is not None:
            self._expansion.part = parts  # else it is taken for a playbook that lacks its provider
            scope = lone_part_scope(root.get("vars"), self._findings)
            self._expansion.timeline(steps, Setting(scope, files=(self._absolute,)))

    def _playbook(self, root: Node) -> Plan | None:
        findings, expansion = self._findings, self._expansion
        steps = check_file_node(root, findings, ())
        if steps is None:
            return None
        scope = playbook_scope(root.get("vars"), self._inputs, self._reader)
        provider = self._provider(root)
        session = self._session(root, scope)
        renderer = Renderer(scope, findings, expansion.budget)
        times = Times(root, findings, (), renderer)
        head = self._head(root, renderer)
        expansion.timeline(steps, Setting(scope, files=(self._absolute,)))
        if head is None or provider is None or session is None or findings.failed:
            return None
        if not expansion.ended:
            expansion.steps.append(Step(self._last_id(len(root.data["timeline"])), End()))
        plan = Plan(
            name=head.get("name") or self._path.name.split(".")[0] or "playbook",
            provider=provider,
            steps=tuple(expansion.steps),
            session=session,
            limits=_limits(head.get("limits", {}), times),
            start=_start(head.get("start", "ready"), times),
            expect=build_expect(head.get("expect"), times, "expect"),
            capabilities=self._world.capabilities(provider, session),
            description=head.get("description", ""),
            file=self._file,
            sounds=expansion.builder.sounds,
            secrets=frozenset(findings.secrets),
            written=_written(root),
        )
        self._check_capabilities(plan, root)
        if self._placeholders:
            self._check_placeholders(plan.session, root, ("session",))
        if times.failed or findings.failed:
            return None
        lengths = self._world.speech_lengths(plan)
        spoken = (step if length is None else replace(step, length=length) for step, length in zip(plan.steps, lengths, strict=True))
        plan = replace(plan, steps=tuple(spoken))
        self._check_times(plan, root)
        plan = _without_the_show(plan)
        return replace(plan, sha256=digest(plan))

    def _last_id(self, entries: int) -> str:
        """The id of the `end` that nobody wrote: the next one by number that is free."""
        taken = {step.id for step in self._expansion.steps}
        return next(name for number in itertools.count(entries + 1) if (name := f"end-{number}") not in taken)

    # the head of the file

    def _provider(self, root: Node) -> str | None:
        """The provider that performs, if it is known."""
        written = root.get("provider")
        name: str | None = None
        if written is not None and isinstance(written.data, str) and not written.templated:
            name = self._known(written.data, "", written.place)
        return name if self._override is None else self._known(self._override, " (asked for by --provider)", None)

    def _known(self, provider: str, how: str, place: Place | None) -> str | None:
        """The name, if there is such a provider. All names are asked for only if there is not: that may need a search."""
        if self._world.session_schema(provider) is not None:
            return provider
        known = self._world.providers()
        self._findings.add("PB212", f"unknown provider '{provider}'{how}", place, self._findings.guess(provider, known))
        return None

    def _session(self, root: Node, scope: Scope) -> Mapping[str, Any] | None:
        """The session settings, rendered and judged by their own provider's schema; what another provider performs gets none."""
        node, written = root.get("session"), root.get("provider")
        provider = written.data if written is not None and isinstance(written.data, str) else ""
        schema = self._world.session_schema(provider) if provider else None
        if node is not None and not isinstance(node.data, dict):
            return None
        data: Any = {}
        if node is not None:
            where = f"the session settings of {provider}"
            form = Format(schema) if schema is not None else None
            written_well = form is None or judge(node, form, "", self._findings, where=where)
            renderer = Renderer(scope, self._findings, self._expansion.budget)
            try:
                data = renderer.render(node)
            except Broken:
                return None
            if not written_well or renderer.unknown:
                return None
            if form is not None and not judge(
                node, form, "", self._findings, data=data, stage="rendered", where=where, tainted=renderer.tainted
            ):
                return None
        elif schema is not None and schema.get("required") and written is not None and self._override in (None, provider):
            needed = ", ".join(schema["required"])
            remedy = f"add `session:` with {needed}"
            self._findings.add("PB202", f"{provider} needs session settings: {needed}", written.place, remedy)
            return None
        if self._override is None or self._override == provider:
            settings: Mapping[str, Any] = data
            return settings
        if data and node is not None:
            message = f"left out, because {self._override} performs and not {provider}: {', '.join(data)}"
            place = root.key_place("session")
            self._findings.add("PB431", f"session settings are {message}", place, severity="warning")
        return {}

    def _head(self, root: Node, renderer: Renderer) -> dict[str, Any] | None:
        """Name, description, limits, start and expect, rendered; None when one of them is wrong."""
        head: dict[str, Any] = {}
        wrong = False
        for key in ("name", "description", "limits", "start", "expect"):
            node = root.get(key)
            if node is None:
                continue
            try:
                head[key] = renderer.render(node)
            except Broken:
                wrong = True
        if wrong or self._findings.failed or renderer.unknown:
            return None
        rendered = {**{key: root.data[key] for key in root.data if key not in head}, **head}
        tainted = renderer.tainted
        if root.templated and not judge(
            root, playbook_format(), "playbook", self._findings, data=rendered, stage="rendered", tainted=tainted
        ):
            return None
        for key in ("name", "description"):
            node = root.get(key)
            if node is not None and renderer.tainted(node):
                head[key] = renderer.shown[node]
        return head

    # what only the whole plan shows

    def _check_capabilities(self, plan: Plan, root: Node) -> None:
        can, provider, add = plan.capabilities, plan.provider, self._findings.add
        require = plan.limits.require_evidence
        if require is not None and require > Evidence.estimated and can.speech == "none":
            place = root.at(["limits", "require_evidence"]).place
            add("PB419", f"{provider} reports no speech, so no line is ever '{require.name}'", place, "require `estimated`")
        if plan.expect is not None and plan.expect.evidence is not None:
            self._check_evidence(plan, plan.expect.evidence, root.at(["expect", "evidence"]).place, ())
        for step in plan.steps:
            if step.skipped is not None:
                continue
            action = step.action
            code = lack = remedy = ""
            if isinstance(action, Say) and not can.say:
                code, lack, remedy = "PB410", "cannot say text", "use audio-echo"
            elif isinstance(action, AudioEcho) and not can.audio_echo:
                code, lack, remedy = "PB411", "cannot play audio", "use say"
            elif isinstance(action, InterruptSpeech) and can.interrupt == "none":
                code, lack, remedy = "PB412", "cannot be interrupted", "leave the interrupt out, or use another provider"
            elif isinstance(action, Say) and action.voice is not None and not can.voice_per_line:
                code, lack, remedy = "PB413", "cannot change the voice for a line", "set the voice in session"
            if code:
                add(code, f"{provider} {lack}", step.place, remedy, via=step.via)
            if step.expect is not None and step.expect.evidence is not None:
                self._check_evidence(plan, step.expect.evidence, step.place, step.via)

    def _check_evidence(self, plan: Plan, wanted: Evidence, place: Place | None, via: tuple[Place, ...]) -> None:
        if plan.capabilities.speech == "none" and wanted > Evidence.estimated:
            message = f"{plan.provider} reports no speech, so no line is ever '{wanted.name}'"
            self._findings.add("PB419", message, place, "expect `estimated`", via=via)

    def _check_placeholders(self, value: Any, root: Node, path: tuple[str | int, ...]) -> None:
        """Doubt settings that `new` left to be filled in."""
        if isinstance(value, (Mapping, list)):
            for key, each in value.items() if isinstance(value, Mapping) else enumerate(value):
                self._check_placeholders(each, root, (*path, key))
        elif isinstance(value, str) and _PLACEHOLDER.fullmatch(value):
            remedy = "write your own, from your account there; only the emulator takes any"
            message = f"'{value}' is a placeholder of the starter"
            self._findings.add("PB436", message, root.at(path).place, remedy, severity="warning")

    def _check_times(self, plan: Plan, root: Node) -> None:
        can, limits, add = plan.capabilities, plan.limits, self._findings.add
        timeline = cues(plan)
        total = total_ms(plan, timeline)
        planned = show_duration(total)
        place = root.key_place("timeline")
        if limits.max_duration_ms is not None and total > limits.max_duration_ms:
            at = root.at(["limits", "max_duration"]).place
            add("PB415", f"the plan takes {planned}, longer than its own limit", at, "raise the limit, or shorten the show")
        if can.usable_ms is not None and can.max_session_ms is not None and total > can.usable_ms:
            most = show_duration(can.max_session_ms)
            remedy = "shorten the show, or set a longer session"
            add("PB416", f"the plan takes {planned}; {plan.provider} ends the session after {most}", place, remedy)
        if limits.max_cost is not None:
            at = root.at(["limits", "max_cost"]).place
            if can.price_per_minute is None:
                add("PB414", "max_cost means nothing without a price", at, "give `price_per_minute` in session")
            elif (cost := can.price_per_minute * total / 60_000) > limits.max_cost:
                add("PB418", f"the plan costs about {cost:.2f}, more than {limits.max_cost:g}", at, "raise the limit, or shorten the show")
        self._check_cues(plan, timeline)

    def _check_cues(self, plan: Plan, timeline: tuple[Cue, ...]) -> None:
        """Late cues, idle silences, interrupts with nothing to stop: one walk along the timeline."""
        patience, add = plan.capabilities.idle_limit_ms, self._findings.add
        quiet_since, complained, may_speak = -plan.start.delay_ms, False, False
        for step, cue in zip(plan.steps, timeline, strict=True):
            if step.skipped is not None:
                continue
            if cue.late_ms:
                sure = "will come" if cue.exact else "will probably come"
                late = show_duration(cue.late_ms)
                add("PB430", f"the cue {sure} {late} late", step.place, "the steps before it take longer", via=step.via, severity="warning")
            if isinstance(step.until, int) and 0 < 5 * step.length.ms < step.until - 10_000:
                message = f"the line takes {show_duration(step.length.ms)}, and the show moves on after {show_duration(step.until)}"
                remedy = "a bare number is seconds; for a silence after the line use `wait`"
                add("PB435", message, step.place, remedy, via=step.via, severity="warning")
            least = _least_ms(step)
            if step.timeout_ms is not None and step.on_error == "fail" and (step.timeout_ms < least or not step.timeout_ms):
                allowed = show_duration(step.timeout_ms)
                remedy = f"make it longer than {show_duration(least)}, or leave it out" if least else "make it longer, or leave it out"
                message = f"a timeout of {allowed} ends the show here" + (f": the step takes {show_duration(least)}" if least else "")
                add("PB437", message, step.place, remedy, via=step.via, severity="warning")
            if patience is not None and isinstance(step.action, WaitEvent):
                timeout = step.action.timeout_ms if step.action.timeout_ms is not None else step.timeout_ms
                if timeout is None or timeout > patience:
                    allowed = f"{plan.provider} ends the session after {show_duration(patience)} of silence"
                    remedy = f"give it a timeout below {show_duration(patience)}"
                    add("PB433", f"this wait may last longer: {allowed}", step.place, remedy, via=step.via, severity="warning")
            silence = (cue.heard_ms if step.speaks else cue.next_ms) - quiet_since
            if patience is not None and not complained and silence > patience:
                complained = True
                message = f"{show_duration(silence)} of silence; {plan.provider} ends the session after {show_duration(patience)}"
                add("PB417", message, step.place, "say something in between, or set a longer idle time", via=step.via)
            if step.speaks:
                quiet_since, complained = max(cue.over_ms, quiet_since), False
                may_speak = may_speak or step.until != "ended"
            if isinstance(step.action, WaitSpeech):
                may_speak = False
            elif isinstance(step.action, InterruptSpeech):
                if not may_speak:
                    remedy = "give the line before it an `until`, such as `until: 2s`"
                    message = "nothing can be speaking here: every line before it has ended"
                    add("PB432", message, step.place, remedy, via=step.via, severity="warning")
                may_speak, quiet_since = False, min(quiet_since, cue.start_ms)


def _least_ms(step: Step) -> int:
    """How long a step surely takes, whatever the provider does."""
    if step.speaks and isinstance(step.until, int):
        return step.until
    return step.length.ms if step.length.basis == "exact" and (not step.speaks or step.until == "ended") else 0


def _written(root: Node) -> dict[str, Place]:
    """Where the session settings stand, by their path."""
    session = root.get("session")
    if session is None:
        provider = root.get("provider")
        return {} if provider is None else {"": provider.place}
    places = {"": root.key_place("session")}

    def walk(node: Node, path: str) -> None:
        for key, child in node.items():
            places[path + key] = node.key_place(key)
            walk(child, f"{path}{key}.")

    walk(session, "")
    return places


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
        **({} if margin is None else {"speech_margin_ms": margin}),
    )


def _start(value: Any, times: Times) -> Start:
    if value == "ready" or value == "go":
        return Start(value)
    return Start("delay", times.ms(value, "start"))
