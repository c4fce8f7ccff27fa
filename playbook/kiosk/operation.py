"""A kiosk in operation: hours, requests, rungs, one show after the other, for ever.

One task does all of it, so that nothing happens twice at a time. It sleeps until the next moment that it knows of,
or until a signal or the end of a show wakes it up, and looks at the wall clock anew each time: whatever the clock
did meanwhile, what is due is due.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from playbook.clock import Clock, wall_time
from playbook.errors import PlaybookError
from playbook.events import Event
from playbook.kiosk.attempt import Attempt
from playbook.kiosk.file import RESERVED, Kiosk
from playbook.kiosk.keeping import Keeping
from playbook.kiosk.money import Purse
from playbook.kiosk.programme import Plans, Programme
from playbook.kiosk.progress import Progress
from playbook.kiosk.proof import Proof
from playbook.kiosk.rungs import OPENING_MS, Rungs
from playbook.kiosk.schedule import Refusal, Request, Schedule
from playbook.kiosk.stand import Stand
from playbook.language import total_ms
from playbook.model import Plan
from playbook.perform.performance import Options

if TYPE_CHECKING:
    from playbook.kiosk.screen import Screen

CLOSING_MS = 2_000
"""So long before the hours are over whatever is still performed is ended, so that no session outlives them."""
POLL_S = {"system": 1.0, "virtual": 600.0}
"""How long the loop sleeps at most. On the system clock it has to show that it lives, and see files that change."""

Reload = Callable[[], "tuple[Sequence[str], Programme] | None"]


class Operation:
    """Runs a programme on a stand. `say` tells people what is no entry of the log; `beat` is called as long as the
    loop goes round."""

    def __init__(
        self,
        programme: Programme,
        stand: Stand,
        proof: Proof,
        keeping: Keeping,
        purse: Purse,
        *,
        reload: Reload = lambda: None,
        say: Callable[[str], None] = lambda _: None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.stand, self.proof = stand, proof
        self.clock = Clock()
        self.is_open = False
        self.shows = 0
        self.screen: Screen | None = None
        """Shows what is performed, where there are pages."""
        self.performing: Attempt | None = None
        self._programme, self._keeping = programme, keeping
        self._reload, self._say, self._beat = reload, say, beat
        self._schedule = Schedule(programme.kiosk, wall_time())
        self._closes: dt.datetime | None = None
        self._until: dt.datetime | None = None
        self._stopping: str | None = None
        self._pruned: dt.date | None = None
        self._wake = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self.rungs = Rungs(programme, stand, purse, keeping.out / "sessions", self.clock, self.wake)

    @property
    def kiosk(self) -> Kiosk:
        return self._programme.kiosk

    @property
    def first_plan(self) -> Plan:
        """What the operator sees before the first show."""
        plans = next(iter(self._programme.plans.values()))
        return next(iter(plans.values()))

    @property
    def show(self) -> str | None:
        """The show that is being performed."""
        return None if self._schedule.performing is None else self._schedule.performing.show

    def status(self) -> dict[str, Any]:
        """What somebody far away wants to know."""
        return {
            "kiosk": self.kiosk.name,
            "state": "online",
            "open": self.is_open,
            "rung": self.rungs.current,
            "show": self.show,
            "shows": self.shows,
            "possible": self.rungs.best() is not None,
            "disk": self.proof.disk,
        }

    # --- from outside

    def offer(self, signal: str, *, source: str, step: str | None = None) -> str | None:
        """A signal: the show that is performed takes it, or it asks for one. Gives the reason where it means nothing
        now."""
        if signal in RESERVED:
            performing = self.performing
            return "no show is being performed" if performing is None else performing.steer(signal, source, step)
        if self.performing is not None and self.performing.give(signal, source):
            return None
        if not self._schedule.knows(signal):
            return f"nothing waits for the signal '{signal}'"
        now, causes = wall_time(), []
        for each in self._schedule.signal(signal, now) if self.is_open else self._not_open(signal):
            causes += [each.cause] if isinstance(each, Refusal) else []
            self._note(each)
        self._wake.set()
        return ", ".join(causes) or None

    def emit(self, event: Event) -> None:
        """Somebody tells of the show that is performed."""

    def no_more(self, source: str) -> None:
        """A control has ended. A kiosk waits for the others, for ever."""

    def stop(self, cause: str) -> None:
        """Stop in order: the show, its session, the log."""
        self._stopping = self._stopping or cause
        self._wake.set()

    def wake(self) -> None:
        """Look at the clock again."""
        self._wake.set()

    def _not_open(self, signal: str) -> list[Refusal]:
        return [Refusal(play.show, signal, "the kiosk is closed") for play in self.kiosk.plays if play.on == signal]

    # --- the loop

    async def run(self, until: dt.datetime | None = None, *, cause: str = "started") -> str:
        """Go on until `until`, or until somebody stops it. Gives the cause."""
        self._until = until
        self._schedule.open(wall_time())
        try:
            while not self._over(wall_time()):
                now = wall_time()
                self._follow_hours(now, cause)
                cause = "hours"
                self._tick(now)
                request = self._schedule.take(now) if self.is_open else None
                if request is not None and self._fits(request, now):
                    await self._perform(request)
                    await self._look_at_files()
                else:
                    await self._sleep(self._schedule.next_due() if self.is_open and request is None else None)
                    await self._look_at_files()
        finally:
            await self._let_close()
        self._write("stopped", cause=self._stopping)
        return self._stopping or ""

    def _over(self, now: dt.datetime) -> bool:
        if self._until is not None and now >= self._until:
            self._stopping = self._stopping or "its time is over"
        return self._stopping is not None

    def _follow_hours(self, now: dt.datetime, cause: str) -> None:
        is_open, self._closes = self.kiosk.hours.state(now)
        if (today := now.astimezone(self.kiosk.zone).date()) != self._pruned:
            self._pruned = today
            self._keeping.prune(now)
        if is_open and not self.is_open:
            self.rungs.current = self.rungs.best()
            self._schedule.open(now)
            self._write("opened", rung=self.rungs.current, cause=cause)
        elif self.is_open and not is_open:
            self._close()
        self.is_open = is_open

    def _close(self) -> None:
        for refusal in self._schedule.close():
            self._note(refusal)
        self._write("closed", cause="hours")

    def _tick(self, now: dt.datetime) -> None:
        for each in self._schedule.tick(now, is_open=self.is_open):
            self._note(each)

    def _note(self, each: Request | Refusal) -> None:
        """What became of somebody's wish."""
        if isinstance(each, Refusal):
            self._write("refused", show=each.show, asked=each.asked, cause=each.cause)
        elif self.performing is not None and self._schedule.ends(each):
            self.performing.stop(f"the show '{each.show}' begins")

    def _fits(self, request: Request, now: dt.datetime) -> bool:
        """Whether a show ends before the kiosk closes. The idle show is not missed by anybody."""
        if not self.is_open or self._closes is None:
            return True
        longest = max((total_ms(plan) for plan in self._programme.plans[request.show].values()), default=0)
        if now + dt.timedelta(milliseconds=longest + CLOSING_MS) <= self._closes:
            return True
        if not request.idle:
            self._note(Refusal(request.show, request.asked, "the kiosk closes before its end"))
        return False

    async def _sleep(self, due: dt.datetime | None) -> None:
        """Until something is due, or something wakes us up."""
        last_call = None
        if self.is_open and self._closes is not None:
            last_call = self._closes - dt.timedelta(milliseconds=CLOSING_MS)
            if wall_time() >= last_call:
                self.rungs.close("the kiosk closes")
        await self._wait([due, last_call, self._closes, self._until])

    async def _wait(self, dues: Sequence[dt.datetime | None], *also_ms: int) -> None:
        """Until the first of these moments that is to come, a session is to be closed, a rung to be tried, or
        something wakes us up."""
        self._beat()
        moments = [*also_ms, *self.rungs.tend(is_open=self.is_open and self._stopping is None)]
        now, now_ms = wall_time(), self.clock.now_ms()
        left = [(each - now).total_seconds() for each in dues if each is not None and each > now]
        left += [(each - now_ms) / 1000 for each in moments if each > now_ms]
        seconds = max(0.001, min([*left, POLL_S[self.clock.name]]))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    # --- one show

    async def _perform(self, request: Request) -> None:
        show = Progress(request, self.clock.now_ms())
        self._schedule.performing = request
        end = "error"
        while self._stopping is None:
            plans = self._programme.plans[request.show]
            rung = self.rungs.best(plans, show.refused)
            if rung is None:
                break
            attempt = self._begin(show, plans, rung)
            if attempt is None:
                continue
            await self._accompany(attempt)
            if self.screen is not None:
                self.screen.end(attempt.result, attempt.folder)
            verdict = self._judge(show, attempt)
            if verdict in ("done", "stopped"):
                end = "passed" if verdict == "done" else "stopped"
                break
        self.performing = None
        self._conclude(show, end)
        self._schedule.finished(request, wall_time())

    def _begin(self, show: Progress, plans: Plans, rung: str) -> Attempt | None:
        plan = plans[rung]
        if show.step is not None and show.zero_ms is not None:
            plan = plan.after(show.step, again=True, elapsed_ms=self.clock.now_ms() - show.zero_ms)
        if (change := self.rungs.change_to(rung, plans)) is not None:
            self._write("rung", rung=rung, was=change[0], cause=change[1])
        try:
            folder = self._keeping.folder(show.request.show, wall_time())
            attempt = self.rungs.begin(plan, rung, folder, joined=self._joined(plan), keep_sound=self._keeping.sound, watch=self._see)
        except PlaybookError as error:
            self._leave(show, rung, error.message)
            return None
        self.performing = attempt
        if self.screen is not None:
            self.screen.begin(attempt.runner)
        self._closing.add(attempt.task)
        attempt.task.add_done_callback(lambda _: self._closed(attempt))
        return attempt

    async def _accompany(self, attempt: Attempt) -> None:
        """Until the audience hears nothing more of it."""
        while not attempt.over.is_set():
            now, elapsed = wall_time(), self.clock.now_ms() - attempt.began_ms
            closes = None if self._closes is None else self._closes - dt.timedelta(milliseconds=CLOSING_MS)
            if closes is not None and now >= closes:
                attempt.stop("the kiosk closes")
            elif self._over(now):
                attempt.stop(self._stopping or "")
            elif attempt.summary.opened_ms is None and elapsed >= OPENING_MS:
                attempt.give_up(f"it did not open within {OPENING_MS // 1000} s")
            opening = attempt.summary.opened_ms is None and elapsed < OPENING_MS
            await self._wait([self._schedule.next_due(), closes, self._until], *([attempt.began_ms + OPENING_MS] if opening else []))
            self._tick(wall_time())

    def _judge(self, show: Progress, attempt: Attempt) -> str:
        """What an attempt was: the show's end, or the end of a rung."""
        verdict, cause = attempt.verdict
        run = {"rung": attempt.rung, "run": self._keeping.name(attempt.folder), "ms": attempt.ended_ms - attempt.began_ms}
        show.runs.append({key: value for key, value in {**run, "cause": cause}.items() if value is not None})
        show.heard_again(attempt)
        show.cause = cause
        if verdict == "done":
            self.rungs.succeeded(attempt.rung)
            return verdict
        if verdict == "stopped":
            return verdict
        show.go_on_after(attempt)
        if show.step is None and attempt.zero_ms is not None:
            return "done"  # it died after its last line
        if verdict == "disk" and self._keeping.give_up_disk():
            return "disk"
        self._leave(show, attempt.rung, cause or "it failed")
        return "left"

    def _leave(self, show: Progress, rung: str, cause: str) -> None:
        show.refused.add(rung)
        pause_ms = self.rungs.failed(rung, cause)
        show.cause = cause
        self._say(f"{rung} is left for {pause_ms // 1000} s: {cause}")

    def _conclude(self, show: Progress, end: str) -> None:
        request = show.request
        if not show.runs and self._stopping is None:
            self._write("refused", show=request.show, asked=request.asked, cause=show.cause or "no rung can perform it")
            return
        if not show.runs:
            return
        self.shows += 1
        last = show.runs[-1]
        self._write(
            "show",
            show=request.show,
            asked=request.asked,
            rung=last["rung"],
            run=last.get("run"),
            runs=show.runs,
            end=end,
            ms=self.clock.now_ms() - show.began_ms,
            silence_ms=show.silence_ms,
            cause=show.cause if end != "passed" else None,
        )

    # --- what is left behind

    def _joined(self, plan: Plan) -> Callable[[Options], Options]:
        """A performance of this plan is seen on the pages, where there are any."""
        screen = self.screen
        return (lambda options: options) if screen is None else partial(screen.join, plan)

    def _see(self, line: dict[str, Any]) -> None:
        if line.get("command") == "close_session" or "end" in line or line.get("event") in ("session_opened", "provider_failed"):
            self._wake.set()

    def _closed(self, attempt: Attempt) -> None:
        """A session has closed: what it cost is known."""
        self._closing.discard(attempt.task)
        attempt.over.set()
        self._wake.set()
        self.rungs.given_back(attempt)
        self._keeping.done(attempt.folder)
        if attempt.bug is not None:
            self._say("".join(traceback.format_exception(attempt.bug)).rstrip())

    async def _let_close(self) -> None:
        """Wait for the sessions that are being closed."""
        if self.performing is not None:
            self.performing.stop(self._stopping or "the kiosk stops")
        if self._closing:
            await asyncio.wait(set(self._closing))
        await self.rungs.closed()

    def _write(self, event: str, **facts: Any) -> None:
        cost = self.rungs.account()
        self.proof.write(wall_time(), event, **facts, cost=cost or None)

    async def _look_at_files(self) -> None:
        """Take a file that was edited, if it is right."""
        found = await asyncio.to_thread(self._reload) if self.clock.name == "system" else self._reload()
        if found is None:
            return
        said, programme = found
        for words in said:
            self._say(words)
        if programme is not self._programme:
            self._programme = programme
            self.rungs.take_programme(programme)
            self._schedule = Schedule(programme.kiosk, wall_time())
            self._wake.set()
