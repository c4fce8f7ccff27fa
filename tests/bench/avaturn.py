"""Avaturn: the wire. A thousand lines, two hundred sessions at once, and how soon the next command follows a report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playbook import clock
from playbook.language import compile_file
from playbook.model import Plan
from playbook.perform.performance import Options, Outcome, Runner
from playbook.perform.world import World
from playbook.providers.avaturn.provider import AvaturnProvider
from playbook.speech.voice import Voice
from tests.bench import Say, bench, own_peak_mb, timed

LINES = 1000
SESSIONS = 200
KEY = "bench"

BARE = """
import asyncio

ANSWER = b'{"session_id": "s-1", "token": "t-1", "task_id": "t-1"}'
HEAD = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(ANSWER)

class Bare(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        while b"\\r\\n\\r\\n" in self.buffer:
            head, _, rest = self.buffer.partition(b"\\r\\n\\r\\n")
            size = next((int(line[15:]) for line in head.lower().split(b"\\r\\n") if line.startswith(b"content-length:")), 0)
            if len(rest) < size:
                return
            self.buffer = rest[size:]
            self.transport.write(HEAD + ANSWER)

async def main():
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
"""A service that says yes to everything, in a process of its own."""


@contextlib.contextmanager
def bare() -> Iterator[str]:
    """The bare service's address."""
    with subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def playbook_of(folder: Path, lines: int) -> Path:
    """So many lines, each of which waits only until it is taken."""
    file = folder / "lines.yaml"
    steps = "".join(f"  - {{say: This is line {n}., until: accepted}}\n" for n in range(lines))
    file.write_text(f"version: 1\nprovider: avaturn\ntimeline:\n{steps}  - end: {{drain: false}}\n", "utf-8")
    return file


async def perform(plan: Plan, url: str, folder: Path) -> Outcome:
    env = {"AVATURN_API_KEY": KEY, "AVATURN_BASE_URL": url}
    return await Runner(plan, Options(folder=folder, env=env)).run()


def from_yaml(file: Path, url: str) -> None:
    """From the bytes of the file to the last line of the log."""
    with tempfile.TemporaryDirectory() as out:
        outcome = clock.run(perform(compile_file(file, World()), url, Path(out) / "run"))
        assert outcome.result.exit_code == 0, outcome.result.reason


def by_hand(url: str) -> None:
    """The same calls by a script on one kept-alive connection."""
    import httpx

    async def main() -> None:
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client:
            session = (await client.post("/api/v1/sessions")).json()["session_id"]
            for n in range(LINES):
                (await client.post(f"/api/v1/sessions/{session}/tasks", json={"text": f"This is line {n}."})).json()["task_id"]
            await client.delete(f"/api/v1/sessions/{session}")

    asyncio.run(main())


@bench("avaturn-lines", f"{LINES} lines, each until it is accepted, beside a script that makes the same calls")
def lines(say: Say) -> None:
    with bare() as url, tempfile.TemporaryDirectory() as folder:
        file = playbook_of(Path(folder), LINES)
        from_yaml(file, url)  # warm: imports, and the service
        by_hand(url)
        pairs = [(timed(lambda: from_yaml(file, url))[0], timed(lambda: by_hand(url))[0]) for _ in range(5)]  # interleaved
        ours, theirs = (min(figures) for figures in zip(*pairs, strict=True))
        say("from YAML to the last line of the log", ours, "s", yardstick=("a script on httpx", theirs))
        say("the ratio of the two", ours / theirs, "", target=1.25)


@bench("avaturn-sessions", f"{SESSIONS} sessions at once in one process, ten lines each")
def sessions(say: Say) -> None:
    with bare() as url, tempfile.TemporaryDirectory() as folder:
        plan = compile_file(playbook_of(Path(folder), 10), World())

        async def main() -> None:
            runs = [perform(plan, url, Path(folder) / f"run-{n}") for n in range(SESSIONS)]
            for outcome in await asyncio.gather(*runs):
                assert outcome.result.exit_code == 0, outcome.result.reason

        took, _ = timed(lambda: clock.run(main()))
        say("all opened, spoken and ended", took, "s")
        say("for one", took / SESSIONS * 1000, "ms")
        say("peak memory of the process", own_peak_mb(), "MB")


@bench("avaturn-turnaround", "from an incoming `playback.ended` to the next command on the wire")
def turnaround(say: Say) -> None:
    delays = clock.run(_turns(300))
    delays.sort()
    say("median", statistics.median(delays), "ms")
    say("99 of 100", delays[len(delays) * 99 // 100 - 1], "ms", target=5.0)


async def _turns(lines: int) -> list[float]:
    """Act Avaturn, with a clock that runs ahead: report each segment as played to its end the moment it is closed, and measure until the
    next one is created."""
    from websockets.asyncio.client import connect

    delays: list[float] = []
    background: set[asyncio.Task[None]] = set()

    async def call(engine: dict[str, Any]) -> None:
        ended = sound_s = 0.0
        async with connect(engine["url"], additional_headers=engine["headers"], compression=None, ping_interval=None) as socket:
            async for message in socket:
                if isinstance(message, bytes):
                    sound_s += len(message) / 48_000
                    continue
                what = json.loads(message)
                kind, uid = what["type"], what["segment_uid"]
                if kind.endswith("create"):
                    if ended:
                        delays.append((time.perf_counter() - ended) * 1000)
                    reports, sound_s = ["created"], 0.0
                else:
                    reports = ["closed", "playback.started", "playback.ended"]
                for report in reports:
                    fields = {"segment_id": uid, "segment_uid": uid, "timestamp": sound_s if report == "playback.ended" else 0.0}
                    await socket.send(json.dumps({"type": f"avatar.speech.segment.{report}", **fields}))
                ended = time.perf_counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                size = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
                body = await reader.readexactly(size)
                if body:
                    background.add(asyncio.ensure_future(call(json.loads(body)["conversation_engine"])))
                answer = b'{"session_id": "s-1", "token": "t-1"}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)
        writer.close()

    service = await asyncio.start_server(serve, "127.0.0.1", 0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "turns.yaml"
        steps = "  - say: Yes.\n" * lines  # short, because a report that comes long before the sound can have ended is not believed
        engine = "session: {conversation_engine: {type: external, url: 'wss://avatar.example.com/'}}"
        file.write_text(f"version: 1\nprovider: avaturn\n{engine}\ntimeline:\n{steps}", "utf-8")
        voice = Voice()
        plan = compile_file(file, World(voice=voice))
        env = {"AVATURN_API_KEY": KEY, "AVATURN_BASE_URL": f"http://127.0.0.1:{service.sockets[0].getsockname()[1]}"}
        outcome = await Runner(plan, Options(folder=Path(folder) / "run", env=env, provider=AvaturnProvider(lambda: voice))).run()
        assert outcome.result.exit_code == 0, outcome.result.reason
    service.close()
    return delays
