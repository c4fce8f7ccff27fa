"""Signals that steer a show, at the engine and through a whole run. Each test's first line says what it proves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbook import clock
from playbook.engine import Engine
from playbook.events import (
    SIGNALS,
    CloseSession,
    Ignored,
    PlayAudio,
    SayText,
    SessionOpened,
    Signal,
    SpeechEnded,
    StepFinished,
    StepSkipped,
    StepStarted,
    StopSpeaking,
    TimelineZero,
    Trigger,
    ViewerJoined,
    ViewerLeft,
    read_signal,
)
from playbook.model import Capabilities, End, InterruptSpeech, Limits, Plan, Start, Wait, WaitEvent, WaitSpeech
from playbook.perform.performance import Options, Runner
from playbook.perform.steering import Cue
from playbook.record.expect import failed_expectations
from playbook.record.performance import of_log
from playbook.record.replay import replay
from playbook.record.runlog import read_log

from .logs import checked, closings
from .logs import of as lines_of
from .scripts import FakeProvider, do, drive, of, plan, say, sound
from .test_engine import closings as closed
from .test_engine import started
from .test_runlog import written

SILENT = Capabilities(speech="none", interrupt="unknown")
DEAF = Capabilities(speech="reported", interrupt="none")


def signal(name: str, step: str | None = None) -> Signal:
    return Signal(name, "page", step)


def steered(script: Plan, *signals: tuple[int, object], **provider: object) -> tuple[list[tuple[int, object]], Engine]:
    """The story of a plan, and its engine, with these signals."""
    fake = FakeProvider(**provider)  # type: ignore[arg-type]
    story = drive(script, fake, signals)  # type: ignore[arg-type]
    return story, fake.engine  # type: ignore[attr-defined]


def ignored(story) -> list[str]:
    return [note.reason for _, note in of(story, Ignored)]


# --- hold and resume ------------------------------------------------------------------------------------------------------


def test_a_line_that_has_begun_is_said_to_its_end():
    """While a show is held, its line goes on, with the chunks that are still to come; the next one begins when it is resumed."""
    script = plan(say("a", "One ", (400, "two"), ms=1000), say("b"))
    story, engine = steered(script, (100, signal("hold")), (5_000, signal("resume")))
    assert [(ms, text.text) for ms, text in of(story, SayText)] == [(0, "One "), (400, "two"), (5_000, "This is b.")]
    assert not closed(story)["a"].interrupted
    assert engine.result.end == "passed"


def test_what_is_left_of_a_wait_stands_still():
    """A wait, its step's time-out and a wait for a trigger go on where they were."""
    story, _ = steered(plan(do("w", Wait(1_000)), do("x", Wait(0))), (300, signal("hold")), (10_300, signal("resume")))
    assert started(story, "x") == 11_000
    story, engine = steered(plan(do("w", Wait(5_000), timeout_ms=1_000)), (300, signal("hold")), (10_300, signal("resume")))
    assert of(story, StepFinished)[0] == (11_000, StepFinished("w", "timeout", "took longer than 1000 ms"))
    story, engine = steered(
        plan(do("e", WaitEvent("door", 500))), (100, signal("hold")), (2_000, Trigger("door")), (3_000, signal("resume"))
    )
    assert (started(story, "end"), engine.result.end) == (3_000, "passed")


def test_later_times_move_by_the_time_held():
    """`at` counts from timeline zero, and what a show is held does not count."""
    script = plan(do("w", Wait(100)), say("a", at_ms=2_000), do("x", Wait(0), at_ms=4_000))
    story, _ = steered(script, (500, signal("hold")), (3_500, signal("resume")))
    assert (started(story, "a"), started(story, "x")) == (5_000, 7_000)


def test_a_held_show_between_two_steps():
    """A line that ends while the show is held leaves nothing behind: the next step is due when the show goes on, not before."""
    story, _ = steered(plan(say("a"), do("w", Wait(500)), do("x", Wait(0))), (900, signal("hold")), (4_000, signal("resume")))
    assert (started(story, "w"), started(story, "x")) == (4_000, 4_500)


def test_until_runs_on():
    """A line's `until` is a moment of its speech, which is not held; what follows it is."""
    story, _ = steered(plan(say("a", until=500, ms=3_000), do("x", Wait(0))), (100, signal("hold")), (2_000, signal("resume")))
    assert of(story, StepFinished)[0] == (500, StepFinished("a", "done"))
    assert started(story, "x") == 2_000


# --- skip, goto, panic, end -----------------------------------------------------------------------------------------------


def test_skip_leaves_the_step():
    """A wait is left, a line is interrupted, and a step whose own time has not come is passed by."""
    story, _ = steered(plan(do("w", Wait(9_000)), do("x", Wait(0))), (300, signal("skip")))
    assert of(story, StepFinished)[0] == (300, StepFinished("w", "skipped", "skip"))
    assert started(story, "x") == 300
    story, engine = steered(plan(say("a", ms=5_000), say("b")), (400, signal("skip")), ms=5_000)
    assert (closed(story)["a"].interrupted, closed(story)["a"].heard_ms) == (True, 400)
    assert (started(story, "b"), engine.result.exit_code) == (400, 0)
    story, _ = steered(plan(do("w", Wait(0), at_ms=9_000), do("x", Wait(0))), (300, signal("skip")))
    assert of(story, StepSkipped) == [(300, StepSkipped("w", "skip"))]


def test_skip_where_the_provider_cannot_interrupt():
    """The line is said to its end, and nothing is said beside it."""
    story, engine = steered(plan(say("a"), say("b"), can=DEAF), (400, signal("skip")))
    assert not of(story, StopSpeaking)
    assert [ms for ms, _ in of(story, SayText)] == [0, 1_000]
    assert engine.result.exit_code == 0


def test_skip_at_the_end_ends_the_show():
    """The last line is cut when somebody skips the wait for it."""
    story, engine = steered(plan(say("a", until="accepted", ms=5_000)), (700, signal("skip")), ms=5_000)
    assert of(story, CloseSession) == [(700, CloseSession("end"))]
    assert engine.result.exit_code == 0


def test_goto_moves_the_timeline():
    """Forward or back: the step is due now, and what has an `at` comes as long after it as was planned."""
    script = plan(say("a"), do("b", Wait(500), at_ms=10_000), do("c", Wait(0), at_ms=12_000))
    story, _ = steered(script, (200, signal("goto", "b")))
    assert (started(story, "b"), started(story, "c")) == (200, 2_200)
    story, _ = steered(script, (200, signal("goto", "b")), (1_000, signal("goto", "a")))
    assert [(ms, note.step) for ms, note in of(story, StepStarted)] == [
        (0, "a"),
        (200, "b"),
        (1_000, "a"),
        (11_000, "b"),
        (13_000, "c"),
        (13_000, "end"),
    ]


def test_a_step_performed_again_has_tasks_of_its_own():
    """`intro~2` is said the second time, and an interrupt that is ordered again is another one."""
    script = plan(say("intro"), say("long", until=100, ms=5_000), do("i", InterruptSpeech()), do("w", Wait(500)))
    story, engine = steered(script, (1_400, signal("goto", "intro")), ms=1_000)
    assert [task.task for _, task in of(story, SayText)] == ["intro", "long", "intro~2", "long~2"]
    assert [stop.task for _, stop in of(story, StopSpeaking) if stop.step] == ["i", "i~2"]
    assert set(closed(story)) == {"intro", "long", "intro~2", "long~2"}
    assert engine.result.exit_code == 0


def test_goto_into_a_loop_and_to_the_end():
    """A step of a loop has its own id; `goto` of the closing `end` ends the show in order."""
    script = plan(say("room.1"), say("room.2"), do("end", End()))
    story, engine = steered(script, (100, signal("goto", "room")), (200, signal("goto", "room.2")), (400, signal("goto", "end")))
    assert ignored(story) == ["there is no step 'room'; did you mean 'room.1'?"]
    assert closed(story)["room.2"].interrupted
    assert engine.result.exit_code == 0


def test_goto_of_what_there_is_not():
    """An unknown step, none at all, and one that is skipped are ignored, with what was meant."""
    script = plan(say("intro"), say("never", skipped="when is false"))
    story, _ = steered(script, (10, signal("goto", "intor")), (20, signal("goto")), (30, signal("goto", "never")))
    assert ignored(story) == [
        "there is no step 'intor'; did you mean 'intro'?",
        "no step was named",
        "the step 'never' is skipped: when is false",
    ]


def test_panic_interrupts_and_holds():
    """Silence at once, and nothing new until somebody resumes; without speech it is a hold, and again it is nothing."""
    script = plan(say("a", ms=5_000), say("b"))
    story, engine = steered(script, (300, signal("panic")), (400, signal("panic")), (2_000, signal("resume")), ms=5_000)
    assert closed(story)["a"].heard_ms == 300
    assert started(story, "b") == 2_000
    assert ignored(story) == ["nothing is being said, and the show is held"]
    assert engine.result.exit_code == 0


def test_end_stops_in_order():
    """`end` is exit 130, also before the show has begun; a second one closes at once."""
    story, engine = steered(plan(say("a", ms=5_000)), (300, signal("end")), ms=5_000)
    assert (engine.result.end, engine.result.exit_code) == ("stopped", 130)
    assert len(of(story, StopSpeaking)) == len(of(story, CloseSession)) == 1
    _, engine = steered(plan(say("a"), start=Start("go")), (300, signal("end")))
    assert engine.result.exit_code == 130


@pytest.mark.parametrize("name", ["hold", "resume", "skip", "goto", "panic"])
def test_signals_before_and_after_the_show(name):
    """They mean nothing before the start, while the session is being closed, and when all has been said: they change nothing."""
    engine = Engine(plan(say("a"), start=Start("go")))
    assert engine.handle(signal(name, "a"), 0) == (Ignored("the show has not begun"),)
    engine.handle(SessionOpened("s"), 1)
    assert engine.handle(signal(name, "a"), 2) == (Ignored("the show has not begun"),)
    engine.handle(signal("end"), 3)
    assert engine.handle(signal(name, "a"), 4) == (Ignored("the session was being closed"),)
    story, _ = steered(plan(say("a"), can=replace(SILENT, tail_ms=2_000)), (1_500, signal(name, "a")), reports=False)
    assert ignored(story) == ["the show is over"]


def test_signals_that_mean_nothing_now():
    """`hold` twice, `resume` without `hold`, and a name that is nearly one."""
    story, _ = steered(
        plan(do("w", Wait(1_000))),
        (1, signal("resume")),
        (2, signal("hold")),
        (3, signal("hold")),
        (4, Trigger("resum")),
        (9, signal("resume")),
    )
    assert ignored(story) == ["the show is not held", "the show is held", "nothing waits for the trigger 'resum'; did you mean 'resume'?"]


def test_a_line_that_fails_after_it_was_skipped_fails_nobody():
    """Somebody did not want it any more: what the provider thinks of it does not end the show."""
    story, engine = steered(plan(say("a"), say("b")), (100, signal("skip")), answers_ms=300, fails={"a": "ambiguous"}, interrupts_ms=400)
    assert engine.result.exit_code == 0
    assert started(story, "b") == 300


# --- waiting --------------------------------------------------------------------------------------------------------------


def test_a_viewer_begins_the_show():
    """`start: viewer` waits for somebody to watch; `go` begins it at once; one who watches already is enough."""
    script = plan(say("a"), start=Start("viewer"))
    assert of(steered(script, (700, ViewerJoined("one")))[0], TimelineZero) == [(700, TimelineZero())]
    assert of(steered(script, (300, Trigger("go")), (700, ViewerJoined("one")))[0], TimelineZero) == [(300, TimelineZero())]
    engine = Engine(script)
    assert engine.handle(ViewerJoined("one"), 0) == ()
    assert TimelineZero() in engine.handle(SessionOpened("s"), 5)
    assert engine.handle(ViewerLeft("two"), 6) == (Ignored("two had not joined"),)


def test_the_wait_is_bounded_in_all():
    """Waiting for the start and being held use up one budget; then the session is closed, exit 5. The show's own time stands still."""
    limits = Limits(max_duration_ms=2_000, max_wait_ms=5_000)
    script = plan(do("w", Wait(1_500)), limits=limits, start=Start("go"))
    _, engine = steered(script)
    assert (engine.result.exit_code, engine.result.end) == (5, "error")
    story, engine = steered(script, (3_000, Trigger("go")), (3_500, signal("hold")))
    assert of(story, CloseSession)[0][0] == 5_500
    assert engine.result.exit_code == 5
    story, engine = steered(script, (3_000, Trigger("go")), (3_500, signal("hold")), (5_000, signal("resume")))
    assert (of(story, CloseSession)[0][0], engine.result.exit_code) == (6_000, 0)


def test_the_shows_limit_does_not_count_what_it_is_held():
    """`max_duration` is used up by the show alone."""
    script = plan(do("w", Wait(9_000)), limits=Limits(max_duration_ms=2_000, max_wait_ms=60_000))
    story, engine = steered(script, (500, signal("hold")), (20_500, signal("resume")))
    assert (of(story, CloseSession)[0][0], engine.result.exit_code) == (22_000, 6)


def test_the_vendors_limit_bounds_a_wait():
    """Where the author set none, a session that nobody began is closed before the vendor's own end, exit 5; a show at that limit is 6."""
    can = replace(SILENT, max_session_ms=100_000)
    _, engine = steered(plan(say("a"), can=can, start=Start("go")))
    assert engine.result.exit_code == 5
    _, engine = steered(plan(do("w", Wait(200_000)), can=can))
    assert engine.result.exit_code == 6


# --- any signals at any moment ----------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(["ended", "accepted", "started", 300]), st.integers(1, 3_000)),
        st.tuples(st.just("chunks"), st.just("ended"), st.integers(1, 3_000)),
        st.tuples(st.just("sound"), st.sampled_from(["ended", "started"]), st.integers(1, 2_000)),
        st.tuples(st.just("wait"), st.none(), st.integers(0, 2_000)),
        st.tuples(st.just("at"), st.none(), st.integers(0, 6_000)),
        st.tuples(st.just("speech"), st.none(), st.just(0)),
        st.tuples(st.just("event"), st.none(), st.integers(1, 2_000)),
        st.tuples(st.just("interrupt"), st.none(), st.just(0)),
    ),
    min_size=1,
    max_size=7,
)
GIVEN = st.lists(
    st.tuples(
        st.integers(0, 9_000),
        st.one_of(
            st.builds(
                Signal,
                st.sampled_from([name for name in SIGNALS if name != "go"]),
                st.just("page"),
                st.sampled_from([None, "s0", "s3", "end", "x"]),
            ),
            st.builds(Trigger, st.sampled_from(["go", "door"]), st.just("page")),
        ),
    ),
    max_size=12,
)


def script_of(steps) -> list:
    make = {
        "say": lambda i, until, ms: say(i, until=until, ms=ms),
        "chunks": lambda i, until, ms: say(i, "One ", (200, "two "), (0, "three"), until=until, ms=ms),
        "sound": lambda i, until, ms: sound(i, ms, until=until),
        "wait": lambda i, _, ms: do(i, Wait(ms)),
        "at": lambda i, _, ms: do(i, Wait(0), at_ms=ms),
        "speech": lambda i, *_: do(i, WaitSpeech()),
        "event": lambda i, _, ms: do(i, WaitEvent("door", ms, "continue")),
        "interrupt": lambda i, *_: do(i, InterruptSpeech(), on_error="continue"),
    }
    return [make[kind](f"s{n}", a, b) for n, (kind, a, b) in enumerate(steps)]


@settings(max_examples=300, deadline=None)
@given(
    steps=STEPS,
    given_=GIVEN,
    speech=st.sampled_from(["exact", "reported", "none"]),
    scope=st.sampled_from(["none", "current", "all", "unknown"]),
    answers_ms=st.sampled_from([0, 150, 700]),
    interrupts=st.sampled_from(["taken", "lost", "refused"]),
)
def test_any_signals_at_any_moment(tmp_path_factory, steps, given_, speech, scope, answers_ms, interrupts):
    """One close, one closing of each line, and the same story in replay."""
    if scope == "none":
        steps = [step for step in steps if step[0] != "interrupt"] or [("wait", None, 10)]
    limits = Limits(max_duration_ms=60_000, max_wait_ms=5_000)
    script = plan(*script_of(steps), can=Capabilities(speech=speech, interrupt=scope, tail_ms=300), limits=limits)
    provider = FakeProvider(
        reports=speech != "none", answers_ms=answers_ms, interrupts="taken" if speech == "exact" else interrupts, interrupts_ms=answers_ms
    )
    story = drive(script, provider, sorted(given_, key=lambda pair: pair[0]))
    engine = provider.engine
    assert engine.done
    assert len(of(story, CloseSession)) == 1
    sent = {item.task for _, item in story if isinstance(item, (SayText, PlayAudio))}
    assert set(closed(story)) == sent
    path = written(tmp_path_factory.mktemp("run") / "run.jsonl", story, engine.result.end, reason=engine.result.reason)
    assert replay(read_log(path), script).identical


@settings(max_examples=200, deadline=None)
@given(steps=STEPS, given_=GIVEN, speech=st.sampled_from(["exact", "reported", "none"]))
def test_no_two_lines_at_once(steps, given_, speech):
    """Where every line is waited for, none is sent before the one before it has been closed, whatever anybody signals."""
    steps = [(kind, "ended" if kind in ("say", "chunks", "sound") else a, ms) for kind, a, ms in steps]
    script = plan(
        *script_of(steps), can=Capabilities(speech=speech, interrupt="unknown"), limits=Limits(max_duration_ms=60_000, max_wait_ms=5_000)
    )
    story = drive(script, FakeProvider(reports=speech != "none"), sorted(given_, key=lambda pair: pair[0]))
    ends = closed(story)
    open_: set[str] = set()
    for _, item in story:
        if isinstance(item, (SayText, PlayAudio)) and getattr(item, "chunk", 1) == 1:
            assert not open_
            open_.add(item.task)
        elif isinstance(item, SpeechEnded) and item is ends.get(item.task or ""):
            open_.discard(item.task or "")


def test_a_thousand_signals_a_second():
    """A flood of signals that mean nothing is told, one by one, and the show is the same as without it."""
    script = plan(do("w", Wait(1_000)), say("a"))
    quiet, _ = steered(script)
    flood, engine = steered(script, *[(ms, signal("resume")) for ms in range(1_000)])
    assert len(of(flood, Ignored)) == 1_000
    assert [pair for pair in flood if not isinstance(pair[1], (Signal, Ignored))] == quiet
    assert engine.result.exit_code == 0


# --- a whole run ------------------------------------------------------------------------------------------------------------


class Script:
    """A control that gives these signals, each so many milliseconds after it was attached."""

    def __init__(self, source: str, *signals: tuple[int, str], ends_ms: int | None = None) -> None:
        self.source, self._signals, self._ends_ms = source, signals, ends_ms
        self.answers: list[str | None] = []

    def attach(self, show):
        import asyncio
        import contextlib

        loop = asyncio.get_running_loop()
        for ms, text in self._signals:
            loop.call_later(ms / 1000, lambda text=text: self.answers.append(show.offer(text, source=self.source)))
        if self._ends_ms is not None:
            loop.call_later(self._ends_ms / 1000, lambda: show.no_more(self.source))
        return contextlib.nullcontext()


SHOW = """\
version: 1
name: steered
provider: local
timeline:
  - say: The first line of the show.
    id: first
  - wait: 2s
    id: pause
  - say: And this is the second one.
    id: second
    expect: {heard: And this is the second one.}
"""


def run(folder: Path, text: str, *controls: Script, cues: tuple[Cue, ...] = ()):
    import playbook
    from playbook.providers.local.provider import LocalProvider

    from .test_shows import Silent

    show = playbook.plan(text)
    options = Options(folder=folder / "run", controls=controls, cues=cues, provider=LocalProvider(Silent()))
    return clock.run(Runner(show, options).run(), "virtual"), show


def test_a_run_that_is_held_skipped_and_steered_back(tmp_path):
    """The log is valid and replays, captions are of what was said when it was said, and the report says what was done to the show."""
    control = Script("page", (100, "hold"), (150, "hold"), (5_000, "resume"), (5_100, "skip"), (5_200, "goto first"))
    outcome, show = run(tmp_path, SHOW, control)
    lines = checked(tmp_path / "run")
    assert outcome.result.exit_code == 0, outcome
    assert control.answers == [None, "the show is held", None, None, None]
    assert set(closings(lines)) >= {"first", "first~2", "second~2"} or set(closings(lines)) >= {"first", "first~2", "second"}
    assert [line["name"] for line in lines_of(lines, "event", "signal")] == ["hold", "hold", "resume", "skip", "goto"]
    assert outcome.summary.held_ms == 4_900
    assert not failed_expectations(show, outcome.summary)
    assert replay(read_log(tmp_path / "run"), show).identical
    assert of_log(read_log(tmp_path / "run"), "x").facts["steered"] == "hold, resume, skip, goto"
    from playbook.report import run_report

    assert "steered (hold, resume, skip, goto), held for 4.9 s" in run_report(outcome.result, outcome.summary)


def test_one_control_that_ends_is_not_all(tmp_path):
    """A show that waits for a trigger goes on waiting while another control can still give it, and stalls when none can."""
    waits = "version: 1\nname: w\nprovider: local\ntimeline:\n  - wait: {event: door}\n"
    outcome, _ = run(tmp_path / "a", waits, Script("stdin", ends_ms=100), Script("page", (2_000, "door")))
    assert outcome.result.exit_code == 0
    outcome, _ = run(tmp_path / "b", waits, Script("stdin", ends_ms=100), Script("page", ends_ms=300))
    assert (outcome.result.exit_code, outcome.result.end) == (1, "failed")
    held = "version: 1\nname: w\nprovider: local\ntimeline:\n  - wait: 1s\n"
    outcome, _ = run(tmp_path / "c", held, Script("stdin", (100, "hold"), ends_ms=300))
    assert (outcome.result.exit_code, outcome.result.reason) == (1, "stall: the show is held, and nobody can resume it any more")


def test_go_gives_what_is_waited_for(tmp_path):
    """The log has the trigger's own name, and who gave it; two `go` of a person in quick succession are one, a program's are two."""
    waits = "version: 1\nname: w\nprovider: local\nstart: go\ntimeline:\n  - wait: {event: door}\n"
    waits += "  - wait: {event: lift}\n    timeout: 5s\n    on_error: continue\n"
    for source, passes in (("page", 1), ("stdin", 2)):
        outcome, _ = run(tmp_path / source, waits, Script(source, (100, "go"), (1_000, "go"), (1_100, "go")))
        given_ = lines_of(checked(tmp_path / source / "run"), "event", "trigger")
        assert [(line["trigger"], line["source"]) for line in given_] == [(name, source) for name in ("go", "door", "lift")[: passes + 1]]
        assert outcome.result.exit_code == 0


def test_signals_as_cues(tmp_path):
    """A rehearsal gives signals by themselves, and knows which of them changed nothing."""
    cues = tuple(Cue.parse(text) for text in ("hold@1s", "resume@3s", "goto second@4s", "hodl@1s"))
    outcome, _ = run(tmp_path, SHOW, cues=cues)
    assert outcome.result.exit_code == 0
    assert outcome.summary.unheeded(cue.trigger for cue in cues) == ["nothing waited for the trigger 'hodl'"]


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ("go", Trigger("go", "stdin")),
        ("door", Trigger("door", "stdin")),
        ("goto intro", Signal("goto", "stdin", "intro")),
        ("goto", Signal("goto", "stdin")),
        ("hold", Signal("hold", "stdin")),
        ("hold on", Trigger("hold on", "stdin")),
    ],
)
def test_signals_as_they_are_written(text, event):
    """Any name that is no signal's is a trigger's; `goto` has its step behind it."""
    assert read_signal(text, "stdin") == event
