"""A stranger's playbook reads no files but its own: not by `..`, not by an absolute path, not by a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from playbook.speech.audio import silence
from tests.commands import Shell
from tests.sounds import to_wav

PLAY = "version: 1\nname: show\nprovider: local\ntimeline:\n  - {}\n  - wait: 10ms\n"
FILES = {
    "credentials.yml": "oauth_token: gho_S3CRET\nuser: me\n",
    "accounts": "root:$y$S3CRET:19000:0:99999:7:::\nother:*:1::::::\n",
    "key.pem": "-----BEGIN PRIVATE KEY-----\nS3CRETb64==\n-----END PRIVATE KEY-----\n",
    "list.json": '["S3CRET", {"a": "S3CRET"}]',
}


@pytest.fixture
def outside(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder beside the one where we are."""
    folder = shell.folder / "outside"
    folder.mkdir()
    (shell.folder / "inside").mkdir()
    monkeypatch.chdir(shell.folder / "inside")
    return folder


@pytest.mark.parametrize("name", FILES)
def test_no_line_of_a_file_that_is_no_playbook_is_shown(name: str, shell: Shell, outside: Path) -> None:
    """Also where the folder is allowed: whatever is wrong with such a file, only where it is named is shown."""
    (outside / name).write_text(FILES[name])
    Path("show.yaml").write_text(PLAY.format(f"include: ../outside/{name}"))
    for more in ((), ("--json",), ("--root", ".."), ("--root", "..", "--json")):
        done = shell.call("check", "show.yaml", *more)
        assert done.code == 3
        assert "S3CRET" not in done.out + done.err


@pytest.mark.parametrize("how", ["up", "absolute", "link"])
@pytest.mark.parametrize("what", ["include", "audio-echo"])
def test_check_and_test_allow_the_files_of_the_project(what: str, how: str, shell: Shell, outside: Path) -> None:
    """A file of another folder is refused, and the message says how to allow it; `run` and `--root` take it."""
    target = outside / ("part.yaml" if what == "include" else "a.wav")
    if what == "include":
        target.write_text("timeline:\n  - wait: 1ms\n")
    else:
        target.write_bytes(to_wav(silence(500, 8_000)))
    named = {"up": f"../outside/{target.name}", "absolute": str(target), "link": f"link{target.suffix}"}[how]
    if how == "link":
        Path(named).symlink_to(target)
    Path("show.yaml").write_text(PLAY.format(f"{what}: {named}"))
    for verb in ("check", "test"):
        done = shell.call(verb, "show.yaml")
        assert done.code != 0
        assert "is outside of" in done.out + done.err
        assert "give --root DIR" in done.out + done.err
    assert shell.call("check", "show.yaml", "--root", "..").code == 0
    assert shell.call("plan", "show.yaml").code == 0
    assert shell.call("plan", "show.yaml", "--root", ".").code == 3


def test_a_repository_is_one_project(shell: Shell, outside: Path) -> None:
    """A part of the same repository is allowed, wherever the command is given."""
    (shell.folder / ".git").mkdir()
    (outside / "part.yaml").write_text("timeline:\n  - wait: 1ms\n")
    Path("show.yaml").write_text(PLAY.format("include: ../outside/part.yaml"))
    assert shell.call("check", "show.yaml").code == 0
