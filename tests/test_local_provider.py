"""The `local` provider: real speech on the virtual clock, and silence of the right length without the voice."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from playbook.clock import Clock, run
from playbook.events import (
    Event,
    PlayAudio,
    ProviderFailed,
    SayText,
    SessionClosed,
    SessionOpened,
    SpeechEnded,
    SpeechStarted,
    StopSpeaking,
    TaskAccepted,
)
from playbook.journal.journal import NoEntry
from playbook.model import AudioEcho, Chunk, Evidence, InterruptSpeech, Length, Plan, Say, Step, Wait
from playbook.providers.base import Context, Material
from playbook.providers.local.provider import LocalProvider
from playbook.providers.local.session import SILENT, LocalSession
from playbook.providers.local.spoken import Speaker, SpokenLine
from playbook.speech import espeak
from playbook.speech.audio import Sound, decode, resample, to_samples
from playbook.speech.pacing import estimate_ms
from playbook.speech.show import RATE, ShowRecorder
from playbook.speech.voice import Settings, Voice
from playbook.transports.factory import Real

HELLO, SECOND = "Welcome to the city museum.", "The lift is behind you, to the left."


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> LocalProvider:
    return LocalProvider(Voice(tmp_path_factory.mktemp("voice")))


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> LocalProvider:
    """A provider on a machine without the extra."""
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    return LocalProvider()


def plan(*actions: Any, **session: Any) -> Plan:
    steps = tuple(Step(f"s{n}", action) for n, action in enumerate(actions, 1))
    return Plan("test", "local", steps, session=session)


def line(*texts: str, voice: str | None = None) -> Say:
    return Say(tuple(Chunk(text) for text in texts), voice)


class Stage:
    """A session on a clock: what it is told when, and what it answers when."""

    def __init__(self, provider: LocalProvider, plan: Plan, sounds: dict[str, Sound]) -> None:
        self.plan = plan
        self.clock = Clock()
        self.show = ShowRecorder()
        self.seen: list[tuple[int, Event]] = []
        self.crashes: list[BaseException] = []
        self.changed = asyncio.Event()
        self.session: LocalSession = provider.connect(
            Context(
                settings=plan.session,
                capabilities=plan.capabilities,
                name=plan.name,
                lasts_ms=0,
                clock=self.clock,
                emit=self._emit,
                env={},
                transports=Real({}, "virtual"),
                journal=NoEntry(),
                seal=lambda _: None,
                publish=lambda _: None,
                crash=self.crashes.append,
            )
        )
        self.session.load(Material(plan=plan, sound=sounds.__getitem__, show=self.show))

    def _emit(self, event: Event) -> None:
        self.seen.append((self.clock.now_ms(), event))
        self.changed.set()

    def say(self, n: int, chunk: int = 1) -> None:
        """Send a chunk of the n-th step."""
        action = self.plan.steps[n - 1].action
        assert isinstance(action, Say)
        piece = action.chunks[chunk - 1]
        self.session.say(SayText(f"s{n}", f"s{n}", piece.text, chunk, chunk == len(action.chunks), action.voice, piece.shown))

    async def until(self, kind: type, task: str | None = None) -> int:
        """Wait for an event and say when it came."""
        while True:
            for at_ms, event in self.seen:
                if isinstance(event, kind) and (task is None or getattr(event, "task", None) == task):
                    return at_ms
            self.changed.clear()
            await self.changed.wait()

    def of(self, task: str) -> list[tuple[int, Event]]:
        return [(at_ms, event) for at_ms, event in self.seen if getattr(event, "task", None) == task]


def perform(
    provider: LocalProvider, plan: Plan, script: Callable[[Stage], Any], sounds: dict[str, Sound] | None = None, *, opened: bool = True
) -> Stage:
    """Open a session, play the script, and give back the stage with all that was seen."""

    async def main() -> Stage:
        stage = Stage(provider, plan, sounds or {})
        stage.session.open()
        if opened:
            await stage.until(SessionOpened)
        await script(stage)
        assert stage.crashes == []
        return stage

    return run(main(), "virtual")


def heard(stage: Stage, tmp_path: Path, end_ms: int) -> Any:
    """The samples of the show."""
    assert stage.show.write(tmp_path / "audio.wav", end_ms)
    return np.frombuffer(decode(tmp_path / "audio.wav").pcm, "<i2")


# --- lengths ------------------------------------------------------------------------------------------------------------


def test_lengths_are_those_of_the_real_sound_and_only_lines_have_one(provider: LocalProvider) -> None:
    speech = provider.voice.speak(HELLO, Settings(rate=120))
    lengths = provider.lengths(plan(line(HELLO), Wait(500), InterruptSpeech(), rate=120))
    assert lengths == [Length(speech.duration_ms, "exact"), None, None]


def test_a_skipped_line_is_not_spoken(provider: LocalProvider) -> None:
    skipped = Plan("p", "local", (Step("s1", line("Nobody will ever say this."), skipped="when is false"),))
    assert provider.lengths(skipped) == [None]
    assert provider.voice.known("Nobody will ever say this.", Settings()) is None


def test_without_the_voice_lengths_are_estimated(silent: LocalProvider) -> None:
    assert silent.lengths(plan(line(HELLO))) == [Length(estimate_ms(HELLO, "en"), "estimated")]
    assert silent.lengths(plan(line("Guten Tag"), language="de", rate=350)) == [Length(estimate_ms("Guten Tag", "de", 2.0), "estimated")]


def test_the_pauses_between_chunks_count_only_where_they_are_heard(provider: LocalProvider) -> None:
    whole = provider.voice.speak("Welcome to the museum.").duration_ms
    chunks = (Chunk("Welcome to "), Chunk("the museum.", after_ms=5000))
    at_the = next(word.at_ms for word in provider.voice.speak("Welcome to the museum.").words if word.text == "the")
    assert provider.lengths(plan(Say(chunks))) == [Length(5000 + whole - at_the, "exact")]
    assert provider.lengths(plan(Say((chunks[0], Chunk("the museum.", after_ms=1))))) == [Length(whole, "exact")]


def test_a_line_of_which_words_were_not_spoken_says_so_and_is_estimated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine drops what its clause cannot hold: the start tells the words that are said (which the engine of the show compares with
    the plan's), the end names what is missing, and what is heard is without it."""
    monkeypatch.setattr(espeak, "BUDGETS", (10_000,))
    text = "전시실 안에서는 사진을 찍을 수 없으며 음료는 입구에 두고 들어가 주시기 바랍니다 " * 5 + "오늘도 좋은 하루 보내시기 바랍니다."

    async def script(stage: Stage) -> None:
        stage.say(1)
        await stage.until(SpeechEnded)

    provider = LocalProvider(Voice(tmp_path))
    stage = perform(provider, plan(line(text), language="ko"), script)
    _, (_, started), (_, ended) = stage.of("s1")
    assert isinstance(started, SpeechStarted)
    assert isinstance(ended, SpeechEnded)
    assert started.evidence == ended.evidence == Evidence.estimated
    assert started.text == ended.heard
    assert ended.heard is not None
    assert text.startswith(ended.heard)
    assert "오늘도" not in ended.heard
    assert ended.reason is not None
    assert ended.reason.startswith("the voice did not speak '")
    assert ended.reason.endswith("오늘도 좋은 하루 보내시기 바랍니다.'")


def test_who_plays_our_sound_elsewhere_tells_of_words_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that play the voice's sound through a vendor close such a line as estimated, and name the words; a secret's are masked."""
    monkeypatch.setattr(espeak, "BUDGETS", (10_000,))
    text = "전시실 안에서는 사진을 찍을 수 없으며 음료는 입구에 두고 들어가 주시기 바랍니다 " * 5 + "오늘도 좋은 하루 보내시기 바랍니다."
    speaker = Speaker(LocalProvider(Voice(tmp_path)), plan(line(text), language="ko"))
    spoken, secret, whole = SpokenLine(), SpokenLine(), SpokenLine()
    speaker.next(spoken, SayText("s1", "s1", text))
    speaker.next(secret, SayText("s1", "s1", text, shown="•••"))
    speaker.next(whole, SayText("s9", "s9", "안녕하세요."))
    ended = spoken.ended("s1", duration_ms=5, reason="late")
    assert ended.evidence is Evidence.estimated
    assert ended.heard == spoken.said
    assert "오늘도" not in str(spoken.said)
    assert str(ended.reason).startswith("the voice did not speak '")
    assert str(ended.reason).endswith("오늘도 좋은 하루 보내시기 바랍니다.'; late")
    assert (secret.said, secret.left_out) == (None, "the voice did not speak '***'")
    assert whole.ended("s9", "id", 5) == SpeechEnded("s9", provider_task="id", duration_ms=5)


# --- playing ------------------------------------------------------------------------------------------------------------


def test_a_line_is_accepted_at_once_begins_at_once_and_ends_to_the_millisecond(provider: LocalProvider) -> None:
    async def script(stage: Stage) -> None:
        stage.say(1)
        await stage.until(SpeechEnded)

    length = provider.voice.speak(HELLO).duration_ms
    stage = perform(provider, plan(line(HELLO)), script)
    assert stage.seen == [
        (0, SessionOpened("local")),
        (0, TaskAccepted("s1", chunk=1, duration_ms=length)),
        (0, SpeechStarted("s1")),
        (length, SpeechEnded("s1", duration_ms=length)),
    ]


def test_queued_lines_follow_each_other_without_a_gap_in_time_and_in_sound(provider: LocalProvider, tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.say(1)
        stage.say(2)
        await stage.until(SpeechEnded, "s2")

    stage = perform(provider, plan(line(HELLO), line(SECOND)), script)
    first, second = provider.voice.speak(HELLO), provider.voice.speak(SECOND)
    assert stage.of("s2")[1:] == [
        (first.duration_ms, SpeechStarted("s2")),
        (first.duration_ms + second.duration_ms, SpeechEnded("s2", duration_ms=second.duration_ms)),
    ]
    samples = heard(stage, tmp_path, 8000)
    at = to_samples(first.duration_ms, RATE)
    assert samples[: at - 20].tobytes() == first.sound.pcm[: 2 * (at - 20)]
    assert samples[at + 20 : at + second.samples].tobytes() == second.sound.pcm[40:]
    assert not samples[at + second.samples :].any()


def test_a_sound_is_played_for_real_and_takes_its_length(provider: LocalProvider, tmp_path: Path) -> None:
    sound = Sound((np.sin(np.arange(48_000) / 30) * 9000).astype("<i2").tobytes(), 48_000)
    sha = hashlib.sha256(b"chime").hexdigest()

    async def script(stage: Stage) -> None:
        stage.session.play_audio(PlayAudio("s1", "s1", sha, 1000))
        stage.say(2)
        await stage.until(SpeechEnded, "s2")

    stage = perform(provider, plan(AudioEcho("chime.wav", sha, 1000), line(HELLO)), script, {sha: sound})
    assert stage.of("s1") == [
        (0, TaskAccepted("s1", duration_ms=1000)),
        (0, SpeechStarted("s1")),
        (1000, SpeechEnded("s1", duration_ms=1000)),
    ]
    assert heard(stage, tmp_path, 1000).tobytes() == resample(sound, RATE).pcm


def test_a_chunked_line_is_one_breath_and_a_cut_word_is_whole(provider: LocalProvider, tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        for chunk in (1, 2, 3):
            stage.say(1, chunk)
        await stage.until(SpeechEnded)

    stage = perform(provider, plan(line("Wel", "come to the city mus", "eum.")), script)
    speech = provider.voice.speak(HELLO)
    assert [event for _, event in stage.of("s1")] == [
        *(TaskAccepted("s1", chunk=chunk) for chunk in (1, 2)),
        SpeechStarted("s1"),
        TaskAccepted("s1", chunk=3),
        SpeechEnded("s1", duration_ms=speech.duration_ms),
    ]
    assert heard(stage, tmp_path, speech.duration_ms + 100)[: speech.samples].tobytes() == speech.sound.pcm
    assert stage.show.words["s1"] == tuple((word.at_ms, word.start) for word in speech.words)


def test_a_late_chunk_leaves_silence_until_it_comes(provider: LocalProvider, tmp_path: Path) -> None:
    text = "Welcome to the museum."
    speech = provider.voice.speak(text)
    gate = next(word.at_ms for word in speech.words if word.text == "the")

    async def script(stage: Stage) -> None:
        stage.say(1, 1)
        await stage.clock.sleep_until(3000)
        stage.say(1, 2)
        await stage.until(SpeechEnded)

    late = Say((Chunk("Welcome to "), Chunk("the museum.", after_ms=3000)))
    stage = perform(provider, plan(late), script)
    end = 3000 + speech.duration_ms - gate
    assert stage.of("s1")[-1] == (end, SpeechEnded("s1", duration_ms=end))
    assert provider.lengths(stage.plan) == [Length(end, "exact")]
    samples = heard(stage, tmp_path, end)
    edge, later = to_samples(gate, RATE), to_samples(3000, RATE)
    assert samples[:edge].tobytes() == speech.sound.pcm[: 2 * edge]
    assert not samples[edge:later].any()
    assert samples[later : later + 1000].tobytes() == speech.sound.pcm[2 * edge : 2 * edge + 2000]
    assert dict(stage.show.words["s1"])[3000] == text.index("the")


def test_a_line_that_is_not_in_the_plan_is_spoken_all_the_same(provider: LocalProvider) -> None:
    async def script(stage: Stage) -> None:
        stage.session.say(SayText("x", "x", "Unplanned.", chunk=1, final=False))
        stage.session.say(SayText("x", "x", " And more.", chunk=2, final=True))
        await stage.until(SpeechStarted)
        await stage.clock.sleep_until(both - 10)
        stage.session.interrupt(StopSpeaking(None, "~stop"))

    one, two = provider.voice.speak("Unplanned."), provider.voice.speak(" And more.")
    both = one.duration_ms + two.duration_ms
    stage = perform(provider, plan(), script)
    assert stage.of("x")[-1] == (both - 10, SpeechEnded("x", interrupted=True, heard_ms=both - 10, heard="Unplanned. And"))
    assert stage.show.words["x"] == ((0, 0), (one.duration_ms, 11), (one.duration_ms + two.words[1].at_ms, 15))


# --- interrupting -------------------------------------------------------------------------------------------------------


def interrupted(provider: LocalProvider, plan: Plan, at_ms: int, sounds: dict[str, Sound] | None = None) -> Stage:
    async def script(stage: Stage) -> None:
        for n, step in enumerate(plan.steps, 1):
            if isinstance(step.action, Say):
                stage.say(n)
            elif isinstance(step.action, AudioEcho):
                stage.session.play_audio(PlayAudio(step.id, step.id, step.action.sha256, step.action.duration_ms))
        await stage.clock.sleep_until(at_ms)
        stage.session.interrupt(StopSpeaking("stop", "stop"))
        await stage.clock.sleep_until(at_ms + 20_000)

    return perform(provider, plan, script, sounds)


def test_an_interrupt_ends_every_open_line_and_says_what_was_heard(provider: LocalProvider, tmp_path: Path) -> None:
    stage = interrupted(provider, plan(line(HELLO), line(SECOND)), 700)
    speech = provider.voice.speak(HELLO)
    said = speech.heard(700)
    assert said
    assert HELLO.startswith(said)
    assert stage.seen[-3:] == [
        (700, TaskAccepted("stop")),
        (700, SpeechEnded("s1", interrupted=True, heard_ms=700, heard=said)),
        (700, SpeechEnded("s2", interrupted=True, heard_ms=0, heard="")),
    ]
    samples = heard(stage, tmp_path, 3000)
    edge = to_samples(700, RATE)
    assert samples[:edge].tobytes() == speech.sound.pcm[: 2 * edge]
    assert not samples[edge:].any()


def test_the_next_line_after_an_interrupt_begins_at_once(provider: LocalProvider) -> None:
    async def script(stage: Stage) -> None:
        stage.say(1)
        await stage.clock.sleep_until(500)
        stage.session.interrupt(StopSpeaking(None, "~stop"))
        stage.say(2)
        await stage.until(SpeechEnded, "s2")

    stage = perform(provider, plan(line(HELLO), line(SECOND)), script)
    assert stage.of("s2")[1] == (500, SpeechStarted("s2"))


def test_an_interrupt_with_nothing_to_stop_is_accepted(provider: LocalProvider) -> None:
    assert [event for _, event in interrupted(provider, plan(), 10).seen[1:]] == [TaskAccepted("stop")]


def test_a_chunk_of_a_line_that_was_interrupted_is_refused(provider: LocalProvider) -> None:
    async def script(stage: Stage) -> None:
        stage.say(1, 1)
        await stage.clock.sleep_until(100)
        stage.session.interrupt(StopSpeaking(None, "~stop"))
        stage.say(1, 2)

    stage = perform(provider, plan(line("Welcome ", "friend.")), script)
    last = stage.seen[-1][1]
    assert isinstance(last, ProviderFailed)
    assert (last.task, last.chunk, last.outcome) == ("s1", 2, "refused")


def test_silence_between_chunks_does_not_count_as_heard(provider: LocalProvider) -> None:
    stage = interrupted(provider, plan(line("Welcome to ", "the museum.")), 3000)
    gate = next(word.at_ms for word in provider.voice.speak("Welcome to the museum.").words if word.text == "the")
    assert stage.of("s1")[-1] == (3000, SpeechEnded("s1", interrupted=True, heard_ms=gate, heard="Welcome to"))


def test_a_secret_is_spoken_but_neither_heard_words_nor_captions_give_it_away(provider: LocalProvider) -> None:
    secret = Say((Chunk("The code is swordfish today.", shown="The code is *** today."),))
    stage = interrupted(provider, plan(secret, secret), 1500)
    assert stage.of("s1")[-1] == (1500, SpeechEnded("s1", interrupted=True, heard_ms=1500, heard="***"))
    assert stage.of("s2")[-1] == (1500, SpeechEnded("s2", interrupted=True, heard_ms=0, heard=""))
    assert stage.show.words == {}
    assert "swordfish" not in repr(stage.seen)


def test_an_interrupted_sound_has_milliseconds_but_no_words(provider: LocalProvider) -> None:
    echo = AudioEcho("a.wav", "ab", 900)
    stage = interrupted(provider, plan(echo, echo), 400, {"ab": Sound(bytes(2 * RATE), RATE)})
    assert [event for _, event in stage.seen[-2:]] == [
        SpeechEnded("s1", interrupted=True, heard_ms=400),
        SpeechEnded("s2", interrupted=True, heard_ms=0),
    ]


# --- opening and closing ------------------------------------------------------------------------------------------------


def test_without_the_voice_the_show_is_silent_of_estimated_length_and_says_so_once(silent: LocalProvider, tmp_path: Path) -> None:
    stage = interrupted(silent, plan(line(HELLO), line(SECOND)), 5000)
    first, second = stage.seen[0][1], estimate_ms(HELLO, "en")
    assert isinstance(first, SessionOpened)
    assert first.reason is not None
    assert "pip install espeakng-loader" in first.reason
    assert stage.of("s1")[-1] == (second, SpeechEnded("s1", Evidence.estimated, duration_ms=second, reason=SILENT))
    assert not stage.show.write(tmp_path / "audio.wav", 1000)
    stage = interrupted(silent, plan(line(HELLO)), 500)
    assert stage.of("s1")[-1] == (500, SpeechEnded("s1", Evidence.estimated, interrupted=True, heard_ms=500, reason=SILENT))


def test_what_the_plan_did_not_have_spoken_is_spoken_before_the_session_opens(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        assert stage.clock.now_ms() == 0
        stage.say(1)
        await stage.until(SpeechEnded)

    provider = LocalProvider(Voice(tmp_path))
    stage = perform(provider, plan(line(HELLO), line(SECOND)), script)
    assert provider.unspoken(stage.plan) == []
    assert stage.seen[0] == (0, SessionOpened("local"))


def test_closing_while_it_opens_or_speaks_leads_to_one_close_and_silence(tmp_path: Path, provider: LocalProvider) -> None:
    async def closing(stage: Stage) -> None:
        stage.session.close("stop")
        stage.session.close("stop")
        await stage.clock.sleep_until(60_000)

    opening = perform(LocalProvider(Voice(tmp_path)), plan(line(HELLO)), closing, opened=False)
    assert [event for _, event in opening.seen] == [SessionClosed()]

    async def speaking(stage: Stage) -> None:
        stage.say(1)
        await stage.clock.sleep_until(300)
        await closing(stage)

    stage = perform(provider, plan(line(HELLO)), speaking)
    assert [event for _, event in stage.seen[2:]] == [SpeechStarted("s1"), SessionClosed()]
    assert not heard(stage, tmp_path, 2000)[to_samples(300, RATE) :].any()


def test_a_voice_that_does_not_exist_fails_the_opening(provider: LocalProvider) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(ProviderFailed)

    stage = perform(provider, plan(line("A line with no voice."), voice="nobody"), script, opened=False)
    assert [event for _, event in stage.seen] == [ProviderFailed("the local voice has no voice 'nobody'")]


# --- checking -----------------------------------------------------------------------------------------------------------


def codes(provider: LocalProvider, plan: Plan) -> Sequence[tuple[str, str]]:
    return [(problem.code, problem.severity) for problem in provider.check(plan)]


def test_a_wrong_voice_of_the_session_is_an_error_and_of_a_line_a_doubt(provider: LocalProvider) -> None:
    assert codes(provider, plan(line(HELLO, voice="f2"), language="de")) == []
    assert codes(provider, plan(line(HELLO), voice="Germn")) == [("PB450", "error")]
    assert codes(provider, plan(line(HELLO), language="xx")) == [("PB450", "error")]
    foreign = plan(line(HELLO, voice="en_US-9f2c"), line(SECOND, voice="de"))
    assert codes(provider, foreign) == [("PB451", "warning")]
    assert provider.lengths(foreign)[0] == provider.lengths(plan(line(HELLO)))[0]
    assert provider.lengths(plan(line(HELLO), voice="Germn")) == [Length(estimate_ms(HELLO, "Germn"), "estimated")]


def test_a_line_may_have_a_voice_of_its_own(provider: LocalProvider, tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.say(1)
        await stage.until(SpeechEnded)

    stage = perform(provider, plan(line(HELLO, voice="f2")), script)
    speech = provider.voice.speak(HELLO, Settings(voice="f2"))
    assert heard(stage, tmp_path, 5000)[: speech.samples].tobytes() == speech.sound.pcm


def test_what_it_can_do_is_known_before(provider: LocalProvider) -> None:
    can = provider.capabilities({"price_per_minute": 0.25})
    assert (can.speech, can.interrupt, can.voice_per_line, can.own_voice, can.start_latency_ms) == ("exact", "all", True, True, 0)
    assert can.price_per_minute == 0.25
