"""Tavus by messages: whole runs over real sockets, on the virtual clock, and everything that may go wrong in them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from playbook import clock
from playbook.emulators.faults import FAULTS, Injection
from playbook.errors import SetupError
from playbook.events import SayText
from playbook.journal.journal import Journal
from playbook.language import check_file
from playbook.model import Capabilities
from playbook.perform.performance import Options, Runner
from playbook.perform.steering import Cue
from playbook.perform.world import World
from playbook.providers.base import EndsSessions, ListsSessions
from playbook.providers.tavus.echo import PACE, PIECE_MS, RATE, Copies, as_uuid, in_messages, split
from playbook.providers.tavus.emulator import TavusEmulator
from playbook.providers.tavus.provider import TavusProvider
from playbook.providers.tavus.session import TEST_MODE
from playbook.speech.audio import decode, resample
from playbook.transports.daily import DailyRoom
from playbook.transports.factory import transports_for
from playbook.transports.room import MAX_MESSAGE_BYTES, encode
from tests.contract import Between, Stage, Stand, chime, voice
from tests.logs import ROOT, checked, closings, of
from tests.scripts import Somebody, plan, say
from tests.shown import plan_of
from tests.tavus import CREATE, END, HEAD, KEY, PAL, THREE, Shown, perform

TALK = "This sentence goes on for quite some time, and somebody may well stop it before it has come to its end."


# --- what it does -------------------------------------------------------------------------------------------------------


def test_every_line_is_one_echo_and_its_end_is_reported(tmp_path):
    """Text in order, one message each, our task as its id; Tavus names our lines, so the evidence is the best."""
    run = perform(THREE, tmp_path)
    assert run.code == 0
    assert [(echo["text"], echo["inference_id"], echo["done"]) for echo in run.sent()] == [
        ("One is first.", "one", True),
        ("Two is second.", "two", True),
        ("Three is last.", "three", True),
    ]
    assert run.spoken == ["one", "two", "three"]
    assert set(run.grades.values()) == {"reported"}
    assert closings(run.lines)["one"]["provider_task"] == as_uuid("one")
    assert closings(run.lines)["one"]["duration_ms"] == 60 * len("One is first.")
    assert "One is first." in closings(run.lines)["one"]["reason"], "what Tavus says that it said is recorded"
    assert of(run.lines, "note", "ignored") == of(run.lines, "note", "conflict") == []
    assert [entry["status"] for entry in run.requests("POST", "/end")] == [200]
    assert run.closed == "Tavus gives the reason 'end_conversation_endpoint_hit', after 3.9 s"


def test_the_documentations_message_made_from_a_playbook(tmp_path):
    """Field by field the echo message of the quickstart, but for what the newer contract changed."""
    documented = {
        "message_type": "conversation",
        "event_type": "conversation.echo",
        "conversation_id": "<conversation_id>",
        "properties": {
            "modality": "text",
            "text": "Hello there!",
            "audio": "base64-encoded-audio",
            "sample_rate": 24000,
            "inference_id": "inference-id-123",
            "done": "true",
        },
    }
    text = f"{HEAD}timeline:\n  - {{say: Hello there!, id: inference-id-123}}\n  - {{audio-echo: chime.wav, id: inference-id-124}}\n"
    run = perform(text, tmp_path)
    messages = [entry["message"] for entry in run.notes("message")]
    changed = {"done": True}  # a boolean in the contract; the quickstart's is a text
    no_sound = {name: value for name, value in documented["properties"].items() if name not in ("audio", "sample_rate")}
    no_text = {name: value for name, value in documented["properties"].items() if name != "text"}
    session = run.outcome.summary.session
    assert messages[0] == {**documented, "conversation_id": session, "properties": no_sound | changed}
    sound = {"modality": "audio", "inference_id": "inference-id-124", "audio": messages[-1]["properties"]["audio"]}
    assert messages[-1] == {**documented, "conversation_id": session, "properties": no_text | changed | sound}


def test_the_create_request(tmp_path):
    """The vendor's fields as the author spells them, ours left out, and time limits that are always set."""
    head = f"""\
version: 1
provider: tavus
name: lobby
session:
  persona_id: {PAL}
  replica_id: r1
  language: en
  price_per_minute: 0.5
  pace: 2
  conversation_name: Lobby
  audio_only: false
  properties: {{enable_recording: true, participant_left_timeout: 5}}
timeline:
  - wait: 60s
"""
    run = perform(head, tmp_path)
    assert next(entry["path"] for entry in run.requests("GET")) == f"/v2/personas/{PAL}"
    [create] = run.requests("POST", CREATE)
    assert create["body"] == {
        "conversation_name": "Lobby",
        "persona_id": PAL,
        "replica_id": "r1",
        "audio_only": False,
        "properties": {
            "max_call_duration": 2 * 60 + 180,
            "participant_left_timeout": 5,
            "participant_absent_timeout": 300,
            "enable_recording": True,
        },
    }


@pytest.mark.parametrize(
    ("show", "longest_s"),
    [
        ("timeline: [{wait: 10s}]", 200),
        ("limits: {max_duration: 10m}\ntimeline: [{wait: 10s}]", 1380),
        ("limits: {max_duration: 10m, max_wait: 2m}\ntimeline: [{wait: 10s}]", 900),
        ("start: go\ntimeline: [{wait: 10s}]", 3600),
        ("timeline: [{wait: {event: next, timeout: 5s, on_timeout: continue}}]", 3600),
        ("timeline: [{wait: 1h}]", 7380),
    ],
)
def test_tavus_is_told_when_to_end_what_we_did_not(show, longest_s, tmp_path):
    """Well after the plan's end; an hour where the plan waits for somebody; a limit of the author's, and a margin."""
    run = perform(f"{HEAD}{show}\n", tmp_path, cues=[Cue("go")], controls=[Somebody()])
    assert run.requests("POST", CREATE)[0]["body"]["properties"]["max_call_duration"] == longest_s
    assert run.code == 0


def test_a_pal_by_name_is_made_once_and_found_again(tmp_path):
    """The first run makes it, in echo mode and with its face; the second finds it, also on a later page."""
    text = THREE.replace(f"{{pal_id: {PAL}}}", "{pal: {name: Museum Guide, face_id: r1, layers: {tts: {external_voice_id: v1}}}}")
    first, second = plan_of(text, tmp_path), plan_of(text, tmp_path)

    async def main():
        emulator = TavusEmulator()
        async with emulator.serve():
            for name, show in (("one", first), ("two", second)):
                options = Options(folder=tmp_path / name, env=emulator.environment(), state_dir=tmp_path / "state")
                assert (await Runner(show, options).run()).result.exit_code == 0
                emulator.pals = {f"p-other-{n}": {"pal_name": f"Other {n}", "default_face_id": "r"} for n in range(150)} | emulator.pals
        return emulator

    emulator = clock.run(main(), "virtual")
    made = [entry["body"] for entry in emulator.journal if entry["what"] == "request" and entry["path"] == "/v2/pals" and entry["body"]]
    layers = {"tts": {"external_voice_id": "v1"}}
    assert made == [{"pal_name": "Museum Guide", "pipeline_mode": "echo", "default_face_id": "r1", "layers": layers}]
    created = [entry["body"] for entry in emulator.journal if entry["what"] == "request" and entry["path"] == CREATE]
    assert [(body["pal_id"], body["face_id"]) for body in created] == [("p1", "r1")] * 2


def test_test_mode_is_a_free_check(tmp_path):
    """The conversation is created and nobody joins it; every step is skipped with that reason; exit 0; a wrong id is still found out."""
    text = THREE.replace(f"{{pal_id: {PAL}}}", f"{{pal_id: {PAL}, test_mode: true}}").replace("timeline", "start: go\ntimeline")
    run = perform(text, tmp_path)
    assert run.code == 0
    assert [(note["step"], note["reason"]) for note in of(run.lines, "note", "step_skipped")] == [
        (step, TEST_MODE) for step in ("one", "two", "three")
    ]
    assert of(run.lines, "event", "session_opened")[0]["reason"] == TEST_MODE
    assert run.notes("knocked") == run.notes("message") == run.requests("POST", "/end") == []
    assert run.requests("POST", CREATE)[0]["body"]["test_mode"] is True
    wrong = perform(text, tmp_path / "wrong", TavusEmulator(known_pals="made"))
    assert (wrong.code, wrong.reason) == (4, "Tavus refuses the request (400): Invalid pal_id")


def test_a_test_mode_that_is_not_over_at_once_is_ended(tmp_path):
    """Only the answer's own word is believed. That it is over by then is no death: Tavus ends such conversations itself."""
    answer = {"conversation_id": "c9", "status": "active", "conversation_url": ""}
    text = THREE.replace(f"{{pal_id: {PAL}}}", f"{{pal_id: {PAL}, test_mode: true}}")
    run = perform(text, tmp_path, injections=[Injection(method="POST", path=CREATE, status=200, body=answer)])
    assert run.code == 0
    assert [entry["path"] for entry in run.requests("POST", "/end")] == ["/v2/conversations/c9/end"]


def test_a_viewer_of_a_private_room_is_handed_the_token(tmp_path):
    """While the conversation lives session.json has its address and its token, and nothing else has the token."""
    seen = {}

    def look(line):
        if line.get("event") == "session_opened":
            path = tmp_path / "run" / "session.json"
            seen.update(json.loads(path.read_text()), mode=path.stat().st_mode & 0o777)

    text = THREE.replace(f"{{pal_id: {PAL}}}", f"{{pal_id: {PAL}, require_auth: true}}")
    emulator = TavusEmulator()
    run = perform(text, tmp_path, emulator, watch=look)
    [conversation] = emulator.sessions.values()
    assert run.code == 0
    assert seen == {
        "kind": "daily",
        "provider": "tavus",
        "session": conversation.id,
        "url": seen["url"],
        "token": conversation.token,
        "mode": 0o600,
    }
    assert seen["url"].endswith(conversation.id)


def test_chunks_are_echoes_of_one_id(tmp_path):
    """As written, `done` on the last, after the author's pauses; one utterance."""
    text = f'{HEAD}timeline:\n  - say: {{chunks: ["It is ", {{wait: 2s}}, "late."]}}\n    id: news\n'
    run = perform(text, tmp_path)
    first, second = run.sent()
    assert [(echo["text"], echo["inference_id"], echo["done"]) for echo in (first, second)] == [
        ("It is ", "news", False),
        ("late.", "news", True),
    ]
    assert second["at_ms"] - first["at_ms"] == 2000
    assert run.grades == {"news": "reported"}
    assert of(run.lines, "note", "conflict") == []


def test_a_long_text_goes_in_several_messages(tmp_path):
    """Split at sentences, each below 4 KB, all under one id, and together the text."""
    text = " ".join(f"Sentence number {n} is “quite” long, as sentences go." for n in range(200))
    run = perform(f"{HEAD}timeline:\n  - say: {json.dumps(text)}\n    id: long\n", tmp_path)
    echoes = run.sent()
    assert len(echoes) > 2
    assert "".join(echo["text"] for echo in echoes) == text
    assert all(echo["text"].rstrip().endswith(".") for echo in echoes)
    assert [echo["done"] for echo in echoes] == [False] * (len(echoes) - 1) + [True]
    assert all(len(encode(entry["message"])) <= MAX_MESSAGE_BYTES for entry in run.notes("message"))
    assert run.grades == {"long": "reported"}


@given(
    st.sampled_from(["欢迎来到国家博物馆。", "x", "Ω ", "\U0001f600", '"\\\n', "न\u093e", "مرحبا ", "a b. "]),
    st.integers(1, 9000),
    st.booleans(),
    st.booleans(),
)
def test_every_message_of_a_long_text_fits(word, times, final, as_text):
    """Whatever script it is written in, and however the end of a line is marked, no message is a byte too long, and nothing is lost."""

    def message(done: bool, text: str) -> dict[str, object]:
        return {"properties": {"modality": "text", "text": text, "done": str(done).lower() if as_text else done}}

    text = word * times
    messages = [entry["properties"] for entry in in_messages(text, final, message, MAX_MESSAGE_BYTES)]
    assert "".join(entry["text"] for entry in messages) == text
    assert [entry["done"] in (True, "true") for entry in messages] == [False] * (len(messages) - 1) + [final]
    assert all(len(encode({"properties": entry})) <= MAX_MESSAGE_BYTES for entry in messages)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.integers(12, 90))
def test_a_text_is_split_without_loss(text, limit):
    """The pieces are the text, and every piece fits."""
    pieces = list(split(text, limit))
    assert "".join(pieces) == text
    assert all(len(encode(piece)) - 2 <= limit for piece in pieces)
    assert len(pieces) == 1 or all(pieces[:-1])


# --- sound --------------------------------------------------------------------------------------------------------------


def sound_show(ms: int, *settings: str, more: str = "") -> str:
    data = base64.b64encode(chime(ms, 24_000)[44:]).decode()
    session = ", ".join([f"pal_id: {PAL}", *settings])
    return f"""\
version: 1
provider: tavus
session: {{{session}}}
timeline:
  - audio-echo: {{base64: {data}, sample_rate: 24000, format: pcm16}}
    id: sound
{more}"""


@pytest.mark.parametrize(
    ("settings", "pace", "lead_ms"), [((), PACE, 3000), (("pace: 1",), 1, 3000), (("pace: 10", "lead: 200ms"), 10, 200)]
)
def test_a_sound_is_sent_by_plan(settings, pace, lead_ms, tmp_path):
    """Small messages, one id, a rate in each, `done` on the last; each at its time: faster than it is heard, and not too far ahead."""
    run = perform(sound_show(10_000, *settings), tmp_path)
    pieces = run.sent()
    assert len(pieces) == 10_000 // PIECE_MS
    assert {(piece["modality"], piece["sample_rate"], piece["inference_id"]) for piece in pieces} == {("audio", RATE, "sound")}
    assert [piece["done"] for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    for number, piece in enumerate(pieces):
        position_ms = number * PIECE_MS
        due_ms = pieces[0]["at_ms"] + max(position_ms / pace, position_ms - lead_ms)
        assert abs(piece["at_ms"] - due_ms) <= 1
    assert closings(run.lines)["sound"]["duration_ms"] == 10_000
    assert run.grades == {"sound": "reported"}


def test_a_sound_arrives_as_it_is(tmp_path):
    """What the messages hold is the file's sound at the rate that they name, to the sample; texts for `done` where they are asked for."""
    heard = []

    def tap(emulator, _):
        emulator.said = lambda guest, message: heard.append(message) or TavusEmulator.said(emulator, guest, message)

    settings = "sample_rate: 16000, done_as: text"
    text = THREE.replace(f"{{pal_id: {PAL}}}", f"{{pal_id: {PAL}, {settings}}}").split("  - say: Two")[0] + "  - audio-echo: chime.wav\n"
    run = perform(text, tmp_path, meanwhile=tap)
    assert run.code == 0
    pieces = [message["properties"] for message in heard if message["properties"]["modality"] == "audio"]
    assert b"".join(base64.b64decode(piece["audio"]) for piece in pieces) == resample(decode(tmp_path / "chime.wav"), 16_000).pcm
    assert {piece["sample_rate"] for piece in pieces} == {16_000}
    assert [message["properties"]["done"] for message in heard] == ["true", *["false"] * (len(pieces) - 1), "true"]


def test_a_line_waits_until_the_sound_before_it_is_sent(tmp_path):
    """Two ids are never mixed: a text that is queued behind a sound goes out after the sound's last piece."""
    more = "    until: accepted\n  - {say: Afterwards., id: after}\n"
    run = perform(sound_show(5_000, more=more), tmp_path)
    assert run.code == 0
    names = [message["inference_id"] for message in run.sent()]
    assert names == ["sound"] * 125 + ["after"]
    assert run.grades == {"sound": "reported", "after": "reported"}


def test_an_interrupt_overtakes_the_sound_that_is_being_sent(tmp_path):
    """Nothing of the sound goes out after it, what was queued behind is never sent, and the log says how much was heard."""
    more = """\
    until: accepted
  - {say: Queued behind it., id: behind, until: accepted}
  - wait: 2s
  - interrupt:
    id: stop
  - {say: Afterwards., id: after}
"""
    run = perform(sound_show(60_000, more=more), tmp_path)
    assert run.code == 0
    [stop] = run.sent("conversation.interrupt")
    assert max(piece["at_ms"] for piece in run.sent() if piece["inference_id"] == "sound") <= stop["at_ms"]
    assert [message["inference_id"] for message in run.sent()][-1] == "after"
    assert "behind" not in run.spoken
    ends = closings(run.lines)
    assert (ends["sound"]["interrupted"], ends["sound"]["heard_ms"], ends["sound"]["evidence"]) == (True, 1905, "reported")
    assert (ends["behind"]["interrupted"], ends["behind"]["heard_ms"], ends["behind"]["evidence"]) == (True, 0, "estimated")


# --- interrupts ---------------------------------------------------------------------------------------------------------

CUT = f"""\
{HEAD}timeline:
  - {{say: "{TALK}", id: cut, until: 1s}}
  - {{say: A line that waits behind it., id: behind, until: accepted}}
  - {{interrupt: , id: stop}}
  - {{say: Afterwards., id: after}}
"""


def test_an_interrupt_closes_what_it_stopped(tmp_path):
    """Of the line that was spoken Tavus tells how much; the one behind it, of which nothing is told, was not heard at all."""
    run = perform(CUT, tmp_path)
    ends = closings(run.lines)
    assert run.code == 0
    assert (ends["cut"]["interrupted"], ends["cut"]["heard_ms"], ends["cut"]["evidence"]) == (True, 1150, "reported")
    assert (ends["behind"]["interrupted"], ends["behind"]["heard_ms"], ends["behind"]["evidence"]) == (True, 0, "estimated")
    assert run.grades["after"] == "reported"
    assert run.spoken == ["cut", "after"]
    assert len(run.sent("conversation.interrupt")) == 1


def test_without_a_duration_our_own_clock_says_how_much_was_heard(tmp_path):
    """`duration: null`, as it was seen: the time since the start."""
    run = perform(CUT, tmp_path, TavusEmulator(durations=False))
    assert closings(run.lines)["cut"]["heard_ms"] == 1150
    assert "duration_ms" not in closings(run.lines)["after"]


def test_an_interrupt_before_the_line_begins(tmp_path):
    """Nothing is told of it, so it is closed as not heard, a second later."""
    run = perform(CUT.replace("until: 1s", "until: accepted"), tmp_path)
    assert run.code == 0
    assert [closings(run.lines)[line]["heard_ms"] for line in ("cut", "behind")] == [0, 0]
    assert run.spoken == ["after"]


def test_an_interrupt_with_nothing_to_stop(tmp_path):
    """It is acknowledged, and the show goes on."""
    run = perform(THREE.replace("  - say: Two", "  - interrupt:\n  - say: Two"), tmp_path)
    assert run.code == 0
    assert set(run.grades.values()) == {"reported"}


# --- what Tavus tells ---------------------------------------------------------------------------------------------------


GRADES = {"md5": "reported", "same": "reported", "fresh": "unmatched", "erratic": "unmatched", "none": "unmatched"}


@pytest.mark.parametrize(
    ("copies", "order"), [("all", "natural"), ("new", "natural"), ("old", "natural"), ("all", "shuffled"), ("all", "stop-first")]
)
@pytest.mark.parametrize("ids", GRADES)
def test_reports_are_matched_whatever_they_look_like(ids, copies, order, tmp_path):
    """Up to three copies, under our id, another, or none, in any order: every line closes once, in time, on what evidence there is."""
    run = perform(THREE, tmp_path, TavusEmulator(ids=ids, copies=copies, order=order))
    assert run.code == 0
    assert set(run.grades.values()) == {GRADES[ids]}
    assert run.spoken == ["one", "two", "three"]
    assert of(run.lines, "note", "conflict") == []
    assert run.lines[-1]["at_ms"] < 8_000


@pytest.mark.parametrize("ids", GRADES)
@pytest.mark.parametrize("fault", ["accepted-but-silent@two", "end-missing@two"])
def test_a_line_that_is_not_reported_does_not_take_the_next_ones_reports(ids, fault, tmp_path):
    """Whatever the reports are called: when the show has gone on, they mean the line that is in flight now."""
    run = perform(THREE, tmp_path, TavusEmulator(ids=ids, faults=[fault]))
    assert run.code == 0
    erratic = ids == "erratic"  # then nobody can tell whether the end of the second line comes late
    assert run.grades == {"one": GRADES[ids], "two": "timeout", "three": "timeout" if erratic else GRADES[ids]}


def test_an_id_that_is_used_again_is_not_believed(tmp_path):
    """A retired id can end nothing: the line after is graded `timeout`, not ended by somebody else's report."""
    run = perform(THREE, tmp_path, TavusEmulator(ids="repeated"))
    assert run.code == 0
    assert run.grades == {"one": "unmatched", "two": "timeout", "three": "timeout"}


def test_queued_lines_are_matched_in_their_order(tmp_path):
    """Lines that the author queues, under ids of which nobody knows the meaning."""
    text = THREE.replace("    id: one", "    id: one\n    until: accepted").replace("    id: two", "    id: two\n    until: accepted")
    for ids in ("md5", "fresh"):
        run = perform(text, tmp_path / ids, TavusEmulator(ids=ids))
        assert run.code == 0
        assert set(run.grades.values()) == {"reported" if ids == "md5" else "unmatched"}
        starts = [line["task"] for line in of(run.lines, "event", "speech_started") if "task" in line]
        assert starts == ["one", "two", "three"]
        assert of(run.lines, "note", "conflict") == of(run.lines, "note", "ignored") == []


def test_other_words_than_ours_are_a_conflict(tmp_path):
    """What Tavus says that it says is compared with the plan; it ends nothing."""

    def twist(emulator, _):
        def tell(line):
            if line.get("event") == "speech_started" and "text" not in line:
                [conversation] = emulator.open_sessions
                conversation._say("conversation", "conversation.utterance", {"role": "pal", "speech": "Something else altogether."})

        emulator.tell_tale = tell

    emulator = TavusEmulator(utterances=False)
    run = perform(THREE, tmp_path, emulator, meanwhile=twist, watch=lambda line: emulator.tell_tale(line))
    assert run.code == 0
    assert {note["reason"] for note in of(run.lines, "note", "conflict")} == {"the provider says other words than the plan"}
    assert set(run.grades.values()) == {"reported"}


def test_copies_are_told_from_doubles():
    """A copy says the same in another way; the same in the same way is a double, and is passed on once."""
    copies = Copies()
    ways = ("pal", "replica", "old")
    assert [copies.has("ended", "x", way, None) for way in ways] == [False, True, True]
    assert [copies.has("ended", "x", way, None) for way in ways] == [False, True, True], "a second round"
    assert [copies.has("started", None, way, seq) for way, seq in (("pal", 7), ("replica", 8), ("old", 9))] == [False, True, True]
    assert copies.has("ended", None, "pal", 10) is False
    assert copies.has("started", None, "old", 6) is True, "late: the next stop has been told"
    assert copies.has("started", None, "old", 11) is False
    assert copies.has("started", "y", "pal", 12) is True, "its twin came first, without an id"
    assert copies.has("started", "y", "replica", 13) is True


GARBAGE = [
    None,
    7,
    "text",
    [1, 2],
    {},
    {"event_type": None},
    {"event_type": ["conversation.stopped_speaking"]},
    {"event_type": "conversation.stopped_speaking"},
    {"event_type": "conversation.stopped_speaking", "properties": "interrupted"},
    {"event_type": "conversation.stopped_speaking", "properties": {"role": "user"}},
    {"event_type": "conversation.stopped_speaking", "conversation_id": "another", "properties": {"role": "pal"}},
    {"event_type": "conversation.of_tomorrow", "properties": {"role": "pal"}},
    {"event_type": "conversation.utterance", "properties": {"role": "pal", "speech": 7}},
    {"event_type": "conversation.utterance.streaming", "properties": {"role": "pal", "speech": "One"}},
    {"big": "é" * 500_000},
]


def test_messages_that_make_no_sense_change_nothing(tmp_path):
    """Not an object, no type, unknown types, another's, a megabyte, and a thousand of them in a second."""

    def babble(emulator, _):
        def tell(line):
            if line.get("event") == "speech_started" and line["task"] == "two":
                [conversation] = emulator.open_sessions
                conversation._broadcast(GARBAGE)
                conversation._broadcast([{"message_type": "conversation", "event_type": "noise", "n": n} for n in range(1000)])

        emulator.tell_tale = tell

    emulator = TavusEmulator()
    run = perform(THREE, tmp_path, emulator, meanwhile=babble, watch=lambda line: emulator.tell_tale(line))
    assert run.code == 0
    assert set(run.grades.values()) == {"reported"}
    assert of(run.lines, "note", "conflict") == of(run.lines, "note", "ignored") == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_KINDS = st.sampled_from(
    ["conversation.started_speaking", "conversation.stopped_speaking", "conversation.replica.stopped_speaking", "conversation.utterance"]
)
_MESSAGES = st.fixed_dictionaries(
    {"event_type": _KINDS | _JSON},
    optional={
        "conversation_id": st.none() | _JSON,
        "inference_id": st.sampled_from(["one", as_uuid("one"), "strange"]) | _JSON,
        "seq": st.integers(0, 9) | _JSON,
        "properties": st.fixed_dictionaries(
            {"role": st.sampled_from(["pal", "replica"]) | _JSON},
            optional={"duration": st.floats() | _JSON, "interrupted": st.booleans() | _JSON, "speech": _JSON},
        )
        | _JSON,
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_MESSAGES | _JSON, max_size=12))
def test_no_message_hurts(tmp_path_factory, messages):
    """Whatever comes, the parser neither raises nor says that more lines ended than there are."""

    async def main():
        stand = Stand(TavusProvider(), {"TAVUS_API_KEY": KEY}, {"pal_id": PAL})
        stage = Stage(stand, plan(say("one"), session=stand.settings), tmp_path_factory.getbasetemp())
        session = stage.session
        session.session_id = "c1"
        session._expect(SayText("one", "one", "This is one."), "This is one.")
        for message in messages:
            session._read(message, "face")
        assert stage.crashes == []

    clock.run(main(), "virtual")


# --- listening ----------------------------------------------------------------------------------------------------------

LISTENING = THREE.replace(f"{{pal_id: {PAL}}}", f"{{pal_id: {PAL}, listen: true}}").replace("  - say: T", "  - wait: 2s\n  - say: T")


def heard(run: Shown) -> list[tuple[str, str]]:
    """The sightings of lines by our own ear."""
    return [(line["event"], line["task"]) for line in run.lines if line.get("evidence") == "heard" and "task" in line]


def edges(run: Shown) -> list[str]:
    """What our ear told, in its order."""
    return [line["event"] for line in run.lines if line.get("event") in ("sound", "silence")]


def test_what_is_heard_stands_beside_what_is_reported(tmp_path):
    """Both are in the log for every line, the report decides, and while they agree there is no conflict."""
    run = perform(LISTENING, tmp_path)
    assert run.code == 0
    assert set(run.grades.values()) == {"reported"}
    assert edges(run) == ["sound", "silence"] * 3
    assert heard(run) == of(run.lines, "note", "conflict") == []
    assert [(line["source"], line["evidence"]) for line in of(run.lines, "event", "source_joined")] == [("ear", "heard")]


def test_lines_without_a_gap_are_one_sound(tmp_path):
    """Where one ends and the next begins cannot be heard then, and nothing is made up."""
    run = perform(THREE.replace(f"{{pal_id: {PAL}}}", f"{{pal_id: {PAL}, listen: true}}"), tmp_path)
    assert (run.code, set(run.grades.values())) == (0, {"reported"})
    assert edges(run) == ["sound", "silence"]
    assert of(run.lines, "note", "conflict") == []


def test_sound_that_comes_much_later_than_its_report_is_a_conflict(tmp_path):
    """Beyond the limit the two are said to disagree, with the difference."""
    run = perform(LISTENING, tmp_path, TavusEmulator(media_ms=900))
    assert run.code == 0
    reasons = [note["reason"] for note in of(run.lines, "note", "conflict") if note["task"] == "one"]
    assert reasons == [
        "a start was heard at 1400 ms, 900 ms after it was reported at 500 ms",
        "an end was heard at 2200 ms, 920 ms after it was reported at 1280 ms",
    ]
    assert set(run.grades.values()) == {"reported"}


def test_an_end_that_is_not_reported_is_heard(tmp_path):
    """The line closes two seconds after its sound, by what we heard, and not by a time-out."""
    run = perform(LISTENING, tmp_path, TavusEmulator(faults=["end-missing@two"]))
    assert run.code == 0
    assert run.grades == {"one": "reported", "two": "heard", "three": "reported"}
    started, ended = (
        next(line for line in of(run.lines, "event", f"speech_{what}") if line.get("task") == "two") for what in ("started", "ended")
    )
    assert abs(ended["at_ms"] - ended["ago_ms"] - started["at_ms"] - 60 * len("Two is second.")) <= 40


def test_a_start_that_is_not_reported_is_heard(tmp_path):
    """`until: 1s` counts from the sound."""
    text = LISTENING.replace("    id: two", "    id: two\n    until: 500ms")
    run = perform(text, tmp_path, TavusEmulator(faults=["start-missing@two"]))
    assert run.code == 0
    first = next(line for line in of(run.lines, "event", "speech_started") if line.get("task") == "two")
    assert (first["evidence"], set(run.grades.values())) == ("heard", {"reported"})


# --- before a run -------------------------------------------------------------------------------------------------------


def test_capabilities_follow_the_settings():
    """Known before a run: who reports, whose voice, how long."""
    can = TavusProvider().capabilities
    assert can({}) == Capabilities(speech="reported", interrupt="all", tail_ms=500)
    assert can({"echo_via": "microphone", "price_per_minute": 2}) == Capabilities(
        speech="exact", interrupt="all", own_voice=True, tail_ms=1_500, price_per_minute=2
    )
    assert can({"properties": {"max_call_duration": 60}, "test_mode": True}) == Capabilities(
        speech="reported", interrupt="all", tail_ms=500, max_session_ms=60_000, opens_only=TEST_MODE
    )


def test_without_a_key_nothing_is_asked(tmp_path):
    """The variable is named, and no conversation is created."""
    with pytest.raises(SetupError, match="TAVUS_API_KEY is not set"):
        perform(THREE, tmp_path, env={"TAVUS_API_KEY": ""})


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("tavus-*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_playbooks_run(path, tmp_path):
    """Without a warning, with every line on the best evidence, on the emulator that `--emulate` starts."""
    found, show = check_file(path, World(voice=voice()))
    assert found == ()
    assert show is not None

    async def main():
        emulator = TavusEmulator(viewer_after_ms=500)
        async with emulator.serve():
            options = Options(folder=tmp_path / "run", env=emulator.environment(), cues=[Cue("go", 1_000)], provider=TavusProvider(voice))
            return await Runner(show, options).run()

    outcome = clock.run(main(), "virtual")
    assert (outcome.result.exit_code, outcome.failures) == (0, ())
    assert {line["evidence"] for line in closings(checked(tmp_path / "run")).values()} <= {"reported", "estimated"}


# --- bad luck: opening --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "injection", "says"),
    [
        ({}, Injection(path="/v2/pals/*", status=401, body={"message": "Invalid access token"}), "the API key is missing, wrong"),
        ({}, Injection(path=CREATE, status=401, body={"message": "Invalid access token"}), "the API key is missing, wrong"),
        ({}, Injection(path=CREATE, status=403, body={"message": "no"}), "the API key may not do that (403): no"),
        ({"max_concurrent": 0}, None, "no more concurrent conversations are allowed (400)"),
        ({"faults": ["quota-at-create"]}, None, "User has reached maximum concurrent conversations"),
        ({"credits": False}, None, "the account has no conversation credits left (402)"),
        ({"known_pals": "made"}, None, "Tavus refuses the request (400): Invalid pal_id"),
        ({"pal_mode": "full"}, None, "the PAL 'Echo Assistant' is in the mode 'full'"),
        ({}, Injection(path=CREATE, status=400, body={"error": {"message": "odd"}}), "Tavus refuses the request (400): odd"),
    ],
)
def test_a_conversation_that_is_refused_ends_the_run_with_its_reason(options, injection, says, tmp_path):
    """Exit 4, the vendor's reason, nothing open and nothing in the journal; asked once."""
    run = perform(THREE, tmp_path, TavusEmulator(**options), injections=[injection] if injection else [])
    assert run.code == 4
    assert says in run.reason
    assert len(run.requests("POST", CREATE)) <= 2, "names that are refused are tried in the other generation"
    assert run.left == [] == list(run.emulator.open_sessions)
    assert of(run.lines, "command", "say") == []


@pytest.mark.parametrize("act", ["lose", "half", "garbage", "huge"])
def test_a_create_whose_answer_nobody_understood_is_found_and_ended(act, tmp_path):
    """Not repeated; Tavus's list tells the conversation's id by the mark in its name, and the run that failed ends it as any other."""
    run = perform(THREE, tmp_path, injections=[Injection(act, method="POST", path=CREATE)])
    assert run.code == 4
    assert len(run.requests("POST", CREATE)) == len(run.requests("POST", "/end")) == 1
    assert "the conversation was created all the same (c1), and is ended" in run.reason
    assert len(of(run.lines, "command", "close_session")) == 1
    assert run.left == [] == list(run.emulator.open_sessions)


@pytest.mark.parametrize("act", ["lose", "half", "garbage", "huge"])
def test_a_create_whose_answer_nobody_understood_leaves_a_trail(act, tmp_path):
    """Where the list cannot be had, the journal keeps the intent; later the list finds the conversation, and it can be ended from there."""
    show = plan_of(THREE, tmp_path)

    async def main():
        emulator = TavusEmulator()
        emulator.injections = [Injection(act, "POST", CREATE), Injection("refuse", "GET", CREATE, times=None, status=403)]
        async with emulator.serve():
            env = emulator.environment()
            outcome = await Runner(show, Options(folder=tmp_path / "run", env=env, state_dir=tmp_path / "state")).run()
            assert outcome.result.exit_code == 4
            [record] = Journal(tmp_path / "state").open_sessions()
            assert (record.session, record.provider) == (None, "tavus")
            assert len(emulator.open_sessions) == 1
            emulator.injections.clear()
            provider = TavusProvider()
            assert isinstance(provider, EndsSessions)
            assert isinstance(provider, ListsSessions)
            [found] = await provider.list_sessions(env, transports_for("tavus", env))
            assert (found.session, found.name) == ("c1", f"show [playbook {record.mark}]"), "by its name everybody sees whose it is"
            assert found.since is not None
        creates = [
            entry for entry in emulator.journal if entry["what"] == "request" and entry["path"] == CREATE and entry["method"] == "POST"
        ]
        assert len(creates) == 1

    clock.run(main(), "virtual")


def test_a_conversation_without_an_address_is_ended(tmp_path):
    """Created and paid for, but nobody could join it."""
    text = THREE
    emulator = TavusEmulator()
    emulator._facts = lambda conversation: {"conversation_id": conversation.id, "status": "active" if conversation.alive else "ended"}
    run = perform(text, tmp_path, emulator)
    assert run.code == 4
    assert "its answer has no conversation_url" in run.reason
    assert len(run.requests("POST", "/end")) == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"face": "never"}, "the face did not come into the room within 60 s"),
        ({"join": "silent"}, "joining the room took too long (60 s)"),
        ({"join": "401 Unauthorized"}, "the room refused us"),
        ({"join": "404 Not Found"}, "there is no such room"),
        ({"join": "500 Internal Server Error"}, "the room's service failed"),
        ({"room_url": "tcp://127.0.0.1:1/c1"}, "the room's service could not be reached"),
        ({"room_url": "tcp://example.com:80/c1"}, "the room's URL is malformed"),
    ],
)
def test_a_room_without_a_way_in_or_a_face_ends_the_conversation(options, says, tmp_path):
    """Exit 4 with what is wrong; the conversation, which costs, is ended; no line was sent."""
    run = perform(THREE, tmp_path, TavusEmulator(**options))
    assert run.code == 4
    assert says in run.reason
    assert len(run.requests("POST", "/end")) == 1
    assert run.sent() == []


def test_a_malformed_room_url_in_the_real_library(tmp_path):
    """The real Daily library, in its child process, in real time: its words are in the log and the conversation is ended."""
    run = perform(THREE, tmp_path, TavusEmulator(room_url="not-a-url"), name="system", env=dict(os.environ) | {})
    assert run.code == 4
    assert "the room's URL is malformed" in run.reason
    assert len(run.requests("POST", "/end")) == 1


def test_the_face_by_another_name_is_taken_after_a_while(tmp_path):
    """When nobody by the PAL's name comes, somebody who sends a picture is the face, and the log says so; a mere viewer is not."""
    run = perform(THREE, tmp_path, TavusEmulator(face="renamed", face_user=False, face_after_ms=100, viewer_after_ms=50))
    assert run.code == 0
    assert run.spoken == ["one", "two", "three"]
    opened = of(run.lines, "event", "session_opened")[0]
    assert opened["at_ms"] < 1_000, "Tavus's own message tells it at once"
    run = perform(THREE, tmp_path / "quiet", TavusEmulator(face="renamed", face_user=False, face_after_ms=0, viewer_after_ms=50))
    assert (run.code, run.spoken) == (0, ["one", "two", "three"])
    opened = of(run.lines, "event", "session_opened")[0]
    assert opened["at_ms"] >= 10_000
    assert opened["reason"] == "nobody called 'Echo Assistant' came; 'Somebody Else' is taken for the face"


def test_names_that_are_refused_are_tried_in_the_other_generation(tmp_path):
    """What the author wrote goes out first; a 400 that names the field is followed by one request in the older names."""
    run = perform(THREE, tmp_path, TavusEmulator(create_names="old"))
    assert (run.code, run.spoken) == (0, ["one", "two", "three"])
    asked = [entry["body"] for entry in run.requests("POST", CREATE)]
    assert [("pal_id" in body, "persona_id" in body) for body in asked] == [(True, False), (False, True)]
    assert len(run.notes("session_created")) == 1


def test_another_pal_than_the_one_that_was_asked_for_is_refused(tmp_path):
    """A conversation that runs with some other PAL would talk by itself: it is ended at once, nothing is said, and the message says what
    to do."""
    run = perform(THREE, tmp_path, TavusEmulator(create_names="ignores-new"))
    assert (run.code, run.spoken) == (4, [])
    assert f"with the PAL 'p-default' and not with '{PAL}'" in run.reason
    assert "persona_id" in run.reason
    assert [entry["status"] for entry in run.requests("POST", "/end")] == [200]


@pytest.mark.parametrize("forged", ["shutdown", "speech", "face"])
def test_what_a_viewer_sends_changes_nothing(forged, tmp_path):
    """Anybody in the room can send what looks like the face's: no shutdown, no report of speech and no other face comes of it, and the log
    says who it was."""
    emulator = TavusEmulator(viewer_after_ms=50, face_after_ms=100)

    def forge(emulator, _):
        def act(line):
            if line.get("command") not in ("open_session", "say") or not emulator.open_sessions:
                return
            conversation = emulator.open_sessions[0]
            role, task = {"role": "pal"}, line.get("task")
            messages = {
                "shutdown": [{"event_type": "system.shutdown", "properties": {"reason": "\x1b[31mover"}}],
                "speech": [
                    {"event_type": f"conversation.{what}_speaking", "inference_id": task, "properties": role}
                    for what in ("started", "stopped")
                ],
                "face": [{"event_type": "system.pal_joined", "properties": {}}, {"event_type": "conversation.joined"}],
            }[forged]
            for message in messages:
                for guest in conversation.guests:
                    guest.message(message, "viewer-1")

        emulator.act = act

    run = perform(THREE, tmp_path, emulator, meanwhile=forge, watch=lambda line: emulator.act(line))
    quiet = perform(THREE, tmp_path / "quiet", TavusEmulator(viewer_after_ms=50, face_after_ms=100))
    told = [{key: line.get(key) for key in ("at_ms", "event", "task", "evidence", "duration_ms")} for line in run.lines if "event" in line]
    assert told == [{key: line.get(key) for key in told[0]} for line in quiet.lines if "event" in line]
    assert any("ignored a message of 'A Viewer', who is not the face" in str(line.get("reason")) for line in run.lines)


def test_the_face_is_known_by_its_user_id(tmp_path):
    """Whatever it is called and whoever came before, the participant whose user id says so is the face, at once and without a remark."""
    run = perform(THREE, tmp_path, TavusEmulator(face="renamed", face_after_ms=100, viewer_after_ms=50, copies="old"))
    assert (run.code, run.spoken) == (0, ["one", "two", "three"])
    opened = of(run.lines, "event", "session_opened")[0]
    assert opened["at_ms"] < 1_000
    assert "reason" not in opened


def test_a_viewer_who_is_there_first_is_not_taken_for_the_face(tmp_path):
    """Nothing is said before the face has come, whoever else is in the room."""
    run = perform(THREE, tmp_path, TavusEmulator(viewer_after_ms=0, face_after_ms=5_000))
    assert run.code == 0
    assert run.sent()[0]["at_ms"] >= 5_000


# --- bad luck: on the way -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"face": "leaves"}, "the face left the room (leftCall)"),
        ({"faults": ["session-dies@two"]}, "Tavus ended the conversation: internal error occurred at step x"),
    ],
)
def test_a_conversation_that_dies_on_the_way_is_lost(options, says, tmp_path):
    """Exit 4 with the reason; every line has its grade; the conversation is ended all the same, which costs nothing."""
    run = perform(THREE, tmp_path, TavusEmulator(**options))
    assert (run.code, run.reason) == (4, says)
    assert len(run.requests("POST", "/end")) == 1
    assert len(of(run.lines, "event", "provider_failed")) == 1


def test_the_longest_call_of_the_account_is_found_out_on_the_way(tmp_path):
    """Tavus caps what we ask for without a word; its reason is in the log, with the true length."""
    run = perform(f"{HEAD}timeline:\n  - wait: 5m\n", tmp_path, TavusEmulator(longest_s=30))
    assert (run.code, run.reason) == (4, "Tavus ended the conversation: max_call_duration reached")
    told = "Tavus gives the reason 'max_call_duration reached', after 30.0 s"
    assert run.closed == f"Tavus had ended the conversation before: {told}"


def test_a_limit_that_we_know_of_is_kept_by_ourselves(tmp_path):
    """What the author allows Tavus is not used up to its last second: what Tavus cuts off nobody reports."""
    text = HEAD.replace("}", ", properties: {max_call_duration: 30}}") + "timeline:\n  - wait: {event: never}\n"
    run = perform(text, tmp_path, controls=[Somebody()])
    assert (run.code, run.reason) == (6, "the session reached its limit of 28500 ms")


@pytest.mark.parametrize("how", ["drop", "expel", "garbage"])
def test_a_room_that_goes_away(how, tmp_path):
    """A connection that breaks, or a meeting that is deleted, loses the conversation; lines that nobody can read do not."""

    def trouble(emulator, _):
        def act(line):
            if line.get("event") == "speech_started" and line["task"] == "two":
                [guest] = emulator.open_sessions[0].guests
                {"drop": guest.drop, "expel": lambda: guest.expel("ejected"), "garbage": lambda: guest.raw(b"{nonsense\n")}[how]()

        emulator.act = act

    emulator = TavusEmulator()
    run = perform(THREE, tmp_path, emulator, meanwhile=trouble, watch=lambda line: emulator.act(line))
    if how == "garbage":
        assert run.code == 0
        assert "an unreadable line" in json.dumps(run.lines)
    else:
        assert run.code == 4
        assert run.reason.startswith("the room is gone")
        assert run.spoken == ["one", "two"]
    assert len(run.requests("POST", "/end")) == 1


def test_a_message_that_the_room_does_not_take(tmp_path):
    """Refused: the line failed, and was not said. Of a sound of which a part was sent nobody knows what was heard."""

    def refuse(emulator, _):
        counts = iter(range(1000))
        emulator.said = lambda guest, message: (
            "AppMessage(Other)" if next(counts) in (1, 40) else TavusEmulator.said(emulator, guest, message)
        )

    text = THREE.replace("    id: two", "    id: two\n    on_error: continue")
    run = perform(text, tmp_path, meanwhile=refuse)
    assert run.code == 0
    [failed] = of(run.lines, "event", "provider_failed")
    assert (failed["task"], failed["outcome"]) == ("two", "refused")
    assert run.spoken == ["one", "three"]
    run = perform(sound_show(4_000, more="    on_error: continue\n  - say: x\n"), tmp_path / "sound", meanwhile=refuse)
    [failed] = of(run.lines, "event", "provider_failed")
    assert (failed["task"], failed["outcome"], failed["reason"][:37]) == ("sound", "ambiguous", "only a part of the sound was sent: th")


@pytest.mark.parametrize(("status", "times", "code", "left"), [(503, 2, 0, 0), (503, None, 4, 1), (400, 1, 4, 1), (404, 1, 4, 1)], ids=str)
def test_an_end_that_fails(status, times, code, left, tmp_path):
    """It is tried again where time can mend it; a refusal is looked into; what is not surely over stays in the journal."""
    run = perform(THREE, tmp_path, injections=[Injection(method="POST", path=END, status=status, times=times, body={"error": "no"})])
    assert (run.code, len(run.left)) == (code, left)


@pytest.mark.parametrize(("times", "code", "left"), [(2, 0, 0), (None, 4, 1)], ids=str)
def test_an_end_that_is_accepted_and_not_carried_out_is_repeated(times, code, left, tmp_path):
    """Tavus says itself that the conversation is active, and is believed: it is ended again, or stays in the journal."""
    run = perform(THREE, tmp_path, injections=[Injection(method="POST", path=END, status=200, times=times, body={})])
    assert (run.code, len(run.left), run.still_open) == (code, left, left)
    assert len(run.requests("POST", "/end")) == (3 if times else 4)


PAGE = "<!DOCTYPE html><html><body>Please log in.</body></html>"


@pytest.mark.parametrize("status", [200, 404, 410])
@pytest.mark.parametrize(("times", "code", "left"), [(1, 0, 0), (None, 4, 1)], ids=str)
def test_a_web_page_does_not_end_a_conversation(status, times, code, left, tmp_path):
    """A login page, or a proxy's own error, is no answer of Tavus's: the end is repeated, and without an answer it stays in the journal."""
    run = perform(THREE, tmp_path, injections=[Injection(method="POST", path=END, status=status, times=times, body=PAGE)])
    assert (run.code, len(run.left), run.still_open) == (code, left, left)
    if left:
        assert f"answered {status} with a web page, not the service's answer" in run.reason


def test_a_conversation_that_is_over_when_it_is_to_be_ended_had_died(tmp_path):
    """Whoever ended it: ending it is refused, and a look shows that it is over. Lines that Tavus reported were said all the same."""

    def end_it(emulator, _):
        emulator.act = lambda line: emulator.open_sessions[0].end("end") if line.get("command") == "close_session" else None

    emulator = TavusEmulator()
    run = perform(THREE, tmp_path, emulator, meanwhile=end_it, watch=lambda line: emulator.act(line))
    assert (run.code, run.left) == (4, [])
    assert run.reason.startswith("Tavus had ended the conversation before")
    assert set(run.grades.values()) == {"reported"}
    assert [entry["status"] for entry in run.requests("POST", "/end")] == [400]


def test_an_end_whose_answer_was_lost_may_find_the_conversation_over(tmp_path):
    """It is repeated, and what the repetition finds was our own doing."""
    run = perform(THREE, tmp_path, injections=[Injection("lose", "POST", END)])
    assert (run.code, run.left) == (0, [])
    assert [entry["status"] for entry in run.requests("POST", "/end")] == ["closed", 400]


def test_a_sound_without_its_last_piece_is_cut(tmp_path):
    """What the emulator does when `done` is missing: it waits a moment, ends, and tells."""

    def forget(emulator, _):
        def said(guest, message):
            properties = message.get("properties", {})
            if properties.get("modality") == "audio":
                message = {**message, "properties": {**properties, "done": False}}
            return TavusEmulator.said(emulator, guest, message)

        emulator.said = said

    run = perform(sound_show(2_000), tmp_path, meanwhile=forget)
    assert run.code == 0
    assert len(run.notes("starved")) == 1
    assert run.grades == {"sound": "reported"}


# --- named faults -------------------------------------------------------------------------------------------------------

FAULTY = {
    "end-missing@two": (0, {"two": "timeout"}),
    "end-early@two": (0, {}),
    "end-late@two": (0, {}),
    "end-twice@two": (0, {}),
    "start-missing@two": (0, {}),
    "mute-after-120s": (0, {}),
    "interrupt-lost": (0, {"cut": "timeout"}),
    "speech-after-interrupt": (0, {}),
    "accepted-but-silent@two": (0, {"two": "timeout"}),
    "session-dies@two": (4, {"two": "timeout"}),
    "quota-at-create": (4, {}),
    "wrong-id@two": (0, {"two": "unmatched"}),
}


def test_every_fault_that_tavus_can_show_is_tried():
    """The table above has them all."""
    assert {name.partition("@")[0] for name in FAULTY} == set(FAULTS) - TavusEmulator.never


@pytest.mark.parametrize("fault", FAULTY)
def test_named_faults(fault, tmp_path):
    """Exit code and grades; no line is said twice, and every line has one grade."""
    code, grades = FAULTY[fault]
    text = CUT if "interrupt" in fault else THREE
    run = perform(text, tmp_path, TavusEmulator(faults=[fault]))
    assert run.code == code
    assert run.grades == {task: grades.get(task, "estimated" if task == "behind" else "reported") for task in run.grades}
    if fault != "speech-after-interrupt":
        assert len(run.spoken) == len(set(run.spoken))
    if fault in ("end-twice@two", "speech-after-interrupt"):
        assert of(run.lines, "note", "ignored") + of(run.lines, "note", "conflict") != []


STANDIN = os.pathsep.join(str(path) for path in (Path(__file__).parent / "standin", ROOT))

# --- stopping -----------------------------------------------------------------------------------------------------------


def test_a_stop_while_the_native_library_joins(tmp_path):
    """The same with the library's process (a stand-in for the library that never joins), in real time."""
    times = {}

    def wrap(on_event, _):
        room = DailyRoom(on_event, env)
        loop = asyncio.get_running_loop()
        loop.call_later(0.5, lambda: (times.update(stopped=loop.time(), pid=room.pid), runners[0].stop("SIGINT")))
        return room

    def note(line):
        if line.get("event") == "session_closed":
            times["closed"] = asyncio.get_running_loop().time()

    runners = []
    env = {**os.environ, "PYTHONPATH": STANDIN}
    emulator = TavusEmulator(room_url="https://standin.daily.co/never")
    before = Between(room=wrap)
    run = perform(
        THREE, tmp_path, emulator, name="system", env=env, before=before, watch=note, meanwhile=lambda _, runner: runners.append(runner)
    )
    assert run.code == 130
    assert times["pid"] is not None
    assert times["closed"] - times["stopped"] < 2
    assert len(run.requests("POST", "/end")) == 1


def test_a_stop_while_joining_does_not_wait_for_the_join(tmp_path):
    """A room that never answers is left at once; the conversation is ended; the process could go within two seconds."""
    times = {}

    def stop(emulator, runner):
        loop = asyncio.get_running_loop()
        loop.call_later(3, lambda: (times.update(stopped=loop.time()), runner.stop("SIGINT")))

    def note(line):
        if line.get("event") == "session_closed":
            times["closed"] = line["at_ms"] / 1000

    run = perform(THREE, tmp_path, TavusEmulator(join="silent"), meanwhile=stop, watch=note)
    assert run.code == 130
    assert times["closed"] - times["stopped"] < 2
    assert len(run.requests("POST", "/end")) == 1


CHILD = f"""\
{HEAD.replace(f"pal_id: {PAL}", "pal: {name: Face, face_id: r1}")}limits: {{speech_margin: 100ms}}
timeline:
  - {{say: One., id: one, on_error: continue}}
  - {{say: Two., id: two}}
"""


@pytest.mark.parametrize(
    ("room", "kill_at", "says"),
    [
        ("plain", None, ""),
        ("plain", "session_opened", "the process of the Daily room was ended by SIGKILL"),
        ("plain", "task_accepted", "the process of the Daily room was ended by SIGKILL"),
        ("abort", None, "the process of the Daily room was ended by SIGABRT"),
        ("refused-404", None, "there is no such room"),
    ],
)
def test_the_child_process_may_die_at_any_moment(room, kill_at, says, tmp_path):
    """The native library's process, with a stand-in for the library, in real time: the run survives it and ends the conversation."""

    def kill(line):
        if kill_at is not None and line.get("event") == kill_at and sessions:
            os.kill(sessions[0].room.pid, signal.SIGKILL)

    sessions = []
    provider = TavusProvider()
    connect = provider.connect
    provider.connect = lambda context: sessions.append(connect(context)) or sessions[-1]
    env = {**os.environ, "PYTHONPATH": STANDIN}
    emulator = TavusEmulator(room_url=f"https://standin.daily.co/{room}")
    before = Between(room=lambda on_event, _: DailyRoom(on_event, env))
    run = perform(CHILD, tmp_path, emulator, name="system", env=env, watch=kill, provider=provider, before=before)
    assert run.code == (0 if room == "plain" and kill_at is None else 4)
    assert says in run.reason
    assert len(run.requests("POST", "/end")) == 1
