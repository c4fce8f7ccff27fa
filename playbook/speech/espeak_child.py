"""The program that runs in the child process of `voice`: eSpeak NG behind a pipe.

It is started by path, not imported, and knows nothing but the standard library: its arguments are the library and its data folder,
each line of standard input is a request in JSON, and each answer is a line of JSON, followed by `bytes` bytes of samples.

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
POS_CHARACTER = 1
CHARS_UTF8 = 1  # and neither SSML nor [[phonemes]]: text is text
RATE, PITCH = 1, 3
WORD_EVENT = 1
SEED = 1


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
        ("id", ctypes.c_char * 8),
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


class Engine:
    """The library, loaded and initialised."""

    def __init__(self, library: str, data: str) -> None:
        self._lib = ctypes.CDLL(library)
        self.rate: int = self._lib.espeak_Initialize(SYNCHRONOUS, 0, os.fsencode(data), DONT_EXIT)
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
        words, samples = self._synthesise(request["text"])
        return {"rate": self.rate, "words": words}, samples

    def _synthesise(self, text: str) -> tuple[list[tuple[int, int]], bytes]:
        pieces: list[bytes] = []
        words: list[tuple[int, int]] = []

        def take(samples: int | None, count: int, events: Any) -> int:
            if samples and count:
                pieces.append(ctypes.string_at(samples, 2 * count))
            i = 0
            while events[i].type:
                if events[i].type == WORD_EVENT:
                    words.append((events[i].sample, events[i].position - 1))
                i += 1
            return 0

        callback = Callback(take)
        self._lib.espeak_SetSynthCallback(callback)
        data = text.encode()
        self._lib.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
        return words, b"".join(pieces)

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
            _reply({"error": f"eSpeak NG failed at this text (status {status})"})


if __name__ == "__main__":
    main()
