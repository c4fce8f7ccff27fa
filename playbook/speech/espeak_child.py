"""The program that runs in the child process of `voice`: eSpeak NG behind a pipe.

It is started by path, not imported, and knows nothing but the standard library: its arguments are the library and its data folder,
each line of standard input is a request in JSON, and each answer is a line of JSON, followed by `bytes` bytes of samples.

A request has `voice`, `rate`, `pitch`, `text` (or `list`), and `joins`: places of commas that are ours, whose pause is taken out again. An
answer has `rate`, `words` (sample and place of each), `phones` (sample and IPA of each phoneme, empty for a pause), and `full`, which
says that a clause had more phonemes than the engine surely holds.

eSpeak NG carries its state from one synthesis into the next, also across its own re-initialisation, so the second rendering of a text
differs from the first. Every request is therefore answered by a fork that has synthesised nothing yet. Where there is no fork, the
program answers one request and ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

SYNCHRONOUS = 2
DONT_EXIT = 0x8000
PHONEMES_IN_IPA = 0x1 | 0x2
POS_CHARACTER = 1
CHARS_UTF8 = 1  # and neither SSML nor [[phonemes]]: text is text
RATE, PITCH = 1, 3
WORD_EVENT, CLAUSE_END_EVENT, PHONEME_EVENT = 1, 5, 7
SEED = 1
FULL = 800
"""The engine drops what has more than 1,000 phonemes in a clause, among which are some that it does not tell of."""


class Event(ctypes.Structure):
    """`espeak_EVENT`; `position` counts characters from 1."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),  # a union: a phoneme's name, or a pointer
    ]


class VoiceRecord(ctypes.Structure):
    """`espeak_VOICE`; `languages` is a series of (priority byte, name) that ends with a zero."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("padding", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Event))


class _Spoken:
    """Collects what the engine says of one text."""

    def __init__(self, joins: frozenset[int]) -> None:
        self.words: list[tuple[int, int]] = []
        self.phones: list[tuple[int, str]] = []
        self.full = False
        self._joins = joins
        self._pieces: list[bytes] = []
        self._pauses: list[tuple[int, int]] = []  # from and to which sample, where two clauses are joined
        self._clause = 0  # words and phonemes so far
        self._pause: int | None = None  # since when nothing was said
        self._taken_out = 0  # samples, of the pauses before

    def take(self, samples: int | None, count: int, events: Any) -> int:
        """The engine's callback."""
        if samples and count:
            self._pieces.append(ctypes.string_at(samples, 2 * count))
        i = 0
        while events[i].type:
            self._event(events[i])
            i += 1
        return 0

    def samples(self) -> bytes:
        """The sound, without the pauses that we made."""
        pcm = b"".join(self._pieces)
        kept, at = [], 0
        for start, end in self._pauses:
            kept.append(pcm[2 * at : 2 * start])
            at = end
        return b"".join([*kept, pcm[2 * at :]])

    def _event(self, event: Event) -> None:
        if event.type == WORD_EVENT:
            self.words.append((event.sample - self._taken_out, event.position - 1))
            self._clause += 1
        elif event.type == PHONEME_EVENT:
            name = _name(event)
            self.phones.append((event.sample - self._taken_out, name))
            self._clause += 1
            self._pause = None if name else event.sample if self._pause is None else self._pause
        elif event.type == CLAUSE_END_EVENT:
            if self._pause is not None and not self._joins.isdisjoint((event.position - 1, event.position - 2)):
                self._pauses.append((self._pause, event.sample))
                self._taken_out += event.sample - self._pause
            self.full = self.full or self._clause >= FULL
            self._clause, self._pause = 0, None


def _name(event: Event) -> str:
    """Of a phoneme: up to eight bytes, which end with a zero, or in the middle of a character."""
    address = ctypes.addressof(event) + Event.id.offset
    return ctypes.string_at(address, Event.id.size).partition(b"\0")[0].decode("utf-8", "ignore")


class Engine:
    """The library, loaded and initialised."""

    def __init__(self, library: str, data: str) -> None:
        self._lib = ctypes.CDLL(library)
        self.rate: int = self._lib.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(data), DONT_EXIT | PHONEMES_IN_IPA)
        if self.rate <= 0:
            raise OSError("eSpeak NG could not be initialised")
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(SEED))  # else the clock is the seed of what breathes in some voices (`f2`)

    def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Header and body of the answer to one request."""
        if request.get("list"):
            return {"voices": list(self._voices(None)), "variants": list(self._voices(b"variant"))}, b""
        if self._lib.espeak_SetVoiceByName(request["voice"].encode()) != 0:
            return {"error": f"eSpeak NG cannot load the voice {request['voice']}"}, b""
        for parameter, value in ((RATE, request["rate"]), (PITCH, request["pitch"])):
            if value is not None:
                self._lib.espeak_SetParameter(parameter, value, 0)
        spoken = _Spoken(frozenset(request["joins"]))
        callback = Callback(spoken.take)
        self._lib.espeak_SetSynthCallback(callback)
        data = request["text"].encode()
        self._lib.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
        return {"rate": self.rate, "words": spoken.words, "phones": spoken.phones, "full": spoken.full}, spoken.samples()

    def _voices(self, language: bytes | None) -> Iterator[dict[str, Any]]:
        self._lib.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(VoiceRecord))
        wanted = VoiceRecord(languages=ctypes.cast(ctypes.c_char_p(language), ctypes.c_void_p)) if language else None
        found = self._lib.espeak_ListVoices(ctypes.byref(wanted) if wanted else None)
        i = 0
        while found[i]:
            voice = found[i].contents
            yield {"name": voice.name.decode().strip(), "id": voice.identifier.decode(), "languages": list(_languages(voice.languages))}
            i += 1


def _languages(address: int) -> Iterator[tuple[int, str]]:
    while priority := ctypes.string_at(address, 1)[0]:
        name = ctypes.string_at(address + 1)
        yield priority, name.decode()
        address += len(name) + 2


def _reply(header: dict[str, Any], body: bytes = b"") -> None:
    header["bytes"] = len(body)
    out = memoryview(json.dumps(header).encode() + b"\n" + body)
    while out:
        out = out[os.write(1, out) :]


def main() -> None:
    """Answer requests until standard input ends."""
    engine = Engine(sys.argv[1], sys.argv[2])
    for line in sys.stdin.buffer:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                _reply(*engine.answer(request))
                os._exit(0)
            except BaseException:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if status != 0:
            _reply({"error": "eSpeak NG crashes at this text"})


if __name__ == "__main__":
    main()
