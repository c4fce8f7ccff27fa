"""The pytest plug-in, in a real pytest of its own."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from .test_suite import BAD, GOOD, KIOSK, VARIABLE

TESTS = """\
import pytest

from playbook import AuthorError


def test_words(run_playbook):
    outcome = run_playbook("greet.yaml", vars={"who": "Ada"})
    assert outcome.result.end == "passed"
    assert outcome.summary.utterances["hello"].text == "Hello, Ada."


def test_wrong(run_playbook):
    with pytest.raises(AuthorError):
        run_playbook("greet.yaml")
"""


def run_pytest(shell, *argv: str, alone: bool = True) -> tuple[int, str]:
    """A pytest of its own; `alone`, with no installed plug-in but those that are named, which begins in half the time."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--strict-markers", *argv]
    env = {**shell.env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if alone else shell.env
    done = subprocess.run(command, cwd=shell.folder, env=env, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_playbooks_are_tests(shell):
    """Each `*.playbook.yaml` is one test with the marker; failures show their reasons; the fixture performs from within tests."""
    shell.write("good.playbook.yaml", GOOD)
    shell.write("bad.playbook.yaml", BAD)
    shell.write("greet.yaml", VARIABLE)
    shell.write("test_greet.py", TESTS)
    code, text = run_pytest(shell, "-p", "playbook.pytest_plugin", "--junitxml=report.xml")
    assert code == 1, text
    assert "1 failed, 3 passed" in text
    assert "expected the line to last 0 to 1 ms" in text
    assert "Traceback" not in text
    names = {case.get("name") for case in ET.parse(shell.folder / "report.xml").iter("testcase")}
    assert names == {"good", "bad", "test_words", "test_wrong"}
    code, text = run_pytest(shell, "-p", "playbook.pytest_plugin", "-m", "playbook", "-k", "good")
    assert code == 0, text
    assert "1 passed, 3 deselected" in text
    assert not (shell.folder / "runs").exists()


def test_it_is_off_unless_it_is_switched_on(shell):
    """The installed package changes nothing for a pytest that did not ask for it."""
    shell.write("good.playbook.yaml", GOOD)
    assert run_pytest(shell, alone=False)[0] == 5


def test_emulated_and_with_a_baseline(shell):
    """Switched on in a conftest and set up in the ini file: vendors are emulated, and a baseline is held."""
    shell.write("kiosk.playbook.yaml", KIOSK)
    shell.write("conftest.py", 'pytest_plugins = ["playbook.pytest_plugin"]\n')
    shell.write("pytest.ini", "[pytest]\nplaybook_emulate = true\nplaybook_clock = virtual\n")
    assert shell.call("test", "kiosk.playbook.yaml", "--clock", "virtual", "--emulate", "--jobs", "1", "--update").code == 0
    code, text = run_pytest(shell)
    assert code == 0, text
    path = Path("kiosk.playbook.baseline.yaml")
    path.write_text(path.read_text().replace("Goodbye.", "Farewell."))
    code, text = run_pytest(shell)
    assert code == 1
    assert "goodbye: words changed: was 'Farewell.', now 'Goodbye.'" in text


WAITS = "version: 1\nprovider: local\nstart: go\ntimeline:\n  - say: At last.\n    id: hello\n"


def test_triggers(shell):
    """A playbook that waits for a trigger fails with what helps here, and passes with a trigger from the ini file; so does the fixture."""
    shell.write("waits.playbook.yaml", WAITS)
    shell.write("test_waits.py", "def test_waits(run_playbook):\n    run_playbook('waits.playbook.yaml')\n")
    code, text = run_pytest(shell, "-p", "playbook.pytest_plugin")
    assert code == 1
    assert "which nothing can give (give it with `--playbook-trigger go`)" in text
    assert "give it as a cue, `Cue('go')`" in text
    assert "--triggers" not in text
    assert run_pytest(shell, "-p", "playbook.pytest_plugin", "--playbook-trigger", "go@2s")[0] == 0
    shell.write("pytest.ini", "[pytest]\nplaybook_trigger = go\n")
    assert run_pytest(shell, "-p", "playbook.pytest_plugin")[0] == 0
    code, text = run_pytest(shell, "-p", "playbook.pytest_plugin", "--playbook-trigger", "go@soon")
    assert code == 4
    assert "playbook_trigger: 'soon' in 'go@soon'" in text


WRONG_NAME = """\
def test_wrong(run_playbook):
    run_playbook("greet.yaml", vars={"hwo": "Ada"})
"""


def test_a_wrong_playbook_says_where_and_what_to_do(shell):
    """In a test of one's own it is shown like `check` shows it, without the way that we took to find it."""
    shell.write("greet.yaml", VARIABLE)
    shell.write("test_greet.py", WRONG_NAME)
    code, text = run_pytest(shell, "-p", "playbook.pytest_plugin")
    assert code == 1
    assert "error[PB310]" in text
    assert "did you mean 'who'?" in text
    assert "test_greet.py:2" in text
    assert not any(inner in text for inner in ("expand.py", "api.py", "compile_file", "raise AuthorError"))
