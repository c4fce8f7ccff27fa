"""Bytes to plan: the playbook language.

* `findings`: where problems are collected
* `source`: YAML to data with positions
* `schema`, `judge`: the JSON Schemas, and what is wrong by them in plain words
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
from playbook.language.durations import parse_duration, show_duration
from playbook.language.plan import World, check_file, compile_file, compile_text
from playbook.language.plan_json import digest, plan_from_json, plan_to_json
from playbook.language.schema import load_schema, schema_path
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
    "load_schema",
    "parse_duration",
    "plan_from_json",
    "plan_to_json",
    "schema_path",
    "show_duration",
    "total_ms",
]
