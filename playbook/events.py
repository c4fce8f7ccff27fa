"""What flows through the engine, as frozen data: events in, commands and notes out.

*Events* are things that happened; *commands* are orders; *notes* are remarks for the log. A provider emits events without a time; the
runner stamps them as it takes them from the inbox. The rules of `model` hold here too; it stands apart only because reading and checking a
playbook needs none of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from playbook.errors import MASK
from playbook.model import Evidence

SOURCES = ("provider", "room", "page", "ear", "plan")
"""Who may tell of speech: the vendor; the vendor's room, whose messages we hear; the ear of the page that shows the session; an ear of ours
on received media; our own reckoning."""

# --- events: what happened ----------------------------------------------------------------------------------------------


class Timer(StrEnum):
    """What a timer is for; with the step that it belongs to (None: the run's own) its name. In the log this is its `reason`."""

    START = "start"
    """The delay before timeline zero is over."""
    MAX_DURATION = "max_duration"
    """The show has reached its limit, which counts from timeline zero."""
    MAX_WAIT = "max_wait"
    """The session has waited for its beginning, or was held, as long as it may."""
    MAX_SESSION = "max_session"
    """The session has reached the vendor's limit, or what it may cost."""
    STOP = "stop"
    """Speech had its time to stop before the session is closed."""
    TAIL = "tail"
    """The audience had its time to hear the last line to its end."""
    AT = "at"
    """A step's own time has come."""
    WAIT = "wait"
    """A pause is over."""
    EVENT = "event"
    """A trigger did not come in time."""
    UNTIL = "until"
    """A line has been said for as long as the cursor stays with it."""
    TIMEOUT = "timeout"
    """A step has taken longer than it may."""
    SETTLE = "settle"
    """An interrupt was acknowledged, and what it hit had its time to be reported."""
    STARTED = "started"
    """A line should be heard from now on."""
    SPEECH = "speech"
    """A line should have ended."""
    SILENCE = "silence"
    """The silence of a line has lasted so long that it is its end."""
    GRACE = "grace"
    """An interrupt was acknowledged, and what was to begin before it had its time to be reported."""
    CHUNK = "chunk"
    """The pause before the next piece of a line is over."""


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """The session exists and can speak. `session` is the vendor's id for it, never a credential."""

    session: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TaskAccepted:
    """The provider took a line, a chunk of one, or an interrupt.

    `provider_task` is the vendor's id; `duration_ms` is how long the whole utterance will take, where the provider knows better than
    the plan.
    """

    task: str
    provider_task: str | None = None
    chunk: int | None = None
    duration_ms: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech of an utterance was sighted. `task` is None when the source did not say which. `text` is what the vendor says it says.

    `source` is one of `SOURCES`. `ago_ms` is how long before this event it happened, where a sighting takes time to be made.
    """

    task: str | None = None
    evidence: Evidence = Evidence.reported
    provider_task: str | None = None
    text: str | None = None
    ago_ms: int | None = None
    outcome: Literal["settled"] | None = None
    reason: str | None = None
    source: str = "provider"


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """The end of an utterance was sighted, or (`outcome` is `settled`) the engine closed it by its own reckoning.

    `source` as in `SpeechStarted`. `duration_ms` is the provider's figure, where it gives one. After an interrupt, `heard_ms` and
    `heard` are how much was heard; `heard` is also told where the local voice is known to have left words out. `ago_ms` is how long
    before this event it happened, where a sighting takes time to be made.
    """

    task: str | None = None
    evidence: Evidence = Evidence.reported
    provider_task: str | None = None
    duration_ms: int | None = None
    ago_ms: int | None = None
    interrupted: bool = False
    heard_ms: int | None = None
    heard: str | None = None
    outcome: Literal["settled"] | None = None
    reason: str | None = None
    source: str = "provider"


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer came due; `step` and `reason` name it as the `StartTimer` did."""

    step: str | None
    reason: Timer
    due_ms: int


@dataclass(frozen=True, slots=True)
class Trigger:
    """Whoever controls the show gave the trigger of that name. `source` as in `Signal`."""

    trigger: str
    source: str = "program"


@dataclass(frozen=True, slots=True)
class ProviderFailed:
    """Something failed at the provider.

    With a `task`, that line (or interrupt) was `refused`, or what became of it is `ambiguous`. Without one, the session is `lost`, or
    could not be opened (`refused`). `session` is the id when a session was created all the same and must be closed. `silent_ms`: how
    long ago a session that is `lost` was last known to live.
    """

    reason: str
    outcome: Literal["refused", "ambiguous", "lost"] = "refused"
    task: str | None = None
    chunk: int | None = None
    status: int | None = None
    session: str | None = None
    silent_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session is closed. `status`: closing it `failed`, and the journal still holds it; or it was `lost` before, and was last known to
    live `silent_ms` ago."""

    reason: str | None = None
    status: Literal["failed", "lost"] | None = None
    silent_ms: int | None = None


class StopCause(StrEnum):
    """What wants a run to stop."""

    INTERRUPT = "interrupt"
    """SIGINT, or the signal `end`: exit 130."""
    TERMINATE = "terminate"
    """SIGTERM, SIGHUP, or a program that cancels the run: exit 143."""
    STALL = "stall"
    """It waits for a trigger that nobody can give any more: exit 1."""
    NOBODY = "nobody"
    """It waits for its beginning, which nobody can give any more: exit 5."""
    DISK = "disk"
    """The log cannot be written: exit 4."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The run must stop in order. `reason` is for people: the operating system's name of a signal, or a sentence."""

    reason: str
    cause: StopCause = StopCause.INTERRUPT


@dataclass(frozen=True, slots=True)
class SourceJoined:
    """From now on `source` tells of speech. `evidence` is the best grade that it can give."""

    source: str
    evidence: Evidence
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class SourceLeft:
    """`source` tells nothing any more: it is gone, or cannot hear."""

    source: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Sound:
    """An ear's edge: `ago_ms` before this event it began to hear sound. `within_ms` is how sure that time is."""

    source: str
    ago_ms: int = 0
    within_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """An ear's edge: `ago_ms` before this event the sound that it heard stopped. `within_ms` is how sure that time is."""

    source: str
    ago_ms: int = 0
    within_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ViewerJoined:
    """Somebody watches now. `viewer` names the page, the same until it leaves."""

    viewer: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ViewerLeft:
    """`viewer` does not watch any more; `reason` says why (closed, blocked, stalled)."""

    viewer: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Signal:
    """Whoever controls the show asked for `name`: one of `SIGNALS`, for `goto` with the step. (A trigger is a `Trigger`.)"""

    name: str
    source: str
    step: str | None = None


SIGNALS = ("go", "hold", "resume", "skip", "goto", "panic", "end")
"""The signals that have a meaning of their own. Any other name is a trigger's."""


def read_signal(text: str, source: str, step: str | None = None) -> Signal | Trigger:
    """A signal, or a trigger by its name, as somebody writes it: `goto intro` with its step. `go` is the trigger that is waited for."""
    name, _, rest = text.strip().partition(" ")
    if name == "goto":
        return Signal(name, source, step or rest.strip() or None)
    return Signal(text, source) if text in SIGNALS and text != "go" else Trigger(text, source)


Event = (
    SessionOpened
    | TaskAccepted
    | SpeechStarted
    | SpeechEnded
    | TimerFired
    | Trigger
    | Signal
    | ProviderFailed
    | SessionClosed
    | StopRequested
    | SourceJoined
    | SourceLeft
    | Sound
    | Silence
    | ViewerJoined
    | ViewerLeft
)


# --- commands: what to do -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open the session."""


@dataclass(frozen=True, slots=True)
class SayText:
    """Send one chunk of an utterance (log name: `say`). `final` marks its last chunk. `shown` as in `Chunk`."""

    step: str
    task: str
    text: str
    chunk: int = 1
    final: bool = True
    voice: str | None = None
    shown: str | None = None


@dataclass(frozen=True, slots=True)
class PlayAudio:
    """Send a sound; `audio_sha256` is its key in `Plan.sounds`."""

    step: str
    task: str
    audio_sha256: str
    duration_ms: int


@dataclass(frozen=True, slots=True)
class StopSpeaking:
    """Stop the speech (log name: `interrupt`). `task` names the interrupt itself, not what it hits; `step` is None when no step asked."""

    step: str | None
    task: str


@dataclass(frozen=True, slots=True)
class StartTimer:
    """Wake the engine at `due_ms` (absolute). A timer is named by `step` (None: the run's own) and `reason` together."""

    step: str | None
    reason: Timer
    due_ms: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget a timer."""

    step: str | None
    reason: Timer


@dataclass(frozen=True, slots=True)
class CloseSession:
    """End the session, whatever state it is in."""

    reason: str


Command = OpenSession | SayText | PlayAudio | StopSpeaking | StartTimer | CancelTimer | CloseSession


# --- notes: remarks for the log -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TimelineZero:
    """The origin of `at`, of the captions and of `audio.wav`."""


@dataclass(frozen=True, slots=True)
class StepStarted:
    """The cursor entered a step, after its `at` had come."""

    step: str


@dataclass(frozen=True, slots=True)
class StepFinished:
    """The cursor left a step. `outcome`: `done`, `failed`, `timeout`, `cut`, `skipped` (by a signal)."""

    step: str
    outcome: Literal["done", "failed", "timeout", "cut", "skipped"]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StepSkipped:
    """A step was passed over, and why."""

    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class Late:
    """A cue or timer came later than it was due."""

    step: str | None
    due_ms: int
    late_ms: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """The event before this line meant nothing now (late, doubled, unknown) and changed nothing."""

    reason: str
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two pieces of evidence disagree, or an expectation does with what happened."""

    reason: str
    task: str | None = None
    step: str | None = None


@dataclass(frozen=True, slots=True)
class GradeRaised:
    """A later and better sighting agrees with the one that closed a line."""

    task: str
    source: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class GradeLowered:
    """A line that was closed by our reckoning alone may not have been heard after all."""

    task: str
    evidence: Evidence
    reason: str


Note = TimelineZero | StepStarted | StepFinished | StepSkipped | Late | Ignored | Conflict | GradeRaised | GradeLowered

Effect = Command | Note | SpeechStarted | SpeechEnded
"""What `Engine.handle` returns: commands and notes, and the sightings that the engine settles itself (`outcome` is `settled`)."""


def spoken(text: str) -> str:
    """What a vendor says of its words, as it is compared with ours: letters and digits only, since vendors change spaces and signs."""
    return "".join(char for char in text.casefold() if char.isalnum())


_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
"""Thai and its neighbours, Japanese, Chinese: between their words there is no space."""
_WORD = re.compile(rf"(?:(?<!\S)[-−])?\d+(?:[.,:]\d+)*|[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+(?:['’][^\W\d_]+)*|[$€£¥%°]|{re.escape(MASK)}")


def words(text: str) -> tuple[str, ...]:
    """What is compared with what was heard: words, whole numbers and the signs that are spoken, without case, spaces and punctuation. What
    is hidden in both is the same in both."""
    return tuple(_WORD.findall(text.replace("’", "'").casefold()))
