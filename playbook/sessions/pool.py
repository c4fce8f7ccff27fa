"""Who keeps sessions between performances and lends them: one for each provider and set of settings.

* A performance gets the session that is open, if what is left of it suffices. Before a cap or an idle limit is met, the
  next session is opened while the last show is still performed, and they change places at that show's boundary: nobody
  waits, and no show is cut.
* Never more than two sessions of one kind are open, whatever the vendor takes to end one.
* What nobody has leased for `keep_ms` is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playbook.clock import Clock
from playbook.errors import PlaybookError, ProviderError, SetupError, UsageError, reason_of
from playbook.language import total_ms
from playbook.model import Plan, WaitEvent
from playbook.ports import Transports
from playbook.providers.base import Provider
from playbook.sessions.kept import KeptSession, Terms, differing

LEAD_MS = 30_000
"""How long before it is needed the next session begins to be opened."""
LASTS_MS = 3_600_000
"""How long a session is kept at most, unless the pool is told another limit."""
MARGIN_MS = 2_000
"""What a show may take longer than planned, beside a fifth of it."""
AT_ONCE_MS = 1_000
"""Within this after a show the next one may begin, on the same session."""
NEVER = 2**62
MOST = 2
"""How many sessions of one kind may be open."""


@dataclass(slots=True, eq=False)
class _Kind:
    """The sessions for one provider and one set of settings: the one that is lent, and the one that follows it."""

    provider: Provider
    settings: Mapping[str, Any]
    current: KeptSession | None = None
    following: KeptSession | None = None
    alive: set[KeptSession] = field(default_factory=set)  # that have not ended
    asked: bool = False  # somebody waits for a session
    taken: bool = False  # the current one was given out, to be leased
    need_ms: int = 0  # of the last show
    ends_ms: int = 0  # when that should be over
    free_ms: int = 0  # since when nobody has the current one
    tried_ms: int = -LEAD_MS  # when one that follows was last begun, in vain
    room: asyncio.Event = field(default_factory=asyncio.Event)  # one has ended
    timer: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether a performance has the current session, or is about to."""
        return self.asked or self.taken or (self.current is not None and self.current.lent)


class Pool:
    """Lends sessions, of which each has a folder below `folder`. `state_dir` is the journal's (None: they cost nothing). `name` is what a
    vendor may call a session, `lasts_ms` the longest that one is kept."""

    def __init__(
        self,
        folder: Path,
        *,
        env: Mapping[str, str],
        transports: Callable[[str], Transports],
        state_dir: Path | None = None,
        keep_ms: int = 0,
        lasts_ms: int = LASTS_MS,
        name: str = "playbook",
    ) -> None:
        self._folder, self._env, self._transports, self._state_dir = folder, env, transports, state_dir
        self._keep_ms, self._lasts_ms, self._name = keep_ms, lasts_ms, name
        self._clock = Clock()
        self._kinds: list[_Kind] = []
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def sessions(self) -> tuple[KeptSession, ...]:
        """All that have not ended."""
        return tuple(session for kind in self._kinds for session in kind.alive)

    async def session_for(self, plan: Plan, provider: Provider) -> KeptSession:
        """A session that is open, and will last for this plan: to be leased at once. Raises `ProviderError` or `SetupError`
        when none can be had, `UsageError` when the pool is closed or has lent it already."""
        if self._closed:
            raise UsageError("the pool is closed")
        kind = self._kind(plan, provider)
        if kind.busy:
            raise UsageError("the session is lent already; it serves one performance at a time", remedy="wait until that one is over")
        kind.asked, kind.need_ms = True, expected_ms(plan)
        try:
            session = await self._suitable(kind)
        finally:
            kind.asked = False
        kind.taken, kind.ends_ms = True, self._clock.now_ms() + kind.need_ms
        self._review(kind)
        return session

    async def aclose(self) -> None:
        """End all sessions. Raises the first `ProviderError` of those that could not be ended."""
        self._closed = True
        for kind in self._kinds:
            if kind.timer is not None:
                kind.timer.cancel()
        ends = [asyncio.ensure_future(session.aclose("the pool is closed")) for session in self.sessions]
        for task in tuple(self._tasks):
            task.cancel()
        results = await asyncio.gather(*ends, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def __aenter__(self) -> Pool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # which session

    def _kind(self, plan: Plan, provider: Provider) -> _Kind:
        for kind in self._kinds:
            if kind.provider.name == provider.name and not differing(kind.settings, plan.session):
                return kind
        kind = _Kind(provider, plan.session)
        self._kinds.append(kind)
        return kind

    async def _suitable(self, kind: _Kind) -> KeptSession:
        """The current session, if it lasts; else the one that follows it; else a new one. It is open."""
        if kind.current is not None and self._left_ms(kind, kind.current) < kind.need_ms:
            self._change(kind)
        if kind.current is None:
            kind.current = await self._new(kind)
        session = kind.current
        try:
            await session.open()
        except ProviderError:
            kind.current = None
            raise
        return session

    async def _new(self, kind: _Kind) -> KeptSession:
        """A session that is not yet opened, as soon as there is room for one."""
        while len(kind.alive) >= MOST:
            kind.room.clear()
            await kind.room.wait()
        self._count += 1
        folder = self._folder / str(self._count)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(f"the folder {folder} cannot be made: {reason_of(error)}") from error
        terms = Terms(
            provider=kind.provider,
            settings=kind.settings,
            env=self._env,
            transports=self._transports(kind.provider.name),
            name=self._name,
            lasts_ms=self._lasts_ms,
        )
        session = KeptSession(terms, folder, state_dir=self._state_dir)
        kind.alive.add(session)
        session.on_change = lambda: self._changed(kind, session)
        return session

    # what becomes of them

    def _changed(self, kind: _Kind, session: KeptSession) -> None:
        """It was opened, given back or lost, or has ended."""
        if session.state == "closed":
            kind.alive.discard(session)
            kind.room.set()
            kind.following = None if kind.following is session else kind.following
        if session is kind.current and not session.lent:
            kind.taken = False
            kind.free_ms = self._clock.now_ms()
            if session.state == "closed":
                kind.current = None
        self._review(kind)

    def _review(self, kind: _Kind) -> None:
        """See to what is due, and come back when the next thing is."""
        if kind.timer is not None:
            kind.timer.cancel()
            kind.timer = None
        if self._closed or kind.asked:
            return
        if kind.current is None:
            kind.current, kind.following = kind.following, None
        if kind.current is not None:
            due_ms = self._while_busy(kind, kind.current) if kind.busy else self._while_free(kind, kind.current)
            if due_ms is not None:
                kind.timer = self._clock.call_at(due_ms, lambda: self._review(kind))

    def _while_busy(self, kind: _Kind, current: KeptSession) -> int | None:
        """While a show is performed: have the next session open at its end, if this one will not last for another show."""
        if self._worn_ms(kind, current) >= kind.ends_ms:
            return None
        return self._follow_at(kind, kind.ends_ms - self._lead_ms(kind))

    def _while_free(self, kind: _Kind, current: KeptSession) -> int | None:
        """While nobody has it: end it after `keep_ms`, or change it before it is worn or idle for too long."""
        now, over_ms = self._clock.now_ms(), kind.free_ms + self._keep_ms
        change_ms = min(self._worn_ms(kind, current), self._idle_ms(kind, current))
        if now >= over_ms:
            for session in tuple(kind.alive):
                session.close("nobody has leased it")
            return None
        if change_ms >= over_ms:
            return over_ms
        if now >= change_ms and (kind.following is None or kind.following.state == "open"):
            self._change(kind)
            return now
        due_ms = self._follow_at(kind, max(change_ms - self._lead_ms(kind), kind.free_ms + AT_ONCE_MS))
        return min(due for due in (due_ms, change_ms, over_ms) if due is not None and due > now)

    def _follow_at(self, kind: _Kind, due_ms: int) -> int | None:
        """Begin at that time to open the session that follows, if there is none. Gives the time where it is yet to come."""
        now, lead_ms = self._clock.now_ms(), self._lead_ms(kind)
        if kind.following is not None or lead_ms + kind.need_ms > self._cap_ms(kind):
            return None
        due_ms = max(due_ms, kind.tried_ms + LEAD_MS)
        if now < due_ms:
            return due_ms
        kind.tried_ms = now
        task = asyncio.ensure_future(self._follow(kind))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    async def _follow(self, kind: _Kind) -> None:
        """Open the session that follows. Whether it can be had, whoever asks for one next will be told."""
        with contextlib.suppress(PlaybookError):
            kind.following = await self._new(kind)
            await kind.following.open()
            kind.tried_ms = -LEAD_MS

    def _change(self, kind: _Kind) -> None:
        """Let the current session be followed by the next one, if there is one."""
        old, kind.current, kind.following = kind.current, kind.following, None
        if old is not None:
            old.close("another session follows it")

    def _cap_ms(self, kind: _Kind) -> int:
        """How long one of its sessions can be spoken through."""
        usable_ms = kind.provider.capabilities(kind.settings).usable_ms
        return self._lasts_ms if usable_ms is None else min(self._lasts_ms, usable_ms)

    def _left_ms(self, kind: _Kind, session: KeptSession) -> int:
        """How long this one can still be."""
        return -1 if session.lost or session.state in ("closing", "closed") else self._cap_ms(kind) - session.age_ms

    def _worn_ms(self, kind: _Kind, session: KeptSession) -> int:
        """From when on it lasts for no further show."""
        return self._clock.now_ms() + self._left_ms(kind, session) - kind.need_ms

    def _lead_ms(self, kind: _Kind) -> int:
        return min(LEAD_MS, self._cap_ms(kind) // 4)

    def _idle_ms(self, kind: _Kind, session: KeptSession) -> int:
        """When the vendor ends it because nothing was said for so long."""
        limit_ms = kind.provider.capabilities(kind.settings).idle_limit_ms
        return NEVER if limit_ms is None else max(kind.free_ms, self._clock.now_ms() - session.age_ms) + limit_ms


def expected_ms(plan: Plan) -> int:
    """How long a show of this plan takes, on the safe side. One that waits for somebody may take as long as its limit says."""
    planned_ms = total_ms(plan) * 6 // 5 + plan.start.delay_ms + plan.capabilities.tail_ms + MARGIN_MS
    waits = plan.start.kind == "go" or any(isinstance(step.action, WaitEvent) and step.skipped is None for step in plan.steps)
    return max(planned_ms, plan.limits.max_duration_ms or 0) if waits else planned_ms
