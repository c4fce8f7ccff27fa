"""Avaturn's text echo: whole runs over real sockets, on the virtual clock, and everything that may go wrong in them."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl

import pytest
import trustme

from playbook import clock
from playbook.emulators.faults import Injection
from playbook.errors import SetupError
from playbook.language import Inputs, check_file, compile_file
from playbook.model import Capabilities
from playbook.perform.performance import Options, Runner
from playbook.perform.steering import Cue
from playbook.perform.world import World
from playbook.providers.avaturn.emulator import AvaturnEmulator
from playbook.providers.avaturn.provider import AvaturnProvider
from tests import shown
from tests.avaturn import CREATE, KEY, TASKS, Shown, perform, secrets_of, stand_at
from tests.leaks import found
from tests.logs import ROOT, checked, closings, of
from tests.shown import plan_of

THREE = """\
version: 1
provider: avaturn
session: {avatar_id: jane_20240829, user_absent_timeout: 120}
timeline:
  - say: One is first.
    id: one
  - say: Two is second.
    id: two
  - say: Three is last.
    id: three
"""
TEXTS = ["One is first.", "Two is second.", "Three is last."]


def problems(text: str, folder) -> list[tuple[str, str, int | None]]:
    """What `check` finds: code, severity, line."""
    file = folder / "show.yaml"
    file.write_text(text, "utf-8")
    problems, _ = check_file(file, World())
    return [(problem.code, problem.severity, problem.place.line if problem.place else None) for problem in problems]


# --- what it does -------------------------------------------------------------------------------------------------------


def test_every_line_is_posted_once_and_its_task_id_is_logged(tmp_path):
    """Text echo in order; `provider_task` is Avaturn's id; every end is an estimate."""
    run = perform(THREE, tmp_path)
    assert run.code == 0
    assert run.posted == run.spoken == TEXTS
    accepted = of(run.lines, "event", "task_accepted")
    assert [(line["task"], line["provider_task"]) for line in accepted] == [("one", "task-1"), ("two", "task-2"), ("three", "task-3")]
    assert {line["evidence"] for line in closings(run.lines).values()} == {"estimated"}
    assert [entry["status"] for entry in run.requests("DELETE")] == [200]


def test_the_documentations_example_makes_the_same_three_calls(tmp_path):
    """Create without a body, one line, three seconds later the end (https://docs.avaturn.live/legacy/text-echo)."""
    text = """\
version: 1
provider: avaturn
timeline:
  - say: Hello, world!
    until: accepted
  - wait: 3s
  - end: {drain: false}
"""
    run = perform(text, tmp_path)
    calls = [
        (entry["at_ms"], entry["method"], entry["path"], entry["body"]) for entry in run.emulator.journal if entry["what"] == "request"
    ]
    assert calls == [
        (0, "POST", "/api/v1/sessions", None),
        (0, "POST", "/api/v1/sessions/sess-1/tasks", {"text": "Hello, world!"}),
        (3000, "DELETE", "/api/v1/sessions/sess-1", None),
    ]


def test_chunks_are_consecutive_tasks_of_one_utterance(tmp_path):
    """Texts go out as written, spaces included, after the author's pauses."""
    text = """\
version: 1
provider: avaturn
timeline:
  - say: {chunks: ["It is ", {wait: 2s}, "late."]}
    id: news
"""
    run = perform(text, tmp_path)
    posts = run.requests("POST", "/tasks")
    assert [(entry["at_ms"], entry["body"]["text"]) for entry in posts] == [(0, "It is "), (2000, "late.")]
    assert [(line["chunk"], line["provider_task"]) for line in of(run.lines, "event", "task_accepted")] == [(1, "task-1"), (2, "task-2")]
    assert set(closings(run.lines)) == {"news"}


def test_every_setting_reaches_avaturn_as_it_spells_it_and_ours_do_not(tmp_path):
    """The create request holds the vendor's fields alone; the older name of `model` is sent by its present one."""
    text = THREE.replace(
        "session: {avatar_id: jane_20240829, user_absent_timeout: 120}",
        """\
session:
  avatar_id: jane_20240829
  background: transparent
  render_model: golf
  user_absent_timeout: 90
  max_duration: 600
  language: en
  viewer_keep_alive: true
  price_per_minute: 0.5
  conversation_engine: {type: text-echo, tts: {engine: elevenlabs, voice_id: voice-1}}""",
    )
    run = perform(text, tmp_path)
    assert run.code == 0
    assert run.requests("POST", "/sessions")[0]["body"] == {
        "avatar_id": "jane_20240829",
        "background": "transparent",
        "model": "golf",
        "user_absent_timeout": 90,
        "max_duration": 600,
        "conversation_engine": {"type": "text-echo", "tts": {"engine": "elevenlabs", "voice_id": "voice-1"}},
    }


def test_the_unsupported_cancel_stops_what_is_queued_when_it_is_switched_on(tmp_path):
    """With the setting, `interrupt` is the SDK's private call with the session's token, and the queue is empty after it."""
    text = """\
version: 1
provider: avaturn
session: {unsupported_sdk_cancel: true}
timeline:
  - {say: A long line that is cut short in the middle of it., id: cut, until: 1s}
  - {say: A line that waits behind it., id: behind, until: accepted}
  - interrupt:
  - {say: Afterwards., id: after}
"""
    run = perform(text, tmp_path)
    assert run.code == 0
    assert len(run.requests("POST", "/cancel_all_speech_tasks")) == 1
    assert run.spoken == ["A long line that is cut short in the middle of it.", "Afterwards."]
    ends = closings(run.lines)
    assert (ends["cut"]["interrupted"], ends["cut"]["heard_ms"]) == (True, 1000)
    assert (ends["behind"]["interrupted"], ends["behind"]["heard_ms"]) == (True, 0)


def test_a_cancel_that_the_vendor_withdrew_fails_its_step_and_not_the_session(tmp_path):
    """A 404 of the private call says nothing of the session."""
    text = THREE.replace("user_absent_timeout: 120", "unsupported_sdk_cancel: true").replace(
        "    id: one\n", "    id: one\n    until: 1s\n  - interrupt:\n    on_error: continue\n"
    )
    run = perform(text, tmp_path, injections=[Injection("refuse", path="*/cancel_all_speech_tasks", status=404)])
    assert run.code == 0
    assert run.posted == TEXTS
    failed = of(run.lines, "event", "provider_failed")
    assert [(line["task"], line["outcome"], line["status"]) for line in failed] == [("interrupt-2", "refused", 404)]


def test_a_viewer_is_handed_what_it_needs_while_the_session_lives(tmp_path):
    """`session.json` has the token and is its owner's alone; no other file has it, and it goes with the session. `go` holds the start."""
    text = THREE.replace("timeline:", "start: go\ntimeline:").replace("120", "600")
    seen = {}

    def watch(line):
        if line.get("note") == "timeline_zero":
            path = tmp_path / "run" / "session.json"
            seen.update(json.loads(path.read_text()), mode=path.stat().st_mode & 0o777, at_ms=line["at_ms"])

    run = perform(text, tmp_path, AvaturnEmulator(viewer_after_ms=1000), cues=[Cue("go", 5000)], watch=watch)
    assert run.code == 0
    token = run.emulator.sessions["sess-1"].token
    assert (seen["session"], seen["token"], seen["mode"], seen["at_ms"]) == ("sess-1", token, 0o600, 5000)
    assert (seen["kind"], seen["url"]) == ("daily", run.emulator.url)
    assert not (tmp_path / "run" / "session.json").exists()
    assert found(secrets_of(run.emulator), tmp_path) == []


@pytest.mark.parametrize("name", ["avaturn-text-echo", "avaturn-external"])
def test_the_shipped_playbooks_run(name, tmp_path):
    """The playbooks that we ship for Avaturn are free of doubts and run to their ends, whatever their variables allow."""
    for n, var in enumerate(({}, {"interrupts": "true"}) if name == "avaturn-text-echo" else ({},)):
        plan = compile_file(ROOT / "playbooks" / f"{name}.yaml", World(), Inputs(var=var))
        assert plan.warnings == ()

        async def main(plan=plan, folder=tmp_path / str(n)):
            emulator = AvaturnEmulator(viewer_after_ms=300)
            async with emulator.serve():
                cues = [Cue("go", 2000), Cue("next", 9000)]
                outcome = await Runner(plan, Options(folder=folder, env=emulator.environment(), cues=cues)).run()
                return outcome, emulator.open_sessions

        outcome, still_open = clock.run(main(), "virtual")
        assert (outcome.result.exit_code, still_open) == (0, ()), outcome.result.reason
        checked(outcome.folder)


# --- what is known before a run -----------------------------------------------------------------------------------------


def test_capabilities_follow_the_settings():
    """Text echo is a one-way queue; external is the full thing; both end with `max_duration`."""
    can = AvaturnProvider().capabilities
    echo = Capabilities(
        audio_echo=False,
        interrupt="none",
        speech="none",
        start_latency_ms=500,
        tail_ms=1_500,
        max_session_ms=3_600_000,
        idle_limit_ms=300_000,
    )
    assert can({}) == echo
    assert can({"unsupported_sdk_cancel": True}).interrupt == "all"
    assert can({"viewer_keep_alive": True, "max_duration": 60, "price_per_minute": 0.2}) == Capabilities(
        audio_echo=False, interrupt="none", speech="none", start_latency_ms=500, tail_ms=1_500, max_session_ms=60_000, price_per_minute=0.2
    )
    external = can({"conversation_engine": {"type": "external", "url": "wss://a.example"}})
    assert (external.audio_echo, external.interrupt, external.speech, external.own_voice) == (True, "all", "reported", True)
    assert not external.voice_per_line


@pytest.mark.parametrize(
    ("session", "extra", "found"),
    [
        ("{}", "  - audio-echo: {base64: AAAAAAAA, sample_rate: 8000, format: pcm16}", ("PB411", "error", 7)),
        ("{}", "  - interrupt:", ("PB412", "error", 7)),
        ("{}", "  - say: {text: Hi., voice: other}", ("PB413", "error", 7)),
        ("{}", "  - wait: 6m\n  - say: Hi.", ("PB417", "error", 7)),
        ("{viewer_keep_alive: true}", "  - wait: 6m\n  - say: Hi.", None),
        ("{max_duration: 60}", "  - wait: 2m", ("PB416", "error", 5)),
        ("{user_absent_timeout: 30}", "start: 45s", ("PB454", "warning", 3)),
        ("{user_absent_timeout: 60}", "start: 45s", None),
        ("{}", "start: go", ("PB454", "warning", 3)),
        ("{user_absent_timeout: 300}", "start: go", None),
        ("{listen: '127.0.0.1:80'}", "", ("PB453", "error", 3)),
        ("{listen: '127.0.0.1:65536'}", "", ("PB214", "error", 3)),
        ("{user_absent_timeout: 9}", "", ("PB209", "error", 3)),
        ("{max_duration: 90000}", "", ("PB209", "error", 3)),
        ("{background: green}", "", ("PB205", "error", 3)),
        ("{avatar: x}", "", ("PB203", "error", 3)),
        ("{model: delta, render_model: delta}", "", ("PB216", "error", 3)),
        ("{conversation_engine: {type: text-echo}}", "", ("PB202", "error", 3)),
        ("{conversation_engine: {type: text-echo, tts: {voice_id: v, engine: google}}}", "", ("PB205", "error", 3)),
        ("{conversation_engine: {type: external}}", "", ("PB202", "error", 3)),
        ("{conversation_engine: {type: external, url: 'ws://avatar.example.com'}}", "", ("PB214", "error", 3)),
        ("{conversation_engine: {type: external, url: 'wss://a.example'}, unsupported_sdk_cancel: true}", "", ("PB453", "error", 3)),
        ("{conversation_engine: {type: cartesia, access_token: t, agent_id: a}}", "", ("PB452", "error", 6)),
        ("{conversation_engine: {type: openai-realtime, client_secret: s}}", "", ("PB452", "error", 6)),
    ],
)
def test_what_cannot_be_or_may_not_be_is_said_before_a_run(session, extra, found, tmp_path):
    """Each thing that Avaturn cannot do, and each setting out of its range, is a problem at its place; what is well is none."""
    steps, head = (extra, "") if extra.startswith("  ") else ("", extra)
    text = f"version: 1\nprovider: avaturn\nsession: {session}\n{head}\ntimeline:\n  - say: Hello there.\n{steps}\n"
    assert problems(text, tmp_path) == ([found] if found else [])


def test_without_a_key_nothing_is_asked(tmp_path):
    """The missing credential is named before anything begins."""
    plan = plan_of(THREE, tmp_path)
    with pytest.raises(SetupError, match="AVATURN_API_KEY"):
        clock.run(Runner(plan, Options(folder=tmp_path / "run")).run(), "virtual")


# --- bad luck at create -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "injection", "says"),
    [
        ({}, Injection(method="POST", status=401, body={"detail": "no"}), "(401); check AVATURN_API_KEY: no"),
        ({"key": "another"}, None, "the API key is missing or revoked"),
        ({"retired": "jane_20240829"}, None, "the avatar 'jane_20240829' no longer exists (410)"),
        ({"voices": "other"}, None, "check the voice_id"),
        (
            {},
            Injection(
                method="POST",
                status=422,
                body={"detail": [{"loc": ["body", "conversation_engine", "text-echo", "tts", "voice_id"], "msg": "Odd", "type": "x"}]},
            ),
            "show.yaml:3:82): Odd",
        ),
        ({}, Injection(method="POST", status=429, times=None), "answered 429"),
        ({}, Injection(method="POST", status=429, times=None, headers={"retry-after": "60"}), "answered 429"),
        ({"faults": ["quota-at-create"]}, None, "answered 429: quota exceeded"),
    ],
    ids=["401", "wrong key", "410", "400", "422", "429", "429 for long", "quota"],
)
def test_a_session_that_is_refused_ends_the_run_with_its_reason(options, injection, says, tmp_path):
    """Exit 4, the documented meaning and what to do; nothing was created and nothing was said."""
    text = THREE.replace("user_absent_timeout: 120", "conversation_engine: {type: text-echo, tts: {voice_id: v}}")
    run = perform(text, tmp_path, AvaturnEmulator(**options), injections=[injection] if injection else [])
    assert run.code == 4
    assert says in run.reason
    assert run.posted == []
    assert (run.emulator.sessions, run.left) == ({}, [])


@pytest.mark.parametrize("act", ["lose", "half", "huge", "garbage"])
def test_a_create_whose_answer_nobody_understood_is_not_repeated_and_leaves_a_trail(act, tmp_path):
    """The session may live, and nobody knows its id: exit 4, asked once, and the journal holds the intent."""
    run = perform(THREE, tmp_path, injections=[Injection(act, "POST", CREATE, times=None)])
    assert run.code == 4
    assert len(run.requests("POST", "/sessions")) == 1
    assert [record.session for record in run.left] == [None]
    assert run.posted == []


@pytest.mark.parametrize("status", [500, 503])
def test_a_create_that_failed_at_the_vendor_is_not_repeated(status, tmp_path):
    """Whether a session came of it is not known; asking again could pay for two."""
    refuse = Injection("refuse", "POST", CREATE, status=status)
    run = shown.perform(stand_at(AvaturnEmulator()), THREE, tmp_path, Shown, injections=[refuse])
    assert (run.code, run.still_open) == (4, 0)
    assert [record.session for record in run.left] == [None]
    assert f"answered {status}" in run.reason
    assert len(run.notes("request")) == 1


def test_a_session_without_a_token_is_ended(tmp_path):
    """An answer that names the session and nothing else: it cannot be shown, so it is ended."""
    answer = Injection("refuse", "POST", CREATE, status=200, body={"session_id": "sess-7"})
    run = perform(THREE, tmp_path, AvaturnEmulator(), injections=[answer])
    assert run.code == 4
    assert "has no token" in run.reason
    assert [(entry["method"], entry["path"]) for entry in run.notes("request")][-1] == ("DELETE", "/api/v1/sessions/sess-7")


def test_nothing_listens(tmp_path):
    """Connection refused: exit 4 after a few tries, and no trail, since nothing can have been created."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        run = perform(THREE, tmp_path, env={"AVATURN_BASE_URL": f"http://127.0.0.1:{taken.getsockname()[1]}"})
    assert (run.code, run.left) == (4, [])
    assert "connection refused" in run.reason


def test_the_name_does_not_exist(tmp_path):
    """DNS failure: exit 4, no trail."""
    run = perform(THREE, tmp_path, env={"AVATURN_BASE_URL": "https://avaturn.invalid"}, name="system")
    assert (run.code, run.left) == (4, [])
    assert "host name not found: avaturn.invalid" in run.reason


def test_a_virtual_clock_and_the_real_vendor(tmp_path):
    """A minute there is a moment here: nothing is asked, nothing created, and the reason says what to do."""
    run = perform(THREE, tmp_path, env={"AVATURN_BASE_URL": "https://avaturn.invalid", "AVATURN_EMULATED": ""})
    assert (run.code, run.left) == (4, [])
    assert "avaturn.invalid was not asked" in run.reason
    assert "use --clock system, or rehearse with --emulate" in run.reason


def test_the_certificate_is_nobodys(tmp_path):
    """TLS failure: exit 4, no trail, and the key was not sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    plan, read = plan_of(THREE, tmp_path), []

    async def main():
        async def talk(reader, writer):
            read.append(await reader.read())
            writer.close()

        async with await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context) as server:
            env = {"AVATURN_BASE_URL": f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", "AVATURN_API_KEY": KEY}
            env["AVATURN_EMULATED"] = "yes"  # it is in this process
            return await Runner(plan, Options(folder=tmp_path / "run", env=env, state_dir=tmp_path / "state")).run()

    outcome = clock.run(main(), "virtual")
    assert outcome.result.exit_code == 4
    assert "TLS certificate of 127.0.0.1 is not trusted" in outcome.result.reason
    assert KEY.encode() not in b"".join(read)
    checked(outcome.folder)


def test_nobody_takes_the_connection(tmp_path):
    """A time-out before anything was sent: surely refused, exit 4, no trail."""
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        run = perform(THREE, tmp_path, env={"AVATURN_BASE_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}"})
    assert (run.code, run.left) == (4, [])
    assert "no connection to 127.0.0.1 within 5 s" in run.reason


# --- bad luck with a line -----------------------------------------------------------------------------------------------

AT_TWO = {"method": "POST", "path": TASKS, "skip": 1}


def failed_at_two(run: Shown, outcome: str, times: int = 1) -> None:
    """The second line failed so; it was sent `times` times, the first one once and the third never; the session is ended."""
    assert run.code == 1
    [failed] = of(run.lines, "event", "provider_failed")
    assert (failed["task"], failed["outcome"]) == ("two", outcome)
    assert run.posted == ["One is first.", *["Two is second."] * times]
    assert run.left == []


@pytest.mark.parametrize(
    ("injection", "outcome", "says"),
    [
        (Injection(**AT_TWO, status=401), "refused", "check AVATURN_API_KEY"),
        (
            Injection(**AT_TWO, status=422, body={"detail": [{"loc": ["body", "text"], "msg": "Too odd", "type": "x"}]}),
            "refused",
            "(422): text: Too odd (the line at ",
        ),
        (Injection(**AT_TWO, status=429, headers={"retry-after": "30"}), "refused", "answered 429"),
        (Injection(**AT_TWO, status=500), "ambiguous", "answered 500"),
        (Injection(**AT_TWO, status=503, times=None), "ambiguous", "answered 503"),
        (Injection(**AT_TWO, status=418, body="<b>teapot</b>"), "ambiguous", "answered 418 with a web page"),
        (Injection(**AT_TWO, status=302, headers={"location": "https://elsewhere.invalid/"}), "refused", "not followed"),
        (Injection(**AT_TWO, status=200, body={"ok": True}), "ambiguous", "its answer has no task_id"),
        (Injection(**AT_TWO, status=200, body=[1]), "ambiguous", "its answer has no task_id"),
        (Injection("garbage", **AT_TWO), "ambiguous", "with a web page, not the service's answer"),
        (Injection("huge", **AT_TWO), "ambiguous", "longer than 1000 kB"),
        (Injection("half", **AT_TWO), "ambiguous", "broke while a request was under way"),
        (Injection("lose", **AT_TWO), "ambiguous", "broke while a request was under way"),
        (Injection("serve", **AT_TWO, before_ms=60_000), "ambiguous", "no answer came from 127.0.0.1 within 10 s"),
        (Injection("serve", **AT_TWO, after_ms=60_000), "ambiguous", "no answer came from 127.0.0.1 within 10 s"),
    ],
    ids=lambda value: f"{value.act} {value.status}" if isinstance(value, Injection) else None,
)
def test_a_line_that_fails_is_never_sent_again(injection, outcome, says, tmp_path):
    """Refused or ambiguous, with the reason; the step fails, exit 1, the session is ended, and the line was sent once."""
    run = perform(THREE, tmp_path, injections=[injection])
    failed_at_two(run, outcome)
    assert says in run.reason


def test_a_line_that_fails_may_be_passed_over(tmp_path):
    """`on_error: continue`: the show goes on with the next line, exit 0."""
    text = THREE.replace("    id: two\n", "    id: two\n    on_error: continue\n")
    run = perform(text, tmp_path, injections=[Injection(**AT_TWO, status=500)])
    assert run.code == 0
    assert run.posted == TEXTS


@pytest.mark.parametrize("headers", [{}, {"retry-after": "2"}])
def test_too_fast_is_tried_again(headers, tmp_path):
    """A 429 says that the line was not taken: it is sent again, after what the vendor asks for, and spoken once."""
    run = perform(THREE, tmp_path, injections=[Injection(**AT_TWO, status=429, headers=headers)])
    assert run.code == 0
    assert run.spoken == TEXTS
    times = [entry["at_ms"] for entry in run.requests("POST", "/tasks")]
    assert times[2] - times[1] == (2000 if headers else 250)


def test_too_fast_for_ever_is_given_up(tmp_path):
    """Within four seconds; then the line is refused."""
    run = perform(THREE, tmp_path, injections=[Injection(**AT_TWO, status=429, times=None)])
    failed_at_two(run, "refused", times=len(run.posted) - 1)
    assert len(run.posted) > 3


def test_a_session_that_dies_is_lost_at_the_next_line(tmp_path):
    """Avaturn tells nobody; the next line is answered 404, which ends the run with exit 4, and the end is no error."""
    run = perform(THREE, tmp_path, AvaturnEmulator(viewer_after_ms=0, faults=["session-dies@Two is second."]))
    assert (run.code, run.left) == (4, [])
    assert "Avaturn knows no such session (404)" in run.reason
    assert run.posted == TEXTS
    assert closings(run.lines)["three"]["evidence"] == "timeout"
    assert [entry["status"] for entry in run.requests("DELETE")] == [404]
    assert of(run.lines, "event", "session_closed")[0]["reason"] == "Avaturn had ended the session before"


@pytest.mark.parametrize(("times", "code", "open_after"), [(2, 0, 0), (None, 4, 1)])
def test_an_end_that_fails_is_tried_again_and_else_kept_in_the_journal(times, code, open_after, tmp_path):
    """Ending is repeated; when it never works the run is an error and the journal knows what is open."""
    run = perform(THREE, tmp_path, injections=[Injection("refuse", "DELETE", "*", status=503, times=times)])
    assert run.code == code
    assert [record.session for record in run.left] == ["sess-1"] * open_after
    assert run.posted == TEXTS


def test_a_show_that_nobody_watches_is_cut_by_the_vendor(tmp_path):
    """The absence timer ends the session after its seconds, and the line after that is the one that learns of it."""
    text = THREE.replace("120", "10").replace("    id: two\n", "    id: two\n  - wait: 12s\n")
    run = perform(text, tmp_path, AvaturnEmulator())
    assert (run.code, run.spoken) == (4, [])
    assert [entry["reason"] for entry in run.emulator.journal if entry["what"] == "session_ended"] == ["absence"]


# --- the named faults ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "spoken"),
    [
        ("end-missing", 0, TEXTS),  # what only the viewer's page is told makes no difference
        ("end-early", 0, TEXTS),
        ("end-late", 0, TEXTS),
        ("end-twice", 0, TEXTS),
        ("start-missing", 0, TEXTS),
        ("wrong-id", 0, TEXTS),
        ("slow-accept", 0, TEXTS),
        ("rate-limit", 0, TEXTS),
        ("accepted-but-silent@2", 0, [TEXTS[0], TEXTS[2]]),  # nobody can tell
        ("session-dies@3", 4, TEXTS),  # which the end finds out
        ("flap@2", 1, TEXTS[:1]),
        ("half-body@2", 1, TEXTS[:1]),
        ("quota-at-create", 4, []),
    ],
)
def test_named_faults(fault, code, spoken, tmp_path):
    """What the runner makes of each: text echo is told nothing of speech, so faults of speech pass unseen; others fail the line."""
    run = perform(THREE, tmp_path, AvaturnEmulator(viewer_after_ms=0, faults=[fault]))
    assert (run.code, run.spoken, run.left) == (code, spoken, [])


def test_a_quota_that_only_the_browser_is_told_of_loses_the_session(tmp_path):
    """The documented way: the session is created, and dies when the first viewer comes."""
    text = THREE.replace("timeline:", "start: 2s\ntimeline:")
    run = perform(text, tmp_path, AvaturnEmulator(viewer_after_ms=500, quota="browser", faults=["quota-at-create"]))
    assert (run.code, run.spoken) == (4, [])
    assert any((entry.get("error") or {}).get("code") == "limits_exceeded" for entry in run.emulator.journal)
