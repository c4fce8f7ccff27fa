"""`sessions`, and what `run` says when a session could not be ended: against a vendor of this file, through the real journal."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import httpx
import pytest

from playbook.cli import main
from playbook.clock import wall_time
from playbook.errors import ProviderError
from playbook.events import PlayAudio, SayText, StopSpeaking, TaskAccepted
from playbook.journal.journal import Journal
from playbook.model import Capabilities
from playbook.ports import SessionRecord
from playbook.providers import registry
from playbook.providers.base import Context, FoundSession
from playbook.providers.queued import QueuedSession
from tests.served import playbook_for, serving

PLAY = "version: 1\nname: show\nprovider: tavus\ntimeline:\n  - say: Hello.\n    id: hello\n"


class Vendor:
    """Bills by the minute, cannot always end a session, and can list them. What is open is `there`."""

    name, schema, credentials = "tavus", "local.schema.json", (("TAVUS_API_KEY",),)
    there: ClassVar[set[str]] = set()
    reachable: ClassVar[bool] = True
    broken: ClassVar[set[str]] = set()

    def capabilities(self, _: Mapping[str, object]) -> Capabilities:
        return Capabilities(price_per_minute=0.5, max_session_ms=3_600_000)

    def check(self, _: object):
        return ()

    def connect(self, context: Context) -> QueuedSession:
        return VendorSession(context)

    async def end_session(self, record: SessionRecord, env: Mapping[str, str], transports: object) -> None:
        if record.session in self.broken:
            raise ZeroDivisionError("in the code that ends it")
        if not self.reachable:
            raise ProviderError(f"nobody answers to {env['TAVUS_API_KEY']}", outcome="ambiguous")
        self.there.discard(record.session)

    async def list_sessions(self, _: Mapping[str, str], transports: object):
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


def test_a_run_begins_with_what_others_left(vendor, monkeypatch):
    """One plain line, also with --quiet, when a run that died may have left a session; none for what lives, is over, or costs nothing."""
    entry = journal(vendor).entry("before", "show")
    entry.intent("tavus", max_session_ms=3_600_000)
    entry.created("c1")
    vendor.write("show.yaml", PLAY)
    assert "note:" not in vendor.call("run", "show.yaml", "--clock", "virtual", "--quiet", "--out", "1").err
    orphaned(vendor)
    told = "note: a session of a run that died may still be open, and billed; `playbook sessions end --gone` ends what can be ended"
    assert vendor.call("run", "show.yaml", "--clock", "virtual", "--quiet", "--out", "2").err.splitlines() == [told]
    assert "note:" not in vendor.call("run", "show.yaml", "--clock", "virtual", "--provider", "local", "--out", "3").err
    later(monkeypatch, hours=2)
    assert "note:" not in vendor.call("run", "show.yaml", "--clock", "virtual", "--quiet", "--out", "4").err


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
    assert "`playbook sessions forget c42` takes it off the list" in done.err
    assert "error: nobody x1: the provider 'nobody' is not installed" in done.err
    monkeypatch.setattr(Vendor, "reachable", True)
    done = vendor.call("sessions", "end", "--all")
    assert (done.code, done.out) == (4, "tavus c42: ended\n")
    assert vendor.call("sessions", "forget", "x1").out == "nobody x1: forgotten, not ended\n"
    assert vendor.call("sessions", "end", "--all").code == 0


def test_a_bug_in_ending_one_leaves_no_other_open(vendor, monkeypatch):
    """A session whose end runs into a bug stays in the list; the others are ended all the same, then the traceback comes, and 70."""
    for session in ("c1", "c2"):
        entry = journal(vendor).entry("a-run", "show")
        entry.intent("tavus")
        entry.created(session)
        Vendor.there.add(session)
    monkeypatch.setattr(Vendor, "broken", {"c1"})
    done = vendor.call("sessions", "end", "--all")
    assert (done.code, done.out) == (70, "tavus c2: ended\n")
    assert done.err.index("error: tavus c1: internal error") < done.err.index("ZeroDivisionError: in the code that ends it")
    assert [record.session for record in journal(vendor).open_sessions()] == ["c1"]


def test_end_that_nobody_can_be_told_of(vendor, monkeypatch):
    """A session that was ended is off the list, also when standard output is full."""
    leave_open(vendor, monkeypatch)
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert main(["sessions", "end", "--all"], vendor.env) == 4
        monkeypatch.undo()
    assert journal(vendor).open_sessions() == []


def test_end_what_has_gone(vendor):
    """`end --gone` ends the sessions whose run has gone, and leaves those alone whose run goes on, or is another machine's; what their
    viewers were given goes with them."""
    for run, session in (("before", "c1"), ("now", "c2")):
        Path(run).mkdir()
        Path(run, "session.json").write_text("{}")
        entry = journal(vendor).entry(run, "show", Path(run))
        entry.intent("tavus")
        entry.created(session)
        Vendor.there.add(session)
        if run == "before":
            orphaned(vendor)
    done = vendor.call("sessions", "end", "--gone")
    assert (done.code, done.out) == (0, "tavus c1: ended\n")
    assert Vendor.there == {"c2"}
    assert (list(Path("before").iterdir()), list(Path("now").iterdir())) == ([], [Path("now/session.json")])
    again = vendor.call("sessions", "end", "--gone")
    assert (again.code, again.out, again.err) == (0, "no session is open whose run is over\n", "")
    for argv in (["--gone", "--all"], ["--gone", "c2"], []):
        assert vendor.call("sessions", "end", *argv).code == 2


def test_what_ran_on_another_machine(vendor):
    """`end --gone` ends a session of a container that was replaced. What still holds its lock, and what cannot be known, is left open and
    named, with the command that ends it."""
    for session in ("c1", "c2", "c3"):
        entry = journal(vendor).entry("a-run", "show")
        entry.intent("tavus")
        entry.created(session)
        Vendor.there.add(session)
        if session == "c1":
            entry._let_go()  # as the end of its process does
    path = journal(vendor).path
    text = path.read_text("utf-8").replace(json.dumps(socket.gethostname()), '"4f2a"')
    path.write_text(text, "utf-8")
    keys = {json.loads(line).get("session"): json.loads(line)["key"] for line in text.splitlines()}
    (path.parent / "alive" / keys["c3"]).unlink()
    listed = vendor.call("sessions").out
    assert f"runs, pid {os.getpid()} on 4f2a" in listed
    assert f"not known, pid {os.getpid()} on 4f2a" in listed
    done = vendor.call("sessions", "end", "--gone")
    assert (done.code, done.out) == (0, "tavus c1: ended\n")
    assert done.err.splitlines() == [
        "note: tavus c2 is left open: its run on 4f2a still holds its lock; `playbook sessions end c2` ends it",
        "note: tavus c3 is left open: its run on 4f2a may go on, which cannot be known from here; `playbook sessions end c3` ends it",
    ]
    assert vendor.call("sessions", "end", "c3").code == 0
    assert Vendor.there == {"c2"}


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
    journal(vendor).entry("here", "show").intent("tavus", max_session_ms=-60_001)
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
    assert (done.code, done.out) == (0, "the journal agrees with tavus: c42 is open\n")
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


def test_the_local_voice_needs_no_journal(shell):
    """A show that nobody bills is not troubled by a journal that cannot be read."""
    done = shell.call("run", shell.write("hello.yaml"), "--clock", "virtual", "--quiet", PLAYBOOK_STATE_DIR="/dev/null")
    assert (done.code, done.err) == (0, "")


def test_a_journal_that_cannot_be_read(vendor, tmp_path):
    """A journal of a newer version is refused, not ignored."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "sessions.jsonl").write_text('{"journal":2,"key":"k","fact":"intent"}\n')
    done = vendor.call("sessions")
    assert done.code == 4
    assert "use the newer version" in done.err


# --- sessions whose id nobody saw -----------------------------------------------------------------------------------------


def orphaned(shell) -> None:
    """The journal as if the process that wrote it had died: its number is another process's now."""
    path = journal(shell).path
    shutil.rmtree(path.parent / "alive")
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    path.write_text(
        "".join(json.dumps({**line, "process": "0", "locked": False} if "process" in line else line) + "\n" for line in lines), "utf-8"
    )


def later(monkeypatch, **time: float) -> None:
    """Let the command line live so much later."""
    monkeypatch.setattr("playbook.clock.wall_time", lambda: wall_time() + datetime.timedelta(**time))


def create(emulator, **fields: object) -> str:
    """Somebody creates a conversation."""
    answer = httpx.post(f"{emulator.url}/v2/conversations", json={"pal_id": "p1", **fields}, headers={"x-api-key": "k"}, trust_env=False)
    return answer.json()["conversation_id"]


def there(emulator) -> list[str]:
    return [conversation.id for conversation in emulator.open_sessions]


@pytest.fixture
def tavus(shell):
    """An account at Tavus, emulated, on which somebody else has a conversation of the same name; and the shell that has its key."""
    with serving("tavus") as emulator:
        shell.env.update(emulator.environment())
        create(emulator, conversation_name="show")
        shell.emulator = emulator
        yield shell


def test_a_session_whose_id_nobody_saw_is_found_by_its_mark(tavus):
    """The one that bears the mark of the intent is ended, whatever else is open on the account; the intent of a run that lives, too, since
    all were asked for."""
    for _ in range(2):
        mark = journal(tavus).entry("here", "show").intent("tavus", base_url=tavus.emulator.url)
        create(tavus.emulator, conversation_name=f"show [playbook {mark}]")
    create(tavus.emulator, conversation_name="show [playbook 0123456789ab]")
    done = tavus.call("sessions", "end", "--all")
    assert done.code == 0, done.err
    assert [line.partition(": ")[2] for line in done.out.splitlines()] == ["found as c2, and ended", "found as c3, and ended"]
    assert there(tavus.emulator) == ["c1", "c4"]
    assert tavus.call("sessions").out == "no session is open\n"


def test_a_session_that_is_not_there_is_over_when_nobody_can_be_creating_it(tavus, monkeypatch):
    """While the run lives, and for a minute after its intent, the vendor may still be at it: 4, and when to ask again. Then: closed."""
    journal(tavus).entry("here", "show").intent("tavus", max_session_ms=3_600_000)
    done = tavus.call("sessions", "end", "--all")
    assert (done.code, done.err.splitlines()[1]) == (4, "  stop the run first")
    orphaned(tavus)
    done = tavus.call("sessions", "end", "--all")
    assert done.code == 4
    assert "may still be creating it\n  ask again after " in done.err
    later(monkeypatch, seconds=61)
    done = tavus.call("sessions", "end", "--all")
    assert done.code == 0
    assert done.out.endswith("never created, or over: tavus does not list it\n")
    assert tavus.call("sessions").out == "no session is open\n"
    assert there(tavus.emulator) == ["c1"]


def test_a_session_that_may_be_somebody_elses_is_never_ended(tavus, monkeypatch):
    """The author chose the name: what goes by it, and by no name, since the intent, is shown but for what is known to be another run's."""
    known = journal(tavus).entry("other", "show")
    known.intent("tavus", name="Lobby")
    known.created(create(tavus.emulator, conversation_name="Lobby"))
    journal(tavus).entry("here", "show").intent("tavus", name="Lobby", max_session_ms=3_600_000)
    create(tavus.emulator, conversation_name="Lobby")
    create(tavus.emulator, conversation_name="Entrance")
    orphaned(tavus)
    later(monkeypatch, seconds=90)
    done = tavus.call("sessions", "end", "--all")
    assert done.code == 4
    assert done.out == "tavus c2: ended\n"
    [told, remedy] = done.err.splitlines()
    assert "this may be it, or somebody else's: c3 (Lobby, since " in told
    assert "c1" not in told
    assert "`playbook sessions end ID --provider tavus`" in remedy
    assert there(tavus.emulator) == ["c1", "c3", "c4"]
    assert tavus.call("sessions", "end", "c3", "--provider", "tavus").code == 0
    assert tavus.call("sessions", "end", "--all").code == 0, "what was left of the entry is not there"


def test_another_accounts_list_proves_nothing(tavus, monkeypatch):
    """With another key than the run's nothing is concluded from a session's absence, until the vendor's own limit has passed."""
    journal(tavus).entry("here", "show").intent("tavus", account="another", max_session_ms=3_600_000)
    orphaned(tavus)
    later(monkeypatch, seconds=90)
    done = tavus.call("sessions", "end", "--all")
    assert (done.code, "created with another key" in done.err) == (4, True)
    later(monkeypatch, seconds=3_661)
    assert tavus.call("sessions", "end", "--all").code == 0


def test_a_real_run_whose_answer_was_lost(tavus):
    """Not even the list was to be had meanwhile: the last line on the screen, typed later, ends what nobody saw the id of."""
    from playbook.emulators.faults import Injection

    tavus.emulator.injections.append(Injection("lose", "POST", "/v2/conversations"))
    tavus.emulator.injections.append(Injection("refuse", "GET", "/v2/conversations", times=None, status=403))
    done = tavus.call("run", tavus.write("show.yaml", playbook_for("tavus", "  - say: Hi.\n")), "--out", "here")
    assert done.code == 4
    assert there(tavus.emulator) == ["c1", "c2"]
    *_, told, command = done.err.splitlines()
    assert re.sub(r"\d[-:\d ]+", "… ", told) == (
        "a session at tavus may have been created; nobody saw its id, so it is over by … UTC at the latest. Look for it, and end it, with:"
    )
    tavus.emulator.injections.clear()
    [found, unknown] = sorted(tavus.call("sessions", "reconcile", "--provider", "tavus").out.splitlines())
    assert found.startswith("tavus c1 (show, since ")
    assert unknown.startswith("tavus c2 (show [playbook ")
    assert unknown.endswith(f"it is the journal's {command.split()[-1]}, whose id nobody saw; end it with `{command}`")
    done = tavus.call(*command.split()[1:])
    assert (done.code, done.out.endswith("found as c2, and ended\n")) == (0, True), done.err
    assert there(tavus.emulator) == ["c1"]


@pytest.mark.parametrize(
    ("name", "minutes", "rule"),
    [
        ("avaturn", 2, "Avaturn ends a session that nobody has watched for 60 s"),
        ("kaltura", 24 * 60 + 1, "Kaltura ends a session without keep-alives"),
    ],
)
def test_where_nobody_can_be_asked_the_vendors_rule_ends_it(shell, monkeypatch, name, minutes, rule):
    """A create whose answer was lost: listed with the vendor's rule for what nobody joins; 4 with the time before, and closed after."""
    from playbook.emulators.faults import Injection

    with serving(name) as emulator:
        emulator.injections.append(Injection("lose", "POST", "*/create" if name == "kaltura" else "*/sessions"))
        shell.env.update(emulator.environment())
        shell.call("run", shell.write("show.yaml", playbook_for(name, "  - say: Hi.\n")), "--out", "here")
        assert len(emulator.open_sessions) == 1
        (data,) = json.loads(shell.call("sessions", "--json").out)
        ends_by = datetime.datetime.fromisoformat(data["ends_by"])
        assert ends_by - datetime.datetime.fromisoformat(data["since"]) == datetime.timedelta(minutes=minutes)
        assert data["rule"].startswith(rule)
        assert f"{data['key']}: nobody saw its id, so nobody can have joined it. {rule}" in shell.call("sessions").out
        done = shell.call("sessions", "end", "--all")
        assert done.code == 4
        assert f"nobody can have joined it; it is over by {ends_by:%Y-%m-%d %H:%M} UTC ({rule}" in done.err
        later(monkeypatch, minutes=minutes, seconds=1)
        done = shell.call("sessions", "end", "--all")
        assert (done.code, f"over: {rule}" in done.out) == (0, True)
        assert shell.call("sessions").out == "no session is open\n"
