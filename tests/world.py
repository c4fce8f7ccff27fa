"""A world for the language's own tests: two providers, no voice, no network.

`local` stands for the embedded voice. `pliable` is whatever its session settings say: they are the fields of `Capabilities`, so that a
playbook can bring its own limits. A line takes 50 ms a character. WAV files are really measured.
"""

from __future__ import annotations

import dataclasses
import io
import wave
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from playbook.errors import Problem
from playbook.formats.schema import load_schema
from playbook.model import Capabilities, Length, Plan, Say

PLIABLE: Mapping[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "say": {"type": "boolean"},
        "audio_echo": {"type": "boolean"},
        "interrupt": {"enum": ["none", "current", "all", "unknown"]},
        "speech": {"enum": ["exact", "reported", "none"]},
        "voice_per_line": {"type": "boolean"},
        "own_voice": {"type": "boolean"},
        "start_latency_ms": {"type": "integer", "minimum": 0, "multipleOf": 10},
        "max_session_ms": {"type": "integer", "minimum": 1},
        "idle_limit_ms": {"type": "integer", "minimum": 1},
        "price_per_minute": {"type": "number", "minimum": 0},
        "token": {"type": "string"},
        "visualConfig": {"type": "object", "additionalProperties": False, "properties": {"id": {"type": "integer"}}},
    },
}


class FakeWorld:
    """Implements `playbook.language.Installation`."""

    def providers(self) -> Sequence[str]:
        return ("local", "pliable")

    def session_schema(self, provider: str) -> Mapping[str, Any] | None:
        return {"pliable": PLIABLE, "local": load_schema("providers/local.schema.json")}.get(provider)

    def capabilities(self, provider: str, settings: Mapping[str, Any]) -> Capabilities:
        known = {field.name for field in dataclasses.fields(Capabilities)}
        given = {key: value for key, value in settings.items() if key in known}
        return Capabilities(**{"speech": "exact", "voice_per_line": True, **given})

    def check(self, plan: Plan) -> Iterable[Problem]:
        return ()

    def sound_length_ms(self, source: Path | bytes) -> int:
        try:
            with wave.open(io.BytesIO(source) if isinstance(source, bytes) else str(source), "rb") as file:
                return round(file.getnframes() * 1000 / file.getframerate())
        except (wave.Error, EOFError) as error:
            raise ValueError(str(error) or "it is too short") from error

    def speech_lengths(self, plan: Plan) -> Sequence[Length | None]:
        basis = "exact" if plan.capabilities.own_voice else "estimated"
        return [Length(50 * len(step.action.text), basis) if isinstance(step.action, Say) else None for step in plan.steps]
