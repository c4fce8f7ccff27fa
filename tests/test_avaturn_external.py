"""Avaturn's external engine: whole runs in which the emulator dials us, and everything that the caller may do wrong."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
import wave
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from playbook import clock
from playbook.emulators.avaturn import AvaturnEmulator
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
from playbook.providers.avaturn import AvaturnProvider
from playbook.providers.avaturn_external import HEADER, RATE
from playbook.runner import Options, Runner
from playbook.speech.audio import silence as quiet
from playbook.speech.audio import to_ms
from playbook.speech.voice import Voice
from playbook.transports.listener import Listener
from tests.avaturn import KEY, perform, plan_of, voice
from tests.contract import Stage, Stand
from tests.logs import closings, of
from tests.scripts import plan as plan_by_hand
from tests.scripts import say, sound
from tests.sounds import to_wav

HEAD = """\
version: 1
provider: avaturn
session:
  avatar_id: jane_20240829
  conversation_engine: {type: external, url: "wss://avatar.example.com/playbook"}
limits: {speech_margin: 3s}
timeline:
"""
THREE = (
    HEAD
    + """\
  - say: One is the first of them.
    id: one
  - say: Two is the second of them.
    id: two
  - say: Three is the last.
    id: three
"""
)
CUT = (
    HEAD
    + """\
  - say: This line goes on for so long that somebody will surely stop it before it has come to its end.
    id: cut
    until: 1s
  - say: Nobody hears this.
    id: behind
    until: accepted
  - interrupt:
    id: stop
  - say: Afterwards.
    id: after
"""
)


def messages(run) -> list[tuple[str, str | None]]:
    """What we told the caller."""
    return [
        (entry["type"].removeprefix("avatar.speech."), entry.get("segment_uid"))
        for entry in run.emulator.journal
        if entry["what"] == "message"
    ]


# --- what it does -------------------------------------------------------------------------------------------------------


def test_lines_are_spoken_by_our_voice_and_reported_by_avaturn(tmp_path):
    """One segment a line, one open at a time; starts and ends are Avaturn's, with its name for the segment and its own measure."""
    run = perform(THREE, tmp_path)
    assert run.code == 0
    assert run.spoken == ["one", "two", "three"]
    assert messages(run) == [(what, uid) for uid in ("one", "two", "three") for what in ("segment.create", "segment.close")]
    assert run.grades == {"one": "reported", "two": "reported", "three": "reported"}
    for task, end in closings(run.lines).items():
        length = voice().speak(next(line["text"] for line in of(run.lines, "command", "say") if line["task"] == task)).duration_ms
        assert abs(end["duration_ms"] - length) <= 2
    assert [line["provider_task"] for line in of(run.lines, "event", "speech_started")] == ["seg-1", "seg-2", "seg-3"]


def test_a_sound_is_resampled_and_played_whole(tmp_path):
    """`audio-echo` is native here: 24 kHz, as long as the file."""
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "beep.wav").write_bytes(to_wav(quiet(1234, 44_100)))
    run = perform(HEAD + "  - {audio-echo: sounds/beep.wav, id: beep}\n", tmp_path)
    assert (run.code, run.grades) == (0, {"beep": "reported"})
    [line] = run.emulator.sessions["sess-1"].queue.lines
    assert abs(line.length_ms - 1234) <= 1


def test_chunks_are_segments_of_one_utterance_without_one_open_across_a_pause(tmp_path):
    """A line in chunks starts with its first segment and ends with its last; a chunk that completes no word rides with the next."""
    text = HEAD + '  - say: {chunks: ["One two ", {wait: 2s}, "thr", "ee four."]}\n    id: count\n'
    run = perform(text, tmp_path)
    assert messages(run) == [
        ("segment.create", "count"),
        ("segment.close", "count"),
        ("segment.create", "count#3"),
        ("segment.close", "count#3"),
    ]
    assert len(of(run.lines, "event", "speech_started")) == 1
    assert [line["chunk"] for line in of(run.lines, "event", "task_accepted")] == [1, 2, 3]
    whole = voice().speak("One two three four.").duration_ms
    assert abs(sum(line.length_ms for line in run.emulator.sessions["sess-1"].queue.lines) - whole) <= 2
    assert run.grades == {"count": "reported"}


def test_an_interrupt_says_what_was_heard_and_settles_what_never_began(tmp_path):
    """The playing line ends by Avaturn's report, with the milliseconds and the words; the queued one, of which it says nothing, by us."""
    run = perform(CUT, tmp_path)
    assert run.code == 0
    ends = closings(run.lines)
    assert (ends["cut"]["evidence"], ends["cut"]["interrupted"]) == ("reported", True)
    assert ends["cut"]["heard_ms"] == 1150, "one second, and the emulator's tail"
    assert ends["cut"]["heard"].startswith("This line goes on")
    assert (ends["behind"]["heard_ms"], ends["behind"]["interrupted"], ends["behind"]["evidence"]) == (0, True, "estimated")
    assert run.spoken == ["cut", "after"]
    assert ends["after"]["evidence"] == "reported"


def test_the_show_is_recorded_as_it_was_heard(tmp_path):
    """`audio.wav` holds the lines where Avaturn began them, and of a line that was cut only what was heard."""
    run = perform(CUT, tmp_path)
    with wave.open(str(run.outcome.folder / "audio.wav")) as file:
        rate, pcm = file.getframerate(), file.readframes(file.getnframes())
    start, end = (line["at_ms"] for line in run.lines if line.get("task") == "cut" and line.get("event", "").startswith("speech_"))

    def loud(at_ms: int, for_ms: int) -> bool:
        return any(pcm[2 * rate * at_ms // 1000 : 2 * rate * (at_ms + for_ms) // 1000])

    assert loud(start, 500)
    assert not loud(0, start - 20)
    assert not loud(end + 20, 150)
    assert "This line goes on" in (run.outcome.folder / "captions.vtt").read_text("utf-8")


def test_secret_words_are_sent_and_never_shown(tmp_path):
    """A secret in a line is spoken, but neither its words nor what was heard of them come into the log."""
    text = CUT.replace("timeline:", "vars: {pin: {type: string, secret: true, default: swordfish}}\ntimeline:").replace(
        "This line", "The word is {{ pin }} and this line"
    )
    run = perform(text, tmp_path)
    assert closings(run.lines)["cut"]["heard"] == "***"
    assert "swordfish" not in "".join(path.read_text("latin-1") for path in run.outcome.folder.iterdir())


def test_a_microphone_and_messages_we_do_not_know_change_nothing(tmp_path):
    """The caller's microphone is dropped; unknown types, other JSON and no JSON at all are left aside; a complaint is noted."""
    run = perform(THREE, tmp_path, AvaturnEmulator(viewer_after_ms=300, socket="babbles", microphone=True))
    assert run.code == 0
    assert set(run.grades.values()) == {"reported"}
    assert "made.up.error" in json.dumps(run.lines)


# --- a caller that misbehaves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("socket", "says"),
    [
        ("absent", "Avaturn did not connect within 30 s; check that conversation_engine.url leads to listen"),
        ("stranger", "Avaturn did not connect within 30 s (1 came without the secret)"),
        ("drops", "Avaturn closed the socket, which ends the session"),
    ],
)
def test_a_caller_that_does_not_stay(socket, says, tmp_path):
    """Never comes, comes without the secret, or hangs up in mid-segment: exit 4, with the reason, and the session is ended."""
    run = perform(THREE, tmp_path, AvaturnEmulator(viewer_after_ms=300, socket=socket))
    assert (run.code, run.left, run.spoken) == (4, [], [])
    assert says in run.reason
    assert run.requests("DELETE")


def test_interrupted_and_ended_for_one_segment(tmp_path):
    """Both may come: the first closes the line, the second is ignored."""
    run = perform(CUT, tmp_path, AvaturnEmulator(viewer_after_ms=300, socket="pairs"))
    assert run.code == 0
    assert closings(run.lines)["cut"]["heard_ms"] == 1150
    assert [note["task"] for note in of(run.lines, "note", "ignored")] == ["cut"]


@pytest.mark.parametrize(
    ("fault", "code", "expected"),
    [
        ("end-missing@two", 0, {"two": "timeout"}),
        ("end-late@two", 0, {"two": "timeout"}),
        ("end-twice@two", 0, {"two": "reported"}),
        ("end-early@two", 0, {"two": "estimated"}),
        ("start-missing@two", 0, {"two": "reported"}),
        ("wrong-id@two", 0, {"two": "unmatched"}),
        ("accepted-but-silent@two", 0, {"two": "timeout"}),
        ("slow-accept@two", 0, {"two": "reported"}),
        ("session-dies@two", 4, {"two": "timeout"}),
    ],
)
def test_named_faults(fault, code, expected, tmp_path):
    """What the runner makes of each: the line's grade says on what evidence it ended, and the show goes on unless the session is gone."""
    text = THREE.replace("speech_margin: 3s", "speech_margin: 2s")
    run = perform(text, tmp_path, AvaturnEmulator(viewer_after_ms=0, faults=[fault]))
    assert (run.code, run.left) == (code, [])
    assert {**run.grades, **expected} == run.grades
    assert len(run.spoken) == len(set(run.spoken))
    if code == 0:
        assert {task: grade for task, grade in run.grades.items() if task != "two"} == {"one": "reported", "three": "reported"}


@pytest.mark.parametrize(("fault", "grade"), [("interrupt-lost", "timeout"), ("speech-after-interrupt", "reported")])
def test_faults_of_an_interrupt(fault, grade, tmp_path):
    """An interrupt that is not obeyed costs the line its grade after three seconds; speech that comes back is ignored."""
    run = perform(CUT, tmp_path, AvaturnEmulator(viewer_after_ms=0, faults=[fault + "@cut"]))
    assert (run.code, run.left) == (0, [])
    assert run.grades["cut"] == grade
    assert closings(run.lines)["cut"]["interrupted"]


def test_a_port_that_is_taken_costs_nothing(tmp_path):
    """Exit 4 before a session is created."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = perform(THREE.replace("session:\n", f"session:\n  listen: 127.0.0.1:{port}\n"), tmp_path)
    assert run.code == 4
    assert f"cannot listen on 127.0.0.1:{port}: address already in use" in run.reason
    assert run.emulator.journal == []


def test_without_the_voice_nothing_begins(tmp_path):
    """Lines need the extra `voice`; that is said before a session is created. Sounds alone do not need it."""

    class Silent(Voice):
        available = False

    async def begin(text: str):
        plan = plan_of(text, tmp_path)
        env = {"AVATURN_API_KEY": KEY}
        return await Runner(plan, Options(folder=tmp_path / "run", env=env, provider=AvaturnProvider(Silent))).run()

    with pytest.raises(SetupError, match="no voice is installed"):
        clock.run(begin(THREE), "virtual")


# --- the protocol by hand: a test in the place of Avaturn's caller ------------------------------------------------------


@contextlib.asynccontextmanager
async def called(tmp_path, *steps, listen="127.0.0.1:0"):
    """A session that is open, and the socket by which Avaturn called it."""
    emulator = AvaturnEmulator(socket="absent")
    async with emulator.serve():
        asked = {"listen": listen, "conversation_engine": {"type": "external", "url": "wss://a.example/x"}}
        stand = Stand(AvaturnProvider(voice), emulator.environment(), asked, emulator)
        sounds = {"0" * 64: to_wav(quiet(600_000, RATE))}
        plan = plan_by_hand(*steps, can=stand.provider.capabilities(asked), session=asked, sounds=sounds)
        stage = Stage(stand, plan, tmp_path)
        stage.session.open()
        while not emulator.sessions:
            await stage.pass_ms(1)
        engine = emulator.sessions["sess-1"].engine
        async with connect(engine["url"], additional_headers=engine["headers"], compression=None, ping_interval=None) as caller:
            await stage.until(SessionOpened)
            yield stage, caller
        stage.session.close("end")
        await stage.until(SessionClosed)
        assert emulator.open_sessions == ()


def virtually(main):
    return clock.run(main, "virtual")


async def heard(caller, what: str) -> tuple[int, dict]:
    """Read up to a message of this type: how many milliseconds of sound came before it, and the message."""
    size = 0
    async for message in caller:
        if isinstance(message, bytes):
            size += len(message)
        elif (found := json.loads(message))["type"] == what:
            return to_ms(size // 2, RATE), found
    raise AssertionError(f"no {what} came")


async def tell(caller, type: str, uid: str, **fields) -> None:
    await caller.send(json.dumps({"type": f"avatar.speech.segment.{type}", "segment_id": f"seg-{uid}", "segment_uid": uid, **fields}))


def test_an_interrupt_overtakes_the_sound_that_is_being_sent(tmp_path):
    """The caller takes no more sound; the interrupt cuts it short, closes the segment, and only then interrupts."""

    async def main():
        async with called(tmp_path, sound("long", 600_000)) as (stage, caller):
            stage.session.play_audio(PlayAudio("long", "long", "0" * 64, 600_000))
            await heard(caller, "avatar.speech.segment.create")
            await tell(caller, "created", "long")
            await tell(caller, "playback.started", "long", timestamp=0.5)
            await stage.until(SpeechStarted, "long")
            await stage.pass_ms(5_000)  # our side is stuck: nobody reads
            stage.session.interrupt(StopSpeaking("stop", "stop"))
            sent_ms, close = await heard(caller, "avatar.speech.segment.close")
            nothing_ms, _ = await heard(caller, "avatar.speech.interrupt")
            await tell(caller, "playback.interrupted", "long", played_duration=5.25)
            ended = await stage.until(SpeechEnded, "long")
            return sent_ms, close["segment_uid"], nothing_ms, ended, stage.of(ProviderFailed)

    sent_ms, uid, nothing_ms, ended, failed = virtually(main())
    assert (uid, nothing_ms, failed) == ("long", 0, [])
    assert 0 < sent_ms < 600_000
    assert (ended.interrupted, ended.heard_ms) == (True, 5250)


def test_a_caller_that_takes_no_more_sound_loses_the_session(tmp_path):
    """Ten seconds without progress are enough."""

    async def main():
        async with called(tmp_path, sound("long", 600_000)) as (stage, caller):
            stage.session.play_audio(PlayAudio("long", "long", "0" * 64, 600_000))
            await tell(caller, "created", "long")
            return await stage.until(ProviderFailed)

    failed = virtually(main())
    assert (failed.outcome, failed.task, failed.reason) == ("lost", None, "Avaturn takes no more sound")


def test_a_segment_that_is_refused_or_never_acknowledged(tmp_path):
    """An error in place of `created` refuses the line in Avaturn's words; silence refuses it too, since nothing was sent; without `closed`,
    nobody knows."""

    async def main():
        async with called(tmp_path, say("a"), say("b"), say("c")) as (stage, caller):
            stage.session.say(SayText("a", "a", "This is a."))
            await heard(caller, "avatar.speech.segment.create")
            await caller.send(json.dumps({"type": "error", "subtype": "avatar.speech.segment.error", "reason": "not now"}))
            await stage.until(ProviderFailed, "a")
            stage.session.say(SayText("b", "b", "This is b."))
            sent_ms, _ = await heard(caller, "avatar.speech.segment.close")
            await stage.until(ProviderFailed, "b")
            stage.session.say(SayText("c", "c", "This is c."))
            await heard(caller, "avatar.speech.segment.create")
            await tell(caller, "created", "c")
            await stage.until(ProviderFailed, "c")
            return sent_ms, stage.of(ProviderFailed)

    sent_ms, failed = virtually(main())
    assert sent_ms == 0
    assert [(event.task, event.outcome) for event in failed] == [("a", "refused"), ("b", "refused"), ("c", "ambiguous")]
    assert failed[0].reason == "Avaturn complains of avatar.speech.segment.error: not now"


def test_a_visitor_who_barges_in_ends_the_line(tmp_path):
    """`playback.interrupted` without an interrupt of ours: the line is over, with what was heard."""

    async def main():
        async with called(tmp_path, say("a")) as (stage, caller):
            stage.session.say(SayText("a", "a", "This is a."))
            await tell(caller, "created", "a")
            await tell(caller, "closed", "a")
            await stage.until(TaskAccepted, "a")
            await tell(caller, "playback.started", "a", timestamp=7)
            await tell(caller, "playback.interrupted", "a", played_duration=0.3)
            return await stage.until(SpeechEnded, "a")

    ended = virtually(main())
    assert (ended.interrupted, ended.heard_ms, ended.provider_task) == (True, 300, "seg-a")


def test_only_the_one_with_the_secret_is_let_in():
    """A wrong secret, none, or two of them are a 401; a second caller is a 409."""

    async def main():
        listener = Listener("127.0.0.1", 0, header=HEADER, secret="open sesame")
        url = await listener.start(lambda port: f"ws://127.0.0.1:{port}/")
        refused = []
        for headers in ([], [(HEADER, "open")], [(HEADER, "open sesame"), (HEADER, "open sesame")]):
            with pytest.raises(InvalidStatus) as caught:
                await connect(url, additional_headers=headers)
            refused.append(caught.value.response.status_code)
        async with connect(url, additional_headers=[(HEADER, "open sesame")]):
            assert await listener.caller(1)
            with pytest.raises(InvalidStatus) as caught:
                await connect(url, additional_headers=[(HEADER, "open sesame")])
            refused.append(caught.value.response.status_code)
        await listener.aclose()
        return refused, listener.strangers

    assert virtually(main()) == ([401, 401, 401, 409], 3)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
TYPES = ("created", "closed", "playback.started", "playback.ended", "playback.interrupted")
MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from([f"avatar.speech.segment.{name}" for name in TYPES] + ["error", "sdk.message.receive"])},
    optional=dict.fromkeys(("segment_id", "segment_uid", "timestamp", "played_duration", "subtype", "reason"), JSON),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=20) | JSON.map(json.dumps) | MESSAGES.map(json.dumps), max_size=20))
def test_no_message_brings_the_session_down(texts):
    """Whatever the caller says is either understood or left aside; a line is taken afterwards as ever."""

    async def main(folder: Path):
        async with called(folder, say("a")) as (stage, caller):
            for text in texts:
                await caller.send(text)
            stage.session.say(SayText("a", "a", "This is a."))
            await heard(caller, "avatar.speech.segment.create")
            await tell(caller, "created", "a")
            await tell(caller, "closed", "a")
            await stage.until(TaskAccepted, "a")
            return stage.of(ProviderFailed)

    with tempfile.TemporaryDirectory() as folder:
        assert virtually(main(Path(folder))) == []
