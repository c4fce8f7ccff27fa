"""Cassettes: what a provider answered, recorded at the seam and played back without a network."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
from pathlib import Path

import jsonschema
import pytest

from playbook import clock
from playbook.errors import ProviderError, RecordError, SetupError
from playbook.transports.cassette import Cassette, CassetteMiss
from playbook.transports.http import Answer, Http, NetworkError, Request, Retry
from playbook.transports.room import AppMessage, ClipEnded, Door, Participant, ParticipantJoined, RoomFailure, SoundHeard

from .logs import ROOT, checked, closings

TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
URL = "http://127.0.0.1:9"


class Vendor:
    """Answers in its own time, and remembers what it was asked."""

    def __init__(self, *answers: Answer | NetworkError, after_ms: int = 120) -> None:
        self.answers, self.after_ms, self.asked = list(answers), after_ms, []

    async def __call__(self, request: Request) -> Answer:
        self.asked.append(request)
        now = clock.Clock()
        await now.sleep_until(self.after_ms)
        answer = self.answers.pop(0)
        if isinstance(answer, NetworkError):
            raise answer
        return answer


def answer(status: int = 200, body: object = None, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return Answer(status, headers, content)


def on_tape(cassette: Cassette, work, vendor: Vendor | None = None):
    """Do some work against a cassette, on the virtual clock, and close it. Returns the result and how long it took."""

    async def all_of_it():
        now = clock.Clock()
        with cassette:
            result = await work(cassette.http(vendor or Vendor()))
        return result, now.now_ms()

    return clock.run(all_of_it(), "virtual")


def lines_of(path: Path) -> list[dict]:
    schema = json.loads((ROOT / "schemas" / "cassette.schema.json").read_text())
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        jsonschema.Draft7Validator(schema).validate(line)
    return lines


async def two_requests(send):
    first = await send(Request("POST", "/v1/say", json={"text": "one"}))
    second = await send(Request("GET", "/v1/state", params={"full": "1"}))
    return first, second


def recorded(path: Path) -> None:
    vendor = Vendor(answer(201, {"id": "a"}, **{"content-type": "application/json", "retry-after": "2"}), answer(200, b"plain"))
    on_tape(Cassette(path, "once", provider="x", playbook="p"), two_requests, vendor)


# --- HTTP -----------------------------------------------------------------------------------------------------------------


def test_what_was_recorded_is_played(tmp_path):
    """Status, headers that matter, body and the time it took come back; nobody is asked."""
    path = tmp_path / "tape.jsonl"
    recorded(path)
    assert [line.get("took_ms") for line in lines_of(path)] == [None, 120, 120]
    nobody = Vendor()
    (first, second), took_ms = on_tape(Cassette(path), two_requests, nobody)
    assert (first.status, first.json(), first.headers["retry-after"]) == (201, {"id": "a"}, "2")
    assert (second.status, second.body) == (200, b"plain")
    assert took_ms == 240
    assert nobody.asked == []


@pytest.mark.parametrize(
    ("request_", "body"),
    [
        (Request("POST", "/json", json={"é": ["\ud800", None, 1.5]}), b'{"a": [1, null, "\\u00e9"]}'),
        (Request("POST", "/form", data={"a": "b"}, files={"file": ("x.wav", b"\x00\xff", "audio/wav")}), b""),
        (Request("PUT", "/bytes", content=b"\xff\xfe"), b"\xff\x00binary"),
        (Request("PUT", "/text", content=b"plain", headers={"X-Y": "z"}), b"null"),
        (Request("POST", "/lines", json={"text": "one\u2028two\u0085three"}), "four\u2029five".encode()),
        (Request("DELETE", "/nothing"), b"[]"),
    ],
)
def test_every_kind_of_body(tmp_path, request_, body):
    """JSON, forms with files, bytes and text are told apart, recorded readably and matched again."""
    path = tmp_path / "tape.jsonl"
    on_tape(Cassette(path, "all"), lambda send: send(request_), Vendor(answer(200, body)))
    lines_of(path)
    played, _ = on_tape(Cassette(path), lambda send: send(request_))
    assert played.body == body or played.json() == json.loads(body)


def test_failures_are_recorded_too(tmp_path):
    """A connection that was refused or lost is refused or lost again, and means the same."""
    path = tmp_path / "tape.jsonl"
    failure = NetworkError("connection refused by 127.0.0.1", outcome="refused", passing=False)

    async def work(send):
        with pytest.raises(NetworkError) as caught:
            await send(Request("GET", "/"))
        return caught.value.message, caught.value.outcome, caught.value.passing

    first, _ = on_tape(Cassette(path, "all"), work, Vendor(failure))
    again, _ = on_tape(Cassette(path), work)
    assert first == again == ("connection refused by 127.0.0.1", "refused", False)


def test_equal_requests_are_answered_in_order(tmp_path):
    """The same question asked twice gets its two answers, in their order, each once; other questions may come between."""
    path = tmp_path / "tape.jsonl"

    async def work(send):
        return [(await send(Request("GET", f"/{name}"))).json() for name in ("a", "b", "a")]

    assert on_tape(Cassette(path, "all"), work, Vendor(answer(body=1), answer(body=2), answer(body=3)))[0] == [1, 2, 3]

    async def other_order(send):
        return [(await send(Request("GET", f"/{name}"))).json() for name in ("a", "a", "b")]

    assert on_tape(Cassette(path), other_order)[0] == [1, 3, 2]


def test_a_cassette_stands_in_for_the_network_of_the_real_client(tmp_path):
    """`Http` with a cassette needs no server and no key; its own retries and errors work on what was recorded."""
    path = tmp_path / "tape.jsonl"
    cassette = Cassette(path, "all")
    vendor = Vendor(answer(429, {"error": "slow down"}, **{"retry-after": "1"}), answer(200, {"ok": True}), answer(404, {"error": "gone"}))

    async def work(cassette, send=None):
        http = Http(URL, headers={"Authorization": "Bearer a-key"}).wrap(lambda real: cassette.http(send or real))
        async with http:
            first = await http.request("POST", "/say", retry=Retry.UNSENT, json={"text": "x"})
            with pytest.raises(ProviderError) as caught:
                await http.request("DELETE", "/session", retry=Retry.NEVER)
        cassette.close()
        return first.json(), caught.value.message, caught.value.status

    assert clock.run(work(cassette, vendor), "virtual") == clock.run(work(Cassette(path)), "virtual")
    assert "a-key" not in path.read_text()


# --- misses and modes -----------------------------------------------------------------------------------------------------


def test_a_miss_shows_the_nearest(tmp_path):
    """What was not recorded is an error with the nearest recorded request, its line, and what differs; nothing is invented."""
    path = tmp_path / "tape.jsonl"
    recorded(path)
    with pytest.raises(CassetteMiss) as caught:
        on_tape(Cassette(path), lambda send: send(Request("POST", "/v1/say", json={"text": "two", "voice": "x"})))
    text = caught.value.message
    assert "has no answer to POST /v1/say" in text
    assert "line 2" in text
    assert 'json.text: recorded "one", asked "two"' in text
    assert 'json.voice: recorded nothing, asked "x"' in text
    assert caught.value.outcome == "refused"

    async def twice(send):
        await send(Request("POST", "/v1/say", json={"text": "one"}))
        await send(Request("POST", "/v1/say", json={"text": "one"}))

    with pytest.raises(CassetteMiss, match="recorded once, and has been used"):
        on_tape(Cassette(path), twice)


def test_none_only_plays(tmp_path):
    """`none` needs a cassette that is there, and changes nothing."""
    path = tmp_path / "tape.jsonl"
    with pytest.raises(SetupError, match="there is no cassette"):
        Cassette(path)
    recorded(path)
    before = path.read_bytes()
    on_tape(Cassette(path), two_requests)
    assert path.read_bytes() == before


def test_once_records_once(tmp_path):
    """`once` records what is not there yet, and afterwards only plays."""
    path = tmp_path / "tape.jsonl"
    recorded(path)
    before = path.read_bytes()
    (first, _), _ = on_tape(Cassette(path, "once"), two_requests, Vendor())
    assert first.json() == {"id": "a"}
    with pytest.raises(CassetteMiss):
        on_tape(Cassette(path, "once"), lambda send: send(Request("GET", "/new")), Vendor(answer()))
    assert path.read_bytes() == before


def test_new_episodes_keeps_and_adds(tmp_path):
    """`new_episodes` plays what is there and records what is not, behind it."""
    path = tmp_path / "tape.jsonl"
    recorded(path)
    before = lines_of(path)

    async def work(send):
        await two_requests(send)
        return await send(Request("GET", "/new"))

    on_tape(Cassette(path, "new_episodes"), work, Vendor(answer(200, {"new": True})))
    after = lines_of(path)
    assert after[1:3] == before[1:]
    assert [line["http"]["path"] for line in after[1:]] == ["/v1/say", "/v1/state", "/new"]
    assert on_tape(Cassette(path), work)[0].json() == {"new": True}


def test_new_episodes_never_spoils_a_recorded_run(tmp_path):
    """What was played lives on the cassette alone: nobody is asked to change it, and what is said of it is not recorded."""
    path = tmp_path / "tape.jsonl"
    recorded(path)
    before = path.read_bytes()
    nobody = Vendor()

    async def other_words(send):
        await send(Request("POST", "/v1/say", json={"text": "two"}))

    cassette = Cassette(path, "new_episodes")
    with pytest.raises(CassetteMiss) as caught:
        on_tape(cassette, other_words, nobody)
    assert "--record-mode all" in caught.value.remedy
    assert cassette.misses == [caught.value]
    assert nobody.asked == []

    async def new_read_of_the_session(send):
        await send(Request("POST", "/v1/say", json={"text": "one"}))
        await send(Request("GET", "/of-no-session"))
        await send(Request("GET", "/of-the-session"))

    with pytest.raises(CassetteMiss, match="GET /of-the-session"):
        on_tape(Cassette(path, "new_episodes"), new_read_of_the_session, Vendor(answer(body=1), answer(404, {"error": "gone"})))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["tape.jsonl"]


def test_new_episodes_records_a_whole_run(tmp_path):
    """Where the cassette has reads alone, a run is recorded behind them, with what is read of its session from then on."""
    path = tmp_path / "tape.jsonl"
    on_tape(Cassette(path, "all"), lambda send: send(Request("GET", "/state")), Vendor(answer(body="none")))

    async def work(send):
        asked = (Request("GET", "/state"), Request("POST", "/create"), Request("GET", "/state"), Request("DELETE", "/session"))
        return [(await send(request)).json() for request in asked]

    vendor = Vendor(answer(body="made"), answer(body="open"), answer(body="over"))
    assert on_tape(Cassette(path, "new_episodes"), work, vendor)[0] == ["none", "made", "open", "over"]
    assert [request.method for request in vendor.asked] == ["POST", "GET", "DELETE"]
    assert on_tape(Cassette(path), work)[0] == ["none", "made", "open", "over"]


def test_all_records_anew(tmp_path):
    """`all` asks again and replaces the cassette, but only when it was closed: a run that breaks off leaves the old one."""
    path = tmp_path / "tape.jsonl"
    recorded(path)
    before = path.read_bytes()
    cassette = Cassette(path, "all")
    clock.run(cassette.http(Vendor(answer(200, {"id": "b"})))(Request("POST", "/v1/say", json={"text": "one"})), "virtual")
    assert path.read_bytes() == before
    cassette.close()
    assert lines_of(path)[1]["answer"]["json"] == {"id": "b"}
    assert [file.name for file in tmp_path.iterdir()] == ["tape.jsonl"]


def test_a_cassette_expires(tmp_path):
    """From its day on a cassette is refused when it is only played, and recorded anew when it may be."""
    path = tmp_path / "tape.jsonl"
    today = clock.wall_time().date()
    tomorrow, yesterday = today + datetime.timedelta(days=1), today - datetime.timedelta(days=1)
    for day, good in ((tomorrow, True), (today, False), (yesterday, False)):
        on_tape(Cassette(path, "all", expires=day), two_requests, Vendor(answer(body=1), answer(body=2)))
        if good:
            on_tape(Cassette(path), two_requests)
        else:
            with pytest.raises(RecordError, match="has expired on"):
                Cassette(path)
            vendor = Vendor(answer(body=3), answer(body=4))
            on_tape(Cassette(path, "once"), two_requests, vendor)
            assert len(vendor.asked) == 2


# --- secrets --------------------------------------------------------------------------------------------------------------


def test_secrets_are_removed_as_it_writes(tmp_path):
    """No token, key or sealed value is in the file at any moment; what is sealed later is removed when it is closed."""
    path = tmp_path / "tape.jsonl"
    cassette = Cassette(path, "all")
    sealed = {"planted-1"}

    def redact(text: str) -> str:
        for secret in sealed:
            text = text.replace(secret, "***")
        return text

    cassette.redact = redact
    body = {
        "token": "planted-2",
        "room": f"https://rooms.example/x?t={TOKEN}",
        "nested": [{"api_key": "planted-3", "note": "planted-1 here"}],
        "later": "planted-4",
        "thumbnail": "kept",
    }

    async def work(send):
        await send(Request("POST", "/planted-1/say", json={"password": "planted-5"}, headers={"Authorization": "Bearer planted-6"}))
        first = cassette._part.read_text()
        sealed.add("planted-4")
        return first

    first, _ = on_tape(cassette, work, Vendor(answer(200, body)))
    assert "planted-4" in first
    for text in (first.replace("planted-4", ""), path.read_text()):
        assert "planted" not in text
        assert "eyJ" not in text
    assert '"thumbnail": "kept"' in path.read_text()
    played = Cassette(path)
    played.redact = redact
    answered, _ = on_tape(
        played,
        lambda send: send(Request("POST", "/planted-1/say", json={"password": "another"}, headers={"Authorization": "Bearer other"})),
    )
    assert answered.json()["token"] == "***"


# --- edited by hand -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "is empty"),
        (lambda text: text[:-20], "line 3 is not JSON"),
        (lambda text: text.replace('"cassette": 1', '"cassette": 3'), "of version 3"),
        (lambda text: text.replace('"cassette": 1', '"tape": 2'), "is not a cassette"),
        (lambda text: "version: 1\nprovider: local\n", "is not a cassette"),
        (lambda text: text.replace('"provider": "x"', '"provider": "tavus"'), "was recorded with tavus, and this show is for x"),
        (lambda text: text.replace('"status": 201', '"status": "201"'), "line 2 is not one of a cassette"),
        (lambda text: text.replace('"took_ms": 120', '"took": 120'), "line 2 is not one of a cassette"),
        (lambda text: text.replace('"answer"', '"reply"'), "line 2 is not one of a cassette"),
        (lambda text: text + text.splitlines()[0] + "\n", "line 4 is not one of a cassette"),
        (lambda text: text.replace("recorded_at", 'expires": "2020-13-45", "recorded_at'), "is no date"),
        (lambda text: text + '{"at_ms": 1, "room": 1, "do": "dance"}\n', "line 4 is not one of a cassette"),
    ],
)
def test_a_cassette_edited_by_hand(tmp_path, change, message):
    """What an editor broke is told with its line; what it changed sensibly is played."""
    path = tmp_path / "tape.jsonl"
    recorded(path)
    path.write_text(change(path.read_text()))
    with pytest.raises(RecordError) as caught:
        Cassette(path, provider="x")
    assert message in caught.value.message


def test_a_sensible_edit_is_played(tmp_path):
    """An empty line and another answer are as good as recorded."""
    path = tmp_path / "tape.jsonl"
    recorded(path)
    path.write_text(path.read_text().replace('"id": "a"', '"id": "changed"').replace("\n", "\n\n"))
    (first, _), _ = on_tape(Cassette(path), two_requests)
    assert first.json() == {"id": "changed"}


def test_a_place_that_cannot_be_written(tmp_path):
    """A folder that is not there is told as such when recording begins."""
    with pytest.raises(SetupError, match="cannot be written"):
        on_tape(Cassette(tmp_path / "no" / "tape.jsonl", "all"), two_requests, Vendor(answer(), answer()))


# --- rooms ----------------------------------------------------------------------------------------------------------------


class FakeRoom:
    """A room that echoes: each message is said back in two parts, the third message is refused."""

    def __init__(self, on_event) -> None:
        self.on_event, self.sent, self.log = on_event, 0, []

    def later(self, ms: int, event) -> None:
        asyncio.get_running_loop().call_later(ms / 1000, self.on_event, event)

    async def open(self, door: Door) -> str:
        self.later(50, ParticipantJoined(Participant("face", "The face", audio=True)))
        await clock.Clock().sleep_until(80)
        return "us"

    def send(self, message: object) -> asyncio.Future[None]:
        self.sent += 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.sent == 3:
            asyncio.get_running_loop().call_later(0.01, done.set_exception, RoomFailure("too-long", "too long"))
            return done
        done.set_result(None)
        self.later(200, AppMessage({"started": message}, "face"))
        self.later(900, AppMessage({"ended": message, "token": "planted"}, "face"))
        return done

    def listen(self, participant: str) -> None:
        self.later(30, SoundHeard(participant, b"\x01\x00" * 4, 8000))

    def play(self, clip: str, pcm: bytes, *, final: bool = True) -> None:
        self.later(100, ClipEnded(clip, 100, False))

    def cut(self) -> None:
        self.log.append("cut")

    async def close(self) -> None:
        self.log.append("close")


def room_story(cassette: Cassette, make, *, pace_ms: int = 400):
    """What happens in a room, each with its time."""
    story = []

    async def show():
        now = clock.Clock()

        def heard(event):
            story.append((now.now_ms(), event))

        room = cassette.room(heard, make)
        story.append((now.now_ms(), await room.open(Door(f"wss://x?t={TOKEN}"))))
        room.listen("face")
        for text in ("one", "two", "three"):
            answered = room.send({"say": text})
            try:
                await answered
            except ProviderError as error:
                story.append((now.now_ms(), (error.message, error.outcome)))
            await now.sleep_until(now.now_ms() + pace_ms)
        room.play("clip", b"\x00\x00" * 80)
        room.cut()
        await now.sleep_until(3_000)
        await room.close()
        cassette.close()

    clock.run(show(), "virtual")
    return story


def test_a_room_is_recorded_and_played(tmp_path):
    """Events, refusals and sound come back as they were, at the times they came after what we did, without the room."""
    path = tmp_path / "tape.jsonl"
    live = room_story(Cassette(path, "all"), FakeRoom)
    assert len(live) >= 8
    lines_of(path)
    assert "planted" not in path.read_text()
    assert TOKEN not in path.read_text()

    def masked(story):
        return [
            (ms, AppMessage({**event.message, "token": "***"}, "face") if "token" in getattr(event, "message", ()) else event)
            for ms, event in story
        ]

    def nobody(_):
        raise AssertionError("the real room is not asked")

    assert room_story(Cassette(path), nobody) == masked(live)


def test_what_happened_at_one_time_happens_in_order(tmp_path):
    """Many events of one moment come again in the order in which they came."""

    class Crowd(FakeRoom):
        def listen(self, participant: str) -> None:
            def all_at_once() -> None:
                for number in range(20):
                    self.on_event(AppMessage({"number": number}, participant))

            asyncio.get_running_loop().call_later(0.03, all_at_once)

    path = tmp_path / "tape.jsonl"
    room_story(Cassette(path, "all"), Crowd)
    played = [event.message["number"] for _, event in room_story(Cassette(path), Crowd) if "number" in getattr(event, "message", ())]
    assert played == list(range(20))


def test_a_room_that_goes_on_differently(tmp_path):
    """What we do in another order, or otherwise, is an error that shows what was recorded; closing is always possible."""
    path = tmp_path / "tape.jsonl"
    room_story(Cassette(path, "all"), FakeRoom)

    async def other():
        room = Cassette(path).room(lambda _: None, FakeRoom)
        await room.open(Door("wss://x"))
        room.listen("face")
        with pytest.raises(CassetteMiss) as caught:
            await room.send({"say": "eins"})
        with pytest.raises(CassetteMiss):
            room.cut()
        await room.close()
        return caught.value.message

    message = clock.run(other(), "virtual")
    assert 'message.say: recorded "one", done "eins"' in message
    assert "at line" in message


def test_a_room_that_was_not_recorded(tmp_path):
    """A second room, of which the cassette knows nothing, is an error; so is sound that an editor broke."""
    path = tmp_path / "tape.jsonl"
    room_story(Cassette(path, "all"), FakeRoom)
    cassette = Cassette(path)
    cassette.room(lambda _: None, FakeRoom)
    with pytest.raises(CassetteMiss, match="no room number 2"):
        cassette.room(lambda _: None, FakeRoom)
    sound = base64.b64encode(b"\x01\x00" * 4).decode()
    text = path.read_text()
    assert sound in text
    path.write_text(text.replace(sound, "!!"))
    with pytest.raises(RecordError, match="none of a room"):
        Cassette(path)


# --- sockets that the vendor dials ----------------------------------------------------------------------------------------

SOCKET = "wss://tunnel.example/{}?secret=planted"


class FakeSocket:
    """Somebody dials after 70 ms and says back what it is told, and our secrets; it takes 2 ms for a byte of sound, and none that is bad.
    It hangs up when it is told to."""

    strangers = 1

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[str | None] = asyncio.Queue()

    def later(self, ms: int, text: str | None) -> None:
        asyncio.get_running_loop().call_later(ms / 1000, self.inbox.put_nowait, text)

    async def start(self) -> str:
        self.url = SOCKET.format(4711)
        return self.url

    async def caller(self, within_s: float) -> bool:
        await clock.Clock().sleep_until(70)
        return True

    async def send(self, message: str | bytes) -> None:
        if message == b"bad":
            await asyncio.get_running_loop().create_future()
        elif isinstance(message, bytes):
            await clock.Clock().sleep_until(2 * len(message))
        elif message == "leave":
            self.later(10, None)
        else:
            self.later(40, json.dumps({"said": message, "token": "planted", "at": self.url, "ours": "a planted-secret"}))
            self.later(60, "no JSON, but a planted-secret at " + self.url)
            self.later(80, "[" * 900 + "]" * 900)

    async def texts(self):
        while (text := await self.inbox.get()) is not None:
            yield text

    async def aclose(self) -> None:
        self.later(0, None)


def socket_story(cassette: Cassette, make=FakeSocket, *, words: str = "hello", sound: bytes = b"abc"):
    """What happens on a socket, each with its time."""
    story = []
    cassette.redact = lambda text: text.replace("planted-secret", "***")

    async def show():
        now = clock.Clock()
        socket = cassette.listener(SOCKET.format(0), make)

        async def read():
            async for text in socket.texts():
                story.append((now.now_ms(), text))
            story.append((now.now_ms(), "hung up"))

        url = await socket.start()
        send = cassette.http(Vendor(answer(201, {"id": "a"})))
        await send(Request("POST", "/sessions", json={"url": url, "headers": {"X-Secret": words}}))
        story.append((now.now_ms(), await socket.caller(10), socket.strangers))
        reader = asyncio.ensure_future(read())
        await socket.send(json.dumps({"say": "hello"}))
        for _ in range(20):
            await socket.send(sound)
            story.append((now.now_ms(), "taken"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await socket.send(b"bad")
        await socket.send("leave")
        await reader
        await socket.aclose()
        await socket.aclose()
        cassette.close()

    clock.run(show(), "virtual")
    return story


def nobody_dials():
    raise AssertionError("no port is opened")


def test_a_socket_is_recorded_and_played(tmp_path):
    """Who came, what it said, how slowly it took our sound and when it hung up come back at their times, without a port; that the address
    and its secret were others is no matter."""
    path = tmp_path / "tape.jsonl"
    live = socket_story(Cassette(path, "all"))
    assert [line.get("on") or line.get("do") for line in lines_of(path) if "socket" in line][:4] == ["listen", "caller", "send", "sound"]
    text = path.read_text()
    assert "planted" not in text
    assert "tunnel.example" not in text
    assert '"url": "socket:1"' in text
    played = socket_story(Cassette(path), nobody_dials, words="another secret")
    (taken, heard), (taken_again, heard_again) = (
        ([entry for entry in story if entry[1] == "taken"], [entry for entry in story if entry[1] != "taken"]) for story in (live, played)
    )
    assert [ms for ms, *_ in heard] == [ms for ms, *_ in heard_again]
    assert all(0 <= before - after < 24 for (before, _), (after, _) in zip(taken, taken_again, strict=True)), "sound goes out in stretches"
    (_, came, strangers), (_, said), (_, raw), (_, deep), (_, last) = heard_again
    assert (came, strangers) == (True, 1)
    assert json.loads(said) == {"said": '{"say": "hello"}', "token": "***", "at": "socket:1", "ours": "a ***"}
    assert raw == "no JSON, but a *** at socket:1"
    assert deep == "[" * 900 + "]" * 900
    assert last == "hung up"
    assert socket_story(Cassette(path), nobody_dials) == played


def test_a_socket_that_goes_on_differently(tmp_path):
    """Other sound is an error that shows the line and what differs; so is what comes after the end, and a socket that was not recorded."""
    path = tmp_path / "tape.jsonl"
    socket_story(Cassette(path, "all"))
    with pytest.raises(CassetteMiss) as caught:
        socket_story(Cassette(path), nobody_dials, sound=b"abcd")
    assert "the socket in tape.jsonl went on differently at line 6:" in caught.value.message
    assert 'bytes: recorded "12 bytes, sha256 ' in caught.value.message

    async def more():
        cassette = Cassette(path)
        socket = cassette.listener("", nobody_dials)
        with pytest.raises(CassetteMiss, match='do: recorded "listen", done "send"'):
            await socket.send("too early")
        with pytest.raises(CassetteMiss, match="has no socket number 2"):
            cassette.listener("", nobody_dials)
        await socket.aclose()

    clock.run(more(), "virtual")


def test_nobody_came(tmp_path):
    """A wait in vain takes as long again, and tells of the strangers that came instead. An address that is nothing changes nothing."""

    class Deserted(FakeSocket):
        strangers = 3

        async def caller(self, within_s: float) -> bool:
            await clock.Clock().sleep_until(round(within_s * 1000))
            return False

    async def waited(cassette: Cassette, make):
        with cassette:
            now, socket = clock.Clock(), cassette.listener("", make)
            await socket.start()
            return await socket.caller(5), socket.strangers, now.now_ms()

    path = tmp_path / "tape.jsonl"
    assert clock.run(waited(Cassette(path, "all"), Deserted), "virtual") == (False, 3, 5_000)
    assert clock.run(waited(Cassette(path), nobody_dials), "virtual") == (False, 3, 5_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"came": true', '"come": true'), "line 4 is not one of a cassette"),
        (lambda text: text.replace('"came": true, ', ""), "none of a socket: caller"),
        (lambda text: text.replace('"do": "listen"', '"do": "lurk"'), "line 2 is not one of a cassette"),
        (lambda text: text.replace('"on": "hangup"', '"on": "message"'), "none of a socket: message"),
        (lambda text: text.replace(', "took_ms": 24', ', "took_ms": -24'), "line 6 is not one of a cassette"),
        (lambda text: text.replace('"socket": 1', '"socket": 0'), "line 2 is not one of a cassette"),
    ],
)
def test_a_recorded_socket_edited_by_hand(tmp_path, change, message):
    """What an editor broke is told before anything is performed."""
    path = tmp_path / "tape.jsonl"
    socket_story(Cassette(path, "all"))
    text = path.read_text()
    assert change(text) != text
    path.write_text(change(text))
    with pytest.raises(RecordError) as caught:
        Cassette(path)
    assert message in caught.value.message


CASSETTES = ROOT / "tests" / "golden" / "cassettes"


def test_what_was_recorded_is_performed_for_ever(shell):
    """A committed cassette is performed as it was."""
    tape = CASSETTES / "socket.jsonl"
    assert lines_of(tape)[0]["cassette"] == 1
    done = shell.call("run", str(CASSETTES / "socket.yaml"), "--clock", "virtual", "--from-cassette", str(tape), "--out", "again")
    assert done.code == 0, done.err
    ends = closings(checked(Path("again")))
    assert {line["evidence"] for line in ends.values()} == {"reported"}
    assert ends["cut"]["interrupted"]
