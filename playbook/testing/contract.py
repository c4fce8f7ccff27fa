"""What every provider owes (`providers.base`), as tests that any provider can run (`playbook.testing` says how).

Over real sockets where it has any, on the virtual clock.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from playbook import clock
from playbook.emulators.faults import Injection
from playbook.errors import CODES, SetupError
from playbook.events import (
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
from playbook.formats.schema import load_schema
from playbook.journal.journal import Journal
from playbook.language import compile_file
from playbook.model import Plan
from playbook.perform.performance import Options, Outcome, Runner
from playbook.perform.world import World
from playbook.providers.base import EndsSessions, Provider
from playbook.record.runlog import read_log
from playbook.testing.guard import Guard, allowed, watched
from playbook.testing.stands import CHIME, CHIME_SHA, Staged, Stand, kept_on, plan_for, playbook_text, say, sound, stands_of

TALK = "This sentence goes on for quite some time, and somebody may well stop it before it has come to its end."
EVERY_VERB = f"""\
  - say: Hello there.
    id: hello
  - say:
      chunks: ["One, ", {{wait: 300ms}}, "two, ", "three."]
    id: count
  - audio-echo: chime.wav
    id: chime
  - wait: 700ms
  - say: The first of two that are queued.
    id: first
    until: accepted
  - say: And this is the second.
    id: second
    until: accepted
  - wait: speech
  - say: {TALK}
    id: talk
    until: 1s
  - interrupt:
    id: stop
  - say: Good night.
    id: night
  - end:
"""
SHORT = "  - say: Good morning to you all.\n    id: hello\n  - wait: 300ms\n  - say: That is all.\n    id: bye\n"

_Test = Callable[["ProviderContract", Stand, Path], Awaitable[None]]


def _on_each(test: _Test) -> Any:
    """Run a test on each stand, on a virtual clock of its own; no socket is opened but by its transports."""

    def run(self: ProviderContract, stand: Callable[[], Stand], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

        async def main() -> list[str]:
            async with replace(stand(), before=Guard()).open() as there:
                with watched() as strays:
                    await test(self, there, tmp_path)
                return strays

        strays = clock.run(main(), "virtual")
        assert strays == [], f"the provider opens sockets in another way than by its transports: {', '.join(strays)}"

    run.__name__, run.__qualname__, run.__doc__ = test.__name__, test.__qualname__, test.__doc__
    return run


class ProviderContract:
    """The contract test. A subclass says whom it is for by `providers`."""

    def providers(self) -> Iterable[Callable[[], Provider]]:
        """What makes the providers, which are asked for what they owe in each of their `stands`."""
        raise TypeError("name the providers in a subclass")

    def world(self) -> World:
        """What compiles playbooks for them."""
        return World()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Each test on each stand."""
        if "stand" in metafunc.fixturenames:
            stands = {name: stand for make in self.providers() for name, stand in stands_of(make).items()}
            metafunc.parametrize("stand", stands.values(), ids=stands.keys())

    # before a run

    @_on_each
    async def test_it_can_be_looked_at_before_a_run(self, stand: Stand, tmp_path: Path) -> None:  # noqa: ARG002 -- as all have it
        """Its schema explains every setting and refuses what it does not know; capabilities and checks say the same each time."""
        schema = load_schema(str(Path("providers") / stand.provider.schema))
        jsonschema.Draft7Validator.check_schema(schema)
        validator = jsonschema.Draft7Validator(schema)
        validator.validate(dict(stand.settings))
        for example in schema["examples"]:
            validator.validate(example)
        assert not validator.is_valid({**stand.settings, "no-such-setting": 1})
        assert all("description" in setting or "$ref" in setting for setting in _settings(schema))
        can = stand.provider.capabilities(stand.settings)
        assert can == stand.provider.capabilities(stand.settings)
        plan = plan_for(stand, say("hello"))
        found = list(stand.provider.check(plan))
        assert found == list(stand.provider.check(plan))
        assert {problem.code for problem in found} <= {*CODES, *stand.provider.problems}
        if "price_per_minute" in schema["properties"]:
            priced = stand.provider.capabilities({**stand.settings, "price_per_minute": 0.5})
            assert priced.price_per_minute == 0.5

    @_on_each
    async def test_without_its_credentials_it_says_so_before_anything_happens(self, stand: Stand, tmp_path: Path) -> None:
        """`connect` raises a `SetupError` that names a variable, and nobody was asked anything."""
        names = {name for way in stand.provider.credentials for name in way}
        if not names:
            assert Staged(stand, plan_for(stand, say("hello")), tmp_path).events == []
            return
        poor = replace(stand, env={name: value for name, value in stand.env.items() if name not in names})
        with pytest.raises(SetupError) as error:
            Staged(poor, plan_for(stand, say("hello")), tmp_path)
        assert any(name in error.value.message + error.value.remedy for name in names)
        assert stand.emulator is None or stand.emulator.journal == []

    # a session

    @_on_each
    async def test_each_command_is_answered_once_and_lines_are_spoken_in_order(self, stand: Stand, tmp_path: Path) -> None:
        """Open, say in chunks, play, interrupt, close: one answer each; what is reported of speech names its line or nobody."""
        can = stand.provider.capabilities(stand.settings)
        steps = [say("one"), say("two", "Two, ", "and more."), sound("chime"), say("talk", TALK)]
        stage = Staged(stand, plan_for(stand, *(step for step in steps if can.audio_echo or step.id != "chime")), tmp_path)
        session = stage.session

        session.open()
        opened = await stage.until(SessionOpened)
        assert opened.session
        session.say(SayText("one", "one", "This is one."))
        session.say(SayText("two", "two", "Two, ", 1, final=False))
        session.say(SayText("two", "two", "and more.", 2, final=True))
        await stage.until(TaskAccepted, "two", count=2)
        if can.audio_echo:
            session.play_audio(PlayAudio("chime", "chime", CHIME_SHA, 400))
            await stage.until(TaskAccepted, "chime")
        await stage.pass_ms(20_000)
        lines = ["one", "two", *(["chime"] if can.audio_echo else [])]
        assert [len(stage.of(TaskAccepted, line)) for line in lines] == [1, 2, 1][: len(lines)]
        assert [event.chunk for event in stage.of(TaskAccepted, "two")] == [1, 2]
        if can.speech != "none":
            assert [event.task for event in stage.of(SpeechStarted) if event.task is not None] in (lines, [])
            assert len(stage.of(SpeechStarted)) >= len(lines)
            assert not any(event.interrupted for event in stage.of(SpeechEnded))

        session.say(SayText("talk", "talk", TALK))
        await stage.until(TaskAccepted, "talk")
        await stage.pass_ms(1_500)
        if can.interrupt != "none":
            session.interrupt(StopSpeaking("stop", "stop"))
            await stage.until(TaskAccepted, "stop")
            await stage.pass_ms(2_000)
            if can.speech != "none":
                cut = [event for event in stage.of(SpeechEnded) if event.interrupted]
                assert len(cut) == 1
                assert cut[0].task in ("talk", None)
                assert 500 <= cut[0].heard_ms <= 2_500
        session.close("end")
        await stage.until(SessionClosed)
        await stage.pass_ms(30_000)
        assert len(stage.of(SessionOpened)) == len(stage.of(SessionClosed)) == 1
        assert isinstance(stage.events[-1], SessionClosed)
        assert stage.of(ProviderFailed) == []
        assert stage.journal.open_sessions() == []
        assert not [secret for secret in stage.secrets if secret in repr(stage.events)]
        _nothing_is_left_or_said_twice(stand)

    @pytest.mark.parametrize("after_ms", [0, 30, 130, 230, 330, 700, 5_000])
    def test_it_can_be_closed_at_any_moment(self, stand: Callable[[], Stand], after_ms: int, tmp_path: Path) -> None:
        """However far the opening has come, `close` leads to one `SessionClosed` and leaves nothing open; asking twice changes nothing."""

        async def main() -> None:
            async with stand().open() as there:
                if there.emulator is not None:
                    there.emulator.injections.append(Injection("serve", times=None, before_ms=100, after_ms=200))
                stage = Staged(there, plan_for(there, say("hello")), tmp_path)
                stage.session.open()
                if after_ms:
                    await stage.pass_ms(after_ms)
                stage.session.close("SIGINT")
                stage.session.close("SIGINT")
                await stage.until(SessionClosed)
                await stage.pass_ms(30_000)
                assert stage.of(SessionClosed) == [SessionClosed()]
                assert isinstance(stage.events[-1], SessionClosed)
                assert there.emulator is None or there.emulator.open_sessions == ()
                assert stage.journal.open_sessions() == []

        clock.run(main(), "virtual")

    @_on_each
    async def test_a_session_that_dies_is_reported_once_and_can_still_be_closed(self, stand: Stand, tmp_path: Path) -> None:
        """When the vendor ends the session by itself, the next line (at the latest) leads to one `ProviderFailed` with `lost`."""
        if stand.emulator is None:
            return
        stage = Staged(stand, plan_for(stand, say("hello"), say("again")), tmp_path)
        stage.session.open()
        await stage.until(SessionOpened)
        for session in stand.emulator.open_sessions:
            session.end("fault")
        stage.session.say(SayText("hello", "hello", "Hello?"))
        stage.session.say(SayText("again", "again", "Hello?"))
        failed = await stage.until(ProviderFailed)
        await stage.pass_ms(15_000)
        lost = [event for event in stage.of(ProviderFailed) if event.task is None]
        assert failed in lost
        assert [event.outcome for event in lost] == ["lost"]
        stage.session.close("session lost")
        closed = await stage.until(SessionClosed)
        assert closed.status is None
        assert stage.journal.open_sessions() == []

    @_on_each
    async def test_a_service_that_is_not_there_is_a_refusal(self, stand: Stand, tmp_path: Path) -> None:
        """Nothing listens: one `ProviderFailed` without a task and without a session, and no trace in the journal."""
        if stand.emulator is None:
            return
        with allowed(), socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
        env = {name: nowhere if name.endswith("_URL") else value for name, value in stand.env.items()}
        stage = Staged(replace(stand, env=env), plan_for(stand, say("hello")), tmp_path)
        stage.session.open()
        failed = await stage.until(ProviderFailed)
        assert (failed.task, failed.session, failed.outcome) == (None, None, "refused")
        assert "connection refused" in failed.reason
        assert stage.journal.open_sessions() == []

    @_on_each
    async def test_another_process_can_end_a_session(self, stand: Stand, tmp_path: Path) -> None:
        """What the journal holds, and the environment, suffice to end a session; doing so again is no error."""
        if stand.emulator is None:
            return
        assert isinstance(stand.provider, EndsSessions)
        stage = Staged(stand, plan_for(stand, say("hello")), tmp_path)
        stage.session.open()
        opened = await stage.until(SessionOpened)
        [record] = Journal(tmp_path).open_sessions()
        assert (record.provider, record.session) == (stand.provider.name, opened.session)
        assert len(stand.emulator.open_sessions) == 1
        await stand.provider.end_session(record, stand.env, stand.transports())
        assert not stand.emulator.open_sessions
        await stand.provider.end_session(record, stand.env, stand.transports())
        stage.session.close("end")
        closed = await stage.until(SessionClosed)
        told = "lost" in [event.outcome for event in stage.of(ProviderFailed)]
        assert closed.status == (None if told else "lost"), "nobody of this session ended it, which is told once"

    # performances

    @_on_each
    async def test_a_playbook_of_every_verb_runs_to_its_end(self, stand: Stand, tmp_path: Path) -> None:
        """Exit 0; every line has its grade; nothing stays open; no credential is in any file; nothing is said twice."""
        can = stand.provider.capabilities(stand.settings)
        outcome = await self._perform(stand, self._compile(stand, _every_verb(stand), tmp_path), tmp_path)
        assert (outcome.result.end, outcome.result.exit_code) == ("passed", 0), outcome.result.reason
        said = outcome.summary.utterances
        assert {line.evidence for line in said.values()} <= ({"estimated"} if can.speech == "none" else {"reported", "unmatched"})
        assert outcome.summary.conflict_count == 0
        assert said["talk"].interrupted == (can.interrupt != "none")
        assert list(read_log(outcome.folder))[-1]["end"] == "passed"
        assert not (outcome.folder / "session.json").exists()
        assert _showing(tmp_path, stand.credentials) == []
        assert Journal(tmp_path / "state").open_sessions() == []
        _nothing_is_left_or_said_twice(stand)

    @_on_each
    async def test_one_performance_follows_another_on_one_session(self, stand: Stand, tmp_path: Path) -> None:
        """With the same step ids in both: each line is said once in each, on its own evidence, and one session suffices."""
        plan = self._compile(stand, SHORT, tmp_path)
        kept = kept_on(stand, tmp_path / "kept")
        outcomes = [await Runner(plan, Options(folder=tmp_path / f"run-{n}"), kept).run() for n in (1, 2)]
        assert kept.state == "open"
        assert [outcome.result.exit_code for outcome in outcomes] == [0, 0], [outcome.result.reason for outcome in outcomes]
        assert [list(outcome.summary.utterances) for outcome in outcomes] == [["hello", "bye"]] * 2
        assert [outcome.summary.conflict_count for outcome in outcomes] == [0, 0]
        assert stand.emulator is None or stand.emulator.created == 1
        await kept.aclose()
        assert Journal(tmp_path / "kept" / "state").open_sessions() == []
        _nothing_is_left_or_said_twice(stand)

    def test_two_runs_of_one_plan_are_equal_bytes(
        self, stand: Callable[[], Stand], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On the virtual clock, below the header."""
        monkeypatch.chdir(tmp_path)

        async def once(folder: Path) -> str:
            async with stand().open() as there:
                outcome = await self._perform(there, self._compile(there, _every_verb(there), tmp_path), folder)
                return (outcome.folder / "run.jsonl").read_text("utf-8")

        first, second = (clock.run(once(tmp_path / name), "virtual") for name in ("1", "2"))
        assert json.loads(first.splitlines()[0])["plan_sha256"] == json.loads(second.splitlines()[0])["plan_sha256"]
        assert first.splitlines()[1:] == second.splitlines()[1:]

    def _compile(self, stand: Stand, timeline: str, folder: Path) -> Plan:
        (folder / "chime.wav").write_bytes(CHIME)
        file = folder / "show.yaml"
        file.write_text(playbook_text(stand, timeline), "utf-8")
        return compile_file(file, self.world())

    async def _perform(self, stand: Stand, plan: Plan, folder: Path) -> Outcome:
        options = Options(
            folder=folder / "run",
            state_dir=folder / "state",
            env=stand.env,
            provider=stand.provider,
            transports=stand.transports(),
        )
        return await Runner(plan, options).run()


def _every_verb(stand: Stand) -> str:
    """As many verbs as the provider has."""
    can = stand.provider.capabilities(stand.settings)
    text = EVERY_VERB
    if not can.audio_echo:
        text = text.replace("  - audio-echo: chime.wav\n    id: chime\n", "")
    if can.interrupt == "none":
        text = text.replace("  - interrupt:\n    id: stop\n", "  - wait: speech\n").replace("    until: 1s\n", "    until: accepted\n")
    return text


def _nothing_is_left_or_said_twice(stand: Stand) -> None:
    if stand.emulator is None:
        return
    assert not stand.emulator.open_sessions
    spoken = [(entry["session"], entry["task"]) for entry in stand.emulator.journal if entry["what"] == "speech_started"]
    assert len(spoken) == len(set(spoken)) > 0
    assert not [entry for entry in stand.emulator.journal if entry["what"] == "speech_cut_off"], "no last word is cut"


def _showing(folder: Path, secrets: Iterable[str]) -> list[Path]:
    """The files that show a secret."""
    looked_for = [secret.encode() for secret in secrets]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(secret in path.read_bytes() for secret in looked_for)]


def _settings(schema: Any) -> list[Any]:
    """Every setting of a schema, however deep. (A setting may itself be called `properties`.)"""
    found: list[Any] = []
    if isinstance(schema, dict):
        for keyword, child in schema.items():
            if keyword == "properties":
                found += child.values()
                found += _settings(list(child.values()))
            elif keyword not in ("examples", "default"):
                found += _settings(child)
    elif isinstance(schema, list):
        for child in schema:
            found += _settings(child)
    return found
