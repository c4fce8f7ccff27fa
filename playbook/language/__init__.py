"""Bytes to plan: the playbook language.

* `judge`: what is wrong by the JSON Schemas, in plain words
* `check`: a file as written: is it a part, which steps has it
* `variables`, `render`, `evaluate`: where values come from; templates, scalar by scalar
* `expand`: includes, loops, conditions, ids
* `steps`: one step of it, with its durations and its sound
* `cues`: when each step is expected
* `plan`: all of it in order
* `plan_json`: the digest, `plan.json`

The language knows no provider, no sound, no clock and no environment: what it must know of them it asks of a `World`. May be imported by
everything but `errors`, `model` and `events`.
"""

from playbook.language.cues import Cue, cues, total_ms
from playbook.language.plan import World, check_file, compile_file, compile_text
from playbook.language.plan_json import digest, plan_from_json, plan_to_json
from playbook.language.variables import Inputs

__all__ = [
    "Cue",
    "Inputs",
    "World",
    "check_file",
    "compile_file",
    "compile_text",
    "cues",
    "digest",
    "plan_from_json",
    "plan_to_json",
    "total_ms",
]
