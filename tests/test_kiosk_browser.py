"""A kiosk's page in a real browser: a visitor's show is seen and heard, and again after the kiosk was killed."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

import pytest

from .commands import Shell
from .stages import until
from .test_kiosk_process import HELLO, LOBBY, child, http
from .test_stage_browser import chromium, page  # noqa: F401  # a fixture

pytestmark = pytest.mark.browser


def test_a_visitor_sees_and_hears_the_show_before_and_after_a_kill(shell: Shell, chromium: Any):  # noqa: F811
    """The page joins, the show's words and sound come, the kiosk is killed and comes back, and the same page goes on
    by itself."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    shell.write("hello.yaml", HELLO.replace("Hello.", "Hello, and welcome to our lobby. It is good to see you."))
    shell.write("lobby.yaml", LOBBY.replace("idle:", f"controls: {{http: {{port: {port}}}}}\nidle: captions\n# idle:"))
    process = shell.start("kiosk", "lobby.yaml")
    shell.until(process, "audience http://127.0.0.1")
    with page(chromium, f"http://127.0.0.1:{port}/") as audience:
        for _ in range(2):
            audience.wait_for_function("stage.sound !== undefined")
            until(lambda: "joined" in http(port, "GET", "/api/state")[1], "the page has joined")
            assert http(port, "POST", "/api/signal/go")[0] == 204
            until(lambda: audience.evaluate("stage.sound.level()") > 0.02, "it is heard")
            until(lambda: "welcome to our lobby" in audience.locator("#captions").text_content(), "it is read")
            shell.until(process, "show hello (go): passed on local")
            os.kill(child(process), signal.SIGKILL)
            shell.until(process, "audience http://127.0.0.1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
