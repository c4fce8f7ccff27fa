"""What Prometheus is told of a kiosk: counted from the entries of its log as they are written, and asked of it when
somebody looks."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from playbook.kiosk.operation import Operation
from playbook.kiosk.proof import Entry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SILENCES_S = (0.25, 0.5, 1, 2, 4, 8, 16)


class Metrics:
    """The metrics of one kiosk. `take` sees every entry of its log."""

    def __init__(self, kiosk: str) -> None:
        self.registry = CollectorRegistry()
        self._kiosk = kiosk
        self._shows = self._counter("shows", "Shows that were performed.", "show", "rung", "end")
        self._refused = self._counter("refused", "Shows that were asked for and not performed.", "show")
        self._changes = self._counter("rung_changes", "How often a rung began to perform.", "rung")
        self._failures = self._counter("rung_failures", "How often a rung was left in a show.", "rung")
        self._cost = self._counter("cost", "What sessions are estimated to have cost.")
        self._starts = self._counter("starts", "How often the kiosk was started since this process began.")
        self._silence = Histogram(
            "playbook_kiosk_silence_seconds",
            "Silences that a change of rung made in a line.",
            ("kiosk",),
            registry=self.registry,
            buckets=SILENCES_S,
        ).labels(kiosk)

    def take(self, entry: Entry) -> None:
        """Count an entry."""
        self._cost.labels(self._kiosk).inc(entry.get("cost", 0.0))
        event = entry["event"]
        if event == "show":
            self._shows.labels(self._kiosk, entry["show"], entry["rung"], entry["end"]).inc()
            for run in entry["runs"][:-1]:
                self._failures.labels(self._kiosk, run["rung"]).inc()
            if "silence_ms" in entry:
                self._silence.observe(entry["silence_ms"] / 1000)
        elif event == "refused":
            self._refused.labels(self._kiosk, entry["show"]).inc()
        elif event == "rung":
            self._changes.labels(self._kiosk, entry["rung"]).inc()
        elif event == "opened" and entry["cause"] != "hours":
            self._starts.labels(self._kiosk).inc()

    def watch(self, operation: Operation) -> None:
        """Ask this kiosk whenever somebody looks."""
        self._gauge("open", "Whether it is open.", lambda: float(operation.is_open))
        self._gauge("performing", "Whether a show is being performed.", lambda: float(operation.performing is not None))
        self._gauge("possible", "Whether a show is possible.", lambda: float(operation.rungs.best() is not None))
        self._gauge("disk_full", "Whether its log cannot be written.", lambda: float(operation.proof.disk is not None))
        rung = Gauge("playbook_kiosk_rung", "Which rung performs.", ("kiosk", "rung"), registry=self.registry)
        for name in operation.kiosk.ladder:
            rung.labels(self._kiosk, name).set_function(lambda name=name: float(operation.rungs.current == name))  # type: ignore[misc]  # bound now

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"playbook_kiosk_{name}", about, ("kiosk", *labels), registry=self.registry)

    def _gauge(self, name: str, about: str, value: Callable[[], float]) -> None:
        Gauge(f"playbook_kiosk_{name}", about, ("kiosk",), registry=self.registry).labels(self._kiosk).set_function(value)
