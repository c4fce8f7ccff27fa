"""Whole shows, from YAML to the run folder, on the virtual clock.

`tests/golden/shows/<case>/` holds a playbook, and beside it what must come of it, silently spoken: the log below its header, the captions
and the exit code. The playbooks that we ship are performed with the real voice.
"""

from __future__ import annotations

import json
import wave
from pathlib import Path

import pytest

from playbook import clock
from playbook.errors import RunError, SetupError
from playbook.language import Inputs, compile_file
from playbook.model import Plan
from playbook.perform.performance import Options, Outcome, Runner
from playbook.perform.steering import Cue
from playbook.perform.world import World
from playbook.providers.local.provider import LocalProvider
from playbook.speech.voice import Voice

from .logs import ROOT, checked, closings

SHOWS = sorted((ROOT / "tests" / "golden" / "shows").iterdir())
SHIPPED = sorted(path for path in (ROOT / "playbooks").glob("*.yaml") if "provider: local" in path.read_text("utf-8"))
VERBS_AND_MODIFIERS = (
    *("say:", "audio-echo:", "wait:", "interrupt:", "end:", "include:", "chunks:", "voice:", "event:", "wait: speech", "drain: false"),
    *(
        "id:",
        "name:",
        "when:",
        "foreach:",
        "as:",
        "with:",
        "repeat:",
        "until:",
        "at:",
        "timeout:",
        "on_error:",
        "expect:",
        "limits:",
        "secret:",
    ),
)


class Silent(Voice):
    """The voice of an installation without the extra `voice`."""

    available = False


@pytest.fixture(scope="session")
def voice(tmp_path_factory):
    """The real voice, with a cache for the tests of one session."""
    return Voice(tmp_path_factory.mktemp("speech"))


def perform(plan: Plan, provider: LocalProvider, folder: Path, **options) -> Outcome:
    async def show():
        return await Runner(plan, Options(folder=folder, provider=provider, **options)).run()

    return clock.run(show(), "virtual")


def planned(path: Path, voice: Voice, **inputs) -> tuple[Plan, LocalProvider]:
    world = World(voice=voice)
    return compile_file(path, world, Inputs(**inputs)), world.local


@pytest.mark.parametrize("case", SHOWS, ids=lambda path: path.name)
def test_golden_show(case, tmp_path, update_golden):
    """The same playbook gives the same log, captions and exit code, byte by byte below the log's header."""
    plan, provider = planned(case / "playbook.yaml", Silent())
    outcome = perform(plan, provider, tmp_path / "run")
    checked(tmp_path / "run")
    header, _, log = (tmp_path / "run" / "run.jsonl").read_text("utf-8").partition("\n")
    got = {
        "run.jsonl": log,
        "captions.vtt": (tmp_path / "run" / "captions.vtt").read_text("utf-8"),
        "exit.txt": f"{outcome.result.exit_code}\n",
    }
    for name, text in got.items():
        if update_golden:
            (case / name).write_text(text, "utf-8")
        assert text == (case / name).read_text("utf-8"), name
    assert "90210" not in header + "".join(path.read_text("utf-8") for path in (tmp_path / "run").glob("*.*n*"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_playbook(path, tmp_path, voice):
    """Every playbook that we ship is performed with real speech, twice with the same log; its sound is as long as the show."""
    logs = []
    for run in ("one", "two"):
        plan, provider = planned(path, voice)
        cues = (Cue("go"), Cue("next", 12_000))
        outcome = perform(plan, provider, tmp_path / run, cues=cues)
        assert (outcome.result.exit_code, outcome.failures) == (0, ())
        assert not plan.warnings
        lines = checked(tmp_path / run)
        assert {line["evidence"] for line in closings(lines).values()} == {"reported"}
        logs.append(lines[1:])
        with wave.open(str(tmp_path / run / "audio.wav")) as sound:
            seconds = sound.getnframes() / sound.getframerate()
            assert max(sound.readframes(sound.getnframes())) > 0
        assert seconds * 1000 == pytest.approx(lines[-1]["at_ms"] - outcome.summary.zero_ms, abs=1)
        assert not (tmp_path / run / "session.json").exists()
    assert logs[0] == logs[1]


def test_shipped_playbooks_show_everything():
    """Together they use every verb and every modifier."""
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "playbooks").rglob("*.yaml"))
    assert [word for word in VERBS_AND_MODIFIERS if word not in text] == []


def test_captions_show_what_was_heard(tmp_path, voice):
    """The line that is cut in the product demo is captioned up to the cut, and its cues never overlap."""
    plan, provider = planned(ROOT / "playbooks" / "product-demo.yaml", voice)
    perform(plan, provider, tmp_path / "run", cues=[Cue("go"), Cue("next", 12_000)])
    captions = (tmp_path / "run" / "captions.vtt").read_text("utf-8")
    assert "brass housing" in captions
    assert "first page to the last" not in captions
    boast = closings(checked(tmp_path / "run"))["boast"]
    assert boast["interrupted"]
    assert boast["heard_ms"] == 5000
    assert boast["heard"].startswith("It has a brass housing")


def test_secrets_are_spoken_but_never_written(tmp_path, voice):
    """A secret that a template puts into a line is in the sound (another code sounds different) and in no file."""
    sounds = []
    for code in ("sesame-77", "swordfish"):
        plan, provider = planned(ROOT / "playbooks" / "night-train.yaml", voice, var={"code": code})
        folder = tmp_path / code[:3]
        perform(plan, provider, folder)
        sounds.append((folder / "audio.wav").read_bytes())
        for file in folder.iterdir():
            assert code.encode() not in file.read_bytes(), file
        assert code not in json.dumps(checked(folder))
    assert sounds[0] != sounds[1]


def test_a_sure_stall_opens_no_session(tmp_path):
    """A show that waits for a sign that nobody can give is refused before it begins, with the step and what it waits for."""
    plan, provider = planned(ROOT / "playbooks" / "product-demo.yaml", Silent())
    with pytest.raises(RunError, match="stall: the start waits for the trigger 'go', which nothing can give"):
        perform(plan, provider, tmp_path / "run")
    lines = checked(tmp_path / "run")
    assert (len(lines), lines[-1]["end"]) == (2, "failed")


def test_a_stall_in_the_show_is_reported(tmp_path):
    """A sign that was given before anybody waited for it is gone: the show fails at once, with the step and what it waits for."""
    path = tmp_path / "show.yaml"
    path.write_text("version: 1\nprovider: local\ntimeline:\n  - say: Hello there.\n  - wait: {event: door}\n")
    plan, provider = planned(path, Silent())
    outcome = perform(plan, provider, tmp_path / "run", cues=[Cue("door", 10)])
    assert (outcome.result.end, outcome.result.exit_code) == ("failed", 1)
    assert outcome.result.reason == "stall: step 'wait-2' waits for the trigger 'door', which nothing can give any more"
    checked(tmp_path / "run")


def test_a_run_without_credentials_leaves_a_whole_log(tmp_path):
    """Nothing was opened and nothing is owed; the log says why, and that it is complete."""
    world = World(voice=Silent())
    plan = compile_file(ROOT / "playbooks" / "kaltura-tour.yaml", world, Inputs())
    with pytest.raises(SetupError, match="no credentials"):
        perform(plan, world.provider("kaltura"), tmp_path / "run", cues=[Cue("go")])
    lines = checked(tmp_path / "run")
    assert (lines[-1]["end"], lines[-1]["reason"]) == ("error", "no credentials for Kaltura")
    assert len(lines) == 2
