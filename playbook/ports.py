"""What the world of the engine offers, as protocols. Nothing is implemented here; who implements it is known where a run is assembled.

Imports the words (`model`, `events`) alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from playbook.events import Event, PlayAudio, SayText, StopSpeaking

if TYPE_CHECKING:
    from playbook.transports.http import Explain, Http
    from playbook.transports.listener import Dialled
    from playbook.transports.room import OnEvent, Room
    from playbook.transports.whep import OnStream, ResourceOf, Stream, StreamAddress

CLOSE_BUDGET_S = 20.0
"""How long ending a session may take, retries included."""
CREATE_BUDGET_S = 30.0
"""How long the end waits, before that, for the answer to a request that creates the session: without it nobody knows what to end. The
last try begins within `Retry.UNSENT` of the first and may take `courier.PATIENCE_S`; then Tavus looks for what it may have created."""
SETTLED_S = 60.0
"""How long after its intent a session may still come into being: our request and its repetitions take half of that, the vendor may go on
when we have stopped listening, and a list of sessions may lag behind."""


class JournalEntry(Protocol):
    """The record of one billed session (`sessions.Journal` writes it; a session that costs nothing needs none)."""

    def intent(self, provider: str, **facts: Any) -> str:
        """Written and synced before the vendor is asked to create anything. Gives a mark that no other session has: as part of a name that
        the vendor lists, it finds the session also when nobody saw its id. Empty where nothing is kept: equal runs ask for the same then.

        Facts with a meaning for all: `price_per_minute`; `max_session_ms`, the vendor's own limit; `unjoined_ms` and `unjoined`, after
        which time, and by which rule of the vendor's, a session ends of which nobody knows."""

    def creating(
        self, provider: str, http: Http, *, id_field: str, end_fields: Sequence[str] = (), **facts: Any
    ) -> AbstractAsyncContextManager[str]:
        """All that has to do with creating a session over HTTP: the intent is written, and requests of `http` are carried by a process that
        outlives ours, which writes down what was created if we are killed before we can: the fields of the answer that name the session
        (`id_field`) and are needed to end it (`end_fields`). A `ProviderError` that is not ambiguous ends the entry. Gives the mark."""

    def created(self, session: str, **end: Any) -> None:
        """The vendor's id, and whatever is needed to end the session from another process (it may be a credential: it is kept, readable by
        its owner alone, only while the session is open)."""

    def ended(self, reason: str) -> None:
        """The session is surely over, or surely never was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A session that the journal holds open.

    `session` is None where only the intent was written: a create whose answer nobody saw. `alive` says whether the process that opened
    it still runs (None: that cannot be known), `host` on which machine it is or was (empty: on this one). `facts` are what the intent was
    given, `end` what `created` was given.
    """

    key: str
    provider: str
    session: str | None
    playbook: str
    run: str
    pid: int
    alive: bool | None
    since: datetime.datetime
    host: str = ""
    folder: Path | None = None
    """The run's."""
    creating: bool = False
    """Whether a process still waits for the vendor's answer, and will write down what it says, also when the one that asked has gone."""
    ends_by: datetime.datetime | None = None
    """When the vendor's own limit will have ended it, where that is known."""
    rule: str = ""
    """By which rule of the vendor's, where it is one for sessions of which nobody knows."""
    mark: str = ""
    """What `intent` gave."""
    price_per_minute: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    end: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def cost(self, now: datetime.datetime) -> float | None:
        """What it is estimated to have cost until now."""
        if self.price_per_minute is None:
            return None
        until = now if self.ends_by is None else min(now, self.ends_by)
        return max(0.0, (until - self.since).total_seconds()) / 60 * self.price_per_minute


class Transports(Protocol):
    """The ways to the outside that a session has, and the only ones. Whether the other side is a vendor, an emulator
    or a cassette cannot be told from here. Nothing is connected before it is used."""

    def http(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        explain: Explain | None = None,
        redact: Callable[[str], str] | None = None,
    ) -> Http:
        """Requests to a service. `headers` carry the credentials, `explain` gives a vendor's statuses their meaning,
        `redact` hides what must not be shown in an error. Raises `SetupError` when the URL is not one, or not safe."""

    def room(self, url: str, on_event: OnEvent) -> Room:
        """The room at a URL, to be opened. Raises `SetupError` where none can be."""

    def listener(self, listen: str | None, url: str, *, header: str, secret: str) -> Dialled:
        """A socket of ours on `listen` (`HOST:PORT`; None: the usual place) that the other side dials by `url`, with
        `secret` in the header `header`. What it is to be told to dial, `Dialled.start` says."""

    def whep(
        self, address: StreamAddress, tell: OnStream, *, vendor_host: str, resource_of: ResourceOf, file: Path | None = None
    ) -> Stream:
        """The stream at a WHEP address, to be opened: what is heard in it goes to `tell`, and its sound to `file`. `vendor_host` is whose
        stream it is; `resource_of` says where its viewer's place is given back. Raises `SetupError` where none can be."""


@dataclass(frozen=True, slots=True)
class Viewer:
    """What shows a session to an audience, and how a page gets there. `kind`: the page speaks and shows a face by itself
    (`local`), receives a stream from `url` (`whep`, by the TURN server `turn` if one was given), or joins the room at
    `url` (`daily`). `token` lets it in."""

    kind: Literal["local", "whep", "daily"]
    provider: str
    session: str
    url: str = ""
    token: str | None = field(default=None, repr=False)
    turn: Mapping[str, Any] | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """As it stands in `session.json`."""
        facts = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in facts.items() if value not in ("", None)}


class Session(Protocol):
    """One session with a provider, or the lease of one, as a performance sees it. The contract is told in `providers.base`."""

    def open(self) -> None: ...
    def say(self, command: SayText) -> None: ...
    def play_audio(self, command: PlayAudio) -> None: ...
    def interrupt(self, command: StopSpeaking) -> None: ...
    def close(self, reason: str) -> None: ...


class Steered(Protocol):
    """A performance, as those see it who control it or tell of its speech. All calls come from its own loop."""

    def offer(self, signal: str, *, source: str, step: str | None = None) -> str | None:
        """Give a signal, or a trigger by its name; `step` goes with `goto`. Gives the reason where it is ignored."""

    def emit(self, event: Event) -> None:
        """Tell of something that happened: `SourceJoined`, `SourceLeft`, `Sound`, `Silence`, `ViewerJoined`, `ViewerLeft`, or a sighting
        with its `source`."""

    def no_more(self, source: str) -> None:
        """This control gives no further signal. When all have said so, a show that waits for one has stalled."""


class Control(Protocol):
    """Whoever gives signals: a keyboard, standard input, a page, HTTP, OSC, MQTT. It names them; the performance knows what they do."""

    source: str
    """Its name in the log."""

    def attach(self, show: Steered) -> AbstractContextManager[None]:
        """Give signals to this performance until the context is left. It counts as present from before that until it says `no_more`."""


@runtime_checkable
class HearsState(Protocol):
    """A control that shows others how the show stands."""

    def tell(self, state: Mapping[str, Any]) -> None:
        """The state of a stage has changed: what `GET /api/state` answers."""


class Source(Protocol):
    """Whoever tells of speech beside the provider: the ear of a page, or one of ours. It joins and leaves by events, and reports edges.
    What they mean for which line is the ledger's to decide."""

    source: str
    """Its name in the log, one of `SOURCES`."""

    def attach(self, show: Steered) -> AbstractContextManager[None]:
        """Tell of this performance's speech until the context is left."""
