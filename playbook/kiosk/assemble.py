"""What stands around a kiosk in operation: its folder and log, its stand, what happens at a date in a rehearsal."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playbook.clock import wall_time
from playbook.errors import RecordError
from playbook.kiosk.dated import Dated
from playbook.kiosk.keeping import Keeping
from playbook.kiosk.money import Purse
from playbook.kiosk.operation import Operation, Reload
from playbook.kiosk.programme import Programme
from playbook.kiosk.proof import Entry, Proof, entries
from playbook.kiosk.stand import known_rung, stand_for
from playbook.perform.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a kiosk is run. `forget`: its run folders are removed when a show is over. `told` sees every entry of its log, `say` what is
    none, `beat` that the loop goes round; `reload` gives the programme anew when a file has changed."""

    out: Path
    env: Mapping[str, str]
    emulate: bool = False
    forget: bool = False
    signals: Sequence[Dated] = ()
    faults: Sequence[Dated] = ()
    told: Callable[[Entry], None] = lambda _: None
    say: Callable[[str], None] = lambda _: None
    beat: Callable[[], None] = lambda: None
    redact: Callable[[str], str] = str
    reload: Reload = lambda: None


@contextlib.asynccontextmanager
async def prepared(programme: Programme, world: World, setting: Setting) -> AsyncIterator[tuple[Operation, str]]:
    """A kiosk that is ready to run, and why it is opened: `started`, or `started again` after one that did not stop in order."""
    kiosk, out = programme.kiosk, setting.out
    for fault in setting.faults:
        if fault.rung is not None:
            known_rung(fault.rung, kiosk.ladder)
    proof = Proof(out, kiosk.name, kiosk.zone, told=setting.told, redact=setting.redact)
    keeping = Keeping(out, kiosk.keep_runs_days, forget=setting.forget, sound=not setting.forget)
    purse = Purse(kiosk.per_day, kiosk.zone)
    before = _before(out)
    purse.restore(before, wall_time())
    crashed = bool(before) and before[-1].get("event") not in ("stopped", None)
    async with stand_for(kiosk.ladder, world, setting.env, emulate=setting.emulate) as stand:
        operation = Operation(programme, stand, proof, keeping, purse, reload=setting.reload, say=setting.say, beat=setting.beat)
        plans = [*((each.at, _signal(operation, each)) for each in setting.signals)]
        plans += [(each.at, _fault(operation, each)) for each in setting.faults]
        rehearsing = asyncio.create_task(_rehearse(plans))
        try:
            yield operation, "started again" if crashed else "started"
        finally:
            rehearsing.cancel()
            await asyncio.wait([rehearsing])
            proof.close()
            keeping.close()


def _before(out: Path) -> list[Entry]:
    """What the log of an earlier run says."""
    try:
        return list(entries(out))
    except RecordError:
        return []


def _signal(operation: Operation, each: Dated) -> Callable[[], Any]:
    return lambda: operation.offer(each.name, "cue")


def _fault(operation: Operation, each: Dated) -> Callable[[], Any]:
    return lambda: operation.stand.strike(each.name, each.rung, each.for_ms or 0)


async def _rehearse(plans: Sequence[tuple[dt.datetime, Callable[[], Any]]]) -> None:
    """Let everything happen at its date."""
    for at, happen in sorted(plans, key=lambda each: each[0]):
        await asyncio.sleep(max(0.0, (at - wall_time()).total_seconds()))
        happen()
