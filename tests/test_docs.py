"""What the documentation says is so: its commands run, its playbooks are good, its Python works, and it names every word of the product.

The pages are the README and `playbook/docs`. What the code knows (verbs, modifiers, limits, grades, exit codes, problems) is made from it:
`tests/documentation.py`.
"""

from __future__ import annotations

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
from playbook.emulators.faults import FAULTS
from playbook.errors import PlaybookError
from playbook.providers import registry

from . import documentation
from .commands import Shell
from .logs import ROOT

README = ROOT / "README.md"
ALL = (README, *documentation.PAGES)
TEXTS = {page: page.read_text("utf-8") for page in ALL}

LEFT_OUT = {
    r"playbook emulate ": "serves until it is stopped; tests/test_cli_emulate.py starts it",
    r"playbook stage ": "serves until it is stopped; tests/test_stage.py starts it",
    r"playbook run playbooks/avaturn-text-echo.yaml --out": "needs a key of Avaturn, and somebody who presses Enter",
    r"playbook run playbooks/tavus-\w+.yaml --var": "needs a key of Tavus, and somebody who presses Enter",
    r"playbook run playbooks/kaltura-tour.yaml --var": "needs a key of Kaltura, and somebody who presses Enter",
}
"""Commands that the test does not run: how they begin, and why."""


@dataclass(frozen=True)
class Block:
    """A block of code in a page: the page, the number of its first line, and what is in it."""

    page: Path
    line: int
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    return [
        Block(page, text.count("\n", 0, match.start(2)) + 1, match[2])
        for page, text in TEXTS.items()
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if match[1] == language
    ]


def console() -> Iterator[tuple[Block, str]]:
    """Every command of the `sh` blocks, without the ones that set up an environment."""
    for block in blocks("sh"):
        for command in block.text.splitlines():
            if " pip install " not in command and "/pip install " not in command and not command.startswith("export "):
                yield block, command


@pytest.fixture
def copy(shell: Shell) -> Shell:
    """A shell in a copy of what the commands work on; shows are performed on the virtual clock, which changes nothing else."""
    for name in ("playbooks", "schemas"):
        shutil.copytree(ROOT / name, shell.folder / name)
    shell.env["PLAYBOOK_CLOCK"] = "virtual"
    return shell


@pytest.mark.parametrize("page", [page for page in ALL if "```sh" in TEXTS[page]], ids=lambda page: page.stem)
def test_the_commands_run(page: Path, copy: Shell):
    """Every `playbook` command of a page, one after another as a reader would type them, does what it should: exit 0."""
    ran = 0
    for block, command in console():
        if block.page != page or any(re.match(start, command) for start in LEFT_OUT):
            continue
        words = shlex.split(command, comments=True)
        if not words or words[0] != "playbook":
            assert re.match(r"#|\.venv/bin/|bash |python |python3 |$", command), f"{block.where}: what is this? {command}"
            continue
        done = copy.call(*words[1:])
        assert done.code == 0, f"{block.where}: {command}\n{done.out}{done.err}"
        ran += 1
    assert ran


def test_what_is_left_out_is_there():
    """No reason outlives its command."""
    commands = [command for _, command in console()]
    assert [start for start in LEFT_OUT if not any(re.match(start, command) for command in commands)] == []


def test_the_playbooks_are_good(copy: Shell):
    """Every YAML block passes `check --strict`, from the folder that its page speaks from."""
    for block in blocks("yaml"):
        folder = "" if block.page == README else "playbooks/"
        name = f"{folder}{block.page.stem}-{block.line}.yaml"
        done = copy.call("check", "--strict", copy.write(name, block.text))
        assert done.code == 0, f"{block.where}\n{done.out}"
        for schema in re.findall(r"\$schema=(\S+)", block.text):
            assert (copy.folder / folder / schema).is_file()
    assert blocks("yaml")


def test_the_python_works(copy: Shell):
    """Every Python block runs as it stands. (One is on the system's clock, and takes the time of its show.)"""
    for block in blocks("python"):
        done = subprocess.run([sys.executable, "-c", block.text], cwd=copy.folder, env=copy.env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{block.where}\n{done.stderr}"
        if "print(" in block.text:
            assert Path(done.stdout.strip()).name == "run.jsonl"
    assert blocks("python")


def test_a_mistake_looks_like_this(copy: Shell):
    """The problem that the README shows is what `check` shows, to the letter."""
    (shown,) = (block.text for block in blocks("text") if block.page == README and block.text.startswith("error[PB203]"))
    head = "#\n" * 7 + "version: 1\nprovider: local\ntimeline:\n  - say: Welcome.\n"
    done = copy.call("check", copy.write("hello.yaml", head + "    untill: started\n"))
    assert done.out.startswith(shown + "\n")


@pytest.mark.parametrize("name", ["demo", "test"])
def test_the_set_up_is_one_command(name: str):
    """Each marked block is one line that begins with an environment of its own, and installs extras that there are."""
    (block,) = re.findall(rf"^<!-- {name} -->\n```sh\n(.*)\n```$", TEXTS[README], re.MULTILINE)
    extra = re.match(r"python3 -m venv \.venv && \.venv/bin/pip install -q (?:-e )?'\.\[(\w+)\]' && \.venv/bin/\w+ ", block)
    assert extra is not None
    assert extra[1] in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


def test_the_gate_runs_the_command_of_the_readme():
    """What `.ci/run` takes out of the README is the block marked `test`, and nothing else."""
    (how,) = re.findall(r"^test_command=\$\((.*)\)$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    taken = subprocess.run(["bash", "-c", how], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^<!-- test -->\n```sh\n(.*\n)```$", TEXTS[README], re.MULTILINE) == [taken]


def words(what: str) -> list[str]:
    """The words of a kind, as the code has them."""
    return {
        "verbs of the command line": list(VERBS),
        "faults": list(FAULTS),
        "providers": list(registry.OURS),
    }[what]


@pytest.mark.parametrize("what", ["verbs of the command line", "faults", "providers"])
def test_every_word_is_named(what: str):
    """Whatever somebody can write, the documentation knows."""
    code = [*re.findall(r"`([^`\n]+)`", "\n".join(TEXTS.values())), *(block.text for block in (*blocks("sh"), *blocks("yaml")))]
    named = set(re.findall(r"[\w-]+", " ".join(code)))
    assert [word for word in words(what) if word not in named] == []


@pytest.mark.parametrize("page", documentation.PAGES, ids=lambda page: page.stem)
def test_the_made_tables_are_up_to_date(page: Path, update_golden: bool):
    """What the code knows stands in the page as the code has it."""
    made = documentation.problems() if page.stem == "problems" else documentation.made(TEXTS[page])
    if update_golden:
        page.write_text(made, "utf-8")
    assert page.read_text("utf-8") == made


def test_every_exit_code_is_in_the_table():
    """The codes of the errors, those of a run, and those of a signal."""

    def kinds(error: type[PlaybookError]) -> Iterator[type[PlaybookError]]:
        yield error
        for kind in error.__subclasses__():
            yield from kinds(kind)

    listed = {int(code) for codes in documentation.EXIT_CODES for code in codes.split(",")}
    assert listed == {kind.exit_code for kind in kinds(PlaybookError)} | {0, 1, 5, 130, 143}


def test_every_room_is_in_the_table():
    """The table of rooms names every part of the package, and nothing that is not there."""
    text = TEXTS[documentation.DOCS / "contributing.md"]
    table = text[text.index("| room | holds |") :].partition("\n\n")[0]
    rooms = {name.rstrip("/") for row in table.splitlines()[2:] for name in re.findall(r"`([\w/]+)`", row.split("|")[1])}
    package = ROOT / "playbook"
    assert [room for room in rooms if not (package / room).is_dir() and not (package / f"{room}.py").is_file()] == []
    assert {path.name for path in package.iterdir() if (path / "__init__.py").exists()} <= rooms


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path):
    """Links between the pages, and paths in code."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)\)", TEXTS[page])
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = re.findall(r"`((?:tests|playbooks|schemas|providers|emulators|\.ci)/[\w./-]+)`", TEXTS[page])
    assert [path for path in paths if not any((base / path).exists() for base in (ROOT, ROOT / "playbook", documentation.DOCS))] == []


def test_the_readme_is_short():
    """It is read in five minutes."""
    assert len(TEXTS[README].splitlines()) <= 160


def test_help_shows_every_topic_and_every_code(shell: Shell):
    """`help` lists the pages and shows each; a verb's help; a problem's entry; and near names for what there is not."""
    listed = shell.call("help")
    assert listed.code == 0
    for page in documentation.PAGES:
        topic = page.relative_to(documentation.DOCS).with_suffix("").as_posix()
        assert f"  {topic} " in listed.out
        assert shell.call("help", topic).out.strip() == re.sub(r"(?m)^<!--.*-->\n", "", page.read_text("utf-8")).strip()
    assert shell.call("help", "tavus").out == shell.call("help", "providers/tavus").out
    assert shell.call("help", "plan").out.startswith("usage: playbook plan")
    for code, title in registry.codes().items():
        assert shell.call("help", code.lower()).out.startswith(f"## {code} {title}\n")
    for verb in VERBS:
        (topic,) = re.findall(r"More: `playbook help ([\w/-]+)`\.", shell.call(verb, "--help").out)
        assert shell.call("help", topic).code == 0
    wrong = shell.call("help", "langage")
    assert wrong.code == 2
    assert "did you mean 'language'?" in wrong.err
    assert shell.call("help", "PB999").code == 2
