"""The words of the project, as frozen data: evidence, steps, capabilities, the plan.

Rules of this room: no behaviour beyond what a value can say of itself, no clock, no I/O. Times are whole milliseconds and their names
end in `_ms`. Everything else in the package speaks in these types.

The *plan* is what the language compiles to: a flat tuple of steps; no YAML, no template, no condition left. What happens while it is
performed is in `events`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, Literal

from playbook.errors import Place, Problem, UsageError, near_or_all

# --- evidence ---------------------------------------------------------------------------------------------------------


class Evidence(IntEnum):
    """On what evidence we say that an utterance ended; a greater value is better evidence. The page `evidence` tells of the grades."""

    timeout = 1
    """The provider should have told and did not, within the estimate and its margin."""
    estimated = 2
    """The provider cannot tell; the length is known (audio) or estimated (text), and the time has passed."""
    heard = 3
    """We listened to the media and the sound stopped."""
    unmatched = 4
    """The provider reported an end without naming which, and only one could be meant."""
    reported = 5
    """The provider said so and named this utterance (or the local voice, which is exact)."""


# --- the plan ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of an utterance's text. `after_ms` is the pause between the previous piece's acceptance and this one.

    `shown` is what a log may show when `text` holds a secret; None means that `text` itself may be shown. `spelled` is how the author
    wrote it, when `text` is how it is pronounced.
    """

    text: str
    after_ms: int = 0
    shown: str | None = None
    spelled: str | None = None

    @property
    def logged(self) -> str | None:
        """What logs, captions and reports show instead of `text`; None when that is it."""
        return self.spelled if self.shown is None else self.shown


@dataclass(frozen=True, slots=True)
class Say:
    """Speak text. More than one chunk streams one utterance in pieces."""

    chunks: tuple[Chunk, ...]
    voice: str | None = None

    @property
    def text(self) -> str:
        """All that will be spoken."""
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def shown(self) -> str:
        """The same, as a log or a caption shows it."""
        return "".join(chunk.text if chunk.logged is None else chunk.logged for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class AudioEcho:
    """Play a sound through the avatar.

    `sha256` is of the sound's bytes as written (the file's, or the decoded base64's) and names it in `Plan.sounds`; `file` is for
    people: the path as the author wrote it, or `base64`. `duration_ms` is measured from the decoded samples.
    """

    file: str
    sha256: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Let time pass."""

    duration_ms: int


@dataclass(frozen=True, slots=True)
class WaitSpeech:
    """Wait until all that was queued has been spoken."""


@dataclass(frozen=True, slots=True)
class WaitEvent:
    """Wait for a trigger by name, for ever or until `timeout_ms` has passed."""

    event: str
    timeout_ms: int | None = None
    on_timeout: Literal["fail", "continue"] = "fail"


@dataclass(frozen=True, slots=True)
class InterruptSpeech:
    """Stop what is being said and whatever is queued behind it."""


@dataclass(frozen=True, slots=True)
class End:
    """Finish the show. With `drain` the last line is heard to its end; without, it is cut."""

    drain: bool = True


Action = Say | AudioEcho | Wait | WaitSpeech | WaitEvent | InterruptSpeech | End
VERBS: Mapping[type, str] = {
    Say: "say",
    AudioEcho: "audio-echo",
    Wait: "wait",
    WaitSpeech: "wait",
    WaitEvent: "wait",
    InterruptSpeech: "interrupt",
    End: "end",
}

Until = Literal["accepted", "started", "ended"] | int
"""When the cursor moves on from a line: a moment of its life, or milliseconds after its speech started."""


@dataclass(frozen=True, slots=True)
class Expect:
    """What must have been true of a step, or of a whole run (`status` only there). None means that nothing was asked."""

    evidence: Evidence | None = None
    starts_within_ms: int | None = None
    lasts_min_ms: int | None = None
    lasts_max_ms: int | None = None
    heard: str | None = None
    heard_contains: str | None = None
    absent: tuple[str, ...] = ()
    status: Literal["passed", "failed", "stopped", "error"] | None = None


@dataclass(frozen=True, slots=True)
class Length:
    """How long something takes. `basis` says how sure that is: `exact` (measured or given), or `estimated`."""

    ms: int
    basis: Literal["exact", "estimated"] = "exact"


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of the plan. `place` and `via` say where it was written; they, `name` and `length` are not part of the digest.

    `skipped` is the reason why the step will not be performed (its `when` was false), or None.
    """

    id: str
    action: Action
    name: str = ""
    at_ms: int | None = None
    until: Until = "ended"
    timeout_ms: int | None = None
    on_error: Literal["fail", "continue"] = "fail"
    skipped: str | None = None
    expect: Expect | None = None
    length: Length = Length(0)
    place: Place | None = None
    via: tuple[Place, ...] = ()

    @property
    def verb(self) -> str:
        """The word the author wrote."""
        return VERBS[type(self.action)]

    @property
    def speaks(self) -> bool:
        """Whether performing it makes an utterance."""
        return isinstance(self.action, (Say, AudioEcho))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may use. `require_evidence` is the least grade every utterance must reach for exit 0."""

    max_duration_ms: int | None = None
    """Of the show, from timeline zero; what it is held does not count."""
    max_cost: float | None = None
    require_evidence: Evidence | None = None
    speech_margin_ms: int = 10_000
    max_wait_ms: int | None = None
    """How long an open session may wait for its beginning, and be held; None: as long as the show may take."""

    @property
    def wait_ms(self) -> int | None:
        """How long it may wait and be held, where that is known."""
        return self.max_duration_ms if self.max_wait_ms is None else self.max_wait_ms

    @property
    def longest_ms(self) -> int | None:
        """How long a session may last that waits and performs as long as it may, where that is known."""
        return None if self.max_duration_ms is None or self.wait_ms is None else self.max_duration_ms + self.wait_ms


Scope = Literal["none", "current", "all", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a provider can do with given settings, known before a session is opened."""

    say: bool = True
    """It speaks text that we send."""
    audio_echo: bool = True
    """It speaks audio that we send."""
    interrupt: Scope = "all"
    """What an interrupt stops: nothing (it cannot), the current line, all that is queued, or one of the two and nobody knows which."""
    speech: Literal["exact", "reported", "none"] = "none"
    """How we learn of starts and ends: it is our own sound, the vendor reports them, or nobody does and the engine estimates."""
    source_evidence: Evidence | None = None
    """The best grade that a source beside the vendor's own reports can give (an ear of ours, the vendor's room), where there is one."""
    voice_per_line: bool = False
    """`voice` on a single line is possible."""
    chunks_held: bool = False
    """A line in chunks begins when its last chunk has arrived, not with its first."""
    remote: bool = True
    """Its sessions are opened at somebody else's, who may ask money for them, whom an emulator or a cassette can stand in for."""
    own_voice: bool = False
    """`say` is spoken by the local voice, so that the length of a line is known when the voice is installed."""
    start_latency_ms: int = 0
    """How long after acceptance a line is expected to be heard."""
    tail_ms: int = 0
    """How long the session outlives the last line's end, because the audience may still hear it."""
    max_session_ms: int | None = None
    """The vendor ends the session after this, with the settings given."""
    idle_limit_ms: int | None = None
    """The vendor (or its viewer page) ends the session after this much silence; None where a keep-alive or nothing governs it."""
    price_per_minute: float | None = None
    """Given by the author's settings, for `limits.max_cost` and the estimate of `sessions`."""
    opens_only: str | None = None
    """Why a session can only be opened and ended with these settings (a vendor's test mode): other steps are skipped."""

    @property
    def best_evidence(self) -> Evidence:
        """The best grade that a line can close with."""
        return Evidence.reported if self.speech != "none" else self.source_evidence or Evidence.estimated

    @property
    def usable_ms(self) -> int | None:
        """How much of its longest session a show may take, counted from its opening. The rest is for creating it, and for ending it
        ourselves: what the vendor cuts off, nobody reports, and a credential that has expired ends nothing."""
        longest = self.max_session_ms
        return None if longest is None else longest - min(5_000, longest // 20)


@dataclass(frozen=True, slots=True)
class Start:
    """What makes timeline zero: `ready` (the session opened), a delay after it (`delay`, `delay_ms`), the signal `go`, or somebody who
    watches (`viewer`; `go` begins it at once)."""

    kind: Literal["ready", "delay", "go", "viewer"] = "ready"
    delay_ms: int = 0

    @property
    def waits(self) -> bool:
        """Whether it waits for somebody."""
        return self.kind in ("go", "viewer")


@dataclass(frozen=True, slots=True)
class Plan:
    """The compiled, immutable playbook: everything that is decided before a session opens.

    `sha256` is over what will be said and when, with the true text; equal inputs give an equal digest on every machine. `sounds` maps
    an `AudioEcho.sha256` to the file's absolute path, or to the sound's own bytes as WAV. `secrets` are the values that must never be
    shown. Neither is written to `plan.json`.
    """

    name: str
    provider: str
    steps: tuple[Step, ...]
    session: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = Limits()
    start: Start = Start()
    expect: Expect | None = None
    capabilities: Capabilities = Capabilities()
    description: str = ""
    file: str = ""
    sha256: str = ""
    sounds: Mapping[str, str | bytes] = field(default_factory=dict, repr=False)
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    warnings: tuple[Problem, ...] = ()
    written: Mapping[str, Place] = field(default_factory=dict, repr=False)
    """Where each session setting stands, by its path (`visualConfig.id`); under the empty path, where the session or provider is named."""

    @property
    def texts(self) -> tuple[Step, ...]:
        """The steps that say a text."""
        return tuple(step for step in self.steps if isinstance(step.action, Say) and step.skipped is None)

    def after(self, step: str, *, again: bool = False, elapsed_ms: int | None = None) -> Plan:
        """The rest of the show, after a step (or from it on: `again`), as a plan of its own, which begins when its session is ready.

        Steps with an `at` keep their distances to each other. `elapsed_ms` is how long the show has gone on when the rest begins; without
        it, as long as the last `at` before the rest says. Raises `UsageError` when there is no such step.
        """
        ids = [each.id for each in self.steps]
        if step not in ids:
            raise UsageError(f"the plan has no step '{step}'", remedy=near_or_all(step, ids))
        first = ids.index(step) + (not again)
        if elapsed_ms is None:
            elapsed_ms = max((each.at_ms for each in self.steps[: first + again] if each.at_ms is not None), default=0)
        steps = tuple(_sooner(each, elapsed_ms) for each in self.steps[first:])
        whole = f"{self.sha256} after {first} steps, {elapsed_ms} ms"
        return replace(self, steps=steps, start=Start(), sha256=hashlib.sha256(whole.encode()).hexdigest())

    def index(self, step: str) -> int | None:
        """The place of the step of that id in `steps`."""
        return next((at for at, each in enumerate(self.steps) if each.id == step), None)

    def due_ms(self, index: int) -> int:
        """When the step at that place is due on the timeline, by the plan's own lengths. A trigger that is waited for takes no time."""
        due_ms = 0
        for step in self.steps[:index]:
            if step.skipped is None:
                due_ms = max(due_ms, step.at_ms or 0)
                stays = step.length.ms if step.until == "ended" else step.until
                due_ms += stays if isinstance(stays, int) else 0
        return max(due_ms, self.steps[index].at_ms or 0)

    def place_of(self, setting: str = "") -> Place | None:
        """Where a session setting was written, or what contains it."""
        while setting and setting not in self.written:
            setting = setting.rpartition(".")[0]
        return self.written.get(setting)


def _sooner(step: Step, elapsed_ms: int) -> Step:
    """The step in a show of which so much is over: of a time that has passed nothing is left."""
    if step.at_ms is None:
        return step
    return replace(step, at_ms=step.at_ms - elapsed_ms if step.at_ms > elapsed_ms else None)
