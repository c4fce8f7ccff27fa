"""The embedded voice: texts in, speech out, by the engine that the settings name, from the cache where it was spoken before.

Speech is kept on disk by its content, in the folder that the caller names; an entry whose checksum does not fit is made again. In
memory there are only word positions and lengths: samples are read when somebody plays them.

A line is made piece by piece (`Engine.pieces`; a line is one piece for eSpeak NG). Where the process of another engine than eSpeak NG
ends in the middle, it is started once more; if it ends again, eSpeak NG speaks the rest, or the line fails (`on_failure`).

May be imported by anything below `clock`.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from playbook.errors import SetupError, near_or_all
from playbook.speech.child import Child, ChildEnded
from playbook.speech.clauses import unspoken
from playbook.speech.engines import (
    ESPEAK_REMEDY,
    Engine,
    Piece,
    Places,
    Settings,
    Spoken,
    Unspeakable,
    VoiceMissing,
    make,
    names,
)
from playbook.speech.espeak import Espeak, VoiceInfo
from playbook.speech.pacing import estimate_ms
from playbook.speech.speech import Speech, Stretches, Word, guessed_words, heard, joined, mouth_of, words_of
from playbook.speech.store import Entry, Store

__all__ = [
    "FAILED_REMEDY",
    "MAX_CHARS",
    "NORMAL_RATE",
    "REMEDY",
    "Settings",
    "Speech",
    "Unspeakable",
    "Voice",
    "VoiceMissing",
    "Word",
    "heard",
]

MAX_CHARS = 100_000
"""The longest text the voice takes in one piece, about two hours of speech."""
CACHE_BYTES = 1 << 30
"""The size from which on the cache lets go of what has not been used for longest."""
FORMAT = 4
"""Of what is kept with a sound: another one is another name."""
NORMAL_RATE = 175
"""Words per minute, where no rate is given."""
REMEDY = ESPEAK_REMEDY
FAILED_REMEDY = "write it in another way, without the signs around its words"
TOO_SHORT = 0.35
"""A sound of less than this part of what its text should take is not believed to hold all of it."""


_AS_IT_IS = Settings()


@dataclass(frozen=True, slots=True)
class _Job:
    """A piece to be spoken: the name of its entry, by whom, and as part of which line."""

    key: str
    engine: Engine
    text: str
    settings: Settings


class Voice:
    """Speaks, with a cache in `cache_dir` (None, or where nothing can be written: one of its own, which goes when it goes), and with the
    models in `models` (None: with the engines that need none)."""

    def __init__(self, cache_dir: Path | None = None, models: Path | None = None, on_failure: Literal["espeak", "fail"] = "espeak") -> None:
        self.on_failure: Literal["espeak", "fail"] = on_failure
        self._store = Store(cache_dir)
        self._models = models
        self._known: dict[str, Speech] = {}
        self._failed: dict[str, str] = {}
        self._engines: dict[str, Engine | None] = {}
        self._kept: dict[str, Child] = {}
        self._lock = threading.Lock()
        self.factor: dict[str, float] = {}
        """By engine: how many seconds of work a second of sound took, where it was measured."""
        weakref.finalize(self, _close, self._kept)

    def close(self) -> None:
        """End the processes that are kept; they also end with this object."""
        _close(self._kept)

    # --- what there is ----------------------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """Whether the extra `voice` is installed."""
        return self._espeak.lacks() is None

    @cached_property
    def _espeak(self) -> Espeak:
        return Espeak(self._places)

    @cached_property
    def _places(self) -> Places:
        return Places(self._store, self._models)

    def engine(self, name: str) -> Engine | None:
        """The engine of that name. Raises `SetupError` when a plug-in does not load."""
        if name not in self._engines:
            self._engines[name] = self._espeak if name == "espeak" else make(name, self._places)
        return self._engines[name]

    def voices(self) -> tuple[VoiceInfo, ...]:
        """eSpeak NG's voices."""
        return self._espeak.voices()

    def variants(self) -> tuple[VoiceInfo, ...]:
        """eSpeak NG's variants, which change the colour of any of its voices."""
        return self._espeak.variants()

    def resolve(self, settings: Settings) -> str:
        """The engine's own name for what the settings ask for. Raises `Unspeakable` with the near names, or with what is missing."""
        engine, own = self._engine_of(settings)
        name, slash, _ = (settings.voice or "").partition("/")
        if slash and engine is self._espeak and name != "espeak" and not any(voice.id.startswith(f"{name}/") for voice in self.voices()):
            raise Unspeakable(f"there is no voice engine '{name}'", remedy=near_or_all(name, names()))
        return self._speaker(engine, own)

    def language(self, settings: Settings) -> str:
        """The language that is spoken, as far as the settings tell it."""
        if settings.language:
            return settings.language
        engine, own = self._engine_of(settings)
        if engine is self._espeak:
            return (own.voice or "en").partition("+")[0]
        return next((each.languages[0] for each in engine.speakers() if each.name == own.voice), "en")

    def instant(self, settings: Settings) -> bool:
        """Whether lines can be spoken to know their lengths."""
        return self._engine_of(settings)[0].instant

    def _engine_of(self, settings: Settings) -> tuple[Engine, Settings]:
        name, slash, speaker = (settings.voice or "").partition("/")
        engine = self.engine(name) if slash else None
        return (self._espeak, settings) if engine is None else (engine, replace(settings, voice=speaker or None))

    def _speaker(self, engine: Engine, settings: Settings) -> str:
        if engine is not self._espeak and (lack := engine.lacks()) is not None:
            raise Unspeakable(lack[0], remedy=lack[1])
        return engine.resolve(settings)

    # --- speaking ---------------------------------------------------------------------------------------------------

    def speak(self, text: str, settings: Settings = _AS_IT_IS) -> Speech:
        """One text."""
        return self.speak_many([(text, settings)])[0]

    def known(self, text: str, settings: Settings) -> Speech | None:
        """What was spoken before through this object, without asking disk or child."""
        if not self.available:
            return None
        line = self._line_key(text, settings)
        if line not in self._known and len(text) <= MAX_CHARS:
            try:
                jobs, pauses = self._jobs(text, settings)
            except SetupError:
                return None
            if not all(job.key in self._known for job in jobs):
                return None
            pieces = [self._known[job.key] for job in jobs]
            self._known[line] = pieces[0] if len(jobs) == 1 else joined(text, list(zip(pieces, pauses, strict=True)))
        return self._known.get(line)

    def recall(self, jobs: Iterable[tuple[str, Settings]]) -> None:
        """Make known what is in the cache, without asking a child."""
        for text, settings in jobs:
            if len(text) <= MAX_CHARS:
                with suppress(Unspeakable):
                    for job in self._jobs(text, settings)[0]:
                        self._recalled(job)

    def failure(self, text: str, settings: Settings) -> str | None:
        """Why this text could not be spoken when it was tried."""
        if not self.available:
            return None
        try:
            return next((self._failed[job.key] for job in self._jobs(text, settings)[0] if job.key in self._failed), None)
        except Unspeakable as error:
            return error.message

    def speak_many(self, jobs: Iterable[tuple[str, Settings]]) -> list[Speech]:
        """Many texts, in order, on all cores. Raises `VoiceMissing`, `Unspeakable` (after all others were spoken, where the engine fails
        at one), or `SetupError` when the engine cannot be started."""
        if not self.available:
            raise VoiceMissing
        asked = list(jobs)
        todo: dict[str, _Job] = {}
        pieces: list[_Job] = []
        for text, settings in asked:
            if len(text) > MAX_CHARS:
                raise Unspeakable(
                    f"a line of {len(text)} characters is too long for the voice",
                    remedy=f"cut it into lines of at most {MAX_CHARS} characters",
                )
            pieces += self._jobs(text, settings)[0]
        for job in pieces:
            if job.key not in self._failed and job.key not in todo and not self._recalled(job):
                self._speaker(job.engine, job.settings)
                todo[job.key] = job
        if todo:
            self._make(todo.values())
            self._store.prune(CACHE_BYTES, keep={job.key for job in pieces})
        for job in pieces:
            if job.key in self._failed:
                raise Unspeakable(self._failed[job.key], remedy=FAILED_REMEDY)
        found = [self.known(text, settings) for text, settings in asked]
        return [speech for speech in found if speech is not None]

    # --- pieces -----------------------------------------------------------------------------------------------------

    def parts(self, text: str, settings: Settings) -> Sequence[Piece]:
        """The pieces of a line, which can be spoken one after another."""
        engine, own = self._engine_of(settings)
        return engine.pieces(text, own)

    def _jobs(self, text: str, settings: Settings) -> tuple[list[_Job], list[int]]:
        engine, own = self._engine_of(settings)
        pieces = engine.pieces(text, own)
        return [_Job(self._key(engine, piece.text, own), engine, piece.text, own) for piece in pieces], [p.pause_ms for p in pieces]

    def _key(self, engine: Engine, text: str, own: Settings) -> str:
        return self._store.name([engine.name, engine.fingerprint(), FORMAT, own.voice, own.rate, own.pitch, own.language, text])

    def _line_key(self, text: str, settings: Settings) -> str:
        engine, own = self._engine_of(settings)
        key = self._key(engine, text, own)
        return key if engine.instant else f"line {key}"

    def _recalled(self, job: _Job) -> bool:
        if job.key not in self._known and (entry := self._store.get(job.key)) is not None:
            self._remember(job, entry[0], len(entry[1]) // 2)
        return job.key in self._known

    def _remember(self, job: _Job, header: dict[str, Any], samples: int) -> None:
        def load() -> bytes:
            entry = self._store.get(job.key)
            if entry is None:  # somebody cleared the cache since
                self._make([job])
                entry = self._store.get(job.key)
            if entry is None:
                raise SetupError(self._failed.get(job.key, "the speech cache loses what is written to it"))
            return entry[1]

        rate = int(header["rate"])
        words = tuple(words_of(job.text, header["words"], rate))
        mouth = tuple((at_ms, shape) for at_ms, shape in header["mouth"])
        missing = tuple((start, end) for start, end in header["unspoken"])
        self._known[job.key] = Speech(job.text, words, samples, rate, load, missing, mouth, header["marks"], header.get("remark"))

    # --- children ---------------------------------------------------------------------------------------------------

    def _make(self, jobs: Iterable[_Job]) -> None:
        """Have children speak (as many as there are cores, where the engine does not use them all by itself), and store what they say."""
        jobs = list(jobs)
        for engine in dict.fromkeys(job.engine for job in jobs):
            queue = deque(job for job in jobs if job.engine is engine)
            errors: list[BaseException] = []

            def work(queue: deque[_Job] = queue, errors: list[BaseException] = errors) -> None:
                try:
                    self._work(queue)
                except BaseException as error:
                    errors.append(error)
                    queue.clear()

            more = min(len(queue), os.cpu_count() or 1) - 1 if engine.instant else 0
            threads = [threading.Thread(target=work) for _ in range(more)]
            for thread in threads:
                thread.start()
            work()
            for thread in threads:
                thread.join()
            if errors:
                raise errors[0]

    def _work(self, queue: deque[_Job]) -> None:
        jobs = _drained(queue)
        for job in jobs:
            if not job.engine.instant:
                self._speak_slowly(job)
                continue
            with Child(job.engine.command()) as child:
                self._speak_by(child, job)
                for another in jobs:
                    self._speak_by(child, another)

    def _speak_by(self, child: Child, job: _Job) -> None:
        try:
            spoken = job.engine.speak(child.ask, job.text, job.settings)
        except Unspeakable as error:
            self._failed[job.key] = error.message
        else:
            self._keep(job, spoken)

    def _speak_slowly(self, job: _Job) -> None:
        """By a child that is kept, since it takes long to start; by another one, or by eSpeak NG, where that ends."""
        with self._lock:
            if job.key in self._known:  # by another thread, meanwhile
                return None
            for _ in range(2):
                if job.engine.name not in self._kept:
                    self._kept[job.engine.name] = Child(job.engine.command())
                try:
                    return self._speak_by(self._kept[job.engine.name], job)
                except ChildEnded:
                    self._kept.pop(job.engine.name).close()
        name = f"{job.engine.name}/{job.settings.voice}"
        if self.on_failure == "fail":
            self._failed[job.key] = f"the process of {name} ended twice at this text"
            return None
        languages = next((each.languages for each in job.engine.speakers() if each.name == job.settings.voice), ())
        settings = Settings(rate=job.settings.rate, language=next(iter(languages), None))
        with Child(self._espeak.command()) as child:
            spoken = self._espeak.speak(child.ask, job.text, settings)
        header, pcm = self._entry(replace(job, engine=self._espeak), spoken)
        self._store.keep(job.key, header | {"remark": f"spoken by espeak, because the process of {name} ended"}, pcm)
        self._recalled(job)
        return None

    def _keep(self, job: _Job, spoken: Spoken) -> None:
        header, pcm = self._entry(job, spoken)
        self._store.put(job.key, header, pcm)
        self._remember(job, header, len(pcm) // 2)
        if spoken.work_ms and pcm:
            self.factor[job.engine.name] = spoken.work_ms * spoken.rate / 1000 / (len(pcm) // 2)

    def _entry(self, job: _Job, spoken: Spoken) -> Entry:
        """What is kept of a piece."""
        exact = job.engine.marks == "exact"
        samples = len(spoken.pcm) // 2
        words = list(spoken.words) if exact else guessed_words(job.text, samples)
        header = {
            "rate": spoken.rate,
            "words": words,
            "mouth": mouth_of(spoken),
            "marks": job.engine.marks,
            "unspoken": _missing(job, spoken, words, samples * 1000 // spoken.rate, exact=exact),
        }
        return header, spoken.pcm


def _missing(job: _Job, spoken: Spoken, words: Sequence[tuple[int, int]], ms: int, *, exact: bool) -> Stretches:
    """The stretches of a text that were not spoken: by the words that the engine tells, else by the length of its sound."""
    text = job.text
    if exact:
        missing = unspoken(text, [start for _, start in words])
        return missing or (((words[-1][1] if words else 0, len(text)),) if spoken.cut else ())
    expected = estimate_ms(text, job.settings.language, (job.settings.rate or NORMAL_RATE) / NORMAL_RATE)
    return ((0, len(text)),) if spoken.cut or ms < TOO_SHORT * expected - 300 else ()


def _drained(queue: deque[_Job]) -> Iterator[_Job]:
    """What is in a queue from which others take, too."""
    while True:
        try:
            yield queue.popleft()
        except IndexError:
            return


def _close(kept: dict[str, Child]) -> None:
    for child in kept.values():
        child.close()
    kept.clear()
