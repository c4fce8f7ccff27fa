"""One session, one performance after another: over real sockets, with each provider, on the virtual clock."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import playbook
import playbook.clock
from playbook import clock
from playbook.clock import Clock
from playbook.errors import UsageError
from playbook.journal.journal import Journal
from playbook.model import Plan
from playbook.perform.performance import Options, Outcome, Runner
from playbook.providers import registry
from playbook.providers.tavus.emulator import TavusEmulator
from playbook.providers.tavus.provider import TavusProvider
from playbook.sessions.kept import KeptSession, Terms
from playbook.sessions.pool import Pool
from tests.commands import Shell
from tests.contract import STANDS, Stand, compile_on, write_playbook
from tests.logs import checked, closings, of
from tests.scripts import plan as plan_by_hand
from tests.scripts import say
from tests.served import serving

SHOW = """\
  - say: Good morning to you all.
    id: hello
  - say: {chunks: ["Please mind ", "the step."]}
    id: step
  - wait: 500ms
  - say: That is all.
    id: bye
"""


def kept_on(stand: Stand, folder: Path, **terms: Any) -> KeptSession:
    """A session on a stand, not yet opened."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {"name": "lobby", "lasts_ms": 600_000, "settings": stand.settings, **terms}
    return KeptSession(
        Terms(provider=stand.provider, env=stand.env, transports=stand.transports(), **given), folder, state_dir=folder / "state"
    )


async def show(kept: KeptSession, plan: Plan, folder: Path, **options: Any) -> Outcome:
    """A performance on it."""
    return await Runner(plan, Options(folder=folder, **options), kept).run()


def on(name: str, test: Callable[[Stand], Awaitable[None]], **settings: Any) -> None:
    """Run a test at a stand, on a virtual clock of its own."""

    async def main() -> None:
        async with STANDS[name]() as stand:
            await test(replace(stand, settings={**stand.settings, **settings}))

    clock.run(main(), "virtual")


def spoken(stand: Stand) -> list[str]:
    """What the emulator really said, in order: in which session, and by its name for the line."""
    assert stand.emulator is not None
    return [f"{entry['session']} {entry['task']}" for entry in stand.emulator.journal if entry["what"] == "speech_started"]


@pytest.mark.parametrize("name", STANDS)
def test_three_performances_in_a_row_on_one_session(name: str, tmp_path: Path):
    """With the same step ids in each: equal logs below the header but for the session's age, one session, each line said once in each."""

    async def test(stand: Stand) -> None:
        plan = compile_on(write_playbook(tmp_path, stand, SHOW))
        kept = kept_on(stand, tmp_path / "pool")
        outcomes = [await show(kept, plan, tmp_path / f"run-{n}") for n in (1, 2, 3)]
        assert kept.state == "open"
        assert [outcome.result.exit_code for outcome in outcomes] == [0, 0, 0], [outcome.result.reason for outcome in outcomes]
        logs = [checked(outcome.folder) for outcome in outcomes]
        assert [list(closings(log)) for log in logs] == [["hello", "step", "bye"]] * 3
        assert {line["evidence"] for log in logs for line in closings(log).values()} <= {"reported", "estimated"}
        assert not [line for log in logs for line in of(log, "note", "conflict")]
        if stand.emulator is not None:
            assert stand.emulator.created == 1
            assert len(stand.emulator.open_sessions) == 1
            assert len(spoken(stand)) == len(set(spoken(stand))) >= 6  # by microphone, lines without a gap are one sound
            assert not [entry for entry in stand.emulator.journal if entry["what"] == "speech_cut_off"]
            assert len(Journal(tmp_path / "pool" / "state").open_sessions()) == 1
        await kept.aclose()
        assert kept.state == "closed"
        assert Journal(tmp_path / "pool" / "state").open_sessions() == []
        assert stand.emulator is None or stand.emulator.open_sessions == ()
        assert not (tmp_path / "pool" / "session.json").exists()

    on(name, test)


def test_what_is_refused(tmp_path: Path):
    """Before anything begins: another provider's plan, other settings (by name), two leases at once, a closed session."""

    async def test(stand: Stand) -> None:
        plan = compile_on(write_playbook(tmp_path, stand, SHOW))
        kept = kept_on(stand, tmp_path / "pool")
        with pytest.raises(UsageError, match="the plan is for local, and the session is kaltura's"):
            await show(kept, replace(plan, provider="local"), tmp_path / "run")
        other = {"visualConfig": plan.session["visualConfig"], "start_latency": "1s"}
        with pytest.raises(UsageError, match="other settings than the session: voiceConfig, start_latency"):
            await show(kept, replace(plan, session=other), tmp_path / "run")
        first = asyncio.ensure_future(show(kept, plan, tmp_path / "first"))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="lent already"):
            await show(kept, plan, tmp_path / "run")
        assert (await first).result.exit_code == 0
        await kept.aclose("somebody wanted it")
        with pytest.raises(UsageError, match="the session is closed: somebody wanted it"):
            await show(kept, plan, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    on("kaltura", test)


# --- the pool -------------------------------------------------------------------------------------------------------------


def pool_on(stand: Stand, folder: Path, **settings: Any) -> Pool:
    """A pool on a stand."""
    return Pool(folder / "pool", env=stand.env, transports=lambda _: stand.transports(), state_dir=folder / "state", **settings)


TWENTY_SECONDS = """\
  - say: Good morning to you all.
    id: hello
  - wait: 16s
  - say: That is all.
    id: bye
"""


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("avaturn", {"max_duration": 60}),
        ("tavus", {"properties": {"max_call_duration": 60}}),
        ("kaltura", {}),
    ],
)
def test_sessions_change_places_before_a_cap_is_met(name: str, settings: dict[str, Any], tmp_path: Path):
    """Shows of 20 s follow each other for five minutes, with a cap of 60 s: no line is said twice or cut, no gap is longer than 2 s, and
    never more than two sessions are open."""
    most, gaps = [0], []

    async def test(stand: Stand) -> None:
        now = Clock()
        emulator = stand.emulator
        assert emulator is not None

        def watch(line: dict[str, Any]) -> None:
            most[0] = max(most[0], len(emulator.open_sessions))

        async with pool_on(stand, tmp_path, keep_ms=120_000, lasts_ms=60_000) as pool:
            plan = compile_on(write_playbook(tmp_path, stand, TWENTY_SECONDS))
            for n in range(15):
                asked_ms = now.now_ms()
                session = await pool.session_for(plan, stand.provider)
                if n:
                    gaps.append(now.now_ms() - asked_ms)
                outcome = await show(session, plan, tmp_path / f"run-{n}", watch=watch)
                assert outcome.result.exit_code == 0, outcome.result.reason
                lines = checked(outcome.folder)
                assert list(closings(lines)) == ["hello", "bye"]
                assert {line["evidence"] for line in closings(lines).values()} <= {"reported", "estimated"}
        assert emulator.open_sessions == ()
        assert 5 <= emulator.created < 15
        assert len(spoken(stand)) == len(set(spoken(stand))) == 30
        assert not [entry for entry in emulator.journal if entry["what"] == "speech_cut_off"]
        assert Journal(tmp_path / "state").open_sessions() == []

    on(name, test, **settings)
    assert most == [2]
    assert max(gaps) <= 2_000, gaps


def test_a_session_is_changed_before_its_idle_limit_is_met(tmp_path: Path):
    """Between two shows seven minutes pass, and after five minutes of silence the viewer's page would leave: another session has
    followed before, and the second show is performed on it."""

    async def test(stand: Stand) -> None:
        assert stand.emulator is not None
        async with pool_on(stand, tmp_path, keep_ms=900_000) as pool:
            plan = compile_on(write_playbook(tmp_path, stand, SHOW))
            await show(await pool.session_for(plan, stand.provider), plan, tmp_path / "1")
            now = Clock()
            await now.sleep_until(260_000)
            assert stand.emulator.created == 1
            await now.sleep_until(301_000)
            (open_session,) = stand.emulator.open_sessions
            assert (stand.emulator.created, open_session.id) == (2, "sess-2")
            await now.sleep_until(420_000)
            outcome = await show(await pool.session_for(plan, stand.provider), plan, tmp_path / "2")
            assert (outcome.result.exit_code, stand.emulator.created) == (0, 2)
        assert stand.emulator.open_sessions == ()

    on("avaturn", test)


def test_what_nobody_leases_is_ended(tmp_path: Path):
    """After `keep`, and not before; the next show opens another session."""

    async def test(stand: Stand) -> None:
        assert stand.emulator is not None
        async with pool_on(stand, tmp_path, keep_ms=60_000) as pool:
            plan = compile_on(write_playbook(tmp_path, stand, SHOW))
            await show(await pool.session_for(plan, stand.provider), plan, tmp_path / "1")
            now = Clock()
            await now.sleep_until(59_000)
            assert len(stand.emulator.open_sessions) == len(pool.sessions) == 1
            await now.sleep_until(62_000)
            assert stand.emulator.open_sessions == pool.sessions == ()
            await show(await pool.session_for(plan, stand.provider), plan, tmp_path / "2")
            assert stand.emulator.created == 2
        assert stand.emulator.open_sessions == ()

    on("kaltura", test)


def test_a_session_that_dies_between_two_shows_and_in_one(tmp_path: Path):
    """Between two, the next show has another session and knows nothing of it; in the second, that show is lost and the third is well."""

    async def test(stand: Stand) -> None:
        emulator = stand.emulator
        assert emulator is not None
        async with pool_on(stand, tmp_path, keep_ms=600_000) as pool:
            plan = compile_on(write_playbook(tmp_path, stand, SHOW))

            async def perform(n: int, **options: Any) -> Outcome:
                return await show(await pool.session_for(plan, stand.provider), plan, tmp_path / str(n), **options)

            assert (await perform(1)).result.exit_code == 0
            for session in emulator.open_sessions:
                session.end("fault")
            now = Clock()
            await now.sleep_until(20_000)
            assert (await perform(2)).result.exit_code == 0
            assert emulator.created == 2

            def kill(line: dict[str, Any]) -> None:
                if line.get("note") == "step_started" and line["step"] == "step":
                    for session in emulator.open_sessions:
                        session.end("fault")

            lost = await perform(3, watch=kill)
            assert (lost.result.exit_code, lost.result.end) == (4, "error")
            assert (await perform(4)).result.exit_code == 0
            assert emulator.created == 3
        assert emulator.open_sessions == ()
        assert Journal(tmp_path / "state").open_sessions() == []

    for name in ("tavus", "kaltura"):
        on(name, test)
        for path in tmp_path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


# --- reports that come late, and shows that go on elsewhere ---------------------------------------------------------------


@pytest.mark.parametrize("ids", ["md5", "same"])
@pytest.mark.parametrize("fault", ["end-late", "end-twice", "end-missing", "start-missing"])
def test_reports_of_the_first_performance_change_nothing_in_the_second(fault: str, ids: str, tmp_path: Path):
    """They come late, twice or never, also after the second has begun, whose steps have the same ids: its log is as without the fault."""
    first = "".join(f"  - say: This is line {n}, and it takes its time.\n    id: line-{n}\n    on_error: continue\n" for n in (1, 2))

    async def times(stand: Stand, faults: list[str]) -> tuple[list[Any], Outcome]:
        emulator = stand.emulator
        assert emulator is not None
        kept = kept_on(stand, tmp_path / f"pool-{len(faults)}")
        plan = compile_on(write_playbook(tmp_path / "a", stand, first))
        emulator.set_faults(faults)
        impatient = replace(plan, limits=replace(plan.limits, speech_margin_ms=200))  # the show goes on before the late report
        await show(kept, impatient, tmp_path / f"first-{len(faults)}")
        emulator.set_faults([])
        assert kept.state == "open"
        second = compile_on(write_playbook(tmp_path / "b", stand, SHOW.replace("id: hello", "id: line-1").replace("id: bye", "id: line-2")))
        outcome = await show(kept, second, tmp_path / f"second-{len(faults)}")
        await kept.aclose()
        told = ("event", "task", "at_ms", "evidence", "interrupted")
        log = [tuple(line.get(name) for name in told) for line in checked(outcome.folder) if line.get("event", "").startswith("speech")]
        return log, outcome

    async def main() -> None:
        logs = []
        for faults in ([], [f"{fault}@2"]):
            async with Stand(TavusProvider(), settings=TavusProvider.stands["tavus"], emulator=TavusEmulator(ids=ids)).open() as stand:
                log, outcome = await times(stand, faults)
                assert outcome.result.exit_code == 0, outcome.result.reason
                logs.append(log)
        assert len(logs[0]) == 6
        assert logs[1] == logs[0]

    clock.run(main(), "virtual")


def test_what_failed_at_one_provider_goes_on_at_another(tmp_path: Path):
    """The session dies in the middle of a line: the rest is performed by another vendor, from that line on; no line is heard to its end
    twice, and all are heard to their ends."""
    steps = "".join(f"  - say: This is line number {n} of the show.\n    id: line-{n}\n" for n in range(1, 6))

    async def main() -> None:
        async with STANDS["tavus"]() as first, STANDS["kaltura"]() as second:
            plan = compile_on(write_playbook(tmp_path, first, steps))
            assert first.emulator is not None
            first.emulator.set_faults(["session-dies@line-3"])
            kept = kept_on(first, tmp_path / "first")
            failed = await show(kept, plan, tmp_path / "one")
            assert (failed.result.exit_code, failed.resume_at) == (4, "line-3")
            other = compile_on(write_playbook(tmp_path / "other", second, steps))
            rest = other.after(failed.resume_at, again=True)
            assert [step.id for step in rest.steps if step.speaks] == ["line-3", "line-4", "line-5"]
            elsewhere = kept_on(second, tmp_path / "second")
            outcome = await show(elsewhere, rest, tmp_path / "two")
            assert (outcome.result.exit_code, outcome.resume_at) == (0, None)
            await elsewhere.aclose()
            ends = [line for run in (failed, outcome) for line in closings(checked(run.folder)).values()]
            whole = [line["task"] for line in ends if not line.get("interrupted") and line["evidence"] != "timeout"]
            assert whole == [f"line-{n}" for n in range(1, 6)]

    clock.run(main(), "virtual")


def test_the_rest_of_a_show_keeps_its_times():
    """After a step, or from it on; later times count from where the rest begins; an unknown step is named with what was meant."""
    whole = plan_by_hand(say("one"), say("two", at_ms=10_000), say("three", at_ms=14_000), say("four"))
    assert [(step.id, step.at_ms) for step in whole.after("two", again=True).steps][:3] == [("two", None), ("three", 4_000), ("four", None)]
    assert [(step.id, step.at_ms) for step in whole.after("two").steps][:2] == [("three", 4_000), ("four", None)]
    assert [step.at_ms for step in whole.after("one", elapsed_ms=3_000).steps][:2] == [7_000, 11_000]
    assert whole.after("two").sha256 != whole.after("two", again=True).sha256 != whole.sha256
    with pytest.raises(UsageError, match="no step 'fuor'"):
        whole.after("fuor")


def test_a_cancelled_performance_gives_its_session_back(tmp_path: Path):
    """What was being said is interrupted, and the next performance begins in silence; where that cannot be, the session is ended."""

    async def test(stand: Stand) -> None:
        plan = compile_on(write_playbook(tmp_path, stand, SHOW))
        kept = kept_on(stand, tmp_path / "pool")
        cut = asyncio.ensure_future(show(kept, plan, tmp_path / "cut"))
        now = Clock()
        await now.sleep_until(1_500)
        cut.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cut
        if kept.state == "open":
            assert (await show(kept, plan, tmp_path / "again")).result.exit_code == 0
            await kept.aclose()
        else:
            with pytest.raises(UsageError, match="the session is closed"):
                await show(kept, plan, tmp_path / "again")
        assert stand.emulator is None or stand.emulator.open_sessions == ()

    for name in ("tavus", "kaltura", "local"):
        on(name, test)
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()


# --- in the world ---------------------------------------------------------------------------------------------------------

TWO_SESSIONS = """
import asyncio, os
from pathlib import Path
import playbook
from playbook.providers import registry
from playbook.sessions.pool import Pool
from playbook.transports.factory import transports_for

async def main():
    state, kaltura = Path(os.environ["PLAYBOOK_STATE_DIR"]), registry.find("kaltura")
    transports = lambda name: transports_for(name, os.environ)
    async with Pool(Path("runs"), env=os.environ, transports=transports, state_dir=state) as pool:
        for id in ("a", "b"):
            session = {"visualConfig": {"id": id}, "voiceConfig": {"id": "v"}}
            plan = playbook.plan({"version": 1, "provider": "kaltura", "session": session, "start": "0s", "timeline": [{"say": "x"}]})
            await pool.session_for(plan, kaltura)
        print("open", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_two_sessions_of_a_pool_that_was_killed_are_ended(shell: Shell):
    """`kill -9` of a pool: `sessions end --gone` ends both of its sessions, and removes what would let a viewer in."""
    with serving("kaltura") as emulator:
        shell.env |= emulator.environment()
        process = subprocess.Popen([sys.executable, "-c", TWO_SESSIONS], env=shell.env, cwd=shell.folder, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            assert len(emulator.open_sessions) == 2
            assert len(list(shell.folder.glob("runs/*/session.json"))) == 2
        finally:
            process.kill()
            process.communicate()
        done = shell.call("sessions", "end", "--gone")
        assert (done.code, done.out.count(": ended")) == (0, 2), done
        assert emulator.open_sessions == ()
    assert list(shell.folder.glob("runs/*/session.json")) == []


def test_a_program_performs_one_plan_after_another(shell: Shell):
    """`open_session`: several plans on one session, whose id and viewer it tells; wrong settings are the problems that `check` has."""
    timeline: list[Any] = [{"say": "Good morning."}, {"say": "Good night."}]
    settings = {"visualConfig": {"id": "a"}, "voiceConfig": {"id": "v"}}
    plan = playbook.plan({"version": 1, "provider": "kaltura", "session": settings, "start": "0s", "timeline": timeline}, env=shell.env)

    async def main() -> None:
        emulator = registry.emulator("kaltura")(viewer_after_ms=0)
        async with emulator.serve():
            env = shell.env | emulator.environment()
            async with playbook.open_session("kaltura", settings, env=env) as session:
                outcomes = [await session.perform(plan, folder=f"run-{n}") for n in (1, 2)]
                assert [outcome.result.exit_code for outcome in outcomes] == [0, 0]
                assert session.id == "session-1"
                assert session.viewer is not None
                assert session.viewer.kind == "whep"
            assert (emulator.created, emulator.open_sessions) == (1, ())
            with pytest.raises(playbook.UsageError, match="the session is closed"):
                await session.perform(plan)
            with pytest.raises(playbook.AuthorError, match="PB202"):
                async with playbook.open_session("kaltura", {}, env=env):
                    raise AssertionError("it was opened")
            emulator.set_faults(["quota-at-create"])
            with pytest.raises(playbook.ProviderError):
                async with playbook.open_session("kaltura", settings, env=env):
                    raise AssertionError("it was opened")

    playbook.clock.run(main(), "virtual")
    assert list(Path("runs").iterdir()) == []
