"""What every provider owes (`providers/base.py`), asked of each: over real sockets where it has any, on the virtual clock."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from playbook import clock
from playbook.emulators.faults import Injection
from playbook.errors import SetupError
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
from playbook.providers.base import EndsSessions
from tests.contract import CHIME_SHA, STANDS, Stage, Stand, compile_on, perform, plan_for, sound, write_playbook
from tests.leaks import found
from tests.logs import checked, closings, of
from tests.scripts import say

TALK = "This sentence goes on for quite some time, and somebody may well stop it before it has come to its end."


def on_each(test: Callable[[Stand, Path], Awaitable[None]]) -> Any:
    """Run a test on every stand, each on a virtual clock of its own."""

    def run(name: str, tmp_path: Path) -> None:
        async def main() -> None:
            async with STANDS[name]() as stand:
                await test(stand, tmp_path)

        clock.run(main(), "virtual")

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return pytest.mark.parametrize("name", STANDS)(run)


@on_each
async def test_it_can_be_looked_at_before_a_run(stand: Stand, tmp_path: Path):
    """Its schema explains every setting and refuses what it does not know; capabilities and checks say the same each time."""
    schema = load_schema(f"providers/{stand.provider.schema}")
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    validator.validate(dict(stand.settings))
    for example in schema["examples"]:
        validator.validate(example)
    assert not validator.is_valid({**stand.settings, "no-such-setting": 1})
    assert all("description" in setting or "$ref" in setting for setting in properties(schema))
    can = stand.provider.capabilities(stand.settings)
    assert can == stand.provider.capabilities(stand.settings)
    plan = plan_for(stand, say("hello"))
    assert list(stand.provider.check(plan)) == list(stand.provider.check(plan))
    priced = stand.provider.capabilities({**stand.settings, "price_per_minute": 0.5})
    assert priced.price_per_minute == 0.5


def properties(schema: Any) -> list[Any]:
    """Every setting of a schema, however deep. (A setting may itself be called `properties`.)"""
    found: list[Any] = []
    if isinstance(schema, dict):
        for keyword, child in schema.items():
            if keyword == "properties":
                found += child.values()
                found += properties(list(child.values()))
            elif keyword not in ("examples", "default"):
                found += properties(child)
    elif isinstance(schema, list):
        for child in schema:
            found += properties(child)
    return found


@on_each
async def test_without_its_credentials_it_says_so_before_anything_happens(stand: Stand, tmp_path: Path):
    """`connect` raises a `SetupError` that names a variable, and nobody was asked anything."""
    names = {name for way in stand.provider.credentials for name in way}
    if not names:
        assert Stage(stand, plan_for(stand, say("hello")), tmp_path).events == []
        return
    poor = replace(stand, env={name: value for name, value in stand.env.items() if name not in names})
    with pytest.raises(SetupError) as error:
        Stage(poor, plan_for(stand, say("hello")), tmp_path)
    assert any(name in error.value.message + error.value.remedy for name in names)
    assert stand.emulator is None or stand.emulator.journal == []


@on_each
async def test_each_command_is_answered_once_and_lines_are_spoken_in_order(stand: Stand, tmp_path: Path):
    """Open, say in chunks, play, interrupt, close: one answer each; what is reported of speech names its line or nobody."""
    can = stand.provider.capabilities(stand.settings)
    steps = [say("one"), say("two", "Two, ", "and more."), sound("chime"), say("talk", TALK)]
    stage = Stage(stand, plan_for(stand, *(step for step in steps if can.audio_echo or step.id != "chime")), tmp_path)
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
    if stand.emulator is not None:
        assert stand.emulator.open_sessions == ()
        spoken = [entry["task"] for entry in stand.emulator.journal if entry["what"] == "speech_started"]
        assert len(spoken) == len(set(spoken)), "nothing was spoken twice"


@pytest.mark.parametrize("after_ms", [0, 30, 130, 230, 330, 700, 5_000])
@pytest.mark.parametrize("name", STANDS)
def test_it_can_be_closed_at_any_moment(name: str, after_ms: int, tmp_path: Path):
    """However far the opening has come, `close` leads to one `SessionClosed` and leaves nothing open; asking twice changes nothing."""

    async def main() -> None:
        async with STANDS[name]() as stand:
            if stand.emulator is not None:
                stand.emulator.injections.append(Injection("serve", times=None, before_ms=100, after_ms=200))
            stage = Stage(stand, plan_for(stand, say("hello")), tmp_path)
            stage.session.open()
            if after_ms:
                await stage.pass_ms(after_ms)
            stage.session.close("SIGINT")
            stage.session.close("SIGINT")
            await stage.until(SessionClosed)
            await stage.pass_ms(30_000)
            assert stage.of(SessionClosed) == [SessionClosed()]
            assert isinstance(stage.events[-1], SessionClosed)
            assert stand.emulator is None or stand.emulator.open_sessions == ()
            assert stage.journal.open_sessions() == []

    clock.run(main(), "virtual")


@on_each
async def test_a_session_that_dies_is_reported_once_and_can_still_be_closed(stand: Stand, tmp_path: Path):
    """When the vendor ends the session by itself, the next line (at the latest) leads to one `ProviderFailed` with `lost`."""
    if stand.emulator is None:
        return
    stage = Stage(stand, plan_for(stand, say("hello"), say("again")), tmp_path)
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


@on_each
async def test_a_service_that_is_not_there_is_a_refusal(stand: Stand, tmp_path: Path):
    """Nothing listens: one `ProviderFailed` without a task and without a session, and no trace in the journal."""
    if stand.emulator is None:
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    env = {name: nowhere if name.endswith("_URL") else value for name, value in stand.env.items()}
    stage = Stage(replace(stand, env=env), plan_for(stand, say("hello")), tmp_path)
    stage.session.open()
    failed = await stage.until(ProviderFailed)
    assert (failed.task, failed.session, failed.outcome) == (None, None, "refused")
    assert "connection refused" in failed.reason
    assert stage.journal.open_sessions() == []


@on_each
async def test_another_process_can_end_a_session(stand: Stand, tmp_path: Path):
    """What the journal holds, and the environment, suffice to end a session; doing so again is no error."""
    if stand.emulator is None:
        return
    assert isinstance(stand.provider, EndsSessions)
    stage = Stage(stand, plan_for(stand, say("hello")), tmp_path)
    stage.session.open()
    opened = await stage.until(SessionOpened)
    [record] = Journal(tmp_path).open_sessions()
    assert (record.provider, record.session) == (stand.provider.name, opened.session)
    assert len(stand.emulator.open_sessions) == 1
    await stand.provider.end_session(record, stand.env, stand.transports())
    assert stand.emulator.open_sessions == ()
    await stand.provider.end_session(record, stand.env, stand.transports())
    stage.session.close("end")
    closed = await stage.until(SessionClosed)
    assert closed.status is None


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


def every_verb(stand: Stand) -> str:
    """As many verbs as the provider has."""
    can = stand.provider.capabilities(stand.settings)
    text = EVERY_VERB
    if not can.audio_echo:
        text = text.replace("  - audio-echo: chime.wav\n    id: chime\n", "")
    if can.interrupt == "none":
        text = text.replace("  - interrupt:\n    id: stop\n", "  - wait: speech\n")
    return text


@on_each
async def test_a_playbook_of_every_verb_runs_to_its_end(stand: Stand, tmp_path: Path):
    """Exit 0; every line has its grade; the log is a good one; nothing stays open; no credential is in any file; nothing is said twice."""
    can = stand.provider.capabilities(stand.settings)
    outcome = await perform(stand, compile_on(write_playbook(tmp_path, stand, every_verb(stand))), tmp_path)
    lines = checked(outcome.folder)
    assert (outcome.result.end, outcome.result.exit_code) == ("passed", 0), outcome.result.reason
    grades = {task: line["evidence"] for task, line in closings(lines).items()}
    assert set(grades.values()) <= ({"estimated"} if can.speech == "none" else {"reported", "unmatched"})
    assert of(lines, "note", "conflict") == []
    assert (closings(lines)["talk"].get("interrupted") is True) == (can.interrupt != "none")
    assert not (outcome.folder / "session.json").exists()
    assert found(stand.credentials, tmp_path) == []
    assert Journal(tmp_path / "state").open_sessions() == []
    if stand.emulator is not None:
        assert stand.emulator.open_sessions == ()
        spoken = [entry["task"] for entry in stand.emulator.journal if entry["what"] == "speech_started"]
        assert len(spoken) == len(set(spoken)) > 0
        assert not [entry for entry in stand.emulator.journal if entry["what"] == "speech_cut_off"], "no last word is cut"


@pytest.mark.parametrize("name", STANDS)
def test_two_runs_of_one_plan_are_equal_bytes(name: str, tmp_path: Path):
    """On the virtual clock, below the header."""

    def once(folder: Path) -> str:
        async def main() -> str:
            async with STANDS[name]() as stand:
                file = write_playbook(tmp_path, stand, every_verb(stand))
                outcome = await perform(stand, compile_on(file), folder)
                return (outcome.folder / "run.jsonl").read_text("utf-8")

        return clock.run(main(), "virtual")

    first, second = once(tmp_path / "1"), once(tmp_path / "2")
    assert json.loads(first.splitlines()[0])["plan_sha256"] == json.loads(second.splitlines()[0])["plan_sha256"]
    assert first.splitlines()[1:] == second.splitlines()[1:]
