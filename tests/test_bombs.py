"""Inputs that never end, or grow without bound, cost little and are refused in plain words."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from playbook.errors import RecordError, UsageError
from playbook.formats.source import need_file, read_file
from playbook.language import Inputs, check_file
from playbook.record.baseline import path_of, read_any
from playbook.record.runlog import read_log
from playbook.suite.case import rows
from playbook.transports.cassette import Cassette
from tests.commands import Shell
from tests.world import FakeWorld

PLAY = "version: 1\nname: show\nprovider: local\ntimeline:\n  - wait: 1s\n"


@pytest.fixture(params=["a pipe", "a link to a device"])
def endless(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What never begins to be read, or never ends."""
    path = tmp_path / "endless"
    if request.param == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    return path


def test_what_lies_beside_a_playbook_must_be_a_file(endless: Path) -> None:
    """A log, a baseline, a table and a cassette are files: nothing waits for a pipe or reads a device."""
    for read, error in (
        (lambda: read_log(endless), RecordError),
        (lambda: read_any(endless), RecordError),
        (lambda: rows(endless), UsageError),
        (lambda: Cassette(endless), RecordError),
    ):
        with pytest.raises(error, match="a pipe or a device, not a file"):
            read()


def test_a_test_of_a_strangers_folder_ends(endless: Path, shell: Shell) -> None:
    """The baseline beside a playbook may be anything; the case is an error, and says why."""
    path = path_of(Path(shell.write("show.yaml", PLAY)), None)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(endless)
    done = shell.call("test", "show.yaml", "--clock", "virtual")
    assert done.code != 0
    assert "a pipe or a device, not a file" in done.out + done.err


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    """The bound is told."""
    (tmp_path / "large").write_bytes(bytes(2**20 + 1))
    with pytest.raises(OSError, match="it is larger than 1 MiB"):
        read_file(tmp_path / "large", 2**20)
    assert need_file(tmp_path) == tmp_path, "what a folder is said to be is its reader's to say"


@pytest.mark.parametrize(("entries", "length"), [(2_000, 40), (40_000, 1)])
def test_a_loop_over_a_list_whose_text_is_the_list(entries: int, length: int, tmp_path: Path) -> None:
    """Each round's error quotes the whole list: what is said of it is bounded, in memory and in work."""
    values = ",".join(["a" * length] * entries)
    text = f'version: 1\nprovider: local\nvars: {{a: {{type: array, default: [{values}]}}}}\ntimeline:\n  - say: "{{{{ a }}}}"\n'
    (tmp_path / "p.yaml").write_text(text + '    foreach: "{{ a }}"\n')
    tracemalloc.start()
    problems, _ = check_file(tmp_path / "p.yaml", FakeWorld(), Inputs())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {problem.code for problem in problems} == {"PB204", "PB408"}
    assert peak < 120_000_000
