"""Expectations, judged on what a log tells: `expect` of steps and of the playbook, and `limits.require_evidence`.

A line that the provider refused, or of which nobody knows whether it was taken, has no evidence, also where the show went on without it
(`on_error: continue`). Of a step that was performed again the last performance is judged; what somebody skipped is not. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from playbook.engine import Result
from playbook.events import Conflict, words
from playbook.model import Evidence, Expect, Plan
from playbook.record.redact import Redactor
from playbook.record.summary import RunSummary, Utterance


def failed_expectations(plan: Plan, summary: RunSummary) -> tuple[Conflict, ...]:
    """What was expected and did not come true, each with the limit *and* the value. `status` is not judged here: it is about the end."""
    return tuple(_judge(plan, summary))


def judged(result: Result, failures: Sequence[Conflict], plan: Plan) -> Result:
    """The end of the run in the light of what was expected of it."""
    wanted = plan.expect.status if plan.expect is not None else None
    if failures:
        return Result("failed", 1, failures[0].reason, failures[0].step) if result.end == "passed" else result
    if wanted is None or (result.end == "error" and wanted != "error"):
        return result
    if result.end == wanted:
        return Result("passed", 0, None if wanted == "passed" else f"ended as expected: {result.reason}")
    return Result("failed", 1, f"expected the run to end as '{wanted}', but it ended as '{result.end}'")


def _judge(plan: Plan, summary: RunSummary) -> Iterator[Conflict]:
    steps = {step.id: step for step in plan.steps}
    least = plan.limits.require_evidence
    whole = plan.expect or Expect()
    redact = Redactor(plan.secrets)  # the log has masks where the line has secrets; so must have what is compared with it
    for utterance in summary.last_said():
        step = steps.get(utterance.step)
        if step is None or (step.on_error == "continue" and utterance.evidence is None):
            continue
        if least is not None:
            yield from _evidence(utterance, least, "the playbook requires")
        if whole.evidence is not None:
            yield from _evidence(utterance, whole.evidence, "expected")
    for step in plan.steps:
        if step.expect is None or step.skipped is not None:
            continue
        said, done = summary.said(step.id), summary.steps.get(step.id)
        if summary.steered and (done is None or done.outcome == "skipped"):  # somebody did not want it
            continue
        if done is None:
            yield Conflict("expected to be performed, but the run never came to it", step=step.id)
        elif said is not None:
            yield from _line(said, step.expect, redact)
            yield from _lasts("the line", said.lasted_ms, step.expect, step.id)
        else:
            yield from _lasts("the step", done.lasted_ms, step.expect, step.id)
        occurred = summary.remarks.get(step.id, set()) | (said.events if said is not None else set())
        for event in step.expect.absent:
            if event in occurred:
                yield Conflict(f"expected no {event}, but there was one", step=step.id)
    for event in whole.absent:
        if event in summary.names:
            yield Conflict(f"expected no {event}, but there was one")
    yield from _lasts("the show", summary.last_ms - (summary.zero_ms or 0) - summary.held_ms, whole, None)


def _line(said: Utterance, expect: Expect, redact: Redactor) -> Iterator[Conflict]:
    if expect.evidence is not None:
        yield from _evidence(said, expect.evidence, "expected")
    if expect.starts_within_ms is not None:
        took = None if said.started_ms is None else said.started_ms - said.sent_ms
        if took is None or took > expect.starts_within_ms:
            value = "never started" if took is None else f"took {took} ms"
            yield Conflict(f"expected to start within {expect.starts_within_ms} ms, but {value}", step=said.step)
    heard = said.heard if said.interrupted or said.heard is not None else said.text
    if said.untaken is not None and said.started_ms is None:
        heard = ""
    if expect.heard is not None:
        wanted = redact(expect.heard)
        if heard is None or words(heard) != words(wanted):
            yield Conflict(f"expected to hear '{wanted}', but heard '{heard or ''}'", step=said.step)
    if expect.heard_contains is not None:
        wanted = redact(expect.heard_contains)
        if heard is None or not _among(words(wanted), words(heard)):
            yield Conflict(f"expected to hear something with '{wanted}', but heard '{heard or ''}'", step=said.step)


def _among(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    return bool(part) and any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))


def _evidence(said: Utterance, least: Evidence, who: str) -> Iterator[Conflict]:
    if said.untaken is not None:
        if said.untaken == "refused":
            became = "was refused, and never heard" if said.started_ms is None else f"was refused after {said.heard_ms} ms of it"
        else:
            became = f"may not have been taken{'' if said.started_ms is None else ' whole'}"
        yield Conflict(f"{who} evidence at least '{least.name}', but the line {became}", step=said.step)
    elif said.evidence is None or Evidence[said.evidence] < least:
        yield Conflict(f"{who} evidence at least '{least.name}', but it is '{said.evidence}'", step=said.step)


def _lasts(what: str, value: int | None, expect: Expect, step: str | None) -> Iterator[Conflict]:
    least, most = expect.lasts_min_ms, expect.lasts_max_ms
    if least is None and most is None:
        return
    if value is None or (least is not None and value < least) or (most is not None and value > most):
        wanted = f"{least if least is not None else 0} to {most if most is not None else 'any number of'} ms"
        yield Conflict(
            f"expected {what} to last {wanted}, but it lasted {'an unknown time' if value is None else f'{value} ms'}", step=step
        )
