"""Files in run folders that others can write: never into theirs, never through a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from playbook.folders import VIEWER, publish, withdraw
from playbook.record.captions import write_new


def test_what_a_viewer_needs_is_written_into_a_new_file(tmp_path: Path) -> None:
    """A file that somebody has planted, and has open, stays as it was; so does what a planted link points to; ours is for us alone."""
    precious, path = tmp_path / "precious", tmp_path / VIEWER
    precious.write_text("precious")
    path.write_text("")
    with path.open() as theirs:
        publish(tmp_path, "a token")
        assert theirs.read() == ""
    path.unlink()
    path.symlink_to(precious)
    publish(tmp_path, "a token")
    assert (precious.read_text(), path.read_text(), path.is_symlink()) == ("precious", "a token", False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {each.name for each in tmp_path.iterdir()} == {"precious", VIEWER}, "no draft is left"


def test_a_viewers_file_that_cannot_be_removed_is_emptied_but_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Emptying follows no link."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    precious, path = tmp_path / "precious", tmp_path / VIEWER
    precious.write_text("precious")
    publish(tmp_path, "a token")
    monkeypatch.setattr(Path, "unlink", refuse)
    withdraw(tmp_path)
    assert path.read_text() == ""
    os.unlink(path)
    path.symlink_to(precious)
    withdraw(tmp_path)
    assert precious.read_text() == "precious"


def test_a_new_file_is_new(tmp_path: Path) -> None:
    """What a run leaves is not written through a link, even one that points nowhere."""
    (tmp_path / "captions.vtt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_new(tmp_path / "captions.vtt", "text")
    assert not (tmp_path / "elsewhere").exists()
