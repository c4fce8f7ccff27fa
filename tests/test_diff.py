"""Comparing runs and plans: what is the same step, what changed, and whose doing it is."""

from __future__ import annotations

import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import lxml.html
import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbook.cli.compared import marked_words
from playbook.cli.pages import comparison_page
from playbook.language import compile_file
from playbook.perform.world import World
from playbook.record.align import align
from playbook.record.diff import Tolerance, compare, latency, tolerance, words
from playbook.record.performance import Act, Performance, of_log, of_plan
from playbook.record.runlog import read_log

from .commands import HELLO

# --- alignment ------------------------------------------------------------------------------------------------------------

ACTS = st.lists(
    st.builds(Act, st.sampled_from("abcdefgh"), st.sampled_from(["say", "wait", ""]), st.sampled_from(["", "one", "two", "three four"])),
    max_size=12,
)


def says(*texts: str, first: int = 1) -> list[Act]:
    """Lines with the ids that steps without a name get."""
    return [Act(f"say-{n}", "say", text) for n, text in enumerate(texts, first)]


@given(ACTS, ACTS)
def test_alignment_has_everything_once_and_in_order(a, b):
    """Whatever is compared, each side is there completely, once, and in its own order."""
    rows = align(a, b)
    assert [i for i, _ in rows if i is not None] == list(range(len(a)))
    assert [j for _, j in rows if j is not None] == list(range(len(b)))
    assert all(i is not None or j is not None for i, j in rows)


@given(ACTS)
def test_equal_sides_align_completely(acts):
    """What is compared with itself aligns one to one."""
    assert align(acts, acts) == [(i, i) for i in range(len(acts))]


@given(st.lists(st.text("abc ", min_size=1, max_size=6), min_size=1, max_size=12), st.data())
def test_a_step_that_was_put_in_is_the_only_difference(texts, data):
    """A playbook that gained a line, so that all ids behind it shifted, still aligns: one line was added, nothing else changed."""
    at = data.draw(st.integers(0, len(texts)))
    before = Performance("a", tuple(says(*texts)))
    after = Performance("b", tuple(says(*texts[:at], "a line that is new", *texts[at:])))
    changes = compare(before, after, Tolerance()).changes
    assert [(change.what, change.b) for change in changes] == [("added", "a line that is new")]


def test_lines_that_were_rewritten_are_the_same_lines():
    """A line with other words keeps its place, also when its id changed with them; one that has nothing of the old is another line."""
    before = Performance("a", tuple(says("Welcome to the museum.", "The lift is on the left.", "Goodbye.")))
    after = Performance("b", (*says("New.", "Welcome to our museum.", "The stairs are on the left."), Act("bye", "say", "Goodbye.")))
    changes = {(change.what, change.step) for change in compare(before, after, Tolerance()).changes}
    assert changes == {("added", "say-1"), ("words", "say-2"), ("words", "say-3")}


def test_a_moved_line_is_told_as_moved():
    """A line that stands elsewhere is not told as removed and added."""
    comparison = compare(
        Performance("a", tuple(says("one", "two", "three"))), Performance("b", tuple(says("two", "three", "one"))), Tolerance()
    )
    assert sorted(change.what for change in comparison.changes) == ["moved away", "moved here"]
    assert {change.verdict for change in comparison.changes} == {"content"}


def test_long_runs_align_quickly_and_rightly():
    """Twenty thousand steps, every other one rewritten and one put in: aligned pair by pair (the time is in the benchmark)."""
    texts = [f"this is line {n} of many" for n in range(20_000)]
    other = [f"{text} indeed" if n % 2 else text for n, text in enumerate(texts)]
    rows = align(says(*texts), says("new", *other))
    assert rows[0] == (None, 0)
    assert rows[1:] == [(n, n + 1) for n in range(20_000)]


# --- verdicts -------------------------------------------------------------------------------------------------------------


def act(id: str, **times: int) -> Act:
    facts = {"outcome": "done", "evidence": "reported", "interrupted": False}
    return Act(id, "say", id, facts, {"sent": 0, "start": 0, "length": 1000, "accepted": 0, "answered": 0, "late": 0, "ours": 0} | times)


def shifted(a: Act, b: Act, measure: Tolerance | None = None):
    return compare(Performance("a", (a,)), Performance("b", (b,)), measure or Tolerance(ms=100)).changes


@pytest.mark.parametrize(
    ("times", "cause"),
    [
        ({"start": 500, "answered": 450, "sent": 50}, "provider"),
        ({"start": 500, "accepted": 400, "answered": 60}, "provider"),
        ({"start": 500, "ours": 480, "sent": 480}, "ours"),
        ({"start": 500, "sent": 500}, "carried"),
        ({"start": -500, "sent": -500}, "carried"),
    ],
)
def test_a_shift_has_a_cause(times, cause):
    """A line that begins later does so because of us, of the provider, or of the lines before it."""
    assert {change.what: change.cause for change in shifted(act("x"), act("x", **times))}["start"] == cause


def test_three_verdicts_are_kept_apart():
    """Words, outcome and timing each have their own changes."""
    a = act("x")
    b = replace(act("x", length=2000), words="y", facts={"outcome": "failed", "evidence": "timeout", "interrupted": True})
    comparison = compare(Performance("a", (a,)), Performance("b", (b,)), Tolerance(ms=100))
    assert [change.what for change in comparison.of("content")] == ["words"]
    assert {change.what for change in comparison.of("outcome")} == {"outcome", "evidence", "interrupted"}
    assert [change.what for change in comparison.of("timing")] == ["length"]


@pytest.mark.parametrize(
    ("text", "off", "same"), [("150ms", 150, True), ("150ms", 151, False), ("0.2s", 200, True), ("10%", 100, True), ("10%", 101, False)]
)
def test_tolerance(text, off, same):
    """Milliseconds, seconds and per cent of the first value, up to and including the limit."""
    assert (shifted(act("x"), act("x", length=1000 + off), tolerance(text)) == ()) is same


@pytest.mark.parametrize("text", ["", "fast", "10", "-5ms", "10 %%", "1e3ms"])
def test_what_is_no_tolerance(shell, text):
    """Wrong usage, exit 2, with an example of how it is written."""
    done = shell.call("diff", "a", "b", f"--tolerance={text}")
    assert done.code == 2
    assert "150ms" in done.err


def test_latency_is_told_apart():
    """How late we were and how long the provider took are two figures."""
    waits = latency(Performance("a", (act("x", ours=3), act("y", ours=5, accepted=100, answered=50), act("z", answered=20))))
    assert (waits.ours_median, waits.ours_max) == (3, 5)
    assert (waits.provider_median, waits.provider_max) == (20, 150)


@given(st.text("ab ,.", max_size=20), st.text("ab ,.", max_size=20))
def test_marked_words_are_both_texts(a, b):
    """What stayed and went is the old text, what stayed and came the new one."""
    parts = words(a, b)
    assert "".join(text for kind, text in parts if kind != "come") == a
    assert "".join(text for kind, text in parts if kind != "gone") == b


def test_a_text_cannot_move_the_cursor():
    """What only a terminal understands is replaced in the words of a log; the marks' own colours stay."""
    shown = marked_words("hello", "hello \x1b]0;owned\x07\x1b[2J", colour=False)
    assert shown == "hello {+⟨U+001B⟩]0;owned⟨U+0007⟩⟨U+001B⟩[2J+}"
    assert "\x1b[" in marked_words("hello", "hello you", colour=True)


# --- the verb -------------------------------------------------------------------------------------------------------------


def two_runs(shell, *change: tuple[str, str]) -> None:
    text = HELLO
    for old, new in change:
        assert old in text
        text = text.replace(old, new)
    for name, content in (("one", HELLO), ("two", text)):
        shell.write(f"{name}.yaml", content)
        assert shell.call("run", f"{name}.yaml", "--clock", "virtual", "--quiet", "--out", name).code == 0


def test_equal_runs_are_the_same(shell):
    """Two runs of one playbook on the virtual clock are the same with a tolerance of nothing."""
    two_runs(shell)
    done = shell.call("diff", "one", "two", "--tolerance", "0ms")
    assert done.code == 0, done.out
    assert shell.call("diff", "one.yaml", "two/plan.json").code == 0
    assert json.loads(shell.call("diff", "one", "two", "--json").out)["same"] is True


def test_a_playbook_that_gained_a_step(shell):
    """Only the new line is told; what came later because of it is counted, not listed."""
    two_runs(shell, ("  - wait: 500ms", "  - say: Mind the step, please.\n  - wait: 500ms"))
    done = shell.call("diff", "one", "two")
    assert done.code == 1
    assert "added" in done.out
    assert "Mind the step, please." in done.out
    assert "moved with what came before" in done.out
    assert done.out.count("say-") == 1
    data = json.loads(shell.call("diff", "one", "two", "--json").out)
    assert data["verdicts"]["content"] is False
    assert data["verdicts"]["outcome"] is True
    assert [change["what"] for change in data["changes"] if change["verdict"] == "content"] == ["added"]


def test_plans_compare(shell):
    """Two playbooks, or plans, are compared in words, timing and settings."""
    two_runs(shell, ("friend", "stranger"), ("500ms", "1s"), ("id: hello", "id: hello\n    on_error: continue"))
    done = shell.call("diff", "one.yaml", "two.yaml", "--json")
    assert done.code == 1
    found = {(change["verdict"], change["what"]) for change in json.loads(done.out)["changes"]}
    assert {("content", "words"), ("timing", "wait"), ("settings", "on_error")} <= found
    assert "wait-2 wait 500ms 1s" in " ".join(shell.call("diff", "one.yaml", "two.yaml").out.split())
    done = shell.call("diff", "one", "two.yaml", "--json")  # of a run, its plan is compared with a plan
    found = json.loads(done.out)
    assert (done.code, found["a"]["name"], found["b"]["name"]) == (1, "one, its plan", "two.yaml")
    assert {("content", "words"), ("timing", "wait"), ("settings", "on_error")} <= {
        (each["verdict"], each["what"]) for each in found["changes"]
    }
    assert shell.call("diff", "two.yaml", "two").code == 0


def test_settings_are_compared_one_by_one(shell):
    """Of limits, expectations and the session, what changed is told by its name and as a person writes it, also what came or went."""
    text = "version: 1\nname: p\nprovider: local\nlimits: {max_duration: 1m}\n"
    text += "timeline:\n  - say: One two three.\n    expect: {heard: One two three.}\n"
    shell.write("one.yaml", text)
    shell.write(
        "two.yaml", text.replace("1m", "90s").replace("limits:", "session: {language: en-gb}\nlimits:").replace("heard: One", "heard: Two")
    )
    done = shell.call("diff", "one.yaml", "two.yaml", "--html", "page.html", "--json")
    assert done.code == 1
    changes = [(change["step"], change["what"], change["a"], change["b"]) for change in json.loads(done.out)["changes"]]
    assert ("say-1", "expect.heard", "One two three.", "Two two three.") in changes
    assert ("", "limits.max_duration_ms", 60_000, 90_000) in changes
    assert ("", "session.language", None, "en-gb") in changes
    shown = " ".join(shell.call("diff", "one.yaml", "two.yaml").out.split())
    assert "limits.max_duration_ms 1m 1m30s" in shown
    assert "session.language - en-gb" in shown
    assert "1m30s" in read_page(Path("page.html").read_text()).text


def test_a_planned_line_lasts_until_it_is_cut(shell):
    """In a plan, what an interrupt stops ends there: the lines of a timeline do not cover one another."""
    shell.write("cut.yaml")
    plan = compile_file(Path("cut.yaml"), World(Path("cache")))
    line, interrupt = of_plan(plan, "cut").acts[2:4]
    assert (line.verb, interrupt.verb) == ("say", "interrupt")
    assert line.times["length"] == 1_000
    assert interrupt.times["start"] == line.times["start"] + 1_000


def test_two_playbooks_are_said_to_be_two(shell):
    """Runs of playbooks of different names are compared, and said to be of two; runs of the same one are not."""
    two_runs(shell, ("name: hello", "name: other"))
    done = shell.call("diff", "one", "two", "--html", "page.html")
    assert done.code == 0
    assert "of two playbooks: hello and other" in done.out
    assert "They are of two playbooks" in "".join(read_page(Path("page.html").read_text()).text)
    assert "of two playbooks" not in shell.call("diff", "one", "one").out


def test_a_log_by_another_name(shell):
    """A log that somebody called `.json` is a log; a plan is one by what is in it."""
    two_runs(shell)
    Path("kept.json").write_bytes(Path("one/run.jsonl").read_bytes())
    assert shell.call("diff", "kept.json", "two").code == 0
    done = shell.call("diff", "kept.json", "two/plan.json")
    assert done.code == 2
    assert "there is no plan.json beside kept.json" in done.err


def test_nothing_in_common(shell):
    """Two runs of which no step is in both are said to have nothing in common."""
    shell.write("a.yaml", "version: 1\nprovider: local\ntimeline: [{say: One two three., id: a}, {end: {drain: false}, id: x}]\n")
    shell.write(
        "b.yaml", "version: 1\nprovider: local\ntimeline: [{audio-echo: {base64: AAAAAAAA, sample_rate: 8000, format: pcm16}, id: b}]\n"
    )
    for name in ("a", "b"):
        shell.call("run", f"{name}.yaml", "--clock", "virtual", "--quiet", "--out", name)
    acts = of_log(read_log(Path("a")), "a"), of_log(read_log(Path("b")), "b")
    only_lines = [replace(performance, acts=tuple(act for act in performance.acts if act.speaks)) for performance in acts]
    comparison = compare(*only_lines, Tolerance())
    assert comparison.common == 0
    assert "nothing in common" in comparison_page(comparison, "150ms")
    assert shell.call("diff", "a", "b").code == 1


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda log: log[:-20], "is cut off or damaged"),
        (lambda log: re.sub(rb'("n":14,"at_ms":)', rb"\g<1>-", log), "b is damaged: line 15: time goes back"),
    ],
)
def test_a_damaged_run_is_never_the_same(shell, harm, told):
    """A run whose log was cut off, or in which time goes back, differs and is said to be damaged."""
    two_runs(shell)
    log = Path("two/run.jsonl")
    log.write_bytes(harm(log.read_bytes()))
    done = shell.call("diff", "one", "two")
    assert done.code == 1
    assert "b is damaged" in done.out
    assert told in done.out


# --- the page -------------------------------------------------------------------------------------------------------------


class _Reader(html.parser.HTMLParser):
    """Collects what a browser would: elements, attributes, text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data") or name.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


def read_page(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader


HOSTILE = "<script>alert(1)</script> \"quoted\" 'single' &amp; </style><img src=x onerror=alert(2)> \x00\x1b[31m \u2028"


def test_the_page_needs_nothing_and_escapes_everything():
    """One file without script, link or address; text from a playbook stays text, wherever it stands."""
    times = {"start": 0, "length": 1000}
    a = Performance(
        HOSTILE, (Act(HOSTILE, "say", HOSTILE, {"evidence": HOSTILE}, times), Act("gone", "say", HOSTILE, {}, times)), damage=HOSTILE
    )
    b = Performance("b", (Act(HOSTILE, "say", "other", {"evidence": "x"}, times | {"start": 900}),))
    page = comparison_page(compare(a, b, Tolerance()), HOSTILE)
    reader = read_page(page)
    assert set(reader.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "span"),
        *("table", "tr", "th", "td", "code", "b", "del", "ins"),
    }
    assert reader.links == []
    assert "http" not in page.replace("http-equiv", "")
    assert "<script>alert(1)</script>" in "".join(reader.text)
    assert "\x00" not in page
    assert "\x1b" not in page


def test_the_page_on_a_narrow_screen(shell):
    """There the headers are hidden and each cell is a row of its own: times before and after say which they are, and words end with `…`."""
    two_runs(shell, ("500ms", "1s"))
    shell.call("diff", "one", "two", "--html", "page.html")
    page = lxml.html.parse("page.html")
    for table in page.iter("table"):
        first, *rows = table.iter("tr")
        assert (first.get("class"), [cell.tag for row in rows for cell in row if cell.tag != "td"]) == ("head", [])
        figures = [cell for row in rows for cell in row if cell.get("class") == "n"]
        assert figures
        assert all(cell.get("data-of") for cell in figures)
    style = page.findtext(".//style")
    assert "@media (max-width: 45rem)" in style
    assert "text-overflow: ellipsis" in style


def test_diff_writes_the_page(shell):
    """Both timelines are on it, one above the other, with the words; a place that cannot be written is told before anything is read."""
    two_runs(shell, ("Welcome", "Good morning"))
    done = shell.call("diff", "one", "two", "--html", "page.html")
    assert done.code == 1
    reader = read_page(Path("page.html").read_text())
    assert reader.text.count("one") >= 2
    assert {"del", "ins"} <= set(reader.tags)
    done = shell.call("diff", "one", "two", "--html", "no/such/folder/page.html")
    assert done.code == 2
    assert "cannot be written" in done.err
