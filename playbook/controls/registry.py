"""Which controls there are: those of the entry points `playbook.controls`, by the scheme of their address (`osc://127.0.0.1:9000`)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from playbook.errors import SetupError, UsageError, near_or_all
from playbook.ports import Control

GROUP = "playbook.controls"


class Addressed(Protocol):
    """A kind of control that is reached by an address."""

    def at(self, address: SplitResult, env: Mapping[str, str]) -> Control:
        """The control at an address. Raises `UsageError` where it is none. Connects to nothing yet."""


def control(address: str, env: Mapping[str, str]) -> Control:
    """The control at an address. Raises `UsageError` or `SetupError`."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"'{address}' is no address: {error}") from error
    point = found.get(parts.scheme)
    if point is None:
        raise UsageError(
            f"there is no control '{parts.scheme or address}'", remedy=near_or_all(parts.scheme, found, "write osc://127.0.0.1:9000")
        )
    try:
        kind: Addressed = point.load()
    except ImportError as error:
        raise SetupError(f"the control '{parts.scheme}' cannot be loaded: {error}") from error
    return kind.at(parts, env)
