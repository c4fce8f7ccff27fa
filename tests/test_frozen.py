"""What the shipped cloud playbooks come to today: their plans' digests, and their whole logs with the emulators on the virtual clock.

`tests/golden/frozen/<playbook>.jsonl` is a log below its header, behind a line with the plan's digest. A change of the house that is to
change nothing changes none of these; one that is to change something shows it in their diff (`--update-golden`).
"""

from __future__ import annotations

import json

import pytest

from .logs import ROOT, checked

FROZEN = ROOT / "tests" / "golden" / "frozen"
CLOUDS = sorted(path for path in (ROOT / "playbooks").glob("*.yaml") if "provider: local" not in path.read_text("utf-8"))
NEEDS = {
    "avaturn-external": ("--trigger", "go"),
    "avaturn-text-echo": ("--trigger", "go"),
    "kaltura-tour": ("--trigger", "go"),
    "tavus-microphone": ("--trigger", "go"),
    "tavus-welcome": ("--trigger", "go"),
}


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_a_frozen_log(path, shell, update_golden):
    """The same playbook gives the same plan and the same log, byte by byte below the log's header."""
    done = shell.call("run", str(path), "--emulate", "--clock", "virtual", "--out", "here", *NEEDS.get(path.stem, ()))
    assert done.code == 0, done.err
    checked(shell.folder / "here")
    header, _, log = (shell.folder / "here" / "run.jsonl").read_text("utf-8").partition("\n")
    got = json.dumps({"plan_sha256": json.loads(header)["plan_sha256"]}) + "\n" + log
    golden = FROZEN / f"{path.stem}.jsonl"
    if update_golden:
        golden.write_text(got, "utf-8")
    assert got == golden.read_text("utf-8")
