"""One session, one performance after another: over real sockets, with each provider, on the virtual clock."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from playbook import clock
from playbook.clock import Clock
from playbook.errors import UsageError
from playbook.journal.journal import Journal
from playbook.model import Plan
from playbook.perform.performance import Options, Outcome, Runner
from playbook.sessions.kept import KeptSession, Terms
from playbook.sessions.pool import Pool
from tests.contract import STANDS, Stand, compile_on, write_playbook
from tests.logs import checked, closings, of

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
