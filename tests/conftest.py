"""What all tests share: the switch that rewrites golden files, a command line to try, and what happens where there is no browser."""

from __future__ import annotations

import gc
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

from .commands import shell, speech_cache
from .remotes import MOSQUITTO
from .stages import CHROMIUM

__all__ = ["shell", "speech_cache"]

settings.register_profile("suite", deadline=None, derandomize=True)  # property tests are the same every time
settings.load_profile("suite")

gc.set_threshold(700, 10, 100)  # a full collection looks through all libraries and tests: at its usual pace, a tenth of the suite's time


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One worker more than there are cores: much of the time passes with waiting for child processes and the disk."""
    return (yield) + 1


NEEDS = {
    "browser": (CHROMIUM, "tests of the stage's pages", "there is no Chromium: apt install chromium"),
    "broker": (MOSQUITTO, "tests of the control by MQTT", "there is no broker: apt install mosquitto"),
}
"""What tests with a marker need, what they are tests of, and how it is got."""
_left_out = pytest.StashKey[dict[str, int]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What needs something that is not there is left out, and said to be."""
    config.stash[_left_out] = {}
    for marker, (there, _, _) in NEEDS.items():
        left_out = [] if there else [item for item in items if item.get_closest_marker(marker)]
        if left_out:
            config.stash[_left_out][marker] = len(left_out)
            items[:] = [item for item in items if item not in left_out]
            config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Each worker of xdist has collected the same, and tells the one that reports."""
    node.config.stash[_left_out] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["left_out"] = session.config.stash.get(_left_out, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for marker, number in config.stash.get(_left_out, {}).items():
        _, what, why = NEEDS[marker]
        terminalreporter.section(f"LEFT OUT: {number} {what}", red=True, bold=True)
        terminalreporter.line(f"because {why}", red=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what came out into the golden files, to be reviewed as a diff")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update-golden"))
