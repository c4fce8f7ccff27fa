"""The emulator of Avaturn Live, asked directly: what the documentation says of each call, and the choices where it says nothing."""

from __future__ import annotations

import contextlib
import json

import httpx
import pytest
from websockets.asyncio.server import serve

from playbook import clock
from playbook.errors import UsageError
from playbook.providers.avaturn.emulator import AvaturnEmulator
from playbook.providers.avaturn.emulator_session import RATE

SESSIONS = "/api/v1/sessions"
AUTH = {"Authorization": "Bearer any-key"}


def on_emulator(test=None, **options):
    """Give a test an emulator that serves, and a client of it with a key, on the virtual clock."""

    def decorate(test):
        def run():
            async def main():
                emulator = AvaturnEmulator(**options)
                async with emulator.serve() as url, httpx.AsyncClient(base_url=url, headers=AUTH, timeout=None) as client:
                    await test(emulator, client)

            clock.run(main(), "virtual")

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate if test is None else decorate(test)


async def create(client, **wanted):
    answer = await client.post(SESSIONS, json=wanted or None)
    assert answer.status_code == 200
    return answer.json()


async def at(emulator, ms):
    await emulator.clock.sleep_until(ms)


def said(emulator):
    """What was spoken, with when it began and ended."""
    began = {}
    for entry in emulator.journal:
        if entry["what"] == "speech_started":
            began[entry["task"]] = entry["at_ms"]
        elif entry["what"] == "speech_ended":
            yield entry["task"], began[entry["task"]], entry["at_ms"]


@on_emulator
async def test_the_three_calls_and_their_codes(emulator, client):
    """200 for each, also for creation and the end; ids and a token; the end's body is nothing to read."""
    created = await client.post(SESSIONS)
    assert (created.status_code, set(created.json())) == (200, {"session_id", "token"})
    session = created.json()["session_id"]
    task = await client.post(f"{SESSIONS}/{session}/tasks", json={"text": "Hello."})
    assert (task.status_code, task.json()) == (200, {"task_id": "task-1"})
    ended = await client.delete(f"{SESSIONS}/{session}")
    assert (ended.status_code, ended.json()) == (200, None)
    assert emulator.open_sessions == ()


@on_emulator(key="the-key")
async def test_every_call_needs_the_key(emulator, client):
    """401 without one, with another scheme, or with another key."""
    for headers in ({"Authorization": ""}, {"Authorization": "Basic the-key"}, {"Authorization": "Bearer other"}):
        for method, path in (("POST", SESSIONS), ("POST", f"{SESSIONS}/x/tasks"), ("DELETE", f"{SESSIONS}/x")):
            assert (await client.request(method, path, headers=headers)).status_code == 401
    assert (await client.post(SESSIONS, headers={"Authorization": "Bearer the-key"})).status_code == 200
    assert len(emulator.sessions) == 1


@on_emulator
async def test_what_is_not_there_is_a_404(emulator, client):
    """Unknown and ended sessions, for lines and ends, and unknown paths; in the vendor's shape."""
    session = (await create(client))["session_id"]
    await client.delete(f"{SESSIONS}/{session}")
    for method, path in (("POST", f"{SESSIONS}/{session}/tasks"), ("DELETE", f"{SESSIONS}/{session}"), ("DELETE", f"{SESSIONS}/nobody")):
        answer = await client.request(method, path, json={"text": "x"} if method == "POST" else None)
        assert (answer.status_code, answer.json()) == (404, {"detail": "Session not found"})
    assert (await client.get("/api/v1/avatars")).status_code == 404
    assert (await client.get(f"{SESSIONS}/{session}")).status_code == 405
    assert emulator.sessions[session].reason == "deleted"


@pytest.mark.parametrize(
    ("body", "loc", "type"),
    [
        ({"avatar_id": 7}, ["avatar_id"], "string_type"),
        ({"background": "green"}, ["background"], "literal_error"),
        ({"model": "alpha"}, ["model"], "literal_error"),
        ({"render_model": "alpha"}, ["render_model"], "literal_error"),
        ({"user_absent_timeout": 9}, ["user_absent_timeout"], "greater_than_equal"),
        ({"user_absent_timeout": "60"}, ["user_absent_timeout"], "int_type"),
        ({"user_absent_timeout": True}, ["user_absent_timeout"], "int_type"),
        ({"max_duration": 59}, ["max_duration"], "greater_than_equal"),
        ({"max_duration": 86_401}, ["max_duration"], "less_than_equal"),
        ({"conversation_engine": {}}, ["conversation_engine"], "union_tag_not_found"),
        ({"conversation_engine": 3}, ["conversation_engine"], "union_tag_not_found"),
        ({"conversation_engine": {"type": "parrot"}}, ["conversation_engine"], "union_tag_invalid"),
        ({"conversation_engine": {"type": "text-echo"}}, ["conversation_engine", "text-echo", "tts"], "missing"),
        ({"conversation_engine": {"type": "text-echo", "tts": {}}}, ["conversation_engine", "text-echo", "tts", "voice_id"], "missing"),
        (
            {"conversation_engine": {"type": "text-echo", "tts": {"voice_id": "v", "engine": "google"}}},
            ["conversation_engine", "text-echo", "tts", "engine"],
            "literal_error",
        ),
        ({"conversation_engine": {"type": "external"}}, ["conversation_engine", "external", "url"], "missing"),
        (
            {"conversation_engine": {"type": "external", "url": "ws://x", "audio": {"user": {"sample_rate": 8000}}}},
            ["conversation_engine", "external", "audio", "user", "sample_rate"],
            "literal_error",
        ),
        (
            {"conversation_engine": {"type": "external", "url": "ws://x", "headers": {"a": 1}}},
            ["conversation_engine", "external", "headers", "a"],
            "string_type",
        ),
        ({"conversation_engine": {"type": "openai-realtime"}}, ["conversation_engine", "openai-realtime", "client_secret"], "missing"),
        ({"conversation_engine": {"type": "cartesia", "agent_id": "a"}}, ["conversation_engine", "cartesia", "access_token"], "missing"),
        ([], [], "dict_type"),
    ],
)
def test_a_field_that_is_wrong_is_a_422_in_the_vendors_shape(body, loc, type):
    """One entry a fault, with its place, and nothing is created."""

    @on_emulator
    async def ask(emulator, client):
        answer = await client.post(SESSIONS, content=json.dumps(body))
        assert answer.status_code == 422
        [fault] = answer.json()["detail"]
        assert (fault["loc"], fault["type"], bool(fault["msg"])) == (["body", *loc], type, True)
        assert emulator.sessions == {}

    ask()


@on_emulator
async def test_a_line_needs_a_text(emulator, client):
    """Missing, of another type, no JSON, no body: 422. An empty text is taken, and fields that we do not know are let pass."""
    session = (await create(client, something_new=1))["session_id"]
    for content in ("", "{}", '{"text": 3}', "{"):
        assert (await client.post(f"{SESSIONS}/{session}/tasks", content=content)).status_code == 422
    assert (await client.post(f"{SESSIONS}/{session}/tasks", json={"text": "", "mood": "good"})).status_code == 200
    assert len(emulator.sessions[session].queue.lines) == 1


@on_emulator(voices="good,better", retired="old_face")
async def test_settings_that_make_no_sense_to_the_vendor(emulator, client):
    """An unknown voice is a 400, a retired avatar a 410."""

    async def status(**wanted):
        return (await client.post(SESSIONS, json=wanted)).status_code

    def voice(name):
        return {"type": "text-echo", "tts": {"voice_id": name}}

    assert await status(conversation_engine=voice("good")) == 200
    assert await status(conversation_engine=voice("bad")) == 400
    assert await status(avatar_id="old_face") == 410
    assert await status(conversation_engine=None) == 200
    assert len(emulator.sessions) == 2


@on_emulator(ms_per_character=100, latency_ms=0)
async def test_texts_are_spoken_in_order_and_only_while_somebody_watches(emulator, client):
    """Held until the first viewer comes; a phrase begins anew when its viewer left in the middle; events are told to viewers alone."""
    session = (await create(client))["session_id"]
    for text in ("0123456789", "01234"):
        await client.post(f"{SESSIONS}/{session}/tasks", json={"text": text})
    await at(emulator, 5_000)
    assert list(said(emulator)) == []
    await client.post("/_emulator/viewer", json={"connected": True})
    await at(emulator, 5_400)
    await client.post("/_emulator/viewer", json={"connected": False})
    await at(emulator, 9_000)
    await client.post("/_emulator/viewer", json={"connected": True})
    await at(emulator, 20_000)
    assert list(said(emulator)) == [("task-1", 9_000, 10_000), ("task-2", 10_000, 10_500)]
    events = [
        (entry["type"], entry["phrase_id"]) for entry in emulator.journal if entry["what"] == "viewer_event" and "phrase" in entry["type"]
    ]
    assert events[-2:] == [("avatar_started_speaking_phrase", "task-2"), ("avatar_ended_speaking_phrase", "task-2")]


@on_emulator(viewer_after_ms=0)
async def test_the_end_cuts_in_the_middle_of_a_word(emulator, client):
    """DELETE kills the session also while the avatar talks."""
    session = (await create(client))["session_id"]
    await client.post(f"{SESSIONS}/{session}/tasks", json={"text": "A long sentence."})
    await at(emulator, 500)
    await client.delete(f"{SESSIONS}/{session}")
    assert [(entry["at_ms"], entry["heard_ms"]) for entry in emulator.journal if entry["what"] == "speech_cut_off"] == [(500, 300)]


@on_emulator
async def test_sessions_end_by_themselves(emulator, client):
    """After `user_absent_timeout` without a viewer, before the first and after the last; after `max_duration` in any case."""
    for wanted in ({}, {"user_absent_timeout": 10}, {"user_absent_timeout": 10}, {"max_duration": 60, "user_absent_timeout": 600}):
        await create(client, **wanted)
    await client.post("/_emulator/viewer", json={"connected": True, "session": "sess-3"})
    await at(emulator, 30_000)
    await client.post("/_emulator/viewer", json={"connected": False, "session": "sess-3"})
    await at(emulator, 100_000)
    ends = {entry["session"]: (entry["at_ms"], entry["reason"]) for entry in emulator.journal if entry["what"] == "session_ended"}
    assert ends == {
        "sess-2": (10_000, "absence"),
        "sess-3": (40_000, "absence"),
        "sess-1": (60_000, "absence"),
        "sess-4": (60_000, "duration"),
    }


@on_emulator(viewer_after_ms=0, tail_ms=100)
async def test_the_sdks_private_calls_take_the_viewers_token(emulator, client):
    """Session, stream, line, cancel and voice; 401 without the token."""
    created = await create(client)
    token = {"X-Session-Token": created["token"]}
    calls = [
        ("GET", "", None),
        ("POST", "/start_stream", None),
        ("POST", "/tasks", {"text": "Somebody may stop this."}),
        ("POST", "/cancel_all_speech_tasks", None),
        ("PATCH", "/config", {"conversation_engine": {"type": "text-echo", "tts": {"voice_id": "v"}}}),
    ]
    for method, path, body in calls:
        assert (await client.request(method, f"/_sdk/v0/sessions{path}", json=body)).status_code == 401
    answers = {}
    for n, (method, path, body) in enumerate(calls):
        await at(emulator, 400 * n)
        answers[path] = await client.request(method, f"/_sdk/v0/sessions{path}", json=body, headers=token)
    assert [answer.status_code for answer in answers.values()] == [200] * 5
    assert answers[""].json()["id"] == created["session_id"]
    assert answers["/tasks"].json() == {"task_id": "task-1"}
    await at(emulator, 5_000)
    assert list(said(emulator)) == [("task-1", 1_000, 1_300)]
    wrong = await client.patch("/_sdk/v0/sessions/config", json={"conversation_engine": {"type": "text-echo"}}, headers=token)
    assert wrong.status_code == 422


@on_emulator(viewer_after_ms=0)
async def test_engines_that_lead_their_own_conversation_ignore_lines(emulator, client):
    """A 200 with a task id, and nothing is said."""
    for engine in ({"type": "cartesia", "access_token": "t", "agent_id": "a"}, {"type": "openai-realtime", "client_secret": "s"}):
        session = (await create(client, conversation_engine=engine))["session_id"]
        answer = await client.post(f"{SESSIONS}/{session}/tasks", json={"text": "Hello."})
        assert set(answer.json()) == {"task_id"}
    await at(emulator, 10_000)
    assert list(said(emulator)) == []


@on_emulator
async def test_no_credential_is_in_the_journal(emulator, client):
    """Tokens, secrets of engines and headers are masked there and on the control page."""
    engine = {"type": "external", "url": "wss://elsewhere.example/x", "headers": {"X-Playbook-Secret": "planted-1"}}
    created = await create(client, conversation_engine=engine)
    await create(client, conversation_engine={"type": "openai-realtime", "client_secret": "planted-2"})
    shown = json.dumps(emulator.journal) + (await client.get("/_emulator/sessions")).text + (await client.get("/_emulator/journal")).text
    assert not [secret for secret in (created["token"], "planted-1", "planted-2", "any-key") if secret in shown]


def test_options_that_do_not_exist_are_refused():
    """A wrong behaviour is named together with those there are."""
    with pytest.raises(UsageError) as caught:
        AvaturnEmulator(socket="polite")
    assert "faithful" in caught.value.remedy
    with pytest.raises(UsageError):
        AvaturnEmulator(quota="sometimes")


# --- the external engine's caller ---------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def backend(emulator, client, **engine):
    """A backend of ours that was dialled: its side of the socket."""
    arrived = []

    async def welcome(socket):
        arrived.append(socket)
        await socket.wait_closed()

    async with serve(welcome, "127.0.0.1", 0, ping_interval=None) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/playbook?a=1"
        await create(client, conversation_engine={"type": "external", "url": url, **engine})
        while not arrived:
            await at(emulator, emulator.clock.now_ms() + 1)
        yield arrived[0]


async def exchange(socket, *messages, answers=1):
    """Send text as JSON and bytes as sound; give the answers."""
    for message in messages:
        await socket.send(message if isinstance(message, (bytes, str)) else json.dumps(message))
    return [json.loads(await socket.recv()) for _ in range(answers)]


def segment(what, uid):
    return {"type": f"avatar.speech.segment.{what}", "segment_uid": uid}


@on_emulator(viewer_after_ms=0)
async def test_the_caller_brings_its_headers_and_reports_a_segments_life(emulator, client):
    """Created, closed, started, ended: with both ids, and with times whose difference is the sound's length."""
    async with backend(emulator, client, headers={"X-Site": "kiosk-3"}) as socket:
        assert (socket.request.path, socket.request.headers["X-Site"]) == ("/playbook?a=1", "kiosk-3")
        [created] = await exchange(socket, segment("create", "s"))
        assert created == {**segment("created", "s"), "segment_id": "seg-1"}
        [closed, started, ended] = await exchange(socket, bytes(2 * RATE), segment("close", "s"), answers=3)
        assert closed == {**segment("closed", "s"), "segment_id": "seg-1"}
        assert (started["type"], ended["type"]) == tuple(f"avatar.speech.segment.playback.{what}" for what in ("started", "ended"))
        assert ended["timestamp"] - started["timestamp"] == pytest.approx(1.0)
    await at(emulator, emulator.clock.now_ms() + 100)
    assert emulator.sessions["sess-1"].reason == "socket", "our hanging up is the session's end"


@on_emulator(viewer_after_ms=0)
async def test_the_rules_of_segments(emulator, client):
    """Sound outside, a second open segment, a close of nothing, an unknown type and what is no JSON are errors, and the socket stays."""
    async with backend(emulator, client) as socket:
        wrong = [
            (bytes(960), "avatar.speech.segment.error"),
            (segment("close", "s"), "avatar.speech.segment.error"),
            ({"type": "avatar.dance"}, "message.type.error"),
            ({"type": ["a", "list"]}, "message.type.error"),
            ([1], "message.type.error"),
            ({"type": "avatar.speech.segment.create"}, "message.type.error"),
            ("not JSON", "json.parsing.error"),
        ]
        for message, subtype in wrong:
            [answer] = await exchange(socket, message if isinstance(message, (bytes, str)) else json.dumps(message))
            assert (answer["type"], answer["subtype"]) == ("error", subtype)
        [created, refused] = await exchange(socket, segment("create", "a"), segment("create", "b"), answers=2)
        assert (created["segment_uid"], refused["subtype"]) == ("a", "avatar.speech.segment.error")
        await exchange(socket, {"type": "sdk.message.send", "data": {"slide": 3}}, answers=0)
    assert [entry["data"] for entry in emulator.journal if entry.get("type") == "sdk.message.send"] == [{"slide": 3}]


@on_emulator(viewer_after_ms=0, tail_ms=200)
async def test_an_interrupt_discards_everything_and_reports_only_what_played(emulator, client):
    """`played_duration` with the tail; of a segment that never began, not a word; a late close is still acknowledged."""
    async with backend(emulator, client) as socket:
        sound = bytes(2 * RATE * 3)
        messages = [segment("create", "a"), sound, segment("close", "a"), segment("create", "b"), sound]
        answers = await exchange(socket, *messages, answers=4)
        assert [answer["type"].rpartition("segment.")[2] for answer in answers] == ["created", "closed", "created", "playback.started"]
        await at(emulator, emulator.clock.now_ms() + 1_000)
        [closed, interrupted] = await exchange(socket, {"type": "avatar.speech.interrupt"}, sound, segment("close", "b"), answers=2)
        assert (closed["type"], closed["segment_uid"]) == ("avatar.speech.segment.closed", "b")
        assert interrupted["segment_uid"] == "a"
        assert interrupted["played_duration"] == pytest.approx(1.2, abs=0.01)
        await at(emulator, emulator.clock.now_ms() + 10_000)
    assert [task for task, _, _ in said(emulator)] == ["a"]


@on_emulator(viewer_after_ms=0)
async def test_a_long_segment_begins_while_it_is_still_open(emulator, client):
    """`playback.started` comes before the close; the avatar falls silent when it has spoken what is there, and goes on with what comes."""
    async with backend(emulator, client) as socket:
        [_, started] = await exchange(socket, segment("create", "a"), bytes(2 * RATE), answers=2)
        assert started["type"].endswith("playback.started")
        await at(emulator, emulator.clock.now_ms() + 5_000)
        [closed, ended] = await exchange(socket, bytes(2 * RATE), segment("close", "a"), answers=2)
        assert (closed["type"].rpartition(".")[2], ended["type"].rpartition(".")[2]) == ("closed", "ended")
        assert ended["timestamp"] - started["timestamp"] == pytest.approx(6.0, abs=0.01)


@on_emulator
async def test_nobody_outside_of_this_machine_is_called(emulator, client):
    """A public address is refused, and the session ends, as when nobody answers."""
    await create(client, conversation_engine={"type": "external", "url": "wss://avatar.example.com/x"})
    await create(client, conversation_engine={"type": "external", "url": "ws://127.0.0.1:1/x"})
    await at(emulator, 1_000)
    assert [session.reason for session in emulator.sessions.values()] == ["socket", "socket"]
    assert [entry["what"] for entry in emulator.journal if entry["what"].startswith("dial")] == ["dial_refused", "dial_failed"]


@on_emulator(viewer_after_ms=0, microphone=True)
async def test_the_microphone_comes_at_the_rate_that_was_asked_for(emulator, client):
    """Binary frames of 20 ms, from the beginning."""
    async with backend(emulator, client, audio={"user": {"sample_rate": 16_000}}) as socket:
        frames = [await socket.recv() for _ in range(3)]
        assert [len(frame) for frame in frames] == [640, 640, 640]
        assert emulator.clock.now_ms() <= 100


@on_emulator(viewer_after_ms=0)
async def test_the_socket_is_kept_alive_by_pings_and_its_end_ends_the_session(emulator, client):
    """An hour of silence does not close it; `max_duration` does."""
    async with backend(emulator, client) as socket:
        await at(emulator, 3_590_000)
        assert emulator.sessions["sess-1"].alive
        await socket.wait_closed()
        assert emulator.sessions["sess-1"].reason == "duration"
        assert emulator.clock.now_ms() >= 3_600_000
