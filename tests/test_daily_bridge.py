"""The Daily room's child process, with a stand-in for the native library that behaves, and misbehaves, as the real one was measured to.

Real processes, pipes and threads on the system clock."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from playbook.clock import run
from playbook.errors import SetupError
from playbook.speech.ear import Ear
from playbook.transports.daily import DailyRoom
from playbook.transports.room import (
    AppMessage,
    ClipEnded,
    ClipStarted,
    Door,
    Participant,
    ParticipantJoined,
    ParticipantLeft,
    ParticipantUpdated,
    Patience,
    RoomFailure,
    RoomLost,
    SoundHeard,
    Trouble,
)
from tests.rooms import FACE, Events

PATHS = os.pathsep.join(str(path) for path in (Path(__file__).parent / "standin", Path(__file__).parent.parent))
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJyIjoiYyJ9.c2ln"
FACE_EARLY = Participant("face-1")


def url(room: str) -> str:
    return f"https://standin.daily.co/{room}"


def play(
    script: Callable[[DailyRoom, Events], Awaitable[None]], *, patience: Patience | None = None, env: Mapping[str, str] | None = None
) -> None:
    """Run `script` with a Daily room that is not open yet. Afterwards no child is left."""

    async def main() -> None:
        events = Events()
        room = DailyRoom(events, {**os.environ, "PYTHONPATH": PATHS, **(env or {})}, patience)
        try:
            async with asyncio.timeout(20):
                await script(room, events)
        finally:
            begin = time.monotonic()
            await room.close()
            assert time.monotonic() - begin < 2
            assert room.pid is None or gone(room.pid)

    run(main())


def gone(pid: int) -> bool:
    """Whether the process is dead (on Linux also while nobody has asked for its status)."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
        return sys.platform == "linux" and stat.read_text().rpartition(")")[2].split()[0] in "ZX"
    except (ProcessLookupError, FileNotFoundError):
        return True


async def failure(work: Awaitable[Any]) -> RoomFailure:
    with pytest.raises(RoomFailure) as caught:
        await work
    return caught.value


# --- the ordinary life --------------------------------------------------------------------------------------------------


def test_joins_talks_and_leaves() -> None:
    """Who is there, in the order of the library's callbacks, each once; messages both ways; an orderly exit."""

    async def script(room: DailyRoom, events: Events) -> None:
        ours = await room.open(Door(url("plain"), token=TOKEN, name="runner"))
        await asyncio.gather(*(room.send({"number": number}) for number in range(200)))
        await events.first(AppMessage, count=200)
        await room.send({"fault": "face-leaves"})
        await events.first(ParticipantLeft)
        assert list(events)[:3] == [
            ParticipantJoined(Participant(ours, "runner", local=True), events[0].age_ms),
            ParticipantJoined(FACE_EARLY, events[1].age_ms),
            ParticipantUpdated(FACE, events[2].age_ms),
        ]
        assert [event.message for event in events.of(AppMessage)] == [{"number": number} for number in range(200)]
        assert events.of(ParticipantLeft)[0].participant == FACE
        assert all(event.age_ms < 1000 for event in events)
        await room.close()
        assert room._process is not None
        assert room._process.get_returncode() == 0

    play(script)


@pytest.mark.parametrize("name", ["occupied", "early"])
def test_somebody_who_was_there_before_us_is_told(name: str) -> None:
    """Whether the join's result names them or a callback came before it."""

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url(name)))
        await events.first(ParticipantJoined, count=2)
        assert [event.participant.id for event in events.of(ParticipantJoined)][1] == "face-1"

    play(script)


def test_what_the_library_is_told() -> None:
    """Camera and microphone off, nothing received that nobody looks at; and the child's environment holds no credential."""
    secret = {"TAVUS_API_KEY": "k", "PLAYBOOK_VAR_password": "p", "DAILY_TOKEN": "t"}

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url("plain"), token=TOKEN))
        await room.send({"fault": "settings"})
        told = (await events.first(AppMessage)).message
        assert told["settings"] == {"inputs": {"camera": False, "microphone": False}}
        assert told["profile"] == {"camera": "unsubscribed", "microphone": "unsubscribed"}
        assert "PATH" in told["environ"]
        assert not set(secret) & set(told["environ"])

    play(script, env=secret)


@pytest.mark.parametrize("track", ["microphone", "stream"])
def test_a_microphone_is_the_rooms_or_a_track_of_its_own(track: str) -> None:
    """By the name of the track."""

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url("plain"), microphone_hz=16_000, track=track))
        await room.send({"fault": "settings"})
        settings = (await events.first(AppMessage)).message["settings"]
        if track == "microphone":
            assert settings["inputs"]["microphone"] == {"isEnabled": True, "settings": {"customTrack": {"id": "track-1"}}}
        else:
            assert settings == {"inputs": {"camera": False, "microphone": False}, "track": "stream"}

    play(script)


def test_a_track_that_is_refused_refuses_the_join() -> None:
    """A session that could not be heard is not opened."""

    async def script(room: DailyRoom, events: Events) -> None:
        error = await failure(room.open(Door(url("plain"), microphone_hz=16_000, track="refused")))
        assert error.message == "the room reported an error: the track was refused"

    play(script)


# --- sound --------------------------------------------------------------------------------------------------------------


def test_sound_is_an_unbroken_track_paced_in_real_time(tmp_path: Path) -> None:
    """What came out is what went in, with silence around and none within; starts, ends and a cut are stamped when they were heard."""
    tape = tmp_path / "tape"
    hz = 16_000
    one, two = b"\1\0" * (hz * 3 // 10), b"\2\0" * (hz * 5)

    async def script(room: DailyRoom, events: Events) -> None:
        loop = asyncio.get_running_loop()
        stamps: dict[object, float] = {}
        told = room._on_event

        def stamped(event: Any) -> None:
            stamps[event] = loop.time() * 1000 - event.age_ms
            told(event)

        room._on_event = stamped
        await room.open(Door(url("mic"), microphone_hz=hz))
        begin = loop.time() * 1000
        room.play("one", one)
        room.play("two", two)
        room.play("three", two)
        await events.first(ClipStarted, count=2)
        loop.call_later(0.4, room.cut)
        await events.first(ClipEnded, count=3)
        started, ended = events.of(ClipStarted), events.of(ClipEnded)
        assert [event.clip for event in started] == ["one", "two"]
        # How exact the times are is a matter of the machine and stands in the benchmark; the samples are exact on every one.
        assert stamps[started[0]] - begin < 500
        assert stamps[ended[0]] - stamps[started[0]] == pytest.approx(300, abs=60)
        assert stamps[started[1]] - stamps[ended[0]] == pytest.approx(0, abs=60)
        assert (ended[0].played_ms, ended[0].interrupted) == (300, False)
        assert ended[1].interrupted
        assert ended[1].played_ms == pytest.approx(stamps[ended[1]] - stamps[started[1]], abs=60)
        assert ended[1].played_ms >= 380
        assert (ended[2].clip, ended[2].played_ms, ended[2].interrupted) == ("three", 0, True)
        heard = tape.read_bytes()
        speech = heard.strip(b"\0").ljust(len(heard.strip(b"\0")) + 1, b"\0")
        assert speech == one + b"\2\0" * (ended[1].played_ms * hz // 1000)

    play(script, env={"PYTHONDAILYTAPE": str(tape)})


def test_the_face_is_heard_when_it_speaks() -> None:
    """Sound of the face arrives stamped at its beginning, so that the ear finds both edges of half a second of tone."""

    async def script(room: DailyRoom, events: Events) -> None:
        loop = asyncio.get_running_loop()
        ear, heard = Ear(hangover_ms=100), []
        told = room._on_event

        def listening(event: Any) -> None:
            if isinstance(event, SoundHeard):
                heard.extend(ear.listen(loop.time() * 1000 - event.age_ms, event.pcm, event.hz))
            told(event)

        room._on_event = listening
        await room.open(Door(url("plain"), listen=True))
        begin = loop.time() * 1000
        room.listen("face-1")
        await events.first(SoundHeard, count=60)
        assert [h.what for h in heard] == ["began", "ended"]
        assert heard[0].at_ms - begin == pytest.approx(500, abs=100)
        assert heard[1].at_ms - heard[0].at_ms == pytest.approx(500, abs=60)
        room.listen("not-a-uuid")
        assert (await events.first(Trouble)).text == "listening to not-a-uuid: participant"

    play(script)


# --- what goes wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "part"),
    [
        ("refused-404", "not-found", "HTTP error: 404 Not Found"),
        ("refused-token", "unauthorised", "is no good: HTTP error: 401 Unauthorized (***)"),
        ("abort", "crashed", "was ended by SIGABRT"),
        ("exit", "crashed", "ended with status 3"),
    ],
)
def test_a_join_that_fails_tells_why(name: str, kind: str, part: str) -> None:
    """Refused by the service or dead of the library: one exception, in time, and never the token."""

    async def script(room: DailyRoom, events: Events) -> None:
        error = await failure(room.open(Door(url(name) + "?t=s3cr3t", token="t0k3n")))
        assert (error.kind, error.outcome) == (kind, "refused")
        assert part in error.message
        for secret in ("s3cr3t", "t0k3n", TOKEN):
            assert secret not in error.message + repr(list(events))
        assert not events.of(RoomLost)

    play(script)


@pytest.mark.parametrize("name", ["never", "freeze"])
def test_a_join_that_never_ends_is_bounded(name: str) -> None:
    """Whether the library waits or holds the whole interpreter."""

    async def script(room: DailyRoom, events: Events) -> None:
        error = await failure(room.open(Door(url(name))))
        assert (error.kind, error.message) == ("silent", "joining the room took too long (0.2 s)")

    play(script, patience=Patience(join_s=0.2))


@pytest.mark.parametrize("name", ["never", "freeze"])
@pytest.mark.parametrize("how", ["close", "cancel"])
def test_joining_can_be_stopped_at_once(name: str, how: str) -> None:
    """A join cannot be cancelled, but its process can."""

    async def script(room: DailyRoom, events: Events) -> None:
        opening = asyncio.ensure_future(room.open(Door(url(name))))
        await asyncio.wait([opening], timeout=0.3)
        begin = time.monotonic()
        if how == "close":
            await room.close()
            assert (await failure(opening)).kind == "closed"
        else:
            opening.cancel()
            await asyncio.wait([opening])
            assert opening.cancelled()
        assert time.monotonic() - begin < 1
        assert room.pid is None or gone(room.pid)

    play(script)


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13])
def test_stopping_while_the_child_starts_leaves_nothing(turns: int) -> None:
    """A stop at any turn of the loop between the first and the last moment of starting."""

    async def script(room: DailyRoom, events: Events) -> None:
        opening = asyncio.ensure_future(room.open(Door(url("never"))))
        for _ in range(turns):
            await asyncio.wait([opening], timeout=0)
        opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled()

    play(script)


@pytest.mark.parametrize(
    ("fault", "message", "error"),
    [
        ("missing", "the Daily library cannot be used: No module named 'daily'", SetupError),
        ("abort-at-init", "was ended by SIGABRT: Execution context already exists", RoomFailure),
        ("freeze-at-init", "did not get ready (0.3 s)", RoomFailure),
    ],
)
def test_a_library_that_does_not_start_is_told(fault: str, message: str, error: type[Exception]) -> None:
    """Missing, aborting, or never coming back."""

    async def script(room: DailyRoom, events: Events) -> None:
        with pytest.raises(error) as caught:
            await room.open(Door(url("plain")))
        assert message in str(caught.value)

    play(script, env={"PYTHONDAILYFAULT": fault}, patience=Patience(ready_s=0.3 if fault == "freeze-at-init" else 10))


@pytest.mark.parametrize(
    ("fault", "cause"),
    [("abort", "was ended by SIGABRT"), ("segfault", "was ended by SIGSEGV"), ("ended", "the meeting has ended")],
)
def test_a_room_that_dies_is_an_event(fault: str, cause: str) -> None:
    """The run survives it: one `RoomLost` with the cause, and a message under way is ambiguous."""

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url("plain")))
        sent = room.send({"fault": fault})
        lost = await events.first(RoomLost)
        assert cause in lost.text
        assert lost.kind == ("other" if fault == "ended" else "crashed")
        if fault != "ended":
            assert (await failure(sent)).outcome == "ambiguous"
        assert events[-1] == lost

    play(script)


@pytest.mark.parametrize("moment", ["joining", "joined", "playing"])
def test_a_child_that_is_killed_is_an_event(moment: str) -> None:
    """Whoever kills it, whenever."""

    async def script(room: DailyRoom, events: Events) -> None:
        opening = asyncio.ensure_future(room.open(Door(url("never" if moment == "joining" else "plain"), microphone_hz=16_000)))
        if moment == "joining":
            while room.pid is None:
                await asyncio.wait([opening], timeout=0.01)
        else:
            await opening
        if moment == "playing":
            room.play("clip", bytes(320_000))
            await events.first(ClipStarted)
        assert room.pid is not None
        os.kill(room.pid, signal.SIGKILL)
        if moment == "joining":
            assert "SIGKILL" in (await failure(opening)).message
        else:
            assert "SIGKILL" in (await events.first(RoomLost)).text

    play(script)


@pytest.mark.parametrize("how", ["freeze", "stop"])
def test_a_child_that_stands_still_is_found_by_its_pulse(how: str) -> None:
    """A library that holds the interpreter's lock, or a process that was stopped, is lost within two beats, and killed."""

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url("plain")))
        assert room.pid is not None
        if how == "freeze":
            room.send({"fault": "freeze"})
        else:
            os.kill(room.pid, signal.SIGSTOP)
        lost = await events.first(RoomLost)
        assert (lost.kind, lost.text) == ("silent", "the room's process has not answered for 0.3 s")

    play(script, patience=Patience(beat_s=0.3))


def test_a_quiet_room_is_not_taken_for_dead() -> None:
    """Nothing but the pulse for five beats."""

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url("empty")))
        with pytest.raises(TimeoutError):
            await events.first(RoomLost, within_s=0.5)

    play(script, patience=Patience(beat_s=0.1))


def test_a_message_without_a_completion_is_ambiguous() -> None:
    """The library took it and never said what became of it; the next one goes its way."""

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url("plain")))
        error = await failure(room.send({"fault": "unanswered"}))
        assert (error.kind, error.outcome) == ("silent", "ambiguous")
        await room.send({"type": "next"})

    play(script, patience=Patience(send_s=0.2))


def test_a_refused_message_is_told_once() -> None:
    """By its own answer; the `on_error` that repeats it is dropped, any other one is told, without its token."""

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url("plain")))
        error = await failure(room.send({"fault": "refused"}))
        assert (error.outcome, error.message) == ("refused", "the room reported an error: AppMessage(Other)")
        error = await failure(room.send(None))
        assert (error.outcome, error.message) == ("refused", "the room reported an error: ValueError: None")
        await room.send({"fault": "warn"})
        assert (await events.first(Trouble)).text == "something about ***"
        assert len(events.of(Trouble)) == 1

    play(script)


def test_odd_messages_disturb_nobody() -> None:
    """No dictionary, not a number, a megabyte pass; what cannot be written as JSON is told."""

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url("plain")))
        await room.send({"fault": "odd"})
        trouble = await events.first(Trouble)
        messages = [event.message for event in events.of(AppMessage)]
        assert messages[:4] == [None, 7, "text", [1]]
        assert len(messages[5]["big"]) == 1_000_000
        assert "that is not JSON" in trouble.text
        await room.send({"type": "after"})

    play(script)


def test_a_flood_is_heard_to_its_end() -> None:
    """Ten thousand messages at once arrive, in order, and the room still answers."""

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url("plain")))
        await room.send({"fault": "flood", "count": 10_000})
        await events.first(AppMessage, count=10_000)
        assert [event.message["number"] for event in events.of(AppMessage)] == list(range(10_000))

    play(script)


def test_what_the_library_prints_or_gets_wrong_does_not_reach_the_lines() -> None:
    """Its prints go to standard error, a callback with a shape we do not know is told and the room lives on."""

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url("garbage")))
        await room.send({"type": "hello"})
        await events.first(AppMessage)
        (trouble,) = events.of(Trouble)
        assert trouble.text.startswith("in a callback: AttributeError")
        assert room._last_words == b"the library prints\n"

    play(script)


def test_a_library_that_does_not_leave_is_left() -> None:
    """`leave` that never completes costs a second, then the child goes."""

    async def script(room: DailyRoom, events: Events) -> None:
        await room.open(Door(url("plain")))
        begin = time.monotonic()
        await room.close()
        assert 0.5 < time.monotonic() - begin < 2

    play(script, env={"PYTHONDAILYFAULT": "stubborn"})


def test_a_child_that_cannot_be_started_is_a_problem_of_this_machine() -> None:
    """Not ours, not the vendor's."""

    async def main() -> None:
        with pytest.raises(SetupError, match="could not be started"):
            await DailyRoom([].append, {}, command=("/nonexistent/python",)).open(Door(url("plain")))

    run(main())


PARENT = """
import asyncio, os, sys
from playbook.clock import run
from playbook.transports.daily import DailyRoom
from playbook.transports.room import Door

async def main():
    room = DailyRoom(lambda event: None, os.environ)
    opening = asyncio.ensure_future(room.open(Door("https://standin.daily.co/" + sys.argv[1])))
    while room.pid is None or (sys.argv[1] == "plain" and not opening.done()):
        await asyncio.wait([opening], timeout=0.01)
    print(room.pid, flush=True)
    await asyncio.Event().wait()

run(main())
"""


@pytest.mark.parametrize("name", ["plain", "never", "freeze"])
def test_a_parent_that_is_killed_leaves_no_child(name: str) -> None:
    """Not when the child waits, and on Linux not even when the library holds it."""
    if name == "freeze" and sys.platform != "linux":
        name = "never"  # elsewhere only the end of standard input tells, and a frozen interpreter cannot hear it
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, name], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": PATHS}, text=True
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    deadline = time.monotonic() + 2
    while not gone(pid):
        assert time.monotonic() < deadline
        select.select([], [], [], 0.01)
