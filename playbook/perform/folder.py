"""The folder of a run: `run.jsonl`, `plan.json`, `captions.vtt`, `captions.srt`, and `audio.wav` where we made the sound."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from playbook.clock import Clock, wall_time
from playbook.errors import SetupError, reason_of
from playbook.folders import run_folder
from playbook.formats.source import read_file
from playbook.language import plan_to_json
from playbook.model import Plan
from playbook.record.captions import write_captions, write_new
from playbook.record.redact import Redactor
from playbook.record.runlog import Header, Line, RunLog, encode_line
from playbook.record.summary import RunSummary

if TYPE_CHECKING:
    from playbook.speech.audio import Sound
    from playbook.speech.show import ShowRecorder


MAX_SOUND = 1024 * 1024 * 1024
"""No sound's file may be larger, whatever is in it."""


class RunFolder:
    """A folder that is made for one run of a plan. Raises `UsageError` when it is in use, `SetupError` when it cannot be written."""

    def __init__(self, given: Path | None, plan: Plan) -> None:
        self.path = run_folder(given, plan.name)
        self._made_by_us = given is None
        self._plan = plan

    def begin(self, clock: Clock, redact: Redactor, watch: Callable[[Line], None] | None) -> RunLog:
        """Write the plan and the log's header. Gives the log."""
        try:
            write_new(self.path / "plan.json", _plan_text(self._plan))
            log = RunLog(self.path / "run.jsonl", redact=redact, watch=watch)
            log.header(self._header(clock))
        except OSError as error:
            raise SetupError(f"{self.path} cannot be written: {reason_of(error)}") from error
        return log

    def _header(self, clock: Clock) -> Header:
        return Header(
            run=self.path.name,
            playbook=self._plan.name,
            file=self._plan.file,
            plan_sha256=self._plan.sha256,
            provider=self._plan.provider,
            clock=clock.name,
            started_at=wall_time().isoformat(timespec="milliseconds"),
            versions={"playbook": metadata.version("avatar-playbook"), "python": platform.python_version()},
        )

    def write_show(self, show: ShowRecorder, summary: RunSummary, now: int) -> None:
        """Captions and sound. Half a sound would pass for a whole one, and takes the room that the log's last line needs."""
        zero, sound = summary.zero_ms, self.path / "audio.wav"
        if zero is None:
            return
        write_captions(self.path, summary, show)
        try:
            show.write(sound, now - zero)
        except (OSError, SetupError):
            with contextlib.suppress(OSError):
                sound.unlink(missing_ok=True)
            raise

    def remove_unless_given(self) -> bool:
        """Nothing happened: a folder that nobody asked for, and so nobody knows of, would lie there for ever. Gives whether it is gone."""
        if self._made_by_us:
            shutil.rmtree(self.path, ignore_errors=True)
        return self._made_by_us


def sound_of(plan: Plan, sha256: str) -> Sound:
    """A sound as it was when the plan was made. Raises `SetupError`."""
    from playbook.speech.audio import decode

    source = plan.sounds[sha256]
    if isinstance(source, bytes):
        return decode(source)
    try:
        data = read_file(Path(source), MAX_SOUND)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise SetupError(f"the sound {source} cannot be used any more: it has changed since the plan was made")
    except OSError as error:
        raise SetupError(f"the sound {source} cannot be used any more: {reason_of(error)}") from error
    return decode(data)


def _plan_text(plan: Plan) -> str:
    """`plan.json`: readable, one step a line."""
    data = plan_to_json(plan)
    steps = ",\n".join("  " + encode_line(step).decode().rstrip() for step in data.pop("steps"))
    return json.dumps(data, ensure_ascii=False, indent=1).removesuffix("\n}") + f',\n "steps": [\n{steps}\n ]\n}}\n'
