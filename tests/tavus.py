"""Tavus playbooks, performed against the emulator: what the tests of both ways to speak share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playbook.emulators.tavus import TavusEmulator
from playbook.model import Plan
from playbook.providers.tavus import TavusProvider
from tests import shown
from tests.contract import CHIME
from tests.logs import of
from tests.shown import voice

__all__ = ["CREATE", "END", "HEAD", "KEY", "PAL", "THREE", "Shown", "perform", "plan_of", "voice"]

KEY = "tvk-5ecr3t-0f-the-t3sts"
PAL = "p5c0ffee1234"
CREATE, END = "/v2/conversations", "/v2/conversations/*/end"
HEAD = f"version: 1\nprovider: tavus\nsession: {{pal_id: {PAL}}}\n"
THREE = f"""\
{HEAD}timeline:
  - say: One is first.
    id: one
  - say: Two is second.
    id: two
  - say: Three is last.
    id: three
"""


class Shown(shown.Shown[TavusEmulator]):
    """A run that is over."""

    def sent(self, kind: str = "conversation.echo") -> list[dict[str, Any]]:
        """Messages that reached the room: their properties, and when they came."""
        messages = [entry for entry in self.notes("message") if entry["message"]["event_type"] == kind]
        return [{**entry["message"].get("properties", {}), "at_ms": entry["at_ms"]} for entry in messages]

    @property
    def closed(self) -> str | None:
        """What the log says that the conversation ended for."""
        lines = of(self.lines, "event", "session_closed")
        return lines[0].get("reason") if lines else None


def plan_of(text: str, folder: Path, **var: Any) -> Plan:
    """A playbook's plan, compiled from a file; `chime.wav` lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chime.wav").write_bytes(CHIME)
    return shown.plan_of(text, folder, **var)


def perform(
    text: str,
    folder: Path,
    emulator: TavusEmulator | None = None,
    *,
    var: Mapping[str, Any] | None = None,
    provider: Any = None,
    **more: Any,
) -> Shown:
    """A whole run; `more` is for `shown.show`. Asserts that every line was sent once at most."""
    plan, provider = plan_of(text, folder, **(var or {})), provider or TavusProvider(voice)
    run = Shown(*shown.show(plan, folder, emulator or TavusEmulator(), provider, KEY, secrets_of, **more))
    first = [message["inference_id"] for message in run.sent() if message.get("done") in (True, "true")]
    assert len(first) == len(set(first)), "no line is sent twice"
    return run


def secrets_of(emulator: TavusEmulator) -> set[str]:
    """The rooms' tokens."""
    return {session.token for session in emulator.sessions.values() if session.token}
