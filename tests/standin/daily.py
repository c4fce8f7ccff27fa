"""A stand-in for the native module `daily`: the part that the child process uses, faults included. Chosen by the child's PYTHONPATH.

It behaves as the real one was seen to: callbacks and completions come on one other thread, in order, after the call returned; a refused
request also raises `on_error`; misuse aborts. The room's name chooses how joining goes, and messages that say `{"fault": …}` make things
happen later. There is a face in the room, `face-1`; it answers every other message by sending it back.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import queue
import struct
import threading
import time
import uuid

FAULT = os.environ.get("PYTHONDAILYFAULT", "")
FACE = {
    "id": "face-1",
    "info": {"userName": "Face", "isLocal": False, "userId": "tavus-replica-1", "isOwner": True},
    "media": {"microphone": {"state": "receivable"}, "camera": {"state": "playable"}},
}
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJyIjoiYyJ9.c2ln"

if FAULT == "missing":
    raise ImportError("No module named 'daily'")


def freeze():
    """Stop the interpreter, every thread of it, as a native call that holds its lock does."""
    ctypes.PyDLL(None).pause()


class Daily:
    alive = False

    @staticmethod
    def init(worker_threads=2, log_level=None):
        if Daily.alive or FAULT == "abort-at-init":
            print("Execution context already exists", flush=True)
            os.abort()
        if FAULT == "freeze-at-init":
            freeze()
        Daily.alive = True


class EventHandler:
    def __new__(cls, *args):
        return super().__new__(cls)


class CallClient:
    def __init__(self, event_handler=None):
        if not Daily.alive:
            os.abort()
        if not isinstance(event_handler, EventHandler):
            raise TypeError("handler")
        self._handler = event_handler
        self._jobs = queue.SimpleQueue()
        self._joined = False
        self._profile = {}
        self._id = str(uuid.UUID(int=7))
        threading.Thread(target=self._emit, daemon=True).start()

    def _emit(self):
        while True:
            function, *arguments = self._jobs.get()
            try:
                function(*arguments)
            except Exception as error:  # dropped, as the real one does, after the hook has seen it
                import sys
                from types import SimpleNamespace

                sys.unraisablehook(SimpleNamespace(exc_value=error))

    def _later(self, name, *arguments):
        function = getattr(self._handler, name, None)
        if function is not None:
            self._jobs.put((function, *arguments))

    def _complete(self, completion, *arguments):
        if completion is not None:
            self._jobs.put((completion, *arguments))

    def set_user_name(self, user_name):
        self._name = user_name

    def set_proxy_url(self, proxy_url=None, completion=None):
        self._complete(completion, None)

    def update_subscription_profiles(self, profile_settings, completion=None):
        self._profile = profile_settings["base"]
        self._complete(completion, None)

    def join(self, meeting_url, meeting_token=None, client_settings=None, completion=None):
        assert set(client_settings) <= {"inputs", "publishing", "connection"}
        self._settings = client_settings
        room = meeting_url.rsplit("/", 1)[-1].split("?")[0]
        ours = {"id": self._id, "info": {"userName": self._name, "isLocal": True}, "media": {"microphone": {"state": "off"}}}
        if room == "abort":
            os.abort()
        if room == "exit":
            os._exit(3)
        if room == "freeze":
            freeze()
        if room == "never":
            return
        if room.startswith("refused-"):
            text = {
                "refused-404": 'RoomLookup(RoomInfoFetchFailed(IoError(Custom { kind: Other, error: "HTTP error: 404 Not Found" })))',
                "refused-token": f"the token {meeting_token} at {meeting_url} is no good: HTTP error: 401 Unauthorized ({TOKEN})",
            }[room]
            self._later("on_error", "a short text")
            self._later("on_call_state_updated", "leaving")
            self._later("on_call_state_updated", "left")
            self._complete(completion, None, text)
            self._later("on_error", f"Error handling join: {text}")
            return
        self._later("on_call_state_updated", "joining")
        self._later("on_participant_updated", ours)
        if room == "garbage":
            print("the library prints", flush=True)
            self._later("on_participant_updated", None)
        if room == "early":
            self._later("on_participant_joined", FACE)
        self._joined = True
        self._later("on_network_connection_status_updated", {"connection": "signalling", "event": "connected"})
        self._later("on_call_state_updated", "joined")
        others = {FACE["id"]: FACE} if room in ("occupied", "mic") else {}
        self._complete(completion, {"meetingSession": {"id": "s"}, "participants": {"local": ours, **others}}, None)
        if not others and room not in ("empty", "early"):
            self._later("on_participant_joined", {"id": "face-1"})  # its name is not known at first
            self._later("on_participant_updated", FACE)
            self._later("on_participant_updated", FACE)  # nothing new

    def leave(self, completion=None):
        if FAULT == "stubborn":
            return
        self._joined = False
        self._later("on_call_state_updated", "leaving")
        self._later("on_call_state_updated", "left")
        self._complete(completion, None)

    def send_app_message(self, message, participant_id=None, completion=None):
        if message is None:
            raise ValueError("None")
        if not self._joined:
            self._complete(completion, "AppMessage(Signalling(ChannelNotOpen))")
            self._later("on_error", "Error handling sendAppMessage: AppMessage(Signalling(ChannelNotOpen))")
            return
        match message.get("fault") if isinstance(message, dict) else None:
            case "abort":
                os.abort()
            case "segfault":
                ctypes.string_at(0)
            case "freeze":
                freeze()
            case "unanswered":
                return
            case "refused":
                self._complete(completion, "AppMessage(Other)")
                self._later("on_error", "Error handling sendAppMessage: AppMessage(Other)")
                return
            case "warn":
                self._later("on_error", f"something about {TOKEN}")
            case "ended":
                self._later("on_error", "the meeting has ended")
                self._later("on_call_state_updated", "leaving")
                self._later("on_call_state_updated", "left")
            case "face-leaves":
                self._later("on_participant_left", FACE, "leftCall")
            case "flood":
                for number in range(message["count"]):
                    self._later("on_app_message", {"number": number}, "face-1")
            case "odd":
                for odd in (None, 7, "text", [1], {"a": float("nan")}, {"big": "é" * 1_000_000}):
                    self._later("on_app_message", odd, "face-1")
                deep = []
                for _ in range(100_000):
                    deep = [deep]
                self._later("on_app_message", deep, "face-1")
            case "settings":
                self._later("on_app_message", {"settings": self._settings, "profile": self._profile, "environ": sorted(os.environ)}, "")
            case _:
                self._later("on_app_message", message, "face-1")
        self._complete(completion, None)

    def set_audio_renderer(
        self, participant_id, callback, audio_source="microphone", sample_rate=16000, callback_interval_ms=20, logging_interval_ms=10000
    ):
        assert callback_interval_ms % 10 == 0
        if participant_id == "not-a-uuid":
            raise ValueError("participant")

        def render():
            """Half a second of quiet, half a second of a tone, quiet."""
            count = sample_rate * callback_interval_ms // 1000
            begin = time.monotonic()
            for number in itertools.count():
                threading.Event().wait(max(0.0, begin + (number + 1) * callback_interval_ms / 1000 - time.monotonic()))
                loud = 500 <= number * callback_interval_ms < 1000
                tone = [round(8000 * math.sin(2 * math.pi * 440 * i / sample_rate)) if loud else 0 for i in range(count)]
                callback(participant_id, AudioData(struct.pack(f"<{count}h", *tone), sample_rate), audio_source)

        threading.Thread(target=render, daemon=True).start()

    def add_custom_audio_track(self, track_name, audio_track, ignore_audio_level=None, completion=None):
        self._settings = {**self._settings, "track": track_name}
        self._complete(completion, "the track was refused" if track_name == "refused" else None)


class AudioData:
    def __init__(self, frames, sample_rate):
        self.audio_frames = frames
        self.sample_rate = sample_rate
        self.num_audio_frames = len(frames) // 2
        self.num_channels = 1
        self.bits_per_sample = 16


class CustomAudioSource:
    """Takes 10 ms in 10 ms, from a thread of its own. What it took is written where PYTHONDAILYTAPE says."""

    def __init__(self, sample_rate, channels, auto_silence=True):
        self._unit = sample_rate // 100 * 2 * channels
        self._jobs = queue.SimpleQueue()
        self._tape = os.environ.get("PYTHONDAILYTAPE")
        threading.Thread(target=self._run, daemon=True).start()

    def write_frames(self, frames, completion=None):
        if not isinstance(frames, bytes):
            raise TypeError("bytes")
        if len(frames) % 2:
            raise ValueError("odd")
        self._jobs.put((frames, completion))
        return 0

    def _run(self):
        tape = os.open(self._tape, os.O_WRONLY | os.O_CREAT) if self._tape else None
        due = time.monotonic()
        while True:
            frames, completion = self._jobs.get()
            due = max(due, time.monotonic() - 0.01) + 0.01 * math.ceil(len(frames) / self._unit)
            threading.Event().wait(max(0.0, due - time.monotonic()))
            if tape is not None:
                os.write(tape, frames)
            if completion is not None:
                completion(len(frames) // 2)


class CustomAudioTrack:
    def __init__(self, audio_source):
        self.id = "track-1"
        self.source = audio_source
