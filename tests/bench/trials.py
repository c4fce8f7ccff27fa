"""The trials at full length: minutes each. They raise when something broke; the figures say how hard it was tried."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench import Say, bench, timed
from tests.trials import fuzz
from tests.trials.crowd import crowd
from tests.trials.huge_log import read_huge_logs
from tests.trials.kill import kill
from tests.trials.soak import soak
from tests.trials.wrong import wrong_playbooks

VENDORS = ("kaltura", "avaturn", "tavus")
HOUR_MS = 3_600_000


@bench("trial-fuzz", "garbage for every reader: playbooks, templates, logs, vendors' answers, requests to the emulators")
def try_fuzz(say: Say) -> None:
    say("playbooks, 20,000", timed(lambda: fuzz.yaml_reader(20_000))[0], "s")
    say("templates, 20,000", timed(lambda: fuzz.template_renderer(20_000))[0], "s")
    say("logs, 3,000", timed(lambda: fuzz.log_reader(3_000))[0], "s")
    for name in VENDORS:
        say(f"answers of {name}, 1,000 runs", timed(lambda name=name: fuzz.vendor_answers(name, 1_000))[0], "s")  # type: ignore[misc]
        say(f"requests to {name}, 1,000 visits", timed(lambda name=name: fuzz.emulator_requests(name, 1_000))[0], "s")  # type: ignore[misc]


@bench("trial-wrong", "a playbook broken in every way, one thing at a time")
def try_wrong(say: Say) -> None:
    took_s, tried = timed(wrong_playbooks)
    say("wrong playbooks", tried.count, "")
    say("  that the schema refuses", tried.invalid, "")
    say("  that were refused with a code and a line", tried.refused, "")
    say("  different codes", len(tried.codes), "")
    say("took", took_s, "s")


@bench("trial-kill", "kill -9 at every moment of a run, 100 times with each provider")
def try_kill(say: Say) -> None:
    for name in VENDORS:
        with tempfile.TemporaryDirectory() as folder:
            killed = kill(name, Path(folder))
        print(f"  {name}: {killed.runs - killed.survived} killed: {', '.join(f'{n} {where}' for where, n in killed.fell.items())}")
        say(f"{name}: sessions created", killed.created, "")
        say(f"{name}: open after the kills", killed.left_open, "")
        say(f"{name}: of them with an id that the run did not live to write down", killed.unseen, "")
        say(f"{name}: open after `sessions end --all`", killed.open_after, "", target=0)
        say(f"{name}: on the list after it", killed.listed_after, "", target=0)


@bench("trial-crowd", "200 sessions at once, 5 % of their lines struck by a fault")
def try_crowd(say: Say) -> None:
    for name in VENDORS:
        with tempfile.TemporaryDirectory() as folder:
            took_s, result = timed(lambda name=name, folder=folder: crowd(name, 200, Path(folder)))  # type: ignore[misc]
        codes = ", ".join(f"{count} with exit {code}" for code, count in result.codes.items())
        print(f"  {name}: {result.faults} faults; {codes}")
        say(f"{name}: took", took_s, "s")


@bench("trial-soak", "8 hours of show on the virtual clock, in bad weather")
def try_soak(say: Say) -> None:
    for name in ("kaltura", "tavus"):  # Avaturn ends a session after an hour
        took_s, soaked = timed(lambda name=name: soak(name, 8 * HOUR_MS))  # type: ignore[misc]
        print(f"  {name}: {soaked.lines} lines, {soaked.grades}, {soaked.failures} failed at the provider")
        say(f"{name}: more memory after 8 hours than after 2", soaked.grown_kb, "kB", target=64.0)
        say(f"{name}: more descriptors", soaked.descriptors, "", target=4)
        say(f"{name}: took", took_s, "s")


@bench("trial-real", "10 minutes of show on the real clock, in bad weather")
def try_real(say: Say) -> None:
    soaked = soak("tavus", HOUR_MS // 6, "system", every_ms=5_000)
    print(f"  {soaked.lines} lines, {soaked.grades}, {soaked.failures} failed at the provider")
    say("memory that it left", soaked.grown_kb, "kB", target=600.0)  # of lines that are remembered; there are fewer than are kept
    say("more descriptors", soaked.descriptors, "", target=4)


@bench("trial-huge-log", "logs of 2 GB, good ones and bad ones, through every reader: memory beside that for a log of 2 MB")
def try_huge_logs(say: Say) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for read in read_huge_logs(Path(folder), 2_000_000_000, 2_000_000):
            say(f"{read.what}: more memory", read.peak_mb - read.small_mb, "MB", target=6.0, yardstick=("for 2 MB", read.small_mb))
