"""What stands around a kiosk in operation: its folder and log, its stand, what happens at a date in a rehearsal."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playbook.clock import wall_time
from playbook.errors import RecordError
from playbook.kiosk.dated import Dated
from playbook.kiosk.file import Mqtt
from playbook.kiosk.keeping import Keeping
from playbook.kiosk.money import Purse
from playbook.kiosk.operation import Operation, Reload
from playbook.kiosk.programme import Programme
from playbook.kiosk.proof import Entry, Proof, entries
from playbook.kiosk.stand import known_rung, stand_for
from playbook.perform.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a kiosk is run. `forget`: its run folders are removed when a show is over. `told` sees every entry of its
    log, `say` what is none, `beat` that the loop goes round; `reload` gives the programme anew when a file has
    changed."""

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
    """A kiosk that is ready to run, and why it is opened: `started`, or `started again` after one that did not stop
    in order."""
    kiosk, out = programme.kiosk, setting.out
    for fault in setting.faults:
        if fault.rung is not None:
            known_rung(fault.rung, kiosk.ladder)
    proof = Proof(out, kiosk.name, kiosk.zone, setting.redact)
    proof.listeners.append(setting.told)
    keeping = Keeping(out, kiosk.keep_runs_days, forget=setting.forget, sound=not setting.forget, say=setting.say)
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


@contextlib.asynccontextmanager
async def controlled(operation: Operation, setting: Setting, file: Path) -> AsyncIterator[None]:
    """The controls and pages that the kiosk's file names, meanwhile. Raises `SetupError` when a port cannot be had."""
    kiosk = operation.kiosk
    async with contextlib.AsyncExitStack() as stack:
        if kiosk.http_port is not None:
            addresses = await stack.enter_async_context(_pages(operation, file, kiosk.http_port))
            setting.say(f"audience {addresses['audience']}, operator {addresses['operator']}")
        if kiosk.mqtt is not None:
            await stack.enter_async_context(_broker(operation, kiosk.mqtt, setting))
        yield


@contextlib.asynccontextmanager
async def _pages(operation: Operation, file: Path, port: int) -> AsyncIterator[Mapping[str, str]]:
    """The stage's pages, health and metrics, on one port of this machine. Gives the pages' addresses."""
    from playbook.kiosk.metrics import Metrics
    from playbook.kiosk.screen import Screen
    from playbook.kiosk.web import HOST, server_of
    from playbook.stage.guard import Guard

    guard, metrics = Guard.of(HOST), Metrics(operation.kiosk.name)
    metrics.watch(operation)
    operation.proof.listeners.append(metrics.take)
    operation.screen = screen = Screen(file, guard, operation.kiosk.idle.look, operation.first_plan, operation.offer)
    async with server_of(operation, screen, metrics, guard).serve(port) as addresses:
        yield addresses


@contextlib.asynccontextmanager
async def _broker(operation: Operation, mqtt: Mqtt, setting: Setting) -> AsyncIterator[None]:
    """Signals by MQTT; the status is retained, and a last will takes its place."""
    from playbook.controls.mqtt import MqttControl

    control = MqttControl.at(urlsplit(f"{mqtt.url}/{mqtt.topic}"), setting.env)
    control.will = {"kiosk": operation.kiosk.name, "state": "offline"}
    control.lost = lambda why: setting.say(f"the broker {mqtt.url} is away: {why}")
    control.tell(operation.status())
    operation.proof.listeners.append(lambda _: control.tell(operation.status()))
    with control.attach(operation):
        yield
    await control.left()


def _before(out: Path) -> list[Entry]:
    """What the log of an earlier run says."""
    try:
        return list(entries(out))
    except RecordError:
        return []


def _signal(operation: Operation, each: Dated) -> Callable[[], Any]:
    return lambda: operation.offer(each.name, source="cue")


def _fault(operation: Operation, each: Dated) -> Callable[[], Any]:
    return lambda: operation.stand.strike(each.name, each.rung, each.for_ms or 0)


async def _rehearse(plans: Sequence[tuple[dt.datetime, Callable[[], Any]]]) -> None:
    """Let everything happen at its date."""
    for at, happen in sorted(plans, key=lambda each: each[0]):
        await asyncio.sleep(max(0.0, (at - wall_time()).total_seconds()))
        happen()
