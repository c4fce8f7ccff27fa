"""What is wrong with a plan as a whole: what its provider cannot do, what takes too long, what comes too late."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from playbook.errors import Place
from playbook.formats.durations import show_duration
from playbook.formats.findings import Findings
from playbook.formats.source import Node
from playbook.language.cues import Cue, cues, total_ms
from playbook.model import AudioEcho, Evidence, InterruptSpeech, Plan, Say, Step, WaitEvent, WaitSpeech

_PLACEHOLDER = re.compile(r"YOUR[-_][A-Z0-9_-]+")


def check_capabilities(plan: Plan, root: Node, findings: Findings) -> None:
    """What the provider cannot do."""
    can, provider, require = plan.capabilities, plan.provider, plan.limits.require_evidence
    if require is not None and require > can.best_evidence:
        place = root.at(["limits", "require_evidence"]).place
        findings.add("PB419", _never(plan, require), place, f"require `{can.best_evidence.name}`")
    if plan.expect is not None and plan.expect.evidence is not None:
        _check_evidence(plan, plan.expect.evidence, root.at(["expect", "evidence"]).place, (), findings)
    for step in plan.steps:
        if step.skipped is not None:
            continue
        code, lack, remedy = _lack(step, plan)
        if code:
            findings.add(code, f"{provider} {lack}", step.place, remedy, via=step.via)
        if step.expect is not None and step.expect.evidence is not None:
            _check_evidence(plan, step.expect.evidence, step.place, step.via, findings)


def _lack(step: Step, plan: Plan) -> tuple[str, str, str]:
    """Code, message and remedy for what the provider cannot do of a step; empty if it can do all of it."""
    can, action = plan.capabilities, step.action
    if isinstance(action, Say) and not can.say:
        return "PB410", "cannot say text", "use audio-echo"
    if isinstance(action, AudioEcho) and not can.audio_echo:
        return "PB411", "cannot play audio", "use say"
    if isinstance(action, InterruptSpeech) and can.interrupt == "none":
        return "PB412", "cannot be interrupted", "leave the interrupt out, or use another provider"
    if isinstance(action, Say) and action.voice is not None and not can.voice_per_line:
        return "PB413", "cannot change the voice for a line", "set the voice in session"
    return "", "", ""


def _check_evidence(plan: Plan, wanted: Evidence, place: Place | None, via: tuple[Place, ...], findings: Findings) -> None:
    if wanted > (best := plan.capabilities.best_evidence):
        findings.add("PB419", _never(plan, wanted), place, f"expect `{best.name}`", via=via)


def _never(plan: Plan, wanted: Evidence) -> str:
    """Why no line reaches a grade."""
    heard = plan.capabilities.source_evidence is not None
    why = "is heard, but does not report speech itself" if heard else "reports no speech"
    return f"{plan.provider} {why}, so no line is ever '{wanted.name}'"


def check_placeholders(settings: Any, node: Node, findings: Findings) -> None:
    """Doubt settings that `new` left to be filled in; `node` is where they stand."""
    if isinstance(settings, Mapping):
        for key, each in settings.items():
            check_placeholders(each, node.at([key]), findings)
    elif isinstance(settings, list):
        for number, each in enumerate(settings):
            check_placeholders(each, node.at([number]), findings)
    elif isinstance(settings, str) and _PLACEHOLDER.fullmatch(settings):
        remedy = "write your own, from your account there; only the emulator takes any"
        message = f"'{settings}' is a placeholder of the starter"
        findings.add("PB436", message, node.place, remedy, severity="warning")


def check_times(plan: Plan, root: Node, findings: Findings) -> None:
    """What takes too long for a limit, or comes too late."""
    can, limits, timeline = plan.capabilities, plan.limits, cues(plan)
    total = total_ms(plan, timeline)
    planned = show_duration(total)
    show_ms = total - plan.start.delay_ms
    if limits.max_duration_ms is not None and show_ms > limits.max_duration_ms:
        at = root.at(["limits", "max_duration"]).place
        message = f"the plan takes {show_duration(show_ms)}, longer than its own limit"
        findings.add("PB415", message, at, "raise the limit, or shorten the show")
    if can.usable_ms is not None and can.max_session_ms is not None and total > can.usable_ms:
        message = f"the plan takes {planned}; {plan.provider} ends the session after {show_duration(can.max_session_ms)}"
        remedy = "shorten the show, or set a longer session"
        findings.add("PB416", message, root.key_place("timeline"), remedy)
    if limits.max_cost is not None:
        at = root.at(["limits", "max_cost"]).place
        if can.price_per_minute is None:
            remedy = "give `price_per_minute` in session"
            findings.add("PB414", "max_cost means nothing without a price", at, remedy)
        elif (cost := can.price_per_minute * total / 60_000) > limits.max_cost:
            message = f"the plan costs about {cost:.2f}, more than {limits.max_cost:g}"
            findings.add("PB418", message, at, "raise the limit, or shorten the show")
    _Walk(plan, findings).along(timeline)


class _Walk:
    """One walk along the timeline, which finds late cues, idle silences, and interrupts with nothing to stop."""

    def __init__(self, plan: Plan, findings: Findings) -> None:
        self._plan, self._findings = plan, findings
        self._idle_limit_ms = plan.capabilities.idle_limit_ms
        self._quiet_since_ms = -plan.start.delay_ms
        self._complained = False  # of this silence
        self._may_speak = False

    def along(self, timeline: tuple[Cue, ...]) -> None:
        for step, cue in zip(self._plan.steps, timeline, strict=True):
            if step.skipped is None:
                self._check_late(step, cue)
                self._check_duration(step)
                self._check_silence(step, cue)
                self._check_interrupt(step, cue)

    def _doubt(self, code: str, message: str, step: Step, remedy: str) -> None:
        self._findings.add(code, message, step.place, remedy, via=step.via, severity="warning")

    def _check_late(self, step: Step, cue: Cue) -> None:
        if cue.late_ms:
            sure = "will come" if cue.exact else "will probably come"
            message = f"the cue {sure} {show_duration(cue.late_ms)} late"
            self._doubt("PB430", message, step, "the steps before it take longer")

    def _check_duration(self, step: Step) -> None:
        if isinstance(step.until, int) and 0 < 5 * step.length.ms < step.until - 10_000:
            takes, until = show_duration(step.length.ms), show_duration(step.until)
            remedy = "a bare number is seconds; for a silence after the line use `wait`"
            self._doubt("PB435", f"the line takes {takes}, and the show moves on after {until}", step, remedy)
        least = _least_ms(step)
        if step.timeout_ms is not None and step.on_error == "fail" and (step.timeout_ms < least or not step.timeout_ms):
            longer = f"longer than {show_duration(least)}" if least else "longer"
            takes = f": the step takes {show_duration(least)}" if least else ""
            message = f"a timeout of {show_duration(step.timeout_ms)} ends the show here{takes}"
            self._doubt("PB437", message, step, f"make it {longer}, or leave it out")

    def _check_silence(self, step: Step, cue: Cue) -> None:
        limit_ms, action = self._idle_limit_ms, step.action
        if limit_ms is None:
            return
        allowed = f"{self._plan.provider} ends the session after {show_duration(limit_ms)}"
        if isinstance(action, WaitEvent):
            timeout_ms = action.timeout_ms if action.timeout_ms is not None else step.timeout_ms
            if timeout_ms is None or timeout_ms > limit_ms:
                message = f"this wait may last longer: {allowed} of silence"
                self._doubt("PB433", message, step, f"give it a timeout below {show_duration(limit_ms)}")
        silence_ms = (cue.heard_ms if step.speaks else cue.next_ms) - self._quiet_since_ms
        if not self._complained and silence_ms > limit_ms:
            self._complained = True
            message = f"{show_duration(silence_ms)} of silence; {allowed}"
            remedy = "say something in between, or set a longer idle time"
            self._findings.add("PB417", message, step.place, remedy, via=step.via)

    def _check_interrupt(self, step: Step, cue: Cue) -> None:
        if step.speaks:
            self._quiet_since_ms, self._complained = max(cue.over_ms, self._quiet_since_ms), False
            self._may_speak = self._may_speak or step.until != "ended"
        elif isinstance(step.action, WaitSpeech):
            self._may_speak = False
        elif isinstance(step.action, InterruptSpeech):
            if not self._may_speak:
                message = "nothing can be speaking here: every line before it has ended"
                self._doubt("PB432", message, step, "give the line before it an `until`, such as `until: 2s`")
            self._may_speak, self._quiet_since_ms = False, min(self._quiet_since_ms, cue.start_ms)


def _least_ms(step: Step) -> int:
    """How long a step surely takes, whatever the provider does."""
    if step.speaks and isinstance(step.until, int):
        return step.until
    return step.length.ms if step.length.basis == "exact" and (not step.speaks or step.until == "ended") else 0
