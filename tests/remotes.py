"""What tests of controls need from outside."""

from __future__ import annotations

import shutil

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")
"""The broker, where there is one."""
