"""The named faults, each on every provider that can show it: over real sockets, on the virtual clock.

The table of the page `faults` is this one.

A show of three lines is performed; the fault strikes the second (`two`), which faults of the interrupt cut after a second. What is asserted
of every run: its log is a good one, its session is closed by the emulator's own count, and no line was sent again that may have arrived.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from playbook import clock
from playbook.emulators.faults import FAULTS, Injection
from playbook.errors import UsageError
from playbook.journal.journal import Journal
from playbook.perform.rehearsal import aim
from playbook.providers import registry
from playbook.transports.room import AppMessage, OnEvent, Room, RoomEvent
from tests.contract import STANDS, Between, compile_on, perform, write_playbook
from tests.logs import ROOT, checked, closings, of

TEXTS = {
    "one": "The first line of this show.",
    "two": "The second line, which this is all about, and which goes on for a while.",
    "three": "The third and last line.",
}
CHUNKS = ("The second line, ", "which this is all about, ", "and which goes on for a while.")
"""The second line in pieces; there is a pause before the last."""
EMULATED = [name for name in STANDS if name != "local"]
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "avaturn-external": {"conversation_engine": {"type": "external"}},
    "tavus-microphone": {"echo_via": "microphone"},
}
"""What of a stand's session decides which faults there are."""


@dataclass(frozen=True)
class Show:
    """A performance under a fault."""

    exit: tuple[str, int]
    reason: str
    lines: list[dict[str, Any]]
    truth: list[dict[str, Any]]
    reports: bool
    """Whether the provider tells us when speech begins and ends."""
    exact: bool
    """Whether the length of a line is known before it is said."""
    own_track: bool
    """Whether our own sound goes out as a track, so that nobody else need tell."""
    requests: int
    """How many requests carried the second line."""

    @property
    def grades(self) -> list[str]:
        return [line["evidence"] for line in closings(self.lines).values()]

    @property
    def two(self) -> dict[str, Any]:
        return closings(self.lines)["two"]

    def notes(self, kind: str) -> list[str]:
        return [line["reason"] for line in of(self.lines, "note", kind)]

    def spoken(self) -> list[str]:
        """What an audience heard the beginning of."""
        return [entry["task"] for entry in self.truth if entry["what"] == "speech_started"]

    def ms(self, kind: str, name: str, task: str = "two") -> int:
        return next(line["at_ms"] for line in of(self.lines, kind, name) if line.get("task") == task)


def timeline(at: str, chunked: bool) -> str:
    steps = []
    for id, text in TEXTS.items():
        pieces = ", ".join([*map(json.dumps, CHUNKS[:-1]), "{wait: 400ms}", json.dumps(CHUNKS[-1])])
        say = f"{{chunks: [{pieces}]}}" if chunked and id == "two" else text
        steps.append(f"  - say: {say}\n    id: {id}\n")
        if at == "interrupt" and id == "two":
            steps.append("    until: 1s\n  - interrupt:\n    id: stop\n")
    return "".join(steps)


def performed(name: str, fault: str, folder: Path, *, chunked: bool) -> Show:
    """The show, on a stand, with a fault at its second line (or at the session's creation)."""

    async def main() -> Show:
        async with STANDS[name]() as stand:
            emulator = stand.emulator
            assert emulator is not None
            start = "start: 2m" if fault == "mute-after-120s" else "start: 0s"
            plan = compile_on(write_playbook(folder, stand, timeline(FAULTS[fault].at, chunked), start))
            emulator.set_faults([aim(fault if FAULTS[fault].at == "create" else f"{fault}@two", plan)])
            outcome = await perform(stand, plan, folder)
            assert emulator.open_sessions == (), "the emulator's own count"
            assert Journal(folder / "state").open_sessions() == []
            # (A face that hears one unbroken track tells nothing between two lines that follow without a gap.)
            assert plan.capabilities.speech == "exact" or emulator.faults.idle == ()
            requests = [entry for entry in emulator.journal if entry["what"] == "request"]
            return Show(
                (outcome.result.end, outcome.result.exit_code),
                outcome.result.reason or "",
                checked(outcome.folder),
                [entry for entry in emulator.journal if entry["what"].startswith("speech_")],
                plan.capabilities.speech == "reported",
                plan.steps[1].length.basis == "exact",
                plan.capabilities.speech == "exact",
                sum((CHUNKS if chunked else [TEXTS["two"]])[0] in str(entry.get("body")) for entry in requests),
            )

    return clock.run(main(), "virtual")


# --- what each row promises -----------------------------------------------------------------------------------------------


def plain(show: Show) -> None:
    """Nobody could know better: the show goes on, and the line is `estimated`."""
    assert show.exit == ("passed", 0)
    assert show.grades == ["estimated"] * 3


def own_track(show: Show) -> None:
    """What the face reports, or not, changes nothing: our own sound tells. What the face itself swallows, nobody can know."""
    assert show.exit == ("passed", 0)
    assert show.grades == ["reported"] * 3
    assert show.notes("ignored") == show.notes("conflict") == []
    assert show.two["at_ms"] - show.ms("event", "speech_started") == pytest.approx(show.two["duration_ms"], abs=2)


def end_missing(show: Show) -> None:
    assert show.exit == ("passed", 0)
    assert show.grades == ["reported", "timeout", "reported"]
    assert show.two["reason"] == "the provider never reported the end"


def end_early(show: Show) -> None:
    assert show.exit == ("passed", 0)
    if show.exact:
        assert show.grades == ["reported", "estimated", "reported"]
        assert any("before the sound can have ended" in told for told in [*show.notes("conflict"), show.two["reason"]])
    else:
        assert show.grades == ["reported"] * 3


def end_late(show: Show) -> None:
    assert show.exit == ("passed", 0)
    assert show.grades == ["reported"] * 3
    began, ended = (entry["at_ms"] for entry in show.truth[2:4])
    assert show.two["at_ms"] - show.ms("event", "speech_started") >= ended - began + 2_900, "believed as it comes"


def end_twice(show: Show) -> None:
    assert show.exit == ("passed", 0)
    assert show.grades == ["reported"] * 3
    assert "this line had ended" in show.notes("ignored")


def start_missing(show: Show) -> None:
    assert show.exit == ("passed", 0)
    assert show.grades == ["reported"] * 3
    assert "two" not in [line.get("task") for line in of(show.lines, "event", "speech_started")]


def unheard(show: Show) -> None:
    assert show.exit == ("passed", 0)
    assert show.grades == ["reported", "timeout", "reported"]
    assert show.two["reason"] == "the provider never reported a start"
    assert len(show.spoken()) == 2


def interrupt_lost(show: Show) -> None:
    assert show.exit == ("passed", 0)
    if show.two.get("interrupted"):  # it had not ended when we lost our patience
        assert (show.two["evidence"], show.two["reason"]) == ("timeout", "the provider did not say that it stopped")
    else:
        assert "acknowledged, but two was said to its end" in show.notes("conflict")


def speaks_on(show: Show) -> None:
    assert show.exit == ("passed", 0)
    assert show.two["interrupted"]
    assert show.two["evidence"] == "reported"
    late = [note for note in show.notes("conflict") if "ms after it was" in note]
    assert late or "this line had ended" in show.notes("ignored")


def session_dies(show: Show) -> None:
    assert show.exit == ("error", 4)
    [lost] = of(show.lines, "event", "provider_failed")
    assert lost["outcome"] == "lost"
    cut = show.two if show.reports or show.own_track else closings(show.lines)["three"]
    lowered = [line["task"] for line in of(show.lines, "note", "grade_lowered")]
    assert lowered == ([] if show.reports or show.own_track else ["two"]), "what was being said when it died may not have been heard"
    assert (cut["evidence"], cut["reason"], cut["interrupted"]) == ("timeout", "session lost", True)


def slow_accept(show: Show) -> None:
    assert show.exit == ("passed", 0)
    assert show.grades == (["reported"] if show.reports else ["estimated"]) * 3
    assert show.ms("event", "task_accepted") - show.ms("command", "say") >= 3_000
    assert show.requests <= 1


def quota(show: Show) -> None:
    assert show.exit == ("error", 4)
    assert "quota" in show.reason.lower() or "limit" in show.reason.lower() or "concurren" in show.reason.lower()
    assert show.grades == []
    assert of(show.lines, "command", "close_session") == []


def rate_limit(show: Show) -> None:
    assert show.exit == ("passed", 0)
    assert show.requests == 2
    assert show.ms("event", "task_accepted") - show.ms("command", "say") >= 1_000


def ambiguous(show: Show) -> None:
    assert show.exit == ("failed", 1)
    [failed] = of(show.lines, "event", "provider_failed")
    assert (failed["task"], failed["outcome"]) == ("two", "ambiguous")
    assert (show.two["evidence"], show.two["reason"]) == ("timeout", "nobody knows whether it was taken")
    assert show.requests == 1, "it is not sent again"


def wrong_id(show: Show) -> None:
    assert show.exit == ("passed", 0)
    assert show.grades == ["reported", "unmatched", "reported"]


@dataclass(frozen=True)
class Row:
    """What is promised where the provider reports speech, where it does not, and where the sound is our own."""

    reported: Callable[[Show], None]
    otherwise: Callable[[Show], None] = plain
    track: Callable[[Show], None] = own_track

    def of(self, show: Show) -> Callable[[Show], None]:
        """What is promised of this show."""
        return self.track if show.own_track else self.reported if show.reports else self.otherwise


ROWS: Mapping[str, Row] = {
    "end-missing": Row(end_missing),
    "end-early": Row(end_early),
    "end-late": Row(end_late),
    "end-twice": Row(end_twice),
    "start-missing": Row(start_missing),
    "mute-after-120s": Row(unheard),
    "interrupt-lost": Row(interrupt_lost),
    "speech-after-interrupt": Row(speaks_on),
    "accepted-but-silent": Row(unheard),
    "session-dies": Row(session_dies, session_dies, session_dies),
    "slow-accept": Row(slow_accept, slow_accept),
    "quota-at-create": Row(quota, quota, quota),
    "rate-limit": Row(rate_limit, rate_limit),
    "flap": Row(ambiguous, ambiguous),
    "half-body": Row(ambiguous, ambiguous),
    "wrong-id": Row(wrong_id),
}


def applies(stand: str, fault: str) -> bool:
    return fault not in impossible(stand)


def impossible(stand: str) -> frozenset[str]:
    """What cannot strike a session of this stand."""
    return registry.emulator(stand.partition("-")[0]).impossible(SETTINGS.get(stand, {}))


CASES = [(stand, fault) for stand in EMULATED for fault in FAULTS if applies(stand, fault)]


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
@pytest.mark.parametrize(("stand", "fault"), CASES, ids=[f"{stand}-{fault}" for stand, fault in CASES])
def test_fault(stand: str, fault: str, chunked: bool, tmp_path: Path):
    """The runner does what the documentation's table says, nothing stays open, and no line is heard twice by our doing; nor does it matter
    whether the line comes in chunks."""
    show = performed(stand, fault, tmp_path, chunked=chunked)
    ROWS[fault].of(show)(show)
    twice = [text for text, times in Counter(show.spoken()).items() if times > 1]
    assert len(twice) == (fault == "speech-after-interrupt"), "only the vendor itself speaks a line again"


@pytest.mark.parametrize("stand", EMULATED)
def test_a_fault_that_a_vendor_cannot_show_is_refused(stand: str):
    """Nobody tests against a fault that can never strike; what is refused is what the vendor does not report."""

    async def main() -> None:
        async with STANDS[stand]() as at:
            assert at.emulator is not None
            for fault in at.emulator.never:
                with pytest.raises(UsageError, match=f"cannot show the fault '{fault}'"):
                    at.emulator.set_faults([fault])

    clock.run(main(), "virtual")


@pytest.mark.parametrize(
    ("fault", "second"),
    [
        ("", "started stopped"),
        ("end-missing@two", "started"),
        ("end-early@2", "started stopped"),
        ("end-twice@two", "started stopped stopped"),
        ("start-missing@two", "stopped"),
        ("wrong-id@two", "started? stopped?"),
        ("accepted-but-silent@2", ""),
    ],
)
def test_what_a_face_reports_of_a_track_is_falsified_too(fault: str, second: str, tmp_path: Path):
    """A face that hears our own track tells when it begins and ends: as often as the fault has it, and of the line that was meant."""
    told: list[tuple[int, str]] = []

    async def main() -> None:
        async with STANDS["tavus-microphone"]() as stand:
            assert stand.emulator is not None
            stand.emulator.set_faults([fault] if fault else [])
            began = clock.Clock()

            def room(on_event: OnEvent, make: Callable[[OnEvent], Room]) -> Room:
                def heard(event: RoomEvent) -> None:
                    if isinstance(event, AppMessage) and event.message["event_type"].startswith("conversation.replica."):
                        what = event.message["event_type"].rpartition(".")[2].removesuffix("_speaking")
                        told.append((began.now_ms(), what + "?" * ("inference_id" in event.message)))
                    on_event(event)

                return make(heard)

            steps = "".join(f"  - say: {text}\n    id: {id}\n    at: {n * 6}s\n" for n, (id, text) in enumerate(TEXTS.items(), 1))
            plan = compile_on(write_playbook(tmp_path, stand, steps))
            outcome = await perform(replace(stand, before=Between(room=room)), plan, tmp_path)
            assert outcome.result.exit_code == 0

    clock.run(main(), "virtual")
    of_line = [" ".join(what for at_ms, what in told if n * 6_000 <= at_ms < (n + 1) * 6_000) for n in (1, 2, 3)]
    assert of_line == ["started stopped", second, "started stopped"]


def test_a_fault_that_cannot_strike_a_session_is_refused(shell):
    """Beside what a vendor never shows: what this way of speaking has no occasion for. Nobody rehearses a fault that does not happen."""
    shell.write("m.yaml", "version: 1\nprovider: tavus\nsession: {pal_id: p, echo_via: microphone}\ntimeline:\n  - say: Hello.\n")
    external = "{conversation_engine: {type: external, url: 'wss://a.example/'}}"
    shell.write("x.yaml", f"version: 1\nprovider: avaturn\nsession: {external}\ntimeline:\n  - say: Hello.\n")
    for file, fault in (("m.yaml", "interrupt-lost"), ("x.yaml", "flap")):
        done = shell.call("run", file, "--emulate", "--clock", "virtual", "--fault", fault)
        assert done.code == 2
        assert f"as the session is set, cannot show the fault '{fault}'\n  it can show end-missing, " in done.err


def test_every_fault_strikes_somewhere():
    """Each row of the table is proved on at least two providers, or on all that can show it."""
    proved = Counter(fault for _, fault in CASES)
    assert {fault for fault in FAULTS if proved[fault] < 2} == set()
    assert set(ROWS) == set(FAULTS)


def test_the_documentation_tells_every_fault_in_order():
    """The table has the names of `FAULTS`, each with what happens and what the runner does."""
    text = (ROOT / "playbook" / "docs" / "faults.md").read_text("utf-8")
    rows = [re.fullmatch(r"\| `([a-z0-9-]+)` \| (.+) \| (.+) \|", line) for line in text.splitlines()]
    told = [row for row in rows if row is not None]
    assert [row[1] for row in told] == list(FAULTS)
    assert all(len(row[2]) > 10 and len(row[3]) > 10 for row in told)


# --- a fault or trigger without effect proves nothing ---------------------------------------------------------------------

SHOW = """\
version: 1
provider: {provider}
start: 0s
session: {session}
timeline:
  - say: Hello there.
    id: hello
  - say: {{chunks: ["Come in, ", "come in."]}}
    id: enter
  - end:
"""
TAVUS = SHOW.format(provider="tavus", session="{pal_id: p}")
KALTURA = SHOW.format(provider="kaltura", session="{visualConfig: {id: v}, voiceConfig: {id: w}}").replace("enter", "leave")


def test_a_fault_for_a_line_that_is_not_there_is_wrong_usage(shell):
    """With the near name; a line is known by its id, its number and its text."""
    shell.write("show.yaml", TAVUS)
    common = ("run", "show.yaml", "--emulate", "--clock", "virtual", "--quiet")
    done = shell.call(*common, "--fault", "end-missing@entr")
    assert (done.code, "did you mean 'enter'?" in done.err) == (2, True)
    for which in ("enter", "2", "Come in, come in."):
        done = shell.call(*common, "--fault", f"end-missing@{which}", "--strict")
        assert (done.code, "never struck" in done.err) == (0, False), which
    assert shell.call(*common, "--fault", "end-missing@3").code == 2
    assert "strikes no line" in shell.call(*common, "--fault", "quota-at-create@enter").err


def test_in_a_test_of_many_a_fault_must_have_its_line_in_one(shell):
    """One option serves many playbooks: it is an error only when none of them has the line, and a failure when it strikes nowhere."""
    shell.write("a.yaml", TAVUS)
    shell.write("b.yaml", KALTURA)
    common = ("test", "a.yaml", "b.yaml", "--emulate", "--clock", "virtual", "--jobs", "1", "--strict")
    assert shell.call(*common, "--fault", "accepted-but-silent@leave").code == 0
    done = shell.call(*common, "--fault", "accepted-but-silent@leav")
    assert (done.code, "no playbook has the line 'leav'" in done.err, "did you mean 'leave'?" in done.err) == (2, True, True)
    done = shell.call(*common, "--fault", "mute-after-120s")
    assert (done.code, done.err.splitlines()[-1]) == (1, "the fault 'mute-after-120s' never struck")


def test_what_was_given_in_vain_is_told_at_the_end_and_fails_a_strict_run(shell):
    """A fault that never struck and a trigger that nothing waited for: a note on standard error, with --strict exit 1."""
    shell.write("show.yaml", TAVUS)
    in_vain = ("--fault", "mute-after-120s", "--trigger", "foo@1s", "--trigger", "bar@10m")
    for strict, code in ((), 0), (("--strict",), 1):
        done = shell.call("run", "show.yaml", "--emulate", "--clock", "virtual", "--quiet", *in_vain, *strict)
        assert (done.code, done.out.startswith("failed: the fault")) == (code, bool(code))
        assert done.err.splitlines()[-3:] == [
            "the fault 'mute-after-120s' never struck",
            "nothing waited for the trigger 'foo'",
            "the show was over before the trigger 'bar' was due",
        ]


def test_faults_of_reports_are_refused_where_nothing_is_reported(shell):
    """Avaturn's text echo tells only the viewer's page, so a false report of it could change nothing."""
    shell.write("show.yaml", SHOW.format(provider="avaturn", session="{}"))
    done = shell.call("run", "show.yaml", "--emulate", "--clock", "virtual", "--fault", "end-missing")
    assert (done.code, "cannot show the fault 'end-missing'" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("fault", "evidence", "reason"),
    [
        ("accepted-but-silent@enter#2", "timeout", "neither start nor end of piece 2 of 3 was reported"),
        ("end-missing@enter#2", "estimated", "the end of piece 2 of 3 had not been reported"),
        ("end-missing@enter#3", "timeout", "the provider never reported the end"),
        ("start-missing@enter#2", "reported", None),
    ],
)
def test_a_line_of_which_one_piece_is_not_told_of_is_not_simply_reported(fault: str, evidence: str, reason: str | None, tmp_path: Path):
    """In the external engine every chunk is a segment with reports of its own, and the last one's end is not the others'."""

    async def main() -> dict[str, Any]:
        async with STANDS["avaturn-external"]() as stand:
            assert stand.emulator is not None
            stand.emulator.set_faults([fault])
            steps = '  - say: {chunks: ["Come in, please, ", "make yourself at home, ", "and stay a while."]}\n    id: enter\n'
            plan = compile_on(write_playbook(tmp_path, stand, steps, "start: 0s"))
            outcome = await perform(stand, plan, tmp_path)
            return closings(checked(outcome.folder))["enter"]

    closing = clock.run(main(), "virtual")
    assert (closing["evidence"], closing.get("reason")) == (evidence, reason)


@pytest.mark.parametrize("piece", [1, 2, 3])
@pytest.mark.parametrize("act", ["half", "close"])
def test_half_a_line_does_not_hold_up_those_that_follow(act: Any, piece: int, tmp_path: Path):
    """A service that waits for the rest of a line which will never come would speak none of the following, and each would be
    `estimated`: what may have arrived of a line in chunks is taken back."""

    async def main() -> list[str]:
        async with STANDS["kaltura"]() as stand:
            assert stand.emulator is not None
            steps = timeline("line", chunked=True).replace("id: two", "id: two\n    on_error: continue\n    timeout: 1m")
            plan = compile_on(write_playbook(tmp_path, stand, steps, "start: 0s"))
            stand.emulator.injections.append(Injection(act, path="*/say-text", skip=piece))
            outcome = await perform(stand, plan, tmp_path)
            assert outcome.summary.utterances["two"].grade == "ambiguous"
            return [entry["task"] for entry in stand.emulator.journal if entry["what"] == "speech_ended"]

    assert [task for task in clock.run(main(), "virtual") if task != "two"] == ["one", "three"]
