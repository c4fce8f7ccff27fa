"""What the emulators share, acted out by a vendor who does not exist: server, sessions, speech queue, faults, control page."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from playbook.clock import Clock, run
from playbook.emulators.base import KEPT_LINES, KEPT_SESSIONS, Emulator, LiveSession
from playbook.emulators.faults import FAULTS, Faults, Injection, choose
from playbook.emulators.speech import Sighting, SpeechQueue
from playbook.errors import ProviderError, SetupError, UsageError
from playbook.transports.http import Http, Retry

T = TypeVar("T")


def virtually(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return run(main(), "virtual")


class Toy(Emulator):
    """A vendor with three calls and a socket."""

    name = "toy"

    def __init__(self, *, limits: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.limits = limits or {}

    def routes(self) -> Sequence[BaseRoute]:
        return [
            Route("/sessions", self.create, methods=["POST"]),
            Route("/sessions/{id}/say", self.say, methods=["POST"]),
            Route("/sessions/{id}", self.delete, methods=["DELETE"]),
            Route("/bug", self.bug),
            WebSocketRoute("/socket", self.socket),
        ]

    def refusal(self, status: int, text: str) -> Response:
        return JSONResponse({"error": text}, status)

    async def create(self, _: Request) -> Response:
        if self.quota_used_up():
            return self.quota()
        session = LiveSession(self, f"s-{len(self.sessions) + 1}", **self.limits)
        self.admit(session)
        return JSONResponse({"id": session.id, "token": self.seal(f"token-of-{session.id}")})

    async def say(self, request: Request) -> Response:
        session = self.sessions.get(request.path_params["id"])
        if session is None or not session.alive:
            return self.refusal(404, "no such session")
        session.touch()
        body = await request.json()
        line = session.queue.line(body["task"], body["text"])

        def accept() -> Response:
            session.queue.add(line.task, text=body["text"], final=body.get("final", True))
            return JSONResponse({"ok": True, "task_id": line.task})

        return await self.take(session, line, accept)

    async def delete(self, request: Request) -> Response:
        self.sessions[request.path_params["id"]].end("deleted")
        return JSONResponse(None)

    async def bug(self, _: Request) -> Response:
        raise ZeroDivisionError("a bug")

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.receive_text()


class Client:
    """A client of the toy, on its own clock."""

    def __init__(self, http: Http) -> None:
        self.http = http
        self.clock = Clock()

    async def create(self) -> str:
        return (await self.http.request("POST", "/sessions", retry=Retry.NEVER)).need("id")

    async def say(self, session: str, task: str, text: str = "x" * 10, retry: Retry = Retry.UNSENT, **more: Any) -> str:
        """`task_id`, or how it failed."""
        try:
            answer = await self.http.request("POST", f"/sessions/{session}/say", json={"task": task, "text": text, **more}, retry=retry)
            return answer.need("task_id")
        except ProviderError as error:
            return f"{error.outcome} {error.status}"

    async def later(self, ms: int) -> None:
        await self.clock.sleep_until(self.clock.now_ms() + ms)


def play(show: Callable[[Client], Coroutine[Any, Any, T]], toy: Toy) -> T:
    """Run a show against the toy on the virtual clock, over a real socket."""

    async def main() -> T:
        async with toy.serve() as url, Http(url, headers={"Authorization": "Bearer very-secret"}) as http:
            return await show(Client(http))

    return virtually(main)


def spoken(toy: Toy) -> list[tuple[int, str, str]]:
    """The truth about speech, from the journal."""
    return [(line["at_ms"], line["what"], line["task"]) for line in toy.journal if line["what"].startswith("speech_")]


# --- the server -------------------------------------------------------------------------------------------------------


def test_an_hour_takes_a_moment() -> None:
    """On the virtual clock a session is created, spoken through and ended by its own limit without anybody waiting."""
    toy = Toy(limits={"max_ms": 3_600_000})

    async def show(client: Client) -> None:
        session = await client.create()
        assert await client.say(session, "hello") == "hello"
        await client.later(3_599_000)
        assert len(toy.open_sessions) == 1
        await client.later(2_000)
        assert toy.open_sessions == ()
        assert await client.say(session, "late") == "refused 404"

    play(show, toy)
    assert spoken(toy) == [(200, "speech_started", "hello"), (800, "speech_ended", "hello")]
    assert [line for line in toy.journal if line["what"] == "session_ended"] == [
        {"at_ms": 3_600_000, "what": "session_ended", "session": "s-1", "reason": "duration"}
    ]


def test_hundreds_of_requests_take_no_time_on_the_virtual_clock() -> None:
    """Answers come before time moves: no idle tick and no delayed packet gets between a request and its answer."""

    async def show(client: Client) -> int:
        session = await client.create()
        for n in range(300):
            await client.say(session, f"t{n}", "")
        return client.clock.now_ms()

    assert play(show, Toy(limits={"needs_viewer": True})) == 0


def test_unknown_routes_and_methods_are_refused_in_the_vendors_shape() -> None:
    """A 404 and a 405 look like the vendor's own errors."""

    async def show(client: Client) -> list[int]:
        statuses = []
        for method, path in (("GET", "/nothing"), ("GET", "/sessions")):
            with pytest.raises(ProviderError) as caught:
                await client.http.request(method, path, retry=Retry.NEVER)
            statuses.append(caught.value.status or 0)
            assert caught.value.message.startswith(f"the service answered {caught.value.status}: ")
        return statuses

    assert play(show, Toy()) == [404, 405]


def test_a_bug_of_the_emulator_is_not_hidden() -> None:
    """A route that raises answers 500 and the exception comes out of `serve`."""

    async def show(client: Client) -> None:
        with pytest.raises(ProviderError, match="500"):
            await client.http.request("GET", "/bug", retry=Retry.NEVER)

    with pytest.raises(ZeroDivisionError):
        play(show, Toy())


def test_leaving_ends_everything_at_once() -> None:
    """Open sessions, requests in the air and open sockets do not hold up the emulator's end."""
    toy = Toy()
    toy.injections.append(Injection("serve", path="*/say", before_ms=3_600_000))

    async def main() -> tuple[int, list[Any]]:
        import websockets.asyncio.client

        clock = Clock()
        async with toy.serve() as url:
            http = Http(url)
            client = Client(http)
            session = await client.create()
            pending = asyncio.ensure_future(client.say(session, "hello"))
            socket = await websockets.asyncio.client.connect(url.replace("http", "ws") + "/socket", proxy=None, ping_interval=None)
            await socket.send("echo")
            assert await socket.recv() == "echo"
            await client.later(1)
        results = await asyncio.gather(pending, socket.recv(), return_exceptions=True)
        await http.aclose()
        await socket.close()
        return clock.now_ms(), results

    took_ms, results = virtually(main)
    assert took_ms < 1_000
    assert results[0] == "ambiguous None"
    assert isinstance(results[1], Exception)
    assert toy.sessions["s-1"].reason == "emulator stopped"


def test_only_this_machine_is_served() -> None:
    """An emulator takes any key; it does not listen to the world. A taken port is a plain error."""
    toy = Toy()

    async def serve(host: str, port: int) -> None:
        async with toy.serve(port, host):
            pass

    with pytest.raises(UsageError, match="not an address of this machine"):
        virtually(lambda: serve("0.0.0.0", 0))

    async def taken() -> None:
        async with toy.serve() as url:
            await serve("127.0.0.1", int(url.rpartition(":")[2]))

    with pytest.raises(SetupError, match="already in use"):
        virtually(taken)


def test_an_emulator_that_is_left_to_itself_forgets() -> None:
    """It keeps the last of the journal and of the sessions that have ended, and every one that lives; `since` counts from the beginning."""
    toy = Toy()

    async def show(client: Client) -> None:
        first = await client.create()
        for n in range(2 * KEPT_SESSIONS):
            toy.admit(session := LiveSession(toy, f"more-{n}"))
            session.end("test")
        assert len(toy.sessions) <= 2 * KEPT_SESSIONS
        assert (toy.created, first in toy.sessions, "more-0" in toy.sessions) == (2 * KEPT_SESSIONS + 1, True, False)
        seen = len(toy.journal)
        for n in range(2 * KEPT_LINES):
            toy.note("line", number=n)
        assert KEPT_LINES <= len(toy.journal) < 2 * KEPT_LINES
        answer = await client.http.request("GET", f"/_emulator/journal?since={seen + 2 * KEPT_LINES - 3}", retry=Retry.NEVER)
        assert [line["number"] for line in answer.json()["journal"] if line["what"] == "line"] == [2 * KEPT_LINES - n for n in (3, 2, 1)]

    play(show, toy)


def test_the_journal_shows_what_was_asked_without_credentials() -> None:
    """Bodies are kept, secrets in them are masked by name and, where the emulator minted them, by value."""
    toy = Toy()

    async def show(client: Client) -> None:
        await client.create()
        await client.http.request(
            "POST",
            "/sessions/s-1/say",
            json={"task": "t", "text": "token-of-s-1", "client_secret": "abc", "x": {"api-key": "k"}},
            retry=Retry.NEVER,
        )

    play(show, toy)
    request = toy.journal[2]
    assert (request["method"], request["path"], request["status"]) == ("POST", "/sessions/s-1/say", 200)
    assert request["body"] == {"task": "t", "text": "***", "client_secret": "***", "x": {"api-key": "***"}}
    assert "very-secret" not in json.dumps(toy.journal)


def test_from_the_command_line_it_serves_in_real_time_until_it_is_told_to_stop() -> None:
    """`serve_forever` tells its URL, answers, and ends with status 0 on SIGTERM."""
    code = "from tests.test_emulator_base import Toy\nfrom playbook.emulators.base import serve_forever\n"
    code += "serve_forever(Toy(), ready=lambda url: print(url, flush=True))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=os.getcwd()) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/_emulator/sessions", trust_env=False).json() == {"open": 0, "sessions": []}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


# --- sessions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "viewer", "ends"),
    [
        ({"absent_ms": 60_000}, None, (60_000, "absence")),
        ({"absent_ms": 60_000}, 30_000, None),
        ({"absent_ms": 60_000, "max_ms": 70_000}, 30_000, (70_000, "duration")),
        ({"idle_ms": 15_000}, None, (15_000, "idle")),
    ],
)
def test_a_session_ends_by_itself(limits: dict[str, Any], viewer: int | None, ends: tuple[int, str] | None) -> None:
    """Nobody came, the time is up, or the client is silent; a viewer who comes by himself stops the first."""
    toy = Toy(limits=limits, viewer_after_ms=viewer)

    async def show(client: Client) -> None:
        await client.create()
        await client.later(100_000)
        session = toy.sessions["s-1"]
        assert (None if session.alive else (session.ended_ms, session.reason)) == ends

    play(show, toy)


def test_a_viewer_who_leaves_starts_the_absence_anew() -> None:
    """Through the control page: connected it lives, disconnected it ends after `left_ms`."""
    toy = Toy(limits={"absent_ms": 60_000, "left_ms": 5_000})

    async def show(client: Client) -> None:
        await client.create()
        for connected, wait_ms in ((True, 120_000), (False, 4_000), (True, 120_000), (False, 6_000)):
            assert toy.sessions["s-1"].alive
            await client.http.request("POST", "/_emulator/viewer", json={"connected": connected}, retry=Retry.NEVER)
            await client.later(wait_ms)
        assert toy.sessions["s-1"].reason == "absence"
        with pytest.raises(ProviderError, match="has ended"):
            await client.http.request("POST", "/_emulator/viewer", json={"connected": True}, retry=Retry.NEVER)

    play(show, toy)


def test_activity_keeps_an_idle_session_alive() -> None:
    """Each call counts as a sign of life."""
    toy = Toy(limits={"idle_ms": 15_000})

    async def show(client: Client) -> None:
        session = await client.create()
        for n in range(5):
            await client.later(10_000)
            assert await client.say(session, f"t{n}") == f"t{n}"
        await client.later(16_000)
        assert toy.sessions[session].reason == "idle"

    play(show, toy)


def test_nothing_is_spoken_while_nobody_watches() -> None:
    """Where a viewer is needed, lines wait for one; a line that is cut off by his leaving begins anew with the next."""
    toy = Toy(limits={"needs_viewer": True})

    async def show(client: Client) -> None:
        session = await client.create()
        await client.say(session, "a")
        await client.later(10_000)
        live = toy.sessions[session]
        live.connect_viewer()
        await client.later(300)
        live.disconnect_viewer()
        await client.later(10_000)
        live.connect_viewer()
        await client.later(10_000)

    play(show, toy)
    assert spoken(toy) == [
        (10_000, "speech_started", "a"),
        (10_300, "speech_held", "a"),
        (20_300, "speech_started", "a"),
        (20_900, "speech_ended", "a"),
    ]


# --- the speech queue -------------------------------------------------------------------------------------------------


class Stage:
    """A queue on the virtual clock, with everything it told and everything that was true."""

    def __init__(self, *faults: str, **options: Any) -> None:
        self.clock = Clock()
        self.told: list[tuple[int, str, str, bool, int]] = []
        self.truth: list[tuple[int, str, str]] = []
        self.queue = SpeechQueue(self.clock, tell=self._tell, note=self._note, faults=Faults(faults), **options)

    def _tell(self, sighting: Sighting) -> None:
        self.told.append((self.clock.now_ms(), sighting.kind, sighting.utterance.task, sighting.interrupted, sighting.heard_ms))

    def _note(self, what: str, **facts: Any) -> None:
        self.truth.append((self.clock.now_ms(), what, facts["task"]))


def on_stage(act: Callable[[Stage], object], *faults: str, at: dict[int, Callable[[Stage], object]] | None = None, **options: Any) -> Stage:
    """Do something at 0 ms, other things later, and let everything play out."""

    async def main() -> Stage:
        stage = Stage(*faults, **options)
        act(stage)
        for due_ms, then in (at or {}).items():
            await stage.clock.sleep_until(due_ms)
            then(stage)
        await stage.clock.sleep_until(1_000_000)
        return stage

    return virtually(main)


def two(stage: Stage) -> None:
    stage.queue.add("a", duration_ms=1_000)
    stage.queue.add("b", duration_ms=1_000)


def test_lines_play_one_after_another() -> None:
    """The first after the latency, the second with no gap."""
    stage = on_stage(two)
    assert stage.told == [
        (200, "started", "a", False, 0),
        (1_200, "ended", "a", False, 1_000),
        (1_200, "started", "b", False, 0),
        (2_200, "ended", "b", False, 1_000),
    ]
    assert [line.state for line in stage.queue.lines] == ["done", "done"]


def test_an_interrupt_of_all_drops_what_waits() -> None:
    """The line stops after its tail and says how much was heard; what never began is never reported."""
    stage = on_stage(two, at={500: lambda stage: stage.queue.interrupt("all")})
    assert stage.told == [(200, "started", "a", False, 0), (650, "ended", "a", True, 450)]
    assert [line.state for line in stage.queue.lines] == ["cut", "dropped"]


def test_an_interrupt_of_the_current_line_lets_the_next_begin() -> None:
    """Lines that wait survive; interrupting silence does nothing."""
    stage = on_stage(two, at={500: lambda stage: stage.queue.interrupt("current"), 9_000: lambda stage: stage.queue.interrupt("current")})
    assert [told[:4] for told in stage.told[1:]] == [(650, "ended", "a", True), (650, "started", "b", False), (1_650, "ended", "b", False)]


def test_an_interrupt_before_the_first_word() -> None:
    """A line that has not begun is dropped by `all`, and survives `current`."""
    assert on_stage(two, at={100: lambda stage: stage.queue.interrupt("all")}).told == []
    assert len(on_stage(two, at={100: lambda stage: stage.queue.interrupt("current")}).told) == 4


def test_an_interrupt_just_before_the_end() -> None:
    """The tail is never longer than the line, and two interrupts are one."""
    stage = on_stage(
        lambda stage: stage.queue.add("a", duration_ms=1_000), at={1_150: lambda stage: [stage.queue.interrupt(), stage.queue.interrupt()]}
    )
    assert stage.told[1:] == [(1_200, "ended", "a", True, 1_000)]


def pieces(stage: Stage) -> None:
    stage.queue.add("a", duration_ms=50, final=False)


def test_an_open_turn_waits_for_its_last_piece() -> None:
    """Without `start_on` nothing is heard until the turn is complete, also not what is queued behind it."""
    stage = on_stage(
        lambda stage: [pieces(stage), stage.queue.add("b", duration_ms=100)], at={5_000: lambda stage: stage.queue.add("a", duration_ms=50)}
    )
    assert [told[:3] for told in stage.told] == [
        (5_200, "started", "a"),
        (5_300, "ended", "a"),
        (5_300, "started", "b"),
        (5_400, "ended", "b"),
    ]


def test_a_turn_that_begins_early_starves_and_speaks_on() -> None:
    """With `start_on` speech begins with enough sound, falls silent when it runs out, and ends only when it is closed."""
    stage = on_stage(
        pieces,
        start_on=100,
        latency_ms=0,
        at={
            1_000: lambda stage: stage.queue.add("a", duration_ms=150, final=False),
            3_000: lambda stage: stage.queue.add("a", duration_ms=100, final=False),
            5_000: lambda stage: stage.queue.close("a"),
        },
    )
    assert stage.told == [(1_000, "started", "a", False, 0), (5_000, "ended", "a", False, 300)]


def test_pieces_after_an_interrupt_are_new_speech() -> None:
    """As vendors warn: whoever interrupts must stop sending first."""
    stage = on_stage(
        pieces,
        start_on=0,
        latency_ms=0,
        at={20: lambda stage: stage.queue.interrupt(), 1_000: lambda stage: stage.queue.add("a", duration_ms=70)},
    )
    assert [told[:4] for told in stage.told] == [
        (0, "started", "a", False),
        (50, "ended", "a", True),
        (1_000, "started", "a", False),
        (1_070, "ended", "a", False),
    ]


def test_after_clear_nothing_is_told() -> None:
    """A session that has ended is silent, also about reports that were due later."""
    stage = on_stage(two, "end-late", at={1_500: lambda stage: stage.queue.clear()})
    assert [told[:3] for told in stage.told] == [(200, "started", "a"), (1_200, "started", "b")]
    assert stage.truth[-1] == (1_500, "speech_cut_off", "b")


# --- named faults -----------------------------------------------------------------------------------------------------

START, END = (200, "started", "a", False, 0), (1_200, "ended", "a", False, 1_000)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("end-missing", [START]),
        ("end-early", [START, (700, "ended", "a", False, 500)]),
        ("end-late", [START, (4_200, "ended", "a", False, 1_000)]),
        ("end-twice", [START, END, (1_600, "ended", "a", False, 1_000)]),
        ("start-missing", [END]),
        ("accepted-but-silent", []),
        ("mute-after-120s", [START, END]),
    ],
)
def test_faults_of_speech_falsify_the_report_and_nothing_else(fault: str, told: list[Any]) -> None:
    """What is told about the line `a` is as the fault has it; `b` is told as it is, and the truth is told to the journal."""
    stage = on_stage(
        lambda stage: stage.queue.add("a", duration_ms=1_000), f"{fault}@a", at={300_000: lambda s: s.queue.add("b", duration_ms=100)}
    )
    assert [entry for entry in stage.told if entry[2] == "a"] == told
    assert [entry[1] for entry in stage.told if entry[2] == "b"] == ["started", "ended"]
    really = [what for _, what, task in stage.truth if task == "a"]
    assert really == (["speech_swallowed"] if fault == "accepted-but-silent" else ["speech_started", "speech_ended"])


def test_mute_after_120s() -> None:
    """Lines that begin later than two minutes are swallowed."""
    stage = on_stage(
        lambda stage: stage.queue.add("a", duration_ms=100), "mute-after-120s", at={120_000: lambda s: s.queue.add("b", duration_ms=100)}
    )
    assert [entry[2] for entry in stage.told] == ["a", "a"]
    assert stage.queue.lines[1].state == "silent"


def test_interrupt_lost() -> None:
    """The interrupt is accepted and changes nothing."""
    stage = on_stage(two, "interrupt-lost@a", at={500: lambda stage: stage.queue.interrupt()})
    assert [entry[:4] for entry in stage.told][1:3] == [(1_200, "ended", "a", False), (1_200, "started", "b", False)]


def test_speech_after_interrupt() -> None:
    """The line stops, and a moment later speaks the rest; a second interrupt really stops it."""
    stage = on_stage(two, "speech-after-interrupt@a", at={500: lambda stage: stage.queue.interrupt()})
    assert stage.told[1:] == [(650, "ended", "a", True, 450), (1_050, "started", "a", False, 0), (1_600, "ended", "a", False, 550)]
    stage = on_stage(two, "speech-after-interrupt@a", at={500: lambda s: s.queue.interrupt(), 1_100: lambda s: s.queue.interrupt()})
    assert stage.told[2:] == [(1_050, "started", "a", False, 0), (1_250, "ended", "a", True, 200)]


def say_three(*faults: str, retry: Retry = Retry.UNSENT) -> tuple[list[str], list[int], Toy]:
    """Three lines, half a second apart: how each went, when each was answered, and the toy."""
    toy = Toy(faults=faults)

    async def show(client: Client) -> tuple[list[str], list[int]]:
        session = await client.create()
        results, times = [], []
        for task in ("a", "b", "c"):
            results.append(await client.say(session, task, retry=retry))
            times.append(client.clock.now_ms())
            await client.later(500)
        await client.later(20_000)
        return results, times

    results, times = play(show, toy)
    return results, times, toy


def test_rate_limit() -> None:
    """The line is refused once, and accepted when it comes again after a second; it is spoken once."""
    results, times, toy = say_three("rate-limit@b")
    assert (results, times) == (["a", "b", "c"], [0, 1_500, 2_000])
    assert [task for _, what, task in spoken(toy) if what == "speech_started"] == ["a", "b", "c"]
    assert say_three("rate-limit@2", retry=Retry.NEVER)[0] == ["a", "refused 429", "c"]


def test_flap() -> None:
    """For two seconds nobody answers; what was sent then is ambiguous and was not spoken."""
    results, _, toy = say_three("flap@b")
    assert results == ["a", "ambiguous None", "ambiguous None"]
    assert [task for _, what, task in spoken(toy) if what == "speech_started"] == ["a"]


def test_slow_accept() -> None:
    """The line is accepted late and spoken after that."""
    results, times, _ = say_three("slow-accept@b")
    assert (results, times) == (["a", "b", "c"], [0, 3_500, 4_000])


def test_half_body() -> None:
    """The line is spoken, but its answer never comes whole."""
    results, _, toy = say_three("half-body@b")
    assert results == ["a", "ambiguous None", "c"]
    assert [task for _, what, task in spoken(toy) if what == "speech_started"] == ["a", "b", "c"]


def test_session_dies() -> None:
    """The session ends by itself in the middle of the line."""
    toy = say_three("session-dies@b")[2]
    assert (toy.sessions["s-1"].reason, toy.open_sessions) == ("fault", ())
    assert spoken(toy)[-1] == (1_100, "speech_cut_off", "b")


def test_quota_at_create() -> None:
    """Creation is refused, at every time or at a given one; nothing is created."""

    async def show(client: Client) -> list[str]:
        results = []
        for _ in range(3):
            try:
                results.append(await client.create())
            except ProviderError as error:
                results.append(str(error.status))
        return results

    assert play(show, Toy(faults=["quota-at-create"])) == ["429", "429", "429"]
    assert play(show, Toy(faults=["quota-at-create@2"])) == ["s-1", "429", "s-2"]


def test_every_fault_is_described_and_read() -> None:
    """The table's names are the issue's, each with a description; a wrong name gets the near one, a missing line a remedy."""
    assert len(FAULTS) == 16
    for name, fault in FAULTS.items():
        assert len(fault.description) > 20
        assert choose(f"{name}@hello").targets == {"hello"}
        assert str(choose(name)) == name
    with pytest.raises(UsageError) as caught:
        choose("end-mising@hello")
    assert "end-missing" in caught.value.remedy
    with pytest.raises(UsageError, match="no line after the @"):
        choose("flap@")


def test_wrong_id_strikes_by_task_text_or_number() -> None:
    """A line is found by any of its names, and only by them."""
    for which in ("t-1", "Hello.", "7"):
        assert Faults([f"wrong-id@{which}"]).hits("wrong-id", "t-1", "Hello.", "7")
    assert not Faults(["wrong-id@8"]).hits("wrong-id", "t-1", "Hello.", "7")
    assert Faults(["wrong-id"]).hits("wrong-id", "anything")


# --- injections and the control page ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("injection", "result", "carried_out"),
    [
        (Injection(status=503, body={"error": "later"}), "ambiguous 503", False),
        (Injection(status=429, headers={"retry-after": "60"}), "refused 429", False),
        (Injection(status=401, body={}), "refused 401", False),
        (Injection("close"), "ambiguous None", False),
        (Injection("lose"), "ambiguous None", True),
        (Injection("half"), "ambiguous None", True),
        (Injection("huge"), "ambiguous None", True),
        (Injection("garbage"), "ambiguous None", True),
        (Injection("serve", before_ms=60_000), "ambiguous None", False),
        (Injection("serve", after_ms=60_000), "ambiguous None", True),
        (Injection("serve", after_ms=5_000), "a", True),
        (Injection(path="/sessions"), "a", True),
        (Injection(method="DELETE"), "a", True),
        (Injection(skip=1), "a", True),
        (Injection(times=0), "a", True),
    ],
)
def test_injections(injection: Injection, result: str, carried_out: bool) -> None:
    """Any route can be spoiled in any of these ways, before or after it was carried out."""
    toy = Toy()

    async def show(client: Client) -> None:
        session = await client.create()
        toy.injections.append(injection)
        assert await client.say(session, "a") == result
        assert bool(toy.sessions[session].queue.lines) is carried_out

    play(show, toy)


def test_an_injection_strikes_as_often_as_it_was_told() -> None:
    """Once, n times after some, or for ever."""
    for injection, hit in ((Injection(), [1]), (Injection(times=2, skip=1), [2, 3]), (Injection(times=None), [1, 2, 3, 4])):
        assert [n for n in (1, 2, 3, 4) if injection.takes("POST", "/x")] == hit


def test_the_control_page() -> None:
    """Journal, sessions and faults are there as JSON, faults can be set for sessions that live, and nonsense is refused with a reason."""
    toy = Toy()

    async def show(client: Client) -> None:
        async def control(method: str, path: str, body: Any = None) -> Any:
            return (await client.http.request(method, f"/_emulator/{path}", json=body, retry=Retry.NEVER)).json()

        session = await client.create()
        assert (await control("GET", ""))["emulator"] == "toy"
        assert (await control("GET", "faults"))["faults"] == []
        injection = {"act": "refuse", "path": "*/say", "status": 402, "body": {"error": "no credits"}}
        set_now = await control("PUT", "faults", {"faults": ["accepted-but-silent@b"], "injections": [injection]})
        assert set_now["faults"] == ["accepted-but-silent@b"]
        assert [await client.say(session, task) for task in ("a", "b")] == ["refused 402", "b"]
        await client.later(5_000)
        sessions = await control("GET", "sessions")
        assert sessions["open"] == 1
        assert [(line["task"], line["state"]) for line in sessions["sessions"][0]["lines"]] == [("b", "silent")]
        journal = (await control("GET", "journal"))["journal"]
        assert [line["what"] for line in journal] == ["request", "session_created", "request", "request", "speech_swallowed"]
        assert (await control("GET", "journal?since=4"))["journal"] == journal[4:]
        await control("PUT", "faults", {})
        assert (toy.injections, toy.faults.chosen) == ([], ())
        nonsense = (
            {"faults": ["end-mising"]},
            {"fault": []},
            {"injections": [{"act": "explode"}]},
            {"injections": [{"what": 1}]},
            {"faults": 3},
            7,
        )
        for body in nonsense:
            with pytest.raises(ProviderError, match="400"):
                await control("PUT", "faults", body)
        with pytest.raises(ProviderError, match="400"):
            await control("POST", "viewer", {"connected_": True})
        with pytest.raises(ProviderError, match="404"):
            await control("POST", "viewer", {"connected": True, "session": "s-9"})

    play(show, toy)
