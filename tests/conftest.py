"""What all tests share: the switch that rewrites golden files, and a command line to try."""

from __future__ import annotations

import pytest
from hypothesis import settings

from .commands import shell, speech_cache

__all__ = ["shell", "speech_cache"]

settings.register_profile("suite", deadline=None, derandomize=True)  # property tests are the same every time
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what came out into the golden files, to be reviewed as a diff")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update-golden"))
