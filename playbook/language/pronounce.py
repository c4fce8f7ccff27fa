"""Pronunciations: what a provider is sent for a word. Captions, reports and expectations keep its spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from playbook.formats.findings import Findings
from playbook.formats.source import Node
from playbook.language.installation import Installation
from playbook.model import Chunk, Say, Step


def pronounced(
    steps: Iterable[Step],
    table: Mapping[str, Any],
    node: Node,
    provider: str,
    installation: Installation,
    findings: Findings,
) -> tuple[Step, ...]:
    """The steps, with words as this provider is to speak them. `table` is the rendered `pronounce`, and `node` where it stands."""
    words = {word: text for word, text in table.items() if isinstance(text, str)}
    own = table.get(provider)
    places = {word: node.key_place(word) for word in words}
    for name, inner in table.items():
        if not isinstance(inner, str) and installation.session_schema(name) is None:
            remedy = findings.guess(name, installation.providers())
            findings.add("PB212", f"unknown provider '{name}'", node.key_place(name), remedy)
    if isinstance(own, Mapping):
        words |= own
        places |= {word: node.at([provider]).key_place(word) for word in own}
    if not words:
        return tuple(steps)
    longest_first = sorted(words, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
    used: set[str] = set()

    def spoken(match: re.Match[str]) -> str:
        used.add(match[0])
        return words[match[0]]

    def with_words(chunk: Chunk) -> Chunk:
        text = pattern.sub(spoken, chunk.text)
        return chunk if text == chunk.text else replace(chunk, text=text, spelled=chunk.text)

    found = []
    for step in steps:
        if isinstance(step.action, Say):
            step = replace(step, action=replace(step.action, chunks=tuple(map(with_words, step.action.chunks))))
        found.append(step)
    for word in words.keys() - used:
        message = f"no line says '{word}'"
        findings.add("PB438", message, places[word], "remove it, or write it as it stands in the lines", severity="warning")
    return tuple(found)
