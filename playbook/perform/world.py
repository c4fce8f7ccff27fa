"""What the language must know of the world: which providers there are, what they can do, how long sounds and lines take.

One `World` serves one process; it keeps the providers it has found, so that a run speaks with the voice that the plan was measured
with. The cache folder and the environment are given by the caller. A provider, the voice or a sound decoder is imported
only when somebody asks for what it knows. May be imported by `runner` and everything below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook.errors import Problem, SetupError
from playbook.folders import user_folder
from playbook.formats.schema import load_schema
from playbook.model import Capabilities, Length, Plan, Say

if TYPE_CHECKING:
    from playbook.providers.base import Provider
    from playbook.providers.local.provider import LocalProvider
    from playbook.speech.voice import Voice


def cache_folder(env: Mapping[str, str]) -> Path:
    """Where speech is kept: `PLAYBOOK_CACHE_DIR`, else the user's cache folder."""
    return user_folder(env, "PLAYBOOK_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def models_folder(env: Mapping[str, str]) -> Path | None:
    """Where the models of voices are: `PLAYBOOK_VOICES_DIR`, else `voices` in the user's folder for data, if there is one."""
    if named := env.get("PLAYBOOK_VOICES_DIR"):
        return Path(named).expanduser()
    try:
        return user_folder(env, "", "XDG_DATA_HOME", ".local/share") / "voices"
    except SetupError:
        return None


def variables(env: Mapping[str, str]) -> dict[str, str]:
    """The values of a playbook's variables that an environment holds, as `PLAYBOOK_VAR_name`."""
    prefix = "PLAYBOOK_VAR_"
    return {name.removeprefix(prefix): value for name, value in env.items() if name.startswith(prefix) and name != prefix}


class World:
    """The language's `World`, made of the installed providers.

    The local voice is `voice`, or one that keeps its speech in `cache_dir` (None: for this process alone) and finds models in `models`.
    """

    def __init__(self, cache_dir: Path | None = None, models: Path | None = None, voice: Voice | None = None) -> None:
        self._cache_dir, self._models = cache_dir, models
        self._voice = voice
        self._found: dict[str, Provider | None] = {}

    @classmethod
    def of(cls, env: Mapping[str, str]) -> World:
        """With the folders that an environment names."""
        return cls(cache_folder(env), models_folder(env))

    def provider(self, name: str) -> Provider | None:
        """The provider of that name, the same one every time. Raises `SetupError` when a plug-in does not load."""
        if name not in self._found:
            from playbook.providers import registry
            from playbook.providers.base import SpeaksLocally

            found = registry.find(name)
            if getattr(found, "lends_voice", False):  # a process has one such voice
                found = self.local
            elif isinstance(found, SpeaksLocally):
                found.local_voice = lambda: self.local.voice
            self._found[name] = found
        return self._found[name]

    @cached_property
    def local(self) -> LocalProvider:
        """The local voice, which also tells how long lines take that another provider has it speak."""
        from playbook.providers.local.provider import LocalProvider
        from playbook.speech.voice import Voice

        # A folder of its own, because the cache lets go of what is old in it.
        return LocalProvider(self._voice or Voice(None if self._cache_dir is None else self._cache_dir / "speech", self._models))

    # what the language asks

    def providers(self) -> Sequence[str]:
        from playbook.providers import registry

        return registry.names()

    def session_schema(self, provider: str) -> Mapping[str, Any] | None:
        found = self.provider(provider)
        return None if found is None else load_schema(str(Path("providers") / found.schema))  # a plug-in's may be an absolute path

    def capabilities(self, provider: str, settings: Mapping[str, Any]) -> Capabilities:
        found = self.provider(provider)
        assert found is not None, "the language asks only for providers that there are"
        return found.capabilities(settings)

    def check(self, plan: Plan) -> Iterator[Problem]:
        found = self.provider(plan.provider)
        if found is None:
            return
        yield from found.check(plan)
        if plan.capabilities.own_voice and self.local.voice.available:
            yield from self.local.failures(plan)
            if plan.capabilities.remote:
                yield from self.local.unknown(plan)
        if not plan.capabilities.remote:  # it has its own word for it, and must not cost the import below
            return
        from playbook.providers.base import SpeaksLocally

        if isinstance(found, SpeaksLocally) and found.needs_voice(plan) and not self.local.voice.available:
            from playbook.speech.voice import REMEDY

            first = plan.texts[0]
            message = "no voice is installed: a run would be refused, because the local voice may have to speak"
            yield Problem("PB456", message, first.place, REMEDY, "warning", via=first.via)

    def sound_length_ms(self, source: Path | bytes) -> int:
        from playbook.speech.audio import measure

        return measure(source)

    def speech_lengths(self, plan: Plan) -> Sequence[Length | None]:
        if plan.capabilities.own_voice:
            return self.local.lengths(plan)
        from playbook.providers.base import PacesLines
        from playbook.speech.pacing import estimate_ms

        found = self.provider(plan.provider)
        if isinstance(found, PacesLines):
            return found.lengths(plan)
        language = plan.session.get("language")
        spoken = language if isinstance(language, str) else None
        return [Length(estimate_ms(step.action.text, spoken), "estimated") if isinstance(step.action, Say) else None for step in plan.steps]
