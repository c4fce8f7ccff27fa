"""The shows of a kiosk, compiled for each rung, with every problem of the playbooks that the kiosk's file names.

A playbook is wrong by itself, or one of the rungs cannot perform it; then the others do. Only what no rung can
perform is an error.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from playbook.errors import Place, Problem
from playbook.formats.durations import show_duration
from playbook.formats.findings import Findings
from playbook.formats.source import Node
from playbook.kiosk.file import CAPTIONS, Kiosk, Show, read_kiosk
from playbook.kiosk.times import Times
from playbook.language import Inputs, Installation, check_file, digest, total_ms
from playbook.model import AudioEcho, Plan, Step, Wait, WaitEvent

LOCAL = "local"
FREE = (LOCAL, CAPTIONS)
"""Rungs that cost nothing and need no network."""
_NOT_OF_A_RUNG = ("PB431",)
"""Doubts about a playbook that are none when another provider performs it on purpose."""
_MONDAY = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
_MANY = 2_000
"""So many moments of a cron time are tried, until one of them is within opening hours."""

Plans = Mapping[str, Plan]
"""A show's plan for each rung that can perform it."""


@dataclass(frozen=True, slots=True)
class Programme:
    """A kiosk and the plans of its shows, by show and by rung."""

    kiosk: Kiosk
    plans: Mapping[str, Plans]

    @property
    def secrets(self) -> frozenset[str]:
        return frozenset(itertools.chain(*(plan.secrets for plans in self.plans.values() for plan in plans.values())))


def check_kiosk(
    path: Path, world: Installation, silent: Installation | None = None, inputs: Inputs | None = None
) -> tuple[tuple[Problem, ...], Programme | None]:
    """Every problem of a kiosk file and of what it names; the programme if there are only warnings. `silent` is a
    world without a voice, in which captions are measured."""
    findings = Findings()
    kiosk, root = read_kiosk(path, findings)
    programme = None
    if kiosk is not None and root is not None:
        programme = _Check(kiosk, root, world, silent or world, inputs or Inputs(), findings).programme()
    return findings.report(str(path)), None if findings.failed else programme


def plans_of(
    show: Show, ladder: tuple[str, ...], world: Installation, silent: Installation, inputs: Inputs
) -> tuple[Plans, Mapping[str, tuple[Problem, ...]]]:
    """A show's plans by rung, and the problems of each rung, with or without a plan."""
    plans: dict[str, Plan] = {}
    problems: dict[str, tuple[Problem, ...]] = {}
    inputs = replace(inputs, values={**inputs.values, **show.values})
    for rung in ladder:
        where, provider = (silent, LOCAL) if rung == CAPTIONS else (world, rung)
        found, plan = check_file(Path(show.shown), where, inputs, provider=provider, placeholders=True)
        problems[rung] = tuple(problem for problem in found if problem.code not in _NOT_OF_A_RUNG)
        if plan is not None:
            plans[rung] = without_sound(plan) if rung == CAPTIONS else plan
        elif not found:
            problems[rung] = (Problem("PB218", f"{show.shown} is a part, and no playbook", Place(show.shown, 1, 1)),)
    return plans, problems


def without_sound(plan: Plan) -> Plan:
    """The plan as captions perform it: a silence in place of each sound, which then need not be read, and nothing is
    expected."""

    def silence(step: Step) -> Step:
        if not isinstance(step.action, AudioEcho):
            return replace(step, expect=None)
        until = step.until
        ms = until if isinstance(until, int) else step.action.duration_ms if until == "ended" else 0
        return replace(step, action=Wait(ms), until="ended", expect=None)

    limits = replace(plan.limits, max_cost=None, require_evidence=None)
    quiet = replace(plan, steps=tuple(map(silence, plan.steps)), sounds={}, limits=limits, expect=None)
    return replace(quiet, sha256=digest(quiet))


def _named_at(problem: Problem, place: Place) -> Problem:
    """A playbook's problem, and where the kiosk file names the playbook."""
    return replace(problem, place=place) if problem.place is None else replace(problem, via=(place, *problem.via))


class _Check:
    """What is wrong with a kiosk once its playbooks are known."""

    def __init__(self, kiosk: Kiosk, root: Node, world: Installation, silent: Installation, inputs: Inputs, findings: Findings) -> None:
        self._kiosk, self._root, self._findings = kiosk, root, findings
        self._world, self._silent, self._inputs = world, silent, inputs

    def programme(self) -> Programme:
        known = self._ladder()
        plans = {name: self._show(show, known) for name, show in self._kiosk.shows.items()} if known else {}
        programme = Programme(self._kiosk, plans)
        if known and not self._findings.failed:
            self._doubt_budget(plans)
            self._doubt_times()
        return programme

    def _ladder(self) -> tuple[str, ...]:
        """The rungs, if all are known."""
        names = self._world.providers()
        unknown = [node for node in self._root.at(["ladder"]).entries() if node.data not in (*names, CAPTIONS)]
        for node in unknown:
            remedy = self._findings.guess(node.data, [*names, CAPTIONS])
            self._findings.add("PB212", f"unknown provider '{node.data}'", node.place, remedy)
        return () if unknown else self._kiosk.ladder

    def _show(self, show: Show, ladder: tuple[str, ...]) -> Plans:
        place = self._place(show)
        _, own = plans_of(show, (CAPTIONS,), self._world, self._silent, self._inputs)
        wrong = [problem for problem in own[CAPTIONS] if problem.severity == "error"]
        if wrong:  # with whatever rung: the playbook is wrong
            self._findings.extend(_named_at(problem, place) for problem in wrong)
            return {}
        plans, problems = plans_of(show, ladder, self._world, self._silent, self._inputs)
        voices = [rung for rung in ladder if rung != CAPTIONS]
        for rung in voices:
            if rung not in plans:
                first = next(problem for problem in problems[rung] if problem.severity == "error")
                self._reject(show, rung, f"{first.code}, {first.message}", first.remedy, none=not any(each in plans for each in voices))
            elif rung != CAPTIONS:
                self._findings.extend(_named_at(each, place) for each in problems[rung])
        for plan in itertools.islice(plans.values(), 1):
            self._doubt_waits(plan, place)
        return plans

    def _reject(self, show: Show, rung: str, reason: str, remedy: str, *, none: bool) -> None:
        if none:
            self._findings.add("PB510", f"no rung can perform the show '{show.name}': {rung}: {reason}", self._place(show), remedy)
            return
        place = next(node.place for node in self._root.at(["ladder"]).entries() if node.data == rung)
        message = f"{rung} cannot perform the show '{show.name}': {reason}"
        self._findings.add("PB511", message, place, remedy or "the next rung performs it", severity="warning")

    def _place(self, show: Show) -> Place:
        node = self._root.at(["shows", show.name])
        return node.at(["playbook"]).place if show.name in self._root.data["shows"] else self._root.at(["idle", "show"]).place

    def _doubt_waits(self, plan: Plan, place: Place) -> None:
        for step in plan.steps:
            action = step.action
            endless = isinstance(action, WaitEvent) and action.timeout_ms is None and step.timeout_ms is None and step.skipped is None
            if endless and plan.limits.max_duration_ms is None:
                message = f"step '{step.id}' may wait for ever, and nobody is there to see it"
                self._findings.add(
                    "PB514", message, step.place, "give it a timeout, or the playbook `limits: {max_duration: …}`", via=(place, *step.via)
                )

    # --- money and times

    def _doubt_budget(self, plans: Mapping[str, Plans]) -> None:
        kiosk, idle = self._kiosk, self._kiosk.idle.show
        if kiosk.per_day is None:
            return
        for node in self._root.at(["ladder"]).entries():
            priced = [show[node.data] for show in plans.values() if node.data in show]
            if node.data not in FREE and any(plan.capabilities.price_per_minute is None for plan in priced):
                message = f"what {node.data} costs is not known: the budget does not count it"
                self._findings.add("PB513", message, node.place, "add `price_per_minute:` to its session settings", severity="warning")
        if idle is None:
            return
        first = next((plan for rung, plan in plans[idle].items() if rung not in FREE and plan.capabilities.price_per_minute), None)
        if first is None or first.capabilities.price_per_minute is None:
            return
        minutes = self._idle_minutes(first)
        cost = minutes * first.capabilities.price_per_minute
        if cost > kiosk.per_day:
            about = f"{show_duration(round(minutes) * 60_000)} of {first.provider}, about {cost:.2f} a day"
            message = f"the idle show alone exceeds the budget: {about}"
            place = self._root.at(["budget", "per_day"]).place
            self._findings.add("PB512", message, place, "let it come less often, keep sessions for less time, or allow more")

    def _idle_minutes(self, plan: Plan) -> float:
        """For how many minutes of its longest day a session is open when nobody comes."""
        kiosk = self._kiosk
        longest = max(kiosk.hours.open_minutes(_MONDAY.date() + dt.timedelta(days=day)) for day in range(7))
        if kiosk.idle.every_ms <= kiosk.keep_ms:
            return longest
        length_ms = total_ms(plan)
        return longest * (length_ms + kiosk.keep_ms) / (length_ms + kiosk.idle.every_ms)

    def _doubt_times(self) -> None:
        for index, play in enumerate(self._kiosk.plays):
            if play.times is not None and not self._comes_while_open(play.times):
                node = self._root.at(["play", index, "cron"])
                self._findings.add(
                    "PB515", "the kiosk is never open at this time", node.place, "the show would never be performed", severity="warning"
                )

    def _comes_while_open(self, times: Times) -> bool:
        moment: dt.datetime | None = _MONDAY
        for _ in range(_MANY):
            moment = times.after(moment) if moment is not None else None
            if moment is None:
                return False
            if self._kiosk.hours.state(moment)[0]:
                return True
        return False
