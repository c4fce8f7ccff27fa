"""Tavus playbooks, performed against the emulator: what the tests of both ways to speak share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playbook.providers.tavus.emulator import TavusEmulator
from playbook.providers.tavus.provider import TavusProvider
from tests import shown
from tests.contract import Stand, voice
from tests.logs import of

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


class Shown(shown.Shown):
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


def perform(
    text: str,
    folder: Path,
    emulator: TavusEmulator | None = None,
    *,
    var: Mapping[str, Any] | None = None,
    provider: Any = None,
    **more: Any,
) -> Shown:
    """A whole run; `more` is for `shown.perform`. Asserts that every line was sent once at most, and that the journal knows of nothing but
    what is open."""
    stand = Stand(provider or TavusProvider(voice), {"TAVUS_API_KEY": KEY}, emulator=emulator or TavusEmulator())
    run = shown.perform(stand, shown.plan_of(text, folder, **(var or {})), folder, Shown, **more)
    assert run.still_open == len(run.left)
    first = [message["inference_id"] for message in run.sent() if message.get("done") in (True, "true")]
    assert len(first) == len(set(first)), "no line is sent twice"
    return run
