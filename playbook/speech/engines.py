"""What a voice must be, for ours and for plug-ins (entry points in the group `playbook.voices`), and which ones there are.

An `Engine` turns text into sound in a child process of its own. It is made with `Places`; its speakers are named `engine/speaker` in a
playbook (`kokoro/af_heart`), and eSpeak NG's also without the engine. `playbook.testing.voices` holds what every engine must do.

May be imported by anything below `clock`; imports only `errors` and `store`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from playbook.errors import SetupError
from playbook.speech.store import Store

GROUP = "playbook.voices"
OURS = {"espeak": "playbook.speech.espeak:Espeak", "kokoro": "playbook.speech.kokoro:Kokoro"}
ESPEAK_REMEDY = "pip install espeakng-loader"


class VoiceMissing(SetupError):
    """The voice is not installed."""

    def __init__(self, message: str = "no voice is installed", remedy: str = ESPEAK_REMEDY) -> None:
        super().__init__(message, remedy=remedy)


class Unspeakable(SetupError):
    """The voice cannot do this: there is no such voice or language, or it cannot speak the text."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to speak. `rate` is in words per minute (80 to 450), `pitch` from 0 to 99.

    `voice` is `engine/speaker`, or eSpeak NG's: a voice (`de`, `German`, `gmw/de`), a voice with a variant (`de+f2`), or a variant alone
    (`f2`, `Annie`) for the voice of the `language`. A voice that implies another language wins over `language`.
    """

    voice: str | None = None
    rate: int | None = None
    pitch: int | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """What an engine is given: a store for what it learns, and the folder for models, which are kept in one named after the engine."""

    store: Store
    models: Path | None


@dataclass(frozen=True, slots=True)
class SpeakerInfo:
    """Who can speak, and in which languages (codes)."""

    name: str
    languages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a line that is synthesised by itself, and the pause after it where another one follows."""

    text: str
    pause_ms: int = 0


@dataclass(frozen=True, slots=True)
class Spoken:
    """The sound of a text: 16-bit mono. `words` are (sample, character in the text), `phones` (sample, IPA; empty for a pause): both in
    order, or empty where the engine does not know. `cut` says that some of the text was left out. `work_ms` is how long it took."""

    rate: int
    pcm: bytes
    words: Sequence[tuple[int, int]] = ()
    phones: Sequence[tuple[int, str]] = ()
    cut: bool = False
    work_ms: int = 0


Ask = Callable[[Mapping[str, Any]], tuple[dict[str, Any], bytes]]
"""Sends a request to the child and gives its answer: a header and the bytes that follow it. Raises `Unspeakable` for `{"error": …}`."""


class Engine(Protocol):
    """A voice. Nothing here takes long but `Ask`."""

    name: str
    licence: str
    """Of what speaks: the engine's, or the model's."""
    deterministic: bool
    """The same text with the same settings is the same bytes, in any process and any order."""
    instant: bool
    """So fast, and so small, that all lines of a plan can be spoken to know their lengths, by as many children as there are cores."""
    marks: Literal["exact", "estimated"]
    """Whether it tells when each word begins."""

    def lacks(self) -> tuple[str, str] | None:
        """What is missing before it can speak, and how to get it."""

    def fingerprint(self) -> str:
        """Version and digest of engine and model: what was spoken with another one is not used."""

    def speakers(self) -> Sequence[SpeakerInfo]:
        """Who can speak."""

    def resolve(self, settings: Settings) -> str:
        """The engine's own name for who speaks. Raises `Unspeakable` with the near or valid names."""

    def pieces(self, text: str, settings: Settings) -> Sequence[Piece]:
        """The parts of a line that are synthesised one after another; together they are its text. Raises `Unspeakable` for a text that the
        speaker does not have."""

    def command(self) -> Sequence[str]:
        """The program that speaks: a request a line in JSON on its standard input; each answer is a line in JSON, then `bytes` bytes."""

    def speak(self, ask: Ask, text: str, settings: Settings) -> Spoken:
        """Have the child speak a piece."""


def names() -> tuple[str, ...]:
    """All engines, ours first."""
    from importlib import metadata

    plugged = {point.name for point in metadata.entry_points(group=GROUP)}
    return (*OURS, *sorted(plugged - OURS.keys()))


def make(name: str, places: Places) -> Engine | None:
    """The engine of that name, or None. Raises `SetupError` when a plug-in does not load."""
    target = OURS.get(name)
    if target is None:
        from importlib import metadata

        target = next((point.value for point in metadata.entry_points(group=GROUP, name=name)), None)
        if target is None:
            return None
    module, _, attribute = target.partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), attribute)(places)
    except Exception as error:  # a plug-in may fail in any way
        raise SetupError(f"the voice '{name}' cannot be loaded: {error}") from error
    return engine
