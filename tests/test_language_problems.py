"""Every problem there is, as an author meets it: one folder each under `tests/problems`, named `<code>-<name>`.

A folder holds `playbook.yaml` (or what `case.json` calls `check`), what it needs, and `expected.txt`: exactly what `check` prints.
`case.json` may give `var`, `env`, `vars` (files), `provider`, `world` (`real` for the installed providers, `voiceless` for those without
the extra `voice`), `part` (no plan is expected) and `fill` (files too large to be kept, as text and count). To make a case, write the
input and run

    pytest tests/test_language_problems.py --update-golden
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from playbook.errors import format_problem, near
from playbook.kiosk.programme import check_kiosk
from playbook.kiosk.recognize import is_kiosk_file
from playbook.kiosk.silent import silent_world
from playbook.language import Inputs, Installation, check_file
from playbook.providers import registry
from tests.world import FakeWorld

CASES = sorted(path for path in (Path(__file__).parent / "problems").iterdir() if path.is_dir())


def world(name: str) -> Installation:
    if name == "real":
        from playbook.perform.world import World as RealWorld

        return RealWorld()
    if name == "voiceless":
        from playbook.perform.world import World as RealWorld
        from playbook.speech.voice import Voice

        class Silent(Voice):
            available = False

        return RealWorld(voice=Silent())
    return FakeWorld()


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_a_mistake_is_reported_exactly_so(case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update_golden: bool):
    """The text of every problem of the case, in order, is the expected one."""
    shutil.copytree(case, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    facts = json.loads(Path("case.json").read_text()) if Path("case.json").exists() else {}
    for name, (text, count) in facts.get("fill", {}).items():
        Path(name).write_text(text * count)
    inputs = Inputs(var=facts.get("var", {}), env=facts.get("env", {}), files=tuple(map(Path, facts.get("vars", ()))))

    file, where = Path(facts.get("check", "playbook.yaml")), world(facts.get("world", "fake"))
    problems, plan = (
        check_kiosk(file, where, silent_world() if facts.get("world") == "real" else where, inputs)
        if is_kiosk_file(file)
        else check_file(file, where, inputs, provider=facts.get("provider"), placeholders=True)
    )

    text = "\n\n".join(map(format_problem, problems)) + "\n"
    if update_golden:
        (case / "expected.txt").write_text(text)
    assert text == (case / "expected.txt").read_text()
    assert case.name.partition("-")[0] in {problem.code for problem in problems}, "the case shows the problem it is named after"
    assert (plan is None) == any(problem.severity == "error" for problem in problems) or facts.get("part")


def test_every_code_has_a_case_and_every_case_a_code():
    """The table of problems and the folders of cases name the same codes."""
    assert {case.name.partition("-")[0] for case in CASES} == set(registry.codes())


@pytest.mark.parametrize(
    ("word", "words", "meant"),
    [
        ("face", ("pace", "face_id", "pal_id"), "face_id"),
        ("echo", ("say", "audio-echo"), "audio-echo"),
        ("wait_for", ("wait", "say"), "wait"),
        ("maxDuration", ("max_duration", "max_cost"), "max_duration"),
        ("max", ("max_duration", "max_cost"), ""),
        ("sya", ("say", "wait"), "say"),
        ("Say", ("say", "wait"), "say"),
        ("play", ("say", "wait"), ""),
        ("provder", ("provider", "session"), "provider"),
        ("nobody", ("andy", "annie"), ""),
        ("", ("say",), ""),
        ("--", ("--json", "--strict"), ""),
    ],
)
def test_only_what_is_sure_is_guessed(word: str, words: tuple[str, ...], meant: str):
    """A name that the word begins or ends comes first, then one that looks like it; nothing is better than a silly guess."""
    assert near(word, words) == meant


def test_after_many_problems_nobody_guesses(tmp_path: Path):
    """Looking for near names is slow, and of thousands of mistakes nobody reads the last: they are told without it."""
    steps = "".join(f"  - say: x\n    untill{n}: 1s\n" for n in range(300))
    path = tmp_path / "playbook.yaml"
    path.write_text(f"version: 1\nprovider: local\ntimeline:\n{steps}")
    found, _ = check_file(path, FakeWorld())
    remedies = [problem.remedy.partition(" ")[0] for problem in found]
    assert remedies == ["did"] * 100 + ["its"] * 200


@pytest.mark.parametrize("default", ['"pa\\u0073s-4711"', "|-\n      pass-4711\n      zwei", "{a: [pass-4711]}", "pass-4711"])
def test_a_secret_is_hidden_in_the_lines_that_are_shown(default: str, tmp_path: Path):
    """Whatever the spelling of a secret's default, no source line of a problem shows it: neither as it is nor as it is written."""
    path = tmp_path / "playbook.yaml"
    path.write_text(
        f"version: 1\nprovider: local\nvars:\n  pin:\n    type: integer\n    secret: true\n    default: {default}\n"
        "timeline:\n  - say: Hello.\n"
    )
    found, _ = check_file(path, FakeWorld())
    assert found
    shown = "".join(map(format_problem, found))
    assert "4711" not in shown
    assert "u0073" not in shown
