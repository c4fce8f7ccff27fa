"""The stage's server: signals, state, the file that is edited, and the attempts to get in that must fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from playbook.stage.guard import Guard

from .logs import checked
from .stages import SHOW, Stage, staging, until


@pytest.fixture(scope="module")
def lobby(tmp_path_factory: pytest.TempPathFactory, speech_cache: Path) -> Iterator[Stage]:
    """A stage that all tests of this file share; each leaves it with nothing performed."""
    folder = tmp_path_factory.mktemp("stage")
    (folder / "lobby.yaml").write_text(SHOW, "utf-8")
    with staging(folder / "lobby.yaml", "--out", str(folder / "shows"), cache=speech_cache) as stage:
        yield stage


@pytest.fixture
def stage(lobby: Stage) -> Iterator[Stage]:
    yield lobby
    if lobby.state()["phase"] != "idle":
        lobby.signal("end")
        lobby.until_phase("idle")


def talk(stage: Stage, path: str, *messages: str, **options: Any) -> list[Any]:
    """What a socket says until it has said nothing for a moment, or is closed; the last entry is then the code."""

    async def converse() -> list[Any]:
        heard: list[Any] = []
        async with connect(stage.base.replace("http", "ws") + path, **options) as link:
            for message in messages:
                await link.send(message)
            try:
                while True:
                    heard.append(await asyncio.wait_for(link.recv(), 0.4))
            except TimeoutError:
                return heard
            except ConnectionClosed as closed:
                return [*heard, closed.rcvd.code if closed.rcvd else None]

    return asyncio.run(converse())


# --- performing -------------------------------------------------------------------------------------------------------------


def test_it_performs_on_every_go(stage: Stage):
    """Go, and again go: two performances, each with a whole log in a numbered folder; between them the state is idle."""
    for _ in range(2):
        assert stage.signal("go") == (204, "")
        until(lambda: stage.state()["awaits"] == "next", "the show waits for its trigger")
        assert stage.signal("next") == (204, "")
        stage.until_phase("idle")
        result = stage.state()["result"]
        assert (result["end"], result["exit_code"]) == ("passed", 0)
        lines = checked(Path(result["folder"]))
        assert {line["trigger"] for line in lines if line.get("event") == "trigger"} == {"next"}
    numbers = sorted(int(folder.name) for folder in Path(result["folder"]).parent.iterdir())
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_state_follows_the_show(stage: Stage):
    """While a line is heard its step is running and speaking, and the next one stands by; afterwards it has its grade."""
    before = stage.state()
    assert (before["phase"], before["step"], before["next"], before["at_ms"]) == ("idle", None, "hello", None)
    stage.signal("go")
    until(lambda: stage.step("hello")["speaking"], "the line is heard")
    state = stage.state()
    assert (state["phase"], state["step"], state["next"], state["session"]["id"]) == ("running", "hello", "wait-2", "local")
    assert [step["band_ms"] for step in state["steps"]] == [0, 0, 0, 0, None, None], "behind a trigger no time is known"
    assert {step["id"]: step["state"] for step in state["steps"]} == {
        "hello": "running",
        "wait-2": "standby",
        "long": "pending",
        "wait-4": "pending",
        "bye": "pending",
        "end-6": "pending",
    }
    until(lambda: stage.state()["step"] == "wait-2", "the line is over")
    hello = stage.step("hello")
    assert (hello["state"], hello["speaking"], hello["evidence"]) == ("done", False, "reported")


def test_what_means_nothing_is_refused_with_its_reason(stage: Stage):
    """Signals that nothing waits for: 409 and why; a step that is not there; a name that is none; a body that is no JSON."""
    assert stage.signal("skip") == (409, "nothing is being performed")
    assert stage.signal("goto", "nowhere") == (409, "there is no step 'nowhere'")
    assert stage.signal("go%00") == (400, "that is no name of a signal")
    assert stage.request("/api/signal/goto", method="POST", body=b"{")[0] == 400
    assert stage.request("/api/signal/goto", method="POST", body=b"x" * 5000)[0] == 400
    assert stage.request("/api/signal/go")[0] == 405, "a link or an image gives no signal"
    stage.signal("go")
    stage.until_phase("running")
    status, reason = stage.signal("go")
    assert status == 409
    assert reason
    assert stage.state()["phase"] == "running"


def test_machines_hear_every_line_of_the_log(stage: Stage):
    """`/api/events` gives the lines of the log as they are written."""

    async def listen() -> list[dict[str, Any]]:
        async with connect(stage.base.replace("http", "ws") + "/api/events") as link:
            await asyncio.to_thread(stage.signal, "go")
            lines = []
            while not lines or lines[-1].get("note") != "timeline_zero":
                lines.append(json.loads(await asyncio.wait_for(link.recv(), 10)))
            return lines

    lines = asyncio.run(listen())
    assert "runlog" in lines[0]
    assert [line["n"] for line in lines[1:]] == list(range(1, len(lines)))
    assert any(line.get("event") == "session_opened" for line in lines)


def test_a_page_hears_sound_and_captions_and_a_late_one_what_sounds_already(stage: Stage):
    """A page gets the line's WAV with its place on the server's clock; one that joins in the middle gets the same sound and caption."""
    stage.signal("go")
    until(lambda: stage.step("long")["speaking"], "the long line is heard")
    heard = talk(stage, "/api/audience", '{"page": "late"}', '{"type": "ping", "at": 5}')
    texts = [json.loads(each) for each in heard if isinstance(each, str)]
    sounds = [each for each in heard if isinstance(each, bytes)]
    assert [each["text"][:9] for each in texts if each["type"] == "caption"] == ["This is a"]
    header = json.loads(sounds[0][4 : 4 + int.from_bytes(sounds[0][:4], "big")])
    pong = next(each for each in texts if each["type"] == "pong")
    assert sounds[0][4 + int.from_bytes(sounds[0][:4], "big") :][:4] == b"RIFF"
    assert 0 < pong["now"] - header["start"] < header["to"], "it began before now, and is not over"


def test_an_edited_file_is_the_next_performance_and_problems_come_with_carets(tmp_path: Path, speech_cache: Path):
    """While a show goes on the file is edited: what is performed stays; a mistake is shown with its caret and go is refused; mended, the
    next performance is the edited one."""
    file = tmp_path / "edited.yaml"
    file.write_text(SHOW, "utf-8")
    with staging(file, cache=speech_cache) as stage:
        stage.signal("go")
        stage.until_phase("running")
        file.write_text(SHOW.replace("    id: bye", "    untill: started\n    id: bye"), "utf-8")
        problems = until(lambda: stage.state()["problems"], "the mistake is shown")
        assert problems[0]["code"] == "PB203"
        assert "^^^^^^ did you mean 'until'?" in problems[0]["text"]
        assert stage.state()["phase"] == "running", "what is performed goes on"
        stage.signal("end")
        stage.until_phase("idle")
        assert stage.signal("go") == (409, "the playbook has problems")
        file.write_text(SHOW.replace("dear friend", "dear Ada"), "utf-8")
        until(lambda: "dear Ada" in stage.step("hello")["text"], "the edited playbook stands by")
        assert stage.state()["problems"] == []
        stage.signal("go")
        until(lambda: stage.step("hello")["speaking"], "the edited line is heard")


def test_ctrl_c_ends_the_show_in_order_and_the_stage(tmp_path: Path, speech_cache: Path):
    """SIGINT in the middle of a line: the log is whole, the exit code 130; between shows as well."""
    file = tmp_path / "lobby.yaml"
    file.write_text(SHOW, "utf-8")
    with staging(file, "--out", str(tmp_path / "out"), cache=speech_cache) as stage:
        stage.signal("go")
        stage.until_phase("running")
        assert stage.stop() == 130
    assert checked(tmp_path / "out" / "1")[-1]["end"] == "stopped"
    with staging(file, cache=speech_cache) as stage:
        assert stage.stop() == 130


# --- attempts to get in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::1", "evil.example:80"])
def test_a_name_that_leads_here_is_not_ours(stage: Stage, host: str):
    """DNS rebinding: a request whose `Host` is somebody else's name is refused, whatever it asks for."""
    port = int(stage.base.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(f"POST /api/signal/go HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        assert re.match(rb"HTTP/1.1 40[03] ", raw.makefile("rb").read())
    assert stage.state()["phase"] == "idle"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "file://", "http://127.0.0.1:1"])
def test_a_page_in_another_tab_can_do_nothing(stage: Stage, origin: str):
    """Cross-site requests and sockets: 403, and nothing is performed."""
    assert stage.signal("go", Origin=origin)[0] == 403
    assert stage.request("/api/state", Origin=origin)[0] == 403
    for path in ("/api/audience", "/api/operator", "/api/events"):
        with pytest.raises(InvalidStatus) as refused:
            talk(stage, path, additional_headers={"Origin": origin})
        assert refused.value.response.status_code == 403
    assert stage.state()["phase"] == "idle"


def test_two_hosts_or_two_origins_are_none(stage: Stage):
    """A request that says two things is refused."""
    own = stage.base.removeprefix("http://")
    port = int(own.rpartition(":")[2])
    for doubled in (f"Host: {own}\r\nHost: evil.example", f"Host: {own}\r\nOrigin: {stage.base}\r\nOrigin: http://evil.example"):
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(f"GET /api/state HTTP/1.1\r\n{doubled}\r\nConnection: close\r\n\r\n".encode())
            assert re.match(rb"HTTP/1.1 40[03] ", raw.makefile("rb").read())


def test_pages_forbid_what_they_do_not_need(stage: Stage):
    """The content policy has no `unsafe-inline`, no other host, no frame; pages name no other host and have no inline script or style."""
    for path in ("/", "/operator"):
        status, text, headers = stage.request(path)
        policy = headers["content-security-policy"]
        assert status == 200
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"https?://(?!www\.w3\.org)", text)
        assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", text)
        assert (headers["referrer-policy"], headers["x-content-type-options"]) == ("no-referrer", "nosniff")


def test_only_the_pages_files_are_served(stage: Stage):
    """No path leads out of the folder of pages, and templates are not served."""
    for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py", "/static/audience.html", "/static/", "/x"):
        assert stage.request(path)[0] in (404, 405), path
    assert stage.request("/static/face.js")[0] == 200


def test_a_hostile_name_does_not_become_markup(tmp_path: Path, speech_cache: Path):
    """The playbook's name stands in both pages as text."""
    file = tmp_path / "evil.yaml"
    file.write_text(SHOW.replace("name: lobby", 'name: "</title><script>alert(1)</script>"'), "utf-8")
    with staging(file, cache=speech_cache) as stage:
        for path in ("/", "/operator"):
            assert "<script>alert" not in stage.request(path)[1]


def test_off_this_machine_everything_needs_the_token(tmp_path: Path, speech_cache: Path):
    """With `--host`, the printed addresses end with a token of 128 bits; without it, or with another one, state, signals and sockets are
    refused; the pages themselves hold nothing."""
    file = tmp_path / "lobby.yaml"
    file.write_text(SHOW, "utf-8")
    with staging(file, "--host", "0.0.0.0", cache=speech_cache) as stage:
        port = stage.base.rpartition(":")[2]
        token, stage.base = stage.token, f"http://127.0.0.1:{port}"
        assert token is not None
        assert len(token) >= 22
        for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {token}"}, {"Authorization": f"Bearer {token[:-1]}"}):
            assert stage.request("/api/state", **wrong)[0] == 401
            assert stage.signal("go", **wrong)[0] == 401
        assert stage.request(f"/api/state?token={token}")[0] == 401, "an address is no place for a secret"
        for path in ("/api/audience", "/api/operator", "/api/events"):
            assert talk(stage, path, "{}") == [4401]
            assert talk(stage, path, json.dumps({"token": "x"})) == [4401]
            assert talk(stage, path, "[]") == [4401]
        own = {"Authorization": f"Bearer {token}"}
        assert stage.state(**own)["phase"] == "idle"
        assert talk(stage, "/api/operator", json.dumps({"token": token}))[0]
        assert token not in stage.request("/")[1] + stage.request("/operator")[1]
        assert stage.signal("go", **own)[0] == 204
        until(lambda: stage.state(**own)["phase"] == "running", "it is performed")
        assert stage.request("/api/state", Host="evil.example", **own)[0] == 403
    assert token not in (tmp_path / "stderr.txt").read_text()
    assert all(token not in path.read_text("utf-8", "replace") for path in (tmp_path / "runs").rglob("*") if path.is_file())


def test_the_token_is_compared_in_constant_time_and_new_each_time():
    """Two servers have two tokens; loopback has none; what is no text is no token."""
    first, second = Guard.of("0.0.0.0"), Guard.of("0.0.0.0")
    assert first.token != second.token
    assert Guard.of("127.0.0.1").token is Guard.of("::1").token is Guard.of("localhost").token is None
    assert first.lets_in(first.token)
    assert not any(first.lets_in(each) for each in (None, "", second.token, 5, [first.token]))


def test_a_hundred_sockets_and_no_more(stage: Stage):
    """The hundred and first socket is turned away, and those that are there go on working."""

    async def crowd() -> tuple[int | None, bool]:
        url = stage.base.replace("http", "ws") + "/api/operator"
        async with contextlib.AsyncExitStack() as there:
            links = [await there.enter_async_context(connect(url)) for _ in range(100)]
            for link in links:
                await link.send("{}")
            for link in links:
                await asyncio.wait_for(link.recv(), 10)
            async with connect(url) as late:
                try:
                    await late.send("{}")
                    await asyncio.wait_for(late.recv(), 10)
                except ConnectionClosed as closed:
                    refused = closed.rcvd.code if closed.rcvd else None
            await links[0].send('{"type": "ping", "at": 1}')
            while json.loads(await asyncio.wait_for(links[0].recv(), 10))["type"] != "pong":
                pass
            return refused, True

    assert asyncio.run(crowd()) == (4429, True)


@pytest.mark.parametrize(
    ("message", "code"), [("x" * 70_000, 1009), ("no JSON", 4400), ("[]", 4400), ("5", 4400)], ids=["huge", "text", "list", "number"]
)
def test_a_rude_page_is_cut_off(stage: Stage, message: str, code: int):
    """Messages that are too long, or no messages, end their socket and nothing else."""
    assert talk(stage, "/api/audience", "{}", message)[-1] == code
    assert stage.state()["phase"] == "idle"


def test_run_shows_one_performance_on_a_stage(tmp_path: Path, speech_cache: Path):
    """`run --stage` serves the pages while it performs, takes signals, and ends with the run."""
    file = tmp_path / "lobby.yaml"
    file.write_text(SHOW, "utf-8")
    with staging(file, "--stage", "--out", str(tmp_path / "out"), cache=speech_cache, command="run") as stage:
        until(lambda: stage.state()["awaits"] == "next", "it waits for its trigger")
        assert stage.signal("next") == (204, "")
        assert stage.process.wait(20) == 0
    assert checked(tmp_path / "out")[-1]["end"] == "passed"


def test_signals_steer_a_performance(stage: Stage):
    """Hold and resume, skip, goto forward and back; the state says what is held and where the show is."""
    stage.signal("go")
    until(lambda: stage.step("hello")["speaking"], "the line is heard")
    assert stage.signal("hold") == (204, "")
    assert stage.state()["held"]
    assert stage.signal("resume") == (204, "")
    assert not stage.state()["held"]
    assert stage.signal("goto", "bye") == (204, "")
    until(lambda: stage.step("bye")["speaking"], "it went on there")
    assert stage.signal("goto", "long") == (204, "")
    until(lambda: stage.step("long")["speaking"], "and back")
    assert stage.signal("skip") == (204, "")
    until(lambda: stage.state()["awaits"] == "next", "the line was left")
    assert stage.step("long")["state"] == "skipped"


def test_goto_between_shows_begins_at_that_step(stage: Stage):
    """A click on a line in rehearsal plays from there: nothing before it is heard."""
    assert stage.signal("goto", "bye") == (204, "")
    stage.until_phase("idle")
    until(lambda: stage.state()["result"], "it is over")
    log = checked(Path(stage.state()["result"]["folder"]))
    began = [line["task"] for line in log if line.get("event") == "speech_ended" and not line.get("interrupted")]
    assert began == ["bye"]


def test_osc_controls_the_stage(tmp_path: Path, speech_cache: Path):
    """`--control osc://…`: go by another machine's client begins a performance, end ends it."""
    from pythonosc.udp_client import SimpleUDPClient

    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    file = tmp_path / "lobby.yaml"
    file.write_text(SHOW, "utf-8")
    with staging(file, "--control", f"osc://127.0.0.1:{port}", cache=speech_cache) as stage:
        desk = SimpleUDPClient("127.0.0.1", port)
        desk.send_message("/playbook/go", 1)
        stage.until_phase("running")
        desk.send_message("/playbook/end", [])
        until(lambda: stage.state()["result"], "it is over")
        desk._sock.close()
    assert stage.token is None
