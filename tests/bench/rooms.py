"""The message channel: how fast we answer in a room, and how well sound keeps its time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from statistics import quantiles

from playbook.clock import run
from playbook.emulators.room import serve_rooms
from playbook.transports.room import Door, RoomEvent, SocketRoom
from tests.bench import Say, bench
from tests.rooms import Hall

ROUNDS = 3_000
SECONDS = 30

PACING = """
import os, sys, threading
import daily
from playbook.transports.daily_child import Player

HZ, COUNT = 24_000, int(sys.argv[1])
started, ended, taken, over = [], [], threading.Semaphore(10), threading.Event()

class Outbox:
    def say(self, on, **rest):
        if on == "taken":
            taken.release()
        else:
            (started if on == "started" else ended).append(rest["at"])
            if len(ended) == COUNT:
                over.set()

def resident_kb():
    return int(open("/proc/self/statm").read().split()[1]) * 4

daily.Daily.init()
source = daily.CustomAudioSource(HZ, 1)
track = daily.CustomAudioTrack(source)
player = Player(source, HZ, Outbox())
player.start()
for clip in range(COUNT):
    for piece in range(10):
        taken.acquire()
        player.add(str(clip), bytes(HZ // 5), final=piece == 9, era=0)
    if clip == 2:
        early = resident_kb()
over.wait(60)
off = [abs(at - started[0] - second - 1) * 1000 for second, at in enumerate(ended)]
print(max(off), resident_kb() - early, flush=True)
os._exit(0)
"""


@bench("room-latency", "from an event in a room to our next message at its other end, over a real socket, both ends in one process")
def measure_latency(say: Say) -> None:
    took_ms: list[float] = []

    async def main() -> None:
        asked = 0.0
        done = asyncio.Event()

        class Asking(Hall):
            def said(self, *_: object) -> None:
                took_ms.append((time.perf_counter() - asked) * 1000)
                ask() if len(took_ms) < ROUNDS else done.set()

        def ask() -> None:
            nonlocal asked
            asked = time.perf_counter()
            hall.guests[0].message({"event_type": "conversation.stopped_speaking"}, "face-1")

        def answer(event: RoomEvent) -> None:
            if joined:
                room.send({"event_type": "conversation.echo", "properties": {"text": "Next."}})

        hall, joined = Asking(), False
        async with serve_rooms(hall) as url:
            room = SocketRoom(answer)
            await room.open(Door(url))
            joined = True
            ask()
            await done.wait()
            await room.close()

    run(main())
    percent = quantiles(took_ms, n=100)
    say("p50", percent[49], "ms")
    say("p99", percent[98], "ms", target=5.0)


@bench("room-pacing", f"{SECONDS} s of sound through the child's player and the native audio source")
def measure_pacing(say: Say) -> None:
    done = subprocess.run([sys.executable, "-c", PACING, str(SECONDS)], capture_output=True, text=True, check=True)
    off_ms, grown_kb = map(float, done.stdout.split())
    say("greatest deviation from the plan", off_ms, "ms", target=20.0)
    say("memory that came to stay", grown_kb / 1024, "MB", target=1.0)
