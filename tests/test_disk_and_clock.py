"""A machine that fails: a disk that is full at any moment, folders that vanish, a wall clock that leaps, a process that sleeps."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from playbook import clock
from playbook.clock import wall_time
from playbook.errors import SetupError
from playbook.journal.journal import Journal
from playbook.perform.performance import Options, Outcome, Runner
from playbook.transports.http import Answer, Http, Request, Retry
from tests.contract import STANDS, compile_on, perform, write_playbook
from tests.logs import ROOT, checked, closings, of

LINES = "  - say: The first line.\n    id: one\n  - say: The second line.\n    id: two\n  - say: The third line.\n    id: three\n"

FULL = """
import json, resource, sys
from pathlib import Path
from playbook import clock
from playbook.errors import SetupError
from tests.contract import STANDS, compile_on, perform

name, file, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
plan = compile_on(file)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

async def show(limit):
    out = folder / str(limit)
    async with STANDS[name]() as stand:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            code = (await perform(stand, plan, out)).result.exit_code
        except SetupError as error:
            code = error.exit_code
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        log = (out / "run" / "run.jsonl").read_text() if (out / "run" / "run.jsonl").exists() else ""
        said = [line.text for session in stand.emulator.sessions.values() for line in session.queue.lines]
        return {
            "limit": limit,
            "code": code,
            "open": len(stand.emulator.open_sessions),
            "created": len(stand.emulator.sessions),
            "not logged": [text for text in said if json.dumps(text) not in log],
        }

for limit in map(int, sys.argv[4:]):
    print(json.dumps(clock.run(show(limit), "virtual")), flush=True)
"""
"""Performs a show again and again, each time on a disk that takes so many bytes of every file and no more."""


@pytest.mark.parametrize("name", ["kaltura", "avaturn", "tavus"])
def test_a_disk_that_is_full_at_any_moment(name: str, tmp_path: Path):
    """Wherever it strikes (plan, journal, viewer's file, log, captions): exit 4, nothing open, nothing said that is not in the log."""

    async def write() -> Path:
        async with STANDS[name]() as stand:
            return write_playbook(tmp_path, stand, LINES)

    file = clock.run(write(), "virtual")
    limits = [*range(0, 6_000, 400), 100_000]
    done = subprocess.run(
        [sys.executable, "-c", FULL, name, str(file), str(tmp_path), *map(str, limits)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["open"] for result in results] == [0] * len(limits)
    assert {result["code"] for result in results} == {0, 4}
    assert [result["not logged"] for result in results] == [[]] * len(limits)
    assert (results[0]["code"], results[0]["created"]) == (4, 0)
    assert results[-1]["code"] == 0
    assert any(result["code"] == 4 and result["created"] for result in results), "it also struck while a session was open"
    assert len(checked(tmp_path / "100000" / "run")) > 20


def performed(folder: Path, name: str = "kaltura", watch: Any = None) -> tuple[Outcome, list[dict[str, Any]]]:
    """The three lines on a stand, and the emulator's journal."""

    async def main() -> tuple[Outcome, list[dict[str, Any]]]:
        async with STANDS[name]() as stand:
            outcome = await perform(stand, compile_on(write_playbook(folder, stand, LINES)), folder, watch=watch)
            assert stand.emulator is not None
            assert stand.emulator.open_sessions == ()
            return outcome, stand.emulator.journal

    return clock.run(main(), "virtual")


def at_step_two(do: Any) -> Any:
    return lambda line: do() if line.get("note") == "step_started" and line["step"] == "two" else None


def test_a_log_that_is_deleted_during_the_run_is_there_afterwards(tmp_path: Path):
    """Somebody tidies up: the show goes on, and the log is written anew, complete."""
    outcome, _ = performed(tmp_path, watch=at_step_two(lambda: (tmp_path / "run" / "run.jsonl").unlink()))
    assert outcome.result.exit_code == 0
    assert list(closings(checked(outcome.folder))) == ["one", "two", "three"]


@pytest.mark.parametrize("how", ["emptied", "halved", "rubbish"])
def test_a_log_that_is_damaged_during_the_run(how: str, tmp_path: Path):
    """Somebody rotates or bends it: the show is said to its end, and exit 4 says that there is no proof of it."""
    path = tmp_path / "run" / "run.jsonl"

    def damage() -> None:
        data = path.read_bytes()
        path.write_bytes({"emptied": b"", "halved": data[: len(data) // 2], "rubbish": b"x" * 40 + data[40:]}[how])

    outcome, said = performed(tmp_path, watch=at_step_two(damage))
    assert (outcome.result.exit_code, outcome.result.reason) == (4, "disk: the run log was damaged during the run")
    assert sum(entry["what"] == "speech_started" for entry in said) == 3


@pytest.mark.parametrize("what", ["pipe", "link"])
def test_a_log_in_whose_place_something_else_is(what: str, tmp_path: Path):
    """It is left alone: nobody waits for a pipe's reader, and what a link leads to is not overwritten."""
    path, other = tmp_path / "run" / "run.jsonl", tmp_path / "other"
    other.write_text("mine")

    def replaced() -> None:
        path.unlink()
        os.mkfifo(path) if what == "pipe" else path.symlink_to(other)

    outcome, _ = performed(tmp_path, watch=at_step_two(replaced))
    assert outcome.result.exit_code == 0
    assert other.read_text() == "mine"


def test_a_run_folder_that_is_deleted_during_the_run(tmp_path: Path):
    """The show is said to its end and the session closed; that nothing is left to prove it is exit 4."""
    outcome, said = performed(tmp_path, watch=at_step_two(lambda: shutil.rmtree(tmp_path / "run")))
    assert (outcome.result.end, outcome.result.exit_code) == ("error", 4)
    assert str(tmp_path / "run") in (outcome.result.reason or "")
    assert sum(entry["what"] == "speech_started" for entry in said) == 3
    assert Journal(tmp_path / "state").open_sessions() == []


@pytest.mark.parametrize("what", ["run", "state"])
def test_a_folder_that_cannot_be_written_opens_no_session(what: str, tmp_path: Path):
    """A run folder or a journal in a place where nobody may write (also not root): nothing is created."""

    async def main() -> None:
        async with STANDS["kaltura"]() as stand:
            plan = compile_on(write_playbook(tmp_path, stand, LINES))
            folders = {"run": tmp_path / "run", "state": tmp_path / "state", what: Path("/proc/playbook")}
            runner = Runner(plan, Options(folder=folders["run"], env=stand.env, state_dir=folders["state"], provider=stand.provider))
            if what == "run":
                with pytest.raises(SetupError, match="cannot be made"):
                    await runner.run()
            else:
                outcome = await runner.run()
                assert outcome.result.exit_code == 4
                assert "journal" in (outcome.result.reason or "")
            assert stand.emulator is not None
            assert not stand.emulator.sessions

    clock.run(main(), "virtual")


# --- the wall clock -----------------------------------------------------------------------------------------------------


def test_a_wall_clock_that_leaps_changes_nothing_but_dates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is set an hour back, then a day forward, at every look: below the header the log is the same, byte by byte."""
    plain, _ = performed(tmp_path / "plain")
    leaps = itertools.cycle([-3_600, 86_400, -90_000])

    def leaping() -> datetime.datetime:
        return wall_time() + datetime.timedelta(seconds=next(leaps))

    for user in ("playbook.perform.folder.wall_time", "playbook.journal.journal.wall_time", "playbook.transports.http.wall_time"):
        monkeypatch.setattr(user, leaping)
    leapt, _ = performed(tmp_path / "leapt")
    assert leapt.result.exit_code == 0
    first, second = ((outcome.folder / "run.jsonl").read_bytes().partition(b"\n") for outcome in (plain, leapt))
    assert first[2] == second[2]
    assert first[0] != second[0]
    assert Journal(tmp_path / "leapt" / "state").open_sessions() == []


def test_retry_after_is_counted_on_the_services_own_clock():
    """A date in `Retry-After` means nothing on a machine whose clock is wrong; beside the answer's own `Date` it is 2 s."""
    answers = iter(
        [Answer(429, {"retry-after": "Sat, 03 Jan 2015 10:00:02 GMT", "date": "Sat, 03 Jan 2015 10:00:00 GMT"}, b""), Answer(200, {}, b"")]
    )

    async def main() -> int:
        async def send(_: Request) -> Answer:
            return next(answers)

        async with Http("http://127.0.0.1:9").wrap(lambda _: send) as http:
            watch = clock.Clock()
            await http.request("POST", "/", retry=Retry.UNSENT)
            return watch.now_ms()

    assert clock.run(main(), "virtual") == 2_000


# --- a process that sleeps ----------------------------------------------------------------------------------------------

SLEEPY = """\
version: 1
provider: local
timeline:
  - say: One.
    at: 100ms
    id: one
  - say: Two.
    at: 400ms
    id: two
  - say: Three.
    at: 600ms
    id: three
  - say: Four.
    at: 2200ms
    id: four
"""


def test_a_process_that_was_suspended_wakes_up_late_and_in_order(shell):
    """Stopped from the first line until after the third was due: both come in order, late by what the log says, one after the other; the
    fourth is on time."""
    shell.write("sleepy.yaml", SLEEPY)
    process = shell.start("run", "sleepy.yaml", "--out", "here")
    shell.until(process, "  one  ")
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.7)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    lines = checked(shell.folder / "here")
    late = {line["step"]: line["late_ms"] for line in of(lines, "note", "late") if line.get("step")}
    assert late["two"] >= 250
    assert late["three"] > 0
    assert "four" not in late
    spans = [(started["at_ms"], closings(lines)[started["task"]]["at_ms"]) for started in of(lines, "event", "speech_started")]
    assert [line["task"] for line in of(lines, "event", "speech_started")] == ["one", "two", "three", "four"]
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)), "nothing is said at the same time"


def test_the_emulated_vendor_is_not_flooded_after_a_sleep(tmp_path: Path):
    """On the clock: cues of a minute come due at once, and each line is sent only when the one before it has ended."""

    async def main() -> None:
        async with STANDS["kaltura"]() as stand:
            timeline = "".join(f"  - say: Line {n}.\n    id: line-{n}\n    at: {n}s\n" for n in range(1, 6))
            plan = compile_on(write_playbook(tmp_path, stand, timeline))
            loop = clock.asyncio.get_running_loop()

            def sleep(line: dict[str, Any]) -> None:
                if line.get("note") == "timeline_zero":
                    loop.call_later(0.5, loop.jump, 60)  # type: ignore[attr-defined]  # the virtual loop's

            outcome = await perform(stand, plan, tmp_path, watch=sleep)
            assert outcome.result.exit_code == 0
            lines = checked(outcome.folder)
            sent = {line["task"]: line["at_ms"] for line in of(lines, "command", "say")}
            over = {task: line["at_ms"] for task, line in closings(lines).items()}
            assert list(sent) == [f"line-{n}" for n in range(1, 6)]
            assert all(over[a] <= sent[b] for a, b in itertools.pairwise(sent))
            assert min(line["late_ms"] for line in of(lines, "note", "late")) > 50_000

    clock.run(main(), "virtual")
