"""The parts of a kiosk by themselves: the ladder's pauses, the schedule under a clock that jumps, what is kept, what
is told."""

from __future__ import annotations

import datetime as dt
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from playbook import clock
from playbook.formats.findings import Findings
from playbook.kiosk.dated import read_fault, read_signal, read_span
from playbook.kiosk.file import Kiosk, read_kiosk
from playbook.kiosk.keeping import FULL, LOW, Keeping
from playbook.kiosk.ladder import Ladder
from playbook.kiosk.metrics import Metrics
from playbook.kiosk.proof import Proof, entries
from playbook.kiosk.schedule import Refusal, Request, Schedule

UTC = ZoneInfo("UTC")
NOON = dt.datetime(2026, 3, 24, 12, tzinfo=dt.UTC)


def at(seconds: float) -> dt.datetime:
    return NOON + dt.timedelta(seconds=seconds)


@pytest.fixture
def kiosk_of(tmp_path: Path) -> Callable[[str], Kiosk]:
    def read(rest: str) -> Kiosk:
        path = tmp_path / "lobby.yaml"
        path.write_text(f"version: 1\nkiosk: lobby\ntimezone: UTC\nshows: {{a: {{playbook: a.yaml}}}}\nladder: [local]\n{rest}")
        findings = Findings()
        kiosk, _ = read_kiosk(path, findings)
        assert kiosk is not None, findings.report(str(path))
        return kiosk

    return read


# --- the ladder -----------------------------------------------------------------------------------------------------------


def test_pauses_grow_to_ten_minutes_and_begin_anew_after_a_success():
    """10 s, 20 s, 40 s … 10 min; meanwhile the next rung is the best one."""
    ladder, now, pauses = Ladder(("tavus", "local", "captions")), 0, []
    for _ in range(9):
        pauses.append(ladder.failed("tavus", now) // 1000)
        assert ladder.best(now, ladder.rungs) == "local"
        now += pauses[-1] * 1000
        assert ladder.best(now, ladder.rungs) == "tavus"
    assert pauses == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    ladder.succeeded("tavus")
    assert ladder.failed("tavus", now) == 10_000


def test_captions_never_rest_and_a_lone_rung_is_tried_all_the_same():
    """The last rung cannot fail; where all rest, the best of them is better than nothing."""
    ladder = Ladder(("tavus", "captions"))
    ladder.failed("captions", 0)
    ladder.failed("tavus", 0)
    assert ladder.best(1, ladder.rungs) == "captions"
    assert ladder.best(1, {"tavus"}) == "tavus"
    assert ladder.best(1, {"tavus"}, {"tavus"}) is None


# --- the schedule ---------------------------------------------------------------------------------------------------------


def test_times_that_a_sleeping_machine_missed_are_not_made_up_for(kiosk_of: Callable[[str], Kiosk]):
    """The machine sleeps for three hours: the show that is due at its awakening is performed, the others are not."""
    schedule = Schedule(kiosk_of('play: [{cron: "0 * * * *", show: a}]'), at(1))
    assert list(schedule.tick(at(3 * 3600 + 30), is_open=True)) == [schedule.take(at(0))]
    assert list(schedule.tick(at(3 * 3600 + 40), is_open=True)) == []
    (late,) = schedule.tick(at(4 * 3600 + 1), is_open=True)
    assert isinstance(late, Request)
    assert late.due == at(4 * 3600)


def test_a_clock_that_is_set_back_waits_for_no_time_that_has_passed(kiosk_of: Callable[[str], Kiosk]):
    """A clock that was a year ahead: what is to come is reckoned anew, and cooldowns of the wrong time are
    forgotten."""
    kiosk = kiosk_of('play: [{cron: "0 * * * *", show: a}, {on: motion, show: a, cooldown: 1h}]\nidle: {show: a, every: 2m}')
    schedule = Schedule(kiosk, at(0) + dt.timedelta(days=365))
    (request,) = schedule.signal("motion", at(0) + dt.timedelta(days=365))
    assert isinstance(request, Request)
    assert schedule.take(at(0)) == request
    schedule.finished(request, at(0) + dt.timedelta(days=365))
    assert list(schedule.tick(at(0), is_open=True)) == []
    assert schedule.next_due() == at(0)
    assert isinstance(next(schedule.signal("motion", at(1))), Request)
    (hourly,) = schedule.tick(at(3600), is_open=True)
    assert isinstance(hourly, Request)


def test_no_more_shows_wait_than_somebody_would_wait_for(kiosk_of: Callable[[str], Kiosk]):
    """A button that is stuck fills no memory."""
    schedule = Schedule(kiosk_of("play: [{on: motion, show: a}]"), at(0))
    became = [each for _ in range(1000) for each in schedule.signal("motion", at(0))]
    assert sum(isinstance(each, Request) for each in became) == 100
    assert {each.cause for each in became if isinstance(each, Refusal)} == {"100 shows wait"}


# --- what is kept ---------------------------------------------------------------------------------------------------------


def test_old_run_folders_are_removed(tmp_path: Path):
    """Those that are older than `keep_runs`, by their names; nothing else in the folder is touched."""
    for name in ("20260222T100000-a", "20260223T115959-a", "20260224T120000-a", "20260324T100000-a", "notes"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert Keeping(tmp_path, 29).prune(NOON) == 2
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"20260224T120000-a", "20260324T100000-a", "notes"}
    assert Keeping(tmp_path, None).prune(NOON) == 0


def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With little room no sound is kept; with none a run is kept in memory until it is over; with room again all is
    as before."""
    free = LOW
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))  # type: ignore[attr-defined]  # its result
    said: list[str] = []
    keeping = Keeping(tmp_path, None, say=said.append)
    assert keeping.sound
    free = LOW - 1
    assert not keeping.sound
    assert keeping.name(keeping.folder("a", NOON)) == "runs/20260324T120000-a"
    free = FULL - 1
    folder = keeping.folder("a", NOON)
    folder.mkdir()
    assert keeping.name(folder) is None
    keeping.done(folder)
    assert not folder.exists()
    free = LOW
    assert keeping.name(keeping.folder("a", NOON)) == "runs/20260324T120000-a"
    assert not folder.parent.exists()
    assert [words.partition(":")[0] for words in said] == ["the disk is nearly full", "the disk is full", "the disk has room again"]


def test_entries_that_a_full_disk_does_not_take_are_written_later(tmp_path: Path):
    """The log says that it cannot be written, loses nothing, and has no half lines."""
    proof = Proof(tmp_path, "lobby", UTC)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (proof.path.stat().st_size + 20, hard))
        for n in range(3):
            proof.write(at(n), "stopped", cause=f"number {n}")
        assert proof.disk is not None
        assert [each.get("event") for each in entries(tmp_path)] == [None]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    proof.write(at(3), "stopped", cause="number 3")
    assert proof.disk is None
    proof.close()
    assert [each.get("cause") for each in entries(tmp_path)] == [None, "number 0", "number 1", "number 2", "number 3"]
    assert all(json.loads(line) for line in proof.path.read_text().splitlines())


# --- what is told ---------------------------------------------------------------------------------------------------------


def test_metrics_count_what_the_log_has():
    """Shows, failures, refusals, silences, costs and starts, in Prometheus's own format."""
    metrics = Metrics("lobby")
    metrics.take({"at": "", "event": "opened", "cause": "started again"})
    run = {"rung": "tavus", "ms": 100, "cause": "gone"}
    show = {"show": "a", "asked": "motion", "rung": "local", "runs": [run, {"rung": "local", "ms": 200}], "end": "passed", "ms": 300}
    metrics.take({"at": "", "event": "show", **show, "silence_ms": 700, "cost": 0.25})
    metrics.take({"at": "", "event": "refused", "show": "a", "asked": "motion", "cause": "cooldown"})
    text = metrics.text().decode()
    for line in (
        'playbook_kiosk_shows_total{end="passed",kiosk="lobby",rung="local",show="a"} 1.0',
        'playbook_kiosk_rung_failures_total{kiosk="lobby",rung="tavus"} 1.0',
        'playbook_kiosk_refused_total{kiosk="lobby",show="a"} 1.0',
        'playbook_kiosk_silence_seconds_bucket{kiosk="lobby",le="1.0"} 1.0',
        'playbook_kiosk_cost_total{kiosk="lobby"} 0.25',
        'playbook_kiosk_starts_total{kiosk="lobby"} 1.0',
    ):
        assert f"{line}\n" in text


# --- what happens at a date -------------------------------------------------------------------------------------------------


def test_dated_signals_and_faults():
    """Dates are in the kiosk's zone unless they say otherwise; a fault may name a vendor; a time may be days."""
    berlin = ZoneInfo("Europe/Berlin")
    assert read_signal("motion@2026-03-24T13:00", berlin).at == NOON
    assert read_fault("outage:tavus@2026-03-24T13:00:00+20m", berlin) == read_fault("outage:tavus@2026-03-24T13:00+1200", berlin)
    assert read_fault("quota@2026-03-24+1d", UTC).for_ms == 86_400_000
    assert read_span("7d") == 7 * read_span("24h")
    for wrong in ("motion", "motion@noon", "motion@2026-03-24T10:00+1m", "@2026-03-24T10:00", "motion@2026-02-30T10:00"):
        with pytest.raises(ValueError, match=r"write|is no date"):
            read_signal(wrong, UTC)
    for wrong in ("outage@2026-03-24T10:00", "flood@2026-03-24T10:00+1m", "outage@2026-03-24T10:00+soon"):
        with pytest.raises(ValueError, match=r"write|there are"):
            read_fault(wrong, UTC)


def test_the_wall_time_of_a_virtual_loop():
    """It begins where it is told to, goes with the loop's time, and can be set while the loop's own time goes on."""

    async def main() -> list[dt.datetime]:
        import asyncio

        times = [clock.wall_time()]
        await asyncio.sleep(3600)
        times.append(clock.wall_time())
        loop = asyncio.get_running_loop()
        assert isinstance(loop, clock.VirtualLoop)
        assert loop.begins is not None
        loop.begins -= dt.timedelta(days=1)
        times.append(clock.wall_time())
        return times

    assert clock.run(main(), "virtual", NOON) == [NOON, at(3600), at(3600 - 86_400)]
    assert abs(clock.run(_wall(), "virtual") - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)


async def _wall() -> dt.datetime:
    return clock.wall_time()
