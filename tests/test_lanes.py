"""`playbook report`: a run's report again, and the page of a run or a plan."""

from __future__ import annotations

import json
import re

from .commands import HELLO, Shell


def test_a_report_is_printed_again(shell: Shell):
    """`report RUN` says what `run` said, and as JSON what `run --json` does, but for where it was."""
    shell.write("hello.yaml")
    ran = shell.call("run", "hello.yaml", "--clock", "virtual", "--out", "shown")
    again = shell.call("report", "shown")
    assert (again.code, again.out) == (0, ran.out.replace("hear it: shown/audio.wav\n", ""))
    told = json.loads(shell.call("report", "shown", "--json").out)
    assert (told["end"], told["exit_code"], len(told["utterances"])) == ("passed", 0, 2)


def test_a_report_of_what_is_no_run_says_so(shell: Shell):
    """A folder without a log, a path that is not there, a playbook without a page."""
    shell.write("hello.yaml")
    assert shell.call("report", ".").code == 2
    assert shell.call("report", "nowhere").code == 2
    assert "--html" in shell.call("report", "hello.yaml").err


def test_the_page_of_a_run_has_its_lanes_its_lines_and_its_sound(shell: Shell):
    """Script, commands, speech by its source, level and captions; each line with its grade; the sound; and no other address."""
    shell.write("hello.yaml")
    shell.call("run", "hello.yaml", "--clock", "virtual", "--out", "shown")
    assert shell.call("report", "shown", "--html", "run.html").code == 0
    page = (shell.folder / "run.html").read_text("utf-8")
    lanes = re.findall(r"<h2>([^<]+)</h2>", page)
    assert lanes[:2] == ["script", "commands"]
    assert lanes[-2:] == ["level of the sound", "captions"]
    assert any(lane.startswith("speech: ") for lane in lanes)
    assert page.count('<button type="button" data-play=') == 2
    assert "data:audio/wav;base64,UklGR" in page
    assert not re.search(r'(?:src|href)="(?!data:)|https?://|url\(', page)
    assert "unsafe-inline" not in page


def test_the_page_of_a_plan_is_its_cue_sheet(shell: Shell):
    """`report FILE.yaml --html`: every step, when it comes, and how long it takes."""
    shell.write("hello.yaml")
    assert shell.call("report", "hello.yaml", "--html", "plan.html").code == 0
    page = (shell.folder / "plan.html").read_text("utf-8")
    assert re.findall(r"<code>([^<]+)</code>", page) == ["hello", "wait-2", "say-3", "interrupt-4", "end-5"]
    assert "<audio" not in page


def test_a_hostile_text_does_not_become_markup(shell: Shell):
    """Markup in a line, and in the playbook's name, is shown as it was written; a secret is not shown."""
    evil = "</script><img src=x onerror=alert(1)>"
    text = HELLO.replace("name: hello", f'name: "{evil}"').replace("Welcome, {{ visitor }}.", f"'{evil} {{{{ visitor }}}} {{{{ code }}}}'")
    shell.write("evil.yaml", text.replace("vars:", "vars:\n  code: {type: string, secret: true}"))
    shell.call("run", "evil.yaml", "--clock", "virtual", "--var", "code=opensesame", "--out", "shown")
    assert shell.call("report", "shown", "--html", "run.html").code == 0
    page = (shell.folder / "run.html").read_text("utf-8")
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "opensesame" not in page


def test_a_log_that_was_cut_off_has_a_page_too(shell: Shell):
    """What is left of a log is shown as far as it goes."""
    shell.write("hello.yaml")
    shell.call("run", "hello.yaml", "--clock", "virtual", "--out", "shown")
    log = shell.folder / "shown" / "run.jsonl"
    log.write_bytes(log.read_bytes()[: len(log.read_bytes()) // 2])
    assert shell.call("report", "shown", "--html", "run.html").code == 0
    assert "cut off" in (shell.folder / "run.html").read_text("utf-8")
