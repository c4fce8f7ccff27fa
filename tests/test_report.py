"""The report of a run says each thing once, one word for each line, and never that something was heard which was not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from playbook.engine import Result
from playbook.events import Conflict, ProviderFailed, SayText, SpeechEnded, SpeechStarted, StepFinished, StepStarted, TaskAccepted
from playbook.model import Evidence
from playbook.record.performance import of_summary
from playbook.record.runlog import to_line
from playbook.record.summary import RunSummary
from playbook.report import run_report

from .commands import Shell

TWO_LINES = """\
version: 1
provider: kaltura
start: 0s
session: {visualConfig: {id: v}, voiceConfig: {id: w}}
timeline:
  - say: Hello there, my friend.
    id: hello
    on_error: continue
  - say: The second line.
    id: two
  - end:
"""


def rehearse(shell: Shell, text: str, *options: str):
    shell.write("show.yaml", text)
    return shell.call("run", "show.yaml", "--emulate", "--clock", "virtual", "--out", "here", *options)


def summary(*story) -> RunSummary:
    told = RunSummary()
    for n, (at_ms, item) in enumerate(story, 1):
        told.take(to_line(item, n, at_ms))
    told.finish()
    return told


def row(report: str, step: str) -> list[str]:
    """A line's row: start, heard, evidence."""
    return re.split(r"  +", next(line for line in report.splitlines() if f"  {step} " in line).strip())[:3]


# --- what was refused was never heard -------------------------------------------------------------------------------------


def test_a_line_that_may_not_have_been_taken_has_no_evidence(shell: Shell):
    """The report and the JSON say what became of it; with `on_error: continue` and nothing required, the exit code stays 0."""
    done = rehearse(shell, TWO_LINES, "--fault", "half-body@hello")
    assert done.code == 0, done.out
    assert row(done.out, "hello") == ["?", "-", "ambiguous"]
    assert "2 lines, 1 ambiguous; " in done.out
    told = json.loads(rehearse(shell, TWO_LINES, "--fault", "half-body@hello", "--json", "--out", "json").out)
    assert [line["evidence"] for line in told["utterances"]] == ["ambiguous", "estimated"]
    counts = told["counts"]
    assert [counts[name] for name in ("reported", "estimated", "timeout", "refused", "ambiguous")] == [0, 1, 0, 0, 1]


REFUSED = [
    (0, StepStarted("a")),
    (0, SayText("a", "a", "All of it.")),
    (10, ProviderFailed("no voice", outcome="refused", task="a", status=503)),
    (10, SpeechEnded("a", interrupted=True, heard_ms=0, outcome="settled", reason="refused")),
    (10, StepFinished("a", "failed", "no voice")),
]


def test_a_refused_line_is_told_as_refused_and_counted_as_nothing_else():
    """Its log says that the provider reported an end; the reader of the log says that nothing was said."""
    told = summary(*REFUSED)
    assert told.utterances["a"].evidence == "reported"
    assert told.utterances["a"].grade == "refused"
    counts = told.counts()
    assert (counts["reported"], counts["refused"], counts["ambiguous"]) == (0, 1, 0)
    report = run_report(Result("passed", 0), told)
    assert row(report, "a") == ["never", "-", "refused"]
    assert report.splitlines()[-1].startswith("1 step, 1 line, 1 refused; ")
    assert of_summary(told, "x", {}).acts[0].facts["evidence"] == "refused"


def test_required_evidence_fails_a_run_whose_line_was_refused(shell: Shell):
    """The step's failure was accepted (`on_error: continue`), the missing evidence was not: exit 1, with the step and what became of it."""
    done = rehearse(shell, TWO_LINES.replace("timeline:", "limits: {require_evidence: estimated}\ntimeline:"), "--fault", "half-body@hello")
    assert done.code == 1, done.out
    assert "failed at hello: the playbook requires evidence at least 'estimated', but the line may not have been taken" in done.out
    assert done.out.count("may not have been taken") == 1
    assert "1 expectation not met" in done.out
    assert shell.call("replay", "here").code == 0


# --- once each ------------------------------------------------------------------------------------------------------------


def test_the_cause_of_a_failure_is_said_once(shell: Shell):
    """In the report, and in the progress beside it: the table has a word, the last lines the sentence."""
    done = rehearse(shell, TWO_LINES.replace("    on_error: continue\n", ""), "--fault", "half-body@hello")
    assert done.code == 1
    cause = "it may have arrived"
    assert [done.out.count(cause), done.err.count(cause)] == [1, 1]
    assert "1 step, 1 line, 1 ambiguous; " in done.out


def test_a_cause_that_many_share_is_said_once_with_their_names():
    """Two lines that failed for one reason are one line of the report."""
    story = [(at, item) for step in ("a", "b") for at, item in _refused(step)]
    report = run_report(Result("passed", 0), summary(*story))
    assert "a, b: refused: no voice" in report.splitlines()
    assert report.count("no voice") == 1


def _refused(step: str):
    return [
        (0, SayText(step, step, "All of it.")),
        (0, ProviderFailed("no voice", outcome="refused", task=step)),
        (0, SpeechEnded(step, interrupted=True, heard_ms=0, outcome="settled", reason="refused")),
    ]


def test_conflicts_and_expectations_are_counted_apart():
    """An expectation that did not come true is no conflict of evidence, and one of anything is singular."""
    report = run_report(
        Result("failed", 1, "expected more", "a"),
        summary((0, StepStarted("a")), (1, Conflict("the provider says other words", "a")), (2, Conflict("expected more", step="a"))),
        (Conflict("expected more", step="a"),),
    )
    assert "1 step, 0 lines, 1 conflict, 1 expectation not met; " in report
    assert report.count("expected more") == 1


# --- when it began --------------------------------------------------------------------------------------------------------


def said(*after) -> RunSummary:
    return summary((0, SayText("a", "a", "All of it.")), (0, TaskAccepted("a")), *after)


@pytest.mark.parametrize(
    ("ended", "shown"),
    [
        (SpeechEnded("a", duration_ms=900), "?"),
        (SpeechEnded("a", Evidence.timeout, outcome="settled", reason="the provider never reported a start"), "?"),
        (SpeechEnded("a", Evidence.estimated, interrupted=True, heard_ms=0), "never"),
        (SpeechEnded("a", Evidence.timeout, interrupted=True, heard_ms=0, outcome="settled", reason="session lost"), "?"),
    ],
)
def test_a_start_that_nobody_told_is_a_question_mark(ended: SpeechEnded, shown: str):
    """`never` stands only where it is known that a line was not heard."""
    assert row(run_report(Result("passed", 0), said((900, ended))), "a")[0] == shown


# --- how long it was heard ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended_ms", "ended", "length", "shown"),
    [
        (1300, SpeechEnded("a"), None, "1.2 s"),
        (3300, SpeechEnded("a", Evidence.heard, ago_ms=2000), None, "1.2 s"),
        (4600, SpeechEnded("a"), 1500, "1.5 s"),
        (9100, SpeechEnded("a", Evidence.timeout, outcome="settled", reason="no end"), None, "?"),
        (9100, SpeechEnded("a", Evidence.timeout, outcome="settled", reason="no end"), 2500, "2.5 s"),
    ],
    ids=["as reported", "found by listening", "reported late", "never reported", "never reported, of known length"],
)
def test_how_long_it_was_heard(ended_ms: int, ended: SpeechEnded, length: int | None, shown: str):
    """What took us time to find is taken off, no sound is heard for longer than it is, and when we gave up says nothing."""
    told = summary(
        (0, SayText("a", "a", "All of it.")), (0, TaskAccepted("a", duration_ms=length)), (100, SpeechStarted("a")), (ended_ms, ended)
    )
    assert row(run_report(Result("passed", 0), told), "a")[1] == shown


# --- how long the provider took -------------------------------------------------------------------------------------------


def test_our_own_pause_between_two_chunks_is_not_the_providers():
    """Each chunk's acceptance counts from its own command, and the answer from what the speech waited for."""
    story = [
        (0, StepStarted("a")),
        (0, SayText("a", "a", "Today ", 1, False)),
        (30, TaskAccepted("a", chunk=1)),
        (130, SpeechStarted("a")),
        (2030, SayText("a", "a", "we open.", 2, True)),
        (2050, TaskAccepted("a", chunk=2)),
        (3000, SpeechEnded("a")),
    ]
    [act] = of_summary(summary(*story), "x", {}).acts
    assert (act.times["accepted"], act.times["answered"]) == (50, 100)


# --- without the voice ----------------------------------------------------------------------------------------------------


def test_a_run_without_the_voice_says_that_it_was_silent(shell: Shell):
    """Lines are `estimated`, sounds stay `reported`; `check` warns, `--strict` refuses, and the last words tell, also with `--quiet`."""
    shell.write("espeakng_loader/__init__.py", "")  # the package without its library
    shell.env["PYTHONPATH"] = f"{shell.folder}:{shell.env['PYTHONPATH']}"
    text = "version: 1\nprovider: local\ntimeline:\n  - say: Hello.\n  - audio-echo: {base64: %s, sample_rate: 8000, format: pcm16}\n"
    shell.write("show.yaml", text % ("AAAA" * 500))
    assert "warning[PB455]" in shell.perform("check", "show.yaml").out
    assert shell.perform("check", "show.yaml", "--strict").code == 3
    done = shell.perform("run", "show.yaml", "--clock", "virtual", "--quiet", "--out", "here")
    assert done.code == 0, done.err
    assert done.err.splitlines()[-1] == "1 line was silence, because no voice is installed: pip install espeakng-loader"
    grades = [
        line["evidence"]
        for line in map(json.loads, Path("here/run.jsonl").read_text().splitlines())
        if "duration_ms" in line and "evidence" in line
    ]
    assert grades == ["estimated", "reported"]
