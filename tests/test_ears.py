"""An ear for vendors that report nothing: Avaturn's room (`viewer: room`) and Kaltura's stream (`listen: true`), against the emulators'
own truth, on the virtual clock; Kaltura's by real WebRTC too."""

from __future__ import annotations

import sys
import wave
from pathlib import Path
from typing import Any

import pytest

from playbook.providers.avaturn.emulator import AvaturnEmulator
from playbook.providers.kaltura.emulator import KalturaEmulator
from playbook.providers.kaltura.provider import KalturaProvider
from playbook.transports.cassette import Cassette
from tests import shown
from tests.avaturn import perform as at_avaturn
from tests.contract import Stand, voice
from tests.logs import closings, of

LINES = """\
timeline:
  - say: Good morning, and welcome to the museum.
    id: one
  - say: {chunks: ["The lift ", "is on your left."]}
    id: two
  - wait: 1s
  - say: Goodbye, and come again.
    id: three
"""
ROOM = "version: 1\nprovider: avaturn\nsession: {viewer: room}\n" + LINES
STREAM = "version: 1\nprovider: kaltura\nsession: {visualConfig: {id: a}, voiceConfig: {id: v}, listen: true}\nstart: 0s\n" + LINES
WITHIN_MS = 30


def room(folder: Path, text: str = ROOM, **options: Any) -> Any:
    return at_avaturn(text, folder, AvaturnEmulator(**options))


def stream(folder: Path, text: str = STREAM, *, emulator: KalturaEmulator | None = None, **more: Any) -> shown.Shown:
    stand = Stand(KalturaProvider(voice), {"KALTURA_KS": "djJ8MXxhbi1lbXVsYXRlZC1rcw"}, emulator=emulator or KalturaEmulator())
    return shown.perform(stand, text, folder, shown.Shown, **more)


def truth(run: Any) -> list[tuple[int, int]]:
    """When each line was really said, by the emulator's own word: from its first sound to its last."""
    (session,) = run.emulator.sessions.values()
    return [(line.started_ms, line.ended_ms) for line in session.queue.lines]


def told(run: Any) -> list[tuple[int, int]]:
    """The same, as the run's log has it. (Both clocks begin together on the virtual clock.)"""
    starts = {line["task"]: line["at_ms"] - line.get("ago_ms", 0) for line in of(run.lines, "event", "speech_started")}
    ends = {task: line["at_ms"] - line.get("ago_ms", 0) for task, line in closings(run.lines).items()}
    return [(starts[task], ends[task]) for task in ends]


# --- Avaturn's room -----------------------------------------------------------------------------------------------------


def test_avaturn_reports_to_its_room(tmp_path):
    """We are the viewer, so text echo speaks, and every end is reported by its phrase's id."""
    run = room(tmp_path)
    assert run.code == 0
    assert [entry["viewers"] for entry in run.notes("viewer_connected")] == [1]
    assert run.grades == dict.fromkeys(("one", "two", "three"), "reported")
    assert {line["source"] for line in closings(run.lines).values()} == {"room"}
    assert [(line["source"], line["evidence"]) for line in of(run.lines, "event", "source_joined")] == [("room", "reported")]
    (session,) = run.emulator.sessions.values()
    assert [line["at_ms"] for line in closings(run.lines).values()] == [session.queue.lines[n].ended_ms for n in (0, 2, 3)]


@pytest.mark.parametrize("phrases", ["own", "none"])
def test_phrases_by_other_names_are_unmatched(phrases, tmp_path):
    """Where a `phrase_id` is none of our tasks', tasks are taken in their order, and the grade says so."""
    run = room(tmp_path, phrases=phrases)
    assert run.code == 0
    assert run.grades == dict.fromkeys(("one", "two", "three"), "unmatched")
    assert of(run.lines, "note", "conflict") == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"sdk": "withdrawn"}, "no such session"),
        ({"sdk": "roomless"}, "no room_url"),
        ({"room": "full"}, "MeetingFull"),
        ({"room": "dead"}, "there is no such room"),
    ],
)
def test_without_the_room_ends_are_estimated(options, why, tmp_path):
    """The private interface may be gone any day: the show goes on with estimates, and says so once."""
    run = room(tmp_path, viewer_after_ms=300, **options)
    assert run.code == 0
    assert set(run.grades.values()) == {"estimated"}
    (opened,) = of(run.lines, "event", "session_opened")
    assert opened["reason"].startswith("ends are estimated: we do not hear Avaturn's room")
    assert why in opened["reason"]


@pytest.mark.parametrize("fault", ["end-missing", "accepted-but-silent"])
def test_what_the_room_does_not_tell_is_a_timeout(fault, tmp_path):
    """A line whose end never comes, or that was never said, is found."""
    run = room(tmp_path, faults=[f"{fault}@task-1"])
    assert run.grades == {"one": "timeout", "two": "reported", "three": "reported"}


def test_an_avatar_that_leaves_has_lost_the_session(tmp_path):
    """The session dies in mid-line: lost, exit 4, the line's grade is `timeout`."""
    run = room(tmp_path, faults=["session-dies@task-1"])
    assert run.code == 4
    assert run.grades["one"] == "timeout"


# --- Kaltura's stream ---------------------------------------------------------------------------------------------------


def test_kaltura_is_heard(tmp_path):
    """Every line is heard, within a few milliseconds of the truth; what was heard is kept, and the viewer's place is given back."""
    run = stream(tmp_path)
    assert run.code == 0
    assert run.grades == dict.fromkeys(("one", "two", "three"), "heard")
    for (start, end), (said, over) in zip(told(run), truth(run), strict=True):
        assert abs(start - said) <= WITHIN_MS
        assert abs(end - over) <= WITHIN_MS
    with wave.open(str(run.outcome.folder / "heard.wav")) as sound:
        assert max(sound.readframes(sound.getnframes())) > 0
    (session,) = run.emulator.sessions.values()
    assert session.viewers == 0


def test_kaltura_is_heard_by_webrtc(tmp_path):
    """The same over real WebRTC on the system clock."""
    run = stream(tmp_path, STREAM.replace("  - wait: 1s\n", ""), name="system")
    assert (run.code, set(run.grades.values())) == (0, {"heard"})


@pytest.mark.parametrize("fault", ["accepted-but-silent", "mute-after-120s"])
def test_a_mute_face_is_found(fault, tmp_path):
    """A line that was accepted and never said is `timeout`, and the lines around it are heard."""
    text = STREAM if fault == "accepted-but-silent" else STREAM.replace("  - wait: 1s\n", "  - wait: 2m\n")
    run = stream(tmp_path, text, emulator=KalturaEmulator(faults=[f"{fault}@three"]))
    assert run.grades == {"one": "heard", "two": "heard", "three": "timeout"}
    assert closings(run.lines)["three"]["reason"] == "nothing was heard"


def test_a_place_that_is_taken_leaves_estimates(tmp_path):
    """409: somebody watches already. The show goes on, and the log says why nothing is heard."""
    run = stream(tmp_path, emulator=KalturaEmulator(viewer_after_ms=0))
    assert run.code == 0
    assert set(run.grades.values()) == {"estimated"}
    (opened,) = of(run.lines, "event", "session_opened")
    assert "somebody watches already" in opened["reason"]


def test_a_session_that_dies_is_lost(tmp_path):
    """The stream ends with the session; the next request tells that it is lost."""
    run = stream(tmp_path, emulator=KalturaEmulator(faults=["session-dies@one"]))
    assert run.code == 4
    assert [line["source"] for line in of(run.lines, "event", "source_left")] == ["ear"]


def test_what_was_heard_is_on_a_cassette(tmp_path):
    """A recorded run is performed again without a stream, with the same evidence at the same moments."""
    first = stream(tmp_path / "first", tape=Cassette(tmp_path / "kaltura.tape", "all", provider="kaltura"))
    again = stream(tmp_path / "again", tape=Cassette(tmp_path / "kaltura.tape", "none", provider="kaltura"))
    assert first.grades == again.grades == dict.fromkeys(("one", "two", "three"), "heard")
    assert told(first) == told(again)


def test_without_aiortc_the_session_is_ended(tmp_path, monkeypatch):
    """On the system clock listening needs the extra: the run says how to get it, and nothing stays open."""
    monkeypatch.setitem(sys.modules, "aiortc", None)
    run = stream(tmp_path, name="system")
    assert (run.code, run.still_open) == (4, 0)
    assert "pip install" in run.reason
