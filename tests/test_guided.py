"""The targets of the coverage-guided trial, tried without its fuzzer: good samples, and what accidents make of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.logs import ROOT
from tests.trials.fuzz import bent, hold
from tests.trials.targets import TARGETS, Script, perform_script

VENDORS = ["kaltura", "avaturn", "avaturn-external", "tavus", "tavus-microphone"]


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_read_holds_together(name: str):
    """Samples, and what cutting, splicing and doubling make of them, are read or refused, and what is read keeps its promises."""
    target = TARGETS[name]
    seeds = target.seeds()
    for seed in seeds[:30]:
        target.read(seed)
    hold(20, bent(seeds), target.read)


@pytest.mark.parametrize("name", VENDORS)
def test_the_first_script_of_each_vendor_is_a_good_show(name: str):
    """The seeds lead all the way through a run, or the fuzzer would only ever see the door."""
    code, log = perform_script(name, Script.of(TARGETS[name].seeds()[0]))
    assert code == 0
    assert '"failed":0' in log.splitlines()[-1]


def test_without_the_fuzzer_the_trial_says_how_to_get_it_and_fails():
    """A trial that could not be made is no trial that was passed."""
    hide = "import sys; sys.modules['atheris'] = None; from tests.bench.__main__ import main; sys.exit(main(['trial-guided', '1']))"
    done = subprocess.run([sys.executable, "-c", hide], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'atheris>=3.0'" in done.stdout
