"""The local engine: worker processes on this machine, each with a GPU or a share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from medplus.errors import SweepError
from medplus.sweep.desk import Desk
from medplus.sweep.engines import perform
from medplus.sweep.events import Ended, Event, Perform, Started
from medplus.sweep.job import Job, Place, Task
from medplus.sweep.resources import cores, gpus, times_out_of_memory

_SPAWN = multiprocessing.get_context("spawn")
_PATIENCE_S = 60.0
_IDLE = None
"""What a worker sends when it has no task."""


class LocalEngine:
    """Runs tasks in processes that are started once and used again.

    A worker goes on with the images that it has read already, where any tasks on them are left;
    otherwise it takes the largest task, if possible one on images that no other worker is reading.

    Parameters
    ----------
    workers : int, optional
        Number of processes; one per GPU by default, one on a machine without.
    device : str
        As for `medplus.extract`; with a GPU per worker, a worker sees only its own.
    perform : callable
        What a worker does with a task.
    """

    def __init__(
        self,
        workers: int | None = None,
        device: str = "auto",
        perform: Perform = perform,
    ) -> None:
        self._perform = perform
        self._gpus = [] if device == "cpu" else gpus()
        self.workers = workers or len(self._gpus) or 1

    def run(self, tasks: Sequence[Task], place: Place) -> Generator[Event]:
        """Run tasks; see `medplus.sweep.engines.Engine`."""
        pool = _Pool(min(self.workers, len(tasks)), self._gpus, place, self._perform)
        try:
            yield from pool.run(list(tasks))
        except BaseException:
            pool.stop()
            raise
        finally:
            pool.close()


@dataclass
class _Worker:
    """A process, the pipe to it, and what it is busy with: at first, with starting."""

    name: str
    process: SpawnProcess
    pipe: Connection
    busy: bool = True
    task: Task | None = None
    job: Job | None = None
    group: tuple[str, int | None] | None = None


class _Pool:
    def __init__(self, size: int, devices: list[str], place: Place, perform: Perform) -> None:
        self._perform = perform
        self._size = size
        self._devices = devices
        self._place = place
        self._desk = Desk(Path(place.runs))
        self._out_of_memory = times_out_of_memory()
        self._workers: list[_Worker] = []

    def run(self, queue: list[Task]) -> Iterator[Event]:
        self._workers = [self._start(i) for i in range(self._size)]
        while busy := [worker for worker in self._workers if worker.busy]:
            ready = wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe in ready:
                    yield from self._hear(worker, queue)

    def _start(self, number: int) -> _Worker:
        parent, child = _SPAWN.Pipe()
        settings = _environment(number, self._size, self._devices)
        name = _name(number, self._size, self._devices)
        process = _SPAWN.Process(
            target=_work,
            args=(name, child, settings, self._place, self._perform),
            name=f"medplus {name}",
        )
        with _silenced():
            process.start()
        child.close()
        return _Worker(name, process, parent)

    def _give(self, worker: _Worker, queue: list[Task]) -> None:
        """Give a worker its next task, if there is one."""
        worker.task = worker.job = None
        worker.busy = bool(queue)
        if not queue:
            return
        others = {w.group for w in self._workers if w is not worker and w.task}
        worker.task = next((t for t in queue if t.group == worker.group), None) or next(
            (t for t in queue if t.group not in others), queue[0]
        )
        worker.group = worker.task.group
        queue.remove(worker.task)
        with suppress(OSError):  # it has died: its pipe will tell
            worker.pipe.send(worker.task)

    def _hear(self, worker: _Worker, queue: list[Task]) -> Iterator[Event]:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._bury(worker, queue)
            return
        if message is _IDLE:
            self._give(worker, queue)
            return
        if isinstance(message, Started):
            worker.job = message.job
        if isinstance(message, Ended) and worker.task is not None:
            jobs = tuple(job for job in worker.task.jobs if job != message.job)
            worker.task = replace(worker.task, jobs=jobs)
            worker.job = None
        yield message

    def _bury(self, worker: _Worker, queue: list[Task]) -> Iterator[Event]:
        """Tell of the job whose process has died, and put another process in its place."""
        worker.process.join()
        message = self._cause_of_death(worker.process.exitcode)
        task, job = worker.task, worker.job
        if task is None:
            raise SweepError(f"{worker.name} could not start: {message}")
        if task.jobs:
            job = job or task.jobs[0]
            self._desk.record_death(job, message, socket.gethostname(), worker.process.pid or 0)
            yield Ended(worker.name, job, "failed", message=message)
            rest = task.after(job)
            if rest is not None:
                queue.insert(0, rest)
            else:
                for other in task.jobs[task.jobs.index(job) + 1 :]:
                    yield Ended(worker.name, other, "blocked")
        worker.pipe.close()
        worker.busy = False
        if queue:
            place = self._workers.index(worker)
            self._workers[place] = self._start(place)

    def _cause_of_death(self, code: int | None) -> str:
        before, self._out_of_memory = self._out_of_memory, times_out_of_memory()
        if code is None or code >= 0:
            return f"its process ended by itself with exit code {code}; its log may tell why"
        name = signal.Signals(-code).name
        if code != -signal.SIGKILL:
            return f"its process was killed by {name}; its log may tell why"
        remedy = "use fewer --workers, or a smaller batch_size in the grid"
        if self._out_of_memory > before:
            return f"the system ran out of memory and killed its process ({name}); {remedy}"
        return (
            f"its process was killed by {name}, which the system does when memory runs out; if so, "
            f"{remedy}"
        )

    def stop(self) -> None:
        """Interrupt the workers, and wait until they have saved what they can; or kill them."""
        try:
            for worker in self._workers:
                worker.process.terminate()
            for worker in self._workers:
                worker.process.join(_PATIENCE_S)
        except KeyboardInterrupt:
            for worker in self._workers:
                worker.process.kill()

    def close(self) -> None:
        """Let idle workers end, and end all others."""
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(_PATIENCE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _name(number: int, workers: int, devices: list[str]) -> str:
    """Return what a worker is called: by its GPU, and its number on that GPU if it shares it."""
    if not devices:
        return f"worker {number + 1}"
    gpu = f"GPU {devices[number % len(devices)]}"
    return gpu if workers <= len(devices) else f"{gpu}.{number // len(devices) + 1}"


def _environment(number: int, workers: int, devices: list[str]) -> dict[str, str]:
    """Return what a worker's environment must hold before torch is imported."""
    threads = str(max(cores() // workers, 1))
    settings = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if devices:
        settings["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return settings


@contextmanager
def _silenced() -> Iterator[None]:
    """Let a process begin deaf to Ctrl-C, which reaches the whole group of processes.

    The parent alone hears it, and passes it on as SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(
    name: str,
    pipe: Connection,
    settings: dict[str, str],
    place: Place,
    perform: Perform,
) -> None:
    """Do tasks until there are no more: what a worker process runs."""
    os.environ.update(settings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            pipe.send(_IDLE)
            perform(pipe.recv(), place, name, _Teller(pipe))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        sys.exit()  # the parent has no more work, wants no more, or is gone


class _Teller:
    """Sends events to the parent; where that is gone, the worker is interrupted."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe: Connection | None = pipe

    def __call__(self, event: Event) -> None:
        if self._pipe is None:
            return
        try:
            self._pipe.send(event)
        except OSError:
            self._pipe = None
            signal.raise_signal(signal.SIGTERM)
