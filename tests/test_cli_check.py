"""`check --provider all` and `sessions`: one file for several providers."""

from __future__ import annotations

import json

from .commands import Shell

TOUR = """\
version: 1
name: tour
provider: local
vars: {pal: {type: string, default: p1}}
sessions:
  local: {language: en}
  kaltura: {visualConfig: {id: v1}, voiceConfig: {id: v2}}
  tavus: {pal_id: "{{ pal }}"}
start: 0s
timeline:
  - say: Welcome.
    until: 500ms
  - interrupt:
"""


def test_each_provider_of_a_file_is_checked_with_its_own_settings(shell: Shell):
    """All of them are good, what the playbook needs is told, and the plans differ by provider and settings alone."""
    shell.write("tour.yaml", TOUR)
    done = shell.call("check", "tour.yaml", "--provider", "all")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line.partition(": ")[0] for line in lines[:3]] == ["tour.yaml, local", "tour.yaml, kaltura", "tour.yaml, tavus"]
    assert all(": good, 3 steps" in line for line in lines[:3])
    assert lines[3:] == ["tour.yaml needs: say, interrupt"]
    plans = [json.loads(shell.call("plan", "tour.yaml", "--provider", name, "--json").out) for name in ("local", "kaltura", "tavus")]
    assert [plan["session"] for plan in plans] == [
        {"language": "en"},
        {"visualConfig": {"id": "v1"}, "voiceConfig": {"id": "v2"}},
        {"pal_id": "p1"},
    ]
    assert len({plan["plan_sha256"] for plan in plans}) == 3


def test_what_a_provider_cannot_do_is_told_of_that_one(shell: Shell):
    """A voice for one line is nothing for two of the three; each says so itself, and the exit code is 3."""
    shell.write("tour.yaml", TOUR + "  - say: {text: Hallo., voice: de}\n")
    done = shell.call("check", "tour.yaml", "--provider", "all")
    assert done.code == 3
    assert "kaltura cannot change the voice for a line" in done.out
    assert "tavus cannot change the voice for a line" in done.out
    assert done.out.splitlines()[-1] == "tour.yaml needs: say, interrupt, a voice for a line"
    files = json.loads(shell.call("check", "tour.yaml", "--provider", "all", "--json").out)["files"]
    assert [(each["provider"], each["good"]) for each in files] == [("local", True), ("kaltura", False), ("tavus", False)]


def test_settings_are_wrong_whichever_provider_performs(shell: Shell):
    """A mistake in Tavus's settings is one while the local voice performs."""
    shell.write("tour.yaml", TOUR.replace("pal_id", "pall_id"))
    done = shell.call("check", "tour.yaml")
    assert done.code == 3
    assert "unknown key 'pall_id' in the session settings of tavus" in done.out


def test_a_file_for_several_providers_is_performed_by_another_one(shell: Shell):
    """`run --provider kaltura` has its settings, and performs."""
    shell.write("tour.yaml", TOUR)
    done = shell.call("run", "tour.yaml", "--provider", "kaltura", "--emulate", "--clock", "virtual", "--out", "run")
    assert done.code == 0, done.err


def test_without_sessions_every_provider_is_tried(shell: Shell):
    """What is installed is asked, also about a playbook that names one alone."""
    shell.write("one.yaml", "version: 1\nprovider: local\ntimeline: [{wait: 1s}]\n")
    done = shell.call("check", "one.yaml", "--provider", "all")
    assert [line.partition(":")[0] for line in done.out.splitlines() if line.startswith("one.yaml, ")] == [
        f"one.yaml, {name}" for name in ("local", "avaturn", "tavus", "kaltura")
    ]
