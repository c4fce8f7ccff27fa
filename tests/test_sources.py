"""Who tells of speech: named sources, ears that report edges, and the ledger that decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbook.engine import Engine
from playbook.engine.ledger import DISAGREE_MS
from playbook.events import (
    Conflict,
    GradeRaised,
    Ignored,
    PlayAudio,
    SayText,
    SessionOpened,
    Silence,
    Sound,
    SourceJoined,
    SourceLeft,
    SpeechEnded,
    SpeechStarted,
    StartTimer,
    TaskAccepted,
    Timer,
    TimerFired,
)
from playbook.model import Capabilities, Evidence, Limits, Wait
from playbook.record.replay import replay
from playbook.record.runlog import read_log
from playbook.record.summary import RunSummary

from .scripts import FakeProvider, do, drive, of, plan, say, sound
from .test_engine import closings, started
from .test_runlog import summary_of, written

SILENT = Capabilities(speech="none", interrupt="unknown", start_latency_ms=500)
JOINED = (0, SourceJoined("page", Evidence.heard))


def told(script, *events, **provider):
    """The story of a plan with these sightings, and its engine."""
    fake = FakeProvider(**{"reports": script.capabilities.speech == "reported", **provider})
    story = drive(script, fake, events)
    return story, fake.engine


def end_of(story, task: str) -> tuple[int, SpeechEnded]:
    """When a line was closed, and by what."""
    end = closings(story)[task]
    return next((ms, end) for ms, item in story if item is end)


# --- a reckoning is a deadline --------------------------------------------------------------------------------------------


def test_a_start_that_was_heard_is_followed_by_no_estimate():
    """A page reports a start at 300 ms: there is no second one at 500."""
    story, _ = told(plan(say("a", ms=2000), can=SILENT), JOINED, (300, Sound("page")), (2300, Silence("page")))
    assert [(ms, start.evidence, start.source) for ms, start in of(story, SpeechStarted)] == [(300, Evidence.heard, "page")]


def test_a_line_that_is_longer_than_estimated_is_waited_for():
    """The truth at 3,200 ms wins over the estimate at 2,500, and the next line is not sent before."""
    script = plan(say("a", ms=2000), say("b"), can=SILENT)
    story, _ = told(script, JOINED, (500, Sound("page")), (3200, Silence("page")), (4500, Sound("page")), (5500, Silence("page")))
    ms, end = end_of(story, "a")
    assert (end.evidence, end.source, ms - end.ago_ms) == (Evidence.heard, "page", 3200)
    assert started(story, "b") == 3800
    assert not of(story, Conflict)


def test_an_estimate_is_taken_when_the_margin_has_passed():
    """A start that was heard and an end that never was: the line is `estimated` after its length and the margin."""
    script = plan(say("a", ms=2000), can=SILENT, limits=Limits(speech_margin_ms=1000))
    story, engine = told(script, JOINED, (500, Sound("page")), (600, SourceLeft("page")), (601, SourceJoined("page", Evidence.heard)))
    ms, end = end_of(story, "a")
    assert (ms, end.evidence, end.reason) == (3500, Evidence.estimated, "no end was sighted; the length is estimated")
    assert engine.result.exit_code == 0


def test_a_mute_face_is_found():
    """Where an ear hears nothing within the latency and the margin, the line is `timeout`, and the show goes on."""
    script = plan(say("a", ms=2000), can=SILENT, limits=Limits(speech_margin_ms=1000))
    story, engine = told(script, JOINED)
    ms, end = end_of(story, "a")
    assert (ms, end.evidence, end.reason) == (1500, Evidence.timeout, "nothing was heard")
    assert engine.result.exit_code == 0


def test_without_a_source_the_length_counts():
    """When the last ear leaves, the line is reckoned again: at once, if its time is over."""
    script = plan(say("a", ms=2000), can=SILENT)
    story, _ = told(script, JOINED, (100, SourceLeft("page", "hidden")))
    assert [ms for ms, _ in of(story, SpeechEnded)] == [2500]
    story, _ = told(script, JOINED, (500, Sound("page")), (4000, SourceLeft("page")))
    assert [ms for ms, _ in of(story, SpeechEnded)] == [4000]


def test_the_margin_grows_with_the_length():
    """A line of eighteen minutes may take twenty: the error of an estimate is a part of it."""
    story, _ = told(plan(say("a", ms=1_080_000), can=Capabilities(speech="reported")), ms=1_200_000)
    assert end_of(story, "a")[1].evidence is Evidence.reported


def test_a_slow_voice_is_learned():
    """Lines that took longer than estimated make the lines after them be waited for longer."""
    script = plan(say("a", ms=4000), say("b", ms=4000), can=Capabilities(speech="reported"), limits=Limits(speech_margin_ms=1000))
    story, _ = told(script, ms=4900)
    due = [timer.due_ms - ms for ms, timer in of(story, StartTimer) if timer.reason is Timer.SPEECH]
    assert due == [5000, 5000, 6125, 6125]


def test_sound_that_goes_on_is_no_end():
    """While an ear hears the line, its deadline moves; an ear that hears for ever does not hold a show for ever."""
    script = plan(say("a", ms=2000), can=SILENT, limits=Limits(speech_margin_ms=1000))
    story, _ = told(script, JOINED, (500, Sound("page")), (5200, Silence("page")))
    assert end_of(story, "a")[1].evidence is Evidence.heard
    story, _ = told(script, JOINED, (500, Sound("page")))
    assert (end_of(story, "a")[0], end_of(story, "a")[1].evidence) == (6500, Evidence.estimated)


# --- silences -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ms", "silent_ms", "better", "closed_ms"),
    [
        (2000, 1600, False, 2200),  # more than half of the estimate is over: 600 ms
        (4000, 1000, False, 2500),  # at half of it
        (9000, 1000, False, 3000),  # or after two seconds
        (2000, 1600, True, 3600),  # always two seconds where somebody may know better
    ],
)
def test_how_long_a_silence_must_last(ms, silent_ms, better, closed_ms):
    """A pause inside a line is not its end; the end counts from where the silence began."""
    room = [(0, SourceJoined("room", Evidence.reported))] if better else []
    story, _ = told(plan(say("a", ms=ms), can=SILENT), JOINED, *room, (500, Sound("page")), (silent_ms, Silence("page")))
    at, end = end_of(story, "a")
    assert (at, end.ago_ms, end.evidence) == (closed_ms, closed_ms - silent_ms, Evidence.heard)


def test_a_pause_is_no_end():
    """Sound that comes again within that time goes on with the line."""
    pauses = [(500, Sound("page")), (1500, Silence("page")), (1900, Sound("page")), (3000, Silence("page"))]
    story, _ = told(plan(say("a", ms=2000), can=SILENT), JOINED, *pauses)
    assert [(ms - end.ago_ms, end.evidence) for ms, end in of(story, SpeechEnded)] == [(3000, Evidence.heard)]
    assert len(of(story, SpeechStarted)) == 1


def test_no_end_before_the_last_piece():
    """While pieces are still to be sent, silence and reports end nothing; after the last one the line has its time to be heard."""
    script = plan(say("a", "One. ", (5000, "Two."), ms=2000), can=SILENT)
    story, _ = told(script, JOINED, (500, Sound("page")), (1500, Silence("page")), (5800, Sound("page")), (6800, Silence("page")))
    ms, end = end_of(story, "a")
    assert (ms - end.ago_ms, end.evidence) == (6800, Evidence.heard)
    early = SpeechEnded("a")
    story, _ = told(replace(script, capabilities=Capabilities(speech="reported")), (1500, early))
    assert Conflict("reported before its last piece was sent", "a") in [note for _, note in of(story, Conflict)]
    assert closings(story)["a"] is not early


def test_a_sound_lasts_as_long_as_it_is():
    """Silence inside a sound of known length is not its end."""
    story, _ = told(plan(sound("a", 5000), can=SILENT), JOINED, (500, Sound("page")), (2000, Silence("page")))
    ms, end = end_of(story, "a")
    assert (ms, ms - (end.ago_ms or 0)) == (5500, 5500)


def test_a_report_comes_first():
    """An ear's earlier end does not close a line whose provider may report it; the report does, and they agree."""
    script = plan(say("a", ms=2000), can=Capabilities(speech="reported"))
    story, _ = told(script, JOINED, (20, Sound("page")), (1900, Silence("page")), ms=2000)
    assert (end_of(story, "a")[0], end_of(story, "a")[1].evidence) == (2000, Evidence.reported)
    assert not of(story, Conflict)


# --- later sightings ------------------------------------------------------------------------------------------------------


def opened(script):
    engine = Engine(script)
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    engine.handle(TaskAccepted("a"), 0)
    return engine


def test_a_better_sighting_that_agrees_raises_the_grade():
    """An end that was estimated and then heard is heard; a lesser one changes nothing, and the log's reader takes the best."""
    script = plan(say("a", ms=1000), do("w", Wait(5000)), can=replace(SILENT, start_latency_ms=0))
    events = [
        (1200, SpeechEnded("a", Evidence.heard, ago_ms=100, source="page")),
        (1300, SpeechEnded("a", Evidence.heard, ago_ms=200, source="ear")),
    ]
    story, _ = told(script, *events)
    assert of(story, GradeRaised) == [(1200, GradeRaised("a", "page", Evidence.heard))]
    assert [note.reason for _, note in of(story, Ignored)] == ["this line had ended"]
    said = summary_of(story).utterances["a"]
    assert (said.evidence, said.source, said.raised_by, said.ended_ms) == ("heard", "plan", "page", 1000)


def test_one_that_disagrees_is_a_conflict():
    """With both times, and without a better grade."""
    engine = opened(plan(say("a", ms=1000), do("w", Wait(9000)), can=replace(SILENT, start_latency_ms=0)))
    engine.handle(TimerFired("a", Timer.SPEECH, 1000), 1000)
    [note] = engine.handle(SpeechEnded("a", source="room"), 1000 + DISAGREE_MS)
    assert note == Conflict("an end was reported at 1500 ms, 500 ms after it was estimated at 1000 ms", "a")


# --- joining, leaving, nonsense -------------------------------------------------------------------------------------------


def test_sources_that_join_twice_or_never():
    """A second join, a leave without one, and edges of nobody mean nothing; one that never leaves ends with the show."""
    engine = opened(plan(say("a", ms=1000), can=SILENT))
    assert engine.handle(Sound("page"), 1) == (Ignored("page had not joined"),)
    assert engine.handle(SourceLeft("page"), 2) == (Ignored("page had not joined"),)
    engine.handle(SourceJoined("page", Evidence.heard), 3)
    assert engine.handle(SourceJoined("page", Evidence.heard), 4) == (Ignored("page had joined"),)
    assert engine.handle(Silence("page"), 5) == (Ignored("no line ends with this sound"),)


@pytest.mark.parametrize("ago_ms", [-5, 10**9, 10**400])
def test_edges_with_absurd_times(ago_ms):
    """An edge is never in the future, and a sound that began before the line was sent is not the line's."""
    engine = opened(plan(do("w", Wait(10)), say("a", ms=1000), can=SILENT))
    engine.handle(TimerFired("w", Timer.WAIT, 10), 10)
    engine.handle(TaskAccepted("a"), 10)
    engine.handle(SourceJoined("page", Evidence.heard), 20)
    effects = engine.handle(Sound("page", ago_ms), 600)
    if ago_ms < 0:
        assert effects[0] == SpeechStarted("a", Evidence.heard, ago_ms=0, outcome="settled", source="page")
    else:
        assert effects == (Ignored("no line begins with this sound"),)


# --- any order ------------------------------------------------------------------------------------------------------------

SOURCES = st.sampled_from(["page", "ear", "room"])
SIGHTED = st.sampled_from([Evidence.heard, Evidence.reported])
TASKS = st.sampled_from(["a", "b", "c", None])
TOLD = st.lists(
    st.tuples(
        st.integers(0, 9_000),
        st.one_of(
            st.builds(SourceJoined, SOURCES, SIGHTED),
            st.builds(SourceLeft, SOURCES),
            st.builds(Sound, SOURCES, st.integers(-10, 3_000)),
            st.builds(Silence, SOURCES, st.integers(-10, 3_000)),
            st.builds(SpeechStarted, TASKS, SIGHTED, ago_ms=st.integers(0, 500), source=SOURCES),
            st.builds(SpeechEnded, TASKS, SIGHTED, ago_ms=st.integers(0, 500), source=SOURCES),
        ),
    ),
    max_size=25,
)


@settings(max_examples=400, deadline=None)
@given(events=TOLD, speech=st.sampled_from(["reported", "none"]), until=st.sampled_from(["ended", "accepted", "started"]))
def test_any_order_of_sightings(tmp_path_factory, events, speech, until):
    """Each line is closed once, with the best grade that agreed, a sound never before its length, never while pieces are unsent, and
    replay tells the same story."""
    script = plan(
        say("a", "One. ", (900, "Two."), ms=1500, until=until),
        sound("b", 1200),
        say("c", ms=800),
        can=Capabilities(speech=speech, interrupt="unknown"),
        limits=Limits(speech_margin_ms=2000),
    )
    provider = FakeProvider(ms=1200, reports=speech == "reported")
    story = drive(script, provider, sorted(events, key=lambda pair: pair[0]))
    ends = closings(story)
    assert set(ends) == {"a", "b", "c"}
    sent = {item.task: ms for ms, item in story if isinstance(item, (SayText, PlayAudio))}  # the last piece of each
    begun = {}
    for ms, item in story:
        if isinstance(item, SpeechStarted) and item.task is not None:
            begun.setdefault(item.task, ms - (item.ago_ms or 0))
    for task, end in ends.items():
        ms = next(ms for ms, item in story if item is end)
        assert ms >= sent[task]
        if task == "b" and task in begun and not end.interrupted:
            assert ms - (end.ago_ms or 0) - begun[task] > 1200 - DISAGREE_MS
    summary = summary_of(story)
    _best_of_those_that_agreed(story, ends, summary)
    path = written(tmp_path_factory.mktemp("run") / "run.jsonl", story, provider.engine.result.end, reason=provider.engine.result.reason)
    assert replay(read_log(path), script).identical


def _best_of_those_that_agreed(story, ends, summary: RunSummary) -> None:
    for task, end in ends.items():
        raised = [note.evidence for _, note in of(story, GradeRaised) if note.task == task]
        assert raised == sorted(raised), "only ever a better one"
        assert summary.utterances[task].evidence == max([end.evidence, *raised]).name
