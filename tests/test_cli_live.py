"""`check --live`: calls that cost nothing, and this machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from playbook import clock
from playbook.errors import PlaybookError
from playbook.providers.base import ProbesAccess
from playbook.testing import stands_of
from playbook.testing.stands import Stand, plan_for, say
from playbook.transports.factory import transports_for
from tests.contract import PROVIDERS

from .commands import Shell

STANDS = {name: make for provider in PROVIDERS for name, make in stands_of(provider).items() if make().emulator is not None}


async def probe(stand: Stand, env: dict[str, str]) -> list[str]:
    assert isinstance(stand.provider, ProbesAccess)
    plan = replace(plan_for(stand, say("hello")), provider=stand.provider.name)
    return list(await stand.provider.probe(plan, env, transports_for(stand.provider.name, env)))


@pytest.mark.parametrize("name", STANDS)
def test_every_vendor_is_asked_without_opening_a_session(name: str):
    """A good key is found good at each emulator, over real sockets, and nothing is created."""

    async def main() -> None:
        async with STANDS[name]().open() as stand:
            assert await probe(stand, dict(stand.env))
            assert stand.emulator is not None
            assert not stand.emulator.sessions

    clock.run(main(), "virtual")


@pytest.mark.parametrize("name", STANDS)
def test_a_missing_key_is_told(name: str):
    """Without credentials nothing is asked, and the variable is named."""

    async def main() -> None:
        async with STANDS[name]().open() as stand:
            env = {key: value for key, value in stand.env.items() if "KEY" not in key and not key.startswith("KALTURA_KS")}
            with pytest.raises(PlaybookError) as refused:
                await probe(stand, env)
            assert "_KEY" in str(refused.value) or "KALTURA_KS" in str(refused.value)

    clock.run(main(), "virtual")


def test_the_local_voice_and_the_disk_are_looked_at(shell: Shell):
    """One line for each thing, and exit 0 while a show is possible."""
    done = shell.call("check", shell.write("hello.yaml"), "--live")
    assert done.code == 0
    assert "good: the local voice is installed" in done.out
    assert "MB free for runs" in done.out


def test_what_stands_in_the_way_is_exit_4(shell: Shell):
    """An address at which nobody listens: what is not good, and what to do."""
    shell.write("show.yaml", "version: 1\nprovider: tavus\nsession: {pal_id: p1}\nstart: 0s\ntimeline: [{wait: 1s}]\n")
    done = shell.call("check", "show.yaml", "--live", TAVUS_API_KEY="key", TAVUS_BASE_URL="http://127.0.0.1:1")
    assert done.code == 4
    assert "not good: tavus: " in done.out
    wrong = shell.write("wrong.yaml", "version: 1\nprovider: local\ntimeline: [{sya: x}]\n")
    assert shell.call("check", wrong, "--live").code == 3
