"""Comparing with what was written down, and what vendors tell, whoever wrote it."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import html
import io
import json
import os
import re
import stat
import subprocess
import sys
import unicodedata
from pathlib import Path
from urllib.parse import quote, quote_plus
from xml.sax import saxutils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbook import events
from playbook.cli import options
from playbook.errors import near, printable
from playbook.language import Inputs, compile_file
from playbook.model import Evidence
from playbook.providers.told import MOST_S, moment, seconds
from playbook.record import runlog
from playbook.record.diff import Change
from playbook.record.redact import Redactor, agrees, quoted
from playbook.stage.board import Board
from playbook.suite.judge import Result
from playbook.transports.cassette import Cassette
from tests.commands import Shell
from tests.world import FakeWorld

_PIECES = st.lists(st.sampled_from(["***", "*", "a", "b", "ab", "\n", ""]), max_size=7).map("".join)


@given(_PIECES, _PIECES)
def test_a_mask_stands_for_anything(shown: str, text: str) -> None:
    """A masked text agrees with exactly those in which each mask is some text or none, as a pattern would have it."""
    assert agrees(shown, text) == (re.fullmatch(".*".join(map(re.escape, shown.split("***"))), text, re.DOTALL) is not None)


@pytest.mark.parametrize("shown", ["***" * 40 + "!x", "***a" * 20_000 + "!", "*" * 60_000, "***a***" * 9_000])
def test_a_text_of_masks_costs_no_more_than_its_length(shown: str) -> None:
    """What anybody may send is compared in one pass: with a pattern this test would never end."""
    assert agrees(shown, "a" * 100_000 + "x") is (set(shown) == {"*"} or shown.endswith("***"))


def test_what_looks_like_a_token_is_found_in_one_pass(tmp_path) -> None:
    """A body full of beginnings of tokens is cleaned at once; a token is masked."""
    cassette = Cassette(tmp_path / "tape.jsonl", "all")
    assert cassette.clean("eyJ-" * 200_000) == "***"
    assert cassette.clean("see eyJhbGciOi.eyJzdWIi.c2ln, please") == "see ***, please"


def test_no_name_is_guessed_from_a_text_of_any_length() -> None:
    """Guessing takes the square of a name's length, so what is no name is not compared."""
    assert near("ab" * 500_000, ["ba" * 500_000, "face"]) == ""
    assert near("facee", ["x" * 500_000, "face"]) == "face"


_NUMBERS = st.none() | st.booleans() | st.integers() | st.floats() | st.integers(min_value=10**300, max_value=10**400) | st.text()


@given(_NUMBERS)
def test_a_vendors_number_is_bounded(value: object) -> None:
    """Whatever is sent, seconds are from nothing to eleven days and can be computed with, or they are not there."""
    told = seconds(value)
    assert told is None or 0 <= round(told * 1000) <= MOST_S * 1000
    assert moment(value) is None or isinstance(value, str)


@pytest.mark.parametrize("value", [10**400, 1e308, -1, float("nan"), float("inf"), True, "5", None])
def test_what_is_no_number_of_seconds(value: object) -> None:
    """Numbers that nothing lasts, and what is no number."""
    assert seconds(value) is None


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-03-01T10:00:00+02:00", 8),
        ("2026-03-01T10:00:00", 10),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:00:00-12:00", None),
    ],
)
def test_a_vendors_date_is_in_the_calendar(text: str, hour: int | None) -> None:
    """A date is in UTC; one that no calendar has is none."""
    found = moment(text)
    assert (found and found.hour) == hour
    assert found is None or found.tzinfo is datetime.UTC


# --- the door -----------------------------------------------------------------------------------------------------------

SECRET = 's3cr\u00e9t & <key>/"q\'uote"  two'


def _written(secret: str) -> dict[str, str]:
    raw = secret.encode()
    return {
        "as it is": secret,
        "NFD": unicodedata.normalize("NFD", secret),
        "joined": " ".join(secret.split()),
        "JSON": json.dumps(secret)[1:-1],
        "JSON, UTF-8": json.dumps(secret, ensure_ascii=False)[1:-1],
        "HTML": html.escape(secret),
        "XML": saxutils.quoteattr(secret)[1:-1],
        "URL": quote(secret, safe=""),
        "form": quote_plus(secret),
        "Python": repr(secret)[1:-1],
        **{f"base64 behind {n}": base64.b64encode(b"x" * n + raw + b"yz").decode() for n in range(4)},
        "base64 for URLs": base64.urlsafe_b64encode(raw).decode(),
    }


@pytest.mark.parametrize("how", _written(SECRET))
def test_a_secret_is_hidden_however_it_is_written(how: str) -> None:
    """In both normal forms, with its white space joined, and as every encoding writes it."""
    text = f"before {_written(SECRET)[how]} after"
    shown = Redactor([SECRET])(text)
    assert "***" in shown
    assert shown.startswith("before ")
    core = _written(SECRET)[how][8:-8]
    assert core not in shown


@pytest.mark.parametrize("cls", list(runlog._NAMES), ids=lambda cls: cls.__name__)
def test_a_secret_in_every_field_of_every_entry_stays_out_of_the_log(cls: type, tmp_path: Path) -> None:
    """Whatever text an event, a command or a note has: only ids and the names of sources, which come from no text, stand as they are."""
    ids = {"step", "task", "audio_sha256", "source"}
    values: dict[str, object] = {}
    for each in dataclasses.fields(cls):
        kind = str(each.type)
        if "str" in kind and "Literal" not in kind and each.name not in ids:
            values[each.name] = f"{each.name} {SECRET}"
        elif each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING:
            values[each.name] = _some(each)
    log = runlog.RunLog(tmp_path / "run.jsonl", redact=Redactor([SECRET]))
    log.write([cls(**values)], 0)
    log.close()
    text = (tmp_path / "run.jsonl").read_text("utf-8")
    assert [how for how, form in _written(SECRET).items() if form in text] == []


def _some(each: dataclasses.Field) -> object:
    """A value for a field that is no free text."""
    names = vars(events) | {"Evidence": Evidence}
    kind = str(each.type).split(" | ")[0]
    found = names.get(kind)
    if isinstance(found, type) and issubclass(found, enum.Enum):
        return next(iter(found))
    return {"int": 1, "bool": True}.get(kind, "id")


def test_data_loses_its_secrets_before_it_is_encoded() -> None:
    """Every text within, however deep; numbers, truth values and keys stay, so that a short secret breaks no format."""
    change = Change("content", "hello", "the text", "it is 1", "it is 2")
    told = {"reasons": ("1 is wrong",), "changes": (change,), "values": {"pin": "1"}}
    result = Result(name="show[1]", file="show.yaml", repetition=1, status="failed", **told)
    clean = Redactor(["1"]).data([{"results": (result,), "n": 1, "ok": True, "1": None}])
    (shown,) = clean[0]["results"]
    assert (shown.name, shown.reasons, shown.values, shown.changes[0].a) == ("show[***]", ("*** is wrong",), {"pin": "***"}, "it is ***")
    assert (shown.repetition, clean[0]["n"], clean[0]["ok"], "1" in clean[0]) == (1, 1, True, True)


@pytest.mark.parametrize("room", range(270, 320, 7))
def test_what_is_quoted_is_redacted_then_cut(room: int) -> None:
    """Wherever the cut falls, and however its white space is written, no part of a secret is quoted."""
    shown = quoted("x" * room + "\n" + SECRET.replace("  ", " \n ") + SECRET, Redactor([SECRET, " ".join(SECRET.split())]))
    assert len(shown) <= 300
    assert "s3cr" not in shown


def test_what_could_steer_a_screen_is_shown_by_its_number() -> None:
    """Joiners of Persian, Hindi and emoji stay; what moves a cursor or turns the direction of writing does not."""
    for text in ("می\u200cخواهم", "क्\u200dष", "👩\u200d🚀", "a\u00a0b", "שלום\u200f", "x\u00ad"):
        assert printable(text) == text
    assert printable("a\x1b[31m\u202eb\u2066c\x9bd\ud800") == "a⟨U+001B⟩[31m⟨U+202E⟩b⟨U+2066⟩c⟨U+009B⟩d⟨U+D800⟩"
    assert printable("a\tb\nc") == "a b c"
    assert printable("a\tb\nc\r", "\t\n") == "a\tb\nc⟨U+000D⟩"


def test_a_screen_gets_our_colours_and_nothing_else() -> None:
    """On a terminal the colours that we write stay; elsewhere nothing that could steer one comes through."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    text = "\x1b[1;31mred\x1b[0m \x1b]0;owned\x07\u202e"
    assert options.shown(text, Screen()) == "\x1b[1;31mred\x1b[0m ⟨U+001B⟩]0;owned⟨U+0007⟩⟨U+202E⟩"
    assert "\x1b" not in options.shown(text, io.StringIO())
    assert json.loads(options.as_json({"a": "\u202e\x1b \x9b 😀\u200d"})) == {"a": "\u202e\x1b \x9b 😀\u200d"}
    assert options.as_json({"a": "\u202e\x1b\x9b"}, None) == '{"a": "\\u202e\\u001b\\u009b"}'


def test_a_cassette_has_no_credential_by_name_or_by_look(tmp_path: Path) -> None:
    """Tokens in addresses, their users, TURN's names, signatures; and while it is recorded, nobody else may read it."""
    path = tmp_path / "tape.jsonl"
    with Cassette(path, "all") as cassette:
        cassette.write(
            {
                "whep": "https://media.example/whep?token=SECRET-1&x=1",
                "turn": {"username": "1700:SECRET-2", "credential": "SECRET-3", "urls": ["turn:u:SECRET-4@h:1"]},
                "ws": "wss://user:SECRET-5@h/x",
                "sig": "SECRET-6",
                "X-Amz-Signature": "SECRET-7",
                "href": "https://s3/x?X-Amz-Signature=SECRET-8#access_token=SECRET-9",
                "username": "ada",
            }
        )
        assert stat.S_IMODE((tmp_path / "tape.jsonl.part").stat().st_mode) == 0o600
    text = path.read_text("utf-8")
    assert re.findall(r"SECRET-\d", text) == []
    assert '"ada"' in text
    assert "x=1" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


VARS = [
    'pin: "S3CRET\n',
    "pin: S3CRET\npin: S3CRET\n",
    "pni: S3CRET\n",
    "pin:S3CRET\n",
    "pin: x\n\tobj: S3CRET\n",
    "a: &a {k: S3CRET}\npin: {<<: *a}\n",
    "pin: [S3CRET]\n",
    "pin: {k: S3CRET}\n",
    "number: S3CRET\n",
    "pin: a #S3CRET\n",
    "pin: x\n---\npin: S3CRET\n",
    'pin: "{{ S3CRET }}"\n',
    "pin: !S3CRET x\n",
    "S3CRET\n",
    "pin: *S3CRET\n",
]


@pytest.mark.parametrize("text", VARS)
def test_no_line_of_a_file_of_variables_is_shown(text: str, shell: Shell) -> None:
    """It may hold secrets, declared as such or not; where the mistake is, is said."""
    shell.write(
        "show.yaml", "version: 1\nprovider: local\nvars: {pin: {type: string}, number: {type: integer}}\ntimeline:\n  - say: Hello.\n"
    )
    shell.write("v.yaml", text)
    for more in ((), ("--json",)):
        done = shell.call("check", "show.yaml", "--vars", "v.yaml", *more)
        assert "S3CRET" not in done.out + done.err
        assert done.code in (0, 3)


def test_variables_come_on_standard_input(shell: Shell) -> None:
    """`--vars -` is the way in for a secret that must stand in no list of processes and in no file."""
    declared = "vars: {who: {type: string, required: true}}\n"
    shell.write("show.yaml", f"version: 1\nprovider: local\n{declared}timeline:\n  - say: Hello {{{{ who }}}}.\n")
    command = [sys.executable, "-m", "playbook", "plan", "show.yaml", "--vars", "-", "--json"]
    done = subprocess.run(command, input="who: Ada", env=shell.env, capture_output=True, text=True, check=True)
    assert "Hello Ada." in done.stdout


def test_a_trigger_whose_name_is_secret(shell: Shell) -> None:
    """It is nowhere in the run's folder or on the screen, and the log is replayed with the value."""
    declared = "vars: {code: {type: string, secret: true, required: true}}\n"
    play = f"version: 1\nname: show\nprovider: local\n{declared}timeline:\n  - say: Tell me.\n"
    shell.write("show.yaml", play + '    until: accepted\n  - wait: {event: "{{ code }}"}\n  - say: Right.\n')
    done = shell.call("run", "show.yaml", "--clock", "virtual", "--var", "code=swordfish", "--trigger", "swordfish@3s", "--out", "here")
    assert done.code == 0
    assert "swordfish" not in done.out + done.err + "".join(path.read_text("utf-8", "replace") for path in Path("here").iterdir())
    assert shell.call("replay", "here", "--var", "code=swordfish").code == 0
    stalled = shell.call("run", "show.yaml", "--clock", "virtual", "--var", "code=swordfish", "--out", "there")
    assert stalled.code == 1
    assert "swordfish" not in stalled.out + stalled.err


def test_the_state_of_a_stage_has_no_secret(tmp_path: Path) -> None:
    """Names of steps and of triggers are shown to whoever runs the show, and are no less secret than what is said."""
    path = tmp_path / "show.yaml"
    steps = '  - {say: "The code is {{ code }}.", name: "tells {{ code }}"}\n  - wait: {event: "{{ code }}"}\n'
    path.write_text(f"version: 1\nprovider: local\nvars: {{code: {{type: string, secret: true, required: true}}}}\ntimeline:\n{steps}")
    plan = compile_file(path, FakeWorld(), Inputs(var={"code": "swordfish"}))
    board = Board()
    board.load(plan)
    board.take({"n": 1, "at_ms": 0, "note": "timeline_zero"})
    board.take({"n": 2, "at_ms": 5, "note": "step_started", "step": plan.steps[1].id})
    state = board.to_json()
    assert "swordfish" not in json.dumps(state)
    assert (state["awaits"], state["steps"][0]["name"]) == ("***", "tells ***")
