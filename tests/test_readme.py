"""What the README says is so: its commands run, its playbooks are good, its Python works, and it names every word of the product."""

from __future__ import annotations

import importlib.resources
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from playbook.cli import VERBS
from playbook.errors import PlaybookError
from playbook.formats.schema import load_schema
from playbook.language.judge import VERBS as STEP_VERBS
from playbook.model import Evidence

from .commands import Shell
from .logs import ROOT

README = (ROOT / "README.md").read_text("utf-8")

LEFT_OUT = {
    r"motion-sensor \|": "waits for a sensor",
    r"while ": "goes on for ever",
    r"playbook emulate ": "serves until it is stopped; tests/test_cli_emulate.py starts it",
    r"playbook run playbooks/avaturn-text-echo.yaml --out": "needs a key of Avaturn, and somebody who presses Enter",
    r"playbook run playbooks/tavus-\w+.yaml --var": "needs a key of Tavus, and somebody who presses Enter",
    r"playbook run playbooks/kaltura-tour.yaml --var": "needs a key of Kaltura, and somebody who presses Enter",
}
"""Commands that the test does not run: how they begin, and why."""


@dataclass(frozen=True)
class Block:
    """A block of code in the README: its language, the number of its first line, and what is in it."""

    language: str
    line: int
    text: str


def blocks(language: str) -> list[Block]:
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    every = [Block(match[1], README.count("\n", 0, match.start(2)) + 1, match[2]) for match in found]
    return [block for block in every if block.language == language]


def console() -> Iterator[tuple[int, str]]:
    """Every command of the `sh` blocks, without the ones that set up an environment, with its line."""
    for block in blocks("sh"):
        for number, command in enumerate(block.text.splitlines(), block.line):
            if " pip install " not in command and "/pip install " not in command and not command.startswith("export "):
                yield number, command


@pytest.fixture
def copy(shell: Shell) -> Shell:
    """A shell in a copy of what the commands work on; shows are performed on the virtual clock, which changes nothing else."""
    for name in ("playbooks", "schemas"):
        shutil.copytree(ROOT / name, shell.folder / name)
    shell.env["PLAYBOOK_CLOCK"] = "virtual"
    return shell


def test_the_commands_run(copy: Shell):
    """Every `playbook` command of the README, one after another as a reader would type them, does what it should: exit 0."""
    ran = 0
    for number, command in console():
        if any(re.match(start, command) for start in LEFT_OUT):
            continue
        words = shlex.split(command, comments=True)
        if not words or words[0] != "playbook":
            assert re.match(r"#|\.venv/bin/|bash |python |python3 |$", command), f"README.md:{number}: what is this? {command}"
            continue
        done = copy.call(*words[1:])
        assert done.code == 0, f"README.md:{number}: {command}\n{done.out}{done.err}"
        ran += 1
    assert ran >= 8


def test_what_is_left_out_is_there():
    """No reason outlives its command."""
    commands = [command for _, command in console()]
    assert [start for start in LEFT_OUT if not any(re.match(start, command) for command in commands)] == []


def test_the_playbooks_are_good(copy: Shell):
    """Every YAML block passes `check --strict`; one that begins with a step is the timeline of a playbook."""
    for block in blocks("yaml"):
        whole = block.text if not block.text.startswith("- ") else f"version: 1\nprovider: local\ntimeline:\n{block.text}"
        done = copy.call("check", "--strict", copy.write(f"line-{block.line}.yaml", whole))
        assert done.code == 0, done.out
        for schema in re.findall(r"\$schema=(\S+)", whole):
            assert (copy.folder / schema).is_file()
    assert blocks("yaml")


def test_the_python_works(copy: Shell):
    """Every Python block runs as it stands. (It takes the time of its show: `playbook.run` is on the system's clock.)"""
    for block in blocks("python"):
        done = subprocess.run([sys.executable, "-c", block.text], cwd=copy.folder, env=copy.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        if "print(" in block.text:
            assert Path(done.stdout.strip()).name == "run.jsonl"
    assert blocks("python")


def test_a_mistake_looks_like_this(copy: Shell):
    """The problem that the README shows is what `check` shows, to the letter."""
    (shown,) = (block.text for block in blocks("text") if block.text.startswith("error[PB203]"))
    head = "#\n" * 7 + "version: 1\nprovider: local\ntimeline:\n  - say: Welcome.\n"
    done = copy.call("check", copy.write("hello.yaml", head + "    untill: started\n"))
    assert done.out.startswith(shown + "\n")


@pytest.mark.parametrize("name", ["demo", "test"])
def test_the_set_up_is_one_command(name: str):
    """Each marked block is one line that begins with an environment of its own, and installs extras that there are."""
    (block,) = re.findall(rf"^<!-- {name} -->\n```sh\n(.*)\n```$", README, re.MULTILINE)
    extra = re.match(r"python3 -m venv \.venv && \.venv/bin/pip install -q (?:-e )?'\.\[(\w+)\]' && \.venv/bin/\w+ ", block)
    assert extra is not None
    assert extra[1] in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


def test_the_gate_runs_the_command_of_the_readme():
    """What `.ci/run` takes out of the README is the block marked `test`, and nothing else."""
    (how,) = re.findall(r"^test_command=\$\((.*)\)$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    taken = subprocess.run(["bash", "-c", how], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^<!-- test -->\n```sh\n(.*\n)```$", README, re.MULTILINE) == [taken]


def words(what: str) -> list[str]:
    """The words of a kind, as the code has them."""
    schema = load_schema("playbook.schema.json")["definitions"]
    steps = {key for verb in STEP_VERBS for key in schema[f"{verb}-step"]["properties"]}
    return {
        "verbs of the command line": list(VERBS),
        "verbs of a timeline": list(STEP_VERBS),
        "modifiers": sorted(steps - set(STEP_VERBS)),
        "limits": sorted(schema["limits"]["properties"]),
        "grades": [grade.name for grade in Evidence],
    }[what]


@pytest.mark.parametrize("what", ["verbs of the command line", "verbs of a timeline", "modifiers", "limits", "grades"])
def test_every_word_is_named(what: str):
    """Whatever somebody can write, or read in a log, the README knows."""
    code = [*re.findall(r"`([^`\n]+)`", README), *(block.text for block in (*blocks("sh"), *blocks("yaml")))]
    named = set(re.findall(r"[\w-]+", " ".join(code)))
    assert [word for word in words(what) if word not in named] == []


def test_every_exit_code_is_in_the_table():
    """The codes of the errors, those of a run, and those of a signal."""

    def kinds(error: type[PlaybookError]) -> Iterator[type[PlaybookError]]:
        yield error
        for kind in error.__subclasses__():
            yield from kinds(kind)

    table = re.search(r"^\| exit code \|.*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert table is not None
    listed = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table[0], re.MULTILINE) for code in row.split(",")}
    assert listed == {kind.exit_code for kind in kinds(PlaybookError)} | {0, 1, 5, 130, 143}


def test_every_room_is_in_the_table():
    """The table of rooms names every part of the package, and nothing that is not there."""
    table = README[README.index("| room | holds |") :].partition("\n\n")[0]
    rooms = {name.rstrip("/") for row in table.splitlines()[2:] for name in re.findall(r"`([\w/]+)`", row.split("|")[1])}
    package = importlib.resources.files("playbook")
    assert [room for room in rooms if not (package / room).is_dir() and not (package / f"{room}.py").is_file()] == []
    folders = {path.name for path in (ROOT / "playbook").iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert folders <= rooms


def test_every_path_is_there():
    """Links, and paths in code, lead somewhere."""
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    paths = re.findall(r"`((?:tests|playbooks|schemas|providers|emulators|\.ci)/[\w./-]+)`", README)
    missing = [path for path in (*links, *paths) if not any((base / path).exists() for base in (ROOT, ROOT / "playbook"))]
    assert missing == []
    assert links
