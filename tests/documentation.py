"""The tables of the documentation that the code knows, and the pages that they stand in.

In a page, what stands between `<!-- made: NAME -->` and `<!-- /made -->` is made by `TABLES[NAME]`; the page `problems` is made whole.
`pytest tests/test_docs.py --update-golden` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from playbook.formats.schema import load_schema
from playbook.providers import registry

from .logs import ROOT

DOCS = ROOT / "playbook" / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
_MADE = re.compile(r"(<!-- made: ([\w-]+) -->\n)(.*?)(<!-- /made -->)", re.DOTALL)

EXIT_CODES = {
    "0": "everything planned was done",
    "1": "a step, an expectation or a comparison failed; a stall",
    "2": "wrong usage of the command line: an unknown option, a path to read that is missing, a run folder that is in use",
    "3": "the playbook is wrong, or the provider cannot do what it asks",
    "4": "the world: provider, network, session, credentials, disk",
    "5": "nothing matched, nothing ran; nobody came within `limits.max_wait`",
    "6": "refused by policy: a limit, a cap, a budget",
    "70": "a bug of this program",
    "130, 143": "stopped by SIGINT or the signal `end`, or by SIGTERM or SIGHUP, after the session was closed",
}
SHORT = {
    "say": ("text", "`{text, voice?}`, or `{chunks, voice?}`: one utterance, streamed in pieces"),
    "audio-echo": ("a sound file, relative to the file it stands in", "`{file}`, or `{base64, sample_rate, format: pcm16}`"),
    "wait": ("a duration, or `speech`", "`{event, timeout, on_timeout: fail or continue}`: a trigger"),
    "interrupt": ("nothing", ""),
    "end": ("nothing: lets the last line finish", "`{drain: false}` cuts it"),
}


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ").strip() for cell in cells) + " |\n"

    return line(head) + line(("---",) * len(head)) + "".join(map(line, rows))


def _definitions() -> Mapping[str, dict]:
    return load_schema("language.schema.json")["definitions"]


def verbs() -> str:
    rows = ((f"`{verb}`", _definitions()[f"{verb}-step"]["description"], *SHORT[verb]) for verb in SHORT)
    return table(("verb", "meaning", "short form", "long form"), rows)


def modifiers() -> str:
    definitions = _definitions()
    keys = {key: None for verb in SHORT for key in definitions[f"{verb}-step"]["properties"] if key not in SHORT}

    def meaning(key: str) -> str:
        found = next(definitions[f"{verb}-step"]["properties"][key] for verb in SHORT if key in definitions[f"{verb}-step"]["properties"])
        name = found.get("$ref", "").rpartition("/")[2]
        return str(found.get("description") or definitions.get(name, {}).get("description", ""))

    return table(("modifier", "meaning"), ((f"`{key}`", meaning(key)) for key in keys))


def limits() -> str:
    found = _definitions()["limits"]["properties"]
    return table(("in `limits`", "meaning"), ((f"`{name}`", it["description"]) for name, it in found.items()))


def grades() -> str:
    import playbook.model as model

    source = Path(model.__file__).read_text("utf-8")
    body = source[source.index("class Evidence(") :].partition("\n\n\n")[0]
    found = re.findall(r'^    (\w+) = \d+\n    """(.*?)"""', body, re.MULTILINE | re.DOTALL)
    return table(("grade", "meaning"), ((f"`{name}`", text) for name, text in reversed(found)))


def exit_codes() -> str:
    return table(("exit code", "meaning"), EXIT_CODES.items())


TABLES: Mapping[str, Callable[[], str]] = {
    "verbs": verbs,
    "modifiers": modifiers,
    "limits": limits,
    "grades": grades,
    "exit-codes": exit_codes,
}


def made(text: str) -> str:
    """A page with its tables made anew."""
    return _MADE.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], text)


def problems() -> str:
    """The page of all problems: each with its title and what `check` shows of one."""
    parts = ["# Problems\n\nEvery mistake in a playbook has a code. `playbook help PB203` shows the entry of one.\n"]
    for code, title in registry.codes().items():
        cases = sorted((ROOT / "tests" / "problems").glob(f"{code}-*"), key=lambda case: len((case / "expected.txt").read_text("utf-8")))
        shown = next(
            part.strip("\n")
            for case in cases
            for part in (case / "expected.txt").read_text("utf-8").split("\n\n")
            if part.startswith((f"error[{code}]", f"warning[{code}]"))
        )
        parts.append(f"## {code} {title}\n\n```text\n{shown}\n```\n")
    return "\n".join(parts)
