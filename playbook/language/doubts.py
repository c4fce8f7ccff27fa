"""Text of which it is doubtful that it was meant as it is written."""

from __future__ import annotations

import re
from itertools import islice

from playbook.errors import Place
from playbook.formats.findings import Findings
from playbook.formats.source import Node, cutting_comment
from playbook.language.scope import Scope

_NEARLY = re.compile(r"(?<!\{)\{[ ]*([A-Za-z_]\w*)[ ]*\}\}?(?!\})|\$\{?([A-Za-z_]\w*)\}?")
"""What is a variable in other languages, `{visitor}`, `$visitor`, `${visitor}`, or would be one with another brace, `{ visitor }}`."""
_MARKUP = re.compile(r"</?(?:speak|break|prosody|emphasis|phoneme|say-as)\b[^<>]*>?")
"""Tags of SSML."""


def doubt_comments(say: Node, findings: Findings, via: tuple[Place, ...]) -> None:
    """Doubt a comment that was probably meant as the rest of a line. Where nothing is said, nothing is lost."""
    for text in (say, say.get("text"), *say.at(["chunks"]).entries()):
        if text is not None and isinstance(text.data, str) and (comment := cutting_comment(text)) is not None:
            remedy = "if it is spoken, put the text in quotes; if it is a comment, two spaces stand before the # and one behind it"
            findings.add("PB120", "the text ends here: # begins a comment", comment, remedy, via=via, severity="warning")


def doubt_text(say: Node, scope: Scope, findings: Findings, via: tuple[Place, ...]) -> None:
    """Doubt text that other programs would not say as it is written."""
    for node in (say, *(child for _, child in say.items()), *say.at(["chunks"]).entries()):
        text = node.data
        if not isinstance(text, str):
            continue
        if "{" not in text.replace("{{", "") and "$" not in text and "<" not in text:
            continue
        doubts = []
        for match in _NEARLY.finditer(node.raw):
            if name := scope.name_like(match[1] or match[2]):
                remedy = f'a variable is written "{{{{ {name} }}}}", in quotes or within text'
                doubts.append((match, "PB312", f"'{match[0]}' is said as it stands", remedy))
        for match in islice(_MARKUP.finditer(node.raw), 1):
            remedy = "text is text: a pause is a `wait` step, or `chunks` with {wait: …}"
            doubts.append((match, "PB313", f"the tag '{match[0]}' is no text", remedy))
        for match, code, message, remedy in doubts:
            place = node.document.place(node.start + match.start(), node.start + match.end())
            findings.add(code, message, place, remedy, via=via, severity="warning")
