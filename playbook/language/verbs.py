"""What each verb is to the language: how its action is built, how long it takes on the timeline, how it is written as JSON.

What may be written under a verb is said by its definition in `language.schema.json`, and what is done then by the engine. A new verb has
an action in `model`, an entry in `ACTIONS` for what the plan does with it, and one in `VERBS` for what the author writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from playbook.errors import MASK
from playbook.formats.source import Node
from playbook.language.sounds import Sounds
from playbook.language.times import Times
from playbook.model import (
    Action,
    AudioEcho,
    Chunk,
    End,
    InterruptSpeech,
    Length,
    Say,
    Step,
    Wait,
    WaitEvent,
    WaitSpeech,
)

T = TypeVar("T")
Make = Callable[[type[T], Mapping[str, Any]], T]
"""Makes a dataclass of facts that were read, after having tested them."""


@dataclass(slots=True)
class Written:
    """A step's verb as it is built: the node under it, its rendered value, and what it is built with."""

    node: Node
    value: Any
    times: Times
    sounds: Sounds
    skipped: bool


@dataclass(slots=True)
class Timeline:
    """Where one cursor stands that walks through a plan with the planned lengths: `now_ms`, and when all speech will be over.

    `exact` and `spoken_exact`: nothing that led there is estimated or unknown.
    """

    latency_ms: int
    now_ms: int = 0
    spoken_ms: int = 0
    exact: bool = True
    spoken_exact: bool = True

    def speak(self, step: Step) -> tuple[int, int]:
        """A line: from when to when it is heard."""
        heard = max(self.now_ms + self.latency_ms, self.spoken_ms)
        over = heard + step.length.ms
        self.spoken_ms = over
        self.spoken_exact = self.exact and self.spoken_exact and step.length.basis == "exact"
        if step.until == "ended":
            self.now_ms, self.exact = over, self.spoken_exact
        elif step.until == "started":
            self.now_ms = heard
        elif step.until != "accepted":
            self.now_ms = heard + step.until
        return heard, over

    def wait_for_speech(self) -> None:
        """Until all that is spoken is over."""
        self.now_ms = max(self.now_ms, self.spoken_ms)
        self.exact = self.exact and self.spoken_exact


# --- say ------------------------------------------------------------------------------------------------------------------


def _say(written: Written) -> Say | None:
    value, shown = written.value, written.times.renderer.shown
    if isinstance(value, str):
        return Say((Chunk(value, 0, _shown(shown, written.node)),))
    if "text" in value:
        return Say((Chunk(value["text"], 0, _shown(shown, written.node, "text")),), value.get("voice"))
    pieces = value["chunks"]
    if isinstance(pieces[0], dict) or isinstance(pieces[-1], dict):
        at = written.node.at(["chunks", 0 if isinstance(pieces[0], dict) else len(pieces) - 1])
        written.times.fail("PB407", "a pause stands between two pieces of text", at.place, "use a wait step")
        return None
    chunks, pause = [], 0
    for number, piece in enumerate(pieces):
        if isinstance(piece, dict):
            pause += written.times.ms(piece["wait"], "say", "chunks", number, "wait")
        else:
            chunks.append(Chunk(piece, pause, _shown(shown, written.node, "chunks", number)))
            pause = 0
    return Say(tuple(chunks), value.get("voice"))


def _shown(shown: Mapping[Node, str], node: Node, *path: str | int) -> str | None:
    """How the scalar at a path may be shown, or None when it may be shown as it is."""
    if not shown:
        return None
    if node in shown:
        return MASK if path else shown[node]  # the whole thing came out of one secret expression
    for key in path:
        node = node.at([key])
        if node in shown:
            return shown[node] if key == path[-1] else MASK
    return None


def _say_facts(action: Say, *, true: bool) -> dict[str, Any]:
    """With the true text, or with what may be shown of it (then `masked` says that it is not the same)."""
    chunks: list[dict[str, Any]] = []
    for chunk in action.chunks:
        masked = chunk.shown is not None and not true
        facts: dict[str, Any] = {"text": chunk.shown if masked else chunk.text, "after_ms": chunk.after_ms}
        if masked:
            facts["masked"] = True
        elif chunk.spelled is not None and not true:
            facts["spelled"] = chunk.spelled
        chunks.append(facts)
    return {"chunks": chunks, "voice": action.voice}


def _say_from(data: Mapping[str, Any], make: Make[Any]) -> Say:
    chunks = []
    for each in data["chunks"]:
        facts = {"text": each["text"], "after_ms": each["after_ms"], "spelled": each.get("spelled")}
        chunks.append(make(Chunk, {**facts, "shown": each["text"] if each.get("masked") else None}))
    if not chunks:
        raise ValueError("chunks")
    said: Say = make(Say, {"chunks": tuple(chunks), "voice": data["voice"]})
    return said


# --- audio-echo -----------------------------------------------------------------------------------------------------------


def _audio_echo(written: Written) -> AudioEcho | None:
    value = written.value
    if isinstance(value, dict) and "base64" in value:
        return written.sounds.of_samples(written.node, value, written.times)
    relative = value["file"] if isinstance(value, dict) else value
    return written.sounds.of_file(written.node, relative, written.times, skipped=written.skipped)


# --- wait -----------------------------------------------------------------------------------------------------------------


def _wait(written: Written) -> Wait | WaitSpeech | WaitEvent:
    value, times = written.value, written.times
    if value == "speech":
        return WaitSpeech()
    if isinstance(value, dict):
        timeout_ms = times.optional(value, "timeout", "wait", "timeout")
        return WaitEvent(value["event"], timeout_ms, value.get("on_timeout", "fail"))
    return Wait(times.ms(value, "wait"))


def _pass_time(timeline: Timeline, step: Step) -> None:
    assert isinstance(step.action, Wait)
    timeline.now_ms += step.action.duration_ms


def _pass_speech(timeline: Timeline, _: Step) -> None:
    timeline.wait_for_speech()


def _pass_trigger(timeline: Timeline, _: Step) -> None:
    timeline.exact = False  # it counts as nothing: nobody knows when it comes


# --- interrupt, end -------------------------------------------------------------------------------------------------------


def _interrupt(timeline: Timeline, _: Step) -> None:
    timeline.spoken_ms = min(timeline.spoken_ms, timeline.now_ms)


def _end(timeline: Timeline, step: Step) -> None:
    assert isinstance(step.action, End)
    if step.action.drain:
        timeline.wait_for_speech()


# --- the tables -----------------------------------------------------------------------------------------------------------


def _facts(action: Action, *, true: bool) -> dict[str, Any]:  # noqa: ARG001  # only text is shown otherwise than it is
    return {name: getattr(action, name) for name in action.__slots__}


def _no_length(_: Any) -> Length:
    return Length(0)


def _unknown_length(_: Any) -> Length:
    return Length(0, "estimated")


def _own_length(action: Any) -> Length:
    return Length(action.duration_ms)


@dataclass(frozen=True, slots=True)
class ActionKind:
    """What the plan does with one kind of action."""

    advance: Callable[[Timeline, Step], tuple[int, int] | None]
    """Moves the timeline on; says from when to when something is heard, if it is."""
    length: Callable[[Any], Length] = _no_length
    """How long it takes, as far as that is known without a voice."""
    facts: Callable[..., dict[str, Any]] = _facts
    """What `plan.json` and the digest hold."""


ACTIONS: Mapping[type, ActionKind] = {
    Say: ActionKind(Timeline.speak, _unknown_length, _say_facts),
    AudioEcho: ActionKind(Timeline.speak, _own_length),
    Wait: ActionKind(_pass_time, _own_length),
    WaitSpeech: ActionKind(_pass_speech, _unknown_length, lambda _, **__: {"speech": True}),
    WaitEvent: ActionKind(_pass_trigger, _unknown_length),
    InterruptSpeech: ActionKind(_interrupt),
    End: ActionKind(_end),
}


@dataclass(frozen=True, slots=True)
class Verb:
    """What the author writes."""

    build: Callable[[Written], Action | None]
    """The action, or None with the reason among the findings."""
    unrendered: Callable[[Node], Action]
    """What stands in the plan for a skipped step whose templates make no sense; the node is what is under the verb."""
    read: Callable[[Mapping[str, Any], Make[Any]], Action]
    """The action that `plan.json` holds. Raises `KeyError`, `TypeError` or `ValueError`."""


def _read_wait(data: Mapping[str, Any], make: Make[Any]) -> Action:
    if "speech" in data:
        return WaitSpeech()
    waits: Action = make(WaitEvent if "event" in data else Wait, data)
    return waits


VERBS: Mapping[str, Verb] = {
    "say": Verb(_say, lambda node: Say((Chunk(node.raw),)), _say_from),
    "audio-echo": Verb(
        _audio_echo,
        lambda node: AudioEcho(node.data if isinstance(node.data, str) else "base64", "", 0),
        lambda data, make: make(AudioEcho, data),
    ),
    "wait": Verb(_wait, lambda _: Wait(0), _read_wait),
    "interrupt": Verb(
        lambda _: InterruptSpeech(),
        lambda _: InterruptSpeech(),
        lambda data, make: make(InterruptSpeech, data),
    ),
    "end": Verb(
        lambda written: End(drain=(written.value or {}).get("drain", True)),
        lambda _: End(),
        lambda data, make: make(End, data),
    ),
}
