"""Bytes to plan: the playbook language.

* `format`: the schema of playbooks, and what to do about their authors' mistakes
* `check`: a file as written: is it a part, which steps has it; `doubts`: text that was perhaps not meant so
* `variables`, `scope`: the names of a file, and where their values come from
* `templates`, `values`, `expressions`, `sandbox`, `render`: templates, scalar by scalar
* `expand`, `parts`: includes, loops, conditions, ids
* `verbs`: what each verb is; `steps`, `times`, `sounds`: one step of it
* `sessions`: the session settings; `lines`: tables of lines; `pronounce`: how words are spoken
* `cues`, `checks`: when each step is expected, and what is wrong with the whole
* `plan`: all of it in order; `plan_json`: the digest, `plan.json`; `editor_schema`: one schema for editors

The language knows no provider, no sound, no clock and no environment: what it must know of them it asks of an `Installation`. May be
imported by everything but `errors`, `model`, `events`, `ports` and `formats`.
"""

from playbook.language.cues import Cue, cues, total_ms
from playbook.language.installation import Installation
from playbook.language.lines import unnamed
from playbook.language.plan import as_written, check_file, compile_file, compile_text, list_lines
from playbook.language.plan_json import digest, plan_from_json, plan_to_json
from playbook.language.variables import Inputs

__all__ = [
    "Cue",
    "Inputs",
    "Installation",
    "as_written",
    "check_file",
    "compile_file",
    "compile_text",
    "cues",
    "digest",
    "list_lines",
    "plan_from_json",
    "plan_to_json",
    "total_ms",
    "unnamed",
]
