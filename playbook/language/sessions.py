"""The session settings of a playbook: rendered, and validated by their own provider's schema.

`session` holds those of the provider that the playbook names; `sessions` those of several providers, by their names. All of them are
checked, whichever provider performs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from playbook.errors import Place
from playbook.formats.findings import Findings
from playbook.formats.schema import Schema
from playbook.formats.source import Node
from playbook.formats.validate import Format, validate
from playbook.language.installation import Installation
from playbook.language.render import Renderer
from playbook.language.scope import Scope
from playbook.language.templates import Budget


@dataclass(frozen=True, slots=True)
class Session:
    """The settings of the provider that performs, the node where they stand, and the place of each, by its path (`visualConfig.id`).

    Under the empty path is where the session, or the provider, is named.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    node: Node | None = None
    places: Mapping[str, Place] = field(default_factory=dict)


@dataclass(slots=True)
class SessionReader:
    """Reads the settings of one playbook. `named` is the provider that it names, `chosen` the one that performs."""

    root: Node
    named: str
    chosen: str
    scope: Scope
    findings: Findings
    budget: Budget
    installation: Installation

    def read(self) -> Session | None:
        """The settings of the chosen provider, or None when any settings are wrong."""
        nodes = self._nodes()
        rendered = {name: self._rendered(name, node) for name, node in nodes.items()}
        wrong = any(settings is None for settings in rendered.values())
        if self.chosen in nodes:
            node = nodes[self.chosen]
            return None if wrong else Session(rendered[self.chosen] or {}, node, self._places(node))
        if not self._may_be_missing(nodes) or wrong:
            return None
        provider = self.root.get("provider")
        at = self._key_place() if nodes else None if provider is None else provider.place
        return Session(places={} if at is None else {"": at})

    def _nodes(self) -> dict[str, Node]:
        """Where settings stand, by their provider."""
        several, single = self.root.get("sessions"), self.root.get("session")
        if several is None:
            return {} if single is None else {self.named: single}
        nodes = dict(several.items())
        for name in nodes:
            if self.installation.session_schema(name) is None:
                remedy = self.findings.guess(name, self.installation.providers())
                self.findings.add("PB212", f"unknown provider '{name}'", several.key_place(name), remedy)
        return nodes

    def _rendered(self, provider: str, node: Node) -> Mapping[str, Any] | None:
        """The settings as their templates give them, or None with the reason among the findings."""
        if not isinstance(node.data, dict):
            return None  # which the playbook's own schema refuses
        schema = self.installation.session_schema(provider)
        renderer = Renderer(self.scope, self.findings, self.budget)
        data: Mapping[str, Any] = renderer.render(node)
        if schema is None:
            return data if renderer.complete else None
        form = Format(Schema(schema), name=f"the session settings of {provider}")
        if not renderer.complete:  # what stands there without a template can be wrong as well
            validate(node, form, "", self.findings)
            return None
        valid = validate(node, form, "", self.findings, data=data, stage="rendered", tainted=renderer.tainted)
        return data if valid and self._extra_is_extra(node, schema, data) else None

    def _extra_is_extra(self, node: Node, schema: Mapping[str, Any], data: Mapping[str, Any]) -> bool:
        """Whether `extra` holds only what is no setting of its own: such a setting is checked, and what is extra is not."""
        known = [key for key in data.get("extra", ()) if key in schema.get("properties", ())]
        for key in known:
            place = node.at(["extra"]).key_place(key)
            message = f"'{key}' is a setting of its own"
            self.findings.add("PB216", message, place, f"write `{key}:` beside `extra`")
        return not known

    def _may_be_missing(self, nodes: Mapping[str, Node]) -> bool:
        """Whether the chosen provider can do without settings; it gets none of another's."""
        if self.chosen != self.named and self.named in nodes and "sessions" not in self.root.data:
            settings = ", ".join(nodes[self.named].data)
            if settings:
                message = f"session settings are left out, because {self.chosen} performs and not {self.named}: {settings}"
                remedy = f"settings for both stand in `sessions: {{{self.named}: …, {self.chosen}: …}}`"
                self.findings.add("PB431", message, self._key_place(), remedy, severity="warning")
            return True
        needed = ", ".join((self.installation.session_schema(self.chosen) or {}).get("required", ()))
        if not needed or (self.chosen != self.named and not nodes):
            return True
        place = self._key_place() if nodes else self.root.at(["provider"]).place
        remedy = f"add `{self.chosen}:` with {needed}" if nodes else f"add `session:` with {needed}"
        self.findings.add("PB202", f"{self.chosen} needs session settings: {needed}", place, remedy)
        return False

    def _key_place(self) -> Place:
        return self.root.key_place("sessions" if "sessions" in self.root.data else "session")

    def _places(self, node: Node) -> Mapping[str, Place]:
        """Where the settings stand, by their path."""
        several = self.root.get("sessions")
        places = {"": self._key_place() if several is None else several.key_place(self.chosen)}

        def walk(node: Node, path: str) -> None:
            for key, child in node.items():
                places[path + key] = node.key_place(key)
                walk(child, f"{path}{key}.")

        walk(node, "")
        return places
