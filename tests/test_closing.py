"""Closing is certain: whatever stops a run, at whatever moment, its session is ended, or the user is told how to end it."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from playbook import clock
from playbook.clock import Clock
from playbook.emulators.base import Emulator
from playbook.emulators.faults import Injection
from playbook.errors import SetupError
from playbook.events import PlayAudio, SayText, StopSpeaking, TaskAccepted
from playbook.journal.journal import Journal
from playbook.model import Capabilities
from playbook.perform.performance import Options, Outcome, Runner
from playbook.providers.base import Context
from playbook.providers.queued import QueuedSession
from tests.contract import STANDS, Stand, compile_on, write_playbook
from tests.logs import checked, closings, of
from tests.scripts import plan, say
from tests.served import asked, playbook_for, serving

EMULATED = [name for name in STANDS if name not in ("local", "tavus-microphone")]
CREATES = {
    "kaltura": "*/create",
    "avaturn": "*/sessions",
    "avaturn-external": "*/sessions",
    "tavus": "*/conversations",
    "tavus-rest": "*/conversations",
}
LONG = "  - say: This sentence goes on and on, so that whoever wants to stop it before it has come to its end has all the time for it.\n"


def show(stand: Stand, folder: Path, timeline: str = LONG, **options: Any) -> Runner:
    """A runner for a show on a stand, not yet begun."""
    built = compile_on(write_playbook(folder, stand, timeline))
    settings = Options(
        folder=folder / "run", env=stand.env, state_dir=folder / "state", provider=stand.provider, transports=stand.transports(), **options
    )
    return Runner(built, settings)


def later(ms: int, do: Callable[[], object]) -> None:
    clock = Clock()
    clock.call_at(clock.now_ms() + ms, do)


def left(stand: Stand, folder: Path) -> tuple[int, list[str | None]]:
    """What is open: by the emulator's own count, and by the journal."""
    assert stand.emulator is not None
    return len(stand.emulator.open_sessions), [record.session for record in Journal(folder / "state").open_sessions()]


# --- while it is being created ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("impatient", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("name", EMULATED)
def test_a_create_that_is_under_way_is_waited_for(name: str, impatient: bool, tmp_path: Path):
    """The answer takes 6 s, somebody stops the run after half a second (and again): what was created is ended as soon as it is known."""

    async def main() -> None:
        async with STANDS[name]() as stand:
            assert stand.emulator is not None
            stand.emulator.injections.append(Injection("serve", "POST", CREATES[name], after_ms=6_000))
            runner = show(stand, tmp_path)
            later(500, lambda: runner.stop("SIGINT"))
            if impatient:
                later(900, lambda: runner.stop("SIGINT"))
            outcome = await runner.run()
            assert (outcome.result.end, outcome.result.exit_code) == ("stopped", 130)
            assert of(checked(outcome.folder), "command", "say") == []
            assert len(stand.emulator.sessions) == 1, "it was created"
            assert left(stand, tmp_path) == (0, [])

    clock.run(main(), "virtual")


@pytest.mark.parametrize("name", EMULATED)
def test_a_create_whose_answer_never_comes_leaves_a_trail(name: str, tmp_path: Path):
    """Nobody can end what has no name; but the journal holds the intent. Tavus can be asked for the name."""

    async def main() -> None:
        async with STANDS[name]() as stand:
            assert stand.emulator is not None
            stand.emulator.injections.append(Injection("lose", "POST", CREATES[name]))
            outcome = await show(stand, tmp_path).run()
            assert outcome.result.exit_code == 4
            # Avaturn itself ends a session whose socket nobody serves.
            expected = {"avaturn-external": (0, [None]), "tavus": (0, []), "tavus-rest": (0, [])}
            assert left(stand, tmp_path) == expected.get(name, (1, [None]))

    clock.run(main(), "virtual")


@pytest.mark.parametrize("name", EMULATED)
def test_what_nobody_knows_of_is_over_when_the_journal_says_so(name: str, tmp_path: Path):
    """The answer to the create is lost, so nobody joins; the vendor ends it by its own rule before the journal takes it for over."""

    async def main() -> None:
        async with STANDS[name]() as stand:
            assert stand.emulator is not None
            stand.emulator.viewer_after_ms = None
            if name == "kaltura":  # its idle time is longer than 70 s, and not documented
                stand.emulator.options = replace(stand.emulator.options, idle_ms=90_000)
            stand.emulator.injections.append(Injection("lose", "POST", CREATES[name]))
            stand.emulator.injections.append(Injection("refuse", "GET", CREATES[name], times=None, status=403))
            await show(stand, tmp_path).run()
            [record] = Journal(tmp_path / "state").open_sessions()
            assert record.ends_by is not None
            ends_ms = int((record.ends_by - record.since).total_seconds() * 1000)
            await Clock().sleep_until(ends_ms)
            [session] = stand.emulator.sessions.values()
            assert session.reason in ("absence", "idle", "socket", "duration")
            assert session.ended_ms < ends_ms

    clock.run(main(), "virtual")


@pytest.mark.parametrize("name", EMULATED)
def test_a_session_that_cannot_be_written_down_is_ended(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk is full when the vendor has answered: whoever knows the session ends it, with what it takes to end it."""

    def full(*_: object) -> None:
        raise SetupError("the session journal cannot be written: no space left on device")

    async def main() -> None:
        async with STANDS[name]() as stand:
            assert stand.emulator is not None
            outcome = await show(stand, tmp_path).run()
            assert outcome.result.exit_code == 4
            assert "no space left on device" in str(outcome.result.reason)
            assert (len(stand.emulator.sessions), stand.emulator.open_sessions) == (1, ())

    monkeypatch.setattr(Journal, "created", full)
    clock.run(main(), "virtual")


# --- by whomever --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STANDS)
def test_a_run_that_is_cancelled_closes_first(name: str, tmp_path: Path):
    """A program that puts a time-out around a run, or ends, gets its cancellation when the session is closed and the log complete."""

    async def main() -> None:
        async with STANDS[name]() as stand:
            runner = show(stand, tmp_path)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    await runner.run()
            lines = checked(tmp_path / "run")
            assert (lines[-1]["end"], lines[-1]["reason"]) == ("stopped", "cancelled")
            assert all(line["interrupted"] for line in closings(lines).values())
            if stand.emulator is not None:
                assert left(stand, tmp_path) == (0, [])

    clock.run(main(), "virtual")


def test_a_signal_stops_every_run_of_a_program(tmp_path: Path):
    """Three runs in one loop, one of which is over by then: SIGTERM ends the two others, and means afterwards what it meant before."""
    before = signal.getsignal(signal.SIGTERM)

    async def main() -> list[Outcome]:
        async with STANDS["kaltura"]() as stand:
            runners = [show(stand, tmp_path / str(n), text) for n, text in enumerate([LONG, "  - wait: 100ms\n", LONG])]
            later(1_500, lambda: os.kill(os.getpid(), signal.SIGTERM))
            outcomes = await asyncio.gather(*(runner.run() for runner in runners))
            assert stand.emulator is not None
            assert stand.emulator.open_sessions == ()
            return outcomes

    outcomes = clock.run(main(), "virtual")
    assert [outcome.result.exit_code for outcome in outcomes] == [143, 0, 143]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("moment", ["/say-text", "/end"])
def test_a_program_that_ends_takes_its_session_with_it(moment: str, tmp_path: Path):
    """Its loop cancels every task that is left, the one that closes the session among them; that one does what it had to all the same."""

    async def main(emulator: Emulator) -> None:
        runner = Runner(built, Options(folder=tmp_path / "run", env=emulator.environment(), state_dir=tmp_path / "state"))
        task, clock = asyncio.ensure_future(runner.run()), Clock()
        while not asked(emulator, "/say-text"):
            await clock.sleep_until(clock.now_ms() + 5)
        if moment == "/end":
            task.cancel()
            while not asked(emulator, "/end"):
                await clock.sleep_until(clock.now_ms() + 5)
        kept.append(task)

    kept: list[asyncio.Task[Outcome]] = []
    (tmp_path / "show.yaml").write_text(playbook_for("kaltura", LONG))
    built = compile_on(tmp_path / "show.yaml")
    with serving("kaltura") as emulator:
        emulator.injections.append(Injection("serve", "POST", "*/end", before_ms=100))
        clock.run(main(emulator))
        assert emulator.open_sessions == ()
    assert Journal(tmp_path / "state").open_sessions() == []
    assert checked(tmp_path / "run")[-1]["reason"] == "cancelled"


class Broken(QueuedSession):
    """A session with a bug."""

    closed = released = 0

    def __init__(self, context: Context, where: str, times: int = 1_000) -> None:
        super().__init__(context)
        self.where, self.times = where, times

    async def _open(self) -> None:
        self.context.seal("planted-token")
        await self.creating(self._create())

    async def _create(self) -> None:
        self.session_id = "b1"
        self._fall("create")

    async def _say(self, command: SayText) -> TaskAccepted:
        self._fall("say")
        return TaskAccepted(command.task)

    async def _play_audio(self, command: PlayAudio) -> TaskAccepted:
        raise AssertionError("nobody plays")

    async def _interrupt(self, command: StopSpeaking) -> TaskAccepted:
        return TaskAccepted(command.task)

    async def _close(self, reason: str) -> None:
        self.closed += 1
        self._fall("close")

    async def _release(self) -> None:
        self.released += 1

    def _fall(self, where: str) -> None:
        if where == self.where and self.times:
            self.times -= 1
            raise ZeroDivisionError(f"in {where}, with the planted-token")


@pytest.mark.parametrize(
    ("where", "times", "closed"),
    [
        ("create", 1, 1),
        ("say", 1, 1),
        ("close", 1, 2),
        ("close", 1_000, 6),
        ("watch open_session", 1, 0),
        ("watch say", 1, 1),
        ("watch session_closed", 1, 1),
    ],
)
def test_a_bug_of_ours_closes_the_session_and_comes_out(where: str, times: int, closed: int, tmp_path: Path):
    """Wherever it is, a session that was created is closed (again and again, where the bug is in closing), all is let go once, the bug is
    raised with its traceback, and nobody waits long for that."""
    sessions: list[Broken] = []

    class Vendor:
        name, schema, credentials = "broken", "local.schema.json", ()
        capabilities = staticmethod(lambda settings: Capabilities())
        check = staticmethod(lambda plan: ())

        def connect(self, context: Context) -> QueuedSession:
            sessions.append(Broken(context, where, times))
            return sessions[0]

    def watch(line: dict[str, Any]) -> None:
        if where.removeprefix("watch ") in (line.get("command"), line.get("event")):
            raise ZeroDivisionError("in what watches")

    async def main() -> int:
        clock = Clock()
        with pytest.raises(ZeroDivisionError):
            await Runner(plan(say("hello"), can=Capabilities()), Options(folder=tmp_path, provider=Vendor(), watch=watch)).run()
        return clock.now_ms()

    took_ms = clock.run(main(), "virtual")
    assert took_ms <= (10_000 if closed > 2 else 3_000)
    assert (sessions[0].closed, sessions[0].released) == (closed, 1)
    assert "planted-token" not in (tmp_path / "run.jsonl").read_text("utf-8")


def test_the_second_stop_does_not_wait_but_the_end_goes_out(tmp_path: Path):
    """The vendor does not answer the end: after the second Ctrl-C the run is over in two seconds; the request is sent, a trail is left."""

    async def main() -> None:
        async with STANDS["kaltura"]() as stand:
            assert stand.emulator is not None
            stand.emulator.injections.append(Injection("serve", "POST", "*/end", times=None, before_ms=600_000))
            runner, clock = show(stand, tmp_path), Clock()
            later(2_000, lambda: runner.stop("SIGINT"))
            later(2_500, lambda: runner.stop("SIGINT"))
            outcome = await runner.run()
            assert outcome.result.exit_code == 130
            assert clock.now_ms() < 5_000
            assert asked(stand.emulator, "/end") == 1
            [closed] = of(checked(outcome.folder), "event", "session_closed")
            assert closed["status"] == "failed"
            assert left(stand, tmp_path) == (1, ["session-1"])

    clock.run(main(), "virtual")


# --- as a person sees it ------------------------------------------------------------------------------------------------


def test_the_command_on_the_last_line_ends_it(shell, tmp_path: Path):
    """The vendor refuses the end for as long as the run lives; the last line on the screen, typed later, leaves nothing open."""
    with serving("tavus") as emulator:
        shell.env.update(emulator.environment())
        shell.write("show.yaml", playbook_for("tavus", "  - say: Hi.\n"))
        emulator.injections.append(Injection("refuse", "POST", "*/end", times=None, status=403, body={"error": "not now"}))
        done = shell.call("run", "show.yaml", "--out", "here")
        assert done.code == 4
        *_, told, command = done.err.splitlines()
        assert told == "a session at tavus is still open, and billed. End it with:"
        assert len(emulator.open_sessions) == 1
        emulator.injections.clear()
        assert shell.call(*command.split()[1:]).code == 0
        assert emulator.open_sessions == ()
        assert shell.call("sessions").out == "no session is open\n"


def at_a_terminal(shell, *argv: str, **options: Any) -> tuple[Any, int]:
    """The real command at a terminal, and the terminal's other end."""
    ours, theirs = pty.openpty()
    process = shell.start(*argv, **{"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True, **options})
    os.close(theirs)
    return process, ours


def read_until(fd: int, words: bytes) -> None:
    seen = b""
    while words not in seen:
        assert select.select([fd], [], [], 20)[0], seen
        seen += os.read(fd, 4096)


def test_a_lost_terminal_stops_the_show_in_order(shell):
    """The window is closed in mid-speech: nobody can be told, but the session is closed and the log is complete."""
    with serving("avaturn") as emulator:
        shell.env.update(emulator.environment())
        shell.write("show.yaml", playbook_for("avaturn", LONG))
        process, terminal = at_a_terminal(shell, "run", "show.yaml", "--out", "here")
        read_until(terminal, b"say-1")
        os.close(terminal)
        process.send_signal(signal.SIGHUP)  # as the kernel does where the terminal is the controlling one
        assert process.wait(20) == 143
        assert emulator.open_sessions == ()
    lines = checked(shell.folder / "here")
    assert (lines[-1]["end"], lines[-1]["reason"]) == ("stopped", "SIGHUP")


def test_nohup_is_respected(shell):
    """Who starts a show with `nohup`, its output in a file, wants it to go on: neither the signal nor the dead terminal stops it."""
    with serving("tavus") as emulator:
        shell.env.update(emulator.environment())
        shell.write("show.yaml", playbook_for("tavus", "  - say: Hi.\n"))
        with open("nohup.out", "wb") as out:
            ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
            process, terminal = at_a_terminal(shell, "run", "show.yaml", "--out", "here", stdout=out, preexec_fn=ignore)
        read_until(terminal, b"say-1")
        process.send_signal(signal.SIGHUP)
        os.close(terminal)
        assert process.wait(20) == 0
        assert emulator.open_sessions == ()
    assert checked(shell.folder / "here")[-1]["end"] == "passed"
    assert "passed" in Path("nohup.out").read_text("utf-8")
