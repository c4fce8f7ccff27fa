"""`playbook voices`: the list, the fetching of a model from a release on loopback, and a voice in a file."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from playbook.speech.audio import decode
from playbook.speech.kokoro import Kokoro
from tests.commands import Shell
from tests.kokoro import release_of, write_model, write_speakers


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: Shell) -> Iterator[str]:
    """The address of a release with a small model, which is the one that is pinned."""
    folder = tmp_path / "release"
    folder.mkdir()
    write_model(folder / "kokoro-v1.0.int8.onnx")
    write_speakers(folder / "voices-v1.0.bin", "af_heart", "bm_george")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(Kokoro, "release", release_of(folder, address))
    shell.env["PLAYBOOK_VOICES_DIR"] = str(tmp_path / "voices")
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_voice_is_listed_fetched_and_heard(shell: Shell, served: str, tmp_path: Path) -> None:
    """Before: what is missing and how to get it. The fetching tells size, licence and place first. After: it speaks, and a playbook may
    name it; what is there is not fetched again."""
    before = shell.call("voices")
    assert before.code == 0
    assert "kokoro: playbook voices install kokoro" in before.out
    done = shell.call("voices", "install", "kokoro")
    assert (done.code, done.out) == (0, "kokoro is installed\n")
    assert done.err.splitlines()[0] == f"kokoro: 1 MB under Apache-2.0, into {tmp_path / 'voices' / 'kokoro'}"
    assert "voices-v1.0.bin: its digest is right" in done.err
    again = shell.call("voices", "install")
    assert "kokoro-v1.0.int8.onnx is there" in again.err
    listed = json.loads(shell.call("voices", "list", "kokoro", "--json").out)
    assert listed[0]["speakers"] == [
        {"name": "af_heart", "languages": ["en-us", "en"]},
        {"name": "bm_george", "languages": ["en-gb", "en"]},
    ]
    assert "kokoro/bm_george  en-gb, en" in shell.call("voices", "list", "kokoro").out
    played = shell.call("voices", "play", "kokoro/af_heart", "Good morning.", "--to", "hello.wav")
    assert played.code == 0, played.err
    assert decode(Path("hello.wav")).rate == 24_000
    shell.write("natural.yaml", "version: 1\nprovider: local\nsession: {voice: kokoro/af_heart}\ntimeline:\n  - say: Hello. Welcome.\n")
    assert shell.call("check", "natural.yaml").code == 0
    run = shell.call("run", "natural.yaml", "--clock", "virtual", "--out", "run")
    assert run.code == 0, run.err
    accepted = next(line for line in Path("run/run.jsonl").read_text("utf-8").splitlines() if "task_accepted" in line)
    assert json.loads(accepted)["reason"] == "marks: estimated"


def test_a_playbook_that_names_a_voice_that_is_not_there_is_told_how_to_get_it(shell: Shell, served: str) -> None:
    shell.write("natural.yaml", "version: 1\nprovider: local\nsession: {voice: kokoro/af_heart}\ntimeline:\n  - say: Hello.\n")
    checked = shell.call("check", "natural.yaml")
    assert checked.code == 3
    assert "error[PB450]: the model of the voice kokoro is not installed" in checked.out + checked.err
    assert "playbook voices install kokoro" in checked.out + checked.err
    assert "natural.yaml:3" in checked.out + checked.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("voices", "list", "kokoko"), "there is no voice engine 'kokoko'"),
        (("voices", "install", "espeak"), "has nothing to fetch"),
        (("voices", "list", "kokoro", "Hello"), "takes no text"),
        (("voices", "install", "kokoro", "--source", "http://example.org"), "neither https nor on this machine"),
    ],
)
def test_wrong_usage_is_told(shell: Shell, served: str, words: tuple[str, ...], message: str) -> None:
    done = shell.call(*words)
    assert done.code == 2
    assert message in done.err


def test_a_voice_that_is_unknown_is_told(shell: Shell, served: str) -> None:
    done = shell.call("voices", "play", "piper/anna")
    assert done.code == 4
    assert "piper/anna" in done.err
