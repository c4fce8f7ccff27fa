"""The process that starts a kiosk again: after a crash, a kill, or when its loop is stuck.

The kiosk is a child that writes a byte to a pipe as long as its loop goes round. A child that is silent for
`STUCK_S` is killed. One that ended by itself in order, or that was told what is wrong with its file, is not started
again. When the supervisor itself is killed, the child sees the other end of a pipe close and stops in order. Nothing
here imports what a kiosk is made of, so that there is little that can fail.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from playbook.clock import stopwatch
from playbook.kiosk.notify import Systemd

CHILD = "PLAYBOOK_KIOSK_PIPES"
"""In the child's environment: the numbers of the pipe that it writes to and of the one that closes with the
supervisor."""
STUCK_S = 6.0
STARTING_S = 120.0
"""How long a child may take until its first byte: it reads its files, and may have to speak every line of them
ahead."""
PAUSES_S = (0.5, 1.0, 2.0, 4.0)
"""Before a child is started again, the longer the sooner it ended. The last one stays."""
STEADY_MS = 5_000
"""A child that lived for so long has begun well."""
FINAL = (0, 2, 3, 130, 143)
"""Exit codes after which nothing is started again."""
ENDED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def supervise(argv: Sequence[str], env: Mapping[str, str], say: Callable[[str], None]) -> int:
    """Run `playbook ARGV` until it ends for good, and give its exit code."""
    systemd = Systemd(env)
    asked = _Asked(systemd)
    failures = 0
    with asked.listening():
        while True:
            lived_ms, code, why = _one(argv, env, systemd, asked)
            if code in FINAL or asked.signal is not None:
                return code if code >= 0 else 128 - code
            failures = 0 if lived_ms >= STEADY_MS else failures + 1
            pause_s = PAUSES_S[min(failures, len(PAUSES_S) - 1)]
            say(f"the kiosk {why}; it is started again in {pause_s:g} s")
            if asked.wait(pause_s):
                return 128 + (asked.signal or signal.SIGTERM)


class _Asked:
    """Signals that ask us to end, and a pipe by which they wake us up."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        self.signal: int | None = None
        self.child: subprocess.Popen[bytes] | None = None
        self.wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals meanwhile."""
        before = {number: signal.signal(number, self._take) for number in ENDED_BY}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)

    def _take(self, number: int, _: object) -> None:
        self.signal = number
        self._systemd.stopping()
        with contextlib.suppress(OSError):
            os.write(self._woken, b".")
        if self.child is not None:  # a terminal has told it as well, and it takes the two for one
            with contextlib.suppress(OSError):
                self.child.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """Wait, or until we are asked to end."""
        return self.signal is not None or bool(select.select([self.wake], [], [], seconds)[0])


def _one(argv: Sequence[str], env: Mapping[str, str], systemd: Systemd, asked: _Asked) -> tuple[int, int, str]:
    """One life of the kiosk: how long it lasted, how it ended, and that in words."""
    beats, child_beats = os.pipe()
    child_ends, ends = os.pipe()
    try:
        told = {**env, CHILD: f"{child_beats},{child_ends}"}
        told.pop("NOTIFY_SOCKET", None)
        child = subprocess.Popen([sys.executable, "-m", "playbook", *argv], env=told, pass_fds=(child_beats, child_ends))
    finally:
        os.close(child_beats)
        os.close(child_ends)
    asked.child, lived, stuck = child, stopwatch(), False
    try:
        stuck = _watch(beats, systemd, asked)
        if stuck:
            child.kill()
        code = child.wait()
    finally:
        asked.child = None
        os.close(beats)
        os.close(ends)
    why = f"was stuck for {STUCK_S:g} s" if stuck else f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return lived(), code, why


def _watch(beats: int, systemd: Systemd, asked: _Asked) -> bool:
    """Until the child has ended, or is stuck."""
    patience_s = STARTING_S
    while select.select([beats], [], [], patience_s)[0]:
        if not os.read(beats, 4096):
            return False
        if patience_s == STARTING_S:
            systemd.ready()
        patience_s = STUCK_S if asked.signal is None else STARTING_S
        if asked.signal is None:
            systemd.alive()
    return True
