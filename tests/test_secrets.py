"""Secrets planted everywhere, and a search of every file and stream that a run leaves: on every provider, also when everything fails.

Planted are: a credential in the environment, secret variables (a plain one and one that every encoding writes differently), and what the
emulator mints (session tokens, room tokens, TURN credentials). The emulators here repeat all of it in every refusal.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from playbook import clock
from playbook.emulators.base import Emulator
from playbook.errors import ProviderError
from playbook.events import SayText, TaskAccepted
from playbook.journal.journal import Journal
from playbook.perform.performance import Options, Runner
from playbook.providers import registry
from playbook.record.redact import Redactor
from playbook.transports.http import Answer, Http, Request, Retry
from tests.contract import STANDS, compile_on, write_playbook
from tests.leaks import found, spellings
from tests.logs import checked, of
from tests.served import SESSIONS
from tests.test_cli_sessions import Vendor, VendorSession

KEY = "planted-key-0123456789abcdef"
CODE = "swordfish-7781"
ODD = "pa'ss\"wörd & t\\n/é?"
CREDENTIALS = {"kaltura": "KALTURA_KS", "avaturn": "AVATURN_API_KEY", "tavus": "TAVUS_API_KEY"}
MODES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    **{name: (name, session) for name, session in SESSIONS.items()},
    "tavus": ("tavus", {**SESSIONS["tavus"], "require_auth": True}),
    "avaturn-external": ("avaturn", {"conversation_engine": {"type": "external", "url": "wss://avatar.example.com/x"}}),
    "tavus-microphone": ("tavus", {**SESSIONS["tavus"], "require_auth": True, "echo_via": "microphone"}),
    "local": ("local", {}),
}
PLAY = """\
version: 1
name: show
provider: {provider}
session: {session}
start: 0s
vars:
  code: {{type: string, secret: true, required: true}}
  odd: {{type: string, secret: true, required: true}}
timeline:
  - say: "The code is {{{{ code }}}}, and nothing else."
    id: first
    name: "tells {{{{ code }}}}"
  - say: {{chunks: ["And then ", "{{{{ odd }}}}", " or {{{{ code | upper }}}}."]}}
    id: second
  - say: "Once more: {{{{ odd }}}} and {{{{ code }}}}."
    until: 500ms
  - interrupt:
  - say: "Good night."
    expect: {{heard: "{{{{ code }}}}"}}
"""


def planted(name: str) -> type[Emulator]:
    """The emulator of that name, with a real-looking credential, that repeats every secret it has ever seen in every refusal."""

    class Planted(registry.emulator(name)):  # type: ignore[misc]  # a class made at run time
        made: ClassVar[list[Emulator]] = []

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.made.append(self)

        def environment(self) -> Mapping[str, str]:
            return {**super().environment(), CREDENTIALS[name]: KEY}

        def refusal(self, status: int, text: str) -> Any:
            return super().refusal(status, f"{text}: {' '.join([CODE, ODD, KEY, *self._sealed])}")

    return Planted


Kaltura, Avaturn, Tavus = (planted(name) for name in ("kaltura", "avaturn", "tavus"))


@pytest.fixture(autouse=True)
def emulators(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Kaltura, Avaturn, Tavus):
        monkeypatch.setattr(kind, "made", [])
        monkeypatch.setattr(type(registry.find(kind.name)), "emulator", f"{__name__}:{kind.name.capitalize()}")


def minted() -> set[str]:
    """What the emulators handed out as credentials."""
    return {secret for kind in (Kaltura, Avaturn, Tavus) for emulator in kind.made for secret in emulator._sealed}


def test_the_search_finds_what_is_there(tmp_path: Path):
    """The search itself: every spelling, in a file and in a stream."""
    for n, form in enumerate(spellings(ODD)):
        (tmp_path / str(n)).write_bytes(b"before " + form + b" after")
    assert len({place.partition(":")[0] for place in found([ODD], tmp_path, f"x{CODE}x")}) == len(spellings(ODD))
    assert found([CODE], tmp_path / "nowhere", f"x{CODE}x") != []


@pytest.mark.parametrize("luck", ["good", "session-dies@first", "quota-at-create"])
@pytest.mark.parametrize("mode", MODES)
def test_a_run_leaves_no_secret(mode: str, luck: str, shell, tmp_path: Path):
    """A whole run, seen as a person and as a program would, and recorded on a cassette: no spelling of a secret is anywhere."""
    provider, session = MODES[mode]
    if mode == "local" and luck != "good":
        return
    shell.write("show.yaml", PLAY.format(provider=provider, session=json.dumps(session)))
    emulated = [] if mode == "local" else ["--emulate"]
    recorded = mode != "local"
    emulated += ["--record", "tape.jsonl", "--record-mode", "all"] if recorded else []
    fault = [] if luck == "good" else ["--fault", luck]
    values = ["--var", f"code={CODE}", "--var", f"odd={ODD}"]
    streams = []
    for out, *more in (["one"], ["two", "--json"]):
        done = shell.call("run", "show.yaml", "--clock", "virtual", "--out", out, *emulated, *fault, *values, *more, CUSTOMERS_API_KEY=KEY)
        assert done.code == (1 if luck == "good" else 4), done.err
        checked(Path(out))
        assert luck != "good" or "***" in done.out
        streams += [done.out, done.err]
    assert Path("tape.jsonl").exists() == recorded
    assert mode == "local" or luck == "quota-at-create" or minted()
    assert found({CODE, ODD, KEY} | minted(), tmp_path, *streams) == []


@pytest.mark.parametrize("room", range(240, 310, 3))
def test_what_is_cut_short_leaves_no_half_of_a_secret(room: int):
    """Of a long error only the beginning is quoted; wherever the cut falls, secrets were taken out before."""
    body = json.dumps({"error": f"{'x ' * (room // 2)}{ODD} {KEY} {CODE} and so on"}).encode()

    async def send(_: Request) -> Answer:
        return Answer(400, {}, body)

    async def main() -> str:
        async with Http("http://127.0.0.1:9", redact=Redactor([ODD, KEY, CODE])).wrap(lambda _: send) as http:
            with pytest.raises(ProviderError) as error:
                await http.request("POST", "/", retry=Retry.NEVER)
            return error.value.message

    message = clock.run(main(), "virtual")
    assert not [secret for secret in (ODD, KEY, CODE) if secret[:4] in message]
    assert len(message) < 350


@pytest.mark.parametrize("name", [name for name in STANDS if name != "local"])
def test_the_journal_never_holds_a_key(name: str, tmp_path: Path):
    """While the session lives, the journal has what ends it and nothing else; afterwards it has nothing. Nor has anything else."""
    seen: list[tuple[bytes, bytes]] = []

    async def main() -> set[str]:
        async with STANDS[name]() as stand:
            assert stand.emulator is not None
            keys = {variable: KEY for way in stand.provider.credentials for variable in way if variable in stand.env}
            plan = compile_on(write_playbook(tmp_path, stand, "  - say: Hello.\n"))

            def watch(line: dict[str, Any]) -> None:
                if line.get("command") == "say":
                    seen.append(((tmp_path / "state" / "sessions.jsonl").read_bytes(), (tmp_path / "run" / "run.jsonl").read_bytes()))

            options = Options(
                folder=tmp_path / "run", env={**stand.env, **keys}, state_dir=tmp_path / "state", provider=stand.provider, watch=watch
            )
            outcome = await Runner(plan, options).run()
            assert outcome.result.exit_code == 0, outcome.result.reason
            return set(stand.emulator._sealed)

    tokens = clock.run(main(), "virtual")
    [(journal, log)] = seen
    assert KEY.encode() not in journal + log
    assert not [token for token in tokens if token.encode() in log]
    assert found({KEY} | tokens, tmp_path) == []
    assert Journal(tmp_path / "state").open_sessions() == []


def test_a_traceback_of_ours_shows_no_secret(shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A bug in a provider, and an error that a library throws in the background: both are shown, without what they quote, and the command
    that ends the session stands on the last line all the same."""

    class Session(VendorSession):
        async def _say(self, command: SayText) -> TaskAccepted:
            text = f"{command.text!r} with {self.context.env['TAVUS_API_KEY']} and planted-token {ODD!r}"
            asyncio.get_running_loop().call_soon(lambda: [][text])  # type: ignore[call-overload]  # a library's bug
            await asyncio.sleep(0)  # the library's bug comes first
            raise ZeroDivisionError(text)

    class Buggy(Vendor):
        def connect(self, context: Any) -> Session:
            context.seal("planted-token")
            return Session(context)

    monkeypatch.setitem(registry.OURS, "tavus", f"{__name__}:Buggy")
    monkeypatch.setattr(sys.modules[__name__], "Buggy", Buggy, raising=False)
    monkeypatch.setattr(Vendor, "there", set())
    monkeypatch.setattr(Vendor, "reachable", False)
    shell.write("show.yaml", PLAY.format(provider="tavus", session="{}"))
    values = ["--var", f"code={CODE}", "--var", f"odd={ODD}"]
    done = shell.call("run", "show.yaml", "--clock", "virtual", "--out", "here", *values, TAVUS_API_KEY=KEY)
    assert done.code == 70
    assert "ZeroDivisionError" in done.err
    assert "TypeError" in done.err
    assert done.err.splitlines()[-1] == "playbook sessions end c42"
    assert Path("here/run.jsonl").read_text("utf-8").splitlines()[-1].count('"error"') == 1
    state = tmp_path / "state" / "sessions.jsonl"
    assert KEY not in state.read_text("utf-8")
    state.unlink()  # what ends the open session stands there, as it should
    assert found({CODE, ODD, KEY, "planted-token"}, tmp_path, done.out, done.err) == []


MISTAKES = [
    '  - wait: "{{ code }}"\n',
    '  - say: Hi.\n    when: "{{ code }}"\n',
    '  - say: "{{ code + 1 }}"\n',
    '  - say: "{{ code.nothing }}"\n',
    '  - say: Hi.\n    until: "{{ code }}"\n',
    '  - say: Hi.\n    at: "{{ code }}"\n',
    '  - audio-echo: "{{ code }}.wav"\n',
    '  - audio-echo: {base64: "{{ code }}", sample_rate: 16000, format: pcm16}\n',
    '  - say: Hi.\n    foreach: "{{ code }}"\n',
    '  - say: "{{ [code] | join(1) + 2 }}"\n',
    '  - say: "{{ {code: 1}[odd] }}"\n',
    '  - say: {text: Hi., voice: "{{ code }}"}\n',
    '  - say: Hi.\n    timeout: "{{ odd }}"\n',
    '  - say: Hi.\n    expect: {evidence: "{{ code }}"}\n',
    '  - wait: {event: "{{ code }}", timeout: "{{ odd }}"}\n',
]


@pytest.mark.parametrize("verb", ["check", "plan"])
def test_a_problem_quotes_no_secret(verb: str, shell, tmp_path: Path):
    """A secret in a place where it is wrong: the message says what is wrong without saying it."""
    head = "version: 1\nprovider: local\nvars:\n  code: {type: string, secret: true}\n  odd: {type: string, secret: true}\ntimeline:\n"
    for mistake in MISTAKES:
        shell.write("wrong.yaml", head + mistake)
        env = {"PLAYBOOK_VAR_code": CODE, "PLAYBOOK_VAR_odd": ODD}
        for form in ([], ["--json"]):
            done = shell.call(verb, "wrong.yaml", *form, **env)
            assert done.code in (0, 3), mistake
            assert found({CODE, ODD}, tmp_path, done.out, done.err) == [], mistake


def test_a_test_report_has_no_secret(shell, tmp_path: Path):
    """JUnit, TAP, HTML and JSON of a test that fails, and the console."""
    shell.write("show.yaml", PLAY.format(provider="local", session="{}"))
    values = ["--var", f"code={CODE}", "--var", f"odd={ODD}"]
    reports = ["--junit", "r.xml", "--tap", "r.tap", "--html", "r.html"]
    streams = []
    for n, form in enumerate(([], ["--json"])):
        done = shell.call("test", "show.yaml", "--clock", "virtual", "--jobs", "1", "--out", f"out{n}", *values, *reports, *form)
        assert done.code == 1
        streams += [done.out, done.err]
    assert found({CODE, ODD}, tmp_path, *streams) == []


def test_the_log_still_shows_the_rest(shell):
    """Redaction hides the secret and nothing else: the words around it are there."""
    shell.write("show.yaml", PLAY.format(provider="local", session="{}"))
    shell.call("run", "show.yaml", "--clock", "virtual", "--out", "here", "--var", f"code={CODE}", "--var", f"odd={ODD}")
    [first, *_] = of(checked(Path("here")), "command", "say")
    assert first["text"] == "The code is ***, and nothing else."
