"""A kiosk as a real process under its supervisor: killed, stuck, stopped, and with files that are edited under its
hands."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.commands import Shell
from tests.served import playbook_for, serving

HELLO = "version: 1\nprovider: local\ntimeline:\n  - say: Hello.\n  - end:\n"
LOBBY = """\
version: 1
kiosk: lobby
timezone: UTC
shows:
  hello: {playbook: hello.yaml}
play:
  - {on: go, show: hello}
idle: {show: hello, every: 500ms}
ladder: [local, captions]
"""


@pytest.fixture
def kiosk(shell: Shell) -> Shell:
    shell.write("hello.yaml", HELLO)
    shell.write("lobby.yaml", LOBBY)
    return shell


def child(process: subprocess.Popen[str]) -> int:
    """The process that the supervisor watches."""
    (found,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(found)


def has_ended(pidfd: int) -> bool:
    """Whether a process ends within ten seconds."""
    return bool(select.select([pidfd], [], [], 10)[0])


def entries() -> list[dict[str, str]]:
    return [json.loads(line) for line in Path("kiosk/lobby/kiosk.jsonl").read_text().splitlines()]


def test_a_kiosk_that_is_killed_is_back(kiosk: Shell):
    """kill -9 in the middle of a show: the supervisor starts it again, it says so, and shows go on; SIGTERM ends
    both with 143."""
    process = kiosk.start("kiosk", "lobby.yaml")
    kiosk.until(process, "show hello")
    first = child(process)
    os.kill(first, signal.SIGKILL)
    kiosk.until(process, "was killed by signal 9; it is started again in")
    kiosk.until(process, "opened: started again")
    kiosk.until(process, "show hello (idle): passed on local")
    second = child(process)
    assert second != first
    pidfd = os.pidfd_open(second)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert has_ended(pidfd)
    os.close(pidfd)
    assert entries()[-1]["cause"] == "SIGTERM"


@pytest.mark.slow
def test_a_loop_that_is_stuck_is_ended(kiosk: Shell):
    """A child that shows no sign of life for six seconds is killed and started again."""
    process = kiosk.start("kiosk", "lobby.yaml")
    kiosk.until(process, "show hello")
    os.kill(child(process), signal.SIGSTOP)
    kiosk.until(process, "the kiosk was stuck for 6 s; it is started again")
    kiosk.until(process, "show hello (idle): passed on local")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


@pytest.mark.slow
def test_a_kiosk_without_its_supervisor_stops_in_order(kiosk: Shell):
    """The supervisor is killed: the child sees it and stops, and nothing plays on that nobody watches."""
    process = kiosk.start("kiosk", "lobby.yaml")
    kiosk.until(process, "show hello")
    orphan = os.pidfd_open(child(process))
    process.kill()
    assert has_ended(orphan)
    os.close(orphan)
    assert entries()[-1] | {"at": ""} == {"at": "", "event": "stopped", "cause": "the supervisor has ended"}


def test_a_playbook_that_is_edited_into_nonsense(kiosk: Shell):
    """The last good one is kept, and said to be; a good one is taken; a file that disappears stops nothing."""
    process = kiosk.start("kiosk", "lobby.yaml")
    kiosk.until(process, "show hello (idle): passed on local")
    kiosk.write("hello.yaml", HELLO.replace("say:", "sai:"))
    kiosk.until(process, "a file has changed and is wrong, so the last good one is kept: PB206")
    kiosk.until(process, "show hello (idle): passed on local")
    kiosk.write("hello.yaml", HELLO.replace("Hello.", "Good evening."))
    kiosk.until(process, "a file has changed: it is performed as it is now")
    kiosk.until(process, "show hello (idle): passed on local")
    assert "Good evening." in (Path("kiosk/lobby") / entries()[-1]["run"] / "run.jsonl").read_text()
    Path("hello.yaml").unlink()
    kiosk.until(process, "a file has changed and is wrong, so the last good one is kept")
    kiosk.until(process, "show hello (idle): passed on local")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143


def test_signals_come_from_standard_input(kiosk: Shell):
    """A line is a signal; one that means nothing is said to be ignored; the end of the input is no reason to stop."""
    kiosk.write("lobby.yaml", LOBBY.replace("idle:", "# idle:"))
    process = kiosk.start("kiosk", "lobby.yaml", "--for", "30s", stdin=subprocess.PIPE)
    kiosk.until(process, "opened: started")
    assert process.stdin is not None
    process.stdin.write("nothing\n\n")
    process.stdin.close()
    kiosk.until(process, "the signal 'nothing' is ignored: nothing waits for the signal 'nothing'")
    kiosk.until(process, "show hello (go): passed on local")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


def test_a_kiosk_ends_when_its_time_is_over(kiosk: Shell):
    """`--for` at its end is exit 0."""
    done = kiosk.perform("kiosk", "lobby.yaml", "--for", "2s")
    assert done.code == 0, done.err
    assert "stopped: its time is over" in done.err


def test_what_is_wrong_is_not_started_again(kiosk: Shell):
    """A file that is wrong ends the supervisor, too, with the file's problems."""
    kiosk.write("lobby.yaml", LOBBY.replace("local,", "locl,"))
    done = kiosk.perform("kiosk", "lobby.yaml")
    assert done.code == 3
    assert "unknown provider 'locl'" in done.err


@pytest.mark.slow
def test_systemd_is_told(kiosk: Shell, tmp_path: Path):
    """READY when it runs, WATCHDOG as long as its loop goes round, STOPPING when it ends in order."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(20)
        kiosk.env["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        process = kiosk.start("kiosk", "lobby.yaml")
        assert [systemd.recv(200) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        process.send_signal(signal.SIGTERM)
        while (told := systemd.recv(200)) == b"WATCHDOG=1":
            pass
        assert told == b"STOPPING=1"
        assert process.wait(20) == 143


@pytest.mark.slow
def test_sessions_that_a_kill_left_open_are_ended(kiosk: Shell):
    """kill -9 while a billed session is open: the next start ends that session first, and keeps one of its own."""
    with serving("kaltura") as emulator:
        kiosk.env.update(emulator.environment())
        kiosk.write("hello.yaml", playbook_for("kaltura", "  - say: Hello.\n  - end:\n"))
        kiosk.write("lobby.yaml", LOBBY.replace("[local,", "[kaltura, local,"))
        process = kiosk.start("kiosk", "lobby.yaml")
        kiosk.until(process, "show hello (idle): passed on kaltura")
        (left,) = emulator.open_sessions
        os.kill(child(process), signal.SIGKILL)
        kiosk.until(process, "left open when the kiosk was killed: ended")
        kiosk.until(process, "show hello (idle): passed on kaltura")
        assert not left.alive
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert emulator.created == 2
        assert not emulator.open_sessions
    assert not list(Path("kiosk/lobby/sessions").rglob("session.json"))


# --- controls -------------------------------------------------------------------------------------------------------------


def http(port: str, method: str, path: str, **headers: str) -> tuple[int, str]:
    """One request to the kiosk."""
    connection = HTTPConnection("127.0.0.1", int(port), timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_http_gives_signals_and_tells_how_it_is(kiosk: Shell):
    """A signal by POST, 409 with the reason where it means nothing; health; metrics that Prometheus's own parser
    reads; no other host."""
    kiosk.write("lobby.yaml", LOBBY.replace("idle:", "controls: {http: {port: 0}}\n# idle:"))
    process = kiosk.start("kiosk", "lobby.yaml")
    (port,) = kiosk.find(process, r"audience http://127.0.0.1:(\d+)/, operator")
    assert http(port, "POST", "/api/signal/go") == (204, "")
    kiosk.until(process, "show hello (go): passed on local")
    status, reason = http(port, "POST", "/api/signal/nothing")
    assert (status, json.loads(reason)) == (409, {"reason": "nothing waits for the signal 'nothing'"})
    status, health = http(port, "GET", "/healthz")
    assert status == 200
    assert json.loads(health)["rung"] == "local"
    status, text = http(port, "GET", "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (shows,) = [sample for sample in families["playbook_kiosk_shows"].samples if sample.name.endswith("_total")]
    assert (shows.labels["show"], shows.labels["end"], shows.value) == ("hello", "passed", 1)
    assert http(port, "GET", "/metrics", Host="attacker.example")[0] == 403
    assert http(port, "POST", "/api/signal/go", Origin="http://attacker.example")[0] == 403
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """Starts a real MQTT broker (mosquitto), on the same port each time; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    started: list[subprocess.Popen[bytes]] = []

    def start() -> int:
        for process in started:
            process.kill()
            process.wait()
        started.append(subprocess.Popen(["mosquitto", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        return int(port)

    yield start
    for process in started:
        process.kill()
        process.wait()


def statuses(port: int, *, state: str) -> dict[str, object]:
    """What another client is told of the kiosk, as soon as that is its state."""
    argv = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-t", "hall/state", "-W", "20"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        for line in client.stdout:
            status: dict[str, object] = json.loads(line)
            if status["state"] == state:
                client.kill()
                return status
    raise AssertionError(f"it never was {state}")


@pytest.mark.broker
def test_mqtt(kiosk: Shell, broker: Callable[[], int]):
    """Signals come from another client; the status is retained; a broker that goes away and comes back stops
    nothing; the last will."""
    port = broker()
    mqtt = f'controls: {{mqtt: {{url: "mqtt://127.0.0.1:{port}", topic: hall}}}}\n# idle:'
    kiosk.write("lobby.yaml", LOBBY.replace("idle:", mqtt))
    process = kiosk.start("kiosk", "lobby.yaml")
    kiosk.until(process, "opened: started")
    assert statuses(port, state="online")["rung"] == "local"
    subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-t", "hall/signal/go", "-n"], check=True)
    kiosk.until(process, "show hello (go): passed on local")
    broker()
    kiosk.until(process, f"the broker mqtt://127.0.0.1:{port} is away")
    assert statuses(port, state="online")["shows"] == 1
    os.kill(child(process), signal.SIGKILL)
    assert statuses(port, state="offline") == {"kiosk": "lobby", "state": "offline"}
    assert statuses(port, state="online")["shows"] == 0
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert statuses(port, state="offline") == {"kiosk": "lobby", "state": "offline"}
