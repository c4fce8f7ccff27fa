"""The package for Python programs: `load`, `plan`, `run`, and what is public."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

import playbook
import playbook.clock

from .commands import HELLO
from .logs import checked, of


def test_public_names():
    """These names are public, each is there, and nothing else is promised."""
    errors = {"AuthorError", "PlaybookError", "PolicyError", "ProviderError", "RecordError", "RunError", "SetupError", "UsageError"}
    assert set(playbook.__all__) == {
        "Cue",
        "Outcome",
        "Plan",
        "Problem",
        "Session",
        "clock",
        "load",
        "open_session",
        "plan",
        "run",
        *errors,
    }
    assert all(getattr(playbook, name) is not None for name in playbook.__all__)
    assert dir(playbook) == sorted(playbook.__all__)
    with pytest.raises(AttributeError, match="no attribute 'playbok'"):
        playbook.playbok  # noqa: B018  # the attribute access is the test


def test_load_and_run(shell):
    """A program loads a playbook with values of its own, performs it on the virtual clock, and gets the outcome."""
    plan = playbook.load(shell.write("hello.yaml"), vars={"visitor": "Ada"}, env=shell.env)
    seen = []
    outcome = playbook.clock.run(playbook.run(plan, folder="here", env=shell.env, watch=seen.append), "virtual")
    assert isinstance(plan, playbook.Plan)
    assert isinstance(outcome, playbook.Outcome)
    assert (outcome.result.end, outcome.result.exit_code, outcome.folder) == ("passed", 0, Path("here"))
    lines = checked(Path("here"))
    assert of(lines, "command", "say")[0]["text"] == "Welcome, Ada."
    assert [line for line in seen if "runlog" not in line] == lines[1:]


def test_values_come_from_the_environment_too(shell):
    """`PLAYBOOK_VAR_name` is read from the environment that is given; the program's own values win."""
    env = shell.env | {"PLAYBOOK_VAR_visitor": "Grace"}
    shell.write("hello.yaml")
    assert playbook.load("hello.yaml", env=env).steps[0].action.text == "Welcome, Grace."
    assert playbook.load("hello.yaml", env=env, vars={"visitor": "Ada"}).steps[0].action.text == "Welcome, Ada."


def test_a_plan_from_text_bytes_and_data(shell):
    """The same playbook as text, bytes or data is the same plan, whatever it was read from."""
    data = {
        "version": 1,
        "name": "hello",
        "provider": "local",
        "vars": {"visitor": {"type": "string", "default": "friend"}},
        "timeline": [
            {"say": "Welcome, {{ visitor }}.", "id": "hello"},
            {"wait": "500ms"},
            {"say": "This is a long sentence that will be cut short.", "until": "1s"},
            {"interrupt": None},
            {"end": None},
        ],
    }
    plans = [playbook.plan(source, env=shell.env) for source in (HELLO, HELLO.encode(), data)]
    plans.append(playbook.load(shell.write("hello.yaml"), env=shell.env))
    assert len({plan.sha256 for plan in plans}) == 1


def test_a_plan_finds_its_parts(shell):
    """Paths in a playbook that is no file count from `base_dir`."""
    shell.write("parts/bow.yaml", "timeline: [say: Thank you.]\n")
    plan = playbook.plan("version: 1\nprovider: local\ntimeline: [include: bow.yaml]\n", base_dir="parts", env=shell.env)
    assert plan.steps[0].action.text == "Thank you."


def test_a_wrong_playbook_raises_with_all_its_problems(shell):
    """`AuthorError` carries every problem, with places where there are any; its text begins with the first, which pytest sums up."""
    with pytest.raises(playbook.AuthorError) as caught:
        playbook.plan({"version": 1, "provider": "lokal", "timeline": [{"say": "x", "untill": 1}]}, env=shell.env)
    problems = caught.value.problems
    assert [problem.code for problem in problems] == ["PB212", "PB203"]
    assert all(isinstance(problem, playbook.Problem) and problem.place is not None for problem in problems)
    assert caught.value.exit_code == 3
    assert str(caught.value).startswith("error[PB212]: unknown provider 'lokal'\n")


@pytest.mark.parametrize("source", [{"version": {1}}, {"version": float("nan")}], ids=["a set", "not a number"])
def test_what_is_no_plain_data_is_refused(shell, source):
    """A playbook is plain data."""
    with pytest.raises(playbook.UsageError, match="plain data"):
        playbook.plan(source, env=shell.env)


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize("value", [[object()], [float("nan")], ["half \ud83d"], ENDLESS], ids=["object", "nan", "surrogate", "endless"])
def test_a_value_that_is_no_plain_data_is_refused(shell, value):
    """A program may hand over anything; what a plan could not be written down with is a problem of the variable."""
    source = "version: 1\nprovider: local\nvars: {v: {type: array}}\ntimeline: [{say: '{{ v }}'}]\n"
    with pytest.raises(playbook.AuthorError, match="the variable 'v' is no plain data"):
        playbook.plan(source, vars={"v": value})


def test_cues(shell):
    """A program gives triggers ahead of time."""
    plan = playbook.plan("version: 1\nprovider: local\nstart: go\ntimeline: [wait: {event: next}]\n", env=shell.env)
    cues = (playbook.Cue("go", 1000), playbook.Cue("next", 500))
    outcome = playbook.clock.run(playbook.run(plan, folder="here", cues=cues, env=shell.env), "virtual")
    assert (outcome.result.exit_code, outcome.summary.last_ms) == (0, 1500)


def test_a_run_that_is_over_leaves_nothing_ticking(shell):
    """Triggers that were to come later, and the budgets of the end, die with the run: a program may go on for days."""
    plan = playbook.plan("version: 1\nprovider: local\ntimeline: [wait: 10ms]\n", env=shell.env)

    async def timers_left() -> list[asyncio.TimerHandle]:
        await playbook.run(plan, folder="here", cues=[playbook.Cue("next", 3_600_000)], env=shell.env)
        return [each for each in asyncio.get_running_loop()._scheduled if not each.cancelled()]

    assert asyncio.run(timers_left()) == []


def test_a_folder_in_use_is_refused(shell):
    """Nothing is begun in a folder that holds something."""
    shell.write("here/mine.txt", "mine")
    plan = playbook.plan("version: 1\nprovider: local\ntimeline: [wait: 1s]\n", env=shell.env)
    with pytest.raises(playbook.UsageError):
        playbook.clock.run(playbook.run(plan, folder="here", env=shell.env), "virtual")
    assert [path.name for path in Path("here").iterdir()] == ["mine.txt"]


def test_what_a_run_writes_can_be_read_again(shell):
    """`plan.json` of a run has the digest of the plan that was performed."""
    plan = playbook.plan(HELLO, env=shell.env)
    playbook.clock.run(playbook.run(plan, folder="here", env=shell.env), "virtual")
    assert json.loads(Path("here/plan.json").read_text("utf-8"))["plan_sha256"] == plan.sha256
