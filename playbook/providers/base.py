"""The contract between the runner and a provider.

A provider is one file: a `Provider` that knows, before a run, what it can do with given settings and what is doubtful about a plan, and a
`Session` that is opened, spoken through and closed. A session serves one performance after another; what belongs to it is its `Context`,
what belongs to a performance is its `Material`. The methods of a session return at once; what becomes of them arrives as events through
`Context.emit`:

* `load` gives the performance that comes next. It does no I/O, and raises `SetupError` where the performance cannot be.
* `open` opens the session, or makes one that is open ready for what was loaded. It leads to one `SessionOpened`, or to a `ProviderFailed`
  without a task (with `session` if one was created and must be closed). A session may be opened before anything is loaded.
* `say` and `play_audio` lead to one `TaskAccepted`, or to a `ProviderFailed` with the task; where speech is reported, then to
  `SpeechStarted` and `SpeechEnded` as they come.
* `interrupt` leads to one `TaskAccepted`, or to a `ProviderFailed` with the interrupt's task; where speech is reported, then to a
  `SpeechEnded(interrupted=True, heard_ms=…)` for each line that it stopped, also for one that never began (`heard_ms` 0).
* `close` leads to one `SessionClosed`, and nothing comes after it. Called again meanwhile, it begins anew if it is cut off.

Rules: commands arrive in order and are carried out in order. `close` may come at any moment, also while `open` is under way, and ends
whatever was created. A line is sent at most once; what may or may not have arrived is `ambiguous` and is not repeated. A session that
dies by itself is one `ProviderFailed(outcome="lost")`. Nothing here knows the engine or the log.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

from playbook import ports
from playbook.errors import Place, Problem
from playbook.events import Event
from playbook.model import Capabilities, Length, Plan
from playbook.ports import JournalEntry, SessionRecord, Transports, Viewer

if TYPE_CHECKING:
    from pathlib import Path

    from playbook.clock import Clock
    from playbook.speech.audio import Sound
    from playbook.speech.show import ShowRecorder
    from playbook.speech.voice import Voice
    from playbook.transports.whep import ViewerPlace

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session that the vendor says is open, whoever opened it."""

    session: str
    since: datetime.datetime | None = None
    name: str = ""


@runtime_checkable
class EndsSessions(Protocol):
    """A provider that can end a session of a process that is gone."""

    async def end_session(self, record: SessionRecord, env: Mapping[str, str], transports: Transports) -> None:
        """Return when the session is over, also when it had been already. `record.session` is never None. Raises `ProviderError` or
        `SetupError`. Writes nothing to the journal."""


@runtime_checkable
class ListsSessions(Protocol):
    """A provider whose vendor tells which sessions are open."""

    async def list_sessions(self, env: Mapping[str, str], transports: Transports) -> Sequence[FoundSession]:
        """All that are open with these credentials. Raises `ProviderError` or `SetupError`."""


@dataclass(frozen=True, slots=True)
class Search:
    """What a vendor's list says of a session whose id nobody saw: which surely `is_it`, or else which `may_be`. Neither: not there."""

    is_it: str | None = None
    may_be: Sequence[FoundSession] = ()


@runtime_checkable
class ProbesAccess(Protocol):
    """A provider that can tell, by calls that cost nothing, whether a plan would be let in."""

    async def probe(self, plan: Plan, env: Mapping[str, str], transports: Transports) -> Sequence[str]:
        """What is good, a line each. Raises `ProviderError` or `SetupError` for the first thing that is not."""
        ...


@runtime_checkable
class FindsSessions(Protocol):
    """A provider that can look for a session of which only the intent is known."""

    async def find_session(self, record: SessionRecord, env: Mapping[str, str], transports: Transports) -> Search:
        """Look where it was to be created. Raises `ProviderError` or `SetupError`, also when these credentials would not show it."""


@runtime_checkable
class PacesLines(Protocol):
    """A provider that can tell better than the general estimate how long lines of text take, because its settings bear on it."""

    def lengths(self, plan: Plan) -> Sequence[Length | None]:
        """One entry a step; None for what is no line of text."""


@runtime_checkable
class SpeaksLocally(Protocol):
    """A provider that may have lines spoken by the local voice. It asks for one when it needs it, and is lent the one that the plan was
    measured with, so that nothing is spoken twice."""

    local_voice: Callable[[], Voice]

    def needs_voice(self, plan: Plan) -> bool:
        """Whether a run of this plan is refused where no voice is installed."""


@runtime_checkable
class ShownByVendor(Protocol):
    """A provider whose sessions are seen by a vendor's stream or room. The others are shown by a face of ours."""

    viewer: Literal["whep", "daily"]


@runtime_checkable
class StreamedByVendor(Protocol):
    """A provider whose sessions are seen in a stream by WHEP."""

    def place(self, viewer: Viewer, transports: Transports, env: Mapping[str, str]) -> ViewerPlace:
        """A viewer's place in the stream, to be taken for a page."""


def new_voice() -> Voice:
    """A voice for a provider that was lent none."""
    from playbook.speech.voice import Voice

    return Voice()


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What belongs to a session, from its opening to its end.

    `settings` are the playbook's `session`, valid and rendered, and `capabilities` what the provider can do with them. `name` is what a
    vendor may call the session; `lasts_ms`, how long it has to live. `place_of` tells where a setting was written, for errors.
    `env` holds credentials and base URLs (never read `os.environ`); `transports` are the only way to the outside. `seal` registers a value
    that must never be shown, and `redact` takes all of those out of a text (the log does so by itself; this is for what is cut before it
    gets there). `publish` writes `session.json` for a viewer, and `keep` names a file beside it to write something into (None: nothing is
    kept). `crash` takes an exception that is our bug.
    """

    settings: Mapping[str, Any]
    capabilities: Capabilities
    name: str
    lasts_ms: int
    clock: Clock
    emit: Callable[[Event], None]
    env: Mapping[str, str]
    transports: Transports
    journal: JournalEntry
    seal: Callable[[str], None]
    publish: Callable[[Viewer], None]
    crash: Callable[[BaseException], None]
    redact: Callable[[str], str] = str
    place_of: Callable[[str], Place | None] = lambda _: None
    keep: Callable[[str], Path | None] = lambda _: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What belongs to a performance: its plan, its sounds (decoded, by their digest), and what takes down the sound that we make."""

    plan: Plan
    sound: Callable[[str], Sound]
    show: ShowRecorder | None = None


class Session(ports.Session, Protocol):
    """A provider's session. See the top of the file for what each call owes."""

    def load(self, material: Material) -> None: ...


class Provider(Protocol):
    """What the registry holds. `settings` are the playbook's `session`, already valid by the provider's schema and rendered."""

    name: str
    schema: str
    """The file name of its session schema under `schemas/providers/`."""

    emulator: str = ""
    """Its emulator, as `module:Class`; empty: none."""
    problems: Mapping[str, str] = {}
    """The problems of its own that `check` finds: code and title."""
    stands: Mapping[str, Mapping[str, Any]] = {}
    """Settings for each of its ways to perform, by the name that the contract test (`playbook.testing`) gives it."""

    @property
    def credentials(self) -> Sequence[Sequence[str]]:
        """The environment variables it reads credentials from: ways to be let in, each a group of which all are needed. Empty: none."""

    def capabilities(self, settings: Mapping[str, Any]) -> Capabilities:
        """What it can do with these settings."""

    def check(self, plan: Plan) -> Iterable[Problem]:
        """Problems and warnings of its own about a compiled plan, with the step's `place`."""

    def connect(self, context: Context) -> Session:
        """A session, not yet opened. Does no I/O; raises `SetupError` where a credential is missing."""
