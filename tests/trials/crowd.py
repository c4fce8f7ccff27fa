"""Many sessions at once, some of them with bad luck: every one is ended, and no log knows of another's show."""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass
from pathlib import Path

from playbook import clock
from playbook.emulators.faults import FAULTS, choose
from playbook.journal.journal import Journal
from tests.contract import STANDS, Stand, compile_on, perform, write_playbook
from tests.logs import checked, closings
from tests.test_faults import applies


@dataclass(frozen=True)
class Crowd:
    """What came of it: how many sessions, with how many faults, and how they ended by exit code."""

    sessions: int
    faults: int
    codes: dict[int, int]


def crowd(name: str, count: int, folder: Path, *, lines: int = 5, share: float = 0.05, seed: int = 1) -> Crowd:
    """So many shows in one process, at once; a share of their lines is struck by a fault."""
    chance = random.Random(seed)
    usable = [fault for fault in FAULTS if applies(name, fault) and FAULTS[fault].at != "create" and fault != "mute-after-120s"]

    async def main() -> Crowd:
        async with STANDS[name]() as stand:
            assert stand.emulator is not None
            texts = {(n, k): f"Show {n}x says line {k}x." for n in range(count) for k in range(lines)}
            struck = {place: chance.choice(usable) for place in texts if chance.random() < share}
            stand.emulator.set_faults(choose(f"{fault}@{texts[place]}") for place, fault in struck.items())
            outcomes = await asyncio.gather(*(show(stand, n, texts, struck) for n in range(count)))
            assert stand.emulator.open_sessions == (), "every session was ended"
            assert len(stand.emulator.sessions) == count
            assert len({session for _, session in outcomes}) == count
            codes = [code for code, _ in outcomes]
            return Crowd(count, len(struck), {code: codes.count(code) for code in sorted(set(codes))})

    async def show(stand: Stand, n: int, texts: dict[tuple[int, int], str], struck: dict[tuple[int, int], str]) -> tuple[int, str]:
        steps = ""
        for k in range(lines):
            steps += f"  - say: {texts[n, k]}\n    id: line-{n}-{k}\n    on_error: continue\n"
            if FAULTS[struck.get((n, k), "end-late")].at == "interrupt":
                steps += "    until: 500ms\n  - interrupt:\n    on_error: continue\n"
        here = folder / str(n)
        outcome = await perform(stand, compile_on(write_playbook(here, stand, steps)), here)
        written = checked(here / "run")
        text = (here / "run" / "run.jsonl").read_text("utf-8")
        assert set(re.findall(r"Show (\d+)x", text)) <= {str(n)}, "no log knows of another's show"
        assert {task.rpartition("-")[0] for task in closings(written)} <= {f"line-{n}"}
        assert Journal(here / "state").open_sessions() == []
        lucky = not any(place[0] == n for place in struck)
        assert not lucky or outcome.result.exit_code == 0, (n, outcome.result)
        assert outcome.result.exit_code in (0, 4), (n, outcome.result)
        return outcome.result.exit_code, str(outcome.summary.session)

    return clock.run(main(), "virtual")
