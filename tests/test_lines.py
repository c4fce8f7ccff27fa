"""Lines as a table: listed, translated, performed in another language; and playbooks begun from what people have."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbook.formats.findings import Findings
from playbook.formats.table import parse_table
from playbook.language.lines import COLUMNS, sha256_of

from .commands import Shell

SHOW = """\
version: 1
name: show
provider: local
vars:
  visitor: {type: string, default: Ada}
  rooms: {type: array, default: [hall, attic]}
timeline:
  - say: "Welcome, {{ visitor }}."
    id: hello
  - say: {text: "There is more, \\"much\\" more.", voice: en-gb}
  - say: {chunks: ["One, ", {wait: 300ms}, "two."]}
    id: count
  - include: room.yaml
    foreach: "{{ rooms }}"
    as: room
    with: {room: "{{ room }}"}
  - say: Never.
    when: false
"""
ROOM = """\
vars: {room: {type: string, required: true}}
timeline:
  - say: "This is the {{ room }}."
"""
IDS = ["hello", "say-2", "count#1", "count#2", "include-4/say-1", "say-5"]


@pytest.fixture
def show(shell: Shell) -> Shell:
    shell.write("show.yaml", SHOW)
    shell.write("room.yaml", ROOM)
    return shell


def rows(shell: Shell, *more: str) -> list[dict[str, str]]:
    done = shell.call("lines", "show.yaml", "--csv", *more)
    assert done.code == 0, done.err
    return list(csv.DictReader(io.StringIO(done.out)))


def write(shell: Shell, name: str, table: list[dict[str, str]], delimiter: str = ",", encoding: str = "utf-8") -> None:
    with (shell.folder / name).open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(table)


def test_every_line_is_listed_once_as_it_is_written(show: Shell):
    """With its templates, whatever loops make of it, also when it is skipped; the hash is that of the text; JSON says the same."""
    table = rows(show)
    assert [row["id"] for row in table] == IDS
    assert table[0]["text"] == "Welcome, {{ visitor }}."
    assert [row["voice"] for row in table] == ["", "en-gb", "", "", "", ""]
    assert all(row["source_sha256"] == sha256_of(row["text"]) and row["characters"] == str(len(row["text"])) for row in table)
    assert int(table[0]["start_ms"]) == 0 < int(table[1]["start_ms"])
    assert int(table[0]["length_ms"]) > 500
    listed = json.loads(show.call("lines", "show.yaml", "--json").out)["lines"]
    assert [{key: str(value) for key, value in row.items()} for row in listed] == table
    assert "Welcome, {{ visitor }}." in show.call("lines", "show.yaml").out


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-8")])
def test_a_translated_table_is_said_in_place_of_the_texts(show: Shell, delimiter: str, encoding: str):
    """By `--lines` or by `lines:`; templates are rendered, loops have them in each round, pauses between pieces stay."""
    german = {
        "hello": "Willkommen, {{ visitor }}.",
        "say-2": 'Es gibt mehr; "viel" mehr,\nwirklich.',
        "count#1": "Eins, ",
        "count#2": "zwei.",
        "include-4/say-1": "Hier ist der Raum {{ room }}.",
        "say-5": "Nie.",
    }
    write(show, "de.csv", [{**row, "text": german[row["id"]]} for row in rows(show)], delimiter, encoding)
    plan = json.loads(show.call("plan", "show.yaml", "--lines", "de.csv", "--json").out)
    said = {step["id"]: [chunk["text"] for chunk in step["say"]["chunks"]] for step in plan["steps"] if "say" in step}
    assert said == {
        "hello": ["Willkommen, Ada."],
        "say-2": [german["say-2"]],
        "count": ["Eins, ", "zwei."],
        "include-4.1/say-1": ["Hier ist der Raum hall."],
        "include-4.2/say-1": ["Hier ist der Raum attic."],
        "say-5": ["Nie."],
    }
    assert next(step for step in plan["steps"] if step["id"] == "count")["say"]["chunks"][1]["after_ms"] == 300
    show.write("own.yaml", SHOW.replace("name: show\n", "name: show\nlines: de.csv\n"))
    own = json.loads(show.call("plan", "own.yaml", "--json").out)
    assert own["plan_sha256"] == plan["plan_sha256"]
    done = show.call("run", "own.yaml", "--clock", "virtual", "--out", "run")
    assert done.code == 0, done.err
    assert "Willkommen, Ada." in (show.folder / "run" / "captions.vtt").read_text("utf-8")


def test_a_text_that_has_changed_since_is_a_warning_and_an_error_with_strict(show: Shell):
    """The hash in the table is that of the text that was translated."""
    write(show, "de.csv", rows(show))
    assert show.call("check", "show.yaml", "--lines", "de.csv", "--strict").code == 0
    show.write("show.yaml", SHOW.replace("Never.", "Nevermore."))
    done = show.call("check", "show.yaml", "--lines", "de.csv")
    assert done.code == 0
    assert "PB445" in done.out
    assert "de.csv:7:" in done.out
    assert show.call("check", "show.yaml", "--lines", "de.csv", "--strict").code == 3


def test_a_table_that_is_not_there_is_wrong_usage(show: Shell):
    """On the command line; what a playbook names is a problem of the playbook."""
    assert show.call("check", "show.yaml", "--lines", "gone.csv").code == 2
    assert show.call("lines", "gone.yaml").code == 2


def test_ids_that_a_table_depends_on_are_named(show: Shell):
    """`check` names lines that are called by their place, where a table is used."""
    write(show, "de.csv", rows(show))
    done = show.call("check", "show.yaml", "--lines", "de.csv")
    assert "show.yaml: give ids to say-2, include-4/say-1, say-5" in done.out
    assert "give ids" not in show.call("check", "show.yaml").out


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("notes.txt", 'Welcome: to the #1 museum.\n\n  {braces} and "quotes"  \n', ["Welcome: to the #1 museum.", '{braces} and "quotes"']),
        ("lines.csv", "\ufeffsep=;\nid;text;voice\nhello;Hallo.;de\n;;\n2;Zwei;\n", ["Hallo.", "Zwei"]),
    ],
)
def test_a_playbook_is_begun_from_what_people_have(shell: Shell, name: str, text: str, said: list[str]):
    """A text with a line on each line, or a table: the playbook is good, and says exactly that."""
    shell.write(name, text)
    assert shell.call("new", "begun.yaml", "--from", name).code == 0
    done = shell.call("lines", "begun.yaml", "--json")
    assert [row["text"] for row in json.loads(done.out)["lines"]] == said
    if name.endswith(".csv"):
        assert [(row["id"], row["voice"]) for row in json.loads(done.out)["lines"]] == [("hello", "de"), ("say-2", "")]


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("empty.txt", b" \n\n", 2),
        ("gone.txt", None, 2),
        ("bad.csv", b"name\nx\n", 3),
        ("latin.csv", b"id,text\na,\xe4\n", 3),
    ],
)
def test_what_cannot_be_begun_from_is_said(shell: Shell, name: str, text: bytes | None, code: int):
    """Nothing is written then."""
    if text is not None:
        (shell.folder / name).write_bytes(text)
    done = shell.call("new", "begun.yaml", "--from", name)
    assert (done.code, (shell.folder / "begun.yaml").exists()) == (code, False)
    assert name in done.err


_cells = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")) | st.sampled_from('",;\n\t'), max_size=12)


@given(st.lists(st.lists(_cells, min_size=3, max_size=3), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_what_csv_writes_is_read_with_the_place_of_each_cell(table: list[list[str]], delimiter: str):
    """Whatever stands in the cells, and whichever character parts them: the same cells, each where it stands."""
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL)
    writer.writerows([["id", "text", "note"], *table])
    findings = Findings()
    found = parse_table(written.getvalue().encode(), Path("x.csv"), "x.csv", findings, ("id", "text"))
    assert found is not None, findings.report("x.csv")
    expected = [row for row in table if any(cell.strip() for cell in row)]
    assert [[cell.data for cell in row.values()] for row in found.rows] == expected
    for row in found.rows:
        for cell in row.values():
            assert cell.raw.strip('"').replace('""', '"') == cell.data.strip('"')
            assert cell.place.line >= 2
