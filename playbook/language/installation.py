"""What the language must be told, because it knows no provider, no sound, no clock and no environment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from playbook.errors import Problem
from playbook.model import Capabilities, Length, Plan


class Installation(Protocol):
    """The providers that are installed, what they can do, and how long sounds and lines take."""

    def providers(self) -> Sequence[str]:
        """The names there are."""

    def session_schema(self, provider: str) -> Mapping[str, Any] | None:
        """The schema of a provider's session settings; None when there is no such provider."""

    def capabilities(self, provider: str, settings: Mapping[str, Any]) -> Capabilities:
        """What a provider can do with these settings."""

    def check(self, plan: Plan) -> Iterable[Problem]:
        """The provider's own problems and warnings about a compiled plan."""

    def sound_length_ms(self, source: Path | bytes) -> int:
        """How long a sound is. Raises `ValueError` with the reason when it is not audio."""

    def speech_lengths(self, plan: Plan) -> Sequence[Length | None]:
        """One per step: how long a say step takes to speak; None for other steps."""
