"""The Daily room's child process with the real native library, as far as that goes without its servers.

Its lookup of a room is the one request that a loopback server can answer (through `proxy`); nothing here goes further than this machine."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import daily
import pytest
import trustme

from playbook.clock import run
from playbook.transports.daily import DailyRoom
from playbook.transports.room import Door, Patience, RoomFailure
from tests.rooms import Events

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJyIjoiYyJ9.c2ln"
URL = "https://tavus.daily.co/c123"

SIGNATURES = {
    "CallClient": "(event_handler=None)",
    "CallClient.set_user_name": "($self, user_name)",
    "CallClient.set_proxy_url": "($self, proxy_url=None, completion=None)",
    "CallClient.update_subscription_profiles": "($self, profile_settings, completion=None)",
    "CallClient.join": "($self, meeting_url, meeting_token=None, client_settings=None, completion=None)",
    "CallClient.send_app_message": "($self, message, participant_id=None, completion=None)",
    "CallClient.add_custom_audio_track": "($self, track_name, audio_track, ignore_audio_level=None, completion=None)",
    "CallClient.set_audio_renderer": (
        '($self, participant_id, callback, audio_source="microphone", sample_rate=16000, callback_interval_ms=20, '
        "logging_interval_ms=10000)"
    ),
    "CallClient.leave": "($self, completion=None)",
    "Daily.init": "(worker_threads=2, log_level=...)",
    "CustomAudioSource": "(sample_rate, channels, auto_silence=True)",
    "CustomAudioSource.write_frames": "($self, frames, completion=None)",
    "CustomAudioTrack": "(audio_source)",
    "EventHandler.on_app_message": "($self, message, sender)",
    "EventHandler.on_participant_joined": "($self, participant)",
    "EventHandler.on_participant_updated": "($self, participant)",
    "EventHandler.on_participant_left": "($self, participant, reason)",
    "EventHandler.on_call_state_updated": "($self, state)",
    "EventHandler.on_error": "($self, message)",
    "EventHandler.on_network_connection_status_updated": "($self, status)",
}


async def failure(work: Awaitable[Any]) -> RoomFailure:
    with pytest.raises(RoomFailure) as caught:
        await work
    return caught.value


def enter(script: Callable[[Callable[..., DailyRoom]], Awaitable[None]]) -> None:
    """Run `script` with a maker of rooms; all of them are closed within two seconds and their children end as asked or by our kill."""

    async def main() -> None:
        rooms: list[DailyRoom] = []

        def make(events: Events | None = None, patience: Patience | None = None, **env: str) -> DailyRoom:
            rooms.append(DailyRoom(events if events is not None else Events(), {**os.environ, **env}, patience))
            return rooms[-1]

        try:
            async with asyncio.timeout(20):
                await script(make)
        finally:
            begin = time.monotonic()
            await asyncio.gather(*(room.close() for room in rooms))
            assert time.monotonic() - begin < 2
            for room in rooms:
                assert room._process is not None
                assert room._process.get_returncode() in (0, -9)

    run(main())


# --- what we rely on ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_library_has_what_we_call(name: str) -> None:
    """At run time, where it counts: its stubs say other things."""
    thing: Any = daily
    for part in name.split("."):
        thing = getattr(thing, part)
    assert thing.__text_signature__ == SIGNATURES[name]


def test_every_call_of_the_child_is_in_the_table() -> None:
    """So that a new call is checked, too."""
    source = (Path(__file__).parent.parent / "playbook/transports/daily_child.py").read_text()
    calls = set(re.findall(r"self\._client\.(\w+)\(", source)) | set(re.findall(r"def (on_\w+)\(", source))
    calls |= set(re.findall(r"(?:self\._daily|daily)\.(?:Daily\.)?(\w+)\(", source)) | set(re.findall(r"_source\.(\w+)\(", source))
    assert calls == {name.split(".")[-1] for name in SIGNATURES}
    for field in ("audio_frames", "num_audio_frames", "sample_rate"):
        assert hasattr(daily.AudioData, field)


def native(code: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, with the library initialised and the child's module at hand."""
    start = "import os, threading, time, daily\nfrom playbook.transports import daily_child\ndaily.Daily.init()\n"
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("misuse", ["daily.Daily.init()", "client = daily.CallClient(); daily.Daily.deinit(); client.release()"])
def test_misuse_of_the_library_ends_its_process(misuse: str) -> None:
    """The reason why it has one of its own: no exception, no `finally`."""
    assert native(f"try:\n    {misuse}\nexcept BaseException:\n    print('caught')").returncode == -6


def test_a_refused_message_is_answered_and_repeated_by_on_error() -> None:
    """What the child's filter of `Error handling …` rests on: an unjoined client refuses in the completion, and says it once more."""
    done = native(
        """
texts, both = [], threading.Semaphore(0)
class Handler(daily.EventHandler):
    def on_error(self, message):
        texts.append("on_error " + message); both.release()
client = daily.CallClient(event_handler=Handler())
client.send_app_message({"a": 1}, None, completion=lambda error: (texts.append("completion " + error), both.release()))
both.acquire(timeout=5); both.acquire(timeout=5)
print("\\n".join(sorted(texts)), flush=True)
os._exit(0)
"""
    )
    assert done.stdout.splitlines() == [
        "completion AppMessage(Signalling(ChannelNotOpen))",
        "on_error Error handling sendAppMessage: AppMessage(Signalling(ChannelNotOpen))",
    ]


def test_the_audio_source_keeps_the_time() -> None:
    """The child's player on the real source: a clip of 600 ms takes that long, a cut ends the next one by what went out, all in order,
    and the process ends with writes pending."""
    done = native(
        """
lines, ended = [], threading.Semaphore(0)
class Outbox:
    def say(self, on, **rest):
        if on != "taken":
            lines.append((on, rest)); ended.release() if on == "ended" else None
source = daily.CustomAudioSource(24000, 1)
track = daily.CustomAudioTrack(source)
player = daily_child.Player(source, 24000, Outbox())
player.start()
player.add("one", bytes(24000 * 2 * 6 // 10), final=True, era=0)
player.add("two", bytes(24000 * 2 * 9), final=True, era=0)
ended.acquire(timeout=5)
threading.Event().wait(0.2)
player.cut()
ended.acquire(timeout=5)
for on, rest in lines:
    print(on, rest["clip"], rest["at"], rest.get("played_ms"), rest.get("interrupted"))
os.sys.stdout.flush()
os._exit(0)
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = [line.split() for line in done.stdout.splitlines()]
    assert [line[:2] for line in said] == [["started", "one"], ["ended", "one"], ["started", "two"], ["ended", "two"]]
    began, ended, began_two, ended_two = (float(line[2]) * 1000 for line in said)
    assert ended - began == pytest.approx(600, abs=60)
    assert said[1][3:] == ["600", "False"]
    assert began_two - ended == pytest.approx(0, abs=60)
    assert int(said[3][3]) == pytest.approx(ended_two - began_two, abs=60)
    assert said[3][4] == "True"


# --- our child, with the real library -----------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "nonsense", "c123?t=" + TOKEN])
def test_a_malformed_url_is_refused_at_once(url: str) -> None:
    """By the library, in its words, without the token."""

    async def script(make: Callable[..., DailyRoom]) -> None:
        events = Events()
        error = await failure(make(events).open(Door(url, token=TOKEN)))
        assert error.kind == "bad-url"
        assert "InvalidUrl" in error.message
        assert TOKEN not in error.message + repr(list(events))

    enter(script)


def test_a_file_named_like_the_library_is_not_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the folder of a playbook is never run."""
    (tmp_path / "daily.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)

    async def script(make: Callable[..., DailyRoom]) -> None:
        assert (await failure(make().open(Door("nonsense")))).kind == "bad-url"

    enter(script)


def test_a_door_with_a_microphone_is_no_trouble() -> None:
    """Source, track and settings are taken by the library; the join then fails by its URL alone."""

    async def script(make: Callable[..., DailyRoom]) -> None:
        for track in ("microphone", "stream"):
            assert (await failure(make().open(Door("nonsense", microphone_hz=24_000, track=track, listen=True)))).kind == "bad-url"

    enter(script)


@asynccontextmanager
async def proxy(folder: Path, answer: str | None) -> AsyncIterator[tuple[str, str, list[str]]]:
    """A loopback proxy that speaks TLS and answers every request, or none: its URL, its authority's file, and the requests."""
    authority, requests = trustme.CA(), []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n") if answer is not None else await reader.read()
            requests.append(request.decode(errors="replace"))
            if answer is not None:
                writer.write(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context if answer is not None else None)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", str(folder / "ca.pem"), requests
    finally:
        server.close()
        await server.wait_closed()


def test_a_lookup_that_is_refused_tells_its_status(tmp_path: Path) -> None:
    """401, 404 and 500, from the real library to our kinds; the token went to the service and into no text."""
    expected = {"401 Unauthorized": "unauthorised", "404 Not Found": "not-found", "500 Internal Server Error": "server"}

    folders = {status: tmp_path / status[:3] for status in expected}
    for folder in folders.values():
        folder.mkdir()

    async def one(make: Callable[..., DailyRoom], status: str, folder: Path) -> None:
        events = Events()
        async with proxy(folder, status) as (url, authority, requests):
            error = await failure(make(events, SSL_CERT_FILE=authority).open(Door(URL, token=TOKEN, proxy=url)))
            assert (error.kind, error.outcome) == (expected[status], "refused")
            assert f"HTTP error: {status}" in error.message
            assert "rooms/check/tavus/c123" in requests[0]
            assert TOKEN in requests[0]
            assert TOKEN not in error.message + repr(list(events))

    async def script(make: Callable[..., DailyRoom]) -> None:
        await asyncio.gather(*(one(make, status, folders[status]) for status in expected))

    enter(script)


@pytest.mark.parametrize("where", ["stalled", "closed port", "unresolvable"])
def test_a_join_that_hangs_is_bounded_and_can_be_stopped(where: str, tmp_path: Path) -> None:
    """The library would take 19 to 49 seconds; our bound holds, and so does a stop in the middle."""

    async def script(make: Callable[..., DailyRoom]) -> None:
        async with proxy(tmp_path, None) as (stalled, _, _):
            url = {"stalled": stalled, "closed port": "https://127.0.0.1:1", "unresolvable": "https://nowhere.invalid"}[where]
            bounded = make(patience=Patience(join_s=0.5)).open(Door(URL, proxy=url))
            stopped = make()
            opening = asyncio.ensure_future(stopped.open(Door(URL, proxy=url)))
            assert (await failure(bounded)).message == "joining the room took too long (0.5 s)"
            await stopped.close()
            assert (await failure(opening)).kind == "closed"

    enter(script)


def test_the_child_ends_with_its_standard_input() -> None:
    """Idle or joining: no hang, no abort, nothing on standard error."""
    command = [sys.executable, "-m", "playbook.transports.daily_child"]
    join = '{"do":"join","url":"%s","token":null,"name":"n","microphone_hz":24000,"track":"microphone","listen":false,"proxy":"%s"}\n'
    for lines in ("", join % (URL, "https://127.0.0.1:1"), '{"do":"send","n":1,"message":{}}\n', '{"do":"leave"}\n'):
        begin = time.monotonic()
        done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=10)
        assert (done.returncode, done.stderr) == (0, "")
        assert '"on":"ready"' in done.stdout
        assert time.monotonic() - begin < 2


def test_a_message_before_the_join_is_refused_by_the_library() -> None:
    """Through the child's own lines: our port would not let it out."""
    with subprocess.Popen(
        [sys.executable, "-m", "playbook.transports.daily_child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write('{"do":"send","n":1,"message":{"a":1}}\n{"do":"send","n":2,"message":null}\n{"do":"ping"}\n')
        lines = {child.stdout.readline().split(',"at"')[0] for _ in range(4)}
        child.stdin.close()
        assert lines == {
            '{"on":"ready"',
            '{"on":"pong"',
            '{"on":"sent","n":1,"error":"AppMessage(Signalling(ChannelNotOpen))"',
            '{"on":"sent","n":2,"error":"ValueError: invalid app message \'None\'"',
        }


def test_a_line_we_never_write_ends_the_child() -> None:
    """A bug of ours must not look alive."""
    done = subprocess.run(
        [sys.executable, "-m", "playbook.transports.daily_child"], input="nonsense\n", capture_output=True, text=True, timeout=10
    )
    assert done.returncode == 70
    assert "JSONDecodeError" in done.stderr
