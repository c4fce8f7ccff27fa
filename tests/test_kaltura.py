"""The Kaltura adapter against its emulator: real playbooks, real sockets, the virtual clock."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import stat
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from playbook import clock
from playbook.emulators.faults import FAULTS, Injection
from playbook.errors import AuthorError, PlaybookError, ProviderError, SetupError
from playbook.journal.journal import Journal
from playbook.model import Say
from playbook.perform.performance import Outcome
from playbook.perform.steering import Cue
from playbook.providers.kaltura.emulator import APP_TOKEN, APP_TOKEN_ID, KalturaEmulator
from playbook.providers.kaltura.login import read_login
from playbook.providers.kaltura.provider import TAIL_MS, KalturaProvider
from playbook.providers.kaltura.session import KEEP_ALIVE_MS
from playbook.report import run_report
from playbook.speech.pacing import estimate_ms
from playbook.transports.factory import transports_for
from playbook.transports.http import Request
from tests.contract import CHIME, Between, Stand, compile_on, playbook_text, write_playbook
from tests.contract import perform as perform_on
from tests.leaks import found
from tests.logs import closings, of
from tests.shown import Shown, perform, plan_of

VOICED: Mapping[str, Any] = {"visualConfig": {"id": "visual-1"}, "voiceConfig": {"id": "voice-1"}}
HELLO = "  - say: Hello there, friend.\n    id: hello\n"
KS = "planted-kaltura-session"


class Run(Shown):
    """A run that is over."""

    @property
    def calls(self) -> list[str]:
        """The operations that the emulator was asked for, in order; keep-alives left out."""
        asked = [entry["path"].rpartition("/")[2] for entry in self.notes("request")]
        return [operation for operation in asked if operation != "keep-alive"]

    @property
    def open_in_journal(self) -> int:
        return len(self.left)


def stand_at(face: KalturaEmulator, settings: Mapping[str, Any] = VOICED) -> Stand:
    return Stand(KalturaProvider(), {"KALTURA_KS": face.options.ks or KS}, settings, face)


def run(
    folder: Path,
    timeline: str = HELLO,
    *,
    emulator: KalturaEmulator | None = None,
    settings: Mapping[str, Any] = VOICED,
    head: str = "start: 0s",
    **more: Any,
) -> Run:
    """Perform a timeline against an emulator; `more` is for `shown.perform`. Asserts that no turn is spoken twice."""
    stand = stand_at(emulator or KalturaEmulator(viewer_after_ms=0), settings)
    done = perform(stand, playbook_text(stand, timeline, head), folder, Run, **more)
    assert len(done.spoken) == len(set(done.spoken)), "no turn is spoken twice"
    return done


# --- the session --------------------------------------------------------------------------------------------------------


def test_the_streaming_example_of_the_documentation_makes_the_same_calls(tmp_path: Path):
    """Four chunks of one turn: the same bodies, final only with the last, under one turn id."""
    done = run(tmp_path, '  - say: {chunks: ["Hello, ", "this is ", "streaming ", "text."]}\n    id: turn\n')
    bodies = [entry["body"] for entry in done.emulator.journal if entry.get("path", "").endswith("say-text")]
    assert bodies == [
        {"text": "Hello, ", "turnId": "turn", "isFinal": False},
        {"text": "this is ", "turnId": "turn", "isFinal": False},
        {"text": "streaming ", "turnId": "turn", "isFinal": False},
        {"text": "text.", "turnId": "turn", "isFinal": True},
    ]
    assert done.calls == ["create", "init-client", "say-text", "say-text", "say-text", "say-text", "end"]
    assert done.exit == ("passed", 0)


def test_chunks_are_timed_by_the_author_and_held_until_the_last(tmp_path: Path):
    """A pause between chunks is kept to the millisecond, and nothing is heard before the final one."""
    done = run(tmp_path, '  - say: {chunks: ["One, ", {wait: 1.5s}, "two."]}\n    id: turn\n')
    at = [entry["at_ms"] for entry in done.emulator.journal if entry.get("path", "").endswith("say-text")]
    assert at[1] - at[0] == 1500
    [started] = of(done.lines, "event", "speech_started")
    assert started["at_ms"] >= at[1]


@pytest.mark.parametrize(
    ("served", "chosen", "calls", "code"),
    [
        ("both", None, ["create"], 0),
        ("create", None, ["create"], 0),
        ("bare", None, ["create", "avatar-session"], 0),
        ("bare", "bare", ["avatar-session"], 0),
        ("create", "bare", ["avatar-session"], 4),
        ("bare", "create", ["create"], 4),
    ],
)
def test_both_paths_to_create_a_session(served: str, chosen: str | None, calls: list[str], code: int, tmp_path: Path):
    """The first by default, the second by choice, or by itself once when the service does not know the first."""
    settings = VOICED if chosen is None else {**VOICED, "create_path": chosen}
    done = run(tmp_path, emulator=KalturaEmulator(create_path=served), settings=settings)
    assert done.calls[: len(calls)] == calls
    assert done.outcome.result.exit_code == code
    assert done.open_in_journal == 0
    assert len(done.emulator.sessions) == (1 if code == 0 else 0)


def test_the_second_path_is_tried_on_405_and_on_nothing_else(tmp_path: Path):
    """A 405 leads to the other path once; a 500 does not, because a session may have been created."""
    done = run(tmp_path / "405", injections=[Injection(path="*/create", status=405, body={})])
    assert (done.calls[:2], done.exit) == (["create", "avatar-session"], ("passed", 0))
    done = run(tmp_path / "500", injections=[Injection(path="*/create", status=500, body={"success": False, "error": "oh"})])
    assert (done.calls, done.exit) == (["create"], ("error", 4))
    assert done.open_in_journal == 1, "nobody knows whether it was created, and the journal says so"


@pytest.mark.parametrize(("field", "code"), [("id", 0), ("avatarId", 4)])
def test_the_avatar_is_sent_as_it_was_spelled(field: str, code: int, tmp_path: Path):
    """`visualConfig.id` and `visualConfig.avatarId` are both possible, and the service's view of them is its own."""
    settings = {"visualConfig": {field: "visual-1"}, "voiceConfig": {"id": "v", "speed": 1.5, "modelId": "m"}, "clientId": "me"}
    done = run(tmp_path, emulator=KalturaEmulator(visual_field="id"), settings=settings)
    assert done.emulator.journal[0]["body"] == settings
    assert done.outcome.result.exit_code == code


def test_a_viewer_gets_what_it_needs_while_the_session_lives(tmp_path: Path):
    """`session.json` has the id, the token and where the media are; only its owner can read it; init-client went out once."""
    seen: list[tuple[int, dict[str, Any]]] = []

    def look(line: Mapping[str, Any]) -> None:
        if line.get("command") == "say":
            path = tmp_path / "run" / "session.json"
            seen.append((stat.S_IMODE(path.stat().st_mode), json.loads(path.read_text())))

    done = run(tmp_path, watch=look)
    [(mode, viewer)] = seen
    session = done.emulator.sessions["session-1"]
    assert mode == 0o600
    assert viewer == {
        "kind": "whep",
        "provider": "kaltura",
        "session": "session-1",
        "token": session.token,
        "url": f"{done.emulator.url}/rtc/v1/whep/session/session-1",
        "turn": {"url": "127.0.0.1", "username": "emulated", "credential": "emulated-turn-credential"},
    }
    assert session.initialised == 1


def test_a_long_silence_is_survived_by_keep_alives(tmp_path: Path):
    """Ten minutes of waiting, on a service that forgets a session after fifteen seconds."""
    done = run(tmp_path, "  - wait: 10m\n" + HELLO, emulator=KalturaEmulator(idle_ms=15_000))
    at = [entry["at_ms"] for entry in done.emulator.journal if entry.get("path", "").endswith("keep-alive")]
    gaps = {later - earlier for earlier, later in itertools.pairwise(at)}
    assert done.exit == ("passed", 0)
    assert 60 <= len(at) <= 70
    assert max(gaps) <= KEEP_ALIVE_MS
    assert len(gaps) > 10, "many sessions do not call in step"


@pytest.mark.parametrize(("ms_per_character", "whole"), [(100, True), (200, False)])
def test_the_last_word_is_not_cut(ms_per_character: int, whole: bool, tmp_path: Path):
    """A voice that is slower than the estimate is given a moment more before the session ends; one that is far slower is cut."""
    done = run(tmp_path, emulator=KalturaEmulator(ms_per_character=ms_per_character))
    [believed_over] = of(done.lines, "event", "speech_ended")
    [closed] = of(done.lines, "command", "close_session")
    [line] = done.emulator.sessions["session-1"].queue.lines
    assert line.started_ms is not None
    assert line.started_ms + line.length_ms > believed_over["at_ms"], "it is slower than the estimate"
    assert closed["at_ms"] - believed_over["at_ms"] == TAIL_MS
    assert line.state == ("done" if whole else "cut")
    assert done.exit == ("passed", 0)


# --- sounds -------------------------------------------------------------------------------------------------------------


def wav(samples: np.ndarray, rate: int) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


def test_a_sound_is_sent_as_the_service_takes_it(tmp_path: Path):
    """8 kHz stereo becomes MP3, mono, 44.1 kHz, 128 kbit/s; the length is of the samples; the line is as long as that, exactly."""
    tone = np.sin(np.arange(8000 * 3) / 9) * 0.4
    (tmp_path / "tone.wav").write_bytes(wav(np.stack([tone, tone / 2], axis=1), 8000))
    sent: list[Request] = []

    def listen(send: Any) -> Any:
        async def wrapped(request: Request) -> Any:
            sent.append(request)
            return await send(request)

        return wrapped

    done = run(tmp_path, "  - audio-echo: tone.wav\n    id: tone\n", before=Between(http=listen))
    [upload] = [request for request in sent if request.path.endswith("say-audio")]
    assert upload.data == {"turnId": "tone", "duration": "3.000"}
    assert upload.files is not None
    [(field, (name, data, kind))] = upload.files.items()
    assert (field, name, kind) == ("audio", "audio", "audio/mpeg")
    info = soundfile.info(io.BytesIO(data))
    assert (info.format, info.channels, info.samplerate, info.frames) == ("MP3", 1, 44_100, 3 * 44_100)
    assert len(data) * 8 / 3 == pytest.approx(128_000, rel=0.02)
    [sound] = [entry for entry in done.emulator.journal if entry["what"] == "sound"]
    assert (sound["duration_ms"], sound["measured_ms"]) == (3000, 3000)
    line = closings(done.lines)["tone"]
    assert (line["evidence"], line["reason"]) == ("estimated", "the length is known")
    assert done.exit == ("passed", 0)


@pytest.mark.parametrize("kind", ["of zero samples", "with a lying header", "that is none"])
def test_a_bad_sound_is_a_problem_of_the_playbook(kind: str, tmp_path: Path):
    """Nothing is asked of the service, because the plan is refused."""
    data = {
        "of zero samples": wav(np.zeros(0), 8000),
        "with a lying header": (good := wav(np.zeros(8000), 8000))[:40] + struct.pack("<I", 160_000) + good[44:],
        "that is none": b"It is not music.",
    }[kind]
    (tmp_path / "bad.wav").write_bytes(data)
    with pytest.raises(AuthorError) as error:
        run(tmp_path, "  - audio-echo: bad.wav\n")
    assert [problem.code for problem in error.value.problems] == ["PB405"]


def test_a_sound_that_was_spoiled_since_the_plan_was_made_opens_no_session(tmp_path: Path):
    """It is found before anything is created: exit 4, and the service was asked nothing."""
    done = run(tmp_path, "  - audio-echo: chime.wav\n", meanwhile=lambda *_: (tmp_path / "chime.wav").write_bytes(CHIME[:60]))
    assert done.exit == ("error", 4)
    assert "it has changed since the plan was made" in (done.outcome.result.reason or "")
    assert done.calls == []


@pytest.mark.slow
def test_a_sound_of_an_hour(tmp_path: Path):
    """It is converted before the session opens, sent once, and the session lives until it has been heard."""
    (tmp_path / "hour.wav").write_bytes(wav(np.zeros(8000 * 3600, dtype=np.int16), 8000))
    done = run(tmp_path, "  - audio-echo: hour.wav\n    id: hour\n")
    assert done.exit == ("passed", 0)
    assert done.spoken == ["hour"]
    [ended] = [entry for entry in done.emulator.journal if entry["what"] == "speech_ended"]
    assert (ended["heard_ms"], ended["interrupted"]) == (3_600_000, False)


def test_converting_a_long_sound_stops_when_the_run_does(tmp_path: Path):
    """Half an hour of sound takes half a minute to convert; a run that is stopped meanwhile does not wait for that."""
    (tmp_path / "long.wav").write_bytes(wav(np.zeros(8000 * 1800, dtype=np.int16), 8000))

    async def main() -> tuple[str, int]:
        from playbook.perform.performance import Options, Runner

        stand = Stand(KalturaProvider(), {"KALTURA_KS": KS, "KALTURA_BASE_URL": "http://127.0.0.1:9"}, VOICED)
        plan = compile_on(write_playbook(tmp_path, stand, "  - audio-echo: long.wav\n"))
        runner = Runner(plan, Options(folder=tmp_path / "run", env=stand.env, state_dir=tmp_path / "state", provider=stand.provider))
        asyncio.get_running_loop().call_later(0.3, runner.stop, "SIGINT")
        result = (await runner.run()).result
        return result.end, result.exit_code

    began = asyncio.new_event_loop()
    try:
        start = began.time()
        assert clock.run(main()) == ("stopped", 130)
        assert began.time() - start < 10
    finally:
        began.close()


# --- text that is refused -----------------------------------------------------------------------------------------------


def test_text_that_is_unavailable_fails_once_and_says_what_it_means(tmp_path: Path):
    """A 503 for text is no passing trouble: the line is not repeated, and the reason names both remedies."""
    done = run(tmp_path, emulator=KalturaEmulator(say_text="unavailable"))
    assert done.exit == ("failed", 1)
    assert done.calls.count("say-text") == 1
    [failed] = of(done.lines, "event", "provider_failed")
    assert (failed["task"], failed["outcome"], failed["status"]) == ("hello", "refused", 503)
    assert "voiceConfig.id" in failed["reason"]
    assert "local-voice" in failed["reason"]
    assert done.still_open == 0


def test_a_session_without_a_voice_refuses_text_but_takes_sound(tmp_path: Path):
    """The likely reason of the 503s that were seen: `check` warns of it, and sounds still go through."""
    stand = stand_at(KalturaEmulator(say_text="needs-voice"), {"visualConfig": {"id": "visual-1"}})
    timeline = HELLO + "    on_error: continue\n  - audio-echo: chime.wav\n    id: chime\n"
    plan = plan_of(playbook_text(stand, timeline), tmp_path)
    assert [problem.code for problem in plan.warnings] == ["PB481"]
    done = perform(stand, plan, tmp_path, Run)
    assert done.exit == ("passed", 0)
    assert done.spoken == ["chime"]


def test_the_local_voice_steps_in_when_text_is_unavailable(tmp_path: Path):
    """Asked once, then every line is sound: chunks as one line, lengths exact, the log says so each time."""
    timeline = HELLO + '  - say: {chunks: ["One, ", "two, ", "three."]}\n    id: count\n  - audio-echo: chime.wav\n    id: chime\n'
    settings = {**VOICED, "text_unavailable": "local-voice"}
    done = run(tmp_path, timeline, emulator=KalturaEmulator(say_text="unavailable"), settings=settings)
    assert done.exit == ("passed", 0)
    assert done.calls == ["create", "init-client", "say-text", "say-audio", "say-audio", "say-audio", "end"]
    assert done.spoken == ["hello", "count", "chime"]
    taken = of(done.lines, "event", "task_accepted")
    assert [line.get("reason", "") for line in taken] == [
        "text is unavailable (503): spoken by the local voice",
        "text is unavailable (503): kept for the local voice until the line is complete",
        "text is unavailable (503): kept for the local voice until the line is complete",
        "text is unavailable (503): spoken by the local voice",
        "",
    ]
    assert {line["reason"] for line in closings(done.lines).values()} == {"the length is known"}
    report = run_report(done.outcome.result, done.outcome.summary)
    assert report.count("[text is unavailable (503): spoken by the local voice]") == 2
    lengths = {entry["task"]: entry for entry in done.emulator.journal if entry["what"] == "sound"}
    assert lengths["hello"]["duration_ms"] == lengths["hello"]["measured_ms"] == taken[0]["duration_ms"]
    assert lengths["count"]["duration_ms"] > 500


def test_without_the_voice_the_fallback_is_refused_before_anything_is_paid_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`text_unavailable: local-voice` needs the extra; a run without it ends before it began, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    face = KalturaEmulator()
    with pytest.raises(SetupError) as error:
        run(tmp_path, emulator=face, settings={**VOICED, "text_unavailable": "local-voice"})
    assert "pip install" in error.value.remedy
    assert face.journal == []


def test_half_a_line_is_taken_back_when_its_rest_is_refused(tmp_path: Path):
    """A turn whose last chunk was refused would hold up all lines after it, so its beginning is interrupted."""
    timeline = '  - say: {chunks: ["One, ", "two."]}\n    id: half\n    on_error: continue\n' + HELLO
    refuse = Injection(path="*/say-text", skip=1, status=400, body={"success": False, "error": "no"})
    done = run(tmp_path, timeline, injections=[refuse])
    assert done.calls == ["create", "init-client", "say-text", "say-text", "interrupt", "say-text", "end"]
    assert done.spoken == ["hello"]
    assert done.exit == ("passed", 0)


# --- interrupts ---------------------------------------------------------------------------------------------------------

QUEUE = """\
  - say: The first line is long enough to be cut in its middle, by whoever comes along.
    id: first
    until: accepted
  - say: The second line waits.
    id: second
    until: accepted
  - wait: 2s
  - interrupt:
    id: stop
"""


@pytest.mark.parametrize("scope", ["all", "current"])
def test_after_an_interrupt_the_log_says_what_is_certain_and_what_is_not(scope: str, tmp_path: Path):
    """The line that was being said has surely stopped; the one behind it probably, since the sources disagree. The same log for both."""
    done = run(tmp_path, QUEUE + "  - wait: 5s\n", emulator=KalturaEmulator(interrupt=scope))
    ends = closings(done.lines)
    assert (ends["first"]["interrupted"], ends["first"]["reason"]) == (True, "interrupted while it was being said")
    assert 1000 <= ends["first"]["heard_ms"] <= 2000
    assert (ends["second"]["heard_ms"], ends["second"]["reason"]) == (0, "probably stopped before it began")
    assert done.exit == ("passed", 0)
    assert done.spoken == (["first"] if scope == "all" else ["first", "second"])


@pytest.mark.parametrize("scope", ["all", "current"])
def test_one_line_at_a_time_makes_both_scopes_alike(scope: str, tmp_path: Path):
    """Without queueing on purpose nothing waits at the service, so whatever an interrupt stops, the next line is the next to be heard."""
    timeline = "  - say: A long sentence that somebody stops.\n    id: long\n    until: 1s\n  - interrupt:\n" + HELLO
    done = run(tmp_path, timeline, emulator=KalturaEmulator(interrupt=scope))
    assert done.spoken == ["long", "hello"]
    assert done.exit == ("passed", 0)


def test_an_end_without_drain_cuts_and_does_not_linger(tmp_path: Path):
    """`end: {drain: false}` interrupts and closes at once."""
    done = run(tmp_path, "  - say: A long sentence.\n    id: long\n    until: 700ms\n  - end: {drain: false}\n")
    assert done.calls[-2:] == ["interrupt", "end"]
    [closed] = of(done.lines, "command", "close_session")
    assert done.lines[-1]["at_ms"] == closed["at_ms"]
    assert done.exit == ("passed", 0)


# --- logins -------------------------------------------------------------------------------------------------------------

SECRET = {"KALTURA_KS": "", "KALTURA_PARTNER_ID": "908172635", "KALTURA_ADMIN_SECRET": "planted-admin-secret"}
TOKEN = {"KALTURA_KS": "", "KALTURA_PARTNER_ID": "908172635", "KALTURA_APP_TOKEN_ID": APP_TOKEN_ID, "KALTURA_APP_TOKEN": APP_TOKEN}


@pytest.mark.parametrize("reply", ["natural", "text", "object", "wrapped"])
@pytest.mark.parametrize("way", ["secret", "token"])
def test_a_ks_is_minted_however_it_is_handed_out(way: str, reply: str, tmp_path: Path):
    """By the partner's secret or by an appToken; the KS may be a string, in an object, or wrapped."""
    env = {"secret": SECRET, "token": TOKEN}[way]
    done = run(tmp_path, emulator=KalturaEmulator(ks_reply=reply, admin_secret="planted-admin-secret", ks="another"), env=env)
    assert done.exit == ("passed", 0)
    minted = [entry["kind"] for entry in done.emulator.journal if entry["what"] == "ks_minted"]
    assert minted == {"secret": ["administrator"], "token": ["user", "administrator"]}[way]
    assert found({"planted-admin-secret", APP_TOKEN}, tmp_path) == []


@pytest.mark.parametrize("algorithm", ["SHA1", "sha-256", "SHA512", "md5"])
def test_the_hash_of_an_app_token_is_the_one_it_was_made_with(algorithm: str, tmp_path: Path):
    """`KALTURA_APP_TOKEN_HASH` names it, in any spelling; the wrong one is refused by the core API."""
    face = KalturaEmulator(app_token_hash=algorithm.lower().replace("-", ""))
    assert run(tmp_path, emulator=face, env={**TOKEN, "KALTURA_APP_TOKEN_HASH": algorithm}).exit == ("passed", 0)
    wrong = run(tmp_path / "wrong", emulator=KalturaEmulator(app_token_hash="sha256"), env=TOKEN)
    assert wrong.exit == ("error", 4)
    assert "INVALID_APP_TOKEN_HASH" in (wrong.outcome.result.reason or "")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({}, "no credentials"),
        ({"KALTURA_PARTNER_ID": "1"}, "no credentials"),
        ({"KALTURA_ADMIN_SECRET": "x"}, "KALTURA_PARTNER_ID missing"),
        ({"KALTURA_PARTNER_ID": "1", "KALTURA_APP_TOKEN": "x"}, "KALTURA_APP_TOKEN_ID missing"),
        ({"KALTURA_PARTNER_ID": "me", "KALTURA_ADMIN_SECRET": "x"}, "not a number"),
        ({**TOKEN, "KALTURA_APP_TOKEN_HASH": "crc"}, "KALTURA_APP_TOKEN_HASH"),
        ({"KALTURA_KS": "  "}, "no credentials"),
    ],
)
def test_incomplete_credentials_are_named(env: Mapping[str, str], words: str):
    """The message names what is missing, never a value."""
    with pytest.raises(SetupError) as error:
        read_login(env)
    assert words in error.value.message


def test_the_first_complete_way_is_taken():
    """An appToken before a secret before a ready KS."""
    everything = {**SECRET, **TOKEN, "KALTURA_KS": "ready"}
    assert read_login(everything).token_id == APP_TOKEN_ID
    assert read_login({**SECRET, "KALTURA_KS": "ready"}).secret == "planted-admin-secret"
    assert read_login({"KALTURA_KS": "ready", "KALTURA_PARTNER_ID": "1234"}).ks == "ready"
    assert "planted" not in repr(read_login(SECRET))


# --- bad luck -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Luck:
    """One thing that goes wrong, and what a run makes of it."""

    exit: tuple[str, int]
    reason: str = ""
    """Stands in the reason of the run's end, or of the failure that the log tells."""
    injections: tuple[Injection, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the emulator."""
    timeline: str = HELLO
    outcome: str | None = None
    """What the log says of the failure; None when there is none."""
    calls: str | None = None
    """What the service was asked for, after the session was created."""
    spoken: tuple[str, ...] | None = None
    open: int = 0
    """How many sessions the emulator counts in the end."""
    recorded: int = 0
    """How many the journal holds open."""
    env: Mapping[str, str] = field(default_factory=dict)
    within_ms: int | None = None
    """The run is over by then."""


def refuse(status: int, operation: str, error: str = "oh no", times: int | None = None, **how: Any) -> tuple[Injection, ...]:
    """The service answers so."""
    return (Injection(path=f"*/{operation}", status=status, body={"success": False, "error": error}, times=times, **how),)


def spoil(act: Any, operation: str, times: int | None = 1, **how: Any) -> tuple[Injection, ...]:
    """The answer does not come as it should."""
    return (Injection(act, path=f"*/{operation}", times=times, **how),)


HTML = "<html><body>Bad Gateway</body></html>"
CHIMED = "  - audio-echo: chime.wav\n    id: hello\n"
LONG_WAIT = HELLO + "  - wait: 2m\n"
AGAIN = HELLO + "  - say: Are you still there?\n    id: again\n"
ONCE, CUT = "init-client say-text end", "init-client say-text interrupt end"
PASSED, FAILED, ERROR = ("passed", 0), ("failed", 1), ("error", 4)
FAULTED = "init-client say-text say-text end"

LUCK: Mapping[str, Luck] = {
    # a line
    "an expired token": Luck(
        ERROR, "token is not valid any more (401: expired)", refuse(401, "say-text", "expired"), outcome="lost", calls=ONCE
    ),
    "a session that is not found": Luck(ERROR, "does not know the session any more", refuse(404, "say-text"), outcome="lost", calls=ONCE),
    "a session that has ended": Luck(ERROR, "the session has ended (410", refuse(410, "say-text"), outcome="lost", calls=ONCE),
    "400": Luck(FAILED, "400: Text is required", refuse(400, "say-text", "Text is required"), outcome="refused", calls=ONCE),
    "500": Luck(FAILED, "500: oh no", refuse(500, "say-text"), outcome="ambiguous", calls=ONCE),
    "502 in HTML": Luck(
        FAILED, "answered 502 with a web page", (Injection(path="*/say-text", status=502, body=HTML),), outcome="ambiguous", calls=ONCE
    ),
    "503 for text": Luck(FAILED, "takes no text now", refuse(503, "say-text"), outcome="refused", calls=ONCE),
    "503 for sound": Luck(FAILED, "503", refuse(503, "say-audio"), timeline=CHIMED, outcome="ambiguous", calls="init-client say-audio end"),
    "429, come again": Luck(PASSED, "", refuse(429, "say-text", times=1, headers={"Retry-After": "2"}), calls=FAULTED, spoken=("hello",)),
    "429 without a word": Luck(PASSED, "", refuse(429, "say-text", times=2), calls="init-client say-text say-text say-text end"),
    "429 for ever": Luck(FAILED, "429: oh no", refuse(429, "say-text"), outcome="refused", spoken=(), within_ms=6_000),
    "429, come tomorrow": Luck(FAILED, "429", refuse(429, "say-text", headers={"Retry-After": "86400"}), outcome="refused", calls=ONCE),
    "200 without success": Luck(FAILED, "but refused: oh no", refuse(200, "say-text"), outcome="refused", calls=ONCE, spoken=()),
    "200 in HTML": Luck(FAILED, "with a web page", spoil("garbage", "say-text"), outcome="ambiguous", calls=ONCE),
    "200 of 50 MB": Luck(FAILED, "longer than 1000 kB", spoil("huge", "say-text"), outcome="ambiguous", calls=ONCE),
    "half an answer": Luck(FAILED, "broke while", spoil("half", "say-text"), outcome="ambiguous", calls=ONCE),
    "no answer": Luck(FAILED, "no answer came", spoil("serve", "say-text", after_ms=60_000), outcome="ambiguous", calls=ONCE),
    "a line that is cut before it is read": Luck(FAILED, "broke", spoil("close", "say-text"), outcome="ambiguous", calls=ONCE, spoken=()),
    "a line that is cut after it was taken": Luck(FAILED, "broke", spoil("lose", "say-text"), outcome="ambiguous", calls=ONCE),
    "an upload that is cut": Luck(
        FAILED, "broke", spoil("close", "say-audio"), timeline=CHIMED, outcome="ambiguous", calls="init-client say-audio end", spoken=()
    ),
    # opening
    "a KS that is refused": Luck(
        ERROR, "wrong or has expired (401", options={"ks": "good"}, env={"KALTURA_KS": KS}, outcome="refused", calls=""
    ),
    "a KS of the wrong type": Luck(ERROR, "administrator's (type 2) (403", refuse(403, "create"), outcome="refused", calls=""),
    "an exception in a 200": Luck(
        ERROR, "SERVICE_FORBIDDEN", options={"ks_reply": "exception"}, env=SECRET, outcome="refused", calls=None, within_ms=0
    ),
    "create without success": Luck(ERROR, "but refused: oh no", refuse(200, "create"), outcome="refused", calls=""),
    "create without a token": Luck(
        ERROR,
        "its answer has no token",
        (Injection(path="*/create", status=200, body={"success": True, "sessionId": "nobody's"}),),
        outcome="ambiguous",
        calls="",
        recorded=1,
    ),
    "create without a session": Luck(
        ERROR, "with a web page", spoil("garbage", "create"), outcome="ambiguous", calls="", open=1, recorded=1
    ),
    "create whose answer is lost": Luck(
        ERROR, "may have arrived", spoil("lose", "create"), outcome="ambiguous", calls="", open=1, recorded=1
    ),
    "create with 500": Luck(ERROR, "500", refuse(500, "create"), outcome="ambiguous", calls="", recorded=1),
    "init-client that fails": Luck(ERROR, "500", refuse(500, "init-client"), outcome="ambiguous", calls="init-client end"),
    "init-client without media": Luck(
        ERROR,
        "no whepUrl",
        (Injection(path="*/init-client", status=200, body={"success": True}),),
        outcome="ambiguous",
        calls="init-client end",
    ),
    # in the middle of a wait
    "a session that ends while we wait": Luck(
        ERROR,
        "session lost: the keep-alive failed: the session has ended",
        refuse(410, "keep-alive"),
        timeline=LONG_WAIT,
        outcome="lost",
        within_ms=10_000,
    ),
    "a keep-alive that fails for ever": Luck(
        ERROR, "session lost", refuse(500, "keep-alive"), timeline=LONG_WAIT, outcome="lost", within_ms=25_000
    ),
    "a keep-alive that fails once": Luck(PASSED, "", refuse(500, "keep-alive", times=1), timeline=LONG_WAIT, calls=ONCE),
    "a token that expires": Luck(
        ERROR,
        "token is not valid any more",
        options={"token_ms": 5_000},
        timeline=LONG_WAIT,
        outcome="lost",
        open=1,
        recorded=1,
        within_ms=10_000,
    ),
    # closing
    "an interrupt that fails once": Luck(PASSED, "", refuse(503, "interrupt", times=1), timeline=QUEUE, spoken=("first",)),
    "an interrupt that fails for ever": Luck(FAILED, "503", refuse(503, "interrupt"), timeline=QUEUE, outcome="ambiguous"),
    "an end that fails once": Luck(PASSED, "", refuse(500, "end", times=2), calls="init-client say-text end end end"),
    "an end that fails for ever": Luck(ERROR, "500: oh no", refuse(500, "end"), open=1, recorded=1),
    "an end that was refused": Luck(ERROR, "but refused", refuse(200, "end"), open=1, recorded=1),
    "an end whose answer makes no sense": Luck(PASSED, "", spoil("garbage", "end"), calls="init-client say-text end end"),
    "an end whose answer is lost": Luck(PASSED, "", spoil("lose", "end"), options={"ended": 404}, calls="init-client say-text end end"),
    # the named faults
    "accepted-but-silent": Luck(PASSED, options={"faults": ["accepted-but-silent"]}, spoken=()),
    "mute-after-120s": Luck(PASSED, options={"faults": ["mute-after-120s"]}, timeline=LONG_WAIT + "  - say: Hello?\n", spoken=("hello",)),
    "interrupt-lost": Luck(PASSED, options={"faults": ["interrupt-lost"]}, timeline=QUEUE + "  - wait: 9s\n", spoken=("first", "second")),
    "session-dies": Luck(
        ERROR, "the session has ended (410", options={"faults": ["session-dies"]}, timeline=AGAIN, outcome="lost", calls=FAULTED
    ),
    "session-dies in the last line": Luck(
        ERROR, "Kaltura had ended the session before", options={"faults": ["session-dies"]}, calls=ONCE, spoken=("hello",)
    ),
    "slow-accept": Luck(PASSED, options={"faults": ["slow-accept"]}, spoken=("hello",)),
    "quota-at-create": Luck(ERROR, "429: quota exceeded", options={"faults": ["quota-at-create"]}, outcome="refused", within_ms=5_000),
    "rate-limit": Luck(PASSED, options={"faults": ["rate-limit"]}, calls=FAULTED, spoken=("hello",)),
    "flap": Luck(FAILED, "broke while", options={"faults": ["flap"]}, outcome="ambiguous", spoken=()),
    "half-body": Luck(FAILED, "broke while", options={"faults": ["half-body"]}, outcome="ambiguous", calls=ONCE),
}


@pytest.mark.parametrize("what", LUCK)
def test_bad_luck(what: str, tmp_path: Path):
    """The log tells the story, the exit code is right, the session is ended or known to be open, nothing is sent twice that must not be."""
    luck = LUCK[what]
    face = KalturaEmulator(viewer_after_ms=0, **luck.options)
    done = run(tmp_path, luck.timeline, emulator=face, injections=luck.injections, env=luck.env)
    failures = of(done.lines, "event", "provider_failed")
    told = [done.outcome.result.reason or "", *(line["reason"] for line in failures)]
    assert done.exit == luck.exit, told
    assert any(luck.reason in reason for reason in told), told
    assert {line["outcome"] for line in failures} == ({luck.outcome} - {None})
    assert done.still_open == luck.open
    assert done.open_in_journal == luck.recorded
    if luck.calls is not None:
        assert " ".join(done.calls[1:]) == luck.calls
    if luck.spoken is not None:
        assert tuple(done.spoken) == luck.spoken
    if luck.within_ms is not None:
        assert done.lines[-1]["at_ms"] <= luck.within_ms


def test_every_named_fault_has_its_row():
    """Those that this vendor can show are in the table; `speech-after-interrupt` speaks a turn twice and has a test of its own."""
    assert set(FAULTS) - KalturaEmulator.never == {name for name in LUCK if name in FAULTS} | {"speech-after-interrupt"}


def test_speech_after_an_interrupt_changes_nothing_that_we_can_know(tmp_path: Path):
    """The service reports no speech, so what the face says afterwards stays unknown: the line is closed as interrupted, by estimate."""

    stand = stand_at(KalturaEmulator(faults=["speech-after-interrupt@long"]))
    timeline = "  - say: A long sentence that somebody stops.\n    id: long\n    until: 1s\n  - interrupt:\n  - wait: 5s\n"
    done = perform(stand, playbook_text(stand, timeline), tmp_path, Run)
    assert done.spoken == ["long", "long"]
    assert done.exit == ("passed", 0)
    line = closings(done.lines)["long"]
    assert (line["evidence"], line["interrupted"]) == ("estimated", True)


def test_an_empty_text_is_refused_by_the_service_and_the_log_says_so(tmp_path: Path):
    """`check` lets none through; a plan that was made by other means is answered by 400."""

    stand = stand_at(KalturaEmulator(viewer_after_ms=0))
    plan = plan_of(playbook_text(stand, HELLO), tmp_path)
    [first, *rest] = plan.steps
    assert isinstance(first.action, Say)
    hollow = replace(first.action, chunks=(replace(first.action.chunks[0], text=""),))
    done = perform(stand, replace(plan, steps=(replace(first, action=hollow), *rest)), tmp_path, Run)
    assert done.exit == ("failed", 1)
    [failed] = of(done.lines, "event", "provider_failed")
    assert (failed["status"], failed["outcome"]) == (400, "refused")
    assert "Text is required" in failed["reason"]


def test_on_error_continue_accepts_a_line_that_failed(tmp_path: Path):
    """The show goes on, and the log shows the line with its outcome."""
    timeline = "  - say: This one fails.\n    id: lost\n    on_error: continue\n" + HELLO
    done = run(tmp_path, timeline, injections=refuse(500, "say-text", times=1))
    assert done.exit == ("passed", 0)
    assert done.spoken == ["hello"]
    assert closings(done.lines)["lost"]["evidence"] == "timeout"


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("where", ["create", "init-client", "say-text", "keep-alive", "interrupt", "end"])
def test_a_service_that_repeats_our_secrets_does_not_get_them_into_the_log(where: str, status: int, tmp_path: Path):
    """Whatever an error body quotes (the KS, the token), no file of the run has it."""

    async def main() -> tuple[Stand, Outcome]:
        face = KalturaEmulator()

        async with face.serve():
            stand = Stand(KalturaProvider(), {**face.environment(), "KALTURA_KS": KS}, VOICED, face)
            timeline = QUEUE + "  - wait: 30s\n"
            plan = compile_on(write_playbook(tmp_path, stand, timeline))

            def quote(_: Mapping[str, Any]) -> None:
                token = next((session.token for session in face.sessions.values()), KS)
                body = {"success": False, "error": f"KS {KS} or Bearer {token} or {token} is wrong"}
                face.injections[:] = [Injection(path=f"*/{where}", status=status, body=body, times=None)]

            return stand, await perform_on(stand, plan, tmp_path, watch=quote)

    stand, outcome = clock.run(main(), "virtual")
    assert outcome.result.exit_code in (1, 4)
    assert "***" in (outcome.folder / "run.jsonl").read_text()
    for name in ("run.jsonl", "plan.json"):
        text = (outcome.folder / name).read_text()
        assert KS not in text
        assert not any(session.token in text for session in stand.emulator.sessions.values())  # type: ignore[union-attr]


def test_a_session_whose_token_never_came_cannot_be_ended_and_says_so(tmp_path: Path):
    """From another process neither; the message tells why."""
    body = {"success": True, "sessionId": "nobody's"}
    run(tmp_path, injections=[Injection(path="*/create", status=200, body=body)])
    [record] = Journal(tmp_path / "state").open_sessions()
    assert record.session == "nobody's"
    with pytest.raises(PlaybookError) as error:
        asyncio.run(KalturaProvider().end_session(record, {}, transports_for("kaltura", {}, "system")))
    assert "token" in error.value.message


def test_a_session_that_could_not_be_ended_can_be_ended_later(tmp_path: Path):
    """The journal keeps the token, and it is sent to the host that gave it out alone, which the environment must name; when the session has
    ended, the token is no more on the disk."""

    async def main() -> str:
        face = KalturaEmulator(viewer_after_ms=0)
        async with face.serve():
            face.injections += refuse(500, "end")
            stand = Stand(KalturaProvider(), face.environment(), VOICED, face)
            await perform_on(stand, compile_on(write_playbook(tmp_path, stand, HELLO)), tmp_path)
            journal = Journal(tmp_path / "state")
            [record] = journal.open_sessions()
            with pytest.raises(ProviderError):
                await stand.provider.end_session(record, face.environment(), stand.transports())  # type: ignore[attr-defined]
            face.injections.clear()
            for elsewhere in ({}, {"KALTURA_BASE_URL": "http://127.0.0.1:9"}):
                with pytest.raises(SetupError, match=r"the session was opened at http://127.0.0.1:\d+, but KALTURA_BASE_URL"):
                    await stand.provider.end_session(record, elsewhere, stand.transports())  # type: ignore[attr-defined]
            await stand.provider.end_session(record, face.environment(), stand.transports())  # type: ignore[attr-defined]
            assert face.open_sessions == ()
            journal.ended(record.key, "ended later")
            return str(record.end["token"])

    token = clock.run(main(), "virtual")
    assert token not in (tmp_path / "state" / "sessions.jsonl").read_text()


# --- the plan -----------------------------------------------------------------------------------------------------------


def test_lengths_follow_the_language_and_the_speed_of_the_voice():
    """A voice at double speed takes half the time; German is counted as German."""
    from tests.scripts import plan, say

    provider = KalturaProvider()
    step = say("line", "Guten Abend, meine Damen und Herren.")

    def length(**voice: Any) -> int:
        [found, end] = provider.lengths(plan(step, session={"voiceConfig": voice}))
        assert found is not None
        assert end is None
        return found.ms

    assert length(speed=2.0) == pytest.approx(length() / 2, abs=1)
    assert length(language="de") == estimate_ms("Guten Abend, meine Damen und Herren.", "de") != length()


def test_the_shipped_tour_is_rehearsed(tmp_path: Path):
    """`playbooks/kaltura-tour.yaml` runs to its end, and has every verb."""
    file = Path(__file__).parent.parent / "playbooks" / "kaltura-tour.yaml"

    plan = compile_on(file)
    done = perform(stand_at(KalturaEmulator(viewer_after_ms=0)), plan, tmp_path, Run, cues=[Cue("go", 2_000)])
    assert (done.exit, done.still_open) == (("passed", 0), 0)
    assert {step.verb for step in plan.steps} == {"say", "audio-echo", "wait", "interrupt", "end"}
    assert plan.warnings == ()
