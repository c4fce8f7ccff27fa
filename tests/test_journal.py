"""The session journal: what was opened and not ended is known, whatever happened."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from playbook import clock
from playbook.errors import SetupError
from playbook.journal.journal import KEEP_CLOSED, Journal, NoEntry, state_folder
from playbook.perform.performance import Options, Outcome, Runner
from playbook.perform.world import cache_folder
from playbook.transports.cassette import Cassette
from playbook.transports.factory import Wrapped
from tests.contract import STANDS, compile_on, write_playbook

TOKEN = "bearer-value-that-ends-the-session"


def child(code: str, *args: str) -> subprocess.Popen[str]:
    """A second process with the package and a journal `j` in the folder that is its first argument."""
    head = "import os, sys\nfrom pathlib import Path\nfrom playbook.journal.journal import Journal\nj = Journal(Path(sys.argv[1]))\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_session_is_listed_from_its_intent_until_its_end(tmp_path: Path) -> None:
    """An intent alone is listed without an id, a created session with it, an ended one no more."""
    journal = Journal(tmp_path / "state")
    assert journal.open_sessions() == []
    entry = journal.entry("run-1", "museum-welcome")
    entry.intent("tavus", price_per_minute=0.5, max_session_ms=600_000, base_url="http://127.0.0.1:9")
    (record,) = journal.open_sessions()
    assert (record.session, record.provider, record.playbook, record.run) == (None, "tavus", "museum-welcome", "run-1")
    assert record.pid == os.getpid()
    assert record.alive is True
    assert record.facts["base_url"] == "http://127.0.0.1:9"
    assert record.ends_by == record.since + datetime.timedelta(minutes=11), "it may be created a minute after its intent"

    entry.created("c-1", token=TOKEN)
    (record,) = journal.open_sessions()
    assert record.session == "c-1"
    assert record.end == {"token": TOKEN}
    assert TOKEN not in repr(record)
    assert record.ends_by == record.since + datetime.timedelta(minutes=10)
    assert record.cost(record.since + datetime.timedelta(minutes=4)) == pytest.approx(2.0)
    assert record.cost(record.since + datetime.timedelta(hours=4)) == pytest.approx(5.0), "the vendor's limit ends the cost"

    entry.ended("end")
    assert journal.open_sessions() == []


def test_a_session_that_nobody_knows_of_ends_by_the_vendors_rule_for_those(tmp_path: Path) -> None:
    """Whichever limit is the shorter bounds an intent without an id; a session that has one may have been joined, and has its own limit."""
    journal = Journal(tmp_path)
    entry = journal.entry("r", "p")
    entry.intent("avaturn", max_session_ms=3_600_000, unjoined_ms=120_000, unjoined="nobody watched")
    (record,) = journal.open_sessions()
    assert (record.ends_by, record.rule) == (record.since + datetime.timedelta(minutes=3), "nobody watched")
    entry.created("s-1")
    (record,) = journal.open_sessions()
    assert (record.ends_by, record.rule) == (record.since + datetime.timedelta(hours=1), "")
    journal.forget("s-1")
    journal.entry("r", "p").intent("avaturn", max_session_ms=60_000, unjoined_ms=120_000, unjoined="nobody watched")
    (record,) = journal.open_sessions()
    assert (record.ends_by, record.rule) == (record.since + datetime.timedelta(minutes=2), "")


def test_every_intent_has_a_mark_of_its_own(tmp_path: Path) -> None:
    """By it a vendor's list shows whose a session is; where nothing is kept there is none, so that equal runs ask for the same."""
    journal = Journal(tmp_path)
    marks = [journal.entry("r", "p").intent("tavus") for _ in range(3)]
    assert [record.mark for record in journal.open_sessions()] == marks
    assert len(set(marks)) == 3
    assert NoEntry().intent("tavus") == ""


def test_a_marked_run_is_played_from_its_cassette(tmp_path: Path) -> None:
    """The mark is the journal's and not the cassette's: what was recorded with a journal is played without one, and with another."""

    async def perform(run: str, mode: Literal["all", "none"], state_dir: Path | None) -> Outcome:
        async with STANDS["tavus"]() as stand:
            plan = compile_on(write_playbook(tmp_path, stand, "  - say: Hello.\n"))
            with Cassette(tmp_path / "tape.jsonl", mode) as cassette:
                transports = Wrapped(stand.transports(), cassette)
                settings = Options(
                    folder=tmp_path / run, env=stand.env, state_dir=state_dir, provider=stand.provider, transports=transports
                )
                return await Runner(plan, settings).run()

    for run, mode, state_dir in (("recorded", "all", tmp_path), ("played", "none", None), ("again", "none", tmp_path)):
        outcome = clock.run(perform(run, mode, state_dir), "virtual")  # type: ignore[arg-type]  # mypy widens a literal in a loop
        assert outcome.result.exit_code == 0, outcome.result.reason
    assert "[playbook" not in (tmp_path / "tape.jsonl").read_text("utf-8")
    assert "playbook" in Journal(tmp_path).path.read_text("utf-8")


def test_what_ends_a_session_is_kept_for_its_owner_alone_and_only_while_it_is_open(tmp_path: Path) -> None:
    """The folder and the file are private, and the credential leaves the file with the session's end."""
    journal = Journal(tmp_path / "state")
    kept, other = journal.entry("a", "a"), journal.entry("b", "b")
    kept.intent("kaltura")
    kept.created("s-a", token=TOKEN)
    other.intent("kaltura")
    other.created("s-b", token="another")
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700
    kept.ended("end")
    everything = b"".join(path.read_bytes() for path in journal.path.parent.rglob("*") if path.is_file())
    assert TOKEN.encode() not in everything
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert [record.end for record in journal.open_sessions()] == [{"token": "another"}]
    assert '"reason": "end"' in journal.path.read_text(), "the trail of what was ended stays"


def test_a_file_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    """A journal whose mode was opened by a copy is closed again with the next fact."""
    journal = Journal(tmp_path)
    journal.path.touch(mode=0o644)
    journal.entry("r", "p").intent("tavus")
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


def test_secrets_are_redacted_in_facts(tmp_path: Path) -> None:
    """A secret that strays into a name or a reason does not reach the file."""
    journal = Journal(tmp_path, redact=lambda text: text.replace("s3cret", "***"))
    entry = journal.entry("run", "welcome s3cret")
    entry.intent("tavus", name="the s3cret room")
    entry.created("c-1")
    entry.ended("refused: s3cret")
    assert "s3cret" not in journal.path.read_text()


@pytest.mark.parametrize("secret", ["2", "20", "-", "c-1", "tavus"])
def test_no_secret_makes_the_journal_unreadable(secret: str, tmp_path: Path) -> None:
    """A secret may be a room's number: what ends the session must be found all the same."""
    journal = Journal(tmp_path, redact=lambda text: text.replace(secret, "***"))
    entry = journal.entry("run", "show")
    entry.intent("tavus", base_url="http://127.0.0.1:2020")
    entry.created("c-1", token=TOKEN)
    (record,) = Journal(tmp_path).open_sessions()
    assert (record.provider, record.session, record.alive, record.end) == ("tavus", "c-1", True, {"token": TOKEN})
    assert record.facts["base_url"] == "http://127.0.0.1:2020"


@pytest.mark.parametrize("bent", [{"at": "yesterday"}, {"pid": "x"}, {"facts": 7}, {"facts": {"max_session_ms": "long"}}, {"end": []}])
def test_what_may_be_open_is_shown(bent: dict[str, object], tmp_path: Path) -> None:
    """An intent that somebody bent is still a session that may be open."""
    journal = Journal(tmp_path)
    journal.entry("run", "show").intent("tavus")
    (line,) = map(json.loads, journal.path.read_text().splitlines())
    journal.path.write_text(json.dumps(line | bent) + "\n")
    (record,) = journal.open_sessions()
    assert (record.provider, record.session) == ("tavus", None)


def test_a_run_that_goes_on_is_known_by_its_lock(tmp_path: Path) -> None:
    """Its number means nothing in another container; the lock that it holds does, and goes with the process, however that ends."""
    journal = Journal(tmp_path)
    holder = child("e = j.entry('r', 'p'); e.intent('tavus'); print('ready', flush=True); sys.stdin.read()", str(tmp_path))
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "ready\n"
        (line,) = map(json.loads, journal.path.read_text().splitlines())
        for host in (line["host"], "4f2a"):  # as it looks from another container, which may have another name
            journal.path.write_text(json.dumps(line | {"pid": 1, "process": "0", "host": host}) + "\n")
            assert [(record.alive, record.host) for record in journal.open_sessions()] == [(True, "" if host != "4f2a" else host)]
        holder.kill()
        holder.wait()
        assert [record.alive for record in journal.open_sessions()] == [False], "its name does not matter, the lock does"
        shutil.rmtree(tmp_path / "alive")
        assert [record.alive for record in journal.open_sessions()] == [None], "without the lock nobody can know"
    journal.ended(line["key"], "by somebody else")
    assert journal.open_sessions() == []


def test_a_closed_entry_has_no_lock(tmp_path: Path) -> None:
    """What shows that a run goes on goes with its entry."""
    journal = Journal(tmp_path)
    entry = journal.entry("r", "p")
    entry.intent("tavus")
    assert len(list((tmp_path / "alive").iterdir())) == 1
    entry.ended("end")
    assert list((tmp_path / "alive").iterdir()) == []


@pytest.mark.parametrize("what", ["state", "state/sessions.jsonl"])
def test_a_journal_that_others_can_write_is_not_believed(what: str, tmp_path: Path) -> None:
    """Neither read nor written; the message says which folder to name instead, or what to do where all is in order."""
    journal = Journal(tmp_path / "state")
    journal.entry("r", "p").intent("tavus")
    (tmp_path / what).chmod(0o777)
    for act in (journal.open_sessions, lambda: journal.entry("r", "p").intent("tavus"), lambda: journal.forget("x")):
        with pytest.raises(SetupError, match=f"{what} can be written by other users") as refused:
            act()
        assert "PLAYBOOK_STATE_DIR" in refused.value.remedy
    (tmp_path / what).chmod(0o700)
    assert len(journal.open_sessions()) == 1


def test_a_journal_of_another_user_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns it could have written anything."""
    journal = Journal(tmp_path / "state")
    journal.entry("r", "p").intent("tavus")
    if os.geteuid() == 0:
        os.chown(journal.path, 65_534, 65_534)
    else:  # nobody else can give a file away
        monkeypatch.setattr(os, "geteuid", lambda: 65_534)
    with pytest.raises(SetupError, match=r"sessions\.jsonl belongs to another user"):
        journal.open_sessions()


def test_a_program_that_goes_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was given relatively stays what it was."""
    monkeypatch.chdir(tmp_path)
    entry = Journal(Path("state")).entry("r", "p")
    entry.intent("tavus")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    entry.created("c-1")
    assert [record.session for record in Journal(tmp_path / "state").open_sessions()] == ["c-1"]


def test_a_torn_last_line_hides_nothing(tmp_path: Path) -> None:
    """A crash in the middle of a line loses that line alone, and the next fact does not stick to it."""
    journal = Journal(tmp_path)
    first = journal.entry("r1", "p")
    first.intent("tavus")
    first.created("c-1")
    whole = journal.path.read_bytes()
    for cut in range(2, 60, 7):
        journal.path.write_bytes(whole[:-cut])
        (record,) = journal.open_sessions()
        assert record.session is None, "the intent survives"
        second = journal.entry("r2", "p")
        second.intent("avaturn")
        second.created("c-2")
        assert {record.session for record in journal.open_sessions()} == {None, "c-2"}
    journal.path.write_bytes(whole + b'\n[1]\n{"key": 3}\nnull\n\xff\xfe\n' + b"[" * 5000 + b"\n")
    assert [record.session for record in journal.open_sessions()] == ["c-1"]


def test_a_newer_journal_is_not_misread(tmp_path: Path) -> None:
    """A journal of a version that we do not know is an error, not an empty list."""
    journal = Journal(tmp_path)
    journal.path.write_text(json.dumps({"journal": 2, "fact": "intent", "key": "k"}) + "\n")
    with pytest.raises(SetupError, match="another version"):
        journal.open_sessions()


def test_two_processes_share_one_journal(tmp_path: Path) -> None:
    """Facts of processes that write at once are all there, in whole lines, also while ended sessions make the file be rewritten."""
    code = """
for n in range(25):
    entry = j.entry(f"run-{n}", "p")
    entry.intent("kaltura")
    entry.created(f"{sys.argv[2]}-{n}", token="t")
    if n % 2:
        entry.ended("end")
"""
    processes = [child(code, str(tmp_path), name) for name in ("a", "b", "c")]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    records = Journal(tmp_path).open_sessions()
    assert sorted(str(record.session) for record in records) == sorted(f"{name}-{n}" for name in "abc" for n in range(0, 25, 2))
    assert {record.alive for record in records} == {False}
    for line in Journal(tmp_path).path.read_text().splitlines():
        json.loads(line)


def test_a_killed_process_leaves_a_trail(tmp_path: Path) -> None:
    """After kill -9 another process finds the session, sees that its owner is dead, and closes the entry."""
    process = child(
        "e = j.entry('r', 'p'); e.intent('tavus'); e.created('c-9'); print('ready', flush=True); sys.stdin.read()", str(tmp_path)
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    journal = Journal(tmp_path)
    assert [record.alive for record in journal.open_sessions()] == [True]
    process.kill()
    process.communicate()
    (record,) = journal.open_sessions()
    assert (record.session, record.alive) == ("c-9", False)
    journal.ended(record.key, "ended by another process")
    assert journal.open_sessions() == []


def test_a_full_disk_means_no_session(tmp_path: Path) -> None:
    """When the file cannot grow, the intent raises `SetupError` and the journal is what it was, to the byte."""
    code = """
import resource, signal
from playbook.errors import SetupError
first = j.entry("r", "p")
first.intent("tavus")
before = j.path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 40,) * 2)
for act in (lambda: j.entry("r2", "p").intent("tavus"), lambda: first.created("c-1")):
    try:
        act()
    except SetupError as error:
        print(error.exit_code, error.message)
    assert j.path.read_bytes() == before
"""
    process = child(code, str(tmp_path))
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert out.count("4 the session journal") == 2
    assert "file too large" in out


def test_a_folder_that_cannot_be_made_means_no_session(tmp_path: Path) -> None:
    """A state folder in an impossible place is a `SetupError` with a remedy, also for a reader: nobody is told that nothing is open."""
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file" / "state")
    with pytest.raises(SetupError, match="cannot be written") as caught:
        journal.entry("r", "p").intent("tavus")
    assert "PLAYBOOK_STATE_DIR" in caught.value.remedy
    with pytest.raises(SetupError, match="cannot read"):
        journal.open_sessions()


def test_forget_takes_a_session_off_the_list(tmp_path: Path) -> None:
    """By the vendor's id, or by the key where there is no id; nothing else is touched."""
    journal = Journal(tmp_path)
    for session in ("c-1", "c-2", ""):
        entry = journal.entry("r", "p")
        entry.intent("tavus")
        if session:
            entry.created(session)
    assert [record.session for record in journal.forget("c-1")] == ["c-1"]
    (intent,) = [record for record in journal.open_sessions() if record.session is None]
    assert journal.forget(intent.key) == [intent]
    assert [record.session for record in journal.open_sessions()] == ["c-2"]
    assert journal.forget("c-1") == []


def test_a_long_history_is_compacted(tmp_path: Path) -> None:
    """Closed sessions do not pile up for ever, and open ones outlive every rewriting."""
    journal = Journal(tmp_path)
    keeper = journal.entry("keeper", "p")
    keeper.intent("tavus")
    keeper.created("c-keep")
    for n in range(KEEP_CLOSED + 20):
        entry = journal.entry(f"r{n}", "p")
        entry.intent("kaltura")
        if n > KEEP_CLOSED + 17:
            entry.created(f"s-{n}", token="t")
        entry.ended("end")
    assert journal.path.read_text().count('"ended"') == KEEP_CLOSED
    assert [record.session for record in journal.open_sessions()] == ["c-keep"]


def test_a_second_way_to_create_is_a_second_line_of_facts(tmp_path: Path) -> None:
    """After a surely refused create the same entry may try again; only the one that succeeded stays open."""
    journal = Journal(tmp_path)
    entry = journal.entry("r", "p")
    entry.intent("kaltura")
    entry.ended("refused")
    entry.ended("refused")
    entry.intent("kaltura")
    entry.created("s-1")
    assert [record.session for record in journal.open_sessions()] == ["s-1"]


def test_the_users_folders_follow_the_environment() -> None:
    """Our own variable before the XDG one before the home folder; a relative XDG path is ignored, as its specification says."""
    assert state_folder({"PLAYBOOK_STATE_DIR": "/a", "XDG_STATE_HOME": "/b"}) == Path("/a")
    assert state_folder({"XDG_STATE_HOME": "/b", "HOME": "/h"}) == Path("/b/playbook")
    assert state_folder({"XDG_STATE_HOME": "b", "HOME": "/h"}) == Path("/h/.local/state/playbook")
    assert cache_folder({"PLAYBOOK_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_folder({"XDG_CACHE_HOME": "b", "HOME": "/h"}) == Path("/h/.cache/playbook")


def test_a_journal_that_is_held_is_an_error_and_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended process that holds the lock does not hold up everybody else for ever."""
    monkeypatch.setattr("playbook.journal.journal.LOCK_TRIES", 2)
    journal = Journal(tmp_path)
    journal.entry("r", "p").intent("tavus")
    with (tmp_path / "sessions.lock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SetupError, match="held by another process"):
            journal.entry("r2", "p").intent("tavus")
    assert [record.run for record in journal.open_sessions()] == ["r"]
