"""Avaturn's external engine: whole runs in which the emulator dials us, and everything that the caller may do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import tempfile
import wave
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from playbook import clock
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
from playbook.perform.performance import Options, Runner
from playbook.providers.avaturn.emulator import AvaturnEmulator
from playbook.providers.avaturn.emulator import Options as Behaviour
from playbook.providers.avaturn.external import HEADER, RATE
from playbook.providers.avaturn.provider import AvaturnProvider
from playbook.speech.audio import silence as quiet
from playbook.speech.audio import to_ms
from playbook.speech.voice import Voice
from playbook.transports.cassette import Cassette
from playbook.transports.listener import Listener
from tests.avaturn import KEY, perform
from tests.contract import Stage, Stand, voice
from tests.logs import checked, closings, of
from tests.scripts import plan as plan_by_hand
from tests.scripts import say, sound
from tests.shown import on, plan_of
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
        ("drops", "the other side closed the socket, which ends the session"),
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


# --- on a cassette ------------------------------------------------------------------------------------------------------


def taped(text, folder, emulator=None, **more):
    """A run that is recorded, and its cassette."""
    tape = folder / "live" / "tape.jsonl"
    (folder / "live").mkdir()
    return perform(text, folder / "live", emulator, tape=Cassette(tape, "all"), **more), tape


def played(text, folder, tape):
    """A run from a cassette, where nobody can be reached."""
    plan = plan_of(text, folder)

    async def main():
        env = {"AVATURN_API_KEY": "another", "AVATURN_BASE_URL": "http://127.0.0.1:9"}
        return await on(Cassette(tape), Stand(AvaturnProvider(voice), env), plan, folder).run()

    outcome = clock.run(main(), "virtual")
    return outcome, checked(folder / "run"), (folder / "run" / "run.jsonl").read_bytes().partition(b"\n")[2]


def test_what_was_recorded_is_performed_again(tmp_path):
    """To the byte, as often as one likes, without network, port or the former secrets: the port is taken, and the vendor's address is
    nobody's."""
    live, tape = taped(CUT, tmp_path)
    assert live.grades == {"cut": "reported", "behind": "estimated", "after": "reported"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = CUT.replace("session:\n", f"session:\n  listen: 127.0.0.1:{taken.getsockname()[1]}\n")
        (outcome, _, once), (_, _, twice) = (played(text, tmp_path / name, tape) for name in ("once", "twice"))
    assert outcome.result.exit_code == 0
    assert (tmp_path / "live" / "run" / "run.jsonl").read_bytes().partition(b"\n")[2] == once == twice


def test_what_was_recorded_in_real_time_is_performed_on_the_virtual_clock(tmp_path):
    """The same grades, and times that differ by what our own work took."""
    text = HEAD + "  - say: One.\n    id: one\n  - say: Two goes on and on.\n    id: two\n    until: 300ms\n  - interrupt:\n    id: stop\n"
    live, tape = taped(text, tmp_path, AvaturnEmulator(viewer_after_ms=0, latency_ms=60, tail_ms=10), name="system")
    (outcome, lines, once), (_, _, twice) = (played(text, tmp_path / name, tape) for name in ("once", "twice"))
    assert outcome.result.exit_code == live.code == 0
    assert once == twice
    ends = closings(lines)
    assert {task: line["evidence"] for task, line in ends.items()} == live.grades == {"one": "reported", "two": "reported"}
    for task, line in closings(live.lines).items():
        assert (ends[task].get("heard_ms"), ends[task].get("heard")) == (line.get("heard_ms"), line.get("heard"))
        assert ends[task]["at_ms"] <= line["at_ms"]


@pytest.mark.parametrize("socket", get_args(get_type_hints(Behaviour)["socket"]))
def test_every_caller_is_recorded(socket, tmp_path):
    """However it behaves, the same comes of it: nobody, a stranger, one that hangs up, one that talks nonsense."""
    live, tape = taped(CUT, tmp_path, AvaturnEmulator(viewer_after_ms=300, socket=socket))
    outcome, _, log = played(CUT, tmp_path / "again", tape)
    assert (outcome.result.exit_code, outcome.result.reason) == (live.code, live.reason or None)
    assert log == (tmp_path / "live" / "run" / "run.jsonl").read_bytes().partition(b"\n")[2]


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        (("Two is", "Two was"), 1, ("went on differently at line 14:", "bytes: recorded ", "done ")),
        (("id: two", "id: zwei"), 1, ("went on differently at line 12:", 'json.segment_uid: recorded "two", done "zwei"')),
        (("jane_20240829", "john"), 4, ("no answer to POST /api/v1/sessions", 'json.avatar_id: recorded "jane_20240829", asked "john"')),
    ],
)
def test_a_show_that_was_not_recorded(change, code, told, tmp_path):
    """Other words, another order, other settings: the nearest that was recorded, and what differs."""
    _, tape = taped(THREE, tmp_path)
    outcome, lines, _ = played(THREE.replace(*change), tmp_path / "again", tape)
    assert outcome.result.exit_code == code
    said = "\n".join(line["reason"] for line in of(lines, "event", "provider_failed"))
    assert [text for text in told if text not in said] == []


def test_a_cassette_without_the_socket(tmp_path):
    """Of another engine, say, or of version 1: exit 4, and what to do."""
    _, tape = taped(THREE, tmp_path)
    tape.write_text("".join(line + "\n" for line in tape.read_text().splitlines() if '"socket": 1' not in line))
    outcome, _, _ = played(THREE, tmp_path / "again", tape)
    assert outcome.result.exit_code == 4
    assert "tape.jsonl has no socket number 1" in (outcome.result.reason or "")


def test_a_cassette_edited_by_hand(tmp_path):
    """Reports that an editor took out, moved and put in are as good as recorded."""
    _, tape = taped(THREE, tmp_path)
    lines = [json.loads(line) for line in tape.read_text().splitlines()]

    def said(what: str, uid: str):
        kind = f"avatar.speech.segment.playback.{what}"
        return next(
            n for n, line in enumerate(lines) if {"type": kind, "segment_uid": uid}.items() <= line.get("event", {}).get("json", {}).items()
        )

    one, two, three = (said("ended", uid) for uid in ("one", "two", "three"))
    lines[one]["at_ms"] += 500
    lines[three] = {"at_ms": lines[three]["at_ms"], "socket": 1, "on": "hangup", "event": {}}
    del lines[two]
    tape.write_text("".join(json.dumps(line) + "\n" for line in lines))
    outcome, log, _ = played(THREE, tmp_path / "again", tape)
    assert outcome.result.exit_code == 4
    assert "the other side closed the socket" in (outcome.result.reason or "")
    ends = closings(log)
    assert {task: end["evidence"] for task, end in ends.items()} == {"one": "reported", "two": "timeout", "three": "timeout"}
    [started] = [line for line in of(log, "event", "speech_started") if line["task"] == "one"]
    assert ends["one"]["at_ms"] - started["at_ms"] == ends["one"]["duration_ms"] + 500


# --- the protocol by hand: a test in the place of Avaturn's caller ------------------------------------------------------


def staged(tmp_path, *steps, emulator=None, env=None, listen="127.0.0.1:0", before=None) -> Stage:
    """A session that is not open yet."""
    asked = {"listen": listen, "conversation_engine": {"type": "external", "url": "wss://a.example/x"}}
    stand = Stand(AvaturnProvider(voice), env or emulator.environment(), asked, emulator, before)
    sounds = {"0" * 64: to_wav(quiet(600_000, RATE))}
    plan = plan_by_hand(*steps, can=stand.provider.capabilities(asked), session=asked, sounds=sounds)
    return Stage(stand, plan, tmp_path)


@contextlib.asynccontextmanager
async def called(tmp_path, *steps, listen="127.0.0.1:0", before=None):
    """A session that is open, and the socket by which Avaturn called it."""
    emulator = AvaturnEmulator(socket="absent")
    async with emulator.serve():
        stage = staged(tmp_path, *steps, emulator=emulator, listen=listen, before=before)
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
    """The caller takes no more sound; the interrupt cuts it short, closes the segment, and only then interrupts. From a cassette, too."""
    tape = tmp_path / "tape.jsonl"

    async def main():
        recording = Cassette(tape, "all")
        async with called(tmp_path, sound("long", 600_000), before=recording) as (stage, caller):
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
        recording.close()
        return sent_ms, close["segment_uid"], nothing_ms, ended, stage.of(ProviderFailed)

    sent_ms, uid, nothing_ms, ended, failed = virtually(main())
    assert (uid, nothing_ms, failed) == ("long", 0, [])
    assert 0 < sent_ms < 600_000
    assert (ended.interrupted, ended.heard_ms) == (True, 5250)

    async def again():
        stage = staged(tmp_path, sound("long", 600_000), env={"AVATURN_API_KEY": KEY}, before=Cassette(tape))
        stage.session.open()
        await stage.until(SessionOpened)
        stage.session.play_audio(PlayAudio("long", "long", "0" * 64, 600_000))
        await stage.until(SpeechStarted, "long")
        await stage.pass_ms(5_000)
        stage.session.interrupt(StopSpeaking("stop", "stop"))
        ended = await stage.until(SpeechEnded, "long")
        stage.session.close("end")
        await stage.until(SessionClosed)
        return ended

    assert virtually(again()) == ended


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
        listener = Listener("127.0.0.1:0", header=HEADER, secret="open sesame", address=lambda ours: f"ws://{ours}/")
        url = await listener.start()
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


def test_a_handshake_that_failed_may_be_tried_again():
    """Who has the secret but hangs up before the connection stands is not the caller yet."""

    async def main():
        listener = Listener("127.0.0.1:0", header=HEADER, secret="open sesame", address=lambda ours: f"ws://{ours}/")
        url = await listener.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2].strip("/")))
        writer.write(f"GET / HTTP/1.1\r\nHost: here\r\n{HEADER}: open sesame\r\n\r\n".encode())
        refused = await reader.read()
        writer.close()
        async with connect(url, additional_headers={HEADER: "open sesame"}):
            came = await listener.caller(5)
        await listener.aclose()
        return refused.split()[1], came

    assert clock.run(main()) == (b"426", True)


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
