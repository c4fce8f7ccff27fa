"""Limits are known before a session costs anything, and enforced while it does: the author's, the price's, the vendor's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from playbook import clock
from playbook.engine.engine import STOP_MS
from playbook.errors import AuthorError
from playbook.events import CloseSession, Effect, StopCause, StopRequested, StopSpeaking
from playbook.journal.journal import Journal
from playbook.language import compile_file
from playbook.model import Limits, Plan
from playbook.perform.performance import Outcome
from playbook.perform.steering import Cue
from playbook.perform.world import World
from tests.contract import STANDS, Stand, perform, write_playbook
from tests.logs import checked, closings, of
from tests.scripts import FakeProvider, Somebody, drive, plan, say
from tests.scripts import of as stages

EMULATED = [name for name in STANDS if name != "local"]
TALK = "  - say: This sentence goes on for quite some time, as the sentences of people do who like to hear themselves.\n"
WAITS = "  - say: Hello.\n  - wait: {event: never}\n"


def compiled(folder: Path, stand: Stand, timeline: str, head: str, **session: Any) -> Plan:
    """A plan on a stand with further session settings."""
    file = write_playbook(folder, stand, timeline, head)
    settings = {**stand.settings, **session}
    text = file.read_text("utf-8").replace(f"session: {json.dumps(dict(stand.settings))}\n", "")
    file.write_text(text.replace("timeline:", f"session: {json.dumps(settings)}\ntimeline:", 1), "utf-8")
    return compile_file(file, World())


def performed(
    name: str, folder: Path, timeline: str, head: str, *, cues: tuple[Cue, ...] = (), **session: Any
) -> tuple[Outcome, list[Any]]:
    """A run, and how each session ended: when, counted from its creation, and why."""

    async def main() -> tuple[Outcome, list[Any]]:
        async with STANDS[name]() as stand:
            outcome = await perform(stand, compiled(folder, stand, timeline, head, **session), folder, controls=[Somebody()], cues=cues)
            sessions = [] if stand.emulator is None else stand.emulator.sessions.values()
            assert stand.emulator is None or stand.emulator.open_sessions == ()
            assert Journal(folder / "state").open_sessions() == []
            return outcome, [(session.ended_ms - session.created_ms, session.reason) for session in sessions]

    return clock.run(main(), "virtual")


def problems(name: str, folder: Path, timeline: str, head: str = "start: 0s", **session: Any) -> list[str]:
    """The codes of what `check` finds."""

    async def main() -> list[str]:
        async with STANDS[name]() as stand:
            try:
                return [problem.code for problem in compiled(folder, stand, timeline, head, **session).warnings]
            except AuthorError as error:
                return [problem.code for problem in error.problems]

    return clock.run(main(), "virtual")


# --- before -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STANDS)
def test_a_plan_that_cannot_keep_its_limits_is_a_problem(name: str, tmp_path: Path):
    """Longer than its own limit, dearer than its own limit, or with a cost limit and no price: on every provider."""
    long = "  - wait: 2m\n" + TALK
    assert "PB415" in problems(name, tmp_path, long, "limits: {max_duration: 1m}")
    assert "PB418" in problems(name, tmp_path, long, "limits: {max_cost: 1}", price_per_minute=0.6)
    assert "PB414" in problems(name, tmp_path, long, "limits: {max_cost: 1}")
    assert problems(name, tmp_path, TALK, "start: 0s\nlimits: {max_cost: 1, max_duration: 1m}", price_per_minute=0.6) == []


@pytest.mark.parametrize("name", ["avaturn", "tavus"])
def test_a_plan_that_outlasts_the_vendors_session_is_a_problem(name: str, tmp_path: Path):
    """The cap counts from the creation; what is needed to open and to end the session is not the show's."""
    cap = {"avaturn": {"max_duration": 120}, "tavus": {"properties": {"max_call_duration": 120}}}[name]
    assert "PB416" in problems(name, tmp_path, TALK + "  - wait: 121s\n" + TALK, **cap)
    assert "PB416" in problems(name, tmp_path, "  - say: Hi.\n  - wait: 119s\n", **cap)
    assert "PB416" not in problems(name, tmp_path, "  - say: Hi.\n  - wait: 60s\n", **cap)


def test_a_long_silence_where_the_vendor_has_no_patience_is_a_problem(tmp_path: Path):
    """Avaturn's viewer leaves after five minutes: an error for a wait, a doubt for one that may be; nothing where it was told to stay."""
    silence = "  - say: Hi.\n  - wait: 6m\n  - say: Ho.\n"
    assert problems("avaturn", tmp_path, silence) == ["PB417"]
    assert "PB433" in problems("avaturn", tmp_path, WAITS)
    assert problems("avaturn", tmp_path, silence, viewer_keep_alive=True) == []
    assert problems("kaltura", tmp_path, silence) == [], "its keep-alives are ours, and automatic"


# --- during -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STANDS)
def test_the_longest_duration_is_enforced(name: str, tmp_path: Path):
    """A show that waits for somebody who does not come is ended after its limit: exit 6, in order, and the session is over in time."""
    outcome, sessions = performed(name, tmp_path, WAITS, "start: 0s\nlimits: {max_duration: 30s}")
    assert (outcome.result.end, outcome.result.exit_code) == ("error", 6)
    assert outcome.result.reason == "the show reached its limit of 30000 ms"
    assert all(ended_ms < 30_000 + 12_000 for ended_ms, _ in sessions)
    [closed] = of(checked(outcome.folder), "command", "close_session")
    assert closed["at_ms"] - of(checked(outcome.folder), "event", "session_opened")[0]["at_ms"] <= 30_000 + STOP_MS


@pytest.mark.parametrize("name", STANDS)
def test_a_budget_is_enforced(name: str, tmp_path: Path):
    """What 0.50 buys at 1.00 a minute is half a minute, also in mid-sentence: the line is cut, and the log says so."""
    lines = "".join(TALK for _ in range(3))
    head = "start: go\nlimits: {max_cost: 0.5}"
    outcome, sessions = performed(name, tmp_path, lines, head, cues=(Cue("go", 24_000),), price_per_minute=1.0)
    assert outcome.result.exit_code == 6
    assert any(line.get("interrupted") for line in closings(checked(outcome.folder)).values())
    assert all(ended_ms < 30_000 + 12_000 for ended_ms, _ in sessions)


@pytest.mark.parametrize("limits", ["max_wait: 20s", "max_duration: 20s", "max_wait: 20s, max_duration: 10m"])
def test_a_show_that_nobody_begins(limits: str, tmp_path: Path):
    """The session is billed while nobody gives the sign to begin: it waits for `max_wait`, or as long as the show may last, and exit 5."""
    outcome, [(ended_ms, _)] = performed("kaltura", tmp_path, TALK, f"start: go\nlimits: {{{limits}}}")
    assert (outcome.result.exit_code, outcome.result.reason) == (5, "nobody came: the session has waited 20000 ms")
    assert 20_000 <= ended_ms < 22_000


def test_the_wait_does_not_count_to_the_show(tmp_path: Path):
    """`max_duration` is the show's: a session that waited for longer still performs it."""
    head = "start: go\nlimits: {max_wait: 1m, max_duration: 20s}"
    outcome, _ = performed("kaltura", tmp_path, "  - wait: 15s\n", head, cues=(Cue("go", 40_000),))
    assert outcome.result.exit_code == 0


@pytest.mark.parametrize("name", ["avaturn", "avaturn-external", "tavus", "tavus-microphone"])
def test_the_vendors_cap_is_kept_by_us(name: str, tmp_path: Path):
    """A wait that nobody ends: we close the session before the vendor would, who tells nobody, and exit 6 says why."""
    cap = {"max_duration": 120} if name.startswith("avaturn") else {"properties": {"max_call_duration": 120}}
    outcome, [(ended_ms, reason)] = performed(name, tmp_path, WAITS, "start: 0s", **cap)
    assert outcome.result.exit_code == 6
    assert 100_000 < ended_ms < 120_000
    assert reason != "duration"


def test_a_limit_that_comes_while_the_run_is_being_stopped(tmp_path: Path):
    """The interrupt goes out once, the session is closed at its limit, and the first cause stands."""

    class Deaf(FakeProvider):
        def take(self, command: Effect, now: int) -> None:
            if not isinstance(command, StopSpeaking):
                super().take(command, now)

    talk = plan(say("talk", ms=60_000), limits=Limits(max_duration_ms=3_500))
    provider = Deaf(ms=60_000)
    story = drive(talk, provider, inject=[(3_000, StopRequested("SIGTERM", StopCause.TERMINATE))])
    assert len(stages(story, StopSpeaking)) == 1
    assert [(ms, close.reason) for ms, close in stages(story, CloseSession)] == [(3_500, "SIGTERM")]
    assert provider.engine.result.exit_code == 143  # type: ignore[attr-defined]  # `drive` puts it there
