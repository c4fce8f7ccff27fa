"""Tavus by REST, `echo_via: rest`: no room and no native library, each message queued at the service, the rest as by messages."""

from __future__ import annotations

import json

import pytest

from playbook.emulators.faults import Injection
from playbook.providers.tavus.emulator import MAX_BODY_BYTES, TavusEmulator
from tests.logs import of
from tests.tavus import PAL, THREE, perform

REST = THREE.replace(f"pal_id: {PAL}", f"pal_id: {PAL}, echo_via: rest")
HEARD = THREE.replace(f"pal_id: {PAL}", f"pal_id: {PAL}, echo_via: rest, listen: true")
SEND = "/v2/conversations/*/send-app-message"


def test_lines_are_said_without_a_room(tmp_path):
    """Three requests, three lines, in order; nobody enters the room, and every end is estimated."""
    run = perform(REST, tmp_path)
    assert (run.code, run.spoken) == (0, ["one", "two", "three"])
    assert set(run.grades.values()) == {"estimated"}
    assert run.notes("knocked") == []
    assert next((echo["text"], echo["done"]) for echo in run.sent()) == ("One is first.", True)


def test_with_an_ear_ends_are_reported(tmp_path):
    """`listen: true` joins the room beside the requests, and what Tavus reports there counts as ever."""
    run = perform(HEARD, tmp_path)
    assert (run.code, run.spoken) == (0, ["one", "two", "three"])
    assert set(run.grades.values()) == {"reported"}


def test_the_conversation_waits_for_its_viewers(tmp_path):
    """No request is a participant, so the conversation is told to wait for somebody as long as it may last."""
    run = perform(REST, tmp_path)
    (created,) = run.requests("POST", "/v2/conversations")
    properties = created["body"]["properties"]
    assert properties["participant_absent_timeout"] == properties["max_call_duration"]


def test_what_came_before_the_face_is_kept(tmp_path):
    """A message that is sent before the face has come is spoken when it is there."""
    run = perform(REST, tmp_path, TavusEmulator(face_after_ms=1_500))
    assert (run.code, run.spoken) == (0, ["one", "two", "three"])
    first = next(entry for entry in run.notes("speech_started"))
    assert first["at_ms"] >= 1_500


def test_a_message_that_was_not_delivered_is_sent_again(tmp_path):
    """502 in the service's own words: nothing was delivered, so the line is sent once more, and said once."""
    body = {"error": "The app message could not be delivered. Please retry."}
    run = perform(REST, tmp_path, injections=[Injection(method="POST", path=SEND, status=502, body=body)])
    assert (run.code, run.spoken) == (0, ["one", "two", "three"])


@pytest.mark.parametrize(
    ("status", "body"),
    [(504, {"error": "The app message may have been delivered; check before retrying."}), (502, "<html><h1>Bad gateway</h1></html>")],
)
def test_a_message_of_which_nobody_knows_is_not_sent_again(status, body, tmp_path):
    """504, or somebody else's 502: the line is ambiguous, the run fails, and nothing was sent twice."""
    run = perform(REST, tmp_path, injections=[Injection(method="POST", path=SEND, status=status, body=body)])
    assert run.code == 1
    (failed,) = of(run.lines, "event", "provider_failed")
    assert (failed["task"], failed["outcome"]) == ("one", "ambiguous")
    assert len(run.requests("POST", "/send-app-message")) == 1


def test_a_conversation_that_is_over_loses_the_run(tmp_path):
    """The service says that the conversation is not active any more: lost, exit 4."""
    body = {"error": "App messages can only be sent to active conversations."}
    run = perform(REST, tmp_path, injections=[Injection(method="POST", path=SEND, status=400, body=body, skip=1)])
    assert run.code == 4
    assert "the conversation is over (400)" in run.reason


def test_a_long_text_goes_in_pieces(tmp_path):
    """No request is larger than the service takes; together they are the whole text, in order, under one id."""
    sentence = "The quick brown fox jumps over the lazy dog, and nobody knows why. "
    text = (sentence * 1_100).strip()
    run = perform(REST.replace("One is first.", text), tmp_path)
    assert run.code == 0
    pieces = [echo for echo in run.sent() if echo["inference_id"] == "one"]
    assert len(pieces) == 2
    assert "".join(piece["text"] for piece in pieces) == text
    assert [piece["done"] for piece in pieces] == [False, True]
    assert max(len(json.dumps(piece, ensure_ascii=False)) for piece in pieces) < MAX_BODY_BYTES


def test_the_pace_is_kept(tmp_path):
    """130 lines as fast as they are accepted: none is refused, since the 121st waits until the first is a minute old."""
    lines = "".join(f"  - say: Line {number}.\n    until: accepted\n" for number in range(130))
    run = perform(REST.partition("timeline:")[0] + "timeline:\n" + lines, tmp_path)
    assert run.code == 0
    answers = [entry["status"] for entry in run.requests("POST", "/send-app-message")]
    assert answers == [200] * 130
    assert len(run.spoken) == 130


def test_an_interrupt_stops_the_line(tmp_path):
    """An interrupt goes by a request too, and the line is cut."""
    text = REST.replace("Two is second.", "Two is a line that goes on and on, until somebody stops it, which is soon.")
    text = text.replace("    id: two\n", "    id: two\n    until: 200ms\n  - interrupt:\n")
    run = perform(text, tmp_path)
    assert run.code == 0
    assert [entry["message"]["event_type"] for entry in run.notes("message")].count("conversation.interrupt") == 1
    (cut,) = [entry for entry in run.notes("speech_ended") if entry["interrupted"]]
    assert cut["task"] == "two"
