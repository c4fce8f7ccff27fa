"""Writing and reading run logs, and what is told from them."""

from __future__ import annotations

import json

import pytest

from playbook.errors import RecordError
from playbook.events import (
    Conflict,
    Ignored,
    ProviderFailed,
    SayText,
    SessionClosed,
    SpeechEnded,
    SpeechStarted,
    TaskAccepted,
    TimelineZero,
    Timer,
    TimerFired,
    words,
)
from playbook.model import Capabilities, Evidence, Expect, Limits
from playbook.record.captions import write_captions
from playbook.record.expect import failed_expectations
from playbook.record.redact import Redactor
from playbook.record.runlog import Header, RunLog, read_log, to_event, to_line
from playbook.record.summary import MAX_KEPT, MAX_TEXT, RunSummary
from playbook.speech.show import ShowRecorder

from .logs import ROOT, checked, quick_test, validator
from .scripts import FakeProvider, do, drive, plan, say
from .test_engine import EVENTS, given

HEADER = Header(
    run="r1",
    playbook="p",
    file="p.yaml",
    plan_sha256="0" * 64,
    provider="local",
    clock="virtual",
    started_at="2026-01-01T00:00:00Z",
    versions={},
)


def written(path, story, end="passed", redact=None, reason=None):
    """A story of the engine as a log file."""
    log = RunLog(path, redact=redact)
    log.header(HEADER)
    for ms, item in story:
        log.write([item], ms)
    log.end(story[-1][0], end, reason, {})
    log.close()
    return path


def summary_of(story):
    summary = RunSummary()
    for n, (ms, item) in enumerate(story, 1):
        summary.take(to_line(item, n, ms))
    summary.counts()
    return summary


def test_a_log_is_valid_and_read_back(tmp_path):
    """What the engine does becomes a log that the schema accepts and the reader returns line by line."""
    story = drive(plan(say("a", "One ", (30, "two."), until=200), do_interrupt(), say("b")))
    path = written(tmp_path / "run.jsonl", story)
    lines = checked(path)
    log = read_log(path)
    assert [log.header, *log] == lines
    assert log.complete
    assert log.damage is None


def test_the_quick_test_of_a_line_is_the_judge():
    """Every kind of line that is kept here, whole, without each of its keys, and with each value bent: both say the same of it."""
    lines = [json.loads(line) for path in sorted((ROOT / "tests" / "golden").rglob("run.jsonl")) for line in path.read_bytes().splitlines()]
    kinds = {tuple(line) + tuple(line.get(key) for key in ("event", "command", "note")): line for line in lines}
    tried, valid = 0, 0
    for line in kinds.values():
        without = ({key: value for key, value in line.items() if key != gone} for gone in line)
        bent = ({**line, key: wrong} for key in [*line, "other"] for wrong in (None, -1, 1.5, "", "x", True, {}, ["x"]))
        for one in (line, *without, *bent):
            judged = validator().is_valid(one)
            assert quick_test()(one) == judged, one
            tried, valid = tried + 1, valid + judged
    assert valid > len(kinds)
    assert tried - valid > 1000


def do_interrupt():
    from playbook.model import InterruptSpeech

    return do("i", InterruptSpeech())


@given(event=EVENTS)
def test_events_survive_the_log(event):
    """An event read from its line is the event that was written."""
    line = to_line(event, 1, 10_000)
    assert to_event(json.loads(json.dumps(line))) == event


def test_lines_are_in_a_stable_order_and_short():
    """Keys come in one stable order; what says nothing is left out; lateness is counted."""
    assert json.dumps(to_line(TimerFired("w", Timer.WAIT, 100), 7, 103)) == (
        '{"n": 7, "at_ms": 103, "event": "timer_fired", "step": "w", "due_ms": 100, "reason": "wait", "late_ms": 3}'
    )
    line = to_line(SpeechEnded("a", Evidence.reported), 1, 5)
    assert line == {"n": 1, "at_ms": 5, "event": "speech_ended", "task": "a", "source": "provider", "evidence": "reported"}


def test_half_a_surrogate_pair_can_be_read_back(tmp_path):
    """What a vendor says it said may be no text at all; log and captions hold what can be written of it, and are read again."""
    said = SpeechEnded("a", Evidence.reported, interrupted=True, heard_ms=900, heard="half \ud83d of it")
    story = [(0, TimelineZero()), (0, SayText("a", "a", "All of it.")), (0, SpeechStarted("a", Evidence.reported)), (900, said)]
    heard = [line.get("heard") for line in read_log(written(tmp_path / "run.jsonl", story))]
    assert heard == [None, None, None, "half ? of it", None]
    summary = summary_of(story)
    write_captions(tmp_path, summary, ShowRecorder())
    assert "half ? of it" in (tmp_path / "captions.vtt").read_text()
    assert "half ? of it" in (tmp_path / "captions.srt").read_text()


def test_secrets_are_masked(tmp_path):
    """A say line shows what may be shown; a secret that comes back from outside is replaced, quoted or not."""
    redact = Redactor(["p/w\n1"])
    log = RunLog(tmp_path / "run.jsonl", redact=redact)
    log.header(HEADER)
    log.write([SayText("a", "a", "The code is p/w\n1.", shown="The code is ***."), SessionClosed(reason="bad p%2Fw%0A1 or p/w\n1")], 1)
    log.close()
    text = (tmp_path / "run.jsonl").read_text()
    assert "p/w" not in text
    assert "p%2Fw" not in text
    assert '"reason":"bad *** or ***"' in text


def test_a_torn_log_is_read_as_far_as_it_goes(tmp_path):
    """A last line that was cut off ends the reading and is named; nothing before it is lost."""
    path = written(tmp_path / "run.jsonl", drive(plan(say("a"))))
    whole = path.read_bytes()
    count = whole.count(b"\n") - 1
    path.write_bytes(whole[:-20])
    log = read_log(path)
    assert len(list(log)) == count - 1
    assert not log.complete
    assert log.damage == f"line {count + 1} is cut off or damaged"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"hello\n", "is not a run log"),
        (b'{"a": 1}\n', "is not a run log"),
        (b'{"runlog": 99}\n', "version 99"),
        (b"\x00\xff\xfe\n", "is not a run log"),
    ],
)
def test_what_is_no_log(tmp_path, content, says):
    """A file that is no log, or is from a newer version, is refused in words."""
    (tmp_path / "run.jsonl").write_bytes(content)
    with pytest.raises(RecordError, match=says):
        read_log(tmp_path)


def test_lines_out_of_order(tmp_path):
    """A log whose lines are not in order is read up to there."""
    path = written(tmp_path / "run.jsonl", drive(plan(say("a"))))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[4], lines[3], *lines[5:]]))
    log = read_log(path)
    assert len(list(log)) == 2
    assert "should be number 3" in log.damage


def test_time_that_goes_back(tmp_path):
    """A line that is earlier than the one before it is not read, and nothing after it, whoever reads; two at the same time are."""
    path = written(tmp_path / "run.jsonl", drive(plan(say("a"))))
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    late = next(n for n, line in enumerate(lines) if line.get("at_ms", 0) > 0)
    assert lines[late + 1]["at_ms"] == lines[late]["at_ms"]
    lines[late + 1]["at_ms"] -= 1
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = read_log(path)
    assert len(list(log)) == late
    assert not log.complete
    assert log.damage == f"line {late + 2}: time goes back"


def test_a_deleted_log_is_written_anew(tmp_path):
    """A log that somebody deleted during the run is there again at its end."""
    log = RunLog(tmp_path / "run.jsonl")
    log.header(HEADER)
    (tmp_path / "run.jsonl").unlink()
    log.end(5, "passed", None, {})
    log.close()
    checked(tmp_path)


def test_summary_tells_the_run():
    """Steps, utterances and counts as they went, taken from the lines alone."""
    summary = summary_of(drive(plan(say("a", until=400), do_interrupt(), say("b"))))
    a, b = summary.utterances["a"], summary.utterances["b"]
    assert (a.interrupted, a.lasted_ms, a.evidence) == (True, 400, "reported")
    assert (b.started_ms, b.ended_ms, b.lasted_ms) == (400, 1400, 1000)
    counts = summary.counts()
    assert (counts["steps"], counts["done"], counts["utterances"], counts["reported"], counts["interrupted"]) == (4, 4, 2, 2, 1)


def test_a_summary_keeps_what_somebody_would_look_at():
    """Of what may come without end, all is counted and the first are kept; what is known of a step is kept whatever came before."""
    many = 3 * MAX_KEPT
    weather = [
        item
        for n in range(many)
        for item in (
            ProviderFailed(task=f"ghost-{n}", outcome="refused", reason="busy"),
            Ignored("no such line is open", f"ghost-{n}"),
            TaskAccepted("a", provider_task=f"theirs-{n}"),
            Conflict("the provider says other words than the plan", "a"),
        )
    ]
    story = [(0, SayText("a", "a", "All of it.")), *((n, item) for n, item in enumerate(weather)), (many * 4, Ignored("too late", "a"))]
    summary = summary_of(story)
    assert (summary.failure_count, summary.conflict_count, summary.ignored) == (many, many, many + 1)
    assert summary.counts()["conflicts"] == many
    assert len(summary.failures) == len(summary.conflicts) == len(summary.utterances["a"].provider_tasks) == MAX_KEPT
    assert len(summary.remarks) <= MAX_KEPT + 1
    assert summary.remarks["a"] == {"conflict", "ignored"}
    piece = "All of it. " * 100_000
    assert len(summary_of([(0, SayText("a", "a", piece))] * 9).utterances["a"].text) < MAX_TEXT + len(piece)


@pytest.mark.parametrize(
    ("expect", "failure"),
    [
        (Expect(evidence=Evidence.estimated), None),
        (Expect(evidence=Evidence.reported), "expected evidence at least 'reported', but it is 'estimated'"),
        (Expect(starts_within_ms=100), "expected to start within 100 ms, but took 200 ms"),
        (Expect(starts_within_ms=200), None),
        (Expect(lasts_min_ms=1000, lasts_max_ms=1000), None),
        (Expect(lasts_max_ms=999), "expected the line to last 0 to 999 ms, but it lasted 1000 ms"),
        (Expect(heard="This is a."), None),
        (Expect(heard="this IS, a"), None),
        (Expect(heard_contains="is A"), None),
        (Expect(heard_contains="i"), "expected to hear something with 'i', but heard 'This is a.'"),
        (Expect(heard_contains="is b"), "expected to hear something with 'is b', but heard 'This is a.'"),
        (Expect(heard="This is b."), "expected to hear 'This is b.', but heard 'This is a.'"),
        (Expect(absent=("interrupted",)), None),
        (Expect(absent=("speech_ended",)), "expected no speech_ended, but there was one"),
    ],
)
def test_expectations(expect, failure):
    """Each expectation of a step, kept and broken; a failure names the limit and the value."""
    script = plan(say("a", expect=expect), can=Capabilities(speech="none", start_latency_ms=200))
    failures = failed_expectations(script, summary_of(drive(script, FakeProvider(reports=False))))
    assert [f.reason for f in failures] == ([] if failure is None else [failure])


def test_required_evidence():
    """`limits.require_evidence` and the playbook's own `expect` are asked of every line."""
    can = Capabilities(speech="none")
    script = plan(say("a"), say("b"), can=can, limits=Limits(require_evidence=Evidence.heard), expect=Expect(absent=("speech_started",)))
    failures = failed_expectations(script, summary_of(drive(script, FakeProvider(reports=False))))
    assert failures == (
        Conflict("the playbook requires evidence at least 'heard', but it is 'estimated'", step="a"),
        Conflict("the playbook requires evidence at least 'heard', but it is 'estimated'", step="b"),
        Conflict("expected no speech_started, but there was one"),
    )


@pytest.mark.parametrize(
    ("said", "same", "other"),
    [
        ("Hello there, my friend!", "hello there my FRIEND", "hello there my friends"),
        ("Tickets are $50.", "tickets are $50", "tickets are $5"),
        ("It is -5 °, not 7.5.", "it is -5 ° not 7.5", "it is 5 ° not 75"),
        ("It’s 10:30", "it's 10:30!", "its 10 30"),
        ("欢迎来到 博物馆。", "欢迎来到博物馆", "欢迎来到博物"),
        ("The code is ***.", "the code is ***", "the code is"),
    ],
)
def test_words_are_compared_as_they_are_heard(said, same, other):
    """Case, spaces and punctuation do not count; numbers are whole, and signs that are spoken count."""
    assert words(said) == words(same) != words(other)
