"""Garbage in: whatever a reader is given, it answers with its own kind of error, soon, and never with a traceback.

Two sorts of garbage: arbitrary bytes and values, and good samples that were cut, spliced and bent, which get much further in.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from playbook import clock
from playbook.cli import main
from playbook.errors import AuthorError, Problem, format_problem
from playbook.language import compile_text
from playbook.perform.performance import Options, Runner
from playbook.providers import registry
from playbook.transports.factory import Wrapped
from playbook.transports.http import Answer, Request
from tests.contract import STANDS, Between, compile_on, write_playbook
from tests.logs import ROOT, checked
from tests.served import SESSIONS
from tests.world import FakeWorld

SLOWEST = datetime.timedelta(seconds=5)
SAMPLES = [path.read_bytes() for path in sorted((ROOT / "playbooks").rglob("*.yaml"))]
LOGS = [path.read_bytes() for path in sorted((ROOT / "tests" / "golden" / "shows").glob("*/run.jsonl"))]
TOKENS = [
    *(b"- ", b"\n", b"  ", b"\t", b":", b": ", b"{", b"}", b"[", b"]", b"&a", b"*a", b"!!python/object:os.system ", b"<<: ", b"---\n"),
    *(b"{{", b"}}", b"{%", b"|", b">", b'"', b"'", b"#", b"null", b"~", b"0x", b"1e999", b"-", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\\"),
    *(b"say:", b"wait:", b"include:", b"foreach:", b"repeat: 99999999", b"when:", b"timeline:", b"vars:", b"at:", b"until:", b"chunks:"),
]

anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-10, 10**20), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=10,
)


def hold(examples: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Check so many values. Deterministic; what fails is shrunk and raised."""
    quietly = settings(
        max_examples=examples, deadline=SLOWEST, database=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False
    )
    quietly(given(strategy)(lambda value: check(value)))()


@st.composite
def bent(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """A good sample after a few accidents."""
    data = draw(st.sampled_from(samples))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        upto = min(len(data), at + draw(st.integers(0, 60)))
        match draw(st.sampled_from(["cut", "insert", "replace", "double", "end"])):
            case "cut":
                data = data[:at] + data[upto:]
            case "insert":
                data = data[:at] + draw(st.sampled_from(TOKENS)) + data[at:]
            case "replace":
                data = data[:at] + draw(st.binary(max_size=4)) + data[upto:]
            case "double":
                data = data[:upto] + data[at:upto] * draw(st.integers(1, 50)) + data[upto:]
            case "end":
                data = data[:at]
    return data


def _compiles(data: bytes) -> None:
    """A playbook, or problems that can be shown."""
    problems: tuple[Problem, ...] | None = None
    try:
        compile_text(data, ROOT / "playbooks" / "fuzz.yaml", FakeWorld())
    except AuthorError as error:
        problems = error.problems
    assert problems is None or problems
    for problem in problems or ():
        assert problem.code in registry.codes()
        assert format_problem(problem)


def yaml_reader(examples: int) -> None:
    """Bytes that are no playbook."""
    hold(
        examples, st.one_of(st.binary(max_size=400), bent(SAMPLES), st.lists(st.sampled_from(TOKENS), max_size=60).map(b"".join)), _compiles
    )


_atoms = st.sampled_from(
    ["words", "text", "n", "nothing", "1", "0", "-3", "2.5", "10**9", "'a'", "''", "true", "none", "[1, 2]", "{'a': 1}", "range"]
)
_expressions = st.recursive(
    st.one_of(_atoms, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.tuples(
            inner, st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "and", "if", "is", "|", "."]), inner
        ).map(" ".join),
        st.tuples(inner, st.sampled_from(["[0]", "[-1:]", "()", ".upper()", ".__class__", "|upper", "|join(',')", "|length", "|list"])).map(
            "".join
        ),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"not {text}"),
        inner.map(lambda text: f"'%999999999d' % {text}"),
        inner.map(lambda text: f"range({text})"),
        inner.map(lambda text: f"[{text}, {text}] * 999"),
    ),
    max_leaves=8,
)
_around = st.sampled_from(["{{ %s }}", "a {{ %s }} b", "{{ %s }}{{ %s }}", "{%% %s %%}", "{{ %s", "%s }}", "{# %s #}", "{{- %s -}}"])


def template_renderer(examples: int) -> None:
    """Templates that are no templates, or ask for too much."""
    head = "version: 1\nprovider: local\nvars:\n  words: {type: array, default: [a, b]}\n  text: {type: string, default: hello}\n"
    head += "  n: {type: integer, default: 3}\ntimeline:\n"

    def check(drawn: tuple[str, str, str]) -> None:
        around, expression, key = drawn
        scalar = json.dumps(around.replace("%s", expression).replace("%%", "%"))
        _compiles((head + f"  - say: Hi.\n    {key}: {scalar}\n  - say: {scalar}\n").encode("utf-8", "surrogatepass"))

    hold(examples, st.tuples(_around, _expressions, st.sampled_from(["when", "foreach", "until", "at", "timeout", "id"])), check)


def log_reader(examples: int) -> None:
    """Run logs that were bent, through the verbs that read them."""
    facts = dict.fromkeys(("run", "playbook", "file", "plan_sha256", "provider", "clock", "started_at"), "x")
    header = json.dumps({"runlog": 1, **facts, "versions": {}}).encode()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def check(drawn: tuple[bytes, list[tuple[int, str, Any]]]) -> None:
            data, changes = drawn
            lines = [header, *data.splitlines()]
            for at, field, value in changes:
                with contextlib.suppress(ValueError):
                    line = json.loads(lines[at % len(lines)])
                    lines[at % len(lines)] = json.dumps({**line, field: value} if isinstance(line, dict) else value).encode()
            log = folder / "run.jsonl"
            log.write_bytes(b"\n".join(lines) + b"\n")
            for argv in (["replay", str(log)], ["diff", str(log), str(log)], ["replay", str(log), "--json"]):
                told = io.StringIO()
                with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
                    code = main(argv, {"HOME": name})
                assert code in (0, 1, 2, 3), told.getvalue()

        fields = st.sampled_from(
            [
                "n",
                "at_ms",
                "event",
                "command",
                "note",
                "end",
                "step",
                "task",
                "text",
                "evidence",
                "heard_ms",
                "due_ms",
                "counts",
                "runlog",
                "outcome",
            ]
        )
        changes = st.lists(
            st.tuples(st.integers(0, 60), fields, st.one_of(anything, st.sampled_from(["say", "speech_ended", "late"]))), max_size=3
        )
        hold(examples, st.tuples(st.one_of(st.sampled_from(LOGS), bent(LOGS)), changes), check)


_values = st.one_of(
    st.sampled_from(["", "x", "c1", "tcp://127.0.0.1:1/room", "nonsense", "ok", "ended", "active"]),
    st.integers(-1, 500),
    st.none(),
    st.just({}),
    anything,
)
_names = [
    "success",
    "sessionId",
    "token",
    "session_id",
    "task_id",
    "conversation_id",
    "conversation_url",
    "status",
    "error",
    "message",
    "detail",
]
_names += ["whepUrl", "turn", "data", "pal_id", "persona_id", "pipeline_mode", "meeting_token", "objectType", "code"]
_bodies = st.one_of(
    st.dictionaries(st.sampled_from(_names), _values, max_size=12).map(lambda body: json.dumps(body).encode()),
    anything.map(lambda body: json.dumps(body).encode()),
    st.binary(max_size=30),
    st.just(json.dumps(dict.fromkeys(_names, "c1") | {"success": True, "conversation_url": "tcp://127.0.0.1:1/x", "turn": {}}).encode()),
)
_statuses = st.sampled_from([200, 200, 200, 201, 202, 204, 301, 400, 401, 402, 403, 404, 405, 408, 409, 410, 422, 429, 500, 503, 599])
_headers = st.one_of(
    st.just({}), st.fixed_dictionaries({"retry-after": st.one_of(st.sampled_from(["0", "1", "-1", "1e9", "soon"]), st.text(max_size=9))})
)
answers = st.builds(Answer, _statuses, _headers, _bodies)


def vendor_answers(name: str, examples: int) -> None:
    """A vendor whose every answer is nonsense: the run comes to its end, with a good log, and no bug of ours."""

    def check(replies: list[Answer]) -> None:
        folder = Path(tempfile.mkdtemp())
        left = iter(replies)

        async def send(_: Request) -> Answer:
            return next(left, Answer(503, {}, b""))

        async def perform() -> None:
            async with STANDS[name]() as stand:
                lines = "  - say: One.\n    on_error: continue\n  - say: {chunks: [Two, and, three.]}\n  - say: Four.\n"
                plan = compile_on(write_playbook(folder, stand, lines))
                options = Options(
                    folder=folder / "run",
                    env=stand.env,
                    state_dir=folder / "state",
                    provider=stand.provider,
                    transports=Wrapped(stand.transports(), Between(http=lambda _: send)),
                )
                outcome = await Runner(plan, options).run()
                assert outcome.result.exit_code in (0, 1, 4), outcome.result
                checked(folder / "run")

        try:
            clock.run(perform(), "virtual")
        finally:
            shutil.rmtree(folder)

    hold(examples, st.lists(answers, min_size=1, max_size=12), check)


_paths = {
    "kaltura": [
        "/v1/avatar-session/create",
        "/v1/avatar-session",
        *(f"/v1/avatar-session/{{id}}/{call}" for call in ("say-text", "say-audio", "init-client", "interrupt", "keep-alive", "end")),
        "/whep/{id}",
        "/api_v3/service/session/action/start",
    ],
    "avaturn": ["/api/v1/sessions", "/api/v1/sessions/{id}", "/api/v1/sessions/{id}/tasks", "/_sdk/v0/sessions/cancel_all_speech_tasks"],
    "tavus": ["/v2/conversations", "/v2/conversations/{id}", "/v2/conversations/{id}/end", "/v2/pals", "/v2/personas", "/v2/pals/{id}"],
}
_fields = [
    "text",
    "turnId",
    "isFinal",
    "visualConfig",
    "voiceConfig",
    "conversation_engine",
    "max_duration",
    "pal_id",
    "persona_id",
    "properties",
]
_fields += ["face_id", "require_auth", "test_mode", "user_absent_timeout", "avatar_id", "pal_name", "pipeline_mode"]
_asked = st.tuples(
    st.sampled_from(["GET", "POST", "POST", "DELETE", "PUT", "PATCH"]),
    st.integers(0, 9),
    st.one_of(
        st.dictionaries(
            st.sampled_from(_fields), st.one_of(anything, st.just({"id": "x"}), st.just({"type": "external", "url": "ws://x"})), max_size=6
        ),
        anything,
    ).map(lambda body: json.dumps(body).encode()),
    st.sampled_from(["application/json", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/sdp", ""]),
)


def emulator_requests(name: str, examples: int) -> None:
    """Clients that know nothing: an emulator refuses what it does not understand, and lives."""

    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it has a word for every form that is none

    def check(requests: list[tuple[str, int, bytes, str]]) -> None:
        async def perform() -> None:
            emulator = registry.emulator(name)(viewer_after_ms=0)
            async with emulator.serve() as url, httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as client:
                headers = {"Authorization": "Bearer emulated", "x-api-key": "emulated"}
                if name == "kaltura":
                    headers["Authorization"] = "KS emulated-ks"
                body = {"kaltura": SESSIONS["kaltura"], "avaturn": {}, "tavus": {"pal_id": "p5c0ffee1234"}}[name]
                await client.post(_paths[name][0], json=dict(body), headers=headers)
                for method, which, content, kind in requests:
                    path = _paths[name][which % len(_paths[name])].replace("{id}", next(iter(emulator.sessions), "none"))
                    if session := next(iter(emulator.sessions.values()), None):
                        headers["Authorization"] = (
                            f"Bearer {getattr(session, 'token', None) or 'emulated'}" if which % 3 else headers["Authorization"]
                        )
                    answer = await client.request(
                        method, path, content=content, headers={**headers, **({"content-type": kind} if kind else {})}
                    )
                    assert answer.status_code < 500, (method, path, content, answer.text)

        clock.run(perform(), "virtual")

    hold(examples, st.lists(_asked, min_size=1, max_size=8), check)
