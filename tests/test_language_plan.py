"""Playbook to plan: golden plans, ids, loops, conditions, parts, secrets, the digest."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import wave
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbook.errors import AuthorError, Problem, RecordError
from playbook.language import Inputs, check_file, compile_file, cues, digest, plan_from_json, plan_to_json, total_ms
from playbook.model import AudioEcho, End, Plan, Say, Start, Step, Wait, WaitEvent
from tests.world import FakeWorld

GOLDEN = sorted(path.parent for path in (Path(__file__).parent / "golden").glob("*/plan.json"))
HEAD = "version: 1\nprovider: local\n"


def compiled(folder: Path, text: str, inputs: Inputs | None = None, **files: str) -> Plan:
    """The plan of a text, with parts beside it by their names."""
    return compile_file(write(folder, text, **files), FakeWorld(), inputs)


def problems(folder: Path, text: str, inputs: Inputs | None = None, **files: str) -> list[Problem]:
    return list(check_file(write(folder, text, **files), FakeWorld(), inputs)[0])


def write(folder: Path, text: str, **files: str) -> Path:
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(content)
    path = folder / "playbook.yaml"
    path.write_text(text)
    return path


def said(plan: Plan) -> list[str]:
    return [step.action.text for step in plan.steps if isinstance(step.action, Say) and step.skipped is None]


# --- golden plans -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", GOLDEN, ids=lambda path: path.name)
def test_a_playbook_compiles_to_exactly_this_plan(case: Path, monkeypatch: pytest.MonkeyPatch, update_golden: bool):
    """The plan as JSON, digest included, is the one on file, on every machine."""
    monkeypatch.chdir(case)
    plan = compile_file(Path("playbook.yaml"), FakeWorld())
    data = plan_to_json(plan)
    del data["capabilities"]  # the provider's, not the playbook's
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
    if update_golden:
        Path("plan.json").write_text(text)
    assert text == Path("plan.json").read_text()
    assert plan.warnings == ()


def test_there_are_golden_plans():
    """The folder is found."""
    assert {case.name for case in GOLDEN} >= {"museum", "secrets", "every-modifier"}


@pytest.mark.parametrize("case", [case for case in GOLDEN if case.name != "secrets"], ids=lambda path: path.name)
def test_a_plan_comes_back_from_its_json(case: Path, monkeypatch: pytest.MonkeyPatch):
    """What replay reads is what was performed: only the places of sounds and settings, and the warnings, stay away."""
    monkeypatch.chdir(case)
    plan = compile_file(Path("playbook.yaml"), FakeWorld())
    back = plan_from_json(json.loads(json.dumps(plan_to_json(plan))))
    assert back == dataclasses.replace(plan, sounds={}, secrets=frozenset(), warnings=(), written={})
    assert digest(back) == plan.sha256


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"plan": 2}, {"plan": 1}, {"plan": 1, "steps": [{}]}, "plan", {"plan": 1, "name": 1, "steps": 5}],
)
def test_what_is_no_plan_is_refused(data: Any):
    """A damaged plan.json is the record's fault and says so."""
    with pytest.raises(RecordError):
        plan_from_json(data)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), 1),
        (("session",), "words"),
        (("start", "kind"), "soon"),
        (("start", "delay_ms"), -1),
        (("limits", "speech_margin_ms"), "10s"),
        (("limits", "max_cost"), math.nan),
        (("capabilities", "interrupt"), []),
        (("steps", 0, "until"), "acccepted"),
        (("steps", 0, "at_ms"), 10**400),
        (("steps", 0, "timeout_ms"), True),
        (("steps", 0, "length", "ms"), 1.5),
        (("steps", 0, "say", "chunks", 0, "text"), None),
        (("steps", 0, "say", "chunks"), []),
        (("steps", 0, "place", "line"), "8"),
        (("steps", 0, "on_error"), "hope"),
    ],
)
def test_a_plan_with_a_value_of_the_wrong_kind_is_refused(path: tuple[str | int, ...], value: object, tmp_path: Path):
    """A plan that was read is as good as one that was compiled: what relies on it later need not look again."""
    plan = compiled(tmp_path, f"{HEAD}timeline:\n  - {{say: Hello., at: 1s, timeout: 9s}}\n")
    data = holder = json.loads(json.dumps(plan_to_json(plan)))
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(RecordError, match="this is not a plan"):
        plan_from_json(data)


# --- ids, loops, conditions -----------------------------------------------------------------------------------------------


def test_ids_are_stable_names(tmp_path: Path):
    """Verb and place by default; prefixes for includes; numbers for rounds; the closing end is the next step."""
    plan = compiled(
        tmp_path,
        HEAD
        + """timeline:
  - say: a
  - wait: 1s
    repeat: 2
  - say: b
    id: bee
    foreach: [x, y]
  - include: part.yaml
  - include: part.yaml
    id: tour
    repeat: 2
  - include: outer.yaml
""",
        part="timeline:\n  - say: p\n    id: p\n  - wait: 0\n",
        outer="timeline:\n  - include: part.yaml\n",
    )
    assert [step.id for step in plan.steps] == [
        "say-1",
        *("wait-2.1", "wait-2.2"),
        *("bee.1", "bee.2"),
        *("include-4/p", "include-4/wait-2"),
        *("tour.1/p", "tour.1/wait-2", "tour.2/p", "tour.2/wait-2"),
        *("include-6/include-1/p", "include-6/include-1/wait-2"),
        "end-7",
    ]
    assert plan.steps[-1].action == End()
    assert [place.line for place in plan.steps[-2].via] == [14, 2]


def test_a_step_that_is_repeated_no_times_is_skipped(tmp_path: Path):
    """It stays in the plan and says why, as a step whose condition is false; so does what an include would bring."""
    plan = compiled(
        tmp_path,
        HEAD
        + """vars:
  rounds: {type: integer, default: 0}
timeline:
  - say: "{{ rounds / rounds }}"
    repeat: "{{ rounds }}"
  - include: part.yaml
    repeat: 0
  - say: c
""",
        part="timeline:\n  - say: p\n    id: p\n",
    )
    assert [(step.id, step.skipped) for step in plan.steps[:-1]] == [
        ("say-1", "repeat: {{ rounds }} is 0"),
        ("include-2/p", "repeat: 0"),
        ("say-3", None),
    ]


def test_a_false_condition_leaves_the_step_in_the_plan(tmp_path: Path):
    """Skipped steps keep their place and say why; what an include would bring is skipped with it, and need not make sense."""
    plan = compiled(
        tmp_path,
        HEAD
        + """vars:
  rooms: {type: array, default: []}
  guide: {type: string}
timeline:
  - say: "{{ rooms[0] }}"
    when: "{{ rooms | length > 0 }}"
  - say: Your guide is {{ guide }}.
    when: "{{ guide is defined }}"
  - include: part.yaml
    when: false
  - say: "{{ item }}"
    foreach: [one, two]
    when: "{{ item == 'two' }}"
  - wait: "{{ rooms[0].pause }}"
    when: "{{ rooms | length > 0 }}"
""",
        part="timeline:\n  - say: part\n",
    )
    assert [(step.id, step.skipped) for step in plan.steps] == [
        ("say-1", "when: {{ rooms | length > 0 }} is false"),
        ("say-2", "when: {{ guide is defined }} is false"),
        ("include-3/say-1", "when: false"),
        ("say-4.1", "when: {{ item == 'two' }} is false"),
        ("say-4.2", None),
        ("wait-5", "when: {{ rooms | length > 0 }} is false"),
        ("end-6", None),
    ]
    assert said(plan) == ["two"]


def test_an_end_with_a_condition_cuts_the_rest(tmp_path: Path):
    """A short version of a show: what follows an `end` whose condition holds is skipped; without, the show goes on."""
    text = HEAD + "vars:\n  short: {type: boolean, default: false}\ntimeline:\n  - say: a\n  - end:\n    when: '{{ short }}'\n  - say: b\n"
    long = compiled(tmp_path, text)
    assert said(long) == ["a", "b"]
    assert [step.id for step in long.steps] == ["say-1", "end-2", "say-3", "end-4"]
    short = compiled(tmp_path, text, Inputs(var={"short": "true"}))
    assert said(short) == ["a"]
    assert short.steps[-1].skipped == "the show ends with 'end-2'"


def test_parts_see_their_own_variables_and_the_loop(tmp_path: Path):
    """A part has its declared variables, filled by `with`, and the loop's name; nothing else of the playbook."""
    part = "vars:\n  who: {type: string, default: nobody}\ntimeline:\n  - say: '{{ who }} in {{ room }}'\n"
    plan = compiled(
        tmp_path,
        HEAD
        + """vars:
  rooms: {type: array, default: [atrium, library]}
timeline:
  - include: part.yaml
    foreach: "{{ rooms }}"
    as: room
    with: {who: "guest of {{ room }}"}
  - include: part.yaml
    foreach: [cellar]
    as: room
""",
        part=part,
    )
    assert said(plan) == ["guest of atrium in atrium", "guest of library in library", "nobody in cellar"]
    found = problems(tmp_path, HEAD + "vars:\n  room: {type: string, default: x}\ntimeline:\n  - include: part.yaml\n", part=part)
    assert [(problem.code, problem.message) for problem in found] == [("PB302", "'room' is undefined")]


def test_a_part_alone_is_checked_as_far_as_it_can_be(tmp_path: Path):
    """Unknown values excuse what depends on them, and nothing else."""
    text = """vars:
  pause: {type: string, required: true}
  rooms: {type: array}
timeline:
  - wait: "{{ pause }}"
  - say: "{{ room.title }}"
    foreach: "{{ rooms }}"
    as: room
  - include: "parts/{{ pause }}.yaml"
  - say: x
    when: "{{ pause == 'x' }}"
  - include: part.yaml
    with: {who: "{{ pause }}"}
  - wait: soon
  - say: "{{ pause.foo.bar() }}"
"""
    found, plan = check_file(write(tmp_path, text, part="vars:\n  who: {type: integer}\ntimeline:\n  - wait: '{{ who }}'\n"), FakeWorld())
    assert plan is None
    assert [(problem.code, problem.place and problem.place.line) for problem in found] == [("PB208", 14), ("PB305", 15)]


@pytest.mark.parametrize(
    ("step", "code"), [("include: pipe.yaml", "PB115"), ("include: /dev/zero", "PB115"), ("audio-echo: pipe.yaml", "PB404")]
)
def test_what_a_playbook_names_is_a_file(step: str, code: str, tmp_path: Path):
    """A pipe that nobody writes to would be waited for without an end, and a device has none."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (found,) = problems(tmp_path, f"{HEAD}timeline:\n  - {step}\n")
    assert (found.code, "it is no file" in found.message) == (code, True)


def test_what_a_person_names_may_be_a_pipe(tmp_path: Path):
    """`--vars <(…)`, and a playbook on standard input by its name, are read to their ends."""

    def piped(text: str) -> Path:
        reading, writing = os.pipe()
        os.write(writing, text.encode())
        os.close(writing)
        return Path(f"/dev/fd/{reading}")

    file = piped(f"{HEAD}vars: {{who: {{type: string, required: true}}}}\ntimeline:\n  - say: 'Hello, {{{{ who }}}}.'\n")
    assert said(compile_file(file, FakeWorld(), Inputs(files=(piped("who: you\n"),)))) == ["Hello, you."]


def test_a_part_cannot_be_performed(tmp_path: Path):
    """Asked for a plan, a part says what it lacks."""
    with pytest.raises(AuthorError, match="a playbook needs 'provider'"):
        compiled(tmp_path, "timeline:\n  - say: x\n")


def test_rendered_values_become_what_their_place_asks_for(tmp_path: Path):
    """Templates may stand in any value: durations, words, booleans, whole structures."""
    plan = compiled(
        tmp_path,
        HEAD
        + """vars:
  pause: {type: number, default: 1.5}
  slow: {type: boolean, default: true}
  line: {type: object, default: {text: Good evening., voice: en}}
start: "{{ pause * 2 }}s"
limits: {max_duration: "{{ 10 }}m", max_cost: "{{ pause }}"}
name: "show-{{ pause }}"
session: {price_per_minute: "{{ pause / 10 }}"}
timeline:
  - wait: "{{ pause }}"
    repeat: "{{ 1 + 1 }}"
  - say: "{{ line }}"
    until: "{{ 'started' if slow else 'ended' }}"
    on_error: "{{ 'continue' }}"
    at: "{{ pause }}m"
  - end: {drain: "{{ not slow }}"}
""",
    )
    assert plan.name == "show-1.5"
    assert plan.start == Start("delay", 3000)
    assert (plan.limits.max_duration_ms, plan.limits.max_cost) == (600_000, 1.5)
    assert plan.session == {"price_per_minute": 0.15}
    assert [step.action for step in plan.steps[:2]] == [Wait(1500), Wait(1500)]
    line = plan.steps[2]
    assert isinstance(line.action, Say)
    assert (line.action.text, line.action.voice, line.until, line.on_error, line.at_ms) == (
        "Good evening.",
        "en",
        "started",
        "continue",
        90_000,
    )
    assert plan.steps[3].action == End(drain=False)


def test_anchors_and_aliases_make_steps(tmp_path: Path):
    """An alias stands for a whole step; each has its own id."""
    plan = compiled(tmp_path, HEAD + "timeline:\n  - &greet\n    say: Hello.\n  - *greet\n")
    assert [step.id for step in plan.steps] == ["say-1", "say-2", "end-3"]


def test_base64_becomes_a_wav(tmp_path: Path):
    """Samples in the playbook are a sound like any other: WAV bytes, named by their digest, exactly as long as they are."""
    plan = compiled(tmp_path, HEAD + "timeline:\n  - audio-echo: {base64: AAABAAIAAwA=, sample_rate: 8000, format: pcm16}\n")
    action = plan.steps[0].action
    assert isinstance(action, AudioEcho)
    sound = plan.sounds[action.sha256]
    assert isinstance(sound, bytes)
    with wave.open(io.BytesIO(sound)) as file:
        assert (file.getframerate(), file.getnchannels(), file.readframes(9)) == (8000, 1, b"\0\0\1\0\2\0\3\0")
    assert action.duration_ms == 1


# --- where values come from -----------------------------------------------------------------------------------------------


def test_later_sources_win(tmp_path: Path):
    """default < --vars, file after file < environment < --var < the program."""
    text = HEAD + "vars:\n" + "".join(f"  {name}: {{type: string, default: d}}\n" for name in "abcdef")
    text += "timeline:\n  - say: '{{ a }} {{ b }} {{ c }} {{ d }} {{ e }} {{ f }}'\n"
    (tmp_path / "one.yaml").write_text("b: f1\nc: f1\nd: f1\ne: f1\nf: f1\n")
    (tmp_path / "two.json").write_text('{"c": "f2", "d": "f2", "e": "f2", "f": "f2"}')
    inputs = Inputs(
        files=(tmp_path / "one.yaml", tmp_path / "two.json"),
        env={"d": "env", "e": "env", "f": "env", "not_ours": "x"},
        var={"e": "var", "f": "var"},
        values={"f": "program"},
    )
    assert said(compiled(tmp_path, text, inputs)) == ["d f1 f2 env var program"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "007", "007"),
        ("string", "", ""),
        ("integer", "42", 42),
        ("number", "2.5", 2.5),
        ("number", "3", 3),
        ("boolean", "true", True),
        ("array", "[a, 1]", ["a", 1]),
        ("array", '["a", {"b": null}]', ["a", {"b": None}]),
        ("object", "{a: 1}", {"a": 1}),
        ("null", "null", None),
    ],
)
def test_text_from_outside_is_read_as_the_declared_type(tmp_path: Path, kind: str, text: str, value: object):
    """On a command line everything is text; the declaration says what it means."""
    playbook = HEAD + f"vars:\n  v: {{type: '{kind}'}}\ntimeline:\n  - say: x\n    when: '{{{{ v == w }}}}'\n".replace(
        "vars:\n", f"vars:\n  w: {{type: '{kind}'}}\n"
    )
    plan = compiled(tmp_path, playbook, Inputs(var={"v": text}, values={"w": value}))
    assert plan.steps[0].skipped is None


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(("integer", "4.5"), ("integer", "x"), ("integer", ""), ("boolean", "yes"), ("boolean", "1"), ("array", "a"), ("object", "[]")),
        *(("array", "[a"), ("number", "1e400"), ("number", "NaN"), ("null", "x"), ("object", "{a: 1, a: 2}"), ("integer", "!!python/x 1")),
        ("string", "a byte that is not UTF-8: \udcff"),
    ],
)
def test_text_of_another_type_is_a_problem(tmp_path: Path, kind: str, text: str):
    """A value that is not what was declared never gets into a template."""
    found = problems(tmp_path, HEAD + f"vars:\n  v: {{type: '{kind}'}}\ntimeline:\n  - say: 'x {{{{ v }}}}'\n", Inputs(var={"v": text}))
    assert [problem.code for problem in found] == ["PB309"]


def test_another_provider_performs_without_the_settings_of_the_first(tmp_path: Path):
    """--provider leaves the file's session out and says so, yet still judges it by its own provider's schema."""
    text = "version: 1\nprovider: pliable\nsession: {token: abc, say: false}\ntimeline:\n  - say: x\n"
    path = write(tmp_path, text)
    assert [problem.code for problem in check_file(path, FakeWorld())[0]] == ["PB410"]
    plan = compile_file(path, FakeWorld(), provider="local")
    assert (plan.provider, plan.session) == ("local", {})
    assert [problem.code for problem in plan.warnings] == ["PB431"]
    found, none = check_file(write(tmp_path, text.replace("token", "tokn")), FakeWorld(), provider="local")
    assert none is None
    assert "PB203" in {problem.code for problem in found}


# --- secrets --------------------------------------------------------------------------------------------------------------


def test_a_secret_is_spoken_and_never_shown(monkeypatch: pytest.MonkeyPatch):
    """The plan says the true words; its JSON, which is what is written, has none of them in any form."""
    monkeypatch.chdir(Path(__file__).parent / "golden" / "secrets")
    plan = compile_file(Path("playbook.yaml"), FakeWorld())
    assert said(plan)[0] == "Your word is sesame-open, or SESAME-OPEN."
    assert plan.session == {"token": "Bearer sesame-open"}
    assert {"sesame-open", "SESAME-OPEN", "Sesame-Open", "Ada Lovelace", "Grace Hopper"} <= plan.secrets
    shown = [step.action.shown for step in plan.steps if isinstance(step.action, Say)]
    assert shown[:3] == ["Your word is ***, or ***.", "Again: ***", "Welcome, ***."]
    written = json.dumps(plan_to_json(plan)).lower()
    for secret in ("sesame", "lovelace", "hopper"):
        assert secret not in written
    masked = plan_from_json(plan_to_json(plan))
    assert said(masked)[0] == "Your word is ***, or ***."
    assert masked.sha256 == plan.sha256 != digest(masked)


def test_secrets_change_the_digest(tmp_path: Path):
    """The digest is over the true text."""
    text = HEAD + "vars:\n  pin: {type: string, secret: true}\ntimeline:\n  - say: It is {{ pin }}.\n"
    one, two = (compiled(tmp_path, text, Inputs(var={"pin": pin})) for pin in ("1234", "9876"))
    assert one.sha256 != two.sha256


@pytest.mark.parametrize(
    "line",
    [
        "- say: x\n    when: '{{ pin }}'",
        "- wait: '{{ pin }}'",
        "- wait: 'x {{ pin }}'",
        "- say: x\n    until: '{{ pin }}'",
        "- say: x\n    foreach: '{{ pin }}'",
        "- say: x\n    repeat: '{{ pin }}'",
        "- include: '{{ pin }}.yaml'",
        "- audio-echo: '{{ pin }}.wav'",
        "- say: '{{ pin }}'\n    on_error: '{{ pin }}'",
        "- include: part.yaml\n    with: {n: '{{ pin }}'}",
        "- say: '{{ 5 + pin }}'",
        "- say: {voice: '{{ pin }}'}",
    ],
)
@pytest.mark.parametrize("given", ["var", "default"])
def test_no_problem_tells_a_secret(tmp_path: Path, line: str, given: str):
    """Whatever is wrong with it, a secret's value is in no message, remedy or source line."""
    default = ", default: open-sesame" if given == "default" else ""
    variables = f"  pin: {{type: string, secret: true{default}}}\n  n: {{type: integer, secret: true, default: sesame-7}}\n"
    text = HEAD + f"vars:\n{variables}timeline:\n  {line}\n"
    inputs = Inputs(var={"pin": "open-sesame"} if given == "var" else {})
    found = problems(tmp_path, text, inputs, part="vars:\n  n: {type: integer}\ntimeline:\n  - say: x\n")
    assert len(found) >= 2
    assert "sesame" not in str(found)


# --- the digest ------------------------------------------------------------------------------------------------------------

_BASE = HEAD + "timeline:\n  - say: Hello there.\n    until: 2s\n  - wait: 1s\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Hello there.", "Hello  there."),
        ("2s", "2001ms"),
        ("until: 2s", "until: started"),
        ("wait: 1s", "wait: 1.1s"),
        ("wait: 1s", "wait: speech"),
        ("wait: 1s", "wait: 1s\n    timeout: 5s"),
        ("wait: 1s", "wait: 1s\n    on_error: continue"),
        ("wait: 1s", "wait: 1s\n    at: 9s"),
        ("wait: 1s", "wait: 1s\n    id: pause"),
        ("wait: 1s", "wait: 1s\n    when: false"),
        ("wait: 1s", "wait: 1s\n    expect: {absent: late}"),
        ("timeline:", "start: go\ntimeline:"),
        ("timeline:", "session: {rate: 100}\ntimeline:"),
        ("timeline:", "limits: {require_evidence: heard}\ntimeline:"),
        ("timeline:", "expect: {status: passed}\ntimeline:"),
        ("provider: local", "provider: pliable"),
    ],
)
def test_any_change_of_what_is_said_or_when_changes_the_digest(tmp_path: Path, old: str, new: str):
    """Words, times, order, conditions, settings, limits and expectations are all in it."""
    assert compiled(tmp_path, _BASE).sha256 != compiled(tmp_path, _BASE.replace(old, new)).sha256


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("say: Hello there.", 'say: "Hello there."'),
        ("say: Hello there.", "say: >-\n      Hello\n      there."),
        ("say: Hello there.", "say: {text: Hello there.}"),
        ("say: Hello there.", "say: \"{{ 'Hello' }} there.\""),
        ("2s", "2000ms"),
        ("wait: 1s", "wait: 0:01"),
        ("wait: 1s", "wait: 1s\n    name: A pause"),
        ("wait: 1s", "wait: 1s\n    when: true"),
        ("wait: 1s\n", "wait: 1s\n  - end:\n"),
        ("timeline:", "name: other\ndescription: other\n# remark\ntimeline:"),
        ("version: 1\n", "version: 1\r\n"),
        ("timeline:", "vars: {x: {type: string, default: y}}\ntimeline:"),
    ],
)
def test_how_it_is_written_does_not_change_the_digest(tmp_path: Path, old: str, new: str):
    """Quotes, names, remarks, places and ways to write the same leave the digest alone."""
    assert compiled(tmp_path, _BASE).sha256 == compiled(tmp_path, _BASE.replace(old, new)).sha256


def test_a_sound_is_in_the_digest_by_its_content(tmp_path: Path):
    """The same sound under another name is the same show; another sound under the same name is not."""

    def sound(name: str, samples: bytes) -> None:
        with wave.open(str(tmp_path / name), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(samples)

    sound("a.wav", b"\0\0" * 8)
    sound("b.wav", b"\0\0" * 8)
    text = HEAD + "timeline:\n  - audio-echo: a.wav\n"
    first = compiled(tmp_path, text)
    assert compiled(tmp_path, text.replace("a.wav", "b.wav")).sha256 == first.sha256
    assert first.steps[0].length.ms == 1
    sound("a.wav", b"\1\0" * 8)
    assert compiled(tmp_path, text).sha256 != first.sha256


@given(st.text(min_size=1, max_size=30).filter(lambda text: text.strip() and not set(text) & set("{}\x85\u2028\u2029")))
def test_any_text_is_said_as_written(text: str):
    """Every character that is no line break to YAML reaches the plan unchanged, and comes back from JSON."""
    findings, plan = _check_text(text)
    if plan is None:
        assert findings
        return
    assert said(plan) == [text]
    assert plan_from_json(json.loads(json.dumps(plan_to_json(plan)))).steps == plan.steps


def _check_text(text: str) -> tuple[tuple[Problem, ...], Plan | None]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        data = {"version": 1, "provider": "local", "timeline": [{"say": text}]}
        path = Path(folder) / "x.json"
        path.write_bytes(json.dumps(data, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        return check_file(path, FakeWorld())


# --- all together ----------------------------------------------------------------------------------------------------------


def test_a_problem_in_the_ten_thousandth_step_is_found_there(tmp_path: Path):
    """Long files are read to the end, and the place is exact."""
    lines = [f"  - say: Line {number}." for number in range(9_999)]
    found = problems(tmp_path, HEAD + "timeline:\n" + "\n".join([*lines, "  - say: x\n    untill: ended\n"]))
    assert [(problem.code, problem.place and (problem.place.line, problem.place.column)) for problem in found] == [("PB203", (10_004, 5))]


def test_problems_of_all_stages_come_out_together_in_file_order(tmp_path: Path):
    """Schema, templates, durations, sounds, parts: one pass, sorted by line, a part's problems where it is included."""
    found = problems(
        tmp_path,
        HEAD
        + """session: {vioce: en}
vars:
  n: {type: integer, default: x}
timeline:
  - say: "{{ nmae }}"
  - include: part.yaml
  - wait: soon
  - audio-echo: gone.wav
  - say: a
    id: twice
  - say: b
    id: twice
  - say: {txt: "{{ ohter }}"}
""",
        part="timeline:\n  - say: '{{ 1 + }}'\n  - wait: 1s\n    until: x\n",
    )
    lines = [(problem.via[0].line if problem.via else problem.place.line, problem.code) for problem in found if problem.place]
    assert lines == sorted(lines, key=lambda pair: pair[0])
    assert [code for _, code in lines] == [
        "PB203",
        "PB309",
        "PB302",
        "PB301",
        "PB213",
        "PB208",
        "PB404",
        "PB401",
        "PB202",
        "PB203",
        "PB302",
    ]


def test_a_part_included_often_is_wrong_once(tmp_path: Path):
    """The same mistake at the same place is told once, however often the loop goes round."""
    found = problems(tmp_path, HEAD + "timeline:\n  - include: part.yaml\n    repeat: 50\n", part="timeline:\n  - say: '{{ x }}'\n")
    assert len(found) == 1


def test_the_providers_own_problems_come_with_the_rest(tmp_path: Path):
    """A provider may refuse a plan, or doubt it."""

    class Picky(FakeWorld):
        def check(self, plan: Plan) -> list[Problem]:
            return [
                Problem("PB450", f"{step.id} is too short", step.place, severity="warning") for step in plan.steps if step.verb == "wait"
            ]

    plan = compile_file(write(tmp_path, _BASE), Picky())
    assert [problem.message for problem in plan.warnings] == ["wait-2 is too short"]
    assert plan.warnings[0].source == "  - wait: 1s"


# --- cues ------------------------------------------------------------------------------------------------------------------


def test_cues_say_when_each_step_is_due(tmp_path: Path):
    """One cursor: `until` lets it go on early, `at` holds it, an interrupt frees the line, the end waits for the last word."""
    plan = compiled(
        tmp_path,
        "version: 1\nprovider: pliable\nsession: {start_latency_ms: 200}\nstart: 3s\n"
        + """timeline:
  - say: 0123456789
    until: accepted
  - say: "0123456789"
  - wait: 1s
  - say: "01234567890123456789"
    until: 300ms
  - interrupt:
  - say: now
    at: 10s
    until: started
  - wait: {event: go}
  - say: never
    when: false
""".replace("say: 0123456789\n", "say: '0123456789'\n"),
    )
    assert [(cue.step, cue.start_ms, cue.heard_ms, cue.over_ms, cue.next_ms) for cue in cues(plan)] == [
        ("say-1", 0, 200, 700, 0),
        ("say-2", 0, 700, 1200, 1200),
        ("wait-3", 1200, 1200, 2200, 2200),
        ("say-4", 2200, 2400, 3400, 2700),
        ("interrupt-5", 2700, 2700, 2700, 2700),
        ("say-6", 10_000, 10_200, 10_350, 10_200),
        ("wait-7", 10_200, 10_200, 10_200, 10_200),
        ("say-8", 10_200, 10_200, 10_200, 10_200),
        ("end-9", 10_200, 10_200, 10_350, 10_350),
    ]
    assert total_ms(plan) == 13_350
    assert not any(cue.exact for cue in cues(plan))


def test_cues_are_exact_as_long_as_nothing_is_guessed(tmp_path: Path):
    """Waits are exact; after an estimated line, or a trigger, nothing is."""
    plan = compiled(tmp_path, HEAD + "timeline:\n  - wait: 1s\n  - say: x\n    until: 1s\n  - wait: 1s\n  - wait: speech\n")
    assert [cue.exact for cue in cues(plan)] == [True, True, True, False, False]


def test_a_plan_without_steps_ends_at_once(tmp_path: Path):
    """A loop over nothing is no mistake."""
    plan = compiled(tmp_path, HEAD + "timeline:\n  - say: x\n    foreach: []\n")
    assert plan.steps == (Step("end-2", End()),)
    assert total_ms(plan) == 0


def test_a_trigger_may_wait_for_ever(tmp_path: Path):
    """The long form of wait, with and without its bounds."""
    plan = compiled(tmp_path, HEAD + "timeline:\n  - wait: {event: go}\n  - wait: {event: b, timeout: 2, on_timeout: continue}\n")
    assert [step.action for step in plan.steps[:2]] == [WaitEvent("go"), WaitEvent("b", 2000, "continue")]
