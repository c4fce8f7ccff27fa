"""The emulator of Tavus by itself: its REST calls in both generations of names, and its room."""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from playbook import clock
from playbook.emulators.faults import Injection
from playbook.errors import UsageError
from playbook.providers.tavus.emulator import TavusEmulator
from playbook.transports.room import AppMessage, Door, ParticipantJoined, RoomFailure, RoomLost, SocketRoom
from tests.rooms import Events


def play(script, **options: Any) -> TavusEmulator:
    """Run `script(client, emulator)` against an emulator, on the virtual clock."""

    async def main() -> TavusEmulator:
        emulator = TavusEmulator(**options)
        async with emulator.serve() as url, httpx.AsyncClient(base_url=url, headers={"x-api-key": "k"}) as client:
            await script(client, emulator)
        return emulator

    return clock.run(main(), "virtual")


@asynccontextmanager
async def in_room(client: httpx.AsyncClient, **wanted: Any):
    """A conversation, and a guest in its room."""
    created = (await client.post("/v2/conversations", json={"pal_id": "p1", **wanted})).json()
    events = Events()
    room = SocketRoom(events)
    await room.open(Door(created["conversation_url"], created.get("meeting_token")))
    try:
        yield created["conversation_id"], room, events
    finally:
        await room.close()


def told(events: Events) -> list[tuple[str, Any]]:
    """What the face reported: kinds and roles."""
    messages = [event.message for event in events.of(AppMessage)]
    return [
        (message["event_type"], message.get("properties", {}).get("role")) for message in messages if "speaking" in message["event_type"]
    ]


CALLS = [
    ("POST", "/v2/pals", {"pal_name": "Echo", "pipeline_mode": "echo"}, 400, {"error": "default_face_id is required"}),
    ("POST", "/v2/personas", {"persona_name": "Echo", "pipeline_mode": "echo"}, 200, None),
    ("POST", "/v2/pals", {"pal_name": "Full", "pipeline_mode": "full"}, 400, {"error": "system_prompt is required"}),
    ("POST", "/v2/pals", {"pal_name": "Odd", "pipeline_mode": "odd"}, 400, {"error": "pipeline_mode must be full or echo"}),
    ("GET", "/v2/pals/p-nobody", None, 400, {"error": "Invalid pal_id"}),
    ("GET", "/v2/personas/p-nobody", None, 400, {"error": "Invalid persona_id"}),
    ("DELETE", "/v2/pals/p-nobody", None, 400, {"error": "Invalid id"}),
    ("POST", "/v2/conversations", {"persona_id": "p-nobody"}, 400, {"error": "Invalid persona_id"}),
    ("POST", "/v2/conversations", {"pal_id": "p1", "max_participants": 1}, 400, {"error": "max_participants must be at least 2"}),
    ("POST", "/v2/conversations", {"pal_id": "p1", "colour": "red"}, 400, {"error": "{'colour': ['Unknown field.']}"}),
    ("POST", "/v2/conversations", {"pal_id": "p1", "test_mode": "yes"}, 400, {"error": "{'test_mode': ['Not a valid bool.']}"}),
    ("POST", "/v2/conversations", {"pal_id": "p1", "properties": {"max_call_duration": True}}, 400, None),
    ("POST", "/v2/conversations", [1], 400, {"error": "the body is not an object"}),
    ("POST", "/v2/conversations/c9/end", None, 400, {"error": "Invalid conversation_id"}),
    ("GET", "/v2/conversations/c9", None, 400, {"error": "Invalid conversation_id"}),
    ("DELETE", "/v2/conversations/c9", None, 400, {"error": "Invalid conversation_id"}),
    ("GET", "/v2/conversations?limit=x", None, 400, {"error": "limit and page are numbers"}),
    ("GET", "/v2/nothing", None, 404, {"message": "Not Found"}),
    ("PATCH", "/v2/pals/p1", {"op": "replace"}, 400, {"error": "a JSON Patch of a PAL that exists is expected"}),
]


def test_calls_are_refused_as_documented():
    """Status and body, call by call; nothing is created by a refused one."""

    async def script(client, emulator):
        await client.post("/v2/pals", json={"pal_name": "Echo", "pipeline_mode": "echo", "default_face_id": "r1"})
        for method, path, body, status, answer in CALLS:
            response = await client.request(method, path, json=body)
            assert response.status_code == status, (method, path, response.text)
            assert answer is None or response.json() == answer
        keyless = await client.get("/v2/pals", headers={"x-api-key": ""})
        assert (keyless.status_code, keyless.json()) == (401, {"message": "Invalid access token"})
        assert emulator.sessions == {}

    play(script, known_pals="made")


def test_a_pal_goes_by_both_generations_of_names():
    """Made by one, seen by the other; lists come in pages; a JSON Patch changes it; a deletion ends it."""

    async def script(client, emulator):
        made = (await client.post("/v2/pals", json={"pal_name": "Echo", "pipeline_mode": "echo", "default_face_id": "r1"})).json()
        id = made["pal_id"]
        [persona] = (await client.get(f"/v2/personas/{id}")).json()["data"]
        assert (persona["persona_id"], persona["persona_name"], persona["default_replica_id"]) == (id, "Echo", "r1")
        patch = [{"op": "replace", "path": "/pal_name", "value": "Other"}]
        assert [(await client.patch(f"/v2/pals/{id}", json=patch)).status_code for _ in range(2)] == [200, 304]
        for n in range(12):
            await client.post("/v2/personas", json={"persona_name": f"Echo {n}", "pipeline_mode": "echo"})
        page = (await client.get("/v2/pals?page=2&pal_type=user")).json()
        assert (len(page["data"]), page["total_count"]) == (3, 13)
        assert (await client.delete(f"/v2/personas/{id}")).status_code == 204
        assert (await client.get(f"/v2/pals/{id}")).status_code == 400
        faces = [(await client.get(f"/v2/{kind}")).json()["data"][0] for kind in ("faces", "replicas")]
        assert (faces[0]["face_id"], faces[1]["replica_id"]) == ("r-emulated", "r-emulated")

    play(script, known_pals="made")


def test_the_life_of_a_conversation():
    """Created, listed, looked at, ended, looked at again with its reason, ended once more, deleted."""

    async def script(client, emulator):
        created = (await client.post("/v2/conversations", json={"pal_id": "p1", "conversation_name": "Lobby"})).json()
        id = created["conversation_id"]
        assert (created["status"], created["conversation_name"], "meeting_token" in created) == ("active", "Lobby", False)
        assert [item["conversation_id"] for item in (await client.get("/v2/conversations?status=active")).json()["data"]] == [id]
        assert (await client.get(f"/v2/conversations/{id}")).json()["persona_id"] == "p1"
        await emulator.clock.sleep_until(5_000)
        assert (await client.post(f"/v2/conversations/{id}/end")).status_code == 200
        facts = (await client.get(f"/v2/conversations/{id}?verbose=true")).json()
        assert (facts["status"], facts["shutdown_reason"]) == ("ended", "end_conversation_endpoint_hit")
        assert [event["event_type"] for event in facts["events"]] == ["system.pal_joined", "system.replica_joined", "system.shutdown"]
        assert (await client.post(f"/v2/conversations/{id}/end")).status_code == 400
        assert (await client.get("/v2/conversations?status=active")).json() == {"data": [], "total_count": 0}
        assert (await client.delete(f"/v2/conversations/{id}")).status_code == 204

    play(script)


def test_test_mode_is_over_at_once():
    """No cost, no slot, nobody in the room."""

    async def script(client, emulator):
        created = (await client.post("/v2/conversations", json={"pal_id": "p1", "test_mode": True})).json()
        assert created["status"] == "ended"
        assert emulator.open_sessions == ()
        with pytest.raises(RoomFailure, match="there is no such room"):
            await SocketRoom(Events()).open(Door(created["conversation_url"]))

    play(script)


@pytest.mark.parametrize(
    ("wanted", "come", "ended_ms", "why"),
    [
        ({"participant_absent_timeout": 60}, False, 60_000, "participant_absent_timeout reached"),
        ({"max_call_duration": 90}, True, 90_000, "max_call_duration reached"),
        ({"participant_left_timeout": 30}, "leaves", 31_000, "participant_left_timeout reached"),
        ({}, "leaves", 1_000, "participant_left_timeout reached"),
    ],
)
def test_time_limits(wanted, come, ended_ms, why):
    """By the clock, each with the reason that Tavus gives."""

    async def script(client, emulator):
        if not come:
            await client.post("/v2/conversations", json={"pal_id": "p1", "properties": wanted})
            await emulator.clock.sleep_until(500_000)
        else:
            async with in_room(client, properties=wanted) as (_, _room, events):
                await emulator.clock.sleep_until(1_000 if come == "leaves" else 500_000)
                if come is True:
                    assert events[-1] == RoomLost("other", "the meeting has ended", events[-1].age_ms)
            await emulator.clock.sleep_until(500_000)
        [conversation] = emulator.sessions.values()
        assert (conversation.ended_ms, conversation.events[-1]["properties"]["reason"]) == (ended_ms, why)

    play(script)


def echo(text: str, id: str = "one", **more: Any) -> dict[str, Any]:
    properties = {"modality": "text", "text": text, "inference_id": id, **more}
    return {"message_type": "conversation", "event_type": "conversation.echo", "properties": properties}


def test_the_face_speaks_what_it_is_told_once_it_is_there():
    """Before it came a message is lost; its reports come in three copies, with growing `seq` and another id than ours."""

    async def script(client, emulator):
        async with in_room(client) as (_, room, events):
            await room.send(echo("Too early.", "lost"))
            await events.first(ParticipantJoined, count=2)
            await room.send(echo("Hello."))
            await emulator.clock.sleep_until(3_000)
            copies = [(f"conversation.{{}}{what}_speaking", role) for what in ("started", "stopped") for role in ("pal", "replica", None)]
            assert told(events) == [(kind.format("replica." if role is None else ""), role) for kind, role in copies]
            messages = [event.message for event in events.of(AppMessage)]
            assert [message["seq"] for message in messages] == sorted(message["seq"] for message in messages)
            assert {message["inference_id"] for message in messages if "speaking" in message["event_type"]}.isdisjoint({"one"})
            assert messages[-1]["properties"] == {"interrupted": False, "duration": 0.36}

    emulator = play(script)
    assert [entry["task"] for entry in emulator.journal if entry["what"] == "speech_started"] == ["one"]


def test_done_as_text_is_understood():
    """`"false"` is no end, whatever a careless program would make of it."""

    async def script(client, emulator):
        async with in_room(client) as (_, room, _events):
            await emulator.clock.sleep_until(1_000)
            await room.send(echo("One, ", done="false"))
            await room.send(echo("two.", done="true"))
            await emulator.clock.sleep_until(5_000)
            [line] = emulator.open_sessions[0].queue.lines
            assert (line.text, line.state) == ("One, two.", "done")

    play(script)


def test_a_sound_begins_with_its_first_tenth_of_a_second():
    """While the rest is still being sent; sound that cannot be read is passed over."""

    async def script(client, emulator):
        async with in_room(client) as (_, room, _events):
            await emulator.clock.sleep_until(1_000)
            piece = base64.b64encode(bytes(2_400)).decode()  # 50 ms
            sound = {"modality": "audio", "audio": piece, "sample_rate": 24_000}
            for at_ms in range(1_000, 3_000, 50):
                await emulator.clock.sleep_until(at_ms)
                await room.send(echo("", "sound", **{**sound, "done": at_ms == 2_950}))
                await room.send(echo("", "junk", **{**sound, "audio": "?"}))
            await emulator.clock.sleep_until(6_000)
            [line] = emulator.open_sessions[0].queue.lines
            assert (line.started_ms, line.length_ms, line.heard_ms) == (1_250, 2_000, 2_000)

    play(script)


def test_people_come_and_go():
    """Another guest hears our messages, is told of us and counts; a room that is full or private turns people away."""

    async def script(client, emulator):
        async with in_room(client, max_participants=4, require_auth=True) as (id, room, _events):
            conversation = emulator.sessions[id]
            await emulator.clock.sleep_until(1_000)
            with pytest.raises(RoomFailure, match="401"):
                await SocketRoom(Events()).open(Door(f"{emulator._rooms}{id}"))
            second = Events()
            other = SocketRoom(second)
            await other.open(Door(f"{emulator._rooms}{id}", conversation.token))
            await room.send({"hello": 1})
            assert (await second.first(AppMessage)).message == {"hello": 1}
            conversation.connect_viewer()
            with pytest.raises(RoomFailure, match="MeetingFull"):
                await SocketRoom(Events()).open(Door(f"{emulator._rooms}{id}", conversation.token))
            await other.close()
            conversation.disconnect_viewer()
            assert conversation.viewers == 1

    play(script)


def test_the_control_page_and_the_journal_show_no_secret():
    """Keys and tokens are masked, sounds are told by their size."""

    async def script(client, emulator):
        async with in_room(client, require_auth=True) as (id, room, _events):
            await emulator.clock.sleep_until(1_000)
            await room.send(echo("", "s", modality="audio", audio="AAAA" * 100, sample_rate=24_000, done=True))
            page = (await client.get("/_emulator/journal")).text
            assert emulator.sessions[id].token not in page
            assert "400 characters" in page
            known = (await client.get("/_emulator/faults")).json()["known"]
            assert "end-missing" in known
            assert "half-body" not in known

    play(script)


def test_options_that_are_none_are_refused():
    """With those that there are."""
    with pytest.raises(UsageError, match="the option ids cannot be odd"):
        TavusEmulator(ids="odd")
    with pytest.raises(UsageError, match="tavus cannot show the fault 'half-body'"):
        TavusEmulator(faults=["half-body"])


def test_concurrency_and_injections():
    """The account's limit is a 400 with `message`; an answer can be spoiled."""

    async def script(client, emulator):
        codes = [(await client.post("/v2/conversations", json={"pal_id": "p1"})).status_code for _ in range(2)]
        assert codes == [200, 400]
        emulator.injections.append(Injection("close", path="/v2/pals"))
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/v2/pals")

    play(script, max_concurrent=1)
