"""Where a show goes on that failed: at the line to say again, never at one that was heard to its end."""

from __future__ import annotations

from playbook.model import Plan, Step
from playbook.record.summary import RunSummary, Utterance


def resume_at(plan: Plan, summary: RunSummary) -> str | None:
    """The first step that was not performed, after the last line that was heard to its end. None: nothing of the show is left."""
    heard = [n for n, step in enumerate(plan.steps) if (said := summary.utterances.get(step.id)) is not None and _heard(said)]
    begin = heard[-1] + 1 if heard else 0
    return next((step.id for step in plan.steps[begin:] if step.verb != "end" and not _done(step, summary)), None)


def _done(step: Step, summary: RunSummary) -> bool:
    """Whether nothing of a step is left: it was skipped, has worked, or was allowed to fail. Of a line all must have been
    heard that was not cut on purpose."""
    run, said = summary.steps.get(step.id), summary.utterances.get(step.id)
    if step.skipped is not None:
        return True
    if run is None:
        return False
    if run.outcome in ("failed", "timeout"):
        return step.on_error == "continue"
    return run.outcome in ("done", "skipped") and (said is None or _heard(said) or (said.interrupted and not _cut_off(said, summary)))


def _heard(said: Utterance) -> bool:
    """Whether a line was heard to its end."""
    return said.ended_ms is not None and not said.interrupted and said.untaken is None and said.evidence != "timeout"


def _cut_off(said: Utterance, summary: RunSummary) -> bool:
    """Whether the end of the session cut a line, and no interrupt did."""
    return said.evidence == "timeout" or said.ended_ms == summary.closing_ms
