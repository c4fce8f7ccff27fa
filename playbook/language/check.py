"""A file as it was written: a playbook or a part, and which of its entries are steps.

A step is known by its one verb and judged by that verb's own definition. What has no verb, or two, is left out; a step that is wrong goes
on, so that everything that is wrong comes out together. What must be known before anything is rendered may hold no template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from playbook.errors import Place, near
from playbook.formats.findings import Findings
from playbook.formats.malformed import COLON, lacks_space
from playbook.formats.source import Node
from playbook.formats.validate import validate
from playbook.formats.wanted import in_words
from playbook.language.doubts import doubt_comments
from playbook.language.format import STEP_KINDS, keys_of_steps, playbook_format, whole_schema

PLAYBOOK_ONLY = ("provider", "session", "sessions", "limits", "start", "pronounce", "lines", "expect")
_OTHER_VERBS: Mapping[str, str] = {
    **dict.fromkeys(("speak", "speech", "text", "line", "tell", "talk"), "did you mean 'say'?"),
    **dict.fromkeys(("pause", "sleep", "delay"), "did you mean 'wait'?"),
    **dict.fromkeys(("play", "audio", "sound"), "did you mean 'audio-echo'?"),
    **dict.fromkeys(("stop", "cancel"), "`interrupt:` stops a line, `end:` the show"),
}
"""What a verb is called elsewhere, and what it is called here."""


@dataclass(slots=True)
class WrittenStep:
    """A step with a verb. `number` counts from 1 in its own timeline, `place` is where its verb stands; `valid`: its schema accepts it."""

    number: int
    verb: str
    node: Node
    valid: bool
    place: Place


def check_file_node(root: Node, findings: Findings, via: tuple[Place, ...]) -> list[WrittenStep] | None:
    """Judge a whole file as written. Its steps, as far as they have a verb; None when there is nothing to go on with."""
    data = root.data
    if not isinstance(data, dict):
        remedy = COLON if isinstance(data, str) and lacks_space(data) else "begin with `version: 1`"
        findings.add("PB201", f"a playbook is a mapping, not {in_words(data)}", root.place, remedy, via=via)
        return None
    kind = "part" if is_part(root) else "playbook"
    good = whole_schema().accepts(data, kind)
    if not good:
        validate(root, playbook_format(), kind, findings, via)
    _refuse_templates(root, findings, via)
    timeline = root.get("timeline")
    steps = []
    commented = " #" in root.document.text or "\t#" in root.document.text  # most files pay nothing for what is asked of comments
    for number, node in enumerate(timeline.entries() if timeline is not None else (), 1):
        if findings.full:
            break
        verb = _verb(node, number, findings, via)
        if verb is None:
            continue
        if commented and verb == "say":
            doubt_comments(node.at(["say"]), findings, via)
        valid = good or validate(node, playbook_format(), f"{verb}-step", findings, via)
        if node.templated:
            for key in ("id", "as"):
                _refuse_template(node.get(key), key, findings, via)
        steps.append(WrittenStep(number, verb, node, valid, node.key_place(verb)))
    return steps


def is_part(root: Node) -> bool:
    """Whether a file is to be included, not performed: nothing in it is a playbook's alone, nor is meant to be `provider`."""
    if not isinstance(root.data, dict) or any(key in root.data for key in PLAYBOOK_ONLY):
        return False
    unknown = (key for key in root.data if key not in playbook_format().schema.definition("part")["properties"])
    return not any(near(key, ("provider",)) for key in islice(unknown, 10))


def _refuse_templates(root: Node, findings: Findings, via: tuple[Place, ...]) -> None:
    for key in ("version", "provider"):
        _refuse_template(root.get(key), key, findings, via)
    variables = root.get("vars")
    for name, variable in variables.items() if variables is not None else ():
        for key, value in variable.items():
            if key != "default":  # a default is refused where it is read, with its variable's name
                _refuse_template(value, f"the {key} of '{name}'", findings, via)


def _refuse_template(node: Node | None, what: str, findings: Findings, via: tuple[Place, ...]) -> None:
    if node is not None and node.templated:
        findings.add("PB304", f"{what} may not hold a template", node.place, "write the value itself", via=via)


def _verb(node: Node, number: int, findings: Findings, via: tuple[Place, ...]) -> str | None:
    """The one verb of a step, or None with the reason among the findings."""
    listed = f"a step has one of {', '.join(STEP_KINDS)}"
    if not isinstance(node.data, dict):
        remedy = f"write `- {node.data}:`" if node.data in ("interrupt", "end") else listed
        if isinstance(node.data, str) and lacks_space(node.data):
            remedy = COLON
        findings.add("PB206", f"step {number} is {in_words(node.data)}, not a step", node.place, remedy, via=via)
        return None
    verbs = [key for key in node.data if key in STEP_KINDS]
    if len(verbs) == 1:
        return str(verbs[0])
    if verbs:
        places = node.key_place(verbs[1])
        findings.add(
            "PB207",
            f"one step with {len(verbs)} verbs: {', '.join(verbs)}",
            places,
            f"begin a new step: `- {verbs[1]}:`",
            via=via,
        )
        return None
    for key in islice(node.data, 20):
        remedy = "" if key in keys_of_steps() else _OTHER_VERBS.get(key) or findings.guess(key, STEP_KINDS, "")
        if remedy:
            findings.add("PB206", f"step {number} has no verb; '{key}' is none", node.key_place(key), remedy, via=via)
            return None
    findings.add("PB206", f"step {number} has no verb", node.place, listed, via=via)
    return None
