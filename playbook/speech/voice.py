"""The embedded voice: eSpeak NG, which speaks a line in a hundredth of the time it takes to hear it, and says where each word falls.

The library comes with the optional extra `voice` (the wheel `espeakng-loader`). It is never loaded into this process: `espeak_child.py`
runs it behind a pipe, which keeps its licence at arm's length and its sound reproducible. The same text with the same settings is the
same bytes in any process and any order.

Speech is kept on disk by its content, in the folder that the caller names; an entry whose checksum does not fit is made again. In
memory there are only word positions and lengths: samples are read when somebody plays them.

Text is text: no SSML, no phoneme brackets, no control codes reach the synthesiser as such. May be imported by anything below `clock`;
imports only `errors` and `audio`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playbook.errors import SetupError, reason_of
from playbook.speech.audio import Sound, to_ms
from playbook.speech.clauses import BUDGETS, fit, unspoken, without
from playbook.speech.mouth import Mouth, of_phones
from playbook.speech.store import Store

if TYPE_CHECKING:
    import subprocess

DEFAULT_LANGUAGE = "en-us"
MAX_CHARS = 100_000
"""The longest text the voice takes in one piece, about two hours of speech."""
CACHE_BYTES = 1 << 30
"""The size from which on the cache lets go of what has not been used for longest."""
FORMAT = 3
"""Of what is kept with a sound: another one is another name."""
REMEDY = "pip install espeakng-loader"
FAILED_REMEDY = "write it in another way, without the signs around its words"

_OWN_NAMES = {
    "deutsch": "de",
    "español": "es",
    "castellano": "es",
    "français": "fr",
    "italiano": "it",
    "nederlands": "nl",
    "norsk": "nb",
    "norwegian": "nb",
    "polski": "pl",
    "português": "pt",
    "svenska": "sv",
    "türkçe": "tr",
    "русский": "ru",
    "українська": "uk",
    "العربية": "ar",
    "हिन्दी": "hi",
    "日本語": "ja",
    "한국어": "ko",
    "中文": "zh",
    "mandarin": "zh",
    "cantonese": "yue",
}
"""What those who speak a language call it, and names that the voices do not begin with."""


class VoiceMissing(SetupError):
    """The extra `voice` is not installed."""

    def __init__(self) -> None:
        super().__init__("no voice is installed", remedy=REMEDY)


class Unspeakable(SetupError):
    """The voice cannot do this: there is no such voice or language, or the text is too long."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How to speak. `rate` is in words per minute (80 to 450), `pitch` from 0 to 99.

    `voice` is a voice (`de`, `German`, `gmw/de`), a voice with a variant (`de+f2`), or a variant alone (`f2`, `Annie`) for the voice of
    the `language`. A voice that implies another language wins over `language`.
    """

    voice: str | None = None
    rate: int | None = None
    pitch: int | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """A word where it stands in the text (`start`, in characters) and in the sound (`at_ms`)."""

    text: str
    start: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Speech:
    """A text, spoken. The samples stay on disk until `sound` is asked for."""

    text: str
    words: tuple[Word, ...]
    samples: int
    rate: int
    _load: Callable[[], bytes] = field(repr=False, compare=False)
    unspoken: tuple[tuple[int, int], ...] = ()
    """Stretches of the text (from and to which character) that the engine did not speak."""
    mouth: Mouth = ()
    """The shapes of the mouth, from when on each is shown."""

    @property
    def spoken(self) -> str:
        """The text, without what was not spoken."""
        return without(self.text, self.unspoken) if self.unspoken else self.text

    @property
    def sound(self) -> Sound:
        """Its samples, read now."""
        return Sound(self._load(), self.rate)

    @property
    def duration_ms(self) -> int:
        """Rounded half up."""
        return to_ms(self.samples, self.rate)

    def heard(self, ms: int) -> str:
        """What an audience has heard after `ms`: the words that were finished, which is when the next one begins."""
        return heard(self.text, [(word.at_ms, word.start) for word in self.words], self.duration_ms, ms).strip()


def heard(text: str, marks: Sequence[tuple[int, int]], duration_ms: int, ms: int) -> str:
    """The beginning of `text` whose words are over after `ms`. `marks` are (when a word begins, where it stands), in order.

    A word is over when the next one begins, and only a whole word counts: `well-known` is not heard at `well-`. (Scripts without spaces
    are counted by what the voice takes for a word.)
    """
    if ms >= duration_ms:
        return text.rstrip()
    begun = [start for at_ms, start in marks if at_ms <= ms]
    end = begun[-1] if begun else 0
    while end and _IN_A_WORD.match(text[end - 1]):
        end -= 1
    return text[:end].rstrip().rstrip("([{<\"'«„“‘¿¡-–—").rstrip()


_IN_A_WORD = re.compile(r"[^\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ua4cf\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
"""What glues to the next character: anything but a space and the scripts that are written without spaces."""


@dataclass(frozen=True, slots=True)
class VoiceInfo:
    """A voice (or, without languages, a variant) as eSpeak NG lists it. `languages` are (priority, code); the least number fits best."""

    name: str
    id: str
    languages: tuple[tuple[int, str], ...] = ()


class Voice:
    """Speaks, with a cache in `cache_dir` (None, or where nothing can be written: one of its own, which goes when it goes)."""

    def __init__(self, cache_dir: Path | None = None) -> None:
        self._store = Store(cache_dir)
        self._known: dict[str, Speech] = {}
        self._failed: dict[str, str] = {}

    # --- what there is ----------------------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """Whether the extra `voice` is installed."""
        return self._library is not None

    def voices(self) -> tuple[VoiceInfo, ...]:
        """Every voice."""
        return self._lists[0]

    def variants(self) -> tuple[VoiceInfo, ...]:
        """Every variant, which changes the colour of any voice."""
        return self._lists[1]

    def resolve(self, settings: Settings) -> str:
        """eSpeak NG's own name for what the settings ask for. Raises `Unspeakable` with the near names."""
        language = settings.language or DEFAULT_LANGUAGE
        base, plus, variant = (settings.voice or "").partition("+")
        voice = self._find(base) if base else self._for_language(language)
        if base and voice is None and not plus and self._variant(base) is not None:
            voice, plus, variant = self._for_language(language), "+", base
        if voice is None:
            raise self._unknown("voice" if base else "language", base or language)
        if not plus:
            return voice.id
        colour = self._variant(variant)
        if colour is None:
            raise self._unknown("variant", variant)
        return f"{voice.id}+{_file_name(colour)}"

    # --- speaking ---------------------------------------------------------------------------------------------------

    def speak(self, text: str, settings: Settings = Settings()) -> Speech:
        """One text."""
        return self.speak_many([(text, settings)])[0]

    def known(self, text: str, settings: Settings) -> Speech | None:
        """What was spoken before through this object, without asking disk or child."""
        return self._known.get(self._key(text, settings)) if self.available else None

    def failure(self, text: str, settings: Settings) -> str | None:
        """Why this text could not be spoken when it was tried."""
        return self._failed.get(self._key(text, settings)) if self.available else None

    def speak_many(self, jobs: Iterable[tuple[str, Settings]]) -> list[Speech]:
        """Many texts, in order, on all cores. Raises `VoiceMissing`, `Unspeakable` (after all others were spoken, where the engine fails
        at one), or `SetupError` when the engine cannot be started."""
        if not self.available:
            raise VoiceMissing
        asked = [(self._key(text, settings), text, settings) for text, settings in jobs]
        todo: dict[str, tuple[str, Settings]] = {}
        for key, text, settings in asked:
            if key in self._known or key in self._failed or key in todo:
                continue
            if len(text) > MAX_CHARS:
                raise Unspeakable(
                    f"a line of {len(text)} characters is too long for the voice",
                    remedy=f"cut it into lines of at most {MAX_CHARS} characters",
                )
            if (entry := self._store.get(key)) is not None:
                self._remember(key, text, settings, entry[0], len(entry[1]) // 2)
            else:
                self.resolve(settings)
                todo[key] = text, settings
        if todo:
            for key, header, samples in self._make(todo):
                self._remember(key, *todo[key], header, samples)
            self._store.prune(CACHE_BYTES, keep={key for key, _, _ in asked})
        for key, _, _ in asked:
            if key in self._failed:
                raise Unspeakable(self._failed[key], remedy=FAILED_REMEDY)
        return [self._known[key] for key, _, _ in asked]

    def _remember(self, key: str, text: str, settings: Settings, header: dict[str, Any], samples: int) -> None:
        def load() -> bytes:
            entry = self._store.get(key)
            if entry is None:  # somebody cleared the cache since
                self._make({key: (text, settings)})
                entry = self._store.get(key)
            if entry is None:
                raise SetupError(self._failed.get(key, "the speech cache loses what is written to it"))
            return entry[1]

        rate = int(header["rate"])
        words = tuple(_words(text, header["words"], rate))
        missing = unspoken(text, [start for _, start in header["words"]])
        if header["cut"] and not missing:  # in the midst of characters that the engine cannot part
            missing = ((words[-1].start if words else 0, len(text)),)
        mouth = tuple((at_ms, shape) for at_ms, shape in header["mouth"])
        self._known[key] = Speech(text, words, samples, rate, load, missing, mouth)

    def _make(self, todo: dict[str, tuple[str, Settings]]) -> list[tuple[str, dict[str, Any], int]]:
        """Have as many children as there are cores speak, and store what they say. Gives back the header and the number of samples of
        each; the samples themselves would be too many."""
        queue = deque(todo.items())
        made: list[tuple[str, dict[str, Any], int]] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                for key, header, body in self._answers(queue):
                    self._store.put(key, header, body)
                    made.append((key, header, len(body) // 2))
            except BaseException as error:
                errors.append(error)
                queue.clear()

        threads = [threading.Thread(target=work) for _ in range(min(len(queue), os.cpu_count() or 1) - 1)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return made

    def _answers(self, queue: deque[tuple[str, tuple[str, Settings]]]) -> Iterator[tuple[str, dict[str, Any], bytes]]:
        while queue:
            with self._child() as child:
                while True:
                    try:
                        key, (text, settings) = queue.popleft()
                    except IndexError:
                        break
                    try:
                        yield key, *self._speak(child, text, settings)
                    except Unspeakable as error:
                        self._failed[key] = error.message

    def _speak(self, child: subprocess.Popen[bytes], text: str, settings: Settings) -> tuple[dict[str, Any], bytes]:
        """What the child says of a text, in clauses that the engine can hold."""
        # Control characters are eSpeak NG's embedded commands; a space in their place keeps every position.
        clean = re.sub("[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]", " ", text)
        request = {"voice": self.resolve(settings), "rate": settings.rate, "pitch": settings.pitch}
        for budget in BUDGETS:
            fitted = fit(clean, budget)
            header, body = _ask(child, request | {"text": fitted.text, "joins": fitted.joins})
            if not header["full"]:
                break
        words = [(sample, fitted.original(place)) for sample, place in header["words"]]
        rate = header["rate"]
        mouth = of_phones(((to_ms(sample, rate), name) for sample, name in header["phones"]), to_ms(len(body) // 2, rate))
        return {"rate": rate, "words": words, "mouth": mouth, "cut": header["full"]}, body

    # --- the child --------------------------------------------------------------------------------------------------

    def _child(self) -> subprocess.Popen[bytes]:
        import subprocess

        assert self._library is not None
        program = Path(__file__).with_name("espeak_child.py")
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(program), str(self._library), str(self._library.parent)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the terminal is for us to handle; the child ends with its pipe
            )
        except OSError as error:
            raise SetupError(f"the voice's process cannot be started: {reason_of(error)}") from error

    @cached_property
    def _library(self) -> Path | None:
        from importlib.util import find_spec

        spec = find_spec("espeakng_loader")
        if spec is None or spec.origin is None:
            return None
        found = sorted(Path(spec.origin).parent.glob("*espeak-ng.*"), key=lambda path: (len(path.name), path.name))
        return next((path for path in found if path.suffix in {".so", ".dylib"}), None)

    @cached_property
    def _engine(self) -> str:
        """What the cache must know of the engine: its release and its library's size."""
        assert self._library is not None
        release = [path.name for path in self._library.parent.parent.glob("espeakng_loader-*.dist-info")]
        return f"{release}{self._library.stat().st_size}"

    @cached_property
    def _lists(self) -> tuple[tuple[VoiceInfo, ...], tuple[VoiceInfo, ...]]:
        if not self.available:
            raise VoiceMissing
        key = self._store.name(["list", self._engine])
        entry = self._store.get(key)
        if entry is None:
            with self._child() as child:
                entry = _ask(child, {"list": True})
            self._store.put(key, *entry)

        def read(kind: str) -> tuple[VoiceInfo, ...]:
            return tuple(
                VoiceInfo(item["name"], item["id"], tuple((p, code) for p, code in item["languages"] if kind == "voices"))
                for item in entry[0][kind]
            )

        return read("voices"), read("variants")

    # --- names and keys ---------------------------------------------------------------------------------------------

    def _find(self, name: str) -> VoiceInfo | None:
        wanted = name.casefold()
        for voice in self.voices():
            if wanted in (voice.id.casefold(), voice.name.casefold()):
                return voice
        return self._for_language(name, exact=True)

    def _for_language(self, language: str, *, exact: bool = False) -> VoiceInfo | None:
        """The best voice for a language code; `de-AT` is content with `de`, unless it has to be exact."""
        parts = language.casefold().replace("_", "-").split("-")
        for length in range(len(parts), len(parts) - 1 if exact else 0, -1):
            wanted = "-".join(parts[:length])
            fits = [
                (priority, i) for i, voice in enumerate(self.voices()) for priority, code in voice.languages if code.casefold() == wanted
            ]
            if fits:
                return self.voices()[min(fits)[1]]
        return None

    def _variant(self, name: str) -> VoiceInfo | None:
        wanted = name.casefold()
        return next((v for v in self.variants() if wanted in (v.name.casefold(), _file_name(v).casefold())), None)

    def _unknown(self, what: str, name: str) -> Unspeakable:
        import difflib

        wanted, codes = name.casefold(), self._codes if what != "variant" else {}
        meant = codes.get(wanted, "")
        if not meant and len(name) > 3:  # two or three letters are like any other two or three
            names: dict[str, str] = dict(codes) if what == "language" else {}  # what somebody may have meant, and what to write for it
            if what != "language":
                names |= {_file_name(variant).casefold(): _file_name(variant) for variant in self.variants()}
            if what != "variant":
                names |= {code.casefold(): code for voice in self.voices() for _, code in voice.languages}
            if what == "voice":
                names |= {voice.name.casefold(): voice.name for voice in self.voices()}
            near = difflib.get_close_matches(wanted, [each for each in names if len(each) > 3], n=1, cutoff=0.8)
            meant = names[near[0]] if near else ""
        examples = "such as 'en-us', 'de', 'fr'" if what != "variant" else "such as 'f2', 'm3', 'Annie'"
        return Unspeakable(
            f"the local voice has no {what} '{name}'",
            remedy=f"did you mean '{meant}'?" if meant else f"give one that eSpeak NG has, {examples}",
        )

    @cached_property
    def _codes(self) -> dict[str, str]:
        """The code of a language by what people call it: `french` of "French (Switzerland)", `français`."""
        codes: dict[str, str] = {}
        for voice in self.voices():
            called = voice.name.partition(" (")[0].casefold()
            for _, code in voice.languages:
                codes[called] = min(codes.get(called, code), code, key=lambda each: (len(each), each))
        return codes | {own: code for own, code in _OWN_NAMES.items() if self._for_language(code, exact=True)}

    def _key(self, text: str, settings: Settings) -> str:
        return self._store.name([self._engine, FORMAT, asdict(settings), text])


def _file_name(variant: VoiceInfo) -> str:
    return variant.id.rpartition("/")[2]


def _words(text: str, raw: Iterable[Sequence[int]], rate: int) -> Iterator[Word]:
    """The engine's word events, without those that repeat a place or point at a space."""
    events: list[tuple[int, int]] = []
    for sample, start in raw:
        if start < len(text) and not text[start].isspace() and (not events or start > events[-1][1]):
            events.append((sample, start))
    for i, (sample, start) in enumerate(events):
        end = events[i + 1][1] if i + 1 < len(events) else len(text)
        span = re.match(r"\S*", text[start:end])
        assert span is not None
        yield Word(span.group().rstrip(".,;:!?…)]}»”\"'。、，！？") or span.group(), start, sample * 1000 // rate)


def _ask(child: subprocess.Popen[bytes], request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(request).encode() + b"\n")
        child.stdin.flush()
        line = child.stdout.readline()
    except BrokenPipeError:
        line = b""
    if not line:
        raise SetupError("the voice's process ended without an answer", remedy=f"install the voice anew: {REMEDY}")
    header: dict[str, Any] = json.loads(line)
    body = child.stdout.read(header.pop("bytes"))
    if "error" in header:
        raise Unspeakable(header["error"])
    return header, body
