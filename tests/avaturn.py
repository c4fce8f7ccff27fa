"""Avaturn playbooks, performed against the emulator: what the tests of both engines share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playbook.providers.avaturn.emulator import AvaturnEmulator
from playbook.providers.avaturn.external import HEADER
from playbook.providers.avaturn.provider import AvaturnProvider
from tests import shown
from tests.contract import Stand, voice
from tests.leaks import found

KEY = "avk-5ecr3t-0f-the-t3sts"
TASKS, CREATE = "/api/v1/sessions/*/tasks", "/api/v1/sessions"


class Shown(shown.Shown):
    """A run that is over."""

    @property
    def posted(self) -> list[str]:
        """Every text that reached the emulator, refused or not."""
        return [entry["body"]["text"] for entry in self.requests("POST", "/tasks") if "body" in entry]

    @property
    def spoken(self) -> list[str]:
        """What was truly said: texts, or the names of segments."""
        return [entry["text"] or entry["task"] for entry in self.notes("speech_started")]


def stand_at(emulator: AvaturnEmulator) -> Stand:
    return Stand(AvaturnProvider(voice), {"AVATURN_API_KEY": KEY}, emulator=emulator)


def perform(text: str, folder: Path, emulator: AvaturnEmulator | None = None, **more: Any) -> Shown:
    """A whole run; `more` is for `shown.perform`. Asserts that the journal knows of nothing but what is open."""
    emulator = emulator or AvaturnEmulator(viewer_after_ms=300)
    run = shown.perform(stand_at(emulator), text, folder, Shown, **more)
    assert run.still_open == len(run.left)
    assert found(secrets_of(emulator), folder) == [], "nor are the sockets' secrets anywhere"
    return run


def secrets_of(emulator: AvaturnEmulator) -> set[str]:
    """Everything that must never be shown: the key, the viewers' tokens, the sockets' secrets."""
    headers = [session.engine.get("headers") or {} for session in emulator.sessions.values()]
    return {KEY, *(session.token for session in emulator.sessions.values()), *(header[HEADER] for header in headers if HEADER in header)}
