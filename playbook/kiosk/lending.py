"""The sessions that a kiosk keeps between shows: one for each rung that has any, no longer than it may cost.

A session is closed when nobody used it for `keep`, when the kiosk closes, and at a show's boundary when the next
show would not fit into what the vendor allows. A rung that rests is tried by opening a session in the background, so
that no visitor waits for it; what was opened is kept for the next show.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from playbook.clock import Clock
from playbook.errors import PlaybookError
from playbook.language import total_ms
from playbook.model import Plan
from playbook.providers.base import Provider
from playbook.sessions.kept import KeptSession, Terms, differing
from playbook.transports.factory import transports_for

LASTS_MS = 3_600_000
"""For how long a session is opened at most; the vendor may allow less."""
MARGIN_MS = 10_000
"""What a show may take longer than it is planned, when a session nears its end."""
IDLE_MARGIN_MS = 5_000


@dataclass(frozen=True, slots=True)
class Means:
    """What a rung performs with. `state_dir` is the journal's; None: its sessions cost nothing."""

    provider: Provider
    env: Mapping[str, str]
    state_dir: Path | None


class Held:
    """A session of a rung, and what is to be known of it. `billed_ms` is how much of its time was accounted for."""

    def __init__(self, kept: KeptSession, rung: str, plan: Plan, clock: Clock) -> None:
        self.kept, self.rung, self.plan = kept, rung, plan
        self.used_ms = clock.now_ms()
        """When it was lent or given back the last time."""
        self.billed_ms = 0

    @property
    def lasts_ms(self) -> int:
        """How old it may become."""
        usable = self.kept.terms.capabilities.usable_ms
        return LASTS_MS if usable is None else min(LASTS_MS, usable)

    def fits(self, plan: Plan) -> bool:
        """Whether it can perform this show."""
        left_ms = self.lasts_ms - self.kept.age_ms
        able = self.kept.state == "open" and not self.kept.lent and self.kept.lost is None
        return able and not differing(self.kept.terms.settings, plan.session) and total_ms(plan) + MARGIN_MS <= left_ms


class Lending:
    """Lends sessions. `spend` is told for how long a session of a plan was open, `on_change` when one has opened or
    ended."""

    def __init__(
        self,
        name: str,
        folder: Path,
        clock: Clock,
        keep_ms: int,
        *,
        spend: Callable[[Plan, int], None],
        on_change: Callable[[], None],
    ) -> None:
        self.keep_ms = keep_ms
        self._name, self._folder, self._clock = name, folder, clock
        self._spend, self._on_change = spend, on_change
        self._held: dict[str, Held] = {}
        self._all: list[Held] = []
        """Those, and the ones that are being closed."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """How many sessions are open, or being opened or closed."""
        return sum(each.kept.state not in ("new", "closed") for each in self._all)

    def take(self, rung: str, plan: Plan, means: Means) -> KeptSession:
        """A session for a show, open or to be opened by it. Raises `PlaybookError`."""
        held = self._held.get(rung)
        if held is None or not (held.fits(plan) or held.kept.state == "new"):
            self._drop(rung, "the next show needs another session")
            held = self._new(rung, plan, means)
        held.used_ms = self._clock.now_ms()
        return held.kept

    async def warm(self, rung: str, plan: Plan, means: Means, within_s: float) -> str | None:
        """Open a session for the next show. Gives the reason where that cannot be done."""
        if (held := self._held.get(rung)) is not None and held.fits(plan):
            return None
        self._drop(rung, "the next show needs another session")
        try:
            held = self._new(rung, plan, means)
            async with asyncio.timeout(within_s):
                await held.kept.open()
        except TimeoutError:
            self._drop(rung, "it took too long to open")
            return f"it did not open within {within_s:g} s"
        except PlaybookError as error:
            self._drop(rung, error.message)
            return error.message
        held.used_ms = self._clock.now_ms()
        return None

    def given_back(self, rung: str, session: KeptSession | None) -> None:
        """A show is over that had this session. (The rung may have another one by now.)"""
        if (held := self._held.get(rung)) is not None and held.kept is session:
            held.used_ms = self._clock.now_ms()
            if held.kept.state != "open":
                self._drop(rung, held.kept.why or "it is over")

    def tidy(self) -> None:
        """Close what nobody used for too long, and forget what has ended."""
        for rung, held in list(self._held.items()):
            if held.kept.state == "closed" or (not held.kept.lent and self._clock.now_ms() >= self._until_ms(held)):
                self._drop(rung, "nobody needed it")

    def price(self) -> float:
        """What a minute of the sessions that nobody uses costs."""
        idle = [held for held in self._held.values() if not held.kept.lent and held.kept.state == "open"]
        return sum(held.plan.capabilities.price_per_minute or 0.0 for held in idle)

    def next_ms(self) -> int | None:
        """When the next session is to be closed."""
        return min((self._until_ms(held) for held in self._held.values() if not held.kept.lent), default=None)

    def account(self) -> None:
        """Tell what has been open since this was told the last time."""
        for held in list(self._all):
            kept = held.kept
            age_ms = 0 if kept.opened_ms is None or kept.session_id is None else kept.age_ms
            if age_ms > held.billed_ms:
                self._spend(held.plan, age_ms - held.billed_ms)
                held.billed_ms = age_ms
            if kept.state == "closed":
                self._all.remove(held)

    def close_all(self, reason: str) -> None:
        """Begin to close every session."""
        for rung in list(self._held):
            self._drop(rung, reason)

    async def closed(self) -> None:
        """Return when all that are being closed have ended."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        self.account()

    # ---

    def _until_ms(self, held: Held) -> int:
        idle = held.kept.terms.capabilities.idle_limit_ms
        keep_ms = self.keep_ms if idle is None else max(0, min(self.keep_ms, idle - IDLE_MARGIN_MS))
        return min(held.used_ms + keep_ms, (held.kept.opened_ms or held.used_ms) + held.lasts_ms)

    def _new(self, rung: str, plan: Plan, means: Means) -> Held:
        folder = self._folder / rung
        folder.mkdir(parents=True, exist_ok=True)
        terms = Terms(
            provider=means.provider,
            settings=plan.session,
            env=means.env,
            transports=transports_for(rung, means.env),
            name=self._name,
            lasts_ms=LASTS_MS,
            place_of=plan.place_of,
        )
        kept = KeptSession(terms, folder, state_dir=means.state_dir)
        held = self._held[rung] = Held(kept, rung, plan, self._clock)
        self._all.append(held)
        kept.on_change = self._on_change
        return held

    def _drop(self, rung: str, reason: str) -> None:
        held = self._held.pop(rung, None)
        if held is None:
            return
        task = asyncio.create_task(self._close(held, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close(self, held: Held, reason: str) -> None:
        with contextlib.suppress(PlaybookError):  # the journal has it, and it is ended when the kiosk is started again
            await held.kept.aclose(reason)
        self.account()
        self._on_change()
