"""`run --emulate`, cassettes and `emulate`, through real sockets."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path

import pytest

from playbook.providers import registry

from .logs import ROOT, checked, of


def emulated(shell, *argv: str, provider: str = "kaltura"):
    if not Path("first.yaml").exists():
        assert shell.call("new", "first.yaml", "--provider", provider).code == 0
    return shell.call("run", "first.yaml", "--clock", "virtual", "--trigger", "go@1s", *argv)


@pytest.mark.parametrize("provider", registry.emulated())
def test_a_starter_is_performed_against_the_emulator(shell, provider):
    """For each vendor: a fresh starter runs without a key, and every line is said; the user's own journal is not touched."""
    done = emulated(shell, "--emulate", "--out", "here", provider=provider)
    assert done.code == 0, done.err
    lines = checked(Path("here"))
    assert of(lines, "command", "say")[0]["text"] == "Welcome, friend."
    assert not Path(shell.env["PLAYBOOK_STATE_DIR"]).exists()


def test_no_real_key_goes_to_an_emulator(shell, tmp_path):
    """What the user has in the environment for the vendor is not used, and stands nowhere."""
    shell.env["KALTURA_KS"] = "a-planted-real-key"
    done = emulated(shell, "--emulate", "--out", "here", "--record", "tape.jsonl")
    assert done.code == 0
    assert "planted" not in done.out + done.err
    assert all(b"planted" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_fault_is_acted_out(shell):
    """`--fault NAME@STEP` fails that line, and an unknown fault is wrong usage."""
    done = emulated(shell, "--emulate", "--out", "here", "--fault", "session-dies@hello")
    assert done.code == 4
    assert of(checked(Path("here")), "event", "provider_failed")[0]["outcome"] == "lost"
    done = emulated(shell, "--emulate", "--fault", "session-dyes")
    assert done.code == 2
    assert "did you mean 'session-dies'?" in done.err


def test_record_and_play(shell):
    """What was recorded is performed again without emulator, network or key, with the same words and evidence."""
    assert emulated(shell, "--emulate", "--out", "one", "--record", "tape.jsonl").code == 0
    done = emulated(shell, "--out", "two", "--from-cassette", "tape.jsonl")
    assert done.code == 0, done.err
    one, two = (
        [(line.get("task"), line.get("evidence"), line.get("text")) for line in checked(Path(run))[1:] if "task" in line]
        for run in ("one", "two")
    )
    assert one == two
    assert not Path(shell.env["PLAYBOOK_STATE_DIR"]).exists()


@pytest.mark.parametrize("name", ["avaturn-text-echo", "avaturn-external", "kaltura-tour", "reported"])
def test_every_transport_is_taped(shell, name):
    """HTTP, a room, and a socket that the vendor dials: what was recorded against an emulator is performed again to the millisecond,
    without it."""
    folder = ROOT / "playbooks" if name != "reported" else ROOT / "tests" / "golden" / "logs" / "reported"
    file = str(folder / (f"{name}.yaml" if name != "reported" else "playbook.yaml"))
    common = ("run", file, "--clock", "virtual", "--quiet", "--trigger", "go@1s", "--trigger", "next@9s")
    assert shell.call(*common, "--emulate", "--out", "one", "--record", "tape.jsonl").code == 0
    assert shell.call(*common, "--out", "two", "--from-cassette", "tape.jsonl").code == 0
    done = shell.call("diff", "one", "two", "--tolerance", "0ms")
    assert done.code == 0, done.out


TOLERANT = """\
version: 1
provider: kaltura
session: {visualConfig: {id: any}, voiceConfig: {id: any}}
vars: {word: {type: string, default: one}}
timeline:
  - say: "This is {{ word }}."
    id: line
    on_error: continue
  - end:
"""


@pytest.mark.parametrize("mode", ["none", "once", "new_episodes"])
def test_a_miss_fails_the_run_whatever_the_step_says(shell, mode):
    """Other words than the recorded ones are a miss, which `on_error: continue` does not excuse; the remedy is told, and works; the
    cassette is not spoilt."""
    common = ("run", shell.write("tolerant.yaml", TOLERANT), "--clock", "virtual", "--emulate")
    assert shell.call(*common, "--out", "one", "--record", "tape").code == 0
    before = Path("tape").read_bytes()
    how = ("--from-cassette", "tape") if mode == "none" else ("--record", "tape", "--record-mode", mode)
    done = shell.call(*common, "--out", "two", *how, "--var", "word=two")
    assert (done.code, "failed: cassette: tape was missed: tape has no answer to POST" in done.out) == (1, True)
    assert "; `--record tape --record-mode all` records the run anew\n" in done.out
    assert checked(Path("two"))[-1]["end"] == "failed"
    assert shell.call("replay", "two").out.startswith("identical")
    assert Path("tape").read_bytes() == before
    assert shell.call(*common, "--out", "three", "--record", "tape", "--record-mode", "all", "--var", "word=two").code == 0
    assert shell.call(*common[:-1], "--out", "four", "--from-cassette", "tape", "--var", "word=two").code == 0


def test_what_becomes_of_a_cassette_is_told(shell):
    """Whether a run was recorded or performed against what there was; --quiet keeps that to itself."""
    common = ("run", shell.write("tolerant.yaml", TOLERANT), "--clock", "virtual", "--emulate", "--record", "tape", "--record-mode")

    def last_words(mode: str, *more: str) -> list[str]:
        done = shell.call(*common, mode, *more)
        assert done.code == 0, done.err
        return done.err.splitlines()[-1:]

    assert last_words("once") == ["recorded tape"]
    assert last_words("once") == last_words("none") == ["performed against tape; nobody was asked, and --emulate did nothing"]
    assert last_words("new_episodes") == ["performed against tape"]
    assert last_words("all") == ["recorded tape"]
    assert "recorded" not in shell.call(*common, "all", "--quiet").err
    assert not Path(shell.env["PLAYBOOK_STATE_DIR"]).exists()


def test_cassettes_used_wrongly(shell):
    """Both ways at once, nothing to record, nothing to play, and a date that is none, or none to come."""
    assert emulated(shell, "--record", "a", "--from-cassette", "b").code == 2
    assert emulated(shell, "--record", "a", "--record-expires", "soon").code == 2
    assert "is no day to come" in emulated(shell, "--emulate", "--record", "a", "--record-expires", "2020-01-31").err
    assert emulated(shell, "--from-cassette", "nothing.jsonl").code == 4
    assert shell.call("run", shell.write("hello.yaml"), "--record", "a").code == 2


@pytest.mark.parametrize("name", registry.emulated())
def test_emulate_serves_until_it_is_stopped(shell, name):
    """`emulate NAME` tells its address and the environment to use, answers there, and leaves with 0 on SIGINT."""
    process = shell.start("emulate", name, "--json", "--fault", "session-dies@2", "--option", "viewer_after_ms=250")
    told = json.loads(process.stdout.readline())
    assert told["url"] in told["env"].values()
    with urllib.request.urlopen(f"{told['url']}/_emulator/faults") as answer:
        assert json.load(answer)["faults"] == ["session-dies@2"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_emulate_used_wrongly(shell):
    """Unknown names and options are wrong usage, with what there is."""
    for argv, told in (
        (["emulate", "tavos"], "did you mean 'tavus'?"),
        (["emulate", "kaltura", "--option", "viewer_after=1"], "did you mean 'viewer_after_ms'?"),
        (["emulate", "kaltura", "--option", "ended=405"], "use one of 410, 404"),
        (["emulate", "kaltura", "--option", "idle_ms=soon"], "use a number or null"),
        (["emulate", "tavus", "--option", "credits=1"], "use true or false"),
        (["emulate", "kaltura", "--fault", "sesion-dies"], "did you mean 'session-dies'?"),
        (["emulate", "kaltura", "--port", "many"], "'many' is no port"),
        (["emulate", "kaltura", "--port", "65536"], "'65536' is no port"),
    ):
        done = shell.call(*argv)
        assert (done.code, done.out) == (2, "")
        assert told in done.err


def test_a_cassette_performs_a_secret_that_it_does_not_know(shell):
    """What the vendor said is masked on it; that is no other text than the plan's."""
    shell.write(
        "secret.yaml",
        "version: 1\nprovider: tavus\nsession: {pal_id: p}\nstart: 0s\nvars: {code: {type: string, secret: true}}\n"
        'expect: {absent: conflict}\ntimeline:\n  - say: "The code is {{ code }}."\n  - say: Bye.\n',
    )
    common = ("run", "secret.yaml", "--clock", "virtual", "--var", "code=open sesame")
    assert shell.call(*common, "--emulate", "--record", "tape", "--out", "one").code == 0
    done = shell.call(*common, "--from-cassette", "tape", "--out", "two")
    assert done.code == 0, done.out
    assert "sesame" not in Path("tape").read_text("utf-8") + Path("two/run.jsonl").read_text("utf-8")
