"""Replay: recorded runs through today's engine, and engines that were broken on purpose."""

from __future__ import annotations

import json
import sys
import tracemalloc
import types
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbook.engine import Engine, Result, cursor, ears, effects, engine, ledger, reckoning, utterances
from playbook.engine import show as running
from playbook.errors import RecordError
from playbook.events import SpeechStarted
from playbook.language import plan_from_json
from playbook.model import Capabilities, Chunk, InterruptSpeech, Say, Step, Wait
from playbook.record.performance import of_log
from playbook.record.replay import replay
from playbook.record.runlog import MAX_LINE, read_log, to_line
from playbook.report import run_report

from .logs import ROOT, checked
from .scripts import FakeProvider, do, drive, plan, say, sound
from .test_runlog import written
from .trials.huge_log import header, kiosk, one_line, other_lines, rubbish, write_log

GOLDEN = ROOT / "tests" / "golden" / "logs"
REJECTED = ROOT / "tests" / "golden" / "logs-rejected"


def cases(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def recorded_plan(folder: Path):
    return plan_from_json(json.loads((folder / "plan.json").read_bytes()))


# --- the committed logs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases(GOLDEN))
def test_golden_logs_are_replayed(name, shell, update_golden, monkeypatch):
    """Every committed log still follows from today's engine, command by command; with --update-golden it is recorded anew."""
    folder = GOLDEN / name
    if update_golden:
        monkeypatch.chdir(folder)
        how = (folder / "how.txt").read_text().split()
        shell.call("run", "playbook.yaml", "--clock", "virtual", "--quiet", "--out", str(shell.folder / "out"), *how)
        for file in ("run.jsonl", "plan.json"):
            (folder / file).write_bytes((shell.folder / "out" / file).read_bytes())
    checked(folder)
    result = replay(read_log(folder), recorded_plan(folder))
    assert result.divergence is None
    assert result.identical
    assert result.events > 0


@pytest.mark.parametrize("name", cases(REJECTED))
def test_rejected_logs_are_rejected(name):
    """A log that no engine of ours can have written is refused, at the line and for the reason that stand beside it."""
    folder = REJECTED / name
    expected = json.loads((folder / "expected.json").read_bytes())
    found = replay(read_log(folder), recorded_plan(folder)).divergence
    assert found is not None
    assert (found.line, found.step) == (expected["line"], expected["step"])
    assert [line.get("command") or line.get("note") for line in found.missing] == expected["missing"]
    assert found.extra == ()


# --- engines broken on purpose --------------------------------------------------------------------------------------------

MUTATIONS = {
    "a wait is a millisecond longer": ("due = cursor.due_ms + action.duration_ms", "due = cursor.due_ms + action.duration_ms + 1"),
    "a skipped step is performed": ("if step.skipped is None:", "if True:"),
    "a skipped step is not told": ("effects.add(StepSkipped(step.id, step.skipped))", "pass"),
    "a step's beginning is not told": ("self._effects.add(StepStarted(step.id))", "pass"),
    "a late cue is not told": ("effects.add(Late(step.id, due, effects.now_ms - due))", "pass"),
    "cues count from the beginning of the run": ("due = self._origin_ms + step.at_ms", "due = step.at_ms"),
    "a chunk is final that is not": ("final = utterance.sent == len(action.chunks)", "final = True"),
    "pauses between chunks are lost": (
        "utterance.next_ms = self._effects.now_ms + utterance.step.action.chunks[utterance.sent].after_ms",
        "utterance.next_ms = 0",
    ),
    "no time-out for speech": ("effects.start(step.id, Timer.EVENT, cursor.due_ms + action.timeout_ms)", "pass"),
    "a time-out is always accepted": ('if step.action.on_timeout == "continue":', "if True:"),
    "errors are always accepted": ('if step.on_error == "fail" and self._life.phase == "running":', "if False:"),
    "an interrupt stops nothing": ("utterance.stopping = True", "utterance.stopping = False"),
    "an interrupt is not sent": ("self._effects.add(StopSpeaking(step.id if step is not None else None, task))", "pass"),
    "the session is not closed": ("self._effects.add(CloseSession(reason))", "pass"),
    "the session is closed twice": (
        "self._effects.add(CloseSession(reason))",
        "[self._effects.add(CloseSession(reason)) for _ in range(2)]",
    ),
    "timers are not cancelled": ("self.add(CancelTimer(step, timer))", "pass"),
    "timeline zero is not told": ("self._effects.add(TimelineZero())", "pass"),
    "the show begins at once": ('elif start.kind == "delay" and start.delay_ms > 0:', "elif False:"),
    "lines are closed as time-outs": (
        "self._lines.settle(utterance, Evidence.estimated, basis)",
        "self._lines.settle(utterance, Evidence.timeout, basis)",
    ),
    "started means accepted": ('if step.until == "started":', 'if step.until == "ended":'),
    "any trigger will do": ("if event.trigger != self.awaits:", "if self.awaits is None:"),
    "nothing is heard of what was cut": ("heard_ms = 0 if started_ms is None else", "heard_ms = 0 if True else"),
    "a lost session is a failed step": ('self.conclude("error", 4, event.reason)', 'self.conclude("failed", 1, event.reason)'),
    "a stall is a success": ('StopCause.STALL: ("failed", "failed", 1)', 'StopCause.STALL: ("failed", "passed", 0)'),
    "waiting for speech waits for nothing": ("return not self.lines.open and self.leave", "return self.leave"),
    "the end does not wait": ("elif not self.lines.open:", "elif True:"),
    "a limit is forgotten": ("if (limit := session_limit_ms(self.plan)) is not None:", "if (limit := None) is not None:"),
    "a report that comes too late closes again": (
        "if utterance.task not in self._lines.open:",
        "if False:",
    ),
    "silence is waited out without a margin": ("+ margin_ms", "+ 0"),
    "the engine raises": ("self.zero_ms = self._origin_ms = self.due_ms = due_ms", "raise ValueError('broken')"),
}


def mutant(old: str, new: str) -> type[Engine]:
    """The engine with one of its lines changed: its files anew, as modules that only the result knows."""
    real = (effects, cursor, utterances, ears, reckoning, ledger, running, engine)
    sources = {module.__name__: Path(module.__file__).read_text("utf-8") for module in real}
    assert any(old in source for source in sources.values()), "the engine no longer has this line: choose another mutation of the same kind"
    changed = {name: types.ModuleType(name) for name in sources}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in changed.items():
            patch.setitem(sys.modules, name, module)
            exec(compile(sources[name].replace(old, new), "mutant", "exec"), module.__dict__)
    return changed[engine.__name__].Engine


@pytest.mark.parametrize("what", MUTATIONS)
def test_broken_engines_are_caught(what):
    """An engine with one small fault diverges from at least one committed log."""
    broken = mutant(*MUTATIONS[what])
    plans = {name: recorded_plan(GOLDEN / name) for name in cases(GOLDEN)}
    assert any(replay(read_log(GOLDEN / name), plan, broken(plan)).divergence for name, plan in plans.items())


def test_an_unbroken_copy_is_not_caught():
    """The way in which the mutants are made breaks nothing by itself."""
    same = mutant("self.now_ms = at_ms", "self.now_ms = at_ms")
    for name in cases(GOLDEN):
        assert replay(read_log(GOLDEN / name), recorded_plan(GOLDEN / name), same(recorded_plan(GOLDEN / name))).identical


# --- whatever runs, replays -----------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.builds(lambda until, ms: ("say", until, ms), st.sampled_from(["ended", "accepted", "started", 300]), st.integers(1, 3000)),
        st.builds(lambda ms: ("wait", ms, 0), st.integers(0, 2000)),
        st.just(("interrupt", 0, 0)),
        st.builds(lambda ms: ("sound", "ended", ms), st.integers(1, 2000)),
    ),
    min_size=1,
    max_size=8,
)


def built(steps) -> list[Step]:
    make = {
        "say": lambda i, until, ms: say(f"s{i}", until=until, ms=ms),
        "wait": lambda i, ms, _: do(f"s{i}", Wait(ms)),
        "interrupt": lambda i, *_: do(f"s{i}", InterruptSpeech()),
        "sound": lambda i, until, ms: sound(f"s{i}", ms, until=until),
    }
    return [make[kind](i, a, b) for i, (kind, a, b) in enumerate(steps)]


@given(STEPS, st.sampled_from(["reported", "none", "exact"]), st.sampled_from(["all", "current", "unknown"]))
def test_whatever_runs_replays(tmp_path_factory, steps, speech, scope):
    """A log of any plan on any kind of provider is replayed to the same commands."""
    show = plan(*built(steps), can=Capabilities(speech=speech, interrupt=scope))
    provider = FakeProvider(reports=speech != "none")
    story = drive(show, provider)
    path = written(tmp_path_factory.mktemp("run") / "run.jsonl", story, provider.engine.result.end)
    result = replay(read_log(path), show)
    assert result.divergence is None
    assert result.identical


@given(STEPS, st.data())
def test_a_changed_effect_is_found_where_it_is(tmp_path_factory, steps, data):
    """When one recorded command or note is dropped, the divergence is at its place and names it as extra."""
    show = plan(*built(steps))
    story = drive(show)
    lines = [to_line(item, n, ms) for n, (ms, item) in enumerate(story, 1)]
    effects = [i for i, line in enumerate(lines) if "event" not in line and i > 0]
    dropped = data.draw(st.sampled_from(effects))
    path = tmp_path_factory.mktemp("run") / "run.jsonl"
    written(path, story[:dropped] + story[dropped + 1 :], "passed")
    found = replay(read_log(path), show).divergence
    assert found is not None
    assert found.line <= dropped + 2
    gone = {key: value for key, value in lines[dropped].items() if key not in ("n", "at_ms")}
    assert gone in found.extra


def test_what_was_hidden_does_not_diverge(tmp_path):
    """Where the log or the plan shows `***`, any text may have stood, also in what the vendor said of a secret line."""
    secret = Step("told", Say((Chunk("The code is 47 11.", shown="The code is ***."),)))
    masked = Step("told", Say((Chunk("The code is ***.", shown="The code is ***."),)))
    for words, conflicts in (("The code is 4711!", False), ("Something else 47 11.", True)):
        provider = FakeProvider()
        true_plan = plan(secret)
        story = drive(true_plan, provider, inject=[(10, SpeechStarted("told", text=words))])
        assert any("other words" in str(item) for _, item in story) is conflicts
        path = written(tmp_path / f"{conflicts}.jsonl", story, redact=lambda text: text.replace("47 11", "***"))
        for show in (true_plan, plan(masked)):
            result = replay(read_log(path), show)
            assert result.divergence is None, (words, show)


# --- bad logs -----------------------------------------------------------------------------------------------------------


def hello() -> tuple[bytes, object]:
    return (GOLDEN / "hello" / "run.jsonl").read_bytes(), recorded_plan(GOLDEN / "hello")


def test_a_log_is_read_as_far_as_it_goes(tmp_path):
    """Cut off anywhere, even in the middle of a line, a log is replayed up to there, and is never called identical."""
    whole, show = hello()
    path = tmp_path / "run.jsonl"
    header = whole.index(b"\n") + 1
    for length in [*range(header, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        result = replay(read_log(path), show)
        assert result.divergence is None
        assert not result.identical
        assert result.damage
        assert result.lines == whole[header:length].count(b"\n")


@pytest.mark.parametrize(
    ("change", "damage"),
    [
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "should be number 1"),
        (lambda lines: [*lines[:5], "garbage", *lines[5:]], "cut off or damaged"),
        (lambda lines: [*lines, lines[-1]], "more after the last line"),
        (lambda lines: [*lines[:-2], lines[-2].replace('"at_ms":', '"at_ms":-'), lines[-1]], "time goes back"),
        (lambda lines: [*lines[:4], lines[4].replace('"at_ms"', '"when"'), *lines[5:]], "line 5 has no time"),
    ],
)
def test_damage_is_told(tmp_path, change, damage):
    """Lines out of order, garbage between lines, more after the end, and time that goes back are told with their line."""
    whole, show = hello()
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join(change(whole.decode().splitlines())) + "\n")
    result = replay(read_log(path), show)
    assert not result.identical
    assert result.damage is not None
    assert damage in result.damage


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty"),
        (b"not a log\n", "is not a run log"),
        (b'{"version": 1}\n', "is not a run log"),
        (b'{"runlog": 99}\n', "of version 99"),
        (b"\x00\xff\xfe\n", "is not a run log"),
        (b"[" * 100_000 + b"\n", "is not a run log"),
    ],
)
def test_what_is_no_log_is_refused(shell, text, message):
    """An empty file, another file and a log of a newer version are refused with their reason, exit 2."""
    Path("run.jsonl").write_bytes(text)
    done = shell.call("replay", "run.jsonl")
    assert done.code == 2
    assert message in done.err


@pytest.mark.parametrize(
    "line",
    [
        {"event": "timer_fired", "step": "wait-2", "reason": "wait", "due_ms": "soon"},
        {"event": "task_accepted"},
        {"event": "speech_ended", "task": 7, "evidence": "reported"},
        {"event": "speech_ended", "task": "hello", "evidence": "guessed"},
        {"event": "session_opened", "session": ["s"]},
    ],
)
def test_events_that_are_none_are_refused(tmp_path, line):
    """An event with a missing or a nonsensical field is named, and is no bug of ours."""
    whole, show = hello()
    lines = whole.decode().splitlines()[:4]
    last = json.loads(lines[-1])
    path = tmp_path / "run.jsonl"
    path.write_text("\n".join([*lines, json.dumps({"n": last["n"] + 1, "at_ms": last["at_ms"], **line})]) + "\n")
    with pytest.raises(RecordError, match="line 4: not a"):
        replay(read_log(path), show)


# --- the verb -------------------------------------------------------------------------------------------------------------


def run_hello(shell, *more: str) -> str:
    shell.write("hello.yaml")
    assert shell.call("run", "hello.yaml", "--clock", "virtual", "--quiet", "--out", "one", *more).code == 0
    return "one"


def test_replay_of_a_run(shell):
    """A run just made is identical, is told with its lines, and the same as JSON."""
    run_hello(shell)
    done = shell.call("replay", "one")
    assert done.code == 0, done.err
    assert "Welcome, friend." in done.out
    assert done.out.startswith("identical: ")  # the verdict comes first, and what is below is said to be the recorded run
    assert done.out.index("the run, as it was recorded") < done.out.index("passed")
    data = json.loads(shell.call("replay", "one/run.jsonl", "--json").out)
    assert data["identical"] is True
    assert data["plan"] == {"compared": True, "same": True, "changes": []}
    assert data["summary"]["utterances"][0]["evidence"] == "reported"


def test_a_run_that_was_refused_is_replayed(shell):
    """A key was missing: the log is a header and an end, and nothing else follows from it today."""
    shell.write("show.yaml", "version: 1\nprovider: avaturn\nstart: 0s\ntimeline:\n  - say: Hello.\n")
    assert shell.call("run", "show.yaml", "--out", "one").code == 4
    assert len(checked(shell.folder / "one")) == 2
    done = shell.call("replay", "one")
    assert (done.code, done.out.splitlines()[0]) == (0, "identical: 1 line, 0 events")


def test_replay_shows_a_changed_plan(shell):
    """When the playbook was changed since, replay says which words and steps, exit 1, though the engine still does the same."""
    run_hello(shell)
    path = Path("hello.yaml")
    path.write_text(path.read_text().replace("Welcome,", "Good morning,").replace("500ms", "700ms"))
    done = shell.call("replay", "one")
    assert done.code == 1
    assert "identical" in done.out
    assert "[-Welcome,-]{+Good morning,+}" in done.out
    assert "wait: 500ms → 700ms" in done.out
    done = shell.call("replay", "one", "--json")
    assert {change["what"] for change in json.loads(done.out)["plan"]["changes"]} == {"words", "wait"}


def test_replay_without_the_playbook_or_the_plan(shell):
    """Without the playbook the recorded plan is enough; without both there is nothing to replay; the playbook can stand for the plan."""
    run_hello(shell)
    Path("hello.yaml").rename("elsewhere.yaml")
    done = shell.call("replay", "one")
    assert done.code == 0
    assert "hello.yaml is not here" in done.err
    Path("one/plan.json").unlink()
    assert shell.call("replay", "one").code == 2
    assert shell.call("replay", "one", "--playbook", "elsewhere.yaml").code == 0


def test_replay_of_another_playbook(shell):
    """A log is not replayed with the plan of another playbook, and a plan.json of another run is found out."""
    run_hello(shell)
    shell.write("other.yaml", "version: 1\nname: other\nprovider: local\ntimeline:\n  - say: Something else.\n")
    assert shell.call("run", "other.yaml", "--clock", "virtual", "--quiet", "--out", "two").code == 0
    other_plan = Path("two/plan.json").read_bytes()
    Path("one/plan.json").write_bytes(other_plan)
    done = shell.call("replay", "one")
    assert done.code == 2
    assert "different plans" in done.err
    assert shell.call("run", "hello.yaml", "--clock", "virtual", "--quiet", "--out", "three").code == 0
    done = shell.call("replay", "three", "--playbook", "other.yaml")
    assert done.code == 1
    assert "it is of another playbook: 'other', and the log is of 'hello'" in done.out
    Path("one/plan.json").unlink()
    done = shell.call("replay", "one", "--playbook", "other.yaml")
    assert done.code == 2
    assert "is a log of 'hello', not of 'other'" in done.err


def test_a_divergence_is_told(shell):
    """Exit 1, with the log's line, the step, what was recorded and what happens now."""
    run_hello(shell)
    log = Path("one/run.jsonl")
    log.write_text(log.read_text().replace('"text":"Welcome, friend."', '"text":"Welcome, fiend."'))
    done = shell.call("replay", "one")
    assert done.code == 1
    assert done.out.startswith("diverged at line ")
    assert "step 'hello'" in done.out.split("\n")[0]
    assert done.out.index("diverged") < done.out.index("the run, as it was recorded") < done.out.index("passed")
    assert done.out.count("text='Welcome, fiend.'") == done.out.count("text='Welcome, friend.'") == 1
    found = json.loads(shell.call("replay", "one", "--json").out)["divergence"]
    assert found["recorded"]["text"] == "Welcome, fiend."
    assert found["now"]["text"] == "Welcome, friend."


def test_a_secret_run_replays(shell):
    """A run with a secret replays from what lies in its folder, and with its values also against the playbook; no output has it."""
    text = (GOLDEN / "secret" / "playbook.yaml").read_text()
    shell.write("secret.yaml", text)
    shell.call("run", "secret.yaml", "--clock", "virtual", "--quiet", "--out", "one", "--var", "code=0815-XYZ")
    for more in ((), ("--var", "code=0815-XYZ")):
        done = shell.call("replay", "one", *more)
        assert done.code == 0, done.out
        assert "0815" not in done.out + done.err
    done = shell.call("replay", "one", "--var", "code=other-value")
    assert done.code == 1
    assert "other-value" not in done.out + done.err


def test_memory_does_not_grow_with_the_log(tmp_path):
    """Twice the lines take no more memory, whoever reads them: a log of gigabytes is read like one of kilobytes."""
    show = kiosk(tmp_path)
    other = replace(show, steps=show.steps[1:])
    readers = (lambda log: replay(log, show), lambda log: replay(log, other), lambda log: of_log(log, "x"))
    peaks = []
    for size in (250_000, 500_000):
        path = tmp_path / f"{size}.jsonl"
        lines = write_log(path, show, size)
        for reader in readers:
            tracemalloc.start()
            result = reader(read_log(path))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            if reader is readers[0]:
                assert result.identical
                assert result.lines == lines
                assert result.summary.counts()["conflicts"] > size // 2_000
                assert "more conflicts, which the log has" in run_report(Result("passed", 0), result.summary)
    assert all(large < little + 20_000 for little, large in zip(peaks[:3], peaks[3:], strict=True)), peaks


@pytest.mark.parametrize(
    ("write", "told"), [(one_line, "cut off or damaged"), (rubbish, "cut off or damaged"), (other_lines, "before its last")]
)
@pytest.mark.parametrize("headed", [True, False])
def test_rubbish_takes_little_memory(tmp_path, write, told, headed):
    """A file that is one endless line, all bytes there are, or lines without a meaning is read no farther than it has to be."""
    show, path = kiosk(tmp_path), tmp_path / "run.jsonl"
    write(path, header(show) if headed else b"", 3 * MAX_LINE if write is one_line else 500_000)
    tracemalloc.start()
    if headed:
        result = replay(read_log(path), show)
        assert not result.identical
        assert told in str(result.damage)
    else:
        with pytest.raises(RecordError, match="is not a run log"):
            read_log(path)
    assert tracemalloc.get_traced_memory()[1] < 2.5 * MAX_LINE
    tracemalloc.stop()
