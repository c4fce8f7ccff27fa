"""What all tests share: the switch that rewrites golden files, and a command line to try."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest
from hypothesis import settings

from .commands import shell, speech_cache

__all__ = ["shell", "speech_cache"]

settings.register_profile("suite", deadline=None, derandomize=True)  # property tests are the same every time
settings.load_profile("suite")

gc.set_threshold(700, 10, 100)  # a full collection looks through all libraries and tests: at its usual pace, a tenth of the suite's time


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One worker more than there are cores: much of the time passes with waiting for child processes and the disk."""
    return (yield) + 1


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what came out into the golden files, to be reviewed as a diff")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update-golden"))
