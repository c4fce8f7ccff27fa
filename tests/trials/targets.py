"""What is fuzzed, one function a reader: bytes in, and an exception out when a promise is broken.

A reader may refuse, in the way it documents, and nothing else may come out of it. What it accepts must hold together: read twice it is the
same, written down and read again it is the same, and whatever is made of it later (a replay, a report, a cue sheet) works, too. For a
vendor's messages the promise is the whole run: it ends, its log is a good one, and the log replays.

`guided` lets atheris look for bytes that break one of these; `tests/test_trials.py` tries the seeds and a few accidents with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playbook import clock
from playbook.engine import Engine, Result
from playbook.errors import AuthorError, PlaybookError, Problem, RecordError, format_problem
from playbook.formats.findings import Findings
from playbook.formats.source import Document, Node, parse
from playbook.language import compile_text, cues, plan_from_json, plan_to_json
from playbook.language.render import Abandoned, Renderer
from playbook.language.scope import Scope
from playbook.language.templates import Budget
from playbook.language.values import MAX_WEIGHT
from playbook.model import Plan
from playbook.perform.performance import Options, Runner
from playbook.providers import registry
from playbook.providers.avaturn.provider import AvaturnProvider
from playbook.providers.base import Provider
from playbook.providers.kaltura.provider import KalturaProvider
from playbook.providers.tavus.provider import TavusProvider
from playbook.record import baseline, captions, diff, performance, replay, runlog
from playbook.report import cue_sheet, run_report
from playbook.transports.cassette import Cassette
from playbook.transports.factory import Wrapped
from playbook.transports.http import Answer, Request
from playbook.transports.listener import Dialled
from playbook.transports.room import Door, LineRoom, OnEvent, Patience, Room, RoomFailure
from tests.contract import VOICE, Between, Stand, compile_on, write_playbook
from tests.logs import ROOT, checked
from tests.world import FakeWorld

GOLDEN = ROOT / "tests" / "golden"
WORLD = FakeWorld()


@dataclass(frozen=True, slots=True)
class Target:
    """A reader and good samples of what it reads."""

    read: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


@cache
def _folder() -> Path:
    """Where files lie that must be files, in memory where there is such a place. It is removed with the process that made it."""
    memory = Path("/dev/shm")
    made = tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)
    _kept.append(made)
    return Path(made.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def _as_file(data: bytes, name: str) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def _files(*patterns: str, root: Path = ROOT) -> list[bytes]:
    return [path.read_bytes() for pattern in patterns for path in sorted(root.glob(pattern)) if path.stat().st_size < 20_000]


# --- the language ---------------------------------------------------------------------------------------------------------


def _judge_problems(problems: tuple[Problem, ...]) -> None:
    """Problems have a known code, and a place that is there, and can be shown."""
    for problem in problems:
        assert problem.code in registry.codes(), problem
        assert problem.place is None or (problem.place.line > 0 and problem.place.column > 0), problem
        assert format_problem(problem)


def _parsed(data: bytes, name: str) -> tuple[Node | None, tuple[Problem, ...]]:
    findings = Findings()
    root = parse(data, Path(name), name, findings)
    return root, findings.report(name)


def read_yaml(data: bytes) -> None:
    """YAML: plain data whose every piece knows its place, or problems; and what was read is read again from JSON."""
    root, problems = _parsed(data, "fuzz.yaml")
    again, same = _parsed(data, "fuzz.yaml")
    _judge_problems(problems)
    assert problems == same
    if root is None or again is None:
        assert root is again
        assert any(problem.severity == "error" for problem in problems)
        return
    assert root.data == again.data
    _judge_node(root, 1_000)
    if problems or len(data) > 2_000:  # aliases may stand for very much
        return
    copy, complaints = _parsed(json.dumps(root.data).encode(), "fuzz.json")
    assert copy is not None, complaints
    assert copy.data == root.data


def _judge_node(node: Node, left: int) -> int:
    """Every piece lies within the text, and its data is its children's."""
    assert 0 <= node.start <= node.end <= len(node.document.text)
    assert node.place.line >= 1
    children = [child for _, child in node.items()] + node.entries()
    if isinstance(node.data, dict):
        assert {key: child.data for key, child in node.items()} == node.data
    for child in children:
        if left <= 0:
            break
        left = _judge_node(child, left - 1)
    return left


def check_playbook(data: bytes) -> None:
    """A playbook: a plan or problems, the same every time; and a plan that can be shown, begun, written and read again."""
    plan, problems = _compiled(data)
    _judge_problems(problems)
    if plan is not None and len(plan.steps) > 1_000:
        return  # more of the same: a loop may go round very often
    again, same = _compiled(data)
    assert problems == same
    if plan is None or again is None:
        assert plan is again
        assert any(problem.severity == "error" for problem in problems)
        return
    assert plan.sha256 == again.sha256
    written = plan_to_json(plan)
    assert plan_to_json(plan_from_json(json.loads(json.dumps(written)))) == json.loads(json.dumps(written))
    _use(plan)


def _compiled(data: bytes) -> tuple[Plan | None, tuple[Problem, ...]]:
    try:
        plan = compile_text(data, ROOT / "playbooks" / "fuzz.yaml", WORLD)
    except AuthorError as error:
        return None, error.problems
    return plan, plan.warnings


def _use(plan: Plan) -> None:
    """What is done with every plan."""
    assert len(cues(plan)) == len(plan.steps)
    assert cue_sheet(plan)
    performance.of_plan(plan, plan.name)
    Engine(plan).begin()


NAMES: Mapping[str, Any] = {
    "words": ["a", "bb", "ccc"],
    "text": "Hello, you.",
    "n": 3,
    "x": 2.5,
    "yes": True,
    "room": {"title": "Atrium", "floor": 2},
    "rooms": [{"title": "Atrium", "floor": 2}, {"title": "Library", "floor": 1}],
    "nothing": None,
}


def render_template(data: bytes) -> None:
    """A template: plain data of a bounded size, or problems; the same every time, and within one budget."""
    text = data.decode("utf-8", "replace")
    value, problems = _rendered(text)
    again, same = _rendered(text)
    _judge_problems(problems)
    assert problems == same
    assert repr(value) == repr(again)
    if not problems:
        dumped = json.dumps(value, allow_nan=False)
        assert len(dumped) <= 12 * MAX_WEIGHT + 100, "an escape has six characters, and a pair has two"


def _rendered(text: str) -> tuple[Any, tuple[Problem, ...]]:
    findings = Findings()
    document = Document("fuzz.yaml", Path("fuzz.yaml"), text)
    findings.documents["fuzz.yaml"] = document
    node = Node(document, 0, len(text), text)
    node.templated = True
    value = None
    scope = Scope(NAMES, secret=frozenset({"x"}), empty=frozenset({"empty"}))
    renderer = Renderer(scope, findings, Budget())
    with contextlib.suppress(Abandoned):
        value = renderer.render(node)
        assert findings.failed == renderer.broken
    return value, findings.report("fuzz.yaml")


def _templates() -> list[bytes]:
    playbooks = b"\n".join(_files("playbooks/**/*.yaml", "tests/golden/**/*.yaml", "tests/problems/PB30*/*.yaml"))
    found = dict.fromkeys(re.findall(rb"[^\n\"']{0,20}\{\{.*?\}\}[^\n\"']{0,20}", playbooks))
    filters = (
        "abs d default first float int join last length list lower max min replace reverse round sort string sum title trim unique upper"
    )
    methods = "capitalize count endswith find get index items join keys lower lstrip replace rfind rstrip split splitlines startswith strip"
    return [
        *found,
        *(f"{{{{ words | {name} }}}}".encode() for name in filters.split()),
        *(f"{{{{ text.{name}('a', 'b') }}}}".encode() for name in methods.split()),
        b"{{ rooms | sort(attribute='floor') | join(', ', attribute='title') }}",
        b"{{ 'a' if n is even else (x ** 2 // 3) ~ text[1:-1] * 2 }}",
        b"{{ range(n) | list + [1, {'a': (1, 2)}] }}",
        b"{{ not yes and empty | default('e', true) in words }}",
    ]


# --- what is kept of runs -------------------------------------------------------------------------------------------------


@cache
def _golden_plan(case: str) -> Plan:
    return plan_from_json(json.loads((GOLDEN / "logs" / case / "plan.json").read_bytes()))


def read_log(data: bytes) -> None:
    """A run log: lines, and an honest word on where they stop; its replay, its report and its comparison with itself."""
    path = _as_file(data, "run.jsonl")
    lines = _lines(path)
    assert lines == _lines(path)
    plan = _golden_plan("every-verb")
    replays = [_or_refusal(lambda: replay.replay(runlog.read_log(path), plan)) for _ in range(2)]
    if not isinstance(replays[0], replay.Replay):
        assert replays[0] == replays[1]
        return
    first, second = replays
    assert isinstance(second, replay.Replay)
    assert (first.divergence, first.damage, first.lines, first.events) == (second.divergence, second.damage, second.lines, second.events)
    assert first.lines <= len(data.splitlines())
    assert run_report(Result(first.summary.end or "error", 0), first.summary)
    acts = performance.of_log(runlog.read_log(path), "a run")
    assert not diff.compare(acts, acts, diff.Tolerance()).changes
    spoken = captions.split(captions.cues_of(first.summary, {}))
    assert captions.to_vtt(spoken).startswith("WEBVTT")
    captions.to_srt(spoken)


def _lines(path: Path) -> Any:
    def read() -> Any:
        log = runlog.read_log(path)
        return [log.header, *log], log.complete, log.damage

    return _or_refusal(read)


def _or_refusal(work: Callable[[], Any]) -> Any:
    """What comes of it, or the words with which it is refused."""
    try:
        return work()
    except RecordError as error:
        return error.message


def read_baseline(data: bytes) -> None:
    """A baseline, which is the same once it was written and read again."""
    found = _or_refusal(lambda: baseline.read(_as_file(data, "fuzz.baseline.yaml")))
    assert found == _or_refusal(lambda: baseline.read(_as_file(data, "fuzz.baseline.yaml")))
    if isinstance(found, baseline.Baseline):
        written = baseline.to_yaml(found)
        assert baseline.to_yaml(baseline.read(_as_file(written.encode(), "again.baseline.yaml"))) == written


def read_plan(data: bytes) -> None:
    """A plan.json: a plan that can be used like any other, also for a replay."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return  # what is no JSON does not get here
    plan = _or_refusal(lambda: plan_from_json(value))
    if isinstance(plan, Plan):
        written = plan_to_json(plan)
        assert plan_to_json(plan_from_json(json.loads(json.dumps(written)))) == json.loads(json.dumps(written))
        _use(plan)
        log = runlog.read_log(GOLDEN / "logs" / "every-verb")
        _or_refusal(lambda: replay.replay(log, plan))


def play_cassette(data: bytes) -> None:
    """A cassette: each recorded request gets its answer, and a room and a socket go on as they were recorded."""
    path = _as_file(data, "fuzz.cassette")
    cassette = _or_refusal(lambda: Cassette(path))
    if isinstance(cassette, Cassette):
        clock.run(_play(cassette, [json.loads(line) for line in data.decode().splitlines() if line.strip()]), "virtual")


async def _play(cassette: Cassette, lines: list[dict[str, Any]]) -> None:
    happened: list[Any] = []

    async def nobody(_: Request) -> Answer:
        raise AssertionError("a cassette that only plays asks nobody")

    send = cassette.http(nobody)
    for line in lines:
        if (asked := line.get("http")) is not None:
            request = Request(asked["method"], asked["path"], asked.get("json"), asked.get("form"), None, None, asked.get("headers", {}))
            with contextlib.suppress(PlaybookError):
                assert (await send(request)).status
    for number in sorted({line["room"] for line in lines if "room" in line})[:1]:
        with contextlib.suppress(PlaybookError):
            room = cassette.room(happened.append, _no_room)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(60):
                    await room.open(Door("tcp://127.0.0.1:1/x"))
            for line in lines:
                if line.get("room") == number and line.get("do") == "send":
                    await asyncio.wait([room.send(line["message"])], timeout=5)
            await asyncio.sleep(60)
            await room.close()
    with contextlib.suppress(PlaybookError, TimeoutError):
        async with asyncio.timeout(3_600):
            await _play_socket(cassette.listener("wss://a.example/x", _no_socket), [line for line in lines if line.get("socket") == 1])


async def _play_socket(socket: Dialled, lines: list[dict[str, Any]]) -> None:
    async def read() -> list[str]:
        return [text async for text in socket.texts()]

    await socket.start()
    await socket.caller(30)
    reader = asyncio.ensure_future(read())
    try:
        for line in lines:
            if line.get("do") == "send":
                await socket.send(json.dumps(line["json"]) if "json" in line else line.get("text", ""))
            elif line.get("do") == "sound":
                await socket.send(bytes(16))
        await asyncio.sleep(60)
        assert all(isinstance(text, str) for text in (await reader if reader.done() else ()))
    finally:
        reader.cancel()
        await socket.aclose()


def _no_socket() -> Dialled:
    raise AssertionError("a cassette that only plays opens no port")


def _no_room(_: OnEvent) -> Room:
    raise AssertionError("a cassette that only plays makes no room")


# --- what vendors say -----------------------------------------------------------------------------------------------------

_ANSWER = re.compile(rb"([1-5]\d\d)(?:;(\S*))? ?(.*)", re.DOTALL)


@dataclass(slots=True)
class Script:
    """What a vendor says, a line each. `200 {…}` or `429;3 {…}` (3 is its Retry-After) is the answer to the next request; every other line
    is a message, and an empty one lets the vendor wait for something of ours before it goes on."""

    answers: list[Answer] = field(default_factory=list)
    stanzas: list[list[bytes]] = field(default_factory=lambda: [[]])

    @classmethod
    def of(cls, data: bytes) -> Script:
        script = cls()
        for line in data.split(b"\n"):
            if not line:
                script.stanzas.append([])
            elif match := _ANSWER.fullmatch(line):
                headers = {} if match[2] is None else {"retry-after": match[2].decode("latin-1")}
                script.answers.append(Answer(int(match[1]), headers, match[3]))
            else:
                script.stanzas[-1].append(line)
        return script

    def answer(self) -> Answer:
        """The next one; a vendor that has no more to say is out of order."""
        return self.answers.pop(0) if self.answers else Answer(503, {}, b"")

    def stanza(self) -> list[bytes]:
        return self.stanzas.pop(0) if self.stanzas else []


class ScriptedRoom(LineRoom):
    """A room whose other end goes by a script: a stanza for each line of ours."""

    def __init__(self, on_event: OnEvent, script: Script) -> None:
        super().__init__(on_event, Patience(beat_s=None))
        self._script = script

    async def _connect(self) -> None:
        if "\0" in self._url:
            raise RoomFailure("bad-url", "a NUL")
        self._go_on()

    def _write(self, line: bytes) -> None:
        if b'"do":"listen"' not in line and b'"final":false' not in line:  # a sound goes in many pieces
            self._go_on()

    def _go_on(self) -> None:
        loop = asyncio.get_running_loop()
        for number, frame in enumerate(self._script.stanza()):
            loop.call_later(0.1 * number, self._received, frame + b"\n")

    def _abort(self) -> None:
        self._script.stanzas.clear()

    async def _hang_up(self, leave_s: float) -> None:
        self._abort()


LINES = """\
  - say: One.
    on_error: continue
    id: one
  - say: {chunks: [Two, " and", " three."]}
    until: started
    timeout: 20s
    id: two
  - wait: 300ms
  - interrupt:
    on_error: continue
  - say: Four.
    id: four
"""


@cache
def _vendor(name: str) -> tuple[Stand, Plan]:
    """A vendor's provider, and the plan that is performed with it."""
    external = {"conversation_engine": {"type": "external", "url": "wss://avatar.example.com/playbook"}}
    providers: dict[str, tuple[Provider, dict[str, str], dict[str, Any]]] = {
        "kaltura": (KalturaProvider(lambda: VOICE), {"KALTURA_KS": "djJ8-a-ks"}, {"visualConfig": {"id": "v"}, "voiceConfig": {"id": "w"}}),
        "avaturn": (AvaturnProvider(), {"AVATURN_API_KEY": "a-key-for-avaturn"}, {"unsupported_sdk_cancel": True}),
        "avaturn-external": (
            AvaturnProvider(lambda: VOICE),
            {"AVATURN_API_KEY": "a-key-for-avaturn", "AVATURN_EMULATED": "yes"},
            external,
        ),
        "tavus": (TavusProvider(), {"TAVUS_API_KEY": "a-key-for-tavus"}, {"pal_id": "p1", "listen": True}),
        "tavus-microphone": (
            TavusProvider(lambda: VOICE),
            {"TAVUS_API_KEY": "a-key-for-tavus"},
            {"pal_id": "p1", "echo_via": "microphone"},
        ),
    }
    stand = Stand(*providers[name])
    folder = _folder() / f"of-{name}"
    return stand, compile_on(write_playbook(folder, stand, LINES))


def vendor(name: str) -> Callable[[bytes], None]:
    """A run with a vendor that goes by a script: it ends, with a good log, which replays."""

    def perform(data: bytes) -> None:
        code, _ = perform_script(name, Script.of(data))
        assert code in (0, 1, 4), f"exit {code}"

    return perform


def perform_script(name: str, script: Script) -> tuple[int, str]:
    """The exit code and the log of a run. Asserts that the log is a good one and replays."""
    stand, plan = _vendor(name)
    folder = _folder() / f"run-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    code = clock.run(_perform(stand, plan, script, folder), "virtual")
    checked(folder / "run")
    again = replay.replay(runlog.read_log(folder / "run"), plan)
    assert again.identical, again
    return code, (folder / "run" / "run.jsonl").read_text("utf-8")


async def _perform(stand: Stand, plan: Plan, script: Script, folder: Path) -> int:
    dialled: list[asyncio.Task[None]] = []

    async def send(request: Request) -> Answer:
        engine = (request.json or {}).get("conversation_engine") if isinstance(request.json, dict) else None
        answer = script.answer()
        if engine is not None and answer.status < 300:
            dialled.append(asyncio.ensure_future(_dial(engine, script)))
        return answer

    def room(on_event: OnEvent, _: Callable[[OnEvent], Room]) -> Room:
        return ScriptedRoom(on_event, script)

    errors: list[Mapping[str, Any]] = []  # of callbacks, which nobody awaits
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    transports = Wrapped(stand.transports(), Between(http=lambda _: send, room=room))
    options = Options(folder=folder / "run", env=stand.env, state_dir=folder / "state", provider=stand.provider, transports=transports)
    try:
        async with asyncio.timeout(86_400):  # on the virtual clock: what waits for nothing is found out, too
            code = (await Runner(plan, options).run()).result.exit_code
        assert not errors, errors
        return code
    finally:
        for task in dialled:
            task.cancel()
        if dialled:
            await asyncio.wait(dialled)
            await asyncio.sleep(1)  # whoever was let in last may still be on the way out


async def _dial(engine: Mapping[str, Any], script: Script) -> None:
    """Avaturn's side of the external engine's socket: a stanza for each text of ours."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    await asyncio.sleep(0.01)  # a call, like anything over a network, takes a moment
    with contextlib.suppress(ConnectionClosed, OSError):
        assert urlsplit(engine["url"]).hostname == "127.0.0.1"
        async with connect(engine["url"], additional_headers=engine["headers"], proxy=None, compression=None) as socket:
            for frame in script.stanza():
                await socket.send(frame, text=True)
            async for message in socket:
                for frame in script.stanza() if isinstance(message, str) else ():
                    await socket.send(frame, text=True)


def _kaltura() -> list[bytes]:
    created = b'200 {"success": true, "sessionId": "c1", "token": "a-token-of-ours"}'
    begun = b'200 {"success": true, "whepUrl": "https://example.com/w", "turn": {"username": "u", "credential": "a-credential"}}'
    done = b'200 {"success": true}'
    refused = b'200 {"success": false, "message": "not today", "code": "X"}'
    return [
        b"\n".join([created, begun, *[done] * 12]),
        b"\n".join([b"404", created, begun, done, b"503 unavailable", refused, done, done]),
        b"\n".join([created, begun, b'429;1 {"error": {"message": "slow down"}}', done, b"410 gone", done]),
        b'401 {"objectType": "KalturaAPIException", "code": "INVALID_KS", "message": "Invalid KS"}',
    ]


def _avaturn() -> list[bytes]:
    created = b'201 {"session_id": "c1", "token": "a-token-of-ours"}'
    taken = b'201 {"task_id": "t1"}'
    detail = b'422 {"detail": [{"loc": ["body", "text"], "msg": "too long", "type": "value_error"}]}'
    return [
        b"\n".join([created, *[taken] * 4, b"204", *[taken] * 4, b"204"]),
        b"\n".join([created, taken, detail, b"429;2 later", taken, b"404 none", b"410"]),
        b'400 {"detail": "no such voice"}',
        b'410 {"detail": "this avatar is retired"}',
    ]


def _external() -> list[bytes]:
    def said(type: str, uid: str, **more: Any) -> bytes:
        return json.dumps({"type": f"avatar.speech.segment.{type}", "segment_uid": uid, "segment_id": f"s-{uid}", **more}).encode()

    def spoken(uid: str) -> list[bytes]:
        ended = said("playback.ended", uid, timestamp=3.5)
        return [said("created", uid), b"", said("closed", uid), said("playback.started", uid, timestamp=1.5), ended, b""]

    head = [b'201 {"session_id": "c1", "token": "a-token-of-ours"}', b"204", b""]
    error = b'{"type": "error", "subtype": "avatar.speech.segment.error", "reason": "no"}'
    interrupted = said("playback.interrupted", "two", played_duration=0.4, reason="interrupt")
    begun = [said("created", "two"), b"", said("closed", "two"), said("playback.started", "two"), b"", interrupted, b""]
    return [
        b"\n".join([*head, *spoken("one"), *spoken("two"), *spoken("two#2"), *spoken("two#3"), *spoken("four")]),
        b"\n".join([*head, *spoken("one"), *begun, *spoken("four")]),
        b"\n".join([*head, error, b"", error, *spoken("two"), b"[]", b"null"]),
    ]


def _tavus(*, microphone: bool) -> list[bytes]:
    def message(kind: str, id: str | None = None, **properties: Any) -> bytes:
        body = {"message_type": "conversation", "event_type": kind, "conversation_id": "c1", "properties": properties}
        return json.dumps({"on": "message", "message": body | ({"inference_id": id} if id else {}), "sender": "f1"}).encode()

    pal = b'200 {"data": [{"pal_id": "p1", "pal_name": "Vera", "pipeline_mode": "echo"}]}'
    created = b'200 {"conversation_id": "c1", "conversation_url": "https://x.daily.co/c1", "status": "active", "meeting_token": "a-token"}'
    events = [{"event_type": "system.shutdown", "properties": {"shutdown_reason": "end"}}]
    why = b"200 " + json.dumps({"status": "ended", "created_at": "2026-01-01T00:00:00Z", "events": events}).encode()
    head = [pal, created, b"200", why, b'{"on": "ready"}', b""]
    joined = [b'{"on": "joined", "id": "me"}', b'{"on": "participant", "change": "joined", "id": "f1", "name": "Vera", "audio": true}', b""]

    def sent(n: int) -> bytes:
        return b'{"on": "sent", "n": %d, "error": null}' % n

    def spoken(n: int, id: str) -> list[bytes]:
        words = message("conversation.utterance", id, role="pal", speech="One.")
        begun, ended = "conversation.started_speaking", "conversation.stopped_speaking"
        return [
            sent(n),
            message(begun, id, role="pal"),
            words,
            message(ended, id, role="pal", duration=1.5, interrupted=False),
            message("conversation.replica.stopped_speaking", id),
            b"",
        ]

    def played(clip: bytes, *, cut: bytes = b"false") -> list[bytes]:
        began = b'{"on": "started", "clip": "%s", "at": 0.5}' % clip
        ended = b'{"on": "ended", "clip": "%s", "played_ms": 300, "interrupted": %s}' % (clip, cut)
        return [b'{"on": "taken", "bytes": 4800, "era": 0}', began, ended, b""]

    begun_two = message("conversation.started_speaking", "two", role="pal")
    cut_two = message("conversation.stopped_speaking", "two", role="pal", interrupted=True, duration=0.3)
    two = [sent(2), begun_two, b"", sent(3), b"", sent(4), b"", sent(5), cut_two, b""]
    gone = [b'{"on": "participant", "change": "left", "id": "f1", "reason": "leftCall"}', b'{"on": "lost", "text": "Elapsed"}']
    shutdown = [message("system.shutdown", shutdown_reason="max_call_duration")]
    error = [b'{"on": "error", "text": "no"}', b'{"on": "sent", "n": 1, "error": "ChannelNotOpen"}', b""]
    sound = json.dumps({"on": "sound", "participant": "f1", "pcm": "AH8Afw==" * 400, "hz": 16_000, "at": 0.5}).encode()
    lines = [*spoken(1, "one"), *two, sound, *spoken(6, "four")]
    if microphone:
        lines = [*played(b"one#1"), *played(b"two#1"), *played(b"two#2"), *played(b"two#3", cut=b"true"), *played(b"four#1")]
    return [
        b"\n".join([*head, *joined, *lines]),
        b"\n".join([*head, *joined, *error, *lines]),
        b"\n".join([*head, *joined, *lines[:6], *gone]),
        b"\n".join([*head, *joined, *lines[:6], *shutdown]),
        b"\n".join([*head, b'{"on": "refused", "text": "HTTP error: 404"}']),
        b'402 {"message": "no credits"}',
    ]


def _cassettes() -> list[bytes]:
    header = {"cassette": 2, "provider": "tavus", "playbook": "x", "recorded_at": "2026-01-01T00:00:00+00:00"}
    asked = {"method": "POST", "path": "/v2/conversations", "json": {"pal_id": "p1"}}
    http = [
        {"at_ms": 0, "http": asked, "took_ms": 20, "answer": {"status": 200, "headers": {"content-type": "x"}, "json": {"a": [1, None]}}},
        {"at_ms": 30, "http": {"method": "GET", "path": "/x"}, "took_ms": 5, "answer": {"status": 500, "text": "no"}},
        {"at_ms": 40, "http": {"method": "GET", "path": "/y"}, "took_ms": 5, "answer": {"status": 200, "base64": "AAA="}},
        {"at_ms": 50, "http": {"method": "GET", "path": "/z"}, "took_ms": 5, "failure": {"message": "gone", "outcome": "ambiguous"}},
    ]
    who = {"id": "f1", "name": "Vera", "local": False, "audio": True, "video": True}
    said = [
        {"at_ms": 0, "room": 1, "do": "open"},
        {"at_ms": 9, "room": 1, "on": "open", "event": {"took_ms": 9, "participant": "me"}},
        {"at_ms": 9, "room": 1, "on": "ParticipantJoined", "event": {"participant": who}},
        {"at_ms": 12, "room": 1, "do": "send", "message": {"a": 1}},
        {"at_ms": 15, "room": 1, "on": "AppMessage", "event": {"message": {"b": 2}, "sender": "f1", "age_ms": 3}},
        {"at_ms": 16, "room": 1, "on": "SoundHeard", "event": {"participant": "f1", "pcm": "AAA=", "hz": 16000}},
        {"at_ms": 17, "room": 1, "on": "ClipEnded", "event": {"clip": "x", "played_ms": 10, "interrupted": False}},
        {
            "at_ms": 18,
            "room": 1,
            "on": "sent",
            "event": {"n": 1, "failure": {"kind": "other", "message": "m", "outcome": "refused"}},
        },
        {"at_ms": 19, "room": 1, "on": "RoomLost", "event": {"kind": "other", "text": "t"}},
        {"at_ms": 20, "room": 1, "do": "close"},
    ]
    stretch = f"16 bytes, sha256 {hashlib.sha256(bytes(16)).hexdigest()}"
    dialled = [
        {"at_ms": 0, "socket": 1, "do": "listen"},
        {"at_ms": 1, "http": asked, "took_ms": 20, "meanwhile": 1, "answer": {"status": 201}},
        {"at_ms": 9, "socket": 1, "on": "caller", "event": {"came": True, "strangers": 0}},
        {"at_ms": 12, "socket": 1, "do": "send", "json": {"a": 1}},
        {"at_ms": 15, "socket": 1, "on": "message", "event": {"json": {"b": 2}}},
        {"at_ms": 16, "socket": 1, "do": "sound", "bytes": stretch, "took_ms": 30},
        {"at_ms": 17, "socket": 1, "on": "message", "event": {"text": "no JSON"}},
        {"at_ms": 50, "socket": 1, "do": "sound", "bytes": stretch},
        {"at_ms": 60, "socket": 1, "on": "hangup", "event": {}},
        {"at_ms": 70, "socket": 1, "do": "close"},
    ]
    tapes = (http, said, [*http, *said], dialled)
    return ["\n".join(json.dumps(line) for line in [header, *lines]).encode() for lines in tapes]


def _baselines() -> Iterator[bytes]:
    for case in ("every-verb", "hello", "estimated"):
        acts = performance.of_log(runlog.read_log(GOLDEN / "logs" / case), case)
        yield baseline.to_yaml(baseline.learn([acts, acts], case, "virtual")).encode()


TARGETS: Mapping[str, Target] = {
    "yaml": Target(read_yaml, lambda: _files("playbooks/**/*.yaml", "tests/problems/*/*.yaml", "tests/golden/*/*.json")),
    "check": Target(check_playbook, lambda: _files("playbooks/**/*.yaml", "tests/golden/**/*.yaml", "tests/problems/*/*.yaml")),
    "template": Target(render_template, _templates),
    "log": Target(read_log, lambda: _files("logs/*/run.jsonl", "logs-rejected/*/run.jsonl", root=GOLDEN)),
    "baseline": Target(read_baseline, lambda: list(_baselines())),
    "cassette": Target(play_cassette, _cassettes),
    "plan": Target(read_plan, lambda: _files("logs/*/plan.json", root=GOLDEN)),
    "kaltura": Target(vendor("kaltura"), _kaltura),
    "avaturn": Target(vendor("avaturn"), _avaturn),
    "avaturn-external": Target(vendor("avaturn-external"), _external),
    "tavus": Target(vendor("tavus"), lambda: _tavus(microphone=False)),
    "tavus-microphone": Target(vendor("tavus-microphone"), lambda: _tavus(microphone=True)),
}
