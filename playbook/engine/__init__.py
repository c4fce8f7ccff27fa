"""The deterministic step engine: events in, effects out. `Engine` is the door; nobody outside needs more.

`cursor` knows which step it is and when it is due, `ledger` what was said and on what evidence, `engine` brings them together, `effects`
is what all three write to. The room is pure: it knows no clock, file, network or provider, and the time of an event comes with the event.
The same plan and the same events at the same times give the same effects, which is what `replay` proves.
"""

from playbook.engine.engine import Engine, Result

__all__ = ["Engine", "Result"]
