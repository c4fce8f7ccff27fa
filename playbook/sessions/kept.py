"""One session of a provider, opened once and lent to one performance after another.

`KeptSession` owns what belongs to the session: its credentials and transports, its entry in the journal, `session.json`, the viewer, its
clock. A `Lease` is what a performance has of it: the same calls as the session's own, and the events that concern this performance.

* The first performance sends bare task ids, later ones with a prefix that no other has, on the wire alone. A report of
  an earlier performance's line that comes late or twice therefore names a task that is not this performance's, and is
  left aside.
* A lease is ended by the performance: it gives the session back, or has it ended. A session that has died, or that may
  still be speaking, is never lent again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from playbook.clock import Clock
from playbook.errors import Place, ProviderError, SetupError, UsageError, reason_of
from playbook.events import (
    Event,
    PlayAudio,
    ProviderFailed,
    SayText,
    SessionClosed,
    SessionOpened,
    SourceJoined,
    SourceLeft,
    StopSpeaking,
)
from playbook.folders import VIEWER, publish, withdraw
from playbook.journal.journal import Journal, NoEntry
from playbook.language import total_ms
from playbook.model import Capabilities, Plan, WaitEvent
from playbook.ports import CLOSE_BUDGET_S, CREATE_BUDGET_S, Transports, Viewer
from playbook.providers.base import Context, Material, Provider
from playbook.record.redact import Redactor

if TYPE_CHECKING:
    from playbook.speech.audio import Sound
    from playbook.speech.show import ShowRecorder

WAITS_MS = 3_420_000
"""How long a show may take that waits for somebody, where nothing else is said."""
KEPT = "the session is kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a session is opened with. `name` is what a vendor may call it, `lasts_ms` how long it is needed."""

    provider: Provider
    settings: Mapping[str, Any]
    env: Mapping[str, str]
    transports: Transports
    name: str
    lasts_ms: int
    place_of: Callable[[str], Place | None] = lambda _: None

    @property
    def capabilities(self) -> Capabilities:
        """What the provider can do with these settings."""
        return self.provider.capabilities(self.settings)


def length_ms(plan: Plan) -> int:
    """How long a session is needed that is opened for this plan alone, with the wait for its beginning."""
    if plan.limits.longest_ms is not None:
        return plan.limits.longest_ms
    waits = plan.start.waits or any(isinstance(step.action, WaitEvent) and step.skipped is None for step in plan.steps)
    planned_ms = 2 * total_ms(plan)
    return (max(planned_ms, WAITS_MS) if waits else planned_ms) + (plan.limits.max_wait_ms or 0)


class KeptSession:
    """A session, not yet opened. `folder` gets `session.json`; `state_dir` is the journal's (None: the session costs nothing).

    Raises `SetupError` where a credential is missing. With `once` it serves one performance and ends with it.
    """

    def __init__(
        self, terms: Terms, folder: Path, *, state_dir: Path | None = None, clock: Clock | None = None, once: bool = False
    ) -> None:
        self.terms, self.folder, self.once = terms, folder, once
        self.clock = clock or Clock()
        self.redact = Redactor()
        """Hides what the session has sealed."""
        self.session_id: str | None = None
        self.viewer: Viewer | None = None
        self.state: Literal["new", "opening", "open", "closing", "closed"] = "new"
        self.why = ""
        """Why it is closed, or being closed."""
        self.opened_ms: int | None = None
        """When it was opened, or began to be, by its clock."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when it was opened, given back or lost, and when it has ended."""
        self._sources: dict[str, SourceJoined] = {}  # who tells of speech now
        self.lost: str | None = None
        """Why it cannot be spoken through any more."""
        self.failed: str | None = None
        """Why ending it failed: it may still be open, and the journal has it."""
        self._crash: BaseException | None = None
        self._lease: Lease | None = None
        self._leases = 0
        self._changed = asyncio.Event()
        journal = NoEntry() if state_dir is None else Journal(state_dir, redact=self._hide).entry(folder.name, terms.name, folder)
        self._session = terms.provider.connect(
            Context(
                settings=terms.settings,
                capabilities=terms.capabilities,
                name=terms.name,
                lasts_ms=terms.lasts_ms,
                clock=self.clock,
                emit=self._take,
                env=terms.env,
                transports=terms.transports,
                journal=journal,
                seal=self._seal,
                publish=self._publish,
                crash=self._crashed,
                redact=self._hide,
                place_of=terms.place_of,
                keep=lambda name: folder / name,
            )
        )

    @property
    def lent(self) -> bool:
        """Whether a performance has it."""
        return self._lease is not None

    @property
    def age_ms(self) -> int:
        """How long it has been open."""
        return 0 if self.opened_ms is None else self.clock.now_ms() - self.opened_ms

    def refuse(self, plan: Plan) -> None:
        """Raise `UsageError` when it cannot perform this plan now."""
        if self.state in ("closing", "closed"):
            raise UsageError(f"the session is closed: {self.why}", remedy="open another one")
        if self._lease is not None:
            raise UsageError("the session is lent already; it serves one performance at a time", remedy="wait until that one is over")
        if self.state == "opening":
            raise UsageError("the session is still being opened", remedy="wait until it is open")
        if self.once:  # it was opened with this plan's own settings
            return
        if plan.provider != self.terms.provider.name:
            raise UsageError(f"the plan is for {plan.provider}, and the session is {self.terms.provider.name}'s")
        if other := differing(self.terms.settings, plan.session):
            raise UsageError(f"the plan has other settings than the session: {', '.join(other)}", remedy="open a session with the plan's")

    def lend(self, plan: Plan, emit: Callable[[Event], None], *, crash: Callable[[BaseException], None], redact: Redactor) -> Lease:
        """Lend it to a performance of this plan, to be loaded and opened. Raises `UsageError`."""
        self.refuse(plan)
        self._leases += 1
        redact.absorb(self.redact)
        self._lease = Lease(self, plan, self._leases, emit, crash, redact)
        return self._lease

    async def open(self) -> None:
        """Open it before any performance has it. Raises `ProviderError`."""
        if self.state == "new":
            self._begin()
        while self.state == "opening":
            await self.change()
        if self.state != "open":
            raise ProviderError(self.why)

    async def aclose(self, reason: str = "end") -> None:
        """End it, and return when it has ended. Raises `ProviderError` when it could not be ended."""
        if self.state == "new":
            self._over(reason)
        self.close(reason)
        try:
            async with asyncio.timeout(CREATE_BUDGET_S + CLOSE_BUDGET_S):
                while self.state != "closed":
                    await self.change()
        except TimeoutError:
            self.failed = "ending the session took too long"
            self._over(reason)
        if self._crash is not None:
            raise self._crash
        if self.failed is not None:
            raise ProviderError(self.failed)

    def close(self, reason: str) -> None:
        """Begin to end it; called again, insist on it."""
        if self.state == "closed":
            return
        if self.state != "closing":
            self.state, self.why = "closing", reason
        self._session.close(reason)

    async def change(self) -> None:
        """Return when something about it has changed."""
        self._changed.clear()
        await self._changed.wait()

    # the lease's side

    def _begin(self) -> None:
        """Open it, or make it ready for what was loaded."""
        if self.state == "new":
            self.state, self.opened_ms = "opening", self.clock.now_ms()
        self._session.open()

    def _given_back(self) -> None:
        self._lease = None
        self._tell()

    # what the session tells

    def _take(self, event: Event) -> None:
        lease = self._lease
        if isinstance(event, SessionOpened):
            self.session_id = event.session
            if self.state == "opening":
                self.state = "open"
        elif isinstance(event, ProviderFailed) and event.task is None:
            self.lost = event.reason
            if self.state == "opening" and event.session is None:
                self._over(event.reason)
            elif lease is None:
                self.close(event.reason)
        elif isinstance(event, SessionClosed):
            self.failed = event.reason if event.status == "failed" else None
            self._over(self.why or "it has ended")
        elif isinstance(event, SourceJoined):
            self._sources[event.source] = event
        elif isinstance(event, SourceLeft):
            self._sources.pop(event.source, None)
        if lease is not None:
            lease.take(event)
            if isinstance(event, SessionOpened):
                lease.tell_of(self._sources.values())
        if isinstance(event, (SessionOpened, SessionClosed, ProviderFailed)):
            self._tell()

    def _over(self, reason: str) -> None:
        self.state, self.why = "closed", reason
        if not self.once:  # the run's own folder is its business
            withdraw(self.folder)
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self.on_change()

    def _seal(self, secret: str) -> None:
        self.redact.add(secret)
        if self._lease is not None:
            self._lease.redact.add(secret)

    def _hide(self, text: str) -> str:
        return (self._lease.redact if self._lease is not None else self.redact)(text)

    def _crashed(self, error: BaseException) -> None:
        if self._lease is not None:
            self._lease.crash(error)
        else:
            self._crash = self._crash or error
            self.close("internal error")

    def _publish(self, viewer: Viewer) -> None:
        """Only the owner may read what lets a viewer in, and it is gone when the session is."""
        self.viewer = viewer
        path = self.folder / VIEWER
        try:
            publish(self.folder, json.dumps(viewer.to_json(), indent=1))
        except OSError as error:
            raise SetupError(f"disk: {path} cannot be written: {reason_of(error)}") from error


class Lease:
    """What a performance has of a session. Its clock begins when the lease does."""

    def __init__(
        self,
        kept: KeptSession,
        plan: Plan,
        number: int,
        emit: Callable[[Event], None],
        crash: Callable[[BaseException], None],
        redact: Redactor,
    ) -> None:
        self._kept, self._session, self._plan = kept, kept._session, plan
        self._emit, self.crash, self.redact = emit, crash, redact
        self.prefix = "" if number == 1 else f"{number}:"
        self.began_ms = 0 if kept.once else kept.clock.now_ms()
        self.clock = kept.clock if kept.once else kept.clock.later(self.began_ms)
        self._joined: set[str] = set()
        self._over = False

    @property
    def kept(self) -> KeptSession:
        """The session itself."""
        return self._kept

    def load(self, sound: Callable[[str], Sound], show: ShowRecorder) -> None:
        """Give the session what belongs to the performance. Raises `SetupError`."""
        self._session.load(Material(plan=self._plan, sound=sound, show=show))

    def open(self) -> None:
        self._kept._begin()

    def say(self, command: SayText) -> None:
        self._session.say(replace(command, task=self.prefix + command.task))

    def play_audio(self, command: PlayAudio) -> None:
        self._session.play_audio(replace(command, task=self.prefix + command.task))

    def interrupt(self, command: StopSpeaking) -> None:
        self._session.interrupt(replace(command, task=self.prefix + command.task))

    def close(self, reason: str) -> None:
        """Have the session ended. Leads to one `SessionClosed`."""
        if not self._over:
            self._kept.close(reason)

    def give_back(self, reason: str) -> None:
        """The performance is over, and nothing of it can be heard any more. Leads to one `SessionClosed`."""
        if self._kept.once or self._kept.lost or self._kept.state != "open":
            self.close(reason)
        elif not self._over:
            self.end()
            self._emit(SessionClosed(KEPT))

    def end(self) -> None:
        """The performance takes nothing any more, whatever has become of it."""
        if not self._over:
            self._over = True
            self._kept._given_back()

    def take(self, event: Event) -> None:
        """What the session tells, as far as it concerns this performance."""
        task = getattr(event, "task", None)
        if isinstance(event, SourceJoined):
            self._joined.add(event.source)
        if task is None:
            self._emit(event)
        elif task.startswith(self.prefix) and (self.prefix or ":" not in task):
            self._emit(replace(event, task=task.removeprefix(self.prefix)) if self.prefix else event)

    def tell_of(self, sources: Iterable[SourceJoined]) -> None:
        """Tell the performance of those sources that it has not seen join."""
        for joined in sources:
            if joined.source not in self._joined:
                self.take(joined)


def differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The names of settings that are not the same in both."""
    return [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name) or (name in ours) != (name in theirs)]
