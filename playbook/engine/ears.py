"""Who tells of speech, and whose sound an ear hears. Nothing is decided here about a line: that is the ledger's.

Sources come and go. One whose best grade is `heard` is an *ear*: it reports edges of sound and silence, and knows nothing of lines. Sound
may reach it later than the provider tells of its beginning or end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from playbook.engine.utterances import Utterance
from playbook.model import Evidence

LAG_MS = 1_500
"""How long after its reported end a line may still come to be heard."""


@dataclass(slots=True, eq=False)
class _Ear:
    """What an ear hears now, and whose sound it heard last."""

    hears: bool = False
    line: Utterance | None = None


class Ears:
    """The sources of one performance."""

    def __init__(self, provider: bool) -> None:
        self.sources: dict[str, Evidence] = {"provider": Evidence.reported} if provider else {}
        """Those that have joined, and the best grade that each can give."""
        self._ears: dict[str, _Ear] = {}

    def joined(self, source: str, evidence: Evidence) -> None:
        """It tells of speech from now on."""
        self.sources[source] = evidence
        self._ears[source] = _Ear()

    def left(self, source: str) -> None:
        """It tells nothing any more."""
        del self.sources[source]
        self._ears.pop(source, None)

    @property
    def listening(self) -> bool:
        """Whether there is nobody else who could tell: whoever is joined is an ear."""
        return bool(self.sources) and max(self.sources.values()) <= Evidence.heard

    @property
    def reporting(self) -> bool:
        """Whether somebody is there who reports starts and ends, and does not only hear sound."""
        return any(grade > Evidence.heard for grade in self.sources.values())

    def better(self, source: str) -> bool:
        """Whether another source can give a better grade than this one."""
        return any(grade > self.sources[source] for grade in self.sources.values())

    def hear(self, line: Utterance | None = None) -> bool:
        """Whether any ear hears sound now: that of this line, if one is given."""
        return any(ear.hears and (line is None or ear.line is line) for ear in self._ears.values())

    def sound(self, source: str, at_ms: int, now_ms: int, past: Iterable[Utterance], open: Iterable[Utterance]) -> Utterance | None:
        """An ear began to hear sound: the line whose sound it is. None: it had heard sound, or no line fits. A line whose silence this
        ends is given, too."""
        ear = self._ears[source]
        if ear.hears:
            return None
        ear.hears = True
        recent = [line for line in past if now_ms - (line.ended_ms or 0) <= LAG_MS]
        flying = [line for line in open if line.answered and line.sent_ms <= at_ms]
        unheard = [line for line in (*recent, *flying) if source not in line.heard_by]
        told = next((line for line in unheard if line.started_ms is not None), None)
        if told is None and ear.line is not None and ear.line.open and source in ear.line.quiet:  # nobody else has begun: a pause
            return ear.line
        if told is None:
            tails = recent if self.better(source) else [line for line in recent if source not in line.heard_by]
            told = None if tails else next((line for line in unheard if line.open), None)
        if told is not None:
            ear.line = told
            told.heard_by.add(source)
        return told

    def silence(self, source: str) -> Utterance | None:
        """An ear does not hear sound any more: the line whose sound it was, if it was one's."""
        ear = self._ears[source]
        heard, ear.hears = ear.hears, False
        return ear.line if heard else None

    def started(self, line: Utterance) -> None:
        """The start of a line was sighted otherwise. Where the sound of the one before it goes on without a gap, it is this one's now."""
        for source, ear in self._ears.items():
            if ear.hears and (ear.line is None or not ear.line.open):
                ear.line = line
                line.heard_by.add(source)
