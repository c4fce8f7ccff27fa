"""Kokoro-82M: a natural voice that runs on small machines, through onnxruntime, without a GPU.

The extra `kokoro` brings onnxruntime; the model and the speakers (120 MB, Apache-2.0) are fetched by `playbook voices install kokoro`, or
copied into `kokoro/` of the folder that `PLAYBOOK_VOICES_DIR` names. `kokoro_child.py` runs them. Its phonemes come from eSpeak NG, for
Japanese after pyopenjtalk (if it is installed) has read the kanji. The model does not tell where its words stand.
"""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from playbook.errors import near_or_all
from playbook.speech.engines import ESPEAK_REMEDY, Ask, Piece, Places, Settings, SpeakerInfo, Spoken, Unspeakable

NORMAL_RATE = 175
"""Words a minute at the model's own speed."""
SENTENCE_PAUSE_MS, CLAUSE_PAUSE_MS = 350, 150
MAX_CHARS, MAX_WIDE_CHARS = 280, 90
"""Of a piece; the model holds some 510 phonemes, and an ideograph has up to five."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file of a release, as it must be."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Release:
    """Where a model comes from, and what it is."""

    address: str
    licence: str
    model: ModelFile
    speakers: ModelFile

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """All of it."""
        return (self.model, self.speakers)


RELEASE = Release(
    "https://github.com/thewh1teagle/kokoro-onnx/releases/download/model-files-v1.0/",
    "Apache-2.0",
    ModelFile("kokoro-v1.0.int8.onnx", 92_361_271, "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"),
    ModelFile("voices-v1.0.bin", 28_214_398, "bca610b8308e8d99f32e6fe4197e7ec01679264efed0cac9140fe9c29f1fbf7d"),
)


@dataclass(frozen=True, slots=True)
class _Language:
    """The first letter of a speaker's name says which one it speaks: its codes, eSpeak NG's voice for it, and its script."""

    codes: tuple[str, ...]
    espeak: str
    script: str


_LATIN, _KANA_AND_KANJI = "A-Za-z\u00c0-\u024f", "\u3005\u3040-\u30ff\u3400-\u9fff"
_LANGUAGES = {
    "a": _Language(("en-us", "en"), "gmw/en-US", _LATIN),
    "b": _Language(("en-gb", "en"), "gmw/en", _LATIN),
    "e": _Language(("es",), "roa/es", _LATIN),
    "f": _Language(("fr-fr", "fr"), "roa/fr", _LATIN),
    "h": _Language(("hi",), "inc/hi", "\u0900-\u097f"),
    "i": _Language(("it",), "roa/it", _LATIN),
    "j": _Language(("ja",), "jpx/ja", _KANA_AND_KANJI),
    "p": _Language(("pt-br", "pt"), "roa/pt-BR", _LATIN),
}
"""Mandarin (`z`) is left out: the model wants its tones in a way that eSpeak NG does not write them."""
_SENTENCE = re.compile(r".*?(?:[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』）]*|\n|$)\s*", re.DOTALL)


class Kokoro:
    """The engine."""

    name = "kokoro"
    licence = RELEASE.licence
    deterministic = True
    instant = False
    marks: Literal["exact", "estimated"] = "estimated"
    release: Release = RELEASE

    def __init__(self, places: Places) -> None:
        self._store = places.store
        self.folder = (places.models or Path()) / self.name

    # --- what there is ----------------------------------------------------------------------------------------------

    def lacks(self) -> tuple[str, str] | None:
        if find_spec("onnxruntime") is None:
            return "the voice kokoro needs onnxruntime", "pip install 'avatar-playbook[kokoro]', where this Python has a wheel of it"
        if find_spec("espeakng_loader") is None:
            return "the voice kokoro needs eSpeak NG for its phonemes", ESPEAK_REMEDY
        for file in self.release.files:
            digest = self._digest(self.folder / file.name)
            if digest is None:
                return "the model of the voice kokoro is not installed", "playbook voices install kokoro"
            if digest != file.sha256:
                return f"{self.folder / file.name} is not the file of this release", "playbook voices install kokoro"
        return None

    def has(self, file: ModelFile) -> bool:
        """Whether a file of the release is there, as it must be."""
        return self._digest(self.folder / file.name) == file.sha256

    def fingerprint(self) -> str:
        return f"{self.release.model.sha256}{self.release.speakers.sha256}{'kanji' if self._reads_kanji else ''}"

    def speakers(self) -> Sequence[SpeakerInfo]:
        return self._speakers

    @cached_property
    def _speakers(self) -> tuple[SpeakerInfo, ...]:
        try:
            with zipfile.ZipFile(self.folder / self.release.speakers.name) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
        except (OSError, zipfile.BadZipFile):
            return ()
        return tuple(SpeakerInfo(name, _LANGUAGES[name[0]].codes) for name in sorted(names) if name[:1] in _LANGUAGES)

    def resolve(self, settings: Settings) -> str:
        name, valid = settings.voice or "", [speaker.name for speaker in self._speakers]
        if name not in valid:
            raise Unspeakable(f"kokoro has no speaker '{name}'", remedy=near_or_all(name, valid))
        codes, wanted = _LANGUAGES[name[0]].codes, (settings.language or "").casefold().replace("_", "-")
        if wanted and wanted not in codes and wanted.partition("-")[0] not in codes:
            fitting = [speaker.name for speaker in self._speakers if wanted.partition("-")[0] in speaker.languages]
            remedy = f"speakers of {wanted}: {', '.join(fitting)}" if fitting else "eSpeak NG has voices for it"
            raise Unspeakable(f"kokoro/{name} speaks {codes[0]}, not {settings.language}", remedy=remedy)
        return name

    @property
    def _reads_kanji(self) -> bool:
        return find_spec("pyopenjtalk") is not None

    def _digest(self, path: Path) -> str | None:
        """Of a file, which is read once and again when it changed."""
        try:
            stat = path.stat()
        except OSError:
            return None
        key = self._store.name(["digest", str(path), stat.st_size, stat.st_mtime_ns])
        if (entry := self._store.get(key)) is None:
            with path.open("rb") as file:
                entry = {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}, b""
            self._store.put(key, *entry)
        return str(entry[0]["sha256"])

    # --- speaking ---------------------------------------------------------------------------------------------------

    def pieces(self, text: str, settings: Settings) -> Sequence[Piece]:
        language = _LANGUAGES.get((settings.voice or "")[:1])
        if language is not None:
            letters = [char for char in text if char.isalpha()]
            own = re.findall(f"[{language.script}]", text)
            if 2 * len(own) < len(letters):
                raise Unspeakable(f"kokoro/{settings.voice} speaks {language.codes[0]}, and this text is in another script")
            if language.codes == ("ja",) and not self._reads_kanji and re.search("[\u3400-\u9fff]", text):
                raise Unspeakable("kokoro reads kanji with pyopenjtalk alone, which is not installed: pip install pyopenjtalk-plus")
        return tuple(_pieces(text))

    def command(self) -> Sequence[str]:
        loader = find_spec("espeakng_loader")
        assert loader is not None
        assert loader.origin is not None
        library = next(path for path in sorted(Path(loader.origin).parent.glob("*espeak-ng.*")) if path.suffix in {".so", ".dylib"})
        program = Path(__file__).with_name("kokoro_child.py")
        files = (self.folder / file.name for file in self.release.files)
        return (sys.executable, "-I", str(program), str(library), *map(str, files))

    def speak(self, ask: Ask, text: str, settings: Settings) -> Spoken:
        speaker = self.resolve(settings)
        speed = min(2.0, max(0.5, (settings.rate or NORMAL_RATE) / NORMAL_RATE))
        request = {"text": text, "speaker": speaker, "speed": speed, "language": _LANGUAGES[speaker[0]].espeak}
        header, pcm = ask(request)
        return Spoken(header["rate"], pcm, work_ms=header["work_ms"], cut=header["cut"])


def _pieces(text: str) -> Iterator[Piece]:
    """Sentences; those that are too long in clauses, or at spaces. Together they are the text."""
    sentences = [match.group() for match in _SENTENCE.finditer(text) if match.group()]
    for sentence in sentences:
        rest = sentence
        while (limit := MAX_WIDE_CHARS if re.search(f"[{_KANA_AND_KANJI}]", rest) else MAX_CHARS) < len(rest):
            at = _cut(rest, limit)
            yield Piece(rest[:at], CLAUSE_PAUSE_MS if re.search(r"[,;:、，；：]\s*$", rest[:at]) else 0)
            rest = rest[at:]
        yield Piece(rest, SENTENCE_PAUSE_MS)
    if not sentences:
        yield Piece(text)


def _cut(text: str, limit: int) -> int:
    """Where to part a text: after the last clause that fits, else after a space, else anywhere."""
    for pattern in (r"[,;:]\s+|[、，；：]\s*", r"\s+"):
        ends = [match.end() for match in re.finditer(pattern, text[:limit])]
        if ends and ends[-1] > limit // 4:
            return ends[-1]
    return limit
