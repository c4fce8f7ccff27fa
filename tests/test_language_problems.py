"""Every problem there is, as an author meets it: one folder each under `tests/problems`, named `<code>-<name>`.

A folder holds `playbook.yaml` (or what `case.json` calls `check`), what it needs, and `expected.txt`: exactly what `check` prints.
`case.json` may give `var`, `env`, `vars` (files), `provider`, `world` (`real` for the installed providers, `voiceless` for those without the
extra `voice`), `part` (no plan is expected)
and `fill` (files too large to be kept, as text and count). To make a case, write the input and run

    pytest tests/test_language_problems.py --update-golden
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from playbook.errors import CODES, format_problem
from playbook.language import Inputs, World, check_file
from tests.world import FakeWorld

CASES = sorted(path for path in (Path(__file__).parent / "problems").iterdir() if path.is_dir())


def world(name: str) -> World:
    if name == "real":
        from playbook.world import World as RealWorld

        return RealWorld()
    if name == "voiceless":
        from playbook.speech.voice import Voice
        from playbook.world import World as RealWorld

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

    problems, plan = check_file(
        Path(facts.get("check", "playbook.yaml")), world(facts.get("world", "fake")), inputs, provider=facts.get("provider")
    )

    text = "\n\n".join(map(format_problem, problems)) + "\n"
    if update_golden:
        (case / "expected.txt").write_text(text)
    assert text == (case / "expected.txt").read_text()
    assert case.name.partition("-")[0] in {problem.code for problem in problems}, "the case shows the problem it is named after"
    assert (plan is None) == any(problem.severity == "error" for problem in problems) or facts.get("part")


def test_every_code_has_a_case_and_every_case_a_code():
    """The table of problems and the folders of cases name the same codes."""
    assert {case.name.partition("-")[0] for case in CASES} == set(CODES)
