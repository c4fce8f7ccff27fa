"""The real command in a real process: signals, pipes, terminals, a full disk, a cold start that imports nothing heavy."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import resource
import select
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from .logs import checked, closings, of

LONG = """\
version: 1
name: long
provider: local
timeline:
  - say: One.
    id: first
  - say: This sentence is so long that somebody will surely have stopped it before it has come to its own end, which is far away.
    id: second
  - say: Nobody hears this.
    id: third
"""


def stopped(shell, *signals: int, out: str) -> tuple[int, str, list]:
    """Run the real command on the real clock, send it signals in the middle of its second line, and see what it left."""
    shell.write("long.yaml", LONG)
    process = shell.start("run", "long.yaml", "--out", out)
    shell.until(process, "  second  ")
    for number in signals:
        process.send_signal(number)
    told, err = process.communicate(timeout=20)
    assert "Traceback" not in err
    return process.returncode, told, checked(Path(out))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=lambda value: str(int(value))
)
def test_a_signal_stops_in_order(shell, number, code):
    """In mid-speech: the speech stops, the session is closed, log, captions and sound are finished, and only then the process ends."""
    got, told, lines = stopped(shell, number, out="here")
    assert got == code
    assert f"stopped: {signal.Signals(number).name}" in told
    assert lines[-1]["end"] == "stopped"
    assert [line["event"] for line in lines if line.get("event", "").startswith("session_")] == ["session_opened", "session_closed"]
    ends = closings(lines)
    assert list(ends) == ["first", "second"]
    assert ends["second"]["interrupted"]
    assert "Nobody" not in Path("here/captions.vtt").read_text("utf-8")
    assert Path("here/audio.wav").stat().st_size > 1000


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)], ids=lambda value: str(int(value))
)
def test_a_signal_before_there_is_a_session(shell, number, code):
    """While the plan is being made: the process ends by itself, with the exit code that it would have later."""
    shell.write("hello.yaml")
    os.mkfifo("slow.yaml")
    process = shell.start("run", "hello.yaml", "--vars", "slow.yaml", "--out", "here")
    writing = os.open("slow.yaml", os.O_WRONLY)  # returns when it has begun to read
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    os.close(writing)
    assert process.returncode == code, err
    assert "this is a bug" not in err
    assert not Path("here").exists()


def test_a_second_signal_does_no_harm(shell):
    """SIGINT and SIGTERM together still leave one close and a complete log."""
    code, _, lines = stopped(shell, signal.SIGINT, signal.SIGTERM, out="here")
    assert code in (130, 143)
    assert len(of(lines, "command", "close_session")) == 1


def test_a_reader_that_leaves_is_no_error(shell):
    """`playbook plan … | head` is quiet, and keeps its exit code."""
    shell.write("hello.yaml")
    reading, writing = os.pipe()
    os.close(reading)
    done = shell.perform("plan", "hello.yaml", stdout=writing)
    os.close(writing)
    assert (done.code, done.err) == (0, "")


def test_a_run_survives_readers_that_leave(shell):
    """With both streams broken, a show is still performed to its end, and its exit code is its own."""
    shell.write("hello.yaml")
    reading, writing = os.pipe()
    os.close(reading)
    done = shell.perform("run", "hello.yaml", "--clock", "virtual", "--out", "here", stdout=writing, stderr=writing)
    os.close(writing)
    assert done.code == 0
    assert checked(Path("here"))[-1]["end"] == "passed"


def small_disk(limit: int):
    """What makes a child's disk so full that no file can grow beyond so many bytes."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def test_results_that_cannot_be_written_are_4(shell):
    """A full disk behind standard output is the world's fault, and said on standard error."""
    shell.write("waits.yaml", "version: 1\nprovider: local\ntimeline: [wait: 1s]\n")
    with open("results.txt", "w") as results:
        done = shell.perform("plan", "waits.yaml", stdout=results, preexec_fn=small_disk(100))
    assert done.code == 4
    assert done.err.startswith("error: standard output cannot be written: ")


def test_a_full_disk_stops_the_show_in_order(shell):
    """When the log cannot be written any more, nothing more is said, the session is closed, and the reason is told; exit 4."""
    waits = "".join(f"  - wait: {n}ms\n" for n in range(1, 61))
    shell.write("long.yaml", f"version: 1\nprovider: local\ntimeline:\n{waits}  - say: Never.\n    id: never\n")
    assert shell.call("plan", "long.yaml").code == 0  # the line is in the cache now
    limit = 12_000
    done = shell.perform("run", "long.yaml", "--clock", "virtual", "--out", "here", "--json", preexec_fn=small_disk(limit))
    told = json.loads(done.out)
    assert done.code == 4
    assert (told["end"], told["exit_code"]) == ("error", 4)
    assert told["reason"].startswith("disk: the run log cannot be written: ")
    assert done.err.splitlines()[-1] == f"error: {told['reason']}"
    assert [said["step"] for said in told["utterances"]] == []
    log = Path("here/run.jsonl").read_bytes()
    assert len(log) <= limit
    assert b"never" not in log


def test_a_show_that_cannot_be_kept_is_an_error_in_its_log_too(shell):
    """When there is no room for the sound, none is left half written, and the log's last line says what the exit code says."""
    shell.write("hello.yaml", "version: 1\nprovider: local\ntimeline:\n  - say: A line.\n")
    assert shell.call("plan", "hello.yaml").code == 0
    done = shell.perform("run", "hello.yaml", "--clock", "virtual", "--out", "here", preexec_fn=small_disk(10_000))
    assert done.code == 4
    assert "error: disk: here cannot be written: " in done.out
    last = checked(Path("here"))[-1]
    assert (last["end"], last["reason"].partition(":")[0]) == ("error", "disk")
    assert sorted(path.name for path in Path("here").iterdir()) == ["captions.srt", "captions.vtt", "plan.json", "run.jsonl"]
    assert shell.call("replay", "here").code == 0


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_streams_that_are_closed_are_no_error(shell, closed):
    """A run whose standard streams were closed by whoever started it goes on, and its files hold nothing but what is theirs."""
    shell.write("hello.yaml", "version: 1\nprovider: local\ntimeline:\n  - wait: 1s\n")
    close = lambda: [os.close(number) for number in closed]  # noqa: E731  # what `preexec_fn` takes
    done = shell.perform("run", "hello.yaml", "--clock", "virtual", "--out", "here", preexec_fn=close)
    assert (done.code, "Traceback" in done.err) == (0, False)
    assert checked(Path("here"))[-1]["end"] == "passed"
    assert shell.perform("check", "hello.yaml", "--json", preexec_fn=close).code == 0


@pytest.mark.parametrize("verb", ["check", "plan", "run", "new"])
def test_a_folder_that_is_gone_is_4(shell, verb):
    """Whoever removed the folder that we are in is told so; there is nothing relative to it."""
    shell.write("hello.yaml")
    gone = Path("gone").absolute()
    gone.mkdir()
    done = shell.perform(verb, str(Path("hello.yaml").absolute()), preexec_fn=lambda: (os.chdir(gone), gone.rmdir()))
    assert (done.code, done.err) == (4, "error: the folder you are in is not there any more\n  go to another one\n")


def test_help_on_a_full_disk_is_4(shell):
    """The overview, too, is a result that may find no room."""
    with open("help.txt", "w") as file:
        done = shell.perform("--help", stdout=file, preexec_fn=small_disk(100))
    assert (done.code, "Traceback" in done.err) == (4, False)


def test_triggers_come_from_a_pipe(shell):
    """`--triggers -` reads names line by line while the show goes on; when the pipe ends, a wait for one more is a stall."""
    waits = "  - wait: {event: next}\n    id: first\n  - wait: {event: more}\n    id: second\n"
    shell.write("wait.yaml", f"version: 1\nprovider: local\nstart: go\ntimeline:\n{waits}")
    process = shell.start("run", "wait.yaml", "--triggers", "-", "--out", "here", stdin=subprocess.PIPE)
    for words, answer in (("is open", "\n"), ("first   wait", "next\n"), ("second  wait", None)):
        shell.until(process, words)
        if answer is not None:
            process.stdin.write(answer)
            process.stdin.flush()
    process.stdin.close()
    process.stdin = None
    told, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "step 'second' waits for the trigger 'more', which nothing can give any more" in told
    lines = checked(Path("here"))
    assert [line["trigger"] for line in of(lines, "event", "trigger")] == ["go", "next"]


KIOSK = "version: 1\nprovider: local\nstart: go\ntimeline:\n  - wait: 500ms\n  - end:\n"


def test_a_kiosk_waits_for_each_visitor(shell):
    """One run after the other reads the same input: what comes during a show is ignored, the next begins another, and the end of the input
    ends the last one with 5."""
    shell.write("kiosk.yaml", KIOSK)
    reading, writing = os.pipe()
    ends = []
    for number in range(3):
        process = shell.start("run", "kiosk.yaml", "--triggers", "-", "--out", str(number), stdin=reading)
        for line in shell.told(process):
            if "is open" in line and number < 2:
                os.write(writing, b"go\n")
            elif "is open" in line:
                os.close(writing)
            elif "wait 500ms" in line:
                os.write(writing, b"go\n")
        process.wait(20)
        ends.append(process.returncode)
    assert ends == [0, 0, 5]
    assert [line["reason"] for line in of(checked(Path("0")), "note", "ignored")] == ["nothing waits for the trigger 'go'"]
    last = checked(Path("2"))[-1]
    assert (last["end"], last["reason"]) == ("error", "nothing ran: the input ended before the trigger 'go' came")
    assert shell.call("replay", "2").code == 0
    os.close(reading)


@pytest.mark.parametrize("left", ["a pipe", "nothing"])
def test_no_session_is_opened_for_an_input_that_has_ended(shell, left):
    """When nobody can begin a show any more, nothing is opened, and nothing is left behind."""
    shell.write("kiosk.yaml", KIOSK)
    if left == "nothing":
        stdin = subprocess.DEVNULL
    else:
        stdin, writing = os.pipe()
        os.close(writing)
    done = shell.perform("run", "kiosk.yaml", "--triggers", "-", stdin=stdin)
    assert (done.code, done.out, done.err) == (5, "", "nothing ran: the input ended before the trigger 'go' came\n")
    assert not Path("runs").exists()
    if left == "a pipe":
        os.close(stdin)


def test_a_last_line_without_an_end_counts(shell):
    """What a pipe gives last is a trigger, with a line's end behind it or without, as in a file."""
    shell.write("kiosk.yaml", KIOSK)
    reading, writing = os.pipe()
    os.write(writing, b"go")
    os.close(writing)
    assert shell.perform("run", "kiosk.yaml", "--triggers", "-", stdin=reading).code == 0
    os.close(reading)


# --- at a terminal ------------------------------------------------------------------------------------------------------


class Terminal:
    """A real command at a terminal of its own, 70 columns wide."""

    def __init__(self, shell, *argv: str, **env: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 70, 0, 0))

        def control() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [sys.executable, "-m", "playbook", *argv],
            cwd=shell.folder,
            env=shell.env | env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=control,
        )
        os.close(slave)
        self.seen = ""

    def until(self, pattern: str) -> None:
        """Read what is shown until it matches."""
        while not re.search(pattern, self.seen):
            ready, _, _ = select.select([self.master], [], [], 20)
            assert ready, f"{pattern!r} was never shown: {self.seen!r}"
            self.read()

    def read(self) -> bool:
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other end is closed
            data = b""
        self.seen += data.decode()
        return bool(data)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        while self.read():
            pass
        os.close(self.master)
        return self.process.wait(timeout=20)


WATCHED = """\
version: 1
name: watched
provider: local
start: go
timeline:
  - say: A line that can be watched while it is being said, and one that is wider than the terminal.
    id: line
    until: 800ms
  - interrupt:
  - wait: {event: next}
    id: pause
"""


def test_a_stall_on_the_virtual_clock_at_a_terminal(shell):
    """There is somebody, but time does not wait for him: the remedy is the clock, and no other terminal."""
    terminal = Terminal(shell, "run", shell.write("watched.yaml", WATCHED), "--clock", "virtual")
    assert terminal.end() == 1
    assert "rehearse with `--trigger go`, or with `--clock system`" in " ".join(terminal.seen.split())
    assert "at a terminal" not in terminal.seen


def test_a_run_at_a_terminal(shell):
    """A live line shows step, elapsed time and what is next; Enter is `go`, a typed line is that trigger; colours are used."""
    terminal = Terminal(shell, "run", shell.write("watched.yaml", WATCHED), "--out", "here")
    terminal.until(r"waits for the trigger 'go': press Enter")
    terminal.type("\n")
    terminal.until(r"line  0\.\d s of 0\.8 s   next: interrupt")
    terminal.until(r"waits for the trigger 'next': type next and press Enter")
    terminal.type("next\n")
    assert terminal.end() == 0
    said = r"\x1b\[34mline {7}\x1b\[0m  A line that can be watched while it is being\r\n {24}said, and one that is wider"
    assert re.search(said, terminal.seen)
    assert "\x1b[1;32mpassed\x1b[0m" in terminal.seen
    live = [row for row in re.split(r"[\r\n]+|\x1b\[2K", terminal.seen) if "next: " in row]
    assert live
    assert all(len(re.sub(r"\x1b\[[\d;]*m", "", row)) < 70 for row in live)
    assert [line["trigger"] for line in of(checked(Path("here")), "event", "trigger")] == ["go", "next"]


@pytest.mark.parametrize("argv", [("providers",), ("--help",), ("providers", "kaltura"), ("run", "late.yaml"), ("run", "long.yaml")])
def test_nothing_is_wider_than_the_terminal(shell, argv):
    """Overviews, errors, reasons and progress are broken between words; a step's long id has a row of its own."""
    waits = "  - wait: {event: a-visitor-who-never-comes}\n    timeout: 100ms\n"
    shell.write("late.yaml", f"version: 1\nprovider: local\ntimeline:\n{waits}")
    long = "    id: a-name-of-more-than-a-third\n    expect: {lasts: {min: 60s}}\n"
    shell.write("long.yaml", f"version: 1\nprovider: local\ntimeline:\n  - say: Some words that are said.\n{long}")
    terminal = Terminal(shell, *argv, NO_COLOR="1")
    terminal.end()
    rows = [row for row in re.split(r"[\r\n]+|\x1b\[2K", terminal.seen) if row]
    assert rows
    assert [row for row in rows if len(row) > 70] == []
    if argv[-1] == "long.yaml":
        assert "  a-name-of-more-than-a-third\r\n" + " " * 36 + "Some words that are said.\r\n" in terminal.seen


def test_no_colour_and_no_live_line_where_unwanted(shell):
    """NO_COLOR takes the colours away, CI the live line."""
    shell.write("hello.yaml", "version: 1\nprovider: local\ntimeline:\n  - say: Welcome.\n    id: hello\n")
    terminal = Terminal(shell, "run", "hello.yaml", "--out", "here", NO_COLOR="1", CI="true")
    assert terminal.end() == 0
    assert "\x1b" not in terminal.seen
    assert "next: " not in terminal.seen
    assert "hello  Welcome.\r\n" in terminal.seen


def test_ctrl_c_at_a_terminal(shell):
    """Ctrl-C reaches the run once, which stops in order."""
    terminal = Terminal(shell, "run", shell.write("watched.yaml", WATCHED), "--out", "here")
    terminal.until("press Enter")
    terminal.type("\n")
    terminal.until("next: ")
    terminal.type("\x03")
    assert terminal.end() == 130
    assert checked(Path("here"))[-1]["end"] == "stopped"


# --- cold start ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "heavy"),
    [
        (
            ["--help"],
            {"asyncio", "shutil", "jinja2", "yaml", "jsonschema", "httpx", "rich", "numpy", "playbook.language", "playbook.model"},
        ),
        (
            ["check", "hello.yaml"],
            {
                "asyncio",
                "jsonschema",
                "httpx",
                "rich",
                "numpy",
                "soundfile",
                "starlette",
                "uvicorn",
                "daily",
                "playbook.perform.performance",
            },
        ),
    ],
    ids=["help", "check"],
)
def test_a_cold_start_imports_nothing_heavy(shell, argv, heavy):
    """What a quick command does not need, it does not import."""
    shell.write("hello.yaml")
    code = f"import sys; from playbook.cli import main; code = main({argv!r}); print(*sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], cwd=shell.folder, env=shell.env, capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.splitlines()[-1].split())


def test_a_python_program(shell):
    """`import playbook` imports nothing else; what it exports is there when it is used."""
    code = "import sys, playbook; print(sorted(name for name in sys.modules if name.startswith('playbook')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=shell.folder, env=shell.env, capture_output=True, text=True, check=True)
    assert done.stdout == "['playbook']\n"
