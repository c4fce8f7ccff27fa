"""What systemd is told (`READY`, `WATCHDOG`, `STOPPING`), and the unit that starts a kiosk. See sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

_UNIT = """\
# Written by `playbook kiosk {file} --unit`. Put it in /etc/systemd/system/playbook-{name}.service, then:
#   systemctl daemon-reload && systemctl enable --now playbook-{name}
[Unit]
Description=The kiosk {name}
After=network-online.target sound.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
WatchdogSec=30
WorkingDirectory={folder}
# Credentials, one NAME=VALUE a line; readable by root alone.
EnvironmentFile=-/etc/playbook/{name}.env
ExecStart={command} kiosk {path}
StandardInput=null
Restart=always
RestartSec=2
RestartPreventExitStatus=2 3
KillMode=mixed
SuccessExitStatus=130 143
TimeoutStartSec=150
TimeoutStopSec=60

[Install]
WantedBy=multi-user.target
"""


class Systemd:
    """The notification socket of systemd, if it started us."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._address = env.get("NOTIFY_SOCKET", "")

    def ready(self) -> None:
        """The kiosk runs."""
        self._tell("READY=1")

    def alive(self, status: str = "") -> None:
        """It still does."""
        self._tell("WATCHDOG=1" + (f"\nSTATUS={status}" if status else ""))

    def stopping(self) -> None:
        """It ends in order."""
        self._tell("STOPPING=1")

    def _tell(self, state: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.sendto(state.encode(), address)


def unit(file: Path, name: str) -> str:
    """A unit for a kiosk file, as it would be started from here."""
    command = f"{shlex.quote(sys.executable)} -m playbook"
    return _UNIT.format(file=file, name=name, folder=Path.cwd(), command=command, path=shlex.quote(os.path.abspath(file)))
