"""Which show is next: what signals and cron times ask for, and what waits.

A show that is asked for begins at once, or after the one that is being performed (`defer`), or ends that one
(`cut`), or is given up (`drop`). The idle show makes way for any other. With a cooldown a signal asks in vain while
its show waits or is performed, and for that long afterwards. Pure: the time is given.
"""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from playbook.kiosk.file import Kiosk, Over, Play

MISSED = dt.timedelta(minutes=1)
"""A cron time that is longer ago was missed: the machine slept, or its clock was set forward. It is not made up for."""
MAX_WAITING = 100
"""So many shows may wait; whoever asks for more is refused."""
IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Request:
    """A show that somebody or something asked for."""

    show: str
    asked: str
    due: dt.datetime
    over: Over = "defer"
    play: Play | None = None

    @property
    def idle(self) -> bool:
        return self.play is None


@dataclass(frozen=True, slots=True)
class Refusal:
    """One that will not be performed, and why."""

    show: str
    asked: str
    cause: str


@dataclass(slots=True)
class Schedule:
    """The shows to come. `performing` is the one that is being performed."""

    kiosk: Kiosk
    now: dt.datetime
    performing: Request | None = None
    _waiting: deque[Request] = field(default_factory=deque)
    _cron: dict[int, dt.datetime] = field(default_factory=dict)
    _cooled: dict[Play, dt.datetime] = field(default_factory=dict)
    _idle_due: dt.datetime | None = None

    def __post_init__(self) -> None:
        self._plan_crons()
        self._idle_due = self.now

    # --- what comes

    def signal(self, name: str, now: dt.datetime) -> Iterator[Request | Refusal]:
        """What becomes of every entry that waits for this signal."""
        for play in self.kiosk.plays:
            if play.on == name:
                yield self._ask(Request(play.show, name, now, play.over, play), now)

    def knows(self, name: str) -> bool:
        """Whether a signal asks for anything."""
        return any(play.on == name for play in self.kiosk.plays)

    def tick(self, now: dt.datetime, *, is_open: bool) -> Iterator[Request | Refusal]:
        """The cron times that have come since the last time."""
        if now < self.now - MISSED:  # the clock was set back: what is to come is reckoned anew
            self.now = now
            self._plan_crons()
            self._cooled.clear()
            self._idle_due = min(self._idle_due or now, now)
        self.now = now
        for index, due in sorted(self._cron.items(), key=lambda item: item[1]):
            play = self.kiosk.plays[index]
            assert play.times is not None
            while due is not None and due <= now:
                if is_open and now - due <= MISSED:
                    yield self._ask(Request(play.show, self.cron_name(index), due, play.over, play), now)
                following = play.times.after(max(due, now - MISSED))
                if following is None:
                    del self._cron[index]
                    break
                self._cron[index] = due = following

    def take(self, now: dt.datetime) -> Request | None:
        """The show to begin now, if there is one."""
        if self._waiting:
            return self._waiting.popleft()
        idle = self.kiosk.idle
        if idle.show is not None and self._idle_due is not None and self._idle_due <= now:
            return Request(idle.show, IDLE, now)
        return None

    def finished(self, request: Request, now: dt.datetime) -> None:
        """A show is over, however it ended."""
        self.performing = None
        if request.play is not None and request.play.cooldown_ms:
            self._cooled[request.play] = now + dt.timedelta(milliseconds=request.play.cooldown_ms)
        self._idle_due = now + dt.timedelta(milliseconds=self.kiosk.idle.every_ms)

    def next_due(self) -> dt.datetime | None:
        """When something is due of which nobody need tell."""
        dues = [*self._cron.values()]
        if self.kiosk.idle.show is not None and self._idle_due is not None:
            dues.append(self._idle_due)
        return min(dues, default=None)

    def close(self) -> list[Refusal]:
        """The kiosk closes: what waits is refused."""
        refused = [Refusal(request.show, request.asked, "the kiosk closes") for request in self._waiting]
        self._waiting.clear()
        return refused

    def open(self, now: dt.datetime) -> None:
        """The kiosk opens: the idle show comes at once."""
        self._idle_due = now

    # --- deciding

    def _ask(self, request: Request, now: dt.datetime) -> Request | Refusal:
        cause = self._objection(request, now)
        if cause is not None:
            return Refusal(request.show, request.asked, cause)
        if request.over == "cut":
            self._waiting.appendleft(request)
        else:
            self._waiting.append(request)
        return request

    def _objection(self, request: Request, now: dt.datetime) -> str | None:
        play, busy = request.play, self.performing
        if play is not None and play.cooldown_ms:
            if self._cooled.get(play, now) > now:
                return "cooldown"
            if any(each is not None and each.play == play for each in (busy, *self._waiting)):
                return "it is being performed, or waits"
        if request.over == "drop" and ((busy is not None and not busy.idle) or self._waiting):
            return "another show is being performed"
        return f"{MAX_WAITING} shows wait" if len(self._waiting) >= MAX_WAITING else None

    def ends(self, request: Request) -> bool:
        """Whether a show that was just accepted ends the one that is being performed."""
        return self.performing is not None and (self.performing.idle or request.over == "cut")

    def _plan_crons(self) -> None:
        found = {index: play.times.after(self.now) for index, play in enumerate(self.kiosk.plays) if play.times is not None}
        self._cron = {index: due for index, due in found.items() if due is not None}

    def cron_name(self, index: int) -> str:
        """What a cron entry is called in the log."""
        times = self.kiosk.plays[index].times
        return "" if times is None else str(times)
