"""The rungs of a kiosk in operation: which performs a show, with which session, for what money; which failed and is
tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from pathlib import Path

from playbook.clock import Clock, wall_time
from playbook.errors import PlaybookError
from playbook.kiosk.attempt import Attempt, Join, Watch
from playbook.kiosk.ladder import Ladder
from playbook.kiosk.lending import Lending
from playbook.kiosk.money import Purse
from playbook.kiosk.programme import FREE, Plans, Programme
from playbook.kiosk.stand import Stand
from playbook.model import Plan

OPENING_MS = 10_000
"""How long a rung may take to open a session. After that the next one performs."""


class Rungs:
    """The ladder, the sessions that are kept for it, and the purse. `wake` is called when a session or a rung has
    changed."""

    def __init__(self, programme: Programme, stand: Stand, purse: Purse, folder: Path, clock: Clock, wake: Callable[[], None]) -> None:
        kiosk = programme.kiosk
        self.current: str | None = None
        """Which performed last, or will perform next."""
        self._programme, self._stand, self._purse, self._clock, self._wake = programme, stand, purse, clock, wake
        self._ladder = Ladder(kiosk.ladder, frozenset(kiosk.ladder) - frozenset(FREE))
        self._lending = Lending(kiosk.name, folder, clock, kiosk.keep_ms, spend=self._spend, on_change=wake)
        self._trying: asyncio.Task[None] | None = None
        self._cause: str | None = None

    def best(self, plans: Plans | None = None, refused: Container[str] = ()) -> str | None:
        """The rung for a show (or for any): the best that works and that the budget allows; None when none can
        perform it."""
        plans = next(iter(self._programme.plans.values()), {}) if plans is None else plans
        dear = self._dear(plans)
        return self._ladder.best(self._clock.now_ms(), [rung for rung in plans if rung not in dear], refused)

    def _dear(self, plans: Plans) -> set[str]:
        """The rungs that the budget does not allow."""
        now = wall_time()
        return {rung for rung, plan in plans.items() if rung not in FREE and self._purse.is_too_dear(plan, now)}

    def change_to(self, rung: str, plans: Plans) -> tuple[str, str] | None:
        """This rung performs now. Gives the one before and the reason, where it was another."""
        was, self.current = self.current, rung
        told, self._cause = self._cause, None
        if was is None or was == rung:
            return None
        if told is not None:
            return was, told
        if was not in plans:
            return was, "it cannot perform the show"
        if was in self._dear(plans):
            return was, "the budget of the day is spent"
        rungs = self._ladder.rungs
        better = was not in rungs or rungs.index(rung) < rungs.index(was)
        return was, "it works again" if better else "it rests"

    def begin(self, plan: Plan, rung: str, folder: Path, *, joined: Join, keep_sound: bool, watch: Watch) -> Attempt:
        """Perform a plan on a rung. Raises `PlaybookError`."""
        means = self._stand.means(rung)
        session = None if rung in FREE else self._lending.take(rung, plan, means)
        return Attempt(plan, rung, folder, means, self._clock, session=session, joined=joined, keep_sound=keep_sound, watch=watch)

    def given_back(self, attempt: Attempt) -> None:
        """An attempt has given its session back, or has ended it."""
        self._lending.given_back(attempt.rung, attempt.session)

    def failed(self, rung: str, cause: str) -> int:
        """It could not open, or died. Gives the pause until it is tried again."""
        self._cause = cause
        return self._ladder.failed(rung, self._clock.now_ms())

    def succeeded(self, rung: str) -> None:
        """It performed a show."""
        self._ladder.succeeded(rung)

    def take_programme(self, programme: Programme) -> None:
        """The file has changed."""
        self._programme = programme
        self._ladder.keep(programme.kiosk.ladder)
        self._ladder.tried_apart = frozenset(programme.kiosk.ladder) - frozenset(FREE)
        self._lending.keep_ms = programme.kiosk.keep_ms

    # --- between shows

    def tend(self, *, is_open: bool) -> list[int]:
        """Close what nobody needs or pays, try what has rested. Gives when this is to be done again, in the clock's
        milliseconds."""
        self._lending.tidy()
        self._lending.account()
        now_ms = self._clock.now_ms()
        paid_ms = self._purse.lasts_ms(self._lending.price(), wall_time())
        if paid_ms == 0:
            self._lending.close_all("the budget of the day is spent")
        if is_open:
            self._try_again()
        found = self._ladder.next_try()
        moments = [self._lending.next_ms(), None if paid_ms is None else now_ms + max(1, paid_ms)]
        moments += [found[1] if found is not None and self._trying is None else None]
        return [each for each in moments if each is not None and each > now_ms]

    def _try_again(self) -> None:
        """Open a session on a rung that has rested, in the background: no visitor waits for it."""
        found = self._ladder.next_try()
        if found is None or self._trying is not None or self._clock.now_ms() < found[1]:
            return
        rung = found[0]
        plan = next((plans[rung] for plans in self._programme.plans.values() if rung in plans), None)
        if plan is not None and rung not in self._dear({rung: plan}):
            self._trying = asyncio.create_task(self._try(rung, plan))

    async def _try(self, rung: str, plan: Plan) -> None:
        try:
            cause = await self._lending.warm(rung, plan, self._stand.means(rung), OPENING_MS / 1000)
        except PlaybookError as error:
            cause = error.message
        if cause is None:
            self._ladder.succeeded(rung)
        else:
            self._ladder.failed(rung, self._clock.now_ms())
        self._trying = None
        self._wake()

    def account(self) -> float:
        """What was spent since this was asked the last time."""
        self._lending.account()
        return self._purse.unwritten()

    def close(self, reason: str) -> None:
        """Begin to close every session."""
        self._lending.close_all(reason)

    async def closed(self) -> None:
        """Return when every session has ended."""
        if self._trying is not None:
            await asyncio.wait([self._trying])
        self._lending.close_all("the kiosk stops")
        await self._lending.closed()

    def _spend(self, plan: Plan, ms: int) -> None:
        self._purse.spend(plan, ms, wall_time())
