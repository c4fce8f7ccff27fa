"""Tavus playbooks, performed against the emulator: what the tests of both ways to speak share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playbook import clock
from playbook.emulators.faults import Injection
from playbook.emulators.tavus import TavusEmulator
from playbook.language import Inputs, compile_file
from playbook.model import Plan
from playbook.providers.base import SessionRecord
from playbook.providers.tavus import TavusProvider
from playbook.record.redact import Redactor
from playbook.runner import Options, Outcome, Runner
from playbook.sessions import Journal
from playbook.speech.voice import Voice
from playbook.world import World
from tests.contract import CHIME
from tests.logs import checked, closings, of

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


@functools.cache
def voice() -> Voice:
    """The real voice, with one cache for all tests."""
    return Voice()


@dataclass(frozen=True)
class Shown:
    """A run that is over: its outcome, its log, what the emulator saw, and what the session journal holds open."""

    outcome: Outcome
    lines: list[dict[str, Any]]
    emulator: TavusEmulator
    left: list[SessionRecord]

    @property
    def code(self) -> int:
        return self.outcome.result.exit_code

    @property
    def reason(self) -> str:
        return self.outcome.result.reason or ""

    @property
    def grades(self) -> dict[str, str]:
        """Of each line: on what evidence it ended."""
        return {task: line["evidence"] for task, line in closings(self.lines).items()}

    def notes(self, what: str) -> list[dict[str, Any]]:
        """Lines of the emulator's journal."""
        return [entry for entry in self.emulator.journal if entry["what"] == what]

    def requests(self, method: str, path: str = "") -> list[dict[str, Any]]:
        """What was asked of the emulator."""
        return [entry for entry in self.notes("request") if entry["method"] == method and entry["path"].endswith(path)]

    def sent(self, kind: str = "conversation.echo") -> list[dict[str, Any]]:
        """Messages that reached the room: their properties, and when they came."""
        messages = [entry for entry in self.notes("message") if entry["message"]["event_type"] == kind]
        return [{**entry["message"].get("properties", {}), "at_ms": entry["at_ms"]} for entry in messages]

    @property
    def spoken(self) -> list[str]:
        """What was truly said."""
        return [entry["task"] for entry in self.notes("speech_started")]

    @property
    def closed(self) -> str | None:
        """What the log says that the conversation ended for."""
        lines = of(self.lines, "event", "session_closed")
        return lines[0].get("reason") if lines else None


def plan_of(text: str, folder: Path, **var: Any) -> Plan:
    """A playbook's plan, compiled from a file; `chime.wav` lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chime.wav").write_bytes(CHIME)
    file = folder / "show.yaml"
    file.write_text(text, "utf-8")
    return compile_file(file, World(voice=voice()), Inputs(var=var))


def perform(
    text: str,
    folder: Path,
    emulator: TavusEmulator | None = None,
    *,
    injections: Iterable[Injection] = (),
    env: Mapping[str, str] | None = None,
    meanwhile: Callable[[TavusEmulator, Runner], None] | None = None,
    name: str = "virtual",
    var: Mapping[str, Any] | None = None,
    **options: Any,
) -> Shown:
    """A whole run, over real sockets. `meanwhile` is called before it begins. Asserts what must be so in every run: a good log, every line
    said once at most, and no secret anywhere."""
    plan = plan_of(text, folder, **(var or {}))
    emulator = emulator or TavusEmulator()
    emulator.injections = list(injections)

    async def main() -> tuple[Outcome, int]:
        async with emulator.serve() as url:
            given = {"TAVUS_BASE_URL": url, "TAVUS_API_KEY": KEY, **(env or {})}
            provider = options.pop("provider", None) or TavusProvider(voice)
            runner = Runner(plan, Options(folder=folder / "run", env=given, state_dir=folder / "state", provider=provider, **options))
            if meanwhile is not None:
                meanwhile(emulator, runner)
            return await runner.run(), len(emulator.open_sessions)

    outcome, still_open = clock.run(main(), name)  # type: ignore[arg-type]  # one of the two names
    left = Journal(folder / "state").open_sessions()
    assert still_open == len(left), "what is open at the vendor is in the journal, and nothing else"
    assert secrets_in(folder, {KEY, *(session.token for session in emulator.sessions.values() if session.token)}) == []
    assert not (folder / "run" / "session.json").exists()
    shown = Shown(outcome, checked(folder / "run"), emulator, left)
    first = [message["inference_id"] for message in shown.sent() if message.get("done") in (True, "true")]
    assert len(first) == len(set(first)), "no line is sent twice"
    return shown


def secrets_in(folder: Path, secrets: set[str]) -> list[str]:
    """Files below a folder that show one of them."""
    redact = Redactor(secrets)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    return [path.name for path in files if redact(text := path.read_text("latin-1")) != text]
