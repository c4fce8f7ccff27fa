"""Several cases at a time.

With more than one worker, cases run in processes of their own, each on its own loop, and a signal to us stops every one in order, so that
no session stays open. Everything that goes to a worker or comes back is plain data, and what comes back has no secrets in it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from playbook.perform.performance import SIGNALS
from playbook.perform.world import World
from playbook.suite.case import Task
from playbook.suite.judge import Result, Setup, perform, result_of


class Suite:
    """Performs tasks, `jobs` at a time, and hands each result to `done` as it comes. A signal stops what runs, and nothing more begins."""

    def __init__(self, setup: Setup, jobs: int, *, fail_fast: bool = False, done: Callable[[Result], None] | None = None) -> None:
        self._setup, self._jobs, self._fail_fast = setup, jobs, fail_fast
        self._done = done or (lambda _: None)
        self._why_not = ""
        self.stopped_by: int | None = None
        """The signal that stopped it."""

    def run(self, todo: Sequence[Task]) -> list[Result]:
        """All results, in the order of the tasks, those that never ran among them."""
        found: dict[int, Result] = {}
        order = {id(task): index for index, task in enumerate(todo)}
        with self._signals():
            results = self._alone(todo) if self._jobs == 1 or len(todo) == 1 else self._together(todo)
            for task, result in results:
                found[order[id(task)]] = result
                self._done(result)
                if result.exit_code in (130, 143):
                    self._why_not = "stopped"
                elif self._fail_fast and result.status in ("failed", "error"):
                    self._why_not = f"--fail-fast: {result.name} {'has failed' if result.status == 'failed' else 'had an error'}"
        why = self._why_not or "stopped"
        return [found.get(index) or result_of(task, "never ran", 0, (why,)) for index, task in enumerate(todo)]

    def _alone(self, todo: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        world = World.of(self._setup.env)
        for task in todo:
            if self._why_not:
                return
            result = perform(task, self._setup, world)
            self._install()  # the runner had the signals meanwhile
            yield task, result

    def _together(self, todo: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        waiting, running = deque(todo), dict[Future[Result], Task]()
        context = multiprocessing.get_context("spawn")
        workers = min(self._jobs, len(todo))
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(self._setup,)) as pool:
            try:
                while running or (waiting and not self._why_not):
                    while waiting and not self._why_not and len(running) < workers:
                        task = waiting.popleft()
                        running[pool.submit(_work, task)] = task
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        task = running.pop(future)
                        yield task, _outcome(future, task)
            except BrokenProcessPool:
                self._why_not = "a worker process died"

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """A signal to us goes on to the workers, where it stops each run in order. (Alone, the runner itself takes it.)"""
        before = self._install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _install(self) -> dict[int, Any]:
        if threading.current_thread() is not threading.main_thread():
            return {}
        nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        return {number: signal.signal(number, self._stop) for number in SIGNALS if not (nohup and number == signal.SIGHUP)}

    def _stop(self, number: int, _: Any) -> None:
        self._why_not = "stopped"
        self.stopped_by = number
        for child in multiprocessing.active_children():
            if child.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


def _outcome(future: Future[Result], task: Task) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        return result_of(task, "error", 70, ("its worker process died",))


@dataclass(slots=True)
class _Worker:
    setup: Setup
    world: World
    busy: bool = False
    orphaned: bool = False


_worker: _Worker | None = None


def _begin_worker(setup: Setup) -> None:
    """A worker has a session of its own, so that Ctrl-C reaches it through us alone, once; and it does not outlive us."""
    global _worker
    os.setsid()
    _worker = _Worker(setup, World.of(setup.env))
    _ignore_signals()
    threading.Thread(target=_follow_parent, args=(_worker,), daemon=True).start()


def _ignore_signals() -> None:
    """Between two cases there is nothing to stop; the runner takes the signals while there is."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _follow_parent(worker: _Worker) -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    worker.orphaned = True
    if worker.busy:
        os.kill(os.getpid(), signal.SIGTERM)  # the run stops in order, and then we do
    else:
        os._exit(1)


def _work(task: Task) -> Result:
    assert _worker is not None
    _worker.busy = True
    try:
        return perform(task, _worker.setup, _worker.world)
    finally:
        _worker.busy = False
        _ignore_signals()
        if _worker.orphaned:
            os._exit(1)
