"""Tavus by microphone: the whole show as one track of our own sound, over real sockets, on the virtual clock."""

from __future__ import annotations

import wave
from dataclasses import replace

import pytest

from playbook import clock
from playbook.emulators.faults import Injection
from playbook.errors import SetupError
from playbook.providers.tavus.emulator import TavusEmulator
from playbook.providers.tavus.provider import TavusProvider
from playbook.speech.audio import decode, resample
from playbook.speech.voice import Settings, Voice
from playbook.transports.room import ClipEnded
from tests.contract import Between, Stage, Stand, voice
from tests.logs import checked, closings, of
from tests.scripts import plan, say
from tests.tavus import CREATE, KEY, PAL, perform

HEAD = f"version: 1\nprovider: tavus\nsession: {{pal_id: {PAL}, echo_via: microphone, language: en}}\n"
SHOW = f"""\
{HEAD}timeline:
  - {{say: One is first., id: one}}
  - {{audio-echo: chime.wav, id: chime}}
  - wait: 700ms
  - {{say: Two is second., id: two}}
"""
TALK = "This sentence goes on for quite some time, and somebody may well stop it before it has come to its end."


class Tape:
    """What the room's microphone took."""

    def __init__(self) -> None:
        self.pcm = bytearray()
        self.hz = 0

    def __call__(self, emulator, _) -> None:
        def played(guest, pcm, hz):
            self.pcm += pcm
            self.hz = hz
            TavusEmulator.played(emulator, guest, pcm, hz)

        emulator.played = played


def length_ms(text: str) -> int:
    return voice().speak(text, Settings(language="en")).duration_ms


def test_lines_are_our_own_sound_and_their_lengths_are_exact(tmp_path):
    """No message is sent; every line begins and ends with its sound, to the frame, and the recording is what the room was sent."""
    tape = Tape()
    run = perform(SHOW, tmp_path, meanwhile=tape)
    assert run.code == 0
    assert run.sent() == run.notes("message") == []
    assert run.grades == {"one": "reported", "chime": "reported", "two": "reported"}
    starts = {line["task"]: line["at_ms"] for line in of(run.lines, "event", "speech_started")}
    ends = {task: line["at_ms"] for task, line in closings(run.lines).items()}
    for task, ms in (("one", length_ms("One is first.")), ("chime", 400), ("two", length_ms("Two is second."))):
        assert abs(ends[task] - starts[task] - ms) <= 2
        assert abs(closings(run.lines)[task]["duration_ms"] - ms) <= 1
    with wave.open(str(tmp_path / "run" / "audio.wav")) as file:
        recorded = file.getnframes() * 1000 / file.getframerate()
    assert recorded >= ends["two"] - starts["one"]
    first = resample(voice().speak("One is first.", Settings(language="en")).sound, 24_000).pcm
    assert tape.hz == 24_000
    assert bytes(tape.pcm[: len(first)]) == first
    assert of(run.lines, "note", "conflict") == of(run.lines, "note", "ignored") == []


def test_the_face_may_finish_before_the_room_closes(tmp_path):
    """Sound is on its way for a moment: the conversation outlives the last line by a second and a half."""
    run = perform(SHOW, tmp_path)
    end = run.requests("POST", "/end")[0]["at_ms"]
    assert end - closings(run.lines)["two"]["at_ms"] >= 1_500


def test_an_interrupt_is_the_end_of_our_own_sound(tmp_path):
    """At once, to the frame: how much was heard is what was played, in milliseconds and in words; what waited was not heard at all."""
    text = f"""\
{HEAD}timeline:
  - {{say: "{TALK}", id: cut, until: 2s}}
  - {{say: A line that waits behind it., id: behind, until: accepted}}
  - interrupt:
  - {{say: Afterwards., id: after}}
"""
    tape = Tape()
    run = perform(text, tmp_path, meanwhile=tape)
    assert run.code == 0
    ends = closings(run.lines)
    assert ends["cut"]["interrupted"]
    assert 2_000 <= ends["cut"]["heard_ms"] <= 2_040
    assert TALK.startswith(ends["cut"]["heard"])
    assert ends["cut"]["heard"].startswith("This sentence goes on")
    assert (ends["behind"]["interrupted"], ends["behind"]["heard_ms"]) == (True, 0)
    assert "interrupted" not in ends["after"]
    assert run.sent("conversation.interrupt") == []
    played_ms = len(tape.pcm) / 48
    assert abs(played_ms - ends["cut"]["heard_ms"] - length_ms("Afterwards.")) <= 80


def test_an_interrupt_between_two_chunks(tmp_path):
    """Of the line that waits for its rest, what was played was heard."""
    text = f"""\
{HEAD}timeline:
  - say: {{chunks: ["It is now ", {{wait: 9s}}, "late."]}}
    id: news
    until: 3s
  - interrupt:
  - {{say: Afterwards., id: after}}
"""
    run = perform(text, tmp_path)
    news = closings(run.lines)["news"]
    assert run.code == 0
    assert (news["interrupted"], news["heard"]) == (True, "It is now")
    assert 300 <= news["heard_ms"] <= 1_000


def test_chunks_are_spoken_in_one_breath(tmp_path):
    """A line in pieces is the whole line's sound when its pieces come in time; a late piece leaves a silence."""
    text = f'{HEAD}timeline:\n  - say: {{chunks: ["It is a fine ", "day in sp", "ring, is it not?"]}}\n    id: news\n'
    tape = Tape()
    run = perform(text, tmp_path, meanwhile=tape)
    assert run.code == 0
    whole = length_ms("It is a fine day in spring, is it not?")
    assert abs(closings(run.lines)["news"]["duration_ms"] - whole) <= 3
    assert [line["chunk"] for line in of(run.lines, "event", "task_accepted")] == [1, 2, 3]
    late = perform(text.replace('"day in sp"', '{wait: 5s}, "day in sp"'), tmp_path / "late")
    [started] = of(late.lines, "event", "speech_started")
    assert closings(late.lines)["news"]["at_ms"] - started["at_ms"] > 5_000


def test_a_secret_is_spoken_and_never_shown(tmp_path):
    """Neither in a file nor in what an interrupt says was heard."""
    text = f"""\
{HEAD}vars: {{code: {{type: string, secret: true, required: true}}}}
timeline:
  - {{say: "The code for tonight is {{{{ code }}}}, and nobody else may know it at all.", id: cut, until: 2s}}
  - interrupt:
"""
    run = perform(text, tmp_path, var={"code": "swordfish"})
    assert run.code == 0
    assert closings(run.lines)["cut"]["heard"] == "***"
    for path in (tmp_path / "run").iterdir():
        assert b"swordfish" not in path.read_bytes()


def test_without_a_voice_nothing_is_asked(tmp_path):
    """The extra is named, before a conversation costs anything."""

    class Silent(Voice):
        available = False

    stand = Stand(TavusProvider(Silent), {"TAVUS_API_KEY": KEY}, {"pal_id": PAL, "echo_via": "microphone"})

    async def main():
        with pytest.raises(SetupError, match="no voice is installed"):
            Stage(stand, plan(say("one"), session=stand.settings), tmp_path)

    clock.run(main(), "virtual")


def test_a_pal_that_is_made_has_its_microphone_enabled(tmp_path):
    """In its transport layer, unless the author says otherwise."""
    text = SHOW.replace(f"pal_id: {PAL}", "pal: {name: Guide, face_id: r1}")
    run = perform(text, tmp_path)
    [made] = [entry["body"] for entry in run.requests("POST", "/v2/pals")]
    assert made["layers"] == {"transport": {"transport_type": "daily", "input_settings": {"microphone": {"isEnabled": True}}}}
    assert "echo_via" not in run.requests("POST", CREATE)[0]["body"]


@pytest.mark.parametrize(("how", "says"), [("drop", "the room is gone"), ("face", "the face left the room"), ("end", "Tavus ended")])
def test_what_is_lost_in_the_middle_of_a_line(how, says, tmp_path):
    """The run is over with the reason, the line has a grade, and the conversation is ended."""

    def spoil(line):
        if line.get("event") == "speech_started" and line["task"] == "chime":
            [conversation] = emulator.open_sessions
            acts = {"drop": conversation.guests[0].drop, "face": conversation.face_leaves, "end": lambda: conversation.end("fault")}
            acts[how]()

    emulator = TavusEmulator()
    run = perform(SHOW, tmp_path, emulator, watch=spoil)
    assert run.code == 4
    assert run.reason.startswith(says)
    assert set(run.grades) == {"one", "chime"}
    assert len(run.requests("POST", "/end")) == 1


@pytest.mark.parametrize("mute", [True, False], ids=["says nothing", "speaks of other sounds"])
def test_a_room_that_does_not_say_when_our_sound_is_over(mute, tmp_path):
    """It is given up soon after, because nobody else would end the line; and what it says of sounds that are not ours means nothing."""

    def forgetful(on_event, make):
        def hear(event):
            if isinstance(event, ClipEnded):
                return None if mute else on_event(replace(event, clip="nobody's"))
            return on_event(event)

        return make(hear)

    run = perform(SHOW, tmp_path, before=Between(room=forgetful))
    assert run.code == 4
    assert "has not said within 10 s that our sound was played" in run.reason
    assert run.lines[-1]["at_ms"] < 20_000


def test_a_refused_conversation(tmp_path):
    """Nothing is left behind."""
    run = perform(SHOW, tmp_path, injections=[Injection(path=CREATE, status=402, body={"message": "out of conversational credits"})])
    assert run.code == 4
    assert "no conversation credits left (402)" in run.reason
    assert checked(tmp_path / "run")[-1]["end"] == "error"


def test_a_sound_is_played_as_it_is(tmp_path):
    """To the sample, at the track's rate."""
    tape = Tape()
    text = f"{HEAD}timeline:\n  - {{audio-echo: chime.wav, id: chime}}\n"
    assert perform(text, tmp_path, meanwhile=tape).code == 0
    sound = resample(decode(tmp_path / "chime.wav"), 24_000).pcm
    assert bytes(tape.pcm[: len(sound)]) == sound
