"""`speech/store`: what was spoken before, kept for this user alone, and done without where it cannot be kept."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from playbook.speech.store import Store
from playbook.speech.voice import Voice


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_entry_is_for_this_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "speech"
    store = Store(folder)
    store.put(store.name(["text"]), {"rate": 1}, b"sound")
    assert mode(folder) == 0o700
    assert {mode(path) for path in folder.iterdir()} == {0o600}


def test_a_name_tells_nothing_without_the_users_key(tmp_path: Path) -> None:
    """The same content has one name for one user, whichever process asks, and another one for another user."""
    names = [Store(tmp_path / user).name(["4711"]) for user in ("a", "a", "b")]
    assert names[0] == names[1]
    assert names[0] != names[2]


def test_a_key_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    before = Store(tmp_path).name(["x"])
    (tmp_path / "key").write_bytes(b"short")
    after = Store(tmp_path).name(["x"])
    assert after != before
    assert Store(tmp_path).name(["x"]) == after


def test_what_cannot_be_written_is_kept_in_memory(tmp_path: Path) -> None:
    """A full disk, or a folder whose place a file has taken meanwhile, is no reason to stay silent."""
    voice = Voice(tmp_path / "cache")
    first = voice.speak("Hello.").sound.pcm
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").touch()
    second = voice.speak("Hello again.")
    assert second.sound.pcm
    assert voice.speak("Hello.").sound.pcm == first
    assert voice._store.get("nothing") is None


def test_a_folder_that_is_removed_meanwhile_is_made_again(tmp_path: Path) -> None:
    voice = Voice(tmp_path / "cache")
    voice.speak("Hello.")
    shutil.rmtree(tmp_path / "cache")
    voice.speak("Hello again.")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_where_nothing_can_be_written_at_all_it_is_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a cache nor a place for temporary files: the voice speaks."""
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file" / "none"))
    store = Store(tmp_path / "file" / "cache")
    assert store.folder is None
    store.put("name", {"a": 1}, b"x")
    assert store.get("name") == ({"a": 1}, b"x")
    store.prune(0, set())
    assert Voice(tmp_path / "file" / "cache").speak("Hello.").sound.samples > 0
