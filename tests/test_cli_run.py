"""`run` in this process, on the virtual clock: streams, exit codes, the run folder."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import playbook
from playbook import clock

from .commands import HELLO
from .logs import ROOT, checked, closings, of

STALL = "version: 1\nprovider: local\ntimeline:\n  - wait: {event: next}\n    id: pause\n  - wait: 1s\n"


def test_run_performs_a_playbook(shell):
    """Progress on standard error, the report on standard output, exit 0, and a run folder with everything in it."""
    done = shell.call("run", shell.write("hello.yaml"), "--clock", "virtual", "--out", "here")
    assert done.code == 0
    assert [line[11:] for line in done.err.splitlines()] == [
        "session local is open",
        "hello        Welcome, friend.",
        "wait-2       wait 500ms",
        "say-3        This is a long sentence that will be cut short.",
        "interrupt-4  interrupt",
        "end-5        end",
        "session closed",
    ]
    report = done.out.splitlines()
    assert report[0].split() == ["start", "heard", "evidence", "step"]
    assert re.fullmatch(r" +0:00\.0 +\d\.\d s  reported   hello  Welcome, friend\.", report[1])
    assert re.fullmatch(r" +0:0\d\.\d +1\.0 s  reported   say-3  This is a long sentence .*  \[cut after “This is.*”\]", report[2])
    assert report[3:5] == ["", "passed"]
    assert report[5].startswith("5 steps, 2 lines, 1 cut; 0:0")
    assert report[6:] == [f"hear it: {Path('here/audio.wav')}", "here"]
    assert {path.name for path in Path("here").iterdir()} == {"run.jsonl", "plan.json", "captions.vtt", "captions.srt", "audio.wav"}
    checked(Path("here"))


def test_run_as_json(shell):
    """`--json` tells the same of the run as its log."""
    done = shell.call("run", shell.write("hello.yaml"), "--clock", "virtual", "--out", "here", "--json")
    told = json.loads(done.out)
    lines = checked(Path("here"))
    assert (told["end"], told["exit_code"], told["folder"]) == ("passed", 0, "here")
    assert told["counts"] == lines[-1]["counts"]
    ends = closings(lines)
    assert [said["step"] for said in told["utterances"]] == list(ends)
    for said in told["utterances"]:
        assert (said["evidence"], said["ended_ms"]) == (ends[said["step"]]["evidence"], ends[said["step"]]["at_ms"])


def test_quiet(shell):
    """`--quiet` leaves one line."""
    done = shell.call("run", shell.write("hello.yaml"), "--clock", "virtual", "--out", "here", "--quiet")
    assert (done.code, done.err, done.out) == (0, "", "passed; 2 lines; here\n")


def test_runs_go_to_a_folder_of_their_own(shell):
    """Without `--out`, each run makes `runs/<time>-<name>`."""
    folders = {shell.call("run", shell.write("hello.yaml"), "--clock", "virtual", "--quiet").out.split("; ")[-1] for _ in range(2)}
    assert len(folders) == 2
    assert all(re.fullmatch(r"runs/\d{8}T\d{6}-hello(-2)?\n", folder) for folder in folders)


def test_options_by_their_twins(shell):
    """A run can be set up by its environment alone."""
    env = {"PLAYBOOK_CLOCK": "virtual", "PLAYBOOK_OUT": "there", "PLAYBOOK_QUIET": "1", "PLAYBOOK_VAR_visitor": "Ada"}
    assert shell.call("run", shell.write("hello.yaml"), **env).out == "passed; 2 lines; there\n"
    assert of(checked(Path("there")), "command", "say")[0]["text"] == "Welcome, Ada."


@pytest.mark.parametrize("kind", ["full", "a file", "below a file"])
def test_a_run_folder_must_be_new_or_empty(shell, kind):
    """A folder that holds something, or is none, is wrong usage, and nothing is begun."""
    shell.write("hello.yaml")
    shell.write("here/mine.txt", "mine")
    out = {"full": "here", "a file": "here/mine.txt", "below a file": "here/mine.txt/run"}[kind]
    done = shell.call("run", "hello.yaml", "--clock", "virtual", "--out", out)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: the run folder {out} is ")
    assert Path("here/mine.txt").read_text() == "mine"
    assert list(Path("here").iterdir()) == [Path("here/mine.txt")]


def test_runs_may_be_no_folder(shell):
    """A file in the place of the folder of all runs is wrong usage like one in the place of a run's own."""
    shell.write("runs")
    done = shell.call("run", shell.write("hello.yaml"), "--clock", "virtual")
    assert (done.code, done.err) == (2, "error: runs is no folder\n  name a run folder with --out\n")


def test_an_empty_folder_is_fine(shell):
    """A folder that is there but empty is used."""
    Path("here").mkdir()
    assert shell.call("run", shell.write("hello.yaml"), "--clock", "virtual", "--out", "here").code == 0


def test_a_wrong_playbook_is_not_performed(shell):
    """Exit 3, with the problems, and no run folder."""
    done = shell.call("run", shell.write("wrong.yaml", "version: 1\nprovider: local\ntimeline: [shout: Hello]\n"), "--clock", "virtual")
    assert (done.code, done.out) == (3, "")
    assert "error[PB206]" in done.err
    assert not Path("runs").exists()


def test_a_failed_expectation_is_1(shell):
    """What was expected and did not come true is told with its value."""
    shell.write("hope.yaml", "version: 1\nprovider: local\ntimeline:\n  - say: Short.\n    id: hope\n    expect: {lasts: {min: 1m}}\n")
    done = shell.call("run", "hope.yaml", "--clock", "virtual", "--out", "here")
    assert done.code == 1
    assert "\nfailed at hope: expected the line to last 60000 to any number of ms, but it lasted " in done.out
    assert done.out.count("expected the line to last") == 1
    checked(Path("here"))


def test_a_stall_is_1(shell):
    """A wait for a trigger that nothing can give ends the run and names the step."""
    done = shell.call("run", shell.write("stall.yaml", STALL), "--clock", "virtual", "--out", "here")
    assert done.code == 1
    assert "step 'pause' waits for the trigger 'next', which nothing can give" in done.err
    assert checked(Path("here"))[-1]["end"] == "failed"


def test_a_sound_is_named(shell):
    """The report says which file was played."""
    shutil.copy(ROOT / "tests" / "golden" / "museum" / "sounds" / "chime.wav", "chime.wav")
    shell.write("sound.yaml", "version: 1\nprovider: local\ntimeline:\n  - audio-echo: chime.wav\n")
    assert "audio-echo-1  ♪ chime.wav\n" in shell.call("run", "sound.yaml", "--clock", "virtual").out


def test_a_refused_start_leaves_no_folder(shell):
    """A supervisor that tries again and again fills no disk with folders that nobody is told of; one that was asked for is named."""
    shell.write("stall.yaml", STALL)
    shell.call("new", "first.yaml", "--provider", "kaltura")
    for file, code in (("stall.yaml", 1), ("first.yaml", 4)):
        assert shell.call("run", file, "--trigger", "begin").code == code
    assert list(Path("runs").iterdir()) == []
    assert shell.call("run", "stall.yaml", "--out", "here").err.splitlines()[-1] == "its log is in here"


def test_a_quiet_failure_reaches_the_log(shell):
    """What --quiet sends to a log on standard error is one line with the time, for a run that failed and for one that never began."""
    failing = HELLO.replace("id: hello", "id: hello\n    expect: {lasts: {min: 60s}}")
    done = shell.call("run", shell.write("failing.yaml", failing), "--clock", "virtual", "--out", "here", "--quiet")
    when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ "
    assert (done.code, done.out.startswith("failed at hello: expected the line to last")) == (1, True)
    assert re.fullmatch(when + r"failed at hello: expected the line to last .* ms; here\n", done.err)
    done = shell.call("run", shell.write("stall.yaml", STALL), "--quiet")
    assert re.fullmatch(when + r"error: stall: step 'pause' waits for the trigger 'next', .*\n", done.err)


def test_a_name_that_is_no_text(shell):
    """A file may be called by any bytes; what is written down of such a name can be read again."""
    assert shell.call("new", "n\udcff.yaml").code == 0
    assert shell.call("run", "n\udcff.yaml", "--clock", "virtual", "--out", "here").code == 0
    assert checked(Path("here"))[0]["file"] == "n?.yaml"
    assert shell.call("replay", "here").code == 0


def test_a_trigger_needs_a_name(shell):
    """A rehearsed trigger without a name is wrong usage: nothing could ever wait for it."""
    shell.write("hello.yaml")
    assert shell.call("run", "hello.yaml", "--trigger", "@2s").code == shell.call("run", "hello.yaml", "--trigger", "").code == 2


def test_triggers_for_a_rehearsal(shell):
    """`--trigger NAME@TIME` gives it at that time of the show; `go` counts from the opened session."""
    shell.write("stall.yaml", STALL.replace("timeline:", "start: go\ntimeline:"))
    done = shell.call("run", "stall.yaml", "--clock", "virtual", "--out", "here", "--trigger", "next@2.5s", "--trigger", "go@1s")
    assert done.code == 0
    lines = checked(Path("here"))
    assert [(line["trigger"], line["at_ms"]) for line in of(lines, "event", "trigger")] == [("go", 1000), ("next", 3500)]


def test_a_secret_leaves_no_trace(shell):
    """A secret that is spoken stands in no stream and in no file of the run folder."""
    shell.write(
        "secret.yaml",
        "version: 1\nprovider: local\nvars: {pin: {type: string, secret: true, required: true}}\n"
        "timeline:\n  - say: 'Your number is {{ pin }}, remember it.'\n    name: 'tell {{ pin }}'\n"
        "  - say: 'It is {{ pin }} and {{ pin }}.'\n    until: 1500ms\n  - interrupt:\n  - say: Bye.\n    expect: {heard: '{{ pin }}'}\n",
    )
    for extra in ([], ["--json"]):
        out = f"here{len(extra)}"
        done = shell.call("run", "secret.yaml", "--clock", "virtual", "--out", out, "--var", "pin=hunter2000", *extra)
        assert done.code == 1
        assert "hunter2000" not in done.out + done.err
        assert "***" in done.out
        for path in Path(out).iterdir():
            assert b"hunter2000" not in path.read_bytes(), path.name
        checked(Path(out))


def test_a_secret_may_be_expected(shell):
    """What is expected of a line with a secret is compared as the log shows it; a failure is told once, and without the secret."""
    shell.write(
        "secret.yaml",
        "version: 1\nprovider: local\nvars: {pin: {type: integer, secret: true, default: 48151623}}\n"
        "timeline:\n  - say: 'It is {{ pin }} {{ pin * 2 }}.'\n    expect: {heard: 'It is {{ pin }} {{ pin * 2 }}.'}\n"
        "  - say: 'It is {{ pin }}.'\n    expect: {heard: 'It is not {{ pin * 2 }}, nor 48151623.'}\n",
    )
    done = shell.call("run", "secret.yaml", "--clock", "virtual", "--out", "here")
    assert done.code == 1
    assert "say-1: expected" not in done.out
    assert done.out.count("expected to hear 'It is not ***, nor ***.', but heard 'It is ***.'") == 1
    assert not any(secret in path.read_bytes() for path in Path("here").iterdir() for secret in (b"48151623", b"96303246"))
    plan = playbook.load("secret.yaml")
    outcome = clock.run(playbook.run(plan, folder="again"), "virtual")
    assert "48151623" not in f"{outcome.result} {outcome.failures}"


def test_faults_need_an_emulator(shell):
    """`--fault` without `--emulate` is wrong usage, and so is one where there is nothing to emulate; a local show is the same emulated."""
    shell.write("hello.yaml")
    assert shell.call("run", "hello.yaml", "--fault", "end-missing").code == 2
    assert shell.call("run", "hello.yaml", "--emulate", "--clock", "virtual").code == 0
    done = shell.call("run", "hello.yaml", "--emulate", "--fault", "end-missing")
    assert (done.code, "the fault 'end-missing' cannot strike" in done.err) == (2, True)
    assert shell.call("test", "hello.yaml", "--emulate", "--jobs", "1", "--clock", "virtual").code == 0
    assert shell.call("test", "hello.yaml", "--emulate", "--jobs", "1", "--clock", "virtual", "--fault", "end-missing").code == 2


def test_a_provider_without_credentials_is_4(shell):
    """What this machine lacks is told with the variable to set, and exits 4."""
    shell.call("new", "first.yaml", "--provider", "kaltura")
    done = shell.call("run", "first.yaml", "--clock", "virtual", "--out", "here")
    assert (done.code, done.out) == (4, "")
    assert "KALTURA_KS" in done.err
