"""What can go wrong, sorted by whose fault it is.

    PlaybookError
    ├── UsageError      2  the command line was used wrongly
    ├── AuthorError     3  the playbook is wrong (carries every `Problem` found)
    ├── SetupError      4  this machine is not ready: credentials, extras, disk, network
    ├── ProviderError   4  the vendor refused, failed or went silent
    ├── PolicyError     6  a limit, a cap or a budget forbids it
    ├── RunError        1  the session lived and a step did not work
    └── RecordError     2  a run log or cassette cannot be read as one

Each exception knows its exit code (`exit_code`); nothing else in the package maps errors to exit codes. Anything that is not a
`PlaybookError` is our bug: it keeps its traceback and the process exits with 70.

A `Problem` is a mistake in a playbook: a stable code, a place, what is wrong and what to do. Problems are collected, not raised one by
one; `CODES` holds all of them. This room imports nothing from the package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file. `line` and `column` count from 1, in characters; `length` is how many characters to underline."""

    file: str
    line: int
    column: int
    length: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake in a playbook, as `check` shows it.

    `source` is the text of the line at `place` (empty where there is none); `via` are the places of the includes that led here, outermost
    first. A `warning` is a doubt that is no error.
    """

    code: str
    message: str
    place: Place | None = None
    remedy: str = ""
    severity: Literal["error", "warning"] = "error"
    source: str = ""
    via: tuple[Place, ...] = field(default=())


class PlaybookError(Exception):
    """Anything we can explain to a person. `remedy` says what to do about it."""

    exit_code = 70

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageError(PlaybookError):
    """The command line was used wrongly."""

    exit_code = 2


class AuthorError(PlaybookError):
    """The playbook is wrong. `problems` holds everything that was found, in file order."""

    exit_code = 3

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first.code}: {first.message}{more}", remedy=first.remedy)
        self.problems = problems


class SetupError(PlaybookError):
    """This machine is not ready: a credential, an extra, the disk, the network."""

    exit_code = 4


class ProviderError(PlaybookError):
    """The vendor refused, failed or went silent.

    `outcome` says what is known of the request: `refused` (surely not carried out), `ambiguous` (nobody knows), `lost` (the session is
    gone). `status` is the HTTP status where there was one. `retry_after_ms` is what the vendor asked for.
    """

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        outcome: Literal["refused", "ambiguous", "lost"] = "refused",
        status: int | None = None,
        retry_after_ms: int | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.outcome: Literal["refused", "ambiguous", "lost"] = outcome
        self.status = status
        self.retry_after_ms = retry_after_ms


class PolicyError(PlaybookError):
    """A limit, a cap or a budget forbids it."""

    exit_code = 6


class RunError(PlaybookError):
    """The session lived and a step, an expectation or a comparison failed."""

    exit_code = 1


class RecordError(PlaybookError):
    """A run log, a plan file or a cassette cannot be read as one."""

    exit_code = 2
