"""The process that carries the request which creates a session: a program, started by `sessions`.

Whoever asked may be killed before it could write down what was created, and then nobody could end it. So this process lives until it is
told that the answer has been noted. If nobody tells it, because nobody is there any more, it writes that down itself. What it cannot
survive is what ends both of them, such as a loss of power.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from playbook.clock import block
from playbook.errors import ProviderError, SetupError
from playbook.journal.courier import serve
from playbook.transports.http import Answer, NetworkError, is_refusal

TRIES, PAUSE_MS = 3_600, 1_000
"""How often, and how long apart, it tries to write: a full disk may have room again."""


def testify(task: Mapping[str, Any], last: Answer | NetworkError | None) -> None:
    """Write down what is known of the session, unless it is on record. Nothing, where nobody can know it."""
    from playbook.journal.journal import Journal  # hardly ever needed, and the run waits for this process to begin

    journal, key = Journal(Path(task["journal"])), task["key"]
    if isinstance(last, Answer) and last.foreign:
        return
    if isinstance(last, Answer) and 200 <= last.status < 300:
        try:
            session = last.need(task["id_field"])
        except ProviderError:
            return
        given = last.fields()
        end = {name: given[name] for name in task["end_fields"] if name in given}
        _surely(lambda: journal.found(key, task["who"], session, end))
    elif last is None:
        _surely(lambda: journal.never_was(key, "never created: the run was killed before it could ask"))
    elif isinstance(last, Answer) and is_refusal(last.status):
        _surely(lambda: journal.never_was(key, f"never created: the run was killed, and the service answered {last.status}"))
    elif isinstance(last, NetworkError) and last.outcome == "refused":
        _surely(lambda: journal.never_was(key, f"never created: the run was killed, and {last.message}"))


def _surely(write: Callable[[], None]) -> None:
    for _ in range(TRIES):
        try:
            return write()
        except SetupError:
            block(PAUSE_MS)
    return None


def main() -> None:
    asyncio.run(serve(socket.socket(fileno=0), testify))
    os._exit(0)  # nothing is left to be done, and somebody waits


if __name__ == "__main__":
    main()
