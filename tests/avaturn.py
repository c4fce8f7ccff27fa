"""Avaturn playbooks, performed against the emulator: what the tests of both engines share."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playbook import clock
from playbook.emulators.avaturn import AvaturnEmulator
from playbook.emulators.faults import Injection
from playbook.language import compile_file
from playbook.model import Plan
from playbook.providers.avaturn import AvaturnProvider
from playbook.providers.avaturn_external import HEADER
from playbook.providers.base import SessionRecord
from playbook.record.redact import Redactor
from playbook.runner import Options, Outcome, Runner
from playbook.sessions import Journal
from playbook.speech.voice import Voice
from playbook.world import World
from tests.logs import checked

KEY = "avk-5ecr3t-0f-the-t3sts"
TASKS, CREATE = "/api/v1/sessions/*/tasks", "/api/v1/sessions"


@functools.cache
def voice() -> Voice:
    """The real voice, with one cache for all tests."""
    return Voice()


@dataclass(frozen=True)
class Shown:
    """A run that is over: its outcome, its log, what the emulator saw, and what the session journal holds open."""

    outcome: Outcome
    lines: list[dict[str, Any]]
    emulator: AvaturnEmulator
    left: list[SessionRecord]

    @property
    def code(self) -> int:
        return self.outcome.result.exit_code

    @property
    def reason(self) -> str:
        return self.outcome.result.reason or ""

    def requests(self, method: str, path: str = "") -> list[dict[str, Any]]:
        """What was asked of the emulator."""
        return [e for e in self.emulator.journal if e["what"] == "request" and e["method"] == method and e["path"].endswith(path)]

    @property
    def posted(self) -> list[str]:
        """Every text that reached the emulator, refused or not."""
        return [entry["body"]["text"] for entry in self.requests("POST", "/tasks") if "body" in entry]

    @property
    def spoken(self) -> list[str]:
        """What was truly said: texts, or the names of segments."""
        return [entry["text"] or entry["task"] for entry in self.emulator.journal if entry["what"] == "speech_started"]


def plan_of(text: str, folder: Path) -> Plan:
    """A playbook's plan, compiled from a file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "show.yaml"
    file.write_text(text, "utf-8")
    return compile_file(file, World(voice=voice()))


def perform(
    text: str,
    folder: Path,
    emulator: AvaturnEmulator | None = None,
    *,
    injections: Iterable[Injection] = (),
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> Shown:
    """A whole run on the virtual clock, over real sockets. Asserts what must be so in every run: a good log, and no secret anywhere."""
    plan = plan_of(text, folder)
    emulator = emulator or AvaturnEmulator(viewer_after_ms=300)
    emulator.injections = list(injections)

    async def main() -> tuple[Outcome, int]:
        async with emulator.serve() as url:
            given = {"AVATURN_BASE_URL": url, "AVATURN_API_KEY": KEY, **(env or {})}
            runner = Runner(
                plan, Options(folder=folder / "run", env=given, state_dir=folder / "state", provider=AvaturnProvider(voice), **options)
            )
            return await runner.run(), len(emulator.open_sessions)

    outcome, still_open = clock.run(main(), "virtual")
    left = Journal(folder / "state").open_sessions()
    assert still_open == len(left), "what is open at the vendor is in the journal, and nothing else"
    assert no_secret_in(folder, secrets_of(emulator))
    assert not (folder / "run" / "session.json").exists()
    return Shown(outcome, checked(folder / "run"), emulator, left)


def secrets_of(emulator: AvaturnEmulator) -> set[str]:
    """Everything that must never be shown: the key, the viewers' tokens, the sockets' secrets."""
    headers = [session.engine.get("headers") or {} for session in emulator.sessions.values()]
    return {KEY, *(session.token for session in emulator.sessions.values()), *(header[HEADER] for header in headers if HEADER in header)}


def no_secret_in(folder: Path, secrets: set[str]) -> bool:
    """Whether no file below a folder shows any of them."""
    redact = Redactor(secrets)
    texts = [path.read_text("latin-1") for path in folder.rglob("*") if path.is_file()]
    return bool(texts) and all(redact(text) == text for text in texts)
