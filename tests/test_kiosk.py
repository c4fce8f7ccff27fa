"""A kiosk on the virtual clock, against emulators: the ladder, the hours, the money, the log. Hours take a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from playbook.formats.schema import load_schema
from tests.commands import Shell
from tests.logs import ROOT

WELCOME = """\
version: 1
provider: tavus
session: {pal_id: p1}
sessions_note: x
timeline:
  - say: Welcome to the lobby. We are glad that you are here today.
    id: hello
  - wait: 1s
  - say: The lift is on your left.
    id: lift
  - at: 15s
    say: Have a nice day.
    id: bye
  - end:
""".replace("sessions_note: x\n", "")
SHORT = "version: 1\nprovider: tavus\nsession: {pal_id: p1}\ntimeline:\n  - say: It is a full hour.\n  - end:\n"
LOBBY = """\
version: 1
kiosk: lobby
timezone: Europe/Berlin
open: {mon-fri: "09:00-18:00"}
shows:
  welcome: {playbook: welcome.yaml}
  hourly: {playbook: bell.yaml}
play:
  - {on: motion, show: welcome, cooldown: 20s}
  - {cron: "0 9-17 * * mon-fri", show: hourly}
ladder: [tavus, local, captions]
"""
Entry = dict[str, Any]


class Kiosk:
    """A kiosk file in a folder, and rehearsals of it."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.write(LOBBY)
        shell.write("welcome.yaml", WELCOME)
        shell.write("bell.yaml", SHORT)

    def write(self, text: str) -> None:
        self.shell.write("lobby.yaml", text)

    def rehearse(self, begin: str, lasts: str, *argv: str, out: str = "") -> list[Entry]:
        """The entries of its log, each of which is valid. No session may be left open."""
        keep = ("--out", out) if out else ()
        times = ("--from", begin, "--for", lasts)
        done = self.shell.call("kiosk", "lobby.yaml", "--emulate", "--clock", "virtual", *times, *argv, *keep, "--json")
        assert done.code == 0, done.err
        log = json.loads(done.out)
        assert log["open_sessions"] == 0
        validator = jsonschema.Draft7Validator(load_schema("kiosklog.schema.json"))
        for entry in log["entries"]:
            validator.validate(entry)
        return log["entries"]


@pytest.fixture
def kiosk(shell: Shell) -> Kiosk:
    return Kiosk(shell)


def of(entries: list[Entry], event: str, **facts: str) -> list[Entry]:
    return [each for each in entries if each.get("event") == event and all(each.get(key) == fact for key, fact in facts.items())]


def lines(folder: Path) -> list[Entry]:
    return [json.loads(line) for line in (folder / "run.jsonl").read_text("utf-8").splitlines()][1:]


def heard(folder: Path) -> list[str]:
    """The lines that were heard to their end in a run, by their ids."""
    ended = [line for line in lines(folder) if line.get("event") == "speech_ended"]
    return [line["task"] for line in ended if not line.get("interrupted") and line["evidence"] != "timeout"]


# --- the ladder -----------------------------------------------------------------------------------------------------------


def test_a_show_goes_on_on_the_next_rung_with_the_line_it_was_in(kiosk: Kiosk):
    """The first rung dies in the second line: the next one says that line from its start, nothing twice, and the
    clock goes on."""
    log = kiosk.rehearse(
        "2026-03-24T09:59", "5m", "--trigger", "motion@2026-03-24T10:00:30", "--fault", "outage@2026-03-24T10:00:36+1m", out="out"
    )
    (show,) = of(log, "show", show="welcome")
    assert [run["rung"] for run in show["runs"]] == ["tavus", "local"]
    assert show["end"] == "passed"
    assert show["silence_ms"] <= 2_000
    runs = [Path("out") / run["run"] for run in show["runs"]]
    assert [*heard(runs[0]), *heard(runs[1])] == ["hello", "lift", "bye"]
    assert heard(runs[1])[0] == "lift"
    assert 15_000 <= show["ms"] <= 18_500  # `bye` came at its time
    (change,) = of(log, "rung", was="tavus")
    assert (change["rung"], change["cause"]) == ("local", "Tavus ended the conversation: outage")


def test_a_rung_that_cannot_open_is_left(kiosk: Kiosk):
    """No session can be had: the show is performed on the next rung, from its beginning."""
    log = kiosk.rehearse("2026-03-24T09:30", "5m", "--trigger", "motion@2026-03-24T09:31", "--fault", "quota@2026-03-24T09:30+1h")
    (show,) = of(log, "show", show="welcome")
    assert [run["rung"] for run in show["runs"]] == ["tavus", "local"]
    assert show["end"] == "passed"


def test_a_rung_is_tried_again_with_growing_pauses_and_comes_back(kiosk: Kiosk):
    """Away for an hour, with a show every two minutes: one show notices it, none waits for it again, and it is back
    within ten minutes."""
    kiosk.write(LOBBY.replace('"0 9-17 * * mon-fri"', '"*/2 * * * *"'))
    log = kiosk.rehearse("2026-03-24T10:00", "2h", "--fault", "outage:tavus@2026-03-24T10:05+1h")
    tried = [run for show in of(log, "show") for run in show["runs"] if run["rung"] == "tavus" and "cause" in run]
    assert len(tried) == 1
    back = [each["at"] for each in of(log, "show") if each["rung"] == "tavus" and each["at"] > "2026-03-24T11:05"]
    assert back[0] <= "2026-03-24T11:15:30"
    assert len(of(log, "show")) == 59
    assert all(show["end"] == "passed" for show in of(log, "show"))


def test_captions_cannot_fail(kiosk: Kiosk):
    """The last rung shows the text in silence for as long as it would take to say, sounds included, whatever is
    missing."""
    kiosk.write(LOBBY.replace("ladder: [tavus, local, captions]", "ladder: [tavus, captions]"))
    log = kiosk.rehearse(
        "2026-03-24T09:30", "5m", "--trigger", "motion@2026-03-24T09:31", "--fault", "outage@2026-03-24T09:30:30+1h", out="out"
    )
    (show,) = of(log, "show", show="welcome")
    assert (show["rung"], show["end"]) == ("captions", "passed")
    assert "Have a nice day." in (Path("out") / show["run"] / "captions.vtt").read_text()
    assert not (Path("out") / show["run"] / "audio.wav").exists()


def test_a_playbook_that_one_rung_cannot_perform_is_performed_by_the_next(kiosk: Kiosk):
    """A rung without settings is a warning, and the show is not its business."""
    kiosk.shell.write("bell.yaml", SHORT.replace("session: {pal_id: p1}\n", "").replace("tavus", "local"))
    log = kiosk.rehearse("2026-03-24T09:59", "5m")
    (show,) = of(log, "show")
    assert [run["rung"] for run in show["runs"]] == ["local"]
    (change,) = of(log, "rung")
    assert change["cause"] == "it cannot perform the show"


# --- hours and requests ---------------------------------------------------------------------------------------------------


def test_nothing_is_performed_or_open_outside_the_hours(kiosk: Kiosk):
    """Two days and a weekend: it opens and closes by its hours; who comes outside them, or too late for a whole
    show, is refused."""
    come = [f"motion@2026-03-{day}" for day in ("27T08:59:59", "27T12:00:30", "27T17:59:50", "28T12:00", "30T09:00:30")]
    log = kiosk.rehearse("2026-03-27T00:00", "4d", *(word for each in come for word in ("--trigger", each)))
    assert [(each["event"], each["at"][:16]) for each in log if each.get("event") in ("opened", "closed")] == [
        ("opened", "2026-03-27T09:00"),
        ("closed", "2026-03-27T18:00"),
        ("opened", "2026-03-30T09:00"),
        ("closed", "2026-03-30T18:00"),
    ]
    assert [each["cause"] for each in of(log, "refused")] == [
        "the kiosk is closed",
        "the kiosk closes before its end",
        "the kiosk is closed",
    ]
    assert len(of(log, "show", show="welcome")) == 2
    assert len(of(log, "show", show="hourly")) == 18


@pytest.mark.parametrize(
    ("over", "ends", "refused"),
    [("defer", ["passed", "passed"], []), ("cut", ["stopped", "passed"], []), ("drop", ["passed"], ["another show is being performed"])],
)
def test_what_a_scheduled_show_does_to_one_that_is_performed(kiosk: Kiosk, over: str, ends: list[str], refused: list[str]):
    """It waits, it ends the other one, or it is given up."""
    kiosk.write(LOBBY.replace("show: hourly}", f"show: hourly, over: {over}}}"))
    log = kiosk.rehearse("2026-03-24T09:59", "5m", "--trigger", "motion@2026-03-24T09:59:55")
    assert [show["end"] for show in of(log, "show")] == ends
    assert [each["cause"] for each in of(log, "refused")] == refused


def test_the_idle_show_makes_way(kiosk: Kiosk):
    """It is performed again and again, and ended by a visitor at once."""
    kiosk.shell.write("attract.yaml", WELCOME)
    kiosk.write(LOBBY + "idle: {show: attract.yaml, every: 1m}\n")
    log = kiosk.rehearse("2026-03-24T10:10", "10m", "--trigger", "motion@2026-03-24T10:10:05")
    idle = of(log, "show", asked="idle")
    assert idle[0]["end"] == "stopped"
    assert idle[0]["cause"] == "the show 'welcome' begins"
    assert [show["end"] for show in idle[1:]] == ["passed"] * 7
    assert of(log, "show", show="welcome")[0]["at"] < "2026-03-24T10:10:25"


def test_the_show_that_is_performed_can_be_steered(kiosk: Kiosk):
    """`skip` and `end` are the show's; between shows they mean nothing, and the kiosk goes on."""
    come = ["motion@2026-03-24T10:01:00", "skip@2026-03-24T10:01:02", "end@2026-03-24T10:02:00"]
    come += ["motion@2026-03-24T10:03:00", "end@2026-03-24T10:03:05"]
    log = kiosk.rehearse("2026-03-24T10:00:30", "5m", *(word for each in come for word in ("--trigger", each)), out="out")
    first, second = of(log, "show", show="welcome")
    assert (first["end"], second["end"]) == ("passed", "stopped")
    assert heard(Path("out") / first["run"]) == ["lift", "bye"]
    assert log[-1]["cause"] == "its time is over"


def test_a_cooldown(kiosk: Kiosk):
    """While its show is performed, and for its time afterwards, a signal asks in vain."""
    come = [f"motion@2026-03-24T10:01:{second}" for second in ("00", "05", "30", "45")]
    log = kiosk.rehearse("2026-03-24T10:00:30", "5m", *(word for each in come for word in ("--trigger", each)))
    assert [each["cause"] for each in of(log, "refused")] == ["it is being performed, or waits", "cooldown"]
    assert len(of(log, "show", show="welcome")) == 2


def test_summer_time_begins_and_ends(kiosk: Kiosk):
    """A show at half past two: played at three in March, once in October."""
    kiosk.write(
        LOBBY.replace("open: {mon-fri", "open: {mon-sun").replace("09:00-18:00", "00:00-24:00").replace("0 9-17 * * mon-fri", "30 2 * * *")
    )
    march = of(kiosk.rehearse("2026-03-28T20:00", "12h"), "show")
    october = of(kiosk.rehearse("2026-10-24T20:00", "12h"), "show")
    assert [show["at"][:16] + show["at"][-6:] for show in march] == ["2026-03-29T03:00+02:00"]
    assert [show["at"][:16] + show["at"][-6:] for show in october] == ["2026-10-25T02:30+02:00"]


# --- money ----------------------------------------------------------------------------------------------------------------


def test_a_spent_budget_moves_the_ladder_down_until_the_next_day(kiosk: Kiosk):
    """When the day's money is spent, what costs nothing performs, and the log says why; the next day begins anew."""
    kiosk.shell.write("bell.yaml", SHORT.replace("{pal_id: p1}", "{pal_id: p1, price_per_minute: 6}"))
    kiosk.shell.write("welcome.yaml", WELCOME.replace("{pal_id: p1}", "{pal_id: p1, price_per_minute: 6}"))
    kiosk.write(LOBBY + "budget: {per_day: 1.00}\n")
    log = kiosk.rehearse("2026-03-24T00:00", "2d")
    shows = of(log, "show")
    for day in ("2026-03-24", "2026-03-25"):
        rungs = [show["rung"] for show in shows if show["at"].startswith(day)]
        assert len(rungs) == 9
        assert rungs == sorted(rungs, reverse=True)
        assert {"tavus", "local"} == set(rungs)
    costs: dict[str, float] = {}
    for entry in log[1:]:
        costs[entry["at"][:10]] = costs.get(entry["at"][:10], 0.0) + entry.get("cost", 0.0)
    assert all(0.5 < costs[day] <= 1.2 for day in ("2026-03-24", "2026-03-25"))
    assert {each["cause"] for each in of(log, "rung", rung="local")} == {"the budget of the day is spent"}


# --- the log --------------------------------------------------------------------------------------------------------------


def test_equal_inputs_give_equal_bytes(kiosk: Kiosk):
    """Two rehearsals of a day, with visitors and an outage, tell the same to the byte."""
    argv = ["kiosk", "lobby.yaml", "--emulate", "--clock", "virtual", "--from", "2026-03-24T00:00", "--for", "1d"]
    argv += ["--trigger", "motion@2026-03-24T10:00:30", "--fault", "outage@2026-03-24T10:00:36+20m"]
    one, other = kiosk.shell.call(*argv, "--out", "one"), kiosk.shell.call(*argv, "--out", "other")
    assert one.code == 0
    assert one.out == other.out
    assert Path("one/kiosk.jsonl").read_bytes() == Path("other/kiosk.jsonl").read_bytes()


def test_the_report_sums_days_up(kiosk: Kiosk):
    """As text, as data and as a page: shows, minutes on each rung, silence, failures with their causes."""
    kiosk.rehearse(
        "2026-03-24T09:59", "5m", "--trigger", "motion@2026-03-24T10:00:30", "--fault", "outage@2026-03-24T10:00:36+1m", out="out"
    )
    (day,) = json.loads(kiosk.shell.call("kiosk", "--report", "out", "--json").out)
    assert day["shows"] == {"hourly": 1, "welcome": 1}
    assert day["open_ms"] == 300_000
    assert day["rung_ms"].keys() == {"tavus", "local"}
    assert day["failures"] == [{"rung": "tavus", "cause": "Tavus ended the conversation: outage", "count": 1}]
    text = kiosk.shell.call("kiosk", "--report", "out").out
    assert "2026-03-24" in text
    assert kiosk.shell.call("kiosk", "--report", "out", "--html", "page.html").code == 0
    assert "Tavus ended the conversation: outage" in Path("page.html").read_text()


def test_a_log_that_was_cut_off_is_continued(kiosk: Kiosk):
    """A line that a crash cut off is left out, and what follows stands on lines of its own."""
    kiosk.rehearse("2026-03-24T09:59", "2m", out="out")
    log = Path("out/kiosk.jsonl")
    log.write_bytes(log.read_bytes()[:-10])
    from zoneinfo import ZoneInfo

    from playbook.clock import wall_time
    from playbook.kiosk.proof import Proof, entries

    proof = Proof(Path("out"), "lobby", ZoneInfo("Europe/Berlin"))
    proof.write(wall_time(), "stopped", cause="a test")
    proof.close()
    assert [each.get("event") for each in entries(Path("out"))] == [None, "opened", "show", "stopped"]


def test_wrong_usage(kiosk: Kiosk):
    """What cannot be rehearsed is said with what to do."""
    call = kiosk.shell.call
    assert "add --emulate" in call("kiosk", "lobby.yaml", "--clock", "virtual", "--for", "1d").err
    assert "add --for 7d" in call("kiosk", "lobby.yaml", "--clock", "virtual", "--emulate").err
    rehearsal = ("kiosk", "lobby.yaml", "--clock", "virtual", "--emulate", "--for", "1d")
    assert "write NAME@2026-03-24T10:00" in call(*rehearsal, "--trigger", "motion").err
    assert "there are outage, quota" in call(*rehearsal, "--fault", "outtage@2026-03-24T10:00+1m").err
    assert "name one of tavus" in call(*rehearsal, "--fault", "outage:kaltura@2026-03-24T10:00+1m").err
    assert call("kiosk").code == 2
    assert call("kiosk", "none.yaml").code == 2
    assert call("kiosk", "--report", "nowhere").code == 2
    kiosk.write(LOBBY.replace("Berlin", "Berlim"))
    assert call("kiosk", "lobby.yaml").code == 3


# --- files ----------------------------------------------------------------------------------------------------------------


def test_the_starter_and_the_shipped_kiosks_are_good(shell: Shell):
    """`new --kiosk` writes a kiosk and a playbook that `check --strict` accepts, once; and so are the kiosks that
    come with the package."""
    assert shell.call("new", "--kiosk", "hall.yaml").code == 0
    checked = shell.call("check", "--strict", "hall.yaml")
    assert (checked.code, checked.out) == (0, "hall.yaml: good, a kiosk: 1 show, 2 rungs\n")
    assert "exists already" in shell.call("new", "--kiosk", "hall.yaml").err
    rehearsed = shell.call("kiosk", "hall.yaml", "--clock", "virtual", "--for", "1d", "--trigger", "motion@2026-01-05T10:01")
    assert "show welcome (motion): passed on local" in rehearsed.out
    for path in sorted((ROOT / "playbooks" / "kiosk").glob("*.yaml")):
        assert shell.call("check", "--strict", str(path)).code == 0


def test_check_tells_a_playbooks_problem_with_its_kiosk(kiosk: Kiosk):
    """A folder with a wrong playbook: both the playbook and the kiosk that names it are wrong."""
    kiosk.shell.write("bell.yaml", SHORT.replace("say:", "sai:"))
    done = kiosk.shell.call("check", ".")
    assert done.code == 3
    assert "bell.yaml: 1 error" in done.out
    assert "lobby.yaml: 1 error" in done.out


def test_the_unit_starts_this_kiosk(kiosk: Kiosk):
    """A unit for systemd: it notifies, has a watchdog, and is not started again when the file is wrong."""
    text = kiosk.shell.call("kiosk", "lobby.yaml", "--unit").out
    assert f"-m playbook kiosk {kiosk.shell.folder / 'lobby.yaml'}\n" in text
    for line in ("Type=notify", "WatchdogSec=30", "Restart=always", "RestartPreventExitStatus=2 3"):
        assert f"{line}\n" in text
