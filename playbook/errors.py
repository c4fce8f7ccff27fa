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

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

CODES: Mapping[str, str] = {
    # reading: YAML, files, includes
    "PB101": "the file cannot be read",
    "PB102": "the file is empty",
    "PB103": "the file is not UTF-8 text",
    "PB104": "the file is too large",
    "PB105": "the YAML is malformed",
    "PB106": "a tab stands where YAML wants spaces",
    "PB107": "a key is written twice",
    "PB108": "an alias is unknown, contains itself or grows too large",
    "PB109": "the data is nested too deep",
    "PB110": "a merge key",
    "PB111": "a second document in one file",
    "PB112": "a tag that is not plain data",
    "PB113": "a key that is not text",
    "PB114": "a number that is infinite or too large",
    "PB115": "an included file cannot be read",
    "PB116": "a part includes itself",
    "PB117": "includes are nested too deep",
    "PB118": "what is included is no part",
    "PB119": "a file of variables is wrong",
    "PB120": "text that a comment cuts off",
    # schema: the shape of the data
    "PB201": "the file is not a playbook",
    "PB202": "a key is missing",
    "PB203": "an unknown key",
    "PB204": "a value of the wrong type",
    "PB205": "a value that is not one of those allowed",
    "PB206": "a step without a verb",
    "PB207": "a step with more than one verb",
    "PB208": "not a duration",
    "PB209": "a number out of range",
    "PB210": "text that is not text",
    "PB211": "an unknown version of the language",
    "PB212": "an unknown provider",
    "PB213": "a key that does not apply to this verb",
    "PB214": "text that does not have the form it must have",
    "PB215": "too short or too long",
    "PB216": "keys that exclude or need each other",
    "PB217": "a value that does not fit the schema",
    "PB218": "a playbook without a provider, or a part",
    # templates and variables
    "PB301": "a malformed template",
    "PB302": "an undefined name in a template",
    "PB303": "a template statement",
    "PB304": "a template where none may stand",
    "PB305": "something that templates may not do",
    "PB306": "a template that cannot be computed",
    "PB307": "a template that asks for too much",
    "PB308": "a required variable without a value",
    "PB309": "a variable's value of the wrong type",
    "PB310": "a value for a variable that is not declared",
    "PB311": "a part is given a variable it does not declare",
    "PB312": "text that is nearly a template",
    "PB313": "markup that would be read out",
    # plan and capabilities
    "PB401": "two steps with one id",
    "PB402": "a step after the end",
    "PB403": "an end inside a part",
    "PB404": "a sound file that cannot be read",
    "PB405": "a sound that is not audio",
    "PB406": "sound that is not base64",
    "PB407": "a pause with nothing on one side",
    "PB408": "too many steps",
    "PB410": "the provider cannot say text",
    "PB411": "the provider cannot play audio",
    "PB412": "the provider cannot be interrupted",
    "PB413": "the provider cannot change the voice for a line",
    "PB414": "a cost limit without a price",
    "PB415": "the plan is longer than its own limit",
    "PB416": "the plan is longer than the provider's session",
    "PB417": "a silence longer than the provider allows",
    "PB418": "the plan costs more than its own limit",
    "PB419": "evidence that this provider can never give",
    "PB420": "an expectation that nothing can meet",
    "PB430": "a cue that comes too late",
    "PB431": "session settings that belong to another provider",
    "PB432": "an interrupt with nothing to stop",
    "PB433": "a wait that may outlast the provider's patience",
    "PB434": "seconds where milliseconds may be meant",
    "PB435": "an until that goes on long after the line",
    "PB436": "a placeholder of the starter",
    "PB437": "a timeout that is sure to strike",
    "PB438": "a pronunciation that no line uses",
    "PB440": "a table of lines that cannot be read",
    "PB441": "a line that stands in a table twice",
    "PB442": "a line in a table that the playbook does not have",
    "PB443": "a line that a table lacks",
    "PB444": "a template that a translation has lost",
    "PB445": "a translation whose source has changed",
    # kiosks
    "PB501": "a time zone that there is not",
    "PB502": "hours that begin when they end",
    "PB503": "a day that is named twice",
    "PB504": "opening hours that are never",
    "PB505": "a date that there is not",
    "PB506": "a show that there is not",
    "PB507": "a signal that no control can give",
    "PB508": "a cron time that cannot be read, or never comes",
    "PB509": "a rung that is never used",
    "PB510": "a show that no rung can perform",
    "PB511": "a show that one of the rungs cannot perform",
    "PB512": "a budget that the idle show alone exceeds",
    "PB513": "a budget and a rung without a price",
    "PB514": "a show that may wait for ever",
    "PB515": "a time at which the kiosk is never open",
}
"""Every problem there is: code and title. Each has a case under `tests/problems/`. PB120, PB218, PB312, PB313, PB43x and PB445 warn."""


MASK = "***"
"""What stands where a secret may not be shown. Replay compares masked texts, so there is one mask."""


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


def format_problem(problem: Problem) -> str:
    """A problem as text: where, what, and what now. No colour, no line end."""
    lines = [f"{problem.severity}[{problem.code}]: {printable(problem.message)}"]
    place, remedy = problem.place, printable(problem.remedy)
    if place is None:
        return "\n".join([*lines, f"  = {remedy}"] if remedy else lines)
    number = str(place.line)
    margin = " " * len(number)
    lines.append(f"{margin}--> {printable(place.file)}:{place.line}:{place.column}")
    if problem.source:
        source, before, underlined = _window(problem.source, place)
        lines += [
            f"{margin} |",
            f"{number} | {source}",
            f"{margin} | {' ' * before}{'^' * underlined} {remedy}".rstrip(),
        ]
    elif remedy:
        lines.append(f"{margin} = {remedy}")
    lines += [f"{margin} = included at {printable(at.file)}:{at.line}:{at.column}" for at in reversed(problem.via)]
    return "\n".join(lines)


_WINDOW = 120
"""How many characters of a source line are shown."""


def _window(source: str, place: Place) -> tuple[str, int, int]:
    """The part of a source line worth showing, and the cells before and under the carets."""
    start = min(place.column - 1, len(source))
    end = min(start + max(place.length, 1), len(source))
    left = max(0, min(start - _WINDOW // 2, len(source) - _WINDOW)) if len(source) > _WINDOW else 0
    shown = printable(source[left : left + _WINDOW])
    head, tail = ("…" if left else ""), ("…" if left + _WINDOW < len(source) else "")
    before = cells(head + shown[: start - left])
    return f"{head}{shown}{tail}", before, max(1, cells(shown[start - left : end - left]))


def cells(text: str) -> int:
    """How many cells a text takes where all characters are of one width, and those of East Asia of two: a terminal's, a caption's."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000))
"""What moves a cursor, ends a line, turns the direction of all that follows, or is no character. Joiners, and the marks of right-to-left
texts, belong to what is written with them."""
_SHOWN = {code: f"⟨U+{code:04X}⟩" for code in _CONTROLS} | dict.fromkeys(map(ord, "\t\n"), " ")


def printable(text: str, keep: str = "") -> str:
    """A foreign text without power over the screen that it is shown on: control characters, and what overrides the direction of writing,
    are shown by their numbers. `keep` are those that are meant."""
    if text.isprintable():
        return text
    return text.translate({code: shown for code, shown in _SHOWN.items() if chr(code) not in keep} if keep else _SHOWN)


_PARTS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
"""Where a name has its joints: `face_id`, `audio-echo`, `faceId`."""


_LONGEST = 100
"""What is longer is no mistyped name, and to compare it takes the square of its length."""


def near(word: str, words: Iterable[str]) -> str:
    """The one of some words that was surely meant, or nothing: a wrong guess is worse than none.

    What begins or ends with the word, part by part, comes before what merely looks like it: `face` is `face_id` and not `pace`.
    """
    from difflib import SequenceMatcher

    def parts(name: str) -> list[str]:
        return [part.lower() for part in _PARTS.split(name) if part]

    if len(word) > _LONGEST:
        return ""
    given, known = parts(word), [each for each in words if len(each) <= _LONGEST]
    related = [each for each in known if _begins_or_ends(given, parts(each))]
    if len(related) == 1 and len(word) > 2:
        return related[0]
    matcher = SequenceMatcher(b=word.lower())  # what is compared with many is its second
    best, found = 0.0, ""
    for each in known:
        matcher.set_seq1(each.lower())
        least = 0.75 if max(len(word), len(each)) > 4 else 0.8
        if sorted(word.lower()) == sorted(each.lower()):
            least = 0.6  # letters that changed places
        if matcher.real_quick_ratio() >= least and matcher.quick_ratio() >= least and (ratio := matcher.ratio()) >= least and ratio > best:
            best, found = ratio, each
    return found


def _begins_or_ends(one: list[str], other: list[str]) -> bool:
    short, long = sorted((one, other), key=len)
    return bool(short) and short in (long[: len(short)], long[-len(short) :])


def near_or_all(word: str, words: Iterable[str], otherwise: str | None = None) -> str:
    """What to do about a word that is none of these: the one that was meant, or `otherwise`, or all that there are."""
    known = list(words)
    meant = near(word, known)
    if meant:
        return f"did you mean '{meant}'?"
    return f"there are {', '.join(known)}" if otherwise is None else otherwise


def reason_of(error: OSError) -> str:
    """What the system says of it, as the end of a sentence of ours."""
    return (error.strerror or str(error) or type(error).__name__).lower()


class PlaybookError(Exception):
    """Anything we can explain to a person. `remedy` says what to do about it."""

    exit_code = 70

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class UsageError(PlaybookError):
    """The command line was used wrongly."""

    exit_code = 2


class AuthorError(PlaybookError):
    """The playbook is wrong. `problems` holds everything that was found, in file order."""

    exit_code = 3

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        first = next((problem for problem in problems if problem.severity == "error"), problems[0])
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first.code}: {first.message}{more}", remedy=first.remedy)
        self.problems = problems

    def __str__(self) -> str:
        return "\n\n".join(map(format_problem, self.problems))


class SetupError(PlaybookError):
    """This machine is not ready: a credential, an extra, the disk, the network."""

    exit_code = 4


class ProviderError(PlaybookError):
    """The vendor refused, failed or went silent.

    `outcome` says what is known of the request: `refused` (surely not carried out), `ambiguous` (nobody knows), `lost` (the session is
    gone). `status` is the HTTP status where there was one. `retry_after_ms` is what the vendor asked for. `repeated`: the request was sent
    before, and may have been carried out then.
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
        self.repeated = False


class PolicyError(PlaybookError):
    """A limit, a cap or a budget forbids it."""

    exit_code = 6


class RunError(PlaybookError):
    """The session lived and a step, an expectation or a comparison failed."""

    exit_code = 1


class RecordError(PlaybookError):
    """A run log, a plan file or a cassette cannot be read as one."""

    exit_code = 2
