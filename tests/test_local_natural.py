"""The `local` provider with a voice that takes long: sentences are spoken ahead of the show and while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from playbook.clock import ClockName, run
from playbook.events import ProviderFailed, SessionClosed, SessionOpened, SpeechEnded, SpeechStarted, StopSpeaking, TaskAccepted
from playbook.model import Evidence
from playbook.providers.local.provider import LocalProvider
from playbook.speech.child import Child
from playbook.speech.engines import Unspeakable
from playbook.speech.kokoro import Kokoro
from playbook.speech.voice import Settings, Voice
from tests.kokoro import release_of, write_model, write_speakers
from tests.test_local_provider import Stage, line, plan

HELLO = "Hi. This is the second sentence. And a third one."
HEART = Settings(voice="kokoro/af_heart", rate=440)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "kokoro").mkdir()
    write_model(folder / "kokoro" / "kokoro-v1.0.int8.onnx")
    write_speakers(folder / "kokoro" / "voices-v1.0.bin", "af_heart")
    return folder


@pytest.fixture
def provider(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalProvider]:
    monkeypatch.setattr(Kokoro, "release", release_of(models / "kokoro", ""))
    voice = Voice(tmp_path / "cache", models)
    yield LocalProvider(voice)
    voice.close()


class Gate:
    """Lets so many pieces be spoken, and the others when it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
        self.texts: list[str] = []
        self._open = threading.Event()
        ask = Child.ask

        def asked(child: Child, request: dict[str, Any]) -> Any:
            if "speaker" in request:
                if len(self.texts) >= at_once:
                    assert self._open.wait(20)
                self.texts.append(request["text"])
            return ask(child, request)

        monkeypatch.setattr(Child, "ask", asked)

    def open(self) -> None:
        self._open.set()


def perform(provider: LocalProvider, actions: list[Any], script: Callable[[Stage], Any], clock: ClockName = "system") -> Stage:
    async def main() -> Stage:
        stage = Stage(provider, plan(*actions, voice=HEART.voice, rate=HEART.rate), {})
        stage.session.open()
        await script(stage)
        stage.session.close("over")
        assert stage.crashes == []
        return stage

    return run(main(), clock)


def test_the_show_begins_when_its_first_sentence_is_there(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session opens and the line begins while the second sentence is not spoken yet; then the line goes on to its end, whole."""
    gate = Gate(monkeypatch, 1)

    async def script(stage: Stage) -> None:
        await stage.until(SessionOpened)
        assert gate.texts == ["Hi. "]
        stage.say(1)
        await stage.until(SpeechStarted)
        assert gate.texts == ["Hi. "]
        gate.open()
        await stage.until(SpeechEnded)

    stage = perform(provider, [line(HELLO)], script)
    accepted, started, ended = (event for _, event in stage.of("s1"))
    assert accepted == TaskAccepted("s1", chunk=1, reason="marks: estimated")
    assert isinstance(started, SpeechStarted)
    assert isinstance(ended, SpeechEnded)
    assert ended.evidence is Evidence.reported
    assert ended.duration_ms is not None
    whole = provider.voice.speak(HELLO, HEART)
    assert ended.duration_ms >= whole.duration_ms - 2
    assert gate.texts == ["Hi. ", "This is the second sentence. ", "And a third one."]
    assert [place for _, place in stage.show.words["s1"]] == [word.start for word in whole.words]


def test_on_the_virtual_clock_all_is_spoken_before(provider: LocalProvider) -> None:
    """So that two runs are equal: the line lasts to the millisecond what its sound does."""

    async def script(stage: Stage) -> None:
        await stage.until(SessionOpened)
        stage.say(1)
        await stage.until(SpeechEnded)

    stage = perform(provider, [line(HELLO)], script, "virtual")
    length = provider.voice.speak(HELLO, HEART).duration_ms
    assert [at for at, _ in stage.of("s1")] == [0, 0, length]


def test_a_plan_estimates_what_is_not_in_the_cache(provider: LocalProvider) -> None:
    """`plan` has nobody wait for a voice that takes long, and is exact where the cache is."""
    asked = plan(line(HELLO), voice=HEART.voice, rate=HEART.rate)
    [before] = provider.lengths(asked)
    speech = provider.voice.speak(HELLO, HEART)
    [after] = provider.lengths(asked)
    assert before is not None
    assert after is not None
    assert (before.basis, after.basis, after.ms) == ("estimated", "exact", speech.duration_ms)


def test_an_interrupt_while_a_sentence_is_awaited_ends_the_line(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, 1)

    async def script(stage: Stage) -> None:
        await stage.until(SessionOpened)
        stage.say(1)
        await stage.until(SpeechStarted)
        stage.session.interrupt(StopSpeaking(None, "stop"))
        gate.open()
        await stage.until(SpeechEnded)

    stage = perform(provider, [line(HELLO)], script)
    ended = [event for _, event in stage.of("s1") if isinstance(event, SpeechEnded)]
    assert [end.interrupted for end in ended] == [True]


def test_a_chunked_line_waits_until_it_is_spoken(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, 1)

    async def script(stage: Stage) -> None:
        await stage.until(SessionOpened)
        stage.say(1)
        gate.open()
        await stage.until(TaskAccepted)
        stage.say(1, 2)
        await stage.until(SpeechEnded)

    stage = perform(provider, [line("Hi. This is the ", "second sentence.")], script)
    [(_, ended)] = [each for each in stage.of("s1") if isinstance(each[1], SpeechEnded)]
    assert isinstance(ended, SpeechEnded)
    assert ended.evidence is Evidence.reported


def test_a_line_that_fails_in_its_middle_is_refused_and_the_next_is_heard(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `on_voice_failure: fail`, a process that ends twice costs one line."""
    gate = Gate(monkeypatch, 1)
    speak = Kokoro.speak

    def failing(self: Kokoro, ask: Any, text: str, settings: Settings) -> Any:
        if text.startswith("This"):
            raise Unspeakable("it fails here")
        return speak(self, ask, text, settings)

    monkeypatch.setattr(Kokoro, "speak", failing)

    async def script(stage: Stage) -> None:
        await stage.until(SessionOpened)
        stage.say(1)
        stage.say(2)
        gate.open()
        await stage.until(SpeechEnded, "s2")

    stage = perform(provider, [line(HELLO), line("Good day.")], script)
    assert ProviderFailed("it fails here", task="s1", chunk=1) in [event for _, event in stage.of("s1")]
    assert not any(isinstance(event, SpeechEnded) for _, event in stage.of("s1"))


def test_closing_does_not_wait_for_what_is_not_spoken(provider: LocalProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, 1)

    async def script(stage: Stage) -> None:
        await stage.until(SessionOpened)
        stage.say(1)
        await stage.until(SpeechStarted)
        stage.session.close("over")
        assert isinstance(stage.seen[-1][1], SessionClosed)
        gate.open()

    perform(provider, [line(HELLO)], script)


def test_a_voice_slower_than_its_sound_is_told_at_the_start(provider: LocalProvider) -> None:
    provider.voice.speak("Hi.", HEART)
    provider.voice.factor["kokoro"] = 1.44

    async def script(stage: Stage) -> None:
        await stage.until(SessionOpened)

    stage = perform(provider, [line("Hi.")], script)
    [opened] = [event for _, event in stage.seen if isinstance(event, SessionOpened)]
    assert opened.reason is not None
    assert opened.reason.startswith("kokoro needs 1.4 s for a second of sound on this machine")
