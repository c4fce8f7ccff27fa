"""A provider from outside: the plug-in in `tests/plugin`, which the README offers to copy, found by its entry point alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from .commands import Shell
from .logs import ROOT, checked, closings

PLUGIN = ROOT / "tests" / "plugin"
SHOW = """\
version: 1
provider: prompter
session: {file: prompter.txt}
timeline:
  - say: Good evening.
  - say: {chunks: ["Please mind ", "the step."]}
  - end:
"""


@pytest.fixture
def plugged(shell: Shell) -> Shell:
    """A shell in which the plug-in is installed, as far as Python can tell: its modules and what its wheel says of itself."""
    return install(shell, tomllib.loads((PLUGIN / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]["playbook.providers"])


def install(shell: Shell, points: dict[str, str]) -> Shell:
    shell.write("site/plugin-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    told = "[playbook.providers]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
    shell.write("site/plugin-1.0.dist-info/entry_points.txt", told)
    shell.env["PYTHONPATH"] += f":{PLUGIN}:{shell.folder / 'site'}"
    return shell


def test_a_plug_in_performs(plugged: Shell):
    """A playbook that names the plug-in is performed by it; every line closes with an estimate, since a prompter tells nothing."""
    plugged.write("show.yaml", SHOW)
    done = plugged.perform("run", "show.yaml", "--clock", "virtual", "--out", "here")
    assert done.code == 0, done.err
    assert Path("prompter.txt").read_text("utf-8") == "Good evening.\nPlease mind the step.\n"
    assert [line["evidence"] for line in closings(checked(Path("here"))).values()] == ["estimated", "estimated"]


def test_a_plug_in_is_known_to_the_verbs(plugged: Shell):
    """`new` begins with its example, `check` judges by its schema and its capabilities, `providers` and `schema` show it."""
    assert (
        plugged.perform("new", "mine.yaml", "--provider", "prompter").out == "wrote mine.yaml; perform it with `playbook run mine.yaml`\n"
    )
    assert plugged.perform("check", "mine.yaml", "--strict").code == 0
    plugged.write("show.yaml", SHOW.replace("{file:", "{fiel:").replace("  - end:", "  - interrupt:"))
    done = plugged.perform("check", "show.yaml")
    assert done.code == 3
    assert "unknown key 'fiel' in the session settings of prompter" in done.out
    assert json.loads(plugged.perform("schema", "prompter").out)["required"] == ["file"]
    assert "\nfile *" in plugged.perform("providers", "prompter").out


def test_editors_are_told_of_a_plug_in(plugged: Shell):
    """What `schema` prints judges a plug-in's settings, and still those of all others; it is one file that needs no other."""
    judge = jsonschema.Draft7Validator(json.loads(plugged.perform("schema").out))
    show = {"version": 1, "provider": "prompter", "session": {"file": "{{ file }}"}, "timeline": [{"say": "Good evening."}]}
    judge.validate(show)
    assert not judge.is_valid({**show, "session": {"fiel": "prompter.txt"}})
    assert not judge.is_valid({**show, "provider": "tavus"})
    judge.validate({**show, "provider": "tavus", "session": {"pal_id": "{{ pal }}"}})


@pytest.mark.parametrize("verb", ["providers", "schema"])
def test_a_plug_in_that_does_not_load_hides_nobody(shell: Shell, verb: str):
    """`providers` and `schema` say what is wrong with it, show all others, and exit with 4."""
    done = install(shell, {"broken": "no_such_module:Provider"}).perform(verb)
    assert (done.code, done.err) == (4, "error: the provider 'broken' cannot be loaded: No module named 'no_such_module'\n")
    assert {"providers": "says text", "schema": '"kaltura-session"'}[verb] in done.out
    assert "local" in done.out


def test_a_plug_in_runs_the_contract_test(plugged: Shell):
    """By `playbook.testing`: its one way to perform keeps to all of the contract, and nothing is left out."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(PLUGIN / "check_prompter.py")]
    done = subprocess.run(command, env=plugged.env, cwd=plugged.folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"(\d+) passed in", done.stdout)[1] == "16", done.stdout  # type: ignore[index]  # it is there


VOICE = """\
from pathlib import Path
from playbook.speech.engines import Piece, SpeakerInfo, Spoken, Unspeakable

CHILD = '''
import json, sys
for line in sys.stdin:
    size = 2000 * len(json.loads(line)["text"])
    sys.stdout.buffer.write(json.dumps({"bytes": size}).encode() + bytes([10]) + bytes([0, 16]) * (size // 2))
    sys.stdout.buffer.flush()
'''


class Hum:
    name, licence, deterministic, instant, marks = "hum", "MIT", True, True, "estimated"

    def __init__(self, places):
        pass

    def lacks(self):
        return None

    def fingerprint(self):
        return "1"

    def speakers(self):
        return [SpeakerInfo("low", ("en",))]

    def resolve(self, settings):
        if settings.voice != "low":
            raise Unspeakable(f"hum has no speaker '{settings.voice}'", remedy="there is: low")
        return "low"

    def pieces(self, text, settings):
        return [Piece(text)]

    def command(self):
        import sys

        return [sys.executable, "-c", CHILD]

    def speak(self, ask, text, settings):
        header, pcm = ask({"text": text})
        return Spoken(16_000, pcm)
"""


def test_a_voice_is_a_plug_in_too(shell: Shell):
    """Found by its entry point alone, it does what a voice owes, is listed, speaks a playbook, and an unknown speaker of it is told."""
    shell.write("site/hum.py", VOICE)
    shell.write("site/hum-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: hum\nVersion: 1.0\n")
    shell.write("site/hum-1.0.dist-info/entry_points.txt", "[playbook.voices]\nhum = hum:Hum\n")
    shell.env["PYTHONPATH"] += f":{shell.folder / 'site'}"
    listed = json.loads(shell.perform("voices", "list", "hum", "--json").out)
    assert listed[0]["speakers"] == [{"name": "low", "languages": ["en"]}]
    shell.write("show.yaml", "version: 1\nprovider: local\nsession: {voice: hum/low}\ntimeline:\n  - say: Good evening to all of you.\n")
    done = shell.perform("run", "show.yaml", "--clock", "virtual", "--out", "here")
    assert done.code == 0, done.err
    assert [line["evidence"] for line in closings(checked(Path("here"))).values()] == ["reported"]
    shell.write("wrong.yaml", "version: 1\nprovider: local\nsession: {voice: hum/high}\ntimeline:\n  - say: Good evening.\n")
    wrong = shell.perform("check", "wrong.yaml")
    assert wrong.code == 3
    assert "hum has no speaker 'high'" in wrong.out
    assert "there is: low" in wrong.out
    check = "check_voice('hum', 'hum/low', 'Good evening.', Path('owed'))"
    program = f"from pathlib import Path; from playbook.testing.voices import check_voice; {check}"
    owed = subprocess.run([sys.executable, "-c", program], env=shell.env, capture_output=True, text=True, timeout=60)
    assert (owed.returncode, owed.stderr) == (0, "")
