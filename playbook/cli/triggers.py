"""Triggers that come through standard input while a show goes on. For `run` alone."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import stat
import sys
import termios
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from playbook.perform.performance import Runner


LONGEST = 10_000
"""A trigger's name is no longer; what comes before that in an endless line is forgotten."""


def has_ended(stream: TextIO) -> bool:
    """Whether nothing is left to read and nobody will write any more. Nothing is taken out of the stream."""
    number, nowhere = stream.fileno(), os.open(os.devnull, os.O_RDONLY)
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
def given(runner: Runner, *, at_terminal: bool, to_the_end: bool) -> Iterator[None]:
    """Standard input gives triggers: a line is a trigger's name, an empty one is `go`."""
    if not (at_terminal or to_the_end):
        yield
        return
    loop, number, rest = asyncio.get_running_loop(), sys.stdin.fileno(), b""

    def read() -> None:
        nonlocal rest
        lost = False
        try:
            if at_terminal and os.tcgetpgrp(number) != os.getpgrp():  # in the background, reading would suspend us
                loop.remove_reader(number)
                loop.call_later(1.0, listen)
                return
            data = os.read(number, 4096)
        except BlockingIOError:
            return
        except OSError:  # the terminal is lost
            data, lost = b"", True
        *lines, rest = (rest[-LONGEST:] + data).split(b"\n")
        if rest and not data:  # a last line that nobody ended
            lines, rest = [rest], b""
        for line in lines:
            runner.trigger(line.decode("utf-8", "replace").strip() or "go")
        if not data:
            stop()
            if to_the_end or lost:
                runner.no_more_triggers()

    def listen() -> None:
        try:
            loop.add_reader(number, read)
        except PermissionError:  # a plain file is always ready, and epoll does not take it; nor does it some devices, which have no end
            if stat.S_ISREG(os.fstat(number).st_mode):
                for line in sys.stdin:
                    runner.trigger(line.strip() or "go")
            runner.no_more_triggers()

    def stop() -> None:
        loop.remove_reader(number)

    loop.call_soon(listen)
    try:
        yield
    finally:
        stop()
