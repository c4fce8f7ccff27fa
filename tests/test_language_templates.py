"""Templates: as Jinja means them, strict, bounded, and deaf to everything but plain data."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import StrictUndefined, Undefined, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from playbook.formats.findings import Findings
from playbook.formats.source import Node, parse
from playbook.language.render import Abandoned, Renderer
from playbook.language.sandbox import FILTERS, METHODS, TESTS
from playbook.language.scope import Scope
from playbook.language.templates import Budget

BROKEN = object()
"""Stands for no value."""
VALUES: dict[str, Any] = {
    "name": "Ada",
    "n": 3,
    "x": 2.5,
    "yes": True,
    "rooms": ["atrium", "library"],
    "room": {"title": "Atrium", "floor": 1, "items": "two"},
    "pin": "hush-hush",
}


def render(text: str, **more: Any) -> tuple[Any, list[tuple[str, str]]]:
    """What a scalar gives, and its problems."""
    findings = Findings()
    node = Node(*_document(text, findings))
    node.templated = True
    renderer = Renderer(Scope({**VALUES, **more}, secret=frozenset({"pin"})), findings, Budget())
    value = BROKEN
    with contextlib.suppress(Abandoned):
        value = renderer.render(node)
    if renderer.broken:
        value = BROKEN
    return value, [(problem.code, problem.message) for problem in findings.report("x.yaml")]


def _document(text: str, findings: Findings) -> tuple[Any, int, int, str]:
    root = parse(b"x", Path("x.yaml"), "x.yaml", findings)
    assert root is not None
    return root.document, 0, 1, text


def codes(text: str) -> list[str]:
    return [code for code, _ in render(text)[1]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ n }}", 3),
        ("{{ n + 1 }}", 4),
        ("{{ x }}", 2.5),
        ("{{ yes }}", True),
        ("{{ not yes }}", False),
        ("{{ rooms }}", ["atrium", "library"]),
        ("{{ (1, 2) }}", [1, 2]),
        ("{{ room }}", VALUES["room"]),
        ("{{ {'a': [n]} }}", {"a": [3]}),
        ("{{ none }}", None),
        ("{{ n }} ", "3 "),
        ("{{ n }}{{ n }}", "33"),
        ("no. {{ n }}", "no. 3"),
        ("{{ room.items }}", "two"),
        ("{{ room['floor'] }}", 1),
        ("{{ rooms[0] }} {{ rooms[-1][:3] }}", "atrium lib"),
        ("{{ 'a' if n > 2 else 'b' }}", "a"),
        ("{{ nothing | default('x') }}", "x"),
        ("{{ '{{' }} is text", "{{ is text"),
        ("}} is text, {{ n }}", "}} is text, 3"),
        ("{# a remark #}{{ n }}", 3),
        ("a {{- n -}} b", "a3b"),
        ("{{ name\n}}", "Ada"),
        ("{{ rooms | join(', ') | upper }}", "ATRIUM, LIBRARY"),
        ("{{ [room] | join(' ', attribute='title') }}", "Atrium"),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ name.upper() ~ '!' * n }}", "ADA!!!"),
        ("{{ 1 < n <= 3 and 'a' in name.lower() }}", True),
        ("{{ n is odd and nothing is undefined }}", True),
    ],
)
def test_expressions_give_values_and_keep_their_types(text: str, value: object):
    """One whole expression keeps its type; among text it becomes text; braces in a string are a string."""
    findings = Findings()
    node = Node(*_document(text, findings))
    node.templated = True
    found = Renderer(Scope(VALUES, empty=frozenset({"nothing"})), findings, Budget()).render(node)
    assert found == value
    assert type(found) is type(value)


_atoms = st.sampled_from(
    [
        "n",
        "x",
        "yes",
        "name",
        "rooms",
        "room",
        "1",
        "0",
        "-2",
        "2.5",
        "'a'",
        "''",
        "true",
        "none",
        "[1, 2]",
        "{'a': 1}",
        "rooms[1]",
        "room.title",
    ]
)


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "and", "or", "in", "not in"])
    filters = st.sampled_from(
        ["upper", "title", "length", "first", "last", "list", "int", "float", "string", "sum", "min", "abs", "round", "unique | list"]
    )
    tests = st.sampled_from(["defined", "none", "string", "number", "odd", "mapping", "sequence", "true", "boolean"])
    return st.one_of(
        st.builds("({} {} {})".format, inner, operators, inner),
        st.builds("({} | {})".format, inner, filters),
        st.builds("({} is {})".format, inner, tests),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("(not {})".format, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("{}[{}]".format, inner, st.sampled_from(["0", "-1", "1:", "'a'", "'title'"])),
    )


@given(st.recursive(_atoms, _compound, max_leaves=6))
@settings(max_examples=200)
def test_the_evaluator_means_what_jinja_means(expression: str):
    """Where both give a value, it is the same value; where Jinja fails, so do we. (We may refuse more: text formatting, too much.)"""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    ours, problems = render("{{ " + expression + " }}")
    try:
        theirs = _as_data(environment.compile_expression(expression, undefined_to_none=False)(**VALUES))
        str(theirs)
    except Exception:  # whatever it is, it is no value
        assert problems
        return
    if problems and callable(theirs):  # a method; we have none but in calls
        assert [code for code, _ in problems] == ["PB302"]
    elif problems:
        assert {code for code, _ in problems} <= {"PB305", "PB306", "PB307"}
    else:
        assert ours == theirs


def _as_data(value: Any) -> Any:
    """Jinja's value as plain data; an undefined one, wherever it is, is none."""
    if isinstance(value, Undefined):
        raise UndefinedError(value._undefined_message)
    if isinstance(value, (list, tuple)):
        return [_as_data(each) for each in value]
    return {key: _as_data(each) for key, each in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(
    "text",
    [
        "{{ a }}b{{ c }}",
        "{{a}}{{ b|upper }}",
        "x {{ a.b }} }} y",
        "{{ a\n }}\n",
        "{{-a}}",
        "{{a-}} b",
        "{{ 1 }}{{ 'x}}' }}",
        "{{{a}}}",
        "{{ a }}\r\n",
    ],
)
def test_the_shortcut_sees_what_jinja_sees(text: str):
    """Cutting a scalar into expressions by ourselves, where it is certain, gives the pieces that Jinja gives."""
    env = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    try:
        pieces = [
            piece if isinstance(piece, str) else "<" + ",".join(sorted(piece.names)) + ">" for piece in Budget().take_apart(text).pieces
        ]
    except Exception:  # refused by the shortcut's own rules or by Jinja's: then Jinja refuses it too, as a template or as data
        assert text == "{{{a}}}"
        return
    values = {name: f"<{name}>" for name in "abc"} | {"a": "<a>"}
    if "." not in text and "|" not in text and "{{ 1 }}" not in text:
        assert "".join(pieces) == env.from_string(text).render(values)
    else:
        assert [piece for piece in pieces if piece.startswith("<")] or "{{ 1 }}" in text


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ [0] * 10**9 }}",
        "{{ [[[[['a' * 1000] * 100] * 100] * 100] * 100] }}",
        "{{ range(10**9) | list }}",
        "{{ range(0, 10**18, 1) }}",
        "{{ 2 ** (10**9) }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ (10**70) * (10**70) }}",
        "{{ ('a' * 1000).replace('a', 'b' * 1000) }}",
        "{{ ('a' * 1000) | replace('a', 'b' * 1000) }}",
        "{{ ('a' * 1000) | replace(old='a', new='b' * 1000) }}",
        "{{ 1 | replace(1, 'b' * 99999) ~ 'x' * 99999 }}",
        "{{ ('a' * 1000) | replace('', 'b' * 1000) }}",
        "{{ range(1000) | join('b' * 1000) }}",
        "{{ ('b' * 1000).join(['a'] * 1000) }}",
        "{{ 'a' * 99999 ~ 'a' * 99999 }}",
        "{{ 'a' * 99999 + 'a' * 99999 }}",
        "{{ 1.5 | round(10**9) }}",
        "{{ 1" + "0" * 5000 + " }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "-" * 9000 + "1 }}",
        "{{ " + "not " * 4000 + "1 }}",
        "{{ n" + ".a" * 9000 + " }}",
        "{{ '" + "a" * 30_000 + "' }}",
        "{{ 'a' * 60000 }}{{ 'a' * 60000 }}",
    ],
)
def test_what_asks_for_too_much_ends_at_once(text: str):
    """Loops, towers and giants end in a problem, not in a long wait or a full memory."""
    assert set(codes(text)) <= {"PB307", "PB301", "PB302"}
    assert codes(text)


OPERATIONS = [
    *(f"words | {name}" for name in ("sum", "min", "max", "unique", "sort", "reverse", "join", "list", "string", "sum(attribute='a')")),
    *(f"text | {name}" for name in ("upper", "title", "wordcount", "list", "trim", "replace('a', 'b')", "int", "float", "length ~ text")),
    *(f"text.{name}" for name in ("count('b')", "find('b')", "split('a')", "upper()", "strip()", "startswith('b')", "join('ab')")),
    *("'b' in words", "words == words + []", "text[::-1]", "words[1:]", "words ~ ''", "(words or [])", "words if true else 0", "(words)"),
    *("range(9999) | last", "text is lower", "words is eq(words)", "words * 2", "[words, words]", "{'a': words}.items()"),
]


@pytest.mark.parametrize("expression", OPERATIONS)
def test_everything_that_is_gone_through_counts(expression: str):
    """No operation on large values is free, also one that makes little of them: a playbook that repeats it comes to an end."""
    numbers = "sum" in expression
    scope = Scope(
        {"text": "a" * 9_000, "words": [{"a": 1}] * 3_000 if "'a')" in expression else list(range(9_000)) if numbers else ["a"] * 9_000}
    )
    findings = Findings()
    node = Node(*_document("{{ " + expression + " }}", findings))
    node.templated = True
    renderer = Renderer(scope, findings, Budget(work=1_000_000))
    with pytest.raises(Abandoned):
        [renderer.render(node) for _ in range(250)]
    assert [problem.code for problem in findings.report("x.yaml")] == ["PB307"]


@pytest.mark.parametrize(
    "text",
    [
        "{{ n }}" * 2_000,
        "{{ n ~ n }} and {{ n }}.",
        "{{ long }} and so on",
        "{{ [" + "n, " * 500 + "] | length }}",
        "{{ nobody }}",
        "{{ 1 / 0 }}",
    ],
    ids=["names", "expressions", "text", "operations", "undefined", "cannot be computed"],
)
def test_what_a_loop_repeats_counts(text: str):
    """Nor is a scalar free that is cheap once, or one that is wrong, when a loop makes it again and again."""
    findings = Findings()
    node = Node(*_document(text, findings))
    node.templated = True
    renderer = Renderer(Scope({"n": 1, "long": "a" * 5_000}), findings, Budget(work=1_000_000))

    with pytest.raises(Abandoned):
        [renderer.render(node) for _ in range(10_000)]


def test_many_templates_together_are_bounded():
    """A thousand lines that are each within bounds are too much together."""
    findings = Findings()
    node = Node(*_document("{{ 'a' * 50000 }}", findings))
    node.templated = True
    renderer = Renderer(Scope(), findings, Budget(work=1_000_000))
    with pytest.raises(Abandoned):
        [renderer.render(node) for _ in range(1000)]
    assert [problem.code for problem in findings.report("x.yaml")] == ["PB307"]


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ name.__class__.__mro__[1].__subclasses__() }}",
        "{{ name['__class__'] }}",
        "{{ rooms | join(attribute='__class__') }}",
        "{{ rooms | join(attribute='upper') }}",
        "{{ [room] | join(attribute='keys') }}",
        "{{ rooms | join('', 'upper') }}",
        "{{ [room] | sort(attribute='title.upper') }}",
        "{{ rooms | min(false, 'upper') }}",
        "{{ [room] | sum('keys') }}",
        "{{ name | attr('upper') }}",
        "{{ name.format() }}",
        "{{ '%s' % name }}",
        "{{ '%s' | format(name) }}",
        "{{ rooms | map('upper') | list }}",
        "{{ name.encode() }}",
        "{{ self }}",
        "{{ loop }}",
        "{{ cycler(1) }}",
        "{{ lipsum() }}",
        "{{ namespace(a=1) }}",
        "{{ dict(a=1) }}",
        "{{ name.upper }}",
        "{{ room.keys }}",
        "{{ rooms.append('x') }}",
        "{{ room.update({}) }}",
        "{{ rooms | random }}",
        "{{ name | pprint }}",
        "{{ name(1) }}",
        "{{ rooms[0](1) }}",
        "{{ range }}",
        "{{ (-8) ** 0.5 }}",
        "{{ 1e308 * 10 }}",
        "{{ [[1]] | sum(start=[]) }}",
        "{{ {1: 2} }}",
        "{% set a = 1 %}",
        "{% raw %}{{ x }}{% endraw %}",
        "{{ _ }}",
        "{{ name.upper(*rooms) }}",
        "{{ name | default(**room) }}",
        "{{ rooms | length() | foo }}",
        "{{ n is foo }}",
        "{{ caller() }}",
        "{{ 'a'.join(1) }}",
    ],
)
def test_nothing_but_plain_data_can_be_reached(text: str):
    """No attribute, no method beyond the lists, no function, no state, no address in memory: each ends in a problem."""
    value, problems = render(text)
    assert value is BROKEN
    assert problems


@given(st.text(alphabet=st.sampled_from(list("{}%#-+ n.x'\"|()[]*/~:,=<>aio01_\n\\")), max_size=40).map(lambda inner: "{{" + inner + "}}"))
@settings(max_examples=400)
def test_any_template_gives_plain_data_or_a_problem(text: str):
    """Whatever stands between the braces, rendering ends with a value or a problem."""
    value, problems = render(text)
    assert (value is BROKEN) == bool(problems)
    if value is not BROKEN:
        assert _plain(value)


def _plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(each) for key, each in value.items())
    return value is None or type(value) in (str, int, float, bool)


@pytest.mark.parametrize(
    "text",
    [
        "{{ pin + 1 }}",
        "{{ pin | int + 'a' }}",
        "{{ {}[pin] }}",
        "{{ room[pin] }}",
        "{{ (pin ~ 'x').foo }}",
        "{{ [pin].index('a') }}",
        "{{ pin.upper().index('a') }}",
        "{{ pin() }}",
        "{{ 'a' | default(pin, foo=pin) }}",
    ],
)
def test_no_message_tells_a_secret(text: str):
    """A failing template that touches a secret says that it failed, and no more."""
    _, problems = render(text)
    assert problems
    assert "hush" not in str(problems).lower()


def test_the_lists_are_of_what_jinja_has():
    """Filters and tests are Jinja's own; methods are those of plain data."""
    env = ImmutableSandboxedEnvironment()
    assert set(env.filters) >= FILTERS
    assert set(env.tests) >= TESTS
    assert all(any(hasattr(kind, method) for kind in (str, list, dict)) for method in METHODS)
