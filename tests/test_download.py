"""`transports/download`: a large file from a real server on loopback that breaks off, gives something else, or refuses."""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from playbook.errors import SetupError, UsageError
from playbook.transports.download import fetch

DATA = bytes(range(256)) * 4_000
DIGEST = hashlib.sha256(DATA).hexdigest()


class Release(ThreadingHTTPServer):
    """Serves `data`; of each answer only the first `at_most` bytes come. `asked` are the ranges that were asked for."""

    data = DATA
    at_most = len(DATA)
    status = 0
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.onnx"


class Handler(BaseHTTPRequestHandler):
    server: Release

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        if self.server.status:
            self.send_error(self.server.status)
            return
        found = re.match(r"bytes=(\d+)-", wanted or "") if self.server.ranges else None
        start = int(found[1]) if found else 0
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(len(self.server.data) - start))
        self.end_headers()
        self.wfile.write(self.server.data[start:][: self.server.at_most])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def release() -> Iterator[Release]:
    server = Release()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_fetched_and_told_of(release: Release, tmp_path: Path) -> None:
    seen: list[int] = []
    fetch(release.url, tmp_path / "new" / "model", len(DATA), DIGEST, seen.append)
    assert (tmp_path / "new" / "model").read_bytes() == DATA
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model"]


def test_what_breaks_off_goes_on_where_it_was(release: Release, tmp_path: Path) -> None:
    """Three answers break off, and the fourth ends it; nothing is fetched twice."""
    release.at_most = len(DATA) // 4
    fetch(release.url, tmp_path / "model", len(DATA), DIGEST)
    assert (tmp_path / "model").read_bytes() == DATA
    assert release.asked == [None, *(f"bytes={n * len(DATA) // 4}-" for n in (1, 2, 3))]


def test_what_breaks_off_for_good_is_told_and_kept(release: Release, tmp_path: Path) -> None:
    release.at_most = 1_000
    with pytest.raises(SetupError, match=f"broke off after 4000 of {len(DATA)} bytes") as caught:
        fetch(release.url, tmp_path / "model", len(DATA), DIGEST)
    assert caught.value.remedy == "try again: it goes on from there"
    assert not (tmp_path / "model").exists()
    release.at_most = len(DATA)
    fetch(release.url, tmp_path / "model", len(DATA), DIGEST)
    assert release.asked[-1] == "bytes=4000-"


def test_a_server_that_knows_no_ranges_gives_all_of_it_again(release: Release, tmp_path: Path) -> None:
    (tmp_path / "model.part").write_bytes(b"x" * 100)
    release.ranges = False
    fetch(release.url, tmp_path / "model", len(DATA), DIGEST)
    assert (tmp_path / "model").read_bytes() == DATA


def test_another_file_is_refused_and_the_one_there_is_kept(release: Release, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"before")
    release.data = DATA[::-1]
    with pytest.raises(SetupError, match="its digest is"):
        fetch(release.url, tmp_path / "model", len(DATA), DIGEST)
    assert (tmp_path / "model").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("status", [404, 403])
def test_a_refusal_is_told_at_once(release: Release, tmp_path: Path, status: int) -> None:
    release.status = status
    with pytest.raises(SetupError, match=f"is refused \\({status}\\)"):
        fetch(release.url, tmp_path / "model", len(DATA), DIGEST)
    assert len(release.asked) == 1


def test_a_server_in_trouble_is_asked_again(release: Release, tmp_path: Path) -> None:
    release.status = 503
    with pytest.raises(SetupError, match="broke off after 0 of"):
        fetch(release.url, tmp_path / "model", len(DATA), DIGEST)
    assert len(release.asked) == 4


def test_where_nobody_listens_it_is_told(tmp_path: Path) -> None:
    server = Release()
    server.server_close()
    with pytest.raises(SetupError, match="Connection refused"):
        fetch(server.url, tmp_path / "model", len(DATA), DIGEST)


def test_a_full_disk_is_told_before(release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(SetupError, match="has room for 0 MB"):
        fetch(release.url, tmp_path / "model", len(DATA), DIGEST)
    assert release.asked == []


def test_a_folder_that_cannot_be_written_is_told(release: Release, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="cannot be written"):
        fetch(release.url, tmp_path / "file" / "model", len(DATA), DIGEST)


@pytest.mark.parametrize("url", ["http://example.org/model", "ftp://127.0.0.1/model", "file:///etc/passwd"])
def test_only_https_or_this_machine(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither https nor on this machine"):
        fetch(url, tmp_path / "model", 1, DIGEST)
