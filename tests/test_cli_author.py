"""`new`, `check`, `plan`, `schema`, `providers`, and what all verbs share: help, options and their twins, errors."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest

from playbook import language
from playbook.cli import VERBS, author, options
from playbook.cli.options import Command, Parser
from playbook.errors import UsageError
from playbook.formats.schema import schema_path
from playbook.perform.world import World
from playbook.providers import registry

from .logs import ROOT

WRONG = """\
version: 1
provider: lokal
timeline:
  - say: Hello.
    untill: started
  - wait: soon
"""


# --- help, options and their twins -----------------------------------------------------------------------------------


def test_help_lists_every_verb(shell):
    """`playbook --help` names all verbs without importing one."""
    done = shell.call("--help")
    assert done.code == 0
    assert all(f"\n  {verb} " in done.out for verb in VERBS)


def test_no_arguments_is_wrong_usage(shell):
    """`playbook` alone shows the help and exits 2."""
    done = shell.call()
    assert (done.code, done.out) == (2, "")
    assert "usage: playbook VERB" in done.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_names_its_twin(shell, verb):
    """The help of a verb shows PLAYBOOK_<OPTION> for each option."""
    done = shell.call(verb, "--help")
    assert done.code == 0
    named = set(re.findall(r"^  (?:-\w, )?--([a-z-]+)", done.out, re.MULTILINE)) - {"help"}
    twins = set(re.findall(r"\[PLAYBOOK_([A-Z_]+)\]", re.sub(r"\s+", " ", done.out)))
    assert twins == {name.replace("-", "_").upper() for name in named}


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["chek"], "did you mean 'check'?"),
        (["--jsn"], "unknown option '--jsn'"),
        (["check", "x.yaml", "--jsn"], "did you mean '--json'?"),
        (["run", "x.yaml", "--clock", "wall"], "invalid choice: 'wall'"),
        (["run"], "required: FILE"),
        (["check", "x.yaml", "--var", "visitor"], "'visitor' is not name=value"),
        (["run", "x.yaml", "--trigger", "go@soon"], "write go@2s"),
        (["run", "nothing.yaml"], "there is no file nothing.yaml"),
        (["check", "nothing.yaml"], "there is no file or folder nothing.yaml"),
        (["plan", "."], "is a folder"),
        (["schema", "tavu"], "there is no schema 'tavu'"),
        (["providers", "lokal"], "did you mean 'local'?"),
        (["emulate", "local"], "needs none"),
        (["sessions", "end"], "playbook sessions end ID, or --gone"),
        (["sessions", "forget"], "which session?"),
    ],
    ids=" ".join,
)
def test_wrong_usage(shell, argv, told):
    """Wrong usage exits 2, says what is wrong on standard error, and nothing on standard output."""
    done = shell.call(*argv)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert told in done.err


@pytest.mark.parametrize("argv", [["run"], ["check"], ["plan"], ["test"]], ids=" ".join)
@pytest.mark.parametrize(("name", "meant"), [("hello-nope.yaml", "hello.yaml"), ("hello", "hello.yaml"), ("b.yaml", ""), ("\0.yaml", "")])
def test_a_file_that_is_not_there(shell, argv, name, meant):
    """The playbook of the same folder that was surely meant is named, whatever the file's ending; an ending alone is no likeness."""
    for there in ("shows/a.yaml", "shows/hello.yaml", "shows/hello.baseline.yaml", "shows/hello.txt"):
        shell.write(there, "")
    done = shell.call(*argv, f"shows/{name}")
    assert done.code == 2
    assert done.err.partition("\n")[2] == (f"  did you mean 'shows/{meant}'?\n" if meant else "")


def parser() -> Parser:
    made = Parser("playbook try", "Try.")
    made.add_argument("file")
    made.add_argument("--out", type=Path, default=Path("here"))
    made.add_argument("--from-step", type=int)
    made.add_argument("--clock", choices=("system", "virtual"), default="system")
    made.add_argument("--trigger", action="append")
    made.add_argument("--json", action="store_true")
    return made


def test_twins_stand_in_for_options():
    """An option comes from the command line, else from its twin, else from its default."""
    env = {
        "PLAYBOOK_OUT": "there",
        "PLAYBOOK_FROM_STEP": "3",
        "PLAYBOOK_TRIGGER": "go@2s 'two words@3s'",
        "PLAYBOOK_JSON": "yes",
        "PLAYBOOK_CLOCK": "",
    }
    args = parser().parse(["x"], env)
    assert (args.out, args.from_step, args.clock, args.json) == (Path("there"), 3, "system", True)
    assert args.trigger == ["go@2s", "two words@3s"]
    args = parser().parse(["x", "--out", "near", "--trigger", "now", "--clock", "virtual"], env | {"PLAYBOOK_JSON": "0"})
    assert (args.out, args.trigger, args.clock, args.json) == (Path("near"), ["now"], "virtual", False)
    args = parser().parse(["x"], {})
    assert (args.out, args.from_step, args.trigger, args.json) == (Path("here"), None, None, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("PLAYBOOK_FROM_STEP", "three"), ("PLAYBOOK_CLOCK", "wall"), ("PLAYBOOK_JSON", "perhaps"), ("PLAYBOOK_TRIGGER", "'open")],
)
def test_a_wrong_twin_is_named(name, value):
    """A value that an option would refuse is refused in the environment too, by the variable's name."""
    with pytest.raises(UsageError, match=f"^{name}={value}: "):
        parser().parse(["x"], {name: value})


def test_our_own_bug_keeps_its_traceback_and_no_secret(shell, monkeypatch):
    """An exception that is our fault exits 70, says so, and shows the traceback without credentials."""

    def broken(args):
        raise RuntimeError(f"it fell over {args.env['TAVUS_API_KEY']}")

    monkeypatch.setitem(author.COMMANDS, "schema", Command(author.add_schema, broken))
    done = shell.call("schema", TAVUS_API_KEY="a-planted-secret")
    assert done.code == 70
    assert "RuntimeError: it fell over ***" in done.err
    assert "this is a bug of playbook" in done.err
    assert "a-planted-secret" not in done.out + done.err


# --- new --------------------------------------------------------------------------------------------------------------


def test_new_writes_a_starter_that_is_good(shell):
    """`new` writes a commented playbook whose modeline leads an editor to the schema, and `check` finds nothing in it."""
    assert shell.call("new", "first.yaml").code == 0
    text = Path("first.yaml").read_text("utf-8")
    modeline = re.match(r"# yaml-language-server: \$schema=file://(.*)\n", text)
    assert modeline is not None
    assert Path(modeline[1]) == schema_path("playbook.schema.json")
    assert shell.call("check", "first.yaml", "--strict").code == 0


@pytest.mark.parametrize("provider", registry.OURS)
def test_new_for_any_provider_is_good(shell, provider):
    """The starter for each provider passes `check`, which doubts only what is left to be filled in, and only for that provider."""
    assert shell.call("new", "first.yaml", "--provider", provider).code == 0
    done = shell.call("check", "first.yaml", "--json")
    assert done.code == 0, done.out
    found = json.loads(done.out)["files"][0]["problems"]
    left = re.findall(r": (YOUR-[A-Z]+-ID)\n", Path("first.yaml").read_text("utf-8"))
    assert [(each["code"], each["message"]) for each in found] == [("PB436", f"'{each}' is a placeholder of the starter") for each in left]
    assert shell.call("check", "first.yaml", "--strict").code == (3 if left else 0)
    assert "PB436" not in shell.call("check", "first.yaml", "--provider", "local").out


def test_the_starter_tells_how_to_name_a_language(shell):
    """Text is read as English unless the session says otherwise; the line for it only waits to be uncommented."""
    assert shell.call("new", "first.yaml").code == 0
    text = Path("first.yaml").read_text("utf-8")
    assert "\n# session: {language: en}  # text is read as English" in text
    Path("first.yaml").write_text(text.replace("# session: {language: en}", "session: {language: de}"), "utf-8")
    assert shell.call("check", "first.yaml", "--strict").code == 0


def test_new_fills_in_nothing_that_looks_real(shell):
    """What must be the user's own is seen to be missing, and the file says so."""
    shell.call("new", "first.yaml", "--provider", "kaltura")
    text = Path("first.yaml").read_text("utf-8")
    assert "session: # YOUR-… are ids of your own" in text
    assert "    id: YOUR-VISUAL-ID\n  voiceConfig:\n    id: YOUR-VOICE-ID\n    speed: 1.0\n" in text


def test_new_tells_commands_that_work(shell):
    """What `new` and its starter tell to type can be typed: quoted where needed, and rehearsed where the provider wants a key."""
    told = shell.call("new", "my first.yaml", "--provider", "kaltura").out
    command = "playbook run 'my first.yaml' --emulate"
    assert command in told
    assert f"#   {command}   rehearse it" in Path("my first.yaml").read_text("utf-8")


def test_new_overwrites_nothing(shell):
    """`new` refuses a file that exists, and a folder that does not."""
    shell.write("mine.yaml", "mine")
    assert shell.call("new", "mine.yaml").code == 2
    assert Path("mine.yaml").read_text() == "mine"
    assert shell.call("new", "no/such/folder.yaml").code == 2


# --- check ------------------------------------------------------------------------------------------------------------


def test_check_says_that_a_playbook_is_good(shell):
    """A good playbook exits 0 and is told with its length."""
    done = shell.call("check", shell.write("hello.yaml"))
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"hello.yaml: good, 5 steps, 0:0\d\.\d\n", done.out)


def test_check_finds_all_problems(shell):
    """All problems of a file come out together, in file order, on standard output, with exit 3."""
    done = shell.call("check", shell.write("wrong.yaml", WRONG))
    assert (done.code, done.err) == (3, "")
    assert re.findall(r"^error\[(PB\d+)\]", done.out, re.MULTILINE) == ["PB212", "PB203", "PB208"]
    assert "^^^^^^ did you mean 'until'?" in done.out
    assert done.out.endswith("\nwrong.yaml: 3 errors\n")


def test_check_as_json(shell):
    """`--json` gives the same problems as data."""
    done = shell.call("check", shell.write("wrong.yaml", WRONG), shell.write("hello.yaml"), "--json")
    wrong, good = json.loads(done.out)["files"]
    assert done.code == 3
    assert (wrong["file"], wrong["good"], wrong["plan_sha256"]) == ("wrong.yaml", False, None)
    assert wrong["problems"][1] == {
        "code": "PB203",
        "severity": "error",
        "message": "unknown key 'untill' in a say step",
        "file": "wrong.yaml",
        "line": 5,
        "column": 5,
        "length": 6,
        "remedy": "did you mean 'until'?",
        "source": "    untill: started",
    }
    assert good["good"] is True
    assert re.fullmatch("[0-9a-f]{64}", good["plan_sha256"])


def test_warnings_are_errors_when_strict(shell):
    """A doubt leaves exit 0; `--strict` makes it 3, on the command line or by its twin."""
    shell.write("late.yaml", "version: 1\nprovider: local\ntimeline:\n  - wait: 3s\n  - say: Late.\n    at: 1s\n")
    assert shell.call("check", "late.yaml").code == 0
    assert shell.call("check", "late.yaml", "--strict").code == 3
    assert shell.call("check", "late.yaml", PLAYBOOK_STRICT="1").code == 3
    assert json.loads(shell.call("check", "late.yaml", "--strict", "--json").out)["files"][0]["good"] is False
    assert shell.call("plan", "late.yaml").code == 0
    assert shell.call("plan", "late.yaml", "--strict").code == 3


def test_check_of_a_folder_waits_for_no_pipe(shell):
    """What lies in a folder and is no file is no playbook: nobody may ever write to it."""
    shell.write("hello.yaml")
    os.mkfifo("slow.yaml")
    done = shell.call("check", ".")
    assert done.code == 0
    assert "slow" not in done.out + done.err


def test_check_takes_folders_and_globs(shell):
    """A folder means every YAML file in it, parts as parts, hidden files left out; a glob means what it matches."""
    shell.write("show/main.yaml", "version: 1\nprovider: local\ntimeline:\n  - include: parts/bow.yml\n")
    shell.write("show/parts/bow.yml", "vars: {who: {type: string, required: true}}\ntimeline: [say: 'Thanks, {{ who }}.']\n")
    shell.write("show/.hidden.yaml", "nonsense")
    shell.write("show/.git/config.yaml", "nonsense")
    shell.write("show/notes.txt", "nonsense")
    done = shell.call("check", "show", "--json")
    assert [file["file"] for file in json.loads(done.out)["files"]] == ["show/main.yaml", "show/parts/bow.yml"]
    assert done.code == 3  # main.yaml does not say who
    assert shell.call("check", "show/parts").code == 0
    assert shell.call("check", "show/**/*.yml").out == "show/parts/bow.yml: good, a part (no provider)\n"


def test_nothing_matched_is_5(shell):
    """A folder without playbooks, or a glob that matches nothing, is not a success."""
    shell.write("empty/readme.txt", "")
    assert shell.call("check", "empty").code == 5
    assert shell.call("check", "*.yaml").code == 5


def test_a_problem_of_a_part_is_told_once(shell):
    """Checked with all its playbooks, a part's mistake comes out once, at its own place."""
    shell.write("a.yaml", "version: 1\nprovider: local\ntimeline: [include: part.yaml]\n")
    shell.write("b.yaml", "version: 1\nprovider: local\ntimeline: [include: part.yaml]\n")
    shell.write("part.yaml", "timeline: [say: 2026]\n")
    done = shell.call("check", ".")
    assert done.code == 3
    assert done.out.count("error[PB210]") == 1


@pytest.mark.parametrize(
    ("source", "argv", "env"),
    [
        ("default", [], {}),
        ("--vars", ["--vars", "vars.yaml"], {}),
        ("PLAYBOOK_VAR_visitor", ["--vars", "vars.yaml"], {"PLAYBOOK_VAR_visitor": "PLAYBOOK_VAR_visitor"}),
        ("--var", ["--vars", "vars.yaml", "--var", "visitor=--var"], {"PLAYBOOK_VAR_visitor": "PLAYBOOK_VAR_visitor"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_of_variables(shell, source, argv, env):
    """Later over earlier: the default, a file of variables, the environment, the command line."""
    shell.write(
        "hello.yaml", "version: 1\nprovider: local\nvars: {visitor: {type: string, default: default}}\ntimeline: [say: '{{ visitor }}']\n"
    )
    shell.write("vars.yaml", "visitor: --vars\n")
    done = shell.call("plan", "hello.yaml", "--json", *argv, **env)
    assert json.loads(done.out)["steps"][0]["say"]["chunks"][0]["text"] == source


# --- plan -------------------------------------------------------------------------------------------------------------


def test_plan_is_a_cue_sheet(shell):
    """`plan` shows start, length, step and text, the totals, and how sure each length is."""
    shell.write(
        "sheet.yaml",
        """\
version: 1
name: sheet
description: Shows a sheet.
provider: local
session: {price_per_minute: 6}
start: 2s
timeline:
  - wait: 90s
  - wait: {event: next, timeout: 10s}
    on_error: continue
  - when: false
    say: Never.
  - wait: speech
    at: 2m
  - end: {drain: false}
""",
    )
    done = shell.call("plan", "sheet.yaml")
    head, _, digest = done.out.rpartition("plan_sha256 ")
    assert re.fullmatch("[0-9a-f]{64}\n", digest)
    assert head == (
        "sheet: Shows a sheet.\n"
        "\n"
        "     start     length  step\n"
        "    0:00.0     90.0 s  wait-1  wait 1m30s\n"
        "    1:30.0          ?  wait-2  wait for 'next', at most 10s  [on error continue]\n"
        "         -          -  say-3   skipped (when: false)\n"
        "   ~2:00.0             wait-4  wait until all is spoken  [at 2m]\n"
        "   ~2:00.0             end-5   end, cutting what is being said\n"
        "\n"
        "4 steps on 'local', ~2:00.0 in all, and 1 wait for a trigger that nobody can foresee\n"
        "0 lines, 0 words, 0:00.0 of speech; every length is exact\n"
        "the timeline begins 2s after the session opened\n"
        "about 12.20 at 6 a minute\n"
    )


def test_plan_as_json_is_the_plan(shell):
    """`--json` is the plan that a run writes to `plan.json`, and reading it gives the same steps."""
    done = shell.call("plan", shell.write("hello.yaml"), "--json")
    plan = language.plan_from_json(json.loads(done.out))
    assert [step.id for step in plan.steps] == ["hello", "wait-2", "say-3", "interrupt-4", "end-5"]
    assert plan.sha256 == json.loads(shell.call("check", "hello.yaml", "--json").out)["files"][0]["plan_sha256"]


def test_a_secret_is_shown_nowhere(shell):
    """A secret that is printed into a line, a name or a mistake is masked by every verb of an author."""
    shell.write(
        "secret.yaml",
        "version: 1\nprovider: local\nvars: {pin: {type: string, secret: true, required: true}}\n"
        "timeline:\n  - say: 'Your number is {{ pin }}.'\n    name: 'tell {{ pin }}'\n  - say: Bye.\n    until: '{{ pin }}'\n",
    )
    for argv in (["check"], ["check", "--json"], ["plan"], ["plan", "--json"]):
        done = shell.call(argv[0], "secret.yaml", *argv[1:], "--var", "pin=hunter2000")
        assert "hunter2000" not in done.out + done.err, argv
        assert done.code == 3
        done = shell.call(argv[0], "secret.yaml", *argv[1:], "--var", "pin=3s")
        assert done.code == 0
        assert "is 3s" not in done.out + done.err, argv


def test_another_provider_performs(shell):
    """`--provider` replaces the playbook's own, and says which settings are left out."""
    done = shell.call("plan", shell.write("wrong.yaml", WRONG.replace("lokal", "local").replace("untill", "until").replace("soon", "1s")))
    assert done.code == 0
    done = shell.call("plan", "wrong.yaml", "--provider", "nobody")
    assert done.code == 3
    assert "unknown provider 'nobody'" in done.err


# --- schema, providers ------------------------------------------------------------------------------------------------


def test_plan_check_and_run_agree_on_the_length(shell):
    """All three count from the beginning of the timeline; how long that is after the session opened is told beside it."""
    shell.write("delayed.yaml", "version: 1\nprovider: local\nstart: 2s\ntimeline:\n  - wait: 1s\n  - end:\n")
    told = shell.call("plan", "delayed.yaml").out
    assert "2 steps on 'local', 0:01.0 in all\n" in told
    assert "the timeline begins 2s after the session opened" in told
    assert shell.call("check", "delayed.yaml").out == "delayed.yaml: good, 2 steps, 0:01.0\n"
    assert "\n2 steps, 0 lines; 0:01.0\n" in shell.call("run", "delayed.yaml", "--clock", "virtual").out


def test_schema_prints_the_format(shell):
    """`schema` prints each schema as it lies on the disk, or where that is. (With a plug-in, it prints more: see there.)"""
    names = [path.name.removesuffix(".schema.json") for path in (ROOT / "schemas").rglob("*.schema.json")]
    assert {"playbook", "runlog", "local"} <= set(names)
    for name in names:
        printed = json.loads(shell.call("schema", name).out)
        jsonschema.Draft7Validator.check_schema(printed)
        assert json.loads(Path(shell.call("schema", name, "--path").out.strip()).read_text("utf-8")) == printed
    assert shell.call("schema").out == shell.call("schema", "playbook").out


def test_providers_tells_what_each_can_do(shell):
    """`providers` has a column for each provider, and says whether credentials are there without showing them."""
    done = shell.call("providers", TAVUS_API_KEY="a-planted-secret")
    assert done.code == 0
    head, *rows = done.out.splitlines()
    assert head.split() == list(registry.OURS)
    credentials = re.split(r"\s{2,}", rows[-1])
    assert credentials == ["credentials", "none needed", "missing", "present", "missing"]
    assert "a-planted-secret" not in done.out
    data = json.loads(shell.call("providers", "--json").out)
    assert [provider["name"] for provider in data] == list(registry.OURS)
    assert all(Path(provider["schema"]).is_file() for provider in data)


@pytest.mark.parametrize("name", registry.OURS)
def test_one_provider_tells_its_settings(shell, name):
    """`providers NAME` lists every session setting of that provider's schema, and says what a star is if there is one."""
    done = shell.call("providers", name)
    assert done.code == 0
    settings = json.loads(schema_path(f"providers/{name}.schema.json").read_text("utf-8"))["properties"]
    assert all(f"\n{setting} " in done.out for setting in settings)
    assert (" * " in done.out) == ("\nsession settings (* required)" in done.out)


# --- colours ------------------------------------------------------------------------------------------------------------


def test_settings_are_told_with_what_they_take(shell):
    """The allowed values, the default and the settings within a setting stand beside its name."""
    rows = {row.split()[0]: row for row in shell.call("providers", "kaltura").out.splitlines() if row}
    assert "a number greater than 0; default 1.0. How much faster" in rows["voiceConfig.speed"]
    assert 'fail, local-voice; default "fail". ' in rows["text_unavailable"]
    assert "conversation_engine.tts.voice_id" in shell.call("providers", "avaturn").out


class Terminal:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("env", "colour", "live"),
    [
        ({}, True, True),
        ({"NO_COLOR": "1"}, False, True),
        ({"CI": "true"}, True, False),
        ({"TERM": "dumb"}, False, False),
        ({"NO_COLOR": ""}, True, True),
    ],
    ids=str,
)
def test_what_a_terminal_wants(env, colour, live):
    """NO_COLOR, CI and a dumb terminal are honoured."""
    assert (options.in_colour(Terminal(), env), options.is_live(Terminal(), env)) == (colour, live)


def test_a_long_line_is_told_once(shell):
    """A playbook may be one line of JSON with a mistake in every step: the problems share its text, and as data they go without it."""
    steps = ", ".join('{"say": "x", "untill": 3}' for _ in range(400))
    path = shell.write("long.json", f'{{"version": 1, "provider": "local", "timeline": [{steps}]}}')
    problems, _ = language.check_file(Path(path), World())
    assert len(problems) == 400
    assert len({id(problem.source) for problem in problems}) == 1
    done = shell.call("check", path, "--json")
    (file,) = json.loads(done.out)["files"]
    assert [problem["column"] for problem in file["problems"][:2]] == [63, 90]
    assert not any("source" in problem for problem in file["problems"])
