"""A faithful server per vendor on this machine, so that everything can be rehearsed without a key.

`EMULATORS` says which there are; a module is imported only when its emulator is wanted.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playbook.emulators.base import Emulator

EMULATORS: Mapping[str, str] = {
    "avaturn": "playbook.emulators.avaturn:AvaturnEmulator",
    "tavus": "playbook.emulators.tavus:TavusEmulator",
    "kaltura": "playbook.emulators.kaltura:KalturaEmulator",
}


def find(name: str) -> type[Emulator] | None:
    """The emulator of the provider of that name, or None."""
    if name not in EMULATORS:
        return None
    module, _, attribute = EMULATORS[name].partition(":")
    found: type[Emulator] = getattr(importlib.import_module(module), attribute)
    return found
