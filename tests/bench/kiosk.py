"""Kiosks: a week in a minute, silences, an outage of a day, kills, memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench import Say, bench, timed
from tests.trials import kiosk

IN_MEMORY = Path("/dev/shm")


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None)


@bench("kiosk-week", "63 opening hours, 400 visitors, 12 outages, 3 caps a day, three clouds, on the virtual clock")
def measure_week(say: Say) -> None:
    with _folder() as folder:
        _, week = timed(lambda: kiosk.week(Path(folder)))
    say("took", week.took_ms / 1000, "s", target=60)
    say("visitors", week.asked, "")
    say("  not welcomed to the end", week.asked - week.welcomed, "", target=0)
    say("sessions created", week.created, "")
    say("  open at the end", week.left_open, "", target=0)
    say("  open outside the hours", week.outside, "", target=0)


@bench("kiosk-silence", "the silence when a rung dies in a line, on the real clock")
def measure_silence(say: Say) -> None:
    for below, target in (("kaltura", 2_000), ("local", 4_000)):
        with _folder() as folder:
            say(f"with {below} below", kiosk.silence(Path(folder), below), "ms", target=target)


@bench("kiosk-away", "the first rung is away for a day")
def measure_away(say: Say) -> None:
    with _folder() as folder:
        away = kiosk.day_away(Path(folder))
    say("shows", away.shows, "")
    say("  not to the end", away.broken, "", target=0)
    say("tries", away.tries, "", target=65)
    say("seconds that are missing to 10 minutes between two tries", max(0.0, 600 - away.least_pause_s), "s", target=1)
    say("back after its return", away.back_s, "s", target=600)


@bench("trial-kiosk-kill", "kill -9 at 50 random moments of a kiosk under its supervisor, on the real clock")
def try_kills(say: Say, kills: int = 50) -> None:
    with tempfile.TemporaryDirectory() as folder:
        killed = kiosk.kill(Path(folder), kills)
    say("sessions that are left open", killed.left_open, "", target=0)
    say("lines said twice", killed.twice, "", target=0)
    say("slowest way back, to the end of the next show", killed.slowest_s, "s", target=10)


@bench("trial-kiosk-month", "a month on the virtual clock: memory")
def try_month(say: Say) -> None:
    with _folder() as folder:
        say("more memory after day 30 than after day 2", kiosk.month(Path(folder)), "MB", target=1)
