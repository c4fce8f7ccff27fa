"""`playbook test --data`: a playbook performed once for every row, and the baselines of rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lxml import etree

from playbook.errors import RecordError
from playbook.record import baseline as baselines
from playbook.record.baseline import Row, Rows
from playbook.record.performance import Act, Performance

from .logs import checked
from .test_diff import HOSTILE, read_page
from .test_suite import GOOD, VARIABLE, junit, perform, results_of, write

SECRET = "vars:\n  pin: {type: string, secret: true, required: true}\n"
PIN = VARIABLE.replace("vars:\n", SECRET).replace("{{ who }}.", "{{ who }}, {{ pin }}.")
FACTS = {"outcome": "done", "evidence": "heard", "interrupted": True}


def data(text: str, name: str = "rows.csv") -> None:
    Path(name).write_text(text)


def says(path: str = "set/var.rows.baseline.yaml") -> list[str]:
    """The words of the first line of every row in a file of baselines."""
    return [row.baseline.steps[0].act.words for row in baselines.read_rows(Path(path)).rows]


def told(results) -> list[tuple[str, str, str]]:
    return [(result["name"], result["status"], result["baseline"]) for result in results["results"]]


# --- the data -------------------------------------------------------------------------------------------------------------


def test_data_rows(shell):
    """Each row is a case of its own, with its own words."""
    write(shell, var=VARIABLE)
    data('who\nAda\n"Grace, who waits"\n')
    results = results_of(shell, "set", "--data", "rows.csv", "--out", "out")
    assert told(results) == [("set/var.yaml[1]", "passed", "none"), ("set/var.yaml[2]", "passed", "none")]
    says = [line["text"] for result in results["results"] for line in checked(Path(result["folder"])) if line.get("command") == "say"]
    assert says == ["Hello, Ada.", "Hello, Grace, who waits."]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbfwho\r\nAda\r\n",
        b"who;id\nAda;first\n",
        b"id\twho\nfirst\tAda\n",
        b'"who", id\n"Ada","first"\n',
        b"who\n\nAda\n\n",
        b"who\nAda",
        b'who,id\nAda,"two\nlines, and "" quotes"\n',
        b"sep=;\r\nwho;id\r\n;\r\nAda;a\r\n ; \r\n",
    ],
)
def test_data_as_programs_write_it(shell, text):
    """A byte order mark, semicolons, tabs, quotes, empty lines, spaces around names and a missing last line break are all fine."""
    write(shell, var=VARIABLE)
    Path("rows.csv").write_bytes(text)
    (result,) = results_of(shell, "set", "--data", "rows.csv", "--out", "out")["results"]
    assert result["status"] == "passed"
    assert result["row"] == {"who": "Ada"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no header"),
        (",\nAda,x\n", "has no header"),
        ("who\n", "has no rows"),
        ("who,\nAda,x\n", "column 2 has no name"),
        ("who, who\nAda,x\n", "two columns are called 'who'"),
        ("who,when\nAda\n", "rows.csv:2: 1 cell, but 2 columns\n  a cell may be empty, but not missing"),
        (
            "who\nAda,x\n",
            "rows.csv:2: 2 cells, but 1 column\n  a value with ',' in it must be in quotes",
        ),
        ('who,when\n"two\nlines",x\nAda\n', "rows.csv:4: 1 cell, but 2 columns"),
        (
            'who\nBob\n"Ada\n',
            "rows.csv:3: the row cannot be read as CSV: unexpected end of data\n  a value that begins with a quote ends with one",
        ),
        ('"who\n', "rows.csv:1: the row cannot be read as CSV"),
        ("who\nZo\xeb\n".encode("latin-1"), "it is not UTF-8"),
        ("id,who\na,Ada\n\nb,Bob\na,Eve\n", "rows.csv:5: the row in line 2 has the id 'a' too"),
        ("id,who\n ,Ada\n", "rows.csv:2: the row has no id"),
    ],
)
def test_bad_data(shell, text, message):
    """Data without header, rows, names, cells or ids of its own are told with their line before anything runs."""
    write(shell, var=VARIABLE)
    Path("rows.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    done = perform(shell, "set", "--data", "rows.csv", "--out", "out")
    assert done.code == 2
    assert message in done.err
    assert not Path("out").exists()


def test_a_column_that_is_missing(shell):
    """A variable that no column gives is a problem of the playbook, with its place; a column that is no variable is one too."""
    write(shell, var=VARIABLE)
    data("visitor\nAda\nBob\n")
    done = perform(shell, "set", "--data", "rows.csv")
    assert done.code == 3
    assert "error: set/var.yaml[1] and 1 more\n" in done.out
    assert done.out.count("PB308") == 1
    assert done.out.count("error[PB310]: no variable 'visitor' is declared (a column of rows.csv)\n") == 1


def test_an_id_names_the_row(shell):
    """A column `id` is what reports and --only call the row; a playbook that declares such a variable gets it, as any other."""
    write(shell, var=VARIABLE, both=VARIABLE.replace("who: ", "id: {type: string}\n  who: ").replace("{{ who }}", "{{ who }} ({{ id }})"))
    data("id,who\nada,Ada\nbob,Bob\n")
    results = results_of(shell, "set", "--data", "rows.csv", "--only", "*bob]", "--out", "out")
    assert [name for name, _, _ in told(results)] == ["set/both.yaml[bob]", "set/var.yaml[bob]"]
    words = [checked(Path(result["folder"])) for result in results["results"]]
    assert [line["text"] for lines in words for line in lines if line.get("command") == "say"] == ["Hello, Bob (bob).", "Hello, Bob."]
    write(shell, both=VARIABLE.replace("who: ", "id: {type: string, secret: true}\n  who: "))
    done = perform(shell, "set", "--data", "rows.csv")
    assert done.code == 2
    assert "in set/both.yaml it is a secret" in done.err


def test_rows_in_workers(shell):
    """Two processes give for rows what one gives."""
    write(shell, var=PIN)
    data("id,who,pin\na,Ada,swordfish-1\nb,Bob,swordfish-2\n")
    assert perform(shell, "set", "--data", "rows.csv", "--update").code == 0
    data("id,who,pin\nb,Bob,swordfish-2\na,Eve,swordfish-1\n")
    alone = results_of(shell, "set", "--data", "rows.csv")["results"]
    done = shell.perform("test", "set", "--data", "rows.csv", "--clock", "virtual", "--jobs", "2", "--json", "--quiet")
    assert done.code == 1
    for result in (together := json.loads(done.out)["results"]) + alone:
        del result["took_ms"], result["folder"]
    assert together == alone
    assert [(result["name"], result["status"]) for result in alone] == [("set/var.yaml[b]", "passed"), ("set/var.yaml[a]", "failed")]


# --- baselines of rows ----------------------------------------------------------------------------------------------------


def test_each_row_has_its_baseline(shell):
    """--update writes one file for the data; later runs compare row by row, whatever the order, also with repetitions and parts."""
    write(shell, var=VARIABLE)
    data("who\nAda\nBob\n")
    done = perform(shell, "set", "--data", "rows.csv", "--update", "--repeat", "2")
    assert done.code == 0
    assert "baseline written: set/var.rows.baseline.yaml (2 rows)" in done.out
    assert says() == ["Hello, Ada.", "Hello, Bob."]
    written = Path("set/var.rows.baseline.yaml").read_text()
    assert "runs: 2" in written
    data("who\nBob\nAda\n")
    results = results_of(shell, "set", "--data", "rows.csv", "--repeat", "2")
    assert {(status, baseline) for _, status, baseline in told(results)} == {("passed", "compared")}
    assert told(results_of(shell, "set", "--data", "rows.csv", "--to-step", "hello"))[0][1:] == ("passed", "compared")
    assert perform(shell, "set", "--data", "rows.csv", "--update", "--repeat", "2").code == 0
    assert Path("set/var.rows.baseline.yaml").read_text() == written
    write(shell, var=VARIABLE.replace("Hello", "Welcome"))
    done = perform(shell, "set", "--data", "rows.csv")
    assert done.code == 1
    assert "hello: words changed: was 'Hello, Ada.', now 'Welcome, Ada.'" in done.out
    assert "hello: words changed: was 'Hello, Bob.', now 'Welcome, Bob.'" in done.out
    assert perform(shell, "set", "--data", "rows.csv", "--no-baseline").code == 0


def test_rows_that_come_and_go(shell):
    """A new row is said to have no baseline, one that is gone is listed as skipped; --update adds the one and takes out the other."""
    write(shell, var=VARIABLE)
    data("who\nAda\nBob\n")
    perform(shell, "set", "--data", "rows.csv", "--update")
    data("who\nEve\nBob\n")
    done = perform(shell, "set", "--data", "rows.csv", "--junit", "j.xml", "--tap", "t.tap", "--html", "p.html")
    assert done.code == 0
    why = "rows.csv has no such row any more; `playbook test --update` takes it out of set/var.rows.baseline.yaml"
    assert f"skipped: {why}\n  set/var.yaml[who=Ada]\n" in done.out
    assert "1 row has no baseline yet, --update adds it: set/var.yaml[1]" in done.out
    junit().assertValid(etree.parse("j.xml"))
    assert etree.parse("j.xml").find("testsuite").get("skipped") == "1"
    assert "# SKIP rows.csv has no such row" in Path("t.tap").read_text()
    assert "rows.csv has no such row" in "".join(read_page(Path("p.html").read_text()).text)
    assert told(results_of(shell, "set", "--data", "rows.csv"))[:2] == [
        ("set/var.yaml[1]", "passed", "new row"),
        ("set/var.yaml[2]", "passed", "compared"),
    ]
    done = perform(shell, "set", "--data", "rows.csv", "--update")
    assert "(2 rows; gone: who=Ada)" in done.out
    assert says() == ["Hello, Bob.", "Hello, Eve."]
    results = results_of(shell, "set", "--data", "rows.csv", "--update")
    assert results["baselines_written"] == ["set/var.rows.baseline.yaml"]
    assert results["rows_removed"] == {}


def test_a_row_with_an_id_that_changed(shell):
    """A row of the same id with other values fails, and says which; an id that is given or taken away finds the row by its values."""
    write(shell, var=VARIABLE)
    data("id,who\na,Ada\nb,Bob\n")
    perform(shell, "set", "--data", "rows.csv", "--update")
    data("id,who\nb,Bob\na,Eve\n")
    done = perform(shell, "set", "--data", "rows.csv")
    assert done.code == 1
    assert "the row: who changed: was 'Ada', now 'Eve'" in done.out
    assert "1 passed, 1 failed" in done.out
    data("who\nAda\nBob\n")
    assert told(results_of(shell, "set", "--data", "rows.csv")) == [
        ("set/var.yaml[1]", "passed", "compared"),
        ("set/var.yaml[2]", "passed", "compared"),
    ]
    perform(shell, "set", "--data", "rows.csv", "--update")
    assert [row.id for row in baselines.read_rows(Path("set/var.rows.baseline.yaml")).rows] == ["", ""]


def test_some_rows_are_updated(shell):
    """With --only, --rerun-failed, --fail-fast or a failure, the other rows' baselines stay as they were, also of those that are gone."""
    write(shell, var=VARIABLE)
    data("id,who\na,Ada\nb,Bob\nc,Cleo\n")
    perform(shell, "set", "--data", "rows.csv", "--update")
    write(shell, var=VARIABLE.replace("Hello", "Welcome"))
    data("id,who\na,Ada\nb,Bob\n")
    assert perform(shell, "set", "--data", "rows.csv", "--only", "[b]", "--update").code == 0
    assert says() == ["Hello, Ada.", "Welcome, Bob.", "Hello, Cleo."]
    assert perform(shell, "set", "--data", "rows.csv").code == 1
    results = results_of(shell, "set", "--data", "rows.csv", "--rerun-failed", "--update")
    assert told(results) == [("set/var.yaml[a]", "passed", "none")]
    assert says() == ["Welcome, Ada.", "Welcome, Bob.", "Hello, Cleo."]
    write(shell, var=VARIABLE.replace("Hello", "Hi") + "    expect: {heard: 'Hi, Bob.'}\n")
    done = perform(shell, "set", "--data", "rows.csv", "--update")
    assert done.code == 1
    assert "set/var.yaml[a]: no baseline is made of runs that did not pass" in done.err
    assert says() == ["Welcome, Ada.", "Hi, Bob."]


def test_equal_rows(shell):
    """Two equal rows are one that is performed twice; two that differ only in secrets need names."""
    write(shell, var=PIN)
    data("who,pin\nAda,swordfish-1\nAda,swordfish-1\n")
    assert "(1 row)" in perform(shell, "set", "--data", "rows.csv", "--update").out
    assert "runs: 2" in Path("set/var.rows.baseline.yaml").read_text()
    assert perform(shell, "set", "--data", "rows.csv").code == 0
    data("who,pin\nAda,swordfish-1\nAda,swordfish-2\n")
    done = perform(shell, "set", "--data", "rows.csv", "--update")
    assert done.code == 2
    assert "set/var.yaml[1], set/var.yaml[2] differ only in what is secret" in done.err
    assert "2 passed" in done.out
    assert "runs: 2" in Path("set/var.rows.baseline.yaml").read_text()
    data("id,who,pin\na,Ada,swordfish-1\nb,Ada,swordfish-2\n")
    assert "(2 rows)" in perform(shell, "set", "--data", "rows.csv", "--update").out
    assert perform(shell, "set", "--data", "rows.csv").code == 0


def test_secrets_of_rows_stay_secret(shell):
    """A secret column is `***` in the baseline; no file or file name has its values, and a row is known again though its secret changed."""
    part = "vars:\n  word: {type: string, secret: true}\ntimeline:\n  - say: The word is {{ word }}.\n"
    shell.write("parts/word.yaml", part)
    include = "  - include: ../parts/word.yaml\n    with: {word: '{{ code }}'}\n"
    write(shell, var=PIN.replace("vars:\n", "vars:\n  code: {type: string}\n") + include)
    text = "who,pin,code\nAda,{0}-1,{0}-3\nBob,{0}-2,{0}-4\n"
    data(text.format("swordfish"))
    reports = ("--junit", "j.xml", "--tap", "t.tap", "--html", "p.html")
    done = perform(shell, "set", "--data", "rows.csv", "--update", "--out", "out", *reports)
    assert done.code == 0
    assert says() == ["Hello, Ada, ***.", "Hello, Bob, ***."]
    data(text.format("stingray9"))
    again = perform(shell, "set", "--data", "rows.csv", "--json", *reports)
    results = json.loads(again.out)
    assert [result["row"] for result in results["results"]] == [{"who": who, "pin": "***", "code": "***"} for who in ("Ada", "Bob")]
    assert [result["baseline"] for result in results["results"]] == ["compared", "compared"]
    for path in shell.folder.rglob("*"):
        assert "swordfish" not in path.name
        if path.is_file() and path.name != "rows.csv":
            assert b"swordfish" not in path.read_bytes(), path
    assert "swordfish" not in done.out + done.err
    assert "stingray" not in again.out + again.err


def test_two_things_with_one_baseline(shell):
    """`intro.rows.yaml`, and `intro.yaml` with `rows.csv`, would share a file: neither takes it from the other, and both say so."""
    write(shell, **{"var.rows": GOOD, "var": VARIABLE})
    data("who\nAda\n")
    assert perform(shell, "set/var.rows.yaml", "--update").code == 0
    before = Path("set/var.rows.baseline.yaml").read_text()
    done = perform(shell, "set/var.yaml", "--data", "rows.csv")
    assert done.code == 2
    assert "is the baseline of a playbook, not of rows of data (a playbook and a data file have names" in done.out
    done = perform(shell, "set/var.yaml", "--data", "rows.csv", "--update")
    assert done.code == 2
    assert "is the baseline of a playbook, not of rows of data" in done.err
    assert Path("set/var.rows.baseline.yaml").read_text() == before
    Path("set/var.rows.baseline.yaml").unlink()
    perform(shell, "set/var.yaml", "--data", "rows.csv", "--update")
    assert perform(shell, "set/var.rows.yaml").code == 2
    assert "is the baseline of rows of data, not of a playbook" in perform(shell, "set/var.rows.yaml", "--update").err
    assert says() == ["Hello, Ada."]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baseline: 1", "baseline: 2", "of version 2"),
        ("runs: 1", "runs: 0", "is damaged: rows.0.runs"),
        ("data: rows.csv\n", "", "is damaged"),
        ("    values:", "    color: red\n    values:", "is damaged: rows.0"),
        ('who: "Ada"', "who: 7", "is damaged: rows.0.values.who"),
        ("rows:", "rows: none, and that is", "is not a baseline"),
    ],
)
def test_damaged_baselines_of_rows(shell, old, new, message):
    """A file that was damaged is an error of every row that says where, once; it is made anew from all rows, and not from some."""
    write(shell, var=VARIABLE)
    data("id,who\na,Ada\nb,Bob\n")
    perform(shell, "set", "--data", "rows.csv", "--update")
    path = Path("set/var.rows.baseline.yaml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    done = perform(shell, "set", "--data", "rows.csv")
    assert done.code == 2
    assert "error: set/var.yaml[a] and 1 more\n" in done.out
    assert done.out.count(message) == 1
    assert "is damaged" in perform(shell, "set", "--data", "rows.csv", "--update", "--only", "[a]").err
    assert perform(shell, "set", "--data", "rows.csv", "--update").code == 0
    assert perform(shell, "set", "--data", "rows.csv").code == 0


def test_a_baseline_that_cannot_be_written(shell):
    """It is found before anything runs."""
    write(shell, var=VARIABLE, good=GOOD)
    data("who\nAda\n")
    for path, more in (("set/var.rows.baseline.yaml", ("--data", "rows.csv")), ("set/good.baseline.yaml", ())):
        Path(path).mkdir()
        done = perform(shell, "set", *more, "--update", "--out", "out")
        assert done.code == 2
        assert f"{path} cannot be written" in done.err
        assert not Path("out").exists()


def test_baselines_of_rows_survive_their_file(tmp_path):
    """What is written is read back, whatever the names and values are."""
    run = Performance("a", (Act("x", "say", HOSTILE, FACTS, {"start": 3}),), {"provider": "local", "end": "passed"})
    texts = ["yes", "", " ", "a: b # c", "'\"\\", "\u2028\x85\x00\x1b", "***", HOSTILE]
    rows = tuple(Row(text.strip() and text, {text or "empty": text}, baselines.learn([run], "p: q", "virtual")) for text in texts)
    path = tmp_path / "x.rows.baseline.yaml"
    path.write_text(baselines.to_yaml(Rows("p: q", "rows: 1.csv", rows)), "utf-8")
    assert baselines.read_rows(path) == Rows("p: q", "rows: 1.csv", rows)
    path.write_text(baselines.to_yaml(Rows("p", "d", ())), "utf-8")
    assert baselines.read_rows(path).rows == ()
    with pytest.raises(RecordError):
        baselines.read(path)


def test_a_bad_value_is_said_to_be_of_the_data(shell):
    """A value that does not fit its variable is told with its column and its line, not with an option that nobody gave."""
    shell.write(
        "n.yaml", "version: 1\nprovider: local\nvars: {n: {type: integer}, who: {type: string}}\ntimeline:\n  - say: '{{ who }} {{ n }}.'\n"
    )
    data('who,n\n"A\nda",1\n\nBob,seven\nEve,eight\n')
    done = shell.call("test", "n.yaml", "--data", "rows.csv", "--clock", "virtual")
    assert done.code == 3
    assert "error: n.yaml[2]\n" in done.out
    assert "'seven' (in the column 'n' of rows.csv:5) is not\n" in done.out
    assert "'eight' (in the column 'n' of rows.csv:6) is not\n" in done.out
    assert "--var" not in done.out + done.err
