"""The sound that we make, as the pages receive it: a header in JSON and a WAV, and again a word when it is cut or goes on for longer.

The page plays a sound by its own audio clock, to the sample; a page that joins late plays it from where it is.
"""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections.abc import Callable
from typing import Any

from playbook.errors import SetupError
from playbook.speech.audio import Sound, to_ms
from playbook.speech.show import Placement

GONE_MS = 2_000
"""So long after its end a sound is forgotten."""


class Sounds:
    """What sounds by now. `tell` sends a message to all who listen; `to_server_ms` moves a run's time to the server's clock."""

    def __init__(self, tell: Callable[[dict[str, Any] | bytes], None], now_ms: Callable[[], float]) -> None:
        self._tell, self._now_ms = tell, now_ms
        self._to_server_ms: Callable[[int], float] = float
        self._sounding: dict[int, tuple[Placement, float, bytes, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0

    def follow(self, to_server_ms: Callable[[int], float]) -> None:
        """A performance begins."""
        self._to_server_ms = to_server_ms

    def begin(self, placement: Placement) -> None:
        """It sounds from now on."""
        task = asyncio.ensure_future(self._begin(placement))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, placement: Placement) -> None:
        try:
            sound = await asyncio.to_thread(placement.load)
        except (OSError, ValueError, SetupError):  # the run meets the same file, and says what is wrong with it
            return
        self._count += 1
        start = self._to_server_ms(placement.start_ms)
        lasts = to_ms(len(sound.pcm) // 2, sound.rate)
        self._sounding = {
            key: each for key, each in self._sounding.items() if self._end(each) > self._now_ms() - GONE_MS and each[0].cut_ms is None
        }
        if placement.cut_ms is not None:
            return
        self._sounding[self._count] = placement, start, wav(sound), lasts
        self._tell(self._message(self._count))

    def changed(self, placement: Placement) -> None:
        """Its end has moved, or it was cut off."""
        for key, (each, _, _, lasts) in self._sounding.items():
            if each is placement:
                if placement.cut_ms is not None:
                    self._tell({"type": "cut", "id": key})
                else:
                    self._tell({"type": "extend", "id": key, "to": lasts if placement.to_ms is None else placement.to_ms})

    def silence(self) -> None:
        """Nothing of it is heard any more."""
        self._sounding.clear()
        self._tell({"type": "silence"})

    def now(self) -> list[bytes]:
        """What a page that joins must play."""
        return [self._message(key) for key, each in self._sounding.items() if self._end(each) > self._now_ms() and each[0].cut_ms is None]

    @staticmethod
    def _end(each: tuple[Placement, float, bytes, int]) -> float:
        placement, start, _, lasts = each
        return start + (lasts if placement.to_ms is None else placement.to_ms) - placement.from_ms

    def _message(self, key: int) -> bytes:
        placement, start, data, lasts = self._sounding[key]
        header = {
            "type": "sound",
            "id": key,
            "start": start,
            "from": placement.from_ms,
            "to": lasts if placement.to_ms is None else placement.to_ms,
            "shapes": placement.shapes,
        }
        head = json.dumps(header).encode()
        return len(head).to_bytes(4, "big") + head + data


def wav(sound: Sound) -> bytes:
    """A sound as a WAV of 16 bits."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes(sound.pcm)
    return out.getvalue()
