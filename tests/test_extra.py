"""`extra`: a field of a vendor's request that this program does not know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from playbook import clock
from playbook.formats.schema import load_schema
from playbook.testing import stands_of
from playbook.testing.stands import plan_for, say
from tests.contract import PROVIDERS, perform

STANDS = {name: make for provider in PROVIDERS for name, make in stands_of(provider).items()}


@pytest.mark.parametrize("name", STANDS)
def test_a_field_that_is_not_known_reaches_the_vendor(name: str, tmp_path: Path):
    """`extra` is sent with the request that creates the session, as it is written; who sends no request takes none."""

    async def main() -> None:
        async with STANDS[name]().open() as stand:
            knows = "extra" in load_schema(f"providers/{stand.provider.schema}")["properties"]
            assert knows == (stand.emulator is not None)
            if stand.emulator is None:
                return
            with_extra = replace(stand, settings={**stand.settings, "extra": {"brand_new": {"level": [1, "two"]}}})
            await perform(with_extra, plan_for(with_extra, say("hello")), tmp_path / "run")  # Tavus refuses it, as it would
            bodies = [entry["body"] for entry in stand.emulator.journal if isinstance(entry.get("body"), dict)]
            assert [body["brand_new"] for body in bodies if "brand_new" in body] == [{"level": [1, "two"]}]
            assert not any("extra" in body for body in bodies)

    clock.run(main(), "virtual")
