"""The local engine: worker processes on this machine, each with a GPU or a share of the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from medplus.errors import MedplusError, SweepError
from medplus.sweep.claims import Claim
from medplus.sweep.engines import LOOK_S, PATIENCE_S, End, look_after, prepare, work
from medplus.sweep.grid import Grid
from medplus.sweep.job import Place
from medplus.sweep.resources import cores, gpus, times_out_of_memory

_SPAWN = multiprocessing.get_context("spawn")
_INTERRUPTED, _REFUSED = 130, 7


class LocalEngine:
    """Starts worker processes, and another one where one dies.

    Parameters
    ----------
    workers : int, optional
        Number of processes; one per GPU by default, one on a machine without.
    device : str
        As for `medplus.extract`; with a GPU per worker, a worker sees only its own.
    """

    def __init__(self, workers: int | None = None, device: str = "auto") -> None:
        self._gpus = [] if device == "cpu" else gpus()
        self.workers = workers or len(self._gpus) or 1
        self._out_of_memory = 0
        self._processes: dict[str, BaseProcess] = {}

    def run(self, grid: Grid, place: Place, most: int) -> Generator[None]:
        """Start workers; see `medplus.sweep.engines.Engine`."""
        self._out_of_memory = times_out_of_memory()
        size = min(self.workers, most)
        seats = dict(_seat(number, size, self._gpus) for number in range(size))

        def start(name: str) -> None:
            arguments = name, seats[name], max(cores() // size, 1), grid, place, os.getpid()
            process = _SPAWN.Process(target=_work, args=arguments, name=f"medplus {name}")
            with _deaf():
                process.start()
            self._processes[name] = process

        try:
            yield from look_after(seats, start, self._ended, place)
        finally:
            _stop(self._processes.values())
            self._processes = {}

    def _ended(self) -> Iterator[End]:
        wait([process.sentinel for process in self._processes.values()], LOOK_S)
        for name, process in list(self._processes.items()):
            if not process.is_alive():
                process.join()
                del self._processes[name]
                if process.exitcode == _REFUSED:
                    raise SweepError(f"{name} could not go on, for the reason above")
                yield End(name, self._cause_of_death(process.exitcode), _claims_of(process.pid))

    def _cause_of_death(self, code: int | None) -> str:
        if code in (0, _INTERRUPTED):
            return ""
        before, self._out_of_memory = self._out_of_memory, times_out_of_memory()
        if code is None or code >= 0:
            return f"its process ended by itself with exit code {code}; its log may tell why"
        name = signal.Signals(-code).name
        remedy = "use fewer --workers, or a smaller batch_size in the grid"
        if code != -signal.SIGKILL:
            return f"its process was killed by {name}; its log may tell why"
        if self._out_of_memory > before:
            return f"the system ran out of memory and killed its process ({name}); {remedy}"
        return (
            f"its process was killed by {name}, which the system does when memory runs out; if so, "
            f"{remedy}"
        )


def _claims_of(pid: int | None) -> Callable[[Claim], bool]:
    here = socket.gethostname()
    return lambda claim: (claim.host, claim.pid) == (here, pid)


def _seat(number: int, workers: int, devices: list[str]) -> tuple[str, str | None]:
    """Return a worker's name, and its GPU.

    It is called by its GPU, and by its number on that GPU if it shares it.
    """
    if not devices:
        return f"worker {number + 1}", None
    device = devices[number % len(devices)]
    share = f".{number // len(devices) + 1}" if workers > len(devices) else ""
    return f"GPU {device}{share}", device


def _stop(processes: Collection[BaseProcess]) -> None:
    """Interrupt workers, and wait until they have saved what they can; or kill them."""
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(PATIENCE_S)
    except KeyboardInterrupt:
        pass  # whoever asks twice does not want to wait
    for process in processes:
        process.kill()
        process.join()


@contextmanager
def _deaf() -> Iterator[None]:
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
    name: str, gpu: str | None, threads: int, grid: Grid, place: Place, parent: int
) -> None:  # what a worker process runs
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before torch is imported
    try:
        prepare(threads)
        work(grid, place, name, parent)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except (MedplusError, OSError) as error:
        print(f"{name} ends: {error}", file=sys.stderr)
        sys.exit(_REFUSED)
