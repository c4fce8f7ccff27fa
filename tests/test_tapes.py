"""`playbook test --cassettes`: the vendors' answers from cassettes beside the playbooks, without network or key."""

from __future__ import annotations

import json

from .test_suite import GOOD, KIOSK

ROOM = """\
version: 1
name: room
provider: tavus
session: {pal_id: p1, face_id: r1}
timeline:
  - say: Hello from a room.
    id: hello
  - say: And goodbye.
    id: goodbye
"""
NAMED = KIOSK.replace("start: 1s", "start: 1s\nvars:\n  who: {type: string, required: true}").replace("Goodbye.", "Goodbye, {{ who }}.")


def record(shell, file: str, tape: str, *more: str) -> None:
    """As a person records: against the emulator here, since there is no vendor."""
    assert shell.call("run", file, "--emulate", "--clock", "virtual", "--record", tape, "--quiet", *more).code == 0


def played(shell, *argv: str, jobs: int = 1):
    done = shell.call("test", *argv, "--cassettes", "--clock", "virtual", "--jobs", str(jobs), "--json", "--quiet")
    return done, (json.loads(done.out)["results"] if done.out else [])


def test_each_plays_the_cassette_beside_it(shell):
    """Two vendors from their cassettes, and the local voice as ever, in processes of their own; what was heard is what was recorded."""
    shell.write("set/kiosk.yaml", KIOSK)
    shell.write("set/room.yaml", ROOM)
    shell.write("set/voice.yaml", GOOD)
    record(shell, "set/kiosk.yaml", "set/kiosk.tape")
    record(shell, "set/room.yaml", "set/room.tape")
    done, results = played(shell, "set", jobs=2)
    assert done.code == 0, done.out + done.err
    assert [result["name"] for result in results] == ["set/kiosk.yaml", "set/room.yaml", "set/voice.yaml"]
    assert not (shell.folder.parent / "state").exists()  # nothing is billed, so nothing is in the journal
    assert shell.call("test", "set", "--cassettes", "--clock", "virtual", "--jobs", "1", "--update", "--quiet").code == 0
    assert played(shell, "set")[0].code == 0


def test_other_words_than_those_recorded_fail(shell):
    """What the cassette does not have fails, with the nearest that it has; a cassette that is not there is an error of that case alone."""
    shell.write("set/kiosk.yaml", KIOSK)
    record(shell, "set/kiosk.yaml", "set/kiosk.tape")
    shell.write("set/kiosk.yaml", KIOSK.replace("Goodbye.", "Farewell."))
    shell.write("set/other.yaml", KIOSK)
    done, results = played(shell, "set")
    assert done.code == 1
    assert [result["status"] for result in results] == ["failed", "error"]
    assert "has no answer to POST" in results[0]["reasons"][0]
    assert "there is no cassette set/other.tape" in results[1]["reasons"][0]


def test_rows_have_cassettes_by_their_ids(shell):
    """Each row of data plays its own; rows without ids have none, and two cases never share one."""
    shell.write("kiosk.yaml", NAMED)
    shell.write("rows.csv", "id,who\nada,Ada\nbob,Bob\n")
    for who in ("ada", "bob"):
        record(shell, "kiosk.yaml", f"kiosk.{who}.tape", "--var", f"who={who.title()}")
    assert played(shell, "kiosk.yaml", "--data", "rows.csv")[0].code == 0
    shell.write("rows.csv", "who\nAda\n")
    done, _ = played(shell, "kiosk.yaml", "--data", "rows.csv")
    assert (done.code, "known by a column 'id'" in done.err) == (2, True)
    shell.write("rows.csv", "id,who\na/b,Ada\na b,Bob\n")
    done, _ = played(shell, "kiosk.yaml", "--data", "rows.csv")
    assert (done.code, "have one cassette, kiosk.a-b.tape" in done.err) == (2, True)


def test_what_makes_no_sense_is_refused(shell):
    """A cassette and an emulator both stand in for the vendor; faults are an emulator's."""
    shell.write("kiosk.yaml", KIOSK)
    for more in (["--emulate"], ["--fault", "flap"], ["--delay", "1s"]):
        assert shell.call("test", "kiosk.yaml", "--cassettes", *more).code == 2
