"""The trials of `tests/trials`, each for a second or two. At full length they are `python -m tests.bench trial`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trials import fuzz
from tests.trials.crowd import crowd
from tests.trials.kill import kill
from tests.trials.soak import soak
from tests.trials.wrong import wrong_playbooks

VENDORS = ["kaltura", "avaturn", "tavus"]


def test_bytes_that_are_no_playbook():
    """The reader answers with problems, whatever it is given."""
    fuzz.yaml_reader(80)


def test_templates_that_are_none():
    """So does the renderer, also when it is asked for the moon."""
    fuzz.template_renderer(80)


def test_logs_that_were_bent():
    """`replay` and `diff` say what is wrong with a log, and never fall over it."""
    fuzz.log_reader(25)


@pytest.mark.parametrize("name", VENDORS)
def test_a_vendor_that_answers_nonsense(name: str):
    """Whatever a vendor answers, the run comes to its end with a good log."""
    fuzz.vendor_answers(name, 10)


@pytest.mark.parametrize("name", VENDORS)
def test_clients_that_ask_nonsense(name: str):
    """Whatever an emulator is asked, it refuses it or does it, and lives."""
    fuzz.emulator_requests(name, 10)


def test_wrong_playbooks():
    """What the schema refuses, we refuse, with a code and a line."""
    tried = wrong_playbooks(120)
    assert tried.invalid > 60
    assert len(tried.codes) >= 8


@pytest.mark.parametrize("name", VENDORS)
def test_kill_9(name: str, tmp_path: Path):
    """After kills in the middle of creating, speaking and closing, `sessions end --all` leaves nothing open, on the vendor's own count."""
    killed = kill(name, tmp_path, 1, ("create, not yet answered", "say", "close, not yet carried out"))
    assert killed.survived == 0
    assert killed.left_open >= killed.unseen > 0
    assert (killed.open_after, killed.listed_after) == (0, 0)


@pytest.mark.parametrize("name", ["kaltura", "tavus"])
def test_a_crowd(name: str, tmp_path: Path):
    """Sessions at once, with bad luck among them: all are ended, and no log knows of another's show."""
    assert crowd(name, 8, tmp_path, lines=3, share=0.2).faults > 0


@pytest.mark.parametrize("name", ["kaltura", "tavus"])
def test_a_long_show_in_bad_weather(name: str):
    """Five minutes of it: no more descriptors, hardly more memory, a grade for every line."""
    soaked = soak(name, 300_000)
    assert soaked.lines == 30
    assert soaked.descriptors <= 4, "a connection or two, whose both ends are here"
    assert soaked.grown_kb / soaked.lines < 8, soaked


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kaltura", "tavus"])
def test_memory_is_flat(name: str):
    """Three hours of it: when as many lines have been spoken as are remembered, the rest of the show leaves nothing behind."""
    soaked = soak(name, 3 * 3_600_000)
    assert soaked.grown_kb < 64, soaked
    assert soaked.descriptors <= 4
