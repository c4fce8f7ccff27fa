"""The contract test, for whoever writes a provider. In a test file of the plug-in's, which must be installed:

    from playbook.testing import ProviderContract

    class TestPrompter(ProviderContract):
        def providers(self):
            return [Prompter]

pytest then asks the provider for all that `playbook.providers.base` says that it owes, in each of the ways that it names
in `stands`, and at its emulator if it names one. It fails where the provider opens a socket in another way than by its
transports. Needs pytest.
"""

import pytest

pytest.register_assert_rewrite("playbook.testing.contract")

from playbook.testing.contract import ProviderContract  # noqa: E402 -- it is to be rewritten first
from playbook.testing.stands import Staged, Stand, kept_on, stands_of  # noqa: E402

__all__ = ["ProviderContract", "Staged", "Stand", "kept_on", "stands_of"]
