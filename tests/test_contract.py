"""The contract test (`playbook.testing`) of every provider of ours, and what it finds in one that does not keep to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from playbook.perform.world import World
from playbook.providers.base import Context, Provider, Session
from playbook.providers.kaltura.provider import KalturaProvider
from playbook.testing import ProviderContract, stands_of
from playbook.transports.http import Http
from tests.contract import PROVIDERS, VOICE


class TestOurs(ProviderContract):
    """Every provider of ours, in each of its ways to perform."""

    def providers(self) -> Iterable[Callable[[], Provider]]:
        return PROVIDERS

    def world(self) -> World:
        return World(voice=VOICE)


class Loner(KalturaProvider):
    """A provider that has its own way to its vendor."""

    def connect(self, context: Context) -> Session:
        session = super().connect(context)
        session._http = Http(context.env["KALTURA_BASE_URL"], in_process=True)
        return session


def test_a_provider_that_opens_a_socket_in_another_way_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It performs well, and a cassette would never see it; the contract test names the address that it connected to."""
    contract = TestOurs()
    check = contract.test_one_performance_follows_another_on_one_session
    [(_, good)] = stands_of(KalturaProvider).items()
    [(_, bad)] = stands_of(Loner).items()
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    check(good, tmp_path / "good", monkeypatch)
    with pytest.raises(AssertionError, match=r"in another way than by its transports: connect 127\.0\.0\.1:\d+"):
        check(bad, tmp_path / "bad", monkeypatch)
