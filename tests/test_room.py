"""The room port over a real socket, against the emulators' room; and the rules that all rooms share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from playbook.clock import Clock, run
from playbook.emulators.room import Guest, serve_rooms
from playbook.transports.room import (
    MAX_MESSAGE_BYTES,
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
    SocketRoom,
    SoundHeard,
    Trouble,
    classify,
    encode,
    redact,
)
from tests.rooms import FACE, Events, Hall

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJyIjoiYyJ9.c2ln"


def play(
    script: Callable[[SocketRoom, Hall, Events, str], Awaitable[None]],
    answer: Callable[[Guest], None] = Guest.admit,
    patience: Patience | None = None,
) -> None:
    """Run `script` with a room that is not open yet, on the virtual clock."""

    async def main() -> None:
        hall, events = Hall(answer), Events()
        async with serve_rooms(hall) as url, asyncio.timeout(100_000):
            room = SocketRoom(events, patience)
            try:
                await script(room, hall, events, url + "c123")
            finally:
                await room.close()

    run(main(), "virtual")


async def failure(work: Awaitable[Any]) -> RoomFailure:
    with pytest.raises(RoomFailure) as caught:
        await work
    return caught.value


# --- joining, talking, leaving ------------------------------------------------------------------------------------------


def test_joins_talks_and_leaves() -> None:
    """The whole life of a room: who is there, messages both ways in order, and an end that the host sees."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        ours = await room.open(Door(url, token=JWT, name="runner"))
        guest = hall.guests[0]
        assert (guest.url, guest.token, guest.name) == (url, JWT, "runner")
        guest.tell("joined", FACE)
        guest.tell("updated", Participant("face-1", "Face"))
        await asyncio.gather(*(room.send({"number": number}) for number in range(100)))
        assert hall.heard == [{"number": number} for number in range(100)]
        guest.message({"type": "hello"}, "face-1")
        guest.tell("left", FACE, "leftCall")
        await events.first(ParticipantLeft)
        assert list(events) == [
            ParticipantJoined(Participant(ours, "runner", local=True)),
            ParticipantJoined(FACE),
            ParticipantUpdated(Participant("face-1", "Face")),
            AppMessage({"type": "hello"}, "face-1"),
            ParticipantLeft(FACE, "leftCall"),
        ]
        await room.close()
        assert hall.gone == [guest]

    play(script)


def test_a_closed_room_says_nothing_more() -> None:
    """What arrives while we leave reaches nobody, what is sent after it is refused, and closing twice is fine."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url))
        before = len(events)
        closing = asyncio.ensure_future(room.close())
        hall.guests[0].message("late", "face-1")
        hall.guests[0].expel("late, too")
        await closing
        await room.close()
        assert len(events) == before
        assert (await failure(room.send({}))).kind == "not-joined"

    play(script)


def test_a_room_is_entered_once() -> None:
    """One that was closed before it was opened stays closed; and what needs a room needs to be in it."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.close()
        assert (await failure(room.open(Door(url, microphone_hz=8000)))).kind == "closed"
        other = SocketRoom(events)
        await other.open(Door(url, microphone_hz=8000))
        await other.close()
        with pytest.raises(RoomFailure, match="not in the room"):
            other.play("a", b"")
        other.cut()
        other.listen("face-1")
        assert len(hall.guests) == 1

    play(script)


def test_a_refused_join_tells_why() -> None:
    """The library's words are kept, classified, and shown without the token; nothing is left connected."""

    def refuse(guest: Guest) -> None:
        guest.refuse(f"HTTP error: 401 for {JWT} and s3cr3t")

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        error = await failure(room.open(Door(f"{url}?t=s3cr3t", token=JWT)))
        assert (error.kind, error.outcome) == ("unauthorised", "refused")
        assert error.message == "the room refused us: HTTP error: 401 for *** and ***"
        assert events == []

    play(script, refuse)


@pytest.mark.parametrize(
    ("answer", "waited_ms", "kind"),
    [(lambda guest: None, 60_000, "silent"), (lambda guest: guest.drop(), 0, "closed")],
    ids=["no answer", "connection cut"],
)
def test_a_join_that_does_not_come_about_is_bounded(answer: Callable[[Guest], None], waited_ms: int, kind: str) -> None:
    """Nobody waits for ever at a door."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        clock = Clock()
        assert (await failure(room.open(Door(url)))).kind == kind
        assert clock.now_ms() == waited_ms
        assert events == []

    play(script, answer)


def test_joining_can_be_stopped() -> None:
    """By closing the room or by cancelling `open`: both at once, and the host sees the guest go."""

    async def closed(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        opening = asyncio.ensure_future(room.open(Door(url)))
        await hall.until(lambda hall: hall.guests)
        await room.close()
        assert (await failure(opening)).kind == "closed"

    async def cancelled(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        opening = asyncio.ensure_future(room.open(Door(url)))
        await hall.until(lambda hall: hall.guests)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        clock = Clock()
        await hall.until(lambda hall: hall.gone)
        assert clock.now_ms() == 0

    play(closed, lambda guest: None)
    play(cancelled, lambda guest: None)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("tcp://127.0.0.1:1/c", "unreachable"),
        ("tcp://example.org:80/c", "bad-url"),
        ("tcp://127.0.0.1/c", "bad-url"),
        ("tcp://127.0.0.1:99999/c", "bad-url"),
        ("https://127.0.0.1:80/c", "bad-url"),
        ("tcp://127.0.0.1:1/\0", "bad-url"),
        ("", "bad-url"),
    ],
)
def test_only_a_loopback_socket_is_a_rehearsal(url: str, kind: str) -> None:
    """A bad address is told as one, and no host but this is ever contacted in the clear."""

    async def script(room: SocketRoom, hall: Hall, events: Events, _: str) -> None:
        assert (await failure(room.open(Door(url)))).kind == kind

    play(script)


# --- losing it ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "lost"),
    [
        (lambda guest: guest.expel(f"the meeting has ended {JWT}"), RoomLost("other", "the meeting has ended ***")),
        (lambda guest: guest.drop(), RoomLost("closed", "the room's server ended the connection")),
    ],
    ids=["told", "cut"],
)
def test_a_lost_room_says_so_once(how: Callable[[Guest], None], lost: RoomLost) -> None:
    """One event, the last; a message under way is ambiguous, and the next one is refused."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url))
        hall.guests[0].silent = True
        pending = room.send({"type": "say"})
        await hall.until(lambda hall: hall.heard)
        hall.guests[0].silent = False
        how(hall.guests[0])
        event = await events.first(RoomLost)
        assert (event.kind, event.text.split(":")[0]) == (lost.kind, lost.text)
        assert (await failure(pending)).outcome == "ambiguous"
        assert (await failure(room.send({}))).kind == "not-joined"
        await room.close()
        assert events[-1] == event
        assert len(events.of(RoomLost)) == 1

    play(script)


def test_a_peer_that_does_not_answer_is_found_out() -> None:
    """A message without an answer is ambiguous after its bound; a peer without a pulse is lost at the next beat."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url))
        clock = Clock()
        await clock.sleep_until(61_000)  # it answers: nothing happens
        assert not events.of(RoomLost)
        hall.guests[0].silent = True
        error = await failure(room.send({}))
        assert (error.kind, error.outcome, clock.now_ms()) == ("silent", "ambiguous", 66_000)
        lost = await events.first(RoomLost, within_s=100)
        assert (lost.kind, clock.now_ms()) == ("silent", 75_000)

    play(script, patience=Patience(beat_s=7.5))


def test_an_answer_that_comes_too_late_changes_nothing() -> None:
    """The time-out has said `ambiguous`, and that stays the truth."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url))
        hall.guests[0].silent = True
        error = await failure(room.send({}))
        hall.guests[0].silent = False
        hall.guests[0].raw(b'{"on":"sent","n":1,"error":null}\n')
        await room.send({})
        assert error.outcome == "ambiguous"
        assert not events.of(Trouble)

    play(script)


# --- messages, good and bad ---------------------------------------------------------------------------------------------


def test_messages_are_bounded_before_they_are_sent() -> None:
    """4,095 bytes of UTF-8 pass; one more, or anything that is no JSON, is refused here and reaches nobody."""
    envelope = len(encode({"text": ""}))

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        assert (await failure(room.send({}))).kind == "not-joined"
        await room.open(Door(url))
        longest = {"text": "é" * ((MAX_MESSAGE_BYTES - envelope) // 2)}
        await room.send(longest)
        assert (await failure(room.send({"text": longest["text"] + "éé"}))).kind == "too-long"
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        for bad in ({"x": float("nan")}, {"x": b"bytes"}, {"x": "\ud800"}, deep):
            error = await failure(room.send(bad))
            assert (error.kind, error.outcome) == ("other", "refused")
        assert hall.heard == [longest]

    play(script)


def test_a_refused_message_tells_why() -> None:
    """The room's own words, as a refusal: it was surely not delivered."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url))
        hall.refusal = f"no {JWT}"
        error = await failure(room.send({}))
        assert (error.kind, error.outcome, error.message) == ("other", "refused", "the room reported an error: no ***")

    play(script)


def test_nobody_can_be_flooded_with_unanswered_messages() -> None:
    """A thousand wait at most; the next is refused at once."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url))
        hall.guests[0].silent = True
        pending = [room.send(number) for number in range(1001)]
        assert [future.done() for future in pending] == [False] * 1000 + [True]
        assert (await failure(pending[-1])).kind == "silent"

    play(script)


def test_any_json_is_a_message() -> None:
    """No dictionary, no type, a megabyte, not a number: all are handed on, none disturbs."""
    messages: list[Any] = [None, 7, "text", [1], {}, {"big": "é\u0000" * 500_000}]

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url))
        for message in messages:
            hall.guests[0].message(message, "face-1")
        await events.first(AppMessage, count=len(messages))
        assert [event.message for event in events.of(AppMessage)] == messages

    play(script)


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b"7",
        b'{"on":"unheard-of"}',
        b'{"on":"message"}',
        b'{"on":"sound","participant":"p","pcm":"?","hz":1}',
        b'{"on":"sound","participant":"p","pcm":"AAAA","hz":16000}',
        b'{"on":"sound","participant":"p","pcm":"AAA=","hz":0}',
        b'{"on":"sent","n":"one"}',
        b'{"on":"started"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b"",
    ],
)
def test_a_line_that_makes_no_sense_is_trouble_and_no_more(line: bytes) -> None:
    """It is told for the log, bounded, and the next line is heard."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url))
        hall.guests[0].raw(line + b"\n")
        hall.guests[0].message("after", "")
        await events.first(AppMessage)
        (trouble,) = events.of(Trouble)
        assert trouble.text.startswith("an unreadable line: ")
        assert len(trouble.text) < 700

    play(script)


@pytest.mark.parametrize("at", ["1e999", "-1e999", "NaN", "9" * 400, "-1e300", '"soon"'])
def test_a_time_that_no_clock_shows_is_none(at: str) -> None:
    """What is said at such a time is heard, as if it were said now."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url))
        hall.guests[0].raw(f'{{"on":"started","clip":"x","at":{at}}}\n'.encode())
        assert await events.first(ClipStarted) == ClipStarted("x")

    play(script)


def test_a_line_without_end_loses_the_room() -> None:
    """Memory is bounded whatever the other side does."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url))
        hall.guests[0].raw(b"x" * (17 * 1024 * 1024))
        assert (await events.first(RoomLost)).text == "the room sent a line without end"

    play(script)


def test_the_room_of_an_emulator_cuts_who_does_not_speak_its_lines() -> None:
    """A stranger's bytes end that connection and no other."""

    async def main() -> None:
        async with serve_rooms(Hall()) as url:
            port = int(url.rsplit(":", 1)[1].strip("/"))
            for stranger in (b"GET / HTTP/1.1\r\n\r\n", b'{"do":"join"}\n', b'{"do":"send","n":1}\n', b"\xff\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                assert json.loads(await reader.readline()) == {"on": "ready"}
                writer.write(stranger)
                with pytest.raises(ConnectionResetError):
                    await reader.read() or _reset()
                writer.close()

    def _reset() -> None:
        raise ConnectionResetError

    run(main(), "virtual")


# --- sound --------------------------------------------------------------------------------------------------------------


def test_sound_is_played_in_time_and_told_exactly() -> None:
    """Two clips, one in pieces: both starts and ends come when they are heard, and what came out is what went in."""
    hz = 24_000
    one, two = b"\1\0" * (hz // 2), b"\2\0" * hz

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url, microphone_hz=hz))
        clock = Clock()
        room.play("one", one)
        room.play("two", two[:1000], final=False)
        room.play("two", two[1000:])
        assert (await events.first(ClipEnded)) == ClipEnded("one", 500, interrupted=False)
        assert clock.now_ms() == pytest.approx(500, abs=1)
        assert (await events.first(ClipEnded, count=2)) == ClipEnded("two", 1000, interrupted=False)
        assert clock.now_ms() == pytest.approx(1500, abs=1)
        assert [event.clip for event in events.of(ClipStarted)] == ["one", "two"]
        assert bytes(hall.sound).rstrip(b"\0") == (one + two).rstrip(b"\0")

    play(script)


def test_a_cut_stops_all_that_is_queued_and_counts_what_was_heard() -> None:
    """Each clip ends once: the one under way with its milliseconds, those never begun with zero, also those not sent yet; and the next
    clip plays as if nothing had been."""
    hz = 16_000

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url, microphone_hz=hz))
        clock = Clock()
        for name in ("a", "b", "c"):
            room.play(name, b"\1\0" * hz * 5)
        await clock.sleep_until(3_210)
        room.cut()
        await events.first(ClipEnded, count=3)
        assert [(event.clip, event.interrupted) for event in events.of(ClipEnded)] == [("a", True), ("b", True), ("c", True)]
        played = [event.played_ms for event in events.of(ClipEnded)]
        assert played[0] == pytest.approx(3_210, abs=40)
        assert played[1:] == [0, 0]
        room.cut()  # nothing is playing: nothing happens
        room.play("d", b"\2\0" * hz * 30)
        assert await events.first(ClipEnded, count=4, within_s=60) == ClipEnded("d", 30_000, interrupted=False)
        assert clock.now_ms() == pytest.approx(33_250, abs=40)
        assert hall.sound.count(b"\2\0") == hz * 30

    play(script)


def test_sound_is_sent_a_second_ahead_and_no_more() -> None:
    """A long sound never piles up on the way."""
    hz = 24_000

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url, microphone_hz=hz))
        written = 0
        original = room._write_piece

        def counted(clip: str, pcm: bytes | memoryview, *, final: bool) -> None:
            nonlocal written
            written += len(pcm)
            assert written - len(hall.sound) <= hz * 2 * 11 // 10
            original(clip, pcm, final=final)

        room._write_piece = counted  # type: ignore[method-assign]  # watched, not replaced
        room.play("long", b"\1\0" * hz * 60)
        ended = await events.first(ClipEnded, within_s=61)
        assert ended == ClipEnded("long", 60_000, interrupted=False)
        assert written == hz * 2 * 60

    play(script)


def test_empty_sound_is_a_clip_too() -> None:
    """It starts and ends."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url, microphone_hz=8000))
        room.play("nothing", b"")
        assert await events.first(ClipEnded) == ClipEnded("nothing", 0, interrupted=False)
        assert events.of(ClipStarted) == [ClipStarted("nothing")]

    play(script)


def test_sound_that_cannot_be_played_is_our_bug() -> None:
    """Odd bytes, no microphone, a rate that does not divide: told to the programmer at once."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url))
        with pytest.raises(ValueError, match="without a microphone"):
            room.play("a", b"")

    play(script)
    with pytest.raises(ValueError, match="22050"):
        Door("tcp://127.0.0.1:1/c", microphone_hz=22_050)


def test_only_who_is_listened_to_is_heard() -> None:
    """Sound comes from the participant that was asked for, from then on."""

    async def script(room: SocketRoom, hall: Hall, events: Events, url: str) -> None:
        await room.open(Door(url, listen=True))
        guest = hall.guests[0]
        guest.sound("face-1", b"\1\0", 16_000)
        room.listen("face-1")
        await room.send("now")
        guest.sound("face-1", b"\2\0", 16_000)
        guest.sound("face-2", b"\3\0", 16_000)
        guest.message("end", "")
        await events.first(AppMessage)
        assert events.of(SoundHeard) == [SoundHeard("face-1", b"\2\0", 16_000)]

    play(script)


# --- texts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('Failed to parse url: InvalidUrl("x", RelativeUrlWithoutBase)', "bad-url"),
        ("Connection(Api(RoomLookup(RoomInfoFetchFailed(Get(Error(Connect, failed to lookup address information", "unresolved"),
        ("RoomInfoFetchFailed(Get(hyper_util::client::legacy::Error(Connect, Elapsed(())))", "stalled"),
        ("RoomInfoFetchFailed(Get(Error(Connect, InvalidCertificate(UnknownIssuer))))", "certificate"),
        ('RoomInfoFetchFailed(IoError(Custom { kind: Other, error: "HTTP error: 404 Not Found" }))', "not-found"),
        ('RoomInfoFetchFailed(IoError(Custom { kind: Other, error: "HTTP error: 403 Forbidden" }))', "unauthorised"),
        ('RoomInfoFetchFailed(IoError(Custom { kind: Other, error: "HTTP error: 503" }))', "server"),
        ("RoomInfoFetchFailed(Get(Error(Connect, ConnectionRefused)))", "unreachable"),
        ("AppMessage(Signalling(ChannelNotOpen))", "not-joined"),
        ("something new", "other"),
    ],
)
def test_the_librarys_errors_are_classified(text: str, kind: str) -> None:
    """By fragments, as measured; what is unknown is `other` and keeps its text."""
    assert classify(text) == kind


def test_tokens_are_removed_from_texts() -> None:
    """The one we were given, whatever looks like one, and those in URLs."""
    assert redact(f"a {JWT} b https://x.daily.co/r?t=abc&u=1 s3cr3t", ("s3cr3t",)) == "a *** b https://x.daily.co/r?t=***&u=1 ***"
    assert JWT not in repr(Door("https://x.daily.co/r", token=JWT))
