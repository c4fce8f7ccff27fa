"""The witness: whatever becomes of a run that creates a session, the journal learns what was created. Real processes are really killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from playbook import clock
from playbook.clock import block
from playbook.errors import ProviderError, SetupError
from playbook.journal import courier, witness
from playbook.journal import journal as sessions
from playbook.journal.courier import PATIENCE_S, serve
from playbook.journal.journal import Journal
from playbook.ports import CREATE_BUDGET_S, SETTLED_S, SessionRecord
from playbook.providers.tavus.session import FIND_S
from playbook.transports.http import Answer, Http, Retry
from tests.logs import ROOT
from tests.test_http import CLOSE, EAT, KEY, Server, answer

CREATED = answer(200, '{"sessionId": "s-1", "token": "bearer-of-s-1"}')

ASKER = """
import asyncio, sys
from pathlib import Path
from playbook.journal.journal import Journal
from playbook.journal import courier
from playbook.journal.courier import PATIENCE_S, serve
from playbook.transports.http import Answer, Http, Retry

async def main(journal, url, key, moment):
    entry = Journal(Path(journal)).entry("run", "show")
    http = Http(url, headers={"Authorization": f"Bearer {key}"})
    async with entry.creating("kaltura", http, id_field="sessionId", end_fields=("token",), base_url=url):
        print("ready", flush=True)
        if moment == "before":
            await asyncio.Event().wait()
        try:
            answer = await http.request("POST", "/create", json={}, retry=Retry.NEVER)
            if moment == "recorded":
                entry.created(answer.need("sessionId"), token=answer.need("token"))
        finally:
            print("answered", flush=True)
            await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


class Held:
    """A server's act: the answer, as soon as somebody lets it out."""

    def __init__(self, data: bytes) -> None:
        self.asked, self.release = asyncio.Event(), asyncio.Event()
        self._data = data

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        self.asked.set()
        await self.release.wait()
        writer.write(self._data)
        await writer.drain()


@asynccontextmanager
async def asker(folder: Path, url: str, moment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that creates a session; dead at the end, if nobody killed it before."""
    argv = (sys.executable, "-c", ASKER, str(folder), url, KEY, moment)
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    try:
        async with asyncio.timeout(30):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def says(process: asyncio.subprocess.Process, word: str) -> None:
    assert process.stdout is not None
    assert (await process.stdout.readline()).decode().strip() == word


def facts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Journal(folder).path.read_text("utf-8").splitlines()]


def witness_of(folder: Path) -> int:
    pid = facts(folder)[0]["witness"]
    assert isinstance(pid, int)
    return pid


def arguments_of(pid: int) -> str:
    """What everybody can see of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text("utf-8")


def test_an_answer_that_came_too_late_is_written_down(tmp_path: Path):
    """The run is killed while the vendor is at it. Until the answer comes the journal says so; then it has the id and what ends it."""

    async def main() -> SessionRecord:
        held = Held(CREATED)
        journal = Journal(tmp_path)
        async with Server(held).serve() as url:
            async with asyncio.timeout(30), asker(tmp_path, url, "asking"):
                await held.asked.wait()
            [record] = journal.open_sessions()
            assert (record.session, record.alive, record.creating) == (None, False, True)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # what a service manager sends to all that belongs to a run
                os.kill(witness_of(tmp_path), number)
            held.release.set()
            await asyncio.to_thread(journal.wait_for_witnesses)
        [record] = journal.open_sessions()
        return record

    record = clock.run(main())
    assert (record.session, record.provider, record.creating) == ("s-1", "kaltura", False)
    assert record.end == {"token": "bearer-of-s-1"}
    assert record.facts["base_url"].startswith("http://127.0.0.1")


@pytest.mark.parametrize(
    ("act", "moment", "reason"),
    [
        (CREATED, "before", "never created: the run was killed before it could ask"),
        (answer(402, '{"error": "no credits"}'), "asked", "never created: the run was killed, and the service answered 402"),
        (None, "asked", "never created: the run was killed, and connection refused by 127.0.0.1"),
    ],
)
def test_what_was_surely_not_created_is_closed(act: bytes | None, moment: str, reason: str, tmp_path: Path):
    """The run is killed before it asked, or between a sure refusal and its own word of it: nothing is left on the list."""

    async def main() -> None:
        async with Server(act or CLOSE).serve() as url:
            async with asker(tmp_path, url if act else "http://127.0.0.1:9", moment) as process:
                await says(process, "ready")
                if moment == "asked":
                    await says(process, "answered")
            await asyncio.to_thread(Journal(tmp_path).wait_for_witnesses)

    clock.run(main())
    assert facts(tmp_path)[-1]["fact"] == "ended"
    assert facts(tmp_path)[-1]["reason"] == reason
    assert Journal(tmp_path).open_sessions() == []


@pytest.mark.parametrize("act", [EAT, answer(500), answer(200, "{}"), answer(200, '{"sessionId": 7}'), answer(200, "[")])
def test_what_nobody_can_know_stays_on_the_list(act: bytes | str, tmp_path: Path):
    """An answer that was lost, or makes no sense, proves nothing, whoever hears it."""

    async def main() -> None:
        async with Server(act).serve() as url:
            async with asker(tmp_path, url, "asked") as process:
                await says(process, "ready")
                await says(process, "answered")
            await asyncio.to_thread(Journal(tmp_path).wait_for_witnesses)

    clock.run(main())
    [record] = Journal(tmp_path).open_sessions()
    assert (record.session, record.creating) == (None, False)


def test_what_is_on_record_is_not_written_again(tmp_path: Path):
    """The run is killed a moment after it wrote the id down: the witness has nothing to add, also to a session that is over by then."""

    async def main() -> None:
        async with Server(CREATED).serve() as url, asker(tmp_path, url, "recorded") as process:
            await says(process, "ready")
            await says(process, "answered")
        await asyncio.to_thread(Journal(tmp_path).wait_for_witnesses)

    clock.run(main())
    assert [fact["fact"] for fact in facts(tmp_path)] == ["intent", "created"]


@pytest.mark.parametrize("how", ["closed", "deleted"])
def test_a_journal_that_somebody_else_has_changed(how: str, tmp_path: Path):
    """Its entry was closed as over, or the folder is gone: what was created is on record in the end."""
    journal = Journal(tmp_path / "state")

    async def main() -> None:
        held = Held(CREATED)
        async with Server(held).serve() as url:
            async with asyncio.timeout(30), asker(tmp_path / "state", url, "asking"):
                await held.asked.wait()
            if how == "closed":
                journal.ended(facts(tmp_path / "state")[0]["key"], "never created, or over")
            else:
                shutil.rmtree(tmp_path / "state")
            held.release.set()
            await asyncio.to_thread(until, lambda: any(record.session for record in journal.open_sessions()))

    clock.run(main())
    [record] = journal.open_sessions()
    assert (record.session, record.provider, record.run, record.end) == ("s-1", "kaltura", "run", {"token": "bearer-of-s-1"})


def until(true: Callable[[], bool]) -> None:
    """Look until it is so, for half a minute at most."""
    for _ in range(600):
        if true():
            return
        block(50)
    raise AssertionError("it never came to that")


def test_a_journal_that_cannot_be_written_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A disk without room may have some again: the witness tries for minutes."""
    entry = Journal(tmp_path / "state").entry("run", "show")
    entry.intent("kaltura")
    [line] = facts(tmp_path / "state")
    (tmp_path / "state").rename(tmp_path / "away")
    (tmp_path / "state").write_text("in the way")

    def meanwhile(_: int) -> None:
        (tmp_path / "state").unlink()
        (tmp_path / "away").rename(tmp_path / "state")

    monkeypatch.setattr(witness, "block", meanwhile)
    task = {
        "journal": str(tmp_path / "state"),
        "key": line["key"],
        "who": {"provider": "kaltura"},
        "id_field": "sessionId",
        "end_fields": [],
    }
    witness.testify(task, Answer(200, {}, b'{"sessionId": "s-1"}'))
    assert [record.session for record in Journal(tmp_path / "state").open_sessions()] == ["s-1"]


def test_nothing_is_asked_for_a_run_that_has_gone(tmp_path: Path):
    """It was killed before its request had left: nobody wants that session any more."""
    server = Server(CREATED)

    async def main() -> None:
        async with server.serve() as url:
            ours, theirs = socket.socketpair()
            task = {"task": {}, "asker": os.getpid(), "base_url": url, "headers": {}}  # we are not our own parent
            request = {"request": {"method": "POST", "path": "/create"}}
            serving = asyncio.ensure_future(serve(theirs, lambda _, last: gone.append(last)))
            ours.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(ours, 100) == b'{"ready":true}\n'
            for line in (task, request):
                ours.send(json.dumps({"errand": 1, **line}).encode() + b"\n")
            ours.close()
            await serving

    gone: list[object] = []
    clock.run(main())
    assert (gone, server.requests) == ([None], [])


def test_a_witness_that_cannot_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The package is not where the Python finds it that is started: its own words, no intent, no request."""
    monkeypatch.setattr(sessions, "WITNESS", (sys.executable, "-c", "raise ImportError('no playbook here')"))

    async def main() -> None:
        creating, _ = entered(tmp_path, "http://127.0.0.1:9")
        with pytest.raises(SetupError, match="has died: ImportError: no playbook here"):
            async with creating:
                raise AssertionError("nobody gets here")

    clock.run(main())
    assert not Journal(tmp_path).path.exists()


def entered(folder: Path, url: str) -> tuple[Any, Http]:
    """What a provider enters to create a session, in this process."""
    http = Http(url, headers={"Authorization": f"Bearer {KEY}"})
    return Journal(folder).entry("run", "show").creating("kaltura", http, id_field="sessionId"), http


def test_the_witness_leaves_with_the_word_that_all_is_on_record(tmp_path: Path):
    """It carries several requests, with the credentials, which nobody can see among the processes; then no trace of it is left."""
    server = Server(answer(404), CREATED)

    async def main() -> int:
        async with server.serve() as url:
            creating, http = entered(tmp_path, url)
            async with creating:
                pid = witness_of(tmp_path)
                assert KEY not in arguments_of(pid)
                with pytest.raises(ProviderError, match="404"):
                    await http.request("POST", "/create", json={"avatar": "é"}, retry=Retry.NEVER)
                got = await http.request("POST", "/", json={}, headers={"X-Extra": "1"}, params={"a": "b"}, retry=Retry.NEVER)
                assert (got.status, got.need("sessionId")) == (200, "s-1")
                assert got.headers["content-length"].isdigit()
            return pid

    pid = clock.run(main())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    first, second = server.requests
    assert f"authorization: bearer {KEY}".encode() in first.lower()
    assert "é".encode() in first or b"\\u00e9" in first
    assert second.startswith(b"POST /?a=b ")
    assert b"x-extra: 1" in second.lower()


def test_whoever_gives_up_leaves_the_rest_to_the_witness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run that waits for the answer no longer need not be killed for it: the vendor may be slower than we are patient."""

    async def main() -> None:
        held = Held(CREATED)
        async with Server(held).serve() as url:
            beside, _ = entered(tmp_path / "beside", url)
            async with beside:  # the process has begun
                monkeypatch.setattr(courier, "PATIENCE_S", 0.2)
                creating, http = entered(tmp_path, url)
                with pytest.raises(ProviderError, match="no answer came within 10 s"):
                    async with creating:
                        await http.request("POST", "/create", json={}, retry=Retry.NEVER)
                assert [record.creating for record in Journal(tmp_path).open_sessions()] == [True]
                held.release.set()
                await asyncio.to_thread(until, lambda: any(record.session for record in Journal(tmp_path).open_sessions()))

    clock.run(main())
    [record] = Journal(tmp_path).open_sessions()
    assert record.session == "s-1"


def test_what_creates_a_session_is_not_cut_off(tmp_path: Path):
    """A program that ends cancels all that its loop does; the answer is waited for all the same, since it tells what must be ended."""

    async def create(url: str) -> None:
        creating, http = entered(tmp_path, url)
        async with creating:
            answer = await http.request("POST", "/create", json={}, retry=Retry.NEVER)
            Journal(tmp_path).created(facts(tmp_path)[0]["key"], "kaltura", answer.need("sessionId"), {})

    async def main() -> None:
        held = Held(CREATED)
        async with Server(held).serve() as url:
            task = asyncio.ensure_future(create(url))
            await held.asked.wait()
            task.cancel()
            held.release.set()
            await asyncio.wait([task])

    clock.run(main())
    assert [fact["fact"] for fact in facts(tmp_path)] == ["intent", "created"]


def test_a_fork_does_not_keep_a_dead_run_alive(tmp_path: Path):
    """A child that a program forks meanwhile holds neither the lock of its run nor the way to its witness."""
    fork = "import os\nif os.fork() == 0:\n    print(os.getpid(), flush=True)\n    sys.stdin.read()\n    os._exit(0)\n"
    code = ASKER.replace('print("ready", flush=True)', 'exec(os.environ["FORK"])').replace("import asyncio, sys", "import asyncio, os, sys")

    async def main() -> None:
        argv = (sys.executable, "-c", code, str(tmp_path), "http://127.0.0.1:9", KEY, "before")
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, env={**os.environ, "FORK": fork}, stdin=pipe, stdout=pipe)
        assert process.stdout is not None
        assert process.stdin is not None
        child = int(await process.stdout.readline())
        process.kill()
        await asyncio.to_thread(until, lambda: not Journal(tmp_path).open_sessions())
        os.kill(child, 0)  # it lives
        process.stdin.close()
        await process.stdout.read()  # until the child has gone, too
        await process.wait()

    clock.run(main())
    assert facts(tmp_path)[-1]["reason"] == "never created: the run was killed before it could ask"


def test_sessions_that_are_created_at_once_share_a_witness(tmp_path: Path):
    """One process for ten runs of a program: it keeps apart who has noted what, and goes when the last has no more need of it."""

    async def create(url: str, n: int) -> int:
        creating, http = entered(tmp_path / str(n), url)
        async with creating:
            answer = await http.request("POST", f"/create/{n}", json={}, retry=Retry.NEVER)
            assert answer.need("sessionId") == f"s-{n}"
            Journal(tmp_path / str(n)).created(facts(tmp_path / str(n))[0]["key"], "kaltura", f"s-{n}", {})
        return witness_of(tmp_path / str(n))

    async def main() -> set[int]:
        held = Held(CREATED)
        slow, fast = Server(held), Server(*(answer(200, f'{{"sessionId": "s-{n}"}}') for n in range(10)))
        async with slow.serve() as there, fast.serve() as here:
            creating, http = entered(tmp_path / "99", there)
            with contextlib.suppress(ZeroDivisionError):
                async with creating:
                    late = asyncio.ensure_future(http.request("POST", "/create/99", json={}, retry=Retry.NEVER))
                    await held.asked.wait()
                    pids = {await create(here, n) for n in range(10)}
                    raise ZeroDivisionError  # a bug, say
            held.release.set()
            await asyncio.wait([late])
            await asyncio.to_thread(Journal(tmp_path / "99").wait_for_witnesses)
        return pids

    pids = clock.run(main())
    assert pids == {witness_of(tmp_path / "99")}
    assert [record.session for record in Journal(tmp_path / "99").open_sessions()] == ["s-1"]
    assert all([fact["fact"] for fact in facts(tmp_path / str(n))] == ["intent", "created"] for n in range(10))


def test_a_witness_that_dies_leaves_doubt(tmp_path: Path):
    """It is killed with the request on its way: nobody knows what came of that, and it is not sent again."""
    server = Server(answer())

    async def main() -> None:
        held = Held(CREATED)
        server.script = [held]
        async with server.serve() as url:
            creating, http = entered(tmp_path, url)
            beside, unasked = entered(tmp_path / "beside", url)
            async with beside, creating:
                request = asyncio.ensure_future(http.request("POST", "/create", json={}, retry=Retry.UNSENT))
                await held.asked.wait()
                os.kill(witness_of(tmp_path), signal.SIGKILL)
                with pytest.raises(ProviderError, match="has died; the request may have arrived") as caught:
                    await request
                assert caught.value.outcome == "ambiguous"
                server.script = [CREATED]
                other, later = entered(tmp_path / "later", url)
                async with other:  # who comes later, or had not asked yet, has another one
                    assert (await later.request("POST", "/create", json={}, retry=Retry.NEVER)).status == 200
                    assert (await unasked.request("POST", "/create", json={}, retry=Retry.NEVER)).status == 200

    clock.run(main())
    assert len(server.requests) == 3
    [record] = Journal(tmp_path).open_sessions()
    assert (record.session, record.creating) == (None, False)


def test_without_a_witness_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The process cannot be started: no intent, no request, no session."""
    monkeypatch.setattr(sessions, "WITNESS", (str(tmp_path / "no-such-program"),))

    async def main() -> None:
        creating, _ = entered(tmp_path, "http://127.0.0.1:9")
        with pytest.raises(SetupError, match="could not be started: no such file"):
            async with creating:
                raise AssertionError("nobody gets here")

    clock.run(main())
    assert not Journal(tmp_path).path.exists()


def test_what_is_known_to_be_unknown_is_not_waited_for(tmp_path: Path):
    """The answer was lost, and the run goes on about its business, as does the witness for another session: nobody has to wait for that."""

    async def main() -> None:
        async with Server(EAT).serve() as url:
            beside, _ = entered(tmp_path / "beside", url)
            creating, http = entered(tmp_path, url)
            async with beside:
                with contextlib.suppress(ProviderError):
                    async with creating:
                        await http.request("POST", "/create", json={}, retry=Retry.NEVER)
                [record] = Journal(tmp_path).open_sessions()
                [other] = Journal(tmp_path / "beside").open_sessions()
                assert (record.session, record.creating, other.creating) == (None, False, True)

    clock.run(main())


def test_the_times_that_are_waited_for_an_answer_fit_into_each_other():
    """A stop waits for as long as a create may take, and the journal calls it settled only later."""
    longest_s = Retry.UNSENT.value / 1000 + PATIENCE_S + FIND_S
    assert longest_s < CREATE_BUDGET_S < SETTLED_S
    assert CREATE_BUDGET_S <= sessions.WITNESS_TRIES * sessions.WITNESS_PAUSE_MS / 1000


def test_an_answer_that_lies_there_when_its_time_is_over():
    """After a suspension the timers are heard first, and a turn of the loop later what has come meanwhile: it counts."""

    async def main() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        there, missing = loop.create_future(), loop.create_future()
        loop.call_later(0.02, lambda: loop.call_soon(there.set_result, None))
        return await courier._within(0.02, there), await courier._within(0.02, missing)

    assert clock.run(main()) == (True, False)
