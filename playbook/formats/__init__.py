"""Files that people and programs write: data with positions, judged by JSON Schemas, with problems that say where and what now.

* `source`: YAML and JSON to data with positions (`malformed`: why a text cannot be read on)
* `findings`: the problems of one file and of what it names
* `schema`: the JSON Schemas, and whether data is valid by them
* `durations`: `1m30s` to milliseconds and back

For playbooks, cassettes, baselines, tables and kiosk files. May be imported by everything but `errors`, `model`, `events` and `ports`.
"""
