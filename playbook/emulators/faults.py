"""What can go wrong at a vendor, by name, and what can go wrong with an answer.

Two kinds. The *named faults* are things that happened to people; one table holds them for all emulators and each emulator acts out those
that its vendor could show. They are chosen as `name` or `name@which`, where `which` is a step or task id, the text of a line, or a number
(the first line of a session is 1). An `Injection` spoils answers of given routes, whatever they mean.

Pure data and matching, shared by the emulators. Imports errors alone.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from playbook.errors import UsageError, near_or_all

LATE_MS = 3_000
"""How late `end-late` is."""
TWICE_MS = 400
"""How long after the first the second report of `end-twice` comes."""
AGAIN_MS = 400
"""How long after an interrupt `speech-after-interrupt` speaks on."""
SLOW_MS = 3_000
"""How long `slow-accept` thinks."""
FLAP_MS = 2_000
"""How long `flap` keeps the service away."""
MUTE_MS = 120_000
"""When `mute-after-120s` falls silent, counted from the session's creation."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail. Chosen without `@which`, it strikes at every occasion, or at the `first` alone."""

    description: str
    at: Literal["line", "interrupt", "create"] = "line"
    first: bool = False


FAULTS: Mapping[str, Fault] = {
    "end-missing": Fault("the line is spoken, but its end is never reported"),
    "end-early": Fault("the end is reported when half of the line has been spoken"),
    "end-late": Fault(f"the end is reported {LATE_MS // 1000} s late"),
    "end-twice": Fault("the end is reported a second time, a moment later"),
    "start-missing": Fault("the line is spoken, but its start is never reported"),
    "mute-after-120s": Fault("from 120 s after creation, lines are accepted, but neither spoken nor reported"),
    "interrupt-lost": Fault("the interrupt is accepted and does nothing", at="interrupt"),
    "speech-after-interrupt": Fault("the line stops and, a moment later, speaks on to its end", at="interrupt"),
    "accepted-but-silent": Fault("the line is accepted, but neither spoken nor reported"),
    "session-dies": Fault("the session ends by itself in the middle of the line", first=True),
    "slow-accept": Fault(f"the line is accepted only after {SLOW_MS // 1000} s"),
    "quota-at-create": Fault("the session is refused: the quota is used up", at="create"),
    "rate-limit": Fault("the line is refused once as coming too fast (429, Retry-After: 1)"),
    "flap": Fault(f"the service is away for {FLAP_MS // 1000} s from that line on: connections are closed without an answer", first=True),
    "half-body": Fault("the line is accepted, but the connection breaks in the middle of the answer"),
    "wrong-id": Fault("what is reported of the line names an id that was never sent"),
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """A named fault and where it strikes; without `targets`, as the table says."""

    name: str
    targets: frozenset[str] = frozenset()
    spec: str = ""

    def __str__(self) -> str:
        return self.spec or self.name


def choose(spec: str) -> Chosen:
    """Read `name` or `name@which`. (Which texts a step has, for vendors that are never told an id of ours, `aim` knows, with its plan.)"""
    name, at, which = spec.partition("@")
    if name not in FAULTS:
        raise UsageError(f"unknown fault '{name}'", remedy=near_or_all(name, FAULTS))
    if at and not which:
        raise UsageError(f"the fault '{spec}' says no line after the @", remedy=f"write {name}@ID, {name}@3 for the third line, or {name}")
    return Chosen(name, frozenset({which} if which else ()), spec)


class Faults:
    """The faults that were chosen."""

    def __init__(self, chosen: Iterable[Chosen | str] = ()) -> None:
        self.chosen = tuple(choose(item) if isinstance(item, str) else item for item in chosen)
        self._spent: set[Hashable] = set()
        self._struck: set[Chosen] = set()

    def hits(self, name: str, *names: str) -> bool:
        """Whether this fault strikes an occasion that goes by these names (a line's task, text and number; a creation's number)."""
        for fault in self.chosen:
            if fault.name == name:
                targets = fault.targets or ({"1"} if FAULTS[name].first else None)
                if targets is None or not targets.isdisjoint(names):
                    self._struck.add(fault)
                    return True
        return False

    @property
    def idle(self) -> tuple[Chosen, ...]:
        """Those that never struck."""
        return tuple(fault for fault in self.chosen if fault not in self._struck)

    def once(self, name: str, occasion: Hashable, *names: str) -> bool:
        """`hits`, but only the first time for one occasion."""
        if (name, occasion) in self._spent or not self.hits(name, *names):
            return False
        self._spent.add((name, occasion))
        return True


Act = Literal["serve", "refuse", "close", "lose", "half", "huge", "garbage"]
ACTS: Mapping[str, str] = {
    "serve": "nothing but the delays",
    "refuse": "`status`, `body` and `headers` instead of carrying it out",
    "close": "the connection is closed before the request has been read",
    "lose": "carried out, then the connection is closed instead of an answer",
    "half": "carried out, but the connection breaks in the middle of the answer",
    "huge": "carried out, but the answer has 50 MB",
    "garbage": "carried out, but the answer is HTML",
}


@dataclass(slots=True)
class Injection:
    """Spoils requests that fit `method` and `path` (shell patterns): lets `skip` pass, then strikes `times` times, or for ever (None)."""

    act: Act = "refuse"
    method: str = "*"
    path: str = "*"
    times: int | None = 1
    skip: int = 0
    status: int = 500
    body: Any = None
    """JSON when it is no text."""
    headers: dict[str, str] = field(default_factory=dict)
    before_ms: int = 0
    """A delay before anything is done."""
    after_ms: int = 0
    """A delay between carrying it out and answering."""

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is to be spoiled; counts."""
        if self.times == 0 or not (fnmatch.fnmatchcase(method, self.method) and fnmatch.fnmatchcase(path, self.path)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    def to_json(self) -> dict[str, Any]:
        """As the control page shows it."""
        return asdict(self)

    @staticmethod
    def from_json(value: Any) -> Injection:
        """Read one from the control page. Raises `ValueError`."""
        if not isinstance(value, dict):
            raise ValueError("an injection is a JSON object")
        known = {item.name for item in fields(Injection)}
        if unknown := sorted(set(value) - known):
            raise ValueError(f"unknown in an injection: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        if value.get("act", "refuse") not in ACTS:
            raise ValueError(f"unknown act; known are {', '.join(ACTS)}")
        return Injection(**value)
