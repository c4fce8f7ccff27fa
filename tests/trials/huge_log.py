"""Logs of gigabytes: whoever reads one reads it line by line, in the memory that a small one takes.

The log is that of a kiosk that waited for somebody for weeks, while all went wrong around it that can: people pressed what nobody waited
for, the vendor reported lines that were never sent, accepted one again and again, said that it had said other words, and failed. Every
line of it follows from today's engine, so that replay must call it identical.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import playbook
from playbook.engine import Engine
from playbook.events import Effect, Event, ProviderFailed, SpeechEnded, SpeechStarted, TaskAccepted, Trigger
from playbook.model import Evidence, Plan
from playbook.record.runlog import Header, encode_line, to_line
from tests.bench import peak_mb
from tests.scripts import FakeProvider

KIOSK = """\
version: 1
name: kiosk
provider: local
expect: {evidence: estimated}
timeline:
  - say: Welcome. Touch the screen whenever you like.
    id: welcome
    expect: {absent: [interrupted]}
  - wait: {event: touched}
  - say: Goodbye, and come again.
    id: goodbye
"""
BLOCK = 1 << 20
_ID = "4242424242"
"""Stands for a number that is another one each time."""
WEATHER: tuple[Event, ...] = (
    Trigger("movement"),
    SpeechStarted(f"line-{_ID}"),
    SpeechEnded(f"line-{_ID}", Evidence.reported),
    TaskAccepted(f"line-{_ID}", provider_task=f"vendor-{_ID}"),
    TaskAccepted("welcome", provider_task=f"vendor-{_ID}"),
    SpeechStarted("welcome", text=f"Welcome! Somebody stands at door {_ID}. You may touch the screen now, or later, as you like it best."),
    SpeechEnded("welcome", Evidence.heard, interrupted=True),
    ProviderFailed(task=f"line-{_ID}", outcome="refused", reason=f"503 the service is busy, come again later (request {_ID})"),
)
"""What happens again and again, and changes nothing."""


def kiosk(folder: Path) -> Plan:
    """The playbook, written to `kiosk.yaml`, as a plan."""
    (folder / "kiosk.yaml").write_text(KIOSK)
    return playbook.load(folder / "kiosk.yaml")


def header(plan: Plan) -> bytes:
    """The first line of a log of this plan."""
    told = Header(
        run="kiosk-1",
        playbook=plan.name,
        file=plan.file,
        plan_sha256=plan.sha256,
        provider=plan.provider,
        clock="system",
        started_at="2026-01-01T00:00:00Z",
        versions={},
    )
    return encode_line(told.to_line())


def write_log(path: Path, plan: Plan, size: int) -> int:
    """A log of at least `size` bytes. Returns how many lines it has below the header."""
    engine, provider = Engine(plan), FakeProvider()
    n = now = 0

    def lines(items: tuple[Event | Effect, ...]) -> bytes:
        nonlocal n
        n += len(items)
        return b"".join(encode_line(to_line(item, n - len(items) + k, now)) for k, item in enumerate(items, 1))

    def follow(effects: tuple[Effect, ...]) -> bytes:
        for effect in effects:
            provider.take(effect, now)
        return lines(effects)

    def play() -> bytes:
        """On to where nothing more happens by itself."""
        nonlocal now
        found = []
        while not engine.done and (happened := provider.next()) is not None:
            now, event = happened
            found += [lines((event,)), follow(engine.handle(event, now))]
        return b"".join(found)

    with open(path, "wb") as file:
        file.write(header(plan) + follow(engine.begin()) + play())
        weather = Template(tuple(item for event in WEATHER for item in (event, *engine.handle(event, now))))
        round = 0
        while file.tell() < size:
            some = []
            for _ in range(400):
                round, now = round + 1, now + 70
                some.append(weather.at(n, now, round))
                n += weather.length
            file.write(b"".join(some))
        provider.at(now, Trigger("touched"))
        file.write(play())
        assert engine.result is not None
        file.write(encode_line({"n": n + 1, "at_ms": now, "end": engine.result.end, "counts": {}}))
    return n + 1


class Template:
    """Lines of a log that come again and again, with other numbers."""

    def __init__(self, items: tuple[Event | Effect, ...]) -> None:
        self.length = len(items)
        text = b"".join(encode_line(to_line(item, k, 0)) for k, item in enumerate(items, 1)).replace(b"%", b"%%")
        slots = re.compile(rb'(?<="n":)\d+|(?<="at_ms":)0|' + _ID.encode())
        self._slots = [0 if slot == b"0" else -1 if slot == _ID.encode() else int(slot) for slot in slots.findall(text)]
        self._text = slots.sub(b"%d", text)

    def at(self, n: int, at_ms: int, id: int) -> bytes:
        """The lines, where `n` were before them."""
        return self._text % tuple([at_ms if slot == 0 else id if slot < 0 else n + slot for slot in self._slots])


def one_line(path: Path, start: bytes, size: int) -> None:
    """A file that begins like this and goes on with one line that has no end."""
    _fill(path, start, size, lambda _: b'{"n":1,"event":"' + b"a" * (BLOCK - 16))


def rubbish(path: Path, start: bytes, size: int) -> None:
    """A file that begins like this and goes on with all bytes there are, with line breaks among them."""
    _fill(path, start, size, lambda n: bytes(range(n % 200, 256)) * (BLOCK // 256))


def other_lines(path: Path, start: bytes, size: int) -> None:
    """A file that begins like this and goes on with lines that are well made, and nothing that an engine says."""
    line = '{"n":%d,"at_ms":%d,"note":"conflict","task":"task-%d","reason":"nothing that an engine says"}\n'
    _fill(path, start, size, lambda block: "".join(line % (n, n, n) for n in range(block * 5_000 + 1, block * 5_000 + 5_001)).encode())


def _fill(path: Path, start: bytes, size: int, block: Callable[[int], bytes]) -> None:
    with open(path, "wb") as file:
        file.write(start)
        n = 0
        while file.tell() < size:
            file.write(block(n))
            n += 1


# --- whoever reads it -----------------------------------------------------------------------------------------------------

CHILD = """
import contextlib, io, os, sys
from playbook.cli import main
code, words, *argv = sys.argv[1:]
shown = io.StringIO()
with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
    found = main(argv, dict(os.environ))
assert found == int(code) and words in shown.getvalue(), f"exit {found}: {shown.getvalue()[-2000:]}"
"""
CAPTIONS = """
import sys
from pathlib import Path
import playbook
from playbook.record.captions import write_captions
from playbook.record.expect import failed_expectations
from playbook.record.runlog import read_log
from playbook.record.summary import RunSummary
from playbook.speech.show import ShowRecorder
log, file = Path(sys.argv[1]), sys.argv[2]
summary = RunSummary()
for line in read_log(log):
    summary.take(line)
summary.counts()
assert failed_expectations(playbook.load(file), summary) == ()
write_captions(log.parent, summary, ShowRecorder())
"""


@dataclass(frozen=True)
class Read:
    """One reader on one log: the most memory that it took, and what it took for a log of the same kind that is small."""

    what: str
    peak_mb: float
    small_mb: float


def read_huge_logs(folder: Path, size: int, small: int) -> Iterator[Read]:
    """Every kind of log, by every reader, each in a process of its own."""
    plan = kiosk(folder)
    log, little = folder / "huge.jsonl", folder / "small.jsonl"

    def read(what: str, code: int, words: str, *argv: str) -> Read:
        """The command line with LOG for the log."""
        peaks = [peak_mb(CHILD, str(code), words, *[str(path) if each == "LOG" else each for each in argv]) for path in (log, little)]
        return Read(what, *peaks)

    for path, length in ((log, size), (little, small)):
        write_log(path, plan, length)
    yield read("replay of a kiosk's weeks", 0, "identical:", "replay", "LOG")
    yield read("the same as JSON", 0, '"identical": true', "replay", "LOG", "--json")
    yield read("diff with itself, and its page", 0, '"same": true', "diff", "LOG", "LOG", "--json", "--html", str(folder / "page.html"))
    yield Read("expectations and captions", *[peak_mb(CAPTIONS, str(path), plan.file) for path in (log, little)])
    (folder / "other.yaml").write_text(KIOSK.replace("Welcome.", "Good evening."))
    yield read("replay of another playbook", 1, "diverged", "replay", "LOG", "--playbook", str(folder / "other.yaml"))
    for path in (log, little):
        with open(path, "rb+") as torn:
            torn.truncate(path.stat().st_size // 2 - 5)
    yield read("replay of half of it", 1, "identical as far as it goes", "replay", "LOG")
    yield read("diff of half of it", 1, "is damaged", "diff", "LOG", str(little))
    begin = header(plan)
    for name, write in (("one line", one_line), ("rubbish", rubbish), ("other lines", other_lines)):
        for path, length in ((log, size), (little, small)):
            write(path, begin, length)
        told = "diverged" if write is other_lines else "cut off or damaged"
        yield read(f"replay of {name} below a header", 1, told, "replay", "LOG")
        yield read(f"diff of {name} below a header", 1, "is damaged", "diff", "LOG", str(little))
        if write is not other_lines:
            for path, length in ((log, size), (little, small)):
                write(path, b"", length)
            yield read(f"replay of {name}", 2, "is not a run log", "replay", "LOG")
            yield read(f"diff of {name}", 2, "is not a run log", "diff", "LOG", str(little))
    (folder / "kiosk.yaml").unlink()
    yield read("replay without a plan", 2, "there is no plan beside", "replay", "LOG")
