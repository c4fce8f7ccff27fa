"""The child process that holds Daily's native library: a program, started by `transports.daily`.

It speaks the lines of `transports.room` on standard input and output and does as little as possible in between. The library's traps, all
measured on daily-python 0.36, and where each is dealt with:

* `init` twice, a client before `init`, a device before it: SIGABRT or SIGSEGV. One `main` makes one of each, in order.
* `deinit` with a client alive, collecting a client that is joining, dropping an audio source with writes pending: abort, crash or hang at
  exit. We never release, never `deinit`, keep everything referenced, and leave by `os._exit`.
* `participants()` holds the interpreter's lock until a join is decided; a join cannot be cancelled. Never called; the roster comes from
  events; our parent kills us.
* Callbacks come on a native thread that also serves completions. They only append to a queue: no waiting, no call back into the client
  but those that return at once. The library swallows what a callback raises; our hook tells of it.
* Every refused request also raises `on_error`; who answers that by sending loops for ever. A text that repeats a completion is not
  passed on.
* The library or a panic may write to standard output: the true one is moved away first.
* `serialize_none` is in the stubs and not in the library. Not used. A string with a NUL is a panic, which is a `BaseException`.

Imports nothing of the package but the microphone's queue.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

from playbook.transports.microphone import Frame, Microphone

os.environ.setdefault("RUST_LOG", "off")  # its error lines come whatever the log level says

_FRAMES_AHEAD = 6  # of 10 ms: what a stall of ours may last, and what a cut cannot take back (4 ran dry on a busy machine)
_OUTBOX_BYTES = 64 * 1024 * 1024  # a parent that far behind does not read any more
_HEARD_HZ = 16_000
_HEARD_MS = 20  # must be a multiple of 10, or the renderer never fires
_LEAVE_S = 0.8
_FLUSH_S = 0.2


class Outbox:
    """Lines for our parent, written by a thread of its own so that no callback ever waits for a full pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lines: SimpleQueue[bytes | None] = SimpleQueue()
        self._waiting = 0
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def say(self, on: str, **rest: Any) -> None:
        """Queue a line. `at`, unless given, is now."""
        rest.setdefault("at", time.monotonic())
        try:
            line = json.dumps({"on": on, **rest}, separators=(",", ":")).encode() + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            line = json.dumps({"on": "error", "text": f"a {on} that is not JSON: {error}"}).encode() + b"\n"
        self._waiting += len(line)  # only a bound against running away: a lost update does not matter
        if self._waiting > _OUTBOX_BYTES:
            os._exit(74)
        self._lines.put(line)

    def flush(self) -> None:
        """Write what is queued, for a moment at most."""
        self._lines.put(None)
        self._thread.join(_FLUSH_S)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            view = memoryview(line)
            while view:
                try:
                    view = view[os.write(self._fd, view) :]
                except OSError:
                    os._exit(0)  # nobody is left to tell
            self._waiting -= len(line)


class Player:
    """Feeds the audio source without a gap, `_FRAMES_AHEAD` frames ahead of what is heard. The source keeps the time: it takes 10 ms in
    10 ms, also without a call."""

    def __init__(self, source: Any, hz: int, outbox: Outbox) -> None:
        self._source = source
        self._microphone = Microphone(hz)
        self._outbox = outbox
        self._lock = threading.Lock()
        self._slots = threading.Semaphore(_FRAMES_AHEAD)
        self._eras: deque[tuple[int, int]] = deque()  # (bytes, era) as queued, to credit what is taken
        self._taken = 0
        self._playing: deque[Frame] = deque()

    def start(self) -> None:
        """Begin the unbroken track."""
        threading.Thread(target=self._feed, daemon=True).start()

    def add(self, clip: str, pcm: bytes, *, final: bool, era: int) -> None:
        """Queue a piece."""
        with self._lock:
            self._microphone.add(clip, pcm, final=final)
            if pcm:
                self._eras.append((len(pcm), era))

    def cut(self) -> None:
        """Forget what was not yet handed to the source."""
        with self._lock:
            self._microphone.cut()
            self._eras.clear()
            self._taken = 0

    def _feed(self) -> None:
        while True:
            self._slots.acquire()
            with self._lock:
                frame = self._microphone.next_frame()
                self._credit(frame.taken)
            self._playing.append(frame)
            self._source.write_frames(frame.pcm, completion=self._played)

    def _credit(self, count: int) -> None:
        self._taken += count
        while self._eras and self._taken >= self._eras[0][0]:
            size, era = self._eras.popleft()
            self._taken -= size
            self._outbox.say("taken", bytes=size, era=era)

    def _played(self, _: int) -> None:
        frame = self._playing.popleft()  # completions come in the order of the writes
        self._slots.release()
        began = time.monotonic() - self._microphone.frame_ms / 1000
        for mark in frame.marks:
            at = began + mark.offset_ms / 1000
            if mark.on == "started":
                self._outbox.say("started", clip=mark.clip, at=at)
            else:
                self._outbox.say("ended", clip=mark.clip, played_ms=mark.played_ms, interrupted=mark.interrupted, at=at)


def _summary(participant: Mapping[str, Any]) -> dict[str, Any]:
    """What we tell of a participant. Any of it may be missing (there is no `userName` until one is set)."""
    info = participant.get("info") or {}
    media = participant.get("media") or {}

    def there(track: str) -> bool:
        return (media.get(track) or {}).get("state") in ("receivable", "playable", "loading", "interrupted")

    return {
        "id": participant.get("id"),
        "name": info.get("userName") or "",
        "local": bool(info.get("isLocal")),
        "audio": there("microphone"),
        "video": there("camera"),
        "user": info.get("userId") or "",
        "owner": bool(info.get("isOwner")),
    }


class Call:
    """The one call of this process: lines in, library calls out."""

    def __init__(self, daily: Any, outbox: Outbox) -> None:
        self._daily = daily
        self._say = outbox.say
        self._outbox = outbox
        self._roster: dict[str, dict[str, Any]] = {}
        self._early: dict[str, Mapping[str, Any]] = {}  # seen before the join was decided: they may not be in its result
        self._joined = False
        self._leaving = False
        self._left = threading.Event()
        self._last_error = ""
        self._player: Player | None = None
        self._track: Any = None
        daily.Daily.init()
        self._handler = self._make_handler()
        self._client = daily.CallClient(event_handler=self._handler)

    def obey(self, line: bytes) -> None:
        """Do what a line says."""
        order = json.loads(line)
        match order["do"]:
            case "join":
                self._join(order)
            case "send":
                self._send(order["n"], order["message"])
            case "listen":
                self._listen(order["participant"])
            case "play" if self._player is not None:
                self._player.add(order["clip"], base64.b64decode(order["pcm"]), final=order["final"], era=order["era"])
            case "cut" if self._player is not None:
                self._player.cut()
            case "ping":
                self._say("pong")
            case "leave":
                self.leave()

    def leave(self) -> None:
        """Leave the call if we are in one, and the process in any case. Does not return."""
        if self._joined:
            self._leaving = True
            self._client.leave(completion=lambda _: self._left.set())
            self._left.wait(_LEAVE_S)
        self._outbox.flush()
        os._exit(0)

    # library calls

    def _join(self, order: Mapping[str, Any]) -> None:
        hz, track_name = order["microphone_hz"], order["track"]
        inputs: dict[str, Any] = {"camera": False, "microphone": False}
        if hz:
            source = self._daily.CustomAudioSource(hz, 1)
            self._track = self._daily.CustomAudioTrack(source)
            self._player = Player(source, hz, self._outbox)
            if track_name == "microphone":
                inputs["microphone"] = {"isEnabled": True, "settings": {"customTrack": {"id": self._track.id}}}

        def joined(data: Mapping[str, Any] | None, error: str | None) -> None:
            if error is not None:
                self._say("refused", text=error)
            elif hz and track_name != "microphone":
                self._client.add_custom_audio_track(track_name, self._track, completion=lambda error: admitted(data, error))
            else:
                admitted(data, None)

        def admitted(data: Mapping[str, Any] | None, error: str | None) -> None:
            if error is not None:
                self._say("refused", text=error)
                return
            participants = dict((data or {}).get("participants") or {})
            ours = dict(participants.pop("local", None) or {})
            ours["info"] = {**(ours.get("info") or {}), "isLocal": True}
            self._joined = True
            self._say("joined", id=str(ours.get("id") or ""))
            for participant in (ours, *participants.values(), *self._early.values()):
                self._present(participant)
            if self._player is not None:
                self._player.start()

        self._client.set_user_name(order["name"])
        # Nobody looks: without this, every camera in the room is received and decoded.
        wanted = "subscribed" if order["listen"] else "unsubscribed"
        self._client.update_subscription_profiles({"base": {"camera": "unsubscribed", "microphone": wanted}})
        if order["proxy"]:
            self._client.set_proxy_url(order["proxy"])
        self._client.join(order["url"], order["token"], client_settings={"inputs": inputs}, completion=joined)

    def _send(self, n: int, message: Any) -> None:
        try:
            self._client.send_app_message(message, None, completion=lambda error: self._say("sent", n=n, error=error))
        except Exception as error:
            self._say("sent", n=n, error=f"{type(error).__name__}: {error}")

    def _listen(self, participant: str) -> None:
        def heard(who: str, data: Any, _: str) -> None:
            at = time.monotonic() - data.num_audio_frames / data.sample_rate
            self._say("sound", participant=who, pcm=base64.b64encode(data.audio_frames).decode(), hz=data.sample_rate, at=at)

        try:
            self._client.set_audio_renderer(participant, heard, "microphone", sample_rate=_HEARD_HZ, callback_interval_ms=_HEARD_MS)
        except Exception as error:
            self._say("error", text=f"listening to {participant}: {error}")

    # callbacks, on the library's thread

    def _present(self, participant: Mapping[str, Any]) -> None:
        summary = _summary(participant)
        if not self._joined:
            self._early[str(summary["id"])] = participant
            return
        known = self._roster.get(str(summary["id"]))
        if summary == known or not summary["id"]:
            return
        self._roster[summary["id"]] = summary
        self._say("participant", change="updated" if known else "joined", **summary)

    def _absent(self, participant: Mapping[str, Any], reason: str) -> None:
        summary = _summary(participant)
        self._early.pop(str(summary["id"]), None)
        if self._roster.pop(str(summary["id"]), None):
            self._say("participant", change="left", reason=reason, **summary)

    def _state(self, state: str) -> None:
        # A join that failed goes through `left` as well: only a call that we were in can be lost.
        if state == "left" and self._joined and not self._leaving:
            self._say("lost", text=self._last_error or "the call has ended")

    def _error(self, text: str) -> None:
        self._last_error = text
        if not text.startswith("Error handling "):  # the completion of that request says the same
            self._say("error", text=text)

    def _make_handler(self) -> Any:
        call = self

        class Handler(self._daily.EventHandler):  # type: ignore[misc, name-defined]  # the class is known at run time only
            def on_app_message(self, message: Any, sender: str) -> None:
                call._say("message", message=message, sender=sender or "")

            def on_participant_joined(self, participant: Mapping[str, Any]) -> None:
                call._present(participant)

            def on_participant_updated(self, participant: Mapping[str, Any]) -> None:
                call._present(participant)

            def on_participant_left(self, participant: Mapping[str, Any], reason: str) -> None:
                call._absent(participant, reason)

            def on_call_state_updated(self, state: str) -> None:
                call._state(state)

            def on_error(self, message: str) -> None:
                call._error(message)

            def on_network_connection_status_updated(self, status: Any) -> None:
                if (status or {}).get("event") != "connected":  # told at every join, too
                    call._say("error", text=f"network connection: {json.dumps(status, default=str)}")

        return Handler()


def _die_with_parent() -> None:
    """End when the thread that started us does, whatever becomes of it. Only Linux can; elsewhere the end of standard input has to do."""
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _bug(kind: Any, error: Any, trace: Any) -> None:
    """Our own mistake on any thread must not leave a child that looks alive."""
    sys.__excepthook__(kind, error, trace)
    os._exit(70)


def main() -> None:
    """Serve one call, from the first line on standard input to its end."""
    _die_with_parent()
    sys.excepthook = _bug
    threading.excepthook = lambda args: _bug(args.exc_type, args.exc_value, args.exc_traceback)
    outbox = Outbox(os.dup(1))
    os.dup2(2, 1)
    # A callback that met a shape it does not know: the room lives on, the log says so.
    sys.unraisablehook = lambda args: outbox.say("error", text=f"in a callback: {args.exc_value!r}")
    try:
        import daily
    except ImportError as error:
        outbox.say("unusable", text=str(error))
        outbox.flush()
        return
    call = Call(daily, outbox)
    outbox.say("ready")
    for line in sys.stdin.buffer:
        call.obey(line)
    call.leave()


if __name__ == "__main__":
    main()
