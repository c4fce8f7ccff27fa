"""A recorded log through today's engine: does the same still follow from the same?

The lines of a log are inputs (events from outside) and what followed from each: commands, notes, and the sightings that the engine settled
itself. Replay hands the inputs to a fresh engine, at their recorded times, and compares what follows with what is written. There is no
clock, no provider and no second opinion: the first difference is the answer, and it is data.

Reading is line by line; memory does not grow with the log. A log that is cut off or damaged is replayed as far as it goes, and the result
says how far that was. A `***` in a log stands for what was hidden there, and so for any text.

Pure: imports the engine, its words and the record's own.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from playbook.engine import Engine
from playbook.events import Conflict, Effect, SpeechStarted, Trigger
from playbook.model import Plan, Say
from playbook.record.expect import failed_expectations, judged
from playbook.record.redact import agrees
from playbook.record.runlog import Line, LogReader, to_event, to_line
from playbook.record.summary import RunSummary

MAX_SHOWN = 100
"""How many lines of one divergence are kept: enough to see it, and a log of nothing but differences does not fill the memory."""
_NOT_ITS_OWN = ("internal error", "disk: ", "the sound ", "cassette: ")
"""How reasons begin for which a run ended though its engine had not: a bug of that time, a full disk, a sound file that was gone, a
cassette that was missed."""
_OTHER_WORDS = "the provider says other words than the plan"


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first place where today's engine does something else.

    `line` counts in the file, from 1 (the header). `event` is the input that was handled, None at the very beginning. `recorded` and
    `now` are what follows from it, from the first difference on (None: nothing more); `missing` was recorded and does not come now, `extra`
    comes now and was not recorded. Lines are as in the log, without `n` and `at_ms`.
    """

    line: int
    at_ms: int
    step: str | None
    event: Line | None
    recorded: Line | None
    now: Line | None
    missing: tuple[Line, ...] = ()
    extra: tuple[Line, ...] = ()
    error: str | None = None
    """The engine did not answer at all: it raised this."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay. `lines` were read below the header; `damage` says why reading stopped before the log's own last line."""

    header: Line
    summary: RunSummary
    lines: int
    events: int
    divergence: Divergence | None
    damage: str | None

    @property
    def identical(self) -> bool:
        """The whole log was read and everything in it happened again."""
        return self.divergence is None and self.damage is None


def replay(log: LogReader, plan: Plan, engine: Engine | None = None) -> Replay:
    """Replay a log of `plan`. Raises `RecordError` when a line is no line of a log."""
    return _Replay(log, plan, engine or Engine(plan)).run()


class _Replay:
    """The work on one log."""

    def __init__(self, log: LogReader, plan: Plan, engine: Engine) -> None:
        self.log, self.plan, self.engine = log, plan, engine
        self.summary = RunSummary()
        self.masked = {
            step.id for step in plan.steps if isinstance(step.action, Say) and any(chunk.shown is not None for chunk in step.action.chunks)
        }
        self.due: deque[Effect] = deque(engine.begin())  # what must follow before the next input
        self.failures: tuple[Conflict, ...] | None = None  # the expectations that did not come true, once the engine is done
        self.input: Line | None = None
        self.divergence: Divergence | None = None
        self._rest: list[Line] | None = None  # after a divergence: what else was recorded for this input
        self.lines = self.events = 0

    def run(self) -> Replay:
        damage, complete = None, False
        try:
            for line in self._with_next_words():
                self.lines += 1
                if self.divergence is None:
                    self._check(line)
                elif self._rest is not None:
                    self._gather(line)
                self.summary.take(line)
        except (KeyError, TypeError, AttributeError) as error:
            damage = f"line {self.lines + 1} is not a line of a run log: {error}"
        else:
            complete = self.log.complete
        self.summary.finish()
        self._close()
        if damage is None and (not complete or self.log.damage is not None):
            damage = self.log.damage or "the log ends before its last line"
        return Replay(self.log.header, self.summary, self.lines, self.events, self.divergence, damage)

    # --- one line ---------------------------------------------------------------------------------------------------

    def _check(self, line: Line) -> None:
        event = to_event(line)
        if event is None:
            return self._check_effect(line)
        if self.due:
            return self._diverge(line, None)
        self.input = line
        self.events += 1
        if isinstance(event, SpeechStarted) and event.text is not None and event.task in self.masked:
            event = replace(event, text=_judged_words(line))
        if isinstance(event, Trigger) and (awaited := self.engine.awaits) is not None and agrees(event.trigger, awaited):
            event = replace(event, trigger=awaited)  # the log may have a mask in its name
        try:
            self.due.extend(self.engine.handle(event, line["at_ms"]))
        except Exception as error:  # an engine that cannot take what it once took has diverged, in whatever way
            self.divergence = self._found(line, None, None, error=f"{type(error).__name__}: {error}")
        return None

    def _check_effect(self, line: Line) -> None:
        if not self.due and self.engine.done and self.failures is None:
            self._judge()
        if "end" in line:
            if line["n"] == 1:  # the run was refused before it began
                return None
            if self.due:
                return self._diverge(line, None)
            return self._check_end(line)
        if not self.due or not _same(line, to_line(self.due[0], line["n"], line["at_ms"])):
            return self._diverge(line, line)
        self.due.popleft()
        return None

    def _judge(self) -> None:
        """What the runner adds before the last line: the expectations that did not come true."""
        self.summary.finish()
        result = self.engine.result
        lived = result is not None and result.end in ("passed", "failed")
        self.failures = failed_expectations(self.plan, self.summary) if lived else ()
        self.due.extend(self.failures)

    def _check_end(self, line: Line) -> None:
        if line["end"] in ("error", "failed") and line.get("reason", "").startswith(_NOT_ITS_OWN):
            return
        result = self.engine.result
        if not self.engine.done or result is None:
            self.divergence = self._found(line, _content(line), None)
            return
        result = judged(result, self.failures or (), self.plan)
        now: Line = {"end": result.end} | ({} if result.reason is None else {"reason": result.reason})
        recorded: Line = {key: line[key] for key in ("end", "reason") if key in line}
        if not _same(recorded, now):
            self.divergence = self._found(line, recorded, now, missing=(recorded,), extra=(now,))

    # --- the divergence ---------------------------------------------------------------------------------------------

    def _diverge(self, line: Line, recorded: Line | None) -> None:
        """`recorded` is None where the log has nothing more for this input, but the engine has."""
        now = _content(to_line(self.due[0], 0, 0)) if self.due else None
        self.divergence = self._found(line, None if recorded is None else _content(recorded), now)
        self._rest = []
        if recorded is not None:
            self._rest.append(_content(recorded))
        else:
            self._close()

    def _gather(self, line: Line) -> None:
        assert self._rest is not None
        if "end" in line or ("event" in line and line.get("outcome") != "settled"):
            self._close()
        elif len(self._rest) < MAX_SHOWN:
            self._rest.append(_content(line))

    def _close(self) -> None:
        """All that was recorded for this input is known: say what is missing and what is extra."""
        if self._rest is None or self.divergence is None:
            return
        now = [_content(to_line(effect, 0, 0)) for effect in islice(self.due, MAX_SHOWN)]
        missing, extra = _less(self._rest, now), _less(now, self._rest)
        self.divergence = replace(self.divergence, missing=missing, extra=extra)
        self._rest = None

    def _found(
        self,
        line: Line,
        recorded: Line | None,
        now: Line | None,
        *,
        missing: tuple[Line, ...] = (),
        extra: tuple[Line, ...] = (),
        error: str | None = None,
    ) -> Divergence:
        named = [each.get("step") or each.get("task") for each in (recorded, now, self.input) if each is not None]
        step = next((name for name in named if name), None)
        return Divergence(line["n"] + 1, line["at_ms"], step, self.input, recorded, now, missing, extra, error)

    def _with_next_words(self) -> Iterable[Line]:
        """The lines; a start of speech whose words are hidden comes with what the log says of its words, which nobody can judge again."""
        held: Line | None = None
        for line in self.log:
            if held is not None:
                held[_VERDICT] = line.get("note") == "conflict" and str(line.get("reason")).startswith(_OTHER_WORDS)
                yield held
                held = None
            if line.get("event") == "speech_started" and "text" in line and line.get("task") in self.masked:
                held = line
            else:
                yield line
        if held is not None:
            yield held


_VERDICT = "words differ"


def _judged_words(line: Line) -> str | None:
    return "other words" if line.pop(_VERDICT, False) else None


def _content(line: Line) -> Line:
    return {key: value for key, value in line.items() if key not in ("n", "at_ms")}


def _same(recorded: Line, now: Line) -> bool:
    """Equal, but for what was hidden in the log."""
    if recorded == now:
        return True
    return recorded.keys() == now.keys() and all(_agrees(value, now[key]) for key, value in recorded.items())


def _agrees(recorded: Any, now: Any) -> bool:
    return recorded == now or (isinstance(recorded, str) and isinstance(now, str) and agrees(recorded, now))


def _less(lines: list[Line], others: list[Line]) -> tuple[Line, ...]:
    """The lines that are not among the others, each as often as it is too many."""
    left = Counter(_key(line) for line in others)
    result = []
    for line in lines:
        key = _key(line)
        if left[key]:
            left[key] -= 1
        else:
            result.append(line)
    return tuple(result)


def _key(line: Line) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, repr(value)) for key, value in line.items()))
