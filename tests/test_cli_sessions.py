"""`sessions`, and what `run` says when a session could not be ended: against a vendor of this file, through the real journal."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
from typing import ClassVar

import pytest

from playbook.errors import ProviderError
from playbook.events import PlayAudio, SayText, StopSpeaking, TaskAccepted
from playbook.model import Capabilities
from playbook.providers import registry
from playbook.providers.base import Context, FoundSession, SessionRecord
from playbook.providers.queued import QueuedSession
from playbook.sessions import Journal

PLAY = "version: 1\nname: show\nprovider: tavus\ntimeline:\n  - say: Hello.\n    id: hello\n"


class Vendor:
    """Bills by the minute, cannot always end a session, and can list them. What is open is `there`."""

    name, schema, credentials = "tavus", "local.schema.json", (("TAVUS_API_KEY",),)
    there: ClassVar[set[str]] = set()
    reachable: ClassVar[bool] = True

    def capabilities(self, _: Mapping[str, object]) -> Capabilities:
        return Capabilities(price_per_minute=0.5, max_session_ms=3_600_000)

    def check(self, _: object):
        return ()

    def connect(self, context: Context) -> QueuedSession:
        return VendorSession(context)

    async def end_session(self, record: SessionRecord, env: Mapping[str, str]) -> None:
        if not self.reachable:
            raise ProviderError(f"nobody answers to {env['TAVUS_API_KEY']}", outcome="ambiguous")
        self.there.discard(record.session)

    async def list_sessions(self, _: Mapping[str, str]):
        since = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)
        return [FoundSession(id, since, "a show") for id in sorted(self.there)]


class VendorSession(QueuedSession):
    async def _open(self) -> None:
        self.context.seal(self.context.env["TAVUS_API_KEY"])
        self.context.journal.intent("tavus", price_per_minute=0.5, max_session_ms=3_600_000)
        self.session_id = "c42"
        Vendor.there.add("c42")
        self.context.journal.created("c42", token="planted-token")

    async def _say(self, command: SayText) -> TaskAccepted:
        return TaskAccepted(command.task)

    async def _play_audio(self, command: PlayAudio) -> TaskAccepted:
        return TaskAccepted(command.task)

    async def _interrupt(self, command: StopSpeaking) -> TaskAccepted:
        return TaskAccepted(command.task)

    async def _close(self, reason: str) -> None:
        if not Vendor.reachable:
            raise ProviderError("nobody answers", outcome="ambiguous")
        Vendor.there.discard("c42")
        self.context.journal.ended(reason)


@pytest.fixture
def vendor(shell, monkeypatch):
    """The shell, with our vendor in the place of another and a key for it."""
    monkeypatch.setitem(registry.OURS, "tavus", "tests.test_cli_sessions:Vendor")
    monkeypatch.setattr(Vendor, "there", set())
    monkeypatch.setattr(Vendor, "reachable", True)
    shell.env["TAVUS_API_KEY"] = "planted-secret-key"
    return shell


def journal(shell) -> Journal:
    from pathlib import Path

    return Journal(Path(shell.env["PLAYBOOK_STATE_DIR"]))


def leave_open(shell, monkeypatch) -> None:
    """Perform a show whose session cannot be ended."""
    monkeypatch.setattr(Vendor, "reachable", False)
    done = shell.call("run", shell.write("show.yaml", PLAY), "--clock", "virtual", "--out", "here")
    assert done.code == 4
    monkeypatch.setattr(Vendor, "reachable", True)


def test_a_run_that_ends_its_session_leaves_nothing(vendor):
    """After a good run nothing is open, and nothing is said about it."""
    done = vendor.call("run", vendor.write("show.yaml", PLAY), "--clock", "virtual")
    assert done.code == 0
    assert "sessions end" not in done.err
    assert vendor.call("sessions").out == "no session is open\n"
    assert vendor.call("sessions", "end", "--all").code == 0


def test_the_last_line_is_the_command_that_ends_it(vendor, monkeypatch):
    """When the session could not be ended, the run is no success, and the last line on the screen is the command to be typed; it works."""
    monkeypatch.setattr(Vendor, "reachable", False)
    done = vendor.call("run", vendor.write("show.yaml", PLAY), "--clock", "virtual", "--out", "here")
    assert done.code == 4
    *_, told, command = done.err.splitlines()
    assert told == "a session at tavus is still open, and billed. End it with:"
    assert command == "playbook sessions end c42"
    monkeypatch.setattr(Vendor, "reachable", True)
    done = vendor.call(*command.split()[1:])
    assert (done.code, done.out) == (0, "tavus c42: ended\n")
    assert Vendor.there == set()
    assert vendor.call("sessions").out == "no session is open\n"


def test_list(vendor, monkeypatch):
    """`sessions` tells what is open, by whom, since when and at what cost, and never a credential."""
    leave_open(vendor, monkeypatch)
    done = vendor.call("sessions")
    head, row = done.out.splitlines()
    assert done.code == 0
    assert head.split()[:3] == ["session", "provider", "since"]
    assert row.split()[:2] == ["c42", "tavus"]
    assert f"runs, pid {os.getpid()}" in row
    assert row.endswith("show, here")
    (data,) = json.loads(vendor.call("sessions", "--json").out)
    assert (data["session"], data["running"], data["playbook"], data["run"]) == ("c42", True, "show", "here")
    assert data["estimated_cost"] < 0.5
    assert datetime.datetime.fromisoformat(data["ends_by"]) - datetime.datetime.fromisoformat(data["since"]) == datetime.timedelta(hours=1)
    for argv in (["sessions"], ["sessions", "--json"], ["sessions", "end", "--all"]):
        done = vendor.call(*argv)
        assert "planted" not in done.out + done.err


def test_end_that_fails(vendor, monkeypatch):
    """What cannot be ended stays in the list, is said without the key, and exits 4; the others are ended all the same."""
    leave_open(vendor, monkeypatch)
    entry = journal(vendor).entry("another-run", "show")
    entry.intent("nobody")
    entry.created("x1")
    monkeypatch.setattr(Vendor, "reachable", False)
    done = vendor.call("sessions", "end", "--all")
    assert done.code == 4
    assert "error: tavus c42: nobody answers to ***" in done.err
    assert "error: nobody x1: the provider 'nobody' is not installed" in done.err
    monkeypatch.setattr(Vendor, "reachable", True)
    done = vendor.call("sessions", "end", "--all")
    assert (done.code, done.out) == (4, "tavus c42: ended\n")
    assert vendor.call("sessions", "forget", "x1").out == "nobody x1: forgotten, not ended\n"
    assert vendor.call("sessions", "end", "--all").code == 0


def test_an_intent_without_an_id(vendor):
    """A create whose answer nobody saw is listed with what is known; it cannot be ended, only awaited or forgotten."""
    journal(vendor).entry("here", "show").intent("tavus", max_session_ms=3_600_000)
    (data,) = json.loads(vendor.call("sessions", "--json").out)
    assert data["session"] is None
    assert f"unknown ({data['key']})" in vendor.call("sessions").out
    done = vendor.call("sessions", "end", "--all")
    assert done.code == 4
    assert f"`playbook sessions forget {data['key']}`" in done.err
    assert vendor.call("sessions", "forget", data["key"]).code == 0
    assert vendor.call("sessions").out == "no session is open\n"


def test_an_intent_that_is_surely_over(vendor):
    """Once the vendor's own limit has passed, an intent without an id is closed by `end --all`."""
    journal(vendor).entry("here", "show").intent("tavus", max_session_ms=-1)
    done = vendor.call("sessions", "end", "--all")
    assert done.code == 0
    assert "over by the vendor's own limit" in done.out
    assert vendor.call("sessions").out == "no session is open\n"


def test_unknown_sessions(vendor):
    """An id that the journal does not know is 5; with the provider's name it is ended all the same."""
    assert vendor.call("sessions", "end", "c99").code == 5
    assert vendor.call("sessions", "forget", "c99").code == 5
    Vendor.there.add("c99")
    done = vendor.call("sessions", "end", "c99", "--provider", "tavus")
    assert (done.code, done.out, Vendor.there) == (0, "tavus c99: ended\n", set())


def test_reconcile(vendor, monkeypatch):
    """`reconcile` finds what the journal missed, and what it holds although the vendor does not; it changes nothing."""
    leave_open(vendor, monkeypatch)
    done = vendor.call("sessions", "reconcile")
    assert (done.code, done.out) == (0, "the journal agrees with tavus\n")
    Vendor.there.clear()
    Vendor.there.add("c77")
    done = vendor.call("sessions", "reconcile")
    assert done.code == 1
    assert done.out.splitlines() == [
        "tavus c42: in the journal, but not open there; `playbook sessions end c42` takes it off the list",
        "tavus c77 (a show, since 2026-01-02 03:04 UTC): open, but not in the journal; "
        "end it with `playbook sessions end c77 --provider tavus`",
    ]
    assert json.loads(vendor.call("sessions", "reconcile", "--json").out)["asked"] == ["tavus"]
    assert len(json.loads(vendor.call("sessions", "--json").out)) == 1


def test_reconcile_needs_somebody_to_ask(shell):
    """Without credentials nobody is asked: 5. A provider that cannot tell is 4."""
    assert shell.call("sessions", "reconcile").code == 5
    assert shell.call("sessions", "reconcile", "--provider", "local").code == 4


def test_a_journal_that_cannot_be_read(vendor, tmp_path):
    """A journal of a newer version is refused, not ignored."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "sessions.jsonl").write_text('{"journal":2,"key":"k","fact":"intent"}\n')
    done = vendor.call("sessions")
    assert done.code == 4
    assert "use the newer version" in done.err
