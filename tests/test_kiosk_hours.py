"""When a kiosk is open and when its shows are due: the hours of the week, exceptions, and summer time in both
directions."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbook.formats.findings import Findings
from playbook.kiosk.file import read_kiosk
from playbook.kiosk.hours import Hours, moment, read_range
from playbook.kiosk.times import Times

BERLIN = ZoneInfo("Europe/Berlin")


def hours(tmp_path: Path, written: str) -> Hours:
    path = tmp_path / "lobby.yaml"
    path.write_text(
        f"version: 1\nkiosk: lobby\ntimezone: Europe/Berlin\nopen: {written}\nshows: {{a: {{playbook: a.yaml}}}}\nladder: [local]\n"
    )
    findings = Findings()
    kiosk, _ = read_kiosk(path, findings)
    assert kiosk is not None, findings.report(str(path))
    return kiosk.hours


def local(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(dt.UTC)


def spans(hours: Hours, after: str, count: int) -> list[str]:
    found = itertools.islice(hours.spans(local(after)), count)
    return [f"{begin.astimezone(BERLIN):%a %d %H:%M} {end.astimezone(BERLIN):%a %d %H:%M}" for begin, end in found]


def test_a_week_with_exceptions(tmp_path: Path):
    """Days and ranges of days have hours; an exception is closed, or has hours of its own."""
    week = hours(
        tmp_path,
        '{mon-fri: ["09:00-12:00", "13:00-18:00"], sat: "10:00-16:00", except: ["2026-12-25..2026-12-26", {"2026-12-24": "09:00-14:00"}]}',
    )
    assert spans(week, "2026-12-23T13:30", 4) == [
        "Wed 23 13:00 Wed 23 18:00",
        "Thu 24 09:00 Thu 24 14:00",
        "Mon 28 09:00 Mon 28 12:00",
        "Mon 28 13:00 Mon 28 18:00",
    ]
    assert week.state(local("2026-12-23T17:59")) == (True, local("2026-12-23T18:00"))
    assert week.state(local("2026-12-23T18:00")) == (False, local("2026-12-24T09:00"))


def test_hours_past_midnight_meet_the_next_day(tmp_path: Path):
    """`22:00-02:00` ends on the next day; hours that meet are one opening; a range of days may go over the weekend."""
    week = hours(tmp_path, '{fri-sun: "22:00-02:00", mon: "02:00-03:00"}')
    assert spans(week, "2026-03-20T12:00", 3) == [
        "Fri 20 22:00 Sat 21 02:00",
        "Sat 21 22:00 Sun 22 02:00",
        "Sun 22 22:00 Mon 23 03:00",
    ]


def test_always_open():
    """Without opening hours the kiosk never closes."""
    assert Hours(BERLIN).state(local("2026-03-29T02:00")) == (True, None)


@pytest.mark.parametrize(
    ("day", "minute", "fold", "expected"),
    [
        ("2026-03-29", 120, 0, "2026-03-29T03:00:00+02:00"),
        ("2026-03-29", 179, 1, "2026-03-29T03:00:00+02:00"),
        ("2026-03-29", 181, 0, "2026-03-29T03:01:00+02:00"),
        ("2026-10-25", 150, 0, "2026-10-25T02:30:00+02:00"),
        ("2026-10-25", 150, 1, "2026-10-25T02:30:00+01:00"),
        ("2026-10-24", 1440, 0, "2026-10-25T00:00:00+02:00"),
    ],
)
def test_local_times_that_are_left_out_or_come_twice(day: str, minute: int, fold: int, expected: str):
    """One that summer time leaves out is the moment at which the clock goes forward; one that comes twice is the
    first or the second."""
    assert moment(dt.date.fromisoformat(day), minute, BERLIN, fold=fold).astimezone(BERLIN).isoformat() == expected


def test_the_nights_of_summer_time_are_an_hour_shorter_and_longer(tmp_path: Path):
    """A kiosk that is open all night is open for seven hours in March and for nine in October."""
    night = hours(tmp_path, '{sat: "22:00-06:00"}')
    lengths = [next(night.spans(local(day))) for day in ("2026-03-28T12:00", "2026-10-24T12:00")]
    assert [(end - begin).total_seconds() / 3600 for begin, end in lengths] == [7, 9]


@given(
    st.datetimes(dt.datetime(2025, 1, 1), dt.datetime(2027, 12, 31)), st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Tokyo"])
)
def test_the_state_changes_when_it_is_said_to_change(now: dt.datetime, zone: str):
    """At the moment that `state` names the other state begins, and it lies ahead."""
    ranges = tuple(range for text in ("01:30-02:45", "22:00-01:00") if (range := read_range(text)))
    week = Hours(ZoneInfo(zone), (ranges,) * 7)
    moment = now.replace(tzinfo=dt.UTC)
    is_open, until = week.state(moment)
    assert until is not None
    assert until > moment
    assert week.state(until)[0] is not is_open
    assert week.state(until - dt.timedelta(microseconds=1))[0] is is_open


@pytest.mark.parametrize(
    ("cron", "after", "expected"),
    [
        ("30 2 * * *", "2026-03-28T12:00", ["29 03:00", "30 02:30"]),
        ("30 2 * * *", "2026-10-24T12:00", ["25 02:30", "26 02:30"]),
        ("0 9-17 * * mon-fri", "2026-03-27T16:30", ["27 17:00", "30 09:00"]),
        ("@daily", "2026-03-28T12:00", ["29 00:00", "30 00:00"]),
    ],
)
def test_cron_and_summer_time(cron: str, after: str, expected: list[str]):
    """A time that is left out is played at the next that there is, one that comes twice is played once."""
    times, now, found = Times(cron, BERLIN), local(after), []
    for _ in expected:
        moment = times.after(now)
        assert moment is not None
        found.append(f"{moment.astimezone(BERLIN):%d %H:%M}")
        now = moment
    assert found == expected


def test_cron_looks_ahead_within_an_hour_that_comes_twice():
    """In the second round of the hour nothing of the first comes again."""
    second_round = dt.datetime(2026, 10, 25, 1, 15, tzinfo=dt.UTC)
    assert Times("30 2 * * *", BERLIN).after(second_round) == local("2026-10-26T02:30")
