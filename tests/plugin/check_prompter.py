"""The contract test of the prompter: `pytest check_prompter.py`, where it is installed."""

from prompter import Prompter

from playbook.testing import ProviderContract


class TestPrompter(ProviderContract):
    def providers(self):
        return [Prompter]
