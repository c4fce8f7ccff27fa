"""The engine, event by event. Each test's first line says what it proves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbook.engine import Engine
from playbook.engine.effects import NOTICEABLE_MS
from playbook.engine.ledger import DISAGREE_MS, SETTLE_MS
from playbook.engine.reckoning import WAKE_MS
from playbook.events import (
    CancelTimer,
    CloseSession,
    Conflict,
    GradeRaised,
    Ignored,
    Late,
    OpenSession,
    PlayAudio,
    ProviderFailed,
    SayText,
    SessionClosed,
    SessionOpened,
    SpeechEnded,
    SpeechStarted,
    StartTimer,
    StepFinished,
    StepSkipped,
    StepStarted,
    StopCause,
    StopRequested,
    StopSpeaking,
    TaskAccepted,
    TimelineZero,
    Timer,
    TimerFired,
    Trigger,
)
from playbook.model import Capabilities, End, Evidence, InterruptSpeech, Limits, Start, Wait, WaitEvent, WaitSpeech

from .scripts import FakeProvider, do, drive, of, plan, say, sound

SILENT = Capabilities(speech="none", interrupt="unknown")


def started(story, step):
    return next(ms for ms, note in of(story, StepStarted) if note.step == step)


def closings(story):
    """Each closing `speech_ended`, by task."""
    ends = {}
    for (_, item), after in zip(story, [*story[1:], (0, None)], strict=True):
        taken_back = isinstance(after[1], (Ignored, Conflict, GradeRaised)) and after[1].task in (getattr(item, "task", 0), None)
        if isinstance(item, SpeechEnded) and item.task and not taken_back:
            assert item.task not in ends, "closed twice"
            ends[item.task] = item
    return ends


def result(script, *args, **kwargs):
    provider = FakeProvider(*args, **kwargs)
    story = drive(script, provider)
    return story, provider.engine.result


# --- the cursor -----------------------------------------------------------------------------------------------------


def test_first_commands():
    """A run begins by opening the session; with `start: ready` timeline zero is when it is open."""
    engine = Engine(plan(say("a")))
    assert engine.begin() == (OpenSession(),)
    effects = engine.handle(SessionOpened("s"), 40)
    assert effects == (TimelineZero(), StepStarted("a"), SayText("a", "a", "This is a."))


def test_a_line_ends_before_the_next_step():
    """`until: ended` is the default."""
    story, end = result(plan(say("a"), say("b")))
    assert (started(story, "a"), started(story, "b"), started(story, "end")) == (0, 1000, 2000)
    assert end.end == "passed"


@pytest.mark.parametrize(("until", "moves_on_at"), [("accepted", 0), ("started", 0), ("ended", 1000), (300, 300), (2500, 2500)])
def test_until(until, moves_on_at):
    """`until` moves the cursor at a moment of the line's life, or after a duration counted even when the line is shorter."""
    story, _ = result(plan(say("a", until=until), do("w", Wait(10))))
    assert started(story, "w") == moves_on_at


def test_waits_do_not_drift():
    """A thousand waits whose timers all fire 3 ms late end 3 ms late, not 3 s."""
    engine = Engine(plan(*(do(f"w{i}", Wait(10)) for i in range(1000))))
    engine.begin()
    effects = engine.handle(SessionOpened("s"), 0)
    for i in range(1000):
        (timer,) = [effect for effect in effects if isinstance(effect, StartTimer)]
        assert timer.due_ms == 10 * (i + 1)
        effects = engine.handle(TimerFired(timer.step, timer.reason, timer.due_ms), timer.due_ms + 3)


def test_a_sleep_moves_the_schedule():
    """After a delay that an audience would notice, waits count from now: no burst of lines follows."""
    engine = Engine(plan(do("a", Wait(100)), do("b", Wait(100))))
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    effects = engine.handle(TimerFired("a", Timer.WAIT, 100), 100 + NOTICEABLE_MS)
    assert Late("a", 100, NOTICEABLE_MS, "wait") in effects
    assert StartTimer("b", Timer.WAIT, 200 + NOTICEABLE_MS) in effects


def test_at_is_absolute_and_late_cues_fire_at_once():
    """`at` counts from timeline zero; a cue that is already past is started and logged with its lateness."""
    story, _ = result(plan(do("w", Wait(100), at_ms=500), say("a"), do("x", Wait(0), at_ms=700)))
    assert started(story, "w") == 500
    assert started(story, "x") == 1600
    assert of(story, Late) == [(1600, Late("x", 700, 900))]


def test_start_delay_and_go():
    """`start` holds timeline zero for a time, or until the trigger `go`; other triggers are ignored."""
    story = drive(plan(say("a"), start=Start("delay", 700)))
    assert of(story, TimelineZero) == [(700, TimelineZero())]
    story = drive(plan(say("a"), start=Start("go")), inject=[(50, Trigger("come")), (90, Trigger("go"))])
    assert of(story, TimelineZero) == [(90, TimelineZero())]
    assert len(of(story, Ignored)) == 1


def test_skipped_steps_are_noted():
    """A step whose `when` was false is passed over, with its reason."""
    story, end = result(plan(say("a", skipped="when is false"), do("w", Wait(5))))
    assert of(story, StepSkipped) == [(0, StepSkipped("a", "when is false"))]
    assert end.end == "passed"


def test_wait_speech():
    """`wait: speech` waits for everything that was queued."""
    story, _ = result(plan(say("a", until="accepted"), say("b", until="accepted"), do("ws", WaitSpeech()), do("w", Wait(1))))
    assert started(story, "w") == 2000


def test_wait_event():
    """A trigger ends the wait; without it the time-out fails the run or lets it go on."""
    waits = do("e", WaitEvent("door", 500))
    story = drive(plan(waits), inject=[(100, Trigger("door"))])
    assert started(story, "end") == 100
    _, end = result(plan(waits))
    assert (end.end, end.exit_code, end.step) == ("failed", 1, "e")
    story, end = result(plan(do("e", WaitEvent("door", 500, "continue"))))
    assert (started(story, "end"), end.end) == (500, "passed")


def test_stall_is_visible():
    """An engine that waits for a trigger and for nothing else says so."""
    engine = Engine(plan(do("e", WaitEvent("door"))))
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    assert engine.stalled_on == "door"


def test_step_timeout():
    """A step that takes longer than its `timeout` fails the run, or is left behind with `on_error: continue`."""
    _, end = result(plan(say("a", timeout_ms=400)))
    assert (end.exit_code, end.step) == (1, "a")
    story, end = result(plan(say("a", timeout_ms=400, on_error="continue"), do("w", Wait(1))))
    assert (started(story, "w"), end.end) == (400, "passed")
    assert StepFinished("a", "timeout", "took longer than 400 ms") in [item for _, item in story]


def test_chunks_stream_one_utterance():
    """Chunks of a line go out one after another, each when the one before was taken and its pause is over; one utterance closes."""
    story, _ = result(plan(say("a", "One, ", (300, "two, "), "three.")))
    sent = [(ms, c.text, c.chunk, c.final) for ms, c in of(story, SayText)]
    assert sent == [(0, "One, ", 1, False), (300, "two, ", 2, False), (300, "three.", 3, True)]
    assert list(closings(story)) == ["a"]


# --- evidence -------------------------------------------------------------------------------------------------------


def test_silent_provider_is_estimated():
    """Where nobody reports speech, starts and ends are the engine's own, by the plan's length."""
    story, _ = result(plan(say("a", ms=800), can=replace(SILENT, start_latency_ms=200)), reports=False)
    assert [(ms, e.outcome) for ms, e in of(story, SpeechStarted)] == [(200, "settled")]
    assert [(ms, e.evidence) for ms, e in of(story, SpeechEnded)] == [(1000, Evidence.estimated)]


def test_estimated_queue():
    """Lines queued on purpose are reckoned one after another."""
    story, _ = result(plan(say("a", until="accepted"), say("b", ms=500), can=SILENT), reports=False)
    assert [ms for ms, _ in of(story, SpeechStarted)] == [0, 1000]
    assert [ms for ms, _ in of(story, SpeechEnded)] == [1000, 1500]


def test_missing_end_is_a_timeout_grade():
    """A provider that reports but stays silent gets the grade `timeout` after the estimate and the margin; the show goes on."""
    script = plan(say("a"), say("b"), limits=Limits(speech_margin_ms=2000))
    story, end = result(script, reports=False)
    assert [(ms, e.evidence) for ms, e in of(story, SpeechEnded)] == [(3000, Evidence.timeout), (6000, Evidence.timeout)]
    assert end.end == "passed"


def test_a_queued_line_is_given_its_turn():
    """Lines that are slower than estimated push back what is queued behind them; nothing is called missing before its turn."""
    script = plan(*(say(f"l{i}", ms=1000, until="accepted") for i in range(5)), limits=Limits(speech_margin_ms=3000))
    story, end = result(script, ms=3000)
    assert {e.evidence for e in closings(story).values()} == {Evidence.reported}
    assert end.end == "passed"


def test_a_suspended_process_listens_first():
    """A margin that ran out while the process was suspended is no verdict: reports may be waiting, and one that is counts."""
    for report in (True, False):
        engine = Engine(plan(say("a")))
        engine.begin()
        engine.handle(SessionOpened("s"), 0)
        (timer,) = [e for e in engine.handle(TaskAccepted("a"), 0) if isinstance(e, StartTimer)]
        woken = timer.due_ms + 60_000
        effects = engine.handle(TimerFired("a", Timer.SPEECH, timer.due_ms), woken)
        assert effects[-1] == StartTimer("a", Timer.SPEECH, woken + WAKE_MS)
        if report:
            assert CancelTimer("a", Timer.SPEECH) in engine.handle(SpeechEnded("a"), woken + 1)
        else:
            effects = engine.handle(TimerFired("a", Timer.SPEECH, woken + WAKE_MS), woken + WAKE_MS)
            assert effects[0].evidence is Evidence.timeout


def test_unnamed_end_is_unmatched():
    """An end without a name closes the only line it can mean, as `unmatched`; with two candidates it closes none."""
    engine = Engine(plan(say("a")))
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    engine.handle(TaskAccepted("a"), 1)
    engine.handle(SpeechStarted(None), 5)
    effects = engine.handle(SpeechEnded(None), 900)
    assert SpeechEnded("a", Evidence.unmatched, outcome="settled", reason="only this line could be meant") in effects


def test_doubled_and_late_events_change_nothing():
    """A second end, a second start and an end of nothing are noted and move no cursor."""
    engine = Engine(plan(say("a"), say("b")))
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    engine.handle(TaskAccepted("a"), 1)
    engine.handle(SpeechStarted("a"), 2)
    assert engine.handle(SpeechStarted("a"), 3) == (Ignored("this line had started", "a"),)
    engine.handle(SpeechEnded("a"), 900)
    assert engine.handle(SpeechEnded("a"), 901) == (Ignored("this line had ended", "a"),)
    assert engine.handle(SpeechEnded("zzz"), 902) == (Ignored("no line fits this end", "zzz"),)
    assert engine.current_step.id == "b"
    assert isinstance(engine.handle(SpeechEnded("a"), 900 + DISAGREE_MS)[0], Conflict)


def test_a_known_length_outweighs_an_early_end():
    """An end reported long before a sound can be over is a conflict: the line is closed when its own length has passed."""
    script = plan(sound("a", 5000), do("w", Wait(1)))
    engine = Engine(script)
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    engine.handle(TaskAccepted("a"), 0)
    engine.handle(SpeechStarted("a"), 0)
    effects = engine.handle(SpeechEnded("a"), 1000)
    assert isinstance(effects[0], Conflict)
    assert StartTimer("a", Timer.SPEECH, 5000) in effects
    effects = engine.handle(TimerFired("a", Timer.SPEECH, 5000), 5000)
    assert effects[0].evidence is Evidence.estimated
    assert engine.current_step.id == "w"


def test_other_words_are_a_conflict():
    """What the vendor says it says is compared with our words, never used to end anything."""
    engine = Engine(plan(say("a", "Hello there.")))
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    engine.handle(TaskAccepted("a"), 0)
    engine.handle(SpeechStarted("a"), 1)
    assert engine.handle(SpeechStarted("a", text="hello  THERE"), 2) == (Ignored("this line had started", "a"),)
    assert isinstance(engine.handle(SpeechStarted("a", text="Good bye"), 3)[0], Conflict)
    assert engine.current_step.id == "a"


def test_sightings_are_compared_by_when_they_were_true():
    """What takes time to be noticed says how long; a difference either way is a conflict, and changes nothing."""
    engine = Engine(plan(say("a"), say("b")))
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    engine.handle(TaskAccepted("a"), 0)
    engine.handle(SpeechStarted("a"), 1_000)
    near, far = SpeechStarted("a", Evidence.heard, ago_ms=600), SpeechStarted("a", Evidence.heard, ago_ms=1_400)
    assert engine.handle(near, 1_800) == (Ignored("this line had started", "a"),)
    assert engine.handle(far, 1_800) == (Conflict("a start was heard at 400 ms, 600 ms before it was reported at 1000 ms", "a"),)
    engine.handle(SpeechEnded("a"), 3_000)
    heard = SpeechEnded("a", Evidence.heard, ago_ms=600)
    assert engine.handle(heard, 3_400) == (Ignored("this line had ended", "a"),)
    after = Conflict("an end was heard at 3600 ms, 600 ms after it was reported at 3000 ms", "a")
    assert engine.handle(heard, 4_200) == (after,)
    before = Conflict("an end was heard at 2400 ms, 600 ms before it was reported at 3000 ms", "a")
    assert engine.handle(replace(heard, ago_ms=1_900), 4_300) == (before,)
    assert engine.current_step.id == "b"


def test_better_length_from_the_provider():
    """When the provider knows how long the line takes, that counts instead of the estimate."""
    engine = Engine(plan(say("a", ms=1000), can=SILENT))
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    effects = engine.handle(TaskAccepted("a", duration_ms=4000), 0)
    assert StartTimer("a", Timer.SPEECH, 4000) in effects


# --- interrupts -----------------------------------------------------------------------------------------------------


def test_interrupt_hits_what_is_open():
    """An interrupt stops the current line and the queued one, waits for both ends, and goes on."""
    story, end = result(plan(say("a", until=400), say("b", until="accepted"), do("i", InterruptSpeech()), say("c")))
    ends = closings(story)
    assert (ends["a"].interrupted, ends["a"].heard_ms) == (True, 400)
    assert (ends["b"].interrupted, ends["b"].heard_ms) == (True, 0)
    assert not ends["c"].interrupted
    assert end.end == "passed"


def test_interrupt_without_reports():
    """With a silent provider the interrupt's acknowledgement settles the lines, and the log says what is only probable."""
    script = plan(say("a", until=400), say("b", until="accepted"), do("i", InterruptSpeech()), can=SILENT)
    story, _ = result(script, reports=False)
    ends = closings(story)
    assert (ends["a"].evidence, ends["a"].heard_ms) == (Evidence.estimated, 400)
    assert ends["b"].reason == "probably stopped before it began"


def test_interrupt_of_the_current_line_only():
    """Where an interrupt spares the queue, the queued line moves up and is heard to its end."""
    can = replace(SILENT, interrupt="current")
    script = plan(say("a", until=400), say("b", until="accepted"), do("i", InterruptSpeech()), can=can)
    story, _ = result(script, reports=False)
    assert [(ms, e.task) for ms, e in of(story, SpeechStarted)] == [(0, "a"), (400, "b")]
    assert not closings(story)["b"].interrupted


def test_interrupt_that_is_lost():
    """An interrupt whose effect is never reported is settled after a bounded wait, as `timeout`."""
    engine = Engine(plan(say("a", until=10), do("i", InterruptSpeech())))
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    engine.handle(TaskAccepted("a"), 0)
    engine.handle(SpeechStarted("a"), 0)
    engine.handle(TimerFired("a", Timer.UNTIL, 10), 10)
    effects = engine.handle(TaskAccepted("i"), 20)
    assert effects == (StartTimer("i", Timer.SETTLE, 20 + SETTLE_MS),)
    effects = engine.handle(TimerFired("i", Timer.SETTLE, 20 + SETTLE_MS), 20 + SETTLE_MS)
    assert effects[0].evidence is Evidence.timeout
    assert effects[0].interrupted


def test_a_refused_interrupt_stops_nothing():
    """A line goes on with its chunks, and the step that asked for the interrupt fails, or is passed by."""
    script = plan(say("a", "One.", (2000, " Two."), until="started"), do("i", InterruptSpeech(), on_error="continue"))
    provider = FakeProvider(interrupts="refused")
    story = drive(script, provider)
    assert [(ms, c.text) for ms, c in of(story, SayText)] == [(0, "One."), (2000, " Two.")]
    assert not closings(story)["a"].interrupted
    assert provider.engine.result.end == "passed"


def test_an_interrupt_that_was_given_up_fails_nobody_else():
    """An interrupt's step had its time; when the refusal comes, the show is in another step, or at its end."""
    given_up = do("i", InterruptSpeech(), timeout_ms=100, on_error="continue")
    for rest in ([], [do("w", Wait(5000))]):
        provider = FakeProvider(interrupts="refused", interrupts_ms=700)
        story = drive(plan(say("a", until="started"), given_up, *rest), provider)
        assert [i.reason for _, i in of(story, Ignored)] == ["the show had gone on without this interrupt"]
        assert provider.engine.result.end == "passed"


def two_interrupts():
    """An engine whose first interrupt stopped a line in chunks, and which has just ordered a second one, with another line queued."""
    given_up = {"timeout_ms": 100, "on_error": "continue"}
    engine = Engine(
        plan(
            say("a", "One ", "two.", timeout_ms=50, on_error="continue"),
            do("i", InterruptSpeech(), **given_up),
            say("b", until="accepted"),
            do("j", InterruptSpeech(), on_error="continue"),
            do("w", Wait(60_000)),
        )
    )
    engine.begin()
    for event, ms in [
        (SessionOpened("s"), 0),
        (TimerFired("a", Timer.TIMEOUT, 50), 50),
        (TaskAccepted("a", chunk=1), 60),
        (TaskAccepted("i"), 70),
        (TimerFired("i", Timer.TIMEOUT, 150), 150),
        (TaskAccepted("b"), 160),
    ]:
        effects = engine.handle(event, ms)
    assert StopSpeaking("j", "j") in effects
    return engine


def test_a_refused_interrupt_does_not_undo_one_that_was_taken():
    """What an interrupt has stopped stays stopped when the next one is refused; only the line that came between them goes on."""
    engine = two_interrupts()
    assert not [e for e in engine.handle(ProviderFailed("no", "refused", "j"), 200) if isinstance(e, SayText)]
    effects = engine.handle(TimerFired("i", Timer.SETTLE, 70 + SETTLE_MS), 70 + SETTLE_MS)
    assert [e.task for e in effects if isinstance(e, SpeechEnded)] == ["a"]


def test_an_interrupt_settles_what_it_stopped_itself():
    """A line that a later interrupt is to stop is not closed before that one was taken, and had its own time."""
    engine = two_interrupts()
    effects = engine.handle(TimerFired("i", Timer.SETTLE, 70 + SETTLE_MS), 70 + SETTLE_MS)
    assert [e.task for e in effects if isinstance(e, SpeechEnded)] == ["a"]
    engine.handle(TaskAccepted("j"), 3100)
    effects = engine.handle(TimerFired("j", Timer.SETTLE, 3100 + SETTLE_MS), 3100 + SETTLE_MS)
    assert [e.task for e in effects if isinstance(e, SpeechEnded)] == ["b"]
    assert StepFinished("j", "done") in effects


def test_interrupted_chunks_are_not_sent():
    """Chunks that were not sent when the interrupt came never are."""
    story, _ = result(
        plan(say("a", "One ", (60_000, "two"), until="accepted", timeout_ms=100, on_error="continue"), do("i", InterruptSpeech()))
    )
    assert [c.text for _, c in of(story, SayText)] == ["One "]


# --- ends -----------------------------------------------------------------------------------------------------------


def test_end_drains_or_cuts():
    """`end` lets the last line finish; `drain: false` interrupts it and closes."""
    story, _ = result(plan(say("a", until="accepted"), do("end", End())))
    assert of(story, CloseSession)[0][0] == 1000
    story, end = result(plan(say("a", until=300), do("end", End(drain=False))))
    assert of(story, CloseSession)[0][0] == 300
    assert closings(story)["a"].heard_ms == 300
    assert end.exit_code == 0


def test_the_session_outlives_the_last_line():
    """Where an end is not known to the moment, the close comes a little after it; a signal meanwhile closes at once."""
    script = plan(say("a"), can=replace(SILENT, tail_ms=1500))
    assert of(drive(script, FakeProvider(reports=False)), CloseSession)[0][0] == 2500
    story = drive(script, FakeProvider(reports=False), inject=[(1200, StopRequested("SIGINT"))])
    assert of(story, CloseSession)[0][0] == 1200
    story = drive(plan(say("a"), do("w", Wait(9000)), can=replace(SILENT, tail_ms=1500)), FakeProvider(reports=False))
    assert of(story, CloseSession)[0][0] == 10_000


def test_stop_request():
    """SIGINT stops the speech, closes the session and exits 130; SIGTERM 143; a second request closes at once."""
    story = drive(plan(say("a")), inject=[(200, StopRequested("SIGINT"))])
    assert [type(c) for _, c in of(story, lambda i: isinstance(i, (StopSpeaking, CloseSession)))] == [StopSpeaking, CloseSession]
    provider = FakeProvider()
    drive(plan(say("a")), provider, inject=[(200, StopRequested("SIGTERM", StopCause.TERMINATE))])
    assert (provider.engine.result.end, provider.engine.result.exit_code) == ("stopped", 143)
    engine = Engine(plan(say("a")))
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    assert StopSpeaking(None, "~stop") in engine.handle(StopRequested("SIGINT"), 1)
    assert CloseSession("SIGINT") in engine.handle(StopRequested("SIGINT"), 2)


def test_stop_while_opening():
    """A stop before the session is open closes what may have been created."""
    engine = Engine(plan(say("a")))
    engine.begin()
    assert engine.handle(StopRequested("SIGINT"), 5) == (CloseSession("SIGINT"),)


def test_session_that_cannot_be_opened():
    """A refused create closes nothing and is exit 4; one that created something before it failed is closed."""
    engine = Engine(plan(say("a")))
    engine.begin()
    assert engine.handle(ProviderFailed("401: bad key", status=401), 5) == ()
    assert engine.done
    assert engine.result.exit_code == 4
    engine = Engine(plan(say("a")))
    engine.begin()
    assert engine.handle(ProviderFailed("no face came", session="c1"), 5) == (CloseSession("could not be opened"),)


def test_session_lost():
    """A session that dies closes every open line as `timeout`, is closed all the same, and is exit 4."""
    provider = FakeProvider()
    story = drive(plan(say("a")), provider, inject=[(200, ProviderFailed("gone", outcome="lost"))])
    assert closings(story)["a"].evidence is Evidence.timeout
    assert len(of(story, CloseSession)) == 1
    assert provider.engine.result.exit_code == 4


@pytest.mark.parametrize(("outcome", "grade"), [("refused", Evidence.reported), ("ambiguous", Evidence.timeout)])
def test_refused_line(outcome, grade):
    """A line that was refused surely was not heard; one whose fate is unknown says so. `on_error` decides about the run."""
    for on_error, code in (("fail", 1), ("continue", 0)):
        engine = Engine(plan(say("a", on_error=on_error), do("w", Wait(0))))
        engine.begin()
        engine.handle(SessionOpened("s"), 0)
        effects = engine.handle(ProviderFailed("no", outcome=outcome, task="a"), 3)
        assert isinstance(effects[0], SpeechEnded)
        assert (effects[0].evidence, effects[0].interrupted, effects[0].heard_ms) == (grade, True, 0)
        assert isinstance(effects[-1], CloseSession)
        engine.handle(SessionClosed(), 4)
        assert engine.result.exit_code == code


def test_max_duration():
    """A session that reaches its limit is closed, as a matter of policy."""
    provider = FakeProvider(ms=5000)
    drive(plan(say("a"), say("b"), limits=Limits(max_duration_ms=6000)), provider)
    assert (provider.engine.result.end, provider.engine.result.exit_code) == ("error", 6)


@pytest.mark.parametrize("speech", ["none", "reported"])
@pytest.mark.parametrize("last", [do("w", WaitSpeech()), do("end", End())], ids=["wait", "end"])
def test_a_line_that_fails_when_the_show_has_gone_on(speech, last):
    """Its step timed out, and what waits for the rest of the speech learns that there is none."""
    provider = FakeProvider(answers_ms=900, fails={"a": "ambiguous"}, reports=speech == "reported")
    script = plan(say("a", timeout_ms=200, on_error="continue"), last, can=Capabilities(speech=speech))
    story = drive(script, provider)
    assert (provider.engine.done, provider.engine.result.exit_code) == (True, 0)
    assert started(story, last.id) == 200
    assert of(story, CloseSession)[0][0] == 900


def test_a_limit_that_comes_when_all_has_been_said():
    """The session outlives the last line by its tail, but not its limit: then it is closed at once, and the show was performed."""
    provider = FakeProvider(reports=False)
    story = drive(plan(say("a"), can=Capabilities(speech="none", tail_ms=1500), limits=Limits(max_duration_ms=2000)), provider)
    assert (provider.engine.result.end, provider.engine.result.exit_code) == ("passed", 0)
    assert of(story, CloseSession) == [(2000, CloseSession("end"))]


def test_unended_session_is_an_error():
    """A show that was said in full but whose session could not be ended is no success."""
    engine = Engine(plan(do("w", Wait(0))))
    engine.begin()
    assert isinstance(engine.handle(SessionOpened("s"), 0)[-1], CloseSession)
    engine.handle(SessionClosed("503", status="failed"), 1)
    assert engine.result.exit_code == 4


# --- properties -----------------------------------------------------------------------------------------------------

SCRIPT = plan(
    say("a", "One ", (50, "two"), until=300),
    say("b", until="accepted"),
    do("i", InterruptSpeech(), timeout_ms=5000),
    sound("c", 700, on_error="continue", timeout_ms=2000),
    do("e", WaitEvent("door", 400, "continue")),
    say("d", until="started", at_ms=3000),
    do("ws", WaitSpeech()),
)
TASKS = st.sampled_from(["a", "b", "c", "d", "i", "stop", "nobody"])
EVENTS = st.one_of(
    st.builds(SessionOpened, st.just("s")),
    st.builds(TaskAccepted, TASKS, chunk=st.sampled_from([None, 1, 2])),
    st.builds(
        SpeechStarted, st.one_of(st.none(), TASKS), st.sampled_from(list(Evidence)), text=st.sampled_from([None, "This is b.", "other"])
    ),
    st.builds(SpeechEnded, st.one_of(st.none(), TASKS), st.sampled_from(list(Evidence)), interrupted=st.booleans()),
    st.builds(Trigger, st.sampled_from(["door", "go"])),
    st.builds(ProviderFailed, st.just("x"), st.sampled_from(["refused", "ambiguous", "lost"]), st.one_of(st.none(), TASKS)),
    st.builds(StopRequested, st.just("x"), st.sampled_from(StopCause)),
    st.builds(SessionClosed),
    st.builds(TimerFired, st.sampled_from(["a", "e", None]), st.sampled_from(Timer), st.integers(0, 5000)),
)
CAPABILITIES = st.builds(
    Capabilities, speech=st.sampled_from(["exact", "reported", "none"]), interrupt=st.sampled_from(["none", "current", "all", "unknown"])
)


@settings(max_examples=200, deadline=None)
@given(
    can=CAPABILITIES.filter(lambda can: can.interrupt != "none"),  # such a plan is refused
    reports=st.booleans(),
    answers_ms=st.sampled_from([0, 200, 900]),
    interrupts=st.sampled_from(["taken", "lost", "refused"]),
    interrupts_ms=st.sampled_from([0, 150, 2500]),
    pause_ms=st.sampled_from([0, 400, 3000]),
    until=st.sampled_from(["accepted", "started", 300]),
    timeout_ms=st.sampled_from([None, 50, 1000]),
    drain=st.booleans(),
    stop_ms=st.sampled_from([None, 100, 600, 2000]),
)
def test_no_interrupt_is_a_dead_end(can, reports, answers_ms, interrupts, interrupts_ms, pause_ms, until, timeout_ms, drain, stop_ms):
    """However slowly an interrupt is answered, and whatever with, in the middle of chunks or given up: the show comes to its end."""
    script = plan(
        say("a", "One ", (pause_ms, "two"), until=until),
        say("b", until="accepted"),
        do("i", InterruptSpeech(), timeout_ms=timeout_ms, on_error="continue"),
        say("c", "Three ", (pause_ms, "four"), until=until, on_error="continue"),
        do("j", InterruptSpeech(), timeout_ms=timeout_ms, on_error="continue"),
        do("end", End(drain=drain)),
        can=can,
    )
    exact = can.speech == "exact"
    provider = FakeProvider(
        reports=reports or exact, answers_ms=answers_ms, interrupts="taken" if exact else interrupts, interrupts_ms=interrupts_ms
    )
    story = drive(script, provider, [] if stop_ms is None else [(stop_ms, StopRequested("SIGINT"))])
    assert provider.engine.done
    assert len(of(story, CloseSession)) == 1
    assert set(closings(story)) == {command.task for _, command in of(story, SayText)}


@settings(max_examples=200, deadline=None)
@given(
    speech=st.sampled_from(["reported", "none"]),
    fails=st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.sampled_from(["refused", "ambiguous"])),
    answers_ms=st.sampled_from([0, 200, 900, 4000]),
    timeout_ms=st.sampled_from([None, 50, 1000]),
    until=st.sampled_from(["accepted", "started", "ended", 300]),
    drain=st.booleans(),
    limit_ms=st.sampled_from([None, 1000, 9000]),
)
def test_no_failure_is_a_dead_end(speech, fails, answers_ms, timeout_ms, until, drain, limit_ms):
    """Whichever lines fail, however late, when the show may have gone on: it comes to its end."""
    how = {"timeout_ms": timeout_ms, "on_error": "continue"}
    script = plan(
        say("a", "One ", (400, "two"), until=until, **how),
        sound("b", until=until, **how),
        do("i", InterruptSpeech(), **how),
        say("c", until="accepted", **how),
        do("w", WaitSpeech(), **how),
        say("d", until=until, **how),
        do("end", End(drain=drain)),
        can=Capabilities(speech=speech, interrupt="unknown", tail_ms=500),
        limits=Limits(max_duration_ms=limit_ms),
    )
    provider = FakeProvider(reports=speech == "reported", answers_ms=answers_ms, fails=fails)
    story = drive(script, provider)
    assert provider.engine.done
    assert len(of(story, CloseSession)) == 1
    sent = {item.task for _, item in story if isinstance(item, (SayText, PlayAudio))}
    assert set(closings(story)) == sent
    assert provider.engine.result.exit_code == 0 or limit_ms is not None


@settings(max_examples=300, deadline=None)
@given(can=CAPABILITIES, events=st.lists(st.tuples(st.integers(0, 6000), EVENTS), max_size=25), reports=st.booleans())
def test_any_order_of_events_ends_in_one_close(can, events, reports):
    """Whatever happens in whatever order: one close, every utterance closed once, every timer over, the same story twice."""
    script = replace(SCRIPT, capabilities=can)
    stories = []
    for _ in range(2):
        provider = FakeProvider(reports=reports or can.speech == "exact")
        story = drive(script, provider, sorted(events, key=lambda pair: pair[0]))
        stories.append(story)
        engine = provider.engine
        if not engine.done:  # a session that was closed twice over has nobody left to say so
            assert engine.phase == "closing"
        opened = any(isinstance(item, SessionOpened) for _, item in story)
        closes = len(of(story, CloseSession))
        assert closes == 1 if opened and not _refused(story) else closes <= 1
        sent = {c.task for _, c in of(story, lambda i: hasattr(i, "task") and type(i).__name__ in ("SayText", "PlayAudio"))}
        assert set(closings(story)) == sent
    assert stories[0] == stories[1]


def _refused(story):
    """Whether opening was refused before the session was there."""
    for _, item in story:
        if isinstance(item, SessionOpened):
            return False
        if isinstance(item, ProviderFailed) and item.task is None:
            return True
    return False


@settings(max_examples=200, deadline=None)
@given(event=EVENTS)
def test_an_event_that_means_nothing_changes_nothing(event):
    """An event answered with `ignored` leaves the engine as it was: the rest of the story is the same with and without it."""
    engine, twin = Engine(SCRIPT), Engine(SCRIPT)
    for one in (engine, twin):
        one.begin()
        one.handle(SessionOpened("s"), 0)
        one.handle(TaskAccepted("a", chunk=1), 1)
    effects = engine.handle(event, 2)
    if len(effects) == 1 and isinstance(effects[0], Ignored):
        rest = [
            (TimerFired("a", Timer.CHUNK, 51), 51),
            (TaskAccepted("a", chunk=2), 52),
            (SpeechStarted("a"), 60),
            (TimerFired("a", Timer.UNTIL, 360), 360),
        ]
        assert [engine.handle(*pair) for pair in rest] == [twin.handle(*pair) for pair in rest]


def test_timers_are_cancelled_before_the_close():
    """Nothing is left ticking when the session is being closed."""
    engine = Engine(plan(say("a", timeout_ms=60_000), limits=Limits(max_duration_ms=100_000)))
    engine.begin()
    engine.handle(SessionOpened("s"), 0)
    engine.handle(TaskAccepted("a"), 0)
    effects = engine.handle(ProviderFailed("gone", outcome="lost"), 10)
    assert {(c.step, c.reason) for c in effects if isinstance(c, CancelTimer)} == {
        ("a", Timer.TIMEOUT),
        ("a", Timer.SPEECH),
        (None, Timer.MAX_DURATION),
    }
