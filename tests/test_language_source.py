"""Bytes to data: YAML 1.2 core, positions, bounds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbook.formats import findings as collected
from playbook.formats import source
from playbook.formats.findings import Findings
from playbook.formats.source import MAX_ALIASED, Node, Reader, cutting_comment, parse


def read(text: str | bytes, name: str = "x.yaml") -> tuple[Node | None, list[str]]:
    findings = Findings()
    raw = text.encode() if isinstance(text, str) else text
    root = parse(raw, Path(name), "x.yaml", findings)
    return root, [problem.code for problem in findings.report("x.yaml")]


def data(text: str | bytes) -> object:
    root, codes = read(text)
    assert root is not None
    assert codes == []
    return root.data


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("FALSE", False),
        ("TrUe", "TrUe"),
        ("~", None),
        ("null", None),
        ("", None),
        ("012", 12),
        ("0o14", 12),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("-7", -7),
        ("+7", 7),
        ("-", "-"),
        (".", "."),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.5s", "1.5s"),
        ("2026-01-31", "2026-01-31"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("!!int 12", 12),
        ("=", "="),
    ],
)
def test_scalars_are_read_by_the_core_schema(written: str, meant: object):
    """YAML 1.1's surprises (booleans of yes and on, octal 012, sexagesimal 1:30, dates) do not happen."""
    found = data(f"key: {written}\n") if written != "-" else data("key: '-'")
    assert isinstance(found, dict)
    assert found["key"] == meant
    assert type(found["key"]) is type(meant)


def test_json_is_read_as_what_it_is():
    """Files of variables may be JSON."""
    written = {"a": [1, 2.5, None, True, "x\n\u00e9\U0001f600"], "b": {"c": {}}, "d": []}
    root, codes = read(json.dumps(written), "x.json")
    assert root is not None
    assert codes == []
    assert root.data == written


@pytest.mark.parametrize("text", ["\ufeffa: 1\r\nb: x\r\n", "a: 1\nb: x\n", "---\na: 1\nb: x\n...\n", "%YAML 1.2\n---\na: 1\nb: x\n"])
def test_bom_line_ends_and_markers_change_nothing(text: str):
    """A file from another system is the same file."""
    assert data(text) == {"a": 1, "b": "x"}


def test_places_are_right_behind_a_bom_crlf_and_wide_characters():
    """Lines and columns count characters, whatever the bytes were."""
    root, _ = read("\ufefftitle: 日本語\r\nlist:\r\n  - {é: 😀, word: here}\r\n")
    assert root is not None
    word = root.at(["list", 0, "word"])
    assert (word.place.line, word.place.column, word.place.length) == (3, 18, 4)
    assert word.raw == "here"
    assert root.at(["list", 0]).key_place("word").column == 12


def test_a_place_never_reaches_over_its_line():
    """Carets under a block scalar or a mapping stop where the line stops."""
    root, _ = read("a: |\n  one\n  two\nb:\n  c: 1\n  d: 2\n")
    assert root is not None
    assert root.at(["a"]).place.length == 1
    assert root.at(["b"]).place.line == 5
    assert root.place.length == 4


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: [1, 2\n", "PB105"),
        ("a: b: c\n", "PB105"),
        ("a: 1\n\tb: 2\n", "PB106"),
        ("a:\n\t- 1\n", "PB106"),
        ("a: &x 1\nb: *y\n", "PB108"),
        ("&a [*a]", "PB108"),
        ("? [1, 2]\n: x\n", "PB113"),
        ("true: x\n", "PB113"),
        ("~: x\n", "PB113"),
        ("a: .inf\n", "PB114"),
        ("a: -.INF\n", "PB114"),
        ("a: .nan\n", "PB114"),
        ("a: 1e400\n", "PB114"),
        ("a: " + "9" * 6000, "PB114"),
        ("a: 0x" + "f" * 17, "PB114"),
        ("a: !!binary aGk=\n", "PB112"),
        ("a: !!int x\n", "PB112"),
        ("a: !mine x\n", "PB112"),
        ("a: !!set {x}\n", "PB112"),
        ("a: 1\n--- {b: 2}\n", "PB111"),
        ("<<: {a: 1}\n", "PB110"),
        ("# only a remark\n", "PB102"),
        ("   \n\t\n", "PB102"),
        ("", "PB102"),
        (b"\xff\xfea\x00", "PB103"),
        (b"a: \x00", "PB103"),
        (b"a: \xc3\x28", "PB103"),
        (b"a: \xed\xa0\x80", "PB103"),
        (b"a: \x1b[2J", "PB103"),
        ("[" * 10_000, "PB109"),
        ("- " * 10_000, "PB109"),
    ],
)
def test_what_is_not_plain_data_is_refused(text: str | bytes, code: str):
    """Whatever a file may hold, it ends in a problem with a code, and in nothing else."""
    _, codes = read(text)
    assert codes == [code]


def test_what_is_wrong_with_single_values_comes_out_together():
    """A number, a tag or a key that cannot be does not stop the reading; a key that is none goes with its value."""
    root, codes = read("a: 1e400\n1: x\nb: !mine y\nd: [.nan, !!int z, 2]\n")
    assert codes == ["PB114", "PB113", "PB112", "PB114", "PB112"]
    assert root is not None
    assert root.data == {"a": 1, "b": "y", "d": [1, "z", 2]}


@pytest.mark.parametrize(
    ("line", "cut"),
    [
        ("a: Fan #1", "#1"),
        ("a: Fan\t#1", "#1"),
        ("a: Take lift # 3 to the roof.", "# 3 to the roof."),
        ("a: We are # the best!", "# the best!"),
        ("a: Done. #1 wins", "#1 wins"),
        ("a: [x #y\n  ]", "#y"),
        ("a: Hello there # greeting", None),
        ("a: Hello there. # It greets.", None),
        ("a: Lift  # 3 is a comment as people write them", None),
        ("a: Fan #", None),
        ("a: Fan ## 1", None),
        ("a: 'Fan' #1", None),
        ("a: |- #1\n  Fan #1", None),
        ("a: Fan#1", None),
    ],
)
def test_a_comment_is_doubted_only_where_it_reads_like_text(line: str, cut: str | None):
    """Without a space after the #, with a number first, or closed like a sentence; a comment as people write them is none of it."""
    root, codes = read(f"{line}\n")
    assert root is not None
    assert codes == []
    place = cutting_comment(root.at(["a", 0]))
    assert (place and line.split("\n")[0][place.column - 1 :]) == cut


def test_an_alias_may_be_a_key():
    """A key that an alias stands for is text like any other."""
    assert data("- &a '<<'\n- *a : 1\n") == ["<<", {"<<": 1}]


def test_a_quoted_merge_sign_is_a_key():
    """Only the merge key itself is refused, not the two characters."""
    assert data("'<<': 1\n") == {"<<": 1}


def test_all_duplicate_keys_come_out_together():
    """A duplicate key does not stop the reading; the first value stands."""
    root, codes = read("a: 1\nb: {c: 1, c: 2}\na: 3\n")
    assert root is not None
    assert root.data == {"a": 1, "b": {"c": 1}}
    assert codes == ["PB107", "PB107"]


def test_aliases_stand_for_their_anchors_within_a_bound():
    """An alias is the data it names; a bomb is found when it goes off, not when it has."""
    assert data("a: &x [1, {b: 2}]\nc: *x\nd: *x\n") == {"a": [1, {"b": 2}], "c": [1, {"b": 2}], "d": [1, {"b": 2}]}
    many = "a: &x [" + "1," * 999 + "1]\nb: [" + "*x," * (MAX_ALIASED // 1001) + "1]\n"
    assert read(many)[1] == []
    assert read(many.replace("1]\n", "*x]\n", 2))[1] in (["PB108"], ["PB105"])


def test_a_file_is_read_once(tmp_path: Path):
    """A part that is included a thousand times costs one reading."""
    path = tmp_path / "x.yaml"
    path.write_text("a: 1\n")
    reader = Reader(Findings())
    assert reader.read(path, "x.yaml") is reader.read(tmp_path / "." / "x.yaml", "x.yaml")


@given(st.binary(max_size=200))
def test_any_bytes_give_data_or_a_problem(raw: bytes):
    """The reader never raises, and never gives nothing without a reason."""
    root, codes = read(raw)
    assert (root is not None) or codes


_yamlish = st.text(alphabet=st.sampled_from(list("ab1:-?,[]{}#&*!|>'\"%@` \n\t.~<=\\\r\u00e9\u2028\x85\ufeff")), max_size=60)


@given(_yamlish)
def test_anything_like_yaml_gives_data_with_true_places(text: str):
    """Whatever YAML makes of a text: plain data, whose places lie within the text."""
    root, codes = read(text)
    assert (root is not None) or codes
    if root is not None:
        _check(root, text.removeprefix("\ufeff"))


def _check(node: Node, text: str) -> None:
    place = node.place
    assert 0 <= node.start <= node.end <= len(text) + 1
    assert place.line >= 1
    assert place.column >= 1
    if isinstance(node.children, dict):
        assert node.data.keys() == node.children.keys() == node.keys.keys()
        for key, child in node.items():
            assert node.data[key] is child.data
            _check(child, text)
    elif isinstance(node.children, list):
        assert len(node.data) == len(node.children)
        for child in node.entries():
            _check(child, text)
    else:
        assert node.data is None or type(node.data) in (str, int, float, bool)


def test_a_file_of_very_many_values_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Small values take much more memory than their bytes; what an alias repeats is not counted here, it has its own bound."""
    monkeypatch.setattr(source, "MAX_NODES", 100)
    assert read("[" + "1," * 99 + "]")[1] == []
    assert read("[&a [" + "1," * 50 + "]" + ",*a" * 5 + "]")[1] == []
    assert read("[" + "1," * 101 + "]")[1] == ["PB104"]


def test_of_very_many_problems_the_first_are_kept(monkeypatch: pytest.MonkeyPatch):
    """A file of the wrong kind does not fill the memory with what is wrong with it; an error is never lost behind warnings."""
    monkeypatch.setattr(collected, "MAX_PROBLEMS", 10)
    root, codes = read("a: 1\n" * 100)
    assert root is not None
    assert codes == ["PB107"] * 10
    findings = Findings()
    for number in range(100):
        findings.add("PB120", f"doubt {number}", severity="warning")
    findings.add("PB112", "an error")
    findings.add("PB112", "another")
    assert sorted(problem.code for problem in findings.report("x.yaml")) == ["PB112"] + ["PB120"] * 10


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8).filter(lambda key: "{" not in key), inner, max_size=4),
    max_leaves=12,
)


@given(_json)
def test_json_comes_back_unchanged(value: object):
    """Every JSON text is read as the data it stands for."""
    root, codes = read(json.dumps(value), "x.json")
    if codes != ["PB102"]:
        assert root is not None
        assert root.data == value
