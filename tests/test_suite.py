"""`playbook test`: cases, repetitions, workers, baselines, and what it reports."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

from playbook.cli.reports import to_junit, to_tap
from playbook.errors import RecordError, RunError
from playbook.record import baseline as baselines
from playbook.record.performance import Act, Performance
from playbook.suite import Case, Result, tasks

from .logs import ROOT, checked
from .test_diff import HOSTILE, read_page

GOOD = "version: 1\nprovider: local\ntimeline:\n  - say: All is well.\n    id: well\n  - wait: 200ms\n"
BAD = "version: 1\nprovider: local\ntimeline:\n  - say: Too long, whatever it says.\n    id: long\n    expect: {lasts: {max: 1ms}}\n"
WRONG = "version: 1\nprovider: local\ntimeline:\n  - sai: A verb that is none.\n"
VARIABLE = (
    "version: 1\nprovider: local\nvars:\n  who: {type: string, required: true}\ntimeline:\n  - say: Hello, {{ who }}.\n    id: hello\n"
)
KIOSK = """\
version: 1
name: kiosk
provider: kaltura
session: {clientId: "100", visualConfig: {id: "200"}, voiceConfig: {id: "300"}}
start: 1s
timeline:
  - say: Welcome to the museum.
    id: welcome
  - wait: 700ms
  - say: The lift is on your left, the stairs are on your right.
    id: lift
  - say: This line is cut short when somebody walks away from us.
    until: 900ms
    id: cut
  - interrupt:
  - say: Goodbye.
    id: goodbye
"""


def perform(shell, *argv: str):
    return shell.call("test", *argv, "--clock", "virtual", "--jobs", "1")


def results_of(shell, *argv: str):
    return json.loads(perform(shell, *argv, "--json", "--quiet").out)


def write(shell, **files: str) -> None:
    for name, text in files.items():
        shell.write(f"set/{name}.yaml", text)


# --- cases and exit codes -------------------------------------------------------------------------------------------------


def test_each_case_has_one_status(shell):
    """One passes, one fails (1), one is wrong (3): the exit code is that of a failure, and every case is listed."""
    write(shell, good=GOOD, bad=BAD, wrong=WRONG)
    shell.write("set/part.yaml", "timeline:\n  - say: From a part.\n")
    done = perform(shell, "set")
    assert done.code == 1
    assert "1 passed, 1 failed, 1 error, 1 skipped" in done.out
    assert "expected the line to last 0 to 1 ms" in done.out
    assert "error[PB206]" in done.out
    assert "it is a part" in done.out


def test_an_error_has_its_own_exit_code(shell):
    """Without a failure, the exit code is the error's: 3 for a wrong playbook; with nothing but skipped cases it is 5."""
    write(shell, good=GOOD, wrong=WRONG)
    assert perform(shell, "set").code == 3
    assert perform(shell, "set/good.yaml").code == 0
    shell.write("set/part.yaml", "timeline:\n  - say: From a part.\n")
    assert perform(shell, "set/part.yaml").code == 5


def test_nothing_matched(shell):
    """Nothing to test is exit 5, whichever way there came to be nothing; a path that is not there is wrong usage."""
    write(shell, good=GOOD)
    (shell.folder / "empty").mkdir()
    assert perform(shell, "empty").code == 5
    done = perform(shell, "set", "--only", "nothing-like-it")
    assert done.code == 5
    assert "--only nothing-like-it matches none of 1" in done.err
    assert perform(shell, "nowhere").code == 2


def test_strict_makes_warnings_errors(shell):
    """A playbook with a warning passes, and with --strict is an error that shows it."""
    write(shell, odd="version: 1\nprovider: local\ntimeline:\n  - interrupt:\n  - say: Hello.\n")
    assert perform(shell, "set").code == 0
    done = perform(shell, "set", "--strict")
    assert done.code == 3
    assert "warning[PB432]" in done.out


def test_a_stall_is_a_failure_with_what_helps_here(shell):
    """A playbook that waits for a trigger fails; it is told the option of this verb, which then lets it pass."""
    write(shell, waits=GOOD.replace("timeline:", "start: go\ntimeline:\n  - wait: {event: next door}"))
    done = perform(shell, "set", "--trigger", "go")
    assert done.code == 1
    assert "1 failed" in done.out
    assert "which nothing can give (give it with `--trigger 'next door'`)" in done.out
    assert "terminal" not in done.out
    assert perform(shell, "set", "--trigger", "go", "--trigger", "next door@1s").code == 0


def test_repetitions_are_interleaved():
    """First every case once, then every case again; and no two share a folder."""
    found = tasks([Case(Path("a.yaml")), Case(Path("b/a.yaml")), Case(Path("b-a.yaml"))], 2, Path("out"))
    assert [(task.case.name, task.repetition) for task in found[:4]] == [("a.yaml", 1), ("b/a.yaml", 1), ("b-a.yaml", 1), ("a.yaml", 2)]
    assert len({task.folder for task in found}) == 6


def test_pass_rates(shell):
    """With --repeat, each case's passes are counted, and one failure of it is a failure."""
    write(shell, good=GOOD, bad=BAD)
    done = perform(shell, "set", "--repeat", "3")
    assert done.code == 1
    assert "set/good.yaml: 3 of 3 passed" in done.out
    assert "set/bad.yaml: 0 of 3 passed" in done.out
    assert results_of(shell, "set", "--repeat", "2")["rates"]["set/good.yaml"] == {"passed": 2, "ran": 2}


def test_rerun_failed(shell):
    """What failed, and what never ran, is run again; when all is well there is nothing to run; without a test before, wrong usage."""
    write(shell, a_bad=BAD, good=GOOD)
    assert perform(shell, "set", "--rerun-failed").code == 2
    assert perform(shell, "set", "--fail-fast").code == 1
    again = results_of(shell, "set", "--rerun-failed")
    assert [result["name"] for result in again["results"]] == ["set/a_bad.yaml", "set/good.yaml"]
    write(shell, a_bad=GOOD)
    assert perform(shell, "set", "--rerun-failed").code == 0
    assert perform(shell, "set", "--rerun-failed").code == 5


def test_a_list_for_rerun_that_cannot_be_written(shell):
    """It is a convenience: the reports are written, the exit code is the test's, and somebody is told."""
    shell.write("set/a.yaml", GOOD)
    shell.write("runs", "a file")
    done = perform(shell, "set", "--out", "out", "--junit", "report.xml")
    assert done.code == 0, done.err
    assert "--rerun-failed will not know of this test" in done.err
    assert (shell.folder / "report.xml").exists()


def test_what_failed_stays_to_be_rerun(shell):
    """What was not asked for is not forgotten: it is run again when it is, until it passes."""
    write(shell, a=BAD, b=BAD, c=GOOD)
    perform(shell, "set")
    write(shell, a=GOOD)
    assert perform(shell, "set", "--rerun-failed", "--only", "a.yaml").code == 0
    assert perform(shell, "set/c.yaml").code == 0
    assert [result["name"] for result in results_of(shell, "set", "--rerun-failed")["results"]] == ["set/b.yaml"]
    Path("runs/.last-test.json").write_text("rubbish")
    assert "remove it" in perform(shell, "set", "--rerun-failed").err
    assert perform(shell, "set/c.yaml").code == 0


def test_only_is_told_what_matches_nothing(shell):
    """--only takes a glob of the name with or without folders, or a piece of it; one of several that matches nothing is said."""
    write(shell, alpha=GOOD, beta=GOOD, gamma=GOOD)
    done = perform(shell, "set", "--only", "al*", "--only", "set/b*", "--only", "delta*")
    assert done.code == 0
    assert "2 passed" in done.out
    assert "warning: --only delta* matches none of 3" in done.err


def test_fail_fast(shell):
    """After the first failure nothing more begins, and what never ran is listed with the reason."""
    write(shell, a_bad=BAD, b_good=GOOD, c_good=GOOD)
    data = results_of(shell, "set", "--fail-fast")
    assert [result["status"] for result in data["results"]] == ["failed", "never ran", "never ran"]
    assert data["results"][1]["reasons"] == ["--fail-fast: set/a_bad.yaml has failed"]
    done = perform(shell, "set", "--fail-fast", "--repeat", "2")
    assert "never ran: --fail-fast: set/a_bad.yaml has failed\n  set/b_good.yaml (2 times)\n  set/c_good.yaml (2 times)\n" in done.out


def test_only_and_a_part_of_the_steps(shell):
    """--only chooses cases; --from-step and --to-step perform a part, and a case that has no such step is skipped and says so."""
    write(
        shell,
        a=GOOD.replace("  - wait: 200ms\n", "  - say: In the middle.\n    id: mid\n    at: 5s\n  - say: The last.\n    id: last\n"),
        b=GOOD,
    )
    data = results_of(shell, "set", "--only", "a.yaml", "--from-step", "mid", "--to-step", "mid", "--out", "out")
    (result,) = data["results"]
    lines = checked(Path(result["folder"]))
    assert [line["text"] for line in lines if line.get("command") == "say"] == ["In the middle."]
    assert [line["at_ms"] for line in lines if line.get("command") == "say"] == [0]
    data = results_of(shell, "set", "--from-step", "mid")
    assert [(result["status"], result["reasons"]) for result in data["results"]] == [("passed", []), ("skipped", ["it has no step 'mid'"])]
    assert perform(shell, "set/a.yaml", "--from-step", "last", "--to-step", "mid").code == 5


def test_a_step_that_nobody_has_is_wrong_usage(shell):
    """A step that is in none of the playbooks is most likely misspelt; where one playbook is wrong, nobody knows what it has."""
    write(shell, good=GOOD, other=GOOD)
    for option in ("--from-step", "--to-step"):
        done = perform(shell, "set", option, "wel")
        assert done.code == 2
        assert "there is no step 'wel' in any of the playbooks\n  did you mean 'well'?" in done.err
    assert not list(Path().glob("runs/*-test"))
    write(shell, wrong=WRONG)
    assert perform(shell, "set", "--from-step", "wel").code == 3


def test_results_are_in_the_order_of_the_cases(shell):
    """Whichever of two workers is done first, the reports have the cases in their order."""
    write(shell, a_long=GOOD.replace("    id: well", "    id: well\n    repeat: 300"), b=GOOD, c=GOOD)
    done = shell.call("test", "set", "--clock", "virtual", "--jobs", "2", "--repeat", "2", "--json", "--junit", "report.xml")
    names = [f"set/{name}.yaml #{n}" for n in (1, 2) for name in ("a_long", "b", "c")]
    assert sorted(line.split(None, 1)[1].split("  ")[0] for line in done.err.splitlines() if line.startswith("passed")) == sorted(names)
    assert [f"{result['name']} #{result['repetition']}" for result in json.loads(done.out)["results"]] == names
    assert [case.get("name") for case in etree.parse("report.xml").iter("testcase")] == names


def test_secrets_stay_secret(shell):
    """A failing case with a secret shows it in no report and on no stream."""
    text = VARIABLE.replace("required: true", "required: true, secret: true") + "    expect: {heard: 'Bye, {{ who }}.'}\n"
    write(shell, var=text)
    done = perform(shell, "set", "--var", "who=swordfish-9", *["--junit", "j.xml", "--tap", "t.tap", "--html", "p.html", "--out", "out"])
    assert done.code == 1
    assert "expected to hear 'Bye, ***.'" in done.out
    planted = [
        path for path in shell.folder.rglob("*") if path.is_file() and b"swordfish" in path.read_bytes() and "cache" not in path.parts
    ]
    assert planted == []
    assert "swordfish" not in done.out + done.err


# --- workers --------------------------------------------------------------------------------------------------------------


def test_workers_do_the_same_as_one(shell):
    """Two processes give the results of one, in the same order."""
    write(shell, a=GOOD, b=BAD, c=WRONG, d=VARIABLE)
    shell.env["PLAYBOOK_VAR_who"] = "Ada"
    alone = results_of(shell, "set")
    done = shell.perform("test", "set", "--clock", "virtual", "--jobs", "2", "--json", "--quiet")
    assert done.code == 1
    together = json.loads(done.out)

    def told(data):
        return [(result["name"], result["status"], result["reasons"]) for result in data["results"]]

    assert told(together) == told(alone)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_signal_stops_every_run_in_order(shell, number, code):
    """Every run that was under way closes its session and its log; what never ran is listed; the exit code is the signal's."""
    for name in "abc":
        shell.write(f"set/{name}.yaml", GOOD.replace("200ms", "1m"))
    process = shell.start("test", "set", "--jobs", "2", "--out", "out", "--json")
    logs = [shell.folder / "out" / f"set-{name}.yaml" / "run.jsonl" for name in "ab"]
    until(lambda: all(log.exists() and b'"reason":"wait"' in log.read_bytes() for log in logs), process)
    os.kill(process.pid, number)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == code
    statuses = [result["status"] for result in json.loads(out)["results"]]
    assert statuses == ["error", "error", "never ran"]
    for log in logs:
        assert checked(log)[-1]["end"] == "stopped"


def until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for something that another process does."""
    for _ in range(400):
        if true():
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)
    raise AssertionError("it never happened")


# --- baselines ------------------------------------------------------------------------------------------------------------


def test_a_baseline_is_written_and_held(shell):
    """--update writes a file beside the playbook; the same playbook then passes, and changed words fail with both texts."""
    write(shell, good=GOOD)
    done = perform(shell, "set", "--update", "--repeat", "2")
    assert done.code == 0
    text = Path("set/good.baseline.yaml").read_text()
    assert 'say: "All is well."' in text
    assert "evidence: reported" in text
    assert "runs: 2" in text
    assert re.search(r"length_ms: \{median: \d+, spread: 0\}", text)
    assert perform(shell, "set").code == 0
    write(shell, good=GOOD.replace("well.", "not well."))
    done = perform(shell, "set")
    assert done.code == 1
    assert "well: words changed: was 'All is well.', now 'All is not well.'" in done.out
    assert perform(shell, "set", "--no-baseline").code == 0


def test_a_baseline_lies_beside_checked_files(shell):
    """`check FOLDER` and `test FOLDER` take no baseline for a playbook."""
    write(shell, good=GOOD)
    perform(shell, "set", "--update")
    assert shell.call("check", "set").code == 0
    assert len(results_of(shell, "set")["results"]) == 1


def test_failed_runs_make_no_baseline(shell):
    """What did not pass is no model for later runs."""
    write(shell, bad=BAD)
    done = perform(shell, "set", "--update")
    assert done.code == 1
    assert "no baseline is made" in done.err
    assert not Path("set/bad.baseline.yaml").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baseline: 1", "baseline: 2", "of version 2"),
        ("baseline: 1", "baseline: one", "is damaged"),
        ("runs: 1", "runs: 0", "is damaged: runs"),
        ("spread: 0", "spread: lots", "is damaged"),
        ("steps:", "steps: none, and that is", "is not a baseline"),
        ("provider: local\n", "", "is damaged"),
        ("outcome: done", "outcome: done\n    color: red", "is damaged"),
    ],
)
def test_damaged_baselines(shell, old, new, message):
    """A baseline that was damaged is an error that says where, and never a pass."""
    write(shell, good=GOOD)
    perform(shell, "set", "--update")
    path = Path("set/good.baseline.yaml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    done = perform(shell, "set")
    assert done.code == 2
    assert message in done.out


def test_a_baseline_survives_its_file(tmp_path):
    """What is written is read back, for texts that YAML could take for something else."""
    texts = [
        "yes",
        "0x1F",
        "1e3",
        "'quoted' \"both\"",
        "a: b # c",
        "- dash",
        "\u2028\x85\x00\x1b line",
        "ends with space ",
        "null",
        "",
        HOSTILE,
    ]
    acts = tuple(
        Act(f"s{n}", "say", text, {"outcome": "done", "evidence": "heard", "interrupted": n == 1}, {"start": n})
        for n, text in enumerate(texts)
    )
    acts += (Act("true", "interrupt", "", {"outcome": "done"}), Act("w: x", "", "", {"outcome": None}, {"length": 5}))
    other = tuple(Act(a.id, a.verb, a.words, a.facts | {"outcome": "failed"}, {k: v + 7 for k, v in a.times.items()}) for a in acts)
    facts = {"provider": "local", "end": "passed"}
    learned = baselines.learn(
        [Performance("a", acts, facts, {"lasted": 10}), Performance("b", other, facts, {"lasted": 30})], "a: name", "virtual"
    )
    path = tmp_path / "x.baseline.yaml"
    path.write_text(baselines.to_yaml(learned), "utf-8")
    assert baselines.read(path) == learned
    assert learned.lasted == baselines.Band(20, 10)
    assert learned.judge(Performance("a", acts, facts, {"lasted": 10}), clock="virtual").same
    assert learned.judge(Performance("b", other, facts, {"lasted": 30}), clock="virtual").same


def test_runs_that_disagree_teach_nothing():
    """A baseline cannot be learned from runs that said different things; a file that is not there is no baseline."""
    a, b = Performance("a", (Act("x", "say", "one"),)), Performance("b", (Act("x", "say", "two"),))
    with pytest.raises(RunError, match="do not agree"):
        baselines.learn([a, b], "x", "virtual")
    with pytest.raises(RecordError):
        baselines.read(Path("nowhere.baseline.yaml"))


def test_a_baseline_of_another_provider_or_clock(shell):
    """Words and order are compared whoever performs; timings only with the same provider and clock."""
    write(shell, good=GOOD)
    perform(shell, "set", "--update")
    path = Path("set/good.baseline.yaml")
    learned = path.read_text()
    path.write_text(re.sub(r"median: \d+", "median: 99999", learned))
    assert perform(shell, "set").code == 1
    for changed in (learned.replace("provider: local", "provider: tavus"), learned.replace("clock: virtual", "clock: system")):
        path.write_text(re.sub(r"median: \d+", "median: 99999", changed))
        done = perform(shell, "set")
        assert done.code == 0, done.out
        assert "timings not compared" in done.out
        path.write_text(changed.replace("All is well.", "All was well."))
        assert perform(shell, "set").code == 1


def test_a_kiosk_against_an_emulator_with_jitter(shell):
    """Under a baseline that was learned with jitter, other runs with other jitter are stable, and 300 ms more latency fail."""
    shell.write("kiosk.yaml", KIOSK)
    weather = ("--emulate", "--jitter", "120ms")
    assert perform(shell, "kiosk.yaml", *weather, "--repeat", "10", "--update").code == 0
    for seed in ("1", "2"):
        done = perform(shell, "kiosk.yaml", *weather, "--seed", seed, "--repeat", "10")
        assert done.code == 0, done.out
    done = perform(shell, "kiosk.yaml", *weather, "--seed", "1", "--delay", "300ms", "--repeat", "5")
    assert done.code == 1
    assert "kiosk.yaml: 0 of 5 passed" in done.out
    assert re.search(r"was accepted after \d+ ms; the baseline allows 0 to \d+ ms \(median \d+ ms of 10 runs\)", done.out)


# --- reports --------------------------------------------------------------------------------------------------------------


@functools.cache
def junit() -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(ROOT / "tests" / "schemas" / "junit.xsd"))


RESULTS = [
    Result(name="a.yaml", file="a.yaml", repetition=1, status="passed", took_ms=12, folder="runs/x"),
    Result(name=HOSTILE, file="b\ud800.yaml", repetition=1, status="failed", exit_code=1, reasons=(HOSTILE, "second\nline")),
    Result(name="c # d\n", file="c.yaml", repetition=1, status="error", exit_code=3, reasons=("\ufffe]]>",)),
    Result(name="d", file="d.yaml", repetition=1, status="skipped", reasons=("it is # a part",)),
    Result(name="e", file="e.yaml", repetition=1, status="never ran", reasons=("stopped",)),
]


def test_junit_is_accepted(shell):
    """The report of a test with every status, and one with hostile texts, is valid by a JUnit schema; each case is there once."""
    write(shell, good=GOOD, bad=BAD, wrong=WRONG)
    shell.write("set/part.yaml", "timeline:\n  - say: From a part.\n")
    perform(shell, "set", "--junit", "report.xml")
    for text in (
        Path("report.xml").read_text("utf-8"),
        to_junit(RESULTS, repeat=1, started_at="2026-01-01T00:00:00+00:00", took_ms=3),
        to_junit([], repeat=1, started_at="2026-01-01T00:00:00", took_ms=0),
    ):
        junit().assertValid(etree.fromstring(text.encode()))
    root = etree.parse("report.xml").getroot()
    assert [root.find("testsuite").get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    assert "expected the line to last" in root.findtext(".//failure")


def test_tap_is_well_formed(shell):
    """A plan, one line for each case in order, nothing that breaks a line; skipped and never ran are told as such."""
    lines = to_tap(RESULTS, repeat=1).splitlines()
    assert lines[:2] == ["TAP version 14", "1..5"]
    points = [line for line in lines if re.match(r"(not )?ok \d", line)]
    assert [int(re.search(r"\d+", line)[0]) for line in points] == [1, 2, 3, 4, 5]
    assert [line.startswith("ok") for line in points] == [True, False, False, True, True]
    assert points[2].startswith("not ok 3 - c \\# d")
    assert points[3].endswith("# SKIP it is # a part")
    assert points[4].endswith("# SKIP never ran: stopped")
    write(shell, good=GOOD)
    perform(shell, "set", "--tap", "report.tap")
    assert "ok 1 - set/good.yaml" in Path("report.tap").read_text()


def test_the_page_of_a_test(shell):
    """One file, no links, every case with its status, reasons as text."""
    write(shell, good=GOOD, bad=BAD.replace("whatever it says", "<script>alert(1)</script>"))
    perform(shell, "set", "--html", "page.html", "--repeat", "2")
    reader = read_page(Path("page.html").read_text())
    text = "".join(reader.text)
    assert reader.links == []
    assert "script" not in reader.tags
    assert "expected the line to last 0 to 1 ms" in text
    assert "2 of 2" in text
    assert "0 of 2" in text


@pytest.mark.parametrize("option", ["--junit", "--tap", "--html"])
def test_reports_that_cannot_be_written(shell, option):
    """A report's place is tried before anything runs; what stands there already stays until the new report is there."""
    write(shell, good=GOOD)
    for path in ("nowhere/report", "set"):
        done = perform(shell, "set", option, path, "--out", "out")
        assert done.code == 2
        assert "cannot be written" in done.err
        assert not Path("out").exists()


def test_used_wrongly(shell):
    """Options that exclude each other or make no sense are wrong usage."""
    write(shell, good=GOOD)
    for wrong in (
        ("--update", "--from-step", "well"),
        ("--fault", "end-late"),
        ("--delay", "1s"),
        ("--jobs", "0"),
        ("--repeat", "many"),
        ("--trigger", "go@soon"),
        ("--delay", "soon", "--emulate"),
    ):
        assert perform(shell, "set", *wrong).code == 2, wrong
    (shell.folder / "used").mkdir()
    Path("used/file").write_text("mine")
    assert perform(shell, "set", "--out", "used").code == 2
