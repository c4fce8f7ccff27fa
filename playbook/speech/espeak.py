"""eSpeak NG: tiny, exact, a hundred languages. It speaks a line in a hundredth of the time it takes to hear it, and says where each word
and phoneme falls.

The library comes with the optional extra `voice` (the wheel `espeakng-loader`). It is never loaded into this process: `espeak_child.py`
runs it behind a pipe, which keeps its licence at arm's length and its sound reproducible. The same text with the same settings is the
same bytes in any process and any order.

Text is text: no SSML, no phoneme brackets, no control codes reach the synthesiser as such.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from playbook.speech.child import Child
from playbook.speech.clauses import BUDGETS, fit
from playbook.speech.engines import ESPEAK_REMEDY, Ask, Piece, Places, Settings, SpeakerInfo, Spoken, Unspeakable, VoiceMissing

DEFAULT_LANGUAGE = "en-us"

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


@dataclass(frozen=True, slots=True)
class VoiceInfo:
    """A voice (or, without languages, a variant) as eSpeak NG lists it. `languages` are (priority, code); the least number fits best."""

    name: str
    id: str
    languages: tuple[tuple[int, str], ...] = ()


class Espeak:
    """The engine."""

    name = "espeak"
    licence = "GPL-3.0-or-later"
    deterministic = True
    instant = True
    marks: Literal["exact", "estimated"] = "exact"

    def __init__(self, places: Places) -> None:
        self._store = places.store

    # --- what there is ----------------------------------------------------------------------------------------------

    def lacks(self) -> tuple[str, str] | None:
        return ("no voice is installed", ESPEAK_REMEDY) if self._library is None else None

    def speakers(self) -> Sequence[SpeakerInfo]:
        return [SpeakerInfo(voice.id, tuple(code for _, code in voice.languages)) for voice in self.voices()]

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

    def pieces(self, text: str, settings: Settings) -> Sequence[Piece]:  # noqa: ARG002 -- the contract's
        return (Piece(text),)

    def command(self) -> Sequence[str]:
        if self._library is None:
            raise VoiceMissing
        program = Path(__file__).with_name("espeak_child.py")
        return (sys.executable, "-I", "-S", str(program), str(self._library), str(self._library.parent))

    def speak(self, ask: Ask, text: str, settings: Settings) -> Spoken:
        """In clauses that the engine can hold."""
        # Control characters are eSpeak NG's embedded commands; a space in their place keeps every position.
        clean = re.sub("[\x00-\x09\x0b-\x1f\x7f\ud800-\udfff]", " ", text)
        request = {"voice": self.resolve(settings), "rate": settings.rate, "pitch": settings.pitch}
        for budget in BUDGETS:
            fitted = fit(clean, budget)
            header, pcm = ask(request | {"text": fitted.text, "joins": fitted.joins})
            if not header["full"]:
                break
        words = [(sample, fitted.original(place)) for sample, place in header["words"]]
        return Spoken(header["rate"], pcm, words, header["phones"], cut=header["full"])

    # --- the library ------------------------------------------------------------------------------------------------

    @cached_property
    def _library(self) -> Path | None:
        from importlib.util import find_spec

        spec = find_spec("espeakng_loader")
        if spec is None or spec.origin is None:
            return None
        found = sorted(Path(spec.origin).parent.glob("*espeak-ng.*"), key=lambda path: (len(path.name), path.name))
        return next((path for path in found if path.suffix in {".so", ".dylib"}), None)

    def fingerprint(self) -> str:
        """Its release and its library's size."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        if self._library is None:
            raise VoiceMissing
        release = [path.name for path in self._library.parent.parent.glob("espeakng_loader-*.dist-info")]
        return f"{release}{self._library.stat().st_size}"

    @cached_property
    def _lists(self) -> tuple[tuple[VoiceInfo, ...], tuple[VoiceInfo, ...]]:
        key = self._store.name(["list", self.fingerprint()])
        entry = self._store.get(key)
        if entry is None:
            with Child(self.command()) as child:
                entry = child.ask({"list": True})
            self._store.put(key, *entry)

        def read(kind: str) -> tuple[VoiceInfo, ...]:
            return tuple(
                VoiceInfo(item["name"], item["id"], tuple((p, code) for p, code in item["languages"] if kind == "voices"))
                for item in entry[0][kind]
            )

        return read("voices"), read("variants")

    # --- names ------------------------------------------------------------------------------------------------------

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


def _file_name(variant: VoiceInfo) -> str:
    return variant.id.rpartition("/")[2]
