"""Lines that come through a file descriptor while a show goes on, for the controls that read some. A line that is empty is `go`."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import stat
import termios
from collections.abc import Callable, Iterator

LONGEST = 10_000
"""A signal's name is no longer; what comes before that in an endless line is forgotten."""
LOOK_S = 1.0
"""How often a process in the background looks whether the terminal is its own again."""


def has_ended(number: int) -> bool:
    """Whether nothing is left to read and nobody will write any more. Nothing is taken out of the stream."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    try:
        if os.path.sameopenfile(number, nowhere):
            return True
        if not select.select([number], [], [], 0)[0]:
            return False
        return not any(fcntl.ioctl(number, termios.FIONREAD, bytes(4)))
    except OSError:  # something else than a pipe, a file or a terminal
        return False
    finally:
        os.close(nowhere)


@contextlib.contextmanager
def lines(number: int, take: Callable[[str], None], over: Callable[[], None], *, terminal: bool = False) -> Iterator[None]:
    """Have each line taken as it comes, until the context is left; `over` is called at the end of the stream. From a `terminal` nothing is
    read while the process is in its background, which would suspend it."""
    loop, rest = asyncio.get_running_loop(), b""
    waiting: asyncio.TimerHandle | None = None

    def read() -> None:
        nonlocal rest, waiting
        try:
            if terminal and os.tcgetpgrp(number) != os.getpgrp():
                loop.remove_reader(number)
                waiting = loop.call_later(LOOK_S, listen)
                return
            data = os.read(number, 4096)
        except BlockingIOError:
            return
        except OSError:  # the terminal is lost
            data = b""
        *whole, rest = (rest[-LONGEST:] + data).split(b"\n")
        if rest and not data:  # a last line that nobody ended
            whole, rest = [rest], b""
        for line in whole:
            take(line.decode("utf-8", "replace").strip() or "go")
        if not data:
            loop.remove_reader(number)
            over()

    def listen() -> None:
        try:
            loop.add_reader(number, read)
        except PermissionError:  # a plain file is always ready, and epoll does not take it; nor does it some devices, which have no end
            if stat.S_ISREG(os.fstat(number).st_mode):
                with open(os.dup(number), encoding="utf-8", errors="replace") as file:
                    for line in file:
                        take(line.strip() or "go")
            over()

    first = loop.call_soon(listen)
    try:
        yield
    finally:
        first.cancel()
        if waiting is not None:
            waiting.cancel()
        loop.remove_reader(number)
