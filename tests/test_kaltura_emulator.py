"""Kaltura's emulator as somebody meets it who develops against it: plain HTTP, every documented answer, every switch."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from playbook import clock
from playbook.emulators.options import read
from playbook.errors import UsageError
from playbook.providers.kaltura.emulator import APP_TOKEN, APP_TOKEN_ID, SERVICE, SESSIONS, KalturaEmulator
from tests.contract import CHIME

Talk = Callable[["Caller"], Awaitable[None]]
OFFER = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n"
SDP = {"Content-Type": "application/sdp"}


class Caller:
    """Somebody with an HTTP client."""

    def __init__(self, emulator: KalturaEmulator, http: httpx.AsyncClient) -> None:
        self.emulator, self.http = emulator, http
        self.session = self.token = ""

    async def create(self, path: str = "/create", ks: str = "KS some-ks", **body: Any) -> httpx.Response:
        body = body or {"visualConfig": {"id": "v"}}
        answer = await self.http.post(SESSIONS + path, json=body, headers={"Authorization": ks} if ks else {})
        if answer.status_code == 200:
            self.session, self.token = answer.json()["sessionId"], answer.json()["token"]
        return answer

    async def call(self, operation: str, *, session: str | None = None, auth: str | None = None, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}" if auth is None else auth}
        request = request or {"json": {}}
        return await self.http.post(f"{SESSIONS}/{session or self.session}/{operation}", headers=headers, **request)

    async def say(self, text: str = "Hello.", turn: str = "t1", final: bool = True) -> httpx.Response:
        return await self.call("say-text", json={"text": text, "turnId": turn, "isFinal": final})

    async def play(self, duration: str = "0.4", audio: bytes = CHIME, turn: str = "t1") -> httpx.Response:
        return await self.call("say-audio", data={"turnId": turn, "duration": duration}, files={"audio": ("audio", audio, "audio/wav")})

    async def mint(self, call: str, **form: str) -> Any:
        return (await self.http.post(f"{SERVICE}/{call}", data={"format": "1", **form})).json()

    async def until(self, at_ms: int) -> None:
        await self.emulator.clock.sleep_until(at_ms)

    def heard(self, what: str = "speech_started") -> list[tuple[int, str]]:
        return [(entry["at_ms"], entry["task"]) for entry in self.emulator.journal if entry["what"] == what]


def talk(test: Talk, **options: Any) -> None:
    """Run a conversation with an emulator that has these options."""

    @asynccontextmanager
    async def met() -> Any:
        emulator = KalturaEmulator(**options)
        async with emulator.serve() as url, httpx.AsyncClient(base_url=url, trust_env=False) as http:
            yield Caller(emulator, http)

    async def main() -> None:
        async with met() as caller:
            await test(caller)

    clock.run(main(), "virtual")


def told(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()


def refused(status: int, error: str) -> tuple[int, Any]:
    return status, {"success": False, "error": error}


def test_the_documented_life_of_a_session() -> None:
    """Create, init-client, say, interrupt, keep-alive, end: each answers as documented, and turns are spoken in order."""

    async def story(me: Caller) -> None:
        created = (await me.create()).json()
        assert created == {"success": True, "sessionId": "session-1", "token": me.token}
        client = (await me.call("init-client")).json()
        assert client["whepUrl"].endswith("/rtc/v1/whep/session/session-1")
        assert set(client["turn"]) == {"url", "username", "credential"}
        for operation in ("keep-alive", "interrupt"):
            assert told(await me.call(operation)) == (200, {"success": True})
        assert told(await me.say("First.", "a")) == (200, {"success": True})
        assert told(await me.play(turn="b")) == (200, {"success": True})
        await me.until(5_000)
        assert [task for _, task in me.heard()] == ["a", "b"]
        assert told(await me.call("end")) == (200, {"success": True})
        assert me.emulator.open_sessions == ()

    talk(story)


def test_a_turn_waits_for_its_final_chunk() -> None:
    """Pieces of one turn are one piece of speech; a turn behind it waits as long."""

    async def story(me: Caller) -> None:
        await me.create()
        await me.say("One, ", "a", final=False)
        await me.say("Later.", "b")
        await me.until(3_000)
        assert me.heard() == []
        await me.say("two.", "a")
        await me.until(9_000)
        assert [task for _, task in me.heard()] == ["a", "b"]
        assert me.emulator.sessions["session-1"].queue.lines[0].text == "One, two."

    talk(story)


def test_what_the_service_refuses() -> None:
    """A wrong or missing key, text, sound or session is answered by the documented status and body."""

    async def story(me: Caller) -> None:
        assert told(await me.create(ks="")) == refused(401, "Invalid Kaltura Session")
        assert told(await me.create(ks="Bearer some-ks")) == refused(401, "Invalid Kaltura Session")
        assert (await me.create(ks="ks some-ks", visualConfig={})).status_code == 400
        assert (await me.create(ks="ks some-ks")).status_code == 200
        assert told(await me.call("say-text", json={"turnId": "a", "isFinal": True})) == refused(400, "Text is required")
        assert told(await me.say("")) == refused(400, "Text is required")
        assert (await me.call("say-text", content=b"{")).status_code == 400
        for duration in ("", "0", "-1", "nan", "soon"):
            assert (await me.play(duration)).status_code == 400
        assert (await me.play(audio=b"")).status_code == 400
        assert (await me.play(audio=b"no sound")).status_code == 400
        assert (await me.play(turn="")).status_code == 400
        assert (await me.call("say-audio", json={})).status_code == 400
        assert told(await me.call("end", auth="KS some-ks")) == refused(401, "Invalid or expired token")
        assert told(await me.call("end", auth="Bearer other")) == refused(401, "Invalid or expired token")
        assert told(await me.call("end", session="nobody")) == refused(404, "Session not found")
        for operation in ("status", "session-status", "queue-status", "set-emotion", "say"):
            assert (await me.call(operation)).status_code == 404
        await me.until(9_000)
        assert me.heard() == []

    talk(story)


@pytest.mark.parametrize(("ended", "error"), [(410, "Session ended"), (404, "Session not found")])
def test_a_session_that_is_over(ended: int, error: str) -> None:
    """Every call answers the same, also a second end."""

    async def story(me: Caller) -> None:
        await me.create()
        await me.call("end")
        for operation in ("end", "keep-alive", "interrupt", "init-client"):
            assert told(await me.call(operation)) == refused(ended, error)
        assert told(await me.say()) == refused(ended, error)

    talk(story, ended=ended)


@pytest.mark.parametrize(("path", "create", "bare"), [("both", 200, 200), ("create", 200, 404), ("bare", 404, 200)])
def test_on_which_path_a_session_is_created(path: str, create: int, bare: int) -> None:
    """The documentation knows two; an option says which there are."""

    async def story(me: Caller) -> None:
        assert (await me.create("/create")).status_code == create
        assert (await me.create("")).status_code == bare

    talk(story, create_path=path)


@pytest.mark.parametrize(("field", "id", "avatar"), [("both", 200, 200), ("id", 200, 400), ("avatarId", 400, 200)])
def test_how_the_avatar_is_named(field: str, id: int, avatar: int) -> None:
    """The documentation and working clients disagree; an option says which is right."""

    async def story(me: Caller) -> None:
        assert (await me.create(visualConfig={"id": "v"})).status_code == id
        assert (await me.create(visualConfig={"avatarId": "v"})).status_code == avatar

    talk(story, visual_field=field)


def test_text_may_be_unavailable() -> None:
    """Always, or for sessions without a voice; sound goes through."""

    async def story(me: Caller) -> None:
        await me.create()
        assert told(await me.say()) == refused(503, "Service temporarily unavailable")
        assert (await me.play()).status_code == 200
        await me.create(visualConfig={"id": "v"}, voiceConfig={"id": "w"})
        assert (await me.say()).status_code == (200 if me.emulator.options.say_text == "needs-voice" else 503)

    talk(story, say_text="unavailable")
    talk(story, say_text="needs-voice")


def test_text_may_be_strict() -> None:
    """The documentation requires `turnId` and `isFinal`, and leaves them out in an example."""

    async def story(me: Caller) -> None:
        await me.create()
        alone = await me.call("say-text", json={"text": "Hello."})
        assert alone.status_code == (400 if me.emulator.options.say_text == "strict" else 200)
        assert (await me.say()).status_code == 200
        await me.until(9_000)
        assert len(me.heard()) == (1 if me.emulator.options.say_text == "strict" else 2)

    talk(story, say_text="strict")
    talk(story, say_text="works")


@pytest.mark.parametrize(("scope", "spoken"), [("all", ["a"]), ("current", ["a", "b"])])
def test_what_an_interrupt_stops(scope: str, spoken: list[str]) -> None:
    """Everything, or the current turn alone."""

    async def story(me: Caller) -> None:
        await me.create()
        await me.say("A first line that is long enough.", "a")
        await me.say("A second.", "b")
        await me.until(1_000)
        await me.call("interrupt")
        await me.until(9_000)
        assert [task for _, task in me.heard()] == spoken
        assert me.heard("speech_ended")[0][0] < 1_300

    talk(story, interrupt=scope)


@pytest.mark.parametrize(("idle_ms", "alive"), [(15_000, False), (70_000, True), (None, True)])
def test_how_long_a_session_lives_without_a_call(idle_ms: int | None, alive: bool) -> None:
    """Any call refreshes it."""

    async def story(me: Caller) -> None:
        await me.create()
        await me.until(10_000)
        await me.call("keep-alive")
        await me.until(20_000)
        assert len(me.emulator.open_sessions) == 1
        await me.until(60_000)
        assert bool(me.emulator.open_sessions) is alive

    talk(story, idle_ms=idle_ms)


def test_a_token_expires() -> None:
    """After its time nothing answers to it, and the session lives on: nobody can end it."""

    async def story(me: Caller) -> None:
        await me.create()
        await me.until(5_000)
        assert told(await me.call("end")) == refused(401, "Invalid or expired token")
        assert len(me.emulator.open_sessions) == 1

    talk(story, token_ms=5_000)


@pytest.mark.parametrize(("kind", "content"), [("json", "application/json"), ("text", "text/plain"), ("html", "text/html")])
def test_how_an_error_looks(kind: str, content: str) -> None:
    """Gateways in front of a service answer in their own way."""

    async def story(me: Caller) -> None:
        answer = await me.create(ks="")
        assert answer.status_code == 401
        assert answer.headers["content-type"].startswith(content)

    talk(story, error_body=kind)


@pytest.mark.parametrize("says", [True, False])
def test_a_rate_limit_may_say_when_to_come_again(says: bool) -> None:
    """429, with `Retry-After` and without; the second try is taken."""

    async def story(me: Caller) -> None:
        await me.create()
        answer = await me.say()
        assert answer.status_code == 429
        assert ("retry-after" in answer.headers) is says
        assert (await me.say()).status_code == 200

    talk(story, faults=["rate-limit"], retry_after=says)


def test_a_viewer_comes_by_whep_and_leaves() -> None:
    """201 with an answer that declines all media, 409 for a second viewer, 415 for what is no SDP, 404 when the session is over."""

    async def story(me: Caller) -> None:
        await me.create()
        door = (await me.call("init-client")).json()["whepUrl"]
        assert (await me.http.post(door, content=OFFER)).status_code == 415
        answer = await me.http.post(door, content=OFFER, headers=SDP)
        assert (answer.status_code, answer.headers["content-type"]) == (201, "application/sdp")
        assert [line for line in answer.text.split("\r\n") if line.startswith("m=")] == [
            "m=audio 0 UDP/TLS/RTP/SAVPF 111",
            "m=video 0 UDP/TLS/RTP/SAVPF 96",
        ]
        assert (await me.http.post(door, content=OFFER, headers=SDP)).status_code == 409
        place = answer.headers["location"]
        assert place.startswith("/whep/session/")
        assert (await me.http.delete(place)).status_code == 404, "resolved in the usual way it misses, as the vendor's does"
        assert (await me.http.delete(door + place[place.index("/viewer/") :])).status_code == 200
        assert (await me.http.delete(door + place[place.index("/viewer/") :])).status_code == 404
        await me.call("end")
        assert (await me.http.post(door, content=OFFER, headers=SDP)).status_code == 404

    talk(story)


@pytest.mark.parametrize("whep", [404, 409, 415, "private"])
def test_a_viewer_may_be_turned_away(whep: Any) -> None:
    """Whatever the reason; or be sent to a private network, where no backend should follow."""

    async def story(me: Caller) -> None:
        await me.create()
        door = (await me.call("init-client")).json()["whepUrl"]
        answer = await me.http.post(door, content=OFFER, headers=SDP)
        assert answer.status_code == (201 if whep == "private" else whep)
        assert whep != "private" or answer.headers["location"].startswith("http://10.")

    talk(story, whep=whep)


@pytest.mark.parametrize("unwatched", ["speaks", "waits"])
def test_lines_before_anybody_watches(unwatched: str) -> None:
    """Nobody knows what becomes of them: they are spoken to nobody, or wait for somebody."""

    async def story(me: Caller) -> None:
        await me.create()
        await me.say()
        await me.until(5_000)
        assert bool(me.heard()) is (unwatched == "speaks")
        await me.http.post("/_emulator/viewer", json={"connected": True})
        await me.until(9_000)
        assert len(me.heard()) == 1

    talk(story, unwatched=unwatched)


def test_a_ks_is_minted_by_secret() -> None:
    """An administrator's opens sessions, a user's does not, a revoked or an expired one is none; a wrong secret is refused inside a 200."""

    async def story(me: Caller) -> None:
        wrong = await me.mint("session/action/start", secret="guess", partnerId="7", type="2")
        assert (wrong["objectType"], wrong["code"]) == ("KalturaAPIException", "START_SESSION_ERROR")
        form = {"secret": "the-secret", "partnerId": "7", "expiry": "60"}
        administrator = await me.mint("session/action/start", type="2", **form)
        user = await me.mint("session/action/start", type="0", **form)
        assert (await me.create(ks=f"KS {administrator}")).status_code == 200
        assert told(await me.create(ks=f"KS {user}")) == refused(403, "Kaltura Session not authorized")
        assert told(await me.create(ks="KS another")) == refused(401, "Invalid Kaltura Session")
        assert (await me.create(ks="KS the-good-one")).status_code == 200
        await me.mint("session/action/end", ks=user)
        assert (await me.create(ks=f"KS {user}")).status_code == 401
        await me.until(61_000)
        assert (await me.create(ks=f"KS {administrator}")).status_code == 401
        assert administrator not in repr(me.emulator.journal)

    talk(story, admin_secret="the-secret", ks="the-good-one")


def test_a_ks_is_minted_by_app_token() -> None:
    """The hash is of the widget's KS and the token; whatever is wrong is named."""

    async def story(me: Caller) -> None:
        assert (await me.mint("session/action/startWidgetSession", widgetId="me"))["code"] == "INVALID_WIDGET_ID"
        basic = (await me.mint("session/action/startWidgetSession", widgetId="_7"))["ks"]
        digest = hashlib.sha256((basic + APP_TOKEN).encode()).hexdigest()
        form = {"ks": basic, "id": APP_TOKEN_ID, "tokenHash": digest}
        for name, code in [("ks", "INVALID_KS"), ("id", "APP_TOKEN_ID_NOT_FOUND"), ("tokenHash", "INVALID_APP_TOKEN_HASH")]:
            assert (await me.mint("apptoken/action/startSession", **{**form, name: "wrong"}))["code"] == code
        ks = (await me.mint("apptoken/action/startSession", **form))["ks"]
        assert (await me.create(ks=f"KS {ks}")).status_code == 200
        assert (await me.create(ks=f"KS {basic}")).status_code == 403

    talk(story, app_token_hash="sha256")


def test_the_journal_tells_what_was_asked_and_keeps_no_credential() -> None:
    """Bodies are shown, keys and tokens are not; a sound's stated length stands beside its true one."""

    async def story(me: Caller) -> None:
        await me.create(ks="KS a-very-secret-ks")
        await me.call("init-client")
        await me.play("9.5")
        journal = (await me.http.get("/_emulator/journal")).json()["journal"]
        text = repr(journal)
        assert "a-very-secret-ks" not in text
        assert me.token not in text
        [sound] = [entry for entry in journal if entry["what"] == "sound"]
        assert (sound["duration_ms"], sound["measured_ms"]) == (9_500, 400)
        sessions = (await me.http.get("/_emulator/sessions")).json()
        assert sessions["open"] == 1
        assert me.token not in repr(sessions)

    talk(story)


def test_unknown_options_are_refused() -> None:
    """A value that an option does not have, and an option that there is not."""
    with pytest.raises(UsageError, match="say_text"):
        KalturaEmulator(say_text="maybe")
    with pytest.raises(UsageError, match="ended"):
        KalturaEmulator(ended=500)
    with pytest.raises(UsageError, match="no option 'sya_text'") as caught:
        KalturaEmulator(sya_text="works")
    assert caught.value.remedy == "did you mean 'say_text'?"


def test_options_as_somebody_types_them() -> None:
    """A number is one where an option takes numbers, and a key of digits stays a text."""
    typed = [("ended", "404"), ("whep", "private"), ("retry_after", "false"), ("idle_ms", "null"), ("ks", "12345"), ("latency_ms", "9")]
    options = KalturaEmulator(**read(KalturaEmulator.options_type, typed)).options
    assert (options.ended, options.whep, options.retry_after, options.idle_ms) == (404, "private", False, None)
    assert (options.ks, options.latency_ms) == ("12345", 9)


def test_impossible_faults_are_refused() -> None:
    """A fault that needs events Kaltura never sends."""
    with pytest.raises(UsageError, match="end-twice"):
        KalturaEmulator(faults=["end-twice@hello"])

    async def story(me: Caller) -> None:
        known = (await me.http.get("/_emulator/faults")).json()["known"]
        assert "rate-limit" in known
        assert "end-twice" not in known
        assert (await me.http.put("/_emulator/faults", json={"faults": ["end-twice"]})).status_code == 400

    talk(story)
