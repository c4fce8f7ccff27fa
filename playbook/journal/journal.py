"""The journal of billed sessions: what is open, whatever became of the process that opened it.

One JSON line per fact: the *intent*, synced before the vendor is asked for anything; *created*, with the vendor's id and what is needed
to end the session; *ended*, with the reason (or *forgotten*, by the user's own word). What has no end is open. Rules:

* A fact that could not be written did not happen: the journal is left as it was and `SetupError` is raised, so that without a journal
  no session is created.
* What stands in it decides what is ended and where, so nobody else may be able to write it: owner and mode are checked at every access.
* Any number of processes share one journal (an advisory lock beside it), and any of them may die at any moment: torn lines are skipped.
* No key is ever in it. What a vendor hands out to end a session stands in `end`, in a file that its owner alone can read, and is removed
  when the session has ended.
* The request that creates a session is carried by a *witness* (`journal.witness`), a process that lives until the answer is on record:
  when we are killed before we could write down what was created, it does.

The calls block for a few milliseconds, because they return only when the fact is on the disk. Used by the runner (which lends entries
to providers), the witness and `playbook sessions`.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import itertools
import json
import os
import secrets
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook.clock import block, wall_time
from playbook.errors import ProviderError, SetupError, reason_of
from playbook.folders import user_folder
from playbook.ports import CREATE_BUDGET_S, SETTLED_S, SessionRecord

if TYPE_CHECKING:
    from playbook.journal.courier import Courier
    from playbook.transports.http import Http

VERSION = 1
COMPACT_BYTES = 256_000
"""A journal that is longer is rewritten when a session ends."""
KEEP_CLOSED = 100
"""How many closed sessions stay for the reader when it is rewritten."""
LOCK_TRIES, LOCK_PAUSE_MS = 500, 10
WITNESS = (sys.executable, "-P", "-m", "playbook.journal.witness")
"""How a witness is started. `-P`: a folder of the author's that is called `playbook` is not this package."""
WITNESS_TRIES, WITNESS_PAUSE_MS = round(CREATE_BUDGET_S * 20), 50

_numbers = itertools.count(1)
_locks: set[int] = set()
"""Those that this process holds; a forked child must not hold them on."""
_PROSE = ("playbook", "reason")
"""Where a secret could stand. What the journal itself lives by must not be touched: a secret may be as short as a digit."""
_Line = dict[str, Any]


def state_folder(env: Mapping[str, str]) -> Path:
    """Where the journal lives: `PLAYBOOK_STATE_DIR`, else the user's state folder."""
    return user_folder(env, "PLAYBOOK_STATE_DIR", "XDG_STATE_HOME", ".local/state")


class Journal:
    """The journal in a folder, which is made when the first fact is written. `redact` hides secrets in everything but `end`."""

    def __init__(self, folder: Path, *, redact: Callable[[str], str] | None = None) -> None:
        self._folder = folder.absolute()  # a program may go elsewhere meanwhile
        self.path = self._folder / "sessions.jsonl"
        self.redact: Callable[[str], str] = str if redact is None else redact  # an empty redactor is false, and learns

    def entry(self, run: str, playbook: str, folder: Path | None = None) -> Entry:
        """What the runner lends to one session of a provider. `folder` is the run's."""
        return Entry(self, run, playbook, folder)

    def open_sessions(self) -> list[SessionRecord]:
        """Every session that has no end, oldest first."""
        with self._locked(reading=True):
            lines = self._read()
        return [_record(facts, self._held(key)) for key, facts in _by_key(lines).items() if not _closed(facts)]

    def ended(self, key: str, reason: str) -> None:
        """The session of a record (or of an entry) is surely over."""
        self._close("ended", key, reason)

    def forget(self, id: str) -> list[SessionRecord]:
        """Take open sessions off the list without ending them, by the vendor's id or by `SessionRecord.key`. Returns those it was."""
        records = [record for record in self.open_sessions() if id in (record.key, record.session)]
        for record in records:
            self._close("forgotten", record.key, "forgotten by the user")
        return records

    def created(self, key: str, provider: str, session: str, end: Mapping[str, Any]) -> None:
        """The vendor has named the session of an entry, and given what ends it."""
        self.write("created", key, session=session, provider=provider, end=end)

    def found(self, key: str, who: Mapping[str, Any], session: str, end: Mapping[str, Any]) -> None:
        """A witness has learnt of a session that nobody has noted. If its entry was closed or lost meanwhile, it gets one anew."""
        with self._locked(reading=True):
            facts = _by_key(self._read()).get(key, [])
        if any(fact.get("session") == session for fact in facts):
            return
        if not facts or _closed(facts):
            key = _new_key()
            self.write("intent", key, **who)
        self.created(key, str(who["provider"]), session, end)

    def never_was(self, key: str, reason: str) -> None:
        """A witness knows that nothing was created."""
        if any(record.key == key and record.session is None for record in self.open_sessions()):
            self.ended(key, reason)

    # whose run goes on

    def hold(self, key: str) -> int | None:
        """Hold the lock that shows, also in other containers of this machine, that a run goes on: it goes with the process. None: there are
        no locks here."""
        with contextlib.suppress(OSError):
            for folder in (self._folder, self._lock_of(key).parent):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._refuse_strangers()
            fd = os.open(self._lock_of(key), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _locks.add(fd)
                return fd
            except OSError:
                os.close(fd)
        return None

    def _held(self, key: str) -> bool | None:
        try:
            fd = os.open(self._lock_of(key), os.O_RDWR)
        except (OSError, ValueError):
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        except OSError:
            return None
        finally:
            os.close(fd)

    def _lock_of(self, key: str) -> Path:
        return self._folder / "alive" / key.replace("/", "_")

    def wait_for_witnesses(self) -> None:
        """Return when no witness waits for an answer any more, or one has been at it for longer than that can take."""
        for _ in range(WITNESS_TRIES):
            if not any(record.creating for record in self.open_sessions()):
                return
            block(WITNESS_PAUSE_MS)

    def write(self, fact: str, key: str, *, end: Mapping[str, Any] | None = None, **facts: Any) -> None:
        """Append one fact and see it on the disk."""
        line = {"journal": VERSION, "fact": fact, "key": key, "at": wall_time().isoformat(), **facts}
        line |= {name: self.redact(line[name]) for name in _PROSE if isinstance(line.get(name), str)}
        if end:
            line["end"] = dict(end)
        with self._locked():
            self._append(json.dumps(line, default=str).encode() + b"\n")

    # the file

    def _refuse_strangers(self) -> None:
        """Raise `SetupError` where the folder or the journal is somebody else's, or can be written by others."""
        for path in (self._folder, self.path):
            try:
                facts = path.stat()
            except OSError:  # it is not there, or cannot be read, which is said when it is
                continue
            if facts.st_uid not in (0, os.geteuid()):
                whose = "belongs to another user"
            elif facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                whose = "can be written by other users"
            else:
                continue
            raise SetupError(
                f"{path} {whose}, so the session journal there is neither read nor written",
                remedy="name a folder of your own in PLAYBOOK_STATE_DIR; or, if what is in it is yours, make it so: "
                f"chown {os.geteuid()} and chmod go-w",
            )

    def _close(self, fact: str, key: str, reason: str) -> None:
        self.write(fact, key, reason=reason)
        with contextlib.suppress(OSError):
            self._lock_of(key).unlink()
        with self._locked():
            try:
                lines = self._read()
                secret = any(line["key"] == key and "end" in line for line in lines)
                if secret or self.path.stat().st_size > COMPACT_BYTES:
                    self._rewrite(lines)
            except OSError as error:
                raise _unwritable(self.path, error) from error

    def _append(self, data: bytes) -> None:
        try:
            new = not self.path.exists()
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.fchmod(fd, 0o600)
                size = os.fstat(fd).st_size
                torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
                try:
                    _write_all(fd, b"\n" + data if torn else data)
                    os.fsync(fd)
                except OSError:
                    os.ftruncate(fd, size)
                    raise
            finally:
                os.close(fd)
            if new:
                self._sync_folder()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _read(self) -> list[_Line]:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SetupError(f"cannot read the session journal {self.path}: {reason_of(error)}") from error
        lines: list[_Line] = []
        for text in data.split(b"\n"):
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):  # torn by a crash, and never relied on
                continue
            if isinstance(line, dict) and isinstance(line.get("key"), str):
                if line.get("journal") != VERSION:
                    raise SetupError(
                        f"the session journal {self.path} was written by another version of this program", remedy="use the newer version"
                    )
                lines.append(line)
        return lines

    def _rewrite(self, lines: list[_Line]) -> None:
        """Keep what is open and the last of what is closed; remove from the closed what could end them."""
        entries = _by_key(lines)
        closed = [key for key, facts in entries.items() if _closed(facts)]
        dropped = set(closed[:-KEEP_CLOSED])
        over = set(closed)
        kept = [
            {name: value for name, value in line.items() if name != "end"} if line["key"] in over else line
            for line in lines
            if line["key"] not in dropped
        ]
        draft = self.path.with_suffix(".new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.fchmod(fd, 0o600)
            _write_all(fd, b"".join(json.dumps(line).encode() + b"\n" for line in kept))
            os.fsync(fd)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        draft.replace(self.path)
        self._sync_folder()

    def _sync_folder(self) -> None:
        fd = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def _locked(self, *, reading: bool = False) -> Iterator[None]:
        """Hold the journal for oneself. The lock is a file of its own, because the journal is sometimes replaced."""
        fd = None
        try:
            if not reading or self.path.exists():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._refuse_strangers()
                fd = os.open(self._folder / "sessions.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            if not reading:
                raise _unwritable(self.path, error) from error
        if fd is None:  # there is nothing to read; and a folder that cannot be written can be read all the same
            yield
            return
        try:
            for _ in range(LOCK_TRIES):  # not for ever: the holder may be a process that is suspended
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    block(LOCK_PAUSE_MS)
            else:
                raise SetupError(
                    f"the session journal {self.path} is held by another process",
                    remedy="look for a playbook process that is suspended, and continue or end it",
                )
            yield
        finally:
            os.close(fd)


class Entry:
    """One session's line of facts (the `JournalEntry` of the providers' contract). A second `intent` (another way to create,
    after the first was surely refused and `ended`) begins a new line of facts.
    """

    def __init__(self, journal: Journal, run: str, playbook: str, folder: Path | None) -> None:
        self._journal = journal
        self._run = run
        self._playbook = playbook
        self._folder = folder
        self._provider = ""
        self._key: str | None = None
        self._lock: int | None = None

    def intent(self, provider: str, **facts: Any) -> str:
        return self._intend(_new_key(), self._who(provider, facts))

    @contextlib.asynccontextmanager
    async def creating(
        self, provider: str, http: Http, *, id_field: str, end_fields: Sequence[str] = (), **facts: Any
    ) -> AsyncIterator[str]:
        self._journal.open_sessions()  # raises where another version of this program has written it
        key, who = _new_key(), self._who(provider, facts)
        async with contextlib.AsyncExitStack() as stack:
            witness: dict[str, Any] = {}
            courier: Courier | None = None
            if not http.in_process:  # else the other side goes with us
                from playbook.journal.courier import Courier

                task: dict[str, Any] = {"journal": str(self._journal.path.parent), "key": key, "who": who}
                task |= {"id_field": id_field, "end_fields": list(end_fields)}
                courier = await stack.enter_async_context(Courier(WITNESS, http, task))
                witness = {"witness": courier.pid, "witness_process": _process(courier.pid)}
            mark = self._intend(key, who, **witness)
            try:
                yield mark
            except ProviderError as error:
                if error.outcome != "ambiguous":
                    self.ended(f"never created: {error.message}")
                elif courier is not None and not courier.waits:
                    self._journal.write("unseen", key)  # nobody waits for it any more
                raise

    def created(self, session: str, **end: Any) -> None:
        assert self._key is not None, "a session is created only after its intent is written"
        self._journal.created(self._key, self._provider, session, end)

    def ended(self, reason: str) -> None:
        if self._key is not None:
            self._journal.ended(self._key, reason)
            self._key = None
            self._let_go()

    def _who(self, provider: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        pid = os.getpid()
        return {
            "provider": provider,
            "run": self._run,
            "playbook": self._playbook,
            "folder": None if self._folder is None else str(self._folder.absolute()),
            "pid": pid,
            "host": socket.gethostname(),
            "process": _process(pid),
            "mark": secrets.token_hex(6),
            "facts": self._hidden(facts),
        }

    def _intend(self, key: str, who: Mapping[str, Any], **witness: Any) -> str:
        self._let_go()
        self._lock = self._journal.hold(key)
        try:
            self._journal.write("intent", key, **who, **witness, locked=self._lock is not None)
        except SetupError:
            self._let_go()
            raise
        self._provider, self._key = who["provider"], key
        return str(who["mark"])

    def _let_go(self) -> None:
        if self._lock is not None:
            _locks.discard(self._lock)
            os.close(self._lock)
            self._lock = None

    def _hidden(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The facts, of which the author may have put a secret into the session's name."""
        redact = self._journal.redact
        return {name: redact(value) if name == "name" and value else value for name, value in facts.items() if value is not None}


class NoEntry:
    """For runs that keep no journal: the caller named no folder for it."""

    def intent(self, provider: str, **facts: Any) -> str:  # noqa: ARG002 -- nothing is kept
        """Nothing is kept."""
        return ""

    @contextlib.asynccontextmanager
    async def creating(self, provider: str, http: Http, **facts: Any) -> AsyncIterator[str]:  # noqa: ARG002 -- nothing is kept
        """Nothing is kept."""
        yield ""

    def created(self, session: str, **end: Any) -> None:
        """Nothing is kept."""

    def ended(self, reason: str) -> None:
        """Nothing is kept."""


def _new_key() -> str:
    return f"{wall_time():%Y%m%dT%H%M%S%f}-{os.getpid()}-{next(_numbers)}"


def _by_key(lines: list[_Line]) -> dict[str, list[_Line]]:
    entries: dict[str, list[_Line]] = {}
    for line in lines:
        entries.setdefault(line["key"], []).append(line)
    return entries


def _closed(facts: list[_Line]) -> bool:
    return any(line.get("fact") in ("ended", "forgotten") for line in facts)


def _record(facts: list[_Line], held: bool | None) -> SessionRecord:
    """What the facts of one key say. A fact that was torn or bent leaves gaps, not errors: what may be open is shown."""
    line: _Line = {}
    for fact in facts:
        line = {**fact, **line}
    given, end = ({} if not isinstance(value, dict) else value for value in (line.get("facts"), line.get("end")))
    session, folder = line.get("session"), line.get("folder")
    try:
        since = datetime.datetime.fromisoformat(line["at"]).astimezone(datetime.UTC)
        since = since if 2000 <= since.year < 3000 else wall_time()  # there is arithmetic to be done with it
    except (KeyError, TypeError, ValueError, OverflowError):
        since = wall_time()
    try:
        limit_ms, rule = _limit(given, named=session is not None)
        ends_by = None if limit_ms is None else since + datetime.timedelta(milliseconds=limit_ms)
    except (TypeError, ValueError, OverflowError):
        ends_by, rule = None, ""
    price = given.get("price_per_minute")
    return SessionRecord(
        key=line["key"],
        provider=str(line.get("provider", "")),
        session=session if isinstance(session, str) else None,
        playbook=str(line.get("playbook", "")),
        run=str(line.get("run", "")),
        folder=Path(folder) if isinstance(folder, str) else None,
        pid=line["pid"] if isinstance(line.get("pid"), int) else 0,
        host="" if line.get("host") == socket.gethostname() else str(line.get("host", "")),
        alive=_goes_on(line, held),
        creating=not any(fact.get("fact") in ("created", "unseen") for fact in facts)
        and _alive(line, "witness", "witness_process") is True,
        since=since,
        ends_by=ends_by,
        rule=str(rule),
        mark=str(line.get("mark", "")),
        price_per_minute=price if isinstance(price, (int, float)) and 0 <= price < 1e6 else None,
        facts=given,
        end=end,
    )


def _limit(given: Mapping[str, Any], *, named: bool) -> tuple[int | None, str]:
    """How long after its intent the vendor will have ended a session, and by which rule. One that nobody knows of may have been created
    late, and ends early: nobody can have joined it."""
    limit_ms, unjoined_ms = given.get("max_session_ms"), given.get("unjoined_ms")
    if named:
        return limit_ms, ""
    bounds = [(ms, rule) for ms, rule in ((limit_ms, ""), (unjoined_ms, given.get("unjoined", ""))) if ms is not None]
    if not bounds:
        return None, ""
    ms, rule = min(bounds)
    return int(SETTLED_S * 1000) + ms, rule


def _goes_on(line: _Line, held: bool | None) -> bool | None:
    """Whether the run goes on: it holds a lock as long as it lives, on whatever machine. Where there is none, its process tells, on this
    machine. None: nobody can know."""
    if held is not None:
        return held
    return None if line.get("locked") else _alive(line, "pid", "process")  # its lock was removed, and nobody knows by whom


def _alive(line: _Line, number: str, began: str) -> bool | None:
    """Whether the process of that number runs (None: on another machine)."""
    pid = line.get(number)
    if line.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return None
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return line.get(began) == _process(pid)


def _process(pid: int) -> str:
    """When a process began, by /proc where there is one, so that a number that was given again is not taken for it. Empty for a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state[0] == "Z" else state[19]
    except (OSError, IndexError):
        return ""


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _unwritable(path: Path, error: OSError) -> SetupError:
    return SetupError(
        f"the session journal {path} cannot be written: {reason_of(error)}",
        remedy="without it no session is opened, since a crash would leave it to run; make room, or set PLAYBOOK_STATE_DIR",
    )


def _in_a_forked_child() -> None:
    for fd in _locks:
        os.close(fd)
    _locks.clear()


os.register_at_fork(after_in_child=_in_a_forked_child)
